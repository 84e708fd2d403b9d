//! Services start and stop while the daemon runs, without any message to it: the kernel's socket
//! lookup decides which ports are closed.

use crate::support;

use std::time::Duration;

use support::daemon::Daemon;
use support::netns::{Namespace, Running};
use support::scene::nmap;
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];

struct Scene {
    host: Namespace,
    client: Namespace,
    /// At the other end of a second device.
    _elsewhere: Namespace,
}

impl Scene {
    fn new() -> Self {
        let (host, client, elsewhere) = (Namespace::new(), Namespace::new(), Namespace::new());
        host.join(
            &client,
            "net0",
            &["10.67.1.1/24", "10.67.1.3/24", "fd67:1::1/64"],
            &["10.67.1.2/24", "fd67:1::2/64"],
        );
        host.join(&elsewhere, "other0", &["10.67.2.1/24"], &["10.67.2.2/24"]);
        Self { host, client, _elsewhere: elsewhere }
    }

    /// Sends one packet to `port`; returns whether the daemon saw it as a probe.
    fn is_watched(&self, daemon: &Daemon<'_>, udp: bool, to: &str, port: u16) -> bool {
        let before = probes(daemon);
        let ports = format!("-p{port}");
        let kind = if udp { "-sU" } else { "-sS" };
        let mut words = vec![kind, &*ports];
        if to.contains(':') {
            words.push("-6");
        }
        words.push(to);
        nmap(&self.client, &words);
        // The log message is on its way when nmap ends; packets that are not probes are never
        // logged.
        eventually(Duration::from_millis(300), || probes(daemon) > before)
    }

    /// Starts a service and waits until it listens.
    fn serve(&self, udp: bool, family: &str, address: &str, port: u16, setup: &str) -> Running {
        let program = format!(
            "import socket, sys, time\n\
             s = socket.socket(socket.{family}, socket.{kind})\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             {setup}\n\
             s.bind(('{address}', {port}))\n\
             {listen}\n\
             time.sleep(60)\n",
            kind = if udp { "SOCK_DGRAM" } else { "SOCK_STREAM" },
            listen = if udp { "pass" } else { "s.listen(5)" },
        );
        let service = self.host.spawn("python3", &["-c", &program]);
        let listing = if udp { "-Hlnu" } else { "-Hlnt" };
        let there = eventually(Duration::from_secs(10), || {
            self.host.run("ss", &[listing]).contains(&format!(":{port} "))
        });
        assert!(there, "the service on {address} {port} does not start");
        service
    }

    /// Whether the rules remember a service on this port.
    fn remembers(&self, udp: bool, port: u16) -> bool {
        let services = self.host.run("nft", &["list", "set", "inet", "portsentry", "services"]);
        services.contains(&format!("{} . {port} ", if udp { "udp" } else { "tcp" }))
    }
}

fn probes(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["probes"].as_u64().unwrap()
}

/// What a service binds, and from which addresses it is then reached.
struct Case {
    name: &'static str,
    family: &'static str,
    bind: &'static str,
    setup: &'static str,
    open_at: &'static [&'static str],
    closed_at: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "ipv4 wildcard",
        family: "AF_INET",
        bind: "0.0.0.0",
        setup: "",
        open_at: &["10.67.1.1", "10.67.1.3"],
        closed_at: &["fd67:1::1"],
    },
    Case {
        name: "one ipv4 address",
        family: "AF_INET",
        bind: "10.67.1.3",
        setup: "",
        open_at: &["10.67.1.3"],
        closed_at: &["10.67.1.1"],
    },
    Case {
        name: "loopback only",
        family: "AF_INET",
        bind: "127.0.0.1",
        setup: "",
        open_at: &[],
        closed_at: &["10.67.1.1"],
    },
    Case {
        name: "dual stack",
        family: "AF_INET6",
        bind: "::",
        setup: "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)",
        open_at: &["10.67.1.1", "fd67:1::1"],
        closed_at: &[],
    },
    Case {
        name: "ipv6 only",
        family: "AF_INET6",
        bind: "::",
        setup: "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)",
        open_at: &["fd67:1::1"],
        closed_at: &["10.67.1.1"],
    },
    Case {
        name: "bound to this device",
        family: "AF_INET",
        bind: "0.0.0.0",
        setup: "s.setsockopt(socket.SOL_SOCKET, 25, b'net0')",
        open_at: &["10.67.1.1"],
        closed_at: &[],
    },
    Case {
        name: "bound to another device",
        family: "AF_INET",
        bind: "0.0.0.0",
        setup: "s.setsockopt(socket.SOL_SOCKET, 25, b'other0')",
        open_at: &[],
        closed_at: &["10.67.1.1"],
    },
];

fn a_port_is_watched_until_something_listens_on_it(udp: bool) {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "scan_trigger: 1000");
    for (case, port) in CASES.iter().zip(600u16..) {
        for address in case.open_at.iter().chain(case.closed_at) {
            assert!(
                scene.is_watched(&daemon, udp, address, port),
                "{}: {address} before the service starts",
                case.name
            );
        }
        let service = scene.serve(udp, case.family, case.bind, port, case.setup);
        // Closed places first: a packet that a service takes marks the port as a service's, and so
        // does the list of listening sockets, which the daemon reads every few seconds.
        for address in case.closed_at {
            assert!(
                scene.is_watched(&daemon, udp, address, port) || scene.remembers(udp, port),
                "{}: {address} is closed still",
                case.name
            );
        }
        for address in case.open_at {
            assert!(
                !scene.is_watched(&daemon, udp, address, port),
                "{}: {address} is a service now",
                case.name
            );
        }
        drop(service);
        // A restarting service must not be a trap for its clients: its port stays exempt for a
        // while.
        for address in case.open_at {
            assert!(
                !scene.is_watched(&daemon, udp, address, port),
                "{}: {address} after the service ended",
                case.name
            );
        }
    }
}

// P5, D7
#[test]
fn a_tcp_port_is_watched_until_something_listens_on_it() {
    a_port_is_watched_until_something_listens_on_it(false);
}

// P5
#[test]
fn a_udp_port_is_watched_until_something_listens_on_it() {
    a_port_is_watched_until_something_listens_on_it(true);
}

// P5
#[test]
fn a_service_that_was_there_before_the_daemon_may_restart() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let service = scene.serve(false, "AF_INET", "0.0.0.0", 650, "");
    let daemon = Daemon::start(&scene.host, "scan_trigger: 1000");
    drop(service);
    assert!(
        !scene.is_watched(&daemon, false, "10.67.1.1", 650),
        "its clients' retries are no scan, though nobody connected since the daemon runs"
    );
    assert!(scene.is_watched(&daemon, false, "10.67.1.1", 651));
}
