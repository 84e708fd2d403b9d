//! The answer to "what would happen to packets of this address?".

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::allowed::AllowRow;
use super::reply::BlockRow;
use super::target::Target;
use crate::probe::Port;

/// A port of this host, in JSON `"tcp/22"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortName(pub Port);

impl Serialize for PortName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// What would happen to packets of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tested {
    /// The address.
    pub address: Target,
    /// How the rules treat it now.
    pub standing: Standing,
    /// Whether the daemon only observes: nothing is dropped then.
    pub observed: bool,
    /// The entry by which it is never blocked.
    pub allowed: Option<AllowRow>,
    /// The entry within its IPv6 prefix for which it is not blocked: it is counted as that prefix.
    #[serde(default)]
    pub allowed_in_prefix: Option<AllowRow>,
    /// The block that covers it, or how it is slowed.
    pub block: Option<BlockRow>,
    /// The blocked network that it is exempt from, if nothing else blocks it.
    pub exempt_from: Option<Target>,
    /// Distinct closed ports that it touched within the window.
    pub touched: u64,
    /// Distinct closed ports that it may touch without a reaction.
    pub trigger: u64,
    /// Interfaces over which nothing of it is slowed or blocked (`allow`).
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// The ports asked about.
    pub ports: Vec<TestedPort>,
}

/// How the rules treat an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As any other: its probes count.
    Counted,
    /// It is never blocked; its probes are reported.
    Allowed,
    /// Its probes are dropped, its new connections wait for a second, everything else passes.
    Slowed,
    /// What it opens is dropped.
    Unproven,
    /// Everything of it is dropped.
    Blocked,
}

/// What would happen to a packet to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TestedPort {
    /// The port.
    pub port: PortName,
    /// What is behind it.
    #[serde(rename = "use")]
    pub use_of: PortUse,
    /// What happens to a packet that opens a connection to it.
    pub outcome: Outcome,
    /// Whether that packet is a probe, which counts or is reported.
    pub is_probe: bool,
}

/// What is behind a port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PortUse {
    /// A service listens, or did within a day.
    Service,
    /// A decoy of connect mode.
    Decoy,
    /// Nothing, and the rules watch it.
    Watched,
    /// The rules do not watch it.
    Unwatched,
}

/// What happens to a packet that opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It passes: other firewalls and the kernel decide, which refuses a closed port.
    Passes,
    /// It passes when it is retransmitted, after a second; over UDP some pass.
    Waits,
    /// A decoy takes the connection.
    Decoy,
    /// It is dropped, or answered as a closed port answers: a random half of the ports is.
    EitherWay,
    /// It is dropped.
    Dropped,
}

#[cfg(test)]
impl schemars::JsonSchema for PortName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(tcp|udp)/[0-9]+$" })
    }
}
