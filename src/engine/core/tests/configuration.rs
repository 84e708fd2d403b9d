//! Another configuration.

use ipnet::IpNet;

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
    bench.reconfigure(policy);
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
    bench.reconfigure(policy);
    let blocked: Vec<Source> = bench.engine.blocks().map(|view| view.source).collect();
    assert_eq!(blocked, [host("2001:db8::1")]);
}

#[test]
fn what_is_exempt_now_is_exempt_alone_from_a_network_that_was_ordered_and_ends_a_scans_block() {
    let mut bench = Bench::new(|_| {});
    let network = |text: &str| Source::from(text.parse::<IpNet>().unwrap());
    bench.command(|engine, now, actions| {
        engine.block(now, network("172.16.0.0/12"), None, "", actions).unwrap();
        engine.block(now, network("10.1.2.3/32"), None, "", actions).unwrap();
    });
    bench.syn("2001:db8::1", 1..=3);
    bench.told();
    bench.set_never_block(["172.16.1.1/32", "10.1.2.0/24", "2001:db8::53/128"].iter().map(|text| text.parse().unwrap()).collect());
    let mut told = bench.told();
    told.sort();
    assert_eq!(told, ["unblocked 10.1.2.3 NeverBlock", "unblocked 2001:db8::/64 NeverBlock"]);
    assert_eq!(bench.blocked(), ["172.16.0.0/12"]);
}
