//! What rusqlite does not offer of SQLite: the system's error behind one of SQLite's
//! (sqlite.org/c3ref/system_errno.html), and the size of its small buffers.
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

/// Leaves out the buffers for small allocations (sqlite.org/malloc.html#lookaside), more than 100 KiB
/// of each connection: what the daemon does waits for the disk anyway. For a connection on which
/// nothing was done yet.
pub(crate) fn without_lookaside(connection: &Connection) {
    let none = std::ptr::null_mut::<std::ffi::c_void>();
    // SAFETY: the handle is valid as long as `connection` lives, and these are the arguments of that
    // option. If buffers are in use it changes nothing.
    unsafe {
        ffi::sqlite3_db_config(connection.handle(), ffi::SQLITE_DBCONFIG_LOOKASIDE, none, 0, 0);
    }
}
