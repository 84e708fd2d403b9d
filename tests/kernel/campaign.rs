//! Campaigns: many sources of one network that probe a port or two each, and what is done about the
//! network.

use crate::support;

use std::time::Duration;

use serde_json::Value;
use support::TRAFFIC;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::{Namespace, Running};
use support::scene::{DEVICE, Scene};
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];
const HOST: &str = "10.73.1.1";
const HOST_6: &str = "fd73:1::1";
/// A client in the network of the campaign.
const NEIGHBOUR: &str = "10.73.2.250";
/// The same for IPv6, in a /56. Clients are known by their /64.
const NEIGHBOUR_6: &str = "fd73:2:0:aa00::250";

/// The protected host, and a router behind which all of the sources are.
pub(crate) fn scene() -> Scene {
    let here = ["10.73.1.1/24", "fd73:1::1/64"];
    let there = ["10.73.1.2/24", "fd73:1::2/64", "10.73.2.250/32", "fd73:2:0:aa00::250/128"];
    let scene = Scene::new(&here, &there);
    scene.host.run("ip", &["route", "add", "10.73.2.0/24", "via", "10.73.1.2"]);
    scene.host.run("ip", &["-6", "route", "add", "fd73:2::/48", "via", "fd73:1::2"]);
    scene
}

/// Starts the daemon with what is left of the configuration at its defaults.
fn start<'a>(scene: &'a Scene, yaml: &str) -> Daemon<'a> {
    Daemon::start(&scene.host, &format!("{yaml}\nlog: {{ format: json }} {AT_DEFAULTS}"))
}

/// The campaigns that were reported: network or last address, program, what was done.
pub(crate) fn events(daemon: &Daemon<'_>) -> Vec<(String, Option<String>, String)> {
    let log = daemon.log();
    let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |event: &Value, key: &str| event[key].as_str().map(str::to_owned);
    objects
        .filter(|event| event["event"] == "campaign")
        .map(|event| {
            let [address, state] = ["address", "state"].map(|key| text(&event, key).unwrap());
            (address, text(&event, "program"), state)
        })
        .collect()
}

/// SYNs from these sources, each to its ports.
pub(crate) fn send(scene: &Scene, probes: impl IntoIterator<Item = (String, Vec<u16>)>) {
    let probes: Vec<String> = probes
        .into_iter()
        .flat_map(|(source, ports)| ports.into_iter().map(move |port| format!("{source},{port}")))
        .collect();
    let mut groups = [Vec::new(), Vec::new()];
    for probe in &probes {
        groups[usize::from(probe.contains(':'))].push(probe.as_str());
    }
    for (words, host) in groups.iter().zip([HOST, HOST_6]) {
        if !words.is_empty() {
            scene.traffic("sources", DEVICE, host, words);
        }
    }
}

/// Watched and closed, and of no group of ports that one client tries together.
fn port(n: u16) -> u16 {
    200 + n % 180
}

fn four(n: u16) -> String {
    format!("10.73.2.{n}")
}

/// A row: what it is, its probes, and its network.
type Row = (&'static str, Vec<(String, Vec<u16>)>, &'static str);

fn rows() -> Vec<Row> {
    let pair = |n: u16| vec![port(2 * n), port(2 * n + 1)];
    vec![
        (
            "254 sources of a /24, a port each",
            (1..=254).map(|n| (four(n), vec![port(n)])).collect(),
            "10.73.2.0/24",
        ),
        (
            "64 sources of a /24, two ports each",
            (1..=64).map(|n| (four(n), pair(n))).collect(),
            "10.73.2.0/24",
        ),
        (
            "256 /64s of a /56, a port each",
            (0..256).map(|n| (format!("fd73:2:0:aa{n:02x}::7"), vec![port(n)])).collect(),
            "fd73:2:0:aa00::/56",
        ),
        (
            "511 /64s of a /48, two ports each",
            // Spread over its /56s.
            (0..511u16)
                .map(|n| (format!("fd73:2:0:{:x}::7", n.wrapping_mul(257)), pair(n)))
                .collect(),
            "fd73:2::/48",
        ),
    ]
}

#[test]
fn sources_that_stay_below_their_triggers_are_one_campaign() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (what, probes, network) in rows() {
        let scene = scene();
        let daemon = start(&scene, "");
        send(&scene, probes);
        let is_told = || !events(&daemon).is_empty();
        assert!(eventually(Duration::from_secs(20), is_told), "{what}: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(events(&daemon), [(network.to_owned(), None, "reported".to_owned())], "{what}");
        let list = daemon.json(&["list"]);
        let [row] = list.as_array().unwrap().as_slice() else { panic!("{what}: {list}") };
        println!("{what}: {row}");
        assert_eq!((&row["address"], &row["state"]), (&network.into(), &"reported".into()));
        assert_eq!(row["cause"], "campaign");
        assert!(row["campaign"]["sources"].as_u64() > Some(30), "{row}");
        assert!(row["campaign"]["ports"].as_u64() > Some(40), "{row}");
        let show = daemon.json(&["show", network]);
        assert_eq!(show["campaign"]["address"], network, "{show}");
    }
}

/// Starts a service that gives back what it gets.
fn serve(host: &Namespace, address: &str) -> Running {
    let mut running = host.spawn("python3", &["-u", TRAFFIC, "echo", address, address, "8000"]);
    let mut line = String::new();
    let out = running.0.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    running
}

/// How long a client waits for its connections, the longest, and how many failed.
fn client(scene: &Scene, address: &str, host: &str) -> (u32, f64) {
    let output =
        scene.scanner.run("python3", &[TRAFFIC, "clients", address, host, "8000", "1", "4"]);
    println!("{address}: {output}");
    let words: Vec<&str> = output.split_whitespace().collect();
    (words[0].parse().unwrap(), words[1].parse().unwrap())
}

/// Whether a client gets a connection, for which it waits longer than for two retransmissions.
fn connects(scene: &Scene, address: &str, host: &str) -> bool {
    let connect = format!(
        "import socket; socket.create_connection(('{host}', 8000), 4, source_address=('{address}', 0))"
    );
    scene.scanner.output("python3", &["-c", &connect], Duration::from_secs(10)).status.success()
}

/// The campaigns of the tests below: of a /24, and of a /56.
fn both() -> impl Iterator<Item = (String, Vec<u16>)> {
    let [_, (_, four, _), (_, six, _), _] = <[Row; 4]>::try_from(rows()).unwrap();
    four.into_iter().chain(six)
}

// P3
#[test]
fn the_network_is_slowed_by_choice_and_an_allowed_address_in_it_is_not() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    for other in ["10.73.2.251/32", "fd73:2:0:aa77::251/128"] {
        scene.scanner.run("ip", &["addr", "add", other, "dev", DEVICE]);
    }
    let allow = format!("allow: [{NEIGHBOUR}, \"{NEIGHBOUR_6}\"]");
    let daemon = start(&scene, &format!("campaign: {{ action: slow }}\n{allow}"));
    let _services = [serve(&scene.host, HOST), serve(&scene.host, HOST_6)];
    send(&scene, both());
    assert!(eventually(Duration::from_secs(20), || events(&daemon).len() == 2), "{}", daemon.log());
    for (host, allowed, other) in
        [(HOST, NEIGHBOUR, "10.73.2.251"), (HOST_6, NEIGHBOUR_6, "fd73:2:0:aa77::251")]
    {
        let (failed, slowest) = client(&scene, allowed, host);
        assert!(failed == 0 && slowest < 0.5, "{allowed}: {failed} failed, {slowest} s");
        let (failed, slowest) = client(&scene, other, host);
        assert!(failed == 0 && slowest > 0.7, "{other}: {failed} failed, {slowest} s");
        let test = daemon.json(&["test", other]);
        assert_eq!(test["standing"], "slowed", "{test}");
    }
    assert!(events(&daemon).iter().all(|(.., state)| state == "slowed"));
    assert!(daemon.ctl(&["unblock", "10.73.2.0/24"]).status.success());
    let (failed, slowest) = client(&scene, "10.73.2.251", HOST);
    assert!(failed == 0 && slowest < 0.5, "{failed} failed, {slowest} s");
}

// P3
#[test]
fn the_network_is_blocked_by_choice_and_allowed_and_known_addresses_in_it_are_not() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    for other in ["10.73.2.251/32", "fd73:2:0:aa77::251/128", "10.73.2.252/32"] {
        scene.scanner.run("ip", &["addr", "add", other, "dev", DEVICE]);
    }
    let allow = format!("allow: [{NEIGHBOUR}, \"{NEIGHBOUR_6}\"]");
    let daemon = start(&scene, &format!("campaign: {{ action: block }}\n{allow}"));
    let _services = [serve(&scene.host, HOST), serve(&scene.host, HOST_6)];
    // It completes more than five connections.
    assert_eq!(client(&scene, "10.73.2.252", HOST).0, 0);
    let is_known = || {
        let known = scene.host.run("nft", &["list", "set", "inet", "portsentry", "known4"]);
        known.contains("10.73.2.252")
    };
    assert!(eventually(Duration::from_secs(20), is_known));
    send(&scene, both());
    assert!(eventually(Duration::from_secs(20), || events(&daemon).len() == 2), "{}", daemon.log());
    for (host, spared) in [(HOST, NEIGHBOUR), (HOST_6, NEIGHBOUR_6), (HOST, "10.73.2.252")] {
        let (failed, slowest) = client(&scene, spared, host);
        assert!(failed == 0 && slowest < 0.5, "{spared}: {failed} failed, {slowest} s");
    }
    for (host, other) in [(HOST, "10.73.2.251"), (HOST_6, "fd73:2:0:aa77::251")] {
        assert!(!connects(&scene, other, host), "{other}");
        assert_eq!(daemon.json(&["test", other])["standing"], "unproven");
    }
    assert!(events(&daemon).iter().all(|(.., state)| state == "blocked"));
    // What is held survives a flush of the rules, and ends with the command.
    scene.host.run("nft", &["flush", "ruleset"]);
    let is_back = || {
        send(&scene, [("10.73.2.9".to_owned(), vec![port(300)])]);
        let set = ["list", "set", "inet", "portsentry", "campaigns4"];
        let output = scene.host.output("nft", &set, Duration::from_secs(5));
        String::from_utf8_lossy(&output.stdout).contains("10.73.2.0")
    };
    assert!(eventually(Duration::from_secs(30), is_back), "{}", daemon.log());
    assert!(daemon.ctl(&["unblock", "10.73.2.251"]).status.success());
    let (failed, slowest) = client(&scene, "10.73.2.251", HOST);
    assert!(failed == 0 && slowest < 0.5, "{failed} failed, {slowest} s");
}

/// A known client is one in every way: its echo requests, its SCTP and its closed ports.
// P3
#[test]
fn a_known_client_in_a_slowed_network_is_not_slowed() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let [known, other] = ["10.73.2.252", "10.73.2.251"];
    let [known_6, other_6] = ["fd73:2:0:aa78::252", "fd73:2:0:aa77::251"];
    for address in [known, other] {
        scene.scanner.run("ip", &["addr", "add", &format!("{address}/32"), "dev", DEVICE]);
    }
    for address in [known_6, other_6] {
        let words = ["addr", "add", &format!("{address}/128"), "dev", DEVICE, "nodad"];
        scene.scanner.run("ip", &words);
    }
    // Each ICMP error is sent.
    scene.host.run("sysctl", &["-qw", "net.ipv4.icmp_ratelimit=0"]);
    scene.host.run("sysctl", &["-qw", "net.ipv6.icmp.ratelimit=0"]);
    let daemon = start(&scene, "campaign: { action: slow }");
    let _services = [serve(&scene.host, HOST), serve(&scene.host, HOST_6)];
    for (host, address, set) in [(HOST, known, "known4"), (HOST_6, known_6, "known6")] {
        assert_eq!(client(&scene, address, host).0, 0);
        let is_known = || {
            scene
                .host
                .run("nft", &["list", "set", "inet", "portsentry", set])
                .contains(&address[..9])
        };
        assert!(eventually(Duration::from_secs(20), is_known), "{set}");
    }
    send(&scene, both());
    assert!(eventually(Duration::from_secs(20), || events(&daemon).len() == 2), "{}", daemon.log());
    for (host, address, is_slowed) in [
        (HOST, known, false),
        (HOST, other, true),
        (HOST_6, known_6, false),
        (HOST_6, other_6, true),
    ] {
        // Each with an id of its own: conntrack knows none of them.
        let ping = format!("ping -n -q -c 1 -W 1 -I {address} {host} &");
        let all = format!("for n in $(seq 40); do {ping} done; wait");
        let output = scene.scanner.output("sh", &["-c", &all], Duration::from_secs(20));
        let text = String::from_utf8_lossy(&output.stdout);
        let received = text.matches(" 1 received").count();
        assert_eq!(received < 40, is_slowed, "{address}: {received} of 40");

        let mut words = vec!["-n", "-Pn", "-sY", "--reason", "--max-retries", "1", "-p", "301"];
        words.extend(host.contains(':').then_some("-6"));
        words.extend(["-e", DEVICE, "-S", address, host]);
        let text = support::done(&scene.scanner.output("nmap", &words, Duration::from_secs(30)));
        assert_eq!(text.contains("no-response"), is_slowed, "{address}: {text}");

        let (failed, slowest) = client(&scene, address, host);
        assert!(failed == 0 && (slowest > 0.7) == is_slowed, "{address}: {failed}, {slowest} s");
    }
    // Its closed port is excused, as without the campaign.
    send(&scene, [(known.to_owned(), vec![302]), (known_6.to_owned(), vec![302])]);
    for (set, address) in [("excused4", known), ("excused6", "fd73:2:0:aa78::")] {
        let set = scene.host.run("nft", &["list", "set", "inet", "portsentry", set]);
        assert!(
            set.contains(&format!("{address} . 6 . 302"))
                || set.contains(&format!("{address} . tcp . 302")),
            "{set}"
        );
    }
}

#[test]
fn one_run_of_nmap_with_several_sources_is_a_campaign_of_nmap() {
    if missing(TOOLS).is_some() {
        return;
    }
    for six in [false, true] {
        let scene = scene();
        let daemon = start(&scene, "");
        let (host, decoys) = if six {
            (HOST_6, "fd73:2:0:1::1,fd73:2:1:2::1,ME,fd73:2:2:3::1")
        } else {
            (HOST, "10.73.2.1,192.0.2.7,ME,198.51.100.9")
        };
        if !six {
            for route in ["192.0.2.0/24", "198.51.100.0/24"] {
                scene.host.run("ip", &["route", "add", route, "via", "10.73.1.2"]);
            }
        }
        let mut words = vec!["-n", "-Pn", "-sS", "-T4", "--max-retries", "0", "-D", decoys];
        words.extend(six.then_some("-6"));
        words.extend(["-p", "200-220", "-e", DEVICE, host]);
        let output = scene.scanner.output("nmap", &words, Duration::from_secs(60));
        println!("{}", String::from_utf8_lossy(&output.stderr));
        let is_told = || events(&daemon).iter().any(|(_, program, _)| program.is_some());
        assert!(eventually(Duration::from_secs(20), is_told), "{}", daemon.log());
        let programs: Vec<_> = events(&daemon).into_iter().map(|(_, program, _)| program).collect();
        assert_eq!(programs, [Some("nmap".to_owned())], "{}", daemon.log());
    }
}

// P4
#[test]
fn the_clients_of_a_service_that_has_moved_are_no_campaign() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = start(&scene, "");
    let mail = [25, 110, 143, 465, 587, 993, 995, 443];
    let clients = (1..=254u16).map(|n| {
        let at = usize::from(n);
        (four(n), vec![mail[at % 8], mail[(at + 1) % 8]])
    });
    let clients = clients.chain((0..=255u16).map(|n| {
        let at = usize::from(n);
        (format!("fd73:2:0:aa{n:02x}::7"), vec![mail[at % 8], mail[(at + 1) % 8]])
    }));
    send(&scene, clients);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(events(&daemon), []);
    assert_eq!(daemon.json(&["list"]).as_array().map(Vec::len), Some(0));
}
