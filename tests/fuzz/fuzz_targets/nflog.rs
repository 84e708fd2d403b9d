//! Any datagram on the NFLOG socket: what is handed out lies inside of it, and what is counted fits
//! together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::capture::nflog::Counters;

fuzz_target!(|bytes: &[u8]| {
    let mut counters = Counters::default();
    let mut packets = 0;
    counters.on_datagram(bytes, 77, &mut |together| {
        for packet in together {
            packets += 1;
            let payload = packet.payload;
            assert!(payload.is_empty() || bytes.as_ptr_range().contains(&payload.as_ptr()));
            assert!(payload.len() + packet.prefix.len() <= 2 * bytes.len());
        }
    });
    assert_eq!(counters.statistics().packets, packets);
});
