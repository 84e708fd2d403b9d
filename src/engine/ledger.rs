//! The ledger: the accounts of all recent sources, in bounded memory that a flood of spoofed
//! sources cannot flush.
//!
//! Most sources touch one port and are never seen again; a flood of spoofed addresses consists of
//! nothing else. So the ledger has three tiers:
//!
//! ```text
//!                     a token?  yes -> patient   (one port; kept for the whole window)  --+
//!   a new source ---------------|                                                         |-- a second port --> suspects
//!                               no --> hasty     (one port; kept until evicted)         --+
//! ```
//!
//! * *Patient* newcomers are admitted at the rate that their tier can keep for the whole window:
//!   capacity / 3 per `scan_window` (218 a second by default). Ordinary traffic stays far below, so
//!   a scanner that waits minutes between two ports is remembered. A flood uses up the tokens, but
//!   evicts no patient newcomer.
//! * *Hasty* newcomers share the remaining places of newcomers; the oldest is evicted first. At
//!   300,000 new sources a second one stays at least 0.44 s: a source that touches two ports within
//!   that time is noticed.
//! * *Suspects* have touched two or more ports, or have passed the trigger. Only another suspect
//!   can evict one, the longest inactive first. To evict a real scanner, a flood needs more sources
//!   with two probes each than the tier holds, between two of its probes.
//!
//! Eviction in a tier follows the second-chance (clock) algorithm: a touch only marks its source,
//! and a marked source at the front moves to the back without its mark. That approximates
//! least-recently-used and touches no neighbouring cache lines per packet.
//!
//! Every step is O(1): linked lists in slabs, and one index with a load below one half.
//!
//! An IPv6 source has an account, and its prefix has one beside it: a flood over IPv6 evicts twice
//! as fast.
//!
//! Memory: a newcomer costs [`NEWCOMER_BYTES`], a suspect [`suspect_bytes`], both with their share
//! of the index: 48 and 120 bytes with the default trigger. A trigger of `n` needs `max(n,
//! 5) + 1` ports of eight bytes for each suspect; where that would take more than
//! [`PORT_BYTES_MAX`], there are fewer suspects.

mod ahead;
mod eviction;
mod index;
mod shape;
mod share;
mod stored;

use std::hash::BuildHasher;
use std::net::IpAddr;

use self::index::{INDEX_BYTES, Index};
use self::shape::slots;
pub(super) use self::shape::{Key, Shape};
use super::account::{Counted, Tally, Touch, clock, record};
use super::slab::{List, Slab};
use super::{MonoTime, Source};
use crate::rate::TokenBucket;
use foldhash::fast::FixedState;

/// Default number of accounts: a third each for suspects, patient and hasty newcomers.
///
/// 131,072 suspects are orders of magnitude more than the hosts that were ever measured to scan one
/// address within ten minutes. 131,072 hasty places last 0.44 s at 300,000 spoofed sources a
/// second, a fifth of a gigabit link filled with SYNs. The whole takes 29 MB when full, a few
/// kilobytes when empty.
pub const CAPACITY: u32 = 393_216;

/// The highest effective trigger; higher ones count as this. A source that touches a thousand ports
/// is scanning by any standard, and the bound keeps the search through an account's ports short.
pub const TRIGGER_MAX: u16 = 1023;

/// Maximum bytes for the suspects' ports; the default trigger needs 6 MB.
pub const PORT_BYTES_MAX: usize = 64 << 20;

/// Bytes of a newcomer, index included.
pub const NEWCOMER_BYTES: usize = Slab::<Newcomer>::PLACE + INDEX_BYTES;

/// Bytes of a suspect with this trigger, index included.
pub const fn suspect_bytes(trigger: u16) -> usize {
    Slab::<Suspect>::PLACE + INDEX_BYTES + slots(trigger) * size_of::<u64>()
}

#[derive(Debug)]
struct Newcomer {
    key: Key,
    touch: u64,
}

#[derive(Debug)]
struct Suspect {
    key: Key,
    /// When it was first seen and last reported (0: never), milliseconds.
    first: u64,
    last_reported: u64,
    last: u64,
    probes: u32,
    /// Touched since it was last moved in its tier's list.
    marked: bool,
    /// [`OF_PREFIX`] and [`LONG_TERM`].
    passed: u8,
    /// Probes while it was blocked, which add no touch; [`REPORTED`]: it was reported as a source
    /// that continues.
    repeats: u16,
}

/// A suspect has passed the trigger of a prefix since it was first seen.
const OF_PREFIX: u8 = 1;
/// It had passed the trigger of the long window when that was last asked.
const LONG_TERM: u8 = 2;

/// In a suspect's repeats.
const REPORTED: u16 = u16::MAX;

/// A slot of one of the slabs; the top bits say which. Valid until the next touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

const SUSPECT: u32 = 1 << 31;
/// In a newcomer's place: it is patient.
const PATIENT: u32 = 1 << 30;
const INDEX: u32 = PATIENT - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Hasty,
    Patient,
    Suspects,
}

/// The ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    shape: Shape,
    stride: usize,
    hasher: FixedState,
    index: Index,
    newcomers: Slab<Newcomer>,
    suspects: Slab<Suspect>,
    /// The suspects' ports, `stride` per place. Pages that were never written use no memory.
    ports: Vec<u64>,
    patient: List,
    hasty: List,
    by_last_touch: List,
    tokens: TokenBucket,
    evicted: u64,
}

/// A key with its hash, which a packet needs more than once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hashed {
    pub(super) key: Key,
    pub(super) hash: u64,
}

/// A source's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account<'a> {
    pub(super) slots: &'a [u64],
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) last_reported: u64,
    pub(super) probes: u32,
}

impl Ledger {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        let suspects = shape.suspects();
        let newcomers = shape.third() * 2;
        let stride = slots(shape.trigger);
        Self {
            shape,
            stride,
            hasher: FixedState::with_seed(seed),
            index: Index::with_capacity(suspects + newcomers),
            newcomers: Slab::new(newcomers),
            suspects: Slab::new(suspects),
            ports: vec![0; suspects as usize * stride],
            patient: List::default(),
            hasty: List::default(),
            by_last_touch: List::default(),
            tokens: shape.tokens(),
            evicted: 0,
        }
    }

    /// Rebuilds the ledger with another shape. Walks through all accounts: not for the packet path.
    pub(super) fn reshape(&mut self, shape: Shape, seed: u64, now: MonoTime, counted: Counted) {
        if shape == self.shape {
            return;
        }
        let mut fresh = Self::new(shape, seed);
        fresh.evicted = self.evicted;
        let horizon = fresh.horizon(now);
        // Evidence of one prefix length says nothing about another.
        let is_kept = |key: Key| shape.ipv6 == self.shape.ipv6 || key.is_ipv4();
        for (list, patient) in [(self.patient, true), (self.hasty, false)] {
            for (_, newcomer) in self.newcomers.walk(list) {
                if let Some(touch) =
                    Touch::live(newcomer.touch, horizon).filter(|_| is_kept(newcomer.key))
                {
                    fresh.add_newcomer(fresh.hash(newcomer.key), newcomer.key, touch, patient);
                }
            }
        }
        for (at, suspect) in
            self.suspects.walk(self.by_last_touch).filter(|(_, suspect)| is_kept(suspect.key))
        {
            let hash = fresh.hash(suspect.key);
            let value = Suspect { ..*suspect };
            if let Some(new) = fresh.add_suspect(hash, value) {
                for touch in self.slots(at).iter().filter_map(|slot| Touch::live(*slot, 0)) {
                    record(fresh.slots_mut(new), touch, 0, counted);
                }
            }
        }
        *self = fresh;
    }

    /// Accounts, including expired ones that are not swept out yet.
    pub(super) fn sources(&self) -> u32 {
        self.newcomers.used() + self.suspects.used()
    }

    /// Accounts in the suspects' tier.
    pub(super) fn suspects(&self) -> u32 {
        self.suspects.used()
    }

    /// Maximum number of accounts.
    pub(super) fn capacity(&self) -> u32 {
        self.shape.suspects() + self.shape.third() * 2
    }

    /// Accounts evicted before their window ended.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The start of the window that ends now, milliseconds.
    pub(super) fn horizon(&self, now: MonoTime) -> u64 {
        clock(now).saturating_sub(self.shape.window)
    }

    /// The key of an account.
    #[inline]
    pub(super) fn key_of(&self, account: Source) -> Hashed {
        let key = self.shape.key(account);
        Hashed { key, hash: self.hash(key) }
    }

    /// Records a touch. Returns where its account is; `None` if there is no room for it. `before`
    /// becomes the touch of the same port that it had.
    pub(super) fn touch(
        &mut self,
        now: MonoTime,
        Hashed { key, hash }: Hashed,
        touch: Touch,
        counted: Counted,
        before: &mut Option<Touch>,
    ) -> Option<Place> {
        let horizon = self.horizon(now);
        let Some(place) = self.find(hash, key) else {
            return self.admit(now, hash, key, touch);
        };
        let was_suspect = place.0 & SUSPECT != 0;
        let mut at = place.0 & INDEX;
        if !was_suspect {
            let newcomer = self.newcomers.get_mut(at)?;
            let only = match Touch::live(newcomer.touch, horizon) {
                Some(old) if old.same_port(touch) => {
                    *before = Some(old);
                    Some(old.stronger(touch))
                }
                Some(_) => None,
                None => Some(touch),
            };
            if let Some(only) = only {
                newcomer.touch = only.marked(true).slot();
                return Some(place);
            }
            at = self.promote(hash, key, place)?;
        }
        if let Some(suspect) = self.suspects.get_mut(at) {
            suspect.last = suspect.last.max(touch.time());
            suspect.probes = suspect.probes.saturating_add(1);
            // The second port makes it a suspect; only a third earns a second chance. Otherwise
            // every source of a flood would have one.
            suspect.marked = was_suspect;
        }
        *before = record(self.slots_mut(at), touch, horizon, counted);
        Some(Place(at | SUSPECT))
    }

    /// The ports of the account that a touch was just recorded in.
    // Inlined, as the tally is: more than two words are returned through memory, from where they
    // cannot be read in another size before every earlier packet's accesses are over.
    #[inline]
    pub(super) fn tally(&self, now: MonoTime, found: Option<Place>, counted: Counted) -> Tally {
        let slots = found.map_or(&[][..], |place| self.account(place));
        Tally::of(slots, self.horizon(now), counted)
    }

    /// Whether a report about this source is due: once per window. Makes the source a suspect,
    /// because only suspects store the time.
    pub(super) fn due_for_report(&mut self, now: MonoTime, found: Option<Place>) -> bool {
        let horizon = self.horizon(now);
        let Some(place) = found else { return true };
        let at = if place.0 & SUSPECT != 0 {
            Some(place.0 & INDEX)
        } else {
            self.key(place).and_then(|key| self.promote(self.hash(key), key, place))
        };
        let Some(suspect) = at.and_then(|at| self.suspects.get_mut(at)) else { return true };
        let due = suspect.last_reported == 0 || suspect.last_reported < horizon;
        if due {
            // 0 means never; the clock's first millisecond is lost without harm.
            suspect.last_reported = clock(now).max(1);
        }
        due
    }

    /// Counts a probe of a blocked source. Returns the place of its account.
    pub(super) fn repeat(&mut self, source: Source) -> Option<Place> {
        let Hashed { key, hash } = self.key_of(source);
        let place = self.find(hash, key)?;
        if place.0 & SUSPECT != 0
            && let Some(suspect) = self.suspects.get_mut(place.0 & INDEX)
        {
            let most = if suspect.repeats == REPORTED { REPORTED } else { REPORTED - 1 };
            suspect.repeats = suspect.repeats.saturating_add(1).min(most);
        }
        Some(place)
    }

    /// The probes of a suspect that was not reported as one that continues.
    #[inline]
    pub(super) fn probes_unreported(&self, found: Option<Place>) -> Option<u32> {
        let place = found.filter(|place| place.0 & SUSPECT != 0)?;
        let suspect = self.suspects.get(place.0 & INDEX)?;
        let repeats = u32::from(suspect.repeats);
        (suspect.repeats != REPORTED).then(|| suspect.probes.saturating_add(repeats))
    }

    /// Whether an account has a single port.
    #[inline]
    pub(super) fn is_newcomer(&self, found: Option<Place>) -> bool {
        found.is_some_and(|place| place.0 & SUSPECT == 0)
    }

    /// Whether a suspect had passed the trigger of the long window when that was last asked.
    #[inline]
    pub(super) fn is_long_term(&self, found: Option<Place>) -> bool {
        let at = found.filter(|place| place.0 & SUSPECT != 0).map(|place| place.0 & INDEX);
        at.and_then(|at| self.suspects.get(at)).is_some_and(|it| it.passed & LONG_TERM != 0)
    }

    /// Notes whether a source has passed the trigger of the long window, which makes it a suspect:
    /// only suspects can remember it.
    pub(super) fn note_long_term(
        &mut self,
        found: Option<Place>,
        has_passed: bool,
    ) -> Option<Place> {
        let mut place = found?;
        if place.0 & SUSPECT == 0 {
            if !has_passed {
                return found;
            }
            let key = self.key(place)?;
            place = Place(self.promote(self.hash(key), key, place)? | SUSPECT);
        }
        let suspect = self.suspects.get_mut(place.0 & INDEX)?;
        suspect.passed =
            if has_passed { suspect.passed | LONG_TERM } else { suspect.passed & !LONG_TERM };
        Some(place)
    }

    /// A suspect was reported as one that continues.
    pub(super) fn note_reported(&mut self, found: Option<Place>) {
        if let Some(place) = found.filter(|place| place.0 & SUSPECT != 0)
            && let Some(suspect) = self.suspects.get_mut(place.0 & INDEX)
        {
            suspect.repeats = REPORTED;
        }
    }

    /// Whether a source has an account, expired or not.
    pub(super) fn knows(&self, source: Source) -> bool {
        let Hashed { key, hash } = self.key_of(source);
        self.find(hash, key).is_some()
    }

    /// Calls `see` with a source's account.
    pub(super) fn inspect<T>(
        &self,
        source: Source,
        see: impl FnOnce(Account<'_>) -> T,
    ) -> Option<T> {
        let Hashed { key, hash } = self.key_of(source);
        let place = self.find(hash, key)?;
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            let suspect = self.suspects.get(at)?;
            let Suspect { first, last, last_reported, probes, .. } = *suspect;
            return Some(see(Account {
                slots: self.slots(at),
                first,
                last,
                last_reported,
                probes,
            }));
        }
        let slots = [self.newcomers.get(at)?.touch];
        let time = Touch::live(slots[0], 0)?.time();
        Some(see(Account { slots: &slots, first: time, last: time, last_reported: 0, probes: 1 }))
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, source: Source) {
        let Hashed { key, hash } = self.key_of(source);
        if let Some(place) = self.find(hash, key) {
            self.drop_place(key, place);
        }
    }

    /// A keyed hash of an address of this host.
    #[inline]
    pub(super) fn hash_address(&self, address: IpAddr) -> u64 {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        self.hasher.hash_one(bits)
    }

    fn hash(&self, key: Key) -> u64 {
        self.hasher.hash_one(key)
    }

    fn find(&self, hash: u64, key: Key) -> Option<Place> {
        self.index.find(hash, |place| self.key(place) == Some(key))
    }

    fn key(&self, place: Place) -> Option<Key> {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            self.suspects.get(at).map(|suspect| suspect.key)
        } else {
            self.newcomers.get(at).map(|newcomer| newcomer.key)
        }
    }

    /// The ports of an account.
    #[inline]
    fn account(&self, place: Place) -> &[u64] {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            return self.slots(at);
        }
        self.newcomers.get(at).map_or(&[], |newcomer| std::slice::from_ref(&newcomer.touch))
    }

    fn slots(&self, at: u32) -> &[u64] {
        let start = at as usize * self.stride;
        self.ports.get(start..start + self.stride).unwrap_or(&[])
    }

    fn slots_mut(&mut self, at: u32) -> &mut [u64] {
        let start = at as usize * self.stride;
        self.ports.get_mut(start..start + self.stride).unwrap_or(&mut [])
    }

    /// Adds a new source.
    fn admit(&mut self, now: MonoTime, hash: u64, key: Key, touch: Touch) -> Option<Place> {
        // Two out for one in: expired accounts never pile up, and no packet pays for a long sweep.
        self.sweep(now, 2);
        let patient = self.patient.length() < self.shape.third() && self.tokens.take(now);
        self.add_newcomer(hash, key, touch, patient)
    }

    fn add_newcomer(&mut self, hash: u64, key: Key, touch: Touch, patient: bool) -> Option<Place> {
        let patient = patient && self.patient.length() < self.shape.third();
        if self.newcomers.is_full() {
            // Patient newcomers fill at most half of the places, so there is a hasty one.
            self.evict(Tier::Hasty);
        }
        let (list, tier) =
            if patient { (&mut self.patient, PATIENT) } else { (&mut self.hasty, 0) };
        let place = Place(self.newcomers.push(list, Newcomer { key, touch: touch.slot() })? | tier);
        self.index.insert(hash, place);
        Some(place)
    }

    /// Turns a newcomer into a suspect with its one port.
    fn promote(&mut self, hash: u64, key: Key, place: Place) -> Option<u32> {
        let touch = Touch::live(self.newcomers.get(place.0 & INDEX)?.touch, 0)?.marked(false);
        let time = touch.time();
        self.free(place);
        let at = self.push_suspect(Suspect {
            key,
            first: time,
            last_reported: 0,
            last: time,
            probes: 1,
            marked: false,
            passed: 0,
            repeats: 0,
        });
        let Some(at) = at else {
            self.index.remove(hash, place);
            return None;
        };
        self.index.replace(hash, place, Place(at | SUSPECT));
        if let Some(slot) = self.slots_mut(at).first_mut() {
            *slot = touch.slot();
        }
        Some(at)
    }

    fn add_suspect(&mut self, hash: u64, suspect: Suspect) -> Option<u32> {
        let at = self.push_suspect(suspect)?;
        self.index.insert(hash, Place(at | SUSPECT));
        Some(at)
    }

    /// Adds an account without ports that is not in the index yet.
    fn push_suspect(&mut self, suspect: Suspect) -> Option<u32> {
        if self.suspects.is_full() {
            self.evict(Tier::Suspects);
        }
        let at = self.suspects.push(&mut self.by_last_touch, suspect)?;
        self.slots_mut(at).fill(0);
        Some(at)
    }

    fn drop_place(&mut self, key: Key, place: Place) {
        self.index.remove(self.hash(key), place);
        self.free(place);
    }

    /// Frees a place that the index does not have, or has for another one soon.
    fn free(&mut self, place: Place) {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            self.suspects.remove(&mut self.by_last_touch, at);
        } else {
            let list = if place.0 & PATIENT != 0 { &mut self.patient } else { &mut self.hasty };
            self.newcomers.remove(list, at);
        }
    }
}

#[cfg(test)]
mod tests;
