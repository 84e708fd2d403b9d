//! Blocks of many addresses at once: all of them, soon, with one line for the whole, and an error
//! for each that is refused. Named lists, which are loaded again.

use crate::support;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const TOOLS: &[&str] = &["ip", "nft"];

fn scene() -> Scene {
    Scene::new(&["10.79.1.1/24"], &["10.79.1.2/24"])
}

fn audited(daemon: &Daemon<'_>) -> Vec<(String, bool, String)> {
    let log = daemon.log();
    let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    objects
        .filter(|event| event["event"] == "control")
        .map(|event| (text(&event, "command"), event["done"] == true, text(&event, "result")))
        .collect()
}

#[test]
fn several_are_blocked_in_the_kernel_and_the_refused_are_told() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "log: { format: json }\nallow: [203.0.113.9]");
    let output = daemon.ctl(&[
        "block",
        "192.0.2.1",
        "203.0.113.0/24",
        "198.51.100.0/24",
        "10.79.1.1",
        "2001:db8::1",
        "--for",
        "2h",
        "--reason",
        "list 7",
    ]);
    let text = output_text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for said in [
        "3 addresses and networks are blocked for 2h\n",
        "portsentryctl: 203.0.113.0/24 is not blocked: 203.0.113.9 is never blocked",
        "portsentryctl: 10.79.1.1 is an address of this host",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let mut blocked = daemon.blocked();
    blocked.sort();
    assert_eq!(blocked, ["192.0.2.1", "198.51.100.0/24", "2001:db8::1"]);
    let table = scene.host.run("nft", &["list", "table", "inet", "portsentry"]);
    assert!(table.contains("192.0.2.1") && table.contains("198.51.100.0/24"), "{table}");
    assert!(eventually(Duration::from_secs(20), || !audited(&daemon).is_empty()));
    assert_eq!(
        audited(&daemon),
        [(
            "block --for \"2h\" --reason \"list 7\" (5 addresses and networks)".to_owned(),
            false,
            "3 are blocked, 2 are not".to_owned()
        )]
    );
    let orders = daemon.json(&["history", "--kind", "order", "--all"]);
    assert_eq!(orders.as_array().unwrap().len(), 1, "{orders}");

    done(&daemon.ctl(&["unblock", "192.0.2.1", "2001:db8::1"]));
    assert_eq!(daemon.blocked(), ["198.51.100.0/24"]);
    done(&daemon.ctl(&["observe"]));
    let output = daemon.ctl(&["block", "192.0.2.1", "192.0.2.2"]);
    assert!(output.status.code() == Some(1) && output_text(&output).contains("in observe mode"));
}

/// In less than two seconds with the release build: `PORTSENTRY_PROGRAM`, and 20,000 for the debug
/// build here, which takes longer for each.
#[test]
fn a_list_of_tens_of_thousands_is_blocked_with_one_line_in_the_log() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let is_release = std::env::var_os("PORTSENTRY_PROGRAM").is_some();
    let count = if is_release { 100_000 } else { 20_000 };
    let yaml = "log: { format: json }\nblock: { total: 200000 }";
    let daemon = Daemon::start(&scene.host, yaml);
    let mut list = String::new();
    for n in 0..count {
        writeln!(list, "{}", Ipv4Addr::from(0x0b00_0000 + n)).unwrap();
    }
    let file = daemon.path("list");
    fs::write(&file, list).unwrap();
    let begun = Instant::now();
    let text = done(&daemon.ctl(&["block", "--from", file.to_str().unwrap()]));
    let took = begun.elapsed();
    println!("{count} addresses in {took:?}");
    assert_eq!(text, format!("{count} addresses and networks are blocked for 1h\n"));
    assert!(!is_release || took < Duration::from_secs(2), "{took:?}");
    assert_eq!(daemon.json(&["status"])["blocked"], count);
    // The daemon selects and sorts.
    let begun = Instant::now();
    let most = daemon.json(&["list", "--sort", "packets", "--limit", "20"]);
    println!("{count} sorted in {:?}", begun.elapsed());
    assert_eq!(most.as_array().unwrap().len(), 20);
    let begun = Instant::now();
    let of_net = daemon.json(&["list", "--net", "11.0.1.0/24", "--sort", "since"]);
    println!("256 of {count} found in {:?}", begun.elapsed());
    assert_eq!(of_net.as_array().unwrap().len(), 256);
    assert!(eventually(Duration::from_secs(20), || !audited(&daemon).is_empty()));
    let lines = audited(&daemon);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        lines[0],
        (format!("block ({count} addresses and networks)"), true, format!("{count} are blocked"))
    );
    let set = scene.host.run("nft", &["list", "set", "inet", "portsentry", "blocked4"]);
    assert_eq!(set.matches(" expires ").count(), usize::try_from(count).unwrap());

    // As a list, loaded again with a half of it, and unblocked.
    let load = |what: &str, said: &str| {
        let begun = Instant::now();
        let words = ["block", "--from", file.to_str().unwrap(), "--list", "feed", "--for", "1d"];
        let text = done(&daemon.ctl(&words));
        println!("{what} in {:?}", begun.elapsed());
        assert_eq!(text, format!("feed: {said}, blocked for 1d\n"));
    };
    load("taken over by a list", &format!("{count} new, 0 kept, 0 gone"));
    let half = count / 2;
    let list = fs::read_to_string(&file).unwrap();
    let list: Vec<&str> = list.lines().take(usize::try_from(half).unwrap()).collect();
    fs::write(&file, list.join("\n")).unwrap();
    load("half of it gone", &format!("0 new, {half} kept, {half} gone"));
    assert_eq!(daemon.json(&["status"])["blocked"], half);
    let begun = Instant::now();
    let text = done(&daemon.ctl(&["unblock", "--list", "feed"]));
    println!("half of it unblocked in {:?}", begun.elapsed());
    assert_eq!(text, format!("{half} blocks of the list feed are lifted\n"));
    assert_eq!(daemon.json(&["status"])["blocked"], 0);
}

fn rows(daemon: &Daemon<'_>, list: &str) -> Vec<(String, u64)> {
    let rows = daemon.json(&["list", "--list", list]);
    let row = |row: &Value| {
        assert_eq!((&row["list"], &row["cause"]), (&list.into(), &"order".into()), "{row}");
        let address = row["address"].as_str().unwrap().to_owned();
        (address, row["expires_in"].as_u64().unwrap_or(u64::MAX))
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

fn addresses(daemon: &Daemon<'_>, list: &str) -> Vec<String> {
    rows(daemon, list).into_iter().map(|(address, _)| address).collect()
}

fn load(daemon: &Daemon<'_>, content: &str, words: &[&str]) -> String {
    let file = daemon.path("list");
    fs::write(&file, content).unwrap();
    let words = [&["block", "--from", file.to_str().unwrap()], words].concat();
    output_text(&daemon.ctl(&words))
}

// P10
#[test]
fn a_list_that_is_loaded_again_is_replaced() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "log: { format: json }\nallow: [203.0.113.9]");
    done(&daemon.ctl(&["block", "192.0.2.9", "--for", "0", "--reason", "mine"]));
    done(&daemon.ctl(&["block", "192.0.2.8", "--for", "5m"]));
    let first = "192.0.2.1\n192.0.2.2\n192.0.2.8\n192.0.2.9\n198.51.100.0/24\n2001:db8::1\n";
    assert_eq!(
        load(&daemon, first, &["--list", "scanners", "--for", "1h"]),
        "scanners: 5 new, 0 kept, 0 gone, 1 blocked as long by other orders or scans, blocked for 1h\n"
    );
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.8", "198.51.100.0/24", "2001:db8::1"];
    assert_eq!(addresses(&daemon, "scanners"), all);
    let table = scene.host.run("nft", &["list", "set", "inet", "portsentry", "blocked4"]);
    assert!(table.contains("\"by hand, list scanners\"") && table.contains("\"by hand: mine\""));

    // Others get the new end, and what is gone is no longer dropped.
    let second = "192.0.2.2 # still\n192.0.2.3\n198.51.100.0/24\n203.0.113.9\n192.0.2.9\n";
    let said = load(&daemon, second, &["--list", "scanners", "--for", "30d", "--reason", "feed"]);
    assert!(
        said.starts_with("scanners: 1 new, 2 kept, 3 gone, 1 blocked as long by other orders or scans, blocked for 30d\n")
            && said.contains(":4: 203.0.113.9 is never blocked"),
        "{said}"
    );
    let found = rows(&daemon, "scanners");
    let names: Vec<&str> = found.iter().map(|(address, _)| address.as_str()).collect();
    assert_eq!(names, ["192.0.2.2", "192.0.2.3", "198.51.100.0/24"]);
    assert!(found.iter().all(|(_, left)| *left > 29 * 86_400), "{found:?}");
    let table = scene.host.run("nft", &["list", "table", "inet", "portsentry"]);
    assert!(table.contains("list scanners: feed") && !table.contains("192.0.2.1 "), "{table}");
    assert_eq!(daemon.blocked(), ["192.0.2.2", "192.0.2.3", "192.0.2.9", "198.51.100.0/24"]);

    // Another list takes over what it blocks for longer; --add keeps what the file has not.
    let said = load(&daemon, "192.0.2.3\n10.1.0.0/16\n", &["--list", "a.b-c_1", "--for", "0"]);
    assert_eq!(said, "a.b-c_1: 2 new, 0 kept, 0 gone, blocked until they are unblocked\n");
    let said = load(&daemon, "10.2.0.0/16\n", &["--list", "a.b-c_1", "--add"]);
    assert_eq!(said, "a.b-c_1: 1 new, 0 kept, 0 gone, blocked for 1h\n");
    let lists = daemon.json(&["lists"]);
    assert_eq!(
        lists
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (&row["name"], &row["blocks"]))
            .collect::<Vec<_>>(),
        [(&"a.b-c_1".into(), &3.into()), (&"scanners".into(), &2.into())]
    );
    assert!(lists[0]["until"].is_null() && lists[1]["expires_in"].as_u64().unwrap() > 29 * 86_400);
    assert!(done(&daemon.ctl(&["lists"])).starts_with("LIST      BLOCKS"));
    assert!(
        done(&daemon.ctl(&["metrics"])).contains("portsentry_list_blocks{list=\"scanners\"} 2\n")
    );

    // A download that failed unblocks nothing.
    for content in ["", "# nothing\n", "<html>\n"] {
        let said = load(&daemon, content, &["--list", "scanners"]);
        assert!(said.contains("the list scanners stays as it is"), "{said}");
    }
    assert_eq!(addresses(&daemon, "scanners"), ["192.0.2.2", "198.51.100.0/24"]);
    assert!(eventually(Duration::from_secs(20), || audited(&daemon).len() == 6));
    let lines = audited(&daemon);
    assert_eq!(
        lines[2..4],
        [
            (
                "block --list scanners --for \"1h\" (6 addresses and networks)".to_owned(),
                true,
                "5 new, 0 kept, 0 gone, 1 blocked as long by other orders or scans".to_owned()
            ),
            (
                "block --list scanners --for \"30days\" --reason \"feed\" (5 addresses and networks)"
                    .to_owned(),
                false,
                "1 new, 2 kept, 3 gone, 1 blocked as long by other orders or scans; 1 are not blocked"
                    .to_owned()
            )
        ]
    );
    assert_eq!(lines[5].0, "block --list a.b-c_1 --add (1 addresses and networks)");
    // What is kept is no news; what another order had is.
    let history = daemon.json(&["history", "--kind", "blocked,renewed"]);
    let of_list = |kind: &str| {
        let rows = history.as_array().unwrap().iter();
        let rows = rows.filter(|row| row["details"]["list"] == "scanners" && row["kind"] == kind);
        rows.map(|row| row["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of_list("renewed"), ["192.0.2.8"], "{history}");
    assert_eq!(
        of_list("blocked"),
        ["192.0.2.1", "192.0.2.2", "198.51.100.0/24", "2001:db8::1", "192.0.2.3"]
    );

    done(&daemon.ctl(&["unblock", "--list", "scanners"]));
    assert_eq!(daemon.blocked(), ["10.1.0.0/16", "10.2.0.0/16", "192.0.2.3", "192.0.2.9"]);
    let again = daemon.ctl(&["unblock", "--list", "scanners"]);
    assert!(
        again.status.code() == Some(1) && output_text(&again).contains("no block is on the list")
    );
    done(&daemon.ctl(&["unblock", "--all"]));
    assert!(daemon.blocked().is_empty() && daemon.json(&["lists"]).as_array().unwrap().is_empty());
}

// P25
#[test]
fn a_list_survives_restarts_a_reload_and_a_flushed_ruleset() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "scan_trigger: 3";
    let mut daemon = Daemon::start(&scene.host, yaml);
    let content = "192.0.2.1\n192.0.2.2\n198.51.100.0/24\n";
    load(&daemon, content, &["--list", "known-scanners", "--for", "2h"]);
    let names = ["192.0.2.1", "192.0.2.2", "198.51.100.0/24"];
    let is_whole = |daemon: &Daemon<'_>, when: &str| {
        assert!(
            eventually(Duration::from_secs(20), || addresses(daemon, "known-scanners") == names),
            "{when}: {}",
            daemon.json(&["list"])
        );
        let lists = daemon.json(&["lists"]);
        assert_eq!(
            (&lists[0]["name"], &lists[0]["blocks"]),
            (&"known-scanners".into(), &3.into()),
            "{when}"
        );
    };
    is_whole(&daemon, "loaded");
    scene.host.run("nft", &["flush", "ruleset"]);
    is_whole(&daemon, "flushed");
    daemon.write_configuration("scan_trigger: 4");
    done(&daemon.ctl(&["reload"]));
    is_whole(&daemon, "reloaded");
    daemon.stop();
    daemon.restart(yaml);
    is_whole(&daemon, "restarted");
    daemon.stop();
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    daemon.restart(yaml);
    is_whole(&daemon, "without the table, as after a boot");
    // The next loading knows them.
    let said = load(&daemon, "192.0.2.1\n192.0.2.7\n", &["--list", "known-scanners"]);
    assert_eq!(said, "known-scanners: 1 new, 1 kept, 2 gone, blocked for 1h\n");
}
