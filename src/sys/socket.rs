//! What socket(7) has and no safe wrapper offers.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::socket::NlSocket;
use rustix::net::RecvFlags;
use rustix::net::netlink::SocketAddrNetlink;

/// The descriptor of a socket of neli's, which offers only its number.
pub fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, and the borrow cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// What one recvfrom(2) of a netlink socket has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetlinkDatagram {
    /// Bytes that were written to the buffer.
    pub written: usize,
    /// Bytes of the datagram: more than `written` if it did not fit.
    pub length: usize,
    /// The sender's port id: 0 is the kernel, and no process can have that (netlink(7)). `None` if there was no address.
    pub sender: Option<u32>,
}

/// Receives a datagram from a netlink socket without waiting. The sender's port id is filled in by the kernel, unlike the one in a message's header.
///
/// # Errors
/// What recvfrom(2) says: `WouldBlock` if there is none.
pub fn receive_netlink(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<NetlinkDatagram> {
    let (written, length, address) = rustix::net::recvfrom(fd, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
    let sender = address.and_then(|address| SocketAddrNetlink::try_from(address).ok()).map(|address| address.pid());
    Ok(NetlinkDatagram { written, length, sender })
}

/// SO_SNDBUFFORCE: a send buffer past `net.core.wmem_max`; needs CAP_NET_ADMIN.
///
/// # Errors
/// What setsockopt(2) says.
pub fn force_send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

/// What a socket holds, and what it could not take (linux/sock_diag.h, `SK_MEMINFO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketMemory {
    /// What waits to be received, bytes with the kernel's own overhead.
    pub waiting: u32,
    /// The receive buffer, in the same bytes: twice what was asked for (socket(7)).
    pub buffer: u32,
    /// Datagrams that were thrown away since the socket was opened, because the buffer was full; it wraps.
    pub dropped: u32,
}

/// Asks what a socket holds: `SO_MEMINFO` (Linux 4.12).
///
/// # Errors
/// What getsockopt(2) says.
pub fn memory(fd: BorrowedFd<'_>) -> io::Result<SocketMemory> {
    /// `SK_MEMINFO_VARS`.
    const VARS: usize = 9;
    let mut values = [0u32; VARS];
    let mut length = libc::socklen_t::try_from(size_of_val(&values)).unwrap_or(0);
    // SAFETY: pointer and length describe `values`, which lives over the call; the descriptor is borrowed.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut length) };
    let [waiting, buffer, .., dropped] = values;
    if result == 0 { Ok(SocketMemory { waiting, buffer, dropped }) } else { Err(io::Error::last_os_error()) }
}

/// `NETLINK_NO_ENOBUFS` (netlink(7)): a full receive buffer is no error any more, and what comes is queued as soon as there is room for it.
/// Without it the kernel throws everything away from the first loss until the queue was read empty.
///
/// # Errors
/// What setsockopt(2) says.
pub fn no_overrun_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1)
}

/// setsockopt(2) of an option that is a number.
pub(super) fn set_option(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: pointer and length describe `value`, which lives over the call; the descriptor is borrowed.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
