//! `portsentryctl metrics --listen`: the metrics over HTTP, for Prometheus to fetch.
//!
//! A process of its own, so that the daemon needs no right to the network for it: it asks the
//! daemon over the control socket, as `metrics` does. One thread moves bytes and never waits for a
//! client; another asks the daemon, at most once a second however many ask. A client that is slow,
//! or sends anything else than `GET /metrics`, takes a place of a few for a few seconds; of more
//! clients than there are places, the one that has not sent its request for the longest gives way.

mod client;
mod http;
mod place;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use sd_notify::NotifyState;

use self::client::{Connection, Step};
use self::place::Listener;
pub use self::place::Place;
use super::failure::Failure;
use super::metrics::{self, Form};
use super::run::status_of;
use super::status;
use crate::control::protocol::Status;
use crate::sys::reach::Reach;
use crate::sys::wake::Waker;
use crate::sys::{confine, poll};

/// Connections at a time. Some Prometheus servers fetch at once, each over one.
const CONNECTIONS_MAX: usize = 64;

/// Connections that are accepted before others go on.
const ACCEPTED_PER_WAKE: usize = 16;

/// The daemon's figures are asked for again after this time: what many clients fetch costs the
/// daemon no more than what one does.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted because the system lacks something.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The daemon's status, or none, and when it came.
type Answer = (Instant, Option<Box<Status>>);

/// Serves the metrics until it is ended.
pub(super) fn serve(
    socket: &Path,
    place: &Place,
    anywhere: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    if place.is_open() && !anywhere {
        return Err(Failure::Usage(
            "other hosts could read the metrics there",
            "listen on 127.0.0.1, [::1] or a unix socket, or add --anywhere and let a firewall choose who may",
        ));
    }
    let listener = Listener::bind(place).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => status::NOT_PERMITTED,
            _ => status::SOFTWARE,
        };
        let remedy = "name an address of this host with a port that is free, or unix:/PATH in a directory that you may write to";
        Failure::File(code, format!("cannot listen at {place}: {error}"), remedy.to_owned())
    })?;
    // Whatever a client sends, it starts no program.
    confine::no_exec(Reach::Nothing);
    let server = Server::start(listener, socket)?;
    writeln!(out, "serving {}", server.listener.place(place))?;
    out.flush()?;
    // Without a service manager this does nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    server.run()
}

/// The thread that moves bytes.
struct Server {
    listener: Listener,
    connections: Vec<Connection>,
    /// Makes the other thread ask the daemon.
    ask: SyncSender<()>,
    answers: Receiver<Answer>,
    waker: Arc<Waker>,
    is_asking: bool,
    latest: Option<Answer>,
    /// After an error no connection is accepted before this.
    accept_at: Option<Instant>,
}

impl Server {
    fn start(listener: Listener, socket: &Path) -> io::Result<Self> {
        let waker = Arc::new(Waker::new()?);
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let (socket, wake): (PathBuf, _) = (socket.to_owned(), Arc::clone(&waker));
        std::thread::Builder::new().name("status".to_owned()).spawn(move || {
            while asked.recv().is_ok() {
                // Why there is none is nothing that a metric can say: the daemon is not up.
                let status = status_of(&socket).ok();
                if answer.send((Instant::now(), status)).is_err() {
                    return;
                }
                wake.wake();
            }
        })?;
        Ok(Self {
            listener,
            connections: Vec::new(),
            ask,
            answers,
            waker,
            is_asking: false,
            latest: None,
            accept_at: None,
        })
    }

    fn run(mut self) -> Result<u8, Failure> {
        loop {
            let (accepts, ready) = self.wait()?;
            let now = Instant::now();
            self.waker.clear();
            self.take_answer()?;
            for (at, connection) in self.connections.iter_mut().enumerate() {
                if ready.get(at) == Some(&true) {
                    connection.go_on(now);
                }
            }
            if accepts {
                self.accept(now);
            }
            self.answer(now);
            self.connections.retain(|one| one.step != Step::Over && now < one.until);
        }
    }

    /// Waits until something can be done: whether a client connects, and which connections can go
    /// on.
    fn wait(&self) -> io::Result<(bool, Vec<bool>)> {
        let now = Instant::now();
        let accepts = self.accept_at.is_none_or(|at| at <= now);
        let of_listener = if accepts { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.listener.as_fd(), of_listener),
            PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN),
        ];
        let of = |one| PollFd::from_borrowed_fd(Connection::as_fd(one), one.events());
        fds.extend(self.connections.iter().map(of));
        let retry = self.accept_at.filter(|_| !accepts);
        let next = self.connections.iter().map(|one| one.until).chain(retry).min();
        match poll::wait(&mut fds, next.map(|at| at.saturating_duration_since(now))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let (is_asked, _) = (ready.next(), ready.next());
        Ok((accepts && is_asked == Some(true), ready.collect()))
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for _ in 0..ACCEPTED_PER_WAKE {
            match self.listener.accept() {
                Ok(stream) => {
                    self.make_room();
                    let mut connection = Connection::new(stream, now);
                    connection.go_on(now);
                    self.connections.push(connection);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(_) => {
                    self.accept_at = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    /// Gives up a connection if all places are taken: one that is over, else one that has sent no
    /// whole request, else one that does not read its response, each time the oldest.
    fn make_room(&mut self) {
        if self.connections.len() < CONNECTIONS_MAX {
            return;
        }
        let rank = |step| match step {
            Step::Over => 0,
            Step::Closing => 1,
            Step::Reading => 2,
            Step::Writing => 3,
            Step::Waiting(_) => 4,
        };
        let all = self.connections.iter().enumerate();
        if let Some((at, _)) = all.min_by_key(|(_, one)| (rank(one.step), one.until)) {
            self.connections.remove(at);
        }
    }

    fn take_answer(&mut self) -> io::Result<()> {
        match self.answers.try_recv() {
            Ok(answer) => (self.latest, self.is_asking) = (Some(answer), false),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other("the thread that asks the daemon has ended"));
            }
        }
        Ok(())
    }

    /// Answers those that wait for metrics, or has the daemon asked for them.
    fn answer(&mut self, now: Instant) {
        let waits = |one: &Connection| matches!(one.step, Step::Waiting(_));
        if !self.connections.iter().any(waits) {
            return;
        }
        let fresh = |(at, _): &&Answer| now.saturating_duration_since(*at) < FRESH_FOR;
        let Some((_, status)) = self.latest.as_ref().filter(fresh) else {
            if !self.is_asking {
                self.is_asking = self.ask.try_send(()).is_ok();
            }
            return;
        };
        for connection in &mut self.connections {
            if let Step::Waiting(form) = connection.step {
                let text = metrics::text(form, status.as_deref());
                let response =
                    text.map_or_else(|_| http::failure(), |text| http::metrics(form, &text));
                connection.answer(now, response);
            }
        }
    }
}

impl Form {
    /// The media type.
    fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}
