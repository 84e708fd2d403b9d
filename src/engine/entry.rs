//! One block: its source, reason, state and timers.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Ending, MonoTime, Reason, Report, Source};
use crate::probe::Port;

/// First retry delay after the kernel refused a block; it doubles with each refusal. The kernel
/// refuses when its set or memory is full, which rarely changes within a second.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest retry delay.
pub(super) const RETRY_LAST: Duration = Duration::from_secs(60);

/// Shortest interval between two checks whether the element of a source that still sends exists.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);

/// An order to block a source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) timeout: Option<Duration>,
    pub(super) reason: Reason,
    pub(super) port: Option<Port>,
    /// The address whose probe passed the trigger; `None` for a manual block.
    pub(super) scanner: Option<IpAddr>,
}

/// An order that waits for the answer to the one in flight.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pending {
    Block(Order),
    Lift(Ending),
    Exempt(IpNet),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// The element is in the kernel's set, and no order is in flight.
    InForce,
    /// The order to add the element is in flight. The scanner is kept for the report alone.
    Blocking { scanner: Option<Box<IpAddr>> },
    /// In force; the order for a new timeout is in flight.
    Renewing(Box<Renewal>),
    /// In force; the question whether its element is there is in flight.
    Checking,
    /// In force; the order to exempt these networks is in flight.
    Exempting(Exempt),
    /// The order to delete the element is in flight.
    Lifting { ending: Ending, in_force: bool },
    /// The kernel refused; no retry before `until`.
    Refused { until: MonoTime },
}

/// What an order in flight gives a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Renewal {
    pub(super) timeout: Option<Duration>,
    /// The new reason if it changes.
    pub(super) reason: Option<(Reason, Option<Port>)>,
}

/// A block: 112 bytes; an unusual text of its reason is beside it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) source: Source,
    pub(super) port: Option<Port>,
    pub(super) state: State,
    pub(super) reason: Reason,
    pub(super) since: MonoTime,
    /// The timeout it was given last, as what it would end at if it had begun at the clock's zero.
    timeout: Option<MonoTime>,
    pub(super) expires: Option<MonoTime>,
    /// From this time on a probe of the source makes us check that the element exists.
    pub(super) check_from: MonoTime,
    /// `None`: all of it is as at the beginning.
    seldom: Option<Box<Seldom>>,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Option<Entry>>() == 112);

/// What few blocks have.
#[derive(Debug, Clone, Default)]
pub(super) struct Seldom {
    pub(super) pending: Option<Pending>,
    pub(super) lift_at: Option<MonoTime>,
    pub(super) renewals: u32,
    pub(super) refusals: u8,
    pub(super) exempt: Exempt,
}

/// What a block has that has nothing of it.
static NOTHING_SELDOM: Seldom =
    Seldom { pending: None, lift_at: None, renewals: 0, refusals: 0, exempt: Exempt(None) };

/// The exempt networks of a block. Few blocks have any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::box_collection, reason = "8 bytes of each of a million blocks instead of 24")]
pub(super) struct Exempt(Option<Box<Vec<IpNet>>>);

impl Exempt {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self((!networks.is_empty()).then(|| Box::new(networks)))
    }

    pub(super) fn networks(&self) -> &[IpNet] {
        self.0.as_deref().map(Vec::as_slice).unwrap_or_default()
    }

    /// The list with `network` added; `None` if it is exempt already.
    pub(super) fn with(&self, network: IpNet) -> Option<Vec<IpNet>> {
        if self.networks().iter().any(|known| known.contains(&network)) {
            return None;
        }
        let mut all: Vec<IpNet> =
            self.networks().iter().filter(|known| !network.contains(*known)).copied().collect();
        all.push(network);
        all.sort_unstable();
        Some(all)
    }
}

/// A block in force, for listings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockView<'a> {
    /// What is blocked.
    pub source: Source,
    /// Why.
    pub reason: &'a Reason,
    /// When it began; estimated for an adopted block.
    pub since: MonoTime,
    /// When it ends; `None`: when it is unblocked.
    pub expires: Option<MonoTime>,
    /// The timeout it was given last.
    pub timeout: Option<Duration>,
    /// The port of the probe that passed the trigger; `None` for a manual block or if it is
    /// unknown.
    pub port: Option<Port>,
    /// How often it got a new timeout since it began, or since the daemon started.
    pub renewals: u32,
    /// Exempt networks within it.
    pub exempt: &'a [IpNet],
}

impl Entry {
    /// A block that has no timeout yet.
    pub(super) fn new(source: Source, state: State, reason: Reason, since: MonoTime) -> Self {
        Self {
            source,
            port: None,
            state,
            reason,
            since,
            timeout: None,
            expires: None,
            check_from: since,
            seldom: None,
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|end| end.since(MonoTime::default()))
    }

    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout.map(MonoTime::at);
    }

    pub(super) fn seldom(&self) -> &Seldom {
        self.seldom.as_deref().unwrap_or(&NOTHING_SELDOM)
    }

    pub(super) fn seldom_mut(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    pub(super) fn set_exempt(&mut self, exempt: Exempt) {
        if exempt != self.seldom().exempt {
            self.seldom_mut().exempt = exempt;
        }
    }

    pub(super) fn take_pending(&mut self) -> Option<Pending> {
        self.seldom.as_mut()?.pending.take()
    }

    pub(super) fn is_in_force(&self) -> bool {
        match self.state {
            State::InForce | State::Renewing(_) | State::Checking | State::Exempting(_) => true,
            State::Lifting { in_force, .. } => in_force,
            State::Blocking { .. } | State::Refused { .. } => false,
        }
    }

    pub(super) fn is_unproven_scan(&self) -> bool {
        self.reason.is_unproven_scan()
    }

    /// The reason that it has once the orders in flight and after it are done.
    pub(super) fn latest_reason(&self) -> &Reason {
        match (&self.seldom().pending, &self.state) {
            (Some(Pending::Block(order)), _) => &order.reason,
            (_, State::Renewing(renewal)) => {
                renewal.reason.as_ref().map_or(&self.reason, |(reason, _)| reason)
            }
            _ => &self.reason,
        }
    }

    /// Whether a probe renews it: not in the first quarter of its timeout, so that a flood of probes
    /// makes few orders.
    pub(super) fn is_renewable(&self, now: MonoTime) -> bool {
        let (Some(expires), Some(timeout)) = (self.expires, self.timeout()) else { return false };
        self.is_unproven_scan() && expires.since(now) <= timeout / 4 * 3
    }

    /// Starts the block's timeout.
    pub(super) fn run(&mut self, now: MonoTime, timeout: Option<Duration>) {
        self.set_timeout(timeout);
        self.expires = timeout.map(|timeout| now.after(timeout));
        self.check_from = now.after(CHECK_EVERY);
    }

    /// When the next timer of this block is due.
    pub(super) fn due(&self) -> Option<MonoTime> {
        match self.state {
            State::InForce => self.expires.into_iter().chain(self.seldom().lift_at).min(),
            State::Refused { until } => Some(until.after(RETRY_LAST)),
            State::Blocking { .. }
            | State::Renewing(_)
            | State::Checking
            | State::Exempting(_)
            | State::Lifting { .. } => None,
        }
    }
}

/// An element of the kernel's set that the engine adopts.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What it blocks.
    pub source: Source,
    /// Its timeout in the kernel.
    pub timeout: Option<Duration>,
    /// The time left; `None`: it has no timeout.
    pub remaining: Option<Duration>,
    /// The reason, from the comment or the store.
    pub reason: Reason,
    /// When the block began, from the store; `None`: computed from the timeout.
    pub since: Option<MonoTime>,
    /// The port that passed the trigger, from the store.
    pub port: Option<Port>,
    /// Exempt networks within it.
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
        timeout: entry.timeout(),
        port: entry.port,
        renewals: entry.seldom().renewals,
        exempt: entry.seldom().exempt.networks(),
    }
}

pub(super) fn blocked(entry: &Entry, scanner: Option<IpAddr>) -> Report {
    Report::Blocked {
        source: entry.source,
        port: entry.port,
        scanner,
        timeout: entry.timeout(),
        reason: entry.reason.clone(),
        renewals: entry.seldom().renewals,
    }
}
