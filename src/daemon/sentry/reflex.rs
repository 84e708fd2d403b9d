//! The reflex, as the packet thread sees it: whom it must spare, what it is to forget, what it did.

use super::Sentry;
use crate::daemon::command;
use crate::engine::AllowList;
use crate::nft::element::merge;
use crate::nft::reflex::Tally;
use crate::nft::{Element, Error, Installed, Key, Ruleset, SetId};
use crate::responder::words;
use ipnet::{IpNet, Ipv6Net};

/// Whom the rules must not hold: what is never blocked, by the same measure as the engine's. A source of IPv6 is a prefix, and it is spared if it
/// shares an address with anything that is never blocked. `None`: these rules hold nobody.
pub(super) fn spared(ruleset: &Ruleset, never_block: &AllowList, set: SetId) -> Option<Vec<Element<'static>>> {
    let prefix = ruleset.held_prefix()?;
    let always = AllowList::always();
    let networks = always.networks().iter().chain(never_block.networks()).map(|network| widened(*network, prefix));
    let ranges = merge(networks.filter(|network| network.addr().is_ipv4() == (set == SetId::Spared4)).map(Key::network).collect());
    Some(ranges.iter().map(Element::range).collect())
}

/// Of IPv6, the whole prefix that a network is in; what is wider than one stays.
fn widened(network: IpNet, prefix: u8) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(v6) => Ipv6Net::new(v6.addr(), v6.prefix_len().min(prefix)).map_or(network, |wide| IpNet::V6(wide.trunc())),
    }
}

impl Sentry {
    /// What the reflex did since the start, and how full its sets are.
    pub(super) fn reflex_figures(&mut self) -> Option<command::Reflex> {
        self.ruleset.set(SetId::Held4)?;
        let tally = match self.tally() {
            Ok(tally) => tally,
            Err(error) => {
                log::debug!("{}", words(&error));
                return None;
            }
        };
        Some(command::Reflex { tally: self.reflex_before.plus(tally), fullest: self.fullest() })
    }

    /// The counters of the rules that are there now.
    pub(super) fn tally(&mut self) -> Result<Tally, Error> {
        self.court.responder.connection().rules().map(|rules| Tally::of(&rules))
    }

    /// Elements and size of the fullest set, in parts of its size.
    fn fullest(&mut self) -> Option<(u32, u32)> {
        let sets = self.court.responder.connection().sets().ok()?;
        let filled = sets.into_iter().filter(|set| SetId::from_name(&set.name).is_some_and(SetId::is_reflex));
        let counted = filled.filter_map(|set| Some((set.count?, set.size.filter(|size| *size > 0)?)));
        counted.max_by_key(|(count, size)| u64::from(*count) * 1_000_000 / u64::from(*size))
    }

    /// New rules are in place: the counters of the old ones are kept, and buckets of another size are forgotten, for each keeps the one that it
    /// was made with.
    pub(super) fn reflex_changed(&mut self, before: Tally, installed: &Installed, buckets_differ: bool) {
        if installed.steps.iter().any(|step| step == "flush rules") {
            self.reflex_before = self.reflex_before.plus(before);
        }
        if buckets_differ && let Err(error) = self.court.responder.forget_counts() {
            log::warn!("cannot forget what was counted by the old configuration: {}", words(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Source;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv6Addr};

    proptest! {
        /// The rules spare an address exactly if the engine would not block its source.
        // P26
        #[test]
        fn what_is_spared_is_what_is_never_blocked(list in any::<u128>(), bits in 0u8..=128, source in any::<u128>(), shared in 0u32..=128, prefix in 48u8..=128) {
            // The first bits alike, so that both answers come up.
            let mask = u128::MAX.checked_shl(128 - shared).unwrap_or(0);
            let source = Ipv6Addr::from_bits(list & mask | source & !mask);
            let network = IpNet::new(IpAddr::V6(list.into()), bits).unwrap().trunc();
            let never: AllowList = [network].into_iter().collect();
            let source_network = crate::engine::Subject::Host(Source::of(IpAddr::V6(source), prefix)).network(prefix);
            let range = Key::network(widened(network, prefix));
            prop_assert_eq!(range.contains(&Key::from(IpAddr::V6(source))), never.overlaps(&source_network));
        }
    }
}
