//! Lists listening sockets and established connections of this host. Read-only.
//!
//! Follows sock_diag(7), linux/sock_diag.h and linux/inet_diag.h: dumps of `SOCK_DIAG_BY_FAMILY`.
//! The decoder accepts any bytes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use neli::consts::socket::NlFamily;

use super::dump::{Dumper, Error, Failure};
use super::message::{Attributes, Writer};
use crate::config::PortSet;
use crate::probe::{Port, Transport};

/// `SOCK_DIAG_BY_FAMILY`, the type of requests and answers.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `INET_DIAG_REQ_BYTECODE`: a filter that the kernel runs on each socket.
const INET_DIAG_REQ_BYTECODE: u16 = 1;
/// `INET_DIAG_INFO`: `struct tcp_info`, as a request bit and as an attribute of the answer.
const INET_DIAG_INFO: u16 = 2;
const EXT_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
/// Offset of `tcpi_bytes_acked` in `struct tcp_info` (linux/tcp.h); `tcpi_bytes_received` follows.
const BYTES_ACKED: usize = 120;
/// Operations of that filter.
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `TCP_ESTABLISHED`, `TCP_CLOSE`, `TCP_LISTEN` (net/tcp_states.h), used for all protocols. An
/// unconnected UDP socket is in `TCP_CLOSE`.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// The loopback device has this index in every network namespace (LOOPBACK_IFINDEX in the kernel's
/// net/flow.h).
const LOOPBACK: u32 = 1;

/// Port ranges that the kernel filters; with more, only this module filters.
const FILTER_RANGES_MAX: usize = 64;

/// A socket that accepts packets from any host: a TCP or SCTP listener, or a bound and unconnected
/// UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Transport and port.
    pub port: Port,
    /// Its bound address; unspecified for all addresses.
    pub address: IpAddr,
    /// The index of its bound interface; 0 for all.
    pub interface: u32,
}

impl Listener {
    /// Whether only this host can reach it.
    pub fn is_local(&self) -> bool {
        self.interface == LOOPBACK || self.address.to_canonical().is_loopback()
    }
}

/// All listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// The sockets.
    pub sockets: Vec<Listener>,
    /// Transports that this kernel cannot list (built without their `*_diag`, or without the
    /// transport).
    pub unseen: Vec<Transport>,
}

impl Listeners {
    /// The ports of services that other hosts can reach, for the set `services`.
    ///
    /// Excludes sockets that only this host can reach: their ports are closed to others, so
    /// touching them is a probe.
    pub fn services(&self) -> BTreeSet<Port> {
        self.sockets.iter().filter(|socket| !socket.is_local()).map(|socket| socket.port).collect()
    }
}

/// An established TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The local end; IPv4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// The remote end, likewise.
    pub peer: SocketAddr,
    /// The kernel's identifier of the socket, unique until the next boot.
    pub cookie: u64,
    /// Bytes that the peer has acknowledged and sent, retransmissions not counted.
    pub traffic: Traffic,
}

/// Bytes exchanged on a connection (`tcpi_bytes_acked`, `tcpi_bytes_received`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that the peer has acknowledged.
    pub sent: u64,
    /// Bytes that the peer has sent.
    pub received: u64,
}

/// A socket for listing sockets of the network namespace in which it was opened.
pub struct SockDiag(Dumper);

impl SockDiag {
    /// Opens the socket. No privilege is needed.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Dumper::open(NlFamily::SockOrInetDiag, "sock_diag").map(Self)
    }

    /// All listening sockets: TCP, UDP and SCTP, over IPv4 and IPv6.
    ///
    /// # Errors
    /// [`Error::List`]. A transport that the kernel cannot list is no error; see
    /// [`Listeners::unseen`].
    pub fn listeners(&mut self) -> Result<Listeners, Error> {
        let mut listeners = Listeners::default();
        for (transport, state) in
            [(Transport::Tcp, LISTEN), (Transport::Udp, CLOSE), (Transport::Sctp, LISTEN)]
        {
            let mut found = Vec::new();
            let result = self.list(transport, state, &PortSet::default(), &mut |entry| {
                // Port 0: an unbound UDP socket, or one that is being closed.
                if entry.state == state && entry.local.port() != 0 {
                    let port = Port { transport, number: entry.local.port() };
                    found.push(Listener {
                        port,
                        address: entry.local.ip(),
                        interface: entry.interface,
                    });
                }
            });
            match result {
                Ok(()) => listeners.sockets.append(&mut found),
                Err(error) if error.is_unsupported() => listeners.unseen.push(transport),
                Err(failure) => return Err(cannot_list(transport, failure)),
            }
        }
        listeners.sockets.sort_unstable();
        listeners.sockets.dedup();
        Ok(listeners)
    }

    /// Established TCP connections to local ports in `ports`.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn established(&mut self, ports: &PortSet) -> Result<Vec<Connection>, Error> {
        let mut connections = Vec::new();
        if ports.is_empty() {
            return Ok(connections);
        }
        self.list(Transport::Tcp, ESTABLISHED, ports, &mut |entry| {
            if entry.state == ESTABLISHED && ports.contains(entry.local.port()) {
                let canonical =
                    |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
                connections.push(Connection {
                    local: canonical(entry.local),
                    peer: canonical(entry.peer),
                    cookie: entry.cookie,
                    traffic: entry.traffic,
                });
            }
        })
        .map_err(|failure| cannot_list(Transport::Tcp, failure))?;
        Ok(connections)
    }

    /// Lists a transport's sockets in `state`, of both families; only those with local ports in
    /// `ports`, unless that is empty.
    fn list(
        &mut self,
        transport: Transport,
        state: u8,
        ports: &PortSet,
        on_entry: &mut dyn FnMut(Entry),
    ) -> Result<(), Failure> {
        for family in FAMILIES {
            self.0.run(
                SOCK_DIAG_BY_FAMILY,
                |writer| write_request(writer, family, transport, state, ports),
                &mut |kind, payload| {
                    if kind == SOCK_DIAG_BY_FAMILY
                        && let Some(entry) = decode(payload)
                    {
                        on_entry(entry);
                    }
                },
            )?;
        }
        Ok(())
    }
}

fn cannot_list(transport: Transport, failure: Failure) -> Error {
    Error::List(format!("{transport} sockets"), failure)
}

/// Writes `struct inet_diag_req_v2` and, for `ports`, a filter.
fn write_request(
    writer: &mut Writer,
    family: u8,
    transport: Transport,
    state: u8,
    ports: &PortSet,
) {
    let protocol = match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
        // IPPROTO_RAW: raw sockets.
        Transport::Ip => 255,
    };
    let extensions = if state == ESTABLISHED { EXT_INFO } else { 0 };
    // Family, protocol, extensions, padding; the states as bits; no particular socket (struct
    // inet_diag_sockid, 48 bytes).
    writer.raw(&[family, protocol, extensions, 0]);
    writer.raw(&(1u32 << state).to_ne_bytes());
    writer.raw(&[0; 48]);
    if !ports.is_empty() && ports.ranges().len() <= FILTER_RANGES_MAX {
        writer.attr(INET_DIAG_REQ_BYTECODE, &port_filter(ports));
    }
}

/// The filter "the local port is in one of the ranges", in the kernel's byte code (`struct
/// inet_diag_bc_op`).
///
/// An operation has 4 bytes: code, jump distance if true (u8), jump distance if false (u16); the
/// operand of a comparison is the u16 of the next 4 bytes. A socket passes if the program ends
/// exactly at its end, and fails 4 bytes beyond.
fn port_filter(ports: &PortSet) -> Vec<u8> {
    /// Two comparisons of 8 bytes, and a jump.
    const RANGE_LEN: u16 = 20;
    let ranges = ports.ranges();
    let mut code = Vec::with_capacity(ranges.len() * usize::from(RANGE_LEN));
    let mut operation = |kind: u8, yes: u8, no: u16| {
        code.extend_from_slice(&[kind, yes]);
        code.extend_from_slice(&no.to_ne_bytes());
    };
    for (before, range) in ranges.iter().enumerate() {
        // After this range: the others, then the end.
        let left = RANGE_LEN * u16::try_from(ranges.len() - before - 1).unwrap_or(0);
        // If this range does not match: to the next one; after the last, beyond the end.
        let next = if left == 0 { 4 } else { 0 };
        operation(INET_DIAG_BC_S_GE, 8, RANGE_LEN + next);
        operation(0, 0, *range.start());
        operation(INET_DIAG_BC_S_LE, 8, RANGE_LEN - 8 + next);
        operation(0, 0, *range.end());
        // If this range matches: to the end.
        operation(INET_DIAG_BC_JMP, 4, 4 + left);
    }
    code
}

/// One socket of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its state (net/tcp_states.h).
    pub state: u8,
    /// The local end.
    pub local: SocketAddr,
    /// The remote end; unspecified if there is none.
    pub peer: SocketAddr,
    /// The index of its bound interface; 0 for all.
    pub interface: u32,
    /// Its cookie.
    pub cookie: u64,
    /// Bytes exchanged; zero unless asked for.
    pub traffic: Traffic,
}

/// Decodes `struct inet_diag_msg` and its attributes; `None` if it is too short or of another family.
pub fn decode(payload: &[u8]) -> Option<Entry> {
    let ([family, state, _timer, _retransmits], rest) = payload.split_first_chunk::<4>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, rest) = rest.split_first_chunk::<2>()?;
    let (source, rest) = rest.split_first_chunk::<16>()?;
    let (destination, rest) = rest.split_first_chunk::<16>()?;
    let (interface, rest) = rest.split_first_chunk::<4>()?;
    // Two u32 in host order, the lower half first for any byte order (sock_diag.c,
    // sock_diag_save_cookie).
    let (low, rest) = rest.split_first_chunk::<4>()?;
    let (high, rest) = rest.split_first_chunk::<4>()?;
    // Expiry, queues, owner, inode: not used, but a message without them is malformed.
    let (_, rest) = rest.split_first_chunk::<20>()?;
    let info = Attributes(rest).value(INET_DIAG_INFO);
    let address = |bytes: &[u8; 16]| match *family {
        AF_INET => bytes.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes))),
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes))),
        _ => None,
    };
    Some(Entry {
        state: *state,
        local: SocketAddr::new(address(source)?, u16::from_be_bytes(*source_port)),
        peer: SocketAddr::new(address(destination)?, u16::from_be_bytes(*destination_port)),
        interface: u32::from_ne_bytes(*interface),
        cookie: u64::from(u32::from_ne_bytes(*high)) << 32 | u64::from(u32::from_ne_bytes(*low)),
        traffic: traffic(info).unwrap_or_default(),
    })
}

fn traffic(info: &[u8]) -> Option<Traffic> {
    let (sent, rest) = info.get(BYTES_ACKED..)?.split_first_chunk::<8>()?;
    let received = rest.first_chunk::<8>()?;
    Some(Traffic { sent: u64::from_ne_bytes(*sent), received: u64::from_ne_bytes(*received) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct inet_diag_msg` as the kernel writes it.
    fn message(family: u8, local: &[u8], port: u16) -> Vec<u8> {
        let mut bytes = vec![family, LISTEN, 0, 0];
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes.extend_from_slice(&50_000u16.to_be_bytes());
        for address in [local, &[]] {
            bytes.extend_from_slice(address);
            bytes.resize(bytes.len() + 16 - address.len(), 0);
        }
        bytes.extend_from_slice(&7u32.to_ne_bytes());
        bytes.extend_from_slice(&1u32.to_ne_bytes());
        bytes.extend_from_slice(&2u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 20]);
        bytes
    }

    /// Runs a filter as the kernel does (inet_diag.c, `inet_diag_bc_run`).
    fn passes(code: &[u8], port: u16) -> bool {
        let mut left = isize::try_from(code.len()).unwrap();
        while left > 0 {
            let at = code.len() - usize::try_from(left).unwrap();
            let word = |at: usize| u16::from_ne_bytes([code[at + 2], code[at + 3]]);
            let holds = match code[at] {
                INET_DIAG_BC_JMP => false,
                INET_DIAG_BC_S_GE => port >= word(at + 4),
                INET_DIAG_BC_S_LE => port <= word(at + 4),
                other => panic!("operation {other}"),
            };
            left -=
                if holds { isize::from(code[at + 1]) } else { isize::try_from(word(at)).unwrap() };
        }
        left == 0
    }

    #[test]
    fn both_families_are_decoded() {
        let entry = decode(&message(AF_INET, &[192, 0, 2, 1], 22)).unwrap();
        assert_eq!(
            (entry.local, entry.interface, entry.cookie),
            ("192.0.2.1:22".parse().unwrap(), 7, 2 << 32 | 1)
        );
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            decode(&message(AF_INET6, &address.octets(), 22)).unwrap().local,
            "[2001:db8::1]:22".parse().unwrap()
        );
        assert_eq!(decode(&message(1, &[], 22)), None);
        assert_eq!(decode(&message(AF_INET, &[192, 0, 2, 1], 22)[..71]), None);
    }

    #[test]
    fn local_sockets_are_no_services() {
        let listener = |address: &str, interface, number| Listener {
            port: Port { transport: Transport::Tcp, number },
            address: address.parse().unwrap(),
            interface,
        };
        let sockets = vec![
            listener("0.0.0.0", 0, 80),
            listener("127.0.0.1", 0, 5432),
            listener("::1", 0, 5433),
            listener("::ffff:127.0.0.1", 0, 5434),
            listener("0.0.0.0", LOOPBACK, 5435),
            listener("2001:db8::1", 0, 443),
            listener("192.0.2.1", 0, 443),
        ];
        let services = Listeners { sockets, unseen: Vec::new() }.services();
        assert_eq!(
            services.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["tcp/80", "tcp/443"]
        );
    }

    proptest! {
        // P8
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn filter_passes_exactly_the_ports(ranges in proptest::collection::vec((any::<u16>(), 0u16..9), 1..FILTER_RANGES_MAX), probe: u16, near: prop::sample::Index) {
            let ports: PortSet = ranges.iter().map(|&(start, length)| start..=start.saturating_add(length)).collect();
            let code = port_filter(&ports);
            let (start, length) = ranges[near.index(ranges.len())];
            for port in [probe, start, start.wrapping_sub(1), start.saturating_add(length), start.saturating_add(length).wrapping_add(1)] {
                prop_assert_eq!(passes(&code, port), ports.contains(port), "port {}", port);
            }
        }
    }
}
