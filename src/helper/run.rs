//! One command from its start to the end of everything that it started.
//!
//! Each command adopts the orphans among its own descendants, and this process adopts what is left when a command ends. So a child of this process
//! that is no running command belongs to one that has ended, and is ended too: whatever it did about groups and sessions. Follows prctl(2),
//! PR_SET_CHILD_SUBREAPER.

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
use crate::sys::process::{self, GroupSignal};
use crate::sys::wake::Waker;

/// Bytes of what a command writes that are kept for the report; the rest is read and forgotten.
pub const OUTPUT_MAX: usize = 1024;

/// Between SIGTERM and SIGKILL: a script may take its lock file away.
pub const LAST_WORDS: Duration = Duration::from_millis(500);

/// A killed process that does not end waits for a disk or a file server. It is left to itself: others wait behind it.
const UNKILLABLE: Duration = Duration::from_secs(5);

/// When all who could write are dead, the rest of the output is there at once; who cannot be killed may hold the pipe open for ever.
const REST: Duration = Duration::from_millis(500);

/// The processes below this one.
pub struct Ground {
    commands: Mutex<HashSet<u32>>,
    /// Readable from the moment on when running commands have to end.
    hurry: Waker,
}

impl Ground {
    /// Nothing runs.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { commands: Mutex::default(), hurry: Waker::new()? })
    }

    /// Running commands are told to end, and killed soon after. For good.
    pub fn hurry(&self) {
        self.hurry.wake();
    }

    /// Kills all there is.
    pub fn clear(&self) {
        let _commands = self.lock();
        process::end_children(|_| false);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that nobody takes the new child for an orphan.
    fn start(&self, command: &mut Command) -> io::Result<Child> {
        let mut commands = self.lock();
        let child = command.spawn()?;
        commands.insert(child.id());
        Ok(child)
    }

    /// Ends what is left of a command that has ended, or that cannot be killed.
    fn finish(&self, mut child: Child) -> io::Result<Option<ExitStatus>> {
        let mut commands = self.lock();
        // Until it is waited for, nobody else can have its number.
        process::signal_group(&child, GroupSignal::Force);
        let status = child.try_wait();
        commands.remove(&child.id());
        process::end_children(|pid| commands.contains(&pid));
        status
    }
}

/// The start of what a command writes.
struct Output {
    pipe: Option<PipeReader>,
    kept: Vec<u8>,
}

impl Output {
    /// Reads what is there, without waiting.
    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        // Whoever writes faster than this is read must not keep the time from being looked at.
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

    /// Reads until nobody can write any more, or `deadline`.
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

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Asked,
    Forced,
}

/// Runs a command, prepared by [`process::isolate`], and waits until it and all that it started have ended. How it ended, and the start of what it
/// wrote.
pub fn run(ground: &Ground, mut command: Command, timeout: Duration) -> (Ended, String) {
    let not_started = |error: io::Error| (Ended::NotStarted(words(&error)), String::new());
    let (reader, child) = match start(ground, &mut command) {
        Ok(started) => started,
        Err(error) => return not_started(error),
    };
    // It holds the pipe's writing end.
    drop(command);
    let mut output = Output { pipe: Some(reader), kept: Vec::new() };
    let overdue = wait(ground, &child, &mut output, timeout);
    let status = ground.finish(child);
    output.drain_until(Instant::now() + REST);
    let ended = match status {
        _ if overdue => Ended::TimedOut(timeout),
        Ok(Some(status)) => ended(status),
        Ok(None) => Ended::Signal(libc::SIGKILL),
        Err(error) => Ended::NotStarted(words(&error)),
    };
    (ended, output.text())
}

fn start(ground: &Ground, command: &mut Command) -> io::Result<(PipeReader, Child)> {
    let (reader, writer) = io::pipe()?;
    process::set_nonblocking(&reader)?;
    command.stdout(writer.try_clone()?).stderr(writer);
    Ok((reader, ground.start(command)?))
}

/// Waits until the command has ended, or cannot be killed. Whether its time was over.
fn wait(ground: &Ground, child: &Child, output: &mut Output, timeout: Duration) -> bool {
    let end = process::end_of(child);
    let mut stage = Stage::Running;
    let mut overdue = false;
    let mut deadline = Instant::now() + timeout;
    loop {
        let now = Instant::now();
        let hurried = stage == Stage::Running && poll::readable(ground.hurry.as_fd(), Duration::ZERO).unwrap_or(false);
        if now >= deadline || hurried {
            (stage, deadline) = match stage {
                Stage::Running => {
                    overdue = !hurried;
                    process::signal_group(child, GroupSignal::Ask);
                    (Stage::Asked, now + LAST_WORDS)
                }
                Stage::Asked => {
                    process::signal_group(child, GroupSignal::Force);
                    (Stage::Forced, now + UNKILLABLE)
                }
                Stage::Forced => return overdue,
            };
        }
        let Ok(end) = &end else {
            // No descriptor is left for it: its time is cut short, since its end cannot be seen.
            if stage == Stage::Forced {
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
        if stage == Stage::Running {
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

/// What the system says of an error, without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
