//! Other programs in our table: what they did is heard at once, and put right or respected.
//!
//! A table, chain, set or rule that is gone or other than it was is made again, with every block and what is left of its time. An element that
//! somebody takes out of the blocked sets is an unblock, one that somebody puts in is a block by hand: that is the administrator's way to speak
//! through nft. Exemptions are the configuration's, and are put back.
//!
//! Never here: another table, a wait, work without a bound. What a transaction of others did is known from the kernel's notifications
//! (`NFNLGRP_NFTABLES`); our own come from our own port id and are passed over.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::court::Court;
use super::pace::Pace;
use super::reflex::spared;
use super::{Sentry, rules};
use crate::config::OwnTable;
use crate::engine::{BlockView, Moment, Source, Subject};
use crate::journal::Notice;
use crate::nft::{Connection, Element, ElementInfo, Elements, Error, Heard, Hold, Installed, Key, Monitor, Notification, Order, Ruleset, SetId};
use crate::probe::Port;
use crate::responder::{place, words};

/// Datagrams of notifications that are read before packets are looked at again. Some eighteen elements are in one: those of [`BLOCKS_A_WAKE`] of our
/// own are passed over within a wake, so that they never pile up.
const HEARD_A_WAKE: usize = 256;

/// Elements that others changed and that are looked after before packets are looked at again: two milliseconds.
const ELEMENTS_A_WAKE: usize = 500;

/// Elements that others changed and that wait to be looked after: 16 MB. Past that the sets are put back as they were.
pub(super) const ELEMENTS_MAX: usize = 1 << 19;

/// Blocks that come back in the same transaction as the rules: some 30 ms of the kernel's time.
pub(super) const FIRST_BLOCKS: usize = 20_000;

/// With so many blocks the kernel is not asked to tell us of our own elements.
pub(super) const QUIET_FROM: usize = 500;

/// The others follow, so many between two looks at packets.
const BLOCKS_A_WAKE: usize = 2000;

/// Elements that get their comments and counters between two looks at packets: some five milliseconds.
const COMPLETED_A_WAKE: usize = 1000;

/// Lines a minute about what others did. A script that adds addresses one by one makes as many changes.
pub(super) const TOLD_A_MINUTE: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// After a loss of notifications everything is looked at; not more often than this.
const LOSS_EVERY: Duration = Duration::from_secs(10);

/// Who changed the table: what the kernel says of the process that sent the transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

impl std::fmt::Display for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, program } = self;
        if program.is_empty() { f.write_str("an unknown program") } else { write!(f, "{program} (process {pid})") }
    }
}

/// What was done about other programs since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// How often the table was put right.
    pub count: u64,
    /// Who made that necessary last.
    pub last: Option<Author>,
    /// The table is being changed again and again.
    pub fighting: bool,
}

/// One transaction of somebody, or what is left of several to be looked after.
#[derive(Debug, Default)]
struct Change {
    /// Chains, rules, sets or what the configuration puts into them.
    structure: bool,
    /// The table, or a set of blocks, was removed: what stands in its place is not ours.
    anew: bool,
    /// Exemptions.
    allowed: bool,
    /// Blocked networks.
    networks: bool,
    removed: VecDeque<(SetId, Key)>,
    added: VecDeque<(SetId, Key)>,
}

impl Change {
    fn take(&mut self, notification: Notification) {
        match notification {
            Notification::TableDeleted => (self.structure, self.anew) = (true, true),
            Notification::SetDeleted(name) => {
                self.structure = true;
                self.anew |= matches!(SetId::from_name(&name), Some(SetId::Blocked4 | SetId::Blocked6 | SetId::BlockedNets4 | SetId::BlockedNets6));
            }
            Notification::TableAdded | Notification::Added | Notification::ChainDeleted(_) | Notification::RuleDeleted { .. } => {
                self.structure = true
            }
            Notification::ElementsDeleted { set, keys } => self.elements(set, keys, |change| &mut change.removed),
            Notification::ElementsAdded { set, keys } => self.elements(set, keys, |change| &mut change.added),
            Notification::Generation(_) => {}
        }
    }

    fn elements(&mut self, set: SetId, keys: Vec<Key>, list: impl Fn(&mut Self) -> &mut VecDeque<(SetId, Key)>) {
        match set {
            SetId::Blocked4 | SetId::Blocked6 if self.removed.len() + self.added.len() + keys.len() > ELEMENTS_MAX => {
                (self.structure, self.anew) = (true, true);
            }
            SetId::Blocked4 | SetId::Blocked6 => list(self).extend(keys.into_iter().map(|key| (set, key))),
            SetId::BlockedNets4 | SetId::BlockedNets6 => self.networks = true,
            SetId::Allowed4 | SetId::Allowed6 | SetId::Spared4 | SetId::Spared6 => self.allowed = true,
            SetId::TcpPorts | SetId::UdpPorts | SetId::Protocols | SetId::Interfaces => self.structure = true,
            // What the rules remember, which others may forget.
            SetId::Services => {}
            SetId::Seen4 | SetId::Seen6 | SetId::Score4 | SetId::Score6 | SetId::Suspect4 | SetId::Suspect6 | SetId::Held4 | SetId::Held6 => {}
        }
    }

    fn is_nothing(&self) -> bool {
        !self.structure && !self.allowed && !self.networks && self.has_no_elements()
    }

    fn has_no_elements(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// Adds a later one.
    fn join(&mut self, mut later: Self) {
        if later.anew {
            // What was in the table went with it, and nobody meant single elements.
            later.removed.clear();
            later.added.clear();
        }
        self.structure |= later.structure;
        self.anew |= later.anew;
        self.allowed |= later.allowed;
        self.networks |= later.networks;
        if self.removed.len() + self.added.len() + later.removed.len() + later.added.len() > ELEMENTS_MAX {
            (self.structure, self.anew) = (true, true);
            return;
        }
        self.removed.append(&mut later.removed);
        self.added.append(&mut later.added);
    }
}

/// What was found out about changes, until it is told.
#[derive(Debug, Default)]
struct Found {
    lifted: u64,
    taken: u64,
    changed: u64,
    exempt: bool,
}

/// What is known of the changes of others.
pub(super) struct Foreign {
    monitor: Monitor,
    /// The port id of the connection that our own changes come by.
    own: u32,
    /// The transaction that is being heard.
    current: Change,
    /// What is to be looked after.
    pending: Change,
    lost: bool,
    lost_at: Option<Moment>,
    author: Author,
    found: Found,
    /// Blocks that are still to be put back.
    backlog: VecDeque<Subject>,
    /// Blocks whose elements have neither comment nor counter yet.
    bare: VecDeque<Subject>,
    pace: Pace,
    failure_told: bool,
    own_table: OwnTable,
    /// Whose the table is to be.
    hold: Hold,
    /// What local services listened on when that was asked last.
    services: Vec<Port>,
    count: u64,
    last: Option<Author>,
    told: u32,
    told_from: Option<Moment>,
    untold: u64,
}

impl Foreign {
    /// Listens from now on; `own`: the port id of the connection that changes the table.
    pub(super) fn open(own: u32, own_table: OwnTable, services: Vec<Port>) -> Result<Self, Error> {
        Ok(Self {
            monitor: Monitor::open()?,
            own,
            current: Change::default(),
            pending: Change::default(),
            lost: false,
            lost_at: None,
            author: Author::default(),
            found: Found::default(),
            backlog: VecDeque::new(),
            bare: VecDeque::new(),
            pace: Pace::default(),
            failure_told: false,
            own_table,
            hold: if own_table == OwnTable::Yes { Hold::Owned } else { Hold::Free },
            services,
            count: 0,
            last: None,
            told: 0,
            told_from: None,
            untold: 0,
        })
    }

    /// Whose the table is to be.
    pub(super) fn hold(&self) -> Hold {
        self.hold
    }

    /// Has the kernel's table made what it should be, by the connection that changes it, and as nobody's table where the kernel has no owners that
    /// persist. `many`: so many elements go with it that nobody need be told of each of our own.
    ///
    /// # Errors
    /// As [`Connection::install`].
    pub(super) fn install(&mut self, connection: &mut Connection, ruleset: &Ruleset, order: Order<'_>, many: bool) -> Result<Installed, Error> {
        let quiet = many && self.monitor.listen(false).is_ok();
        let mut result = connection.install_with(ruleset, Order { hold: self.hold, ..order });
        if self.hold == Hold::Owned && result.as_ref().is_err_and(Error::is_unsupported) {
            (self.own_table, self.hold) = (OwnTable::No, Hold::Free);
            result = connection.install_with(ruleset, Order { hold: self.hold, ..order });
        }
        if quiet {
            self.monitor.listen(true)?;
            // Somebody else's transaction meanwhile was not heard.
            let is_ours = |installed: &Installed| connection.generation().is_ok_and(|generation| generation == installed.generation);
            self.lost |= !result.as_ref().is_ok_and(is_ours);
        }
        result
    }

    /// What listens now.
    pub(super) fn set_services(&mut self, services: Vec<Port>) {
        self.services = services;
    }

    /// These came without comments and counters, which follow.
    pub(super) fn are_bare(&mut self, subjects: impl Iterator<Item = Subject>) {
        self.bare = subjects.filter(|subject| place(*subject).0.counts_each()).collect();
    }

    pub(super) fn repairs(&self, now: Moment) -> Repairs {
        Repairs { count: self.count, last: self.last.clone(), fighting: self.pace.is_fighting(now) }
    }

    /// When there is something to do that no notification brings.
    pub(super) fn next_timer(&self, now: Moment) -> Option<Moment> {
        let waits = self.lost || self.pending.structure || self.pending.allowed;
        let soon = !self.backlog.is_empty() || !self.bare.is_empty() || !self.pending.has_no_elements();
        let next = waits.then(|| self.pace.not_before(now).into_iter().chain(self.loss_not_before(now)).max().unwrap_or(now));
        if soon { Some(now) } else { next }
    }

    fn loss_not_before(&self, now: Moment) -> Option<Moment> {
        self.lost_at.map(|at| at.after(LOSS_EVERY)).filter(|at| self.lost && !self.pending.structure && now < *at)
    }

    /// Reads what there is, so much of it. Whether there may be more.
    fn hear(&mut self) -> bool {
        let Self { monitor, own, current, pending, lost, author, .. } = self;
        for _ in 0..HEARD_A_WAKE {
            let heard = monitor.hear(Some(*own), |notification| {
                if let Notification::Generation(event) = notification {
                    let change = std::mem::take(current);
                    if !change.is_nothing() {
                        *author = Author { pid: event.pid, program: event.program };
                        pending.join(change);
                    }
                } else {
                    current.take(notification);
                }
            });
            match heard {
                Ok(Heard::Some) => {}
                Ok(Heard::Nothing) => return false,
                Ok(Heard::Lost) => {
                    *current = Change::default();
                    *lost = true;
                }
                Err(error) => {
                    log::warn!("{}", words(&error));
                    return false;
                }
            }
        }
        true
    }

    /// Whether one more line may be told.
    fn may_tell(&mut self, now: Moment) -> bool {
        if self.told_from.is_none_or(|from| now.since(from) >= MINUTE) {
            (self.told_from, self.told) = (Some(now), 0);
        }
        self.told += 1;
        let may = self.told <= TOLD_A_MINUTE;
        self.untold += u64::from(!may);
        may
    }
}

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Sentry {
    /// Hears what others did, and does something about it. Whether there is more to hear.
    pub(super) fn watch_others(&mut self, now: Moment) -> bool {
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
            // What is there already stays as it is.
            self.foreign.backlog = self.court.engine.blocks().map(|block| block.subject).collect();
        }
        let is_due = self.foreign.pending.structure || self.foreign.pending.allowed;
        if is_due && self.foreign.pace.not_before(now).is_none() {
            self.repair(now);
        }
        self.work_off(now);
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
            let subject = match key.address() {
                Some(IpAddr::V4(address)) => Subject::Host(Source::V4(address)),
                Some(IpAddr::V6(address)) => Subject::Host(Source::V6(address)),
                None => continue,
            };
            match there {
                None if removed => self.foreign.found.lifted += u64::from(court.engine.removed_by_hand(now, subject, &mut court.orders)),
                Some(info) if !removed => {
                    let was_there = court.engine.blocked(subject).is_some();
                    if court.taken_from(now, subject, info) {
                        let found = &mut self.foreign.found;
                        *(if was_there { &mut found.changed } else { &mut found.taken }) += 1;
                    }
                }
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
            let was_there = court.engine.blocked(subject).is_some();
            if court.taken_from(now, subject, info) {
                let found = &mut self.foreign.found;
                *(if was_there { &mut found.changed } else { &mut found.taken }) += 1;
            }
        }
        court.perform(now);
    }

    /// Makes the table what it should be.
    fn repair(&mut self, now: Moment) {
        let change = std::mem::take(&mut self.foreign.pending);
        (self.foreign.pending.removed, self.foreign.pending.added) = (change.removed, change.added);
        let last_straw = self.foreign.pace.is_last_straw(now);
        if last_straw && self.foreign.own_table == OwnTable::Auto {
            self.foreign.hold = Hold::Owned;
        }
        let begun = Instant::now();
        let exempt = |sentry: &mut Self| {
            if !change.allowed {
                return Ok(());
            }
            rules::protect(sentry.court.responder.connection(), &sentry.ruleset, &sentry.never_block)
        };
        match self.make_right(now, change.anew).and_then(|installed| exempt(self).map(|()| installed)) {
            Ok(installed) if installed.steps.is_empty() => {
                self.foreign.found.exempt |= change.allowed;
                if change.allowed {
                    self.note_repair(now, last_straw);
                }
            }
            Ok(installed) => {
                let is_anew = installed.steps.iter().any(|step| step.starts_with("add set blocked"));
                let blocks = self.court.engine.blocks().count();
                if is_anew {
                    let mut subjects = self.court.engine.blocks().map(|block| block.subject);
                    self.foreign.are_bare(subjects.by_ref().take(FIRST_BLOCKS));
                    self.foreign.backlog = subjects.collect();
                }
                if installed.steps.iter().any(|step| step == "add set services")
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
            let remedy = if foreign.hold == Hold::Owned {
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
        let books = |id: SetId| match id {
            SetId::Allowed4 | SetId::Allowed6 => Some(rules::exempt(never_block, id).iter().map(as_found).collect()),
            SetId::Spared4 | SetId::Spared6 => spared(ruleset, never_block, id).map(|elements| elements.iter().map(as_found).collect()),
            SetId::Blocked4 | SetId::Blocked6 | SetId::BlockedNets4 | SetId::BlockedNets6 => {
                let here = engine.blocks().take(FIRST_BLOCKS).filter(|block| place(block.subject).0 == id);
                Some(here.filter_map(|block| standing(now, &block, !id.counts_each())).collect())
            }
            _ => None,
        };
        let order = Order { elements: Elements::Instead(&books), anew, ..Order::default() };
        foreign.install(responder.connection(), ruleset, order, many)
    }

    /// Puts back some more of the blocks that did not go with the rules.
    fn work_off(&mut self, now: Moment) {
        if self.foreign.backlog.is_empty() {
            return self.complete(now);
        }
        let many = self.foreign.backlog.len().min(BLOCKS_A_WAKE);
        let subjects: Vec<Subject> = self.foreign.backlog.drain(..many).collect();
        for set in self.ruleset.sets.iter().filter(|set| crate::responder::BLOCKED.contains(&set.id)) {
            let engine = &self.court.engine;
            // Lifted meanwhile is lifted.
            let here = subjects.iter().filter(|subject| place(**subject).0 == set.id).filter_map(|subject| engine.blocked(*subject));
            let elements: Vec<ElementInfo> = here.filter_map(|block| standing(now, &block, true)).collect();
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
        for set in self.ruleset.sets.iter().filter(|set| set.id.counts_each()) {
            let engine = &self.court.engine;
            let here = subjects.iter().filter(|subject| place(**subject).0 == set.id).filter_map(|subject| engine.blocked(*subject));
            let elements: Vec<ElementInfo> = here.filter_map(|block| standing(now, &block, true)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> Key {
        Key::from(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn elements_that_went_with_their_table_are_nobodys_word() {
        let mut change = Change::default();
        change.take(Notification::ElementsDeleted { set: SetId::Blocked4, keys: vec![key(1)] });
        change.take(Notification::TableDeleted);
        let mut pending = Change::default();
        pending.join(change);
        assert!(pending.structure && pending.anew && pending.has_no_elements());
    }

    #[test]
    fn what_waits_is_bounded_and_past_that_the_sets_are_made_anew() {
        let mut change = Change::default();
        for _ in 0..=ELEMENTS_MAX / 1000 {
            change.take(Notification::ElementsDeleted { set: SetId::Blocked4, keys: vec![key(1); 1000] });
        }
        assert!(change.anew && change.removed.len() <= ELEMENTS_MAX);
    }

    #[test]
    fn what_the_rules_remember_may_be_forgotten() {
        let mut change = Change::default();
        change.take(Notification::ElementsDeleted { set: SetId::Services, keys: vec![Key::Service(6, 22)] });
        assert!(change.is_nothing());
        change.take(Notification::ElementsDeleted { set: SetId::TcpPorts, keys: vec![Key::Port(22)] });
        assert!(change.structure);
    }
}
