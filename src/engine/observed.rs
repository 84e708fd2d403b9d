//! The sources that observe mode would have slowed or blocked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{MonoTime, Reason, Source};
use crate::probe::{Port, ScanKind};

/// Sources that are remembered: a megabyte. When they are full, the half with the fewest probes is
/// forgotten: a flood sends few for each of its invented sources.
pub const OBSERVED_MAX: usize = 4096;

/// What would have happened to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WouldBe {
    /// Slowed, and blocked as soon as its address is proven.
    Slowed,
    /// Blocked.
    Blocked,
}

/// A source that would have been slowed or blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedView {
    /// The source.
    pub source: Source,
    /// What would have happened to it.
    pub would_be: WouldBe,
    /// The first probe past the trigger.
    pub first: MonoTime,
    /// The last one.
    pub last: MonoTime,
    /// Their number.
    pub probes: u64,
    /// The kind of the last one.
    pub scan: ScanKind,
    /// Its port.
    pub port: Port,
    /// The address that sent it, of all that the source may have.
    pub scanner: IpAddr,
    /// The evidence.
    pub reason: Reason,
}

/// The sources since observing began.
#[derive(Debug, Default)]
pub(super) struct Observed {
    sources: BTreeMap<Source, ObservedView>,
    /// When observing began; `None`: with the engine.
    since: Option<MonoTime>,
    forgotten: u64,
}

impl Observed {
    /// Observing begins now.
    pub(super) fn since(now: MonoTime) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// When observing began, if it was after the engine, and how many sources there was no room for.
    pub(super) fn bounds(&self) -> (Option<MonoTime>, u64) {
        (self.since, self.forgotten)
    }

    /// The sources in order.
    pub(super) fn views(&self) -> impl Iterator<Item = &ObservedView> {
        self.sources.values()
    }

    /// Adds a probe to its source. Returns whether the evidence should be taken down again: at
    /// first, and whenever the number of probes has doubled.
    pub(super) fn add(&mut self, view: ObservedView) -> bool {
        if !self.sources.contains_key(&view.source) && self.sources.len() >= OBSERVED_MAX {
            self.make_room();
        }
        let ObservedView { source, would_be, last, scan, port, scanner, .. } = view;
        let known = self.sources.entry(source).or_insert(view);
        (known.would_be, known.last, known.scan) = (would_be, last, scan);
        (known.port, known.scanner) = (port, scanner);
        known.probes = known.probes.saturating_add(1);
        known.probes.is_power_of_two()
    }

    /// Takes down the evidence about a source.
    pub(super) fn explain(&mut self, source: Source, reason: Reason) {
        if let Some(known) = self.sources.get_mut(&source) {
            known.reason = reason;
        }
    }

    fn make_room(&mut self) {
        let mut probes: Vec<(u64, MonoTime)> =
            self.sources.values().map(|view| (view.probes, view.last)).collect();
        let (_, median, _) = probes.select_nth_unstable(OBSERVED_MAX / 2);
        let least = *median;
        let before = self.sources.len();
        self.sources.retain(|_, view| (view.probes, view.last) > least);
        self.forgotten += (before - self.sources.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Transport;

    fn view(number: u32, at: u64) -> ObservedView {
        let scanner = IpAddr::from(number.to_be_bytes());
        ObservedView {
            source: Source::of(scanner, 128),
            would_be: WouldBe::Slowed,
            first: MonoTime::from_millis(at),
            last: MonoTime::from_millis(at),
            probes: 0,
            scan: ScanKind::Syn,
            port: Port { transport: Transport::Tcp, number: 1 },
            scanner,
            reason: Reason::Manual(Box::default()),
        }
    }

    #[test]
    fn a_flood_does_not_push_a_source_with_many_probes_out() {
        let mut observed = Observed::default();
        let updates = (0..1000).filter(|at| observed.add(view(7, *at))).count();
        assert_eq!(updates, 10, "the evidence is taken down when the number doubles");
        for flood in 0..100_000 {
            observed.add(view(1000 + flood, 1000 + u64::from(flood)));
            assert!(observed.sources.len() <= OBSERVED_MAX);
        }
        let known = observed.views().find(|known| known.source == view(7, 0).source).unwrap();
        assert_eq!((known.probes, known.first), (1000, MonoTime::from_millis(0)));
        assert_eq!(observed.bounds().1 + observed.sources.len() as u64, 100_001);
    }
}
