//! Digests as text, JSON and mail. Pure but for the host's name, the time and identifiers.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::digest::{Digest, Network, Row};
use super::outbox::Message;
use crate::helper::protocol::{Class, Mail};

/// Longest reason of a line, in bytes.
const REASON_MAX: usize = 160;

/// Addresses that the line of a network names.
const EXAMPLES: usize = 5;

/// An identifier of a message, unique on this host.
pub(super) fn id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{count}", Timestamp::now().as_nanosecond(), std::process::id())
}

/// A test.
pub(super) fn test() -> Message {
    Message::Test(id())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What is in a digest, in a few words.
pub(super) fn summary(digest: &Digest) -> String {
    let mut parts: Vec<_> = [Class::Blocked, Class::Slowed, Class::Reported]
        .into_iter()
        .map(|class| (class, digest.count(class) as u64))
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| format!("{} {}", counted(count, "source"), class.word()))
        .collect();
    let troubles = digest.troubles.len() as u64;
    parts.extend((troubles > 0).then(|| counted(troubles, "trouble")));
    let unlisted = digest.dropped + digest.missed;
    parts.extend((unlisted > 0).then(|| format!("{} not listed", counted(unlisted, "event"))));
    parts.join(", ")
}

/// The line above a message: ASCII, without characters that end a header.
pub(super) fn title(message: &Message) -> String {
    let what = message.subject();
    format!("PortSentry on {}: {what}", host())
        .chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

fn time(seconds: i64) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    jiff::ZonedDateTime::new(at, jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z")
        .to_string()
}

fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn line(row: &Row) -> String {
    let name = row.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let proven = if row.is_proven { ", proven" } else { ", its address may be forged" };
    let events = if row.events == 1 { String::new() } else { format!(", {} times", row.events) };
    format!(
        "{}{name}: {}{proven}{events}, last at {}: {}",
        row.target,
        row.class.word(),
        time(row.last),
        first_bytes(&row.reason, REASON_MAX)
    )
}

fn network_line(network: &Network) -> String {
    let count = |class| network.rows.iter().filter(|row| row.class == class).count();
    let states: Vec<_> = [Class::Blocked, Class::Slowed, Class::Reported]
        .into_iter()
        .filter(|class| count(*class) > 0)
        .map(|class| format!("{} {}", count(class), class.word()))
        .collect();
    let examples: Vec<_> =
        network.rows.iter().take(EXAMPLES).map(|row| row.target.as_str()).collect();
    let more = if network.rows.len() > EXAMPLES { ", ..." } else { "" };
    format!(
        "{}: {} sources, {}: {}{more}",
        network.network,
        network.rows.len(),
        states.join(", "),
        examples.join(", ")
    )
}

/// A message as lines, of at most `most` bytes: what does not fit is counted.
pub(super) fn text(message: &Message, most: usize) -> String {
    let Message::Digest(_, digest) = message else {
        return format!(
            "{}.\nIf you read this, notifications of PortSentry on {} arrive.\n",
            message.subject(),
            host()
        );
    };
    let mut lines: Vec<String> = digest
        .troubles
        .iter()
        .map(|trouble| {
            let times = if trouble.times == 1 {
                String::new()
            } else {
                format!(" ({} times)", trouble.times)
            };
            format!("{}: {}{times}, last at {}", trouble.kind, trouble.text, time(trouble.last))
        })
        .collect();
    let (networks, others) = digest.networks();
    lines.extend(networks.iter().map(network_line));
    lines.extend(others.iter().map(line));
    let mut end = String::new();
    if digest.dropped > 0 {
        let _ = writeln!(end, "{} found no room here.", counted(digest.dropped, "further event"));
    }
    if digest.missed > 0 {
        let _ = writeln!(
            end,
            "{} did not reach this message.",
            counted(digest.missed, "further event")
        );
    }
    let total = lines.len();
    let mut text = format!("{}\n\n", summary(digest));
    for (shown, line) in lines.iter().enumerate() {
        // The last line says how many are missing.
        if text.len() + line.len() + end.len() + 64 > most {
            let _ = writeln!(text, "... and {} more", counted((total - shown) as u64, "line"));
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    text + &end
}

/// A message as a JSON document.
pub(super) fn json(message: &Message) -> String {
    let stamp = |seconds| Timestamp::from_second(seconds).unwrap_or_default().to_string();
    // Chat programs show the key `text`.
    let mut document = json!({
        "version": 1,
        "host": host(),
        "test": matches!(message, Message::Test(_)),
        "title": title(message),
        "text": text(message, usize::MAX),
    });
    let Some(keys) = document.as_object_mut() else { return String::new() };
    if let Message::Digest(id, _) | Message::Test(id) = message {
        keys.insert("id".to_owned(), id.as_str().into());
    }
    if let Message::Digest(_, digest) = message {
        let row = |row: &Row| {
            json!({
                "address": row.target,
                "name": row.name,
                "state": row.class.word(),
                "proven": row.is_proven,
                "events": row.events,
                "first": stamp(row.first),
                "last": stamp(row.last),
                "port": row.port,
                "scan": row.scan,
                "reason": row.reason,
            })
        };
        let sources: Vec<Value> = digest.rows().iter().map(row).collect();
        let networks: Vec<Value> = digest
            .networks()
            .0
            .iter()
            .map(|network| json!({"network": network.network.to_string(), "sources": network.rows.len()}))
            .collect();
        let troubles: Vec<Value> = digest
            .troubles
            .iter()
            .map(|trouble| {
                json!({"event": trouble.kind, "message": trouble.text, "times": trouble.times, "last": stamp(trouble.last)})
            })
            .collect();
        keys.insert("sources".to_owned(), sources.into());
        keys.insert("networks".to_owned(), networks.into());
        keys.insert("troubles".to_owned(), troubles.into());
        keys.insert("dropped".to_owned(), digest.dropped.into());
        keys.insert("missed".to_owned(), digest.missed.into());
    }
    document.to_string()
}

/// A message as a mail (RFC 5322), for sendmail(8).
pub(super) fn mail(mail: &Mail, message: &Message) -> String {
    let (Message::Digest(id, _) | Message::Test(id)) = message else { return String::new() };
    let from = match mail.from.as_str() {
        "" => String::new(),
        from => format!("From: PortSentry <{from}>\n"),
    };
    let date = jiff::ZonedDateTime::now();
    format!(
        "{from}To: {}\nSubject: {}\nDate: {}\nMessage-ID: <{id}.portsentry@{}>\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}",
        mail.to.join(", "),
        first_bytes(&title(message), 200),
        date.strftime("%a, %d %b %Y %H:%M:%S %z"),
        host(),
        text(message, usize::MAX - 4096),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::notify::tests::incident;
    use crate::helper::protocol::Incident;

    fn digest() -> Digest {
        let mut digest = Digest::default();
        for n in 1..=40 {
            digest.add(&incident(&format!("192.0.2.{n}"), Class::Slowed));
        }
        digest.add(&Incident { is_proven: true, ..incident("2001:db8::5", Class::Blocked) });
        digest.add(&Incident { target: None, ..incident("", Class::Trouble) });
        digest
    }

    fn message(digest: Digest) -> Message {
        Message::Digest(id(), Box::new(digest))
    }

    #[test]
    fn a_text_says_what_happened_by_network_and_source() {
        let message = message(digest());
        assert_eq!(message.subject(), "1 source blocked, 40 sources slowed, 1 trouble");
        let text = text(&message, usize::MAX);
        assert!(text.contains("192.0.2.0/24: 40 sources, 40 slowed: 192.0.2.1"), "{text}");
        assert!(text.contains("2001:db8::5: blocked, proven, last at"), "{text}");
    }

    #[test]
    fn a_text_keeps_its_bound_and_says_what_is_missing() {
        let mut digest = digest();
        for n in 0..200 {
            digest.add(&incident(&format!("10.{n}.0.1"), Class::Slowed));
        }
        digest.dropped = 7;
        let text = text(&message(digest), 3800);
        assert!(text.len() <= 3800, "{}", text.len());
        assert!(text.contains(" lines more\n"), "{text}");
        assert!(text.ends_with("7 further events found no room here.\n"), "{text}");
    }

    #[test]
    fn json_and_mail_are_well_formed() {
        let message = message(digest());
        let document: Value = serde_json::from_str(&json(&message)).unwrap();
        assert_eq!(document["sources"].as_array().unwrap().len(), 41);
        assert_eq!(document["networks"][0]["sources"], 40);
        assert_eq!(document["sources"][0]["proven"], true);
        let to = Mail { to: vec!["root".to_owned(), "a@b.example".to_owned()], ..Mail::default() };
        let text = mail(&to, &message);
        let (head, body) = text.split_once("\n\n").unwrap();
        assert!(head.starts_with("To: root, a@b.example\nSubject: PortSentry on "), "{head}");
        assert!(head.lines().all(|line| line.contains(": ")), "{head}");
        assert!(body.lines().all(|line| line.len() < 998) && body.contains("192.0.2.0/24"));
    }

    #[test]
    fn identifiers_differ() {
        assert_ne!(id(), id());
    }
}
