//! The thread that owns the helper process: starts and restarts it, sends orders, and takes its
//! messages.
//!
//! It may wait for the helper and for the packet thread, each for a bounded time. The packet thread
//! never waits for it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::orders::{blocked, has_files, list, run, settings, test_block, test_run};
use super::shared::{BlockList, GRACE, Item, LAST_ORDERS_TIMEOUT, Request, Shared};
use super::{HelperClient, QUEUE, wanted};
use crate::backoff::Backoff;
use crate::config::{Config, Mode};
use crate::helper::process::{OWN_PROGRAM, Process, RESPONSES};
use crate::helper::protocol::{Message, Order, TEST_TARGET};
use crate::journal::{Ended, JournalHandle, Notice, Response};
use crate::sys::mailbox::{self, Inbox};
use crate::sys::{self, poll};

/// Blocks in the list for the helper: more than its files hold.
const LIST_MAX: usize = 20_000;

/// Least time between two lists: each takes the packet thread some milliseconds.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// Bytes that wait for a helper that reads nothing, before the queue fills.
const UNSENT_MAX: usize = 256 << 10;

/// Least time between two reports of dropped commands.
const DROPPED_REPORT_EVERY: Duration = Duration::from_secs(10);

/// Delay before the first restart of a dead helper; doubles with each further one.
const FIRST_RESTART_DELAY: Duration = Duration::from_millis(250);
/// Longest delay between two restarts.
const LONGEST_RESTART_DELAY: Duration = Duration::from_secs(60);

/// A helper that takes no order for this long hangs, was stopped, or its machine is overloaded: it
/// is replaced. Taking an order needs no disk, name server or command.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(20);

/// The thread's state.
struct Worker {
    shared: Arc<Shared>,
    items: Inbox<Item>,
    requests: Inbox<Request>,
    config: Config,
    journal: JournalHandle,
    blocks: BlockList,
    helper: Option<Process>,
    backoff: Backoff,
    restart_at: Instant,
    list_at: Instant,
    dropped_reported_at: Option<Instant>,
    /// The liveness check that is not answered yet.
    asked_at: Option<Instant>,
    /// Whether it got orders since its last answer.
    ordered: bool,
    /// The line of the host of tests is to be taken out of hosts.deny when it is there.
    is_testing: bool,
}

impl HelperClient {
    /// Starts the helper and the thread that owns it. A helper that cannot be started is reported
    /// and retried.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(config: &Config, journal: JournalHandle, blocks: BlockList) -> io::Result<Self> {
        // A killed helper's orphans become this process's children.
        sys::process::adopt_orphans()?;
        let shared = Arc::new(Shared::default());
        shared.wanted.store(wanted(config), Ordering::Relaxed);
        let (items, item_inbox) = mailbox::with_capacity(QUEUE)?;
        let (requests, request_inbox) = mailbox::link()?;
        let now = Instant::now();
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            items: item_inbox,
            requests: request_inbox,
            config: config.clone(),
            journal,
            blocks,
            helper: None,
            backoff: Backoff::new(FIRST_RESTART_DELAY, LONGEST_RESTART_DELAY),
            restart_at: now,
            list_at: now,
            dropped_reported_at: None,
            asked_at: None,
            ordered: false,
            is_testing: false,
        };
        worker.start_helper();
        std::thread::Builder::new().name("helper".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, items, requests })
    }
}

impl Worker {
    /// Runs until it is stopped.
    fn run(mut self) {
        loop {
            if self.helper.is_none() && Instant::now() >= self.restart_at {
                self.start_helper();
            }
            self.items.waker.clear();
            self.requests.waker.clear();
            while let Some(request) = self.requests.next() {
                match request {
                    Request::Configure(config, answer) => {
                        self.config = *config;
                        self.send_configuration();
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
            self.send_and_receive();
            self.check_liveness();
            self.report_dropped(false);
            self.wait();
        }
    }

    fn wait(&self) {
        let is_list_due = self.takes_orders() && self.shared.list_wanted.load(Ordering::Relaxed);
        let has_dropped = self.shared.dropped.load(Ordering::Relaxed) > 0;
        let wake_at = [
            self.helper.is_none().then_some(self.restart_at),
            is_list_due.then_some(self.list_at),
            self.asked_at.map(|asked| asked + UNRESPONSIVE_AFTER),
            self.dropped_reported_at.filter(|_| has_dropped).map(|at| at + DROPPED_REPORT_EVERY),
        ];
        let timeout = wake_at
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.items.waker.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.requests.waker.as_fd(), PollFlags::IN),
        ];
        if let Some(helper) = &self.helper {
            let out = if helper.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(helper.as_fd(), PollFlags::IN | out));
        }
        // Ignore the result: the next round finds out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    /// Whether the helper runs and takes orders.
    fn takes_orders(&self) -> bool {
        self.helper.as_ref().is_some_and(|helper| helper.unsent() < UNSENT_MAX)
    }

    /// Sends an order.
    fn order(&mut self, order: &Order) {
        if let Some(helper) = &mut self.helper {
            helper.send(order);
            self.ordered = true;
        }
    }

    /// Starts a liveness check of a helper that got orders.
    fn check_liveness(&mut self) {
        if self.helper.is_some() && self.ordered && self.asked_at.is_none() {
            self.order(&Order::Ping);
            self.ordered = false;
            self.asked_at = Some(Instant::now());
        }
    }

    /// Starts the helper; a failure is reported, and the start is retried later.
    fn start_helper(&mut self) {
        let as_root = Process::connect(Path::new(RESPONSES));
        let started = as_root.and_then(|helper| match helper {
            Some(helper) => Ok(helper),
            None => Process::start(Path::new(OWN_PROGRAM)),
        });
        match started {
            Ok(helper) => {
                self.helper = Some(helper);
                self.send_configuration();
                self.shared.up.store(true, Ordering::Relaxed);
                self.list_at = Instant::now();
            }
            Err(error) => {
                self.restart_at = Instant::now() + self.backoff.fail();
                self.journal
                    .notify(Notice::Error(format!("the helper process cannot be started: {error}; no command is run and no name found until it is")));
            }
        }
    }

    /// Ends a helper that died or broke the protocol: `what` happened, and `why`, which is shown in
    /// brackets.
    fn lose_helper(&mut self, what: &str, why: &str) {
        let Some(helper) = self.helper.take() else { return };
        (self.asked_at, self.ordered) = (None, false);
        self.shared.up.store(false, Ordering::Relaxed);
        // After such a long run the fault is not one that recurs at once.
        if helper.age() >= LONGEST_RESTART_DELAY {
            self.backoff.reset();
        }
        let ended = helper.end();
        let is_clear = sys::process::end_children(|_| false);
        let rest = if is_clear { "" } else { "; some of what it had started cannot be killed" };
        self.restart_at = Instant::now() + self.backoff.fail();
        self.journal.notify(Notice::Error(format!(
            "the helper process {what} ({why}{ended}); commands that it ran or was to run are lost{rest}. Blocks go on, it is started again"
        )));
    }

    fn send_configuration(&mut self) {
        self.order(&Order::Configure(Box::new(settings(&self.config))));
        // Blocks may now have other lines in files, or none.
        self.shared.list_wanted.store(has_files(&self.config), Ordering::Relaxed);
    }

    /// Sends queued events, as long as the helper takes them.
    fn take_items(&mut self) {
        while self.takes_orders()
            && let Some(item) = self.items.next()
        {
            let config = &self.config;
            match item {
                Item::Run { source, port, reason, state } => {
                    self.order(&Order::Run(run(config, source, port, &reason, state)))
                }
                Item::NotRun(source) => {
                    log::warn!(
                        "respond.command is not run for {source}: it follows a block, and the kernel refused that one"
                    );
                }
                Item::Blocked(block) => self.order(&Order::Blocked(blocked(config, &block))),
                Item::Unblocked(source) => self.order(&Order::Unblocked(source.to_string())),
                Item::Test => self.test(),
                Item::Incident(incident) => {
                    let missed = self.shared.missed.swap(0, Ordering::Relaxed);
                    if missed > 0 {
                        self.order(&Order::Missed(missed));
                    }
                    self.order(&Order::Incident(incident));
                }
                Item::Resolve(address) => self.order(&Order::Resolve(address)),
                Item::LookUp(name) => self.order(&Order::LookUp(name)),
            }
        }
    }

    fn test(&mut self) {
        if !self.config.respond.command.is_empty() {
            self.order(&Order::Run(test_run(&self.config)));
        }
        if self.config.respond.hosts_deny.enabled {
            self.order(&Order::Blocked(test_block()));
            self.is_testing = true;
        }
        if self.config.notify.is_on() {
            self.order(&Order::TestNotifications);
        }
    }

    /// Sends the list of all blocks, if it is needed and due.
    fn send_list(&mut self) {
        if !self.takes_orders()
            || Instant::now() < self.list_at
            || !self.shared.list_wanted.swap(false, Ordering::Relaxed)
        {
            return;
        }
        self.list_at = Instant::now() + LIST_EVERY;
        let is_observing = self.config.mode == Mode::Observe;
        let listed = if is_observing { Some(Vec::new()) } else { (self.blocks)(LIST_MAX + 1) };
        let Some(blocks) = listed else {
            return self.shared.list_wanted.store(true, Ordering::Relaxed);
        };
        let whole = blocks.len() <= LIST_MAX;
        if !whole {
            log::warn!(
                "more than {LIST_MAX} hosts and networks are blocked: files that show what is blocked do not show all"
            );
        }
        if let Some(helper) = &mut self.helper {
            list(helper, &self.config, &blocks, whole);
            self.ordered = true;
        }
    }

    /// Sends and receives without waiting; `Ok(false)`: the helper has ended. `Err` likewise.
    fn exchange(&mut self) -> io::Result<bool> {
        let Some(helper) = &mut self.helper else { return Ok(true) };
        let mut messages = Vec::new();
        // If the helper has ended, receiving shows it, after its last messages.
        let _ = helper.flush();
        let received = helper.receive(|message| messages.push(message));
        for message in messages {
            self.on_message(message);
        }
        received
    }

    fn send_and_receive(&mut self) {
        match self.exchange() {
            Ok(true) => {
                if self.asked_at.is_some_and(|asked| asked.elapsed() >= UNRESPONSIVE_AFTER) {
                    let seconds = UNRESPONSIVE_AFTER.as_secs();
                    self.lose_helper(&format!("took no order for {seconds} s and is ended"), "");
                }
            }
            Ok(false) => self.lose_helper("ended unasked", ""),
            Err(error) => self.lose_helper("ended unasked", &format!("{error}, ")),
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Ready => {}
            Message::Pong => self.asked_at = None,
            Message::Response(Response::Dropped { commands }) => {
                self.shared.drop_commands(commands)
            }
            Message::Response(response) => {
                if let Response::Command { ended, .. } = &response {
                    self.shared.commands.fetch_add(1, Ordering::Relaxed);
                    self.shared
                        .failed
                        .fetch_add(u64::from(*ended != Ended::Success), Ordering::Relaxed);
                }
                let is_tested =
                    matches!(&response, Response::Denied { target, .. } if target == TEST_TARGET);
                self.journal.notify(Notice::Response(response));
                if is_tested && std::mem::take(&mut self.is_testing) {
                    self.order(&Order::Unblocked(TEST_TARGET.to_owned()));
                }
            }
            Message::Name { address, name } => self.journal.name_found(address, name),
            Message::Addresses(found) => self.shared.take_addresses(found),
            Message::Notified(status) => self.shared.set_notified(status),
            Message::ListWanted => self.shared.list_wanted.store(true, Ordering::Relaxed),
            Message::Warning(text) => self.journal.notify(Notice::Warning(text)),
            Message::Error(text) => self.journal.notify(Notice::Error(text)),
        }
    }

    fn report_dropped(&mut self, at_once: bool) {
        if !at_once
            && self.dropped_reported_at.is_some_and(|at| at.elapsed() < DROPPED_REPORT_EVERY)
        {
            return;
        }
        let commands = self.shared.dropped.swap(0, Ordering::Relaxed);
        if commands > 0 {
            self.journal.notify(Notice::Response(Response::Dropped { commands }));
            self.dropped_reported_at = Some(Instant::now());
        }
    }

    /// Sends the last orders and waits for the end.
    fn stop(&mut self, cleared: bool) {
        self.take_items();
        if let Some(helper) = &mut self.helper {
            if cleared && has_files(&self.config) {
                list(helper, &self.config, &[], true);
            }
            helper.send(&Order::End(GRACE));
        }
        let deadline = Instant::now() + GRACE + LAST_ORDERS_TIMEOUT;
        while matches!(self.exchange(), Ok(true))
            && let Some(helper) = &self.helper
            && Instant::now() < deadline
        {
            helper.wait(Duration::from_millis(if helper.unsent() > 0 { 10 } else { 200 }));
        }
        self.shared.up.store(false, Ordering::Relaxed);
        if let Some(helper) = self.helper.take() {
            helper.end();
        }
        sys::process::end_children(|_| false);
        self.report_dropped(true);
    }
}
