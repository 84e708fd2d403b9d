//! The kernel's answers, and timers.

use super::*;

// P3
#[test]
fn probes_of_closed_ports_renew_an_unproven_block_and_packets_to_services_do_not() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.report_lines();
    bench.wait(SECOND * 14);
    bench.still(SCANNER, [4]);
    assert!(bench.report_lines().is_empty());
    bench.wait(SECOND * 31);
    bench.still(SCANNER, [4]);
    assert_eq!(bench.report_lines(), ["blocked 203.0.113.9 60s renewed"]);
    bench.wait(SECOND * 59);
    assert_eq!(bench.blocked(), [SCANNER]);
    bench.wait(SECOND * 2);
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Expired"]);
    assert_eq!(bench.engine.status().blocked, 0);
}

#[test]
fn a_proven_block_is_not_renewed() {
    let mut bench = Bench::new(|_| {});
    for port in ["tcp/1", "tcp/2", "tcp/3"] {
        bench.probe(SCANNER, port, ScanKind::Connect, false);
    }
    bench.wait(SECOND * 3500);
    bench.still(SCANNER, [4]);
    assert_eq!((bench.engine.status().renewals, bench.orders()), (0, 1));
}

#[test]
fn renewals_are_reported_at_powers_of_two_with_their_number() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    for _ in 0..99 {
        bench.wait(SECOND * 15);
        bench.still(SCANNER, [4]);
        bench.still(SCANNER, [5]);
    }
    assert_eq!(bench.engine.status().renewals, 99);
    let numbers = bench.reports.iter().filter_map(|report| match report {
        Report::Blocked { renewals, .. } => Some(*renewals),
        _ => None,
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2, 4, 8, 16, 32, 64]);
    let view = bench.engine.blocked(Source::of(SCANNER.parse().unwrap(), 64)).unwrap();
    assert_eq!(view.renewals, 99);
}

// P7, D1
#[test]
fn refused_block_is_retried_with_growing_delays() {
    let mut bench = Bench::new(|_| {});
    bench.refuse = true;
    for millis in 0..20_000 {
        bench.now = millis;
        bench.syn(SCANNER, [millis as u16]);
    }
    // At 0, 1, 3, 7 and 15 seconds.
    assert_eq!(bench.orders(), 5);
    let lines = bench.report_lines();
    assert_eq!(lines.iter().filter(|line| *line == "failed 203.0.113.9 set is full").count(), 5);
    assert_eq!(lines.iter().filter(|line| line.starts_with("scan")).count(), 1);
    assert!(bench.blocked().is_empty());
    assert_eq!(bench.engine.status().ordered, 1);
    bench.wait(SECOND * 120);
    assert_eq!(bench.engine.status().ordered, 0);
    bench.refuse = false;
    bench.syn(SCANNER, [1, 2, 3]);
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn commands_wait_for_the_order_in_flight() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(SCANNER, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(SCANNER), actions).unwrap());
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Blocked { source: host(SCANNER), result: Ok(()) });
    assert_eq!(bench.orders, [Action::Unblock { source: host(SCANNER) }]);
    bench.command(|engine, now, actions| {
        engine.block(now, host(SCANNER), None, "still", actions).unwrap()
    });
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Unblocked { source: host(SCANNER), result: Ok(()) });
    assert!(matches!(bench.orders.as_slice(), [Action::Block { renew: false, timeout: None, .. }]));
    bench.answer(Outcome::Blocked { source: host(SCANNER), result: Ok(()) });
    let lines = bench.report_lines();
    assert_eq!(
        lines[1..],
        ["blocked 203.0.113.9 60s", "unblocked 203.0.113.9 Manual", "blocked 203.0.113.9 0ns"]
    );
}

#[test]
fn block_that_expires_while_its_element_is_asked_for_is_reported() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.report_lines();
    bench.answers = false;
    bench.wait(SECOND * 59);
    bench.syn(SCANNER, [4]);
    bench.wait(SECOND * 11);
    assert_eq!(bench.orders.last(), Some(&Action::Check { source: host(SCANNER) }));
    bench.answer(Outcome::Checked { source: host(SCANNER), is_there: true });
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Expired"]);
}

#[test]
fn refused_block_is_never_reported_as_unblocked() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(SCANNER, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(SCANNER), actions).unwrap());
    bench.answer(Outcome::Blocked { source: host(SCANNER), result: Err("no".to_owned()) });
    bench.answer(Outcome::Unblocked { source: host(SCANNER), result: Ok(()) });
    assert_eq!(bench.report_lines()[1..], ["failed 203.0.113.9 no"]);
    assert_eq!(bench.orders.last(), Some(&Action::Unblock { source: host(SCANNER) }));
}

#[test]
fn refused_lift_of_a_never_block_address_is_retried() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.refuse = true;
    let list: AllowList = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    bench.set_never_block(list);
    bench.orders();
    bench.wait(SECOND * 21);
    assert_eq!(
        bench.orders,
        [Action::Unblock { source: host(SCANNER) }, Action::Unblock { source: host(SCANNER) }]
    );
    bench.refuse = false;
    bench.wait(SECOND * 10);
    assert_eq!(bench.report_lines().last().unwrap(), "unblocked 203.0.113.9 NeverBlock");
}
