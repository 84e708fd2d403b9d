//! A list of networks, kept as merged, sorted ranges for fast lookups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of networks with lookups by binary search: about twenty comparisons for a million entries,
/// and no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    /// The networks as given, sorted, for error messages.
    networks: Vec<IpNet>,
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ranges<T> {
    /// First and last address of each.
    ranges: Vec<(T, T)>,
    /// A bit for each first byte of an address in one of them: most sources have another, and every
    /// probe asks.
    bytes: [u64; 4],
}

/// An address as a number.
trait Bits: Ord + Copy {
    fn first_byte(self) -> u8;
    fn next(self) -> Self;
}

impl Bits for u32 {
    fn first_byte(self) -> u8 {
        (self >> 24) as u8
    }

    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

impl Bits for u128 {
    fn first_byte(self) -> u8 {
        (self >> 120) as u8
    }

    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

impl AllowList {
    /// Special addresses that are never blocked: the unspecified address, loopback, link-local,
    /// multicast and broadcast of both families (RFC 6890). What is reserved beside them is unicast
    /// in Linux, and any host can have it. Hosts reach their IPv6 router at its link-local
    /// address, so blocking one could cut the connection.
    pub fn always() -> Self {
        const V4: [(Ipv4Addr, u8); 5] = [
            (Ipv4Addr::UNSPECIFIED, 32),
            (Ipv4Addr::new(127, 0, 0, 0), 8),
            (Ipv4Addr::new(169, 254, 0, 0), 16),
            (Ipv4Addr::new(224, 0, 0, 0), 4),
            (Ipv4Addr::BROADCAST, 32),
        ];
        const V6: [(Ipv6Addr, u8); 4] = [
            (Ipv6Addr::UNSPECIFIED, 127),
            (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
            (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
        ];
        let v4 =
            V4.into_iter().filter_map(|(address, bits)| IpNet::new(IpAddr::V4(address), bits).ok());
        let v6 =
            V6.into_iter().filter_map(|(address, bits)| IpNet::new(IpAddr::V6(address), bits).ok());
        v4.chain(v6).collect()
    }

    /// Whether one of the networks contains `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.overlaps(&IpNet::from(address))
    }

    /// Whether `network` shares an address with one of the networks.
    pub fn overlaps(&self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(net) => self.v4.overlap(u32::from(net.network()), u32::from(net.broadcast())),
            IpNet::V6(net) => {
                self.v6.overlap(u128::from(net.network()), u128::from(net.broadcast()))
            }
        }
    }

    /// Whether the list contains every address of `network`.
    pub fn covers(&self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(net) => self.v4.cover(u32::from(net.network()), u32::from(net.broadcast())),
            IpNet::V6(net) => self.v6.cover(u128::from(net.network()), u128::from(net.broadcast())),
        }
    }

    /// The first given network that shares an address with `network`, for error messages: a linear
    /// search.
    pub fn overlapping(&self, network: &IpNet) -> Option<IpNet> {
        if !self.overlaps(network) {
            return None;
        }
        self.networks.iter().find(|own| own.contains(network) || network.contains(*own)).copied()
    }

    /// The networks, sorted, each once.
    pub fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}

impl FromIterator<IpNet> for AllowList {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut networks: Vec<IpNet> =
            networks.into_iter().map(|network| network.trunc()).collect();
        networks.sort_unstable();
        networks.dedup();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &networks {
            match network {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6), networks }
    }
}

impl<T: Bits> Ranges<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(range) if first <= range.1.next() => range.1 = range.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        let mut bytes = [0; 4];
        for byte in merged.iter().flat_map(|(first, last)| first.first_byte()..=last.first_byte()) {
            if let Some(word) = bytes.get_mut(usize::from(byte / 64)) {
                *word |= 1 << (byte % 64);
            }
        }
        Self { ranges: merged, bytes }
    }

    /// Whether one of them may have an address of `first..=last`.
    #[inline]
    fn may_overlap(&self, first: T, last: T) -> bool {
        let byte = first.first_byte();
        let word = self.bytes.get(usize::from(byte / 64)).copied().unwrap_or(0);
        word >> (byte % 64) & 1 == 1 || last.first_byte() != byte
    }

    /// The last one that starts at or before `address`.
    fn before(&self, address: T) -> Option<&(T, T)> {
        let after = self.ranges.partition_point(|range| range.0 <= address);
        self.ranges.get(after.checked_sub(1)?)
    }

    /// Whether one of them shares an address with `first..=last`.
    #[inline]
    fn overlap(&self, first: T, last: T) -> bool {
        self.may_overlap(first, last) && self.before(last).is_some_and(|range| range.1 >= first)
    }

    /// Whether one of them contains `first..=last`; adjacent ranges are merged, so one must suffice.
    fn cover(&self, first: T, last: T) -> bool {
        self.before(first).is_some_and(|range| range.1 >= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(networks: &[&str]) -> AllowList {
        networks
            .iter()
            .map(|text| {
                text.parse::<IpNet>()
                    .unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap()))
            })
            .collect()
    }

    #[test]
    fn prefix_around_an_allowed_address_overlaps() {
        let list = list(&["2001:db8::53"]);
        assert!(list.overlaps(&"2001:db8::/64".parse().unwrap()));
        assert!(!list.overlaps(&"2001:db8:0:1::/64".parse().unwrap()));
        assert_eq!(
            list.overlapping(&"2001:db8::/48".parse().unwrap()).unwrap().to_string(),
            "2001:db8::53/128"
        );
    }

    #[test]
    fn host_bits_of_entries_are_ignored() {
        assert!(list(&["10.0.0.5/24"]).contains("10.0.0.200".parse().unwrap()));
    }

    // P1
    #[test]
    fn link_local_and_loopback_are_always_on_the_list() {
        let always = AllowList::always();
        for address in [
            "127.0.0.1",
            "::1",
            "fe80::1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "::",
            "0.0.0.0",
            "::ffff:1.2.3.4",
        ] {
            assert!(always.contains(address.parse().unwrap()), "{address}");
        }
        for address in [
            "192.0.2.1",
            "2001:db8::1",
            "::2",
            "223.255.255.255",
            "0.0.0.1",
            "240.0.0.0",
            "255.255.255.254",
        ] {
            assert!(!always.contains(address.parse().unwrap()), "{address}");
        }
    }

    proptest! {
        // P1
        #[test]
        fn range_lookups_agree_with_every_network(networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20), asked: u32, bits in 0u8..=32) {
            let networks: Vec<IpNet> = networks.into_iter().map(|(address, bits)| IpNet::new(Ipv4Addr::from(address).into(), bits).unwrap()).collect();
            let asked = IpNet::new(Ipv4Addr::from(asked).into(), bits).unwrap().trunc();
            let list: AllowList = networks.iter().copied().collect();
            let slow = networks.iter().any(|network| network.trunc().contains(&asked) || asked.contains(&network.trunc()));
            prop_assert_eq!(list.overlaps(&asked), slow);
            prop_assert_eq!(list.overlapping(&asked).is_some(), slow);
            let ends = [asked.network(), asked.broadcast()];
            let within = list.covers(&asked);
            prop_assert!(!within || ends.iter().all(|end| list.contains(*end)));
            prop_assert!(within || !networks.iter().any(|network| network.trunc().contains(&asked)));
        }

        #[test]
        fn ipv6_range_lookups_agree_with_every_network(networks in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..20), near in 0usize..20, flip in 0u32..128) {
            let networks: Vec<IpNet> = networks.into_iter().map(|(address, bits)| IpNet::new(Ipv6Addr::from(address).into(), bits).unwrap()).collect();
            let Some(IpAddr::V6(base)) = networks.get(near).map(|network| network.addr()) else { return Ok(()) };
            let asked = IpAddr::V6(Ipv6Addr::from(u128::from(base) ^ (1 << flip)));
            let list: AllowList = networks.iter().copied().collect();
            prop_assert_eq!(list.contains(asked), networks.iter().any(|network| network.contains(&asked)));
        }
    }
}
