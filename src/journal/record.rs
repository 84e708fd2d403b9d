//! What the event store keeps of an event: the facts of its JSON form, the well-known ones as typed
//! values. Kinds of events that are added later are stored without a change here.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::format::facts;
use super::history::{self, State};
use super::{Event, Notice};
use crate::engine::{Source, Trace};

/// The kinds of records, in the order in which they come about. portsentryctl(8) lists them.
pub const KINDS: &[&str] = &[
    "scan",
    "slowed",
    "continues",
    "proven",
    "released",
    "blocked",
    "renewed",
    "exempted",
    "unblocked",
    "block-failed",
    "unblock-failed",
    "campaign",
    "order",
    "command",
    "denied",
    "no-longer-denied",
    "commands-dropped",
    "notified",
    "starting",
    "stopping",
    "reloaded",
    "reload-refused",
    "switched",
    "adopted",
    "restored",
    "foreign-change",
    "lost",
    "shed",
    NOT_STORED,
];

/// The kind of a record that stands for events that were not stored.
pub const NOT_STORED: &str = "not-stored";

/// An order of the administrator.
pub const ORDER: &str = "order";

/// Longest text of a record, in bytes.
const TEXT_MAX: usize = 1000;

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A block is in force, or ordered.
    Blocked,
    /// The source is slowed.
    Slowed,
    /// It is only reported.
    Reported,
    /// A block ended, or a source is not slowed any more.
    Ended,
    /// What was ordered is done.
    Done,
    /// It failed, or was refused.
    Failed,
}

impl Effect {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Blocked, Self::Slowed, Self::Reported, Self::Ended, Self::Done, Self::Failed];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Slowed => "slowed",
            Self::Reported => "reported",
            Self::Ended => "ended",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The effect that a word stands for.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effect| effect.word() == word)
    }
}

/// A port that a source touched, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it was last touched, in milliseconds before the event.
    pub age: u64,
    /// The port, `tcp/22`.
    pub port: String,
    /// The kind of the probe.
    pub scan: String,
    /// What it means for the decision: a word of [`crate::engine::Weight`].
    pub weight: String,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Time of day.
    pub at: Timestamp,
    /// The kind: one of [`KINDS`].
    pub kind: String,
    /// The host or network that it is about.
    pub network: Option<IpNet>,
    /// Its name.
    pub name: Option<String>,
    /// The port of the probe that caused it, `tcp/22`.
    pub port: Option<String>,
    /// What came of it.
    pub effect: Option<Effect>,
    /// The kind of scan.
    pub scan: Option<String>,
    /// Whether the source is proven.
    pub proven: Option<bool>,
    /// The reason, or an administrator's order.
    pub reason: Option<String>,
    /// The planned end of a block or of slowing; `None`: none.
    pub until: Option<Timestamp>,
    /// When the block or the slowing that begins here ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<String>,
    /// Probes of the source so far.
    pub probes: Option<u64>,
    /// When it was first seen.
    pub first_seen: Option<Timestamp>,
    /// The ports that it had touched.
    pub touched: Vec<Probed>,
    /// Further facts.
    pub details: Map<String, Value>,
}

impl Record {
    /// A record with nothing but its time and kind.
    pub fn new(at: Timestamp, kind: &str) -> Self {
        Self {
            at,
            kind: kind.to_owned(),
            network: None,
            name: None,
            port: None,
            effect: None,
            scan: None,
            proven: None,
            reason: None,
            until: None,
            ended: None,
            ending: None,
            probes: None,
            first_seen: None,
            touched: Vec::new(),
            details: Map::new(),
        }
    }

    /// An order of the administrator, and what came of it.
    pub fn order(at: Timestamp, about: Option<IpNet>, order: &str, done: Result<(), &str>) -> Self {
        let mut record = Self { network: about, ..Self::new(at, ORDER) };
        record.reason = Some(super::format::first_bytes(order, TEXT_MAX).to_owned());
        record.effect = Some(if done.is_ok() { Effect::Done } else { Effect::Failed });
        if let Err(why) = done {
            let why = super::format::first_bytes(why, TEXT_MAX);
            record.details.insert("error".to_owned(), why.into());
        }
        record
    }

    /// A record of events that were not stored.
    pub fn not_stored(at: Timestamp, events: u64) -> Self {
        let mut record = Self::new(at, NOT_STORED);
        record.details.insert("events".to_owned(), events.into());
        record
    }

    /// The record of an event; `None`: it is not stored.
    pub fn of(event: &Event) -> Option<Self> {
        if !is_stored(&event.notice) {
            return None;
        }
        let mut record = Self::new(event.at, "");
        for (key, value) in facts(event) {
            record.take(key, value);
        }
        record.finish();
        if let Some(trace) = &event.trace {
            record.add_trace(trace);
        }
        Some(record)
    }

    /// A line of the classic history file.
    pub fn of_line(line: history::Entry) -> Self {
        let network = line.network();
        let (kind, effect) = match line.state {
            State::Blocked => ("blocked", Effect::Blocked),
            State::Slowed => ("slowed", Effect::Slowed),
            State::Reported => ("scan", Effect::Reported),
        };
        let mut record = Self::new(line.at, kind);
        record.network = Some(network);
        record.effect = Some(effect);
        // Their ends are not known.
        record.ended = Some(line.at).filter(|_| kind != "scan");
        record.ending = record.ended.map(|_| UNKNOWN_END.to_owned());
        if line.protocol == "MANUAL" {
            record.reason = Some("by hand".to_owned());
            record.proven = Some(true);
        } else {
            record.port = Some(format!("{}/{}", line.protocol.to_ascii_lowercase(), line.port));
        }
        record.name = Some(line.host)
            .filter(|host| host.parse::<IpNet>().is_err() && host.parse::<IpAddr>().is_err());
        record
    }

    /// What a line of the classic history file says of it; `None`: it has no line.
    pub fn state(&self) -> Option<State> {
        match (self.kind.as_str(), self.effect) {
            ("blocked", _) => Some(State::Blocked),
            ("slowed", _) => Some(State::Slowed),
            ("scan", Some(Effect::Reported)) => Some(State::Reported),
            _ => None,
        }
    }

    /// Whether forged packets may have caused it.
    pub fn is_unproven(&self) -> bool {
        match self.kind.as_str() {
            "scan" | "blocked" | "renewed" => self.proven == Some(false),
            "slowed" | "continues" | "released" | "unblocked" | "exempted" => true,
            _ => false,
        }
    }

    fn take(&mut self, key: &'static str, value: Value) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match key {
            "event" => self.kind = text(&value).unwrap_or_default(),
            "address" => match value.as_str().and_then(network) {
                Some(network) => self.network = Some(network),
                None => drop(self.details.insert(key.to_owned(), value)),
            },
            "name" => self.name = text(&value),
            "port" => self.port = text(&value),
            "scan" => self.scan = text(&value),
            "proven" => self.proven = value.as_bool(),
            "reason" => self.reason = text(&value),
            "ending" => self.ending = text(&value),
            "timeout" => {
                self.until =
                    value.as_u64().and_then(|seconds| i64::try_from(seconds).ok()).and_then(
                        |seconds| self.at.checked_add(SignedDuration::from_secs(seconds)).ok(),
                    );
            }
            _ if !value.is_null() => drop(self.details.insert(key.to_owned(), value)),
            _ => {}
        }
    }

    /// Sets what follows from the facts.
    fn finish(&mut self) {
        let flag = |details: &mut Map<String, Value>, key| {
            details.remove(key).and_then(|value| value.as_bool())
        };
        let blocking = flag(&mut self.details, "blocking");
        let renewed = flag(&mut self.details, "renewed");
        if self.kind == "blocked" && renewed == Some(true) {
            self.kind = "renewed".to_owned();
        }
        if self.kind == "released" && self.ending.as_deref() == Some("proven") {
            self.kind = "proven".to_owned();
        }
        let about = self.network.map(|network| Source::from(network).to_string());
        // What goes without saying.
        self.details.retain(|key, value| match key.as_str() {
            "renewals" => *value != 0,
            "ip_options" => *value != false,
            "source" => value.as_str() != about.as_deref(),
            _ => true,
        });
        let is_slowed = || {
            let why = self.details.get("not_blocked").and_then(Value::as_str);
            why == Some(crate::engine::NotBlocked::Slowed.text())
        };
        self.effect = match self.kind.as_str() {
            "scan" if blocking == Some(true) => Some(Effect::Blocked),
            "scan" | "continues" if is_slowed() => Some(Effect::Slowed),
            "scan" => Some(Effect::Reported),
            "continues" => self
                .details
                .remove("state")
                .as_ref()
                .and_then(Value::as_str)
                .and_then(Effect::of_word),
            "blocked" | "renewed" => Some(Effect::Blocked),
            "slowed" => Some(Effect::Slowed),
            "released" | "proven" | "unblocked" | "exempted" => Some(Effect::Ended),
            "block-failed" | "unblock-failed" | "reload-refused" | "commands-dropped" => {
                Some(Effect::Failed)
            }
            "command" | "notified" => {
                let done = flag(&mut self.details, "done");
                Some(if done == Some(true) { Effect::Done } else { Effect::Failed })
            }
            "denied" | "no-longer-denied" | "reloaded" => Some(Effect::Done),
            _ => None,
        };
    }

    fn add_trace(&mut self, trace: &Trace) {
        let age = SignedDuration::try_from(trace.first).ok();
        self.first_seen = age.and_then(|age| self.at.checked_sub(age).ok());
        self.probes = Some(trace.probes.into());
        self.touched = probed(trace);
    }
}

/// Whether the event store keeps such events: those of sources, and those that explain gaps in what
/// is known of sources.
pub(super) fn is_stored(notice: &Notice) -> bool {
    match notice {
        Notice::Engine(_)
        | Notice::Response(_)
        | Notice::Starting
        | Notice::Stopping { .. }
        | Notice::Reloaded { .. }
        | Notice::ReloadRefused { .. }
        | Notice::Adopted { .. }
        | Notice::Restored { .. }
        | Notice::Lost { .. }
        | Notice::Shed { .. }
        | Notice::Switched { .. }
        | Notice::ForeignChange { .. } => true,
        // The request handler has it stored as an order, with the time before what came of it.
        Notice::Control { .. } => false,
        Notice::Watching { .. }
        | Notice::Active
        | Notice::NeverBlock { .. }
        | Notice::AllowedName { .. }
        | Notice::Status(_)
        | Notice::Warning(_)
        | Notice::Error(_)
        | Notice::HeldBack { .. } => false,
    }
}

/// How a block ended that nothing is known of.
pub const UNKNOWN_END: &str = "unknown";

/// The touched ports of a trace.
pub fn probed(trace: &Trace) -> Vec<Probed> {
    trace
        .touches
        .iter()
        .map(|touch| Probed {
            age: u64::try_from(touch.age.as_millis()).unwrap_or(u64::MAX),
            port: touch.port.to_string(),
            scan: touch.scan.name().to_owned(),
            weight: touch.weight.word().to_owned(),
        })
        .collect()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>()
        .map(|address| Source::of(address, 128).network())
        .or_else(|_| text.parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::format::{history as line_of, samples};
    use super::*;
    use crate::engine::{Report, SlowEnding, TraceTouch, Weight};
    use crate::probe::{ScanKind, Transport};

    fn record(notice: Notice) -> Record {
        Record::of(&samples::event(notice)).unwrap()
    }

    #[test]
    fn every_event_about_a_source_is_stored_as_one_of_the_known_kinds() {
        let mut kinds = BTreeSet::new();
        for event in samples::all() {
            match Record::of(&event) {
                Some(record) => drop(kinds.insert(record.kind)),
                None => assert!(!matches!(event.notice, Notice::Engine(_) | Notice::Response(_))),
            }
        }
        assert!(kinds.iter().all(|kind| KINDS.contains(&kind.as_str())), "{kinds:?}");
        assert!(kinds.contains("renewed") && kinds.len() >= 18, "{kinds:?}");
    }

    #[test]
    fn those_with_a_line_in_the_classic_file_have_its_state() {
        for event in samples::all() {
            let line = line_of(&event, &jiff::tz::TimeZone::UTC);
            let state = line.and_then(|line| history::Entry::parse(&line)).map(|line| line.state);
            assert_eq!(Record::of(&event).and_then(|record| record.state()), state, "{event:?}");
        }
    }

    #[test]
    fn a_record_has_the_facts_of_the_log_as_values() {
        let blocked = record(samples::blocked("2001:db8:1::7", 22, 0));
        assert_eq!(blocked.network, Some("2001:db8:1::/64".parse().unwrap()));
        assert_eq!(
            (blocked.port.as_deref(), blocked.scan.as_deref()),
            (Some("tcp/22"), Some("syn"))
        );
        assert_eq!(blocked.until, samples::at().checked_add(SignedDuration::from_secs(60)).ok());
        assert_eq!((blocked.proven, blocked.effect), (Some(false), Some(Effect::Blocked)));
        assert!(blocked.is_unproven() && blocked.details.is_empty(), "{blocked:?}");
        let renewed = record(samples::blocked("10.77.1.1", 1, 3));
        assert_eq!((renewed.kind.as_str(), &renewed.details["renewals"]), ("renewed", &3.into()));
        let scan = |why| record(samples::scan("10.77.1.1", ScanKind::Udp, Transport::Udp, 53, why));
        for (why, effect) in [
            (None, Effect::Blocked),
            (Some("slowed until its address is proven"), Effect::Slowed),
            (Some("udp.action is log"), Effect::Reported),
        ] {
            let scan = scan(why);
            assert_eq!(scan.effect, Some(effect), "{why:?}");
            assert_eq!(scan.details.get("not_blocked").and_then(Value::as_str), why);
            assert!(!scan.details.contains_key("source"), "{scan:?}");
        }
        let source = Source::of("10.77.1.1".parse().unwrap(), 64);
        let released =
            |ending| record(Notice::Engine(Report::Released { source, ending, packets: None }));
        assert_eq!(released(SlowEnding::Proven).kind, "proven");
        assert_eq!(released(SlowEnding::Expired).kind, "released");
        let failed = record(samples::command(super::super::Ended::Status(3), "no carrier"));
        assert_eq!((failed.effect, &failed.details["status"]), (Some(Effect::Failed), &3.into()));
    }

    #[test]
    fn what_a_source_did_goes_with_the_event() {
        let touch = |port: &str, weight, age| TraceTouch {
            port: port.parse().unwrap(),
            scan: ScanKind::Syn,
            weight,
            age: Duration::from_millis(age),
        };
        let trace = Trace {
            probes: 7,
            first: Duration::from_secs(9),
            touches: vec![touch("tcp/1", Weight::Counts, 5000), touch("udp/2", Weight::Reply, 10)],
        };
        let mut event = samples::event(samples::slowed("10.77.1.1", 1));
        event.trace = Some(Box::new(trace));
        let record = Record::of(&event).unwrap();
        assert_eq!(record.probes, Some(7));
        assert_eq!(record.first_seen, samples::at().checked_sub(SignedDuration::from_secs(9)).ok());
        let probed: Vec<_> = record
            .touched
            .iter()
            .map(|touched| (touched.age, touched.port.as_str(), touched.weight.as_str()))
            .collect();
        assert_eq!(probed, [(5000, "tcp/1", "counts"), (10, "udp/2", "reply")]);
    }
}
