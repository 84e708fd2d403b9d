//! Events as keys and values, from which the text and JSON formats are both rendered, so that they
//! agree.
//!
//! Keys are stable: programs read them.

use std::time::Duration;

use serde_json::Value;

use super::is_treacherous;
use super::phrases::count;
use crate::engine::{Ending, Reason, Report, Source};
use crate::journal::{Ended, Event, Notice, Response};

/// A key and its value, in the order in which they are shown.
pub(super) type Fact = (&'static str, Value);

/// The keys and values of an event; the first is `event`, its kind.
pub(super) fn facts(event: &Event) -> Vec<Fact> {
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
        Notice::Reloaded => vec![kind("reloaded")],
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
    ("name", event.name.as_ref().map_or(Value::Null, |name| name.as_str().into()))
}

fn kind(name: &str) -> Fact {
    ("event", name.into())
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
    let address = |source: &Source| Value::from(source.to_string());
    match report {
        Report::Scan { source, probe, reason, not_blocked } => {
            let mut facts = vec![
                kind("scan"),
                ("address", probe.source.to_string().into()),
                name,
                ("source", address(source)),
                ("destination", probe.destination.to_string().into()),
                ("port", probe.port.to_string().into()),
                ("ip_options", probe.ip_options.into()),
                ("blocking", not_blocked.is_none().into()),
            ];
            facts.extend(why(reason));
            facts.push(("not_blocked", not_blocked.map_or(Value::Null, |why| why.text().into())));
            facts
        }
        Report::Blocked { source, port, timeout, reason, renewed } => {
            let mut facts = vec![
                kind("blocked"),
                ("address", address(source)),
                name,
                ("port", port.map_or(Value::Null, |port| port.to_string().into())),
                (
                    "timeout",
                    timeout.as_ref().map(Duration::as_secs).map_or(Value::Null, Value::from),
                ),
                ("renewed", (*renewed).into()),
            ];
            facts.extend(why(reason));
            facts
        }
        Report::BlockFailed { source, error } => vec![
            kind("block-failed"),
            ("address", address(source)),
            name,
            ("error", short(error).into()),
        ],
        Report::Unblocked { source, ending } => vec![
            kind("unblocked"),
            ("address", address(source)),
            name,
            (
                "ending",
                match ending {
                    Ending::Expired => "expired",
                    Ending::Manual => "by-hand",
                    Ending::Removed => "removed",
                    Ending::NeverBlock => "never-block",
                    Ending::Total => "total",
                }
                .into(),
            ),
        ],
        Report::Exempted { source, exempt } => {
            vec![
                kind("exempted"),
                ("address", address(&Source::from(*exempt))),
                name,
                ("network", address(source)),
            ]
        }
        Report::UnblockFailed { source, error } => vec![
            kind("unblock-failed"),
            ("address", address(source)),
            name,
            ("error", short(error).into()),
        ],
    }
}

fn respond(response: &Response, name: Fact) -> Vec<Fact> {
    let address = |target: &str| ("address", start(target, 200).into());
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
                ("status", status.map_or(Value::Null, Value::from)),
                ("signal", signal.map_or(Value::Null, Value::from)),
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
    }
}

fn why(reason: &Reason) -> [Fact; 3] {
    [
        ("scan", reason.scan().map_or(Value::Null, |scan| scan.name().into())),
        ("proven", reason.proven().into()),
        ("reason", short(&reason.to_string()).into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{LINE_MAX, json, samples};
    use super::*;
    use crate::probe::Transport;

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
