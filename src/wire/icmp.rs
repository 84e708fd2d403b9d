//! ICMP (RFC 792) and ICMPv6 (RFC 4443): type, code, and the packet that an error message quotes.

use std::net::IpAddr;

use super::{Error, Layer, be16, ip};

/// An ICMP or ICMPv6 message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The bytes after the first eight; truncated where the capture truncated them.
    pub body: &'a [u8],
}

/// The packet that an ICMP error quotes; it was sent from this host's address, genuine or spoofed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source: an address of this host, if the message is genuine.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its protocol number.
    pub protocol: u8,
    /// Its source and destination port for TCP, UDP and SCTP, if it is a first fragment and the
    /// quotation is long enough.
    pub ports: Option<(u16, u16)>,
}

impl<'a> Message<'a> {
    /// Parses the message at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Fewer than 8 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let cut = Error::Truncated(Layer::Icmp);
        match bytes {
            [kind, code, _, _, _, _, _, _, body @ ..] => {
                Ok(Self { kind: *kind, code: *code, body })
            }
            _ => Err(cut),
        }
    }

    /// The packet that the message quotes, read as an ICMP error of IPv4: destination unreachable,
    /// source quench, redirect, time exceeded, parameter problem. `None` for other types and for a
    /// quotation that is no packet.
    pub fn quoted_v4(&self) -> Option<Quoted> {
        matches!(self.kind, 3 | 4 | 5 | 11 | 12).then(|| quoted(self.body)).flatten()
    }

    /// The packet that the message quotes, read as an ICMPv6 error: types 1 to 127 are errors (RFC
    /// 4443, 2.1). `None` for informational messages and for a quotation that is no packet.
    pub fn quoted_v6(&self) -> Option<Quoted> {
        matches!(self.kind, 1..=127).then(|| quoted(self.body)).flatten()
    }
}

/// RFC 792 guarantees the header and eight bytes: enough for the ports, too few for a TCP header,
/// so [`super::parse`] cannot be used.
fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let header = ip::Header::parse(bytes).ok()?;
    let has_ports =
        matches!(header.protocol, ip::TCP | ip::UDP | ip::SCTP) && header.fragment_offset == 0;
    let ports =
        has_ports.then(|| Some((be16(header.payload, 0)?, be16(header.payload, 2)?))).flatten();
    Some(Quoted {
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        ports,
    })
}
