//! The object of a request: an address or a network, as text, in JSON, and as the engine's source.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::Source;

/// An address, or a network in CIDR form (its host bits are cleared).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// One address; of IPv6, the source of `block.ipv6.first` bits that it belongs to is blocked.
    Address(IpAddr),
    /// A network.
    Network(IpNet),
}

impl Target {
    /// The network; a single address as `/32` or `/128`.
    pub fn network(self) -> IpNet {
        match self {
            Self::Address(address) => IpNet::from(address),
            Self::Network(network) => network,
        }
    }

    /// The source that a block of this target applies to: for a single IPv6 address its prefix of
    /// `ipv6_bits` bits.
    pub fn source(self, ipv6_bits: u8) -> Source {
        match self {
            Self::Address(address) => Source::of(address, ipv6_bits),
            Self::Network(network) => Source::from(network),
        }
    }
}

impl From<Source> for Target {
    fn from(source: Source) -> Self {
        if source.is_single() {
            Self::Address(source.addr())
        } else {
            Self::Network(source.network())
        }
    }
}

impl Ord for Target {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.network().cmp(&other.network())
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// The text is neither an address nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTarget;

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an address (192.0.2.1, 2001:db8::1) nor a network (192.0.2.0/24, 2001:db8::/48)")
    }
}

impl std::error::Error for NoTarget {}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        text.parse::<IpNet>().map(|network| Self::Network(network.trunc())).map_err(|_| NoTarget)
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::stamp::text(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f:.]+(/[0-9]+)?$" })
    }
}
