//! Reads settings from proc(5).

use std::ops::RangeInclusive;

use rustix::thread::CapabilitySet;

/// The kernel's default, used if the setting cannot be read (ip(7), ip_local_port_range).
const DEFAULT_EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// The port range for this host's own connections.
pub(crate) fn ephemeral_ports() -> RangeInclusive<u16> {
    let text =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    parse_range(&text).unwrap_or(DEFAULT_EPHEMERAL)
}

/// The id of this boot (random(4), boot_id); `None` if it cannot be read.
pub(crate) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// How full the kernel's table of tracked connections is (nf_conntrack-sysctl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Connections of this network namespace.
    pub(crate) connections: u64,
    /// The most that the table holds.
    pub(crate) most: u64,
}

impl Tracked {
    /// Whether the table is four fifths full.
    pub(crate) fn is_filling(self) -> bool {
        self.connections.saturating_mul(5) >= self.most.saturating_mul(4)
    }
}

/// The table of tracked connections; `None` if the kernel tracks none.
pub(crate) fn tracked() -> Option<Tracked> {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Some(Tracked { connections: read("count")?, most: read("max")? })
}

/// The rights of a process or thread (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its effective capabilities, as capabilities(7) names them.
    pub(crate) capabilities: Vec<String>,
    /// Filters of system calls that it has; one of a kernel before Linux 5.9, which does not count
    /// them.
    pub(crate) filters: u32,
    /// It gains nothing by the programs that it starts.
    pub(crate) no_new_privs: bool,
}

/// The rights of this process, by its main thread.
pub(crate) fn own_rights() -> Option<Rights> {
    parse_rights(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The rights of the thread of this process with this name.
pub(crate) fn thread_rights(name: &str) -> Option<Rights> {
    let is_of = |text: &String| field(text, "Name") == Some(name);
    tasks("status").find(is_of).and_then(|text| parse_rights(&text))
}

/// The rights of the first child of this process, where the kernel lists children.
pub(crate) fn child_rights() -> Option<Rights> {
    let child = tasks("children")
        .find_map(|text| text.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok()))?;
    parse_rights(&std::fs::read_to_string(format!("/proc/{child}/status")).ok()?)
}

/// A file of each thread of this process.
fn tasks(file: &'static str) -> impl Iterator<Item = String> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(move |task| std::fs::read_to_string(task.path().join(file)).ok())
}

fn field<'t>(status: &'t str, key: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

fn parse_rights(status: &str) -> Option<Rights> {
    let capabilities = u64::from_str_radix(field(status, "CapEff")?, 16).ok()?;
    let names = CapabilitySet::from_bits_retain(capabilities);
    let is_filtered = u32::from(field(status, "Seccomp") == Some("2"));
    Some(Rights {
        uid: field(status, "Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        capabilities: names.iter_names().map(|(name, _)| format!("CAP_{name}")).collect(),
        filters: field(status, "Seccomp_filters")
            .and_then(|count| count.parse().ok())
            .unwrap_or(is_filtered),
        no_new_privs: field(status, "NoNewPrivs") == Some("1"),
    })
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_status_file() {
        let status = "Name:\tpackets\nUid:\t0\t990\t990\t990\nCapEff:\t0000000000001400\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let rights = parse_rights(status).unwrap();
        assert_eq!((rights.uid, rights.filters, rights.no_new_privs), (990, 1, true));
        assert_eq!(rights.capabilities, ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"]);
        let counted = format!("{status}Seccomp_filters:\t3\n");
        assert_eq!(parse_rights(&counted).unwrap().filters, 3);
        assert_eq!(parse_rights("Name:\tx\n"), None);
        assert!(own_rights().is_some());
    }

    #[test]
    fn range_has_two_numbers_in_order() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        for broken in ["", "7", "9 7", "x y", "1 70000"] {
            assert_eq!(parse_range(broken), None, "{broken}");
        }
    }
}
