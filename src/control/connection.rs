//! One client: what it sent so far, what it still has to read, and how long it may take.

use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::desk::{Answer, Rows};
use super::protocol::{BlockRow, HistoryRow, Kind, REQUEST_MAX, ROWS_PER_LINE, Refusal, Reply, line};
use crate::sys::peer::Peer;

/// A request must be whole this long after the connection, or after the answer to the one before.
pub(super) const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// A client that reads nothing for this long is cut off.
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_secs(5);

/// A client must have read its whole answer within this: a million rows take seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// What waits for a client that reads a list: more is made only when less than this is left. A socket's own buffer is 208 KiB.
const OUTPUT_LOW: usize = 64 << 10;

/// Writes to one client before the others have their turn: some 128 KiB, a millisecond's work.
const WRITES_MAX: usize = 2;

/// What may wait for one who watches before it is cut off: about a thousand events.
const WATCH_MAX: usize = 256 << 10;

/// What a client is at.
pub(super) enum State {
    /// It is to send a request.
    Reading,
    /// It has an answer to read, of which this is still to be made.
    Answering(Stream),
    /// It gets events.
    Watching,
    /// It gets what is in the buffer, and no more.
    Closing,
}

/// The part of an answer that is not yet in the buffer.
pub(super) enum Stream {
    /// Nothing.
    End,
    /// Rows of blocks.
    Blocks(Peekable<Rows<BlockRow>>),
    /// Rows of the history.
    History(Peekable<Rows<HistoryRow>>),
}

impl Stream {
    /// The next line, if there is one; an empty list is one line too.
    fn next_line(&mut self) -> Option<String> {
        let (reply, more) = match self {
            Self::End => return None,
            Self::Blocks(rows) => {
                let part = rows.by_ref().take(ROWS_PER_LINE).collect();
                let more = rows.peek().is_some();
                (Reply::Blocks { rows: part, more }, more)
            }
            Self::History(rows) => {
                let part = rows.by_ref().take(ROWS_PER_LINE).collect();
                let more = rows.peek().is_some();
                (Reply::History { rows: part, more }, more)
            }
        };
        if !more {
            *self = Self::End;
        }
        Some(line_or_refusal(&reply))
    }
}

/// The line of a reply, or of the refusal why there is none.
pub(super) fn line_or_refusal(reply: &Reply) -> String {
    line(reply).or_else(|refusal| line(&Reply::Error(refusal))).unwrap_or_default()
}

/// One client.
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    pub(super) peer: Peer,
    pub(super) state: State,
    /// When it came, or got its last answer.
    pub(super) since: Instant,
    /// When it last read something, or had nothing to read.
    progress: Instant,
    input: Vec<u8>,
    /// How much of `input` is known to hold no line end.
    searched: usize,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// It closed its side.
    ended: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream, peer: Peer, now: Instant) -> Self {
        Self {
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

    /// Whether poll(2) should wait for room.
    pub(super) fn wants_room(&self) -> bool {
        self.has_output() || matches!(self.state, State::Answering(_) | State::Closing)
    }

    fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Reads what is there. `Ok(true)`: the client is still to be served.
    pub(super) fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.ended = true;
                Ok(false)
            }
            Ok(count) => {
                // Who watches has nothing to say.
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

    /// Whether there is input that nobody has looked at.
    pub(super) fn has_unread(&self) -> bool {
        self.is_reading() && self.searched < self.input.len()
    }

    /// Starts an answer.
    pub(super) fn answer(&mut self, answer: Answer, now: Instant) {
        self.progress = now;
        self.since = now;
        let stream = match answer {
            Answer::Reply(reply) => {
                self.output.extend_from_slice(line_or_refusal(&reply).as_bytes());
                Stream::End
            }
            Answer::Blocks(rows) => Stream::Blocks(rows.peekable()),
            Answer::History(rows) => Stream::History(rows.peekable()),
        };
        self.state = State::Answering(stream);
    }

    /// Says why, and nothing more after that.
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.answer(Answer::Reply(Reply::Error(refusal)), now);
        self.input = Vec::new();
        self.state = State::Closing;
    }

    /// Adds a line for one who watches; when too much waits already, says so and ends.
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
        for _ in 0..WRITES_MAX {
            if let State::Answering(stream) = &mut self.state {
                while self.output.len() - self.written < OUTPUT_LOW {
                    match stream.next_line() {
                        Some(line) => self.output.extend_from_slice(line.as_bytes()),
                        None => break,
                    }
                }
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.output.clear();
                self.written = 0;
                return Ok(match self.state {
                    State::Reading | State::Watching => true,
                    State::Closing => false,
                    State::Answering(_) => {
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
            State::Answering(_) | State::Closing => Some((self.progress + PROGRESS_WITHIN).min(self.since + ANSWER_WITHIN)),
            State::Watching => self.has_output().then(|| self.progress + PROGRESS_WITHIN),
        }
    }
}
