//! The daemon's clocks: the engine's, and the marks that stored times are read by.

use std::time::Duration;

use super::Mark;
use crate::sys::{clock, procfs};
use crate::time::MonoTime;

/// Where the engine's clock stands when the kernel's stands at zero, so that what was seen before a reboot has its place before it: more than
/// `block.escalate.memory` may be. It is in every database: it never changes.
const BEFORE_BOOT: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Now, by the engine's clock.
pub fn now() -> MonoTime {
    MonoTime::at(clock::boottime().saturating_add(BEFORE_BOOT))
}

/// Now, by every clock.
pub fn mark() -> Mark {
    Mark { boot: procfs::boot_id().unwrap_or_default(), wall: u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX), clock: now() }
}
