//! `list`, `show`, `test` and `status` say the same of each block: fresh, after a crash, after the
//! table was lost, and in observe mode.

use crate::support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::Scene;
use support::{done, missing, output_text};

const SCANNER: &str = "10.74.1.2";
const TOOLS: &[&str] = &["ip", "nft", "nmap"];

/// An address to show, and the row that `list` has for it.
const BLOCKS: [(&str, &str, Option<&str>); 6] = [
    ("192.0.2.7", "192.0.2.7", Some("1h")),
    ("192.0.2.8", "192.0.2.8", Some("0")),
    ("198.51.100.9", "198.51.100.0/24", Some("2h")),
    ("203.0.113.9", "203.0.113.0/24", Some("0")),
    ("2001:db8::7", "2001:db8::7", Some("0")),
    (SCANNER, SCANNER, None),
];

fn second(value: &Value) -> Option<i64> {
    Some(value.as_str()?.parse::<jiff::Timestamp>().unwrap().as_second())
}

/// The rows of `list`, after it was held against the other commands.
fn checked(daemon: &Daemon<'_>) -> BTreeMap<String, Value> {
    let list = daemon.json(&["list"]);
    let text = output_text(&daemon.ctl(&["list"]));
    let mut causes: BTreeMap<String, u64> = BTreeMap::new();
    let rows: BTreeMap<String, Value> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["address"].as_str().unwrap().to_owned(), row.clone()))
        .collect();
    assert_eq!(rows.len(), BLOCKS.len(), "{list}\n{}", daemon.log());
    for (address, listed, _) in BLOCKS {
        let row = &rows[listed];
        *causes.entry(row["cause"].as_str().unwrap().to_owned()).or_default() += 1;
        let shown = daemon.json(&["show", address]);
        let tested = daemon.json(&["test", address]);
        for block in [&shown["block"], &tested["block"]] {
            for key in ["address", "state", "cause", "scan", "proven", "reason", "renewals"] {
                assert_eq!(row[key], block[key], "{key} of {address}: {row} {block}");
            }
            for key in ["since", "until"] {
                let (a, b) = (second(&row[key]), second(&block[key]));
                let is_near = match (a, b) {
                    (Some(a), Some(b)) => (a - b).abs() <= 1,
                    other => other == (None, None),
                };
                assert!(is_near, "{key} of {address}: {row} {block}");
            }
            assert_eq!(row["expires_in"].is_null(), block["expires_in"].is_null(), "{address}");
        }
        assert_eq!(row["expires_in"].is_null(), row["until"].is_null(), "{row}");
        // The words of both texts.
        let line = text.lines().find(|line| line.starts_with(listed)).unwrap();
        let show = output_text(&daemon.ctl(&["show", address]));
        let is_permanent = row["until"].is_null();
        assert_eq!(line.contains("never"), is_permanent, "{line}");
        assert_eq!(show.contains("never, until it is unblocked"), is_permanent, "{show}");
        assert!(show.starts_with(&format!("{address} is blocked.")), "{show}");
        let is_order = row["cause"] == "order";
        assert_eq!(line.contains("by order"), is_order, "{line}");
        assert_eq!(show.contains("by order"), is_order, "{show}");
        assert!(!is_order || !show.contains("may be forged"), "{show}");
        assert!(second(&row["since"]).is_some(), "{row}");
    }
    let status = daemon.json(&["status"]);
    assert_eq!(status["blocked"], rows.len(), "{status}");
    for cause in ["proven", "unproven", "order", "foreign"] {
        let count = causes.get(cause).copied().unwrap_or_default();
        assert_eq!(status["causes"][cause], count, "{status}");
    }
    rows
}

#[test]
fn every_command_says_the_same_of_a_block_whatever_happened_to_it() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(&["10.74.1.1/24"], &["10.74.1.2/24", "10.74.1.3/24"]);
    let yaml = "block: { unproven: { timeout: 1h } }";
    let mut daemon = Daemon::start(&scene.host, yaml);
    for (_, target, time) in BLOCKS {
        match time {
            Some(time) => {
                done(&daemon.ctl(&["block", target, "--for", time, "--reason", "ticket 7"]))
            }
            None => {
                scene.scan("-p1-50");
                daemon.wait_for_block(target);
                String::new()
            }
        };
    }
    let first = checked(&daemon);
    let same = |rows: &BTreeMap<String, Value>, what: &str| {
        for (address, row) in &first {
            let now = &rows[address];
            for key in ["state", "cause", "reason"] {
                assert_eq!(row[key], now[key], "{key} of {address} {what}");
            }
            for key in ["since", "until"] {
                let apart = match (second(&row[key]), second(&now[key])) {
                    (Some(a), Some(b)) => (a - b).abs(),
                    (None, None) => 0,
                    _ => i64::MAX,
                };
                assert!(apart <= 2, "{key} of {address} {what}: {row} {now}");
            }
        }
    };
    std::thread::sleep(std::time::Duration::from_secs(3));
    same(&checked(&daemon), "three seconds later");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    daemon.restart(yaml);
    same(&checked(&daemon), "after a crash");
    daemon.stop();
    daemon.restart(yaml);
    same(&checked(&daemon), "after a stop");
    daemon.stop();
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    daemon.restart(yaml);
    same(&checked(&daemon), "after the table was lost");
    scene.host.run("nft", &["flush", "ruleset"]);
    assert!(support::eventually(std::time::Duration::from_secs(5), || {
        daemon.blocked().len() == BLOCKS.len()
    }));
    same(&checked(&daemon), "after a flush");

    done(&daemon.ctl(&["observe"]));
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert_eq!(output_text(&daemon.ctl(&["list"])).trim(), "Nothing is blocked or slowed.");
    let status = daemon.json(&["status"]);
    assert_eq!((&status["blocked"], &status["causes"]), (&0.into(), &Value::Null), "{status}");
    let shown = daemon.json(&["show", SCANNER]);
    assert!(shown["block"].is_null() && shown["observed"] == true, "{shown}");
    let text = output_text(&daemon.ctl(&["show", SCANNER]));
    assert!(
        text.starts_with(&format!("{SCANNER} is not blocked.\n  mode         observe")),
        "{text}"
    );
    let tested = daemon.json(&["test", SCANNER]);
    assert!(tested["block"].is_null() && tested["standing"] == "counted", "{tested}");
    daemon.signal("USR1");
    daemon.wait_for_log("Status: mode observe");
    assert!(daemon.log().contains(" 0 blocked, 0 slowed"), "{}", daemon.log());
    done(&daemon.ctl(&["enforce"]));
    same(&checked(&daemon), "after observing");
}

#[test]
fn a_scanner_that_is_blocked_by_order_is_not_called_unproven() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(&["10.74.1.1/24"], &["10.74.1.2/24"]);
    let daemon = Daemon::start(&scene.host, "block: { unproven: { action: slow } }");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    done(&daemon.ctl(&["block", SCANNER]));
    let text = output_text(&daemon.ctl(&["show", SCANNER]));
    assert!(text.contains("by order") && text.contains("touched"), "{text}");
    assert!(!text.contains("proven  ") && !text.contains("may be forged"), "{text}");
    let row = &daemon.json(&["list"])[0];
    assert_eq!((&row["cause"], &row["scan"]), (&"order".into(), &Value::Null), "{row}");
}
