//! Sweeps: sources that probe the same port of many addresses of this host, or ping many.
//!
//! The ledger counts ports. It notices when a source touches a port again, at another address of
//! this host; only then the source has an entry here. A host with one address has none, and a source
//! of a flood, which is never seen again, does not come here either.
//!
//! Bounded: [`SOURCES`] of each kind. A source with one or two addresses makes room for another one
//! before a source with more does, so that a flood does not evict a sweep under way.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::MonoTime;
use super::account::{Touch, clock, here_bits, span};
use super::ledger::Key;
use super::slab::{List, Slab};
use crate::probe::Port;

/// Sources whose addresses are counted, of each kind. More than sweep a host at the same time; a
/// full table takes 2 MB at the default trigger.
pub const SOURCES: u32 = 8192;

/// The highest `sweep_trigger`, which bounds an entry to 800 bytes.
pub const SWEEP_TRIGGER_MAX: u16 = 100;

/// From this number of addresses on, a source is evicted last.
const FIRM: u16 = 3;

/// An address in an entry: 24 bits of its hash, whether the evidence counts toward a block, and
/// milliseconds.
const HASH: u64 = 0xff_ffff << 40;
const PLAIN: u64 = 1 << 39;
const TIME: u64 = PLAIN - 1;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    /// The address of the touch before the first one here: four bits of its hash, or 0 if it is
    /// among the addresses or unknown.
    before: u64,
    before_at: u64,
    is_before_plain: bool,
    first: u64,
    last: u64,
    last_reported: u64,
    is_firm: bool,
}

/// Distinct addresses of this host that a source probed at one port each, or pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reach {
    /// By probes that count toward a block.
    pub(super) plain: u16,
    /// By any.
    pub(super) all: u16,
}

/// The sources that reached several addresses.
#[derive(Debug)]
pub(super) struct Sweeps {
    stride: usize,
    window: u64,
    hasher: FixedState,
    index: HashTable<u32>,
    entries: Slab<Entry>,
    addresses: Vec<u64>,
    few: List,
    firm: List,
}

/// One probe, as this table counts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// A keyed hash of the address.
    pub(super) here: u64,
    /// It counts toward a block.
    pub(super) is_plain: bool,
    /// The touch before, at another address, and whether it counts toward a block.
    pub(super) before: Option<(Touch, bool)>,
}

impl Sweeps {
    pub(super) fn new(trigger: u16, window: u64, seed: u64) -> Self {
        let stride = usize::from(trigger.clamp(1, SWEEP_TRIGGER_MAX)) + 1;
        Self {
            stride,
            window,
            hasher: FixedState::with_seed(seed),
            index: HashTable::new(),
            entries: Slab::new(SOURCES),
            addresses: Vec::new(),
            few: List::default(),
            firm: List::default(),
        }
    }

    /// Counts an address. Returns how many the source reached within the window.
    pub(super) fn note(&mut self, now: MonoTime, key: Key, reached: Reached) -> Reach {
        let (now, horizon) = (clock(now), clock(now).saturating_sub(self.window));
        let hash = self.hasher.hash_one(key);
        let Some(at) = self.find(hash, key).or_else(|| self.add(now, hash, key, reached.before))
        else {
            return Reach::default();
        };
        let slot = reached.here << 40 | u64::from(reached.is_plain) << 39 | now;
        self.record(at, slot, horizon);
        let Some(entry) = self.entries.get_mut(at) else { return Reach::default() };
        entry.last = now;
        // A later touch of what may be the same address: better one too few than one too many.
        if entry.before == here_bits(reached.here) || entry.before_at < horizon {
            entry.before = 0;
        }
        let entry = *entry;
        let before = u16::from(entry.before != 0);
        let mut reach =
            Reach { plain: if entry.is_before_plain { before } else { 0 }, all: before };
        for slot in self.live(at, horizon) {
            reach.plain += u16::from(slot & PLAIN != 0);
            reach.all += 1;
        }
        self.renew(at, entry.is_firm, reach.all >= FIRM);
        reach
    }

    /// Whether a report about this source is due: once per window.
    pub(super) fn due_for_report(&mut self, now: MonoTime, key: Key) -> bool {
        let horizon = clock(now).saturating_sub(self.window);
        let at = self.find(self.hasher.hash_one(key), key);
        let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) else { return true };
        let is_due = entry.last_reported == 0 || entry.last_reported < horizon;
        if is_due {
            entry.last_reported = clock(now).max(1);
        }
        is_due
    }

    /// What a source did, as text for an element's comment: `tcp/445 of 11 addresses in 0.2s`.
    pub(super) fn detail(&self, now: MonoTime, key: Key, port: Option<Port>) -> String {
        let horizon = clock(now).saturating_sub(self.window);
        let at = self.find(self.hasher.hash_one(key), key);
        let Some((at, entry)) = at.and_then(|at| Some((at, self.entries.get(at)?))) else {
            return String::new();
        };
        let number = self.live(at, horizon).count() + usize::from(entry.before != 0);
        let port = port.map_or_else(String::new, |port| format!("{port} of "));
        let time = span(entry.last.saturating_sub(entry.first.max(horizon)));
        // There may have been more: no more are counted.
        let more = if number >= self.stride { "+" } else { "" };
        format!("{port}{number}{more} addresses in {time}")
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(at) = self.find(self.hasher.hash_one(key), key) {
            self.remove(at);
        }
    }

    fn find(&self, hash: u64, key: Key) -> Option<u32> {
        let is_it = |at: &u32| self.entries.get(*at).is_some_and(|entry| entry.key == key);
        self.index.find(hash, is_it).copied()
    }

    fn live(&self, at: u32, horizon: u64) -> impl Iterator<Item = u64> {
        let start = at as usize * self.stride;
        let slots = self.addresses.get(start..start + self.stride).unwrap_or(&[]);
        slots.iter().copied().filter(move |slot| *slot != 0 && slot & TIME >= horizon)
    }

    /// Replaces the slot of the same address, else a free one, else the oldest. Plain evidence of an
    /// address is not replaced by ambiguous evidence.
    fn record(&mut self, at: u32, slot: u64, horizon: u64) {
        let start = at as usize * self.stride;
        let slots = self.addresses.get_mut(start..start + self.stride).unwrap_or(&mut []);
        let is_live = |old: u64| old != 0 && old & TIME >= horizon;
        let is_same = |old: u64| is_live(old) && (old ^ slot) & HASH == 0;
        if let Some(old) = slots.iter_mut().find(|old| is_same(**old)) {
            if slot & PLAIN != 0 || *old & PLAIN == 0 {
                *old = slot;
            }
            return;
        }
        let oldest = slots.iter_mut().min_by_key(|old| is_live(**old).then_some(**old & TIME));
        if let Some(oldest) = oldest {
            *oldest = slot;
        }
    }

    fn renew(&mut self, at: u32, was_firm: bool, is_firm: bool) {
        let list = if was_firm { &mut self.firm } else { &mut self.few };
        self.entries.renew(list, at);
        if is_firm && !was_firm {
            self.entries.transfer(&mut self.few, &mut self.firm, at);
            if let Some(entry) = self.entries.get_mut(at) {
                entry.is_firm = true;
            }
        }
    }

    fn add(&mut self, now: u64, hash: u64, key: Key, before: Option<(Touch, bool)>) -> Option<u32> {
        // Two out for one in, as in the ledger; the first of a full table in any case.
        let horizon = now.saturating_sub(self.window);
        for list in [self.few, self.firm] {
            let expired = |at: &u32| self.entries.get(*at).is_some_and(|it| it.last < horizon);
            if let Some(at) = list.first().filter(expired) {
                self.remove(at);
            }
        }
        if self.entries.is_full() {
            let at = self.few.first().or_else(|| self.firm.first())?;
            self.remove(at);
        }
        let (touch, is_before_plain) = before.unzip();
        let before_at = touch.map_or(now, Touch::time);
        let entry = Entry {
            key,
            before: touch.map_or(0, Touch::here),
            before_at,
            is_before_plain: is_before_plain.unwrap_or(false),
            first: before_at,
            last: now,
            last_reported: 0,
            is_firm: false,
        };
        let at = self.entries.push(&mut self.few, entry)?;
        let (start, end) = (at as usize * self.stride, (at as usize + 1) * self.stride);
        if self.addresses.len() < end {
            self.addresses.resize(end, 0);
        }
        self.addresses.get_mut(start..end)?.fill(0);
        let Self { index, entries, hasher, .. } = self;
        index.insert_unique(hash, at, |at| {
            hasher.hash_one(entries.get(*at).map(|entry| entry.key).unwrap_or_default())
        });
        Some(at)
    }

    fn remove(&mut self, at: u32) {
        let Some(Entry { key, is_firm, .. }) = self.entries.get(at).copied() else { return };
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(key), |other| *other == at) {
            entry.remove();
        }
        let list = if is_firm { &mut self.firm } else { &mut self.few };
        self.entries.remove(list, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ipv6Accounts;
    use crate::engine::Source;
    use crate::engine::ledger::Shape;
    use std::net::Ipv4Addr;

    const WINDOW: u64 = 600_000;

    fn key(n: u32) -> Key {
        let ipv6 = Ipv6Accounts { first: 128, then: 64 };
        let shape = Shape { capacity: 3, trigger: 2, window: WINDOW, ipv6 };
        shape.key(Source::of(Ipv4Addr::from_bits(n).into(), 128))
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    fn seen(here: u64, is_plain: bool) -> Reached {
        Reached { here, is_plain, before: None }
    }

    #[test]
    fn an_address_counts_once_and_only_within_the_window() {
        let mut sweeps = Sweeps::new(10, WINDOW, 1);
        for here in [1, 2, 3, 2, 1] {
            sweeps.note(at(0), key(1), seen(here, true));
        }
        let reach = sweeps.note(at(WINDOW), key(1), seen(4, false));
        assert_eq!(reach, Reach { plain: 3, all: 4 });
        let reach = sweeps.note(at(WINDOW + 1), key(1), seen(4, true));
        assert_eq!(reach, Reach { plain: 1, all: 1 });
        assert_eq!(sweeps.detail(at(WINDOW + 1), key(1), None), "1 addresses in 10m");
    }

    #[test]
    fn ambiguous_evidence_does_not_replace_plain_evidence() {
        let mut sweeps = Sweeps::new(10, WINDOW, 1);
        sweeps.note(at(0), key(1), seen(1, true));
        assert_eq!(sweeps.note(at(1), key(1), seen(1, false)), Reach { plain: 1, all: 1 });
    }

    #[test]
    fn a_flood_of_pairs_does_not_evict_a_sweep() {
        let mut sweeps = Sweeps::new(10, WINDOW, 1);
        for here in 1..=9 {
            sweeps.note(at(0), key(0), seen(here, true));
        }
        for source in 1..=4 * SOURCES {
            sweeps.note(at(1), key(source), seen(1, true));
            sweeps.note(at(1), key(source), seen(2, true));
        }
        assert_eq!(sweeps.entries.used(), SOURCES);
        assert_eq!(sweeps.note(at(2), key(0), seen(10, true)), Reach { plain: 10, all: 10 });
        sweeps.forget(key(0));
        assert_eq!(sweeps.note(at(2), key(0), seen(10, true)), Reach { plain: 1, all: 1 });
    }
}
