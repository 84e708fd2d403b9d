//! Any datagram is taken apart: messages, answers, attributes three nests deep.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::netlink::message::{Attributes, Messages};

fn walk(attributes: Attributes<'_>, depth: usize) {
    for attribute in attributes {
        let _ = (
            attribute.u8(),
            attribute.be16(),
            attribute.be32(),
            attribute.be64(),
            attribute.ne32(),
            attribute.str(),
        );
        if depth > 0 {
            walk(attribute.nested(), depth - 1);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    for message in Messages(bytes) {
        let _ = message.answer();
        if let Some((_, _, attributes)) = message.nfgen() {
            walk(attributes, 3);
        }
    }
});
