//! Probes.

use ipnet::IpNet;

use super::*;
use crate::config::{Mode, ProtocolAction, UnprovenAction};
use crate::engine::{ConnectionVerdict, Reason, Refusal, Seen};

// P7, D15
#[test]
fn block_is_reported_after_the_kernel_acknowledged_it() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(SCANNER, [1, 2]);
    assert!(bench.report_lines().is_empty());
    bench.now = 200;
    bench.syn(SCANNER, [3, 4, 5]);
    assert_eq!(
        bench.report_lines(),
        ["scan 203.0.113.9 syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3 -"]
    );
    assert_eq!(bench.orders(), 1);
    assert!(bench.blocked().is_empty());
    bench.answer(Outcome::Blocked { source: host(SCANNER), result: Ok(()) });
    assert_eq!(bench.report_lines(), ["blocked 203.0.113.9 60s"]);
    assert_eq!(bench.blocked(), [SCANNER]);
    assert_eq!(bench.engine.status().already_blocked, 2);
}

#[test]
fn xmas_scan_over_ipv6_is_blocked_as_a_prefix() {
    let mut bench = Bench::new(|_| {});
    for (n, port) in (1..=9).zip(1..) {
        bench.probe(&format!("2001:db8::{n}"), &format!("tcp/{port}"), ScanKind::Xmas, false);
    }
    assert_eq!(bench.blocked(), ["2001:db8::/64"]);
    assert_eq!(bench.orders(), 1);
}

#[test]
fn trigger_zero_blocks_at_the_first_plain_port() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    bench.probe(SCANNER, "tcp/80", ScanKind::Ack, true);
    assert!(bench.blocked().is_empty());
    bench.syn("203.0.113.10", [22]);
    assert_eq!(bench.blocked(), ["203.0.113.10"]);
}

// D6
#[test]
fn repeats_of_two_ports_are_no_scan() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..500 {
        bench.now += 900;
        bench.syn(SCANNER, [873, 874]);
    }
    assert!(bench.report_lines().is_empty());
}

#[test]
fn out_of_state_acks_to_six_ports_are_a_scan() {
    let mut bench = Bench::new(|_| {});
    for port in 1..=5 {
        bench.probe(SCANNER, &format!("tcp/{port}"), ScanKind::Ack, true);
    }
    assert!(bench.report_lines().is_empty());
    bench.probe(SCANNER, "tcp/6", ScanKind::Ack, true);
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn udp_is_reported_once_per_window_and_blocks_nothing() {
    let mut bench = Bench::new(|_| {});
    for port in 1..=20 {
        bench.probe(SCANNER, &format!("udp/{port}"), ScanKind::Udp, false);
    }
    bench.syn(SCANNER, [1, 2]);
    assert_eq!(
        bench.report_lines(),
        ["scan 203.0.113.9 udp scan: 3 ports in 0.0s: udp/1 udp/2 udp/3 udp.action is log"]
    );
    bench.syn(SCANNER, [3]);
    assert_eq!(bench.blocked(), [SCANNER]);
    let mut bench = Bench::new(|policy| policy.udp = ProtocolAction::Block);
    for port in 1..=3 {
        bench.probe(SCANNER, &format!("udp/{port}"), ScanKind::Udp, false);
    }
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn observe_mode_reports_and_orders_nothing() {
    let mut bench = Bench::new(|policy| policy.mode = Mode::Observe);
    bench.syn(SCANNER, 1..100);
    assert_eq!(
        bench.report_lines(),
        [
            "scan 203.0.113.9 syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3 observe mode, it would have been blocked"
        ]
    );
    assert_eq!(bench.orders(), 0);
    bench.command(|engine, now, actions| {
        assert_eq!(engine.block(now, host(SCANNER), None, "", actions), Err(Refusal::Observe))
    });
}

#[test]
fn never_block_address_is_reported_and_not_blocked() {
    let mut bench = Bench::new(|policy| {
        policy.allow = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
        policy.ipv6 = crate::config::Ipv6Accounts::of_one_length(64);
    });
    let own: AllowList = ["2001:db8::1/128".parse().unwrap()].into_iter().collect();
    bench.set_never_block(own);
    bench.syn(SCANNER, 1..100);
    bench.syn("2001:db8::bad", 1..100);
    bench.syn("fe80::1", 1..100);
    assert_eq!(
        bench.report_lines().iter().filter(|line| line.ends_with("never-block address")).count(),
        3
    );
    assert_eq!(bench.orders(), 0);
    bench.command(|engine, now, actions| {
        let refusal = engine.block(now, host("2001:db8::7"), None, "", actions).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "block 2001:db8::/64: it overlaps 2001:db8::1/128, which is never blocked (never_block)"
        );
        let all = Source::from("0.0.0.0/0".parse::<IpNet>().unwrap());
        assert!(engine.block(now, all, None, "", actions).is_err());
    });
}

#[test]
fn handshakes_are_reported_as_proof_without_a_block() {
    let cases: [fn(&mut Policy); 4] = [
        |policy| policy.allow = ["203.0.113.0/24".parse().unwrap()].into_iter().collect(),
        |policy| policy.tcp = ProtocolAction::Log,
        |policy| policy.tcp = ProtocolAction::Command,
        |policy| policy.mode = Mode::Observe,
    ];
    for case in cases {
        for (scan, expected) in [(ScanKind::Connect, true), (ScanKind::Syn, false)] {
            let mut bench = Bench::new(case);
            for port in 1..=3 {
                bench.probe(SCANNER, &format!("tcp/{port}"), scan, false);
            }
            let [Report::Scan { reason: Reason::Scan { proven, .. }, not_blocked: Some(_), .. }] =
                &bench.reports[..]
            else {
                panic!("{:?}", bench.reports);
            };
            assert_eq!(*proven, expected, "{:?}", bench.reports);
        }
    }
}

#[test]
fn proven_sources_are_blocked_longer_each_time() {
    let mut bench = Bench::new(|_| {});
    for hours in [1, 4, 16] {
        for port in 1..=3 {
            bench.probe(SCANNER, &format!("tcp/{port}"), ScanKind::Connect, false);
        }
        assert_eq!(
            bench.report_lines().last().unwrap(),
            &format!("blocked 203.0.113.9 {}s", hours * 3600)
        );
        bench.wait(SECOND * 3600 * hours);
        assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Expired"]);
    }
    bench.wait(SECOND * 86_400 * 31);
    for port in 1..=3 {
        bench.probe(SCANNER, &format!("tcp/{port}"), ScanKind::Connect, false);
    }
    assert_eq!(bench.report_lines().last().unwrap(), "blocked 203.0.113.9 3600s");
}

#[test]
fn proof_makes_an_unproven_block_longer() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.report_lines();
    for port in 1..=4 {
        bench.probe(SCANNER, &format!("tcp/{port}"), ScanKind::Connect, false);
    }
    assert_eq!(bench.report_lines().last().unwrap(), "blocked 203.0.113.9 3600s renewed");
    assert_eq!(bench.orders(), 2);
}

// P3
#[test]
fn unproven_blocks_are_limited_per_minute() {
    let mut bench = Bench::new(|policy| policy.unproven.per_minute = 10);
    for n in 0..30 {
        bench.syn(&format!("203.0.113.{n}"), 1..=4);
    }
    assert_eq!(bench.blocked().len(), 8, "a quarter is reserved for persistent sources");
    let lines = bench.report_lines();
    assert_eq!(
        lines.iter().filter(|line| line.ends_with("block.unproven.per_minute is used up")).count(),
        22
    );
    for n in 10..30 {
        bench.syn(&format!("203.0.113.{n}"), 5..=9);
    }
    assert_eq!(bench.blocked().len(), 8);
    for n in 20..30 {
        bench.syn(&format!("203.0.113.{n}"), [10]);
    }
    assert_eq!(bench.blocked().len(), 10);
    bench.wait(SECOND * 6);
    bench.syn("203.0.113.29", [11]);
    assert_eq!(bench.blocked().len(), 11);
}

// P6
#[test]
fn persistent_scanner_gets_a_reserved_block_in_a_flood() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    // Fewer than the suspects' places between two of the scanner's probes.
    let flood = |bench: &mut Bench, from: u32| {
        for n in from..from + 500 {
            bench.syn(&Ipv4Addr::from_bits(0x2c00_0000 + n).to_string(), [7]);
        }
    };
    flood(&mut bench, 0);
    for port in 1..=7 {
        bench.syn(SCANNER, [port]);
        flood(&mut bench, 500 * u32::from(port));
    }
    assert_eq!(bench.blocked().len(), 450);
    bench.syn(SCANNER, [8]);
    assert_eq!(bench.blocked().len(), 451);
}

// P10
#[test]
fn blocks_never_exceed_the_total() {
    let mut bench = Bench::new(|policy| policy.total = 5);
    for n in 0..9 {
        bench.syn(&format!("203.0.113.{n}"), 1..=3);
    }
    assert_eq!(bench.blocked().len(), 5);
    assert!(bench.report_lines().iter().any(|line| line.ends_with("block.total is reached")));
    bench.command(|engine, now, actions| {
        assert_eq!(engine.block(now, host("192.0.2.77"), None, "", actions), Err(Refusal::Total(5)))
    });
}

#[test]
fn unproven_action_report_orders_nothing() {
    let mut bench = Bench::new(|policy| policy.unproven.action = UnprovenAction::Report);
    bench.syn(SCANNER, 1..9);
    assert_eq!(bench.orders(), 0);
    assert!(bench.report_lines().concat().ends_with("block.unproven.action is report"));
}

// P1
#[test]
fn a_slowed_source_that_becomes_never_block_is_released() {
    let mut bench = Bench::new(|policy| policy.unproven.action = UnprovenAction::Slow);
    bench.syn(SCANNER, 1..9);
    assert_eq!(bench.engine.slowed(None).count(), 1);
    let network: IpNet = "203.0.113.0/24".parse().unwrap();
    bench.engine.set_never_block(bench.at(), [network].into_iter().collect());
    let mut actions = Vec::new();
    while bench.engine.next_timer().is_some_and(|at| at <= bench.at()) {
        bench.engine.on_timer(bench.at(), &mut actions);
    }
    bench.carry_out(actions);
    assert_eq!(bench.engine.slowed(None).count(), 0);
    assert_eq!(bench.released.len(), 1);
    assert_eq!(bench.report_lines().last().unwrap(), "released 203.0.113.9 NeverBlock");
}

#[test]
fn the_beginning_and_the_end_of_slowing_are_reported_once() {
    let slow = |policy: &mut Policy| policy.unproven.action = UnprovenAction::Slow;
    let beginning = [
        "scan 203.0.113.9 syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3 slowed until its address is proven",
        "slowed 203.0.113.9 60s for tcp/3: syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3",
    ];
    let mut bench = Bench::new(slow);
    bench.syn(SCANNER, 1..9);
    assert_eq!(bench.report_lines(), beginning);
    bench.wait(61 * SECOND);
    assert_eq!(bench.report_lines(), ["released 203.0.113.9 Expired"]);
    // The scan was reported within this window; that it is slowed again is news.
    bench.syn(SCANNER, 9..12);
    assert!(bench.report_lines().concat().starts_with("slowed 203.0.113.9 60s for tcp/9"));

    type Ends = fn(&mut Bench);
    let ends: [(Ends, &str); 3] = [
        (
            |bench| {
                bench.command(|engine, now, actions| {
                    engine.unblock_within(now, host(SCANNER), actions);
                })
            },
            "released 203.0.113.9 Manual",
        ),
        (
            |bench| {
                bench.command(|engine, now, actions| {
                    engine.block(now, host(SCANNER), None, "", actions).unwrap();
                })
            },
            "released 203.0.113.9 Blocked",
        ),
        (
            |bench| {
                let mut policy = bench.engine.policy().clone();
                policy.unproven.action = UnprovenAction::Block;
                bench.reconfigure(policy);
            },
            "released 203.0.113.9 Configuration",
        ),
    ];
    for (end, reported) in ends {
        let mut bench = Bench::new(slow);
        bench.syn(SCANNER, 1..9);
        bench.report_lines();
        end(&mut bench);
        let lines = bench.report_lines();
        let released = lines.iter().filter(|line| line.starts_with("released"));
        assert_eq!(released.collect::<Vec<_>>(), [reported]);
        assert_eq!(bench.engine.slowed(None).count(), 0);
        bench.wait(120 * SECOND);
        assert_eq!(bench.report_lines(), [""; 0]);
    }
}

// P9
#[test]
fn a_flood_reports_no_more_ends_than_beginnings_and_few_of_both() {
    let mut bench = Bench::new(|policy| policy.unproven.action = UnprovenAction::Slow);
    for n in 0..2000_u32 {
        let source = Ipv4Addr::from(0x0a46_0000 + n).to_string();
        bench.syn(&source, 1..4);
    }
    bench.wait(120 * SECOND);
    let lines = bench.report_lines();
    let count = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("slowed"), count("released")), (600, 600));
    assert_eq!(bench.engine.slowed(None).count(), 0);
}

// P3
#[test]
fn unproven_action_slow_slows_once_and_blocks_with_the_proof() {
    let mut bench = Bench::new(|policy| policy.unproven.action = UnprovenAction::Slow);
    bench.syn(SCANNER, 1..9);
    let source = bench.engine.policy().account(SCANNER.parse().unwrap());
    let timeout = Duration::from_secs(60);
    assert_eq!(bench.orders, [Action::Slow { source, timeout }]);
    assert_eq!(
        bench.engine.slowed(None).map(|(view, _)| view.source).collect::<Vec<_>>(),
        [source]
    );
    // Its connection that waits in a queue does not pass at once.
    let verdict = bench.engine.connection_verdict(SCANNER.parse().unwrap());
    assert_eq!(verdict, ConnectionVerdict::Held);
    bench.rule_event(SCANNER, 100..120, |engine, now, probe, actions| {
        engine.on_retransmission(now, probe, false, actions)
    });
    assert!(bench.engine.blocked(source).is_some_and(|view| view.reason.proven()));
    assert_eq!(bench.engine.slowed(None).count(), 0);
    assert_eq!(bench.report_lines().last().unwrap(), "released 203.0.113.9 Proven");
    // A kernel that refuses the block leaves it slowed.
    let mut bench = Bench::new(|policy| policy.unproven.action = UnprovenAction::Slow);
    bench.syn(SCANNER, 1..9);
    bench.refuse = true;
    bench.rule_event(SCANNER, 100..120, |engine, now, probe, actions| {
        engine.on_retransmission(now, probe, false, actions)
    });
    assert_eq!(bench.engine.slowed(None).count(), 1);
}

#[test]
fn account_shows_the_ports_of_a_source() {
    let mut bench = Bench::new(|_| {});
    bench.now = 64;
    bench.syn(SCANNER, [22]);
    bench.now = 80;
    bench.probe(SCANNER, "udp/161", ScanKind::Udp, false);
    let view = bench.engine.account(SCANNER.parse().unwrap()).unwrap();
    assert_eq!((view.first.millis(), view.last.millis(), view.probes), (64, 80, 2));
    let ports: Vec<String> = view.ports.iter().map(|touch| touch.port.to_string()).collect();
    assert_eq!(ports, ["tcp/22", "udp/161"]);
    assert_eq!(bench.engine.account("203.0.113.10".parse().unwrap()), None);
    bench.wait(SECOND * 700);
    assert_eq!(bench.engine.account(SCANNER.parse().unwrap()), None);
    assert_eq!((bench.engine.status().sources, bench.engine.next_timer()), (0, None));
}

#[test]
fn ports_that_the_rules_remember_count_for_the_next_probe() {
    for (sources, expected) in [
        ([SCANNER, SCANNER], SCANNER),
        // Two addresses of a prefix, one port each: with the third the prefix passes.
        (["2001:db8::1", "2001:db8::2"], "2001:db8::/64"),
    ] {
        let mut bench = Bench::new(|_| {});
        bench.now = 1_000_000;
        let seen = |source: &str, number, ago: u64| Seen {
            source: source.parse().unwrap(),
            port: Port { transport: Transport::Tcp, number },
            at: MonoTime::from_millis(1_000_000 - ago),
        };
        let (first, second) = (sources[0], sources[1]);
        // The last one is older than the window.
        let all = [seen(first, 1, 599_000), seen(second, 2, 5_000), seen(first, 9, 601_000)];
        bench.engine.recall_seen(bench.at(), all);
        assert!(bench.reports.is_empty() && bench.orders.is_empty());
        let third = if first == SCANNER { SCANNER } else { "2001:db8::3" };
        bench.syn(third, [3]);
        assert_eq!(bench.blocked(), [expected]);
    }
}

#[test]
fn what_the_rules_remember_expires_when_the_window_ends() {
    let mut bench = Bench::new(|_| {});
    bench.now = 1_000_000;
    let port = |number| Port { transport: Transport::Tcp, number };
    let source = SCANNER.parse().unwrap();
    let seen = [(1, 599_000), (2, 0)].map(|(number, ago)| Seen {
        source,
        port: port(number),
        at: MonoTime::from_millis(1_000_000 - ago),
    });
    bench.engine.recall_seen(bench.at(), seen);
    bench.now += 2_000;
    bench.syn(SCANNER, [3]);
    assert!(bench.blocked().is_empty());
    bench.syn(SCANNER, [4]);
    assert_eq!(bench.blocked(), [SCANNER]);
}

// P9
#[test]
fn in_a_flood_of_scans_the_source_that_continues_is_reported() {
    for (action, state) in [
        (UnprovenAction::Slow, "slowed"),
        (UnprovenAction::Block, "blocked"),
        (UnprovenAction::Report, "reported"),
    ] {
        let mut bench = Bench::new(|policy| {
            policy.unproven.action = action;
            policy.capacity = 30_000;
        });
        let continuing = |bench: &Bench| -> Vec<(String, &'static str)> {
            let reports = bench.reports.iter();
            reports
                .filter_map(|report| match report {
                    Report::Continues { source, state, .. } => Some((source.to_string(), *state)),
                    _ => None,
                })
                .collect()
        };
        for n in 0..5000_u32 {
            // Some of the invented sources continue for a while.
            let ports = if n % 100 == 0 { 30 } else { 5 };
            let source = Ipv4Addr::from(0x0b00_0000 + n).to_string();
            bench.syn(&source, 1..=3);
            bench.still(&source, 4..=ports);
        }
        assert_eq!(continuing(&bench).len(), 15, "half of them are left");
        bench.syn(SCANNER, 1..=3);
        bench.still(SCANNER, 4..=200);
        assert_eq!(continuing(&bench).last(), Some(&(SCANNER.to_owned(), state)));
        assert_eq!(continuing(&bench).len(), 16);
    }
}

#[test]
fn a_proven_source_is_reported_by_its_block_alone() {
    let mut bench = Bench::new(|_| {});
    for port in 1..=100 {
        bench.probe(SCANNER, &format!("tcp/{port}"), ScanKind::Connect, false);
    }
    assert!(!bench.reports.iter().any(|report| matches!(report, Report::Continues { .. })));
}
