//! Where the program that speaks HTTP is.
//!
//! It is a file of its own because each process keeps in memory some of what its program contains:
//! what was relocated at its start, and the pages beside those that it uses. The two processes that
//! always run need no TLS.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::send::NAME;

/// Where packages have it, seen from this program's directory: /usr/libexec beside /usr/sbin. Cargo
/// builds it beside this program.
const INSTALLED: &str = "../libexec/portsentry-nft";

/// The program, opened.
pub(super) struct Program {
    path: PathBuf,
    _file: File,
}

impl Program {
    /// The program, which is opened once: what runs is of this process's version, even if an upgrade
    /// has put another one in its place before the last digest is sent. One that is missing is looked
    /// for again at the next call.
    ///
    /// # Errors
    /// Where it was looked for, why it cannot be opened, and the remedy.
    pub(super) fn get() -> Result<&'static Self, String> {
        static OPENED: OnceLock<Program> = OnceLock::new();
        if let Some(opened) = OPENED.get() {
            return Ok(opened);
        }
        let own =
            std::env::current_exe().map_err(|error| format!("cannot find {NAME}: {error}"))?;
        let program = Self::find(own.parent().unwrap_or(Path::new("/")))?;
        Ok(OPENED.get_or_init(|| program))
    }

    /// The path by which to start it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn find(directory: &Path) -> Result<Self, String> {
        let beside = directory.join(NAME);
        let installed = directory.join(INSTALLED).join(NAME);
        let place = if beside.exists() { beside } else { installed };
        // It need not be readable.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&place);
        let file = opened.map_err(|error| {
            format!(
                "{} cannot be started: {error}; install the package again, or put the program there",
                place.display()
            )
        })?;
        Ok(Self { path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(), _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_found_where_cargo_and_packages_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("sbin");
        let libexec = directory.path().join("libexec/portsentry-nft");
        std::fs::create_dir_all(&bin).unwrap();
        let missing = Program::find(&bin).err().unwrap();
        assert!(missing.contains("libexec/portsentry-nft/portsentry-notify cannot be started"));
        assert!(missing.contains("install the package again"), "{missing}");
        for place in [libexec, bin.clone()] {
            std::fs::create_dir_all(&place).unwrap();
            let file = place.join(NAME);
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o711)).unwrap();
            let found = Program::find(&bin).unwrap();
            assert_eq!(std::fs::canonicalize(found.path()).unwrap(), file.canonicalize().unwrap());
            // It stays the one that was opened.
            std::fs::remove_file(&file).unwrap();
            assert!(found.path().metadata().is_ok());
        }
    }
}
