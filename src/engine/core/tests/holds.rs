//! Holds that the rules report.

use super::*;

#[test]
fn hold_of_a_blocked_source_is_left_to_expire() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 2);
    bench.syn("203.0.113.9", [1, 2]);
    bench.held("203.0.113.9", [3]);
    assert_eq!(bench.engine.status().blocked, 1);
    assert_eq!(bench.released, []);
    // Probes that were in flight.
    bench.held("203.0.113.9", [4]);
    assert_eq!((bench.released.as_slice(), bench.engine.status().held), ([].as_slice(), 2));
}

// P26
#[test]
fn hold_is_released_without_evidence_or_when_allowed() {
    let source = |text: &str| Source::of(text.parse().unwrap(), 64);
    let mut bench = Bench::new(|policy| {
        policy.scan_trigger = 2;
        policy.allow = ["203.0.113.7/32".parse().unwrap()].into_iter().collect();
    });
    // The ledger has seen one port: the buckets are from another configuration, or messages were
    // lost.
    bench.held("203.0.113.9", [1]);
    // Allowed since the packet left the kernel.
    bench.held("203.0.113.7", [1, 2, 3, 4]);
    let released: Vec<_> = bench.released.iter().map(|(source, _)| *source).collect();
    assert_eq!(
        released,
        [
            source("203.0.113.9"),
            source("203.0.113.7"),
            source("203.0.113.7"),
            source("203.0.113.7"),
            source("203.0.113.7")
        ]
    );
    assert_eq!((bench.engine.status().released, bench.engine.status().blocked), (5, 0));
}

#[test]
fn holds_over_budget_are_released_except_in_a_flood() {
    let mut bench =
        Bench::new(|policy| (policy.scan_trigger, policy.unproven.per_minute) = (0, 10));
    let spoofed = |n: u32| Ipv4Addr::from(0x2000_0000 + n).to_string();
    for n in 0..60 {
        bench.held(&spoofed(n), [1]);
    }
    // Ten may be blocked, and two of these are reserved for persistent sources.
    assert_eq!(bench.released.len(), 52);
    for n in 60..5000 {
        bench.now += u64::from(n % 2);
        bench.held(&spoofed(n), [1]);
    }
    assert!(bench.released.len() <= 110, "{}", bench.released.len());
    // The flood is over: single holds are released again.
    bench.now += 2500;
    let before = bench.released.len();
    for n in 5000..5020 {
        bench.held(&spoofed(n), [1]);
    }
    assert!(bench.released.len() > before, "{before}");
}

// P27
#[test]
fn persistent_held_source_is_blocked_over_budget() {
    let mut bench =
        Bench::new(|policy| (policy.scan_trigger, policy.unproven.per_minute) = (0, 10));
    for n in 0..500 {
        bench.held(&Ipv4Addr::from(0x2000_0000 + n).to_string(), [1]);
    }
    let blocks = bench.engine.blocks().count();
    bench.held("203.0.113.9", [1]);
    assert_eq!(
        bench.engine.blocks().count(),
        blocks,
        "one more of the flood, for all that is known"
    );
    bench.still("203.0.113.9", 2..20);
    let source = Source::of("203.0.113.9".parse().unwrap(), 64);
    assert!(bench.engine.blocked(source).is_some());
    // Further probes do not change the evidence of a blocked source.
    let known = bench.engine.account("203.0.113.9".parse().unwrap()).unwrap();
    bench.still("203.0.113.9", 100..200);
    assert_eq!(bench.engine.account("203.0.113.9".parse().unwrap()).unwrap(), known);
}

#[test]
fn lift_of_a_never_block_address_releases_the_hold() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    bench.held("203.0.113.9", [1]);
    assert_eq!((bench.engine.status().blocked, bench.released.len()), (1, 0));
    let list: AllowList = ["203.0.113.9/32".parse().unwrap()].into_iter().collect();
    bench.set_never_block(list);
    assert_eq!(bench.engine.status().blocked, 0);
    assert_eq!(bench.released, [(Source::of("203.0.113.9".parse().unwrap(), 64), None)]);
}
