//! Blocked networks as the kernel takes them: disjoint intervals, each until the latest end of the blocks that cover it.
//!
//! Blocks of networks may overlap, may leave parts of themselves out, and end at their own times. An interval set takes no overlaps (nft(8), "SETS"), so
//! what all blocks together drop is cut into pieces. A piece has the latest end of the blocks that cover it: when a block ends, what another one still
//! drops stays, without anybody doing anything about it.
//!
//! Pure: what was ordered, what the kernel is known to have, and the difference between the two. The executor sends it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::engine::{BlockView, MonoTime, Source};
use crate::nft::Key;
use crate::ruleset::SetId;

/// The kernel's timer and ours differ by moments: ends this close are one.
pub(crate) const SAME_END: Duration = Duration::from_secs(2);

/// A family of addresses, each as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(source: Source) -> Self {
        if source.addr().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The set of blocked networks.
    pub(crate) fn set(self) -> SetId {
        match self {
            Self::V4 => SetId::BlockedNets4,
            Self::V6 => SetId::BlockedNets6,
        }
    }

    /// All addresses.
    pub(crate) fn all(self) -> Span {
        Span { first: 0, last: self.max() }
    }

    fn max(self) -> u128 {
        match self {
            Self::V4 => u128::from(u32::MAX),
            Self::V6 => u128::MAX,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }

    /// The key of an address in the family's sets.
    pub(crate) fn key(self, number: u128) -> Key {
        Key::from(self.address(number))
    }

    /// The networks that make up a span.
    pub(crate) fn networks(self, span: Span) -> Vec<IpNet> {
        match (self.address(span.first), self.address(span.last)) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Addresses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl Span {
    pub(crate) fn of(network: &IpNet) -> Self {
        Self { first: number(network.network()), last: number(network.broadcast()) }
    }

    /// The span of an interval's keys; `None` if they are no addresses.
    pub(crate) fn of_keys(range: &RangeInclusive<Key>) -> Option<Self> {
        Some(Self { first: number(range.start().address()?), last: number(range.end().address()?) })
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What it has in common with `other`.
    fn clipped(self, other: Self) -> Option<Self> {
        self.overlaps(other)
            .then(|| Self { first: self.first.max(other.first), last: self.last.min(other.last) })
    }

    /// What is left of it without these, which are sorted and disjoint.
    pub(crate) fn without(self, holes: &[Self]) -> Vec<Self> {
        let (mut left, mut first) = (Vec::new(), Some(self.first));
        for hole in holes.iter().filter(|hole| hole.overlaps(self)) {
            let Some(from) = first else { break };
            if hole.first > from {
                left.push(Self { first: from, last: hole.first - 1 });
            }
            first = hole.last.checked_add(1).map(|next| next.max(from));
        }
        left.extend(
            first.filter(|first| *first <= self.last).map(|first| Self { first, last: self.last }),
        );
        left
    }
}

/// Sorts spans and joins those that overlap or touch.
pub(crate) fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut all: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match all.last_mut() {
            Some(last) if last.last.checked_add(1).is_none_or(|next| span.first <= next) => {
                last.last = last.last.max(span.last)
            }
            _ => all.push(span),
        }
    }
    all
}

/// The block of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetworkBlock {
    expires: Option<MonoTime>,
    /// Sorted and disjoint.
    exempt: Vec<Span>,
}

/// One interval that is wanted in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// The block that it comes from: the one that ends last.
    pub(crate) owner: Source,
    pub(crate) expires: Option<MonoTime>,
}

/// One interval that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) last: u128,
    pub(crate) expires: Option<MonoTime>,
}

/// What has to be sent for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) family: Family,
    /// Intervals to take out: first address and last.
    pub(crate) delete: Vec<Span>,
    /// Intervals to put in, after those are out.
    pub(crate) add: Vec<Piece>,
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.add.is_empty()
    }
}

/// Blocked networks, and the intervals that the kernel has of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Networks {
    blocks: BTreeMap<Source, NetworkBlock>,
    present: [BTreeMap<u128, Interval>; 2],
    /// Something was written or ordered since [`Networks::mark`].
    is_changed: bool,
}

impl Networks {
    /// What is read from here on is compared with what is known now.
    pub(crate) fn mark(&mut self) {
        self.is_changed = false;
    }

    /// Whether anything was ordered or written since the mark.
    pub(crate) fn has_changed(&self) -> bool {
        self.is_changed
    }

    /// How many intervals the kernel is known to have.
    pub(crate) fn present(&self) -> usize {
        self.present.iter().map(BTreeMap::len).sum()
    }

    /// Blocks a network, or gives a block another end and other exemptions. What has to be sent is [`Networks::difference`] over its addresses.
    pub(crate) fn set(&mut self, source: Source, expires: Option<MonoTime>, exempt: &[IpNet]) {
        let exempt = merged(exempt.iter().map(Span::of).collect());
        self.blocks.insert(source, NetworkBlock { expires, exempt });
        self.is_changed = true;
    }

    /// The block of a network is over; `false`: there was none.
    pub(crate) fn remove(&mut self, source: Source) -> bool {
        self.is_changed = true;
        self.blocks.remove(&source).is_some()
    }

    /// The block of a network as it is wanted now, to go back to if the kernel refuses another.
    pub(super) fn clone_block(&self, source: Source) -> Option<NetworkBlock> {
        self.blocks.get(&source).cloned()
    }

    /// Wants what was wanted before.
    pub(super) fn put_block(&mut self, source: Source, block: Option<NetworkBlock>) {
        match block {
            Some(block) => drop(self.blocks.insert(source, block)),
            None => drop(self.blocks.remove(&source)),
        }
    }

    /// The same knowledge of the kernel, with these blocks and no others.
    pub(crate) fn with_blocks<'a>(&self, blocks: impl Iterator<Item = BlockView<'a>>) -> Self {
        let mut networks =
            Self { blocks: BTreeMap::new(), present: self.present.clone(), is_changed: true };
        for block in blocks {
            networks.set(block.source, block.expires, block.exempt);
        }
        networks
    }

    /// The intervals that the kernel is known to have, sorted.
    pub(crate) fn intervals(
        &self,
        family: Family,
    ) -> impl Iterator<Item = (Span, Option<MonoTime>)> {
        self.of(family)
            .iter()
            .map(|(first, one)| (Span { first: *first, last: one.last }, one.expires))
    }

    /// Within these addresses the kernel has these intervals and no others.
    pub(crate) fn set_present_within(
        &mut self,
        family: Family,
        within: Span,
        intervals: impl IntoIterator<Item = (Span, Option<MonoTime>)>,
    ) {
        let present = self.of_mut(family);
        let old: Vec<u128> =
            present.range(within.first..=within.last).map(|(first, _)| *first).collect();
        for first in old {
            present.remove(&first);
        }
        present.extend(
            intervals
                .into_iter()
                .map(|(span, expires)| (span.first, Interval { last: span.last, expires })),
        );
    }

    /// The kernel's set of a family has these intervals and no others.
    pub(crate) fn set_present(
        &mut self,
        family: Family,
        intervals: impl IntoIterator<Item = (Span, Option<MonoTime>)>,
    ) {
        *self.of_mut(family) = intervals
            .into_iter()
            .map(|(span, expires)| (span.first, Interval { last: span.last, expires }))
            .collect();
    }

    /// Forgets what the kernel has taken out by itself, because its time is over.
    pub(crate) fn prune(&mut self, now: MonoTime, family: Family, within: Span) {
        let within = self.widened(family, within);
        let present = self.of_mut(family);
        let over = present
            .range(within.first..=within.last)
            .filter(|(_, one)| one.expires.is_some_and(|end| end <= now));
        let over: Vec<u128> = over.map(|(first, _)| *first).collect();
        for first in over {
            present.remove(&first);
        }
    }

    /// The kernel has taken a difference.
    pub(crate) fn sent(&mut self, difference: &Difference) {
        self.is_changed = true;
        let present = self.of_mut(difference.family);
        for span in &difference.delete {
            present.remove(&span.first);
        }
        present.extend(difference.add.iter().map(|piece| {
            (piece.span.first, Interval { last: piece.span.last, expires: piece.expires })
        }));
    }

    /// What has to be sent so that these addresses are dropped as the blocks want it. Intervals that reach beyond them are looked at as a whole.
    pub(crate) fn difference(&self, now: MonoTime, family: Family, within: Span) -> Difference {
        let within = self.widened(family, within);
        let mut delete: BTreeMap<u128, Interval> = self
            .of(family)
            .range(within.first..=within.last)
            .map(|(first, one)| (*first, *one))
            .collect();
        let mut add = self.pieces(now, family, within);
        add.retain(|piece| match delete.get(&piece.span.first) {
            Some(there)
                if there.last == piece.span.last && is_same_end(there.expires, piece.expires) =>
            {
                delete.remove(&piece.span.first);
                false
            }
            _ => true,
        });
        // What has run out, the kernel has taken out by itself.
        let is_over = |interval: &Interval| interval.expires.is_some_and(|end| end <= now);
        let delete = delete
            .into_iter()
            .filter(|(_, one)| !is_over(one))
            .map(|(first, one)| Span { first, last: one.last })
            .collect();
        Difference { family, delete, add }
    }

    /// The intervals that the blocks want within these addresses, sorted and disjoint.
    pub(crate) fn pieces(&self, now: MonoTime, family: Family, within: Span) -> Vec<Piece> {
        // Where a block begins to drop and where it ends, in the order of addresses.
        let mut edges: BTreeMap<u128, (Vec<Order>, Vec<Order>)> = BTreeMap::new();
        for (source, block) in self.over(family, within) {
            if block.expires.is_some_and(|end| end <= now) {
                continue;
            }
            let order = Order { end: block.expires.map_or(u64::MAX, MonoTime::millis), source };
            for span in Span::of(&source.network())
                .without(&block.exempt)
                .into_iter()
                .filter_map(|span| span.clipped(within))
            {
                edges.entry(span.first).or_default().0.push(order);
                if let Some(after) = span.last.checked_add(1) {
                    edges.entry(after).or_default().1.push(order);
                }
            }
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut active: BTreeSet<Order> = BTreeSet::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((first, (begin, end))) = edges.next() {
            for order in &end {
                active.remove(order);
            }
            active.extend(begin);
            let Some(latest) = active.last() else { continue };
            let last = edges.peek().map_or(within.last, |(next, _)| next - 1);
            match pieces.last_mut() {
                Some(piece)
                    if piece.owner == latest.source
                        && piece.span.last.checked_add(1) == Some(first) =>
                {
                    piece.span.last = last
                }
                _ => {
                    let expires =
                        (latest.end != u64::MAX).then(|| MonoTime::from_millis(latest.end));
                    pieces.push(Piece {
                        span: Span { first, last },
                        owner: latest.source,
                        expires,
                    });
                }
            }
        }
        pieces
    }

    /// The blocks that drop any of these addresses, each with the parts of them that it drops.
    pub(crate) fn dropping(&self, family: Family, span: Span) -> Vec<(Source, Vec<Span>)> {
        let parts = |(source, block): (Source, &NetworkBlock)| {
            let parts: Vec<Span> = Span::of(&source.network())
                .without(&block.exempt)
                .into_iter()
                .filter_map(|part| part.clipped(span))
                .collect();
            (!parts.is_empty()).then_some((source, parts))
        };
        self.over(family, span).filter_map(parts).collect()
    }

    /// The blocks that share an address with a span: those that begin in it, and those around its first address.
    fn over(&self, family: Family, span: Span) -> impl Iterator<Item = (Source, &NetworkBlock)> {
        let first = family.address(span.first);
        let around = (0..=family.bits())
            .filter_map(move |bits| IpNet::new(first, bits).ok())
            .map(|network| Source::from(network.trunc()))
            .filter(move |source| number(source.addr()) < span.first)
            .filter_map(|source| self.blocks.get_key_value(&source));
        let begin = Source::first_at(first);
        let within = self.blocks.range(begin..).take_while(move |(source, _)| {
            Family::of(**source) == family && number(source.addr()) <= span.last
        });
        around.chain(within).map(|(source, block)| (*source, block))
    }

    /// The span together with all intervals of the kernel that it cuts.
    fn widened(&self, family: Family, span: Span) -> Span {
        let present = self.of(family);
        let before =
            present.range(..span.first).next_back().filter(|(_, one)| one.last >= span.first);
        let last = present
            .range(span.first..=span.last)
            .next_back()
            .map_or(span.last, |(_, one)| one.last.max(span.last));
        Span {
            first: before.map_or(span.first, |(first, _)| *first),
            last: before.map_or(last, |(_, one)| one.last.max(last)),
        }
    }

    fn of(&self, family: Family) -> &BTreeMap<u128, Interval> {
        let [v4, v6] = &self.present;
        if family == Family::V4 { v4 } else { v6 }
    }

    fn of_mut(&mut self, family: Family) -> &mut BTreeMap<u128, Interval> {
        let [v4, v6] = &mut self.present;
        if family == Family::V4 { v4 } else { v6 }
    }
}

/// Blocks by their ends: the latest is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    end: u64,
    source: Source,
}

/// Whether two ends are the same but for the moments that clocks differ by.
pub(crate) fn is_same_end(one: Option<MonoTime>, other: Option<MonoTime>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.since(other).max(other.since(one)) <= SAME_END,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(NOW + seconds * 1000)
    }

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpNet>().unwrap())
    }

    /// Blocks as text, each with its end in seconds (0: none) and what it leaves out.
    fn networks(blocks: &[(&str, u64, &[&str])]) -> Networks {
        let mut networks = Networks::default();
        for (name, end, exempt) in blocks {
            let exempt: Vec<IpNet> = exempt.iter().map(|text| text.parse().unwrap()).collect();
            networks.set(source(name), (*end > 0).then(|| at(*end)), &exempt);
        }
        networks
    }

    fn shown(family: Family, pieces: &[Piece]) -> Vec<String> {
        let address = |number| family.address(number);
        let end = |piece: &Piece| {
            piece.expires.map_or("-".to_owned(), |end| end.since(at(0)).as_secs().to_string())
        };
        pieces
            .iter()
            .map(|piece| {
                format!(
                    "{}-{} {} {}",
                    address(piece.span.first),
                    address(piece.span.last),
                    end(piece),
                    piece.owner
                )
            })
            .collect()
    }

    fn pieces(blocks: &[(&str, u64, &[&str])]) -> Vec<String> {
        let networks = networks(blocks);
        Family::ALL
            .into_iter()
            .flat_map(|family| shown(family, &networks.pieces(at(0), family, family.all())))
            .collect()
    }

    #[test]
    fn overlapping_blocks_are_cut_where_the_inner_one_lasts_longer() {
        assert_eq!(
            pieces(&[("20.0.0.0/8", 0, &[]), ("20.1.0.0/16", 60, &[])]),
            ["20.0.0.0-20.255.255.255 - 20.0.0.0/8"]
        );
        assert_eq!(
            pieces(&[("20.0.0.0/8", 60, &[]), ("20.1.0.0/16", 0, &[])]),
            [
                "20.0.0.0-20.0.255.255 60 20.0.0.0/8",
                "20.1.0.0-20.1.255.255 - 20.1.0.0/16",
                "20.2.0.0-20.255.255.255 60 20.0.0.0/8"
            ]
        );
        assert_eq!(
            pieces(&[("2001:db8::/48", 60, &[]), ("2001:db8:0:1::/64", 90, &[])])[1],
            "2001:db8:0:1::-2001:db8:0:1:ffff:ffff:ffff:ffff 90 2001:db8:0:1::/64"
        );
        assert_eq!(
            pieces(&[("0.0.0.0/0", 0, &[]), ("255.255.255.255/32", 9, &[])]),
            ["0.0.0.0-255.255.255.255 - 0.0.0.0/0"]
        );
        assert_eq!(pieces(&[("::/0", 0, &[])]).len(), 1);
    }

    #[test]
    fn what_a_block_leaves_out_is_dropped_only_if_another_block_wants_it() {
        assert_eq!(
            pieces(&[("10.0.0.0/30", 0, &["10.0.0.1/32"])]),
            ["10.0.0.0-10.0.0.0 - 10.0.0.0/30", "10.0.0.2-10.0.0.3 - 10.0.0.0/30"]
        );
        assert_eq!(
            pieces(&[("10.0.0.0/30", 0, &["10.0.0.1/32"]), ("10.0.0.0/31", 60, &[])]),
            [
                "10.0.0.0-10.0.0.0 - 10.0.0.0/30",
                "10.0.0.1-10.0.0.1 60 10.0.0.0/31",
                "10.0.0.2-10.0.0.3 - 10.0.0.0/30"
            ]
        );
        assert_eq!(pieces(&[("10.0.0.0/30", 0, &["10.0.0.0/30"])]), [""; 0]);
    }

    #[test]
    fn a_difference_touches_only_what_changes() {
        let mut networks = networks(&[("10.0.0.0/8", 60, &[]), ("11.0.0.0/8", 60, &[])]);
        let first = networks.difference(at(0), Family::V4, Family::V4.all());
        assert_eq!((first.delete.len(), first.add.len()), (0, 2));
        networks.sent(&first);
        networks.set(source("10.1.0.0/16"), None, &[]);
        let within = Span::of(&source("10.1.0.0/16").network());
        let second = networks.difference(at(0), Family::V4, within);
        assert_eq!((second.delete.len(), second.add.len()), (1, 3), "{second:?}");
        networks.sent(&second);
        assert!(networks.difference(at(0), Family::V4, Family::V4.all()).is_empty());
        // Its end is the kernel's doing, and the inner block stays.
        networks.remove(source("10.0.0.0/8"));
        let ended = networks.difference(at(61), Family::V4, Family::V4.all());
        assert!(ended.is_empty(), "{ended:?}");
    }

    /// Until when an address is dropped, asked of every block; `None`: it is not.
    fn naive(
        blocks: &BTreeMap<Source, (Option<MonoTime>, Vec<IpNet>)>,
        now: MonoTime,
        address: IpAddr,
    ) -> Option<Option<MonoTime>> {
        let covers = |(source, (end, exempt)): (&Source, &(Option<MonoTime>, Vec<IpNet>))| {
            let drops = source.network().contains(&address)
                && exempt.iter().all(|part| !part.contains(&address));
            (drops && end.is_none_or(|end| end > now)).then_some(*end)
        };
        blocks.iter().filter_map(covers).max_by_key(|end| end.map_or(u64::MAX, MonoTime::millis))
    }

    #[derive(Debug, Clone)]
    enum Edit {
        Set(Source, u64, Vec<IpNet>),
        Remove(Source),
        /// Another program's interval appears, or one of ours is gone, and the kernel was read again.
        Foreign(u8, u8, bool),
        Wait(u64),
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (0u32..64, 26u8..=32).prop_map(|(host, bits)| {
            IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 | host).into(), bits).unwrap().trunc()
        })
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => (network(), 0u64..40, proptest::collection::vec(network(), 0..3)).prop_map(|(network, end, exempt)| Edit::Set(network.into(), end, exempt)),
            2 => network().prop_map(|network| Edit::Remove(network.into())),
            1 => (0u8..64, 0u8..8, any::<bool>()).prop_map(|(first, more, is_new)| Edit::Foreign(first, more, is_new)),
            1 => (0u64..20).prop_map(Edit::Wait),
        ]
    }

    proptest! {
        /// After every change the kernel drops exactly the addresses that some block wants dropped, each at least until the latest end, in disjoint
        /// intervals; and each difference takes out only what is there.
        #[test]
        fn the_kernel_drops_what_a_naive_model_drops(edits in proptest::collection::vec(edit(), 1..40)) {
            let mut networks = Networks::default();
            let mut blocks: BTreeMap<Source, (Option<MonoTime>, Vec<IpNet>)> = BTreeMap::new();
            // The kernel: intervals with their ends.
            let mut kernel: Vec<(Span, Option<MonoTime>)> = Vec::new();
            let mut now = at(0);
            for edit in edits {
                let mut within = Family::V4.all();
                match edit {
                    Edit::Set(source, end, exempt) => {
                        let expires = (end > 0).then(|| now.after(Duration::from_secs(end)));
                        networks.set(source, expires, &exempt);
                        blocks.insert(source, (expires, exempt));
                        within = Span::of(&source.network());
                    }
                    Edit::Remove(source) => {
                        prop_assert_eq!(networks.remove(source), blocks.remove(&source).is_some());
                        within = Span::of(&source.network());
                    }
                    Edit::Foreign(first, more, is_new) => {
                        let span = Span { first: u128::from(0x0a00_0000 | u32::from(first)), last: u128::from(0x0a00_0000 | u32::from(first.saturating_add(more).min(63))) };
                        if is_new && kernel.iter().all(|(there, _)| !there.overlaps(span)) {
                            kernel.push((span, None));
                        } else if !is_new {
                            kernel.retain(|(there, _)| !there.overlaps(span));
                        }
                        kernel.sort_unstable_by_key(|(span, _)| span.first);
                        networks.set_present(Family::V4, kernel.iter().copied());
                    }
                    Edit::Wait(seconds) => now = now.after(Duration::from_secs(seconds)),
                }
                kernel.retain(|(_, end)| end.is_none_or(|end| end > now));
                networks.prune(now, Family::V4, Family::V4.all());
                let difference = networks.difference(now, Family::V4, within);
                for span in &difference.delete {
                    let before = kernel.len();
                    kernel.retain(|(there, _)| there != span);
                    prop_assert_eq!(kernel.len() + 1, before, "{:?} is not there", span);
                }
                for piece in &difference.add {
                    prop_assert!(kernel.iter().all(|(there, _)| !there.overlaps(piece.span)), "{:?} overlaps", piece);
                    kernel.push((piece.span, piece.expires));
                }
                networks.sent(&difference);
                prop_assert_eq!(networks.present(), kernel.len());
                for host in 0..64u32 {
                    let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | host));
                    let there = kernel.iter().find(|(span, _)| span.contains(Span::of(&IpNet::from(address)))).map(|(_, end)| *end);
                    let wanted = naive(&blocks, now, address);
                    prop_assert_eq!(there.is_some(), wanted.is_some(), "{} {:?} {:?}", address, there, wanted);
                    prop_assert!(is_same_end(there.flatten(), wanted.flatten()), "{} {:?} {:?}", address, there, wanted);
                }
            }
        }
    }
}
