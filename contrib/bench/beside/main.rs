//! Ours beside the others, one command and one table: `cargo bench --bench beside`, as root.
//!
//! Each contestant runs alone on a host in a network namespace with ten services among the ports
//! 1-1000, and is scanned from another. The parts: `target` the scanned host, `scene` the two
//! machines, `wire` the probes, `customer` an honest host, `contestants` the programs, `tests/support/jail.rs` how other
//! programs are run, `measures` the measurements, `table` the output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark prints and may stop where it fails"
)]

mod contestants;
mod customer;
mod measures;
mod scene;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod table;
mod target;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use contestants::Contestant;
use scene::Scene;
use table::{Cell, Table};

/// PortSentry beside other tools that stop port scans, all measured in the same way.
#[derive(Parser)]
struct Arguments {
    /// Only these contestants, by their names.
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<String>,
    /// Only these legs.
    #[arg(long, value_delimiter = ',')]
    legs: Vec<Leg>,
    /// Ours and the nftables recipes, few and short runs: under a minute.
    #[arg(long)]
    quick: bool,
    /// Names the contestants and ends.
    #[arg(long)]
    list: bool,
    /// Writes the table here as Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Debug)]
enum Leg {
    #[value(name = "10")]
    Ten,
    #[value(name = "100")]
    Hundred,
    #[value(name = "1000")]
    Thousand,
    #[value(name = "10000")]
    TenThousand,
    Nmap,
    Forged,
    Quiet,
    Flood,
    Flush,
    Start,
}

impl Leg {
    /// Its columns.
    const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &["10/s"],
            Self::Hundred => &["100/s"],
            Self::Thousand => &["1,000/s", "to block"],
            Self::TenThousand => &["10,000/s"],
            Self::Nmap => &["nmap -T5"],
            Self::Forged => &["decoys hurt", "innocents hurt"],
            Self::Quiet => &["memory, quiet", "CPU, quiet"],
            Self::Flood => &["memory, flood", "CPU, flood", "scanner caught"],
            Self::Flush => &["back after flush"],
            Self::Start => &["start with 100,000"],
        }
    }
}

/// What the columns mean, and what was done how often.
const NOTES: &[&str] = &[
    "10/s to nmap -T5: ports that answered / of the 10 open ports those given away, of 1,000 asked (at 10/s 150, all the open ones that nmap asks first among them).",
    "to block: from the first probe, of a closed port, until a service answers the source no more; at 1,000 probes a second.",
    "decoys hurt: a customer that nmap -D names as a decoy; innocents hurt: one in whose name four SYNs to closed ports are forged. New connections that failed within four seconds, of those that were tried; the longest that a byte took on an established connection.",
    "quiet: resident memory of all its processes; processor time in ten seconds. The rules' own work in the kernel is in no figure.",
    "flood: 12,000 forged SYNs a second for 7 s to the ports 1-1000; the most memory, and the processor time until 5 s after; a real scanner asks 60 closed ports in it.",
    "back after flush: how long a blocked source is answered after `nft flush ruleset`; never: 15 s; the static rules are loaded again at once, and then the source scans again.",
    "start with 100,000: from the start after a reboot until 256 sampled blocks of 100,000 are in force, or the share of them that is after a minute.",
    "n: number of runs; the figure is their median.",
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = contestants::all();
    if arguments.list {
        all.iter().for_each(|contestant| println!("{:22} {}", contestant.name, contestant.about));
        return ExitCode::SUCCESS;
    }
    if support::missing(&["ip", "nft", "nmap", "unshare", "nsenter", "setpriv"]).is_some() {
        return ExitCode::SUCCESS;
    }
    let quick = |contestant: &Contestant| {
        contestant.yaml().is_some() || contestant.name.starts_with("nft-")
    };
    let wanted = |contestant: &&Contestant| match arguments.contestants.as_slice() {
        [] => !arguments.quick || quick(contestant),
        names => names.contains(&contestant.name),
    };
    let chosen: Vec<&Contestant> = all.iter().filter(wanted).collect();
    if let Some(unknown) = arguments
        .contestants
        .iter()
        .find(|name| !all.iter().any(|contestant| contestant.name == **name))
    {
        eprintln!("beside: no contestant is called {unknown:?}; --list names them");
        return ExitCode::from(64);
    }
    let mut legs: Vec<Leg> = if arguments.quick {
        vec![Leg::Thousand, Leg::TenThousand, Leg::Forged, Leg::Quiet, Leg::Flush]
    } else {
        Leg::value_variants().to_vec()
    };
    if !arguments.legs.is_empty() {
        legs.clone_from(&arguments.legs);
        legs.sort_unstable();
        legs.dedup();
    }
    let begun = Instant::now();
    let mut table = Table {
        facts: facts(),
        columns: legs.iter().flat_map(|leg| leg.columns()).copied().collect(),
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let mut failed = false;
    for contestant in chosen {
        let since = Instant::now();
        let cells = match contestant.prepare() {
            Ok(versions) => {
                table.facts.push(format!("{}: {} [{versions}]", contestant.name, contestant.about));
                measure(contestant, &legs, arguments.quick).unwrap_or_else(|reason| {
                    failed = true;
                    vec![Cell::Without(reason); table.columns.len()]
                })
            }
            Err(reason) => {
                table.facts.push(format!(
                    "{}: {}; not measured: {reason}",
                    contestant.name, contestant.about
                ));
                vec![Cell::Without(reason); table.columns.len()]
            }
        };
        // A quick run checks that the benchmark and this program still work.
        failed |=
            arguments.quick && contestant.yaml().is_some() && cells.iter().any(Cell::is_never);
        eprintln!("{}: {:.0} s", contestant.name, since.elapsed().as_secs_f64());
        table.rows.push((contestant.name.clone(), cells));
        // What there is so far outlives an interruption.
        if let Some(file) = &arguments.markdown {
            fs::write(file, table.markdown()).unwrap();
        }
    }
    table.facts.push(format!("it took {:.0} s", begun.elapsed().as_secs_f64()));
    table.notes = NOTES.iter().map(|&note| note.to_owned()).collect();
    println!("{}", table.text());
    if let Some(file) = &arguments.markdown {
        fs::write(file, table.markdown()).unwrap();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All cells of a row, in the order of the legs. The scans run against one instance; the flood and
/// the flush have one of their own each.
fn measure(contestant: &Contestant, legs: &[Leg], quick: bool) -> Result<Vec<Cell>, String> {
    let runs = |full: usize| if quick { 2 } else { full };
    let mut cells: BTreeMap<Leg, Vec<Cell>> = BTreeMap::new();
    let scene = Scene::new();
    let running = contestant.start(&scene)?;
    // First, before it remembers anything.
    if legs.contains(&Leg::Quiet) {
        let (memory, cpu) =
            measures::quiet(&running, Duration::from_secs(if quick { 1 } else { 10 }));
        cells.insert(Leg::Quiet, vec![memory, cpu]);
    }
    for (leg, rate, runs, ports) in [
        (Leg::Ten, 10, runs(1), 150),
        (Leg::Hundred, 100, runs(3), 1000),
        (Leg::Thousand, 1000, runs(5), 1000),
        (Leg::TenThousand, 10_000, runs(5), 1000),
    ] {
        if legs.contains(&leg) {
            let (answered, block) = measures::at_rate(&running, rate, runs, ports);
            cells.insert(
                leg,
                if leg == Leg::Thousand { vec![answered, block] } else { vec![answered] },
            );
        }
    }
    if legs.contains(&Leg::Nmap) {
        cells.insert(Leg::Nmap, vec![measures::nmap(&running, runs(3))]);
    }
    drop(running);
    drop(scene);
    if legs.contains(&Leg::Forged) {
        cells.insert(Leg::Forged, forged(contestant, quick)?);
    }
    if legs.contains(&Leg::Flood) {
        let scene = Scene::new();
        let flood = measures::flood(&contestant.start(&scene)?);
        cells.insert(Leg::Flood, vec![flood.memory, flood.cpu, flood.caught]);
    }
    if legs.contains(&Leg::Flush) {
        let scene = Scene::new();
        cells.insert(
            Leg::Flush,
            vec![measures::flush(
                &contestant.start(&scene)?,
                runs(5),
                Duration::from_secs(if quick { 2 } else { 15 }),
            )],
        );
    }
    if legs.contains(&Leg::Start) {
        cells.insert(Leg::Start, vec![measures::start(contestant, Duration::from_secs(60))]);
    }
    // The order of the enum is that of the columns.
    Ok(cells.into_values().flatten().collect())
}

/// What customers suffer whose addresses are forged. A quick run asks only whether that is nothing
/// by default, as it should be: the time of a customer cannot be shortened.
fn forged(contestant: &Contestant, quick: bool) -> Result<Vec<Cell>, String> {
    let is_default = contestant.name == "ours-default";
    if quick && !is_default {
        return Ok(vec![Cell::Without("not in a quick run".to_owned()); 2]);
    }
    let scene = Scene::new();
    let running = contestant.start(&scene)?;
    let customers = measures::forged(&running, Duration::from_secs(if quick { 6 } else { 20 }));
    if quick && customers.iter().any(|customer| customer.failed > 0) {
        return Err("a customer whose address was forged was cut off".to_owned());
    }
    Ok(customers.iter().map(measures::hurt).collect())
}

/// When, where and how it was run.
fn facts() -> Vec<String> {
    let say = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let found = text
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once([':', '=']));
        found.map_or_else(|| "?".to_owned(), |(_, value)| value.trim().trim_matches('"').to_owned())
    };
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    let arguments =
        if words.is_empty() { String::new() } else { format!(" -- {}", words.join(" ")) };
    vec![
        format!(
            "{} UTC, `cargo bench --bench beside{arguments}`, {build}, commit {}",
            say("date", &["-u", "+%Y-%m-%d %H:%M"]),
            say("git", &["describe", "--always", "--dirty"])
        ),
        format!(
            "{}, {} processors, {} of memory, load average {} at the start, Linux {}, {}, {}, {}",
            line("/proc/cpuinfo", "model name"),
            std::thread::available_parallelism().map_or(0, usize::from),
            line("/proc/meminfo", "MemTotal"),
            fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split_whitespace()
                .next()
                .unwrap_or("?"),
            say("uname", &["-r"]),
            line("/etc/os-release", "PRETTY_NAME"),
            say("nft", &["--version"]),
            say("nmap", &["--version"]).lines().next().unwrap_or_default()
        ),
    ]
}
