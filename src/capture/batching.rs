//! Chooses how many packets the kernel collects per message: one when it is quiet, more under load.
//!
//! Pure: count and time are arguments; [`super::nflog::Listener::set_batch`] applies the choice. A
//! single packet reaches the daemon after 10 us and costs 0.9 us. In batches of 64 a packet costs a
//! fifth of that, and waits until the batch is full or the kernel's flush timer (10 ms,
//! nfnetlink_log.c) expires.
//!
//! | step | packets | from, a second | until below, a second | full after, at most |
//! |---|---|---|---|---|
//! | quiet | 1 | | | |
//! | busy | 8 | 30,000 | 15,000 | 0.5 ms |
//! | flood | 64 | 150,000 | 75,000 | 0.9 ms |
//!
//! A single scanner never causes a higher step: its packets are not logged once it is blocked.

use std::time::Duration;

use crate::ruleset::QUEUE_THRESHOLD;
use crate::time::MonoTime;

/// Shortest interval over which the rate is measured; a shorter burst is no load.
const WINDOW: Duration = Duration::from_millis(10);

/// The rate must stay below a step's lower bound for this time, so that a flood in waves does not
/// make the step oscillate.
const STEP_DOWN_AFTER: Duration = Duration::from_millis(500);

/// Interval at which the rate is checked without packets, while more than one packet is collected.
const CHECK_EVERY: Duration = Duration::from_millis(100);

struct Step {
    packets: u32,
    /// Packets per second at which this step is entered, and below which it is left.
    from: u64,
    below: u64,
}

/// From quiet to flood. Each lower bound is half of the upper one, so that a constant rate keeps
/// its step.
const STEPS: [Step; 3] = [
    Step { packets: 1, from: 0, below: 0 },
    Step { packets: 8, from: 30_000, below: 15_000 },
    Step { packets: QUEUE_THRESHOLD as u32, from: 150_000, below: 75_000 },
];

/// The current step and the measured rate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batching {
    step: usize,
    /// When the window began, and the packet count then.
    since: Option<(MonoTime, u64)>,
    /// Since when the rate has been below the step's lower bound.
    calm: Option<MonoTime>,
}

impl Batching {
    /// Packets to collect now.
    pub(crate) fn packets(&self) -> u32 {
        self.current().packets
    }

    /// Updates the rate with the number of packets logged so far, lost ones included, and returns
    /// how many to collect.
    ///
    /// `behind`: one round could not take all packets. This counts as a flood at any rate: a daemon
    /// that gets little CPU time measures a low rate and needs large batches most.
    pub(crate) fn on_round(&mut self, now: MonoTime, logged: u64, behind: bool) -> u32 {
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
        } else if now.since(*self.calm.get_or_insert(now)) >= STEP_DOWN_AFTER {
            // Directly to the step of the rate: each step in between would wait again.
            self.step =
                STEPS.iter().rposition(|step| rate >= step.below).unwrap_or(0).min(self.step);
            self.calm = None;
        }
        self.packets()
    }

    /// When to call [`Batching::on_round`] even if no packet comes; `None` when it is quiet.
    pub(crate) fn next_timer(&self) -> Option<MonoTime> {
        self.since.filter(|_| self.step > 0).map(|(since, _)| since.after(CHECK_EVERY))
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
    fn quiet_collects_one_packet_without_a_timer() {
        let mut batching = Batching::default();
        assert_eq!((batching.packets(), batching.next_timer()), (1, None));
        assert_eq!(feed(&mut batching, &mut (0, 0), 29_000, 10_000), 1);
        assert_eq!(batching.next_timer(), None);
    }

    #[test]
    fn flood_step_is_reached_within_two_windows() {
        let (mut batching, mut clock) = (Batching::default(), (1000, 0));
        assert_eq!(feed(&mut batching, &mut clock, 100, 1000), 1);
        assert_eq!(feed(&mut batching, &mut clock, 300_000, 20), MOST);
        assert_eq!(
            feed(&mut batching, &mut clock, 100_000, 10_000),
            MOST,
            "between the bounds it stays"
        );
        assert_eq!(feed(&mut batching, &mut clock, 60_000, 490), MOST);
        assert_eq!(feed(&mut batching, &mut clock, 60_000, 20), 8);
        assert_eq!(feed(&mut batching, &mut clock, 20_000, 10_000), 8);
        assert_eq!(feed(&mut batching, &mut clock, 100, 520), 1);
    }

    #[test]
    fn timer_returns_to_quiet_after_a_flood() {
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
    fn waves_of_packets_do_not_change_the_step() {
        let (mut batching, mut clock) = (Batching::default(), (0, 0));
        let mut changes = 0;
        let mut last = 1;
        for wave in 0..100 {
            let packets =
                feed(&mut batching, &mut clock, if wave % 2 == 0 { 300_000 } else { 0 }, 400);
            changes += u32::from(packets != last);
            last = packets;
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn daemon_that_falls_behind_collects_most() {
        let mut batching = Batching::default();
        batching.on_round(MonoTime::from_millis(0), 0, true);
        assert_eq!(batching.on_round(MonoTime::from_millis(10), 10, true), MOST);
    }

    #[test]
    fn count_or_clock_going_back_changes_nothing() {
        let mut batching = Batching::default();
        batching.on_round(MonoTime::from_millis(5000), 1_000_000, false);
        assert_eq!(batching.on_round(MonoTime::from_millis(4000), 0, false), 1);
        assert_eq!(batching.on_round(MonoTime::from_millis(5010), 0, false), 1);
    }

    #[test]
    fn each_step_fills_its_batch_within_a_millisecond() {
        for pair in STEPS.windows(2) {
            assert!(
                pair[1].packets > pair[0].packets
                    && pair[1].from > pair[0].from
                    && pair[1].below * 2 == pair[1].from
            );
            assert!(u64::from(pair[1].packets) * 1000 <= pair[1].below);
        }
    }
}
