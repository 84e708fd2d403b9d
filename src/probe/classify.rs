//! Classifies a packet: a probe of some kind, or the reason why it is none.
//!
//! The kernel's rules have filtered before. This module decides independently, because a capture
//! file passes no rules, and because excluding benign packets must not depend on one line of a
//! ruleset. Benign traffic that resembles a scan:
//!
//! | benign | rule |
//! |---|---|
//! | answers to a spoofed flood (backscatter): SYN+ACK, RST, ICMP errors | never a probe |
//! | pings, also of monitoring | reported if a source pings many addresses of this host |
//! | out-of-state segments of a closed connection: ACK, FIN, FIN+ACK | none to an ephemeral port, else ambiguous |
//! | the same from a service's port or to a reserved port: an NFS server that retransmits | a reply, which never blocks |
//! | late or reflected answers: UDP from a service's port | none to an unprivileged port, else a reply |
//! | late answers from higher ports, peer-to-peer traffic: UDP to an ephemeral or reserved port | a reply |
//! | UDP traceroute (mtr(8): ports 33000 and up; traceroute(8): 33434; tracepath(8): 44444) | never a probe |
//! | tunnels, routing protocols, IPsec | never a probe |
//! | discovery (mDNS, SSDP, NetBIOS): multicast and broadcast | never a probe |
//!
//! What looks so is evidence only in large numbers ([`Probe::late`]): closed connections and late
//! answers come to a few ports, or from a service's port.
//!
//! A client that retries one closed port sends probes of one port, and the engine counts distinct
//! ports. A monitor that tries three closed ports exceeds the default trigger of two: it belongs on
//! the allow list.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::{Port, Probe, ScanKind, Signature, Transport};
use crate::wire::{self, icmp, sctp, tcp::Flags};

/// Destination ports of UDP traceroute: mtr(8) counts up from 33000, traceroute(8) from 33434, one
/// for each probe that it sends by default (30 hops of 3), rounded up.
pub(crate) const TRACEROUTE: RangeInclusive<u16> = 33000..=33534;

/// Destination ports of tracepath(8) of iputils: its base port and one for each slot of its history
/// (`HIS_ARRAY_SIZE` in tracepath.c). Without an answer it continues for 30 hops, and a dropped
/// probe has no answer.
pub(crate) const TRACEPATH: RangeInclusive<u16> = 44444..=44507;

/// Types of echo requests (RFC 792; RFC 4443, 4.1).
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_6: u8 = 128;

/// DNS (RFC 1035, 4.2.1).
const DOMAIN: u16 = 53;

/// First port that any user may bind. A datagram from a lower port comes from a service and is most
/// likely an answer.
pub(crate) const FIRST_UNPRIVILEGED: u16 = 1024;

/// Ports that bindresvport(3) and rresvport(3) give to clients: NFS, mount, rsh.
pub(crate) const RESERVED: RangeInclusive<u16> = 512..=1023;

/// Ports from 1024 on whose services close many connections (IANA's registry, and the programs'
/// defaults): SQL Server, Oracle, NFS, proxies, MySQL, RDP, SIP, PostgreSQL, AMQP, VNC, Redis, HTTP,
/// HTTPS, Prometheus and its exporters, Elasticsearch, memcached, MongoDB.
const TCP_SERVICES: [u16; 19] = [
    1433, 1521, 2049, 3128, 3306, 3389, 5060, 5432, 5672, 5900, 6379, 8000, 8080, 8443, 9090, 9100,
    9200, 11211, 27017,
];

/// Ports from 1024 on whose answers are reflected or late: SSDP, NFS, STUN, WS-Discovery, SIP,
/// multicast DNS, CoAP, memcached, Steam.
pub(crate) const UDP_SERVICES: [u16; 9] = [1900, 2049, 3478, 3702, 5060, 5353, 5683, 11211, 27015];

fn is_service(source_port: u16, others: &[u16]) -> bool {
    source_port < FIRST_UNPRIVILEGED || others.contains(&source_port)
}

/// Why a packet is no probe; the names are status counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum NotProbe {
    /// The source address belongs to no single remote host: multicast, broadcast, unspecified,
    /// loopback, reserved, IPv4-mapped, or the destination's own.
    Source,
    /// The destination is multicast or broadcast.
    Destination,
    /// A SYN+ACK or RST: an answer to a packet with this host's address, genuine or spoofed.
    Backscatter,
    /// An out-of-state TCP segment to an ephemeral port.
    LateSegment,
    /// A UDP datagram that looks like a late answer.
    LateAnswer,
    /// UDP traceroute.
    Traceroute,
    /// An ICMP message.
    Icmp,
    /// An SCTP chunk that starts no association.
    SctpChunk,
    /// A protocol of tunnels, routers or IPsec.
    Infrastructure,
    /// A fragment without a transport header.
    Fragment,
}

impl NotProbe {
    /// All reasons, in the order of the enum.
    pub const ALL: [Self; 10] = [
        Self::Source,
        Self::Destination,
        Self::Backscatter,
        Self::LateSegment,
        Self::LateAnswer,
        Self::Traceroute,
        Self::Icmp,
        Self::SctpChunk,
        Self::Infrastructure,
        Self::Fragment,
    ];

    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Backscatter => "backscatter",
            Self::LateSegment => "late-segment",
            Self::LateAnswer => "late-answer",
            Self::Traceroute => "traceroute",
            Self::Icmp => "icmp",
            Self::SctpChunk => "sctp-chunk",
            Self::Infrastructure => "infrastructure",
            Self::Fragment => "fragment",
        }
    }
}

impl fmt::Display for NotProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Probe {
    /// Classifies `packet`. `ephemeral` is the range of ports that this host's own connections use
    /// (`net.ipv4.ip_local_port_range`, which IPv6 shares).
    ///
    /// # Errors
    ///
    /// Why it is no probe.
    pub fn from_packet(
        packet: &wire::Packet<'_>,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<Self, NotProbe> {
        if !is_host(packet.source) || packet.source == packet.destination {
            return Err(NotProbe::Source);
        }
        if !is_unicast(packet.destination) {
            return Err(NotProbe::Destination);
        }
        let (transport, number, scan, ambiguous) = match packet.transport {
            wire::Transport::Tcp(segment) => {
                let (scan, ambiguous) = tcp(segment.flags).ok_or(NotProbe::Backscatter)?;
                if ambiguous && ephemeral.contains(&segment.destination_port) {
                    return Err(NotProbe::LateSegment);
                }
                let is_reply = ambiguous
                    && (is_service(segment.source_port, &TCP_SERVICES)
                        || RESERVED.contains(&segment.destination_port));
                let scan = if is_reply { ScanKind::Reply } else { scan };
                (Transport::Tcp, segment.destination_port, scan, ambiguous)
            }
            wire::Transport::Udp(datagram) => {
                let is_reply = udp(datagram.source_port, datagram.destination_port, ephemeral)?;
                let scan = if is_reply { ScanKind::Reply } else { ScanKind::Udp };
                (Transport::Udp, datagram.destination_port, scan, is_reply)
            }
            wire::Transport::Sctp(message) => {
                let scan = match message.chunk {
                    Some(sctp::INIT) => ScanKind::SctpInit,
                    Some(sctp::COOKIE_ECHO) => ScanKind::SctpCookieEcho,
                    _ => return Err(NotProbe::SctpChunk),
                };
                (Transport::Sctp, message.destination_port, scan, false)
            }
            // Each ping is harmless; the engine counts the addresses that a source pings.
            wire::Transport::Icmp(icmp::Message { kind: ECHO_REQUEST, .. })
            | wire::Transport::Icmp6(icmp::Message { kind: ECHO_REQUEST_6, .. }) => {
                (Transport::Ip, u16::from(packet.protocol), ScanKind::PingSweep, true)
            }
            wire::Transport::Icmp(_) | wire::Transport::Icmp6(_) => return Err(NotProbe::Icmp),
            wire::Transport::Fragment { .. } => return Err(NotProbe::Fragment),
            wire::Transport::Other if is_infrastructure(packet.protocol) => {
                return Err(NotProbe::Infrastructure);
            }
            wire::Transport::Other => {
                (Transport::Ip, u16::from(packet.protocol), ScanKind::IpProtocol, false)
            }
        };
        let port = Port { transport, number };
        Ok(Self {
            source: packet.source,
            destination: packet.destination,
            port,
            scan,
            ambiguous,
            ip_options: packet.ip_options,
            signature: if scan == ScanKind::Syn { signature(packet) } else { Signature::None },
        })
    }
}

/// Hops of a traceroute at most, the default of traceroute(8), mtr(8) and tracepath(8): a probe with
/// more hops left than this is none of theirs.
const TRACE_HOPS: u8 = 30;

/// The header of a DNS message, and the bit in its third byte that answers have (RFC 1035, 4.1.1).
const DNS_HEADER: usize = 12;
const DNS_ANSWER: u8 = 0x80;

impl Probe {
    /// A packet that [`Probe::from_packet`] took for a late one, if it may be a scan's as well:
    /// evidence only together with many others.
    pub fn late(packet: &wire::Packet<'_>, reason: NotProbe) -> Option<Self> {
        let (transport, number, scan) = match (reason, packet.transport) {
            (NotProbe::LateSegment, wire::Transport::Tcp(segment)) => {
                // A server's, to the ports of connections that this host forgot.
                if is_service(segment.source_port, &TCP_SERVICES) {
                    return None;
                }
                (Transport::Tcp, segment.destination_port, tcp(segment.flags)?.0)
            }
            (NotProbe::LateAnswer, wire::Transport::Udp(datagram)) => {
                if !is_request(datagram.source_port, datagram.payload) {
                    return None;
                }
                (Transport::Udp, datagram.destination_port, ScanKind::Udp)
            }
            (NotProbe::Traceroute, wire::Transport::Udp(datagram)) => {
                if packet.hops_left <= TRACE_HOPS {
                    return None;
                }
                (Transport::Udp, datagram.destination_port, ScanKind::Udp)
            }
            _ => return None,
        };
        Some(Self {
            source: packet.source,
            destination: packet.destination,
            port: Port { transport, number },
            scan,
            ambiguous: true,
            ip_options: packet.ip_options,
            signature: Signature::None,
        })
    }
}

/// The window of nmap's and masscan's SYNs (`build_tcp_raw` and `transmit` there); operating systems
/// open with much more.
const RAW_WINDOW: u16 = 1024;

/// What a SYN shows of the program that sent it.
fn signature(packet: &wire::Packet<'_>) -> Signature {
    let wire::Transport::Tcp(wire::tcp::Segment { sequence, window, destination_port, .. }) =
        packet.transport
    else {
        return Signature::None;
    };
    let ip4 = match packet.destination {
        IpAddr::V4(v4) => Some(v4.to_bits()),
        IpAddr::V6(_) => None,
    };
    let id = |ip4: u32| (ip4 ^ u32::from(destination_port) ^ sequence) & 0xffff;
    if ip4 == Some(sequence) {
        Signature::Mirai
    } else if window != RAW_WINDOW {
        Signature::None
    } else if ip4.is_some_and(|ip4| id(ip4) == u32::from(packet.id)) {
        Signature::Masscan
    } else {
        Signature::Sequence(sequence)
    }
}

/// Whether a datagram from this port of a service is no answer: it has no data, or what nmap sends to
/// most ports, a call of ONC RPC (RFC 5531, 9), or, from a name server, a question.
fn is_request(source_port: u16, payload: &[u8]) -> bool {
    const RPC_CALL_VERSION_2: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];
    let is_question = || {
        source_port == DOMAIN
            && payload.len() >= DNS_HEADER
            && payload.get(2).is_some_and(|flags| flags & DNS_ANSWER == 0)
    };
    payload.is_empty() || payload.get(4..12) == Some(&RPC_CALL_VERSION_2) || is_question()
}

/// The scan that sends these flags, and whether closed connections send them too; `None` for
/// answers.
fn tcp(flags: Flags) -> Option<(ScanKind, bool)> {
    // ECN (RFC 3168) sets congestion flags on any segment, so they do not identify a kind; but no
    // host sends a segment with only them.
    let flags = if flags.without(Flags::ECE.with(Flags::CWR)).is_empty() {
        flags
    } else {
        flags.without(Flags::ECE.with(Flags::CWR))
    };
    const FIN: u8 = Flags::FIN.0;
    const SYN: u8 = Flags::SYN.0;
    const PUSH_URGENT: u8 = Flags::PSH.with(Flags::URG).0;
    if flags.contains(Flags::RST) {
        return None;
    }
    // A server's SYN+ACK has no FIN; SYN+FIN+ACK are custom flags (the last arm).
    if flags.contains(Flags::SYN.with(Flags::ACK)) && !flags.contains(Flags::FIN) {
        return None;
    }
    let xmas = FIN | PUSH_URGENT;
    Some(match flags.0 {
        0 => (ScanKind::Null, false),
        SYN => (ScanKind::Syn, false),
        FIN => (ScanKind::Fin, true),
        bits if bits == xmas => (ScanKind::Xmas, false),
        // The last segment of a connection may have PSH; an ACK may have data, with PSH or URG.
        _ if flags.contains(Flags::FIN.with(Flags::ACK)) && !flags.contains(Flags::SYN) => {
            (ScanKind::Maimon, true)
        }
        _ if flags.contains(Flags::ACK) && !flags.contains(Flags::SYN) => (ScanKind::Ack, true),
        _ => (ScanKind::CustomFlags, false),
    })
}

/// Whether a UDP datagram to a closed port looks like a reply.
fn udp(source: u16, destination: u16, ephemeral: &RangeInclusive<u16>) -> Result<bool, NotProbe> {
    if TRACEROUTE.contains(&destination) || TRACEPATH.contains(&destination) {
        return Err(NotProbe::Traceroute);
    }
    // A recursive resolver uses random unprivileged ports, not the ephemeral range (RFC 5452, 9.2),
    // closes each socket after a timeout, and often runs without connection tracking: late answers
    // of one slow server then arrive at any number of ports. So do the answers of servers that
    // others ask in this host's name. `Probe::late` tells a scan from them.
    if is_service(source, &UDP_SERVICES) && destination >= FIRST_UNPRIVILEGED {
        return Err(NotProbe::LateAnswer);
    }
    // SunRPC and similar protocols use source ports below 1024; other clients may bind a fixed port.
    Ok(is_service(source, &UDP_SERVICES)
        || ephemeral.contains(&destination)
        || RESERVED.contains(&destination))
}

/// Protocols of present or former tunnels and routers, which are no evidence of a scan: IGMP, IPIP,
/// 6in4, GRE, ESP, AH, IPv6's "no next header", OSPF, PIM, VRRP.
fn is_infrastructure(protocol: u8) -> bool {
    matches!(protocol, 2 | 4 | 41 | 47 | 50 | 51 | 59 | 89 | 103 | 112)
}

/// Whether a single remote host can have this address.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_unicast(address) && !v4.is_loopback(),
        // IPv4-mapped addresses must not appear on the wire (RFC 4291, 2.5.5.2).
        IpAddr::V6(v6) => is_unicast(address) && !v6.is_loopback() && v6.to_ipv4_mapped().is_none(),
    }
}

/// Whether an address is unicast, loopback included. To Linux, so is the rest of 0.0.0.0/8, "this
/// network" of RFC 791, 3.2, and of 240.0.0.0/4, reserved by RFC 1112, 4 (`__inet_dev_addr_type` in
/// net/ipv4/fib_frontend.c).
fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_multicast() && v6 != Ipv6Addr::UNSPECIFIED,
    }
}

#[cfg(test)]
mod tests;
