//! Link-layer headers of captured packets, down to the IP header (`LINKTYPE_*`,
//! <https://www.tcpdump.org/linktypes.html>).

/// EtherTypes (IEEE 802 numbers, IANA).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Tags: 802.1Q, 802.1ad, and what switches used before it.
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
const PPPOE_SESSION: u16 = 0x8864;

/// Tags that one frame may have: QinQ has two, and a bound ends a crafted frame.
const TAGS_MAX: usize = 8;

/// The kind of a frame's destination, as the kernel's `pkttype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// For this host, or unknown: most link types say nothing.
    Host,
    /// The capture says that it is for this host.
    ThisHost,
    /// For all hosts, or a group.
    Group,
    /// For another host, received in promiscuous mode.
    Other,
    /// Sent by this host.
    Outgoing,
}

/// A frame without its link-layer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of its destination.
    pub cast: Cast,
    /// From the IP header on.
    pub ip: &'a [u8],
}

/// What a link type's frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// An IP packet.
    Ip(Frame<'a>),
    /// Another protocol, or a header that is cut off.
    Other,
    /// The link type is not known here.
    UnknownLink,
}

/// The name of a link type that is known here.
pub fn name(link_type: u32) -> Option<&'static str> {
    Some(match link_type {
        0 => "NULL",
        1 => "Ethernet",
        9 => "PPP",
        12 | 14 | 101 => "raw IP",
        50 => "PPP in HDLC framing",
        51 => "PPPoE",
        104 => "Cisco HDLC",
        108 => "LOOP",
        113 => "Linux cooked v1",
        166 => "PPP of pppd",
        204 => "PPP with direction",
        228 => "raw IPv4",
        229 => "raw IPv6",
        239 => "NFLOG",
        276 => "Linux cooked v2",
        _ => return None,
    })
}

/// The content of a frame.
pub fn content(link_type: u32, frame: &[u8]) -> Content<'_> {
    if name(link_type).is_none() {
        return Content::UnknownLink;
    }
    ip_of(link_type, frame).map_or(Content::Other, |(cast, ip)| Content::Ip(Frame { cast, ip }))
}

fn ip_of(link_type: u32, frame: &[u8]) -> Option<(Cast, &[u8])> {
    match link_type {
        // The address family, in the byte order of the host that captured, or of the network.
        0 | 108 => {
            let family = *frame.first_chunk()?;
            let family = u32::from_le_bytes(family).min(u32::from_be_bytes(family));
            // AF_INET everywhere; AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
            let is_ip = matches!(family, 2 | 10 | 24 | 28 | 30);
            Some((Cast::Host, frame.get(4..).filter(|_| is_ip)?))
        }
        1 => {
            let cast = match frame.first()? & 1 {
                0 => Cast::Host,
                _ => Cast::Group,
            };
            Some((cast, behind_ethertype(be16(frame, 12)?, frame.get(14..)?)?))
        }
        9 | 50 | 166 => Some((Cast::Host, behind_ppp(frame)?)),
        12 | 14 | 101 | 228 | 229 => Some((Cast::Host, frame)),
        51 => Some((Cast::Host, behind_ppp(frame.get(6..)?)?)),
        104 => Some((Cast::Host, behind_ethertype(be16(frame, 2)?, frame.get(4..)?)?)),
        113 => {
            let cast = cooked(be16(frame, 0)?);
            Some((cast, behind_ethertype(be16(frame, 14)?, frame.get(16..)?)?))
        }
        204 => {
            let cast = if *frame.first()? == 0 { Cast::Host } else { Cast::Outgoing };
            Some((cast, behind_ppp(frame.get(1..)?)?))
        }
        239 => nflog(frame.get(4..)?),
        276 => {
            let cast = cooked(u16::from(*frame.get(10)?));
            Some((cast, behind_ethertype(be16(frame, 0)?, frame.get(20..)?)?))
        }
        _ => None,
    }
}

/// The packet type of a cooked header (linux/if_packet.h).
fn cooked(kind: u16) -> Cast {
    match kind {
        0 => Cast::ThisHost,
        1 | 2 => Cast::Group,
        3 => Cast::Other,
        4 => Cast::Outgoing,
        _ => Cast::Host,
    }
}

/// Attributes of the kernel's log message (linux/netfilter/nfnetlink_log.h): where the packet was, and
/// the packet. Lengths and types are in the byte order of the host that captured.
fn nflog(attributes: &[u8]) -> Option<(Cast, &[u8])> {
    const PACKET_HDR: u16 = 1;
    const PAYLOAD: u16 = 9;
    [u16::from_le_bytes, u16::from_be_bytes].into_iter().find_map(|number| {
        let (mut cast, mut rest) = (Cast::Host, attributes);
        loop {
            let (length, kind) = (*rest.first_chunk()?, *rest.get(2..)?.first_chunk()?);
            let length = usize::from(number(length));
            // The capture may have cut the last one.
            let value = rest.get(4..length.min(rest.len()))?;
            match number(kind) {
                PAYLOAD => return Some((cast, value)),
                PACKET_HDR => {
                    cast = match value.get(2)? {
                        1 => Cast::ThisHost,
                        3 => Cast::Outgoing,
                        _ => Cast::Host,
                    };
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    })
}

fn behind_ethertype(ethertype: u16, rest: &[u8]) -> Option<&[u8]> {
    let (mut ethertype, mut rest) = (ethertype, rest);
    for _ in 0..TAGS_MAX {
        match ethertype {
            IPV4 | IPV6 => return Some(rest),
            PPPOE_SESSION => return behind_ppp(rest.get(6..)?),
            tag if TAGS.contains(&tag) => {
                ethertype = be16(rest, 2)?;
                rest = rest.get(4..)?;
            }
            // A length: IEEE 802.3 with SNAP (RFC 1042).
            0..=1500 if rest.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0]) => {
                ethertype = be16(rest, 6)?;
                rest = rest.get(8..)?;
            }
            _ => return None,
        }
    }
    None
}

/// PPP (RFC 1661): address and control may be there or compressed away, and the protocol may have
/// one byte (RFC 1661, 6.5 and 6.6).
fn behind_ppp(frame: &[u8]) -> Option<&[u8]> {
    let frame = frame.strip_prefix(&[0xff, 3]).unwrap_or(frame);
    match frame {
        [0, 0x21 | 0x57, rest @ ..] | [0x21 | 0x57, rest @ ..] => Some(rest),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of an IPv4 header.
    const IP: [u8; 4] = [0x45, 0, 0, 40];

    fn found(link_type: u32, header: &[u8]) -> Option<Cast> {
        let frame = [header, &IP].concat();
        match content(link_type, &frame) {
            Content::Ip(Frame { cast, ip }) => {
                assert_eq!(ip, IP, "{link_type} {header:x?}");
                Some(cast)
            }
            _ => None,
        }
    }

    fn ethernet(destination: u8, rest: &[u8]) -> Vec<u8> {
        [&[destination, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], rest].concat()
    }

    fn cooked_v1(kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[0, kind, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0], rest].concat()
    }

    fn cooked_v2(kind: u8) -> Vec<u8> {
        vec![8, 0, 0, 0, 0, 0, 0, 1, 0, 1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0]
    }

    fn nflog_header(hook: u8, number: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let attribute = |length: u16, kind: u16| [number(length), number(kind)].concat();
        let head = [attribute(8, 1), vec![8, 0, hook, 0]].concat();
        // The rule's prefix is padded.
        let prefix = [attribute(7, 10), b"ab\0\0".to_vec()].concat();
        [vec![2, 0, 0, 5], head, prefix, attribute(8, 9)].concat()
    }

    #[test]
    fn each_link_type_leads_to_its_ip_header() {
        let rows: Vec<(&str, u32, Vec<u8>, Cast)> = vec![
            ("NULL, little-endian", 0, vec![2, 0, 0, 0], Cast::Host),
            ("NULL, big-endian", 0, vec![0, 0, 0, 2], Cast::Host),
            ("NULL, IPv6 of macOS", 0, vec![30, 0, 0, 0], Cast::Host),
            ("LOOP", 108, vec![0, 0, 0, 24], Cast::Host),
            ("Ethernet", 1, ethernet(2, &[8, 0]), Cast::Host),
            ("Ethernet, IPv6", 1, ethernet(2, &[0x86, 0xdd]), Cast::Host),
            ("Ethernet, broadcast", 1, ethernet(0xff, &[8, 0]), Cast::Group),
            ("VLAN", 1, ethernet(2, &[0x81, 0, 0, 5, 8, 0]), Cast::Host),
            ("QinQ", 1, ethernet(2, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0]), Cast::Host),
            ("SNAP", 1, ethernet(2, &[0, 48, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]), Cast::Host),
            ("PPPoE", 1, ethernet(2, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21]), Cast::Host),
            ("raw IP", 101, vec![], Cast::Host),
            ("raw IP of OpenBSD", 14, vec![], Cast::Host),
            ("raw IPv4", 228, vec![], Cast::Host),
            ("NFLOG, input", 239, nflog_header(1, u16::to_le_bytes), Cast::ThisHost),
            ("NFLOG, output, big-endian", 239, nflog_header(3, u16::to_be_bytes), Cast::Outgoing),
            ("cooked, to this host", 113, cooked_v1(0, &[8, 0]), Cast::ThisHost),
            ("cooked, broadcast", 113, cooked_v1(1, &[8, 0]), Cast::Group),
            ("cooked, to another", 113, cooked_v1(3, &[8, 0]), Cast::Other),
            ("cooked, sent", 113, cooked_v1(4, &[8, 0]), Cast::Outgoing),
            ("cooked, VLAN", 113, cooked_v1(0, &[0x81, 0, 0, 5, 8, 0]), Cast::ThisHost),
            ("cooked v2", 276, cooked_v2(0), Cast::ThisHost),
            ("cooked v2, sent", 276, cooked_v2(4), Cast::Outgoing),
            ("PPP", 9, vec![0, 0x21], Cast::Host),
            ("PPP, address and control", 9, vec![0xff, 3, 0, 0x57], Cast::Host),
            ("PPP, short protocol", 50, vec![0xff, 3, 0x21], Cast::Host),
            ("PPP, sent", 204, vec![1, 0xff, 3, 0, 0x21], Cast::Outgoing),
            ("Cisco HDLC", 104, vec![0x0f, 0, 8, 0], Cast::Host),
        ];
        for (row, link_type, header, cast) in rows {
            assert_eq!(found(link_type, &header), Some(cast), "{row}");
        }
    }

    #[test]
    fn other_protocols_and_cut_headers_are_no_ip() {
        assert_eq!(content(1, &ethernet(2, &[8, 6, 0, 1])), Content::Other);
        assert_eq!(content(9, &[0xc0, 0x21, 1, 1]), Content::Other);
        assert_eq!(content(0, &[7, 0, 0, 0, 1]), Content::Other);
        assert_eq!(content(147, &IP), Content::UnknownLink);
        let endless = ethernet(2, &[0x81, 0, 0, 1].repeat(100));
        assert_eq!(content(1, &endless), Content::Other);
        for link_type in 0..300 {
            for length in 0..24 {
                // No panic.
                let _ = content(link_type, &cooked_v2(0).repeat(2)[..length]);
            }
        }
    }
}
