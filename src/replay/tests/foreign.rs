//! Captures that show less than a host's own: of one direction, begun within connections, cut, or with
//! damaged packets. What they show in others' collections, in packets of our own.

use super::*;

const CLIENT: &str = "198.51.100.7";
/// Watched ports.
const PORTS: [u16; 8] = [21, 22, 25, 80, 110, 143, 443, 993];

/// Sets the checksum of an IPv4 header (RFC 791, 3.1).
fn with_header_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let words = packet[..20].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

/// A segment with data, at a sequence number.
fn speech(to: (&str, u16), sequence: u32) -> Vec<u8> {
    let mut segment = tcp_segment((50_000, to.1), ACK | 8, b"question");
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    ip(6, CLIENT, to.0, &segment)
}

fn none(row: &str, file: &[u8], config: &Config) {
    for words in [&["--local", HOST][..], &[]] {
        let found = report_with(&[file], words, config);
        assert_eq!(detected(&found), [""; 0], "{row}: {found}");
    }
}

fn every_port() -> Config {
    let mut config = Config::default();
    config.tcp.ports = config::PortSet::range(1, 65535);
    config.udp.ports = config::PortSet::range(1, 65535);
    config
}

#[test]
fn packets_with_damaged_headers_are_no_probes() {
    let mut capture = Capture::default();
    for n in 0..20 {
        capture.push(with_header_checksum(ip(1, SCANNER, HOST, &[8, 0, 0, 0, 0, 1, 0, n])));
    }
    let mut damaged = capture.clone();
    for protocol in [200, 201, 202, 203] {
        let right = with_header_checksum(ip(17, SCANNER, HOST, &[1; 12]));
        damaged.push([&right[..9], &[protocol], &right[10..]].concat());
        capture.push(with_header_checksum(ip(protocol, SCANNER, HOST, &[1; 12])));
    }
    assert_eq!(detected(&report(&capture.file())), [format!("{SCANNER} ip-protocol 3")]);
    let found = report(&damaged.file());
    assert_eq!((detected(&found).len(), &found["skipped"]["checksum"]), (0, &4.into()), "{found}");
}

#[test]
fn answers_to_a_question_that_went_to_a_group_or_to_several_are_no_probes() {
    let mut group = Capture::default();
    let mut several = Capture::default();
    for port in 150..160 {
        group.udp((HOST, port), ("224.0.0.252", 5355)).udp((CLIENT, 5355), (HOST, port));
        several.udp((HOST, port), ("203.0.113.1", 6881)).udp((HOST, port), ("203.0.113.2", 6881));
        several.udp((CLIENT, 6881), (HOST, port));
    }
    none("a group", &group.file(), &every_port());
    none("several hosts", &several.file(), &every_port());
    // A socket that asked one host has no other's datagrams.
    let mut one = Capture::default();
    for port in 150..160 {
        one.udp((HOST, port), ("203.0.113.1", 6881)).udp((CLIENT, 6881), (HOST, port));
    }
    assert_eq!(detected(&report(&one.file())), [format!("{CLIENT} udp 3")]);
}

#[test]
fn a_capture_of_what_clients_say_alone_shows_open_ports() {
    let mut requests = Capture::default();
    let mut responses = Capture::default();
    for port in PORTS {
        requests.push(speech((HOST, port), 1000));
        let answer = tcp_segment((80, 61_000 + port), ACK | 8, b"answer");
        responses.push(ip(6, CLIENT, HOST, &answer));
    }
    none("requests", &requests.file(), &Config::default());
    none("responses", &responses.file(), &every_port());
    // Cut behind the headers.
    let mut ended = requests.clone();
    ended.wait(60).tcp((CLIENT, 1), (HOST, 1), RST, b"");
    none("cut", &ended.cut(101, &[], 40), &Config::default());
    // An ACK scan says nothing.
    let mut scan = Capture::default();
    for port in 1..=20 {
        scan.tcp((SCANNER, 40_000), (HOST, port), ACK, b"");
    }
    assert_eq!(detected(&report(&scan.file())), [format!("{SCANNER} ack 6")]);
}

#[test]
fn connections_whose_answers_take_another_way_are_no_scan() {
    // The host answers others in this capture.
    let other = |capture: &mut Capture| {
        capture.session(("198.51.100.9", 50_000), (HOST, 80));
    };
    let (mut moving, mut still) = (Capture::default(), Capture::default());
    other(&mut moving);
    other(&mut still);
    for port in 1..=20 {
        for part in 0..3 {
            moving.push(speech((HOST, port), (u32::MAX - 10).wrapping_add(part * 8)));
            // Sent again, as no answer comes.
            still.push(speech((HOST, port), 1000));
        }
    }
    none("moving", &moving.file(), &Config::default());
    assert_eq!(report(&still.file())["detected"][0]["scan"], "ack");
}

#[test]
fn services_in_cut_captures_are_no_decoys() {
    let mut config = Config::default();
    config.tcp.mode = config::PortMode::Connect;
    let mut sessions = Capture::default();
    for port in config.tcp.ports.ranges().iter().map(|range| *range.start()).take(4) {
        sessions.session((SCANNER, 40_000 + port), (HOST, port));
    }
    sessions.wait(60).tcp((CLIENT, 1), (HOST, 1), RST, b"");
    none("cut", &sessions.cut(101, &[], 40), &config);
}
