//! The thread that writes to the log's target, which may hang: a journald that does not read, a full
//! pipe on standard error. Nothing but the log waits for it, and lines that find its queue full are
//! counted.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::Level;

use super::format::Fact;
use super::sink::Sink;
use super::{Event, MODULE, Shared, format};
use crate::config::LogFormat;
use crate::sys::clock;
use crate::sys::confine;
use crate::sys::queue;
use crate::sys::reach::Reach;

/// Lines that wait for the target, some 200 bytes each: ten minutes of lines that packets cause.
pub(super) const LINES: usize = 1024;

/// Least time between two lines about lines that could not be written.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How long one line may take before the target counts as hanging.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// How long the lines of the old target may take before those of a new one are written.
const REPLACE_TIMEOUT: Duration = Duration::from_millis(200);

struct Line {
    level: Level,
    module: Box<str>,
    text: Box<str>,
    facts: Arc<[Fact]>,
}

/// Since when the target has been writing a line, in milliseconds of the boot's clock; 0: it is not.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Whether the target hangs.
    pub(super) fn is_hanging(&self) -> bool {
        let since = Duration::from_millis(self.0.load(Ordering::Relaxed));
        !since.is_zero() && clock::boottime().saturating_sub(since) > HANGS_AFTER
    }

    fn begin(&self) {
        let now = u64::try_from(clock::boottime().as_millis()).unwrap_or(u64::MAX);
        self.0.store(now.max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A handle to the thread.
pub(super) struct Outlet {
    shared: Arc<Shared>,
    progress: Progress,
    /// `None`: report losses if it is time.
    lines: queue::Sender<Option<Line>>,
    ended: Receiver<()>,
    takes_facts: bool,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        shared: Arc<Shared>,
        sink: Box<dyn Sink>,
        format: LogFormat,
    ) -> io::Result<Self> {
        let (lines, queued) = queue::bounded(LINES);
        let (end, ended) = sync_channel::<()>(1);
        let progress = Progress::default();
        let takes_facts = sink.takes_facts();
        let mut thread = Thread {
            shared: Arc::clone(&shared),
            progress: progress.clone(),
            sink,
            format,
            reported_at: None,
        };
        let run = move || {
            confine::no_exec(Reach::Nothing);
            thread.run(&queued);
            drop(end);
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self { shared, progress, lines, ended, takes_facts })
    }

    /// Makes the state of this target the one that `stats` shows.
    pub(super) fn show_progress(&self) {
        *self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner) =
            self.progress.clone();
    }

    /// What its lines about an event say of it besides their text.
    pub(super) fn facts(&self, event: &Event) -> Arc<[Fact]> {
        if self.takes_facts { format::facts(event).into() } else { Arc::default() }
    }

    /// Queues a line. Never waits: if the queue is full, the line is lost and counted.
    pub(super) fn write(&self, level: Level, module: &str, text: &str, facts: &Arc<[Fact]>) {
        let facts = Arc::clone(facts);
        let line = Line { level, module: module.into(), text: text.into(), facts };
        if self.lines.try_send(Some(line)).is_err() {
            self.shared.on_unwritten();
        }
    }

    /// Has losses reported. If the queue is full, the thread reports them by itself.
    pub(super) fn report_losses(&self) {
        let _ = self.lines.try_send(None);
    }

    /// Uses another target from now on. Lines that wait for the old one are written before, unless
    /// it hangs.
    pub(super) fn replace(&mut self, new: Self) {
        new.show_progress();
        let Self { lines, ended, .. } = std::mem::replace(self, new);
        drop(lines);
        let _ = ended.recv_timeout(REPLACE_TIMEOUT);
    }

    /// Waits until all lines are written.
    pub(super) fn finish(self) {
        drop(self.lines);
        let _ = self.ended.recv();
    }
}

struct Thread {
    shared: Arc<Shared>,
    progress: Progress,
    sink: Box<dyn Sink>,
    format: LogFormat,
    reported_at: Option<Instant>,
}

impl Thread {
    fn run(&mut self, queued: &queue::Receiver<Option<Line>>) {
        loop {
            // A report that is not due yet must not wait for the next line.
            let wait = match self.reported_at {
                Some(at) if self.shared.unreported() > 0 => {
                    REPORT_EVERY.saturating_sub(at.elapsed()).max(Duration::from_millis(50))
                }
                _ => Duration::MAX,
            };
            match queued.recv_timeout(wait) {
                Ok(Some(Line { level, module, text, facts })) => {
                    if !self.write(level, &module, &text, &facts) {
                        self.shared.on_unwritten();
                    }
                }
                Ok(None) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.reported_at.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                self.report_losses();
            }
        }
        self.report_losses();
    }

    fn write(&mut self, level: Level, module: &str, text: &str, facts: &[Fact]) -> bool {
        self.progress.begin();
        let result = self.sink.write_event(level, module, text, facts);
        self.progress.end();
        result.is_ok()
    }

    /// Logs how many items and lines were lost, if there are any and it can be written.
    fn report_losses(&mut self) {
        let count = self.shared.take_unreported();
        if count == 0 {
            return;
        }
        self.reported_at = Some(Instant::now());
        let text = format!(
            "{count} messages did not reach the log: it could not keep up, or refused them"
        );
        let line = format::message(Timestamp::now(), Level::Warn, MODULE, &text, self.format);
        if !self.write(line.priority, MODULE, &line.text, &[]) {
            // Keep the count for the next attempt.
            self.shared.unreported.fetch_add(count, Ordering::Relaxed);
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }
}
