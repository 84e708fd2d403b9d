//! The subcommands: each sends a request and prints the answer.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::args::{AllowCommand, Arguments, Command};
use super::failure::Failure;
use super::show::Listing;
use super::{check, import, show, status};
use crate::config::classic::Modes;
use crate::control::client::{ANSWER_TIMEOUT, Client};
use crate::control::protocol::{Reply, Request, Stamp};
use crate::ctl::Zone;
use crate::journal::format::{printable_json, printable_lines};

/// Runs the subcommand; returns the exit status.
pub(super) fn run(
    arguments: &Arguments,
    out: &mut dyn Write,
    err: &mut dyn Write,
    zone: &Zone,
) -> Result<u8, Failure> {
    let json = arguments.json;
    let request = match &arguments.command {
        Command::Check { file } => return check::run(file.as_deref(), json, out),
        Command::Import { file, output, print, defaults, mode } => {
            let modes = mode.iter().fold(Modes::default(), |modes, more| modes.or(*more));
            let to = if *print { None } else { Some(output.as_path()) };
            return import::run(
                &import::Order { file, to, defaults: defaults.as_deref(), modes, json },
                out,
                err,
            );
        }
        Command::Status => Request::Status {},
        Command::List => Request::List {},
        Command::Show { address } => Request::Show { address: *address },
        Command::Block { address, time, reason } => Request::Block {
            address: *address,
            seconds: time.as_ref().map(Duration::as_secs),
            reason: reason.clone(),
        },
        Command::Unblock { address: Some(address), .. } => Request::Unblock { address: *address },
        Command::Unblock { address: None, .. } => Request::UnblockAll {},
        Command::Allow { command: AllowCommand::List } => Request::AllowList {},
        Command::Allow { command: AllowCommand::Add { address } } => {
            Request::AllowAdd { address: *address }
        }
        Command::Allow { command: AllowCommand::Remove { address } } => {
            Request::AllowRemove { address: *address }
        }
        Command::History { since, source } => {
            Request::History { since: since.map(Stamp), source: *source }
        }
        Command::Rules => Request::Rules {},
        Command::Reload => Request::Reload {},
        Command::Watch => Request::Watch {},
    };
    let mut client = Client::connect(&arguments.socket)?;
    let first = client.ask(&request)?;
    match (request, first) {
        (Request::Status {}, Reply::Status(status)) => {
            if json {
                document(out, &status)?
            } else {
                show::status(out, &status)?
            }
        }
        (Request::List {}, first @ Reply::Blocks { .. }) => {
            let part = |reply| {
                if let Reply::Blocks { rows, more } = reply { Some((rows, more)) } else { None }
            };
            if json {
                list(&mut client, first, part, out, Array::default())?
            } else {
                list(&mut client, first, part, out, show::Blocks::new(zone))?
            }
        }
        (Request::History { .. }, first @ Reply::History { .. }) => {
            let part = |reply| {
                if let Reply::History { rows, more } = reply { Some((rows, more)) } else { None }
            };
            if json {
                list(&mut client, first, part, out, Array::default())?
            } else {
                list(&mut client, first, part, out, show::Past::new(zone))?
            }
        }
        (Request::Show { .. }, Reply::Shown(shown)) => {
            if json {
                document(out, &shown)?
            } else {
                show::shown(out, &shown, zone)?
            }
        }
        (Request::AllowList {}, Reply::Allowed { mut rows }) => {
            rows.sort_by(|a, b| (a.address, &a.origin).cmp(&(b.address, &b.origin)));
            if json { document(out, &rows)? } else { show::allowed(out, rows)? }
        }
        (Request::Rules {}, Reply::Rules { text }) => {
            if json {
                document(out, &json!({ "rules": text }))?
            } else {
                writeln!(out, "{}", printable_lines(text.trim_end()))?
            }
        }
        (Request::Watch {}, Reply::Watching {}) => return watch(&mut client, json, out, zone),
        (request, Reply::Done { message }) if request.changes() => {
            if json {
                document(out, &json!({ "message": message }))?
            } else {
                writeln!(out, "{}", printable_lines(message.trim_end()))?
            }
        }
        _ => return Err(Failure::Answer),
    }
    Ok(status::DONE)
}

/// Prints a list that arrives in parts; `part` unpacks one.
fn list<T>(
    client: &mut Client,
    first: Reply,
    part: impl Fn(Reply) -> Option<(Vec<T>, bool)>,
    out: &mut dyn Write,
    mut listing: impl Listing<T>,
) -> Result<(), Failure> {
    let mut reply = first;
    loop {
        let (rows, more) = part(reply).ok_or(Failure::Answer)?;
        for row in rows {
            listing.row(out, row)?;
        }
        if !more {
            return Ok(listing.end(out)?);
        }
        reply = client.receive(Some(ANSWER_TIMEOUT))?;
    }
}

/// Prints events until the daemon ends or the output is closed.
fn watch(client: &mut Client, json: bool, out: &mut dyn Write, zone: &Zone) -> Result<u8, Failure> {
    loop {
        let Reply::Event { event } = client.receive(None)? else { return Err(Failure::Answer) };
        if json {
            writeln!(out, "{}", printable_json(&event.to_string()))?
        } else {
            show::event(out, &event, zone)?
        }
        out.flush()?;
    }
}

fn document<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    writeln!(out, "{}", printable_json(&text))
}

/// A JSON array that is written row by row, one on a line.
#[derive(Default)]
struct Array {
    any: bool,
}

impl<T: Serialize> Listing<T> for Array {
    fn row(&mut self, out: &mut dyn Write, row: T) -> io::Result<()> {
        let text = serde_json::to_string(&row).map_err(io::Error::other)?;
        write!(out, "{}{}", if self.any { ",\n  " } else { "[\n  " }, printable_json(&text))?;
        self.any = true;
        Ok(())
    }

    fn end(self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", if self.any { "\n]" } else { "[]" })
    }
}
