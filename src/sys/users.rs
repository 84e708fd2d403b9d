//! Who a client of the control socket is, from files alone: the name service switch may ask the
//! network, and wait.

use std::path::Path;

use super::files;

/// Bytes read of passwd(5): some thousand users.
const PASSWD_MAX: u64 = 1 << 20;

/// loginuid of a process that no login started (proc_pid_loginuid(5)).
const NO_LOGIN: u32 = u32::MAX;

/// The daemon's user, which it becomes if root starts it, and which its unit has.
pub const DAEMON: &str = "portsentry";

/// A local user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// The id of its first group.
    pub gid: u32,
}

/// The local user of this name; `None`: /etc/passwd has none, or cannot be read.
pub fn find(name: &str) -> Option<User> {
    user_in(&passwd()?, name)
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

fn passwd() -> Option<String> {
    let mut file = files::open(Path::new("/etc/passwd")).ok()?;
    let text = files::read_up_to(&mut file, PASSWD_MAX).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The name of a local user; `None`: /etc/passwd has none, or cannot be read.
pub(crate) fn name(uid: u32) -> Option<String> {
    name_in(&passwd()?, uid)
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The user who logged in and whose session a process belongs to, whatever it became by su(1) or
/// sudo(8) since; `None`: no login started it, or the kernel does not say.
pub(crate) fn login(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_passwd() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n# no entry\n+nis\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(name_in(passwd, 1), None);
        assert_eq!(name(0).as_deref(), Some("root"));
    }
}
