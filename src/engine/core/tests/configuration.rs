//! Reconfiguration.

use ipnet::IpNet;

use super::*;
use crate::config::Ipv6Accounts;

#[test]
fn reconfiguration_lifts_newly_allowed_sources_only() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.syn("203.0.113.10", 1..=3);
    bench.syn("203.0.113.11", 1..=2);
    bench.report_lines();
    let mut policy = bench.engine.policy().clone();
    policy.scan_trigger = 4;
    policy.allow = ["203.0.113.10/32".parse().unwrap()].into_iter().collect();
    bench.reconfigure(policy);
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.10 NeverBlock"]);
    assert_eq!(bench.blocked(), [SCANNER]);
    bench.syn("203.0.113.11", 3..=4);
    assert_eq!(bench.blocked(), [SCANNER]);
    bench.syn("203.0.113.11", [5]);
    assert_eq!(bench.blocked(), ["203.0.113.11", SCANNER]);
}

#[test]
fn another_prefix_length_keeps_the_blocks() {
    let mut bench = Bench::new(|policy| policy.ipv6 = Ipv6Accounts::of_one_length(64));
    bench.syn("2001:db8::1", 1..=3);
    bench.report_lines();
    let policy = Policy { ipv6: Ipv6Accounts::of_one_length(56), ..bench.engine.policy().clone() };
    bench.reconfigure(policy);
    let blocked: Vec<Source> = bench.engine.blocks().map(|view| view.source).collect();
    assert_eq!(blocked, [host("2001:db8::1")]);
}

#[test]
fn never_block_address_ends_scan_blocks_but_not_networks() {
    let mut bench = Bench::new(|policy| policy.ipv6 = Ipv6Accounts::of_one_length(64));
    let network = |text: &str| Source::from(text.parse::<IpNet>().unwrap());
    bench.command(|engine, now, actions| {
        engine.block(now, network("172.16.0.0/12"), None, "", actions).unwrap();
        engine.block(now, network("10.1.2.3/32"), None, "", actions).unwrap();
    });
    bench.syn("2001:db8::1", 1..=3);
    bench.report_lines();
    bench.set_never_block(
        ["172.16.1.1/32", "10.1.2.0/24", "2001:db8::53/128"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect(),
    );
    let mut lines = bench.report_lines();
    lines.sort();
    assert_eq!(lines, ["unblocked 10.1.2.3 NeverBlock", "unblocked 2001:db8::/64 NeverBlock"]);
    assert_eq!(bench.blocked(), ["172.16.0.0/12"]);
}
