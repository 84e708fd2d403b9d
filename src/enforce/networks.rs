//! Blocked networks as the kernel takes them: disjoint intervals, each until the latest end of the
//! blocks that cover it.
//!
//! Blocks of networks may overlap, may leave parts of themselves out, and end at their own times.
//! An interval set takes no overlaps (nft(8), "SETS"), so what all blocks together drop is cut into
//! pieces. A piece has the latest end of the blocks that cover it: when a block ends, what another
//! one still drops stays, without anybody doing anything about it.
//!
//! Pure: what was ordered, what the kernel is known to have, and the difference between the two.
//! The executor sends it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::engine::{BlockView, MonoTime, Source};
use crate::nft::{ElementInfo, Key};
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

    /// The family that a set of blocked networks is of; `None`: it is another set.
    pub(crate) fn of_set(set: SetId) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.set() == set)
    }

    /// What a pair has for the family.
    pub(crate) fn of_pair<T>(self, [v4, v6]: &[T; 2]) -> &T {
        if self == Self::V4 { v4 } else { v6 }
    }

    /// What a pair has for the family, to be changed.
    pub(crate) fn of_pair_mut<T>(self, [v4, v6]: &mut [T; 2]) -> &mut T {
        if self == Self::V4 { v4 } else { v6 }
    }

    /// All addresses.
    pub(crate) fn all(self) -> Span {
        let last = if self == Self::V4 { u128::from(u32::MAX) } else { u128::MAX };
        Span { first: 0, last }
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

    /// The span of an element; `None` if its keys are no addresses.
    pub(crate) fn of_element(info: &ElementInfo) -> Option<Self> {
        Some(Self { first: number(info.key.address()?), last: number(info.last().address()?) })
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

impl NetworkBlock {
    /// What the block of this network drops of some addresses.
    fn dropped(&self, source: Source, within: Span) -> impl Iterator<Item = Span> {
        let parts = Span::of(&source.network()).without(&self.exempt);
        parts.into_iter().filter_map(move |part| part.clipped(within))
    }
}

/// One interval that is wanted in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) span: Span,
    /// The block that it comes from: the one that ends last.
    pub(crate) owner: Source,
    pub(crate) expires: Option<MonoTime>,
}

/// One interval that the kernel has, and its end.
pub(crate) type Interval = (Span, Option<MonoTime>);

/// Elements of a network set as intervals.
pub(crate) fn intervals(
    now: MonoTime,
    elements: &[ElementInfo],
) -> impl Iterator<Item = Interval> + '_ {
    let interval = move |info: &ElementInfo| {
        Some((Span::of_element(info)?, info.expires.map(|left| now.after(left))))
    };
    elements.iter().filter_map(interval)
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

    /// Blocks a network, or gives a block another end and other exemptions. What has to be sent is
    /// [`Networks::difference`] over its addresses.
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
    pub(crate) fn intervals(&self, family: Family) -> impl Iterator<Item = Interval> {
        family.of_pair(&self.present).values().copied()
    }

    /// Within these addresses the kernel has these intervals and no others.
    pub(crate) fn set_present_within(
        &mut self,
        family: Family,
        within: Span,
        intervals: impl IntoIterator<Item = Interval>,
    ) {
        let present = family.of_pair_mut(&mut self.present);
        take_out(present, within, |_| true);
        present.extend(intervals.into_iter().map(by_first));
    }

    /// The kernel's set of a family has these intervals and no others.
    pub(crate) fn set_present(
        &mut self,
        family: Family,
        intervals: impl IntoIterator<Item = Interval>,
    ) {
        *family.of_pair_mut(&mut self.present) = intervals.into_iter().map(by_first).collect();
    }

    /// Forgets what the kernel has taken out by itself, because its time is over.
    pub(crate) fn prune(&mut self, now: MonoTime, family: Family, within: Span) {
        let within = self.widened(family, within);
        take_out(family.of_pair_mut(&mut self.present), within, |end| is_over(end, now));
    }

    /// The kernel has taken a difference.
    pub(crate) fn sent(&mut self, difference: &Difference) {
        self.is_changed = true;
        let present = difference.family.of_pair_mut(&mut self.present);
        for span in &difference.delete {
            present.remove(&span.first);
        }
        present.extend(difference.add.iter().map(|piece| by_first((piece.span, piece.expires))));
    }

    /// What has to be sent so that these addresses are dropped as the blocks want it. Intervals
    /// that reach beyond them are looked at as a whole.
    pub(crate) fn difference(&self, now: MonoTime, family: Family, within: Span) -> Difference {
        let within = self.widened(family, within);
        let present = family.of_pair(&self.present).range(within.first..=within.last);
        let mut delete: BTreeMap<Span, Option<MonoTime>> = present.map(|(_, one)| *one).collect();
        let mut add = self.pieces(now, family, within);
        add.retain(|piece| {
            let end = delete.get(&piece.span).copied();
            let is_there = end.is_some_and(|end| is_same_end(end, piece.expires));
            if is_there {
                delete.remove(&piece.span);
            }
            !is_there
        });
        // What has run out, the kernel has taken out by itself.
        delete.retain(|_, end| !is_over(*end, now));
        Difference { family, delete: delete.into_keys().collect(), add }
    }

    /// The intervals that the blocks want within these addresses, sorted and disjoint.
    pub(crate) fn pieces(&self, now: MonoTime, family: Family, within: Span) -> Vec<Piece> {
        // Where a block begins to drop and where it ends, in the order of addresses.
        let mut edges: BTreeMap<u128, (Vec<Order>, Vec<Order>)> = BTreeMap::new();
        for (source, block) in self.over(family, within) {
            if is_over(block.expires, now) {
                continue;
            }
            let order = Order { end: block.expires.map_or(u64::MAX, MonoTime::millis), source };
            for span in block.dropped(source, within) {
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
        self.over(family, span)
            .map(|(source, block)| (source, block.dropped(source, span).collect()))
            .filter(|(_, parts): &(_, Vec<Span>)| !parts.is_empty())
            .collect()
    }

    /// The blocks that share an address with a span: those that begin in it, and those around its
    /// first address.
    fn over(&self, family: Family, span: Span) -> impl Iterator<Item = (Source, &NetworkBlock)> {
        let first = family.address(span.first);
        let around = (0..=IpNet::from(first).max_prefix_len())
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
        let present = family.of_pair(&self.present);
        let before = present.range(..span.first).next_back();
        let within = present.range(span.first..=span.last).next_back();
        [before, within].into_iter().flatten().fold(span, |span, (_, (there, _))| {
            if !there.overlaps(span) {
                return span;
            }
            Span { first: there.first.min(span.first), last: there.last.max(span.last) }
        })
    }
}

fn by_first(interval: Interval) -> (u128, Interval) {
    (interval.0.first, interval)
}

/// Takes out the intervals that begin within these addresses and whose end fits.
fn take_out(
    present: &mut BTreeMap<u128, Interval>,
    within: Span,
    is_meant: impl Fn(Option<MonoTime>) -> bool,
) {
    let here = present.range(within.first..=within.last).filter(|(_, (_, end))| is_meant(*end));
    let firsts: Vec<u128> = here.map(|(first, _)| *first).collect();
    for first in firsts {
        present.remove(&first);
    }
}

fn is_over(end: Option<MonoTime>, now: MonoTime) -> bool {
    end.is_some_and(|end| end <= now)
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

/// Whether one end is clearly after the other.
pub(crate) fn is_later(one: Option<MonoTime>, other: Option<MonoTime>) -> bool {
    let outlasts = match (one, other) {
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
        (_, None) => false,
    };
    outlasts && !is_same_end(one, other)
}

#[cfg(test)]
mod tests;
