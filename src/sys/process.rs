//! Processes that this one starts, and what they leave behind (fork(2), prctl(2), pidfd_open(2), waitid(2), proc(5)).
//!
//! Whoever calls [`adopt_orphans`] becomes the parent of every process below it whose own parent has ended: nothing that was started can get away.
#![expect(unsafe_code, reason = "system calls live here")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// How long [`end_children`] goes on. A killed process is gone within microseconds, unless it waits for a disk or a dead file server.
const END_WITHIN: Duration = Duration::from_millis(500);

/// How a group of processes is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// SIGTERM: it may put its things in order.
    Ask,
    /// SIGKILL.
    Force,
}

impl Push {
    fn signal(self) -> Signal {
        match self {
            Self::Ask => Signal::TERM,
            Self::Force => Signal::KILL,
        }
    }
}

/// From now on this process is the parent of all orphans among its descendants (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// What prctl(2) says.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Prepares a command so that all it ever starts can be found and ended.
///
/// It gets a session and group of its own, without a terminal; it adopts the orphans among its own descendants, so that these come to us when it
/// ends and not before; it is killed when the thread that started it ends; and it inherits no descriptor but 0, 1 and 2.
pub fn isolate(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        adopt_orphans()?;
        die_with_parent()?;
        keep_descriptors();
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// Prepares a command that is this program again: it inherits no descriptor but 0, 1 and 2.
pub fn inherit_nothing(command: &mut Command) {
    let prepare = || {
        keep_descriptors();
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
}

fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Descriptors from 3 on are closed by exec (close_range(2), Linux 5.11). Where that is missing, what was opened without O_CLOEXEC stays open.
fn keep_descriptors() {
    // SAFETY: no pointer is involved; nothing is closed before exec.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// A descriptor that can be read when `child` has ended (pidfd_open(2)).
///
/// # Errors
/// What pidfd_open(2) says.
pub fn end_of(child: &Child) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid(child.id())?, PidfdFlags::empty())?)
}

/// Sends a signal to the group that `child` leads. The child must not have been waited for: its number could be another's by then.
pub fn push_group(child: &Child, push: Push) {
    if let Ok(pid) = pid(child.id()) {
        // ESRCH: all of them have ended.
        let _ = rustix::process::kill_process_group(pid, push.signal());
    }
}

/// Kills every child of this process but those that `keep` names, those that come to it by that, and so on, and reaps them. `false`: some are left.
///
/// Nobody else may wait for these children at the same time.
pub fn end_children(keep: impl Fn(u32) -> bool) -> bool {
    let deadline = Instant::now() + END_WITHIN;
    loop {
        let strays: Vec<u32> = children().into_iter().filter(|child| !keep(*child)).collect();
        if strays.is_empty() {
            return true;
        }
        for stray in strays.iter().filter_map(|stray| pid(*stray).ok()) {
            // EPERM: it runs as somebody whom we may not kill; EINVAL, ESRCH: it is gone.
            let _ = rustix::process::kill_process(stray, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::Pid(stray), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The children of this process, ended ones that nobody has waited for among them, as /proc lists them.
pub fn children() -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|number| parent(&std::fs::read(format!("/proc/{number}/stat")).unwrap_or_default()) == Some(own)).collect()
}

/// The parent in a line of /proc/PID/stat. The second field is the program's name in brackets, and may hold any bytes.
fn parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name that ps(1) and top(1) show of this process: at most 15 bytes (PR_SET_NAME).
pub fn set_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Standard input, if it is a unix socket. It is another descriptor of the same socket, closed by exec.
pub fn socket_on_stdin() -> Option<std::os::unix::net::UnixStream> {
    let stdin = rustix::stdio::stdin();
    let domain = rustix::net::sockopt::socket_domain(stdin).ok()?;
    let kind = rustix::net::sockopt::socket_type(stdin).ok()?;
    if domain != rustix::net::AddressFamily::UNIX || kind != rustix::net::SocketType::STREAM {
        return None;
    }
    Some(stdin.try_clone_to_owned().ok()?.into())
}

/// Makes a pipe's end not wait (O_NONBLOCK).
///
/// # Errors
/// What ioctl(2) says.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

fn pid(number: u32) -> io::Result<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything_and_its_parent_is_still_found() {
        assert_eq!(parent(b"12 (sh) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent(b"12 (a) S 1 (\xff) b) Z 9 12 12"), Some(9));
        for broken in [&b""[..], b"12", b"12 (sh)", b"12 (sh) S", b"12 (sh) S x", b"12 (sh) S \xff"] {
            assert_eq!(parent(broken), None);
        }
    }

    #[test]
    fn a_child_is_listed_until_it_was_waited_for() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let ended = end_of(&child).unwrap();
        assert!(crate::sys::poll::readable(ended.as_fd(), Duration::from_secs(10)).unwrap());
        assert!(children().contains(&child.id()));
        child.wait().unwrap();
        assert!(!children().contains(&child.id()));
    }
}
