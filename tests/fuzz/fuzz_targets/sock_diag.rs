//! Any payload of an answer of sock_diag's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::netlink::message::Messages;
use portsentry::netlink::sock_diag::decode;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes);
    for message in Messages(bytes) {
        let _ = decode(message.payload);
    }
});
