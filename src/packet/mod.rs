//! The packet thread: takes packets, asks the engine, has its actions carried out, and handles
//! commands in between.
//!
//! It waits for nothing but netlink: no disk, no name, no lock that another thread holds while
//! waiting. What people should know goes to the journal's queue, which never makes it wait.
//!
//! * `intake`: packets that the rules logged. `queue`: packets that wait in the kernel for their
//!   verdict.
//! * `commands`, [`command`]: what other threads ask. `reload`: another configuration. `observers`:
//!   where news goes. `reflex`: what the rules did. `seen`: what they remember of an earlier run.
//!   `offloaded`: connections that pass no rule.

pub(crate) mod command;
mod commands;
mod error;
mod intake;
mod observers;
mod offloaded;
mod queue;
mod reflex;
mod reload;
pub(crate) mod seen;

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

pub use self::command::Reload;
use self::command::{Command, Setup};
use self::intake::Intake;
use self::queue::PacketQueues;
use crate::capture;
use crate::capture::nflog::{Listener, Settings};
use crate::config::{Config, OwnTable};
use crate::decoy::{self, Decoy};
use crate::enforce::{self, Drift, Earlier, Enforcer, Hold, Nftables, Observer};
use crate::engine::{Engine, MonoTime, Trigger};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::nft::{QueueBy, Ruleset, TableOwner};
use crate::probe::{Probe, Transport};
use crate::ruleset::messages;
use crate::ruleset::reflex::Tally;
use crate::store::clock::now;
use crate::store::{EVIDENCE_MAX, Stored};
use crate::sys::mailbox::Inbox;
use crate::sys::poll;

pub use self::error::StartError;
pub use self::observers::Observers;

/// Commands that are handled before packets are looked at again.
const COMMANDS_PER_WAKE: usize = 16;

/// `NF_INET_PRE_ROUTING` (linux/netfilter.h): where the decoys' rules log; all others log at input.
const PREROUTING: u8 = 0;

/// The packet thread's state.
pub struct PacketThread {
    enforcer: Enforcer<Nftables, Observers>,
    listener: Listener,
    decoy: Decoy,
    config: Config,
    ephemeral: RangeInclusive<u16>,
    intake: Intake,
    queues: PacketQueues,
    /// The table was in the kernel when this started.
    had_table: bool,
    /// What the reflex did by rules that were replaced.
    reflex_before: Tally,
}

impl PacketThread {
    /// Binds the log group, installs the rules together with the blocks that were stored, takes
    /// over the blocks that are in the kernel.
    ///
    /// # Errors
    /// When the group is taken, the kernel lacks something, or refuses.
    pub fn start(
        setup: Setup,
        stored: Option<Stored>,
        observers: Observers,
        seed: [u64; 2],
    ) -> Result<Self, StartError> {
        // The group first: a second daemon must find out before it touches the table of the first.
        let listener = Listener::bind(Settings::of_group(setup.config.capture.group))
            .map_err(StartError::Capture)?;
        let queues = PacketQueues::open(&setup.config, seed[0].rotate_left(16) ^ seed[1])
            .map_err(StartError::Capture)?;
        // Before the first of our own changes, so that no change of others is missed.
        let mut kernel = Nftables::open().map_err(StartError::Nft)?;
        let found = kernel.connection().read(&setup.in_force.ruleset).map_err(StartError::Nft)?;
        if enforce::is_foreign(&found) {
            return Err(StartError::ForeignTable);
        }
        if let Some(group) = enforce::former_group(&found)
            && group != setup.config.capture.group
            && let Err(error @ capture::Error::InUse { .. }) =
                Listener::bind(Settings::of_group(group))
        {
            return Err(StartError::TableInUse(error));
        }
        // Before the rules that lead there.
        let decoy = Decoy::open(&setup.config).map_err(StartError::Decoy)?;
        let Setup { config, in_force, ephemeral } = setup;
        let engine = Engine::new(in_force.policy.clone(), seed);
        let drift = Drift::new(config.own_table);
        let mut enforcer = Enforcer::start(
            now(),
            kernel,
            observers,
            engine,
            in_force,
            Earlier { table: &found, stored },
            drift,
        )
        .map_err(StartError::Nft)?;
        if config.own_table == OwnTable::Yes && enforcer.drift.owner != TableOwner::Owned {
            let text = "own_table: this kernel has no tables that are one program's and stay when it ends (Linux 6.9); others can change the table";
            enforcer.observer.notify(Notice::Warning(text.to_owned()));
        }
        let mut thread = Self {
            enforcer,
            listener,
            decoy,
            config,
            ephemeral,
            intake: Intake::default(),
            queues,
            had_table: found.table.is_some(),
            reflex_before: Tally::default(),
        };
        thread.report_lacks(&[]);
        thread.report_queue(None);
        Ok(thread)
    }

    /// Runs until it is stopped.
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
            more = self.enforcer.watch(now);
            // The packets before the decoys: a handshake ends after the SYN that the rules have
            // logged.
            more |= self.take_packets(now)?;
            more |= self.take_waiting(now)?;
            self.serve_decoys(now);
            self.enforcer.on_timer(now);
            self.report_loss(now);
            inbox.waker.clear();
            for _ in 0..COMMANDS_PER_WAKE {
                match inbox.next() {
                    Some(Command::Stop(at_rest, answer)) => {
                        let evidence =
                            self.enforcer.engine.evidence(MonoTime::default(), EVIDENCE_MAX);
                        self.enforcer.observer.store.last(evidence);
                        let _ = answer.send(self.stop(at_rest.as_deref()));
                        return Ok(());
                    }
                    Some(command) => self.handle(now, command),
                    None => break,
                }
            }
        }
    }

    fn wait(&self, inbox: &Inbox<Command>, more: bool) {
        let timers = [
            self.enforcer.engine.next_timer(),
            self.decoy.next_timer(),
            self.enforcer.next_timer(now()),
            // The load is looked at again even if no packet comes.
            self.intake.batching.next_timer(),
        ];
        let next = timers.into_iter().flatten().min();
        let timeout = if more { Some(Duration::ZERO) } else { next.map(|at| at.since(now())) };
        let mut fds = [
            self.listener.as_fd(),
            self.decoy.as_fd(),
            self.enforcer.as_fd(),
            inbox.waker.as_fd(),
            // Where nothing waits, one of the others a second time.
            self.queues.as_fd().unwrap_or(self.listener.as_fd()),
        ]
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // A signal interrupts it at worst; whatever else poll says, the round that follows finds
        // out by itself.
        let _ = poll::wait(&mut fds, timeout);
    }

    fn serve_decoys(&mut self, now: MonoTime) {
        self.decoy.serve(now, &mut Evaluation { enforcer: &mut self.enforcer, now });
    }

    /// Reports if the rules queue packets by the second way that this kernel has, and did not
    /// before.
    fn report_queue(&mut self, before: Option<QueueBy>) {
        if self.enforcer.ruleset.queues_by() == Some(QueueBy::Xt) && before != Some(QueueBy::Xt) {
            self.enforcer.observer.notify(Notice::Warning(messages::QUEUE_BY_XT.to_owned()));
        }
    }

    /// Reports what the decoys cannot do, but for what was reported before.
    fn report_lacks(&mut self, reported: &[&'static str]) {
        for lack in self.decoy.lacks().into_iter().filter(|lack| !reported.contains(lack)) {
            self.enforcer.observer.notify(Notice::Warning(lack.to_owned()));
        }
    }

    fn stop(&mut self, at_rest: Option<&Ruleset>) -> u64 {
        if let Err(error) = self.listener.unbind() {
            log::debug!("{}", error_chain(&error));
        }
        self.queues.leave();
        let blocks = u64::try_from(self.enforcer.engine.blocks().count()).unwrap_or(u64::MAX);
        if let Some(at_rest) = at_rest {
            if let Err(error) = self.enforcer.rest(at_rest) {
                log::error!(
                    "the rules go on as they are, and hold and slow sources that nothing judges: {}",
                    error_chain(&error)
                );
            }
            return blocks;
        }
        match self.enforcer.executor.kernel.connection().remove_table() {
            Ok(()) => 0,
            Err(error) => {
                log::error!("{}", error_chain(&error));
                blocks
            }
        }
    }
}

/// The engine as decoys see it, for one wake.
struct Evaluation<'a> {
    enforcer: &'a mut Enforcer<Nftables, Observers>,
    now: MonoTime,
}

impl decoy::Evaluate for Evaluation<'_> {
    fn handshake(&mut self, probe: &Probe) -> bool {
        self.enforcer.evaluate(self.now, probe, Hold::None) == Trigger::Passed
    }

    fn half_open(&mut self, probe: &Probe) {
        self.enforcer.evaluate(self.now, probe, Hold::None);
    }

    fn has_passed(&mut self, source: std::net::IpAddr) -> bool {
        self.enforcer.engine.has_passed(source, Transport::Udp)
    }
}
