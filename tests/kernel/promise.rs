//! The main promise: never block a protected address, stop real scans, report the truth, keep
//! working.
//!
//! Each test does to a running daemon what an administrator, an attacker or another program may do
//! to it.

use crate::support;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use portsentry::capture::nflog::{Listener, Settings};
use support::daemon::Daemon;
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const HOST: &str = "10.67.1.1";
const SCANNER: &str = "10.67.1.2";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping"];

fn scene() -> Scene {
    Scene::new(&["10.67.1.1/24", "fd67:1::1/64"], &["10.67.1.2/24", "fd67:77:0:1::2/64"])
        .with_prefixes(&["fd67:77::/32"])
        .with_route_to("fd67:1::/64")
}

fn warnings(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["warnings"].to_string()
}

// P14
#[test]
fn a_scanner_whose_element_was_deleted_is_blocked_again() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    // Without changes the daemon would not check a verified scan's or a manual block for an hour.
    let daemon = Daemon::start(&scene.host, "block: { unproven: { timeout: 1h } }");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    scene.host.run("nft", &["flush", "set", "inet", "portsentry", "unproven4"]);
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert_eq!(daemon.json(&["status"])["blocked"], 0, "the kernel's word, not that of our books");
    std::thread::sleep(Duration::from_millis(1100));
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    assert!(!scene.reaches());
}

// P15
#[test]
fn a_manual_block_is_not_shortened_by_packets() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", SCANNER, "--for", "5h"]));
    std::thread::sleep(Duration::from_millis(1100));
    // The rules are repaired at once; packets from in between do not change the block's end.
    scene.host.run(
        "nft",
        &["add", "element", "inet", "portsentry", "allowed4", &format!("{{ {SCANNER} }}")],
    );
    scene.host.run(
        "nft",
        &[
            "insert",
            "rule",
            "inet",
            "portsentry",
            "watch",
            "ip",
            "saddr",
            SCANNER,
            "goto",
            "tcp_probe",
        ],
    );
    scene.scan("-p1-50");
    let left = daemon.json(&["list"])[0]["expires_in"].as_u64().unwrap();
    assert!(left > 17_000, "{left} s");
}

// P14
#[test]
fn a_deleted_table_is_recreated_and_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        done(&daemon.ctl(&["block", address]));
    }
    scene.host.run("nft", &["flush", "ruleset"]);
    // Answers in the meantime are true.
    daemon.ctl(&["block", "198.51.100.9"]);
    assert!(
        eventually(Duration::from_secs(20), || warnings(&daemon) == "[]"
            && daemon.blocked().len() >= 3),
        "{}",
        warnings(&daemon)
    );
    assert_eq!(daemon.json(&["status"])["repairs"]["count"], 1);
    daemon.wait_for_log("blocks were restored");
    done(&daemon.ctl(&["allow", "add", "9.9.9.9"]));
    done(&daemon.ctl(&["unblock", "198.51.100.1"]));
    done(&daemon.ctl(&["unblock", "--all"]));
    scene.host.run("nft", &["flush", "ruleset"]);
    assert!(
        eventually(Duration::from_secs(20), || daemon.json(&["status"])["repairs"]["count"] == 2)
    );
    assert_eq!(daemon.blocked(), Vec::<String>::new(), "what was lifted stays lifted");
    assert!(
        scene
            .host
            .run("nft", &["list", "set", "inet", "portsentry", "allowed4"])
            .contains("9.9.9.9"),
        "what was allowed stays allowed"
    );
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
}

/// While the table cannot be created, every answer says so.
// D1
#[test]
fn a_table_owned_by_another_program_is_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", "198.51.100.1"]));
    // It deletes our table and creates one of the same name as its owner, for as long as it runs.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "delete table inet portsentry; add table inet portsentry { flags owner; }\n",
    )
    .unwrap();
    let text = format!("(cat {}; sleep 600) | nft -i", file.path().display());
    let thief = scene.host.spawn("sh", &["-c", &text]);
    daemon.wait_for_log("cannot be repaired");
    assert!(warnings(&daemon).contains("portsentry"), "{}", warnings(&daemon));
    for (arguments, code) in [
        (["list", "--json"], 70),
        (["block", "198.51.100.9"], 70),
        (["show", "198.51.100.1"], 70),
        (["allow", "list"], 0),
    ] {
        let output = daemon.ctl(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", output_text(&output));
    }
    assert_eq!(daemon.ctl(&["allow", "add", "9.9.9.9"]).status.code(), Some(70));
    for pid in scene.host.run("ip", &["netns", "pids", &scene.host.name]).split_whitespace() {
        if pid.parse::<u32>().unwrap() != daemon.child.id()
            && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "nft")
        {
            support::run("kill", &[pid]);
        }
    }
    assert!(
        eventually(Duration::from_secs(70), || warnings(&daemon) == "[]"
            && daemon.blocked() == ["198.51.100.1"]),
        "{}",
        daemon.log()
    );
    drop(thief);
}

// P14, P15
#[test]
fn a_reload_restores_a_deleted_table_with_its_blocks() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    done(&daemon.ctl(&["block", "fd67:77:0:1::2", "--for", "0"]));
    done(&daemon.ctl(&["block", "203.0.113.0/24", "--for", "2h", "--reason", "by order"]));
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    done(&daemon.ctl(&["reload"]));
    assert!(!scene.reaches());
    let list = daemon.json(&["list"]);
    let row = |address: &str| {
        list.as_array()
            .unwrap()
            .iter()
            .find(|row| row["address"] == address)
            .unwrap_or_else(|| panic!("{address}: {list}"))
    };
    assert_eq!(row(SCANNER)["scan"], "syn");
    assert!(row(SCANNER)["expires_in"].as_u64().unwrap() < 60, "{list}");
    assert!(row("fd67:77:0:1::2")["expires_in"].is_null(), "{list}");
    assert!(row("203.0.113.0/24")["reason"].as_str().unwrap().contains("by order"), "{list}");
    assert!(
        (7000..7200).contains(&row("203.0.113.0/24")["expires_in"].as_u64().unwrap()),
        "{list}"
    );
    assert_eq!(list.as_array().unwrap().len(), 3, "{list}");
}

// P7
#[test]
fn an_unblock_within_a_blocked_network_exempts_the_address_and_says_so() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", "203.0.113.0/24"]));
    done(&daemon.ctl(&["block", "203.0.113.5"]));
    let output = daemon.ctl(&["unblock", "203.0.113.5"]);
    done(&output);
    let text = output_text(&output);
    assert!(
        text.contains("203.0.113.5 is unblocked; 203.0.113.5 is exempt from the block of 203.0.113.0/24, the rest of which stays blocked"),
        "{text}"
    );
    let output = daemon.ctl(&["unblock", "203.0.113.6"]);
    done(&output);
    assert!(
        output_text(&output).contains("203.0.113.6 is exempt from the block of 203.0.113.0/24"),
        "{}",
        output_text(&output)
    );
    let list = output_text(&daemon.ctl(&["list"]));
    assert!(list.contains("203.0.113.0/24 except 203.0.113.5, 203.0.113.6"), "{list}");
    let show = output_text(&daemon.ctl(&["show", "203.0.113.6"]));
    assert!(show.contains("203.0.113.6 is not blocked"), "{show}");
    assert!(show.contains("the block of 203.0.113.0/24"), "{show}");
    assert!(output_text(&daemon.ctl(&["show", "203.0.113.7"])).contains("is blocked"));
    done(&daemon.ctl(&["unblock", "203.0.113.0/24"]));
    assert!(
        output_text(&daemon.ctl(&["unblock", "203.0.113.5"]))
            .contains("203.0.113.5 is not blocked")
    );
}

// P15
#[test]
fn blocked_prefixes_stay_when_the_configured_length_changes() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let one_length = |bits| format!("block: {{ ipv6_prefix: {bits} }}");
    let mut daemon = Daemon::start(&scene.host, &one_length(64));
    assert!(scene.scanner.pings(&["fd67:1::1"]));
    done(&daemon.ctl(&["block", "fd67:77:0:1::2"]));
    assert!(!scene.scanner.pings(&["fd67:1::1"]));
    let defaults = String::new();
    for (yaml, restart) in [
        (defaults.clone(), true),
        (one_length(56), true),
        (one_length(128), true),
        (one_length(48), false),
        (one_length(64), false),
        (defaults, false),
        (one_length(60), true),
    ] {
        if restart {
            daemon.stop();
            daemon.restart(&yaml);
        } else {
            daemon.write_configuration(&yaml);
            done(&daemon.ctl(&["reload"]));
        }
        assert_eq!(daemon.blocked(), ["fd67:77:0:1::/64"], "{yaml}");
        assert!(!scene.scanner.pings(&["fd67:1::1"]), "{yaml}");
    }
    done(&daemon.ctl(&["unblock", "fd67:77:0:1::/64"]));
    assert!(scene.scanner.pings(&["fd67:1::1"]));
}

// P12
#[test]
fn a_reload_to_a_group_that_another_program_has_changes_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "tcp: { mode: stealth, ports: [1-50] }");
    let rules = scene.host.run("nft", &["list", "chain", "inet", "portsentry", "probe"]);
    let other = scene.host.enter(|| Listener::bind(Settings::of_group(99)).unwrap());
    daemon.write_configuration("capture: { group: 99 }\ntcp: { mode: stealth, ports: [100-150] }");
    let refused = daemon.ctl(&["reload"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        output_text(&refused).contains("NFLOG group 99 is in use"),
        "{}",
        output_text(&refused)
    );
    assert_eq!(scene.host.run("nft", &["list", "chain", "inet", "portsentry", "probe"]), rules);
    assert_eq!(daemon.json(&["status"])["group"], 77);
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    drop(other);
    done(&daemon.ctl(&["unblock", "--all"]));
    let before = daemon.json(&["status"])["probes"].as_u64().unwrap();
    done(&daemon.ctl(&["reload"]));
    scene.scan("-p100-150");
    daemon.wait_for_block(SCANNER);
    assert!(daemon.json(&["status"])["probes"].as_u64().unwrap() >= before + 3);
}

// P6, P9
#[test]
fn a_flood_of_forged_sources_hides_no_scanner_and_fills_no_log() {
    if missing(&["ip", "nft", "nmap", "ping", "hping3"]).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    let flood = scene
        .scanner
        .spawn("timeout", &["4", "hping3", "--rand-source", "--flood", "-S", "-p", "79", HOST]);
    std::thread::sleep(Duration::from_millis(500));
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        daemon.json(&["status"]);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    scene.scan("-p1-100");
    daemon.wait_for_block(SCANNER);
    drop(flood);
    let status = daemon.json(&["status"]);
    let resident = daemon.memory("VmRSS");
    println!(
        "{} probes, {} lost, {} sources, slowest status {slowest:?}, {resident} kB resident",
        status["probes"], status["lost"], status["sources"]
    );
    // The rules count most of it themselves.
    let reflex = ["untold", "shed", "untold_holds"]
        .iter()
        .map(|key| status["reflex"][key].as_u64().unwrap())
        .sum::<u64>();
    assert!(status["probes"].as_u64().unwrap() + reflex > 10_000, "that was no flood: {status}");
    assert!(daemon.log().lines().count() < 150, "{}", daemon.log().lines().count());
    let lost = status["lost"].as_u64().unwrap();
    assert_eq!(status["warnings"].to_string().contains("lost"), lost > 0, "{status}");
}

// P15
#[test]
fn fifty_reloads_in_a_row_lose_no_block_and_no_probe() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", "198.51.100.1", "--for", "0"]));
    for _ in 0..50 {
        daemon.signal("HUP");
    }
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    let mut blocked = daemon.blocked();
    blocked.sort();
    assert_eq!(blocked, [SCANNER, "198.51.100.1"]);
    assert_eq!(daemon.json(&["status"])["warnings"].to_string(), "[]");
}

// P15, P25
#[test]
fn a_killed_daemon_leaves_its_blocks_and_adopts_them_again() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(!scene.reaches());
    daemon.restart("");
    assert_eq!(daemon.blocked(), [SCANNER]);
    done(&daemon.ctl(&["unblock", SCANNER]));
    assert!(scene.reaches());
}

// P15
#[test]
fn observe_drops_nothing_and_enforce_brings_the_blocks_back() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", SCANNER]));
    assert!(!scene.reaches());
    daemon.write_configuration("mode: observe");
    done(&daemon.ctl(&["reload"]));
    assert!(scene.reaches());
    scene.scan("-p1-50");
    assert!(scene.reaches());
    assert_eq!(daemon.json(&["status"])["blocked"], 0);
    daemon.write_configuration("");
    done(&daemon.ctl(&["reload"]));
    assert!(!scene.reaches());
    assert_eq!(daemon.blocked(), [SCANNER]);
}

// P1
#[test]
fn allow_add_unblocks_at_once_and_survives_a_restart() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    done(&daemon.ctl(&["allow", "add", SCANNER]));
    assert!(scene.reaches());
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    daemon.stop();
    daemon.restart("");
    scene.scan("-p1-50");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert_eq!(
        daemon.ctl(&["block", "10.67.1.2/31"]).status.code(),
        Some(1),
        "a network around it is not blocked either"
    );
    done(&daemon.ctl(&["allow", "remove", SCANNER]));
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
}

// P25
#[test]
fn a_full_disk_stops_no_block_and_is_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    std::fs::remove_file(daemon.path("portsentry.history")).unwrap();
    std::os::unix::fs::symlink("/dev/full", daemon.path("portsentry.history")).unwrap();
    daemon.restart("");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    daemon.wait_for_log("cannot be written");
    assert!(
        eventually(Duration::from_secs(20), || warnings(&daemon)
            .contains("history file cannot be written")),
        "{}",
        warnings(&daemon)
    );
    // The disk is empty again: the waiting line is written.
    std::fs::remove_file(daemon.path("portsentry.history")).unwrap();
    let written = || {
        std::fs::read_to_string(daemon.path("portsentry.history"))
            .is_ok_and(|text| text.contains(SCANNER))
    };
    assert!(eventually(Duration::from_secs(15), written), "{}", daemon.log());
    assert!(!warnings(&daemon).contains("history"), "{}", warnings(&daemon));
}

#[test]
fn systemd_is_notified_of_start_reload_watchdog_and_end() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let socket = UnixDatagram::bind(path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let told = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    std::fs::write(
        path("c.yaml"),
        format!(
            "state_dir: {0}\nhistory_file: \"\"\ncontrol: {{ socket: {0}/c.sock }}\n",
            directory.path().display()
        ),
    )
    .unwrap();
    let environment =
        [format!("NOTIFY_SOCKET={}", path("notify")), "WATCHDOG_USEC=3000000".to_owned()];
    let mut daemon = scene.host.spawn(
        "env",
        &[
            &environment[0],
            &environment[1],
            env!("CARGO_BIN_EXE_portsentry"),
            "--config",
            &path("c.yaml"),
        ],
    );
    assert!(told().contains("READY=1"));
    let begun = Instant::now();
    for _ in 0..3 {
        let text = told();
        assert!(text.contains("WATCHDOG=1") && text.contains("STATUS=mode enforce"), "{text}");
    }
    assert!(
        (Duration::from_millis(1500)..Duration::from_secs(9)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    let signal = |name: &str| support::run("kill", &[name, &daemon.0.id().to_string()]);
    let next = || loop {
        let text = told();
        if !text.contains("WATCHDOG=1") {
            return text;
        }
    };
    signal("-HUP");
    let reloading = next();
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert!(next().contains("READY=1"));
    signal("-TERM");
    assert!(next().contains("STOPPING=1"));
    assert!(daemon.0.wait().unwrap().success());
}

// P14
#[test]
fn a_second_daemon_with_another_group_does_not_take_the_table() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portsentry.yaml");
    let text = format!(
        "capture: {{ group: 88 }}\nstate_dir: {0}\nhistory_file: \"\"\ncontrol: {{ socket: {0}/c.sock }}\n",
        directory.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let second = scene.host.output(
        env!("CARGO_BIN_EXE_portsentry"),
        &["--config", file.to_str().unwrap()],
        Duration::from_secs(10),
    );
    assert_eq!(second.status.code(), Some(69), "{}", output_text(&second));
    assert!(
        output_text(&second).contains("another portsentry guards this host"),
        "{}",
        output_text(&second)
    );
    assert_eq!(warnings(&daemon), "[]");
    scene.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
}
