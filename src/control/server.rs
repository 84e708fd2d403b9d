//! The thread that serves the control socket: one loop over the listener and all clients, without
//! waiting for any of them.
//!
//! It only moves bytes: [`workers`](super::workers) compute the answers.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags};

use super::connection::{Connection, State};
use super::handler::Caller;
use super::listen::Listener;
use super::protocol::{Kind, Refusal, Reply, Request, event_line};
use super::workers::{NewHandler, Piece, Workers};
use crate::journal::Subscription;
use crate::sys::peer::{self, Peer};
use crate::sys::poll;
use crate::sys::wake::Waker;

/// Clients at once. An administrator needs one; a monitoring program or two some more.
pub(crate) const CLIENTS_MAX: usize = 64;

/// Of these, clients other than root: the rest is reserved for root.
pub(crate) const OTHERS_MAX: usize = 48;

/// Of these, clients of one user.
pub(crate) const CLIENTS_PER_USER: usize = 24;

/// Of the clients, watchers.
pub(crate) const WATCHERS_MAX: usize = 16;

/// Of these, watchers other than root: the rest is reserved for root.
pub(crate) const OTHER_WATCHERS_MAX: usize = 12;

/// Of these, watchers of one user.
pub(crate) const WATCHERS_PER_USER: usize = 6;

/// Clients accepted in one wake, before connected ones are served.
const ACCEPTS_PER_WAKE: usize = 16;

/// When all places are taken, a client without a whole request makes room for a new one, but not
/// sooner than this: a well-behaved client has sent its request by then.
const REPLACEABLE_AFTER: Duration = Duration::from_millis(50);

/// Pause after accept(2) failed (no descriptors left): the listener stays readable, and the loop
/// must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Events delivered in one wake, before clients are served.
const EVENTS_PER_WAKE: usize = 256;

/// Time limit for root's pending changes when the server ends.
const LAST_CHANGES_WITHIN: Duration = Duration::from_secs(1);

/// Opens the event stream for the watchers: [`crate::journal::JournalHandle::subscribe`].
pub type Feed = Box<dyn Fn(Arc<Waker>) -> Subscription + Send>;

/// The running server.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    ended: Receiver<()>,
}

impl Server {
    /// Starts the thread and its workers, each with a handler made by `new_handler`.
    ///
    /// # Errors
    /// eventfd(2) or clone(2) failed.
    pub fn start(listener: Listener, new_handler: NewHandler<'_>, feed: Feed) -> io::Result<Self> {
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Arc::new(Waker::new()?));
        let (end, ended) = sync_channel::<()>(1);
        let (done, pieces) = channel();
        let workers = Workers::start(new_handler, CLIENTS_MAX, &done, &waker)?;
        let mut service = Service {
            listener,
            workers,
            pieces,
            feed,
            subscription: None,
            clients: Vec::new(),
            watchers: Vec::new(),
            last_id: 0,
            stop: Arc::clone(&stop),
            waker: Arc::clone(&waker),
            paused_until: None,
        };
        thread::Builder::new().name("control".to_owned()).spawn(move || {
            service.run();
            drop(service);
            drop(end);
        })?;
        Ok(Self { stop, waker, ended })
    }

    /// Ends the thread and removes the socket; `false` if it does not end in time. Workers are
    /// stopped even in the middle of an answer.
    pub fn stop(self, deadline: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        matches!(self.ended.recv_timeout(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

struct Service {
    listener: Listener,
    workers: Workers,
    /// Finished pieces of the workers.
    pieces: Receiver<Piece>,
    feed: Feed,
    /// Present while there are watchers.
    subscription: Option<Subscription>,
    clients: Vec<Connection>,
    /// The users of the watchers, while clients are served.
    watchers: Vec<u32>,
    /// The number of the newest client.
    last_id: u64,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    paused_until: Option<Instant>,
}

/// The result of poll(2).
struct Ready {
    waker: bool,
    listener: bool,
    /// For each client.
    clients: Vec<PollFlags>,
}

impl Service {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let Ok(ready) = self.wait() else {
                // poll(2) fails only without memory; without a pause the loop would spin.
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if ready.waker {
                self.waker.clear();
            }
            self.publish();
            self.serve(&ready.clients);
            self.take_pieces();
            self.drop_expired();
            if ready.listener {
                self.accept();
            }
            if self.subscription.is_some() && !self.clients.iter().any(Connection::is_watching) {
                self.subscription = None;
            }
        }
        let deadline = Instant::now() + LAST_CHANGES_WITHIN;
        while self.workers.has_changes()
            && let Ok(piece) =
                self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.take_piece(piece);
        }
        self.take_pieces();
        for client in &mut self.clients {
            // As much as fits into the sockets' buffers.
            let _ = client.send();
        }
    }

    /// Delivers the workers' pieces to the clients.
    fn take_pieces(&mut self) {
        // Each client has one piece at most.
        while let Ok(piece) = self.pieces.try_recv() {
            self.take_piece(piece);
        }
    }

    fn take_piece(&mut self, piece: Piece) {
        let now = Instant::now();
        let id = piece.client;
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        client.add_piece(piece, now);
        if client.send().unwrap_or(false) {
            continue_answer(&self.workers, client, now);
        } else {
            self.clients.retain(|client| client.id != id);
        }
    }

    /// Waits for work.
    fn wait(&self) -> io::Result<Ready> {
        let now = Instant::now();
        let accepts = self.paused_until.is_none_or(|until| until <= now)
            && (self.clients.len() < CLIENTS_MAX
                || self.replaceable(ClientLimit::Root, now).is_some());
        let mut unread = false;
        let mut fds = Vec::with_capacity(self.clients.len() + 2);
        fds.push(PollFd::from_borrowed_fd(AsFd::as_fd(&*self.waker), PollFlags::IN));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.wants_input());
            flags.set(PollFlags::OUT, client.wants_output());
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), flags));
            unread |= client.has_unread();
        }
        if accepts {
            fds.push(PollFd::from_borrowed_fd(self.listener.socket.as_fd(), PollFlags::IN));
        }
        let mut due: Option<Instant> = self
            .clients
            .iter()
            .filter_map(Connection::deadline)
            .chain(self.paused_until.filter(|until| *until > now))
            .min();
        if !accepts {
            // A client may become replaceable by time alone.
            due = Some(due.map_or(now + REPLACEABLE_AFTER, |due| due.min(now + REPLACEABLE_AFTER)));
        }
        if unread {
            // A client has sent its next request already.
            due = Some(now);
        }
        match poll::wait(&mut fds, due.map(|due| due.saturating_duration_since(now))) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let mut ready = fds.iter().map(PollFd::revents);
        let waker = ready.next().is_some_and(|flags| !flags.is_empty());
        let clients: Vec<PollFlags> = ready.collect();
        let listener = accepts && clients.last().is_some_and(|flags| !flags.is_empty());
        Ok(Ready { waker, listener, clients })
    }

    /// Delivers events to the watchers.
    fn publish(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        let now = Instant::now();
        for count in 0..=EVENTS_PER_WAKE {
            if count == EVENTS_PER_WAKE {
                // The waker was cleared before; the remaining events need another wake.
                self.waker.wake();
                break;
            }
            match subscription.try_next() {
                Ok(Some(event)) => {
                    let line = event_line(&event);
                    self.clients.iter_mut().for_each(|client| client.offer(&line, now));
                }
                Ok(None) => break,
                Err(_) => {
                    for client in self.clients.iter_mut().filter(|client| client.is_watching()) {
                        client.refuse(Refusal::new(Kind::Busy, "the daemon ends", ""), now);
                    }
                    self.subscription = None;
                    return;
                }
            }
        }
        let missed = subscription.take_missed();
        if missed > 0 {
            let line = event_line(&format!("{{\"event\":\"missed\",\"lines\":{missed}}}"));
            self.clients.iter_mut().for_each(|client| client.offer(&line, now));
        }
    }

    /// One step of reading, answering and writing for each client that is ready.
    fn serve(&mut self, ready: &[PollFlags]) {
        let now = Instant::now();
        let mut clients = std::mem::take(&mut self.clients);
        self.watchers = clients
            .iter()
            .filter(|client| client.is_watching())
            .map(|client| client.peer.uid)
            .collect();
        let mut position = 0;
        clients.retain_mut(|client| {
            let flags = ready.get(position).copied().unwrap_or(PollFlags::empty());
            position += 1;
            self.step(client, flags, now)
        });
        self.clients = clients;
    }

    /// One step for a client; `false` when it is finished.
    fn step(&mut self, client: &mut Connection, flags: PollFlags, now: Instant) -> bool {
        if client.wants_input() && flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        {
            if !client.receive().unwrap_or(false) {
                // A part of a request of a disconnected client is ignored.
                return matches!(client.next_request(), Ok(Some(line)) if self.on_request(client, &line, now));
            }
        } else if client.waits_for_worker() && flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            // The client is gone (closing only its writing side gives no HUP): its answer is
            // cancelled.
            return false;
        }
        match client.next_request() {
            Ok(Some(line)) => self.on_request(client, &line, now),
            Ok(None) => {
                let continues = client.send().unwrap_or(false);
                if continues {
                    continue_answer(&self.workers, client, now);
                }
                continues
            }
            Err(refusal) => {
                client.refuse(refusal, now);
                client.send().unwrap_or(false)
            }
        }
    }

    fn on_request(&mut self, client: &mut Connection, line: &[u8], now: Instant) -> bool {
        if let Err(refusal) = self.take_request(client, line, now) {
            client.answer(&refusal.into(), now);
        }
        client.send().unwrap_or(false)
    }

    /// `Err`: the request is refused, and the client may send another.
    fn take_request(
        &mut self,
        client: &mut Connection,
        line: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        let uid = client.peer.uid;
        let request = Request::parse(line)?;
        if request.changes() && uid != 0 {
            let process = client.peer.pid.map(|pid| format!(" (process {pid})"));
            let process = process.unwrap_or_default();
            log::warn!("control: user {uid}{process} may not change anything: {request}");
            return Err(Refusal::new(
                Kind::NotPermitted,
                "only root may change anything",
                "run portsentryctl as root, for example with sudo",
            ));
        }
        if request != (Request::Watch {}) {
            let login = if request.changes() { Request::login(line) } else { None };
            let caller = Caller { uid, pid: client.peer.pid, login };
            let handle = self.workers.ask(client.id, caller, request);
            let full = "too many requests wait already";
            client.wait_for(
                handle
                    .ok_or_else(|| Refusal::new(Kind::Busy, full, "try again in some seconds"))?,
            );
        } else if let Some(refusal) = self.refuse_watcher(uid) {
            client.refuse(refusal, now);
        } else {
            let feed = || (self.feed)(Arc::clone(&self.waker));
            self.subscription.get_or_insert_with(feed);
            client.answer(&Reply::Watching {}, now);
            client.state = State::Watching;
            self.watchers.push(uid);
        }
        Ok(())
    }

    /// Why this user may not watch, if so.
    fn refuse_watcher(&self, uid: u32) -> Option<Refusal> {
        let others = self.watchers.iter().filter(|watcher| **watcher != 0).count();
        let own = self.watchers.iter().filter(|watcher| **watcher == uid).count();
        let bounds = [
            (WATCHERS_MAX, self.watchers.len()),
            (OTHER_WATCHERS_MAX, others),
            (WATCHERS_PER_USER, own),
        ];
        // Only the first bound applies to root.
        let bounds = bounds.get(..if uid == 0 { 1 } else { bounds.len() }).unwrap_or_default();
        let (bound, _) = bounds.iter().find(|(bound, watch)| watch >= bound)?;
        Some(Refusal::new(Kind::Busy, format!("{bound} clients watch already"), "end one of them"))
    }

    fn drop_expired(&mut self) {
        let now = Instant::now();
        self.clients.retain_mut(|client| match client.deadline() {
            Some(deadline) if deadline <= now => {
                if client.is_reading() && client.has_input() {
                    client.refuse(
                        Refusal::new(
                            Kind::BadRequest,
                            "no whole request came in time",
                            "a request ends with a line end",
                        ),
                        now,
                    );
                    let _ = client.send();
                }
                false
            }
            _ => true,
        });
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_WAKE {
            let now = Instant::now();
            let socket = match self.listener.socket.accept() {
                Ok((socket, _)) => socket,
                Err(error) => {
                    return match error.kind() {
                        io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted => {}
                        _ => self.paused_until = Some(now + ACCEPT_PAUSE),
                    };
                }
            };
            // A client whose user is unknown cannot be served.
            let (Ok(()), Ok(peer)) = (socket.set_nonblocking(true), peer::peer(socket.as_fd()))
            else {
                continue;
            };
            self.last_id += 1;
            let admitted = self.admit(&peer, now);
            let client = Connection::new(self.last_id, socket, peer, now);
            match admitted {
                Ok(()) => self.clients.push(client),
                Err(refusal) => {
                    turn_away(client, refusal, now);
                    continue;
                }
            }
            if self.clients.len() >= CLIENTS_MAX
                && self.replaceable(ClientLimit::Root, now).is_none()
            {
                return;
            }
        }
    }

    /// Whether a new client may come. Where a bound is exhausted, another one makes room for it.
    fn admit(&mut self, peer: &Peer, now: Instant) -> Result<(), Refusal> {
        if peer.uid != 0 && !self.listener.group.is_some_and(|group| peer.is_member(group)) {
            return Err(Refusal::new(
                Kind::NotPermitted,
                "you may not use the control socket",
                "run portsentryctl as root, or become a member of the group that control.group names",
            ));
        }
        if let Some(limit) = self.exceeded_limit(peer.uid) {
            let replaceable = self.replaceable(limit, now).ok_or_else(|| limit.busy())?;
            turn_away(self.clients.swap_remove(replaceable), limit.busy(), now);
        }
        Ok(())
    }

    /// The bound that a new client of this user would exceed, if any.
    fn exceeded_limit(&self, uid: u32) -> Option<ClientLimit> {
        let others = self.clients.iter().filter(|client| client.peer.uid != 0).count();
        let own = self.clients.iter().filter(|client| client.peer.uid == uid).count();
        match uid {
            0 => (self.clients.len() >= CLIENTS_MAX).then_some(ClientLimit::Root),
            _ if own >= CLIENTS_PER_USER => Some(ClientLimit::User(uid)),
            _ => (others >= OTHERS_MAX || self.clients.len() >= CLIENTS_MAX)
                .then_some(ClientLimit::Others),
        }
    }

    /// The client that makes room for a new one: among those that had time but sent no request, the
    /// oldest of the user with the most connections. Root never makes room for others, and a user
    /// at its own limit makes room for itself.
    fn replaceable(&self, limit: ClientLimit, now: Instant) -> Option<usize> {
        let connections =
            |uid: u32| self.clients.iter().filter(|client| client.peer.uid == uid).count();
        let may_go = |uid: u32| match limit {
            ClientLimit::Root => true,
            ClientLimit::Others => uid != 0,
            ClientLimit::User(user) => uid == user,
        };
        self.clients
            .iter()
            .enumerate()
            .filter(|(_, client)| {
                client.is_reading()
                    && now.duration_since(client.since) >= REPLACEABLE_AFTER
                    && may_go(client.peer.uid)
            })
            .max_by_key(|(_, client)| {
                (
                    client.peer.uid != 0,
                    connections(client.peer.uid),
                    std::cmp::Reverse(client.since),
                )
            })
            .map(|(position, _)| position)
    }
}

/// An exhausted bound.
#[derive(Debug, Clone, Copy)]
enum ClientLimit {
    /// All clients, and root wants to connect.
    Root,
    /// Clients other than root.
    Others,
    /// Clients of one user.
    User(u32),
}

impl ClientLimit {
    fn busy(self) -> Refusal {
        let message = match self {
            Self::Root => format!("{CLIENTS_MAX} clients are connected already"),
            Self::Others => format!("{OTHERS_MAX} clients that are not root are connected already"),
            Self::User(uid) => {
                format!("{CLIENTS_PER_USER} clients of user {uid} are connected already")
            }
        };
        Refusal::new(Kind::Busy, message, "try again in some seconds")
    }
}

/// Refuses a client and closes its connection. One attempt: the socket's buffer has room for a
/// line.
fn turn_away(mut client: Connection, refusal: Refusal, now: Instant) {
    client.refuse(refusal, now);
    let _ = client.send();
}

/// Starts the next piece of an answer, if it is due.
fn continue_answer(workers: &Workers, client: &mut Connection, now: Instant) {
    if let Some(rest) = client.take_rest() {
        match workers.next_piece(client.id, rest) {
            Some(handle) => client.wait_for(handle),
            None => client.refuse(Refusal::new(Kind::Busy, "the daemon ends", ""), now),
        }
    }
}
