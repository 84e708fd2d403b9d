//! The past of an address: what it probed and what each probe counted, and what was decided.

use std::io::{self, Write};

use jiff::Timestamp;

use super::show::{Zone, end, why};
use crate::control::protocol::{HistoryRow, TouchedRow};
use crate::engine::Weight;
use crate::journal::format::printable;
use crate::journal::record::NOT_STORED;

/// Times of the same touch differ by this much: each is known by its age.
const SAME: i64 = 2;

/// Prints the events, and the probes that led to them, the oldest first.
pub(super) fn print(
    out: &mut dyn Write,
    probes: &[TouchedRow],
    history: &[HistoryRow],
    zone: &Zone,
) -> io::Result<()> {
    let mut lines: Vec<(Timestamp, String)> = distinct(history, probes)
        .into_iter()
        .map(|TouchedRow { at, port, scan, weight }| {
            let meaning = Weight::ALL.into_iter().find(|known| known.word() == weight.as_str());
            let meaning = meaning.map_or("", Weight::text);
            (at.0, format!("{:<10} {port}, {scan}: {meaning}", "probe"))
        })
        .collect();
    lines.extend(history.iter().map(|row| (row.at.0, event(row, zone))));
    // Of one second, the probes come before what they caused.
    lines.sort_by_key(|(at, _)| *at);
    if !lines.is_empty() {
        writeln!(out)?;
    }
    for (at, line) in lines {
        writeln!(out, "  {}  {}", zone.time(at), printable(line.trim_end()))?;
    }
    Ok(())
}

/// The touches of all events and of now, each once.
fn distinct<'a>(history: &'a [HistoryRow], probes: &'a [TouchedRow]) -> Vec<&'a TouchedRow> {
    // Those of one second stay in the order in which they came.
    let mut all: Vec<(usize, &TouchedRow)> =
        history.iter().flat_map(|row| &row.touched).chain(probes).enumerate().collect();
    all.sort_by_key(|(place, probe)| (&probe.port, &probe.scan, probe.at, *place));
    all.dedup_by(|(_, later), (_, earlier)| {
        (&later.port, &later.scan) == (&earlier.port, &earlier.scan)
            && later.at.0.as_second() - earlier.at.0.as_second() <= SAME
    });
    all.sort_by_key(|(place, probe)| (probe.at, *place));
    all.into_iter().map(|(_, probe)| probe).collect()
}

fn event(row: &HistoryRow, zone: &Zone) -> String {
    if row.kind == NOT_STORED {
        let events = row.details.get("events").and_then(serde_json::Value::as_u64).unwrap_or(0);
        return format!("{:<10} {events} events of any source, in a flood", row.kind);
    }
    let mut parts = vec![why(row)];
    let end = end(row, zone);
    if end != "-" && end != "never" {
        parts.push(format!("({end})"));
    }
    if let Some(probes) = row.probes {
        parts.push(format!("[{probes} probes so far]"));
    }
    parts.retain(|part| !part.is_empty());
    format!("{:<10} {}", row.kind, parts.join(" "))
}
