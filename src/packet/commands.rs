//! What other threads ask for, done between packets.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ipnet::IpNet;

use super::{Sentry, rules};
use crate::store;
use crate::packet::command::{Command, Figures, NotDone, Standing};
use crate::engine::{self, AllowList, Moment, Source, Subject};
use crate::store::{Block, Repeated};
use crate::errors::error_chain as words;

/// Blocks whose beginning is told: more would hold up packets for milliseconds. The kernel's own times serve for the rest.
const SINCE_MAX: usize = 20_000;

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
            Command::Reasons(subjects, answer) => {
                let reason = |subject: Subject| self.court.engine.blocked(subject).map(|block| block.reason.clone());
                reply(&answer, subjects.into_iter().map(reason).collect());
            }
            Command::Blocks(most, answer) => reply(&answer, self.standing(now, most)),
            Command::Begun(from, places, answer) => {
                let (page, next) = self.court.engine.blocks_page(from, places);
                reply(&answer, (page.map(|block| (block.subject, block.since)).collect(), next));
            }
            Command::Page(from, places, answer) => reply(&answer, self.page(from, places)),
            Command::Offenders(answer) => reply(&answer, self.offenders()),
            Command::Evidence(since, most, answer) => reply(&answer, self.evidence(since, most)),
            Command::Restore(stored, answer) => {
                self.court.restore_late(now, *stored, self.had_table);
                reply(&answer, ());
            }
            Command::Ping(answer) => reply(&answer, ()),
            // Handled by the loop, which ends with it.
            Command::Stop(_, answer) => reply(&answer, 0),
        }
    }

    fn figures(&mut self, now: Moment) -> Figures {
        // First: it brings what is lost up to date.
        let queues = self.room.figures();
        Figures {
            reflex: self.reflex_figures(),
            engine: self.court.engine.status(),
            capture: self.statistics(),
            taken: self.taken(),
            decoy: self.decoy.figures(),
            repairs: self.foreign.repairs(now),
            queues,
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

    fn page(&self, from: usize, places: usize) -> (Vec<Block>, Option<usize>) {
        let engine = &self.court.engine;
        let (page, next) = engine.blocks_page(from, places);
        (page.map(|view| archive::stored(view, engine.policy().ipv6_prefix)).collect(), next)
    }

    fn offenders(&self) -> Vec<Repeated> {
        let engine = &self.court.engine;
        engine.offenders().map(|offender| Repeated { offender, prefix: engine.policy().ipv6_prefix }).collect()
    }

    pub(super) fn evidence(&self, since: Moment, most: usize) -> (Vec<engine::Evidence>, u8) {
        let engine = &self.court.engine;
        (engine.evidence(since, most), engine.policy().ipv6_prefix)
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
        // A hold is lifted too: whoever asks wants the source to get through.
        if let Some(Subject::Host(source)) = single {
            self.court.engine.forgive(now, source, &mut self.court.orders);
            self.court.perform(now);
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
        self.court.responder.forget_all().map_err(|error| words(&error))?;
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
        let connection = self.court.responder.connection();
        let result = rules::protect(connection, &self.ruleset, &list).map_err(|error| words(&error));
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
