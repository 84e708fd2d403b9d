//! What waits for one channel, what is being sent, and when it is tried again. Pure: time is an
//! argument.

use std::time::{Duration, Instant};

use super::abuse::{Report, Reports};
use super::channel::Channel;
use super::digest::Digest;
use super::render;
use crate::backoff::Backoff;
use crate::helper::protocol::{ChannelStatus, Incident, NotifySettings, Times};

/// The longest wait that a server may ask for (RFC 9110, 10.2.3): the daily limit of AbuseIPDB.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The other side has it.
    Sent,
    /// It may be tried again, after this time if the other side says so.
    Later {
        /// What went wrong, without any secret.
        why: String,
        /// The least wait.
        after: Option<Duration>,
    },
    /// The other side will never take this one.
    Never(String),
}

impl Outcome {
    /// It may be tried again, at any time.
    pub(super) fn later(why: String) -> Self {
        Self::Later { why, after: None }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// A digest, with an identifier that repeated attempts share.
    Digest(String, Box<Digest>),
    /// A report to AbuseIPDB.
    Report(Report),
    /// A test.
    Test(String),
}

impl Message {
    /// A short text for people.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Digest(_, digest) => render::summary(digest),
            Self::Report(report) => format!("report of {}", report.address),
            Self::Test(_) => "a test of notifications".to_owned(),
        }
    }

    /// Entries in it.
    fn len(&self) -> u64 {
        match self {
            Self::Digest(_, digest) => digest.len() as u64,
            Self::Report(_) | Self::Test(_) => 1,
        }
    }
}

/// What collects while a message is under way.
enum Waiting {
    Digest { digest: Digest, due: Option<Instant> },
    Reports(Reports),
}

/// A message that is not sent yet.
struct Pending {
    message: Message,
    made: Instant,
}

/// The outbox of one channel.
pub(super) struct Outbox {
    waiting: Waiting,
    interval: Duration,
    settings: NotifySettings,
    pending: Option<Pending>,
    backoff: Backoff,
    times: Times,
    /// Not before this.
    retry_at: Option<Instant>,
    counts: ChannelStatus,
}

impl Outbox {
    pub(super) fn new(channel: &Channel, settings: &NotifySettings) -> Self {
        let times = settings.times.unwrap_or_default();
        let waiting = match channel {
            Channel::AbuseIpDb(_) => Waiting::Reports(Reports::default()),
            _ => Waiting::Digest { digest: Digest::default(), due: None },
        };
        Self {
            waiting,
            interval: settings.digest,
            settings: settings.clone(),
            pending: None,
            backoff: Backoff::new(times.first_retry, times.last_retry),
            times,
            retry_at: None,
            counts: ChannelStatus::default(),
        }
    }

    /// Applies settings. The next attempt is due: they may have mended what was wrong.
    pub(super) fn reconfigure(&mut self, settings: &NotifySettings, now: Instant) {
        if let Waiting::Digest { due: Some(due), .. } = &mut self.waiting {
            *due = (*due).min(now + settings.digest);
        }
        self.interval = settings.digest;
        self.settings = settings.clone();
        self.backoff.reset();
        self.retry_at = None;
    }

    /// Takes what happened.
    pub(super) fn add(&mut self, incident: &Incident, now: Instant) {
        match &mut self.waiting {
            Waiting::Digest { digest, due } => {
                if !self.settings.on.contains(&incident.class) {
                    return;
                }
                let dropped = digest.dropped;
                digest.add(incident);
                self.counts.dropped += digest.dropped - dropped;
                due.get_or_insert(now + self.interval);
            }
            Waiting::Reports(reports) => {
                self.counts.dropped += u64::from(!reports.add(incident, now));
            }
        }
    }

    /// Takes how many incidents did not come. Not all of them would have been reports.
    pub(super) fn add_missed(&mut self, count: u64, now: Instant) {
        if let Waiting::Digest { digest, due } = &mut self.waiting {
            digest.missed += count;
            self.counts.dropped += count;
            due.get_or_insert(now + self.interval);
        }
    }

    /// What waits is due now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.retry_at = None;
        if let Waiting::Digest { due: Some(due), .. } = &mut self.waiting {
            *due = now;
        }
    }

    /// When something is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let due = match (&self.pending, &self.waiting) {
            (Some(pending), _) => Some(pending.made),
            (None, Waiting::Digest { due, .. }) => *due,
            (None, Waiting::Reports(reports)) => reports.due(),
        }?;
        Some(self.retry_at.map_or(due, |at| at.max(due)))
    }

    /// The message to send now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Message> {
        if self.next_at()? > now {
            return None;
        }
        if self.pending.is_none() {
            let message = match &mut self.waiting {
                Waiting::Digest { digest, due } => {
                    *due = None;
                    Message::Digest(render::id(), Box::new(std::mem::take(digest)))
                }
                Waiting::Reports(reports) => Message::Report(reports.next()?),
            };
            self.pending = Some(Pending { message, made: now });
        }
        self.pending.as_ref().map(|pending| pending.message.clone())
    }

    /// Takes what came of the attempt; returns whether the administrator should hear of it.
    pub(super) fn on_outcome(&mut self, outcome: &Outcome, now: Instant) -> bool {
        let is_digest = matches!(self.waiting, Waiting::Digest { .. });
        match outcome {
            Outcome::Sent => {
                self.pending = None;
                self.retry_at = None;
                self.backoff.reset();
                self.counts.sent += 1;
                // Of each digest; of reports when they work again.
                self.counts.error.take().is_some() || is_digest
            }
            Outcome::Later { why, after } => {
                self.counts.failed += 1;
                let asked = after.unwrap_or_default().min(RETRY_AFTER_MAX);
                let retry_at = now + self.backoff.fail().max(asked);
                self.retry_at = Some(retry_at);
                if self.pending.as_ref().is_some_and(|of| retry_at > of.made + self.times.give_up) {
                    self.give_up(now);
                }
                self.counts.error.replace(why.clone()).is_none()
            }
            Outcome::Never(why) => {
                self.counts.failed += 1;
                self.give_up(now);
                self.counts.error.replace(why.clone()).is_none()
            }
        }
    }

    /// Drops the message, and has the next digest say so.
    fn give_up(&mut self, now: Instant) {
        let Some(Pending { message, .. }) = self.pending.take() else { return };
        match (message, &mut self.waiting) {
            (Message::Digest(_, lost), Waiting::Digest { digest, due }) => {
                let incidents = lost.incidents();
                digest.dropped += incidents + lost.dropped;
                digest.missed += lost.missed;
                self.counts.dropped += incidents;
                due.get_or_insert(now + self.interval);
            }
            _ => self.counts.dropped += 1,
        }
    }

    /// Entries that are not sent.
    pub(super) fn waiting(&self) -> u64 {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.message.len());
        pending
            + match &self.waiting {
                Waiting::Digest { digest, .. } => digest.len() as u64,
                Waiting::Reports(reports) => reports.len() as u64,
            }
    }

    /// For `status`.
    pub(super) fn status(&self, channel: &'static str) -> ChannelStatus {
        ChannelStatus {
            channel: channel.to_owned(),
            waiting: self.waiting(),
            ..self.counts.clone()
        }
    }
}
