//! Offenders: proven sources that were blocked before, how often, and when last.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::{MonoTime, Source};

/// A proven source that was blocked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offender {
    /// The source.
    pub source: Source,
    /// Number of blocks, each within `block.escalate.memory` of the one before.
    pub times: u32,
    /// When it was last blocked.
    pub last: MonoTime,
}

/// Remembered offenders, about 6 MB; beyond it the least recently blocked is forgotten. A proven
/// source completed handshakes with several decoys, so an attacker cannot fill the table with
/// spoofed addresses.
pub const OFFENDERS_MAX: usize = 65_536;

/// The table of offenders.
#[derive(Debug)]
pub(super) struct Offenders {
    known: HashMap<Source, (u32, MonoTime), FixedState>,
    order: BTreeSet<(MonoTime, Source)>,
    max: usize,
}

impl Offenders {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            known: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: BTreeSet::new(),
            max: OFFENDERS_MAX,
        }
    }

    /// How often the source was blocked; 0 if the last block is older than `memory`.
    pub(super) fn times(&self, now: MonoTime, source: Source, memory: Duration) -> u32 {
        self.known
            .get(&source)
            .filter(|(_, last)| now.since(*last) <= memory)
            .map_or(0, |(times, _)| *times)
    }

    /// Records a block.
    pub(super) fn note(&mut self, now: MonoTime, source: Source, memory: Duration) {
        let times = self.times(now, source, memory).saturating_add(1);
        if let Some((_, last)) = self.known.insert(source, (times, now)) {
            self.order.remove(&(last, source));
        }
        self.order.insert((now, source));
        while self.known.len() > self.max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.known.remove(&oldest);
        }
    }

    /// Restores an offender of an earlier run, unless a higher count is known.
    pub(super) fn recall(&mut self, offender: Offender) {
        let Offender { source, times, last } = offender;
        if self.known.contains_key(&source) || self.known.len() >= self.max {
            return;
        }
        self.known.insert(source, (times, last));
        self.order.insert((last, source));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Offender> {
        self.known.iter().map(|(&source, &(times, last))| Offender { source, times, last })
    }

    /// The source's record, of any age.
    pub(super) fn get(&self, source: Source) -> Option<Offender> {
        self.known.get(&source).map(|&(times, last)| Offender { source, times, last })
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    // P10
    #[test]
    fn offenders_expire_and_their_number_is_bounded() {
        let (memory, host) =
            (Duration::from_secs(10), |n: u32| Source::of(Ipv4Addr::from(n).into(), 64));
        let mut offenders = Offenders { max: 3, ..Offenders::new(7) };
        for second in 0..4 {
            offenders.note(MonoTime::from_millis(second * 1000), host(0), memory);
        }
        assert_eq!(offenders.times(MonoTime::from_millis(13_000), host(0), memory), 4);
        assert_eq!(offenders.times(MonoTime::from_millis(13_001), host(0), memory), 0);
        for n in 1..4 {
            offenders.note(MonoTime::from_millis(5000), host(n), memory);
        }
        assert_eq!((offenders.count(), offenders.order.len()), (3, 3));
        assert_eq!(offenders.times(MonoTime::from_millis(5000), host(0), memory), 0);
    }
}
