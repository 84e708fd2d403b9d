//! Handles probes: adds them to the account of their source, and orders blocks and reports.

use std::net::IpAddr;

use super::{CONTINUING_PER_MINUTE, CROWDED_FOR, Engine, SWEEP_EVERY};
use crate::config::{Mode, ProtocolAction};
use crate::engine::account::{Tally, Touch, detail};
use crate::engine::blocks::BlockStatus;
use crate::engine::decision::{Decision, NotBlocked, Trigger, decide};
use crate::engine::entry::Order;
use crate::engine::ledger::{Hashed, Place};
use crate::engine::longterm;
use crate::engine::policy::Triggers;
use crate::engine::slowed::{PREFIX_SHARE, Slowing};
use crate::engine::status::Status;
use crate::engine::{Action, MonoTime, Reason, Report, Source};
use crate::probe::{Port, Probe, ScanKind};

/// Probes above the trigger that make a source persistent: a flood would have to send as many for
/// each spoofed source.
const PERSISTENT_PROBES: u32 = 8;
/// The same for the last half of the reports about sources that continue.
const MOST_PERSISTENT_PROBES: u32 = 64;

/// Accounts that are read ahead together: twice as many as packets, as an IPv6 source has two.
const AHEAD_MAX: usize = 32;

impl Engine {
    /// Handles a probe. Returns whether its source has passed the trigger.
    pub fn on_probe(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        self.handle(now, probe, false, actions)
    }

    /// Brings into the processor's caches what the next probes of these sources will need, of the first
    /// [`AHEAD_MAX`] accounts. Changes nothing.
    pub fn read_ahead(&self, sources: impl Iterator<Item = IpAddr>) {
        let mut ahead = [Hashed::default(); AHEAD_MAX];
        let mut count = 0;
        let mut add = |account| {
            if let Some(place) = ahead.get_mut(count) {
                *place = self.ledger.key_of(account);
                count += 1;
            }
        };
        for source in sources {
            add(self.policy.account(source));
            if let Some(prefix) = self.policy.prefix(source) {
                add(prefix);
            }
        }
        self.ledger.read_ahead(ahead.get(..count).unwrap_or_default());
    }

    /// As [`Engine::on_probe`]; `by_rules`: the rules treat its source as held or slowed.
    fn handle(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        by_rules: bool,
        actions: &mut Vec<Action>,
    ) -> Trigger {
        let now = self.tick(now);
        self.status.probes += 1;
        if let Some(count) = self.status.by_scan.get_mut(probe.scan as usize) {
            *count += 1;
        }
        if self.sweep_at.is_none() {
            self.sweep_at = Some(now.after(SWEEP_EVERY));
        }
        let account = self.policy.account(probe.source);
        let prefix = self.policy.prefix(probe.source);
        // That the rules slow its prefix or network says nothing of the account.
        let by_rules = by_rules
            && (!prefix.is_some_and(|prefix| self.is_slowed(prefix))
                && !self.is_in_campaign(probe.source)
                || self.is_slowed(account));
        let here = self.ledger.hash_address(probe.destination);
        if probe.scan == ScanKind::PingSweep {
            self.ping(now, account, probe, here, actions);
            return Trigger::Below;
        }
        if probe.scan == ScanKind::Reply {
            self.on_late(now, probe, actions);
        }
        let touch = Touch::new(now, probe, here);
        let key = self.ledger.key_of(account);
        let (mut before, mut elsewhere) = (None, None);
        let (mut found, mut tally) = self.count(now, key, touch, &mut before);
        if self.count_long(now, key.hash, touch, before, &mut found) {
            tally.plain = tally.plain.max(self.policy.trigger() + 1);
        }
        let shared = prefix.and_then(|prefix| {
            let (key, touch) =
                self.share(now, prefix, (found, tally), touch, before.is_none(), &mut elsewhere)?;
            Some((prefix, key, touch))
        });
        let triggers = self.policy.triggers();
        let mut trigger =
            self.respond(now, (account, found), (tally, triggers), probe, by_rules, actions);
        if trigger == Trigger::Below {
            if let Some(before) = before.filter(|before| before.is_elsewhere(touch)) {
                trigger =
                    self.sweep(now, (account, found), (key.key, before, here), probe, actions);
            } else if before.is_none()
                && let (Some(prefix), Some((found, before))) = (prefix, elsewhere)
            {
                // Each account gives its prefix one address for a port: a prefix must not sweep by
                // what one of its accounts does.
                let (at, key) = ((prefix, Some(found)), self.ledger.key_of(prefix).key);
                trigger = self.sweep(now, at, (key, before, here), probe, actions);
            }
        }
        if !touch.ambiguous()
            && touch.counts(self.counted)
            && (before.is_none() || self.campaigns.holds(now))
        {
            self.note_campaign(now, account, probe, trigger, actions);
        }
        let Some((prefix, key, touch)) = shared else { return trigger };
        let (found, tally) = self.count(now, key, touch, &mut None);
        let triggers = self.policy.prefix_triggers();
        // The rules do not slow a prefix by themselves.
        match self.respond(now, (prefix, found), (tally, triggers), probe, false, actions) {
            Trigger::Passed => Trigger::Passed,
            Trigger::Below => trigger,
        }
    }

    /// Adds a touch to an account.
    #[inline]
    fn count(
        &mut self,
        now: MonoTime,
        account: Hashed,
        touch: Touch,
        before: &mut Option<Touch>,
    ) -> (Option<Place>, Tally) {
        let found = self.ledger.touch(now, account, touch, self.counted, before);
        (found, self.ledger.tally(now, found, self.counted))
    }

    /// Adds a touch to the long window. Returns whether its source has passed the trigger there, and
    /// with it the short one too.
    #[inline]
    fn count_long(
        &mut self,
        now: MonoTime,
        hash: u64,
        touch: Touch,
        before: Option<Touch>,
        found: &mut Option<Place>,
    ) -> bool {
        let is_evidence = |touch: Touch| !touch.ambiguous() && touch.counts(self.counted);
        let Some(most) = longterm::trigger(self.policy.trigger()).filter(|_| is_evidence(touch))
        else {
            return false;
        };
        // The long window has what this run counted in this half day.
        let is_counted = |before: Touch| {
            let at = MonoTime::from_millis(before.time());
            is_evidence(before) && before.here() != 0 && longterm::is_one_half(at, now)
        };
        if before.is_some_and(is_counted) {
            return self.ledger.is_long_term(*found);
        }
        let has_passed = if before.is_none() && self.ledger.is_newcomer(*found) {
            self.longterm.first_touch(now, hash, touch.port()) >= most
        } else {
            self.longterm.touch(now, hash, touch.port()) >= most
        };
        *found = self.ledger.note_long_term(*found, has_passed);
        has_passed
    }

    /// Forgets the evidence about a source.
    pub(super) fn forget(&mut self, source: Source) {
        self.ledger.forget(source);
        let Hashed { key, hash } = self.ledger.key_of(source);
        self.longterm.forget(hash);
        self.sweeps.forget(key);
        self.pings.forget(key);
    }

    /// What the account of a touch that was just recorded gives its prefix of it.
    #[inline]
    fn share(
        &mut self,
        now: MonoTime,
        prefix: Source,
        (found, tally): (Option<Place>, Tally),
        touch: Touch,
        is_new: bool,
        elsewhere: &mut Option<(Place, Touch)>,
    ) -> Option<(Hashed, Touch)> {
        if tally.blocks(self.policy.prefix_triggers().scan) {
            self.ledger.note_passed(found);
        }
        let (key, most) = (self.ledger.key_of(prefix), self.policy.prefix_share());
        let given =
            self.ledger.share(now, found, key, touch, self.counted, most, is_new, elsewhere)?;
        Some((key, given))
    }

    /// Adds a touch to all accounts of an address, as [`Engine::on_probe`] does, and decides
    /// nothing.
    pub(super) fn count_all(&mut self, now: MonoTime, source: IpAddr, touch: Touch) {
        let account = self.ledger.key_of(self.policy.account(source));
        let counted = self.count(now, account, touch, &mut None);
        if let Some(prefix) = self.policy.prefix(source)
            && let Some((key, touch)) = self.share(now, prefix, counted, touch, true, &mut None)
        {
            self.count(now, key, touch, &mut None);
        }
    }

    /// Responds to a probe that `tally` of its account includes, if the account has passed its
    /// trigger.
    // Inlined up to the decision, which most probes end with: a tally that is passed through memory in
    // parts cannot be read as a whole before every earlier access is over.
    #[inline(always)]
    fn respond(
        &mut self,
        now: MonoTime,
        at: (Source, Option<Place>),
        (tally, triggers): (Tally, Triggers),
        probe: &Probe,
        by_rules: bool,
        actions: &mut Vec<Action>,
    ) -> Trigger {
        let transport = probe.port.transport;
        let decision = match decide(&self.policy, triggers, tally, probe.scan, transport) {
            // The rules have seen more ports of it than were logged.
            Decision::Wait
                if by_rules
                    && self.policy.slows()
                    && self.policy.action(transport) == ProtocolAction::Block =>
            {
                Decision::Slow
            }
            Decision::Wait => return Trigger::Below,
            decision => decision,
        };
        // The report says "proven" even where the source is not blocked.
        let proven = tally.is_handshake_proven(triggers.proof);
        self.act(now, at, (decision, proven), probe, by_rules, actions);
        if !proven && decision != (Decision::Block { proven: true }) {
            self.report_continuing(now, at, probe, actions);
        }
        Trigger::Passed
    }

    /// Does what was decided about a source that has passed its trigger.
    pub(super) fn act(
        &mut self,
        now: MonoTime,
        (source, found): (Source, Option<Place>),
        (decision, proven): (Decision, bool),
        probe: &Probe,
        by_rules: bool,
        actions: &mut Vec<Action>,
    ) {
        let against = match decision {
            _ if self.is_never_block(source) => Some(NotBlocked::NeverBlock),
            Decision::Report(against) => Some(against),
            Decision::Slow if source.is_nat64() && !self.policy.slows_nat64() => {
                Some(NotBlocked::Nat64)
            }
            Decision::Slow if self.policy.mode == Mode::Observe => Some(NotBlocked::ObserveSlow),
            Decision::Block { .. } if self.policy.mode == Mode::Observe => {
                Some(NotBlocked::ObserveBlock)
            }
            _ if self.is_blocked_around(source) => {
                self.status.already_blocked += 1;
                return;
            }
            Decision::Slow => return self.slow(now, (source, found), probe, by_rules, actions),
            Decision::Wait | Decision::Block { .. } => None,
        };
        if let Some(against) = against {
            if let Some(would_be) = against.would_be() {
                self.observe(now, source, probe, (would_be, proven));
            }
            self.report_not_blocked(now, (source, found), probe, (against, proven), actions);
        } else {
            let proven = decision == Decision::Block { proven: true };
            self.evaluate(now, (source, found), probe, proven, actions);
        }
    }

    pub(super) fn is_slowed(&self, source: Source) -> bool {
        self.slowed.view(self.now, source).is_some()
    }

    /// Whether the prefix of an account is blocked, of which this packet was on its way.
    fn is_blocked_around(&self, source: Source) -> bool {
        let prefix = self.policy.prefix(source.addr()).filter(|prefix| *prefix != source);
        prefix.is_some_and(|prefix| self.blocks.view(prefix).is_some())
    }

    /// Handles a probe for which the rules have held its source. The hold is released unless the
    /// source is blocked.
    ///
    /// A block reaches the kernel before the hold expires, so that the hold needs no removal. When
    /// `block.unproven.per_minute` or `block.total` prevents the block, the hold is released too,
    /// except in a flood of spoofed sources: a real scanner may be among them, and all holds expire
    /// within seconds.
    pub fn on_held(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) -> Trigger {
        let budget = |status: &Status| -> u64 {
            [NotBlocked::PerMinute, NotBlocked::Total]
                .iter()
                .filter_map(|why| status.not_blocked.get(*why as usize))
                .sum()
        };
        let spent = budget(&self.status);
        let trigger = self.handle(now, probe, true, actions);
        self.status.held += 1;
        let source = self.policy.account(probe.source);
        if self.blocks.covers(source) || self.is_slowed(source) || self.is_blocked_around(source) {
            return trigger;
        }
        if budget(&self.status) == spent || !self.over_budget.is_flood(self.now) {
            self.status.released += 1;
            actions.push(Action::Release { source, forget: None });
        }
        trigger
    }

    /// The rules hold a source for a packet that the kernel discards.
    pub fn on_discarded(&mut self, now: MonoTime, address: IpAddr, actions: &mut Vec<Action>) {
        self.tick(now);
        self.status.held += 1;
        let source = self.policy.account(address);
        if !self.blocks.covers(source) && !self.is_slowed(source) && !self.is_blocked_around(source)
        {
            self.status.released += 1;
            actions.push(Action::Release { source, forget: None });
        }
    }

    /// Handles a further probe of a source that the rules hold, or that is blocked and not proven.
    /// It separates a scanner from a flood's spoofed sources when the blocks of the minute are used
    /// up. If the source is blocked already, the probe renews an unproven block, unless closed
    /// connections produce such packets too.
    pub fn on_repeat(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        actions: &mut Vec<Action>,
    ) -> Trigger {
        let mut accounts = self.policy.accounts(probe.source);
        // A block that the kernel refused is tried again.
        let is_blocked = |of: &Source| self.blocks.covers(*of) && !self.blocks.was_refused(*of);
        let Some(source) = accounts.find(is_blocked) else {
            return self.handle(now, probe, true, actions);
        };
        let now = self.tick(now);
        self.status.probes += 1;
        self.status.already_blocked += 1;
        let counts = probe.scan != ScanKind::Reply
            && !probe.ambiguous
            && self.policy.action(probe.port.transport) == ProtocolAction::Block;
        if counts && self.policy.blocks_unproven() && !self.is_never_block(source) {
            self.blocks.renew(now, source, self.policy.unproven.timeout, actions);
        }
        let found = self.ledger.repeat(source);
        self.report_continuing(now, (source, found), probe, actions);
        Trigger::Passed
    }

    /// Handles a slowed source's probe of a port that it probed before. `answered`: the rules
    /// answer probes of this port by this source, as a closed port would. The source is blocked as
    /// soon as its retransmissions prove that it sees these answers. Those of an address that is not
    /// slowed itself count for its slowed prefix.
    pub fn on_retransmission(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        answered: bool,
        actions: &mut Vec<Action>,
    ) -> Trigger {
        let trigger = self.on_repeat(now, probe, actions);
        let account = self.policy.account(probe.source);
        let source = if self.is_slowed(account) {
            Some(account)
        } else {
            let prefix = self.policy.prefix(probe.source).filter(|prefix| self.is_slowed(*prefix));
            prefix.filter(|_| self.tally(account).counting() <= PREFIX_SHARE)
        };
        if let Some(source) = source.filter(|_| probe.scan != ScanKind::Reply)
            && self.slowed.retransmission(source, probe.port.number, answered)
        {
            let here = self.ledger.hash_address(probe.destination);
            let touch = Touch::new(self.now, probe, here);
            let key = self.ledger.key_of(source);
            let found = self.ledger.touch(self.now, key, touch, self.counted, &mut None);
            self.evaluate(self.now, (source, found), probe, true, actions);
        }
        trigger
    }

    /// Slows a source whose address is not proven, and reports it once.
    pub(super) fn slow(
        &mut self,
        now: MonoTime,
        (source, found): (Source, Option<Place>),
        probe: &Probe,
        by_rules: bool,
        actions: &mut Vec<Action>,
    ) {
        if self.blocks.covers(source) {
            self.status.already_blocked += 1;
            self.blocks.check_element(now, source, actions);
            return;
        }
        let timeout = self.policy.unproven.timeout;
        let slowing = self.slowed.slow(now, source, now.after(timeout), probe, by_rules);
        if !by_rules && slowing != Slowing::Renewed {
            actions.push(Action::Slow { source, timeout });
        }
        self.report_not_blocked(now, (source, found), probe, (NotBlocked::Slowed, false), actions);
        if slowing != Slowing::New {
            return;
        }
        if !self.slowed_tokens.take(now) {
            self.status.reports_held_back += 1;
            return;
        }
        self.slowed.set_reported(source);
        let reason = self.reason(now, source, (probe.scan, probe.port), false);
        let (port, scanner) = (probe.port, probe.source);
        let report = Report::Slowed { source, port, scanner, timeout, reason };
        actions.push(Action::Report(report));
    }

    /// Orders a block, or reports why the source is not blocked.
    fn evaluate(
        &mut self,
        now: MonoTime,
        (source, found): (Source, Option<Place>),
        probe: &Probe,
        proven: bool,
        actions: &mut Vec<Action>,
    ) {
        match self.blocks.block_status(now, source) {
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
            let against = (NotBlocked::Total, proven);
            return self.report_not_blocked(now, (source, found), probe, against, actions);
        }
        if !proven && !self.take_unproven(now, source) {
            let against = (NotBlocked::PerMinute, proven);
            return self.report_not_blocked(now, (source, found), probe, against, actions);
        }
        let timeout = if proven {
            self.policy.escalated(self.offenders.times(now, source, self.policy.escalate.memory))
        } else {
            Some(self.policy.unproven.timeout)
        };
        // A scan whose block the kernel refused was reported before; each refusal has its own
        // report.
        let is_new_scan = !self.blocks.was_refused(source);
        self.ledger.due_for_report(now, found);
        if !proven {
            self.note_new(now);
        }
        let reason = self.reason(now, source, (probe.scan, probe.port), proven);
        if is_new_scan {
            actions.push(Action::Report(Report::Scan {
                source,
                probe: *probe,
                reason: reason.clone(),
                not_blocked: None,
            }));
        }
        let (port, scanner) = (Some(probe.port), Some(probe.source));
        self.blocks.order(now, source, Order { timeout, reason, port, scanner }, actions);
    }

    /// Counts a report of a new unproven source.
    fn note_new(&mut self, now: MonoTime) {
        if !self.new_tokens.take(now) {
            self.crowded = Some(now);
        }
    }

    /// Reports an unproven source that continues, once. What is logged of the first packets of the
    /// sources of a flood is bounded, so that a scanner among them may have no line; but a flood
    /// sends few packets for each.
    fn report_continuing(
        &mut self,
        now: MonoTime,
        (source, found): (Source, Option<Place>),
        probe: &Probe,
        actions: &mut Vec<Action>,
    ) {
        if self.crowded.is_none_or(|at| now.since(at) > CROWDED_FOR) {
            return;
        }
        let Some(probes) = self.ledger.probes_unreported(found) else { return };
        let trigger = u32::from(self.policy.trigger());
        if probes < trigger + PERSISTENT_PROBES {
            return;
        }
        let is_blocked = self.blocks.view(source).is_some();
        if !is_blocked && self.blocks.covers(source) {
            // The kernel's answer is on its way: the next probe reports it.
            return;
        }
        let is_most = probes >= trigger + MOST_PERSISTENT_PROBES;
        let reserve = if is_most { 0 } else { u64::from(CONTINUING_PER_MINUTE) / 2 };
        if !self.continuing_tokens.take_above(now, reserve) {
            return;
        }
        self.ledger.note_reported(found);
        let state = if is_blocked {
            "blocked"
        } else if self.is_slowed(source) {
            "slowed"
        } else {
            "reported"
        };
        let (port, scanner) = (probe.port, probe.source);
        let reason = self.reason(now, source, (probe.scan, probe.port), false);
        actions.push(Action::Report(Report::Continues { source, port, scanner, state, reason }));
    }

    /// Takes one of the blocks that unproven sources may get per minute.
    ///
    /// A quarter is reserved for persistent sources: at a low trigger each spoofed source of a
    /// flood passes with its first packet and uses up the limit, but is never seen again, while a
    /// real scanner sends more.
    fn take_unproven(&mut self, now: MonoTime, source: Source) -> bool {
        let reserve = u64::from(self.policy.unproven.per_minute) / 4;
        let probes = u32::from(self.policy.trigger()) + PERSISTENT_PROBES;
        self.unproven.take_above(now, reserve)
            || (self.ledger.inspect(source, |known| known.probes >= probes) == Some(true)
                && self.unproven.take(now))
    }

    /// Reports a scan that is not blocked: once per window and source, and at most
    /// [`super::REPORTS_PER_MINUTE`] in all.
    pub(super) fn report_not_blocked(
        &mut self,
        now: MonoTime,
        (source, found): (Source, Option<Place>),
        probe: &Probe,
        (against, proven): (NotBlocked, bool),
        actions: &mut Vec<Action>,
    ) {
        if let Some(count) = self.status.not_blocked.get_mut(against as usize) {
            *count += 1;
        }
        if !self.ledger.due_for_report(now, found) {
            return;
        }
        self.note_new(now);
        if !self.report_tokens.take(now) {
            self.status.reports_held_back += 1;
            return;
        }
        let reason = self.reason(now, source, (probe.scan, probe.port), proven);
        actions.push(Action::Report(Report::Scan {
            source,
            probe: *probe,
            reason,
            not_blocked: Some(against),
        }));
    }

    pub(super) fn reason(
        &self,
        now: MonoTime,
        source: Source,
        (scan, port): (ScanKind, Port),
        proven: bool,
    ) -> Reason {
        let horizon = self.ledger.horizon(now);
        let Hashed { key, hash } = self.ledger.key_of(source);
        let mut detail = match scan {
            ScanKind::Sweep => self.sweeps.detail(now, key, Some(port)),
            ScanKind::PingSweep => self.pings.detail(now, key, None),
            _ => {
                let text = self.ledger.inspect(source, |known| detail(known.slots, horizon));
                text.unwrap_or_default()
            }
        };
        let long = self.longterm.get(now, hash);
        let ports = (long.current | long.previous).count_ones();
        if longterm::trigger(self.policy.trigger()).is_some_and(|most| ports >= most)
            && !matches!(scan, ScanKind::Sweep | ScanKind::PingSweep)
            && !self.tally(source).reports_at(self.policy.trigger())
        {
            detail = format!("{ports} ports or more in a day");
        }
        Reason::Scan { scan, proven, detail: detail.as_str().into() }
    }
}
