//! What the screen shows, from the daemon: two threads ask and listen, so that a daemon that is slow
//! or gone keeps no key from being seen. They connect again until the daemon answers.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::failure::Failure;
use super::super::geo::{self, Databases, Geo};
use super::super::run::{each, history_of};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{BlockRow, HistoryRow, Reply, Request, Shown, Status, Target};
use crate::errors::error_chain;

/// Between two questions for the status, and two attempts to connect.
const EACH: Duration = Duration::from_secs(1);

/// Between two lists: this many times what the last one took. A long one is asked for less often.
const PAUSE: u32 = 10;

/// Rows that are kept of a list.
const ROWS_MAX: usize = 20_000;

/// News that wait for the screen. In a flood of events the feed waits, and the daemon drops some.
const NEWS_MAX: usize = 1000;

/// What the screen wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Show(Target),
    Unblock(Target),
    Allow(Target),
}

/// News for the screen.
#[derive(Debug)]
pub(super) enum Update {
    Status(Box<Status>),
    /// The blocked and slowed sources, and how many there are.
    Rows(Vec<BlockRow>, usize),
    Event(Box<Value>),
    Shown(Box<Shown>, Option<Geo>, Vec<HistoryRow>),
    /// What came of an order.
    Done(Result<String, String>),
    /// The daemon does not answer, and why.
    Gone(String),
}

/// Starts the threads; they end with the process.
pub(super) fn start(socket: &Path) -> io::Result<(Sender<Order>, Receiver<Update>)> {
    let (orders, wanted) = channel();
    let (news, updates) = sync_channel(NEWS_MAX);
    let (of_asking, of_listening) = (socket.to_owned(), socket.to_owned());
    let for_listening = news.clone();
    std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
        Asking { socket: of_asking, wanted, news, waiting: VecDeque::new(), geo: None }.run()
    })?;
    std::thread::Builder::new()
        .name("listen".to_owned())
        .spawn(move || listen(&of_listening, &for_listening))?;
    Ok((orders, updates))
}

/// Passes events on until the screen is gone.
fn listen(socket: &Path, news: &SyncSender<Update>) {
    let events = || -> Result<(), ClientError> {
        let mut client = Client::connect(socket)?;
        let mut reply = client.ask(&Request::Watch {})?;
        loop {
            if let Reply::Event { event } = reply
                && news.send(Update::Event(Box::new(event))).is_err()
            {
                return Ok(());
            }
            reply = client.receive(None)?;
        }
    };
    // The other thread says that the daemon is gone.
    while events().is_err() {
        std::thread::sleep(EACH);
    }
}

struct Asking {
    socket: PathBuf,
    wanted: Receiver<Order>,
    news: SyncSender<Update>,
    waiting: VecDeque<Order>,
    /// Opened when the first source is explained.
    geo: Option<Databases>,
}

/// The screen is gone.
struct Ended;

impl Asking {
    fn run(mut self) {
        loop {
            let failure = match self.session() {
                Ok(Ended) => return,
                Err(failure) => failure,
            };
            // An order whose answer did not come is not repeated: it may have been carried out.
            let lost = match self.waiting.pop_front() {
                Some(_) => "no answer: the connection is lost".to_owned(),
                None => String::new(),
            };
            self.waiting.clear();
            let text = failure.text();
            let first = text.lines().next().unwrap_or_default();
            let why = first.strip_prefix("portsentryctl: ").unwrap_or(first).to_owned();
            let gone = self.news.send(Update::Gone(why)).is_err();
            if gone || (!lost.is_empty() && self.news.send(Update::Done(Err(lost))).is_err()) {
                return;
            }
            std::thread::sleep(EACH);
        }
    }

    /// Asks over one connection for as long as it lasts.
    fn session(&mut self) -> Result<Ended, Failure> {
        let mut client = Client::connect(&self.socket)?;
        // A daemon that was started again may have others.
        self.geo = None;
        let mut list_at = Instant::now();
        loop {
            let begun = Instant::now();
            let Reply::Status(status) = client.ask(&Request::Status {})? else {
                return Err(Failure::Answer);
            };
            if self.news.send(Update::Status(status)).is_err() {
                return Ok(Ended);
            }
            if Instant::now() >= list_at {
                let asked = Instant::now();
                let rows = list(&mut client)?;
                if self.news.send(rows).is_err() {
                    return Ok(Ended);
                }
                list_at = Instant::now() + asked.elapsed() * PAUSE;
            }
            let mut left = EACH.saturating_sub(begun.elapsed());
            loop {
                match self.wanted.recv_timeout(left) {
                    Ok(order) => {
                        self.waiting.push_back(order.clone());
                        if self.carry_out(&mut client, order)? {
                            return Ok(Ended);
                        }
                        self.waiting.clear();
                        // What it changed is shown at once.
                        list_at = Instant::now();
                        left = Duration::ZERO;
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(Ended),
                }
            }
        }
    }

    /// Carries an order out; `true`: the screen is gone.
    fn carry_out(&mut self, client: &mut Client, order: Order) -> Result<bool, Failure> {
        let (request, address) = match order {
            Order::Show(address) => (Request::Show { address }, address),
            Order::Unblock(address) => (Request::Unblock { address }, address),
            Order::Allow(address) => (Request::AllowAdd { address }, address),
        };
        let update = match client.ask(&request) {
            Ok(Reply::Shown(shown)) => {
                let history = history_of(client, address)?;
                let geo = self.geo(client)?.find(address);
                Update::Shown(shown, geo, history)
            }
            Ok(Reply::Done { message }) => Update::Done(Ok(message)),
            Ok(_) => return Err(Failure::Answer),
            Err(refused @ ClientError::Refused(_)) => Update::Done(Err(error_chain(&refused))),
            Err(lost) => return Err(lost.into()),
        };
        Ok(self.news.send(update).is_err())
    }

    /// The databases; what is wrong with one is said once.
    fn geo(&mut self, client: &mut Client) -> Result<&Databases, Failure> {
        if self.geo.is_none() {
            let (databases, faults) = match geo::ask(client) {
                Err(ClientError::Refused(_)) => Default::default(),
                answer => answer?,
            };
            for fault in faults {
                let _ = self.news.send(Update::Done(Err(fault.to_string())));
            }
            self.geo = Some(databases);
        }
        Ok(self.geo.get_or_insert_default())
    }
}

/// The list. Of a longer one, the rows that dropped most are kept.
fn list(client: &mut Client) -> Result<Update, Failure> {
    let first = client.ask(&Request::List(Box::default()))?;
    let part =
        |reply| if let Reply::Blocks { rows, more } = reply { Some((rows, more)) } else { None };
    let (mut rows, mut all) = (Vec::new(), 0);
    each(client, first, part, |row: BlockRow| {
        all += 1;
        rows.push(row);
        if rows.len() >= 2 * ROWS_MAX {
            keep(&mut rows);
        }
        Ok(())
    })?;
    if rows.len() > ROWS_MAX {
        keep(&mut rows);
    }
    Ok(Update::Rows(rows, all))
}

fn keep(rows: &mut Vec<BlockRow>) {
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    rows.truncate(ROWS_MAX);
}
