//! Any bytes as a packet: whatever is handed out lies inside of them, and what a probe says is what the packet says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::probe::Probe;
use portsentry::wire::{self, Transport};

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = wire::parse(bytes) else { return };
    let inside = |part: &[u8]| part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr()) && part.len() <= bytes.len();
    match packet.transport {
        Transport::Tcp(segment) => assert!(inside(segment.options) && segment.options.len() <= 40),
        Transport::Udp(datagram) => assert!(inside(datagram.payload)),
        Transport::Icmp(message) | Transport::Icmp6(message) => {
            assert!(inside(message.body));
            let _ = (message.quoted_v4(), message.quoted_v6());
        }
        Transport::Sctp(_) | Transport::Fragment { .. } | Transport::Other => {}
    }
    if let Ok(probe) = Probe::from_packet(&packet, &(32768..=60999)) {
        assert_eq!((probe.source, probe.destination, probe.ip_options), (packet.source, packet.destination, packet.ip_options));
        assert!(!probe.source.is_loopback() && !probe.source.is_multicast() && !probe.source.is_unspecified());
        assert!(probe.source != probe.destination);
    }
});
