//! The journal's thread: takes what it is told, one thing after the other, and writes lines, history and what `watch` shows.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::Level;

use super::format::{self, Line};
use super::history::{History, Tell};
use super::limit::{Class, Limiter};
use super::names::{HostName, Stage, Want};
use super::sink::Sink;
use super::{Event, Item, Notice, Order, Shared};
use crate::config::LogFormat;
use crate::sys::clock;
use crate::time::MonoTime;

/// Time between two lines about lines that could not be written: one is enough to know.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) items: Receiver<Item>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) level: log::LevelFilter,
    pub(super) format: LogFormat,
    pub(super) resolve: bool,
    /// What was admitted and waits for a name, or for its turn.
    pub(super) stage: Stage<Told>,
    pub(super) history: Option<History>,
    pub(super) limiter: Limiter,
    /// Lines that the sink refused.
    pub(super) unwritten: u64,
    pub(super) complained: Option<MonoTime>,
}

/// Something to be written when its turn comes.
#[derive(Debug)]
pub(super) enum Told {
    Event {
        event: Box<Event>,
        /// The limiter admitted its line of the history file.
        to_history: bool,
        /// The limiter admitted its lines of the log.
        to_log: bool,
    },
    Line {
        line: Line,
        module: Box<str>,
    },
}

impl Told {
    fn named(mut self, name: Option<HostName>) -> Self {
        if let Self::Event { event, .. } = &mut self {
            event.name = name;
        }
        self
    }
}

pub(super) fn now() -> MonoTime {
    MonoTime::at(clock::boottime())
}

impl Writer {
    /// Runs until an order to stop has come and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.on_orders();
            if stopping {
                // Who waits for the end does not wait for names; those that are in the queue already are taken.
                self.resolve = false;
            }
            let item = match self.next_due() {
                _ if stopping => match self.items.try_recv() {
                    Ok(item) => item,
                    Err(_) => break,
                },
                Some(wait) => match self.items.recv_timeout(wait) {
                    Ok(item) => item,
                    Err(RecvTimeoutError::Timeout) => Item::Nudge,
                    Err(RecvTimeoutError::Disconnected) => break,
                },
                None => match self.items.recv() {
                    Ok(item) => item,
                    Err(_) => break,
                },
            };
            self.on_item(item);
            self.on_time(now());
        }
        self.end();
    }

    /// Carries out what was ordered; whether it was to stop.
    fn on_orders(&mut self) -> bool {
        let orders = self.shared.orders.lock().map(|mut orders| std::mem::take(&mut *orders)).unwrap_or_default();
        for order in orders {
            let Order { sink, level, format, resolve, history } = order;
            // What was admitted under the old settings is written under them.
            self.wait_no_longer();
            self.resolve = resolve;
            self.sink = sink;
            self.level = level;
            self.format = format;
            if let Some(history) = history {
                // Lines that wait for a failing disk go to the old file or nowhere: the new one is another file.
                if let Some(Tell::Failing(text)) = self.history.as_mut().and_then(|old| old.flush(now())) {
                    self.write(Level::Error, &text);
                }
                self.history = history;
            }
        }
        self.shared.stop.load(Ordering::Acquire)
    }

    /// The shortest wait until something is due without being told.
    fn next_due(&self) -> Option<Duration> {
        let now = now();
        let complaint = (self.unwritten > 0 || self.shared.lost.load(Ordering::Relaxed) > 0)
            .then(|| self.complained.map_or(Duration::ZERO, |at| COMPLAIN_EVERY.saturating_sub(now.since(at))));
        [self.limiter.next_due(now), self.stage.next_due(now), self.history.as_ref().and_then(|history| history.next_due(now)), complaint]
            .into_iter()
            .flatten()
            .min()
            // A wait of nothing would be a loop without rest if whatever is due cannot be done now.
            .map(|wait| wait.max(Duration::from_millis(50)))
    }

    fn on_item(&mut self, item: Item) {
        match item {
            Item::Event(event) => self.on_event(event),
            Item::Message { at, level, module, text } => {
                if level <= self.level && self.limiter.admit(Class::Message, 1, now()) {
                    let line = format::message(at, level, &module, &text, self.format);
                    self.in_turn(Told::Line { line, module }, None);
                }
            }
            Item::Name(address, name) => self.stage.answer(address, name.as_ref()),
            Item::Nudge => {}
        }
    }

    /// Judges what of an event is to be written, before its name is asked for: a flood of events is no flood of questions.
    fn on_event(&mut self, event: Box<Event>) {
        let now = now();
        let to_history =
            self.history.is_some() && format::history(&event, &TimeZone::system()).is_some() && self.limiter.admit(Class::History, 1, now);
        let count = format::lines(&event, self.format).into_iter().filter(|line| line.level <= self.level).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let to_log = count > 0 && Class::of(&event.notice).is_none_or(|class| self.limiter.admit(class, count, now));
        let watched = self.shared.subscribers.lock().is_ok_and(|subscribers| !subscribers.is_empty());
        if to_history || to_log || watched {
            let host = self.name_to_wait_for(&event, to_history || to_log, watched, now);
            self.in_turn(Told::Event { event, to_history, to_log }, host);
        }
    }

    /// The host whose name the event waits for, and until when; asks for it unless it is being asked for already.
    fn name_to_wait_for(&mut self, event: &Event, written: bool, watched: bool, now: MonoTime) -> Option<(IpAddr, MonoTime)> {
        if !self.resolve {
            return None;
        }
        let host = format::host_to_name(event, self.format, watched)?;
        match self.stage.want(host, now) {
            Want::Wait(until) => Some((host, until)),
            Want::Ask if written || self.limiter.admit_name(now) => {
                let taken = self.shared.ask.lock().is_ok_and(|ask| ask.as_ref().is_some_and(|ask| ask(host)));
                taken.then(|| (host, self.stage.asked(host, now)))
            }
            Want::Ask | Want::Nothing => None,
        }
    }

    /// Carries out what was told, after all that was told before it.
    fn in_turn(&mut self, told: Told, host: Option<(IpAddr, MonoTime)>) {
        if host.is_none() && self.stage.is_empty() {
            self.carry_out(told);
        } else {
            self.stage.push(told, host);
        }
    }

    fn carry_out(&mut self, told: Told) {
        let (event, to_history, to_log) = match told {
            Told::Event { event, to_history, to_log } => (event, to_history, to_log),
            Told::Line { line, module } => return self.put(line.priority, &module, &line.text),
        };
        self.publish(&event);
        if to_history
            && let Some(history) = &mut self.history
            && let Some(line) = format::history(&event, &TimeZone::system())
        {
            let told = history.append(&line, now());
            self.tell(told);
        }
        if to_log {
            let level = self.level;
            for line in format::lines(&event, self.format).into_iter().filter(|line| line.level <= level) {
                self.put(line.priority, MODULE, &line.text);
            }
        }
    }

    /// Writes what waits, with the names that are there.
    fn wait_no_longer(&mut self) {
        while let Some((told, name)) = self.stage.take() {
            self.carry_out(told.named(name));
        }
    }

    fn on_time(&mut self, now: MonoTime) {
        while let Some((told, name)) = self.stage.next(now) {
            self.carry_out(told.named(name));
        }
        if let Some((lines, within)) = self.limiter.next_held_back(now) {
            self.on_held_back(lines, within);
        }
        if let Some(history) = &mut self.history
            && history.next_due(now) == Some(Duration::ZERO)
        {
            let told = history.flush(now);
            self.tell(told);
        }
        self.shared.history_failing.store(self.history.as_ref().is_some_and(History::is_failing), Ordering::Relaxed);
        self.shared.held_back.store(self.limiter.ever_held(), Ordering::Relaxed);
        if self.complained.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
            self.complain(now);
        }
    }

    /// Tells how much was lost, if anything was and can be told now.
    fn complain(&mut self, now: MonoTime) {
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        let unwritten = std::mem::take(&mut self.unwritten);
        if lost + unwritten == 0 {
            return;
        }
        self.complained = Some(now);
        self.write(Level::Warn, &format!("{} messages did not reach the log: it could not keep up, or refused them", lost + unwritten));
        if self.unwritten > 0 {
            // Not this one either: the count is kept for the next time.
            self.unwritten = lost + unwritten;
        }
    }

    fn on_held_back(&mut self, lines: u64, within: Duration) {
        self.on_event(Box::new(Event { at: Timestamp::now(), notice: Notice::HeldBack { lines, within }, name: None }));
    }

    fn tell(&mut self, told: Option<Tell>) {
        match told {
            Some(Tell::Failing(text)) => self.write(Level::Error, &text),
            Some(Tell::Recovered(text)) => self.write(Level::Warn, &text),
            None => {}
        }
    }

    /// A message of the journal's own.
    fn write(&mut self, level: Level, text: &str) {
        let line = format::message(Timestamp::now(), level, MODULE, text, self.format);
        self.put(line.priority, MODULE, &line.text);
    }

    fn put(&mut self, level: Level, module: &str, text: &str) {
        if self.sink.write(level, module, text).is_err() {
            self.unwritten = self.unwritten.saturating_add(1);
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands the event to everybody who watches; those who are gone are forgotten.
    fn publish(&mut self, event: &Event) {
        let Ok(mut subscribers) = self.shared.subscribers.lock() else { return };
        if subscribers.is_empty() {
            return;
        }
        let line: Arc<str> = format::json(event).into();
        subscribers.retain(|subscriber| subscriber.offer(&line));
    }

    fn end(&mut self) {
        let now = now();
        self.resolve = false;
        self.wait_no_longer();
        if let Some((lines, within)) = self.limiter.rest(now) {
            self.on_held_back(lines, within);
        }
        if let Some(history) = &mut self.history {
            let told = history.flush(now);
            self.tell(told);
        }
        self.complain(now);
        if let Ok(mut subscribers) = self.shared.subscribers.lock() {
            subscribers.clear();
        }
    }
}

/// The module under which events are logged.
const MODULE: &str = "portsentry";
