//! Slowed is a state that people see: as an event, in lists, in the history; and what each choice
//! means for a host whose address is forged.

use crate::support;

use std::time::Duration;

use super::slow::{
    HONEST, HOST, STALLED, TOOLS, forge, honest, scene, serve, state_of, unharmed, wait_for_state,
};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::DEVICE;
use support::{eventually, missing};

const SCANNER: &str = "10.69.1.2";

/// Decoys on these ports, and unproven sources slowed.
const DECOYS: &str =
    "tcp: { mode: connect, ports: [21, 23, 25, 110-113, 443] }\nudp: { mode: off }";

/// The events of a kind in a log of JSON objects, about an address.
fn events(daemon: &Daemon<'_>, kind: &str, address: &str) -> Vec<serde_json::Value> {
    let log = daemon.log();
    let objects = log.lines().filter_map(|line| serde_json::from_str(line).ok());
    objects
        .filter(|event: &serde_json::Value| event["event"] == kind && event["address"] == address)
        .collect()
}

/// How slowing ended, once the log says so.
fn ending(daemon: &Daemon<'_>, address: &str) -> String {
    let is_there = || !events(daemon, "released", address).is_empty();
    assert!(eventually(Duration::from_secs(10), is_there), "{}", daemon.log());
    let ends = events(daemon, "released", address);
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends[0]["ending"].as_str().unwrap().to_owned()
}

#[test]
fn the_beginning_and_the_end_of_slowing_are_events() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "log: { format: json }\nblock: { unproven: { action: slow, timeout: 3s } }";
    let daemon = Daemon::start(&scene.host, yaml);
    // One whose time ends, one that is released, and one that an administrator blocks.
    for host in ["10.69.1.4", "10.69.1.5", HONEST] {
        forge(&scene, host, ["110", "113"], "1", "1");
        wait_for_state(&daemon, host, "slowed", false);
        let slowed = events(&daemon, "slowed", host);
        assert_eq!(slowed.len(), 1, "{slowed:?}");
        let event = &slowed[0];
        assert_eq!(event["port"], "tcp/112", "{event}");
        assert_eq!(event["scan"], "syn", "{event}");
        assert_eq!((&event["timeout"], &event["blocking"]), (&3.into(), &false.into()), "{event}");
        assert!(event["reason"].as_str().unwrap().contains("3 ports"), "{event}");
        if host == "10.69.1.5" {
            assert!(daemon.ctl(&["unblock", host]).status.success());
        }
    }
    assert!(daemon.ctl(&["block", HONEST]).status.success());
    assert_eq!(ending(&daemon, "10.69.1.4"), "expired");
    assert_eq!(ending(&daemon, "10.69.1.5"), "by-hand");
    assert_eq!(ending(&daemon, HONEST), "blocked");
    assert_eq!(daemon.json(&["list"]).as_array().unwrap().len(), 1);
    let history = daemon.json(&["history"]);
    let rows: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        // Those that have a line in the classic file.
        .filter(|row| !row["state"].is_null())
        .map(|row| [&row["address"], &row["state"]].map(|value| value.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(
        rows,
        [["10.69.1.4", "slowed"], ["10.69.1.5", "slowed"], [HONEST, "slowed"], [HONEST, "blocked"]]
    );
}

#[test]
fn status_list_and_show_tell_slowed_proven_and_ordered_apart() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    assert!(daemon.ctl(&["block", "192.0.2.7", "--for", "1h"]).status.success());
    let words =
        ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", SCANNER, "-p1-1023", "--host-timeout", "8s", HOST];
    scene.scanner.output("nmap", &words, Duration::from_secs(60));
    wait_for_state(&daemon, SCANNER, "blocked", true);
    // Every port three times, whatever the answer.
    forge(&scene, HONEST, ["20", "79"], "1", "3");
    let is_blind = || daemon.json(&["show", HONEST])["proof"]["blind"] == true;
    assert!(eventually(Duration::from_secs(10), is_blind), "{}", daemon.json(&["show", HONEST]));

    let status = daemon.json(&["status"]);
    assert_eq!(status["slowed"], 1);
    let causes = serde_json::json!({"proven": 1, "unproven": 0, "order": 1, "foreign": 0});
    assert_eq!((&status["blocked"], &status["causes"]), (&2.into(), &causes), "{status}");
    for (address, state, cause) in [
        (HONEST, "slowed", "unproven"),
        (SCANNER, "blocked", "proven"),
        ("192.0.2.7", "blocked", "order"),
    ] {
        let list = daemon.json(&["list"]);
        let listed = list.as_array().unwrap().iter().find(|row| row["address"] == address).unwrap();
        let shown = daemon.json(&["show", address]);
        for row in [listed, &shown["block"]] {
            assert_eq!((&row["state"], &row["cause"]), (&state.into(), &cause.into()), "{row}");
            assert!(row["since"].is_string() || address == "192.0.2.7", "{row}");
            assert!(row["since"].as_str() < row["until"].as_str(), "{row}");
        }
        assert_eq!(shown["proof"].is_object(), state == "slowed", "{shown}");
    }
    let shown = daemon.json(&["show", HONEST]);
    assert!(shown["proof"]["answered"].as_u64().unwrap() > 1, "{shown}");
    let text = String::from_utf8(daemon.ctl(&["show", HONEST]).stdout).unwrap();
    assert!(text.contains("so it does not see our answers"), "{text}");
}

#[test]
fn what_is_told_of_a_packet_to_come_is_what_becomes_of_it() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let _service = scene.host.enter(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let test = |address: &str| {
        let tested = daemon.json(&["test", address, "80", "23", "udp/7", "8080"]);
        let outcomes = tested["ports"].as_array().unwrap().iter();
        let outcomes: Vec<String> =
            outcomes.map(|port| port["outcome"].as_str().unwrap().to_owned()).collect();
        (tested["standing"].as_str().unwrap().to_owned(), outcomes.join(" "))
    };
    // Seconds until a connection to a port was there; `None` if there was none within two.
    let connect = |port: u16| {
        let began = std::time::Instant::now();
        let to = std::net::SocketAddr::new(HOST.parse().unwrap(), port);
        let limit = Duration::from_secs(2);
        let done = scene.scanner.enter(|| std::net::TcpStream::connect_timeout(&to, limit));
        done.is_ok().then(|| began.elapsed().as_secs_f64())
    };
    let known = |of: &str| eventually(Duration::from_secs(10), || test(of).1.starts_with("passes"));
    assert!(known(SCANNER), "the service becomes known");
    assert_eq!(test(SCANNER), ("counted".into(), "passes dropped dropped passes".into()));
    assert!(connect(80).is_some_and(|seconds| seconds < 0.5));
    assert_eq!(connect(23), None);

    forge(&scene, SCANNER, ["20", "79"], "1", "1");
    wait_for_state(&daemon, SCANNER, "slowed", false);
    assert_eq!(test(SCANNER), ("slowed".into(), "waits either_way dropped passes".into()));
    let waited = connect(80);
    assert!(waited.is_some_and(|seconds| seconds > 0.9), "{waited:?}");

    assert!(daemon.ctl(&["block", SCANNER]).status.success());
    assert_eq!(test(SCANNER), ("blocked".into(), "dropped dropped dropped dropped".into()));
    assert_eq!(connect(80), None);

    assert!(daemon.ctl(&["allow", "add", SCANNER]).status.success());
    assert_eq!(test(SCANNER), ("allowed".into(), "passes passes passes passes".into()));
    assert!(connect(80).is_some_and(|seconds| seconds < 0.5));
    let text = String::from_utf8(daemon.ctl(&["test", SCANNER, "23"]).stdout).unwrap();
    assert!(text.contains("is never blocked") && text.contains("reported"), "{text}");
}

// P3
#[test]
fn the_command_runs_for_slowed_sources_where_it_is_chosen() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (on, expected) in [
        ("[blocked]", vec!["10.69.1.2 blocked blocked"]),
        (
            "[slowed, blocked]",
            vec!["10.69.1.2 blocked blocked", "10.69.1.2 slowed slowed", "10.69.1.3 slowed slowed"],
        ),
    ] {
        let scene = scene();
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let deny = directory.path().join("hosts.deny");
        let yaml = format!(
            "respond:\n  command: [/bin/sh, -c, 'echo \"$0 $1 $PORTSENTRY_STATE\" >> {}', \"{{target}}\", \"{{state}}\"]\n  command_on: {on}\n  hosts_deny: {{ enabled: true, path: {} }}\n{AT_DEFAULTS}",
            out.display(),
            deny.display(),
        );
        let daemon = Daemon::start(&scene.host, &yaml);
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "slowed", false);
        let words = [
            "-n",
            "-Pn",
            "-sS",
            "-e",
            DEVICE,
            "-S",
            SCANNER,
            "-p1-1023",
            "--host-timeout",
            "8s",
            HOST,
        ];
        scene.scanner.output("nmap", &words, Duration::from_secs(60));
        wait_for_state(&daemon, SCANNER, "blocked", true);
        let lines = || {
            let text = std::fs::read_to_string(&out).unwrap_or_default();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert!(
            eventually(Duration::from_secs(20), || lines() == expected),
            "{on}: {:?}\n{}",
            lines(),
            daemon.log()
        );
        let denied = || std::fs::read_to_string(&deny).unwrap_or_default();
        assert!(eventually(Duration::from_secs(20), || denied().contains(SCANNER)), "{}", denied());
        assert!(!denied().contains(HONEST), "{}", denied());
    }
}

/// What an honest host notices when its address is forged, by the choices of portsentry(8),
/// SECURITY CONSIDERATIONS.
// P3
#[test]
fn what_each_choice_means_for_a_host_whose_address_is_forged() {
    if missing(TOOLS).is_some() {
        return;
    }
    let unproven = |action: &str| format!("block: {{ unproven: {{ action: {action} }} }}");
    let choices = [
        // The configuration, the forged ports, the state, and whether each connection waits.
        (unproven("slow"), ["110", "113"], Some("slowed"), true),
        (unproven("report"), ["110", "113"], None, false),
        ("mode: observe".to_owned(), ["110", "113"], None, false),
        (format!("scan_trigger: 0 {AT_DEFAULTS}"), ["110", "110"], Some("slowed"), true),
        (format!("{DECOYS} {AT_DEFAULTS}"), ["110", "113"], Some("slowed"), true),
    ];
    std::thread::scope(|scope| {
        for (yaml, ports, state, waits) in &choices {
            scope.spawn(move || {
                let scene = scene();
                let daemon = Daemon::start(&scene.host, yaml);
                let _service = serve(&scene.host, HOST, &["8000"]);
                let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 12, || {
                    forge(&scene, HONEST, *ports, "1", "1");
                    if let Some(state) = state {
                        wait_for_state(&daemon, HONEST, state, false);
                    } else {
                        daemon.wait_for_log(&format!("from host: {HONEST}/{HONEST} to TCP port"));
                    }
                });
                println!("{yaml:?}: a new connection took at most {} s", experience.slowest);
                unharmed(&experience);
                assert_eq!(experience.slowest > 0.7, *waits, "{yaml}");
                assert!(*waits || experience.slowest < STALLED, "{yaml}");
                let now = state_of(&daemon, HONEST).map(|(state, _)| state);
                assert_eq!(now.as_deref(), *state, "{yaml}");
            });
        }
    });
}

/// In connect mode decoys answer a slowed source's probes, so no rule renews that it is slowed.
// P3
#[test]
fn a_source_that_goes_on_probing_decoys_stays_slowed() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = format!("{DECOYS}\nblock: {{ unproven: {{ action: slow, timeout: 8s }} }}");
    let daemon = Daemon::start(&scene.host, &yaml);
    forge(&scene, HONEST, ["110", "112"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);
    let is_held = || {
        let set = scene.host.run("nft", &["list", "set", "inet", "portsentry", "held4"]);
        set.contains(HONEST)
    };
    // Longer than one time. A SYN counts three seconds later, as it may be a handshake's, and the
    // same one again until then is one.
    for _ in 0..12 {
        forge(&scene, HONEST, ["21", "21"], "1", "1");
        std::thread::sleep(Duration::from_secs(1));
        assert!(is_held(), "{}", daemon.log());
        assert_eq!(state_of(&daemon, HONEST), Some(("slowed".to_owned(), false)));
    }
    let is_over = || !is_held() && state_of(&daemon, HONEST).is_none();
    assert!(eventually(Duration::from_secs(25), is_over), "{}", daemon.log());
}

// P2, P3
#[test]
fn a_slowed_source_sees_no_decoys_and_is_proven_by_its_retransmissions() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let decoys = "tcp: { mode: connect, ports: [1-100] }";
    let daemon = Daemon::start(&scene.host, &format!("{decoys} {AT_DEFAULTS}"));
    let words = ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", SCANNER, "-p21,23,25,110", HOST];
    scene.scanner.output("nmap", &words, Duration::from_secs(60));
    wait_for_state(&daemon, SCANNER, "slowed", false);
    let words = ["-n", "-Pn", "-sT", "-p1-100", "--host-timeout", "15s", HOST];
    let output = scene.scanner.output("nmap", &words, Duration::from_secs(60));
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.contains("open"), "{output}");
    wait_for_state(&daemon, SCANNER, "blocked", true);
    daemon.wait_for_log(&format!("Host {SCANNER} is no longer slowed: its address is proven."));
    assert_eq!(daemon.blocked(), [SCANNER], "one row for each");
}
