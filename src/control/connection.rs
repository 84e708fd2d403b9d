//! One client connection: its input, its pending output, and its deadlines.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{Kind, REQUEST_MAX, Refusal, Reply};
use super::stream::line_or_refusal;
use super::workers::{Handle, Piece, Rest};
use crate::sys::peer::Peer;

/// Time limit for a whole request, after the connection or the previous answer.
pub(super) const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// A client that reads nothing for this long is disconnected.
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_secs(5);

/// Time limit for reading a whole answer: a million rows take seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// The next piece of an answer is made when less than this is pending. A piece is about as large,
/// so at most twice this is pending, except for an answer of one long line
/// ([`REPLY_MAX`](super::protocol::REPLY_MAX)).
const OUTPUT_LOW: usize = 64 << 10;

/// Writes to one client before the others have their turn: 128 KiB, about a millisecond.
const WRITES_PER_TURN: usize = 2;

/// Pending events of a watcher before it is disconnected: about a thousand.
const WATCH_MAX: usize = 256 << 10;

/// What a client is doing.
pub(super) enum State {
    /// Waiting for its request.
    Reading,
    /// Sending its answer.
    Answering(Source),
    /// Sending events.
    Watching,
    /// Sending the pending output, then closing.
    Closing,
}

/// Where the rest of an answer comes from.
pub(super) enum Source {
    /// A worker is making it. Dropping the handle cancels the task.
    Worker(#[expect(dead_code, reason = "kept for its drop")] Handle),
    /// It is made when the client has read most of the pending output.
    Rest(Rest),
    /// It is complete.
    End,
}

/// One client.
pub(super) struct Connection {
    /// A unique number.
    pub(super) id: u64,
    pub(super) socket: UnixStream,
    pub(super) peer: Peer,
    pub(super) state: State,
    /// Time of the connection, or of the first part of the last answer.
    pub(super) since: Instant,
    /// When it last read something, or had nothing to read.
    progress: Instant,
    input: Vec<u8>,
    /// Bytes of `input` that are known to hold no line end.
    searched: usize,
    output: Vec<u8>,
    /// Bytes of `output` that were written.
    written: usize,
    /// The client has closed its writing side.
    ended: bool,
}

impl Connection {
    pub(super) fn new(id: u64, socket: UnixStream, peer: Peer, now: Instant) -> Self {
        Self {
            id,
            socket,
            peer,
            state: State::Reading,
            since: now,
            progress: now,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            written: 0,
            ended: false,
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading)
    }

    pub(super) fn is_watching(&self) -> bool {
        matches!(self.state, State::Watching)
    }

    /// Whether part of a request has arrived.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether poll(2) should wait for input.
    pub(super) fn wants_input(&self) -> bool {
        matches!(self.state, State::Reading | State::Watching)
    }

    /// Whether poll(2) should wait for writability. Not while a worker is making the output.
    pub(super) fn wants_output(&self) -> bool {
        self.has_output()
            || matches!(
                self.state,
                State::Answering(Source::Rest(_) | Source::End) | State::Closing
            )
    }

    /// Whether it waits for a worker, without pending output.
    pub(super) fn waits_for_worker(&self) -> bool {
        !self.has_output() && matches!(self.state, State::Answering(Source::Worker(_)))
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Receives available bytes. `Ok(false)`: the client has closed its side.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(count) => {
                // Input of a watcher is ignored.
                if self.is_reading() {
                    self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// The next request line, without its line end, if it is complete.
    ///
    /// # Errors
    /// A [`Refusal`] if it is longer than [`REQUEST_MAX`].
    pub(super) fn next_request(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        if !self.is_reading() {
            return Ok(None);
        }
        let found = self
            .input
            .get(self.searched..)
            .unwrap_or_default()
            .iter()
            .position(|&byte| byte == b'\n')
            .map(|at| self.searched + at);
        match found {
            Some(end) if end < REQUEST_MAX => {
                let rest = self.input.split_off(end + 1);
                let mut request = std::mem::replace(&mut self.input, rest);
                self.searched = 0;
                request.truncate(end);
                Ok(Some(request))
            }
            None if self.input.len() < REQUEST_MAX => {
                self.searched = self.input.len();
                Ok(None)
            }
            _ => Err(Refusal::new(
                Kind::BadRequest,
                format!("the request is longer than {REQUEST_MAX} bytes"),
                "",
            )),
        }
    }

    /// Whether there is input that was not examined yet.
    pub(super) fn has_unread(&self) -> bool {
        self.is_reading() && self.searched < self.input.len()
    }

    /// Starts to wait for a worker's answer.
    pub(super) fn wait_for(&mut self, handle: Handle) {
        self.state = State::Answering(Source::Worker(handle));
    }

    /// Starts an answer of one line.
    pub(super) fn answer(&mut self, reply: &Reply, now: Instant) {
        self.progress = now;
        self.since = now;
        self.output.extend_from_slice(line_or_refusal(reply).as_bytes());
        self.state = State::Answering(Source::End);
    }

    /// Adds a piece of an answer.
    pub(super) fn add_piece(&mut self, piece: Piece, now: Instant) {
        if piece.is_first {
            self.since = now;
        }
        // The worker's time does not count against the client.
        if !self.has_output() {
            self.progress = now;
        }
        self.output.extend_from_slice(piece.lines.as_bytes());
        self.state = State::Answering(piece.rest.map_or(Source::End, Source::Rest));
    }

    /// The rest of its answer, if more should be made now. Give it to a worker and call
    /// [`Connection::wait_for`].
    pub(super) fn take_rest(&mut self) -> Option<Rest> {
        if self.output.len() - self.written >= OUTPUT_LOW {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Answering(Source::End)) {
            State::Answering(Source::Rest(rest)) => Some(rest),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Sends a refusal, then closes the connection.
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.answer(&Reply::Error(refusal), now);
        self.input = Vec::new();
        self.state = State::Closing;
    }

    /// Adds a line for a watcher; if too much is pending, refuses and closes.
    pub(super) fn offer(&mut self, line: &str, now: Instant) {
        if !self.is_watching() {
            return;
        }
        if !self.has_output() {
            self.progress = now;
        }
        if self.output.len() - self.written + line.len() > WATCH_MAX {
            self.refuse(
                Refusal::new(
                    Kind::Busy,
                    "this client reads more slowly than things happen: it is cut off",
                    "run watch again",
                ),
                now,
            );
            return;
        }
        self.output.extend_from_slice(line.as_bytes());
    }

    /// Writes as much as fits, up to this turn's limit. `Ok(false)`: the connection is finished.
    pub(super) fn send(&mut self) -> io::Result<bool> {
        for _ in 0..WRITES_PER_TURN {
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.output.clear();
                self.written = 0;
                return Ok(match self.state {
                    State::Reading
                    | State::Watching
                    | State::Answering(Source::Worker(_) | Source::Rest(_)) => true,
                    State::Closing => false,
                    State::Answering(Source::End) => {
                        self.state = State::Reading;
                        self.since = Instant::now();
                        !self.ended
                    }
                });
            }
            match self.socket.write(rest) {
                Ok(count) => {
                    self.written += count;
                    self.progress = Instant::now();
                    if self.written >= OUTPUT_LOW {
                        self.output.drain(..self.written);
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// When it is disconnected if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Reading => Some(self.since + REQUEST_WITHIN),
            // The worker has its own time limits.
            State::Answering(Source::Worker(_)) if !self.has_output() => None,
            State::Answering(_) | State::Closing => {
                Some((self.progress + PROGRESS_WITHIN).min(self.since + ANSWER_WITHIN))
            }
            State::Watching => self.has_output().then(|| self.progress + PROGRESS_WITHIN),
        }
    }
}
