//! Any datagram on the NFQUEUE socket: what is handed out lies inside of it, what is counted fits
//! together, and no verdict names a packet that did not come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::capture::Verdict;
use portsentry::capture::nfqueue::Counters;
use portsentry::netlink::message::{Messages, Writer};

fuzz_target!(|bytes: &[u8]| {
    let mut counters = Counters::new(77);
    let mut verdicts = Writer::default();
    let mut ids = Vec::new();
    counters.on_datagram(bytes, &mut verdicts, &mut |waiting| {
        ids.push(waiting.id);
        assert!(
            waiting.packet.payload.is_empty()
                || bytes.as_ptr_range().contains(&waiting.packet.payload.as_ptr())
        );
        if waiting.id % 3 == 0 { Verdict::Drop } else { Verdict::Accept }
    });
    counters.settle(&mut verdicts);
    assert_eq!(counters.statistics.packets, ids.len() as u64);
    for message in Messages(verdicts.bytes()) {
        let (_, queue, attributes) = message.nfgen().expect("a whole message");
        assert!(queue == 77 || queue == 78);
        let header = attributes.get(2).expect("a verdict").value;
        let id = u32::from_be_bytes(header[4..8].try_into().expect("8 bytes"));
        assert!(ids.contains(&id));
    }
});
