//! At the defaults: innocent hosts in a flood of forged sources, their own addresses among them, and
//! a real scanner.

use crate::support;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::slow::{HONEST, HOST, SLOWED, TOOLS, honest, scene, serve, unharmed_but_for};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::flood::{Load, Sent, Wire};
use support::netns::Namespace;
use support::scene::{DEVICE, Scene};
use support::schedule;
use support::{duration, eventually, missing};

/// Two that completed connections with the service before the flood, and two strangers.
const INNOCENTS: [&str; 4] = ["10.70.0.10", "10.70.17.200", "10.70.40.5", "10.70.63.3"];
const KNOWN: usize = 2;
/// What a connection of a stranger may take that waits for its second retransmission (RFC 6298), on a
/// loaded machine.
const SLOWED_TWICE: f64 = 3.9;
const SCANNER: &str = "10.69.2.2";
/// What the daemon may have resident, KiB: its idle memory, a full ledger and full lists
/// (contrib/bounds.md).
const RESIDENT_MAX: u64 = 128 << 10;

/// The host, and a network of forged sources in which some addresses are real.
fn inhabited() -> Scene {
    let scene = scene();
    // By a router: the kernel's table of neighbours is one for all namespaces, and holds 1,024.
    scene.host.run("ip", &["route", "add", "10.70.0.0/16", "via", HONEST]);
    for address in INNOCENTS {
        scene.scanner.run("ip", &["addr", "add", &format!("{address}/32"), "dev", DEVICE]);
    }
    scene
}

/// Every address of a network sends to some ports in turn; meanwhile four of them use a service, and
/// one scans. `strangers`: how long a connection of a stranger may take, seconds.
fn flood(network: &str, ports: RangeInclusive<u16>, rate: u64, time: Duration, strangers: f64) {
    schedule::alone();
    let scene = inhabited();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    for host in &INNOCENTS[..KNOWN] {
        scene.traffic("exchanges", host, HOST, &["8000", "6"]);
    }
    let target: IpAddr = HOST.parse().unwrap();
    let load = Load {
        sources: network.parse().unwrap(),
        ports: ports.collect(),
        packets: u64::MAX,
        time,
        ..Load::spoofed(target, [], rate, time)
    };
    let seconds = u32::try_from(time.as_secs()).unwrap() + 2;
    // On a link of its own: it does not get the answers to the flood.
    let scanner = &Namespace::new();
    scene.host.join(scanner, "scan1", &["10.69.2.1/24"], &["10.69.2.2/24"]);
    scanner.run("ip", &["route", "add", "default", "via", "10.69.2.1"]);
    let wire = Wire::between(&scene.scanner, &scene.host, DEVICE);
    let (sent, proven, experiences) = std::thread::scope(|scope| {
        let from = &scene.scanner;
        let clients = INNOCENTS
            .map(|host| scope.spawn(move || honest(from, host, (HOST, "8000"), seconds, || {})));
        let flood = scope.spawn(|| wire.flood(&load));
        // After the forged sources have passed the trigger.
        std::thread::sleep(time / 3);
        let words = ["-n", "-Pn", "-sS", "-p1-1023,8000", "--open", HOST];
        let begun = Instant::now();
        let scan = scope.spawn(move || scanner.output("nmap", &words, Duration::from_secs(60)));
        // A list of all sources would take its time.
        let blocked = format!("Host {SCANNER} has been blocked");
        let is_blocked = || daemon.log().contains(&blocked);
        assert!(eventually(time, is_blocked), "{}", daemon.log());
        let proven = begun.elapsed();
        let output = scan.join().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(!seen.contains("8000/tcp open"), "{seen}");
        let sent: Sent = flood.join().unwrap();
        (sent, proven, clients.map(|client| client.join().unwrap()))
    });
    let resident = daemon.memory("VmHWM");
    let status = daemon.json(&["status"]);
    println!(
        "{network}: {} packets at {}/s; {} sources slowed, daemon {resident} KiB at most; \
         the scanner proven after {proven:?}; reflex {}",
        sent.packets,
        sent.rate(),
        status["slowed"],
        status["reflex"]
    );
    let (known, unknown) = experiences.split_at(KNOWN);
    known.iter().for_each(|experience| unharmed_but_for(SLOWED, experience));
    unknown.iter().for_each(|experience| unharmed_but_for(strangers, experience));
    assert_eq!(daemon.json(&["show", SCANNER])["block"]["state"], "blocked");
    // No one else.
    assert_eq!(status["blocked"], 1, "{status}");
    assert!(resident < RESIDENT_MAX, "{resident}");
    // The flood was one: its sources have passed the trigger.
    assert!(status["slowed"].as_u64().unwrap() > 5000, "{status}");
}

// P3, P6
#[test]
fn of_16_384_forged_sources_the_real_ones_lose_a_second() {
    if missing(TOOLS).is_some() {
        return;
    }
    flood("10.70.0.0/18", 110..=112, 3000, Duration::from_secs(duration(30, 60).into()), SLOWED);
}

// P3, P6
#[test]
fn of_65_536_forged_sources_at_20_000_a_second_the_real_ones_lose_a_second() {
    if missing(TOOLS).is_some() {
        return;
    }
    flood("10.70.0.0/16", 110..=112, 20_000, Duration::from_secs(30), SLOWED);
}

/// More probed ports than the rules can remember, 458,752: a repeated one counts as a new one, so that
/// a forged source is soon far past the trigger.
// P3, P6
#[test]
fn of_65_536_forged_sources_with_seven_ports_each_clients_lose_a_second_and_strangers_three() {
    if missing(TOOLS).is_some() {
        return;
    }
    flood("10.70.0.0/16", 114..=120, 30_000, Duration::from_secs(48), SLOWED_TWICE);
}
