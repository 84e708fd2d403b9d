//! A bounded queue between threads that takes memory for what waits in it, not for its bound, as
//! `std::sync::mpsc::sync_channel` does: thousands of empty places are some hundred kilobytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TrySendError};
use std::time::Duration;

/// A sender that waits for room looks for it this often: queues are hardly ever full.
const ROOM_EVERY: Duration = Duration::from_millis(5);

/// The end that sends; clones send into the same queue.
pub(crate) struct Sender<T> {
    sender: mpsc::Sender<T>,
    len: Arc<AtomicUsize>,
    capacity: usize,
}

/// The end that receives.
pub(crate) struct Receiver<T> {
    receiver: mpsc::Receiver<T>,
    len: Arc<AtomicUsize>,
}

/// Creates both ends of a queue that holds `capacity` entries.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let len = Arc::new(AtomicUsize::new(0));
    (Sender { sender, len: Arc::clone(&len), capacity }, Receiver { receiver, len })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        let Self { sender, len, capacity } = self;
        Self { sender: sender.clone(), len: Arc::clone(len), capacity: *capacity }
    }
}

impl<T> Sender<T> {
    /// Queues an entry without waiting.
    ///
    /// # Errors
    /// The entry comes back when the queue is full or the other end gone.
    pub(crate) fn try_send(&self, entry: T) -> Result<(), TrySendError<T>> {
        // Counted first, so that there are never more than `capacity`.
        let add = |len: usize| (len < self.capacity).then_some(len + 1);
        if self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return Err(TrySendError::Full(entry));
        }
        // With the other end gone, the count serves no one.
        self.sender.send(entry).map_err(|mpsc::SendError(entry)| TrySendError::Disconnected(entry))
    }

    /// Queues an entry, and waits for room while there is none.
    ///
    /// # Errors
    /// The entry comes back when the other end is gone.
    pub(crate) fn send(&self, mut entry: T) -> Result<(), T> {
        loop {
            entry = match self.try_send(entry) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(entry)) => return Err(entry),
                Err(TrySendError::Full(entry)) => entry,
            };
            std::thread::sleep(ROOM_EVERY);
        }
    }
}

impl<T> Receiver<T> {
    /// The next entry, without waiting.
    pub(crate) fn try_recv(&self) -> Option<T> {
        let entry = self.receiver.try_recv().ok()?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(entry)
    }

    /// The next entry; waits for it for at most `limit`.
    ///
    /// # Errors
    /// There is none in time, or all senders are gone.
    pub(crate) fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        let entry = self.receiver.recv_timeout(limit)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let (sender, receiver) = bounded(50);
        let sent: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| {
                    let sender = sender.clone();
                    scope.spawn(move || (0..100).filter(|n| sender.try_send(*n).is_ok()).count())
                })
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sent, 50);
        assert!(matches!(sender.try_send(1), Err(TrySendError::Full(1))));
        assert!(receiver.recv_timeout(Duration::ZERO).is_ok());
        assert!(sender.try_send(7).is_ok() && sender.try_send(8).is_err());
        // One that waits for room gets it.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sender.send(7));
            assert!(receiver.recv_timeout(Duration::ZERO).is_ok());
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        let rest: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
        assert_eq!((rest.len(), rest.last()), (50, Some(&7)));
        drop(receiver);
        assert!(matches!(sender.try_send(9), Err(TrySendError::Disconnected(9))));
        assert_eq!(sender.send(9), Err(9));
    }

    #[test]
    fn its_end_is_seen_when_all_senders_are_gone() {
        let (sender, receiver) = bounded(2);
        let limit = Duration::from_millis(1);
        assert_eq!(receiver.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
        sender.try_send(1).unwrap();
        drop(sender);
        assert_eq!(receiver.recv_timeout(limit), Ok(1));
        assert_eq!(receiver.recv_timeout(limit), Err(RecvTimeoutError::Disconnected));
    }
}
