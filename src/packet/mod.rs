//! The packet thread: takes packets, asks the engine, has its orders carried out, and answers commands in between.
//!
//! It waits for nothing but netlink: no disk, no name, no lock that somebody else holds while waiting. What people should hear of goes to
//! the journal's queue, which never makes it wait.

mod court;
mod error;
mod foreign;
mod intake;
mod obey;
mod pace;
mod reflex;
mod reload;
mod restore;
mod rules;
mod takeover;
mod waiting;

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use self::court::{Court, Sitting};
use self::foreign::Foreign;
use self::intake::Intake;
use self::waiting::Room;
use super::archive::Archive;
use super::command::{Command, Setup, Stored};
use super::errands::Errands;
use super::link::Inbox;
use super::time::now;
use crate::capture::nflog::{Listener, Settings};
use crate::capture::{self, PacketSource};
use crate::config::{Config, OwnTable};
use crate::decoy::Decoy;
use crate::engine::{AllowList, Engine, Moment, Policy};
use crate::store::EVIDENCE_MAX;
use crate::journal::{JournalHandle, Notice};
use crate::nft::{Connection, QueueBy, Ruleset, TableOwner};
use crate::responder::{NftResponder, words};
use crate::ruleset::reflex::Tally;
use crate::ruleset::{SCHEMA, messages};
use crate::sys::poll;

pub use self::error::StartError;

/// Commands that are served before packets are looked at again.
const COMMANDS_A_WAKE: usize = 16;

/// `NF_INET_PRE_ROUTING` (linux/netfilter.h): where the decoys' rules log; all others log at input.
const PREROUTING: u8 = 0;

/// The packet thread's state.
pub struct Sentry {
    court: Court,
    listener: Listener,
    decoy: Decoy,
    foreign: Foreign,
    config: Config,
    ruleset: Ruleset,
    never_block: AllowList,
    ephemeral: RangeInclusive<u16>,
    intake: Intake,
    room: Room,
    /// The table was in the kernel when this started.
    had_table: bool,
    /// What the reflex did by rules that were replaced.
    reflex_before: Tally,
}

impl Sentry {
    /// Binds the log group, installs the rules together with the blocks that were stored, takes over the blocks that are in the kernel.
    ///
    /// # Errors
    /// When the group is taken, the kernel lacks something, or refuses.
    pub fn start(
        setup: Setup,
        stored: Option<Stored>,
        journal: JournalHandle,
        errands: Errands,
        archive: Archive,
        seed: [u64; 2],
    ) -> Result<Self, StartError> {
        // The group first: a second daemon must find out before it touches the table of the first.
        let listener = Listener::bind(Settings::of_group(setup.config.capture.group))?;
        let room = Room::open(&setup.config, seed[0].rotate_left(16) ^ seed[1])?;
        let mut responder = NftResponder::new(Connection::open(SCHEMA)?);
        let found = responder.connection().read(&setup.ruleset)?;
        if let Some(group) = takeover::former_group(&found)
            && group != setup.config.capture.group
            && let Err(error @ capture::Error::GroupInUse { .. }) = Listener::bind(Settings::of_group(group))
        {
            return Err(StartError::TableInUse(error));
        }
        // Before the rules that lead there.
        let decoy = Decoy::open(&setup.config)?;
        let mut policy = Policy::from_config(&setup.config);
        if let Some(prefix) = takeover::former_prefix(&found) {
            policy.ipv6_prefix = prefix;
        }
        let mut engine = Engine::new(policy, seed);
        let mut orders = Vec::new();
        let now = now();
        engine.set_never_block(now, setup.never_block.clone(), &mut orders);
        // Before the first of our own changes, so that none of anybody else's is missed.
        let mut foreign = Foreign::open(responder.connection().portid(), setup.config.own_table, setup.services.clone())?;
        let mut court = Court { engine, responder, journal, errands, archive, orders, refusal: None };
        court.take_over(now, &setup, &found, stored, &mut foreign)?;
        if setup.config.own_table == OwnTable::Yes && foreign.hold() != TableOwner::Owned {
            let text = "own_table: this kernel has no tables that are one program's and stay when it ends (Linux 6.9); others can change the table";
            court.journal.tell(Notice::Warning(text.to_owned()));
        }
        let mut sentry = Self {
            court,
            listener,
            decoy,
            foreign,
            config: setup.config,
            ruleset: setup.ruleset,
            never_block: setup.never_block,
            ephemeral: setup.ephemeral,
            intake: Intake::default(),
            room,
            had_table: found.table.is_some(),
            reflex_before: Tally::default(),
        };
        sentry.tell_lacks(&[]);
        sentry.tell_queue(None);
        // Prefixes of an earlier run may have another length; the engine keeps what was judged.
        sentry.court.engine.reconfigure(now, Policy::from_config(&sentry.config), &mut sentry.court.orders);
        sentry.court.perform(now);
        Ok(sentry)
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
            // What others did to the sets before anything is put into them.
            more = self.watch_others(now);
            // The packets before the decoys: a handshake ends after the SYN that the rules have told of.
            more |= self.take_packets(now)?;
            more |= self.take_waiting(now)?;
            self.serve_decoys(now);
            self.court.engine.on_timer(now, &mut self.court.orders);
            self.court.perform(now);
            self.tell_loss(now);
            inbox.waker.clear();
            for _ in 0..COMMANDS_A_WAKE {
                match inbox.next() {
                    Some(Command::Stop(remove, answer)) => {
                        let (evidence, prefix) = self.evidence(Moment::default(), EVIDENCE_MAX);
                        self.court.archive.last(evidence, prefix);
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
        let timers = [self.court.engine.next_timer(), self.decoy.next_timer(), self.foreign.next_timer(now()), self.next_look()];
        let next = timers.into_iter().flatten().min();
        let timeout = if more { Some(Duration::ZERO) } else { next.map(|at| at.since(now())) };
        let mut fds = [
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.decoy.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.foreign.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(inbox.waker.as_fd(), PollFlags::IN),
            // Where nothing waits, a place that is filled twice.
            PollFd::from_borrowed_fd(self.room.as_fd().unwrap_or(self.listener.as_fd()), PollFlags::IN),
        ];
        // A signal interrupts it at worst; whatever else poll says, the round that follows finds out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    fn serve_decoys(&mut self, now: Moment) {
        self.decoy.serve(now, &mut Sitting { court: &mut self.court, now });
    }

    /// Tells if the rules queue packets by the second way that this kernel has, and did not before.
    fn tell_queue(&self, before: Option<QueueBy>) {
        if self.ruleset.queues_by() == Some(QueueBy::Xt) && before != Some(QueueBy::Xt) {
            self.court.journal.tell(Notice::Warning(messages::QUEUE_BY_XT.to_owned()));
        }
    }

    /// Tells what the decoys cannot do, but for what was told before.
    fn tell_lacks(&self, told: &[&'static str]) {
        for lack in self.decoy.lacks().into_iter().filter(|lack| !told.contains(lack)) {
            self.court.journal.tell(Notice::Warning(lack.to_owned()));
        }
    }

    fn stop(&mut self, remove: bool) -> u64 {
        if let Err(error) = self.listener.unbind() {
            log::debug!("{}", words(&error));
        }
        self.room.leave();
        let blocks = u64::try_from(self.court.engine.blocks().count()).unwrap_or(u64::MAX);
        if !remove {
            return blocks;
        }
        match self.court.responder.connection().remove_table() {
            Ok(()) => 0,
            Err(error) => {
                log::error!("{}", words(&error));
                blocks
            }
        }
    }
}
