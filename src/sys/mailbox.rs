//! How one thread asks another that waits in poll(2): a bounded queue of commands, a waker, and an
//! answer each.
//!
//! The asked thread never waits for the asker; who asks, waits, and not for ever.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::sys::queue;
use crate::sys::wake::Waker;

/// Commands that may wait: each asker sends one at a time, so more is a sign that nobody listens.
const QUEUE: usize = 64;

/// How long an answer may take. Unblocking a million elements takes some seconds; nothing else
/// comes near.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where an answer goes. It is dropped if the asker has given up.
pub(crate) type Answer<T> = SyncSender<T>;

/// The asking end; clones ask the same thread.
pub(crate) struct Link<C> {
    commands: queue::Sender<C>,
    waker: Arc<Waker>,
}

/// The asked end.
pub struct Inbox<C> {
    commands: queue::Receiver<C>,
    /// Readable when commands may be there: for poll(2).
    pub waker: Arc<Waker>,
}

/// The asked thread did not answer in time, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unresponsive;

impl fmt::Display for Unresponsive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the daemon is busy or ending and did not answer in time")
    }
}

impl std::error::Error for Unresponsive {}

/// Creates both ends.
///
/// # Errors
/// The error of eventfd(2).
pub(crate) fn link<C>() -> std::io::Result<(Link<C>, Inbox<C>)> {
    with_capacity(QUEUE)
}

/// Creates both ends of a queue that holds `capacity` entries.
///
/// # Errors
/// The error of eventfd(2).
pub(crate) fn with_capacity<C>(capacity: usize) -> std::io::Result<(Link<C>, Inbox<C>)> {
    let (sender, receiver) = queue::bounded(capacity);
    let waker = Arc::new(Waker::new()?);
    Ok((Link { commands: sender, waker: Arc::clone(&waker) }, Inbox { commands: receiver, waker }))
}

impl<C> Clone for Link<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<C> Link<C> {
    /// Sends the command that `make` builds around the place for its answer, and waits for that
    /// answer.
    ///
    /// # Errors
    /// [`Unresponsive`] when the queue is full, the thread is gone, or the answer does not come.
    pub(crate) fn ask<T>(&self, make: impl FnOnce(Answer<T>) -> C) -> Result<T, Unresponsive> {
        self.ask_within(ANSWER_TIMEOUT, make)
    }

    /// Sends a command that has no answer. It is lost when the queue is full or the thread gone.
    pub(crate) fn tell(&self, command: C) {
        let _ = self.send(command);
    }

    /// Sends a command that has no answer, and wakes the other thread in any case.
    ///
    /// # Errors
    /// The command comes back when the queue is full or the thread gone.
    pub(crate) fn send(&self, command: C) -> Result<(), C> {
        let sent = self.commands.try_send(command);
        self.waker.wake();
        sent.map_err(|error| match error {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
        })
    }

    /// As [`Link::ask`], with a patience of the caller's.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub(crate) fn ask_within<T>(
        &self,
        patience: Duration,
        make: impl FnOnce(Answer<T>) -> C,
    ) -> Result<T, Unresponsive> {
        let (answer, result) = sync_channel(1);
        self.send(make(answer)).map_err(|_| Unresponsive)?;
        result.recv_timeout(patience).map_err(|_| Unresponsive)
    }
}

impl<C> Inbox<C> {
    /// The next command, without waiting. Clear the waker before the first call of a round.
    pub fn next(&self) -> Option<C> {
        self.commands.try_recv()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_by_the_other_thread() {
        let (link, inbox) = link::<Answer<u32>>().unwrap();
        let other = std::thread::spawn(move || {
            loop {
                if let Some(answer) = inbox.next() {
                    return answer.send(7);
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(link.ask(|answer| answer), Ok(7));
        assert!(other.join().unwrap().is_ok());
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        let (link, inbox) = with_capacity(2).unwrap();
        assert_eq!([1, 2, 3].map(|command| link.send(command)), [Ok(()), Ok(()), Err(3)]);
        assert_eq!([inbox.next(), inbox.next(), inbox.next()], [Some(1), Some(2), None]);
        drop(inbox);
        assert_eq!(link.send(4), Err(4));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (link, inbox) = link::<Answer<u32>>().unwrap();
        assert_eq!(link.ask_within(Duration::from_millis(10), |answer| answer), Err(Unresponsive));
        drop(inbox);
        assert_eq!(link.ask(|answer| answer), Err(Unresponsive));
    }
}
