//! The thread that serves the control socket: one loop over the listener and all clients, which waits for none of them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags};

use super::connection::{Connection, State};
use super::desk::{Answer, Desk};
use super::listen::Listener;
use super::protocol::{Kind, Refusal, Reply, Request, event_line};
use crate::journal::Subscription;
use crate::sys::wake::Waker;
use crate::sys::{peer, poll};

/// Clients at once. An administrator needs one; a monitoring program or two some more.
pub const CLIENTS_MAX: usize = 64;

/// Of these, clients that are not root: the rest is kept for root.
const OTHERS_MAX: usize = 48;

/// Of these, clients that watch.
pub const WATCHERS_MAX: usize = 16;

/// Clients that are let in before those that are in are served.
const ACCEPT_MAX: usize = 16;

/// A client that has sent no whole request makes room for a new one when all places are taken, but not sooner than this: an honest one has sent it by then.
const GRACE: Duration = Duration::from_millis(50);

/// Time without accepting after accept(2) failed (no descriptors left): the listener stays readable, and the loop must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Events that are handed to those who watch before the clients are served.
const EVENTS_MAX: usize = 256;

/// Opens the stream of events that those who watch get: [`crate::journal::JournalHandle::subscribe`].
pub type Feed = Box<dyn Fn(Arc<Waker>) -> Subscription + Send>;

/// The running server.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    ended: Receiver<()>,
}

impl Server {
    /// Starts the thread.
    ///
    /// # Errors
    /// What eventfd(2) and clone(2) say.
    pub fn start(listener: Listener, desk: Box<dyn Desk>, feed: Feed) -> io::Result<Self> {
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Arc::new(Waker::new()?));
        let (end, ended) = sync_channel::<()>(1);
        let mut service = Service {
            listener,
            desk,
            feed,
            subscription: None,
            clients: Vec::new(),
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

    /// Ends the thread and takes the socket away; `false` if the thread does not end in time because the [`Desk`] works still.
    pub fn stop(self, deadline: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        matches!(self.ended.recv_timeout(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

struct Service {
    listener: Listener,
    desk: Box<dyn Desk>,
    feed: Feed,
    /// Only while somebody watches.
    subscription: Option<Subscription>,
    clients: Vec<Connection>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    paused_until: Option<Instant>,
}

impl Service {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let Ok((ring, knock, ready)) = self.wait() else {
                // poll(2) fails for want of memory at most; without rest this would be a loop at full speed.
                thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            if ring {
                self.waker.clear();
            }
            self.publish();
            self.serve(&ready);
            self.drop_late();
            if knock {
                self.accept();
            }
            if self.subscription.is_some() && !self.clients.iter().any(Connection::is_watching) {
                self.subscription = None;
            }
        }
        for client in &mut self.clients {
            // What fits into the sockets' buffers; nobody is waited for.
            let _ = client.send();
        }
    }

    /// Waits until something is to be done: whether the waker rang, whether somebody knocks, and what each client is ready for.
    fn wait(&self) -> io::Result<(bool, bool, Vec<PollFlags>)> {
        let now = Instant::now();
        let accepts = self.paused_until.is_none_or(|until| until <= now) && (self.clients.len() < CLIENTS_MAX || self.victim(0, now).is_some());
        let mut unread = false;
        let mut fds = Vec::with_capacity(self.clients.len() + 2);
        fds.push(PollFd::from_borrowed_fd(AsFd::as_fd(&*self.waker), PollFlags::IN));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.wants_input());
            flags.set(PollFlags::OUT, client.wants_room());
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), flags));
            unread |= client.has_unread();
        }
        if accepts {
            fds.push(PollFd::from_borrowed_fd(self.listener.socket.as_fd(), PollFlags::IN));
        }
        let mut due: Option<Instant> =
            self.clients.iter().filter_map(Connection::deadline).chain(self.paused_until.filter(|until| *until > now)).min();
        if !accepts {
            // A place may become free by grace alone.
            due = Some(due.map_or(now + GRACE, |due| due.min(now + GRACE)));
        }
        if unread {
            // A client sent its next request along with the last: there is something to do at once.
            due = Some(now);
        }
        match poll::wait(&mut fds, due.map(|due| due.saturating_duration_since(now))) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let mut ready = fds.iter().map(PollFd::revents);
        let ring = ready.next().is_some_and(|flags| !flags.is_empty());
        let ready: Vec<PollFlags> = ready.collect();
        let knock = accepts && ready.last().is_some_and(|flags| !flags.is_empty());
        Ok((ring, knock, ready))
    }

    /// Hands events to those who watch.
    fn publish(&mut self) {
        let Some(subscription) = &self.subscription else { return };
        let now = Instant::now();
        for count in 0..=EVENTS_MAX {
            if count == EVENTS_MAX {
                // The bell was silenced before these were taken; what is left needs another ring.
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

    /// Reads, answers and writes, one step for each client that is ready.
    fn serve(&mut self, ready: &[PollFlags]) {
        let now = Instant::now();
        let mut clients = std::mem::take(&mut self.clients);
        let mut position = 0;
        clients.retain_mut(|client| {
            let flags = ready.get(position).copied().unwrap_or(PollFlags::empty());
            position += 1;
            self.step(client, flags, now)
        });
        self.clients = clients;
        self.limit_watchers(now);
    }

    /// One step of one client; `false` when it is finished.
    fn step(&mut self, client: &mut Connection, flags: PollFlags, now: Instant) -> bool {
        if client.wants_input() && flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match client.receive() {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    // Half a request of one who is gone is no request.
                    if !client.is_reading() {
                        return false;
                    }
                    return matches!(client.next_request(), Ok(Some(line)) if self.on_request(client, &line, now));
                }
            }
        }
        match client.next_request() {
            Ok(Some(line)) => self.on_request(client, &line, now),
            Ok(None) => client.send().unwrap_or(false),
            Err(refusal) => {
                client.refuse(refusal, now);
                client.send().unwrap_or(false)
            }
        }
    }

    fn on_request(&mut self, client: &mut Connection, line: &[u8], now: Instant) -> bool {
        match Request::parse(line) {
            Err(refusal) => client.answer(Answer::Reply(refusal.into()), now),
            Ok(request) if request.changes() && client.peer.uid != 0 => {
                let refusal = Refusal::new(Kind::NotPermitted, "only root may change anything", "run portsentryctl as root, for example with sudo");
                client.answer(Answer::Reply(refusal.into()), now);
            }
            Ok(Request::Watch {}) => {
                if self.subscription.is_none() {
                    self.subscription = Some((self.feed)(Arc::clone(&self.waker)));
                }
                client.answer(Answer::Reply(Reply::Watching {}), now);
                client.state = State::Watching;
            }
            Ok(request) => {
                if request.changes() {
                    log::info!("control: user {} asks: {}", client.peer.uid, String::from_utf8_lossy(line));
                }
                let answer = self.desk.answer(request);
                // The time that the desk took is not the client's.
                client.answer(answer, Instant::now());
            }
        }
        client.send().unwrap_or(false)
    }

    fn limit_watchers(&mut self, now: Instant) {
        for client in self.clients.iter_mut().filter(|client| client.is_watching()).skip(WATCHERS_MAX) {
            client.refuse(Refusal::new(Kind::Busy, format!("{WATCHERS_MAX} clients watch already"), "end one of them"), now);
        }
    }

    fn drop_late(&mut self) {
        let now = Instant::now();
        self.clients.retain_mut(|client| match client.deadline() {
            Some(deadline) if deadline <= now => {
                if client.is_reading() && client.has_input() {
                    client.refuse(Refusal::new(Kind::BadRequest, "no whole request came in time", "a request ends with a line end"), now);
                    let _ = client.send();
                }
                false
            }
            _ => true,
        });
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT_MAX {
            let now = Instant::now();
            let socket = match self.listener.socket.accept() {
                Ok((socket, _)) => socket,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    return;
                }
                Err(_) => {
                    self.paused_until = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            // Who cannot be identified is nobody.
            let (Ok(()), Ok(peer)) = (socket.set_nonblocking(true), peer::peer(socket.as_fd())) else { continue };
            let others = self.clients.iter().filter(|client| client.peer.uid != 0).count();
            let full = self.clients.len() >= CLIENTS_MAX || (peer.uid != 0 && others >= OTHERS_MAX);
            let may_read = peer.uid == 0 || self.listener.group.is_some_and(|group| peer.is_member(group));
            let uid = peer.uid;
            let mut client = Connection::new(socket, peer, now);
            let refusal = if !may_read {
                Some(Refusal::new(
                    Kind::NotPermitted,
                    "you may not use the control socket",
                    "run portsentryctl as root, or become a member of the group that control.group names",
                ))
            } else if full {
                match self.victim(uid, now) {
                    Some(victim) => {
                        let mut victim = self.clients.swap_remove(victim);
                        victim.refuse(busy(), now);
                        let _ = victim.send();
                        None
                    }
                    None => Some(busy()),
                }
            } else {
                None
            };
            if let Some(refusal) = refusal {
                // One attempt, and gone: the buffer of a new socket has room for a line.
                client.refuse(refusal, now);
                let _ = client.send();
                continue;
            }
            self.clients.push(client);
            if self.clients.len() >= CLIENTS_MAX && self.victim(0, now).is_none() {
                return;
            }
        }
    }

    /// Who makes room for a client of user `newcomer`: of those who have sent no request yet and had time to, the oldest of the user who has most
    /// connections. Root never makes room for others.
    fn victim(&self, newcomer: u32, now: Instant) -> Option<usize> {
        let connections = |uid: u32| self.clients.iter().filter(|client| client.peer.uid == uid).count();
        self.clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.is_reading() && now.duration_since(client.since) >= GRACE && (newcomer == 0 || client.peer.uid != 0))
            .max_by_key(|(_, client)| (client.peer.uid != 0, connections(client.peer.uid), std::cmp::Reverse(client.since)))
            .map(|(position, _)| position)
    }
}

fn busy() -> Refusal {
    Refusal::new(Kind::Busy, format!("{CLIENTS_MAX} clients are connected already"), "try again in some seconds")
}
