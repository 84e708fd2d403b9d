//! What it takes to keep blocks in force: `cargo bench --bench standing [-- flush|restore]`, as root. One table; nothing of the machine's own
//! firewall is touched, the daemon runs in a network namespace of its own.
//!
//! - flush: 10,000 blocks, `nft flush ruleset`, until the table is back with all of them. Seen from outside, by the generation of the ruleset: a listener
//!   to the kernel's notifications would slow down what it measures.
//! - restore: 100,000 stored blocks after a reboot, until they are in force.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints and may stop where it fails"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use portsentry::engine::{Moment, Source, Subject};
use portsentry::journal::store::{self, Block, Content, Mark};
use portsentry::nft::Connection;
use support::daemon::Daemon;
use support::eventually;
use support::netns::Namespace;

const FLUSH_BLOCKS: u32 = 10_000;
/// Repairs are slowed down in a fight: so many of one daemon are none.
const FLUSHES_A_DAEMON: u64 = 4;
const DAEMONS: usize = 5;
const RESTORE_BLOCKS: u32 = 100_000;
const RESTORE_RUNS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let legs: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |leg: &str| legs.is_empty() || legs.iter().any(|wanted| wanted == leg);
    println!("{:<58} {:>10} {:>10} {:>10}", "", "fastest", "median", "slowest");
    if wants("flush") {
        flush();
    }
    if wants("restore") {
        restore();
    }
}

fn row(what: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let what = format!("{what}, {unit}");
    println!("{what:<58} {:>10.1} {:>10.1} {:>10.1}", values[0], values[values.len() / 2], values[values.len() - 1]);
}

fn address(number: u32) -> Ipv4Addr {
    // Not of one network, as scanners are not: multiplied by an odd number, all are different.
    let spread = number.wrapping_mul(0x9e37_79b1);
    // 11.0.0.0 to 75.255.255.255.
    Ipv4Addr::from(0x0b00_0000 + spread % 0x4000_0000)
}

/// A state directory as a daemon left it in another boot.
fn stored(count: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let clock = Moment::from_millis(clock.tv_sec as u64 * 1000);
    let mark = Mark { boot: "another-boot".to_owned(), wall, clock };
    write(directory.path(), mark, count);
    directory
}

fn write(directory: &Path, mark: Mark, count: u32) {
    let block = |number: u32| Block {
        subject: Subject::Host(Source::V4(address(number))),
        prefix: 64,
        since: mark.clock,
        expires: Some(Moment::from_millis(mark.clock.millis() + 86_400_000 + u64::from(number))),
        port: None,
        reason: "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3".parse().unwrap(),
    };
    let content = Content { blocks: (0..count).map(block).collect(), offenders: Vec::new(), evidence: Vec::new(), mark: mark.clone() };
    store::open(directory, &mark).database.unwrap().replace(&content).unwrap();
}

fn blocked(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["blocked"].as_u64().unwrap()
}

fn repairs(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap()
}

fn flush() {
    let (mut gaps, mut works) = (Vec::new(), Vec::new());
    for _ in 0..DAEMONS {
        let namespace = Namespace::new();
        let state = stored(FLUSH_BLOCKS);
        let daemon = Daemon::start_with(&namespace, "own_table: false", Some(state.path()));
        assert_eq!(blocked(&daemon), u64::from(FLUSH_BLOCKS));
        for round in 1..=FLUSHES_A_DAEMON {
            std::thread::sleep(Duration::from_millis(500));
            gaps.push(gap(&namespace));
            assert!(eventually(PATIENCE, || repairs(&daemon) == round), "{}", daemon.log());
            assert_eq!(blocked(&daemon), u64::from(FLUSH_BLOCKS), "{}", daemon.log());
        }
        let log = daemon.log();
        works.extend(log.lines().filter_map(|line| line.rsplit_once("were put back within ")?.1.strip_suffix(" ms")?.parse::<f64>().ok()));
    }
    row(&format!("flush, {FLUSH_BLOCKS} blocks: from event to restored table"), "ms", gaps);
    row("    of that by the daemon's own clock", "ms", works);
}

/// Flushes, and measures by the generation how long the table is gone.
fn gap(namespace: &Namespace) -> f64 {
    namespace.enter(|| {
        let mut connection = Connection::open().unwrap();
        let before = connection.generation().unwrap();
        let mut flush = std::process::Command::new("nft").args(["flush", "ruleset"]).spawn().unwrap();
        let mut wait = |from: u32| loop {
            let now = connection.generation().unwrap();
            if now != from {
                return (Instant::now(), now);
            }
            std::thread::sleep(Duration::from_micros(50));
        };
        let (gone, at) = wait(before);
        let (back, at) = wait(at);
        assert!(flush.wait().unwrap().success());
        // One transaction brings every block; their counters follow in pieces. More than that would be a second repair.
        std::thread::sleep(Duration::from_millis(1000));
        let after = connection.generation().unwrap().wrapping_sub(at);
        assert!(after <= FLUSH_BLOCKS / 1000, "{after} transactions after the repair");
        (back - gone).as_secs_f64() * 1000.0
    })
}

fn restore() {
    let (mut answers, mut works) = (Vec::new(), Vec::new());
    for _ in 0..RESTORE_RUNS {
        let namespace = Namespace::new();
        let state = stored(RESTORE_BLOCKS);
        let began = Instant::now();
        let daemon = Daemon::start_with(&namespace, "", Some(state.path()));
        answers.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(blocked(&daemon), u64::from(RESTORE_BLOCKS));
        let log = daemon.log();
        works.extend(log.lines().filter_map(|line| line.rsplit_once("protected after ")?.1.strip_suffix(" ms")?.parse::<f64>().ok()));
    }
    row(&format!("restore, {RESTORE_BLOCKS} blocks: from exec to the first answer"), "ms", answers);
    if !works.is_empty() {
        row("    from reading the store to protected", "ms", works);
    }
}
