//! Commands of the administrator, and edits with nft.

use super::*;
use ipnet::IpNet;

use crate::engine::{Adopted, OnList, Reason, Refusal, Unblocked};

#[test]
fn element_that_is_gone_when_it_is_asked_for_ends_the_block() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.is_there = false;
    bench.wait(SECOND);
    bench.syn(SCANNER, [4]);
    assert_eq!(bench.report_lines().last().unwrap(), "unblocked 203.0.113.9 Manual");
    bench.syn(SCANNER, [4, 5]);
    assert!(bench.blocked().is_empty());
}

#[test]
fn unblock_command_forgets_the_evidence() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.report_lines();
    bench.command(|engine, now, actions| engine.unblock(now, host(SCANNER), actions).unwrap());
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Manual"]);
    bench.syn(SCANNER, [4, 5]);
    assert!(bench.blocked().is_empty());
    bench.command(|engine, now, actions| {
        engine.block(now, host(SCANNER), Some(SECOND * 5), "abuse", actions).unwrap()
    });
    let network = Source::from("198.51.100.7/24".parse::<IpNet>().unwrap());
    bench.command(|engine, now, actions| engine.block(now, network, None, "", actions).unwrap());
    assert_eq!(bench.blocked(), ["198.51.100.0/24", SCANNER]);
    bench.wait(SECOND * 100);
    assert_eq!(bench.blocked(), ["198.51.100.0/24"]);
    bench.command(|engine, now, actions| {
        assert_eq!(
            engine.unblock(now, host("192.0.2.50"), actions).unwrap_err().to_string(),
            "unblock 192.0.2.50/32: it is not blocked"
        );
        assert!(engine.block(now, host("192.0.2.50"), Some(Duration::ZERO), "", actions).is_err());
        engine.unblock(now, network, actions).unwrap();
    });
    assert!(bench.blocked().is_empty());
}

#[test]
fn elements_found_at_start_are_adopted() {
    let mut bench = Bench::new(|policy| {
        policy.allow = ["198.51.100.1/32".parse().unwrap()].into_iter().collect()
    });
    bench.now = 7_200_000;
    let element = |address, remaining, reason| Adopted {
        source: host(address),
        timeout: Some(SECOND * 3600),
        remaining,
        reason,
        since: None,
        port: None,
        exempt: Vec::new(),
    };
    let scan = Reason::Scan { scan: ScanKind::Syn, proven: false, detail: "3 ports".into() };
    let found = [
        element(SCANNER, Some(SECOND * 60), scan.clone()),
        element("203.0.113.10", None, Reason::Foreign("x".into())),
        element("198.51.100.1", None, scan),
    ];
    bench.command(|engine, now, actions| engine.adopt(now, found, actions));
    assert_eq!(bench.report_lines(), ["unblocked 198.51.100.1 NeverBlock"]);
    let view = bench.engine.blocked(host(SCANNER)).unwrap();
    assert_eq!(
        (view.since.millis(), view.expires.unwrap().millis()),
        (7_200_000 - 3_540_000, 7_260_000)
    );
    bench.syn(SCANNER, 1..9);
    assert_eq!(bench.engine.status().already_blocked, 6);
    bench.wait(SECOND * 61);
    assert_eq!(bench.report_lines(), ["unblocked 203.0.113.9 Expired"]);
    assert_eq!(bench.blocked(), ["203.0.113.10"]);
}

#[test]
fn unblock_makes_the_rules_forget_the_ports() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 2);
    bench.syn("203.0.113.9", [1, 2, 3]);
    let source = Source::of("203.0.113.9".parse().unwrap(), 64);
    bench.command(|engine, now, actions| engine.unblock(now, source, actions).unwrap());
    let [(released, Some(ports))] = bench.released.as_slice() else {
        panic!("{:?}", bench.released)
    };
    assert_eq!(*released, source);
    let mut numbers: Vec<_> = ports.iter().map(|port| port.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn unblock_without_reflex_releases_nothing() {
    let mut bench = Bench::new(|policy| (policy.scan_trigger, policy.reflex) = (2, false));
    bench.syn("203.0.113.9", [1, 2, 3]);
    let source = Source::of("203.0.113.9".parse().unwrap(), 64);
    bench.command(|engine, now, actions| engine.unblock(now, source, actions).unwrap());
    assert_eq!(bench.released, []);
}

#[test]
fn removed_element_ends_block_and_evidence() {
    let mut bench = Bench::new(|_| {});
    bench.syn(SCANNER, 1..=3);
    bench.report_lines();
    let mut was_blocked = Vec::new();
    for _ in 0..2 {
        bench.command(|engine, now, actions| {
            was_blocked.push(engine.element_removed(now, host(SCANNER), actions))
        });
    }
    assert_eq!(
        (was_blocked, bench.report_lines()),
        (vec![true, false], vec!["unblocked 203.0.113.9 Removed".to_owned()])
    );
    bench.syn(SCANNER, [4, 5]);
    assert!(bench.blocked().is_empty());
    // While an order is in flight, the kernel's answer decides.
    bench.answers = false;
    bench.syn(SCANNER, [6]);
    bench.command(|engine, now, actions| {
        assert!(!engine.element_removed(now, host(SCANNER), actions))
    });
    bench.answer(Outcome::Blocked { source: host(SCANNER), result: Ok(()) });
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn changed_element_counts_with_the_kernels_values() {
    let mut bench = Bench::new(|policy| {
        policy.allow = ["198.51.100.1/32".parse().unwrap()].into_iter().collect()
    });
    let element = |address, seconds: Option<u32>| {
        let time = seconds.map(|seconds| SECOND * seconds);
        Adopted {
            source: host(address),
            timeout: time,
            remaining: time,
            reason: Reason::Foreign(Box::default()),
            since: None,
            port: None,
            exempt: Vec::new(),
        }
    };
    let mut news = Vec::new();
    for (address, seconds) in [
        (SCANNER, Some(60)),
        (SCANNER, Some(61)),
        (SCANNER, Some(600)),
        (SCANNER, None),
        (SCANNER, None),
        ("198.51.100.1", None),
    ] {
        bench.command(|engine, now, actions| {
            news.push(engine.element_changed(now, element(address, seconds), actions))
        });
    }
    // A difference of a second is within the tolerance.
    assert_eq!(news, [true, false, true, true, false, true]);
    assert_eq!(bench.report_lines(), ["unblocked 198.51.100.1 NeverBlock"]);
    bench.wait(SECOND * 100_000);
    assert_eq!(bench.blocked(), [SCANNER]);
}

#[test]
fn unblock_within_a_network_exempts_that_part() {
    let mut bench = Bench::new(|_| {});
    let source = |text: &str| Source::from(text.parse::<IpNet>().unwrap());
    let order = |bench: &mut Bench, text: &str| {
        bench.command(|engine, now, actions| {
            engine.block(now, source(text), None, "", actions).unwrap()
        });
        bench.report_lines();
    };
    for text in ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/48"] {
        order(&mut bench, text);
    }
    let mut done = Unblocked::default();
    bench.command(|engine, now, actions| {
        done = engine.unblock_within(now, source("10.1.2.3/32"), actions)
    });
    assert_eq!((done.lifted.len(), done.exempted.len()), (1, 2));
    let mut lines = bench.report_lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "exempted 10.1.2.3/32 from 10.0.0.0/8",
            "exempted 10.1.2.3/32 from 10.1.0.0/16",
            "unblocked 10.1.2.3 Manual"
        ]
    );
    // An IPv6 address stands for its first account.
    bench.command(|engine, now, actions| {
        done = engine.unblock_within(now, source("2001:db8:0:7::1/128"), actions)
    });
    assert_eq!(
        bench.engine.blocked(source("2001:db8::/48")).unwrap().exempt,
        ["2001:db8:0:7::1/128".parse::<IpNet>().unwrap()]
    );
    // A wider exemption replaces those within it.
    bench.command(|engine, now, actions| {
        done = engine.unblock_within(now, source("10.1.2.0/24"), actions)
    });
    assert_eq!(
        bench.engine.blocked(source("10.0.0.0/8")).unwrap().exempt,
        ["10.1.2.0/24".parse::<IpNet>().unwrap()]
    );
    order(&mut bench, "10.0.0.0/8");
    assert!(bench.engine.blocked(source("10.0.0.0/8")).unwrap().exempt.is_empty());
    // Blocks within the target are lifted.
    bench.command(|engine, now, actions| {
        done = engine.unblock_within(now, source("10.0.0.0/7"), actions)
    });
    assert_eq!((done.lifted.len(), bench.blocked()), (2, vec!["2001:db8::/48".to_owned()]));
}

#[test]
fn exemption_waits_and_a_lift_precedes_it() {
    let mut bench = Bench::new(|_| {});
    let network = Source::from("10.0.0.0/8".parse::<IpNet>().unwrap());
    let part: IpNet = "10.1.2.3/32".parse().unwrap();
    bench.answers = false;
    bench.command(|engine, now, actions| engine.block(now, network, None, "", actions).unwrap());
    bench.answers = true;
    bench.answer(Outcome::Blocked { source: network, result: Ok(()) });
    bench.answers = false;
    bench.command(|engine, now, actions| {
        engine.block(now, network, Some(SECOND * 100), "", actions).unwrap()
    });
    bench.command(|engine, now, actions| {
        drop(engine.unblock_within(now, Source::from(part), actions))
    });
    bench.answers = true;
    bench.answer(Outcome::Blocked { source: network, result: Ok(()) });
    assert_eq!(bench.engine.blocked(network).unwrap().exempt, [part]);
    // A refusal of the kernel leaves the block unchanged and is reported.
    bench.refuse = true;
    bench.command(|engine, now, actions| {
        drop(engine.unblock_within(
            now,
            Source::from("10.9.9.9/32".parse::<IpNet>().unwrap()),
            actions,
        ))
    });
    assert_eq!(bench.engine.blocked(network).unwrap().exempt, [part]);
    assert_eq!(bench.report_lines().last().unwrap(), "unblock failed 10.0.0.0/8 set is full");
}

#[test]
fn a_loading_gives_way_to_a_later_one_of_the_same_list() {
    let mut bench = Bench::new(|_| {});
    let name = "scanners".parse().unwrap();
    let (mut first, mut second) = (None, None);
    let hour = Some(SECOND * 3600);
    bench.command(|engine, now, actions| {
        let loading = engine.begin_list(&name, "", false).unwrap();
        engine.block_listed(now, host("192.0.2.1"), hour, &loading, actions).unwrap();
        first = Some(loading);
    });
    bench.command(|engine, now, actions| {
        let loading = engine.begin_list(&name, "", false).unwrap();
        let of = |engine: &mut Engine, address, actions: &mut Vec<Action>| {
            engine.block_listed(now, host(address), hour, &loading, actions).unwrap()
        };
        assert_eq!(of(engine, "192.0.2.1", actions), OnList::Kept);
        assert_eq!(of(engine, "192.0.2.2", actions), OnList::New);
        // The kernel has not answered yet: what is ordered counts.
        assert_eq!(engine.on_list(Some(&name), Some(&loading), 0, 10), (Vec::new(), None));
        second = Some(loading);
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    bench.command(|engine, now, actions| {
        let superseded = Refusal::Superseded(name.clone());
        let late = engine.block_listed(now, host("192.0.2.3"), hour, &first, actions);
        assert_eq!((late, engine.is_loading(&first)), (Err(superseded.clone()), Err(superseded)));
        assert_eq!(engine.is_loading(&second), Ok(()));
        let all = vec![host("192.0.2.1"), host("192.0.2.2")];
        assert_eq!(engine.on_list(Some(&name), Some(&first), 0, 10), (all, None));
        assert_eq!(engine.on_list(None, Some(&second), 0, 10), (Vec::new(), None));
        assert_eq!(engine.status().lists[0].blocks, 2);
    });
}

#[test]
fn a_list_takes_over_only_what_ends_before_it() {
    let mut bench = Bench::new(|_| {});
    let name = "scanners".parse().unwrap();
    bench.syn(SCANNER, 1..=3);
    bench.command(|engine, now, actions| {
        engine.block(now, host("192.0.2.1"), None, "", actions).unwrap();
        engine.block(now, host("192.0.2.2"), Some(SECOND), "", actions).unwrap();
    });
    bench.command(|engine, now, actions| {
        let loading = engine.begin_list(&name, "", false).unwrap();
        let mut load = |address| {
            let hour = Some(SECOND * 3600);
            engine.block_listed(now, host(address), hour, &loading, actions).unwrap()
        };
        assert_eq!(load("192.0.2.1"), OnList::Elsewhere);
        assert_eq!(load("192.0.2.2"), OnList::New);
        // An unproven scan's drops less.
        assert_eq!(load(SCANNER), OnList::New);
    });
    bench.command(|engine, now, actions| {
        assert_eq!(engine.on_list(Some(&name), None, 0, 10).0, [host(SCANNER), host("192.0.2.2")]);
        engine.unblock(now, host(SCANNER), actions).unwrap();
    });
    bench.command(|engine, _, _| assert_eq!(engine.status().lists[0].blocks, 1));
    bench.wait(SECOND * 3601);
    bench.command(|engine, _, _| assert!(engine.status().lists.is_empty()));
    assert_eq!(bench.blocked(), ["192.0.2.1"]);
}
