//! Replies of the daemon, each on a line, and the rows of its lists.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::allowed::{AllowRow, AllowedName};
use super::lists::{ListRow, Loaded};
use super::observed::Observed;
use super::refusal::Refusal;
use super::stamp::Stamp;
use super::status::Status;
use super::target::Target;
use super::tested::{Standing, Tested};
use crate::config::Geo;
use crate::engine::Source;
use crate::journal::record::{Effect, Probed};
use crate::journal::{Record, history};

/// Rows of a list in one line: some ten kilobytes.
pub const ROWS_PER_LINE: usize = 64;

/// A reply; its name is in the JSON key `reply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The daemon's status.
    Status(Box<Status>),
    /// A part of the list of blocks, in the order of addresses.
    Blocks {
        /// Rows of this part.
        rows: Vec<BlockRow>,
        /// Another part follows.
        more: bool,
    },
    /// What observe mode would have slowed or blocked.
    Observed(Box<Observed>),
    /// The state of an address.
    Shown(Box<Shown>),
    /// What would happen to packets of an address.
    Tested(Box<Tested>),
    /// The change was made.
    Done {
        /// A message for people.
        message: String,
    },
    /// These responses are run once.
    Testing {
        /// The command, which may take this many seconds.
        command: Option<u64>,
        /// A line of hosts.deny.
        hosts_deny: bool,
        /// Channels of notifications, by their keys.
        #[serde(default)]
        notify: Vec<String>,
    },
    /// A part of many was blocked, but for these.
    Several {
        /// After the last part, a message for people about the whole.
        message: String,
        /// Those that are not blocked.
        refused: Vec<NotDone>,
        /// After the last part of a list, what its loading came to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<Loaded>,
    },
    /// A part of a list, or of everything, was unblocked.
    Lifted {
        /// After the last part, a message for people about the whole.
        message: String,
        /// The blocks of this part.
        lifted: u64,
        /// Where to go on; null: this was the last part.
        next: Option<u64>,
    },
    /// The lists, in the order of their names.
    Lists {
        /// All of them.
        rows: Vec<ListRow>,
    },
    /// The databases that the configuration names.
    Geo(GeoFiles),
    /// The addresses and networks that are never blocked.
    Allowed {
        /// In the order of addresses.
        rows: Vec<AllowRow>,
        /// DNS names in `allow`.
        #[serde(default)]
        names: Vec<AllowedName>,
        /// Interfaces over which nothing is slowed or blocked.
        #[serde(default)]
        interfaces: Vec<String>,
    },
    /// The ruleset.
    Rules {
        /// In nft(8)'s syntax.
        text: String,
    },
    /// A part of the history, oldest first. The last part may be an error: the rest is missing.
    History {
        /// Rows of this part.
        rows: Vec<HistoryRow>,
        /// Another part follows.
        more: bool,
    },
    /// Events follow.
    Watching {},
    /// An event, as `log.format: json` writes it.
    Event {
        /// The JSON object.
        event: Value,
    },
    /// The request was refused, or there is nothing to show.
    Error(Refusal),
}

/// Databases of countries and autonomous systems (`geo`). The daemon does not open them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GeoFiles {
    /// The one of countries; null: not configured.
    pub country: Option<PathBuf>,
    /// The one of autonomous systems; null: not configured.
    pub asn: Option<PathBuf>,
}

impl From<&Geo> for GeoFiles {
    fn from(Geo { country, asn }: &Geo) -> Self {
        Self { country: country.clone(), asn: asn.clone() }
    }
}

/// One of many that is not blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotDone {
    /// Its place in the request.
    pub at: u32,
    /// The reason.
    pub message: String,
    /// What the user can do; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl NotDone {
    /// What a refusal says about the one at this place.
    pub fn new(at: u32, Refusal { message, remedy, .. }: Refusal) -> Self {
        Self { at, message, remedy }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

/// What happens to a source's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All are dropped.
    #[default]
    Blocked,
    /// Its probes are dropped, its new connections wait for a second, everything else passes.
    Slowed,
    /// Nothing: it is only reported.
    Reported,
}

/// Why a source is blocked or slowed, in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Another program added the element.
    #[default]
    Foreign,
    /// It scanned, and its address may be forged.
    Unproven,
    /// It scanned, and has shown that it receives our packets.
    Proven,
    /// The administrator ordered it.
    Order,
    /// Several sources share a scan.
    Campaign,
}

/// What is known of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CampaignFigures {
    /// The program whose packets its sources send; null: they share a network.
    pub program: Option<String>,
    /// Its sources; at most 256 are counted.
    pub sources: u32,
    /// Their ports; at most 128 are counted.
    pub ports: u32,
    /// The port of the last probe, `tcp/22`.
    pub port: String,
    /// The address that sent it.
    pub scanner: IpAddr,
}

/// One block, or one slowed source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BlockRow {
    /// The blocked or slowed host, IPv6 prefix or network.
    pub address: Target,
    /// What happens to its packets.
    #[serde(default)]
    pub state: State,
    /// Why, in kind.
    #[serde(default)]
    pub cause: Cause,
    /// The reason as text.
    pub reason: String,
    /// The kind of scan; null for a manual block or a foreign element.
    pub scan: Option<String>,
    /// Whether the source is verified: it has shown that it receives our packets.
    pub proven: bool,
    /// Its start; null if unknown.
    pub since: Option<Stamp>,
    /// Its end, unless it is renewed; null: permanent.
    #[serde(default)]
    pub until: Option<Stamp>,
    /// Seconds until it ends; null: permanent.
    pub expires_in: Option<u64>,
    /// Packets dropped since the block, or since it was slowed; null if the kernel was not asked, for
    /// a network that shares intervals with others, and for a slowed source that was not counted.
    pub packets: Option<u64>,
    /// Of a slowed source, the packets that passed since; null if it was not counted.
    #[serde(default)]
    pub passed: Option<u64>,
    /// How often it got a new timeout since it began, or since the daemon started.
    #[serde(default)]
    pub renewals: u32,
    /// Exempt networks within it.
    #[serde(default)]
    pub exempt: Vec<Target>,
    /// For a campaign: what is known of it.
    #[serde(default)]
    pub campaign: Option<CampaignFigures>,
    /// The list that an administrator's order blocked it with; null: none.
    #[serde(default)]
    pub list: Option<String>,
}

/// An event of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryRow {
    /// Its time of day.
    pub at: Stamp,
    /// Its kind: [`KINDS`](crate::journal::record::KINDS).
    #[serde(default)]
    pub kind: String,
    /// What it is about; null: no source.
    pub address: Option<Target>,
    /// The host's name where it is known, else the address.
    pub host: String,
    /// The port; 0: none.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, `IP`; `MANUAL` for a manual block; else empty.
    pub protocol: String,
    /// What the classic history file says: whether it was blocked, slowed, or only reported; null:
    /// it has no line.
    #[serde(default)]
    pub state: Option<history::State>,
    /// What came of it.
    #[serde(default)]
    pub result: Option<Effect>,
    /// The kind of scan.
    #[serde(default)]
    pub scan: Option<String>,
    /// Whether the source is verified.
    #[serde(default)]
    pub proven: Option<bool>,
    /// The reason, or an administrator's order.
    #[serde(default)]
    pub reason: Option<String>,
    /// The planned end of a block or of slowing; null: none.
    #[serde(default)]
    pub until: Option<Stamp>,
    /// When the block or slowing that begins here ended; null: it has not, or none begins here.
    #[serde(default)]
    pub ended: Option<Stamp>,
    /// How it ended.
    #[serde(default)]
    pub ending: Option<String>,
    /// Probes of the source until then.
    #[serde(default)]
    pub probes: Option<u64>,
    /// When the source was first seen.
    #[serde(default)]
    pub first_seen: Option<Stamp>,
    /// The ports that it had touched.
    #[serde(default)]
    pub touched: Vec<TouchedRow>,
    /// Further facts, by their keys in the log.
    #[serde(default)]
    pub details: Map<String, Value>,
}

/// A port that a source touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TouchedRow {
    /// When, the last time.
    pub at: Stamp,
    /// `tcp/22`.
    pub port: String,
    /// The kind of the probe.
    pub scan: String,
    /// What it means for a decision: `counts`, `ambiguous`, `reply`, `reported`.
    pub weight: String,
}

impl TouchedRow {
    /// The row of a port that was touched before `at`.
    pub fn of(probed: Probed, at: Timestamp) -> Self {
        let Probed { age, port, scan, weight } = probed;
        let age = SignedDuration::from_millis(i64::try_from(age).unwrap_or(i64::MAX));
        Self { at: Stamp(at.checked_sub(age).unwrap_or(Timestamp::MIN)), port, scan, weight }
    }
}

impl HistoryRow {
    /// The port with its protocol, `tcp/22`; `None`: there is none.
    pub(crate) fn port_name(&self) -> Option<String> {
        match self.protocol.as_str() {
            "" | "MANUAL" => None,
            protocol => Some(format!("{}/{}", protocol.to_lowercase(), self.port)),
        }
    }
}

impl From<Record> for HistoryRow {
    fn from(record: Record) -> Self {
        let state = record.state();
        let address = record.network.map(|network| Target::from(Source::from(network)));
        let port = record.port.as_deref().and_then(|port| port.split_once('/'));
        let is_manual = port.is_none() && matches!(record.kind.as_str(), "blocked" | "renewed");
        let protocol = match port {
            Some((transport, _)) => transport.to_ascii_uppercase(),
            None if is_manual => "MANUAL".to_owned(),
            None => String::new(),
        };
        let host = record.name.or_else(|| address.as_ref().map(ToString::to_string));
        let stamp = |at: Option<Timestamp>| at.map(Stamp);
        Self {
            at: Stamp(record.at),
            kind: record.kind,
            address,
            host: host.unwrap_or_default(),
            port: port.and_then(|(_, number)| number.parse().ok()).unwrap_or(0),
            protocol,
            state,
            result: record.effect,
            scan: record.scan,
            proven: record.proven,
            reason: record.reason,
            until: stamp(record.until),
            ended: stamp(record.ended),
            ending: record.ending,
            probes: record.probes,
            first_seen: stamp(record.first_seen),
            touched: record
                .touched
                .into_iter()
                .map(|touched| TouchedRow::of(touched, record.at))
                .collect(),
            details: record.details,
        }
    }
}

/// The state of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shown {
    /// The requested address.
    pub address: Target,
    /// Whether the daemon only observes: nothing is dropped then.
    #[serde(default)]
    pub observed: bool,
    /// The block that covers it, or how it is slowed.
    pub block: Option<BlockRow>,
    /// The blocked network that it is exempt from, if nothing else blocks it.
    pub exempt_from: Option<Target>,
    /// The entry by which it is never blocked.
    pub allowed: Option<AllowRow>,
    /// The entry within its IPv6 prefix for which it is not blocked: it is counted as that prefix.
    #[serde(default)]
    pub allowed_in_prefix: Option<AllowRow>,
    /// Distinct ports touched within the window, `tcp/22`, at most as many as the ledger keeps.
    pub ports: Vec<String>,
    /// Number of distinct ports touched within the window.
    pub touched: u64,
    /// The kinds of scans seen.
    pub scans: Vec<String>,
    /// Whether it is verified.
    pub proven: bool,
    /// First seen within the window.
    pub first_seen: Option<Stamp>,
    /// Last seen.
    pub last_seen: Option<Stamp>,
    /// Number of blocks within `block.escalate.memory`.
    pub blocks_before: u64,
    /// For a slowed source: what its retransmissions say about its address.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// The campaign of a network around it.
    #[serde(default)]
    pub campaign: Option<BlockRow>,
    /// The ports that it touched within the window, and what each means for a decision.
    #[serde(default)]
    pub probes: Vec<TouchedRow>,
    /// Ports that it may touch within the window without a reaction.
    #[serde(default)]
    pub trigger: u64,
    /// How the rules treat its packets now.
    #[serde(default)]
    pub standing: Option<Standing>,
}

/// What a slowed source's retransmissions say about its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Proof {
    /// Evidence that it sees our answers, in bits; below 0: that it does not.
    pub bits: i32,
    /// The bits that prove it.
    pub needed: i32,
    /// Silent ports to which it retransmitted.
    pub silent: u64,
    /// Answered ports to which it retransmitted.
    pub answered: u64,
    /// It does not see our answers, and is not proven by retransmissions.
    pub blind: bool,
}
