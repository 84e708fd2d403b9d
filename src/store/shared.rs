//! What the store's thread and its callers share: changes, requests, figures.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Block, Change, Content, Rows};
use crate::config::Config;
use crate::engine::{Evidence, MonoTime, Offender};
use crate::sys::mailbox;

/// What the store held at the start; nothing by default.
#[derive(Debug, Default)]
pub struct Stored {
    /// By the clock of now; blocks that are over are left out.
    pub content: Content,
    /// It was written since the last boot: what the kernel lacks of it, another program took out.
    pub is_same_boot: bool,
}

/// What the store's thread asks of the thread that owns the engine. `None`: no answer in time, as while that thread starts or ends.
pub trait EngineReader: Send {
    /// The blocks in force in so many places from `from` on, and where the next call goes on.
    fn page(&self, from: usize, places: usize) -> Option<(Vec<Block>, Option<usize>)>;

    /// All proven sources that were blocked.
    fn offenders(&self) -> Option<Vec<Offender>>;

    /// What is known of sources that were touched since then, of `most` at most.
    fn evidence(&self, since: MonoTime, most: usize) -> Option<Vec<Evidence>>;

    /// Takes over what could not be read at the start.
    fn restore(&self, stored: Stored) -> Option<()>;
}

/// What the thread is told of.
pub(super) enum Item {
    Change(Change),
    /// What was known at the end.
    Last(Vec<Evidence>),
}

/// What the thread is asked for.
pub(super) enum Request {
    /// Have on the disk what was told so far; `Err`: the words why not.
    Settle(mailbox::Answer<Result<(), String>>),
    /// How long evidence and offenders count from now on.
    Configure(Memory),
    /// Write what there is, and end.
    Stop(mailbox::Answer<()>),
}

/// How long things count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) evidence: Duration,
    pub(super) offenders: Duration,
}

impl From<&Config> for Memory {
    fn from(config: &Config) -> Self {
        Self { evidence: config.scan_window, offenders: config.block.escalate.memory }
    }
}

/// How the store fares, for the status.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Why it cannot be written; `None`: all is well.
    pub failing: Option<String>,
    /// What is in it.
    pub rows: Rows,
    /// When it was written last, by the engine's clock; `None`: not yet by this daemon.
    pub written: Option<MonoTime>,
}

#[derive(Default)]
pub(super) struct Shared {
    /// The queue was full: the list of all blocks is wanted.
    pub(super) list_wanted: AtomicBool,
    /// The packet thread does not touch this.
    pub(super) figures: Mutex<Figures>,
}
