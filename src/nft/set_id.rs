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
    /// (IPv4 source, protocol, port) that was touched lately: a port counts once.
    Seen4,
    /// The same of IPv6 prefixes, by their first address.
    Seen6,
    /// How many distinct ports a source touched. Its elements carry a limit: a lookup would spend a token of it, so no rule looks here.
    Score4,
    /// The same of IPv6 prefixes.
    Score6,
    /// Sources that touched a closed port lately.
    Suspect4,
    /// The same of IPv6 prefixes.
    Suspect6,
    /// Sources that are held until the daemon has judged them, or the short time is over.
    Held4,
    /// The same of IPv6 prefixes.
    Held6,
    /// IPv4 networks that are told of and never held: what no list of the administrator has to name.
    Spared4,
    /// IPv6 prefixes that are told of and never held: those that hold something which is never blocked.
    Spared6,
}

impl SetId {
    /// Every set.
    pub const ALL: [Self; 21] = [
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
        Self::Seen4,
        Self::Seen6,
        Self::Score4,
        Self::Score6,
        Self::Suspect4,
        Self::Suspect6,
        Self::Held4,
        Self::Held6,
        Self::Spared4,
        Self::Spared6,
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
            Self::Seen4 => "seen4",
            Self::Seen6 => "seen6",
            Self::Score4 => "score4",
            Self::Score6 => "score6",
            Self::Suspect4 => "suspect4",
            Self::Suspect6 => "suspect6",
            Self::Held4 => "held4",
            Self::Held6 => "held6",
            Self::Spared4 => "spared4",
            Self::Spared6 => "spared6",
        }
    }

    /// The set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }

    /// The types of its key: one, or several that are concatenated.
    pub fn key(self) -> &'static [DataType] {
        match self {
            Self::Blocked4 | Self::BlockedNets4 | Self::Allowed4 | Self::Score4 | Self::Suspect4 | Self::Held4 | Self::Spared4 => {
                &[DataType::Ipv4Addr]
            }
            Self::Blocked6 | Self::BlockedNets6 | Self::Allowed6 | Self::Score6 | Self::Suspect6 | Self::Held6 | Self::Spared6 => {
                &[DataType::Ipv6Addr]
            }
            Self::TcpPorts | Self::UdpPorts => &[DataType::InetService],
            Self::Protocols => &[DataType::InetProto],
            Self::Interfaces => &[DataType::IfName],
            Self::Services => &[DataType::InetProto, DataType::InetService],
            Self::Seen4 => &[DataType::Ipv4Addr, DataType::InetProto, DataType::InetService],
            Self::Seen6 => &[DataType::Ipv6Addr, DataType::InetProto, DataType::InetService],
        }
    }

    /// Whether each element is given its counter by whoever puts it in, and the set has none of its own to give.
    ///
    /// A counter costs the kernel two memories for each processor, one of them for nothing (nft_set_elem_expr_clone(), nft_set_elem_expr_setup()): 40 % of
    /// what a transaction of many blocks takes. So a repair can bring the blocks first and their counters after them.
    pub fn counts_each(self) -> bool {
        matches!(self, Self::Blocked4 | Self::Blocked6)
    }

    /// Whether the reflex fills it: many elements of short life, whose limits nobody else can write.
    pub fn is_reflex(self) -> bool {
        matches!(self, Self::Seen4 | Self::Seen6 | Self::Score4 | Self::Score6 | Self::Suspect4 | Self::Suspect6 | Self::Held4 | Self::Held6)
    }

    /// Whether it holds ranges (flag `interval`).
    pub fn is_interval(self) -> bool {
        match self {
            Self::BlockedNets4
            | Self::BlockedNets6
            | Self::Allowed4
            | Self::Allowed6
            | Self::TcpPorts
            | Self::UdpPorts
            | Self::Spared4
            | Self::Spared6 => true,
            Self::Blocked4 | Self::Blocked6 | Self::Protocols | Self::Interfaces | Self::Services => false,
            Self::Seen4 | Self::Seen6 | Self::Score4 | Self::Score6 | Self::Suspect4 | Self::Suspect6 | Self::Held4 | Self::Held6 => false,
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
