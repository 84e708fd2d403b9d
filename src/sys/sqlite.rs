//! The system's error behind one of SQLite (sqlite.org/c3ref/system_errno.html), which rusqlite does
//! not offer.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;

use rusqlite::{Connection, ErrorCode, ffi};

/// The system's error behind `error`, which the connection has just returned; `None` if it is not
/// one of reading or writing files.
pub(crate) fn io_error(connection: &Connection, error: &rusqlite::Error) -> Option<io::Error> {
    if error.sqlite_error_code() != Some(ErrorCode::SystemIoFailure) {
        return None;
    }
    // SAFETY: the handle is valid as long as `connection` lives, and is used in this thread only.
    let number = unsafe { ffi::sqlite3_system_errno(connection.handle()) };
    (number != 0).then(|| io::Error::from_raw_os_error(number))
}
