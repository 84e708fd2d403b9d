//! Connect mode: decoys that accept connections and answer datagrams on every listed port, with one
//! listening socket per transport and IP version.
//!
//! The rules (`tproxy`) redirect packets to listeners on loopback, whose connections keep the
//! original address and port, so that thousands of ports need one socket. This module owns those
//! sockets, the connections being closed, and the handshakes that may still complete
//! ([`half_open`]). The engine decides, through [`Evaluate`]: a block is in force before the banner
//! is written.
//!
//! All that remote hosts can cause is bounded and counted ([`Figures`]): [`tcp::CONNECTIONS_MAX`]
//! connections of [`tcp::LINGER`] each, [`half_open::WAITING_MAX`] handshakes,
//! [`udp::ANSWERS_PER_SECOND`] datagrams, [`tcp::MAX_ACCEPTS_PER_WAKE`] connections before the
//! packet thread serves its other descriptors; together less than [`MEMORY_MAX`] bytes.
//!
//! Nothing here waits. Follows the kernel's Documentation/networking/tproxy.rst and ip(7).

pub(crate) mod half_open;
pub mod tcp;
pub(crate) mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::config::{Config, PortSet};
use crate::probe::{FIRST_UNPRIVILEGED, Probe, ScanKind, Signature, Transport};
use crate::sys::privilege;
use crate::time::MonoTime;
use half_open::{HalfOpen, Key};

/// Maximum bytes of 4,096 handshakes and 512 connections, with their indices and descriptors; a
/// test checks it.
pub const MEMORY_MAX: usize = 2 << 20;

/// Descriptors served before the packet thread serves its others.
const MAX_EVENTS_PER_WAKE: usize = 64;

/// Incomplete handshakes evaluated per wake-up, as many as the packet thread's packets
/// ([`crate::capture::PACKETS_PER_WAKE`]).
const MAX_DUE_PER_WAKE: usize = 512;

/// Evaluates what the decoys observed. When a call returns, its orders are executed and blocks
/// committed.
pub trait Evaluate {
    /// A handshake was completed. Returns whether its source has passed the trigger, blocked or
    /// not.
    fn handshake(&mut self, probe: &Probe) -> bool;
    /// A handshake was not completed.
    fn half_open(&mut self, probe: &Probe);
    /// Whether the sender of a datagram has passed the trigger. The rules have logged the datagram
    /// itself.
    fn has_passed(&mut self, source: IpAddr) -> bool;
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Accepted connections.
    pub connections: u64,
    /// Connections closed at once, because there were too many or descriptors had run out.
    pub refused: u64,
    /// Handshakes that were not completed and evaluated as probes.
    pub half_open: u64,
    /// Banners sent over TCP and UDP.
    pub banners: u64,
    /// Datagrams without a banner because of the limit per second.
    pub unanswered: u64,
    /// Open connections now.
    pub held: usize,
    /// Waiting handshakes now.
    pub waiting: usize,
}

/// Why the decoys could not be opened.
#[derive(Debug)]
pub enum Error {
    /// A socket could not be opened.
    Listen {
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// The error.
        source: io::Error,
    },
    /// The epoll descriptor failed.
    Epoll(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { transport, address, source } => {
                write!(f, "cannot listen for decoys at {transport} {address}")?;
                match source.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        ": capture.decoy_port {} is in use; write a free port there, or end the program that has it (ss -lnp)",
                        address.port()
                    ),
                    io::ErrorKind::PermissionDenied => f.write_str(
                        " (capture.decoy_port): CAP_NET_ADMIN is needed, and CAP_NET_BIND_SERVICE for a port below 1024",
                    ),
                    _ => f.write_str(" (capture.decoy_port)"),
                }
            }
            Self::Epoll(_) => f.write_str("cannot wait for the decoys' connections"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => None,
            Self::Listen { source, .. } | Self::Epoll(source) => Some(source),
        }
    }
}

/// Transport and address of each listening socket; the position is its key in the epoll set.
/// Connections have larger ones.
const LISTENERS: [(Transport, IpAddr); 4] = [
    (Transport::Tcp, IpAddr::V4(Ipv4Addr::LOCALHOST)),
    (Transport::Tcp, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    (Transport::Udp, IpAddr::V4(Ipv4Addr::LOCALHOST)),
    (Transport::Udp, IpAddr::V6(Ipv6Addr::LOCALHOST)),
];

/// The listening sockets of a configuration. They share sockets with the previous configuration, so
/// that both can be open while the rules change from one to the other.
#[derive(Debug, Default)]
pub struct Listeners {
    port: u16,
    /// As in [`LISTENERS`]. `None`: the transport has no decoys, or this host no IPv6.
    sockets: [Option<Arc<OwnedFd>>; LISTENERS.len()],
}

impl Listeners {
    fn open(config: &Config, old: &Self) -> Result<Self, Error> {
        let port = config.capture.decoy_port;
        let mut sockets = [const { None }; LISTENERS.len()];
        for ((transport, ip), (socket, had)) in
            LISTENERS.into_iter().zip(sockets.iter_mut().zip(&old.sockets))
        {
            let ports = if transport == Transport::Tcp { &config.tcp } else { &config.udp };
            if config.has_decoys(ports) {
                *socket = if old.port == port && old.has(transport) {
                    had.clone()
                } else {
                    listen(transport, SocketAddr::new(ip, port))?
                };
            }
        }
        Ok(Self { port, sockets })
    }

    /// Whether this transport has decoys.
    fn has(&self, transport: Transport) -> bool {
        let mut sockets = LISTENERS.iter().zip(&self.sockets);
        sockets.any(|((of, _), socket)| *of == transport && socket.is_some())
    }

    /// Whether decoys are configured and this host has no IPv6 for them.
    fn lack_ipv6(&self) -> bool {
        let [tcp4, tcp6, udp4, udp6] = self.sockets.each_ref().map(Option::is_some);
        (tcp4 && !tcp6) || (udp4 && !udp6)
    }

    /// The key and socket of each that `other` does not share.
    fn not_shared_with(&self, other: &Self) -> impl Iterator<Item = (u64, &Arc<OwnedFd>)> {
        let shared = other.sockets.each_ref().map(|socket| socket.as_ref().map(Arc::as_ptr));
        (0..).zip(self.sockets.iter().zip(shared)).filter_map(|(key, (socket, shared))| {
            let socket = socket.as_ref()?;
            (shared != Some(Arc::as_ptr(socket))).then_some((key, socket))
        })
    }
}

/// Opens a socket; `None` if its address is of IPv6, which this host does not have.
fn listen(transport: Transport, address: SocketAddr) -> Result<Option<Arc<OwnedFd>>, Error> {
    let opened = if transport == Transport::Tcp {
        tcp::listen(address)
    } else {
        crate::sys::transparent::datagrams(address)
    };
    // ipv6.disable=1, or a kernel without it; net.ipv6.conf.lo.disable_ipv6 removes ::1.
    let no_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(|errno| Some(errno.raw_os_error()));
    match opened {
        Ok(socket) => Ok(Some(Arc::new(socket))),
        Err(error) if address.is_ipv6() && no_ipv6.contains(&error.raw_os_error()) => Ok(None),
        Err(source) => Err(Error::Listen { transport, address, source }),
    }
}

/// The decoys of this host; none if no transport is in connect mode.
pub struct Decoy {
    epoll: OwnedFd,
    listeners: Listeners,
    guests: tcp::LingeringConnections,
    answers: udp::Answers,
    half_open: HalfOpen,
    tcp_ports: PortSet,
    udp_ports: PortSet,
    banner: Vec<u8>,
    /// Listeners are not polled until then, because descriptors or memory had run out.
    paused: Option<MonoTime>,
    figures: Figures,
}

impl Decoy {
    /// Opens the sockets of a configuration in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(config: &Config) -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::Epoll(errno.into()))?;
        let mut decoy = Self {
            epoll,
            listeners: Listeners::default(),
            guests: tcp::LingeringConnections::default(),
            answers: udp::Answers::default(),
            half_open: HalfOpen::default(),
            tcp_ports: PortSet::default(),
            udp_ports: PortSet::default(),
            banner: Vec::new(),
            paused: None,
            figures: Figures::default(),
        };
        let listeners = decoy.prepare(config)?;
        decoy.adopt(listeners, config)?;
        Ok(decoy)
    }

    /// Opens the missing sockets of another configuration. The old ones stay in use until
    /// [`Decoy::adopt`], so rules may redirect to either.
    ///
    /// # Errors
    /// [`Error`]; the new sockets are closed.
    pub fn prepare(&self, config: &Config) -> Result<Listeners, Error> {
        Listeners::open(config, &self.listeners)
    }

    /// Switches to these sockets and closes those not needed any more. Call it when the rules
    /// redirect to the new ones.
    ///
    /// # Errors
    /// [`Error::Epoll`]; the old sockets stay, and the new ones are closed.
    pub fn adopt(&mut self, listeners: Listeners, config: &Config) -> Result<(), Error> {
        for (key, socket) in listeners.not_shared_with(&self.listeners) {
            let data = epoll::EventData::new_u64(key);
            epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)
                .map_err(|errno| Error::Epoll(errno.into()))?;
        }
        for (_, socket) in self.listeners.not_shared_with(&listeners) {
            // It is closed with the old listeners in any case.
            let _ = epoll::delete(&self.epoll, socket);
        }
        self.listeners = listeners;
        let watched = |transport, ports: PortSet| {
            if self.listeners.has(transport) { ports } else { PortSet::default() }
        };
        self.tcp_ports = watched(Transport::Tcp, config.tcp.watched());
        self.udp_ports = watched(Transport::Udp, config.udp.watched());
        self.banner = config.respond.banner.clone().into_bytes();
        Ok(())
    }

    /// Readable when [`Decoy::serve`] must be called.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// When [`Decoy::serve`] must be called for a timer.
    pub fn next_timer(&self) -> Option<MonoTime> {
        [self.half_open.next_due(), self.guests.next_deadline(), self.paused]
            .into_iter()
            .flatten()
            .min()
    }

    /// Limitations of the decoys on this host, as messages for the administrator.
    pub fn lacks(&self) -> Vec<&'static str> {
        let speaks_from_low_ports = !self.banner.is_empty()
            && self
                .udp_ports
                .ranges()
                .first()
                .is_some_and(|range| *range.start() < FIRST_UNPRIVILEGED);
        [
            (self.listeners.lack_ipv6(), "this host has no IPv6: decoys answer by IPv4 only"),
            (
                speaks_from_low_ports && !privilege::has_net_bind_service(),
                "CAP_NET_BIND_SERVICE is missing: no banner is sent by UDP from ports below 1024; give the service that capability",
            ),
        ]
        .into_iter()
        .filter_map(|(lacks, words)| lacks.then_some(words))
        .collect()
    }

    /// The counters.
    pub fn figures(&self) -> Figures {
        Figures { held: self.guests.count(), waiting: self.half_open.waiting(), ..self.figures }
    }

    /// Passes a probe that the decoys' rules logged. The start of a handshake waits for its
    /// completion. Returns a probe to evaluate now, if any.
    pub fn wait_for_handshake(
        &mut self,
        now: MonoTime,
        source_port: u16,
        probe: Probe,
    ) -> Option<Probe> {
        let is_handshake = matches!(probe.scan, ScanKind::Syn | ScanKind::Ack)
            && probe.port.transport == Transport::Tcp;
        if !self.listeners.has(Transport::Tcp)
            || !is_handshake
            || !self.tcp_ports.contains(probe.port.number)
        {
            return Some(probe);
        }
        let key = Key {
            peer: SocketAddr::new(probe.source, source_port),
            local: SocketAddr::new(probe.destination, probe.port.number),
        };
        let early = self.half_open.wait_for_handshake(now, key, probe);
        self.figures.half_open += u64::from(early.is_some());
        early
    }

    /// The rules hold a source from a SYN on that they logged before: it need not wait as long as
    /// others for its handshakes.
    pub fn hold(&mut self, now: MonoTime, source: IpAddr) {
        self.half_open.hold(now, source);
    }

    /// Serves connections, datagrams and timers, within bounds and without waiting.
    /// [`Decoy::as_fd`] and [`Decoy::next_timer`] show what is left.
    pub fn serve(&mut self, now: MonoTime, engine: &mut impl Evaluate) {
        self.unpause(now);
        for mark in self.ready() {
            let at = usize::try_from(mark).unwrap_or(usize::MAX);
            match (LISTENERS.get(at), self.listeners.sockets.get(at).cloned().flatten()) {
                (Some((Transport::Tcp, _)), Some(socket)) => {
                    self.take_connections(now, &socket, engine)
                }
                (Some(_), Some(socket)) => self.take_datagrams(now, &socket, engine),
                (Some(_), None) => {}
                (None, _) => self.guests.on_readable(mark),
            }
        }
        self.guests.close_expired(now);
        for _ in 0..MAX_DUE_PER_WAKE {
            let Some(probe) = self.half_open.take_due(now) else { break };
            self.figures.half_open += 1;
            engine.half_open(&probe);
        }
        if !self.listeners.has(Transport::Tcp) {
            // No listener accepts handshakes any more.
            while let Some(probe) = self.half_open.take_first() {
                self.figures.half_open += 1;
                engine.half_open(&probe);
            }
        }
    }

    fn ready(&self) -> Vec<u64> {
        let mut events = Vec::with_capacity(MAX_EVENTS_PER_WAKE);
        // At worst an interruption; the next call finds the same.
        let _ = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
        );
        events.iter().map(|event: &epoll::Event| event.data.u64()).collect()
    }

    fn take_connections(&mut self, now: MonoTime, listener: &OwnedFd, engine: &mut impl Evaluate) {
        for _ in 0..tcp::MAX_ACCEPTS_PER_WAKE {
            match tcp::accept(listener) {
                Ok(Some(connection)) => self.take_connection(now, connection, engine),
                Ok(None) => return,
                // The connection ended before accept(2): try the next one.
                Err(tcp::NotAccepted::Gone) => {}
                Err(tcp::NotAccepted::Exhausted) => {
                    self.figures.refused += 1;
                    return self.pause(now);
                }
            }
        }
    }

    fn take_connection(
        &mut self,
        now: MonoTime,
        connection: tcp::Connection,
        engine: &mut impl Evaluate,
    ) {
        let tcp::Connection { socket, peer, local } = connection;
        // A local process connected to the listener itself, or the rules were different when the
        // connection arrived.
        if local.ip().is_loopback() || !self.tcp_ports.contains(local.port()) {
            self.figures.refused += 1;
            return;
        }
        self.figures.connections += 1;
        self.half_open.complete(&Key { peer: plain(peer), local: plain(local) });
        let port = crate::probe::Port { transport: Transport::Tcp, number: local.port() };
        let probe = Probe {
            source: peer.ip(),
            destination: local.ip(),
            port,
            scan: ScanKind::Connect,
            ambiguous: false,
            ip_options: false,
            signature: Signature::None,
        };
        let has_passed = engine.handshake(&probe);
        if has_passed && !self.banner.is_empty() && tcp::send_banner(&socket, &self.banner) {
            self.figures.banners += 1;
        }
        if !self.guests.linger(now, &self.epoll, socket) {
            self.figures.refused += 1;
        }
    }

    fn take_datagrams(&mut self, now: MonoTime, socket: &OwnedFd, engine: &mut impl Evaluate) {
        for _ in 0..udp::MAX_DATAGRAMS_PER_WAKE {
            let (peer, local) = match crate::sys::transparent::receive(socket.as_fd()) {
                Ok(Some(addresses)) => addresses,
                Ok(None) => return,
                // The error of an earlier answer, or a datagram without addresses: nothing to
                // answer.
                Err(_) => continue,
            };
            if self.banner.is_empty()
                || !udp::may_be_answered(peer, local, &self.udp_ports)
                || !engine.has_passed(peer.ip())
            {
                continue;
            }
            if !self.answers.take(now) {
                self.figures.unanswered += 1;
            } else if udp::answer(local, peer, &self.banner) {
                self.figures.banners += 1;
            }
        }
    }

    /// Stops polling the TCP listeners for [`tcp::ACCEPT_PAUSE`]: they would be readable all the
    /// time without a descriptor to accept with.
    fn pause(&mut self, now: MonoTime) {
        self.paused = Some(now.after(tcp::ACCEPT_PAUSE));
        self.watch_listeners(epoll::EventFlags::empty());
    }

    fn unpause(&mut self, now: MonoTime) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
            self.watch_listeners(epoll::EventFlags::IN);
        }
    }

    fn watch_listeners(&self, flags: epoll::EventFlags) {
        let listeners = LISTENERS.iter().zip(&self.listeners.sockets);
        for (key, ((transport, _), socket)) in (0..).zip(listeners) {
            if *transport == Transport::Tcp
                && let Some(socket) = socket
            {
                let _ = epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(key), flags);
            }
        }
    }
}

/// The address without scope and flow label, which packets do not show.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
