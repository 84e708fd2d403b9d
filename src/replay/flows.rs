//! Connections as the kernel's connection tracking follows them: what belongs to one that both sides
//! take part in is no probe.

use std::net::IpAddr;
use std::time::Duration;

use super::recent::Recent;
use crate::engine::MonoTime;
use crate::wire::{Packet, Transport, ip, tcp::Flags};

/// Maximum number of connections that are followed. Beyond it, those that were silent longest are
/// forgotten; their late packets are out-of-state, as after a restart of the kernel's tracking.
pub(super) const FLOWS_MAX: usize = 524_288;

/// The kernel's defaults (net.netfilter.nf_conntrack_*_timeout).
const TCP_ESTABLISHED: Duration = Duration::from_secs(5 * 86_400);
const TCP_OPENING: Duration = Duration::from_secs(120);
const TCP_CLOSED: Duration = Duration::from_secs(120);
const TCP_RESET: Duration = Duration::from_secs(10);
const UDP: Duration = Duration::from_secs(120);
const UDP_UNREPLIED: Duration = Duration::from_secs(30);
const ICMP: Duration = Duration::from_secs(30);
const OTHER: Duration = Duration::from_secs(600);

/// Both ends of a connection, this host's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    local: IpAddr,
    remote: IpAddr,
    protocol: u8,
    local_port: u16,
    remote_port: u16,
}

/// A connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    last: MonoTime,
    /// This host sent the first packet.
    pub(super) is_own: bool,
    /// The other side opened it, with a SYN if it is TCP.
    pub(super) is_opened: bool,
    /// This host takes part, by other than a refusal.
    pub(super) is_accepted: bool,
    /// The other side opened it, this one accepted, and the other one went on.
    pub(super) is_completed: bool,
    /// Both sides have sent something.
    is_both: bool,
    finished: [bool; 2],
    /// One side has reset it.
    pub(super) is_reset: bool,
    /// The sequence number of the other side's last TCP segment.
    pub(super) sequence: u32,
}

impl Flow {
    fn timeout(&self, protocol: u8) -> Duration {
        match protocol {
            ip::TCP if self.is_reset => TCP_RESET,
            ip::TCP if self.finished == [true, true] => TCP_CLOSED,
            ip::TCP if !self.is_both => TCP_OPENING,
            ip::TCP | ip::SCTP => TCP_ESTABLISHED,
            ip::UDP if self.is_both => UDP,
            ip::UDP => UDP_UNREPLIED,
            ip::ICMP | ip::ICMPV6 => ICMP,
            _ => OTHER,
        }
    }
}

/// All connections.
#[derive(Debug)]
pub(super) struct Flows(Recent<Key, Flow>);

impl Default for Flows {
    fn default() -> Self {
        Self(Recent::new(FLOWS_MAX))
    }
}

/// Ports of a packet, source first; 0 where there are none.
fn ports(packet: &Packet<'_>) -> (u16, u16) {
    match packet.transport {
        Transport::Tcp(segment) => (segment.source_port, segment.destination_port),
        Transport::Udp(datagram) => (datagram.source_port, datagram.destination_port),
        Transport::Sctp(message) => (message.source_port, message.destination_port),
        // Both sides may ping each other.
        Transport::Icmp(message) | Transport::Icmp6(message) => match message.kind {
            8 | 128 => (1, 0),
            0 | 129 => (0, 1),
            _ => (0, 0),
        },
        _ => (0, 0),
    }
}

/// Whether connection tracking accepts these flags (`tcp_valid_flags` in
/// net/netfilter/nf_conntrack_proto_tcp.c). A segment with others belongs to no connection.
fn is_tracked(flags: Flags) -> bool {
    const ACK: u8 = Flags::ACK.0;
    const FIN: u8 = Flags::FIN.0;
    const RST: u8 = Flags::RST.0;
    const SYN: u8 = Flags::SYN.0;
    let ignored = Flags::PSH.with(Flags::URG).with(Flags::ECE).with(Flags::CWR);
    let bits = flags.without(ignored).0;
    let may_be_urgent = [SYN, ACK, FIN | ACK].contains(&bits);
    let is_known = [SYN | ACK, RST, RST | ACK].contains(&bits);
    may_be_urgent || is_known && !flags.contains(Flags::URG)
}

impl Flows {
    /// Takes a packet in, and returns its connection as it was before, and as it is now; neither for
    /// flags that no connection has.
    pub(super) fn see(
        &mut self,
        now: MonoTime,
        packet: &Packet<'_>,
        is_outgoing: bool,
    ) -> (Option<Flow>, Flow) {
        let (source_port, destination_port) = ports(packet);
        let Packet { source, destination, protocol, transport, .. } = *packet;
        let key = if is_outgoing {
            let (local_port, remote_port) = (source_port, destination_port);
            Key { local: source, remote: destination, protocol, local_port, remote_port }
        } else {
            let (local_port, remote_port) = (destination_port, source_port);
            Key { local: destination, remote: source, protocol, local_port, remote_port }
        };
        let flags = match transport {
            Transport::Tcp(segment) => Some(segment.flags),
            _ => None,
        };
        if flags.is_some_and(|flags| !is_tracked(flags)) {
            return (None, Flow::default());
        }
        let found = self.0.get(key).map(|flow| *flow);
        let opens =
            flags.is_some_and(|flags| flags.contains(Flags::SYN) && !flags.contains(Flags::ACK));
        let is_over = |flow: &Flow| flow.is_reset || flow.finished == [true, true];
        let before = found.filter(|flow| {
            now.since(flow.last) <= flow.timeout(protocol) && !(opens && is_over(flow))
        });
        let mut flow = before.unwrap_or(Flow { is_own: is_outgoing, ..Flow::default() });
        flow.last = now;
        let is_reset = match (flags, transport) {
            (Some(flags), _) => flags.contains(Flags::RST),
            (None, Transport::Sctp(message)) => message.chunk == Some(SCTP_ABORT),
            _ => false,
        };
        flow.is_reset |= is_reset;
        if let Some(finished) = flow.finished.get_mut(usize::from(is_outgoing)) {
            *finished |= flags.is_some_and(|flags| flags.contains(Flags::FIN));
        }
        if is_outgoing {
            flow.is_both |= !flow.is_own;
            flow.is_accepted |= !is_reset;
        } else {
            flow.is_both |= flow.is_own;
            flow.is_completed |= flow.is_opened && flow.is_accepted && !opens;
            flow.is_opened |= !flow.is_own && (opens || flags.is_none());
            if let Transport::Tcp(segment) = transport {
                flow.sequence = segment.sequence;
            }
        }
        self.0.insert(key, flow);
        (before, flow)
    }
}

/// Chunk type of ABORT (RFC 9260, 3.2).
pub(super) const SCTP_ABORT: u8 = 6;
