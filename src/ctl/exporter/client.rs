//! A client of the metrics server: its request is read, its response written, and what it still
//! sends is read away, so that the kernel does not cut the response off.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::http::{self, REQUEST_MAX, Wanted};
use crate::ctl::metrics::Form;

/// How long a request may take. Prometheus sends it at once.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How long the metrics may take: longer than a daemon that does not answer.
const METRICS_WITHIN: Duration = Duration::from_secs(90);

/// How long a response may take to be read.
const RESPONSE_WITHIN: Duration = Duration::from_secs(10);

/// How long what a client still sends after its response is read away.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A client's socket.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its request is being read.
    Reading,
    /// It waits for the metrics.
    Waiting(Form),
    /// Its response is being written.
    Writing,
    /// Its response is written.
    Closing,
    /// It is over.
    Over,
}

/// A connection.
pub(super) struct Connection {
    stream: Stream,
    pub(super) step: Step,
    request: Vec<u8>,
    response: Vec<u8>,
    written: usize,
    /// When it is given up.
    pub(super) until: Instant,
}

impl Connection {
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        Self {
            stream,
            step: Step::Reading,
            request: Vec::new(),
            response: Vec::new(),
            written: 0,
            until: now + REQUEST_WITHIN,
        }
    }

    /// What to wait for.
    pub(super) fn events(&self) -> PollFlags {
        match self.step {
            Step::Reading | Step::Closing => PollFlags::IN,
            Step::Writing => PollFlags::OUT,
            // That a client goes away comes all the same.
            Step::Waiting(_) | Step::Over => PollFlags::empty(),
        }
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn go_on(&mut self, now: Instant) {
        let result = match self.step {
            Step::Reading => self.read(now),
            Step::Writing => self.write(now),
            Step::Closing => self.read_away(),
            // Nothing is expected of it: it has gone away.
            Step::Waiting(_) | Step::Over => {
                self.step = Step::Over;
                Ok(())
            }
        };
        match result {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.step = Step::Over;
            }
            _ => {}
        }
    }

    /// Answers.
    pub(super) fn answer(&mut self, now: Instant, response: Vec<u8>) {
        (self.response, self.written) = (response, 0);
        (self.step, self.until) = (Step::Writing, now + RESPONSE_WITHIN);
        self.go_on(now);
    }

    fn read(&mut self, now: Instant) -> io::Result<()> {
        let mut part = [0; 1024];
        loop {
            let count = self.stream.read(&mut part)?;
            if count == 0 {
                self.step = Step::Over;
                return Ok(());
            }
            self.request.extend_from_slice(part.get(..count).unwrap_or_default());
            self.request.truncate(REQUEST_MAX);
            match http::read(&self.request) {
                Wanted::More => {}
                Wanted::Metrics(form) => {
                    (self.step, self.until) = (Step::Waiting(form), now + METRICS_WITHIN);
                    return Ok(());
                }
                Wanted::Refused(refused) => {
                    self.answer(now, http::refusal(refused));
                    return Ok(());
                }
            }
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        while let Some(left) = self.response.get(self.written..).filter(|left| !left.is_empty()) {
            self.written += self.stream.write(left)?;
        }
        (self.response, self.request) = (Vec::new(), Vec::new());
        (self.step, self.until) = (Step::Closing, now + CLOSE_WITHIN);
        self.stream.end_writing()
    }

    fn read_away(&mut self) -> io::Result<()> {
        let mut part = [0; 4096];
        // A client that goes on sending is not read for ever.
        for _ in 0..16 {
            if self.stream.read(&mut part)? == 0 {
                self.step = Step::Over;
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
