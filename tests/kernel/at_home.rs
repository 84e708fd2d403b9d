//! What an administrator who lives with the daemon sees: few lines at a start, what a reload changed,
//! drop-ins, a trial of the responses, why a neighbour is not blocked, remedies that work, local time.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::daemon::{Daemon, program};
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const TOOLS: &[&str] = &["ip", "nft", "nmap"];

fn scene() -> Scene {
    Scene::new(&["10.79.1.1/24", "fd79:1::1/64"], &["10.79.1.2/24", "fd79:1::2/64"])
}

/// The lines of the log after the first `skip`, without their time.
fn lines(daemon: &Daemon<'_>, skip: usize) -> Vec<String> {
    let log = daemon.log();
    let texts = log.lines().skip(skip).filter_map(|line| Some(line.split_once("alert: ")?.1));
    texts.map(str::to_owned).collect()
}

#[test]
fn a_start_logs_few_lines_and_a_reload_what_it_changed() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 2");
    daemon.wait_for_log("active and listening");
    let mut start = lines(&daemon, 0);
    // Of machines on which nothing is installed.
    start.retain(|line| !line.contains("there is no user portsentry"));
    assert!(start.len() <= 5, "{start:#?}");
    assert_eq!(start[1], "Watching 1021 TCP ports in mode advanced: 1-112, 114-138, 140-1023");

    let skip = daemon.log().lines().count();
    daemon.write_configuration(
        "scan_trigger: 5\nallow: [127.0.0.0/8, \"::1\", 192.0.2.9]\ntcp: { advanced_ports: 1-1100 }",
    );
    daemon.signal("HUP");
    daemon.wait_for_log("has reloaded");
    let wanted = [
        "PortSentry has reloaded its configuration.",
        "Changed: tcp.advanced_ports: 1-1023 -> 1-1100",
        "Changed: scan_trigger: 2 -> 5",
        "Changed: allow: [\"127.0.0.0/8\", \"::1\"] -> [\"127.0.0.0/8\", \"::1\", \"192.0.2.9\"]",
        "Changed: watched TCP ports: 77 added, 0 removed",
        "Changed: never-block list: 1 added, 0 removed",
    ];
    assert!(
        eventually(Duration::from_secs(20), || lines(&daemon, skip) == wanted),
        "{:#?}",
        lines(&daemon, skip)
    );
    daemon.signal("HUP");
    daemon.wait_for_log("has reloaded its configuration: no change.");
    assert_eq!(lines(&daemon, skip).len(), wanted.len() + 1);
}

#[test]
fn a_reload_reads_drop_ins_and_check_reads_the_daemons_files() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 4");
    let drop_ins = daemon.path("conf.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::set_permissions(&drop_ins, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(drop_ins.join("10.yaml"), "scan_trigger: 7\n").unwrap();
    let reloaded = daemon.ctl(&["reload"]);
    assert!(output_text(&reloaded).contains("scan_trigger: 4 -> 7"), "{reloaded:?}");
    let checked = output_text(&daemon.ctl(&["check"]));
    let (main, drop_in) = (daemon.path("portsentry.yaml"), drop_ins.join("10.yaml"));
    let good = format!("{} with {}: good\n", main.display(), drop_in.display());
    assert!(checked.ends_with(&good), "{checked}");

    fs::write(drop_ins.join("20.yaml"), "scan_triger: 7\n").unwrap();
    for words in ["reload", "check"] {
        let refused = daemon.ctl(&[words]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(78), "{told}");
        assert!(told.contains("conf.d/20.yaml:1:1: error: unknown key `scan_triger`"), "{told}");
    }
}

#[test]
fn responses_are_tried_once_by_the_helper() {
    if missing(TOOLS).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = directory.path().join("hosts.deny");
    fs::write(&file, "ALL: 192.0.2.77\n").unwrap();
    let respond = |script: &str| {
        format!(
            "respond: {{ command: [/bin/sh, -c, '{script}', \"{{target}}\", \"{{protocol}}/{{port}}\"], hosts_deny: {{ enabled: true, path: {} }} }}",
            file.display()
        )
    };
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &respond("echo $0 $1 $PPID; exit 3"));
    let tried = daemon.ctl(&["--json", "test-response"]);
    assert_eq!(tried.status.code(), Some(1), "the command fails: {tried:?}");
    let tried: Value = serde_json::from_slice(&tried.stdout).unwrap();
    let event = |kind: &str| {
        let events = tried["events"].as_array().unwrap();
        events.iter().find(|event| event["event"] == kind).unwrap_or_else(|| panic!("{tried}"))
    };
    let command = event("command");
    assert_eq!((&command["status"], &command["done"]), (&3.into(), &false.into()), "{command}");
    let output = command["output"].as_str().unwrap();
    let parent = output.strip_prefix("192.0.2.1 tcp/1 ").unwrap_or_else(|| panic!("{output}"));
    let name = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    assert!(name.contains("helper"), "{name:?} runs it");
    assert_eq!(event("denied")["line"], "ALL: 192.0.2.1");
    event("no-longer-denied");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("192.0.2.77") && !text.contains("192.0.2.1\n"), "{text}");

    daemon.write_configuration(&respond("echo fine"));
    done(&daemon.ctl(&["reload"]));
    let tried = daemon.ctl(&["test-response"]);
    let told = output_text(&tried);
    assert!(
        told.contains("  ended   done, after ") && told.contains("  wrote   fine"),
        "{tried:?}"
    );
    daemon.write_configuration("resolve: false");
    done(&daemon.ctl(&["reload"]));
    let refused = daemon.ctl(&["test-response"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && told.contains("no response is configured"),
        "{told}"
    );
}

#[test]
fn a_neighbour_that_is_not_blocked_is_explained_with_what_to_set() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "block: { ipv6: { first: 64, then: 64 } }");
    scene.nmap(&["-6", "-sS", "-p1-20", "fd79:1::1"]);
    daemon.wait_for_log("Host fd79:1::2 was not blocked: never-block address; portsentryctl test fd79:1::2 tells why");
    for words in ["test", "show"] {
        let told = output_text(&daemon.ctl(&[words, "fd79:1::2"]));
        let why = "its IPv6 prefix has fd79:1::1 (own_addresses), which is never blocked";
        assert!(told.contains(why) && told.contains("ipv6: { first: 128 }"), "{told}");
    }
    let link_local = output_text(&daemon.ctl(&["test", "fe80::7"]));
    assert!(link_local.contains("so no setting ends that"), "{link_local}");
    daemon.write_configuration("block: { ipv6: { first: 128 } }");
    done(&daemon.ctl(&["reload"]));
    scene.nmap(&["-6", "-sS", "-p101-120", "fd79:1::1"]);
    daemon.wait_for_block("fd79:1::2");
}

#[test]
fn a_second_daemon_names_the_first_and_a_remedy_that_works() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "scan_trigger: 2");
    let other = daemon.path("other.yaml");
    let text = fs::read_to_string(daemon.path("portsentry.yaml")).unwrap();
    let state = format!("state_dir: {}", daemon.path("").display());
    let moved = text
        .replace("control.sock", "other.sock")
        .replace(state.trim_end_matches('/'), &format!("{state}other"));
    fs::write(&other, moved).unwrap();
    for file in [daemon.path("portsentry.yaml"), other] {
        let words = ["--config", file.to_str().unwrap()];
        let second = scene.host.output(&program(), &words, Duration::from_secs(10));
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(69), "{told}");
        let remedy = format!(
            "stop that one first (systemctl stop portsentry, or kill {})",
            daemon.child.id()
        );
        assert!(told.contains(&remedy), "{told}");
        let circle = ["another control.socket", "capture.group to another"];
        assert!(circle.iter().all(|other| !told.contains(other)), "{told}");
    }
    assert!(daemon.stop().success());
    daemon.restart("scan_trigger: 2");
}

#[test]
fn times_are_local_with_their_offset_and_json_is_utc() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 2");
    done(&daemon.ctl(&["block", "192.0.2.7"]));
    let socket = daemon.path("control.sock");
    let ctl = |zone: &str, words: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portsentryctl"));
        command.env("TZ", zone).arg("--socket").arg(&socket).args(words).output().unwrap()
    };
    for words in [&["list"][..], &["show", "192.0.2.7"], &["history"]] {
        let berlin = output_text(&ctl("Europe/Berlin", words));
        assert!(berlin.contains("+01:00") || berlin.contains("+02:00"), "{words:?}: {berlin}");
        let utc = output_text(&ctl("UTC", words));
        let day = utc.find("20").and_then(|at| utc.get(at..at + "2026-11-20 15:26:40Z".len()));
        assert!(day.is_some_and(|day| day.ends_with('Z')), "{words:?}: {utc}");
    }
    let json = output_text(&ctl("Europe/Berlin", &["--json", "list"]));
    let rows: Value = serde_json::from_str(&json).unwrap();
    assert!(rows[0]["since"].as_str().unwrap().ends_with('Z'), "{json}");
    let unknown = ctl("Nowhere/Land", &["list"]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("there is no time zone TZ=Nowhere/Land"), "{told}");
}
