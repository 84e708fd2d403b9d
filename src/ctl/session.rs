//! The SSH session that a command is typed in: to block its other end would cut it off.

use std::fs;
use std::net::IpAddr;

/// Processes looked at upwards: more than su(1), sudo(8) and shells in shells.
const ANCESTORS_MAX: usize = 64;

/// The other end of the SSH session of this process, or of one that started it: sudo(8) removes the
/// variable. `None`: there is none, or it cannot be seen.
pub(super) fn peer() -> Option<IpAddr> {
    if let Ok(value) = std::env::var("SSH_CONNECTION") {
        return peer_of(&value);
    }
    let mut pid = parent("self")?;
    for _ in 0..ANCESTORS_MAX {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let found = environment
            .split(|byte| *byte == 0)
            .find_map(|pair| pair.strip_prefix(b"SSH_CONNECTION="));
        if let Some(value) = found {
            return peer_of(&String::from_utf8_lossy(value));
        }
        pid = parent(&pid.to_string()).filter(|parent| *parent > 0)?;
    }
    None
}

/// The first address of SSH_CONNECTION (ssh(1), ENVIRONMENT).
fn peer_of(value: &str) -> Option<IpAddr> {
    let address: IpAddr = value.split_whitespace().next()?.parse().ok()?;
    Some(address.to_canonical())
}

/// proc_pid_stat(5): the name, which may have any characters, is in parentheses; then the state and
/// the parent.
fn parent(process: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_of_the_session_is_the_first_address() {
        assert_eq!(peer_of("192.0.2.7 51234 192.0.2.1 22"), "192.0.2.7".parse().ok());
        assert_eq!(peer_of("::ffff:192.0.2.7 51234 ::1 22"), "192.0.2.7".parse().ok());
        assert_eq!(peer_of("nonsense"), None);
        assert_eq!(parent("self"), Some(std::os::unix::process::parent_id()));
    }
}
