//! One client: what it sent so far, what it still has to read, and how long it may take.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::protocol::{Kind, REQUEST_MAX, Refusal, Reply};
use super::stream::line_or_refusal;
use super::workers::{Handle, Piece, Rest};
use crate::sys::peer::Peer;

/// A request must be whole this long after the connection, or after the answer to the one before.
pub(super) const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// A client that reads nothing for this long is cut off.
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_secs(5);

/// A client must have read its whole answer within this: a million rows take seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// The next piece of an answer is asked for when less than this waits to be read. A piece has about as much, so twice this is the most that waits, but for
/// an answer of one long line ([`REPLY_MAX`](super::protocol::REPLY_MAX)).
const OUTPUT_LOW: usize = 64 << 10;

/// Writes to one client before the others have their turn: some 128 KiB, a millisecond's work.
const WRITES_PER_TURN: usize = 2;

/// What may wait for a client that watches before it is cut off: about a thousand events.
const WATCH_MAX: usize = 256 << 10;

/// What a client is doing.
pub(super) enum State {
    /// It is to send a request.
    Reading,
    /// It has an answer to read.
    Answering(Source),
    /// It gets events.
    Watching,
    /// It gets what is in the buffer, and no more.
    Closing,
}

/// Where the part of an answer that is not yet in the buffer comes from.
pub(super) enum Source {
    /// A worker makes it. The client reads what it has meanwhile; when it is gone, the handle takes the task back.
    Worker(#[expect(dead_code, reason = "kept for its drop")] Handle),
    /// It is made when the client has read most of what it has.
    Rest(Rest),
    /// There is no more.
    End,
}

/// One client.
pub(super) struct Connection {
    /// Its number, which no other client has.
    pub(super) id: u64,
    pub(super) socket: UnixStream,
    pub(super) peer: Peer,
    pub(super) state: State,
    /// When it connected, or got the first part of its last answer.
    pub(super) since: Instant,
    /// When it last read something, or had nothing to read.
    progress: Instant,
    input: Vec<u8>,
    /// How much of `input` is known to hold no line end.
    searched: usize,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// It has closed its side.
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

    /// Whether it has sent a part of a request.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether poll(2) should wait for input.
    pub(super) fn wants_input(&self) -> bool {
        matches!(self.state, State::Reading | State::Watching)
    }

    /// Whether poll(2) should wait until it can be written to. Not while a worker has to make what is to be written.
    pub(super) fn wants_output(&self) -> bool {
        self.has_output() || matches!(self.state, State::Answering(Source::Rest(_) | Source::End) | State::Closing)
    }

    /// Whether it waits for a worker, with nothing to read meanwhile.
    pub(super) fn waits_for_worker(&self) -> bool {
        !self.has_output() && matches!(self.state, State::Answering(Source::Worker(_)))
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Reads what is there. `Ok(false)`: the client has closed its side.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(count) => {
                // What a client that watches sends is ignored.
                if self.is_reading() {
                    self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                }
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next request line, without its end, if it is whole.
    ///
    /// # Errors
    /// A [`Refusal`] when it is longer than [`REQUEST_MAX`].
    pub(super) fn next_request(&mut self) -> Result<Option<Vec<u8>>, Refusal> {
        if !self.is_reading() {
            return Ok(None);
        }
        let found = self.input.get(self.searched..).unwrap_or_default().iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
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
            _ => Err(Refusal::new(Kind::BadRequest, format!("the request is longer than {REQUEST_MAX} bytes"), "")),
        }
    }

    /// Whether there is input that was not looked at yet.
    pub(super) fn has_unread(&self) -> bool {
        self.is_reading() && self.searched < self.input.len()
    }

    /// Starts to wait for an answer.
    pub(super) fn wait_for(&mut self, handle: Handle) {
        self.state = State::Answering(Source::Worker(handle));
    }

    /// Starts an answer that is one line.
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
        // The time that the worker took is not the client's.
        if !self.has_output() {
            self.progress = now;
        }
        self.output.extend_from_slice(piece.lines.as_bytes());
        self.state = State::Answering(piece.rest.map_or(Source::End, Source::Rest));
    }

    /// What is still to be made of its answer, if it is time to make more of it. Give it to a worker and call [`Connection::wait_for`].
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

    /// Sends a refusal, and closes the connection after that.
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.answer(&Reply::Error(refusal), now);
        self.input = Vec::new();
        self.state = State::Closing;
    }

    /// Adds a line for a client that watches; when too much waits already, refuses and closes.
    pub(super) fn offer(&mut self, line: &str, now: Instant) {
        if !self.is_watching() {
            return;
        }
        if !self.has_output() {
            self.progress = now;
        }
        if self.output.len() - self.written + line.len() > WATCH_MAX {
            self.refuse(Refusal::new(Kind::Busy, "this client reads more slowly than things happen: it is cut off", "run watch again"), now);
            return;
        }
        self.output.extend_from_slice(line.as_bytes());
    }

    /// Writes what there is room for, but no more than the others can wait for. `Ok(false)`: the client is finished.
    pub(super) fn send(&mut self) -> io::Result<bool> {
        for _ in 0..WRITES_PER_TURN {
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.output.clear();
                self.written = 0;
                return Ok(match self.state {
                    State::Reading | State::Watching | State::Answering(Source::Worker(_) | Source::Rest(_)) => true,
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

    /// When it is to be cut off if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Reading => Some(self.since + REQUEST_WITHIN),
            // The worker ends in its own time.
            State::Answering(Source::Worker(_)) if !self.has_output() => None,
            State::Answering(_) | State::Closing => Some((self.progress + PROGRESS_WITHIN).min(self.since + ANSWER_WITHIN)),
            State::Watching => self.has_output().then(|| self.progress + PROGRESS_WITHIN),
        }
    }
}
