//! Parsers of IP packets and their transport headers.
//!
//! They accept any bytes without a panic or allocation, borrow from them, and return an [`Error`]
//! if they are no packet; [`checksum`] tells which packets the kernel would discard. What a packet means is decided in [`crate::probe`]. The capture truncates
//! packets, so a payload may be shorter than its length field says.
//!
//! Follows RFC 791 and 8200 (IP), 9293 (TCP), 768 (UDP), 9260 (SCTP), 792 and 4443 (ICMP).

pub mod checksum;
pub(crate) mod icmp;
pub(crate) mod ip;
pub(crate) mod sctp;
pub mod tcp;
pub(crate) mod udp;

use std::fmt;
use std::net::IpAddr;

/// An IP packet down to its transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Source address, which may be spoofed.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number after the IP header and its extension headers (IANA, "Assigned Internet
    /// Protocol Numbers").
    pub protocol: u8,
    /// The transport part.
    pub transport: Transport<'a>,
    /// The IPv4 header has options. IPv6 extension headers do not count.
    pub ip_options: bool,
    /// IPv4's time to live, IPv6's hop limit, as it arrived.
    pub hops_left: u8,
    /// IPv4's identification; 0 for IPv6.
    pub id: u16,
}

/// The transport part of a [`Packet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'a> {
    /// TCP.
    Tcp(tcp::Segment<'a>),
    /// UDP.
    Udp(udp::Datagram<'a>),
    /// SCTP.
    Sctp(sctp::Message),
    /// ICMP for IPv4.
    Icmp(icmp::Message<'a>),
    /// ICMP for IPv6.
    Icmp6(icmp::Message<'a>),
    /// A fragment other than the first, without a transport header. The kernel reassembles before
    /// the input hook, so such a packet appears only in capture files and ICMP quotations.
    Fragment {
        /// Its offset in the datagram, bytes.
        offset: u16,
    },
    /// Another protocol, or none (IPv6 next header 59).
    Other,
}

/// The layer that an [`Error`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The IPv4 header.
    Ipv4,
    /// The IPv6 header.
    Ipv6,
    /// An IPv6 extension header.
    Extension,
    /// The TCP header.
    Tcp,
    /// The UDP header.
    Udp,
    /// The SCTP common header or its first chunk's.
    Sctp,
    /// The ICMP or ICMPv6 header.
    Icmp,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Extension => "IPv6 extension",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
        }
    }
}

/// Why bytes could not be parsed as a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// There are no bytes.
    Empty,
    /// The first four bits are neither 4 nor 6.
    NotIp {
        /// Their value.
        version: u8,
    },
    /// The bytes end inside a header.
    Truncated(Layer),
    /// A length field contradicts its header. The kernel's own stack drops such a packet without an
    /// answer.
    Length(Layer),
    /// The transport's checksum, of this protocol number, is wrong. The kernel discards the packet.
    Checksum(u8),
    /// More IPv6 extension headers than [`ip::EXTENSIONS_MAX`].
    ExtensionChain,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("parse packet: it is empty"),
            Self::NotIp { version } => write!(f, "parse packet: IP version is {version}"),
            Self::Truncated(layer) => write!(f, "parse {} header: it is cut off", layer.name()),
            Self::Length(layer) => {
                write!(f, "parse {} header: its length field is impossible", layer.name())
            }
            Self::Checksum(protocol) => {
                write!(f, "verify packet: the checksum of IP protocol {protocol} is wrong")
            }
            Self::ExtensionChain => {
                write!(f, "parse IPv6 header: more than {} extension headers", ip::EXTENSIONS_MAX)
            }
        }
    }
}

impl std::error::Error for Error {}

/// Parses a packet that starts with its IP header.
///
/// # Errors
///
/// See [`Error`]. An unknown transport is no error: it is [`Transport::Other`].
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Error> {
    let header = ip::Header::parse(bytes)?;
    let transport = if header.fragment_offset != 0 {
        Transport::Fragment { offset: header.fragment_offset }
    } else {
        match header.protocol {
            ip::ICMP => Transport::Icmp(icmp::Message::parse(header.payload)?),
            ip::TCP => Transport::Tcp(tcp::Segment::parse(header.payload)?),
            ip::UDP => Transport::Udp(udp::Datagram::parse(header.payload)?),
            ip::ICMPV6 => Transport::Icmp6(icmp::Message::parse(header.payload)?),
            ip::SCTP => Transport::Sctp(sctp::Message::parse(header.payload)?),
            _ => Transport::Other,
        }
    };
    Ok(Packet {
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        transport,
        ip_options: header.options,
        hops_left: header.hops_left,
        id: header.id,
    })
}

/// The source of a packet that starts with its IP header; nothing else of it is looked at.
pub(crate) fn source(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.first()? >> 4 {
        4 => bytes.get(12..)?.first_chunk::<4>().copied().map(IpAddr::from),
        6 => bytes.get(8..)?.first_chunk::<16>().copied().map(IpAddr::from),
        _ => None,
    }
}

/// The big-endian 16-bit number at `at`.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian 32-bit number at `at`.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
