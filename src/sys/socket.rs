//! Socket calls of socket(7) and netlink(7) without a safe wrapper.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::socket::NlSocket;
use rustix::net::RecvFlags;
use rustix::net::netlink::SocketAddrNetlink;

/// Borrows the descriptor of a neli socket, which offers only its number.
pub(crate) fn borrow(socket: &NlSocket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `socket` lives, and the borrow cannot outlive it.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// The result of one recvfrom(2) on a netlink socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetlinkDatagram {
    /// Bytes written to the buffer.
    pub written: usize,
    /// Length of the datagram, bytes; more than `written` if it did not fit.
    pub length: usize,
    /// The sender's port id; 0 is the kernel and cannot belong to a process (netlink(7)). `None` if
    /// there was no address.
    pub sender: Option<u32>,
}

/// Receives a datagram from a netlink socket without waiting. The kernel sets the sender's port id;
/// the one in a message's header can be forged.
///
/// # Errors
/// The error of recvfrom(2); `WouldBlock` if there is no datagram.
pub(crate) fn receive_netlink(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<NetlinkDatagram> {
    let (written, length, address) =
        rustix::net::recvfrom(fd, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
    let sender = address
        .and_then(|address| SocketAddrNetlink::try_from(address).ok())
        .map(|address| address.pid());
    Ok(NetlinkDatagram { written, length, sender })
}

/// SO_SNDBUFFORCE: sets a send buffer above `net.core.wmem_max`; needs CAP_NET_ADMIN.
///
/// # Errors
/// The error of setsockopt(2).
pub(crate) fn force_send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    set_option(
        fd,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX),
    )
}

/// Memory use and drops of a socket (linux/sock_diag.h, `SK_MEMINFO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SocketMemory {
    /// Bytes waiting to be received, with the kernel's overhead.
    pub waiting: u32,
    /// The receive buffer, bytes: twice the requested size (socket(7)).
    pub buffer: u32,
    /// Datagrams dropped since the socket was opened because the buffer was full; wraps.
    pub dropped: u32,
}

/// Reads a socket's memory use: `SO_MEMINFO` (Linux 4.12).
///
/// # Errors
/// The error of getsockopt(2).
pub(crate) fn memory(fd: BorrowedFd<'_>) -> io::Result<SocketMemory> {
    /// `SK_MEMINFO_VARS`.
    const VARS: usize = 9;
    let mut values = [0; VARS];
    get_option(fd, libc::SO_MEMINFO, &mut values).0?;
    let [waiting, buffer, .., dropped] = values;
    Ok(SocketMemory { waiting, buffer, dropped })
}

/// `NETLINK_NO_ENOBUFS` (netlink(7)): a full receive buffer is no error, and messages are queued
/// again as soon as there is room. Without it the kernel drops every message from the first loss
/// until the queue has been read empty.
///
/// # Errors
/// The error of setsockopt(2).
pub(crate) fn no_overrun_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_option(fd, libc::SOL_NETLINK, libc::NETLINK_NO_ENOBUFS, 1)
}

/// getsockopt(2) of an option of SOL_SOCKET that consists of 32-bit numbers. Returns how many
/// numbers it has, also if they do not fit.
pub(super) fn get_option(
    fd: BorrowedFd<'_>,
    option: libc::c_int,
    values: &mut [u32],
) -> (io::Result<()>, usize) {
    let mut length = libc::socklen_t::try_from(size_of_val(values)).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: pointer and length describe `values`, which lives over the call; the descriptor is
    // borrowed.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    (result, usize::try_from(length).unwrap_or(0) / size_of::<u32>())
}

/// setsockopt(2) of an integer option.
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: pointer and length describe `value`, which lives over the call; the descriptor is
    // borrowed.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
