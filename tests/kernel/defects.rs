//! The predecessors' defects, tried on ours: the rows of the table in SECURITY.md that no other
//! test holds. Where it is cheap, Debian's PortSentry 1.2 runs beside it and shows the defect,
//! which proves that the test would find it.

use crate::support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use support::daemon::Daemon;
use support::predecessor::{Machine, Package, classic_configuration};
use support::scene::Scene;
use support::{eventually, missing, run, schedule};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping", "python3", "unshare"];
const HOST: &str = "10.70.0.1";
const SCANNER: &str = "10.70.0.2";
/// The other end of the link.
const OTHER: &str = "10.70.0.3";

fn scene() -> Scene {
    let host = ["10.70.0.1/16", "10.70.0.20/16", "fd70:1::1/64"];
    Scene::new(&host, &["10.70.0.2/16", "10.70.0.3/16", "fd70:1::2/64", "fd70:2::2/128"])
        .with_prefixes(&["fd70:2::/64"])
}

/// Ports that answered a sequence of SYNs: by a reset, and by a SYN-ACK.
fn sequence(scene: &Scene, from: &str, words: &[&str]) -> (u32, u32) {
    let printed = scene.traffic("sequence", from, HOST, words);
    let (resets, taken) = printed.trim().split_once(' ').unwrap();
    (resets.parse().unwrap(), taken.parse().unwrap())
}

/// Shows the old program's behaviour in its own scene; nothing without the package.
fn beside<T>(
    mode: &str,
    configuration: &str,
    prepare: impl FnOnce(&Scene),
    look: impl FnOnce(&Scene, &Machine<'_>) -> T,
) -> Option<T> {
    let package = Package::or_skip()?;
    let scene = scene();
    prepare(&scene);
    let machine = Machine::new(&scene.host);
    machine.classic_files(configuration, "127.0.0.1\n");
    machine.start_old(&package, mode).unwrap();
    Some(look(&scene, &machine))
}

/// Our daemon on its own host, with the imported file.
fn taken_over(
    mode: &str,
    configuration: &str,
    more: &str,
    prepare: impl FnOnce(&Scene),
    look: impl FnOnce(&Scene, &Machine<'_>),
) {
    let scene = scene();
    prepare(&scene);
    let mut machine = Machine::new(&scene.host);
    machine.classic_files(configuration, "127.0.0.1\n");
    machine.import_blocking();
    let yaml = machine.text("/etc/portsentry/portsentry.yaml");
    machine.write("/etc/portsentry/portsentry.yaml", &format!("{yaml}\n{more}\n"));
    machine.start_ours(&[&format!("-{mode}")]);
    look(&scene, &machine);
}

/// The log names a probe of this port from this source.
fn told(machine: &Machine<'_>, source: &str, port: u16) -> bool {
    let text = format!(" from host: {source}/{source} to TCP port: {port}");
    machine.log().iter().any(|line| line.ends_with(&text))
}

fn soon(condition: impl FnMut() -> bool) -> bool {
    eventually(Duration::from_secs(8), condition)
}

// D3
#[test]
fn defect_03_a_block_is_in_force_after_a_restart_for_what_is_left_of_its_time() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    assert!(daemon.ctl(&["block", SCANNER, "--for", "100s"]).status.success());
    std::thread::sleep(Duration::from_millis(2100));
    daemon.stop();
    assert!(!scene.reaches_from(SCANNER));
    daemon.restart("");
    let left = daemon.json(&["list"])[0]["expires_in"].as_f64().unwrap();
    assert!(left < 98.0 && left > 30.0, "{left}");
    assert!(!scene.reaches_from(SCANNER) && scene.reaches_from(OTHER));
}

// D4
#[test]
fn defect_04_one_spoofed_packet_from_the_gateway_does_not_block_the_gateway() {
    if missing(TOOLS).is_some() {
        return;
    }
    let configuration = classic_configuration("1,11,15,79", "1");
    let gateway =
        |scene: &Scene| drop(scene.host.run("ip", &["route", "add", "default", "via", OTHER]));
    let spoof = |scene: &Scene| sequence(scene, OTHER, &["79", "79", "100"]);
    beside("stcp", &configuration, gateway, |scene, machine| {
        spoof(scene);
        assert!(
            soon(|| machine.blocked_by_old() == [OTHER]),
            "1.2 has not the defect that this test is about"
        );
    });
    taken_over("stcp", &configuration, "", gateway, |scene, machine| {
        spoof(scene);
        // The same packet from another host is enough for a block.
        sequence(scene, SCANNER, &["79", "79", "100"]);
        assert!(soon(|| machine.blocked_by_ours().contains(&SCANNER.to_owned())));
        assert_eq!(machine.blocked_by_ours(), [SCANNER]);
        assert!(scene.reaches_from(OTHER));
    });
}

// D6
#[test]
fn defect_06_visits_to_one_port_never_add_up_and_ports_are_forgotten_with_the_window() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 2\nscan_window: 2s");
    // A crawler that tries one port repeatedly.
    let ports = ["80"; 60];
    scene.traffic("knock_fast", SCANNER, HOST, &ports);
    // And one that returns to another port each time, but rarely: never three within the window.
    for port in ["81", "82", "83", "84"] {
        scene.traffic("knock_fast", OTHER, HOST, &[port]);
        std::thread::sleep(Duration::from_millis(1300));
    }
    assert!(daemon.json(&["status"])["probes"].as_u64().unwrap() >= 64, "they were seen");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert!(!daemon.log().contains("attackalert"), "{}", daemon.log());
    // The same ports within the window are a scan.
    scene.traffic("knock_fast", OTHER, HOST, &["81", "82", "83"]);
    daemon.wait_for_block(OTHER);
}

// D7
#[test]
fn defect_07_no_closed_port_answers_a_scan_of_600_ports_as_if_it_were_open() {
    if missing(TOOLS).is_some() {
        return;
    }
    let configuration =
        classic_configuration("1", "1").replace("BLOCK_TCP=\"1\"", "BLOCK_TCP=\"0\"");
    // Six times each, so that a port is probed while the old program tests whether it can be bound.
    let scan = ["400", "999", "20000", "3600"];
    let theirs = beside("atcp", &configuration, |_| {}, |scene, _| sequence(scene, SCANNER, &scan));
    for answer in ["drop", "answer"] {
        let more = format!("closed_ports: {answer}");
        taken_over(
            "atcp",
            &configuration,
            &more,
            |_| {},
            |scene, machine| {
                let (resets, taken) = sequence(scene, SCANNER, &scan);
                println!(
                    "600 closed ports, closed_ports: {answer}: {resets} resets, {taken} SYN-ACKs; 1.2: {theirs:?}"
                );
                assert_eq!(taken, 0);
                assert_eq!(resets, if answer == "drop" { 0 } else { 600 });
                assert!(soon(|| told(machine, SCANNER, 400)), "{:?}", machine.log());
            },
        );
    }
}

// P28, D9
#[test]
fn defect_09_probes_that_the_hosts_firewall_drops_are_seen_and_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let configuration = classic_configuration("1,11,15,79", "1");
    let firewall = |scene: &Scene| {
        let rules = "table inet filter {\nchain input {\ntype filter hook input priority filter; policy drop;\n\
                     ct state established,related accept\niif lo accept\n}\n}";
        scene.host.run("nft", &[rules]);
    };
    beside("atcp", &configuration, firewall, |scene, machine| {
        scene.scan_from(SCANNER, &["-sS", "-p1-60", HOST]);
        std::thread::sleep(Duration::from_millis(500));
        assert!(
            machine.log().iter().all(|line| !line.contains(SCANNER)),
            "1.2 has not the defect that this test is about"
        );
    });
    taken_over("atcp", &configuration, "", firewall, |scene, machine| {
        scene.scan_from(SCANNER, &["-sS", "-p1-60", HOST]);
        assert!(soon(|| machine.blocked_by_ours() == [SCANNER]));
        let ruleset = scene.host.run("nft", &["list", "table", "inet", "filter"]);
        assert!(ruleset.contains("policy drop"), "the firewall is as it was: {ruleset}");
    });
}

// D10
#[test]
fn defect_10_a_flood_of_20000_packets_a_second_from_a_blocked_host_writes_no_line() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let flood = ["1", "1000", "20000", "40000"];
    let size = |machine: &Machine<'_>| machine.log().iter().map(String::len).sum::<usize>();
    let configuration = classic_configuration("1", "1");
    let theirs = beside(
        "atcp",
        &configuration,
        |_| {},
        |scene, machine| {
            sequence(scene, SCANNER, &["79", "79", "100"]);
            assert!(soon(|| machine.blocked_by_old() == [SCANNER]));
            let before = size(machine);
            sequence(scene, SCANNER, &flood);
            size(machine) - before
        },
    );
    taken_over(
        "atcp",
        &configuration,
        "",
        |_| {},
        |scene, machine| {
            sequence(scene, SCANNER, &["79", "79", "100"]);
            assert!(soon(|| machine.blocked_by_ours() == [SCANNER]));
            // The block's own lines.
            assert!(soon(|| machine.log().iter().any(|line| line.contains("has been blocked"))));
            let before = machine.log();
            sequence(scene, SCANNER, &flood);
            let dropped = machine.blocks()[0]["packets"].as_u64().unwrap();
            println!(
                "40,000 packets of a blocked host: 0 bytes of log, {dropped} counted as dropped; 1.2: {theirs:?} bytes"
            );
            assert_eq!(machine.log(), before);
            assert!(dropped >= 39_000, "{dropped}");
        },
    );
}

// D11
#[test]
fn defect_11_the_history_is_only_ever_appended_to_and_nothing_is_written_outside_the_state_directory()
 {
    if missing(TOOLS).is_some() {
        return;
    }
    let history = "/var/lib/portsentry/portsentry.history";
    let configuration = classic_configuration("1,11,15,79", "1");
    taken_over(
        "stcp",
        &configuration,
        "",
        |_| {},
        |scene, machine| {
            sequence(scene, SCANNER, &["79", "79", "100"]);
            assert!(soon(|| machine.text(history).contains(SCANNER)));
            let open = format!("for fd in /proc/{0}/fd/*; do readlink $fd; done", machine.pid());
            let files =
                run("nsenter", &["-m", "-t", &machine.pid().to_string(), "sh", "-c", &open]);
            // Standard error is the test's own file, opened outside.
            let files: Vec<_> = files
                .lines()
                .filter(|path| path.starts_with('/') && !path.ends_with("/stderr"))
                .collect();
            let ours = [
                "/var/lib/portsentry/",
                "/run/portsentry/",
                "/dev/null",
                "/proc/",
                "/etc/portsentry/",
            ];
            assert!(
                files.iter().all(|path| ours.iter().any(|known| path.starts_with(known))),
                "{files:?}"
            );
            assert!(files.contains(&history), "{files:?}");
            for others in ["/var/tmp", "/etc"] {
                let strange = std::fs::read_dir(machine.file(others)).unwrap().any(|entry| {
                    let name = entry.unwrap().file_name();
                    name != "portsentry" && name.to_string_lossy().contains("portsentry")
                });
                assert!(!strange, "{others}");
            }
        },
    );
    // Starts and ends, in one state directory.
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    machine.classic_files(&configuration, "127.0.0.1\n");
    let earlier =
        "1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked\n";
    machine.write(history, earlier);
    std::fs::set_permissions(machine.file(history), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    machine.import_blocking();
    let mut before = earlier.to_owned();
    for scanner in [SCANNER, OTHER] {
        machine.start_ours(&["-stcp"]);
        assert_eq!(machine.text(history), before, "a start changes nothing");
        sequence(&scene, scanner, &["79", "79", "100"]);
        assert!(soon(|| machine.text(history).contains(scanner)));
        machine.stop_ours();
        let after = machine.text(history);
        assert!(
            after.starts_with(&before) && after.lines().count() == before.lines().count() + 1,
            "{after}"
        );
        before = after;
    }
    assert_eq!(
        std::fs::metadata(machine.file(history)).unwrap().permissions().mode() & 0o7777,
        0o640
    );
}

// D14
#[test]
fn defect_14_the_hundredth_port_of_a_list_is_watched() {
    if missing(TOOLS).is_some() {
        return;
    }
    let ports: Vec<String> = (0..100).map(|n| (2001 + 3 * n).to_string()).collect();
    let configuration = classic_configuration(&ports.join(","), "1");
    let touch = |scene: &Scene, from: &str, port: u16| {
        sequence(scene, from, &[&port.to_string(), &port.to_string(), "100"])
    };
    beside(
        "stcp",
        &configuration,
        |_| {},
        |scene, machine| {
            touch(scene, SCANNER, 2298);
            touch(scene, OTHER, 2001);
            assert!(soon(|| told(machine, OTHER, 2001)), "1.2 watches the first");
            assert!(
                !told(machine, SCANNER, 2298),
                "1.2 has not the defect that this test is about"
            );
        },
    );
    taken_over(
        "stcp",
        &configuration,
        "",
        |_| {},
        |scene, machine| {
            touch(scene, SCANNER, 2298);
            assert!(
                soon(|| told(machine, SCANNER, 2298) && machine.blocked_by_ours() == [SCANNER]),
                "{:?}",
                machine.log()
            );
            // And unlisted ports are not watched.
            touch(scene, OTHER, 2299);
            std::thread::sleep(Duration::from_millis(300));
            assert!(machine.log().iter().all(|line| !line.contains(OTHER)), "{:?}", machine.log());
        },
    );
}

// D15
#[test]
fn defect_15_the_port_that_was_touched_is_told_though_a_service_has_another_of_the_list() {
    if missing(TOOLS).is_some() {
        return;
    }
    let configuration =
        classic_configuration("1,11,15,79,111", "1").replace("BLOCK_TCP=\"1\"", "BLOCK_TCP=\"0\"");
    let serve = |scene: &Scene| {
        let program = "import socket, time\ns = socket.socket()\ns.bind(('0.0.0.0', 11))\ns.listen(5)\ntime.sleep(60)";
        let service = scene.host.spawn("python3", &["-c", program]);
        assert!(soon(|| scene.host.run("ss", &["-Hlnt"]).contains(":11 ")));
        service
    };
    let (mut service, mut services) = (None, None);
    let wrong = beside(
        "tcp",
        &configuration,
        |scene| service = Some(serve(scene)),
        |scene, machine| {
            scene.traffic("knock", SCANNER, HOST, &["79"]);
            assert!(
                soon(|| machine.log().iter().any(|line| line.contains(SCANNER))),
                "1.2 says nothing: {:?}",
                machine.log()
            );
            machine.log().into_iter().find(|line| line.contains(SCANNER))
        },
    );
    if let Some(wrong) = wrong.flatten() {
        println!("port 79 was touched, a service has port 11; 1.2 says: {wrong}");
        assert!(
            !wrong.ends_with(" port: 79"),
            "1.2 has not the defect that this test is about: {wrong}"
        );
    }
    taken_over(
        "tcp",
        &configuration,
        "",
        |scene| services = Some(serve(scene)),
        |scene, machine| {
            for port in ["79", "11", "15"] {
                scene.traffic("knock", SCANNER, HOST, &[port]);
            }
            assert!(soon(|| told(machine, SCANNER, 79)), "{:?}", machine.log());
            // Only touched ports are reported, and the service's is none of them.
            let known = [" port: 79", " port: 15"];
            let lines: Vec<_> =
                machine.log().into_iter().filter(|line| line.contains(" from host: ")).collect();
            assert!(
                lines.iter().all(|line| known.iter().any(|port| line.ends_with(port))),
                "{lines:?}"
            );
        },
    );
}

// P28, D16
#[test]
fn defect_16_extension_headers_hide_nothing_and_no_address_is_taken_for_another_that_begins_with_it()
 {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    // The host has 10.70.0.1 and 10.70.0.20, the scanner 10.70.0.2: each is a prefix of another as
    // text.
    let daemon = Daemon::start(&scene.host, "scan_trigger: 1000");
    let probes = || daemon.json(&["status"])["probes"].as_u64().unwrap();
    for target in [HOST, "10.70.0.20"] {
        let before = probes();
        scene.scan_from(SCANNER, &["-sS", "-p1-20", target]);
        assert!(soon(|| probes() == before + 20), "{target}: {} of 20", probes() - before);
    }
    let mut daemon = daemon;
    daemon.stop();
    daemon.restart("");
    scene.traffic("options_six", "fd70:2::2", "fd70:1::1", &["7", "9", "13", "19"]);
    daemon.wait_for_block("fd70:2::2");
    assert_eq!(daemon.json(&["list"])[0]["scan"], "syn");
}

// D17
#[test]
fn defect_17_a_resolver_that_never_answers_delays_no_block() {
    if missing(TOOLS).is_some() {
        return;
    }
    let configuration = classic_configuration("1,11,15,79", "1")
        .replace("RESOLVE_HOST=\"0\"", "RESOLVE_HOST=\"1\"");
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    // A name server on the host itself that takes and counts every query, and answers none.
    let asked = machine.file("/var/log/asked");
    let program = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 53))\n\
         while s.recv(2000): open('{}', 'a').write('asked\\n')",
        asked.display()
    );
    let _server = scene.host.spawn("python3", &["-c", &program]);
    assert!(soon(|| scene.host.run("ss", &["-Hlnu"]).contains(":53 ")));
    machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    machine.classic_files(&configuration, "127.0.0.1\n");
    machine.import_blocking();
    machine.start_ours(&["-stcp"]);
    let (resets, taken) = sequence(&scene, SCANNER, &["1", "1000", "1000"]);
    // At a thousand packets a second the block came while the scan went on, not when a resolver
    // gave up after five seconds.
    let dropped = || machine.blocks().first().and_then(|row| row["packets"].as_u64()).unwrap_or(0);
    assert!(soon(|| dropped() > 0), "blocked after the scan: {resets} {taken} {:?}", machine.log());
    assert_eq!(machine.blocked_by_ours(), [SCANNER]);
    // The line does not wait for the name either: it has the address in its place.
    assert!(soon(|| told(&machine, SCANNER, 1)), "{:?}", machine.log());
    assert!(soon(|| asked.exists()), "nobody asked for a name: this test tested nothing");
}

// D13
#[test]
fn defect_13_a_probe_is_judged_as_fast_beside_100000_blocks_as_beside_none() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    const BLOCKS: u32 = 100_000;
    let Some(package) = Package::or_skip() else { return };
    // 198.18.0.0/15 is for tests (RFC 2544).
    let address = |n: u32| std::net::Ipv4Addr::from(0xc612_0000 + n);
    let configuration = classic_configuration("1", "1");
    // Number of probes answered before the block holds: the time of the decision, in packets of the
    // same rate.
    let scan = |scene: &Scene, last: u8| {
        let mut answered: Vec<u32> = (0..3)
            .map(|n| {
                let from = format!("10.70.1.{}", last + n);
                scene.scanner.run("ip", &["addr", "add", &format!("{from}/16"), "dev", "scan0"]);
                sequence(scene, &from, &["200", "499", "3000"]).0
            })
            .collect();
        answered.sort_unstable();
        answered[1]
    };

    let scene = scene();
    let old = Machine::new(&scene.host);
    old.classic_files(&configuration, "127.0.0.1\n");
    old.start_old(&package, "atcp").unwrap();
    let before_old = scan(&scene, 10);
    let file = "/var/lib/portsentry/portsentry.blocked.atcp";
    let line = old.text(file).lines().next().expect("a blocked host").to_owned();
    assert!(line.contains("10.70.1.10"), "{line}");
    let known: String =
        (0..BLOCKS).map(|n| line.replace("10.70.1.10", &address(n).to_string()) + "\n").collect();
    old.write(file, &(known + &old.text(file)));
    let after_old = scan(&scene, 20);

    let scene = self::scene();
    let mut ours = Machine::new(&scene.host);
    ours.classic_files(&configuration, "127.0.0.1\n");
    ours.import(&[]);
    let yaml = ours.text("/etc/portsentry/portsentry.yaml");
    ours.write("/etc/portsentry/portsentry.yaml", &format!("{yaml}\nclosed_ports: answer\n"));
    ours.start_ours(&["-atcp"]);
    let before = scan(&scene, 10);
    ours.stop_ours();
    let elements: Vec<String> = (0..BLOCKS).map(|n| format!("{} timeout 1h", address(n))).collect();
    ours.write(
        "/var/tmp/blocks",
        &format!("add element inet portsentry blocked4 {{ {} }}\n", elements.join(", ")),
    );
    scene.host.run("nft", &["-f", ours.file("/var/tmp/blocks").to_str().unwrap()]);
    ours.start_ours(&["-atcp"]);
    assert!(ours.blocks().len() >= BLOCKS as usize, "{}", ours.blocks().len());
    let after = scan(&scene, 20);

    println!(
        "answered of 300 at 3,000 a second, median of 3: 1.2 {before_old}, beside {BLOCKS} blocks {after_old}; ours {before}, {after}"
    );
    assert!(after < after_old, "ours {after}, 1.2 {after_old}");
}
