//! Blocks of many addresses at once: all of them, soon, with one line for the whole, and an error
//! for each that is refused.

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
}
