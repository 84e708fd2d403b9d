//! The packet thread: takes packets, asks the engine, has its orders carried out, and answers commands in between.
//!
//! It waits for nothing but netlink: no disk, no name, no lock that somebody else holds while waiting. What people should hear of goes to
//! the journal's queue, which never makes it wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags};

use super::court::Court;
use super::errands::Errands;
use super::link::{Answer, Inbox};
use super::takeover;
use crate::capture::nflog::{Listener, Settings};
use crate::capture::{self, PACKETS_A_WAKE, PacketSource};
use crate::config::Config;
use crate::decoy::{self, Decoy};
use crate::engine::{self, Action, AllowList, Engine, Moment, Outcome, Policy, Reason, Source, Subject};
use crate::journal::{JournalHandle, Notice};
use crate::nft::element::merge;
use crate::nft::plan::Installed;
use crate::nft::{self, Connection, Element, Key, Ruleset, SetId};
use crate::probe::{Port, Probe, Transport};
use crate::responder::{LIGHT_DUMP, NftResponder, words};
use crate::sys::{clock, poll};
use crate::wire;

/// Commands that are served before packets are looked at again.
const COMMANDS_A_WAKE: usize = 16;

/// `NF_INET_PRE_ROUTING` (linux/netfilter.h): where the decoys' rules log; all others log at input.
const PREROUTING: u8 = 0;

/// Loss is told at most this often; the count of all of it is in the status.
const LOSS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Rounds of [`PACKETS_A_WAKE`] packets that a group is emptied in before it is left: more than its receive buffer holds.
const DRAINS_MAX: usize = 256;

/// Blocks whose beginning is told: more would hold up packets for milliseconds. The kernel's own times serve for the rest.
const SINCE_MAX: usize = 20_000;

/// All that the thread needs to start or to change its ways.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Its rules.
    pub ruleset: Ruleset,
    /// What is never blocked.
    pub never_block: AllowList,
    /// Where this host's own connections start: `net.ipv4.ip_local_port_range`.
    pub ephemeral: RangeInclusive<u16>,
    /// What local services listen on now.
    pub services: Vec<Port>,
}

/// What other threads ask for.
pub enum Command {
    /// How things stand.
    Status(Answer<Figures>),
    /// What is known of an address.
    Account(IpAddr, Answer<(Option<engine::AccountView>, u32)>),
    /// Block by order of the administrator.
    Block {
        /// What.
        subject: Subject,
        /// For how long; `None`: until unblocked.
        timeout: Option<Duration>,
        /// The administrator's words.
        text: String,
        /// Done in the kernel, or why not.
        answer: Answer<Result<(), NotDone>>,
    },
    /// Unblock what lies in a network, and the source that an address belongs to.
    Unblock(IpNet, Answer<Result<Vec<Subject>, String>>),
    /// Unblock everything.
    UnblockAll(Answer<Result<usize, String>>),
    /// A new list of what is never blocked.
    Protect(AllowList, Answer<Result<(), String>>),
    /// A new configuration: in force, or refused with nothing changed.
    Reconfigure(Box<Setup>, Answer<Result<(), String>>),
    /// When each block began, as far as that is known.
    Since(Answer<HashMap<Subject, Moment>>),
    /// So many of the blocks in force, the first that come.
    Blocks(usize, Answer<Vec<Standing>>),
    /// Are you there?
    Ping(Answer<()>),
    /// End; `true`: and take the table out of the kernel. Answers how many blocks stay.
    Stop(bool, Answer<u64>),
}

/// A block that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is blocked.
    pub subject: Subject,
    /// Why.
    pub reason: Reason,
    /// The port that crossed the trigger, if that is known.
    pub port: Option<Port>,
    /// Since how long.
    pub age: Duration,
}

/// Why a block by hand was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// The engine refused: it must not be.
    Refused(String),
    /// The kernel would not.
    Failed(String),
}

/// Figures for the status.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The engine's.
    pub engine: engine::Status,
    /// The capture's.
    pub capture: capture::Statistics,
    /// Logged packets that are no probes (late answers and the like).
    pub no_probe: u64,
    /// Logged packets that no parser could read.
    pub unreadable: u64,
    /// The decoys'.
    pub decoy: decoy::Figures,
}

/// Why the thread could not start.
#[derive(Debug)]
pub enum StartError {
    /// No packets can be had.
    Capture(capture::Error),
    /// nf_tables refused.
    Nft(nft::Error),
    /// No decoys can be had.
    Decoy(decoy::Error),
    /// Another daemon listens to what the table's rules log.
    TableInUse(capture::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture(error) => error.fmt(f),
            Self::Nft(error) => error.fmt(f),
            Self::Decoy(error) => error.fmt(f),
            Self::TableInUse(_) => f.write_str("another portsentry guards this host with table inet portsentry; there can be only one"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Capture(error) => error.source(),
            Self::Nft(error) => error.source(),
            Self::Decoy(error) => error.source(),
            Self::TableInUse(error) => Some(error),
        }
    }
}

impl From<capture::Error> for StartError {
    fn from(error: capture::Error) -> Self {
        Self::Capture(error)
    }
}

impl From<nft::Error> for StartError {
    fn from(error: nft::Error) -> Self {
        Self::Nft(error)
    }
}

impl From<decoy::Error> for StartError {
    fn from(error: decoy::Error) -> Self {
        Self::Decoy(error)
    }
}

/// The packet thread's state.
pub struct Sentry {
    engine: Engine,
    responder: NftResponder,
    listener: Listener,
    decoy: Decoy,
    journal: JournalHandle,
    errands: Errands,
    config: Config,
    ruleset: Ruleset,
    never_block: AllowList,
    ephemeral: RangeInclusive<u16>,
    /// What came and was lost by way of groups that were left.
    before: capture::Statistics,
    /// Orders that are being carried out; kept, so that a packet allocates nothing.
    orders: Vec<Action>,
    no_probe: u64,
    unreadable: u64,
    told_lost: u64,
    loss_told_at: Option<Moment>,
    /// The kernel's last refusal, for the administrator whose command met it.
    refusal: Option<(Subject, String)>,
}

impl Sentry {
    /// Binds the log group, installs the rules, takes over the blocks that are in the kernel.
    ///
    /// # Errors
    /// When the group is taken, the kernel lacks something, or refuses.
    pub fn start(setup: Setup, journal: JournalHandle, errands: Errands, seed: [u64; 2]) -> Result<Self, StartError> {
        // The group first: a second daemon must find out before it touches the table of the first.
        let listener = Listener::bind(Settings::of_group(setup.config.capture.group))?;
        let mut responder = NftResponder::new(Connection::open()?);
        if let Some(group) = takeover::former_group(responder.connection(), &setup.ruleset)?
            && group != setup.config.capture.group
            && let Err(error @ capture::Error::GroupInUse { .. }) = Listener::bind(Settings::of_group(group))
        {
            return Err(StartError::TableInUse(error));
        }
        // Before the rules that lead there.
        let decoy = Decoy::open(&setup.config)?;
        let mut policy = Policy::from_config(&setup.config);
        if let Some(prefix) = takeover::former_prefix(responder.connection(), &setup.ruleset)? {
            policy.ipv6_prefix = prefix;
        }
        let mut engine = Engine::new(policy, seed);
        let mut orders = Vec::new();
        let now = now();
        engine.set_never_block(now, setup.never_block.clone(), &mut orders);
        put_in_place(responder.connection(), &setup.ruleset, &setup.never_block, &setup.services)?;
        let mut sentry = Self {
            engine,
            responder,
            listener,
            decoy,
            journal,
            errands,
            config: setup.config,
            ruleset: setup.ruleset,
            never_block: setup.never_block,
            ephemeral: setup.ephemeral,
            before: capture::Statistics::default(),
            orders,
            no_probe: 0,
            unreadable: 0,
            told_lost: 0,
            loss_told_at: None,
            refusal: None,
        };
        sentry.adopt(now)?;
        sentry.tell_lacks(&[]);
        // Prefixes of an earlier run may have another length; the engine keeps what was judged.
        sentry.engine.reconfigure(now, Policy::from_config(&sentry.config), &mut sentry.orders);
        sentry.perform(now);
        Ok(sentry)
    }

    /// Takes over the blocks that are in the kernel already.
    fn adopt(&mut self, now: Moment) -> Result<(), nft::Error> {
        let found = self.responder.blocked()?;
        let blocks = found.len();
        self.engine.adopt(now, found.into_iter().map(takeover::adopted), &mut self.orders);
        self.perform(now);
        if blocks > 0 {
            self.journal.tell(Notice::Adopted { blocks });
        }
        Ok(())
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the capture socket fails; the daemon then ends and is started again.
    pub fn run(mut self, inbox: &Inbox<Command>) -> Result<(), capture::Error> {
        let mut more = false;
        loop {
            self.wait(inbox, more);
            // One reading of the clock for all that this wake brings.
            let now = now();
            // The packets first: a handshake ends after the SYN that the rules have told of.
            more = self.take_packets(now)?;
            self.serve_decoys(now);
            self.engine.on_timer(now, &mut self.orders);
            self.perform(now);
            self.tell_loss(now);
            inbox.waker.clear();
            for _ in 0..COMMANDS_A_WAKE {
                match inbox.next() {
                    Some(Command::Stop(remove, answer)) => {
                        let _ = answer.send(self.stop(remove));
                        return Ok(());
                    }
                    Some(command) => self.obey(now, command),
                    None => break,
                }
            }
        }
    }

    fn wait(&self, inbox: &Inbox<Command>, more: bool) {
        let next = [self.engine.next_timer(), self.decoy.next_timer()].into_iter().flatten().min();
        let timeout = if more { Some(Duration::ZERO) } else { next.map(|at| at.since(now())) };
        let mut fds = [
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.decoy.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(inbox.waker.as_fd(), PollFlags::IN),
        ];
        // A signal interrupts it at worst; whatever else poll says, the round that follows finds out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    /// Packets, each judged, and stopped, before the next is looked at. Whether there are more.
    fn take_packets(&mut self, now: Moment) -> Result<bool, capture::Error> {
        let Self { engine, responder, listener, decoy, journal, errands, ephemeral, orders, no_probe, unreadable, refusal, .. } = self;
        let received = listener.receive(PACKETS_A_WAKE, &mut |packet| {
            let Ok(parsed) = wire::parse(packet.payload) else {
                *unreadable += 1;
                return;
            };
            let Ok(probe) = Probe::from_packet(&parsed, ephemeral) else {
                *no_probe += 1;
                return;
            };
            // What the decoys' rules log may be the beginning of a handshake.
            let probe = match parsed.transport {
                wire::Transport::Tcp(segment) if packet.hook == PREROUTING => decoy.hold(now, segment.source_port, probe),
                _ => Some(probe),
            };
            let Some(probe) = probe else { return };
            engine.on_probe(now, &probe, orders);
            if !orders.is_empty() {
                perform(now, engine, responder, journal, errands, orders, refusal);
            }
        })?;
        Ok(received.more)
    }

    fn serve_decoys(&mut self, now: Moment) {
        let Self { engine, responder, decoy, journal, errands, orders, refusal, .. } = self;
        decoy.serve(now, &mut Court { now, engine, responder, journal, errands, orders, refusal });
    }

    /// Tells what the decoys cannot do, but for what was told before.
    fn tell_lacks(&self, told: &[&'static str]) {
        for lack in self.decoy.lacks().into_iter().filter(|lack| !told.contains(lack)) {
            self.journal.tell(Notice::Warning(lack.to_owned()));
        }
    }

    fn perform(&mut self, now: Moment) {
        perform(now, &mut self.engine, &mut self.responder, &self.journal, &self.errands, &mut self.orders, &mut self.refusal);
    }

    fn tell_loss(&mut self, now: Moment) {
        let total = self.statistics().lost;
        if total == self.told_lost || self.loss_told_at.is_some_and(|at| now.since(at) < LOSS_TOLD_EVERY) {
            return;
        }
        self.journal.tell(Notice::Lost { packets: total - self.told_lost, total });
        self.told_lost = total;
        self.loss_told_at = Some(now);
    }

    fn obey(&mut self, now: Moment, command: Command) {
        // An asker that has given up does not hear the answer, and that is all.
        match command {
            Command::Status(answer) => reply(&answer, self.figures()),
            Command::Account(address, answer) => reply(&answer, (self.engine.account(address), self.engine.blocks_before(address))),
            Command::Block { subject, timeout, text, answer } => reply(&answer, self.block(now, subject, timeout, text)),
            Command::Unblock(network, answer) => reply(&answer, self.unblock(now, network)),
            Command::UnblockAll(answer) => reply(&answer, self.unblock_all(now)),
            Command::Protect(list, answer) => reply(&answer, self.protect(now, list)),
            Command::Reconfigure(setup, answer) => reply(&answer, self.reconfigure(now, *setup)),
            Command::Since(answer) => reply(&answer, self.engine.blocks().take(SINCE_MAX).map(|block| (block.subject, block.since)).collect()),
            Command::Blocks(most, answer) => reply(&answer, self.standing(now, most)),
            Command::Ping(answer) => reply(&answer, ()),
            // Handled by the loop, which ends with it.
            Command::Stop(_, answer) => reply(&answer, 0),
        }
    }

    /// Of this group and of those that were listened to before.
    fn statistics(&self) -> capture::Statistics {
        let now = self.listener.statistics();
        capture::Statistics {
            packets: self.before.packets + now.packets,
            lost: self.before.lost + now.lost,
            overruns: self.before.overruns + now.overruns,
            malformed: self.before.malformed + now.malformed,
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            engine: self.engine.status(),
            capture: self.statistics(),
            no_probe: self.no_probe,
            unreadable: self.unreadable,
            decoy: self.decoy.figures(),
        }
    }

    fn standing(&self, now: Moment, most: usize) -> Vec<Standing> {
        let standing = |block: engine::BlockView<'_>| Standing {
            subject: block.subject,
            reason: block.reason.clone(),
            port: block.port,
            age: now.since(block.since),
        };
        self.engine.blocks().take(most).map(standing).collect()
    }

    fn block(&mut self, now: Moment, subject: Subject, timeout: Option<Duration>, text: String) -> Result<(), NotDone> {
        self.refusal = None;
        self.engine.block(now, subject, timeout, &text, &mut self.orders).map_err(|refusal| NotDone::Refused(refusal.to_string()))?;
        self.perform(now);
        match self.refusal.take() {
            Some((refused, error)) if refused == subject => Err(NotDone::Failed(error)),
            _ => Ok(()),
        }
    }

    /// Lifts what lies in `network`, and, for a single address, the IPv6 prefix that it belongs to.
    fn unblock(&mut self, now: Moment, network: IpNet) -> Result<Vec<Subject>, String> {
        let prefix = self.config.block.ipv6_prefix;
        let single = (network.prefix_len() == network.max_prefix_len()).then(|| Subject::Host(Source::of(network.addr(), prefix)));
        let known: Vec<_> = self
            .engine
            .blocks()
            .map(|block| block.subject)
            .filter(|subject| single == Some(*subject) || network.contains(&subject.network(prefix)))
            .collect();
        self.lift(now, &known)?;
        if !known.is_empty() {
            return Ok(known);
        }
        // An element that somebody else put there is lifted all the same.
        let subject = single.unwrap_or(Subject::Network(network));
        let removed = self.responder.remove(subject).map_err(|error| words(&error))?;
        Ok(if removed { vec![subject] } else { Vec::new() })
    }

    /// Lifts every block, and takes out what somebody else put into the sets. How many there were.
    fn unblock_all(&mut self, now: Moment) -> Result<usize, String> {
        let known: Vec<_> = self.engine.blocks().map(|block| block.subject).collect();
        self.lift(now, &known)?;
        let mut count = known.len();
        let left = match self.responder.blocked() {
            // Where there are no sets, nothing is blocked.
            Err(error) if error.is_not_found() => Vec::new(),
            found => found.map_err(|error| words(&error))?,
        };
        for (subject, _) in left {
            count += usize::from(self.responder.remove(subject).map_err(|error| words(&error))?);
        }
        Ok(count)
    }

    fn lift(&mut self, now: Moment, subjects: &[Subject]) -> Result<(), String> {
        self.refusal = None;
        for subject in subjects {
            // One that ended just now is no failure.
            let _ = self.engine.unblock(now, *subject, &mut self.orders);
        }
        self.perform(now);
        match self.refusal.take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn protect(&mut self, now: Moment, list: AllowList) -> Result<(), String> {
        // The kernel first: what is exempt there is not dropped, whatever else goes wrong. Should it refuse, nothing new is blocked all the same.
        let result = protect(self.responder.connection(), &list).map_err(|error| words(&error));
        self.engine.set_never_block(now, list.clone(), &mut self.orders);
        self.perform(now);
        if result.is_ok() {
            self.never_block = list;
        }
        result
    }

    fn reconfigure(&mut self, now: Moment, setup: Setup) -> Result<(), String> {
        let listener = if setup.config.capture.group == self.config.capture.group {
            None
        } else {
            Some(Listener::bind(Settings::of_group(setup.config.capture.group)).map_err(|error| words(&error))?)
        };
        // Both configurations' sockets are there while the rules change.
        let doors = self.decoy.prepare(&setup.config).map_err(|error| words(&error))?;
        let installed = match put_in_place(self.responder.connection(), &setup.ruleset, &setup.never_block, &setup.services) {
            Ok(installed) => installed,
            Err(error) => {
                // Half of it may be in the kernel. The new group is left when `listener` goes.
                let back = put_in_place(self.responder.connection(), &self.ruleset, &self.never_block, &[]);
                return Err(match back {
                    Ok(_) => words(&error),
                    Err(back) => format!("{}; and the rules from before could not be put back: {}", words(&error), words(&back)),
                });
            }
        };
        if let Some(listener) = listener {
            self.change_group(now, listener);
        }
        self.engine.reconfigure(now, Policy::from_config(&setup.config), &mut self.orders);
        self.engine.set_never_block(now, setup.never_block.clone(), &mut self.orders);
        self.perform(now);
        // What waits at the old sockets is taken before they go.
        self.serve_decoys(now);
        let told = self.decoy.lacks();
        if let Err(error) = self.decoy.adopt(doors, &setup.config) {
            self.journal.tell(Notice::Error(words(&error)));
        }
        self.tell_lacks(&told);
        self.config = setup.config;
        self.ruleset = setup.ruleset;
        self.never_block = setup.never_block;
        self.ephemeral = setup.ephemeral;
        let is_anew = installed.carried == 0 && installed.steps.iter().any(|step| step.starts_with("add set blocked"));
        if !is_anew && self.engine.blocks().nth(LIGHT_DUMP).is_some() {
            // To compare so many would hold up packets for seconds, and the sets are where they were.
            return Ok(());
        }
        self.put_back(now).map_err(|error| format!("the new configuration is in force, but blocks could not be put back: {}", words(&error)))
    }

    /// Goes over to another group; what was logged to the old one is still judged.
    fn change_group(&mut self, now: Moment, listener: Listener) {
        for _ in 0..DRAINS_MAX {
            match self.take_packets(now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    log::warn!("the last packets of the old group: {}", words(&error));
                    break;
                }
            }
        }
        self.before = self.statistics();
        self.listener = listener;
    }

    /// Blocks that somebody took out of the kernel, with the table or by `nft flush`, are put back; what somebody put in is taken over.
    fn put_back(&mut self, now: Moment) -> Result<(), nft::Error> {
        let found = self.responder.blocked()?;
        let missing = takeover::missing(now, self.engine.blocks(), &found);
        if !missing.is_empty() {
            self.responder.put_back(&missing)?;
            self.journal.tell(Notice::Warning(format!("{} blocks were missing in the kernel and have been put back", missing.len())));
        }
        self.engine.adopt(now, found.into_iter().map(takeover::adopted), &mut self.orders);
        self.perform(now);
        Ok(())
    }

    fn stop(&mut self, remove: bool) -> u64 {
        if let Err(error) = self.listener.unbind() {
            log::debug!("{}", words(&error));
        }
        let blocks = u64::try_from(self.engine.blocks().count()).unwrap_or(u64::MAX);
        if !remove {
            return blocks;
        }
        match self.responder.connection().remove_table() {
            Ok(()) => 0,
            Err(error) => {
                log::error!("{}", words(&error));
                blocks
            }
        }
    }
}

fn reply<T>(answer: &SyncSender<T>, value: T) {
    let _ = answer.try_send(value);
}

fn now() -> Moment {
    Moment::at(clock::boottime())
}

/// Carries orders out until there are none: an outcome may bring new ones.
pub(super) fn perform(
    now: Moment,
    engine: &mut Engine,
    responder: &mut NftResponder,
    journal: &JournalHandle,
    errands: &Errands,
    orders: &mut Vec<Action>,
    refusal: &mut Option<(Subject, String)>,
) {
    let mut batch = std::mem::take(orders);
    while !batch.is_empty() {
        errands.on_orders(&batch);
        responder.carry_out(&batch, |outcome| {
            if let Outcome::Blocked { subject, result: Err(error) } | Outcome::Unblocked { subject, result: Err(error) } = &outcome {
                *refusal = Some((*subject, error.clone()));
                errands.on_refusal(&batch, *subject);
            }
            engine.on_outcome(now, outcome, orders);
        });
        for action in batch.drain(..) {
            if let Action::Report(report) = action {
                errands.on_report(&report);
                journal.tell(Notice::Engine(report));
            }
        }
        std::mem::swap(&mut batch, orders);
    }
    *orders = batch;
}

/// Rules, exemptions and services, as a whole.
fn put_in_place(connection: &mut Connection, ruleset: &Ruleset, never_block: &AllowList, services: &[Port]) -> Result<Installed, nft::Error> {
    let installed = connection.install(ruleset)?;
    protect(connection, never_block)?;
    seed_services(connection, services)?;
    Ok(installed)
}

/// Puts the never-block list into the kernel's sets, in one transaction each.
fn protect(connection: &mut Connection, list: &AllowList) -> Result<(), nft::Error> {
    for (set, v4) in [(SetId::Allowed4, true), (SetId::Allowed6, false)] {
        let networks = list.networks().iter().filter(|network| network.addr().is_ipv4() == v4);
        // The kernel takes no intervals that overlap, and a network may hold an address that is listed as well.
        let ranges = merge(networks.map(|network| Key::network(*network)).collect());
        let elements: Vec<_> = ranges.iter().map(Element::range).collect();
        connection.replace_elements(set, &elements)?;
    }
    Ok(())
}

/// Tells the rules which ports are services now, so that a service which restarts is no trap for its clients.
fn seed_services(connection: &mut Connection, services: &[Port]) -> Result<(), nft::Error> {
    let elements: Vec<_> =
        services.iter().filter_map(|port| Some(Element::new(Key::Service(protocol_number(port.transport)?, port.number)))).collect();
    connection.add_elements(SetId::Services, &elements)
}

/// IANA's assigned internet protocol numbers; `None` for what has no ports.
fn protocol_number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(6),
        Transport::Udp => Some(17),
        Transport::Sctp => Some(132),
        Transport::Ip => None,
    }
}
