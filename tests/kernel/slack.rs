//! A source that completes connections has some closed ports free, and a scanner buys no scan with it.

use crate::support;

use std::time::Duration;

use crate::slow::{
    HONEST, HOST, SLOWED, STALLED, TOOLS, counted, forge, honest, publish, scene, serve, state_of,
    unharmed, wait_for_state,
};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::{DEVICE, Scene};
use support::{TRAFFIC, eventually, missing};

const SERVICE: &str = "8000";
const SCANNER: &str = "10.69.1.2";
/// Ports without a reaction: `scan_trigger`, and those that are excused.
const FREE: u16 = 2 + 8;

const MAIL: &[&str] = &["993", "995", "143", "110", "587", "465", "25"];
const DIRECTORY: &[&str] = &["53", "88", "135", "139", "389", "445", "464", "636", "3268", "3269"];
const FILES: &[&str] = &["111", "635", "2049", "20048"];
const WEB: &[&str] = &["80", "443"];

const EVERY_PORT: &str = "tcp: { ports: [1-65535] }";
/// Slowed as by default, and blocked; the watched ports, and all.
const CONFIGURATIONS: &[&str] = &[AT_DEFAULTS, "", EVERY_PORT];

/// Good connections, ended by the client.
fn exchange(scene: &Scene, from: &str, to: &str, port: &str, times: &str) {
    scene.traffic("exchanges", from, to, &[port, times]);
}

/// A client tries these ports again and again, for some 15 seconds.
fn try_again(scene: &Scene, from: &str, ports: &[&str]) {
    scene.scanner.run("python3", &[&[TRAFFIC, "patient", from, HOST, "4"], ports].concat());
}

/// A SYN to each port, one after the other.
fn knock(scene: &Scene, from: &str, first: u16, last: u16) {
    forge(scene, from, [&first.to_string(), &last.to_string()], "1", "1");
    // What is logged is evaluated within this time.
    std::thread::sleep(Duration::from_millis(500));
}

fn members(scene: &Scene, set: &str) -> String {
    scene.host.run("nft", &["list", "set", "inet", "portsentry", set])
}

/// A client with good connections that tries wrong ports is neither slowed nor blocked.
fn is_left_alone(connections: &str, ports: &[&str]) {
    if missing(TOOLS).is_some() {
        return;
    }
    std::thread::scope(|scope| {
        for configuration in CONFIGURATIONS {
            scope.spawn(move || {
                let scene = scene();
                let daemon = Daemon::start(&scene.host, configuration);
                let _service = serve(&scene.host, HOST, &[SERVICE]);
                let experience = honest(&scene.scanner, HONEST, (HOST, SERVICE), 20, || {
                    exchange(&scene, HONEST, HOST, SERVICE, connections);
                    try_again(&scene, HONEST, ports);
                });
                unharmed(&experience);
                assert_eq!(state_of(&daemon, HONEST), None, "{configuration}\n{}", daemon.log());
                // Another one, without good connections, is not left alone.
                knock(&scene, SCANNER, 110, 112);
                assert!(state_of(&daemon, SCANNER).is_some(), "{configuration}\n{}", daemon.log());
            });
        }
    });
}

// P3
#[test]
fn a_gateway_with_300_good_connections_and_three_wrong_ports_is_left_alone() {
    is_left_alone("300", &["21", "23", "111"]);
}

// P3
#[test]
fn a_mail_program_that_guesses_is_left_alone() {
    is_left_alone("5", MAIL);
}

// P3
#[test]
fn a_member_of_a_domain_whose_controller_was_here_is_left_alone() {
    is_left_alone("5", DIRECTORY);
}

// P3
#[test]
fn a_client_that_mounts_a_file_system_is_left_alone() {
    is_left_alone("5", FILES);
}

// P3
#[test]
fn three_hosts_of_a_prefix_with_one_wrong_port_each_are_left_alone() {
    if missing(TOOLS).is_some() {
        return;
    }
    for configuration in CONFIGURATIONS {
        let scene = scene();
        let (host, hosts) = ("fd69:1::1", ["fd69:77::2", "fd69:77::3", "fd69:77::4"]);
        for address in &hosts[1..] {
            let words = ["addr", "add", &format!("{address}/64"), "dev", DEVICE, "nodad"];
            scene.scanner.run("ip", &words);
        }
        let daemon = Daemon::start(&scene.host, configuration);
        let _service = serve(&scene.host, host, &[SERVICE]);
        // Each has some; together they have enough.
        hosts.iter().for_each(|from| exchange(&scene, from, host, SERVICE, "2"));
        for (from, port) in hosts.iter().zip(["21", "23", "111"]) {
            scene.traffic("blind_six", from, host, &[port, port]);
        }
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(daemon.json(&["list"]), serde_json::json!([]), "{}", daemon.log());
        // Its slack is one, however many addresses it has.
        for (number, port) in (200..200 + FREE - 2).enumerate() {
            let from = format!("fd69:77::1:{number}");
            let words = ["addr", "add", &format!("{from}/64"), "dev", DEVICE, "nodad"];
            scene.scanner.run("ip", &words);
            exchange(&scene, &from, host, SERVICE, "5");
            let port = port.to_string();
            scene.traffic("blind_six", &from, host, &[&port, &port]);
        }
        let is_stopped = || state_of(&daemon, "fd69:77::/64").is_some();
        assert!(eventually(Duration::from_secs(20), is_stopped), "{}", daemon.log());
    }
}

// P3
#[test]
fn a_gateway_whose_users_try_all_of_these_is_slowed_and_no_connection_fails() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &format!("{EVERY_PORT} {AT_DEFAULTS}"));
    let _service = serve(&scene.host, HOST, &[SERVICE]);
    let experience = honest(&scene.scanner, HONEST, (HOST, SERVICE), 24, || {
        exchange(&scene, HONEST, HOST, SERVICE, "300");
        try_again(&scene, HONEST, &[MAIL, DIRECTORY, FILES, WEB].concat());
        wait_for_state(&daemon, HONEST, "slowed", false);
    });
    // So many ports are far past the trigger: its second retransmission passes.
    assert!(experience.failed == 0 && experience.stalled < STALLED, "{}", experience.stalled);
    assert!((0.7..2.5 + SLOWED).contains(&experience.slowest), "{}", experience.slowest);
    assert_eq!(state_of(&daemon, HONEST), Some(("slowed".to_owned(), false)));
}

// P3
#[test]
fn a_client_of_a_published_port_with_wrong_ports_is_left_alone() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let container = publish(&scene);
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&container, "10.71.1.2", &["80"]);
    exchange(&scene, HONEST, HOST, "8080", "5");
    knock(&scene, HONEST, 1, FREE);
    assert_eq!(state_of(&daemon, HONEST), None, "{}", daemon.log());
    knock(&scene, HONEST, FREE + 1, FREE + 1);
    wait_for_state(&daemon, HONEST, "slowed", false);
    // The container is no client.
    assert!(!members(&scene, "completed4").contains("10.71.1.2"));
}

// P3
#[test]
fn a_client_of_a_service_meets_no_decoys_at_first_and_decoys_make_no_client() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = format!("tcp: {{ mode: connect, ports: [21, 23, 110-130] }} {AT_DEFAULTS}");
    let daemon = Daemon::start(&scene.host, &yaml);
    let _service = serve(&scene.host, HOST, &[SERVICE]);
    exchange(&scene, HONEST, HOST, SERVICE, "5");
    try_again(&scene, HONEST, &["21", "23", "111"]);
    assert_eq!(state_of(&daemon, HONEST), None, "{}", daemon.log());
    // Connections to decoys, ended by the client.
    for _ in 0..4 {
        scene.traffic("knock", SCANNER, HOST, &["21", "23"]);
    }
    assert!(!members(&scene, "completed4").contains(SCANNER));
    scene.traffic("knock", SCANNER, HOST, &["110"]);
    wait_for_state(&daemon, SCANNER, "blocked", true);
}

// P27
#[test]
fn a_scanner_that_completes_connections_first_is_slowed_a_few_ports_later() {
    if missing(TOOLS).is_some() {
        return;
    }
    // Every twentieth port is a service.
    let services: Vec<String> = (1..=50).map(|n| (n * 20).to_string()).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).chain([SERVICE]).collect();
    for (connections, free) in [("1", 2), ("10", FREE)] {
        let scene = scene();
        let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
        let _service = serve(&scene.host, HOST, &services);
        exchange(&scene, SCANNER, HOST, SERVICE, connections);
        knock(&scene, SCANNER, 1, free);
        // The same ones again are the same ones.
        knock(&scene, SCANNER, 1, free);
        assert_eq!(state_of(&daemon, SCANNER), None, "{connections}\n{}", daemon.log());
        knock(&scene, SCANNER, free + 1, free + 1);
        wait_for_state(&daemon, SCANNER, "slowed", false);
        // More connections buy nothing more.
        exchange(&scene, SCANNER, HOST, SERVICE, "6");
        let words = ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", SCANNER, "-p1-1023", "--open", HOST];
        let nmap = scene.scanner.output("nmap", &words, Duration::from_secs(60));
        let seen = String::from_utf8_lossy(&nmap.stdout);
        assert!(!seen.contains("/tcp open"), "{seen}");
        assert_eq!(counted(&scene.host, "slow", "@asked", "return"), 6);
        wait_for_state(&daemon, SCANNER, "blocked", true);
    }
}

// P3
#[test]
fn a_forged_address_completes_no_connection() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let _daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &[SERVICE]);
    // No host has this address, which would end the connections.
    let nowhere = "10.69.1.77";
    scene.host.run("ip", &["neigh", "add", nowhere, "lladdr", "02:00:00:00:00:77", "dev", DEVICE]);
    for port in 9000..9010 {
        let port = port.to_string();
        // SYN, ACK, FIN and ACK.
        for flags in ["2", "16", "17"] {
            scene.traffic("segments", nowhere, HOST, &[SERVICE, flags, &port]);
        }
    }
    assert!(!members(&scene, "completed4").contains(nowhere));
    exchange(&scene, HONEST, HOST, SERVICE, "1");
    assert!(members(&scene, "completed4").contains(HONEST));
}
