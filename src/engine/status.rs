//! Types for the engine's status and accounts.

use std::net::IpAddr;
use std::time::Duration;

use super::{ListView, LongTermBits, MonoTime, NotBlocked, Source};
use crate::probe::{Port, ScanKind};

/// Sizes, and counters since the engine was created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Sources that have an account now.
    pub sources: u32,
    /// Sources that touched two or more ports or passed the trigger.
    pub suspects: u32,
    /// The maximum number of accounts.
    pub capacity: u32,
    /// Blocks in force.
    pub blocked: usize,
    /// Blocks in force or in flight, and refused ones that wait for a retry.
    pub ordered: usize,
    /// Remembered proven sources that were blocked before.
    pub offenders: usize,
    /// The named lists with a block in force, in no order.
    pub lists: Vec<ListView>,
    /// Probes.
    pub probes: u64,
    /// Probes by scan kind, in the order of [`ScanKind::ALL`].
    pub by_scan: [u64; ScanKind::ALL.len()],
    /// Probes that passed the trigger and caused no new block, by reason, in the order of
    /// [`NotBlocked::ALL`].
    pub not_blocked: [u64; NotBlocked::ALL.len()],
    /// Probes of sources whose block was in force or in flight.
    pub already_blocked: u64,
    /// Blocks that the kernel acknowledged.
    pub blocks: u64,
    /// Renewals that the kernel acknowledged.
    pub renewals: u64,
    /// Orders that the kernel refused.
    pub refused: u64,
    /// Blocks that ended.
    pub unblocked: u64,
    /// Accounts that were evicted before their window ended.
    pub evicted: u64,
    /// Sources that are slowed now.
    pub slowed: usize,
    /// Probes for which the rules held their source.
    pub held: u64,
    /// Holds that were released because the source was not blocked.
    pub released: u64,
    /// Reports suppressed by the limit per minute.
    pub reports_held_back: u64,
}

/// A source's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// The source.
    pub source: Source,
    /// When it was first seen.
    pub first: MonoTime,
    /// When it was last seen.
    pub last: MonoTime,
    /// Probes since it was first seen. While a source has touched a single port, its repeats are
    /// not counted.
    pub probes: u32,
    /// The ports within the window, the latest last, as far as the account has room.
    pub ports: Vec<TouchView>,
}

/// What a touch means for the decision about its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It counts toward a block.
    Counts,
    /// It counts beside other evidence, or when there is much of it.
    Ambiguous,
    /// It never counts toward a block.
    Reply,
    /// It counts toward a report: the action of its protocol is not `block`.
    Reported,
}

impl Weight {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Counts, Self::Ambiguous, Self::Reply, Self::Reported];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Ambiguous => "ambiguous",
            Self::Reply => "reply",
            Self::Reported => "reported",
        }
    }

    /// The text for an administrator.
    pub fn text(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::Ambiguous => {
                "counts beside other probes only: closed connections cause such packets too"
            }
            Self::Reply => "does not count: it looks like a late answer of a service",
            Self::Reported => "is only reported: the action of its protocol is not block",
        }
    }
}

/// What a source did within the window, by age, for a report about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Probes since it was first seen; see [`AccountView::probes`].
    pub probes: u32,
    /// Time since then.
    pub first: Duration,
    /// The ports that it touched, the latest last, as far as its account has room.
    pub touches: Vec<TraceTouch>,
}

/// A touched port of a [`Trace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceTouch {
    /// The port.
    pub port: Port,
    /// The kind of the probe.
    pub scan: ScanKind,
    /// What it means.
    pub weight: Weight,
    /// Time since it was last touched.
    pub age: Duration,
}

/// A source's evidence, stored on disk and restored by [`Engine::recall`](super::Engine::recall).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The source.
    pub source: Source,
    /// When it was first seen.
    pub first: MonoTime,
    /// When it was last seen.
    pub last: MonoTime,
    /// When it was last reported.
    pub last_reported: Option<MonoTime>,
    /// Probes since it was first seen.
    pub probes: u32,
    /// The ports within the window, unordered.
    pub ports: Vec<TouchView>,
    /// Its ports within the long window.
    pub long: LongTermBits,
}

/// A port that the rules remember of a source, restored by
/// [`Engine::recall_seen`](super::Engine::recall_seen).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The source, or the first address of its prefix.
    pub source: IpAddr,
    /// The port.
    pub port: Port,
    /// When it was first touched within the window.
    pub at: MonoTime,
}

/// A port that a source touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchView {
    /// The port.
    pub port: Port,
    /// The kind of the probe.
    pub scan: ScanKind,
    /// Closed connections produce such packets too.
    pub ambiguous: bool,
    /// When it was last touched.
    pub at: MonoTime,
}
