//! Scans of each kind, ordinary sessions, and odd captures, packet by packet.

mod counts;
mod foreign;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::*;
use crate::config::CampaignAction;

const HOST: &str = "192.0.2.1";
const SCANNER: &str = "203.0.113.9";

/// TCP flags.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A capture of raw IP packets.
#[derive(Default, Clone)]
struct Capture {
    /// Microseconds and bytes.
    packets: Vec<(i64, Vec<u8>)>,
    now: i64,
}

/// An IP header of either version in front of a payload.
fn ip(protocol: u8, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0];
            packet.extend((20 + length).to_be_bytes());
            packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            packet.extend([Ipv4Addr::octets(&from), to.octets()].concat());
            [&packet, payload].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend([Ipv6Addr::octets(&from), to.octets()].concat());
            [&packet, payload].concat()
        }
        _ => panic!("{from} and {to}"),
    }
}

/// Sets the checksum of a packet of TCP or UDP.
fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let (start, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let at = start + if protocol == 6 { 16 } else { 6 };
    for value in 0..=u16::MAX {
        packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        // The full one, not the part that is left to a device: that is the first of the two.
        if value > 0 && wire::checksum::verify(&packet).is_ok() {
            return packet;
        }
    }
    panic!("no checksum is right");
}

fn tcp_segment(ports: (u16, u16), flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, u8::from(flags & ACK > 0), 0x50, flags, 4, 0, 0, 0, 0, 0]);
    [&segment, data].concat()
}

impl Capture {
    fn push(&mut self, packet: Vec<u8>) -> &mut Self {
        self.packets.push((1_700_000_000_000_000 + self.now, packet));
        self.now += 10_000;
        self
    }

    fn wait(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds * 1_000_000;
        self
    }

    fn tcp(&mut self, from: (&str, u16), to: (&str, u16), flags: u8, data: &[u8]) -> &mut Self {
        self.push(ip(6, from.0, to.0, &tcp_segment((from.1, to.1), flags, data)))
    }

    fn udp(&mut self, from: (&str, u16), to: (&str, u16)) -> &mut Self {
        let mut datagram = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        datagram.extend([0, 12, 0, 0, 1, 2, 3, 4]);
        self.push(ip(17, from.0, to.0, &datagram))
    }

    /// A probe of a port, and a refusal.
    fn refused(&mut self, scanner: &str, port: u16, flags: u8) -> &mut Self {
        self.tcp((scanner, 40_000), (HOST, port), flags, b"");
        self.tcp((HOST, port), (scanner, 40_000), RST | ACK, b"")
    }

    /// A connection of a client to a server, with data and an end.
    fn session(&mut self, client: (&str, u16), server: (&str, u16)) -> &mut Self {
        self.tcp(client, server, SYN, b"").tcp(server, client, SYN | ACK, b"");
        self.tcp(client, server, ACK, b"").tcp(client, server, ACK | 8, b"question");
        self.tcp(server, client, ACK | 8, b"answer").tcp(client, server, ACK | FIN, b"");
        self.tcp(server, client, ACK | FIN, b"").tcp(client, server, ACK, b"")
    }

    /// As a file of raw IP, whose last packet is a minute after the others.
    fn file(&self) -> Vec<u8> {
        let mut ended = self.clone();
        ended.wait(60).push(ip(1, SCANNER, HOST, &[8, 0, 0, 0, 0, 0, 0, 0]));
        ended.cut(101, &[], usize::MAX)
    }

    /// As a file, with a link-layer header in front of each packet, each cut to a length.
    fn cut(&self, link_type: u32, header: &[u8], snaplen: usize) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
        file.extend(link_type.to_le_bytes());
        for (at, packet) in &self.packets {
            let bytes = [header, packet].concat();
            let captured = bytes.len().min(snaplen);
            for field in [at / 1_000_000, at % 1_000_000, captured as i64, bytes.len() as i64] {
                file.extend((field as u32).to_le_bytes());
            }
            file.extend(&bytes[..captured]);
        }
        file
    }
}

fn report_with(files: &[&[u8]], words: &[&str], config: &Config) -> Value {
    serde_json::from_str(&report_on(files, words, config).expect("a capture")).unwrap()
}

fn report(file: &[u8]) -> Value {
    report_with(&[file], &["--local", "192.0.2.0/24", "--local", "2001:db8::1"], &Config::default())
}

/// The detected sources as `address scan probes`.
fn detected(report: &Value) -> Vec<String> {
    let rows = report["detected"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |key: &str| row[key].as_str().unwrap();
        format!("{} {} {}", text("address"), text("scan"), row["probes_until_detected"])
    })
    .collect()
}

fn scan(flags: u8, ports: std::ops::RangeInclusive<u16>) -> Capture {
    let mut capture = Capture::default();
    for port in ports {
        capture.refused(SCANNER, port, flags);
    }
    capture
}

#[test]
fn each_kind_of_scan_is_detected_at_its_port() {
    for (flags, kind, after) in [
        (SYN, "syn", 3),
        (0, "null", 3),
        (FIN | 8 | 32, "xmas", 3),
        (SYN | FIN, "custom-flags", 3),
        (FIN, "fin", 6),
        (ACK, "ack", 6),
        (FIN | ACK, "maimon", 6),
    ] {
        let found = report(&scan(flags, 1..=20).file());
        assert_eq!(detected(&found), [format!("{SCANNER} {kind} {after}")], "{found}");
        let few = report(&scan(flags, 1..=after - 1).file());
        assert_eq!(detected(&few), [""; 0], "{few}");
    }
}

#[test]
fn scans_without_tcp_are_detected_and_what_is_only_reported_says_so() {
    let mut udp = Capture::default();
    let mut sctp = Capture::default();
    let mut protocols = Capture::default();
    for port in 1..=20u8 {
        udp.udp((SCANNER, 40_000), (HOST, 150 + u16::from(port)));
        let init = [0x9c, 0x40, 0, port, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4];
        sctp.push(ip(132, SCANNER, HOST, &init));
        protocols.push(ip(200 + port, SCANNER, HOST, &[]));
    }
    for (capture, kind, state) in [
        (udp, "udp", None),
        (sctp, "sctp-init", Some("slowed")),
        (protocols, "ip-protocol", Some("slowed")),
    ] {
        let found = report(&capture.file());
        assert_eq!(detected(&found), [format!("{SCANNER} {kind} 3")], "{found}");
        let row = &found["detected"][0];
        assert_eq!(row["slowed"].as_array().unwrap().len(), usize::from(state.is_some()), "{row}");
        assert_eq!(row["not_blocked"] == "udp.action is log", state.is_none(), "{row}");
    }
}

#[test]
fn a_slowed_source_is_listed_with_its_times() {
    let found = report(&scan(SYN, 1..=20).file());
    let row = &found["detected"][0];
    assert_eq!(row["detected"], "2023-11-14T22:13:20.040Z", "{row}");
    // The last probe is 0.34 seconds later; a minute after it, it is over.
    assert_eq!(row["slowed"][0]["from"], "2023-11-14T22:13:20.040Z", "{row}");
    assert_eq!(row["slowed"][0]["until"], "2023-11-14T22:14:20.380Z", "{row}");
    assert_eq!((&row["probes"], row["blocked"].as_array().unwrap().len()), (&20.into(), 0));
}

#[test]
fn an_unproven_block_has_a_beginning_and_an_end() {
    let mut config = Config::default();
    config.block.unproven.action = config::UnprovenAction::Block;
    let file = scan(SYN, 1..=20).file();
    let row = &report_with(&[&file], &["--local", HOST], &config)["detected"][0];
    assert_eq!(row["blocked"][0]["from"], "2023-11-14T22:13:20.040Z", "{row}");
    assert_eq!(row["proven"], false, "{row}");
    let until = row["blocked"][0]["until"].as_str().unwrap();
    assert!(until.starts_with("2023-11-14T22:14:2"), "{row}");
}

/// A scan of a host that runs the daemon: of the probes of new ports every second one is answered,
/// and what was not answered is sent again.
fn proven_scan(retransmits_all: bool) -> Capture {
    let mut capture = scan(SYN, 1..=3);
    for port in 4..=90 {
        if port % 2 == 0 {
            capture.refused(SCANNER, port, SYN);
        } else {
            capture.tcp((SCANNER, 40_000), (HOST, port), SYN, b"");
        }
    }
    capture.wait(1);
    for port in 4..=90 {
        if port % 2 == 1 || retransmits_all {
            capture.tcp((SCANNER, 40_001), (HOST, port), SYN, b"");
        }
    }
    capture
}

#[test]
fn retransmissions_to_silent_ports_prove_a_source() {
    let row = &report(&proven_scan(false).file())["detected"][0];
    assert_eq!(row["proven"], true, "{row}");
    assert_eq!(row["blocked"].as_array().unwrap().len(), 1, "{row}");
    assert!(row["dropped"].as_u64().unwrap() > 10, "{row}");
    let blind = &report(&proven_scan(true).file())["detected"][0];
    assert_eq!((&blind["proven"], blind["blocked"].as_array().unwrap().len()), (&false.into(), 0));
}

#[test]
fn where_nothing_is_answered_retransmissions_prove_nothing() {
    let mut capture = Capture::default();
    for _ in 0..3 {
        for port in 1..=90 {
            capture.tcp((SCANNER, 40_000), (HOST, port), SYN, b"");
        }
        capture.wait(1);
    }
    let row = &report(&capture.file())["detected"][0];
    assert_eq!(row["proven"], false, "{row}");
}

#[test]
fn handshakes_with_decoys_prove_a_source_and_sessions_do_not() {
    let mut config = Config::default();
    config.tcp.mode = config::PortMode::Connect;
    let mut decoys = Capture::default();
    let mut sessions = Capture::default();
    for port in config.tcp.ports.ranges().iter().map(|range| *range.start()).take(4) {
        let (scanner, host) = ((SCANNER, 40_000 + port), (HOST, port));
        decoys.tcp(scanner, host, SYN, b"").tcp(host, scanner, SYN | ACK, b"");
        decoys.tcp(scanner, host, ACK, b"").tcp(scanner, host, RST | ACK, b"");
        sessions.session(scanner, host);
    }
    let row = &report_with(&[&decoys.file()], &["--local", HOST], &config)["detected"][0];
    assert_eq!((&row["scan"], &row["proven"]), (&"connect".into(), &true.into()), "{row}");
    let none = report_with(&[&sessions.file()], &["--local", HOST], &config);
    assert_eq!(detected(&none), [""; 0], "{none}");
}

#[test]
fn scans_over_ipv6_are_detected() {
    let mut capture = Capture::default();
    for port in 1..=5 {
        capture.tcp(("2001:db8:7::9", 40_000), ("2001:db8::1", port), SYN, b"");
    }
    assert_eq!(detected(&report(&capture.file())), ["2001:db8:7::9 syn 3"]);
}

#[test]
fn ordinary_traffic_is_no_scan() {
    let client = "198.51.100.7";
    let mut many = Capture::default();
    for port in [21, 22, 25, 80, 110, 143, 443, 993] {
        many.session((client, 50_000 + port), (HOST, port));
    }
    let mut own = Capture::default();
    for port in 1..=20 {
        own.session((HOST, 700 + port), (client, port));
        own.udp((HOST, 700 + port), (client, port)).udp((client, port), (HOST, 700 + port));
    }
    // From the middle: neither beginning nor end.
    let mut middle = Capture::default();
    for port in 1..=20 {
        for _ in 0..3 {
            middle.tcp((HOST, port), (client, 50_000), ACK | 8, b"data");
            middle.tcp((client, 50_000), (HOST, port), ACK, b"");
        }
    }
    let mut one_way = Capture::default();
    for port in [21, 22, 25, 80, 110, 143, 443, 993] {
        let (client, host) = ((client, 50_000 + port), (HOST, port));
        one_way.tcp(client, host, SYN, b"").tcp(client, host, ACK, b"");
        one_way.tcp(client, host, ACK | 8, b"question").tcp(client, host, ACK | FIN, b"");
    }
    let mut retries = Capture::default();
    for _ in 0..50 {
        retries.refused(client, 79, SYN).wait(1);
    }
    let mut backscatter = Capture::default();
    let mut groups = Capture::default();
    for port in 1..=50 {
        backscatter.tcp((client, 80), (HOST, port), SYN | ACK, b"");
        backscatter.tcp((client, 80), (HOST, port), RST | ACK, b"");
        groups.udp((client, 5353), ("224.0.0.251", port)).udp((client, 68), ("192.0.2.255", port));
        groups.udp((client, 68), ("255.255.255.255", port));
    }
    let mut slow_service = Capture::default();
    for port in [22, 80, 443] {
        slow_service.tcp((client, 50_000), (HOST, port), SYN, b"");
        slow_service.wait(20).tcp((HOST, port), (client, 50_000), SYN | ACK, b"");
    }
    let rows = [
        ("eight services", many),
        ("own connections from reserved ports", own),
        ("from the middle", middle),
        ("one direction", one_way),
        ("retries of one port", retries),
        ("backscatter", backscatter),
        ("multicast and broadcast", groups),
        ("late answers", slow_service),
    ];
    for (row, capture) in rows {
        let found = report(&capture.file());
        assert_eq!(detected(&found), [""; 0], "{row}: {found}");
        // Also with its own guess of whose capture it is.
        let guessed = report_with(&[&capture.file()], &[], &Config::default());
        assert_eq!(detected(&guessed), [""; 0], "{row}: {guessed}");
    }
}

#[test]
fn own_addresses_from_the_wire_are_no_scanners() {
    let mut spoofed = Capture::default();
    for port in 1..=20 {
        spoofed.tcp(("192.0.2.7", 40_000), (HOST, port), SYN, b"");
    }
    assert_eq!(detected(&report(&spoofed.file())), [""; 0]);
}

#[test]
fn a_port_is_closed_only_if_the_capture_had_time_for_an_answer() {
    let mut capture = Capture::default();
    for port in 1..=9 {
        capture.tcp((SCANNER, 40_000), (HOST, port), SYN, b"");
    }
    let file = capture.cut(101, &[], usize::MAX);
    let found = report(&file);
    assert_eq!((detected(&found).len(), &found["skipped"]["no_time_to_answer"]), (0, &9.into()));
    let soon = ["--local", HOST, "--answer-within", "10ms"];
    let found = report_with(&[&file], &soon, &Config::default());
    assert_eq!(detected(&found), [format!("{SCANNER} syn 3")]);
    // A refusal needs no time.
    let refused = scan(SYN, 1..=9).cut(101, &[], usize::MAX);
    assert_eq!(detected(&report(&refused)), [format!("{SCANNER} syn 3")]);
}

#[test]
fn the_scanned_host_is_guessed_and_said() {
    let mut capture = scan(SYN, 1..=20);
    for n in 0..200 {
        capture.session(("198.51.100.7", 50_000 + n), ("198.51.100.8", 443));
    }
    let found = report_with(&[&capture.file()], &[], &Config::default());
    assert_eq!(found["local"], serde_json::json!([HOST]));
    assert_eq!(found["local_guessed"], true);
    assert_eq!(detected(&found), [format!("{SCANNER} syn 3")]);
    // Linux's cooked header says which host captured.
    let sent = [0, 4, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
    let mut own = Capture::default();
    own.tcp(("198.51.100.7", 50_000), ("198.51.100.8", 443), SYN, b"");
    let found = report_with(&[&own.cut(113, &sent, usize::MAX)], &[], &Config::default());
    assert_eq!(found["local"], serde_json::json!(["198.51.100.7"]));
}

#[test]
fn the_same_scan_is_found_behind_each_link_layer() {
    let capture = scan(SYN, 1..=20);
    let rows: [(&str, u32, &[u8]); 10] = [
        ("Ethernet", 1, &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]),
        ("VLAN", 1, &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 5, 8, 0]),
        ("QinQ", 1, &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0]),
        ("raw IP", 101, &[]),
        ("cooked", 113, &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0]),
        ("cooked v2", 276, &[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]),
        ("NULL", 0, &[2, 0, 0, 0]),
        ("LOOP", 108, &[0, 0, 0, 2]),
        ("PPP", 9, &[0xff, 3, 0, 0x21]),
        ("NFLOG", 239, &[2, 0, 0, 5, 44, 0, 9, 0]),
    ];
    for (row, link_type, header) in rows {
        // Cut to the first bytes of each packet, as by `tcpdump -s 80`.
        let found = report(&capture.cut(link_type, header, 80));
        assert_eq!(detected(&found), [format!("{SCANNER} syn 3")], "{row}");
    }
    let unknown = report(&capture.cut(147, &[], usize::MAX));
    assert_eq!((detected(&unknown).len(), &unknown["packets"]["not_ip"]), (0, &40.into()));
    assert_eq!(unknown["files"][0]["link_types"][0]["name"], Value::Null);
    let group = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 0];
    assert_eq!(detected(&report(&capture.cut(1, &group, usize::MAX))), [""; 0]);
}

#[test]
fn packets_of_wrong_checksums_are_no_probes_unless_most_are_wrong() {
    let mut capture = Capture::default();
    for port in 1..=9 {
        let right =
            with_checksum(ip(6, "198.51.100.7", HOST, &tcp_segment((50_000, 80), SYN, b"")));
        capture.push(right).tcp((HOST, 80), ("198.51.100.7", 50_000), SYN | ACK, b"");
        let mut wrong = with_checksum(ip(6, SCANNER, HOST, &tcp_segment((40_000, port), SYN, b"")));
        wrong[36] ^= 0x55;
        capture.push(wrong);
    }
    let found = report(&capture.file());
    assert_eq!((detected(&found).len(), &found["skipped"]["checksum"]), (0, &9.into()), "{found}");
    let anonymised = report(&scan(SYN, 1..=9).file());
    assert_eq!((&anonymised["checksums"], detected(&anonymised).len()), (&false.into(), 1));
}

#[test]
fn fragmented_probes_are_reassembled() {
    let mut capture = Capture::default();
    for port in 1..=9u16 {
        let segment = tcp_segment((40_000, port), SYN, b"");
        for (at, part) in segment.chunks(8).enumerate() {
            let mut fragment = ip(6, SCANNER, HOST, part);
            fragment[4..6].copy_from_slice(&port.to_be_bytes());
            fragment[6..8].copy_from_slice(&[if at < 2 { 0x20 } else { 0 }, at as u8]);
            capture.push(fragment);
        }
    }
    assert_eq!(detected(&report(&capture.file())), [format!("{SCANNER} syn 3")]);
}

#[test]
fn times_that_go_back_or_leap_lose_no_scan_and_make_none() {
    let times = |step: fn(i64) -> i64| {
        let mut capture = scan(SYN, 1..=9);
        for (n, (at, _)) in capture.packets.iter_mut().enumerate() {
            *at = step(n as i64);
        }
        report(&capture.cut(101, &[], usize::MAX))
    };
    let back = times(|n| 1_000 * 1_000_000 - n * 1_000_000);
    assert_eq!((detected(&back).len(), &back["time_back"]), (1, &17.into()));
    // Each packet in another month: too far apart for a scan.
    let leaps = times(|n| (n % 3) * 0xffff_ffff * 1_000_000 / 3);
    assert_eq!(detected(&leaps), [""; 0], "{leaps}");
    // Longer in all than an engine's clock runs: evidence is over nevertheless, and so is the replay.
    let mut capture = Capture::default();
    for n in 0..260 {
        capture.tcp((SCANNER, 40_000), (HOST, 1 + n % 3), SYN, b"").wait(86_400 * 40);
    }
    let long = report(&capture.cut(101, &[], usize::MAX));
    assert_eq!((detected(&long).len(), &long["time_leaps"]), (0, &259.into()), "{long}");
}

#[test]
fn files_are_replayed_in_the_order_of_their_times_and_alike_each_time() {
    let mut capture = scan(SYN, 1..=4);
    let late = Capture { packets: capture.packets.split_off(4), now: 0 };
    let (early, late) = (capture.cut(101, &[], usize::MAX), late.cut(101, &[], usize::MAX));
    let words = ["--local", HOST];
    let one = report_with(&[&early, &late], &words, &Config::default());
    assert_eq!(one, report_with(&[&late, &early], &words, &Config::default()));
    assert_eq!(detected(&one), [format!("{SCANNER} syn 3")]);
    let long = proven_scan(false).file();
    let reports: Vec<_> = (0..3).map(|_| report(&long)).collect();
    assert!(reports.iter().all(|other| *other == reports[0]));
}

#[test]
fn allowed_and_silent_sources_are_treated_as_by_the_rules() {
    let mut config = Config::default();
    let scanner: ipnet::IpNet = "203.0.113.9/32".parse().unwrap();
    config.allow.push(scanner.into());
    let file = scan(SYN, 1..=9).file();
    let row = &report_with(&[&file], &["--local", HOST], &config)["detected"][0];
    assert_eq!(row["not_blocked"], "never-block address", "{row}");
    config.allow.last_mut().unwrap().silent = true;
    assert_eq!(detected(&report_with(&[&file], &["--local", HOST], &config)), [""; 0]);
}

#[test]
fn a_flood_of_scanners_has_a_bounded_list() {
    let mut capture = Capture::default();
    for n in 0..3000u32 {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        for port in 1..=3 {
            capture.tcp((&source, 40_000), (HOST, port), SYN, b"");
        }
    }
    let found = report(&capture.file());
    let listed = found["detected"].as_array().unwrap().len() as u64;
    assert!(
        listed > 0 && listed + found["reports_held_back"].as_u64().unwrap() >= 3000,
        "{listed}"
    );
}

#[test]
fn a_header_beyond_its_packet_is_no_probe_whatever_the_checksums_say() {
    let mut capture = Capture::default();
    for port in 1..=9 {
        let mut segment = tcp_segment((40_000, port), SYN, b"");
        segment[12] = 0x60;
        capture.push(ip(6, SCANNER, HOST, &segment));
    }
    let found = report(&capture.file());
    assert_eq!((detected(&found).len(), &found["skipped"]["checksum"]), (0, &9.into()), "{found}");
}
