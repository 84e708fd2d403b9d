//! The never-block list in the kernel's sets, changed where it changes.
//!
//! A list may have 100,000 entries, and an interval set takes some 30 us for each: so the
//! difference between two lists is sent, in transactions that are not too long. Ranges that overlap
//! go together: there is no moment in which an address that is on both lists is not exempt.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::RangeInclusive;

use super::element::bare;
use super::kernel::EXEMPTIONS;
use crate::engine::{AllowList, nat64, widened};
use crate::nft::element::merge;
use crate::nft::{ElementInfo, Key, Ruleset};
use crate::ruleset::{SetId, held_prefix};

/// Ranges a transaction: some three milliseconds.
const RANGES_PER_TRANSACTION: usize = 100;

type Range = RangeInclusive<Key>;

/// What has to be sent for one set, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) set: SetId,
    pub(super) delete: Vec<ElementInfo>,
    pub(super) add: Vec<ElementInfo>,
}

/// The ranges that the kernel has, and what waits to be sent.
#[derive(Debug, Default)]
pub(super) struct Exemptions {
    present: BTreeMap<SetId, Vec<Range>>,
    waiting: VecDeque<Part>,
}

impl Exemptions {
    /// All has been sent.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The kernel's set has these elements.
    pub(super) fn set_present(&mut self, set: SetId, elements: &[ElementInfo]) {
        let ranges = elements.iter().map(|info| info.key..=info.last()).collect();
        self.present.insert(set, ranges);
    }

    /// This is what should be in the sets: what differs waits to be sent.
    pub(super) fn want(&mut self, ruleset: &Ruleset, list: &AllowList) {
        self.waiting.clear();
        for set in EXEMPTIONS {
            let Some(wanted) = exempt(ruleset, list, set) else { continue };
            let present = self.present.entry(set).or_default();
            self.waiting.extend(parts(set, present, &wanted));
        }
    }

    /// What is to be sent next.
    pub(super) fn next(&self) -> Option<&Part> {
        self.waiting.front()
    }

    /// Nothing more is sent until the sets were read.
    pub(super) fn wait(&mut self) {
        self.waiting.clear();
    }

    /// The kernel has taken what was next.
    pub(super) fn sent(&mut self) {
        let Some(part) = self.waiting.pop_front() else { return };
        let present = self.present.entry(part.set).or_default();
        if !part.delete.is_empty() {
            let gone: HashSet<Key> = part.delete.iter().map(|info| info.key).collect();
            present.retain(|range| !gone.contains(range.start()));
        }
        present.extend(part.add.iter().map(|info| info.key..=info.last()));
        if self.waiting.front().is_none_or(|next| next.set != part.set) {
            present.sort_unstable_by_key(|range| *range.start());
        }
    }
}

/// What of the list goes into a set; `None`: these rules have no such set.
///
/// The rules must not hold what is never blocked, by the engine's measure: an IPv6 source is a
/// prefix, and it is spared if it shares an address with anything on the list.
pub(super) fn exempt(ruleset: &Ruleset, list: &AllowList, set: SetId) -> Option<Vec<Range>> {
    let is_v4 = matches!(set, SetId::Allowed4 | SetId::Spared4);
    let mut networks = list.networks().to_vec();
    if matches!(set, SetId::Spared4 | SetId::Spared6) {
        let prefix = held_prefix(ruleset)?;
        networks.extend(AllowList::always().networks());
        if prefix < 128 {
            // Rules that hold by a prefix would hold all of IPv4.
            networks.extend(nat64());
        }
        networks.iter_mut().for_each(|network| *network = widened(*network, prefix));
    }
    networks.retain(|network| network.addr().is_ipv4() == is_v4);
    // The kernel takes no intervals that overlap, and a network may hold an address that is listed
    // as well.
    Some(merge(networks.into_iter().map(Key::network).collect()))
}

/// A range as an element.
pub(super) fn element(range: &Range) -> ElementInfo {
    bare(*range.start(), Some(*range.end()))
}

/// The way from one list of sorted, disjoint ranges to another, cut where no range of either is
/// cut.
fn parts(set: SetId, present: &[Range], wanted: &[Range]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let nothing = || Part { set, delete: Vec::new(), add: Vec::new() };
    let mut part = nothing();
    let (mut old, mut new) = (present.iter().peekable(), wanted.iter().peekable());
    // The last key of what the current part touches.
    let mut reach: Option<Key> = None;
    loop {
        let (is_old, range) = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
                continue;
            }
            (Some(a), Some(b)) if a.start() <= b.start() => (true, old.next()),
            (Some(_), None) => (true, old.next()),
            _ => (false, new.next()),
        };
        let Some(range) = range else { break };
        let is_apart = reach.is_none_or(|reach| *range.start() > reach);
        if is_apart && part.delete.len() + part.add.len() >= RANGES_PER_TRANSACTION {
            parts.push(std::mem::replace(&mut part, nothing()));
        }
        reach = Some(reach.map_or(*range.end(), |reach| reach.max(*range.end())));
        (if is_old { &mut part.delete } else { &mut part.add }).push(element(range));
    }
    if !part.delete.is_empty() || !part.add.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::engine::Source;

    fn ranges(networks: &[(u32, u8)]) -> Vec<Range> {
        merge(
            networks
                .iter()
                .map(|(address, bits)| {
                    Key::network(
                        IpNet::new(Ipv4Addr::from(*address).into(), *bits).unwrap().trunc(),
                    )
                })
                .collect(),
        )
    }

    proptest! {
        /// Part by part the old list becomes the new one, nothing is taken out that is not there,
        /// nothing overlaps, and an address that is on both lists is exempt all the time.
        #[test]
        fn a_list_becomes_another_without_a_gap(
            old in proptest::collection::vec((0u32..4096, 20u8..=32), 0..400),
            new in proptest::collection::vec((0u32..4096, 20u8..=32), 0..400),
        ) {
            let (old, new) = (ranges(&old), ranges(&new));
            let mut kernel = old.clone();
            for part in parts(SetId::Allowed4, &old, &new) {
                for gone in &part.delete {
                    let at = kernel.iter().position(|range| *range == (gone.key..=gone.last()));
                    prop_assert!(at.is_some(), "{:?} is not there", gone);
                    kernel.remove(at.unwrap());
                }
                for added in &part.add {
                    prop_assert!(kernel.iter().all(|range| added.key > *range.end() || added.last() < *range.start()), "{:?} overlaps", added);
                    kernel.push(added.key..=added.last());
                }
                for address in (0u32..4096).step_by(7).map(|number| Key::from(IpAddr::V4(number.into()))) {
                    let on = |list: &[Range]| list.iter().any(|range| range.contains(&address));
                    prop_assert!(!(on(&old) && on(&new)) || on(&kernel));
                }
            }
            kernel.sort_unstable_by_key(|range| *range.start());
            prop_assert_eq!(kernel, new);
        }

        /// The rules spare an address exactly if the engine would not block its source.
        // P26
        #[test]
        fn what_is_spared_is_what_is_never_blocked(list in any::<u128>(), bits in 0u8..=128, source in any::<u128>(), shared in 0u32..=128, prefix in 48u8..=128) {
            // The first bits alike, so that both answers come up.
            let mask = u128::MAX.checked_shl(128 - shared).unwrap_or(0);
            let source = Ipv6Addr::from_bits(list & mask | source & !mask);
            let network = IpNet::new(IpAddr::V6(list.into()), bits).unwrap().trunc();
            let never: AllowList = [network].into_iter().collect();
            let source_network = Source::of(IpAddr::V6(source), prefix).network();
            let range = Key::network(widened(network, prefix));
            if IpAddr::V6(source).to_canonical().is_ipv6() {
                prop_assert_eq!(range.contains(&Key::from(IpAddr::V6(source))), never.overlaps(&source_network));
            }
        }
    }

    #[test]
    fn a_change_of_one_entry_among_many_is_one_short_transaction() {
        let ruleset = crate::ruleset::for_config(&Config::default(), 32768..=60999);
        let list = |own: &str| -> AllowList {
            (0..50_000u32)
                .map(|n| IpNet::from(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n * 2))))
                .chain([own.parse().unwrap()])
                .collect()
        };
        let mut exemptions = Exemptions::default();
        exemptions.want(&ruleset, &list("192.0.2.1/32"));
        let mut transactions = 0;
        while exemptions
            .next()
            .is_some_and(|part| part.add.len() + part.delete.len() <= RANGES_PER_TRANSACTION)
        {
            exemptions.sent();
            transactions += 1;
        }
        assert!(exemptions.is_settled() && transactions >= 500, "{transactions}");
        exemptions.want(&ruleset, &list("192.0.2.2/32"));
        for set in [SetId::Allowed4, SetId::Spared4] {
            let part = exemptions.next().unwrap();
            assert_eq!((part.set, part.delete.len(), part.add.len()), (set, 1, 1));
            exemptions.sent();
        }
        assert!(exemptions.is_settled());
    }
}
