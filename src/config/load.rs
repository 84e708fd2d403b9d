//! Reads and checks the configuration file.
//!
//! The file controls a program that runs as root, so only root may be able to write it
//! ([`distrust`]): owner and mode are taken from the opened descriptor (fstat(2)), so that the
//! checked file is the one that is read. The ignore file that it names is read and checked in the
//! same way: it lists what is never blocked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::classic::ignore;
use super::diagnostic::{Finding, Findings, Place, Severity};
use super::reader::Reader;
use super::trust::{Fault, distrust, distrust_directory};
use super::unit::{self, Unit};
use super::{Config, DEFAULT_PATH, check, tree};
use crate::sys::files;

/// Bytes of either file that are read at most. Every port by number in two lists fits, or fifty
/// thousand addresses.
const SIZE_MAX: u64 = 1 << 20;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Networks of the ignore file: never blocked, like those of `allow`. Empty without a file.
    pub ignored: Vec<IpNet>,
    /// Warnings, by place.
    pub warnings: Vec<Finding>,
    /// The file; `None`: the built-in defaults.
    pub from: Option<PathBuf>,
}

impl Loaded {
    /// Applies a change, for example of the command line, and checks for contradictions again, and
    /// with the unit that the configuration will run under, if it is given.
    ///
    /// # Errors
    /// Faults that the change causes. Such a finding has no place, since no line of the file is at
    /// fault.
    pub fn changed(
        mut self,
        change: impl FnOnce(&mut Config),
        unit: Option<&Unit>,
    ) -> Result<Self, Refused> {
        let before = self.config.clone();
        change(&mut self.config);
        if self.config == before {
            return Ok(self);
        }
        let path = Path::new("the command line");
        let mut reader = Reader::new(Findings::new(path, ""));
        check::check(&self.config, &mut reader);
        if let Some(unit) = unit {
            unit::judge(&self.config, unit, &mut reader);
        }
        let findings = reader.findings.finish();
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(Refused { findings });
        }
        // Warnings about the file were reported with their line.
        let news = findings
            .into_iter()
            .filter(|finding| self.warnings.iter().all(|told| told.message != finding.message));
        self.warnings.extend(news.collect::<Vec<_>>());
        Ok(self)
    }

    /// Adds a warning about something outside the file, which a key of it needs.
    pub fn warn(&mut self, message: String, remedy: String) {
        let file = self.from.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        self.warnings.push(Finding::new(Severity::Warning, file, None, message, remedy));
    }
}

/// A refused configuration: exit status 78, EX_CONFIG (sysexits.h).
///
/// `Display` prints all findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Errors and warnings, by place.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.findings.iter().enumerate() {
            write!(f, "{}{finding}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Refused {
    fn of_faults(path: &Path, faults: Vec<Fault>) -> Self {
        let error = |(message, remedy)| Finding::new(Severity::Error, path, None, message, remedy);
        Self { findings: faults.into_iter().map(error).collect() }
    }
}

/// Loads the configuration file at `path`, which must exist.
///
/// # Errors
/// All faults of the file: it cannot be read, users other than root can write it (when running as
/// root), it is not YAML, keys and values are wrong.
pub fn load(path: &Path) -> Result<Loaded, Refused> {
    load_file(path, None)
}

/// Loads [`DEFAULT_PATH`], or the built-in defaults if it does not exist.
///
/// # Errors
/// As [`load`], if the file exists.
pub fn load_default() -> Result<Loaded, Refused> {
    load_if_present(Path::new(DEFAULT_PATH))
}

/// Loads the file at `path`, or the built-in defaults if it does not exist. A dangling symbolic
/// link counts as a file, since it was meant to lead to one.
///
/// # Errors
/// As [`load`], if the file exists.
pub fn load_if_present(path: &Path) -> Result<Loaded, Refused> {
    load_optional(path, None)
}

/// Loads the file at `path`, or without one as [`load_default`] does, and compares it with the unit
/// that it will run under: for a check, not for the daemon, which finds out by itself.
///
/// # Errors
/// As [`load`], and what the unit refuses.
pub fn load_under(path: Option<&Path>, unit: &Unit) -> Result<Loaded, Refused> {
    match path {
        Some(path) => load_file(path, Some(unit)),
        None => load_optional(Path::new(DEFAULT_PATH), Some(unit)),
    }
}

fn load_file(path: &Path, unit: Option<&Unit>) -> Result<Loaded, Refused> {
    from_bytes(&read(path)?, path, &read_ignored, unit).and_then(check_state_dir)
}

fn load_optional(path: &Path, unit: Option<&Unit>) -> Result<Loaded, Refused> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let loaded = from_bytes(b"", path, &read_ignored, unit).and_then(check_state_dir)?;
            Ok(Loaded { from: None, ..loaded })
        }
        _ => load_file(path, unit),
    }
}

/// The state directory decides what is blocked, so only root may be able to write it. One that does
/// not exist is made later.
fn check_state_dir(loaded: Loaded) -> Result<Loaded, Refused> {
    let path = &loaded.config.state_dir;
    let faults = files::facts_at(path).map(|facts| distrust_directory(path, &facts));
    match faults {
        Ok(faults) if !faults.is_empty() => Err(Refused::of_faults(path, faults)),
        _ => Ok(loaded),
    }
}

/// [`parse`], and compares the configuration with the unit that it will run under.
///
/// # Errors
/// All faults of the text, and what the unit refuses.
pub fn parse_under(text: &str, name: impl AsRef<Path>, unit: &Unit) -> Result<Loaded, Refused> {
    from_bytes(text.as_bytes(), name.as_ref(), &|_| Ok(Some(Vec::new())), Some(unit))
}

/// Parses `text`; `name` is its name in findings. Reads no file, not even `ignore_file`.
///
/// # Errors
/// All faults of the text.
pub fn parse(text: &str, name: impl AsRef<Path>) -> Result<Loaded, Refused> {
    from_bytes(text.as_bytes(), name.as_ref(), &|_| Ok(Some(Vec::new())), None)
}

/// Reads the ignore file; `None`: it does not exist.
type ReadIgnored<'f> = &'f dyn Fn(&Path) -> Result<Option<Vec<u8>>, Vec<Fault>>;

fn from_bytes(
    bytes: &[u8],
    path: &Path,
    read_ignored: ReadIgnored<'_>,
    unit: Option<&Unit>,
) -> Result<Loaded, Refused> {
    let text = text_of(bytes, path)?;
    let mut findings = Findings::new(path, text);
    let root = match tree::read(text) {
        Ok(root) => root,
        Err(error) => {
            let line = error.place.map_or("", |place| findings.line(place.line));
            findings.error(
                error.place,
                error.message,
                error.remedy.unwrap_or_else(|| syntax_remedy(line)),
            );
            return Err(Refused { findings: findings.finish() });
        }
    };
    let mut reader = Reader::new(findings);
    let config = reader.read(&root);
    check::check(&config, &mut reader);
    if let Some(unit) = unit {
        unit::judge(&config, unit, &mut reader);
    }
    // A damaged key has the default path as its value, which was not intended.
    let ignore_file = config.ignore_file.as_deref().filter(|_| reader.is_sound(&["ignore_file"]));
    let found = ignore_file.map(|path| (path, read_ignored(path)));
    // The file at the default path need not exist; a configured one must.
    if let (Some((path, Ok(None))), Some(place)) = (&found, reader.place(&["ignore_file"]))
        && Config::default().ignore_file.as_deref() != Some(path)
    {
        reader.findings.warning(
            place,
            format!("there is no file {}: `ignore_file` exempts nobody", path.display()),
            "write its right path, make the file, or take the line out",
        );
    }
    let (ignored, odd) = found.map_or_else(Default::default, |(path, found)| ignored(path, found));
    let mut findings = reader.findings.finish();
    findings.extend(odd);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused { findings });
    }
    Ok(Loaded { config, ignored, warnings: findings, from: Some(path.to_owned()) })
}

/// The usual cause of an unreadable line.
fn syntax_remedy(line: &str) -> &'static str {
    let indent = line.len() - line.trim_start().len();
    if line.get(..indent).is_some_and(|indent| indent.contains('\t')) {
        "indent with blanks: YAML does not take tabs"
    } else if line.contains('=') && !line.contains(": ") {
        "write `key: value`; this looks like a line of PortSentry 1.2 or 2.x"
    } else {
        "look for a bracket or quote that is not closed, a `: ` in a text without quotes, and the indentation, here and in the line before"
    }
}

/// The bytes as text.
fn text_of<'b>(bytes: &'b [u8], path: &Path) -> Result<&'b str, Refused> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > SIZE_MAX {
        return Err(Refused::of_faults(path, vec![too_large("the configuration", size)]));
    }
    let at = |valid: &[u8], what: &str, remedy: &str| {
        let before = String::from_utf8_lossy(valid);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let place = Place::in_line(before.matches('\n').count() + 1, line, line.len());
        let finding = Finding::new(Severity::Error, path, Some((place, line)), what, remedy);
        Refused { findings: vec![finding] }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        at(valid, "the file is not UTF-8 from here on", "save it as UTF-8: iconv -t UTF-8")
    })?;
    if let Some((before, _)) = text.split_once('\0') {
        return Err(at(
            before.as_bytes(),
            "the file has a NUL byte",
            "remove it: this is not a text file, or it was damaged",
        ));
    }
    // A byte order mark has no meaning in UTF-8, and would shift the columns of the first line.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn too_large(what: &str, size: u64) -> Fault {
    (
        format!("the file has {size} bytes"),
        format!("{what} has at most {SIZE_MAX}: is this the right file?"),
    )
}

/// The networks of the ignore file, and findings about it.
fn ignored(path: &Path, found: Result<Option<Vec<u8>>, Vec<Fault>>) -> (Vec<IpNet>, Vec<Finding>) {
    match found {
        Ok(None) => (Vec::new(), Vec::new()),
        Ok(Some(bytes)) => {
            let list = ignore::parse(&bytes, path);
            (list.entries.into_iter().map(|entry| entry.network).collect(), list.findings)
        }
        Err(faults) => (Vec::new(), Refused::of_faults(path, faults).findings),
    }
}

fn read_ignored(path: &Path) -> Result<Option<Vec<u8>>, Vec<Fault>> {
    // A dangling symbolic link counts as a file.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => read_trusted(
            path,
            "the ignore file",
            "take the line ignore_file out, or let it name a file that can be read",
        )
        .map(Some),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    read_trusted(
        path,
        "the configuration",
        "name a file that exists; without --config the built-in defaults run",
    )
    .map_err(|faults| Refused::of_faults(path, faults))
}

/// Reads a file that only root can write.
fn read_trusted(path: &Path, what: &str, without: &str) -> Result<Vec<u8>, Vec<Fault>> {
    let cannot = |error: &io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => without,
            io::ErrorKind::PermissionDenied => "run as root, or give yourself the right to read it",
            _ => "name a file that can be read",
        };
        vec![(format!("cannot read {what}: {error}"), remedy.to_owned())]
    };
    let mut file = files::open(path).map_err(|error| cannot(&error))?;
    let facts = files::facts(&file).map_err(|error| cannot(&error))?;
    if !facts.regular {
        return Err(vec![(
            format!("{what} is not a regular file"),
            "name a file, not a directory, pipe or device".to_owned(),
        )]);
    }
    let faults = distrust(path, &facts);
    if !faults.is_empty() {
        return Err(faults);
    }
    // One byte more than allowed: the file may have grown since.
    let bytes = files::read_up_to(&mut file, SIZE_MAX + 1).map_err(|error| cannot(&error))?;
    let size = facts.size.max(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    if size > SIZE_MAX { Err(vec![too_large(what, size)]) } else { Ok(bytes) }
}
