//! Any resolv.conf: each nameserver once, and not too many.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portsentry::sys::resolv_conf::parse;

fuzz_target!(|text: &str| {
    let servers = parse(text);
    assert!(servers.len() <= 64);
    for (at, server) in servers.iter().enumerate() {
        assert!(!servers[..at].contains(server));
    }
});
