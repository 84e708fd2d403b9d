//! A netlink socket: opened by neli, read into a buffer of the caller's, polled by its descriptor.
//!
//! neli's typed sends carry one message, a batch of nf_tables is many: so its raw `NlSocket` is used (netlink(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::sys;

/// A netlink socket of one family, close-on-exec and non-blocking.
pub struct Socket {
    inner: NlSocket,
    portid: u32,
}

impl Socket {
    /// Opens a socket that hears the multicast groups `groups` (numbers, not bits), with extended acknowledgements where the kernel has them.
    ///
    /// # Errors
    /// What socket(2) or bind(2) say; joining a group needs CAP_NET_ADMIN for most families.
    pub fn open(family: NlFamily, groups: &[u32]) -> io::Result<Self> {
        let inner = NlSocket::connect(family, None, Groups::empty())?;
        if !groups.is_empty() {
            inner.add_mcast_membership(Groups::new_groups(groups))?;
        }
        inner.nonblock()?;
        // Extended acknowledgements came with Linux 4.12; without them errors are just less told.
        if let Err(error) = inner.enable_ext_ack(true) {
            log::debug!("no extended acknowledgements: {error}");
        }
        let portid = inner.pid()?;
        Ok(Self { inner, portid })
    }

    /// Hears a multicast group from now on, or hears it no more; what came by it before can still be received.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn hear_group(&self, group: u32, wanted: bool) -> io::Result<()> {
        let groups = Groups::new_groups(&[group]);
        if wanted {
            self.inner.add_mcast_membership(groups)?
        } else {
            self.inner.drop_mcast_membership(groups)?
        };
        Ok(())
    }

    /// The port id that the kernel gave this socket.
    pub fn portid(&self) -> u32 {
        self.portid
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What sendto(2) says; EMSGSIZE for one that does not fit the send buffer.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = self.inner.send(datagram, Msg::empty())?;
        if sent == datagram.len() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::WriteZero, "datagram was cut")) }
    }

    /// Receives one datagram into `buffer`, without waiting, and returns what there is of it; `None` if there is none now.
    ///
    /// # Errors
    /// ENOBUFS when the kernel had to throw messages away ([`is_overrun`]); EMSGSIZE for a datagram larger than the buffer, which is then lost.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match self.inner.recv(&mut *buffer, Msg::DONTWAIT | Msg::TRUNC) {
            Ok((length, _groups)) => match buffer.get(..length) {
                Some(datagram) => Ok(Some(datagram)),
                None => Err(io::Error::from_raw_os_error(Errno::MSGSIZE.raw_os_error())),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives what fits of one datagram, without waiting; `true` with it when the datagram was longer. `None` if there is none now.
    ///
    /// For readers that can use the messages before the cut, and notice what is missing by themselves.
    ///
    /// # Errors
    /// As [`Socket::receive`], without EMSGSIZE.
    pub fn receive_part<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(&'a [u8], bool)>> {
        // Not neli's recv: it asks for the sender's address, which nobody needs on the path of every packet.
        match rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((written, length)) => Ok(Some((buffer.get(..written).unwrap_or_default(), length > written))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Like [`Socket::receive`], and waits for a datagram until `timeout`; `None` after that.
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub fn receive_within<'a>(&self, buffer: &'a mut [u8], timeout: std::time::Duration) -> io::Result<Option<&'a [u8]>> {
        if sys::poll::readable(self.as_fd(), timeout)? { self.receive(buffer) } else { Ok(None) }
    }

    /// Asks for a receive buffer of `bytes`, past `net.core.rmem_max` where CAP_NET_ADMIN allows it (socket(7), SO_RCVBUFFORCE).
    ///
    /// # Errors
    /// What setsockopt(2) says of the plain SO_RCVBUF.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(self, bytes).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(self, bytes)?;
        }
        Ok(())
    }

    /// The size of the receive buffer in force, bytes. The kernel says twice what was asked for: it counts its own overhead too (socket(7)).
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        Ok(rustix::net::sockopt::socket_recv_buffer_size(self)?)
    }

    /// Asks for a send buffer of `bytes`, past `net.core.wmem_max` where CAP_NET_ADMIN allows it (SO_SNDBUFFORCE).
    ///
    /// # Errors
    /// What setsockopt(2) says of the plain SO_SNDBUF.
    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        if sys::socket::force_send_buffer(self.as_fd(), bytes).is_err() {
            rustix::net::sockopt::set_socket_send_buffer_size(self, bytes)?;
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::socket::borrow(&self.inner)
    }
}

/// Whether the kernel threw messages away because the receive buffer was full (ENOBUFS).
pub fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}
