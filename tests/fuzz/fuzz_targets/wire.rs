//! Any packet: its views lie inside of it, and what is made a probe of comes from one host and went
//! to this one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::probe::Probe;
use portsentry::wire::{self, Transport};

fn inside(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty()
        || (whole.as_ptr_range().contains(&part.as_ptr())
            && part.as_ptr_range().end <= whole.as_ptr_range().end)
}

fuzz_target!(|bytes: &[u8]| {
    let packet = match wire::parse(bytes) {
        Ok(packet) => packet,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
    match packet.transport {
        Transport::Udp(datagram) => assert!(inside(bytes, datagram.payload)),
        Transport::Icmp(message) | Transport::Icmp6(message) => {
            assert!(inside(bytes, message.body));
            let _ = (message.quoted_v4(), message.quoted_v6());
        }
        Transport::Tcp(_) | Transport::Sctp(_) | Transport::Fragment { .. } | Transport::Other => {}
    }
    match Probe::from_packet(&packet, &(32768..=60999)) {
        Ok(probe) => {
            assert_ne!(probe.source, probe.destination);
            assert!(
                !probe.source.is_multicast()
                    && !probe.source.is_loopback()
                    && !probe.source.is_unspecified()
            );
            assert!(!probe.destination.is_multicast());
            assert_eq!(probe.scan.name().parse(), Ok(probe.scan));
        }
        Err(reason) => assert!(!reason.name().is_empty()),
    }
});
