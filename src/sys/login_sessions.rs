//! The addresses that have a login session, as systemd-logind or elogind records them. Missing
//! records are no error: a host may have no login manager.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::files;

/// A file for each session, readable by all users. sd_session_get_remote_host(3) reads the same
/// files. pam_systemd(8) has them made when sshd opens the session, which is after the login.
pub(crate) const DIRECTORY: &str = "/run/systemd/sessions";

/// Files read of the directory: as many as logind allows sessions (logind.conf(5), SessionsMax).
const FILES_MAX: usize = 8192;

/// Bytes read of a file. A real one has a few hundred.
const SIZE_MAX: u64 = 4096;

/// The addresses that have a session; IPv4-mapped addresses as IPv4.
///
/// # Errors
/// The directory exists and cannot be read.
pub(crate) fn remote_hosts(directory: &Path) -> io::Result<BTreeSet<IpAddr>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    // A session may end between the listing and the reading. Its named pipe, `NAME.ref`, is logind's
    // alone.
    let texts = entries.take(FILES_MAX).flatten().filter_map(|entry| {
        entry.file_type().ok()?.is_file().then_some(())?;
        let mut file = files::open(&entry.path()).ok()?;
        Some(String::from_utf8_lossy(&files::read_up_to(&mut file, SIZE_MAX).ok()?).into_owned())
    });
    Ok(texts.filter_map(|text| remote_host(&text)).collect())
}

/// The remote address of a session that has not ended. A host name (sshd_config(5), UseDNS) is no
/// address.
fn remote_host(text: &str) -> Option<IpAddr> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    };
    // The user has logged out, and processes are left.
    if value("STATE") == Some("closing") {
        return None;
    }
    // systemd quotes values as a shell does, if they need it.
    let host = value("REMOTE_HOST")?.trim_matches('"');
    let address = host.split_once('%').map_or(host, |(address, _scope)| address);
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_are_open_name_their_remote_host() {
        let directory = tempfile::tempdir().unwrap();
        let session = |state: &str, host: &str| {
            format!(
                "# This is private data. Do not parse.\nUID=0\nSTATE={state}\nREMOTE=1\nREMOTE_HOST={host}\nSERVICE=sshd\n"
            )
        };
        for (name, text) in [
            ("1", session("active", "192.0.2.1")),
            ("2", session("online", "fe80::1%eth0")),
            ("3", session("active", "\"::ffff:192.0.2.2\"")),
            ("4", session("closing", "192.0.2.3")),
            ("5", session("active", "host.example")),
            ("6", "UID=0\nSTATE=active\nREMOTE=0\n".to_owned()),
            ("7", "\u{0}=\n==\nREMOTE_HOST\n".to_owned()),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        std::fs::create_dir(directory.path().join("8")).unwrap();
        let found = remote_hosts(directory.path()).unwrap();
        let wanted = ["192.0.2.1", "192.0.2.2", "fe80::1"].map(|text| text.parse().unwrap());
        assert_eq!(found, BTreeSet::from(wanted));
    }

    #[test]
    fn host_without_a_login_manager_has_no_sessions() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(remote_hosts(&directory.path().join("missing")).unwrap(), BTreeSet::new());
    }
}
