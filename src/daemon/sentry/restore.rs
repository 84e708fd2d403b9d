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
use super::foreign::{Foreign, QUIET_FROM};
use super::{Setup, rules, takeover};
use crate::daemon::archive::is_of_prefix;
use crate::daemon::command::Stored;
use crate::engine::{Adopted, Moment, Reason, Source, Subject};
use crate::journal::Notice;
use crate::journal::store::Block;
use crate::nft::plan::Found;
use crate::nft::{ElementInfo, Elements, Error, Order, SetSpec};
use crate::responder::{self, words};
use crate::ruleset::SetId;

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
    /// Of those, what an earlier run put there without comment and counter: it ended before they followed.
    bare: Vec<Subject>,
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
        let is_bare = info.comment.is_none();
        let found = takeover::adopted((subject, info));
        merged.adopt.push(match stored.remove(&subject) {
            // Another comment is newer than the store.
            Some(block) if is_bare || as_comment(&block.reason) == as_comment(&found.reason) => {
                merged.bare.extend(is_bare.then_some(subject));
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

/// A reason as an element's comment can hold it: see [`Element`](crate::nft::Element).
fn as_comment(reason: &Reason) -> String {
    reason.comment().chars().map(|c| if c.is_control() || matches!(c, '"' | '\\') { '?' } else { c }).collect()
}

/// Blocks as elements, by their sets.
fn elements(blocks: &[Adopted]) -> Vec<(SetSpec, Vec<ElementInfo>)> {
    let mut sets: Vec<(SetSpec, Vec<ElementInfo>)> = Vec::new();
    for block in blocks {
        let (set, element) = responder::place(block.subject);
        let info = ElementInfo {
            key: element.key,
            end: element.end,
            timeout: block.timeout,
            expires: block.remaining,
            packets: block.packets,
            bytes: 0,
            // Where it follows, it is not waited for.
            comment: (!set.counts_each()).then(|| block.reason.comment().into()),
        };
        match sets.iter_mut().find(|(known, _)| *known == set) {
            Some((_, all)) => all.push(info),
            None => sets.push((set.into(), vec![info])),
        }
    }
    sets
}

impl Court {
    /// Puts the rules in place, together with the blocks that were stored and are gone from the kernel, and takes over those that are there.
    pub(super) fn take_over(
        &mut self,
        now: Moment,
        setup: &Setup,
        found: &Found,
        stored: Option<Stored>,
        foreign: &mut Foreign,
    ) -> Result<(), Error> {
        let (blocks, offenders, evidence, is_same_boot) = match stored {
            Some(Stored { content, is_same_boot }) => (content.blocks, content.offenders, content.evidence, is_same_boot),
            None => Default::default(),
        };
        let prefix = self.engine.policy().ipv6_prefix;
        let stored_in = |set| {
            let subjects = blocks.iter().map(|block| subject_of(block, prefix));
            subjects.filter(|subject| responder::place(*subject).0 == set).collect()
        };
        let kernel = responder::blocked_where_there(self.responder.connection(), &found.sets, stored_in)?;
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
        let Merged { mut adopt, bare, put, removed, protected, no_room } = merged;
        let (put, is_complete) = self.install(setup, put, bare, in_kernel, foreign)?;
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
        if !is_complete && let Err(error) = self.put_back(now) {
            log::warn!("blocks that were in force may be missing: {}", words(&error));
        }
        if in_kernel > 0 {
            self.journal.tell(Notice::Adopted { blocks: in_kernel });
        }
        self.tell_restored(restored, removed, protected, no_room);
        Ok(())
    }

    /// Puts the rules in place with these blocks; gives those of them that are in the kernel now, and whether the
    /// blocks that were there before still are. `bare`: what is there without comment and counter;
    /// `there`: how many are there in all.
    fn install(
        &mut self,
        setup: &Setup,
        put: Vec<Adopted>,
        bare: Vec<Subject>,
        there: usize,
        foreign: &mut Foreign,
    ) -> Result<(Vec<Adopted>, bool), Error> {
        let connection = self.responder.connection();
        let many = put.len() + there > QUIET_FROM;
        let mut install =
            |order: Order<'_>| rules::put_in_place(connection, foreign, &setup.ruleset, &setup.never_block, &setup.services, order, many);
        let elements = elements(&put);
        let error = match install(Order { elements: Elements::Beside(&elements), ..Order::default() }) {
            Ok(installed) if installed.fallback.is_some() => {
                foreign.are_bare(bare.into_iter());
                return Ok((self.put_one_by_one(put), false));
            }
            Ok(_) => {
                foreign.are_bare(put.iter().map(|block| block.subject).chain(bare));
                return Ok((put, true));
            }
            Err(error) if put.is_empty() => return Err(error),
            Err(error) => error,
        };
        log::warn!("the blocks that were stored cannot come back together with the rules, so they follow them: {}", words(&error));
        let installed = install(Order::default())?;
        foreign.are_bare(bare.into_iter());
        Ok((self.put_one_by_one(put), installed.fallback.is_none()))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::nft::Key;
    use crate::probe::{Port, Transport};

    const NOW: u64 = 10_000_000;

    fn now() -> Moment {
        Moment::from_millis(NOW)
    }

    fn subject(name: &str) -> Subject {
        name.parse().map(Subject::Network).unwrap_or_else(|_| Subject::Host(Source::of(name.parse().unwrap(), 64)))
    }

    /// Stored; it ends in so many seconds.
    fn stored(name: &str, left: Option<u64>) -> Block {
        Block {
            subject: subject(name),
            prefix: 64,
            since: Moment::from_millis(NOW - 100_000),
            expires: left.map(|left| Moment::from_millis(NOW + left * 1000)),
            port: Some(Port { transport: Transport::Tcp, number: 23 }),
            reason: Reason::Manual("stored".to_owned()),
        }
    }

    fn element(name: &str, left: Option<u64>, comment: &str) -> (Subject, ElementInfo) {
        let subject = subject(name);
        let (_, place) = responder::place(subject);
        let seconds = |left: Option<u64>| left.map(Duration::from_secs);
        let comment = Some(comment.into());
        let info = ElementInfo { key: place.key, end: place.end, timeout: seconds(left), expires: seconds(left), packets: 5, bytes: 9, comment };
        (subject, info)
    }

    fn bounds(was_there: bool) -> Bounds<'static> {
        let was_there: &'static dyn Fn(SetId) -> bool = if was_there { &|_| true } else { &|_| false };
        Bounds { prefix: 64, total: 100, was_there, must_not: &|_| false }
    }

    fn names(blocks: &[Adopted]) -> Vec<String> {
        let mut names: Vec<_> = blocks.iter().map(|block| block.subject.display(64).to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_both_have_has_the_kernels_time_and_the_stores_past() {
        let kernel = vec![element("192.0.2.1", Some(50), "by hand: stored"), element("192.0.2.2", Some(60), "syn scan: newer")];
        let merged = merge(now(), vec![stored("192.0.2.1", Some(900)), stored("192.0.2.2", Some(900))], kernel, &bounds(true));
        let [both, newer] = &merged.adopt[..] else { panic!("{merged:?}") };
        assert_eq!((both.remaining, both.packets, both.since), (Some(Duration::from_secs(50)), 5, Some(Moment::from_millis(NOW - 100_000))));
        assert_eq!(both.port.unwrap().number, 23);
        assert_eq!((newer.since, newer.port, newer.reason.to_string().as_str()), (None, None, "syn scan: newer"));
        assert_eq!((merged.put.len(), merged.removed), (0, 0));
    }

    #[test]
    fn a_reason_that_a_comment_cannot_hold_is_the_same_all_the_same() {
        let block = Block { reason: Reason::Manual("say \"no\"".to_owned()), ..stored("192.0.2.1", None) };
        let merged = merge(now(), vec![block], vec![element("192.0.2.1", None, "by hand: say ?no?")], &bounds(true));
        assert_eq!(merged.adopt[0].reason, Reason::Manual("say \"no\"".to_owned()));
    }

    #[test]
    fn what_only_the_store_has_was_taken_out_or_comes_back() {
        let all = || vec![stored("192.0.2.1", None), stored("192.0.2.2", Some(900)), stored("192.0.2.3", Some(3))];
        let same_boot = merge(now(), all(), Vec::new(), &bounds(true));
        assert_eq!((same_boot.put.len(), same_boot.removed), (0, 2), "what was to end within seconds was nobody's hand");
        let reboot = merge(now(), all(), Vec::new(), &bounds(false));
        assert_eq!((names(&reboot.put), reboot.removed), (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned(), "192.0.2.3".to_owned()], 0));
        let back = &reboot.put[1];
        assert_eq!((back.timeout, back.remaining), (Some(Duration::from_secs(1000)), Some(Duration::from_secs(900))));
    }

    #[test]
    fn what_must_not_be_blocked_and_what_has_no_room_stays_out() {
        let all = vec![stored("192.0.2.1", Some(10)), stored("192.0.2.2", None), stored("192.0.2.3", Some(20)), stored("192.0.2.4", None)];
        let must_not = |of: Subject| of == subject("192.0.2.4");
        let bounds = Bounds { prefix: 64, total: 3, was_there: &|_| false, must_not: &must_not };
        let merged = merge(now(), all, vec![element("192.0.2.9", None, "x")], &bounds);
        assert_eq!((names(&merged.put), merged.protected, merged.no_room), (vec!["192.0.2.2".to_owned(), "192.0.2.3".to_owned()], 1, 1));
    }

    #[test]
    fn a_prefix_of_another_length_comes_back_as_the_network_that_was_judged() {
        let block = Block { prefix: 56, ..stored("2001:db8:0:100::", None) };
        assert_eq!(names(&merge(now(), vec![block], Vec::new(), &bounds(false)).put), ["2001:db8:0:100::/56"]);
    }

    #[test]
    fn networks_that_overlap_do_not_keep_the_others_out() {
        let all = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "11.0.0.0/8", "172.16.0.0/12"].map(|name| stored(name, None));
        let merged = merge(now(), all.into(), vec![element("172.16.7.0/24", None, "x")], &bounds(false));
        assert_eq!(names(&merged.put), ["10.0.0.0/8", "11.0.0.0/8"]);
        let sets = elements(&merged.put);
        assert_eq!((sets.len(), sets[0].0, sets[0].1[0].key), (1, SetId::BlockedNets4.spec(), Key::V4([10, 0, 0, 0].into())));
    }

    proptest! {
        /// The store and the kernel are what they were at the kill; which of the two had the last word of each subject is anybody's guess, but an
        /// acknowledged word is in both. Then what was acknowledged as blocked is blocked, and what was acknowledged as unblocked is not.
        #[test]
        fn what_was_acknowledged_holds_after_the_merge(
            words in proptest::collection::vec((0u8..12, any::<bool>(), any::<bool>()), 0..40),
            reboot in any::<bool>(),
        ) {
            let (mut kernel, mut store) = (BTreeMap::new(), BTreeMap::new());
            let mut acknowledged = BTreeMap::new();
            for (n, block, is_acknowledged) in words {
                let name = format!("192.0.2.{n}");
                // The kernel comes first, then the store, then the answer.
                if block { kernel.insert(name.clone(), ()); } else { kernel.remove(&name); }
                if is_acknowledged {
                    if block { store.insert(name.clone(), ()); } else { store.remove(&name); }
                    acknowledged.insert(name, block);
                } else {
                    acknowledged.remove(&name);
                }
            }
            let elements = if reboot { Vec::new() } else { kernel.keys().map(|name| element(name, None, "by hand: stored")).collect() };
            let merged = merge(now(), store.keys().map(|name| stored(name, None)).collect(), elements, &bounds(!reboot));
            let mut after = names(&merged.adopt);
            after.extend(names(&merged.put));
            for (name, block) in acknowledged {
                prop_assert_eq!(after.contains(&name), block, "{}", name);
            }
            let in_both = after.iter().collect::<std::collections::BTreeSet<_>>().len();
            prop_assert_eq!(in_both, after.len());
        }
    }
}
