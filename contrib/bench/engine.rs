//! How fast the engine is, and what it remembers costs: `cargo bench --bench engine`; with a word
//! after `--`, only the loads whose names contain it.
//!
//! Every run is made of probes that were built before the clock starts, and answers each order as
//! the kernel would. Rates are the best of three runs, on one thread, by the processor time that
//! the thread had (/proc/thread-self/schedstat), so that a busy machine does not count. Memory is
//! what the allocator was asked for and, beside it, what the kernel holds resident.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints and may stop where it fails"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portsentry::config::{Config, UnprovenAction};
use portsentry::engine::{
    Action, CAPACITY, Engine, MonoTime, NEWCOMER_BYTES, Outcome, Policy, Trigger, suspect_bytes,
};
use portsentry::probe::{Port, Probe, ScanKind, Signature, Transport};
use portsentry::wire;

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

#[expect(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; this one counts and passes everything on"
)]
// SAFETY: every call is handed to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise about `at` and `layout` is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SOURCES: u32 = 100_000;
const PROBES: u32 = 2_000_000;
/// Virtual time between two probes: two million a second.
const PROBES_A_MILLISECOND: u64 = 2000;
/// Probes that are read ahead together, as packets of one datagram are.
const TOGETHER: usize = 16;

fn main() {
    // First: a heap that has seen use gives no new pages.
    if is_asked("memory") {
        memory();
    }
    if is_asked("million") {
        million();
    }
    println!("\nengine, {PROBES} probes a run, best of 3 runs, one thread\n");
    println!(
        "{:<58} {:>12} {:>9} {:>9} {:>9} {:>8}",
        "load", "probes/s", "ns/probe", "sources", "blocked", "evicted"
    );
    let high = |policy: &mut Policy| policy.scan_trigger = 100;
    row(
        "100,000 IPv4 sources, two ports each, trigger 2",
        |_| {},
        |n| tcp(v4(mixed(n) % SOURCES), 1 + (mixed(n ^ 0x5555) % 2) as u16),
    );
    row(
        "100,000 IPv4 sources, one port each, trigger 2",
        |_| {},
        |n| tcp(v4(mixed(n) % SOURCES), 22),
    );
    row(
        "100,000 IPv6 /64 sources, two ports each, trigger 2",
        |_| {},
        |n| tcp(v6(mixed(n) % SOURCES), 1 + (mixed(n ^ 0x5555) % 2) as u16),
    );
    row(
        "100,000 IPv4 sources, all scan 1,000 ports, 600 blocks/min",
        |_| {},
        |n| tcp(v4(mixed(n) % SOURCES), (mixed(n ^ 0x5555) % 1000) as u16),
    );
    row(
        "the same, all are blocked",
        |policy| policy.unproven.per_minute = u32::MAX,
        |n| tcp(v4(mixed(n) % SOURCES), (mixed(n ^ 0x5555) % 1000) as u16),
    );
    row("100,000 IPv4 sources, 100 ports each, trigger 100", high, |n| {
        tcp(v4(mixed(n) % SOURCES), (mixed(n ^ 0x5555) % 100) as u16)
    });
    row("every probe from a new source (flood)", |_| {}, |n| tcp(v4(mixed(n)), 443));
    row(
        "two probes from each new source (flood)",
        |_| {},
        |n| tcp(v4(mixed(n / 2)), 443 + (n % 2) as u16),
    );
    parsing();
}

/// Whether the command line names this load, or none.
fn is_asked(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--")).peekable();
    words.peek().is_none() || words.any(|word| name.contains(&word))
}

fn row(name: &str, change: impl Fn(&mut Policy), make: impl Fn(u32) -> Probe) {
    if !is_asked(name) {
        return;
    }
    let probes: Vec<Probe> = (0..PROBES).map(make).collect();
    let mut best = Duration::MAX;
    let mut status = None;
    for _ in 0..3 {
        let mut engine = engine(&change);
        // The first probe of each source is no different in kind, but reading its memory for the
        // first time is the kernel's work.
        for (n, probe) in probes.iter().enumerate().take(SOURCES as usize * 4) {
            feed(&mut engine, n as u64 / PROBES_A_MILLISECOND, probe);
        }
        let start = processor_time();
        let mut n = 0;
        for together in probes.chunks(TOGETHER) {
            engine.read_ahead(together.iter().map(|probe| probe.source));
            for probe in together {
                feed(&mut engine, 200 + n / PROBES_A_MILLISECOND, probe);
                n += 1;
            }
        }
        best = best.min(processor_time() - start);
        status = Some(engine.status());
    }
    let status = status.unwrap();
    let rate = f64::from(PROBES) / best.as_secs_f64();
    println!(
        "{name:<58} {rate:>12.0} {:>9.0} {:>9} {:>9} {:>8}",
        1e9 / rate,
        status.sources,
        status.blocked,
        status.evicted
    );
}

fn engine(change: impl Fn(&mut Policy)) -> Engine {
    let mut policy = Policy::from_config(&Config::default());
    policy.unproven.action = UnprovenAction::Block;
    change(&mut policy);
    Engine::new(policy, [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210])
}

/// A probe and all that follows from it.
fn feed(engine: &mut Engine, millis: u64, probe: &Probe) -> Trigger {
    let now = MonoTime::from_millis(millis);
    let mut actions = Vec::new();
    let trigger = engine.on_probe(now, probe, &mut actions);
    for action in std::mem::take(&mut actions) {
        if let Action::Block { source, .. } = action {
            engine.on_outcome(now, Outcome::Blocked { source, result: Ok(()) }, &mut actions);
        }
        black_box(&actions);
    }
    trigger
}

fn parsing() {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 203, 0, 113, 9, 192, 0, 2, 1];
    packet.extend([0x9c, 0x40, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 4, 0, 0, 0, 0, 0]);
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = processor_time();
        for _ in 0..PROBES {
            let packet = wire::parse(black_box(&packet)).unwrap();
            black_box(Probe::from_packet(&packet, &(32768..=60999))).unwrap();
        }
        best = best.min(processor_time() - start);
    }
    println!(
        "\nfrom bytes to probe (IPv4 TCP SYN): {:.1} ns",
        best.as_secs_f64() * 1e9 / f64::from(PROBES)
    );
}

/// What 100,000 suspects and a full ledger cost.
fn memory() {
    let (live, resident) = (LIVE.load(Ordering::Relaxed), resident());
    let mut engine = engine(|_| {});
    let (reserved, idle) = (LIVE.load(Ordering::Relaxed) - live, self::resident() - resident);
    println!(
        "ledger and tables of {CAPACITY} sources (default): {} KiB reserved, {} KiB of them resident before the first probe",
        reserved >> 10,
        idle >> 10
    );
    println!(
        "stated: a source with one port {NEWCOMER_BYTES} bytes, a suspect {} bytes, index included",
        suspect_bytes(2)
    );
    let mut known = 0;
    for (name, count, ports) in
        [("100,000 sources with two ports", SOURCES, 2u16), ("and 262,144 with one", 262_144, 1)]
    {
        let calls = CALLS.load(Ordering::Relaxed);
        for n in 0..count {
            for port in 0..ports {
                // Slow enough for every newcomer to find its place.
                let probe = tcp(v4(n + if ports == 1 { SOURCES } else { 0 }), port);
                feed(&mut engine, u64::from(n), &probe);
            }
        }
        let status = engine.status();
        let touched = self::resident() - resident;
        let allocated = LIVE.load(Ordering::Relaxed) - live;
        known += count;
        println!(
            "{name}: {} sources; {} KiB allocated in all ({} calls), {} KiB resident, {} bytes a source",
            status.sources,
            allocated >> 10,
            CALLS.load(Ordering::Relaxed) - calls,
            touched >> 10,
            touched / known as usize
        );
    }
    black_box(&engine);
}

/// A slow scanner among a million sources of one packet each, within two hours.
fn million() {
    const EVERY: u32 = 50_000;
    let (live, resident) = (LIVE.load(Ordering::Relaxed), resident());
    let mut engine = engine(|_| {});
    let mut found = None;
    for n in 0..1_000_000 {
        let millis = u64::from(n) * 7;
        if n % EVERY == 0 {
            let port = 1 + (n / EVERY) as u16;
            let probe = tcp(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), port);
            if feed(&mut engine, millis, &probe) == Trigger::Passed {
                found = found.or(Some(port));
            }
        }
        feed(&mut engine, millis, &tcp(v4(mixed(n)), 443));
    }
    println!(
        "1,000,000 sources with one packet each: {} KiB allocated, {} KiB resident; a scanner among them, with a port every 350 s: found at port {}",
        (LIVE.load(Ordering::Relaxed) - live) >> 10,
        (self::resident() - resident) >> 10,
        found.expect("a scanner that is not found")
    );
    black_box(&engine);
}

/// Time that this thread has run (Documentation/scheduler/sched-stats.rst).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Resident memory in bytes, anonymous pages only (proc_pid_status(5)).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// A permutation of numbers that looks random (a finalizer of MurmurHash3's kind: odd multipliers
/// and shifts).
fn mixed(n: u32) -> u32 {
    let n = (n ^ n >> 16).wrapping_mul(0x85eb_ca6b);
    let n = (n ^ n >> 13).wrapping_mul(0xc2b2_ae35);
    n ^ n >> 16
}

/// Addresses that are not on any list.
fn v4(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0100_0000 + n % 0x6000_0000))
}

fn v6(n: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n) << 64 | 1))
}

fn tcp(source: IpAddr, number: u16) -> Probe {
    let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    Probe {
        source,
        destination,
        port: Port { transport: Transport::Tcp, number },
        scan: ScanKind::Syn,
        ambiguous: false,
        ip_options: false,
        signature: Signature::None,
    }
}
