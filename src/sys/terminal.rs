//! A terminal: its size, and whether it is still there.

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
