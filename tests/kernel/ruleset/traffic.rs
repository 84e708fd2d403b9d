//! Effects of the rules on packets, without a daemon, as a peer sees the answers.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use portsentry::config::{Allowed, ClosedPorts, Config, Mode};
use portsentry::nft::Connection;
use portsentry::nft::element::Element;
use portsentry::ruleset::{self, SCHEMA, SetId};

use super::{EPHEMERAL, address};
use crate::support::netns::Namespace;
use crate::support::{eventually, missing};

const HOST4: &str = "192.0.2.1";
const HOST6: &str = "2001:db8::1";
const PEER4: &str = "192.0.2.2";
const PEER6: &str = "2001:db8::2";
/// Long for a veth pair, short for a test. Silence is checked twice: a busy machine may be late
/// once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Open,
    Closed,
    Silence,
}

struct Net {
    host: Namespace,
    peer: Namespace,
}

impl Net {
    /// A host with this configuration, and a peer.
    fn new(config: &Config) -> Self {
        let (host, peer) = (Namespace::new(), Namespace::new());
        host.join(
            &peer,
            "veth0",
            &["192.0.2.1/24", "2001:db8::1/64"],
            &["192.0.2.2/24", "2001:db8::2/64"],
        );
        host.enter(|| {
            Connection::open(SCHEMA)
                .unwrap()
                .install(&ruleset::for_config(config, EPHEMERAL))
                .unwrap()
        });
        Self { host, peer }
    }

    fn tcp(&self, host: &str, port: u16) -> Reply {
        twice(|| self.tcp_once(host, port))
    }

    /// Whether port-unreachable comes back.
    fn udp(&self, host: &str, port: u16) -> Reply {
        twice(|| self.udp_once(host, port))
    }

    fn tcp_once(&self, host: &str, port: u16) -> Reply {
        let address = SocketAddr::new(address(host), port);
        match self.peer.enter(|| TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).map(drop)) {
            Ok(()) => Reply::Open,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Reply::Closed,
            Err(error) if error.kind() == ErrorKind::TimedOut => Reply::Silence,
            Err(error) => panic!("{address}: {error}"),
        }
    }

    fn udp_once(&self, host: &str, port: u16) -> Reply {
        let address: SocketAddr = SocketAddr::new(address(host), port);
        self.peer.enter(|| {
            let socket =
                UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
            socket.send(b"?").unwrap();
            match socket.recv(&mut [0; 16]) {
                Ok(_) => Reply::Open,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Reply::Closed,
                Err(_) => Reply::Silence,
            }
        })
    }

    fn ping(&self, host: &str) -> bool {
        self.peer
            .output("ping", &["-c", "1", "-W", "1", host], Duration::from_secs(5))
            .status
            .success()
    }

    fn block(&self, set: SetId, text: &str) {
        self.host.enter(|| {
            Connection::open(SCHEMA)
                .unwrap()
                .add_element(set, &Element::network(text.parse().unwrap()))
                .unwrap()
        });
    }

    fn services(&self) -> Vec<String> {
        let mut keys: Vec<_> = self
            .host
            .enter(|| Connection::open(SCHEMA).unwrap().dump_set(SetId::Services).unwrap())
            .iter()
            .map(|info| info.key.to_string())
            .collect();
        keys.sort();
        keys
    }
}

fn twice(ask: impl Fn() -> Reply) -> Reply {
    match ask() {
        Reply::Silence => ask(),
        reply => reply,
    }
}

fn listen(net: &Net, at: &str) -> TcpListener {
    net.host.enter(|| TcpListener::bind(at).unwrap())
}

macro_rules! need {
    () => {
        if missing(&["ip", "ping"]).is_some() {
            return;
        }
    };
}

#[test]
fn closed_watched_ports_are_silent_and_all_else_answers() {
    need!();
    let net = Net::new(&Config::default());
    for host in [HOST4, HOST6] {
        assert_eq!(net.tcp(host, 80), Reply::Silence);
        assert_eq!(net.tcp(host, 113), Reply::Closed, "excluded");
        assert_eq!(net.tcp(host, 8080), Reply::Closed, "not watched");
        assert_eq!(net.udp(host, 53), Reply::Silence);
        assert_eq!(net.udp(host, 520), Reply::Closed, "excluded");
        assert!(net.ping(host));
    }
}

#[test]
fn observing_and_answering_leave_the_kernels_answers() {
    need!();
    for config in [
        Config { mode: Mode::Observe, ..Config::default() },
        Config { closed_ports: ClosedPorts::Answer, ..Config::default() },
    ] {
        let net = Net::new(&config);
        for host in [HOST4, HOST6] {
            assert_eq!((net.tcp(host, 80), net.udp(host, 53)), (Reply::Closed, Reply::Closed));
        }
    }
}

#[test]
fn a_listening_port_is_open_at_once_and_a_trap_only_when_it_never_was() {
    need!();
    let net = Net::new(&Config::default());
    for (at, host, port) in [("0.0.0.0:80", HOST4, 80), ("[2001:db8::1]:81", HOST6, 81)] {
        assert_eq!(net.tcp(host, port), Reply::Silence);
        let listener = listen(&net, at);
        assert_eq!(net.tcp(host, port), Reply::Open);
        drop(listener);
        // The service restarts: its clients get a reset, as usual. A child that another test has
        // just forked has the socket too, until it executes its program.
        let is_closed = || net.tcp(host, port) == Reply::Closed;
        assert!(
            eventually(Duration::from_secs(20), is_closed),
            "{host}: {:?}",
            net.tcp(host, port)
        );
    }
    let dual = listen(&net, "[::]:82");
    assert_eq!((net.tcp(HOST4, 82), net.tcp(HOST6, 82)), (Reply::Open, Reply::Open));
    drop(dual);
    // A service bound to an unreachable address leaves the port closed.
    let _inside = listen(&net, "127.0.0.1:83");
    assert_eq!(net.tcp(HOST4, 83), Reply::Silence);
    assert_eq!(net.services(), ["6 . 80", "6 . 81", "6 . 82"]);
}

#[test]
fn a_udp_socket_takes_its_packets_and_is_remembered_below_the_ephemeral_range() {
    need!();
    let net = Net::new(&Config::default());
    let sockets = net.host.enter(|| {
        ["0.0.0.0:53", "[::]:54", "0.0.0.0:40000"].map(|at| UdpSocket::bind(at).unwrap())
    });
    for (socket, (host, port)) in sockets.iter().zip([(HOST4, 53), (HOST6, 54), (HOST4, 40000)]) {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(net.udp(host, port), Reply::Silence, "the socket does not answer");
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 1, "but it got the packet");
    }
    drop(sockets);
    assert_eq!(net.services(), ["17 . 53", "17 . 54"]);
    let is_closed = || net.udp(HOST4, 53) == Reply::Closed;
    assert!(eventually(Duration::from_secs(20), is_closed), "a service that restarts");
}

#[test]
fn a_socket_that_is_transparent_takes_its_packets_too() {
    need!();
    let net = Net::new(&Config::default());
    let _listener = net.host.enter(|| {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        transparent(&socket);
        rustix::net::bind(&socket, &"0.0.0.0:90".parse::<SocketAddr>().unwrap()).unwrap();
        rustix::net::listen(&socket, 8).unwrap();
        socket
    });
    assert_eq!(net.tcp(HOST4, 90), Reply::Open);
}

/// IP_TRANSPARENT (ip(7)).
#[allow(unsafe_code, reason = "no safe wrapper has this option")]
fn transparent(socket: &rustix::fd::OwnedFd) {
    use std::os::fd::AsRawFd;
    let one: libc::c_int = 1;
    // SAFETY: pointer and length describe `one`, which lives over the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_TRANSPARENT,
            (&raw const one).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
}

// P1
#[test]
fn a_block_stops_everything_and_the_allow_list_stops_the_block() {
    need!();
    let net = Net::new(&Config::default());
    let _listener = listen(&net, "[::]:80");
    for (set, blocked, host, other, allowed, peer) in [
        (SetId::Blocked4, "192.0.2.2/32", HOST4, HOST6, SetId::Allowed4, PEER4),
        (SetId::BlockedNets4, "192.0.2.0/25", HOST4, HOST6, SetId::Allowed4, PEER4),
        (SetId::Blocked6, "2001:db8::2/128", HOST6, HOST4, SetId::Allowed6, PEER6),
        (SetId::BlockedNets6, "2001:db8::/32", HOST6, HOST4, SetId::Allowed6, PEER6),
    ] {
        assert_eq!(net.tcp(host, 80), Reply::Open);
        net.block(set, blocked);
        assert_eq!(net.tcp(host, 80), Reply::Silence, "{blocked}");
        assert_eq!(net.tcp(other, 80), Reply::Open, "{blocked}: the other family goes on");
        net.host.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            let counts = match set {
                SetId::Blocked4 => SetId::BlockedPackets4,
                SetId::Blocked6 => SetId::BlockedPackets6,
                networks => networks,
            };
            let packets = connection.dump_set(counts).unwrap()[0].packets;
            assert!(packets >= 1, "{blocked}: its packets are counted");
            connection
                .replace_elements(allowed, &[Element::network(IpAddr::into(address(peer)))])
                .unwrap();
        });
        assert_eq!(net.tcp(host, 80), Reply::Open, "{blocked}");
        net.host.enter(|| {
            let mut connection = Connection::open(SCHEMA).unwrap();
            connection.replace_elements(allowed, &[]).unwrap();
            connection.replace_elements(set, &[]).unwrap();
        });
    }
}

#[test]
fn an_allowed_source_is_answered() {
    need!();
    for silent in [false, true] {
        let allowed =
            Allowed { silent, ..Allowed::from("192.0.2.0/24".parse::<ipnet::IpNet>().unwrap()) };
        let net = Net::new(&Config { allow: vec![allowed], ..Config::default() });
        assert_eq!((net.tcp(HOST4, 80), net.tcp(HOST6, 80)), (Reply::Closed, Reply::Silence));
    }
}

#[test]
fn only_the_named_interfaces_are_watched() {
    need!();
    let net = Net::new(&Config { interfaces: vec!["eth7".to_owned()], ..Config::default() });
    assert_eq!(net.tcp(HOST4, 80), Reply::Closed);
    net.host.enter(|| {
        let config =
            Config { interfaces: vec!["eth7".to_owned(), "veth0".to_owned()], ..Config::default() };
        Connection::open(SCHEMA)
            .unwrap()
            .install(&ruleset::for_config(&config, EPHEMERAL))
            .unwrap();
    });
    assert_eq!(net.tcp(HOST4, 80), Reply::Silence);
}
