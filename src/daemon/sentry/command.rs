//! What other threads ask of the packet thread, and what they are answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ipnet::IpNet;

use super::{Repairs, Sentry, Setup, rules};
use crate::daemon::link::Answer;
use crate::engine::{self, AllowList, Moment, Reason, Source, Subject};
use crate::probe::Port;
use crate::responder::words;
use crate::{capture, decoy};

/// Blocks whose beginning is told: more would hold up packets for milliseconds. The kernel's own times serve for the rest.
const SINCE_MAX: usize = 20_000;

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
    /// What was done about other programs in our table.
    pub repairs: Repairs,
}

impl Sentry {
    /// Does what another thread asks for, and answers.
    pub(super) fn obey(&mut self, now: Moment, command: Command) {
        // An asker that has given up does not hear the answer, and that is all.
        match command {
            Command::Status(answer) => reply(&answer, self.figures(now)),
            Command::Account(address, answer) => reply(&answer, (self.court.engine.account(address), self.court.engine.blocks_before(address))),
            Command::Block { subject, timeout, text, answer } => reply(&answer, self.block(now, subject, timeout, text)),
            Command::Unblock(network, answer) => reply(&answer, self.unblock(now, network)),
            Command::UnblockAll(answer) => reply(&answer, self.unblock_all(now)),
            Command::Protect(list, answer) => reply(&answer, self.protect(now, list)),
            Command::Reconfigure(setup, answer) => reply(&answer, self.reconfigure(now, *setup)),
            Command::Since(answer) => reply(&answer, self.court.engine.blocks().take(SINCE_MAX).map(|block| (block.subject, block.since)).collect()),
            Command::Blocks(most, answer) => reply(&answer, self.standing(now, most)),
            Command::Ping(answer) => reply(&answer, ()),
            // Handled by the loop, which ends with it.
            Command::Stop(_, answer) => reply(&answer, 0),
        }
    }

    fn figures(&self, now: Moment) -> Figures {
        Figures {
            engine: self.court.engine.status(),
            capture: self.statistics(),
            no_probe: self.no_probe,
            unreadable: self.unreadable,
            decoy: self.decoy.figures(),
            repairs: self.foreign.repairs(now),
        }
    }

    fn standing(&self, now: Moment, most: usize) -> Vec<Standing> {
        let standing = |block: engine::BlockView<'_>| Standing {
            subject: block.subject,
            reason: block.reason.clone(),
            port: block.port,
            age: now.since(block.since),
        };
        self.court.engine.blocks().take(most).map(standing).collect()
    }

    fn block(&mut self, now: Moment, subject: Subject, timeout: Option<Duration>, text: String) -> Result<(), NotDone> {
        self.court.refusal = None;
        self.court.engine.block(now, subject, timeout, &text, &mut self.court.orders).map_err(|refusal| NotDone::Refused(refusal.to_string()))?;
        self.court.perform(now);
        match self.court.refusal.take() {
            Some((refused, error)) if refused == subject => Err(NotDone::Failed(error)),
            _ => Ok(()),
        }
    }

    /// Lifts what lies in `network`, and, for a single address, the IPv6 prefix that it belongs to.
    fn unblock(&mut self, now: Moment, network: IpNet) -> Result<Vec<Subject>, String> {
        let prefix = self.config.block.ipv6_prefix;
        let single = (network.prefix_len() == network.max_prefix_len()).then(|| Subject::Host(Source::of(network.addr(), prefix)));
        let known: Vec<_> = self
            .court
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
        let removed = self.court.responder.remove(subject).map_err(|error| words(&error))?;
        Ok(if removed { vec![subject] } else { Vec::new() })
    }

    /// Lifts every block, and takes out what somebody else put into the sets. How many there were.
    fn unblock_all(&mut self, now: Moment) -> Result<usize, String> {
        let known: Vec<_> = self.court.engine.blocks().map(|block| block.subject).collect();
        self.lift(now, &known)?;
        let mut count = known.len();
        let left = match self.court.responder.blocked() {
            // Where there are no sets, nothing is blocked.
            Err(error) if error.is_not_found() => Vec::new(),
            found => found.map_err(|error| words(&error))?,
        };
        for (subject, _) in left {
            count += usize::from(self.court.responder.remove(subject).map_err(|error| words(&error))?);
        }
        Ok(count)
    }

    fn lift(&mut self, now: Moment, subjects: &[Subject]) -> Result<(), String> {
        self.court.refusal = None;
        for subject in subjects {
            // One that ended just now is no failure.
            let _ = self.court.engine.unblock(now, *subject, &mut self.court.orders);
        }
        self.court.perform(now);
        match self.court.refusal.take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn protect(&mut self, now: Moment, list: AllowList) -> Result<(), String> {
        // The kernel first: what is exempt there is not dropped, whatever else goes wrong. Should it refuse, nothing new is blocked all the same.
        let result = rules::protect(self.court.responder.connection(), &list).map_err(|error| words(&error));
        self.court.engine.set_never_block(now, list.clone(), &mut self.court.orders);
        self.court.perform(now);
        if result.is_ok() {
            self.never_block = list;
        }
        result
    }
}

fn reply<T>(answer: &SyncSender<T>, value: T) {
    let _ = answer.try_send(value);
}
