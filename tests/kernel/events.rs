//! What happened is stored, with what a source had done and how each block ended, and found again by
//! `portsentryctl history` and `show`, over restarts and within bounds.

use crate::support;

use std::path::Path;
use std::time::Duration;

use portsentry::store::events;
use serde_json::Value;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::flood::{Load, Wire};
use support::scene::{DEVICE, Scene};
use support::{done, eventually, missing, run};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];
const HOST: &str = "10.81.1.1";
const SCANNER: &str = "10.81.1.2";
const OTHER: &str = "10.81.1.3";

fn scene() -> Scene {
    Scene::new(&["10.81.1.1/24", "fd81::1/64"], &["10.81.1.2/24", "10.81.1.3/24", "fd82::2/64"])
        .with_prefixes(&["fd82::/64"])
        .with_route_to("fd81::/64")
}

fn history(daemon: &Daemon<'_>, words: &[&str]) -> Vec<Value> {
    daemon.json(&[&["history"], words].concat()).as_array().unwrap().clone()
}

fn kinds(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["kind"].as_str().unwrap()).collect()
}

/// Waits for an event of this kind about a source.
fn wait_for(daemon: &Daemon<'_>, kind: &str, source: &str) -> Value {
    let found = || history(daemon, &["--kind", kind, "--source", source]);
    assert!(
        eventually(Duration::from_secs(10), || !found().is_empty()),
        "no {kind} of {source}: {:?}\n{}",
        history(daemon, &["--all"]),
        daemon.log()
    );
    found().pop().unwrap()
}

fn second(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[test]
fn a_scan_its_block_and_each_kind_of_end_are_events_in_both_families() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "block: { unproven: { timeout: 5s } }\ntcp: { advanced_ports: 1-1023 }";
    let mut daemon = Daemon::start(&scene.host, yaml);
    for (from, to, family) in [(SCANNER, HOST, &[][..]), ("fd82::2", "fd81::1", &["-6"])] {
        let scan = |ports| scene.scan_from(from, &[family, &["-sS", ports, to]].concat());
        scan("-p1-20");
        daemon.wait_for_block(from);
        let blocked = wait_for(&daemon, "blocked", from);
        assert_eq!(blocked["result"], "blocked", "{blocked}");
        assert_eq!((&blocked["scan"], &blocked["proven"]), (&"syn".into(), &false.into()));
        assert_eq!((&blocked["state"], &blocked["host"]), (&"blocked".into(), &from.into()));
        assert!(blocked["reason"].as_str().unwrap().contains("3 ports in"), "{blocked}");
        assert_eq!(second(&blocked["until"]) - second(&blocked["at"]), 5, "{blocked}");
        assert!(blocked["probes"].as_u64().unwrap() >= 3, "{blocked}");
        let touched = blocked["touched"].as_array().unwrap();
        assert!(touched.len() >= 3, "{blocked}");
        assert!(touched.iter().all(|touch| touch["scan"] == "syn" && touch["weight"] == "counts"));
        // It goes on, and is renewed; then its time ends.
        std::thread::sleep(Duration::from_millis(1500));
        scan("-p30-60");
        let renewed = wait_for(&daemon, "renewed", from);
        assert!(second(&renewed["until"]) > second(&blocked["until"]), "{renewed} {blocked}");
        let unblocked = wait_for(&daemon, "unblocked", from);
        assert_eq!(
            (&unblocked["ending"], &unblocked["result"]),
            (&"expired".into(), &"ended".into())
        );
        let blocked = wait_for(&daemon, "blocked", from);
        assert_eq!(blocked["ending"], "expired", "{blocked}");
        assert_eq!(blocked["ended"], unblocked["at"]);
        assert!(second(&blocked["ended"]) >= second(&renewed["at"]) + 4, "{blocked} {renewed}");
        let rows = history(&daemon, &["--source", from]);
        let mut order = kinds(&rows);
        order.dedup();
        assert_eq!(order, ["scan", "blocked", "renewed", "unblocked"], "{rows:?}");
    }
    // Blocks by hand end by hand, or not at all.
    done(&daemon.ctl(&["block", OTHER, "--for", "2h", "--reason", "abuse"]));
    done(&daemon.ctl(&["unblock", OTHER]));
    done(&daemon.ctl(&["block", "198.51.100.0/24", "--for", "0"]));
    assert_eq!(daemon.ctl(&["unblock", OTHER]).status.code(), Some(1));
    let rows = history(&daemon, &["--source", OTHER]);
    assert_eq!(kinds(&rows), ["order", "blocked", "order", "unblocked", "order"]);
    let reasons: Vec<_> = rows.iter().filter_map(|row| row["reason"].as_str()).collect();
    assert_eq!(
        reasons,
        [
            "block 10.81.1.3 --for \"2h\" --reason \"abuse\"",
            "by hand: abuse",
            "unblock 10.81.1.3",
            "unblock 10.81.1.3"
        ]
    );
    assert_eq!((&rows[1]["ending"], &rows[1]["protocol"]), (&"by-hand".into(), &"MANUAL".into()));
    assert_eq!((&rows[0]["result"], &rows[4]["result"]), (&"done".into(), &"failed".into()));
    assert!(rows[4]["details"]["error"].as_str().unwrap().contains("is not blocked"));
    let network = wait_for(&daemon, "blocked", "198.51.100.7");
    assert_eq!(network["address"], "198.51.100.0/24");
    assert!(network["until"].is_null() && network["ended"].is_null(), "{network}");
    // What is stored stays, and the classic file has its lines as ever.
    let before = history(&daemon, &["--all"]);
    daemon.stop();
    daemon.restart(yaml);
    let after = history(&daemon, &["--all"]);
    assert_eq!(after[..before.len()], before[..]);
    let added = after[before.len()..].to_vec();
    assert_eq!(kinds(&added), ["stopping", "starting", "adopted"], "gaps are explained");
    let classic = std::fs::read_to_string(daemon.path("portsentry.history")).unwrap();
    let blocks = after.iter().filter(|row| row["state"] == "blocked").count();
    assert_eq!(classic.lines().filter(|line| line.ends_with("Blocked")).count(), blocks);
}

#[test]
fn the_history_is_filtered_and_read_by_other_programs() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "udp: { advanced_ports: 1-1023 }");
    scene.scan_from(SCANNER, &["-sS", "-p1-20", HOST]);
    scene.scan_from(OTHER, &["-sU", "-p1-20", HOST]);
    daemon.wait_for_block(SCANNER);
    wait_for(&daemon, "scan", OTHER);
    done(&daemon.ctl(&["block", "2001:db8::/64", "--reason", "a \"quoted\", = text"]));
    let found = |words: &[&str]| history(&daemon, words);
    let addresses = |rows: Vec<Value>| -> std::collections::BTreeSet<String> {
        rows.iter().map(|row| row["address"].as_str().unwrap().to_owned()).collect()
    };
    let set = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect();
    assert_eq!(addresses(found(&["--source", "10.81.0.0/16"])), set(&[SCANNER, OTHER]));
    assert_eq!(addresses(found(&["--result", "reported"])), set(&[OTHER]));
    assert_eq!(addresses(found(&["--scan", "udp"])), set(&[OTHER]));
    assert_eq!(addresses(found(&["--kind", "blocked"])), set(&[SCANNER, "2001:db8::/64"]));
    let scans = found(&["--kind", "scan", "--source", OTHER]);
    assert_eq!(scans[0]["details"]["not_blocked"], "udp.action is log", "{scans:?}");
    assert_eq!(scans[0]["touched"][0]["weight"], "reported", "{scans:?}");
    let port = scans[0]["touched"][0]["port"].as_str().unwrap();
    assert_eq!(addresses(found(&["--port", port])), set(&[OTHER]));
    assert!(found(&["--until", "1h"]).is_empty());
    assert_eq!(found(&["--since", "2020-01-01"]), found(&[]));
    assert!(found(&["--since", "2099-01-01T00:00"]).is_empty());
    assert!(found(&["--until", "2099-01-01"]).len() >= 5);
    // Another program reads each event and each field.
    let csv = daemon.ctl(&["history", "--csv", "--all"]);
    let text = String::from_utf8(csv.stdout).unwrap();
    let path = daemon.path("history.csv");
    std::fs::write(&path, &text).unwrap();
    let script = "import csv, json, sys\nwith open(sys.argv[1], newline='') as file: print(json.dumps(list(csv.DictReader(file, strict=True))))";
    let parsed: Value =
        serde_json::from_str(&run("python3", &["-c", script, path.to_str().unwrap()])).unwrap();
    let rows = found(&["--all"]);
    assert_eq!(parsed.as_array().unwrap().len(), rows.len());
    for (cells, row) in parsed.as_array().unwrap().iter().zip(&rows) {
        for key in ["at", "kind", "address", "host", "result", "scan", "reason", "ending"] {
            assert_eq!(cells[key], *row[key].as_str().unwrap_or_default(), "{key} of {row}");
        }
        assert!(cells.as_object().unwrap().values().all(Value::is_string), "{cells}");
    }
    let quoted = parsed
        .as_array()
        .unwrap()
        .iter()
        .filter(|cells| cells["reason"].as_str().unwrap().contains("a \"quoted\", = text"));
    assert_eq!(quoted.count(), 1);
}

#[test]
fn the_past_of_an_address_is_told_while_it_lives_and_afterwards() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "scan_window: 20s\nudp: { advanced_ports: 1-1023 }\nblock: { unproven: { action: slow, timeout: 3s } }";
    let mut daemon = Daemon::start(&scene.host, yaml);
    assert_eq!(daemon.ctl(&["show", SCANNER]).status.code(), Some(1), "nothing is known");
    scene.scan_from(SCANNER, &["-sU", "-p7", HOST]);
    scene.scan_from(SCANNER, &["-sS", "-p1,7,9,11", HOST]);
    wait_for(&daemon, "slowed", SCANNER);
    let shown = daemon.json(&["show", SCANNER]);
    let probes = shown["probes"].as_array().unwrap();
    let weight = |port: &str| {
        let probe = probes.iter().find(|probe| probe["port"] == port);
        probe.unwrap_or_else(|| panic!("{port} of {shown}"))["weight"].clone()
    };
    assert_eq!((weight("udp/7"), weight("tcp/9")), ("reported".into(), "counts".into()));
    assert_eq!((&shown["standing"], &shown["trigger"]), (&"slowed".into(), &2.into()), "{shown}");
    assert!(shown["proof"]["needed"].as_u64().unwrap() > 0, "{shown}");
    let text = done(&daemon.ctl(&["show", SCANNER]));
    for part in [
        "its new connections wait for a second",
        "probe      udp/7, udp: is only reported: the action of its protocol is not block",
        "probe      tcp/1, syn: counts",
        "scan       syn scan: ",
        "slowed     syn scan: ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let place = |part: &str| text.find(part).unwrap();
    assert!(place("probe      udp/7") < place("probe      tcp/1"), "{text}");
    assert!(place("probe      tcp/1") < place("slowed     syn scan"), "{text}");
    // Long after, from another daemon: nothing of it is in memory.
    wait_for(&daemon, "released", SCANNER);
    daemon.stop();
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    for file in ["portsentry.db", "portsentry.db-wal", "portsentry-copy.db"] {
        let _ = std::fs::remove_file(daemon.path(file));
    }
    daemon.restart(yaml);
    let past = daemon.json(&["show", SCANNER]);
    assert_eq!((&past["touched"], &past["block"]), (&0.into(), &Value::Null), "{past}");
    assert_eq!(past["standing"], "counted");
    let text = done(&daemon.ctl(&["show", SCANNER]));
    for part in [
        "is not blocked",
        "probe      tcp/1, syn: counts",
        "(expired 20",
        "released   dropped=1; passed=0 (expired)",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn a_scanner_that_is_proven_has_its_proof_and_its_block_in_order() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let words =
        ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", SCANNER, "-p1-1023", "--host-timeout", "8s", HOST];
    scene.scanner.output("nmap", &words, Duration::from_secs(60));
    wait_for(&daemon, "blocked", SCANNER);
    let rows = history(&daemon, &["--source", SCANNER]);
    let order: Vec<_> = kinds(&rows).into_iter().filter(|kind| *kind != "continues").collect();
    let wanted = |kind: &str| order.iter().position(|found| *found == kind);
    assert!(wanted("scan") < wanted("slowed"), "{order:?}");
    assert!(wanted("slowed").is_some() && wanted("slowed") < wanted("proven"), "{order:?}");
    assert!(wanted("blocked").is_some(), "{order:?}");
    let slowed = rows.iter().find(|row| row["kind"] == "slowed").unwrap();
    assert_eq!(slowed["ending"], "proven", "{slowed}");
    let blocked = rows.iter().find(|row| row["kind"] == "blocked").unwrap();
    assert_eq!(blocked["proven"], true, "{blocked}");
}

/// Bytes of the database and its log.
fn bytes(directory: &Path) -> u64 {
    let size = |suffix: &str| {
        let path = directory.join(format!("{}{suffix}", events::FILE));
        std::fs::metadata(path).map_or(0, |file| file.len())
    };
    size("") + size("-wal")
}

#[test]
fn the_oldest_events_make_room_for_new_ones() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = format!("events: {{ max: 1M }}\n{AT_DEFAULTS}");
    let mut daemon = Daemon::start(&scene.host, &yaml);
    done(&daemon.ctl(&["block", "198.51.100.1"]));
    assert_eq!(history(&daemon, &[]).len(), 2);
    daemon.stop();
    // As a busy week leaves it.
    let script = "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1])\n\
        for n in range(20000): c.execute(\"INSERT INTO events (at, kind, network, first, last, reason, unproven) VALUES (?, 'scan', '10.9.9.9/32', ?, ?, ?, 0)\", \
        (int(time.time() * 1000) - 604800000 + n, bytes([10, 9, 9, 9]), bytes([10, 9, 9, 9]), 'x' * 200))\nc.commit()";
    run("python3", &["-c", script, daemon.path(events::FILE).to_str().unwrap()]);
    assert!(bytes(daemon.directory.path()) > 4 << 20);
    daemon.restart(&yaml);
    done(&daemon.ctl(&["block", "198.51.100.2"]));
    let is_small = || bytes(daemon.directory.path()) <= (1 << 20) + (1 << 20);
    assert!(eventually(Duration::from_secs(10), is_small), "{}", bytes(daemon.directory.path()));
    let left = history(&daemon, &["--source", "10.9.9.9"]);
    assert!((500..5000).contains(&left.len()), "{}", left.len());
    assert_eq!(history(&daemon, &["--kind", "blocked"]).len(), 2, "the newest");
    let status = daemon.json(&["status"])["events"].clone();
    assert!(status["bytes"].as_u64().unwrap() <= (1 << 20) + (512 << 10), "{status}");
}

#[test]
fn what_a_flood_leaves_unstored_is_counted() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "events: { max: 1M }\nscan_trigger: 0\nblock: { unproven: { action: slow } }";
    let daemon = Daemon::start(&scene.host, yaml);
    done(&daemon.ctl(&["block", "198.51.100.1"]));
    // Each probe is of another source, which passes the trigger.
    let load = Load::spoofed(HOST.parse().unwrap(), 1..=9, 500, Duration::from_secs(6));
    Wire::between(&scene.scanner, &scene.host, DEVICE).flood(&load);
    let status = || daemon.json(&["status"])["events"].clone();
    assert!(
        eventually(Duration::from_secs(10), || status()["rows"].as_u64() > Some(500)),
        "{}",
        status()
    );
    assert_eq!(status()["state"], "ok");
    assert!(bytes(daemon.directory.path()) <= 3 << 20, "{}", bytes(daemon.directory.path()));
    // The rest is counted a minute later, and each answer says so.
    let gaps = || history(&daemon, &["--source", "192.0.2.77"]);
    assert!(eventually(Duration::from_secs(90), || !gaps().is_empty()), "{}", status());
    let gap = &gaps()[0];
    assert_eq!((&gap["kind"], &gap["address"]), (&"not-stored".into(), &Value::Null), "{gap}");
    assert!(gap["details"]["events"].as_u64().unwrap() > 100, "{gap}");
    assert_eq!(history(&daemon, &["--kind", "blocked"]).len(), 1, "the administrator's stays");
}

#[test]
fn old_events_go_and_no_events_are_kept_where_none_are_wanted() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    done(&daemon.ctl(&["block", "198.51.100.1"]));
    assert_eq!(history(&daemon, &[]).len(), 2);
    daemon.stop();
    // Two hours pass.
    let database = daemon.path(events::FILE);
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('UPDATE events SET at = at - 7200000')\nc.commit()";
    run("python3", &["-c", script, database.to_str().unwrap()]);
    daemon.restart(&format!("events: {{ keep: 1h }}\n{AT_DEFAULTS}"));
    let is_gone = || history(&daemon, &[]).is_empty();
    assert!(eventually(Duration::from_secs(20), is_gone), "{:?}", history(&daemon, &[]));
    done(&daemon.ctl(&["block", "198.51.100.2"]));
    assert_eq!(history(&daemon, &[]).len(), 2);
    daemon.write_configuration(&format!("events: {{ keep: 0 }}\n{AT_DEFAULTS}"));
    done(&daemon.ctl(&["reload"]));
    let output = daemon.ctl(&["history"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("set events.keep"));
    assert!(eventually(Duration::from_secs(20), || !database.exists()));
    assert_eq!(daemon.json(&["status"])["events"]["state"], "off");
    // The classic file is another matter.
    let classic = std::fs::read_to_string(daemon.path("portsentry.history")).unwrap();
    assert_eq!(classic.lines().count(), 2);
}

#[test]
fn a_disk_that_fails_costs_no_block_and_its_events_come_later() {
    if missing(TOOLS).is_some() || missing(&["mount", "umount"]).is_some() {
        return;
    }
    let scene = scene();
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", path]);
    let daemon = Daemon::start_with(&scene.host, AT_DEFAULTS, Some(disk.path()));
    let filler = disk.path().join("filler");
    let full = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap());
    assert!(full.is_err());
    for n in 0..300 {
        done(&daemon.ctl(&["block", &format!("198.18.{}.{}", n / 200, n % 200 + 1)]));
        if daemon.json(&["status"])["events"]["state"] == "failing" {
            break;
        }
    }
    daemon.wait_for_log("the event store cannot be used");
    assert_eq!(daemon.json(&["status"])["events"]["state"], "failing");
    let blocked = daemon.blocked().len();
    std::fs::remove_file(&filler).unwrap();
    daemon.wait_within_for_log(Duration::from_secs(20), "events are stored again");
    assert_eq!(history(&daemon, &["--kind", "blocked"]).len(), blocked);
    assert_eq!(daemon.log().matches("the event store cannot be used").count(), 1);
    // A deleted database is begun again, with what the classic file has.
    std::fs::remove_file(disk.path().join(events::FILE)).unwrap();
    done(&daemon.ctl(&["block", "203.0.113.1"]));
    let blocks = || history(&daemon, &["--kind", "blocked"]);
    assert!(
        eventually(Duration::from_secs(10), || blocks().len() == blocked + 1),
        "{}",
        daemon.log()
    );
    drop(daemon);
    run("umount", &["-l", path]);
}
