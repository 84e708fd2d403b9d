//! Ordinary traffic is not a scan: each load is really sent (tests/support/traffic.py); afterwards
//! nothing is reported or blocked, and its sender is still served. Each load has its own source, so
//! that each is evaluated alone.

use crate::support;

use std::io::Read;
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::netns::{Namespace, Running};
use support::{TRAFFIC, eventually, missing, tables};

const HOST: &str = "10.68.0.1";
const TOOLS: &[&str] = &["hping3", "ip", "nft", "nmap", "ping", "python3", "ss"];

struct Scene {
    host: Namespace,
    client: Namespace,
}

fn source(load: usize) -> String {
    format!("10.68.{load}.10")
}

const SOURCES: usize = 40;

impl Scene {
    fn new() -> Self {
        let (host, client) = (Namespace::new(), Namespace::new());
        host.join(
            &client,
            "net0",
            &["10.68.0.1/16", "fd68:1::1/64"],
            &["10.68.0.2/16", "fd68:1::2/64"],
        );
        let addresses: String =
            (1..=SOURCES).map(|load| format!("addr add {}/16 dev net0\n", source(load))).collect();
        client.ip_batch(&addresses);
        Self { host, client }
    }

    /// Ports 18080 and others are redirected to services, as container engines and administrators
    /// do it.
    fn redirect(&self) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rules = "table ip nat {\n chain in {\n type nat hook prerouting priority -100;\n \
                     tcp dport 18080 redirect to :80\n tcp dport 18443 dnat to 10.68.0.1:443\n \
                     tcp dport 18025 redirect to :25\n tcp dport 18143 dnat to 10.68.0.1:143\n }\n}\n";
        std::fs::write(file.path(), rules).unwrap();
        self.host.run("nft", &["-f", file.path().to_str().unwrap()]);
    }
}

/// Runs a load, which must succeed by its own measure.
fn send(from: &Namespace, words: &[&str]) {
    let mut arguments = vec![TRAFFIC];
    arguments.extend_from_slice(words);
    let output = from.output("python3", &arguments, Duration::from_secs(40));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a program that prints when it is ready.
fn start(inside: &Namespace, words: &[&str]) -> Running {
    let mut arguments = vec![TRAFFIC];
    arguments.extend_from_slice(words);
    let mut running = inside.spawn("python3", &arguments);
    let mut line = [0; 6];
    if running.0.stdout.as_mut().unwrap().read_exact(&mut line).is_err() {
        let mut why = String::new();
        let _ = running.0.stderr.as_mut().unwrap().read_to_string(&mut why);
        panic!("{words:?}: {why}");
    }
    running
}

fn probes(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["probes"].as_u64().unwrap()
}

/// Loads that a client sends alone.
const FROM_CLIENT: [&str; 16] = [
    "web",
    "ten_services",
    "stale_segments",
    "stale_clients",
    "retries",
    "exporters",
    "traceroute",
    "tracepath",
    "late_answers",
    "ftp",
    "discovery",
    "backscatter",
    "redirected",
    "pings",
    "peers",
    "served",
];

/// What a load is: its own words in traffic.py, or those for the ones below.
fn description(name: &str) -> String {
    let of_ours = match name {
        "service restart" => "Five services restart, and their clients keep trying.",
        "own connections" => "The host's own connections are refused, cut off, answered late.",
        "forged flood" => {
            "A flood of a closed port from forged sources, each of which touches it once."
        }
        "neighbour discovery" => "Neighbour discovery, and searches for hosts.",
        _ => "",
    };
    if !of_ours.is_empty() {
        return of_ours.to_owned();
    }
    let text = std::fs::read_to_string(TRAFFIC).unwrap();
    let body = text.split_once(&format!("\ndef {name}(")).unwrap().1;
    let words = body.split("\"\"\"").nth(1).unwrap();
    words.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "or")
}

fn no_load_is_a_scan(title: &str, yaml: &str) {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    scene.redirect();
    let mut services = Some(start(&scene.host, &["serve", HOST, HOST]));
    let daemon = Daemon::start(&scene.host, yaml);
    let mut wrong = Vec::new();
    let mut told = daemon.log().matches("attackalert").count();
    let mut rows = Vec::new();
    println!("--- benign loads, {title}");
    let mut after = |name: &str, from: &str, started: Instant, before: u64| {
        // A log message in transit arrives in this time; a late report fails the next load.
        std::thread::sleep(Duration::from_millis(100));
        let (blocked, log) = (daemon.blocked(), daemon.log());
        let alerts = log.matches("attackalert").count() - told;
        told += alerts;
        let [is_blocked, is_told] =
            [!blocked.is_empty(), alerts > 0].map(|it| if it { "yes" } else { "no" });
        rows.push([name.to_owned(), description(name), format!("{is_blocked} / {is_told}")]);
        let verdict =
            if blocked.is_empty() && alerts == 0 { "nothing told" } else { "TAKEN FOR A SCAN" };
        println!(
            "{name:22} {:4} probes seen  {verdict}  {:.1} s",
            probes(&daemon) - before,
            started.elapsed().as_secs_f64()
        );
        if verdict != "nothing told" {
            wrong.push(format!(
                "{name} from {from}: {blocked:?} {:?}",
                log.lines().rfind(|line| line.contains("attackalert"))
            ));
            daemon.ctl(&["unblock", "--all"]);
        }
    };
    for (load, name) in (1..).zip(FROM_CLIENT) {
        let (from, started, before) = (source(load), Instant::now(), probes(&daemon));
        send(&scene.client, &[name, &from, HOST]);
        after(name, &from, started, before);
        send(&scene.client, &["served", &from, HOST]);
    }

    // Five services restart, and their clients keep trying.
    let (from, started, before) = (source(20), Instant::now(), probes(&daemon));
    drop(services.take());
    send(&scene.client, &["impatient", &from, HOST]);
    services = Some(start(&scene.host, &["serve", HOST, HOST]));
    after("service restart", &from, started, before);
    send(&scene.client, &["served", &from, HOST]);

    // The host's own connections are refused, cut off, answered late.
    let (from, started, before) = (source(21), Instant::now(), probes(&daemon));
    let late = start(&scene.client, &["late_server", &from, HOST]);
    send(&scene.host, &["outgoing", HOST, &from]);
    after("own connections", &from, started, before);
    drop(late);
    send(&scene.client, &["served", &from, HOST]);

    // A flood of a closed port from forged sources: each has touched one port.
    let (from, started, before) = (source(22), Instant::now(), probes(&daemon));
    let flood = ["-q", "-n", "--rand-source", "-S", "-p", "389", "-c", "3000", "-i", "u100", HOST];
    scene.client.output("hping3", &flood, Duration::from_secs(20));
    assert!(probes(&daemon) > before + 1000, "the forged packets arrive");
    after("forged flood", &from, started, before);
    send(&scene.client, &["served", &from, HOST]);

    // Neighbour discovery, and searches for hosts.
    let (started, before) = (Instant::now(), probes(&daemon));
    for _ in 0..3 {
        for namespace in [&scene.client, &scene.host] {
            namespace.run("ip", &["neigh", "flush", "dev", "net0"]);
        }
        scene.client.run("ping", &["-6", "-n", "-c", "1", "-W", "2", "fd68:1::1"]);
        scene.client.output(
            "ping",
            &["-6", "-n", "-c", "2", "-i", "0.2", "-W", "1", "ff02::1%net0"],
            Duration::from_secs(5),
        );
        scene.client.output(
            "ping",
            &["-6", "-n", "-c", "1", "-W", "1", "ff02::2%net0"],
            Duration::from_secs(5),
        );
    }
    scene.client.output("nmap", &["-n", "-sn", "-PE", HOST], Duration::from_secs(10));
    scene.client.output("nmap", &["-6", "-n", "-sn", "fd68:1::1"], Duration::from_secs(10));
    after("neighbour discovery", "fd68:1::2", started, before);

    assert_eq!(daemon.json(&["status"])["lost"], 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
    tables::hold_column("benign", title, &rows);
    // Three closed ports are a scan by the default trigger of two; a monitor that probes them
    // belongs on the allow list.
    let from = source(30);
    send(&scene.client, &["three_exporters", &from, HOST]);
    daemon.wait_for_block(&from);
    assert!(daemon.ctl(&["unblock", "--all"]).status.success());
    assert!(daemon.ctl(&["allow", "add", &from]).status.success());
    send(&scene.client, &["three_exporters", &from, HOST]);
    send(&scene.client, &["served", &from, HOST]);
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    drop(services);
}

// P4, P5
#[test]
fn no_benign_load_is_a_scan_with_the_defaults() {
    no_load_is_a_scan("defaults", "");
}

// P4, P5
#[test]
fn no_benign_load_is_a_scan_when_every_port_is_watched_and_udp_may_block() {
    let every = "tcp: { advanced_ports: 1-65535, exclude: [] }\nudp: { advanced_ports: 1-65535, exclude: [], action: block }";
    no_load_is_a_scan("every port, UDP may block", every);
}

// P4, P5
#[test]
fn no_benign_load_is_a_scan_when_closed_ports_are_answered() {
    let every = "closed_ports: answer\ntcp: { advanced_ports: 1-65535, exclude: [] }\nudp: { advanced_ports: 1-65535, exclude: [], action: block }";
    no_load_is_a_scan("every port, closed ones answer", every);
}

// P4, P5
#[test]
fn closing_sockets_and_full_listeners_are_not_closed_ports() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 1000");
    // conntrack forgets connections that the sockets still have: only the socket lookup exempts the
    // packets. And a segment out of place makes the kernels exchange an ACK and a RST, which must
    // not end TIME_WAIT here.
    let forget = "for file in /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_*; do echo 1 > $file; done; echo 1 > /proc/sys/net/ipv4/tcp_rfc1337";
    scene.host.run("sh", &["-ec", forget]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let counters = "table inet known {\n chain in {\n type filter hook input priority -160;\n \
                    tcp sport 9000 tcp dport { 700, 701 } tcp flags & rst == 0 ct state established counter\n }\n}\n";
    let client = source(1);
    let _sink = start(&scene.client, &["sink", &client, HOST]);
    let _sockets = start(&scene.host, &["sockets", HOST, &client]);
    let states = || scene.host.run("ss", &["-Hant"]);
    assert!(
        eventually(Duration::from_secs(20), || states().contains("TIME-WAIT")
            && states().contains("FIN-WAIT-2")),
        "{}",
        states()
    );
    // Some of the resets respond to answers to our segments.
    std::fs::write(file.path(), counters).unwrap();
    scene.host.run("nft", &["-f", file.path().to_str().unwrap()]);

    let is_watched = |port: &str, flags: &str, from_port: &str| {
        let before = probes(&daemon);
        send(&scene.client, &["segments", &client, HOST, port, flags, from_port]);
        eventually(Duration::from_millis(300), || probes(&daemon) > before)
    };
    for (port, state) in [("700", "TIME-WAIT"), ("701", "FIN-WAIT-2")] {
        assert!(
            states()
                .lines()
                .any(|line| line.starts_with(state) && line.contains(&format!(":{port} "))),
            "{port}: {}",
            states()
        );
        for flags in ["16", "17", "24"] {
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!is_watched(port, flags, "9000"), "flags {flags} to port {port} in {state}");
        }
        let known = scene.host.run("nft", &["list", "table", "inet", "known"]);
        assert!(known.contains("counter packets 0 "), "conntrack did not forget: {known}");
        // The same port, but another connection: no socket accepts it.
        assert!(is_watched(port, "16", "9001"), "{state} exempts its own connection only");
    }
    let before = probes(&daemon);
    send(&scene.client, &["fill", &client, HOST]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(probes(&daemon), before, "a listener whose queue is full is there");
    assert!(is_watched("703", "2", "9000"), "a closed port is watched");
}
