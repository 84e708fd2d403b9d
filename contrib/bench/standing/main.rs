//! What it takes to keep blocks in force: `cargo bench --bench standing [--
//! flush|restore|drops|million|small]`, as root, some five minutes. Nothing of the machine's own firewall
//! is touched, each daemon runs in a network namespace of its own.
//!
//! - flush: 10,000 blocks, `nft flush ruleset`, until the table is back with all of them. Seen from
//!   outside, by the generation of the ruleset: a listener to the kernel's notifications would slow
//!   down what it measures.
//! - restore: 100,000 stored blocks after a reboot, until they are in force.
//! - drops: what a dropped packet costs, from no block to a million.
//! - small: the project's bounds of memory and time, what they were, and what they are now. Only when
//!   it is named: `contrib/bench/small`.
//! - million: a million blocks added, listed, dumped, restored, restored again after a flush,
//!   lifted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints and may stop where it fails"
)]

#[path = "../../../tests/support/mod.rs"]
mod support;

mod drops;
mod million;
mod small;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use portsentry::config::Config;
use portsentry::engine::{MonoTime, Source};
use portsentry::nft::Connection;
use portsentry::ruleset::{self, SCHEMA, SetId};
use portsentry::store::{self, Block, Content, Mark};
use support::daemon::Daemon;
use support::eventually;
use support::netns::Namespace;

const FLUSH_BLOCKS: u32 = 10_000;
/// Few enough for one daemon that its repairs are not slowed down.
const FLUSHES_A_DAEMON: u64 = 4;
const DAEMONS: usize = 5;
const FLUSHES: usize = 20;
const RESTORE_BLOCKS: u32 = 100_000;
const RESTORE_RUNS: usize = 5;
/// Why all of them are blocked, in sets that are filled without a daemon.
const REASON: &str = "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

fn main() {
    if support::missing(&["ip", "nft"]).is_some() {
        return;
    }
    let legs: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |leg: &str| legs.is_empty() || legs.iter().any(|wanted| wanted == leg);
    if wants("flush") || wants("restore") {
        println!("{:<58} {:>10} {:>10} {:>10}", "", "fastest", "median", "slowest");
    }
    if wants("flush") {
        flush();
    }
    if wants("restore") {
        restore();
    }
    if wants("drops") {
        drops::drops();
    }
    if wants("million") {
        million::million();
    }
    if legs.iter().any(|leg| leg == "small") {
        small::small();
    }
}

fn row(what: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let what = format!("{what}, {unit}");
    println!(
        "{what:<58} {:>10.1} {:>10.1} {:>10.1}",
        values[0],
        values[values.len() / 2],
        values[values.len() - 1]
    );
}

fn address(number: u32) -> Ipv4Addr {
    // Not of one network, as scanners are not: multiplied by an odd number, all are different.
    let spread = number.wrapping_mul(0x9e37_79b1);
    // 11.0.0.0 to 75.255.255.255.
    Ipv4Addr::from(0x0b00_0000 + spread % 0x4000_0000)
}

/// Why one of them is blocked: other ports in another time, as scanners have.
fn reason(number: u32) -> String {
    let port = |factor: u32| number.wrapping_mul(factor) >> 16;
    let (first, second, third) = (port(0x9e37_79b1), port(0x85eb_ca77), port(0xc2b2_ae3d));
    let tenths = number % 100;
    format!(
        "syn scan: 3 ports in {}.{}s: tcp/{first} tcp/{second} tcp/{third}",
        tenths / 10,
        tenths % 10
    )
}

/// A state directory as a daemon left it in another boot.
fn stored(count: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let wall =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
            as u64;
    let clock = MonoTime::from_millis(clock.tv_sec as u64 * 1000);
    let mark = Mark { boot: "another-boot".to_owned(), wall, clock };
    write(directory.path(), mark, count);
    directory
}

fn write(directory: &Path, mark: Mark, count: u32) {
    let block = |number: u32| Block {
        source: Source::of(address(number).into(), 64),
        exempt: Vec::new(),
        since: mark.clock,
        expires: Some(MonoTime::from_millis(mark.clock.millis() + 86_400_000 + u64::from(number))),
        port: None,
        reason: reason(number).parse().unwrap(),
    };
    let content = Content {
        blocks: (0..count).map(block).collect(),
        mark: mark.clone(),
        ..Content::default()
    };
    store::open(directory, &mark).database.unwrap().replace(&content).unwrap();
}

/// A connection in the thread's namespace, where the rules of the built-in defaults are in place
/// without a daemon.
fn installed() -> Connection {
    let mut connection = Connection::open(SCHEMA).unwrap();
    connection.install(&ruleset::for_config(&Config::default(), 32768..=60999)).unwrap();
    connection
}

fn blocked(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["blocked"].as_u64().unwrap()
}

fn repairs(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap()
}

fn flush() {
    let (by_program, by_nft, works) = (
        repaired(By::Program),
        repaired(By::Nft),
        (0..FLUSHES).map(|_| wait_after_a_flush()).collect(),
    );
    row(&format!("flush, {FLUSH_BLOCKS} blocks: from event to restored table"), "ms", by_program);
    row("    after nft flush ruleset", "ms", by_nft);
    row("    without a daemon: until the kernel takes the next transaction", "ms", works);
}

/// The program that flushes.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// nft(8), which exits; closing its socket locks the ruleset for all programs.
    Nft,
    /// A program that keeps running, as firewalld does.
    Program,
}

fn repaired(by: By) -> Vec<f64> {
    let mut gaps = Vec::new();
    for _ in 0..DAEMONS {
        let namespace = Namespace::new();
        let state = stored(FLUSH_BLOCKS);
        let daemon = Daemon::start_with(&namespace, "own_table: false", Some(state.path()));
        assert_eq!(blocked(&daemon), u64::from(FLUSH_BLOCKS));
        for round in 1..=FLUSHES_A_DAEMON {
            std::thread::sleep(Duration::from_millis(500));
            gaps.push(gap_in_one_transaction(&namespace, by));
            assert!(eventually(ANSWER_TIMEOUT, || repairs(&daemon) == round), "{}", daemon.log());
            assert_eq!(blocked(&daemon), u64::from(FLUSH_BLOCKS), "{}", daemon.log());
        }
    }
    gaps
}

/// How long the ruleset is locked after a flush. When nft exits and its socket is closed, the
/// kernel holds the lock until all flushed objects are freed (nft_rcv_nl_event() in
/// net/netfilter/nf_tables_api.c, Linux 6.10 and vendors' older ones).
fn wait_after_a_flush() -> f64 {
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut connection = installed();
        let elements: Vec<_> = (0..FLUSH_BLOCKS).map(million::element).collect();
        connection.add_elements(SetId::Blocked4, &elements).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let before = connection.generation().unwrap();
        let mut flush =
            std::process::Command::new("nft").args(["flush", "ruleset"]).spawn().unwrap();
        let (gone, _) = next_generation(&mut connection, before);
        // As long as it takes to write the transaction that puts everything back.
        std::thread::sleep(Duration::from_millis(1));
        // There is none: what counts is when the kernel says so.
        assert!(connection.remove_table().is_err_and(|error| error.is_not_found()));
        let waited = gone.elapsed();
        assert!(flush.wait().unwrap().success());
        waited.as_secs_f64() * 1000.0
    })
}

/// When the ruleset is no longer of this generation, and of which it is then.
fn next_generation(connection: &mut Connection, from: u32) -> (Instant, u32) {
    loop {
        let now = connection.generation().unwrap();
        if now != from {
            return (Instant::now(), now);
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Flushes, and measures by the generation how long the table is gone. `others`: the connection of
/// a program that goes on.
fn gap(connection: &mut Connection, others: &mut Connection, by: By) -> Duration {
    let before = connection.generation().unwrap();
    let mut nft = match by {
        By::Nft => {
            Some(std::process::Command::new("nft").args(["flush", "ruleset"]).spawn().unwrap())
        }
        By::Program => None,
    };
    if nft.is_none() {
        others.remove_table().unwrap();
    }
    let (gone, at) = next_generation(connection, before);
    let (back, _) = next_generation(connection, at);
    assert!(nft.as_mut().is_none_or(|nft| nft.wait().unwrap().success()));
    back - gone
}

/// One transaction brings every block; comments and counters follow in pieces. More than that would
/// be a second repair.
fn gap_in_one_transaction(namespace: &Namespace, by: By) -> f64 {
    namespace.enter(|| {
        let (mut connection, mut others) =
            (Connection::open(SCHEMA).unwrap(), Connection::open(SCHEMA).unwrap());
        let before = connection.generation().unwrap();
        let gap = gap(&mut connection, &mut others, by);
        std::thread::sleep(Duration::from_millis(1000));
        let after = connection.generation().unwrap().wrapping_sub(before);
        // The flush, the repair, the counters.
        assert!(after <= 2 + FLUSH_BLOCKS / 1000, "{after} transactions");
        gap.as_secs_f64() * 1000.0
    })
}

fn restore() {
    let mut answers = Vec::new();
    for _ in 0..RESTORE_RUNS {
        let namespace = Namespace::new();
        let state = stored(RESTORE_BLOCKS);
        let began = Instant::now();
        let daemon = Daemon::start_with(&namespace, "", Some(state.path()));
        answers.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(blocked(&daemon), u64::from(RESTORE_BLOCKS));
    }
    row(&format!("restore, {RESTORE_BLOCKS} blocks: from exec to the first answer"), "ms", answers);
}
