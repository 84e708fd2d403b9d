//! The ruleset over the real kernel: text against netlink, installation, elements. Each test has
//! its own network namespaces.

macro_rules! need {
    ($($tool:literal),*) => {
        if crate::support::missing(&["ip", $($tool),*]).is_some() {
            return;
        }
    };
}

mod committed;
mod dynamic;
mod elements;
mod foreign_objects;
mod generate;
mod measure;
mod traffic;

use crate::support;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use generate::rulesets;
use portsentry::config::{Config, PortMode, PortSet};
use portsentry::nft::element::{Element, Key};
use portsentry::nft::lower::lower;
use portsentry::nft::text::Form;
use portsentry::nft::{Chain, Connection, Error, Monitor, Notification, Received, Ruleset};
use portsentry::ruleset::{self, SCHEMA, SetId};
use support::netns::Namespace;
use support::{eventually, expressions, linux};

/// The kernel's default of `net.ipv4.ip_local_port_range`.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

fn default_ruleset() -> Ruleset {
    ruleset::for_config(&Config::default(), EPHEMERAL)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn listing(namespace: &Namespace) -> String {
    namespace.run("nft", &["-s", "list", "table", "inet", "portsentry"])
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn installed() -> (Namespace, Ruleset) {
    let (namespace, ruleset) = (Namespace::new(), default_ruleset());
    namespace.enter(|| Connection::open(SCHEMA).unwrap().install(&ruleset).unwrap());
    (namespace, ruleset)
}

#[test]
fn text_and_netlink_list_identically() {
    need!("nft");
    let (by_text, by_netlink) = (Namespace::new(), Namespace::new());
    for (number, ruleset) in rulesets().iter().enumerate() {
        let text = file(&ruleset.render(SCHEMA.table, Form::Replace));
        by_text.run("nft", &["-f", path(&text)]);
        by_netlink.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            // Every second one is installed over the one before.
            if number % 2 == 0 && number > 0 {
                connection.remove_table().unwrap();
            }
            connection.install(ruleset).unwrap_or_else(|error| panic!("{number}: {error}"));
        });
        let strip = |listing: String| sorted(&without_daemons_elements(&listing));
        if number % 2 == 0 {
            assert_eq!(listing(&by_netlink), listing(&by_text), "ruleset {number}");
        } else {
            // The daemon's own sets keep their elements, and recreated objects come last in the
            // listing.
            assert_eq!(strip(listing(&by_netlink)), strip(listing(&by_text)), "ruleset {number}");
        }
    }
}

/// A listing without the elements of allowed4 and allowed6.
fn without_daemons_elements(listing: &str) -> String {
    let (mut kept, mut inside, mut in_elements) = (String::new(), false, false);
    for line in listing.lines() {
        inside = if line.starts_with("\tset allowed") { true } else { inside && line != "\t}" };
        in_elements |= inside && line.contains("elements = {");
        if !in_elements {
            kept.push_str(line);
            kept.push('\n');
        }
        in_elements &= !line.ends_with('}');
    }
    kept
}

/// The sets and chains of a listing by name: their order has no meaning.
fn sorted(listing: &str) -> Vec<String> {
    let mut blocks: Vec<_> = listing
        .trim_start_matches("table inet portsentry {\n")
        .trim_end_matches("}\n")
        .split("\t}\n")
        .map(|block| block.trim().to_owned())
        .collect();
    blocks.sort();
    blocks
}

#[test]
fn lowered_rules_are_what_nft_makes_of_the_text() {
    need!("nft");
    let namespace = Namespace::new();
    for (number, ruleset) in rulesets().iter().enumerate() {
        let text = file(&ruleset.render(SCHEMA.table, Form::Table));
        let debug = namespace.run("nft", &["-c", "--debug=netlink", "-f", path(&text)]);
        let theirs: Vec<String> = debug
            .lines()
            .filter(|line| line.starts_with("  [ "))
            .flat_map(|line| two_comparisons(line.trim()))
            .collect();
        let ours: Vec<String> = ruleset
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().flat_map(lower))
            .map(|expr| expressions::print(&expr))
            .collect();
        assert_eq!(ours, theirs, "ruleset {number}");
    }
}

/// nft 1.1 writes `[ range eq reg 1 A B ]` where older ones, and we, compare twice; they mean the
/// same.
fn two_comparisons(line: &str) -> Vec<String> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["[", "range", "eq", "reg", register, first, last, "]"] => {
            vec![
                format!("[ cmp gte reg {register} {first} ]"),
                format!("[ cmp lte reg {register} {last} ]"),
            ]
        }
        _ => vec![line.to_owned()],
    }
}

#[test]
fn a_listing_loads_and_lists_the_same_again() {
    need!("nft");
    let (first, second) = (Namespace::new(), Namespace::new());
    for ruleset in rulesets().iter().take(12) {
        first.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            let _ = connection.remove_table();
            connection.install(ruleset).unwrap();
        });
        let listed = listing(&first);
        second.run("nft", &["flush", "ruleset"]);
        second.run("nft", &["-f", path(&file(&listed))]);
        assert_eq!(listing(&second), listed);
    }
}

#[test]
fn a_ruleset_loaded_as_text_needs_no_netlink_change() {
    need!("nft");
    let namespace = Namespace::new();
    for (number, ruleset) in rulesets().iter().enumerate() {
        namespace.run("nft", &["-f", path(&file(&ruleset.render(SCHEMA.table, Form::Replace)))]);
        assert_eq!(
            namespace.enter(|| Connection::open(SCHEMA).unwrap().verify(ruleset).unwrap()),
            None,
            "ruleset {number}"
        );
    }
}

#[test]
fn installing_twice_changes_nothing() {
    need!("nft");
    let (namespace, ruleset) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.add_element(SetId::Blocked4, &Element::new(address("192.0.2.1"))).unwrap();
        let generation = connection.generation().unwrap();
        assert!(connection.install(&ruleset).unwrap().is_unchanged());
        assert_eq!(connection.generation().unwrap(), generation);
    });
}

#[test]
fn a_changed_ruleset_keeps_blocks_with_their_time_and_count() {
    need!("nft", "ping");
    let (namespace, peer) = (Namespace::new(), Namespace::new());
    namespace.join(&peer, "veth0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let mut config = Config::default();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.install(&ruleset::for_config(&config, EPHEMERAL)).unwrap();
        let element = Element::new(address("192.0.2.2"))
            .timeout(Some(Duration::from_secs(3600)))
            .comment("scan syn proven: 3 ports");
        connection.add_element(SetId::Blocked4, &element).unwrap();
        let network = Element::network("198.51.100.0/24".parse().unwrap())
            .timeout(Some(Duration::from_secs(60)));
        connection.add_element(SetId::BlockedNets4, &network).unwrap();
        connection
            .add_element(
                SetId::BlockedNets4,
                &Element::network("255.255.255.0/24".parse().unwrap()),
            )
            .unwrap();
        connection.add_element(SetId::Blocked6, &Element::new(address("2001:db8::"))).unwrap();
    });
    let _ = peer.output(
        "ping",
        &["-c", "2", "-i", "0.2", "-W", "1", "192.0.2.1"],
        Duration::from_secs(10),
    );
    std::thread::sleep(Duration::from_millis(1100));
    // Another size: the sets have to be recreated. Then other ports and rules: the sets are left
    // alone.
    config.block.total = 5000;
    config.tcp.advanced_ports = PortSet::range(1, 2000);
    for round in 0..2 {
        namespace.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            let installed = connection.install(&ruleset::for_config(&config, EPHEMERAL)).unwrap();
            assert_eq!(
                (installed.carried, installed.left_out),
                if round == 0 { (2, 0) } else { (0, 0) },
                "{:?}",
                installed.steps
            );
            let info = connection
                .get_element(SetId::Blocked4, Key::from(address("192.0.2.2")))
                .unwrap()
                .unwrap();
            assert_eq!(info.timeout, Some(Duration::from_secs(3600)));
            let left = info.expires.unwrap();
            assert!(
                left > Duration::from_secs(3570) && left < Duration::from_millis(3_598_950),
                "{left:?}"
            );
            assert_eq!(info.comment.as_deref(), Some("scan syn proven: 3 ports"));
            let key = Key::from(address("192.0.2.2"));
            let count = connection.get_element(SetId::BlockedPackets4, key).unwrap().unwrap();
            assert!(count.packets >= 2 && count.bytes >= 2 * 84, "{count:?}");
            let networks = connection.dump_set(SetId::BlockedNets4).unwrap();
            let shown: Vec<_> = networks
                .iter()
                .map(|info| (info.key.to_string(), info.last().to_string()))
                .collect();
            assert_eq!(
                shown,
                [("198.51.100.0", "198.51.100.255"), ("255.255.255.0", "255.255.255.255")]
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
            );
            assert!(networks[0].expires.unwrap() < Duration::from_secs(59));
            assert_eq!(networks[1].timeout, None);
            assert!(
                connection
                    .get_element(SetId::Blocked6, Key::from(address("2001:db8::")))
                    .unwrap()
                    .is_some()
            );
        });
        config.udp.mode = PortMode::Off;
        config.tcp.advanced_ports = PortSet::range(1, 3000);
    }
}

#[test]
fn a_set_that_becomes_too_small_keeps_the_longest_blocks() {
    need!();
    let (namespace, _) = installed();
    let mut config = Config::default();
    config.block.total = 3;
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        for last in 1..=5u8 {
            let element = Element::new(IpAddr::from([192, 0, 2, last]))
                .timeout(Some(Duration::from_secs(100 * u64::from(last))));
            connection.add_element(SetId::Blocked4, &element).unwrap();
        }
        let installed = connection.install(&ruleset::for_config(&config, EPHEMERAL)).unwrap();
        assert_eq!((installed.carried, installed.left_out), (3, 2));
        let mut left: Vec<_> = connection
            .dump_set(SetId::Blocked4)
            .unwrap()
            .iter()
            .map(|info| info.key.to_string())
            .collect();
        left.sort();
        assert_eq!(left, ["192.0.2.3", "192.0.2.4", "192.0.2.5"]);
        let error = connection
            .add_element(SetId::Blocked4, &Element::new(address("192.0.2.9")))
            .unwrap_err();
        assert!(error.is_full(), "{error}");
    });
}

#[test]
fn every_foreign_change_of_the_table_is_repaired() {
    need!("nft");
    let damages: [&[&str]; 11] = [
        &["flush", "chain", "inet", "portsentry", "gate"],
        &["insert", "rule", "inet", "portsentry", "gate", "accept"],
        &["add", "rule", "inet", "portsentry", "watch", "counter", "drop"],
        &["add", "set", "inet", "portsentry", "foreign", "{ type ipv4_addr; flags interval; }"],
        &[
            "add",
            "chain",
            "inet",
            "portsentry",
            "foreign",
            "{ type filter hook input priority 0; policy accept; }",
        ],
        &[
            "add",
            "rule",
            "inet",
            "portsentry",
            "probe",
            "ip saddr { 192.0.2.1, 192.0.2.2 } jump tell",
        ],
        &["delete", "element", "inet", "portsentry", "tcp_ports", "{ 1-112 }"],
        &["add", "element", "inet", "portsentry", "udp_ports", "{ 5000-6000 }"],
        &["flush", "set", "inet", "portsentry", "protocols"],
        &["add", "table", "inet", "portsentry", "{ flags dormant; }"],
        &["chain", "inet", "portsentry", "gate", "{ policy drop; }"],
    ];
    let (namespace, ruleset) = installed();
    let right = listing(&namespace);
    for damage in damages {
        namespace.run("nft", damage);
        namespace.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            assert!(connection.verify(&ruleset).unwrap().is_some(), "{damage:?} was not seen");
            connection.install(&ruleset).unwrap_or_else(|error| panic!("{damage:?}: {error}"));
        });
        assert_eq!(sorted(&listing(&namespace)), sorted(&right), "{damage:?}");
    }
    namespace.run("nft", &["flush", "ruleset"]);
    namespace.enter(|| Connection::open(SCHEMA).unwrap().install(&ruleset).unwrap());
    assert_eq!(listing(&namespace), right);
}

#[test]
fn errors_name_the_object_and_carry_the_kernels_words() {
    need!();
    let (namespace, ruleset) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let element = Element::new(address("192.0.2.1"));
        let error = connection.delete_element(SetId::Blocked4, &element).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(
            error.to_string().starts_with(
                "cannot delete element 192.0.2.1 of set blocked4: No such file or directory"
            ),
            "{error}"
        );
        // The set does not exist in a ruleset without watched interfaces.
        let error = connection
            .add_element(
                SetId::Interfaces,
                &Element { key: Key::interface("eth0"), end: None, timeout: None, comment: None },
            )
            .unwrap_err();
        assert!(
            error.is_not_found()
                && error.to_string().contains("element \"eth0\" of set interfaces"),
            "{error}"
        );
        assert!(
            connection
                .get_element(SetId::Interfaces, Key::interface("eth0"))
                .unwrap_err()
                .is_not_found()
        );
        assert!(connection.dump_set(SetId::Interfaces).unwrap_err().is_not_found());
        connection.remove_table().unwrap();
        assert!(connection.remove_table().unwrap_err().is_not_found());
        assert!(
            connection.delete_elements(SetId::Blocked4, &[element]).unwrap_err().is_not_found()
        );
        // A name longer than the kernel takes: it gives its own message, and nothing is left of the
        // transaction.
        let mut broken = ruleset.clone();
        broken.chains.push(Chain { name: "a".repeat(300).leak(), base: None, rules: Vec::new() });
        let error = connection.install(&broken).unwrap_err();
        let Error::Apply { verb: "add", object, errno, message } = &error else {
            panic!("{error:?}")
        };
        assert!(object.starts_with("chain aaa"), "{error}");
        match message {
            Some(words) => assert!(
                words.contains("policy validation") && error.to_string().ends_with(words),
                "{error}"
            ),
            // 6.1 and 6.12 have no message for this, 6.18 has.
            None => assert!(
                linux() < (6, 18) && *errno == rustix::io::Errno::RANGE.raw_os_error(),
                "{error}"
            ),
        }
        assert!(connection.remove_table().unwrap_err().is_not_found(), "nothing of it is there");
        connection.install(&ruleset).unwrap();
    });
    // Without CAP_NET_ADMIN.
    let refused = namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .unwrap();
        connection.add_element(SetId::Blocked4, &Element::new(address("192.0.2.1"))).unwrap_err()
    });
    assert!(refused.is_permission(), "{refused}");
}

#[test]
fn other_tables_are_left_alone() {
    need!("nft");
    let namespace = Namespace::new();
    let foreign = "table inet other {\n\tset blocked4 {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.7 }\n\t}\n\n\tchain gate {\n\t\ttype filter hook prerouting priority -450; policy accept;\n\t\tip saddr @blocked4 drop\n\t}\n}\ntable ip portsentry {\n\tchain foreign {\n\t}\n}\n";
    namespace.run("nft", &["-f", path(&file(foreign))]);
    let list = || {
        namespace.run("nft", &["list", "table", "inet", "other"])
            + &namespace.run("nft", &["list", "table", "ip", "portsentry"])
    };
    let before = list();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.install(&default_ruleset()).unwrap();
        connection.add_element(SetId::Blocked4, &Element::new(address("192.0.2.1"))).unwrap();
        assert_eq!(connection.dump_set(SetId::Blocked4).unwrap().len(), 1);
        assert_eq!(connection.verify(&default_ruleset()).unwrap(), None);
        connection.remove_table().unwrap();
    });
    assert_eq!(list(), before);
}

#[test]
fn nft_shows_blocks_with_comment_and_timeout_and_networks_with_a_counter() {
    need!("nft");
    let (namespace, _) = installed();
    let comment = "scan syn proven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3";
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let element = Element::new(address("192.0.2.1"))
            .timeout(Some(Duration::from_secs(3600)))
            .comment(comment);
        connection.add_element(SetId::Blocked4, &element).unwrap();
        let network = Element::network("255.255.255.0/24".parse().unwrap()).comment("by hand");
        connection.add_element(SetId::BlockedNets4, &network).unwrap();
    });
    let hosts = namespace.run("nft", &["list", "set", "inet", "portsentry", "blocked4"]);
    assert!(hosts.contains("192.0.2.1 timeout 1h expires 59m"), "{hosts}");
    assert!(hosts.contains(&format!("comment \"{comment}\"")), "{hosts}");
    let networks = namespace.run("nft", &["list", "set", "inet", "portsentry", "blocked_nets4"]);
    assert!(
        networks.contains("255.255.255.0/24 counter packets 0 bytes 0 comment \"by hand\""),
        "{networks}"
    );
    // And we read what nft adds.
    namespace.run(
        "nft",
        &[
            "add",
            "element",
            "inet",
            "portsentry",
            "blocked_nets4",
            "{ 10.0.0.0/8 timeout 1h comment \"nft\" }",
        ],
    );
    let found = namespace.enter(|| {
        Connection::open(SCHEMA)
            .unwrap()
            .get_element(SetId::BlockedNets4, Key::from(address("10.1.2.3")))
            .unwrap()
            .unwrap()
    });
    assert_eq!(
        (found.last().to_string(), found.comment.as_deref()),
        ("10.255.255.255".to_owned(), Some("nft"))
    );
}

#[test]
fn removing_the_table_leaves_nothing() {
    need!("nft");
    let (namespace, _) = installed();
    namespace.enter(|| Connection::open(SCHEMA).unwrap().remove_table().unwrap());
    assert_eq!(namespace.run("nft", &["list", "ruleset"]), "");
}

#[test]
fn a_foreign_flush_is_reported_with_its_program() {
    need!("nft");
    let (namespace, _) = installed();
    let mut monitor = namespace.enter(|| Monitor::open(SCHEMA).unwrap());
    namespace.run("nft", &["flush", "ruleset"]);
    let mut heard = Vec::new();
    let complete = eventually(Duration::from_secs(20), || {
        while monitor.receive(None, |notification| heard.push(notification)).unwrap()
            == Received::Datagram
        {}
        heard.iter().any(|one| matches!(one, Notification::Generation(_)))
    });
    assert!(complete && heard.contains(&Notification::TableDeleted), "{heard:?}");
    let Some(Notification::Generation(event)) = heard.last() else { panic!("{heard:?}") };
    assert_eq!(event.program, "nft");
    assert!(event.pid > 0 && event.id > 0);
}

#[test]
fn an_installation_returns_its_generation() {
    need!();
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        for _ in 0..2 {
            let installed = connection.install(&default_ruleset()).unwrap();
            assert_eq!(connection.generation().unwrap(), installed.generation);
        }
    });
}

#[test]
fn concurrent_changes_do_not_disturb_an_installation() {
    need!();
    let (namespace, ruleset) = installed();
    let mut other = Config::default();
    other.block.total = 77_777;
    let other = ruleset::for_config(&other, EPHEMERAL);
    // So often that a change falls into most listings, on an emulated machine too, but not into all.
    let began = Instant::now();
    namespace.enter(|| Connection::open(SCHEMA).unwrap().install(&ruleset).unwrap());
    let pause = Duration::from_millis(3).max(began.elapsed() / 2);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            namespace.enter(|| {
                let mut connection = Connection::open(SCHEMA).unwrap();
                let mut changes = 0u32;
                // Bounded, in case the other thread panics. This many elements are read between two
                // changes; beyond, there are changes only.
                while !done.load(Ordering::Relaxed) && changes < 20_000 {
                    let number = changes.min(400);
                    connection
                        .add_elements(
                            SetId::Blocked4,
                            &[Element::new(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))],
                        )
                        .unwrap();
                    changes += 1;
                    std::thread::sleep(pause);
                }
            });
        });
        namespace.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            // An emulated machine needs a second for each.
            let rounds = if std::env::var_os("PORTSENTRY_GUEST").is_some() { 8 } else { 20 };
            for round in 0..rounds {
                let before = connection.dump_set(SetId::Blocked4).unwrap().len();
                connection.install(if round % 2 == 0 { &other } else { &ruleset }).unwrap();
                assert!(
                    connection.dump_set(SetId::Blocked4).unwrap().len() >= before,
                    "no block is lost between reading and writing"
                );
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_table_deleted_right_after_installation_is_not_our_fault() {
    need!();
    let namespace = Namespace::new();
    let ruleset = ruleset::for_config(&Config::default(), EPHEMERAL);
    let done = AtomicBool::new(false);
    let removed = std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            namespace.enter(|| {
                let (mut connection, mut removed) = (Connection::open(SCHEMA).unwrap(), 0);
                let deadline = Instant::now() + Duration::from_secs(60);
                while !done.load(Ordering::Relaxed) && Instant::now() < deadline {
                    let was_there = connection.remove_table().is_ok();
                    removed += u32::from(was_there);
                    if !was_there {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
                removed
            })
        });
        namespace.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            for _ in 0..20 {
                let installed = connection.install(&ruleset).unwrap();
                let is_over = eventually(Duration::from_secs(10), || {
                    connection.generation().unwrap() != installed.generation
                });
                assert!(is_over || installed.is_unchanged(), "{installed:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
        remover.join().unwrap()
    });
    assert!(removed >= 15, "{removed} of 20 were taken away");
}
