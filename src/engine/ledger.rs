//! Who touched what lately, in bounded memory that a flood of invented sources cannot wash clean.
//!
//! Most sources that ever turn up touch one port and are never seen again; a flood of forged addresses consists of nothing else. So a source
//! earns its place:
//!
//! ```text
//!                     a token?  yes -> patient   (one port; kept for the whole window)  --+
//!   a new source ---------------|                                                         |-- a second port --> suspects
//!                               no --> hasty     (one port; kept until crowded out)     --+
//! ```
//!
//! * *Patient* newcomers are admitted at the rate that their tier can keep for the whole window: capacity / 3 in a `scan_window` (218 a second
//!   by default). Ordinary days stay far below, so a scanner that waits minutes between two ports is remembered. A flood takes the tokens, but
//!   not the places of those who are in.
//! * *Hasty* newcomers share what is left of the newcomers' places: the oldest makes room. 300,000 new sources a second push one out after
//!   0.44 s at least: whoever touches two ports within that time is found.
//! * *Suspects* have touched two ports or more, or have passed the trigger. They make room for nobody but suspects, one that was quiet for
//!   long first. To push a real scanner out, a flood needs more sources with two probes each than the tier holds, between two of its probes.
//!
//! The order in a tier is that of a clock with a second chance: a touch only marks its source, and a marked one that comes to the front goes to
//! the back instead, its mark gone. That is as good as moving it with every touch, and spares the packet path the neighbours' cache lines.
//!
//! Every step is O(1): lists through slabs, and one index whose load is kept below one half, so that it needs no rehash (a rehash in place
//! follows after days of flood only, from the index's own erased entries, and takes some ten milliseconds).
//!
//! Memory: a newcomer costs [`NEWCOMER_BYTES`], a suspect [`suspect_bytes`], both with their share of the index: 55 and 127 bytes at most
//! with the default trigger. A trigger of `n` needs `max(n, 5) + 1` ports of eight bytes for each suspect; where that would take more than [`PORT_BYTES_MAX`],
//! there are fewer suspects instead.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::account::{AMBIGUOUS_ALONE, Counted, Tally, Touch, clock, record};
use super::slab::{List, Slab};
use super::{MonoTime, Source};
use crate::rate::TokenBucket;

/// Sources that are remembered by default: a third each for suspects, patient and hasty newcomers.
///
/// 131,072 suspects outnumber the hosts that scan one address within ten minutes on any day that was measured by orders of magnitude; 131,072
/// hasty places bridge 0.44 s of 300,000 invented sources a second, a full gigabit's worth of SYNs for a fifth of its bandwidth; and the whole takes 27 MB when
/// full, a few kilobytes when not.
pub const CAPACITY: u32 = 393_216;

/// The highest trigger that is told apart: more distinct ports than this count as this many. A port scan of a thousand ports is one for everybody,
/// and the bound keeps the search through an account's ports short.
pub const TRIGGER_MAX: u16 = 1023;

/// Bytes for the suspects' ports in all, at most: the default trigger needs 6 MB of it.
pub const PORT_BYTES_MAX: usize = 64 << 20;

/// Bytes that a source costs in the index, at most: 5 for each bucket, and at least 0.22 sources for each bucket when the ledger is full.
/// The default capacity fills 0.375 of them: 14 bytes.
const INDEX_BYTES: usize = 23;

/// Bytes that a newcomer costs, index included.
pub const NEWCOMER_BYTES: usize = Slab::<Newcomer>::PLACE + INDEX_BYTES;

/// Bytes that a suspect costs with this trigger, index included.
pub const fn suspect_bytes(trigger: u16) -> usize {
    Slab::<Suspect>::PLACE + INDEX_BYTES + slots(trigger) * size_of::<u64>()
}

/// Ports that an account holds with this trigger: one more than the trigger, for plain and for ambiguous evidence.
const fn slots(trigger: u16) -> usize {
    let trigger = if trigger > TRIGGER_MAX { TRIGGER_MAX } else { trigger };
    (if trigger > AMBIGUOUS_ALONE { trigger } else { AMBIGUOUS_ALONE }) as usize + 1
}

/// A source as a number; IPv4 addresses as their mapped form (RFC 4291, 2.5.5.2), which no packet's source may have.
///
/// Two words rather than one of 128 bits, whose alignment would cost a newcomer sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Key(u64, u64);

impl From<Source> for Key {
    fn from(source: Source) -> Self {
        let bits = match source.addr() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        Self((bits >> 64) as u64, bits as u64)
    }
}

impl Key {
    fn source(self, ipv6_prefix: u8) -> Source {
        Source::of(IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.0) << 64 | u128::from(self.1))), ipv6_prefix)
    }
}

#[derive(Debug)]
struct Newcomer {
    key: Key,
    touch: u64,
}

#[derive(Debug)]
struct Suspect {
    key: Key,
    /// When it was first seen, and when it was last told of (0: never); milliseconds.
    first: u64,
    told: u64,
    last: u64,
    probes: u32,
    /// Touched since it was put where it is in its tier's order.
    marked: bool,
}

/// A place in one of the slabs: the top bit says in which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u32);

const SUSPECT: u32 = 1 << 31;
/// Of a newcomer's place: it is a patient one.
const PATIENT: u32 = 1 << 30;
const AT: u32 = PATIENT - 1;

/// Sources that are spared before one must go, at most: it bounds the work of an eviction. Each of them was touched since it was spared last.
const SPARED_MAX: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Hasty,
    Patient,
    Suspects,
}

/// Whoever is next to go in a tier.
#[derive(Debug, Clone, Copy)]
struct Front {
    place: Place,
    key: Key,
    last: u64,
    marked: bool,
}

/// What the ledger is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) capacity: u32,
    pub(super) trigger: u16,
    /// Milliseconds.
    pub(super) window: u64,
    /// Leading bits of an IPv6 account.
    pub(super) ipv6_prefix: u8,
}

impl Shape {
    /// Places of one tier.
    fn third(self) -> u32 {
        (self.capacity / 3).clamp(1, AT / 2)
    }

    fn suspects(self) -> u32 {
        let fit = PORT_BYTES_MAX / (slots(self.trigger) * size_of::<u64>());
        self.third().min(u32::try_from(fit).unwrap_or(u32::MAX))
    }

    fn tokens(self) -> TokenBucket {
        // An eighth saved up: the first minutes after a start see many sources at once.
        let third = u64::from(self.third());
        TokenBucket::new(third, self.window, (third / 8).max(1))
    }
}

/// The ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    shape: Shape,
    stride: usize,
    hasher: FixedState,
    index: HashTable<Place>,
    newcomers: Slab<Newcomer>,
    suspects: Slab<Suspect>,
    /// The suspects' ports, `stride` for each place. Pages nobody has written to cost nothing.
    ports: Vec<u64>,
    patient: List,
    hasty: List,
    watched: List,
    tokens: TokenBucket,
    evicted: u64,
}

/// Where [`Ledger::touch`] has found a source: good until the next touch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    hash: u64,
    key: Key,
    place: Option<Place>,
}

/// What is known of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known<'a> {
    pub(super) slots: &'a [u64],
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) told: u64,
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
            // Twice what is ever in it: a load below one half leaves hardly an erased entry behind.
            index: HashTable::with_capacity((suspects + newcomers) as usize * 2),
            newcomers: Slab::new(newcomers),
            suspects: Slab::new(suspects),
            ports: vec![0; suspects as usize * stride],
            patient: List::default(),
            hasty: List::default(),
            watched: List::default(),
            tokens: shape.tokens(),
            evicted: 0,
        }
    }

    /// The same knowledge in another shape. Not for the packet path: it walks through everything.
    pub(super) fn reshape(&mut self, shape: Shape, seed: u64, now: MonoTime, counted: Counted) {
        if shape == self.shape {
            return;
        }
        let mut fresh = Self::new(shape, seed);
        fresh.evicted = self.evicted;
        let horizon = fresh.horizon(now);
        // What one prefix did is not what a longer or shorter one did.
        let is_kept = |key: Key| shape.ipv6_prefix == self.shape.ipv6_prefix || key.source(128).addr().is_ipv4();
        for (list, patient) in [(self.patient, true), (self.hasty, false)] {
            for (_, newcomer) in self.newcomers.walk(list) {
                if let Some(touch) = Touch::live(newcomer.touch, horizon).filter(|_| is_kept(newcomer.key)) {
                    fresh.add_newcomer(fresh.hash(newcomer.key), newcomer.key, touch, patient);
                }
            }
        }
        for (at, suspect) in self.suspects.walk(self.watched).filter(|(_, suspect)| is_kept(suspect.key)) {
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

    /// Sources that are remembered, those whose time is over but who are not yet swept out included.
    pub(super) fn sources(&self) -> u32 {
        self.newcomers.used() + self.suspects.used()
    }

    /// Of them, suspects.
    pub(super) fn suspects(&self) -> u32 {
        self.suspects.used()
    }

    /// The most that there can be.
    pub(super) fn capacity(&self) -> u32 {
        self.shape.suspects() + self.shape.third() * 2
    }

    /// Sources that had to make room before their time was over.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The earliest time that still counts.
    pub(super) fn horizon(&self, now: MonoTime) -> u64 {
        clock(now).saturating_sub(self.shape.window)
    }

    /// Writes a touch down and gives what the source's ports add up to.
    pub(super) fn touch(&mut self, now: MonoTime, source: Source, touch: Touch, counted: Counted) -> (Tally, Found) {
        let key = Key::from(source);
        let hash = self.hash(key);
        let horizon = self.horizon(now);
        let Some(place) = self.find(hash, key) else {
            let place = self.admit(now, hash, key, touch);
            return (Tally::of(&[touch.slot()], horizon, counted), Found { hash, key, place });
        };
        let mut found = Found { hash, key, place: Some(place) };
        if place.0 & SUSPECT != 0 {
            return (self.write(place.0 & AT, touch, horizon, counted), found);
        }
        let Some(newcomer) = self.newcomers.get_mut(place.0 & AT) else { return (Tally::default(), found) };
        let only = match Touch::live(newcomer.touch, horizon) {
            Some(old) if old.same_port(touch) => old.stronger(touch),
            Some(_) => {
                let at = self.promote(hash, key, place);
                found.place = at.map(|at| Place(at | SUSPECT));
                let tally = at.map_or(Tally::default(), |at| self.write(at, touch, horizon, counted));
                // Its second port made it a suspect; only a third earns a second chance. Else all of a flood would have one.
                if let Some(suspect) = at.and_then(|at| self.suspects.get_mut(at)) {
                    suspect.marked = false;
                }
                return (tally, found);
            }
            None => touch,
        };
        newcomer.touch = only.marked(true).slot();
        (Tally::of(&[only.slot()], horizon, counted), found)
    }

    /// Whether people should hear of this source now: once in a window. It becomes a suspect by it, since only those have a place to note it.
    pub(super) fn tell(&mut self, now: MonoTime, found: Found) -> bool {
        let horizon = self.horizon(now);
        let Found { hash, key, place } = found;
        let Some(place) = place else { return true };
        let at = if place.0 & SUSPECT != 0 { Some(place.0 & AT) } else { self.promote(hash, key, place) };
        let Some(suspect) = at.and_then(|at| self.suspects.get_mut(at)) else { return true };
        let due = suspect.told == 0 || suspect.told < horizon;
        if due {
            // 0 means never; the clock's first millisecond is lost without harm.
            suspect.told = clock(now).max(1);
        }
        due
    }

    /// Whether a source has an account, be its time over or not.
    pub(super) fn knows(&self, source: Source) -> bool {
        let key = Key::from(source);
        self.find(self.hash(key), key).is_some()
    }

    /// Calls `see` with what is known of a source.
    pub(super) fn look<T>(&self, source: Source, see: impl FnOnce(Known<'_>) -> T) -> Option<T> {
        let key = Key::from(source);
        let place = self.find(self.hash(key), key)?;
        let at = place.0 & AT;
        if place.0 & SUSPECT != 0 {
            let suspect = self.suspects.get(at)?;
            let Suspect { first, last, told, probes, .. } = *suspect;
            return Some(see(Known { slots: self.slots(at), first, last, told, probes }));
        }
        let slots = [self.newcomers.get(at)?.touch];
        let time = Touch::live(slots[0], 0)?.time();
        Some(see(Known { slots: &slots, first: time, last: time, told: 0, probes: 1 }))
    }

    /// Calls `see` with what is known of sources that were touched at `since` or later: suspects before newcomers, and in each tier whoever came
    /// late first. At most `most` of them are shown, and four times as many looked at: it is asked for between packets.
    pub(super) fn survey(&self, since: u64, most: usize, mut see: impl FnMut(Source, Known<'_>)) {
        let (mut shown, mut looked) = (0, 0);
        for (at, suspect) in self.suspects.walk_back(self.watched) {
            if shown >= most || looked >= most.saturating_mul(4) {
                return;
            }
            looked += 1;
            if suspect.last >= since || suspect.told >= since {
                let Suspect { key, first, last, told, probes, .. } = *suspect;
                see(key.source(self.shape.ipv6_prefix), Known { slots: self.slots(at), first, last, told, probes });
                shown += 1;
            }
        }
        for (_, newcomer) in self.newcomers.walk_back(self.patient) {
            if shown >= most || looked >= most.saturating_mul(4) {
                return;
            }
            looked += 1;
            if let Some(touch) = Touch::live(newcomer.touch, since.max(1)) {
                let time = touch.time();
                see(newcomer.key.source(self.shape.ipv6_prefix), Known { slots: &[newcomer.touch], first: time, last: time, told: 0, probes: 1 });
                shown += 1;
            }
        }
    }

    /// Takes over what an earlier run knew of a source, unless something is known of it already. What is over by now counts no more.
    pub(super) fn recall(&mut self, now: MonoTime, source: Source, known: Known<'_>, counted: Counted) {
        let key = Key::from(source);
        let (hash, horizon, clock) = (self.hash(key), self.horizon(now), clock(now));
        // Nobody touched anything after now.
        let mut touches = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).filter(|touch| touch.time() <= clock).peekable();
        let Some(first) = touches.peek().copied() else { return };
        if self.find(hash, key).is_some() {
            return;
        }
        if known.slots.len() == 1 && known.told == 0 {
            self.add_newcomer(hash, key, first.marked(false), true);
            return;
        }
        let suspect = Suspect {
            key,
            first: known.first.min(clock),
            told: known.told.min(clock),
            last: known.last.min(clock),
            probes: known.probes,
            marked: false,
        };
        if let Some(at) = self.add_suspect(hash, suspect) {
            let touches: Vec<Touch> = touches.collect();
            for touch in touches {
                record(self.slots_mut(at), touch.marked(false), horizon, counted);
            }
        }
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, source: Source) {
        let key = Key::from(source);
        if let Some(place) = self.find(self.hash(key), key) {
            self.drop_place(key, place);
        }
    }

    /// Sweeps out at most `budget` sources whose time is over. Gives whether there may be more of them.
    pub(super) fn sweep(&mut self, now: MonoTime, budget: u32) -> bool {
        let horizon = self.horizon(now);
        for _ in 0..budget {
            let over = |tier| self.front(tier).filter(|front| front.marked || front.last < horizon);
            let Some(front) = over(Tier::Hasty).or_else(|| over(Tier::Patient)).or_else(|| over(Tier::Suspects)) else { return false };
            if front.last < horizon { self.drop_place(front.key, front.place) } else { self.spare(front.place) }
        }
        true
    }

    /// Whose turn it is in a tier.
    fn front(&self, tier: Tier) -> Option<Front> {
        if tier == Tier::Suspects {
            let at = self.watched.first()?;
            let suspect = self.suspects.get(at)?;
            return Some(Front { place: Place(at | SUSPECT), key: suspect.key, last: suspect.last, marked: suspect.marked });
        }
        let (list, bit) = if tier == Tier::Patient { (self.patient, PATIENT) } else { (self.hasty, 0) };
        let at = list.first()?;
        let newcomer = self.newcomers.get(at)?;
        let touch = Touch::live(newcomer.touch, 0)?;
        Some(Front { place: Place(at | bit), key: newcomer.key, last: touch.time(), marked: touch.is_marked() })
    }

    /// Gives whoever is at `place` its second chance: to the back of its tier, without the mark.
    fn spare(&mut self, place: Place) {
        let at = place.0 & AT;
        if place.0 & SUSPECT != 0 {
            if let Some(suspect) = self.suspects.get_mut(at) {
                suspect.marked = false;
            }
            self.suspects.renew(&mut self.watched, at);
        } else {
            if let Some(newcomer) = self.newcomers.get_mut(at) {
                newcomer.touch = Touch::live(newcomer.touch, 0).map_or(0, |touch| touch.marked(false).slot());
            }
            let list = if place.0 & PATIENT != 0 { &mut self.patient } else { &mut self.hasty };
            self.newcomers.renew(list, at);
        }
    }

    /// Makes one place free in a full tier.
    fn evict(&mut self, tier: Tier) {
        for spared in 0..=SPARED_MAX {
            let Some(front) = self.front(tier) else { return };
            if front.marked && spared < SPARED_MAX {
                self.spare(front.place);
            } else {
                self.evicted += 1;
                return self.drop_place(front.key, front.place);
            }
        }
    }

    fn hash(&self, key: Key) -> u64 {
        self.hasher.hash_one(key)
    }

    fn find(&self, hash: u64, key: Key) -> Option<Place> {
        self.index.find(hash, |place| self.key(*place) == Some(key)).copied()
    }

    fn key(&self, place: Place) -> Option<Key> {
        let at = place.0 & AT;
        if place.0 & SUSPECT != 0 { self.suspects.get(at).map(|suspect| suspect.key) } else { self.newcomers.get(at).map(|newcomer| newcomer.key) }
    }

    fn slots(&self, at: u32) -> &[u64] {
        let start = at as usize * self.stride;
        self.ports.get(start..start + self.stride).unwrap_or(&[])
    }

    fn slots_mut(&mut self, at: u32) -> &mut [u64] {
        let start = at as usize * self.stride;
        self.ports.get_mut(start..start + self.stride).unwrap_or(&mut [])
    }

    fn write(&mut self, at: u32, touch: Touch, horizon: u64, counted: Counted) -> Tally {
        if let Some(suspect) = self.suspects.get_mut(at) {
            suspect.last = suspect.last.max(touch.time());
            suspect.probes = suspect.probes.saturating_add(1);
            suspect.marked = true;
        }
        let slots = self.slots_mut(at);
        record(slots, touch, horizon, counted);
        Tally::of(slots, horizon, counted)
    }

    /// Takes a new source in.
    fn admit(&mut self, now: MonoTime, hash: u64, key: Key, touch: Touch) -> Option<Place> {
        // Two out for one in: what is over never piles up, and nobody pays for a sweep.
        self.sweep(now, 2);
        let patient = self.patient.length() < self.shape.third() && self.tokens.take(now);
        self.add_newcomer(hash, key, touch, patient)
    }

    fn add_newcomer(&mut self, hash: u64, key: Key, touch: Touch, patient: bool) -> Option<Place> {
        let patient = patient && self.patient.length() < self.shape.third();
        if self.newcomers.is_full() {
            // Patient ones fill half of the places at most, so there is a hasty one.
            self.evict(Tier::Hasty);
        }
        let (list, tier) = if patient { (&mut self.patient, PATIENT) } else { (&mut self.hasty, 0) };
        let place = Place(self.newcomers.push(list, Newcomer { key, touch: touch.slot() })? | tier);
        self.enter(hash, place);
        Some(place)
    }

    /// Makes a suspect of a newcomer, with its one port.
    fn promote(&mut self, hash: u64, key: Key, place: Place) -> Option<u32> {
        let touch = Touch::live(self.newcomers.get(place.0 & AT)?.touch, 0)?.marked(false);
        let time = touch.time();
        self.drop_place(key, place);
        let at = self.add_suspect(hash, Suspect { key, first: time, told: 0, last: time, probes: 1, marked: false })?;
        if let Some(slot) = self.slots_mut(at).first_mut() {
            *slot = touch.slot();
        }
        Some(at)
    }

    fn add_suspect(&mut self, hash: u64, suspect: Suspect) -> Option<u32> {
        if self.suspects.is_full() {
            self.evict(Tier::Suspects);
        }
        let at = self.suspects.push(&mut self.watched, suspect)?;
        self.slots_mut(at).fill(0);
        self.enter(hash, Place(at | SUSPECT));
        Some(at)
    }

    fn enter(&mut self, hash: u64, place: Place) {
        let Self { index, newcomers, suspects, hasher, .. } = self;
        index.insert_unique(hash, place, |place| {
            let at = place.0 & AT;
            let key =
                if place.0 & SUSPECT != 0 { suspects.get(at).map(|suspect| suspect.key) } else { newcomers.get(at).map(|newcomer| newcomer.key) };
            hasher.hash_one(key.unwrap_or_default())
        });
    }

    fn drop_place(&mut self, key: Key, place: Place) {
        let hash = self.hash(key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        let at = place.0 & AT;
        if place.0 & SUSPECT != 0 {
            self.suspects.remove(&mut self.watched, at);
        } else {
            let list = if place.0 & PATIENT != 0 { &mut self.patient } else { &mut self.hasty };
            self.newcomers.remove(list, at);
        }
    }
}

#[cfg(test)]
mod tests;
