//! The host with two services, a blocked scanner, and all other hosts; what must hold beside any
//! firewall.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use portsentry::nft::{Connection, Key};
use portsentry::ruleset::{SCHEMA, SetId};

use crate::support::daemon::Daemon;
use crate::support::jail::{self, Jail};
use crate::support::netns::{Namespace, Running};
use crate::support::scene::nmap;
use crate::support::{eventually, skip};

/// The host's address for the scanner.
const HOST: &str = "10.72.1.1";
const HOST6: &str = "fd72:1::1";
/// Blocked from the beginning; its IPv6 prefix is not the host's.
const SCANNER: &str = "10.72.1.2";
const SCANNER6: &str = "fd72:77::2";
const PREFIX6: &str = "fd72:77::/64";
/// The host's address for all others.
const HOST_FOR_OTHERS: &str = "10.72.2.1";
/// A client of the services, who never scans.
pub const CLIENT: &str = "10.72.2.2";
/// A service that every firewall here allows.
pub const OPEN: u16 = 80;
/// A service that they allow at times.
pub const SHUT: u16 = 443;
/// Programs that each test needs beside the tested one.
pub const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping", "unshare", "nsenter", "setpriv"];
/// Blocks that outlast a test, so that their remaining time is known.
const YAML: &str = "block: { unproven: { timeout: 1h } }\n";
/// A decoy's port, if `DECOYS` is the configuration.
pub const DECOY: u16 = 25;
pub const DECOYS: &str = "tcp: { mode: connect, ports: [\"1-1023\"] }\n";
/// Duration of the blocks of `YAML`.
const BLOCK: u64 = 3600;

/// Host, scanner, and the network of all others.
pub struct Scene {
    pub host: Namespace,
    pub scanner: Namespace,
    pub others: Namespace,
    open: TcpListener,
    _shut: TcpListener,
    newcomers: AtomicU8,
}

impl Scene {
    pub fn new() -> Self {
        let (host, scanner, others) = (Namespace::new(), Namespace::new(), Namespace::new());
        host.join(
            &scanner,
            "fw0",
            &["10.72.1.1/24", "fd72:1::1/64"],
            &["10.72.1.2/24", "fd72:77::2/64"],
        );
        host.run("ip", &["-6", "route", "add", PREFIX6, "dev", "fw0"]);
        scanner.run("ip", &["-6", "route", "add", "fd72:1::/64", "dev", "fw0"]);
        host.join(&others, "fw1", &["10.72.2.1/24"], &["10.72.2.2/24"]);
        let listen = |port| host.enter(move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let (open, shut) = (listen(OPEN), listen(SHUT));
        open.set_nonblocking(true).unwrap();
        Self { host, scanner, others, open, _shut: shut, newcomers: AtomicU8::new(100) }
    }

    /// A SYN scan of closed ports, with further `words` for nmap.
    fn scan(from: &Namespace, words: &[&str]) {
        nmap(from, &[&["-sS", "-p1-40"], words].concat());
    }

    /// A scan from an address of `others`.
    pub fn is_scanned_by(&self, source: &str) {
        Self::scan(&self.others, &["-S", source, "-e", "fw1", HOST_FOR_OTHERS]);
    }

    /// Whether `others` can connect to `port`: the handshake is completed.
    pub fn lets_in(&self, port: u16) -> bool {
        connect(&self.others, HOST_FOR_OTHERS, port, Duration::from_millis(1500)).is_some()
    }

    /// A client of the allowed service, and the service's end of their connection.
    pub fn session(&self) -> Session {
        // Earlier clients that were not waited for.
        while self.open.accept().is_ok() {}
        let client = connect(&self.others, HOST_FOR_OTHERS, OPEN, Duration::from_secs(5))
            .expect("the client gets through");
        let mut service = None;
        let is_there = || {
            service =
                self.open.accept().ok().filter(|(_, peer)| *peer == client.local_addr().unwrap());
            service.is_some()
        };
        assert!(eventually(Duration::from_secs(20), is_there), "the service has no connection");
        let (service, _) = service.unwrap();
        service.set_nonblocking(false).unwrap();
        for end in [&client, &service] {
            end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        Session { client, service }
    }

    /// An address of `others` that has sent nothing so far.
    fn newcomer(&self) -> String {
        let address =
            Ipv4Addr::new(10, 72, 2, self.newcomers.fetch_add(1, Ordering::Relaxed)).to_string();
        self.others.run("ip", &["addr", "add", &format!("{address}/24"), "dev", "fw1"]);
        address
    }

    /// Whether the host answers an address of `others`.
    fn answers(&self, address: &str) -> bool {
        ping(&self.others, &["-I", address, HOST_FOR_OTHERS])
    }

    /// Packets of the scanner that our rules have dropped, by IPv4 and IPv6.
    fn dropped(&self) -> [u64; 2] {
        let count = |set, address: &str| {
            let key = Key::from(address.parse::<IpAddr>().unwrap());
            let found = Connection::open(SCHEMA).unwrap().get_element(set, key).unwrap();
            found.map_or(0, |info| info.packets)
        };
        self.host.enter(|| {
            [count(SetId::BlockedPackets4, SCANNER), count(SetId::BlockedPackets6, SCANNER6)]
        })
    }

    /// The handle of a table, `None` without it: it changes whenever the table was deleted.
    pub fn handle_of(&self, table: &str) -> Option<u64> {
        let listing = self.host.run("nft", &["-j", "list", "tables"]);
        let tables: serde_json::Value = serde_json::from_str(&listing).unwrap();
        let entry = tables["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["table"]["name"] == table)?;
        entry["table"]["handle"].as_u64()
    }

    /// The handle of our table.
    pub fn handle(&self) -> u64 {
        self.handle_of("portsentry").expect("our table")
    }

    /// Sends packets of the scanner from now on, fifty a second by IPv4 and IPv6.
    pub fn knocks(&self) -> [Running; 2] {
        [HOST, HOST6].map(|host| self.scanner.spawn("ping", &["-n", "-q", "-i", "0.02", host]))
    }
}

/// How many of the packets were answered.
pub fn answered(knocks: [Running; 2]) -> u32 {
    let received = knocks.map(|mut knocks| {
        Command::new("kill").args(["-INT", &knocks.0.id().to_string()]).status().unwrap();
        knocks.0.wait().unwrap();
        let mut text = String::new();
        knocks.0.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        let counted = text
            .split(", ")
            .find_map(|word| word.strip_suffix(" received"))
            .and_then(|count| count.parse::<u32>().ok());
        counted.unwrap_or_else(|| panic!("{text}"))
    });
    received.iter().sum()
}

fn ping(from: &Namespace, words: &[&str]) -> bool {
    let words = [&["-n", "-c", "1", "-W", "1"], words].concat();
    from.output("ping", &words, Duration::from_secs(5)).status.success()
}

/// A connection, if the handshake is completed.
fn connect(from: &Namespace, host: &str, port: u16, limit: Duration) -> Option<TcpStream> {
    let address = SocketAddr::new(host.parse().unwrap(), port);
    from.enter(|| TcpStream::connect_timeout(&address, limit)).ok()
}

/// Both ends of a connection.
pub struct Session {
    client: TcpStream,
    service: TcpStream,
}

impl Session {
    /// Sends and receives a message in both directions.
    pub fn continues(&mut self) -> bool {
        let mut word = [0; 4];
        let mut pass = |from: &TcpStream, to: &TcpStream| {
            let (mut from, mut to) = (from, to);
            from.write_all(b"word").and_then(|()| to.read_exact(&mut word)).is_ok()
        };
        pass(&self.client, &self.service) && pass(&self.service, &self.client)
    }
}

/// The daemon beside another firewall, with what it must have logged and done so far.
pub struct Beside<'a> {
    pub scene: &'a Scene,
    pub daemon: Daemon<'a>,
    /// A client from before the other firewall.
    session: Session,
    /// The scanner's two addresses were blocked between these.
    blocked_at: [Instant; 2],
    /// Addresses blocked so far.
    pub blocked: Vec<String>,
    /// Number of repairs of the table so far.
    pub repairs: u64,
}

impl<'a> Beside<'a> {
    /// Starts the daemon and has the scanner blocked.
    pub fn start(scene: &'a Scene, yaml: &str) -> Self {
        let daemon = Daemon::start(&scene.host, &format!("{YAML}{yaml}"));
        for host in [HOST, HOST6] {
            assert!(
                eventually(Duration::from_secs(20), || ping(&scene.scanner, &[host])),
                "the scanner is not answered before it scans"
            );
        }
        Scene::scan(&scene.scanner, &[HOST]);
        daemon.wait_for_block(SCANNER);
        Scene::scan(&scene.scanner, &["-6", HOST6]);
        daemon.wait_for_block(SCANNER6);
        // A block that stops everything, ahead of the other firewall.
        let before = Instant::now();
        for address in [SCANNER, SCANNER6] {
            assert!(daemon.ctl(&["block", address, "--for", "1h"]).status.success());
        }
        let blocked_at = [before, Instant::now()];
        Self {
            scene,
            daemon,
            session: scene.session(),
            blocked_at,
            blocked: [SCANNER, SCANNER6].map(str::to_owned).to_vec(),
            repairs: 0,
        }
    }

    /// Checks all invariants after the other firewall's action (`after`, a description).
    pub fn all_is_well(&mut self, after: &str) {
        self.the_block_stands(after);
        self.status_is_true(after);
        self.others_are_served(after);
        self.a_new_scan_is_blocked(after);
    }

    /// No packet of the scanner passes, because of our rules, and the block is listed with its
    /// remaining time.
    pub fn the_block_stands(&self, after: &str) {
        let scene = self.scene;
        let before = scene.dropped();
        let is_answered = std::thread::scope(|scope| {
            let pings =
                [HOST, HOST6].map(|host| scope.spawn(move || ping(&scene.scanner, &[host])));
            pings.map(|ping| ping.join().unwrap())
        });
        assert_eq!(is_answered, [false, false], "after {after} the scanner is answered");
        assert!(
            connect(&scene.scanner, HOST, OPEN, Duration::from_millis(300)).is_none(),
            "after {after} the scanner reaches a service"
        );
        let now = scene.dropped();
        assert!(
            now[0] >= before[0] + 2 && now[1] > before[1],
            "after {after} it is not our rule that drops the scanner: {before:?}, {now:?}"
        );
        let [earliest, latest] = self.blocked_at;
        for address in [SCANNER, SCANNER6] {
            // The answer is of some moment between the two.
            let most = BLOCK - latest.elapsed().as_secs();
            let left = self
                .left(address)
                .unwrap_or_else(|| panic!("after {after} {address} is not listed"));
            let least = BLOCK - earliest.elapsed().as_secs();
            assert!(
                (least - 1..=most).contains(&left),
                "after {after} {address} has {left} s left, and not {least} to {most}"
            );
        }
    }

    /// `expires_in` of a block; `None`: not listed.
    pub fn left(&self, address: &str) -> Option<u64> {
        let list = self.daemon.json(&["list"]);
        let row = list.as_array().unwrap().iter().find(|row| row["address"] == address)?;
        Some(row["expires_in"].as_u64().unwrap_or(u64::MAX))
    }

    /// `status` counts the blocks and the repairs; without any, no line reports a change of the
    /// table.
    pub fn status_is_true(&self, after: &str) {
        let status = self.daemon.json(&["status"]);
        assert_eq!(status["blocked"], self.blocked.len() as u64, "after {after}: {status}");
        assert_eq!(
            status["repairs"]["count"],
            self.repairs,
            "after {after}: {status}\n{}",
            self.daemon.log()
        );
        assert_eq!(status["warnings"].to_string(), "[]", "after {after}");
        let (text, log) =
            (String::from_utf8(self.daemon.ctl(&["status"]).stdout).unwrap(), self.daemon.log());
        assert_eq!(text.contains("repairs"), self.repairs > 0, "after {after}: {text}");
        assert_eq!(
            log.matches("changed the table").count() as u64,
            self.repairs,
            "after {after}: {log}"
        );
    }

    /// A new client gets through, and the one from the beginning still does.
    pub fn others_are_served(&mut self, after: &str) {
        assert!(self.scene.session().continues(), "after {after} no client gets through");
        assert!(self.session.continues(), "after {after} a client's connection is cut");
    }

    /// A host that has sent nothing so far scans, and is blocked.
    pub fn a_new_scan_is_blocked(&mut self, after: &str) {
        let newcomer = self.scene.newcomer();
        assert!(
            eventually(Duration::from_secs(20), || self.scene.answers(&newcomer)),
            "after {after} a newcomer is not answered"
        );
        self.scene.is_scanned_by(&newcomer);
        assert!(
            eventually(Duration::from_secs(20), || self.left(&newcomer).is_some()),
            "after {after} a scan of {newcomer} is not seen"
        );
        assert!(!self.scene.answers(&newcomer), "after {after} {newcomer} is blocked and answered");
        self.blocked.push(newcomer);
    }
}

/// Debian's `packages`, unpacked below the build directory as `name`; without them the test is
/// skipped.
pub fn unpacked(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("firewalls").join(name);
    match jail::fetch(&kept, packages) {
        Ok(versions) => {
            println!("{}", versions.replace('\n', ", "));
            Some(kept.join("root"))
        }
        Err(reason) => {
            skip(&format!("{name} cannot be had: {reason}"));
            None
        }
    }
}

/// Runs a command of the other firewall, a shell line of its machine, which must succeed.
pub fn orders(machine: &Jail, line: &str) {
    let said = machine.output(&["sh", "-c", line], Duration::from_secs(60));
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{line}: {}\n{}", said.status, String::from_utf8_lossy(&words));
}
