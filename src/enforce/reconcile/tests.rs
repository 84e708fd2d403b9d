//! Every combination of what is wanted, what is there and why we look, and the cases that need a
//! story.

mod fixtures;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::fixtures::*;
use super::*;

#[test]
fn a_host_is_dealt_with_by_what_is_wanted_what_is_there_and_why_we_look() {
    let name = "2001:db8:0:1::/64";
    let mut cases = 0;
    for (origin, existed, missing) in ORIGINS {
        for wants in WANTS {
            for there in THERE {
                let there_left = Some(left(wants));
                let elements = match there {
                    There::Nothing => Vec::new(),
                    There::Same => vec![element(name, there_left, OURS)],
                    There::OtherEnd => vec![element(name, Some(300), OURS)],
                    There::OtherComment => {
                        vec![element(name, there_left, Some("of another program"))]
                    }
                    There::Bare => vec![element(name, there_left, None)],
                    There::Stray => vec![(
                        SetId::Blocked6,
                        info(Key::V6("2001:db8:0:1::5".parse().unwrap()), None, there_left, OURS),
                    )],
                };
                let expected: &[&str] = match (there, wants, missing) {
                    (There::Nothing, Want::Nothing, _) => &[],
                    (There::Nothing, Want::Block, Missing::Lost)
                    | (There::Nothing, Want::Ending, Missing::Lost) => &["restore"],
                    (There::Nothing, Want::Block | Want::MustNot, Missing::TakenOut) => {
                        &["unblock"]
                    }
                    (There::Nothing, Want::MustNot, Missing::Lost) => &["drop NeverBlock"],
                    (There::Nothing, Want::Over, _)
                    | (There::Nothing, Want::Ending, Missing::TakenOut) => &["drop Over"],
                    // Whether another program's block must not be is for the engine, which lifts
                    // it.
                    (There::Stray, _, _) => &["delete", "restore"],
                    (_, Want::Nothing, _) => &["adopt"],
                    (There::Same, _, _) => &["keep"],
                    (There::OtherEnd | There::OtherComment, _, _) => &["retime"],
                    (There::Bare, _, _) => &["keep"],
                };
                let steps = steps(
                    origin,
                    want(name, wants),
                    &present(elements, Default::default(), existed),
                    &|_| wants == Want::MustNot,
                    100,
                );
                let kinds: Vec<String> = all(&steps)
                    .iter()
                    .map(|step| {
                        step.replace(" 2001:db8:0:1::/64", "").replace(" 2001:db8:0:1::5", "")
                    })
                    .collect();
                assert_eq!(kinds, expected, "{origin:?}, existed: {existed}, {wants:?}, {there:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 13 * 5 * 6);
}

#[test]
fn a_network_is_dealt_with_by_what_is_wanted_what_is_there_and_why_we_look() {
    let name = "10.0.0.0/8";
    let mut cases = 0;
    for (origin, existed, missing) in ORIGINS {
        for wants in WANTS {
            // Intervals of several networks are cut and joined: comments say nothing, and no bits
            // are left over.
            for there in
                [There::Nothing, There::Same, There::OtherEnd, There::OtherComment, There::Bare]
            {
                let there_left = Some(left(wants));
                let elements = match there {
                    There::Nothing | There::Stray => Vec::new(),
                    There::Same => vec![interval(name, there_left, OURS)],
                    There::OtherEnd => vec![interval(name, Some(300), OURS)],
                    There::OtherComment => {
                        vec![interval(name, there_left, Some("of another program"))]
                    }
                    There::Bare => vec![interval(name, there_left, None)],
                };
                let expected: &[&str] = match (there, wants, missing) {
                    (There::Nothing, Want::Nothing, _) => &[],
                    (There::Nothing, Want::Over, _) => &["drop Over"],
                    (There::Nothing, Want::MustNot, _) => &["drop NeverBlock"],
                    (There::Nothing, Want::Block, Missing::TakenOut) => &["unblock"],
                    // The kernel may have ended it by itself, a moment early.
                    (There::Nothing, Want::Ending, Missing::TakenOut) => &["keep"],
                    (There::Nothing, _, _) => &["restore"],
                    (_, Want::Nothing, _) => &["adopt"],
                    (_, Want::Over, _) => &["adopt", "drop Over"],
                    (_, Want::MustNot, _) => &["adopt", "drop NeverBlock"],
                    (There::OtherEnd, _, _) => &["keep", "retime"],
                    _ => &["keep"],
                };
                let networks = [elements, Vec::new()];
                let steps = steps(
                    origin,
                    want(name, wants),
                    &present(Vec::new(), networks, existed),
                    &|_| wants == Want::MustNot,
                    100,
                );
                let kinds: Vec<String> =
                    all(&steps).iter().map(|step| step.replace(" 10.0.0.0/8", "")).collect();
                assert_eq!(kinds, expected, "{origin:?}, existed: {existed}, {wants:?}, {there:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 13 * 5 * 5);
}

#[test]
fn what_both_have_has_the_kernels_time_and_the_stores_past() {
    let hosts =
        vec![element("192.0.2.1", Some(50), OURS), element("192.0.2.2", Some(60), Some("newer"))];
    let merged = blocked(&steps(
        RESTART,
        vec![wanted("192.0.2.1", Some(900)), wanted("192.0.2.2", Some(900))],
        &present(hosts, Default::default(), true),
        &|_| false,
        100,
    ));
    let (both, newer) = (&merged["192.0.2.1"], &merged["192.0.2.2"]);
    assert_eq!(
        (both.remaining, both.since),
        (Some(Duration::from_secs(50)), Some(MonoTime::from_millis(NOW - 100_000)))
    );
    assert_eq!(both.port.unwrap().number, 23);
    assert_eq!((newer.since, newer.port, newer.reason.to_string().as_str()), (None, None, "newer"));
    assert_eq!(newer.remaining, Some(Duration::from_secs(60)));
    assert_eq!(merged.len(), 2);
}

/// Unproven blocks and elements: what is wanted, the sets and comments that are there, the steps.
#[test]
fn an_unproven_block_has_its_element_in_a_set_of_its_own() {
    const SCAN: Option<&str> = Some("syn scan: 3 ports");
    let unproven = || {
        let reason: Reason = "syn scan: 3 ports".parse().unwrap();
        vec![Wanted { reason: leaked(reason), ..wanted("192.0.2.1", Some(50)) }]
    };
    let proven = || vec![wanted("192.0.2.1", Some(900))];
    const FULL: SetId = SetId::Blocked4;
    const LENIENT: SetId = SetId::Unproven4;
    type Row = (&'static str, Vec<Wanted>, &'static [There], &'static [&'static str]);
    type There = (SetId, Option<&'static str>);
    let rows: [Row; 8] = [
        ("as it should be", unproven(), &[(LENIENT, SCAN)], &["keep"]),
        ("before its comment", unproven(), &[(LENIENT, None)], &["keep"]),
        ("of an earlier version", unproven(), &[(FULL, SCAN)], &["delete", "restore"]),
        ("not stored", vec![], &[(LENIENT, SCAN)], &["adopt"]),
        (
            "added with nft beside it",
            unproven(),
            &[(FULL, Some("mine")), (LENIENT, SCAN)],
            &["delete", "retime"],
        ),
        ("added with nft, bare", unproven(), &[(FULL, None)], &["delete", "retime"]),
        (
            "added with nft into the wrong set",
            vec![],
            &[(LENIENT, Some("mine"))],
            &["delete", "restore"],
        ),
        ("proven a moment ago", proven(), &[(FULL, OURS), (LENIENT, SCAN)], &["delete", "keep"]),
    ];
    for (what, wanted, there, expected) in rows {
        let key = element("192.0.2.1", None, None).1.key;
        let left = wanted
            .first()
            .and_then(|block| block.expires)
            .map_or(50, |end| end.since(now()).as_secs());
        let hosts =
            there.iter().map(|(set, comment)| (*set, info(key, None, Some(left), *comment)));
        let there = present(hosts.collect(), Default::default(), true);
        let steps = steps(RESTART, wanted, &there, &|_| false, 100);
        let words: Vec<String> =
            all(&steps).iter().map(|step| step.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(words, expected, "{what}: {steps:?}");
    }
}

#[test]
fn a_reason_that_a_comment_cannot_hold_is_the_same_all_the_same() {
    let reason = Reason::Manual("say \"no\"".into());
    let block = Wanted { reason: leaked(reason.clone()), ..wanted("192.0.2.1", None) };
    let there = present(
        vec![element("192.0.2.1", None, Some("by hand: say ?no?"))],
        Default::default(),
        true,
    );
    let steps = steps(RESTART, vec![block], &there, &|_| false, 100);
    assert_eq!(all(&steps), ["keep 192.0.2.1"]);
    assert_eq!(blocked(&steps)["192.0.2.1"].reason, reason);
}

#[test]
fn what_only_the_store_has_was_taken_out_or_comes_back() {
    let stored = || {
        vec![
            wanted("192.0.2.1", None),
            wanted("192.0.2.2", Some(900)),
            wanted("192.0.2.3", Some(3)),
        ]
    };
    let same_boot =
        steps(RESTART, stored(), &present(Vec::new(), Default::default(), true), &|_| false, 100);
    // What was to end within seconds was not taken out by another program.
    assert_eq!(all(&same_boot), ["drop 192.0.2.3 Over", "unblock 192.0.2.1", "unblock 192.0.2.2"]);
    let reboot =
        steps(LOST, stored(), &present(Vec::new(), Default::default(), true), &|_| false, 100);
    assert_eq!(all(&reboot), ["restore 192.0.2.1", "restore 192.0.2.2", "restore 192.0.2.3"]);
    let back = &blocked(&reboot)["192.0.2.2"];
    assert_eq!(
        (back.timeout, back.remaining),
        (Some(Duration::from_secs(1000)), Some(Duration::from_secs(900)))
    );
}

#[test]
fn another_programs_interval_within_a_block_that_ends_before_it_is_a_block_of_its_own() {
    for (end, expected) in [
        (None, &["adopt 10.1.0.0/16", "keep 10.0.0.0/8"][..]),
        (Some(900), &["adopt 10.1.0.0/16", "keep 10.0.0.0/8"]),
        (Some(50), &["keep 10.0.0.0/8"]),
        (Some(20), &["keep 10.0.0.0/8"]),
    ] {
        let networks = [vec![interval("10.1.0.0/16", end, Some("x"))], Vec::new()];
        let steps = steps(
            LOST,
            vec![wanted("10.0.0.0/8", Some(50))],
            &present(Vec::new(), networks, false),
            &|_| false,
            100,
        );
        assert_eq!(all(&steps), expected, "{end:?}");
    }
}

#[test]
fn what_must_not_be_blocked_and_what_has_no_room_stays_out() {
    let stored = vec![
        wanted("192.0.2.1", Some(10)),
        wanted("192.0.2.2", None),
        wanted("192.0.2.3", Some(20)),
        wanted("192.0.2.4", None),
    ];
    let there = present(vec![element("192.0.2.9", None, Some("x"))], Default::default(), false);
    let steps = steps(LOST, stored, &there, &|of| of == source("192.0.2.4"), 3);
    assert_eq!(
        all(&steps),
        [
            "adopt 192.0.2.9",
            "drop 192.0.2.1 Total",
            "drop 192.0.2.4 NeverBlock",
            "restore 192.0.2.2",
            "restore 192.0.2.3"
        ]
    );
}

#[test]
fn with_less_room_than_there_are_blocks_those_that_last_longest_stay_and_the_others_leave_the_kernel()
 {
    let hosts = vec![
        element("192.0.2.1", Some(50), OURS),
        element("192.0.2.2", Some(60), OURS),
        element("192.0.2.3", None, Some("x")),
    ];
    let networks = [
        vec![interval("10.0.0.0/8", Some(40), OURS), interval("11.0.0.0/8", None, OURS)],
        Vec::new(),
    ];
    let stored = || {
        [
            ("192.0.2.1", Some(50)),
            ("192.0.2.2", Some(900)),
            ("10.0.0.0/8", Some(40)),
            ("11.0.0.0/8", None),
        ]
        .map(|(name, left)| wanted(name, left))
        .into()
    };
    let there = present(hosts, networks, true);
    let with_room = |total| all(&steps(RESTART, stored(), &there, &|_| false, total));
    let kept = [
        "adopt 192.0.2.3",
        "keep 10.0.0.0/8",
        "keep 11.0.0.0/8",
        "keep 192.0.2.1",
        "retime 192.0.2.2",
    ];
    assert_eq!(with_room(5), kept);
    // The kernel's end counts: the second has 60 s, whatever was stored. A network leaves with the
    // difference of its set.
    assert_eq!(
        with_room(3),
        [
            "adopt 192.0.2.3",
            "delete 192.0.2.1",
            "drop 10.0.0.0/8 Total",
            "drop 192.0.2.1 Total",
            "keep 11.0.0.0/8",
            "retime 192.0.2.2"
        ]
    );
    assert_eq!(with_room(0).iter().filter(|step| step.starts_with("drop")).count(), 5);
    assert_eq!(with_room(0).iter().filter(|step| step.starts_with("delete")).count(), 3);
}

#[test]
fn a_prefix_of_another_length_comes_back_as_the_network_that_was_blocked() {
    let there = present(Vec::new(), Default::default(), false);
    assert_eq!(
        all(&steps(LOST, vec![wanted("2001:db8:0:100::/56", None)], &there, &|_| false, 100)),
        ["restore 2001:db8:0:100::/56"]
    );
}

#[test]
fn networks_that_overlap_are_all_kept() {
    let names = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8", "172.16.0.0/12"];
    let networks = [vec![interval("172.16.7.0/24", None, Some("x"))], Vec::new()];
    let steps = steps(
        LOST,
        names.map(|name| wanted(name, None)).into(),
        &present(Vec::new(), networks, false),
        &|_| false,
        100,
    );
    // What another program blocked lies in what was stored: it is that.
    assert_eq!(all(&steps), names.map(|name| format!("keep {name}")));
    let mut map = Networks::default();
    for block in blocked(&steps).values() {
        map.set(block.source, None, &block.exempt);
    }
    let pieces = map.pieces(now(), Family::V4, Family::V4.all());
    let spans = merged(pieces.iter().map(|piece| piece.span).collect());
    assert_eq!(
        spans,
        [
            Span { first: 10 << 24, last: (12 << 24) - 1 },
            Span { first: 0xac10_0000, last: 0xac1f_ffff }
        ]
    );
    assert!(pieces.windows(2).all(|pair| pair[0].span.last < pair[1].span.first));
}

#[test]
fn a_part_that_was_taken_out_is_exempt_from_every_network_around_it() {
    let taken = |stored: &[&str], there: &[(&str, Option<u64>)]| {
        let stored = stored.iter().map(|name| wanted(name, None)).collect();
        let networks =
            [there.iter().map(|(name, left)| interval(name, *left, None)).collect(), Vec::new()];
        all(&steps(
            Origin::Drift { notified: true },
            stored,
            &present(Vec::new(), networks, true),
            &|_| false,
            100,
        ))
    };
    assert_eq!(
        taken(&["10.0.0.0/30"], &[("10.0.0.0/31", None)]),
        ["exempt 10.0.0.2/31 of 10.0.0.0/30", "keep 10.0.0.0/30"]
    );
    assert_eq!(
        taken(&["10.0.0.0/29", "10.0.0.0/30"], &[("10.0.0.0/31", None), ("10.0.0.4/30", None)]),
        [
            "exempt 10.0.0.2/31 of 10.0.0.0/29",
            "exempt 10.0.0.2/31 of 10.0.0.0/30",
            "keep 10.0.0.0/29",
            "keep 10.0.0.0/30"
        ]
    );
    // Of the inner one nothing is left.
    assert_eq!(
        taken(&["10.0.0.0/30", "10.0.0.2/31"], &[("10.0.0.0/31", None)]),
        ["exempt 10.0.0.2/31 of 10.0.0.0/30", "keep 10.0.0.0/30", "unblock 10.0.0.2/31"]
    );
    // What is missing and what is new at once.
    assert_eq!(
        taken(&["10.0.0.0/31"], &[("10.0.0.1/32", None), ("10.0.0.2/32", Some(60))]),
        ["exempt 10.0.0.0/32 of 10.0.0.0/31", "keep 10.0.0.0/31", "restore 10.0.0.2"]
    );
}

#[test]
fn an_interval_that_is_no_network_is_adopted_as_the_networks_and_hosts_that_make_it_up() {
    let range = |first: &str, last: &str| {
        info(Key::V4(first.parse().unwrap()), Some(Key::V4(last.parse().unwrap())), None, None)
    };
    let networks = [vec![range("203.0.113.3", "203.0.113.8")], Vec::new()];
    let found = steps(
        Origin::Drift { notified: true },
        vec![wanted("203.0.113.4/31", None)],
        &present(Vec::new(), networks, true),
        &|_| false,
        100,
    );
    assert_eq!(
        all(&found),
        [
            "adopt 203.0.113.6/31",
            "keep 203.0.113.4/31",
            "restore 203.0.113.3",
            "restore 203.0.113.8"
        ]
    );
}

/// A program adds an element with bits below the prefix beside the one that is there: the block
/// goes on.
#[test]
fn an_element_that_no_rule_looks_up_ends_no_block() {
    let stray = |last: u16| {
        (
            SetId::Blocked6,
            info(
                Key::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last)),
                None,
                Some(900),
                None,
            ),
        )
    };
    let name = "2001:db8:0:1::/64";
    let found = |stored: Vec<Wanted>, hosts| {
        all(&steps(
            Origin::Drift { notified: true },
            stored,
            &present(hosts, Default::default(), true),
            &|_| false,
            100,
        ))
    };
    let real = || element(name, Some(900), OURS);
    let block = || vec![wanted(name, Some(900))];
    // The notification named only the stray one.
    assert_eq!(
        found(block(), vec![stray(5)]),
        ["delete 2001:db8:0:1::5", "restore 2001:db8:0:1::/64"]
    );
    for hosts in [vec![stray(5), real()], vec![real(), stray(5)]] {
        assert_eq!(found(block(), hosts), ["delete 2001:db8:0:1::5", "keep 2001:db8:0:1::/64"]);
    }
    assert_eq!(
        found(Vec::new(), vec![stray(5), real()]),
        ["adopt 2001:db8:0:1::/64", "delete 2001:db8:0:1::5"]
    );
    // Two of them are one block.
    assert_eq!(
        found(Vec::new(), vec![stray(5), stray(6)]),
        ["delete 2001:db8:0:1::5", "delete 2001:db8:0:1::6", "restore 2001:db8:0:1::/64"]
    );
}

#[test]
fn a_network_that_leaves_something_out_and_has_the_length_of_an_account_goes_on_as_its_parts() {
    let block = || Wanted {
        exempt: leaked(["2001:db8::/65".parse().unwrap()]),
        ..wanted("2001:db8::/64", Some(900))
    };
    let found = in_parts(
        steps(
            LOST,
            vec![block()],
            &present(Vec::new(), Default::default(), false),
            &|_| false,
            100,
        ),
        placement(),
    );
    assert_eq!(all(&found), ["keep 2001:db8:0:0:8000::/65"]);
    assert!(
        blocked(&found)
            .values()
            .all(|part| part.exempt.is_empty() && part.remaining == Some(Duration::from_secs(900)))
    );
    // Where accounts have another length, it stays what it is.
    let kept = vec![Step::Keep(learned(now(), &block()))];
    assert_eq!(in_parts(kept.clone(), Placement::new(56)), kept);
}

proptest! {
    /// Store and kernel are what they were when the daemon was killed. Either may have had the last
    /// word on a source, but an acknowledged order is in both. Then what was acknowledged as
    /// blocked is blocked, and what was acknowledged as unblocked is not.
    #[test]
    fn what_was_acknowledged_holds_after_the_merge(
        orders in proptest::collection::vec((0u8..12, any::<bool>(), any::<bool>()), 0..40),
        reboot in any::<bool>(),
    ) {
        let (mut kernel, mut store) = (BTreeSet::new(), BTreeSet::new());
        let mut acknowledged = BTreeMap::new();
        for (n, block, is_acknowledged) in orders {
            let name = format!("192.0.2.{n}");
            // The kernel comes first, then the store, then the answer.
            if block { kernel.insert(name.clone()); } else { kernel.remove(&name); }
            if is_acknowledged {
                if block { store.insert(name.clone()); } else { store.remove(&name); }
                acknowledged.insert(name, block);
            } else {
                acknowledged.remove(&name);
            }
        }
        let elements = if reboot { Vec::new() } else { kernel.iter().map(|name| element(name, None, OURS)).collect() };
        let origin = if reboot { LOST } else { RESTART };
        let stored = store.iter().map(|name| wanted(name, None)).collect();
        // `blocked` fails when a source comes twice.
        let after = blocked(&steps(origin, stored, &present(elements, Default::default(), !reboot), &|_| false, 100));
        for (name, block) in acknowledged {
            prop_assert_eq!(after.contains_key(&name), block, "{}", name);
        }
    }
}
