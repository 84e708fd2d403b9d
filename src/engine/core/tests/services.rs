//! Clients of services that listen by now.

use super::*;

fn slowing(policy: &mut Policy) {
    policy.unproven.action = UnprovenAction::Slow;
}

fn ports(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<Port> {
    numbers.into_iter().map(|number| Port { transport: Transport::Tcp, number }).collect()
}

fn open(bench: &mut Bench, numbers: impl IntoIterator<Item = u16>) {
    let ports = ports(numbers);
    bench.command(|engine, now, actions| {
        engine.set_services(now, ports);
        engine.on_timer(now, actions);
    });
}

// P5
#[test]
fn slowed_client_is_released_when_all_its_ports_are_services() {
    let mut bench = Bench::new(slowing);
    bench.syn(SCANNER, [25, 110, 143]);
    assert_eq!(bench.engine.status().slowed, 1);
    bench.report_lines();
    open(&mut bench, [25, 110]);
    assert_eq!(bench.engine.status().slowed, 1);
    // What is only logged does not count against it.
    bench.probe(SCANNER, "udp/53", ScanKind::Udp, false);
    bench.report_lines();
    open(&mut bench, [25, 110, 143, 993]);
    assert_eq!(bench.engine.status().slowed, 0);
    assert_eq!(bench.report_lines(), ["released 203.0.113.9 Services"]);
    let (source, forgotten) = bench.released.last().unwrap().clone();
    assert_eq!(source, host(SCANNER));
    assert!(ports([25, 110, 143]).is_subset(&forgotten.unwrap().into_iter().collect()));
    // Its next wrong port is its first.
    bench.syn(SCANNER, [1, 2]);
    assert_eq!(bench.engine.status().slowed, 0);
}

// P5
#[test]
fn block_of_an_unproven_source_ends_when_all_its_ports_are_services() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, [25, 110, 143]);
    bench.syn("203.0.113.10", [25, 110, 1]);
    bench.report_lines();
    open(&mut bench, [25, 110, 143]);
    assert_eq!(bench.blocked(), ["203.0.113.10"]);
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Services"]);
    assert!(bench.released.iter().any(|(source, _)| *source == host(SCANNER)));
}

// P2
#[test]
fn proven_and_manual_blocks_stay_whatever_listens() {
    let mut bench = Bench::new(|_| {});
    for number in [25, 110, 143] {
        bench.probe(SCANNER, &format!("tcp/{number}"), ScanKind::Connect, false);
    }
    let manual = "203.0.113.10";
    bench.syn(manual, [25]);
    bench.command(|engine, now, actions| {
        engine.block(now, host(manual), None, "abuse", actions).unwrap()
    });
    open(&mut bench, [25, 110, 143]);
    assert_eq!(bench.blocked(), [manual, SCANNER]);
}

#[test]
fn every_slowed_client_is_looked_at_in_pieces() {
    let mut bench = Bench::new(|policy| {
        slowing(policy);
        policy.capacity = 60_000;
    });
    for number in 0..9000u32 {
        let address = Ipv4Addr::from(0xcb00_7100 + number).to_string();
        bench.syn(&address, [25, 110, 143]);
    }
    open(&mut bench, [25, 110, 143]);
    assert!((1..9000).contains(&bench.engine.status().slowed), "one call is bounded");
    bench.wait(SECOND);
    assert_eq!(bench.engine.status().slowed, 0);
}
