//! Events as JSON objects (RFC 8259), one on a line, with stable keys in a stable order and times
//! in UTC.

use jiff::Timestamp;
use log::Level;
use serde_json::Value;

use super::facts::{Fact, facts};
use super::{LINE_MAX, first_bytes, level, replaced};
use crate::journal::Event;
use crate::journal::typed::beside_fact;

/// The event as one object.
pub(crate) fn line(event: &Event) -> String {
    let mut all: Vec<Fact> = vec![("time", time(event.at)), ("level", level_name(level(event)))];
    for (key, value) in facts(event) {
        let typed = beside_fact(key, &value);
        all.push((key, value));
        all.extend(typed);
    }
    object(&all)
}

/// The object of a log record from another module.
pub(super) fn message(at: Timestamp, level: Level, module: &str, text: &str) -> String {
    let object_of = |text: &str| {
        object(&[
            ("time", time(at)),
            ("level", level_name(level)),
            ("event", "message".into()),
            ("module", module.into()),
            ("message", text.into()),
        ])
    };
    let line = object_of(text);
    if line.len() <= LINE_MAX {
        return line;
    }
    // An object must not be cut, but its text may be: no escape is longer than twelve bytes (two
    // \uXXXX), and the other keys need room.
    object_of(first_bytes(text, LINE_MAX / 12 - 40))
}

fn time(at: Timestamp) -> Value {
    // Finer than milliseconds a log line's time is not exact anyway.
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string().into()
}

fn level_name(level: Level) -> Value {
    level.as_str().to_ascii_lowercase().into()
}

fn object(facts: &[Fact]) -> String {
    let pairs: Vec<_> =
        facts.iter().map(|(key, value)| format!("\"{key}\":{}", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// `value` as JSON, with every character that a terminal interprets as a `\u` escape.
pub(super) fn escaped(value: &Value) -> String {
    printable_json(&value.to_string())
}

/// JSON text that a terminal shows literally; may have several lines. The characters that are
/// escaped occur only inside strings.
pub(crate) fn printable_json(text: &str) -> String {
    replaced(text, &['\n'], |character, escaped| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    })
    .into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{all, blocked, event, scan};
    use super::*;
    use crate::probe::{ScanKind, Transport};

    #[test]
    fn a_scan_and_a_block_have_these_keys() {
        assert_eq!(
            line(&event(scan(
                "2001:db8::7",
                ScanKind::Syn,
                Transport::Tcp,
                1,
                Some("never-block address")
            ))),
            r#"{"time":"2026-11-20T15:26:40.000Z","level":"warn","event":"scan","address":"2001:db8::7","name":null,"source":"2001:db8::/64","destination":"192.0.2.1","port":"tcp/1","target_port":{"number":1,"transport":"tcp"},"ip_options":false,"blocking":false,"scan":"syn","proven":false,"reason":"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3","explanation":{"code":"scan","ports":[{"number":1,"transport":"tcp"},{"number":2,"transport":"tcp"},{"number":3,"transport":"tcp"}],"proven":false,"scan":"syn","text":"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3"},"not_blocked":"never-block address","not_blocked_because":{"code":"never_block","text":"never-block address"},"would_be":null}"#
        );
        assert_eq!(
            line(&event(blocked("10.77.1.1", 1, 0))),
            r#"{"time":"2026-11-20T15:26:40.000Z","level":"warn","event":"blocked","address":"10.77.1.1","name":null,"port":"tcp/1","target_port":{"number":1,"transport":"tcp"},"timeout":60,"renewed":false,"renewals":0,"list":null,"scan":"syn","proven":false,"reason":"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3","explanation":{"code":"scan","ports":[{"number":1,"transport":"tcp"},{"number":2,"transport":"tcp"},{"number":3,"transport":"tcp"}],"proven":false,"scan":"syn","text":"syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3"}}"#
        );
    }

    #[test]
    fn every_notice_is_one_object_with_time_level_and_event() {
        for event in all() {
            let value: Value = serde_json::from_str(&line(&event)).unwrap();
            for key in ["time", "level", "event"] {
                assert!(value.get(key).is_some_and(Value::is_string), "{key} of {event:?}");
            }
        }
    }
}
