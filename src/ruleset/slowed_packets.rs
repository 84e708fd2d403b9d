//! How many packets of a slowed source passed, and how many were dropped.
//!
//! A counter of a set's element counts every packet for which a rule adds or updates the element. One
//! set counts what comes from slowed sources, at the head of `watch` and `forwarded`; another one what
//! is dropped, where that falls. A dropped packet counts a second time in the first set: a probe keeps
//! its source slowed, and what renews an element also counts. So both counts end when the source is
//! not slowed any more, and what passed is the first count less twice the second ([`of`]).

use std::time::Duration;

use super::Builder;
use super::family::{Family, each};
use super::sets::SetId;
use super::statements::{chain, drop, goto, is_in, rule, update};
use crate::engine::SlowedPackets;
use crate::nft::model::{Chain, Owner, Rule, Set, Statement};

/// Maximum elements of each set: as many sources as the daemon lists. 178 bytes each (measured on
/// Linux 6.18), 12 MB of the kernel's memory for each set. Beyond it, further sources are not counted.
const SIZE: u32 = 65_536;
const _: () = assert!(SIZE as usize == crate::engine::SLOWED_MAX);
/// The counts are there for this much longer than the source is slowed: the daemon reads them when it
/// learns that the time is up.
const OUTLAST: Duration = Duration::from_secs(10);

/// The entry for a packet of a slowed source that is dropped and does not keep it slowed.
const SLOW_DROP: &str = "slow_drop";

/// The sets of a slowed source, by the one that slows it: all packets, and those that were dropped.
pub(crate) const fn sets(held: SetId) -> Option<[SetId; 2]> {
    match held {
        SetId::Held4 => Some([SetId::Packets4, SetId::Drops4]),
        SetId::Held6 => Some([SetId::Packets6, SetId::Drops6]),
        SetId::HeldNets6 => Some([SetId::PacketsNets6, SetId::DropsNets6]),
        _ => None,
    }
}

/// How long an element is there after the last probe.
pub(crate) fn memory(slowed: Duration) -> Duration {
    slowed + OUTLAST
}

/// What the counters of both sets say.
pub(crate) fn of(packets: u64, drops: u64) -> SlowedPackets {
    SlowedPackets { passed: packets.saturating_sub(drops.saturating_mul(2)), dropped: drops }
}

impl Builder<'_> {
    pub(super) fn slowed_packets_sets(&self) -> Vec<Set> {
        let set = |id: SetId, comment| Set {
            timeouts: true,
            counter: true,
            size: Some(SIZE),
            comment: Some(comment),
            ..Set::plain(id, Owner::Rules)
        };
        let of = |family: Family| {
            [
                set(family.packets, "packets of slowed sources, dropped ones twice"),
                set(family.drops, "packets of slowed sources that were dropped"),
            ]
        };
        self.slowed_families().into_iter().flat_map(of).collect()
    }

    /// For `watch` and `forwarded`: whatever comes from a slowed source.
    pub(super) fn count_slowed(&self) -> Vec<Rule> {
        if !self.slows() {
            return Vec::new();
        }
        each(self.slowed_families(), "packets of slowed sources are counted", |family| {
            vec![is_in(family.source, family.held), self.counts_in(family.packets, family)]
        })
    }

    /// Counts a packet that is dropped; the rule goes on.
    pub(super) fn count_drops(&self, why: &'static str) -> Vec<Rule> {
        each(self.slowed_families(), why, |family| {
            vec![
                is_in(family.source, family.held),
                self.counts_in(family.drops, family),
                self.counts_in(family.packets, family),
            ]
        })
    }

    /// The same for a probe, which keeps its source slowed.
    pub(super) fn renews_counts(&self, family: Family) -> [Statement; 2] {
        let memory = memory(self.config.block.unproven.timeout);
        [family.drops, family.packets].map(|set| update(set, family.source, memory))
    }

    /// Drops a packet of a slowed source.
    pub(super) fn drops_slowed(&self) -> Statement {
        if self.slows() { goto(SLOW_DROP) } else { drop() }
    }

    pub(super) fn slow_drop(&self) -> Chain {
        let mut rules = self.count_drops("dropped packets of slowed sources are counted");
        rules.push(rule("", [drop()]));
        chain(SLOW_DROP, rules)
    }

    fn counts_in(&self, set: SetId, family: Family) -> Statement {
        Statement::Add {
            set: set.spec(),
            key: vec![family.source],
            timeout: Some(memory(self.config.block.unproven.timeout)),
        }
    }
}

/// Whether a rule drops a packet of a slowed source.
pub(super) fn is_drop(to: &str) -> bool {
    to == SLOW_DROP
}
