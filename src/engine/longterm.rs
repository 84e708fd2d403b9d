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

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::MonoTime;
use super::ledger::Key;
use crate::probe::Port;

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

/// The table.
#[derive(Debug)]
pub(super) struct LongTerm {
    hasher: FixedState,
    /// Pages that were never written use no memory.
    buckets: Vec<[u64; 2 * WAYS]>,
}

impl LongTerm {
    pub(super) fn new(seed: u64) -> Self {
        Self { hasher: FixedState::with_seed(seed), buckets: vec![[0; 2 * WAYS]; BUCKETS] }
    }

    fn place(&self, key: Key) -> (usize, u32) {
        let hash = self.hasher.hash_one(key);
        ((hash >> 32) as usize % BUCKETS, (hash as u32).max(1))
    }

    /// The source's entry, or the place for it.
    fn entry_mut(&mut self, key: Key, half: u16) -> Option<&mut Entry> {
        let (bucket, tag) = self.place(key);
        let (entries, _) = self.buckets.get_mut(bucket)?.as_chunks_mut::<2>();
        // Equal ones are replaced in no order that a sender knows.
        let first = tag as usize % WAYS;
        let rank = |(at, entry): &(usize, &mut Entry)| {
            let is_own = entry[0] as u32 == tag;
            (!is_own, count(**entry, half), (at + first) % WAYS)
        };
        let (_, entry) = entries.iter_mut().enumerate().min_by_key(rank)?;
        if entry[0] as u32 != tag {
            *entry = [u64::from(tag), 0];
        }
        Some(entry)
    }

    /// Adds bits to a source in this half day. Returns how many it has.
    fn add(&mut self, now: MonoTime, key: Key, added: LongTermBits) -> u32 {
        let half = half(now);
        let Some(entry) = self.entry_mut(key, half) else { return 0 };
        let (current, previous) = bits(*entry, half);
        let (current, previous) = (current | added.current, previous | added.previous);
        *entry = [
            entry[0] & u64::from(u32::MAX) | u64::from(half) << 32,
            u64::from(current) | u64::from(previous) << 32,
        ];
        (current | previous).count_ones()
    }

    /// Records a touch. Returns the bits of the source.
    #[inline]
    pub(super) fn touch(&mut self, now: MonoTime, key: Key, port: Port) -> u32 {
        self.add(now, key, LongTermBits { current: bit(port), previous: 0 })
    }

    /// The bits of a source that count now.
    pub(super) fn get(&self, now: MonoTime, key: Key) -> LongTermBits {
        let (bucket, tag) = self.place(key);
        let entries = self.buckets.get(bucket).map(|bucket| bucket.as_chunks::<2>().0);
        let entry = entries.and_then(|all| all.iter().find(|entry| entry[0] as u32 == tag));
        let (current, previous) = entry.map_or((0, 0), |entry| bits(*entry, half(now)));
        LongTermBits { current, previous }
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, key: Key) {
        let (bucket, tag) = self.place(key);
        let entries = self.buckets.get_mut(bucket).map(|bucket| bucket.as_chunks_mut::<2>().0);
        for entry in entries.into_iter().flatten().filter(|entry| entry[0] as u32 == tag) {
            *entry = [0; 2];
        }
    }

    /// Restores what a source had at `last`.
    pub(super) fn recall(&mut self, now: MonoTime, key: Key, last: MonoTime, had: LongTermBits) {
        let had = match half(now).wrapping_sub(half(last)) {
            0 => had,
            1 => LongTermBits { current: 0, previous: had.current },
            _ => return,
        };
        if had != LongTermBits::default() {
            self.add(now, key, had);
        }
    }
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
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Ipv6Accounts};
    use crate::engine::ledger::Shape;
    use crate::engine::{CAPACITY, NEWCOMER_BYTES, Source, suspect_bytes};
    use crate::probe::Transport;

    const IPV6: Ipv6Accounts = Ipv6Accounts { first: 128, then: 64 };
    const DAY: u64 = 86_400_000;

    fn key(source: u32) -> Key {
        Shape { capacity: 3, trigger: 2, window: 1, ipv6: IPV6 }
            .key(Source::of(Ipv4Addr::from(source).into(), 128))
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
        let mut table = LongTerm::new(7);
        // Five ports of different classes.
        let mut seen = 0;
        let is_new = |port: &u16| {
            let is_new = seen & bit(tcp(*port)) == 0;
            seen |= bit(tcp(*port));
            is_new
        };
        let ports: Vec<Port> = (1..99).filter(is_new).map(tcp).take(5).collect();
        table.touch(at(0), key(1), ports[0]);
        assert_eq!(table.touch(at(DAY / 2), key(1), ports[1]), 2);
        assert_eq!(table.touch(at(DAY - 1), key(1), ports[2]), 3);
        assert_eq!(table.touch(at(DAY), key(1), ports[3]), 3, "the first is gone");
        assert_eq!(table.touch(at(3 * DAY), key(1), ports[4]), 1);
        table.forget(key(1));
        assert_eq!(table.get(at(3 * DAY), key(1)), LongTermBits::default());
    }

    #[test]
    fn what_was_stored_is_as_old_as_it_was() {
        let mut old = LongTerm::new(7);
        for port in 1..=5 {
            old.touch(at(0), key(1), tcp(port));
        }
        let had = old.get(at(0), key(1));
        for (now, is_there) in [(0, true), (DAY / 2, true), (DAY, false)] {
            let mut new = LongTerm::new(8);
            new.recall(at(now), key(1), at(0), had);
            let LongTermBits { current, previous } = new.get(at(now), key(1));
            assert_eq!(current | previous, if is_there { had.current } else { 0 }, "{now}");
        }
    }

    // P6
    #[test]
    fn among_a_million_sources_of_one_packet_a_scanner_keeps_its_ports() {
        let mut table = LongTerm::new(7);
        let mut bits = 0;
        for n in 0..1_200_000_u32 {
            if n % 60_000 == 0 {
                bits = table.touch(at(u64::from(n)), key(1), tcp((n / 60_000) as u16));
            }
            table.touch(at(u64::from(n)), key(0x0b00_0000 + n), tcp(443));
        }
        assert!(bits >= 12, "{bits}");
    }

    proptest! {
        #[test]
        fn bits_are_never_more_than_the_distinct_ports(ports in proptest::collection::vec(0u16..2000, 1..60)) {
            let mut table = LongTerm::new(7);
            let mut distinct = std::collections::BTreeSet::new();
            for (step, port) in ports.into_iter().enumerate() {
                distinct.insert(port);
                let bits = table.touch(at(step as u64 * 1000), key(1), tcp(port));
                prop_assert!((1..=distinct.len()).contains(&(bits as usize)));
            }
        }
    }
}
