//! Reads settings from proc(5).

use std::ops::RangeInclusive;

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

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_has_two_numbers_in_order() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        for broken in ["", "7", "9 7", "x y", "1 70000"] {
            assert_eq!(parse_range(broken), None, "{broken}");
        }
    }
}
