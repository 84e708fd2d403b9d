//! What the decoys ask of the engine: a verdict that is carried out, block committed, before the decoy says a word.

use std::net::IpAddr;

use super::errands::Errands;
use super::sentry::perform;
use crate::decoy::Judge;
use crate::engine::{Action, Engine, Moment, Subject, Trigger};
use crate::journal::JournalHandle;
use crate::probe::{Probe, Transport};
use crate::responder::NftResponder;

/// The engine and its responder, as the decoys see them.
pub(super) struct Court<'a> {
    pub(super) now: Moment,
    pub(super) engine: &'a mut Engine,
    pub(super) responder: &'a mut NftResponder,
    pub(super) journal: &'a JournalHandle,
    pub(super) errands: &'a Errands,
    pub(super) orders: &'a mut Vec<Action>,
    pub(super) refusal: &'a mut Option<(Subject, String)>,
}

impl Court<'_> {
    fn judge(&mut self, probe: &Probe) -> Trigger {
        let trigger = self.engine.on_probe(self.now, probe, self.orders);
        if !self.orders.is_empty() {
            perform(self.now, self.engine, self.responder, self.journal, self.errands, self.orders, self.refusal);
        }
        trigger
    }
}

impl Judge for Court<'_> {
    fn handshake(&mut self, probe: &Probe) -> bool {
        self.judge(probe) == Trigger::Passed
    }

    fn half_open(&mut self, probe: &Probe) {
        self.judge(probe);
    }

    fn has_passed(&mut self, source: IpAddr) -> bool {
        self.engine.has_passed(source, Transport::Udp)
    }
}
