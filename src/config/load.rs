//! From a path to a checked configuration.
//!
//! The file tells a program that runs as root what to do, so it is trusted only as far as nobody else can have written it ([`distrust`]): owner
//! and mode are taken from the opened descriptor (fstat(2)), so that what was judged is what is read. The ignore file that it names is read with
//! it and judged alike: it says who is never blocked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::classic::ignore;
use super::diagnostic::{Finding, Findings, Place, Severity};
use super::reader::Reader;
use super::trust::{Fault, distrust};
use super::{Config, DEFAULT_PATH, check, schema, tree};
use crate::sys::files;

/// Bytes of either file that are read at most. Every port by its number, in two lists, fits, or fifty thousand addresses.
const SIZE_MAX: u64 = 1 << 20;

/// A configuration that may be put in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the ignore file names: never blocked, as what `allow` names. Empty where there is no such file.
    pub ignored: Vec<IpNet>,
    /// What the administrator should know about it, by place.
    pub warnings: Vec<Finding>,
    /// The file it came from; `None`: the built-in defaults.
    pub from: Option<PathBuf>,
}

impl Loaded {
    /// Changes what was loaded, as the command line may, and looks again for what does not fit together.
    ///
    /// # Errors
    /// What the change makes wrong. A finding has no place: no line of the file is at fault.
    pub fn changed(mut self, change: impl FnOnce(&mut Config)) -> Result<Self, Refused> {
        let before = self.config.clone();
        change(&mut self.config);
        if self.config == before {
            return Ok(self);
        }
        let path = Path::new("the command line");
        let mut reader = Reader::new(Findings::new(path, ""));
        check::check(&self.config, &mut reader);
        let findings = reader.findings.finish();
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(Refused { findings });
        }
        // What the file gave cause for already was told with its line.
        let news = findings.into_iter().filter(|finding| self.warnings.iter().all(|told| told.message != finding.message));
        self.warnings.extend(news.collect::<Vec<_>>());
        Ok(self)
    }
}

/// A configuration that is not taken: exit status 78, EX_CONFIG (sysexits.h).
///
/// `Display` prints all findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// What is wrong, by place; warnings are among it.
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
    fn whole(path: &Path, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { findings: vec![Finding::whole(Severity::Error, path, message, remedy)] }
    }
}

/// The configuration in the file at `path`, which must exist.
///
/// # Errors
/// All that is wrong with the file: it cannot be read, others can write it (when running as root), it is no YAML, keys and values are wrong.
pub fn load(path: &Path) -> Result<Loaded, Refused> {
    let bytes = read(path)?;
    from_bytes(&bytes, path, &read_ignored)
}

/// The configuration at [`DEFAULT_PATH`], or the built-in defaults if no file is there.
///
/// # Errors
/// As [`load`], for a file that is there.
pub fn load_default() -> Result<Loaded, Refused> {
    load_if_present(Path::new(DEFAULT_PATH))
}

/// The configuration in the file at `path`, or the built-in defaults if no file is there. A symbolic link that leads nowhere is a file that is
/// there: somebody meant it to lead somewhere.
///
/// # Errors
/// As [`load`], for a file that is there.
pub fn load_if_present(path: &Path) -> Result<Loaded, Refused> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let loaded = from_bytes(b"", path, &read_ignored)?;
            Ok(Loaded { from: None, ..loaded })
        }
        _ => load(path),
    }
}

/// The configuration in `text`; `name` is what findings call it. Reads no file, that of `ignore_file` neither.
///
/// # Errors
/// All that is wrong with the text.
pub fn parse(text: &str, name: impl AsRef<Path>) -> Result<Loaded, Refused> {
    from_bytes(text.as_bytes(), name.as_ref(), &|_| Ok(None))
}

/// Reads the ignore file; `None`: there is none.
type ReadIgnored<'f> = &'f dyn Fn(&Path) -> Result<Option<Vec<u8>>, Vec<Fault>>;

fn from_bytes(bytes: &[u8], path: &Path, read_ignored: ReadIgnored<'_>) -> Result<Loaded, Refused> {
    let text = text_of(bytes, path)?;
    let mut findings = Findings::new(path, text);
    let root = match tree::read(text) {
        Ok(root) => root,
        Err(error) => {
            let line = error.place.map_or("", |place| findings.line(place.line));
            findings.error(error.place, error.message, error.remedy.unwrap_or_else(|| syntax_remedy(line)));
            return Err(Refused { findings: findings.finish() });
        }
    };
    let mut reader = Reader::new(findings);
    let config = schema::read(&root, &mut reader);
    check::check(&config, &mut reader);
    check::not_in_force(&config, &mut reader);
    // The default path stands for a key that is damaged, and nobody meant that.
    let ignore_file = config.ignore_file.as_deref().filter(|_| reader.is_sound(&["ignore_file"]));
    let (ignored, odd) = ignore_file.map_or_else(Default::default, |path| ignored(path, read_ignored));
    let mut findings = reader.findings.finish();
    findings.extend(odd);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused { findings });
    }
    Ok(Loaded { config, ignored, warnings: findings, from: Some(path.to_owned()) })
}

/// The usual cause of a line that cannot be read.
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
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > SIZE_MAX {
        let (message, remedy) = too_large("the configuration", bytes.len().try_into().unwrap_or(u64::MAX));
        return Err(Refused::whole(path, message, remedy));
    }
    let at = |valid: &[u8], what: &str, remedy: &str| {
        let before = String::from_utf8_lossy(valid);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.get(line_start..).unwrap_or("");
        let count = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
        let place = Place { line: count(before.matches('\n').count()), column: count(line.chars().count()) };
        Refused { findings: vec![Finding::at(Severity::Error, path, place, line, what, remedy)] }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        at(valid, "the file is not UTF-8 from here on", "save it as UTF-8: iconv -t UTF-8")
    })?;
    if let Some((before, _)) = text.split_once('\0') {
        return Err(at(before.as_bytes(), "the file has a NUL byte", "remove it: this is not a text file, or it was damaged"));
    }
    // The mark says nothing that UTF-8 does not say, and would shift the columns of the first line.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn too_large(what: &str, size: u64) -> Fault {
    (format!("the file has {size} bytes"), format!("{what} has at most {SIZE_MAX}: is this the right file?"))
}

/// What the ignore file names, and what is wrong with it.
fn ignored(path: &Path, read: ReadIgnored<'_>) -> (Vec<IpNet>, Vec<Finding>) {
    match read(path) {
        Ok(None) => (Vec::new(), Vec::new()),
        Ok(Some(bytes)) => {
            let list = ignore::parse(&bytes, path);
            (list.entries.into_iter().map(|entry| entry.network).collect(), list.findings)
        }
        Err(faults) => (Vec::new(), of_whole(path, faults)),
    }
}

fn of_whole(path: &Path, faults: Vec<Fault>) -> Vec<Finding> {
    faults.into_iter().map(|(message, remedy)| Finding::whole(Severity::Error, path, message, remedy)).collect()
}

fn read_ignored(path: &Path) -> Result<Option<Vec<u8>>, Vec<Fault>> {
    // A symbolic link that leads nowhere is a file that is there.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => read_trusted(path, "the ignore file", "take the line ignore_file out, or let it name a file that can be read").map(Some),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    read_trusted(path, "the configuration", "name a file that exists; without --config the built-in defaults run")
        .map_err(|faults| Refused { findings: of_whole(path, faults) })
}

/// A file that nobody but root can have written.
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
        return Err(vec![(format!("{what} is not a regular file"), "name a file, not a directory, pipe or device".to_owned())]);
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
