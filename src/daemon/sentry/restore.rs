//! What was stored and what is in the kernel, brought together at the start.
//!
//! | in the kernel | in the store | what becomes of it |
//! |---|---|---|
//! | yes | yes | it goes on: the kernel's time and counter; beginning, port and whole reason from the store |
//! | yes | no | it is taken over as it is: it is newer than the store, or somebody else's |
//! | no, but its set was | yes | somebody took it out, or its time was over: it is not blocked |
//! | no, nor its set | yes | the table or the whole kernel is new: it comes back with what is left of its time |
//!
//! In the kernel means: since the boot in which the store was written. What comes back comes in the transaction that brings the rules.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use super::court::Court;
use super::{Setup, rules, takeover};
use crate::daemon::archive::{Stored, is_of_prefix};
use crate::engine::{Adopted, Moment, Source, Subject};
use crate::journal::Notice;
use crate::journal::store::Block;
use crate::nft::plan::Found;
use crate::nft::{ElementInfo, Error, SetId};
use crate::responder::{self, words};

/// What the kernel ends this much before our books is not somebody's hand.
const EXPIRED_WITHIN: Duration = Duration::from_secs(5);

/// What ends this soon is not worth an element.
const WORTH: Duration = Duration::from_secs(1);

/// Elements that are put in together when they could not be put in with the rules.
const PIECE: usize = 1000;

/// What becomes of what was stored.
#[derive(Debug, Default, PartialEq)]
struct Merged {
    /// In the kernel already.
    adopt: Vec<Adopted>,
    /// To be put there.
    put: Vec<Adopted>,
    /// Blocks that somebody took out of the kernel.
    removed: usize,
    /// Blocks that must not be any more.
    protected: usize,
    /// Blocks for which there is no room.
    no_room: usize,
}

/// What bounds it.
struct Bounds<'a> {
    /// How long IPv6 prefixes are in the kernel now.
    prefix: u8,
    /// `block.total`.
    total: usize,
    /// Whether what the kernel does not have of this set was taken out of it.
    was_there: &'a dyn Fn(SetId) -> bool,
    /// Whether it must not be blocked.
    must_not: &'a dyn Fn(Subject) -> bool,
}

fn merge(now: Moment, stored: Vec<Block>, kernel: Vec<(Subject, ElementInfo)>, bounds: &Bounds<'_>) -> Merged {
    let mut merged = Merged::default();
    let mut stored: HashMap<Subject, Block> = stored.into_iter().map(|block| (subject_of(&block, bounds.prefix), block)).collect();
    for (subject, info) in kernel {
        let found = takeover::adopted((subject, info));
        merged.adopt.push(match stored.remove(&subject) {
            // Another comment is newer than the store.
            Some(block) if block.reason.comment() == found.reason.comment() => {
                Adopted { since: Some(block.since), port: block.port, reason: block.reason, ..found }
            }
            _ => found,
        });
    }
    let mut left: Vec<Adopted> = Vec::new();
    for (subject, block) in stored {
        let remaining = block.expires.map(|end| end.since(now));
        if (bounds.was_there)(responder::place(subject).0) {
            merged.removed += usize::from(remaining.is_none_or(|remaining| remaining > EXPIRED_WITHIN));
        } else if remaining.is_some_and(|remaining| remaining < WORTH) {
            // It is over.
        } else if (bounds.must_not)(subject) {
            merged.protected += 1;
        } else {
            left.push(Adopted {
                subject,
                timeout: block.expires.map(|end| end.since(block.since)),
                remaining,
                packets: 0,
                reason: block.reason,
                since: Some(block.since),
                port: block.port,
            });
        }
    }
    // Those that last longest stay, where there is no room for all.
    left.sort_by_key(|block| (block.remaining.is_some(), block.remaining.map(std::cmp::Reverse), block.subject));
    let room = bounds.total.saturating_sub(merged.adopt.len());
    merged.no_room = left.len().saturating_sub(room);
    left.truncate(room);
    merged.put = left;
    drop_overlaps(&mut merged);
    merged
}

/// The kernel takes no networks that overlap: of two, the wider one stays.
fn drop_overlaps(merged: &mut Merged) {
    let network = |block: &Adopted| if let Subject::Network(network) = block.subject { Some(network) } else { None };
    let mut all: Vec<(IpNet, bool)> = merged.adopt.iter().filter_map(network).map(|network| (network, false)).collect();
    all.extend(merged.put.iter().filter_map(network).map(|network| (network, true)));
    // A network comes right before those within it; of what is in the kernel none is dropped.
    all.sort_by_key(|(network, is_new)| (network.network(), network.prefix_len(), *is_new));
    let mut dropped = std::collections::HashSet::new();
    let mut around: Option<IpNet> = None;
    for (position, (network, is_new)) in all.iter().enumerate() {
        let is_within = around.is_some_and(|around| around.contains(network));
        let holds_an_old_one = || all.iter().skip(position + 1).take_while(|(other, _)| network.contains(other)).any(|(_, is_new)| !is_new);
        if *is_new && (is_within || holds_an_old_one()) {
            dropped.insert(*network);
        } else if !is_within {
            around = Some(*network);
        }
    }
    merged.put.retain(|block| network(block).is_none_or(|network| !dropped.contains(&network)));
}

/// What a stored block is called now: an IPv6 prefix of another length is a network, so that it goes on to block what was judged.
fn subject_of(block: &Block, prefix: u8) -> Subject {
    match block.subject {
        Subject::Host(source @ Source::V6(_)) if block.prefix != prefix => Subject::Network(source.network(block.prefix).trunc()),
        subject => subject,
    }
}

/// Blocks as elements, by their sets.
fn elements(blocks: &[Adopted]) -> Vec<(SetId, Vec<ElementInfo>)> {
    let mut sets: Vec<(SetId, Vec<ElementInfo>)> = Vec::new();
    for block in blocks {
        let (set, element) = responder::place(block.subject);
        let info = ElementInfo {
            key: element.key,
            end: element.end,
            timeout: block.timeout,
            expires: block.remaining,
            packets: block.packets,
            bytes: 0,
            comment: Some(block.reason.comment().into()),
        };
        match sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, all)) => all.push(info),
            None => sets.push((set, vec![info])),
        }
    }
    sets
}

impl Court {
    /// Puts the rules in place, together with the blocks that were stored and are gone from the kernel, and takes over those that are there.
    pub(super) fn take_over(&mut self, now: Moment, setup: &Setup, found: &Found, stored: Option<Stored>) -> Result<(), Error> {
        let kernel = if found.table.is_some() { responder::blocked_where_there(self.responder.connection())? } else { Vec::new() };
        let (blocks, offenders, evidence, is_same_boot) = match stored {
            Some(Stored { content, is_same_boot }) => (content.blocks, content.offenders, content.evidence, is_same_boot),
            None => Default::default(),
        };
        let in_kernel = kernel.len();
        let merged = {
            let engine = &self.engine;
            let bounds = Bounds {
                prefix: engine.policy().ipv6_prefix,
                total: engine.policy().total as usize,
                was_there: &|set| is_same_boot && found.sets.iter().any(|there| there.name == set.name()),
                must_not: &|subject| engine.must_not_block(subject),
            };
            merge(now, blocks, kernel, &bounds)
        };
        let Merged { mut adopt, put, removed, protected, no_room } = merged;
        let put = self.install(setup, put)?;
        let restored = put.len();
        adopt.extend(put);
        self.engine.adopt(now, adopt, &mut self.orders);
        let prefix = setup.config.block.ipv6_prefix;
        self.engine.recall(
            now,
            offenders.into_iter().filter(|one| is_of_prefix(one.offender.source, one.prefix, prefix)).map(|one| one.offender),
            evidence.into_iter().filter(|one| is_of_prefix(one.evidence.source, one.prefix, prefix)).map(|one| one.evidence),
        );
        self.perform(now);
        if in_kernel > 0 {
            self.journal.tell(Notice::Adopted { blocks: in_kernel });
        }
        self.tell_restored(restored, removed, protected, no_room);
        Ok(())
    }

    /// Puts the rules in place with these blocks; gives those of them that are in the kernel now.
    fn install(&mut self, setup: &Setup, put: Vec<Adopted>) -> Result<Vec<Adopted>, Error> {
        let connection = self.responder.connection();
        let error = match rules::put_in_place_with(connection, &setup.ruleset, &setup.never_block, &setup.services, &elements(&put)) {
            Ok(_) => return Ok(put),
            Err(error) if put.is_empty() => return Err(error),
            Err(error) => error,
        };
        log::warn!("the blocks that were stored cannot come back together with the rules, so they follow them: {}", words(&error));
        rules::put_in_place(connection, &setup.ruleset, &setup.never_block, &setup.services)?;
        Ok(self.put_one_by_one(put))
    }

    /// Puts blocks into the kernel in pieces; gives those that are there now.
    fn put_one_by_one(&mut self, put: Vec<Adopted>) -> Vec<Adopted> {
        let row = |block: &Adopted| (block.subject, block.remaining, block.reason.comment());
        let mut there = Vec::with_capacity(put.len());
        let mut refused = None;
        let mut put = put.into_iter().peekable();
        while put.peek().is_some() {
            let piece: Vec<Adopted> = put.by_ref().take(PIECE).collect();
            if self.responder.put_back(&piece.iter().map(row).collect::<Vec<_>>()).is_ok() {
                there.extend(piece);
                continue;
            }
            for block in piece {
                match self.responder.put_back(&[row(&block)]) {
                    Ok(()) => there.push(block),
                    Err(error) => {
                        let (count, _) = refused.get_or_insert_with(|| (0, words(&error)));
                        *count += 1;
                    }
                }
            }
        }
        if let Some((count, why)) = refused {
            self.journal.tell(Notice::Error(format!("{count} blocks that were stored could not be put back: {why}")));
        }
        there
    }

    /// Takes over what could not be read at the start. What the kernel's table did not have then was taken out of it.
    pub(super) fn restore_late(&mut self, now: Moment, stored: Stored, had_table: bool) {
        let Stored { content, is_same_boot } = stored;
        let merged = {
            let engine = &self.engine;
            let unknown = content.blocks.into_iter().filter(|block| engine.standing(subject_of(block, engine.policy().ipv6_prefix)).is_none());
            let bounds = Bounds {
                prefix: engine.policy().ipv6_prefix,
                total: (engine.policy().total as usize).saturating_sub(engine.blocks().count()),
                was_there: &|_| is_same_boot && had_table,
                must_not: &|subject| engine.must_not_block(subject),
            };
            merge(now, unknown.collect(), Vec::new(), &bounds)
        };
        let put = self.put_one_by_one(merged.put);
        let restored = put.len();
        self.engine.adopt(now, put, &mut self.orders);
        let prefix = self.engine.policy().ipv6_prefix;
        self.engine.recall(
            now,
            content.offenders.into_iter().filter(|one| is_of_prefix(one.offender.source, one.prefix, prefix)).map(|one| one.offender),
            content.evidence.into_iter().filter(|one| is_of_prefix(one.evidence.source, one.prefix, prefix)).map(|one| one.evidence),
        );
        self.perform(now);
        self.tell_restored(restored, merged.removed, merged.protected, merged.no_room);
    }

    fn tell_restored(&self, restored: usize, removed: usize, protected: usize, no_room: usize) {
        if restored > 0 {
            self.journal.tell(Notice::Restored { blocks: restored });
        }
        let warn = |count: usize, text: &str| {
            if count > 0 {
                self.journal.tell(Notice::Warning(format!("{count} blocks {text}")));
            }
        };
        warn(removed, "were taken out of the kernel's sets while the daemon was down; they count as unblocked");
        warn(protected, "that were stored are not put back: what they name is never blocked now");
        warn(no_room, "that were stored are not put back: block.total allows no more");
    }
}
