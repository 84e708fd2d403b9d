//! The engine: what it holds, how it begins, and what another configuration changes.
//!
//! What comes in is in a file each: `probes`, `outcomes` and timers, the administrator's word `by_hand`; what is known goes out by `views`.

pub(super) mod by_hand;
mod outcomes;
mod probes;
mod views;

use std::time::Duration;

use super::account::{Counted, Touch, clock};
use super::blocks::Blocks;
use super::ledger::{Known, Ledger};
use super::offenders::{Offender, Offenders};
use super::policy::Policy;
use super::status::{Evidence, Status};
use super::surge::FloodDetector;
use super::{AllowList, MonoTime, Reason, Source};
use crate::rate::TokenBucket;

/// Reports a minute of sources that are told of and not blocked: as many as there are new blocks by default. A flood of invented sources that
/// pass the trigger is not worth a line each; what is held back is counted.
const TOLD_PER_MINUTE: u32 = 600;

/// The sweep runs this often: only the number of sources shown depends on it.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Who scans, and what follows from it. See the [module](super).
///
/// Every [`Action::Block`], [`Action::Unblock`] and [`Action::Count`] must be answered by exactly one [`Outcome`](super::Outcome): until then
/// nothing else is ordered for the same source. Time may be given as it comes: a moment before the last one counts as the last one.
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
    unproven: TokenBucket,
    told: TokenBucket,
    /// Holds that the budget stands against.
    past_budget: FloodDetector,
    /// Of the policy, for the packet path.
    counted: Counted,
    now: MonoTime,
    sweep_at: Option<MonoTime>,
    /// Where the search for blocks that must not be goes on, if one is under way.
    review_from: Option<usize>,
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
            unproven: TokenBucket::per_minute(policy.unproven.per_minute),
            told: TokenBucket::per_minute(TOLD_PER_MINUTE),
            past_budget: FloodDetector::default(),
            always: AllowList::always(),
            never_block: AllowList::default(),
            counted: policy.counted(),
            policy,
            seed,
            now: MonoTime::default(),
            sweep_at: None,
            review_from: None,
            status: Status::default(),
        }
    }

    /// Another configuration. Accounts and blocks stay; what must not be blocked any more is lifted.
    ///
    /// When `block.ipv6_prefix` changes, each block goes on to block what was decided, no more and no less; accounts of the old length are forgotten.
    pub fn reconfigure(&mut self, now: MonoTime, policy: Policy) {
        let now = self.tick(now);
        let old = std::mem::replace(&mut self.policy, policy);
        self.counted = self.policy.counted();
        self.ledger.reshape(self.policy.shape(), self.seed[0], now, self.counted);
        self.unproven = self.unproven.changed(TokenBucket::per_minute(self.policy.unproven.per_minute));
        if old.allow != self.policy.allow {
            self.lift_never_block();
        }
    }

    /// Own addresses, gateways, resolvers and administrators' peers, as they are now. Blocks of scans that overlap them, and others that lie within them, are
    /// lifted by the next calls of [`Engine::on_timer`].
    pub fn set_never_block(&mut self, now: MonoTime, list: AllowList) {
        self.tick(now);
        if list != self.never_block {
            self.never_block = list;
            self.lift_never_block();
        }
    }

    /// Takes over what an earlier run knew: who was blocked how often, and who touched what. What is known already, and what is over by now, is left out.
    pub fn recall(&mut self, now: MonoTime, offenders: impl IntoIterator<Item = Offender>, evidence: impl IntoIterator<Item = Evidence>) {
        let now = self.tick(now);
        let Self { policy, .. } = self;
        for offender in offenders.into_iter().filter(|offender| policy.is_account(offender.source)) {
            let offender = Offender { last: offender.last.min(now), ..offender };
            if now.since(offender.last) <= policy.escalate.memory {
                self.offenders.recall(offender);
            }
        }
        for evidence in evidence.into_iter().filter(|evidence| policy.is_account(evidence.source)) {
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
    fn tick(&mut self, now: MonoTime) -> MonoTime {
        self.now = self.now.max(now);
        self.now
    }

    fn lists(&self) -> [(&AllowList, &'static str); 3] {
        [(&self.always, "special address"), (&self.policy.allow, "allow list"), (&self.never_block, "never_block")]
    }

    fn is_never_block(&self, source: Source) -> bool {
        overlaps(&self.policy, &self.always, &self.never_block, source)
    }

    /// Blocks are looked through in pieces by [`Engine::on_timer`]: there may be a million, and the packet path waits meanwhile. Until then the rules
    /// exempt the addresses by themselves.
    fn lift_never_block(&mut self) {
        self.review_from = Some(0);
    }
}

fn overlaps(policy: &Policy, always: &AllowList, never_block: &AllowList, source: Source) -> bool {
    let network = source.network();
    [always, &policy.allow, never_block].into_iter().any(|list| list.overlaps(&network))
}

/// Whether a block must not be: it lies within what is never blocked, or is a scan's and overlaps that. Of a network that the administrator or another program
/// blocked, the rules exempt the addresses on the list.
fn is_void(policy: &Policy, always: &AllowList, never_block: &AllowList, source: Source, reason: &Reason) -> bool {
    let network = source.network();
    let is_scan = reason.scan().is_some();
    [always, &policy.allow, never_block].into_iter().any(|list| if is_scan { list.overlaps(&network) } else { list.covers(&network) })
}

#[cfg(test)]
mod tests;
