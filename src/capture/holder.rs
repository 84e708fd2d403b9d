//! Finds the program that is bound to an NFLOG group or NFQUEUE queue, for the error message when
//! binding is refused.
//!
//! Reads /proc: `net/netfilter/nfnetlink_log` and `nfnetlink_queue` (`seq_show` in the kernel's
//! nfnetlink_log.c and nfnetlink_queue.c) have the netlink port of a listener, `net/netlink`
//! (proc(5)) the socket of a port, and the processes' descriptors the owner of the socket.

use std::fmt;
use std::fs;

use super::Resource;
use crate::sys::broker;

/// The protocol number of netfilter's netlink sockets (linux/netlink.h, NETLINK_NETFILTER).
const NETLINK_NETFILTER: u32 = 12;

/// Longest name of a process (linux/sched.h, TASK_COMM_LEN, without the NUL).
const COMM_MAX: usize = 15;

/// The program that is bound to a group or queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its netlink port.
    pub portid: u32,
    /// Process id and name, if the process is visible.
    pub process: Option<(u32, String)>,
    /// The process is the one whose ID is the port, as the kernel chooses it for the first netlink
    /// socket of a process (netlink_autobind in net/netlink/af_netlink.c): the sockets of a process
    /// with more rights than ours cannot be seen.
    pub by_port: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) if self.by_port => write!(f, "probably {name} (pid {pid})"),
            Some((pid, name)) => write!(f, "{name} (pid {pid})"),
            None => write!(f, "the owner of netlink port {}", self.portid),
        }
    }
}

/// The program bound to `resource` in this thread's network namespace.
pub(super) fn find(resource: Resource) -> Option<Holder> {
    broker::open(move || Ok(find_here(resource))).ok().flatten()
}

fn find_here(resource: Resource) -> Option<Holder> {
    let table = match resource {
        Resource::Group(_) => "/proc/thread-self/net/netfilter/nfnetlink_log",
        Resource::Queue(_) => "/proc/thread-self/net/netfilter/nfnetlink_queue",
    };
    let portid = portid_of(&fs::read_to_string(table).ok()?, resource.number())?;
    let seen = fs::read_to_string("/proc/thread-self/net/netlink")
        .ok()
        .and_then(|sockets| process_of(inode_of(&sockets, portid)?));
    let by_port = seen.is_none();
    let process = seen.or_else(|| Some((portid, name_of(portid)?)));
    Some(Holder { portid, process, by_port })
}

/// The port of the group's listener: `group portid queued mode range timeout references`.
fn portid_of(groups: &str, group: u16) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()?.parse() == Ok(group)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The inode of the netfilter socket with this port: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops
/// Inode`.
fn inode_of(sockets: &str, portid: u32) -> Option<u64> {
    sockets.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let protocol = words.next()?.parse::<u32>();
        let port = words.next()?.parse::<u32>();
        (protocol == Ok(NETLINK_NETFILTER) && port == Ok(portid))
            .then(|| words.last()?.parse().ok())
            .flatten()
    })
}

/// A process that has this socket open.
fn process_of(inode: u64) -> Option<(u32, String)> {
    let target = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let mut descriptors = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        descriptors.find(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        })?;
        Some((pid, name_of(pid).unwrap_or_default()))
    })
}

/// The name of a process that is visible.
fn name_of(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    // The other program chooses its name: keep control characters out of our log.
    let shown = name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c });
    Some(shown.take(COMM_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str =
        "    7   4711     0 2 65531    100  1\n   77 3905422019     0 2   256      1  1\n";
    const SOCKETS: &str = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                           000000004e3c1f7e 0   3905422019 00000551 0        0        0     2        0        11017\n\
                           00000000b5e8a3b2 12  3905422019 00000000 0        0        0     2        0        21234\n\
                           00000000b5e8a3b3 12  0          00000000 0        0        0     2        0        12\n";

    #[test]
    fn listener_is_found_by_its_port_and_socket() {
        assert_eq!(portid_of(GROUPS, 77), Some(3_905_422_019));
        assert_eq!(portid_of(GROUPS, 78), None);
        assert_eq!(inode_of(SOCKETS, 3_905_422_019), Some(21_234));
        assert_eq!(inode_of(SOCKETS, 4711), None);
    }

    #[test]
    fn garbage_gives_no_listener() {
        for text in ["", "\n\n", "77", "77 x", "x 12", "x 12 1"] {
            assert_eq!((portid_of(text, 77), inode_of(text, 1)), (None, None));
        }
    }
}
