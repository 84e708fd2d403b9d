//! The listener of an NFLOG group: binds it, hands out its packets, counts losses.
//!
//! Follows linux/netfilter/nfnetlink_log.h and the kernel's nfnetlink_log.c. The decoder accepts
//! any bytes: they give packets or are counted as malformed. Nothing here waits, and no packet
//! causes an allocation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::channel::{Channel, Event};
use super::{Error, Packet, Received, Resource, Statistics};
use crate::netlink::message::{Message, Messages, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Writer};
use crate::netlink::socket::Socket;
use crate::sys;

/// `NFNL_SUBSYS_ULOG << 8` (linux/netfilter/nfnetlink.h), the base of the message types.
const SUBSYSTEM: u16 = 4 << 8;
/// `NFULNL_MSG_PACKET`: a logged packet.
const MSG_PACKET: u16 = SUBSYSTEM;
/// `NFULNL_MSG_CONFIG`: configures a group.
const MSG_CONFIG: u16 = SUBSYSTEM | 1;
/// A message type that does not exist; see [`super::channel`] for its use.
const MSG_NONE: u16 = SUBSYSTEM | 0xff;

const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_NLBUFSIZ: u16 = 3;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULA_CFG_FLAGS: u16 = 6;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_CFG_CMD_UNBIND: u8 = 2;
const NFULNL_COPY_PACKET: u8 = 2;
/// Number the packets of this group.
const NFULNL_CFG_F_SEQ: u16 = 1;

const NFULA_PACKET_HDR: u16 = 1;
const NFULA_IFINDEX_INDEV: u16 = 4;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_SEQ: u16 = 12;

/// Upper bound of a message's bytes besides the payload: headers, prefix (at most 128), mark,
/// addresses, times.
const MESSAGE_OVERHEAD: usize = 320;
/// Largest datagram to ask the kernel for: larger allocations often fail in its packet path.
const NLBUFSIZ_MAX: usize = 32 * 1024;

/// Settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The group (`capture.group`).
    pub group: u16,
    /// Bytes copied of each packet, from its IP header on. A rule's `snaplen` can only lower it.
    pub copy_range: u16,
    /// Packets that the kernel collects per datagram, limited by the rule's `queue-threshold`.
    pub queue_threshold: u32,
    /// Longest time that the kernel collects; it counts in hundredths of a second.
    pub flush_after: Duration,
    /// Receive buffer to request, bytes.
    pub receive_buffer: usize,
}

impl Settings {
    /// The daemon's settings for `group`.
    pub fn of_group(group: u16) -> Self {
        Self {
            group,
            // The longest IPv4 and TCP headers are 120 bytes; IPv6 with extension headers of 156
            // bytes still shows a whole TCP header.
            copy_range: 256,
            // One packet reaches the daemon after 10 us. With 64 and a timer it takes 8 ms, in
            // which a scan can finish. `super::batching` raises it under load.
            queue_threshold: 1,
            // The kernel's shortest timer; it matters only with a higher threshold.
            flush_after: Duration::from_millis(10),
            // Holds 20,000 single packets, or 64,000 in datagrams of 64. At 550,000 packets a
            // second the kernel's default of 208 KiB lost 1 %, this buffer none.
            receive_buffer: 8 * 1024 * 1024,
        }
    }
}

/// A bound NFLOG group. The kernel unbinds it when this is dropped.
pub struct Listener {
    channel: Channel,
    settings: Settings,
    counters: Counters,
}

impl Listener {
    /// Binds the group in the network namespace of this thread.
    ///
    /// # Errors
    /// See [`Error`]; it distinguishes another bound program from a missing capability.
    pub fn bind(settings: Settings) -> Result<Self, Error> {
        let mut channel = Channel::open(settings.receive_buffer)?;
        // The sequence numbers show losses. With ENOBUFS enabled the kernel would drop every packet
        // from the first loss until the queue was read empty.
        if let Err(error) = sys::socket::no_overrun_errors(channel.socket.as_fd()) {
            log::debug!("NFLOG group {}: {error}", settings.group);
        }
        let resource = Resource::Group(settings.group);
        channel.bind(resource, (MSG_CONFIG, MSG_NONE), |writer| write_bind(writer, &settings))?;
        Ok(Self { channel, settings, counters: Counters::default() })
    }

    /// The settings in force; the threshold is the last one requested.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The receive buffer in force, bytes; smaller than requested without CAP_NET_ADMIN and with a
    /// low `net.core.rmem_max`. `None` if it is unknown.
    pub fn receive_buffer(&self) -> Option<usize> {
        // The kernel reports twice the requested size (socket(7)).
        self.channel.socket.receive_buffer().ok().map(|bytes| bytes / 2)
    }

    /// Changes how many packets the kernel collects per datagram (at least 1), and the datagrams'
    /// size. Takes effect with the next packet.
    ///
    /// Requests no acknowledgement: under load it would be lost in the full queue or wait behind
    /// it. The kernel refuses only for a group that is not ours; then the refusal is logged when it
    /// is read.
    ///
    /// # Errors
    /// [`Error::Change`] if the message cannot be sent.
    pub fn set_batch(&mut self, packets: u32) -> Result<(), Error> {
        let packets = packets.max(1);
        let Settings { group, copy_range, .. } = self.settings;
        let attributes = |writer: &mut Writer| {
            writer.attr_be32(NFULA_CFG_NLBUFSIZ, datagram_len(packets, copy_range));
            writer.attr_be32(NFULA_CFG_QTHRESH, packets);
        };
        self.channel
            .send(MSG_CONFIG, group, attributes)
            .map_err(|error| Error::Change(Resource::Group(group), error))?;
        self.settings.queue_threshold = packets;
        Ok(())
    }

    /// Unbinds the group. The kernel first sends what it has collected, so that a last
    /// [`Listener::receive`] until it is empty gets every packet.
    ///
    /// # Errors
    /// [`Error::Unbind`] if the message cannot be sent; dropping the listener unbinds the group in
    /// any case.
    pub fn unbind(&mut self) -> Result<(), Error> {
        let group = self.settings.group;
        let unbind = |writer: &mut Writer| writer.attr(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_UNBIND]);
        self.channel
            .send(MSG_CONFIG, group, unbind)
            .map_err(|error| Error::Unbind(Resource::Group(group), error))
    }

    /// The descriptor to poll for reading.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.socket.as_fd()
    }

    /// Hands the available packets to `on_packet`, without waiting. Ends when there are no more, or
    /// after the datagram that reaches `bound` packets ([`super::PACKETS_PER_WAKE`]).
    ///
    /// # Errors
    /// [`Error::Receive`] when the socket itself failed. Loss is no error: it is counted.
    pub fn receive(
        &mut self,
        bound: usize,
        on_packet: &mut dyn FnMut(&Packet<'_>),
    ) -> Result<Received, Error> {
        self.receive_together(bound, &mut |packets| packets.iter().for_each(&mut *on_packet))
    }

    /// As [`Listener::receive`], but hands out as many packets at once as came together, at most
    /// [`TOGETHER`].
    ///
    /// # Errors
    /// As [`Listener::receive`].
    pub fn receive_together(
        &mut self,
        bound: usize,
        on_packets: &mut dyn FnMut(&[Packet<'_>]),
    ) -> Result<Received, Error> {
        let Self { channel, settings, counters } = self;
        let before = counters.statistics.packets;
        channel.receive(bound, |socket, event| {
            match event {
                Event::Datagram { bytes, cut } => {
                    counters.statistics.malformed += u64::from(cut);
                    counters.on_datagram(bytes, settings.group, on_packets);
                }
                // Only where ENOBUFS could not be disabled.
                Event::Overrun => {}
                Event::Empty => counters.on_empty(memory(socket).dropped),
            }
            Ok(counters.statistics.since(before))
        })
    }

    /// The counts so far.
    pub fn statistics(&self) -> Statistics {
        self.counters.statistics()
    }

    /// The fill level of the receive buffer, percent; 0 if it is unknown.
    pub fn backlog(&self) -> u8 {
        let sys::socket::SocketMemory { waiting, buffer, .. } = memory(&self.channel.socket);
        u8::try_from(u64::from(waiting) * 100 / u64::from(buffer.max(1)))
            .unwrap_or(u8::MAX)
            .min(100)
    }

    /// Packets that the kernel collects per message.
    pub fn batch(&self) -> u32 {
        self.settings.queue_threshold
    }
}

/// Kernels before 4.12 do not report it: then no load is known.
fn memory(socket: &Socket) -> sys::socket::SocketMemory {
    sys::socket::memory(socket.as_fd()).unwrap_or_default()
}

/// Packets that are handed out at once: their accounts are read from memory together.
pub const TOGETHER: usize = 16;

/// The decoder with its counters. Separate from the socket, so that tests can pass any bytes.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    statistics: Statistics,
    /// The expected sequence number of the next packet; the kernel starts at 0.
    next: u32,
    /// The kernel's drop count when the queue was last empty.
    at_empty: u32,
    /// The part of the kernel's drop count that `lost` includes, as a later packet has shown.
    accounted: u32,
}

impl Counters {
    /// The counts so far.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            overruns: self.at_empty.into(),
            loss_uncounted: self.at_empty != self.accounted,
            ..self.statistics
        }
    }

    /// The queue is empty, and the kernel has dropped `dropped` datagrams. Later packets were
    /// logged after those.
    pub fn on_empty(&mut self, dropped: u32) {
        self.at_empty = dropped;
    }

    /// Decodes a datagram of `group` and hands out its packets.
    pub fn on_datagram(
        &mut self,
        datagram: &[u8],
        group: u16,
        on_packets: &mut dyn FnMut(&[Packet<'_>]),
    ) {
        let mut together = [Packet::default(); TOGETHER];
        let mut count = 0;
        for message in Messages(datagram) {
            match message.header.kind {
                MSG_PACKET => match decode(&message, group) {
                    Some(packet) => {
                        self.on_sequence(packet.sequence);
                        self.accounted = self.at_empty;
                        self.statistics.packets += 1;
                        if let Some(place) = together.get_mut(count) {
                            *place = packet;
                            count += 1;
                        }
                        if count == TOGETHER {
                            on_packets(&together);
                            count = 0;
                        }
                    }
                    None => self.statistics.malformed += 1,
                },
                // Ends a datagram of several packets.
                NLMSG_DONE | NLMSG_OVERRUN => {}
                NLMSG_ERROR => match message.answer() {
                    Some(answer) if answer.errno != 0 => {
                        let error = io::Error::from_raw_os_error(answer.errno);
                        log::warn!("NFLOG group {group}: the kernel refused a change: {error}");
                    }
                    Some(_) => {}
                    None => self.statistics.malformed += 1,
                },
                _ => self.statistics.malformed += 1,
            }
        }
        if let Some(rest) = together.get(..count).filter(|rest| !rest.is_empty()) {
            on_packets(rest);
        }
    }

    fn on_sequence(&mut self, sequence: Option<u32>) {
        let Some(sequence) = sequence else { return };
        let gap = sequence.wrapping_sub(self.next);
        // A number that goes back is not a loss of four billion: the kernel's count restarted.
        if gap < 1 << 31 {
            self.statistics.lost += u64::from(gap);
        }
        self.next = sequence.wrapping_add(1);
    }
}

/// Decodes a packet of `group`; `None` for other messages and for packets without a packet header.
pub fn decode<'a>(message: &Message<'a>, group: u16) -> Option<Packet<'a>> {
    let (_family, resource, attributes) = message.nfgen()?;
    if message.header.kind != MSG_PACKET || resource != group {
        return None;
    }
    let mut packet = Packet::default();
    let mut header = false;
    for attribute in attributes {
        match attribute.kind {
            NFULA_PACKET_HDR => {
                // struct nfulnl_msg_packet_hdr: protocol (big-endian), hook, a byte of padding.
                let [high, low, hook, _] = *attribute.value.first_chunk::<4>()?;
                packet.hw_protocol = u16::from_be_bytes([high, low]);
                packet.hook = hook;
                header = true;
            }
            NFULA_IFINDEX_INDEV => packet.indev = attribute.be32(),
            NFULA_PAYLOAD => packet.payload = attribute.value,
            NFULA_PREFIX => packet.prefix = attribute.str().unwrap_or_default(),
            NFULA_SEQ => packet.sequence = attribute.be32(),
            _ => {}
        }
    }
    header.then_some(packet)
}

/// Writes what binds and configures a group.
fn write_bind(writer: &mut Writer, settings: &Settings) {
    writer.attr(NFULA_CFG_CMD, &[NFULNL_CFG_CMD_BIND]);
    // struct nfulnl_msg_config_mode is packed: copy range (big-endian), mode, a byte of padding.
    let [a, b, c, d] = u32::from(settings.copy_range).to_be_bytes();
    writer.attr(NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
    writer.attr_be16(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ);
    writer.attr_be32(
        NFULA_CFG_NLBUFSIZ,
        datagram_len(settings.queue_threshold.max(1), settings.copy_range),
    );
    writer.attr_be32(NFULA_CFG_QTHRESH, settings.queue_threshold.max(1));
    let hundredths =
        u32::try_from(settings.flush_after.as_millis() / 10).unwrap_or(u32::MAX).max(1);
    writer.attr_be32(NFULA_CFG_TIMEOUT, hundredths);
}

/// The datagram size to request (`NFULA_CFG_NLBUFSIZ`), bytes, with room for `packets`.
///
/// The kernel silently ignores sizes below its default (nfnetlink_log.c, NFULNL_NLBUFSIZ_DEFAULT,
/// which is NLMSG_GOODSIZE: a page of at most 8 KiB without the 320 or more bytes at the end of a
/// buffer), so at least that is requested; it fills the page exactly.
fn datagram_len(packets: u32, copy_range: u16) -> u32 {
    let least = rustix::param::page_size().min(8192) - 320;
    let wanted = usize::try_from(packets)
        .unwrap_or(usize::MAX)
        .saturating_mul(usize::from(copy_range) + MESSAGE_OVERHEAD);
    u32::try_from(wanted.clamp(least, NLBUFSIZ_MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::channel::write_message;
    use proptest::prelude::*;

    /// A packet's message as the kernel writes it.
    fn packet(writer: &mut Writer, group: u16, sequence: u32, payload: &[u8]) {
        let message = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, group);
        writer.attr(NFULA_PACKET_HDR, &[0x08, 0x00, 1, 0]);
        writer.attr_str(NFULA_PREFIX, "syn");
        writer.attr_be32(NFULA_IFINDEX_INDEV, 3);
        writer.attr(NFULA_PAYLOAD, payload);
        writer.attr_be32(NFULA_SEQ, sequence);
        writer.end_message(message);
    }

    fn count(counters: &mut Counters, datagram: &[u8]) -> Vec<u32> {
        let mut seen = Vec::new();
        counters.on_datagram(datagram, 77, &mut |packets| {
            seen.extend(packets.iter().filter_map(|packet| packet.sequence));
        });
        seen
    }

    #[test]
    fn packet_is_decoded_without_copying() {
        let mut writer = Writer::default();
        packet(&mut writer, 77, 5, b"payload");
        let message = Messages(writer.bytes()).next().unwrap();
        let decoded = decode(&message, 77).unwrap();
        assert_eq!(
            decoded,
            Packet {
                prefix: "syn",
                hook: 1,
                hw_protocol: 0x0800,
                payload: b"payload",
                indev: Some(3),
                sequence: Some(5)
            }
        );
        assert!(writer.bytes().as_ptr_range().contains(&decoded.payload.as_ptr()));
        assert_eq!(decode(&message, 78), None);
    }

    #[test]
    fn several_packets_in_a_datagram_end_with_done() {
        let mut writer = Writer::default();
        for sequence in 0..3 {
            packet(&mut writer, 77, sequence, b"x");
        }
        let done = writer.begin_message(NLMSG_DONE, 0, 0);
        writer.nfgenmsg(0, 77);
        writer.end_message(done);
        let mut counters = Counters::default();
        assert_eq!(count(&mut counters, writer.bytes()), [0, 1, 2]);
        assert_eq!(counters.statistics(), Statistics { packets: 3, ..Statistics::default() });
    }

    #[test]
    fn sequence_gaps_are_losses_across_the_wrap() {
        let mut counters = Counters::default();
        // A number that goes back starts a new count: at u32::MAX - 1 after 10, and at 0 at the
        // end.
        for (sequence, lost) in
            [(2, 2), (3, 2), (10, 8), (u32::MAX - 1, 8), (1, 10), (2, 10), (0, 10)]
        {
            let mut writer = Writer::default();
            packet(&mut writer, 77, sequence, b"");
            count(&mut counters, writer.bytes());
            assert_eq!(counters.statistics().lost, lost, "at {sequence}");
        }
    }

    #[test]
    fn loss_is_uncounted_until_the_next_packet() {
        let mut counters = Counters::default();
        let take = |counters: &mut Counters, sequence| {
            let mut writer = Writer::default();
            packet(&mut writer, 77, sequence, b"");
            count(counters, writer.bytes());
            let Statistics { lost, loss_uncounted, overruns, .. } = counters.statistics();
            (lost, loss_uncounted, overruns)
        };
        assert_eq!(take(&mut counters, 0), (0, false, 0));
        counters.on_empty(3);
        assert!(counters.statistics().loss_uncounted);
        assert_eq!(take(&mut counters, 7), (6, false, 3));
        // All of it may have been counted before the queue was empty; the next packet shows that
        // too.
        assert_eq!(take(&mut counters, 9), (7, false, 3));
        counters.on_empty(4);
        assert!(counters.statistics().loss_uncounted);
        assert_eq!(take(&mut counters, 10), (7, false, 4));
    }

    #[test]
    fn truncated_datagram_gives_its_complete_packets() {
        let mut writer = Writer::default();
        packet(&mut writer, 77, 0, b"first");
        packet(&mut writer, 77, 1, b"second");
        let mut counters = Counters::default();
        let cut = writer.bytes().len() - 3;
        assert_eq!(count(&mut counters, &writer.bytes()[..cut]), [0]);
    }

    #[test]
    fn other_messages_are_counted_as_malformed() {
        let mut writer = Writer::default();
        packet(&mut writer, 78, 0, b"another group's");
        let without_header = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, 77);
        writer.end_message(without_header);
        let unknown = writer.begin_message(0x0b00, 0, 0);
        writer.end_message(unknown);
        let mut counters = Counters::default();
        assert_eq!(count(&mut counters, writer.bytes()), [0u32; 0]);
        assert_eq!(counters.statistics(), Statistics { malformed: 3, ..Statistics::default() });
    }

    #[test]
    fn prefix_that_is_not_utf8_is_empty() {
        let mut writer = Writer::default();
        let message = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, 77);
        writer.attr(NFULA_PACKET_HDR, &[0x86, 0xdd, 1, 0]);
        writer.attr(NFULA_PREFIX, b"\xff\xfe\0");
        writer.end_message(message);
        let decoded = decode(&Messages(writer.bytes()).next().unwrap(), 77).unwrap();
        assert_eq!((decoded.prefix, decoded.hw_protocol, decoded.payload.len()), ("", 0x86dd, 0));
    }

    #[test]
    fn copy_mode_has_six_packed_bytes() {
        let mut writer = Writer::default();
        write_message(&mut writer, (MSG_CONFIG, 0), 1, 77, |writer| {
            write_bind(writer, &Settings::of_group(77));
        });
        let (_, group, attributes) = Messages(writer.bytes()).next().unwrap().nfgen().unwrap();
        assert_eq!(group, 77);
        assert_eq!(attributes.get(NFULA_CFG_MODE).unwrap().value, [0, 0, 1, 0, 2, 0]);
        assert_eq!(attributes.get(NFULA_CFG_TIMEOUT).unwrap().be32(), Some(1));
    }

    #[test]
    fn datagram_size_grows_with_the_threshold_up_to_its_limit() {
        assert!(datagram_len(1, 256) < datagram_len(64, 256));
        assert_eq!(usize::try_from(datagram_len(u32::MAX, u16::MAX)).unwrap(), NLBUFSIZ_MAX);
        const { assert!(NLBUFSIZ_MAX < crate::capture::channel::BUFFER_LEN) };
    }

    proptest! {
        // P8
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            count(&mut Counters::default(), &bytes);
        }

        /// Random bytes rarely get past the headers, so this damages and truncates a real message.
        #[test]
        fn no_damage_makes_the_decoder_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), end: prop::sample::Index) {
            let mut writer = Writer::default();
            packet(&mut writer, 77, 1, &[0x45; 40]);
            packet(&mut writer, 77, 2, &[0x60; 60]);
            let mut bytes = writer.bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let end = end.index(bytes.len() + 1);
            let mut counters = Counters::default();
            count(&mut counters, &bytes[..end]);
            prop_assert!(counters.statistics().packets <= u64::try_from(bytes.len() / 28).unwrap());
        }

        // P16
        #[test]
        fn packets_plus_losses_equal_the_sequence_numbers(steps in proptest::collection::vec(0u32..1000, 1..40)) {
            let mut counters = Counters::default();
            let mut next = 0u32;
            for step in &steps {
                let mut writer = Writer::default();
                packet(&mut writer, 77, next + step, b"");
                count(&mut counters, writer.bytes());
                next += step + 1;
            }
            prop_assert_eq!(counters.statistics().packets + counters.statistics().lost, u64::from(next));
        }
    }
}
