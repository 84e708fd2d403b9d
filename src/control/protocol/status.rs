//! The daemon's status as `portsentryctl status` shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::allowed::AllowedName;
use super::lists::ListRow;
use super::stamp::Stamp;
use crate::helper::protocol::ChannelStatus;

/// The daemon's status.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// `enforce` or `observe`.
    pub mode: String,
    /// The mode of the configuration, which is in force again after the next start.
    #[serde(default)]
    pub configured_mode: String,
    /// When the configuration was read last, and whether it is in force.
    #[serde(default)]
    pub loaded: Option<ConfigLoaded>,
    /// Whether the kernel's rules are those in force: `in_place`, `changed`, or `unknown`.
    #[serde(default)]
    pub rules: RulesState,
    /// When it observes again unless enforcing is confirmed; null: needs no confirmation.
    #[serde(default)]
    pub confirm_by: Option<Stamp>,
    /// `on`, `off` or `paused`.
    #[serde(default)]
    pub detection: String,
    /// When a pause ends; null: there is none.
    #[serde(default)]
    pub on_at: Option<Stamp>,
    /// `nflog` or `nfqueue`.
    pub capture: String,
    /// The group of the capture.
    pub group: u16,
    /// The watched ports.
    pub watching: Vec<Watching>,
    /// Sources with an account.
    pub sources: u64,
    /// Blocks in force.
    pub blocked: u64,
    /// Blocks in force by their cause; null: there are too many to be counted, or none in observe
    /// mode.
    #[serde(default)]
    pub causes: Option<Causes>,
    /// The most blocks that there may be: `block.total`.
    #[serde(default)]
    pub blocked_most: u64,
    /// Blocks that are not in force, because the kernel refused them.
    #[serde(default)]
    pub not_in_force: u64,
    /// Counts of decisions.
    #[serde(default)]
    pub decisions: Decisions,
    /// The named lists with a block in force.
    #[serde(default)]
    pub lists: Vec<ListRow>,
    /// Slowed sources.
    #[serde(default)]
    pub slowed: u64,
    /// Entries of the list of what is never blocked.
    pub allowed: u64,
    /// DNS names in `allow`.
    #[serde(default)]
    pub allowed_names: Vec<AllowedName>,
    /// Interfaces in `allow`.
    #[serde(default)]
    pub allowed_interfaces: Vec<String>,
    /// The kernel's table of tracked connections; null: it tracks none.
    #[serde(default)]
    pub tracked: Option<Tracked>,
    /// Administrators who are remembered, connected or not.
    #[serde(default)]
    pub admins: u64,
    /// Probes seen since the start.
    pub probes: u64,
    /// Probes by the kind of scan, since the start.
    #[serde(default)]
    pub by_scan: BTreeMap<String, u64>,
    /// Packets lost between the kernel and the daemon since the start.
    pub lost: u64,
    /// Packets of unknown sources dropped under load since the start, to leave time for those of
    /// known sources.
    #[serde(default)]
    pub shed: u64,
    /// Counts of incoming packets.
    #[serde(default)]
    pub intake: Intake,
    /// The queues of packets in the kernel; null with `nflog`.
    #[serde(default)]
    pub queues: Option<Queues>,
    /// Log lines held back since the start.
    pub held_back: u64,
    /// Log lines that could not be written since the start.
    #[serde(default)]
    pub unwritten: u64,
    /// Whether the helper process runs.
    #[serde(default)]
    pub helper: bool,
    /// The rights of the daemon, its packet thread, and its helper, where the kernel tells.
    #[serde(default)]
    pub confinement: Vec<Rights>,
    /// Counts of commands.
    #[serde(default)]
    pub responses: Responses,
    /// What each channel of notifications did since the helper's start.
    #[serde(default)]
    pub notifications: Vec<ChannelStatus>,
    /// Counts of the decoys of connect mode.
    #[serde(default)]
    pub decoy: Decoys,
    /// Counts of the reflex; null: it is off, or has no counters.
    #[serde(default)]
    pub reflex: Option<Reflex>,
    /// The state store's status.
    #[serde(default)]
    pub store: Store,
    /// The event store's status.
    #[serde(default)]
    pub events: EventStore,
    /// Counts of repairs of the table.
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
    /// Warnings to the administrator.
    pub warnings: Vec<String>,
}

/// The rights of a process or thread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rights {
    /// `daemon`, `packets` or `helper`.
    pub of: String,
    /// Its user.
    pub user: String,
    /// Its capabilities, as capabilities(7) names them.
    pub capabilities: Vec<String>,
    /// How many filters of system calls it has (seccomp(2)).
    pub filters: u32,
    /// It gains nothing by the programs that it starts.
    pub no_new_privs: bool,
    /// The version of Landlock that keeps it from other files and programs (landlock(7)); null: it is not so
    /// restricted, as the helper, whose commands are the administrator's, or the kernel has none.
    #[serde(default)]
    pub landlock: Option<u32>,
}

/// Whether the kernel's rules are those in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RulesState {
    /// They are.
    InPlace,
    /// They are not.
    Changed,
    /// They could not be read.
    #[default]
    #[serde(other)]
    Unknown,
}

/// When the configuration was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConfigLoaded {
    /// When.
    pub at: Stamp,
    /// It is in force; else it was refused, and the one before it stays.
    pub ok: bool,
}

/// Counts of decisions since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Decisions {
    /// Blocks that began.
    pub blocks: u64,
    /// Blocks that got a new timeout.
    pub renewals: u64,
    /// Blocks that ended.
    pub ended: u64,
    /// Blocks that the kernel refused.
    pub refused: u64,
    /// Probes past the trigger that led to no block, by reason; reasons without any are left out.
    pub not_blocked: BTreeMap<String, u64>,
}

/// The kernel's table of tracked connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tracked {
    /// Connections in it.
    pub connections: u64,
    /// The most that it holds.
    pub most: u64,
}

/// Blocks in force, by their cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Causes {
    /// Of scans by sources that are proven.
    pub proven: u64,
    /// Of scans by sources whose address may be forged.
    pub unproven: u64,
    /// By order of the administrator.
    pub order: u64,
    /// By elements that other programs added.
    pub foreign: u64,
}

/// Counts of incoming packets since the start: `logged` is the sum of `judged`, `passed_over`, and
/// the status' `shed` and `lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Intake {
    /// Packets that the kernel has logged, including lost ones.
    pub logged: u64,
    /// Packets that were evaluated.
    pub judged: u64,
    /// Packets that are not probes (out-of-state answers and the like) or unreadable.
    pub passed_over: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full; each had one or more
    /// packets.
    pub overruns: u64,
    /// Kernel messages that could not be parsed.
    pub malformed: u64,
    /// Packets that the kernel collects before it wakes the daemon: 1 without load.
    pub batch: u32,
    /// The receive buffer in bytes; null if unknown.
    pub receive_buffer: Option<u64>,
}

/// The queues of `capture.method: nfqueue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Queues {
    /// Waiting probes.
    pub probes: u32,
    /// Capacity for probes; excess ones are dropped and counted in the status' `lost`, or accepted
    /// where closed ports answer.
    pub probes_length: u32,
    /// Waiting new connections of suspects.
    pub connections: u32,
    /// Capacity for these; excess ones are accepted without evaluation and not counted.
    pub connections_length: u32,
    /// New connections of suspects that were accepted after evaluation, since the start.
    pub passed: u64,
    /// Those that were dropped.
    pub stopped: u64,
}

/// Counts of repairs after another program changed the table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Repairs {
    /// Since the start.
    pub count: u64,
    /// The last program that changed it; null: none, or unknown.
    pub program: Option<String>,
    /// Its process id.
    pub process: Option<u32>,
    /// Whether it keeps being changed.
    pub fighting: bool,
}

/// Counts of `respond.command` since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Responses {
    /// Commands that ended or could not be started.
    pub commands: u64,
    /// Of these, commands that did not end with status 0.
    pub failed: u64,
    /// Commands that were not run because too many were waiting.
    pub dropped: u64,
}

/// The event store's status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventStore {
    /// `ok`, `failing`, or `off`.
    pub state: String,
    /// Stored events.
    pub rows: u64,
    /// Bytes of their database.
    pub bytes: u64,
    /// Events that were lost since the start because it failed.
    pub lost: u64,
}

/// The state store's status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Store {
    /// `ok`, or `failing`: a reboot may lose the current blocks.
    pub state: String,
    /// Stored blocks.
    pub blocks: u64,
    /// Stored verified sources that were blocked.
    pub offenders: u64,
    /// Stored sources with evidence.
    pub sources: u64,
    /// Seconds since the last write; null: none since the start.
    pub age: Option<u64>,
}

/// Counts of the decoys of connect mode since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Decoys {
    /// Handshakes completed.
    pub connections: u64,
    /// Connections closed at once: too many open, or no descriptors left.
    pub refused: u64,
    /// Handshakes begun and not completed.
    pub half_open: u64,
    /// Banners sent.
    pub banners: u64,
    /// Datagrams without a banner because of the rate limit of a second.
    pub unanswered: u64,
    /// Connections held open now.
    pub held: u64,
    /// Handshakes in progress now.
    pub waiting: u64,
}

/// Counts of the reflex since the start: the rules count a source's ports, and hold it when it
/// exceeds the trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reflex {
    /// Holds that were reported to the daemon.
    pub holds: u64,
    /// Of these, holds that the daemon lifted because no block followed.
    pub released: u64,
    /// Holds that were not reported because of the rate limit; they timed out.
    pub untold_holds: u64,
    /// Packets of held sources.
    pub dropped: u64,
    /// Probes that the rules counted and did not report because of the rate limit.
    pub untold: u64,
    /// Probes that were neither counted nor reported.
    pub shed: u64,
    /// Probes for which a set was full, and which the daemon counted itself.
    pub no_room: u64,
    /// Elements in the fullest set; null: unknown.
    pub elements: Option<u32>,
    /// Its capacity.
    pub size: Option<u32>,
}

/// The watched ports of one transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Watching {
    /// `tcp`, `udp`.
    pub transport: String,
    /// `advanced`, `stealth`, `connect`.
    pub mode: String,
    /// Number of ports.
    pub ports: u32,
    /// As ranges: `1-112, 114`.
    pub ranges: String,
}
