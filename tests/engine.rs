//! The engine as its users see it: any sequence of events, floods, thirty days.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test may stop where it fails")]

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{Config, Mode, ProtocolAction};
use portsentry::engine::{Action, Adopted, AllowList, Ending, Engine, Moment, Outcome, Policy, Reason, Report, Source, Subject};
use portsentry::probe::{Port, Probe, ScanKind, Transport};
use proptest::prelude::*;

fn syn(source: IpAddr, number: u16) -> Probe {
    let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Probe { source, destination, port: Port { transport: Transport::Tcp, number }, scan: ScanKind::Syn, imitable: false, ip_options: false }
}

/// Numbers that look random (xorshift64*).
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

/// An engine with a kernel that always says yes; gives the reports.
fn feed(engine: &mut Engine, now: Moment, probe: &Probe, reports: &mut Vec<Report>) {
    let mut actions = Vec::new();
    engine.on_probe(now, probe, &mut actions);
    carry_out(engine, now, actions, reports);
}

fn carry_out(engine: &mut Engine, now: Moment, mut actions: Vec<Action>, reports: &mut Vec<Report>) {
    while !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            let outcome = match action {
                Action::Report(report) => {
                    reports.push(report);
                    continue;
                }
                Action::Block { subject, .. } => Outcome::Blocked { subject, result: Ok(()) },
                Action::Unblock { subject } => Outcome::Unblocked { subject, result: Ok(()) },
                Action::Count { subject } => Outcome::Counted { subject, packets: Some(0) },
            };
            engine.on_outcome(now, outcome, &mut actions);
        }
    }
}

/// 300,000 invented sources a second for five seconds, `probes_each` probes from each; a scanner sends ten probes a second in the middle of it.
/// Gives the number of the probe that got it blocked.
fn flood(probes_each: u32) -> Option<u32> {
    const SCANNER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let mut engine = Engine::new(Policy::from_config(&Config::default()), [11, 12]);
    let mut dice = Dice(4711);
    let mut reports = Vec::new();
    let mut sent = 0;
    let mut invented = Ipv4Addr::LOCALHOST;
    for n in 0..1_500_000u32 {
        let now = Moment::from_millis(u64::from(n) / 300);
        if n % probes_each == 0 {
            invented = Ipv4Addr::from(0x0b00_0000 + dice.below(0x6000_0000) as u32);
        }
        feed(&mut engine, now, &syn(invented.into(), 1 + (n % probes_each) as u16), &mut reports);
        // From the second second on.
        if n >= 300_000 && n % 30_000 == 0 {
            sent += 1;
            feed(&mut engine, now, &syn(SCANNER, 100 + sent as u16), &mut reports);
            if engine.blocked(Subject::Host(Source::of(SCANNER, 64))).is_some() {
                assert!(engine.status().sources <= engine.status().capacity);
                return Some(sent);
            }
        }
    }
    None
}

#[test]
fn a_scanner_within_a_flood_of_invented_sources_is_blocked_at_its_third_port() {
    assert_eq!(flood(1), Some(3));
}

#[test]
fn a_scanner_is_blocked_even_if_every_invented_source_probes_twice() {
    assert_eq!(flood(2), Some(3));
}

#[test]
fn a_slow_scanner_that_began_before_the_flood_is_blocked_within_it() {
    let scanner = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let mut engine = Engine::new(Policy::from_config(&Config::default()), [11, 12]);
    let mut reports = Vec::new();
    feed(&mut engine, Moment::from_millis(0), &syn(scanner, 1), &mut reports);
    for n in 0..600_000u32 {
        let invented = Ipv4Addr::from(0x0b00_0000 + n.wrapping_mul(0x9e37_79b1) % 0x6000_0000);
        feed(&mut engine, Moment::from_millis(10_000 + u64::from(n) / 300), &syn(invented.into(), 443), &mut reports);
    }
    feed(&mut engine, Moment::from_millis(250_000), &syn(scanner, 2), &mut reports);
    feed(&mut engine, Moment::from_millis(500_000), &syn(scanner, 3), &mut reports);
    assert!(engine.blocked(Subject::Host(Source::of(scanner, 64))).is_some());
}

/// What an ordinary server sees in a month: passers-by who knock once or twice, worms that try one port again and again, a few real scans a day.
#[test]
fn thirty_days_of_background_noise_give_a_bounded_journal_and_leave_nothing_behind() {
    const DAY: u64 = 86_400_000;
    let mut engine = Engine::new(Policy::from_config(&Config::default()), [21, 22]);
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
        let at = Moment::from_millis(now);
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
    // A scan is told, its block, and its end.
    assert_eq!(reports.len() as u64, scans * 3);
    assert!(most < 1000, "{most}");
    let mut actions = Vec::new();
    while let Some(due) = engine.next_timer() {
        engine.on_timer(due, &mut actions);
    }
    let status = engine.status();
    assert_eq!((status.sources, status.blocked, status.ordered, status.evicted), (0, 0, 0, 0));
}

#[test]
fn a_flood_that_passes_the_trigger_is_not_told_line_by_line() {
    let policy = Policy { scan_trigger: 0, ..Policy::from_config(&Config::default()) };
    let mut engine = Engine::new(policy, [1, 2]);
    let mut reports = Vec::new();
    for n in 0..200_000u32 {
        let now = Moment::from_millis(u64::from(n) / 100);
        feed(&mut engine, now, &syn(Ipv4Addr::from(0x0b00_0000 + n).into(), 22), &mut reports);
    }
    // 620 blocked and told twice, 620 told.
    assert!(reports.len() < 1900, "{}", reports.len());
    assert!(engine.status().reports_held_back > 190_000);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Probe { from: usize, port: u8, transport: u8, scan: usize, imitable: bool },
    Block { whom: usize, seconds: Option<u16> },
    Unblock { whom: usize },
    Answer { which: usize, ok: bool, packets: Option<u8> },
    NeverBlock { lists: u8 },
    Reconfigure { variant: u8 },
    Timers,
    Pass { millis: u32 },
    Jump { to: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..12, 0u8..8, 0u8..4, 0usize..12, any::<bool>()).prop_map(|(from, port, transport, scan, imitable)| Step::Probe { from, port, transport, scan, imitable }),
        2 => (0usize..16, prop::option::of(0u16..300)).prop_map(|(whom, seconds)| Step::Block { whom, seconds }),
        2 => (0usize..16).prop_map(|whom| Step::Unblock { whom }),
        12 => (0usize..1000, prop::bool::weighted(0.8), prop::option::weighted(0.8, 0u8..50)).prop_map(|(which, ok, packets)| Step::Answer { which, ok, packets }),
        1 => (0u8..16).prop_map(|lists| Step::NeverBlock { lists }),
        1 => (0u8..64).prop_map(|variant| Step::Reconfigure { variant }),
        3 => Just(Step::Timers),
        4 => (0u32..200_000).prop_map(|millis| Step::Pass { millis }),
        1 => any::<u64>().prop_map(|to| Step::Jump { to }),
        1 => Just(Step::Jump { to: u64::MAX }),
    ]
}

fn address(n: usize) -> IpAddr {
    match n % 12 {
        n @ 0..5 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, n as u8)),
        5 => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)),
        6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 6)),
        7 => IpAddr::V6(Ipv4Addr::new(203, 0, 113, 1).to_ipv6_mapped()),
        n => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, n as u16 / 2, 0, 0, 0, n as u16)),
    }
}

fn subject(n: usize) -> Subject {
    match n {
        12 => Subject::Network("203.0.113.0/29".parse().unwrap()),
        13 => Subject::Network("0.0.0.0/0".parse().unwrap()),
        14 => Subject::Network("2001:db8::/32".parse().unwrap()),
        15 => Subject::Network("198.51.100.9/24".parse().unwrap()),
        n => Subject::Host(Source::of(address(n), 128)),
    }
}

/// Four small lists, any of them together.
fn list(bits: u8) -> AllowList {
    let networks = ["203.0.113.2/32", "203.0.113.3/32", "2001:db8:0:4::9/128", "198.51.100.0/25"];
    networks.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, network)| network.parse::<IpNet>().unwrap()).collect()
}

fn policy(variant: u8) -> Policy {
    let mut policy = Policy::from_config(&Config::default());
    // This address is on the list whatever else changes.
    policy.allow = list(variant & 1).networks().iter().copied().chain(["203.0.113.4/32".parse().unwrap()]).collect();
    policy.capacity = 9;
    policy.total = 6;
    policy.scan_trigger = u16::from(variant >> 1 & 1) * 2;
    policy.udp = if variant >> 2 & 1 == 1 { ProtocolAction::Block } else { ProtocolAction::Log };
    policy.mode = if variant >> 3 & 7 == 7 { Mode::Observe } else { Mode::Enforce };
    policy.ipv6_prefix = if variant >> 3 & 7 == 6 { 128 } else { 64 };
    policy.unproven.per_minute = 20;
    policy
}

/// The engine, and beside it what everybody must be able to rely on.
struct World {
    engine: Engine,
    now: u64,
    latest: u64,
    pending: Vec<Action>,
    told_blocked: BTreeSet<Subject>,
    never_block: u8,
    variant: u8,
    log: Vec<Action>,
}

impl World {
    fn new() -> Self {
        let engine = Engine::new(policy(0), [5, 6]);
        Self { engine, now: 0, latest: 0, pending: Vec::new(), told_blocked: BTreeSet::new(), never_block: 0, variant: 0, log: Vec::new() }
    }

    fn must_not_be_blocked(&self, subject: Subject) -> bool {
        let policy = policy(self.variant);
        let network = subject.network(policy.ipv6_prefix);
        policy.allow.overlaps(&network) || list(self.never_block).overlaps(&network) || AllowList::always().overlaps(&network)
    }

    fn check(&mut self, actions: Vec<Action>) {
        for action in &actions {
            match action {
                Action::Block { subject, renew, .. } => {
                    assert!(!self.must_not_be_blocked(*subject), "{action:?}");
                    assert_eq!(*renew, self.told_blocked.contains(subject), "{action:?}");
                    self.order(*subject, action);
                }
                Action::Unblock { subject } | Action::Count { subject } => self.order(*subject, action),
                Action::Report(Report::Blocked { subject, renewed, .. }) => assert_ne!(self.told_blocked.insert(*subject), *renewed, "{action:?}"),
                Action::Report(Report::Unblocked { subject, ending }) => {
                    assert!(self.told_blocked.remove(subject), "{action:?}");
                    assert!(*ending != Ending::Expired || self.now > 0);
                }
                Action::Report(Report::Scan { reason, .. }) => assert!(reason.to_string().len() <= 127, "{reason}"),
                Action::Report(_) => {}
            }
        }
        self.log.extend(actions);
        let status = self.engine.status();
        assert_eq!(status.blocked, self.told_blocked.len());
        assert_eq!(self.engine.blocks().map(|view| view.subject).collect::<BTreeSet<_>>(), self.told_blocked);
        assert!(status.sources <= status.capacity && status.capacity <= 9);
        assert!(status.ordered <= 6 + 6 /* networks that stand for prefixes of another length */, "{status:?}");
    }

    /// At most one order is in flight for a subject.
    fn order(&mut self, subject: Subject, action: &Action) {
        let in_flight = |pending: &Action| matches!(pending, Action::Block { subject: s, .. } | Action::Unblock { subject: s } | Action::Count { subject: s } if *s == subject);
        assert!(!self.pending.iter().any(in_flight), "{action:?} while {:?}", self.pending);
        self.pending.push(action.clone());
    }

    fn run(&mut self, step: Step) {
        let mut actions = Vec::new();
        let now = Moment::from_millis(self.now);
        self.latest = self.latest.max(self.now);
        match step {
            Step::Probe { from, port, transport, scan, imitable } => {
                let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip][usize::from(transport)];
                let port = Port { transport, number: u16::from(port) };
                let probe = Probe { port, scan: ScanKind::ALL[scan], imitable, ..syn(address(from), 0) };
                self.engine.on_probe(now, &probe, &mut actions);
            }
            Step::Block { whom, seconds } => {
                let timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
                if let Err(refusal) = self.engine.block(now, subject(whom), timeout, "because", &mut actions) {
                    assert!(actions.is_empty() && !refusal.to_string().is_empty());
                }
            }
            Step::Unblock { whom } => {
                let _ = self.engine.unblock(now, subject(whom), &mut actions);
            }
            Step::Answer { which, ok, packets } => {
                if !self.pending.is_empty() {
                    let result = if ok { Ok(()) } else { Err("no".to_owned()) };
                    let outcome = match self.pending.remove(which % self.pending.len()) {
                        Action::Block { subject, .. } => Outcome::Blocked { subject, result },
                        Action::Unblock { subject } => Outcome::Unblocked { subject, result },
                        Action::Count { subject } => Outcome::Counted { subject, packets: packets.map(u64::from) },
                        Action::Report(_) => unreachable!(),
                    };
                    self.engine.on_outcome(now, outcome, &mut actions);
                }
            }
            Step::NeverBlock { lists } => {
                self.never_block = lists;
                self.engine.set_never_block(now, list(lists), &mut actions);
            }
            Step::Reconfigure { variant } => {
                self.variant = variant;
                self.engine.reconfigure(now, policy(variant), &mut actions);
            }
            Step::Timers => {
                for _ in 0..100 {
                    self.engine.on_timer(now, &mut actions);
                }
                // Nothing that is due is left, and no timer comes back for ever, but at the end of all time.
                let left = self.engine.next_timer().is_some_and(|next| next.millis() <= self.now);
                assert!(!left || self.latest == u64::MAX);
            }
            Step::Pass { millis } => self.now = self.now.saturating_add(millis.into()),
            // Back too: the engine must bear it.
            Step::Jump { to } => self.now = to,
        }
        self.check(actions);
    }

    /// Whatever happened: when everything is answered and time goes on, nothing stays blocked that must not be, and nothing stays in flight.
    fn finish(&mut self) {
        // The engine's time is the latest that it was told.
        self.run(Step::Jump { to: self.latest });
        for _ in 0..4 {
            self.run(Step::Timers);
            while !self.pending.is_empty() {
                self.run(Step::Answer { which: 0, ok: true, packets: Some(0) });
            }
            self.run(Step::Pass { millis: 20_000 });
        }
        for subject in self.told_blocked.clone() {
            assert!(!self.must_not_be_blocked(subject), "{subject:?}");
        }
        self.run(Step::Pass { millis: 2_000_000_000 });
        self.run(Step::Timers);
        assert!(self.pending.is_empty(), "{:?}", self.pending);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// No sequence of packets, commands, answers, reloads and clocks blocks what must not be blocked, puts two orders in flight for a subject,
    /// tells an end of what was not told to have begun, or makes the ledger exceed its capacity.
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

    /// An address on the allow list is never blocked, whoever sends what, for all networks that could cover it.
    #[test]
    fn an_allowed_source_is_never_blocked(allowed: u32, bits in 0u8..=32, steps in proptest::collection::vec((any::<u32>(), 0u16..6, 0u64..5000), 1..200)) {
        let network = IpNet::new(Ipv4Addr::from(allowed).into(), bits).unwrap();
        let policy = Policy { allow: [network].into_iter().collect(), scan_trigger: 1, ..Policy::from_config(&Config::default()) };
        let mut engine = Engine::new(Policy { capacity: 300, ..policy }, [3, 4]);
        let mut reports = Vec::new();
        let mut now = 0;
        for (host, port, later) in steps {
            now += later;
            // Near the allowed network, inside as often as outside.
            let source = Ipv4Addr::from(allowed ^ (host & 0x3) ^ (1u32.checked_shl(u32::from(32 - bits)).unwrap_or(0) * (host >> 31)));
            feed(&mut engine, Moment::from_millis(now), &syn(source.into(), port), &mut reports);
        }
        for view in engine.blocks() {
            prop_assert!(!network.contains(&view.subject.network(64)));
        }
    }

    /// What is adopted is shown, and ends when the kernel's timer does.
    #[test]
    fn adopted_blocks_end_in_time(elements in proptest::collection::hash_map(0u8..=255, prop::option::of(1u64..10_000), 0..40)) {
        let mut engine = Engine::new(Policy::from_config(&Config::default()), [3, 4]);
        let host = |n: u8| Subject::Host(Source::V4(Ipv4Addr::new(203, 0, 113, n)));
        let found: Vec<Adopted> = elements.iter().map(|(n, seconds)| {
            let remaining = seconds.map(Duration::from_secs);
            Adopted { subject: host(*n), timeout: remaining.map(|time| time * 2), remaining, packets: 1, reason: Reason::Foreign(String::new()) }
        }).collect();
        let (mut actions, mut reports) = (Vec::new(), Vec::new());
        engine.adopt(Moment::from_millis(5), found, &mut actions);
        prop_assert!(actions.is_empty());
        prop_assert_eq!(engine.status().blocked, elements.len());
        let mut ended: HashMap<Subject, u64> = HashMap::new();
        while let Some(due) = engine.next_timer() {
            engine.on_timer(due, &mut actions);
            carry_out(&mut engine, due, std::mem::take(&mut actions), &mut reports);
            for report in reports.drain(..) {
                if let Report::Unblocked { subject, ending: Ending::Expired } = report {
                    ended.insert(subject, due.millis());
                }
            }
        }
        let expected: HashMap<Subject, u64> = elements.iter().filter_map(|(n, seconds)| Some((host(*n), (*seconds)? * 1000 + 5))).collect();
        prop_assert_eq!(ended, expected);
    }
}
