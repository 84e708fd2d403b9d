//! What the kernel lists is the same, whoever sent it.

use std::net::Ipv4Addr;
use std::process::Command;

use portsentry_peers::namespace::Namespace;
use portsentry_peers::{TABLE, roads};

fn listing() -> String {
    let output =
        Command::new("nft").args(["-s", "list", "table", "inet", TABLE]).output().expect("nft");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn table_chain_set_and_element_list_the_same_by_every_road() {
    let count = roads().expect("roads").len();
    let mut listings = Vec::new();
    for index in 0..count {
        let namespace = Namespace::new();
        listings.push(namespace.enter(|| {
            // Sockets belong to the namespace they are opened in.
            let mut road = roads().expect("roads").remove(index);
            road.build().unwrap_or_else(|error| panic!("{}: {error}", road.name()));
            for address in [
                Ipv4Addr::new(192, 0, 2, 1),
                Ipv4Addr::new(192, 0, 2, 255),
                Ipv4Addr::new(255, 255, 255, 255),
            ] {
                road.add(address).unwrap_or_else(|error| panic!("{}: {error}", road.name()));
            }
            // An element with the set's own timeout is listed without one where the element did not name it. Ours bring a counter each.
            (road.name(), listing().replace(" timeout 1h", "").replace(" counter", ""))
        }));
    }
    for (name, text) in &listings {
        assert_eq!(*text, listings[0].1, "{name} against {}", listings[0].0);
        assert!(text.contains("192.0.2.255"), "{text}");
    }
}
