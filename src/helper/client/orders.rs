//! Conversion of configuration and engine reports into orders for the helper.
//!
//! Pure: [`super::HelperClient`] decides what is sent, and when.

use super::shared::BlockInForce;
use jiff::Timestamp;

use crate::config::{ClassicMode, CommandOn, Config, Keyword};
use crate::engine::{Reason, Report, Source};
use crate::helper::process::Process;
use crate::helper::protocol::{
    Blocked, HostsDeny, LIST_CHUNK, List, Order, Run, Settings, TEST_TARGET,
};
use crate::journal::{Event, Notice, format};
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
    }
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
