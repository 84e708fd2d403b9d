//! A point on a clock that never goes back. Who decides by time is given it, and reads no clock.

use std::num::NonZero;
use std::time::Duration;

/// A point in time, in milliseconds on a monotonic clock whose zero nobody needs to know.
///
/// The daemon reads CLOCK_BOOTTIME (clock_gettime(2)); tests invent it. It holds one more, so that
/// an `Option` of it has eight bytes: a block has several, and there may be a million blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(NonZero<u64>);

impl Default for MonoTime {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl MonoTime {
    /// The moment `since_zero` after the clock's zero.
    pub fn at(since_zero: Duration) -> Self {
        Self::default().after(since_zero)
    }

    /// The moment `millis` milliseconds after the clock's zero.
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZero::<u64>::MIN.saturating_add(millis))
    }

    /// Milliseconds since the clock's zero.
    pub const fn millis(self) -> u64 {
        self.0.get() - 1
    }

    /// This moment plus `later`, or the last moment there is.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment minus `earlier`, or the clock's zero.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        let earlier = u64::try_from(earlier.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.millis().saturating_sub(earlier))
    }

    /// Time since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(earlier.millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_may_be_missing_is_no_larger() {
        assert_eq!(size_of::<Option<MonoTime>>(), 8);
        for millis in [0, 1, u64::MAX - 1] {
            assert_eq!(MonoTime::from_millis(millis).millis(), millis);
        }
        let last = MonoTime::from_millis(u64::MAX);
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(last.before(Duration::MAX), MonoTime::default());
    }
}
