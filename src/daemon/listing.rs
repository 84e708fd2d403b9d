//! The list of a great many blocks: which there are is asked of the books, what is true of each of the kernel, while the client reads.
//!
//! To dump a set costs the kernel the square of its size, to ask for one element always the same. So a list of a million takes seconds, in the memory of
//! the addresses alone; and what the kernel does not have is not listed, whatever the books say.

use std::collections::HashMap;

use super::command::Command;
use super::link::Link;
use super::rows::{busy, kernel, reasons, row};
use crate::control::{BlockRow, Refusal, Target};
use crate::engine::{Moment, Subject};
use crate::nft::{Connection, ElementInfo, Key};
use crate::responder::{self, words};
use crate::ruleset::{SCHEMA, SetId};

/// Places of blocks that the packet thread looks through at a time: some microseconds of it.
const PLACES: usize = 4096;

/// Elements that the kernel is asked for at a time: a millisecond.
const AT_ONCE: usize = 500;

/// A list as it is made.
pub(super) struct Listing {
    sentry: Link<Command>,
    connection: Connection,
    prefix: u8,
    networks: HashMap<Subject, ElementInfo>,
    left: std::vec::IntoIter<(Target, Subject, Option<Moment>)>,
    ready: std::vec::IntoIter<BlockRow>,
}

impl Listing {
    /// Asks the books.
    pub(super) fn begin(sentry: &Link<Command>, prefix: u8) -> Result<Self, Refusal> {
        let mut connection = Connection::open(SCHEMA).map_err(|error| kernel(&error))?;
        let networks: HashMap<_, _> = responder::blocked_networks(&mut connection).map_err(|error| kernel(&error))?.into_iter().collect();
        let (mut known, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (page, next) = sentry.ask(|answer| Command::Begun(at, PLACES, answer)).map_err(busy)?;
            known.extend(page.into_iter().map(|(subject, since)| (Target::of(subject, prefix), subject, Some(since))));
            from = next;
        }
        // Those that the books do not know yet.
        known.extend(networks.keys().map(|subject| (Target::of(*subject, prefix), *subject, None)));
        // Stable: what the books say of a network comes first. One that moved between two pages is in both.
        known.sort_by_key(|(target, ..)| *target);
        known.dedup_by_key(|(target, ..)| *target);
        Ok(Self { sentry: sentry.clone(), connection, prefix, networks, left: known.into_iter(), ready: Vec::new().into_iter() })
    }

    fn ask(&mut self) -> bool {
        let page: Vec<_> = self.left.by_ref().take(AT_ONCE).collect();
        if page.is_empty() {
            return false;
        }
        let mut found: Vec<(Subject, ElementInfo)> = Vec::with_capacity(page.len());
        for set in [SetId::Blocked4, SetId::Blocked6] {
            let here: Vec<(Subject, Key)> = page
                .iter()
                .map(|(_, subject, _)| (*subject, responder::place(*subject)))
                .filter(|(_, (place, _))| *place == set)
                .map(|(subject, (_, element))| (subject, element.key))
                .collect();
            let keys: Vec<Key> = here.iter().map(|(_, key)| *key).collect();
            match self.connection.get_elements(set, &keys) {
                Ok(infos) => found.extend(here.iter().zip(infos).filter_map(|((subject, _), info)| Some((*subject, info?)))),
                // Nothing is blocked by a set that is gone.
                Err(error) => log::warn!("the list has gaps: {}", words(&error)),
            }
        }
        // Without the books' answer they have no reason for once, and are in the list all the same.
        let reasons = reasons(&self.sentry, &found).unwrap_or_default();
        let found: HashMap<Subject, ElementInfo> = found.into_iter().collect();
        let rows = page.into_iter().filter_map(|(_, subject, since)| {
            let info = found.get(&subject).or_else(|| self.networks.get(&subject))?;
            Some(row(subject, info, self.prefix, since, reasons.get(&subject)))
        });
        self.ready = rows.collect::<Vec<_>>().into_iter();
        true
    }
}

impl Iterator for Listing {
    type Item = BlockRow;

    fn next(&mut self) -> Option<BlockRow> {
        loop {
            if let Some(row) = self.ready.next() {
                return Some(row);
            }
            if !self.ask() {
                return None;
            }
        }
    }
}
