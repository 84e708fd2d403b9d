//! `portsentryctl import`: reads the old program's files, translates them with [`classic`], and
//! writes the new configuration.
//!
//! An existing file is never overwritten, and the new one appears complete or not at all
//! ([`replace::create`]).

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::failure::Failure;
use super::status;
use crate::config::classic::{self, DEFAULT_MODES, Import, Modes, Source};
use crate::config::{self, DEFAULT_PATH, Finding, Refused};
use crate::journal::format::{printable, printable_json, printable_lines};
use crate::sys::{files, replace};

/// Bytes of a file that are read at most, as for a configuration.
const SIZE_MAX: u64 = 1 << 20;

/// The options of an import.
pub(super) struct Order<'o> {
    /// The classic configuration.
    pub(super) file: &'o Path,
    /// The new file; `None`: standard output.
    pub(super) to: Option<&'o Path>,
    /// The init script's settings, if named.
    pub(super) defaults: Option<&'o Path>,
    /// Modes from the command line.
    pub(super) modes: Modes,
    /// Whether to print JSON.
    pub(super) json: bool,
}

/// Runs the import.
pub(super) fn run(
    order: &Order<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    if let Some(to) = order.to
        && fs::symlink_metadata(to).is_ok()
    {
        return Err(is_there(to));
    }
    let mut untrusted = Vec::new();
    let translated = match translate(order, &mut untrusted)? {
        Ok(translated) => translated,
        Err(Refused { findings }) if order.json => {
            let document = json!({"ok": false, "file": null, "findings": texts(&findings)});
            writeln!(out, "{}", printable_json(&format!("{document:#}")))?;
            return Ok(status::CONFIGURATION);
        }
        Err(refused) => {
            return Err(Failure::Configuration(format!("{refused}\nNothing was written.")));
        }
    };
    let Import { yaml, findings } = translated;
    // Findings that the daemon will have about the new file, for example keys without effect yet.
    let name = order.to.unwrap_or(Path::new("the new file"));
    let remarks = config::parse(&yaml, name).map(|loaded| loaded.warnings).unwrap_or_default();
    if let Some(to) = order.to {
        write(to, &yaml)?;
    }
    let mut told = texts(&findings);
    told.extend(untrusted);
    told.extend(texts(&remarks));
    if order.json {
        let shown = if order.to.is_none() { Some(&yaml) } else { None };
        let document = json!({"ok": true, "file": order.to.map(|to| to.to_string_lossy()), "yaml": shown, "findings": told});
        writeln!(out, "{}", printable_json(&format!("{document:#}")))?;
        return Ok(status::DONE);
    }
    for line in &told {
        // If standard error is closed, the findings about the old files are still in the new one.
        let _ = writeln!(err, "{}", printable_lines(line));
    }
    let _ = err.flush();
    match order.to {
        None => out.write_all(yaml.as_bytes())?,
        Some(to) => {
            let to = to.display().to_string();
            writeln!(
                out,
                "{0} is written. Read its head, then check it: portsentryctl check {0}",
                printable(&to)
            )?;
        }
    }
    Ok(status::DONE)
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Reads all files and translates them.
fn translate(
    order: &Order<'_>,
    untrusted: &mut Vec<String>,
) -> Result<Result<Import, Refused>, Failure> {
    let must = |path: &Path| read(path).map_err(|error| unreadable(path, &error));
    let (bytes, doubt) = must(order.file)?;
    untrusted.extend(doubt);
    let config = Source { name: order.file.to_owned(), bytes };
    let defaults = match order.defaults {
        Some(path) => Some((path, must(path)?)),
        None => {
            let path = Path::new(DEFAULT_MODES);
            match read(path) {
                Ok(found) => Some((path, found)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
    };
    let defaults = defaults.map(|(path, (bytes, doubt))| {
        untrusted.extend(doubt);
        Source { name: path.to_owned(), bytes }
    });
    let refused_later = RefCell::new(Vec::new());
    let ignore = |path: &Path| ignore_files(path, order.file, &refused_later);
    let import = classic::import(&classic::Request {
        config: &config,
        defaults: defaults.as_ref(),
        modes: order.modes,
        ignore: &ignore,
    });
    untrusted.extend(refused_later.into_inner());
    Ok(import)
}

/// The ignore file that the configuration names, or one of that name beside the configuration, and
/// the one that Debian's init script generates from it. `refused_later` gets the reasons why the
/// daemon will refuse the first.
fn ignore_files(
    named: &Path,
    config: &Path,
    refused_later: &RefCell<Vec<String>>,
) -> classic::Ignore {
    let beside = named.file_name().map(|name| config.with_file_name(name));
    for path in [Some(named.to_owned()), beside].into_iter().flatten() {
        let mut fixed = path.clone().into_os_string();
        fixed.push(".static");
        let mut found = Vec::new();
        for path in [path, PathBuf::from(fixed)] {
            match read(&path) {
                Ok((bytes, _)) => {
                    if path == named {
                        refused_later.borrow_mut().extend(refusals(&path));
                    }
                    found.push(Source { name: path, bytes });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Reasons why the daemon will refuse to read this file.
fn refusals(path: &Path) -> Vec<String> {
    let faults =
        files::facts_at(path).map(|facts| config::distrust(path, &facts)).unwrap_or_default();
    let words = |(fault, remedy): config::Fault| {
        format!(
            "{}: warning: {fault}: the daemon will not start with such an ignore file\n    help: {remedy}",
            path.display()
        )
    };
    faults.into_iter().map(words).collect()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "name a file that exists",
        io::ErrorKind::PermissionDenied => "run as root, or give yourself the right to read it",
        _ => "name a file that can be read",
    };
    Failure::Configuration(format!(
        "{}: error: cannot read it: {error}\n    help: {remedy}",
        path.display()
    ))
}

/// A file, and a warning if users other than root could have written commands for root into it.
fn read(path: &Path) -> io::Result<(Vec<u8>, Option<String>)> {
    let mut file = files::open(path)?;
    let facts = files::facts(&file)?;
    if !facts.regular {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // One byte more than allowed shows whether there is more.
    let bytes = files::read_up_to(&mut file, SIZE_MAX + 1)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SIZE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it has more than {SIZE_MAX} bytes"),
        ));
    }
    let doubtful = files::is_root() && (facts.uid != 0 || facts.mode & 0o022 != 0);
    let doubt = doubtful.then(|| {
        format!(
            "{}: warning: others than root can write this file (owner {}, mode {:04o})\n    help: read what it became, the command above all, before the daemon takes it",
            path.display(),
            facts.uid,
            facts.mode
        )
    });
    Ok((bytes, doubt))
}

fn is_there(to: &Path) -> Failure {
    Failure::File(
        status::USAGE,
        format!("{} is there already, and is not overwritten", to.display()),
        "name another file with --output, look at the result with --print, or move the old one away".to_owned(),
    )
}

/// Writes the complete new file, readable by root only: a command may contain a password.
fn write(to: &Path, text: &str) -> Result<(), Failure> {
    let directory = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let cannot = |error: &io::Error| {
        let status = if error.kind() == io::ErrorKind::PermissionDenied {
            status::NOT_PERMITTED
        } else {
            status::SOFTWARE
        };
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run as root, or write it elsewhere with --output".to_owned()
            }
            io::ErrorKind::NotFound => {
                format!("make the directory: install -d -m 0755 {}", directory.display())
            }
            _ => "write it elsewhere with --output".to_owned(),
        };
        Failure::File(status, format!("cannot write {}: {error}", to.display()), remedy)
    };
    if to == Path::new(DEFAULT_PATH) {
        match DirBuilder::new().mode(0o755).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(cannot(&error));
            }
            _ => {}
        }
    }
    replace::create(to, text.as_bytes(), 0o600).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => is_there(to),
        _ => cannot(&error),
    })
}
