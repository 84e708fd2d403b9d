//! A non-blocking netlink socket that accepts messages from the kernel only.
//!
//! Uses neli's raw `NlSocket`, because neli's typed sends carry one message and a batch of
//! nf_tables has many (netlink(7)).
//!
//! A process with CAP_NET_ADMIN can send to any netlink socket of its network namespace, and a
//! message header can claim any sender. The sender address of recvfrom(2) cannot be forged; every
//! receive checks it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use rustix::io::Errno;

use crate::sys::{self, broker};

/// The kernel's port id.
const KERNEL: u32 = 0;

/// Datagrams of other processes that one wait for an answer skips. The receive buffer of 8 MiB
/// holds fewer (each takes at least 768 bytes of it), so a queued answer is always reached; without
/// a bound, a flood could extend a wait for ever.
const MAX_FOREIGN_PER_WAIT: u32 = 1 << 16;

/// A netlink socket of one family, close-on-exec and non-blocking.
pub(crate) struct Socket {
    inner: NlSocket,
    portid: u32,
    /// Ignored datagrams of other processes.
    foreign: AtomicU64,
}

/// The result of one receive call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A datagram from the kernel.
    Datagram {
        /// Its bytes, as far as the buffer has room.
        bytes: &'a [u8],
        /// Whether the datagram was longer, and its rest is lost.
        cut: bool,
    },
    /// An ignored datagram from another process; more datagrams may follow.
    Foreign,
    /// No datagram is available.
    Empty,
}

impl Socket {
    /// Opens a socket that is a member of the multicast groups `groups` (numbers, not bits), with
    /// extended acknowledgements if available.
    ///
    /// # Errors
    /// The error of socket(2) or bind(2); joining a group needs CAP_NET_ADMIN for most families.
    pub(crate) fn open(family: NlFamily, groups: &[u32]) -> io::Result<Self> {
        let inner = broker::open(move || NlSocket::connect(family, None, Groups::empty()))?;
        if !groups.is_empty() {
            inner.add_mcast_membership(Groups::new_groups(groups))?;
        }
        inner.nonblock()?;
        // Extended acknowledgements came with Linux 4.12; without them errors have less detail.
        if let Err(error) = inner.enable_ext_ack(true) {
            log::debug!("no extended acknowledgements: {error}");
        }
        let portid = inner.pid()?;
        Ok(Self { inner, portid, foreign: AtomicU64::new(0) })
    }

    /// Joins or leaves a multicast group; messages received before can still be read.
    ///
    /// # Errors
    /// The error of setsockopt(2).
    pub(crate) fn set_group_membership(&self, group: u32, wanted: bool) -> io::Result<()> {
        let groups = Groups::new_groups(&[group]);
        if wanted {
            self.inner.add_mcast_membership(groups)?
        } else {
            self.inner.drop_mcast_membership(groups)?
        };
        Ok(())
    }

    /// The port id that the kernel gave this socket.
    pub(crate) fn portid(&self) -> u32 {
        self.portid
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// The error of sendto(2); EMSGSIZE for one that does not fit the send buffer.
    pub(crate) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = self.inner.send(datagram, Msg::empty())?;
        if sent == datagram.len() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::WriteZero, "datagram was cut"))
        }
    }

    /// Receives one datagram into `buffer`, without waiting. Counts and ignores one from another
    /// process.
    ///
    /// # Errors
    /// ENOBUFS when the kernel had to drop messages ([`is_overrun`]).
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let datagram = match sys::socket::receive_netlink(self.as_fd(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Empty),
            received => received?,
        };
        if datagram.sender != Some(KERNEL) {
            self.on_foreign(datagram.sender);
            return Ok(Received::Foreign);
        }
        Ok(Received::Datagram {
            bytes: buffer.get(..datagram.written).unwrap_or_default(),
            cut: datagram.length > datagram.written,
        })
    }

    /// Receives one whole datagram from the kernel and waits up to `timeout` for it; `None` after
    /// that. A zero timeout does not wait.
    ///
    /// # Errors
    /// As [`Socket::receive`]; EMSGSIZE for a datagram larger than the buffer, which is then lost.
    pub(crate) fn receive_within<'a>(
        &self,
        buffer: &'a mut [u8],
        timeout: Duration,
    ) -> io::Result<Option<&'a [u8]>> {
        match self.wait_for_datagram(buffer, timeout)? {
            None => Ok(None),
            Some((_, true)) => Err(io::Error::from_raw_os_error(Errno::MSGSIZE.raw_os_error())),
            Some((written, false)) => Ok(Some(buffer.get(..written).unwrap_or_default())),
        }
    }

    /// As [`Socket::receive_within`], for callers that can use the messages before a truncation.
    ///
    /// # Errors
    /// As [`Socket::receive`].
    pub(crate) fn receive_part_within<'a>(
        &self,
        buffer: &'a mut [u8],
        timeout: Duration,
    ) -> io::Result<Option<&'a [u8]>> {
        let received = self.wait_for_datagram(buffer, timeout)?;
        Ok(received.map(|(written, _)| buffer.get(..written).unwrap_or_default()))
    }

    /// Returns how many bytes were written, and whether the datagram was longer.
    fn wait_for_datagram(
        &self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> io::Result<Option<(usize, bool)>> {
        let mut deadline = None;
        let mut foreign = 0;
        loop {
            match self.receive(buffer)? {
                Received::Datagram { bytes, cut } => return Ok(Some((bytes.len(), cut))),
                Received::Foreign if foreign < MAX_FOREIGN_PER_WAIT => foreign += 1,
                Received::Foreign => return Ok(None),
                Received::Empty => {
                    // Read the clock only if it must wait.
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + timeout);
                    if !sys::poll::readable(
                        self.as_fd(),
                        deadline.saturating_duration_since(Instant::now()),
                    )? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn on_foreign(&self, sender: Option<u32>) {
        let count = self.foreign.fetch_add(1, Ordering::Relaxed) + 1;
        // Log the first, second, fourth and so on: a flood of them must not flood the log.
        if count.is_power_of_two() {
            let sender = sender
                .map_or_else(|| "an unknown port".to_owned(), |sender| format!("port {sender}"));
            log::debug!(
                "netlink port {} ignored {count} datagrams that the kernel did not send, the last from {sender}",
                self.portid
            );
        }
    }

    /// Sets a receive buffer of `bytes`, above `net.core.rmem_max` where CAP_NET_ADMIN allows it
    /// (socket(7), SO_RCVBUFFORCE).
    ///
    /// # Errors
    /// The error of setsockopt(2) of the plain SO_RCVBUF.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(self, bytes).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(self, bytes)?;
        }
        Ok(())
    }

    /// The size of the receive buffer, bytes: twice the requested size, because the kernel includes
    /// its overhead (socket(7)).
    ///
    /// # Errors
    /// The error of getsockopt(2).
    pub(crate) fn receive_buffer(&self) -> io::Result<usize> {
        Ok(rustix::net::sockopt::socket_recv_buffer_size(self)?)
    }

    /// Sets a send buffer of `bytes`, above `net.core.wmem_max` where CAP_NET_ADMIN allows it
    /// (SO_SNDBUFFORCE).
    ///
    /// # Errors
    /// The error of setsockopt(2) of the plain SO_SNDBUF.
    pub(crate) fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
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

/// Whether the kernel dropped messages because the receive buffer was full (ENOBUFS).
pub(crate) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}
