//! A million blocks: what it takes to put them in, to list them, to dump them, to bring them back,
//! and what one more costs then.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portsentry::nft::{Connection, Element, Key};
use portsentry::ruleset::{SCHEMA, SetId};

use super::support::daemon::Daemon;
use super::support::netns::Namespace;
use super::support::{eventually, output};
use super::{ANSWER_TIMEOUT, REASON, address, installed, stored};

/// As many as `block.total` allows by default.
pub const BLOCKS: u32 = 1_000_000;
/// Single elements that are put in and asked for among the others.
const SINGLE: u32 = 1000;

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<70} {figure:>16}");
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

/// Memory of the machine that is used up between two moments: of the kernel's set, since the
/// process itself is small.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    text.lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok()
        })
        .unwrap()
}

fn megabytes(kilobytes: u64) -> String {
    format!("{:.0} MB", kilobytes as f64 / 1000.0)
}

/// Whether every block is in the set, where the kernel counts them (Linux 6.16).
fn is_full(connection: &mut Connection) -> bool {
    let set = connection.sets().unwrap().into_iter().find(|set| set.name == "blocked4");
    set.is_some_and(|set| set.count.is_none_or(|count| count == BLOCKS))
}

/// Whether the daemon has nothing more to send: comments and counters follow in pieces.
pub fn is_settled() -> bool {
    let generation = || Connection::open(SCHEMA).unwrap().generation().unwrap();
    eventually(ANSWER_TIMEOUT, || {
        let before = generation();
        std::thread::sleep(Duration::from_millis(200));
        before == generation()
    })
}

/// All of it.
pub fn million() {
    println!("\n{BLOCKS} blocks");
    kernel();
    daemon();
}

/// One of them.
pub fn element(number: u32) -> Element<'static> {
    let address = address(number);
    Element {
        timeout: Some(Duration::from_secs(86_400)),
        comment: Some(REASON),
        ..Element::new(IpAddr::from(address))
    }
}

/// The set alone, by our own connection.
fn kernel() {
    let namespace = Namespace::new();
    namespace.enter(|| {
        let mut connection = installed();
        let elements: Vec<_> = (0..BLOCKS).map(element).collect();
        let before = available();
        let began = Instant::now();
        connection.add_elements(SetId::Blocked4, &elements[..(BLOCKS - SINGLE) as usize]).unwrap();
        row("the kernel's set: added, 2,000 a transaction", milliseconds(began.elapsed()));
        row("    memory of the kernel", megabytes(before.saturating_sub(available())));
        let began = Instant::now();
        for element in &elements[(BLOCKS - SINGLE) as usize..] {
            connection.add_element(SetId::Blocked4, element).unwrap();
        }
        row(
            "    one more, alone in its transaction",
            format!("{:.1} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(SINGLE)),
        );
        let keys: Vec<Key> = elements.iter().map(|element| element.key).collect();
        let began = Instant::now();
        let found = connection.get_elements(SetId::Blocked4, &keys).unwrap();
        assert!(found.iter().all(Option::is_some));
        row("    each asked for by its key", milliseconds(began.elapsed()));
        let began = Instant::now();
        let dumped = connection.dump_set(SetId::Blocked4).unwrap();
        row(
            "    dumped, which the kernel does in the square of their number",
            milliseconds(began.elapsed()),
        );
        assert_eq!(dumped.len(), BLOCKS as usize);
        let began = Instant::now();
        assert_eq!(
            connection.delete_elements(SetId::Blocked4, &elements).unwrap(),
            BLOCKS as usize
        );
        row("    taken out, 2,000 a transaction", milliseconds(began.elapsed()));
    });
}

/// The daemon over a store that has them.
fn daemon() {
    let namespace = Namespace::new();
    let state = stored(BLOCKS);
    let before = available();
    let began = Instant::now();
    let daemon = Daemon::start_with(&namespace, "own_table: false", Some(state.path()));
    row(
        "the daemon: restored, from exec to the first answer, all in force",
        milliseconds(began.elapsed()),
    );
    assert!(namespace.enter(|| is_full(&mut Connection::open(SCHEMA).unwrap())));
    assert!(namespace.enter(is_settled));
    row("    until each has its comment and counter", milliseconds(began.elapsed()));
    row("    resident memory", megabytes(daemon.memory("VmRSS")));
    row("    resident memory at the most", megabytes(daemon.memory("VmHWM")));
    row(
        "    memory of the machine, kernel and store included",
        megabytes(before.saturating_sub(available())),
    );

    let socket = daemon.path("control.sock");
    let timed = |what: &str, words: &[&str]| {
        let mut all = vec!["--socket", socket.to_str().unwrap()];
        all.extend_from_slice(words);
        let began = Instant::now();
        let output = output(env!("CARGO_BIN_EXE_portsentryctl"), &all, ANSWER_TIMEOUT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        row(what, milliseconds(began.elapsed()));
        output.stdout
    };
    let listed = timed("portsentryctl list", &["list"]);
    // A head line is above the rows.
    assert!(listed.iter().filter(|byte| **byte == b'\n').count() >= BLOCKS as usize);
    let listed = timed("portsentryctl list --json", &["--json", "list"]);
    let rows: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&listed).unwrap();
    assert_eq!(rows.len(), BLOCKS as usize);
    timed("portsentryctl status", &["status"]);
    timed(
        "portsentryctl unblock, on the disk when it returns",
        &["unblock", &address(7).to_string()],
    );
    timed("portsentryctl block, on the disk when it returns", &["block", &address(7).to_string()]);
    row("    resident memory of the daemon after that", megabytes(daemon.memory("VmRSS")));

    let (protected, all) = flush(&namespace);
    row(
        "nft flush ruleset: until the rules and the first blocks are back",
        milliseconds(protected),
    );
    row("    until all of them are back", milliseconds(all));
    let began = Instant::now();
    assert!(daemon.ctl(&["status"]).status.success());
    row("    portsentryctl status then", milliseconds(began.elapsed()));
    timed("portsentryctl unblock --all", &["unblock", "--all"]);
}

/// How long the table is gone, and how long it takes until every block is back.
fn flush(namespace: &Namespace) -> (Duration, Duration) {
    namespace.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let gap =
            super::gap(&mut connection, &mut Connection::open(SCHEMA).unwrap(), super::By::Nft);
        let began = Instant::now();
        assert!(eventually(ANSWER_TIMEOUT, || is_full(&mut connection)));
        (gap, gap + began.elapsed())
    })
}
