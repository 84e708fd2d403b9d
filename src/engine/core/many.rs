//! Handles packets that are evidence only in large numbers.

use super::Engine;
use crate::config::Unwatched;
use crate::engine::account::{Touch, detail};
use crate::engine::many::{MANY, Passed};
use crate::engine::{Action, MonoTime, NotBlocked, Reason, Report, Source};
use crate::probe::Probe;

impl Engine {
    /// Handles a packet that looks like one of a closed connection, or like a late answer, replies
    /// ([`ScanKind::Reply`](crate::probe::ScanKind::Reply)) among them. More
    /// than 20 ports within a window are reported. Such a source is never slowed or blocked: a server
    /// sends them as well, to the ports of connections that this host forgot.
    pub fn on_late(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let source = self.policy.account(probe.source);
        if self.blocks.covers(source) || self.is_slowed(source) {
            return;
        }
        let touch = Touch::new(now, probe, self.ledger.hash_address(probe.destination));
        let Some(passed) = self.late.touch(now, (self.policy.scan_window, MANY), source, touch)
        else {
            return;
        };
        if let Passed { is_new: true, touches } = passed {
            let detail = detail(touches, 0);
            self.report_many(now, source, probe, (NotBlocked::Ambiguous, detail), actions);
        }
    }

    /// Handles a SYN or datagram to a port that is neither watched nor open. A source that is
    /// refused on more than 20 within a window is reported, or slowed.
    pub fn on_unwatched(&mut self, now: MonoTime, probe: &Probe, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let source = self.policy.account(probe.source);
        if self.blocks.covers(source) || self.is_slowed(source) {
            return;
        }
        let touch = Touch::new(now, probe, self.ledger.hash_address(probe.destination));
        let Some(passed) = self.refused.touch(now, (self.policy.scan_window, MANY), source, touch)
        else {
            return;
        };
        let (is_new, touches) = (passed.is_new, passed.touches.to_vec());
        let slows = self.policy.unwatched == Unwatched::Slow
            && self.policy.slows()
            && !self.is_never_block(source)
            && (!source.is_nat64() || self.policy.slows_nat64());
        if slows {
            // From here on its probes are counted as those of watched ports.
            let key = self.ledger.key_of(source);
            let mut found = None;
            for touch in touches.iter().filter_map(|slot| Touch::live(*slot, 0)) {
                found = self.ledger.touch(now, key, touch, self.counted, &mut None);
            }
            self.slow(now, (source, found), probe, false, actions);
        } else if is_new {
            let detail = detail(&touches, 0);
            self.report_many(now, source, probe, (NotBlocked::Unwatched, detail), actions);
        }
    }

    /// Handles a probe that arrived over an allowed interface. A source with more than
    /// `scan_trigger` ports there, or 20, is reported. It is counted apart: what arrives there is no
    /// evidence against the same address on another interface, where it may be forged.
    pub fn on_allowed_interface(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        actions: &mut Vec<Action>,
    ) {
        let now = self.tick(now);
        let source = self.policy.account(probe.source);
        let touch = Touch::new(now, probe, self.ledger.hash_address(probe.destination));
        let most = usize::from(self.policy.trigger()).min(MANY);
        let window = self.policy.scan_window;
        if let Some(Passed { is_new: true, touches }) =
            self.trusted.touch(now, (window, most), source, touch)
        {
            let detail = detail(touches, 0);
            let against = NotBlocked::AllowedInterface;
            self.report_many(now, source, probe, (against, detail), actions);
        }
    }

    fn report_many(
        &mut self,
        now: MonoTime,
        source: Source,
        probe: &Probe,
        (against, detail): (NotBlocked, String),
        actions: &mut Vec<Action>,
    ) {
        let against = if self.is_never_block(source) { NotBlocked::NeverBlock } else { against };
        if let Some(count) = self.status.not_blocked.get_mut(against as usize) {
            *count += 1;
        }
        if !self.report_tokens.take(now) {
            self.status.reports_held_back += 1;
            return;
        }
        let reason =
            Reason::Scan { scan: probe.scan, proven: false, detail: detail.as_str().into() };
        actions.push(Action::Report(Report::Scan {
            source,
            probe: *probe,
            reason,
            not_blocked: Some(against),
        }));
    }
}
