//! Sets that rules fill, and the statements that fill them, over the kernel and against `nft`.

use std::time::Duration;

use portsentry::nft::lower::lower;
use portsentry::nft::model::{Owner, Rate, Selector, Unit, Verdict};
use portsentry::nft::text::Form;
use portsentry::nft::{Chain, Connection, Element, Key, Rule, Ruleset, Set, Statement};
use portsentry::ruleset::{SCHEMA, SetId};

use super::{address, file, listing, path};
use crate::support::expressions;
use crate::support::missing;
use crate::support::netns::Namespace;

/// A window, and how many ports may be touched within it: of each unit that nft has a word for, and
/// odd ones.
const RATES: [(u64, Unit, u32); 7] = [
    (12, Unit::Hour, 2),
    (1, Unit::Second, 1),
    (65_535, Unit::Second, 65_535),
    (7, Unit::Minute, 500),
    (3, Unit::Day, 1),
    (1, Unit::Week, 1),
    (40_000_000_000, Unit::Week, 65_535),
];

fn dynamic(id: SetId, size: u32) -> Set {
    Set {
        id: id.spec(),
        owner: Owner::Rules,
        timeouts: true,
        timeout: None,
        size: Some(size),
        counter: false,
        comment: Some("a test"),
        elements: Vec::new(),
    }
}

/// Every form: with and without timeout, with and without limit, several in one rule, IPv6 with
/// each kind of mask, and within a concatenation.
fn ruleset(prefix: u8) -> Ruleset {
    let sets = [
        SetId::Seen4,
        SetId::Seen6,
        SetId::Score4,
        SetId::Score6,
        SetId::Suspect4,
        SetId::Suspect6,
        SetId::Held4,
        SetId::Held6,
    ];
    let mut rules = Vec::new();
    let families = [
        (Selector::Ip4Saddr, SetId::Seen4, SetId::Score4, SetId::Suspect4, SetId::Held4),
        (
            Selector::Ip6SaddrPrefix(prefix),
            SetId::Seen6,
            SetId::Score6,
            SetId::Suspect6,
            SetId::Held6,
        ),
    ];
    let rule = |statements: Vec<Statement>| Rule { why: "", statements };
    for (source, seen, score, suspect, held) in families {
        let port = vec![source, Selector::L4Proto, Selector::ThDport];
        rules.push(rule(vec![
            Statement::Lookup { set: seen.spec(), key: port.clone() },
            Statement::Verdict(Verdict::Goto("end")),
        ]));
        for (packets, per, burst) in RATES {
            // The kernel keeps it in ticks of its clock (jiffies): whole seconds are the same on
            // each.
            let timeout = Some(Duration::from_secs(90_061));
            rules.push(rule(vec![
                Statement::Add { set: seen.spec(), key: port.clone(), timeout },
                Statement::Update {
                    set: suspect.spec(),
                    key: vec![source],
                    timeout: None,
                    over: None,
                },
                Statement::Update {
                    set: score.spec(),
                    key: vec![source],
                    timeout,
                    over: Some(Rate { packets, per, burst }),
                },
                Statement::Update {
                    set: score.spec(),
                    key: vec![source],
                    timeout: None,
                    over: Some(Rate { packets, per, burst }),
                },
                Statement::Add { set: held.spec(), key: vec![source], timeout: None },
                Statement::Update {
                    set: held.spec(),
                    key: vec![source],
                    timeout: Some(Duration::from_secs(10)),
                    over: None,
                },
                Statement::Verdict(Verdict::Goto("end")),
            ]));
        }
    }
    let end = Chain {
        name: "end",
        base: None,
        rules: vec![rule(vec![Statement::Counter, Statement::Verdict(Verdict::Drop)])],
    };
    Ruleset {
        sets: sets.map(|id| dynamic(id, 1000)).into(),
        chains: vec![end, Chain { name: "count", base: None, rules }],
    }
}

#[test]
fn dynamic_sets_and_their_statements_are_the_same_in_every_form() {
    if missing(&["ip", "nft"]).is_some() {
        return;
    }
    let (by_text, by_netlink, again) = (Namespace::new(), Namespace::new(), Namespace::new());
    for prefix in [48, 56, 64, 127, 128] {
        let ruleset = ruleset(prefix);
        let replace = file(&ruleset.render(SCHEMA.table, Form::Replace));
        let debug = by_text.run(
            "nft",
            &[
                "-c",
                "--debug=netlink",
                "-f",
                path(&file(&ruleset.render(SCHEMA.table, Form::Table))),
            ],
        );
        let theirs: Vec<&str> =
            debug.lines().filter(|line| line.starts_with("  [ ")).map(str::trim).collect();
        let ours: Vec<String> = ruleset
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().flat_map(lower))
            .map(|expr| expressions::print(&expr))
            .collect();
        assert_eq!(ours, theirs, "/{prefix}");

        by_text.run("nft", &["-f", path(&replace)]);
        assert_eq!(
            by_text.enter(|| Connection::open(SCHEMA).unwrap().verify(&ruleset).unwrap()),
            None,
            "/{prefix}"
        );
        by_netlink.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            let _ = connection.remove_table();
            connection.install(&ruleset).unwrap_or_else(|error| panic!("/{prefix}: {error}"));
            // Elements added by a rule can be deleted one by one, and the others are found.
            for (set, key) in [
                (SetId::Seen4, Key::Touch(address("192.0.2.1"), 6, 22)),
                (SetId::Seen6, Key::Touch(address("2001:db8::"), 17, 65_535)),
                (SetId::Held4, Key::from(address("192.0.2.1"))),
                (SetId::Suspect6, Key::from(address("2001:db8::"))),
            ] {
                let element = Element::new(key).timeout(Some(Duration::from_secs(60)));
                connection
                    .add_element(set, &element)
                    .unwrap_or_else(|error| panic!("{key}: {error}"));
                assert_eq!(
                    connection
                        .dump_set(set)
                        .unwrap()
                        .iter()
                        .map(|info| info.key)
                        .collect::<Vec<_>>(),
                    [key]
                );
                connection.delete_element(set, &element).unwrap();
                assert!(connection.delete_element(set, &element).unwrap_err().is_not_found());
            }
        });
        let listed = listing(&by_netlink);
        assert_eq!(listed, listing(&by_text), "/{prefix}");
        again.run("nft", &["flush", "ruleset"]);
        again.run("nft", &["-f", path(&file(&listed))]);
        assert_eq!(listing(&again), listed, "/{prefix}");
    }
}
