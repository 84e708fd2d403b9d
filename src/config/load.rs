//! Reads and checks the configuration file and its drop-ins: the files `conf.d/*.yaml` beside it, in
//! the order of their names. A drop-in is read over the files before it, as the reader says.
//!
//! The file controls a program that runs as root, so only root may be able to write it
//! ([`distrust`]): owner and mode are taken from the opened descriptor (fstat(2)), so that the
//! checked file is the one that is read. The ignore file that it names is read and checked in the
//! same way: it lists what is never blocked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::classic::ignore;
use super::diagnostic::{Finding, Findings, Place, Severity};
use super::reader::Reader;
use super::trust::{Fault, distrust, distrust_directory};
use super::unit::{self, Unit};
use super::{Allowance, Config, DEFAULT_PATH, allow, check, present, tree};
use crate::sys::files;

/// Bytes of either file that are read at most. Every port by number in two lists fits, or fifty
/// thousand addresses.
const SIZE_MAX: u64 = 1 << 20;

/// The directory of drop-ins, beside the configuration file.
const DROP_INS: &str = "conf.d";

/// Drop-ins that are read at most. One for each program or role that has its own is far less.
const DROP_INS_MAX: usize = 256;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Networks of the ignore file: never blocked, like those of `allow`. Empty without a file.
    pub ignored: Vec<IpNet>,
    /// Warnings, by place.
    pub warnings: Vec<Finding>,
    /// The file; `None`: it does not exist.
    pub from: Option<PathBuf>,
    /// The drop-ins, in the order in which they were read.
    pub drop_ins: Vec<PathBuf>,
    /// Each value that a drop-in replaced, in words.
    pub replaced: Vec<String>,
    /// Where each value that is not built in comes from, by key: `file:line`.
    pub(super) origins: BTreeMap<&'static str, String>,
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
        let name = "the command line";
        let changed = before.differences(&self.config).map(|(key, ..)| (key.path, name.to_owned()));
        self.origins.extend(changed);
        let mut reader = Reader::new(Findings::new(Path::new(name), ""));
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

    /// Where the configuration comes from, in words.
    pub fn source(&self) -> String {
        let file = self.from.as_ref().map(|path| path.display().to_string());
        let file = file.unwrap_or_else(|| "the built-in defaults".to_owned());
        let places: Vec<_> = self.drop_ins.iter().map(|path| path.display().to_string()).collect();
        match places.is_empty() {
            true => file,
            false => format!("{file} with {}", places.join(", ")),
        }
    }

    /// Where the value of a key comes from: `file:line`.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }

    /// Adds a warning about something outside the file that this key names, at its line.
    pub fn warn_of(&mut self, key: &str, message: String, remedy: String) {
        let origin = self.origin(key).and_then(|origin| origin.rsplit_once(':'));
        let place = origin.and_then(|(file, line)| Some((PathBuf::from(file), line.parse().ok()?)));
        self.warn(message, remedy);
        if let (Some((file, line)), Some(warning)) = (place, self.warnings.last_mut()) {
            (warning.file, warning.line) = (file, line);
        }
    }

    /// Adds a warning about something outside the file, which a key of it needs.
    pub fn warn(&mut self, message: String, remedy: String) {
        let file = self.from.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        self.warnings.push(Finding::new(Severity::Warning, file, None, message, remedy));
    }
}

/// One file of a configuration.
struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
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
    let main = Source { path: path.to_owned(), bytes: read(path)? };
    load_with_drop_ins(main, unit)
}

fn load_with_drop_ins(main: Source, unit: Option<&Unit>) -> Result<Loaded, Refused> {
    let (drop_ins, ignored) = read_drop_ins(&main.path)?;
    let sources: Vec<_> = std::iter::once(main).chain(drop_ins).collect();
    let mut loaded = from_sources(&sources, Some(&read_ignored), unit).and_then(check_state_dir)?;
    loaded.warnings.extend(ignored);
    Ok(loaded)
}

fn load_optional(path: &Path, unit: Option<&Unit>) -> Result<Loaded, Refused> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let main = Source { path: path.to_owned(), bytes: Vec::new() };
            let loaded = load_with_drop_ins(main, unit)?;
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
    from_text(text, name.as_ref(), Some(unit))
}

/// Parses `text`; `name` is its name in findings. Reads no file, not even `ignore_file`.
///
/// # Errors
/// All faults of the text.
pub fn parse(text: &str, name: impl AsRef<Path>) -> Result<Loaded, Refused> {
    from_text(text, name.as_ref(), None)
}

fn from_text(text: &str, name: &Path, unit: Option<&Unit>) -> Result<Loaded, Refused> {
    let source = Source { path: name.to_owned(), bytes: text.as_bytes().to_owned() };
    from_sources(&[source], None, unit)
}

/// Reads the ignore file; `None`: it does not exist.
type ReadIgnored<'f> = &'f dyn Fn(&Path) -> Result<Option<Vec<u8>>, Vec<Fault>>;

/// Reads the configuration file, the first, and its drop-ins. Without `read_ignored` no other file is
/// looked at.
fn from_sources(
    sources: &[Source],
    read_ignored: Option<ReadIgnored<'_>>,
    unit: Option<&Unit>,
) -> Result<Loaded, Refused> {
    let mut reader = Reader::new(Findings::default());
    let mut config = Config::default();
    let mut is_yaml = true;
    for (file, Source { path, bytes }) in (0..).zip(sources) {
        let text = text_of(bytes, path)?;
        reader.findings.add_file(path, text);
        match tree::read(text, file) {
            Ok(root) => reader.read(&root, &mut config),
            Err(error) => {
                let line = error.place.map_or("", |place| reader.findings.line(place));
                reader.findings.error(
                    error.place,
                    error.message,
                    error.remedy.unwrap_or_else(|| syntax_remedy(line)),
                );
                is_yaml = false;
            }
        }
    }
    // What the rest of the file says about other keys is not known.
    if !is_yaml {
        return Err(Refused { findings: reader.findings.finish() });
    }
    check::check(&config, &mut reader);
    if let Some(unit) = unit {
        unit::judge(&config, unit, &mut reader);
    }
    if read_ignored.is_some() {
        present::check(&config, &mut reader);
    }
    // A damaged key has the default path as its value, which was not intended.
    let ignore_file = config.ignore_file.as_deref().filter(|_| reader.is_sound(&["ignore_file"]));
    let found = ignore_file.and_then(|path| Some((path, read_ignored?(path))));
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
    let (ignored, mut odd) =
        found.map_or_else(Default::default, |(path, found)| ignored(path, found));
    if read_ignored.is_some() && reader.is_sound(&["allow"]) {
        odd.extend(read_allow_files(&mut config));
    }
    let (origins, replaced) = (reader.origins(), reader.replaced());
    let mut findings = reader.findings.finish();
    findings.extend(odd);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused { findings });
    }
    let mut files = sources.iter().map(|source| source.path.clone());
    let (from, drop_ins) = (files.next(), files.collect());
    Ok(Loaded { config, ignored, warnings: findings, from, drop_ins, replaced, origins })
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

/// Reads the files of `allow`, each of which must exist: what is not on the list may be blocked.
fn read_allow_files(config: &mut Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for allowed in &mut config.allow {
        let Allowance::File { path, networks } = &mut allowed.what else { continue };
        let remedy = "make the file, or take it from `allow`";
        let found = read_trusted(path, "the allow file", remedy)
            .map_err(|faults| Refused::of_faults(path, faults))
            .and_then(|bytes| Ok(allow::parse_file(text_of(&bytes, path)?, path)));
        match found {
            Ok((found, odd)) => {
                *networks = found;
                findings.extend(odd);
            }
            Err(refused) => findings.extend(refused.findings),
        }
    }
    findings
}

/// Reads the drop-ins of the configuration file at `path`, and notes files that are none though
/// their names look so.
fn read_drop_ins(path: &Path) -> Result<(Vec<Source>, Vec<Finding>), Refused> {
    let directory = path.parent().unwrap_or(Path::new("")).join(DROP_INS);
    let refused = |message: String, remedy: &str| {
        Refused::of_faults(&directory, vec![(message, remedy.to_owned())])
    };
    let cannot = |error: io::Error| {
        let remedy = "make it a directory that can be read, or remove it";
        refused(format!("cannot read the drop-ins: {error}"), remedy)
    };
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        entries => entries.map_err(cannot)?,
    };
    let (mut paths, mut odd) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        match path.extension().map(OsStr::as_bytes) {
            _ if is_hidden => {}
            Some(b"yaml") => paths.push(path),
            Some(b"yml") => {
                let message = "this file is not read: names of drop-ins end in .yaml";
                let finding = Finding::new(Severity::Warning, &path, None, message, "rename it");
                odd.push(finding);
            }
            _ => {}
        }
        if paths.len() > DROP_INS_MAX {
            return Err(refused(
                format!("there are more than {DROP_INS_MAX} drop-ins"),
                "is this the right directory?",
            ));
        }
    }
    paths.sort();
    odd.sort_by(|a, b| a.file.cmp(&b.file));
    let mut drop_ins = Vec::new();
    let mut findings = Vec::new();
    for path in paths {
        match read_trusted(
            &path,
            "the drop-in",
            "remove it, or let it name a file that can be read",
        ) {
            Ok(bytes) => drop_ins.push(Source { path, bytes }),
            Err(faults) => findings.extend(Refused::of_faults(&path, faults).findings),
        }
    }
    if findings.is_empty() { Ok((drop_ins, odd)) } else { Err(Refused { findings }) }
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
