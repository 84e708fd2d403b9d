//! Any payload of an address, route or next-hop message. neli's decoders are under test here as
//! well.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::netlink::route::{decode_address, decode_next_hop, decode_route};

fuzz_target!(|bytes: &[u8]| {
    let _ = (decode_address(bytes), decode_next_hop(bytes));
    decode_route(bytes, &mut |_| {});
});
