//! Opening files that others may have prepared, and who can write them (open(2), fstat(2)).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Who owns a file, and who may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It is a regular file.
    pub regular: bool,
    /// The user who owns it.
    pub uid: u32,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

impl Facts {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { regular: metadata.is_file(), uid: metadata.uid(), mode: metadata.mode() & 0o7777, size: metadata.len() }
    }
}

/// Opens `path` for reading without waiting for anything: a pipe that nobody writes, a terminal.
///
/// # Errors
/// What open(2) says.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC).open(path)
}

/// Facts about an open file.
///
/// # Errors
/// What fstat(2) says.
pub fn facts(file: &File) -> io::Result<Facts> {
    Ok(Facts::of(&file.metadata()?))
}

/// Facts about a file or directory; symbolic links are followed.
///
/// # Errors
/// What stat(2) says.
pub fn facts_at(path: &Path) -> io::Result<Facts> {
    Ok(Facts::of(&std::fs::metadata(path)?))
}

/// Who owns the symbolic link at `path`; `None` if it is none (lstat(2)).
pub fn link_owner(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_symlink).map(|metadata| metadata.uid())
}

/// The content, but never more than `limit` bytes of it.
///
/// # Errors
/// What read(2) says.
pub fn read_up_to(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether this process has root's rights over files (geteuid(2)).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
