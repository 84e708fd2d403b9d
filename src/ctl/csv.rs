//! The history as comma-separated values (RFC 4180), with a header. Times are in UTC.

use std::io::{self, Write};

use super::geo::{Geo, Located};
use crate::control::protocol::{HistoryRow, Stamp, TouchedRow};
use crate::journal::format::{printable, printable_json};

/// The columns. Programs rely on them: new ones may be added at the end.
const HEADER: [&str; 19] = [
    "at",
    "kind",
    "address",
    "host",
    "port",
    "result",
    "scan",
    "proven",
    "reason",
    "until",
    "ended",
    "ending",
    "probes",
    "first_seen",
    "touched",
    "details",
    "country",
    "asn",
    "as_name",
];

/// Writes the header.
pub(super) fn header(out: &mut dyn Write) -> io::Result<()> {
    line(out, HEADER.map(str::to_owned))
}

/// Writes an event.
pub(super) fn row(
    out: &mut dyn Write,
    Located { row, geo }: Located<HistoryRow>,
) -> io::Result<()> {
    let Geo { country, asn, as_name } = geo.unwrap_or_default();
    let port = row.port_name();
    let details = if row.details.is_empty() {
        String::new()
    } else {
        printable_json(&serde_json::Value::Object(row.details).to_string())
    };
    let touched = |TouchedRow { at, port, scan, weight }: TouchedRow| {
        format!("{} {port} {scan} {weight}", time(at))
    };
    let touched: Vec<String> = row.touched.into_iter().map(touched).collect();
    let text = |text: Option<String>| text.unwrap_or_default();
    let stamp = |at: Option<Stamp>| at.map(time).unwrap_or_default();
    line(
        out,
        [
            time(row.at),
            row.kind,
            text(row.address.map(|address| address.to_string())),
            row.host,
            text(port),
            row.result.map(|result| result.word().to_owned()).unwrap_or_default(),
            text(row.scan),
            text(row.proven.map(|proven| proven.to_string())),
            text(row.reason),
            stamp(row.until),
            stamp(row.ended),
            text(row.ending),
            text(row.probes.map(|probes| probes.to_string())),
            stamp(row.first_seen),
            touched.join("; "),
            details,
            text(country),
            text(asn.map(|asn| asn.to_string())),
            text(as_name),
        ],
    )
}

fn time(Stamp(at): Stamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn line(out: &mut dyn Write, cells: [String; HEADER.len()]) -> io::Result<()> {
    let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    write!(out, "{}\r\n", cells.join(","))
}

/// A cell, in quotation marks where it needs them.
fn quoted(cell: &str) -> String {
    let cell = printable(cell);
    if cell.contains(['"', ',']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.into_owned()
    }
}
