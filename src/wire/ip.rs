//! IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200; numbers: IANA "IPv6 Extension
//! Header Types").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Error, Layer, be16};

/// Hop-by-hop options.
pub(crate) const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4.
pub(crate) const ICMP: u8 = 1;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// UDP.
pub(crate) const UDP: u8 = 17;
/// Routing header.
pub(crate) const ROUTING: u8 = 43;
/// Fragment header.
pub(crate) const FRAGMENT: u8 = 44;
/// Authentication header (RFC 4302).
pub(crate) const AUTHENTICATION: u8 = 51;
/// ICMP for IPv6.
pub(crate) const ICMPV6: u8 = 58;
/// Destination options.
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
/// SCTP.
pub(crate) const SCTP: u8 = 132;
/// Mobility header (RFC 6275).
pub(crate) const MOBILITY: u8 = 135;
/// Host Identity Protocol (RFC 7401).
pub(crate) const HIP: u8 = 139;
/// Shim6 (RFC 5533).
pub(crate) const SHIM6: u8 = 140;

/// IPv6 extension headers followed in one packet. RFC 8200 has seven, most of them allowed once;
/// the bound limits the work for a packet.
pub(crate) const EXTENSIONS_MAX: usize = 16;

/// An IP header of either version, after skipping the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Offset of the payload in its datagram, bytes; 0 for a first fragment and an unfragmented
    /// packet.
    pub fragment_offset: u16,
    /// IPv4 options are present.
    pub options: bool,
    /// Time to live, or hop limit.
    pub hops_left: u8,
    /// IPv4's identification; 0 for IPv6.
    pub id: u16,
    /// It is a whole datagram: neither truncated by the capture, nor grouped, nor a fragment.
    pub whole: bool,
    /// The payload without link padding; truncated where the capture truncated it.
    pub payload: &'a [u8],
}

impl<'a> Header<'a> {
    /// Parses the header at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Empty or cut bytes, another version than 4 or 6, impossible lengths, too many extension
    /// headers.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes.first().map(|first| first >> 4) {
            None => Err(Error::Empty),
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(version) => Err(Error::NotIp { version }),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, Error> {
        const FIXED: usize = 20;
        let cut = Error::Truncated(Layer::Ipv4);
        let address = |at: usize| -> Option<IpAddr> {
            Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?).into())
        };
        let (source, destination) = (address(12).ok_or(cut)?, address(16).ok_or(cut)?);
        let header_length = usize::from(bytes.first().ok_or(cut)? & 0x0f) * 4;
        // Linux sets the total length to 0 where it has grouped more than 65,535 bytes ("BIG TCP"):
        // use the length of the bytes.
        let (length, fragment) = (be16(bytes, 2).ok_or(cut)?, be16(bytes, 6).ok_or(cut)?);
        let total = match length {
            0 => bytes.len(),
            total => usize::from(total),
        };
        if header_length < FIXED || total < header_length {
            return Err(Error::Length(Layer::Ipv4));
        }
        Ok(Self {
            source,
            destination,
            protocol: *bytes.get(9).ok_or(cut)?,
            hops_left: *bytes.get(8).ok_or(cut)?,
            id: be16(bytes, 4).ok_or(cut)?,
            // Units of 8 bytes (RFC 791, 3.1).
            fragment_offset: (fragment & 0x1fff) << 3,
            // "More fragments", or an offset.
            whole: length != 0 && total <= bytes.len() && fragment & 0x3fff == 0,
            options: header_length > FIXED,
            // More bytes than the total length are link padding; fewer mean that the capture
            // truncated the packet.
            payload: bytes.get(header_length..total.min(bytes.len())).ok_or(cut)?,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, Error> {
        const FIXED: usize = 40;
        let address = |at: usize| -> Option<IpAddr> {
            Some(IpAddr::V6(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?)))
        };
        let cut = Error::Truncated(Layer::Ipv6);
        let (source, destination) = (address(8).ok_or(cut)?, address(24).ok_or(cut)?);
        let length = usize::from(be16(bytes, 4).ok_or(cut)?);
        let (mut protocol, hops_left) = (*bytes.get(6).ok_or(cut)?, *bytes.get(7).ok_or(cut)?);
        // A payload length of 0 means a jumbogram (RFC 2675) or a grouped packet: use the length of
        // the bytes.
        let end = if length == 0 { bytes.len() } else { (FIXED + length).min(bytes.len()) };
        let mut payload = bytes.get(FIXED..end).ok_or(cut)?;
        let mut whole = length != 0 && FIXED + length <= bytes.len();
        let header = |protocol, fragment_offset, whole, payload| {
            let options = false;
            Self {
                source,
                destination,
                protocol,
                fragment_offset,
                options,
                hops_left,
                id: 0,
                whole,
                payload,
            }
        };
        let mut fragment_offset = 0;

        for _ in 0..=EXTENSIONS_MAX {
            let header_length = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 => {
                    extension_length(payload, 8)?
                }
                // AH counts in units of 4 bytes (RFC 4302, 2.2).
                AUTHENTICATION => extension_length(payload, 4)?,
                FRAGMENT => {
                    let offset = be16(payload, 2).ok_or(Error::Truncated(Layer::Extension))?;
                    // Thirteen bits of 8-byte units above three other bits: masking those leaves
                    // the offset in bytes.
                    fragment_offset = offset & 0xfff8;
                    // "More fragments", or an offset.
                    whole &= offset & 0xfff9 == 0;
                    8
                }
                _ => return Ok(header(protocol, fragment_offset, whole, payload)),
            };
            protocol = *payload.first().ok_or(Error::Truncated(Layer::Extension))?;
            payload = payload.get(header_length..).ok_or(Error::Truncated(Layer::Extension))?;
            if fragment_offset != 0 {
                // The rest is the middle of a datagram.
                return Ok(header(protocol, fragment_offset, whole, payload));
            }
        }
        Err(Error::ExtensionChain)
    }
}

/// Length in bytes of the extension header at the start of `payload`: its second byte counts units
/// of `unit` bytes after the first 8 bytes (RFC 8200, 4.2; AH: RFC 4302, 2.2, "minus 2" of 4 bytes
/// each).
fn extension_length(payload: &[u8], unit: usize) -> Result<usize, Error> {
    let count = payload.get(1).ok_or(Error::Truncated(Layer::Extension))?;
    Ok(8 + usize::from(*count) * unit)
}
