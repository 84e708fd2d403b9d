//! What the kernel's answers and timers change in the blocks.

use super::{Blocks, Followup, LIFT_RETRY};
use crate::backoff;
use crate::engine::entry::{
    Exempt, Pending, RETRY_FIRST, RETRY_LAST, Renewal, State, blocked, is_due,
};
use crate::engine::{Action, Ending, MonoTime, Outcome, Report, Source};

impl Blocks {
    /// Handles the kernel's answer. A pending block that `is_never_block` refuses by now is dropped.
    pub(in crate::engine) fn on_outcome(
        &mut self,
        now: MonoTime,
        outcome: Outcome,
        is_never_block: impl Fn(Source) -> bool,
        actions: &mut Vec<Action>,
    ) -> Followup {
        let (Outcome::Blocked { source, .. }
        | Outcome::Unblocked { source, .. }
        | Outcome::Exempted { source, .. }
        | Outcome::Checked { source, .. }) = outcome;
        let Some(at) = self.find(source) else { return Followup::Nothing };
        let followup = match outcome {
            Outcome::Blocked { result, .. } => self.on_blocked(now, at, result, actions),
            Outcome::Unblocked { result, .. } => self.on_unblocked(now, at, result, actions),
            Outcome::Exempted { result, .. } => self.on_exempted(at, result, actions),
            Outcome::Checked { is_there, .. } => self.on_checked(now, at, is_there, actions),
        };
        self.settle(now, at, is_never_block(source), actions);
        followup
    }

    /// Handles due timers, at most `budget`: packets must not wait for a million expiries.
    pub(in crate::engine) fn on_timer(
        &mut self,
        now: MonoTime,
        budget: usize,
        actions: &mut Vec<Action>,
    ) {
        for _ in 0..budget {
            let Some((_, at)) = self.timers.first().filter(|(due, _)| *due <= now) else {
                return;
            };
            self.timers.set(at, None);
            let Some(entry) = self.entry_mut(at) else { continue };
            let source = entry.source;
            match entry.state {
                State::Refused { .. } => self.remove(at),
                State::InForce if is_due(entry.expires, now) => {
                    self.end(at, Ending::Expired, actions)
                }
                State::InForce if is_due(entry.seldom().lift_at, now) => {
                    entry.seldom_mut().lift_at = None;
                    self.lift(source, Ending::NeverBlock, actions);
                }
                _ => self.rearm(at),
            }
        }
    }

    fn on_blocked(
        &mut self,
        now: MonoTime,
        at: u32,
        result: Result<(), String>,
        actions: &mut Vec<Action>,
    ) -> Followup {
        let Some(entry) = self.entry_mut(at) else { return Followup::Nothing };
        let source = entry.source;
        match (std::mem::replace(&mut entry.state, State::InForce), result) {
            (State::Blocking { scanner }, Ok(())) => {
                entry.since = now;
                if entry.seldom().renewals > 0 || entry.seldom().refusals > 0 {
                    let seldom = entry.seldom_mut();
                    (seldom.renewals, seldom.refusals) = (0, 0);
                }
                entry.run(now, entry.timeout());
                actions.push(Action::Report(blocked(entry, scanner.map(|scanner| *scanner))));
                let (reason, end) = (entry.reason.clone(), entry.expires);
                self.lists.add(&reason, end);
                self.in_force += 1;
                self.done.blocked += 1;
                Followup::Blocked(source)
            }
            (State::Blocking { .. }, Err(error)) => {
                let refusals = &mut entry.seldom_mut().refusals;
                let delay = backoff::delay(RETRY_FIRST, RETRY_LAST, (*refusals).into());
                *refusals = refusals.saturating_add(1);
                entry.state = State::Refused { until: now.after(delay) };
                actions.push(Action::Report(Report::BlockFailed { source, error }));
                self.done.refused += 1;
                Followup::Nothing
            }
            (State::Renewing(renewal), Ok(())) => {
                let Renewal { timeout, reason } = *renewal;
                let changed = reason.is_some();
                entry.run(now, timeout);
                // A list that is loaded every night reports only what is new on it.
                let mut is_same_list = false;
                if let Some((reason, port)) = reason {
                    is_same_list = reason.list().is_some() && reason.list() == entry.reason.list();
                    entry.port = port;
                    // An order for the whole network ends its exemptions.
                    entry.set_exempt(Exempt::default());
                    self.give_reason(at, reason);
                }
                let Some(entry) = self.entry_mut(at) else { return Followup::Nothing };
                let renewals = &mut entry.seldom_mut().renewals;
                *renewals = renewals.saturating_add(1);
                let renewals = *renewals;
                // A scan that continues for a day renews its block two thousand times: report the
                // first, second, fourth, eighth and so on.
                if changed && !is_same_list || !changed && renewals.is_power_of_two() {
                    actions.push(Action::Report(blocked(entry, None)));
                }
                self.done.renewed += 1;
                if changed { Followup::Blocked(source) } else { Followup::Nothing }
            }
            (State::Renewing(_), Err(error)) => {
                actions.push(Action::Report(Report::BlockFailed { source, error }));
                self.done.refused += 1;
                Followup::Nothing
            }
            // The answer does not match the order in flight: ignore it.
            (other, _) => {
                entry.state = other;
                Followup::Nothing
            }
        }
    }

    fn on_unblocked(
        &mut self,
        now: MonoTime,
        at: u32,
        result: Result<(), String>,
        actions: &mut Vec<Action>,
    ) -> Followup {
        let Some(entry) = self.entry_mut(at) else { return Followup::Nothing };
        let source = entry.source;
        let State::Lifting { ending, in_force } = entry.state else { return Followup::Nothing };
        match result {
            Ok(()) => {
                if in_force {
                    self.end_keeping_pending(at, ending, actions);
                } else if let Some(entry) = self.entry_mut(at) {
                    entry.state = State::Refused { until: now };
                }
                match ending {
                    Ending::Manual | Ending::Services => Followup::Forgiven(source),
                    Ending::OffList => Followup::Nothing,
                    _ => Followup::Exempt(source),
                }
            }
            Err(error) => {
                actions.push(Action::Report(Report::UnblockFailed { source, error }));
                if in_force {
                    entry.state = State::InForce;
                    if ending == Ending::NeverBlock {
                        entry.seldom_mut().lift_at = Some(now.after(LIFT_RETRY));
                    }
                } else {
                    entry.state = State::Refused { until: now };
                }
                Followup::Nothing
            }
        }
    }

    fn on_exempted(
        &mut self,
        at: u32,
        result: Result<(), String>,
        actions: &mut Vec<Action>,
    ) -> Followup {
        let Some(entry) = self.entry_mut(at) else { return Followup::Nothing };
        let source = entry.source;
        match (std::mem::replace(&mut entry.state, State::InForce), result) {
            (State::Exempting(exempt), Ok(())) => {
                let new = exempt
                    .networks()
                    .iter()
                    .filter(|network| !entry.seldom().exempt.networks().contains(network));
                actions.extend(
                    new.map(|network| {
                        Action::Report(Report::Exempted { source, exempt: *network })
                    }),
                );
                entry.set_exempt(exempt);
            }
            (State::Exempting(_), Err(error)) => {
                actions.push(Action::Report(Report::UnblockFailed { source, error }))
            }
            (other, _) => entry.state = other,
        }
        Followup::Nothing
    }

    fn on_checked(
        &mut self,
        now: MonoTime,
        at: u32,
        is_there: bool,
        actions: &mut Vec<Action>,
    ) -> Followup {
        let Some(entry) = self.entry_mut(at).filter(|entry| entry.state == State::Checking) else {
            return Followup::Nothing;
        };
        let source = entry.source;
        entry.state = State::InForce;
        if is_there {
            return Followup::Nothing;
        }
        // The kernel's timer may be slightly ahead of ours; otherwise another program deleted the
        // element.
        let ending = if is_due(entry.expires, now) { Ending::Expired } else { Ending::Manual };
        self.end_keeping_pending(at, ending, actions);
        if ending == Ending::Manual { Followup::Forgiven(source) } else { Followup::Nothing }
    }

    /// After an outcome: starts the pending order, and ends a block that expired meanwhile.
    fn settle(&mut self, now: MonoTime, at: u32, is_never_block: bool, actions: &mut Vec<Action>) {
        let Some(entry) = self.entry_mut(at) else { return };
        let source = entry.source;
        if entry.state == State::InForce && is_due(entry.expires, now) {
            self.end_keeping_pending(at, Ending::Expired, actions);
        }
        let Some(entry) = self.entry_mut(at) else { return };
        if matches!(entry.state, State::InForce | State::Refused { .. })
            && let Some(pending) = entry.take_pending()
        {
            match (pending, &entry.state) {
                // The review of a new never-block list has not come to this entry yet.
                (Pending::Block(_), _) if is_never_block => {}
                (Pending::Block(order), _) => self.order(now, source, order, actions),
                (Pending::Exempt(network), State::InForce) => {
                    self.exempt(source, network, actions);
                }
                (Pending::Exempt(_), _) => {}
                (Pending::Lift(ending), State::InForce) => {
                    self.lift(source, ending, actions);
                }
                // The kernel refused the block, so there is probably nothing to delete; delete
                // anyway to be sure.
                (Pending::Lift(ending), _) => {
                    actions.push(Action::Unblock { source });
                    entry.state = State::Lifting { ending, in_force: false };
                }
            }
        }
        self.rearm(at);
        // The block has ended and no order is pending.
        if self.entry(at).is_some_and(|entry| {
            matches!(entry.state, State::Refused { .. }) && entry.seldom().refusals == 0
        }) {
            self.remove(at);
        }
    }

    /// Reports the end of a block in force and drops its entry.
    pub(super) fn end(&mut self, at: u32, ending: Ending, actions: &mut Vec<Action>) {
        self.end_keeping_pending(at, ending, actions);
        self.remove(at);
    }

    /// Reports the end of a block in force and keeps its entry: [`Blocks::settle`] starts a pending
    /// order.
    fn end_keeping_pending(&mut self, at: u32, ending: Ending, actions: &mut Vec<Action>) {
        let Some(entry) = self.entry_mut(at) else { return };
        entry.state = State::Refused { until: entry.since };
        if entry.seldom().refusals > 0 || entry.seldom().lift_at.is_some() {
            let seldom = entry.seldom_mut();
            (seldom.refusals, seldom.lift_at) = (0, None);
        }
        actions.push(Action::Report(Report::Unblocked { source: entry.source, ending }));
        let reason = entry.reason.clone();
        self.lists.remove(&reason);
        self.in_force = self.in_force.saturating_sub(1);
        self.done.unblocked += 1;
    }
}
