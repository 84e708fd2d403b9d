//! The real server over a real socket, with a request handler that gives the test's answers.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use portsentry::config::Config;
use portsentry::control::client::Client;
use portsentry::control::{
    AllowRow, AllowedName, Answer, BlockRow, Caller, Cancelled, Cause, Causes, Decisions, Decoys,
    EventStore, GeoFiles, Handler, HistoryRow, Intake, Kind, ListRow, Loaded, NotDone, Observed,
    Outcome, PortUse, Refusal, Reply, Request, Responses, Rights, RulesState, Server, Shown, Stamp,
    Standing, State, Status, Store, Target, Tested, TestedPort, TouchedRow, Tracked, Watching,
    WouldBeRow, listen,
};
use portsentry::ctl::{self, Zone};
use portsentry::helper::protocol::ChannelStatus;
use portsentry::journal::record::{Effect, Probed, Record};
use portsentry::journal::sink::Sink;
use portsentry::journal::{JournalHandle, Notice, Settings};

/// Longer than any step that does not hang.
pub const LONG: Duration = Duration::from_secs(20);

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: log::Level, _: &str, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn target(text: &str) -> Target {
    text.parse().unwrap()
}

pub fn stamp(second: i64) -> Stamp {
    Stamp(jiff::Timestamp::from_second(second).unwrap())
}

pub fn row(address: &str, expires_in: Option<u64>, packets: u64, reason: &str) -> BlockRow {
    let scan = reason.split_once(" scan").map(|(kind, _)| kind.to_owned());
    BlockRow {
        address: target(address),
        state: State::Blocked,
        cause: match reason {
            _ if reason.starts_with("by hand") => Cause::Order,
            _ if reason.contains("proven") => Cause::Proven,
            _ => Cause::Unproven,
        },
        proven: reason.contains("proven"),
        reason: reason.to_owned(),
        scan,
        since: Some(stamp(1_795_188_400)),
        until: expires_in.map(|seconds| stamp(1_795_188_400 + i64::try_from(seconds).unwrap())),
        expires_in,
        packets: Some(packets),
        passed: None,
        renewals: 0,
        exempt: Vec::new(),
        campaign: None,
        list: None,
    }
}

/// A list.
fn scanners() -> ListRow {
    let until = Some(stamp(1_795_188_400 + 3600));
    ListRow { name: "scanners".into(), blocks: 3, until, expires_in: Some(3600) }
}

/// The event of this number: blocks of two hosts, with a manual one, and a slowed source.
pub fn past(n: i64) -> Record {
    let at = |second| jiff::Timestamp::from_second(1_795_188_400 + second).unwrap();
    let network = if n == 1 { "2001:db8::/64" } else { "10.77.1.1/32" };
    Record {
        network: Some(network.parse().unwrap()),
        name: (n == 0).then(|| "scanner.example\u{7}".into()),
        port: (n != 2).then(|| format!("tcp/{n}")),
        effect: Some(if n == 3 { Effect::Slowed } else { Effect::Blocked }),
        scan: (n != 2).then(|| "syn".into()),
        proven: Some(n == 2),
        reason: Some(if n == 2 { "by hand: \"a\", b" } else { "syn scan: 3 ports in 0.2s" }.into()),
        until: (n > 0).then(|| at(n + 60)),
        ended: (n == 1).then(|| at(n + 10)),
        ending: (n == 1).then(|| "by-hand".into()),
        probes: (n == 3).then_some(3),
        touched: (0..2 * i64::from(n == 3))
            .map(|port| Probed {
                age: 1000 * (1 - port) as u64,
                port: format!("tcp/{port}"),
                scan: "syn".into(),
                weight: if port == 0 { "counts" } else { "ambiguous" }.into(),
            })
            .collect(),
        ..Record::new(at(n), if n == 3 { "slowed" } else { "blocked" })
    }
}

/// Event `n` of `of` in the seven days after 2026-11-20: bursts, a flood, heavy sources, many light
/// ones, names of all sorts, orders and gaps.
pub fn made(n: u32, of: u32) -> HistoryRow {
    const WEEK: u64 = 7 * 86_400;
    const PORTS: [&str; 12] = [
        "tcp/23",
        "tcp/22",
        "tcp/3389",
        "tcp/445",
        "tcp/8080",
        "tcp/5900",
        "tcp/6379",
        "tcp/2375",
        "tcp/1433",
        "tcp/5060",
        "tcp/9200",
        "tcp/27017",
    ];
    const SCANS: [&str; 8] = ["syn", "syn", "syn", "syn", "sweep", "null", "xmas", "ack"];
    // Each scan, and then what became of it.
    let step = n % 4;
    let mut random = u64::from(n - step).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d;
    let mut next = |below: u64| {
        random = (random ^ (random >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random ^= random >> 29;
        random % below
    };
    let mut second = u64::from(n) * WEEK / u64::from(of.max(1));
    // A part of them come in one evening.
    if next(5) == 0 {
        second = 4 * 86_400 + 19 * 3600 + second % 7200;
    }
    let rank = next(1000) * next(1000) * next(1000) / 1_000_000;
    let address = match rank {
        0..=2 => format!("203.0.113.{}", 7 + rank),
        3..=40 => format!("198.51.100.{}", rank * 3),
        41..=60 => format!("2001:db8:{rank:x}::/64"),
        _ => std::net::Ipv4Addr::from(0x0a00_0000 + rank as u32 * 0x1_0307 + next(99) as u32)
            .to_string(),
    };
    let kind = ["scan", "slowed", "proven", "blocked"][step as usize];
    let kind = if step == 2 && next(3) == 0 { "renewed" } else { kind };
    let mut row = HistoryRow::from(Record {
        network: target(&address).network().into(),
        scan: Some(SCANS[next(8) as usize].into()),
        probes: Some(3 + next(4000)),
        ..Record::new(
            jiff::Timestamp::from_second(1_795_132_800 + second as i64 + i64::from(step)).unwrap(),
            kind,
        )
    });
    let touched = (0..2 + next(4)).map(|_| PORTS[(next(12) * next(12) / 12) as usize]);
    row.touched = touched
        .map(|port| TouchedRow {
            at: row.at,
            port: port.into(),
            scan: "syn".into(),
            weight: "counts".into(),
        })
        .collect();
    match rank {
        0 => row.host = "<script>alert(1)</script>\"'&\u{202e}.example".into(),
        1 => row.host = "scanner-7.research.example.net".into(),
        _ => {}
    }
    if n % 400 == 399 {
        row.protocol = "MANUAL".into();
    } else {
        row.protocol = "TCP".into();
        row.port = 22;
    }
    if of >= 2000 && n == of / 2 {
        row = HistoryRow::from(Record::not_stored(row.at.0, 4711));
    }
    row
}

/// A handler that records its requests.
#[derive(Clone, Default)]
pub struct FakeHandler {
    pub asked: Arc<Mutex<Vec<Request>>>,
    /// Additional rows of `list`.
    pub many: u32,
    pub empty: bool,
    /// The databases that the configuration names.
    pub geo: GeoFiles,
    /// The history has so many events, each as [`made`] makes it.
    pub events: Option<u32>,
    /// The history breaks off.
    pub failing: bool,
    /// Duration of a history request.
    pub slow: Duration,
    /// Slow answers that ended because the client was gone.
    pub cancelled: Arc<AtomicUsize>,
}

impl FakeHandler {
    pub fn blocked(&self) -> Vec<BlockRow> {
        if self.empty {
            return Vec::new();
        }
        vec![
            row(
                "2001:db8:1::/64",
                Some(3720),
                7,
                "xmas scan, proven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3",
            ),
            row("192.0.2.0/24", None, 0, "by hand: abuse\u{1b}[2J"),
            row("10.77.1.1", Some(58), 1234, "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3"),
        ]
    }
}

impl FakeHandler {
    /// The rows of the list, in the order of addresses.
    fn rows(&self) -> Box<dyn Iterator<Item = BlockRow> + Send> {
        if self.many == 0 {
            let mut rows = self.blocked();
            rows.sort_by_key(|row| row.address);
            return Box::new(rows.into_iter());
        }
        Box::new((0..self.many).map(|n| BlockRow {
            address: Target::Address(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()),
            ..row(
                "10.0.0.1",
                Some(60),
                u64::from(n),
                "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3",
            )
        }))
    }

    /// Waits; `true` if it was cancelled.
    fn work(&self, cancelled: &Cancelled) -> bool {
        let end = Instant::now() + self.slow;
        while Instant::now() < end {
            if cancelled.is_cancelled() {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Handler for FakeHandler {
    fn handle(&mut self, request: Request, _: Caller, cancelled: &Cancelled) -> Answer {
        // Commands ask it beside what they are for.
        if request != (Request::Geo {}) {
            self.asked.lock().unwrap().push(request.clone());
        }
        let no = |message: &str| Refusal::new(Kind::No, message, "");
        match request {
            Request::Status {} => Reply::Status(Box::new(Status {
                admins: 2,
                tracked: Some(Tracked { connections: 812, most: 262_144 }),
                responses: Responses { commands: 3, failed: 1, dropped: 2 },
                confinement: vec![
                    rights("daemon", &["CAP_NET_ADMIN"], 2),
                    rights("packets", &["CAP_NET_ADMIN"], 3),
                    rights("helper", &[], 1),
                ],
                notifications: vec![ChannelStatus {
                    channel: "webhook".into(),
                    sent: 3,
                    failed: 2,
                    dropped: 1,
                    waiting: 4,
                    error: Some("the server answers 500".into()),
                }],
                mode: "enforce".into(),
                configured_mode: "enforce".into(),
                loaded: None,
                rules: RulesState::InPlace,
                confirm_by: None,
                detection: "on".into(),
                on_at: None,
                capture: "nflog".into(),
                lists: vec![scanners()],
                slowed: 2,
                group: 77,
                watching: vec![
                    Watching {
                        transport: "tcp".into(),
                        mode: "advanced".into(),
                        ports: 1021,
                        ranges: "1-112, 114-138, 140-1023".into(),
                    },
                    Watching {
                        transport: "udp".into(),
                        mode: "stealth".into(),
                        ports: 1,
                        ranges: "7".into(),
                    },
                ],
                sources: 12,
                blocked: 3,
                blocked_most: 100_000,
                not_in_force: 0,
                decisions: Decisions::default(),
                causes: Some(Causes { proven: 1, unproven: 1, order: 1, foreign: 0 }),
                allowed: 5,
                allowed_names: vec![AllowedName {
                    name: "office.example.net".into(),
                    addresses: vec![[192, 0, 2, 7].into()],
                    resolved: Some(stamp(1_795_188_400)),
                    error: None,
                }],
                allowed_interfaces: vec!["wg0".into()],
                probes: 4711,
                by_scan: std::collections::BTreeMap::new(),
                lost: 1,
                shed: 0,
                intake: Intake::default(),
                queues: None,
                held_back: 0,
                unwritten: 0,
                helper: true,
                decoy: Decoys::default(),
                reflex: None,
                store: Store::default(),
                events: EventStore::default(),
                repairs: portsentry::control::Repairs::default(),
                uptime: 3720,
                config: Some("/etc/portsentry/portsentry.yaml".into()),
                version: "0.1.0".into(),
                pid: 42,
                warnings: vec!["resolve: not in force yet".into()],
            }))
            .into(),
            Request::List(selection) => Answer::blocks(selection.apply(self.rows())),
            Request::Observed {} => Reply::Observed(Box::new(Observed {
                mode: "observe".into(),
                since: stamp(1_795_188_400),
                slowed: 1,
                blocked: 1,
                forgotten: 2,
                sources: vec![
                    WouldBeRow {
                        address: target("10.77.1.1"),
                        would_be: State::Slowed,
                        scan: Some("syn".into()),
                        proven: false,
                        reason: "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3".into(),
                        since: stamp(1_795_188_410),
                        last_seen: stamp(1_795_188_420),
                        probes: 98,
                        network: Some(target("10.77.1.0/24")),
                        services: vec!["tcp/22".into()],
                        allowed: None,
                    },
                    WouldBeRow {
                        address: target("192.0.2.7"),
                        would_be: State::Blocked,
                        scan: Some("xmas".into()),
                        proven: false,
                        reason: "xmas scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\u{1b}[2J".into(),
                        since: stamp(1_795_188_410),
                        last_seen: stamp(1_795_188_410),
                        probes: 1,
                        network: None,
                        services: Vec::new(),
                        allowed: None,
                    },
                ],
            }))
            .into(),
            Request::Show { address } => match self
                .blocked()
                .into_iter()
                .find(|row| row.address.network().contains(&address.network()))
            {
                Some(block) => Reply::Shown(Box::new(Shown {
                    address,
                    observed: false,
                    block: Some(block),
                    exempt_from: None,
                    allowed: None,
                    allowed_in_prefix: None,
                    ports: vec!["tcp/1".into(), "tcp/2".into()],
                    touched: 2,
                    scans: vec!["syn".into()],
                    proven: false,
                    first_seen: Some(stamp(1_795_188_390)),
                    last_seen: Some(stamp(1_795_188_400)),
                    blocks_before: 1,
                    proof: None,
                    campaign: None,
                    probes: ["counts", "ambiguous"]
                        .into_iter()
                        .enumerate()
                        .map(|(n, weight)| TouchedRow {
                            at: stamp(1_795_188_390 + 13 * n as i64),
                            port: "tcp/1".into(),
                            scan: "syn".into(),
                            weight: weight.into(),
                        })
                        .collect(),
                    trigger: 2,
                    standing: Some(Standing::Blocked),
                }))
                .into(),
                None => no("nothing is known of it").into(),
            },
            Request::Test { address, ports } => {
                let outcomes = [Outcome::EitherWay, Outcome::Waits, Outcome::Passes];
                let uses = [PortUse::Watched, PortUse::Service, PortUse::Unwatched];
                let tested = |(at, port)| TestedPort {
                    port,
                    use_of: uses[at % 3],
                    outcome: outcomes[at % 3],
                    is_probe: at % 3 == 0,
                };
                Reply::Tested(Box::new(Tested {
                    address: Target::Address(address),
                    standing: Standing::Slowed,
                    observed: false,
                    allowed: None,
                    allowed_in_prefix: None,
                    block: Some(BlockRow {
                        state: State::Slowed,
                        packets: None,
                        ..row(
                            "10.77.1.1",
                            Some(58),
                            0,
                            "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3",
                        )
                    }),
                    exempt_from: None,
                    touched: 3,
                    trigger: 2,
                    interfaces: vec!["wg0".into()],
                    ports: ports.into_iter().enumerate().map(tested).collect(),
                }))
                .into()
            }
            Request::BlockSeveral(several) => {
                let refused =
                    (0..).zip(&several.targets).filter(|(_, one)| **one == target("192.0.2.66"));
                let why = Refusal::new(
                    Kind::No,
                    "192.0.2.66 is never blocked (allow)",
                    "allow it no longer",
                );
                let refused = refused.map(|(at, _)| NotDone::new(at, why.clone())).collect();
                let message =
                    if several.more { String::new() } else { "the rest is blocked".into() };
                let list = several
                    .list
                    .as_ref()
                    .filter(|_| !several.more)
                    .map(|_| Loaded { new: several.targets.len() as u64, ..Loaded::default() });
                Reply::Several { message, refused, list }.into()
            }
            Request::Block { address, seconds, reason, .. } => {
                Reply::Done { message: format!("{address} is blocked: {seconds:?} {reason}") }
                    .into()
            }
            Request::Unblock { address }
                if self.blocked().iter().any(|row| row.address == address) =>
            {
                Reply::Done { message: format!("{address} is not blocked any more.") }.into()
            }
            Request::Unblock { address } => no(&format!("{address} is not blocked")).into(),
            Request::Geo {} => Reply::Geo(self.geo.clone()).into(),
            Request::Lists {} => Reply::Lists { rows: vec![scanners()] }.into(),
            Request::UnblockPart { list: Some(list), from } if list.as_str() == "scanners" => {
                let (next, message) = match from {
                    None => (Some(4000), String::new()),
                    Some(_) => (None, "3 blocks of the list scanners are lifted".to_owned()),
                };
                Reply::Lifted { message, lifted: 1, next }.into()
            }
            Request::UnblockPart { .. } => no("no block is on the list").into(),
            Request::UnblockAll {} => Reply::Done { message: "3 blocks are lifted.".into() }.into(),
            Request::AllowList {} => Reply::Allowed {
                rows: vec![
                    AllowRow {
                        last_seen: Some(stamp(1_795_188_400)),
                        ..AllowRow::new(target("192.0.2.1"), "admins")
                    },
                    AllowRow::new(target("127.0.0.0/8"), "allow"),
                    AllowRow {
                        name: Some("office.example.net".into()),
                        resolved: Some(stamp(1_795_188_400)),
                        ..AllowRow::new(target("192.0.2.7"), "allow")
                    },
                ],
                names: vec![AllowedName {
                    name: "vpn.example.net".into(),
                    error: Some("there is no such name".into()),
                    ..AllowedName::default()
                }],
                interfaces: vec!["wg0".into()],
            }
            .into(),
            Request::AllowAdd { address } => {
                Reply::Done { message: format!("{address} is never blocked from now on.") }.into()
            }
            Request::AllowRemove { address } => no(&format!("{address} was not added")).into(),
            Request::Rules {} => {
                Reply::Rules { text: "table inet portsentry {\n\tchain gate {\n\t}\n}\n".into() }
                    .into()
            }
            Request::Enforce { .. }
            | Request::Observe {}
            | Request::Off { .. }
            | Request::On {} => Reply::Done { message: "switched".into() }.into(),
            Request::TestResponse {} => no("no response is configured").into(),
            Request::Reload {} => Refusal::new(
                Kind::Configuration,
                "a.yaml:1:1: error: no such key\n  ports: 1\n  ^",
                "repair the file; the old one stays in force",
            )
            .into(),
            Request::History(_) if self.work(cancelled) => no("cancelled").into(),
            Request::History(_) if self.events.is_some() => {
                let of = self.events.unwrap();
                Answer::history((0..of).map(move |n| Ok(made(n, of))))
            }
            Request::History(_) if self.empty => Answer::history(std::iter::empty()),
            Request::History(_) if self.failing => {
                let refusal = Refusal::new(Kind::Failed, "the disk is on fire", "");
                Answer::history((0..100).map(|n| Ok(past(n).into())).chain([Err(refusal)]))
            }
            Request::History(asked) if asked.source == Some(target("2001:db8:1::7")) => {
                Answer::history((0..4).map(|n| Ok(past(n).into())))
            }
            Request::History(_) => Answer::history((0..200).map(|n| Ok(past(n).into()))),
            Request::Watch {} => panic!("the server does this itself"),
        }
    }
}

/// A server over a socket in its own directory.
pub struct Daemon {
    pub directory: tempfile::TempDir,
    pub server: Option<Server>,
    pub journal: JournalHandle,
    pub asked: Arc<Mutex<Vec<Request>>>,
}

impl Daemon {
    pub fn start(handler: FakeHandler, group: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Other users must be able to reach the socket: access is decided by the socket.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let asked = Arc::clone(&handler.asked);
        let settings = Settings { history_file: None, ..Settings::from(&Config::default()) };
        let journal = JournalHandle::start_with(settings, Box::new(Nowhere)).unwrap();
        let mut daemon = Self { directory, server: None, journal, asked };
        daemon.serve(handler, group);
        daemon
    }

    /// Starts the server.
    pub fn serve(&mut self, handler: FakeHandler, group: &str) {
        let listener = listen(&self.socket(), group).unwrap();
        let feed = self.journal.clone();
        self.asked = Arc::clone(&handler.asked);
        let server = Server::start(
            listener,
            &mut || Box::new(handler.clone()),
            Box::new(move |waker| feed.subscribe(Some(waker))),
        );
        self.server = Some(server.unwrap());
    }

    /// The first line of `portsentryctl watch --json` while this happens again and again.
    pub fn first_event(&self, happens: impl Fn() -> Notice) -> String {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .args(["watch", "--json", "--socket", self.socket().to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.send(line)))
        });
        let deadline = Instant::now() + LONG;
        let line = loop {
            // Until the client has connected, there is no watcher.
            self.journal.notify(happens());
            match lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => break line,
                Err(_) => assert!(Instant::now() < deadline),
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        line
    }

    /// Stops the server: its clients lose their connections.
    pub fn stop(&mut self) {
        assert!(self.server.take().unwrap().stop(LONG));
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/control.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Runs `portsentryctl` in this process: exit status, standard output, standard error.
    pub fn ctl(&self, line: &str) -> (u8, String, String) {
        let mut words = vec![
            "portsentryctl".to_owned(),
            "--socket".into(),
            self.socket().to_str().unwrap().to_owned(),
        ];
        words.extend(line.split_whitespace().map(str::to_owned));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = ctl::run(words.into_iter().map(Into::into), &mut out, &mut err, &Zone::utc());
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// A well-behaved client is served at once.
    pub fn assert_serves(&self) {
        let begun = Instant::now();
        let mut client = Client::connect(&self.socket()).unwrap();
        assert!(
            matches!(client.ask(&Request::Status {}), Ok(Reply::Status(status)) if status.probes == 4711)
        );
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            assert!(server.stop(LONG));
            assert!(!self.socket().exists(), "the socket is taken away");
        }
        assert!(self.journal.stop(LONG));
    }
}

fn rights(of: &str, capabilities: &[&str], filters: u32) -> Rights {
    Rights {
        of: of.to_owned(),
        user: "portsentry".to_owned(),
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        filters,
        no_new_privs: true,
        landlock: (of != "helper").then_some(6),
    }
}
