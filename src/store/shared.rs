//! Items, requests and counters that the store's thread shares with its callers.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Block, Change, Content, Memory, Rows};
use crate::config::Config;
use crate::engine::{Evidence, MonoTime, Offender};
use crate::sys::mailbox;

/// The content of the store at the start; empty by default.
#[derive(Debug, Default)]
pub struct Stored {
    /// By the current clock, without ended blocks.
    pub content: Content,
    /// Whether it was written since the last boot: then another program has deleted blocks that the
    /// kernel lacks.
    pub is_same_boot: bool,
}

/// The engine as the store's thread sees it. `None`: no answer in time, for example while the
/// packet thread starts or ends.
pub trait EngineReader: Send {
    /// The blocks in force among `places` slots from `from` on, and the next `from`.
    fn page(&self, from: usize, places: usize) -> Option<(Vec<Block>, Option<usize>)>;

    /// All proven sources that were blocked.
    fn offenders(&self) -> Option<Vec<Offender>>;

    /// Evidence about at most `most` sources touched since then.
    fn evidence(&self, since: MonoTime, most: usize) -> Option<Vec<Evidence>>;

    /// Restores content that could not be read at the start.
    fn restore(&self, stored: Stored) -> Option<()>;
}

/// All blocks in pieces of so many places, of which the first is given with where the next begins.
/// `None`: the packet thread does not answer.
pub(super) fn pieces(
    engine: &dyn EngineReader,
    places: usize,
    (piece, mut from): (Vec<Block>, Option<usize>),
) -> impl Iterator<Item = Option<Vec<Block>>> {
    let others = std::iter::from_fn(move || {
        let page = engine.page(from?, places);
        from = page.as_ref().and_then(|(_, next)| *next);
        Some(page.map(|(piece, _)| piece))
    });
    std::iter::once(Some(piece)).chain(others)
}

/// What callers queue for the thread.
pub(super) enum Item {
    /// Boxed: the queue has room for each from the start, which would be a megabyte.
    Change(Box<Change>),
    /// The evidence when the daemon ends.
    Last(Vec<Evidence>),
}

/// What callers ask the thread to do.
pub(super) enum Request {
    /// Write everything queued so far; `Err`: the message why not.
    Settle(mailbox::Answer<Result<(), String>>),
    /// Keep evidence and offenders for as long as this says from now on.
    Configure(Box<Config>),
    /// Write what is pending, and end.
    Stop(mailbox::Answer<()>),
}

/// State of the store, for the status.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Why it cannot be written; `None`: it works.
    pub failing: Option<String>,
    /// Row counts of the database.
    pub rows: Rows,
    /// Time of the last write of this daemon, by the engine's clock.
    pub written: Option<MonoTime>,
}

#[derive(Default)]
pub(super) struct Shared {
    /// The queue was full: the list of all blocks is needed.
    pub(super) list_wanted: AtomicBool,
    /// Not for the packet thread, which must not lock these.
    figures: Mutex<Figures>,
    memory: Mutex<Memory>,
}

impl Shared {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
