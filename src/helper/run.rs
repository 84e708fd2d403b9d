//! Runs one command, and ends everything that it started.
//!
//! Each command is the subreaper of its own descendants, and this process adopts the orphans when a
//! command ends. So a child of this process that is not a running command belongs to one that has
//! ended, and is killed too, whatever its group and session. See prctl(2), PR_SET_CHILD_SUBREAPER.

use std::collections::HashSet;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::journal::Ended;
use crate::sys::poll;
use crate::sys::process::{self, Signal};
use crate::sys::wake::Waker;

/// Bytes of output that are kept for the report; the rest is read and discarded.
pub(super) const OUTPUT_MAX: usize = 1024;

/// Time between SIGTERM and SIGKILL: a script may remove its lock file.
pub(super) const TERM_TIMEOUT: Duration = Duration::from_millis(500);

/// Time after SIGKILL. A killed process that does not end waits for a disk or a file server and is
/// abandoned, so that queued commands can run.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to read the rest of the output. It is there at once when all writers are dead; a process
/// that cannot be killed may hold the pipe open for ever.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// The child processes of this process.
pub(super) struct Ground {
    commands: Mutex<HashSet<u32>>,
    /// Becomes readable when running commands must end.
    hurry: Waker,
}

impl Ground {
    /// Without children.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { commands: Mutex::default(), hurry: Waker::new()? })
    }

    /// Terminates running commands, and kills them soon after; later ones too.
    pub(super) fn hurry(&self) {
        self.hurry.wake();
    }

    /// Kills all children.
    pub(super) fn clear(&self) {
        let _commands = self.lock();
        process::end_children(|_| false);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that the new child is not mistaken for an orphan.
    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut commands = self.lock();
        let child = command.spawn()?;
        commands.insert(child.id());
        Ok(child)
    }

    /// Cleans up after a command that has ended, or that cannot be killed.
    fn finish(&self, mut child: Child) -> io::Result<Option<ExitStatus>> {
        let mut commands = self.lock();
        // Until it is waited for, its process id cannot be reused.
        process::signal_group(&child, Signal::KILL);
        let status = child.try_wait();
        commands.remove(&child.id());
        process::end_children(|pid| commands.contains(&pid));
        status
    }
}

/// The start of a command's output.
struct Output {
    pipe: Option<PipeReader>,
    kept: Vec<u8>,
}

impl Output {
    /// Reads available output, without waiting.
    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        // A fast writer must not delay the timeout.
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(read) => {
                    let room = OUTPUT_MAX - self.kept.len();
                    self.kept.extend(buffer.iter().take(read.min(room)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    /// Reads until all writers are gone, or `deadline`.
    fn drain_until(&mut self, deadline: Instant) {
        loop {
            self.drain();
            let Some(pipe) = &self.pipe else { return };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !poll::readable(pipe.as_fd(), left).unwrap_or(false) {
                return;
            }
        }
    }
}

/// How far a command has been ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Terminated,
    Killed,
}

/// Runs a command prepared by [`process::isolate`], and waits until it and everything that it
/// started have ended. Returns how it ended, and the start of its output.
pub(super) fn run(ground: &Ground, mut command: Command, timeout: Duration) -> (Ended, String) {
    let not_started = |error: io::Error| Ended::NotStarted(system_message(&error));
    let (reader, child) = match start(ground, &mut command) {
        Ok(started) => started,
        Err(error) => return (not_started(error), String::new()),
    };
    // It holds the writing end of the pipe.
    drop(command);
    let mut output = Output { pipe: Some(reader), kept: Vec::new() };
    let overdue = wait(ground, &child, &mut output, timeout);
    let status = ground.finish(child);
    output.drain_until(Instant::now() + OUTPUT_TIMEOUT);
    let ended = match status {
        _ if overdue => Ended::TimedOut(timeout),
        Ok(Some(status)) => ended(status),
        Ok(None) => Ended::Signal(libc::SIGKILL),
        Err(error) => not_started(error),
    };
    (ended, String::from_utf8_lossy(&output.kept).trim_end().to_owned())
}

fn start(ground: &Ground, command: &mut Command) -> io::Result<(PipeReader, Child)> {
    let (reader, writer) = io::pipe()?;
    process::set_nonblocking(&reader)?;
    command.stdout(writer.try_clone()?).stderr(writer);
    Ok((reader, ground.start(command)?))
}

/// Waits until the command has ended, or cannot be killed. Returns whether its time was over.
fn wait(ground: &Ground, child: &Child, output: &mut Output, timeout: Duration) -> bool {
    let end = process::end_of(child);
    let mut phase = Phase::Running;
    let mut overdue = false;
    let mut deadline = Instant::now() + timeout;
    loop {
        let now = Instant::now();
        let hurried = phase == Phase::Running
            && poll::readable(ground.hurry.as_fd(), Duration::ZERO).unwrap_or(false);
        if now >= deadline || hurried {
            (phase, deadline) = match phase {
                Phase::Running => {
                    overdue = !hurried;
                    process::signal_group(child, Signal::TERM);
                    (Phase::Terminated, now + TERM_TIMEOUT)
                }
                Phase::Terminated => {
                    process::signal_group(child, Signal::KILL);
                    (Phase::Killed, now + KILL_TIMEOUT)
                }
                Phase::Killed => return overdue,
            };
        }
        let Ok(end) = &end else {
            // No descriptor is left to watch its end: shorten its time.
            if phase == Phase::Killed {
                return overdue;
            }
            std::thread::sleep(Duration::from_millis(50));
            output.drain();
            continue;
        };
        let mut fds = vec![PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)];
        if let Some(pipe) = &output.pipe {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        if phase == Phase::Running {
            fds.push(PollFd::from_borrowed_fd(ground.hurry.as_fd(), PollFlags::IN));
        }
        let _ = poll::wait(&mut fds, Some(deadline.saturating_duration_since(now)));
        let has_ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        output.drain();
        if has_ended {
            return overdue;
        }
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Success,
        (Some(code), _) => Ended::Status(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

/// The system's error message without its number.
fn system_message(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
