//! What a capture as a whole shows of this host, before the first packet is evaluated: which ports
//! are open, which refuse, and when it ends.

use std::collections::HashMap;
use std::net::IpAddr;

use super::flows::{Flow, Flows, SCTP_ABORT};
use crate::engine::MonoTime;
use crate::probe::{Port, Transport as Protocol};
use crate::wire::{self, Packet, Transport, checksum, ip, tcp::Flags};

/// A set of ports of TCP, UDP and SCTP, in a bit each.
#[derive(Debug, Clone)]
pub(super) struct Ports([Vec<u64>; 3]);

impl Default for Ports {
    fn default() -> Self {
        Self(std::array::from_fn(|_| vec![0; 1024]))
    }
}

impl Ports {
    fn add(&mut self, transport: Protocol, number: u16) {
        let words = self.0.get_mut(transport as usize);
        if let Some(word) = words.and_then(|words| words.get_mut(usize::from(number >> 6))) {
            *word |= 1 << (number & 63);
        }
    }

    pub(super) fn contains(&self, port: Port) -> bool {
        let words = self.0.get(port.transport as usize);
        let word = words.and_then(|words| words.get(usize::from(port.number >> 6)));
        word.is_some_and(|word| word >> (port.number & 63) & 1 == 1)
    }
}

/// What was learned.
#[derive(Debug, Default)]
pub(super) struct Learned {
    flows: Flows,
    /// Ports that have answered, other than by a refusal.
    open: Ports,
    /// TCP ports whose clients went on as if they had been answered: after their SYN, or with data.
    continued: Ports,
    /// The address that each UDP port of this host sent to first; `None` once there are several.
    asked: HashMap<u16, Option<IpAddr>>,
    /// Ports that have refused: RST, ABORT, port unreachable.
    refused: Ports,
    /// TCP ports that this host has sent data from.
    speaking: Ports,
    /// The capture has packets that this host sent.
    pub(super) has_answers: bool,
    /// The time of the last packet.
    pub(super) end: MonoTime,
    right_sums: u64,
    wrong_sums: u64,
    /// The same of IPv4 headers.
    right_headers: u64,
    wrong_headers: u64,
}

/// Bytes by which the sequence number of a connection moves at most from one captured segment to the
/// next. Of segments that belong to none it is random.
const STRIDE_MAX: u32 = 1 << 20;

/// Whether a TCP segment has data, be it that the capture cut it off.
fn has_data(bytes: &[u8]) -> bool {
    let Ok(found) = ip::Header::parse(bytes) else { return false };
    let field = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk);
    let number = |at| field(at).map_or(0, |two| usize::from(u16::from_be_bytes(*two)));
    let length = if found.source.is_ipv4() { number(2) } else { 40 + number(4) };
    let cut_off = length.saturating_sub(bytes.len());
    let header = found.payload.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    found.payload.len() + cut_off > header
}

impl Learned {
    /// A packet of this host, or to it. `bytes` begin with its IP header.
    pub(super) fn see(
        &mut self,
        now: MonoTime,
        packet: &Packet<'_>,
        bytes: &[u8],
        is_outgoing: bool,
    ) {
        self.end = now;
        self.has_answers |= is_outgoing;
        if !is_outgoing {
            match checksum::is_header_right(bytes) {
                true => self.right_headers += 1,
                false => self.wrong_headers += 1,
            }
        }
        let (before, flow) = self.flows.see(now, packet, is_outgoing);
        match (packet.transport, is_outgoing) {
            (Transport::Tcp(segment), true) => {
                let (port, flags) = (segment.source_port, segment.flags);
                if flags.contains(Flags::RST) {
                    self.refused.add(Protocol::Tcp, port);
                } else if flags.contains(Flags::SYN.with(Flags::ACK)) {
                    self.open.add(Protocol::Tcp, port);
                }
                if !flags.contains(Flags::RST) && has_data(bytes) {
                    self.speaking.add(Protocol::Tcp, port);
                }
            }
            (Transport::Tcp(segment), false) => {
                self.go_on(before, segment, bytes);
                self.count_sum(bytes);
            }
            (Transport::Udp(datagram), true) => {
                self.ask(datagram.source_port, packet.destination, flow.is_opened);
            }
            (Transport::Udp(_), false) => self.count_sum(bytes),
            (Transport::Sctp(message), true) => {
                let is_abort = message.chunk == Some(SCTP_ABORT);
                if is_abort {
                    self.refused.add(Protocol::Sctp, message.source_port);
                } else if !flow.is_own {
                    self.open.add(Protocol::Sctp, message.source_port);
                }
            }
            (Transport::Icmp(message), true) => self.refusal(message.quoted_v4()),
            (Transport::Icmp6(message), true) => self.refusal(message.quoted_v6()),
            _ => {}
        }
    }

    /// A segment that is no answer of this host, in a connection as it was before.
    fn go_on(&mut self, before: Option<Flow>, segment: wire::tcp::Segment<'_>, bytes: &[u8]) {
        let opens = segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK);
        if opens || segment.flags.contains(Flags::RST) {
            return;
        }
        let port = segment.destination_port;
        let is_speech = segment.flags.contains(Flags::ACK) && has_data(bytes);
        if is_speech || before.is_some_and(|before| before.is_opened) {
            self.continued.add(Protocol::Tcp, port);
        }
        // Data after data that was received: the answers take another way than the capture's.
        let goes_on = before.filter(|before| !before.is_own && !before.is_reset);
        let stride = goes_on.map(|before| segment.sequence.wrapping_sub(before.sequence));
        if is_speech && stride.is_some_and(|stride| (1..=STRIDE_MAX).contains(&stride)) {
            self.open.add(Protocol::Tcp, port);
        }
    }

    /// A datagram of this host to an address. A port that answers is open, and one that asks a group or
    /// several hosts: its socket takes datagrams from all.
    fn ask(&mut self, port: u16, address: IpAddr, is_answer: bool) {
        let is_group = match address {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_multicast(),
        };
        let first = self.asked.entry(port).or_insert(Some(address));
        if is_answer || is_group || *first != Some(address) {
            *first = None;
            self.open.add(Protocol::Udp, port);
        }
    }

    fn refusal(&mut self, quoted: Option<wire::icmp::Quoted>) {
        let Some((quoted, (_, port))) = quoted.and_then(|quoted| Some((quoted, quoted.ports?)))
        else {
            return;
        };
        match quoted.protocol {
            ip::TCP => self.refused.add(Protocol::Tcp, port),
            ip::UDP => self.refused.add(Protocol::Udp, port),
            ip::SCTP => self.refused.add(Protocol::Sctp, port),
            _ => {}
        }
    }

    fn count_sum(&mut self, bytes: &[u8]) {
        let Ok(header) = ip::Header::parse(bytes) else { return };
        // A datagram may have none.
        let has_none = header.protocol == ip::UDP && header.payload.get(6..8) == Some(&[0, 0]);
        if header.whole && !has_none {
            match checksum::verify(bytes) {
                Err(wire::Error::Checksum(_)) => self.wrong_sums += 1,
                _ => self.right_sums += 1,
            }
        }
    }

    /// Whether a service listens on a port. If the capture has nothing that this host sent, its
    /// clients tell.
    pub(super) fn is_open(&self, port: Port) -> bool {
        self.open.contains(port) || !self.has_answers && self.continued.contains(port)
    }

    pub(super) fn has_refused(&self, port: Port) -> bool {
        self.refused.contains(port)
    }

    /// Whether a port has sent data, which a decoy does not.
    pub(super) fn speaks(&self, port: Port) -> bool {
        self.speaking.contains(port)
    }

    /// Whether the kernel discards a packet at its IP header or its transport header. Wrong checksums say nothing where
    /// most are wrong.
    pub(super) fn is_discarded(&self, bytes: &[u8]) -> bool {
        let are_headers_right = self.right_headers >= self.wrong_headers;
        if are_headers_right && !checksum::is_header_right(bytes) {
            return true;
        }
        match checksum::verify(bytes) {
            Ok(()) => false,
            Err(wire::Error::Checksum(_)) => self.has_checksums(),
            Err(_) => true,
        }
    }

    /// Whether most checksums are right: those of anonymised captures often are not.
    pub(super) fn has_checksums(&self) -> bool {
        self.right_sums >= self.wrong_sums
    }

    /// Forgets connections, which are followed again when packets are evaluated.
    pub(super) fn forget_flows(&mut self) {
        self.flows = Flows::default();
    }
}
