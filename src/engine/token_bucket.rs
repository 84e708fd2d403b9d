//! A token bucket whose time is an argument.

use super::MonoTime;

/// Allows `rate` events per period, and bursts.
#[derive(Debug, Clone)]
pub(super) struct TokenBucket {
    /// Tokens multiplied by `period`: integers only, so that no rate is rounded.
    level: u64,
    burst: u64,
    rate: u64,
    period: u64,
    filled: MonoTime,
}

impl TokenBucket {
    /// `rate` tokens per `period` milliseconds, at most `burst` saved; full at the start.
    pub(super) fn new(rate: u64, period: u64, burst: u64) -> Self {
        let period = period.max(1);
        Self { level: burst.saturating_mul(period), burst, rate, period, filled: MonoTime::default() }
    }

    /// The bucket with another rate and the same tokens used.
    pub(super) fn changed(&self, rate: u64, period: u64, burst: u64) -> Self {
        let fresh = Self::new(rate, period, burst);
        let tokens = self.level / self.period;
        Self { level: fresh.level.min(tokens.saturating_mul(fresh.period)), filled: self.filled, ..fresh }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: MonoTime) -> bool {
        self.take_above(now, 0)
    }

    /// Takes a token if that leaves `reserve` of them.
    pub(super) fn take_above(&mut self, now: MonoTime, reserve: u64) -> bool {
        let passed = now.millis().saturating_sub(self.filled.millis());
        if passed > 0 {
            self.level = self.level.saturating_add(passed.saturating_mul(self.rate)).min(self.burst.saturating_mul(self.period));
            self.filled = now;
        }
        match self.level.checked_sub(self.period) {
            Some(left) if left >= reserve.saturating_mul(self.period) => {
                self.level = left;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_allows_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(600, 60_000, 600);
        let taken = |bucket: &mut TokenBucket, millis| (0..2000).filter(|_| bucket.take(MonoTime::from_millis(millis))).count();
        assert_eq!(taken(&mut bucket, 5), 600);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 105), 1);
        assert_eq!(taken(&mut bucket, 60_105), 600);
        assert_eq!(taken(&mut bucket, u64::MAX), 600);
        assert_eq!(taken(&mut bucket, 7), 0);
    }

    #[test]
    fn take_above_leaves_the_reserve() {
        let mut bucket = TokenBucket::new(600, 60_000, 600);
        let now = MonoTime::from_millis(5);
        assert_eq!((0..2000).filter(|_| bucket.take_above(now, 150)).count(), 450);
        assert_eq!((0..2000).filter(|_| bucket.take(now)).count(), 150);
        // New tokens fill the reserve first.
        assert!(!bucket.take_above(MonoTime::from_millis(10_000), 150));
        assert!(bucket.take_above(MonoTime::from_millis(15_106), 150));
    }

    #[test]
    fn bucket_of_rate_zero_is_always_empty() {
        assert!(!TokenBucket::new(0, 60_000, 0).take(MonoTime::from_millis(1 << 40)));
    }
}
