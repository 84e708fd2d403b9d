//! One block: what it is on, why, in which state, and when something is due for it.

use std::time::Duration;

use ipnet::IpNet;

use super::{Ending, MonoTime, Reason, Report, Source};
use crate::probe::Port;

/// After a refusal the same source is tried again after this, twice as long each further time. The kernel refuses when its set or memory is
/// full: a second is nothing to it.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// But not later than this.
pub(super) const RETRY_LAST: Duration = Duration::from_secs(60);

/// A packet of a blocked source was on its way when the block came, or the element is gone: the kernel is asked, but not more often than this.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);

/// What is to be blocked, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) timeout: Option<Duration>,
    pub(super) reason: Reason,
    pub(super) port: Option<Port>,
}

/// What is asked for while an order is in flight.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pending {
    Block(Order),
    Lift(Ending),
    Exempt(IpNet),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// The element is in the kernel's set.
    InForce,
    /// The first order is in flight.
    Blocking,
    /// In force, and the order for more time is in flight; with the new reason, if it changes.
    Renewing { timeout: Option<Duration>, reason: Option<Box<(Reason, Option<Port>)>> },
    /// In force, and the question for its counter is in flight.
    Counting,
    /// In force, and the order to leave these networks out is in flight.
    Exempting(Exempt),
    /// The order to take it out is in flight.
    Lifting { ending: Ending, in_force: bool },
    /// The kernel has refused it; it is not tried again before then.
    Refused { until: MonoTime },
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) source: Source,
    pub(super) state: State,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) reason: Reason,
    pub(super) port: Option<Port>,
    pub(super) since: MonoTime,
    pub(super) timeout: Option<Duration>,
    pub(super) expires: Option<MonoTime>,
    /// When the kernel is asked whether the scan goes on.
    pub(super) count_at: Option<MonoTime>,
    pub(super) lift_at: Option<MonoTime>,
    /// From here on a packet that comes through is a reason to ask whether the element is still there.
    pub(super) check_from: MonoTime,
    pub(super) timer: Option<MonoTime>,
    pub(super) packets: u64,
    pub(super) renewals: u32,
    pub(super) refusals: u8,
    pub(super) exempt: Exempt,
}

/// What a block leaves out; few blocks leave out anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Exempt(Option<Box<Vec<IpNet>>>);

impl Exempt {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self((!networks.is_empty()).then(|| Box::new(networks)))
    }

    pub(super) fn networks(&self) -> &[IpNet] {
        self.0.as_deref().map(Vec::as_slice).unwrap_or_default()
    }

    /// The same with one more; `None` if that is left out already.
    pub(super) fn with(&self, network: IpNet) -> Option<Vec<IpNet>> {
        if self.networks().iter().any(|known| known.contains(&network)) {
            return None;
        }
        let mut all: Vec<IpNet> = self.networks().iter().filter(|known| !network.contains(*known)).copied().collect();
        all.push(network);
        all.sort_unstable();
        Some(all)
    }
}

/// A block as it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockView<'a> {
    /// What is blocked.
    pub source: Source,
    /// Why.
    pub reason: &'a Reason,
    /// Since when; for an adopted block, as far as that is known.
    pub since: MonoTime,
    /// Until when; `None` until it is unblocked.
    pub expires: Option<MonoTime>,
    /// The whole time that it was given last.
    pub timeout: Option<Duration>,
    /// The port of the probe that crossed the trigger; `None` for a block by hand, and for one of an earlier run.
    pub port: Option<Port>,
    /// Packets dropped, as the kernel told at start or at the last renewal. The kernel's own counter is newer.
    pub packets: u64,
    /// Networks within it that are not blocked.
    pub exempt: &'a [IpNet],
}

impl Entry {
    pub(super) fn is_in_force(&self) -> bool {
        match self.state {
            State::InForce | State::Renewing { .. } | State::Counting | State::Exempting(_) => true,
            State::Lifting { in_force, .. } => in_force,
            State::Blocking | State::Refused { .. } => false,
        }
    }

    pub(super) fn is_unproven_scan(&self) -> bool {
        matches!(self.reason, Reason::Scan { proven: false, .. })
    }

    /// Gives it `timeout` from now on.
    pub(super) fn run(&mut self, now: MonoTime, timeout: Option<Duration>) {
        self.timeout = timeout;
        self.expires = timeout.map(|timeout| now.after(timeout));
        self.check_from = now.after(CHECK_EVERY);
        // Three quarters: late enough to see whether the scan goes on, early enough that the renewal is there before the kernel's timer.
        self.count_at = timeout.filter(|_| self.is_unproven_scan()).map(|timeout| now.after(timeout / 4 * 3));
    }

    /// When the next thing is due that no outcome brings.
    pub(super) fn due(&self) -> Option<MonoTime> {
        match self.state {
            State::InForce => [self.expires, self.count_at, self.lift_at].into_iter().flatten().min(),
            State::Refused { until } => Some(until.after(RETRY_LAST)),
            State::Blocking | State::Renewing { .. } | State::Counting | State::Exempting(_) | State::Lifting { .. } => None,
        }
    }
}

/// An element that was found in the kernel's set at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What it blocks.
    pub source: Source,
    /// The whole time it was given, as the kernel tells it.
    pub timeout: Option<Duration>,
    /// What is left of it; `None`: it has no end.
    pub remaining: Option<Duration>,
    /// Packets that it has dropped.
    pub packets: u64,
    /// What its comment says, or what was stored of it.
    pub reason: Reason,
    /// When the block began, where that was stored; `None`: when the kernel gave it its time.
    pub since: Option<MonoTime>,
    /// The port that crossed the trigger, where that was stored.
    pub port: Option<Port>,
    /// Networks within it that are not blocked.
    pub exempt: Vec<IpNet>,
}

pub(super) fn is_due(at: Option<MonoTime>, now: MonoTime) -> bool {
    at.is_some_and(|at| at <= now)
}

pub(super) fn view(entry: &Entry) -> BlockView<'_> {
    BlockView {
        source: entry.source,
        reason: &entry.reason,
        since: entry.since,
        expires: entry.expires,
        timeout: entry.timeout,
        port: entry.port,
        packets: entry.packets,
        exempt: entry.exempt.networks(),
    }
}

pub(super) fn blocked(entry: &Entry, renewed: bool) -> Report {
    Report::Blocked { source: entry.source, port: entry.port, timeout: entry.timeout, reason: entry.reason.clone(), renewed }
}
