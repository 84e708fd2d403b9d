//! Clocks (clock_gettime(2)).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since boot, suspension included; never goes back (CLOCK_BOOTTIME).
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Time since 1970 (CLOCK_REALTIME); may be set forward and back.
pub(crate) fn wall() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
