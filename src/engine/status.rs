//! What the engine shows of itself.

use super::{MonoTime, NotBlocked, Source};
use crate::probe::{Port, ScanKind};

/// The engine in numbers. Counters begin with the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Sources that have an account now.
    pub sources: u32,
    /// Of them, those that touched two ports or more or passed the trigger.
    pub suspects: u32,
    /// The most accounts that there can be.
    pub capacity: u32,
    /// Blocks in force.
    pub blocked: usize,
    /// Blocks in force and in flight, and refused ones that wait.
    pub ordered: usize,
    /// Proven sources that were blocked before and are remembered.
    pub offenders: usize,
    /// Probes.
    pub probes: u64,
    /// Probes by scan kind, in the order of [`ScanKind::ALL`].
    pub by_scan: [u64; ScanKind::ALL.len()],
    /// Probes that passed the trigger and were followed by no new block, by reason, in the order of [`NotBlocked::ALL`].
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
    /// Accounts that made room for others before their time was over.
    pub evicted: u64,
    /// Probes with which the rules held their source.
    pub held: u64,
    /// Holds that were ended, because no block came of them.
    pub released: u64,
    /// Reports that were not made, because too many sources would have been told of.
    pub reports_held_back: u64,
}

/// What is known of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// The source.
    pub source: Source,
    /// When it was first seen.
    pub first: MonoTime,
    /// When it was last seen.
    pub last: MonoTime,
    /// Probes since it was first seen; a port that is tried again and again counts only when others are touched too.
    pub probes: u32,
    /// The ports within the window, the latest last; those beyond what an account holds are forgotten.
    pub ports: Vec<TouchView>,
}

/// All that is known of a source, to be stored and taken up again by [`Engine::recall`](super::Engine::recall).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The source.
    pub source: Source,
    /// When it was first seen.
    pub first: MonoTime,
    /// When it was last seen.
    pub last: MonoTime,
    /// When people were last told of it.
    pub told: Option<MonoTime>,
    /// Probes since it was first seen.
    pub probes: u32,
    /// The ports within the window, in no order.
    pub ports: Vec<TouchView>,
}

/// A port that a source touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchView {
    /// The port.
    pub port: Port,
    /// How.
    pub scan: ScanKind,
    /// A late packet of a dead connection can look the same.
    pub ambiguous: bool,
    /// When last.
    pub at: MonoTime,
}
