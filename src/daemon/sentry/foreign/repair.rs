//! What is done about changes of other programs: put right, or respected.
//!
//! A table, chain, set or rule that is gone or other than it was is made again, with every block and what is left of its time. An element that
//! somebody takes out of the blocked sets is an unblock, one that somebody puts in is a block by hand: that is the administrator's way to speak
//! through nft. Exemptions are the configuration's, and are put back.
//!
//! Never here: another table, a wait, work without a bound: what does not fit between two looks at packets is left for the next.

use std::time::Instant;

use super::change::Change;
use super::{Author, Found};
use crate::config::OwnTable;
use crate::daemon::sentry::court::Court;
use crate::daemon::sentry::reflex::spared;
use crate::daemon::sentry::{Sentry, rules};
use crate::engine::{BlockView, Engine, Moment, Subject};
use crate::journal::Notice;
use crate::nft::{Element, ElementInfo, Elements, Error, Installed, Key, Order, SetSpec, TableOwner};
use crate::responder::{BLOCKED, host, place, words};
use crate::ruleset::SetId;

/// Elements that others changed and that are looked after before packets are looked at again: two milliseconds.
const ELEMENTS_A_WAKE: usize = 500;

/// Blocks that come back in the same transaction as the rules: some 30 ms of the kernel's time.
const FIRST_BLOCKS: usize = 20_000;

/// The others follow, so many between two looks at packets.
pub(super) const BLOCKS_A_WAKE: usize = 2000;

/// Elements that get their comments and counters between two looks at packets: some five milliseconds.
const COMPLETED_A_WAKE: usize = 1000;

impl Found {
    /// Somebody put this in, or gave it another time: it counts from now on.
    fn put_in(&mut self, court: &mut Court, now: Moment, subject: Subject, info: ElementInfo) {
        let was_there = court.engine.blocked(subject).is_some();
        if court.taken_from(now, subject, info) {
            *(if was_there { &mut self.changed } else { &mut self.taken }) += 1;
        }
    }
}

impl Sentry {
    /// Hears what others did, and does something about it. Whether there is more to hear.
    pub(in crate::daemon::sentry) fn watch_others(&mut self, now: Moment) -> bool {
        let more = self.foreign.hear();
        self.look_at_elements(now);
        if std::mem::take(&mut self.foreign.pending.networks) {
            self.look_at_networks(now);
        }
        if self.foreign.lost && self.foreign.loss_not_before(now).is_none() {
            (self.foreign.lost, self.foreign.lost_at) = (false, Some(now));
            // Who it was is among what was lost. Elements may be too, and blocks are rather put back than lost.
            self.foreign.author = Author::default();
            self.foreign.pending.structure = true;
            self.foreign.unsure = true;
            // What is there already stays as it is.
            self.foreign.backlog = self.court.engine.blocks().map(|block| block.subject).collect();
        }
        let is_due = self.foreign.pending.structure || self.foreign.pending.allowed;
        if is_due && self.foreign.pace.not_before(now).is_none() {
            self.repair(now);
        }
        self.work_off(now);
        self.look_for_unknown();
        self.tell_changes(now);
        more
    }

    /// Elements of hosts that others took out or put in: the kernel is asked what is true now.
    fn look_at_elements(&mut self, now: Moment) {
        let pending = &mut self.foreign.pending;
        let (removed, list) = if pending.removed.is_empty() { (false, &mut pending.added) } else { (true, &mut pending.removed) };
        let Some(set) = list.front().map(|(set, _)| *set) else { return };
        // Of one set, in the order in which it was told.
        let many = list.iter().take(ELEMENTS_A_WAKE).take_while(|(other, _)| *other == set).count();
        let keys: Vec<Key> = list.drain(..many).map(|(_, key)| key).collect();
        let court = &mut self.court;
        let there = match court.responder.connection().get_elements(set, &keys) {
            Ok(there) => there,
            // A set that is gone has nothing in it; that it is gone is another notification.
            Err(error) if error.is_not_found() => vec![None; keys.len()],
            Err(error) => {
                // Not to know is not to unblock: what is in the books goes back where it is missing.
                log::warn!("what others changed cannot be read: {}", words(&error));
                self.foreign.lost = true;
                return;
            }
        };
        for (key, there) in keys.into_iter().zip(there) {
            let Some(subject) = host(key) else { continue };
            match there {
                None if removed => self.foreign.found.lifted += u64::from(court.engine.removed_by_hand(now, subject, &mut court.orders)),
                Some(info) if !removed => self.foreign.found.put_in(court, now, subject, info),
                _ => {}
            }
        }
        court.perform(now);
    }

    /// Networks are few: what the kernel has is compared with the books.
    fn look_at_networks(&mut self, now: Moment) {
        let court = &mut self.court;
        let Ok(there) = crate::responder::blocked_networks(court.responder.connection()) else { return };
        let is_network = |block: &BlockView<'_>| matches!(block.subject, Subject::Network(_));
        let gone: Vec<Subject> = court
            .engine
            .blocks()
            .filter(is_network)
            .map(|block| block.subject)
            .filter(|subject| there.iter().all(|(known, _)| known != subject))
            .collect();
        for subject in gone {
            self.foreign.found.lifted += u64::from(court.engine.removed_by_hand(now, subject, &mut court.orders));
        }
        for (subject, info) in there {
            self.foreign.found.put_in(court, now, subject, info);
        }
        court.perform(now);
    }

    /// Makes the table what it should be.
    fn repair(&mut self, now: Moment) {
        let change = std::mem::take(&mut self.foreign.pending);
        (self.foreign.pending.removed, self.foreign.pending.added) = (change.removed, change.added);
        let last_straw = self.foreign.pace.is_last_straw(now);
        if last_straw && self.foreign.own_table == OwnTable::Auto {
            self.foreign.hold = TableOwner::Owned;
        }
        let begun = Instant::now();
        let exempt = |sentry: &mut Self, installed: &Installed| {
            if !change.allowed && installed.fallback.is_none() {
                return Ok(());
            }
            rules::protect(sentry.court.responder.connection(), &sentry.ruleset, &sentry.never_block)
        };
        match self.make_right(now, change.anew).and_then(|installed| exempt(self, &installed).map(|()| installed)) {
            Ok(installed) if installed.is_unchanged() => {
                self.foreign.found.exempt |= change.allowed;
                if change.allowed {
                    self.note_repair(now, last_straw);
                }
            }
            Ok(installed) => {
                let is_anew = BLOCKED.iter().any(|set| installed.created(*set));
                let blocks = self.court.engine.blocks().count();
                if installed.fallback.is_some() {
                    // The sets of blocks may be empty: all blocks follow. What is there already stays as it is.
                    self.foreign.bare.clear();
                    self.foreign.backlog = self.court.engine.blocks().map(|block| block.subject).collect();
                } else if is_anew {
                    let mut subjects = self.court.engine.blocks().map(|block| block.subject);
                    self.foreign.are_bare(subjects.by_ref().take(FIRST_BLOCKS));
                    self.foreign.backlog = subjects.collect();
                }
                if installed.created(SetId::Services)
                    && let Err(error) = rules::seed_services(self.court.responder.connection(), &self.foreign.services)
                {
                    log::warn!("{}", words(&error));
                }
                let what = if is_anew { format!("the rules and {blocks} blocks") } else { "the rules".to_owned() };
                let remedy = format!("{what} were put back within {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
                let fighting = self.foreign.pace.is_fighting(now);
                self.note_repair(now, last_straw);
                if !fighting && !last_straw {
                    self.tell_remedy(now, remedy);
                }
            }
            Err(error) => {
                self.foreign.pace.note(now, false);
                self.foreign.pending.join(Change { structure: true, anew: change.anew, allowed: change.allowed, ..Change::default() });
                if !std::mem::replace(&mut self.foreign.failure_told, true) {
                    let text = format!("the table inet portsentry was changed by {} and cannot be put right", self.foreign.author);
                    self.court.journal.tell(Notice::Error(format!("{text}: {}; it is tried again", words(&error))));
                }
            }
        }
    }

    fn note_repair(&mut self, now: Moment, last_straw: bool) {
        let foreign = &mut self.foreign;
        foreign.pace.note(now, true);
        foreign.failure_told = false;
        foreign.count += 1;
        foreign.last = Some(foreign.author.clone());
        if last_straw {
            let remedy = if foreign.hold == TableOwner::Owned {
                "the table is closed to other programs from now on"
            } else {
                "from now on it is put right ever later, a minute at the most; find out what that program wants"
            };
            let text = format!("{} changes the table inet portsentry again and again: {remedy}", foreign.author);
            self.court.journal.tell(Notice::Error(text));
            log::debug!("the next repair waits for {:?}", foreign.pace.wait());
        }
    }

    /// One transaction, with what the books say of the sets that have to be made.
    fn make_right(&mut self, now: Moment, anew: bool) -> Result<Installed, Error> {
        let many = self.court.has_many();
        let Self { court, never_block, ruleset, foreign, .. } = self;
        let Court { engine, responder, .. } = court;
        let books = |set: SetSpec| match SetId::of(set)? {
            id @ (SetId::Allowed4 | SetId::Allowed6) => Some(rules::exempt(never_block, id).iter().map(as_found).collect()),
            id @ (SetId::Spared4 | SetId::Spared6) => spared(ruleset, never_block, id).map(|elements| elements.iter().map(as_found).collect()),
            id @ (SetId::Blocked4 | SetId::Blocked6 | SetId::BlockedNets4 | SetId::BlockedNets6) => {
                let here = engine.blocks().take(FIRST_BLOCKS).filter(|block| place(block.subject).0 == id);
                Some(here.filter_map(|block| standing(now, &block, !id.counts_each())).collect())
            }
            _ => None,
        };
        let order = Order { elements: Elements::Instead(&books), recreate: anew, ..Order::default() };
        foreign.install(responder.connection(), ruleset, order, many)
    }

    /// Puts back some more of the blocks that did not go with the rules.
    fn work_off(&mut self, now: Moment) {
        if self.foreign.backlog.is_empty() {
            return self.complete(now);
        }
        let many = self.foreign.backlog.len().min(BLOCKS_A_WAKE);
        let subjects: Vec<Subject> = self.foreign.backlog.drain(..many).collect();
        for set in self.ruleset.sets.iter().filter(|set| BLOCKED.iter().any(|id| set.id == *id)) {
            let elements = still_blocked(&self.court.engine, now, &subjects, set.id);
            if let Err(error) = self.court.responder.connection().put_back(set, &elements) {
                log::warn!("{}", words(&error));
                // The table is gone again, or was made anew by others: everything once more.
                self.foreign.backlog.clear();
                self.foreign.pending.join(Change { structure: true, anew: true, ..Change::default() });
                return;
            }
        }
    }

    /// Gives some more of the elements that came with the rules their comments and counters.
    fn complete(&mut self, now: Moment) {
        let many = self.foreign.bare.len().min(COMPLETED_A_WAKE);
        if many == 0 {
            return;
        }
        let subjects: Vec<Subject> = self.foreign.bare.drain(..many).collect();
        for set in self.ruleset.sets.iter().filter(|set| set.id.element_counters) {
            let elements = still_blocked(&self.court.engine, now, &subjects, set.id);
            if let Err(error) = self.court.responder.connection().complete(set, &elements) {
                // They block all the same. If the table is gone, that is another notification.
                log::warn!("blocks go on without comments and counters: {}", words(&error));
                self.foreign.bare.clear();
                return;
            }
        }
    }

    /// Tells what single elements came to, when all of them were looked at.
    fn tell_changes(&mut self, now: Moment) {
        if !self.foreign.pending.has_no_elements() {
            return;
        }
        let Found { lifted, taken, changed, exempt } = std::mem::take(&mut self.foreign.found);
        let mut remedies = Vec::new();
        if lifted > 0 {
            remedies.push(format!("{lifted} removed from the blocked sets, which counts as unblocked"));
        }
        if taken > 0 {
            remedies.push(format!("{taken} added to the blocked sets, taken over as blocked by hand"));
        }
        if changed > 0 {
            remedies.push(format!("{changed} given another time, which counts"));
        }
        if exempt {
            remedies.push("the never-block addresses were put back".to_owned());
        }
        if !remedies.is_empty() {
            self.tell_remedy(now, remedies.join("; "));
        }
    }

    fn tell_remedy(&mut self, now: Moment, mut remedy: String) {
        if !self.foreign.may_tell(now) {
            return;
        }
        let untold = std::mem::take(&mut self.foreign.untold);
        if untold > 0 {
            remedy.push_str(&format!("; {untold} changes before this were not told"));
        }
        let Author { pid, program } = self.foreign.author.clone();
        let program = if program.is_empty() { "an unknown program".to_owned() } else { program };
        self.court.journal.tell(Notice::ForeignChange { pid, program, remedy });
    }
}

/// Those of the subjects that belong into this set, as they go back into it. Lifted meanwhile is lifted.
fn still_blocked(engine: &Engine, now: Moment, subjects: &[Subject], set: SetSpec) -> Vec<ElementInfo> {
    let here = subjects.iter().filter(|subject| set == place(**subject).0).filter_map(|subject| engine.blocked(*subject));
    here.filter_map(|block| standing(now, &block, true)).collect()
}

/// A block as it goes back into its set, with its comment or without; `None` if it ends this very moment.
fn standing(now: Moment, block: &BlockView<'_>, commented: bool) -> Option<ElementInfo> {
    let left = block.expires.map(|at| at.since(now));
    if left.is_some_and(|left| left.is_zero()) {
        return None;
    }
    let (_, element) = place(block.subject);
    Some(ElementInfo {
        key: element.key,
        end: element.end,
        timeout: left.map(|left| block.timeout.unwrap_or(left).max(left)),
        expires: left,
        packets: block.packets,
        // Nobody keeps these in the books.
        bytes: 0,
        comment: commented.then(|| block.reason.comment().into()),
    })
}

fn as_found(element: &Element<'_>) -> ElementInfo {
    ElementInfo { key: element.key, end: element.end, timeout: None, expires: None, packets: 0, bytes: 0, comment: None }
}
