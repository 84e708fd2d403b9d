//! The engine together with what carries its actions out: what is evaluated here is in force in the
//! kernel before the call returns.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::backlog::Backlog;
use super::drift::Drift;
use super::element::{self, BLOCKED};
use super::executor::{Context, Executor, SyncError, outcome};
use super::exempt::Exemptions;
use super::kernel::{Kernel, absent_is_fine};
use super::networks::{Family, Span, intervals};
use super::reconcile::{Dropped, Missing, Origin, Step, reconcile_networks};
use super::services::Services;
use crate::engine::{
    Action, Adopted, AllowList, BlockView, Ending, Engine, MonoTime, Outcome, Refusal, Report,
    Source, Trigger, Unblocked,
};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::nft::{Element, ElementInfo, Error, Ruleset};
use crate::probe::Probe;
use crate::ruleset::SetId;
use crate::store::changed;

/// Those who have to know what happens beside the kernel. None of these may wait.
pub trait Observer {
    /// The engine ordered these; they are about to be carried out.
    fn on_actions(&mut self, actions: &[Action]);
    /// The kernel refused the block of a source, one of these.
    fn on_refusal(&mut self, actions: &[Action], source: Source);
    /// The block of a source is another one now, or over.
    fn on_change(&mut self, engine: &Engine, source: Source);
    /// The engine reported something.
    fn on_report(&mut self, engine: &Engine, report: Report);
    /// Something that people should hear of.
    fn notify(&mut self, notice: Notice);
}

/// What [`Enforcer::unblock_all`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnblockedAll {
    /// Blocks that were lifted.
    pub lifted: usize,
    /// Sources that are not slowed any more.
    pub released: usize,
}

/// What the rules have done with the source of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    None,
    /// They hold it since this packet.
    New,
    /// They held it before.
    Repeat,
    /// They slow it, and it probed this port before.
    Retransmission {
        /// They answer the port as a closed one.
        answered: bool,
    },
}

/// What a run of steps came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    pub(super) adopted: u64,
    pub(super) restored: u64,
    pub(super) retimed: u64,
    pub(super) unblocked: u64,
    pub(super) never_block: u64,
    pub(super) total: u64,
    pub(super) normalised: u64,
}

/// Engine, kernel and what is under way between them.
pub struct Enforcer<K, O> {
    pub(crate) engine: Engine,
    /// Who has to know.
    pub observer: O,
    pub(crate) executor: Executor<K>,
    /// The rules in force.
    pub(crate) ruleset: Ruleset,
    pub(super) never_block: AllowList,
    pub(super) exemptions: Exemptions,
    pub(crate) backlog: Backlog,
    pub(crate) drift: Drift,
    /// Ports of local services when that was asked last.
    pub(super) services: Services,
    /// Actions to be carried out; kept, so that a packet allocates nothing.
    pub(super) actions: Vec<Action>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) conflicts: Vec<Action>,
    /// The kernel's last refusal, for the administrator whose command met it.
    pub(super) refusal: Option<(Source, String)>,
}

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// The engine, for what is only read.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Evaluates a probe; what follows from it is in force when this returns.
    pub fn evaluate(&mut self, now: MonoTime, probe: &Probe, hold: Hold) -> Trigger {
        let trigger = match hold {
            Hold::None => self.engine.on_probe(now, probe, &mut self.actions),
            Hold::New => self.engine.on_held(now, probe, &mut self.actions),
            Hold::Repeat => self.engine.on_repeat(now, probe, &mut self.actions),
            Hold::Retransmission { answered } => {
                self.engine.on_retransmission(now, probe, answered, &mut self.actions)
            }
        };
        self.perform(now);
        trigger
    }

    /// The rules hold a source for a packet that the kernel discards: it is released.
    pub fn on_discarded(&mut self, now: MonoTime, address: IpAddr) {
        self.engine.on_discarded(now, address, &mut self.actions);
        self.perform(now);
    }

    /// Evaluates a packet that looks like a late one.
    pub fn on_late(&mut self, now: MonoTime, probe: &Probe) {
        self.engine.on_late(now, probe, &mut self.actions);
        self.perform(now);
    }

    /// Evaluates a packet to a closed port that is not watched.
    pub fn on_unwatched(&mut self, now: MonoTime, probe: &Probe) {
        self.engine.on_unwatched(now, probe, &mut self.actions);
        self.perform(now);
    }

    /// Evaluates a probe that arrived over an allowed interface.
    pub fn on_allowed_interface(&mut self, now: MonoTime, probe: &Probe) {
        self.engine.on_allowed_interface(now, probe, &mut self.actions);
        self.perform(now);
    }

    /// Time goes by.
    pub fn on_timer(&mut self, now: MonoTime) {
        self.engine.on_timer(now, &mut self.actions);
        self.perform(now);
    }

    /// Carries actions out until there are none: an outcome may bring new ones.
    pub(crate) fn perform(&mut self, now: MonoTime) {
        if self.actions.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.actions);
        while !batch.is_empty() {
            self.observer.on_actions(&batch);
            self.executor.count_slowed(&mut batch);
            self.executor.forget_blocked_packets(&batch);
            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                rest = self.carry_out(now, rest);
                while let Some(action) = self.conflicts.pop() {
                    self.resolve(now, &action);
                }
                let mut outcomes = std::mem::take(&mut self.outcomes);
                for outcome in outcomes.drain(..) {
                    self.on_outcome(now, outcome, &batch);
                }
                self.outcomes = outcomes;
            }
            for action in batch.drain(..) {
                if let Action::Report(report) = action {
                    self.follow(now, &report);
                    self.observer.on_report(&self.engine, report);
                }
            }
            std::mem::swap(&mut batch, &mut self.actions);
        }
        self.actions = batch;
    }

    fn carry_out<'a>(&mut self, now: MonoTime, actions: &'a [Action]) -> &'a [Action] {
        let Self { engine, executor, ruleset, outcomes, conflicts, .. } = self;
        let context = Context { now, engine, ruleset, ordered: None };
        executor.carry_out(context, actions, outcomes, conflicts)
    }

    fn on_outcome(&mut self, now: MonoTime, outcome: Outcome, batch: &[Action]) {
        let outcome = match outcome {
            // No other program took out what was lost and is not restored yet.
            Outcome::Checked { source, is_there: false } if self.backlog.awaits(source) => {
                Outcome::Checked { source, is_there: true }
            }
            other => other,
        };
        if let Outcome::Blocked { source, result: Err(error) }
        | Outcome::Unblocked { source, result: Err(error) }
        | Outcome::Exempted { source, result: Err(error) } = &outcome
        {
            self.refusal = Some((*source, error.clone()));
            self.observer.on_refusal(batch, *source);
        }
        let changed = changed(&outcome);
        self.engine.on_outcome(now, outcome, &mut self.actions);
        if let Some(source) = changed {
            self.observer.on_change(&self.engine, source);
        }
    }

    /// The kernel's intervals are not those that were known: they are read, what others put there
    /// is adopted, and the action is carried out once more.
    fn resolve(&mut self, now: MonoTime, action: &Action) {
        let (Action::Block { source, .. }
        | Action::Unblock { source }
        | Action::Exempt { source, .. }) = action
        else {
            return;
        };
        let source = *source;
        let read = self.resync_networks(
            now,
            Family::of(source),
            Origin::Drift { notified: false }.missing(true),
        );
        if read.is_ok() {
            self.carry_out(now, std::slice::from_ref(action));
            if self.conflicts.pop().is_none() {
                return;
            }
        }
        let error = read.err().map_or_else(
            || "other programs change the set all the time".to_owned(),
            |error| error_chain(&error),
        );
        self.outcomes.extend(outcome(action, Err(error)));
    }

    /// Reads the intervals of a family, deals with what differs, and makes them what the blocks
    /// want.
    pub(super) fn resync_networks(
        &mut self,
        now: MonoTime,
        family: Family,
        missing: Missing,
    ) -> Result<Summary, Error> {
        let found = self.executor.kernel.dump(family.set())?;
        Ok(self.take_intervals(now, family, family.all(), missing, &found))
    }

    /// Deals with what differs between these intervals, which the kernel has within some addresses,
    /// and the blocks, and makes them what the blocks want.
    pub(super) fn take_intervals(
        &mut self,
        now: MonoTime,
        family: Family,
        within: Span,
        missing: Missing,
        found: &[ElementInfo],
    ) -> Summary {
        let Executor { placement, networks, .. } = &mut self.executor;
        let steps = reconcile_networks(now, missing, *placement, networks, family, within, found);
        networks.set_present_within(family, within, intervals(now, found));
        let summary = self.apply(now, steps, true);
        self.sync(now, family, within);
        summary
    }

    /// Makes the kernel's intervals over these addresses what the blocks want; what fails is tried
    /// again later.
    pub(super) fn sync(&mut self, now: MonoTime, family: Family, within: Span) {
        let Self { engine, executor, ruleset, .. } = self;
        let context = Context { now, engine, ruleset, ordered: None };
        match executor.sync(context, family, within) {
            Ok(()) => {
                if within == family.all() {
                    self.backlog.synced(family);
                }
            }
            // The set has other intervals than was known: the next look reads it.
            Err(SyncError::Conflict(error)) => {
                log::debug!("{}", error_chain(&error));
                self.drift.read.networks = true;
                self.backlog.sync(family);
            }
            Err(SyncError::Refused(error)) => {
                self.backlog.refused_networks(now, error_chain(&error));
                self.backlog.sync(family);
            }
        }
    }

    /// The intervals follow what a report says of a network.
    fn follow(&mut self, now: MonoTime, report: &Report) {
        let (Report::Unblocked { source, .. } | Report::Exempted { source, .. }) = *report else {
            return;
        };
        if self.executor.placement.is_network(source) {
            if !self.mirror(source) {
                self.executor.networks.remove(source);
            }
            self.sync(now, Family::of(source), Span::of(&source.network()));
        }
    }

    /// What is wanted of a network is what the engine has; `false`: it has no block of a network.
    fn mirror(&mut self, source: Source) -> bool {
        let Executor { placement, networks, .. } = &mut self.executor;
        if !placement.is_network(source) {
            return false;
        }
        let block = self.engine.blocked(source);
        block.map(|block| networks.set(source, block.expires, block.exempt)).is_some()
    }

    /// Carries steps out: the engine learns what it has to, and what the kernel has to get is on
    /// its way. `stored`: what is news to the engine is news to the state store.
    pub(super) fn apply(&mut self, now: MonoTime, steps: Vec<Step>, stored: bool) -> Summary {
        let mut summary = Summary::default();
        let mut later = Vec::new();
        let leftovers = self.leftovers(&steps);
        // In the memory of the steps, since there may be a million.
        let adopt = steps.into_iter().filter_map(|step| match step {
            Step::Keep(block) => Some(block),
            Step::Adopt(block) => {
                summary.adopted += 1;
                Some(block)
            }
            Step::Restore(block) if leftovers.contains(&block.source) => None,
            Step::Restore(block) => {
                summary.restored += 1;
                if !self.executor.placement.is_network(block.source) {
                    self.backlog.restore([block.source]);
                }
                Some(block)
            }
            other => {
                later.push(other);
                None
            }
        });
        let adopt: Vec<Adopted> = adopt.collect();
        let news: Vec<Source> = adopt
            .iter()
            .map(|block| block.source)
            .filter(|source| self.engine.blocked(*source).is_none())
            .collect();
        self.engine.adopt(now, adopt, &mut self.actions);
        for source in &news {
            self.mirror(*source);
            if stored {
                self.observer.on_change(&self.engine, *source);
            }
        }
        for step in later {
            match step {
                Step::Retime(block) => {
                    let source = block.source;
                    if self.engine.element_changed(now, block, &mut self.actions) {
                        summary.retimed += 1;
                        self.mirror(source);
                        self.observer.on_change(&self.engine, source);
                    }
                }
                Step::Unblock(source) => {
                    self.engine.element_removed(now, source, &mut self.actions);
                    summary.unblocked += 1;
                }
                Step::Exempt(source, part) => {
                    summary.unblocked +=
                        u64::from(self.engine.removed_part(now, source, part, &mut self.actions))
                }
                Step::Drop(source, Dropped::Total) => {
                    summary.total += 1;
                    self.actions
                        .push(Action::Report(Report::Unblocked { source, ending: Ending::Total }));
                }
                Step::Drop(_, Dropped::NeverBlock) => summary.never_block += 1,
                Step::Drop(_, Dropped::Over) => {}
                Step::Delete(set, key) => {
                    // Others are deleted because there are too many.
                    summary.normalised +=
                        u64::from(self.executor.placement.exact_source(set, key).is_none());
                    self.executor.undeleted.retain(|other| *other != (set, key));
                    if let Err(error) = self.executor.kernel.delete(set, &[Element::new(key)]) {
                        log::warn!("{}", error_chain(&error));
                        // The set is read again after a while, and it is tried again.
                        self.drift.lost = true;
                        self.executor.delete_later(set, key);
                    }
                }
                Step::Keep(_) | Step::Adopt(_) | Step::Restore(_) => {}
            }
        }
        self.perform(now);
        summary
    }

    /// Sources whose block ended while the kernel kept an element of theirs that blocks nothing: that
    /// it is still there is no wish to block them.
    fn leftovers(&self, steps: &[Step]) -> Vec<Source> {
        let undeleted = &self.executor.undeleted;
        let source = |step: &Step| match step {
            Step::Delete(set, key) if undeleted.contains(&(*set, *key)) => {
                self.executor.placement.source(*key)
            }
            _ => None,
        };
        let is_over = |source: &Source| self.engine.blocked(*source).is_none();
        steps.iter().filter_map(source).filter(is_over).collect()
    }

    /// Blocks by order of the administrator.
    ///
    /// # Errors
    /// Why it is refused, or what the kernel says.
    pub fn block(
        &mut self,
        now: MonoTime,
        source: Source,
        timeout: Option<Duration>,
        text: &str,
    ) -> Result<(), BlockError> {
        self.settle(now);
        self.refusal = None;
        self.engine
            .block(now, source, timeout, text, &mut self.actions)
            .map_err(BlockError::Refused)?;
        self.perform(now);
        match self.refusal.take() {
            Some((refused, error)) if refused == source => {
                Err(BlockError::Kernel { error, stays: self.engine.blocked(source).is_some() })
            }
            _ => Ok(()),
        }
    }

    /// Lets no address of `target` be blocked: see [`Engine::unblock_within`]. A hold ends as well.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unblock(&mut self, now: MonoTime, target: Source) -> Result<Unblocked, String> {
        self.settle(now);
        self.refusal = None;
        let done = self.engine.unblock_within(now, target, &mut self.actions);
        if done.lifted.is_empty()
            && let Some(account) =
                done.target.filter(|account| self.engine.policy().is_account(*account))
        {
            self.engine.forgive(now, account, &mut self.actions);
        }
        self.perform(now);
        self.refusal.take().map_or(Ok(done), |(_, error)| Err(error))
    }

    /// Lifts every block, releases every slowed source, and empties the sets of what else is in them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unblock_all(&mut self, now: MonoTime) -> Result<UnblockedAll, String> {
        self.settle(now);
        self.refusal = None;
        let known: Vec<Source> = self.engine.blocks().map(|block| block.source).collect();
        for source in &known {
            // One that ended just now is no failure.
            let _ = self.engine.unblock(now, *source, &mut self.actions);
        }
        self.perform(now);
        if let Some((_, error)) = self.refusal.take() {
            return Err(error);
        }
        let released = self.engine.release_all(now, &mut self.actions);
        self.perform(now);
        self.executor.forget_all().map_err(|error| error_chain(&error))?;
        // What others added and no notification has told of yet.
        let mut others = 0;
        for set in BLOCKED {
            // Where there is no set, nothing is blocked.
            let found = absent_is_fine(self.executor.kernel.dump(set));
            others += found.map_err(|error| error_chain(&error))?.len();
        }
        if others > 0 {
            self.executor.flush(&BLOCKED).map_err(|error| error_chain(&error))?;
            Family::ALL
                .into_iter()
                .for_each(|family| self.executor.networks.set_present(family, []));
        }
        Ok(UnblockedAll { lifted: known.len() + others, released })
    }

    /// Another never-block list: the engine's at once, the kernel's in pieces.
    ///
    /// # Errors
    /// What the kernel says; it is tried again.
    pub fn protect(&mut self, now: MonoTime, list: AllowList) -> Result<(), String> {
        self.never_block = list.clone();
        // The kernel first: what is exempt there is not dropped, whatever else goes wrong.
        self.exemptions.want(&self.ruleset, &self.never_block);
        let result = self.send_exemptions();
        self.engine.set_never_block(now, list);
        self.on_timer(now);
        result.map_err(|error| error_chain(&error))
    }

    /// Sends a few of the ranges that wait: one transaction between two looks at packets.
    pub(super) fn send_exemptions(&mut self) -> Result<(), Error> {
        let Some(part) = self.exemptions.next() else { return Ok(()) };
        if let Some(set) = self.ruleset.set(part.set) {
            self.executor.kernel.replace_intervals(set, &part.delete, &part.add)?;
        }
        self.exemptions.sent();
        Ok(())
    }

    /// The elements of hosts that belong into a set, as they go into it; what was lifted meanwhile
    /// is left out.
    pub(super) fn elements(
        &self,
        now: MonoTime,
        sources: &[Source],
        set: SetId,
    ) -> Vec<ElementInfo> {
        let element = |source: &Source| {
            let block = self.engine.blocked(*source)?;
            let key = self.executor.placement.key_in(set, &block)?;
            element::of_host(now, key, &block)
        };
        sources.iter().filter_map(element).collect()
    }

    /// The blocked networks in force.
    pub(crate) fn blocked_networks(&self) -> impl Iterator<Item = BlockView<'_>> {
        let placement = self.executor.placement;
        self.engine.blocks().filter(move |block| placement.is_network(block.source))
    }
}

impl<K: AsFd, O> AsFd for Enforcer<K, O> {
    /// Readable when others did something to the table.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.executor.kernel.as_fd()
    }
}

/// Why a block that was ordered is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockError {
    /// The engine refused: it must not be.
    Refused(Refusal),
    /// The kernel refused.
    Kernel {
        /// What it said.
        error: String,
        /// The source has a block, which stays as it was.
        stays: bool,
    },
}
