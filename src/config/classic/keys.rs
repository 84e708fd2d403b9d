//! The keys of a classic configuration file.

/// The form of a classic key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A value without macros.
    Plain,
    /// A command or a line in which `$TARGET$`, `$PORT$` and `$MODE$` are replaced.
    Macros,
}

/// Every key of 1.2 and 2.x: 2.x removed the `ADVANCED_*` keys and added none.
pub(super) const KEYS: &[(&str, Form)] = &[
    ("TCP_PORTS", Form::Plain),
    ("UDP_PORTS", Form::Plain),
    ("ADVANCED_PORTS_TCP", Form::Plain),
    ("ADVANCED_PORTS_UDP", Form::Plain),
    ("ADVANCED_EXCLUDE_TCP", Form::Plain),
    ("ADVANCED_EXCLUDE_UDP", Form::Plain),
    ("IGNORE_FILE", Form::Plain),
    ("HISTORY_FILE", Form::Plain),
    ("BLOCKED_FILE", Form::Plain),
    ("RESOLVE_HOST", Form::Plain),
    ("BLOCK_TCP", Form::Plain),
    ("BLOCK_UDP", Form::Plain),
    ("KILL_ROUTE", Form::Macros),
    ("KILL_HOSTS_DENY", Form::Macros),
    ("KILL_RUN_CMD", Form::Macros),
    ("KILL_RUN_CMD_FIRST", Form::Plain),
    ("SCAN_TRIGGER", Form::Plain),
    ("PORT_BANNER", Form::Plain),
];

/// The variables of `/etc/default/portsentry`.
pub(super) const DEFAULTS: &[(&str, Form)] =
    &[("TCP_MODE", Form::Plain), ("UDP_MODE", Form::Plain)];

/// The macros of 1.2 and 2.x, with their names here.
pub(super) const MACROS: &[(&str, &str)] =
    &[("$TARGET$", "{target}"), ("$PORT$", "{port}"), ("$MODE$", "{mode}")];
