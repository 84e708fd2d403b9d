//! What happened, told: log lines in three formats, the history file, and the events that `portsentryctl watch` shows.
//!
//! Owns one thread, which alone touches the log's target and the history file. Whoever tells something never waits: the queue is bounded, and what
//! does not fit is counted and the count is told. No stream of packets makes more lines than [`limit`] allows.

mod event;
pub mod format;
mod global;
pub mod history;
pub mod limit;
pub mod names;
pub mod sink;

mod writer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, Config, LogFormat};
use crate::sys::wake::Waker;
use history::History;
use limit::Limiter;
use names::Stage;
use sink::Sink;
use writer::Writer;

pub use event::{Ended, Event, Notice, Response};
pub use global::install;
pub use names::HostName;

/// Things told that wait for the journal's thread. A few hundred bytes each: a megabyte at most, a second of a thousand events.
const QUEUE: usize = 4096;

/// Lines that wait for one who watches.
const WATCH_QUEUE: usize = 1024;

/// Longest message of another module that is taken into the queue, in bytes.
const MESSAGE_MAX: usize = format::LINE_MAX;

/// What the journal needs of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where and how is logged.
    pub log: config::Log,
    /// The history file; `None`: no history.
    pub history_file: Option<PathBuf>,
    /// Lines wait a moment for reverse names.
    pub resolve: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self { log: config.log.clone(), history_file: config.history_file.clone(), resolve: config.resolve }
    }
}

/// Why the journal cannot start, or not with these settings.
#[derive(Debug)]
pub enum JournalError {
    /// The log's target cannot be reached.
    Target(sink::SinkError),
    /// The history file cannot be opened.
    History(history::OpenError),
    /// No thread can be started.
    Thread(std::io::Error),
    /// The journal has ended.
    Ended,
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target(error) => error.fmt(f),
            Self::History(error) => error.fmt(f),
            Self::Thread(_) => f.write_str("cannot start the journal's thread"),
            Self::Ended => f.write_str("cannot change the journal: it has ended"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Target(error) => error.source(),
            Self::History(error) => error.source(),
            Self::Thread(error) => Some(error),
            Self::Ended => None,
        }
    }
}

enum Item {
    Event(Box<Event>),
    Message {
        at: Timestamp,
        level: log::Level,
        module: Box<str>,
        text: Box<str>,
    },
    /// The answer to a question for a name.
    Name(IpAddr, Option<HostName>),
    /// Look at the orders.
    Nudge,
}

/// New settings, opened already, so that what fails fails at the one who asked.
struct Order {
    sink: Box<dyn Sink>,
    level: log::LevelFilter,
    format: LogFormat,
    resolve: bool,
    /// `None`: as it is.
    history: Option<Option<History>>,
}

/// Asks for the name of a host; `false` when nobody could take the question.
type Ask = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

struct Shared {
    orders: Mutex<Vec<Order>>,
    settings: Mutex<Settings>,
    stop: AtomicBool,
    ended: Mutex<Option<Receiver<()>>>,
    /// Things told that found the queue full, and were not told yet.
    lost: AtomicU64,
    ever_lost: AtomicU64,
    unwritten: AtomicU64,
    held_back: AtomicU64,
    history_failing: AtomicBool,
    subscribers: Mutex<Vec<Subscriber>>,
    ask: Mutex<Option<Ask>>,
}

/// How the journal fares, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Lines that the rate limit held back.
    pub held_back: u64,
    /// Things told that found the queue full.
    pub lost: u64,
    /// Lines that the log's target refused.
    pub unwritten: u64,
    /// The history file cannot be written at the moment.
    pub history_failing: bool,
}

/// Starts the journal.
#[derive(Debug, Clone, Copy)]
pub struct Journal;

impl Journal {
    /// Opens the log's target and the history file, starts the thread, and makes the `log` crate's macros go there.
    ///
    /// # Errors
    /// When one of these cannot be opened, or no thread be started.
    pub fn start(settings: Settings) -> Result<JournalHandle, JournalError> {
        let sink = sink::open(&settings.log).map_err(JournalError::Target)?;
        let level = settings.log.level;
        let journal = Self::start_with(settings, sink)?;
        install();
        log::set_max_level(level);
        global::connect(journal.clone());
        Ok(journal)
    }

    /// As [`Journal::start`], but the lines of events go to `sink`, and those of the `log` crate's macros are left alone.
    ///
    /// # Errors
    /// When the history file cannot be opened, or no thread be started.
    pub fn start_with(settings: Settings, sink: Box<dyn Sink>) -> Result<JournalHandle, JournalError> {
        let history = open_history(settings.history_file.as_ref())?;
        let (sender, items) = sync_channel(QUEUE);
        let (end, ended) = sync_channel::<()>(1);
        let (level, format, resolve) = (settings.log.level, settings.log.format, settings.resolve);
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            settings: Mutex::new(settings),
            stop: AtomicBool::new(false),
            ended: Mutex::new(Some(ended)),
            lost: AtomicU64::new(0),
            ever_lost: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
            history_failing: AtomicBool::new(false),
            subscribers: Mutex::default(),
            ask: Mutex::default(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            items,
            sink,
            level,
            format,
            resolve,
            stage: Stage::default(),
            history,
            limiter: Limiter::default(),
            unwritten: 0,
            complained: None,
        };
        let run = move || {
            writer.run();
            drop(end);
        };
        std::thread::Builder::new().name("journal".to_owned()).spawn(run).map_err(JournalError::Thread)?;
        Ok(JournalHandle { shared, sender })
    }
}

fn open_history(path: Option<&PathBuf>) -> Result<Option<History>, JournalError> {
    path.map(|path| History::open(path)).transpose().map_err(JournalError::History)
}

/// The way to the journal; clones lead to the same one.
#[derive(Clone)]
pub struct JournalHandle {
    shared: Arc<Shared>,
    sender: SyncSender<Item>,
}

impl std::fmt::Debug for JournalHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl JournalHandle {
    /// Tells the journal, which notes the time of day. Never waits: when the queue is full, the notice is dropped and counted.
    pub fn notify(&self, notice: Notice) {
        self.push(Item::Event(Box::new(Event { at: Timestamp::now(), notice, name: None })));
    }

    /// From now on, names are asked for by way of `ask`, if the settings have `resolve`. It is called by the journal's thread, must not wait, and says
    /// whether the question was taken; the answer comes through [`JournalHandle::name_found`]. Where it is not taken, nothing waits for a name.
    pub fn resolve_through(&self, ask: Ask) {
        if let Ok(mut place) = self.shared.ask.lock() {
            *place = Some(ask);
        }
    }

    /// The answer to a question for the name of a host; `None`: it has none. Never waits. A name that must not be written ([`HostName::checked`]) counts
    /// as none.
    pub fn name_found(&self, address: IpAddr, name: Option<String>) {
        // With a full queue it is not taken: what waits for it goes out when its time is over.
        let _ = self.sender.try_send(Item::Name(address, name.as_deref().and_then(HostName::checked)));
    }

    /// Tells the journal what a module said through the `log` crate. Never waits.
    fn tell_message(&self, level: log::Level, module: &str, arguments: &std::fmt::Arguments<'_>) {
        let mut text = arguments.to_string();
        let mut end = MESSAGE_MAX.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        self.push(Item::Message { at: Timestamp::now(), level, module: module.into(), text: text.into() });
    }

    fn push(&self, item: Item) {
        if self.sender.try_send(item).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            self.shared.ever_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts new settings in force. Everything told before it was called may still be written in the old way, or already in the new one.
    ///
    /// # Errors
    /// When the target or the history file cannot be opened; then the old settings stay in force.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), JournalError> {
        let mut current = self.shared.settings.lock().map_err(|_| JournalError::Ended)?;
        if *current == settings {
            return Ok(());
        }
        let sink = sink::open(&settings.log).map_err(JournalError::Target)?;
        let history = if current.history_file == settings.history_file { None } else { Some(open_history(settings.history_file.as_ref())?) };
        let order = Order { sink, level: settings.log.level, format: settings.log.format, resolve: settings.resolve, history };
        self.shared.orders.lock().map_err(|_| JournalError::Ended)?.push(order);
        if global::is_connected(self) {
            log::set_max_level(settings.log.level);
        }
        *current = settings;
        // With a full queue the thread is awake, and looks at the orders before each item.
        let _ = self.sender.try_send(Item::Nudge);
        Ok(())
    }

    /// From now on every event, as a line of JSON. `waker` is rung when there is one to take.
    pub fn subscribe(&self, waker: Option<Arc<Waker>>) -> Subscription {
        let (sender, receiver) = sync_channel(WATCH_QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        if let Ok(mut subscribers) = self.shared.subscribers.lock() {
            subscribers.push(Subscriber { sender, missed: Arc::clone(&missed), waker });
        }
        Subscription { receiver, missed }
    }

    /// How the journal fares.
    pub fn stats(&self) -> Stats {
        Stats {
            held_back: self.shared.held_back.load(Ordering::Relaxed),
            lost: self.shared.ever_lost.load(Ordering::Relaxed),
            unwritten: self.shared.unwritten.load(Ordering::Relaxed),
            history_failing: self.shared.history_failing.load(Ordering::Relaxed),
        }
    }

    /// Lets the thread write everything that was told, and end; `false` if it could not within `deadline` (its target hangs) or was stopped before.
    pub fn stop(&self, deadline: Duration) -> bool {
        global::disconnect(self);
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.sender.try_send(Item::Nudge);
        let Some(ended) = self.shared.ended.lock().ok().and_then(|mut ended| ended.take()) else { return false };
        // The thread drops its end of this channel when it is through.
        matches!(ended.recv_timeout(deadline), Err(std::sync::mpsc::RecvTimeoutError::Disconnected))
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

struct Subscriber {
    sender: SyncSender<Arc<str>>,
    missed: Arc<AtomicU64>,
    waker: Option<Arc<Waker>>,
}

impl Subscriber {
    /// Hands a line over; `false` when nobody is there any more.
    fn offer(&self, line: &Arc<str>) -> bool {
        match self.sender.try_send(Arc::clone(line)) {
            Ok(()) => {}
            Err(std::sync::mpsc::TrySendError::Full(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return false,
        }
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        true
    }
}

/// Events as lines of JSON, as they happen.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Arc<str>>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// The next line that is there already; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// `Err` when the journal has ended.
    pub fn try_next(&self) -> Result<Option<Arc<str>>, JournalError> {
        match self.receiver.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(JournalError::Ended),
        }
    }

    /// The next line, waiting for it; `None` when the time is over or the journal has ended.
    pub fn next_within(&self, timeout: Duration) -> Option<Arc<str>> {
        self.receiver.recv_timeout(timeout).ok()
    }

    /// How many lines did not fit since this was asked last.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
