//! How long to wait after a failure: twice as long after each further one, up to a limit. Reads no
//! clock.

use std::time::Duration;

/// The wait after a failure that follows `failures` others.
pub(crate) fn delay(first: Duration, last: Duration, failures: u32) -> Duration {
    first.saturating_mul(2u32.saturating_pow(failures)).min(last)
}

/// The waits between attempts at one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `last`.
    pub(crate) const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, failures: 0 }
    }

    /// An attempt failed: how long to wait before the next.
    pub(crate) fn fail(&mut self) -> Duration {
        let wait = delay(self.first, self.last, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
        let waits: Vec<_> = (0..100).map(|_| backoff.fail().as_millis()).collect();
        assert_eq!(waits[..5], [250, 500, 1000, 2000, 2000]);
        assert!(waits[5..].iter().all(|wait| *wait == 2000));
        backoff.reset();
        assert_eq!(backoff.fail(), Duration::from_millis(250));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let (first, last) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(
            [0, 1, 5, 6, u32::MAX].map(|failures| delay(first, last, failures).as_secs()),
            [1, 2, 32, 60, 60]
        );
        assert_eq!(delay(Duration::MAX, Duration::MAX, 7), Duration::MAX);
    }
}
