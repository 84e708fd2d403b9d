//! A capture of live scans, replayed: the same verdict as the daemon's.

use crate::campaign;
use crate::support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::daemon::{AT_DEFAULTS, Daemon, program};
use support::netns::Running;
use support::scene::{DEVICE, Scene};
use support::schedule;
use support::{done, eventually, missing, output, schema};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/record.py");

/// A capture of the host's device, which ends when it is dropped.
struct Recording(Running);

impl Recording {
    fn start(scene: &Scene, path: &Path) -> Self {
        let words = [RECORD, DEVICE, path.to_str().unwrap()];
        let mut running = scene.host.spawn("python3", &words);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(running)
    }

    /// Writes what is left, and ends.
    fn end(mut self) {
        let pid = self.0.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(eventually(Duration::from_secs(10), || self.0.0.try_wait().unwrap().is_some()));
    }
}

/// The JSON report on a capture.
fn replay(capture: &Path, configuration: &Path, words: &[&str]) -> Value {
    let fixed = ["replay", "--json", "--config", configuration.to_str().unwrap()];
    let words = [&fixed, words, &[capture.to_str().unwrap()]].concat();
    // A user who may do nothing.
    let report = output(&program(), &words, Duration::from_secs(60));
    assert_eq!(String::from_utf8_lossy(&report.stderr), "");
    let document = serde_json::from_str(&done(&report)).unwrap();
    schema::check("replay", &document);
    let events = |word| if word == "--json" { "--jsonl" } else { word };
    let words: Vec<&str> = words.into_iter().map(events).collect();
    schema::check_events(&done(&output(&program(), &words, Duration::from_secs(60))));
    document
}

fn address(index: usize, six: bool) -> String {
    if six { format!("fd67:{:x}::2", 0x100 + index) } else { format!("10.67.1.{}", 10 + index) }
}

#[test]
fn a_replayed_capture_has_the_verdicts_of_the_live_scans() {
    if missing(&["ip", "nft", "nmap", "python3"]).is_some() {
        return;
    }
    // Both judge by times.
    schedule::alone();
    // Name, nmap's options, ports, and the distinct port at which it is detected; 0: it is not.
    let kinds: [(&str, &[&str], &str, u64); 10] = [
        ("syn", &["-sS"], "1-60", 3),
        ("fin", &["-sF"], "1-60", 6),
        ("null", &["-sN"], "1-60", 3),
        ("xmas", &["-sX"], "1-60", 3),
        ("maimon", &["-sM"], "1-60", 6),
        ("ack", &["-sA"], "1-60", 6),
        ("udp", &["-sU"], "150-190", 3),
        ("custom-flags", &["-sS", "--scanflags", "SYNFIN"], "1-60", 3),
        ("syn", &["-sS", "-f", "--data-length", "24"], "1-60", 3),
        ("few", &["-sF"], "1-4", 0),
    ];
    let host = ["10.67.0.1/16", "fd67:1::1/64"];
    let scene = Scene::new(&host, &["10.67.0.9/16", "fd67:1::2/64"]).with_prefixes(&["fd67::/16"]);
    let lines = (0..kinds.len()).map(|index| {
        format!(
            "addr add {}/16 dev {DEVICE}\naddr add {}/128 dev {DEVICE} nodad\n",
            address(index, false),
            address(index, true)
        )
    });
    scene.scanner.ip_batch(&lines.collect::<String>());
    let daemon = Daemon::start(&scene.host, "udp: { action: block }");
    let capture = daemon.path("scans.pcap");
    let recording = Recording::start(&scene, &capture);
    // Both ends of the link know each other: the first probe does not wait for that.
    assert!(scene.reaches());
    let mut cases = Vec::new();
    for (index, (kind, options, ports, port)) in kinds.into_iter().enumerate() {
        for six in [false, true] {
            // nmap fragments IPv4 only.
            if six && options.contains(&"-f") {
                continue;
            }
            let target = if six { "fd67:1::1" } else { "10.67.0.1" };
            let family: &[&str] = if six { &["-6"] } else { &[] };
            let source = address(index, six);
            scene.scan_from(&source, &[options, family, &["-T4", "-p", ports, target]].concat());
            if port > 0 {
                daemon.wait_for_block(&source);
            }
            cases.push((source, kind, port));
        }
    }
    let live = daemon.json(&["list"]);
    recording.end();
    let configuration = daemon.path("portsentry.yaml");
    let words = ["--local", "10.67.0.1", "--local", "fd67:1::1", "--answer-within", "100ms"];
    let report = replay(&capture, &configuration, &words);
    let rows = report["detected"].as_array().unwrap();
    for (source, kind, port) in cases {
        let found = rows.iter().find(|row| row["address"] == *source);
        let listed = live.as_array().unwrap().iter().find(|row| row["address"] == *source);
        println!("{source} {kind} {port}: {}", found.map_or("none".into(), Value::to_string));
        if port == 0 {
            assert_eq!((found, listed), (None, None), "{source}");
            continue;
        }
        let (found, listed) = (found.expect("replayed"), listed.expect("live"));
        assert_eq!((&found["scan"], &listed["scan"]), (&kind.into(), &kind.into()), "{source}");
        assert_eq!(found["probes_until_detected"], port, "{found}");
        assert_eq!((&found["proven"], &listed["proven"]), (&false.into(), &false.into()));
        // The same evidence in the same order; the times are the kernel's here and there.
        let ports =
            |row: &Value| row["reason"].as_str().unwrap().rsplit(": ").next().map(str::to_owned);
        assert_eq!(ports(found), ports(listed), "{source}");
        assert_eq!(found["blocked"].as_array().unwrap().len(), 1, "{found}");
    }
    // Without a word of whose capture it is, the same.
    let guessed = replay(&capture, &configuration, &["--answer-within", "100ms"]);
    assert_eq!(guessed["local"], serde_json::json!(["10.67.0.1", "fd67:1::1"]));
    assert_eq!(guessed["detected"], report["detected"]);
}

#[test]
fn a_replayed_proof_is_the_live_one() {
    if missing(&["ip", "nft", "nmap", "python3"]).is_some() {
        return;
    }
    // Both judge by times.
    schedule::alone();
    let scene = Scene::new(&["10.67.0.1/16"], &["10.67.0.2/16"]);
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let capture = daemon.path("scan.pcap");
    let recording = Recording::start(&scene, &capture);
    assert!(scene.reaches());
    scene.scanner.output(
        "nmap",
        &["-n", "-Pn", "-sS", "-p", "1-200", "--host-timeout", "20s", "10.67.0.1"],
        Duration::from_secs(30),
    );
    daemon.wait_for_block("10.67.0.2");
    let live = daemon.json(&["list"])[0].clone();
    recording.end();
    let words = ["--local", "10.67.0.1", "--answer-within", "100ms"];
    let report = replay(&capture, &daemon.path("portsentry.yaml"), &words);
    let row = &report["detected"][0];
    assert_eq!((&live["scan"], &live["proven"]), (&"syn".into(), &true.into()), "{live}");
    assert_eq!((&row["scan"], &row["proven"]), (&"syn".into(), &true.into()), "{row}");
    assert_eq!(row["probes_until_detected"], 3, "{row}");
    assert_eq!(
        (row["slowed"].as_array().unwrap().len(), row["blocked"].as_array().unwrap().len()),
        (1, 1),
        "{row}"
    );
}

#[test]
fn evidence_in_large_numbers_and_what_is_excused_are_replayed_as_live() {
    if missing(&["ip", "nft", "nmap", "python3"]).is_some() {
        return;
    }
    // Both judge by times.
    schedule::alone();
    let few = "900-909";
    // Good connections before it, nmap's options, ports, and the kind that it is detected as.
    let cases: [(&str, &[&str], &str, Option<&str>); 9] = [
        ("0", &["-sA"], "40000-40040", Some("ack")),
        ("0", &["-sA"], "40000-40015", None),
        ("0", &["-sF"], "50000-50040", Some("fin")),
        ("0", &["-sS"], "2000-2040", Some("syn")),
        ("0", &["-sU", "-g", "53"], "3000-3040", Some("udp")),
        ("0", &["-sN"], "22,80,443", Some("null")),
        ("0", &["-sS", "--max-retries", "0"], few, Some("syn")),
        ("5", &["-sS", "--max-retries", "0"], few, None),
        ("5", &["-sS", "--max-retries", "0"], "900-910", Some("syn")),
    ];
    let host = "10.67.0.1";
    let scene = Scene::new(&["10.67.0.1/16"], &["10.67.0.9/16"]);
    let lines = (0..cases.len())
        .map(|index| format!("addr add {}/16 dev {DEVICE}\n", address(index, false)));
    scene.scanner.ip_batch(&lines.collect::<String>());
    let _services = crate::slow::serve(&scene.host, host, &["22", "80", "443"]);
    let watched =
        "tcp: { advanced_ports: [1-1023, 40000-65535] }\nudp: { advanced_ports: [1-4000] }";
    let daemon = Daemon::start(&scene.host, &format!("{AT_DEFAULTS}\n{watched}"));
    let capture = daemon.path("scans.pcap");
    let recording = Recording::start(&scene, &capture);
    assert!(scene.reaches());
    for (index, (connections, options, ports, kind)) in cases.into_iter().enumerate() {
        let source = address(index, false);
        if connections != "0" {
            scene.traffic("exchanges", &source, host, &["22", connections]);
        }
        scene.scan_from(&source, &[options, &["-T4", "-p", ports, host]].concat());
        if kind.is_some() {
            daemon.wait_within_for_log(Duration::from_secs(10), &source);
        }
    }
    // What is logged is evaluated within this time.
    std::thread::sleep(Duration::from_secs(1));
    let log = daemon.log();
    // The capture goes on for longer than the last probe waits for an answer.
    assert!(scene.reaches());
    recording.end();
    let words = ["--local", host, "--answer-within", "100ms"];
    let report = replay(&capture, &daemon.path("portsentry.yaml"), &words);
    let rows = report["detected"].as_array().unwrap();
    for (index, (connections, options, ports, kind)) in cases.into_iter().enumerate() {
        let source = address(index, false);
        let row = rows.iter().find(|row| row["address"] == *source);
        println!(
            "{connections} {options:?} {ports}: {}",
            row.map_or("none".into(), Value::to_string)
        );
        assert_eq!(row.and_then(|row| row["scan"].as_str()), kind, "{source}: {log}");
        let live: Vec<&str> = log.lines().filter(|line| line.contains(&source)).collect();
        assert_eq!(live.is_empty(), kind.is_none(), "{source}: {log}");
        // The same probe was the one too many.
        let Some(row) = row else { continue };
        let number = row["port"].as_str().unwrap().rsplit('/').next().unwrap();
        let end = format!("port: {number}");
        assert!(live.iter().any(|line| line.ends_with(&end)), "{row}: {live:?}");
        let is_slowed = !row["slowed"].as_array().unwrap().is_empty();
        assert_eq!(live.iter().any(|line| line.contains("slowed")), is_slowed, "{row}: {live:?}");
    }
}

#[test]
fn a_host_of_a_campaign_is_replayed_as_live() {
    if missing(&["ip", "nft", "nmap", "python3"]).is_some() {
        return;
    }
    // Both judge by times.
    schedule::alone();
    // What is done about the network, and how many ports that are not watched are scanned from it then:
    // fewer than are reported of other hosts, seen; and more, dropped.
    for (action, state, ports, is_seen) in
        [("slow", "slowed", 10, true), ("block", "blocked", 30, false)]
    {
        let scene = campaign::scene();
        let yaml = "unwatched: slow\nlog: { format: json }";
        let yaml = format!("campaign: {{ action: {action} }}\n{yaml} {AT_DEFAULTS}");
        let daemon = Daemon::start(&scene.host, &yaml);
        let capture = daemon.path("campaign.pcap");
        let recording = Recording::start(&scene, &capture);
        assert!(scene.reaches());
        campaign::send(&scene, (1..=64).map(|n| (format!("10.73.2.{n}"), vec![200 + n])));
        let is_held = || !campaign::events(&daemon).is_empty();
        assert!(eventually(Duration::from_secs(10), is_held), "{}", daemon.log());
        let scanner = "10.73.2.251";
        campaign::send(&scene, [(scanner.to_owned(), (2000..2000 + ports).collect())]);
        if is_seen {
            daemon.wait_within_for_log(Duration::from_secs(10), scanner);
        }
        // What is logged is evaluated within this time.
        std::thread::sleep(Duration::from_millis(500));
        let live = campaign::events(&daemon);
        assert_eq!(daemon.log().contains(scanner), is_seen, "{}", daemon.log());
        // The capture goes on for longer than the last probe waits for an answer.
        assert!(scene.reaches());
        recording.end();
        let words = ["--local", "10.73.1.1", "--answer-within", "100ms"];
        let report = replay(&capture, &daemon.path("portsentry.yaml"), &words);
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        let campaigns = report["campaigns"].as_array().unwrap().iter();
        let replayed: Vec<_> =
            campaigns.map(|row| (text(row, "address"), None, text(row, "state"))).collect();
        assert_eq!(replayed, live);
        assert_eq!(live, [("10.73.2.0/24".to_owned(), None, state.to_owned())]);
        let rows = report["detected"].as_array().unwrap().iter();
        let found: Vec<_> = rows.map(|row| text(row, "address")).collect();
        let expected: &[&str] = if is_seen { &[scanner] } else { &[] };
        assert_eq!(found, expected, "{report}");
    }
}
