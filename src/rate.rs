//! Rate limits: a token bucket that reads no clock.

use crate::time::MonoTime;

const MINUTE: u64 = 60_000;

/// Allows n events within a time. Unused tokens are saved, up to a burst.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    /// Tokens, times `period`: whole numbers only, so that no rate is rounded.
    level: u64,
    burst: u64,
    rate: u64,
    period: u64,
    filled: MonoTime,
}

impl TokenBucket {
    /// `rate` tokens in `period` milliseconds, at most `burst` saved; full at the start.
    pub(crate) fn new(rate: u64, period: u64, burst: u64) -> Self {
        let period = period.max(1);
        Self {
            level: burst.saturating_mul(period),
            burst,
            rate,
            period,
            filled: MonoTime::default(),
        }
    }

    /// `rate` tokens at once, and as many in each further minute.
    pub(crate) fn per_minute(rate: u32) -> Self {
        Self::new(rate.into(), MINUTE, rate.into())
    }

    /// The rate and burst of `fresh`, with the tokens that this one has left.
    pub(crate) fn changed(&self, fresh: Self) -> Self {
        let tokens = self.level / self.period;
        Self {
            level: fresh.level.min(tokens.saturating_mul(fresh.period)),
            filled: self.filled,
            ..fresh
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: MonoTime) -> bool {
        self.take_above(now, 0)
    }

    /// Takes a token if that leaves `reserve` of them.
    pub(crate) fn take_above(&mut self, now: MonoTime, reserve: u64) -> bool {
        self.take_many(now, 1, reserve)
    }

    /// Takes `count` tokens if that leaves `reserve` of them, else none.
    pub(crate) fn take_many(&mut self, now: MonoTime, count: u64, reserve: u64) -> bool {
        let has = self.has(now, count.saturating_add(reserve));
        if has {
            self.level -= count.saturating_mul(self.period);
        }
        has
    }

    /// Whether there are `count` tokens.
    pub(crate) fn has(&mut self, now: MonoTime, count: u64) -> bool {
        let passed = now.millis().saturating_sub(self.filled.millis());
        if passed > 0 {
            self.level = self
                .level
                .saturating_add(passed.saturating_mul(self.rate))
                .min(self.burst.saturating_mul(self.period));
            self.filled = now;
        }
        self.level >= count.saturating_mul(self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(600, 60_000, 600);
        let taken = |bucket: &mut TokenBucket, millis| {
            (0..2000).filter(|_| bucket.take(MonoTime::from_millis(millis))).count()
        };
        assert_eq!(taken(&mut bucket, 5), 600);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 105), 1);
        assert_eq!(taken(&mut bucket, 60_105), 600);
        assert_eq!(taken(&mut bucket, u64::MAX), 600);
        assert_eq!(taken(&mut bucket, 7), 0);
    }

    #[test]
    fn a_reserve_is_left_for_those_who_may_take_it() {
        let mut bucket = TokenBucket::new(600, 60_000, 600);
        let now = MonoTime::from_millis(5);
        assert_eq!((0..2000).filter(|_| bucket.take_above(now, 150)).count(), 450);
        assert_eq!((0..2000).filter(|_| bucket.take(now)).count(), 150);
        // What comes in later fills the reserve first.
        assert!(!bucket.take_above(MonoTime::from_millis(10_000), 150));
        assert!(bucket.take_above(MonoTime::from_millis(15_106), 150));
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let mut bucket = TokenBucket::per_minute(10);
        let now = MonoTime::from_millis(5);
        assert!(!bucket.take_many(now, 11, 0) && !bucket.take_many(now, 6, 5));
        assert!(bucket.take_many(now, 6, 4) && bucket.has(now, 4) && !bucket.has(now, 5));
        assert!(bucket.take_many(now, 4, 0) && !bucket.take(now));
    }

    #[test]
    fn another_rate_leaves_what_was_left() {
        let now = MonoTime::from_millis(5);
        let mut bucket = TokenBucket::per_minute(10);
        assert!(bucket.take_many(now, 7, 0));
        let left = |mut bucket: TokenBucket| (0..2000).filter(|_| bucket.take(now)).count();
        assert_eq!(left(bucket.changed(TokenBucket::new(600, 1000, 600))), 3);
        assert_eq!(left(bucket.changed(TokenBucket::per_minute(2))), 2);
    }

    #[test]
    fn a_bucket_of_rate_zero_gives_nothing() {
        assert!(!TokenBucket::new(0, 60_000, 0).take(MonoTime::from_millis(1 << 40)));
    }
}
