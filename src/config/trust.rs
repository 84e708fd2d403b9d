//! Whom a file can be trusted for: who may write it, and who may put another in its place.

use std::path::{Path, PathBuf};

use super::diagnostic::escaped;
use crate::sys::files::{self, Facts};

/// What is wrong, and the remedy.
pub type Fault = (String, String);

/// Why the file at `path`, with these facts, could be changed by others than root; each with its remedy. Nothing when this process is not root's.
///
/// The directories that lead to it last are judged as well, since whoever may write in them may put another file in its place.
pub fn distrust(path: &Path, facts: &Facts) -> Vec<Fault> {
    if !files::is_root() {
        return Vec::new();
    }
    let name = escaped(&path.to_string_lossy());
    let mut faults = Vec::new();
    judge(facts, "file", &name, &mut faults);
    // The owner of a link can let it lead elsewhere, even in a directory with the sticky bit.
    if let Some(uid) = files::link_owner(path).filter(|uid| *uid != 0) {
        let message = format!("the link {name} belongs to user {uid}, who could change what root does");
        faults.push((message, format!("chown -h root: {}", quoted(&name))));
    }
    for directory in directories(path) {
        match files::facts_at(&directory) {
            Ok(facts) => judge(&facts, "directory", &escaped(&directory.to_string_lossy()), &mut faults),
            Err(error) => faults.push((format!("cannot judge its directory: {error}"), String::new())),
        }
    }
    faults
}

/// The directory that holds the name, and the one that holds the file, if the name is a symbolic link to elsewhere.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let named = parent(path);
    // A file that cannot be resolved now was replaced since it was opened; the directory of its name tells by whom it can be.
    let real = std::fs::canonicalize(path).ok().map(|real| parent(&real));
    match (std::fs::canonicalize(&named).ok(), real) {
        (named_real, Some(real)) if named_real.as_ref() != Some(&real) => vec![named, real],
        _ => vec![named],
    }
}

/// Notes who else may write it.
fn judge(facts: &Facts, what: &str, name: &str, faults: &mut Vec<Fault>) {
    let quoted = quoted(name);
    if facts.uid != 0 {
        faults.push((format!("the {what} {name} belongs to user {}, who could change what root does", facts.uid), format!("chown root: {quoted}")));
    }
    // In a directory with the sticky bit nobody can replace a file of root's (unlink(2), rename(2)), whoever may write there.
    if facts.mode & 0o022 != 0 && !(what == "directory" && facts.mode & 0o1000 != 0) {
        let who = match facts.mode & 0o022 {
            0o020 => "its group",
            0o002 => "everybody",
            _ => "its group and everybody",
        };
        let message = format!("the {what} {name} is writable by {who} (mode {:04o})", facts.mode & 0o7777);
        faults.push((message, format!("chmod go-w {quoted}")));
    }
}

/// A name for the shell.
fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "'\\''"))
}
