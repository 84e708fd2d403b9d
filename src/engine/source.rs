//! A source: an address and its prefix length, used for hosts, IPv6 prefixes and networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

/// An address with its prefix length; the host bits are zero. Ports are counted per IPv4 address or
/// per IPv6 prefix of `block.ipv6` (an account); a block may cover any network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    addr: IpAddr,
    prefix_len: u8,
}

/// The prefixes of NAT64 translators (RFC 6052, 2.1 and RFC 8215): an address in them stands for an
/// IPv4 host, and a /64 of them for all of IPv4.
pub fn nat64() -> [IpNet; 2] {
    [
        Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96).into(),
        Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48).into(),
    ]
}

/// Whether one of these prefixes contains the address: in two comparisons, since every packet asks.
fn is_nat64(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    bits >> 32 == 0x64_ff9b << 64 || bits >> 80 == 0x64_ff9b_0001
}

impl Source {
    /// The account that `address` belongs to: the address for IPv4, IPv4-mapped and NAT64 addresses,
    /// the prefix of `ipv6_bits` bits (at most 128) for other IPv6 addresses.
    // Inlined: it must not pass through memory, from where the bytes of an IPv4 address could not be
    // read together before every earlier packet's accesses are over.
    #[inline]
    pub fn of(address: IpAddr, ipv6_bits: u8) -> Self {
        match address.to_canonical() {
            addr @ IpAddr::V4(_) => Self { addr, prefix_len: 32 },
            IpAddr::V6(address) => {
                let prefix_len = if is_nat64(address) { 128 } else { ipv6_bits.min(128) };
                Self {
                    addr: IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask(prefix_len))),
                    prefix_len,
                }
            }
        }
    }

    /// The network of `bits` bits around an address.
    pub(super) fn around(address: IpAddr, bits: u8) -> Self {
        Self::from(IpNet::new(address, bits).unwrap_or_else(|_| IpNet::from(address)))
    }

    /// The source, if it is an IPv6 prefix and no single host.
    pub(super) fn to_prefix(self) -> Option<Self> {
        (self.addr.is_ipv6() && !self.is_single()).then_some(self)
    }

    /// The smallest source with this first address: sources sort by address, wider before narrower.
    pub(crate) fn first_at(addr: IpAddr) -> Self {
        Self { addr, prefix_len: 0 }
    }

    /// The first address.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// The first address as a number; IPv4 addresses in their mapped form (RFC 4291, 2.5.5.2).
    #[inline]
    pub(super) fn bits(self) -> u128 {
        match self.addr {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    /// The prefix length in bits.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The source as an [`IpNet`].
    pub fn network(self) -> IpNet {
        // The constructors allow no prefix longer than the family's.
        IpNet::new(self.addr, self.prefix_len).unwrap_or_else(|_| IpNet::from(self.addr))
    }

    /// Whether it is a host behind a NAT64 translator.
    pub fn is_nat64(self) -> bool {
        matches!(self.addr, IpAddr::V6(address) if self.is_single() && is_nat64(address))
    }

    /// Whether it is a single address (`/32` or `/128`).
    pub fn is_single(self) -> bool {
        self.prefix_len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Whether it covers every address of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.network().contains(&other.network())
    }
}

impl From<IpNet> for Source {
    /// Clears the host bits.
    fn from(network: IpNet) -> Self {
        Self { addr: network.network(), prefix_len: network.prefix_len() }
    }
}

/// CIDR form; a single address is written without its length.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            self.addr.fmt(f)
        } else {
            write!(f, "{}/{}", self.addr, self.prefix_len)
        }
    }
}

/// The mask of an IPv6 prefix of `bits` bits.
pub(super) fn mask(bits: u8) -> u128 {
    match bits {
        0 => 0,
        1..=128 => u128::MAX << (128 - u32::from(bits)),
        _ => u128::MAX,
    }
}

/// The IPv6 prefix of `bits` bits around `network`; IPv4, NAT64 and wider networks are returned
/// unchanged.
pub fn widened(network: IpNet, bits: u8) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(v6) if is_nat64(v6.addr()) => network,
        IpNet::V6(v6) => Ipv6Net::new(v6.addr(), v6.prefix_len().min(bits))
            .map_or(network, |wide| IpNet::V6(wide.trunc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_addresses_display_without_a_length() {
        let shown = |text: &str, prefix| Source::of(text.parse().unwrap(), prefix).to_string();
        assert_eq!(shown("192.0.2.1", 64), "192.0.2.1");
        assert_eq!(shown("::ffff:192.0.2.1", 64), "192.0.2.1");
        assert_eq!(shown("2001:db8::1", 64), "2001:db8::/64");
        assert_eq!(shown("2001:db8::1", 128), "2001:db8::1");
        assert_eq!(Source::from("10.1.2.3/8".parse::<IpNet>().unwrap()).to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_host_behind_nat64_is_a_source_of_its_own() {
        for (address, prefix_len) in [
            ("64:ff9b::203.0.113.9", 128),
            ("64:ff9b:1:fffe::203.0.113.9", 128),
            ("64:ff9b:0:0:1::", 64),
            ("64:ff9b:2::1", 64),
        ] {
            let source = Source::of(address.parse().unwrap(), 64);
            assert_eq!(source.prefix_len(), prefix_len, "{address}");
            assert_eq!(source.is_nat64(), prefix_len == 128, "{address}");
        }
    }

    #[test]
    fn nat64_is_what_its_prefixes_contain() {
        for prefix in nat64() {
            let IpNet::V6(prefix) = prefix else { panic!("{prefix}") };
            let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
            for (bits, inside) in
                [(first - 1, false), (first, true), (last, true), (last + 1, false)]
            {
                assert_eq!(is_nat64(Ipv6Addr::from_bits(bits)), inside, "{bits:x}");
            }
        }
    }

    #[test]
    fn equal_networks_are_equal_sources() {
        assert_eq!(
            Source::of("2001:db8::5".parse().unwrap(), 48),
            Source::from("2001:db8:0:7::/48".parse::<IpNet>().unwrap())
        );
    }
}
