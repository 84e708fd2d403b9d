//! `portsentry replay`: what the daemon would have made of captured packets.
//!
//! The files are read up to three times: to guess which addresses are this host's (unless they are
//! given), to learn which of its ports are open, and to evaluate each packet as the kernel's rules and
//! the engine would have done. No clock, socket or privilege; the same files give the same report.
//!
//! * [`local`]: whose capture it is. `learn`: what it shows as a whole.
//! * `flows`, `fragments`: what the kernel does with packets before its rules.
//! * `rules`: the rules, and the engine behind them; `known`: what they excuse; `networks`: those they
//!   slow or block as a whole. `clock`: the capture's clock.
//! * `detected`, `print`: the report.

mod clock;
mod detected;
mod flows;
mod fragments;
mod known;
mod learn;
mod local;
mod networks;
pub mod options;
mod print;
mod recent;
mod rules;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use self::clock::Clock;
use self::detected::Detected;
use self::fragments::{Fragments, Piece};
use self::learn::Learned;
use self::local::{Guess, Locals};
use self::options::Options;
use self::rules::{Rules, Skipped};
use crate::capture::files::link::{self, Cast, Content};
use crate::capture::files::{self, Damage, Format, Packet, Reader};
use crate::config::{self, Config};
use crate::engine::{MonoTime, Policy};
use crate::errors::error_chain;
use crate::journal::error_document::ErrorDocument;
use crate::sys::terminal::Progress;
use crate::wire;

/// The word of the command line.
pub const ARGUMENT: &str = "replay";

/// sysexits(3head): the command line is wrong.
const EX_USAGE: u8 = 64;
/// An input file is no capture file.
const EX_DATAERR: u8 = 65;
/// An input file cannot be read.
const EX_NOINPUT: u8 = 66;
/// The program itself failed.
const EX_SOFTWARE: u8 = 70;
/// The configuration is wrong.
const EX_CONFIG: u8 = 78;

/// Bytes of input, of all passes, from which on a terminal shows the progress.
const PROGRESS_FROM: u64 = 100_000_000;

/// Why there is no report: an exit status, and words for the administrator.
struct Failure(u8, String);

/// Where a capture is.
#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

impl Place {
    /// Begins to read it, up to `bytes`: a file may grow meanwhile.
    fn reader(&self, bytes: u64) -> Result<Reader<Box<dyn Read>>, files::Error> {
        let input: Box<dyn Read> = match self {
            Self::File(path) => Box::new(File::open(path).map_err(files::Error::Io)?.take(bytes)),
            Self::Memory(capture) => Box::new(io::Cursor::new(capture.clone())),
        };
        Reader::open(input)
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Memory(_) => "memory".to_owned(),
        }
    }
}

/// A file, and what it holds.
#[derive(Debug)]
struct Input {
    place: Place,
    bytes: u64,
    format: Format,
    packets: u64,
    /// The times of its first packet and its last one, in microseconds since 1970.
    first: Option<i64>,
    last: Option<i64>,
    /// Packets of each link type.
    link_types: BTreeMap<u32, u64>,
    damage: Option<Damage>,
}

/// Counts of packets.
#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    /// Of protocols other than IP, or of link types that are not known.
    not_ip: u64,
    /// IP packets whose headers are damaged, or were cut off by the capture.
    unreadable: u64,
    /// Of other hosts.
    others: u64,
    outgoing: u64,
    incoming: u64,
    fragments: u64,
}

/// What a replay found.
struct Outcome<'a> {
    inputs: Vec<Input>,
    locals: Locals,
    is_guess: bool,
    learned: Learned,
    counts: Counts,
    skipped: [u64; Skipped::ALL.len()],
    probes: u64,
    reports_held_back: u64,
    detected: Detected<'a>,
}

/// Runs `portsentry replay` with these words of the command line, the program's name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let is_json = arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json" || word == "--jsonl");
    let words = arguments.into_iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| word);
    let options = match Options::try_parse_from(words) {
        Ok(options) => options,
        Err(error) => {
            if is_json && error.use_stderr() {
                let document = ErrorDocument::of_command_line(&error.to_string(), EX_USAGE);
                let _ = io::stderr().write_all(document.line().as_bytes());
            } else {
                let _ = error.print();
            }
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(&options) {
        Ok(code) => code,
        Err(Failure(status, message)) => {
            report(is_json, status, message);
            ExitCode::from(status)
        }
    }
}

/// Writes an error to standard error.
fn report(is_json: bool, status: u8, message: String) {
    let line = if is_json {
        let code = match status {
            EX_DATAERR => "no-capture",
            EX_NOINPUT => "file",
            EX_CONFIG => "configuration",
            _ => "failed",
        };
        ErrorDocument::new(code, message, String::new(), status).line()
    } else {
        format!("portsentry: {message}\n")
    };
    let _ = io::stderr().write_all(line.as_bytes());
}

fn run(options: &Options) -> Result<ExitCode, Failure> {
    let loaded = match &options.config {
        Some(path) => config::load(path),
        None => config::load_default(),
    };
    let loaded = loaded.map_err(|refused| {
        Failure(EX_CONFIG, format!("the configuration is refused\n{refused}"))
    })?;
    for warning in &loaded.warnings {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let mut policy = Policy::from_config(&loaded.config);
    policy.allow = policy.allow.networks().iter().chain(&loaded.ignored).copied().collect();
    let is_json = options.json || options.jsonl;
    let (inputs, worst) = open(&options.files, is_json);
    if inputs.is_empty() {
        return Ok(ExitCode::from(worst));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut events = options.jsonl.then(|| BufWriter::new(io::stdout()));
    let events = events.as_mut().map(|events| events as &mut dyn Write);
    let outcome = replay(options, &loaded.config, policy, inputs, events);
    for Input { place, damage, .. } in &outcome.inputs {
        if let Some(damage) = damage {
            report(is_json, EX_DATAERR, format!("{}: {damage}", place.name()));
        }
    }
    let written = if options.json {
        print::json(&mut out, &outcome, options)
    } else if options.jsonl {
        outcome.detected.error.map_or(Ok(()), Err)
    } else {
        print::text(&mut out, &outcome, options)
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure(EX_SOFTWARE, format!("cannot write: {error}")))
        }
        _ => Ok(ExitCode::from(worst)),
    }
}

/// Opens the files, in the order of their first packets. Those that cannot be replayed are reported;
/// returns also the exit status that they cause.
fn open(paths: &[PathBuf], is_json: bool) -> (Vec<Input>, u8) {
    let mut worst = 0;
    let mut inputs = Vec::new();
    for path in paths {
        match look_at(path) {
            Ok(input) => inputs.push(input),
            Err(Failure(status, message)) => {
                worst = worst.max(status);
                report(is_json, status, format!("{}: {message}", path.display()));
            }
        }
    }
    inputs.sort_by_key(|input| input.first);
    (inputs, worst)
}

fn look_at(path: &Path) -> Result<Input, Failure> {
    let unread = |error: io::Error| Failure(EX_NOINPUT, error.to_string());
    let metadata = path.metadata().map_err(unread)?;
    if !metadata.is_file() {
        let why = "it is no regular file, and is read more than once; save the capture first";
        return Err(Failure(EX_NOINPUT, why.to_owned()));
    }
    Input::open(Place::File(path.to_owned()), metadata.len()).map_err(|error| {
        let status = if matches!(error, files::Error::Io(_)) { EX_NOINPUT } else { EX_DATAERR };
        Failure(status, error_chain(&error))
    })
}

impl Input {
    fn open(place: Place, bytes: u64) -> Result<Self, files::Error> {
        let mut reader = place.reader(bytes)?;
        let first = reader.next_packet().ok().flatten().map(|packet| packet.at);
        Ok(Self {
            bytes,
            format: reader.format(),
            packets: 0,
            first,
            last: None,
            link_types: BTreeMap::new(),
            damage: None,
            place,
        })
    }
}

/// Shows how much of all passes over all files is done.
struct Passes {
    progress: Progress,
    /// Bytes of the files before.
    done: u64,
}

impl Passes {
    fn new(inputs: &[Input], passes: u64) -> Self {
        let total = inputs.iter().map(|input| input.bytes).sum::<u64>().saturating_mul(passes);
        Self { progress: Progress::new(total, PROGRESS_FROM), done: 0 }
    }
}

/// Hands out all packets of all files in order, and notes what the files hold.
fn pass(inputs: &mut [Input], passes: &mut Passes, mut each: impl FnMut(&Packet<'_>)) {
    for input in inputs {
        let Ok(mut reader) = input.place.reader(input.bytes) else { continue };
        input.link_types.clear();
        loop {
            match reader.next_packet() {
                Ok(Some(packet)) => {
                    *input.link_types.entry(packet.link_type).or_default() += 1;
                    input.last = input.last.max(Some(packet.at));
                    each(&packet);
                }
                Ok(None) => break,
                Err(damage) => {
                    input.damage = Some(damage);
                    break;
                }
            }
            if reader.packets().is_multiple_of(4096) {
                passes.progress.at(passes.done.saturating_add(reader.offset()));
            }
        }
        input.packets = reader.packets();
        passes.done = passes.done.saturating_add(input.bytes);
    }
}

/// Evaluates these files.
fn replay<'a>(
    options: &Options,
    config: &Config,
    policy: Policy,
    mut inputs: Vec<Input>,
    events: Option<&'a mut dyn Write>,
) -> Outcome<'a> {
    let is_guess = options.local.is_empty();
    let mut passes = Passes::new(&inputs, if is_guess { 3 } else { 2 });
    let locals = if is_guess {
        let mut guess = Guess::default();
        pass(&mut inputs, &mut passes, |packet| {
            if let Content::Ip(frame) = link::content(packet.link_type, packet.data)
                && let Ok(parsed) = wire::parse(frame.ip)
            {
                guess.see(frame.cast, &parsed);
            }
        });
        guess.locals()
    } else {
        Locals::new(options.local.clone())
    };

    let mut learned = Learned::default();
    let mut clock = Clock::default();
    pass(&mut inputs, &mut passes, |packet| {
        let now = clock.advance(packet.at);
        learned.end = now;
        if let Content::Ip(frame) = link::content(packet.link_type, packet.data)
            && let Ok(parsed) = wire::parse(frame.ip)
        {
            match direction(&locals, frame.cast, &parsed) {
                Direction::Other => {}
                direction => {
                    learned.see(now, &parsed, frame.ip, direction == Direction::Outgoing);
                }
            }
        }
    });
    learned.forget_flows();

    let mut detected = Detected::new(events);
    let mut counts = Counts::default();
    let mut rules = Rules::new(config, policy, &locals, &learned, options.answer_within);
    let mut fragments = Fragments::default();
    pass(&mut inputs, &mut passes, |packet| {
        counts.packets += 1;
        let now = detected.clock.advance(packet.at);
        rules.run_until(now, &mut detected);
        evaluate(now, packet, &locals, &mut fragments, &mut rules, &mut counts, &mut detected);
    });
    drop(passes);
    rules.run_out(detected.clock.now(), &mut detected);
    detected.finish();
    let (skipped, probes) = (rules.skipped, rules.probes);
    let reports_held_back = rules.reports_held_back();
    Outcome {
        inputs,
        is_guess,
        counts,
        skipped,
        probes,
        reports_held_back,
        detected,
        locals,
        learned,
    }
}

/// Whose a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Outgoing,
    Incoming,
    Other,
}

fn direction(locals: &Locals, cast: Cast, packet: &wire::Packet<'_>) -> Direction {
    if locals.contains(packet.destination) && cast != Cast::Outgoing {
        Direction::Incoming
    } else if locals.contains(packet.source) {
        Direction::Outgoing
    } else {
        Direction::Other
    }
}

fn evaluate(
    now: MonoTime,
    packet: &Packet<'_>,
    locals: &Locals,
    fragments: &mut Fragments,
    rules: &mut Rules<'_>,
    counts: &mut Counts,
    detected: &mut Detected<'_>,
) {
    let Content::Ip(frame) = link::content(packet.link_type, packet.data) else {
        counts.not_ip += 1;
        return;
    };
    let piece = fragments.take(now, frame.ip);
    let bytes = match &piece {
        Piece::Whole => frame.ip,
        Piece::Part => {
            counts.fragments += 1;
            return;
        }
        Piece::Complete(whole) => whole,
    };
    let Ok(parsed) = wire::parse(bytes) else {
        counts.unreadable += 1;
        return;
    };
    match direction(locals, frame.cast, &parsed) {
        Direction::Incoming => {
            counts.incoming += 1;
            rules.incoming(now, &parsed, bytes, frame.cast, detected);
        }
        Direction::Outgoing => {
            counts.outgoing += 1;
            rules.outgoing(now, &parsed);
        }
        Direction::Other => counts.others += 1,
    }
}

/// The report on captures in memory, as one JSON document; `words` are further words of the command
/// line. `None` if one is no capture, or a word is wrong. For tests and fuzzers.
#[doc(hidden)]
pub fn report_on(captures: &[&[u8]], words: &[&str], config: &Config) -> Option<String> {
    let words = [&["replay"], words, &["memory"]].concat();
    let options = Options::try_parse_from(words).ok()?;
    let open = |capture: &&[u8]| {
        let bytes = u64::try_from(capture.len()).unwrap_or(u64::MAX);
        Input::open(Place::Memory(Arc::from(*capture)), bytes).ok()
    };
    let mut inputs = captures.iter().map(open).collect::<Option<Vec<Input>>>()?;
    inputs.sort_by_key(|input| input.first);
    let outcome = replay(&options, config, Policy::from_config(config), inputs, None);
    let (mut text, mut report) = (Vec::new(), Vec::new());
    print::text(&mut text, &outcome, &options).ok()?;
    print::json(&mut report, &outcome, &options).ok()?;
    String::from_utf8(report).ok()
}

#[cfg(test)]
mod tests;
