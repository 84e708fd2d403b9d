//! Blocked networks that overlap, and addresses that are exempt from them: each block has its own
//! end, before and after the sets are written again.

use crate::support;

use std::ops::Deref;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::DEVICE;
use support::{done, eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "ping"];
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What `list --json` has for a block without an end.
const PERMANENT: u64 = u64::MAX;

macro_rules! scene {
    () => {{
        if missing(TOOLS).is_some() {
            return;
        }
        Scene::new()
    }};
}

/// The host, and a second host with addresses in the networks that are blocked.
struct Scene(support::scene::Scene);

impl Deref for Scene {
    type Target = support::scene::Scene;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Scene {
    fn new() -> Self {
        let host = ["10.69.1.1/24", "fd69::1/64"];
        let scanner = [
            "10.69.1.2/24",
            "20.0.0.1/32",
            "20.1.0.1/32",
            "20.1.0.2/32",
            "172.17.0.9/32",
            "172.17.0.10/32",
            "fd69::2/64",
            "fd20:1:1:1::5/128",
            "fd20:1:2:1::5/128",
        ];
        let scene = support::scene::Scene::new(&host, &scanner);
        for network in ["20.0.0.0/8", "172.16.0.0/12"] {
            scene.host.run("ip", &["route", "add", network, "dev", DEVICE]);
        }
        Self(scene.with_prefixes(&["fd20:1::/32"]))
    }

    fn nft(&self, words: &str) {
        self.host.run("nft", &words.split(' ').collect::<Vec<_>>());
    }

    /// Whether the kernel's sets have packets of this address dropped: it is in a blocked network
    /// or a blocked host, and not exempt.
    fn drops(&self, address: &str) -> bool {
        let version = if address.contains(':') { 6 } else { 4 };
        let is_blocked = self.has(&format!("blocked_nets{version}"), address)
            || self.has(&format!("blocked{version}"), address);
        is_blocked && !self.has(&format!("allowed{version}"), address)
    }

    fn has(&self, set: &str, address: &str) -> bool {
        let element = format!("get element inet portsentry {set} {{ {address} }}");
        self.host
            .output("nft", &element.split(' ').collect::<Vec<_>>(), ANSWER_TIMEOUT)
            .status
            .success()
    }

    fn flush(&self, daemon: &Daemon<'_>) {
        let count = || daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap();
        let before = count();
        self.nft("flush ruleset");
        assert!(eventually(ANSWER_TIMEOUT, || count() > before), "not repaired\n{}", daemon.log());
    }

    /// Looks at blocks and packets now, after a flush, a reload and a restart.
    fn through_everything(
        &self,
        daemon: &mut Daemon<'_>,
        yaml: &str,
        look: impl Fn(&Daemon<'_>, &str),
    ) {
        look(daemon, "at first");
        self.flush(daemon);
        look(daemon, "after a flush");
        assert!(done(&daemon.ctl(&["reload"])).contains("nothing has changed"));
        look(daemon, "after a reload");
        daemon.stop();
        daemon.restart(yaml);
        look(daemon, "after a restart");
        daemon.stop();
        self.nft("flush ruleset");
        daemon.restart(yaml);
        look(daemon, "after a restart without a table");
        self.flush(daemon);
        look(daemon, "after a second flush");
        assert!(!daemon.log().contains("File exists"), "{}", daemon.log());
    }
}

fn row(daemon: &Daemon<'_>, network: &str) -> Option<Value> {
    daemon.json(&["list"]).as_array().unwrap().iter().find(|row| row["address"] == network).cloned()
}

/// `expires_in` of a block; `None`: not blocked.
fn left(daemon: &Daemon<'_>, network: &str) -> Option<u64> {
    row(daemon, network).map(|row| row["expires_in"].as_u64().unwrap_or(PERMANENT))
}

/// What a block leaves out.
fn exempt(daemon: &Daemon<'_>, network: &str) -> Vec<String> {
    let row = row(daemon, network)
        .unwrap_or_else(|| panic!("{network} is not blocked\n{}", daemon.log()));
    row["exempt"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|address| address.as_str().unwrap().to_owned())
        .collect()
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

// P14
#[test]
fn overlapping_networks_stay_in_force_each_with_its_end() {
    let scene = scene!();
    let (outer, inner) = ("20.0.0.0/8", "20.1.0.0/16");
    let four = [("20.0.0.1", "20.1.0.1"); 4];
    let orders = [
        ((outer, "0", PERMANENT), (inner, "2h", 7200)),
        ((outer, "60s", 60), (inner, "2h", 7200)),
        ((outer, "2h", 7200), (inner, "0", PERMANENT)),
        // Narrow first, then the network around it.
        ((inner, "60s", 60), (outer, "0", PERMANENT)),
    ];
    for (order, (outside, inside)) in orders.into_iter().zip(four) {
        let mut daemon = Daemon::start(&scene.host, "");
        let begun = Instant::now();
        let (first, second) = order;
        for (network, time, _) in [first, second] {
            done(&daemon.ctl(&["block", network, "--for", time]));
        }
        scene.through_everything(&mut daemon, "", |daemon, when| {
            assert_eq!(
                sorted(daemon.blocked()),
                [outer, inner],
                "{when}: {order:?}\n{}",
                daemon.log()
            );
            let elapsed = begun.elapsed().as_secs();
            for (network, _, end) in [first, second] {
                let left = left(daemon, network).unwrap();
                let is_right = if end == PERMANENT {
                    left == PERMANENT
                } else {
                    left <= end && left + elapsed + 3 >= end
                };
                assert!(
                    is_right,
                    "{when}: {network} has {left} s of {end} left after {elapsed} s\n{}",
                    daemon.log()
                );
            }
            assert!(
                !scene.reaches_from(outside) && !scene.reaches_from(inside),
                "{when}: {order:?}\n{}",
                daemon.log()
            );
            assert!(
                eventually(ANSWER_TIMEOUT, || scene.reaches()),
                "{when}: only what is blocked is dropped\n{}",
                daemon.log()
            );
        });
        done(&daemon.ctl(&["unblock", "--all"]));
        assert!(scene.reaches_from(outside) && scene.reaches_from(inside));
        daemon.stop();
    }
}

// P14
#[test]
fn overlapping_ipv6_networks_stay_in_force_each_with_its_end() {
    let scene = scene!();
    let (outer, inner) = ("fd20:1::/32", "fd20:1:1::/48");
    for (first, second) in [((outer, "0"), (inner, "2h")), ((inner, "2h"), (outer, "0"))] {
        let mut daemon = Daemon::start(&scene.host, "");
        for (network, time) in [first, second] {
            done(&daemon.ctl(&["block", network, "--for", time]));
        }
        scene.through_everything(&mut daemon, "", |daemon, when| {
            assert_eq!(sorted(daemon.blocked()), [inner, outer], "{when}\n{}", daemon.log());
            assert_eq!(left(daemon, outer), Some(PERMANENT), "{when}");
            assert!(
                left(daemon, inner).is_some_and(|left| (7000..=7200).contains(&left)),
                "{when}"
            );
            for address in ["fd20:1:1:1::5", "fd20:1:2:1::5"] {
                assert!(
                    !scene.scanner.pings(&["-I", address, "fd69::1"]),
                    "{when}: {address}\n{}",
                    daemon.log()
                );
            }
            assert!(
                eventually(ANSWER_TIMEOUT, || scene.scanner.pings(&["fd69::1"])),
                "{when}: only what is blocked is dropped"
            );
        });
        done(&daemon.ctl(&["unblock", "--all"]));
        daemon.stop();
    }
}

#[test]
fn the_end_of_one_of_two_overlapping_networks_leaves_the_other() {
    let scene = scene!();
    let (outer, inner) = ("20.0.0.0/8", "20.1.0.0/16");
    // The outer one ends first, then the inner one; each case with both orders, and with a flush
    // between.
    for (outer_time, inner_time) in [("3s", "0"), ("0", "3s"), ("3s", "1h"), ("1h", "3s")] {
        for is_outer_first in [true, false] {
            let daemon = Daemon::start(&scene.host, "");
            let mut order = [(outer, outer_time), (inner, inner_time)];
            if !is_outer_first {
                order.reverse();
            }
            for (network, time) in order {
                done(&daemon.ctl(&["block", network, "--for", time]));
            }
            if is_outer_first {
                scene.flush(&daemon);
            }
            let stays = if outer_time == "3s" { inner } else { outer };
            let ended = eventually(ANSWER_TIMEOUT, || {
                assert!(scene.drops("20.1.0.1"), "a gap: {order:?}\n{}", daemon.log());
                daemon.blocked() == [stays]
            });
            assert!(ended, "{order:?}: {:?}\n{}", daemon.blocked(), daemon.log());
            assert!(!scene.reaches_from("20.1.0.1"), "{order:?}\n{}", daemon.log());
            assert_eq!(
                scene.reaches_from("20.0.0.1"),
                stays == inner,
                "{order:?}\n{}",
                daemon.log()
            );
            scene.flush(&daemon);
            assert_eq!(daemon.blocked(), [stays]);
            assert_eq!(
                (scene.drops("20.1.0.1"), scene.drops("20.0.0.1")),
                (true, stays == outer),
                "{order:?}"
            );
            done(&daemon.ctl(&["unblock", "--all"]));
        }
    }
}

#[test]
fn a_shorter_prefix_keeps_a_host_within_a_blocked_network() {
    let scene = scene!();
    let (host, network) = ("fd20:1:1:1::/64", "fd20:1:1::/48");
    for order in [[host, network], [network, host]] {
        let mut daemon = Daemon::start(&scene.host, "block: { ipv6_prefix: 64 }");
        for target in order {
            done(&daemon.ctl(&["block", target, "--for", "2h"]));
        }
        let longer = "block: { ipv6_prefix: 56 }";
        daemon.write_configuration(longer);
        done(&daemon.ctl(&["reload"]));
        scene.through_everything(&mut daemon, longer, |daemon, when| {
            let blocked = sorted(daemon.blocked());
            assert_eq!(blocked.len(), 2, "{when}: {blocked:?}\n{}", daemon.log());
            assert!(blocked.iter().any(|of| of == network), "{when}: {blocked:?}");
            assert!(
                !scene.scanner.pings(&["-I", "fd20:1:1:1::5", "fd69::1"]),
                "{when}\n{}",
                daemon.log()
            );
            // A busy machine may lose one.
            assert!(
                eventually(ANSWER_TIMEOUT, || scene.scanner.pings(&[
                    "-I",
                    "fd20:1:2:1::5",
                    "fd69::1"
                ])),
                "{when}\n{}",
                daemon.log()
            );
        });
        // When the network goes, the host's own block stays.
        done(&daemon.ctl(&["unblock", "--all"]));
        daemon.stop();
    }
}

// P1
#[test]
fn a_protected_address_in_a_blocked_network_is_exempt_alone() {
    let scene = scene!();
    let network = "172.16.0.0/12";
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", network, "--for", "0"]));
    assert!(!scene.reaches_from("172.17.0.9") && !scene.reaches_from("172.17.0.10"));
    // An allowed host, an own address, a gateway.
    done(&daemon.ctl(&["allow", "add", "172.17.0.9"]));
    scene.host.run("ip", &["addr", "add", "172.18.0.5/32", "dev", DEVICE]);
    scene.host.run(
        "ip",
        &["route", "add", "198.51.100.0/24", "via", "172.19.0.1", "dev", DEVICE, "onlink"],
    );
    let expected = ["172.17.0.9", "172.18.0.5", "172.19.0.1"];
    assert!(
        eventually(ANSWER_TIMEOUT, || expected.iter().all(|address| !scene.drops(address))),
        "{}",
        daemon.log()
    );
    scene.through_everything(&mut daemon, "", |daemon, when| {
        assert_eq!(daemon.blocked(), [network], "{when}\n{}", daemon.log());
        assert_eq!(left(daemon, network), Some(PERMANENT), "{when}");
        for address in expected {
            assert!(!scene.drops(address), "{when}: {address}");
        }
        for address in [
            "172.16.0.0",
            "172.17.0.8",
            "172.17.0.10",
            "172.18.0.4",
            "172.18.0.6",
            "172.19.0.0",
            "172.19.0.2",
            "172.31.255.255",
        ] {
            assert!(scene.drops(address), "{when}: {address}\n{}", daemon.log());
        }
        assert!(scene.reaches_from("172.17.0.9"), "{when}");
        assert!(!scene.reaches_from("172.17.0.10"), "{when}");
    });
}

#[test]
fn an_unblocked_host_in_a_blocked_network_is_exempt_and_the_rest_stays() {
    let scene = scene!();
    let network = "20.0.0.0/8";
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", network, "--for", "2h"]));
    let answer = done(&daemon.ctl(&["unblock", "20.1.0.1"]));
    assert!(
        answer.contains(
            "20.1.0.1 is exempt from the block of 20.0.0.0/8, the rest of which stays blocked"
        ),
        "{answer}"
    );
    scene.through_everything(&mut daemon, "", |daemon, when| {
        assert_eq!(daemon.blocked(), [network], "{when}\n{}", daemon.log());
        assert_eq!(exempt(daemon, network), ["20.1.0.1"], "{when}\n{}", daemon.log());
        assert!(left(daemon, network).is_some_and(|left| (7000..=7200).contains(&left)), "{when}");
        assert!(scene.reaches_from("20.1.0.1"), "{when}\n{}", daemon.log());
        assert!(
            !scene.reaches_from("20.1.0.2") && !scene.reaches_from("20.0.0.1"),
            "{when}\n{}",
            daemon.log()
        );
    });
    // A second time it is as true as the first.
    let again = done(&daemon.ctl(&["unblock", "20.1.0.1"]));
    assert!(again.contains("20.1.0.1 is exempt from the block of 20.0.0.0/8"), "{again}");
    assert_eq!(exempt(&daemon, network), ["20.1.0.1"]);
    // In two networks around it, and with a block of its own.
    done(&daemon.ctl(&["block", "20.1.0.0/16"]));
    done(&daemon.ctl(&["block", "20.1.0.2"]));
    assert!(!scene.reaches_from("20.1.0.2"));
    let answer = done(&daemon.ctl(&["unblock", "20.1.0.2"]));
    assert!(
        answer.contains("20.1.0.2 is unblocked")
            && answer.contains("the rest of which stays blocked"),
        "{answer}"
    );
    assert!(scene.reaches_from("20.1.0.2"), "{answer}\n{}", daemon.log());
    assert!(!scene.reaches_from("20.0.0.1"));
    // Blocking it again ends the exemption.
    done(&daemon.ctl(&["block", "20.1.0.2"]));
    assert!(!scene.reaches_from("20.1.0.2"));
}

#[test]
fn a_range_of_another_program_can_be_unblocked() {
    let scene = scene!();
    let daemon = Daemon::start(&scene.host, "");
    // What is left of a range may be hosts.
    let listing = || {
        ["blocked4", "blocked_nets4"]
            .map(|set| scene.host.run("nft", &["list", "set", "inet", "portsentry", set]))
            .concat()
    };
    for words in [["unblock", "203.0.113.0/24"], ["unblock", "--all"]] {
        for is_adopted in [true, false] {
            scene.nft("add element inet portsentry blocked_nets4 { 203.0.113.3-203.0.113.250 }");
            assert!(
                scene.drops("203.0.113.3") && scene.drops("203.0.113.250"),
                "{}\n{}",
                listing(),
                daemon.log()
            );
            // At once, and when the daemon has learned of it.
            if is_adopted {
                daemon.wait_for_log("added to the blocked sets");
                assert!(
                    eventually(ANSWER_TIMEOUT, || daemon.json(&["status"])["blocked"]
                        .as_u64()
                        .unwrap()
                        > 0),
                    "{}",
                    daemon.log()
                );
            }
            done(&daemon.ctl(&words));
            assert!(!listing().contains("elements"), "{words:?}: {}\n{}", listing(), daemon.log());
            assert!(daemon.blocked().is_empty(), "{:?}", daemon.blocked());
            scene.flush(&daemon);
            assert!(!listing().contains("elements"), "{words:?}: {}\n{}", listing(), daemon.log());
        }
    }
    // And a part of it.
    scene.nft("add element inet portsentry blocked_nets4 { 203.0.113.3-203.0.113.250 }");
    done(&daemon.ctl(&["unblock", "203.0.113.128/25"]));
    assert!(scene.drops("203.0.113.3") && scene.drops("203.0.113.127"), "{}", listing());
    assert!(!scene.drops("203.0.113.128") && !scene.drops("203.0.113.250"), "{}", listing());
}

#[test]
fn a_foreign_element_with_bits_below_the_prefix_becomes_the_prefix() {
    let scene = scene!();
    let daemon = Daemon::start(&scene.host, "block: { ipv6_prefix: 64 }");
    scene.nft("add element inet portsentry blocked6 { fd20:1:1:1::5 timeout 1h }");
    daemon.wait_for_log(
        "1 with bits below block.ipv6.first, which no rule looks up: blocked as the whole prefix",
    );
    let listing = || scene.host.run("nft", &["list", "set", "inet", "portsentry", "blocked6"]);
    let look = |when: &str| {
        assert_eq!(daemon.blocked(), ["fd20:1:1:1::/64"], "{when}\n{}", daemon.log());
        assert!(
            left(&daemon, "fd20:1:1:1::/64").is_some_and(|left| (3500..=3600).contains(&left)),
            "{when}"
        );
        assert!(
            !scene.scanner.pings(&["-I", "fd20:1:1:1::5", "fd69::1"]),
            "{when}\n{}",
            daemon.log()
        );
        assert!(
            !listing().contains("::5") && listing().contains("fd20:1:1:1:: "),
            "{when}: {}",
            listing()
        );
    };
    look("at first");
    scene.flush(&daemon);
    look("after a flush");
    // Of two of one prefix one row comes.
    scene.nft("add element inet portsentry blocked6 { fd20:1:1:1::6, fd20:1:1:1::7 }");
    assert!(
        eventually(ANSWER_TIMEOUT, || !listing().contains("::6") && !listing().contains("::7")),
        "{}",
        listing()
    );
    assert_eq!(daemon.blocked(), ["fd20:1:1:1::/64"]);
    done(&daemon.ctl(&["unblock", "fd20:1:1:1::5"]));
    assert!(!listing().contains("elements"), "{}", listing());
}
