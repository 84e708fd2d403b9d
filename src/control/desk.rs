//! Who answers requests, and with what: the seam between the server and the daemon.

use super::protocol::{BlockRow, HistoryRow, Reply, Request};

/// Rows as they are made; the server takes them as the client reads.
pub type Rows<T> = Box<dyn Iterator<Item = T> + Send>;

/// What a [`Desk`] answers.
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

/// Who answers requests: the daemon. Who may ask what was checked before.
pub trait Desk: Send {
    /// Answers. It is called on the server's thread; while it works, every client waits, so it should take no more than some 100 ms.
    /// [`Request::Watch`] never comes here.
    fn answer(&mut self, request: Request) -> Answer;
}
