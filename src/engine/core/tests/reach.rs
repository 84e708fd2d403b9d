//! Sweeps of one port over several addresses of this host, and pings.

use super::*;

const SCANNER: &str = "203.0.113.9";
const SCANNER6: &str = "2001:db8::9";

/// `number` addresses of this host, in the family of `source`.
fn here(source: &str, number: usize) -> Vec<String> {
    let six = source.contains(':');
    let address = |n| if six { format!("2001:db8:1::{n:x}") } else { format!("192.0.2.{n}") };
    (1..=number).map(address).collect()
}

fn sweep(bench: &mut Bench, source: &str, number: usize, scan: ScanKind, ambiguous: bool) {
    let port = match scan {
        ScanKind::PingSweep => Port { transport: Transport::Ip, number: 1 },
        ScanKind::Udp => Port { transport: Transport::Udp, number: 161 },
        _ => Port { transport: Transport::Tcp, number: 445 },
    };
    for address in here(source, number) {
        bench.probe_at(&address, source, port, scan, ambiguous);
        bench.now += 20;
    }
}

/// Kind, reason, and why it was not blocked, of each scan that was reported.
fn scans(bench: &Bench) -> Vec<(&'static str, String, Option<NotBlocked>)> {
    let of = |report: &Report| match report {
        Report::Scan { probe, reason, not_blocked, .. } => {
            Some((probe.scan.name(), reason.to_string(), *not_blocked))
        }
        _ => None,
    };
    bench.reports.iter().filter_map(of).collect()
}

// P28
#[test]
fn one_port_of_many_addresses_is_a_sweep() {
    for source in [SCANNER, SCANNER6] {
        let mut bench = Bench::new(|_| {});
        sweep(&mut bench, source, 40, ScanKind::Syn, false);
        let scans = scans(&bench);
        let [("sweep", reason, None)] = scans.as_slice() else { panic!("{scans:?}") };
        // One number of four bits in fifteen is another address's.
        assert!(reason.starts_with("sweep scan: tcp/445 of 11+ addresses in 0."), "{reason}");
        assert!(bench.engine.blocks().any(|view| view.reason.scan() == Some(ScanKind::Sweep)));
    }
}

// P4
#[test]
fn clients_of_a_service_with_ten_addresses_do_not_sweep() {
    for source in [SCANNER, SCANNER6] {
        let mut bench = Bench::new(|_| {});
        for _ in 0..20 {
            sweep(&mut bench, source, 10, ScanKind::Syn, false);
        }
        assert_eq!((scans(&bench), bench.orders.len()), (Vec::new(), 0));
    }
}

// P4
#[test]
fn late_packets_of_closed_connections_to_many_addresses_are_only_reported() {
    let mut bench = Bench::new(|_| {});
    sweep(&mut bench, SCANNER, 60, ScanKind::Ack, true);
    assert!(matches!(scans(&bench).as_slice(), [("sweep", _, Some(NotBlocked::Ambiguous))]));
    assert_eq!(bench.orders.len(), 0);
    let mut bench = Bench::new(|_| {});
    sweep(&mut bench, SCANNER, 60, ScanKind::Reply, true);
    assert_eq!(scans(&bench), []);
}

#[test]
fn a_sweep_of_datagrams_is_reported_as_udp_scans_are() {
    let mut bench = Bench::new(|_| {});
    sweep(&mut bench, SCANNER, 40, ScanKind::Udp, false);
    assert!(matches!(scans(&bench).as_slice(), [("sweep", _, Some(NotBlocked::UdpLog))]));
}

// P4
#[test]
fn pings_of_many_addresses_are_reported_once_in_a_window_and_nothing_more() {
    for source in [SCANNER, SCANNER6] {
        let mut bench = Bench::new(|_| {});
        sweep(&mut bench, source, 10, ScanKind::PingSweep, true);
        assert_eq!(scans(&bench), []);
        for _ in 0..3 {
            sweep(&mut bench, source, 40, ScanKind::PingSweep, true);
        }
        let scans = scans(&bench);
        let [("ping-sweep", reason, Some(NotBlocked::Ping))] = scans.as_slice() else {
            panic!("{scans:?}")
        };
        assert_eq!(reason.split(" in ").next(), Some("ping-sweep scan: 11+ addresses"));
        // A ping is no evidence beside others.
        bench.syn(source, 1..=2);
        assert_eq!((bench.reports.len(), bench.orders.len()), (1, 0));
    }
}

// P4
#[test]
fn addresses_that_are_never_blocked_may_ping_all() {
    let mut bench = Bench::new(|policy| {
        policy.allow = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    });
    sweep(&mut bench, SCANNER, 40, ScanKind::PingSweep, true);
    assert_eq!(bench.reports, []);
}

#[test]
fn a_prefix_sweeps_by_many_of_its_addresses_and_never_by_one() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..3 {
        sweep(&mut bench, SCANNER6, 40, ScanKind::Syn, false);
    }
    assert_eq!(bench.engine.blocks().count(), 1);
    let port = Port { transport: Transport::Tcp, number: 445 };
    let mut bench = Bench::new(|_| {});
    for (n, address) in here(SCANNER6, 40).iter().enumerate() {
        bench.probe_at(address, &format!("2001:db8::{n:x}"), port, ScanKind::Syn, false);
    }
    let blocked: Vec<String> = bench.engine.blocks().map(|view| view.source.to_string()).collect();
    assert_eq!(blocked, ["2001:db8::/64"]);
}

// P1
#[test]
fn a_scan_over_an_allowed_interface_is_reported_once_and_is_no_evidence() {
    let mut bench = Bench::new(|_| {});
    bench.rule_event(SCANNER, 1..=60, |engine, now, probe, actions| {
        engine.on_allowed_interface(now, probe, actions);
        Trigger::Below
    });
    let found = scans(&bench);
    let [("syn", reason, Some(NotBlocked::AllowedInterface))] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(reason.starts_with("syn scan: 3+ ports"), "{reason}");
    // The same address elsewhere, where it may be forged, begins from nothing.
    bench.syn(SCANNER, 1..=2);
    assert_eq!((bench.orders.len(), bench.engine.blocks().count()), (0, 0));
    bench.syn(SCANNER, 3..=9);
    assert!(!bench.orders.is_empty());
}
