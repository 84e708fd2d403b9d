//! Maps, chains, stateful objects and flowtables that another program adds to our table, and partly
//! refused installations.

use std::net::IpAddr;
use std::time::Duration;

use portsentry::nft::model::{Statement, Verdict};
use portsentry::nft::{
    Chain, Connection, Element, ElementInfo, Elements, FallbackLevel, Filling, Key, Order, Rule,
    Ruleset, SetSpec,
};
use portsentry::ruleset::{self, SCHEMA, SetId};

use super::support::netns::Namespace;
use super::{EPHEMERAL, address, default_ruleset, file, installed, listing, path, sorted};

/// Foreign objects; each loads into an existing table.
const ADDITIONS: [(&str, &str); 9] = [
    (
        "a verdict map, used by a rule, that jumps to their chain",
        "chain theirs { accept; }
         map m { type ipv4_addr : verdict; elements = { 10.9.9.9 : jump theirs }; }
         chain watch { ip saddr vmap @m; }",
    ),
    (
        "a verdict map that jumps to a chain of ours",
        "map m { type ipv4_addr : verdict; elements = { 10.9.9.9 : goto tell }; }
         chain theirs { type filter hook input priority 5; ip saddr vmap @m; }",
    ),
    (
        "a constant verdict map",
        "chain theirs { accept; }
         map m { type ipv4_addr : verdict; flags constant; elements = { 10.9.9.9 : jump theirs }; }
         chain watch { ip saddr vmap @m; }",
    ),
    ("an anonymous verdict map", "chain theirs { accept; }\n chain watch { ip saddr vmap { 10.9.9.9 : jump theirs }; }"),
    ("a counter that a rule uses", "counter packets_seen { }\n chain watch { counter name packets_seen; }"),
    (
        "a map of counters",
        "counter seen { }
         quota volume { over 1 mbytes; }
         map m { type ipv4_addr : counter; elements = { 10.9.9.9 : \"seen\" }; }
         chain theirs { type filter hook input priority 5; counter name ip saddr map @m; quota name \"volume\"; }",
    ),
    (
        "a chain that jumps to another chain that jumps on",
        "chain third { accept; }\n chain second { jump third; }\n chain theirs { type filter hook input priority 5; jump second; goto third; }",
    ),
    ("an implicit chain", "chain watch { ip saddr 10.9.9.9 jump { counter accept; }; }"),
    ("a set that a rule fills", "set recent { type ipv4_addr; flags dynamic,timeout; timeout 1m; }\n chain watch { add @recent { ip saddr }; }"),
];

fn load(namespace: &Namespace, additions: &str) {
    namespace
        .run("nft", &["-f", path(&file(&format!("table inet portsentry {{\n{additions}\n}}\n")))]);
}

/// After each addition the table is restored, with its blocks, without a fallback transaction.
fn is_undone(namespace: &Namespace, ruleset: &Ruleset, what: &str) {
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        assert!(connection.verify(ruleset).unwrap().is_some(), "{what}: not noticed");
        let installed =
            connection.install(ruleset).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(installed.fallback.is_none(), "{what}: {installed:?}");
        assert!(!installed.created(SetId::Blocked4), "{what}: {installed:?}");
    });
}

#[test]
fn foreign_objects_are_deleted_whatever_refers_to_them() {
    need!("nft");
    let (namespace, ruleset) = installed();
    namespace.enter(|| {
        Connection::open(SCHEMA)
            .unwrap()
            .add_element(SetId::Blocked4, &Element::new(address("192.0.2.1")))
            .unwrap()
    });
    let right = listing(&namespace);
    for (what, additions) in ADDITIONS {
        load(&namespace, additions);
        is_undone(&namespace, &ruleset, what);
        assert_eq!(sorted(&listing(&namespace)), sorted(&right), "{what}");
    }
    // All at once, except those that would use a name twice.
    for (_, additions) in [ADDITIONS[0], ADDITIONS[4], ADDITIONS[7], ADDITIONS[8]] {
        load(&namespace, additions);
    }
    is_undone(&namespace, &ruleset, "several");
    assert_eq!(sorted(&listing(&namespace)), sorted(&right));
}

#[test]
fn a_flowtable_of_others_is_deleted() {
    need!("nft");
    let (namespace, ruleset) = installed();
    let right = listing(&namespace);
    let flowtable = file(
        "table inet portsentry { flowtable f { hook ingress priority 0; devices = { lo }; }; }\n",
    );
    let output = namespace.output("nft", &["-f", path(&flowtable)], Duration::from_secs(10));
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr);
        // Not every kernel has the type of flowtables for family inet (module nf_flow_table_inet).
        assert!(
            output.contains("No such file or directory") || output.contains("not supported"),
            "{output}"
        );
        return;
    }
    is_undone(&namespace, &ruleset, "a flowtable");
    assert_eq!(sorted(&listing(&namespace)), sorted(&right));
}

fn element(network: &str) -> ElementInfo {
    let (key, end) = Key::network(network.parse().unwrap()).into_inner();
    ElementInfo {
        key,
        end: Some(end),
        timeout: None,
        expires: None,
        packets: 0,
        bytes: 0,
        comment: None,
    }
}

fn host(last: u8) -> ElementInfo {
    ElementInfo { end: None, ..element(&format!("192.0.2.{last}/32")) }
}

#[test]
fn rules_are_in_force_even_if_the_elements_of_one_set_are_refused() {
    need!();
    let mut config = portsentry::config::Config::default();
    config.block.total = 3;
    let ruleset = ruleset::for_config(&config, EPHEMERAL);
    let too_many: Vec<_> = (1..=5).map(host).collect();
    let overlapping = vec![element("20.0.0.0/8"), element("20.1.0.0/16")];
    for (set, elements) in [(SetId::Blocked4, too_many), (SetId::BlockedNets4, overlapping)] {
        let beside = [(set.spec(), elements.clone()), (SetId::Blocked6.spec(), Vec::new())];
        let instead = |id: SetSpec| {
            (id == set).then(|| Box::new(elements.clone().into_iter()) as Filling<'_>)
        };
        for how in ["beside", "instead"] {
            Namespace::new().enter(|| {
                let elements = if how == "beside" {
                    Elements::Beside(&beside)
                } else {
                    Elements::Instead(&instead)
                };
                let mut connection = Connection::open(SCHEMA).unwrap();
                // Once without a table, and once over a correct one, to which only the elements are
                // missing.
                for round in 0..2 {
                    let what = format!("{set:?} {how} {round}");
                    let installed = connection
                        .install_with(&ruleset, Order { elements, ..Order::default() })
                        .unwrap();
                    assert_eq!(connection.verify(&ruleset).unwrap(), None, "{what}");
                    assert_eq!(connection.dump_set(set).unwrap(), [], "{what}");
                    if round == 1 && how == "instead" {
                        assert!(
                            installed.is_unchanged() && installed.fallback.is_none(),
                            "{what}: no set is created"
                        );
                        continue;
                    }
                    let fallback = installed
                        .fallback
                        .as_ref()
                        .unwrap_or_else(|| panic!("{what}: {installed:?}"));
                    assert_eq!(fallback.level, FallbackLevel::RulesOnly, "{what}");
                    assert!(
                        if set == SetId::Blocked4 {
                            fallback.error.is_full()
                        } else {
                            fallback.error.is_exists()
                        },
                        "{what}: {}",
                        fallback.error
                    );
                    assert_eq!(installed.missing, [set.spec()], "{what}");
                    assert!(installed.lacks(set) && !installed.lacks(SetId::Blocked6), "{what}");
                    assert_eq!(
                        (installed.created(set), installed.replaced_rules()),
                        (round == 0, round == 0),
                        "{what}"
                    );
                }
                // The caller adds the ones that fit.
                connection
                    .add_element(SetId::Blocked4, &Element::new(address("192.0.2.1")))
                    .unwrap();
            });
        }
    }
}

#[test]
fn a_set_that_cannot_take_over_its_elements_does_not_keep_the_rules_out() {
    need!();
    let (namespace, _) = installed();
    let mut config = portsentry::config::Config::default();
    config.block.total = 3;
    let ruleset = ruleset::for_config(&config, EPHEMERAL);
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        for last in 1..=3u8 {
            connection
                .add_element(SetId::Blocked4, &Element::new(IpAddr::from([192, 0, 2, last])))
                .unwrap();
        }
        // The set becomes smaller and keeps three elements; there is no room for a fourth.
        let beside = [(SetId::Blocked4.spec(), vec![host(9)])];
        let order = Order { elements: Elements::Beside(&beside), ..Order::default() };
        let installed = connection.install_with(&ruleset, order).unwrap();
        assert_eq!(
            installed.fallback.as_ref().map(|fallback| fallback.level),
            Some(FallbackLevel::RulesOnly)
        );
        assert!(
            installed.created(SetId::Blocked4)
                && installed.lacks(SetId::Blocked4)
                && installed.lacks(SetId::Blocked6),
            "{installed:?}"
        );
        assert_eq!((connection.verify(&ruleset).unwrap(), installed.carried), (None, 0));
    });
}

#[test]
fn a_table_that_cannot_be_changed_is_deleted_and_created_again() {
    need!("nft");
    let (namespace, mut ruleset) = installed();
    load(&namespace, ADDITIONS[7].1);
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.add_element(SetId::Blocked4, &Element::new(address("192.0.2.1"))).unwrap();
        // A wanted chain has the name of an implicit chain, which the kernel deletes with its rule:
        // the chain's rules are refused.
        let found = connection.read(&ruleset).unwrap();
        let name: &'static str =
            found.chains.iter().find(|chain| chain.implicit).unwrap().name.clone().leak();
        let rule = Rule { why: "", statements: vec![Statement::Verdict(Verdict::Drop)] };
        ruleset.chains.insert(0, Chain { name, base: None, rules: vec![rule] });
        let installed = connection.install(&ruleset).unwrap();
        let fallback = installed.fallback.as_ref().unwrap();
        assert_eq!(fallback.level, FallbackLevel::Recreated, "{installed:?}");
        assert_eq!(connection.verify(&ruleset).unwrap(), None);
        assert!(
            installed.created(SetId::Blocked4)
                && installed.lacks(SetId::Blocked4)
                && installed.replaced_rules(),
            "{installed:?}"
        );
        assert_eq!(connection.dump_set(SetId::Blocked4).unwrap(), []);
        assert_eq!(connection.generation().unwrap(), installed.generation);
    });
}

#[test]
fn an_installation_that_fails_altogether_changes_nothing() {
    need!("nft");
    let (namespace, ruleset) = installed();
    namespace.enter(|| {
        Connection::open(SCHEMA)
            .unwrap()
            .add_element(SetId::Blocked4, &Element::new(address("192.0.2.1")))
            .unwrap()
    });
    let before = listing(&namespace);
    let mut broken = default_ruleset();
    broken.chains.push(Chain { name: "a".repeat(300).leak(), base: None, rules: Vec::new() });
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let generation = connection.generation().unwrap();
        assert!(connection.install(&broken).is_err());
        assert_eq!(
            (connection.generation().unwrap(), connection.verify(&ruleset).unwrap()),
            (generation, None)
        );
    });
    assert_eq!(listing(&namespace), before);
}
