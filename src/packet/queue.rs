//! Packets that wait in the kernel (`capture.method: nfqueue`): each is evaluated, and what follows
//! is in force, before its verdict is given.
//!
//! A probe goes on only where closed ports answer, and never of a source that is blocked. A
//! suspect's new connection to an open port goes on unless its source is blocked. One whose source
//! has passed the trigger and cannot be blocked, because so many are new in this minute, goes on
//! when the identical SYN comes again, as TCP sends it after a second: a scanner learns nothing
//! meanwhile, and a host whose address was forged loses a second and no connection. The same holds
//! for a suspect without recorded evidence while the queue of probes overflows, and for one that is
//! slowed while its connection waits; the rules see the SYN of a slowed source before any queue, so
//! that this one connection, which began before, takes three seconds.

use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::intake::one_wake;
use super::{Observers, PacketThread};
use crate::capture::nfqueue::{Kind, Listener, Settings};
use crate::capture::{self, PACKETS_PER_READ, Verdict, Waiting, nfqueue};
use crate::config::Config;
use crate::control::Queues;
use crate::enforce::{Enforcer, Hold, Nftables};
use crate::engine::{ConnectionVerdict, MonoTime};
use crate::errors::error_chain;
use crate::probe::Probe;
use crate::wire;

/// A SYN that comes again sooner is a scanner's: RFC 6298 waits a second before it sends one again.
const AGAIN_AFTER: Duration = Duration::from_millis(700);
/// SYNs that are remembered at a time; 192 KiB. A newer one takes the place of an older one: that
/// costs a client one more retransmission.
const AGAIN_PLACES: usize = 8192;
/// A probe that was lost made its source a suspect for so long, or for longer with the reflex,
/// which holds sources by itself.
const OVERFLOW_MEMORY: Duration = Duration::from_secs(6);
/// The kernel is asked how many packets it dropped at most this often: the answer is a file of
/// /proc, some 20 us.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The queues, those before them included.
pub(super) struct PacketQueues {
    queue: Option<Queue>,
    seed: u64,
    /// What came, was lost, and became of it, by way of queues that were left.
    left: (capture::Statistics, Counts),
}

/// The queues and what became of the packets there.
pub(super) struct Queue {
    listener: Listener,
    again: Again,
    /// What becomes of a probe that nothing stands against.
    probe: Verdict,
    looked: Option<MonoTime>,
    overflow: Overflow,
    counts: Counts,
}

/// When probes were last dropped because their queue was full.
#[derive(Debug, Clone, Copy)]
struct Overflow {
    queue: u16,
    dropped: u32,
    at: Option<MonoTime>,
}

impl Overflow {
    /// Whether a suspect's probe may have been among what was dropped. Asked only for suspects
    /// without recorded evidence.
    fn is_recent(&mut self, now: MonoTime) -> bool {
        if let Some(standing) = nfqueue::queue_status(self.queue)
            && standing.full != self.dropped
        {
            (self.dropped, self.at) = (standing.full, Some(now));
        }
        self.at.is_some_and(|at| now.since(at) <= OVERFLOW_MEMORY)
    }
}

/// What became of the packets that waited.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Judged, or given their verdict by what was evaluated before.
    pub(super) evaluated: u64,
    /// No probes (late answers and the like).
    pub(super) no_probe: u64,
    /// Nobody could read them.
    pub(super) unreadable: u64,
    /// Connections of suspects that were let pass.
    passed: u64,
    /// Connections of suspects that were dropped.
    stopped: u64,
}

impl PacketQueues {
    /// Binds the queues that `config` asks for, if it asks for any.
    ///
    /// # Errors
    /// See [`Queue::open`].
    pub(super) fn open(config: &Config, seed: u64) -> Result<Self, capture::Error> {
        Ok(Self { queue: Queue::open(config, seed)?, seed, left: Default::default() })
    }

    /// What to poll for reading, if anything waits here.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(|queue| queue.listener.as_fd())
    }

    /// Of all queues since the start.
    pub(super) fn statistics(&self) -> capture::Statistics {
        self.left
            .0
            .plus(self.queue.as_ref().map(|queue| queue.listener.statistics()).unwrap_or_default())
    }

    /// Of all queues since the start.
    pub(super) fn counts(&self) -> Counts {
        self.left.1.plus(self.queue.as_ref().map(|queue| queue.counts).unwrap_or_default())
    }

    /// What the queues stand at, the kernel asked; `None` if nothing waits in this configuration.
    pub(super) fn figures(&mut self) -> Option<Queues> {
        let counts = self.counts();
        let queue = self.queue.as_mut()?;
        let [probes, connections] = queue.listener.read_status();
        let [probes_length, connections_length] = queue.listener.lengths();
        Some(Queues {
            probes: probes.waiting,
            probes_length,
            connections: connections.waiting,
            connections_length,
            passed: counts.passed,
            stopped: counts.stopped,
        })
    }

    /// Binds the queues again that had to be left for others, if they were.
    pub(super) fn back(&mut self, config: &Config) -> Result<(), capture::Error> {
        if self.queue.is_none() {
            self.queue = Queue::open(config, self.seed)?;
        }
        Ok(())
    }

    /// Leaves the queues, what was counted kept.
    pub(super) fn leave(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.listener.read_status();
        }
        self.left = (self.statistics(), self.counts());
        if let Some(mut queue) = self.queue.take()
            && let Err(error) = queue.listener.unbind()
        {
            log::debug!("{}", error_chain(&error));
        }
    }
}

impl Queue {
    /// Binds the queues that `config` asks for; `None` if it asks for none.
    ///
    /// # Errors
    /// When another program has one, or the kernel refuses.
    pub(super) fn open(config: &Config, seed: u64) -> Result<Option<Self>, capture::Error> {
        if !config.has_queue() {
            return Ok(None);
        }
        let listener =
            Listener::bind(Settings::of_queue(config.capture.group, !config.drops_probes()))?;
        let overflow = Overflow { queue: config.capture.group, dropped: 0, at: None };
        Ok(Some(Self {
            listener,
            again: Again::new(seed),
            probe: verdict_of_probes(config),
            looked: None,
            overflow,
            counts: Counts::default(),
        }))
    }

    fn read_status(&mut self, now: MonoTime) {
        if self.looked.is_none_or(|at| now.since(at) >= LOOK_EVERY) {
            self.listener.read_status();
            self.looked = Some(now);
        }
    }
}

fn verdict_of_probes(config: &Config) -> Verdict {
    if config.drops_probes() { Verdict::Drop } else { Verdict::Accept }
}

impl PacketThread {
    /// Packets that wait, each evaluated, and what follows committed, before its verdict. Whether
    /// there are more.
    pub(super) fn take_waiting(&mut self, now: MonoTime) -> Result<bool, capture::Error> {
        let Self { enforcer, ephemeral, queues, .. } = self;
        let Some(queue) = &mut queues.queue else { return Ok(false) };
        let Queue { listener, again, probe, counts, overflow, .. } = queue;
        let more = one_wake(|| {
            listener.decide(PACKETS_PER_READ, &mut |waiting| match waiting.kind {
                Kind::Probe => on_probe(now, enforcer, counts, waiting, ephemeral, *probe),
                Kind::Connection => {
                    on_connection(now, enforcer, counts, waiting, (&mut *again, &mut *overflow))
                }
            })
        })?;
        queue.read_status(now);
        Ok(more)
    }

    /// The queues of another configuration, bound before the rules lead there. Those in force are
    /// kept until [`PacketThread::change_queue`], but for numbers that overlap: those must be left
    /// first.
    pub(super) fn prepare_queue(
        &mut self,
        now: MonoTime,
        config: &Config,
    ) -> Result<Option<Queue>, capture::Error> {
        let (old, new) = (self.config.capture.group, config.capture.group);
        if !config.has_queue() || (self.queues.queue.is_some() && old == new) {
            return Ok(None);
        }
        let seed = self.queues.seed;
        if self.queues.queue.is_none() || old.abs_diff(new) > 1 {
            return Queue::open(config, seed);
        }
        self.drain(now, "queue", Self::take_waiting);
        self.queues.leave();
        match Queue::open(config, seed) {
            Ok(queue) => Ok(queue),
            Err(error) => {
                self.queues.back(&self.config)?;
                Err(error)
            }
        }
    }

    /// Goes over to other queues, or to none; what waits in those in force is still evaluated.
    /// After the rules have changed.
    pub(super) fn change_queue(&mut self, now: MonoTime, new: Option<Queue>, config: &Config) {
        if new.is_none() && config.has_queue() {
            if let Some(queue) = &mut self.queues.queue {
                queue.probe = verdict_of_probes(config);
                if let Err(error) = queue.listener.set_probes_pass(!config.drops_probes()) {
                    log::warn!("{}", error_chain(&error));
                }
            }
            return;
        }
        self.drain(now, "queue", Self::take_waiting);
        self.queues.leave();
        self.queues.queue = new;
    }
}

impl Counts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            evaluated: self.evaluated + other.evaluated,
            no_probe: self.no_probe + other.no_probe,
            unreadable: self.unreadable + other.unreadable,
            passed: self.passed + other.passed,
            stopped: self.stopped + other.stopped,
        }
    }
}

fn on_probe(
    now: MonoTime,
    enforcer: &mut Enforcer<Nftables, Observers>,
    counts: &mut Counts,
    waiting: &Waiting<'_>,
    ephemeral: &RangeInclusive<u16>,
    otherwise: Verdict,
) -> Verdict {
    let Ok(parsed) = wire::parse(waiting.packet.payload) else {
        counts.unreadable += 1;
        return otherwise;
    };
    if wire::checksum::verify(waiting.packet.payload).is_err() {
        counts.unreadable += 1;
        return otherwise;
    }
    let probe = match Probe::from_packet(&parsed, ephemeral) {
        Ok(probe) => probe,
        Err(reason) => {
            counts.no_probe += 1;
            if let Some(late) = Probe::late(&parsed, reason) {
                enforcer.on_late(now, &late);
            }
            return otherwise;
        }
    };
    counts.evaluated += 1;
    enforcer.evaluate(now, &probe, Hold::None);
    match otherwise {
        Verdict::Accept
            if enforcer.engine.connection_verdict(probe.source) == ConnectionVerdict::Blocked =>
        {
            Verdict::Drop
        }
        other => other,
    }
}

fn on_connection(
    now: MonoTime,
    enforcer: &Enforcer<Nftables, Observers>,
    counts: &mut Counts,
    waiting: &Waiting<'_>,
    (again, overflow): (&mut Again, &mut Overflow),
) -> Verdict {
    let Ok(parsed) = wire::parse(waiting.packet.payload) else {
        counts.unreadable += 1;
        counts.passed += 1;
        return Verdict::Accept;
    };
    counts.evaluated += 1;
    let passes = match enforcer.engine.connection_verdict(parsed.source) {
        // A suspect that nothing is known of, while probes are being lost: its own may be one of
        // them.
        ConnectionVerdict::Free
            if !enforcer.engine.knows(parsed.source) && overflow.is_recent(now) =>
        {
            again.has_come_again(now, &parsed)
        }
        ConnectionVerdict::Free => true,
        ConnectionVerdict::Blocked => false,
        ConnectionVerdict::Held => again.has_come_again(now, &parsed),
    };
    *(if passes { &mut counts.passed } else { &mut counts.stopped }) += 1;
    if passes { Verdict::Accept } else { Verdict::Drop }
}

/// SYNs that were dropped once, by a hash of all that makes them the same: addresses, ports,
/// sequence number.
struct Again {
    seed: u64,
    places: Box<[(u64, Option<MonoTime>)]>,
}

impl Again {
    fn new(seed: u64) -> Self {
        Self { seed, places: vec![(0, None); AGAIN_PLACES].into_boxed_slice() }
    }

    /// Whether this SYN was here before, long enough ago; remembers it if not.
    fn has_come_again(&mut self, now: MonoTime, packet: &wire::Packet<'_>) -> bool {
        let wire::Transport::Tcp(segment) = packet.transport else { return true };
        let key = (
            packet.source,
            packet.destination,
            segment.source_port,
            segment.destination_port,
            segment.sequence,
        );
        self.has_come(
            now,
            std::hash::BuildHasher::hash_one(
                &foldhash::fast::FixedState::with_seed(self.seed),
                key,
            ),
        )
    }

    fn has_come(&mut self, now: MonoTime, hash: u64) -> bool {
        let position = usize::try_from(hash).unwrap_or(usize::MAX) % AGAIN_PLACES;
        let Some(place) = self.places.get_mut(position) else { return false };
        match place {
            (known, Some(at)) if *known == hash => now.since(*at) >= AGAIN_AFTER,
            other => {
                *other = (hash, Some(now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_passes_when_it_comes_again_after_the_time_that_tcp_waits() {
        let mut again = Again::new(7);
        let at = MonoTime::from_millis;
        assert!(!again.has_come(at(1000), 42));
        assert!(!again.has_come(at(1100), 42), "too soon");
        assert!(!again.has_come(at(1100), 43), "another one");
        assert!(again.has_come(at(2000), 42));
        assert!(again.has_come(at(2100), 42), "and stays so");
        // One that takes its place makes it begin anew.
        assert!(!again.has_come(at(3000), 42 + AGAIN_PLACES as u64));
        assert!(!again.has_come(at(3100), 42));
    }
}
