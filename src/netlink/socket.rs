//! A netlink socket: opened by neli, read into a buffer of the caller's, polled by its descriptor.
//!
//! neli's typed sends carry one message, a batch of nf_tables is many: so its raw `NlSocket` is used (netlink(7)).
//!
//! Only the kernel is believed. A process with CAP_NET_ADMIN can send to any netlink socket of its network namespace, and a message header can claim
//! any sender; the address that recvfrom(2) gives cannot be forged. Every receive goes through [`Socket::receive`], which checks it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;

use crate::sys;

/// The kernel's port id.
const KERNEL: u32 = 0;

/// Datagrams of processes that one wait for an answer skips. The receive buffer of 8 MiB holds fewer than this (each takes 768 bytes or more of it), so
/// an answer that is in the queue is reached; without a bound, a flood could make the wait for one that is not there endless.
const FOREIGN_PER_WAIT: u32 = 1 << 16;

/// A netlink socket of one family, close-on-exec and non-blocking.
pub struct Socket {
    inner: NlSocket,
    portid: u32,
    /// Datagrams that were ignored because a process had sent them.
    foreign: AtomicU64,
}

/// What one attempt to receive has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// A datagram of the kernel's.
    Datagram {
        /// What fitted into the buffer.
        bytes: &'a [u8],
        /// The datagram was longer, and the rest of it is lost.
        cut: bool,
    },
    /// A datagram that a process had sent, and that was ignored: there may be another one behind it.
    Foreign,
    /// There is none now.
    Empty,
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
        Ok(Self { inner, portid, foreign: AtomicU64::new(0) })
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

    /// Receives one datagram of the kernel's into `buffer`, without waiting. One that a process had sent is counted and ignored.
    ///
    /// # Errors
    /// ENOBUFS when the kernel had to throw messages away ([`is_overrun`]).
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let (written, length) = match sys::socket::receive_netlink(self.as_fd(), buffer) {
            Ok(sys::socket::NetlinkDatagram { written, length, sender: Some(KERNEL) }) => (written, length),
            Ok(sys::socket::NetlinkDatagram { sender, .. }) => {
                self.on_foreign(sender);
                return Ok(Received::Foreign);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Empty),
            Err(error) => return Err(error),
        };
        Ok(Received::Datagram { bytes: buffer.get(..written).unwrap_or_default(), cut: length > written })
    }

    /// Receives one whole datagram of the kernel's, and waits for it until `timeout`; `None` after that. With a timeout of zero it takes what is there.
    ///
    /// # Errors
    /// As [`Socket::receive`]; EMSGSIZE for a datagram larger than the buffer, which is then lost.
    pub fn receive_within<'a>(&self, buffer: &'a mut [u8], timeout: Duration) -> io::Result<Option<&'a [u8]>> {
        match self.wait_for_datagram(buffer, timeout)? {
            None => Ok(None),
            Some((_, true)) => Err(io::Error::from_raw_os_error(Errno::MSGSIZE.raw_os_error())),
            Some((written, false)) => Ok(Some(buffer.get(..written).unwrap_or_default())),
        }
    }

    /// As [`Socket::receive_within`], for readers that can use the messages before a cut.
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub fn receive_part_within<'a>(&self, buffer: &'a mut [u8], timeout: Duration) -> io::Result<Option<&'a [u8]>> {
        let received = self.wait_for_datagram(buffer, timeout)?;
        Ok(received.map(|(written, _)| buffer.get(..written).unwrap_or_default()))
    }

    /// How many bytes were written, and whether the datagram was longer.
    fn wait_for_datagram(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<(usize, bool)>> {
        let mut deadline = None;
        let mut foreign = 0;
        loop {
            match self.receive(buffer)? {
                Received::Datagram { bytes, cut } => return Ok(Some((bytes.len(), cut))),
                Received::Foreign if foreign < FOREIGN_PER_WAIT => foreign += 1,
                Received::Foreign => return Ok(None),
                Received::Empty => {
                    // The clock is asked only when there is something to wait for.
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + timeout);
                    if !sys::poll::readable(self.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn on_foreign(&self, sender: Option<u32>) {
        let count = self.foreign.fetch_add(1, Ordering::Relaxed) + 1;
        // The first, the second, the fourth ...: a flood of them is no flood of the log.
        if count.is_power_of_two() {
            let sender = sender.map_or_else(|| "an unknown port".to_owned(), |sender| format!("port {sender}"));
            log::debug!("netlink port {} ignored {count} datagrams that the kernel did not send, the last from {sender}", self.portid);
        }
    }

    /// How many datagrams were ignored because a process, not the kernel, had sent them.
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
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
