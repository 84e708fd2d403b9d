//! Encodes an answer as lines, in pieces of bounded size.

use std::iter::Peekable;

use super::handler::{Answer, Rows};
use super::protocol::{BlockRow, HistoryRow, ROWS_PER_LINE, Reply, line};

/// A piece ends with the line that reaches this size: a fraction of a millisecond's work, and less
/// than the socket's buffer of 208 KiB.
const PIECE_LEN: usize = 64 << 10;

/// The rest of an answer.
pub(super) enum Stream {
    /// Nothing.
    End,
    /// One line.
    Line(Box<Reply>),
    /// Rows of blocks.
    Blocks(Peekable<Rows<BlockRow>>),
    /// Rows of the history.
    History(Peekable<Rows<HistoryRow>>),
}

impl Stream {
    pub(super) fn of(answer: Answer) -> Self {
        match answer {
            Answer::Reply(reply) => Self::Line(Box::new(reply)),
            Answer::Blocks(rows) => Self::Blocks(rows.peekable()),
            Answer::History(rows) => Self::History(rows.peekable()),
        }
    }

    /// The next lines, and whether more follow.
    pub(super) fn next_piece(&mut self) -> (String, bool) {
        let mut lines = String::new();
        while lines.len() < PIECE_LEN
            && let Some(line) = self.next_line()
        {
            lines.push_str(&line);
        }
        (lines, !matches!(self, Self::End))
    }

    /// The next line, if any; an empty list is one line too.
    fn next_line(&mut self) -> Option<String> {
        let (reply, more) = match self {
            Self::End => return None,
            Self::Line(_) => {
                let Self::Line(reply) = std::mem::replace(self, Self::End) else { return None };
                return Some(line_or_refusal(&reply));
            }
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

/// The line of a reply, or of the refusal if it cannot be encoded.
pub(super) fn line_or_refusal(reply: &Reply) -> String {
    line(reply).or_else(|refusal| line(&Reply::Error(refusal))).unwrap_or_default()
}
