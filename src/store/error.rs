//! Why the store cannot be had or written, in words and by kind.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store cannot be had or written.
#[derive(Debug)]
pub enum Error {
    /// SQLite's words.
    Sqlite {
        /// What was tried.
        verb: &'static str,
        /// The database.
        path: PathBuf,
        /// Its words.
        source: rusqlite::Error,
    },
    /// The system's words about the file.
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// What stands there is not what we left: a link, a directory, somebody else's file.
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another process has it.
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A newer daemon has written it.
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// The database makes no sense.
    Damaged {
        /// The database.
        path: PathBuf,
    },
}

impl Error {
    pub(super) fn sqlite(verb: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            _ => Self::Sqlite { verb, path, source },
        }
    }

    pub(super) fn file(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { verb, path: path.to_owned(), source }
    }

    /// The content is at fault, not the disk or the system: another try will not help, another file will.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged))
                    || is_schema(source)
            }
            _ => false,
        }
    }

    /// It belongs to another program or to a newer version: it must not be written, now or later.
    pub fn is_others(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::NotOurs { .. })
    }
}

/// A table or a column is missing (SQLITE_ERROR when a statement is prepared): the tables are not what their version says.
fn is_schema(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == rusqlite::ffi::SQLITE_ERROR)
        || matches!(error, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::Utf8Error(..))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { verb, path, .. } | Self::File { verb, path, .. } => write!(f, "cannot {verb} {}", path.display()),
            Self::NotOurs { path, what } => write!(f, "cannot use {}: it is {what}", path.display()),
            Self::InUse { path } => write!(f, "cannot use {}: another process has it open", path.display()),
            Self::Newer { path, version } => write!(f, "cannot use {}: its version is {version}, a newer portsentry has written it", path.display()),
            Self::Damaged { path } => write!(f, "cannot use {}: rows in it are damaged", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::NotOurs { .. } | Self::InUse { .. } | Self::Newer { .. } | Self::Damaged { .. } => None,
        }
    }
}
