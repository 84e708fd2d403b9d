//! Output for people: local times, durations in two units, every cell escaped.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::table::{Align, Table};
use crate::control::protocol::{
    AllowRow, BlockRow, HistoryRow, Reflex, Responses, Shown, Stamp, Status,
};
use crate::journal::format::{duration, printable};

/// Time zone of the output.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The system's time zone.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    /// UTC.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    fn time(&self, at: Timestamp) -> String {
        at.to_zoned_datetime(self.0.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    fn stamp(&self, at: Option<Stamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |Stamp(at)| self.time(at))
    }
}

/// A name and its value on a line.
fn pair(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {name:<12} {}", printable(value))
}

/// A number with its noun: `1 port`, `2 ports`.
fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// Prints the daemon's status.
pub(super) fn status(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let mode = match status.mode.as_str() {
        "enforce" => "blocks scans",
        "observe" => "observes, and blocks nothing",
        other => other,
    };
    writeln!(
        out,
        "PortSentry {} {}, up {} (process {}).",
        printable(&status.version),
        printable(mode),
        duration(Duration::from_secs(status.uptime)),
        status.pid
    )?;
    pair(out, "config", status.config.as_deref().unwrap_or("built-in defaults"))?;
    match status.queues {
        None => pair(out, "capture", &format!("{}, group {}", status.capture, status.group))?,
        Some(queues) => {
            let next = u32::from(status.group) + 1;
            pair(
                out,
                "capture",
                &format!("{}, queues {} and {next}", status.capture, status.group),
            )?;
            let waiting = |now, most, what| format!("{now} of {most} {what}");
            let (probes, connections) = (
                waiting(queues.probes, queues.probes_length, "probes"),
                waiting(queues.connections, queues.connections_length, "connections"),
            );
            pair(
                out,
                "waiting",
                &format!(
                    "{probes}, {connections}; of suspects {} let pass, {} dropped",
                    queues.passed, queues.stopped
                ),
            )?;
        }
    }
    if status.watching.is_empty() {
        pair(out, "watching", "nothing")?;
    }
    for (position, watching) in status.watching.iter().enumerate() {
        let name = if position == 0 { "watching" } else { "" };
        pair(
            out,
            name,
            &format!(
                "{} {}, {}: {}",
                watching.transport,
                watching.mode,
                count(watching.ports.into(), "port"),
                shortened(&watching.ranges)
            ),
        )?;
    }
    pair(out, "blocked", &status.blocked.to_string())?;
    pair(out, "never block", &format!("{} addresses and networks", status.allowed))?;
    pair(out, "sources", &status.sources.to_string())?;
    pair(out, "probes", &status.probes.to_string())?;
    pair(out, "lost", &count(status.lost, "packet"))?;
    if status.shed > 0 {
        pair(
            out,
            "shed",
            &format!("{} of unknown sources, in a flood", count(status.shed, "packet")),
        )?;
    }
    let responses = status.responses;
    if responses != Responses::default() {
        let text = format!(
            "{} run, {} of them failed, {} dropped",
            count(responses.commands, "command"),
            responses.failed,
            responses.dropped
        );
        pair(out, "responses", &text)?;
    }
    pair(out, "held back", &count(status.held_back, "log line"))?;
    pair(out, "reflex", &reflex(status.reflex.as_ref()))?;
    if status.watching.iter().any(|watching| watching.mode == "connect") {
        let decoy = status.decoy;
        let connections = count(decoy.connections, "connection");
        let text = format!(
            "{connections}, {} refused, {} half-open, {}",
            decoy.refused,
            decoy.half_open,
            count(decoy.banners, "banner")
        );
        pair(out, "decoys", &text)?;
    }
    let store = &status.store;
    if !store.state.is_empty() {
        let age = store.age.map_or_else(String::new, |age| {
            format!(", written {} ago", duration(Duration::from_secs(age)))
        });
        let rows = format!(
            "{}, {}, {}",
            count(store.blocks, "block"),
            count(store.offenders, "offender"),
            count(store.sources, "source")
        );
        pair(out, "stored", &format!("{}: {rows}{age}", store.state))?;
    }
    if status.repairs.count > 0 {
        let program = status.repairs.program.as_deref().unwrap_or("an unknown program");
        let process = status
            .repairs
            .process
            .map(|process| format!(" (process {process})"))
            .unwrap_or_default();
        pair(
            out,
            "repairs",
            &format!(
                "{}, the last one after {}{process}",
                status.repairs.count,
                printable(program)
            ),
        )?;
    }
    for warning in &status.warnings {
        writeln!(out, "Warning: {}", printable(warning))?;
    }
    Ok(())
}

/// The reflex's counts.
fn reflex(reflex: Option<&Reflex>) -> String {
    let Some(reflex) = reflex else { return "off".to_owned() };
    let mut text = format!(
        "{}, {} released, {} dropped",
        count(reflex.holds + reflex.untold_holds, "hold"),
        reflex.released,
        count(reflex.dropped, "packet")
    );
    if reflex.untold_holds + reflex.untold > 0 {
        text.push_str(&format!(
            ", {} counted and not told",
            count(reflex.untold_holds + reflex.untold, "probe")
        ));
    }
    text
}

/// A list of port ranges may be very long; `--json` has all of it.
fn shortened(ranges: &str) -> String {
    const WIDTH: usize = 80;
    match ranges.char_indices().nth(WIDTH) {
        None => ranges.to_owned(),
        Some((at, _)) => {
            let head = ranges.get(..at).unwrap_or_default();
            format!("{}, ...", head.rsplit_once(", ").map_or(head, |(head, _)| head))
        }
    }
}

/// A list that is printed row by row.
pub(super) trait Listing<T> {
    /// Prints a row.
    fn row(&mut self, out: &mut dyn Write, row: T) -> io::Result<()>;
    /// Prints remaining rows.
    fn end(self, out: &mut dyn Write) -> io::Result<()>;
}

/// The table of blocks.
pub(super) struct Blocks<'a> {
    zone: &'a Zone,
    table: Table<7>,
    any: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(zone: &'a Zone) -> Self {
        let columns = [
            ("ADDRESS", Align::Left),
            ("SCAN", Align::Left),
            ("PROVEN", Align::Left),
            ("ENDS IN", Align::Right),
            ("DROPPED", Align::Right),
            ("SINCE", Align::Left),
            ("REASON", Align::Left),
        ];
        Self { zone, table: Table::new(columns), any: false }
    }
}

impl Listing<BlockRow> for Blocks<'_> {
    fn row(&mut self, out: &mut dyn Write, row: BlockRow) -> io::Result<()> {
        self.any = true;
        let cells = [
            address(&row),
            row.scan.unwrap_or_else(|| "-".to_owned()),
            if row.proven { "yes" } else { "no" }.to_owned(),
            ends_in(row.expires_in),
            row.packets.map_or_else(|| "-".to_owned(), |packets| packets.to_string()),
            self.zone.stamp(row.since),
            row.reason,
        ];
        self.table.row(out, cells)
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        if !self.any {
            return writeln!(out, "Nothing is blocked.");
        }
        self.table.end(out)
    }
}

fn ends_in(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| duration(Duration::from_secs(seconds)))
}

/// The blocked address with its exemptions.
fn address(row: &BlockRow) -> String {
    let exempt: Vec<String> = row.exempt.iter().map(ToString::to_string).collect();
    if exempt.is_empty() {
        row.address.to_string()
    } else {
        format!("{} except {}", row.address, exempt.join(", "))
    }
}

/// Prints the state of an address.
pub(super) fn shown(out: &mut dyn Write, shown: &Shown, zone: &Zone) -> io::Result<()> {
    match &shown.block {
        Some(block) => {
            writeln!(out, "{} is blocked.", shown.address)?;
            if block.address != shown.address {
                pair(out, "blocked as", &address(block))?;
            }
            pair(out, "reason", &block.reason)?;
            pair(out, "since", &zone.stamp(block.since))?;
            pair(out, "ends in", &ends_in(block.expires_in))?;
            if let Some(packets) = block.packets {
                pair(out, "dropped", &count(packets, "packet"))?;
            }
        }
        None => writeln!(out, "{} is not blocked.", shown.address)?,
    }
    if let Some(network) = &shown.exempt_from {
        pair(out, "exempt from", &format!("the block of {network}"))?;
    }
    if let Some(allowed) = &shown.allowed {
        pair(out, "never block", &format!("{} ({})", allowed.address, allowed.origin))?;
    }
    if shown.touched > 0 || !shown.ports.is_empty() {
        let total = shown.touched.max(u64::try_from(shown.ports.len()).unwrap_or(u64::MAX));
        pair(
            out,
            "touched",
            &format!("{}: {}", count(total, "port"), shortened(&shown.ports.join(", "))),
        )?;
        pair(out, "scans", &shown.scans.join(", "))?;
        pair(out, "proven", if shown.proven { "yes" } else { "no, its address may be forged" })?;
        pair(out, "first seen", &zone.stamp(shown.first_seen))?;
        pair(out, "last seen", &zone.stamp(shown.last_seen))?;
    }
    if shown.blocks_before > 0 {
        pair(out, "so far", &count(shown.blocks_before, "block"))?;
    }
    Ok(())
}

/// Prints the table of what is never blocked.
pub(super) fn allowed(out: &mut dyn Write, rows: Vec<AllowRow>) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "Everything may be blocked.");
    }
    let mut table = Table::new([("ADDRESS", Align::Left), ("BECAUSE OF", Align::Left)]);
    for row in rows {
        table.row(out, [row.address.to_string(), row.origin])?;
    }
    table.end(out)
}

/// The history table.
pub(super) struct Past<'a> {
    zone: &'a Zone,
    table: Table<4>,
    any: bool,
}

impl<'a> Past<'a> {
    pub(super) fn new(zone: &'a Zone) -> Self {
        let columns = [
            ("WHEN", Align::Left),
            ("ADDRESS", Align::Left),
            ("PORT", Align::Left),
            ("NAME", Align::Left),
        ];
        Self { zone, table: Table::new(columns), any: false }
    }
}

impl Listing<HistoryRow> for Past<'_> {
    fn row(&mut self, out: &mut dyn Write, row: HistoryRow) -> io::Result<()> {
        self.any = true;
        let address = row.address.to_string();
        let port = if row.protocol == "MANUAL" {
            "by hand".to_owned()
        } else {
            format!("{}/{}", row.protocol.to_lowercase(), row.port)
        };
        let name = if row.host == address { "-".to_owned() } else { row.host };
        self.table.row(out, [self.zone.time(row.at.0), address, port, name])
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        if !self.any {
            return writeln!(out, "Nothing was blocked.");
        }
        self.table.end(out)
    }
}

/// One event of `watch`, on one line.
pub(super) fn event(out: &mut dyn Write, event: &Value, zone: &Zone) -> io::Result<()> {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("?");
    let at = event.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok());
    let at = at.map_or_else(|| "-".repeat(19), |at| zone.time(at));
    let who = match event.get("name").and_then(Value::as_str) {
        Some(name) => format!("{} ({name})", text("address")),
        None => text("address").to_owned(),
    };
    let line = match text("event") {
        "scan" => {
            let after = match event.get("not_blocked").and_then(Value::as_str) {
                Some(why) => format!(", not blocked: {why}"),
                None => String::new(),
            };
            format!("scan       {who} to {}: {}{after}", text("port"), text("reason"))
        }
        "blocked" => {
            let time = match event.get("timeout").and_then(Value::as_u64) {
                Some(seconds) => format!("for {}", duration(Duration::from_secs(seconds))),
                None => "until it is unblocked".to_owned(),
            };
            let word = if event.get("renewed").and_then(Value::as_bool) == Some(true) {
                "renewed"
            } else {
                "blocked"
            };
            format!("{word:<10} {who} {time}: {}", text("reason"))
        }
        "unblocked" => format!("unblocked  {who} ({})", text("ending")),
        other => {
            let rest: Vec<String> = event
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| {
                    !matches!(key.as_str(), "time" | "level" | "event") && !value.is_null()
                })
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key}={text}"),
                    other => format!("{key}={other}"),
                })
                .collect();
            format!("{other:<10} {}", rest.join(" "))
        }
    };
    writeln!(out, "{at}  {}", printable(line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_behind_the_address_of_an_event() {
        let shown = |event: Value| {
            let mut out = Vec::new();
            super::event(&mut out, &event, &Zone::utc()).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut event = serde_json::json!({
            "time": "2026-11-20T15:26:40.000Z", "level": "warn", "event": "blocked", "address": "10.77.1.1", "name": "scanner.example", "timeout": 60,
            "renewed": false, "reason": "syn scan: 3 ports in 0.2s"
        });
        assert_eq!(
            shown(event.clone()),
            "2026-11-20 15:26:40  blocked    10.77.1.1 (scanner.example) for 1m: syn scan: 3 ports in 0.2s\n"
        );
        event["name"] = Value::Null;
        assert_eq!(
            shown(event),
            "2026-11-20 15:26:40  blocked    10.77.1.1 for 1m: syn scan: 3 ports in 0.2s\n"
        );
    }
}
