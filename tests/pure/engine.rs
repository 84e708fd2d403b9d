//! The engine from outside: arbitrary sequences of events, floods, thirty days.

#[path = "../support/world.rs"]
mod world;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{Config, UnprovenAction};
use portsentry::engine::{
    Action, Adopted, Ending, Engine, MonoTime, Outcome, Policy, Reason, Report, Source,
};
use portsentry::probe::Probe;
use proptest::prelude::*;

use world::{Step, World, syn};

/// Pseudo-random numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.roll() >> 11) % bound
    }
}

/// The default policy, but unproven sources are blocked at once.
fn blocking() -> Policy {
    let mut policy = Policy::from_config(&Config::default());
    policy.unproven.action = UnprovenAction::Block;
    policy
}

/// Runs an engine with a kernel that accepts everything; returns the reports.
fn feed(engine: &mut Engine, now: MonoTime, probe: &Probe, reports: &mut Vec<Report>) {
    let mut actions = Vec::new();
    engine.on_probe(now, probe, &mut actions);
    carry_out(engine, now, actions, reports);
}

fn carry_out(
    engine: &mut Engine,
    now: MonoTime,
    mut actions: Vec<Action>,
    reports: &mut Vec<Report>,
) {
    while !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            let outcome = match action {
                Action::Report(report) => {
                    reports.push(report);
                    continue;
                }
                Action::Block { source, .. } => Outcome::Blocked { source, result: Ok(()) },
                Action::Exempt { source, .. } => Outcome::Exempted { source, result: Ok(()) },
                Action::Unblock { source } => Outcome::Unblocked { source, result: Ok(()) },
                Action::Check { source } => Outcome::Checked { source, is_there: true },
                Action::Release { .. } | Action::Slow { .. } | Action::Campaign { .. } => continue,
            };
            engine.on_outcome(now, outcome, &mut actions);
        }
    }
}

/// 300,000 forged sources a second for five seconds, `probes_each` probes from each; meanwhile a
/// scanner sends ten probes a second. Returns the number of the probe that got it blocked.
fn flood(probes_each: u32) -> Option<u32> {
    const SCANNER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let mut engine = Engine::new(blocking(), [11, 12]);
    let mut dice = Dice(4711);
    let mut reports = Vec::new();
    let mut sent = 0;
    let mut invented = Ipv4Addr::LOCALHOST;
    for n in 0..1_500_000u32 {
        let now = MonoTime::from_millis(u64::from(n) / 300);
        if n % probes_each == 0 {
            invented = Ipv4Addr::from(0x0b00_0000 + dice.below(0x6000_0000) as u32);
        }
        feed(&mut engine, now, &syn(invented.into(), 1 + (n % probes_each) as u16), &mut reports);
        // From the second second on.
        if n >= 300_000 && n % 30_000 == 0 {
            sent += 1;
            feed(&mut engine, now, &syn(SCANNER, 100 + sent as u16), &mut reports);
            if engine.blocked(Source::of(SCANNER, 64)).is_some() {
                assert!(engine.status().sources <= engine.status().capacity);
                return Some(sent);
            }
        }
    }
    None
}

// P6
#[test]
fn a_scanner_within_a_flood_of_forged_sources_is_blocked_at_its_third_port() {
    assert_eq!(flood(1), Some(3));
}

// P6
#[test]
fn a_scanner_is_blocked_even_if_every_forged_source_probes_twice() {
    assert_eq!(flood(2), Some(3));
}

// P6
#[test]
fn a_slow_scanner_that_began_before_the_flood_is_blocked_within_it() {
    let scanner = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let mut engine = Engine::new(blocking(), [11, 12]);
    let mut reports = Vec::new();
    feed(&mut engine, MonoTime::from_millis(0), &syn(scanner, 1), &mut reports);
    for n in 0..600_000u32 {
        let invented = Ipv4Addr::from(0x0b00_0000 + n.wrapping_mul(0x9e37_79b1) % 0x6000_0000);
        feed(
            &mut engine,
            MonoTime::from_millis(10_000 + u64::from(n) / 300),
            &syn(invented.into(), 443),
            &mut reports,
        );
    }
    feed(&mut engine, MonoTime::from_millis(250_000), &syn(scanner, 2), &mut reports);
    feed(&mut engine, MonoTime::from_millis(500_000), &syn(scanner, 3), &mut reports);
    assert!(engine.blocked(Source::of(scanner, 64)).is_some());
}

/// A month of an ordinary server: visitors that touch one or two ports, worms that retry one port,
/// a few real scans a day.
#[test]
fn thirty_days_of_background_noise_give_a_bounded_journal_and_leave_nothing_behind() {
    const DAY: u64 = 86_400_000;
    let mut engine = Engine::new(blocking(), [21, 22]);
    let mut dice = Dice(815);
    let mut reports = Vec::new();
    let mut now = 0;
    let mut scans = 0u64;
    let mut most = 0;
    while now < 30 * DAY {
        now += 1 + dice.below(20_000);
        while let Some(due) = engine.next_timer().filter(|due| due.millis() <= now) {
            let mut actions = Vec::new();
            engine.on_timer(due, &mut actions);
            carry_out(&mut engine, due, actions, &mut reports);
        }
        let at = MonoTime::from_millis(now);
        let stranger = IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + dice.below(0x6000_0000) as u32));
        match dice.below(2000) {
            0 => {
                scans += 1;
                for port in 0..50 {
                    feed(&mut engine, at, &syn(stranger, port), &mut reports);
                }
            }
            1..400 => {
                let worm = IpAddr::V4(Ipv4Addr::new(198, 51, 100, dice.below(200) as u8));
                feed(&mut engine, at, &syn(worm, 23), &mut reports);
            }
            _ => feed(&mut engine, at, &syn(stranger, 1 + dice.below(2) as u16), &mut reports),
        }
        most = most.max(engine.status().sources);
    }
    assert!(scans > 50, "{scans}");
    // Each scan reports itself, its block, and the block's end.
    assert_eq!(reports.len() as u64, scans * 3);
    assert!(most < 1000, "{most}");
    let mut actions = Vec::new();
    while let Some(due) = engine.next_timer() {
        engine.on_timer(due, &mut actions);
    }
    let status = engine.status();
    assert_eq!((status.sources, status.blocked, status.ordered, status.evicted), (0, 0, 0, 0));
}

// P9
#[test]
fn a_flood_that_exceeds_the_trigger_is_not_logged_line_by_line() {
    let policy = Policy { scan_trigger: 0, ..blocking() };
    let mut engine = Engine::new(policy, [1, 2]);
    let mut reports = Vec::new();
    for n in 0..200_000u32 {
        let now = MonoTime::from_millis(u64::from(n) / 100);
        feed(&mut engine, now, &syn(Ipv4Addr::from(0x0b00_0000 + n).into(), 22), &mut reports);
    }
    // 620 blocked sources with two reports, 620 with one.
    assert!(reports.len() < 1900, "{}", reports.len());
    assert!(engine.status().reports_held_back > 190_000);
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..12, 0u8..8, 0u8..4, 0usize..12, any::<bool>(), any::<bool>()).prop_map(|(from, port, transport, scan, ambiguous, held)| Step::Probe { from, port, transport, scan, ambiguous, held }),
        2 => (0usize..16, prop::option::of(0u16..300)).prop_map(|(whom, seconds)| Step::Block { whom, seconds }),
        2 => (0usize..16).prop_map(|whom| Step::Unblock { whom }),
        2 => (0usize..16).prop_map(|whom| Step::UnblockWithin { whom }),
        1 => (0usize..16).prop_map(|whom| Step::Removed { whom }),
        12 => (0usize..1000, prop::bool::weighted(0.8), prop::bool::weighted(0.8)).prop_map(|(which, ok, is_there)| Step::Answer { which, ok, is_there }),
        1 => (0u8..16).prop_map(|lists| Step::NeverBlock { lists }),
        1 => (0u8..64).prop_map(|variant| Step::Reconfigure { variant }),
        3 => Just(Step::Timers),
        4 => (0u32..200_000).prop_map(|millis| Step::Pass { millis }),
        1 => any::<u64>().prop_map(|to| Step::Jump { to }),
        1 => Just(Step::Jump { to: u64::MAX }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of packets, commands, answers, reloads and clock changes blocks an address that
    /// must not be blocked, has two orders in flight for a source, reports an end without its
    /// beginning, or makes the ledger exceed its capacity.
    // P1
    #[test]
    fn no_history_breaks_the_promise(steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.finish();
    }

    /// The same history gives the same actions.
    #[test]
    fn a_replay_is_deterministic(steps in proptest::collection::vec(step(), 0..100)) {
        let run = || {
            let mut world = World::new();
            for step in steps.clone() {
                world.run(step);
            }
            world.log
        };
        prop_assert_eq!(run(), run());
    }

    /// An address on the allow list is never blocked, whatever is sent, for all networks that could
    /// cover it.
    // P1
    #[test]
    fn an_allowed_source_is_never_blocked(allowed: u32, bits in 0u8..=32, steps in proptest::collection::vec((any::<u32>(), 0u16..6, 0u64..5000), 1..200)) {
        let network = IpNet::new(Ipv4Addr::from(allowed).into(), bits).unwrap();
        let policy = Policy { allow: [network].into_iter().collect(), scan_trigger: 1, ..blocking() };
        let mut engine = Engine::new(Policy { capacity: 300, ..policy }, [3, 4]);
        let mut reports = Vec::new();
        let mut now = 0;
        for (host, port, later) in steps {
            now += later;
            // Near the allowed network, inside as often as outside.
            let source = Ipv4Addr::from(allowed ^ (host & 0x3) ^ (1u32.checked_shl(u32::from(32 - bits)).unwrap_or(0) * (host >> 31)));
            feed(&mut engine, MonoTime::from_millis(now), &syn(source.into(), port), &mut reports);
        }
        for view in engine.blocks() {
            prop_assert!(!network.contains(&view.source.network()));
        }
    }

    /// An adopted block is listed, and ends when the kernel's timer does.
    #[test]
    fn adopted_blocks_end_in_time(elements in proptest::collection::hash_map(0u8..=255, prop::option::of(1u64..10_000), 0..40)) {
        let mut engine = Engine::new(blocking(), [3, 4]);
        let host = |n: u8| Source::of(Ipv4Addr::new(203, 0, 113, n).into(), 64);
        let found: Vec<Adopted> = elements.iter().map(|(n, seconds)| {
            let remaining = seconds.map(Duration::from_secs);
            Adopted { source: host(*n), timeout: remaining.map(|time| time * 2), remaining, reason: Reason::Foreign(Box::default()), since: None, port: None, exempt: Vec::new() }
        }).collect();
        let (mut actions, mut reports) = (Vec::new(), Vec::new());
        engine.adopt(MonoTime::from_millis(5), found, &mut actions);
        prop_assert!(actions.is_empty());
        prop_assert_eq!(engine.status().blocked, elements.len());
        let mut ended: HashMap<Source, u64> = HashMap::new();
        while let Some(due) = engine.next_timer() {
            engine.on_timer(due, &mut actions);
            carry_out(&mut engine, due, std::mem::take(&mut actions), &mut reports);
            for report in reports.drain(..) {
                if let Report::Unblocked { source, ending: Ending::Expired } = report {
                    ended.insert(source, due.millis());
                }
            }
        }
        let expected: HashMap<Source, u64> = elements.iter().filter_map(|(n, seconds)| Some((host(*n), (*seconds)? * 1000 + 5))).collect();
        prop_assert_eq!(ended, expected);
    }
}
