//! `capture.method: nfqueue` over the real kernel: probes and suspects' connections wait for the
//! decision, others never do, and no connection depends on the daemon running.

use crate::support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portsentry::capture::nfqueue::{Kind, Listener, Settings};
use portsentry::capture::{Error, PACKETS_PER_WAKE, Resource, Verdict};
use portsentry::config::{ClosedPorts, Config, Method};
use portsentry::nft::lower::lower;
use portsentry::nft::text::Form;
use portsentry::nft::{Connection, QueueBy};
use portsentry::ruleset::{self, SCHEMA};
use portsentry::sys::poll::readable;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::eventually;
use support::expressions;
use support::flood::{Load, Scan, Wire};
use support::netns::Namespace;
use support::schedule;

const HOST: &str = "192.0.2.1";
const SCANNER: &str = "192.0.2.2";
const QUEUE: u16 = 77;

/// At trigger 0, by the daemon alone.
const YAML: &str = "capture: { method: nfqueue, reflex: false }\nscan_trigger: 0\ntcp: { mode: advanced, advanced_ports: 1-2000, exclude: [] }\n";

/// A host with open ports, a scanner, and a legitimate client on another link.
struct Site {
    host: Namespace,
    scanner: Namespace,
    client: Namespace,
    open: Vec<u16>,
    _services: Vec<TcpListener>,
}

impl Site {
    fn new() -> Self {
        let (host, scanner, client) = (Namespace::new(), Namespace::new(), Namespace::new());
        host.join(
            &scanner,
            "v0",
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        // A prefix that is not the host's own, which would never be blocked.
        scanner.run("ip", &["addr", "add", "2001:db8:9::2/64", "dev", "v0", "nodad"]);
        host.run("ip", &["-6", "route", "add", "2001:db8:9::/64", "dev", "v0"]);
        host.join(
            &client,
            "v1",
            &["198.51.100.1/24", "2001:db8:1::1/64"],
            &["198.51.100.2/24", "2001:db8:1::2/64"],
        );
        let open: Vec<u16> = (1..=10).map(|n| n * 97).collect();
        let services = host
            .enter(|| open.iter().map(|port| TcpListener::bind(("::", *port)).unwrap()).collect());
        Self { host, scanner, client, open, _services: services }
    }

    fn is_closed(&self, port: u16) -> bool {
        !self.open.contains(&port)
    }
}

/// Skips without namespaces or queues.
macro_rules! need {
    ($($tool:literal),*) => {
        if support::missing(&["ip", "nft", $($tool),*]).is_some() {
            return;
        }
    };
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Number of runs: some in CI, fifty with PORTSENTRY_RUNS=50.
fn runs() -> u32 {
    std::env::var("PORTSENTRY_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

/// The ports 1 to 1000 in an order that depends on the run only.
fn shuffled(run: u32) -> Vec<u16> {
    let mut ports: Vec<u16> = (1..=1000).collect();
    let mut state = u64::from(run) + 1;
    for n in (1..ports.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ports.swap(n, (state >> 33) as usize % (n + 1));
    }
    ports
}

/// Runs `inside`, and the threads that it starts, on the first processor.
fn on_one_processor<T>(inside: impl FnOnce() -> T) -> T {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
    inside()
}

fn forget(daemon: &Daemon<'_>) {
    let _ = daemon.ctl(&["unblock", "--all"]);
}

/// Connects, and returns how long it took.
fn connect(from: &Namespace, to: &str, port: u16, limit: Duration) -> Option<Duration> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    from.enter(|| {
        let began = Instant::now();
        TcpStream::connect_timeout(&to, limit).ok().map(|_| began.elapsed())
    })
}

/// Probes a closed port, ignoring the answer.
fn touch(from: &Namespace, to: &str, port: u16) {
    let _ = connect(from, to, port, Duration::from_millis(20));
}

fn set_holds(host: &Namespace, set: &str, address: &str) -> bool {
    host.run("nft", &["list", "set", "inet", "portsentry", set]).contains(address)
}

// --- the listener alone

/// A namespace that queues UDP to ports 4000-4999, with the features of this kernel.
fn queueing() -> (Namespace, QueueBy) {
    let namespace = Namespace::new();
    let by = namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let by = connection.queue_by().unwrap().expect("this kernel queues packets");
        let mut config = Config::default();
        config.capture.method = Method::Nfqueue;
        config.capture.reflex = false;
        connection.install(&ruleset::for_config(&config, 32768..=60999).queueing(by)).unwrap();
        by
    });
    (namespace, by)
}

/// A listener in `host`; `probes_pass` if full.
fn listen(host: &Namespace, receive_buffer: usize) -> Listener {
    host.enter(|| {
        Listener::bind(Settings { receive_buffer, ..Settings::of_queue(QUEUE, false) }).unwrap()
    })
}

#[test]
fn packets_wait_with_their_bytes_until_their_verdict() {
    need!();
    let (host, _) = queueing();
    let peer = Namespace::new();
    host.join(
        &peer,
        "v0",
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    );
    let mut listener = listen(&host, 8 << 20);
    for to in ["192.0.2.1", "2001:db8::1"] {
        let to: IpAddr = to.parse().unwrap();
        peer.enter(|| {
            let from: IpAddr = if to.is_ipv4() {
                SCANNER.parse().unwrap()
            } else {
                "2001:db8::2".parse().unwrap()
            };
            UdpSocket::bind(SocketAddr::new(from, 5555))
                .unwrap()
                .send_to(b"are you there?", SocketAddr::new(to, 321))
                .unwrap();
        });
        assert!(readable(listener.as_fd(), Duration::from_secs(5)).unwrap());
        host.enter(|| assert_eq!(listener.read_status()[0].waiting, 1));
        let mut seen = 0;
        let received = listener.decide(PACKETS_PER_WAKE, &mut |waiting| {
            seen += 1;
            assert_eq!((waiting.kind, waiting.packet.hook), (Kind::Probe, 1));
            assert!(waiting.packet.indev.is_some());
            assert!(waiting.packet.payload.ends_with(b"are you there?"));
            assert_eq!(waiting.packet.hw_protocol, if to.is_ipv4() { 0x0800 } else { 0x86dd });
            Verdict::Drop
        });
        assert_eq!((seen, received.unwrap().more), (1, false));
        host.enter(|| assert_eq!(listener.read_status()[0].waiting, 0));
    }
    assert_eq!((listener.statistics().packets, listener.statistics().lost), (2, 0));
}

#[test]
fn probes_past_the_queues_length_are_counted_exactly_and_none_is_lost_before() {
    need!();
    let (host, _) = queueing();
    let peer = Namespace::new();
    host.join(&peer, "v0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    // As in the daemon: the receive buffer must hold a full queue.
    let mut listener = listen(&host, 8 << 20);
    let length = u64::from(listener.lengths()[0]);
    let sent = Wire::between(&peer, &host, "v0").flood(&Load::spoofed(
        HOST.parse().unwrap(),
        200..=500,
        100_000,
        Duration::from_secs(1),
    ));
    let mut packets = 0;
    while listener
        .decide(PACKETS_PER_WAKE, &mut |_| {
            packets += 1;
            Verdict::Drop
        })
        .unwrap()
        .more
    {}
    let [probes, _] = host.enter(|| listener.read_status());
    let statistics = listener.statistics();
    eprintln!("{} sent, {packets} waited, {probes:?}, {statistics:?}", sent.packets);
    assert!(sent.packets > length, "the queue was not filled");
    assert_eq!((packets, statistics.overruns, probes.unreceived), (length, 0, 0));
    assert_eq!(statistics.packets + statistics.lost, sent.packets);
}

#[test]
fn a_queue_in_use_is_an_error_with_its_owner() {
    need!();
    // A child that another test has just forked has the socket too, until it executes its program.
    schedule::alone();
    let host = Namespace::new();
    let first = listen(&host, 1 << 20);
    host.enter(|| {
        for queue in [QUEUE, QUEUE - 1, QUEUE + 1] {
            let error = Listener::bind(Settings::of_queue(queue, false)).err().unwrap();
            let Error::InUse { resource: Resource::Queue(_), holder: Some(holder) } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(holder.process.as_ref().unwrap().0, std::process::id());
            assert!(chain(&error).contains("is in use by another program"), "{error}");
        }
        Listener::bind(Settings::of_queue(QUEUE + 2, false)).unwrap();
        drop(first);
        Listener::bind(Settings::of_queue(QUEUE, false)).unwrap();
    });
}

#[test]
fn rules_that_queue_read_back_as_they_were_written() {
    need!();
    let (host, by) = queueing();
    eprintln!("queued by {by:?}");
    if by == QueueBy::Native {
        assert!(
            host.run("nft", &["list", "chain", "inet", "portsentry", "probe"])
                .contains("queue to 77")
        );
    }
    let mut config = Config::default();
    config.capture.method = Method::Nfqueue;
    config.capture.reflex = false;
    let ruleset = ruleset::for_config(&config, 32768..=60999).queueing(by);
    host.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        assert_eq!(connection.verify(&ruleset).unwrap(), None);
        // Another number or flag is another rule.
        config.capture.group += 1;
        let other = ruleset::for_config(&config, 32768..=60999).queueing(by);
        assert!(connection.verify(&other).unwrap().is_some());
    });
    // The check of the kernel's features leaves nothing behind.
    assert_eq!(host.run("nft", &["list", "tables"]).trim(), "table inet portsentry");
}

// --- the daemon

#[test]
fn a_scanner_learns_of_no_open_port_after_the_trigger() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, YAML);
    assert_eq!(daemon.json(&["status"])["capture"], "nfqueue");
    let wire = Wire::between(&site.scanner, &site.host, "v0");
    for (from, to) in [(SCANNER, HOST), ("2001:db8:9::2", "2001:db8::1")] {
        let (mut bad, mut rates) = (0, Vec::new());
        for run in 0..runs() {
            let scan = Scan::new(from.parse().unwrap(), to.parse().unwrap(), shuffled(run), 10_000);
            let answers = std::thread::scope(|scope| {
                scope.spawn(|| on_one_processor(|| wire.scan(&scan))).join().unwrap()
            });
            let after = answers.after_closed(1, |port| site.is_closed(port));
            let leaked = answers.answered_from(after);
            bad += u32::from(leaked > 0);
            rates.push(answers.rate());
            assert!(
                eventually(Duration::from_secs(20), || !daemon.blocked().is_empty()),
                "run {run}: not blocked\n{}",
                daemon.log()
            );
            eprintln!(
                "{to} run {run}: {leaked} answered after the trigger, {} before, {}/s",
                answers.answered() - leaked,
                answers.rate()
            );
            forget(&daemon);
        }
        rates.sort_unstable();
        println!(
            "{to}: {bad} of {} runs gave something away; {} probes/s in the median",
            runs(),
            rates[rates.len() / 2]
        );
        assert_eq!(bad, 0);
    }
}

// P3, P27
#[test]
fn a_slowed_source_connects_by_the_retransmission_and_a_fast_scan_learns_nothing() {
    need!();
    for reflex in [false, true] {
        let site = Site::new();
        let yaml = YAML.replace("reflex: false", &format!("reflex: {reflex}"));
        let daemon = Daemon::start(&site.host, &format!("{yaml}{AT_DEFAULTS}"));
        let state = || daemon.json(&["list"])[0]["state"].clone();
        let wire = Wire::between(&site.scanner, &site.host, "v0");
        for run in 0..runs() {
            let (from, to) = (SCANNER.parse().unwrap(), HOST.parse().unwrap());
            let mut scan = Scan::new(from, to, shuffled(run), 10_000);
            // The same ports again would be the retransmissions of the run before.
            scan.source_port += u16::try_from(run).unwrap();
            let answers = wire.scan(&scan);
            // A random half of the closed ports answers.
            let after = answers.after_closed(1, |port| site.is_closed(port));
            assert_eq!(answers.open_from(after), 0, "reflex {reflex}, run {run}");
            assert!(
                eventually(Duration::from_secs(20), || state() == "slowed"),
                "{}",
                daemon.log()
            );
            forget(&daemon);
        }
        touch(&site.scanner, HOST, 1);
        assert!(eventually(Duration::from_secs(20), || state() == "slowed"), "{}", daemon.log());
        let took =
            connect(&site.scanner, HOST, site.open[0], Duration::from_secs(10)).expect("connected");
        let second = Duration::from_millis(700)..Duration::from_millis(1900);
        assert!(second.contains(&took), "reflex {reflex}: {took:?}");
        assert_eq!(state(), "slowed");
    }
}

#[test]
fn nmap_at_full_speed_learns_of_no_open_port_after_the_trigger() {
    need!("nmap");
    let site = Site::new();
    let daemon = Daemon::start(&site.host, YAML);
    for run in 0..runs() {
        assert_eq!(nmap_leaks(&site), Vec::<u16>::new(), "run {run}\n{}", daemon.log());
        assert!(
            eventually(Duration::from_secs(20), || daemon.blocked() == [SCANNER]),
            "run {run}: {:?}\n{}",
            daemon.blocked(),
            daemon.log()
        );
        forget(&daemon);
    }
    println!("nmap -T5 --min-rate 5000: {} runs", runs());
}

/// Open ports that nmap found by probes sent after its first one to a closed port.
fn nmap_leaks(site: &Site) -> Vec<u16> {
    let arguments = [
        "-n",
        "-Pn",
        "-sS",
        "-T5",
        "--min-rate",
        "5000",
        "--max-retries",
        "1",
        "-p",
        "1-1000",
        "--packet-trace",
        HOST,
    ];
    let output = site.scanner.output("nmap", &arguments, Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut sent, mut leaks, mut trigger) =
        (std::collections::HashMap::<u16, usize>::new(), Vec::new(), None);
    let mut count = 0;
    for line in text.lines() {
        // SENT (0.0456s) TCP 192.0.2.2:40000 > 192.0.2.1:80 S ttl=... / RCVD (0.0457s) TCP
        // 192.0.2.1:80 > 192.0.2.2:40000 SA ttl=...
        let words: Vec<&str> = line.split_whitespace().collect();
        let [direction, _, "TCP", from, ">", to, flags, ..] = words.as_slice() else { continue };
        let port = |end: &str| end.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        if *direction == "SENT" {
            let port = port(to);
            sent.entry(port).or_insert(count);
            if trigger.is_none() && site.is_closed(port) {
                trigger = Some(count);
            }
            count += 1;
        } else if *flags == "SA"
            && trigger.is_some_and(|at| sent.get(&port(from)).is_some_and(|sent| *sent > at))
        {
            leaks.push(port(from));
        }
    }
    assert!(
        count >= 1000,
        "nmap sent {count} probes:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    leaks.dedup();
    leaks
}

#[test]
fn a_scanner_learns_of_no_open_port_in_a_flood_of_forged_sources() {
    need!();
    schedule::alone();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, YAML);
    let (scanner, flooder) = (
        Wire::between(&site.scanner, &site.host, "v0"),
        Wire::between(&site.client, &site.host, "v1"),
    );
    let (mut bad, mut worst) = (0, 0);
    for run in 0..runs() {
        let over = AtomicBool::new(false);
        let (answers, sent) = std::thread::scope(|scope| {
            let closed = (1..=1000).filter(|port| site.is_closed(*port));
            let mut load =
                Load::spoofed(HOST.parse().unwrap(), closed, 50_000, Duration::from_secs(30));
            load.series = u64::from(run);
            let flood = scope.spawn({
                let (flooder, over) = (&flooder, &over);
                move || flooder.flood_until(&load, over)
            });
            std::thread::sleep(Duration::from_millis(500));
            // On one processor, as packets of one receive queue are: with two, a packet could
            // overtake another before any rule.
            let scan =
                Scan::new(SCANNER.parse().unwrap(), HOST.parse().unwrap(), shuffled(run), 10_000);
            let answers = std::thread::scope(|inner| {
                inner.spawn(|| on_one_processor(|| scanner.scan(&scan))).join().unwrap()
            });
            over.store(true, Ordering::Relaxed);
            (answers, flood.join().unwrap())
        });
        let leaked = answers.answered_from(answers.after_closed(1, |port| site.is_closed(port)));
        (bad, worst) = (bad + u32::from(leaked > 0), worst.max(leaked));
        let status = daemon.json(&["status"]);
        eprintln!(
            "run {run}: {leaked} answered; flood {}/s; lost {}, queues {}",
            sent.rate(),
            status["lost"],
            status["queues"]
        );
        forget(&daemon);
    }
    println!(
        "in a flood of 50,000 a second: {bad} of {} runs gave something away, {worst} ports at worst",
        runs()
    );
    assert_eq!(bad, 0);
}

#[test]
fn a_legitimate_clients_connections_never_wait() {
    need!();
    schedule::alone();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, YAML);
    let port = site.open[0];
    let median = || {
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                connect(&site.client, "198.51.100.1", port, Duration::from_secs(5))
                    .expect("connected")
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let quiet = median();
    let queued = || daemon.json(&["status"])["queues"]["passed"].as_u64().unwrap();
    assert_eq!(queued(), 0);
    // A scanner is active, and stays a suspect.
    for port in 1..20 {
        touch(&site.scanner, HOST, port);
    }
    let busy = median();
    println!("a client's connection takes {quiet:?}, beside a scan {busy:?}");
    assert_eq!(queued(), 0, "no connection of a client ever waits");
    // The daemon is stopped: only suspects notice.
    daemon.signal("STOP");
    for _ in 0..20 {
        let took =
            connect(&site.client, "198.51.100.1", port, Duration::from_secs(5)).expect("connected");
        assert!(took < Duration::from_millis(900), "no SYN was lost or held: {took:?}");
    }
    daemon.signal("CONT");
}

#[test]
fn a_suspect_below_the_trigger_is_accepted_after_evaluation() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, &YAML.replace("scan_trigger: 0", "scan_trigger: 5"));
    for (name, own, to, set) in
        [("IPv4", SCANNER, HOST, "suspect4"), ("IPv6", "2001:db8:", "2001:db8::1", "suspect6")]
    {
        let is_suspect = eventually(Duration::from_secs(20), || {
            touch(&site.scanner, to, 1);
            set_holds(&site.host, set, own)
        });
        assert!(
            is_suspect,
            "{name}: {}",
            site.host.run("nft", &["list", "table", "inet", "portsentry"])
        );
        let before = daemon.json(&["status"])["queues"]["passed"].as_u64().unwrap();
        let took =
            connect(&site.scanner, to, site.open[0], Duration::from_secs(5)).expect("connected");
        assert!(took < Duration::from_millis(900), "{name}: {took:?}");
        assert_eq!(
            daemon.json(&["status"])["queues"]["passed"].as_u64().unwrap(),
            before + 1,
            "{name}"
        );
    }
    assert_eq!(daemon.blocked(), Vec::<String>::new());
}

#[test]
fn a_source_beyond_the_block_limit_connects_by_the_second_syn() {
    need!();
    let site = Site::new();
    // No room for another block: a source that exceeds the trigger is slowed, not cut off.
    let daemon = Daemon::start(&site.host, &format!("{YAML}block: {{ total: 1 }}\n"));
    let blocked = daemon.ctl(&["block", "203.0.113.9"]);
    assert!(blocked.status.success());
    touch(&site.scanner, HOST, 1);
    let took =
        connect(&site.scanner, HOST, site.open[0], Duration::from_secs(10)).expect("connected");
    assert!(took > Duration::from_millis(700), "{took:?}");
    assert_eq!(daemon.blocked(), ["203.0.113.9"]);
}

#[test]
fn a_host_whose_daemon_is_killed_goes_on_at_once() {
    need!();
    schedule::alone();
    let site = Site::new();
    let mut daemon = Daemon::start(&site.host, &YAML.replace("scan_trigger: 0", "scan_trigger: 5"));
    touch(&site.scanner, HOST, 1);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(
        set_holds(&site.host, "suspect4", SCANNER),
        "still a suspect: only the listener is gone"
    );
    for (from, to) in [(&site.scanner, HOST), (&site.client, "198.51.100.1")] {
        let took = connect(from, to, site.open[0], Duration::from_secs(5)).expect("connected");
        assert!(took < Duration::from_millis(900), "{took:?}");
    }
    // Closed ports stay silent.
    let answers = Wire::between(&site.scanner, &site.host, "v0").scan(&Scan::new(
        SCANNER.parse().unwrap(),
        HOST.parse().unwrap(),
        1..50,
        1000,
    ));
    assert_eq!(answers.answered(), 0);
}

#[test]
fn a_suspect_waits_for_a_stopped_daemon_only_while_it_is_a_suspect() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, &YAML.replace("scan_trigger: 0", "scan_trigger: 5"));
    daemon.signal("STOP");
    touch(&site.scanner, HOST, 1);
    assert_eq!(
        connect(&site.scanner, HOST, site.open[0], Duration::from_millis(500)),
        None,
        "it waits"
    );
    // TCP repeats its SYN after 1, 3 and 7 seconds; the source is a suspect for 5.
    let took =
        connect(&site.scanner, HOST, site.open[0], Duration::from_secs(20)).expect("connected");
    println!("a suspect waits {took:?} for a stopped daemon");
    daemon.signal("CONT");
    assert!(eventually(
        Duration::from_secs(5),
        || daemon.json(&["status"])["queues"]["connections"] == 0
    ));
}

#[test]
fn a_full_queue_of_connections_lets_pass_what_does_not_fit() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(&site.host, &YAML.replace("scan_trigger: 0", "scan_trigger: 5"));
    let length = daemon.json(&["status"])["queues"]["connections_length"].as_u64().unwrap();
    daemon.signal("STOP");
    touch(&site.scanner, HOST, 1);
    let port = site.open[0];
    let wire = Wire::between(&site.scanner, &site.host, "v0");
    let load = Load {
        sources: "192.0.2.2/32".parse().unwrap(),
        ..Load::spoofed(HOST.parse().unwrap(), [port], 20_000, Duration::from_millis(200))
    };
    let sent = wire.flood(&load);
    assert!(sent.packets > length, "{sent:?}");
    let took = connect(&site.scanner, HOST, port, Duration::from_secs(3))
        .expect("the queue is full, and the connection passes");
    assert!(took < Duration::from_millis(900), "{took:?}");
    daemon.signal("CONT");
}

#[test]
fn a_reload_goes_from_one_method_to_the_other_and_back_with_every_block() {
    need!();
    let site = Site::new();
    let nflog = YAML.replace("nfqueue", "nflog");
    let daemon = Daemon::start(&site.host, &nflog);
    assert_eq!(daemon.json(&["status"])["capture"], "nflog");
    assert!(daemon.ctl(&["block", "203.0.113.7", "--for", "1h"]).status.success());
    for (number, (yaml, method)) in
        [(YAML, "nfqueue"), (&nflog, "nflog"), (YAML, "nfqueue")].into_iter().enumerate()
    {
        daemon.write_configuration(yaml);
        let reload = daemon.ctl(&["reload"]);
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
        assert_eq!(daemon.json(&["status"])["capture"], method);
        assert_eq!(daemon.blocked(), ["203.0.113.7"], "{method}");
        // And it still detects scans.
        touch(&site.scanner, HOST, 1 + number as u16);
        daemon.wait_for_block(SCANNER);
        assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    }
    // The next number overlaps: queue 78 was the second one, and is the first now.
    daemon.write_configuration(&YAML.replace("method: nfqueue", "method: nfqueue, group: 78"));
    let reload = daemon.ctl(&["reload"]);
    assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    touch(&site.scanner, HOST, 9);
    daemon.wait_for_block(SCANNER);
}

#[test]
fn with_the_reflex_both_hold_and_the_daemon_confirms() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(
        &site.host,
        &YAML
            .replace("reflex: false", "reflex: true")
            .replace("scan_trigger: 0", "scan_trigger: 2"),
    );
    let wire = Wire::between(&site.scanner, &site.host, "v0");
    for run in 0..runs() {
        let mut scan =
            Scan::new(SCANNER.parse().unwrap(), HOST.parse().unwrap(), shuffled(run), 10_000);
        // The SYNs of the run before, seconds later, would be retransmissions, which pass.
        scan.source_port += run as u16;
        let answers = wire.scan(&scan);
        let after = answers.after_closed(3, |port| site.is_closed(port));
        assert_eq!(answers.answered_from(after), 0, "run {run}");
        daemon.wait_for_block(SCANNER);
        forget(&daemon);
    }
}

#[test]
fn a_daemon_whose_queue_is_taken_says_by_whom_and_ends() {
    need!();
    // A child that another test has just forked has the socket too, until it executes its program.
    schedule::alone();
    let host = Namespace::new();
    let _taken = listen(&host, 1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().display();
    let yaml = format!(
        "{YAML}state_dir: {at}\nhistory_file: \"\"\ncontrol: {{ socket: {at}/control.sock, group: \"\" }}\n"
    );
    let file = directory.path().join("portsentry.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = host.output(
        env!("CARGO_BIN_EXE_portsentry"),
        &["--config", file.to_str().unwrap()],
        Duration::from_secs(20),
    );
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(
        text.contains("NFQUEUE 77 is in use by another program")
            && text.contains(&format!("pid {}", std::process::id())),
        "{text}"
    );
    assert!(
        !host.run("nft", &["list", "tables"]).contains("portsentry"),
        "the rules came before the queue"
    );
}

#[test]
fn closed_ports_that_answer_do_so_until_the_source_is_blocked() {
    need!();
    let site = Site::new();
    let daemon = Daemon::start(
        &site.host,
        &format!("{}closed_ports: answer\n", YAML.replace("scan_trigger: 0", "scan_trigger: 3")),
    );
    let answers = Wire::between(&site.scanner, &site.host, "v0").scan(&Scan::new(
        SCANNER.parse().unwrap(),
        HOST.parse().unwrap(),
        1..60,
        1000,
    ));
    assert_eq!(
        (answers.answered_from(0), answers.answered_from(3)),
        (3, 0),
        "the fourth is dropped with the block"
    );
    daemon.wait_for_block(SCANNER);
}

#[test]
fn lowered_rules_that_queue_are_what_nft_makes_of_the_text() {
    need!();
    let namespace = Namespace::new();
    for (reflex, answer) in [(false, false), (true, false), (false, true)] {
        let mut config = Config::default();
        (config.capture.method, config.capture.reflex) = (Method::Nfqueue, reflex);
        if answer {
            config.closed_ports = ClosedPorts::Answer;
        }
        let ruleset = ruleset::for_config(&config, 32768..=60999);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), ruleset.render(SCHEMA.table, Form::Table)).unwrap();
        // A kernel without nft_queue refuses, after nft has parsed the text.
        let output = namespace.output(
            "nft",
            &["-c", "--debug=netlink", "-f", file.path().to_str().unwrap()],
            Duration::from_secs(20),
        );
        let debug = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs: Vec<&str> =
            debug.lines().filter(|line| line.starts_with("  [ ")).map(str::trim).collect();
        let ours: Vec<String> = ruleset
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().flat_map(lower))
            .map(|expr| expressions::print(&expr))
            .collect();
        assert_eq!(ours, theirs);
        assert!(ours.iter().any(|expr| expr == "[ queue num 78 bypass ]"));
    }
}
