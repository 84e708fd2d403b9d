//! The interface between the server and the daemon: a [`Handler`] turns a request into an
//! [`Answer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::protocol::{BlockRow, HistoryRow, ROWS_PER_LINE, Refusal, Reply, Request};

/// An answer of a [`Handler`]: replies that are made while the client reads. The first that no
/// other follows is the last.
pub struct Answer(pub(super) Replies);

/// Replies of one answer.
pub(super) type Replies = Box<dyn Iterator<Item = Reply> + Send>;

impl Answer {
    /// A list of any length, **in the order of addresses** ([`super::Target`]'s order) unless
    /// another was asked for.
    pub fn blocks(rows: impl Iterator<Item = BlockRow> + Send + 'static) -> Self {
        Self::in_parts(rows, |rows, more| Reply::Blocks { rows, more })
    }

    /// A list, which this function sorts by address.
    pub fn sorted(mut rows: Vec<BlockRow>) -> Self {
        rows.sort_by_key(|row| row.address);
        Self::blocks(rows.into_iter())
    }

    /// The history, oldest first. After a refusal nothing follows: the rest is missing.
    pub fn history(
        rows: impl Iterator<Item = Result<HistoryRow, Refusal>> + Send + 'static,
    ) -> Self {
        let mut rows = rows.peekable();
        Self(Box::new(std::iter::from_fn(move || {
            let mut part = Vec::with_capacity(ROWS_PER_LINE);
            while part.len() < ROWS_PER_LINE
                && let Some(Ok(row)) = rows.next_if(Result::is_ok)
            {
                part.push(row);
            }
            if part.is_empty()
                && let Some(Err(refusal)) = rows.next_if(Result::is_err)
            {
                return Some(Reply::Error(refusal));
            }
            Some(Reply::History { rows: part, more: rows.peek().is_some() })
        })))
    }

    fn in_parts<T: Send + 'static>(
        rows: impl Iterator<Item = T> + Send + 'static,
        reply: fn(Vec<T>, bool) -> Reply,
    ) -> Self {
        let mut rows = rows.peekable();
        Self(Box::new(std::iter::repeat_with(move || {
            let part = rows.by_ref().take(ROWS_PER_LINE).collect();
            reply(part, rows.peek().is_some())
        })))
    }
}

impl<T: Into<Reply>> From<T> for Answer {
    fn from(reply: T) -> Self {
        Self(Box::new(std::iter::once(reply.into())))
    }
}

/// Whether the client has disconnected, so that its answer is no longer needed.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Notes that the client has disconnected.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the client has disconnected.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Its process; `None`: of another pid namespace.
    pub pid: Option<u32>,
    /// The user of its login, as it says.
    pub login: Option<u32>,
}

/// Answers requests on a worker thread; each worker has its own handler. The client's permission
/// was checked before.
pub trait Handler: Send {
    /// Answers a request. It may take long, but should stop soon after `cancelled`, with any
    /// answer. Never gets [`Request::Watch`].
    fn handle(&mut self, request: Request, caller: Caller, cancelled: &Cancelled) -> Answer;
}
