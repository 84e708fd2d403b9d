//! How often the table is repaired: at once while that is rare, ever more slowly in a fight.
//!
//! Two programs that undo each other's work as fast as they can take the processor from everybody.
//! The administrator has to know, whichever wins.

use std::collections::VecDeque;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::time::MonoTime;

/// Repairs within [`WITHIN`] that are no fight: a firewall that is set up again step by step by its
/// scripts needs some.
const FREE: usize = 5;
/// The time that these are counted in.
const WITHIN: Duration = Duration::from_secs(60);
/// From then on a repair waits for this, and twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
/// But no longer than this: the host is without protection meanwhile.
const SLOWEST: Duration = Duration::from_secs(60);
/// Without a repair for so long the fight is over. Longer than [`SLOWEST`], or each repair of a
/// fight would begin another.
const CALM: Duration = Duration::from_secs(180);

/// When the last repairs were, and when the next may be.
#[derive(Debug)]
pub(super) struct FightDetector {
    recent: VecDeque<MonoTime>,
    backoff: Backoff,
    next: Option<MonoTime>,
    fighting: bool,
}

impl Default for FightDetector {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            backoff: Backoff::new(FIRST, SLOWEST),
            next: None,
            fighting: false,
        }
    }
}

impl FightDetector {
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
        self.fighting && self.recent.back().is_some_and(|last| now.since(*last) < CALM)
    }

    /// The table was repaired, or could not be.
    pub(super) fn note(&mut self, now: MonoTime, succeeded: bool) {
        if !self.is_fighting(now) {
            self.fighting = self.is_last_straw(now);
            // What fails waits as in a fight, and starts again after the first success.
            if succeeded && !self.fighting {
                self.backoff.reset();
            }
        }
        while self.recent.len() >= FREE {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.next = (self.fighting || !succeeded).then(|| now.after(self.backoff.fail()));
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
        let mut fight = FightDetector::default();
        for second in 0..5 {
            assert!(!fight.is_last_straw(at(second)) && fight.not_before(at(second)).is_none());
            fight.note(at(second), true);
        }
        let mut now = at(6);
        assert!(fight.is_last_straw(now));
        let mut waits = Vec::new();
        for _ in 0..9 {
            fight.note(now, true);
            let next = fight.not_before(now).unwrap();
            waits.push(next.since(now).as_secs());
            assert!(
                fight.is_fighting(next) && !fight.is_last_straw(next),
                "one alarm for one fight"
            );
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let calm = now.after(CALM);
        assert!(!fight.is_fighting(calm) && !fight.is_last_straw(calm));
        fight.note(calm, true);
        assert_eq!(fight.not_before(calm), None);
    }

    #[test]
    fn repairs_that_are_far_apart_are_no_fight() {
        let mut fight = FightDetector::default();
        for round in 0..100 {
            assert!(!fight.is_last_straw(at(round * 13)));
            fight.note(at(round * 13), true);
        }
    }

    #[test]
    fn what_fails_is_tried_ever_later_and_a_success_begins_anew() {
        let mut fight = FightDetector::default();
        fight.note(at(0), false);
        assert_eq!(fight.not_before(at(0)), Some(at(1)));
        fight.note(at(1), false);
        assert_eq!(fight.not_before(at(1)), Some(at(3)));
        fight.note(at(3), true);
        assert_eq!(fight.not_before(at(3)), None);
    }
}
