//! How packets come in: in rounds that end in time, by batches that fit the load, and with what is
//! given up counted.
//!
//! What to do is decided in [`crate::capture::batching`] and [`crate::capture::shedding`]; here it
//! is done. Every packet that the kernel has logged is in exactly one of these counts: evaluated,
//! skipped (no probe, or unreadable), shed, lost.

use std::time::Duration;

use super::command::Taken;
use super::{PREROUTING, PacketThread};
use crate::capture::batching::Batching;
use crate::capture::shedding::Shedding;
use crate::capture::{self, PACKETS_PER_READ, PACKETS_PER_WAKE, Received, TIME_PER_WAKE};
use crate::enforce::{Hold, Observer};
use crate::engine::MonoTime;
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::probe::Probe;
use crate::ruleset::exempt::ALLOWED_PREFIX;
use crate::ruleset::reflex::{HELD_PREFIX, STILL_PREFIX};
use crate::ruleset::slow::{ANSWERED_PREFIX, SILENT_PREFIX};
use crate::ruleset::unwatched::UNWATCHED_PREFIX;
use crate::sys::clock;
use crate::wire;

/// Loss is reported at most this often, and so is what was shed; the count of all of it is in the
/// status.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// From so many percent of the receive buffer on, packets are collected by the largest batch,
/// whatever the rate: a datagram of many takes less of it.
const BEHIND: u8 = 10;

/// Rounds of [`PACKETS_PER_WAKE`] packets that a group or queue is emptied in before it is left:
/// more than its receive buffer holds.
const DRAINS_MAX: usize = 256;

/// What has come in, and how it is being taken.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) batching: Batching,
    shedding: Shedding,
    /// What came and was lost by way of groups that were left.
    before: capture::Statistics,
    evaluated: u64,
    no_probe: u64,
    unreadable: u64,
    lost: Reported,
    shed: Reported,
}

/// A count that is reported at a bounded rate.
#[derive(Debug, Default)]
struct Reported {
    count: u64,
    at: Option<MonoTime>,
}

impl Reported {
    /// What is to be reported of `total` now: how many are new.
    fn news(&mut self, now: MonoTime, total: u64) -> Option<u64> {
        if total == self.count || self.at.is_some_and(|at| now.since(at) < REPORT_EVERY) {
            return None;
        }
        self.at = Some(now);
        Some(total - std::mem::replace(&mut self.count, total))
    }
}

/// What the rules have done with the source of a packet, by the prefix of its log message.
fn hold_of(prefix: &str) -> Hold {
    match prefix {
        HELD_PREFIX => Hold::New,
        STILL_PREFIX => Hold::Repeat,
        SILENT_PREFIX => Hold::Retransmission { answered: false },
        ANSWERED_PREFIX => Hold::Retransmission { answered: true },
        _ => Hold::None,
    }
}

/// Reads packets again and again until one wake has brought enough. Whether there are more.
pub(super) fn one_wake(
    mut read: impl FnMut() -> Result<Received, capture::Error>,
) -> Result<bool, capture::Error> {
    let began = clock::boottime();
    let (mut taken, mut more) = (0, true);
    while more
        && taken < PACKETS_PER_WAKE
        && (taken == 0 || clock::boottime().saturating_sub(began) < TIME_PER_WAKE)
    {
        let received = read()?;
        // Noise that is no packet counts as one: the round ends all the same.
        taken += received.packets.max(1);
        more = received.more;
    }
    Ok(more)
}

impl PacketThread {
    /// Takes the last packets of a group or queue that is about to be left.
    pub(super) fn drain(
        &mut self,
        now: MonoTime,
        what: &str,
        take: impl Fn(&mut Self, MonoTime) -> Result<bool, capture::Error>,
    ) {
        for _ in 0..DRAINS_MAX {
            match take(self, now) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    return log::warn!(
                        "the last packets of the old {what}: {}",
                        error_chain(&error)
                    );
                }
            }
        }
    }

    /// Packets, each evaluated, and what follows in force, before the next is looked at. Whether
    /// there are more.
    pub(super) fn take_packets(&mut self, now: MonoTime) -> Result<bool, capture::Error> {
        let Self { enforcer, listener, decoy, ephemeral, intake, .. } = self;
        let Intake { shedding, evaluated, no_probe, unreadable, .. } = intake;
        let more = one_wake(|| {
            listener.receive_together(PACKETS_PER_READ, &mut |packets| {
                if packets.len() > 1 {
                    let sources = packets.iter().map(|packet| wire::source(packet.payload));
                    enforcer.engine.read_ahead(sources.flatten());
                }
                for packet in packets {
                    let Ok(parsed) = wire::parse(packet.payload) else {
                        *unreadable += 1;
                        continue;
                    };
                    let hold = hold_of(packet.prefix);
                    if wire::checksum::verify(packet.payload).is_err() {
                        *unreadable += 1;
                        // The rules hold a source for flags that conntrack finds invalid either way.
                        if hold == Hold::New {
                            enforcer.on_discarded(now, parsed.source);
                        }
                        continue;
                    }
                    let is_allowed = packet.prefix == ALLOWED_PREFIX;
                    let probe = match Probe::from_packet(&parsed, ephemeral) {
                        Ok(probe) if is_allowed => {
                            *evaluated += 1;
                            if !probe.ambiguous {
                                enforcer.on_allowed_interface(now, &probe);
                            }
                            continue;
                        }
                        Ok(probe) if packet.prefix != UNWATCHED_PREFIX => probe,
                        Ok(probe) => {
                            *no_probe += 1;
                            if !probe.ambiguous {
                                enforcer.on_unwatched(now, &probe);
                            }
                            continue;
                        }
                        Err(reason) => {
                            *no_probe += 1;
                            if let Some(late) = Probe::late(&parsed, reason).filter(|_| !is_allowed)
                            {
                                enforcer.on_late(now, &late);
                            }
                            continue;
                        }
                    };
                    // Reading a packet costs 20 ns and allocates nothing; adding a source without an
                    // account is what costs. The rules limit the rate of holds, and each has to be
                    // confirmed or ended.
                    if hold != Hold::New
                        && shedding.should_shed(|| enforcer.engine.knows(probe.source))
                    {
                        continue;
                    }
                    *evaluated += 1;
                    // What the decoys' rules log may be the beginning of a handshake.
                    let probe = match (parsed.transport, hold) {
                        (wire::Transport::Tcp(segment), Hold::None)
                            if packet.hook == PREROUTING =>
                        {
                            decoy.wait_for_handshake(now, segment.source_port, probe)
                        }
                        (_, Hold::New) if packet.hook == PREROUTING => {
                            decoy.hold(now, probe.source);
                            None
                        }
                        _ => Some(probe),
                    };
                    if let Some(probe) = probe {
                        enforcer.evaluate(now, &probe, hold);
                    }
                }
            })
        })?;
        self.weigh(now, more);
        Ok(more)
    }

    /// Fits batch and shedding to the load; `behind`: the round ended and there was more.
    fn weigh(&mut self, now: MonoTime, behind: bool) {
        // A round that took all leaves nothing behind, but for what came meanwhile.
        let backlog =
            if behind || self.intake.shedding.is_on() { self.listener.backlog() } else { 0 };
        self.intake.shedding.on_backlog(backlog);
        let statistics = self.listener.statistics();
        let logged = statistics.packets + statistics.lost;
        let packets = self.intake.batching.on_round(now, logged, backlog >= BEHIND);
        if packets != self.listener.batch()
            && let Err(error) = self.listener.set_batch(packets)
        {
            // Tried again with the next round; what is collected is told a little earlier or later,
            // no more.
            log::debug!("{}", error_chain(&error));
        }
    }

    /// Reports what was lost and what was shed.
    pub(super) fn report_loss(&mut self, now: MonoTime) {
        let total = self.statistics().lost;
        if let Some(packets) = self.intake.lost.news(now, total) {
            self.enforcer.observer.notify(Notice::Lost { packets, total });
        }
        let total = self.intake.shedding.shed();
        if let Some(packets) = self.intake.shed.news(now, total) {
            self.enforcer.observer.notify(Notice::Shed { packets, total });
        }
    }

    /// Of all that was listened to.
    pub(super) fn statistics(&self) -> capture::Statistics {
        self.logged().plus(self.queues.statistics())
    }

    /// Of this group and of those that were listened to before.
    fn logged(&self) -> capture::Statistics {
        let (now, before) = (self.listener.statistics(), self.intake.before);
        capture::Statistics { loss_uncounted: false, ..before }.plus(now)
    }

    /// The listener is about to be another one: its counts are kept, and the load is weighed anew.
    pub(super) fn keep_statistics(&mut self) {
        self.intake.before = self.logged();
        self.intake.batching = Batching::default();
    }

    /// What became of the packets that came in.
    pub(super) fn taken(&self) -> Taken {
        let Intake { shedding, evaluated, no_probe, unreadable, .. } = &self.intake;
        let waited = self.queues.counts();
        Taken {
            evaluated: evaluated + waited.evaluated,
            no_probe: no_probe + waited.no_probe,
            unreadable: unreadable + waited.unreadable,
            shed: shedding.shed(),
            is_shedding: shedding.is_on(),
            batch: self.listener.batch(),
            receive_buffer: self.listener.receive_buffer(),
        }
    }
}
