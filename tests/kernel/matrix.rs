//! The table of contrib/detection.md: each kind of scan, over both families, at three speeds, at the
//! defaults: after how many ports it is detected, and what the scanner got before and after that.

use crate::support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::detect::{AMBIGUOUS, KINDS, Kind, PLAIN, address, counted, scene};
use crate::slow::{LEARNED, serve, state_of};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::{DEVICE, Scene};
use support::{eventually, in_parallel, is_long, missing, schedule, tables};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/record.py");
const SLOW: &str = "1/s";
const FAST: &str = "-T5, 5000/s";
const TIMINGS: [&str; 3] = ["-T4", SLOW, FAST];
const TARGETS: [&str; 2] = ["10.66.0.1", "fd66:1::1"];
/// Every twentieth port of the scanned ones listens.
const SERVICES: u16 = 50;

struct Case {
    kind: Kind,
    six: bool,
    timing: &'static str,
    words: Vec<&'static str>,
}

/// What the host sent to a source: when, from which port, and whether it says that the port is open.
struct Answer {
    nanos: i128,
    port: u16,
    is_open: bool,
}

fn cases(timing: &'static str) -> Vec<Case> {
    let both = KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    let case = |(kind, six): (Kind, bool)| {
        let mut words = match timing {
            SLOW => vec!["--scan-delay", "1s", "--max-scan-delay", "1s", "--max-retries", "0"],
            FAST => vec!["-T5", "--min-rate", "5000", "--host-timeout", "4s"],
            _ => vec![timing, "--host-timeout", "8s"],
        };
        words.extend(kind.option);
        words.push(match (kind.is("-sO"), timing, kind.ambiguous) {
            (true, SLOW, _) => "-p200-202",
            (true, ..) => "-p150-255",
            (false, SLOW, true) => "-p41-46",
            (false, SLOW, false) => "-p41-43",
            // A datagram to a higher reserved port may be a late answer.
            _ if kind.is("-sU") => "-p1-500",
            _ => "-p1-1000",
        });
        words.extend(six.then_some("-6"));
        Case { kind, six, timing, words }
    };
    both.map(case).collect()
}

fn scan(scene: &Scene, source: &str, case: &Case) {
    let target = TARGETS[usize::from(case.six)];
    let mut words = vec!["-n", "-Pn"];
    words.extend(&case.words);
    if case.kind.is("-sT") {
        // The kernel sends these, and chooses their source by the route.
        let route = if case.six { "-6" } else { "-4" };
        let to = [route, "route", "replace", target, "dev", DEVICE, "src", source];
        scene.scanner.run("ip", &to);
    } else {
        words.extend(["-e", DEVICE, "-S", source]);
    }
    words.push(target);
    let output = scene.scanner.output("nmap", &words, Duration::from_secs(60));
    assert!(output.status.success(), "{words:?}: {}", support::output_text(&output));
}

/// The event that tells of the scan: that its source is slowed, or, of UDP, that it scans.
fn event(log: &str, case: &Case) -> Option<Value> {
    let source = address(1, case.six);
    let name = if case.kind.is("-sU") { "scan" } else { "slowed" };
    let mut objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.find(|event| event["address"] == *source && event["event"] == name)
}

/// The answers of a host to a source in a capture. Neighbour discovery is none.
fn answers(capture: &Path, host: &str, source: &str) -> Vec<Answer> {
    let bytes = std::fs::read(capture).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut found = Vec::new();
    let mut at = 24;
    while at + 16 <= bytes.len() {
        let nanos = i128::from(number(at)) * 1_000_000_000 + i128::from(number(at + 4));
        let length = number(at + 8) as usize;
        let frame = &bytes[at + 16..at + 16 + length];
        at += 16 + length;
        let packet = &frame[14..];
        let (from, to, protocol, rest) = match frame[12..14] {
            [0x08, 0x00] => {
                let address = |at: usize| {
                    let octets: [u8; 4] = packet[at..at + 4].try_into().unwrap();
                    Ipv4Addr::from(octets).to_string()
                };
                let header = usize::from(packet[0] & 15) * 4;
                (address(12), address(16), packet[9], &packet[header..])
            }
            [0x86, 0xdd] => {
                let address = |at: usize| {
                    let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
                    Ipv6Addr::from(octets).to_string()
                };
                (address(8), address(24), packet[6], &packet[40..])
            }
            _ => continue,
        };
        if (&*from, &*to) != (host, source) {
            continue;
        }
        let port = u16::from_be_bytes([rest[0], rest[1]]);
        let is_open = match protocol {
            6 => rest[13] & 0x12 == 0x12,
            17 => true,
            132 => rest[12] == 2,
            1 if rest[0] == 3 => false,
            58 if rest[0] == 1 => false,
            _ => continue,
        };
        found.push(Answer { nanos, port, is_open });
    }
    found
}

/// Answers, and open ports among them.
fn count<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> [usize; 2] {
    let open = answers.clone().filter(|answer| answer.is_open);
    let open: BTreeSet<u16> = open.map(|answer| answer.port).collect();
    [answers.count(), open.len()]
}

/// What became of a scan: a row of the table.
fn row_of(case: &Case) -> Vec<String> {
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &format!("log: {{ format: json }} {AT_DEFAULTS}"));
    let ports: Vec<String> = (1..=SERVICES).map(|n| (n * 20).to_string()).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let any = if case.six { "::" } else { "0.0.0.0" };
    let _services = serve(&scene.host, any, &ports);
    assert!(scene.scanner.pings(&[TARGETS[usize::from(case.six)]]));
    let capture = daemon.path("scans.pcap");
    let words = [RECORD, DEVICE, capture.to_str().unwrap()];
    let mut recording = scene.host.spawn("python3", &words);
    let mut line = String::new();
    BufReader::new(recording.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let source = address(1, case.six);
    scan(&scene, &source, case);
    let is_told = || event(&daemon.log(), case).is_some();
    let is_told = eventually(Duration::from_secs(5), is_told);
    let pid = recording.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(eventually(Duration::from_secs(20), || recording.0.try_wait().unwrap().is_some()));

    let family = if case.six { "IPv6" } else { "IPv4" };
    let mut row = vec![format!("`{}`", case.kind.name()), family.into(), case.timing.into()];
    assert!(is_told, "{row:?} is not detected:\n{}", daemon.log());
    let event = event(&daemon.log(), case).unwrap();
    row.push(event["scan"].as_str().unwrap().to_owned());
    row.push(counted(&event).to_string());
    let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    let answers = answers(&capture, TARGETS[usize::from(case.six)], &source);
    let is_before = |answer: &&Answer| answer.nanos <= time.as_nanosecond();
    let before = count(answers.iter().filter(is_before));
    let after = count(answers.iter().filter(|answer| !is_before(answer)));
    row.extend(before.into_iter().chain(after).map(|number| number.to_string()));
    let state = state_of(&daemon, &source).map_or("reported".into(), |(state, _)| state);
    row.push(state);
    println!("{}   {}", row.join(" | "), event["reason"]);
    assert!(after[1] <= LEARNED as usize, "{row:?}");
    let most = if case.kind.ambiguous || case.timing == FAST { AMBIGUOUS } else { PLAIN };
    assert!(counted(&event) <= most, "{row:?}");
    row
}

fn rows_of(cases: &[Case], workers: usize) -> Vec<Vec<String>> {
    in_parallel(workers, cases, |_, case| row_of(case))
}

// P2, P28
#[test]
fn the_matrix_of_scans_is_what_the_document_says() {
    if missing(&["ip", "nft", "nmap", "python3"]).is_some() {
        return;
    }
    // It says at which time something came.
    schedule::alone();
    let mut rows = Vec::new();
    for timing in TIMINGS {
        // They mostly wait; the fast ones run one after the other.
        let workers = match timing {
            FAST => 1,
            SLOW => 8,
            _ => 4,
        };
        if timing != FAST || tables::is_blessed() || is_long() {
            rows.extend(rows_of(&cases(timing), workers));
        }
    }
    let header = [
        "scan",
        "IP",
        "timing",
        "detected as",
        "ports",
        "answers before",
        "open before",
        "answers after",
        "open after",
        "in the end",
    ];
    tables::hold("matrix", &header, rows, 4);
}
