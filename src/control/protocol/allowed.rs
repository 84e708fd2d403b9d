//! What is never blocked.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use super::target::Target;

/// One address or network that is never blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AllowRow {
    /// Address or network.
    pub address: Target,
    /// Its source: `allow` (configuration), `ignore_file`, `portsentryctl`, `own_addresses`,
    /// `gateways`, `resolvers`, `ssh_peers`, `admins`.
    pub origin: String,
    /// When an administrator who is remembered was connected last; null for all others.
    #[serde(default)]
    pub last_seen: Option<Stamp>,
    /// The DNS name in `allow` that has this address, the first if several have it; null: none.
    #[serde(default)]
    pub name: Option<String>,
    /// When that name was resolved last; null: there is no name.
    #[serde(default)]
    pub resolved: Option<Stamp>,
    /// The file of `allow` that has this network; null: none.
    #[serde(default)]
    pub file: Option<String>,
}

impl AllowRow {
    /// A row without further facts.
    pub fn new(address: Target, origin: impl Into<String>) -> Self {
        Self {
            address,
            origin: origin.into(),
            last_seen: None,
            name: None,
            resolved: None,
            file: None,
        }
    }
}

/// A DNS name in `allow`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AllowedName {
    /// The name.
    pub name: String,
    /// Its addresses, which are never blocked.
    pub addresses: Vec<IpAddr>,
    /// When it was resolved last; null: never.
    pub resolved: Option<Stamp>,
    /// Why the last lookup failed, as a whole or in part; null: it did not.
    pub error: Option<String>,
}
