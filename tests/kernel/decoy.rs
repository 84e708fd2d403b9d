//! Connect mode, end to end: decoys that answer on thousands of ports, over the real kernel and
//! with real scanners.

use crate::support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::Namespace;
use support::scene::nmap;
use support::{eventually, missing};

const HOST4: &str = "10.9.0.1";
const HOST6: &str = "fd09::1";
/// The scanner.
const SCANNER4: &str = "10.9.0.2";
const SCANNER6: &str = "fd09::2";
/// A client of the services.
const CLIENT4: &str = "10.9.1.2";
/// A router; never blocked, and decoys do not answer it.
const ROUTER4: &str = "10.9.2.2";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The protected namespace, and the one of all other hosts.
struct Net {
    host: Namespace,
    world: Namespace,
}

impl Net {
    fn new() -> Self {
        let (host, world) = (Namespace::new(), Namespace::new());
        host.join(
            &world,
            "net0",
            &["10.9.0.1/16", "fd09::1/64"],
            &["10.9.0.2/16", "10.9.1.2/16", "10.9.2.2/16", "fd09::2/64"],
        );
        Self { host, world }
    }

    /// Connects from `source`.
    fn connect(&self, source: &str, host: &str, port: u16) -> std::io::Result<TcpStream> {
        self.connect_within(source, host, port, ANSWER_TIMEOUT)
    }

    fn connect_within(
        &self,
        source: &str,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> std::io::Result<TcpStream> {
        let (source, to): (IpAddr, SocketAddr) =
            (source.parse().unwrap(), SocketAddr::new(host.parse().unwrap(), port));
        self.world.enter(|| {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket =
                rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
            // connect(2) honours it (socket(7)).
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
            // Interrupted, it goes on in the background (connect(2)); a machine that is suspended for
            // a moment does that.
            let deadline = Instant::now() + limit;
            loop {
                use rustix::io::Errno;
                match rustix::net::connect(&socket, &to) {
                    Err(Errno::INTR | Errno::ALREADY) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(Errno::ISCONN) | Ok(()) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(limit))?;
            Ok(stream)
        })
    }

    /// All text that a decoy sends until it closes.
    fn hear(&self, source: &str, host: &str, port: u16) -> String {
        let mut text = String::new();
        self.connect(source, host, port)
            .unwrap_or_else(|error| panic!("{host} {port}: {error}"))
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    fn nmap(&self, arguments: &[&str]) -> String {
        let output = self.world.output(
            "nmap",
            &[&["-n", "-Pn"], arguments].concat(),
            Duration::from_secs(120),
        );
        assert!(
            output.status.success(),
            "nmap {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn listen(&self, at: &str) -> TcpListener {
        self.host.enter(|| TcpListener::bind(at).unwrap())
    }
}

/// A service that greets each client, for as long as it runs.
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
    daemon
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["address"] == address)
        .unwrap()
        .clone()
}

fn decoy(daemon: &Daemon<'_>, figure: &str) -> u64 {
    daemon.json(&["status"])["decoy"][figure]
        .as_u64()
        .unwrap_or_else(|| panic!("no figure {figure}"))
}

/// Connect mode for these TCP ports; the same block with `ipv6_prefix: 128`, as host and scanner
/// share a /64.
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

// P23, D15
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
        assert_eq!(
            (&row["proven"], &row["scan"]),
            (&Value::Bool(true), &Value::from("connect")),
            "{row}"
        );
        assert!(
            daemon.log().contains(&format!("Connect from host: {source}/{source} to TCP port: 23")),
            "{}",
            daemon.log()
        );
        assert_eq!(
            (decoy(&daemon, "connections"), decoy(&daemon, "banners"), decoy(&daemon, "half_open")),
            (3, 1, 0)
        );
        // A block of a verified source lasts its full time.
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
        // Report only, so that the scan runs to its end.
        let daemon = Daemon::start(
            &net.host,
            &tcp("\"1-5000\"", 2).replace("mode: connect", "mode: connect, action: log"),
        );
        let mut words = vec!["-sT", "-p", "1-5000", "-T4", "-oX", "-", host];
        if six {
            words.push("-6");
        }
        let report = net.nmap(&words);
        let open = report.matches("state=\"open\"").count();
        eprintln!("{open} of 5,000 decoys found open over {host}");
        assert!(open >= 4_950, "{open} of 5,000 decoys are open");
        let taken = decoy(&daemon, "connections");
        // nmap resets each connection at once; occasionally the reset overtakes the acknowledgement
        // from another processor, and ends the handshake.
        assert!(taken >= 4_800, "{taken} connections taken: {}", daemon.json(&["status"])["decoy"]);
        // The account keeps the latest ports only, which may be those of handshakes ended by the
        // reset.
        assert!(daemon.log().contains(&format!("Connect from host: {source}")), "{}", daemon.log());
        assert!(daemon.json(&["show", source])["touched"].as_u64().unwrap() > 2);
        assert_eq!(daemon.blocked(), [""; 0]);
    }
}

#[test]
fn a_large_connect_scan_sees_decoys_up_to_the_trigger_and_is_blocked_before_its_end() {
    need!("nmap");
    let net = Net::new();
    let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 1023));
    let report =
        nmap(&net.world, &["-sT", "-p", "1-5000", "-T4", "--min-rate", "500", "-v", HOST4]);
    // If the host falls silent, nmap may give up and print its result early.
    let open = report.matches("Discovered open port").count();
    eprintln!("{open} of 5,000 decoys found open before the block");
    // The kernel completes handshakes ahead of the daemon, as many at once as the rules admit: on a
    // busy machine the block is that much later.
    assert!((1000..5000).contains(&open), "{open}\n{report}");
    let row = row(&daemon, SCANNER4);
    assert_eq!(
        (&row["proven"], &row["scan"]),
        (&Value::Bool(true), &Value::from("connect")),
        "{row}"
    );
}

#[test]
fn a_connect_scan_is_blocked_with_proof() {
    need!("nmap");
    for trigger in [0, 2] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", trigger));
        let report =
            nmap(&net.world, &["-sT", "-p", "1-1000", "--min-rate", "200", "-oG", "-", HOST4]);
        let row = row(&daemon, SCANNER4);
        assert_eq!(
            (&row["proven"], &row["scan"]),
            (&Value::Bool(true), &Value::from("connect")),
            "{row} {report}"
        );
    }
}

// P23
#[test]
fn a_half_open_scan_of_decoys_is_detected() {
    need!("nmap");
    for (trigger, host, source, six) in [(2, HOST4, SCANNER4, false), (0, HOST6, SCANNER6, true)] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", trigger));
        let mut words = vec!["-sS", "-p", "1-50", "-oX", "-", host];
        if six {
            words.push("-6");
        }
        let report = net.nmap(&words);
        assert!(report.contains("state=\"open\""), "the decoys answer: {report}");
        // A half-open handshake counts when it can no longer be completed: after three seconds.
        assert!(
            eventually(Duration::from_secs(10), || daemon.blocked() == [source]),
            "{}",
            daemon.log()
        );
        let row = row(&daemon, source);
        assert_eq!(
            (&row["proven"], &row["scan"]),
            (&Value::Bool(false), &Value::from("syn")),
            "{row}"
        );
        assert!(decoy(&daemon, "half_open") > 0 && decoy(&daemon, "connections") == 0);
    }
}

// P23
#[test]
fn a_fast_half_open_scan_learns_no_more_decoys_than_a_source_may_touch_and_one() {
    need!("nmap");
    for (yaml, state) in [(AT_DEFAULTS, "slowed"), ("", "blocked")] {
        for (host, source, six) in [(HOST4, SCANNER4, false), (HOST6, SCANNER6, true)] {
            let net = Net::new();
            let daemon = Daemon::start(&net.host, &format!("{}{yaml}\n", tcp("\"1-5000\"", 2)));
            let mut words = vec![
                "-sS",
                "-T4",
                "--min-rate",
                "1000",
                "--max-retries",
                "0",
                "-p",
                "1-600",
                "-v",
                host,
            ];
            if six {
                words.push("-6");
            }
            let began = Instant::now();
            let report = net.nmap(&words);
            let open = report.matches("Discovered open port").count();
            let state_of = || {
                let list = daemon.json(&["list"]);
                let row = list.as_array().unwrap().iter().find(|row| row["address"] == source);
                row.map(|row| row["state"].as_str().unwrap().to_owned())
            };
            assert!(
                eventually(Duration::from_secs(20), || state_of().as_deref() == Some(state)),
                "{source}: {:?} {}",
                state_of(),
                daemon.log()
            );
            println!("{host}: {open} of 600 open, {state} within {:?}", began.elapsed());
            assert!((1..=3).contains(&open), "{open} of 600: {report}");
        }
    }
}

#[test]
fn scans_that_open_nothing_are_detected_on_decoys_as_in_stealth_mode() {
    need!("nmap");
    for (option, scan) in
        [("-sF", "fin"), ("-sN", "null"), ("-sX", "xmas"), ("-sM", "maimon"), ("-sA", "ack")]
    {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 2));
        nmap(&net.world, &[option, "-p", "1-60", HOST4]);
        assert!(
            eventually(Duration::from_secs(10), || daemon.blocked() == [SCANNER4]),
            "{option}: {}",
            daemon.log()
        );
        assert_eq!(row(&daemon, SCANNER4)["scan"], scan);
    }
}

#[test]
fn a_datagram_past_the_trigger_is_answered_with_the_banner_from_where_it_was_sent_to() {
    need!();
    let yaml = "tcp: { mode: off }\nudp: { mode: connect, ports: [\"1-5000\"] }\nscan_trigger: 1\nrespond: { banner: \"caught by the decoy\" }\n";
    for (host, source) in [(HOST4, SCANNER4), (HOST6, SCANNER6)] {
        let net = Net::new();
        let daemon = Daemon::start(&net.host, yaml);
        let ask = |port: u16| {
            net.world.enter(|| {
                let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
                // Connected: answers from another address or port are not delivered.
                socket.connect(SocketAddr::new(host.parse().unwrap(), port)).unwrap();
                socket.send(b"?").unwrap();
                let mut answer = [0; 100];
                socket
                    .recv(&mut answer)
                    .map(|length| String::from_utf8_lossy(&answer[..length]).into_owned())
            })
        };
        assert_eq!(
            ask(161).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "below the trigger: silence"
        );
        assert_eq!(ask(53).unwrap(), "caught by the decoy");
        assert_eq!(ask(4999).unwrap(), "caught by the decoy");
        assert_eq!(ask(5001).unwrap_err().kind(), ErrorKind::ConnectionRefused, "no decoy's port");
        assert_eq!(decoy(&daemon, "banners"), 2);
        let answered = (0..60).filter(|n| ask_quickly(&net, source, host, 100 + n)).count();
        assert!(
            answered < 60 && decoy(&daemon, "unanswered") > 0,
            "{answered} of 60 datagrams were answered"
        );
        // The decoy does not answer for a service on its port.
        let service =
            net.host.enter(|| UdpSocket::bind(SocketAddr::new(host.parse().unwrap(), 69)).unwrap());
        service.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        assert!(ask(69).is_err());
        assert_eq!(service.recv(&mut [0; 10]).unwrap(), 1);
    }
}

/// Whether a datagram is answered within a short time.
fn ask_quickly(net: &Net, source: &str, host: &str, port: u16) -> bool {
    net.world.enter(|| {
        let socket = UdpSocket::bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket.send_to(b"?", SocketAddr::new(host.parse().unwrap(), port)).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    })
}

#[test]
fn without_a_banner_no_datagram_is_answered() {
    need!();
    let net = Net::new();
    let daemon = Daemon::start(
        &net.host,
        "tcp: { mode: off }\nudp: { mode: connect, ports: [\"1-500\"] }\nscan_trigger: 0\n",
    );
    assert!(!ask_quickly(&net, SCANNER4, HOST4, 161) && !ask_quickly(&net, SCANNER4, HOST4, 162));
    daemon.wait_for_log("attackalert: UDP scan from host: 10.9.0.2");
}

// P22
#[test]
fn a_port_a_service_listens_on_is_never_a_decoy() {
    need!("nft");
    let net = Net::new();
    let first = net.listen("0.0.0.0:80");
    greet(&first);
    let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 0));
    let hear = |port| {
        let mut text = String::new();
        net.connect(CLIENT4, HOST4, port)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map(|_| text)
    };
    assert_eq!(hear(80).unwrap(), "service");
    // A service that starts later, on a port where a decoy has just had a connection.
    assert_eq!(net.hear(SCANNER4, HOST4, 443), "caught by the decoy");
    let second = net.listen("0.0.0.0:443");
    greet(&second);
    assert_eq!(hear(443).unwrap(), "service");
    assert!(daemon.blocked().iter().all(|address| address == SCANNER4));
    // A redirection of a decoy's port to an unwatched one.
    let behind = net.listen("0.0.0.0:8443");
    greet(&behind);
    let nat = "table ip elsewhere { chain pre { type nat hook prerouting priority -100; tcp dport 25 redirect to :8443; }; }";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), nat).unwrap();
    net.host.run("nft", &["-f", file.path().to_str().unwrap()]);
    assert_eq!(hear(25).unwrap(), "service");
    assert_eq!(daemon.blocked(), [SCANNER4]);
    assert_eq!(decoy(&daemon, "connections"), 1);
}

// P22
#[test]
fn a_service_that_restarts_is_no_decoy_meanwhile() {
    need!();
    let net = Net::new();
    let daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 0));
    let service = net.listen("0.0.0.0:80");
    drop(net.connect(CLIENT4, HOST4, 80).unwrap());
    drop(service.accept().unwrap());
    drop(service);
    // Its clients get a reset as usual, and are not blocked for it. A program that another test starts
    // at this moment may hold the listening socket until it is executed.
    let is_refused = || matches!(net.connect(CLIENT4, HOST4, 80), Err(error) if error.kind() == ErrorKind::ConnectionRefused);
    assert!(eventually(Duration::from_secs(5), is_refused));
    let service = net.listen("0.0.0.0:80");
    greet(&service);
    assert_eq!(net.hear(CLIENT4, HOST4, 80), "service");
    assert_eq!((daemon.blocked(), decoy(&daemon, "connections")), (Vec::new(), 0));
}

// P22
#[test]
fn allowed_hosts_see_closed_ports() {
    need!();
    let net = Net::new();
    let daemon = Daemon::start(
        &net.host,
        &format!("{}allow: [{SCANNER4}, \"{SCANNER6}\"]\n", tcp("\"1-5000\"", 0)),
    );
    for (host, source) in [(HOST4, SCANNER4), (HOST6, SCANNER6)] {
        for port in [21, 23, 4999] {
            assert_eq!(
                net.connect(source, host, port).unwrap_err().kind(),
                ErrorKind::ConnectionRefused
            );
        }
    }
    assert_eq!(net.hear(CLIENT4, HOST4, 21), "caught by the decoy");
    assert_eq!((daemon.blocked(), decoy(&daemon, "connections")), (vec![CLIENT4.to_owned()], 1));
}

#[test]
fn observe_mode_has_no_decoys() {
    need!();
    let net = Net::new();
    let daemon = Daemon::start(&net.host, &format!("mode: observe\n{}", tcp("\"1-5000\"", 0)));
    assert_eq!(net.connect(SCANNER4, HOST4, 23).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    daemon.wait_for_log("attackalert: TCP SYN/Normal scan from host: 10.9.0.2");
    assert!(
        daemon.json(&["status"])["warnings"].to_string().contains("mode observe answers nothing")
    );
}

#[test]
fn a_reload_goes_to_connect_mode_and_back_and_moves_the_listener() {
    need!();
    let net = Net::new();
    let stealth =
        "tcp: { mode: stealth, ports: [\"1-5000\"] }\nudp: { mode: off }\nscan_trigger: 5\n";
    let connect =
        "tcp: { mode: connect, ports: [\"1-5000\"] }\nudp: { mode: off }\nscan_trigger: 5\n";
    let daemon = Daemon::start(&net.host, stealth);
    let quick = Duration::from_millis(400);
    let reload = |yaml: &str| {
        daemon.write_configuration(yaml);
        let output = daemon.ctl(&["reload"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let listeners = || {
        net.host.run("ss", &["-Hltn"]).matches(":61000").count()
            + 10 * net.host.run("ss", &["-Hltn"]).matches(":61001").count()
    };
    assert!(is_silence(net.connect_within(SCANNER4, HOST4, 1, quick)));
    assert!(reload(connect).0);
    assert_eq!(net.hear(SCANNER4, HOST4, 1), "");
    assert_eq!(listeners(), 2);
    // Another port, and other ports.
    assert!(
        reload(&format!(
            "{}capture: {{ decoy_port: 61001 }}\n",
            connect.replace("1-5000", "2-5000")
        ))
        .0
    );
    assert_eq!(net.hear(SCANNER4, HOST4, 2), "");
    assert_eq!(
        net.connect_within(SCANNER4, HOST4, 1, quick).unwrap_err().kind(),
        ErrorKind::ConnectionRefused,
        "not watched any more"
    );
    assert_eq!(listeners(), 20);
    // An impossible configuration is refused as a whole, and the old one stays in force.
    let taken = net.listen("127.0.0.1:61002");
    let (done, error) = reload(&format!("{connect}capture: {{ decoy_port: 61002 }}\n"));
    assert!(!done && error.contains("capture.decoy_port 61002 is in use"), "{error}");
    assert_eq!(net.hear(SCANNER4, HOST4, 3), "");
    assert_eq!(listeners(), 20);
    drop(taken);
    assert!(reload(stealth).0);
    assert!(is_silence(net.connect_within(SCANNER4, HOST4, 4, quick)));
    assert_eq!(listeners(), 0);
}

// D15
#[test]
fn a_decoy_port_that_is_in_use_is_named_and_nothing_is_installed() {
    need!("nft");
    let net = Net::new();
    for at in ["127.0.0.1:61000", "[::1]:61000"] {
        let _taken = net.listen(at);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portsentry.yaml");
        let at_home = directory.path().display();
        let yaml = format!(
            "{}state_dir: {at_home}\nhistory_file: \"\"\ncontrol: {{ socket: {at_home}/control.sock, group: \"\" }}\n",
            tcp("7", 0)
        );
        std::fs::write(&path, yaml).unwrap();
        let output = net.host.output(
            env!("CARGO_BIN_EXE_portsentry"),
            &["--config", path.to_str().unwrap()],
            Duration::from_secs(10),
        );
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(
            text.contains("capture.decoy_port 61000 is in use; write a free port there"),
            "{text}"
        );
        assert!(!net.host.run("nft", &["list", "tables"]).contains("portsentry"));
    }
}

#[test]
fn when_the_daemon_is_gone_the_ports_are_silent_again() {
    need!();
    let net = Net::new();
    let mut daemon = Daemon::start(&net.host, &tcp("\"1-5000\"", 5));
    assert_eq!(net.hear(SCANNER4, HOST4, 7), "");
    daemon.stop();
    assert!(net.connect_within(SCANNER4, HOST4, 8, Duration::from_millis(400)).is_err());
    daemon.restart(&tcp("\"1-5000\"", 5));
    assert_eq!(net.hear(SCANNER4, HOST4, 7), "");
}

/// connect(2) with a time limit reports that it is still in progress.
fn is_silence(result: std::io::Result<TcpStream>) -> bool {
    result
        .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EAGAIN)))
}

/// Kilobytes of resident memory, and open descriptors.
fn held(daemon: &Daemon<'_>) -> (u64, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap();
    (daemon.memory("VmRSS"), descriptors.count())
}

// P22
#[test]
fn half_open_and_idle_connections_are_bounded_and_others_served() {
    need!("python3");
    const HALF_OPEN: u64 = 20_000;
    const IDLE: u16 = 5_000;
    let net = Net::new();
    // Answers to the forged sources end in the other namespace, which has no further route.
    net.host.run("ip", &["route", "add", "10.77.0.0/16", "via", ROUTER4]);
    let service = net.listen("0.0.0.0:80");
    greet(&service);
    // Report only: a block would end it too early.
    let daemon = Daemon::start(
        &net.host,
        &tcp("\"1-60000\"", 2).replace("mode: connect", "mode: connect, action: log"),
    );
    let before = held(&daemon);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    )
    .unwrap();
    let traffic = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/traffic.py");
    let (most_memory, most_open) = std::thread::scope(|scope| {
        let idle: Vec<_> = (0..10u16)
            .map(|part| {
                let net = &net;
                let connect = move |n| {
                    net.connect_within(
                        SCANNER4,
                        HOST4,
                        1000 + part * (IDLE / 10) + n,
                        Duration::from_secs(60),
                    )
                };
                scope.spawn(move || (0..IDLE / 10).map(connect).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let flood =
            scope.spawn(|| net.world.run("python3", &[traffic, "half_open", "10.77.0.0", HOST4]));
        let mut most = before;
        let mut served = 0;
        while !(flood.is_finished() && idle.iter().all(|part| part.is_finished())) {
            assert_eq!(
                net.hear(CLIENT4, HOST4, 80),
                "service",
                "a client of a real service, while it goes on"
            );
            served += 1;
            let now = held(&daemon);
            most = (most.0.max(now.0), most.1.max(now.1));
            std::thread::sleep(Duration::from_millis(20));
        }
        flood.join().unwrap();
        let idle: usize = idle.into_iter().map(|part| part.join().unwrap().unwrap().len()).sum();
        assert_eq!(idle, usize::from(IDLE), "each got its connection");
        assert!(served > 10);
        most
    });
    // A client of a decoy, after the rate has recovered.
    assert_eq!(
        net.connect_within(CLIENT4, HOST4, 7, Duration::from_secs(20))
            .unwrap()
            .read(&mut [0; 10])
            .unwrap(),
        0
    );
    let entries: u64 = net
        .host
        .run("cat", &["/proc/sys/net/netfilter/nf_conntrack_count"])
        .trim()
        .parse()
        .unwrap();
    let (connections, half_open) = (decoy(&daemon, "connections"), decoy(&daemon, "half_open"));
    let grown = (most_memory - before.0) * 1024;
    eprintln!(
        "{connections} connections, {half_open} half-open told, {} refused: {grown} bytes of memory and {} descriptors more at the most; {entries} entries in conntrack",
        decoy(&daemon, "refused"),
        most_open - before.1
    );
    // The engine's account of each forged source, and memory kept by the allocator and the
    // journal's queue.
    let accounts = HALF_OPEN * 127;
    assert!(grown < portsentry::decoy::MEMORY_MAX as u64 + accounts + (4 << 20), "{grown} bytes");
    assert!(
        most_open - before.1 <= portsentry::decoy::tcp::CONNECTIONS_MAX + 8,
        "{most_open} descriptors"
    );
    assert!(entries < 28_000 + 1_000, "{entries} entries");
    assert!(connections > u64::from(IDLE));
    assert!(eventually(Duration::from_secs(10), || decoy(&daemon, "held") == 0
        && decoy(&daemon, "waiting") == 0));
    assert!(
        decoy(&daemon, "half_open") >= HALF_OPEN / 2,
        "loss is possible, silence is not: {}",
        daemon.json(&["status"])
    );
    assert!(held(&daemon).1 <= before.1 + 8);
}

#[test]
fn the_classic_mode_names_select_connect_mode() {
    let rules = |words: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portsentry.yaml");
        std::fs::write(&path, "scan_trigger: 1\n").unwrap();
        let words = [&["--config", path.to_str().unwrap(), "--print-rules"], words].concat();
        let output =
            support::output(env!("CARGO_BIN_EXE_portsentry"), &words, Duration::from_secs(10));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        [
            text.contains("meta l4proto tcp tproxy ip to 127.0.0.1:61000"),
            text.contains("meta l4proto udp tproxy ip6 to [::1]:61000"),
        ]
    };
    assert_eq!(rules(&["-tcp"]), [true, false]);
    assert_eq!(rules(&["-udp"]), [false, true]);
    assert_eq!(rules(&["-tcp", "-udp"]), [true, true]);
    assert_eq!(rules(&["-stcp", "-audp"]), [false, false]);
}

#[test]
fn connecting_to_the_listener_itself_is_not_a_scan() {
    need!();
    let net = Net::new();
    let daemon = Daemon::start(&net.host, &tcp("\"1-65535\"", 0));
    let mut text = String::new();
    net.host
        .enter(|| TcpStream::connect("127.0.0.1:61000").unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "");
    assert!(eventually(ANSWER_TIMEOUT, || decoy(&daemon, "refused") == 1));
    // From outside its port is a decoy like any other.
    assert_eq!(net.hear(SCANNER4, HOST4, 61000), "caught by the decoy");
    assert_eq!((decoy(&daemon, "connections"), daemon.blocked()), (1, vec![SCANNER4.to_owned()]));
}

#[test]
fn missing_banners_of_low_ports_are_reported() {
    need!("setpriv");
    let net = Net::new();
    let directory = tempfile::tempdir().unwrap();
    let (path, at_home) = (directory.path().join("portsentry.yaml"), directory.path().display());
    let yaml = format!(
        "tcp: {{ mode: \"off\" }}\nudp: {{ mode: connect, ports: [69] }}\nscan_trigger: 0\nrespond: {{ banner: hello }}\nstate_dir: {at_home}\nhistory_file: \"\"\ncontrol: {{ socket: {at_home}/control.sock, group: \"\" }}\n"
    );
    std::fs::write(&path, yaml).unwrap();
    let words =
        ["2", "setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"];
    let program = [env!("CARGO_BIN_EXE_portsentry"), "--config", path.to_str().unwrap()];
    let output =
        net.host.output("timeout", &[&words[..], &program].concat(), Duration::from_secs(10));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("CAP_NET_BIND_SERVICE is missing"), "{text}");
}
