//! The subcommands: each sends a request and prints the answer.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::args::{AllowCommand, Arguments, Command, History, List, ObserveCommand};
use super::failure::Failure;
use super::geo::{Databases, Geo, Located, Wanted};
use super::table::Table;
use super::{
    allowed, check, csv, exporter, health, import, metrics, observed, overview, report, responses,
    session, several, show, status, timeline, top, watch,
};
use crate::control::client::{ANSWER_TIMEOUT, Client, ClientError};
use crate::control::protocol::{
    HistoryRow, Kind, Past, PortName, Reply, Request, Shown, Stamp, Status, Target,
};
use crate::ctl::Zone;
use crate::engine::ListName;
use crate::journal::format::printable_lines;
use crate::journal::typed;

/// Bytes read of an answer on the terminal.
const ANSWER_BYTES_MAX: u64 = 100;

/// Runs the subcommand; returns the exit status.
pub(super) fn run(
    arguments: &Arguments,
    out: &mut dyn Write,
    err: &mut dyn Write,
    zone: &Zone,
) -> Result<u8, Failure> {
    let json = arguments.json;
    if json && let Some((message, remedy)) = no_json(&arguments.command) {
        return Err(Failure::Usage(message, remedy));
    }
    let request = match &arguments.command {
        Command::Check { file } => {
            return check::run(file.as_deref(), &arguments.socket, json, out);
        }
        Command::TestResponse => return responses::run(&arguments.socket, json, out),
        Command::Import(options) => return import::run(options, json, out, err),
        Command::Top => return top::run(arguments, zone),
        Command::Report(options) => return report::run(arguments, options, out, err, zone),
        Command::Status { check: true } => return plugin(arguments, out),
        Command::Metrics { listen: Some(place), anywhere, .. } => {
            return exporter::serve(&arguments.socket, place, *anywhere, out);
        }
        Command::Metrics { textfile, .. } => {
            return figures(arguments, textfile.as_deref(), out);
        }
        Command::Status { check: false } => Request::Status {},
        Command::List(options) if !options.would_be => options.request(),
        Command::List(_) | Command::Observe { command: Some(ObserveCommand::Report) } => {
            Request::Observed {}
        }
        Command::Observe { command: None } => Request::Observe {},
        Command::Enforce { confirm } => {
            Request::Enforce { seconds: confirm.as_ref().map(Duration::as_secs) }
        }
        Command::Off => Request::Off { seconds: None },
        Command::Pause { time } => Request::Off { seconds: Some(time.as_secs()) },
        Command::On => Request::On {},
        Command::Show { address } => Request::Show { address: *address },
        Command::Test { address, ports } => Request::Test {
            address: *address,
            ports: ports.iter().copied().map(PortName).collect(),
        },
        Command::Block { addresses, from, list, add, time, reason, force } => {
            let seconds = time.as_ref().map(Duration::as_secs);
            let ([address], None) = (addresses.as_slice(), from) else {
                let (list, add, force) = (list.as_ref(), *add, *force);
                let options = several::Options { seconds, reason, list, add, force };
                return several::block(arguments, addresses, from.as_deref(), options, out, err);
            };
            if !*force && session::peer().is_some_and(|peer| address.network().contains(&peer)) {
                return Err(Failure::OwnSession(*address));
            }
            let (reason, force) = (reason.clone(), *force);
            Request::Block { address: *address, seconds, reason, force }
        }
        Command::Unblock { addresses, .. } if addresses.len() > 1 => {
            return several::unblock(arguments, addresses, out, err);
        }
        Command::Unblock { addresses, list, yes, .. } => match addresses.first() {
            Some(address) => Request::Unblock { address: *address },
            None => {
                if !*yes && !confirmed(arguments, list.as_ref(), err)? {
                    return Err(Failure::NotConfirmed);
                }
                if let Some(message) = several::unblock_many(arguments, list.as_ref())? {
                    lines(out, json, "message", &message)?;
                    return Ok(status::DONE);
                }
                Request::UnblockAll {}
            }
        },
        Command::Lists => Request::Lists {},
        Command::Allow { command: AllowCommand::List } => Request::AllowList {},
        Command::Allow { command: AllowCommand::Add { address } } => {
            Request::AllowAdd { address: *address }
        }
        Command::Allow { command: AllowCommand::Remove { address } } => {
            Request::AllowRemove { address: *address }
        }
        Command::History(options) => Request::History(Box::new(past(options))),
        Command::Rules => Request::Rules {},
        Command::Reload => Request::Reload {},
        Command::Watch => Request::Watch {},
    };
    let shows_places = matches!(
        arguments.command,
        Command::List(_) | Command::History(_) | Command::Show { .. } | Command::Watch
    );
    let geo = if shows_places {
        Databases::of_daemon(&arguments.socket, json, err)?
    } else {
        Databases::default()
    };
    let wanted = wanted(&arguments.command);
    geo.allow(wanted)?;
    let mut client = Client::connect(&arguments.socket)?;
    let first = client.ask(&request)?;
    match (request, first) {
        (Request::Status {}, Reply::Status(status)) => {
            print(out, json, &status, |out| overview::status(out, &status, zone))?
        }
        (Request::List(_), first @ Reply::Blocks { .. }) => {
            let part = |reply| {
                if let Reply::Blocks { rows, more } = reply { Some((rows, more)) } else { None }
            };
            let cells = |row| show::block(row, zone);
            let mut rows = Rows::new(out, json, show::blocks(!geo.is_empty()), cells);
            // The daemon does not know what of its list is shown in the end.
            let mut left = limit(&arguments.command).unwrap_or(usize::MAX);
            each(&mut client, first, part, |row| {
                if left == 0 {
                    return Ok(());
                }
                let row = geo.locate(Some(row.address), row);
                if !wanted.selects(row.geo.as_ref()) {
                    return Ok(());
                }
                left -= 1;
                rows.add(row)
            })?;
            rows.end()?
        }
        (Request::History(_), first @ Reply::History { .. }) if matches!(&arguments.command, Command::History(options) if options.csv) =>
        {
            csv::header(out)?;
            each(&mut client, first, rows_of, |row| {
                let row = geo.locate(row.address, row);
                if wanted.selects(row.geo.as_ref()) { Ok(csv::row(out, row)?) } else { Ok(()) }
            })?
        }
        (Request::Observed {}, Reply::Observed(found)) => {
            if matches!(arguments.command, Command::List(_)) {
                let rows: Vec<_> = (found.sources.iter())
                    .map(|row| geo.locate(Some(row.address), row))
                    .filter(|row| wanted.selects(row.geo.as_ref()))
                    .collect();
                print(out, json, &rows, |out| observed::list(out, &rows, !geo.is_empty(), zone))?
            } else {
                print(out, json, &found, |out| observed::report(out, &found, zone))?
            }
        }
        (Request::History(_), first @ Reply::History { .. }) => {
            let cells = |row| show::past(row, zone);
            let mut rows = Rows::new(out, json, show::history(!geo.is_empty()), cells);
            each(&mut client, first, rows_of, |row| {
                let row = geo.locate(row.address, row);
                if wanted.selects(row.geo.as_ref()) { rows.add(row) } else { Ok(()) }
            })?;
            rows.end()?
        }
        (Request::Show { address }, Reply::Shown(shown)) => {
            let history = history_of(&mut client, address)?;
            let located = geo.find(address);
            let events = history.iter().map(|row| geo.locate(row.address, row)).collect();
            let document = Document { shown: &shown, geo: located.as_ref(), history: events };
            print(out, json, &document, |out| {
                show::shown(out, &shown, located.as_ref(), zone)?;
                timeline::print(out, &shown.probes, &history, zone)
            })?
        }
        (Request::Test { .. }, Reply::Tested(tested)) => {
            print(out, json, &tested, |out| show::tested(out, &tested, zone))?
        }
        (Request::AllowList {}, Reply::Allowed { mut rows, names, interfaces }) => {
            rows.sort_by(|a, b| (a.address, &a.origin).cmp(&(b.address, &b.origin)));
            print(out, json, &rows, |out| {
                allowed::list(out, &rows, zone)?;
                allowed::others(out, &names, &interfaces)
            })?
        }
        (Request::Lists {}, Reply::Lists { rows }) => {
            print(out, json, &rows, |out| show::lists(out, &rows, zone))?
        }
        (Request::Rules {}, Reply::Rules { text }) => lines(out, json, "rules", &text)?,
        (Request::Watch {}, Reply::Watching {}) => {
            return watch::run(client, (&arguments.socket, json), &geo, (out, err), zone);
        }
        (request, Reply::Done { message }) if request.changes() => {
            lines(out, json, "message", &message)?
        }
        _ => return Err(Failure::Answer),
    }
    Ok(status::DONE)
}

/// Why what a command prints is no JSON, and a remedy. clap refuses only `--json` behind the command,
/// not before it.
fn no_json(command: &Command) -> Option<(&'static str, &'static str)> {
    const SAME: &str = "\"portsentryctl --json status\" has the same figures";
    match command {
        Command::Status { check: true } => Some(("the line of a plugin is not JSON", SAME)),
        Command::Metrics { .. } => Some(("metrics are not JSON", SAME)),
        Command::Top => Some((
            "top is a screen, not JSON",
            "\"portsentryctl --json status\" and \"portsentryctl --json list\" have the same figures",
        )),
        Command::History(History { csv: true, .. }) => {
            Some(("comma-separated values are not JSON", "leave out --csv or --json"))
        }
        Command::Report(options) if options.html.is_some() => {
            Some(("a page is not JSON", "leave out --html or --json"))
        }
        _ => None,
    }
}

/// The status of the daemon at a socket.
pub(super) fn status_of(socket: &Path) -> Result<Box<Status>, Failure> {
    match Client::connect(socket)?.ask(&Request::Status {})? {
        Reply::Status(status) => Ok(status),
        _ => Err(Failure::Answer),
    }
}

/// `status --check`: its output is that of a monitoring plugin, errors included.
fn plugin(arguments: &Arguments, out: &mut dyn Write) -> Result<u8, Failure> {
    let level = match status_of(&arguments.socket) {
        Ok(status) => health::check(out, &status)?,
        Err(failure) => health::unanswered(out, &failure)?,
    };
    Ok(level.exit_status())
}

/// `metrics`.
fn figures(
    arguments: &Arguments,
    textfile: Option<&Path>,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let status = status_of(&arguments.socket);
    match textfile {
        Some(path) => {
            metrics::write(path, status.as_deref().ok())?;
            status?;
        }
        None => metrics::print(out, &*status?)?,
    }
    Ok(status::DONE)
}

/// Asks whether a list, or everything, is to be unblocked, where a person can answer.
fn confirmed(
    arguments: &Arguments,
    list: Option<&ListName>,
    err: &mut dyn Write,
) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(true);
    }
    let status = status_of(&arguments.socket)?;
    if let Some(list) = list {
        let row = status.lists.iter().find(|row| row.name == list.as_str());
        let blocks = show::count(row.map_or(0, |row| row.blocks), "block");
        write!(err, "End {blocks} of the list {list}? [y/N] ")?;
    } else {
        let blocks = show::count(status.blocked, "block");
        let slowed = show::count(status.slowed, "slowed source");
        write!(err, "End {blocks} and release {slowed}? [y/N] ")?;
    }
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The JSON document of `show`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Document<'a> {
    #[serde(flatten)]
    shown: &'a Shown,
    /// Where it is, by the databases that `geo` of the configuration names; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    geo: Option<&'a Geo>,
    /// What is stored of it, oldest first.
    history: Vec<Located<&'a HistoryRow>>,
}

/// What `--country` and `--asn` select.
fn wanted(command: &Command) -> Wanted<'_> {
    let (countries, asns): (&[String], &[u32]) = match command {
        Command::List(List { country, asn, .. })
        | Command::History(History { country, asn, .. }) => (country, asn),
        _ => (&[], &[]),
    };
    Wanted { countries, asns }
}

/// How many rows of the list are shown.
fn limit(command: &Command) -> Option<usize> {
    if let Command::List(options) = command { options.limit } else { None }
}

/// What `history` asks for.
fn past(options: &History) -> Past {
    let History { since, until, source, port, kind, result, scan, all, .. } = options.clone();
    Past {
        since: since.map(Stamp),
        until: until.map(Stamp),
        source,
        port: port.map(PortName),
        kinds: kind,
        result,
        scan,
        all,
    }
}

/// The rows of a part of the history, and whether more follow.
pub(super) fn rows_of(reply: Reply) -> Option<(Vec<HistoryRow>, bool)> {
    if let Reply::History { rows, more } = reply { Some((rows, more)) } else { None }
}

/// Takes the rows of a list that arrives in parts, each of which `part` unpacks.
pub(super) fn each<T>(
    client: &mut Client,
    first: Reply,
    part: impl Fn(Reply) -> Option<(Vec<T>, bool)>,
    mut take: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut reply = first;
    loop {
        let (rows, more) = part(reply).ok_or(Failure::Answer)?;
        rows.into_iter().try_for_each(&mut take)?;
        if !more {
            return Ok(());
        }
        reply = client.receive(Some(ANSWER_TIMEOUT))?;
    }
}

/// What is stored of an address; nothing where no history is kept.
pub(super) fn history_of(client: &mut Client, address: Target) -> Result<Vec<HistoryRow>, Failure> {
    let past = Past { source: Some(address), ..Past::default() };
    let first = match client.ask(&Request::History(Box::new(past))) {
        Err(ClientError::Refused(refusal)) if refusal.kind == Kind::No => return Ok(Vec::new()),
        answer => answer?,
    };
    let mut rows = Vec::new();
    each(client, first, rows_of, |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// Prints an answer: its JSON document, or what `show` makes of it.
fn print(
    out: &mut dyn Write,
    json: bool,
    answer: &impl Serialize,
    show: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    if json { document(out, answer) } else { show(out) }
}

/// Prints a text, as the value of `key` in JSON.
fn lines(out: &mut dyn Write, json: bool, key: &str, text: &str) -> io::Result<()> {
    print(out, json, &json!({ key: text }), |out| {
        writeln!(out, "{}", printable_lines(text.trim_end()))
    })
}

/// Rows that are printed: a JSON array with a row on a line, or a table with the cells of each row.
struct Rows<'o, F, const N: usize> {
    out: &'o mut dyn Write,
    json: bool,
    table: Table<N>,
    cells: F,
    /// What stands before the next row of the array.
    before: &'static str,
}

impl<'o, F, const N: usize> Rows<'o, F, N> {
    fn new(out: &'o mut dyn Write, json: bool, table: Table<N>, cells: F) -> Self {
        Self { out, json, table, cells, before: "[\n  " }
    }

    fn add<T: Serialize>(&mut self, row: T) -> Result<(), Failure>
    where
        F: Fn(T) -> [String; N],
    {
        if self.json {
            let text = typed::line(&row).map_err(io::Error::other)?;
            write!(self.out, "{}{text}", self.before)?;
            self.before = ",\n  ";
        } else {
            self.table.row(self.out, (self.cells)(row))?;
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        match self.json {
            true if self.before.starts_with(',') => writeln!(self.out, "\n]"),
            true => writeln!(self.out, "[]"),
            false => self.table.end(self.out),
        }
    }
}

/// Prints a JSON document.
pub(super) fn document(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", typed::document(value).map_err(io::Error::other)?)
}
