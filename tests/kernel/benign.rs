//! Ordinary traffic is not a scan: each load is really sent (traffic.py and ordinary.py in
//! tests/support); afterwards nothing is reported or blocked, and its sender is still served. Each load
//! has its own source, so that each is evaluated alone.

use crate::support;

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::netns::{Namespace, Running};
use support::{TRAFFIC, eventually, in_parallel, missing, tables};

const HOST: &str = "10.68.0.1";
/// Loads of many protocols, and their services.
const ORDINARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ordinary.py");
const TOOLS: &[&str] = &["hping3", "ip", "nft", "nmap", "ping", "python3", "ss"];

struct Scene {
    host: Namespace,
    client: Namespace,
}

fn source(load: usize) -> String {
    format!("10.68.{load}.10")
}

/// Its IPv6 address.
fn source6(load: usize) -> String {
    format!("fd68:1::{load}:10")
}

const SOURCES: usize = 60;

impl Scene {
    fn new() -> Self {
        let (host, client) = (Namespace::new(), Namespace::new());
        host.join(
            &client,
            "net0",
            &["10.68.0.1/16", "fd68:1::1/64"],
            &["10.68.0.2/16", "fd68:1::2/64"],
        );
        let addresses: String = (1..=SOURCES)
            .map(|load| {
                let (four, six) = (source(load), source6(load));
                format!("addr add {four}/16 dev net0\naddr add {six}/64 dev net0 nodad\n")
            })
            .collect();
        client.ip_batch(&addresses);
        // Hosts whose connections end at our portal.
        client.run("ip", &["route", "add", "198.51.100.0/24", "via", HOST]);
        Self { host, client }
    }

    /// Ports 18080 and others are redirected to services, as container engines and administrators
    /// do it.
    fn redirect(&self) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let rules = "table ip nat {\n chain in {\n type nat hook prerouting priority -100;\n \
                     tcp dport 18080 redirect to :80\n tcp dport 18443 dnat to 10.68.0.1:443\n \
                     tcp dport 18025 redirect to :25\n tcp dport 18143 dnat to 10.68.0.1:143\n \
                     ip daddr 198.51.100.0/24 meta l4proto tcp redirect to :80\n }\n}\n";
        std::fs::write(file.path(), rules).unwrap();
        self.host.run("nft", &["-f", file.path().to_str().unwrap()]);
    }
}

/// Runs a load, which must succeed by its own measure.
fn send(from: &Namespace, words: &[&str]) {
    from.run("python3", &[&[TRAFFIC], words].concat());
}

/// Runs [`FROM_CLIENT`], each from its source: how many seconds each took, and what was wrong.
fn send_all(from: &Namespace) -> BTreeMap<String, (String, String)> {
    let words: Vec<String> =
        (1..).zip(FROM_CLIENT).map(|(load, name)| format!("{name},{}", source(load))).collect();
    let lists: Vec<Vec<&str>> = (0..WORKERS)
        .map(|first| words.iter().skip(first).step_by(WORKERS).map(String::as_str).collect())
        .collect();
    let texts = in_parallel(WORKERS, &lists, |_, list| {
        from.run("python3", &[&[ORDINARY, "loads", HOST], &list[..]].concat())
    });
    let results = texts.iter().flat_map(|text| text.lines()).map(|line| {
        let mut words = line.split('\t').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        (next(), (next(), next()))
    });
    results.collect()
}

/// Starts a program that prints when it is ready.
fn start(inside: &Namespace, program: &str, words: &[&str]) -> Running {
    let mut arguments = vec![program];
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

/// Loads that a client sends alone, side by side.
const FROM_CLIENT: [&str; 48] = [
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
    "tftp",
    "ftp_active",
    "dns_clients",
    "ntp_pool",
    "windows_shares",
    "routing_protocols",
    "smart_home",
    "device_answers",
    "path_mtu",
    "traceroute_icmp",
    "traceroute_ports",
    "mtr",
    "sip",
    "games",
    "vpn_clients",
    "ipsec",
    "quic",
    "check_tcp",
    "load_balancer",
    "snmp_syslog",
    "mail_client",
    "ident",
    "happy_eyeballs",
    "half_closed",
    "after_reboot",
    "port_knocking",
    "printers",
    "captive_portal",
    "nfs",
    "domain_clients",
    "backscatter6",
    "reflections",
];

/// Loads that are sent side by side.
const WORKERS: usize = 4;

/// What a load is: its own words in its program, or those for the ones below.
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
    let text = [TRAFFIC, ORDINARY].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let body = text.split_once(&format!("\ndef {name}(")).unwrap().1;
    let words = body.split("\"\"\"").nth(1).unwrap();
    words.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "or")
}

/// A row of the table.
fn row(name: &str, is_blocked: bool, is_reported: bool) -> [String; 3] {
    let [is_blocked, is_reported] =
        [is_blocked, is_reported].map(|it| if it { "yes" } else { "no" });
    [name.to_owned(), description(name), format!("{is_blocked} / {is_reported}")]
}

fn no_load_is_a_scan(title: &str, yaml: &str) {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    scene.redirect();
    let mut services = Some(start(&scene.host, TRAFFIC, &["serve", HOST, HOST]));
    let _others = start(&scene.host, ORDINARY, &["others", HOST]);
    let daemon = Daemon::start(&scene.host, yaml);
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    println!("--- benign loads, {title}");
    let results = send_all(&scene.client);
    // A log message in transit arrives in this time; a late report fails the next load.
    let in_transit = Duration::from_millis(100);
    std::thread::sleep(in_transit);
    let (mut blocked, log) = (daemon.blocked(), daemon.log());
    let mut alerts: Vec<&str> = log.lines().filter(|line| line.contains("attackalert")).collect();
    let mut told = alerts.len();
    for (load, name) in (1..).zip(FROM_CLIENT) {
        // Some loads have several hosts, all of one network.
        let networks = [format!("10.68.{load}."), source6(load)];
        let is_its = |text: &str| networks.iter().any(|network| text.contains(network));
        let its_blocks: Vec<_> = blocked.extract_if(.., |address| is_its(address)).collect();
        let its_alerts: Vec<_> = alerts.extract_if(.., |line| is_its(line)).collect();
        rows.push(row(name, !its_blocks.is_empty(), !its_alerts.is_empty()));
        let (seconds, why) = &results[name];
        println!("{name:22} {seconds} s");
        if !why.is_empty() {
            wrong.push(format!("{name}: {why}"));
        }
        if !its_blocks.is_empty() || !its_alerts.is_empty() {
            wrong.push(format!("{name} is taken for a scan: {its_blocks:?} {its_alerts:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(blocked.is_empty() && alerts.is_empty(), "of which load? {blocked:?} {alerts:#?}");

    let mut after = |name: &str, from: &str, started: Instant, before: u64| {
        std::thread::sleep(in_transit);
        let (blocked, log) = (daemon.blocked(), daemon.log());
        let alerts = log.matches("attackalert").count() - told;
        told += alerts;
        rows.push(row(name, !blocked.is_empty(), alerts > 0));
        println!(
            "{name:22} {:.1} s, {} probes seen",
            started.elapsed().as_secs_f64(),
            probes(&daemon) - before
        );
        if !blocked.is_empty() || alerts > 0 {
            wrong.push(format!(
                "{name} from {from} is taken for a scan: {blocked:?} {:?}",
                log.lines().rfind(|line| line.contains("attackalert"))
            ));
            daemon.ctl(&["unblock", "--all"]);
        }
    };

    // Five services restart, and their clients keep trying.
    let (from, started, before) = (source(51), Instant::now(), probes(&daemon));
    drop(services.take());
    send(&scene.client, &["impatient", &from, HOST]);
    services = Some(start(&scene.host, TRAFFIC, &["serve", HOST, HOST]));
    after("service restart", &from, started, before);
    send(&scene.client, &["served", &from, HOST]);

    // The host's own connections are refused, cut off, answered late.
    let (from, started, before) = (source(52), Instant::now(), probes(&daemon));
    let late = start(&scene.client, TRAFFIC, &["late_server", &from, HOST]);
    send(&scene.host, &["outgoing", HOST, &from]);
    after("own connections", &from, started, before);
    drop(late);
    send(&scene.client, &["served", &from, HOST]);

    // A flood of a closed port from forged sources: each has touched one port.
    let (from, started, before) = (source(53), Instant::now(), probes(&daemon));
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
    let from = source(54);
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
    let _sink = start(&scene.client, TRAFFIC, &["sink", &client, HOST]);
    let _sockets = start(&scene.host, TRAFFIC, &["sockets", HOST, &client]);
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
