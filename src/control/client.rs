//! The client's side: connect, send, receive, each within a time limit.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::Deserialize;

use super::protocol::{REPLY_MAX, Refusal, Reply, Request, VERSION};
use crate::sys::{peer, poll, users};

/// Time limit for each line of an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between attempts to connect to a socket whose queue is full.
const CONNECT_RETRY: Duration = Duration::from_millis(10);

/// Why a request was not answered.
#[derive(Debug)]
pub enum ClientError {
    /// No daemon listens on the socket.
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// The error of connect(2).
        error: io::Error,
    },
    /// The socket may not be connected to.
    NotPermitted {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The daemon took too long.
    Late,
    /// The daemon closed the connection without an answer.
    Closed,
    /// The connection failed.
    Lost(io::Error),
    /// The answer is not of this protocol.
    Unintelligible(String),
    /// The daemon refuses.
    Refused(Refusal),
}

impl ClientError {
    /// Exit status of `portsentryctl`.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Late | Self::Closed | Self::Lost(_) => 69,
            Self::NotPermitted { .. } => 77,
            Self::Unintelligible(_) => 70,
            Self::Refused(refusal) => refusal.kind.exit_status(),
        }
    }

    /// The kind of error in a word, which programs rely on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::NotPermitted { .. } => "not-permitted",
            Self::Late => "late",
            Self::Closed => "closed",
            Self::Lost(_) => "lost",
            Self::Unintelligible(_) => "unintelligible",
            Self::Refused(refusal) => refusal.kind.code(),
        }
    }

    /// What the user can do; may be empty.
    pub fn remedy(&self) -> &str {
        match self {
            Self::Unreachable { .. } => {
                "is it running? See `systemctl status portsentry`; another socket is named with --socket"
            }
            Self::NotPermitted { .. } => {
                "run portsentryctl as root, or become a member of the group that control.group names"
            }
            Self::Late | Self::Closed | Self::Lost(_) => {
                "see `systemctl status portsentry` and try again"
            }
            Self::Unintelligible(_) => "use portsentryctl of the same version as the daemon",
            Self::Refused(refusal) => &refusal.remedy,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { path, .. } => {
                write!(f, "the daemon cannot be reached at {}", path.display())
            }
            Self::NotPermitted { path } => {
                write!(f, "you may not use the control socket {}", path.display())
            }
            Self::Late => {
                write!(f, "the daemon gave no answer within {} seconds", ANSWER_TIMEOUT.as_secs())
            }
            Self::Closed => f.write_str("the daemon closed the connection"),
            Self::Lost(_) => f.write_str("the connection to the daemon is lost"),
            Self::Unintelligible(what) => {
                write!(f, "the daemon's answer is not understood: {what}")
            }
            Self::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { error, .. } | Self::Lost(error) => Some(error),
            _ => None,
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// Start of the next line in `buffer`.
    start: usize,
}

impl Client {
    /// Connects; waits for at most [`ANSWER_TIMEOUT`] when the daemon's queue is full.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] and [`ClientError::NotPermitted`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match peer::connect_now(path) {
                Ok(socket) => return Ok(Self { socket, buffer: Vec::new(), start: 0 }),
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::sleep(CONNECT_RETRY)
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::NotPermitted { path: path.to_owned() });
                }
                Err(error) => {
                    return Err(ClientError::Unreachable { path: path.to_owned(), error });
                }
            }
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The connection is lost, or the daemon does not take the request in time.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let login = if request.changes() { users::login(std::process::id()) } else { None };
        let line = request.line(login).map_err(ClientError::Refused)?;
        let mut rest = line.as_bytes();
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, Some(deadline))?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The daemon may have refused and closed already; its answer has the reason.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(ClientError::Lost(error)),
            }
        }
        Ok(())
    }

    /// Receives the next line of an answer; without a `timeout` it waits for ever, as `watch` does.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error reply, and errors of the connection.
    pub fn receive(&mut self, timeout: Option<Duration>) -> Result<Reply, ClientError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let line = self.next_line(deadline)?;
        match parse(&line)? {
            Reply::Error(refusal) => Err(ClientError::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// Sends a request and receives one line of answer.
    ///
    /// # Errors
    /// As [`Client::send`] and [`Client::receive`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request)?;
        self.receive(Some(ANSWER_TIMEOUT))
    }

    fn next_line(&mut self, deadline: Option<Instant>) -> Result<Vec<u8>, ClientError> {
        let mut searched = self.start;
        loop {
            if let Some(length) = self
                .buffer
                .get(searched..)
                .unwrap_or_default()
                .iter()
                .position(|&byte| byte == b'\n')
            {
                let end = searched + length;
                let line = self.buffer.get(self.start..end).unwrap_or_default().to_vec();
                self.start = end + 1;
                return Ok(line);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            searched = self.buffer.len();
            if searched > REPLY_MAX {
                return Err(ClientError::Unintelligible("it is too long".to_owned()));
            }
            let mut chunk = [0u8; 64 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN, deadline)?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed);
                }
                Err(error) => return Err(ClientError::Lost(error)),
            }
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Option<Instant>) -> Result<(), ClientError> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll::wait(&mut [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)], left) {
            Ok(0) => Err(ClientError::Late),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(ClientError::Lost(error)),
        }
    }
}

fn parse(line: &[u8]) -> Result<Reply, ClientError> {
    #[derive(Deserialize)]
    struct Head<'a> {
        v: u64,
        #[serde(borrow)]
        reply: Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct Part<T> {
        rows: Vec<T>,
        more: bool,
    }
    let unintelligible = |error: serde_json::Error| ClientError::Unintelligible(error.to_string());
    let head: Head<'_> = serde_json::from_slice(line).map_err(unintelligible)?;
    if head.v != VERSION {
        return Err(ClientError::Unintelligible(format!(
            "it is of protocol version {}; this program speaks version {VERSION}",
            head.v
        )));
    }
    // Parse long lists straight into their rows: serde keeps a tagged enum in an intermediate form
    // first.
    match &*head.reply {
        "blocks" => {
            serde_json::from_slice(line).map(|Part { rows, more }| Reply::Blocks { rows, more })
        }
        "history" => {
            serde_json::from_slice(line).map(|Part { rows, more }| Reply::History { rows, more })
        }
        _ => serde_json::from_slice(line),
    }
    .map_err(unintelligible)
}
