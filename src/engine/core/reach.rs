//! Handles probes of several addresses of this host: sweeps of one port, and pings.

use super::Engine;
use crate::engine::account::{Tally, Touch};
use crate::engine::decision::{Decision, NotBlocked, Trigger, decide};
use crate::engine::ledger::{Key, Place};
use crate::engine::policy::Triggers;
use crate::engine::sweeps::Reached;
use crate::engine::{Action, MonoTime, Source};
use crate::probe::{Probe, ScanKind};

impl Engine {
    /// Counts a probe of a port that its source touched before at another address of this host, and
    /// responds if it touched too many.
    pub(super) fn sweep(
        &mut self,
        now: MonoTime,
        at: (Source, Option<Place>),
        (key, before, here): (Key, Touch, u64),
        probe: &Probe,
        actions: &mut Vec<Action>,
    ) -> Trigger {
        let is_plain = |touch: Touch| !touch.ambiguous() && touch.counts(self.counted);
        let touch = Touch::new(now, probe, here);
        // A service with many addresses answers late from each of them.
        if touch.is_reply() || before.is_reply() {
            return Trigger::Below;
        }
        let reached =
            Reached { here, is_plain: is_plain(touch), before: Some((before, is_plain(before))) };
        let reach = self.sweeps.note(now, key, reached);
        let trigger = self.policy.sweep_trigger;
        // Ambiguous evidence alone is reported at this number, and never blocks: closed connections
        // may have been to many addresses.
        let logged = reach.all.saturating_sub(reach.plain);
        let tally = Tally { plain: reach.plain, logged, ..Tally::default() };
        let triggers = Triggers { scan: trigger, proof: u16::MAX };
        let decided = decide(&self.policy, triggers, tally, probe.scan, probe.port.transport);
        let decision = match decided {
            Decision::Wait if tally.reports_at(trigger) => Decision::Report(NotBlocked::Ambiguous),
            Decision::Wait => return Trigger::Below,
            decision => decision,
        };
        let probe = Probe { scan: ScanKind::Sweep, ..*probe };
        self.act(now, at, (decision, false), &probe, false, actions);
        Trigger::Passed
    }

    /// Counts an echo request. It is reported if its source pings many addresses, which monitoring
    /// does too; so nothing else follows, and nothing at all if the source is never blocked.
    pub(super) fn ping(
        &mut self,
        now: MonoTime,
        source: Source,
        probe: &Probe,
        here: u64,
        actions: &mut Vec<Action>,
    ) {
        if self.is_never_block(source) {
            return;
        }
        let key = self.ledger.key_of(source).key;
        let reached = Reached { here, is_plain: false, before: None };
        if self.pings.note(now, key, reached).all > self.policy.sweep_trigger
            && self.pings.due_for_report(now, key)
        {
            let against = (NotBlocked::Ping, false);
            self.report_not_blocked(now, (source, None), probe, against, actions);
        }
    }
}
