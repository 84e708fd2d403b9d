//! The archive: what must not be forgotten, on its way to the store. A thread that owns the store, and the way there for everybody else.
//!
//! The packet thread hands over what changed and never waits: the queue is bounded, and when it is full the thread asks for the list of all blocks
//! later. Whoever must know that something is on the disk waits for that ([`Archive::settle`]): the control server does, for the administrator. While the
//! disk takes nothing, blocks go on; what was not written is written when it does again.

mod keeper;
mod shared;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use self::keeper::Keeper;
pub use self::shared::Figures;
use self::shared::{Item, Memory, Request, Shared};
use super::command::{Command, Stored};
use super::link::{self, Link};
use crate::config::Config;
use crate::engine::{Ending, Engine, Evidence, Outcome, Reason, Report, Source, Subject};
use crate::journal::JournalHandle;
use crate::journal::store::{Block, Change, Known, Opened, Repeated};
use crate::sys::wake::Waker;

/// Changes that wait for the thread: some 200 bytes each.
pub const QUEUE: usize = 8192;

/// How long the administrator waits for the disk: beyond it he is told that it is not there yet.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// What the last changes get when the daemon ends.
const LAST_CHANGES: Duration = Duration::from_secs(10);

/// The way to the thread; clones lead to the same one.
#[derive(Clone)]
pub struct Archive {
    shared: Arc<Shared>,
    queue: SyncSender<Item>,
    waker: Arc<Waker>,
    requests: Link<Request>,
}

impl Archive {
    /// Starts the thread with a store that was opened. What was in it is taken over by the packet thread ([`Stored`]).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: &Config, opened: Opened, journal: JournalHandle, sentry: Link<Command>) -> io::Result<(Self, Option<Stored>)> {
        let mark = super::time::mark();
        let stored = opened.content.map(|content| {
            let is_same_boot = content.mark.is_same_boot(&mark);
            Stored { content: content.carried(&mark), is_same_boot }
        });
        let shared = Arc::new(Shared::default());
        let (queue, items) = sync_channel(QUEUE);
        let waker = Arc::new(Waker::new()?);
        let (requests, inbox) = link::link()?;
        let directory = config.state_dir.clone();
        let mut keeper =
            Keeper::new(directory, opened.database, Memory::from(config), journal, sentry, items, Arc::clone(&waker), inbox, Arc::clone(&shared));
        keeper.take_up(stored.as_ref());
        std::thread::Builder::new().name("archive".to_owned()).spawn(move || keeper.run())?;
        Ok((Self { shared, queue, waker, requests }, stored))
    }

    /// The kernel has changed something about this subject, and the engine has heard it. Never waits.
    pub fn on_change(&self, engine: &Engine, subject: Subject) {
        self.note(engine, subject);
    }

    /// The engine has reported something. Never waits.
    pub fn on_report(&self, engine: &Engine, report: &Report) {
        match report {
            Report::Blocked { subject: Subject::Host(source), reason: Reason::Scan { proven: true, .. }, .. } => {
                if let Some(offender) = engine.offender(*source) {
                    self.push(Change::Offender(Repeated { offender, prefix: engine.policy().ipv6_prefix }));
                }
            }
            Report::Unblocked { subject, ending } => {
                self.note(engine, *subject);
                if let (Subject::Host(source), Ending::ByHand | Ending::Removed) = (subject, ending) {
                    self.push(Change::Forgiven(*source));
                }
            }
            _ => {}
        }
    }

    /// What was known when the daemon ended. Never waits.
    pub fn last(&self, evidence: Vec<Evidence>, prefix: u8) {
        let known = evidence.into_iter().map(|evidence| Known { evidence, prefix }).collect();
        // With a full queue it is as after a crash: what was known half a minute ago stays.
        let _ = self.queue.try_send(Item::Last(known));
        self.waker.wake();
    }

    /// Waits until all that was told before is on the disk.
    ///
    /// # Errors
    /// The words why it is not.
    pub fn settle(&self) -> Result<(), String> {
        match self.requests.ask_within(SETTLE_PATIENCE, Request::Settle) {
            Ok(result) => result,
            Err(_) => Err("the disk is slow".to_owned()),
        }
    }

    /// Another configuration is in force.
    pub fn reconfigure(&self, config: &Config) {
        self.requests.tell(Request::Configure(Memory::from(config)));
    }

    /// Writes what there is, and ends the thread.
    pub fn stop(&self) {
        if self.requests.ask_within(LAST_CHANGES, Request::Stop).is_err() {
            log::error!("the state store was not closed in order: the last changes may be missing in it");
        }
    }

    /// How the store fares.
    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells how it stands with a subject: the truth of now, so that it does not matter which of several tellings comes last.
    fn note(&self, engine: &Engine, subject: Subject) {
        let prefix = engine.policy().ipv6_prefix;
        self.push(match engine.standing(subject) {
            Some(view) => Change::Block(stored(view, prefix)),
            None => Change::Ended(subject),
        });
    }

    fn push(&self, change: Change) {
        if self.queue.try_send(Item::Change(change)).is_err() {
            self.shared.list_wanted.store(true, Ordering::Release);
        }
        self.waker.wake();
    }
}

/// Whose block the kernel has changed, by its answer.
pub fn changed(outcome: &Outcome) -> Option<Subject> {
    match outcome {
        Outcome::Blocked { subject, result: Ok(()) } | Outcome::Unblocked { subject, result: Ok(()) } => Some(*subject),
        _ => None,
    }
}

/// A block as it is stored.
pub fn stored(view: crate::engine::BlockView<'_>, prefix: u8) -> Block {
    Block { subject: view.subject, prefix, since: view.since, expires: view.expires, port: view.port, reason: view.reason.clone() }
}

/// Whether what was stored of a source is meant by this prefix length.
pub fn is_of_prefix(source: Source, stored: u8, prefix: u8) -> bool {
    matches!(source, Source::V4(_)) || stored == prefix
}
