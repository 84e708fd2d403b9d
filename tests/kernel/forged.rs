//! Netlink messages from another process to our sockets: none is believed, and the kernel's
//! messages are still received.
//!
//! Root of the same user namespace may send such messages by unicast; only the sender's port id
//! shows it (netlink(7)).

use crate::support;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use portsentry::capture::nflog::{Listener, Settings};
use portsentry::capture::{PACKETS_PER_WAKE, Statistics, Verdict, nfqueue};
use portsentry::config::Config;
use portsentry::netlink::message::{NLMSG_DONE, NLMSG_ERROR, Writer};
use portsentry::netlink::route::{Monitor as RouteMonitor, Routes};
use portsentry::netlink::sock_diag::SockDiag;
use portsentry::nft::{Connection, Monitor, Notification, Received};
use portsentry::ruleset::{self, SCHEMA};
use portsentry::sys::poll::readable;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, netlink};
use support::daemon::Daemon;
use support::netns::Namespace;

const GROUP: u16 = 77;
/// Request numbers of a new socket, with room to spare.
const SEQUENCES: std::ops::Range<u32> = 0..40;

/// A process that sends to the netlink sockets of others, in the calling thread's network
/// namespace.
struct Forger {
    socket: OwnedFd,
    family: Option<Protocol>,
}

impl Forger {
    /// `None`: NETLINK_ROUTE, whose number is 0.
    fn new(family: Option<Protocol>) -> Self {
        Self {
            socket: rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, family).unwrap(),
            family,
        }
    }

    /// The port ids of all sockets of this family in this namespace; the forger has none before it
    /// sends.
    fn victims(&self) -> Vec<u32> {
        let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let family = self.family.map_or(0, |family| family.as_raw().get()).to_string();
        // sk Eth Pid Groups ...; port id 0 is the kernel's own socket.
        let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ids =
            fields.filter(|fields| fields[1] == family).map(|fields| fields[2].parse().unwrap());
        ids.filter(|id| *id != 0).collect()
    }

    fn send(&self, victim: u32, datagram: &[u8]) {
        let sent = rustix::net::sendto(
            &self.socket,
            datagram,
            SendFlags::empty(),
            &SocketAddrNetlink::new(victim, 0),
        )
        .unwrap();
        assert_eq!(sent, datagram.len());
    }

    /// Answers of success or failure to future requests, whatever their numbers.
    fn answer(&self, victim: u32, errno: i32) {
        for sequence in SEQUENCES {
            self.send(
                victim,
                &message(NLMSG_ERROR, sequence, |writer| {
                    writer.raw(&[errno.to_ne_bytes().as_slice(), &[0; 16]].concat())
                }),
            );
            self.send(victim, &message(NLMSG_DONE, sequence, |writer| writer.raw(&[0; 4])));
        }
    }
}

fn message(kind: u16, sequence: u32, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::with_capacity(256);
    let message = writer.begin_message(kind, 0, sequence);
    body(&mut writer);
    writer.end_message(message);
    writer.bytes().to_vec()
}

/// A logged SYN to a TCP port as the kernel would report it (linux/netfilter/nfnetlink_log.h).
fn logged_syn(source: Ipv4Addr, port: u16, number: u32) -> Vec<u8> {
    // NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET.
    message(4 << 8, 0, |writer| {
        writer.nfgenmsg(2, GROUP);
        writer.attr(1, &[0x08, 0x00, 1, 0]);
        writer.attr_str(10, "portsentry: probe ");
        writer.attr(9, &syn(source, port));
        writer.attr_be32(12, number);
    })
}

fn syn(source: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend([192, 0, 2, 1]);
    packet.extend(40_000u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 0x40, 0, 0, 0, 0, 0]);
    packet
}

/// A namespace that logs UDP to port 4000.
fn logging() -> Namespace {
    let namespace = Namespace::new();
    namespace.run("nft", &["table inet t { chain c { type filter hook input priority 0; udp dport 4000 log group 77 drop; }; }"]);
    namespace
}

fn probe(port: u16) {
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", ("127.0.0.1", port)).unwrap();
}

#[test]
fn forged_log_messages_are_no_packets_and_no_loss() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        let mut listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
        let forger = Forger::new(Some(netlink::NETFILTER));
        let victim = forger.victims()[0];
        for n in 0..1000 {
            // The numbers jump: each would be a great loss.
            forger.send(
                victim,
                &logged_syn(
                    Ipv4Addr::new(198, 51, 100, 7),
                    1 + n,
                    u32::from(n).wrapping_mul(99_999_999),
                ),
            );
        }
        probe(4000);
        let (mut packets, mut calls) = (0, 0);
        loop {
            let received = listener.receive(PACKETS_PER_WAKE, &mut |_| packets += 1).unwrap();
            calls += 1;
            assert!(calls < 10, "it comes to an end");
            if !received.more {
                break;
            }
        }
        assert_eq!(packets, 1, "the kernel's");
        assert!(calls > 1, "a wake reads a bounded number of messages, of others too");
        assert_eq!(listener.statistics(), Statistics { packets: 1, ..Statistics::default() });
        assert!(
            !readable(listener.as_fd(), Duration::ZERO).unwrap(),
            "nothing is left that would wake the thread again"
        );
        // Between packets of the kernel.
        for n in 0..3 {
            probe(4000);
            forger.send(victim, &logged_syn(Ipv4Addr::new(198, 51, 100, 7), 1, 1000 + n));
        }
        listener.receive(PACKETS_PER_WAKE, &mut |_| packets += 1).unwrap();
        assert_eq!(
            (packets, listener.statistics()),
            (4, Statistics { packets: 4, ..Statistics::default() })
        );
    });
}

#[test]
fn forged_queued_packets_get_no_verdict() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    Namespace::new().enter(|| {
        let mut listener = match nfqueue::Listener::bind(nfqueue::Settings::of_queue(77, true)) {
            Ok(listener) => listener,
            Err(error) => {
                support::skip(&format!("no queue: {error}"));
                return;
            }
        };
        let forger = Forger::new(Some(netlink::NETFILTER));
        for n in 0..100u32 {
            // NFNL_SUBSYS_QUEUE, NFQNL_MSG_PACKET; NFQA_PACKET_HDR has the packet's number,
            // NFQA_PAYLOAD the packet.
            let forged = message(3 << 8, 0, |writer| {
                writer.nfgenmsg(2, 77);
                writer.attr(1, &[(1000 + n).to_be_bytes().as_slice(), &[0x08, 0, 1]].concat());
                writer.attr(10, &syn(Ipv4Addr::new(198, 51, 100, 7), 22));
            });
            forger.send(forger.victims()[0], &forged);
        }
        let mut packets = 0;
        listener
            .decide(PACKETS_PER_WAKE, &mut |_| {
                packets += 1;
                Verdict::Accept
            })
            .unwrap();
        let statistics = listener.statistics();
        assert_eq!(
            (packets, statistics.packets, statistics.lost, statistics.malformed),
            (0, 0, 0, 0)
        );
        assert!(!readable(listener.as_fd(), Duration::ZERO).unwrap());
    });
}

#[test]
fn forged_changes_of_the_ruleset_are_ignored() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut monitor = Monitor::open(SCHEMA).unwrap();
        let forger = Forger::new(Some(netlink::NETFILTER));
        let victim = forger.victims()[0];
        for _ in 0..10 {
            // NFNL_SUBSYS_NFTABLES: NFT_MSG_DELTABLE of our table, NFT_MSG_NEWGEN of a process
            // "innocent".
            forger.send(
                victim,
                &message(10 << 8 | 2, 1, |writer| {
                    writer.nfgenmsg(1, 0);
                    writer.attr_str(1, "portsentry");
                    writer.attr_be32(2, 0);
                }),
            );
            forger.send(
                victim,
                &message(10 << 8 | 15, 1, |writer| {
                    writer.nfgenmsg(0, 0);
                    writer.attr_be32(1, 4711);
                    writer.attr_be32(2, 1);
                    writer.attr_str(3, "innocent");
                }),
            );
        }
        let mut heard = Vec::new();
        while monitor.receive(None, |notification| heard.push(notification)).unwrap()
            != Received::Nothing
        {}
        assert_eq!(heard, []);
        assert!(!readable(std::os::fd::AsFd::as_fd(&monitor), Duration::ZERO).unwrap());
        support::run("nft", &["add", "table", "inet", "portsentry"]);
        while monitor.receive(None, |notification| heard.push(notification)).unwrap()
            != Received::Nothing
        {}
        assert!(heard.contains(&Notification::TableAdded), "{heard:?}");
    });
}

#[test]
fn forged_answers_are_no_answers_of_nf_tables() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    namespace.enter(|| {
        for errno in [0, -1] {
            let mut connection = Connection::open(SCHEMA).unwrap();
            let forger = Forger::new(Some(netlink::NETFILTER));
            let forge = |connection: &Connection| forger.answer(connection.portid(), errno);
            forge(&connection);
            let error = connection.remove_table().unwrap_err();
            assert!(error.is_not_found(), "the kernel's answer: {error}");
            let ruleset = ruleset::for_config(&Config::default(), 32768..=60999);
            forge(&connection);
            connection.install(&ruleset).unwrap();
            forge(&connection);
            assert_eq!(connection.verify(&ruleset).unwrap(), None, "dumps are the kernel's alone");
            forge(&connection);
            connection.remove_table().unwrap();
        }
    });
}

#[test]
fn a_flood_of_forged_answers_does_not_make_a_request_fail_or_last() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    const REQUESTS: u32 = 50;
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let victim = connection.portid();
        let requests = |connection: &mut Connection| {
            let began = Instant::now();
            let errors = (0..REQUESTS).filter_map(|_| connection.remove_table().err());
            let failed: Vec<_> = errors.filter(|error| !error.is_not_found()).collect();
            (began.elapsed(), failed)
        };
        let (alone, _) = requests(&mut connection);
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let forger = Forger::new(Some(netlink::NETFILTER));
                let forged = message(NLMSG_ERROR, 3, |writer| writer.raw(&[(-1i32).to_ne_bytes().as_slice(), &[0; 16]].concat()));
                let mut count = 0u64;
                while !end.load(std::sync::atomic::Ordering::Relaxed) {
                    // A full buffer blocks or refuses the sender; that does not matter here.
                    let address = SocketAddrNetlink::new(victim, 0);
                    count += u64::from(rustix::net::sendto(&forger.socket, &forged, SendFlags::DONTWAIT, &address).is_ok());
                    std::thread::sleep(Duration::from_micros(50));
                }
                count
            });
            // No assertion before the other thread has ended.
            let (beside, failed) = requests(&mut connection);
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            let count = flood.join().unwrap();
            assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
            eprintln!("{REQUESTS} requests in {alone:?} alone, in {beside:?} beside {count} forged messages");
            assert!(count > 0);
            assert!(beside < alone * 3 + Duration::from_secs(1), "{beside:?}, {alone:?} alone");
        });
    });
}

#[test]
fn forged_addresses_routes_and_sockets_are_not_believed() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut routes = Routes::open().unwrap();
        let mut monitor = RouteMonitor::open().unwrap();
        while readable(std::os::fd::AsFd::as_fd(&monitor), Duration::from_millis(100)).unwrap() {
            monitor.changed().unwrap();
        }
        let forger = Forger::new(None);
        for victim in forger.victims() {
            forger.answer(victim, 0);
            for sequence in SEQUENCES {
                // RTM_NEWADDR: 203.0.113.66/32 on interface 1, IFA_LOCAL; a link change to the
                // monitor as well as any.
                forger.send(
                    victim,
                    &message(20, sequence, |writer| {
                        writer.raw(&[2, 32, 0, 0, 1, 0, 0, 0]);
                        writer.attr(2, &[203, 0, 113, 66]);
                    }),
                );
            }
        }
        let addresses: Vec<String> =
            routes.addresses().unwrap().iter().map(|own| own.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1", "::1"]);
        assert!(!monitor.changed().unwrap(), "nothing has changed");
        support::run("ip", &["addr", "add", "192.0.2.77/32", "dev", "lo"]);
        assert!(monitor.changed().unwrap());

        let _service = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = _service.local_addr().unwrap().port();
        let mut diag = SockDiag::open().unwrap();
        let forger = Forger::new(Some(netlink::SOCK_DIAG));
        forger.answer(forger.victims()[0], 0);
        assert!(
            diag.listeners().unwrap().sockets.iter().any(|socket| socket.port.number == port),
            "the kernel's list is read to its end"
        );
    });
}

#[test]
fn forged_messages_make_the_daemon_block_no_host_and_count_no_loss() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let (host, scanner) = (Namespace::new(), Namespace::new());
    host.join(&scanner, "v0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let daemon = Daemon::start(
        &host,
        "capture: { reflex: false }\nscan_trigger: 2\ntcp: { mode: advanced, advanced_ports: 1-2000, exclude: [] }\nblock: { unproven: { action: block } }\n",
    );
    let victims = host.enter(|| {
        let forger = Forger::new(Some(netlink::NETFILTER));
        let victims = forger.victims();
        for victim in &victims {
            for n in 0..600u16 {
                let innocent = Ipv4Addr::new(198, 51, 100, u8::try_from(1 + n % 200).unwrap());
                forger.send(
                    *victim,
                    &logged_syn(innocent, 100 + n, u32::from(n).wrapping_mul(99_999_999)),
                );
            }
        }
        victims
    });
    assert!(victims.len() >= 3, "the daemon's sockets: {victims:?}");
    // The kernel's packets, sent after the forged ones, are evaluated: then the forged ones have
    // been read.
    scanner.run(
        "python3",
        &["-c", "import socket\nfor p in range(300, 310):\n s = socket.socket(); s.setblocking(False); s.connect_ex(('192.0.2.1', p))"],
    );
    daemon.wait_for_block("192.0.2.2");
    assert_eq!(daemon.blocked(), ["192.0.2.2"]);
    let status = daemon.json(&["status"]);
    assert_eq!(
        (&status["lost"], &status["blocked"], &status["sources"]),
        (&0.into(), &1.into(), &1.into()),
        "{status}"
    );
    assert_eq!(status["intake"]["malformed"], 0, "{status}");
}
