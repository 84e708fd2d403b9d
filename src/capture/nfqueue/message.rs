//! The messages of NFQUEUE: decodes packets, encodes configuration and verdicts.
//!
//! Follows linux/netfilter/nfnetlink_queue.h. Pure; the decoder accepts any bytes.

use crate::capture::channel::write_message;
use crate::capture::{Packet, Verdict, Waiting};
use crate::netlink::message::{Message, NLM_F_REQUEST, Writer};

/// `NFNL_SUBSYS_QUEUE << 8` (linux/netfilter/nfnetlink.h), the base of the message types.
const SUBSYSTEM: u16 = 3 << 8;
/// `NFQNL_MSG_PACKET`: a queued packet.
pub(super) const MSG_PACKET: u16 = SUBSYSTEM;
/// `NFQNL_MSG_VERDICT`: the verdict on one packet.
pub(super) const MSG_VERDICT: u16 = SUBSYSTEM | 1;
/// `NFQNL_MSG_CONFIG`: configures a queue.
pub(super) const MSG_CONFIG: u16 = SUBSYSTEM | 2;
/// `NFQNL_MSG_VERDICT_BATCH`: the verdict on all waiting packets up to this one.
pub(super) const MSG_VERDICT_BATCH: u16 = SUBSYSTEM | 3;
/// A message type that does not exist; see [`crate::capture::channel`] for its use.
pub(super) const MSG_NONE: u16 = SUBSYSTEM | 0xff;

pub(super) const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
pub(super) const NFQA_CFG_MASK: u16 = 4;
pub(super) const NFQA_CFG_FLAGS: u16 = 5;
const NFQNL_CFG_CMD_BIND: u8 = 1;
pub(super) const NFQNL_CFG_CMD_UNBIND: u8 = 2;
const NFQNL_COPY_PACKET: u8 = 2;
/// Packets pass when the queue is full.
pub(super) const NFQA_CFG_F_FAIL_OPEN: u32 = 1;
/// Deliver large packets unsegmented and without device checksums, because we never change packets.
const NFQA_CFG_F_GSO: u32 = 4;

const NFQA_PACKET_HDR: u16 = 1;
pub(super) const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_IFINDEX_INDEV: u16 = 5;
const NFQA_PAYLOAD: u16 = 10;

/// `NF_DROP` (linux/netfilter.h).
pub(super) const NF_DROP: u32 = 0;
/// `NF_ACCEPT`: continue with the next base chain. Never `NF_REPEAT`: the same rule would queue the
/// packet again.
pub(super) const NF_ACCEPT: u32 = 1;

/// The queue of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Probes of closed ports.
    Probe,
    /// New connections of suspects to open ports.
    Connection,
}

/// Decodes a packet of `queue` or the next queue; `None` for other messages and for packets without
/// a packet header.
pub fn decode<'a>(message: &Message<'a>, queue: u16) -> Option<Waiting<'a>> {
    let (_family, resource, attributes) = message.nfgen()?;
    let kind = match resource.wrapping_sub(queue) {
        0 => Kind::Probe,
        1 => Kind::Connection,
        _ => return None,
    };
    if message.header.kind != MSG_PACKET {
        return None;
    }
    let (mut packet, mut id, mut mark) = (Packet::default(), None, 0);
    for attribute in attributes {
        match attribute.kind {
            NFQA_PACKET_HDR => {
                // struct nfqnl_msg_packet_hdr, packed: id and protocol (big-endian), hook.
                let [a, b, c, d, high, low, hook] = *attribute.value.first_chunk::<7>()?;
                id = Some(u32::from_be_bytes([a, b, c, d]));
                packet.hw_protocol = u16::from_be_bytes([high, low]);
                packet.hook = hook;
            }
            NFQA_MARK => mark = attribute.be32()?,
            NFQA_IFINDEX_INDEV => packet.indev = attribute.be32(),
            NFQA_PAYLOAD => packet.payload = attribute.value,
            _ => {}
        }
    }
    let id = id?;
    packet.sequence = Some(id);
    Some(Waiting { packet, id, kind, mark })
}

/// Writes what binds and configures a queue.
pub(super) fn write_bind(writer: &mut Writer, length: u32, fail_open: bool, copy_range: u16) {
    // struct nfqnl_msg_config_cmd: command, a byte of padding, a protocol family that the kernel
    // ignores.
    writer.attr(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    // struct nfqnl_msg_config_params is packed: copy range (big-endian), mode.
    let [a, b, c, d] = u32::from(copy_range).to_be_bytes();
    writer.attr(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET]);
    writer.attr_be32(NFQA_CFG_QUEUE_MAXLEN, length);
    let flags = NFQA_CFG_F_GSO | if fail_open { NFQA_CFG_F_FAIL_OPEN } else { 0 };
    writer.attr_be32(NFQA_CFG_FLAGS, flags);
    writer.attr_be32(NFQA_CFG_MASK, NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN);
}

/// Writes the verdict on `count` packets of a queue, up to `last`.
pub(super) fn write_verdict(
    writer: &mut Writer,
    queue: u16,
    (last, count): (u32, u32),
    verdict: Verdict,
) {
    let kind = if count == 1 { MSG_VERDICT } else { MSG_VERDICT_BATCH };
    // struct nfqnl_msg_verdict_hdr: verdict, number (big-endian).
    let verdict = match verdict {
        Verdict::Accept => NF_ACCEPT,
        Verdict::Drop => NF_DROP,
    };
    let [a, b, c, d] = verdict.to_be_bytes();
    let [e, f, g, h] = last.to_be_bytes();
    write_message(writer, (kind, NLM_F_REQUEST), 0, queue, |writer| {
        writer.attr(NFQA_VERDICT_HDR, &[a, b, c, d, e, f, g, h]);
    });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::netlink::message::Messages;

    /// A packet's message as the kernel writes it.
    pub(in crate::capture::nfqueue) fn packet(
        writer: &mut Writer,
        queue: u16,
        id: u32,
        payload: &[u8],
    ) {
        let message = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, queue);
        let [a, b, c, d] = id.to_be_bytes();
        writer.attr(NFQA_PACKET_HDR, &[a, b, c, d, 0x08, 0x00, 1]);
        writer.attr_be32(NFQA_IFINDEX_INDEV, 3);
        writer.attr_be32(NFQA_MARK, 9);
        writer.attr(NFQA_PAYLOAD, payload);
        writer.end_message(message);
    }

    #[test]
    fn packet_is_decoded_without_copying() {
        let mut writer = Writer::default();
        packet(&mut writer, 78, 5, b"payload");
        let message = Messages(writer.bytes()).next().unwrap();
        let waiting = decode(&message, 77).unwrap();
        let expected = Packet {
            prefix: "",
            hook: 1,
            hw_protocol: 0x0800,
            payload: b"payload",
            indev: Some(3),
            sequence: Some(5),
        };
        assert_eq!(waiting, Waiting { packet: expected, id: 5, kind: Kind::Connection, mark: 9 });
        assert!(writer.bytes().as_ptr_range().contains(&waiting.packet.payload.as_ptr()));
        assert_eq!(decode(&message, 78).map(|waiting| waiting.kind), Some(Kind::Probe));
        assert_eq!((decode(&message, 76), decode(&message, 79)), (None, None));
    }

    #[test]
    fn bind_message_has_length_copy_range_and_flags() {
        for (fail_open, flags) in [(false, 4), (true, 5)] {
            let mut writer = Writer::default();
            write_message(&mut writer, (MSG_CONFIG, 0), 1, 77, |writer| {
                write_bind(writer, 1000, fail_open, 256);
            });
            let (_, queue, attributes) = Messages(writer.bytes()).next().unwrap().nfgen().unwrap();
            assert_eq!(queue, 77);
            assert_eq!(attributes.get(NFQA_CFG_PARAMS).unwrap().value, [0, 0, 1, 0, 2]);
            assert_eq!(attributes.get(NFQA_CFG_QUEUE_MAXLEN).unwrap().be32(), Some(1000));
            assert_eq!(attributes.get(NFQA_CFG_FLAGS).unwrap().be32(), Some(flags));
        }
    }
}
