//! Opens files that other users may control, and reports owner and mode (open(2), fstat(2)).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;

/// Type, owner, mode and size of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Whether it is a regular file.
    pub regular: bool,
    /// The owner's user id.
    pub uid: u32,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Number of names (hard links).
    pub names: u64,
}

impl Facts {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            regular: metadata.is_file(),
            uid: metadata.uid(),
            mode: metadata.mode() & 0o7777,
            size: metadata.len(),
            names: metadata.nlink(),
        }
    }
}

/// Opens `path` for reading without blocking on a pipe without a writer or a terminal.
///
/// # Errors
/// The error of open(2).
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
}

/// Opens `path` as [`open`] does, and does not follow a symbolic link (O_NOFOLLOW).
///
/// # Errors
/// The error of open(2), or that it is a link.
pub(crate) fn open_itself(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => io::Error::other("it is a symbolic link, which is not followed"),
            _ => error,
        })
}

/// Opens a file to append to it, or creates it with `mode`; `follow`: a symbolic link is followed.
///
/// # Errors
/// The error of open(2); ELOOP if it is a link that is not followed.
pub(crate) fn append(path: &Path, mode: u32, follow: bool) -> io::Result<File> {
    let follow = if follow { 0 } else { libc::O_NOFOLLOW };
    // O_NONBLOCK: a FIFO at this path must not block the thread; for a file it has no effect.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC | follow)
        .open(path)
}

/// Whether an error is the disk's or the system's, and not of a path or its permissions: the same
/// call may succeed later, without a change by the administrator.
pub(crate) fn is_disk_fault(error: &io::Error) -> bool {
    const DISK: [Errno; 18] = [
        Errno::ROFS,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::IO,
        Errno::UCLEAN,
        Errno::NXIO,
        Errno::NODEV,
        Errno::STALE,
        Errno::TIMEDOUT,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NOTCONN,
        Errno::NFILE,
        Errno::MFILE,
        Errno::NOMEM,
        Errno::BUSY,
        Errno::AGAIN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| DISK.contains(&errno))
}

/// Facts about an open file.
///
/// # Errors
/// The error of fstat(2).
pub(crate) fn facts(file: &File) -> io::Result<Facts> {
    Ok(Facts::of(&file.metadata()?))
}

/// Facts about a file or directory; follows symbolic links.
///
/// # Errors
/// The error of stat(2).
pub(crate) fn facts_at(path: &Path) -> io::Result<Facts> {
    Ok(Facts::of(&std::fs::metadata(path)?))
}

/// The owner of the symbolic link at `path`; `None` if it is no link (lstat(2)).
pub(crate) fn link_owner(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_symlink)
        .map(|metadata| metadata.uid())
}

/// The first `limit` bytes of the content.
///
/// # Errors
/// The error of read(2).
pub(crate) fn read_up_to(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The effective user's id (geteuid(2)).
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether the effective user is root (geteuid(2)).
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
