//! Errors of the store, by kind.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::sys::files;

/// Why the store cannot be opened or written.
#[derive(Debug)]
pub struct Error {
    /// The database, or another file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file of the store.
#[derive(Debug)]
pub enum Fault {
    /// SQLite failed in an operation, with its error.
    Sqlite(&'static str, rusqlite::Error),
    /// The system failed in an operation, with its error.
    File(&'static str, io::Error),
    /// The state directory cannot be made.
    NoDirectory(io::Error),
    /// The file is not ours, but of this kind: a link, a directory, or a file of another user.
    NotOurs(&'static str),
    /// Users other than root can write the directory: why, and the remedy.
    Distrusted(String, String),
    /// Another program deleted or replaced the database while it was open.
    Gone,
    /// Another process has the database open.
    InUse,
    /// This daemon has closed it, and will open it again if it goes on.
    Closed,
    /// A newer daemon has written the database, in this version.
    Newer(i32),
    /// The content of the database is invalid.
    Damaged,
    /// The list of all blocks could not be had to its end.
    Unlisted,
}

impl Fault {
    pub(super) fn of(self, path: &Path) -> Error {
        Error { path: path.to_owned(), fault: self }
    }
}

impl Error {
    pub(super) fn sqlite(verb: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let fault = match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Fault::InUse,
            _ => Fault::Sqlite(verb, source),
        };
        fault.of(path)
    }

    pub(super) fn file(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Fault::File(verb, source).of(path)
    }

    /// The content is damaged, not the disk or the system: a retry will not help, another file
    /// will.
    pub fn is_damage(&self) -> bool {
        match &self.fault {
            Fault::Damaged => true,
            Fault::Sqlite(_, source) => is_damage(source),
            _ => false,
        }
    }

    /// The disk or the system fails, and not the configuration: a retry may succeed.
    pub fn is_of_disk(&self) -> bool {
        matches!(&self.fault, Fault::File(_, source) | Fault::NoDirectory(source) if files::is_disk_fault(source))
    }

    /// Another program deleted or replaced the database: a new one will help.
    pub fn is_gone(&self) -> bool {
        matches!(self.fault, Fault::Gone)
    }

    /// Nothing is wrong with the database: the blocks to write were not all there.
    pub fn is_unlisted(&self) -> bool {
        matches!(self.fault, Fault::Unlisted)
    }

    /// The file belongs to another process, another program or a newer version: it must not be
    /// written, and a retry will not help.
    pub fn is_others(&self) -> bool {
        matches!(self.fault, Fault::InUse | Fault::Newer(_) | Fault::NotOurs(_))
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        InvalidColumnType, QueryReturnedNoRows, SqlInputError, SqliteFailure, Utf8Error,
    };
    match error {
        // A table or column is missing (SQLITE_ERROR on preparing a statement): the tables do not
        // match their version.
        SqlInputError { .. } | InvalidColumnType(..) | QueryReturnedNoRows | Utf8Error(..) => true,
        SqliteFailure(failure, _) => {
            failure.extended_code == rusqlite::ffi::SQLITE_ERROR
                || matches!(
                    failure.code,
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged
                )
        }
        _ => false,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Sqlite(verb, _) | Fault::File(verb, _) => write!(f, "cannot {verb} {path}"),
            Fault::NoDirectory(_) => write!(f, "cannot make the state directory {path}"),
            Fault::NotOurs(what) => write!(f, "cannot use {path}: it is {what}"),
            Fault::Distrusted(why, remedy) => write!(f, "cannot use {path}: {why} ({remedy})"),
            Fault::Gone => {
                write!(f, "another program has deleted or replaced {path} while it was in use")
            }
            Fault::InUse => write!(f, "cannot use {path}: another process has it open"),
            Fault::Closed => write!(f, "{path} is closed"),
            Fault::Newer(version) => write!(
                f,
                "cannot use {path}: its version is {version}, a newer portsentry has written it"
            ),
            Fault::Damaged => write!(f, "cannot use {path}: rows in it are damaged"),
            Fault::Unlisted => write!(f, "the blocks for {path} are not all known"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Sqlite(_, source) => Some(source),
            Fault::File(_, source) | Fault::NoDirectory(source) => Some(source),
            _ => None,
        }
    }
}
