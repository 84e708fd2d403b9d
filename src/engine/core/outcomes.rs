//! The kernel's answers come in, and time goes by: blocks are counted, renewed and ended, accounts are swept out.

use std::time::Duration;

use super::{Engine, SWEEP_EVERY, is_void, overlaps};
use crate::config::{Mode, UnprovenAction};
use crate::engine::blocks::Followup;
use crate::engine::policy::Policy;
use crate::engine::{Action, AllowList, MonoTime, Outcome, Reason, Source};

/// Blocks that one call of [`Engine::on_timer`] looks after: some milliseconds of work at most. [`Engine::next_timer`] asks for another call.
const TIMERS_AT_ONCE: usize = 4096;

/// Accounts that one call of [`Engine::on_timer`] sweeps out.
const SWEPT_AT_ONCE: u32 = 4096;

/// Places of blocks that one call of [`Engine::on_timer`] looks through for those that must not be: a millisecond with a long list.
const REVIEWED_AT_ONCE: usize = 4096;

/// When there was more to sweep than one call does.
const SWEEP_AGAIN: Duration = Duration::from_millis(10);

impl Engine {
    /// The kernel's answer to an action.
    pub fn on_outcome(&mut self, now: MonoTime, outcome: Outcome, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let Self { blocks, policy, always, never_block, .. } = self;
        match blocks.on_outcome(now, outcome, |source| renewal(policy, always, never_block, source), actions) {
            Followup::Nothing => {}
            Followup::Blocked(source) => {
                let is_proven_scan = self.blocks.view(source).is_some_and(|view| matches!(view.reason, Reason::Scan { proven: true, .. }));
                if is_proven_scan {
                    self.offenders.note(now, source, self.policy.escalate.memory);
                }
            }
            // Else the next single probe would block it again, and the administrator's word would hold for a second.
            Followup::Forgiven(source) if self.policy.is_account(source) => {
                self.forgive(now, source, actions);
                self.ledger.forget(source);
            }
            // It may come off that list again before the hold has run out, and nobody would hear of it until then.
            Followup::Exempt(source) => {
                if self.policy.reflex && self.policy.is_account(source) {
                    actions.push(Action::Release { source, forget: None });
                }
            }
            Followup::Forgiven(_) => {}
        }
    }

    /// Something may be due: see [`Engine::next_timer`].
    pub fn on_timer(&mut self, now: MonoTime, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let Self { blocks, policy, always, never_block, .. } = self;
        blocks.on_timer(now, TIMERS_AT_ONCE, |source| renewal(policy, always, never_block, source), actions);
        if let Some(from) = self.review_from {
            let is_void = |source: Source, reason: &Reason| is_void(policy, always, never_block, source, reason);
            self.review_from = blocks.lift_void(from, REVIEWED_AT_ONCE, is_void, actions);
        }
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
    pub fn next_timer(&self) -> Option<MonoTime> {
        let review = self.review_from.map(|_| self.now);
        [self.blocks.next_timer(), self.sweep_at, review].into_iter().flatten().min()
    }
}

/// The time that the block of an unproven scan gets while it goes on; none if such scans are not, or this source must not be blocked any more.
fn renewal(policy: &Policy, always: &AllowList, never_block: &AllowList, source: Source) -> Option<Duration> {
    let wanted = policy.mode == Mode::Enforce && policy.unproven.action == UnprovenAction::Block;
    (wanted && !overlaps(policy, always, never_block, source)).then_some(policy.unproven.timeout)
}
