//! Connections to decoys: taken, spoken to once, seen out.
//!
//! A connection gets our FIN at once. What its peer still sends is read and thrown away for [`LINGER`], so that the kernel does not answer with
//! a reset that would overtake the banner (RFC 1122, 4.2.2.13); then it is closed, whatever the peer does.

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

/// Connections taken before the packet thread looks at its other descriptors. Each costs some 20 us: a millisecond in all.
pub const MAX_ACCEPTS_PER_WAKE: usize = 64;

/// Connections that are seen out at a time; past it they are closed at once. With the control socket's clients this stays below the 1,024
/// descriptors that a service has by default (systemd.exec(5), `LimitNOFILE`).
pub const HELD_MAX: usize = 512;

/// How long a connection is seen out. Several round trips.
pub const LINGER: Duration = Duration::from_secs(1);

/// What is read of a peer that goes on sending, bytes. A request of a scanner that looks for versions has a few hundred.
const READ_MAX: usize = 16 << 10;

/// For how long the listeners are left alone when descriptors or memory have run out.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for being taken. The kernel cuts it to `net.core.somaxconn`, 4,096 by default since Linux 5.4; more would be no use.
const BACKLOG: i32 = 4096;

/// Buffers of a connection, bytes: the banner (at most 1,024) fits in, and who sends much is slowed by the kernel.
const BUFFER: usize = 4096;

/// The kernel gives up a connection whose peer does not acknowledge banner and FIN within this: a blocked one never does.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

/// A closed connection waits for its peer's FIN no longer than this in the kernel.
const FIN_WAIT: Duration = Duration::from_secs(1);

/// A listener for decoys.
pub(super) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    transparent::listener(address, transparent::Keeping { backlog: BACKLOG, buffer: BUFFER, unacknowledged: UNACKNOWLEDGED, fin_wait: FIN_WAIT })
}

/// A connection that was taken.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) peer: SocketAddr,
    /// Where it was sent to.
    pub(super) local: SocketAddr,
}

/// Why there is no connection.
pub(super) enum NotAccepted {
    /// That one is over already.
    Gone,
    /// No more descriptors, or no memory.
    Exhausted,
}

/// The next connection, if there is one.
pub(super) fn accept(listener: &OwnedFd) -> Result<Option<Connection>, NotAccepted> {
    let (socket, peer) = match rustix::net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        Ok(accepted) => accepted,
        Err(Errno::AGAIN) => return Ok(None),
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return Err(NotAccepted::Exhausted),
        // accept(2): errors of the connection itself come here too.
        Err(_) => return Err(NotAccepted::Gone),
    };
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(NotAccepted::Gone)?;
    let local = rustix::net::getsockname(&socket).map_err(|_| NotAccepted::Gone)?;
    let local = SocketAddr::try_from(local).map_err(|_| NotAccepted::Gone)?;
    Ok(Some(Connection { socket, peer, local }))
}

/// Writes the banner. Whether all of it went out; there is room for it in a new connection.
pub(super) fn say(socket: &OwnedFd, banner: &[u8]) -> bool {
    rustix::net::send(socket, banner, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok_and(|sent| sent == banner.len())
}

struct Guest {
    socket: OwnedFd,
    read: usize,
}

/// Connections that are seen out, each for [`LINGER`].
#[derive(Default)]
pub(super) struct Guests {
    by_mark: HashMap<u64, Guest>,
    /// All have the same time, so the first to come is the first to go. Those that went by themselves stay a while; there are never more than
    /// twice [`HELD_MAX`].
    deadlines: VecDeque<(MonoTime, u64)>,
    last_mark: u64,
}

/// Marks of connections begin here: listeners have smaller ones.
const FIRST_MARK: u64 = 16;

impl Guests {
    pub(super) fn count(&self) -> usize {
        self.by_mark.len()
    }

    pub(super) fn next_deadline(&self) -> Option<MonoTime> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Ends our side of a connection, and waits for the other. `false`: there are too many, and it was closed.
    pub(super) fn see_out(&mut self, now: MonoTime, epoll: &OwnedFd, socket: OwnedFd) -> bool {
        // One that is over already cannot be shut down; reading tells.
        let _ = rustix::net::shutdown(&socket, Shutdown::Write);
        if self.by_mark.len() >= HELD_MAX {
            // What came with the connection; unread, it would turn the FIN into a reset.
            let _ = discard(&socket);
            return false;
        }
        self.last_mark = self.last_mark.max(FIRST_MARK) + 1;
        let mark = self.last_mark;
        if epoll::add(epoll, &socket, epoll::EventData::new_u64(mark), epoll::EventFlags::IN | epoll::EventFlags::RDHUP).is_err() {
            return false;
        }
        self.by_mark.insert(mark, Guest { socket, read: 0 });
        if self.deadlines.len() >= 2 * HELD_MAX {
            self.deadlines.retain(|(_, mark)| self.by_mark.contains_key(mark));
        }
        self.deadlines.push_back((now.after(LINGER), mark));
        true
    }

    /// Something came, or the connection is over.
    pub(super) fn listen_to(&mut self, mark: u64) {
        let Some(guest) = self.by_mark.get_mut(&mark) else { return };
        let continues = match discard(&guest.socket) {
            Some(read) => {
                guest.read += read;
                guest.read <= READ_MAX
            }
            None => false,
        };
        if !continues {
            // Closing takes it out of the epoll set.
            self.by_mark.remove(&mark);
        }
    }

    /// Closes those whose time is over.
    pub(super) fn see_off(&mut self, now: MonoTime) {
        while let Some((at, mark)) = self.deadlines.front().copied()
            && (at <= now || !self.by_mark.contains_key(&mark))
        {
            self.deadlines.pop_front();
            self.by_mark.remove(&mark);
        }
    }
}

/// Reads and throws away what is there, once. `None`: there will be no more.
fn discard(socket: &OwnedFd) -> Option<usize> {
    let mut buffer = [0u8; 4096];
    match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((_, 0)) => None,
        Ok((_, read)) => Some(read),
        Err(Errno::AGAIN | Errno::INTR) => Some(0),
        Err(_) => None,
    }
}
