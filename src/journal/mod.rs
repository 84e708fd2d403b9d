//! The journal: log lines in three formats, the history file, and the events for `portsentryctl
//! watch`.
//!
//! One thread takes items and writes the history file, another one ([`outlet`]) writes to the log's
//! target, which may hang. Callers never wait: the queues are bounded, and items that do not fit are
//! counted and the count is logged. [`limit`] bounds the lines that packets cause.

pub(crate) mod error_document;
mod event;
pub(crate) mod format;
mod global;
pub mod history;
pub(crate) mod limit;
pub(crate) mod names;
mod outlet;
pub mod record;
pub mod sink;
pub(crate) mod typed;

mod writer;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, Config};
use crate::engine::{Report, Trace};
use crate::sys::confine;
use crate::sys::files;
use crate::sys::queue;
use crate::sys::reach::Reach;
use crate::sys::wake::Waker;
use history::{DiskState, History};
use limit::Limiter;
use names::NameQueue;
use outlet::{Outlet, Progress};
use sink::Sink;
use writer::Writer;

pub use event::{Ended, Event, Notice, Response};
pub use global::install;
pub use names::HostName;
pub use record::Record;

/// Items that wait for the thread, a few hundred bytes each: a megabyte, or four seconds of 1000
/// events each.
const QUEUE: usize = 4096;

/// Lines that wait for one watcher.
const WATCH_QUEUE: usize = 1024;

/// How long [`JournalHandle::settle`] waits.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest message of another module that is queued, in bytes.
const MESSAGE_MAX: usize = format::LINE_MAX;

/// The module name of events in the log.
const MODULE: &str = "portsentry";

/// The part of the configuration that the journal uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Target and format of the log.
    pub log: config::Log,
    /// The history file; `None`: no history.
    pub history_file: Option<PathBuf>,
    /// The state directory, which the daemon makes itself as soon as it can.
    pub state_dir: PathBuf,
    /// Whether lines wait a moment for reverse names.
    pub resolve: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            log: config.log.clone(),
            history_file: config.history_file.clone(),
            state_dir: config.state_dir.clone(),
            resolve: config.resolve,
        }
    }
}

/// Why the journal cannot start or apply settings.
#[derive(Debug)]
pub enum JournalError {
    /// The log's target cannot be reached.
    Target(std::io::Error),
    /// The history file cannot be opened.
    History(PathBuf, std::io::Error),
    /// The thread cannot be started.
    Thread(std::io::Error),
    /// The journal has ended.
    Ended,
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Target(_) => f.write_str("cannot reach systemd's journal at /run/systemd/journal/socket: set log.target to auto, stderr or syslog"),
            Self::History(path, error) => {
                write!(f, "cannot open history file {}: ", path.display())?;
                match (error.kind(), path.parent()) {
                    (std::io::ErrorKind::Other, _) => f.write_str("remove the link, or change history_file"),
                    (std::io::ErrorKind::NotFound, Some(directory)) => write!(
                        f,
                        "the directory {} does not exist: create it, or change history_file",
                        directory.display()
                    ),
                    _ => f.write_str("change history_file, or set it to \"\" to keep no history"),
                }
            }
            Self::Thread(_) => f.write_str("cannot start the journal's thread"),
            Self::Ended => f.write_str("cannot change the journal: it has ended"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Target(error) | Self::History(_, error) | Self::Thread(error) => Some(error),
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
    /// The answer to a name lookup.
    Name(IpAddr, Option<HostName>),
    /// Wakes the thread to apply new settings.
    Wake,
    /// Answer when its turn comes.
    Settle(SyncSender<()>),
}

/// New settings, with their files opened, so that the caller gets the errors.
struct Reconfiguration {
    settings: Settings,
    outlet: Outlet,
    /// `None`: unchanged.
    history: Option<Option<History>>,
}

/// Starts the lookup of a host's name; `false` if it could not be queued.
type Ask = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Takes a record for the event store; `false` if it could not be queued.
type Keep = Box<dyn Fn(Record) -> bool + Send + Sync>;

struct Shared {
    reconfigurations: Mutex<Vec<Reconfiguration>>,
    settings: Mutex<Settings>,
    stop: AtomicBool,
    ended: Mutex<Receiver<()>>,
    /// Items that found a queue full, and lines that the log's target refused, not reported yet.
    unreported: AtomicU64,
    lost: AtomicU64,
    unwritten: AtomicU64,
    held_back: AtomicU64,
    history_failing: AtomicBool,
    subscribers: Mutex<Vec<Subscriber>>,
    ask: Mutex<Option<Ask>>,
    keep: Mutex<Option<Keep>>,
    /// Of the log's target.
    progress: Mutex<Progress>,
}

impl Shared {
    fn on_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.unreported.fetch_add(1, Ordering::Relaxed);
    }

    fn on_unwritten(&self) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        self.unreported.fetch_add(1, Ordering::Relaxed);
    }

    fn unreported(&self) -> u64 {
        self.unreported.load(Ordering::Relaxed)
    }

    fn take_unreported(&self) -> u64 {
        self.unreported.swap(0, Ordering::Relaxed)
    }
}

/// Counters for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Lines held back by the rate limit.
    pub held_back: u64,
    /// Items that found the queue full.
    pub lost: u64,
    /// Lines that the log's target refused or did not take in time.
    pub unwritten: u64,
    /// Whether the log's target takes no lines now.
    pub is_hanging: bool,
    /// Whether the history file currently cannot be written.
    pub history_failing: bool,
}

fn open_history(settings: &Settings) -> Result<Option<History>, JournalError> {
    settings.history_file.as_deref().map(History::open).transpose()
}

/// Opens the history at the start. A disk that fails is reported and tried again; that must not
/// keep the host unprotected.
fn start_history(
    settings: &Settings,
) -> Result<(Option<History>, Option<DiskState>), JournalError> {
    match open_history(settings) {
        Err(JournalError::History(path, error))
            if files::is_disk_fault(&error)
                || error.kind() == std::io::ErrorKind::NotFound
                    && path.parent() == Some(&settings.state_dir) =>
        {
            let (history, state) = History::failing(path, &error, writer::now());
            Ok((Some(history), Some(state)))
        }
        result => result.map(|history| (history, None)),
    }
}

/// A handle to the journal; clones share it.
#[derive(Clone)]
pub struct JournalHandle {
    shared: Arc<Shared>,
    sender: queue::Sender<Item>,
}

impl JournalHandle {
    /// Opens the log's target and the history file, starts the thread, and connects the `log`
    /// crate's macros to it.
    ///
    /// # Errors
    /// One of these cannot be opened, or the thread cannot be started.
    pub fn start(settings: Settings) -> Result<Self, JournalError> {
        let sink = sink::open(&settings.log).map_err(JournalError::Target)?;
        let level = settings.log.level;
        let journal = Self::start_with(settings, sink)?;
        install();
        log::set_max_level(level);
        global::connect(journal.clone());
        Ok(journal)
    }

    /// Like [`JournalHandle::start`], but writes to `sink` and leaves the `log` crate's macros
    /// alone.
    ///
    /// # Errors
    /// The history file cannot be opened, or the thread cannot be started.
    pub fn start_with(settings: Settings, sink: Box<dyn Sink>) -> Result<Self, JournalError> {
        let (history, state) = start_history(&settings)?;
        let (sender, items) = queue::bounded(QUEUE);
        let (end, ended) = sync_channel::<()>(1);
        let shared = Arc::new(Shared {
            reconfigurations: Mutex::default(),
            settings: Mutex::new(settings.clone()),
            stop: AtomicBool::new(false),
            ended: Mutex::new(ended),
            unreported: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
            history_failing: AtomicBool::new(false),
            subscribers: Mutex::default(),
            ask: Mutex::default(),
            keep: Mutex::default(),
            progress: Mutex::default(),
        });
        let outlet = Outlet::start(Arc::clone(&shared), sink, settings.log.format)
            .map_err(JournalError::Thread)?;
        outlet.show_progress();
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            items,
            settings,
            outlet,
            waiting: NameQueue::default(),
            history,
            limiter: Limiter::default(),
            early: Vec::new(),
            unstored: None,
        };
        let run = move || {
            // The history file, and after a reload another.
            confine::no_exec(Reach::Files);
            writer.report(state);
            writer.run();
            drop(end);
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(run)
            .map_err(JournalError::Thread)?;
        Ok(Self { shared, sender })
    }

    /// Sends an event to the journal, with the current time. Never waits: if the queue is full, the
    /// event is dropped and counted.
    pub fn notify(&self, notice: Notice) {
        self.push(Item::Event(Box::new(Event::new(Timestamp::now(), notice))));
    }

    /// The same for a report of the engine, with what its source has done so far.
    pub fn report(&self, report: Report, trace: Option<Trace>) {
        let event = Event::new(Timestamp::now(), Notice::Engine(report));
        self.push(Item::Event(Box::new(Event { trace: trace.map(Box::new), ..event })));
    }

    /// Looks up names with `ask` from now on, if the settings have `resolve`. The journal's thread
    /// calls it; it must not wait, and returns whether the lookup was queued. The answer comes
    /// through [`JournalHandle::name_found`]. If it was not queued, no event waits for the name.
    pub fn resolve_through(&self, ask: Ask) {
        if let Ok(mut place) = self.shared.ask.lock() {
            *place = Some(ask);
        }
    }

    /// Sends what the event store keeps to `keep` from now on, what happened before included. The
    /// journal's thread calls it; it must not wait.
    pub fn store_through(&self, keep: Keep) {
        if let Ok(mut place) = self.shared.keep.lock() {
            *place = Some(keep);
        }
    }

    /// Waits until the journal's thread has dealt with what was queued so far, names that it waits
    /// for excepted; not for long.
    pub fn settle(&self) {
        let (done, ended) = sync_channel(1);
        if self.sender.try_send(Item::Settle(done)).is_ok() {
            let _ = ended.recv_timeout(SETTLE_TIMEOUT);
        }
    }

    /// The answer to a name lookup; `None`: the host has no name. Never waits. A name that fails
    /// [`HostName::checked`] counts as none.
    pub fn name_found(&self, address: IpAddr, name: Option<String>) {
        // If the queue is full, the answer is dropped: events that wait for it are written after
        // their timeout.
        let _ =
            self.sender.try_send(Item::Name(address, name.as_deref().and_then(HostName::checked)));
    }

    /// Queues an event that must not be missing, as an administrator's command. Waits for room in
    /// the queue.
    pub fn notify_surely(&self, notice: Notice) {
        let event = Event::new(Timestamp::now(), notice);
        // An error means that the journal has ended.
        let _ = self.sender.send(Item::Event(Box::new(event)));
    }

    /// Queues a `log` record of another module. Never waits.
    fn notify_message(&self, level: log::Level, module: &str, arguments: &std::fmt::Arguments<'_>) {
        let text = arguments.to_string();
        self.push(Item::Message {
            at: Timestamp::now(),
            level,
            module: module.into(),
            text: format::first_bytes(&text, MESSAGE_MAX).into(),
        });
    }

    fn push(&self, item: Item) {
        if self.sender.try_send(item).is_err() {
            self.shared.on_lost();
        }
    }

    /// Applies new settings. Items sent before this call may be written with the old or the new
    /// settings.
    ///
    /// # Errors
    /// The target or the history file cannot be opened; the old settings stay in force.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), JournalError> {
        let mut current = self.shared.settings.lock().map_err(|_| JournalError::Ended)?;
        if *current == settings {
            return Ok(());
        }
        let sink = sink::open(&settings.log).map_err(JournalError::Target)?;
        let is_same_file = current.history_file == settings.history_file;
        let history = if is_same_file { None } else { Some(open_history(&settings)?) };
        let outlet = Outlet::start(Arc::clone(&self.shared), sink, settings.log.format)
            .map_err(JournalError::Thread)?;
        let change = Reconfiguration { settings: settings.clone(), outlet, history };
        self.shared.reconfigurations.lock().map_err(|_| JournalError::Ended)?.push(change);
        if global::is_connected(self) {
            log::set_max_level(settings.log.level);
        }
        *current = settings;
        // If the queue is full, the thread is awake and checks for new settings before each item.
        let _ = self.sender.try_send(Item::Wake);
        Ok(())
    }

    /// Delivers every event from now on as a line of JSON; `waker` is woken when one is available.
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
            lost: self.shared.lost.load(Ordering::Relaxed),
            unwritten: self.shared.unwritten.load(Ordering::Relaxed),
            is_hanging: self.shared.progress.lock().is_ok_and(|progress| progress.is_hanging()),
            history_failing: self.shared.history_failing.load(Ordering::Relaxed),
        }
    }

    /// Ends the thread after it has written all queued items; `false` if it took longer than
    /// `deadline` (its target hangs).
    pub fn stop(&self, deadline: Duration) -> bool {
        global::disconnect(self);
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.sender.try_send(Item::Wake);
        // The thread drops its end of this channel when it ends.
        self.shared
            .ended
            .lock()
            .is_ok_and(|ended| ended.recv_timeout(deadline) == Err(RecvTimeoutError::Disconnected))
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
    /// Queues a line; `false` if the subscriber is gone.
    fn offer(&self, line: &Arc<str>) -> bool {
        match self.sender.try_send(Arc::clone(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.missed.fetch_add(1, Ordering::Relaxed)),
            Err(TrySendError::Disconnected(_)) => return false,
        }
        if let Some(waker) = &self.waker {
            waker.wake();
        }
        true
    }
}

/// A subscriber's stream of events as lines of JSON.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Arc<str>>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// The next line that is available; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// The journal has ended.
    pub fn try_next(&self) -> Result<Option<Arc<str>>, JournalError> {
        match self.receiver.try_recv() {
            Err(TryRecvError::Disconnected) => Err(JournalError::Ended),
            line => Ok(line.ok()),
        }
    }

    /// Lines that did not fit since the last call.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
