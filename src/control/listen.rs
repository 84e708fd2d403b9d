//! Binds the control socket: path, mode, group, and the check that no other daemon uses it.

use std::fmt;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::capture::only_one;
use crate::sys::peer;

/// How long to wait for another daemon that is binding its socket at the same time.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// A bound socket; dropping it removes the file.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: UnixListener,
    pub(super) group: Option<u32>,
    path: PathBuf,
    /// Device and inode, so that another program's socket is not removed.
    identity: (u64, u64),
}

/// Why the control socket cannot be bound.
#[derive(Debug)]
pub enum ListenError {
    /// There is no such group.
    NoGroup(String),
    /// Another daemon listens there: its process, if that is known.
    Running(PathBuf, Option<u32>),
    /// The path is not a socket.
    InTheWay(PathBuf),
    /// An operation failed.
    Failed {
        /// The operation.
        verb: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroup(name) => write!(
                f,
                "control.group: there is no group {name:?}: create it with groupadd(8), or set it to \"\""
            ),
            Self::Running(path, pid) => write!(
                f,
                "another portsentry is running: it answers at {}; {}",
                path.display(),
                only_one(*pid)
            ),
            Self::InTheWay(path) => write!(
                f,
                "{} is no socket: remove it, or give control.socket another path",
                path.display()
            ),
            Self::Failed { verb, path, .. } => write!(f, "cannot {verb} {}", path.display()),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::NoGroup(_) | Self::Running(..) | Self::InTheWay(_) => None,
        }
    }
}

/// Binds the control socket at `path`, mode 0600, or 0660 and owned by `group` if that is not
/// empty. Creates a missing directory with mode 0755. Removes a socket of a killed daemon, on which
/// no process listens.
///
/// # Errors
/// No such group, another daemon, something else at that path, or a system error.
pub fn listen(path: &Path, group: &str) -> Result<Listener, ListenError> {
    let group = match group {
        "" => None,
        name => Some(
            peer::group_id(name)
                .map_err(fail("look up the group of", path))?
                .ok_or_else(|| ListenError::NoGroup(name.to_owned()))?,
        ),
    };
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(fail("create the directory", directory))?;
    // Two daemons that start at once must not mistake each other's new socket for a stale one.
    let _lock = lock(directory).map_err(fail("lock the directory", directory))?;
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .map_err(fail("bind the control socket", path))?;
    let metadata =
        std::fs::symlink_metadata(path).map_err(fail("examine the control socket", path))?;
    // From here on, dropping `listener` removes the socket on an error.
    let listener = Listener {
        socket,
        group,
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(fail("change the group of", path))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(fail("change the mode of", path))?;
    listener.socket.set_nonblocking(true).map_err(fail("set up the control socket", path))?;
    Ok(listener)
}

fn fail(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    let path = path.to_owned();
    move |error| ListenError::Failed { verb, path, error }
}

fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10))
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let there = std::fs::symlink_metadata(path).map_err(fail("examine", path))?;
    if !there.file_type().is_socket() {
        return Err(ListenError::InTheWay(path.to_owned()));
    }
    let connected = peer::connect_now(path);
    match &connected {
        // No process listens on it: ECONNREFUSED, unix(7).
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            return Err(fail("find out who listens at", path)(io::Error::from(error.kind())));
        }
        // Connected, or the listener's queue is full.
        _ => {
            let pid = connected.ok().and_then(|stream| peer::peer(stream.as_fd()).ok()?.pid);
            return Err(ListenError::Running(path.to_owned(), pid));
        }
    }
    std::fs::remove_file(path).map_err(fail("remove the old socket", path))
}

impl Drop for Listener {
    fn drop(&mut self) {
        let same = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == self.identity);
        if same {
            // If it stays, the next daemon finds that no process listens on it, and removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
