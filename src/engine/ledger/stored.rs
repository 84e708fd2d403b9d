//! Accounts that outlive the daemon: read for the store, and restored from it.

use super::{Account, Ledger, Suspect};
use crate::engine::account::{Counted, Touch, clock, record};
use crate::engine::{MonoTime, Source};

impl Ledger {
    /// Calls `see` with the accounts that were touched at `since` or later: suspects before patient
    /// newcomers, the latest first. Shows at most `most` and examines four times as many, because
    /// it runs between packets.
    pub(in crate::engine) fn recent(
        &self,
        since: u64,
        most: usize,
        mut see: impl FnMut(Source, Account<'_>),
    ) {
        let (mut shown, mut looked) = (0, 0);
        for (at, suspect) in self.suspects.walk_back(self.by_last_touch) {
            if shown >= most || looked >= most.saturating_mul(4) {
                return;
            }
            looked += 1;
            if suspect.last >= since || suspect.last_reported >= since {
                let Suspect { key, first, last, last_reported, probes, .. } = *suspect;
                see(
                    key.source(self.shape.ipv6),
                    Account { slots: self.slots(at), first, last, last_reported, probes },
                );
                shown += 1;
            }
        }
        for (_, newcomer) in self.newcomers.walk_back(self.patient) {
            if shown >= most || looked >= most.saturating_mul(4) {
                return;
            }
            looked += 1;
            if let Some(touch) = Touch::live(newcomer.touch, since.max(1)) {
                let time = touch.time();
                see(
                    newcomer.key.source(self.shape.ipv6),
                    Account {
                        slots: &[newcomer.touch],
                        first: time,
                        last: time,
                        last_reported: 0,
                        probes: 1,
                    },
                );
                shown += 1;
            }
        }
    }

    /// Restores the account of an earlier run, unless the source has one. Skips expired ports.
    pub(in crate::engine) fn recall(
        &mut self,
        now: MonoTime,
        source: Source,
        known: Account<'_>,
        counted: Counted,
    ) {
        let key = self.shape.key(source);
        let (hash, horizon, clock) = (self.hash(key), self.horizon(now), clock(now));
        // A touch in the future is an error of the store.
        let mut touches = known
            .slots
            .iter()
            .filter_map(|slot| Touch::live(*slot, horizon))
            .filter(|touch| touch.time() <= clock)
            // The store does not say which of them counted for the prefix.
            .map(Touch::shared)
            .peekable();
        let Some(first) = touches.peek().copied() else { return };
        if self.find(hash, key).is_some() {
            return;
        }
        if known.slots.len() == 1 && known.last_reported == 0 {
            self.add_newcomer(hash, key, first.marked(false), true);
            return;
        }
        let suspect = Suspect {
            key,
            first: known.first.min(clock),
            last_reported: known.last_reported.min(clock),
            last: known.last.min(clock),
            probes: known.probes,
            marked: false,
            passed: 0,
            repeats: 0,
        };
        if let Some(at) = self.add_suspect(hash, suspect) {
            let touches: Vec<Touch> = touches.collect();
            for touch in touches {
                record(self.slots_mut(at), touch.marked(false), horizon, counted);
            }
        }
    }
}
