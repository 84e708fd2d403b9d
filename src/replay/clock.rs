//! The capture's clock, made one that the engine can follow: it never goes back, and it does not
//! leap by years because one time in a file is damaged.

use jiff::Timestamp;

use crate::engine::MonoTime;

/// Microseconds at which the clock begins: the engine's zero means "never".
const ORIGIN: i64 = 1_000_000;

/// Microseconds by which packets of several interfaces may be out of order. A time further back is a
/// clock that was set, or another capture: from there on the time runs from where it was.
const BACK_MAX: i64 = 600 * 1_000_000;

/// Microseconds that the clock moves at once: more than any evidence or block lasts that
/// is not for ever.
const LEAP_MAX: i64 = 30 * DAY;

/// Where the clock ends: a touch has room for 17 years in all, after which no evidence would ever be
/// over. Near the end it moves at once by a part of what is left.
const END: i64 = ORIGIN + 17 * 365 * DAY;
const PART: i64 = 64;

const DAY: i64 = 86_400 * 1_000_000;

/// A clock that follows the times of packets.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    /// What is added to a capture's time.
    shift: i64,
    now: i64,
    /// Packets whose time was before that of an earlier one.
    pub(super) back: u64,
    /// Times that were too far from the one before, in either direction.
    pub(super) leaps: u64,
}

impl Clock {
    /// Moves the clock to a packet's time, in microseconds since 1970.
    pub(super) fn advance(&mut self, at: i64) -> MonoTime {
        if self.now == 0 {
            self.now = ORIGIN;
            self.shift = ORIGIN.saturating_sub(at);
        }
        let then = at.saturating_add(self.shift);
        let by = then.saturating_sub(self.now);
        let most = LEAP_MAX.min(END.saturating_sub(self.now) / PART);
        if (0..=most).contains(&by) {
            self.now = then;
        } else if (-BACK_MAX..0).contains(&by) {
            self.back += 1;
        } else {
            self.leaps += 1;
            self.now = self.now.saturating_add(by.clamp(0, most));
            self.shift = self.now.saturating_sub(at);
        }
        self.now()
    }

    pub(super) fn now(&self) -> MonoTime {
        MonoTime::from_millis(u64::try_from(self.now / 1000).unwrap_or(0))
    }

    /// The time of day of a moment, by the capture's clock as it runs now.
    pub(super) fn wall(&self, moment: MonoTime) -> Timestamp {
        let millis = i64::try_from(moment.millis()).unwrap_or(i64::MAX);
        wall(millis.saturating_mul(1000).saturating_sub(self.shift))
    }
}

/// The time of day of a packet; the last one that there is for a later one.
pub(super) fn wall(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn the_clock_never_goes_back_and_never_leaps() {
        let mut clock = Clock::default();
        let start = 1_700_000_000 * SECOND;
        let day = 86_400 * SECOND;
        for (at, seconds, leaps) in [
            (start, 1, 0),
            (start + 5 * SECOND, 6, 0),
            (start + 2 * SECOND, 6, 0),
            (start + 7 * SECOND, 8, 0),
            // Years back: another capture, whose time runs on from here.
            (0, 8, 1),
            (SECOND, 9, 1),
            // A damaged time, and back again.
            (i64::MAX / 2, 9 + 30 * 86_400, 2),
            (2 * SECOND, 9 + 30 * 86_400, 3),
            (2 * SECOND + day, 9 + 31 * 86_400, 3),
        ] {
            assert_eq!(clock.advance(at).millis(), seconds * 1000, "{at}");
            assert_eq!(clock.leaps, leaps, "{at}");
        }
        assert_eq!(clock.back, 1);
        assert_eq!(clock.wall(clock.now()), wall(2 * SECOND + day));
    }

    #[test]
    fn captures_of_many_years_do_not_outlast_a_touch() {
        let mut clock = Clock::default();
        let mut last = MonoTime::default();
        for n in 0..200_000 {
            let now = clock.advance(n * 40 * DAY);
            assert!(now.since(last).as_secs() <= 30 * 86_400);
            last = now;
        }
        // Times still move, and are far enough apart, for hundreds of leaps.
        assert!(last.millis() < 17 * 365 * 86_400_000 + 1000, "{last:?}");
        let mut clock = Clock::default();
        for n in 0..300 {
            let before = clock.advance(n * 40 * DAY);
            assert!(clock.advance(n * 40 * DAY + DAY).since(before).as_secs() == 86_400, "{n}");
        }
    }

    #[test]
    fn impossible_times_are_no_panic() {
        let mut clock = Clock::default();
        for at in [i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX] {
            let now = clock.advance(at);
            let _ = clock.wall(now);
            let _ = wall(at);
        }
    }
}
