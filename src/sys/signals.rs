//! Signals as a descriptor that can be polled (signal(7)); the handlers are signal-hook's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGTERM, SIGINT: end in order.
    Stop,
    /// SIGUSR1: status to the log.
    Status,
}

/// The signals that the daemon hears.
pub struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// What sigaction(2) or socketpair(2) say.
    pub fn install() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        Ok(Self(SignalDelivery::with_pipe(read, write, SignalOnly, [SIGHUP, SIGINT, SIGTERM, SIGUSR1])?))
    }

    /// What arrived since the last call, without waiting; the same signal several times counts once.
    pub fn take(&mut self) -> Vec<SignalRequest> {
        self.0
            .pending()
            .filter_map(|signal| match signal {
                SIGHUP => Some(SignalRequest::Reload),
                SIGINT | SIGTERM => Some(SignalRequest::Stop),
                SIGUSR1 => Some(SignalRequest::Status),
                _ => None,
            })
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::readable;

    #[test]
    fn a_signal_makes_the_descriptor_readable_and_is_taken_once() {
        let mut signals = Signals::install().unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        assert!(readable(signals.as_fd(), Duration::from_secs(5)).unwrap());
        assert_eq!(signals.take(), [SignalRequest::Status]);
        assert_eq!(signals.take(), []);
    }
}
