//! The interface between the server and the daemon: a request goes to a [`Handler`], which gives an [`Answer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::protocol::{BlockRow, HistoryRow, Reply, Request};

/// Rows as they are made; the server takes them as the client reads.
pub type Rows<T> = Box<dyn Iterator<Item = T> + Send>;

/// What a [`Handler`] answers.
pub enum Answer {
    /// One line.
    Reply(Reply),
    /// A list of any length, **in the order of addresses** ([`super::Target`]'s order).
    Blocks(Rows<BlockRow>),
    /// The history, oldest first.
    History(Rows<HistoryRow>),
}

impl Answer {
    /// A list; it is brought into the order of addresses.
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

/// Whether the client that asked is gone, so that its answer is of no use any more.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// The client is gone.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the client is gone.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers requests, on a thread that does nothing else; there are several such threads, each with a handler of its own. The client's permission was
/// checked before.
pub trait Handler: Send {
    /// Answers. It may take long; when it reads much, it should stop soon after `cancelled`, whatever it then answers. [`Request::Watch`] never comes here.
    fn handle(&mut self, request: Request, cancelled: &Cancelled) -> Answer;
}
