//! The thread that owns the helper process: starts it, again and again if need be, feeds it and hears it.
//!
//! It may wait for the helper and for the packet thread, each for a bounded time. The packet thread never waits for it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::orders::{blocked, has_files, list, run, settings};
use super::shared::{BlockList, GRACE, Item, LAST_ORDERS, OnName, Request, Shared};
use crate::backoff::Backoff;
use crate::config::{Config, Mode};
use crate::helper::process::{self, Process};
use crate::helper::protocol::{Order, Word};
use crate::journal::{Ended, JournalHandle, Notice, Response};
use crate::sys::mailbox::Inbox;
use crate::sys::poll;

/// Blocks that the helper is told of when it gets the list of all: its files hold fewer.
const LIST_MAX: usize = 20_000;

/// The list is made at most this often: it keeps the packet thread for some milliseconds.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// Bytes that wait for a helper that takes none, before the queue fills.
const UNSENT_MAX: usize = 256 << 10;

/// That commands were dropped is told at most this often, with their number.
const DROPPED_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A helper that died is started again after this, twice as long each further time.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// But not later than this.
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// A helper that takes no order for so long hangs, was stopped, or its machine does nothing else any more: it is ended, and another one started.
/// Taking an order needs neither a disk nor a name server nor a command.
const DEAF_AFTER: Duration = Duration::from_secs(20);

/// The thread's ends of what [`super::HelperClient`] holds the others of.
pub(super) struct Ends {
    pub(super) shared: Arc<Shared>,
    pub(super) items: Inbox<Item>,
    pub(super) requests: Inbox<Request>,
}

/// The thread's state.
pub(super) struct Worker {
    ends: Ends,
    config: Config,
    journal: JournalHandle,
    blocks: BlockList,
    on_name: OnName,
    helper: Option<Process>,
    backoff: Backoff,
    again_at: Instant,
    list_at: Instant,
    dropped_told: Option<Instant>,
    /// The helper was asked whether it is there, and has not answered.
    asked_at: Option<Instant>,
    /// It got orders since it last answered.
    ordered: bool,
}

impl Worker {
    /// A thread's state that has no helper yet.
    pub(super) fn new(config: Config, journal: JournalHandle, blocks: BlockList, on_name: OnName, ends: Ends) -> Self {
        let now = Instant::now();
        Self {
            ends,
            config,
            journal,
            blocks,
            on_name,
            helper: None,
            backoff: Backoff::new(AGAIN_FIRST, AGAIN_LAST),
            again_at: now,
            list_at: now,
            dropped_told: None,
            asked_at: None,
            ordered: false,
        }
    }

    /// Goes on until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            if self.helper.is_none() && Instant::now() >= self.again_at {
                self.start_helper();
            }
            self.ends.items.waker.clear();
            self.ends.requests.waker.clear();
            while let Some(request) = self.ends.requests.next() {
                match request {
                    Request::Configure(config, answer) => {
                        self.configure(*config);
                        let _ = answer.try_send(());
                    }
                    Request::Stop(cleared, answer) => {
                        self.stop(cleared);
                        let _ = answer.try_send(());
                        return;
                    }
                }
            }
            self.send_list();
            self.take_items();
            self.exchange();
            self.ask();
            self.tell_dropped(false);
            self.wait();
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let mut wake_at = Vec::new();
        if self.helper.is_none() {
            wake_at.push(self.again_at);
        } else if self.has_room() && self.ends.shared.list_wanted.load(Ordering::Relaxed) {
            wake_at.push(self.list_at);
        }
        wake_at.extend(self.asked_at.map(|asked| asked + DEAF_AFTER));
        if self.ends.shared.dropped.load(Ordering::Relaxed) > 0
            && let Some(told) = self.dropped_told
        {
            wake_at.push(told + DROPPED_TOLD_EVERY);
        }
        let timeout = wake_at.into_iter().min().map(|at| at.saturating_duration_since(now));
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.ends.items.waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.ends.requests.waker.as_fd(), PollFlags::IN),
        ];
        if let Some(helper) = &self.helper {
            let out = if helper.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(helper.as_fd(), PollFlags::IN | out));
        }
        // Whatever it says, the round that follows finds out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    /// The helper is there and takes orders.
    fn has_room(&self) -> bool {
        self.helper.as_ref().is_some_and(|helper| helper.unsent() < UNSENT_MAX)
    }

    /// Gives the helper an order.
    fn order(&mut self, order: &Order) {
        if let Some(helper) = &mut self.helper {
            helper.send(order);
            self.ordered = true;
        }
    }

    /// Asks a helper that has got orders whether it took them.
    fn ask(&mut self) {
        if self.helper.is_some() && self.ordered && self.asked_at.is_none() {
            self.order(&Order::Ping);
            self.ordered = false;
            self.asked_at = Some(Instant::now());
        }
    }

    /// A helper that cannot be started is told of, and tried again later.
    pub(super) fn start_helper(&mut self) {
        match Process::start(process::own_program()) {
            Ok(helper) => {
                self.helper = Some(helper);
                self.asked_at = None;
                self.order(&Order::Configure(Box::new(settings(&self.config))));
                self.ends.shared.up.store(true, Ordering::Relaxed);
                self.ends.shared.list_wanted.store(has_files(&self.config), Ordering::Relaxed);
                self.list_at = Instant::now();
            }
            Err(error) => {
                self.put_off();
                self.journal
                    .notify(Notice::Error(format!("the helper process cannot be started: {error}; no command is run and no name found until it is")));
            }
        }
    }

    fn put_off(&mut self) {
        self.again_at = Instant::now() + self.backoff.fail();
    }

    /// The helper is gone, or makes no sense any more: `what` became of it, and how it ended is to be told in brackets.
    fn lose_helper(&mut self, what: &str, why: &str) {
        let Some(helper) = self.helper.take() else { return };
        (self.asked_at, self.ordered) = (None, false);
        self.ends.shared.up.store(false, Ordering::Relaxed);
        // One that held out for so long is no sign of a fault that comes back at once.
        if helper.age() >= AGAIN_LAST {
            self.backoff.reset();
        }
        let ended = helper.end();
        let all = if process::clear() { "" } else { "; some of what it had started cannot be killed" };
        self.put_off();
        self.journal.notify(Notice::Error(format!(
            "the helper process {what} ({why}{ended}); commands that it ran or was to run are lost{all}. Blocks go on, it is started again"
        )));
    }

    fn configure(&mut self, config: Config) {
        self.config = config;
        self.order(&Order::Configure(Box::new(settings(&self.config))));
        // What is blocked may have other names in files now, or none.
        self.ends.shared.list_wanted.store(has_files(&self.config), Ordering::Relaxed);
    }

    /// Hands over what happened, as long as the helper takes it.
    fn take_items(&mut self) {
        while self.has_room()
            && let Some(item) = self.ends.items.next()
        {
            let config = &self.config;
            match item {
                Item::Run { source, port, reason } => self.order(&Order::Run(run(config, source, port, &reason))),
                Item::NotRun(source) => {
                    log::warn!("respond.command is not run for {source}: it follows a block, and the kernel refused that one");
                }
                Item::Blocked { source, port, reason, at } => self.order(&Order::Blocked(blocked(config, source, port, &reason, at))),
                Item::Unblocked(source) => self.order(&Order::Unblocked(source.to_string())),
                Item::Resolve(address) => self.order(&Order::Resolve(address)),
            }
        }
    }

    /// Gives the helper the list of all blocks, if it needs it and it is time.
    fn send_list(&mut self) {
        if !self.has_room() || Instant::now() < self.list_at || !self.ends.shared.list_wanted.swap(false, Ordering::Relaxed) {
            return;
        }
        self.list_at = Instant::now() + LIST_EVERY;
        let blocks = if self.config.mode == Mode::Observe {
            Vec::new()
        } else {
            match (self.blocks)(LIST_MAX + 1) {
                Some(blocks) => blocks,
                None => {
                    self.ends.shared.list_wanted.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        let whole = blocks.len() <= LIST_MAX;
        if !whole {
            log::warn!("more than {LIST_MAX} hosts and networks are blocked: files that show what is blocked do not show all");
        }
        if let Some(helper) = &mut self.helper {
            list(helper, &self.config, &blocks, whole);
            self.ordered = true;
        }
    }

    /// Speaks with the helper, without waiting.
    fn exchange(&mut self) {
        let Some(helper) = &mut self.helper else { return };
        let mut words = Vec::new();
        let flushed = helper.flush();
        let heard = helper.receive(|word| words.push(word));
        for word in words {
            self.hear(word);
        }
        match (flushed, heard) {
            (_, Ok(true)) => {
                if self.asked_at.is_some_and(|asked| asked.elapsed() >= DEAF_AFTER) {
                    self.lose_helper(&format!("took no order for {} s and is ended", DEAF_AFTER.as_secs()), "");
                }
            }
            (_, Ok(false)) => self.lose_helper("ended unasked", ""),
            (_, Err(error)) => self.lose_helper("ended unasked", &format!("{error}, ")),
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Ready => {}
            Word::Pong => self.asked_at = None,
            Word::Response(Response::Dropped { commands }) => self.ends.shared.drop_commands(commands),
            Word::Response(response) => {
                if let Response::Command { ended, .. } = &response {
                    self.ends.shared.commands.fetch_add(1, Ordering::Relaxed);
                    self.ends.shared.failed.fetch_add(u64::from(*ended != Ended::Success), Ordering::Relaxed);
                }
                self.journal.notify(Notice::Response(response));
            }
            Word::Name { address, name } => (self.on_name)(address, name),
            Word::ListWanted => self.ends.shared.list_wanted.store(true, Ordering::Relaxed),
            Word::Warning(text) => self.journal.notify(Notice::Warning(text)),
            Word::Error(text) => self.journal.notify(Notice::Error(text)),
        }
    }

    fn tell_dropped(&mut self, at_once: bool) {
        if !at_once && self.dropped_told.is_some_and(|told| told.elapsed() < DROPPED_TOLD_EVERY) {
            return;
        }
        let commands = self.ends.shared.dropped.swap(0, Ordering::Relaxed);
        if commands > 0 {
            self.journal.notify(Notice::Response(Response::Dropped { commands }));
            self.dropped_told = Some(Instant::now());
        }
    }

    /// The last orders.
    fn stop(&mut self, cleared: bool) {
        self.take_items();
        if let Some(helper) = &mut self.helper {
            if cleared && has_files(&self.config) {
                list(helper, &self.config, &[], true);
            }
            helper.send(&Order::End(GRACE));
        }
        let deadline = Instant::now() + GRACE + LAST_ORDERS;
        while let Some(helper) = &mut self.helper {
            let mut words = Vec::new();
            let flushed = helper.flush();
            let heard = helper.receive(|word| words.push(word));
            let is_over = !matches!(heard, Ok(true)) || Instant::now() >= deadline;
            let pause = if flushed.is_ok() && helper.unsent() > 0 { Duration::from_millis(10) } else { Duration::from_millis(200) };
            if !is_over {
                helper.wait(pause);
            }
            for word in words {
                self.hear(word);
            }
            if is_over {
                break;
            }
        }
        self.ends.shared.up.store(false, Ordering::Relaxed);
        if let Some(helper) = self.helper.take() {
            helper.end();
        }
        process::clear();
        self.tell_dropped(true);
    }
}
