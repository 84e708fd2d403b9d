//! Scans that are slower than the window.

use super::*;

/// Probes 301 seconds apart, as by `nmap -T0`, until the source is blocked.
fn slowly(bench: &mut Bench, source: &str, ports: std::ops::RangeInclusive<u16>) {
    for port in ports {
        bench.now += 301_000;
        bench.syn(source, [port * 7]);
        if !bench.blocked().is_empty() {
            return;
        }
    }
}

#[test]
fn a_scan_with_five_minutes_between_its_probes_is_blocked_within_two_hours() {
    for source in [SCANNER, "2001:db8::1"] {
        let mut bench = Bench::new(|_| {});
        slowly(&mut bench, source, 1..=11);
        assert!(bench.blocked().is_empty() && bench.report_lines().is_empty());
        slowly(&mut bench, source, 12..=24);
        assert_eq!(bench.blocked(), [source]);
        let line = bench.report_lines().remove(0);
        assert!(line.ends_with("syn scan: 12 ports or more in a day -"), "{line}");
    }
}

// P3
#[test]
fn a_client_of_some_wrong_ports_all_day_is_not_reported() {
    let mut bench = Bench::new(|_| {});
    for attempt in 0..2880_u16 {
        bench.now += 30_000;
        // One port that it retries, and nine others that it tries once each.
        bench.syn(SCANNER, [445]);
        if attempt % 300 == 0 {
            bench.syn(SCANNER, [1000 + attempt]);
        }
        bench.probe(SCANNER, &format!("tcp/{}", 2000 + attempt), ScanKind::Reply, true);
    }
    assert!(bench.blocked().is_empty());
    assert!(!bench.reports.iter().any(|report| matches!(report, Report::Slowed { .. })));
}

// P6
#[test]
fn a_slow_scanner_among_a_million_sources_of_one_packet_is_found() {
    let mut bench = Bench::new(|policy| policy.capacity = crate::engine::CAPACITY);
    for n in 0..1_000_000_u32 {
        bench.now += 7;
        if n % 50_000 == 0 {
            bench.syn(SCANNER, [(n / 50_000) as u16]);
        }
        let probe = Probe {
            source: Ipv4Addr::from(0x0b00_0000 + n).into(),
            destination: Ipv4Addr::LOCALHOST.into(),
            port: Port { transport: Transport::Tcp, number: 443 },
            scan: ScanKind::Syn,
            ambiguous: false,
            ip_options: false,
            signature: Signature::None,
        };
        bench.engine.on_probe(bench.at(), &probe, &mut Vec::new());
    }
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn the_long_window_outlives_the_engine_and_is_forgotten_by_unblock() {
    let mut bench = Bench::new(|_| {});
    slowly(&mut bench, SCANNER, 1..=11);
    let evidence = bench.engine.evidence(MonoTime::default(), 100);
    let mut after = Bench::new(|_| {});
    // An hour later nothing of it is within the short window.
    after.now = bench.now + 3_600_000;
    after.engine.recall(after.at(), [], evidence);
    assert_eq!(after.engine.account(SCANNER.parse().unwrap()), None);
    slowly(&mut after, SCANNER, 12..=24);
    assert_eq!(after.blocked(), [SCANNER]);
    after.command(|engine, now, actions| engine.unblock(now, host(SCANNER), actions).unwrap());
    slowly(&mut after, SCANNER, 25..=30);
    assert!(after.blocked().is_empty());
}
