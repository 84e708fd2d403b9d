//! The thread that owns the database of events.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::event::{PollFd, PollFlags};

use super::database::{self, EventDatabase};
use super::query::{Page, Place, Query};
use super::{EventsHandle, Figures, QUEUE, Request, Settings, lock};
use crate::config::Config;
use crate::errors::error_chain;
use crate::journal::{JournalHandle, Notice, Record, history};
use crate::store::error::Fault;
use crate::store::{Error, clock};
use crate::sys::mailbox::{self, Inbox};
use crate::sys::reach::Reach;
use crate::sys::{confine, poll, process};

/// How long records are gathered for one transaction. A search does not wait for it.
const GATHER_TIME: Duration = Duration::from_millis(500);

/// Records that wait for a failing disk, some 500 bytes each.
const PENDING_MAX: usize = 4096;

/// Records of one transaction.
const BATCH: usize = 1024;

/// Time between attempts while the store cannot be written.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Time between reports of a store that keeps failing.
const REPORT_EVERY: Duration = Duration::from_secs(3600);

/// Time between deletions of events because of their age.
const PRUNE_EVERY: Duration = Duration::from_secs(300);

/// Lines of the classic history file that are read into a new database.
const IMPORTED_MAX: usize = 100_000;

struct Worker {
    settings: Settings,
    database: Result<EventDatabase, Error>,
    journal: JournalHandle,
    records: Inbox<Box<Record>>,
    requests: Inbox<Request>,
    figures: Arc<Mutex<Figures>>,
    pending: VecDeque<Record>,
    /// Records that were dropped and are not reported in the store yet.
    lost: u64,
    write_at: Option<Instant>,
    /// It is failing; time of the next attempt.
    retry_at: Option<Instant>,
    reported_at: Option<Instant>,
    prune_at: Instant,
}

impl EventsHandle {
    /// Starts the thread, which opens the database.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: &Config, journal: JournalHandle) -> io::Result<Self> {
        let (records, record_inbox) = mailbox::with_capacity(QUEUE)?;
        let (requests, request_inbox) = mailbox::link()?;
        let figures = Arc::new(Mutex::default());
        let settings = Settings::of(config, &config.state_dir);
        let now = Instant::now();
        let worker = Worker {
            database: Err(Fault::Closed.of(&database::path(&settings.directory))),
            settings,
            journal,
            records: record_inbox,
            requests: request_inbox,
            figures: Arc::clone(&figures),
            pending: VecDeque::new(),
            lost: 0,
            write_at: None,
            retry_at: Some(now),
            reported_at: None,
            prune_at: now,
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(move || {
            confine::no_exec(Reach::Directory(&worker.settings.directory));
            worker.run()
        })?;
        Ok(Self { records, requests, figures })
    }
}

impl Worker {
    fn run(mut self) {
        loop {
            self.records.waker.clear();
            self.requests.waker.clear();
            self.gather();
            self.retry();
            if self.write_at.is_some_and(|at| Instant::now() >= at) {
                self.write();
            }
            while let Some(request) = self.requests.next() {
                match request {
                    Request::Find(query, after, answer) => {
                        let _ = answer.try_send(self.find(&query, after));
                    }
                    Request::Settle(answer) => {
                        self.gather();
                        self.write();
                        // A database that is gone is made again at once.
                        self.retry();
                        let _ = answer.try_send(());
                    }
                    Request::Configure(config) => self.configure(&config),
                    Request::Stop(answer) => {
                        self.gather();
                        self.write();
                        // Closing merges the log into the database.
                        self.database = Err(Fault::Closed.of(&self.settings.directory));
                        let _ = answer.try_send(());
                        return;
                    }
                }
            }
            self.maintain();
            self.wait();
        }
    }

    fn wait(&self) {
        let wake_at =
            [self.write_at, self.retry_at].into_iter().flatten().fold(self.prune_at, Instant::min);
        let mut fds = [
            PollFd::from_borrowed_fd(self.records.waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.requests.waker.as_fd(), PollFlags::IN),
        ];
        // Ignore the result: the next round finds out by itself.
        let _ = poll::wait(&mut fds, Some(wake_at.saturating_duration_since(Instant::now())));
    }

    fn gather(&mut self) {
        while let Some(record) = self.records.next() {
            if self.settings.keep.is_none() {
                continue;
            }
            if self.pending.len() >= PENDING_MAX {
                self.pending.pop_front();
                self.lost += 1;
                lock(&self.figures).lost += 1;
            }
            self.pending.push_back(*record);
        }
        if !self.pending.is_empty() && self.write_at.is_none() {
            self.write_at = Some(Instant::now() + GATHER_TIME);
        }
    }

    fn write(&mut self) {
        self.write_at = None;
        while !self.pending.is_empty() && self.retry_at.is_none() {
            let lost = (self.lost > 0).then(|| Record::not_stored(Timestamp::now(), self.lost));
            let batch: Vec<Record> = self.pending.iter().take(BATCH).cloned().chain(lost).collect();
            if !self.write_batch(&batch) {
                break;
            }
            self.lost = 0;
            self.pending.drain(..BATCH.min(self.pending.len()));
        }
    }

    fn write_batch(&mut self, batch: &[Record]) -> bool {
        let max = self.settings.max;
        let Ok(database) = &mut self.database else { return false };
        match database.write(batch, max) {
            Ok(()) => self.written(),
            Err(error) => {
                self.fail(error);
                return false;
            }
        }
        true
    }

    fn find(&mut self, query: &Query, after: Option<Place>) -> Result<Page, String> {
        if self.settings.keep.is_none() {
            return Ok(Page::default());
        }
        let database = self.database.as_ref().map_err(|error| error_chain(error))?;
        match database.find(query, after) {
            Ok(page) => Ok(page),
            Err(error) => {
                let text = error_chain(&error);
                if error.is_damage() {
                    self.fail(error);
                }
                Err(text)
            }
        }
    }

    fn configure(&mut self, config: &Config) {
        let settings = Settings::of(config, &self.settings.directory);
        let old = std::mem::replace(&mut self.settings, settings);
        if (old.keep, old.max) == (self.settings.keep, self.settings.max) {
            return;
        }
        self.prune_at = Instant::now();
        match self.settings.keep {
            None => self.retry_at = Some(Instant::now()),
            Some(_) if old.keep.is_none() => self.retry_at = Some(Instant::now()),
            Some(_) => {
                if let Ok(database) = &mut self.database
                    && let Err(error) = database.limit(self.settings.max)
                {
                    self.fail(error);
                }
            }
        }
    }

    /// Deletes events that are too old.
    fn maintain(&mut self) {
        let now = Instant::now();
        if now < self.prune_at {
            return;
        }
        self.prune_at = now + PRUNE_EVERY;
        let Some(keep) = self.settings.keep else { return };
        let oldest = SignedDuration::try_from(keep)
            .ok()
            .and_then(|keep| Timestamp::now().checked_sub(keep).ok());
        let Ok(database) = &mut self.database else { return };
        let pruned = database
            .check_place()
            .and_then(|()| oldest.map_or(Ok(false), |oldest| database.delete_before(oldest)));
        match pruned {
            Ok(true) => self.prune_at = now + GATHER_TIME,
            Ok(false) => {}
            Err(error) => self.fail(error),
        }
        self.count();
    }

    /// Opens the store, at the start and when it failed.
    fn retry(&mut self) {
        if self.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        if self.settings.keep.is_none() {
            self.forget();
            return;
        }
        match &self.database {
            // Writing is the test.
            Ok(_) => self.write_at = Some(Instant::now()),
            Err(error) if error.is_others() => {}
            Err(_) => self.open(),
        }
    }

    /// Deletes the database: no events shall be stored.
    fn forget(&mut self) {
        let directory = self.settings.directory.clone();
        self.database = Err(Fault::Closed.of(&directory));
        self.pending.clear();
        self.write_at = None;
        *lock(&self.figures) = Figures::default();
        if let Err(error) = database::remove(&directory) {
            log::warn!("cannot remove {}: {error}", database::path(&directory).display());
        }
    }

    fn open(&mut self) {
        let opened = EventDatabase::open(&self.settings.directory, Timestamp::now());
        let opened = match opened {
            Err(error) if error.is_damage() => {
                self.set_aside(&error);
                EventDatabase::open(&self.settings.directory, Timestamp::now())
            }
            opened => opened,
        };
        match opened {
            Ok((database, is_new)) => {
                self.database = Ok(database);
                if is_new {
                    self.import();
                }
                self.prune_at = Instant::now();
                self.write();
                self.count();
                self.release_memory();
            }
            Err(error) => self.fail(error),
        }
    }

    /// Gives the system back what opening and importing needed, as the daemon's start does.
    fn release_memory(&self) {
        if let Ok(database) = &self.database {
            database.shrink_memory();
        }
        process::trim_heap();
    }

    /// Reads the lines of the classic history file into a new database.
    fn import(&mut self) {
        let Some(path) = self.settings.history_file.clone() else { return };
        let keep = self.settings.keep.and_then(|keep| SignedDuration::try_from(keep).ok());
        let since = keep.and_then(|keep| Timestamp::now().checked_sub(keep).ok());
        let query = history::Query { since, source: None, limit: IMPORTED_MAX };
        let lines = match history::read(&path, &query, &|| false) {
            Ok((lines, _)) => lines,
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return;
            }
        };
        // What waits to be stored may have its line already.
        let before = self.pending.front().map(|record| record.at.as_second());
        let records: Vec<Record> = lines
            .into_iter()
            .filter(|line| before.is_none_or(|before| line.at.as_second() < before))
            .map(Record::of_line)
            .collect();
        for batch in records.chunks(BATCH) {
            if !self.write_batch(batch) {
                return;
            }
        }
        if !records.is_empty() {
            log::info!("{} lines of {} are in the event store now", records.len(), path.display());
        }
    }

    fn set_aside(&mut self, error: &Error) {
        let path = database::path(&self.settings.directory);
        match crate::store::set_aside(&path, &clock::mark()) {
            Ok(aside) => self.journal.notify(Notice::Warning(format!(
                "{} is damaged ({}); it lies in {} now, and a new one begins",
                path.display(),
                error_chain(error),
                aside.display()
            ))),
            Err(error) => log::error!("{}", error_chain(&error)),
        }
    }

    fn count(&mut self) {
        if let Ok(database) = &self.database {
            let mut figures = lock(&self.figures);
            (figures.rows, figures.bytes) = (database.rows(), database.bytes());
        }
    }

    fn written(&mut self) {
        self.count();
        if lock(&self.figures).failing.take().is_some() {
            self.reported_at = None;
            self.journal.notify(Notice::Warning(format!(
                "events are stored again in {}",
                database::path(&self.settings.directory).display()
            )));
        }
    }

    fn fail(&mut self, error: Error) {
        let text = error_chain(&error);
        let (is_gone, is_damage, is_others) =
            (error.is_gone(), error.is_damage(), error.is_others());
        if is_damage && self.database.is_ok() {
            self.database = Err(Fault::Closed.of(&self.settings.directory));
            self.set_aside(&error);
        } else if is_gone || self.database.is_err() {
            self.database = Err(error);
        }
        let now = Instant::now();
        // A new one helps at once.
        let is_mended = is_gone || is_damage;
        self.retry_at = Some(if is_mended { now } else { now + RETRY_EVERY });
        if self.reported_at.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
            self.reported_at = Some(now);
            let remedy = if is_others {
                "put it right and restart"
            } else {
                "it is tried again every few seconds"
            };
            self.journal.notify(Notice::Error(format!(
                "the event store cannot be used: {text}; the log goes on, and the last {PENDING_MAX} events wait in memory: {remedy}"
            )));
        }
        lock(&self.figures).failing = Some(text);
    }
}
