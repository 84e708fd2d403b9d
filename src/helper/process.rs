//! The daemon's side of the helper: starting it, speaking to it without waiting, ending it.
//!
//! The only place where this program starts another: itself. What a helper that was killed leaves behind comes to the daemon, which ends it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::WORD;
use super::protocol::{self, Lines, Order, Word};
use crate::sys::{poll, process};

/// What systemd tells its service is not meant for others (sd_notify(3), sd_listen_fds(3)).
const NOT_HANDED_ON: [&str; 6] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// resolv.conf(5): the C library's resolver gives up on a name server after a second, and asks each twice at the most. Without it a lookup may hold
/// its thread for half a minute.
const RESOLVER: (&str, &str) = ("RES_OPTIONS", "timeout:1 attempts:2");

/// It hangs up first and ends a moment later; one that does not is killed.
const GOING: Duration = Duration::from_millis(200);

/// Bytes read at once, and how often before others get their turn.
const READ: usize = 16 << 10;
const READS: usize = 16;

/// A running helper. It is ended when this is dropped, with all that it started.
pub struct Process {
    child: Child,
    socket: UnixStream,
    lines: Lines,
    out: VecDeque<u8>,
    started: Instant,
}

/// This program, even when another version lies at its path by now.
pub fn own_program() -> &'static Path {
    Path::new("/proc/self/exe")
}

/// What a helper that was killed leaves behind comes to this process from now on. Nothing else may wait for this process's children.
///
/// # Errors
/// What prctl(2) says.
pub fn take_charge() -> io::Result<()> {
    process::adopt_orphans()
}

impl Process {
    /// Starts `program` as the helper.
    ///
    /// # Errors
    /// What socketpair(2), fork(2) and execve(2) say.
    pub fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command.arg0("portsentry").arg(WORD).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).current_dir("/");
        for name in NOT_HANDED_ON {
            command.env_remove(name);
        }
        if std::env::var_os(RESOLVER.0).is_none() {
            command.env(RESOLVER.0, RESOLVER.1);
        }
        process::inherit_nothing(&mut command);
        let child = command.spawn()?;
        Ok(Self { child, socket: ours, lines: Lines::default(), out: VecDeque::new(), started: Instant::now() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes that were sent and not taken yet.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Sends an order, as soon as it takes it; see [`Process::flush`].
    pub fn send(&mut self, order: &Order) {
        match protocol::encode(order) {
            Some(line) => self.out.extend(line),
            // Cannot be by what the configuration allows.
            None => log::error!("an order to the helper is too long and was not sent"),
        }
    }

    /// Hands over what it takes now.
    ///
    /// # Errors
    /// What send(2) says: it has ended.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(self.out.as_slices().0) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What it said since the last time, without waiting; `false` when it has ended.
    ///
    /// # Errors
    /// What recv(2) says, and `InvalidData` when it says what no helper says.
    pub fn receive(&mut self, mut each: impl FnMut(Word)) -> io::Result<bool> {
        let mut buffer = [0; READ];
        for _ in 0..READS {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => self.lines.push(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(word) = self.lines.next_line()? {
                each(word);
            }
        }
        Ok(true)
    }

    /// Waits until it says something or has ended, but not longer than `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        poll::readable(self.socket.as_fd(), limit).unwrap_or(true)
    }

    /// Ends it, and all that it started. How it ended, if it had ended before.
    pub fn end(mut self) -> String {
        self.reap()
    }

    fn reap(&mut self) -> String {
        let status = match self.child.try_wait() {
            Ok(None) => {
                if let Ok(end) = process::end_of(&self.child) {
                    let _ = poll::readable(end.as_fd(), GOING);
                }
                self.child.try_wait()
            }
            status => status,
        };
        let ended = match status {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it did not end by itself".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = self.child.kill();
        let _ = self.child.wait();
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap();
    }
}

/// Ends what a helper left behind, after [`take_charge`]: every child of this process. `false`: some could not be killed.
pub fn clear() -> bool {
    process::end_children(|_| false)
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
