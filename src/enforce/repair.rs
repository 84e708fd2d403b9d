//! What other programs did to our table: noticed at once, repaired where it must not be, respected
//! where it is their right.
//!
//! An element that another program deletes is an unblock, one that it adds a block. Everything else
//! in the table is restored. When two programs undo each other's work again and again, ours becomes slower and says
//! so, or takes ownership of the table (`own_table`).
//!
//! Never here: another table, a wait, work without a bound.

mod reading;

use std::time::Instant;

use super::backlog::SLOWED_PER_WAKE;
use super::drift::{Drift, Findings};
use super::element::{BLOCKED, HOSTS, is_unproven_set};
use super::enforcer::{Enforcer, Observer, Summary};
use super::executor::Executor;
use super::kernel::{Author, Kernel, Wanted};
use super::networks::Family;
use super::reconcile::{Origin, Step, reconcile_hosts};
use super::start::Write;
use crate::config::OwnTable;
use crate::engine::{BlockView, MonoTime, Reason, Source};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::nft::{Element, Key, TableOwner};

/// Intervals that are read in between packets. More are read by a thread.
const INTERVALS_INLINE_MAX: usize = 1000;

/// Elements of a dump that are compared with the engine's blocks before packets are looked at: a
/// millisecond.
const KEYS_PER_WAKE: usize = 10_000;

/// Elements that others changed and that are looked at before packets are: two milliseconds.
const ELEMENTS_PER_WAKE: usize = 500;

/// Intervals of a dump that are dealt with before packets are looked at: two milliseconds if all
/// are new.
const INTERVALS_PER_WAKE: usize = 250;

impl Findings {
    pub(super) fn add(&mut self, summary: Summary) {
        self.lifted += summary.unblocked;
        self.adopted += summary.adopted;
        self.retimed += summary.retimed;
        self.normalised += summary.normalised;
    }
}

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// Receives what others did, and does something about it. Whether there is more to receive.
    pub fn watch(&mut self, now: MonoTime) -> bool {
        let more = self.receive();
        self.look_at_elements(now);
        self.look_at_networks(now);
        if self.drift.lost && self.drift.loss_not_before(now).is_none() {
            (self.drift.lost, self.drift.lost_at) = (false, Some(now));
            // Who it was is among what was lost. Elements may be too, and blocks are rather
            // restored than lost.
            self.drift.author = Author::default();
            self.drift.pending.structure = true;
            self.drift.read.join(Wanted { hosts: true, networks: true, exemptions: true });
            // What is there already stays as it is.
            let placement = self.executor.placement;
            let sources = self.engine.blocks().map(|block| block.source);
            let hosts = sources.filter(|source| !placement.is_network(*source));
            self.backlog.restore(hosts);
        }
        if self.drift.pending.structure && self.drift.fight.not_before(now).is_none() {
            self.repair(now);
        }
        self.work_off(now);
        self.read_aside(now);
        self.report_findings(now);
        more
    }

    /// When there is something to do that no notification brings.
    pub fn next_timer(&self, now: MonoTime) -> Option<MonoTime> {
        let exemptions = (!self.exemptions.is_settled()).then_some(now);
        [self.drift.next_timer(now), self.backlog.next_timer(now), exemptions]
            .into_iter()
            .flatten()
            .min()
    }

    /// Deals with what others did so far, as much as there is, so that an administrator's command
    /// meets what is true.
    pub(crate) fn settle(&mut self, now: MonoTime) {
        self.receive();
        while !self.drift.pending.has_no_elements() {
            self.look_at_elements(now);
        }
        self.look_at_networks(now);
        self.delete_again();
    }

    /// Whether the kernel has every host that the engine has, as far as is known: nothing waits to be
    /// restored, read again or dealt with.
    pub(crate) fn is_settled(&self) -> bool {
        let Drift { pending, lost, read, reading, keys, .. } = &self.drift;
        let is_reading = !read.is_nothing() || !reading.is_nothing() || !keys.is_empty();
        let is_pending = pending.structure || !pending.has_no_elements();
        !self.backlog.waits() && !lost && !is_reading && !is_pending
    }

    /// Deletes what the kernel did not give up before: a later start would take it for a wish.
    fn delete_again(&mut self) {
        let Self { engine, executor, .. } = self;
        let Executor { kernel, placement, undeleted, .. } = executor;
        undeleted.retain(|(set, key)| {
            // A block may need it by now.
            let block = placement.source(*key).and_then(|source| engine.blocked(source));
            block.is_none_or(|block| placement.key_in(*set, &block) != Some(*key))
                && kernel.delete(*set, &[Element::new(*key)]).is_err()
        });
    }

    fn receive(&mut self) -> bool {
        let news = self.executor.kernel.news();
        for (change, author) in news.changes {
            self.drift.author = author;
            self.drift.pending.join(change);
        }
        self.drift.lost |= news.lost;
        news.more
    }

    /// Elements of hosts that others removed or added: the kernel is asked what is true now.
    fn look_at_elements(&mut self, now: MonoTime) {
        let pending = &mut self.drift.pending;
        let (removed, list) = if pending.removed.is_empty() {
            (false, &mut pending.added)
        } else {
            (true, &mut pending.removed)
        };
        let Some(set) = list.front().map(|(set, _)| *set) else { return };
        // Of one set, in the order in which they were named.
        let many =
            list.iter().take(ELEMENTS_PER_WAKE).take_while(|(other, _)| *other == set).count();
        let keys: Vec<Key> = list.drain(..many).map(|(_, key)| key).collect();
        let there = match self.executor.kernel.get(set, &keys) {
            Ok(there) => there,
            // A set that is gone has nothing in it; that it is gone is another notification.
            Err(error) if error.is_not_found() => vec![None; keys.len()],
            Err(error) => {
                // Not to know is not to unblock: what the engine has is restored where it is
                // missing.
                log::warn!("what others changed cannot be read: {}", error_chain(&error));
                self.drift.lost = true;
                return;
            }
        };
        // Of a removal only what is gone counts, of an addition only what is there: the other is
        // told by a later notification.
        let (mut wanted, mut present, mut outranked) = (Vec::new(), Vec::new(), Vec::new());
        for (key, there) in keys.into_iter().zip(there) {
            let Some(source) = self.executor.placement.source(key) else { continue };
            if there.is_none() {
                self.executor.undeleted.retain(|other| *other != (set, key));
            }
            match there {
                Some(info) if !removed => {
                    let block = self.engine.blocked(source);
                    let is_elsewhere = |block: &BlockView<'_>| {
                        self.executor.placement.key_in(set, block).is_none()
                    };
                    // A block in the other set drops more.
                    if is_unproven_set(set) && block.as_ref().is_some_and(is_elsewhere) {
                        outranked.push(Step::Delete(set, key));
                    } else {
                        wanted.extend(block);
                        present.push((set, info));
                    }
                }
                // That an element which no rule looks up is gone ends no block, nor does one that the
                // source's element in another set outlived.
                None if removed => {
                    let placement = self.executor.placement;
                    let here = |block: &BlockView<'_>| placement.key_in(set, block) == Some(key);
                    wanted.extend(self.engine.blocked(source).filter(here));
                }
                _ => {}
            }
        }
        let must_not = |source, reason: &Reason| self.engine.must_not_block(source, reason);
        let missing = |_| Origin::Drift { notified: true }.missing(true);
        let mut steps =
            reconcile_hosts(now, self.executor.placement, wanted, &present, &must_not, missing);
        steps.append(&mut outranked);
        let summary = self.apply(now, steps, true);
        self.drift.findings.add(summary);
        if removed {
            self.delete_again();
        }
    }

    /// Networks that others changed: few are read now, many aside.
    fn look_at_networks(&mut self, now: MonoTime) {
        let named = std::mem::take(&mut self.drift.pending.networks);
        if named == 0 {
            return;
        }
        if named + self.executor.networks.present() > INTERVALS_INLINE_MAX {
            (self.drift.read.networks, self.drift.notified) = (true, true);
            return;
        }
        for family in Family::ALL {
            match self.resync_networks(now, family, Origin::Drift { notified: true }.missing(true))
            {
                Ok(summary) => self.drift.findings.add(summary),
                // A set that is gone is another notification.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    log::warn!("what others changed cannot be read: {}", error_chain(&error));
                    self.drift.lost = true;
                }
            }
        }
    }

    /// Makes the table what it should be.
    fn repair(&mut self, now: MonoTime) {
        let recreate = std::mem::take(&mut self.drift.pending.recreate);
        self.drift.pending.structure = false;
        let last_straw = self.drift.fight.is_last_straw(now);
        if last_straw && self.drift.own_table == OwnTable::Auto {
            self.drift.owner = TableOwner::Owned;
        }
        let begun = Instant::now();
        match self.install(now, Write::all(recreate)) {
            Ok(installed) if installed.is_unchanged() => {}
            Ok(installed) => {
                let has_blocks = BLOCKED.into_iter().any(|set| installed.created(set));
                let blocks = self.engine.blocks().count();
                let what = if has_blocks {
                    format!("the rules and {blocks} blocks")
                } else {
                    "the rules".to_owned()
                };
                let remedy = format!(
                    "{what} were restored within {:.1} ms",
                    begun.elapsed().as_secs_f64() * 1000.0
                );
                let fighting = self.drift.fight.is_fighting(now);
                self.note_repair(now, last_straw);
                if !fighting && !last_straw {
                    self.report_remedy(now, remedy);
                }
            }
            Err(error) => {
                self.drift.fight.note(now, false);
                self.drift.pending.structure = true;
                self.drift.pending.recreate |= recreate;
                if !std::mem::replace(&mut self.drift.failure_reported, true) {
                    self.observer.notify(Notice::Error(format!(
                        "the table inet portsentry was changed by {} and cannot be repaired: {}; it is tried again",
                        self.drift.author,
                        error_chain(&error)
                    )));
                }
            }
        }
    }

    fn note_repair(&mut self, now: MonoTime, last_straw: bool) {
        let drift = &mut self.drift;
        drift.fight.note(now, true);
        drift.failure_reported = false;
        drift.repairs.count += 1;
        drift.repairs.last = Some(drift.author.clone());
        if last_straw {
            let remedy = if drift.owner == TableOwner::Owned {
                "the table is closed to other programs from now on"
            } else {
                "from now on it is repaired ever later, a minute at the most; find out what that program wants"
            };
            let text = format!(
                "{} changes the table inet portsentry again and again: {remedy}",
                drift.author
            );
            self.observer.notify(Notice::Error(text));
            log::debug!(
                "the next repair waits for {:?}",
                drift.fight.not_before(now).map(|next| next.since(now))
            );
        }
    }

    /// Sends some more of what the kernel still has to get.
    fn work_off(&mut self, now: MonoTime) {
        if let Err(error) = self.send_exemptions() {
            log::warn!("the never-block list cannot be sent: {}", error_chain(&error));
            // What is there is not what was known: it is read before more is sent.
            self.exemptions.wait();
            self.drift.read.exemptions = true;
        }
        self.backlog.retry(now);
        let lost = self.backlog.take_lost();
        if !lost.is_empty() {
            self.restore_hosts(now, lost);
        } else if self.exemptions.is_settled()
            && let Some(family) = self.backlog.is_network_due(now)
        {
            self.sync(now, family, family.all());
        } else if let Some(after) = self.backlog.slow_after() {
            self.slow_again(now, after);
        }
        match self.backlog.report() {
            Some(Err((hosts, why))) => {
                let what = if hosts > 0 {
                    format!("{hosts} blocks")
                } else {
                    "blocked networks".to_owned()
                };
                self.observer.notify(Notice::Error(format!(
                    "{what} could not be put into the kernel's sets: {why}; it is tried again"
                )));
            }
            Some(Ok(())) => self
                .observer
                .notify(Notice::Warning("all blocks are in the kernel's sets again".to_owned())),
            None => {}
        }
    }

    fn restore_hosts(&mut self, now: MonoTime, lost: Vec<Source>) {
        let placement = self.executor.placement;
        for set in HOSTS {
            let is_here = |source: &Source| {
                self.engine
                    .blocked(*source)
                    .is_some_and(|block| placement.key_in(set, &block).is_some())
            };
            let here: Vec<Source> = lost.iter().copied().filter(is_here).collect();
            let elements = self.elements(now, &here, set);
            let Some(set) = self.ruleset.set(set) else { continue };
            if elements.is_empty() {
                continue;
            }
            match self.executor.kernel.restore(set, &elements) {
                Ok(()) => self.backlog.taken(),
                // The set is gone again: all of it once more.
                Err(error) if error.is_not_found() => {
                    log::warn!("{}", error_chain(&error));
                    self.backlog.clear();
                    (self.drift.pending.structure, self.drift.pending.recreate) = (true, true);
                    return;
                }
                Err(error) => self.backlog.refused(now, here, error_chain(&error)),
            }
        }
    }

    /// Slows the sources again that the rules slowed before their table was made again, each for
    /// what is left of its time.
    fn slow_again(&mut self, now: MonoTime, after: Option<Source>) {
        let until = self.engine.slowed_until(after).take(SLOWED_PER_WAKE);
        let page: Vec<_> = until.map(|(source, end)| (source, end.since(now))).collect();
        self.executor.slow_again(&page);
        self.backlog.slowed_to(page.last().map(|(last, _)| *last));
    }
}
