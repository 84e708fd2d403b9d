//! A point on a clock that never goes back. Who decides by time is given it, and reads no clock.

use std::time::Duration;

/// A point in time, in milliseconds on a monotonic clock whose zero nobody needs to know.
///
/// The daemon reads CLOCK_BOOTTIME (clock_gettime(2)); tests invent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The moment `since_zero` after the clock's zero.
    pub fn at(since_zero: Duration) -> Self {
        Self(u64::try_from(since_zero.as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment `millis` milliseconds after the clock's zero.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the clock's zero.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// This moment plus `later`, or the last moment there is.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment minus `earlier`, or the clock's zero.
    #[must_use]
    pub fn before(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(earlier.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero if that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
