//! Checksums of TCP and UDP packets: the kernel discards a packet whose checksum is wrong, so that it
//! is no probe.

use crate::wire::ip;

/// What a packet's checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// It is right, or only the part that the kernel leaves to the device is there (checksum
    /// offload: the packet was captured before the device, or never met one).
    Right,
    Wrong,
    /// There is none, or not all of the packet was captured.
    Unknown,
}

/// The one's complement sum of `bytes` (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let mut total = 0;
    for word in &mut words {
        if let [high, low] = *word {
            total += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    total + words.remainder().first().map_or(0, |last| u64::from(*last) << 8)
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Checks a packet that begins with its IP header and is no fragment.
pub(super) fn check(packet: &[u8]) -> Sum {
    checked(packet).unwrap_or(Sum::Unknown)
}

fn checked(packet: &[u8]) -> Option<Sum> {
    let number = |at: usize| -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)))
    };
    let (addresses, protocol, start, end) = match packet.first()? >> 4 {
        // A fragment's checksum is that of the whole.
        4 if number(6)? & 0x3fff != 0 => return None,
        4 => {
            let start = usize::from(packet.first()? & 0x0f) * 4;
            (packet.get(12..20)?, *packet.get(9)?, start, number(2)?)
        }
        // Behind extension headers nothing is checked.
        6 => (packet.get(8..40)?, *packet.get(6)?, 40, 40 + number(4)?),
        _ => return None,
    };
    let payload = packet.get(start..end)?;
    let at = match protocol {
        ip::TCP => 16,
        ip::UDP => 6,
        _ => return None,
    };
    let stored = u16::from_be_bytes(*payload.get(at..)?.first_chunk()?);
    if protocol == ip::UDP && stored == 0 {
        return None;
    }
    let length = u64::try_from(payload.len()).ok()?;
    let pseudo = sum(addresses) + u64::from(protocol) + length;
    let is_right = folded(pseudo + sum(payload)) == u16::MAX || stored == folded(pseudo);
    Some(if is_right { Sum::Right } else { Sum::Wrong })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(checksum: u16) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 203, 0, 113, 9, 192, 0, 2, 1];
        packet.extend([0x9c, 0x40, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
        packet[36..38].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    #[test]
    fn full_and_partial_checksums_are_right_and_others_wrong() {
        let right = !folded(sum(&[203, 0, 113, 9, 192, 0, 2, 1]) + 6 + 20 + sum(&syn(0)[20..]));
        let partial = folded(sum(&[203, 0, 113, 9, 192, 0, 2, 1]) + 6 + 20);
        assert_eq!(check(&syn(right)), Sum::Right);
        assert_eq!(check(&syn(partial)), Sum::Right);
        assert_eq!(check(&syn(right ^ 1)), Sum::Wrong);
        assert_eq!(check(&syn(right)[..38]), Sum::Unknown);
        for length in 0..40 {
            assert_eq!(check(&syn(0)[..length]), Sum::Unknown);
        }
    }
}
