//! `report`: what happened in a time, as a page for a browser, or in short on the terminal.

mod page;
mod tally;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

pub(crate) use self::tally::Figures;
use self::tally::{CountryRow, Origin, Ranked, Tally};
use super::args::{Arguments, Report};
use super::failure::Failure;
use super::geo::{self, Databases};
use super::run::{document, each, rows_of};
use super::show::{Zone, count, pair};
use super::status;
use super::table::{Align, Table};
use crate::control::client::Client;
use crate::control::protocol::{HistoryRow, Past, Request, Stamp};
use crate::sys::replace;

/// Days of a report without `--since`.
const DAYS: i64 = 7;

/// Events after which a terminal shows the progress again.
const SHOWN_EACH: u64 = 20_000;

/// Rows of a ranking on the terminal.
const ROWS: usize = 5;

/// What a page says beside the figures.
pub(super) struct Facts {
    /// The name of this host.
    host: String,
    /// The name of the service that usually has a port, `tcp/22`.
    service: fn(&str) -> Option<String>,
}

/// Runs the command.
pub(super) fn run(
    arguments: &Arguments,
    options: &Report,
    out: &mut dyn Write,
    err: &mut dyn Write,
    zone: &Zone,
) -> Result<u8, Failure> {
    let now = Timestamp::now();
    let until = options.until.map_or(now, |until| until.min(now));
    let since = options.since.unwrap_or_else(|| {
        until.checked_sub(SignedDuration::from_hours(24 * DAYS)).unwrap_or(Timestamp::MIN)
    });
    let figures = read(arguments, since, until, err, zone)?;
    let facts = Facts { host: host(), service };
    match options.html.as_deref() {
        Some(path) => {
            let page = page::page(&figures, &facts, zone).map_err(io::Error::other)?;
            if path == Path::new("-") {
                out.write_all(page.as_bytes())?;
            } else {
                write(path, &page)?;
                writeln!(out, "{} has the report", path.display())?;
            }
        }
        None if arguments.json => document(out, &figures)?,
        None => summary(out, &figures, &facts, zone)?,
    }
    Ok(status::DONE)
}

/// Reads and adds up the events.
fn read(
    arguments: &Arguments,
    since: Timestamp,
    until: Timestamp,
    err: &mut dyn Write,
    zone: &Zone,
) -> Result<Figures, Failure> {
    let geo = Databases::of_daemon(&arguments.socket, arguments.json, err)?;
    let mut tally = Tally::new(since, until, zone.offset(since), geo);
    let past =
        Past { since: Some(Stamp(since)), until: Some(Stamp(until)), all: true, ..Past::default() };
    let mut client = Client::connect(&arguments.socket)?;
    let first = client.ask(&Request::History(Box::new(past)))?;
    let shows = io::stderr().is_terminal();
    let mut events = 0_u64;
    each(&mut client, first, rows_of, |row: HistoryRow| {
        tally.add(row);
        events += 1;
        if shows && events.is_multiple_of(SHOWN_EACH) {
            write!(err, "\r{} events", thousands(events)).and_then(|()| err.flush())?;
        }
        Ok(())
    })?;
    if shows && events >= SHOWN_EACH {
        // The progress gives way to the report.
        write!(err, "\r\u{1b}[K").and_then(|()| err.flush())?;
    }
    Ok(tally.figures())
}

/// Writes the page. It names those who scan: only its owner may read it.
fn write(path: &Path, page: &str) -> Result<(), Failure> {
    replace::write(path, page.as_bytes(), 0o600).map_err(|error| {
        Failure::File(
            status::SOFTWARE,
            format!("{} cannot be written: {error}", path.display()),
            "name a file in a directory that you may write to, or - for standard output".to_owned(),
        )
    })
}

/// The name of this host.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The services that scanners look for: a number says less.
fn service(port: &str) -> Option<String> {
    let name = match port {
        "tcp/21" => "ftp",
        "tcp/22" => "ssh",
        "tcp/23" => "telnet",
        "tcp/25" => "smtp",
        "tcp/53" | "udp/53" => "dns",
        "tcp/80" | "tcp/8080" | "tcp/8000" => "http",
        "tcp/110" => "pop3",
        "tcp/111" | "udp/111" => "portmapper",
        "udp/123" => "ntp",
        "tcp/135" => "msrpc",
        "tcp/139" | "tcp/445" => "smb",
        "tcp/143" => "imap",
        "udp/161" => "snmp",
        "tcp/389" | "udp/389" => "ldap",
        "tcp/443" | "tcp/8443" => "https",
        "tcp/1433" => "mssql",
        "tcp/1883" => "mqtt",
        "udp/1900" => "ssdp",
        "tcp/2375" | "tcp/2376" => "docker",
        "tcp/3306" => "mysql",
        "tcp/3389" => "rdp",
        "tcp/5060" | "udp/5060" => "sip",
        "tcp/5432" => "postgresql",
        "tcp/5900" => "vnc",
        "tcp/5985" => "winrm",
        "tcp/6379" => "redis",
        "tcp/9200" => "elasticsearch",
        "tcp/11211" | "udp/11211" => "memcached",
        "tcp/27017" => "mongodb",
        _ => return None,
    };
    Some(name.to_owned())
}

/// A number with a thin space (U+2009) between each three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A span in words: `in each hour`.
fn in_each(seconds: i64) -> String {
    match seconds {
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        604_800 => "week".to_owned(),
        _ if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        _ if seconds % 3600 == 0 => format!("{} hours", seconds / 3600),
        _ => format!("{} minutes", seconds / 60),
    }
}

/// What the figures lack.
fn gaps(figures: &Figures) -> Vec<String> {
    let of =
        |number: u64, what: &str| (number > 0).then(|| format!("{} {what}", thousands(number)));
    [
        of(figures.not_stored, "events that were not stored in a flood"),
        of(figures.lost, "packets that the kernel could not deliver"),
        of(figures.shed, "packets of unknown sources that were given up in a flood"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The report in short.
fn summary(out: &mut dyn Write, figures: &Figures, facts: &Facts, zone: &Zone) -> io::Result<()> {
    let (since, until) = (zone.time(figures.since.0), zone.time(figures.until.0));
    writeln!(
        out,
        "Port scans of {}, {since} to {until}:",
        crate::journal::format::printable(&facts.host)
    )?;
    let counts = figures.counts;
    let more = if figures.distinct_exceeded { "more than " } else { "" };
    pair(
        out,
        "scans",
        &format!("{}, from {more}{}", counts.scans, count(figures.distinct, "source")),
    )?;
    let peak = figures.spans.iter().map(|span| span.counts.scans).max().unwrap_or(0);
    if peak > 0 {
        let bars: String = figures.spans.iter().map(|span| bar(span.counts.scans, peak)).collect();
        pair(out, "", &format!("{bars} at most {peak} in each {}", in_each(figures.span)))?;
    }
    pair(out, "slowed", &format!("{}, of which {} were proven", counts.slowed, counts.proven))?;
    pair(out, "blocked", &format!("{}, of which {} by order", counts.blocked, figures.ordered))?;
    for gap in gaps(figures) {
        pair(out, "missing", &gap)?;
    }
    let lists = [
        ("kinds", &figures.kinds.rows),
        ("ports", &figures.ports.rows),
        ("networks", &figures.networks.rows),
    ];
    for (name, rows) in lists.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        let shown = |Ranked { name, scans }: &Ranked| {
            let service = service(name).map(|name| format!(" {name}")).unwrap_or_default();
            format!("{name}{service} ({scans})")
        };
        let rows: Vec<String> = rows.iter().take(ROWS).map(shown).collect();
        pair(out, name, &rows.join(", "))?;
    }
    places(out, figures)?;
    if figures.sources.rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns = [
        ("ADDRESS", Align::Left),
        ("SCANS", Align::Right),
        ("PROBES", Align::Right),
        ("SLOWED", Align::Right),
        ("PROVEN", Align::Right),
        ("BLOCKED", Align::Right),
        ("LAST", Align::Left),
        ("COUNTRY", Align::Left),
        ("AS", Align::Left),
        ("NAME", Align::Left),
    ];
    let mut table = Table::new(columns, "").spare(&[7, 8], figures.countries.is_none());
    for row in figures.sources.rows.iter().take(ROWS) {
        let counts = row.counts;
        let numbers = [counts.scans, row.probes, counts.slowed, counts.proven, counts.blocked];
        let [scans, probes, slowed, proven, blocked] = numbers.map(|number| number.to_string());
        let (address, last) = (row.address.to_string(), zone.time(row.last.0));
        let name = row.host.clone().unwrap_or_else(|| "-".to_owned());
        let [country, system] = geo::cells(row.geo.as_ref());
        table.row(
            out,
            [address, scans, probes, slowed, proven, blocked, last, country, system, name],
        )?;
    }
    table.end(out)
}

/// Where the sources are, if a database says so.
fn places(out: &mut dyn Write, figures: &Figures) -> io::Result<()> {
    let row = |name: &str, Origin { sources, .. }: Origin| format!("{name} ({sources})");
    let countries: Vec<String> = (figures.countries.iter().flat_map(|ranking| &ranking.rows))
        .map(|CountryRow { country, of }| row(country, *of))
        .take(ROWS)
        .collect();
    let systems: Vec<String> = (figures.autonomous_systems.iter())
        .flat_map(|ranking| &ranking.rows)
        .map(|system| row(&system.name(), system.of))
        .take(ROWS)
        .collect();
    for (name, rows) in [("countries", countries), ("systems", systems)] {
        if !rows.is_empty() {
            pair(out, name, &format!("{}, by their sources", rows.join(", ")))?;
        }
    }
    Ok(())
}

/// A character as high as the count.
fn bar(count: u64, peak: u64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let eighth = count.saturating_mul(8).div_ceil(peak.max(1));
    match usize::try_from(eighth).ok().and_then(|eighth| eighth.checked_sub(1)) {
        None => ' ',
        Some(place) => BARS.get(place).copied().unwrap_or('█'),
    }
}
