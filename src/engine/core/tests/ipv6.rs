//! An IPv6 address first, its prefix when several of its addresses scan.

use proptest::prelude::*;

use super::*;
use crate::config::Ipv6Accounts;
use crate::engine::ConnectionVerdict;

/// The addresses' prefix.
const PREFIX: &str = "2001:db8::/64";

fn address(n: u16) -> String {
    format!("2001:db8::{n:x}")
}

fn slowing(policy: &mut Policy) {
    policy.unproven.action = UnprovenAction::Slow;
}

impl Bench {
    fn slowed(&mut self) -> Vec<String> {
        let slowed = self.orders.drain(..).filter_map(|order| match order {
            Action::Slow { source, .. } => Some(source.to_string()),
            _ => None,
        });
        slowed.collect()
    }

    /// A scanner that takes another address for each port.
    fn rotate(&mut self, ports: impl IntoIterator<Item = u16>) {
        ports.into_iter().for_each(|port| self.syn(&address(port), [port]));
    }

    /// A probe again, to a silent port.
    fn retransmit(&mut self, source: &str, port: u16) {
        self.rule_event(source, [port], |engine, now, probe, actions| {
            engine.on_retransmission(now, probe, false, actions)
        });
    }
}

// P3
#[test]
fn a_forged_address_is_slowed_alone_whatever_number_of_ports() {
    for trigger in [0, 1, 2, 3, 10, 100] {
        let mut bench = Bench::new(|policy| {
            slowing(policy);
            policy.scan_trigger = trigger;
        });
        bench.syn(&address(1), 1..=1000);
        assert_eq!(bench.slowed(), [address(1)], "{trigger}");
        assert!(bench.engine.slowed_source("2001:db8::2".parse().unwrap()).is_none());
        // That it scanned, and that it is slowed.
        assert_eq!(bench.report_lines().len(), 2);
    }
}

#[test]
fn a_scanner_with_an_address_for_each_port_is_slowed_at_the_port_as_ever() {
    let mut bench = Bench::new(slowing);
    bench.rotate(1..=2);
    assert_eq!(bench.slowed(), [""; 0]);
    bench.rotate(3..=500);
    assert_eq!(bench.slowed(), [PREFIX]);
    assert_eq!(
        bench.report_lines(),
        [
            "scan 2001:db8:: syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3 slowed until its address is proven",
            "slowed 2001:db8::/64 60s for tcp/3: syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3"
        ]
    );
    let (view, _) = bench.engine.slowed_source("2001:db8::9999".parse().unwrap()).unwrap();
    assert_eq!(view.source.to_string(), PREFIX);
    // The rules do not renew it: the engine does, once a second.
    bench.wait(SECOND * 2);
    bench.rotate(501..=600);
    assert_eq!(bench.slowed(), [PREFIX]);
}

#[test]
fn a_scanner_with_several_ports_for_each_address_is_found_too() {
    let mut bench = Bench::new(|policy| {
        slowing(policy);
        policy.scan_trigger = 100;
    });
    for n in 0..3 {
        bench.syn(&address(n), n * 40 + 1..=n * 40 + 40);
    }
    assert_eq!(bench.slowed(), [PREFIX]);
}

#[test]
fn a_port_that_all_addresses_probe_hides_no_scanner() {
    let mut bench = Bench::new(slowing);
    for n in 1..=3 {
        bench.syn(&address(n), [7, 100 + n]);
    }
    assert_eq!(bench.slowed(), [PREFIX]);
    // Nor do datagrams, which are only logged.
    let mut bench = Bench::new(slowing);
    for n in 1..=3 {
        bench.probe(&address(n), &format!("udp/{n}"), ScanKind::Udp, false);
        bench.syn(&address(n), [100 + n]);
    }
    assert_eq!(bench.slowed(), [PREFIX]);
}

#[test]
fn with_action_block_the_prefix_of_such_a_scanner_is_blocked() {
    let mut bench = Bench::new(|_| {});
    bench.rotate(1..=3);
    assert_eq!(bench.blocked(), [PREFIX]);
    let verdict = bench.engine.connection_verdict("2001:db8::77".parse().unwrap());
    assert_eq!(verdict, ConnectionVerdict::Blocked);
    // Packets that were on their way order no further block.
    bench.rotate(4..=9);
    bench.syn(&address(4), 4..=20);
    assert_eq!(bench.blocked(), [PREFIX]);
    assert!(bench.engine.status().already_blocked > 6);
}

// P3
#[test]
fn three_hosts_with_one_wrong_port_are_not_even_slowed_if_it_is_the_same() {
    let mut bench = Bench::new(slowing);
    (1..=3).for_each(|n| bench.syn(&address(n), [143]));
    assert_eq!((bench.slowed(), bench.report_lines().len()), (vec![], 0));
}

#[test]
fn a_prefix_is_proven_by_the_retransmissions_of_several_addresses() {
    let mut bench = Bench::new(slowing);
    bench.rotate(1..=3);
    for port in 4..=19 {
        bench.syn(&address(port), [port]);
        assert_eq!(bench.blocked(), [""; 0]);
        bench.retransmit(&address(port), port);
    }
    assert_eq!(bench.blocked(), [PREFIX]);
    let prefix = Source::from(PREFIX.parse::<ipnet::IpNet>().unwrap());
    assert!(bench.engine.blocked(prefix).unwrap().reason.proven());
    assert_eq!(bench.engine.status().slowed, 0);
}

// P3
#[test]
fn a_scanner_in_a_slowed_prefix_is_blocked_without_its_neighbours() {
    let mut bench = Bench::new(slowing);
    // Three hosts with a wrong port each.
    bench.rotate(1..=3);
    assert_eq!(bench.slowed(), [PREFIX]);
    // The rules handle its probes as those of a slowed source, because of the prefix.
    bench.still(&address(9), 101..=102);
    assert_eq!(bench.slowed(), [""; 0]);
    bench.still(&address(9), 103..=140);
    assert_eq!(bench.slowed(), [address(9)]);
    for port in 101..=140 {
        bench.retransmit(&address(9), port);
    }
    assert_eq!(bench.blocked(), [address(9)]);
}

#[test]
fn handshakes_of_several_addresses_prove_their_prefix() {
    let mut bench = Bench::new(slowing);
    let connect = |bench: &mut Bench, port| {
        bench.probe(&address(port), &format!("tcp/{port}"), ScanKind::Syn, false);
        bench.probe(&address(port), &format!("tcp/{port}"), ScanKind::Connect, false);
    };
    (1..=5).for_each(|port| connect(&mut bench, port));
    assert_eq!((bench.blocked(), bench.slowed()), (vec![], vec![PREFIX.to_owned()]));
    connect(&mut bench, 6);
    assert_eq!(bench.blocked(), [PREFIX]);
}

#[test]
fn an_unblocked_address_is_exempt_from_the_block_of_its_prefix() {
    let mut bench = Bench::new(|_| {});
    bench.rotate(1..=3);
    let target = Source::of("2001:db8::77".parse().unwrap(), 128);
    bench.command(|engine, now, actions| {
        let done = engine.unblock_within(now, target, actions);
        assert_eq!((done.lifted.len(), done.exempted.len()), (0, 1));
    });
    let block = bench.engine.blocks().next().unwrap();
    assert_eq!(
        (block.source.to_string().as_str(), block.exempt),
        (PREFIX, &[target.network()][..])
    );
}

// P1
#[test]
fn a_prefix_with_a_never_block_address_is_reported_only() {
    let mut bench = Bench::new(|_| {});
    bench.set_never_block(["2001:db8::53/128".parse().unwrap()].into_iter().collect());
    bench.rotate(1..=9);
    assert_eq!((bench.blocked(), bench.orders()), (vec![], 0));
    assert!(bench.report_lines().concat().ends_with("never-block address"));
    // An address in it is blocked as elsewhere.
    bench.syn("2001:db8::bad", 1..=3);
    assert_eq!(bench.blocked(), ["2001:db8::bad"]);
}

#[test]
fn accounts_of_one_length_are_counted_once() {
    let mut bench = Bench::new(|policy| policy.ipv6 = Ipv6Accounts::of_one_length(64));
    bench.rotate(1..=3);
    assert_eq!((bench.engine.status().sources, bench.blocked()), (1, vec![PREFIX.to_owned()]));
}

#[test]
fn a_host_behind_nat64_is_slowed_alone() {
    let mut bench = Bench::new(slowing);
    for n in 1..=9 {
        bench.syn(&format!("64:ff9b::203.0.113.{n}"), [u16::from(n == 5) + 1]);
    }
    assert_eq!(bench.slowed(), [""; 0]);
    bench.syn("64:ff9b::203.0.113.5", 1..=3);
    assert_eq!(bench.slowed(), ["64:ff9b::cb00:7105"]);
}

#[test]
fn evidence_of_a_prefix_outlives_the_daemon() {
    let mut bench = Bench::new(slowing);
    bench.now = 1000;
    bench.rotate(1..=2);
    let evidence = bench.engine.evidence(MonoTime::default(), 100);
    let mut sources: Vec<String> = evidence.iter().map(|one| one.source.to_string()).collect();
    sources.sort();
    assert_eq!(sources, ["2001:db8::/64", "2001:db8::1", "2001:db8::2"]);
    let mut later = Bench::new(slowing);
    later.now = 1000;
    later.engine.recall(later.at(), [], evidence);
    later.rotate([3]);
    assert_eq!(later.slowed(), [PREFIX]);
}

proptest! {
    /// Whatever two addresses of a prefix send, and however much: only they are slowed or blocked.
    // P3
    #[test]
    fn two_addresses_never_pass_for_a_prefix(
        trigger in 0u16..12,
        first in 56u8..=128,
        block: bool,
        udp: bool,
        steps in proptest::collection::vec((0u16..2, 1u16..40, 0usize..4, 0u64..200_000), 1..120),
    ) {
        let mut bench = Bench::new(|policy| {
            policy.scan_trigger = trigger;
            policy.ipv6 = Ipv6Accounts { first, then: 48 };
            if udp {
                policy.udp = crate::config::ProtocolAction::Block;
            }
            if !block {
                slowing(policy);
            }
        });
        for (host, port, kind, later) in steps {
            bench.now += later;
            let source = format!("2001:db8:0:{host:x}00::1");
            let (transport, scan) = [
                ("tcp", ScanKind::Syn),
                ("tcp", ScanKind::Ack),
                ("udp", ScanKind::Udp),
                ("tcp", ScanKind::Connect),
            ][kind];
            bench.probe(&source, &format!("{transport}/{port}"), scan, scan == ScanKind::Ack);
            let now = bench.now;
            let orders = bench.orders.drain(..).filter_map(|order| match order {
                Action::Slow { source, .. } | Action::Block { source, .. } => Some(source),
                _ => None,
            });
            for source in orders {
                prop_assert_eq!(source.prefix_len(), first, "at {}", now);
            }
        }
    }
}
