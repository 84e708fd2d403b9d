//! The daemon's clocks: the engine's, and marks by which stored times are read.

use std::time::Duration;

use super::Mark;
use crate::sys::{clock, procfs};
use crate::time::MonoTime;

/// The engine's clock at boot (the kernel's zero), so that times before a reboot can be expressed:
/// more than the longest `block.escalate.memory`. Databases depend on it, so it must not change.
const BEFORE_BOOT: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// The engine's clock.
pub(crate) fn now() -> MonoTime {
    MonoTime::at(clock::boottime().saturating_add(BEFORE_BOOT))
}

/// The current readings of all clocks.
pub(crate) fn mark() -> Mark {
    Mark {
        boot: procfs::boot_id().unwrap_or_default(),
        wall: u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX),
        clock: now(),
    }
}
