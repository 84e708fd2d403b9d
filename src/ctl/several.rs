//! `block` and `unblock` of several addresses: an error with one is printed with its file and line,
//! and does not keep the others from being blocked.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::args::Arguments;
use super::failure::{Failure, own_session};
use super::run::{document, status_of};
use super::{session, status};
use crate::control::client::Client;
use crate::control::protocol::{NotDone, Reply, Request, Several, TARGETS_MAX, Target};
use crate::engine::ListName;
use crate::journal::error_document::ErrorDocument;
use crate::journal::format::printable;
use crate::sys::terminal::Progress;

/// Bytes of a line of a file that are read: no address is so long, and the rest is passed over.
const LINE_MAX: u64 = 4096;

/// From so many on, a terminal shows the progress.
const SHOWN_FROM: u64 = 5000;

/// The options of `block`.
pub(super) struct Options<'a> {
    pub(super) seconds: Option<u64>,
    pub(super) reason: &'a str,
    pub(super) list: Option<&'a ListName>,
    pub(super) add: bool,
    pub(super) force: bool,
}

/// One that is not done, and where it stands.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Wrong {
    /// As it is written.
    target: String,
    file: Option<String>,
    line: Option<usize>,
    message: String,
    remedy: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", printable(file))?,
            _ => f.write_str("portsentryctl: ")?,
        }
        writeln!(f, "{}", printable(&self.message))?;
        if !self.remedy.is_empty() {
            writeln!(f, "  {}", printable(&self.remedy))?;
        }
        Ok(())
    }
}

/// What is to be blocked, and in which line each stands; none for what the command line has.
#[derive(Default)]
struct Wanted {
    file: Option<String>,
    targets: Vec<(Target, Option<usize>)>,
    known: HashSet<Target>,
    wrong: Vec<Wrong>,
}

impl Wanted {
    /// Adds one, unless it is there already.
    fn add(&mut self, target: Target, line: Option<usize>) {
        if self.known.insert(target) {
            self.targets.push((target, line));
        }
    }

    fn not_done(&mut self, target: String, line: Option<usize>, message: String, remedy: String) {
        let file = line.and(self.file.clone());
        self.wrong.push(Wrong { target, file, line, message, remedy });
    }

    /// Reads a file of addresses and networks.
    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let is_input = path == Path::new("-");
        let name = if is_input { "standard input".into() } else { path.display().to_string() };
        self.file = Some(name.clone());
        let failed = |error: io::Error| {
            let remedy =
                "name a file of addresses and networks, one a line, or - for standard input";
            Failure::File(status::NO, format!("{name} cannot be read: {error}"), remedy.to_owned())
        };
        if is_input {
            self.read_lines(io::stdin().lock()).map_err(failed)
        } else {
            File::open(path).and_then(|file| self.read_lines(BufReader::new(file))).map_err(failed)
        }
    }

    fn read_lines(&mut self, mut input: impl BufRead) -> io::Result<()> {
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            if input.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            if !bytes.ends_with(b"\n") {
                input.skip_until(b'\n')?;
            }
            let text = String::from_utf8_lossy(&bytes);
            let text = text.split(['#', ';']).next().unwrap_or_default().trim();
            match text.parse() {
                _ if text.is_empty() => {}
                Ok(target) => self.add(target, Some(number)),
                Err(error) => {
                    let shown: String = text.chars().take(60).collect();
                    let message = format!("{shown:?} is {error}");
                    self.not_done(text.to_owned(), Some(number), message, String::new());
                }
            }
        }
        Ok(())
    }

    /// Takes out what the session that this is typed in comes from.
    fn spare_session(&mut self) {
        let Some(peer) = session::peer() else { return };
        let is_own = |target: &Target| target.network().contains(&peer);
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.targets).into_iter().partition(|(target, _)| is_own(target));
        self.targets = others;
        for (target, line) in own {
            let (message, remedy) = own_session(target);
            self.not_done(target.to_string(), line, message, remedy.to_owned());
        }
    }
}

/// Blocks several.
pub(super) fn block(
    arguments: &Arguments,
    addresses: &[Target],
    from: Option<&Path>,
    Options { seconds, reason, list, add, force }: Options<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut wanted = Wanted::default();
    addresses.iter().for_each(|address| wanted.add(*address, None));
    if let Some(path) = from {
        wanted.read(path)?;
    }
    if !force {
        wanted.spare_session();
    }
    let all = std::mem::take(&mut wanted.targets);
    if let (Some(list), true) = (list, all.is_empty()) {
        // A download that failed must not unblock all of it.
        let message = format!("the list {list} stays as it is: there is no address for it");
        let remedy = format!("\"portsentryctl unblock --list {list}\" ends it");
        return Err(Failure::File(status::NO, message, remedy));
    }
    let mut client = Client::connect(&arguments.socket)?;
    let mut message = "nothing is to be blocked".to_owned();
    let (mut blocked, mut loaded) = (0, None);
    let mut progress = Progress::new(all.len() as u64, SHOWN_FROM);
    for (part, targets) in all.chunks(TARGETS_MAX).enumerate() {
        progress.at((part * TARGETS_MAX) as u64);
        let request = Request::BlockSeveral(Box::new(Several {
            targets: targets.iter().map(|(target, _)| *target).collect(),
            seconds,
            reason: reason.to_owned(),
            force,
            list: list.cloned(),
            add,
            more: (part + 1) * TARGETS_MAX < all.len(),
        }));
        let Reply::Several { message: last, refused, list } = client.ask(&request)? else {
            return Err(Failure::Answer);
        };
        loaded = list;
        blocked += targets.len() - refused.len().min(targets.len());
        for NotDone { at, message, remedy } in refused {
            let one = usize::try_from(at).ok().and_then(|at| targets.get(at));
            let (target, line) = one.ok_or(Failure::Answer)?;
            wanted.not_done(target.to_string(), *line, message, remedy);
        }
        if !last.is_empty() {
            message = last;
        }
    }
    // Its line is for what follows.
    drop(progress);
    let more = [("list", json!(loaded))];
    finish(arguments, ("blocked", blocked), message, more, wanted.wrong, (out, err))
}

/// Unblocks several, one after the other.
pub(super) fn unblock(
    arguments: &Arguments,
    addresses: &[Target],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut client = Client::connect(&arguments.socket)?;
    let (mut wanted, mut messages, mut done) = (Wanted::default(), Vec::new(), 0);
    addresses.iter().for_each(|address| wanted.add(*address, None));
    for (address, _) in std::mem::take(&mut wanted.targets) {
        match client.ask(&Request::Unblock { address }) {
            Ok(Reply::Done { message }) => {
                done += 1;
                messages.push(message);
            }
            Ok(_) => return Err(Failure::Answer),
            Err(crate::control::client::ClientError::Refused(refusal)) => {
                wanted.not_done(address.to_string(), None, refusal.message, refusal.remedy);
            }
            Err(error) => return Err(error.into()),
        }
    }
    finish(arguments, ("unblocked", done), messages.join("\n"), [], wanted.wrong, (out, err))
}

/// Unblocks a list, or everything if that is much, in parts; `None`: it is little, and one request
/// does. Returns what was done, for people.
pub(super) fn unblock_many(
    arguments: &Arguments,
    list: Option<&ListName>,
) -> Result<Option<String>, Failure> {
    let status = status_of(&arguments.socket)?;
    let total = match list {
        Some(list) => {
            let row = status.lists.iter().find(|row| row.name == list.as_str());
            row.map_or(0, |row| row.blocks)
        }
        None if status.blocked < SHOWN_FROM => return Ok(None),
        None => status.blocked,
    };
    let mut client = Client::connect(&arguments.socket)?;
    let mut progress = Progress::new(total, SHOWN_FROM);
    let (mut done, mut from) = (0, None);
    loop {
        let request = Request::UnblockPart { list: list.cloned(), from };
        let Reply::Lifted { message, lifted, next } = client.ask(&request)? else {
            return Err(Failure::Answer);
        };
        done += lifted;
        progress.at(done);
        if next.is_none() {
            return Ok(Some(message));
        }
        from = next;
    }
}

/// Prints what was done and what was not; `more`: further keys of the document.
fn finish<const N: usize>(
    arguments: &Arguments,
    (done, count): (&str, usize),
    message: String,
    more: [(&str, Value); N],
    mut wrong: Vec<Wrong>,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<u8, Failure> {
    wrong.sort_by_key(|wrong| wrong.line);
    let code = if wrong.is_empty() { status::DONE } else { status::NO };
    if arguments.json {
        let mut whole = json!({ "message": message, done: count, "refused": wrong });
        if let Value::Object(whole) = &mut whole {
            whole.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        document(out, &whole)?;
    } else if !message.is_empty() {
        writeln!(out, "{}", crate::journal::format::printable_lines(&message))?;
    }
    out.flush()?;
    match (arguments.json, wrong.len()) {
        (true, 0) => {}
        (true, count) => {
            let message = format!("{count} are not {done}");
            let remedy = "see \"refused\" of the document".to_owned();
            let error = ErrorDocument::new("not-all", message, remedy, code);
            err.write_all(error.line().as_bytes())?;
        }
        (false, _) => wrong.iter().try_for_each(|wrong| write!(err, "{wrong}"))?,
    }
    err.flush()?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_one_fault_and_its_rest_no_address() {
        let mut wanted = Wanted::default();
        let text = format!("192.0.2.1\n{} 192.0.2.2\n192.0.2.3", "x".repeat(3 * 4096));
        wanted.read_lines(text.as_bytes()).unwrap();
        let lines: Vec<_> = wanted.targets.iter().map(|(_, line)| *line).collect();
        assert_eq!(lines, [Some(1), Some(3)]);
        assert_eq!(wanted.wrong.len(), 1);
        assert!(wanted.wrong[0].line == Some(2) && wanted.wrong[0].target.len() <= 4096);
    }
}
