//! Who is accounted and blocked: an IPv4 address or an IPv6 prefix, or a network that the administrator named.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// One accountable sender: an IPv4 address, or an IPv6 prefix, since one machine owns a whole prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first address of an IPv6 prefix of `block.ipv6_prefix` bits.
    V6(Ipv6Addr),
}

impl Source {
    /// The source that `address` belongs to, with IPv6 addresses cut to `ipv6_prefix` bits (0..=128; more counts as 128).
    pub fn of(address: IpAddr, ipv6_prefix: u8) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(Ipv6Addr::from_bits(address.to_bits() & mask(ipv6_prefix))),
        }
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(address) => IpAddr::V4(address),
            Self::V6(address) => IpAddr::V6(address),
        }
    }

    /// The network that this source stands for.
    pub fn network(self, ipv6_prefix: u8) -> IpNet {
        match self {
            Self::V4(address) => IpNet::from(IpAddr::V4(address)),
            Self::V6(address) => Ipv6Net::new(address, ipv6_prefix.min(128)).map_or_else(|_| IpNet::from(IpAddr::V6(address)), IpNet::V6),
        }
    }
}

/// The network mask of an IPv6 prefix of `bits` bits.
pub fn mask(bits: u8) -> u128 {
    match bits {
        0 => 0,
        1..=128 => u128::MAX << (128 - u32::from(bits)),
        _ => u128::MAX,
    }
}

/// What a block is laid on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// An element of `blocked4` or `blocked6`.
    Host(Source),
    /// An element of `blocked_nets4` or `blocked_nets6`: only the administrator blocks networks.
    Network(IpNet),
}

impl Subject {
    /// The network that is blocked, a single address as `/32` or `/128`.
    pub fn network(self, ipv6_prefix: u8) -> IpNet {
        match self {
            Self::Host(source) => source.network(ipv6_prefix),
            Self::Network(network) => network,
        }
    }

    /// As people write it: an address without a prefix length where it is one host, a network in CIDR form otherwise.
    pub fn display(self, ipv6_prefix: u8) -> impl fmt::Display {
        let network = self.network(ipv6_prefix);
        if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
    }
}
