//! The journal's thread: takes items one after the other, writes the history file, and sends lines
//! to the log and events to watchers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::Level;

use super::format::{self, Fact, Line};
use super::history::{DiskState, History};
use super::limit::{self, Class, Limiter};
use super::names::{HostName, NameQueue};
use super::outlet::Outlet;
use super::record::{self, Record};
use super::{Event, Item, MODULE, Notice, Reconfiguration, Settings, Shared};
use crate::sys::{clock, queue};
use crate::time::MonoTime;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) items: queue::Receiver<Item>,
    pub(super) settings: Settings,
    pub(super) outlet: Outlet,
    /// Admitted items that wait for a name or for their turn.
    pub(super) waiting: NameQueue<Pending>,
    pub(super) history: Option<History>,
    pub(super) limiter: Limiter,
    /// Records for an event store that has not been opened yet.
    pub(super) early: Vec<Record>,
    /// Events that were not stored and not reported yet, and since when.
    pub(super) unstored: Option<(u64, MonoTime)>,
}

/// Records that wait for the event store at the start.
const EARLY_MAX: usize = 256;

/// An item to be written when its turn comes.
#[derive(Debug)]
pub(super) enum Pending {
    Event {
        event: Box<Event>,
        /// The limiter admitted its line of the history file.
        to_history: bool,
        /// The limiter admitted its lines of the log.
        to_log: bool,
        /// The event store gets it.
        to_store: bool,
    },
    Line {
        line: Line,
        module: Box<str>,
    },
}

pub(super) fn now() -> MonoTime {
    MonoTime::at(clock::boottime())
}

impl Writer {
    /// Runs until it is stopped and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.apply_reconfigurations();
            if stopping {
                // The caller of `stop` does not wait for names; answers that are queued already are
                // used.
                self.settings.resolve = false;
            }
            let wait = if stopping { Some(Duration::ZERO) } else { self.next_due() };
            let item = match self.items.recv_timeout(wait.unwrap_or(Duration::MAX)) {
                Ok(item) => item,
                Err(RecvTimeoutError::Timeout) if !stopping => Item::Wake,
                Err(_) => break,
            };
            self.on_item(item);
            self.on_time(now());
        }
        self.end();
    }

    /// Applies new settings; returns whether to stop.
    fn apply_reconfigurations(&mut self) -> bool {
        let changes = self
            .shared
            .reconfigurations
            .lock()
            .map(|mut changes| std::mem::take(&mut *changes))
            .unwrap_or_default();
        for change in changes {
            let Reconfiguration { settings, outlet, history } = change;
            // Items that were admitted under the old settings are written with them.
            self.write_waiting();
            self.settings = settings;
            self.outlet.replace(outlet);
            if let Some(history) = history {
                // Lines that wait for a failing disk go to the old file or are lost: they must not
                // move to another file.
                if let Some((Level::Error, text)) =
                    self.history.as_mut().and_then(|old| old.flush(now()))
                {
                    self.write(Level::Error, &text);
                }
                self.history = history;
            }
        }
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Time until something is due.
    fn next_due(&self) -> Option<Duration> {
        let now = now();
        [
            self.limiter.next_due(now),
            self.waiting.next_due(now),
            self.history.as_ref().and_then(|history| history.next_due(now)),
            self.unstored.map(|(_, since)| limit::INTERVAL.saturating_sub(now.since(since))),
        ]
        .into_iter()
        .flatten()
        .min()
        // With no wait at all the thread would spin while the due work cannot be done.
        .map(|wait| wait.max(Duration::from_millis(50)))
    }

    fn on_item(&mut self, item: Item) {
        match item {
            Item::Event(event) => self.on_event(event),
            Item::Message { at, level, module, text } => {
                if level <= self.settings.log.level && self.limiter.admit(Class::Message, 1, now())
                {
                    let line = format::message(at, level, &module, &text, self.settings.log.format);
                    self.enqueue(Pending::Line { line, module }, None);
                }
            }
            Item::Name(address, name) => self.waiting.answer(address, name.as_ref()),
            Item::Wake => {}
            Item::Settle(done) => drop(done.try_send(())),
        }
    }

    /// Applies the rate limits before a name is looked up: a flood of events causes no flood of
    /// lookups.
    fn on_event(&mut self, event: Box<Event>) {
        let now = now();
        let to_history = self.history.is_some()
            && format::history(&event, &TimeZone::system()).is_some()
            && Class::of_history(&event.notice)
                .is_none_or(|class| self.limiter.admit(class, 1, now));
        let count = u32::try_from(self.lines(&event).count()).unwrap_or(u32::MAX);
        let to_log = count > 0
            && Class::of(&event.notice).is_none_or(|class| self.limiter.admit(class, count, now));
        let is_stored = record::is_stored(&event.notice);
        let to_store = is_stored
            && (to_log || Class::of(&event.notice).is_none() || self.limiter.admit_record(now));
        if is_stored && !to_store {
            self.on_unstored(1, now);
        }
        let watched =
            self.shared.subscribers.lock().is_ok_and(|subscribers| !subscribers.is_empty());
        if to_history || to_log || to_store || watched {
            let written = to_history || to_log;
            let host = (written || watched)
                .then(|| self.name_to_wait_for(&event, written, watched, now))
                .flatten();
            self.enqueue(Pending::Event { event, to_history, to_log, to_store }, host);
        }
    }

    fn on_unstored(&mut self, events: u64, now: MonoTime) {
        let (count, _) = self.unstored.get_or_insert((0, now));
        *count = count.saturating_add(events);
    }

    /// Hands a record to the event store.
    fn store(&mut self, record: Record) {
        let lost = match self.shared.keep.lock().as_deref() {
            Ok(Some(keep)) => self
                .early
                .drain(..)
                .chain([record])
                .filter_map(|record| (!keep(record)).then_some(()))
                .count(),
            Ok(None) if self.early.len() < EARLY_MAX => return self.early.push(record),
            _ => return,
        };
        if lost > 0 {
            self.on_unstored(lost as u64, now());
        }
    }

    /// Has the event store say how many events it lacks.
    fn report_unstored(&mut self) {
        let Some((events, _)) = self.unstored else { return };
        if let Ok(keep) = self.shared.keep.lock()
            && keep.as_ref().is_none_or(|keep| keep(Record::not_stored(Timestamp::now(), events)))
        {
            self.unstored = None;
        } else {
            self.unstored = Some((events, now()));
        }
    }

    /// The host whose name the event waits for, and until when; starts the lookup unless it is
    /// running already.
    fn name_to_wait_for(
        &mut self,
        event: &Event,
        written: bool,
        watched: bool,
        now: MonoTime,
    ) -> Option<(IpAddr, MonoTime)> {
        if !self.settings.resolve {
            return None;
        }
        let host = format::host_to_name(event, self.settings.log.format, watched)?;
        let (limiter, shared) = (&mut self.limiter, &self.shared);
        let ask = || {
            (written || limiter.admit_name(now))
                && shared.ask.lock().is_ok_and(|ask| ask.as_ref().is_some_and(|ask| ask(host)))
        };
        Some((host, self.waiting.wait_for(host, now, ask)?))
    }

    /// Writes an item after all items that came before it.
    fn enqueue(&mut self, item: Pending, host: Option<(IpAddr, MonoTime)>) {
        if host.is_none() && self.waiting.is_empty() {
            self.write_item(item, None);
        } else {
            self.waiting.push(item, host);
        }
    }

    fn write_item(&mut self, item: Pending, name: Option<HostName>) {
        let (event, to_history, to_log) = match item {
            Pending::Event { mut event, to_history, to_log, to_store } => {
                event.name = name;
                if to_store && let Some(record) = Record::of(&event) {
                    self.store(record);
                }
                (event, to_history, to_log)
            }
            Pending::Line { line, module } => return self.put(&line, &module, &Arc::default()),
        };
        self.publish(&event);
        if to_history
            && let Some(history) = &mut self.history
            && let Some(line) = format::history(&event, &TimeZone::system())
        {
            let state = history.append(&line, now());
            self.report(state);
        }
        if to_log {
            let facts = self.outlet.facts(&event);
            for line in self.lines(&event) {
                self.put(&line, MODULE, &facts);
            }
        }
    }

    /// The lines of an event that the settings want in the log.
    fn lines(&self, event: &Event) -> impl Iterator<Item = Line> + use<> {
        let level = self.settings.log.level;
        let lines = format::lines(event, self.settings.log.format);
        lines.into_iter().filter(move |line| line.level <= level)
    }

    /// Writes all waiting items, with the names found so far.
    fn write_waiting(&mut self) {
        while let Some((item, name)) = self.waiting.take() {
            self.write_item(item, name);
        }
    }

    fn on_time(&mut self, now: MonoTime) {
        while let Some((item, name)) = self.waiting.next(now) {
            self.write_item(item, name);
        }
        let held = self.limiter.next_held_back(now);
        self.on_held_back(held);
        if self.unstored.is_some_and(|(_, since)| now.since(since) >= limit::INTERVAL) {
            self.report_unstored();
        }
        if let Some(history) = &mut self.history
            && history.next_due(now) == Some(Duration::ZERO)
        {
            let state = history.flush(now);
            self.report(state);
        }
        self.shared
            .history_failing
            .store(self.history.as_ref().is_some_and(History::is_failing), Ordering::Relaxed);
        self.shared.held_back.store(self.limiter.ever_held(), Ordering::Relaxed);
        if self.shared.unreported() > 0 {
            self.outlet.report_losses();
        }
    }

    fn on_held_back(&mut self, held: Option<(u64, Duration)>) {
        let Some((lines, within)) = held else { return };
        let notice = Notice::HeldBack { lines, within };
        self.on_event(Box::new(Event::new(Timestamp::now(), notice)));
    }

    pub(super) fn report(&mut self, state: Option<DiskState>) {
        if let Some((level, text)) = state {
            self.write(level, &text);
        }
    }

    /// Logs a message of the journal itself.
    fn write(&mut self, level: Level, text: &str) {
        let line = format::message(Timestamp::now(), level, MODULE, text, self.settings.log.format);
        self.put(&line, MODULE, &Arc::default());
    }

    fn put(&mut self, line: &Line, module: &str, facts: &Arc<[Fact]>) {
        self.outlet.write(line.priority, module, &line.text, facts);
    }

    /// Sends the event to all watchers, and removes those that are gone.
    fn publish(&mut self, event: &Event) {
        let Ok(mut subscribers) = self.shared.subscribers.lock() else { return };
        if subscribers.is_empty() {
            return;
        }
        let line: Arc<str> = format::json(event).into();
        subscribers.retain(|subscriber| subscriber.offer(&line));
    }

    fn end(mut self) {
        let now = now();
        self.settings.resolve = false;
        self.write_waiting();
        let held = self.limiter.rest(now);
        self.on_held_back(held);
        self.report_unstored();
        let state = self.history.as_mut().and_then(|history| history.flush(now));
        self.report(state);
        if let Ok(mut subscribers) = self.shared.subscribers.lock() {
            subscribers.clear();
        }
        self.outlet.finish();
    }
}
