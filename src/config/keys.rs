//! The table of all configuration keys, in the order of the file: type, bounds, meaning. The reader
//! takes its bounds from it; tests compare the printed configuration, `contrib/portsentry.yaml` and
//! the manual page with it.

use std::fmt;
use std::time::Duration;

use super::keyword::keywords;
use super::{
    ClosedPorts, CommandWhen, Facility, LogFormat, LogTarget, Method, Mode, OnExit, OwnTable,
    PortMode, ProtocolAction, UnprovenAction, written,
};

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Path: `tcp.mode`.
    pub path: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Its effect, in one line.
    pub meaning: &'static str,
    /// Whether a reload applies it.
    pub reload: Reload,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// With the next reload.
    Live,
    /// With the next start, because it is opened, joined or used as a key once.
    Restart,
}

/// Type and bounds of a value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// One of these keywords.
    Word(fn() -> Vec<&'static str>),
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Number {
        /// Minimum.
        min: u32,
        /// Maximum.
        max: u32,
        /// Reason for the bounds.
        why: &'static str,
    },
    /// A number with a unit.
    Time {
        /// Minimum.
        min: Duration,
        /// Maximum.
        max: Duration,
        /// Meaning of `0`, if allowed.
        zero: Option<&'static str>,
        /// Reason for the bounds.
        why: &'static str,
    },
    /// Port numbers and ranges.
    Ports {
        /// Lowest port.
        min: u16,
    },
    /// Names of network interfaces.
    Interfaces,
    /// Addresses and networks.
    Networks,
    /// An absolute path.
    Path {
        /// Whether it may be empty, which switches the feature off.
        optional: bool,
        /// Maximum length in bytes.
        max: usize,
    },
    /// The name of a group, or empty.
    Group,
    /// Text.
    Text {
        /// Maximum length in bytes.
        max: usize,
    },
    /// A list of texts.
    Texts {
        /// Maximum total length in bytes.
        max: usize,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(words) => f.write_str(&words().join(" | ")),
            Self::Switch => f.write_str("true | false"),
            Self::Number { min, max, .. } => write!(f, "number, {min} to {max}"),
            Self::Time { min, max, zero, .. } => {
                write!(f, "time, {} to {}", written::time(*min), written::time(*max))?;
                zero.map_or(Ok(()), |meaning| write!(f, "; 0: {meaning}"))
            }
            Self::Ports { min } => {
                write!(f, "ports: number or \"a-b\", {min} to 65535, one or a list")
            }
            Self::Interfaces => f.write_str("list of interface names"),
            Self::Networks => f.write_str("list of addresses and networks"),
            Self::Path { optional: false, .. } => f.write_str("absolute path"),
            Self::Path { optional: true, .. } => f.write_str("absolute path; \"\": none"),
            Self::Group => f.write_str("name of a group; \"\": none"),
            Self::Text { max } => write!(f, "text, at most {max} bytes"),
            Self::Texts { max } => write!(f, "list of texts, at most {max} bytes together"),
        }
    }
}

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// PATH_MAX less its NUL (linux/limits.h).
const PATH: usize = 4095;

/// `sun_path` less its NUL (unix(7)).
const SOCKET_PATH: usize = 107;

/// A command and a line are logged and passed to other programs; neither needs more than a page.
const TEXT: usize = 4096;

const fn key(path: &'static str, kind: Kind, reload: Reload, meaning: &'static str) -> Key {
    Key { path, kind, meaning, reload }
}

const fn number(min: u32, max: u32, why: &'static str) -> Kind {
    Kind::Number { min, max, why }
}

const fn time(min: Duration, max: Duration, why: &'static str) -> Kind {
    Kind::Time { min, max, zero: None, why }
}

/// A year: longer than any useful block, and far below the limit of the kernel's millisecond
/// timeouts.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

// Port 0 may be watched: no service can listen on it (bind(2) reads it as "any"), so a packet to it
// is always a probe, and classic advanced mode watched it. It cannot be a login port.
const WATCHED: Kind = Kind::Ports { min: 0 };

use Reload::{Live, Restart};

/// All keys.
pub const KEYS: &[Key] = &[
    key(
        "mode",
        Kind::Word(keywords::<Mode>),
        Live,
        "enforce blocks; observe decides and reports everything and blocks nothing",
    ),
    key(
        "interfaces",
        Kind::Interfaces,
        Live,
        "watch only these interfaces; []: all except loopback",
    ),
    key(
        "closed_ports",
        Kind::Word(keywords::<ClosedPorts>),
        Live,
        "whether a closed port answers a probe: not at all, or with the kernel's reset",
    ),
    key(
        "capture.method",
        Kind::Word(keywords::<Method>),
        Live,
        "copies of probes (nflog), or probes that wait for the verdict (nfqueue)",
    ),
    key(
        "capture.reflex",
        Kind::Switch,
        Live,
        "the rules hold a source themselves when it exceeds the trigger",
    ),
    key(
        "capture.group",
        number(0, 65_535, "the kernel's group numbers have 16 bits"),
        Live,
        "NFLOG group or NFQUEUE number",
    ),
    key(
        "capture.decoy_port",
        number(1, 65_535, "the kernel's ports have 16 bits, and nothing can listen on port 0"),
        Live,
        "loopback port on which the decoy of connect mode listens",
    ),
    key(
        "tcp.mode",
        Kind::Word(keywords::<PortMode>),
        Live,
        "which TCP ports are watched (classic -tcp -stcp -atcp)",
    ),
    key("tcp.ports", WATCHED, Live, "ports of connect and stealth mode"),
    key("tcp.advanced_ports", WATCHED, Live, "advanced mode watches every closed port in here"),
    key("tcp.exclude", WATCHED, Live, "never watched in advanced mode"),
    key(
        "tcp.action",
        Kind::Word(keywords::<ProtocolAction>),
        Live,
        "what a scan triggers (classic BLOCK_TCP 1 2 0)",
    ),
    key(
        "udp.mode",
        Kind::Word(keywords::<PortMode>),
        Live,
        "which UDP ports are watched (classic -udp -sudp -audp)",
    ),
    key("udp.ports", WATCHED, Live, "ports of connect and stealth mode"),
    key("udp.advanced_ports", WATCHED, Live, "advanced mode watches every closed port in here"),
    key("udp.exclude", WATCHED, Live, "never watched in advanced mode"),
    key(
        "udp.action",
        Kind::Word(keywords::<ProtocolAction>),
        Live,
        "what a scan triggers (classic BLOCK_UDP 1 2 0)",
    ),
    key(
        "scan_trigger",
        number(
            0,
            1023,
            "a thousand ports are a scan for everybody, and each port of each source costs memory",
        ),
        Live,
        "distinct ports a source may touch without consequences; 0 reacts to the first (classic SCAN_TRIGGER)",
    ),
    key(
        "scan_window",
        time(
            SECOND,
            WEEK,
            "below a second no scan is seen, and after a week stray packets add up to one",
        ),
        Live,
        "the sliding window in which they count",
    ),
    key(
        "block.timeout",
        Kind::Time {
            min: SECOND,
            max: YEAR,
            zero: Some("until unblocked"),
            why: "a block shorter than a second stops nothing",
        },
        Live,
        "how long a source is blocked",
    ),
    key(
        "block.escalate.factor",
        number(1, 100, "1 is no escalation, and 100 goes from a minute to a week in two steps"),
        Live,
        "each further block of the same source lasts this many times longer",
    ),
    key(
        "block.escalate.max",
        time(SECOND, YEAR, "it bounds block.timeout, which has the same bounds"),
        Live,
        "but never longer than this",
    ),
    key(
        "block.escalate.memory",
        time(MINUTE, YEAR, "what is forgotten within a minute cannot escalate"),
        Live,
        "a source that was quiet for this long starts from the beginning",
    ),
    key(
        "block.ipv6_prefix",
        number(
            48,
            128,
            "a site gets a /48 to /64, a machine a /64 or less; anything wider blocks strangers",
        ),
        Live,
        "IPv6 sources are counted and blocked by prefixes of this many bits",
    ),
    key(
        "block.unproven.action",
        Kind::Word(keywords::<UnprovenAction>),
        Live,
        "what a scan from an unverified source triggers, whose address may be forged",
    ),
    key(
        "block.unproven.timeout",
        time(
            SECOND,
            HOUR,
            "the address may be a victim's: it must come free soon after the forger stops",
        ),
        Live,
        "its block, renewed while the scan goes on",
    ),
    key(
        "block.unproven.per_minute",
        number(
            1,
            100_000,
            "a forger chooses how many there are; 100000 fill the default block.total in ten minutes",
        ),
        Live,
        "no more new blocks of unproven sources than this within a minute",
    ),
    key(
        "block.total",
        number(
            1,
            10_000_000,
            "an element takes some 200 bytes of kernel memory: ten million take two gigabytes",
        ),
        Live,
        "never more elements than this; past it, report",
    ),
    key("never_block.own_addresses", Kind::Switch, Live, "this host's own addresses"),
    key("never_block.gateways", Kind::Switch, Live, "the next hops of its routes"),
    key("never_block.resolvers", Kind::Switch, Live, "its name servers"),
    key(
        "never_block.ssh_peers",
        Kind::Switch,
        Live,
        "sources of connections to admin_ports that have stayed established for minutes",
    ),
    key(
        "never_block.admin_ports",
        Kind::Ports { min: 1 },
        Live,
        "TCP ports of administrators' logins",
    ),
    key("allow", Kind::Networks, Live, "addresses and networks that are never blocked"),
    key(
        "ignore_file",
        Kind::Path { optional: true, max: PATH },
        Live,
        "more of them, in the classic format; the file need not exist",
    ),
    key(
        "respond.command",
        Kind::Texts { max: TEXT },
        Live,
        "program and arguments, run without a shell; {target} {port} {mode} {protocol} {scan} {reason} are replaced",
    ),
    key(
        "respond.command_when",
        Kind::Word(keywords::<CommandWhen>),
        Live,
        "before or after the block (classic KILL_RUN_CMD_FIRST)",
    ),
    key(
        "respond.command_timeout",
        time(
            SECOND,
            HOUR,
            "commands run one after another; one that hangs must not hold the others up for ever",
        ),
        Live,
        "time after which the command is killed",
    ),
    key(
        "respond.hosts_deny.enabled",
        Kind::Switch,
        Live,
        "write a line for each blocked source, and remove it again",
    ),
    key("respond.hosts_deny.path", Kind::Path { optional: false, max: PATH }, Live, "the file"),
    key(
        "respond.hosts_deny.line",
        Kind::Text { max: 1024 },
        Live,
        "the line; {target} is replaced",
    ),
    key(
        "respond.banner",
        Kind::Text { max: 1024 },
        Live,
        "connect mode: text sent to a client once the trigger is exceeded",
    ),
    key("resolve", Kind::Switch, Live, "reverse names in reports, never in the packet path"),
    key(
        "log.target",
        Kind::Word(keywords::<LogTarget>),
        Live,
        "target of log lines; auto: the journal when stderr is the journal, else stderr",
    ),
    key("log.format", Kind::Word(keywords::<LogFormat>), Live, "format of log lines"),
    key(
        "log.level",
        Kind::Word(keywords::<log::LevelFilter>),
        Live,
        "least severe level that is logged",
    ),
    key("log.facility", Kind::Word(keywords::<Facility>), Live, "syslog(3) facility"),
    key(
        "history_file",
        Kind::Path { optional: true, max: PATH },
        Live,
        "a line for each block, in the classic format",
    ),
    key(
        "blocked_file",
        Kind::Path { optional: true, max: PATH - 5 },
        Live,
        "current blocks, a line each in the classic format; the mode is appended: .tcp .stcp .atcp .udp .sudp .audp",
    ),
    key(
        "state_dir",
        Kind::Path { optional: false, max: PATH },
        Restart,
        "directory of the daemon's state",
    ),
    key(
        "control.socket",
        Kind::Path { optional: false, max: SOCKET_PATH },
        Restart,
        "control socket for portsentryctl",
    ),
    key(
        "control.group",
        Kind::Group,
        Restart,
        "members of this group may read, but change nothing; \"\": root only",
    ),
    key(
        "on_exit",
        Kind::Word(keywords::<OnExit>),
        Live,
        "what happens to the blocks when the daemon ends",
    ),
    key(
        "own_table",
        Kind::Word(keywords::<OwnTable>),
        Restart,
        "whether other programs are kept from changing the table",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_default_and_a_meaning_of_one_line() {
        for key in KEYS {
            assert!(!key.default_text().is_empty(), "{}", key.path);
            assert!(
                !key.meaning.is_empty() && !key.meaning.contains('\n') && key.meaning.len() < 130,
                "{}",
                key.path
            );
            assert!(!key.kind.to_string().is_empty());
        }
    }

    #[test]
    fn no_key_is_duplicated() {
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }
}
