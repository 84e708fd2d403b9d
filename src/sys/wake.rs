//! Wakes a thread that waits in poll(2) (eventfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd: readable from the first [`Waker::wake`] until [`Waker::clear`].
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A waker whose descriptor is not readable yet.
    ///
    /// # Errors
    /// The error of eventfd(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    /// Makes the descriptor readable; never waits.
    pub fn wake(&self) {
        // The only possible error is EAGAIN for a full counter, and then the descriptor is readable
        // already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next [`Waker::wake`].
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // EAGAIN: it was not readable.
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_waker_is_readable_from_wake_to_clear() {
        let waker = Waker::new().unwrap();
        let readable = || crate::sys::poll::readable(waker.as_fd(), Duration::ZERO).unwrap();
        assert!(!readable());
        waker.wake();
        waker.wake();
        assert!(readable());
        waker.clear();
        assert!(!readable());
    }
}
