//! The events of the formats `text` and `json` and of `portsentryctl watch`: kinds, keys, and their
//! order.
//!
//! The only definition of what programs may rely on; portsentry.yaml(5) cites it. Kinds and keys
//! are never removed; new ones may be added.
//!
//! A JSON object also begins with `time` (RFC 3339, UTC, milliseconds) and `level` (`error`,
//! `warn`, `info`, `debug`), and an unknown value is null. In text form an unknown value has no
//! key; time and level are the log's own.

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKind {
    /// The value of the key `event`.
    pub name: &'static str,
    /// Its meaning, for the manual.
    pub meaning: &'static str,
    /// The keys after `event`.
    pub keys: &'static [Key],
}

/// A key of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// The meaning of its value, for the manual.
    pub meaning: &'static str,
}

const fn event(name: &'static str, meaning: &'static str, keys: &'static [Key]) -> EventKind {
    EventKind { name, meaning, keys }
}

const fn key(name: &'static str, meaning: &'static str) -> Key {
    Key { name, meaning }
}

const ADDRESS: Key = key("address", "the host, or the IPv6 prefix or network in CIDR form");
const NAME: Key =
    key("name", "the host's reverse name, where `resolve` is on and it was found in time");
const SCAN: Key = key("scan", "the kind of scan, by nmap's name; null for what is no scan");
const PROVEN: Key = key(
    "proven",
    "whether the source has shown that it receives our packets, so that its address is not forged",
);
const REASON: Key = key("reason", "why, in words");
const ERROR: Key = key("error", "the kernel's words");
const MESSAGE: Key = key("message", "the words");

/// All events.
pub const EVENTS: &[EventKind] = &[
    event("starting", "the daemon starts", &[key("version", "the daemon's version")]),
    event(
        "watching",
        "the ports of one transport that are watched from now on",
        &[
            key("transport", "`tcp` or `udp`"),
            key("mode", "`connect`, `stealth` or `advanced`"),
            key("ports", "how many ports are watched"),
            key("ranges", "these ports"),
            key("excluded", "ports that are never watched"),
            key("services", "ports that local services take now"),
        ],
    ),
    event("active", "everything is in place", &[]),
    event(
        "scan",
        "a source has passed the trigger",
        &[
            key("address", "the scanner's address"),
            NAME,
            key("source", "what is accounted: the address, or the IPv6 prefix in CIDR form"),
            key("destination", "the address that was probed"),
            key("port", "transport and port that passed the trigger: `tcp/23`"),
            key("ip_options", "whether the packet had IP options"),
            key("blocking", "whether a block was ordered"),
            SCAN,
            PROVEN,
            REASON,
            key("not_blocked", "why no block was ordered"),
        ],
    ),
    event(
        "blocked",
        "the kernel has acknowledged a block",
        &[
            ADDRESS,
            NAME,
            key("port", "transport and port that passed the trigger; null for a block by hand"),
            key("timeout", "seconds; null until it is unblocked"),
            key("renewed", "whether it was blocked before and was given more time"),
            SCAN,
            PROVEN,
            REASON,
        ],
    ),
    event("block-failed", "the kernel refused a block", &[ADDRESS, NAME, ERROR]),
    event(
        "unblocked",
        "a block is over",
        &[
            ADDRESS,
            NAME,
            key("ending", "`expired`, `by-hand`, `removed`, `never-block` or `total`"),
        ],
    ),
    event(
        "exempted",
        "a host or network is exempt from the block of a network around it",
        &[
            key("address", "what is exempt"),
            NAME,
            key("network", "the blocked network, whose block goes on for the rest"),
        ],
    ),
    event("unblock-failed", "the kernel refused to lift a block", &[ADDRESS, NAME, ERROR]),
    event("reloaded", "a new configuration is in force", &[]),
    event(
        "reload-refused",
        "a new configuration was refused, the old one stays in force",
        &[key("findings", "the findings, a line each")],
    ),
    event(
        "lost",
        "packets were lost between the kernel and the daemon",
        &[
            key("packets", "how many since this was told last"),
            key("total", "how many since the start"),
        ],
    ),
    event(
        "shed",
        "packets of unknown sources were given up under load, so that those of known ones could be judged",
        &[
            key("packets", "how many since this was told last"),
            key("total", "how many since the start"),
        ],
    ),
    event(
        "never-block",
        "the list of what is never blocked has changed",
        &[key("entries", "how many addresses and networks")],
    ),
    event(
        "foreign-change",
        "another program has changed the daemon's table",
        &[
            key("pid", "its process"),
            key("program", "its name"),
            key("remedy", "what was done about it"),
        ],
    ),
    event(
        "command",
        "`respond.command` has ended, or could not be started",
        &[
            ADDRESS,
            NAME,
            key("command", "program and arguments"),
            key("done", "whether it ended with status 0"),
            key("status", "its exit status; null if it has none"),
            key("signal", "the signal that killed it; null if none did"),
            key("ended", "how it ended, in words"),
            key("took", "seconds that it ran"),
            key("output", "the start of what it wrote"),
        ],
    ),
    event("denied", "a line stands in hosts.deny", &[ADDRESS, NAME, key("line", "the line")]),
    event("no-longer-denied", "a line was taken out of hosts.deny", &[ADDRESS, NAME]),
    event(
        "commands-dropped",
        "commands were not run, too many were waiting",
        &[key("commands", "how many since this was told last")],
    ),
    event("status", "how things stand, asked for by SIGUSR1", &[MESSAGE]),
    event(
        "adopted",
        "blocks were found in the kernel at the start and are kept",
        &[key("blocks", "how many")],
    ),
    event(
        "restored",
        "blocks that were stored and gone from the kernel are in force again",
        &[key("blocks", "how many")],
    ),
    event("warning", "something that the administrator should know", &[MESSAGE]),
    event("error", "something failed", &[MESSAGE]),
    event(
        "held-back",
        "lines were held back, so that nobody can flood the log",
        &[key("lines", "how many"), key("within", "within how many seconds"), MESSAGE],
    ),
    event(
        "stopping",
        "the daemon ends",
        &[key("blocks_left", "blocks that stay in force in the kernel")],
    ),
    event(
        "message",
        "anything else; in text form with its level",
        &[key("module", "the part of the daemon that says it"), MESSAGE],
    ),
];

#[cfg(test)]
mod tests {
    use super::super::{LogFormat, lines, message, samples};
    use super::*;
    use log::Level;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Keys of a flat object, in their order.
    fn keys_of_json(line: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(line).unwrap();
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort_by_key(|key| line.find(&format!("\"{key}\":")).unwrap());
        keys
    }

    fn keys_of_text(line: &str) -> Vec<String> {
        let (mut keys, mut rest) = (Vec::new(), line);
        while let Some((key, value)) = rest.split_once('=') {
            keys.push(key.to_owned());
            let length = if value.starts_with('"') {
                let mut texts = serde_json::Deserializer::from_str(value).into_iter::<String>();
                texts.next().unwrap().unwrap();
                texts.byte_offset()
            } else {
                value.find(' ').unwrap_or(value.len())
            };
            rest = value[length..].trim_start();
        }
        keys
    }

    fn every_line(format: LogFormat) -> Vec<String> {
        let mut all: Vec<String> = samples::all()
            .iter()
            .flat_map(|event| lines(event, format))
            .map(|line| line.text)
            .collect();
        all.push(message(samples::at(), Level::Warn, "portsentry::nft", "look", format).text);
        all
    }

    #[test]
    fn every_object_has_exactly_the_keys_that_are_documented_in_their_order() {
        let mut seen = BTreeSet::new();
        for line in every_line(LogFormat::Json) {
            let value: Value = serde_json::from_str(&line).unwrap();
            let name = value["event"].as_str().unwrap();
            let kind = EVENTS
                .iter()
                .find(|kind| kind.name == name)
                .unwrap_or_else(|| panic!("{name} is not documented"));
            let wanted: Vec<&str> = ["time", "level", "event"]
                .into_iter()
                .chain(kind.keys.iter().map(|key| key.name))
                .collect();
            assert_eq!(keys_of_json(&line), wanted, "{name}");
            seen.insert(kind.name);
        }
        assert_eq!(seen, EVENTS.iter().map(|kind| kind.name).collect(), "every kind has a sample");
    }

    #[test]
    fn every_line_of_pairs_has_no_other_keys() {
        for line in every_line(LogFormat::Text) {
            let keys = keys_of_text(&line);
            assert_eq!(keys[0], "event", "{line}");
            let name = line.strip_prefix("event=").unwrap().split(' ').next().unwrap();
            let kind = EVENTS.iter().find(|kind| kind.name == name).unwrap();
            let mut documented = kind.keys.iter().map(|key| key.name);
            for key in keys.iter().skip(1).filter(|key| name != "message" || *key != "level") {
                assert!(documented.any(|known| known == key), "{key} of {line}");
            }
        }
    }

    #[test]
    fn the_kinds_of_events_are_these() {
        // Programs rely on these: kinds and keys may be added, never removed.
        let golden = "\
starting: version
watching: transport mode ports ranges excluded services
active:
scan: address name source destination port ip_options blocking scan proven reason not_blocked
blocked: address name port timeout renewed scan proven reason
block-failed: address name error
unblocked: address name ending
exempted: address name network
unblock-failed: address name error
reloaded:
reload-refused: findings
lost: packets total
shed: packets total
never-block: entries
foreign-change: pid program remedy
command: address name command done status signal ended took output
denied: address name line
no-longer-denied: address name
commands-dropped: commands
status: message
adopted: blocks
restored: blocks
warning: message
error: message
held-back: lines within message
stopping: blocks_left
message: module message";
        let row = |kind: &EventKind| {
            kind.keys
                .iter()
                .fold(format!("{}:", kind.name), |row, key| format!("{row} {}", key.name))
        };
        assert_eq!(EVENTS.iter().map(row).collect::<Vec<_>>().join("\n"), golden);
    }
}
