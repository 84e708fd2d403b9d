//! Unix sockets: the peer's credentials (unix(7), SO_PEERCRED and SO_PEERGROUPS), group names
//! (getgrnam(3)), and non-blocking connect.
#![expect(unsafe_code, reason = "system calls live here")]

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::socket::get_option;

/// Initial buffer for a process's groups; the kernel returns the number if there are more.
const GROUPS: usize = 64;

/// NGROUPS_MAX of linux/limits.h: no process has more.
const GROUPS_MAX: usize = 65536;

/// Longest group entry that is read, in bytes: some thousand members.
const ENTRY_MAX: usize = 1 << 20;

/// The credentials of the peer when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its process; `None`: of another pid namespace.
    pub pid: Option<u32>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Whether `gid` is its effective or a supplementary group.
    pub fn is_member(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// The credentials of the peer of a connected unix stream socket.
///
/// The kernel recorded them at connect(2); later changes of the process have no effect.
///
/// # Errors
/// The error of getsockopt(2).
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    // Not rustix's `socket_peercred`: its process id cannot be 0, and a peer of another pid
    // namespace has 0.
    // struct ucred: process id, user id, group id.
    let mut credentials = [0, u32::MAX, u32::MAX];
    get_option(socket, libc::SO_PEERCRED, &mut credentials).0?;
    let [pid, uid, gid] = credentials;
    Ok(Peer { pid: (pid != 0).then_some(pid), uid, gid, groups: groups(socket)? })
}

/// SO_PEERGROUPS (Linux 4.13): the supplementary groups of the peer.
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; GROUPS];
    loop {
        match get_option(socket, libc::SO_PEERGROUPS, &mut groups) {
            (Ok(()), count) => {
                groups.truncate(count);
                return Ok(groups);
            }
            (Err(error), needed)
                if error.raw_os_error() == Some(libc::ERANGE)
                    && needed > groups.len()
                    && needed <= GROUPS_MAX =>
            {
                groups.resize(needed, 0);
            }
            (Err(error), _) => return Err(error),
        }
    }
}

/// The id of the group `name` from the name service switch; `None` if there is no such group.
///
/// # Errors
/// The error of getgrnam_r(3), or `InvalidInput` for a name that contains a NUL.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut buffer = vec![0u8; 1024];
    loop {
        // SAFETY: `group` is plain data for which all zeroes is a value (null pointers and a zero
        // id).
        let mut group: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = std::ptr::null_mut();
        // SAFETY: every pointer is to something that lives over the call, `buffer` with its length;
        // `name` ends with NUL.
        let result = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut group,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut found,
            )
        };
        match result {
            0 if found.is_null() => return Ok(None),
            0 => return Ok(Some(group.gr_gid)),
            libc::ERANGE if buffer.len() < ENTRY_MAX => buffer.resize(buffer.len() * 4, 0),
            // According to the manual page, other systems return these for "not found".
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Non-blocking connect(2) to a unix stream socket: `WouldBlock` if the listener's queue is full.
/// The stream is non-blocking.
///
/// # Errors
/// The error of socket(2) or connect(2).
pub fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn peer_of_a_socket_pair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = peer(ours.as_fd()).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.is_member(rustix::process::getegid().as_raw()));
    }

    #[test]
    fn group_names_are_looked_up() {
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(group_id("no-such-group-at-all").unwrap(), None);
        assert!(group_id("ro\0ot").is_err());
    }
}
