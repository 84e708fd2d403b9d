//! The blocks: a state machine per source, with orders to the kernel and timers.
//!
//! A source has one entry and at most one order in flight; a further order waits as [`Pending`]
//! until the kernel has answered. "Blocked" is reported when the kernel has acknowledged it,
//! "unblocked" only for blocks that were reported or adopted.
//!
//! ```text
//!             order            Ok                 expired, lifted, removed
//!   (nothing) -----> Blocking ----> InForce  ------------------------------> (nothing)
//!      ^                |            |  ^ \--> Checking, Renewing, Lifting --^
//!      |  later         | Err        |  |  answer  |
//!      +------------ Refused         +--+----------+
//! ```
//!
//! The block of an unproven scan is short, and is renewed by its source's probes of closed ports.
//! What the source sends to services renews nothing: a client whose address was forged retries.

mod outcomes;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use ipnet::IpNet;

use super::entry::{
    Adopted, BlockView, CHECK_EVERY, Entry, Exempt, Order, Pending, Renewal, State, view,
};
use super::lists::Lists;
use super::timers::Timers;
use super::{Action, Ending, ListName, Listed, MonoTime, Reason, Report, Source};

/// Retry interval when the kernel refuses to lift the block of a never-block address.
const LIFT_RETRY: Duration = Duration::from_secs(10);
/// Timeouts that differ by less are equal: ours starts later by the time of the kernel's answer,
/// and the kernel rounds to ticks.
const TIMEOUT_TOLERANCE: Duration = Duration::from_secs(2);
/// Initial capacity of the index, in blocks. Growing beyond it takes some milliseconds per
/// doubling; at the default of 600 new blocks a minute a flood needs more than three hours to reach
/// it.
const INDEX_CAPACITY: usize = 131_072;

/// What the engine must do after an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followup {
    Nothing,
    /// A first block is in force.
    Blocked(Source),
    /// The administrator or another program lifted the block: forget the evidence.
    Forgiven(Source),
    /// The block of a never-block address was lifted: release the hold too.
    Exempt(Source),
}

/// Whether a scan may order a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockStatus {
    /// There is no block.
    Free,
    /// In force or in flight, or refused a short time ago.
    Taken,
    /// In force for an unproven scan: a proof makes it longer.
    Unproven,
}

/// Counters since the engine was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) blocked: u64,
    pub(super) renewed: u64,
    pub(super) refused: u64,
    pub(super) unblocked: u64,
}

/// All blocks, indexed by source.
#[derive(Debug)]
pub(super) struct Blocks {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    timers: Timers,
    pub(super) lists: Lists,
    in_force: usize,
    done: Totals,
}

impl Blocks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::with_capacity(INDEX_CAPACITY),
            hasher: FixedState::with_seed(seed),
            timers: Timers::default(),
            lists: Lists::default(),
            in_force: 0,
            done: Totals::default(),
        }
    }

    /// The number of blocks in force.
    pub(super) fn in_force(&self) -> usize {
        self.in_force
    }

    /// The number of blocks in force, in flight, or refused and waiting.
    pub(super) fn count(&self) -> usize {
        self.index.len()
    }

    pub(super) fn done(&self) -> Totals {
        self.done
    }

    pub(super) fn next_timer(&self) -> Option<MonoTime> {
        self.timers.first().map(|(at, _)| at)
    }

    pub(super) fn views(&self) -> impl Iterator<Item = BlockView<'_>> {
        self.entries.iter().flatten().filter(|entry| entry.is_in_force()).map(view)
    }

    /// The blocks in force among `places` entries from `at` on, and the position for the next call;
    /// `None` after the last page.
    pub(super) fn page(
        &self,
        at: usize,
        places: usize,
    ) -> (impl Iterator<Item = BlockView<'_>>, Option<usize>) {
        let end = at.saturating_add(places).min(self.entries.len());
        let page = self.entries.get(at..end).unwrap_or_default();
        (
            page.iter().flatten().filter(|entry| entry.is_in_force()).map(view),
            (end < self.entries.len()).then_some(end),
        )
    }

    /// The block of `source`, if it is in force.
    pub(super) fn view(&self, source: Source) -> Option<BlockView<'_>> {
        self.find(source)
            .and_then(|at| self.entry(at))
            .filter(|entry| entry.is_in_force())
            .map(view)
    }

    /// Whether a scan may order a block of `source`.
    pub(super) fn block_status(&self, now: MonoTime, source: Source) -> BlockStatus {
        match self.find(source).and_then(|at| self.entry(at)) {
            None => BlockStatus::Free,
            Some(entry) => match entry.state {
                State::Refused { until } if now >= until => BlockStatus::Free,
                State::InForce if entry.reason.is_unproven_scan() => BlockStatus::Unproven,
                _ => BlockStatus::Taken,
            },
        }
    }

    /// Whether `source` is blocked or about to be, so that its hold needs no release. A refused
    /// block counts: only the hold protects then.
    pub(super) fn covers(&self, source: Source) -> bool {
        let state = self.find(source).and_then(|at| self.entry(at)).map(|entry| &entry.state);
        state.is_some_and(|state| !matches!(state, State::Lifting { .. }))
    }

    /// Whether the kernel refused to block `source` a short time ago.
    pub(super) fn was_refused(&self, source: Source) -> bool {
        self.find(source)
            .and_then(|at| self.entry(at))
            .is_some_and(|entry| matches!(entry.state, State::Refused { .. }))
    }

    /// Handles a probe of a blocked source: it was in flight when the block came, or another
    /// program deleted the element. Asks the kernel.
    pub(super) fn check_element(
        &mut self,
        now: MonoTime,
        source: Source,
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.find(source) else { return };
        let Some(entry) = self
            .entry_mut(at)
            .filter(|entry| entry.state == State::InForce && now >= entry.check_from)
        else {
            return;
        };
        entry.check_from = now.after(CHECK_EVERY);
        entry.state = State::Checking;
        actions.push(Action::Check { source });
        self.rearm(at);
    }

    /// Handles a probe of a closed port by a blocked source: an unproven scan that continues gets
    /// `timeout` again.
    pub(super) fn renew(
        &mut self,
        now: MonoTime,
        source: Source,
        timeout: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.find(source) else { return };
        let Some(entry) = self
            .entry_mut(at)
            .filter(|entry| entry.state == State::InForce && entry.is_renewable(now))
        else {
            return;
        };
        let timeout = Some(timeout);
        actions.push(Action::Block { source, timeout, reason: entry.reason.clone(), renew: true });
        entry.state = State::Renewing(Box::new(Renewal { timeout, reason: None }));
        self.rearm(at);
    }

    /// Orders a block, or a new timeout and reason for a present one. Waits while an order is in
    /// flight.
    pub(super) fn order(
        &mut self,
        now: MonoTime,
        source: Source,
        order: Order,
        actions: &mut Vec<Action>,
    ) {
        let at = match self.find(source) {
            Some(at) => at,
            None => {
                let state = State::Refused { until: now };
                let mut entry = Entry::new(source, state, order.reason.clone(), now);
                entry.port = order.port;
                self.insert(entry)
            }
        };
        let Some(entry) = self.entry_mut(at) else { return };
        match entry.state {
            State::Refused { .. } => {
                actions.push(Action::Block {
                    source,
                    timeout: order.timeout,
                    reason: order.reason.clone(),
                    renew: false,
                });
                entry.set_timeout(order.timeout);
                (entry.reason, entry.port) = (order.reason, order.port);
                entry.state = State::Blocking { scanner: order.scanner.map(Box::new) };
            }
            State::InForce => {
                actions.push(Action::Block {
                    source,
                    timeout: order.timeout,
                    reason: order.reason.clone(),
                    renew: true,
                });
                entry.state = State::Renewing(Box::new(Renewal {
                    timeout: order.timeout,
                    reason: Some((order.reason, order.port)),
                }));
            }
            _ => entry.seldom_mut().pending = Some(Pending::Block(order)),
        }
        self.rearm(at);
    }

    /// Orders to lift a block. Returns whether there was one, in force or in flight.
    pub(super) fn lift(
        &mut self,
        source: Source,
        ending: Ending,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(at) = self.find(source) else { return false };
        let Some(entry) = self.entry_mut(at) else { return false };
        let found = match &mut entry.state {
            State::InForce => {
                actions.push(Action::Unblock { source });
                entry.state = State::Lifting { ending, in_force: true };
                true
            }
            State::Refused { .. } => false,
            State::Lifting { ending: already, .. } => {
                // A never-block address must stay unblocked: its ending takes precedence, and a
                // pending block is dropped.
                if ending == Ending::NeverBlock {
                    *already = ending;
                }
                entry.take_pending();
                true
            }
            State::Blocking { .. } | State::Renewing(_) | State::Checking | State::Exempting(_) => {
                // As above; and only this ending is retried when the kernel refuses.
                let must =
                    matches!(entry.seldom().pending, Some(Pending::Lift(Ending::NeverBlock)));
                entry.seldom_mut().pending =
                    Some(Pending::Lift(if must { Ending::NeverBlock } else { ending }));
                true
            }
        };
        self.rearm(at);
        found
    }

    /// Orders to exempt a network from the block of `source`. Waits while an order is in flight.
    /// Returns whether that leaves nothing of it, so that the block is lifted.
    pub(super) fn exempt(
        &mut self,
        source: Source,
        network: IpNet,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(at) = self.find(source) else { return false };
        let Some(entry) = self.entry_mut(at) else { return false };
        match entry.state {
            State::Refused { .. } | State::Lifting { .. } => return false,
            State::InForce => {
                let Some(all) = entry.seldom().exempt.with(network) else { return false };
                if is_whole(source, &all) {
                    return self.lift(source, Ending::Manual, actions);
                }
                actions.push(Action::Exempt { source, exempt: all.clone() });
                entry.state = State::Exempting(Exempt::new(all));
            }
            // A pending order to lift the whole block takes precedence.
            _ if matches!(entry.seldom().pending, Some(Pending::Lift(_))) => {}
            _ => entry.seldom_mut().pending = Some(Pending::Exempt(network)),
        }
        self.rearm(at);
        false
    }

    /// Lifts the blocks for which `ending` has one, among `places` entries from `at` on. Returns the
    /// position for the next call, `None` at the end.
    pub(super) fn review(
        &mut self,
        at: usize,
        places: usize,
        ending: impl Fn(Source, &Reason) -> Option<Ending>,
        actions: &mut Vec<Action>,
    ) -> Option<usize> {
        let end = at.saturating_add(places).min(self.entries.len());
        let page = self.entries.get(at..end).unwrap_or_default();
        let picked: Vec<(Source, Ending)> = page
            .iter()
            .flatten()
            .filter_map(|entry| Some((entry.source, ending(entry.source, &entry.reason)?)))
            .collect();
        for (source, ending) in picked {
            self.lift(source, ending, actions);
        }
        (end < self.entries.len()).then_some(end)
    }

    /// The sources on a list, or all, among `places` entries from `at` on, but those that `loading`
    /// gave it to, and the position for the next call.
    pub(super) fn on_list(
        &self,
        list: Option<&ListName>,
        loading: Option<&Arc<Listed>>,
        at: usize,
        places: usize,
    ) -> (Vec<Source>, Option<usize>) {
        let end = at.saturating_add(places).min(self.entries.len());
        let page = self.entries.get(at..end).unwrap_or_default();
        let is_meant = |entry: &&Entry| {
            let reason = entry.latest_reason();
            let is_loaded = matches!((loading, reason), (Some(loading), Reason::Listed(listed)) if Arc::ptr_eq(loading, listed));
            list.is_none_or(|list| reason.list() == Some(list)) && !is_loaded
        };
        let sources = page.iter().flatten().filter(is_meant).map(|entry| entry.source);
        (sources.collect(), (end < self.entries.len()).then_some(end))
    }

    /// Adopts an element of the kernel's set, unless its source has a block. An order that was
    /// refused before is forgotten.
    pub(super) fn adopt(&mut self, now: MonoTime, found: Adopted) {
        if let Some(at) = self.find(found.source) {
            if !self.entry(at).is_some_and(|entry| matches!(entry.state, State::Refused { .. })) {
                return;
            }
            self.remove(at);
        }
        let elapsed = found
            .timeout
            .zip(found.remaining)
            .map_or(Duration::ZERO, |(timeout, remaining)| timeout.saturating_sub(remaining));
        let since = found.since.unwrap_or_else(|| now.before(elapsed));
        let reason = self.lists.share(found.reason);
        let mut entry = Entry::new(found.source, State::InForce, reason, since);
        entry.port = found.port;
        entry.set_exempt(Exempt::new(found.exempt));
        entry.run(now, found.remaining);
        self.lists.add(&entry.reason, entry.expires);
        self.in_force += 1;
        let at = self.insert(entry);
        self.rearm(at);
    }

    /// Another program removed the element. Returns whether a block ended; while an order is in
    /// flight, its answer decides instead.
    pub(super) fn removed(&mut self, source: Source, actions: &mut Vec<Action>) -> bool {
        let Some(at) = self.find(source) else { return false };
        if self.entry(at).is_none_or(|entry| entry.state != State::InForce) {
            return false;
        }
        self.end(at, Ending::Removed, actions);
        true
    }

    /// Another program removed a part of a blocked network: exempts it. Returns whether this
    /// changed anything.
    pub(super) fn removed_part(
        &mut self,
        source: Source,
        part: IpNet,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(at) = self.find(source) else { return false };
        let Some(entry) = self.entry_mut(at).filter(|entry| entry.state == State::InForce) else {
            return false;
        };
        let Some(all) = entry.seldom().exempt.with(part) else { return false };
        if is_whole(source, &all) {
            self.end(at, Ending::Removed, actions);
            return true;
        }
        entry.set_exempt(Exempt::new(all));
        actions.push(Action::Report(Report::Exempted { source, exempt: part }));
        true
    }

    /// Another program changed the element's timeout: takes over the kernel's values. Returns
    /// whether they differ from ours.
    pub(super) fn changed(&mut self, now: MonoTime, found: &Adopted) -> bool {
        let Some(at) = self.find(found.source) else { return false };
        let Some(entry) = self.entry_mut(at).filter(|entry| entry.state == State::InForce) else {
            return false;
        };
        let known = entry.expires.map(|at| at.since(now));
        let is_same = match (known, found.remaining) {
            (Some(known), Some(remaining)) => known.abs_diff(remaining) <= TIMEOUT_TOLERANCE,
            (None, None) => true,
            _ => false,
        };
        // A block that is proven or manual now is in another set.
        if is_same && entry.reason.is_unproven_scan() == found.reason.is_unproven_scan() {
            return false;
        }
        entry.run(now, found.remaining);
        self.give_reason(at, found.reason.clone());
        self.rearm(at);
        true
    }

    /// Gives a block in force another reason.
    fn give_reason(&mut self, at: u32, reason: Reason) {
        let reason = self.lists.share(reason);
        let Some(entry) = self.entry_mut(at) else { return };
        let end = entry.expires;
        let before = std::mem::replace(&mut entry.reason, reason.clone());
        self.lists.remove(&before);
        self.lists.add(&reason, end);
    }

    /// Reserves memory for `more` blocks, which saves repeated growth in a bulk.
    pub(super) fn reserve(&mut self, more: usize) {
        let Self { index, entries, hasher, timers, .. } = self;
        index.reserve(more, |at| hash_of(entries, hasher, *at));
        entries.reserve(more);
        timers.reserve(more);
    }

    fn find(&self, source: Source) -> Option<u32> {
        let hash = self.hasher.hash_one(source);
        self.index
            .find(hash, |at| self.entry(*at).is_some_and(|entry| entry.source == source))
            .copied()
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.entries.get(at as usize)?.as_ref()
    }

    fn entry_mut(&mut self, at: u32) -> Option<&mut Entry> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    fn insert(&mut self, entry: Entry) -> u32 {
        let hash = self.hasher.hash_one(entry.source);
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.entries.push(None);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.entries.get_mut(at as usize) {
            *place = Some(entry);
        }
        let Self { index, entries, hasher, .. } = self;
        index.insert_unique(hash, at, |at| hash_of(entries, hasher, *at));
        at
    }

    fn remove(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at as usize).and_then(Option::take) else { return };
        self.timers.set(at, None);
        if let Ok(found) =
            self.index.find_entry(self.hasher.hash_one(entry.source), |other| *other == at)
        {
            found.remove();
        }
        self.free.push(at);
    }

    fn rearm(&mut self, at: u32) {
        if let Some(entry) = self.entry(at) {
            let due = entry.due();
            self.timers.set(at, due);
        }
    }
}

fn hash_of(entries: &[Option<Entry>], hasher: &FixedState, at: u32) -> u64 {
    entries
        .get(at as usize)
        .and_then(Option::as_ref)
        .map_or(0, |entry| hasher.hash_one(entry.source))
}

/// Whether these networks leave nothing of a source.
fn is_whole(source: Source, parts: &Vec<IpNet>) -> bool {
    IpNet::aggregate(parts).iter().any(|whole| whole.contains(&source.network()))
}
