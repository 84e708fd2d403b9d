//! How often the table is repaired: at once while that is rare, ever more slowly in a fight.
//!
//! Two programs that undo each other's work as fast as they can take the processor from everybody. The administrator has to know, whichever wins.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::MonoTime;

/// Repairs within [`WITHIN`] that are no fight: a firewall that is set up anew step by step by its scripts needs some.
pub(super) const FREE: usize = 5;
/// The time that these are counted in.
const WITHIN: Duration = Duration::from_secs(60);
/// From then on a repair waits for this, and twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
/// But no longer than this: the host is without protection meanwhile.
pub(super) const SLOWEST: Duration = Duration::from_secs(60);
/// Without a repair for so long the fight is over. Longer than [`SLOWEST`], or each repair of a fight would begin another.
const CALM: Duration = Duration::from_secs(180);

/// When the last repairs were, and when the next may be.
#[derive(Debug, Default)]
pub(super) struct RepairBackoff {
    recent: VecDeque<MonoTime>,
    wait: Duration,
    next: Option<MonoTime>,
    last: Option<MonoTime>,
    fighting: bool,
}

impl RepairBackoff {
    /// The moment before which there is no repair; `None`: now.
    pub(super) fn not_before(&self, now: MonoTime) -> Option<MonoTime> {
        self.next.filter(|next| now < *next)
    }

    /// A repair now would be one too many: the alarm is due.
    pub(super) fn is_last_straw(&self, now: MonoTime) -> bool {
        let recent = self.recent.iter().filter(|at| now.since(**at) < WITHIN).count();
        !self.is_fighting(now) && recent >= FREE
    }

    /// The alarm was given, and there was no calm since.
    pub(super) fn is_fighting(&self, now: MonoTime) -> bool {
        self.fighting && self.last.is_some_and(|last| now.since(last) < CALM)
    }

    /// The table was repaired, or could not be.
    pub(super) fn note(&mut self, now: MonoTime, succeeded: bool) {
        if !self.is_fighting(now) {
            self.fighting = self.is_last_straw(now);
            // What fails waits as in a fight, and begins anew with the first success.
            if succeeded && !self.fighting {
                self.wait = Duration::ZERO;
            }
        }
        while self.recent.len() >= FREE {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.last = Some(now);
        if self.fighting || !succeeded {
            self.wait = self.wait.saturating_mul(2).clamp(FIRST, SLOWEST);
            self.next = Some(now.after(self.wait));
        } else {
            self.next = None;
        }
    }

    /// The wait that is in force.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(1_000_000 + seconds * 1000)
    }

    // P14
    #[test]
    fn a_few_repairs_are_done_at_once_and_a_fight_is_slowed_down_to_one_a_minute() {
        let mut backoff = RepairBackoff::default();
        for second in 0..5 {
            assert!(!backoff.is_last_straw(at(second)) && backoff.not_before(at(second)).is_none());
            backoff.note(at(second), true);
        }
        let mut now = at(6);
        assert!(backoff.is_last_straw(now));
        let mut waits = Vec::new();
        for _ in 0..9 {
            backoff.note(now, true);
            let next = backoff.not_before(now).unwrap();
            waits.push(next.since(now).as_secs());
            assert!(backoff.is_fighting(next) && !backoff.is_last_straw(next), "one alarm for one fight");
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let calm = now.after(CALM);
        assert!(!backoff.is_fighting(calm) && !backoff.is_last_straw(calm));
        backoff.note(calm, true);
        assert_eq!(backoff.not_before(calm), None);
    }

    #[test]
    fn repairs_that_are_far_apart_are_no_fight() {
        let mut backoff = RepairBackoff::default();
        for round in 0..100 {
            assert!(!backoff.is_last_straw(at(round * 13)));
            backoff.note(at(round * 13), true);
        }
    }

    #[test]
    fn what_fails_is_tried_ever_later_and_a_success_begins_anew() {
        let mut backoff = RepairBackoff::default();
        backoff.note(at(0), false);
        assert_eq!(backoff.not_before(at(0)), Some(at(1)));
        backoff.note(at(1), false);
        assert_eq!(backoff.not_before(at(1)), Some(at(3)));
        backoff.note(at(3), true);
        assert_eq!(backoff.not_before(at(3)), None);
    }
}
