//! Opens sockets and files of /proc for threads that may not ([`super::confine::Thread::Packets`]).
//!
//! One thread does so, as long as the process lives. Where it was not started, as in tests of the
//! library, the calling thread does it itself.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Job = Box<dyn FnOnce() + Send>;

static JOBS: OnceLock<SyncSender<Job>> = OnceLock::new();

/// Jobs that may wait: more than there are threads that ask.
const WAITING: usize = 16;

/// Starts the thread.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn start() -> io::Result<()> {
    let (sender, jobs) = sync_channel::<Job>(WAITING);
    std::thread::Builder::new().name("opener".to_owned()).spawn(move || {
        for job in jobs {
            job();
        }
    })?;
    // A second one ends here, as its sender is dropped.
    let _ = JOBS.set(sender);
    Ok(())
}

/// What `open` returns. It must not wait for anything but the kernel, and not call this.
pub(crate) fn open<T: Send + 'static>(
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(jobs) = JOBS.get() else { return open() };
    let (answer, answered) = sync_channel(1);
    let job = move || {
        let _ = answer.try_send(open());
    };
    jobs.send(Box::new(job)).map_err(|_| io::ErrorKind::BrokenPipe)?;
    answered.recv().map_err(|_| io::ErrorKind::BrokenPipe)?
}
