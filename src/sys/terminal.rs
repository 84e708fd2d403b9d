//! A terminal: its size, whether it is still there, and the progress of long work on it.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::tcgetwinsize;

use super::poll;

/// The columns of a terminal; `None` if it is none, or does not say.
pub(crate) fn columns(terminal: &impl AsFd) -> Option<usize> {
    tcgetwinsize(terminal).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Writes bytes to a terminal at once, past every buffer and lock; what it does not take is lost.
pub(crate) fn write_now(terminal: &impl AsFd, bytes: &[u8]) {
    let _ = rustix::io::write(terminal, bytes);
}

/// Waits for input for at most `timeout`, or until a signal. Returns whether the other side has
/// closed the terminal: a process that it does not control gets no signal then.
pub(crate) fn has_hung_up(terminal: &impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(terminal.as_fd(), PollFlags::IN)];
    let is_ready = matches!(poll::wait(&mut fds, Some(timeout)), Ok(1..));
    is_ready && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Shows on standard error how much of long work is done, in one line that gives way in the end;
/// nothing if that is no terminal.
pub(crate) struct Progress {
    total: u64,
    /// The percent that are shown.
    shown: Option<u64>,
    is_shown: bool,
}

impl Progress {
    /// Of work whose whole is `total`; less than `from` is too short to show.
    pub(crate) fn new(total: u64, from: u64) -> Self {
        Self { total, shown: None, is_shown: total >= from && io::stderr().is_terminal() }
    }

    /// So much is done.
    pub(crate) fn at(&mut self, done: u64) {
        let percent = u128::from(done) * 100 / u128::from(self.total.max(1));
        let percent = u64::try_from(percent).unwrap_or(100).min(100);
        if self.is_shown && self.shown != Some(percent) {
            self.shown = Some(percent);
            // A terminal that takes nothing is no reason to stop.
            let _ = write!(io::stderr(), "\r{percent:3} %");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r     \r");
        }
    }
}
