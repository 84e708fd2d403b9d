//! The daemon's status as `portsentryctl status` shows it: plain figures.

use serde::{Deserialize, Serialize};

/// The daemon's status.
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
    /// The state store's status.
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
    /// Packets that are no probes (late answers and the like), and those that cannot be read.
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
    /// Those that may wait; more go on unjudged and are not counted.
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
    /// The program that made it necessary last; null: none, or unknown.
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

/// The state store's status.
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
    /// Holds that were not reported to it, because too many came at once; they timed out.
    pub untold_holds: u64,
    /// Packets of sources that were held.
    pub dropped: u64,
    /// Probes that the rules knew or counted and did not tell the daemon of, because too many came at once.
    pub untold: u64,
    /// Probes that were neither counted nor reported.
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
