//! The keys of a classic configuration file.

/// Every key of 1.2 and 2.x with its equivalent: 2.x removed the `ADVANCED_*` keys and added none.
pub(in crate::config) const KEYS: &[(&str, &str)] = &[
    ("TCP_PORTS", "tcp.ports"),
    ("UDP_PORTS", "udp.ports"),
    ("ADVANCED_PORTS_TCP", "tcp.advanced_ports"),
    ("ADVANCED_PORTS_UDP", "udp.advanced_ports"),
    ("ADVANCED_EXCLUDE_TCP", "tcp.exclude"),
    ("ADVANCED_EXCLUDE_UDP", "udp.exclude"),
    ("IGNORE_FILE", "ignore_file"),
    ("HISTORY_FILE", "history_file"),
    ("BLOCKED_FILE", "blocked_file"),
    ("RESOLVE_HOST", "resolve"),
    ("BLOCK_TCP", "tcp.action"),
    ("BLOCK_UDP", "udp.action"),
    ("KILL_ROUTE", "mode"),
    ("KILL_HOSTS_DENY", "respond.hosts_deny.line"),
    ("KILL_RUN_CMD", "respond.command"),
    ("KILL_RUN_CMD_FIRST", "respond.command_when"),
    ("SCAN_TRIGGER", "scan_trigger"),
    ("PORT_BANNER", "respond.banner"),
];

/// The keys with a command or a line in which `$TARGET$`, `$PORT$` and `$MODE$` are replaced.
pub(super) const WITH_MACROS: &[&str] = &["KILL_ROUTE", "KILL_HOSTS_DENY", "KILL_RUN_CMD"];

/// The variables in the files of init scripts, with their equivalents.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    // Debian: /etc/default/portsentry.
    ("TCP_MODE", "tcp.mode"),
    ("UDP_MODE", "udp.mode"),
    // Gentoo: /etc/conf.d/portsentry, of 1.2 and of 2.x.
    ("PORTSENTRY_MODES", "tcp.mode"),
    (OPTIONS, "tcp.mode"),
    // PLD: /etc/sysconfig/portsentry, a switch for each mode.
    ("PORTSENTRY_TCP", "tcp.mode"),
    ("PORTSENTRY_STCP", "tcp.mode"),
    ("PORTSENTRY_ATCP", "tcp.mode"),
    ("PORTSENTRY_UDP", "udp.mode"),
    ("PORTSENTRY_SUDP", "udp.mode"),
    ("PORTSENTRY_AUDP", "udp.mode"),
];

/// The command line of 2.x in Gentoo's file; all other variables are 1.2's.
pub(super) const OPTIONS: &str = "PORTSENTRY_OPTS";

/// The macros of 1.2 and 2.x, with their names here.
pub(super) const MACROS: &[(&str, &str)] =
    &[("$TARGET$", "{target}"), ("$PORT$", "{port}"), ("$MODE$", "{mode}")];
