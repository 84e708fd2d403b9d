//! Scheduling of the current thread (sched(7)).
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::time::Duration;

/// Requests a short time slice, so that this thread runs sooner after a wake-up.
///
/// Its share of CPU time does not change, and no privilege is needed. Linux before 6.12 ignores it
/// (`sched_runtime` of `SCHED_OTHER`, linux/sched/types.h; the kernel limits it to 0.1 ms to 100
/// ms).
///
/// # Errors
/// The error of sched_getattr(2) or sched_setattr(2).
pub(crate) fn take_short_turns(turn: Duration) -> io::Result<()> {
    // SAFETY: zero is a value of each field.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    // SAFETY: the kernel writes no more than `size` bytes to the structure; 0 is the calling
    // thread.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.size = size;
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel only reads the structure, whose size stands in it; 0 is the calling
    // thread.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_time_slice_needs_no_privilege() {
        std::thread::spawn(|| take_short_turns(Duration::from_micros(100)).unwrap())
            .join()
            .unwrap();
    }
}
