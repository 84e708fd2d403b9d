//! The long window: how many distinct ports a source touched within a day, in bits.
//!
//! The ledger forgets a port after `scan_window`, so that a scanner which waits longer between two
//! ports never has enough of them. Here evidence fades instead: each source has a bit for each of
//! [`BITS`] classes of ports, for this half day and for the one before. The bits of both are never
//! more than the distinct ports, so that a client which tries one wrong port all day has one.
//!
//! Memory: a table of [`SOURCES`] entries of [`BYTES`], in buckets of [`WAYS`]. A source is found by
//! a keyed hash of 50 bits, which no sender can predict. In a full bucket the entry with the fewest
//! bits goes: sources of one packet replace each other, and none that touched several ports.

use std::time::Duration;

use super::MonoTime;
use crate::probe::Port;
use crate::sys::prefetch::prefetch;

/// Sources remembered for a day, a power of two.
pub(super) const SOURCES: usize = 1 << 20;
/// Bytes of each.
pub(super) const BYTES: usize = 16;
const _: () = assert!(size_of::<Entry>() == BYTES);
/// How long a touch counts at least; at most twice as long.
pub(super) const HALF: Duration = Duration::from_secs(12 * 3600);

const WAYS: usize = 4;
const BUCKETS: usize = SOURCES / WAYS;
/// Classes of ports.
const BITS: u32 = 32;
/// The long window is off where its trigger would be more than this: too many ports share a bit.
const TRIGGER_MAX: u32 = 20;

/// Bits that exceed the long trigger: four times the ports that exceed the short one, twelve at the
/// default, which some fifteen ports have; `None`: the long window is off.
pub(super) fn trigger(scan_trigger: u16) -> Option<u32> {
    Some((u32::from(scan_trigger) + 1) * 4).filter(|bits| *bits <= TRIGGER_MAX)
}

/// An entry: bits 0..32 the tag (0: empty), 32..48 the half day; and the ports, of this half day in
/// bits 0..32, of the one before in 32..64.
type Entry = [u64; 2];

/// The bits of an entry that count in this half day: current and previous ones.
fn bits([head, ports]: Entry, half: u16) -> (u32, u32) {
    let (current, previous) = (ports as u32, (ports >> 32) as u32);
    match half.wrapping_sub((head >> 32) as u16) {
        0 => (current, previous),
        1 => (0, current),
        _ => (0, 0),
    }
}

fn count(entry: Entry, half: u16) -> u32 {
    let (current, previous) = bits(entry, half);
    (current | previous).count_ones()
}

/// Whether two moments are in the same half day.
pub(super) fn is_one_half(one: MonoTime, other: MonoTime) -> bool {
    half(one) == half(other)
}

fn half(now: MonoTime) -> u16 {
    // A wrap after 89 years.
    (now.millis() / (HALF.as_millis() as u64)) as u16
}

/// What a source touched lately, for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LongTermBits {
    /// In the half day of its last touch.
    pub current: u32,
    /// In the one before.
    pub previous: u32,
}

/// The table. A source is found by the hash of its key in the ledger, where the index uses other bits
/// of it.
#[derive(Debug)]
pub(super) struct LongTerm {
    /// From `first` on: a bucket is a cache line. Pages that were never written use no memory.
    entries: Vec<Entry>,
    first: usize,
    /// First touches of sources that cannot pass with them. They are written later: each is at another
    /// place, which the processor fetches meanwhile.
    firsts: [(u64, u32); FIRSTS],
    waiting: usize,
    /// The moment of these touches, and its half day.
    now: MonoTime,
    half: u16,
    /// Sources that might pass with one more port, by a part of their hash: those of this half day, and
    /// those of the one before.
    near: [Box<[u64; NEAR / 64]>; 2],
}

/// First touches that wait.
const FIRSTS: usize = 32;
/// Bits for sources that might pass, and the ports that they have.
const NEAR: usize = 1 << 16;
const NEAR_PORTS: u32 = 3;

/// The word and the bit of a source among those that might pass.
fn near_place(hash: u64) -> (usize, u64) {
    ((hash >> 38) as usize % (NEAR / 64), 1 << ((hash >> 32) % 64))
}

fn place(hash: u64) -> (usize, u32) {
    ((hash >> 32) as usize % BUCKETS, (hash as u32).max(1))
}

/// A bit for each place of a bucket that is the right one. Without a branch: which one it is cannot
/// be predicted.
#[inline]
pub(super) fn ways_with<const N: usize>(is_own: [bool; N]) -> u32 {
    let bits = is_own.into_iter().map(u32::from).zip(0..);
    bits.fold(0, |all, (is_own, at)| all | is_own << at)
}

/// Where the source is in its bucket.
fn find(bucket: &[Entry; WAYS], tag: u32) -> Option<usize> {
    let own = ways_with(bucket.map(|entry| entry[0] as u32 == tag));
    (own != 0).then_some(own.trailing_zeros() as usize)
}

impl LongTerm {
    pub(super) fn new() -> Self {
        let entries: Vec<Entry> = vec![[0; 2]; SOURCES + WAYS - 1];
        Self {
            first: entries.as_ptr().align_offset(WAYS * BYTES).min(WAYS - 1),
            entries,
            firsts: [(0, 0); FIRSTS],
            waiting: 0,
            now: MonoTime::default(),
            half: 0,
            near: std::array::from_fn(|_| Box::new([0; NEAR / 64])),
        }
    }

    #[inline]
    fn bucket(&self, number: usize) -> Option<&[Entry; WAYS]> {
        self.entries.get(self.first + number * WAYS..)?.first_chunk()
    }

    #[inline]
    fn bucket_mut(&mut self, number: usize) -> Option<&mut [Entry; WAYS]> {
        self.entries.get_mut(self.first + number * WAYS..)?.first_chunk_mut()
    }

    /// Adds bits to a source in this half day. Returns how many it has.
    fn add(&mut self, half: u16, hash: u64, added: LongTermBits) -> u32 {
        let (bucket, tag) = place(hash);
        let Some(bucket) = self.bucket_mut(bucket) else { return 0 };
        let at = find(bucket, tag);
        let is_known = at.is_some();
        let at = at.unwrap_or_else(|| weakest(bucket, tag, half));
        let Some(entry) = bucket.get_mut(at) else { return 0 };
        let (current, previous) = if is_known { bits(*entry, half) } else { (0, 0) };
        let (current, previous) = (current | added.current, previous | added.previous);
        *entry = [
            u64::from(tag) | u64::from(half) << 32,
            u64::from(current) | u64::from(previous) << 32,
        ];
        let number = (current | previous).count_ones();
        if number >= NEAR_PORTS {
            let (word, bit) = near_place(hash);
            if let Some(word) = self.near[0].get_mut(word) {
                *word |= bit;
            }
        }
        number
    }

    /// Records a touch. Returns the bits of the source.
    pub(super) fn touch(&mut self, now: MonoTime, hash: u64, port: Port) -> u32 {
        self.advance(now);
        self.write_firsts();
        self.add(self.half, hash, LongTermBits { current: bit(port), previous: 0 })
    }

    /// Records the touch of a source that the ledger did not know. Returns its bits, or 0 if they are
    /// fewer than any trigger.
    #[inline]
    pub(super) fn first_touch(&mut self, now: MonoTime, hash: u64, port: Port) -> u32 {
        self.advance(now);
        let (word, mask) = near_place(hash);
        if self.near.iter().any(|near| near.get(word).is_some_and(|word| word & mask != 0)) {
            return self.touch(now, hash, port);
        }
        if self.waiting >= FIRSTS {
            self.write_firsts();
        }
        if let Some(first) = self.firsts.get_mut(self.waiting) {
            *first = (hash, bit(port));
            self.waiting += 1;
        }
        self.read_ahead(hash);
        0
    }

    /// Brings the bucket of a source into the processor's caches.
    pub(super) fn read_ahead(&self, hash: u64) {
        if let Some(bucket) = self.bucket(place(hash).0) {
            prefetch(bucket);
        }
    }

    fn write_firsts(&mut self) {
        for at in 0..std::mem::take(&mut self.waiting) {
            if let Some((hash, current)) = self.firsts.get(at).copied() {
                self.add(self.half, hash, LongTermBits { current, previous: 0 });
            }
        }
    }

    /// Moves on to another moment. No first touch waits longer, so that each is of another source.
    fn advance(&mut self, now: MonoTime) {
        if now == self.now {
            return;
        }
        self.write_firsts();
        self.now = now;
        let half = half(now);
        if half != self.half {
            self.near.swap(0, 1);
            self.near[0].fill(0);
            if half != self.half.wrapping_add(1) {
                self.near[1].fill(0);
            }
            self.half = half;
        }
    }

    /// The bits of a source that count now.
    pub(super) fn get(&self, now: MonoTime, hash: u64) -> LongTermBits {
        let (bucket, tag) = place(hash);
        let bucket = self.bucket(bucket);
        let entry = bucket.and_then(|bucket| bucket.get(find(bucket, tag)?));
        let (mut current, previous) = entry.map_or((0, 0), |entry| bits(*entry, half(now)));
        for (first, bit) in self.firsts.iter().take(self.waiting) {
            current |= if *first == hash && self.half == half(now) { *bit } else { 0 };
        }
        LongTermBits { current, previous }
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, hash: u64) {
        self.write_firsts();
        let (bucket, tag) = place(hash);
        let Some(bucket) = self.bucket_mut(bucket) else { return };
        if let Some(entry) = find(bucket, tag).and_then(|at| bucket.get_mut(at)) {
            *entry = [0; 2];
        }
    }

    /// Restores what a source had at `last`.
    pub(super) fn recall(&mut self, now: MonoTime, hash: u64, last: MonoTime, had: LongTermBits) {
        let had = match half(now).wrapping_sub(half(last)) {
            0 => had,
            1 => LongTermBits { current: 0, previous: had.current },
            _ => return,
        };
        if had != LongTermBits::default() {
            self.advance(now);
            self.write_firsts();
            self.add(self.half, hash, had);
        }
    }
}

/// The entry with the fewest bits. Equal ones are replaced in no order that a sender knows.
fn weakest(bucket: &[Entry; WAYS], tag: u32, half: u16) -> usize {
    let first = tag as usize % WAYS;
    let rank = |(at, entry): &(usize, &Entry)| (count(**entry, half), (at + first) % WAYS);
    bucket.iter().enumerate().min_by_key(rank).map_or(0, |(at, _)| at)
}

/// The class of a port, by the finalizer of MurmurHash3. It has no key, since the store keeps the
/// bits.
fn bit(port: Port) -> u32 {
    let mut number = u32::from(port.number) | (port.transport as u32) << 16;
    for factor in [0x85eb_ca6b, 0xc2b2_ae35] {
        number = (number ^ number >> 15).wrapping_mul(factor);
    }
    1 << ((number ^ number >> 16) % BITS)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::engine::{CAPACITY, NEWCOMER_BYTES, suspect_bytes};
    use crate::probe::Transport;

    const DAY: u64 = 86_400_000;

    fn hash(source: u32) -> u64 {
        FixedState::with_seed(7).hash_one(source)
    }

    fn tcp(number: u16) -> Port {
        Port { transport: Transport::Tcp, number }
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis + 20 * DAY)
    }

    // P10
    #[test]
    fn a_million_sources_take_less_than_128_megabytes() {
        let third = CAPACITY as usize / 3;
        let ledger = 2 * third * NEWCOMER_BYTES + third * suspect_bytes(2);
        assert!(SOURCES >= 1_000_000 && SOURCES * BYTES + ledger < 128 << 20, "{ledger}");
    }

    #[test]
    fn the_long_trigger_is_four_times_the_short_one_and_off_above_twenty() {
        let at_default = Config::default().scan_trigger;
        assert_eq!(trigger(at_default), Some(12));
        assert_eq!([0, 4, 5, u16::MAX].map(trigger), [Some(4), Some(20), None, None]);
    }

    #[test]
    fn touches_fade_after_half_a_day_to_a_day() {
        let mut table = LongTerm::new();
        // Five ports of different classes.
        let mut seen = 0;
        let is_new = |port: &u16| {
            let is_new = seen & bit(tcp(*port)) == 0;
            seen |= bit(tcp(*port));
            is_new
        };
        let ports: Vec<Port> = (1..99).filter(is_new).map(tcp).take(5).collect();
        table.touch(at(0), hash(1), ports[0]);
        assert_eq!(table.touch(at(DAY / 2), hash(1), ports[1]), 2);
        assert_eq!(table.touch(at(DAY - 1), hash(1), ports[2]), 3);
        assert_eq!(table.touch(at(DAY), hash(1), ports[3]), 3, "the first is gone");
        assert_eq!(table.touch(at(3 * DAY), hash(1), ports[4]), 1);
        table.forget(hash(1));
        assert_eq!(table.get(at(3 * DAY), hash(1)), LongTermBits::default());
    }

    #[test]
    fn what_was_stored_is_as_old_as_it_was() {
        let mut old = LongTerm::new();
        for port in 1..=5 {
            old.touch(at(0), hash(1), tcp(port));
        }
        let had = old.get(at(0), hash(1));
        for (now, is_there) in [(0, true), (DAY / 2, true), (DAY, false)] {
            let mut new = LongTerm::new();
            new.recall(at(now), hash(1), at(0), had);
            let LongTermBits { current, previous } = new.get(at(now), hash(1));
            assert_eq!(current | previous, if is_there { had.current } else { 0 }, "{now}");
        }
    }

    // P6
    #[test]
    fn among_a_million_sources_of_one_packet_a_scanner_keeps_its_ports() {
        let mut table = LongTerm::new();
        let mut bits = 0;
        for n in 0..1_200_000_u32 {
            if n % 60_000 == 0 {
                bits = table.touch(at(u64::from(n)), hash(1), tcp((n / 60_000) as u16));
            }
            table.touch(at(u64::from(n)), hash(0x0b00_0000 + n), tcp(443));
        }
        assert!(bits >= 12, "{bits}");
    }

    #[test]
    fn first_touches_wait_unless_the_source_may_pass() {
        let mut table = LongTerm::new();
        let sources = FIRSTS as u32 + 3;
        for source in 0..sources {
            assert_eq!(table.first_touch(at(0), hash(source), tcp(1)), 0);
        }
        for source in 0..sources {
            assert_eq!(table.get(at(0), hash(source)).current, bit(tcp(1)), "{source}");
        }
        let mut seen = bit(tcp(1));
        for port in (2..99).map(tcp).filter(|port| bit(*port) != bit(tcp(1))) {
            if seen & bit(port) != 0 {
                continue;
            }
            seen |= bit(port);
            match seen.count_ones() {
                2 | 3 => {
                    let bits = table.touch(at(1), hash(sources - 1), port);
                    assert_eq!(bits, seen.count_ones());
                }
                // In the next half day too, what it had counts.
                4 => assert_eq!(table.first_touch(at(DAY / 2), hash(sources - 1), port), 4),
                _ => break,
            }
        }
    }

    proptest! {
        #[test]
        fn bits_are_never_more_than_the_distinct_ports(ports in proptest::collection::vec(0u16..2000, 1..60)) {
            let mut table = LongTerm::new();
            let mut distinct = std::collections::BTreeSet::new();
            for (step, port) in ports.into_iter().enumerate() {
                distinct.insert(port);
                let bits = table.touch(at(step as u64 * 1000), hash(1), tcp(port));
                prop_assert!((1..=distinct.len()).contains(&(bits as usize)));
            }
        }
    }
}
