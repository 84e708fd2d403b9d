//! The handle through which other threads use the store's thread.
//!
//! The packet thread queues changes and never waits: the queue is bounded, and when it is full the
//! store's thread later asks for the list of all blocks. A caller that must know that its change is
//! on the disk waits with [`StoreHandle::settle`], as the control server does. While the disk
//! fails, blocking goes on; pending changes are written when the disk works again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::shared::{Figures, Item, Request, Shared};
use super::{Block, Change, Memory};
use crate::config::Config;
use crate::engine::{Ending, Engine, Evidence, Outcome, Reason, Report, Source};
use crate::sys::mailbox::Link;

/// Changes that wait for the thread, about 200 bytes each.
pub(super) const QUEUE: usize = 8192;

/// How long an administrator's command waits for the disk before it reports that the change is not
/// stored yet.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last changes may take when the daemon ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle to the thread, which [`StoreHandle::start`] starts; clones share it.
#[derive(Clone)]
pub struct StoreHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) items: Link<Item>,
    pub(super) requests: Link<Request>,
}

impl StoreHandle {
    /// Queues the current state of `source` after the kernel has changed its block. Never waits.
    ///
    /// The current state is written, so the order of several changes does not matter.
    pub fn on_change(&self, engine: &Engine, source: Source) {
        self.push(match engine.blocked(source) {
            Some(view) => Change::Block(stored(view)),
            None => Change::Ended(source),
        });
    }

    /// Queues the changes of an engine report. Never waits.
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

    /// Queues the evidence when the daemon ends. Never waits.
    pub fn last(&self, evidence: Vec<Evidence>) {
        // If the queue is full, the evidence of half a minute ago stays, as after a crash.
        self.items.tell(Item::Last(evidence));
    }

    /// Waits until all queued changes are on the disk.
    ///
    /// # Errors
    /// The message why they are not.
    pub fn settle(&self) -> Result<(), String> {
        let result = self.requests.ask_within(SETTLE_TIMEOUT, Request::Settle);
        result.unwrap_or_else(|_| Err("the disk is slow".to_owned()))
    }

    /// Applies a new configuration.
    pub fn reconfigure(&self, config: &Config) {
        self.requests.tell(Request::Configure(Box::new(config.clone())));
    }

    /// Writes pending changes, and ends the thread.
    pub fn stop(&self) {
        if self.requests.ask_within(STOP_TIMEOUT, Request::Stop).is_err() {
            log::error!(
                "the state store was not closed in order: the last changes may be missing in it"
            );
        }
    }

    /// The state of the store.
    pub fn figures(&self) -> Figures {
        self.shared.figures().clone()
    }

    /// Administrators and services. Changes are written within half a minute, or by
    /// [`StoreHandle::settle`]. Not for the packet thread.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared.memory()
    }

    fn push(&self, change: Change) {
        if self.items.send(Item::Change(Box::new(change))).is_err() {
            self.shared.list_wanted.store(true, Ordering::Release);
        }
    }
}

/// The source whose block the kernel has changed.
pub fn changed(outcome: &Outcome) -> Option<Source> {
    match outcome {
        Outcome::Blocked { source, result: Ok(()) }
        | Outcome::Unblocked { source, result: Ok(()) } => Some(*source),
        _ => None,
    }
}

/// A block in its stored form.
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
