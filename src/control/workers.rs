//! The threads that compute answers, so that the server's thread only moves bytes.
//!
//! Three lanes, each with threads of its own, so that none waits behind another: changes (root alone), root's reading, and reading by others. A long
//! answer is made piece by piece, as its client reads it; of a lane's two threads one takes pieces first and the other takes new requests first, so that
//! neither waits for ever. Users take turns, and one user holds at most a part of what the others' lane works on.
//!
//! Bounds: a client has one task at most, which is taken back when the client is gone; so a lane holds no more tasks than there are clients. A change that
//! was asked for is carried out even if its client is gone, and [`CHANGES_MAX`] of them may wait.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use super::handler::{Cancelled, Handler};
use super::protocol::Request;
use super::stream::Stream;
use crate::sys::wake::Waker;

/// Changes that wait. Root sends them one after the other; more is a defect of the client.
const CHANGES_MAX: usize = 64;

/// Threads for a lane of reading: one that takes pieces first, one that takes requests first.
const READERS: usize = 2;

/// Answers to others than root that are worked on or not yet read to their end: a list of a million blocks takes some 80 MB until then.
pub const LONG_ANSWERS_MAX: usize = 8;

/// Of these, answers to one user.
pub const LONG_ANSWERS_PER_USER: usize = 2;

/// Makes the handler of a thread.
pub type NewHandler<'a> = &'a mut dyn FnMut() -> Box<dyn Handler>;

/// What a thread has to do for a client.
struct Task {
    client: u64,
    uid: u32,
    cancelled: Cancelled,
    work: Work,
}

enum Work {
    Request(Request),
    Rest(Rest),
}

/// The part of a long answer that is still to be made, with its place among those of its lane.
pub(super) struct Rest {
    stream: Stream,
    place: Place,
}

/// A piece of an answer.
pub(super) struct Piece {
    pub(super) client: u64,
    pub(super) lines: String,
    /// What follows; `None`: this was all.
    pub(super) rest: Option<Rest>,
    /// Whether the answer begins with it.
    pub(super) is_first: bool,
}

/// A task that is queued or worked on; dropped when the client is gone, which takes the task back.
pub(super) struct Handle {
    lane: Arc<Lane>,
    client: u64,
    cancelled: Cancelled,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.lane.is_for_changes {
            self.cancelled.cancel();
            let _task = self.lane.take_back(self.client);
        }
    }
}

/// All lanes with their threads.
pub(super) struct Workers {
    changes: Arc<Lane>,
    root: Arc<Lane>,
    others: Arc<Lane>,
}

/// Requests that wait, by user, and pieces that are to be made.
struct Lane {
    is_for_changes: bool,
    tasks_max: usize,
    answers_max: usize,
    answers_per_user: usize,
    state: Mutex<Waiting>,
    available: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// In the order of turns; no queue is empty.
    users: VecDeque<(u32, VecDeque<Task>)>,
    pieces: VecDeque<Task>,
    /// The user of each answer that is worked on or not yet read to its end.
    answers: Vec<u32>,
    is_ending: bool,
}

/// A place among the answers that a lane works on.
struct Place {
    lane: Arc<Lane>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        if let Some(position) = state.answers.iter().position(|uid| *uid == self.uid) {
            state.answers.swap_remove(position);
        }
        drop(state);
        self.lane.available.notify_all();
    }
}

impl Lane {
    fn new(is_for_changes: bool, tasks_max: usize, answers_max: usize, answers_per_user: usize) -> Arc<Self> {
        Arc::new(Self { is_for_changes, tasks_max, answers_max, answers_per_user, state: Mutex::default(), available: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A thread that panics ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` when there is no room.
    fn submit(&self, task: Task) -> bool {
        let mut state = self.lock();
        let waiting: usize = state.users.iter().map(|(_, tasks)| tasks.len()).sum();
        if waiting >= self.tasks_max || state.is_ending {
            return false;
        }
        match task.work {
            Work::Rest(_) => state.pieces.push_back(task),
            Work::Request(_) => match state.users.iter_mut().find(|(uid, _)| *uid == task.uid) {
                Some((_, tasks)) => tasks.push_back(task),
                None => state.users.push_back((task.uid, VecDeque::from([task]))),
            },
        }
        drop(state);
        self.available.notify_all();
        true
    }

    /// The task of a client that is gone, if no thread has it yet. It is to be dropped after the lock: it may hold a place.
    fn take_back(&self, client: u64) -> Option<Task> {
        let mut state = self.lock();
        if let Some(position) = state.pieces.iter().position(|task| task.client == client) {
            return state.pieces.remove(position);
        }
        let (user, position) =
            state.users.iter().enumerate().find_map(|(user, (_, tasks))| Some((user, tasks.iter().position(|task| task.client == client)?)))?;
        let (_, tasks) = state.users.get_mut(user)?;
        let task = tasks.remove(position);
        if tasks.is_empty() {
            state.users.remove(user);
        }
        task
    }

    /// The next task; waits for it. `None` when the server ends.
    fn next(self: &Arc<Self>, pieces_first: bool) -> Option<(Task, Option<Place>)> {
        let mut state = self.lock();
        loop {
            if state.is_ending && !self.is_for_changes {
                return None;
            }
            let piece = if pieces_first { state.pieces.pop_front() } else { None };
            if let Some(task) = piece {
                return Some((task, None));
            }
            if let Some(task) = state.next_request(self.answers_max, self.answers_per_user) {
                state.answers.push(task.uid);
                let place = Place { lane: Arc::clone(self), uid: task.uid };
                return Some((task, Some(place)));
            }
            if let Some(task) = state.pieces.pop_front() {
                return Some((task, None));
            }
            if state.is_ending {
                return None;
            }
            state = self.available.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One thread's work.
    fn work(self: &Arc<Self>, pieces_first: bool, handler: &mut dyn Handler, done: &Sender<Piece>, waker: &Waker) {
        while let Some((task, place)) = self.next(pieces_first) {
            let Task { client, cancelled, work, .. } = task;
            let is_first = matches!(work, Work::Request(_));
            let (mut stream, place) = match (work, place) {
                (Work::Request(request), Some(place)) => (Stream::of(handler.handle(request, &cancelled)), place),
                (Work::Rest(Rest { stream, place }), _) => (stream, place),
                (Work::Request(_), None) => continue,
            };
            if cancelled.is_cancelled() {
                continue;
            }
            let (lines, is_more) = stream.next_piece();
            let rest = is_more.then_some(Rest { stream, place });
            if done.send(Piece { client, lines, rest, is_first }).is_err() {
                return;
            }
            waker.wake();
        }
    }
}

impl Waiting {
    /// The request of the user whose turn it is, among those who have room for an answer.
    fn next_request(&mut self, answers_max: usize, answers_per_user: usize) -> Option<Task> {
        if self.answers.len() >= answers_max {
            return None;
        }
        let held = |uid: u32| self.answers.iter().filter(|held| **held == uid).count();
        let position = self.users.iter().position(|(uid, _)| held(*uid) < answers_per_user)?;
        let (uid, mut tasks) = self.users.remove(position)?;
        let task = tasks.pop_front();
        if !tasks.is_empty() {
            self.users.push_back((uid, tasks));
        }
        task
    }
}

impl Workers {
    /// Starts the threads. Pieces go to `done`, and `waker` tells of each.
    ///
    /// # Errors
    /// What clone(2) says.
    pub(super) fn start(new_handler: NewHandler<'_>, clients_max: usize, done: &Sender<Piece>, waker: &Arc<Waker>) -> io::Result<Self> {
        let workers = Self {
            changes: Lane::new(true, CHANGES_MAX, usize::MAX, usize::MAX),
            root: Lane::new(false, clients_max, usize::MAX, usize::MAX),
            others: Lane::new(false, clients_max, LONG_ANSWERS_MAX, LONG_ANSWERS_PER_USER),
        };
        // One thread: changes are carried out in the order in which they came.
        for (name, lane, threads) in
            [("control-change", &workers.changes, 1), ("control-root", &workers.root, READERS), ("control-read", &workers.others, READERS)]
        {
            for number in 0..threads {
                let (lane, mut handler, done, waker) = (Arc::clone(lane), new_handler(), done.clone(), Arc::clone(waker));
                let thread = thread::Builder::new().name(name.to_owned());
                thread.spawn(move || lane.work(number > 0, &mut *handler, &done, &waker))?;
            }
        }
        Ok(workers)
    }

    /// Has a request answered; `None` when there is no room for it.
    pub(super) fn ask(&self, client: u64, uid: u32, request: Request) -> Option<Handle> {
        let lane = match (request.changes(), uid) {
            (true, _) => &self.changes,
            (false, 0) => &self.root,
            (false, _) => &self.others,
        };
        Self::submit(lane, client, uid, Work::Request(request))
    }

    /// Has the next piece of an answer made.
    pub(super) fn go_on(&self, client: u64, rest: Rest) -> Option<Handle> {
        let (lane, uid) = (Arc::clone(&rest.place.lane), rest.place.uid);
        Self::submit(&lane, client, uid, Work::Rest(rest))
    }

    fn submit(lane: &Arc<Lane>, client: u64, uid: u32, work: Work) -> Option<Handle> {
        let cancelled = Cancelled::default();
        let task = Task { client, uid, cancelled: cancelled.clone(), work };
        lane.submit(task).then(|| Handle { lane: Arc::clone(lane), client, cancelled })
    }

    /// Whether changes are waited for or worked on.
    pub(super) fn has_changes(&self) -> bool {
        let state = self.changes.lock();
        !state.users.is_empty() || !state.answers.is_empty()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for lane in [&self.changes, &self.root, &self.others] {
            let mut state = lane.lock();
            state.is_ending = true;
            let left = (std::mem::take(&mut state.users), std::mem::take(&mut state.pieces));
            drop(state);
            // Only now: each may hold a place, which is given back under the same lock.
            drop(left);
            lane.available.notify_all();
        }
    }
}
