//! What other programs did to our table: heard at once, and kept until something is done about it.
//!
//! Three parts: `change` is one transaction of theirs, as the notifications tell it; `repair` puts right what must not be, and respects the rest; `look`
//! finds what no notification has told.
//!
//! Never here: another table, a wait, work without a bound. What a transaction of others did is known from the kernel's notifications
//! (`NFNLGRP_NFTABLES`); our own come from our own port id and are passed over.

mod change;
mod look;
mod repair;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use self::change::Change;
use self::look::Look;
use super::pace::Pace;
use crate::config::OwnTable;
use crate::daemon::command::{Author, Repairs};
use crate::engine::{Moment, Subject};
use crate::nft::{Connection, Error, FallbackLevel, Installed, Monitor, Notification, Order, Received, Ruleset, TableOwner};
use crate::probe::Port;
use crate::responder::{place, words};
use crate::ruleset::SCHEMA;

/// Datagrams of notifications that are read before packets are looked at again. Some eighteen elements are in one: those of [`repair::BLOCKS_A_WAKE`] of our
/// own are passed over within a wake, so that they never pile up.
const HEARD_A_WAKE: usize = 256;

/// With so many blocks the kernel is not asked to tell us of our own elements.
pub(super) const QUIET_FROM: usize = 500;

/// Lines a minute about what others did. A script that adds addresses one by one makes as many changes.
const TOLD_A_MINUTE: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// After a loss of notifications everything is looked at; not more often than this.
const LOSS_EVERY: Duration = Duration::from_secs(10);

/// What was found out about changes, until it is told.
#[derive(Debug, Default)]
struct Found {
    lifted: u64,
    taken: u64,
    changed: u64,
    exempt: bool,
}

/// What is known of the changes of others.
pub(super) struct Foreign {
    monitor: Monitor,
    /// The port id of the connection that our own changes come by.
    own: u32,
    /// The transaction that is being heard.
    current: Change,
    /// What is to be looked after.
    pending: Change,
    lost: bool,
    lost_at: Option<Moment>,
    /// There may be blocks in the kernel that the books do not know.
    unsure: bool,
    look: Look,
    author: Author,
    found: Found,
    /// Blocks that are still to be put back.
    backlog: VecDeque<Subject>,
    /// Blocks whose elements have neither comment nor counter yet.
    bare: VecDeque<Subject>,
    pace: Pace,
    failure_told: bool,
    own_table: OwnTable,
    /// Whose the table is to be.
    hold: TableOwner,
    /// What local services listened on when that was asked last.
    services: Vec<Port>,
    count: u64,
    last: Option<Author>,
    told: u32,
    told_from: Option<Moment>,
    untold: u64,
}

impl Foreign {
    /// Listens from now on; `own`: the port id of the connection that changes the table.
    pub(super) fn open(own: u32, own_table: OwnTable, services: Vec<Port>) -> Result<Self, Error> {
        Ok(Self {
            monitor: Monitor::open(SCHEMA)?,
            own,
            current: Change::default(),
            pending: Change::default(),
            lost: false,
            lost_at: None,
            unsure: false,
            look: Look::default(),
            author: Author::default(),
            found: Found::default(),
            backlog: VecDeque::new(),
            bare: VecDeque::new(),
            pace: Pace::default(),
            failure_told: false,
            own_table,
            hold: if own_table == OwnTable::Yes { TableOwner::Owned } else { TableOwner::Unowned },
            services,
            count: 0,
            last: None,
            told: 0,
            told_from: None,
            untold: 0,
        })
    }

    /// Whose the table is to be.
    pub(super) fn hold(&self) -> TableOwner {
        self.hold
    }

    /// Has the kernel's table made what it should be, by the connection that changes it, and as nobody's table where the kernel has no owners that
    /// persist. `many`: so many elements go with it that nobody need be told of each of our own.
    ///
    /// # Errors
    /// As [`Connection::install`].
    pub(super) fn install(&mut self, connection: &mut Connection, ruleset: &Ruleset, order: Order<'_>, many: bool) -> Result<Installed, Error> {
        let before = if many { connection.generation().ok() } else { None };
        let quiet = before.is_some() && self.monitor.listen(false).is_ok();
        let mut result = connection.install_with(ruleset, Order { owner: self.hold, ..order });
        if self.hold == TableOwner::Owned && result.as_ref().is_err_and(Error::is_unsupported) {
            (self.own_table, self.hold) = (OwnTable::No, TableOwner::Unowned);
            result = connection.install_with(ruleset, Order { owner: self.hold, ..order });
        }
        if let Ok(Installed { fallback: Some(fallback), .. }) = &result {
            let how = match fallback.level {
                FallbackLevel::RulesOnly => "the rules are in force, and elements follow",
                FallbackLevel::Recreated => "the table was deleted and created again, and elements follow",
            };
            log::warn!("{}; {how}", words(&fallback.error));
        }
        if quiet {
            self.monitor.listen(true)?;
            // Somebody else's transaction meanwhile was not heard.
            let after = connection.generation().ok();
            let is_only_ours = |installed: &Installed| (before, after) == (Some(installed.before), Some(installed.generation));
            self.lost |= !result.as_ref().is_ok_and(is_only_ours);
        }
        result
    }

    /// What listens now.
    pub(super) fn set_services(&mut self, services: Vec<Port>) {
        self.services = services;
    }

    /// These came without comments and counters, which follow.
    pub(super) fn are_bare(&mut self, subjects: impl Iterator<Item = Subject>) {
        self.bare = subjects.filter(|subject| place(*subject).0.counts_each()).collect();
    }

    pub(super) fn repairs(&self, now: Moment) -> Repairs {
        Repairs { count: self.count, last: self.last.clone(), fighting: self.pace.is_fighting(now) }
    }

    /// When there is something to do that no notification brings.
    pub(super) fn next_timer(&self, now: Moment) -> Option<Moment> {
        let waits = self.lost || self.pending.structure || self.pending.allowed;
        let soon = !self.backlog.is_empty() || !self.bare.is_empty() || !self.pending.has_no_elements() || self.pending.networks;
        let next = waits.then(|| self.pace.not_before(now).into_iter().chain(self.loss_not_before(now)).max().unwrap_or(now));
        if soon { Some(now) } else { next.into_iter().chain(self.look.next_timer(now)).min() }
    }

    fn loss_not_before(&self, now: Moment) -> Option<Moment> {
        self.lost_at.map(|at| at.after(LOSS_EVERY)).filter(|at| self.lost && !self.pending.structure && now < *at)
    }

    /// Reads what there is, so much of it. Whether there may be more.
    fn hear(&mut self) -> bool {
        let Self { monitor, own, current, pending, lost, author, .. } = self;
        for _ in 0..HEARD_A_WAKE {
            let heard = monitor.receive(Some(*own), |notification| {
                if let Notification::Generation(event) = notification {
                    let change = std::mem::take(current);
                    if !change.is_nothing() {
                        *author = Author { pid: event.pid, program: event.program };
                        pending.join(change);
                    }
                } else {
                    current.take(notification);
                }
            });
            match heard {
                Ok(Received::Datagram) => {}
                Ok(Received::Nothing) => return false,
                Ok(Received::Lost) => {
                    *current = Change::default();
                    *lost = true;
                }
                Err(error) => {
                    log::warn!("{}", words(&error));
                    return false;
                }
            }
        }
        true
    }

    /// Whether one more line may be told.
    fn may_tell(&mut self, now: Moment) -> bool {
        if self.told_from.is_none_or(|from| now.since(from) >= MINUTE) {
            (self.told_from, self.told) = (Some(now), 0);
        }
        self.told += 1;
        let may = self.told <= TOLD_A_MINUTE;
        self.untold += u64::from(!may);
        may
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}
