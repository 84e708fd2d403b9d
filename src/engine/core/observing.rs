//! Collects what observe mode would have slowed or blocked.

use super::Engine;
use crate::engine::observed::{ObservedView, WouldBe};
use crate::engine::{Detail, MonoTime, Reason, Source};
use crate::probe::Probe;

impl Engine {
    /// Adds a probe past the trigger to those of its source.
    pub(super) fn observe(
        &mut self,
        now: MonoTime,
        source: Source,
        probe: &Probe,
        (would_be, proven): (WouldBe, bool),
    ) {
        let view = ObservedView {
            source,
            would_be,
            first: now,
            last: now,
            probes: 0,
            scan: probe.scan,
            port: probe.port,
            scanner: probe.source,
            reason: Reason::Scan { scan: probe.scan, proven, detail: Detail::default() },
        };
        if self.observed.add(view) {
            let reason = self.reason(now, source, (probe.scan, probe.port), proven);
            self.observed.explain(source, reason);
        }
    }

    /// What observe mode would have slowed or blocked, in order.
    pub fn observed(&self) -> impl Iterator<Item = &ObservedView> {
        self.observed.views()
    }

    /// When observing began, if it was after the start, and how many sources there was no room for.
    pub fn observed_bounds(&self) -> (Option<MonoTime>, u64) {
        self.observed.bounds()
    }
}
