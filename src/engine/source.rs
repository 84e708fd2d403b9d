//! Who is accounted and what is blocked: an address range in CIDR form that carries its own length.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// An address together with its prefix length, host bits zero. An account is a `/32` or an IPv6 prefix of `block.ipv6_prefix` bits; a block may be laid on
/// any network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    addr: IpAddr,
    prefix_len: u8,
}

impl Source {
    /// The account that `address` belongs to: itself for IPv4 (an IPv4-mapped address is the IPv4 address), the prefix of `ipv6_prefix` bits for IPv6 (more
    /// than 128 counts as 128).
    pub fn of(address: IpAddr, ipv6_prefix: u8) -> Self {
        match address.to_canonical() {
            addr @ IpAddr::V4(_) => Self { addr, prefix_len: 32 },
            IpAddr::V6(address) => {
                let prefix_len = ipv6_prefix.min(128);
                Self { addr: IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask(prefix_len))), prefix_len }
            }
        }
    }

    /// The least source that begins at an address, in the order of sources: by first address, wider before narrower.
    pub(crate) fn first_at(addr: IpAddr) -> Self {
        Self { addr, prefix_len: 0 }
    }

    /// The first address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// How many leading bits all its addresses share.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The same as a network.
    pub fn network(self) -> IpNet {
        // The constructors admit no longer prefix than the family has.
        IpNet::new(self.addr, self.prefix_len).unwrap_or_else(|_| IpNet::from(self.addr))
    }

    /// Whether it is one address alone.
    pub fn is_single(self) -> bool {
        self.prefix_len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Whether every address of `other` is one of its own.
    pub fn contains(self, other: Self) -> bool {
        self.network().contains(&other.network())
    }
}

impl From<IpNet> for Source {
    /// Host bits are cut off.
    fn from(network: IpNet) -> Self {
        Self { addr: network.network(), prefix_len: network.prefix_len() }
    }
}

/// As people write it: an address alone without a length, everything else in CIDR form.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { self.addr.fmt(f) } else { write!(f, "{}/{}", self.addr, self.prefix_len) }
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

/// The IPv6 prefix of `bits` bits that `network` lies in; a wider network stays as it is.
pub fn widened(network: IpNet, bits: u8) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(v6) => Ipv6Net::new(v6.addr(), v6.prefix_len().min(bits)).map_or(network, |wide| IpNet::V6(wide.trunc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_people_write_it() {
        let shown = |text: &str, prefix| Source::of(text.parse().unwrap(), prefix).to_string();
        assert_eq!(shown("192.0.2.1", 64), "192.0.2.1");
        assert_eq!(shown("::ffff:192.0.2.1", 64), "192.0.2.1");
        assert_eq!(shown("2001:db8::1", 64), "2001:db8::/64");
        assert_eq!(shown("2001:db8::1", 128), "2001:db8::1");
        assert_eq!(Source::from("10.1.2.3/8".parse::<IpNet>().unwrap()).to_string(), "10.0.0.0/8");
    }

    #[test]
    fn equal_networks_are_equal_sources() {
        assert_eq!(Source::of("2001:db8::5".parse().unwrap(), 48), Source::from("2001:db8:0:7::/48".parse::<IpNet>().unwrap()));
    }
}
