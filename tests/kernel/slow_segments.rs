//! An ACK scan by a slowed source, before it is proven: open ports look as closed ones do, and
//! connections that conntrack forgot go on.

use crate::support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::slow::{HOST, STALLED, TOOLS, scene, serve, wait_for_state};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::missing;
use support::scene::Scene;

/// Open and closed ports, all watched. nmap sums up more than 25 of a state.
const PORTS: u16 = 24;

/// The states that an ACK scan finds, by port.
fn ack_scan(scene: &Scene, target: &str, ports: &[u16]) -> BTreeMap<u16, String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    let mut words =
        vec!["-n", "-Pn", "-sA", "--max-retries", "0", "-oG", "-", "-p", &ports, target];
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

fn silent(states: &BTreeMap<u16, String>) -> usize {
    states.values().filter(|state| *state == "filtered").count()
}

// P2, P3
#[test]
fn an_ack_scan_by_a_slowed_source_sees_open_ports_as_closed_ones() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (target, any, source) in [(HOST, "0.0.0.0", "10.69.1.2"), ("fd69:1::1", "::", "fd69:77::2")]
    {
        let scene = scene();
        assert!(scene.scanner.pings(&[target]));
        // conntrack forgets every connection that is quiet for a second.
        let forget = "for file in /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_*; do echo 1 > $file; done";
        scene.host.run("sh", &["-ec", forget]);
        let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
        let open: Vec<u16> = (1..=PORTS).map(|n| 300 + 2 * n).collect();
        let closed: Vec<u16> = open.iter().map(|port| port + 1).collect();
        let names: Vec<String> = open.iter().map(u16::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // Those that listen on one address, and those that listen on all.
        let (some, others) = names.split_at(names.len() / 2);
        let _services = [serve(&scene.host, target, some), serve(&scene.host, any, others)];
        let mut connections: Vec<TcpStream> = scene.scanner.enter(|| {
            open.iter().map(|port| TcpStream::connect((target, *port)).unwrap()).collect()
        });
        // Before the trigger all ports answer.
        assert_eq!(silent(&ack_scan(&scene, target, &open[..3])), 0);
        assert_eq!(silent(&ack_scan(&scene, target, &closed[..3])), 0);

        let mut words = vec!["-sS", "-p110-113", target];
        words.extend(target.contains(':').then_some("-6"));
        scene.nmap(&words);
        wait_for_state(&daemon, source, "slowed", false);
        let states = [&open, &closed].map(|ports| ack_scan(&scene, target, ports));
        let [open_silent, closed_silent] = [&states[0], &states[1]].map(silent);
        println!(
            "{target}: {open_silent} of {PORTS} open and {closed_silent} of {PORTS} closed ports silent"
        );
        for silent in [open_silent, closed_silent] {
            assert!((1..usize::from(PORTS)).contains(&silent), "{states:?}");
        }
        // A port does not change its mind.
        assert_eq!(ack_scan(&scene, target, &open), states[0]);
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
