//! What is known of the changes of other programs to our table, and how often we repaired it.

use std::collections::VecDeque;
use std::time::Duration;

use super::change::Change;
use super::fight::FightDetector;
use super::kernel::{Author, Wanted};
use super::networks::Family;
use super::reconcile::Missing;
use crate::config::OwnTable;
use crate::engine::MonoTime;
use crate::nft::{ElementInfo, Key, TableOwner};
use crate::rate::TokenBucket;
use crate::ruleset::SetId;

/// With so many blocks the kernel is not asked to notify us of our own elements.
pub(super) const QUIET_FROM: usize = 500;

/// Nothing notifies us that the thread is done: it is looked at this often.
pub(super) const POLL_EVERY: Duration = Duration::from_millis(20);

/// Lines a minute about what others did. A script that adds addresses one by one makes as many
/// changes.
pub(super) const LINES_PER_MINUTE: u32 = 20;

/// After a loss of notifications everything is looked at, but not more often than this.
pub(super) const LOSS_EVERY: Duration = Duration::from_secs(10);

/// What was done about other programs since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// How often the table was repaired.
    pub count: u64,
    /// Who made that necessary last.
    pub last: Option<Author>,
    /// The table is being changed again and again.
    pub fighting: bool,
}

/// What was found out about elements, until it is reported.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) lifted: u64,
    pub(super) adopted: u64,
    pub(super) retimed: u64,
    pub(super) normalised: u64,
    pub(super) exemptions: bool,
}

/// Intervals that were read and are not dealt with yet.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) family: Family,
    pub(super) intervals: VecDeque<ElementInfo>,
    /// The first address that is not dealt with.
    pub(super) from: u128,
    pub(super) missing: Missing,
}

/// What is known of the changes of others.
#[derive(Debug)]
pub struct Drift {
    /// What is to be dealt with.
    pub(super) pending: Change,
    /// Notifications were lost.
    pub(super) lost: bool,
    pub(super) lost_at: Option<MonoTime>,
    /// What has to be read again.
    pub(super) read: Wanted,
    /// What is being read is this, and it was asked for because elements were named that were
    /// removed.
    pub(super) reading: Wanted,
    pub(super) notified: bool,
    /// Of a dump.
    pub(super) keys: Vec<(SetId, Key)>,
    pub(super) intervals: VecDeque<Reading>,
    pub(super) author: Author,
    pub(super) findings: Findings,
    pub(super) fight: FightDetector,
    pub(super) failure_reported: bool,
    pub(super) own_table: OwnTable,
    /// Whose the table is to be.
    pub(crate) owner: TableOwner,
    /// But for `fighting`, which is up to the time.
    pub(super) repairs: Repairs,
    pub(super) lines: TokenBucket,
    pub(super) unreported: u64,
}

impl Drift {
    /// Nothing has changed yet.
    pub fn new(own_table: OwnTable) -> Self {
        Self {
            pending: Change::default(),
            lost: false,
            lost_at: None,
            read: Wanted::default(),
            reading: Wanted::default(),
            notified: false,
            keys: Vec::new(),
            intervals: VecDeque::new(),
            author: Author::default(),
            findings: Findings::default(),
            fight: FightDetector::default(),
            failure_reported: false,
            own_table,
            owner: if own_table == OwnTable::Yes { TableOwner::Owned } else { TableOwner::Unowned },
            repairs: Repairs::default(),
            lines: TokenBucket::per_minute(LINES_PER_MINUTE),
            unreported: 0,
        }
    }

    pub(crate) fn repairs(&self, now: MonoTime) -> Repairs {
        Repairs { fighting: self.fight.is_fighting(now), ..self.repairs.clone() }
    }

    /// When there is something to do that no notification brings.
    pub(crate) fn next_timer(&self, now: MonoTime) -> Option<MonoTime> {
        let waits = self.lost || self.pending.structure;
        let soon = !self.pending.has_no_elements()
            || self.pending.networks > 0
            || !self.keys.is_empty()
            || !self.intervals.is_empty();
        let not_before = self.fight.not_before(now).max(self.loss_not_before(now));
        let next = waits.then_some(not_before.unwrap_or(now));
        let poll =
            (!self.reading.is_nothing() || !self.read.is_nothing()).then(|| now.after(POLL_EVERY));
        if soon { Some(now) } else { next.into_iter().chain(poll).min() }
    }

    pub(super) fn loss_not_before(&self, now: MonoTime) -> Option<MonoTime> {
        self.lost_at
            .map(|at| at.after(LOSS_EVERY))
            .filter(|at| self.lost && !self.pending.structure && now < *at)
    }
}
