//! What other threads ask of the packet thread, and what they are answered. The words only: [`super::sentry`] obeys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::link::Answer;
use crate::config::Config;
use crate::engine::{self, AllowList, Moment, Reason, Subject};
use crate::store::{Block, Content, Repeated};
use crate::nft::Ruleset;
use crate::probe::Port;
use crate::ruleset::reflex::Tally;
use crate::{capture, decoy};

/// All that the thread needs to start or to change its ways.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Its rules.
    pub ruleset: Ruleset,
    /// What is never blocked.
    pub never_block: AllowList,
    /// Where this host's own connections start: `net.ipv4.ip_local_port_range`.
    pub ephemeral: RangeInclusive<u16>,
    /// What local services listen on now.
    pub services: Vec<Port>,
}

/// What the store held at the start.
pub struct Stored {
    /// By the clock of now; blocks that are over are left out.
    pub content: Content,
    /// It was written since the last boot: what the kernel does not have of it, somebody took out.
    pub is_same_boot: bool,
}

/// Blocks with their beginnings, and where to go on; `None`: these were the last.
pub type Begun = (Vec<(Subject, Moment)>, Option<usize>);

/// What other threads ask for.
pub enum Command {
    /// How things stand.
    Status(Answer<Figures>),
    /// What is known of an address.
    Account(IpAddr, Answer<(Option<engine::AccountView>, u32)>),
    /// Block by order of the administrator.
    Block {
        /// What.
        subject: Subject,
        /// For how long; `None`: until unblocked.
        timeout: Option<Duration>,
        /// The administrator's words.
        text: String,
        /// Done in the kernel, or why not.
        answer: Answer<Result<(), NotDone>>,
    },
    /// Unblock what lies in a network, and the source that an address belongs to.
    Unblock(IpNet, Answer<Result<Vec<Subject>, String>>),
    /// Unblock everything.
    UnblockAll(Answer<Result<usize, String>>),
    /// A new list of what is never blocked.
    Protect(AllowList, Answer<Result<(), String>>),
    /// A new configuration: in force, or refused with nothing changed.
    Reconfigure(Box<Setup>, Answer<Result<(), String>>),
    /// When each block began, as far as that is known.
    Since(Answer<HashMap<Subject, Moment>>),
    /// When each of the blocks in so many places from one on began, and where to go on.
    Begun(usize, usize, Answer<Begun>),
    /// Why these are blocked, by the books; `None` for what they do not know.
    Reasons(Vec<Subject>, Answer<Vec<Option<Reason>>>),
    /// So many of the blocks in force, the first that come.
    Blocks(usize, Answer<Vec<Standing>>),
    /// The blocks in force in so many places from one on, and where to go on.
    Page(usize, usize, Answer<(Vec<Block>, Option<usize>)>),
    /// All proven sources that were blocked.
    Offenders(Answer<Vec<Repeated>>),
    /// What is known of sources that were touched since then, of so many at most; and how long IPv6 prefixes are.
    Evidence(Moment, usize, Answer<(Vec<engine::Evidence>, u8)>),
    /// Take over what could not be read at the start.
    Restore(Box<Stored>, Answer<()>),
    /// Are you there?
    Ping(Answer<()>),
    /// End; `true`: and take the table out of the kernel. Answers how many blocks stay.
    Stop(bool, Answer<u64>),
}

/// A block that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is blocked.
    pub subject: Subject,
    /// Why.
    pub reason: Reason,
    /// The port that crossed the trigger, if that is known.
    pub port: Option<Port>,
    /// Since how long.
    pub age: Duration,
}

/// Why a block by hand was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// The engine refused: it must not be.
    Refused(String),
    /// The kernel would not.
    Failed(String),
}

/// What the reflex did, and how full its sets are.
#[derive(Debug, Clone, Default)]
pub struct Reflex {
    /// Its counters.
    pub tally: Tally,
    /// Elements and size of the fullest of its sets, where the kernel tells (Linux 6.16).
    pub fullest: Option<(u32, u32)>,
}

/// Figures for the status.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The engine's.
    pub engine: engine::Status,
    /// The capture's.
    pub capture: capture::Statistics,
    /// What became of the packets that came in.
    pub taken: Taken,
    /// The decoys'.
    pub decoy: decoy::Figures,
    /// The counters of the reflex's rules; `None` if the rules have none, or cannot be read.
    pub reflex: Option<Reflex>,
    /// What was done about other programs in our table.
    pub repairs: Repairs,
    /// The queues', where packets wait.
    pub queues: Option<Queues>,
}

/// How the queues stand, where packets wait in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Probes that wait now.
    pub probes: u32,
    /// Probes that may wait.
    pub probes_length: u32,
    /// New connections of suspects that wait now.
    pub connections: u32,
    /// Those that may wait.
    pub connections_length: u32,
    /// New connections of suspects that were let pass after they were judged.
    pub passed: u64,
    /// Those that were dropped.
    pub stopped: u64,
}

/// What became of the packets that came in, and how they are taken now.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Logged packets that were judged, or wait at the decoys for the end of their handshake.
    pub judged: u64,
    /// Logged packets that are no probes (late answers and the like).
    pub no_probe: u64,
    /// Logged packets that no parser could read.
    pub unreadable: u64,
    /// Packets of unknown sources that were given up, so that those of known ones could be judged.
    pub shed: u64,
    /// Packets are being given up now.
    pub is_shedding: bool,
    /// Packets that the kernel collects before it wakes the daemon.
    pub batch: u32,
    /// The receive buffer in force, bytes; `None` if the kernel does not say.
    pub receive_buffer: Option<usize>,
}

/// Who changed the table: what the kernel says of the process that sent the transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

impl std::fmt::Display for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, program } = self;
        if program.is_empty() { f.write_str("an unknown program") } else { write!(f, "{program} (process {pid})") }
    }
}

/// What was done about other programs since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// How often the table was put right.
    pub count: u64,
    /// Who made that necessary last.
    pub last: Option<Author>,
    /// The table is being changed again and again.
    pub fighting: bool,
}
