//! What a capture as a whole shows of this host, before the first packet is evaluated: which ports
//! are open, which refuse, and when it ends.

use super::flows::{Flows, SCTP_ABORT};
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
    /// TCP ports whose clients went on after their SYN as if it had been answered.
    continued: Ports,
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
        let (before, flow) = self.flows.see(now, packet, is_outgoing);
        match (packet.transport, is_outgoing) {
            (Transport::Tcp(segment), true) => {
                let (port, flags) = (segment.source_port, segment.flags);
                if flags.contains(Flags::RST) {
                    self.refused.add(Protocol::Tcp, port);
                } else if flags.contains(Flags::SYN.with(Flags::ACK)) {
                    self.open.add(Protocol::Tcp, port);
                }
                let header = 20 + segment.options.len();
                let length = ip::Header::parse(bytes).map_or(0, |found| found.payload.len());
                if length > header && !flags.contains(Flags::RST) {
                    self.speaking.add(Protocol::Tcp, port);
                }
            }
            (Transport::Tcp(segment), false) => {
                let flags = segment.flags;
                let opens = flags.contains(Flags::SYN) && !flags.contains(Flags::ACK);
                if before.is_some_and(|before| before.is_opened) && !opens {
                    self.continued.add(Protocol::Tcp, segment.destination_port);
                }
                self.count_sum(bytes);
            }
            (Transport::Udp(datagram), true) if flow.is_opened => {
                self.open.add(Protocol::Udp, datagram.source_port);
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

    /// Whether the kernel discards a packet at its transport header. Wrong checksums say nothing where
    /// most are wrong.
    pub(super) fn is_discarded(&self, bytes: &[u8]) -> bool {
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
