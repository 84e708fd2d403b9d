//! The rights of this process, before it has a second thread: the user that it becomes, the files
//! that this user must own, and what it gives up.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::config::{Config, PortMode};
use crate::helper::process::RESPONSES;
use crate::sys::users::{self, DAEMON as USER, User};
use crate::sys::{confine, files, peer};

/// The state directory's mode, as the store makes it.
const STATE_MODE: u32 = 0o750;
/// The control socket's directory may be entered by all users.
const RUN_MODE: u32 = 0o755;

/// Gives up what the daemon does not need. Root becomes the user `portsentry`, if there is one.
/// Returns what the administrator should know.
///
/// # Errors
/// What could not be given up or prepared.
pub(super) fn confine(config: &Config) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let user = if files::is_root() { users::find(USER) } else { None };
    if let Some(user) = user {
        prepare(config, user)?;
    } else if files::is_root() {
        notes.push(format!(
            "there is no user {USER}: the daemon stays root, with CAP_NET_ADMIN as its only capability; useradd --system {USER} gives it a user"
        ));
    }
    let group = Some(&config.control.group).filter(|name| !name.is_empty());
    // If there is no such group, the control socket reports it.
    let group = group.and_then(|name| peer::group_id(name).ok().flatten());
    let binds = [config.tcp.mode, config.udp.mode].contains(&PortMode::Connect);
    confine::process(user, &Vec::from_iter(group), binds).map_err(|error| error.to_string())?;
    if config.respond.hosts_deny.enabled && !files::is_root() && !Path::new(RESPONSES).exists() {
        notes.push(format!(
            "{} is not written (respond.hosts_deny): it is root's, and responses run as the user {}; to have them run as root: systemctl enable --now portsentry-responses.socket",
            config.respond.hosts_deny.path.display(),
            users::name(files::user()).unwrap_or_else(|| files::user().to_string()),
        ));
    }
    Ok(notes)
}

/// Makes the daemon's directories the user's. Files that a daemon of root left in the state directory
/// become the user's too: no other program writes there.
fn prepare(config: &Config, user: User) -> Result<(), String> {
    let state = &config.state_dir;
    let failed = |path: &Path, error: io::Error| {
        format!("cannot give {} to the user {USER}: {error}", path.display())
    };
    own(state, STATE_MODE, user).map_err(|error| failed(state, error))?;
    let entries = std::fs::read_dir(state).map_err(|error| failed(state, error))?;
    for entry in entries.flatten() {
        let is_roots = |found: &Metadata| found.is_file() && found.uid() == 0 && found.nlink() == 1;
        if entry.metadata().is_ok_and(|found| is_roots(&found)) {
            give(&entry.path(), user).map_err(|error| failed(&entry.path(), error))?;
        }
    }
    if let Some(directory) = config.control.socket.parent()
        // A directory of other programs, as /run is, stays root's: the socket is bound in it, and a
        // later start removes it.
        && (!directory.exists() || directory.file_name().is_some_and(|name| name == USER))
    {
        own(directory, RUN_MODE, user).map_err(|error| failed(directory, error))?;
    }
    Ok(())
}

fn own(directory: &Path, mode: u32, user: User) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    if std::fs::metadata(directory)?.uid() == 0 {
        std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// A link is given itself, not what it leads to.
fn give(path: &Path, user: User) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
}
