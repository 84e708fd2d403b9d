//! What the daemon answers: a reply a line, and the rows of its lists.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::Refusal;
use super::stamp::Stamp;
use super::status::Status;
use super::target::Target;

/// Rows of a list that stand in one line: some ten kilobytes.
pub const ROWS_PER_LINE: usize = 64;

/// What the daemon answers; in JSON the key `reply` has the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The daemon's status.
    Status(Box<Status>),
    /// A part of what is blocked, in the order of addresses.
    Blocks {
        /// The rows.
        rows: Vec<BlockRow>,
        /// Another part follows.
        more: bool,
    },
    /// What is known of an address.
    Shown(Box<Shown>),
    /// It is done.
    Done {
        /// What was done, for people.
        message: String,
    },
    /// What is never blocked.
    Allowed {
        /// The entries, in the order of addresses.
        rows: Vec<AllowRow>,
    },
    /// The ruleset.
    Rules {
        /// As nft(8) reads it.
        text: String,
    },
    /// A part of the blocks of the past, oldest first.
    History {
        /// The rows.
        rows: Vec<HistoryRow>,
        /// Another part follows.
        more: bool,
    },
    /// Events follow.
    Watching {},
    /// Something happened: an object as `log.format: json` writes it.
    Event {
        /// The object.
        event: Value,
    },
    /// The request was refused, or there is nothing to show.
    Error(Refusal),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRow {
    /// The blocked host, IPv6 prefix or network.
    pub address: Target,
    /// The reason as text.
    pub reason: String,
    /// The kind of scan; null for a manual block or a foreign element.
    pub scan: Option<String>,
    /// The source has shown that it receives our packets.
    pub proven: bool,
    /// When it began; null if unknown.
    pub since: Option<Stamp>,
    /// Seconds until it ends by itself; null: never.
    pub expires_in: Option<u64>,
    /// Packets dropped since the block; null if the kernel was not asked, and of a network whose intervals it shares with others.
    pub packets: Option<u64>,
    /// Networks within it that are not blocked.
    #[serde(default)]
    pub exempt: Vec<Target>,
}

/// One address or network that is never blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowRow {
    /// What.
    pub address: Target,
    /// Why: `allow` (configuration), `ignore_file`, `portsentryctl`, `own_addresses`, `gateways`, `resolvers`, `ssh_peers`.
    pub origin: String,
}

/// One block of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// When the kernel acknowledged it.
    pub at: Stamp,
    /// What was blocked.
    pub address: Target,
    /// The host's name where the line has one, else the address.
    pub host: String,
    /// The port; 0 for a manual block.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, `IP`; `MANUAL` for a manual block.
    pub protocol: String,
}

impl From<crate::journal::history::Entry> for HistoryRow {
    fn from(entry: crate::journal::history::Entry) -> Self {
        let network = entry.network();
        let address = if network.prefix_len() == network.max_prefix_len() { Target::Address(network.addr()) } else { Target::Network(network) };
        Self { at: Stamp(entry.at), address, host: entry.host, port: entry.port, protocol: entry.protocol }
    }
}

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What was asked for.
    pub address: Target,
    /// The block that covers it.
    pub block: Option<BlockRow>,
    /// The entry because of which it is never blocked.
    pub allowed: Option<AllowRow>,
    /// Distinct ports that it touched within the window, `tcp/22`, at most as many as the ledger keeps.
    pub ports: Vec<String>,
    /// How many distinct ports it touched within the window.
    pub touched: u64,
    /// The kinds of scans seen.
    pub scans: Vec<String>,
    /// Whether it is proven.
    pub proven: bool,
    /// When it was seen first within the window.
    pub first_seen: Option<Stamp>,
    /// When it was seen last.
    pub last_seen: Option<Stamp>,
    /// How often it was blocked within `block.escalate.memory`.
    pub blocks_before: u64,
}
