//! Adding and deleting elements, over the kernel.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portsentry::nft::{Connection, Element, Key};
use portsentry::ruleset::{SCHEMA, SetId};

use super::{address, default_ruleset, installed};
use crate::support::netns::Namespace;

#[test]
fn elements_are_added_read_renewed_and_deleted() {
    need!();
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        for (set, host) in [
            (SetId::Blocked4, "192.0.2.1"),
            (SetId::Blocked4, "255.255.255.255"),
            (SetId::Blocked6, "2001:db8::"),
        ] {
            let element =
                Element::new(address(host)).timeout(Some(Duration::from_secs(60))).comment("why");
            connection.add_element(set, &element).unwrap();
            let info = connection.get_element(set, element.key).unwrap().unwrap();
            assert_eq!(
                (info.key, info.end, info.timeout, info.comment.as_deref()),
                (element.key, None, Some(Duration::from_secs(60)), Some("why"))
            );
            assert!(info.expires.unwrap() > Duration::from_secs(55));
            // Longer, shorter, permanent: on each kernel.
            for timeout in
                [Some(Duration::from_secs(7200)), Some(Duration::from_millis(30_500)), None]
            {
                assert!(
                    connection
                        .renew_element(set, &element.timeout(timeout).comment("again"))
                        .unwrap()
                );
                let info = connection.get_element(set, element.key).unwrap().unwrap();
                assert_eq!((info.timeout, info.comment.as_deref()), (timeout, Some("again")));
            }
            assert_eq!(connection.dump_set(set).unwrap().len(), 1);
            connection.delete_element(set, &element).unwrap();
            assert_eq!(connection.get_element(set, element.key).unwrap(), None);
            assert!(!connection.renew_element(set, &element).unwrap());
            assert!(connection.get_element(set, element.key).unwrap().is_some());
            connection.delete_element(set, &element).unwrap();
        }
    });
}

#[test]
fn networks_are_added_found_by_their_members_renewed_and_deleted() {
    need!();
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        for (set, network, member, stranger) in [
            (SetId::BlockedNets4, "198.51.100.0/24", "198.51.100.255", "198.51.101.0"),
            (SetId::BlockedNets4, "255.255.0.0/16", "255.255.255.255", "255.254.255.255"),
            (SetId::BlockedNets4, "0.0.0.0/8", "0.0.0.0", "1.0.0.0"),
            (SetId::BlockedNets6, "2001:db8::/32", "2001:db8::1", "2001:db9::"),
            (SetId::BlockedNets6, "ff00::/8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::1"),
        ] {
            let element = Element::network(network.parse().unwrap())
                .timeout(Some(Duration::from_secs(60)))
                .comment("by hand");
            connection
                .add_element(set, &element)
                .unwrap_or_else(|error| panic!("{network}: {error}"));
            let info = connection
                .get_element(set, Key::from(address(member)))
                .unwrap()
                .unwrap_or_else(|| panic!("{network}"));
            assert_eq!(
                (info.key, info.end, info.comment.as_deref()),
                (element.key, element.end, Some("by hand")),
                "{network}"
            );
            assert_eq!(connection.get_element(set, Key::from(address(stranger))).unwrap(), None);
            assert!(
                connection
                    .renew_element(set, &element.timeout(Some(Duration::from_secs(600))))
                    .unwrap()
            );
            assert_eq!(
                connection.get_element(set, element.key).unwrap().unwrap().timeout,
                Some(Duration::from_secs(600))
            );
            connection.delete_element(set, &element).unwrap();
            assert_eq!(connection.dump_set(set).unwrap(), [], "{network}");
            assert!(connection.delete_element(set, &element).unwrap_err().is_not_found());
        }
    });
}

#[test]
fn renewing_keeps_the_count() {
    need!("ping");
    let (namespace, peer) = (Namespace::new(), Namespace::new());
    namespace.join(&peer, "veth0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let element = Element::new(address("192.0.2.2")).timeout(Some(Duration::from_secs(60)));
    let packets = |connection: &mut Connection| {
        connection.get_element(SetId::BlockedPackets4, element.key).unwrap().unwrap().packets
    };
    let before = namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.install(&default_ruleset()).unwrap();
        connection.add_element(SetId::Blocked4, &element).unwrap();
        let _ = peer.output(
            "ping",
            &["-c", "3", "-i", "0.2", "-W", "1", "192.0.2.1"],
            Duration::from_secs(10),
        );
        let before = packets(&mut connection);
        assert!(before >= 3);
        assert!(connection.renew_element(SetId::Blocked4, &element).unwrap());
        assert!(packets(&mut connection) >= before);
        before
    });
    let _ = peer.output(
        "ping",
        &["-c", "2", "-i", "0.2", "-W", "1", "192.0.2.1"],
        Duration::from_secs(10),
    );
    assert!(
        namespace.enter(|| packets(&mut Connection::open(SCHEMA).unwrap())) >= before + 2,
        "it counts on"
    );
}

#[test]
fn renewing_brings_no_counter_into_a_set_that_does_not_count() {
    need!("nft");
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let element = Element::new(address("192.0.2.2")).timeout(Some(Duration::from_secs(60)));
        connection.add_element(SetId::Held4, &element).unwrap();
        assert!(connection.renew_element(SetId::Held4, &element).unwrap());
    });
    // With one, nft(8) would not load what it lists.
    let set = namespace.run("nft", &["list", "set", "inet", "portsentry", "held4"]);
    assert!(set.contains("192.0.2.2") && !set.contains("counter"), "{set}");
}

// D13
#[test]
fn ten_thousand_elements_go_in_and_out() {
    need!();
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let element = |number: u32| {
            Element::new(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
                .timeout(Some(Duration::from_secs(600)))
        };
        let comment = "scan syn unproven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3";
        let elements: Vec<_> = (0..10_000).map(|number| element(number).comment(comment)).collect();
        let start = Instant::now();
        connection.add_elements(SetId::Blocked4, &elements).unwrap();
        let added = start.elapsed();
        let dumped = connection.dump_set(SetId::Blocked4).unwrap();
        eprintln!("10,000 elements: added in {added:?}, dumped in {:?}", start.elapsed() - added);
        assert_eq!(dumped.len(), 10_000);
        assert!(dumped.iter().all(|info| info.comment.as_deref() == Some(comment)
            && info.timeout == Some(Duration::from_secs(600))));
        // Some are missing, in every chunk, the last among them.
        for number in (0..10_000).step_by(37).chain([9_999]) {
            connection.delete_element(SetId::Blocked4, &element(number)).unwrap();
        }
        let left = connection.dump_set(SetId::Blocked4).unwrap().len();
        assert_eq!(connection.dump_keys(SetId::Blocked4).unwrap().len(), left);
        assert_eq!(connection.delete_elements(SetId::Blocked4, &elements).unwrap(), left);
        assert_eq!(connection.dump_set(SetId::Blocked4).unwrap(), []);
        assert_eq!(connection.delete_elements(SetId::Blocked4, &elements[..3]).unwrap(), 0);
    });
}

#[test]
fn replacing_elements_is_all_or_nothing() {
    need!();
    let (namespace, _) = installed();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let networks = ["10.0.0.0/8", "192.0.2.0/24", "255.255.255.255/32"]
            .map(|text| Element::network(text.parse().unwrap()));
        connection.replace_elements(SetId::Allowed4, &networks).unwrap();
        let listed = |connection: &mut Connection| {
            connection
                .dump_set(SetId::Allowed4)
                .unwrap()
                .iter()
                .map(|info| (info.key, info.end))
                .collect::<Vec<_>>()
        };
        let wanted = networks.map(|element| (element.key, element.end));
        assert_eq!(listed(&mut connection), wanted);
        let overlap =
            ["10.0.0.0/8", "10.1.0.0/16"].map(|text| Element::network(text.parse().unwrap()));
        assert!(connection.replace_elements(SetId::Allowed4, &overlap).is_err());
        assert_eq!(listed(&mut connection), wanted);
        connection.replace_elements(SetId::Allowed4, &[]).unwrap();
        assert_eq!(listed(&mut connection), []);
    });
}
