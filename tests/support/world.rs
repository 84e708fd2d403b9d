//! A small model around the engine, random sequences of steps, and the invariants after each: for
//! the property tests and the fuzz target.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it fails"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{Config, Ipv6Accounts, Mode, ProtocolAction};
use portsentry::engine::{
    Action, AllowList, Ending, Engine, MonoTime, Outcome, Policy, Reason, Report, Source,
};
use portsentry::probe::{Port, Probe, ScanKind, Signature, Transport};

/// A SYN to a port.
pub fn syn(source: IpAddr, number: u16) -> Probe {
    let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Probe {
        source,
        destination,
        port: Port { transport: Transport::Tcp, number },
        scan: ScanKind::Syn,
        ambiguous: false,
        ip_options: false,
        signature: Signature::None,
    }
}

/// One step of a random history.
#[derive(Debug, Clone)]
pub enum Step {
    Probe { from: usize, port: u8, transport: u8, scan: usize, ambiguous: bool, held: bool },
    Block { whom: usize, seconds: Option<u16> },
    Unblock { whom: usize },
    UnblockWithin { whom: usize },
    Removed { whom: usize },
    Answer { which: usize, ok: bool, is_there: bool },
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
        n => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, n as u16 / 3, 0, 0, 0, n as u16)),
    }
}

fn source(n: usize, ipv6_bits: u8) -> Source {
    let network = |text: &str| Source::from(text.parse::<IpNet>().unwrap());
    match n {
        12 => network("203.0.113.0/29"),
        13 => network("0.0.0.0/0"),
        14 => network("2001:db8::/32"),
        15 => network("198.51.100.9/24"),
        n => Source::of(address(n), ipv6_bits),
    }
}

/// Any combination of four small lists.
fn list(bits: u8) -> AllowList {
    let networks = ["203.0.113.2/32", "203.0.113.3/32", "2001:db8:0:3::9/128", "198.51.100.0/25"];
    networks
        .iter()
        .enumerate()
        .filter(|(n, _)| bits >> n & 1 == 1)
        .map(|(_, network)| network.parse::<IpNet>().unwrap())
        .collect()
}

fn policy(variant: u8) -> Policy {
    let mut policy = Policy::from_config(&Config::default());
    // This address is on the list in any case.
    policy.allow = list(variant & 1)
        .networks()
        .iter()
        .copied()
        .chain(["203.0.113.4/32".parse().unwrap()])
        .collect();
    policy.capacity = 9;
    policy.total = 6;
    policy.scan_trigger = u16::from(variant >> 1 & 1) * 2;
    policy.udp = if variant >> 2 & 1 == 1 { ProtocolAction::Block } else { ProtocolAction::Log };
    policy.mode = if variant >> 3 & 7 == 7 { Mode::Observe } else { Mode::Enforce };
    policy.ipv6 = match variant >> 3 & 7 {
        4 => Ipv6Accounts { first: 128, then: 64 },
        6 => Ipv6Accounts::of_one_length(128),
        _ => Ipv6Accounts::of_one_length(64),
    };
    policy.unproven.action = portsentry::config::UnprovenAction::Block;
    policy.unproven.per_minute = 20;
    policy
}

/// The engine, and the expected state beside it.
pub struct World {
    engine: Engine,
    now: u64,
    latest: u64,
    pending: Vec<Action>,
    told_blocked: BTreeSet<Source>,
    /// Blocks that the kernel refused: the source may stay held.
    refused: BTreeSet<Source>,
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

    /// Whether a new block of this must not be ordered.
    fn must_not_be_ordered(&self, source: Source) -> bool {
        let network = source.network();
        self.lists().iter().any(|list| list.overlaps(&network))
    }

    /// Whether a block must end: it lies within a list, or is a scan's and overlaps one. From a
    /// manually blocked network the rules exempt the addresses.
    fn must_end(&self, source: Source, reason: &Reason) -> bool {
        let network = source.network();
        self.lists().iter().any(|list| {
            if reason.scan().is_some() { list.overlaps(&network) } else { list.covers(&network) }
        })
    }

    fn lists(&self) -> [AllowList; 3] {
        [policy(self.variant).allow, list(self.never_block), AllowList::always()]
    }

    /// A held source is released at once, unless it is blocked, or its block is in flight or was
    /// refused.
    fn check_hold(&self, address: IpAddr, actions: &[Action]) {
        let source = Source::of(address, policy(self.variant).ipv6.first);
        let is_ours = |action: &Action| matches!(action, Action::Block { source: s, .. } | Action::Unblock { source: s } | Action::Exempt { source: s, .. } | Action::Check { source: s } if *s == source);
        let is_released = actions.iter().any(
            |action| matches!(action, Action::Release { source: s, forget: None } if *s == source),
        );
        let under_way = self.pending.iter().chain(actions).any(is_ours);
        if !under_way {
            let prefix = policy(self.variant).prefix(address);
            let is_blocked = [Some(source), prefix]
                .iter()
                .flatten()
                .any(|account| self.told_blocked.contains(account));
            assert!(
                is_released || is_blocked || self.refused.contains(&source),
                "{source:?} stays held: {actions:?}"
            );
            assert!(
                !(is_released && is_blocked),
                "{source:?} is blocked and released: {actions:?}"
            );
        }
    }

    fn check(&mut self, actions: Vec<Action>) {
        for action in &actions {
            match action {
                Action::Block { source, renew, .. } => {
                    assert!(!self.must_not_be_ordered(*source), "{action:?}");
                    assert_eq!(*renew, self.told_blocked.contains(source), "{action:?}");
                    self.refused.remove(source);
                    self.order(*source, action);
                }
                Action::Release { .. } | Action::Slow { .. } | Action::Campaign { .. } => {}
                Action::Exempt { source, exempt } => {
                    assert!(
                        exempt.iter().all(|part| source.network().contains(part)),
                        "{action:?}"
                    );
                    self.order(*source, action);
                }
                Action::Unblock { source } | Action::Check { source } => {
                    self.order(*source, action)
                }
                Action::Report(Report::Blocked { source, renewals, .. }) => {
                    assert_ne!(self.told_blocked.insert(*source), *renewals > 0, "{action:?}")
                }
                Action::Report(Report::Unblocked { source, ending }) => {
                    assert!(self.told_blocked.remove(source), "{action:?}");
                    // The engine uses the latest time that it got, even if the clock went back.
                    assert!(*ending != Ending::Expired || self.latest > 0);
                }
                Action::Report(Report::Scan { reason, .. }) => {
                    assert!(reason.to_string().len() <= 127, "{reason}")
                }
                Action::Report(_) => {}
            }
        }
        self.log.extend(actions);
        let status = self.engine.status();
        assert_eq!(status.blocked, self.told_blocked.len());
        assert_eq!(
            self.engine.blocks().map(|view| view.source).collect::<BTreeSet<_>>(),
            self.told_blocked
        );
        assert!(status.sources <= status.capacity && status.capacity <= 9);
        assert!(status.ordered <= 6, "{status:?}");
    }

    /// At most one order is in flight for a source.
    fn order(&mut self, source: Source, action: &Action) {
        let in_flight = |pending: &Action| matches!(pending, Action::Block { source: s, .. } | Action::Unblock { source: s } | Action::Exempt { source: s, .. } | Action::Check { source: s } if *s == source);
        assert!(!self.pending.iter().any(in_flight), "{action:?} while {:?}", self.pending);
        self.pending.push(action.clone());
    }

    pub fn run(&mut self, step: Step) {
        let mut actions = Vec::new();
        let now = MonoTime::from_millis(self.now);
        self.latest = self.latest.max(self.now);
        match step {
            Step::Probe { from, port, transport, scan, ambiguous, held } => {
                let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip]
                    [usize::from(transport)];
                let port = Port { transport, number: u16::from(port) };
                let probe =
                    Probe { port, scan: ScanKind::ALL[scan], ambiguous, ..syn(address(from), 0) };
                if held {
                    self.engine.on_held(now, &probe, &mut actions);
                    self.check_hold(address(from), &actions);
                } else {
                    self.engine.on_probe(now, &probe, &mut actions);
                }
            }
            Step::Block { whom, seconds } => {
                let timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
                if let Err(refusal) = self.engine.block(
                    now,
                    source(whom, policy(self.variant).ipv6.first),
                    timeout,
                    "because",
                    &mut actions,
                ) {
                    assert!(actions.is_empty() && !refusal.to_string().is_empty());
                }
            }
            Step::UnblockWithin { whom } => {
                let target = source(whom, 128);
                let done = self.engine.unblock_within(now, target, &mut actions);
                assert!(
                    done.exempted.iter().all(|around| around.contains(target))
                        && done.lifted.iter().all(|lifted| !done.exempted.contains(lifted))
                );
            }
            Step::Unblock { whom } => {
                let _ = self.engine.unblock(
                    now,
                    source(whom, policy(self.variant).ipv6.first),
                    &mut actions,
                );
            }
            Step::Removed { whom } => {
                self.engine.element_removed(
                    now,
                    source(whom, policy(self.variant).ipv6.first),
                    &mut actions,
                );
            }
            Step::Answer { which, ok, is_there } => {
                if !self.pending.is_empty() {
                    let result = if ok { Ok(()) } else { Err("no".to_owned()) };
                    let outcome = match self.pending.remove(which % self.pending.len()) {
                        Action::Block { source, .. } => Outcome::Blocked { source, result },
                        Action::Unblock { source } => Outcome::Unblocked { source, result },
                        Action::Exempt { source, .. } => Outcome::Exempted { source, result },
                        Action::Check { source } => Outcome::Checked { source, is_there },
                        Action::Report(_)
                        | Action::Release { .. }
                        | Action::Slow { .. }
                        | Action::Campaign { .. } => {
                            unreachable!()
                        }
                    };
                    if let Outcome::Blocked { source, result: Err(_) } = &outcome {
                        self.refused.insert(*source);
                    }
                    self.engine.on_outcome(now, outcome, &mut actions);
                }
            }
            Step::NeverBlock { lists } => {
                self.never_block = lists;
                self.engine.set_never_block(now, list(lists));
            }
            Step::Reconfigure { variant } => {
                self.variant = variant;
                self.engine.reconfigure(now, policy(variant));
            }
            Step::Timers => {
                for _ in 0..100 {
                    self.engine.on_timer(now, &mut actions);
                }
                // No due work is left, and timers end, except at the end of all time.
                let left = self.engine.next_timer().is_some_and(|next| next.millis() <= self.now);
                assert!(!left || self.latest == u64::MAX);
            }
            Step::Pass { millis } => self.now = self.now.saturating_add(millis.into()),
            // Backwards too: the engine must cope.
            Step::Jump { to } => self.now = to,
        }
        self.check(actions);
    }

    /// When every order is answered and time goes on, no address stays blocked that must not be,
    /// and no order stays in flight.
    pub fn finish(&mut self) {
        // The engine's time is the latest that it got.
        self.run(Step::Jump { to: self.latest });
        for _ in 0..4 {
            self.run(Step::Timers);
            while !self.pending.is_empty() {
                self.run(Step::Answer { which: 0, ok: true, is_there: true });
            }
            self.run(Step::Pass { millis: 20_000 });
        }
        for view in self.engine.blocks() {
            assert!(!self.must_end(view.source, view.reason), "{view:?}");
        }
        self.run(Step::Pass { millis: 2_000_000_000 });
        self.run(Step::Timers);
        assert!(self.pending.is_empty(), "{:?}", self.pending);
    }
}
