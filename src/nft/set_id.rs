//! Which sets the table may have, and what their keys are made of (nft(8), "SETS").

/// The sets that the table may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetId {
    /// Blocked IPv4 hosts.
    Blocked4,
    /// Blocked IPv6 prefixes of `block.ipv6_prefix` bits, by their first address.
    Blocked6,
    /// Blocked IPv4 networks.
    BlockedNets4,
    /// Blocked IPv6 networks.
    BlockedNets6,
    /// IPv4 networks that are never blocked.
    Allowed4,
    /// IPv6 networks that are never blocked.
    Allowed6,
    /// Watched TCP (and SCTP) ports.
    TcpPorts,
    /// Watched UDP ports.
    UdpPorts,
    /// IP protocols other than TCP, UDP and SCTP that a host may speak.
    Protocols,
    /// Watched interfaces.
    Interfaces,
    /// (protocol, port) pairs that a local service took lately.
    Services,
}

impl SetId {
    /// Every set.
    pub const ALL: [Self; 11] = [
        Self::Blocked4,
        Self::Blocked6,
        Self::BlockedNets4,
        Self::BlockedNets6,
        Self::Allowed4,
        Self::Allowed6,
        Self::TcpPorts,
        Self::UdpPorts,
        Self::Protocols,
        Self::Interfaces,
        Self::Services,
    ];

    /// Its name in the kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked4 => "blocked4",
            Self::Blocked6 => "blocked6",
            Self::BlockedNets4 => "blocked_nets4",
            Self::BlockedNets6 => "blocked_nets6",
            Self::Allowed4 => "allowed4",
            Self::Allowed6 => "allowed6",
            Self::TcpPorts => "tcp_ports",
            Self::UdpPorts => "udp_ports",
            Self::Protocols => "protocols",
            Self::Interfaces => "interfaces",
            Self::Services => "services",
        }
    }

    /// The set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }

    /// The types of its key: one, or several that are concatenated.
    pub fn key(self) -> &'static [DataType] {
        match self {
            Self::Blocked4 | Self::BlockedNets4 | Self::Allowed4 => &[DataType::Ipv4Addr],
            Self::Blocked6 | Self::BlockedNets6 | Self::Allowed6 => &[DataType::Ipv6Addr],
            Self::TcpPorts | Self::UdpPorts => &[DataType::InetService],
            Self::Protocols => &[DataType::InetProto],
            Self::Interfaces => &[DataType::IfName],
            Self::Services => &[DataType::InetProto, DataType::InetService],
        }
    }

    /// Whether each element is given its counter by whoever puts it in, and the set has none of its own to give.
    ///
    /// A counter costs the kernel two memories for each processor, one of them for nothing (nft_set_elem_expr_clone(), nft_set_elem_expr_setup()): 40 % of
    /// what a transaction of many blocks takes. So a repair can bring the blocks first and their counters after them.
    pub fn counts_each(self) -> bool {
        matches!(self, Self::Blocked4 | Self::Blocked6)
    }

    /// Whether it holds ranges (flag `interval`).
    pub fn is_interval(self) -> bool {
        match self {
            Self::BlockedNets4 | Self::BlockedNets6 | Self::Allowed4 | Self::Allowed6 | Self::TcpPorts | Self::UdpPorts => true,
            Self::Blocked4 | Self::Blocked6 | Self::Protocols | Self::Interfaces | Self::Services => false,
        }
    }
}

/// nft's data types, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// `ipv4_addr`, 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `inet_proto`, 1 byte.
    InetProto,
    /// `inet_service`, 2 bytes.
    InetService,
    /// `ifname`, 16 bytes (IFNAMSIZ).
    IfName,
}
