//! Elements of sets: keys, elements to add, and elements as the kernel reports them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::schema::{DataType, SetSpec};

/// The longest key that is used: an IPv6 address, a protocol and a port, each in whole registers of
/// 4 bytes.
pub const KEY_MAX: usize = 24;

/// The key of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A port.
    Port(u16),
    /// An IP protocol.
    Protocol(u8),
    /// An interface's name, padded with NULs (IFNAMSIZ).
    Interface([u8; 16]),
    /// A port of an IP protocol.
    Service(u8, u16),
    /// An address, an IP protocol and a port.
    Touch(IpAddr, u8, u16),
}

impl From<IpAddr> for Key {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

impl Key {
    /// The key of an interface; a name longer than the kernel's 15 bytes is cut.
    pub fn interface(name: &str) -> Self {
        let mut padded = [0; 16];
        for (place, byte) in padded.iter_mut().take(15).zip(name.bytes()) {
            *place = byte;
        }
        Self::Interface(padded)
    }

    /// First and last address of a network.
    pub fn network(network: IpNet) -> RangeInclusive<Self> {
        Self::from(network.network())..=Self::from(network.broadcast())
    }

    /// The key as the kernel has it: the bytes, and how many of them count. Fields of a
    /// concatenation fill whole registers of 4 bytes.
    pub fn bytes(self) -> ([u8; KEY_MAX], usize) {
        let mut bytes = [0; KEY_MAX];
        let mut put = |at: usize, value: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        };
        let length = match self {
            Self::V4(address) => {
                put(0, &address.octets());
                4
            }
            Self::V6(address) => {
                put(0, &address.octets());
                16
            }
            Self::Port(port) => {
                put(0, &port.to_be_bytes());
                2
            }
            Self::Protocol(protocol) => {
                put(0, &[protocol]);
                1
            }
            Self::Interface(name) => {
                put(0, &name);
                16
            }
            Self::Service(protocol, port) => {
                put(0, &[protocol]);
                put(4, &port.to_be_bytes());
                8
            }
            Self::Touch(IpAddr::V4(address), protocol, port) => {
                put(0, &address.octets());
                put(4, &[protocol]);
                put(8, &port.to_be_bytes());
                12
            }
            Self::Touch(IpAddr::V6(address), protocol, port) => {
                put(0, &address.octets());
                put(16, &[protocol]);
                put(20, &port.to_be_bytes());
                24
            }
        };
        (bytes, length)
    }

    /// Reads a key of these types; `None` if the bytes are not such a key.
    pub fn parse(types: &[DataType], bytes: &[u8]) -> Option<Self> {
        match types {
            [DataType::Ipv4Addr] => {
                Some(Self::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)))
            }
            [DataType::Ipv6Addr] => {
                Some(Self::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)))
            }
            [DataType::InetService] => Some(Self::Port(u16::from_be_bytes(bytes.try_into().ok()?))),
            [DataType::InetProto] => match bytes {
                [protocol] => Some(Self::Protocol(*protocol)),
                _ => None,
            },
            [DataType::IfName] => Some(Self::Interface(bytes.try_into().ok()?)),
            [DataType::InetProto, DataType::InetService] => match bytes {
                [protocol, _, _, _, high, low, _, _] => {
                    Some(Self::Service(*protocol, u16::from_be_bytes([*high, *low])))
                }
                _ => None,
            },
            [
                address @ (DataType::Ipv4Addr | DataType::Ipv6Addr),
                DataType::InetProto,
                DataType::InetService,
            ] => {
                let length = if *address == DataType::Ipv4Addr { 4 } else { 16 };
                let (source, rest) = bytes.split_at_checked(length)?;
                let source = Self::parse(&[*address], source)?.address()?;
                match rest {
                    [protocol, _, _, _, high, low, _, _] => {
                        Some(Self::Touch(source, *protocol, u16::from_be_bytes([*high, *low])))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The key after this one, where an interval that ends here has its end element; `None` after
    /// the last.
    pub fn successor(self) -> Option<Self> {
        match self {
            Self::V4(address) => {
                address.to_bits().checked_add(1).map(|bits| Self::V4(Ipv4Addr::from_bits(bits)))
            }
            Self::V6(address) => {
                address.to_bits().checked_add(1).map(|bits| Self::V6(Ipv6Addr::from_bits(bits)))
            }
            Self::Port(port) => port.checked_add(1).map(Self::Port),
            Self::Protocol(protocol) => protocol.checked_add(1).map(Self::Protocol),
            // Sets of these have no intervals.
            Self::Interface(_) | Self::Service(..) | Self::Touch(..) => None,
        }
    }

    /// The key before this one; `None` before the first.
    pub fn predecessor(self) -> Option<Self> {
        match self {
            Self::V4(address) => {
                address.to_bits().checked_sub(1).map(|bits| Self::V4(Ipv4Addr::from_bits(bits)))
            }
            Self::V6(address) => {
                address.to_bits().checked_sub(1).map(|bits| Self::V6(Ipv6Addr::from_bits(bits)))
            }
            Self::Port(port) => port.checked_sub(1).map(Self::Port),
            Self::Protocol(protocol) => protocol.checked_sub(1).map(Self::Protocol),
            Self::Interface(_) | Self::Service(..) | Self::Touch(..) => None,
        }
    }

    /// The last key of the same type.
    pub fn last(self) -> Self {
        match self {
            Self::V4(_) => Self::V4(Ipv4Addr::BROADCAST),
            Self::V6(_) => Self::V6(Ipv6Addr::from_bits(u128::MAX)),
            Self::Port(_) => Self::Port(u16::MAX),
            Self::Protocol(_) => Self::Protocol(u8::MAX),
            Self::Interface(_) | Self::Service(..) | Self::Touch(..) => self,
        }
    }

    /// The address, if it is one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some(IpAddr::V4(address)),
            Self::V6(address) => Some(IpAddr::V6(address)),
            Self::Port(_)
            | Self::Protocol(_)
            | Self::Interface(_)
            | Self::Service(..)
            | Self::Touch(..) => None,
        }
    }
}

/// As nft writes it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Interface(name) => {
                let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
                write!(f, "\"{}\"", String::from_utf8_lossy(text))
            }
            Self::Service(protocol, port) => write!(f, "{protocol} . {port}"),
            Self::Touch(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
        }
    }
}

/// A range as nft writes it: one key, a network, or `first-last`.
pub(super) struct DisplayRange(pub Key, pub Key);

impl fmt::Display for DisplayRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, last) = *self;
        if first == last {
            return first.fmt(f);
        }
        match prefix_len(first, last) {
            Some(length) => write!(f, "{first}/{length}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

/// The prefix length of the network that is exactly `first..=last`; `None` if there is none.
fn prefix_len(first: Key, last: Key) -> Option<u32> {
    let (first, last, width) = match (first, last) {
        (Key::V4(first), Key::V4(last)) => {
            (u128::from(first.to_bits()), u128::from(last.to_bits()), 32)
        }
        (Key::V6(first), Key::V6(last)) => (first.to_bits(), last.to_bits(), 128),
        _ => return None,
    };
    let host = first ^ last;
    // The differing bits are the lowest ones, all zero in the first address and all one in the
    // last.
    let contiguous = host & host.wrapping_add(1) == 0;
    (contiguous && first & host == 0 && last & host == host)
        .then(|| width - (128 - host.leading_zeros()))
}

/// An element to add to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its key, or the first of its range.
    pub key: Key,
    /// The last key of its range, in sets of intervals; `None`: `key` alone.
    pub end: Option<Key>,
    /// How long it stays; `None`: the set's own timeout, or for ever.
    pub timeout: Option<Duration>,
    /// Shown by `nft list`; cut to [`COMMENT_MAX`] bytes. Control characters, quotes and
    /// backslashes become `?`: nft cannot read them back.
    pub comment: Option<&'a str>,
}

/// nft refuses longer comments (libnftnl, `NFTNL_UDATA_COMMENT_MAXLEN`).
pub const COMMENT_MAX: usize = 128;

impl<'a> Element<'a> {
    /// An element without timeout and comment.
    pub fn new(key: impl Into<Key>) -> Self {
        Self::key_only(key.into())
    }

    pub(super) fn key_only(key: Key) -> Self {
        Self { key, end: None, timeout: None, comment: None }
    }

    /// The element of a network, for sets of intervals.
    pub fn network(network: IpNet) -> Self {
        let (key, end) = Key::network(network).into_inner();
        Self { key, end: Some(end), timeout: None, comment: None }
    }

    /// The element of a range, for sets of intervals.
    pub fn range(range: &RangeInclusive<Key>) -> Self {
        Self { key: *range.start(), end: Some(*range.end()), timeout: None, comment: None }
    }

    /// The same with a timeout.
    #[must_use]
    pub fn timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// The same with a comment.
    #[must_use]
    pub fn comment(self, comment: &'a str) -> Self {
        Self { comment: Some(comment), ..self }
    }

    /// The last key.
    pub fn last(&self) -> Key {
        self.end.unwrap_or(self.key)
    }
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        DisplayRange(self.key, self.last()).fmt(f)
    }
}

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementInfo {
    /// Its key, or the first of its range.
    pub key: Key,
    /// The last key of its range; `None` in sets without intervals.
    pub end: Option<Key>,
    /// Its timeout; `None`: none.
    pub timeout: Option<Duration>,
    /// What is left of it.
    pub expires: Option<Duration>,
    /// Packets that matched it, if the set counts.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its comment.
    pub comment: Option<Box<str>>,
}

impl ElementInfo {
    /// The last key.
    pub fn last(&self) -> Key {
        self.end.unwrap_or(self.key)
    }
}

/// An element as one netlink attribute has it: intervals are two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawElement {
    /// The key.
    pub key: Key,
    /// It is where an interval has ended.
    pub interval_end: bool,
    /// All but `end` of [`ElementInfo`].
    pub info: ElementInfo,
}

/// Joins the halves of intervals: sorted, without ends that have no start (a start that expired
/// leaves its end behind for a while).
pub fn join(id: SetSpec, mut raw: Vec<RawElement>) -> Vec<ElementInfo> {
    if !id.interval {
        // While another process prepares a transaction, the kernel starts each piece of a dump a
        // little further back, and repeats elements without notice (nft_rhash_walk() counts
        // elements that are not in force yet).
        let mut known = std::collections::HashSet::with_capacity(raw.len());
        return raw
            .into_iter()
            .map(|element| element.info)
            .filter(|info| known.insert(info.key))
            .collect();
    }
    // Where one interval ends and the next begins, the end comes first.
    raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.interval_end.cmp(&a.interval_end)));
    let mut joined: Vec<ElementInfo> = Vec::with_capacity(raw.len() / 2 + 1);
    for element in raw {
        let open = joined.last_mut().filter(|last| last.end.is_none());
        let begins_again =
            open.as_ref().is_some_and(|open| !element.interval_end && open.key == element.key);
        match open {
            // A dump of a set that changes meanwhile may contain one interval twice.
            Some(open) if begins_again => *open = element.info,
            Some(open) => {
                open.end = element.key.predecessor();
                if !element.interval_end {
                    joined.push(element.info);
                }
            }
            None if element.interval_end => {}
            None => joined.push(element.info),
        }
    }
    if let Some(open) = joined.last_mut().filter(|last| last.end.is_none()) {
        open.end = Some(open.key.last());
    }
    joined
}

/// Whether each interval of a dump has its end. One that reaches up to the last address of all has
/// none.
pub fn has_all_ends(raw: &mut [RawElement]) -> bool {
    raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.interval_end.cmp(&a.interval_end)));
    let mut is_open = false;
    for element in raw {
        if is_open && !element.interval_end {
            return false;
        }
        is_open = !element.interval_end;
    }
    !is_open
}

/// Sorts ranges and joins those that overlap or touch: the kernel refuses overlaps.
pub fn merge(mut ranges: Vec<RangeInclusive<Key>>) -> Vec<RangeInclusive<Key>> {
    ranges.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<Key>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end().successor().is_none_or(|next| *range.start() <= next) => {
                *last = *last.start()..=*last.end().max(range.end())
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::sample::{NETWORKS, PORTS};
    use proptest::prelude::*;

    fn range(network: &str) -> RangeInclusive<Key> {
        Key::network(network.parse().unwrap())
    }

    fn display(range: &RangeInclusive<Key>) -> String {
        DisplayRange(*range.start(), *range.end()).to_string()
    }

    #[test]
    fn networks_display_in_cidr_form_and_other_ranges_as_ranges() {
        for network in
            ["10.0.0.0/8", "0.0.0.0/0", "255.255.255.254/31", "::/0", "2001:db8::/33", "fe80::/10"]
        {
            assert_eq!(display(&range(network)), network);
        }
        assert_eq!(display(&range("10.0.0.1/32")), "10.0.0.1");
        assert_eq!(
            display(
                &(Key::from(IpAddr::from([10, 0, 0, 1]))..=Key::from(IpAddr::from([10, 0, 0, 2])))
            ),
            "10.0.0.1-10.0.0.2"
        );
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_merged() {
        let merged = merge(vec![
            range("10.0.1.0/24"),
            range("10.0.0.0/24"),
            range("10.0.0.7/32"),
            range("255.255.255.255/32"),
            range("255.0.0.0/8"),
        ]);
        assert_eq!(merged.iter().map(display).collect::<Vec<_>>(), ["10.0.0.0/23", "255.0.0.0/8"]);
    }

    #[test]
    fn halves_of_intervals_find_each_other() {
        let half = |text: &str, interval_end| {
            let key = Key::from(text.parse::<IpAddr>().unwrap());
            let info = ElementInfo {
                key,
                end: None,
                timeout: None,
                expires: None,
                packets: 0,
                bytes: 0,
                comment: None,
            };
            RawElement { key, interval_end, info }
        };
        let joined = join(
            NETWORKS,
            vec![
                half("255.0.0.0", false),
                half("10.0.2.0", true),
                half("10.0.1.0", false),
                half("10.0.1.0", true),
                half("10.0.0.0", false),
                half("0.0.0.0", true),
            ],
        );
        let shown: Vec<_> =
            joined.iter().map(|info| DisplayRange(info.key, info.last()).to_string()).collect();
        assert_eq!(shown, ["10.0.0.0/24", "10.0.1.0/24", "255.0.0.0/8"]);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let (ip4, ip6) = (DataType::Ipv4Addr, DataType::Ipv6Addr);
        let pair = [DataType::InetProto, DataType::InetService];
        for (types, key) in [
            (vec![ip4], Key::V4(Ipv4Addr::new(1, 2, 3, 4))),
            (vec![ip6], Key::V6(Ipv6Addr::LOCALHOST)),
            (vec![DataType::InetService], Key::Port(443)),
            (vec![DataType::InetProto], Key::Protocol(89)),
            (vec![DataType::IfName], Key::interface("eth0")),
            (pair.to_vec(), Key::Service(6, 22)),
            ([vec![ip4], pair.to_vec()].concat(), Key::Touch(IpAddr::from([192, 0, 2, 1]), 6, 22)),
            (
                [vec![ip6], pair.to_vec()].concat(),
                Key::Touch(Ipv6Addr::LOCALHOST.into(), 17, 65_535),
            ),
        ] {
            let (bytes, length) = key.bytes();
            assert_eq!(Key::parse(&types, &bytes[..length]), Some(key));
        }
    }

    proptest! {
        /// A port is in an interval if the nearest half at or below it begins one.
        // P8
        #[test]
        fn any_halves_make_disjoint_intervals_of_the_same_ports(halves in proptest::collection::vec((prop_oneof![0u16..12, 65_530u16..], any::<bool>()), 0..16)) {
            let raw = halves.iter().map(|(port, interval_end)| {
                let key = Key::Port(*port);
                let info = ElementInfo { key, end: None, timeout: None, expires: None, packets: 0, bytes: 0, comment: None };
                RawElement { key, interval_end: *interval_end, info }
            });
            let joined = join(PORTS, raw.collect());
            prop_assert!(joined.iter().all(|info| info.key <= info.last()), "{joined:?}");
            prop_assert!(joined.is_sorted_by(|a, b| a.last() < b.key), "{joined:?}");
            for port in (0u16..14).chain(65_528..=u16::MAX) {
                let nearest = halves.iter().filter(|(at, _)| *at <= port).max_by_key(|(at, interval_end)| (*at, !interval_end));
                let inside = joined.iter().any(|info| (info.key..=info.last()).contains(&Key::Port(port)));
                prop_assert_eq!(inside, nearest.is_some_and(|(_, interval_end)| !interval_end), "{}", port);
            }
        }
    }
}
