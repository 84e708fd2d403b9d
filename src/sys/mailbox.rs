//! A mailbox between threads: a bounded queue of commands to a thread in poll(2), a waker, and an answer for each command.
//!
//! The receiving thread never waits for the sender; the sender waits with a timeout.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::sys::wake::Waker;

/// Commands that may wait. Each sender has one at a time, so a full queue means that the receiver is stuck.
const QUEUE: usize = 64;

/// Default timeout for an answer. The slowest command, unblocking a million elements, takes some seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The channel for an answer, which is dropped if the sender has timed out.
pub type Answer<T> = SyncSender<T>;

/// The sending end; clones send to the same thread.
pub struct Link<C> {
    commands: SyncSender<C>,
    waker: Arc<Waker>,
}

/// The receiving end.
pub struct Inbox<C> {
    commands: Receiver<C>,
    /// Readable when commands may be waiting, for poll(2).
    pub waker: Arc<Waker>,
}

/// The receiving thread did not answer in time, or has ended.
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
pub fn link<C>() -> std::io::Result<(Link<C>, Inbox<C>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let waker = Arc::new(Waker::new()?);
    Ok((Link { commands: sender, waker: Arc::clone(&waker) }, Inbox { commands: receiver, waker }))
}

impl<C> Clone for Link<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<C> Link<C> {
    /// Sends the command that `make` builds with the answer channel, and waits for the answer.
    ///
    /// # Errors
    /// [`Unresponsive`] if the queue is full, the thread has ended, or no answer arrives in time.
    pub fn ask<T>(&self, make: impl FnOnce(Answer<T>) -> C) -> Result<T, Unresponsive> {
        self.ask_within(ANSWER_TIMEOUT, make)
    }

    /// Sends a command without an answer. It is lost if the queue is full or the thread has ended.
    pub fn send(&self, command: C) {
        if self.commands.try_send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// As [`Link::ask`], with another timeout.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub fn ask_within<T>(&self, timeout: Duration, make: impl FnOnce(Answer<T>) -> C) -> Result<T, Unresponsive> {
        let (answer, result) = sync_channel(1);
        match self.commands.try_send(make(answer)) {
            Ok(()) => self.waker.wake(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(Unresponsive),
        }
        result.recv_timeout(timeout).map_err(|_| Unresponsive)
    }
}

impl<C> Inbox<C> {
    /// The next command, without waiting. Clear the waker before the first call of a wake-up.
    pub fn next(&self) -> Option<C> {
        self.commands.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_answered_by_the_other_thread() {
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
    fn unanswered_command_times_out() {
        let (link, inbox) = link::<Answer<u32>>().unwrap();
        assert_eq!(link.ask_within(Duration::from_millis(10), |answer| answer), Err(Unresponsive));
        drop(inbox);
        assert_eq!(link.ask(|answer| answer), Err(Unresponsive));
    }
}
