//! Another configuration.

use super::*;

#[test]
fn another_configuration_keeps_blocks_and_accounts_and_lifts_what_is_allowed_now() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.syn("203.0.113.10", 1..=3);
    bench.syn("203.0.113.11", 1..=2);
    bench.told();
    let mut policy = bench.engine.policy().clone();
    policy.scan_trigger = 4;
    policy.allow = ["203.0.113.10/32".parse().unwrap()].into_iter().collect();
    bench.command(|engine, now, actions| engine.reconfigure(now, policy, actions));
    assert_eq!(bench.told(), ["unblocked 203.0.113.10 NeverBlock"]);
    assert_eq!(bench.blocked(), [THEM]);
    bench.syn("203.0.113.11", 3..=4);
    assert_eq!(bench.blocked(), [THEM]);
    bench.syn("203.0.113.11", [5]);
    assert_eq!(bench.blocked(), ["203.0.113.11", THEM]);
}

#[test]
fn another_prefix_length_keeps_what_is_blocked() {
    let mut bench = Bench::new(|_| {});
    bench.syn("2001:db8::1", 1..=3);
    bench.told();
    let policy = Policy { ipv6_prefix: 56, ..bench.engine.policy().clone() };
    bench.command(|engine, now, actions| engine.reconfigure(now, policy, actions));
    let blocked: Vec<Subject> = bench.engine.blocks().map(|view| view.subject).collect();
    assert_eq!(blocked, [Subject::Network("2001:db8::/64".parse().unwrap())]);
}
