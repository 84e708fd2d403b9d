//! The bounds of memory and time that the project has set itself, in one table.

use std::process::Command;
use std::time::{Duration, Instant};

use super::support::daemon::Daemon;
use super::support::netns::Namespace;
use super::support::output;
use super::{ANSWER_TIMEOUT, million, stored};

/// Starts of which the fastest counts: what else the machine does makes the others slower.
const RUNS: usize = 3;
const FEW: u32 = 100_000;

/// What is measured, what it was at version 0.1.0 of 2026-11-28, and what it is to be below.
struct Row {
    what: &'static str,
    unit: &'static str,
    before: f64,
    target: f64,
    now: f64,
}

/// Prints the table.
pub fn small() {
    let (restored, memory, listed) = a_million();
    let rows = [
        Row { what: "both processes idle", unit: "MB", before: 9.9, target: 8.0, now: idle() },
        Row {
            what: "the daemon with a million blocks",
            unit: "MB",
            before: 445.0,
            target: 200.0,
            now: memory,
        },
        Row {
            what: "portsentryctl list of a million",
            unit: "s",
            before: 6.4,
            target: 2.0,
            now: listed,
        },
        Row {
            what: "100,000 blocks in force after a start",
            unit: "s",
            before: 0.331,
            target: 0.2,
            now: start(FEW),
        },
        Row {
            what: "a million blocks in force after a start",
            unit: "s",
            before: 4.8,
            target: 2.0,
            now: restored,
        },
    ];
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("\nload average at the end: {}", load.split(' ').next().unwrap_or_default());
    println!("\n| what | before | bound | now | |\n|---|---|---|---|---|");
    for Row { what, unit, before, target, now } in rows {
        let verdict = if now < target { "met" } else { "**missed**" };
        println!("| {what} | {before} {unit} | {target} {unit} | {now:.2} {unit} | {verdict} |");
    }
}

/// Megabytes, what both processes share counted once.
fn idle() -> f64 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bench/idle-memory");
    let ran = Command::new(script).arg(env!("CARGO_BIN_EXE_portsentry")).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    let both = text.lines().find_map(|line| line.strip_prefix("both together: ")).unwrap();
    both.split(' ').next().unwrap().parse::<f64>().unwrap() / 1000.0
}

/// Seconds from exec to the first answer, when all are in force: the fastest.
fn start(blocks: u32) -> f64 {
    let run = |_| {
        let namespace = Namespace::new();
        let state = stored(blocks);
        let began = Instant::now();
        let daemon = Daemon::start_with(&namespace, "own_table: false", Some(state.path()));
        let taken = began.elapsed().as_secs_f64();
        assert_eq!(super::blocked(&daemon), u64::from(blocks));
        taken
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

/// Seconds of the start, megabytes of the daemon, seconds of the list: the larger of a table and JSON.
fn a_million() -> (f64, f64, f64) {
    let namespace = Namespace::new();
    let state = stored(million::BLOCKS);
    let began = Instant::now();
    let daemon = Daemon::start_with(&namespace, "own_table: false", Some(state.path()));
    let restored = began.elapsed().as_secs_f64();
    assert!(namespace.enter(million::is_settled));
    let memory = daemon.memory("VmRSS") as f64 / 1000.0;
    println!("resident at the most: {:.0} MB", daemon.memory("VmHWM") as f64 / 1000.0);
    let socket = daemon.path("control.sock");
    let listed = |words: &[&str]| {
        let mut all = vec!["--socket", socket.to_str().unwrap()];
        all.extend_from_slice(words);
        let began = Instant::now();
        let output = output(env!("CARGO_BIN_EXE_portsentryctl"), &all, ANSWER_TIMEOUT);
        let taken: Duration = began.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines >= million::BLOCKS as usize, "{lines}");
        taken.as_secs_f64()
    };
    let (table, json) = (listed(&["list"]), listed(&["--json", "list"]));
    println!("list: {table:.2} s; with --json {json:.2} s");
    println!("resident after that: {:.0} MB", daemon.memory("VmRSS") as f64 / 1000.0);
    (restored, memory, table.max(json))
}
