//! Addresses, next hops, and sockets over the real kernel, in network namespaces.

use crate::support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use portsentry::config::PortSet;
use portsentry::netlink::logins::{Logins, SESSION_BYTES};
use portsentry::netlink::route::{Monitor, Routes};
use portsentry::netlink::sock_diag::{Listeners, SockDiag};
use portsentry::probe::Transport;
use portsentry::sys::poll::readable;
use support::netns::Namespace;

/// A namespace with a device that has addresses of both families; its other end is in the second.
fn host() -> (Namespace, Namespace) {
    let (host, peer) = (Namespace::new(), Namespace::new());
    host.join(
        &peer,
        "v0",
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    );
    (host, peer)
}

fn ip(namespace: &Namespace, words: &str) {
    namespace.run("ip", &words.split_whitespace().collect::<Vec<_>>());
}

fn hops(namespace: &Namespace) -> Vec<String> {
    namespace
        .enter(|| Routes::open().unwrap().next_hops().unwrap())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_addresses_of_all_interfaces_are_listed() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    ip(&host, "addr add 198.51.100.1 peer 198.51.100.9/32 dev v0");
    let addresses = host.enter(|| Routes::open().unwrap().addresses().unwrap());
    let text: Vec<_> = addresses
        .iter()
        .map(|own| format!("{}/{} {:?}", own.address, own.prefix, own.peer))
        .collect();
    for wanted in [
        "127.0.0.1/8 None",
        "::1/128 None",
        "192.0.2.1/24 None",
        "2001:db8::1/64 None",
        "198.51.100.1/32 Some(198.51.100.9)",
    ] {
        assert!(text.iter().any(|text| text == wanted), "{wanted} in {text:?}");
    }
    // The device's own link-local address.
    let is_linklocal = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    assert!(addresses.iter().any(|own| is_linklocal(&own.address) && own.prefix == 64), "{text:?}");
    for own in addresses.iter().filter(|own| own.address.to_string().starts_with("192.0.2.")) {
        assert_eq!(own.interface, host.interface_index("v0"));
    }
}

#[test]
fn a_host_without_gateways_has_no_next_hops() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    assert!(hops(&host().0).is_empty());
}

#[test]
fn the_next_hops_of_every_kind_of_route_are_listed() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    for (route, wanted) in [
        ("route add default via 192.0.2.10", vec!["192.0.2.10"]),
        ("-6 route add default via fe80::10 dev v0", vec!["192.0.2.10", "fe80::10"]),
        (
            "route add 10.1.0.0/16 nexthop via 192.0.2.11 nexthop via 192.0.2.12",
            vec!["192.0.2.10", "192.0.2.11", "192.0.2.12", "fe80::10"],
        ),
    ] {
        ip(&host, route);
        assert_eq!(hops(&host), wanted, "after {route}");
    }
    for route in [
        "-6 route add 2001:db8:1::/48 nexthop via 2001:db8::11 nexthop via fe80::12 dev v0",
        "route add default via 192.0.2.13 table 1000",
        "-6 route add default via 2001:db8::13 table 1001",
        "route add 10.2.0.0/16 via inet6 fe80::14 dev v0",
        "route add 10.3.0.0/16 dev v0",
        "route add blackhole 10.4.0.0/16",
    ] {
        ip(&host, route);
    }
    let wanted = [
        "192.0.2.10",
        "192.0.2.11",
        "192.0.2.12",
        "192.0.2.13",
        "2001:db8::11",
        "2001:db8::13",
        "fe80::10",
        "fe80::12",
        "fe80::14",
    ];
    assert_eq!(hops(&host), wanted);
}

#[test]
fn the_gateways_of_next_hop_objects_are_listed_also_when_routes_hide_them() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    for compat in ["1", "0"] {
        host.run("sysctl", &["-q", &format!("net.ipv4.nexthop_compat_mode={compat}")]);
        ip(&host, "nexthop add id 1 via 192.0.2.20 dev v0");
        ip(&host, "nexthop add id 2 via fe80::20 dev v0");
        ip(&host, "nexthop add id 3 group 1");
        ip(&host, "route add 10.1.0.0/16 nhid 3");
        assert_eq!(hops(&host), ["192.0.2.20", "fe80::20"], "nexthop_compat_mode {compat}");
        ip(&host, "nexthop flush");
    }
}

#[test]
fn a_router_with_many_routes_has_its_few_next_hops_listed() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    let routes: String = (0..20_000)
        .map(|n| format!("route add 10.{}.{}.0/24 via 192.0.2.{}\n", n >> 8, n & 255, 10 + n % 3))
        .collect();
    host.ip_batch(&routes);
    let start = Instant::now();
    assert_eq!(hops(&host), ["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
    eprintln!("20000 routes listed in {:?}", start.elapsed());
}

#[test]
fn the_monitor_reports_every_change_once() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    // Duplicate address detection would cause its own changes later.
    let settled = |monitor: &mut Monitor| {
        while readable(monitor.as_fd(), Duration::from_millis(300)).unwrap() {
            monitor.changed().unwrap();
        }
    };
    let mut monitor = host.enter(|| Monitor::open().unwrap());
    settled(&mut monitor);
    assert!(!monitor.changed().unwrap());
    for change in [
        "addr add 192.0.2.50/24 dev v0",
        "addr add 2001:db8::50/64 dev v0 nodad",
        "route add 10.1.0.0/16 via 192.0.2.2",
        "-6 route add 2001:db8:1::/48 via 2001:db8::2",
        "nexthop add id 1 via 192.0.2.2 dev v0",
        "route del 10.1.0.0/16",
        "addr del 192.0.2.50/24 dev v0",
        "link add d0 type veth peer name d1",
    ] {
        ip(&host, change);
        assert!(readable(monitor.as_fd(), Duration::from_secs(2)).unwrap(), "{change}");
        assert!(monitor.changed().unwrap(), "{change}");
        settled(&mut monitor);
        assert!(!monitor.changed().unwrap(), "after {change}");
    }
}

#[test]
fn lost_notifications_count_as_a_change() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    let mut monitor = host.enter(|| Monitor::open().unwrap());
    // More than the default receive buffer of 208 KiB holds.
    let addresses: String =
        (0..3000).map(|n| format!("addr add 10.0.{}.{}/32 dev v0\n", n >> 8, n & 255)).collect();
    host.ip_batch(&addresses);
    assert!(monitor.changed().unwrap());
    while readable(monitor.as_fd(), Duration::from_millis(100)).unwrap() {
        monitor.changed().unwrap();
    }
    ip(&host, "addr add 192.0.2.60/24 dev v0");
    assert!(readable(monitor.as_fd(), Duration::from_secs(2)).unwrap());
    assert!(monitor.changed().unwrap(), "it hears again after the overrun");
}

fn services(listeners: &Listeners) -> Vec<String> {
    listeners.services().iter().map(ToString::to_string).collect()
}

#[test]
fn services_are_listed_as_long_as_they_listen() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, _peer) = host();
    host.enter(|| {
        let mut diag = SockDiag::open().unwrap();
        assert_eq!(diag.listeners().unwrap().sockets, []);
        let tcp = [
            TcpListener::bind("192.0.2.1:22").unwrap(),
            TcpListener::bind("[2001:db8::1]:23").unwrap(),
            TcpListener::bind("[::]:80").unwrap(),
        ];
        let udp = [UdpSocket::bind("0.0.0.0:53").unwrap(), UdpSocket::bind("[::]:123").unwrap()];
        let _local =
            (TcpListener::bind("127.0.0.1:5432").unwrap(), UdpSocket::bind("[::1]:5433").unwrap());
        let connected = UdpSocket::bind("192.0.2.1:999").unwrap();
        connected.connect("192.0.2.2:9").unwrap();
        let listeners = diag.listeners().unwrap();
        assert_eq!(services(&listeners), ["tcp/22", "tcp/23", "tcp/80", "udp/53", "udp/123"]);
        let of = |port: &str| {
            listeners
                .sockets
                .iter()
                .find(|socket| socket.port.to_string() == port)
                .map(|socket| (socket.address, socket.is_local()))
        };
        assert_eq!(of("tcp/23"), Some(("2001:db8::1".parse().unwrap(), false)));
        assert_eq!(of("tcp/5432"), Some(("127.0.0.1".parse().unwrap(), true)));
        assert_eq!(of("udp/999"), None);
        drop((tcp, udp));
        assert_eq!(services(&diag.listeners().unwrap()), [""; 0]);
    });
}

#[test]
fn a_transport_that_the_kernel_does_not_list_is_an_error() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    Namespace::new().enter(|| {
        let listeners = SockDiag::open().unwrap().listeners().unwrap();
        assert!(
            !listeners.unseen.contains(&Transport::Tcp)
                && !listeners.unseen.contains(&Transport::Udp)
        );
        let sctp = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            Some(rustix::net::ipproto::SCTP),
        );
        if sctp.is_err() {
            assert_eq!(listeners.unseen, [Transport::Sctp]);
        }
    });
}

// P2
#[test]
fn connections_to_the_admin_ports_are_listed_and_known_again() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let (host, peer) = host();
    host.enter(|| {
        let (ssh, web) =
            (TcpListener::bind("[::]:22").unwrap(), TcpListener::bind("[::]:80").unwrap());
        let connect = |to: &str| peer.enter(|| TcpStream::connect(to).unwrap());
        let streams =
            [connect("192.0.2.1:22"), connect("[2001:db8::1]:22"), connect("192.0.2.1:80")];
        let accepted = [ssh.accept().unwrap().0, ssh.accept().unwrap().0, web.accept().unwrap().0];
        let mut diag = SockDiag::open().unwrap();
        let admin = PortSet::of(&[22, 2222]);
        let first = diag.established(&admin).unwrap();
        let mut peers: Vec<SocketAddr> = first.iter().map(|connection| connection.peer).collect();
        peers.sort();
        // The IPv4 connection belongs to an IPv6 socket.
        assert_eq!(peers, [streams[0].local_addr().unwrap(), streams[1].local_addr().unwrap()]);
        assert!(first.iter().all(|connection| connection.local.port() == 22));
        let cookies = |connections: &[portsentry::netlink::sock_diag::Connection]| {
            connections.iter().map(|c| c.cookie).collect::<BTreeSet<_>>()
        };
        let second = diag.established(&admin).unwrap();
        assert_eq!((cookies(&first), cookies(&first).len()), (cookies(&second), 2));
        // One exchanges what a session does; the other is a bare connection.
        let much = vec![0; SESSION_BYTES as usize];
        let exchange = |from: &TcpStream, to: &TcpStream| {
            let (mut from, mut to) = (from, to);
            from.write_all(&much).unwrap();
            to.read_exact(&mut much.clone()).unwrap();
        };
        exchange(&streams[0], &accepted[0]);
        exchange(&accepted[0], &streams[0]);
        exchange(&streams[1], &accepted[1]);
        let mut logins = Logins::default();
        let peers = |logins: &Logins, second| -> Vec<IpAddr> {
            logins.peers(Duration::from_secs(second), &BTreeSet::new()).into_iter().collect()
        };
        logins.observe(Duration::from_secs(1000), &first);
        assert_eq!(peers(&logins, 1000), [] as [IpAddr; 0]);
        logins.observe(Duration::from_secs(1180), &second);
        assert_eq!(peers(&logins, 1180), [] as [IpAddr; 0], "before anything was exchanged");
        logins.observe(Duration::from_secs(1180), &diag.established(&admin).unwrap());
        assert_eq!(peers(&logins, 1180), [streams[0].local_addr().unwrap().ip()]);
        // A connection closed by its peer is no longer established, even if this host keeps its
        // end.
        let [four, six, _web] = streams;
        drop(four);
        assert!(support::eventually(Duration::from_secs(20), || diag
            .established(&admin)
            .unwrap()
            .len()
            == 1));
        assert_eq!(diag.established(&admin).unwrap()[0].peer, six.local_addr().unwrap());
        assert_eq!(diag.established(&PortSet::default()).unwrap(), []);
        // More ranges than the kernel's filter takes are still filtered.
        let many: PortSet = (0..1000u16).map(|n| n * 2 + 20..=n * 2 + 20).collect();
        assert_eq!(diag.established(&many).unwrap().len(), 2);
        drop(accepted);
    });
}
