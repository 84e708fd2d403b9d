//! An administrator switches the mode and detection while the daemon runs.

use crate::support;

use std::time::Duration;

use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const HOST: &str = "10.73.1.1";
const SCANNER: &str = "10.73.1.2";
const OTHER: &str = "10.73.1.3";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping"];

fn scene() -> Scene {
    Scene::new(&["10.73.1.1/24"], &["10.73.1.2/24", "10.73.1.3/24", "10.73.1.4/24", "10.73.1.5/24"])
}

/// `mode`, `configured_mode`, `detection`, and whether a confirmation and the end of a pause are
/// awaited.
fn switches(daemon: &Daemon<'_>) -> (String, String, String, bool, bool) {
    let status = daemon.json(&["status"]);
    let text = |key: &str| status[key].as_str().unwrap().to_owned();
    let is_there = |key: &str| status[key].is_string();
    (
        text("mode"),
        text("configured_mode"),
        text("detection"),
        is_there("confirm_by"),
        is_there("on_at"),
    )
}

fn is(
    daemon: &Daemon<'_>,
    (mode, configured, detection): (&str, &str, &str),
    confirms: bool,
    pauses: bool,
) {
    let wanted = (mode.to_owned(), configured.to_owned(), detection.to_owned(), confirms, pauses);
    assert_eq!(switches(daemon), wanted, "{}", daemon.log());
}

fn warnings(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["warnings"].to_string()
}

#[test]
fn enforcing_ends_by_itself_unless_it_is_confirmed() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let observe = format!("mode: observe\n{AT_DEFAULTS}");
    let mut daemon = Daemon::start(&scene.host, &observe);
    let file = || std::fs::read_to_string(daemon.path("portsentry.yaml")).unwrap();
    let before = file();
    is(&daemon, ("observe", "observe", "on"), false, false);
    let text = done(&daemon.ctl(&["enforce", "--confirm", "6s"]));
    assert!(text.contains("observed again in 6 s unless you confirm"), "{text}");
    is(&daemon, ("enforce", "observe", "on"), true, false);
    assert!(warnings(&daemon).contains("not confirmed"), "{}", warnings(&daemon));
    let text = output_text(&daemon.ctl(&["status"]));
    assert!(text.contains("unless confirmed"), "{text}");
    scene.scan_from(SCANNER, &["-sS", "-p1-50", HOST]);
    daemon.wait_for_block(SCANNER);
    // A reload ends neither the mode nor the time.
    let due = daemon.json(&["status"])["confirm_by"].clone();
    done(&daemon.ctl(&["reload"]));
    let again = daemon.json(&["status"])["confirm_by"].clone();
    let second = |stamp: &serde_json::Value| {
        stamp.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
    };
    assert!((second(&due) - second(&again)).abs() <= 1, "{due} {again}");
    daemon.wait_within_for_log(Duration::from_secs(10), "not confirmed in time");
    is(&daemon, ("observe", "observe", "on"), false, false);
    assert!(scene.reaches_from(SCANNER), "observing drops nothing");
    assert_eq!(before, file(), "the administrator's file stays as it is");

    // A restart before the confirmation observes.
    done(&daemon.ctl(&["enforce", "--confirm", "1h"]));
    is(&daemon, ("enforce", "observe", "on"), true, false);
    daemon.stop();
    daemon.restart(&observe);
    is(&daemon, ("observe", "observe", "on"), false, false);

    done(&daemon.ctl(&["enforce", "--confirm", "2s"]));
    let text = done(&daemon.ctl(&["enforce"]));
    assert!(text.contains("write mode: enforce there to keep it"), "{text}");
    std::thread::sleep(Duration::from_millis(2500));
    is(&daemon, ("enforce", "observe", "on"), false, false);
    assert!(warnings(&daemon).contains("until the daemon starts again"), "{}", warnings(&daemon));
    assert_eq!(daemon.ctl(&["enforce", "--confirm", "1m"]).status.code(), Some(1));
    done(&daemon.ctl(&["reload"]));
    is(&daemon, ("enforce", "observe", "on"), false, false);
    // The file has the last word as soon as its mode changes.
    daemon.write_configuration(AT_DEFAULTS);
    done(&daemon.ctl(&["reload"]));
    is(&daemon, ("enforce", "enforce", "on"), false, false);
    assert!(!warnings(&daemon).contains("mode"), "{}", warnings(&daemon));

    let text = done(&daemon.ctl(&["observe"]));
    assert!(text.contains("write mode: observe there to keep it"), "{text}");
    assert_eq!(daemon.ctl(&["observe"]).status.code(), Some(1));
    done(&daemon.ctl(&["reload"]));
    is(&daemon, ("observe", "enforce", "on"), false, false);
    daemon.stop();
    daemon.restart(AT_DEFAULTS);
    is(&daemon, ("enforce", "enforce", "on"), false, false);
}

fn rules(scene: &Scene) -> String {
    scene.host.run("nft", &["list", "table", "inet", "portsentry"])
}

#[test]
fn off_watches_nothing_and_keeps_blocks_until_it_is_on() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "udp: { mode: \"off\" }");
    scene.scan_from(SCANNER, &["-sS", "-p1-50", HOST]);
    daemon.wait_for_block(SCANNER);
    done(&daemon.ctl(&["block", SCANNER, "--for", "1h"]));
    let text = done(&daemon.ctl(&["off"]));
    assert!(text.contains("blocks stay"), "{text}");
    let at_rest = |daemon: &Daemon<'_>, detection: &str, pauses: bool| {
        is(daemon, ("enforce", "enforce", detection), false, pauses);
        let rules = rules(&scene);
        assert!(!rules.contains("log prefix") && !rules.contains("jump probe"), "{rules}");
        let status = daemon.json(&["status"]);
        assert_eq!(status["watching"], serde_json::json!([]), "{status}");
        assert!(warnings(daemon).contains("nothing is watched"), "{status}");
        assert!(!warnings(daemon).contains("not those in force"), "{status}");
        let probes = status["probes"].clone();
        let text = scene.nmap(&["-e", "scan0", "-S", OTHER, "-sS", "-p1-50", HOST]);
        assert!(text.contains("closed"), "closed ports answer: {text}");
        assert_eq!(daemon.json(&["status"])["probes"], probes);
        assert_eq!(daemon.blocked(), [SCANNER]);
        assert!(!scene.reaches_from(SCANNER), "blocks stay");
    };
    at_rest(&daemon, "off", false);
    assert!(output_text(&daemon.ctl(&["status"])).contains("is off, and watches nothing"));
    assert_eq!(daemon.ctl(&["off"]).status.code(), Some(1), "it is off already");
    // Neither a reload nor another program's flush ends it.
    done(&daemon.ctl(&["reload"]));
    at_rest(&daemon, "off", false);
    scene.host.run("nft", &["flush", "ruleset"]);
    assert!(
        eventually(Duration::from_secs(20), || !scene.reaches_from(SCANNER)),
        "{}",
        daemon.log()
    );
    at_rest(&daemon, "off", false);
    done(&daemon.ctl(&["on"]));
    is(&daemon, ("enforce", "enforce", "on"), false, false);
    assert_eq!(daemon.ctl(&["on"]).status.code(), Some(1), "it is on already");
    scene.scan_from(OTHER, &["-sS", "-p1-50", HOST]);
    daemon.wait_for_block(OTHER);
    done(&daemon.ctl(&["unblock", OTHER]));

    done(&daemon.ctl(&["pause", "8s"]));
    at_rest(&daemon, "paused", true);
    daemon.wait_within_for_log(Duration::from_secs(15), "the pause is over");
    is(&daemon, ("enforce", "enforce", "on"), false, false);
    scene.scan_from("10.73.1.4", &["-sS", "-p1-50", HOST]);
    daemon.wait_for_block("10.73.1.4");

    done(&daemon.ctl(&["off"]));
    daemon.stop();
    daemon.restart("udp: { mode: \"off\" }");
    is(&daemon, ("enforce", "enforce", "on"), false, false);
    scene.scan_from("10.73.1.5", &["-sS", "-p1-50", HOST]);
    daemon.wait_for_block("10.73.1.5");
}

#[test]
fn off_slows_no_source_any_more_and_says_so() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    // In connect mode too: decoys and queues end and come back.
    for yaml in [
        "block: { unproven: { action: slow } }",
        "capture: { method: nfqueue }\nblock: { unproven: { action: slow } }",
        "tcp: { mode: connect, ports: [1-20] }\nblock: { unproven: { action: slow } }",
    ] {
        let daemon = Daemon::start(&scene.host, yaml);
        let slowed = || daemon.json(&["status"])["slowed"].as_u64().unwrap();
        scene.traffic("blind", OTHER, HOST, &["21", "24", "1", "1"]);
        let is_connect = yaml.contains("connect");
        assert!(
            is_connect || eventually(Duration::from_secs(20), || slowed() == 1),
            "{}",
            daemon.log()
        );
        done(&daemon.ctl(&["off"]));
        assert!(eventually(Duration::from_secs(20), || slowed() == 0), "{}", daemon.log());
        assert_eq!(daemon.blocked(), Vec::<String>::new());
        let text = scene.nmap(&["-e", "scan0", "-S", SCANNER, "-sS", "-p1-50", HOST]);
        assert!(text.contains("50 closed") || text.contains("closed tcp ports"), "{yaml}: {text}");
        assert!(!text.contains(" open "), "{yaml}: {text}");
        done(&daemon.ctl(&["on"]));
        scene.scan_from(SCANNER, &["-sS", "-p1-50", HOST]);
        daemon.wait_for_block(SCANNER);
        done(&daemon.ctl(&["unblock", SCANNER]));
    }
}
