//! Reverse lookups: every query is answered within [`ANSWER_WITHIN`], whatever the name servers do.
//!
//! Owns a few threads that wait for the system's resolver (getnameinfo(3)) and end when no address
//! is queued, a bounded queue and a bounded cache. The owner of an address controls its name: anything that is not a [`HostName`]
//! counts as no name.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::journal::HostName;
use crate::sys::confine;
use crate::sys::reach::Reach;

/// Lookups at once. A resolver that answers takes milliseconds; more would only wait for the same
/// name server.
const WORKERS: usize = 4;

/// A lookup that runs for this long counts as stuck: another may run in its place.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Stuck lookups at a time. The C library's resolver gives up after some seconds for each name
/// server; only a broken nsswitch.conf(5) module holds a thread for ever. When this many are stuck,
/// lookups are answered without a name until one returns.
const STUCK_MAX: usize = 12;

/// Addresses that wait; further ones are answered without a name. Two seconds of work for four
/// workers at 30 ms each.
const QUEUE_MAX: usize = 256;

/// Cached answers, including "no name": some 100 bytes each.
pub(super) const CACHE_MAX: usize = 4096;

/// Lifetime of a cached name. Names in reports may be old; getnameinfo(3) does not return the name
/// server's own limit.
const KEEP_NAME: Duration = Duration::from_secs(3600);

/// Lifetime of a cached "no name" and of a failed lookup.
const KEEP_NONE: Duration = Duration::from_secs(300);

/// Time limit of an answer: a log line waits for it.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Looks up the name of an address.
pub(super) type Lookup = Box<dyn Fn(IpAddr) -> Option<String> + Send + Sync>;

/// Takes an answer.
pub(super) type Answer = Box<dyn Fn(IpAddr, Option<String>) + Send + Sync>;

/// Time limits; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
struct Times {
    answer_within: Duration,
    stuck_after: Duration,
}

struct Known {
    name: Option<String>,
    until: Instant,
}

#[derive(Default)]
struct State {
    cache: HashMap<IpAddr, Known>,
    /// The addresses in the cache, oldest first.
    order: VecDeque<IpAddr>,
    queue: VecDeque<IpAddr>,
    /// Queries without an answer, and their deadlines.
    asked: HashMap<IpAddr, Instant>,
    /// Running lookups, and their start.
    running: HashMap<IpAddr, Instant>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a deadline has changed.
    times_changed: Condvar,
    times: Times,
    lookup: Lookup,
    answer: Answer,
}

/// The resolver; clones share it.
#[derive(Clone)]
pub(super) struct Names(Arc<Shared>);

impl Names {
    /// A resolver that uses the system's.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn new(answer: Answer) -> std::io::Result<Self> {
        Self::with(
            Box::new(system),
            answer,
            Times { answer_within: ANSWER_WITHIN, stuck_after: STUCK_AFTER },
        )
    }

    fn with(lookup: Lookup, answer: Answer, times: Times) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            times_changed: Condvar::new(),
            times,
            lookup,
            answer,
        });
        let keeper = Arc::clone(&shared);
        std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            confine::no_exec(Reach::Servers);
            keeper.keep_times()
        })?;
        Ok(Self(shared))
    }

    /// Queries a name; one answer follows for all queries of the same address meanwhile.
    pub(super) fn ask(&self, address: IpAddr) {
        let now = Instant::now();
        let mut state = self.0.lock();
        if let Some(known) = state.cache.get(&address).filter(|known| known.until > now) {
            let name = known.name.clone();
            drop(state);
            return (self.0.answer)(address, name);
        }
        if state.asked.contains_key(&address) {
            return;
        }
        let (working, stuck) = state.load(now, self.0.times);
        let is_hopeless = working == 0 && stuck >= STUCK_MAX;
        if is_hopeless || state.queue.len() >= QUEUE_MAX {
            drop(state);
            return (self.0.answer)(address, None);
        }
        state.queue.push_back(address);
        state.asked.insert(address, now + self.0.times.answer_within);
        self.0.start_workers(&mut state);
        self.0.times_changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts as many workers as there are addresses for, and room.
    fn start_workers(self: &Arc<Self>, state: &mut State) {
        while state.load(Instant::now(), self.times).1 < STUCK_MAX
            && let Some(address) = state.next(self.times)
        {
            let own = Arc::clone(self);
            let worker = std::thread::Builder::new().name("lookup".to_owned());
            if worker
                .spawn(move || {
                    confine::no_exec(Reach::Servers);
                    own.work(address)
                })
                .is_err()
            {
                // Another worker may take it; else it is answered without a name at its deadline.
                state.running.remove(&address);
                return state.queue.push_front(address);
            }
        }
    }

    /// A worker: looks up this address and then queued ones.
    fn work(self: &Arc<Self>, first: IpAddr) {
        let mut next = Some(first);
        while let Some(address) = next {
            let name = (self.lookup)(address)
                .and_then(|name| HostName::checked(&name))
                .map(|name| name.as_str().to_owned());
            let mut state = self.lock();
            state.running.remove(&address);
            state.remember(address, name.clone());
            let is_awaited = state.asked.remove(&address).is_some();
            next = state.next(self.times);
            drop(state);
            self.times_changed.notify_one();
            if is_awaited {
                (self.answer)(address, name);
            }
        }
    }

    /// The thread that answers at deadlines and starts workers in place of stuck ones.
    fn keep_times(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let overdue: Vec<_> = state.asked.extract_if(|_, until| *until <= now).collect();
            if !overdue.is_empty() {
                drop(state);
                for (address, _) in overdue {
                    (self.answer)(address, None);
                }
                state = self.lock();
                continue;
            }
            self.start_workers(&mut state);
            let stuck_at = state.running.values().map(|since| *since + self.times.stuck_after);
            let next = stuck_at.filter(|at| *at > now).chain(state.asked.values().copied()).min();
            let wait = next.map_or(Duration::MAX, |at| {
                at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
            });
            state = self
                .times_changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl State {
    /// Lookups that are expected to end, and stuck ones.
    fn load(&self, now: Instant, times: Times) -> (usize, usize) {
        let is_stuck = |since: &&Instant| **since + times.stuck_after <= now;
        let stuck = self.running.values().filter(is_stuck).count();
        (self.running.len() - stuck, stuck)
    }

    /// Takes a queued address whose lookup may begin now.
    fn next(&mut self, times: Times) -> Option<IpAddr> {
        let now = Instant::now();
        if self.load(now, times).0 >= WORKERS {
            return None;
        }
        while let Some(address) = self.queue.pop_front() {
            // Else the query was answered meanwhile, or an earlier lookup will answer it.
            if self.asked.contains_key(&address) && !self.running.contains_key(&address) {
                self.running.insert(address, now);
                return Some(address);
            }
        }
        None
    }

    fn remember(&mut self, address: IpAddr, name: Option<String>) {
        let until = Instant::now() + if name.is_some() { KEEP_NAME } else { KEEP_NONE };
        if self.cache.insert(address, Known { name, until }).is_none() {
            self.order.push_back(address);
        }
        while self.cache.len() > CACHE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.cache.remove(&oldest);
        }
    }
}

/// The name of an address by getnameinfo(3), as nsswitch.conf(5) says.
fn system(address: IpAddr) -> Option<String> {
    let flags = libc::NI_NAMEREQD | libc::NI_NUMERICSERV;
    dns_lookup::getnameinfo(&(address, 0).into(), flags).ok().map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const WITHIN: Times =
        Times { answer_within: Duration::from_millis(50), stuck_after: Duration::from_millis(100) };

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    fn names(
        lookup: impl Fn(IpAddr) -> Option<String> + Send + Sync + 'static,
        times: Times,
    ) -> (Names, Receiver<(IpAddr, Option<String>)>) {
        let (sender, receiver) = channel();
        let answer = Box::new(move |address, name| drop(sender.send((address, name))));
        (Names::with(Box::new(lookup), answer, times).unwrap(), receiver)
    }

    fn answer(from: &Receiver<(IpAddr, Option<String>)>) -> (IpAddr, Option<String>) {
        from.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_name_is_asked_for_once_and_then_known() {
        let (asked, counted) = channel();
        let lookup = move |address: IpAddr| {
            asked.send(address).unwrap();
            Some("host.example".to_owned())
        };
        let (names, answers) =
            names(lookup, Times { answer_within: Duration::from_secs(20), ..WITHIN });
        for _ in 0..3 {
            names.ask(address(7));
            assert_eq!(answer(&answers), (address(7), Some("host.example".to_owned())));
        }
        assert_eq!(counted.try_iter().count(), 1);
    }

    #[test]
    fn an_answer_with_odd_bytes_is_no_name() {
        let (names, answers) = names(|_| Some("evil\u{1b}[2J.example\n".to_owned()), WITHIN);
        names.ask(address(1));
        assert_eq!(answer(&answers), (address(1), None));
    }

    // P20
    #[test]
    fn a_hanging_resolver_delays_each_answer_equally_and_workers_recover() {
        let (release, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        // The first lookups hang until they are released.
        let lookup = move |asked: IpAddr| {
            if asked < address(8) {
                let _ = gate.lock().unwrap().recv();
            }
            Some("late.example".to_owned())
        };
        let (names, answers) = names(lookup, WITHIN);
        for n in 0..8 {
            names.ask(address(n));
        }
        for _ in 0..8 {
            assert_eq!(answer(&answers).1, None);
        }
        // Other workers have replaced the stuck ones.
        let served = crate::helper::tests::eventually(|| {
            names.ask(address(100));
            answer(&answers).1.is_some()
        });
        assert!(served);
        drop(release);
    }

    #[test]
    fn when_every_worker_hangs_answers_come_at_once_and_memory_is_bounded() {
        let (release, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let lookup = move |_| {
            let _ = gate.lock().unwrap().recv();
            None
        };
        let (names, answers) = names(
            lookup,
            Times { answer_within: Duration::from_secs(20), stuck_after: Duration::from_secs(60) },
        );
        for n in 0..2000 {
            names.ask(address(n));
        }
        let at_once = answers.try_iter().count();
        assert!((2000 - QUEUE_MAX - WORKERS..=2000 - QUEUE_MAX).contains(&at_once), "{at_once}");
        let state = names.0.lock();
        assert!(
            state.queue.len() <= QUEUE_MAX
                && state.asked.len() <= QUEUE_MAX + WORKERS
                && state.running.len() <= WORKERS
        );
        drop(state);
        drop(release);
    }

    #[test]
    fn the_cache_never_grows_beyond_its_size() {
        let mut state = State::default();
        for n in 0..10_000 {
            state.remember(address(n), Some("x".to_owned()));
        }
        assert_eq!((state.cache.len(), state.order.len()), (CACHE_MAX, CACHE_MAX));
        assert!(state.cache.contains_key(&address(9999)) && !state.cache.contains_key(&address(0)));
    }
}
