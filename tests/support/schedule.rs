//! Decides which tests run at the same time. Most wait for timers and other programs, so several for
//! each processor run side by side; tests that measure times, or load the machine so much that others
//! would be late, call [`alone`] first. These run one after the other when all others have ended, so
//! that the machine waits for the longest test only once. The test runner needs a thread for each of
//! them, and for those that run meanwhile.
//!
//! A test holds its place from [`side_by_side`] (which [`super::missing`] calls) or [`alone`] until
//! its thread ends. Then it adds a line "seconds name" to the file in `PORTSENTRY_TEST_TIMES`, if
//! that is set.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Instant;

/// Tests for each processor that run side by side.
const EACH: usize = 6;

struct Running {
    side_by_side: usize,
    /// Tests that wait to run side by side.
    waiting: usize,
    alone: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { side_by_side: 0, waiting: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Waits for a place beside other tests. A thread that has a place already keeps it.
pub fn side_by_side() {
    PLACE.with_borrow_mut(|place| {
        place.get_or_insert_with(|| {
            let most = EACH * available_parallelism().map_or(1, usize::from);
            let mut running = lock();
            running.waiting += 1;
            running = wait_while(running, |running| running.alone || running.side_by_side >= most);
            running.waiting -= 1;
            running.side_by_side += 1;
            Place { is_alone: false, began: Instant::now() }
        });
    });
}

/// Waits until no other test runs, nor waits to run side by side; none starts until this one has ended.
pub fn alone() {
    PLACE.with_borrow_mut(|place| {
        if place.as_ref().is_some_and(|place| place.is_alone) {
            return;
        }
        *place = None;
        let mut running = wait_while(lock(), |running| {
            running.alone || running.side_by_side > 0 || running.waiting > 0
        });
        running.alone = true;
        *place = Some(Place { is_alone: true, began: Instant::now() });
    });
}

/// A running test, until this is dropped.
struct Place {
    is_alone: bool,
    began: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = lock();
        if self.is_alone {
            running.alone = false;
        } else {
            running.side_by_side -= 1;
        }
        CHANGED.notify_all();
        // With the lock held, so that lines do not mix. The test runner names a test's thread after
        // the test.
        if let (Some(file), Some(name)) =
            (std::env::var_os("PORTSENTRY_TEST_TIMES"), std::thread::current().name())
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file)
        {
            let _ = writeln!(file, "{:.1} {name}", self.began.elapsed().as_secs_f64());
        }
    }
}

fn lock() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_while(
    guard: MutexGuard<'static, Running>,
    condition: impl Fn(&Running) -> bool,
) -> MutexGuard<'static, Running> {
    CHANGED.wait_while(guard, |running| condition(running)).unwrap_or_else(PoisonError::into_inner)
}
