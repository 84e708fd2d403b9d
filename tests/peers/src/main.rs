//! Times the roads side by side, in one run, on one kernel: adding an element, and the whole way
//! from a packet to the committed element.
//!
//! Each round goes through all roads in turn, so that what disturbs the machine disturbs all of
//! them. Figures are microseconds.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use portsentry::capture::nflog::{Listener, Settings};
use portsentry::capture::PACKETS_PER_WAKE;
use portsentry::config::Config;
use portsentry::engine::{Action, Engine, MonoTime, Policy};
use portsentry::probe::Probe;
use portsentry::sys::poll;
use portsentry::wire;
use portsentry_peers::namespace::{Namespace, ip};
use portsentry_peers::sender::Sender;
use portsentry_peers::{SET, TABLE, roads};

/// Elements added by each road; spawning a program gets fewer, since each takes milliseconds.
const ADDS: usize = 4_000;
/// Packets sent for each road.
const PACKETS: usize = 1_000;
/// A slow road goes along every so many rounds.
const SLOW_EVERY: usize = 20;

const GROUP: u16 = 77;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scale = match arguments.next().as_deref() {
        None => 1,
        Some("--quick") => 10,
        Some(other) => {
            eprintln!("unknown argument {other}; the only one is --quick");
            std::process::exit(64);
        }
    };
    println!("adding one element with a timeout, acknowledgement read (us)");
    print(&time_adds(ADDS / scale));
    println!(
        "\npacket sent by another host to element committed, quiet, NFLOG with threshold 1 and the engine in between (us)"
    );
    print(&time_packets(PACKETS / scale));
}

/// What one road took, each time.
struct Times {
    name: &'static str,
    each: Vec<Duration>,
}

fn print(roads: &[Times]) {
    println!(
        "{:<16}{:>8}{:>10}{:>10}{:>10}{:>10}{:>12}",
        "", "n", "min", "p50", "p90", "p99", "to ours"
    );
    let mut ours = None;
    for times in roads {
        let mut each = times.each.clone();
        each.sort_unstable();
        let at = |part: f64| each[((each.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        let median = at(0.5);
        let ratio = median / *ours.get_or_insert(median);
        println!(
            "{:<16}{:>8}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>11.1}x",
            times.name,
            each.len(),
            at(0.0),
            median,
            at(0.9),
            at(0.99),
            ratio
        );
    }
}

fn is_slow(name: &str) -> bool {
    name.starts_with("spawning")
}

fn time_adds(count: usize) -> Vec<Times> {
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut roads = roads().expect("roads");
        roads[0].build().expect("table");
        let mut times: Vec<_> =
            roads.iter().map(|road| Times { name: road.name(), each: Vec::new() }).collect();
        let mut address = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        for round in 0..count {
            for (road, times) in roads.iter_mut().zip(&mut times) {
                if is_slow(road.name()) && round % SLOW_EVERY != 0 {
                    continue;
                }
                address += 1;
                let start = Instant::now();
                road.add(Ipv4Addr::from(address))
                    .unwrap_or_else(|error| panic!("{}: {error}", road.name()));
                times.each.push(start.elapsed());
            }
        }
        times
    })
}

/// Two namespaces on a veth pair; the scanner sends one SYN at a time from an address never seen
/// before, the host logs, judges, and blocks it.
fn time_packets(count: usize) -> Vec<Times> {
    let (host, scanner) = (Namespace::new(), Namespace::new());
    ip(&[
        "link",
        "add",
        "net0",
        "netns",
        &host.name,
        "type",
        "veth",
        "peer",
        "name",
        "net0",
        "netns",
        &scanner.name,
    ]);
    for (namespace, address) in [(&host, "10.99.0.1/16"), (&scanner, "10.99.0.2/16")] {
        ip(&["-n", &namespace.name, "addr", "add", address, "dev", "net0"]);
        ip(&["-n", &namespace.name, "link", "set", "net0", "up"]);
    }
    ip(&["-n", &host.name, "route", "add", "default", "via", "10.99.0.2"]);
    // Address resolution is not what is timed.
    let ping = std::process::Command::new("ip")
        .args(["netns", "exec", &scanner.name, "ping", "-q", "-c", "1", "10.99.0.1"])
        .output()
        .expect("ping");
    assert!(ping.status.success(), "the namespaces are not joined");
    let (send, packets) = mpsc::channel::<Ipv4Addr>();
    let (sent, started) = mpsc::channel::<Instant>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            scanner.enter(|| {
                let sender = Sender::open().expect("raw socket");
                for source in packets {
                    // Quiet: the kernel and the other thread have come to rest.
                    std::thread::sleep(Duration::from_micros(300));
                    let now = Instant::now();
                    sender
                        .syn(
                            source,
                            Ipv4Addr::new(10, 99, 0, 1),
                            1 + (now.elapsed().subsec_nanos() % 100) as u16,
                        )
                        .expect("send");
                    sent.send(now).expect("listener");
                }
            });
        });
        host.enter(move || detect_and_block(count, &send, &started))
    })
}

fn detect_and_block(
    count: usize,
    send: &mpsc::Sender<Ipv4Addr>,
    started: &mpsc::Receiver<Instant>,
) -> Vec<Times> {
    let mut listener = Listener::bind(Settings::of_group(GROUP)).expect("group");
    portsentry_peers::ours::install_rules(&Config::default()).expect("rules");
    let mut roads = roads().expect("roads");
    let mut config = Config { scan_trigger: 0, ..Config::default() };
    config.block.unproven.action = portsentry::config::UnprovenAction::Block;
    config.block.unproven.per_minute = u32::MAX;
    let mut times: Vec<_> =
        roads.iter().map(|road| Times { name: road.name(), each: Vec::new() }).collect();
    let mut engine = Engine::new(Policy::from_config(&config), [7, 11]);
    let mut actions = Vec::new();
    let mut address = u32::from(Ipv4Addr::new(10, 99, 1, 0));
    for round in 0..count {
        for (road, times) in roads.iter_mut().zip(&mut times) {
            if is_slow(road.name()) && round % SLOW_EVERY != 0 {
                continue;
            }
            address += 1;
            send.send(Ipv4Addr::from(address)).expect("sender");
            let committed = loop {
                assert!(
                    poll::readable(listener.as_fd(), Duration::from_secs(5)).expect("poll"),
                    "no packet came"
                );
                let now = MonoTime::at(portsentry::sys::clock::boottime());
                let mut blocked = false;
                listener
                    .receive(PACKETS_PER_WAKE, &mut |packet| {
                        let probe = wire::parse(packet.payload)
                            .ok()
                            .and_then(|packet| Probe::from_packet(&packet, &(32768..=60999)).ok());
                        let Some(probe) = probe else { return };
                        engine.on_probe(now, &probe, &mut actions);
                        for action in actions.drain(..) {
                            if let Action::Block { source, .. } = action {
                                let source = match source.addr() {
                                    std::net::IpAddr::V4(source) => source,
                                    std::net::IpAddr::V6(_) => continue,
                                };
                                road.add(source)
                                    .unwrap_or_else(|error| panic!("{}: {error}", road.name()));
                                blocked = source == Ipv4Addr::from(address);
                            }
                        }
                    })
                    .expect("receive");
                if blocked {
                    break Instant::now();
                }
            };
            times.each.push(committed - started.recv().expect("sender"));
        }
    }
    let listed = std::process::Command::new("nft")
        .args(["list", "set", "inet", TABLE, SET])
        .output()
        .expect("nft");
    let elements = String::from_utf8_lossy(&listed.stdout).matches("10.99.").count();
    let expected: usize = times.iter().map(|times| times.each.len()).sum();
    assert_eq!(elements, expected, "every packet's source is in the set");
    times
}
