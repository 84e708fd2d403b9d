//! Sweeps: one port of many addresses of this host, and echo requests to many. Beside them the
//! innocents that look a little like it: clients of a service that is down and has some addresses,
//! and monitoring.

use crate::support;

use std::time::Duration;

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::{DEVICE, Scene};
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "nmap"];
/// Addresses of the host in each family.
const HERE: usize = 40;

/// The `n`th address of the host, and of the scanner.
fn address(six: bool, end: u8, n: usize) -> String {
    if six { format!("fd67:{end}::{n:x}") } else { format!("10.67.{end}.{n}") }
}

fn scene() -> Scene {
    let scene = Scene::new(&["10.67.1.1/16", "fd67:1::1/16"], &["10.67.2.1/16", "fd67:2::1/16"]);
    for (namespace, end) in [(&scene.host, 1), (&scene.scanner, 2)] {
        let line = |n| {
            format!(
                "addr add {}/16 dev {DEVICE}\naddr add {}/16 dev {DEVICE} nodad\n",
                address(false, end, n),
                address(true, end, n)
            )
        };
        namespace.ip_batch(&(2..=HERE).map(line).collect::<String>());
    }
    scene
}

/// Runs nmap over the first `number` addresses of the host; returns its output.
fn nmap(scene: &Scene, six: bool, from: &str, number: usize, words: &[&str]) -> String {
    let targets: Vec<String> = (1..=number).map(|n| address(six, 1, n)).collect();
    let mut all = vec!["-n", "-T4", "--max-retries", "0", "--send-ip", "-e", DEVICE, "-S", from];
    all.extend(six.then_some("-6"));
    all.extend_from_slice(words);
    all.extend(targets.iter().map(String::as_str));
    let output = scene.scanner.output("nmap", &all, Duration::from_secs(60));
    assert!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The events of this source, in their order.
fn events(daemon: &Daemon<'_>, source: &str) -> Vec<Value> {
    let log = daemon.log();
    let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.filter(|event| event["address"] == source).collect()
}

fn kinds(daemon: &Daemon<'_>, source: &str) -> Vec<(String, String)> {
    let text = |event: &Value, key| event[key].as_str().unwrap_or_default().to_owned();
    events(daemon, source).iter().map(|event| (text(event, "event"), text(event, "scan"))).collect()
}

/// The options of nmap, the kind, and what is done about it.
const ROWS: [(&[&str], &str, &str); 6] = [
    (&["-Pn", "-sS", "-p", "445"], "sweep", "slowed"),
    (&["-Pn", "-sS", "-p", "445,3389"], "sweep", "slowed"),
    (&["-sn", "-PS445"], "sweep", "slowed"),
    (&["-sn", "-PA445"], "sweep", "scan"),
    (&["-sn", "-PE"], "ping-sweep", "scan"),
    (&["-Pn", "-sU", "-p", "161"], "sweep", "scan"),
];

// P28
#[test]
fn every_sweep_of_forty_addresses_is_noticed_as_what_it_is() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = format!("log: {{ format: json }} # {}", support::daemon::AT_DEFAULTS);
    let daemon = Daemon::start(&scene.host, &yaml);
    let mut wrong = Vec::new();
    for (row, (words, kind, event)) in ROWS.into_iter().enumerate() {
        for six in [false, true] {
            let source = address(six, 2, row + 10);
            let told = nmap(&scene, six, &source, HERE, words);
            let is_it = |(what, scan): &(String, String)| what == event && scan == kind;
            eventually(Duration::from_secs(3), || kinds(&daemon, &source).iter().any(is_it));
            let kinds = kinds(&daemon, &source);
            println!("{words:?} from {source}: {kinds:?}");
            if !kinds.iter().any(is_it) || kinds.iter().any(|(_, scan)| scan != kind) {
                wrong.push((words, source, kinds));
            } else if kind == "ping-sweep" && !told.contains(&format!("{HERE} hosts up")) {
                wrong.push((words, told, kinds));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", daemon.log());
    for six in [false, true] {
        support::done(&daemon.ctl(&["unblock", &address(six, 2, 10)]));
    }
    assert!(!daemon.log().contains("cannot end a hold"), "{}", daemon.log());
}

// P4
#[test]
fn ten_addresses_of_a_service_that_is_down_are_no_sweep() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, support::daemon::AT_DEFAULTS);
    for (row, (words, ..)) in ROWS.into_iter().enumerate() {
        for six in [false, true] {
            let source = address(six, 2, row + 10);
            for _ in 0..3 {
                nmap(&scene, six, &source, 10, words);
            }
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(!daemon.log().contains("attackalert"), "{}", daemon.log());
}
