//! TCP connections to decoys: accept, send the banner, linger, close.
//!
//! A connection gets our FIN at once. Data from the peer is read and discarded for [`LINGER`],
//! because otherwise the kernel would send a reset that could overtake the banner (RFC 1122,
//! 4.2.2.13). Then the connection is closed in any case.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};

use crate::sys::transparent;
use crate::time::MonoTime;

/// Connections accepted before the packet thread serves its other descriptors. Each costs about 20
/// us: a millisecond in all.
pub const MAX_ACCEPTS_PER_WAKE: usize = 64;

/// Lingering connections at a time; further ones are closed at once. With the control socket's
/// clients this stays below the default of 1,024 descriptors of a service (systemd.exec(5),
/// `LimitNOFILE`).
pub const CONNECTIONS_MAX: usize = 512;

/// How long a connection lingers: several round trips.
pub const LINGER: Duration = Duration::from_secs(1);

/// Bytes read from a peer that continues to send. A request of a version scan has a few hundred.
const READ_MAX: usize = 16 << 10;

/// How long the listeners are not polled when descriptors or memory have run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted. The kernel limits it to `net.core.somaxconn`, 4,096 by
/// default since Linux 5.4.
const BACKLOG: i32 = 4096;

/// Buffers of a connection, bytes: the banner (at most 1,024) fits, and the kernel slows a peer
/// that sends much.
const SOCKET_BUFFER: usize = 4096;

/// The kernel ends a connection whose peer does not acknowledge banner and FIN within this time; a
/// blocked peer never does.
const UNACKED_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a closed connection waits for its peer's FIN in the kernel.
const FIN_WAIT: Duration = Duration::from_secs(1);

/// Opens a listener for decoys.
pub(super) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    transparent::listener(
        address,
        transparent::ListenerOptions {
            backlog: BACKLOG,
            buffer: SOCKET_BUFFER,
            unacknowledged: UNACKED_TIMEOUT,
            fin_wait: FIN_WAIT,
        },
    )
}

/// An accepted connection.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) peer: SocketAddr,
    /// Its original destination.
    pub(super) local: SocketAddr,
}

/// Why no connection was accepted.
pub(super) enum NotAccepted {
    /// The connection has ended already.
    Gone,
    /// No descriptors or memory are left.
    Exhausted,
}

/// Accepts the next connection, if any.
pub(super) fn accept(listener: &OwnedFd) -> Result<Option<Connection>, NotAccepted> {
    let (socket, peer) = match rustix::net::acceptfrom_with(
        listener,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
    ) {
        Ok(accepted) => accepted,
        Err(Errno::AGAIN) => return Ok(None),
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            return Err(NotAccepted::Exhausted);
        }
        // accept(2) also returns errors of the connection itself.
        Err(_) => return Err(NotAccepted::Gone),
    };
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(NotAccepted::Gone)?;
    let local = rustix::net::getsockname(&socket).map_err(|_| NotAccepted::Gone)?;
    let local = SocketAddr::try_from(local).map_err(|_| NotAccepted::Gone)?;
    Ok(Some(Connection { socket, peer, local }))
}

/// Writes the banner, for which a new connection has room. Returns whether all of it was written.
pub(super) fn send_banner(socket: &OwnedFd, banner: &[u8]) -> bool {
    rustix::net::send(socket, banner, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        .is_ok_and(|sent| sent == banner.len())
}

struct LingeringConnection {
    socket: OwnedFd,
    read: usize,
}

/// Connections that linger, each for [`LINGER`].
#[derive(Default)]
pub(super) struct LingeringConnections {
    by_mark: HashMap<u64, LingeringConnection>,
    /// Deadlines in order, because all connections linger equally long. Includes those of
    /// connections that ended early; there are never more than twice [`CONNECTIONS_MAX`].
    deadlines: VecDeque<(MonoTime, u64)>,
    last_mark: u64,
}

/// The first epoll key of a connection; listeners have smaller ones.
const FIRST_MARK: u64 = 16;

impl LingeringConnections {
    pub(super) fn count(&self) -> usize {
        self.by_mark.len()
    }

    pub(super) fn next_deadline(&self) -> Option<MonoTime> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Sends our FIN and lets the connection linger. `false`: there were too many, and it was
    /// closed.
    pub(super) fn linger(&mut self, now: MonoTime, epoll: &OwnedFd, socket: OwnedFd) -> bool {
        // A connection that has ended cannot be shut down; reading detects that.
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        if self.by_mark.len() >= CONNECTIONS_MAX {
            // Read what arrived already; unread data would turn the FIN into a reset.
            let _ = discard(&socket);
            return false;
        }
        self.last_mark = self.last_mark.max(FIRST_MARK) + 1;
        let mark = self.last_mark;
        if epoll::add(
            epoll,
            &socket,
            epoll::EventData::new_u64(mark),
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP,
        )
        .is_err()
        {
            return false;
        }
        self.by_mark.insert(mark, LingeringConnection { socket, read: 0 });
        if self.deadlines.len() >= 2 * CONNECTIONS_MAX {
            self.deadlines.retain(|(_, mark)| self.by_mark.contains_key(mark));
        }
        self.deadlines.push_back((now.after(LINGER), mark));
        true
    }

    /// Handles a readable or ended connection.
    pub(super) fn on_readable(&mut self, mark: u64) {
        let Some(guest) = self.by_mark.get_mut(&mark) else { return };
        let continues = match discard(&guest.socket) {
            Some(read) => {
                guest.read += read;
                guest.read <= READ_MAX
            }
            None => false,
        };
        if !continues {
            // Closing removes it from the epoll set.
            self.by_mark.remove(&mark);
        }
    }

    /// Closes connections that have lingered long enough.
    pub(super) fn close_expired(&mut self, now: MonoTime) {
        while let Some((at, mark)) = self.deadlines.front().copied()
            && (at <= now || !self.by_mark.contains_key(&mark))
        {
            self.deadlines.pop_front();
            self.by_mark.remove(&mark);
        }
    }
}

/// Reads once and discards the data. `None`: the peer has finished.
fn discard(socket: &OwnedFd) -> Option<usize> {
    let mut buffer = [0u8; 4096];
    match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((_, 0)) => None,
        Ok((_, read)) => Some(read),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_) => None,
    }
}
