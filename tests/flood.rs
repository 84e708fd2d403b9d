//! The daemon in a flood of invented sources: what it still sees, what it says of the rest, and how it is afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may stop where it fails"
)]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use support::flood::{Kind, Load, Scan, Wire};
use support::netns::Namespace;

/// The host's and the scanner's addresses.
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PEER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// A host and a peer, joined by the device `v0`.
fn pair() -> (Namespace, Namespace) {
    let (host, peer) = (Namespace::new(), Namespace::new());
    host.join(&peer, "v0", &["192.0.2.1/24", "2001:db8::1/64"], &["192.0.2.2/24", "2001:db8::2/64"]);
    (host, peer)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_generator_is_answered_as_a_scanner_is() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, peer) = pair();
    let _services = host.enter(|| {
        let listen = |address: &str, port| std::net::TcpListener::bind((address, port)).unwrap();
        [listen("0.0.0.0", 110), listen("::", 120)]
    });
    for (to, from) in HOST.into_iter().zip(PEER) {
        let answers = Wire::between(&peer, &host, "v0").scan(&Scan::new(address(from), address(to), 100..200, 1000));
        assert_eq!(answers.answered(), 100, "wrong checksums are not answered: {answers:?}");
        let open: Vec<u16> = answers.probes.iter().filter(|p| matches!(p.answer, Some((Kind::Open, _)))).map(|p| p.port).collect();
        assert_eq!(open, if to.contains(':') { vec![120] } else { vec![110, 120] });
        assert_eq!(answers.after_closed(11, |port| !open.contains(&port)), 12 - usize::from(to.contains(':')));
    }
}

#[test]
fn the_generator_sends_what_it_says() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let (host, peer) = pair();
    let rules = "table inet t { counter seen { }; chain c { type filter hook prerouting priority -500; tcp flags syn counter name seen drop; }; }";
    host.run("nft", &[rules]);
    for to in HOST {
        let sent = Wire::between(&peer, &host, "v0").flood(&Load::spoofed(address(to), [1, 2, 3], 300_000, Duration::from_secs(1)));
        let listing = host.run("nft", &["reset", "counter", "inet", "t", "seen"]);
        eprintln!("{to}: {} packets/s, {} refused, {}", sent.rate(), sent.refused, listing.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(listing.contains(&format!("packets {} ", sent.packets)), "{sent:?} {listing}");
    }
}
