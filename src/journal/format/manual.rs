//! Tests that portsentry(8) documents every log line and event, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use log::Level;
use serde_json::Value;

use super::samples::{CLASSIC, all, at, event, reason, scan};
use super::{Line, classic, json, lines, message};
use crate::config::PortSet;
use crate::engine::{Ending, Reason, Report, SlowEnding, Source};
use crate::journal::{Event, Notice, Response};
use crate::mdoc::{self, Item, WILD, fits};
use crate::probe::{ScanKind, Transport};

/// Every notice in every variant that a formatter distinguishes.
fn events() -> Vec<Event> {
    let host = Source::of("10.77.1.1".parse().unwrap(), 64);
    let mut notices = Vec::new();
    for kind in [ScanKind::Connect, ScanKind::Syn, ScanKind::Null, ScanKind::Xmas] {
        notices.push(scan("10.77.1.1", kind, Transport::Tcp, 9, None));
    }
    notices.push(scan(
        "10.77.1.1",
        ScanKind::SctpInit,
        Transport::Sctp,
        9,
        Some("never-block address"),
    ));
    notices.push(scan("10.77.1.1", ScanKind::IpProtocol, Transport::Ip, 9, None));
    notices.push(scan("10.77.1.1", ScanKind::Udp, Transport::Udp, 9, Some("udp.action is log")));
    let mut with_options = scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 9, None);
    if let Notice::Engine(Report::Scan { probe, .. }) = &mut with_options {
        probe.ip_options = true;
    }
    notices.push(with_options);
    for (reason, timeout) in [
        (Reason::Manual(Box::default()), None),
        (reason(ScanKind::Syn), None),
        (reason(ScanKind::Syn), Some(Duration::from_secs(9))),
    ] {
        notices.push(Notice::Engine(Report::Blocked {
            source: host,
            port: None,
            scanner: None,
            timeout,
            reason,
            renewals: 0,
        }));
    }
    for ending in [
        Ending::Expired,
        Ending::Manual,
        Ending::Removed,
        Ending::NeverBlock,
        Ending::Total,
        Ending::Services,
    ] {
        notices.push(Notice::Engine(Report::Unblocked { source: host, ending }));
    }
    for ending in [
        SlowEnding::Expired,
        SlowEnding::Proven,
        SlowEnding::Blocked,
        SlowEnding::Manual,
        SlowEnding::NeverBlock,
        SlowEnding::Configuration,
        SlowEnding::Services,
    ] {
        notices.push(Notice::Engine(Report::Released { source: host, ending, packets: None }));
    }
    for (mode, ports, excluded) in [
        ("advanced", PortSet::range(1, 9), PortSet::default()),
        ("advanced", PortSet::range(5, 900), PortSet::range(100, 300)),
        ("stealth", PortSet::range(1, 100), PortSet::default()),
        ("connect", PortSet::range(1, 100), PortSet::default()),
    ] {
        notices.push(Notice::Watching {
            transport: Transport::Tcp,
            mode,
            ports,
            excluded,
            services: PortSet::range(7, 7),
        });
    }
    notices.push(Notice::Stopping { blocks_left: 0 });
    all().into_iter().chain(notices.into_iter().map(event)).collect()
}

/// The index of a notice's kind. A new kind needs a sample in `events` and an entry in the manual.
fn place(notice: &Notice) -> usize {
    match notice {
        Notice::Engine(Report::Scan { .. }) => 0,
        Notice::Engine(Report::Blocked { .. }) => 1,
        Notice::Engine(Report::BlockFailed { .. }) => 2,
        Notice::Engine(Report::Unblocked { .. }) => 3,
        Notice::Engine(Report::UnblockFailed { .. }) => 4,
        Notice::Starting => 5,
        Notice::Watching { .. } => 6,
        Notice::Active => 7,
        Notice::Stopping { .. } => 8,
        Notice::Reloaded { .. } => 9,
        Notice::ReloadRefused { .. } => 10,
        Notice::Lost { .. } => 11,
        Notice::NeverBlock { .. } => 12,
        Notice::Response(Response::Command { .. }) => 13,
        Notice::Response(Response::Denied { .. }) => 14,
        Notice::Response(Response::NoLongerDenied { .. }) => 15,
        Notice::Response(Response::Dropped { .. }) => 16,
        Notice::ForeignChange { .. } => 17,
        Notice::Status(_) => 18,
        Notice::Adopted { .. } => 19,
        Notice::Warning(_) => 20,
        Notice::Error(_) => 21,
        Notice::HeldBack { .. } => 22,
        Notice::Restored { .. } => 23,
        Notice::Shed { .. } => 24,
        Notice::Engine(Report::Exempted { .. }) => 25,
        Notice::Engine(Report::Slowed { .. }) => 26,
        Notice::Engine(Report::Released { .. }) => 27,
        Notice::Engine(Report::Continues { .. }) => 28,
        Notice::Switched { .. } => 29,
        Notice::Control { .. } => 30,
        Notice::Engine(Report::Campaign { .. }) => 31,
        Notice::Response(Response::Notified { .. }) => 32,
        Notice::AllowedName { .. } => 33,
    }
}
const PLACES: usize = 34;

/// The entries of DIAGNOSTICS that are lines of the log, with their patterns.
fn diagnostics() -> Vec<(Item, String)> {
    let section = mdoc::section(&mdoc::page("portsentry.8"), "DIAGNOSTICS");
    let entries = mdoc::items(&section)
        .into_iter()
        .filter(|item| item.subsection != "When it does not start");
    entries.map(|item| (item.clone(), mdoc::pattern(&item.head))).collect()
}

/// Whether the tag is the only fixed text of the pattern, as for records of the `log` crate.
fn is_generic(pattern: &str) -> bool {
    ["adminalert: WARNING: ", "adminalert: ERROR: ", "adminalert: ", "debug: "]
        .iter()
        .any(|tag| pattern.trim_end_matches([WILD, ':', ' ']) == tag.trim_end_matches([':', ' ']))
}

/// The most specific pattern that matches a line.
fn best<'p>(patterns: &'p [(Item, String)], text: &str) -> Option<&'p (Item, String)> {
    let fitting = patterns.iter().filter(|(_, pattern)| fits(pattern, text));
    fitting.max_by_key(|(_, pattern)| pattern.chars().filter(|c| *c != WILD).count())
}

fn records() -> Vec<Line> {
    [Level::Error, Level::Warn, Level::Info, Level::Debug]
        .map(|level| message(at(), level, "portsentry::nft", "anything", CLASSIC))
        .into()
}

#[test]
fn every_notice_has_a_sample() {
    let there: BTreeSet<usize> = events().iter().map(|event| place(&event.notice)).collect();
    assert_eq!(there.len(), PLACES);
}

#[test]
fn every_line_that_the_formatter_can_make_is_among_the_samples() {
    let source = include_str!("classic.rs").split("#[cfg(test)]").next().unwrap();
    let texts: Vec<String> =
        events().iter().flat_map(classic::lines).chain(records()).map(|line| line.text).collect();
    let mut count = 0;
    for tag in ["adminalert:", "attackalert:", "securityalert:", "debug:", "{tag}:"] {
        for literal in source.split(&format!("\"{tag}")).skip(1) {
            let end = literal
                .match_indices('"')
                .find(|(at, _)| !literal[..*at].ends_with('\\'))
                .unwrap()
                .0;
            let literal = format!("{tag}{}", literal[..end].replace("\\\"", "\""));
            let mut pattern = String::new();
            for (at, piece) in literal.split('{').enumerate() {
                let piece = if at == 0 { piece } else { piece.split_once('}').unwrap().1 };
                if at > 0 {
                    pattern.push(WILD);
                }
                pattern.push_str(piece);
            }
            // A literal may be only the start of a line.
            pattern.push(WILD);
            assert!(texts.iter().any(|text| fits(&pattern, text)), "no sample for {literal}");
            count += 1;
        }
    }
    assert!(count >= 30, "{count} lines found in the formatter");
}

#[test]
fn every_classic_line_is_in_the_manual_and_the_manual_has_no_others() {
    let patterns = diagnostics();
    let mut used = BTreeSet::new();
    for event in events() {
        let free = matches!(event.notice, Notice::Warning(_) | Notice::Error(_));
        for (at, line) in lines(&event, CLASSIC).iter().enumerate() {
            let Some((item, pattern)) = best(&patterns, &line.text) else {
                panic!("portsentry(8) has no {:?}", line.text)
            };
            // The findings below "the new configuration was refused" have any text.
            let finding = matches!(event.notice, Notice::ReloadRefused { .. }) && at > 0;
            assert!(
                free || finding || !is_generic(pattern),
                "portsentry(8) has no {:?}",
                line.text
            );
            assert_eq!(
                item.body.join(" ").contains("(debug)"),
                line.level == Level::Debug,
                "the level of {:?}",
                line.text
            );
            used.insert(pattern.clone());
        }
    }
    for line in records() {
        used.extend(best(&patterns, &line.text).map(|(_, pattern)| pattern.clone()));
    }
    for (item, pattern) in &patterns {
        assert!(
            used.contains(pattern),
            "portsentry(8) has a line that is never written: {}",
            item.head
        );
    }
}

#[test]
fn every_event_and_its_keys_are_in_the_manual_and_the_manual_has_no_others() {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let texts = events().into_iter().map(|event| json::line(&event)).chain([json::message(
        Timestamp::UNIX_EPOCH,
        Level::Info,
        "m",
        "t",
    )]);
    for text in texts {
        let object: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
        let kind = object["event"].as_str().unwrap().to_owned();
        let keys = object
            .keys()
            .filter(|key| !matches!(key.as_str(), "time" | "level" | "event"))
            .cloned();
        wanted.entry(kind).or_default().extend(keys);
    }
    let section = mdoc::section(&mdoc::page("portsentry.8"), "EVENTS");
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in mdoc::items(&section) {
        let mut keys = mdoc::arguments(&item.body, "Cm");
        // The manual documents it once, before the list.
        if keys.contains("address") {
            keys.insert("name".to_owned());
        }
        told.insert(mdoc::pattern(&item.head), keys);
    }
    assert_eq!(told, wanted);
}

/// The logcheck(8) rules ignore only what an administrator need not read.
#[test]
fn the_logcheck_rules_ignore_ordinary_lines_and_no_alarm() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/logcheck/portsentry");
    let rules = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<String> =
        events().iter().flat_map(|event| lines(event, CLASSIC)).map(|line| line.text).collect();
    let log: String = lines
        .iter()
        .map(|line| format!("Nov 21 15:26:40 host portsentry[4711]: {line}\n"))
        .collect();
    let passed_by = |rules: &str| -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let (rule, text) = (directory.path().join("rules"), directory.path().join("log"));
        std::fs::write(&rule, rules).unwrap();
        std::fs::write(&text, &log).unwrap();
        // The same command as logcheck's.
        let output = std::process::Command::new("grep")
            .args(["-E", "-f"])
            .arg(&rule)
            .arg(&text)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    for rule in rules.lines() {
        assert!(!passed_by(rule).is_empty(), "no line of ours is like {rule}");
    }
    let passed = passed_by(&rules);
    for line in &passed {
        let text = line.split("]: ").nth(1).unwrap();
        assert!(
            text.starts_with("adminalert: ")
                && !text.contains("ERROR")
                && !text.contains("WARNING"),
            "{line}"
        );
        assert!(!text.contains(" has been blocked") && !text.contains("by hand"), "{line}");
    }
    assert!(passed.len() < lines.len() / 2);
}
