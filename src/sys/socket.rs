//! What socket(7) has and no safe wrapper offers.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::socket::NlSocket;

/// The descriptor of a socket of neli's, which offers only its number.
pub fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, and the borrow cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// SO_SNDBUFFORCE: a send buffer past `net.core.wmem_max`; needs CAP_NET_ADMIN.
///
/// # Errors
/// What setsockopt(2) says.
pub fn force_send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

/// Memory that waits in the receive queue of a socket, and the receive buffer (twice what was asked for, socket(7)): bytes, with the kernel's own
/// overhead. `SO_MEMINFO` (linux/sock_diag.h, Linux 4.12).
///
/// # Errors
/// What getsockopt(2) says.
pub fn backlog(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    /// `SK_MEMINFO_VARS`: the two wanted come first.
    const VARS: usize = 9;
    let mut values = [0u32; VARS];
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).unwrap_or(0);
    // SAFETY: pointer and length describe `values`, which lives over the call; the descriptor is borrowed.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut length) };
    let [waiting, buffer, ..] = values;
    if result == 0 { Ok((waiting, buffer)) } else { Err(io::Error::last_os_error()) }
}

/// setsockopt(2) of an option that is a number.
pub(super) fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: pointer and length describe `value`, which lives over the call; the descriptor is borrowed.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
