//! The event store: what happened to sources, what administrators ordered, and what explains gaps,
//! in an SQLite database of its own.
//!
//! It is not in the state store, which is small, is copied as a whole, and must never wait for a
//! search. One thread owns the database; the journal's thread queues records, and the control
//! workers ask for pages of a search, each of which is bounded, so that no search delays another
//! for long. Losing it loses no block.
//!
//! Bounds: an age, and a size. When the database is full, the oldest events go; those that forged
//! packets may have caused go first while they are more than half of all, so a flood does not push
//! out the others.

mod database;
mod query;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Config;
use crate::journal::Record;
use crate::sys::mailbox::{Answer, Link, Unresponsive};

pub use query::{Page, Place, Query};

/// File name of the database in the state directory.
pub const FILE: &str = "portsentry-events.db";

/// The version of the tables.
const VERSION: i32 = 1;

/// Records that wait for the thread, some 500 bytes each.
const QUEUE: usize = 1024;

/// How long a request may wait for the thread: a write to a slow disk, and a few pages of others.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a search waits for the latest events to be written.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last events may take when the daemon ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What the store does with its events.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    directory: PathBuf,
    /// `None`: none is stored.
    keep: Option<Duration>,
    max: u64,
    /// Read when the database is made.
    history_file: Option<PathBuf>,
}

impl Settings {
    fn of(config: &Config, directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            keep: config.events.keep,
            max: config.events.max.0,
            history_file: config.history_file.clone(),
        }
    }
}

/// What callers ask the thread to do.
enum Request {
    /// Find the next records.
    Find(Box<Query>, Option<Place>, Answer<Result<Page, String>>),
    /// Write everything queued so far.
    Settle(Answer<()>),
    /// Apply other bounds.
    Configure(Box<Config>),
    /// Write what is pending, and end.
    Stop(Answer<()>),
}

/// State of the store, for the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Why it cannot be written; `None`: it works.
    pub failing: Option<String>,
    /// Stored events.
    pub rows: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Events that were lost here since the start, as the disk failed.
    pub lost: u64,
}

/// A handle to the thread, which [`EventsHandle::start`] starts; clones share it.
#[derive(Clone)]
pub struct EventsHandle {
    /// Boxed: the queue has room for each from the start.
    records: Link<Box<Record>>,
    requests: Link<Request>,
    figures: Arc<Mutex<Figures>>,
}

impl EventsHandle {
    /// Queues a record; `false` if the queue is full. Never waits.
    pub fn keep(&self, record: Record) -> bool {
        self.records.send(Box::new(record)).is_ok()
    }

    /// The next records of a search.
    ///
    /// # Errors
    /// The message why there are none.
    pub fn find(&self, query: &Query, after: Option<Place>) -> Result<Page, String> {
        let query = Box::new(query.clone());
        let asked = self.requests.ask_within(TIMEOUT, |answer| Request::Find(query, after, answer));
        asked.unwrap_or_else(|Unresponsive| Err("the disk is slow".to_owned()))
    }

    /// Has everything that is queued written; not if that takes long.
    pub fn settle(&self) {
        // A search then finds what is written.
        let _ = self.requests.ask_within(SETTLE_TIMEOUT, Request::Settle);
    }

    /// Applies a new configuration.
    pub fn reconfigure(&self, config: &Config) {
        self.requests.tell(Request::Configure(Box::new(config.clone())));
    }

    /// Writes pending records, and ends the thread.
    pub fn stop(&self) {
        if self.requests.ask_within(STOP_TIMEOUT, Request::Stop).is_err() {
            log::error!("the event store was not closed in order: it may lack the last events");
        }
    }

    /// The state of the store.
    pub fn figures(&self) -> Figures {
        lock(&self.figures).clone()
    }
}

fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
