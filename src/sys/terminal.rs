//! The size of a terminal.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// The columns of a terminal; `None` if it is none, or does not say.
pub(crate) fn columns(terminal: &impl AsFd) -> Option<usize> {
    tcgetwinsize(terminal).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Writes bytes to a terminal at once, past every buffer and lock; what it does not take is lost.
pub(crate) fn write_now(terminal: &impl AsFd, bytes: &[u8]) {
    let _ = rustix::io::write(terminal, bytes);
}
