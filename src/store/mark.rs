//! Marks: readings of all clocks at one time, so that stored times are still right after a reboot.
//!
//! The engine's clock restarts with each boot, and the time of day can be set. So times are stored
//! by the engine's clock, and each transaction stores one mark: the readings of both clocks. After
//! a reboot the difference of the two times of day is the time that passed unobserved. If the time
//! of day went back, no time counts as passed, so a block never gets more time than it had left
//! when it was written.

use std::time::Duration;

use crate::time::MonoTime;

/// A time of day that differs from the last mark's by more milliseconds was set: write a new mark.
const CLOCK_STEP_MS: u64 = 1000;

/// Readings of all clocks at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// Boot id (random(4)); empty if it cannot be read: then every start counts as a reboot.
    pub boot: String,
    /// Time of day in milliseconds since 1970.
    pub wall: u64,
    /// The engine's clock.
    pub clock: MonoTime,
}

impl Mark {
    /// Whether `later` is of the same boot, so that the engine's clock has continued.
    pub fn is_same_boot(&self, later: &Self) -> bool {
        // A clock that went back is another clock, whatever its boot id: time_namespaces(7).
        !self.boot.is_empty() && self.boot == later.boot && self.clock <= later.clock
    }

    /// The time from this mark to `later`.
    pub fn until(&self, later: &Self) -> Duration {
        if self.is_same_boot(later) {
            later.clock.since(self.clock)
        } else {
            Duration::from_millis(later.wall.saturating_sub(self.wall))
        }
    }

    /// Whether the time of day was set since this mark.
    pub(super) fn was_clock_set(&self, now: &Self) -> bool {
        let passed = now.clock.since(self.clock).as_millis();
        let wall = u128::from(now.wall).saturating_sub(u128::from(self.wall));
        passed.abs_diff(wall) > u128::from(CLOCK_STEP_MS) || now.wall < self.wall
    }

    /// Converts a time before this mark to the clock of `later`.
    pub fn carry(&self, moment: MonoTime, later: &Self) -> MonoTime {
        if self.is_same_boot(later) {
            return moment;
        }
        later.clock.before(self.clock.since(moment).saturating_add(self.until(later)))
    }

    /// Converts the end of a block from `since` to `end` to the clock of `later`; `None` when it is
    /// over.
    pub fn carry_end(&self, since: MonoTime, end: MonoTime, later: &Self) -> Option<MonoTime> {
        if self.is_same_boot(later) {
            return (end > later.clock).then_some(end);
        }
        // Never more than the whole duration.
        let left = end.since(self.clock).min(end.since(since)).checked_sub(self.until(later))?;
        (!left.is_zero()).then(|| later.clock.after(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(boot: &str, wall: u64, clock: u64) -> Mark {
        Mark { boot: boot.to_owned(), wall, clock: MonoTime::from_millis(clock) }
    }

    const HOUR: u64 = 3_600_000;

    #[test]
    fn within_one_boot_the_time_of_day_does_not_matter() {
        let (then, now) = (mark("a", 500 * HOUR, 10 * HOUR), mark("a", HOUR, 11 * HOUR));
        assert_eq!(then.until(&now), Duration::from_secs(3600));
        assert_eq!(
            then.carry_end(MonoTime::from_millis(0), MonoTime::from_millis(12 * HOUR), &now),
            Some(MonoTime::from_millis(12 * HOUR))
        );
        assert_eq!(
            then.carry_end(MonoTime::from_millis(0), MonoTime::from_millis(11 * HOUR), &now),
            None
        );
        assert_eq!(then.carry(MonoTime::from_millis(7), &now), MonoTime::from_millis(7));
    }

    #[test]
    fn after_a_reboot_the_unobserved_time_counts() {
        let (then, now) = (mark("a", 500 * HOUR, 10 * HOUR), mark("b", 502 * HOUR, 1000 * HOUR));
        let end = |hours| {
            then.carry_end(
                MonoTime::from_millis(9 * HOUR),
                MonoTime::from_millis(hours * HOUR),
                &now,
            )
        };
        assert_eq!(end(15), Some(MonoTime::from_millis(1003 * HOUR)));
        assert_eq!((end(12), end(10), end(9)), (None, None, None));
        assert_eq!(
            then.carry(MonoTime::from_millis(9 * HOUR), &now),
            MonoTime::from_millis(997 * HOUR)
        );
    }

    #[test]
    fn a_clock_set_back_gives_no_block_more_time() {
        let (then, now) = (mark("a", 500 * HOUR, 10 * HOUR), mark("b", 3, 1000 * HOUR));
        assert_eq!(
            then.carry_end(MonoTime::from_millis(9 * HOUR), MonoTime::from_millis(15 * HOUR), &now),
            Some(MonoTime::from_millis(1005 * HOUR))
        );
    }

    #[test]
    fn without_a_boot_id_every_start_is_a_reboot() {
        assert!(!mark("", 1, 1).is_same_boot(&mark("", 2, 2)));
        assert!(
            !mark("a", 1, 2).is_same_boot(&mark("a", 2, 1)),
            "a clock that went back is another one"
        );
    }

    proptest! {
        /// Whatever the clocks do, no block gets more time than it was given, and no ended one
        /// returns.
        // P25
        #[test]
        fn no_clock_gives_a_block_more_than_its_time(same in any::<bool>(), walls in any::<(u64, u64)>(), clocks in any::<(u64, u64)>(), since in any::<u64>(), end in any::<u64>()) {
            let (then, now) = (mark("a", walls.0, clocks.0), mark(if same { "a" } else { "b" }, walls.1, clocks.1));
            // A stored block began before it was stored.
            let since = MonoTime::from_millis(since.min(clocks.0));
            let end = MonoTime::from_millis(end);
            if let Some(carried) = then.carry_end(since, end, &now) {
                prop_assert!(carried > now.clock);
                prop_assert!(carried.since(now.clock) <= end.since(since));
                prop_assert!(then.is_same_boot(&now) || carried.since(now.clock) <= end.since(then.clock));
            }
            prop_assert!(then.carry(since, &now) <= now.clock.max(since));
        }
    }
}
