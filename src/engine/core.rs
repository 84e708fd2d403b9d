//! The engine's state, its creation, and its reconfiguration.
//!
//! Each kind of input has its own file: `probes`, `outcomes` (with timers), `manual` (commands and
//! edits with nft). `views` has the queries.

mod campaign;
pub(super) mod manual;
mod many;
mod observing;
mod outcomes;
mod probes;
mod reach;
mod views;

use std::collections::BTreeSet;
use std::time::Duration;

use super::account::{Counted, Touch, clock};
use super::blocks::Blocks;
use super::campaigns::{Campaigns, NETWORK_BUCKETS, SIGNATURE_BUCKETS};
use super::flood::FloodDetector;
use super::ledger::{Account, Ledger};
use super::longterm::LongTerm;
use super::many::Many;
use super::observed::Observed;
use super::offenders::{Offender, Offenders};
use super::policy::Policy;
use super::slowed::Slowed;
use super::status::{Evidence, Seen, Status};
use super::sweeps::Sweeps;
use super::{AllowList, MonoTime, Reason, Source};
use crate::config::{Mode, UnprovenAction};
use crate::probe::{Port, Probe, ScanKind, Signature, Transport};
use crate::rate::TokenBucket;

/// Reports per minute about sources that are not blocked, as many as new blocks by default. In a
/// flood of spoofed sources that pass the trigger, a line for each would fill the log; suppressed
/// reports are counted.
const REPORTS_PER_MINUTE: u32 = 600;

/// Reports per minute of unproven sources that continue. Half of them are for those that sent far
/// more probes than a flood has for each invented source.
const CONTINUING_PER_MINUTE: u32 = 30;

/// New unproven sources a minute from which on those that continue are reported: each may have three
/// lines of the log, which writes 50 about such sources.
const CROWDED_PER_MINUTE: u32 = 10;
/// How long they are reported after that: a scan may be slow.
const CROWDED_FOR: Duration = Duration::from_secs(600);

/// Campaigns a minute that are reported, and whose networks are slowed or blocked. More are a flood of
/// forged sources.
const CAMPAIGNS_PER_MINUTE: u32 = 10;

/// Interval of the sweep for expired accounts. Only the number of sources in the status depends on
/// it.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The detection engine. See the [module](super).
///
/// Every [`Action`](super::Action) that asks for a change or a count must be answered by exactly one
/// [`Outcome`](super::Outcome): until then nothing else is ordered for the same source. A time before
/// the last one counts as the last one.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    seed: [u64; 2],
    /// Special addresses, which no configuration can make blockable.
    always: AllowList,
    /// Own addresses, gateways, resolvers, peers of administrators.
    never_block: AllowList,
    /// Ports that services listen on.
    services: BTreeSet<Port>,
    ledger: Ledger,
    longterm: LongTerm,
    /// Packets as closed connections and late answers send them.
    late: Many,
    /// SYNs and datagrams to closed ports that are not watched.
    refused: Many,
    /// Probes that arrived over allowed interfaces.
    trusted: Many,
    blocks: Blocks,
    offenders: Offenders,
    slowed: Slowed,
    /// Sources that probed one port of several addresses of this host.
    sweeps: Sweeps,
    /// Sources that pinged several; apart, because anybody can ping.
    pings: Sweeps,
    /// What observe mode would have slowed or blocked.
    observed: Observed,
    /// Networks whose sources may share a scan.
    campaigns: Campaigns,
    /// Programs whose packets come from several sources.
    signatures: Campaigns,
    /// Limits reports of campaigns, and with them the networks that are slowed or blocked.
    campaign_tokens: TokenBucket,
    /// Limits new blocks of unproven sources.
    unproven: TokenBucket,
    report_tokens: TokenBucket,
    /// Limits reports of slowed sources, and with them the commands.
    slowed_tokens: TokenBucket,
    /// Limits reports of unproven sources that continue.
    continuing_tokens: TokenBucket,
    /// Detects that there are more new unproven sources than the log can name.
    new_tokens: TokenBucket,
    crowded: Option<MonoTime>,
    /// Detects a flood of held sources for which no block is left.
    over_budget: FloodDetector,
    /// From the policy; kept because every packet needs it.
    counted: Counted,
    now: MonoTime,
    sweep_at: Option<MonoTime>,
    /// Where the search for blocks that must end continues, if one is running.
    review_from: Option<usize>,
    /// The slowed source after which the search for those that must not be slowed continues, if one
    /// is running: `Some(None)` is the start.
    release_after: Option<Option<Source>>,
    status: Status,
}

impl Engine {
    /// An empty engine. `seed` keys the hash tables against chosen addresses that collide: it must
    /// be random in production, and fixed where runs must be reproducible.
    pub fn new(policy: Policy, seed: [u64; 2]) -> Self {
        let shape = policy.shape();
        Self {
            ledger: Ledger::new(shape, seed[0]),
            longterm: LongTerm::new(),
            late: Many::new(seed[0]),
            refused: Many::new(seed[1]),
            trusted: Many::new(seed[1].rotate_left(7)),
            blocks: Blocks::new(seed[1]),
            offenders: Offenders::new(seed[0] ^ seed[1].rotate_left(32)),
            slowed: Slowed::default(),
            sweeps: sweeps(&policy, seed),
            pings: sweeps(&policy, seed),
            observed: Observed::default(),
            campaigns: Campaigns::new(NETWORK_BUCKETS, seed[0]),
            signatures: Campaigns::new(SIGNATURE_BUCKETS, seed[1]),
            campaign_tokens: TokenBucket::per_minute(CAMPAIGNS_PER_MINUTE),
            unproven: TokenBucket::per_minute(policy.unproven.per_minute),
            report_tokens: TokenBucket::per_minute(REPORTS_PER_MINUTE),
            slowed_tokens: TokenBucket::per_minute(REPORTS_PER_MINUTE),
            continuing_tokens: TokenBucket::per_minute(CONTINUING_PER_MINUTE),
            new_tokens: TokenBucket::per_minute(CROWDED_PER_MINUTE),
            crowded: None,
            over_budget: FloodDetector::default(),
            always: AllowList::always(),
            never_block: AllowList::default(),
            services: BTreeSet::new(),
            counted: policy.counted(),
            policy,
            seed,
            now: MonoTime::default(),
            sweep_at: None,
            review_from: None,
            release_after: None,
            status: Status::default(),
        }
    }

    /// Puts another configuration in force. Accounts and blocks stay; blocks of addresses that are
    /// never-block now are lifted.
    ///
    /// When `block.ipv6` changes, each block keeps its network; IPv6 accounts are forgotten.
    pub fn reconfigure(&mut self, now: MonoTime, policy: Policy) {
        let now = self.tick(now);
        let old = std::mem::replace(&mut self.policy, policy);
        self.counted = self.policy.counted();
        if (old.mode, self.policy.mode) == (Mode::Enforce, Mode::Observe) {
            self.observed = Observed::since(now);
        }
        if (old.sweep_trigger, old.scan_window)
            != (self.policy.sweep_trigger, self.policy.scan_window)
            || old.ipv6 != self.policy.ipv6
        {
            // Counted again from now on: evidence of minutes.
            self.sweeps = sweeps(&self.policy, self.seed);
            self.pings = sweeps(&self.policy, self.seed);
        }
        self.ledger.reshape(self.policy.shape(), self.seed[0], now, self.counted);
        self.unproven =
            self.unproven.changed(TokenBucket::per_minute(self.policy.unproven.per_minute));
        if !self.policy.slows() {
            // In pieces, as never-block addresses are. Rules that hold sources instead would drop
            // every packet of these until their time is up.
            self.release_after = Some(None);
        }
        if old.allow != self.policy.allow {
            self.review();
        }
    }

    /// Replaces the list of own addresses, gateways, resolvers and administrators' peers. The next
    /// calls of [`Engine::on_timer`] lift scans' blocks that overlap them, and other blocks that
    /// lie within them.
    pub fn set_never_block(&mut self, now: MonoTime, list: AllowList) {
        self.tick(now);
        if list != self.never_block {
            self.never_block = list;
            self.review();
        }
    }

    /// Replaces the set of ports that services listen on. The next calls of [`Engine::on_timer`]
    /// release the slowed sources that probed no other port, and lift such blocks of unproven
    /// sources: clients of services that started late, or that came to this host.
    pub fn set_services(&mut self, now: MonoTime, services: BTreeSet<Port>) {
        self.tick(now);
        self.services = services;
        self.release_after = Some(None);
        // Otherwise there may be a million blocks, and none of them is an unproven source's.
        if self.policy.unproven.action == UnprovenAction::Block {
            self.review_from = Some(0);
        }
    }

    /// Restores offenders and evidence of an earlier run. Skips sources that are known already, and
    /// evidence that has expired, but for what the long window keeps.
    pub fn recall(
        &mut self,
        now: MonoTime,
        offenders: impl IntoIterator<Item = Offender>,
        evidence: impl IntoIterator<Item = Evidence>,
    ) {
        let now = self.tick(now);
        let Self { policy, .. } = self;
        for offender in offenders.into_iter().filter(|offender| policy.is_account(offender.source))
        {
            let offender = Offender { last: offender.last.min(now), ..offender };
            if now.since(offender.last) <= policy.escalate.memory {
                self.offenders.recall(offender);
            }
        }
        for evidence in evidence.into_iter().filter(|evidence| policy.is_account(evidence.source)) {
            let slots: Vec<u64> =
                evidence.ports.iter().map(|touch| Touch::of_view(touch).slot()).collect();
            let known = Account {
                slots: &slots,
                first: clock(evidence.first),
                last: clock(evidence.last),
                last_reported: evidence.last_reported.map_or(0, clock),
                probes: evidence.probes,
            };
            self.ledger.recall(now, evidence.source, known, self.counted);
            let hash = self.ledger.key_of(evidence.source).hash;
            self.longterm.recall(now, hash, evidence.last.min(now), evidence.long);
        }
        if self.sweep_at.is_none() && self.ledger.sources() > 0 {
            self.sweep_at = Some(now.after(SWEEP_EVERY));
        }
    }

    /// Adds ports that the rules remember of an earlier run to the accounts of their sources. It
    /// decides nothing: the next probe does. Skips what has expired.
    pub fn recall_seen(&mut self, now: MonoTime, seen: impl IntoIterator<Item = Seen>) {
        let now = self.tick(now);
        let horizon = self.ledger.horizon(now);
        for Seen { source, port, at } in seen {
            // The rules count no ambiguous probe, and do not say which kind it was.
            let scan = if port.transport == Transport::Udp { ScanKind::Udp } else { ScanKind::Syn };
            let probe = Probe {
                source,
                destination: source,
                port,
                scan,
                ambiguous: false,
                ip_options: false,
                signature: Signature::None,
            };
            let touch = Touch::new(at.min(now), &probe, 0).nowhere();
            if touch.time() >= horizon {
                self.count_all(now, source, touch);
            }
        }
        if self.sweep_at.is_none() && self.ledger.sources() > 0 {
            self.sweep_at = Some(now.after(SWEEP_EVERY));
        }
    }

    /// Advances the engine's time; it never goes back.
    fn tick(&mut self, now: MonoTime) -> MonoTime {
        self.now = self.now.max(now);
        self.now
    }

    fn lists(&self) -> [(&AllowList, &'static str); 3] {
        [
            (&self.always, "special address"),
            (&self.policy.allow, "allow list"),
            (&self.never_block, "never_block"),
        ]
    }

    fn is_never_block(&self, source: Source) -> bool {
        overlaps(&self.policy, &self.always, &self.never_block, source)
    }

    /// [`Engine::on_timer`] checks blocks and slowed sources in pieces: there may be a million, and
    /// packets wait meanwhile. Until then the rules exempt never-block addresses.
    fn review(&mut self) {
        self.review_from = Some(0);
        self.release_after = Some(None);
    }
}

fn sweeps(policy: &Policy, seed: [u64; 2]) -> Sweeps {
    Sweeps::new(policy.sweep_trigger, policy.shape().window, seed[0])
}

/// Whether services listen on all ports that a source probed, as far as its account shows.
fn is_served(
    ledger: &Ledger,
    (services, counted): (&BTreeSet<Port>, Counted),
    now: MonoTime,
    source: Source,
) -> bool {
    if services.is_empty() {
        return false;
    }
    let horizon = ledger.horizon(now);
    let served = ledger.inspect(source, |known| {
        let touches = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon));
        let mut counting = touches.filter(|touch| touch.counts(counted)).peekable();
        // No service is a reason to send flags that no stack sends.
        counting.peek().is_some()
            && counting.all(|touch| !touch.is_crafted() && services.contains(&touch.port()))
    });
    served == Some(true)
}

fn overlaps(policy: &Policy, always: &AllowList, never_block: &AllowList, source: Source) -> bool {
    let network = source.network();
    [always, &policy.allow, never_block].into_iter().any(|list| list.overlaps(&network))
}

/// Whether a block must be lifted: it lies within a never-block list, or it is a scan's and
/// overlaps one. In other blocked networks the rules exempt the listed addresses instead.
fn must_lift(
    policy: &Policy,
    always: &AllowList,
    never_block: &AllowList,
    source: Source,
    reason: &Reason,
) -> bool {
    let network = source.network();
    let is_scan = reason.scan().is_some();
    [always, &policy.allow, never_block]
        .into_iter()
        .any(|list| if is_scan { list.overlaps(&network) } else { list.covers(&network) })
}

#[cfg(test)]
mod tests;
