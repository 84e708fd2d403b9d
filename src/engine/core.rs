//! The engine: what it holds, how it begins, and what another configuration changes.
//!
//! What comes in is in a file each: `probes`, `outcomes` and timers, the administrator's word `by_hand`; what is known goes out by `views`.

mod by_hand;
mod outcomes;
mod probes;
mod views;

use std::time::Duration;

use super::account::{Counted, Touch, clock};
use super::blocks::Blocks;
use super::bucket::Bucket;
use super::entry::Order;
use super::ledger::{Known, Ledger};
use super::offenders::{Offender, Offenders};
use super::policy::Policy;
use super::status::{Evidence, Status};
use super::surge::Surge;
use super::{Action, AllowList, Ending, Moment, Source, Subject};

const MINUTE: u64 = 60_000;

/// Reports a minute of sources that are told of and not blocked: as many as there are new blocks by default. A flood of invented sources that
/// pass the trigger is not worth a line each; what is held back is counted.
const TOLD_PER_MINUTE: u64 = 600;

/// The sweep runs this often: only the number of sources shown depends on it.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Who scans, and what follows from it. See the [module](super).
///
/// Every [`Action::Block`], [`Action::Unblock`] and [`Action::Count`] must be answered by exactly one [`Outcome`](super::Outcome): until then
/// nothing else is ordered for the same subject. Time may be given as it comes: a moment before the last one counts as the last one.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    seed: [u64; 2],
    /// What the configuration cannot change.
    always: AllowList,
    /// Own addresses, gateways, resolvers, peers of administrators.
    never_block: AllowList,
    ledger: Ledger,
    blocks: Blocks,
    offenders: Offenders,
    /// New blocks of unproven sources.
    unproven: Bucket,
    told: Bucket,
    /// Holds that the budget stands against.
    past_budget: Surge,
    /// Of the policy, for the packet path.
    counted: Counted,
    now: Moment,
    sweep_at: Option<Moment>,
    status: Status,
}

impl Engine {
    /// An engine that knows nothing yet. `seed` keys the hash tables, so that nobody can choose addresses that collide: it must be random,
    /// and the same in runs that shall be the same.
    pub fn new(policy: Policy, seed: [u64; 2]) -> Self {
        let shape = policy.shape();
        Self {
            ledger: Ledger::new(shape, seed[0]),
            blocks: Blocks::new(seed[1]),
            offenders: Offenders::new(seed[0] ^ seed[1].rotate_left(32)),
            unproven: unproven_bucket(&policy),
            told: Bucket::new(TOLD_PER_MINUTE, MINUTE, TOLD_PER_MINUTE),
            past_budget: Surge::default(),
            always: AllowList::always(),
            never_block: AllowList::default(),
            counted: policy.counted(),
            policy,
            seed,
            now: Moment::default(),
            sweep_at: None,
            status: Status::default(),
        }
    }

    /// Another configuration. Accounts and blocks stay; what must not be blocked any more is lifted.
    ///
    /// When `block.ipv6_prefix` changes, blocked prefixes of the old length become blocked networks, so that each goes on to block what was
    /// judged, no more and no less.
    pub fn reconfigure(&mut self, now: Moment, policy: Policy, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let old = std::mem::replace(&mut self.policy, policy);
        self.counted = self.policy.counted();
        self.ledger.reshape(self.policy.shape(), self.seed[0], now, self.counted);
        let rate = u64::from(self.policy.unproven.per_minute);
        self.unproven = self.unproven.changed(rate, MINUTE, rate);
        if old.ipv6_prefix != self.policy.ipv6_prefix {
            self.convert_prefixes(now, old.ipv6_prefix, actions);
        }
        // A block whose lifting is under way stands for another network now.
        if old.allow != self.policy.allow || old.ipv6_prefix != self.policy.ipv6_prefix {
            self.lift_never_block(actions);
        }
    }

    /// Own addresses, gateways, resolvers and administrators' peers, as they are now. Blocks that overlap them are lifted.
    pub fn set_never_block(&mut self, now: Moment, list: AllowList, actions: &mut Vec<Action>) {
        self.tick(now);
        if list != self.never_block {
            self.never_block = list;
            self.lift_never_block(actions);
        }
    }

    /// Takes over what an earlier run knew: who was blocked how often, and who touched what. What is known already, and what is over by now, is left out.
    pub fn recall(&mut self, now: Moment, offenders: impl IntoIterator<Item = Offender>, evidence: impl IntoIterator<Item = Evidence>) {
        let now = self.tick(now);
        for offender in offenders {
            let offender = Offender { last: offender.last.min(now), ..offender };
            if now.since(offender.last) <= self.policy.escalate.memory {
                self.offenders.recall(offender);
            }
        }
        for evidence in evidence {
            let slots: Vec<u64> = evidence.ports.iter().map(|touch| Touch::of_view(touch).slot()).collect();
            let known = Known {
                slots: &slots,
                first: clock(evidence.first),
                last: clock(evidence.last),
                told: evidence.told.map_or(0, clock),
                probes: evidence.probes,
            };
            self.ledger.recall(now, evidence.source, known, self.counted);
        }
        if self.sweep_at.is_none() && self.ledger.sources() > 0 {
            self.sweep_at = Some(now.after(SWEEP_EVERY));
        }
    }

    /// Time that never goes back.
    fn tick(&mut self, now: Moment) -> Moment {
        self.now = self.now.max(now);
        self.now
    }

    fn lists(&self) -> [(&AllowList, &'static str); 3] {
        [(&self.always, "special address"), (&self.policy.allow, "allow list"), (&self.never_block, "never_block")]
    }

    fn is_never_block(&self, subject: Subject) -> bool {
        overlaps(&self.policy, &self.always, &self.never_block, subject)
    }

    /// The form in which a subject is known: IPv6 hosts cut to the prefix, IPv4-mapped ones as IPv4, networks without host bits.
    fn canonical(&self, subject: Subject) -> Subject {
        match subject {
            Subject::Host(source) => Subject::Host(Source::of(source.address().to_canonical(), self.policy.ipv6_prefix)),
            Subject::Network(network) => Subject::Network(network.trunc()),
        }
    }

    fn lift_never_block(&mut self, actions: &mut Vec<Action>) {
        let Self { blocks, policy, always, never_block, .. } = self;
        blocks.lift_where(Ending::NeverBlock, |subject| overlaps(policy, always, never_block, subject), actions);
    }

    fn convert_prefixes(&mut self, now: Moment, old: u8, actions: &mut Vec<Action>) {
        let is_prefix = |subject: Subject| matches!(subject, Subject::Host(Source::V6(_)));
        let converted: Vec<(Subject, Order)> = self
            .blocks
            .views()
            .filter(|view| is_prefix(view.subject))
            .map(|view| {
                let timeout = view.expires.map(|at| at.since(now).max(Duration::from_secs(1)));
                (Subject::Network(view.subject.network(old)), Order { timeout, reason: view.reason.clone(), port: None })
            })
            .collect();
        // Each prefix stands beside its network until the kernel has answered for both; several changes in a row must not heap them up.
        let most = (self.policy.total as usize).saturating_mul(2);
        for (network, order) in converted {
            if !self.is_never_block(network) && self.blocks.count() < most {
                self.blocks.order(now, network, order, actions);
            }
        }
        self.blocks.lift_where(Ending::ByHand, is_prefix, actions);
    }
}

fn overlaps(policy: &Policy, always: &AllowList, never_block: &AllowList, subject: Subject) -> bool {
    let network = subject.network(policy.ipv6_prefix);
    [always, &policy.allow, never_block].into_iter().any(|list| list.overlaps(&network))
}

fn unproven_bucket(policy: &Policy) -> Bucket {
    let rate = u64::from(policy.unproven.per_minute);
    Bucket::new(rate, MINUTE, rate)
}

#[cfg(test)]
mod tests;
