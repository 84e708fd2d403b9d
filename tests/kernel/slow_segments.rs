//! ACK and Maimon scans by a slowed source, before it is proven: ports that listen, local or
//! published, look as closed ones and decoys do, and connections that conntrack forgot go on.

use crate::support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::slow::{HOST, STALLED, TOOLS, scene, serve, wait_for_state};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::{Namespace, Running};
use support::scene::Scene;
use support::{eventually, missing};

/// Open ports, and as many closed ones. nmap sums up more than 25 of a state.
const PORTS: u16 = 24;

/// The states that an ACK or Maimon scan finds, by port.
fn scan(scene: &Scene, kind: &str, target: &str, ports: &[u16]) -> BTreeMap<u16, String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    // Retransmissions would prove a slowed source. A busy machine needs more time than nmap expects.
    let patience = ["--max-retries", "0", "--min-rtt-timeout", "700ms"];
    let mut words =
        [&["-n", "-Pn", kind], &patience[..], &["-oG", "-", "-p", &ports, target]].concat();
    words.extend(target.contains(':').then_some("-6"));
    let text = support::done(&scene.scanner.output("nmap", &words, Duration::from_secs(60)));
    let list = text.split("Ports: ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let states = list.split(['\t', '\n']).next().unwrap().split(", ");
    states
        .map(|state| {
            let mut words = state.split('/');
            (words.next().unwrap().parse().unwrap(), words.next().unwrap().to_owned())
        })
        .collect()
}

/// The same, of ports that listen: repeated until it finds the same twice, because a busy machine lets
/// nmap miss answers. No rule logs such segments, so these retransmissions prove nothing.
fn settled(scene: &Scene, kind: &str, target: &str, ports: &[u16]) -> BTreeMap<u16, String> {
    let mut states = scan(scene, kind, target, ports);
    for _ in 0..5 {
        let before = std::mem::replace(&mut states, scan(scene, kind, target, ports));
        if before == states {
            break;
        }
    }
    states
}

/// Ports without an answer, as an ACK scan and as a Maimon scan call them.
fn silent(states: &BTreeMap<u16, String>) -> usize {
    let is_silent = |state: &&String| ["filtered", "open|filtered"].contains(&state.as_str());
    states.values().filter(is_silent).count()
}

/// Services, and what they need.
struct Server {
    /// Ports as a client sees them, all watched.
    open: Vec<u16>,
    closed: Vec<u16>,
    _services: Vec<Running>,
    _container: Option<Namespace>,
}

impl Server {
    /// Ports of the host itself.
    fn local(scene: &Scene, target: &str) -> Self {
        let open: Vec<u16> = (1..=PORTS).map(|n| 300 + 2 * n).collect();
        let names: Vec<String> = open.iter().map(u16::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let any = if target.contains(':') { "::" } else { "0.0.0.0" };
        // Those that listen on one address, and those that listen on all.
        let (some, others) = names.split_at(names.len() / 2);
        Self {
            closed: open.iter().map(|port| port + 1).collect(),
            open,
            _services: vec![serve(&scene.host, target, some), serve(&scene.host, any, others)],
            _container: None,
        }
    }

    /// Ports that all lead to one of a container.
    fn published(scene: &Scene, target: &str) -> Self {
        let container = Namespace::new();
        let (inner, outer) = (["10.71.1.1/24", "fd71:1::1/64"], ["10.71.1.2/24", "fd71:1::2/64"]);
        scene.host.join(&container, "inner0", &inner, &outer);
        container.run("ip", &["route", "add", "default", "via", "10.71.1.1"]);
        container.run("ip", &["-6", "route", "add", "default", "via", "fd71:1::1"]);
        let forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
        scene.host.run("sysctl", &["-qw", forward[0], forward[1]]);
        let open: Vec<u16> = (1..=PORTS).map(|n| 300 + 2 * n).collect();
        let names: Vec<String> = open.iter().map(u16::to_string).collect();
        let (family, to, any) = if target.contains(':') {
            ("ip6", "[fd71:1::2]:80", "::")
        } else {
            ("ip", "10.71.1.2:80", "0.0.0.0")
        };
        let publish = format!(
            "table {family} publish {{ chain c {{ type nat hook prerouting priority dstnat; {family} daddr {target} tcp dport {{ {} }} dnat to {to}; }}; }}",
            names.join(", ")
        );
        scene.host.run("nft", &[&publish]);
        let service = serve(&container, any, &["80"]);
        Self {
            closed: open.iter().map(|port| port + 1).collect(),
            open,
            _services: vec![service],
            _container: Some(container),
        }
    }
}

/// Scans by a slowed source, before it is proven, see open ports as closed ones, and connections
/// that conntrack forgot go on.
fn open_ports_look_closed(yaml: &str, server: fn(&Scene, &str) -> Server) {
    if missing(TOOLS).is_some() {
        return;
    }
    for (target, source) in [(HOST, "10.69.1.2"), ("fd69:1::1", "fd69:77::2")] {
        let scene = scene();
        assert!(scene.scanner.pings(&[target]));
        let Server { open, closed, _services, _container } = &server(&scene, target);
        // conntrack forgets every connection that is quiet for a second.
        let forget = "for file in /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_*; do echo 1 > $file; done";
        scene.host.run("sh", &["-ec", forget]);
        let daemon = Daemon::start(&scene.host, &format!("{yaml}\n{AT_DEFAULTS}"));
        let mut connections: Vec<TcpStream> = scene.scanner.enter(|| {
            open.iter().map(|port| TcpStream::connect((target, *port)).unwrap()).collect()
        });
        // Before the trigger all ports answer.
        for kind in ["-sA", "-sM"] {
            for ports in [&open[..2], &closed[..2]] {
                let is_answered = || silent(&scan(&scene, kind, target, ports)) == 0;
                assert!(eventually(Duration::from_secs(5), is_answered), "{kind} {ports:?}");
            }
        }

        let mut words = vec!["-sS", "-p110-113", target];
        words.extend(target.contains(':').then_some("-6"));
        scene.nmap(&words);
        wait_for_state(&daemon, source, "slowed", false);
        let states = [settled(&scene, "-sA", target, open), scan(&scene, "-sA", target, closed)];
        let [open_silent, closed_silent] = [&states[0], &states[1]].map(silent);
        println!(
            "{target}: {open_silent} of {PORTS} open and {closed_silent} of {PORTS} closed ports silent"
        );
        for silent in [open_silent, closed_silent] {
            assert!((1..usize::from(PORTS)).contains(&silent), "{states:?}");
        }
        // A port answers FINs as it answers ACKs.
        assert_eq!(silent(&settled(&scene, "-sM", target, open)), open_silent);
        wait_for_state(&daemon, source, "slowed", false);

        // Those of silent ports too.
        let mut longest = 0.0_f64;
        for connection in &mut connections {
            connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let begun = Instant::now();
            connection.write_all(b"x").unwrap();
            connection.read_exact(&mut [0]).unwrap();
            longest = longest.max(begun.elapsed().as_secs_f64());
        }
        println!(
            "{target}: the longest stall of a connection that conntrack forgot {longest:.3} s"
        );
        assert!(longest < STALLED, "{longest}");
    }
}

// P2, P3
#[test]
fn an_ack_scan_by_a_slowed_source_sees_open_ports_as_closed_ones() {
    open_ports_look_closed("", Server::local);
}

// P2, P3
#[test]
fn an_ack_scan_by_a_slowed_source_sees_published_ports_as_closed_ones() {
    open_ports_look_closed("", Server::published);
}

// P2, P3
#[test]
fn an_ack_scan_by_a_slowed_source_sees_services_as_decoys() {
    open_ports_look_closed("tcp: { mode: connect, ports: 1-1000 }", Server::local);
}

// P2, P3
#[test]
fn an_ack_scan_by_a_slowed_source_sees_published_ports_as_decoys() {
    open_ports_look_closed("tcp: { mode: connect, ports: 1-1000 }", Server::published);
}
