//! The daemon in floods of invented sources: `cargo bench --bench flood`, as root. Some two
//! minutes; namespaces of its own, nothing else is touched.
//!
//! Each row is a fresh daemon with the built-in defaults, without the reflex but where the row says
//! so: the reflex spares the daemon most of a flood. For five seconds SYNs from random sources go
//! to 100 closed ports; after two, a scanner with an address of its own probes 400 other ports,
//! every second of which is open: the last answer it gets tells when it was blocked. All the time
//! the control socket is asked for the status, every 20 ms, with a connection for each question.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark prints and may stop where it fails"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use portsentry::control::Request;
use portsentry::control::client::Client;
use serde_json::Value;
use support::daemon::Daemon;
use support::eventually;
use support::flood::{Load, Scan, Sent, Wire};
use support::netns::Namespace;

const HOST: &str = "192.0.2.1";
const SCANNER: &str = "192.0.2.2";
const FLOOD: Duration = Duration::from_secs(5);
/// Up to here one thread sends; more comes from two, as from two receive queues of a network card.
const ALONE_MAX: u64 = 150_000;
/// What the control socket must hold in a flood.
const CONTROL_MAX: Duration = Duration::from_millis(100);
/// What the daemon's resident memory must hold, KiB (contrib/bounds.md).
const RESIDENT_MAX: u64 = 64 << 10;

fn main() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    println!(
        "{:<26} {:>8} {:>9} {:>9} {:>9} {:>8} {:>7} {:>5} {:>18} {:>19} {:>16}",
        "load, packets/s",
        "reached",
        "sent",
        "logged",
        "judged",
        "shed",
        "lost",
        "batch",
        "resident MiB",
        "control ms",
        "scanner stopped"
    );
    println!(
        "{:<26} {:>8} {:>9} {:>9} {:>9} {:>8} {:>7} {:>5} {:>18} {:>19} {:>16}",
        "", "", "", "", "", "", "", "max", "idle/peak/after", "p50/p99/slowest", "after probes, ms"
    );
    let alone = "capture: { reflex: false }";
    let mut held = true;
    for (name, rate, yaml) in [
        ("100", 100, alone),
        ("10,000", 10_000, alone),
        ("50,000", 50_000, alone),
        ("150,000", 150_000, alone),
        ("300,000", 300_000, alone),
        ("as fast as it goes", 0, alone),
        ("300,000, with the reflex", 300_000, ""),
        ("300,000, scan_trigger 0", 300_000, "scan_trigger: 0\ncapture: { reflex: false }"),
    ] {
        held &= row(name, rate, yaml);
    }
    println!(
        "logged = judged + passed over + shed + lost in each row; control within {CONTROL_MAX:?} at p99 and resident memory within {RESIDENT_MAX} KiB: {}",
        if held { "held" } else { "NOT HELD" }
    );
}

/// Runs a load and prints it; whether what is promised was held.
fn row(name: &str, rate: u64, yaml: &str) -> bool {
    let (host, peer) = (Namespace::new(), Namespace::new());
    host.join(&peer, "v0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let to: IpAddr = HOST.parse().unwrap();
    let _services: Vec<_> = host.enter(|| {
        (302..=700).step_by(2).map(|port| TcpListener::bind((HOST, port)).unwrap()).collect()
    });
    let daemon = Daemon::start(&host, yaml);
    let wire = Wire::between(&peer, &host, "v0");
    std::thread::sleep(Duration::from_millis(500));
    let idle = daemon.memory("VmRSS");
    let (mut asked, mut batch) = (Vec::new(), 0);
    let (sent, scan) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&wire, to, rate));
        let scanner = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            wire.scan(&Scan::new(SCANNER.parse().unwrap(), to, 301..=700, 1000))
        });
        while !flood.is_finished() {
            let began = Instant::now();
            let status = ask(&daemon);
            asked.push(began.elapsed());
            batch = batch.max(status["intake"]["batch"].as_u64().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        (flood.join().unwrap(), scanner.join().unwrap())
    });
    let is_calm = eventually(Duration::from_secs(10), || ask(&daemon)["intake"]["batch"] == 1);
    // What was lost at the very end shows with the next packet.
    wire.flood(&Load { packets: 1, ..Load::spoofed(to, [200], 1, Duration::from_secs(1)) });
    std::thread::sleep(Duration::from_millis(100));
    let status = ask(&daemon);
    let (peak, after) = (daemon.memory("VmHWM"), daemon.memory("VmRSS"));
    asked.sort();
    let at = |percent: usize| asked[(asked.len() * percent / 100).min(asked.len() - 1)];
    let last = scan.probes.iter().rposition(|probe| probe.answer.is_some());
    let blocked = daemon.blocked().iter().any(|address| address == SCANNER);
    let stopped = match last {
        _ if !blocked => "never".to_owned(),
        Some(last) => {
            let took =
                scan.probes[last].sent.duration_since(scan.probes[0].sent).unwrap_or_default();
            format!("{}, {:.1}", last + 1, took.as_secs_f64() * 1000.0)
        }
        None => "at once".to_owned(),
    };
    let number = |value: &Value| value.as_u64().unwrap();
    let intake = &status["intake"];
    let parts = number(&intake["judged"])
        + number(&intake["passed_over"])
        + number(&status["shed"])
        + number(&status["lost"]);
    assert_eq!(parts, number(&intake["logged"]), "{status}");
    assert!(is_calm, "the batch stays: {status}");
    let Sent { packets, .. } = sent;
    println!(
        "{name:<26} {:>8} {packets:>9} {:>9} {:>9} {:>8} {:>7} {batch:>5} {:>18} {:>19} {stopped:>16}",
        sent.rate(),
        number(&intake["logged"]),
        number(&intake["judged"]),
        number(&status["shed"]),
        number(&status["lost"]),
        format!(
            "{:.1}/{:.1}/{:.1}",
            idle as f64 / 1024.0,
            peak as f64 / 1024.0,
            after as f64 / 1024.0
        ),
        format!("{:.1}/{:.1}/{:.1}", millis(at(50)), millis(at(99)), millis(at(100))),
    );
    blocked && at(99) <= CONTROL_MAX && peak <= RESIDENT_MAX
}

/// Invented sources, from one thread or two; 0 is as fast as it goes.
fn flood(wire: &Wire<'_>, to: IpAddr, rate: u64) -> Sent {
    let threads = if rate > 0 && rate <= ALONE_MAX { 1 } else { 2 };
    let all: Vec<Sent> = std::thread::scope(|scope| {
        let send = |thread: u64| {
            let load = Load::spoofed(to, 200..300, rate / threads, FLOOD);
            let load = Load { series: thread, ..load };
            scope.spawn(move || wire.flood(&load))
        };
        let threads: Vec<_> = (0..threads).map(send).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Sent) -> u64| all.iter().map(of).sum();
    Sent {
        packets: sum(|sent| sent.packets),
        refused: sum(|sent| sent.refused),
        elapsed: all.iter().map(|sent| sent.elapsed).max().unwrap(),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Asks for the status as `portsentryctl` does.
fn ask(daemon: &Daemon<'_>) -> Value {
    let mut client = Client::connect(&daemon.path("control.sock")).unwrap();
    serde_json::to_value(client.ask(&Request::Status {}).unwrap()).unwrap()
}
