//! Probes come in: what each is worth, and the orders and reports that follow from it.

use super::{Engine, SWEEP_EVERY};
use crate::engine::account::{Touch, detail};
use crate::engine::blocks::BlockStatus;
use crate::engine::decision::{Decision, NotBlocked, Trigger, decide};
use crate::engine::entry::Order;
use crate::engine::ledger::Found;
use crate::engine::status::Status;
use crate::engine::{Action, MonoTime, Reason, Report, Source};
use crate::probe::{Probe, ScanKind};

/// A source goes on when it has sent so many probes more than the trigger is: a flood would need as many for each source it invents.
const GOES_ON: u32 = 8;

impl Engine {
    /// A source has touched a port. Tells whether it has passed the trigger.
    pub fn on_probe(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let now = self.tick(now);
        let source = self.policy.account(probe.source);
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
            _ if self.is_never_block(source) => Some(NotBlocked::NeverBlock),
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

    /// A source has touched a port, and the rules have held it for that. What is not blocked is released.
    ///
    /// A block is in the kernel before the hold is over, and then the hold runs out by itself. When `block.unproven.per_minute` or `block.total`
    /// stands against a block, the hold is ended as well, unless so many come that it can only be a flood of invented sources: among
    /// those there may be a scanner, and all of them run out within seconds.
    pub fn on_held(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let budget = |status: &Status| -> u64 {
            [NotBlocked::PerMinute, NotBlocked::Total].iter().filter_map(|why| status.not_blocked.get(*why as usize)).sum()
        };
        let spent = budget(&self.status);
        let trigger = self.on_probe(now, probe, actions);
        self.status.held += 1;
        let source = self.policy.account(probe.source);
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
    pub fn on_still(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let source = self.policy.account(probe.source);
        if !self.blocks.covers(source) {
            return self.on_probe(now, probe, actions);
        }
        self.tick(now);
        self.status.probes += 1;
        self.status.already_blocked += 1;
        Trigger::Passed
    }

    /// A source is to be blocked, if nothing stands against it.
    fn judged(&mut self, now: MonoTime, (source, found): (Source, Found), probe: &Probe, proven: bool, actions: &mut Vec<Action>) {
        match self.blocks.standing(now, source) {
            BlockStatus::Free => {}
            BlockStatus::Unproven if proven => {}
            BlockStatus::Unproven | BlockStatus::Taken => {
                self.status.already_blocked += 1;
                self.blocks.check_element(now, source, actions);
                return;
            }
        }
        let is_new = self.blocks.view(source).is_none();
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
        let untold = !self.blocks.was_refused(source);
        self.ledger.tell(now, found);
        let reason = self.reason(now, source, probe.scan, proven);
        if untold {
            actions.push(Action::Report(Report::Scan { source, probe: *probe, reason: reason.clone(), not_blocked: None }));
        }
        self.blocks.order(now, source, Order { timeout, reason, port: Some(probe.port) }, actions);
    }

    /// Takes one of the new blocks that unproven sources may have in a minute.
    ///
    /// A quarter is kept for those who go on: at a low trigger each invented source of a flood passes it with its first packet, takes what there is, and
    /// is never seen again, while a real scanner sends more.
    fn take_unproven(&mut self, now: MonoTime, source: Source) -> bool {
        let reserve = u64::from(self.policy.unproven.per_minute) / 4;
        let probes = u32::from(self.policy.trigger()) + GOES_ON;
        self.unproven.take_above(now, reserve) || (self.ledger.look(source, |known| known.probes >= probes) == Some(true) && self.unproven.take(now))
    }

    /// Tells of a scan that is not blocked: once a window for each source, and so many a minute in all.
    fn tell(&mut self, now: MonoTime, found: Found, probe: &Probe, (against, proven): (NotBlocked, bool), actions: &mut Vec<Action>) {
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
        let source = self.policy.account(probe.source);
        let reason = self.reason(now, source, probe.scan, proven);
        actions.push(Action::Report(Report::Scan { source, probe: *probe, reason, not_blocked: Some(against) }));
    }

    fn reason(&self, now: MonoTime, source: Source, scan: ScanKind, proven: bool) -> Reason {
        let horizon = self.ledger.horizon(now);
        let detail = self.ledger.look(source, |known| detail(known.slots, horizon)).unwrap_or_default();
        Reason::Scan { scan, proven, detail }
    }
}
