//! A probe: one packet or handshake that touched a port of this host.
//!
//! A [`Probe`] is all that the engine learns of a packet. Scans have nmap's names (nmap(1), "Port
//! Scanning Techniques").

mod classify;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use classify::NotProbe;
pub(crate) use classify::{FIRST_UNPRIVILEGED, RESERVED, TRACEPATH, TRACEROUTE, UDP_SERVICES};

/// The protocol that a probe was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260).
    Sctp,
    /// A bare IP protocol; the "port" is then the protocol's number (nmap's `-sO`).
    Ip,
}

impl Transport {
    /// The lower-case name, as in `tcp/22`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Ip => "ip",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port of a transport, written `tcp/22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// The transport.
    pub transport: Transport,
    /// Port number, or protocol number with [`Transport::Ip`].
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.number)
    }
}

/// Text that is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPort;

impl fmt::Display for NoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a port: write tcp/22, udp/53, or 22 for TCP")
    }
}

impl std::error::Error for NoPort {}

impl FromStr for Port {
    type Err = NoPort;

    /// Reads `tcp/22` or `udp/53`; a number alone is a port of TCP.
    fn from_str(text: &str) -> Result<Self, NoPort> {
        let (transport, number) = text.split_once('/').unwrap_or(("tcp", text));
        let transport = [Transport::Tcp, Transport::Udp]
            .into_iter()
            .find(|known| known.name() == transport)
            .ok_or(NoPort)?;
        match number.parse() {
            Ok(number @ 1..) => Ok(Self { transport, number }),
            _ => Err(NoPort),
        }
    }
}

/// The kind of scan that a probe belongs to, by nmap's names.
///
/// An ACK and a Window scan send the same packet and differ in how the scanner reads the answer:
/// both are [`ScanKind::Ack`] here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ScanKind {
    /// A completed handshake (`-sT` against a decoy).
    Connect,
    /// SYN without ACK (`-sS`, and the first packet of `-sT`).
    Syn,
    /// FIN alone (`-sF`).
    Fin,
    /// No flag at all (`-sN`).
    Null,
    /// FIN, PSH and URG (`-sX`).
    Xmas,
    /// FIN and ACK (`-sM`).
    Maimon,
    /// ACK without SYN, FIN, RST (`-sA`, `-sW`).
    Ack,
    /// Flags that neither nmap's scans nor connections send, such as SYN+FIN (`--scanflags`).
    CustomFlags,
    /// A UDP datagram (`-sU`).
    Udp,
    /// An SCTP INIT chunk (`-sY`).
    SctpInit,
    /// An SCTP COOKIE ECHO chunk (`-sZ`).
    SctpCookieEcho,
    /// A packet of an IP protocol that this host does not speak (`-sO`).
    IpProtocol,
    /// A FIN, ACK or datagram as a service sends it: from a well-known port, or to a port that
    /// clients use. Never counts toward a block.
    Reply,
    /// One port of many addresses of this host (`nmap -p 445 NETWORK`).
    Sweep,
    /// Echo requests to many addresses of this host (`-sn`, `-PE`). A packet of this kind alone is no
    /// evidence.
    PingSweep,
}

impl ScanKind {
    /// All kinds, in the order of the enum.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Syn,
        Self::Fin,
        Self::Null,
        Self::Xmas,
        Self::Maimon,
        Self::Ack,
        Self::CustomFlags,
        Self::Udp,
        Self::SctpInit,
        Self::SctpCookieEcho,
        Self::IpProtocol,
        Self::Reply,
        Self::Sweep,
        Self::PingSweep,
    ];

    /// The name in logs and element comments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Syn => "syn",
            Self::Fin => "fin",
            Self::Null => "null",
            Self::Xmas => "xmas",
            Self::Maimon => "maimon",
            Self::Ack => "ack",
            Self::CustomFlags => "custom-flags",
            Self::Udp => "udp",
            Self::SctpInit => "sctp-init",
            Self::SctpCookieEcho => "sctp-cookie-echo",
            Self::IpProtocol => "ip-protocol",
            Self::Reply => "reply",
            Self::Sweep => "sweep",
            Self::PingSweep => "ping-sweep",
        }
    }
}

impl fmt::Display for ScanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScanKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

/// What a SYN shows of the program that sent it. No stack of an operating system sends such ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Signature {
    /// Nothing.
    #[default]
    None,
    /// masscan: the IP id is destination address, destination port and sequence number, combined by
    /// exclusive or.
    Masscan,
    /// Mirai and its descendants: the sequence number is the destination address.
    Mirai,
    /// nmap's window. All SYNs that one run of it sends first have this sequence number, whatever
    /// source address they have.
    Sequence(u32),
}

impl Signature {
    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "unknown",
            Self::Masscan => "masscan",
            Self::Mirai => "mirai",
            Self::Sequence(_) => "nmap",
        }
    }
}

/// One packet or handshake that touched a port of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The source address, which may be spoofed.
    pub source: IpAddr,
    /// The address of this host.
    pub destination: IpAddr,
    /// The port.
    pub port: Port,
    /// The kind of scan.
    pub scan: ScanKind,
    /// Closed connections and sockets cause such packets too, so this evidence alone never triggers
    /// at a low count.
    pub ambiguous: bool,
    /// The IPv4 header has options (shown in the classic log).
    pub ip_options: bool,
    /// What it shows of the program that sent it.
    pub signature: Signature,
}
