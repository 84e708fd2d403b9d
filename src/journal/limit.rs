//! Rate limits for log lines that remote packets cause: token buckets, and counts of held-back
//! lines.
//!
//! Pure: time is a parameter. Each class of lines has its own bucket, and all share a common one.
//! Lines about unverified sources, of which a forger can cause any number, leave half of the common
//! bucket to the others: a flood of forged sources does not silence a real scanner.

use std::collections::HashMap;
use std::time::Duration;

use crate::engine::Report;
use crate::journal::{Notice, Response};
use crate::rate::TokenBucket;
use crate::time::MonoTime;

/// The period of all rates, and the least time between two [`Notice::HeldBack`].
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// Lines of all classes at once, and in each further [`INTERVAL`]. 200 lines of 200 bytes a minute
/// are at most 58 MB a day, which log rotation copes with.
pub(crate) const TOTAL: u32 = 100;

/// Lines of the history that packets cause, at once, and in each further [`INTERVAL`]. Twice the
/// default of `block.unproven.per_minute`; at 80 bytes a line at most 138 MB a day.
pub(crate) const HISTORY: u32 = 1200;

/// Names looked up only for `watch`, of events whose lines are not written; at once, and in each
/// further [`INTERVAL`].
pub(crate) const WATCHED_NAMES: u32 = 60;

/// Events without a line in the log that are stored, at once, and in each further [`INTERVAL`]. As
/// many as the default of `block.unproven.per_minute`.
pub(crate) const RECORDS: u32 = 600;

/// How long after a line about an unverified source was held back the lines about those that
/// continue are written: it may be the line of a source whose scan is slow.
const CONTINUING_AFTER: Duration = Duration::from_secs(600);

/// Lines that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Scans of verified sources.
    ScanProven,
    /// Scans of unverified sources, and that they are slowed.
    ScanUnproven,
    /// Unverified sources that continue. Written only while other lines about unverified sources
    /// are held back: else the first ones say it.
    Continuing,
    /// Campaigns, as many as the engine reports in a minute.
    Campaign,
    /// Blocks of verified sources.
    BlockProven,
    /// Blocks of unverified sources.
    BlockUnproven,
    /// Blocks and slowed sources that ended.
    Ended,
    /// Blocks and unblocks that the kernel refused.
    Failed,
    /// Lost and shed packets.
    Lost,
    /// Results of responses beside the block.
    Response,
    /// `log` records of other modules, which a packet may have caused too.
    Message,
    /// Lines of the history file that packets cause. They do not count for the total: each stands
    /// for a block in the kernel, a slowed source, or a scan that the engine reports once per window
    /// and source.
    History,
}

impl Class {
    /// The class of a notice; `None` if no remote packet can cause it.
    pub(crate) fn of(notice: &Notice) -> Option<Self> {
        Some(match notice {
            Notice::Engine(Report::Scan { reason, .. }) if reason.proven() => Self::ScanProven,
            Notice::Engine(Report::Scan { .. } | Report::Slowed { .. }) => Self::ScanUnproven,
            Notice::Engine(Report::Continues { .. }) => Self::Continuing,
            Notice::Engine(Report::Campaign { .. }) => Self::Campaign,
            Notice::Engine(Report::Blocked { reason, .. }) if reason.is_order() => return None,
            Notice::Engine(Report::Blocked { reason, .. }) if reason.proven() => Self::BlockProven,
            Notice::Engine(Report::Blocked { .. }) => Self::BlockUnproven,
            Notice::Engine(
                Report::Unblocked { .. } | Report::Exempted { .. } | Report::Released { .. },
            ) => Self::Ended,
            // Dropped commands are reported every ten seconds at most, and stand for the lines that
            // are held back.
            Notice::Engine(Report::BlockFailed { .. } | Report::UnblockFailed { .. })
            | Notice::Response(Response::Dropped { .. }) => Self::Failed,
            Notice::Lost { .. } | Notice::Shed { .. } => Self::Lost,
            // One for each digest and channel.
            Notice::Response(Response::Notified { .. }) => return None,
            Notice::Response(_) => Self::Response,
            Notice::Starting
            | Notice::Watching { .. }
            | Notice::Active
            | Notice::Stopping { .. }
            | Notice::Reloaded { .. }
            | Notice::Switched { .. }
            // Only root's commands change anything.
            | Notice::Control { .. }
            | Notice::ReloadRefused { .. }
            | Notice::NeverBlock { .. }
            // The owner of the name decides how many: at most sixteen addresses an interval.
            | Notice::AllowedName { .. }
            | Notice::ForeignChange { .. }
            | Notice::Status(_)
            | Notice::Adopted { .. }
            | Notice::Restored { .. }
            | Notice::Warning(_)
            | Notice::Error(_)
            | Notice::HeldBack { .. } => return None,
        })
    }

    /// The class of a notice's line in the history file; `None` if no remote packet can cause it: an
    /// administrator blocks.
    pub(crate) fn of_history(notice: &Notice) -> Option<Self> {
        match notice {
            Notice::Engine(Report::Blocked { reason, .. }) if reason.is_order() => None,
            _ => Some(Self::History),
        }
    }

    /// Lines at once, and in each further [`INTERVAL`]; and lines that this class leaves in the
    /// common bucket.
    const fn limits(self) -> (u32, u32) {
        match self {
            Self::ScanProven | Self::BlockProven => (60, 0),
            // As many as the engine reports in a minute.
            Self::Continuing => (30, 0),
            Self::ScanUnproven | Self::BlockUnproven | Self::Ended => (30, TOTAL / 2),
            Self::Campaign => (10, 0),
            Self::Failed => (20, 0),
            Self::Response | Self::Message => (20, TOTAL / 2),
            Self::Lost => (6, TOTAL / 2),
            Self::History => (HISTORY, 0),
        }
    }
}

/// The buckets and the counts of held-back lines.
#[derive(Debug)]
pub(crate) struct Limiter {
    total: TokenBucket,
    /// One for each class that was needed.
    classes: HashMap<Class, TokenBucket>,
    names: TokenBucket,
    records: TokenBucket,
    held: u64,
    held_since: Option<MonoTime>,
    ever_held: u64,
    /// When a line about an unverified source was held back last.
    unproven_held: Option<MonoTime>,
}

impl Default for Limiter {
    /// Full buckets.
    fn default() -> Self {
        Self {
            total: TokenBucket::per_minute(TOTAL),
            classes: HashMap::new(),
            names: TokenBucket::per_minute(WATCHED_NAMES),
            records: TokenBucket::per_minute(RECORDS),
            held: 0,
            held_since: None,
            ever_held: 0,
            unproven_held: None,
        }
    }
}

impl Limiter {
    /// Whether `lines` lines of `class` may be written now: all or none. Refused lines are counted.
    pub(crate) fn admit(&mut self, class: Class, lines: u32, now: MonoTime) -> bool {
        if class == Class::Continuing
            && self.unproven_held.is_none_or(|at| now.since(at) > CONTINUING_AFTER)
        {
            return false;
        }
        let (at_once, reserve) = class.limits();
        let full = || TokenBucket::per_minute(at_once);
        let bucket = self.classes.entry(class).or_insert_with(full);
        let count = u64::from(lines);
        let counts_for_total = class != Class::History;
        if bucket.has(now, count)
            && (!counts_for_total || self.total.take_many(now, count, reserve.into()))
        {
            return bucket.take_many(now, count, 0);
        }
        if matches!(class, Class::ScanUnproven | Class::BlockUnproven) {
            self.unproven_held = Some(now);
        }
        self.held = self.held.saturating_add(count);
        self.ever_held = self.ever_held.saturating_add(count);
        self.held_since.get_or_insert(now);
        false
    }

    /// Whether a name may be looked up only for `watch`. Names for written lines need no
    /// permission.
    pub(crate) fn admit_name(&mut self, now: MonoTime) -> bool {
        self.names.take(now)
    }

    /// Whether an event that has no line in the log may be stored.
    pub(crate) fn admit_record(&mut self, now: MonoTime) -> bool {
        self.records.take(now)
    }

    /// Lines held back and the time span, once [`INTERVAL`] has passed since the first; resets the
    /// count.
    pub(crate) fn next_held_back(&mut self, now: MonoTime) -> Option<(u64, Duration)> {
        if self.next_due(now)?.is_zero() { self.rest(now) } else { None }
    }

    /// Lines held back and not yet reported, at the end.
    pub(crate) fn rest(&mut self, now: MonoTime) -> Option<(u64, Duration)> {
        let within = now.since(self.held_since.take()?);
        Some((std::mem::take(&mut self.held), within))
    }

    /// Time until [`Limiter::next_held_back`] returns something; `None` if no line was held back.
    pub(crate) fn next_due(&self, now: MonoTime) -> Option<Duration> {
        Some(INTERVAL.saturating_sub(now.since(self.held_since?)))
    }

    /// Lines held back since the start.
    pub(crate) fn ever_held(&self) -> u64 {
        self.ever_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reason;
    use proptest::prelude::*;

    const CLASSES: [Class; 12] = [
        Class::ScanProven,
        Class::ScanUnproven,
        Class::Continuing,
        Class::Campaign,
        Class::BlockProven,
        Class::BlockUnproven,
        Class::Ended,
        Class::Failed,
        Class::Lost,
        Class::Response,
        Class::Message,
        Class::History,
    ];

    #[test]
    fn each_class_has_its_own_bucket() {
        let mut limiter =
            Limiter { unproven_held: Some(MonoTime::default()), ..Limiter::default() };
        for class in CLASSES {
            assert!(limiter.admit(class, 0, MonoTime::default()));
            let bucket = limiter.classes.get_mut(&class).unwrap();
            let taken = (0..2000).filter(|_| bucket.take(MonoTime::default())).count();
            assert_eq!(taken, class.limits().0 as usize);
        }
    }

    // P9
    #[test]
    fn a_flood_of_forged_sources_does_not_silence_a_proven_scanner() {
        let mut limiter = Limiter::default();
        for millis in 0..120_000 {
            for class in [
                Class::ScanUnproven,
                Class::BlockUnproven,
                Class::Ended,
                Class::Lost,
                Class::Message,
            ] {
                limiter.admit(class, 1, MonoTime::from_millis(millis));
            }
        }
        for _ in 0..20 {
            assert!(limiter.admit(Class::ScanProven, 1, MonoTime::from_millis(120_000)));
            assert!(limiter.admit(Class::BlockProven, 1, MonoTime::from_millis(120_000)));
        }
    }

    // P9
    #[test]
    fn a_source_that_continues_has_a_line_while_the_first_ones_are_held_back() {
        let mut limiter = Limiter::default();
        let at = MonoTime::from_millis;
        assert!(limiter.admit(Class::ScanUnproven, 1, at(0)));
        assert!(!limiter.admit(Class::Continuing, 1, at(0)), "its first line says it");
        assert_eq!(limiter.ever_held(), 0);
        for millis in 0..60_000 {
            for class in [Class::ScanUnproven, Class::BlockUnproven, Class::Ended, Class::Message] {
                limiter.admit(class, 1, at(millis));
            }
        }
        for millis in 0..20 {
            assert!(limiter.admit(Class::Continuing, 1, at(60_000 + millis)));
        }
        assert!(limiter.admit(Class::Continuing, 1, at(600_000)));
        assert!(!limiter.admit(Class::Continuing, 1, at(700_000)));
    }

    #[test]
    fn held_back_lines_are_counted_and_reported_once_an_interval() {
        let mut limiter = Limiter::default();
        let mut admitted = 0;
        let mut told = Vec::new();
        for second in 0..180 {
            let now = MonoTime::from_millis(second * 1000);
            for _ in 0..100 {
                admitted += u64::from(limiter.admit(Class::ScanUnproven, 1, now));
            }
            told.extend(limiter.next_held_back(now));
        }
        assert_eq!(told.len(), 2, "{told:?}");
        let rest = limiter.rest(MonoTime::from_millis(180_000)).unwrap().0;
        assert_eq!(admitted + told.iter().map(|(lines, _)| lines).sum::<u64>() + rest, 18_000);
        assert_eq!(limiter.ever_held(), 18_000 - admitted);
        assert_eq!(limiter.rest(MonoTime::from_millis(180_000)), None);
    }

    #[test]
    fn what_an_administrator_blocks_is_not_limited() {
        let notice = |reason| {
            Notice::Engine(Report::Blocked {
                source: crate::engine::Source::of("192.0.2.1".parse().unwrap(), 64),
                scanner: None,
                timeout: None,
                port: None,
                reason,
                renewals: 0,
            })
        };
        let manual = notice(Reason::Manual(Box::default()));
        assert_eq!((Class::of(&manual), Class::of_history(&manual)), (None, None));
        let scan = crate::journal::format::samples::blocked("192.0.2.1", 1, 0);
        assert_eq!(Class::of_history(&scan), Some(Class::History));
    }

    #[test]
    fn a_line_after_a_quiet_time_is_written() {
        let mut limiter = Limiter::default();
        while limiter.admit(Class::Lost, 1, MonoTime::default()) {}
        assert!(!limiter.admit(Class::Lost, 1, MonoTime::from_millis(9_999)));
        assert!(limiter.admit(Class::Lost, 1, MonoTime::from_millis(10_000)));
    }

    #[test]
    fn watchers_cause_few_lookups_and_hold_no_line_back() {
        let mut limiter = Limiter::default();
        let asked =
            (0..60_000).filter(|millis| limiter.admit_name(MonoTime::from_millis(*millis))).count();
        assert_eq!(asked, 2 * WATCHED_NAMES as usize - 1);
        assert_eq!(limiter.ever_held(), 0);
        assert!(limiter.admit(Class::ScanProven, 1, MonoTime::from_millis(60_000)));
    }

    proptest! {
        // P9, D10
        #[test]
        fn no_stream_of_events_yields_more_lines_than_the_limit(
            events in proptest::collection::vec((0usize..CLASSES.len(), 1u32..4, 0u64..400), 1..2000),
        ) {
            let mut limiter = Limiter::default();
            let mut now = 5_000;
            let mut written: Vec<(u64, Class, u32)> = Vec::new();
            for (class, lines, pause) in events {
                now += pause;
                if limiter.admit(CLASSES[class], lines, MonoTime::from_millis(now)) {
                    written.push((now, CLASSES[class], lines));
                }
            }
            let interval = u64::try_from(INTERVAL.as_millis()).unwrap();
            for (position, (start, _, _)) in written.iter().enumerate() {
                let within: Vec<_> = written[position..].iter().take_while(|(at, _, _)| at - start < interval).collect();
                for class in CLASSES {
                    let lines: u32 = within.iter().filter(|(_, of, _)| *of == class).map(|(_, _, lines)| lines).sum();
                    prop_assert!(lines <= 2 * class.limits().0);
                }
                let lines: u32 = within.iter().filter(|(_, of, _)| *of != Class::History).map(|(_, _, lines)| lines).sum();
                prop_assert!(lines <= 2 * TOTAL);
            }
        }
    }
}
