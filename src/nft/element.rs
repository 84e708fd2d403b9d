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
        let (mut bytes, mut length) = ([0; KEY_MAX], 0_usize);
        let mut field = |value: &[u8]| {
            let start = length.next_multiple_of(4);
            for (place, byte) in bytes.iter_mut().skip(start).zip(value) {
                *place = *byte;
            }
            length = start + value.len();
        };
        match self {
            Self::V4(address) | Self::Touch(IpAddr::V4(address), ..) => field(&address.octets()),
            Self::V6(address) | Self::Touch(IpAddr::V6(address), ..) => field(&address.octets()),
            Self::Port(port) => field(&port.to_be_bytes()),
            Self::Protocol(protocol) => field(&[protocol]),
            Self::Interface(name) => field(&name),
            Self::Service(..) => {}
        }
        if let Self::Service(protocol, port) | Self::Touch(_, protocol, port) = self {
            field(&[protocol]);
            field(&port.to_be_bytes());
            length = length.next_multiple_of(4);
        }
        (bytes, length)
    }

    /// Reads a key of these types; `None` if the bytes are not such a key.
    pub fn parse(types: &[DataType], bytes: &[u8]) -> Option<Self> {
        match types {
            [DataType::Ipv4Addr] => Some(Self::V4(<[u8; 4]>::try_from(bytes).ok()?.into())),
            [DataType::Ipv6Addr] => Some(Self::V6(<[u8; 16]>::try_from(bytes).ok()?.into())),
            [DataType::InetService] => Some(Self::Port(u16::from_be_bytes(bytes.try_into().ok()?))),
            [DataType::InetProto] => {
                Some(Self::Protocol(u8::from_be_bytes(bytes.try_into().ok()?)))
            }
            [DataType::IfName] => Some(Self::Interface(bytes.try_into().ok()?)),
            [source @ .., DataType::InetProto, DataType::InetService] => {
                let (rest, service) = bytes.split_last_chunk::<8>()?;
                let [protocol, _, _, _, high, low, _, _] = *service;
                let port = u16::from_be_bytes([high, low]);
                if source.is_empty() {
                    return rest.is_empty().then_some(Self::Service(protocol, port));
                }
                Some(Self::Touch(Self::parse(source, rest)?.address()?, protocol, port))
            }
            _ => None,
        }
    }

    /// The key after this one, where an interval that ends here has its end element; `None` after
    /// the last.
    pub fn successor(self) -> Option<Self> {
        self.neighbour(u128::checked_add)
    }

    /// The key before this one; `None` before the first.
    pub fn predecessor(self) -> Option<Self> {
        self.neighbour(u128::checked_sub)
    }

    fn neighbour(self, step: fn(u128, u128) -> Option<u128>) -> Option<Self> {
        let step = |number| step(number, 1);
        Some(match self {
            Self::V4(address) => {
                Self::V4(Ipv4Addr::from_bits(step(address.to_bits().into())?.try_into().ok()?))
            }
            Self::V6(address) => Self::V6(Ipv6Addr::from_bits(step(address.to_bits())?)),
            Self::Port(port) => Self::Port(step(port.into())?.try_into().ok()?),
            Self::Protocol(protocol) => Self::Protocol(step(protocol.into())?.try_into().ok()?),
            // Sets of these have no intervals.
            Self::Interface(_) | Self::Service(..) | Self::Touch(..) => return None,
        })
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
            _ => None,
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

/// The longest timeout that the kernel takes, in days: `nf_msecs_to_jiffies64` in
/// net/netfilter/nf_tables_api.c compares milliseconds with what the counter of jiffies holds in
/// nanoseconds. With 300 ticks a second it is a third of that, and the kernel says so.
pub const TIMEOUT_DAYS_MAX: u64 = u64::MAX / 1_000_000_000 / 86_400;

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
        Self { key: key.into(), end: None, timeout: None, comment: None }
    }

    /// The element of a network, for sets of intervals.
    pub fn network(network: IpNet) -> Self {
        Self::range(&Key::network(network))
    }

    /// The element of a range, for sets of intervals.
    pub fn range(range: &RangeInclusive<Key>) -> Self {
        Self { end: Some(*range.end()), ..Self::new(*range.start()) }
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

    /// What would add it, with its whole timeout.
    pub(super) fn element(&self) -> Element<'_> {
        Element {
            key: self.key,
            end: self.end,
            timeout: self.timeout,
            comment: self.comment.as_deref(),
        }
    }
}

/// An element as one netlink attribute has it: intervals are two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawElement {
    /// It is where an interval has ended.
    pub interval_end: bool,
    /// All but `end` of [`ElementInfo`].
    pub info: ElementInfo,
}

/// Where one interval ends and the next begins, the end comes first.
fn sort_halves(raw: &mut [RawElement]) {
    raw.sort_by_key(|element| (element.info.key, !element.interval_end));
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
    sort_halves(&mut raw);
    let mut joined: Vec<ElementInfo> = Vec::with_capacity(raw.len() / 2 + 1);
    for element in raw {
        let open = joined.last_mut().filter(|last| last.end.is_none());
        let begins_again =
            open.as_ref().is_some_and(|open| !element.interval_end && open.key == element.info.key);
        match open {
            // A dump of a set that changes meanwhile may contain one interval twice.
            Some(open) if begins_again => *open = element.info,
            Some(open) => {
                open.end = element.info.key.predecessor();
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
    sort_halves(raw);
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
            RawElement { interval_end, info }
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
                RawElement { interval_end: *interval_end, info }
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
