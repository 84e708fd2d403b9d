//! Handles the kernel's answers and timers: counts and ends blocks, and sweeps out expired accounts.

use std::time::Duration;

use super::{Engine, SWEEP_EVERY, is_served, must_lift, overlaps};
use crate::engine::blocks::Followup;
use crate::engine::{Action, Ending, MonoTime, Outcome, Reason, Report, SlowEnding, Source};

/// Due blocks that one call of [`Engine::on_timer`] handles: a few milliseconds of work.
/// [`Engine::next_timer`] asks for another call.
const MAX_TIMERS_PER_CALL: usize = 4096;

/// Accounts that one call of [`Engine::on_timer`] sweeps out at most.
const MAX_SWEPT_PER_CALL: u32 = 4096;

/// Blocks, and slowed sources, that one call of [`Engine::on_timer`] compares with the never-block
/// lists and the services: a millisecond with a long list.
const MAX_REVIEWED_PER_CALL: usize = 4096;

/// Delay before the next sweep when one call could not finish.
const SWEEP_CONTINUE: Duration = Duration::from_millis(10);

impl Engine {
    /// Handles the kernel's answer to an action.
    pub fn on_outcome(&mut self, now: MonoTime, outcome: Outcome, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let Self { blocks, policy, always, never_block, .. } = self;
        let is_never_block = |source| overlaps(policy, always, never_block, source);
        match blocks.on_outcome(now, outcome, is_never_block, actions) {
            Followup::Nothing => {}
            Followup::Blocked(source) => {
                let is_proven_scan = self
                    .blocks
                    .view(source)
                    .is_some_and(|view| matches!(view.reason, Reason::Scan { proven: true, .. }));
                if is_proven_scan {
                    self.offenders.note(now, source, self.policy.escalate.memory);
                }
                let ending = if is_proven_scan { SlowEnding::Proven } else { SlowEnding::Blocked };
                self.end_slowing(source, ending, actions);
            }
            // Otherwise the next probe would block the source again, a second after the
            // administrator unblocked it.
            Followup::Forgiven(source) if self.policy.is_account(source) => {
                self.forgive(now, source, actions);
                self.forget(source);
            }
            // If the address leaves the list before the hold expires, the hold would hide its
            // probes until then.
            Followup::Exempt(source) => {
                if self.policy.reflex && self.policy.is_account(source) {
                    actions.push(Action::Release { source, forget: None });
                }
            }
            Followup::Forgiven(_) => {}
        }
    }

    /// Handles everything that is due; see [`Engine::next_timer`].
    pub fn on_timer(&mut self, now: MonoTime, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        self.blocks.on_timer(now, MAX_TIMERS_PER_CALL, actions);
        self.slowed.on_timer(now, MAX_TIMERS_PER_CALL, |source| {
            let ending = SlowEnding::Expired;
            actions.push(Action::Report(Report::Released { source, ending, packets: None }));
        });
        self.review_slowed(now, actions);
        let Self { blocks, policy, always, never_block, ledger, services, counted, .. } = self;
        if let Some(from) = self.review_from {
            let ending = |source: Source, reason: &Reason| {
                if must_lift(policy, always, never_block, source, reason) {
                    Some(Ending::NeverBlock)
                } else if reason.is_unproven_scan()
                    && is_served(ledger, (services, *counted), now, source)
                {
                    Some(Ending::Services)
                } else {
                    None
                }
            };
            self.review_from = blocks.review(from, MAX_REVIEWED_PER_CALL, ending, actions);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            let more = self.ledger.sweep(now, MAX_SWEPT_PER_CALL);
            self.sweep_at = if more {
                Some(now.after(SWEEP_CONTINUE))
            } else if self.ledger.sources() > 0 {
                Some(now.after(SWEEP_EVERY))
            } else {
                None
            };
        }
    }

    /// Releases slowed sources that are never-block now, or whose ports are services now, or all if
    /// none is to be slowed.
    fn review_slowed(&mut self, now: MonoTime, actions: &mut Vec<Action>) {
        let Some(after) = self.release_after else { return };
        let views = self.slowed.views(now, after).take(MAX_REVIEWED_PER_CALL);
        let page: Vec<Source> = views.map(|view| view.source).collect();
        self.release_after = page.last().map(|last| Some(*last));
        for source in page {
            let ending = if !self.policy.slows() {
                SlowEnding::Configuration
            } else if self.is_never_block(source) {
                SlowEnding::NeverBlock
            } else if is_served(&self.ledger, (&self.services, self.counted), now, source) {
                SlowEnding::Services
            } else {
                continue;
            };
            let forget = (ending == SlowEnding::Services).then(|| self.touched(source));
            actions.push(Action::Release { source, forget });
            if ending == SlowEnding::Services {
                self.forget(source);
            }
            self.end_slowing(source, ending, actions);
        }
    }

    /// Forgets that a source is slowed, and reports the end if the beginning was reported.
    pub(super) fn end_slowing(
        &mut self,
        source: Source,
        ending: SlowEnding,
        actions: &mut Vec<Action>,
    ) {
        if self.slowed.remove(source) {
            actions.push(Action::Report(Report::Released { source, ending, packets: None }));
        }
    }

    /// When to call [`Engine::on_timer`] next; a time in the past means at once.
    pub fn next_timer(&self) -> Option<MonoTime> {
        [self.next_ending(), self.sweep_at].into_iter().flatten().min()
    }

    /// The same without what only frees memory: when the next block ends, or the next source is slowed
    /// no longer.
    pub fn next_ending(&self) -> Option<MonoTime> {
        let is_reviewing = self.review_from.is_some() || self.release_after.is_some();
        let review = is_reviewing.then_some(self.now);
        [self.blocks.next_timer(), self.slowed.next_timer(), review].into_iter().flatten().min()
    }
}
