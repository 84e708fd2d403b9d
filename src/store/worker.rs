//! The thread that owns the store.
//!
//! Changes are gathered for a moment and written in one transaction. After an overflow or a
//! failure, and at the start, the thread asks the packet thread for all blocks in chunks and writes
//! the differences. Changes that arrive meanwhile are newer, and are written afterwards.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::error::Fault;
use super::shared::{EngineReader, Item, Request, Shared, Stored, pieces};
use super::thread::{QUEUE, StoreHandle};
use super::{Change, Content, Database, EVIDENCE_MAX, Error, Mark, Memory, Opened, Rows, clock};
use crate::config::Config;
use crate::errors::error_chain;
use crate::journal::{JournalHandle, Notice};
use crate::sys::confine;
use crate::sys::mailbox::{self, Inbox};
use crate::sys::reach::Reach;
use crate::sys::{poll, process};
use crate::time::MonoTime;

/// How long changes are gathered: a scan from many sources becomes one transaction, without a
/// noticeable delay.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// More changes than this are written as a list of all blocks.
const PENDING_MAX: usize = 16_384;

/// How long the evidence about a source is kept: the engine's long window is a day.
const LONG_WINDOW: Duration = Duration::from_secs(86_400);

/// Time between writes of new evidence: a power failure loses this much.
const EVIDENCE_EVERY: Duration = Duration::from_secs(30);

/// Time between deletions of expired rows, if anything was written.
const PRUNE_EVERY: Duration = Duration::from_secs(300);

/// Time between attempts while the store cannot be written.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Time between reports of a store that keeps failing.
const REPORT_EVERY: Duration = Duration::from_secs(3600);

/// Block slots that the packet thread scans for one chunk of the list: a millisecond of its time.
const LIST_CHUNK: usize = 4096;

struct Worker {
    /// Of the first configuration: a reload does not change it.
    directory: PathBuf,
    database: Result<Database, Error>,
    config: Config,
    journal: JournalHandle,
    engine: Box<dyn EngineReader>,
    items: Inbox<Item>,
    requests: Inbox<Request>,
    shared: Arc<Shared>,
    /// Changes that wait for the transaction.
    pending: Vec<Change>,
    write_at: Option<Instant>,
    /// Evidence from this time on is not written yet.
    evidence_from: MonoTime,
    evidence_at: Instant,
    prune_at: Instant,
    /// When the database is copied, if it has changed since the last copy.
    copy_at: Instant,
    is_copied: bool,
    /// The rows are not counted before this time.
    count_at: Instant,
    is_uncounted: bool,
    is_dirty: bool,
    /// The packet thread has the content of the store.
    is_restored: bool,
    /// Administrators and services as they are stored.
    memory: Memory,
    /// The stored times are of another boot: replace the whole content before other writes.
    must_replace: bool,
    /// All offenders must be written too.
    whole: bool,
    /// It is failing; time of the next attempt.
    retry_at: Option<Instant>,
    reported_at: Option<Instant>,
    /// The last mark that was written.
    mark: Option<Mark>,
}

impl StoreHandle {
    /// Starts the thread with an opened store. The packet thread restores its content ([`Stored`]).
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        config: &Config,
        opened: Opened,
        journal: JournalHandle,
        engine: Box<dyn EngineReader>,
    ) -> io::Result<(Self, Option<Stored>)> {
        let mark = clock::mark();
        let shared = Arc::new(Shared::default());
        let stored = opened.content.map(|content| {
            shared.figures().rows = Rows::of(&content);
            let is_same_boot = content.mark.is_same_boot(&mark);
            Stored { content: content.carried(&mark), is_same_boot }
        });
        let (items, item_inbox) = mailbox::with_capacity(QUEUE)?;
        let (requests, request_inbox) = mailbox::link()?;
        // Rows from before the last boot are rewritten by this boot's clock before any other write,
        // since there is one mark for all. That happens when the host is protected; until then a
        // kill leaves the old rows.
        let must_replace = stored.as_ref().is_some_and(|stored| !stored.is_same_boot);
        let evidence_from = stored
            .as_ref()
            .filter(|_| !must_replace)
            .map_or_else(MonoTime::default, |stored| stored.content.mark.clock);
        shared.list_wanted.store(true, Ordering::Relaxed);
        let memory =
            stored.as_ref().map(|stored| stored.content.memory.clone()).unwrap_or_default();
        *shared.memory() = memory.clone();
        let now = Instant::now();
        let mut worker = Worker {
            directory: config.state_dir.clone(),
            database: opened.database,
            config: config.clone(),
            journal,
            engine,
            items: item_inbox,
            requests: request_inbox,
            shared: Arc::clone(&shared),
            pending: Vec::new(),
            write_at: None,
            evidence_from,
            evidence_at: now + EVIDENCE_EVERY,
            prune_at: now + PRUNE_EVERY,
            copy_at: now,
            is_copied: false,
            count_at: now,
            is_uncounted: true,
            is_dirty: true,
            is_restored: stored.is_some(),
            memory,
            must_replace,
            whole: false,
            retry_at: None,
            reported_at: None,
            mark: None,
        };
        if worker.database.is_err() {
            worker.fail_to_open();
        }
        std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            confine::no_exec(Reach::Directory(&worker.directory));
            worker.run()
        })?;
        Ok((Self { shared, items, requests }, stored))
    }
}

impl Worker {
    fn run(mut self) {
        loop {
            self.items.waker.clear();
            self.requests.waker.clear();
            self.gather();
            self.retry();
            if self.shared.list_wanted.load(Ordering::Acquire) && self.can_write() {
                self.write_all();
                process::trim_heap();
            }
            if self.write_at.is_some_and(|at| Instant::now() >= at) {
                self.write();
            }
            while let Some(request) = self.requests.next() {
                match request {
                    Request::Settle(answer) => {
                        let _ = answer.try_send(self.settle());
                    }
                    Request::Configure(config) => self.config = *config,
                    Request::Stop(answer) => {
                        self.gather();
                        self.write();
                        let memory = self.shared.memory().clone();
                        if memory != self.memory {
                            self.write_memory(memory);
                        }
                        self.copy();
                        // Closing merges the log into the database.
                        self.database = Err(Fault::Closed.of(&self.directory));
                        let _ = answer.try_send(());
                        return;
                    }
                }
            }
            self.maintain();
            self.count();
            self.wait();
        }
    }

    fn wait(&self) {
        let count_at = self.is_uncounted.then_some(self.count_at);
        let others = [self.write_at, self.retry_at, count_at];
        let wake_at = others.into_iter().flatten().fold(self.evidence_at, Instant::min);
        let mut fds = [
            PollFd::from_borrowed_fd(self.items.waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.requests.waker.as_fd(), PollFlags::IN),
        ];
        // Ignore the result: the next round finds out by itself.
        let _ = poll::wait(&mut fds, Some(wake_at.saturating_duration_since(Instant::now())));
    }

    fn can_write(&self) -> bool {
        self.database.is_ok() && self.retry_at.is_none()
    }

    /// Takes queued items.
    fn gather(&mut self) {
        while let Some(item) = self.items.next() {
            match item {
                Item::Change(change) => self.pending.push(*change),
                Item::Last(evidence) => {
                    self.pending.extend(evidence.into_iter().map(Change::Evidence))
                }
            }
            if self.pending.len() > PENDING_MAX + EVIDENCE_MAX {
                self.forget_pending();
            }
        }
        if !self.pending.is_empty() && self.write_at.is_none() {
            self.write_at = Some(Instant::now() + GATHER_TIME);
        }
    }

    /// Drops pending changes that the list of all blocks will contain.
    fn forget_pending(&mut self) {
        self.pending.clear();
        self.write_at = None;
        self.whole = true;
        self.shared.list_wanted.store(true, Ordering::Release);
    }

    /// Writes the pending changes.
    fn write(&mut self) {
        self.write_at = None;
        if self.pending.is_empty() {
            return;
        }
        if !self.can_write() || self.must_replace {
            self.forget_pending();
            return;
        }
        let changes = std::mem::take(&mut self.pending);
        self.apply(&changes);
    }

    fn apply(&mut self, changes: &[Change]) -> bool {
        let is_written = self.write_with(|database, mark| database.apply(mark, changes));
        self.is_dirty |= is_written;
        is_written
    }

    /// Writes to the database, and notes how it went.
    fn write_with(
        &mut self,
        write: impl FnOnce(&mut Database, &Mark) -> Result<(), Error>,
    ) -> bool {
        self.write_from(|database, mark, _| write(database, mark))
    }

    /// Writes to the database what comes from the engine meanwhile, and notes how it went.
    fn write_from(
        &mut self,
        write: impl FnOnce(&mut Database, &Mark, &dyn EngineReader) -> Result<(), Error>,
    ) -> bool {
        let mark = clock::mark();
        let Ok(database) = &mut self.database else { return false };
        let result = write(database, &mark, &*self.engine);
        let is_written = result.is_ok();
        match result {
            Ok(()) => self.written(Some(mark)),
            Err(error) if error.is_unlisted() => self.list_later(),
            Err(error) => self.fail(error),
        }
        self.is_copied &= !is_written;
        is_written
    }

    /// Notices that another program has deleted or replaced the database.
    fn check_place(&mut self) {
        if let Ok(database) = &mut self.database
            && let Err(error) = database.check_place()
        {
            self.fail(error);
        }
    }

    /// Copies the database, if it has changed since.
    fn copy(&mut self) {
        if self.is_copied || !self.can_write() || self.must_replace {
            return;
        }
        let Ok(database) = &self.database else { return };
        match database.copy() {
            Ok(wait) => {
                self.copy_at = Instant::now() + wait;
                self.is_copied = true;
            }
            Err(error) if error.is_damage() => self.fail(error),
            Err(error) => {
                self.copy_at = Instant::now() + REPORT_EVERY;
                log::warn!("the state store has no copy now: {}", error_chain(&error));
            }
        }
    }

    /// Writes administrators and services if that is worth it.
    fn write_memory_if_changed(&mut self) {
        let memory = self.shared.memory().clone();
        if memory.differs(&self.memory) {
            self.write_memory(memory);
        }
    }

    /// Writes administrators and services.
    fn write_memory(&mut self, memory: Memory) {
        // What replaces the whole content has them too.
        if self.can_write()
            && !self.must_replace
            && self.write_with(|database, mark| database.set_memory(mark, &memory))
        {
            self.memory = memory;
        }
    }

    /// Asks for all blocks and writes the differences.
    fn write_all(&mut self) {
        // Items lost from here on request another list. Older pending changes must not be written
        // after the list.
        self.shared.list_wanted.store(false, Ordering::Release);
        self.gather();
        if self.must_replace {
            self.pending.clear();
            self.write_at = None;
        }
        self.write();
        if !self.can_write() {
            return;
        }
        // The packet thread may be starting or ending.
        let Some(first) = self.engine.page(0, LIST_CHUNK) else { return self.list_later() };
        let offenders = if self.whole || self.must_replace {
            self.engine.offenders().unwrap_or_default()
        } else {
            Vec::new()
        };
        if self.must_replace {
            let evidence_from = clock::now();
            let evidence =
                self.engine.evidence(MonoTime::default(), EVIDENCE_MAX).unwrap_or_default();
            let memory = self.shared.memory().clone();
            let blocks = Vec::new();
            let content = Content { mark: clock::mark(), blocks, offenders, evidence, memory };
            let replace = |database: &mut Database, _: &Mark, engine: &dyn EngineReader| {
                database.replace_with(&content, pieces(engine, LIST_CHUNK, first))
            };
            if self.write_from(replace) {
                self.memory = content.memory;
                (self.must_replace, self.whole, self.evidence_from) = (false, false, evidence_from);
            }
            return;
        }
        let offenders: Vec<_> = offenders.into_iter().map(Change::Offender).collect();
        if self.write_from(|database, mark, engine| {
            database.set_blocks(mark, pieces(engine, LIST_CHUNK, first))
        }) && (offenders.is_empty() || self.apply(&offenders))
        {
            self.whole = false;
        }
    }

    /// The packet thread does not answer now.
    fn list_later(&mut self) {
        self.shared.list_wanted.store(true, Ordering::Release);
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
    }

    /// Writes everything queued so far; `Err`: why it is not on the disk.
    fn settle(&mut self) -> Result<(), String> {
        self.gather();
        self.write();
        self.check_place();
        // A database that is gone is made again at once.
        self.retry();
        if self.shared.list_wanted.load(Ordering::Acquire) && self.can_write() {
            self.write_all();
            self.gather();
        }
        self.write();
        self.write_memory_if_changed();
        match self.shared.figures().failing.clone() {
            Some(why) => Err(why),
            None if self.shared.list_wanted.load(Ordering::Acquire) => {
                Err("too much changes at once".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Periodic work.
    fn maintain(&mut self) {
        let now = Instant::now();
        if now < self.evidence_at {
            return;
        }
        self.evidence_at = now + EVIDENCE_EVERY;
        if !self.can_write() || self.must_replace {
            return;
        }
        self.check_place();
        if !self.can_write() {
            return;
        }
        let from = self.evidence_from;
        let at = clock::now();
        if let Some(evidence) = self.engine.evidence(from, EVIDENCE_MAX)
            && !evidence.is_empty()
        {
            let changes: Vec<_> = evidence.into_iter().map(Change::Evidence).collect();
            if self.apply(&changes) {
                self.evidence_from = at;
            }
        }
        if self.mark.as_ref().is_some_and(|last| last.was_clock_set(&clock::mark())) {
            // Its times are by the time of day.
            self.memory = Memory::default();
            self.apply(&[]);
        }
        self.write_memory_if_changed();
        if self.is_dirty && now >= self.prune_at && self.can_write() {
            self.prune_at = now + PRUNE_EVERY;
            let evidence = at.before(self.config.scan_window.max(LONG_WINDOW));
            let offenders = at.before(self.config.block.escalate.memory);
            let is_pruned =
                self.write_with(|database, mark| database.prune(mark, evidence, offenders));
            self.is_dirty &= !is_pruned;
        }
        if now >= self.copy_at {
            self.copy();
        }
    }

    /// Retries a failing store.
    fn retry(&mut self) {
        if self.retry_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        match &self.database {
            // Writing the next list is the test.
            Ok(_) => self.shared.list_wanted.store(true, Ordering::Release),
            Err(error) if error.is_others() => {}
            Err(_) => self.open_again(),
        }
    }

    fn open_again(&mut self) {
        let mark = clock::mark();
        let Opened { database, content, warnings } = super::open(&self.directory, &mark);
        for warning in warnings {
            self.journal.notify(Notice::Warning(warning));
        }
        self.database = database;
        let Ok(database) = &mut self.database else { return self.fail_to_open() };
        let Some(content) = content else { return };
        let is_same_boot = content.mark.is_same_boot(&mark);
        let content = content.carried(&mark);
        if !is_same_boot && let Err(error) = database.replace(&content) {
            return self.fail(error);
        }
        self.memory = content.memory.clone();
        if !self.is_restored {
            // It could not be read at the start.
            self.shared.memory().merge(content.memory.clone());
            if self.engine.restore(Stored { content, is_same_boot }).is_none() {
                self.retry_at = Some(Instant::now() + RETRY_EVERY);
                self.database = Err(Fault::Closed.of(&self.directory));
                return;
            }
            self.is_restored = true;
        }
        self.whole = true;
        self.evidence_from = MonoTime::default();
        self.shared.list_wanted.store(true, Ordering::Release);
    }

    /// Counts the rows when due.
    fn count(&mut self) {
        let began = Instant::now();
        if !self.is_uncounted || began < self.count_at {
            return;
        }
        if let Ok(database) = &self.database
            && let Ok(rows) = database.rows()
        {
            self.shared.figures().rows = rows;
        }
        self.is_uncounted = false;
        // SQLite counts by scanning: spend at most a fiftieth of the time on it.
        self.count_at = Instant::now() + began.elapsed() * 50;
    }

    /// Notes a successful write.
    fn written(&mut self, mark: Option<Mark>) {
        self.is_uncounted = true;
        self.count();
        let mut figures = self.shared.figures();
        let has_failed = figures.failing.take().is_some();
        if let Some(mark) = mark {
            figures.written = Some(mark.clock);
            self.mark = Some(mark);
        }
        drop(figures);
        self.retry_at = None;
        if has_failed {
            self.reported_at = None;
            self.journal.notify(Notice::Warning(format!(
                "the state store in {} is written again",
                self.directory.display()
            )));
        }
    }

    /// Notes that the store cannot be opened.
    fn fail_to_open(&mut self) {
        let Err(error) = &self.database else { return };
        let (text, for_good) = (error_chain(error), error.is_others());
        self.report_failure(text, for_good);
    }

    /// Notes that the store cannot be written.
    fn fail(&mut self, error: Error) {
        let text = error_chain(&error);
        if error.is_damage() {
            self.set_aside(&error);
        } else if error.is_gone() {
            self.database = Err(Fault::Closed.of(&self.directory));
        }
        self.forget_pending();
        self.report_failure(text, false);
        if error.is_gone() {
            self.retry_at = Some(Instant::now());
        }
    }

    /// Replaces a database that turned out to be damaged while in use, with the content from
    /// memory.
    fn set_aside(&mut self, error: &Error) {
        let closed = Err(Fault::Damaged.of(&self.directory));
        let Ok(database) = std::mem::replace(&mut self.database, closed) else { return };
        let path = database.path().to_owned();
        drop(database);
        match super::set_aside(&path, &clock::mark()) {
            Ok(aside) => {
                let text = format!(
                    "{} is damaged ({}); it lies in {} now",
                    path.display(),
                    error_chain(error),
                    aside.display()
                );
                self.journal.notify(Notice::Warning(text));
            }
            Err(error) => log::error!("{}", error_chain(&error)),
        }
    }

    fn report_failure(&mut self, text: String, for_good: bool) {
        let now = Instant::now();
        self.retry_at = Some(now + RETRY_EVERY);
        if self.reported_at.is_none_or(|at| now.duration_since(at) >= REPORT_EVERY) {
            self.reported_at = Some(now);
            let remedy = if for_good {
                "put it right and restart"
            } else {
                "it is tried again every few seconds"
            };
            self.journal.notify(Notice::Error(format!(
                "the state store cannot be used: {text}; blocks go on, but a reboot would forget what is not written: {remedy}"
            )));
        }
        self.shared.figures().failing = Some(text);
    }
}
