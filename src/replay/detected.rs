//! The sources that would have been detected, and what would have become of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

use jiff::Timestamp;

use super::clock::Clock;
use crate::engine::{MonoTime, NotBlocked, Reason, Report, Source};
use crate::journal::{Event, Notice, format};
use crate::probe::{Port, Probe, ScanKind};

/// Maximum number of detected sources that are listed; further ones are counted.
pub(super) const DETECTED_MAX: usize = 16_384;

/// Times of being slowed or blocked that are listed of one source; further ones are counted.
pub(super) const SPANS_MAX: usize = 16;

/// A time in which a source would have been slowed or blocked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    /// `None`: until it is unblocked.
    pub(super) until: Option<Timestamp>,
    /// A block; otherwise the source is slowed.
    pub(super) is_block: bool,
    /// Why.
    pub(super) reason: String,
    is_over: bool,
}

/// A detected source.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// Kinds of its probes.
    kinds: u16,
    /// The kind of the probe that passed the trigger.
    pub(super) scan: ScanKind,
    pub(super) port: Port,
    /// The address of this host that this probe was sent to.
    pub(super) destination: Option<IpAddr>,
    pub(super) at: Timestamp,
    /// Probes until then.
    pub(super) after: u32,
    /// Probes in all.
    pub(super) probes: u64,
    pub(super) reason: String,
    pub(super) proven: bool,
    /// Why it was not blocked, by the last report.
    pub(super) not_blocked: Option<NotBlocked>,
    pub(super) spans: Vec<Span>,
    /// Spans that are not listed.
    pub(super) more_spans: u64,
    /// Packets that a block would have dropped.
    pub(super) dropped: u64,
}

impl Scanner {
    /// The kinds of its probes, by name.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let kinds = ScanKind::ALL.into_iter();
        kinds.filter(|kind| self.kinds >> *kind as u16 & 1 == 1).map(ScanKind::name).collect()
    }

    fn begin(&mut self, span: Span) {
        if self.spans.len() < SPANS_MAX {
            self.spans.push(span);
        } else {
            self.more_spans += 1;
        }
    }

    fn running(&mut self, is_block: bool) -> Option<&mut Span> {
        let mut spans = self.spans.iter_mut().rev();
        spans.find(|span| span.is_block == is_block && !span.is_over)
    }
}

/// All detected sources; and each event as it happens, if it is asked for.
pub(super) struct Detected<'a> {
    pub(super) sources: BTreeMap<Source, Scanner>,
    /// The campaigns, as events.
    pub(super) campaigns: Vec<Event>,
    /// Sources that are not listed.
    pub(super) more: u64,
    pub(super) clock: Clock,
    events: Option<&'a mut dyn Write>,
    /// Why an event could not be written.
    pub(super) error: Option<std::io::Error>,
}

impl<'a> Detected<'a> {
    pub(super) fn new(events: Option<&'a mut dyn Write>) -> Self {
        let (sources, campaigns) = (BTreeMap::new(), Vec::new());
        Self { sources, campaigns, more: 0, clock: Clock::default(), events, error: None }
    }

    /// Counts a probe of a source that was detected before.
    pub(super) fn probe(&mut self, accounts: &[Source], probe: &Probe) {
        for account in accounts {
            if let Some(scanner) = self.sources.get_mut(account) {
                scanner.probes += 1;
                scanner.kinds |= 1 << probe.scan as u16;
            }
        }
    }

    /// Counts a packet that the block of a source drops.
    pub(super) fn dropped(&mut self, source: Source) {
        if let Some(scanner) = self.sources.get_mut(&source) {
            scanner.dropped += 1;
        }
    }

    /// Takes a report of the engine; `probes` of its source until now.
    pub(super) fn report(&mut self, now: MonoTime, probes: u32, report: Report) {
        let at = self.clock.wall(now);
        self.write(at, &report);
        match report {
            Report::Scan { source, probe, reason, not_blocked } => {
                let first = (probe.scan, probe.port, Some(probe.destination));
                let Some(scanner) = self.scanner(source, at, probes, first, &reason) else {
                    return;
                };
                scanner.not_blocked = not_blocked;
                scanner.kinds |= 1 << probe.scan as u16;
                if let Reason::Scan { proven: true, .. } = reason {
                    scanner.proven = true;
                }
            }
            Report::Slowed { source, port, reason, .. } => {
                let first = (reason.scan().unwrap_or(ScanKind::Syn), port, None);
                let Some(scanner) = self.scanner(source, at, probes, first, &reason) else {
                    return;
                };
                let reason = reason.to_string();
                scanner.begin(Span {
                    from: at,
                    until: None,
                    is_block: false,
                    reason,
                    is_over: false,
                });
            }
            Report::Released { source, .. } => self.end(source, false, at),
            Report::Blocked { source, timeout, reason, renewals, .. } => {
                let until = timeout.map(|timeout| self.clock.wall(now.after(timeout)));
                let Some(scanner) = self.sources.get_mut(&source) else { return };
                scanner.proven |= !reason.is_unproven_scan();
                if renewals > 0
                    && let Some(span) = scanner.running(true)
                {
                    span.until = until;
                    return;
                }
                // A proof replaces the short block.
                if let Some(span) = scanner.running(true) {
                    (span.until, span.is_over) = (Some(at), true);
                }
                let reason = reason.to_string();
                scanner.begin(Span { from: at, until, is_block: true, reason, is_over: false });
            }
            Report::Unblocked { source, .. } => self.end(source, true, at),
            Report::Campaign { .. } if self.campaigns.len() < DETECTED_MAX => {
                self.campaigns.push(Event::new(at, Notice::Engine(report)));
            }
            Report::Campaign { .. } => self.more += 1,
            Report::BlockFailed { .. }
            | Report::Continues { .. }
            | Report::Exempted { .. }
            | Report::UnblockFailed { .. } => {}
        }
    }

    fn end(&mut self, source: Source, is_block: bool, at: Timestamp) {
        let span = self.sources.get_mut(&source).and_then(|scanner| scanner.running(is_block));
        if let Some(span) = span {
            (span.until, span.is_over) = (Some(at), true);
        }
    }

    /// The source of a report: listed with its first one.
    fn scanner(
        &mut self,
        source: Source,
        at: Timestamp,
        probes: u32,
        (scan, port, destination): (ScanKind, Port, Option<IpAddr>),
        reason: &Reason,
    ) -> Option<&mut Scanner> {
        if self.sources.len() >= DETECTED_MAX && !self.sources.contains_key(&source) {
            self.more += 1;
            return None;
        }
        Some(self.sources.entry(source).or_insert_with(|| Scanner {
            kinds: 1 << scan as u16,
            scan,
            port,
            destination,
            at,
            after: probes,
            probes: u64::from(probes),
            reason: reason.to_string(),
            proven: false,
            not_blocked: None,
            spans: Vec::new(),
            more_spans: 0,
            dropped: 0,
        }))
    }

    /// Writes the events that wait.
    pub(super) fn finish(&mut self) {
        if let (Some(events), None) = (self.events.take(), &self.error) {
            self.error = events.flush().err();
        }
    }

    fn write(&mut self, at: Timestamp, report: &Report) {
        let Some(events) = self.events.as_mut().filter(|_| self.error.is_none()) else { return };
        let event = Event::new(at, Notice::Engine(report.clone()));
        self.error = writeln!(events, "{}", format::json(&event)).err();
    }
}
