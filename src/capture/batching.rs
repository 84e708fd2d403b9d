//! How many packets the kernel should collect before it wakes the packet thread: one when it is quiet, more under load.
//!
//! Decides only, by the count and the clock that it is given; whoever owns the socket carries it out ([`super::PacketSource::set_batch`]).
//! One at a time reaches the daemon 10 us after the packet and costs 0.9 us; collected by 64, a packet costs a fifth of that, and waits until
//! the batch is full or the kernel's flush timer (10 ms, nfnetlink_log.c) ends its wait.
//!
//! | step | packets | from, a second | until below, a second | full after, at most |
//! |---|---|---|---|---|
//! | quiet | 1 | | | |
//! | busy | 8 | 30,000 | 15,000 | 0.5 ms |
//! | flood | 64 | 150,000 | 75,000 | 0.9 ms |
//!
//! A single scanner never gets there: what it sends is not logged any more once it is blocked.

use std::time::Duration;

use crate::ruleset::QUEUE_THRESHOLD;
use crate::time::MonoTime;

/// A rate is taken over so much at least: a burst that is over before is no load.
const WINDOW: Duration = Duration::from_millis(10);

/// So long must the rate stay below a step's lower bound before it is left. A flood that comes in waves does not make it swing.
const CALM: Duration = Duration::from_millis(500);

/// While more than one packet is collected, the rate is looked at this often even if nothing comes.
const LOOK: Duration = Duration::from_millis(100);

struct Step {
    packets: u32,
    /// Packets a second from which on this step is taken, and below which it is left.
    from: u64,
    below: u64,
}

/// From quiet to flood. Each lower bound is half of the upper one: a rate that stands still stays where it is.
const STEPS: [Step; 3] = [
    Step { packets: 1, from: 0, below: 0 },
    Step { packets: 8, from: 30_000, below: 15_000 },
    Step { packets: QUEUE_THRESHOLD as u32, from: 150_000, below: 75_000 },
];

/// The decision, and what it rests on.
#[derive(Debug, Clone, Default)]
pub struct Batching {
    step: usize,
    /// Where the window began, and the source's count then.
    since: Option<(MonoTime, u64)>,
    /// Since when the rate has been below the step's lower bound.
    calm: Option<MonoTime>,
}

impl Batching {
    /// Packets to collect, as it stands.
    pub fn packets(&self) -> u32 {
        self.current().packets
    }

    /// Takes note of how many packets the kernel has logged so far, those that were lost included, and decides.
    ///
    /// `behind`: the source had more than one round could take. Then it is a flood, whatever the rate: a daemon that gets no processor counts
    /// little, and needs the cheaper way most.
    pub fn on_round(&mut self, now: MonoTime, logged: u64, behind: bool) -> u32 {
        let (since, before) = *self.since.get_or_insert((now, logged));
        let time = now.since(since);
        if time < WINDOW {
            return self.packets();
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = logged.saturating_sub(before).saturating_mul(1000) / millis;
        self.since = Some((now, logged));
        let reached = STEPS.iter().rposition(|step| rate >= step.from).unwrap_or(0);
        let reached = if behind { STEPS.len() - 1 } else { reached };
        if reached > self.step {
            self.step = reached;
            self.calm = None;
        } else if rate >= self.current().below {
            self.calm = None;
        } else if now.since(*self.calm.get_or_insert(now)) >= CALM {
            // Straight down to where the rate belongs: each step in between would wait as long again.
            self.step = STEPS.iter().rposition(|step| rate >= step.below).unwrap_or(0).min(self.step);
            self.calm = None;
        }
        self.packets()
    }

    /// When [`Batching::on_round`] is to be called next, even if no packet comes. `None` when it is quiet.
    pub fn next_timer(&self) -> Option<MonoTime> {
        self.since.filter(|_| self.step > 0).map(|(since, _)| since.after(LOOK))
    }

    fn current(&self) -> &Step {
        let [quiet, ..] = &STEPS;
        STEPS.get(self.step).unwrap_or(quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u32 = QUEUE_THRESHOLD as u32;

    /// Feeds `rate` packets a second in rounds of 10 ms for `millis`.
    fn feed(batching: &mut Batching, clock: &mut (u64, u64), rate: u64, millis: u64) -> u32 {
        let mut packets = batching.packets();
        for _ in 0..millis / 10 {
            clock.0 += 10;
            clock.1 += rate / 100;
            packets = batching.on_round(MonoTime::from_millis(clock.0), clock.1, false);
        }
        packets
    }

    #[test]
    fn quiet_is_one_packet_and_needs_no_timer() {
        let mut batching = Batching::default();
        assert_eq!((batching.packets(), batching.next_timer()), (1, None));
        assert_eq!(feed(&mut batching, &mut (0, 0), 29_000, 10_000), 1);
        assert_eq!(batching.next_timer(), None);
    }

    #[test]
    fn a_flood_is_met_within_two_windows() {
        let (mut batching, mut clock) = (Batching::default(), (1000, 0));
        assert_eq!(feed(&mut batching, &mut clock, 100, 1000), 1);
        assert_eq!(feed(&mut batching, &mut clock, 300_000, 20), MOST);
        assert_eq!(feed(&mut batching, &mut clock, 100_000, 10_000), MOST, "between the bounds it stays");
        assert_eq!(feed(&mut batching, &mut clock, 60_000, 490), MOST);
        assert_eq!(feed(&mut batching, &mut clock, 60_000, 20), 8);
        assert_eq!(feed(&mut batching, &mut clock, 20_000, 10_000), 8);
        assert_eq!(feed(&mut batching, &mut clock, 100, 520), 1);
    }

    #[test]
    fn after_a_flood_that_stops_dead_the_timer_leads_straight_back_to_quiet() {
        let (mut batching, mut clock) = (Batching::default(), (0, 0));
        feed(&mut batching, &mut clock, 300_000, 1000);
        let mut rounds = 0;
        while let Some(next) = batching.next_timer() {
            batching.on_round(next, clock.1, false);
            rounds += 1;
            assert!(rounds <= 7, "{batching:?}");
        }
        assert_eq!(batching.packets(), 1);
    }

    #[test]
    fn waves_do_not_make_it_swing() {
        let (mut batching, mut clock) = (Batching::default(), (0, 0));
        let mut changes = 0;
        let mut last = 1;
        for wave in 0..100 {
            let packets = feed(&mut batching, &mut clock, if wave % 2 == 0 { 300_000 } else { 0 }, 400);
            changes += u32::from(packets != last);
            last = packets;
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn a_daemon_that_falls_behind_collects_whatever_the_rate() {
        let mut batching = Batching::default();
        batching.on_round(MonoTime::from_millis(0), 0, true);
        assert_eq!(batching.on_round(MonoTime::from_millis(10), 10, true), MOST);
    }

    #[test]
    fn a_count_or_a_clock_that_goes_back_changes_nothing() {
        let mut batching = Batching::default();
        batching.on_round(MonoTime::from_millis(5000), 1_000_000, false);
        assert_eq!(batching.on_round(MonoTime::from_millis(4000), 0, false), 1);
        assert_eq!(batching.on_round(MonoTime::from_millis(5010), 0, false), 1);
    }

    #[test]
    fn every_step_fills_its_batch_within_a_millisecond() {
        for pair in STEPS.windows(2) {
            assert!(pair[1].packets > pair[0].packets && pair[1].from > pair[0].from && pair[1].below * 2 == pair[1].from);
            assert!(u64::from(pair[1].packets) * 1000 <= pair[1].below);
        }
    }
}
