//! What it costs the kernel to drop a packet, as the set of blocks grows.
//!
//! One thread sends SYNs into a veth pair as fast as it can, and the other end's rules drop them
//! within the same system call (PACKET_QDISC_BYPASS, no other processor takes part): the time of a
//! packet is that of making it, handing it over, and dropping it. What is not the drop is measured
//! with a device that is down. Rounds go through all rows one after the other, so that what else
//! the machine does hits all alike.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portsentry::nft::Element;
use portsentry::ruleset::SetId;

use super::installed;
use super::support::flood::{Load, Wire};
use super::support::netns::Namespace;

const PACKETS: u64 = 300_000;
const ROUNDS: usize = 9;
/// Half of a million blocks are all addresses of this network, so that a random source of it is
/// blocked.
const MEMBERS: &str = "16.0.0.0/13";
const ONE: &str = "16.0.0.1/32";
const HOST: &str = "10.99.0.1";

/// A host with its blocks, and who sends to it from where.
struct Row {
    what: &'static str,
    from: &'static str,
    /// The device is down: nothing arrives.
    is_down: bool,
    host: Namespace,
    peer: Namespace,
    times: Vec<f64>,
}

impl Row {
    fn new(what: &'static str, blocks: u32, from: &'static str, is_down: bool) -> Self {
        let (host, peer) = (Namespace::new(), Namespace::new());
        host.join(&peer, "d0", &["10.99.0.1/24"], &["10.99.0.2/24"]);
        host.enter(|| {
            let mut connection = installed();
            let first = u32::from(std::net::Ipv4Addr::new(16, 0, 0, 1));
            let timeout = Some(Duration::from_secs(86_400));
            let element = |number: u32| Element {
                timeout,
                ..Element::new(IpAddr::from(std::net::Ipv4Addr::from(first + number)))
            };
            // Addresses outside the members' network, which send nothing.
            let elements: Vec<_> = (0..blocks).map(element).collect();
            connection.add_elements(SetId::Blocked4, &elements).unwrap();
        });
        // Packets that are not blocked are dropped directly after the gate, in another table.
        let rules = "table inet other { chain behind { type filter hook prerouting priority -449; policy drop; }; }";
        host.run("nft", &[rules]);
        if is_down {
            host.run("ip", &["link", "set", "d0", "down"]);
        }
        Self { what, from, is_down, host, peer, times: Vec::new() }
    }

    /// Nanoseconds a packet.
    fn run(&mut self, series: u64) {
        let target: IpAddr = HOST.parse().unwrap();
        let sources: IpNet = self.from.parse().unwrap();
        let load = Load {
            sources,
            packets: PACKETS,
            series,
            ..Load::spoofed(target, [1], 0, Duration::from_secs(10))
        };
        let sent = Wire::between(&self.peer, &self.host, "d0").flood(&load);
        self.times.push(sent.elapsed.as_nanos() as f64 / (sent.packets + sent.refused) as f64);
    }

    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}

/// Prints the table; the last column is the drop alone beside the empty set.
pub fn drops() {
    let mut rows = [
        Row::new("a device that is down: sending alone", 0, ONE, true),
        Row::new("no block, dropped behind the gate", 0, ONE, false),
        Row::new("1 block, its source", 1, ONE, false),
        Row::new("100,000 blocks, one source of them", 100_000, ONE, false),
        Row::new("1,000,000 blocks, one source of them", 1_000_000, ONE, false),
        Row::new(
            "1,000,000 blocks, each packet from another of 524,288 sources",
            1_000_000,
            MEMBERS,
            false,
        ),
    ];
    for round in 0..ROUNDS {
        for row in &mut rows {
            row.run(round as u64);
        }
    }
    let (sending, empty) = (rows[0].median(), rows[1].median());
    println!(
        "\n{:<66} {:>10} {:>10} {:>14}",
        "a dropped packet, median of rounds", "in all, ns", "drop, ns", "to the empty set"
    );
    for row in &rows {
        let median = row.median();
        let share = if row.is_down {
            "-".to_owned()
        } else {
            format!("{:.2}", (median - sending) / (empty - sending))
        };
        println!("{:<66} {median:>10.0} {:>10.0} {share:>14}", row.what, median - sending);
    }
}
