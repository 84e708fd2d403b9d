//! The sets of blocked hosts and networks, and the chain that drops what they send.
//!
//! The elements of hosts have no counters: the kernel takes five times as long for one that has (Linux
//! 6.18, a million: 0.8 s without, 4.3 s with counters), and most blocked hosts send nothing more. So
//! the rules put a host into a set with counters when they drop its first packet.

use std::time::Duration;

use super::Builder;
use super::family::{Family, each};
use super::sets::SetId;
use super::statements::{
    back, base_chain, chain, counted_drop, goto, is_in, is_not_in, rule, update,
};
use super::{GATE_PRIORITY, MARK};
use crate::nft::model::{Chain, Hook, Owner, Rule, Selector, Set, Statement};

/// Maximum elements of each set of counts, 178 bytes each (measured on Linux 6.18); further hosts are
/// not counted. Independent of `block.total`: a reload that changes the size of a set replaces the
/// set, and the counts would be lost.
const COUNTED_MAX: u32 = 1_000_000;

/// A host's count is there for so long after its last packet.
const MEMORY: Duration = Duration::from_secs(7 * 86_400);

/// The entry for a packet that is dropped because its host is blocked.
pub(super) const BLOCKED: &str = "blocked";

impl Builder<'_> {
    pub(super) fn blocked_sets(&self) -> Vec<Set> {
        let blocked = |id: SetId, comment| Set {
            // Networks are cut into pieces; the engine bounds the blocks. A size of 0 would be no
            // bound.
            size: (!id.is_interval()).then_some(self.config.block.total.max(1)),
            timeouts: true,
            counter: id.is_interval(),
            comment: Some(comment),
            ..Set::plain(id, Owner::Daemon)
        };
        let counts = |id: SetId| Set {
            size: Some(COUNTED_MAX),
            timeouts: true,
            counter: true,
            comment: Some("packets of blocked hosts, all dropped"),
            ..Set::plain(id, Owner::Rules)
        };
        let mut sets = vec![
            blocked(SetId::Blocked4, MARK),
            blocked(SetId::Blocked6, MARK),
            blocked(
                SetId::Unproven4,
                "blocked hosts that are not proven: what they open is dropped",
            ),
            blocked(SetId::Unproven6, "the same, by the first address of the prefix"),
            blocked(SetId::BlockedNets4, "networks blocked manually"),
            blocked(SetId::BlockedNets6, "blocked prefixes, and networks blocked manually"),
        ];
        if self.enforces() {
            sets.extend(self.hosts().map(|family| counts(family.blocked_packets)));
        }
        sets
    }

    /// The chain at which packets of blocked sources end, and what it jumps to.
    pub(super) fn gate(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        // In mode observe, existing blocks stay in the sets, for when the mode is `enforce` again; no
        // rule looks them up.
        let mut rules = Vec::new();
        if self.enforces() {
            let mut blocked = self.count_blocked();
            blocked.push(rule("", counted_drop()));
            chains.push(chain(BLOCKED, blocked));
            let gate = |why, selector, blocked, address, allowed, end: &[Statement]| {
                // Looked up only after a hit, so that ordinary traffic costs nothing more.
                let is_blocked = [is_in(selector, blocked), is_not_in(address, allowed)];
                rule(why, [&is_blocked, end].concat())
            };
            rules.extend(self.over_allowed("nothing is blocked over these interfaces", [back()]));
            let why = "blocked sources are dropped, unless they are allowed";
            let (prefix, ip4, ip6) = (
                Selector::Ip6SaddrPrefix(self.config.block.ipv6.first),
                Selector::Ip4Saddr,
                Selector::Ip6Saddr,
            );
            rules.extend([
                gate(why, ip4, SetId::Blocked4, ip4, SetId::Allowed4, &[goto(BLOCKED)]),
                gate("", prefix, SetId::Blocked6, ip6, SetId::Allowed6, &[goto(BLOCKED)]),
                gate("", ip4, SetId::BlockedNets4, ip4, SetId::Allowed4, &counted_drop()),
                gate("", ip6, SetId::BlockedNets6, ip6, SetId::Allowed6, &counted_drop()),
            ]);
        }
        chains.push(base_chain("gate", Hook::Prerouting, GATE_PRIORITY, rules));
        chains
    }

    /// Counts a packet that is dropped; the next rule drops it. Where the set is full, nothing is
    /// counted.
    pub(super) fn count_blocked(&self) -> Vec<Rule> {
        each(self.hosts(), "packets of blocked hosts are counted", |family| {
            vec![update(family.blocked_packets, family.source, MEMORY)]
        })
    }

    /// What is blocked as one element of a set of hosts.
    fn hosts(&self) -> [Family; 2] {
        Family::both(self.config.block.ipv6.first)
    }
}
