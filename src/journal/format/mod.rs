//! Log lines of events: pure functions, the same for every log target.
//!
//! Text from a remote host, a client or another program is always escaped, and every line is short.

mod classic;
mod facts;
mod json;
#[cfg(test)]
mod manual;
mod phrases;
mod text;

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use log::Level;

use super::{Ended, Event, Notice, Response};
use crate::config::LogFormat;
use crate::engine::{Report, Source};

pub(crate) use classic::history;
#[cfg(test)]
pub(crate) use facts::EVENTS;
pub(crate) use facts::Fact;
pub(super) use facts::facts;
pub(crate) use json::{line as json, printable_json};
pub(crate) use phrases::{duration, offset};

/// Longest line in bytes. rsyslog(8) takes 8 KiB by default; lists of ports and findings need some
/// room.
pub(crate) const LINE_MAX: usize = 4096;

/// One line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The level that `log.level` compares.
    pub level: Level,
    /// The priority for the log's target. In classic format a tagged line is a notice, as all of
    /// PortSentry 1.2's (`Info` becomes syslog's "notice"), unless it is an error; in the other
    /// formats it equals `level`.
    pub priority: Level,
    /// The text: no control character, at most [`LINE_MAX`] bytes.
    pub text: String,
}

impl Line {
    fn new(level: Level, text: String) -> Self {
        Self { level, priority: level, text: cut(printable(&text).into_owned()) }
    }

    /// A line in classic format. Errors keep their priority: a selector `daemon.notice` includes
    /// higher ones (syslog.conf(5)), and `journalctl -p err` shows nothing else. Debug lines
    /// without a tag are not 1.2's.
    fn classic(level: Level, text: String) -> Self {
        let is_tagged = ["adminalert: ", "attackalert: ", "securityalert: "]
            .iter()
            .any(|tag| text.starts_with(tag));
        let priority = if is_tagged && level != Level::Error { Level::Info } else { level };
        Self { priority, ..Self::new(level, text) }
    }
}

/// The lines of an event; in classic format possibly several, or none.
pub(crate) fn lines(event: &Event, format: LogFormat) -> Vec<Line> {
    match format {
        LogFormat::Classic => classic::lines(event),
        LogFormat::Text => vec![Line::new(level(event), text::line(event))],
        LogFormat::Json => vec![Line::new(level(event), json::line(event))],
    }
}

/// The line of a `log` record from any module.
pub(crate) fn message(
    at: Timestamp,
    level: Level,
    module: &str,
    message: &str,
    format: LogFormat,
) -> Line {
    match format {
        LogFormat::Classic => Line::classic(level, classic::message(level, module, message)),
        LogFormat::Text => Line::new(level, text::message(level, module, message)),
        LogFormat::Json => Line::new(level, json::message(at, level, module, message)),
    }
}

/// The host whose name is shown with an event: a single address, no network or prefix. `watched`:
/// the event is also sent as JSON.
pub(super) fn host_to_name(event: &Event, format: LogFormat, watched: bool) -> Option<IpAddr> {
    // PortSentry 1.2 had names only in the lines of scans and blocks; a slowed source has one in
    // the history.
    let is_named = matches!(
        event.notice,
        Notice::Engine(Report::Scan { .. } | Report::Blocked { .. } | Report::Slowed { .. })
    );
    if !is_named && !watched && format == LogFormat::Classic {
        return None;
    }
    let single = |source: Source| source.is_single().then(|| source.addr());
    match &event.notice {
        Notice::Engine(Report::Scan { probe, .. }) => Some(probe.source),
        Notice::Engine(
            Report::Blocked { source, .. }
            | Report::Slowed { source, .. }
            | Report::Continues { source, .. }
            | Report::BlockFailed { source, .. }
            | Report::Unblocked { source, .. }
            | Report::Released { source, .. }
            | Report::UnblockFailed { source, .. },
        ) => single(*source),
        Notice::Engine(Report::Exempted { exempt, .. }) => single(Source::from(*exempt)),
        Notice::Response(
            Response::Command { target, .. }
            | Response::Denied { target, .. }
            | Response::NoLongerDenied { target },
        ) => target.parse().ok(),
        _ => None,
    }
}

/// How important an event is, in every format.
pub(crate) fn level(event: &Event) -> Level {
    match &event.notice {
        // A renewal is no news.
        Notice::Engine(Report::Blocked { renewals: 1.., .. }) | Notice::NeverBlock { .. } => {
            Level::Debug
        }
        Notice::Engine(
            Report::Scan { .. }
            | Report::Blocked { .. }
            | Report::Slowed { .. }
            | Report::Continues { .. }
            | Report::Campaign { .. },
        )
        | Notice::Lost { .. }
        | Notice::Shed { .. }
        | Notice::ForeignChange { .. }
        | Notice::Warning(_)
        | Notice::Response(Response::Notified { is_sent: false, .. })
        | Notice::HeldBack { .. } => Level::Warn,
        Notice::Engine(
            Report::Unblocked { .. } | Report::Exempted { .. } | Report::Released { .. },
        )
        | Notice::Response(
            Response::Command { ended: Ended::Success, .. }
            | Response::Denied { .. }
            | Response::NoLongerDenied { .. }
            | Response::Notified { .. },
        )
        | Notice::Starting
        | Notice::Watching { .. }
        | Notice::Active
        | Notice::Stopping { .. }
        | Notice::Reloaded { .. }
        | Notice::Switched { .. }
        | Notice::Control { .. }
        | Notice::AllowedName { .. }
        | Notice::Status(_)
        | Notice::Adopted { .. }
        | Notice::Restored { .. } => Level::Info,
        Notice::Engine(Report::BlockFailed { .. } | Report::UnblockFailed { .. })
        | Notice::Response(Response::Command { .. } | Response::Dropped { .. })
        | Notice::ReloadRefused { .. }
        | Notice::Error(_) => Level::Error,
    }
}

/// `text` with every character escaped that could move a cursor, end a line, hide text or change
/// its direction.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, &[], |character, escaped| escaped.extend(character.escape_default()))
}

/// Several lines of text, each [`printable`]; line ends and tabs stay.
pub(crate) fn printable_lines(text: &str) -> String {
    let escape = |character: char, escaped: &mut String| escaped.extend(character.escape_default());
    replaced(text, &['\n', '\t'], escape).into_owned()
}

/// `text` with every treacherous character written by `write`, except those in `kept`.
fn replaced<'t>(text: &'t str, kept: &[char], write: impl Fn(char, &mut String)) -> Cow<'t, str> {
    // Nearly every text is: no character has to be decoded.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let is_replaced = |character| is_treacherous(character) && !kept.contains(&character);
    if !text.chars().any(is_replaced) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_replaced(character) {
            write(character, &mut written);
        } else {
            written.push(character);
        }
    }
    Cow::Owned(written)
}

/// Control characters, and format characters of Unicode that terminals interpret (UAX #9, zero
/// width, line and paragraph separators).
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{061C}' | '\u{FEFF}')
}

/// `text` cut to [`LINE_MAX`] bytes, with a mark if it was longer.
pub(crate) fn cut(text: String) -> String {
    const MARK: &str = " [cut]";
    if text.len() <= LINE_MAX {
        return text;
    }
    format!("{}{MARK}", first_bytes(&text, LINE_MAX - MARK.len()))
}

/// At most the first `most` bytes of `text`, in whole characters.
pub(crate) fn first_bytes(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod samples {
    //! One event of each kind, for the golden tests of all formats.
    use super::*;
    use crate::config::{CampaignAction, PortSet};
    use crate::engine::{
        CampaignView, Ending, NotBlocked, Reason, Shared, SlowEnding, SlowedPackets,
    };
    use crate::journal::HostName;
    use crate::probe::{Port, Probe, ScanKind, Signature, Transport};
    use std::net::IpAddr;
    use std::time::Duration;

    pub(crate) const CLASSIC: LogFormat = LogFormat::Classic;

    pub(crate) fn at() -> Timestamp {
        Timestamp::from_second(1_795_188_400).unwrap()
    }

    pub(crate) fn event(notice: Notice) -> Event {
        Event::new(at(), notice)
    }

    pub(crate) fn named(notice: Notice) -> Event {
        Event { name: HostName::checked("scanner.example"), ..event(notice) }
    }

    pub(crate) fn watching(
        transport: Transport,
        mode: &'static str,
        ports: PortSet,
        excluded: &[u16],
        services: &[u16],
    ) -> Notice {
        Notice::Watching {
            transport,
            mode,
            ports,
            excluded: PortSet::of(excluded),
            services: PortSet::of(services),
        }
    }

    fn notified(is_sent: bool, message: &str) -> Notice {
        Notice::Response(Response::Notified {
            channel: "webhook".into(),
            is_test: false,
            is_sent,
            message: message.into(),
        })
    }

    pub(crate) fn command(ended: Ended, output: &str) -> Notice {
        Notice::Response(Response::Command {
            target: "10.77.1.1".into(),
            command: "/bin/page 10.77.1.1 on call".into(),
            ended,
            took: Duration::from_micros(12_345),
            output: output.into(),
        })
    }

    pub(crate) fn scan(
        source: &str,
        kind: ScanKind,
        transport: Transport,
        number: u16,
        not_blocked: Option<&'static str>,
    ) -> Notice {
        let source: IpAddr = source.parse().unwrap();
        Notice::Engine(Report::Scan {
            source: Source::of(source, 64),
            probe: Probe {
                source,
                destination: "192.0.2.1".parse().unwrap(),
                port: Port { transport, number },
                scan: kind,
                ambiguous: false,
                ip_options: false,
                signature: Signature::None,
            },
            reason: reason(kind),
            not_blocked: not_blocked
                .map(|text| NotBlocked::ALL.into_iter().find(|why| why.text() == text).unwrap()),
        })
    }

    pub(crate) fn reason(kind: ScanKind) -> Reason {
        Reason::Scan {
            scan: kind,
            proven: false,
            detail: "3 ports in 0.2s: tcp/1 tcp/2 tcp/3".into(),
        }
    }

    pub(crate) fn blocked(source: &str, number: u16, renewals: u32) -> Notice {
        Notice::Engine(Report::Blocked {
            source: Source::of(source.parse().unwrap(), 64),
            port: Some(Port { transport: Transport::Tcp, number }),
            scanner: source.parse().ok(),
            timeout: Some(Duration::from_secs(60)),
            reason: reason(ScanKind::Syn),
            renewals,
        })
    }

    pub(crate) fn slowed(source: &str, number: u16) -> Notice {
        Notice::Engine(Report::Slowed {
            source: Source::of(source.parse().unwrap(), 64),
            port: Port { transport: Transport::Tcp, number },
            scanner: source.parse().unwrap(),
            timeout: Duration::from_secs(60),
            reason: reason(ScanKind::Syn),
        })
    }

    fn campaign(shared: Shared) -> Notice {
        let is_network = matches!(shared, Shared::Network(_));
        let at = crate::time::MonoTime::default();
        Notice::Engine(Report::Campaign {
            campaign: CampaignView {
                shared,
                sources: 8,
                ports: 16,
                since: at,
                last: at,
                port: Port { transport: Transport::Tcp, number: 22 },
                scanner: "192.0.2.7".parse().unwrap(),
                until: is_network.then_some(at),
            },
            action: if is_network { CampaignAction::Slow } else { CampaignAction::Report },
            timeout: is_network.then_some(Duration::from_secs(60)),
        })
    }

    /// Every kind of notice.
    pub(crate) fn all() -> Vec<Event> {
        let host = Source::of("10.77.1.1".parse().unwrap(), 64);
        [
            Notice::Starting,
            watching(Transport::Tcp, "advanced", PortSet::range(0, 1023), &[113, 139], &[22, 8080]),
            watching(Transport::Udp, "stealth", PortSet::of(&[1, 7]), &[], &[]),
            watching(Transport::Tcp, "connect", PortSet::of(&[1]), &[], &[]),
            Notice::Active,
            scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None),
            blocked("10.77.1.1", 1, 0),
            blocked("10.77.1.1", 1, 1),
            blocked("2001:db8:1::7", 22, 0),
            Notice::Engine(Report::Blocked {
                source: Source::from("192.0.2.0/24".parse::<ipnet::IpNet>().unwrap()),
                port: None,
                scanner: None,
                timeout: None,
                reason: Reason::Manual("abuse".into()),
                renewals: 0,
            }),
            slowed("10.77.1.1", 1),
            Notice::Engine(Report::Continues {
                source: host,
                port: Port { transport: Transport::Tcp, number: 11 },
                scanner: host.addr(),
                state: "slowed",
                reason: reason(ScanKind::Syn),
            }),
            campaign(Shared::Network("192.0.2.0/24".parse::<ipnet::IpNet>().unwrap().into())),
            campaign(Shared::Signature(Signature::Masscan)),
            Notice::Engine(Report::Released {
                source: host,
                ending: SlowEnding::Expired,
                packets: Some(SlowedPackets { passed: 12, dropped: 34 }),
            }),
            Notice::Engine(Report::BlockFailed {
                source: host,
                error: "no space in set\nof 10".into(),
            }),
            Notice::Engine(Report::Unblocked { source: host, ending: Ending::Expired }),
            Notice::Engine(Report::Exempted {
                source: Source::from("10.0.0.0/8".parse::<ipnet::IpNet>().unwrap()),
                exempt: "10.77.1.1/32".parse().unwrap(),
            }),
            Notice::Engine(Report::UnblockFailed { source: host, error: "busy".into() }),
            Notice::Reloaded {
                changes: vec!["scan_trigger: 2 -> 5".into(), "resolve: false -> true".into()],
            },
            Notice::Reloaded { changes: Vec::new() },
            Notice::Switched {
                mode: "enforce",
                detection: "paused",
                confirm_within: Some(Duration::from_secs(300)),
                on_within: Some(Duration::from_secs(60)),
                why: None,
            },
            Notice::Switched {
                mode: "observe",
                detection: "on",
                confirm_within: None,
                on_within: None,
                why: Some("enforcing was not confirmed in time".into()),
            },
            Notice::Control {
                uid: 0,
                user: Some("root".into()),
                pid: Some(12),
                login: Some("ada".into()),
                command: "block 10.77.1.1 --for 0".into(),
                is_done: true,
                result: "10.77.1.1 is blocked\nuntil \x1b[2J".into(),
            },
            Notice::ReloadRefused { findings: "a.yaml:1:2: no\n  remedy: yes".into() },
            Notice::Lost { packets: 3, total: 7 },
            Notice::Shed { packets: 5, total: 9 },
            Notice::NeverBlock { entries: 5 },
            Notice::AllowedName {
                name: "office.example.net".into(),
                added: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
                removed: vec!["192.0.2.9".parse().unwrap()],
            },
            Notice::ForeignChange {
                pid: 12,
                program: "n\x1b[2Jft".into(),
                remedy: "the table was restored".into(),
            },
            command(Ended::Success, "paged\n"),
            command(Ended::Status(3), "no\n\x1b[31mcarrier\n"),
            command(Ended::Signal(9), ""),
            command(Ended::TimedOut(Duration::from_secs(10)), ""),
            command(Ended::NotStarted("no such file or directory".into()), ""),
            Notice::Response(Response::Denied {
                target: "10.77.1.1".into(),
                line: "ALL: 10.77.1.1 : DENY".into(),
            }),
            Notice::Response(Response::NoLongerDenied { target: "10.77.1.1".into() }),
            Notice::Response(Response::Dropped { commands: 2 }),
            notified(true, "1 source blocked"),
            notified(false, "no answer in time"),
            Notice::Status("blocked 3".into()),
            Notice::Adopted { blocks: 2 },
            Notice::Restored { blocks: 3 },
            Notice::Warning("watch out".into()),
            Notice::Error("it broke".into()),
            Notice::HeldBack { lines: 9, within: Duration::from_secs(60) },
            Notice::Stopping { blocks_left: 2 },
        ]
        .into_iter()
        .map(event)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // P13
    #[test]
    fn every_event_gives_lines_without_control_characters_in_every_format() {
        for format in [LogFormat::Classic, LogFormat::Text, LogFormat::Json] {
            for event in samples::all() {
                let lines = lines(&event, format);
                assert!(!lines.is_empty(), "{event:?}");
                for line in lines {
                    assert!(
                        !line.text.chars().any(is_treacherous) && line.text.len() <= LINE_MAX,
                        "{line:?}"
                    );
                }
            }
        }
    }

    proptest! {
        // P13
        #[test]
        fn every_message_is_one_short_line(text in any::<String>(), repeat in 1usize..200) {
            let text = text.repeat(repeat);
            for format in [LogFormat::Classic, LogFormat::Text, LogFormat::Json] {
                let line = message(samples::at(), Level::Warn, "portsentry::nft", &text, format);
                prop_assert!(line.text.len() <= LINE_MAX);
                prop_assert!(!line.text.contains('\n') && !line.text.contains('\x1b'));
                if format == LogFormat::Json {
                    let value: serde_json::Value = serde_json::from_str(&line.text).unwrap();
                    prop_assert_eq!(value.get("event").and_then(|e| e.as_str()), Some("message"));
                }
            }
        }
    }
}
