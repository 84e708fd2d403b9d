//! Conversion of configuration and engine reports into orders for the helper.
//!
//! Pure: [`super::HelperClient`] decides what is sent, and when.

use super::shared::BlockInForce;
use jiff::Timestamp;

use crate::config::{
    ClassicMode, CommandOn, Config, Endpoint, Keyword, Notify, NotifyOn, recipients,
};
use crate::engine::{Reason, Report, Source};
use crate::helper::process::Process;
use crate::helper::protocol::{
    Blocked, Class, HostsDeny, Incident, LIST_CHUNK, List, Mail, NotifySettings, Order, Run,
    Server, Settings, TEST_TARGET,
};
use crate::journal::record::Effect;
use crate::journal::{Event, Notice, Record, format};
use crate::probe::{Port, ScanKind, Transport};

pub(super) fn has_files(config: &Config) -> bool {
    config.respond.hosts_deny.enabled || config.blocked_file.is_some()
}

pub(in crate::helper) fn settings(config: &Config) -> Settings {
    let deny = &config.respond.hosts_deny;
    Settings {
        command: config.respond.command.clone(),
        command_timeout: config.respond.command_timeout,
        hosts_deny: deny
            .enabled
            .then(|| HostsDeny { path: deny.path.clone(), line: deny.line.clone() }),
        blocked_file: config.blocked_file.clone(),
        group: config.control.group.clone(),
        modes: [Transport::Tcp, Transport::Udp]
            .into_iter()
            .filter_map(|of| mode_word(config, of))
            .map(str::to_owned)
            .collect(),
        notify: config.notify.is_on().then(|| Box::new(notify(&config.notify))),
    }
}

fn notify(notify: &Notify) -> NotifySettings {
    let server = |of: &Endpoint| Server {
        url: of.url.clone(),
        url_file: of.url_file.clone(),
        secret_file: of.token_file.clone(),
        timeout: None,
    };
    let class = |on: &NotifyOn| match on {
        NotifyOn::Reported => Class::Reported,
        NotifyOn::Slowed => Class::Slowed,
        NotifyOn::Blocked => Class::Blocked,
        NotifyOn::Trouble => Class::Trouble,
    };
    let mail = &notify.sendmail;
    let to: Vec<_> = recipients(&mail.to).map(str::to_owned).collect();
    NotifySettings {
        digest: notify.digest,
        on: notify.on.iter().map(class).collect(),
        sendmail: (!to.is_empty()).then(|| Mail {
            program: mail.program.clone(),
            from: mail.from.trim().to_owned(),
            to,
            timeout: None,
        }),
        webhook: notify.webhook.is_on().then(|| server(&notify.webhook)),
        ntfy: notify.ntfy.is_on().then(|| server(&notify.ntfy)),
        abuseipdb: notify.abuseipdb.key_file.is_some().then(|| Server {
            url: notify.abuseipdb.url.clone(),
            url_file: None,
            secret_file: notify.abuseipdb.key_file.clone(),
            timeout: None,
        }),
        times: None,
    }
}

/// Bytes of a reason that is sent to the helper.
const REASON_MAX: usize = 500;

/// What notifications say of an event; `None`: nothing.
pub(super) fn incident(record: &Record) -> Option<Incident> {
    let detail = |key: &str| record.details.get(key).and_then(|value| value.as_str());
    let number = |key: &str| record.details.get(key).and_then(serde_json::Value::as_u64);
    let reason = || record.reason.clone().unwrap_or_default();
    let (class, reason) = match record.kind.as_str() {
        "scan" if record.effect == Some(Effect::Reported) => (Class::Reported, reason()),
        "slowed" => (Class::Slowed, reason()),
        // An administrator's order is no news to the administrator.
        "blocked" if record.scan.is_some() => (Class::Blocked, reason()),
        "campaign" => {
            let class = match detail("state") {
                Some("blocked") => Class::Blocked,
                Some("slowed") => Class::Slowed,
                _ => Class::Reported,
            };
            let sources = number("sources").unwrap_or_default();
            let ports = number("ports").unwrap_or_default();
            (class, format!("{sources} sources share a scan of {ports} ports"))
        }
        "foreign-change" => {
            let program = detail("program").unwrap_or("another program");
            (
                Class::Trouble,
                format!("{program} changed the table: {}", detail("remedy").unwrap_or_default()),
            )
        }
        "block-failed" | "unblock-failed" => {
            (Class::Trouble, detail("error").unwrap_or_default().to_owned())
        }
        "reload-refused" => (Class::Trouble, detail("findings").unwrap_or_default().to_owned()),
        "lost" => {
            let packets = number("packets").unwrap_or_default();
            (
                Class::Trouble,
                format!("{packets} packets were lost between the kernel and the daemon"),
            )
        }
        "switched" if detail("why").is_some() => {
            (Class::Trouble, detail("why").unwrap_or_default().to_owned())
        }
        _ => return None,
    };
    let one_line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Incident {
        at: record.at.as_second(),
        kind: record.kind.clone(),
        class,
        target: record.network.map(|network| Source::from(network).to_string()),
        name: record.name.clone(),
        is_proven: record.proven == Some(true),
        port: record.port.clone(),
        scan: record.scan.clone(),
        reason: format::first_bytes(&one_line, REASON_MAX).to_owned(),
    })
}

/// The classic mode name for ports of this transport; SCTP and bare IP count as TCP.
pub(super) fn mode_word(config: &Config, transport: Transport) -> Option<&'static str> {
    ClassicMode::of(config, transport == Transport::Udp).map(ClassicMode::word)
}

pub(super) fn run(
    config: &Config,
    source: Source,
    port: Port,
    reason: &Reason,
    state: &str,
) -> Run {
    Run {
        target: source.to_string(),
        port: port.number,
        // Off only after a reload in between: then there is no right name.
        mode: mode_word(config, port.transport).unwrap_or_default().to_owned(),
        protocol: port.transport.name().to_owned(),
        scan: reason.scan().map(|scan| scan.name().to_owned()).unwrap_or_default(),
        reason: reason.to_string(),
        state: state.to_owned(),
    }
}

/// A run of the command for the host of tests, as for a scan.
pub(super) fn test_run(config: &Config) -> Run {
    let state = config.respond.command_on.first().copied().unwrap_or(CommandOn::Blocked);
    Run {
        target: TEST_TARGET.to_owned(),
        port: 1,
        mode: mode_word(config, Transport::Tcp).unwrap_or_default().to_owned(),
        protocol: Transport::Tcp.name().to_owned(),
        scan: ScanKind::Syn.name().to_owned(),
        reason: "a test of the responses, no scan".to_owned(),
        state: state.word().to_owned(),
    }
}

/// A block of the host of tests.
pub(super) fn test_block() -> Blocked {
    let at = Timestamp::now().as_second();
    Blocked { target: TEST_TARGET.to_owned(), mode: None, at, line: None }
}

/// A block as a line of text files. A block adopted from an earlier run keeps its line in the file,
/// but gets no new one: its port is unknown.
pub(super) fn blocked(config: &Config, block: &BlockInForce) -> Blocked {
    let BlockInForce { source, ref reason, port, scanner, at } = *block;
    let report = Report::Blocked {
        source,
        port,
        scanner,
        timeout: None,
        reason: reason.clone(),
        renewals: 0,
    };
    let event = Event::new(at, Notice::Engine(report));
    Blocked {
        target: source.to_string(),
        mode: port
            .filter(|_| reason.scan().is_some())
            .and_then(|port| mode_word(config, port.transport))
            .map(str::to_owned),
        at: at.as_second(),
        line: port.and_then(|_| format::history(&event, &jiff::tz::TimeZone::system())),
    }
}

/// Sends the list of all blocks, in chunks.
pub(super) fn list(helper: &mut Process, config: &Config, blocks: &[BlockInForce], whole: bool) {
    let pieces = blocks.len().div_ceil(LIST_CHUNK).max(1);
    for piece in 0..pieces {
        let rows = blocks.iter().skip(piece * LIST_CHUNK).take(LIST_CHUNK);
        helper.send(&Order::List(List {
            first: piece == 0,
            last: piece + 1 == pieces,
            whole,
            blocks: rows.map(|block| blocked(config, block)).collect(),
        }));
    }
}
