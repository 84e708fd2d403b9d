//! What is sent in the names of others, or looks so, proves no host and teaches no scanner.

use crate::support;

use std::time::{Duration, Instant};

use crate::slow::{
    HONEST, HOST, LEARNED, STALLED, TOOLS, forge, honest, scene, serve, state_of, unharmed,
    wait_for_state,
};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::flood::{Load, Wire};
use support::netns::Namespace;
use support::scene::{DEVICE, Scene};
use support::schedule;
use support::{TRAFFIC, duration, eventually, missing};

/// Forged sources by a router: the kernel's table of neighbours holds 1,024.
fn with_forged_sources() -> Scene {
    let scene = scene();
    scene.host.run("ip", &["route", "add", "10.70.0.0/16", "via", HONEST]);
    scene
}

/// Every port of these from every address of a network, again and again.
fn load(network: &str, ports: &[u16], rate: u64, time: Duration) -> Load {
    Load {
        sources: network.parse().unwrap(),
        ports: ports.to_vec(),
        packets: u64::MAX,
        time,
        ..Load::spoofed(HOST.parse().unwrap(), [], rate, time)
    }
}

/// An odd number of ports: each source gets every port before one comes again.
fn no_blind_source_is_proven(network: &str, sources: u64, ports: &[u16], rate: u64) {
    schedule::alone();
    assert_eq!(ports.len() % 2, 1);
    let scene = with_forged_sources();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let three_times = 3 * sources * ports.len() as u64;
    let time = Duration::from_secs(60);
    let load = Load { packets: three_times, ..load(network, ports, rate, time) };
    let wire = Wire::between(&scene.scanner, &scene.host, DEVICE);
    let sent = wire.flood(&load);
    assert_eq!(sent.packets, three_times);
    // The daemon reads what is left.
    std::thread::sleep(Duration::from_secs(2));
    let status = daemon.json(&["status"]);
    let rows = daemon.json(&["list"]);
    let rows = rows.as_array().unwrap();
    println!(
        "{network}: {} packets at {}/s, {} slowed",
        sent.packets,
        sent.rate(),
        status["slowed"]
    );
    assert_eq!((&status["blocked"], &status["causes"]["proven"]), (&0.into(), &0.into()));
    let mut slowed = rows.iter().filter(|row| row["cause"] != "campaign");
    assert!(slowed.all(|row| row["state"] == "slowed" && row["proven"] == false));
    // All of them passed the trigger. The daemon lists those that the rules could tell it of.
    let held = |word: &str| status["reflex"][word].as_u64().unwrap();
    assert!(held("holds") + held("untold_holds") > sources * 9 / 10, "{status}");
    // Retransmissions were evaluated: without these the test would say nothing.
    let proof = |row: &serde_json::Value| daemon.json(&["show", row["address"].as_str().unwrap()]);
    let is_evaluated = |row| {
        let proof = &proof(row)["proof"];
        proof["silent"].as_u64() > Some(0) && proof["answered"].as_u64() > Some(0)
    };
    assert!(rows.iter().take(200).any(is_evaluated), "{status}");
}

// P3
#[test]
fn of_65_536_blind_sources_that_retry_every_port_twice_none_is_proven() {
    if missing(TOOLS).is_some() {
        return;
    }
    no_blind_source_is_proven("10.70.0.0/16", 65_536, &[110, 111, 112, 114, 115], 40_000);
}

// P3
#[test]
fn of_1_024_blind_sources_that_retry_41_ports_twice_none_is_proven() {
    if missing(TOOLS).is_some() {
        return;
    }
    let ports: Vec<u16> = (200..241).collect();
    no_blind_source_is_proven("10.70.0.0/22", 1024, &ports, 5000);
}

/// What forged sources can fill of what the rules remember of slowed ones. A flood of 55,000 packets a
/// second takes eight seconds for it; the test does not depend on the machine's speed.
fn exhaust(scene: &Scene) {
    let address = |n: u32| std::net::Ipv4Addr::from_bits(0x0a46_0000 + n % 65_536);
    let connections = (0..400_000u32)
        .map(|n| format!("{} . {HOST} . {} . 20 timeout 60s", address(n), 1024 + n / 65_536));
    let ports =
        (0..300_000u32).map(|n| format!("{} . 6 . {} timeout 60s", address(n), 110 + n / 65_536));
    let add = |set: &str, elements: Vec<String>| {
        format!("add element inet portsentry {set} {{ {} }}\n", elements.join(", "))
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = add("asked4", connections.collect()) + &add("probed4", ports.collect());
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let words = ["-f", file.path().to_str().unwrap()];
    let output = scene.host.output("nft", &words, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// P27
#[test]
fn a_scanner_that_exhausts_every_budget_first_learns_no_more_services() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let services: Vec<String> = (1..=25).map(|n| (n * 20).to_string()).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    // Closed ports: more sources than are logged, remembered for the window, or listed.
    let load = load("10.70.0.0/16", &[110, 111, 112], 0, Duration::from_secs(12));
    let learned = [false, true].map(|exhausts| {
        let scene = with_forged_sources();
        let scanner = &Namespace::new();
        scene.host.join(scanner, "scan1", &["10.69.2.1/24"], &["10.69.2.2/24"]);
        scanner.run("ip", &["route", "add", "default", "via", "10.69.2.1"]);
        let _daemon = Daemon::start(&scene.host, AT_DEFAULTS);
        let _service = serve(&scene.host, HOST, &services);
        let wire = Wire::between(&scene.scanner, &scene.host, DEVICE);
        let scan = || {
            // Each waits for the first retransmission of its SYN.
            let words = [TRAFFIC, "connects", "10.69.2.2", HOST, "1", "500", "100", "2"];
            let learned = scanner.run("python3", &words).trim().parse::<usize>().unwrap();
            println!("exhausted: {exhausts}: {learned} of 25 services learned");
            learned
        };
        if !exhausts {
            return scan();
        }
        exhaust(&scene);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| wire.flood(&load));
            std::thread::sleep(Duration::from_secs(2));
            let learned = scan();
            flood.join().unwrap();
            learned
        })
    });
    let [without, with] = learned;
    assert!(with <= without.max(LEARNED as usize), "{with} instead of {without}");
}

// P3
#[test]
fn one_scanner_behind_nat64_is_blocked_alone() {
    if missing(TOOLS).is_some() {
        return;
    }
    for prefix in ["64:ff9b::", "64:ff9b:1:fffe::"] {
        let host = |last: u8| format!("{prefix}198.51.100.{last}").parse::<std::net::Ipv6Addr>();
        let [scanner, neighbour, third, fourth] =
            [7, 8, 9, 10].map(|last| host(last).unwrap().to_string());
        for configuration in [AT_DEFAULTS, ""] {
            let scene = scene();
            scene.host.run("ip", &["-6", "route", "add", &format!("{prefix}/96"), "dev", DEVICE]);
            for address in [&scanner, &neighbour, &third, &fourth] {
                let words = ["addr", "add", &format!("{address}/128"), "dev", DEVICE, "nodad"];
                scene.scanner.run("ip", &words);
            }
            let daemon = Daemon::start(&scene.host, configuration);
            let _service = serve(&scene.host, "fd69:1::1", &["8000"]);
            let experience = honest(&scene.scanner, &neighbour, ("fd69:1::1", "8000"), 8, || {
                // A wrong port each: as a prefix they would be a scanner.
                for (from, port) in [(&neighbour, "110"), (&third, "111"), (&fourth, "135")] {
                    scene.traffic("blind_six", from, "fd69:1::1", &[port, port]);
                }
                let words = ["-6", "-n", "-Pn", "-sS", "-e", DEVICE, "-S", &scanner, "fd69:1::1"];
                let words = [&words[..], &["-p1-1023", "--host-timeout", "6s"]].concat();
                scene.scanner.output("nmap", &words, Duration::from_secs(60));
                let is_blocked = || state_of(&daemon, &scanner).is_some_and(|it| it.0 == "blocked");
                assert!(eventually(Duration::from_secs(10), is_blocked), "{}", daemon.log());
            });
            unharmed(&experience);
            assert!(experience.slowest < STALLED, "{}", experience.slowest);
            assert_eq!(daemon.blocked(), std::slice::from_ref(&scanner), "{}", daemon.log());
            // By hand.
            assert!(daemon.ctl(&["unblock", &scanner]).status.success());
            assert!(daemon.ctl(&["block", &third]).status.success());
            assert_eq!(daemon.blocked(), std::slice::from_ref(&third));
            let pings = |from: &str| scene.scanner.pings(&["-I", from, "fd69:1::1"]);
            assert!(!pings(&third) && pings(&fourth) && pings(&neighbour));
        }
    }
}

// P3
#[test]
fn what_the_owner_of_a_forged_address_answers_renews_no_block() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let timeout = duration(6, 60);
    let yaml = format!("block: {{ unproven: {{ timeout: {timeout}s }} }}");
    let daemon = Daemon::start(&scene.host, &yaml);
    let _service = serve(&scene.host, HOST, &["8000"]);
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    wait_for_state(&daemon, HONEST, "blocked", false);
    let begun = Instant::now();
    while state_of(&daemon, HONEST).is_some() {
        assert_eq!(daemon.json(&["list"])[0]["renewals"], 0);
        // Its answers to our answers, and to our pings.
        scene.traffic("answers", HONEST, HOST, &["110", "113", "8000"]);
        assert!(begun.elapsed().as_secs() < u64::from(timeout + 3), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 2, || {});
    assert!(experience.slowest < STALLED && experience.failed == 0);
}
