//! The words of the control socket: requests and replies, a JSON object a line each, with the protocol's version in `v`.
//!
//! Keys are stable: programs read what `portsentryctl --json` prints.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::engine::{Source, Subject};

/// The version of this protocol. It changes when a program that speaks the old one would misunderstand the new one.
pub const VERSION: u64 = 1;

/// Longest request, in bytes, its line end included.
pub const REQUEST_MAX: usize = 64 << 10;

/// Longest line of a reply, in bytes, its line end included. Lists come in many lines of [`ROWS_PER_LINE`] rows; the longest single answer is the
/// ruleset, which with every second port excluded has some 400 KiB.
pub const REPLY_MAX: usize = 4 << 20;

/// Rows of a list that stand in one line: some ten kilobytes.
pub const ROWS_PER_LINE: usize = 64;

/// Longest reason that a block by hand may give, in bytes: it goes into the element's comment with some words before it.
pub const REASON_MAX: usize = 100;

/// What a request is about: an address, or a network in CIDR form (its host bits are cut off).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// One address; a block of an IPv6 address is a block of its prefix.
    Address(IpAddr),
    /// A network.
    Network(IpNet),
}

impl Target {
    /// The network, a single address as `/32` or `/128`.
    pub fn network(self) -> IpNet {
        match self {
            Self::Address(address) => IpNet::from(address),
            Self::Network(network) => network,
        }
    }

    /// What a block of this target is laid on: an address, `/32` and an IPv6 prefix of exactly `ipv6_prefix` bits are hosts.
    pub fn subject(self, ipv6_prefix: u8) -> Subject {
        match self {
            Self::Address(address) => Subject::Host(Source::of(address, ipv6_prefix)),
            Self::Network(network) => {
                let host_length = if network.max_prefix_len() == 32 { 32 } else { ipv6_prefix };
                if network.prefix_len() == host_length { Subject::Host(Source::of(network.addr(), ipv6_prefix)) } else { Subject::Network(network) }
            }
        }
    }

    /// The target that stands for a subject in lists.
    pub fn of(subject: Subject, ipv6_prefix: u8) -> Self {
        let network = subject.network(ipv6_prefix);
        if network.prefix_len() == network.max_prefix_len() { Self::Address(network.addr()) } else { Self::Network(network) }
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

/// A text that is neither an address nor a network.
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
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A time of day, in JSON as RFC 3339 in UTC to the second: `2026-11-20T15:26:40Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub Timestamp);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// What a client asks; in JSON the key `do` has the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon fares. Answered by [`Reply::Status`].
    Status {},
    /// What is blocked. Answered by [`Reply::Blocks`].
    List {},
    /// What is known of an address. Answered by [`Reply::Shown`], or [`Kind::No`] when nothing is.
    Show {
        /// The address.
        address: Target,
    },
    /// Block. Answered by [`Reply::Done`] once the kernel has acknowledged it.
    Block {
        /// What.
        address: Target,
        /// For how many seconds; 0: until it is unblocked; absent: as long as the configuration says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
        /// The administrator's reason, or empty.
        #[serde(default)]
        reason: String,
    },
    /// Unblock. Answered by [`Reply::Done`] once the kernel has acknowledged it; [`Kind::No`] when it is not blocked.
    Unblock {
        /// What.
        address: Target,
    },
    /// Unblock everything. Answered by [`Reply::Done`]; [`Kind::No`] when nothing is blocked.
    UnblockAll {},
    /// What is never blocked. Answered by [`Reply::Allowed`].
    AllowList {},
    /// Never block this until it is removed; a block of it is lifted. Answered by [`Reply::Done`].
    AllowAdd {
        /// What.
        address: Target,
    },
    /// Undo [`Request::AllowAdd`]. Answered by [`Reply::Done`]; [`Kind::No`] when it was not added.
    AllowRemove {
        /// What.
        address: Target,
    },
    /// The ruleset as nft text. Answered by [`Reply::Rules`].
    Rules {},
    /// Read the configuration again. Answered by [`Reply::Done`] when it is in force; [`Kind::Configuration`] when it was refused.
    Reload {},
    /// Blocks of the past. Answered by [`Reply::History`].
    History {
        /// Not older than this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Stamp>,
        /// Of this address or network only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Target>,
    },
    /// Events as they happen. Answered by [`Reply::Watching`], then [`Reply::Event`]s without end. The server does this itself.
    Watch {},
}

impl Request {
    /// Whether it changes something: that is for root alone.
    pub fn changes(&self) -> bool {
        match self {
            Self::Block { .. } | Self::Unblock { .. } | Self::UnblockAll {} | Self::AllowAdd { .. } | Self::AllowRemove { .. } | Self::Reload {} => {
                true
            }
            Self::Status {} | Self::List {} | Self::Show { .. } | Self::AllowList {} | Self::Rules {} | Self::History { .. } | Self::Watch {} => {
                false
            }
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`Refusal`] for the client: no JSON, another version, an unknown request, a key that is missing, unknown or of the wrong form.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| Refusal::new(Kind::BadRequest, message, "use portsentryctl of the same version as the daemon");
        let mut value: Value = serde_json::from_slice(line).map_err(|error| bad(format!("the request is no JSON object: {error}")))?;
        let Some(object) = value.as_object_mut() else { return Err(bad("the request is no JSON object".to_owned())) };
        match object.remove("v").as_ref().and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(bad(format!("the request is of protocol version {other}; this daemon speaks version {VERSION}"))),
            None => return Err(bad("the request has no version: \"v\" is missing".to_owned())),
        }
        let request: Self = serde_json::from_value(value).map_err(|error| bad(format!("the request is not understood: {error}")))?;
        if let Self::Block { reason, .. } = &request
            && (reason.len() > REASON_MAX || reason.chars().any(char::is_control))
        {
            return Err(Refusal::new(
                Kind::BadRequest,
                format!("the reason is longer than {REASON_MAX} bytes, or has control characters in it"),
                "say it in one short line",
            ));
        }
        Ok(request)
    }
}

/// What the daemon answers; in JSON the key `reply` has the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// How the daemon fares.
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
    /// It is not done, or there is nothing to show.
    Error(Refusal),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In which way.
    pub kind: Kind,
    /// What and why.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub remedy: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: remedy.into() }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal)
    }
}

/// The ways of refusing. A client may meet one that it does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No: it is not blocked, nothing is known, it must never be blocked. Exit status 1.
    No,
    /// The request is malformed. Exit status 64.
    BadRequest,
    /// Too many clients, or too slow a reader; later it may work. Exit status 69.
    Busy,
    /// The daemon, or the kernel, failed. Exit status 70.
    Failed,
    /// The client may not ask this. Exit status 77.
    NotPermitted,
    /// The configuration was refused. Exit status 78.
    Configuration,
    /// A kind of a later version. Exit status 70.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// The exit status of `portsentryctl` (sysexits(3head), and 1 for "no").
    pub fn exit_status(self) -> u8 {
        match self {
            Self::No => 1,
            Self::BadRequest => 64,
            Self::Busy => 69,
            Self::Failed | Self::Unknown => 70,
            Self::NotPermitted => 77,
            Self::Configuration => 78,
        }
    }
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRow {
    /// The blocked host, IPv6 prefix or network.
    pub address: Target,
    /// Why, in words.
    pub reason: String,
    /// The kind of scan; null for a block by hand or a foreign element.
    pub scan: Option<String>,
    /// The source has shown that it receives our packets.
    pub proven: bool,
    /// Since when; null if nobody knows.
    pub since: Option<Stamp>,
    /// Seconds until it ends by itself; null: never.
    pub expires_in: Option<u64>,
    /// Packets dropped since the block; null if the kernel was not asked.
    pub packets: Option<u64>,
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
    /// The port; 0 for a block by hand.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, `IP`; `MANUAL` for a block by hand.
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

/// How the daemon fares.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// `enforce` or `observe`.
    pub mode: String,
    /// `nflog` or `nfqueue`.
    pub capture: String,
    /// The group of the capture.
    pub group: u16,
    /// What is watched.
    pub watching: Vec<Watching>,
    /// Sources with an account at the moment.
    pub sources: u64,
    /// Blocks in force.
    pub blocked: u64,
    /// Entries that are never blocked.
    pub allowed: u64,
    /// Probes seen since the start.
    pub probes: u64,
    /// Packets lost between the kernel and the daemon since the start.
    pub lost: u64,
    /// Packets of unknown sources that were given up under load since the start, so that those of known ones could be judged.
    #[serde(default)]
    pub shed: u64,
    /// How packets come in, and what became of them.
    #[serde(default)]
    pub intake: Intake,
    /// The queues, where packets wait in the kernel; null with `nflog`.
    #[serde(default)]
    pub queues: Option<Queues>,
    /// Log lines held back since the start.
    pub held_back: u64,
    /// What became of the commands.
    #[serde(default)]
    pub responses: Responses,
    /// What the decoys of connect mode did.
    #[serde(default)]
    pub decoy: Decoys,
    /// What the reflex did; null: it is off, or has nothing to count.
    #[serde(default)]
    pub reflex: Option<Reflex>,
    /// How the state store fares.
    #[serde(default)]
    pub store: Store,
    /// How often the table was put right after another program.
    #[serde(default)]
    pub repairs: Repairs,
    /// Seconds since the start.
    pub uptime: u64,
    /// The configuration file; null: the built-in defaults.
    pub config: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// What the administrator should see to.
    pub warnings: Vec<String>,
}

/// How packets come in, and what became of them since the start: `logged` is `judged`, `passed_over`, and the status' `shed` and `lost` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Intake {
    /// Packets that the kernel has logged, those that were lost included.
    pub logged: u64,
    /// Packets that were judged.
    pub judged: u64,
    /// Packets that are no probes (late answers and the like), and those that nobody can read.
    pub passed_over: u64,
    /// Datagrams that the kernel threw away because the receive buffer was full; each had one packet or many.
    pub overruns: u64,
    /// Messages of the kernel that were not understood.
    pub malformed: u64,
    /// Packets that the kernel collects before it wakes the daemon: 1 when it is quiet.
    pub batch: u32,
    /// The receive buffer in force, bytes; null if the kernel does not say.
    pub receive_buffer: Option<u64>,
}

/// The queues of `capture.method: nfqueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Queues {
    /// Probes that wait now.
    pub probes: u32,
    /// Probes that may wait; more are dropped and counted in the status' `lost`, or go on where closed ports answer.
    pub probes_length: u32,
    /// New connections of suspects that wait now.
    pub connections: u32,
    /// Those that may wait; more go on unjudged, and nobody counts them.
    pub connections_length: u32,
    /// New connections of suspects that were let pass after they were judged, since the start.
    pub passed: u64,
    /// Those that were dropped.
    pub stopped: u64,
}

/// How often the table was put right after another program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repairs {
    /// Since the start.
    pub count: u64,
    /// The program that made it necessary last; null: none, or nobody knows.
    pub program: Option<String>,
    /// Its process id.
    pub process: Option<u32>,
    /// It is being changed again and again.
    pub fighting: bool,
}

/// What became of `respond.command` since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Responses {
    /// Commands that ended or could not be started.
    pub commands: u64,
    /// Those of them that did not end with status 0.
    pub failed: u64,
    /// Commands that were not run: too many were waiting.
    pub dropped: u64,
}

/// How the state store fares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Store {
    /// `ok`, or `failing`: what is blocked now may be forgotten with a reboot.
    pub state: String,
    /// Blocks in it.
    pub blocks: u64,
    /// Proven sources that were blocked, in it.
    pub offenders: u64,
    /// Sources with evidence in it.
    pub sources: u64,
    /// Seconds since it was written; null: not since the start.
    pub age: Option<u64>,
}

/// What the decoys of connect mode did since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decoys {
    /// Handshakes completed.
    pub connections: u64,
    /// Connections closed at once: too many were there, or descriptors had run out.
    pub refused: u64,
    /// Handshakes begun and not completed.
    pub half_open: u64,
    /// Banners sent.
    pub banners: u64,
    /// Datagrams that got no banner because too many had got one within the second.
    pub unanswered: u64,
    /// Connections that are held now.
    pub held: u64,
    /// Handshakes that are waited for now.
    pub waiting: u64,
}

/// What the rules did by themselves since the start: they count a source's ports, and hold it when it passes the trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reflex {
    /// Holds that the daemon heard of.
    pub holds: u64,
    /// Those of them that it ended, because no block came of them.
    pub released: u64,
    /// Holds that it was not told of, because too many came at once; they ran out by themselves.
    pub untold_holds: u64,
    /// Packets of sources that were held.
    pub dropped: u64,
    /// Probes that the rules knew or counted and did not tell the daemon of, because too many came at once.
    pub untold: u64,
    /// Probes that they neither counted nor told.
    pub shed: u64,
    /// Probes that found a set full, and went the daemon's own way.
    pub no_room: u64,
    /// Elements of the fullest set; null: the kernel does not tell.
    pub elements: Option<u32>,
    /// How many it can have.
    pub size: Option<u32>,
}

/// The watched ports of one transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// `tcp`, `udp`.
    pub transport: String,
    /// `advanced`, `stealth`, `connect`.
    pub mode: String,
    /// How many ports.
    pub ports: u32,
    /// Which, as `1-112, 114`.
    pub ranges: String,
}

/// A line of the protocol: `message` with the version, and its line end.
///
/// # Errors
/// [`Kind::Failed`] when it is longer than [`REPLY_MAX`], which nothing should be.
pub fn line<T: Serialize>(message: &T) -> Result<String, Refusal> {
    let failed = |message: String| Refusal::new(Kind::Failed, message, "this is a defect; please report it");
    let object = serde_json::to_string(message).map_err(|error| failed(format!("the reply cannot be written: {error}")))?;
    // Every message is an object with at least its name. The version goes in front by hand: serde's `flatten` makes long lists twice as slow.
    let Some(keys) = object.strip_prefix('{') else { return Err(failed("the reply is no object".to_owned())) };
    let mut line = format!("{{\"v\":{VERSION},{keys}");
    if line.len() >= REPLY_MAX {
        return Err(failed(format!("the reply of {} bytes is too long", line.len())));
    }
    line.push('\n');
    Ok(line)
}

/// The line of an event that is JSON already.
pub fn event_line(event: &str) -> String {
    format!("{{\"v\":{VERSION},\"reply\":\"event\",\"event\":{event}}}\n")
}

#[cfg(test)]
mod tests;
