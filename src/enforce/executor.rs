//! The engine with its executors: what is judged here is carried out, blocks committed, before the call returns.

use std::net::IpAddr;

use crate::store::{Archive, changed};
use crate::helper::client::Errands;
use crate::decoy::Judge;
use crate::engine::{Action, Engine, Moment, Outcome, Subject, Trigger};
use crate::journal::{JournalHandle, Notice};
use crate::probe::{Probe, Transport};
use crate::responder::NftResponder;
use crate::ruleset::reflex::{HELD_PREFIX, STILL_PREFIX};

/// What the rules have done with the source of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    None,
    /// They hold it since this packet.
    New,
    /// They held it before.
    Still,
}

impl Hold {
    /// As the prefix of the log message says.
    pub(super) fn of(prefix: &str) -> Self {
        match prefix {
            HELD_PREFIX => Self::New,
            STILL_PREFIX => Self::Still,
            _ => Self::None,
        }
    }
}

/// Who judges, and those who carry the judgement out and hear of it.
pub(super) struct Court {
    pub(super) engine: Engine,
    pub(super) responder: NftResponder,
    pub(super) journal: JournalHandle,
    pub(super) errands: Errands,
    pub(super) archive: Archive,
    /// Orders that are being carried out; kept, so that a packet allocates nothing.
    pub(super) orders: Vec<Action>,
    /// The kernel's last refusal, for the administrator whose command met it.
    pub(super) refusal: Option<(Subject, String)>,
}

impl Court {
    /// Judges a probe, and has carried out what follows.
    pub(super) fn judge(&mut self, now: Moment, probe: &Probe, hold: Hold) -> Trigger {
        let trigger = match hold {
            Hold::None => self.engine.on_probe(now, probe, &mut self.orders),
            Hold::New => self.engine.on_held(now, probe, &mut self.orders),
            Hold::Still => self.engine.on_still(now, probe, &mut self.orders),
        };
        self.perform(now);
        trigger
    }

    /// Carries orders out until there are none: an outcome may bring new ones.
    pub(super) fn perform(&mut self, now: Moment) {
        if self.orders.is_empty() {
            return;
        }
        let Self { engine, responder, journal, errands, archive, orders, refusal } = self;
        let mut batch = std::mem::take(orders);
        while !batch.is_empty() {
            errands.on_orders(&batch);
            responder.carry_out(&batch, |outcome| {
                if let Outcome::Blocked { subject, result: Err(error) } | Outcome::Unblocked { subject, result: Err(error) } = &outcome {
                    *refusal = Some((*subject, error.clone()));
                    errands.on_refusal(&batch, *subject);
                }
                let changed = changed(&outcome);
                engine.on_outcome(now, outcome, orders);
                if let Some(subject) = changed {
                    archive.on_change(engine, subject);
                }
            });
            for action in batch.drain(..) {
                if let Action::Report(report) = action {
                    errands.on_report(&report);
                    archive.on_report(engine, &report);
                    journal.tell(Notice::Engine(report));
                }
            }
            std::mem::swap(&mut batch, orders);
        }
        *orders = batch;
    }
}

/// The court as decoys see it, for one wake.
pub(super) struct Sitting<'a> {
    pub(super) court: &'a mut Court,
    pub(super) now: Moment,
}

impl Judge for Sitting<'_> {
    fn handshake(&mut self, probe: &Probe) -> bool {
        self.court.judge(self.now, probe, Hold::None) == Trigger::Passed
    }

    fn half_open(&mut self, probe: &Probe) {
        self.court.judge(self.now, probe, Hold::None);
    }

    fn has_passed(&mut self, source: IpAddr) -> bool {
        self.court.engine.has_passed(source, Transport::Udp)
    }
}
