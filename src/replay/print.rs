//! The report, as text and as JSON.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::clock::wall;
use super::detected::{Scanner, Span};
use super::options::Options;
use super::rules::Skipped;
use super::{Input, Outcome};
use crate::capture::files::link;
use crate::config::LogFormat;
use crate::engine::Source;
use crate::journal::format::{self, duration, printable};
use crate::journal::typed;

/// Kinds of a packet that the text names, if there were any.
const PHRASES: [(Skipped, &str); 4] = [
    (Skipped::Checksum, "of wrong checksums or lengths, which the kernel discards"),
    (Skipped::NoTime, "too late in the capture for an answer"),
    (Skipped::NotWatched, "to closed ports that are not watched"),
    (Skipped::Excused, "to closed ports that a client of services may try"),
];

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// As in the events: RFC 3339, UTC, milliseconds.
fn exact(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn link_name(link_type: u32) -> String {
    link::name(link_type).map_or_else(|| format!("link type {link_type}"), str::to_owned)
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn skipped(outcome: &Outcome<'_>, kind: Skipped) -> u64 {
    outcome.skipped.get(kind as usize).copied().unwrap_or(0)
}

/// The report for people.
pub(super) fn text(
    out: &mut dyn Write,
    outcome: &Outcome<'_>,
    options: &Options,
) -> io::Result<()> {
    for input in &outcome.inputs {
        file(out, input)?;
    }
    let locals: Vec<String> =
        outcome.locals.list().networks().iter().map(|net| Source::from(*net).to_string()).collect();
    match (locals.is_empty(), outcome.is_guess) {
        (true, _) => writeln!(out, "No host's address was found in it.")?,
        (false, false) => writeln!(out, "This host: {}", locals.join(", "))?,
        (false, true) => writeln!(
            out,
            "This host: {} (a guess: most of what was opened and not accepted went there; --local says it)",
            locals.join(", ")
        )?,
    }
    if !outcome.learned.has_answers && outcome.counts.incoming > 0 {
        writeln!(
            out,
            "The capture has no packet of this host: a port counts as open if a client went on after its SYN."
        )?;
    }
    if !outcome.learned.has_checksums() {
        writeln!(out, "Most checksums are wrong, so none is considered.")?;
    }
    let clock = &outcome.detected.clock;
    if clock.back + clock.leaps > 0 {
        writeln!(
            out,
            "The time goes back {}, and leaps {}.",
            plural(clock.back, "time"),
            plural(clock.leaps, "time")
        )?;
    }
    let counts = &outcome.counts;
    writeln!(
        out,
        "{} to this host, {} of it; {}. A closed port refuses, or does not answer within {}.",
        plural(counts.incoming, "packet"),
        counts.outgoing,
        plural(outcome.probes, "probe"),
        humantime::format_duration(options.answer_within)
    )?;
    for (kind, phrase) in PHRASES {
        let count = skipped(outcome, kind);
        if count > 0 {
            writeln!(out, "Not evaluated: {} {phrase}.", plural(count, "packet"))?;
        }
    }
    let many = skipped(outcome, Skipped::Many);
    if many > 0 {
        writeln!(
            out,
            "Counted only together with many others: {} that are pings, look late, or are to closed ports that are not watched.",
            plural(many, "packet")
        )?;
    }
    if counts.unreadable > 0 {
        writeln!(out, "Not evaluated: {}.", plural(counts.unreadable, "unreadable packet"))?;
    }
    writeln!(out)?;
    for campaign in &outcome.detected.campaigns {
        for line in format::lines(campaign, LogFormat::Classic) {
            let text = line.text.trim_start_matches("attackalert: ");
            writeln!(out, "{} UTC  {text}", exact_for_people(campaign.at))?;
        }
    }
    if outcome.detected.sources.is_empty() {
        return writeln!(out, "No source would have been detected.");
    }
    // In the order in which they were detected.
    let mut all: Vec<(&Source, &Scanner)> = outcome.detected.sources.iter().collect();
    all.sort_by_key(|(source, scanner)| (scanner.at, **source));
    for (source, found) in all {
        scanner(out, source, found)?;
    }
    let (more, held_back) = (outcome.detected.more, outcome.reports_held_back);
    if more > 0 {
        writeln!(out, "{} more, which are not listed.", plural(more, "report"))?;
    }
    if held_back > 0 {
        writeln!(out, "{} held back, because there were too many.", plural(held_back, "report"))?;
    }
    Ok(())
}

fn file(out: &mut dyn Write, input: &Input) -> io::Result<()> {
    let path = input.place.name();
    let links: Vec<String> = input.link_types.keys().map(|kind| link_name(*kind)).collect();
    write!(
        out,
        "{}: {}, {}, {}",
        printable(&path),
        input.format.name(),
        if links.is_empty() { "no link type".to_owned() } else { links.join(", ") },
        plural(input.packets, "packet")
    )?;
    if let (Some(first), Some(last)) = (input.first, input.last) {
        let lasted = u64::try_from(last.saturating_sub(first) / 1_000_000).unwrap_or(0);
        let lasted = duration(Duration::from_secs(lasted));
        write!(out, ", from {} UTC, {lasted}", seconds(wall(first)))?;
    }
    writeln!(out)?;
    for (kind, packets) in &input.link_types {
        if link::name(*kind).is_none() {
            let packets = plural(*packets, "packet");
            writeln!(
                out,
                "  not evaluated: {packets} of link type {kind}, which is not known here"
            )?;
        }
    }
    match &input.damage {
        Some(damage) => writeln!(out, "  damaged {damage}"),
        None => Ok(()),
    }
}

fn scanner(out: &mut dyn Write, source: &Source, found: &Scanner) -> io::Result<()> {
    let target = found.destination.map(|address| format!(" of {address}")).unwrap_or_default();
    writeln!(
        out,
        "{source}: {} scan{target}, detected {} UTC after {}",
        found.scan,
        exact_for_people(found.at),
        plural(u64::from(found.after), "probe")
    )?;
    writeln!(out, "  evidence   {}", printable(&found.reason))?;
    for span in &found.spans {
        let state = if span.is_block { "blocked" } else { "slowed" };
        let until = span.until.map_or_else(
            || "until it is unblocked".to_owned(),
            |until| format!("to {}", seconds(until)),
        );
        write!(out, "  {state:10} {} {until}", seconds(span.from))?;
        if span.is_block {
            write!(out, ": {}", printable(&span.reason))?;
        }
        writeln!(out)?;
    }
    if found.more_spans > 0 {
        writeln!(out, "  and {} more", plural(found.more_spans, "time"))?;
    }
    let is_blocked = found.spans.iter().any(|span| span.is_block);
    if let Some(against) = found.not_blocked.filter(|_| !is_blocked) {
        writeln!(out, "  not blocked: {}", against.text())?;
    }
    writeln!(
        out,
        "  in all     {} ({}), {} dropped by a block",
        plural(found.probes, "probe"),
        found.kinds().join(", "),
        plural(found.dropped, "packet")
    )
}

fn exact_for_people(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

/// The report as one document.
pub(super) fn json(
    out: &mut dyn Write,
    outcome: &Outcome<'_>,
    options: &Options,
) -> io::Result<()> {
    let counts = &outcome.counts;
    let skipped: serde_json::Map<String, Value> = Skipped::ALL
        .into_iter()
        .map(|kind| (kind.name().to_owned(), skipped(outcome, kind).into()))
        .collect();
    let local: Vec<String> =
        outcome.locals.list().networks().iter().map(|net| Source::from(*net).to_string()).collect();
    let detected: Vec<Value> = outcome.detected.sources.iter().map(source_json).collect();
    let campaigns = outcome.detected.campaigns.iter().map(format::json);
    // They are objects of ours.
    let campaigns: Vec<Value> =
        campaigns.filter_map(|event| serde_json::from_str(&event).ok()).collect();
    let document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "files": outcome.inputs.iter().map(file_json).collect::<Vec<_>>(),
        "local": local,
        "local_guessed": outcome.is_guess,
        "has_answers": outcome.learned.has_answers,
        "checksums": outcome.learned.has_checksums(),
        "answer_within": options.answer_within.as_secs_f64(),
        "time_back": outcome.detected.clock.back,
        "time_leaps": outcome.detected.clock.leaps,
        "packets": {
            "all": counts.packets,
            "not_ip": counts.not_ip,
            "unreadable": counts.unreadable,
            "fragments": counts.fragments,
            "others": counts.others,
            "outgoing": counts.outgoing,
            "incoming": counts.incoming,
        },
        "skipped": skipped,
        "probes": outcome.probes,
        "reports_held_back": outcome.reports_held_back,
        "not_listed": outcome.detected.more,
        "detected": detected,
        "campaigns": campaigns,
    });
    writeln!(out, "{}", typed::document(&document).map_err(io::Error::other)?)
}

fn file_json(input: &Input) -> Value {
    let links: Vec<Value> = input
        .link_types
        .iter()
        .map(|(kind, packets)| {
            json!({ "number": kind, "name": link::name(*kind), "packets": packets })
        })
        .collect();
    json!({
        "file": input.place.name(),
        "format": input.format.name(),
        "bytes": input.bytes,
        "packets": input.packets,
        "link_types": links,
        "first": input.first.map(|at| exact(wall(at))),
        "last": input.last.map(|at| exact(wall(at))),
        "damage": input.damage.map(|damage| json!({
            "offset": damage.offset,
            "packet": damage.packet,
            "message": damage.fault.to_string(),
        })),
    })
}

fn source_json((source, found): (&Source, &Scanner)) -> Value {
    let spans = |is_block: bool| -> Vec<Value> {
        let spans = found.spans.iter().filter(|span| span.is_block == is_block);
        let span = |span: &Span| {
            json!({
                "from": exact(span.from),
                "until": span.until.map(exact),
                "reason": span.reason,
            })
        };
        spans.map(span).collect()
    };
    json!({
        "address": source.to_string(),
        "scan": found.scan.name(),
        "scans": found.kinds(),
        "port": found.port.to_string(),
        "destination": found.destination.map(|address| address.to_string()),
        "detected": exact(found.at),
        "probes_until_detected": found.after,
        "probes": found.probes,
        "proven": found.proven,
        "reason": found.reason,
        "not_blocked": found.not_blocked.map(|why| why.text()),
        "slowed": spans(false),
        "blocked": spans(true),
        "spans_not_listed": found.more_spans,
        "dropped": found.dropped,
    })
}
