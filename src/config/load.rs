//! From a path to a checked configuration.
//!
//! The file tells a program that runs as root what to do, so it is trusted only as far as nobody else can have written it ([`distrust`]): owner
//! and mode are taken from the opened descriptor (fstat(2)), so that what was judged is what is read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::diagnostic::{Finding, Findings, Place, Severity};
use super::pending::Exists;
use super::reader::Reader;
use super::trust::distrust;
use super::{Config, DEFAULT_PATH, check, schema, tree};
use crate::sys::files;

/// Bytes that are read at most. Every port by its number, in two lists, fits.
const SIZE_MAX: u64 = 1 << 20;

/// A configuration that may be put in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the administrator should know about it, by place.
    pub warnings: Vec<Finding>,
    /// The file it came from; `None`: the built-in defaults.
    pub from: Option<PathBuf>,
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
    from_bytes(&bytes, path, &|file| file.exists())
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
            let loaded = from_bytes(b"", path, &|file| file.exists())?;
            Ok(Loaded { from: None, ..loaded })
        }
        _ => load(path),
    }
}

/// The configuration in `text`; `name` is what findings call it. Reads no file.
///
/// # Errors
/// All that is wrong with the text.
pub fn parse(text: &str, name: impl AsRef<Path>) -> Result<Loaded, Refused> {
    from_bytes(text.as_bytes(), name.as_ref(), &|_| false)
}

fn from_bytes(bytes: &[u8], path: &Path, exists: Exists<'_>) -> Result<Loaded, Refused> {
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
    check::not_in_force(&config, &mut reader, exists);
    let findings = reader.findings.finish();
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused { findings });
    }
    Ok(Loaded { config, warnings: findings, from: Some(path.to_owned()) })
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
        return Err(too_large(path, bytes.len().to_string()));
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

fn too_large(path: &Path, size: impl fmt::Display) -> Refused {
    Refused::whole(path, format!("the file has {size} bytes"), format!("a configuration has at most {SIZE_MAX}: is this the right file?"))
}

fn read(path: &Path) -> Result<Vec<u8>, Refused> {
    let cannot = |error: &io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "name a file that exists; without --config the built-in defaults run",
            io::ErrorKind::PermissionDenied => "run as root, or give yourself the right to read it",
            _ => "name a file that can be read",
        };
        Refused::whole(path, format!("cannot read the configuration: {error}"), remedy)
    };
    let mut file = files::open(path).map_err(|error| cannot(&error))?;
    let facts = files::facts(&file).map_err(|error| cannot(&error))?;
    if !facts.regular {
        return Err(Refused::whole(path, "the configuration is not a regular file", "name a file, not a directory, pipe or device"));
    }
    let faults = distrust(path, &facts);
    if !faults.is_empty() {
        let findings = faults.into_iter().map(|(message, remedy)| Finding::whole(Severity::Error, path, message, remedy)).collect();
        return Err(Refused { findings });
    }
    if facts.size > SIZE_MAX {
        return Err(too_large(path, facts.size));
    }
    // One byte more than allowed: the file may have grown since.
    files::read_up_to(&mut file, SIZE_MAX + 1).map_err(|error| cannot(&error))
}
