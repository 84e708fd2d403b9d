//! Errands: what is done beside the block, by the helper process. A thread that owns it, and the way there for everybody else.
//!
//! The packet thread hands over what happened and never waits: the queue is bounded, and what does not fit is counted and told. When the helper
//! dies it is started again, ever more slowly; blocks go on all the while. Text files heal: after an overflow, at start and after each new start of
//! the helper it gets the list of all blocks.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};

use super::link::{self, Answer, Inbox, Link};
use super::sentry::{self, Standing};
use crate::config::{CommandWhen, Config, Mode, PortMode, ProtocolAction};
use crate::engine::{Action, NotBlocked, Reason, Report, Subject};
use crate::helper::process::{self, Process};
use crate::helper::protocol::{Blocked, HostsDeny, LIST_PIECE, Order, Run, Settings, Word};
use crate::journal::{Ended, Event, JournalHandle, Notice, Response, format};
use crate::probe::{Port, Transport};
use crate::sys::poll;
use crate::sys::wake::Waker;

/// What happened that waits for the thread: a few hundred bytes each.
pub const QUEUE: usize = 1024;

/// Blocks that the helper is told of when it gets the list of all: its files hold fewer.
const LIST_MAX: usize = 20_000;

/// The list is made at most this often: it keeps the packet thread for some milliseconds.
const LIST_EVERY: Duration = Duration::from_secs(2);

/// The packet thread answers at once, unless it takes over a large table.
const LIST_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that wait for a helper that takes none, before the queue fills.
const UNSENT_MAX: usize = 256 << 10;

/// That commands were dropped is told at most this often, with their number.
const DROPPED_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A helper that died is started again after this, twice as long each further time.
const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// But not later than this.
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// What running commands get when the daemon ends.
pub const GRACE: Duration = Duration::from_secs(2);

/// Beside that: commands are asked to end and then killed, and files are written for the last time.
const LAST_ORDERS: Duration = Duration::from_secs(4);

/// A command is run when a source is blocked: at the decision.
const BEFORE: u8 = 1;
/// A command is run when a source is blocked: after the kernel's word.
const AFTER: u8 = 2;
/// A command is run for TCP scans (and those of SCTP and bare IP) instead of a block.
const ALONE: u8 = 4;
/// Files show what is blocked.
const FILES: u8 = 8;

/// What the thread is told of.
enum Item {
    /// Run the command.
    Run { subject: Subject, port: Port, reason: Reason },
    /// The kernel refused the block, so the command that was to follow it does not run.
    NotRun(Subject),
    /// A block is in force.
    Blocked { subject: Subject, port: Option<Port>, reason: Reason, at: Timestamp },
    /// A block is over.
    Unblocked(Subject),
    /// A name is wanted.
    Resolve(IpAddr),
}

/// What the thread is asked for.
enum Request {
    /// This is in force from now on.
    Configure(Box<Config>, Answer<()>),
    /// End; `true`: and nothing is blocked any more.
    Stop(bool, Answer<()>),
}

/// What became of the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that ended or could not be started.
    pub commands: u64,
    /// Those of them that did not end with status 0.
    pub failed: u64,
    /// Those that were not run: too many were waiting.
    pub dropped: u64,
}

#[derive(Default)]
struct Shared {
    wanted: AtomicU8,
    /// The helper is there.
    up: AtomicBool,
    /// Not told yet.
    dropped: AtomicU64,
    list_wanted: AtomicBool,
    commands: AtomicU64,
    failed: AtomicU64,
    ever_dropped: AtomicU64,
}

impl Shared {
    fn drop_commands(&self, commands: u64) {
        self.dropped.fetch_add(commands, Ordering::Relaxed);
        self.ever_dropped.fetch_add(commands, Ordering::Relaxed);
    }
}

/// Takes the name of an address; `None`: it has none, or none could be had.
pub type OnName = Box<dyn Fn(IpAddr, Option<String>) + Send>;

/// The way to the thread; clones lead to the same one.
#[derive(Clone)]
pub struct Errands {
    shared: Arc<Shared>,
    queue: SyncSender<Item>,
    waker: Arc<Waker>,
    requests: Link<Request>,
}

impl Errands {
    /// Starts the helper and the thread that owns it. A helper that cannot be started is told of and tried again.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: &Config, journal: JournalHandle, sentry: Link<sentry::Command>, on_name: OnName) -> io::Result<Self> {
        process::take_charge()?;
        let shared = Arc::new(Shared::default());
        shared.wanted.store(wanted(config), Ordering::Relaxed);
        let (queue, items) = sync_channel(QUEUE);
        let waker = Arc::new(Waker::new()?);
        let (requests, inbox) = link::link()?;
        let mut keeper = Keeper {
            shared: Arc::clone(&shared),
            config: config.clone(),
            journal,
            sentry,
            on_name,
            items,
            waker: Arc::clone(&waker),
            inbox,
            helper: None,
            again: AGAIN_FIRST,
            again_at: Instant::now(),
            list_at: Instant::now(),
            dropped_told: None,
        };
        keeper.start_helper();
        std::thread::Builder::new().name("errands".to_owned()).spawn(move || keeper.run())?;
        Ok(Self { shared, queue, waker, requests })
    }

    /// Orders of the engine that are about to be carried out. Never waits.
    pub fn on_orders(&self, orders: &[Action]) {
        if !self.wants(BEFORE) {
            return;
        }
        for action in orders {
            // A block that was there before is renewed: it had its command.
            if let Action::Report(Report::Scan { source, probe, reason, not_blocked: None }) = action
                && orders.iter().any(|order| is_new_block(order, Subject::Host(*source)))
            {
                self.push(Item::Run { subject: Subject::Host(*source), port: probe.port, reason: reason.clone() });
            }
        }
    }

    /// The kernel refused the block of `subject`, one of these orders. Never waits.
    pub fn on_refusal(&self, orders: &[Action], subject: Subject) {
        if self.wants(AFTER) && orders.iter().any(|order| is_new_block(order, subject)) {
            self.push(Item::NotRun(subject));
        }
    }

    /// Something has happened. Never waits.
    pub fn on_report(&self, report: &Report) {
        match report {
            Report::Scan { source, probe, reason, not_blocked: Some(NotBlocked::TcpCommand | NotBlocked::UdpCommand) } if self.wants(ALONE) => {
                self.push(Item::Run { subject: Subject::Host(*source), port: probe.port, reason: reason.clone() });
            }
            Report::Blocked { subject, port, reason, renewed: false, .. } => {
                // Blocks by hand have no port, nor has a prefix of another length that takes the place of one that was blocked.
                if let (Some(port), Some(_), true) = (port, reason.scan(), self.wants(AFTER)) {
                    self.push(Item::Run { subject: *subject, port: *port, reason: reason.clone() });
                }
                if self.wants(FILES) {
                    self.push(Item::Blocked { subject: *subject, port: *port, reason: reason.clone(), at: Timestamp::now() });
                }
            }
            Report::Unblocked { subject, .. } if self.wants(FILES) => self.push(Item::Unblocked(*subject)),
            _ => {}
        }
    }

    /// Asks for the name of an address; the answer goes to [`OnName`]. Never waits; `false`: no answer will come.
    pub fn resolve(&self, address: IpAddr) -> bool {
        if !self.shared.up.load(Ordering::Relaxed) || self.queue.try_send(Item::Resolve(address)).is_err() {
            return false;
        }
        self.waker.wake();
        true
    }

    /// Puts a new configuration in force.
    pub fn reconfigure(&self, config: &Config) {
        self.shared.wanted.store(wanted(config), Ordering::Relaxed);
        let config = Box::new(config.clone());
        if self.requests.ask(|answer| Request::Configure(config, answer)).is_err() {
            log::error!("the helper has the old configuration: its thread does not answer");
        }
    }

    /// Lets running commands end, for [`GRACE`], and then ends them and the helper. `cleared`: nothing is blocked any more, and files shall say so.
    pub fn stop(&self, cleared: bool) {
        self.shared.wanted.store(0, Ordering::Relaxed);
        if self.requests.ask_within(GRACE + LAST_ORDERS * 2, |answer| Request::Stop(cleared, answer)).is_err() {
            log::error!("the helper was not ended in order");
        }
    }

    /// What became of the commands so far.
    pub fn counts(&self) -> Counts {
        Counts {
            commands: self.shared.commands.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            dropped: self.shared.ever_dropped.load(Ordering::Relaxed),
        }
    }

    /// Whether the helper is there.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    fn wants(&self, what: u8) -> bool {
        self.shared.wanted.load(Ordering::Relaxed) & what != 0
    }

    fn push(&self, item: Item) {
        if let Err(refused) = self.queue.try_send(item) {
            let (std::sync::mpsc::TrySendError::Full(item) | std::sync::mpsc::TrySendError::Disconnected(item)) = refused;
            match item {
                Item::Run { .. } => self.shared.drop_commands(1),
                Item::Blocked { .. } | Item::Unblocked(_) => self.shared.list_wanted.store(true, Ordering::Relaxed),
                Item::NotRun(_) | Item::Resolve(_) => {}
            }
        }
        self.waker.wake();
    }
}

/// Whether an action orders a block of `subject` for a scan where there is none.
fn is_new_block(action: &Action, subject: Subject) -> bool {
    matches!(action, Action::Block { subject: of, reason: Reason::Scan { .. }, renew: false, .. } if *of == subject)
}

/// What a configuration makes of reports.
fn wanted(config: &Config) -> u8 {
    // Observing is reporting only.
    if config.mode == Mode::Observe {
        return 0;
    }
    let mut wanted = 0;
    if !config.respond.command.is_empty() {
        wanted |= match config.respond.command_when {
            CommandWhen::Before => BEFORE,
            CommandWhen::After => AFTER,
        };
        if [&config.tcp, &config.udp].iter().any(|protocol| protocol.action == ProtocolAction::Command) {
            wanted |= ALONE;
        }
    }
    if has_files(config) {
        wanted |= FILES;
    }
    wanted
}

fn has_files(config: &Config) -> bool {
    config.respond.hosts_deny.enabled || config.blocked_file.is_some()
}

fn settings(config: &Config) -> Settings {
    let deny = &config.respond.hosts_deny;
    Settings {
        command: config.respond.command.clone(),
        command_timeout: config.respond.command_timeout,
        hosts_deny: deny.enabled.then(|| HostsDeny { path: deny.path.clone(), line: deny.line.clone() }),
        blocked_file: config.blocked_file.clone(),
        modes: [Transport::Tcp, Transport::Udp].into_iter().filter_map(|of| mode_word(config, of)).map(str::to_owned).collect(),
    }
}

/// The classic word of the mode in which ports of this transport are watched; SCTP and bare IP go with TCP.
fn mode_word(config: &Config, transport: Transport) -> Option<&'static str> {
    let is_udp = transport == Transport::Udp;
    let mode = if is_udp { config.udp.mode } else { config.tcp.mode };
    Some(match (mode, is_udp) {
        (PortMode::Off, _) => return None,
        (PortMode::Connect, false) => "tcp",
        (PortMode::Stealth, false) => "stcp",
        (PortMode::Advanced, false) => "atcp",
        (PortMode::Connect, true) => "udp",
        (PortMode::Stealth, true) => "sudp",
        (PortMode::Advanced, true) => "audp",
    })
}

/// The transport of the ports that a scan touched.
fn transport_of(port: Option<Port>, reason: &Reason) -> Option<Transport> {
    use crate::probe::ScanKind;
    let scan = reason.scan()?;
    Some(port.map_or(if scan == ScanKind::Udp { Transport::Udp } else { Transport::Tcp }, |port| port.transport))
}

fn run(config: &Config, subject: Subject, port: Port, reason: &Reason) -> Run {
    Run {
        target: subject.display(config.block.ipv6_prefix).to_string(),
        port: port.number,
        // Off only when a reload came between: then no word is true.
        mode: mode_word(config, port.transport).unwrap_or_default().to_owned(),
        protocol: port.transport.name().to_owned(),
        scan: reason.scan().map(|scan| scan.name().to_owned()).unwrap_or_default(),
        reason: reason.to_string(),
    }
}

/// A block as files show it. One that was taken over from an earlier run has a line only if it is in the file already: nobody knows its port.
fn blocked(config: &Config, subject: Subject, port: Option<Port>, reason: &Reason, at: Timestamp) -> Blocked {
    let event =
        Event { at, notice: Notice::Engine(Report::Blocked { subject, port, timeout: None, reason: reason.clone(), renewed: false }), name: None };
    let style = format::Style { format: config.log.format, ipv6_prefix: config.block.ipv6_prefix };
    Blocked {
        target: subject.display(config.block.ipv6_prefix).to_string(),
        mode: transport_of(port, reason).and_then(|transport| mode_word(config, transport)).map(str::to_owned),
        at: at.as_second(),
        line: port.and_then(|_| format::history(&event, &style, &jiff::tz::TimeZone::system())),
    }
}

/// The thread.
struct Keeper {
    shared: Arc<Shared>,
    config: Config,
    journal: JournalHandle,
    sentry: Link<sentry::Command>,
    on_name: OnName,
    items: Receiver<Item>,
    waker: Arc<Waker>,
    inbox: Inbox<Request>,
    helper: Option<Process>,
    /// How long the next start is put off.
    again: Duration,
    again_at: Instant,
    list_at: Instant,
    dropped_told: Option<Instant>,
}

impl Keeper {
    fn run(mut self) {
        loop {
            if self.helper.is_none() && Instant::now() >= self.again_at {
                self.start_helper();
            }
            self.waker.clear();
            self.inbox.waker.clear();
            while let Some(request) = self.inbox.next() {
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
            self.tell_dropped(false);
            self.wait();
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let mut wake_at = Vec::new();
        if self.helper.is_none() {
            wake_at.push(self.again_at);
        } else if self.shared.list_wanted.load(Ordering::Relaxed) {
            wake_at.push(self.list_at);
        }
        if self.shared.dropped.load(Ordering::Relaxed) > 0
            && let Some(told) = self.dropped_told
        {
            wake_at.push(told + DROPPED_TOLD_EVERY);
        }
        let timeout = wake_at.into_iter().min().map(|at| at.saturating_duration_since(now));
        let mut fds =
            vec![PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(self.inbox.waker.as_fd(), PollFlags::IN)];
        if let Some(helper) = &self.helper {
            let out = if helper.unsent() > 0 { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(helper.as_fd(), PollFlags::IN | out));
        }
        // Whatever it says, the round that follows finds out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    fn start_helper(&mut self) {
        match Process::start(process::own_program()) {
            Ok(mut helper) => {
                helper.send(&Order::Configure(Box::new(settings(&self.config))));
                self.helper = Some(helper);
                self.shared.up.store(true, Ordering::Relaxed);
                self.shared.list_wanted.store(has_files(&self.config), Ordering::Relaxed);
                self.list_at = Instant::now();
            }
            Err(error) => {
                self.put_off();
                self.journal
                    .tell(Notice::Error(format!("the helper process cannot be started: {error}; no command is run and no name found until it is")));
            }
        }
    }

    fn put_off(&mut self) {
        self.again_at = Instant::now() + self.again;
        self.again = (self.again * 2).min(AGAIN_LAST);
    }

    /// The helper is gone, or makes no sense any more.
    fn lose_helper(&mut self, why: &str) {
        let Some(helper) = self.helper.take() else { return };
        self.shared.up.store(false, Ordering::Relaxed);
        // One that held out for so long is no sign of a fault that comes back at once.
        if helper.age() >= AGAIN_LAST {
            self.again = AGAIN_FIRST;
        }
        let ended = helper.end();
        let all = if process::clear() { "" } else { "; some of what it had started cannot be killed" };
        self.put_off();
        self.journal.tell(Notice::Error(format!(
            "the helper process ended unasked ({why}{ended}); commands that it ran or was to run are lost{all}. Blocks go on, it is started again"
        )));
    }

    fn configure(&mut self, config: Config) {
        self.config = config;
        if let Some(helper) = &mut self.helper {
            helper.send(&Order::Configure(Box::new(settings(&self.config))));
        }
        // What is blocked may have other names in files now, or none.
        self.shared.list_wanted.store(has_files(&self.config), Ordering::Relaxed);
    }

    /// Hands over what happened, as long as the helper takes it.
    fn take_items(&mut self) {
        while let Some(helper) = &mut self.helper
            && helper.unsent() < UNSENT_MAX
            && let Ok(item) = self.items.try_recv()
        {
            let config = &self.config;
            match item {
                Item::Run { subject, port, reason } => helper.send(&Order::Run(run(config, subject, port, &reason))),
                Item::NotRun(subject) => {
                    let name = subject.display(config.block.ipv6_prefix);
                    log::warn!("respond.command is not run for {name}: it follows a block, and the kernel refused that one");
                }
                Item::Blocked { subject, port, reason, at } => helper.send(&Order::Blocked(blocked(config, subject, port, &reason, at))),
                Item::Unblocked(subject) => helper.send(&Order::Unblocked(subject.display(config.block.ipv6_prefix).to_string())),
                Item::Resolve(address) => helper.send(&Order::Resolve(address)),
            }
        }
    }

    /// Gives the helper the list of all blocks, if it needs it and it is time.
    fn send_list(&mut self) {
        let Some(helper) = &mut self.helper else { return };
        if Instant::now() < self.list_at || helper.unsent() >= UNSENT_MAX || !self.shared.list_wanted.swap(false, Ordering::Relaxed) {
            return;
        }
        self.list_at = Instant::now() + LIST_EVERY;
        let blocks = if self.config.mode == Mode::Observe {
            Vec::new()
        } else {
            match self.sentry.ask_within(LIST_PATIENCE, |answer| sentry::Command::Blocks(LIST_MAX + 1, answer)) {
                Ok(blocks) => blocks,
                Err(_) => {
                    self.shared.list_wanted.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        let whole = blocks.len() <= LIST_MAX;
        if !whole {
            log::warn!("more than {LIST_MAX} hosts and networks are blocked: files that show what is blocked do not show all");
        }
        list(helper, &self.config, &blocks, whole);
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
            (_, Ok(true)) => {}
            (_, Ok(false)) => self.lose_helper(""),
            (_, Err(error)) => self.lose_helper(&format!("{error}, ")),
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Ready => {}
            Word::Response(Response::Dropped { commands }) => self.shared.drop_commands(commands),
            Word::Response(response) => {
                if let Response::Command { ended, .. } = &response {
                    self.shared.commands.fetch_add(1, Ordering::Relaxed);
                    self.shared.failed.fetch_add(u64::from(*ended != Ended::Success), Ordering::Relaxed);
                }
                self.journal.tell(Notice::Response(response));
            }
            Word::Name { address, name } => (self.on_name)(address, name),
            Word::ListWanted => self.shared.list_wanted.store(true, Ordering::Relaxed),
            Word::Warning(text) => self.journal.tell(Notice::Warning(text)),
            Word::Error(text) => self.journal.tell(Notice::Error(text)),
        }
    }

    fn tell_dropped(&mut self, at_once: bool) {
        if !at_once && self.dropped_told.is_some_and(|told| told.elapsed() < DROPPED_TOLD_EVERY) {
            return;
        }
        let commands = self.shared.dropped.swap(0, Ordering::Relaxed);
        if commands > 0 {
            self.journal.tell(Notice::Response(Response::Dropped { commands }));
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
        self.shared.up.store(false, Ordering::Relaxed);
        if let Some(helper) = self.helper.take() {
            helper.end();
        }
        process::clear();
        self.tell_dropped(true);
    }
}

/// Sends the list of all blocks, in pieces.
fn list(helper: &mut Process, config: &Config, blocks: &[Standing], whole: bool) {
    let now = Timestamp::now();
    let row = |standing: &Standing| {
        let at = now.checked_sub(standing.age).unwrap_or(now);
        blocked(config, standing.subject, standing.port, &standing.reason, at)
    };
    let pieces = blocks.len().div_ceil(LIST_PIECE).max(1);
    for piece in 0..pieces {
        let rows = blocks.iter().skip(piece * LIST_PIECE).take(LIST_PIECE).map(row).collect();
        helper.send(&Order::List { first: piece == 0, last: piece + 1 == pieces, whole, blocks: rows });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Source;
    use crate::probe::{Probe, ScanKind};

    /// The packet thread's end without the thread, and the items that come out.
    fn errands(config: &Config) -> (Errands, Receiver<Item>) {
        let shared = Arc::new(Shared::default());
        shared.wanted.store(wanted(config), Ordering::Relaxed);
        let (queue, items) = sync_channel(4);
        let (requests, _) = link::link().unwrap();
        (Errands { shared, queue, waker: Arc::new(Waker::new().unwrap()), requests }, items)
    }

    fn config(when: CommandWhen) -> Config {
        let mut config = Config::default();
        config.respond.command = vec!["/bin/true".to_owned()];
        config.respond.command_when = when;
        config
    }

    const PORT: Port = Port { transport: Transport::Tcp, number: 7 };

    fn source() -> Source {
        Source::of("192.0.2.7".parse().unwrap(), 64)
    }

    fn reason() -> Reason {
        Reason::Scan { scan: ScanKind::Syn, proven: false, detail: "3 ports".into() }
    }

    fn scan(not_blocked: Option<NotBlocked>) -> Report {
        let address = source().address();
        let probe = Probe { source: address, destination: address, port: PORT, scan: ScanKind::Syn, imitable: false, ip_options: false };
        Report::Scan { source: source(), probe, reason: reason(), not_blocked }
    }

    fn block(renew: bool) -> Action {
        Action::Block { subject: Subject::Host(source()), timeout: None, reason: reason(), renew }
    }

    fn blocked_report(port: Option<Port>, reason: Reason, renewed: bool) -> Report {
        Report::Blocked { subject: Subject::Host(source()), port, timeout: None, reason, renewed }
    }

    fn runs(items: &Receiver<Item>) -> usize {
        items.try_iter().filter(|item| matches!(item, Item::Run { .. })).count()
    }

    #[test]
    fn before_is_at_the_decision_and_only_for_a_new_block() {
        let (errands, items) = errands(&config(CommandWhen::Before));
        errands.on_orders(&[Action::Report(scan(None)), block(false)]);
        errands.on_report(&scan(None));
        errands.on_report(&blocked_report(Some(PORT), reason(), false));
        assert_eq!(runs(&items), 1);
        errands.on_orders(&[Action::Report(scan(None)), block(true)]);
        errands.on_orders(&[block(false)]);
        assert_eq!(runs(&items), 0, "a proven scan of a source that is blocked as unproven, and a refused block that is tried again");
    }

    #[test]
    fn after_is_at_the_kernels_word_and_neither_for_renewals_nor_by_hand() {
        let (errands, items) = errands(&config(CommandWhen::After));
        errands.on_orders(&[Action::Report(scan(None)), block(false)]);
        errands.on_report(&scan(None));
        assert_eq!(runs(&items), 0);
        errands.on_report(&blocked_report(Some(PORT), reason(), false));
        assert_eq!(runs(&items), 1);
        errands.on_report(&blocked_report(Some(PORT), reason(), true));
        errands.on_report(&blocked_report(None, Reason::Manual("x".into()), false));
        errands.on_report(&blocked_report(None, reason(), false));
        assert_eq!(runs(&items), 0);
    }

    #[test]
    fn a_refused_block_runs_nothing_and_says_so_once_for_the_scan() {
        let (errands, items) = errands(&config(CommandWhen::After));
        errands.on_refusal(&[block(false)], Subject::Host(source()));
        assert!(matches!(items.try_recv(), Ok(Item::NotRun(_))));
        errands.on_refusal(&[block(true)], Subject::Host(source()));
        assert!(items.try_recv().is_err());
    }

    #[test]
    fn the_command_alone_runs_where_the_action_is_command_and_for_nobody_who_is_never_blocked() {
        let mut config = config(CommandWhen::After);
        config.udp.action = ProtocolAction::Command;
        let (errands, items) = errands(&config);
        errands.on_report(&scan(Some(NotBlocked::UdpCommand)));
        assert_eq!(runs(&items), 1);
        for why in NotBlocked::ALL.into_iter().filter(|why| !matches!(why, NotBlocked::UdpCommand | NotBlocked::TcpCommand)) {
            errands.on_report(&scan(Some(why)));
        }
        assert_eq!(runs(&items), 0);
    }

    #[test]
    fn observe_mode_runs_nothing() {
        let mut config = config(CommandWhen::Before);
        config.tcp.action = ProtocolAction::Command;
        config.respond.hosts_deny.enabled = true;
        assert_ne!(wanted(&config), 0);
        config.mode = Mode::Observe;
        assert_eq!(wanted(&config), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let mut config = config(CommandWhen::After);
        config.respond.hosts_deny.enabled = true;
        let (errands, _items) = errands(&config);
        for _ in 0..10 {
            errands.on_report(&blocked_report(Some(PORT), reason(), false));
        }
        assert_eq!(errands.counts().dropped, 8, "of ten commands and ten lines four fit");
        assert!(errands.shared.list_wanted.load(Ordering::Relaxed));
    }

    #[test]
    fn each_mode_has_its_classic_word() {
        let mut config = Config::default();
        let mut word = |mode, transport| {
            (config.tcp.mode, config.udp.mode) = (mode, mode);
            mode_word(&config, transport)
        };
        assert_eq!(word(PortMode::Connect, Transport::Tcp), Some("tcp"));
        assert_eq!(word(PortMode::Stealth, Transport::Sctp), Some("stcp"));
        assert_eq!(word(PortMode::Advanced, Transport::Ip), Some("atcp"));
        assert_eq!(word(PortMode::Connect, Transport::Udp), Some("udp"));
        assert_eq!(word(PortMode::Stealth, Transport::Udp), Some("sudp"));
        assert_eq!(word(PortMode::Advanced, Transport::Udp), Some("audp"));
        assert_eq!(word(PortMode::Off, Transport::Tcp), None);
    }
}
