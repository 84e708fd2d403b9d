//! What the helper's thread and its callers share: events, requests, counters.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::engine::{Reason, Source};
use crate::probe::Port;
use crate::sys::mailbox::Answer;

/// What running commands get when the daemon ends.
pub const GRACE: Duration = Duration::from_secs(2);

/// Beside that: commands are asked to end and then killed, and files are written for the last time.
pub(super) const LAST_ORDERS: Duration = Duration::from_secs(4);

/// What the thread is told of.
pub(super) enum Item {
    /// Run the command.
    Run { source: Source, port: Port, reason: Reason },
    /// The kernel refused the block, so the command that was to follow it does not run.
    NotRun(Source),
    /// A block is in force.
    Blocked { source: Source, port: Option<Port>, reason: Reason, at: Timestamp },
    /// A block is over.
    Unblocked(Source),
    /// A name is wanted.
    Resolve(IpAddr),
}

/// What the thread is asked for.
pub(super) enum Request {
    /// This is in force from now on.
    Configure(Box<Config>, Answer<()>),
    /// End; `true`: and nothing is blocked any more.
    Stop(bool, Answer<()>),
}

/// A block that is in force, as files show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInForce {
    /// What is blocked.
    pub source: Source,
    /// Why.
    pub reason: Reason,
    /// The port that crossed the trigger, if that is known.
    pub port: Option<Port>,
    /// Since how long.
    pub age: Duration,
}

/// Asks the thread that owns the engine for so many of the blocks in force at most; `None`: no answer in time.
pub type BlockList = Box<dyn Fn(usize) -> Option<Vec<BlockInForce>> + Send>;

#[derive(Default)]
pub(super) struct Shared {
    pub(super) wanted: AtomicU8,
    /// The helper is there.
    pub(super) up: AtomicBool,
    /// Not told yet.
    pub(super) dropped: AtomicU64,
    pub(super) list_wanted: AtomicBool,
    pub(super) commands: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) ever_dropped: AtomicU64,
}

impl Shared {
    pub(super) fn drop_commands(&self, commands: u64) {
        self.dropped.fetch_add(commands, Ordering::Relaxed);
        self.ever_dropped.fetch_add(commands, Ordering::Relaxed);
    }
}

/// Takes the name of an address; `None`: it has none, or none could be had.
pub type OnName = Box<dyn Fn(IpAddr, Option<String>) + Send>;
