//! The daemon's side of the helper process: start, communication without waiting, end.
//!
//! The only place where this program starts another: itself. Where responses need root, the service
//! manager starts the helper for each connection to [`RESPONSES`]. Orphans of a killed helper become
//! the daemon's children, which ends them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::ARGUMENT;
use super::protocol::{self, Lines, Message, Order};
use crate::sys::{peer, poll, process};

/// Variables that systemd sets for its service only (sd_notify(3), sd_listen_fds(3)).
const NOT_HANDED_ON: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// resolv.conf(5): one second for each name server, two attempts. Otherwise a lookup may hold its
/// thread for half a minute.
const RESOLVER: (&str, &str) = ("RES_OPTIONS", "timeout:1 attempts:2");

/// Time from hanging up until the helper is killed.
const EXIT_TIMEOUT: Duration = Duration::from_millis(200);

/// Bytes of one read, and reads before other work has its turn.
const READ: usize = 16 << 10;
const READS: usize = 16;

/// Where the unit of the helper that runs as root takes connections.
pub const RESPONSES: &str = "/run/portsentry-responses.sock";

/// A running helper. Dropping it ends it, with all its children.
pub struct Process {
    /// `None`: another program has started it, and it ends when the socket closes.
    child: Option<Child>,
    socket: UnixStream,
    lines: Lines,
    out: VecDeque<u8>,
    started: Instant,
}

/// This program's file, even if another version is at its path by now.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

impl Process {
    /// Starts `program` as the helper.
    ///
    /// # Errors
    /// socketpair(2), fork(2) or execve(2) failed.
    pub fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command
            .arg0("portsentry")
            .arg(ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .current_dir("/");
        for name in NOT_HANDED_ON {
            command.env_remove(name);
        }
        if std::env::var_os(RESOLVER.0).is_none() {
            command.env(RESOLVER.0, RESOLVER.1);
        }
        process::inherit_nothing(&mut command);
        let child = command.spawn()?;
        Ok(Self::new(Some(child), ours))
    }

    /// Connects to the helper that runs as root; `None`: the administrator has not enabled it.
    ///
    /// # Errors
    /// It takes no connection.
    pub fn connect(path: &Path) -> io::Result<Option<Self>> {
        match peer::connect_now(path) {
            Ok(socket) => Ok(Some(Self::new(None, socket))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new(child: Option<Child>, socket: UnixStream) -> Self {
        Self {
            child,
            socket,
            lines: Lines::default(),
            out: VecDeque::new(),
            started: Instant::now(),
        }
    }

    /// Process id, if it is a child of this process.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Time since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes queued and not sent yet.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Queues an order; [`Process::flush`] sends it.
    pub fn send(&mut self, order: &Order) {
        match protocol::encode(order) {
            Some(line) => self.out.extend(line),
            // The configuration's bounds exclude this.
            None => log::error!("an order to the helper is too long and was not sent"),
        }
    }

    /// Sends queued bytes without waiting.
    ///
    /// # Errors
    /// send(2) failed: the helper has ended.
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

    /// Takes the messages that have arrived, without waiting; `false` when the helper has ended.
    ///
    /// # Errors
    /// recv(2) failed, or `InvalidData` for an unknown message.
    pub fn receive(&mut self, mut each: impl FnMut(Message)) -> io::Result<bool> {
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

    /// Waits until a message has arrived or the helper has ended, for at most `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        poll::readable(self.socket.as_fd(), limit).unwrap_or(true)
    }

    /// Ends the helper and all its children. Returns how it ended, if it had ended before.
    pub fn end(mut self) -> String {
        self.reap()
    }

    fn reap(&mut self) -> String {
        let Some(child) = &mut self.child else {
            let _ = self.socket.shutdown(Shutdown::Both);
            return "it is a unit of its own".to_owned();
        };
        let status = match child.try_wait() {
            Ok(None) => {
                if let Ok(end) = process::end_of(child) {
                    let _ = poll::readable(end.as_fd(), EXIT_TIMEOUT);
                }
                child.try_wait()
            }
            status => status,
        };
        let ended = match status {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it did not end by itself".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = child.kill();
        let _ = child.wait();
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap();
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
