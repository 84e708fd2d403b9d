//! Observe mode collects what would have been slowed or blocked, so that an administrator can
//! decide.

use crate::support;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::slow::serve;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const HOST: &str = "10.71.1.1";
const SCANNER: &str = "10.71.1.2";
const COLLEAGUE: &str = "10.71.1.3";
const OUTSIDE: &str = "10.72.1.2";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3", "ping"];

/// A host of this host's network, and others beyond.
fn scene() -> Scene {
    let scene = Scene::new(
        &["10.71.1.1/24"],
        &["10.71.1.2/24", "10.71.1.3/24", "10.72.1.2/24", "10.72.1.3/24"],
    );
    scene.host.run("ip", &["route", "add", "10.72.1.0/24", "dev", support::scene::DEVICE]);
    scene
}

/// README's own path: `mode: observe`, and an allow list.
#[test]
fn every_would_be_block_is_an_event_that_names_the_host_and_the_mode() {
    if missing(TOOLS).is_some() {
        return;
    }
    let allow = "mode: observe\nallow: [\"127.0.0.0/8\", \"::1\", \"198.51.100.0/24\"]";
    for (unproven, would_be) in
        [("", "slowed"), ("block: { unproven: { action: block } }", "blocked")]
    {
        let scene = scene();
        let daemon = Daemon::start(&scene.host, &format!("{allow}\n{unproven}\n{AT_DEFAULTS}"));
        let mut watch = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .arg("--socket")
            .arg(daemon.path("control.sock"))
            .args(["--json", "watch"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        for from in [SCANNER, OUTSIDE, "10.72.1.3"] {
            scene.scan_from(from, &["-sS", "-p1-100", HOST]);
        }
        for from in [SCANNER, OUTSIDE, "10.72.1.3"] {
            let line =
                format!("Host {from} was not blocked: observe mode, it would have been {would_be}");
            daemon.wait_for_log(&line);
        }
        watch.kill().unwrap();
        let mut events = String::new();
        watch.stdout.take().unwrap().read_to_string(&mut events).unwrap();
        watch.wait().unwrap();
        let events: Vec<serde_json::Value> =
            events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        for from in [SCANNER, OUTSIDE, "10.72.1.3"] {
            let event = events
                .iter()
                .find(|event| event["event"] == "scan" && event["address"] == from)
                .unwrap_or_else(|| panic!("{events:?}"));
            assert_eq!(event["would_be"], would_be, "{event}");
            assert!(event["not_blocked"].as_str().unwrap().contains("observe mode"), "{event}");
        }
        assert_eq!(daemon.blocked(), Vec::<String>::new());
        assert!(scene.reaches_from(OUTSIDE));
    }
}

#[test]
fn the_report_lists_what_would_have_been_slowed_and_who_to_look_at() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &format!("mode: observe\n{AT_DEFAULTS}"));
    assert_eq!(
        output_text(&daemon.ctl(&["list", "--would-be"])).trim(),
        "Nothing would have been blocked or slowed."
    );
    let _service = serve(&scene.host, HOST, &["8000"]);
    let _client = scene.scanner.spawn(
        "python3",
        &["-c", &format!("import socket,time; s=socket.create_connection(('{HOST}',8000),source_address=('{OUTSIDE}',0)); time.sleep(60)")],
    );
    for from in [SCANNER, COLLEAGUE, OUTSIDE, "10.72.1.3"] {
        scene.scan_from(from, &["-sS", "-p1-100", HOST]);
    }
    let rows = || daemon.json(&["list", "--would-be"]).as_array().unwrap().clone();
    assert!(eventually(Duration::from_secs(20), || rows().len() == 4), "{:?}", rows());
    done(&daemon.ctl(&["allow", "add", COLLEAGUE]));
    let report = daemon.json(&["observe", "report"]);
    assert_eq!(
        (&report["mode"], &report["slowed"], &report["blocked"], &report["forgotten"]),
        (&"observe".into(), &4.into(), &0.into(), &0.into()),
        "{report}"
    );
    let of = |address: &str| {
        let rows = report["sources"].as_array().unwrap();
        rows.iter().find(|row| row["address"] == address).unwrap().clone()
    };
    assert_eq!(of(SCANNER)["network"], "10.71.1.0/24", "{report}");
    assert_eq!(of(COLLEAGUE)["allowed"]["origin"], "portsentryctl", "{report}");
    assert_eq!(of(OUTSIDE)["services"], serde_json::json!(["tcp/8000"]), "{report}");
    let other = of("10.72.1.3");
    assert!(other["network"].is_null() && other["allowed"].is_null(), "{report}");
    assert_eq!(other["services"], serde_json::json!([]), "{report}");
    assert!(other["probes"].as_u64().unwrap() >= 90, "{report}");
    assert!(other["reason"].as_str().unwrap().contains("syn scan"), "{report}");
    assert!(other["since"].as_str() <= other["last_seen"].as_str(), "{report}");
    assert!(report["since"].as_str() <= other["since"].as_str(), "{report}");

    let text = output_text(&daemon.ctl(&["observe", "report"]));
    assert!(text.contains("4 sources would have been slowed, 0 blocked"), "{text}");
    assert!(text.contains("10.71.1.2: in this host's network 10.71.1.0/24\n"), "{text}");
    assert!(text.contains("10.72.1.2: has a connection to tcp/8000 now\n"), "{text}");
    assert!(text.contains("portsentryctl allow add 10.72.1.2"), "{text}");
    assert!(!text.contains("portsentryctl allow add 10.71.1.3"), "{text}");
    assert!(text.contains("portsentryctl enforce --confirm"), "{text}");
    assert_eq!(output_text(&daemon.ctl(&["list"])).trim(), "Nothing is blocked or slowed.");
}
