use std::net::Ipv4Addr;

use super::*;
use crate::wire::{tcp::Segment, udp::Datagram};
use proptest::prelude::*;

const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;
const SCANNER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn classify(protocol: u8, transport: wire::Transport<'_>) -> Result<Probe, NotProbe> {
    Probe::from_packet(
        &wire::Packet {
            source: SCANNER,
            destination: HOST,
            protocol,
            transport,
            ip_options: false,
            id: 0,
            hops_left: 64,
        },
        &EPHEMERAL,
    )
}

fn segment(destination_port: u16, flags: u8) -> Result<Probe, NotProbe> {
    segment_from(40000, destination_port, flags)
}

fn segment_from(source_port: u16, destination_port: u16, flags: u8) -> Result<Probe, NotProbe> {
    let segment = Segment {
        source_port,
        destination_port,
        sequence: 1,
        acknowledgement: 0,
        flags: Flags(flags),
        window: 1024,
        options: &[],
    };
    classify(6, wire::Transport::Tcp(segment))
}

fn datagram(source_port: u16, destination_port: u16) -> Result<Probe, NotProbe> {
    classify(17, wire::Transport::Udp(Datagram { source_port, destination_port, payload: &[] }))
}

fn from(source: &str, destination: &str) -> Result<Probe, NotProbe> {
    let segment = Segment {
        source_port: 1,
        destination_port: 2,
        sequence: 3,
        acknowledgement: 0,
        flags: Flags::SYN,
        window: 1,
        options: &[],
    };
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Probe::from_packet(
        &wire::Packet {
            source,
            destination,
            protocol: 6,
            transport: wire::Transport::Tcp(segment),
            ip_options: false,
            id: 0,
            hops_left: 64,
        },
        &EPHEMERAL,
    )
}

#[test]
fn nmap_tcp_scans_have_their_names() {
    for (flags, kind, ambiguous) in [
        (0x02, ScanKind::Syn, false),
        (0xc2, ScanKind::Syn, false),
        (0x01, ScanKind::Fin, true),
        (0x00, ScanKind::Null, false),
        (0x29, ScanKind::Xmas, false),
        (0x11, ScanKind::Maimon, true),
        (0x19, ScanKind::Maimon, true),
        (0x10, ScanKind::Ack, true),
        (0x18, ScanKind::Ack, true),
        (0x03, ScanKind::CustomFlags, false),
        (0x13, ScanKind::CustomFlags, false),
        (0x0a, ScanKind::CustomFlags, false),
        (0x40, ScanKind::CustomFlags, false),
    ] {
        let probe = segment(80, flags).unwrap();
        assert_eq!((probe.scan, probe.ambiguous), (kind, ambiguous), "{flags:#x}");
        assert_eq!(probe.port.to_string(), "tcp/80");
    }
}

#[test]
fn only_a_syn_to_an_ephemeral_port_is_a_probe() {
    for flags in [0x10, 0x18, 0x11, 0x01] {
        assert_eq!(segment(40000, flags), Err(NotProbe::LateSegment));
    }
    assert_eq!(segment(40000, 0x02).unwrap().scan, ScanKind::Syn);
}

// P4
#[test]
fn late_answers_of_services_are_no_probe() {
    for service in [53, 123, 1900, 3478, 5353, 11211] {
        assert_eq!(datagram(service, 40000), Err(NotProbe::LateAnswer));
        assert_eq!(datagram(service, 2000), Err(NotProbe::LateAnswer));
    }
    assert!(datagram(53, 700).unwrap().ambiguous);
    assert!(datagram(111, 700).unwrap().ambiguous);
    assert!(datagram(4500, 40000).unwrap().ambiguous);
    assert!(!datagram(40000, 161).unwrap().ambiguous);
}

// P4
#[test]
fn what_services_send_late_is_a_reply() {
    let segment = |source_port, destination_port, flags| {
        segment_from(source_port, destination_port, flags).unwrap().scan
    };
    for flags in [0x01, 0x10, 0x11, 0x18] {
        assert_eq!(segment(2049, 80, flags), ScanKind::Reply);
        assert_eq!(segment(443, 80, flags), ScanKind::Reply);
        assert_eq!(segment(40000, 703, flags), ScanKind::Reply);
        assert_ne!(segment(40000, 80, flags), ScanKind::Reply);
    }
    // No service opens a connection so, nor sends such flags.
    for flags in [0x02, 0x00, 0x29] {
        assert_ne!(segment(2049, 703, flags), ScanKind::Reply);
    }
    for (source, destination) in [(53, 80), (1900, 80), (11211, 80), (4500, 40000), (4500, 700)] {
        assert_eq!(datagram(source, destination).unwrap().scan, ScanKind::Reply);
    }
    assert_eq!(datagram(4500, 161).unwrap().scan, ScanKind::Udp);
}

// P4
#[test]
fn traceroute_is_no_probe() {
    for port in [33000, 33433, 33434, 33500, 33534, 44444, 44507] {
        assert_eq!(datagram(50000, port), Err(NotProbe::Traceroute));
    }
    assert!(datagram(50000, 33535).is_ok());
    assert!(datagram(50000, 44508).is_ok());
}

// P4
#[test]
fn only_what_no_server_sends_late_counts_in_large_numbers() {
    let late = |reason, hops_left, transport| {
        let packet = wire::Packet {
            source: SCANNER,
            destination: HOST,
            protocol: 17,
            transport,
            ip_options: false,
            id: 0,
            hops_left,
        };
        Probe::late(&packet, reason).map(|probe| (probe.scan, probe.ambiguous))
    };
    let answer = |source_port, payload| {
        let datagram = Datagram { source_port, destination_port: 40000, payload };
        late(NotProbe::LateAnswer, 64, wire::Transport::Udp(datagram))
    };
    let udp = Some((ScanKind::Udp, true));
    assert_eq!((answer(53, &[]), answer(123, &[])), (udp, udp));
    assert_eq!((answer(53, &[0; 11]), answer(123, &[0; 48])), (None, None));
    assert_eq!((answer(53, &[0; 12]), answer(53, &[0x80; 12])), (udp, None));
    let (mut call, mut reply) = ([0; 40], [0; 24]);
    (call[11], reply[7]) = (2, 1);
    assert_eq!((answer(123, &call), answer(111, &reply)), (udp, None));
    let trace = |hops_left| {
        let datagram = Datagram { source_port: 1, destination_port: 33434, payload: &[] };
        late(NotProbe::Traceroute, hops_left, wire::Transport::Udp(datagram))
    };
    assert_eq!((trace(30), trace(31)), (None, udp));
    let fin = |source_port| {
        let segment = Segment {
            source_port,
            destination_port: 40000,
            sequence: 1,
            acknowledgement: 0,
            flags: Flags::FIN,
            window: 1024,
            options: &[],
        };
        late(NotProbe::LateSegment, 64, wire::Transport::Tcp(segment))
    };
    assert_eq!((fin(443), fin(5432), fin(50000)), (None, None, Some((ScanKind::Fin, true))));
}

#[test]
fn sctp_probes_are_init_and_cookie_echo_only() {
    let chunk = |chunk| {
        classify(
            132,
            wire::Transport::Sctp(sctp::Message {
                source_port: 1,
                destination_port: 36,
                verification_tag: 0,
                chunk,
            }),
        )
    };
    assert_eq!(chunk(Some(1)).unwrap().scan, ScanKind::SctpInit);
    assert_eq!(chunk(Some(10)).unwrap().scan, ScanKind::SctpCookieEcho);
    for other in [None, Some(0), Some(2), Some(6)] {
        assert_eq!(chunk(other), Err(NotProbe::SctpChunk));
    }
}

#[test]
fn unknown_ip_protocol_is_a_probe_but_a_tunnel_is_not() {
    let probe = classify(99, wire::Transport::Other).unwrap();
    assert_eq!((probe.scan, probe.port.to_string().as_str()), (ScanKind::IpProtocol, "ip/99"));
    for protocol in [2, 4, 41, 47, 50, 51, 89, 112] {
        assert_eq!(classify(protocol, wire::Transport::Other), Err(NotProbe::Infrastructure));
    }
    assert_eq!(classify(6, wire::Transport::Fragment { offset: 8 }), Err(NotProbe::Fragment));
    assert_eq!(
        classify(1, wire::Transport::Icmp(icmp::Message { kind: 3, code: 3, body: &[] })),
        Err(NotProbe::Icmp)
    );
}

#[test]
fn source_address_of_no_single_host_is_no_probe() {
    for source in
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "192.0.2.1"]
    {
        assert_eq!(from(source, "192.0.2.1"), Err(NotProbe::Source), "{source}");
    }
    for source in ["::", "::1", "ff02::1", "::ffff:203.0.113.9", "2001:db8::1"] {
        assert_eq!(from(source, "2001:db8::1"), Err(NotProbe::Source), "{source}");
    }
    for (source, destination) in [
        ("203.0.113.9", "224.0.0.251"),
        ("203.0.113.9", "255.255.255.255"),
        ("2001:db8::9", "ff02::fb"),
    ] {
        assert_eq!(from(source, destination), Err(NotProbe::Destination), "{destination}");
    }
    for source in ["203.0.113.9", "0.1.2.3", "240.0.0.1", "255.255.255.254"] {
        assert!(from(source, "192.0.2.1").is_ok(), "{source}");
    }
    assert!(from("fe80::1", "2001:db8::1").is_ok());
}

proptest! {
    // P4
    #[test]
    fn reset_or_syn_ack_is_never_a_probe(flags: u8, port: u16) {
        let flags = Flags(flags);
        if flags.contains(Flags::RST) || flags.without(Flags::ECE.with(Flags::CWR)) == Flags::SYN.with(Flags::ACK) {
            prop_assert_eq!(segment(port, flags.0), Err(NotProbe::Backscatter));
        }
    }

    // P4
    #[test]
    fn segments_of_closed_connections_are_ambiguous_or_no_probe(bits in 0u8..=0xff, port: u16) {
        // A connection past its handshake sets ACK on every segment.
        let flags = Flags((bits & !(Flags::SYN.0 | Flags::RST.0)) | Flags::ACK.0);
        prop_assert!(segment(port, flags.0).map_or(true, |probe| probe.ambiguous));
    }
}

#[test]
fn a_syn_shows_the_program_that_sent_it() {
    let sent = |to: &str, sequence: u32, window: u16, id: u16, flags: Flags| {
        let segment = Segment {
            source_port: 40000,
            destination_port: 23,
            sequence,
            acknowledgement: 0,
            flags,
            window,
            options: &[],
        };
        let to: IpAddr = to.parse().unwrap();
        let packet = wire::Packet {
            source: if to.is_ipv4() { SCANNER } else { "2001:db8::9".parse().unwrap() },
            destination: to,
            protocol: 6,
            transport: wire::Transport::Tcp(segment),
            ip_options: false,
            hops_left: 64,
            id,
        };
        Probe::from_packet(&packet, &EPHEMERAL).unwrap().signature
    };
    // 192.0.2.1 as a number, and what masscan makes of it.
    let (host, id) = (0xc000_0201_u32, (0x0201 ^ 23 ^ 0x4321) as u16);
    for (what, signature, wanted) in [
        ("mirai", sent("192.0.2.1", host, 5840, 7, Flags::SYN), Signature::Mirai),
        ("masscan", sent("192.0.2.1", 0x8765_4321, 1024, id, Flags::SYN), Signature::Masscan),
        ("nmap", sent("192.0.2.1", 9, 1024, 7, Flags::SYN), Signature::Sequence(9)),
        ("nmap, IPv6", sent("2001:db8::1", 9, 1024, 0, Flags::SYN), Signature::Sequence(9)),
        ("Linux", sent("192.0.2.1", 0x8765_4321, 64240, id, Flags::SYN), Signature::None),
        ("no SYN", sent("192.0.2.1", host, 1024, id, Flags::FIN), Signature::None),
    ] {
        assert_eq!(signature, wanted, "{what}");
    }
}
