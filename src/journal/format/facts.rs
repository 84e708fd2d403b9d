//! Events as keys and values, from which the text and JSON formats and `portsentryctl watch` are
//! rendered, so that they agree.
//!
//! Programs rely on kinds and keys, which portsentry(8) lists under EVENTS: new ones may be added,
//! none is ever removed.
//!
//! A JSON object also begins with `time` (RFC 3339, UTC, milliseconds) and `level` (`error`,
//! `warn`, `info`, `debug`), and an unknown value is null. In text form an unknown value has no
//! key; time and level are the log's own.

use std::fmt::Display;
use std::net::IpAddr;

use serde_json::Value;

use super::is_treacherous;
use super::phrases::{count, done};
use crate::engine::{
    Ending, ListName, NotBlocked, Reason, Report, Shared, SlowEnding, Source, WouldBe,
};
use crate::journal::{Ended, Event, HostName, Notice, Response};
use crate::probe::ScanKind;

/// A key and its value, in the order in which they are shown.
pub(crate) type Fact = (&'static str, Value);

/// The keys and values of an event; the first is `event`, its kind.
pub(in crate::journal) fn facts(event: &Event) -> Vec<Fact> {
    match &event.notice {
        Notice::Engine(report) => engine(report, name(event)),
        Notice::Starting => vec![kind("starting"), ("version", env!("CARGO_PKG_VERSION").into())],
        Notice::Watching { transport, mode, ports, excluded, services } => {
            let watched = ports.without(excluded);
            vec![
                kind("watching"),
                ("transport", transport.name().into()),
                ("mode", (*mode).into()),
                ("ports", watched.count().into()),
                ("ranges", start(&watched.to_string(), 1000).into()),
                ("excluded", start(&excluded.to_string(), 1000).into()),
                ("services", start(&services.to_string(), 1000).into()),
            ]
        }
        Notice::Active => vec![kind("active")],
        Notice::Stopping { blocks_left } => {
            vec![kind("stopping"), ("blocks_left", (*blocks_left).into())]
        }
        Notice::Reloaded { changes } => {
            vec![kind("reloaded"), ("changes", short(&changes.join("; ")).into())]
        }
        Notice::Switched { mode, detection, confirm_within, on_within, why } => {
            vec![
                kind("switched"),
                ("mode", (*mode).into()),
                ("detection", (*detection).into()),
                ("confirm_within", confirm_within.map(|time| time.as_secs()).into()),
                ("on_within", on_within.map(|time| time.as_secs()).into()),
                ("why", why.as_deref().map(short).into()),
            ]
        }
        Notice::Control { uid, user, pid, login, command, is_done, result } => {
            vec![
                kind("control"),
                ("uid", (*uid).into()),
                ("user", user.as_deref().map(|user| start(user, 100)).into()),
                ("pid", (*pid).into()),
                ("login", login.as_deref().map(|login| start(login, 100)).into()),
                ("command", start(command, 1000).into()),
                ("done", (*is_done).into()),
                ("result", start(result, 2000).into()),
            ]
        }
        Notice::ReloadRefused { findings } => {
            vec![kind("reload-refused"), ("findings", short(findings).into())]
        }
        Notice::Lost { packets, total } => {
            vec![kind("lost"), ("packets", (*packets).into()), ("total", (*total).into())]
        }
        Notice::Shed { packets, total } => {
            vec![kind("shed"), ("packets", (*packets).into()), ("total", (*total).into())]
        }
        Notice::NeverBlock { entries } => vec![kind("never-block"), ("entries", (*entries).into())],
        Notice::AllowedName { name, added, removed } => vec![
            kind("allowed-name"),
            ("name", name.as_str().into()),
            ("added", addresses(added).into()),
            ("removed", addresses(removed).into()),
        ],
        Notice::Response(response) => respond(response, name(event)),
        Notice::ForeignChange { pid, program, remedy } => {
            vec![
                kind("foreign-change"),
                ("pid", (*pid).into()),
                ("program", start(program, 200).into()),
                ("remedy", short(remedy).into()),
            ]
        }
        Notice::Status(text) => vec![kind("status"), ("message", short(text).into())],
        Notice::Adopted { blocks } => vec![kind("adopted"), ("blocks", (*blocks).into())],
        Notice::Restored { blocks } => vec![kind("restored"), ("blocks", (*blocks).into())],
        Notice::Warning(text) => vec![kind("warning"), ("message", short(text).into())],
        Notice::Error(text) => vec![kind("error"), ("message", short(text).into())],
        Notice::HeldBack { lines, within } => {
            vec![
                kind("held-back"),
                ("lines", (*lines).into()),
                ("within", within.as_secs().into()),
                ("message", format!("{} held back", count(*lines, "line")).into()),
            ]
        }
    }
}

/// The host's name, or null.
fn name(event: &Event) -> Fact {
    ("name", event.name.as_ref().map(HostName::as_str).into())
}

fn kind(name: &str) -> Fact {
    ("event", name.into())
}

/// What observe mode kept from happening, in a word.
fn word(would_be: WouldBe) -> &'static str {
    match would_be {
        WouldBe::Slowed => "slowed",
        WouldBe::Blocked => "blocked",
    }
}

/// The start of a text from another module, short enough that an object is never cut, however much
/// is escaped.
fn short(text: &str) -> String {
    start(text, 3000)
}

/// The longest start of `text` that takes at most `budget` bytes when escaped.
pub(super) fn start(text: &str, budget: usize) -> String {
    let mut left = budget;
    text.chars()
        .take_while(|&character| {
            let cost = match character {
                // The longest escape of JSON in UTF-16.
                _ if is_treacherous(character) => 6,
                '"' | '\\' => 2,
                other => other.len_utf8(),
            };
            let fits = cost <= left;
            left = left.saturating_sub(cost);
            fits
        })
        .collect()
}

fn engine(report: &Report, name: Fact) -> Vec<Fact> {
    match report {
        Report::Scan { source, probe, reason, not_blocked } => {
            let mut facts = vec![
                kind("scan"),
                address(probe.source),
                name,
                ("source", source.to_string().into()),
                ("destination", probe.destination.to_string().into()),
                ("port", probe.port.to_string().into()),
                ("ip_options", probe.ip_options.into()),
                ("blocking", not_blocked.is_none().into()),
            ];
            facts.extend(why(reason));
            facts.push(("not_blocked", not_blocked.map(NotBlocked::text).into()));
            facts.push(("would_be", not_blocked.and_then(NotBlocked::would_be).map(word).into()));
            facts
        }
        Report::Slowed { source, port, timeout, reason, .. } => {
            let mut facts = vec![
                kind("slowed"),
                address(source),
                name,
                ("port", port.to_string().into()),
                ("timeout", timeout.as_secs().into()),
                ("blocking", false.into()),
            ];
            facts.extend(why(reason));
            facts
        }
        Report::Continues { source, port, state, reason, .. } => {
            let mut facts = vec![
                kind("continues"),
                address(source),
                name,
                ("port", port.to_string().into()),
                ("state", (*state).into()),
            ];
            facts.extend(why(reason));
            facts
        }
        Report::Campaign { campaign, action, timeout } => {
            let program = match campaign.shared {
                Shared::Network(_) => None,
                Shared::Signature(signature) => Some(signature.name()),
            };
            vec![
                kind("campaign"),
                address(campaign.address()),
                name,
                ("program", program.into()),
                ("sources", campaign.sources.into()),
                ("ports", campaign.ports.into()),
                ("port", campaign.port.to_string().into()),
                ("state", done(*action).into()),
                ("timeout", timeout.map(|timeout| timeout.as_secs()).into()),
            ]
        }
        Report::Released { source, ending, packets } => {
            let ending = match ending {
                SlowEnding::Expired => "expired",
                SlowEnding::Proven => "proven",
                SlowEnding::Blocked => "blocked",
                SlowEnding::Manual => "by-hand",
                SlowEnding::NeverBlock => "never-block",
                SlowEnding::Configuration => "configuration",
                SlowEnding::Services => "services",
            };
            vec![
                kind("released"),
                address(source),
                name,
                ("ending", ending.into()),
                ("dropped", packets.map(|packets| packets.dropped).into()),
                ("passed", packets.map(|packets| packets.passed).into()),
            ]
        }
        Report::Blocked { source, port, timeout, reason, renewals, .. } => {
            let mut facts = vec![
                kind("blocked"),
                address(source),
                name,
                ("port", port.map(|port| port.to_string()).into()),
                ("timeout", timeout.map(|timeout| timeout.as_secs()).into()),
                ("renewed", (*renewals > 0).into()),
                ("renewals", (*renewals).into()),
                ("list", reason.list().map(ListName::as_str).into()),
            ];
            facts.extend(why(reason));
            facts
        }
        Report::BlockFailed { source, error } => {
            vec![kind("block-failed"), address(source), name, ("error", short(error).into())]
        }
        Report::Unblocked { source, ending } => {
            let ending = match ending {
                Ending::Expired => "expired",
                Ending::Manual => "by-hand",
                Ending::Removed => "removed",
                Ending::NeverBlock => "never-block",
                Ending::Total => "total",
                Ending::Services => "services",
                Ending::OffList => "off-list",
            };
            vec![kind("unblocked"), address(source), name, ("ending", ending.into())]
        }
        Report::Exempted { source, exempt } => {
            let network = source.to_string();
            vec![
                kind("exempted"),
                address(Source::from(*exempt)),
                name,
                ("network", network.into()),
            ]
        }
        Report::UnblockFailed { source, error } => {
            vec![kind("unblock-failed"), address(source), name, ("error", short(error).into())]
        }
    }
}

fn address(host: impl Display) -> Fact {
    ("address", host.to_string().into())
}

fn respond(response: &Response, name: Fact) -> Vec<Fact> {
    let address = |target| address(start(target, 200));
    match response {
        Response::Command { target, command, ended, took, output } => {
            let (status, signal) = match ended {
                Ended::Success => (Some(0), None),
                Ended::Status(status) => (Some(*status), None),
                Ended::Signal(signal) => (None, Some(*signal)),
                Ended::TimedOut(_) | Ended::NotStarted(_) => (None, None),
            };
            vec![
                kind("command"),
                address(target),
                name,
                ("command", start(command, 1000).into()),
                ("done", (*ended == Ended::Success).into()),
                ("status", status.into()),
                ("signal", signal.into()),
                ("ended", start(&ended.to_string(), 500).into()),
                ("took", (took.as_millis().min(u128::from(u32::MAX)) as f64 / 1000.0).into()),
                ("output", start(output.trim_end(), 1000).into()),
            ]
        }
        Response::Denied { target, line } => {
            vec![kind("denied"), address(target), name, ("line", start(line, 2000).into())]
        }
        Response::NoLongerDenied { target } => {
            vec![kind("no-longer-denied"), address(target), name]
        }
        Response::Dropped { commands } => {
            vec![kind("commands-dropped"), ("commands", (*commands).into())]
        }
        Response::Notified { channel, is_test, is_sent, message } => {
            vec![
                kind("notified"),
                ("channel", start(channel, 100).into()),
                ("test", (*is_test).into()),
                ("done", (*is_sent).into()),
                ("message", short(message).into()),
            ]
        }
    }
}

fn why(reason: &Reason) -> [Fact; 3] {
    [
        ("scan", reason.scan().map(ScanKind::name).into()),
        ("proven", reason.proven().into()),
        // It stands in a JSON object twice.
        ("reason", start(&reason.to_string(), 1000).into()),
    ]
}

/// Programs rely on these: kinds and keys may be added, never removed.
#[cfg(test)]
pub(crate) const EVENTS: &str = "\
starting: version
watching: transport mode ports ranges excluded services
active:
scan: address name source destination port target_port ip_options blocking scan proven reason explanation not_blocked not_blocked_because would_be
slowed: address name port target_port timeout blocking scan proven reason explanation
continues: address name port target_port state scan proven reason explanation
campaign: address name program sources ports port target_port state timeout
released: address name ending dropped passed
blocked: address name port target_port timeout renewed renewals list scan proven reason explanation
block-failed: address name error
unblocked: address name ending
exempted: address name network
unblock-failed: address name error
reloaded: changes
switched: mode detection confirm_within on_within why
control: uid user pid login command done result
reload-refused: findings
lost: packets total
shed: packets total
never-block: entries
allowed-name: name added removed
foreign-change: pid program remedy
command: address name command done status signal ended took output
denied: address name line
no-longer-denied: address name
commands-dropped: commands
notified: channel test done message
status: message
adopted: blocks
restored: blocks
warning: message
error: message
held-back: lines within message
stopping: blocks_left
message: module message";

/// Addresses behind each other, as few as a name has.
pub(super) fn addresses(list: &[IpAddr]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::{LINE_MAX, json, lines, message, samples};
    use super::*;
    use crate::config::LogFormat;
    use crate::probe::Transport;
    use log::Level;
    use std::collections::BTreeSet;

    /// The keys of a kind of event, after `event`.
    fn keys_of(kind: &str) -> impl Iterator<Item = &'static str> {
        let rows = EVENTS.lines().filter_map(|row| row.split_once(':'));
        let mut keys = rows.filter(|(name, _)| *name == kind).map(|(_, keys)| keys);
        keys.next().unwrap_or_else(|| panic!("{kind} is not documented")).split_whitespace()
    }

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
            let wanted: Vec<&str> =
                ["time", "level", "event"].into_iter().chain(keys_of(name)).collect();
            assert_eq!(keys_of_json(&line), wanted, "{name}");
            seen.insert(name.to_owned());
        }
        let all = EVENTS.lines().map(|row| row.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(seen, all, "every kind has a sample");
    }

    #[test]
    fn every_line_of_pairs_has_no_other_keys() {
        for line in every_line(LogFormat::Text) {
            let keys = keys_of_text(&line);
            assert_eq!(keys[0], "event", "{line}");
            let name = line.strip_prefix("event=").unwrap().split(' ').next().unwrap();
            let mut documented = keys_of(name);
            for key in keys.iter().skip(1).filter(|key| name != "message" || *key != "level") {
                assert!(documented.any(|known| known == key), "{key} of {line}");
            }
        }
    }

    #[test]
    fn an_object_is_never_longer_than_a_line() {
        for piece in ["\u{1b}", "\"", "ä", "x", "\u{2028}"] {
            let long = piece.repeat(5000);
            let notices = [
                Notice::ForeignChange { pid: 1, program: long.clone(), remedy: long.clone() },
                Notice::ReloadRefused { findings: long.clone() },
                samples::command(Ended::NotStarted(long.clone()), &long),
                Notice::Response(Response::Denied { target: long.clone(), line: long.clone() }),
                Notice::Watching {
                    transport: Transport::Tcp,
                    mode: "advanced",
                    ports: (60_000..=65_535).step_by(2).map(|port| port..=port).collect(),
                    excluded: (60_000..=65_535).step_by(3).map(|port| port..=port).collect(),
                    services: (60_000..=65_535).step_by(5).map(|port| port..=port).collect(),
                },
                Notice::Warning(long),
            ];
            for notice in notices {
                let line = json(&samples::event(notice));
                assert!(line.len() <= LINE_MAX, "{}", line.len());
                serde_json::from_str::<Value>(&line).unwrap();
            }
        }
    }
}
