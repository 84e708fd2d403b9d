//! Errors of the store, by kind.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store cannot be opened or written.
#[derive(Debug)]
pub enum Error {
    /// SQLite failed.
    Sqlite {
        /// The operation.
        verb: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A file operation failed.
    File {
        /// The operation.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not ours: a link, a directory, or a file of another user.
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its kind.
        what: &'static str,
    },
    /// Another process has the database open.
    InUse(PathBuf),
    /// A newer daemon has written the database.
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// The content of the database is invalid.
    Damaged(PathBuf),
}

impl Error {
    pub(super) fn sqlite(verb: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(path),
            _ => Self::Sqlite { verb, path, source },
        }
    }

    pub(super) fn file(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { verb, path: path.to_owned(), source }
    }

    /// The content is damaged, not the disk or the system: a retry will not help, another file
    /// will.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Sqlite { source, .. } => is_damage(source),
            _ => false,
        }
    }

    /// The file belongs to another process, another program or a newer version: it must not be
    /// written, and a retry will not help.
    pub fn is_others(&self) -> bool {
        matches!(self, Self::InUse(_) | Self::Newer { .. } | Self::NotOurs { .. })
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
        match self {
            Self::Sqlite { verb, path, .. } | Self::File { verb, path, .. } => {
                write!(f, "cannot {verb} {}", path.display())
            }
            Self::NotOurs { path, what } => {
                write!(f, "cannot use {}: it is {what}", path.display())
            }
            Self::InUse(path) => {
                write!(f, "cannot use {}: another process has it open", path.display())
            }
            Self::Newer { path, version } => write!(
                f,
                "cannot use {}: its version is {version}, a newer portsentry has written it",
                path.display()
            ),
            Self::Damaged(path) => {
                write!(f, "cannot use {}: rows in it are damaged", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}
