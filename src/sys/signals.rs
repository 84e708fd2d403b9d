//! Signals as a pollable descriptor (signal(7)), with signal-hook's handlers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// What a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGTERM, SIGINT: shut down.
    Stop,
    /// SIGUSR1: log the status.
    Status,
}

/// The signals that the daemon handles.
pub(crate) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

/// Makes signals have no effect. By handlers and not by SIG_IGN, which commands would inherit.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn disregard(signals: &[i32]) -> io::Result<()> {
    signals.iter().try_for_each(|signal| {
        signal_hook::flag::register(*signal, Arc::new(AtomicBool::new(false))).map(drop)
    })
}

/// A write beyond the limit of file sizes (RLIMIT_FSIZE, setrlimit(2)) fails with EFBIG from now
/// on, as on a full disk, and does not end the process.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn survive_file_size_limit() -> io::Result<()> {
    disregard(&[SIGXFSZ])
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The error of sigaction(2) or socketpair(2).
    pub(crate) fn install() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        Ok(Self(SignalDelivery::with_pipe(
            read,
            write,
            SignalOnly,
            [SIGHUP, SIGINT, SIGTERM, SIGUSR1],
        )?))
    }

    /// The signals since the last call, without waiting; repeats of a signal count once.
    pub(crate) fn take(&mut self) -> Vec<SignalRequest> {
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
    fn signal_makes_the_descriptor_readable_once() {
        let mut signals = Signals::install().unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        assert!(readable(signals.as_fd(), Duration::from_secs(5)).unwrap());
        assert_eq!(signals.take(), [SignalRequest::Status]);
        assert_eq!(signals.take(), []);
    }
}
