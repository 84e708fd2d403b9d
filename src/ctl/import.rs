//! `portsentryctl import`: reads the old program's files, translates them with [`classic`], and
//! writes the new configuration.
//!
//! An existing file is never overwritten, and the new one appears complete or not at all
//! ([`replace::create`]).

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Import;
use super::diagnostics::{Diagnostic, diagnostics};
use super::failure::Failure;
use super::run::document;
use super::status;
use crate::config::classic::{self, DEFAULT_MODES, MODES_FILE, Modes, Source};
use crate::config::{self, DEFAULT_PATH, Finding, Refused, Unit};
use crate::journal::format::{printable, printable_lines};
use crate::sys::{files, replace, users};

/// Bytes of a file that are read at most, as for a configuration.
const SIZE_MAX: u64 = 1 << 20;

/// Runs the import.
pub(super) fn run(
    options: &Import,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, Failure> {
    let to = if options.print { None } else { Some(options.output.as_path()) };
    if let Some(to) = to
        && fs::symlink_metadata(to).is_ok()
    {
        return Err(is_there(to));
    }
    let mut untrusted = Vec::new();
    let (yaml, findings) = match translate(options, &mut untrusted)? {
        Ok(classic::Import { yaml, findings }) => (yaml, findings),
        Err(Refused { findings }) if json => {
            let faults = diagnostics(&findings);
            document(
                out,
                &json!({"ok": false, "file": null, "yaml": null, "findings": texts(&findings), "diagnostics": faults}),
            )?;
            return Ok(status::CONFIGURATION);
        }
        Err(refused) => {
            return Err(Failure::Configuration(format!("{refused}\nNothing was written.")));
        }
    };
    // Findings that the daemon will have about the new file, and what its unit will refuse.
    let name = to.unwrap_or(Path::new("the new file"));
    let remarks = config::parse_under(&yaml, name, &Unit::of_system())
        .map_or_else(|refused| refused.findings, |loaded| loaded.warnings);
    if let Some(to) = to {
        write(to, &yaml)?;
    }
    // Drop-ins that were there before come into force with it.
    let loaded = to.and_then(|to| config::load(to).ok());
    let replaced = loaded.map(|loaded| loaded.replaced).unwrap_or_default();
    let doubts: Vec<Diagnostic> = untrusted.iter().map(|text| Diagnostic::of_text(text)).collect();
    let changes: Vec<Diagnostic> = replaced.iter().map(|text| Diagnostic::of_text(text)).collect();
    let told = [texts(&findings), untrusted, texts(&remarks), replaced].concat();
    if json {
        let objects = [diagnostics(&findings), doubts, diagnostics(&remarks), changes].concat();
        let shown = if to.is_none() { Some(&yaml) } else { None };
        let file = to.map(Path::to_string_lossy);
        document(
            out,
            &json!({"ok": true, "file": file, "yaml": shown, "findings": told, "diagnostics": objects}),
        )?;
        return Ok(status::DONE);
    }
    for line in &told {
        // If standard error is closed, the findings about the old files are still in the new one.
        let _ = writeln!(err, "{}", printable_lines(line));
    }
    let _ = err.flush();
    match to {
        None => out.write_all(yaml.as_bytes())?,
        Some(to) => writeln!(
            out,
            "{0} is written. Read its head, then check it: portsentryctl check {0}",
            printable(&to.to_string_lossy())
        )?,
    }
    Ok(status::DONE)
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// Reads all files and translates them.
fn translate(
    options: &Import,
    untrusted: &mut Vec<String>,
) -> Result<Result<classic::Import, Refused>, Failure> {
    let mut source = |path: &Path| {
        let (bytes, doubt) = read(path)?;
        untrusted.extend(doubt);
        Ok(Source { name: path.to_owned(), bytes })
    };
    let config = source(&options.file).map_err(|error| unreadable(&options.file, &error))?;
    let places = match &options.defaults {
        Some(path) => vec![path.clone()],
        None => DEFAULT_MODES
            .iter()
            .map(PathBuf::from)
            .chain([options.file.with_file_name(MODES_FILE)])
            .collect(),
    };
    let mut defaults = None;
    for path in places {
        match source(&path) {
            Ok(found) => {
                defaults = Some(found);
                break;
            }
            Err(error) if error.kind() == ErrorKind::NotFound && options.defaults.is_none() => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    let refused_later = RefCell::new(Vec::new());
    let ignore = |path: &Path| ignore_files(path, &options.file, &refused_later);
    let import = classic::import(&classic::Request {
        config: &config,
        defaults: defaults.as_ref(),
        modes: options.mode.iter().fold(Modes::default(), |modes, more| modes.or(*more)),
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
                Err(error) if error.kind() == ErrorKind::NotFound => {}
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
        ErrorKind::NotFound => "name a file that exists",
        ErrorKind::PermissionDenied => "run as root, or give yourself the right to read it",
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
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // One byte more than allowed shows whether there is more.
    let bytes = files::read_up_to(&mut file, SIZE_MAX + 1)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SIZE_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
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
        let status = if error.kind() == ErrorKind::PermissionDenied {
            status::NOT_PERMITTED
        } else {
            status::SOFTWARE
        };
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => {
                "run as root, or write it elsewhere with --output".to_owned()
            }
            ErrorKind::NotFound => {
                format!("make the directory: install -d -m 0755 {}", directory.display())
            }
            _ => "write it elsewhere with --output".to_owned(),
        };
        Failure::File(status, format!("cannot write {}: {error}", to.display()), remedy)
    };
    if to == Path::new(DEFAULT_PATH) {
        match DirBuilder::new().mode(0o755).create(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(cannot(&error));
            }
            _ => {}
        }
    }
    replace::create(to, text.as_bytes(), 0o600).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(to),
        _ => cannot(&error),
    })?;
    // The daemon reads it as its user.
    match users::find(users::DAEMON).filter(|_| files::is_root()) {
        Some(daemon) => chown(to, None, Some(daemon.gid))
            .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(0o640)))
            .map_err(|error| cannot(&error)),
        None => Ok(()),
    }
}
