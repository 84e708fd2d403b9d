//! The way to the store's thread for the other threads.
//!
//! The packet thread hands over what changed and never waits: the queue is bounded, and when it is full the store's thread asks for the list of all blocks
//! later. A caller that must know that something is on the disk waits for it ([`StoreHandle::settle`]): the control server does, for the administrator.
//! While the disk takes nothing, blocks go on; what was not written is written when the disk takes it again.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::shared::{EngineReader, Figures, Item, Memory, Request, Shared, Stored};
use super::worker::Worker;
use super::{Block, Change, Opened, clock};
use crate::config::Config;
use crate::engine::{Ending, Engine, Evidence, Outcome, Reason, Report, Source};
use crate::journal::JournalHandle;
use crate::sys::mailbox::{self, Link};

/// Changes that wait for the thread: some 200 bytes each.
pub const QUEUE: usize = 8192;

/// How long the administrator waits for the disk: beyond it he is told that it is not there yet.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the last changes get when the daemon ends.
const LAST_CHANGES: Duration = Duration::from_secs(10);

/// The way to the thread; clones lead to the same one.
#[derive(Clone)]
pub struct StoreHandle {
    shared: Arc<Shared>,
    items: Link<Item>,
    requests: Link<Request>,
}

impl StoreHandle {
    /// Starts the thread with a store that was opened. What was in it is taken over by the packet thread ([`Stored`]).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: &Config, opened: Opened, journal: JournalHandle, engine: Box<dyn EngineReader>) -> io::Result<(Self, Option<Stored>)> {
        let mark = clock::mark();
        let stored = opened.content.map(|content| {
            let is_same_boot = content.mark.is_same_boot(&mark);
            Stored { content: content.carried(&mark), is_same_boot }
        });
        let shared = Arc::new(Shared::default());
        let (items, item_inbox) = mailbox::with_capacity(QUEUE)?;
        let (requests, request_inbox) = mailbox::link()?;
        let directory = config.state_dir.clone();
        let mut worker =
            Worker::new(directory, opened.database, Memory::from(config), journal, engine, item_inbox, request_inbox, Arc::clone(&shared));
        worker.take_up(stored.as_ref());
        std::thread::Builder::new().name("store".to_owned()).spawn(move || worker.run())?;
        Ok((Self { shared, items, requests }, stored))
    }

    /// The kernel has changed something about this source, and the engine knows it. Never waits.
    ///
    /// What is written is how it stands now, so that it does not matter which of several changes comes last.
    pub fn on_change(&self, engine: &Engine, source: Source) {
        self.push(match engine.blocked(source) {
            Some(view) => Change::Block(stored(view)),
            None => Change::Ended(source),
        });
    }

    /// The engine has reported something. Never waits.
    pub fn on_report(&self, engine: &Engine, report: &Report) {
        match report {
            Report::Blocked { source, reason: Reason::Scan { proven: true, .. }, .. } => {
                if let Some(offender) = engine.offender(*source) {
                    self.push(Change::Offender(offender));
                }
            }
            Report::Unblocked { source, ending } => {
                self.on_change(engine, *source);
                if let Ending::Manual | Ending::Removed = ending {
                    self.push(Change::Forgiven(*source));
                }
            }
            Report::Exempted { source, .. } => self.on_change(engine, *source),
            _ => {}
        }
    }

    /// What was known when the daemon ended. Never waits.
    pub fn last(&self, evidence: Vec<Evidence>) {
        // With a full queue it is as after a crash: what was known half a minute ago stays.
        self.items.tell(Item::Last(evidence));
    }

    /// Waits until all that was told before is on the disk.
    ///
    /// # Errors
    /// The words why it is not.
    pub fn settle(&self) -> Result<(), String> {
        match self.requests.ask_within(SETTLE_TIMEOUT, Request::Settle) {
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

    fn push(&self, change: Change) {
        if self.items.send(Item::Change(change)).is_err() {
            self.shared.list_wanted.store(true, Ordering::Release);
        }
    }
}

/// The block that the kernel has changed, by its answer.
pub fn changed(outcome: &Outcome) -> Option<Source> {
    match outcome {
        Outcome::Blocked { source, result: Ok(()) } | Outcome::Unblocked { source, result: Ok(()) } => Some(*source),
        _ => None,
    }
}

/// A block as it is stored.
pub fn stored(view: crate::engine::BlockView<'_>) -> Block {
    Block {
        source: view.source,
        exempt: view.exempt.to_vec(),
        since: view.since,
        expires: view.expires,
        port: view.port,
        reason: view.reason.clone(),
    }
}
