//! Shared by the integration tests: network namespaces that clean up, commands with time limits,
//! counted skips.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may stop where it fails"
)]

pub mod daemon;
pub mod expressions;
pub mod flood;
pub mod jail;
pub mod mmdb;
pub mod netns;
pub mod predecessor;
pub mod scene;
pub mod schedule;
pub mod schema;
pub mod tables;
pub mod terminal;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use netns::Namespace;
use portsentry::nft::{Monitor, Notification, Received};
use portsentry::ruleset::SCHEMA;
use rustix::process::{Pid, Signal, kill_process_group};

/// Sends traffic that nmap cannot; each load is a function in it.
pub const TRAFFIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/traffic.py");

/// Where nmap finds a short list of services (nmap(1), `NMAPDIR`).
const NMAP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/nmap");

/// A name that no other test on this machine uses: process id and a count.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `program` and returns its output, whatever its exit status. Past `limit` it and its children
/// are killed.
pub fn output(program: &str, arguments: &[&str], limit: Duration) -> Output {
    // timeout(1) would be one more program to start, and tests start some ten thousand.
    let child = Command::new(program)
        .args(arguments)
        .env("NMAPDIR", NMAP)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let group = Pid::from_child(&child);
    std::thread::scope(|scope| {
        let (ended, end) = mpsc::channel::<()>();
        scope.spawn(move || {
            if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        let output = child.wait_with_output();
        drop(ended);
        output.unwrap_or_else(|error| panic!("{program}: {error}"))
    })
}

/// Runs `program`, which must succeed, and returns its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments, Duration::from_secs(60));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Copies a program to where all users may run it. A separate process copies it: a child forked by
/// another test at that moment would inherit our writable descriptor, and executing the copy would
/// fail (ETXTBSY, execve(2)).
pub fn copy_program(from: &str, to: &Path) {
    run("install", &["-m", "755", from, to.to_str().expect("a path in UTF-8")]);
}

/// How long a test looks, seconds: `short`, and `long` with `PORTSENTRY_LONG=1`.
pub fn duration(short: u32, long: u32) -> u32 {
    if is_long() { long } else { short }
}

/// Whether tests that can take their time do.
pub fn is_long() -> bool {
    std::env::var("PORTSENTRY_LONG").is_ok_and(|value| value == "1")
}

/// Why tests that need privilege or tools cannot run here; `None` if they can.
///
/// A skip is a line `SKIP reason` that `tests/run` counts, and a failure where `CI` is set. A test
/// that can run waits here for its place beside the others ([`schedule`]).
pub fn missing(tools: &[&str]) -> Option<String> {
    let reason = if !rustix::process::geteuid().is_root() {
        Some("not root: no network namespaces".to_owned())
    } else {
        tools
            .iter()
            .find(|tool| {
                !Command::new("sh")
                    .args(["-c", &format!("command -v {tool}")])
                    .output()
                    .is_ok_and(|o| o.status.success())
            })
            .map(|tool| format!("{tool} is not installed"))
    };
    match &reason {
        Some(reason) => skip(reason),
        None => schedule::side_by_side(),
    }
    reason
}

/// Names a directory where tests leave what they show, for contrib/pictures.
pub const PICTURES: &str = "PORTSENTRY_PICTURES";

/// Leaves a picture, where a directory is named.
pub fn keep_picture(name: &str, text: &str) {
    if let Some(directory) = std::env::var_os(PICTURES) {
        std::fs::write(Path::new(&directory).join(name), text).unwrap();
    }
}

/// What a program printed, errors last.
pub fn output_text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// What a program printed, which must have succeeded.
pub fn done(output: &Output) -> String {
    let text = output_text(output);
    assert!(output.status.success(), "{text}");
    text
}

/// Prints that a test cannot run, and why.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "SKIP {reason}: not in CI");
    // Past the test runner, which hides the output of passing tests.
    let _ = writeln!(std::io::stderr(), "\nSKIP {reason}");
}

/// How long the table of `host` is gone after `flush` deletes it, as an observer sees it: from the
/// notification of its deletion to that of the transaction that restores it. (An observer that is
/// not scheduled in between sees less.) Returned with the result of `flush`.
pub fn gap<T: Send>(host: &Namespace, flush: impl FnOnce() -> T + Send) -> (Duration, T) {
    let mut monitor = host.enter(|| Monitor::open(SCHEMA).unwrap());
    let (mut gone, mut back) = (None, None);
    let begun = Instant::now();
    let given = std::thread::scope(|scope| {
        let flush = scope.spawn(flush);
        while back.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the table does not come back");
            let heard = monitor.receive(None, |notification| match notification {
                Notification::TableDeleted => gone = gone.or(Some(Instant::now())),
                Notification::TableAdded if gone.is_some() => back = back.or(Some(Instant::now())),
                _ => {}
            });
            if heard.unwrap() == Received::Nothing {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        flush.join().unwrap()
    });
    (back.unwrap() - gone.unwrap(), given)
}

/// The kernel's release: 6.12.107-cloud is (6, 12).
pub fn linux() -> (u32, u32) {
    let system = rustix::system::uname();
    let mut numbers = system
        .release()
        .to_str()
        .expect("release")
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The processes with `mark` in their arguments or environment. Zombies have neither.
pub fn marked(mark: &str) -> Vec<u32> {
    let holds = |path: String| {
        std::fs::read(path)
            .is_ok_and(|bytes| bytes.windows(mark.len()).any(|window| window == mark.as_bytes()))
    };
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        *pid != std::process::id()
            && (holds(format!("/proc/{pid}/cmdline")) || holds(format!("/proc/{pid}/environ")))
    })
    .collect()
}

/// Checks `condition` every 20 ms until it holds; `false` after `limit`.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What `run` gives for each of these, in their order, several at a time; it gets the place as well.
pub fn in_parallel<T: Sync, R: Send>(
    workers: usize,
    items: &[T],
    run: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let result = run(at, item);
                    results.lock().unwrap().insert(at, result);
                }
            });
        }
    });
    results.into_inner().unwrap().into_values().collect()
}
