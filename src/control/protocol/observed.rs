//! What observe mode would have slowed or blocked.

use serde::{Deserialize, Serialize};

use super::allowed::AllowRow;
use super::reply::State;
use super::stamp::Stamp;
use super::target::Target;

/// What observe mode would have slowed or blocked since observing began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Observed {
    /// The mode now: `enforce` or `observe`.
    pub mode: String,
    /// When observing began.
    pub since: Stamp,
    /// How many sources would have been slowed.
    pub slowed: u64,
    /// How many would have been blocked.
    pub blocked: u64,
    /// How many were forgotten: there was no room for more.
    pub forgotten: u64,
    /// The sources, in the order of addresses.
    pub sources: Vec<WouldBeRow>,
}

/// A source that would have been slowed or blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WouldBeRow {
    /// The host, or IPv6 prefix.
    pub address: Target,
    /// What would have happened to it.
    pub would_be: State,
    /// The kind of scan.
    pub scan: Option<String>,
    /// Whether the source is verified.
    pub proven: bool,
    /// The reason as text.
    pub reason: String,
    /// The first probe past the trigger.
    pub since: Stamp,
    /// The last one.
    pub last_seen: Stamp,
    /// Their number.
    pub probes: u64,
    /// The network of this host's own that it is in.
    pub network: Option<Target>,
    /// The services of this host that it has a connection to now, `tcp/22`.
    pub services: Vec<String>,
    /// The entry by which it is never blocked now.
    pub allowed: Option<AllowRow>,
}

impl WouldBeRow {
    /// Whether something speaks for it: the administrator should look at it before scans are
    /// blocked.
    pub fn is_familiar(&self) -> bool {
        self.network.is_some() || !self.services.is_empty() || self.allowed.is_some()
    }
}
