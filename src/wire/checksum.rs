//! Whether the kernel would discard a packet at its transport header: checksums (RFC 9293, 3.1; 768;
//! 8200, 8.1; 9260, 6.8) and lengths.
//!
//! The sum of a packet that did not come over a wire, from a container or a virtual machine, may be
//! left to a device that it never passes (Linux's `CHECKSUM_PARTIAL`). The field then has only the
//! sum of the pseudo header, or 0 with SCTP, and the kernel trusts it. A packet that the capture
//! truncated, or the kernel grouped, cannot be checked and is taken for good.

use std::net::IpAddr;

use super::{Error, Layer, be16, ip};

/// Checks the transport header and checksum of the packet that starts with its IP header.
///
/// # Errors
///
/// A wrong checksum, or a length that goes beyond the packet; and those of [`super::parse`] for the
/// IP header.
pub fn verify(bytes: &[u8]) -> Result<(), Error> {
    let header = ip::Header::parse(bytes)?;
    if !header.whole {
        return Ok(());
    }
    let payload = header.payload;
    let is_right = match header.protocol {
        ip::TCP => {
            let offset = payload.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
            if offset > payload.len() {
                return Err(Error::Length(Layer::Tcp));
            }
            internet(&header, payload, 16)
        }
        ip::UDP => {
            let is_v4 = header.source.is_ipv4();
            let datagram = match be16(payload, 4).unwrap_or(0) {
                // A jumbogram (RFC 2675, 4).
                0 if !is_v4 => payload,
                length => payload.get(..usize::from(length)).ok_or(Error::Length(Layer::Udp))?,
            };
            if datagram.len() < 8 {
                return Err(Error::Length(Layer::Udp));
            }
            // No checksum: IPv6 forbids it.
            if be16(datagram, 6) == Some(0) { is_v4 } else { internet(&header, datagram, 6) }
        }
        ip::SCTP => is_crc_right(payload),
        _ => true,
    };
    if is_right { Ok(()) } else { Err(Error::Checksum(header.protocol)) }
}

/// Whether the checksum of the IPv4 header that `bytes` start with is right (RFC 791, 3.1), or was left
/// to a device, which is 0. True of other bytes: IPv6 has none.
///
/// Packets that the kernel logs have passed this; those of a capture file have not.
pub fn is_header_right(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first().filter(|first| *first >> 4 == 4) else { return true };
    let header = bytes.get(..usize::from(first & 0x0f) * 4).unwrap_or_default();
    matches!(be16(header, 10), None | Some(0)) || fold(words(header)) == 0xffff
}

/// The sum of all 16-bit words, a last odd byte being the first of a word.
fn words(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

/// Whether the checksum in the field at `field` is right (RFC 1071), or left to a device.
fn internet(header: &ip::Header<'_>, payload: &[u8], field: usize) -> bool {
    let address = |address| match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    };
    // The capture's packets are below 64 kB, so 32 bits hold the sum of all words.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let pseudo = address(header.source)
        + address(header.destination)
        + u32::from(header.protocol)
        + (length >> 16)
        + (length & 0xffff);
    fold(pseudo + words(payload)) == 0xffff || be16(payload, field) == Some(fold(pseudo))
}

fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}

/// Whether the CRC32c of an SCTP packet is right, or left to a device.
fn is_crc_right(payload: &[u8]) -> bool {
    let Some((field, _)) = payload.get(8..).and_then(<[u8]>::split_first_chunk) else {
        return false;
    };
    let stored = u32::from_le_bytes(*field);
    let bytes = payload.iter().enumerate();
    let crc = bytes.fold(u32::MAX, |crc, (at, byte)| {
        let byte = if (8..12).contains(&at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    stored == 0 || stored == !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SYN of nmap over IPv4, and a datagram with four bytes over IPv6, as they came over a wire.
    const SYN: &str = "4500002c1f3f00002b06cc2f0a4200090a420001\
                       d29c0016a3c7e8d90000000060020400000000000204 05b4";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Sets the field at `field` of a packet whose payload starts at `start` so that its checksum is
    /// right, by the definition: the complement of the sum of pseudo header and payload.
    fn summed(
        mut packet: Vec<u8>,
        addresses: std::ops::Range<usize>,
        start: usize,
        field: usize,
    ) -> Vec<u8> {
        packet[start + field..start + field + 2].fill(0);
        let protocol = if addresses.start == 12 { packet[9] } else { packet[6] };
        let length = (packet.len() - start) as u16;
        let mut all = packet[addresses].to_vec();
        all.extend([0, protocol]);
        all.extend(length.to_be_bytes());
        all.extend(&packet[start..]);
        all.resize(all.len().next_multiple_of(2), 0);
        let mut sum: u64 =
            all.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        packet[start + field..start + field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        packet
    }

    fn datagram6(data: &[u8]) -> Vec<u8> {
        let mut packet = bytes(
            "60000000 0000 1140 fd660001000000000000000000000002 fd660001000000000000000000000001",
        );
        let length = (8 + data.len()) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet.extend(bytes("9c40 0035"));
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(data);
        summed(packet, 8..40, 40, 6)
    }

    #[test]
    fn one_wrong_byte_is_a_wrong_checksum() {
        for packet in [summed(bytes(SYN), 12..20, 20, 16), datagram6(b"data"), datagram6(b"odd")] {
            assert_eq!(verify(&packet), Ok(()));
            let protocol = if packet.len() == 44 { ip::TCP } else { ip::UDP };
            let last = packet.len() - 1;
            let mut wrong = packet.clone();
            wrong[last] ^= 1;
            assert_eq!(verify(&wrong), Err(Error::Checksum(protocol)));
            // Truncated by the capture.
            assert_eq!(verify(&wrong[..last]), Ok(()));
            // Padded by the link.
            let padded = [&packet[..], &[1, 2, 3]].concat();
            assert_eq!(verify(&padded), Ok(()));
        }
    }

    #[test]
    fn one_wrong_bit_of_an_ipv4_header_is_a_wrong_sum() {
        let mut right = bytes(SYN);
        // 0x4500 + 0x002c + 0x1f3f + 0x2b06 + 0x0a42 + 0x0009 + 0x0a42 + 0x0001 = 0xa3ff.
        right[10..12].copy_from_slice(&0x5c00u16.to_be_bytes());
        assert!(is_header_right(&right) && is_header_right(&right[..20]));
        // Link padding and payload do not count; IPv6 and cut headers have no sum.
        assert!(is_header_right(&[&right[..20], &[7; 9]].concat()));
        assert!(is_header_right(&datagram6(b"data")) && is_header_right(&right[..9]));
        assert!(is_header_right(&[]));
        for bit in 4..160 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(!is_header_right(&wrong) || bit / 8 == 0, "{bit}");
        }
        let mut left = right.clone();
        left[10..12].fill(0);
        left[9] ^= 1;
        assert!(is_header_right(&left));
    }

    #[test]
    fn a_sum_that_is_left_to_a_device_is_good() {
        let mut packet = bytes(SYN);
        // 0x0a42 + 0x0009 + 0x0a42 + 0x0001 + 6 + 24.
        packet[36..38].copy_from_slice(&0x14acu16.to_be_bytes());
        assert_eq!(verify(&packet), Ok(()));
        packet[37] ^= 1;
        assert_eq!(verify(&packet), Err(Error::Checksum(ip::TCP)));
    }

    #[test]
    fn only_ipv4_allows_datagrams_without_a_checksum() {
        let mut six = datagram6(b"data");
        six[46..48].fill(0);
        assert_eq!(verify(&six), Err(Error::Checksum(ip::UDP)));
        let four =
            bytes("45000020000000004011000 0 0a420009 0a420001 9c40 0035 000c 0000 64617461");
        assert_eq!(verify(&four), Ok(()));
        for length in [0, 7, 13] {
            let mut wrong = four.clone();
            wrong[25] = length;
            assert_eq!(verify(&wrong), Err(Error::Length(Layer::Udp)), "{length}");
        }
    }

    #[test]
    fn a_header_beyond_the_packet_is_an_error() {
        let mut packet = bytes(SYN);
        packet[32] = 0x70;
        assert_eq!(verify(&packet), Err(Error::Length(Layer::Tcp)));
    }

    #[test]
    fn crc32c_is_that_of_its_check_value() {
        // RFC 3720, B.4: 32 bytes of zeros have the CRC 0x8a9136aa.
        let mut packet = bytes("4500003400000000 40840000 0a420009 0a420001");
        packet.extend([0; 32]);
        assert_eq!(verify(&packet), Ok(()), "left to a device");
        packet[28..32].copy_from_slice(&0x8a91_36aa_u32.to_le_bytes());
        assert_eq!(verify(&packet), Ok(()));
        packet[51] ^= 1;
        assert_eq!(verify(&packet), Err(Error::Checksum(ip::SCTP)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_verified_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = verify(&bytes);
        }

        #[test]
        fn any_datagram_with_its_sum_is_good(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(verify(&datagram6(&data)), Ok(()));
        }
    }
}
