//! Connect mode, end to end: decoys that answer on thousands of ports, over the real kernel and with real scanners.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it fails"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;
use support::daemon::Daemon;
use support::netns::Namespace;
use support::{eventually, missing};

const HOST4: &str = "10.9.0.1";
const HOST6: &str = "fd09::1";
/// Who scans.
const SCANNER4: &str = "10.9.0.2";
const SCANNER6: &str = "fd09::2";
/// Who uses the services.
const CLIENT4: &str = "10.9.1.2";
const PATIENCE: Duration = Duration::from_secs(3);

/// The namespace that is guarded, and the one of everybody else.
struct Net {
    host: Namespace,
    world: Namespace,
}

impl Net {
    fn new() -> Self {
        let (host, world) = (Namespace::new(), Namespace::new());
        host.join(&world, "net0", &["10.9.0.1/16", "fd09::1/64"], &["10.9.0.2/16", "10.9.1.2/16", "fd09::2/64"]);
        Self { host, world }
    }

    /// Connects from `source`.
    fn connect(&self, source: &str, host: &str, port: u16) -> std::io::Result<TcpStream> {
        self.connect_within(source, host, port, PATIENCE)
    }

    fn connect_within(&self, source: &str, host: &str, port: u16, limit: Duration) -> std::io::Result<TcpStream> {
        let (source, to): (IpAddr, SocketAddr) = (source.parse().unwrap(), SocketAddr::new(host.parse().unwrap(), port));
        self.world.enter(|| {
            use rustix::net::{AddressFamily, SocketType, sockopt};
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
            // connect(2) honours it (socket(7)).
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
            rustix::net::connect(&socket, &to)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(limit))?;
            Ok(stream)
        })
    }

    /// All that a decoy says until it closes.
    fn hear(&self, source: &str, host: &str, port: u16) -> String {
        let mut text = String::new();
        self.connect(source, host, port).unwrap_or_else(|error| panic!("{host} {port}: {error}")).read_to_string(&mut text).unwrap();
        text
    }

    fn nmap(&self, arguments: &[&str]) -> String {
        let output = self.world.output("nmap", &[&["-n", "-Pn"], arguments].concat(), Duration::from_secs(120));
        assert!(output.status.success(), "nmap {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A service that says hello to each who connects, for as long as the listener is kept.
    fn listen(&self, at: &str) -> TcpListener {
        self.host.enter(|| TcpListener::bind(at).unwrap())
    }
}

fn greet(listener: &TcpListener) {
    let listener = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"service");
        }
    });
}

fn row(daemon: &Daemon<'_>, address: &str) -> Value {
    daemon.wait_for_block(address);
    daemon.json(&["list"]).as_array().unwrap().iter().find(|row| row["address"] == address).unwrap().clone()
}

fn decoy(daemon: &Daemon<'_>, figure: &str) -> u64 {
    daemon.json(&["status"])["decoy"][figure].as_u64().unwrap_or_else(|| panic!("no figure {figure}"))
}

/// Connect mode for these TCP ports; the same block with `ipv6_prefix: 128`, as host and scanner share a /64.
fn tcp(ports: &str, trigger: u16) -> String {
    format!(
        "tcp: {{ mode: connect, ports: [{ports}] }}\nudp: {{ mode: off }}\nscan_trigger: {trigger}\nblock: {{ ipv6_prefix: 128 }}\nrespond: {{ banner: \"caught by the decoy\" }}\n"
    )
}

macro_rules! need {
    ($($tool:literal),*) => {
        if missing(&["ip", $($tool),*]).is_some() {
            return;
        }
    };
}

#[test]
fn a_connection_past_the_trigger_is_recorded_as_a_handshake_and_gets_the_banner() {
    need!();
    for (host, source) in [(HOST4, SCANNER4), (HOST6, SCANNER6)] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 2));
        assert_eq!(net.hear(source, host, 7), "");
        assert_eq!(net.hear(source, host, 4999), "");
        assert!(daemon.blocked().is_empty());
        assert_eq!(net.hear(source, host, 23), "caught by the decoy");
        let row = row(&daemon, source);
        assert_eq!((&row["proven"], &row["scan"]), (&Value::Bool(true), &Value::from("connect")), "{row}");
        assert!(daemon.log().contains(&format!("Connect from host: {source}/{source} to TCP port: 23")), "{}", daemon.log());
        assert_eq!((decoy(&daemon, "connections"), decoy(&daemon, "banners"), decoy(&daemon, "half_open")), (3, 1, 0));
        // A proven block lasts its full time.
        assert!(row["expires_in"].as_u64().unwrap() > 3000, "{row}");
        assert!(net.connect_within(source, host, 8, Duration::from_secs(1)).is_err(), "blocked");
    }
}

#[test]
fn with_trigger_zero_the_first_handshake_comes_through_and_blocks() {
    need!();
    for (host, source) in [(HOST4, SCANNER4), (HOST6, SCANNER6)] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 0));
        assert_eq!(net.hear(source, host, 80), "caught by the decoy");
        assert_eq!(row(&daemon, source)["proven"], Value::Bool(true));
    }
}

#[test]
fn a_connect_scan_finds_five_thousand_decoys_open() {
    need!("nmap");
    for (host, source, six) in [(HOST4, SCANNER4, false), (HOST6, SCANNER6, true)] {
        let net = Net::new();
        // The engine tells up to 1,023 ports apart; past it the source is blocked, so here the trigger is one that the scan never passes.
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 0).replace("scan_trigger: 0", "scan_trigger: 4999"));
        let mut words = vec!["-sT", "-p", "1-5000", "-T4", "--open", "-oG", "-", "-S", source, "-e", "net0", host];
        words.drain(7..11);
        if six {
            words.push("-6");
        }
        let report = net.nmap(&words);
        let open = report.matches("/open/tcp/").count();
        assert!(open >= 4_990, "{open} of 5,000 decoys are open\n{}", daemon.log());
        eprintln!("{open} of 5,000 decoys found open over {host}");
        assert!(decoy(&daemon, "connections") >= 4_990);
        let row = daemon.json(&["show", source]);
        assert!(row.to_string().contains("connect"), "{row}");
    }
}

#[test]
fn a_connect_scan_is_blocked_with_proof() {
    need!("nmap");
    for trigger in [0, 2] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", trigger));
        let report = net.nmap(&["-sT", "-p", "1-1000", "--max-retries", "0", "--host-timeout", "20s", "-oG", "-", HOST4]);
        let row = row(&daemon, SCANNER4);
        assert_eq!((&row["proven"], &row["scan"]), (&Value::Bool(true), &Value::from("connect")), "{row} {report}");
    }
}
