//! Any history: bytes are read as probes, commands, answers and time, eight for each step. Nothing that must not be blocked is, no two orders are
//! in flight for one subject, and no end is told of what was not told to have begun.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portsentry::config::Config;
use portsentry::engine::{Action, AllowList, Engine, Moment, Outcome, Policy, Report, Source, Subject};
use portsentry::probe::{Port, Probe, ScanKind, Transport};

fn host(n: u8) -> IpAddr {
    if n & 0x80 == 0 { IpAddr::V4(Ipv4Addr::new(203, 0, 113, n % 8)) } else { IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(n % 8) << 62 | 1).into()) }
}

fuzz_target!(|bytes: &[u8]| {
    // The first of the eight hosts of each family is on the list.
    let allow: AllowList = [host(0), host(0x80)].into_iter().map(Into::into).collect();
    let policy = Policy { capacity: 9, total: 6, allow: allow.clone(), ..Policy::from_config(&Config::default()) };
    let mut engine = Engine::new(policy, [1, 2]);
    let mut flying: BTreeMap<Subject, Action> = BTreeMap::new();
    let mut told: BTreeSet<Subject> = BTreeSet::new();
    let (mut now, mut own) = (0u64, AllowList::default());
    for step in bytes.chunks_exact(8) {
        let &[kind, who, port, what, a, b, c, d] = step else { return };
        now = now.saturating_add(u64::from(u16::from_be_bytes([a, b])) << (c % 16));
        let at = Moment::from_millis(now);
        let subject = Subject::Host(Source::of(host(who), 64));
        let mut actions = Vec::new();
        match kind % 8 {
            0..=2 => {
                let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip][usize::from(what >> 6)];
                let scan = ScanKind::ALL[usize::from(what & 0xf) % ScanKind::ALL.len()];
                let port = Port { transport, number: port.into() };
                let probe = Probe { source: host(who), destination: host(7), port, scan, imitable: d & 1 == 1, ip_options: false };
                engine.on_probe(at, &probe, &mut actions);
            }
            3 => drop(engine.block(at, subject, (d > 0).then(|| Duration::from_secs(d.into())), "fuzz", &mut actions)),
            4 => drop(engine.unblock(at, subject, &mut actions)),
            5 => {
                let result = if d & 3 == 0 { Err("no".to_owned()) } else { Ok(()) };
                let picked = flying.keys().nth(usize::from(who) % flying.len().max(1)).copied();
                if let Some(order) = picked.and_then(|subject| flying.remove(&subject)) {
                    let outcome = match order {
                        Action::Block { subject, .. } => Outcome::Blocked { subject, result },
                        Action::Unblock { subject } => Outcome::Unblocked { subject, result },
                        Action::Count { subject } => Outcome::Counted { subject, packets: (d & 3 != 0).then_some(port.into()) },
                        Action::Report(_) => return,
                    };
                    engine.on_outcome(at, outcome, &mut actions);
                }
            }
            6 => {
                own = [host(who)].into_iter().map(Into::into).collect();
                engine.set_never_block(at, own.clone(), &mut actions);
            }
            _ => engine.on_timer(at, &mut actions),
        }
        for action in actions {
            let subject = match &action {
                Action::Block { subject, .. } => {
                    let network = subject.network(64);
                    assert!(!allow.overlaps(&network) && !own.overlaps(&network));
                    *subject
                }
                Action::Unblock { subject } | Action::Count { subject } => *subject,
                Action::Report(Report::Blocked { subject, renewed, .. }) => {
                    assert_ne!(told.insert(*subject), *renewed);
                    continue;
                }
                Action::Report(Report::Unblocked { subject, .. }) => {
                    assert!(told.remove(subject));
                    continue;
                }
                Action::Report(_) => continue,
            };
            assert!(flying.insert(subject, action).is_none());
        }
        let status = engine.status();
        assert!(status.sources <= status.capacity && status.ordered <= 6 && status.blocked == told.len());
    }
});
