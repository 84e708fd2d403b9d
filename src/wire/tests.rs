//! Parses packets of a small builder, and any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// An IPv4 packet around `payload`, with `options` (a multiple of 4 bytes).
fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend(((header + payload.len()) as u16).to_be_bytes());
    bytes.extend([0, 7]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

/// An IPv6 packet; `extensions` are (protocol number, whole header with its next-header byte not
/// set).
fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    extensions: &[(u8, Vec<u8>)],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, (_, header)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(protocol, |(number, _)| *number);
        body.push(next);
        body.extend(&header[1..]);
    }
    body.extend(payload);
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.push(extensions.first().map_or(protocol, |(number, _)| *number));
    bytes.push(64);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(body);
    bytes
}

fn tcp(source: u16, destination: u16, sequence: u32, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(0u32.to_be_bytes());
    bytes.extend([((20 + options.len()) / 4 * 16) as u8, flags]);
    bytes.extend(1024u16.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(options);
    bytes
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2);

/// One extension header of each kind, with different lengths.
fn all_extensions() -> Vec<(u8, Vec<u8>)> {
    let sized =
        |units: u8| -> Vec<u8> { [&[0, units][..], &vec![0; 6 + usize::from(units) * 8]].concat() };
    vec![
        (ip::HOP_BY_HOP, sized(0)),
        (ip::DESTINATION_OPTIONS, sized(1)),
        (ip::ROUTING, sized(2)),
        // First fragment: offset 0, more to come.
        (ip::FRAGMENT, vec![0, 0, 0, 1, 0, 0, 0, 9]),
        // AH of 24 bytes: 4 in units of 4 bytes, minus 2.
        (ip::AUTHENTICATION, [&[0, 4][..], &[0; 22]].concat()),
        (ip::MOBILITY, sized(0)),
        (ip::HIP, sized(4)),
        (ip::SHIM6, sized(0)),
    ]
}

#[test]
fn tcp_in_ipv4_with_options_is_parsed() {
    let bytes = ipv4(A, B, 6, &[1, 1, 1, 0], 0x4000, &tcp(40000, 23, 77, 0x29, &[2, 4, 5, 180]));
    let packet = parse(&bytes).unwrap();
    assert_eq!(
        (packet.source, packet.destination, packet.protocol, packet.ip_options),
        (IpAddr::V4(A), IpAddr::V4(B), 6, true)
    );
    let Transport::Tcp(segment) = packet.transport else { panic!("{packet:?}") };
    assert_eq!(
        (segment.source_port, segment.destination_port, segment.sequence, segment.window),
        (40000, 23, 77, 1024)
    );
    assert_eq!(segment.flags.to_string(), "fin|psh|urg");
    assert_eq!(segment.options, [2, 4, 5, 180]);
}

#[test]
fn link_padding_and_truncation_are_no_errors() {
    let mut bytes = ipv4(A, B, 17, &[], 0, &udp(53, 40000, b"answer"));
    bytes.extend([0xee; 18]);
    let Transport::Udp(datagram) = parse(&bytes).unwrap().transport else { panic!() };
    assert_eq!(datagram.payload, b"answer");
    let Transport::Udp(datagram) = parse(&bytes[..31]).unwrap().transport else { panic!() };
    assert_eq!(datagram.payload, b"ans");
}

#[test]
fn later_fragment_has_no_transport_header() {
    let bytes = ipv4(A, B, 6, &[], 0x2003, b"middle of something");
    assert_eq!(parse(&bytes).unwrap().transport, Transport::Fragment { offset: 24 });
    let bytes =
        ipv6(A6, B6, 17, &[(ip::FRAGMENT, vec![0, 0, 0x05, 0xa9, 0, 0, 0, 1])], b"\x00\x00");
    let packet = parse(&bytes).unwrap();
    assert_eq!((packet.protocol, packet.transport), (17, Transport::Fragment { offset: 0x5a8 }));
}

#[test]
fn tcp_behind_every_ipv6_extension_header_is_found() {
    let bytes = ipv6(A6, B6, 6, &all_extensions(), &tcp(1, 2, 3, 2, &[]));
    let packet = parse(&bytes).unwrap();
    assert_eq!(
        (packet.source, packet.destination, packet.protocol),
        (IpAddr::V6(A6), IpAddr::V6(B6), 6)
    );
    let Transport::Tcp(segment) = packet.transport else { panic!("{packet:?}") };
    assert_eq!(
        (segment.source_port, segment.destination_port, segment.flags),
        (1, 2, tcp::Flags::SYN)
    );
}

#[test]
fn extension_headers_are_followed_up_to_the_limit() {
    let chain = |n: usize| vec![(ip::DESTINATION_OPTIONS, vec![0; 8]); n];
    assert!(parse(&ipv6(A6, B6, 6, &chain(ip::EXTENSIONS_MAX), &tcp(1, 2, 3, 2, &[]))).is_ok());
    assert_eq!(
        parse(&ipv6(A6, B6, 6, &chain(ip::EXTENSIONS_MAX + 1), &tcp(1, 2, 3, 2, &[]))),
        Err(Error::ExtensionChain)
    );
}

#[test]
fn invalid_packets_give_their_error() {
    assert_eq!(parse(&[]), Err(Error::Empty));
    assert_eq!(parse(&[0x50; 40]), Err(Error::NotIp { version: 5 }));
    assert_eq!(parse(&[0x45; 19]), Err(Error::Truncated(Layer::Ipv4)));
    assert_eq!(parse(&[0x60; 39]), Err(Error::Truncated(Layer::Ipv6)));
    assert_eq!(parse(&ipv4(A, B, 6, &[], 0, &[0; 19])), Err(Error::Truncated(Layer::Tcp)));
    assert_eq!(parse(&ipv4(A, B, 17, &[], 0, &[0; 7])), Err(Error::Truncated(Layer::Udp)));
    assert_eq!(parse(&ipv4(A, B, 132, &[], 0, &[0; 11])), Err(Error::Truncated(Layer::Sctp)));
    assert_eq!(parse(&ipv4(A, B, 1, &[], 0, &[0; 7])), Err(Error::Truncated(Layer::Icmp)));
    let mut short = ipv4(A, B, 17, &[], 0, &udp(1, 2, b""));
    short[25] = 7;
    assert_eq!(parse(&short), Err(Error::Length(Layer::Udp)));
    short[3] = 19;
    assert_eq!(parse(&short), Err(Error::Length(Layer::Ipv4)));
    let mut flat = ipv4(A, B, 6, &[], 0, &tcp(1, 2, 3, 2, &[]));
    flat[32] = 0x40;
    assert_eq!(parse(&flat), Err(Error::Length(Layer::Tcp)));
    flat[0] = 0x44;
    assert_eq!(parse(&flat), Err(Error::Length(Layer::Ipv4)));
}

#[test]
fn grouped_packets_with_length_zero_are_parsed() {
    let mut bytes = ipv4(A, B, 6, &[], 0, &tcp(1, 2, 3, 2, &[]));
    bytes[2..4].fill(0);
    assert!(matches!(parse(&bytes).unwrap().transport, Transport::Tcp(_)));
    let mut bytes = ipv6(A6, B6, 6, &[], &tcp(1, 2, 3, 2, &[]));
    bytes[4..6].fill(0);
    assert!(matches!(parse(&bytes).unwrap().transport, Transport::Tcp(_)));
}

#[test]
fn sctp_shows_its_first_chunk() {
    let mut message = vec![0x9c, 0x40, 0x00, 0x24, 0, 0, 0, 0, 1, 2, 3, 4];
    let Transport::Sctp(bare) = parse(&ipv4(A, B, 132, &[], 0, &message)).unwrap().transport else {
        panic!()
    };
    assert_eq!((bare.destination_port, bare.chunk), (36, None));
    message.push(sctp::INIT);
    let Transport::Sctp(init) = parse(&ipv4(A, B, 132, &[], 0, &message)).unwrap().transport else {
        panic!()
    };
    assert_eq!((init.source_port, init.chunk), (40000, Some(sctp::INIT)));
}

#[test]
fn icmp_error_shows_the_quoted_packet() {
    let quote = ipv4(B, A, 6, &[], 0, &tcp(80, 40000, 1, 0x12, &[]));
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quote[..28]].concat();
    let bytes = ipv4(A, B, 1, &[], 0, &error);
    let Transport::Icmp(message) = parse(&bytes).unwrap().transport else { panic!() };
    assert_eq!((message.kind, message.code), (3, 3));
    let expected = icmp::Quoted {
        source: IpAddr::V4(B),
        destination: IpAddr::V4(A),
        protocol: 6,
        ports: Some((80, 40000)),
    };
    assert_eq!(message.quoted_v4(), Some(expected));
    let echo = ipv4(A, B, 1, &[], 0, &[8, 0, 0, 0, 0, 1, 0, 1, 0x45]);
    let Transport::Icmp(message) = parse(&echo).unwrap().transport else { panic!() };
    assert_eq!(message.quoted_v4(), None);
    let quote = ipv6(B6, A6, 17, &[], &udp(53, 40000, b""));
    let bytes = ipv6(A6, B6, 58, &[], &[&[1, 4, 0, 0, 0, 0, 0, 0][..], &quote].concat());
    let Transport::Icmp6(message) = parse(&bytes).unwrap().transport else { panic!() };
    assert_eq!(message.quoted_v6().and_then(|quoted| quoted.ports), Some((53, 40000)));
}

proptest! {
    // P8
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    /// Random bytes are rarely a packet, so this makes the headers plausible.
    // P8
    #[test]
    fn no_bytes_behind_a_plausible_header_panic(v6: bool, mut bytes in proptest::collection::vec(any::<u8>(), 1..300), protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132, 135, 139, 140])) {
        bytes[0] = if v6 { 0x60 } else { 0x45 };
        for (at, value) in if v6 { [(4, 0), (5, 0), (6, protocol)] } else { [(2, 0), (3, 0), (9, protocol)] } {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        survive(&bytes);
    }

    #[test]
    fn a_built_packet_reads_back(source: u32, destination: u32, from: u16, to: u16, sequence: u32, flags: u8, options in 0usize..11, keep in 0usize..120) {
        let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        let bytes = ipv4(source, destination, 6, &vec![1; options * 4], 0, &tcp(from, to, sequence, flags, &[]));
        let packet = parse(&bytes).unwrap();
        prop_assert_eq!((packet.source, packet.destination, packet.ip_options), (IpAddr::V4(source), IpAddr::V4(destination), options > 0));
        let Transport::Tcp(segment) = packet.transport else { panic!() };
        prop_assert_eq!((segment.source_port, segment.destination_port, segment.sequence, segment.flags.0), (from, to, sequence, flags));
        survive(&bytes[..keep.min(bytes.len())]);
    }

    // D16
    #[test]
    fn any_chain_of_extension_headers_leads_to_the_transport(picks in proptest::collection::vec(0usize..8, 0..=ip::EXTENSIONS_MAX), from: u16, to: u16) {
        let all = all_extensions();
        let chain: Vec<_> = picks.into_iter().map(|pick| all[pick].clone()).collect();
        let bytes = ipv6(A6, B6, 17, &chain, &udp(from, to, b"x"));
        let Transport::Udp(datagram) = parse(&bytes).unwrap().transport else { panic!() };
        prop_assert_eq!((datagram.source_port, datagram.destination_port, datagram.payload), (from, to, &b"x"[..]));
    }
}

/// Calls every parser and accessor.
fn survive(bytes: &[u8]) {
    match parse(bytes) {
        Ok(Packet { transport: Transport::Icmp(message) | Transport::Icmp6(message), .. }) => {
            let _ = (message.quoted_v4(), message.quoted_v6());
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
