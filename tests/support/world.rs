//! A small world for the engine, any sequence of steps in it, and what must hold after each: shared by the property tests and the fuzz target.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test may stop where it fails")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{Config, Mode, ProtocolAction};
use portsentry::engine::{Action, AllowList, Ending, Engine, Moment, Outcome, Policy, Report, Source, Subject};
use portsentry::probe::{Port, Probe, ScanKind, Transport};

/// A SYN to a port.
pub fn syn(source: IpAddr, number: u16) -> Probe {
    let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Probe { source, destination, port: Port { transport: Transport::Tcp, number }, scan: ScanKind::Syn, imitable: false, ip_options: false }
}

/// One step of a random history.
#[derive(Debug, Clone)]
pub enum Step {
    Probe { from: usize, port: u8, transport: u8, scan: usize, imitable: bool, held: bool },
    Block { whom: usize, seconds: Option<u16> },
    Unblock { whom: usize },
    Removed { whom: usize },
    Answer { which: usize, ok: bool, packets: Option<u8> },
    NeverBlock { lists: u8 },
    Reconfigure { variant: u8 },
    Timers,
    Pass { millis: u32 },
    Jump { to: u64 },
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
pub struct World {
    engine: Engine,
    now: u64,
    latest: u64,
    pending: Vec<Action>,
    told_blocked: BTreeSet<Subject>,
    /// Blocks that the kernel refused: the hold may stand for them.
    refused: BTreeSet<Subject>,
    never_block: u8,
    variant: u8,
    pub log: Vec<Action>,
}

impl World {
    pub fn new() -> Self {
        let engine = Engine::new(policy(0), [5, 6]);
        Self {
            engine,
            now: 0,
            latest: 0,
            pending: Vec::new(),
            told_blocked: BTreeSet::new(),
            refused: BTreeSet::new(),
            never_block: 0,
            variant: 0,
            log: Vec::new(),
        }
    }

    fn must_not_be_blocked(&self, subject: Subject) -> bool {
        let policy = policy(self.variant);
        let network = subject.network(policy.ipv6_prefix);
        policy.allow.overlaps(&network) || list(self.never_block).overlaps(&network) || AllowList::always().overlaps(&network)
    }

    /// A source that the rules hold is released at once, unless it is blocked, or a block is on its way or was refused.
    fn check_hold(&self, address: IpAddr, actions: &[Action]) {
        let source = Source::of(address.to_canonical(), policy(self.variant).ipv6_prefix);
        let subject = Subject::Host(source);
        let is_ours = |action: &Action| matches!(action, Action::Block { subject: s, .. } | Action::Unblock { subject: s } | Action::Count { subject: s } if *s == subject);
        let is_released = actions.iter().any(|action| matches!(action, Action::Release { source: s, forget: None } if *s == source));
        let under_way = self.pending.iter().chain(actions).any(is_ours);
        if !under_way {
            let is_blocked = self.told_blocked.contains(&subject);
            assert!(is_released || is_blocked || self.refused.contains(&subject), "{source:?} stays held: {actions:?}");
            assert!(!(is_released && is_blocked), "{source:?} is blocked and released: {actions:?}");
        }
    }

    fn check(&mut self, actions: Vec<Action>) {
        for action in &actions {
            match action {
                Action::Block { subject, renew, .. } => {
                    assert!(!self.must_not_be_blocked(*subject), "{action:?}");
                    assert_eq!(*renew, self.told_blocked.contains(subject), "{action:?}");
                    self.refused.remove(subject);
                    self.order(*subject, action);
                }
                Action::Release { .. } => {}
                Action::Unblock { subject } | Action::Count { subject } => self.order(*subject, action),
                Action::Report(Report::Blocked { subject, renewed, .. }) => assert_ne!(self.told_blocked.insert(*subject), *renewed, "{action:?}"),
                Action::Report(Report::Unblocked { subject, ending }) => {
                    assert!(self.told_blocked.remove(subject), "{action:?}");
                    // The engine knows the latest time that it was told, wherever the clock stands now.
                    assert!(*ending != Ending::Expired || self.latest > 0);
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

    pub fn run(&mut self, step: Step) {
        let mut actions = Vec::new();
        let now = Moment::from_millis(self.now);
        self.latest = self.latest.max(self.now);
        match step {
            Step::Probe { from, port, transport, scan, imitable, held } => {
                let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip][usize::from(transport)];
                let port = Port { transport, number: u16::from(port) };
                let probe = Probe { port, scan: ScanKind::ALL[scan], imitable, ..syn(address(from), 0) };
                if held {
                    self.engine.on_held(now, &probe, &mut actions);
                    self.check_hold(address(from), &actions);
                } else {
                    self.engine.on_probe(now, &probe, &mut actions);
                }
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
            Step::Removed { whom } => {
                self.engine.removed_by_hand(now, subject(whom), &mut actions);
            }
            Step::Answer { which, ok, packets } => {
                if !self.pending.is_empty() {
                    let result = if ok { Ok(()) } else { Err("no".to_owned()) };
                    let outcome = match self.pending.remove(which % self.pending.len()) {
                        Action::Block { subject, .. } => Outcome::Blocked { subject, result },
                        Action::Unblock { subject } => Outcome::Unblocked { subject, result },
                        Action::Count { subject } => Outcome::Counted { subject, packets: packets.map(u64::from) },
                        Action::Report(_) | Action::Release { .. } => unreachable!(),
                    };
                    if let Outcome::Blocked { subject, result: Err(_) } = &outcome {
                        self.refused.insert(*subject);
                    }
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
    pub fn finish(&mut self) {
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
