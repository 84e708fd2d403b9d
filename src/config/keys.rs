//! The table of all configuration keys, in the order of the file: field, type, bounds. The reader and
//! the printer follow it; tests compare `contrib/portsentry.yaml` and the manual page with it.

use std::fmt;
use std::time::Duration;

use super::field::Field;
use super::keyword::keywords;
use super::{
    CampaignAction, ClosedPorts, CommandOn, CommandWhen, Config, Facility, LogFormat, LogTarget,
    Method, Mode, NotifyOn, OnExit, OwnTable, PortMode, ProtocolAction, Size, UnprovenAction,
    Unwatched, written,
};

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Path: `tcp.mode`.
    pub path: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Whether a reload applies it.
    pub reload: Reload,
    /// Its field.
    pub(super) field: fn(&Config) -> &dyn Field,
    /// Its field, to be set.
    pub(super) field_mut: fn(&mut Config) -> &mut dyn Field,
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
    /// A list of some of these keywords, one at least.
    Words(fn() -> Vec<&'static str>),
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
    /// A number of bytes with a unit.
    Size {
        /// Minimum.
        min: Size,
        /// Maximum.
        max: Size,
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
    /// Addresses, networks, DNS names, files and interfaces.
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
            Self::Words(words) => write!(f, "list of {}", words().join(" and ")),
            Self::Switch => f.write_str("true | false"),
            Self::Number { min, max, .. } => write!(f, "number, {min} to {max}"),
            Self::Time { min, max, zero, .. } => {
                write!(f, "time, {} to {}", written::time(*min), written::time(*max))?;
                zero.map_or(Ok(()), |meaning| write!(f, "; 0: {meaning}"))
            }
            Self::Size { min, max, .. } => {
                write!(f, "size, {} to {}", written::size(*min), written::size(*max))
            }
            Self::Ports { min } => {
                write!(f, "ports: number or \"a-b\", {min} to 65535, one or a list")
            }
            Self::Interfaces => f.write_str("list of interface names"),
            Self::Networks => f.write_str(
                "list of addresses, networks, DNS names, {network}, {name}, {file} and {interface}",
            ),
            Self::Path { optional: false, .. } => f.write_str("absolute path"),
            Self::Path { optional: true, .. } => f.write_str("absolute path; \"\": none"),
            Self::Group => f.write_str("name of a group; \"\": none"),
            Self::Text { max } => write!(f, "text, at most {max} bytes"),
            Self::Texts { max } => write!(f, "list of texts, at most {max} bytes together"),
        }
    }
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

/// Recipients of a mail: some twenty addresses.
const ADDRESSES: usize = 1024;

/// A URL: longer ones are not read by all servers.
const URL: usize = 1024;

/// A secret's file: all of them go to the helper in one line.
const SECRET_PATH: usize = 512;

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

const IPV6_BITS: Kind = number(
    48,
    128,
    "a site gets a /48 to /64, a machine a /64 or less; anything wider blocks strangers",
);

use Reload::{Live, Restart};

/// A row: the path of a key is that of its field.
macro_rules! key {
    ($section:ident $(. $name:ident)*, $kind:expr, $reload:expr) => {
        Key {
            path: concat!(stringify!($section) $(, ".", stringify!($name))*),
            kind: $kind,
            reload: $reload,
            field: |config| &config.$section $(. $name)*,
            field_mut: |config| &mut config.$section $(. $name)*,
        }
    };
}

/// All keys.
pub const KEYS: &[Key] = &[
    key!(mode, Kind::Word(keywords::<Mode>), Live),
    key!(interfaces, Kind::Interfaces, Live),
    key!(closed_ports, Kind::Word(keywords::<ClosedPorts>), Live),
    key!(unwatched, Kind::Word(keywords::<Unwatched>), Live),
    key!(capture.method, Kind::Word(keywords::<Method>), Live),
    key!(capture.reflex, Kind::Switch, Live),
    key!(capture.group, number(0, 65_535, "the kernel's group numbers have 16 bits"), Live),
    key!(
        capture.decoy_port,
        number(1, 65_535, "the kernel's ports have 16 bits, and nothing can listen on port 0"),
        Live
    ),
    key!(tcp.mode, Kind::Word(keywords::<PortMode>), Live),
    key!(tcp.ports, WATCHED, Live),
    key!(tcp.advanced_ports, WATCHED, Live),
    key!(tcp.exclude, WATCHED, Live),
    key!(tcp.action, Kind::Word(keywords::<ProtocolAction>), Live),
    key!(udp.mode, Kind::Word(keywords::<PortMode>), Live),
    key!(udp.ports, WATCHED, Live),
    key!(udp.advanced_ports, WATCHED, Live),
    key!(udp.exclude, WATCHED, Live),
    key!(udp.action, Kind::Word(keywords::<ProtocolAction>), Live),
    key!(
        scan_trigger,
        number(
            0,
            1023,
            "a thousand ports are a scan for everybody, and each port of each source costs memory",
        ),
        Live
    ),
    key!(
        sweep_trigger,
        number(
            1,
            100,
            "each client of one service touches one address, and each address of each source costs memory",
        ),
        Live
    ),
    key!(
        scan_window,
        time(
            SECOND,
            WEEK,
            "below a second no scan is seen, and after a week stray packets add up to one",
        ),
        Live
    ),
    key!(
        block.timeout,
        Kind::Time {
            min: SECOND,
            max: YEAR,
            zero: Some("until unblocked"),
            why: "a block shorter than a second stops nothing",
        },
        Live
    ),
    key!(
        block.escalate.factor,
        number(1, 100, "1 is no escalation, and 100 goes from a minute to a week in two steps"),
        Live
    ),
    key!(
        block.escalate.max,
        time(SECOND, YEAR, "it bounds block.timeout, which has the same bounds"),
        Live
    ),
    key!(
        block.escalate.memory,
        time(MINUTE, YEAR, "what is forgotten within a minute cannot escalate"),
        Live
    ),
    key!(block.ipv6.first, IPV6_BITS, Live),
    key!(block.ipv6.then, IPV6_BITS, Live),
    key!(block.unproven.action, Kind::Word(keywords::<UnprovenAction>), Live),
    key!(
        block.unproven.timeout,
        time(
            SECOND,
            HOUR,
            "the address may be a victim's: it must come free soon after the forger stops",
        ),
        Live
    ),
    key!(
        block.unproven.per_minute,
        number(
            1,
            100_000,
            "a forger chooses how many there are; 100000 fill the default block.total in ten minutes",
        ),
        Live
    ),
    key!(
        block.total,
        number(
            1,
            10_000_000,
            "an element takes some 200 bytes of kernel memory: ten million take two gigabytes",
        ),
        Live
    ),
    key!(campaign.action, Kind::Word(keywords::<CampaignAction>), Live),
    key!(never_block.own_addresses, Kind::Switch, Live),
    key!(never_block.gateways, Kind::Switch, Live),
    key!(never_block.resolvers, Kind::Switch, Live),
    key!(never_block.ssh_peers, Kind::Switch, Live),
    key!(never_block.admin_ports, Kind::Ports { min: 1 }, Live),
    key!(
        never_block.admins.memory,
        Kind::Time {
            min: SECOND,
            max: YEAR,
            zero: Some("not remembered"),
            why: "an address that was not used for a year is hardly the same administrator's",
        },
        Live
    ),
    key!(allow, Kind::Networks, Live),
    key!(
        allow_refresh,
        time(
            Duration::from_secs(30),
            Duration::from_secs(86_400),
            "name servers are not there to be asked all the time, and a host that moved should not wait for a day",
        ),
        Live
    ),
    key!(ignore_file, Kind::Path { optional: true, max: PATH }, Live),
    key!(respond.command, Kind::Texts { max: TEXT }, Live),
    key!(respond.command_on, Kind::Words(keywords::<CommandOn>), Live),
    key!(respond.command_when, Kind::Word(keywords::<CommandWhen>), Live),
    key!(
        respond.command_timeout,
        time(
            SECOND,
            HOUR,
            "commands run one after another; one that hangs must not hold the others up for ever",
        ),
        Live
    ),
    key!(respond.hosts_deny.enabled, Kind::Switch, Live),
    key!(respond.hosts_deny.path, Kind::Path { optional: false, max: PATH }, Live),
    key!(respond.hosts_deny.line, Kind::Text { max: 1024 }, Live),
    key!(respond.banner, Kind::Text { max: 1024 }, Live),
    key!(
        notify.digest,
        time(
            MINUTE,
            Duration::from_secs(86_400),
            "a message more often than once a minute is noise, and what happened a day ago is old",
        ),
        Live
    ),
    key!(notify.on, Kind::Words(keywords::<NotifyOn>), Live),
    key!(notify.sendmail.to, Kind::Text { max: ADDRESSES }, Live),
    key!(notify.sendmail.from, Kind::Text { max: ADDRESSES }, Live),
    key!(notify.sendmail.program, Kind::Path { optional: false, max: SECRET_PATH }, Live),
    key!(notify.webhook.url, Kind::Text { max: URL }, Live),
    key!(notify.webhook.url_file, Kind::Path { optional: true, max: SECRET_PATH }, Live),
    key!(notify.webhook.token_file, Kind::Path { optional: true, max: SECRET_PATH }, Live),
    key!(notify.ntfy.url, Kind::Text { max: URL }, Live),
    key!(notify.ntfy.url_file, Kind::Path { optional: true, max: SECRET_PATH }, Live),
    key!(notify.ntfy.token_file, Kind::Path { optional: true, max: SECRET_PATH }, Live),
    key!(notify.abuseipdb.key_file, Kind::Path { optional: true, max: SECRET_PATH }, Live),
    key!(notify.abuseipdb.url, Kind::Text { max: URL }, Live),
    key!(resolve, Kind::Switch, Live),
    key!(geo.country, Kind::Path { optional: true, max: PATH }, Live),
    key!(geo.asn, Kind::Path { optional: true, max: PATH }, Live),
    key!(log.target, Kind::Word(keywords::<LogTarget>), Live),
    key!(log.format, Kind::Word(keywords::<LogFormat>), Live),
    key!(log.level, Kind::Word(keywords::<log::LevelFilter>), Live),
    key!(log.facility, Kind::Word(keywords::<Facility>), Live),
    key!(history_file, Kind::Path { optional: true, max: PATH }, Live),
    key!(blocked_file, Kind::Path { optional: true, max: PATH - 5 }, Live),
    key!(
        events.keep,
        Kind::Time {
            min: HOUR,
            max: Duration::from_secs(10 * 365 * 86_400),
            zero: Some("none is stored"),
            why: "an event should outlast the time until an administrator reads it, and logs older than ten years are rarely kept",
        },
        Live
    ),
    key!(
        events.max,
        Kind::Size {
            min: Size(1 << 20),
            max: Size(64 << 30),
            why: "a megabyte holds some 2000 events; a search reads all of them",
        },
        Live
    ),
    key!(state_dir, Kind::Path { optional: false, max: PATH }, Restart),
    key!(control.socket, Kind::Path { optional: false, max: SOCKET_PATH }, Restart),
    key!(control.group, Kind::Group, Restart),
    key!(on_exit, Kind::Word(keywords::<OnExit>), Live),
    key!(own_table, Kind::Word(keywords::<OwnTable>), Restart),
];

/// The key that sets `block.ipv6.first` and `block.ipv6.then` to one number.
pub(super) const IPV6_PREFIX: &str = "block.ipv6_prefix";

/// Keys of earlier versions that set the fields of others. They are read, and never printed.
pub(super) const ALIASES: &[Key] = &[Key {
    path: IPV6_PREFIX,
    kind: IPV6_BITS,
    reload: Live,
    field: |config| &config.block.ipv6,
    field_mut: |config| &mut config.block.ipv6,
}];

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths of the fields of a configuration, from its debug form, in which a field is a line
    /// `name: value`, indented below the struct that has it.
    fn fields() -> Vec<String> {
        let (mut open, mut paths): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for line in format!("{:#?}", Config::default()).lines().skip(1) {
            let depth = (line.len() - line.trim_start().len()) / 4;
            let Some((name, value)) = line.trim().split_once(": ") else { continue };
            open.truncate(depth - 1);
            // The fields of a value that is no struct are indented further than its name.
            if open.len() == depth - 1 {
                let path = [open.clone(), vec![name.to_owned()]].concat();
                match value.strip_suffix(" {") {
                    Some(_) => open.push(name.to_owned()),
                    None => paths.push(path.join(".")),
                }
            }
        }
        paths
    }

    #[test]
    fn every_field_is_a_key_in_the_order_of_the_fields() {
        assert_eq!(fields(), KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
    }

    #[test]
    fn every_key_has_a_default_and_a_kind() {
        for key in KEYS {
            assert!(!key.default_text().is_empty(), "{}", key.path);
            assert!(!key.kind.to_string().is_empty());
        }
    }
}
