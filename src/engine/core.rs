//! The engine: probes, commands, timers and outcomes in; actions out.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::account::{Counted, Tally, Touch, clock, detail};
use super::blocks::{Blocks, Followup, Standing};
use super::bucket::Bucket;
use super::decision::{Decision, NotBlocked, Trigger, decide};
use super::entry::{Adopted, BlockView, Order};
use super::ledger::{Found, Known, Ledger};
use super::offenders::{Offender, Offenders};
use super::policy::Policy;
use super::status::{AccountView, Evidence, Status, TouchView};
use super::{Action, AllowList, Ending, Moment, Outcome, Reason, Report, Source, Subject};
use crate::config::{Mode, UnprovenAction};
use crate::probe::{Probe, ScanKind, Transport};

const MINUTE: u64 = 60_000;

/// Reports a minute of sources that are told of and not blocked: as many as there are new blocks by default. A flood of invented sources that
/// pass the trigger is not worth a line each; what is held back is counted.
const TOLD_PER_MINUTE: u64 = 600;

/// A source goes on when it has sent so many probes more than the trigger is: a flood would need as many for each source it invents.
const GOES_ON: u32 = 8;

/// Blocks that one call of [`Engine::on_timer`] looks after: some milliseconds of work at most. [`Engine::next_timer`] asks for another call.
const TIMERS_AT_ONCE: usize = 4096;

/// Accounts that one call of [`Engine::on_timer`] sweeps out.
const SWEPT_AT_ONCE: u32 = 4096;

/// The sweep runs this often: only the number of sources shown depends on it.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// When there was more to sweep than one call does.
const SWEEP_AGAIN: Duration = Duration::from_millis(10);

/// More holds than this within a second that the budget stands against are a flood's.
const SURGE: u32 = 100;
/// A flood is over when a second has passed with fewer.
const SURGE_SPAN: u64 = 1000;

/// Whether so many come that it can only be a flood. Seconds are counted one by one, and the last one is remembered.
#[derive(Debug, Clone, Copy, Default)]
struct Surge {
    second: u64,
    count: u32,
    before: u32,
}

impl Surge {
    /// Counts one more.
    fn floods(&mut self, now: Moment) -> bool {
        let second = now.millis() / SURGE_SPAN;
        if second != self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count.max(self.before) > SURGE
    }
}

/// Who scans, and what follows from it. See the [module](super).
///
/// Every [`Action::Block`], [`Action::Unblock`] and [`Action::Count`] must be answered by exactly one [`Outcome`]: until then nothing else is
/// ordered for the same subject. Time may be given as it comes: a moment before the last one counts as the last one.
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

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The subject overlaps what is never blocked.
    NeverBlock {
        /// What was to be blocked.
        subject: IpNet,
        /// What it overlaps.
        overlaps: IpNet,
        /// Where that stands.
        list: &'static str,
    },
    /// `mode: observe`.
    Observe,
    /// As many blocks are there as may be.
    Total(u32),
    /// A block of no length.
    NoTime,
    /// It is not blocked.
    NotBlocked(IpNet),
}

/// What a new connection of a source may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Nothing stands against it.
    Free,
    /// The source has passed the trigger and would be blocked; but as many blocks as may be are there (`block.unproven.per_minute`,
    /// `block.total`), or the kernel refused.
    Held,
    /// The source is blocked.
    Blocked,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBlock { subject, overlaps, list } if subject == overlaps => write!(f, "block {subject}: it is never blocked ({list})"),
            Self::NeverBlock { subject, overlaps, list } => write!(f, "block {subject}: it overlaps {overlaps}, which is never blocked ({list})"),
            Self::Observe => f.write_str("block: mode is observe, nothing is blocked"),
            Self::Total(total) => write!(f, "block: there are {total} blocks, and block.total allows no more"),
            Self::NoTime => f.write_str("block: the time is zero"),
            Self::NotBlocked(network) => write!(f, "unblock {network}: it is not blocked"),
        }
    }
}

impl std::error::Error for Refusal {}

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

    /// A source has touched a port. Tells whether it has passed the trigger.
    pub fn on_probe(&mut self, now: Moment, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let now = self.tick(now);
        // An IPv4-mapped address is the IPv4 address.
        let source = Source::of(probe.source.to_canonical(), self.policy.ipv6_prefix);
        self.status.probes += 1;
        if let Some(count) = self.status.by_scan.get_mut(probe.scan as usize) {
            *count += 1;
        }
        if self.sweep_at.is_none() {
            self.sweep_at = Some(now.after(SWEEP_EVERY));
        }
        let (tally, found) = self.ledger.touch(now, source, Touch::new(now, probe), self.counted);
        let decision = decide(&self.policy, tally, probe.scan, probe.port.transport);
        let against = match decision {
            Decision::Wait => return Trigger::Below,
            _ if self.is_never_block(Subject::Host(source)) => Some(NotBlocked::NeverBlock),
            Decision::Tell(against) => Some(against),
            Decision::Block { .. } => None,
        };
        if let Some(against) = against {
            // Whatever stands against a block, what was shown was shown.
            self.tell(now, found, probe, (against, tally.shown(self.policy.trigger())), actions);
            return Trigger::Passed;
        }
        self.judged(now, (source, found), probe, matches!(decision, Decision::Block { proven: true }), actions);
        Trigger::Passed
    }

    /// Whether anything is known of the source that an address belongs to. For the packet path: it changes nothing.
    pub fn knows(&self, source: IpAddr) -> bool {
        self.ledger.knows(Source::of(source.to_canonical(), self.policy.ipv6_prefix))
    }

    /// What a new connection of this source may do. For the packet path: it changes nothing.
    pub fn passage(&self, source: IpAddr) -> Passage {
        let source = Source::of(source.to_canonical(), self.policy.ipv6_prefix);
        if self.policy.mode == Mode::Observe {
            return Passage::Free;
        }
        if self.blocks.view(Subject::Host(source)).is_some() {
            return Passage::Blocked;
        }
        let horizon = self.ledger.horizon(self.now);
        let Some(tally) = self.ledger.look(source, |known| Tally::of(known.slots, horizon, self.counted)) else { return Passage::Free };
        let blocks = |transport| matches!(decide(&self.policy, tally, ScanKind::Syn, transport), Decision::Block { .. });
        let is_past = blocks(Transport::Tcp) || blocks(Transport::Udp);
        if is_past && !self.is_never_block(Subject::Host(source)) { Passage::Held } else { Passage::Free }
    }

    /// A source has touched a port, and the rules have held it for that. What is not blocked is released.
    ///
    /// A block is in the kernel before the hold is over, and then the hold runs out by itself. When `block.unproven.per_minute` or `block.total`
    /// stands against a block, the hold is ended as well, unless so many come that it can only be a flood of invented sources: among
    /// those there may be a scanner, and all of them run out within seconds.
    pub fn on_held(&mut self, now: Moment, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let budget = |status: &Status| -> u64 {
            [NotBlocked::PerMinute, NotBlocked::Total].iter().filter_map(|why| status.not_blocked.get(*why as usize)).sum()
        };
        let spent = budget(&self.status);
        let trigger = self.on_probe(now, probe, actions);
        self.status.held += 1;
        let source = Source::of(probe.source.to_canonical(), self.policy.ipv6_prefix);
        if self.blocks.covers(source) {
            return trigger;
        }
        if budget(&self.status) == spent || !self.past_budget.floods(self.now) {
            self.status.released += 1;
            actions.push(Action::Release { source, forget: None });
        }
        trigger
    }

    /// A source that the rules hold goes on. That tells a scanner from a flood's invented sources, when the blocks of the minute are used up; of a source
    /// that is blocked already it tells nothing.
    pub fn on_still(&mut self, now: Moment, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let source = Source::of(probe.source.to_canonical(), self.policy.ipv6_prefix);
        if !self.blocks.covers(source) {
            return self.on_probe(now, probe, actions);
        }
        self.tick(now);
        self.status.probes += 1;
        self.status.already_blocked += 1;
        Trigger::Passed
    }

    /// The administrator wants nothing held against a source: the rules forget it, whether it is blocked or not.
    pub fn forgive(&mut self, now: Moment, source: Source, actions: &mut Vec<Action>) {
        self.tick(now);
        if self.policy.reflex {
            let touched = self.ledger.look(source, |known| known.slots.iter().filter_map(|slot| Touch::live(*slot, 0)).map(Touch::port).collect());
            actions.push(Action::Release { source, forget: Some(touched.unwrap_or_default()) });
        }
    }

    /// Whether the account of a source passes the trigger over `transport`, as it stands.
    pub fn has_passed(&self, source: IpAddr, transport: Transport) -> bool {
        let source = Source::of(source.to_canonical(), self.policy.ipv6_prefix);
        let horizon = self.ledger.horizon(self.now);
        let tally = self.ledger.look(source, |known| Tally::of(known.slots, horizon, self.counted));
        tally.is_some_and(|tally| decide(&self.policy, tally, ScanKind::Udp, transport) != Decision::Wait)
    }

    /// A source is to be blocked, if nothing stands against it.
    fn judged(&mut self, now: Moment, (source, found): (Source, Found), probe: &Probe, proven: bool, actions: &mut Vec<Action>) {
        match self.blocks.standing(now, source) {
            Standing::Free => {}
            Standing::Unproven if proven => {}
            Standing::Unproven | Standing::Taken => {
                self.status.already_blocked += 1;
                self.blocks.doubt(now, source, actions);
                return;
            }
        }
        let is_new = self.blocks.view(Subject::Host(source)).is_none();
        if is_new && self.blocks.count() >= self.policy.total as usize {
            return self.tell(now, found, probe, (NotBlocked::Total, proven), actions);
        }
        if !proven && !self.take_unproven(now, source) {
            return self.tell(now, found, probe, (NotBlocked::PerMinute, proven), actions);
        }
        let timeout = if proven {
            self.policy.escalated(self.offenders.times(now, source, self.policy.escalate.memory))
        } else {
            Some(self.policy.unproven.timeout)
        };
        // A scan whose block the kernel refused has been told of: the refusals tell the rest.
        let untold = !self.blocks.was_refused(Subject::Host(source));
        self.ledger.tell(now, found);
        let reason = self.reason(now, source, probe.scan, proven);
        if untold {
            actions.push(Action::Report(Report::Scan { source, probe: *probe, reason: reason.clone(), not_blocked: None }));
        }
        self.blocks.order(now, Subject::Host(source), Order { timeout, reason, port: Some(probe.port) }, actions);
    }

    /// Takes one of the new blocks that unproven sources may have in a minute.
    ///
    /// A quarter is kept for those who go on: at a low trigger each invented source of a flood passes it with its first packet, takes what there is, and
    /// is never seen again, while a real scanner sends more.
    fn take_unproven(&mut self, now: Moment, source: Source) -> bool {
        let reserve = u64::from(self.policy.unproven.per_minute) / 4;
        let probes = u32::from(self.policy.trigger()) + GOES_ON;
        self.unproven.take_above(now, reserve) || (self.ledger.look(source, |known| known.probes >= probes) == Some(true) && self.unproven.take(now))
    }

    /// Something may be due: see [`Engine::next_timer`].
    pub fn on_timer(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let Self { blocks, policy, always, never_block, .. } = self;
        blocks.on_timer(now, TIMERS_AT_ONCE, |subject| renewal(policy, always, never_block, subject), actions);
        if self.sweep_at.is_some_and(|at| at <= now) {
            let more = self.ledger.sweep(now, SWEPT_AT_ONCE);
            self.sweep_at = if more {
                Some(now.after(SWEEP_AGAIN))
            } else if self.ledger.sources() > 0 {
                Some(now.after(SWEEP_EVERY))
            } else {
                None
            };
        }
    }

    /// When [`Engine::on_timer`] is to be called next. It may lie in the past: then at once.
    pub fn next_timer(&self) -> Option<Moment> {
        [self.blocks.next_timer(), self.sweep_at].into_iter().flatten().min()
    }

    /// The kernel's answer to an action.
    pub fn on_outcome(&mut self, now: Moment, outcome: Outcome, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let Self { blocks, policy, always, never_block, .. } = self;
        match blocks.on_outcome(now, outcome, |subject| renewal(policy, always, never_block, subject), actions) {
            Followup::Nothing => {}
            Followup::Blocked(Subject::Host(source)) => {
                let is_proven_scan =
                    self.blocks.view(Subject::Host(source)).is_some_and(|view| matches!(view.reason, Reason::Scan { proven: true, .. }));
                if is_proven_scan {
                    self.offenders.note(now, source, self.policy.escalate.memory);
                }
            }
            // Else the next single probe would block it again, and the administrator's word would hold for a second.
            Followup::Forgiven(Subject::Host(source)) => {
                self.forgive(now, source, actions);
                self.ledger.forget(source);
            }
            // It may come off that list again before the hold has run out, and nobody would hear of it until then.
            Followup::Exempt(Subject::Host(source)) => {
                if self.policy.reflex {
                    actions.push(Action::Release { source, forget: None });
                }
            }
            Followup::Blocked(Subject::Network(_)) | Followup::Forgiven(Subject::Network(_)) | Followup::Exempt(Subject::Network(_)) => {}
        }
    }

    /// The administrator blocks a subject, or gives a block another time and reason. [`Report::Blocked`] follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn block(&mut self, now: Moment, subject: Subject, timeout: Option<Duration>, text: &str, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let now = self.tick(now);
        let subject = self.canonical(subject);
        let network = subject.network(self.policy.ipv6_prefix);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Refusal::NoTime);
        }
        for (list, name) in self.lists() {
            if let Some(overlaps) = list.overlapping(&network) {
                return Err(Refusal::NeverBlock { subject: network, overlaps, list: name });
            }
        }
        if self.policy.mode == Mode::Observe {
            return Err(Refusal::Observe);
        }
        if self.blocks.view(subject).is_none() && self.blocks.count() >= self.policy.total as usize {
            return Err(Refusal::Total(self.policy.total));
        }
        self.blocks.order(now, subject, Order { timeout, reason: Reason::Manual(text.to_owned()), port: None }, actions);
        Ok(())
    }

    /// The administrator lifts a block; the source's evidence is forgiven. [`Report::Unblocked`] follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotBlocked`].
    pub fn unblock(&mut self, now: Moment, subject: Subject, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.tick(now);
        let subject = self.canonical(subject);
        if self.blocks.lift(subject, Ending::ByHand, actions) { Ok(()) } else { Err(Refusal::NotBlocked(subject.network(self.policy.ipv6_prefix))) }
    }

    /// Somebody took the element of a subject out of the kernel's set: the block is over, and the source's evidence is forgiven as after an unblock.
    /// Gives whether it was blocked.
    pub fn removed_by_hand(&mut self, now: Moment, subject: Subject, actions: &mut Vec<Action>) -> bool {
        self.tick(now);
        let subject = self.canonical(subject);
        let was_blocked = self.blocks.removed(subject, actions);
        if let (true, Subject::Host(source)) = (was_blocked, subject) {
            self.forgive(now, source, actions);
            self.ledger.forget(source);
        }
        was_blocked
    }

    /// Somebody put an element into the kernel's sets, or gave it another time: what the kernel has counts from now on. Gives whether that is news.
    /// What must not be blocked is lifted.
    pub fn changed_by_hand(&mut self, now: Moment, found: Adopted, actions: &mut Vec<Action>) -> bool {
        let now = self.tick(now);
        let found = Adopted { subject: self.canonical(found.subject), ..found };
        if self.blocks.view(found.subject).is_some() {
            return self.blocks.changed(now, &found);
        }
        self.adopt(now, [found], actions);
        true
    }

    /// Takes over the elements that are in the kernel's sets at start. Those that must not be blocked are lifted.
    pub fn adopt(&mut self, now: Moment, found: impl IntoIterator<Item = Adopted>, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let found = found.into_iter();
        self.blocks.reserve(found.size_hint().0);
        for element in found {
            let element = Adopted { subject: self.canonical(element.subject), ..element };
            self.blocks.adopt(now, &element);
            if self.is_never_block(element.subject) {
                self.blocks.lift(element.subject, Ending::NeverBlock, actions);
            }
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

    /// The engine in numbers.
    pub fn status(&self) -> Status {
        let done = self.blocks.done();
        Status {
            sources: self.ledger.sources(),
            suspects: self.ledger.suspects(),
            capacity: self.ledger.capacity(),
            blocked: self.blocks.in_force(),
            ordered: self.blocks.count(),
            offenders: self.offenders.count(),
            blocks: done.blocked,
            renewals: done.renewed,
            refused: done.refused,
            unblocked: done.unblocked,
            evicted: self.ledger.evicted(),
            ..self.status.clone()
        }
    }

    /// What is known of the source that `address` belongs to; `None` if it touched nothing within the window.
    pub fn account(&self, address: IpAddr) -> Option<AccountView> {
        let source = Source::of(address.to_canonical(), self.policy.ipv6_prefix);
        let horizon = self.ledger.horizon(self.now);
        let view = self.ledger.look(source, |known| {
            let mut ports: Vec<TouchView> = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).map(Touch::view).collect();
            ports.sort_by_key(|touch| touch.at);
            AccountView { source, first: Moment::from_millis(known.first), last: Moment::from_millis(known.last), probes: known.probes, ports }
        })?;
        (!view.ports.is_empty()).then_some(view)
    }

    /// How often the source that `address` belongs to was blocked as proven, within `block.escalate.memory`.
    pub fn blocks_before(&self, address: IpAddr) -> u32 {
        let source = Source::of(address.to_canonical(), self.policy.ipv6_prefix);
        self.offenders.times(self.now, source, self.policy.escalate.memory)
    }

    /// The blocks that are in force, in no order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockView<'_>> {
        self.blocks.views()
    }

    /// The block of this very subject, if it is in force.
    pub fn blocked(&self, subject: Subject) -> Option<BlockView<'_>> {
        self.blocks.view(self.canonical(subject))
    }

    /// The block of a subject in the very form in which an action or a report has named it, if it is in force.
    pub fn standing(&self, subject: Subject) -> Option<BlockView<'_>> {
        self.blocks.view(subject)
    }

    /// The blocks in force, in pieces: `places` bounds the work of one call, `from` is 0 or what the call before gave. `None`: these were the last.
    pub fn blocks_page(&self, from: usize, places: usize) -> (impl Iterator<Item = BlockView<'_>>, Option<usize>) {
        self.blocks.page(from, places)
    }

    /// Whether a subject overlaps what is never blocked.
    pub fn must_not_block(&self, subject: Subject) -> bool {
        self.is_never_block(self.canonical(subject))
    }

    /// A proven source that was blocked, and how often.
    pub fn offender(&self, source: Source) -> Option<Offender> {
        self.offenders.get(source)
    }

    /// The proven sources that were blocked.
    pub fn offenders(&self) -> impl Iterator<Item = Offender> {
        self.offenders.all()
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

    /// What is known of the sources that were touched at `since` or later: suspects first, and at most `most` of them.
    pub fn evidence(&self, since: Moment, most: usize) -> Vec<Evidence> {
        let horizon = self.ledger.horizon(self.now);
        let mut all = Vec::new();
        self.ledger.survey(clock(since), most, |source, known| {
            let ports: Vec<TouchView> = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).map(Touch::view).collect();
            if !ports.is_empty() {
                all.push(Evidence {
                    source,
                    first: Moment::from_millis(known.first),
                    last: Moment::from_millis(known.last),
                    told: (known.told > 0).then(|| Moment::from_millis(known.told)),
                    probes: known.probes,
                    ports,
                });
            }
        });
        all
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
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

    /// Tells of a scan that is not blocked: once a window for each source, and so many a minute in all.
    fn tell(&mut self, now: Moment, found: Found, probe: &Probe, (against, proven): (NotBlocked, bool), actions: &mut Vec<Action>) {
        if let Some(count) = self.status.not_blocked.get_mut(against as usize) {
            *count += 1;
        }
        if !self.ledger.tell(now, found) {
            return;
        }
        if !self.told.take(now) {
            self.status.reports_held_back += 1;
            return;
        }
        let source = Source::of(probe.source.to_canonical(), self.policy.ipv6_prefix);
        let reason = self.reason(now, source, probe.scan, proven);
        actions.push(Action::Report(Report::Scan { source, probe: *probe, reason, not_blocked: Some(against) }));
    }

    fn reason(&self, now: Moment, source: Source, scan: ScanKind, proven: bool) -> Reason {
        let horizon = self.ledger.horizon(now);
        let detail = self.ledger.look(source, |known| detail(known.slots, horizon)).unwrap_or_default();
        Reason::Scan { scan, proven, detail }
    }
}

fn overlaps(policy: &Policy, always: &AllowList, never_block: &AllowList, subject: Subject) -> bool {
    let network = subject.network(policy.ipv6_prefix);
    [always, &policy.allow, never_block].into_iter().any(|list| list.overlaps(&network))
}

/// The time that the block of an unproven scan gets while it goes on; none if such scans are not, or this subject must not be blocked any more.
fn renewal(policy: &Policy, always: &AllowList, never_block: &AllowList, subject: Subject) -> Option<Duration> {
    let wanted = policy.mode == Mode::Enforce && policy.unproven.action == UnprovenAction::Block;
    (wanted && !overlaps(policy, always, never_block, subject)).then_some(policy.unproven.timeout)
}

fn unproven_bucket(policy: &Policy) -> Bucket {
    let rate = u64::from(policy.unproven.per_minute);
    Bucket::new(rate, MINUTE, rate)
}

#[cfg(test)]
mod tests;
