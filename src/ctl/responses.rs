//! `portsentryctl test-response`: has the daemon run its responses once, and prints what each did, as
//! the daemon's own events say it.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failure::Failure;
use super::run::document;
use super::status;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Reply, Request};
use crate::helper::protocol::TEST_TARGET;
use crate::journal::format::{printable, printable_lines};

/// How long a line of hosts.deny, or a command beyond its own time, may take: the helper may be busy
/// with others.
const SLACK: Duration = Duration::from_secs(10);

/// How long a notification may take: its attempt may come after another one that hangs.
const NOTIFY_SLACK: Duration = Duration::from_secs(80);

/// Runs them; the exit status says whether all were done.
pub(super) fn run(socket: &Path, as_json: bool, out: &mut dyn Write) -> Result<u8, Failure> {
    let mut events = Client::connect(socket)?;
    let Reply::Watching {} = events.ask(&Request::Watch {})? else { return Err(Failure::Answer) };
    let asked = Client::connect(socket)?.ask(&Request::TestResponse {})?;
    let Reply::Testing { command, hosts_deny, notify } = asked else { return Err(Failure::Answer) };
    let mut missing = Vec::new();
    missing.extend(command.map(|_| "command"));
    missing.extend(if hosts_deny { &["denied", "no-longer-denied"][..] } else { &[] });
    missing.extend(notify.iter().map(String::as_str));
    let slack = if notify.is_empty() { SLACK } else { NOTIFY_SLACK };
    let deadline = Instant::now() + Duration::from_secs(command.unwrap_or(0)) + slack;
    let mut found = Vec::new();
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = match events.receive(Some(left)) {
            Ok(Reply::Event { event }) => event,
            Ok(_) => return Err(Failure::Answer),
            Err(ClientError::Late) => break,
            Err(error) => return Err(error.into()),
        };
        let is_notified = text(&event, "event") == "notified";
        if is_notified && event.get("test") != Some(&Value::Bool(true)) {
            continue;
        }
        let kind = text(&event, if is_notified { "channel" } else { "event" });
        // What goes wrong with hosts.deny is an error that names no host.
        let is_ours = is_notified || text(&event, "address") == TEST_TARGET;
        if kind == "error" || is_ours && missing.contains(&kind) {
            missing.retain(|missing| *missing != kind);
            if !as_json {
                print(out, &event)?;
            }
            found.push(event);
        }
    }
    let failed = |event: &Value| {
        text(event, "event") == "error" || event.get("done") == Some(&Value::Bool(false))
    };
    let is_done = missing.is_empty() && !found.iter().any(failed);
    if as_json {
        document(out, &json!({"ok": is_done, "events": found, "missing": missing}))?;
    } else {
        for kind in missing {
            writeln!(out, "{kind}: nothing came of it in time; see the daemon's log")?;
        }
    }
    Ok(if is_done { status::DONE } else { status::NO })
}

/// The text that an event has under a key.
fn text<'e>(event: &'e Value, key: &str) -> &'e str {
    event.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn print(out: &mut dyn Write, event: &Value) -> std::io::Result<()> {
    let shown = |key| printable(text(event, key));
    match text(event, "event") {
        "command" => {
            writeln!(out, "command: {}", shown("command"))?;
            let took = event.get("took").and_then(Value::as_f64).unwrap_or_default();
            writeln!(out, "  ended   {}, after {took} s", shown("ended"))?;
            let output = printable_lines(text(event, "output"));
            output.lines().try_for_each(|line| writeln!(out, "  wrote   {line}"))
        }
        "denied" => writeln!(out, "hosts.deny: {} was written", shown("line")),
        "notified" => {
            let done = event.get("done") == Some(&Value::Bool(true));
            let sent = if done { "sent" } else { "failed" };
            writeln!(out, "{}: {sent}: {}", shown("channel"), shown("message"))
        }
        "no-longer-denied" => writeln!(out, "hosts.deny: the line was taken out again"),
        _ => writeln!(out, "error: {}", shown("message")),
    }
}
