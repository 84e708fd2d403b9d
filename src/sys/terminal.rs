//! The size of a terminal.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// The columns of a terminal; `None` if it is none, or does not say.
pub(crate) fn columns(terminal: &impl AsFd) -> Option<usize> {
    tcgetwinsize(terminal).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
