//! The threads that compute answers, so that the server's thread only moves bytes.
//!
//! Three lanes with their own threads, so that none waits for another: changes (root only), root's
//! reading, and reading by others. A long answer is made in pieces as its client reads it; of a
//! lane's two threads one prefers pieces and the other new requests, so that neither starves. Users
//! take turns, and each has a bounded share of the others' lane.
//!
//! Bounds: a client has one task at most, which is cancelled when the client disconnects, so a lane
//! has no more tasks than there are clients. A requested change is made even if its client is gone;
//! `CHANGES_MAX` of them may wait.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use super::handler::{Caller, Cancelled, Handler, Replies};
use super::protocol::Request;
use super::stream::next_piece;
use crate::sys::wake::Waker;

/// Changes that wait. Root sends them one by one; more is a defect of the client.
const CHANGES_MAX: usize = 64;

/// Threads for a reading lane: one prefers pieces, one requests.
const READERS: usize = 2;

/// Unfinished answers to users other than root: a list of a million blocks takes some 80 MB until
/// it is read.
pub(crate) const LONG_ANSWERS_MAX: usize = 8;

/// Of these, answers to one user.
pub(crate) const LONG_ANSWERS_PER_USER: usize = 2;

/// Makes the handler of a thread.
pub(crate) type NewHandler<'a> = &'a mut dyn FnMut() -> Box<dyn Handler>;

/// A unit of work for a client.
struct Task {
    client: u64,
    uid: u32,
    cancelled: Cancelled,
    work: Work,
}

enum Work {
    Request(Request, Caller),
    Rest(Rest),
}

/// The rest of a long answer, with its place in the lane.
pub(super) struct Rest {
    replies: Replies,
    place: Place,
}

/// A piece of an answer.
pub(super) struct Piece {
    pub(super) client: u64,
    pub(super) lines: String,
    /// The rest; `None`: this was the last piece.
    pub(super) rest: Option<Rest>,
    /// Whether this is the first piece.
    pub(super) is_first: bool,
}

/// A task in progress; dropping it cancels the task.
pub(super) struct Handle {
    lane: Arc<Lane>,
    client: u64,
    cancelled: Cancelled,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.lane.is_for_changes {
            self.cancelled.cancel();
            let _task = self.lane.cancel(self.client);
        }
    }
}

/// All lanes with their threads.
pub(super) struct Workers {
    changes: Arc<Lane>,
    root: Arc<Lane>,
    others: Arc<Lane>,
}

/// Waiting requests by user, and waiting pieces.
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
    /// The user of each unfinished answer.
    answers: Vec<u32>,
    is_ending: bool,
}

/// A lane's slot for an unfinished answer.
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
    fn new(
        is_for_changes: bool,
        tasks_max: usize,
        answers_max: usize,
        answers_per_user: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            is_for_changes,
            tasks_max,
            answers_max,
            answers_per_user,
            state: Mutex::default(),
            available: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A thread that panics ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` if there is no room.
    fn submit(&self, task: Task) -> bool {
        let mut state = self.lock();
        let waiting: usize = state.users.iter().map(|(_, tasks)| tasks.len()).sum();
        if waiting >= self.tasks_max || state.is_ending {
            return false;
        }
        match task.work {
            Work::Rest(_) => state.pieces.push_back(task),
            Work::Request(..) => match state.users.iter_mut().find(|(uid, _)| *uid == task.uid) {
                Some((_, tasks)) => tasks.push_back(task),
                None => state.users.push_back((task.uid, VecDeque::from([task]))),
            },
        }
        drop(state);
        self.available.notify_all();
        true
    }

    /// Removes the task of a client that is gone, if no thread has it yet. Drop it after unlocking:
    /// it may hold a place.
    fn cancel(&self, client: u64) -> Option<Task> {
        let mut state = self.lock();
        if let Some(position) = state.pieces.iter().position(|task| task.client == client) {
            return state.pieces.remove(position);
        }
        let (user, position) = state.users.iter().enumerate().find_map(|(user, (_, tasks))| {
            Some((user, tasks.iter().position(|task| task.client == client)?))
        })?;
        let (_, tasks) = state.users.get_mut(user)?;
        let task = tasks.remove(position);
        if tasks.is_empty() {
            state.users.remove(user);
        }
        task
    }

    /// Waits for the next task; `None` when the server ends.
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

    /// Runs a thread.
    fn work(
        self: &Arc<Self>,
        pieces_first: bool,
        handler: &mut dyn Handler,
        done: &Sender<Piece>,
        waker: &Waker,
    ) {
        while let Some((task, place)) = self.next(pieces_first) {
            let Task { client, cancelled, work, .. } = task;
            let is_first = matches!(work, Work::Request(..));
            let (mut replies, place) = match (work, place) {
                (Work::Request(request, caller), Some(place)) => {
                    (handler.handle(request, caller, &cancelled).0, place)
                }
                (Work::Rest(Rest { replies, place }), _) => (replies, place),
                (Work::Request(..), None) => continue,
            };
            if cancelled.is_cancelled() {
                continue;
            }
            let (lines, is_more) = next_piece(&mut replies);
            let rest = is_more.then_some(Rest { replies, place });
            if done.send(Piece { client, lines, rest, is_first }).is_err() {
                return;
            }
            waker.wake();
        }
    }
}

impl Waiting {
    /// The request of the next user in turn who has room for an answer.
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
    /// Starts the threads. Pieces go to `done`, each with a wake of `waker`.
    ///
    /// # Errors
    /// clone(2) failed.
    pub(super) fn start(
        new_handler: NewHandler<'_>,
        clients_max: usize,
        done: &Sender<Piece>,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        let workers = Self {
            changes: Lane::new(true, CHANGES_MAX, usize::MAX, usize::MAX),
            root: Lane::new(false, clients_max, usize::MAX, usize::MAX),
            others: Lane::new(false, clients_max, LONG_ANSWERS_MAX, LONG_ANSWERS_PER_USER),
        };
        // One thread, so that changes are made in the order of their arrival.
        for (name, lane, threads) in [
            ("control-change", &workers.changes, 1),
            ("control-root", &workers.root, READERS),
            ("control-read", &workers.others, READERS),
        ] {
            for number in 0..threads {
                let (lane, mut handler, done, waker) =
                    (Arc::clone(lane), new_handler(), done.clone(), Arc::clone(waker));
                let thread = thread::Builder::new().name(name.to_owned());
                thread.spawn(move || lane.work(number > 0, &mut *handler, &done, &waker))?;
            }
        }
        Ok(workers)
    }

    /// Queues a request; `None` if there is no room.
    pub(super) fn ask(&self, client: u64, caller: Caller, request: Request) -> Option<Handle> {
        let lane = match (request.changes(), caller.uid) {
            (true, _) => &self.changes,
            (false, 0) => &self.root,
            (false, _) => &self.others,
        };
        Self::submit(lane, client, caller.uid, Work::Request(request, caller))
    }

    /// Queues the next piece of an answer.
    pub(super) fn next_piece(&self, client: u64, rest: Rest) -> Option<Handle> {
        let (lane, uid) = (Arc::clone(&rest.place.lane), rest.place.uid);
        Self::submit(&lane, client, uid, Work::Rest(rest))
    }

    fn submit(lane: &Arc<Lane>, client: u64, uid: u32, work: Work) -> Option<Handle> {
        let cancelled = Cancelled::default();
        let task = Task { client, uid, cancelled: cancelled.clone(), work };
        lane.submit(task).then(|| Handle { lane: Arc::clone(lane), client, cancelled })
    }

    /// Whether changes are waiting or in progress.
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
            // Drop after unlocking: each may hold a place, which is released under the same lock.
            drop(left);
            lane.available.notify_all();
        }
    }
}
