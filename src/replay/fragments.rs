//! Reassembles fragmented packets to this host, as the kernel does before its rules see them, as far
//! as the transport header needs.

use std::net::IpAddr;
use std::time::Duration;

use super::recent::Recent;
use crate::engine::MonoTime;

/// Maximum number of datagrams whose fragments are collected.
pub(super) const DATAGRAMS_MAX: usize = 4_096;

/// Bytes kept of each: IP and transport headers with all their options, and some of the payload.
pub(super) const KEPT_MAX: usize = 256;

/// Fragments apart from each other of one datagram; a datagram that needs more is given up.
const PIECES_MAX: usize = 64;

/// How long fragments wait for the others (net.ipv4.ipfrag_time).
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
}

#[derive(Debug, Default, Clone)]
struct Datagram {
    begun: MonoTime,
    /// The IP header.
    header: Vec<u8>,
    /// The first bytes after it.
    bytes: Vec<u8>,
    /// Ranges of bytes that have come, sorted and apart.
    pieces: Vec<(u32, u32)>,
    /// The length of all, once the last fragment has come.
    length: Option<u32>,
    /// Fragments overlapped: it is never delivered.
    is_void: bool,
}

/// Datagrams that are not complete.
#[derive(Debug)]
pub(super) struct Fragments(Recent<Key, Datagram>);

impl Default for Fragments {
    fn default() -> Self {
        Self(Recent::new(DATAGRAMS_MAX))
    }
}

/// A fragment.
struct Fragment<'a> {
    key: Key,
    offset: u32,
    is_last: bool,
    /// The IP header as it is without fragmentation.
    header: Vec<u8>,
    payload: &'a [u8],
    /// The payload's length on the wire.
    length: u32,
}

/// What a packet is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// No fragment.
    Whole,
    /// A fragment whose datagram is not complete.
    Part,
    /// The fragment that completes a datagram: its first bytes.
    Complete(Vec<u8>),
}

impl Fragments {
    /// Takes a packet that begins with its IP header.
    pub(super) fn take(&mut self, now: MonoTime, packet: &[u8]) -> Piece {
        let Some(fragment) = fragment_v4(packet).or_else(|| fragment_v6(packet)) else {
            return Piece::Whole;
        };
        let key = fragment.key;
        let mut datagram = self
            .0
            .remove(&key)
            .filter(|known| now.since(known.begun) <= PATIENCE)
            .unwrap_or_else(|| Datagram { begun: now, ..Datagram::default() });
        datagram.add(fragment);
        if let Some(whole) = datagram.complete() {
            return Piece::Complete(whole);
        }
        self.0.insert(key, datagram);
        Piece::Part
    }
}

impl Datagram {
    fn add(&mut self, fragment: Fragment<'_>) {
        let Fragment { offset, is_last, header, payload, length, .. } = fragment;
        let end = offset.saturating_add(length);
        let at = self.pieces.partition_point(|(from, _)| *from < offset);
        let before = at.checked_sub(1).and_then(|at| self.pieces.get(at)).copied();
        let next = self.pieces.get(at).copied();
        if (offset, end) == next.unwrap_or_default() {
            // A fragment that came twice.
            return;
        }
        let overlaps = before.is_some_and(|(_, last)| last > offset)
            || next.is_some_and(|(from, _)| from < end);
        if overlaps || self.pieces.len() >= PIECES_MAX {
            self.is_void = true;
            return;
        }
        self.pieces.insert(at, (offset, end));
        self.pieces.dedup_by(|later, earlier| {
            let joins = earlier.1 == later.0;
            if joins {
                earlier.1 = later.1;
            }
            joins
        });
        if is_last {
            self.length = Some(end);
        }
        if offset == 0 {
            self.header = header;
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, byte) in (from..KEPT_MAX).zip(payload) {
            if self.bytes.len() <= at {
                self.bytes.resize(at + 1, 0);
            }
            if let Some(place) = self.bytes.get_mut(at) {
                *place = *byte;
            }
        }
    }

    /// The first bytes of the datagram, if it is complete.
    fn complete(&self) -> Option<Vec<u8>> {
        let length = self.length.filter(|_| !self.is_void)?;
        let is_whole = self.pieces == [(0, length)] && !self.header.is_empty();
        is_whole.then(|| [self.header.as_slice(), &self.bytes].concat())
    }
}

fn fragment_v4(packet: &[u8]) -> Option<Fragment<'_>> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let [first, _, total_high, total_low, id_high, id_low, flags, offset_low, ..] = *fixed;
    let field = u16::from_be_bytes([flags, offset_low]);
    if first >> 4 != 4 || field & 0x3fff == 0 {
        return None;
    }
    let header_length = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([total_high, total_low]));
    let mut header = packet.get(..header_length).filter(|header| header.len() >= 20)?.to_vec();
    // The whole is longer than its fields say, and has another checksum; the parser takes the length
    // of the bytes.
    for at in [2, 3, 6, 7, 10, 11] {
        *header.get_mut(at)? = 0;
    }
    let packet_word = |at: usize| -> Option<IpAddr> {
        Some(std::net::Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into())
    };
    Some(Fragment {
        key: Key {
            source: packet_word(12)?,
            destination: packet_word(16)?,
            id: u32::from(u16::from_be_bytes([id_high, id_low])),
            protocol: *packet.get(9)?,
        },
        offset: u32::from(field & 0x1fff) * 8,
        is_last: field & 0x2000 == 0,
        header,
        payload: packet.get(header_length..total.min(packet.len()))?,
        length: u32::try_from(total.checked_sub(header_length)?).ok()?,
    })
}

/// Only a fragment header right behind the IPv6 header, which is where hosts put it.
fn fragment_v6(packet: &[u8]) -> Option<Fragment<'_>> {
    let fixed: &[u8; 48] = packet.first_chunk()?;
    let (base, extension) = fixed.split_first_chunk::<40>()?;
    let [first, _, _, _, length_high, length_low, next, ..] = *base;
    let [protocol, _, offset_high, offset_low, id @ ..] = *extension.first_chunk::<8>()?;
    if first >> 4 != 6 || next != crate::wire::ip::FRAGMENT {
        return None;
    }
    let field = u16::from_be_bytes([offset_high, offset_low]);
    if field & 0xfff9 == 0 {
        // An atomic fragment (RFC 6946) is whole.
        return None;
    }
    let length = usize::from(u16::from_be_bytes([length_high, length_low])).checked_sub(8)?;
    let mut header = base.to_vec();
    // A payload length of 0: the parser takes the length of the bytes.
    for (at, byte) in [(4, 0), (5, 0), (6, protocol)] {
        *header.get_mut(at)? = byte;
    }
    let address = |at: usize| -> Option<IpAddr> {
        Some(std::net::Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into())
    };
    Some(Fragment {
        key: Key {
            source: address(8)?,
            destination: address(24)?,
            id: u32::from_be_bytes(id),
            protocol,
        },
        offset: u32::from(field & 0xfff8),
        is_last: field & 1 == 0,
        header,
        payload: packet.get(48..(48 + length).min(packet.len()))?,
        length: u32::try_from(length).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Transport};

    /// A TCP SYN to port 22 in IPv4 fragments of eight bytes, in this order.
    fn fragments(order: &[usize]) -> Vec<Vec<u8>> {
        let segment: [u8; 20] =
            [0x9c, 0x40, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];
        order
            .iter()
            .map(|at| {
                let part = &segment[at * 8..(at * 8 + 8).min(20)];
                let more = if *at < 2 { 0x20 } else { 0 };
                let mut packet = vec![0x45, 0, 0, 20 + part.len() as u8, 0, 7, more, *at as u8];
                packet.extend([64, 6, 0, 0, 203, 0, 113, 9, 192, 0, 2, 1]);
                packet.extend(part);
                packet
            })
            .collect()
    }

    fn last(order: &[usize]) -> Piece {
        let mut all = Fragments::default();
        let mut piece = Piece::Whole;
        for fragment in fragments(order) {
            piece = all.take(MonoTime::from_millis(1), &fragment);
        }
        piece
    }

    #[test]
    fn fragments_in_any_order_are_one_packet() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let Piece::Complete(bytes) = last(&order) else { panic!("{order:?}") };
            let packet = wire::parse(&bytes).unwrap();
            let Transport::Tcp(segment) = packet.transport else { panic!("{packet:?}") };
            assert_eq!((segment.source_port, segment.destination_port), (40000, 22));
            assert_eq!(segment.flags, wire::tcp::Flags::SYN);
        }
        assert_eq!(last(&[0, 0, 2]), Piece::Part);
        assert_eq!(last(&[0, 1]), Piece::Part);
        assert_eq!(Fragments::default().take(MonoTime::default(), &[0x45; 20][..19]), Piece::Whole);
    }
}
