//! Checks whether users other than root can change or replace a file.

use std::path::{Path, PathBuf};

use super::diagnostic::escaped;
use crate::sys::files::{self, Facts};
use crate::sys::users;

/// Fault and remedy.
pub type Fault = (String, String);

/// Reasons why users other than root could change the file at `path` with these facts, with
/// remedies. Empty if this process does not run as root.
///
/// The directories of the file and of its name are checked too, since the file can be replaced in
/// them.
pub fn distrust(path: &Path, facts: &Facts) -> Vec<Fault> {
    if !files::is_root() {
        return Vec::new();
    }
    let name = escaped(&path.to_string_lossy());
    let mut faults = Vec::new();
    check(facts, "file", &name, &mut faults);
    check_place(path, &name, &mut faults);
    faults
}

/// Reasons why users other than root and the daemon's could change what the state directory at `path`
/// holds, with remedies. Its sticky bit does not help: they could make a file or link there before
/// the daemon does. Empty if this process does not run as root.
pub fn distrust_directory(path: &Path, facts: &Facts) -> Vec<Fault> {
    let mut faults = Vec::new();
    if files::is_root() {
        let name = escaped(&path.to_string_lossy());
        // A daemon that root starts becomes this user before it uses the directory.
        let is_daemons = users::find(users::DAEMON).is_some_and(|user| user.uid == facts.uid);
        let facts = if is_daemons { &Facts { uid: 0, ..*facts } } else { facts };
        check(facts, "state directory", &name, &mut faults);
        check_place(path, &name, &mut faults);
    }
    faults
}

/// Reasons why users other than root could replace what is at `path`, with remedies. Empty if this
/// process does not run as root.
pub fn distrust_place(path: &Path) -> Vec<Fault> {
    let mut faults = Vec::new();
    if files::is_root() {
        check_place(path, &escaped(&path.to_string_lossy()), &mut faults);
    }
    faults
}

/// Notes others who could replace what is at `path`: the owner of a link, and those who can write
/// the directories.
fn check_place(path: &Path, name: &str, faults: &mut Vec<Fault>) {
    // The owner of a link can change its target, even in a directory with the sticky bit.
    if let Some(uid) = files::link_owner(path).filter(|uid| *uid != 0) {
        let message =
            format!("the link {name} belongs to user {uid}, who could change what root does");
        faults.push((message, format!("chown -h root: {}", quoted(name))));
    }
    for directory in directories(path) {
        match files::facts_at(&directory) {
            Ok(facts) => check(&facts, "directory", &escaped(&directory.to_string_lossy()), faults),
            Err(error) => {
                faults.push((format!("cannot judge its directory: {error}"), String::new()))
            }
        }
    }
}

/// The directory of the name, and that of the file if the name is a symbolic link.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let named = parent(path);
    // A file that cannot be resolved was replaced since it was opened; the directory of its name
    // shows who can do that.
    let real = std::fs::canonicalize(path).ok().map(|real| parent(&real));
    match (std::fs::canonicalize(&named).ok(), real) {
        (named_real, Some(real)) if named_real.as_ref() != Some(&real) => vec![named, real],
        _ => vec![named],
    }
}

/// Notes other users who may write it.
fn check(facts: &Facts, what: &str, name: &str, faults: &mut Vec<Fault>) {
    let quoted = quoted(name);
    if facts.uid != 0 {
        faults.push((
            format!(
                "the {what} {name} belongs to user {}, who could change what root does",
                facts.uid
            ),
            format!("chown root: {quoted}"),
        ));
    }
    // In a directory with the sticky bit only root can replace root's files (unlink(2), rename(2)).
    if facts.mode & 0o022 != 0 && !(what == "directory" && facts.mode & 0o1000 != 0) {
        let who = match facts.mode & 0o022 {
            0o020 => "its group",
            0o002 => "everybody",
            _ => "its group and everybody",
        };
        let message =
            format!("the {what} {name} is writable by {who} (mode {:04o})", facts.mode & 0o7777);
        faults.push((message, format!("chmod go-w {quoted}")));
    }
}

/// A name quoted for the shell.
pub(super) fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "'\\''"))
}
