//! The NFLOG listener over the real kernel: packets that nft's own rules log, in network
//! namespaces.

use crate::support;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use portsentry::capture::nflog::{Listener, Settings};
use portsentry::capture::{Error, PACKETS_PER_WAKE, Resource, Statistics};
use portsentry::sys::poll::readable;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::netns::Namespace;
use support::schedule;

const GROUP: u16 = 77;

/// A namespace whose rules log UDP to ports 4000-4999 to [`GROUP`], and count the packets.
fn logging() -> Namespace {
    let namespace = Namespace::new();
    let rules = "table inet t { counter logged { }; chain c { type filter hook input priority 0; policy accept; \
                 udp dport 4000-4999 counter name logged log prefix \"udp-probe \" group 77 queue-threshold 100000 drop; }; }";
    namespace.run("nft", &[rules]);
    namespace
}

/// Number of packets that the rule has logged.
fn logged(namespace: &Namespace) -> u64 {
    let listing = namespace.run("nft", &["list", "counter", "inet", "t", "logged"]);
    let mut words = listing.split_whitespace();
    words.find(|word| *word == "packets").unwrap();
    words.next().unwrap().parse().unwrap()
}

/// Sends `count` datagrams to a logged port over this namespace's loopback.
fn send(count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..count {
        // The rule drops: no ICMP error comes back to be reported here.
        socket.send_to(&n.to_be_bytes(), ("127.0.0.1", 4000)).unwrap();
    }
}

/// Receives until no packet is left; returns their number.
fn drain(listener: &mut Listener) -> usize {
    let mut packets = 0;
    loop {
        let received = listener.receive(PACKETS_PER_WAKE, &mut |_| packets += 1).unwrap();
        if !received.more {
            return packets;
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[test]
fn packets_of_both_families_arrive_with_their_bytes() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let (host, peer) = (logging(), Namespace::new());
    host.join(
        &peer,
        "v0",
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    );
    let index = host.interface_index("v0");
    host.enter(|| {
        let mut listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
        for (sequence, (from, to)) in
            [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")].into_iter().enumerate()
        {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            peer.enter(|| {
                UdpSocket::bind(SocketAddr::new(from, 5555))
                    .unwrap()
                    .send_to(b"are you there?", SocketAddr::new(to, 4321))
                    .unwrap()
            });
            assert!(readable(listener.as_fd(), Duration::from_secs(5)).unwrap());
            let mut count = 0;
            let received = listener
                .receive(PACKETS_PER_WAKE, &mut |packet| {
                    count += 1;
                    assert_eq!(
                        (packet.prefix, packet.hook, packet.indev),
                        ("udp-probe ", 1, Some(index))
                    );
                    assert_eq!(packet.sequence, Some(u32::try_from(sequence).unwrap()));
                    let (ethertype, source, destination, transport) = match (from, to) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            (0x0800, (12, from.octets().to_vec()), (16, to.octets().to_vec()), 20)
                        }
                        (IpAddr::V6(from), IpAddr::V6(to)) => {
                            (0x86dd, (8, from.octets().to_vec()), (24, to.octets().to_vec()), 40)
                        }
                        _ => unreachable!(),
                    };
                    assert_eq!(packet.hw_protocol, ethertype);
                    for (at, address) in [source, destination] {
                        assert_eq!(packet.payload[at..at + address.len()], address);
                    }
                    let udp = &packet.payload[transport..];
                    assert_eq!(udp[..4], [5555u16.to_be_bytes(), 4321u16.to_be_bytes()].concat());
                    assert_eq!(&udp[8..], b"are you there?");
                })
                .unwrap();
            assert_eq!((count, received.packets, received.more), (1, 1, false));
        }
        assert_eq!(listener.statistics(), Statistics { packets: 2, ..Statistics::default() });
    });
}

#[test]
fn a_long_packet_is_cut_to_the_copy_range() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        for copy_range in [60, 65_535] {
            let mut listener =
                Listener::bind(Settings { copy_range, ..Settings::of_group(GROUP) }).unwrap();
            UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .send_to(&[7; 60_000], ("127.0.0.1", 4000))
                .unwrap();
            let mut lengths = Vec::new();
            listener
                .receive(PACKETS_PER_WAKE, &mut |packet| lengths.push(packet.payload.len()))
                .unwrap();
            assert_eq!(lengths, [usize::from(copy_range).min(60_028)]);
            assert_eq!(listener.statistics().malformed, 0);
            // Closing does not free the group for the next round: a program that another test is
            // starting has the socket until it executes.
            listener.unbind().unwrap();
        }
    });
}

#[test]
fn a_second_listener_gets_an_error_with_the_owner_of_the_group() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    // A child that another test has just forked has the socket too, until it executes its program.
    schedule::alone();
    Namespace::new().enter(|| {
        // An earlier socket, so that the listener's port id is not the process id, as in a daemon
        // with several netlink sockets.
        let other = portsentry::netlink::route::Monitor::open().unwrap();
        let first = Listener::bind(Settings::of_group(GROUP)).unwrap();
        let error = Listener::bind(Settings::of_group(GROUP)).err().unwrap();
        let Error::InUse { resource: Resource::Group(GROUP), holder: Some(holder) } = &error else { panic!("{error:?}") };
        let (pid, name) = holder.process.as_ref().unwrap();
        assert_eq!(*pid, std::process::id());
        let text = chain(&error);
        assert_eq!(
            text,
            format!("NFLOG group 77 is in use by another program: {name} (pid {pid}); stop that program, or set capture.group to another number")
        );
        // Another group is free, and so is this one after its listener is gone.
        Listener::bind(Settings::of_group(GROUP + 1)).unwrap();
        drop(first);
        // A process that another test starts has a copy until it executes its program.
        let is_free = || Listener::bind(Settings::of_group(GROUP)).is_ok();
        assert!(support::eventually(Duration::from_secs(10), is_free));
        drop(other);
    });
}

#[test]
fn a_missing_capability_is_told_apart_from_a_group_in_use() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    let holder = namespace.enter(|| Listener::bind(Settings::of_group(GROUP)).unwrap());
    // On its own thread: capabilities belong to a thread, and this one ends.
    namespace.enter(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        for group in [GROUP, GROUP + 1] {
            let error = Listener::bind(Settings::of_group(group)).err().unwrap();
            assert!(matches!(error, Error::NotPermitted(Resource::Group(_))), "{error:?}");
            assert!(chain(&error).contains("CAP_NET_ADMIN is missing"), "{error}");
        }
    });
    drop(holder);
}

#[test]
fn a_service_with_nothing_but_net_admin_can_listen_with_the_full_buffer() {
    if support::missing(&["ip"]).is_some() {
        return;
    }
    Namespace::new().enter(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective = CapabilitySet::NET_ADMIN;
        sets.permitted = CapabilitySet::NET_ADMIN;
        sets.inheritable = CapabilitySet::empty();
        set_capabilities(None, sets).unwrap();
        let listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
        assert_eq!(listener.receive_buffer(), Some(8 * 1024 * 1024));
    });
}

// P16
#[test]
fn loss_is_counted_exactly_when_a_flood_meets_a_tiny_buffer() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = logging();
    let (packets, statistics) = namespace.enter(|| {
        let mut listener =
            Listener::bind(Settings { receive_buffer: 16_384, ..Settings::of_group(GROUP) })
                .unwrap();
        let mut packets = 0;
        // Several floods: loss at the start, in the middle, and again after the queue was read
        // empty.
        for _ in 0..3 {
            send(2000);
            packets += drain(&mut listener);
        }
        // Loss at the end shows with the next packet.
        send(1);
        packets += drain(&mut listener);
        (packets, listener.statistics())
    });
    assert_eq!(statistics.packets, u64::try_from(packets).unwrap());
    assert_eq!(logged(&namespace), 6001);
    assert_eq!(statistics.packets + statistics.lost, 6001);
    assert!(statistics.lost > 3000, "{statistics:?}");
    assert_eq!(
        (statistics.overruns, statistics.malformed),
        (statistics.lost, 0),
        "each datagram had one packet"
    );
    assert!(!statistics.loss_uncounted, "the last packet has shown it all");
}

// P16
#[test]
fn a_flood_is_received_completely_or_its_loss_counted() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    const FLOOD: usize = 200_000;
    let namespace = logging();
    for threshold in [1, 64] {
        let before = logged(&namespace);
        let (statistics, took) = namespace.enter(|| {
            let mut listener = Listener::bind(Settings {
                queue_threshold: threshold,
                ..Settings::of_group(GROUP)
            })
            .unwrap();
            let start = Instant::now();
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| send(FLOOD));
                let mut end = false;
                while !end {
                    // The sender is checked first: its last packets are then read in the last
                    // round.
                    end = sender.is_finished();
                    if readable(listener.as_fd(), Duration::from_millis(50)).unwrap() {
                        drain(&mut listener);
                        end = false;
                    }
                }
            });
            let took = start.elapsed();
            send(1);
            readable(listener.as_fd(), Duration::from_secs(1)).unwrap();
            drain(&mut listener);
            (listener.statistics(), took)
        });
        eprintln!(
            "threshold {threshold}: {FLOOD} packets sent and read in {took:?}: {statistics:?}"
        );
        assert_eq!(statistics.packets + statistics.lost, logged(&namespace) - before);
        assert_eq!(statistics.malformed, 0);
        assert!(statistics.packets > 0);
    }
}

#[test]
fn a_wake_ends_at_its_bound() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        let mut listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
        send(1000);
        for (packets, more) in [(512, true), (488, false)] {
            let received = listener.receive(PACKETS_PER_WAKE, &mut |_| {}).unwrap();
            assert_eq!((received.packets, received.more), (packets, more));
        }
    });
}

#[test]
fn the_threshold_of_a_bound_group_changes_at_once() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        let mut listener = Listener::bind(Settings {
            flush_after: Duration::from_secs(60),
            ..Settings::of_group(GROUP)
        })
        .unwrap();
        // With a bound of 1, a call reads one datagram.
        for (threshold, sent, first) in [(1, 3, 1), (40, 40, 40), (7, 14, 7), (1, 2, 1), (0, 1, 1)]
        {
            listener.set_batch(threshold).unwrap();
            assert_eq!(listener.settings().queue_threshold, threshold.max(1));
            send(sent);
            let received = listener.receive(1, &mut |_| {}).unwrap();
            assert_eq!(received.packets, first, "threshold {threshold}");
            drain(&mut listener);
        }
        assert_eq!(listener.statistics(), Statistics { packets: 60, ..Statistics::default() });
    });
}

#[test]
fn leaving_the_group_gives_every_last_packet_and_frees_it() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        let mut listener = Listener::bind(Settings {
            queue_threshold: 50,
            flush_after: Duration::from_secs(60),
            ..Settings::of_group(GROUP)
        })
        .unwrap();
        send(3);
        assert_eq!(drain(&mut listener), 0, "the kernel is still collecting");
        listener.unbind().unwrap();
        send(3);
        assert_eq!(drain(&mut listener), 3);
        let mut next = Listener::bind(Settings::of_group(GROUP)).unwrap();
        send(1);
        assert_eq!(drain(&mut next), 1);
        assert_eq!(next.statistics(), Statistics { packets: 1, ..Statistics::default() });
    });
}

#[test]
fn packets_that_come_while_the_group_is_being_bound_are_handed_out_or_counted() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = logging();
    namespace.enter(|| {
        for _ in 0..20 {
            let (statistics, numbers) = std::thread::scope(|scope| {
                // Threads start in the network namespace of their creator. Bounded: a failing test
                // must end too.
                let sender = scope.spawn(|| send(20_000));
                std::thread::sleep(Duration::from_millis(5));
                let mut listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
                let mut numbers = Vec::new();
                while !sender.is_finished()
                    || listener
                        .receive(PACKETS_PER_WAKE, &mut |packet| numbers.push(packet.sequence))
                        .unwrap()
                        .more
                {}
                let statistics = listener.statistics();
                // Closing is not enough: a program that another test is starting has the socket
                // until it executes.
                listener.unbind().unwrap();
                (statistics, numbers)
            });
            assert!(!numbers.is_empty());
            assert_eq!(statistics.malformed, 0);
            // Packets from before the group numbers its packets have no number; later ones are all
            // counted.
            let numbered: Vec<u32> =
                numbers.iter().copied().skip_while(Option::is_none).map(Option::unwrap).collect();
            assert!(numbered.is_sorted());
            let last = u64::from(*numbered.last().unwrap());
            assert_eq!(u64::try_from(numbered.len()).unwrap() + statistics.lost, last + 1);
        }
    });
}

#[test]
fn a_burst_of_ten_thousand_packets_waits_in_the_buffer_without_loss() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    logging().enter(|| {
        let mut listener = Listener::bind(Settings::of_group(GROUP)).unwrap();
        // No reads meanwhile: as if the packet thread were busy with a reload.
        send(10_000);
        assert_eq!(drain(&mut listener), 10_000);
        assert_eq!(listener.statistics(), Statistics { packets: 10_000, ..Statistics::default() });
    });
}
