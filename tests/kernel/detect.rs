//! Every scan of nmap, over IPv4 and IPv6, in all ways of hiding it: each is blocked at the stated
//! port, or has the stated outcome. Each case scans from its own address, so one daemon handles
//! them all.

use crate::support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::{DEVICE, Scene};
use support::{eventually, in_parallel, missing, schedule};

/// The distinct port at which unambiguous evidence exceeds the default `scan_trigger` of 2.
pub(crate) const PLAIN: u64 = 3;
/// The distinct port at which out-of-state packets of dead connections are ruled out.
pub(crate) const AMBIGUOUS: u64 = 6;
/// Probes of the fastest scan (1000 ports, 5000 a second) that may reach closed ports before the
/// block is in the kernel, all unanswered. Measured with a debug build on two busy cores: median
/// 20, maximum 155. A protocol scan has fewer protocols than this; only its decision is bounded.
const FAST_MAX: u64 = 400;
/// Cases that run at the same time: scans mostly wait.
const WORKERS: usize = 6;

#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) option: &'static [&'static str],
    /// The name in `list`.
    scan: &'static str,
    /// Out-of-state packets of dead connections look the same.
    pub(crate) ambiguous: bool,
}

const fn kind(option: &'static [&'static str], scan: &'static str, ambiguous: bool) -> Kind {
    Kind { option, scan, ambiguous }
}

/// An ACK scan and a Window scan send the same packets.
pub(crate) const KINDS: [Kind; 13] = [
    kind(&["-sS"], "syn", false),
    kind(&["-sT"], "connect", false),
    kind(&["-sF"], "fin", true),
    kind(&["-sN"], "null", false),
    kind(&["-sX"], "xmas", false),
    kind(&["-sM"], "maimon", true),
    kind(&["-sA"], "ack", true),
    kind(&["-sW"], "ack", true),
    kind(&["-sU"], "udp", false),
    kind(&["-sY"], "sctp-init", false),
    kind(&["-sZ"], "sctp-cookie-echo", false),
    kind(&["-sO"], "ip-protocol", false),
    kind(&["-sS", "--scanflags", "SYNFIN"], "custom-flags", false),
];

impl Kind {
    pub(crate) fn is(self, option: &str) -> bool {
        self.option == [option]
    }

    pub(crate) fn name(self) -> String {
        self.option.join(" ")
    }
}

struct Case {
    kind: Kind,
    six: bool,
    variant: &'static str,
    arguments: Vec<String>,
    /// The ports to scan.
    ports: &'static str,
    targets: &'static [&'static str],
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Expected {
    /// At this distinct port.
    Blocked(u64),
    /// Neither blocked nor reported.
    Nothing,
    /// Not blocked; it may be reported.
    NotBlocked,
}

const HOST4: &[&str] = &["10.66.0.1"];
const HOSTS4: &[&str] = &["10.66.0.1", "10.66.0.2", "10.66.0.3"];
const HOST6: &[&str] = &["fd66:1::1"];
const ADDRESSES: usize = 160;

pub(crate) fn address(index: usize, six: bool) -> String {
    if six {
        format!("fd66:{:x}::2", 0x100 + index)
    } else {
        format!("10.66.{}.{}", 1 + index / 200, 10 + index % 200)
    }
}

pub(crate) fn scene() -> Scene {
    let host = ["10.66.0.1/16", "10.66.0.2/16", "10.66.0.3/16", "fd66:1::1/64"];
    let scene = Scene::new(&host, &["10.66.0.9/16", "fd66:1::2/64"]).with_prefixes(&["fd66::/16"]);
    let lines = |index| {
        format!(
            "addr add {}/16 dev {DEVICE}\naddr add {}/128 dev {DEVICE} nodad\n",
            address(index, false),
            address(index, true)
        )
    };
    scene.scanner.ip_batch(&(0..ADDRESSES).map(lines).collect::<String>());
    scene
}

fn scan(scene: &Scene, index: usize, case: &Case) {
    let source = address(index, case.six);
    let mut words = vec!["-p", case.ports];
    words.extend(case.kind.option);
    words.extend(case.arguments.iter().map(String::as_str));
    if case.six {
        words.push("-6");
    }
    words.extend(case.targets);
    if case.kind.is("-sT") {
        // The kernel sends these, and chooses their source by the route.
        for target in case.targets {
            let route = if case.six { "-6" } else { "-4" };
            scene
                .scanner
                .run("ip", &[route, "route", "replace", target, "dev", DEVICE, "src", &source]);
        }
        scene.nmap(&words);
    } else {
        scene.scan_from(&source, &words);
    }
}

fn row(daemon: &Daemon<'_>, listed: &str) -> Option<Value> {
    daemon.json(&["list"]).as_array().unwrap().iter().find(|row| row["address"] == listed).cloned()
}

/// The number of distinct ports in `syn scan: 3 ports in 0.2s: tcp/1 ...`.
pub(crate) fn counted(row: &Value) -> u64 {
    let reason = row["reason"].as_str().unwrap();
    let words = reason.split(": ").nth(1).unwrap_or_default();
    words
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap_or_else(|_| panic!("no count in {reason:?}"))
}

/// The result of a case: a line of the table, and whether it is as expected.
fn judge(daemon: &Daemon<'_>, index: usize, case: &Case, seen: Option<u64>) -> (String, bool) {
    let source = address(index, case.six);
    let mut found = None;
    let is_none = matches!(case.expected, Expected::Nothing | Expected::NotBlocked);
    let wait = if is_none { 300 } else { 5000 };
    eventually(Duration::from_millis(wait), || {
        found = row(daemon, &source);
        found.is_some()
    });
    let (verdict, right) = match (&found, case.expected) {
        (None, Expected::Nothing) => (
            "not blocked".to_owned(),
            !daemon.log().contains(&format!("{}/", address(index, case.six))),
        ),
        (None, Expected::NotBlocked) => ("not blocked".to_owned(), true),
        (None, _) => ("NOT BLOCKED".to_owned(), false),
        (Some(row), expected) => {
            // The handshake of a connect scan is never answered: only a SYN is seen.
            let name = if case.kind.is("-sT") { "syn" } else { case.kind.scan };
            let honest = row["proven"] == false
                && row["expires_in"].as_f64().is_some_and(|left| left <= 60.0);
            let right =
                expected == Expected::Blocked(counted(row)) && row["scan"] == name && honest;
            (
                format!("blocked as {} at port {}", row["scan"].as_str().unwrap(), counted(row)),
                right,
            )
        }
    };
    let right = right && seen.is_none_or(|seen| seen <= FAST_MAX);
    let seen = seen.map(|seen| format!("{seen} (max {FAST_MAX})")).unwrap_or_default();
    let family = if case.six { "IPv6" } else { "IPv4" };
    let mark = if right { "" } else { "  <- WRONG" };
    (
        format!("{:24} {family} {:14} {verdict:44} {seen}{mark}", case.kind.name(), case.variant),
        right,
    )
}

fn base(kind: Kind, six: bool, variant: &'static str, arguments: &[&str]) -> Case {
    let ports = if kind.is("-sO") { "150-255" } else { "1-110" };
    Case {
        kind,
        six,
        variant,
        arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        ports,
        targets: if six { HOST6 } else { HOST4 },
        expected: Expected::Blocked(if kind.ambiguous { AMBIGUOUS } else { PLAIN }),
    }
}

fn families() -> impl Iterator<Item = (Kind, bool)> {
    KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)])
}

/// Runs the cases side by side and returns the table.
fn run(
    scene: &Scene,
    daemon: &Daemon<'_>,
    first: usize,
    cases: &[Case],
    workers: usize,
) -> Vec<(String, bool)> {
    // One connect scan at a time: they share the route.
    let route = Mutex::new(());
    in_parallel(workers, cases, |at, case| {
        let guard = case.kind.is("-sT").then(|| route.lock().unwrap());
        scan(scene, first + at, case);
        drop(guard);
        judge(daemon, first + at, case, None)
    })
}

fn show(title: &str, started: Instant, lines: &[(String, bool)]) {
    println!("--- {title}: {} cases in {:.1} s", lines.len(), started.elapsed().as_secs_f64());
    for (line, _) in lines {
        println!("{line}");
    }
    let wrong: Vec<&String> = lines.iter().filter(|line| !line.1).map(|line| &line.0).collect();
    assert!(wrong.is_empty(), "{} cases are wrong:\n{wrong:#?}", wrong.len());
}

const TOOLS: &[&str] = &["ip", "nft", "nmap"];
const UDP_MAY_BLOCK: &str = "udp: { action: block }";

// P28
#[test]
fn every_scan_is_blocked_at_its_port_however_fast_it_is() {
    if missing(TOOLS).is_some() {
        return;
    }
    // It bounds how many packets come before a block.
    schedule::alone();
    let scene = scene();
    let daemon = Daemon::start(&scene.host, UDP_MAY_BLOCK);
    let started = Instant::now();
    let probes = || daemon.json(&["status"])["probes"].as_u64().unwrap();
    let mut lines = Vec::new();
    for (index, (kind, six)) in families().enumerate() {
        // One after the other, so that the daemon's count of probes is this scan's.
        let mut case = base(kind, six, "-T5 5000/s", &["-T5", "--min-rate", "5000"]);
        if !kind.is("-sO") {
            case.ports = "1-1000";
        }
        let before = probes();
        scan(&scene, index, &case);
        let found =
            eventually(Duration::from_secs(20), || row(&daemon, &address(index, six)).is_some());
        let seen = probes() - before;
        lines.push(judge(&daemon, index, &case, found.then_some(seen)));
    }
    show("fast", started, &lines);
}

// P28
#[test]
fn every_scan_is_blocked_at_its_port_however_it_hides() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, UDP_MAY_BLOCK);
    let mut cases = Vec::new();
    for (kind, six) in families() {
        cases.push(base(kind, six, "-T4", &["-T4"]));
        // Three closed ports only: the least that exceeds the trigger, and possible for
        // out-of-state packets.
        let few = if kind.is("-sO") { "200-202" } else { "21,23,25" };
        let expected = if kind.ambiguous { Expected::Nothing } else { Expected::Blocked(PLAIN) };
        cases.push(Case { ports: few, expected, ..base(kind, six, "3 ports", &["-T4"]) });
        let raw = !kind.is("-sT") && !kind.is("-sO");
        if raw {
            cases.push(base(kind, six, "--data-length", &["-T4", "--data-length", "25"]));
            // From a service's port these may be its late answers: reported, and never blocked.
            let is_reply = kind.ambiguous || kind.is("-sU");
            let expected = if is_reply { Expected::NotBlocked } else { Expected::Blocked(PLAIN) };
            cases.push(Case { expected, ..base(kind, six, "-g 53", &["-T4", "-g", "53"]) });
        }
        // nmap fragments IPv4 only; a datagram without data fits into one fragment, so it gets
        // some.
        if raw && !six {
            cases.push(base(kind, six, "-f", &["-T4", "-f", "--data-length", "24"]));
        }
        if !six {
            cases.push(Case {
                targets: HOSTS4,
                ..base(kind, six, "random hosts", &["-T4", "--randomize-hosts"])
            });
        }
    }
    for flags in ["SYNACK", "RST", "RSTACK"] {
        // The same packets as answers to a flood from our forged address; every port answers them
        // alike, so such a scan learns nothing.
        let case = base(KINDS[0], false, flags, &["-T4", "--scanflags", flags]);
        cases.push(Case { expected: Expected::Nothing, ..case });
    }
    assert!(cases.len() <= ADDRESSES, "{} cases", cases.len());
    let started = Instant::now();
    show("hidden", started, &run(&scene, &daemon, 0, &cases, WORKERS));
}

// P28
#[test]
fn a_scan_of_one_port_a_second_is_blocked_at_its_port() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, UDP_MAY_BLOCK);
    let cases: Vec<Case> = families()
        .map(|(kind, six)| {
            let ports = match (kind.ambiguous, kind.is("-sO")) {
                (true, _) => "41-46",
                (false, true) => "200-202",
                (false, false) => "41-43",
            };
            Case {
                ports,
                ..base(kind, six, "1 s", &["--scan-delay", "1s", "--max-scan-delay", "1s"])
            }
        })
        .collect();
    let started = Instant::now();
    show("slow", started, &run(&scene, &daemon, 0, &cases, cases.len()));
}

// P28
#[test]
fn high_ports_are_watched_when_they_are_asked_for() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let every = "tcp: { advanced_ports: 1-65535 }\nudp: { advanced_ports: 1-65535, action: block }";
    let daemon = Daemon::start(&scene.host, every);
    let mut cases = Vec::new();
    for (kind, six) in families().filter(|(kind, _)| !kind.is("-sO")) {
        cases.push(Case { ports: "5000-5060", ..base(kind, six, "5000-5060", &["-T4"]) });
        cases.push(Case { ports: "61000-61060", ..base(kind, six, "61000-61060", &["-T4"]) });
        // Where this host's own connections start, out-of-state segments are common: those kinds
        // are only reported there (`evidence` holds that they are).
        let expected = match kind {
            kind if kind.ambiguous => Expected::NotBlocked,
            kind if kind.is("-sU") => Expected::Nothing,
            _ => Expected::Blocked(PLAIN),
        };
        cases.push(Case {
            ports: "40000-40060",
            expected,
            ..base(kind, six, "ephemeral", &["-T4"])
        });
    }
    let started = Instant::now();
    show("high ports", started, &run(&scene, &daemon, 0, &cases, WORKERS));
}

// P28
#[test]
fn nmap_decoys_are_blocked_like_the_scanner_and_reported_as_unverified() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, UDP_MAY_BLOCK);
    let kinds = KINDS.into_iter().filter(|kind| !kind.is("-sT") && !kind.is("-sO"));
    for (index, kind) in kinds.enumerate() {
        let own = index * 4;
        let decoys = format!(
            "{},{},ME,{}",
            address(own + 1, false),
            address(own + 2, false),
            address(own + 3, false)
        );
        scan(&scene, own, &base(kind, false, "-D", &["-T4", "-D", &decoys]));
        let mut rows = Vec::new();
        let all = eventually(Duration::from_secs(20), || {
            rows =
                (own..own + 4).filter_map(|source| row(&daemon, &address(source, false))).collect();
            rows.len() == 4
        });
        assert!(all, "{}: {rows:?}\n{}", kind.name(), daemon.log());
        // It cannot be known which of the four it was. So each gets the short block only, and is
        // reported as unverified.
        for row in &rows {
            assert_eq!(row["proven"], false, "{row}");
            assert!(row["expires_in"].as_f64().unwrap() <= 60.0, "{row}");
            assert!(!row["reason"].as_str().unwrap().contains("proven"), "{row}");
            assert_eq!(row["scan"], kind.scan, "{row}");
        }
        println!(
            "{:24} IPv4 -D             the scanner and its 3 decoys blocked at port {} unproven, for 60 s",
            kind.name(),
            counted(&rows[0])
        );
    }
}

// P3
#[test]
fn with_the_defaults_a_udp_scan_is_reported_and_not_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    let udp = KINDS.into_iter().find(|kind| kind.is("-sU")).unwrap();
    for (index, six) in [(0, false), (1, true)] {
        scan(&scene, index, &base(udp, six, "-T4", &["-T4"]));
        daemon.wait_for_log(&format!("attackalert: UDP scan from host: {}", address(index, six)));
    }
    assert_eq!(daemon.blocked(), Vec::<String>::new());
}
