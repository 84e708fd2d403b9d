//! Where the packet thread's news goes: the journal, the helper, the state store. Each has a
//! bounded queue, and none makes it wait.

use super::offloaded::Offloaded;
use crate::enforce::Observer;
use crate::engine::{Action, Engine, Report, Source};
use crate::helper::client::HelperClient;
use crate::journal::{JournalHandle, Notice};
use crate::store::StoreHandle;

/// The ways to the threads that have to know.
pub struct Observers {
    /// Log, history, watchers.
    pub journal: JournalHandle,
    /// Commands and files.
    pub helper: HelperClient,
    /// What a restart must not forget.
    pub store: StoreHandle,
    offloaded: Offloaded,
}

impl Observers {
    /// The ways to these threads.
    pub fn new(journal: JournalHandle, helper: HelperClient, store: StoreHandle) -> Self {
        Self { journal, helper, store, offloaded: Offloaded::default() }
    }
}

impl Observer for Observers {
    fn on_actions(&mut self, actions: &[Action]) {
        self.helper.on_orders(actions);
    }

    fn on_refusal(&mut self, actions: &[Action], source: Source) {
        self.helper.on_refusal(actions, source);
    }

    fn on_change(&mut self, engine: &Engine, source: Source) {
        self.store.on_change(engine, source);
    }

    fn on_report(&mut self, engine: &Engine, report: Report) {
        if let Report::Blocked { source, reason, .. } = &report
            && reason.proven()
        {
            self.offloaded.end(engine, *source);
        }
        self.helper.on_report(&report);
        self.store.on_report(engine, &report);
        let trace = subject(&report).and_then(|source| engine.trace(source));
        self.journal.report(report, trace);
    }

    fn notify(&mut self, notice: Notice) {
        self.journal.notify(notice);
    }
}

/// The source whose probes explain a report.
fn subject(report: &Report) -> Option<Source> {
    match report {
        Report::Scan { source, .. }
        | Report::Slowed { source, .. }
        | Report::Continues { source, .. }
        | Report::Released { source, .. }
        | Report::Blocked { source, .. }
        | Report::Unblocked { source, .. } => Some(*source),
        Report::Campaign { .. }
        | Report::BlockFailed { .. }
        | Report::Exempted { .. }
        | Report::UnblockFailed { .. } => None,
    }
}
