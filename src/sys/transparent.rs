//! Transparent sockets: they receive packets for other addresses and ports, and answer from there
//! (ip(7), `IP_TRANSPARENT`; ipv6(7); the kernel's Documentation/networking/tproxy.rst). They need
//! CAP_NET_ADMIN; answering from a port below 1024 needs CAP_NET_BIND_SERVICE too.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::broker;
use super::socket::set_option;

/// Options of a listener; accepted connections inherit them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerOptions {
    /// Connections that may wait to be accepted; the kernel limits it to `net.core.somaxconn`.
    pub backlog: i32,
    /// Receive and send buffer of each, bytes.
    pub buffer: usize,
    /// Data not acknowledged within this time ends the connection (`TCP_USER_TIMEOUT`).
    pub unacknowledged: Duration,
    /// How long a closed connection waits for the peer's FIN (`TCP_LINGER2`), at least one second.
    pub fin_wait: Duration,
}

/// A non-blocking TCP listener. An IPv6 one accepts no IPv4.
///
/// # Errors
/// The error of socket(2), setsockopt(2), bind(2) or listen(2).
pub(crate) fn listener(address: SocketAddr, options: ListenerOptions) -> io::Result<OwnedFd> {
    broker::open(move || listener_here(address, options))
}

fn listener_here(address: SocketAddr, options: ListenerOptions) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::STREAM)?;
    // Connections occupy the port that they were sent to: without this option a service could not
    // bind it meanwhile (bind(2)).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_recv_buffer_size(&socket, options.buffer)?;
    sockopt::set_socket_send_buffer_size(&socket, options.buffer)?;
    sockopt::set_tcp_user_timeout(
        &socket,
        u32::try_from(options.unacknowledged.as_millis()).unwrap_or(u32::MAX),
    )?;
    let seconds =
        libc::c_int::try_from(options.fin_wait.as_secs().max(1)).unwrap_or(libc::c_int::MAX);
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_LINGER2, seconds)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, options.backlog)?;
    Ok(socket)
}

/// A non-blocking UDP socket that reports the destination of each datagram. An IPv6 one accepts no
/// IPv4.
///
/// # Errors
/// The error of socket(2), setsockopt(2) or bind(2).
pub(crate) fn datagrams(address: SocketAddr) -> io::Result<OwnedFd> {
    broker::open(move || datagrams_here(address))
}

fn datagrams_here(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address, SocketType::DGRAM)?;
    match address {
        SocketAddr::V4(_) => set_option(socket.as_fd(), libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1)?,
        SocketAddr::V6(_) => {
            set_option(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, 1)?
        }
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// A UDP socket that sends from `from` to `to` and receives only from `to`.
///
/// # Errors
/// The error of socket(2), setsockopt(2), bind(2) or connect(2); `AddrInUse` if a service is bound
/// to the port.
pub(crate) fn answering(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    broker::open(move || answering_here(from, to))
}

fn answering_here(from: SocketAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(from, SocketType::DGRAM)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match from {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(socket)
}

fn open(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket =
        rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match address {
        SocketAddr::V4(_) => set_option(socket.as_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, 1)?,
        SocketAddr::V6(_) => {
            sockopt::set_ipv6_v6only(&socket, true)?;
            set_option(socket.as_fd(), libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)?;
        }
    }
    Ok(socket)
}

/// Room for one control message with an IPv6 socket address, and a spare one, bytes.
const CONTROL: usize = 128;

/// Receives a datagram from a socket of [`datagrams`] and returns its source and destination; its
/// content is discarded. `None`: there is none.
///
/// # Errors
/// The error of recvmsg(2); `InvalidData` if the kernel did not report the addresses.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    let mut byte = 0u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: both are plain data for which all zeroes is a value.
    let (mut name, mut message) = unsafe {
        (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::msghdr>())
    };
    // cmsg(3) requires the alignment of a header.
    let mut control =
        MaybeUninit::<[libc::cmsghdr; CONTROL / size_of::<libc::cmsghdr>()]>::zeroed();
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_storage>()).unwrap_or(0);
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: every pointer in `message` is to something that lives over the call, with its length;
    // the descriptor is borrowed.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if received < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    // SAFETY: the kernel wrote a whole socket address of the family that it names, and storage has
    // room for any.
    let peer = unsafe { address(&raw const name) };
    let mut original = None;
    // SAFETY: `message` and its control buffer are as recvmsg(2) left them, which is what the
    // macros of cmsg(3) walk over.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(found) = header.as_ref() {
            let room = match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_IP, libc::IP_ORIGDSTADDR) => Some(size_of::<libc::sockaddr_in>()),
                (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => Some(size_of::<libc::sockaddr_in6>()),
                _ => None,
            };
            if let Some(room) = room
                && found.cmsg_len >= libc::CMSG_LEN(u32::try_from(room).unwrap_or(0)) as usize
            {
                let mut storage: libc::sockaddr_storage = std::mem::zeroed();
                std::ptr::copy_nonoverlapping(
                    libc::CMSG_DATA(header),
                    (&raw mut storage).cast::<u8>(),
                    room,
                );
                original = address(&raw const storage);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    match (peer, original) {
        (Some(peer), Some(original)) => Ok(Some((peer, original))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// # Safety
/// `storage` must point to a whole `sockaddr_storage`.
unsafe fn address(storage: *const libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: the caller's promise; storage is aligned for, and as large as, every address.
    unsafe {
        match libc::c_int::from((*storage).ss_family) {
            libc::AF_INET => {
                let v4 = &*storage.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*storage.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}
