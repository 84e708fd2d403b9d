//! The interface between the server and the daemon: a [`Handler`] turns a request into an
//! [`Answer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::protocol::{BlockRow, HistoryRow, Reply, Request};

/// Rows that are made while the client reads.
pub type Rows<T> = Box<dyn Iterator<Item = T> + Send>;

/// An answer of a [`Handler`].
pub enum Answer {
    /// One line.
    Reply(Reply),
    /// A list of any length, **in the order of addresses** ([`super::Target`]'s order).
    Blocks(Rows<BlockRow>),
    /// The history, oldest first.
    History(Rows<HistoryRow>),
}

impl Answer {
    /// A list, which this function sorts by address.
    pub fn blocks(mut rows: Vec<BlockRow>) -> Self {
        rows.sort_by_key(|row| row.address);
        Self::Blocks(Box::new(rows.into_iter()))
    }
}

impl<T: Into<Reply>> From<T> for Answer {
    fn from(reply: T) -> Self {
        Self::Reply(reply.into())
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

/// Answers requests on a worker thread; each worker has its own handler. The client's permission
/// was checked before.
pub trait Handler: Send {
    /// Answers a request. It may take long, but should stop soon after `cancelled`, with any
    /// answer. Never gets [`Request::Watch`].
    fn handle(&mut self, request: Request, cancelled: &Cancelled) -> Answer;
}
