//! Restricts what a thread reaches, with Landlock (landlock(7)): the files that it writes, programs, TCP,
//! and abstract sockets and signals of other processes.
//!
//! Everything that its user may read stays readable: the configuration may name files anywhere, and a
//! reload others than the start. A kernel with less of Landlock restricts less, one without it nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{Access as Wanted, access};

/// What a thread does besides reading. None starts a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'p> {
    /// It works with descriptors that are open.
    Nothing,
    /// It asks servers.
    Servers,
    /// It writes files in this directory.
    Directory(&'p Path),
    /// As the daemon's threads, in its state directory; it removes the control socket at the end, and
    /// opens decoys.
    Daemon {
        /// The state directory.
        state: &'p Path,
        /// The control socket.
        socket: &'p Path,
    },
    /// It writes files that the configuration names, and after a reload others: regular files, wherever
    /// its user may.
    Files,
}

/// The newest version whose restrictions are used here.
const VERSION: ABI = ABI::V6;

/// The version of Landlock that restricts threads of this process; 0: none does.
static IN_FORCE: AtomicU32 = AtomicU32::new(0);

/// The version of Landlock by which threads of this process are restricted; `None`: they are not.
pub fn in_force() -> Option<u32> {
    Some(IN_FORCE.load(Ordering::Relaxed)).filter(|version| *version > 0)
}

/// Restricts the calling thread, and threads that it starts later. Without Landlock it goes on all the same.
pub fn restrict(reach: Reach<'_>) {
    static MISSING: Once = Once::new();
    match restricted(reach) {
        Ok(LandlockStatus::Available { effective_abi, .. }) => {
            IN_FORCE.store((effective_abi as i32).unsigned_abs(), Ordering::Relaxed);
        }
        Ok(_) => MISSING.call_once(|| {
            log::debug!("this kernel has no Landlock: files are protected by their permissions");
        }),
        Err(error) => log::debug!("a thread reaches more than it needs: {error}"),
    }
}

fn restricted(reach: Reach<'_>) -> Result<LandlockStatus, RulesetError> {
    let regular =
        AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let mut handled = AccessFs::from_write(VERSION) | AccessFs::Execute;
    if reach == Reach::Files {
        handled &= !regular;
    }
    let mut ports: BitFlags<AccessNet> = AccessNet::from_all(VERSION);
    match reach {
        Reach::Servers => ports &= !AccessNet::ConnectTcp,
        Reach::Daemon { .. } => ports &= !AccessNet::BindTcp,
        _ => {}
    }
    let mut scopes = Scope::from_all(VERSION);
    // The service manager may wait at an abstract socket.
    if std::env::var_os("NOTIFY_SOCKET")
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"))
    {
        scopes &= !Scope::AbstractUnixSocket;
    }
    let mut rules =
        Ruleset::default().handle_access(handled)?.handle_access(ports)?.scope(scopes)?.create()?;
    let mut allow = |directory: &Path, rights: BitFlags<AccessFs>| match PathFd::new(directory) {
        Ok(opened) => (&mut rules).add_rule(PathBeneath::new(opened, rights)).map(drop),
        // What is not there is not written either.
        Err(_) => Ok(()),
    };
    if let Reach::Directory(state) | Reach::Daemon { state, .. } = reach {
        allow(&place_of(state), regular | AccessFs::MakeDir)?;
    }
    if let Reach::Daemon { socket, .. } = reach
        && let Some(directory) = socket.parent()
    {
        allow(directory, AccessFs::RemoveFile.into())?;
    }
    Ok(rules.restrict_self()?.landlock)
}

/// The directory whose content may be written so that `directory` may be: itself; where this user can make it
/// again if it is deleted, that in which it lies; where there is none yet, the nearest above it.
fn place_of(directory: &Path) -> PathBuf {
    let exists = |place: &&Path| {
        place.symlink_metadata().map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
    };
    // The way to it may have links.
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let nearest = directory.ancestors().find(exists).unwrap_or(&directory);
    match nearest.parent() {
        Some(above) if nearest == directory && access(above, Wanted::WRITE_OK).is_ok() => {
            above.to_owned()
        }
        _ => nearest.to_owned(),
    }
}
