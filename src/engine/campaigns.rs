//! Campaigns: sources that share a scan, of which each may stay below its own trigger.
//!
//! What they share is a network (an IPv4 /24, an IPv6 /56 or /48), or what their packets show of the
//! program that sent them ([`Signature`]). For each network there are two bit sets: which sources of
//! it probed closed ports, and which ports. A source is the last byte that its network leaves: an
//! address of a /24, a /64 of a /56, a /56 of a /48. Bits are never more than what they stand for.
//!
//! Evidence counts for one to two [`HALF`]s. A source gives its network the ports that it touches up
//! to its own trigger, so that one scanner among innocent neighbours is no campaign; beyond that it
//! counts as a scanner. Ports that one client tries together count as one.
//!
//! Memory: a table of fixed size, in buckets of [`WAYS`]. In a full bucket the network with the
//! fewest sources goes, and one that is a campaign last. A flood of forged networks has half of each
//! bucket; the other half takes no more new ones than it keeps for a [`HALF`], so that the networks
//! of a slow scan stay.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::longterm::ways_with;
use super::slowed::together;
use super::{MonoTime, Source};
use crate::probe::{Port, Signature, Transport};
use crate::rate::TokenBucket;

/// How long evidence counts at least; at most twice as long.
pub(super) const HALF: Duration = Duration::from_secs(3600);

/// Sources of a network that are a campaign: more than the clients of one household or small office
/// that try the same service after it has moved.
pub(super) const SOURCES: u32 = 8;
/// With so many ports between them, or each past its own trigger.
pub(super) const PORTS: u32 = 16;
/// Sources with one sequence number in all of their SYNs, and their ports: no two stacks choose the
/// same by chance.
const SEQUENCE_SOURCES: u32 = 3;
const SEQUENCE_PORTS: u32 = 4;

const WAYS: usize = 8;
/// Those that take newcomers only at the rate at which they can keep them.
const PATIENT: usize = WAYS / 2;
/// Buckets of networks, and of signatures. All together take 3 MB when full.
pub(super) const NETWORK_BUCKETS: usize = 1024;
pub(super) const SIGNATURE_BUCKETS: usize = 64;

/// What the sources of a campaign share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shared {
    /// A network that they are in.
    Network(Source),
    /// A program that sends such packets.
    Signature(Signature),
}

/// A campaign, for reports and listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignView {
    /// What its sources share.
    pub shared: Shared,
    /// Its sources, or more: at most 256 are counted.
    pub sources: u32,
    /// Their ports, or more: at most 128 are counted.
    pub ports: u32,
    /// The second probe.
    pub since: MonoTime,
    /// The last probe, its port, and the address that sent it.
    pub last: MonoTime,
    /// The port of the last probe.
    pub port: Port,
    /// The address that sent the last probe.
    pub scanner: IpAddr,
    /// Until when its network is slowed or blocked, unless it goes on; `None`: it is only reported.
    pub until: Option<MonoTime>,
}

impl CampaignView {
    /// The network, or, of a program, the address that sent the last probe.
    pub fn address(&self) -> Source {
        match self.shared {
            Shared::Network(network) => network,
            Shared::Signature(_) => Source::of(self.scanner, 128),
        }
    }
}

/// The networks that an address counts for, the smaller one first, each with the number of the
/// source in it.
pub(super) fn networks(address: IpAddr) -> [Option<(Source, u8)>; 2] {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [.., last] = v4.octets();
            [Some((Source::around(address.to_canonical(), 24), last)), None]
        }
        // All of IPv4 is behind one prefix.
        IpAddr::V6(_) if Source::of(address, 128).is_nat64() => [None, None],
        IpAddr::V6(v6) => {
            let [_, _, _, _, _, _, sixth, seventh, ..] = v6.octets();
            [
                Some((Source::around(address, 56), seventh)),
                Some((Source::around(address, 48), sixth)),
            ]
        }
    }
}

/// A probe, as this table counts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The number of its source.
    pub(super) source: u8,
    pub(super) port: Port,
    pub(super) scanner: IpAddr,
    /// Its source has passed its own trigger.
    pub(super) is_past: bool,
}

/// Bits of a half.
#[derive(Debug, Clone, Copy, Default)]
struct Bits {
    sources: [u64; 4],
    scanners: [u64; 4],
    ports: [u64; 2],
}

impl Bits {
    fn joined(mut self, other: &Self) -> Self {
        let pairs = self.sources.iter_mut().zip(other.sources);
        let pairs = pairs.chain(self.scanners.iter_mut().zip(other.scanners));
        pairs.chain(self.ports.iter_mut().zip(other.ports)).for_each(|(own, other)| *own |= other);
        self
    }
}

fn count(bits: &[u64]) -> u32 {
    bits.iter().map(|word| word.count_ones()).sum()
}

fn set(bits: &mut [u64], number: u8) {
    let number = usize::from(number);
    if let Some(word) = bits.get_mut(number / 64) {
        *word |= 1 << (number % 64);
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    shared: Shared,
    current: Bits,
    previous: Bits,
    since: MonoTime,
    last: MonoTime,
    port: Port,
    scanner: IpAddr,
    until: Option<MonoTime>,
}

/// What a search reads of an entry; all of a bucket are in one cache line. A network with one probe
/// has no more than this: in a flood most have.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// A part of the hash; 0: the place is empty.
    tag: u32,
    /// The half of the last probe, its lowest bits.
    half: u8,
    /// Sources at most, [`FIRED`], or [`ALONE`].
    weight: u8,
    /// Of the only probe: its source and the bit of its port.
    source: u8,
    port: u8,
}

/// There was one probe, and there is no entry.
const ALONE: u8 = 1;
/// It is a campaign, and was reported.
const FIRED: u8 = u8::MAX;

impl Head {
    fn is_live(self, half: u8) -> bool {
        self.tag != 0 && half.wrapping_sub(self.half) <= 1
    }
}

/// Where an entry is, until the next one is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize, usize);

/// What came of a probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    pub(super) place: Place,
    /// It was reported before.
    pub(super) is_fired: bool,
    /// Its sources are a campaign.
    pub(super) is_campaign: bool,
}

/// What may be campaigns.
#[derive(Debug)]
pub(super) struct Campaigns {
    hasher: FixedState,
    heads: Vec<[Head; WAYS]>,
    /// Empty until there is something to count.
    entries: Vec<Option<Entry>>,
    tokens: TokenBucket,
    /// No network is slowed or blocked after this.
    held_until: MonoTime,
}

impl Campaigns {
    pub(super) fn new(buckets: usize, seed: u64) -> Self {
        let patient = (buckets * PATIENT) as u64;
        let half = HALF.as_millis() as u64;
        Self {
            hasher: FixedState::with_seed(seed),
            heads: vec![[Head::default(); WAYS]; buckets],
            entries: Vec::new(),
            tokens: TokenBucket::new(patient, half, patient / 8),
            held_until: MonoTime::default(),
        }
    }

    /// The place of what has been counted, an entry or a lone head; else its bucket and tag.
    fn find(&self, now: MonoTime, shared: Shared) -> Result<Place, (usize, u32)> {
        let hash = match shared {
            // Its host bits are zero, and have room for the length.
            Shared::Network(network) => {
                self.hasher.hash_one(network.bits() | u128::from(network.prefix_len()))
            }
            Shared::Signature(signature) => self.hasher.hash_one(signature),
        };
        let bucket = (hash >> 32) as usize % self.heads.len().max(1);
        let (tag, half) = ((hash as u32).max(1), half(now));
        let Some(heads) = self.heads.get(bucket) else { return Err((bucket, tag)) };
        let mut own = ways_with(heads.map(|head| head.tag == tag));
        while own != 0 {
            let way = own.trailing_zeros() as usize;
            own &= own - 1;
            let is_it = |entry: &Entry| {
                entry.shared == shared && now.since(entry.last) < HALF.saturating_mul(2)
            };
            let is_found = heads.get(way).is_some_and(|head| {
                head.is_live(half)
                    && (head.weight == ALONE || self.entry(Place(bucket, way)).is_some_and(is_it))
            });
            if is_found {
                return Ok(Place(bucket, way));
            }
        }
        Err((bucket, tag))
    }

    fn entry(&self, Place(bucket, way): Place) -> Option<&Entry> {
        self.entries.get(bucket * WAYS + way)?.as_ref()
    }

    fn entry_mut(&mut self, Place(bucket, way): Place) -> Option<&mut Entry> {
        self.entries.get_mut(bucket * WAYS + way)?.as_mut()
    }

    fn head_mut(&mut self, Place(bucket, way): Place) -> Option<&mut Head> {
        self.heads.get_mut(bucket)?.get_mut(way)
    }

    /// A place for another one in a bucket.
    fn make_room(&mut self, now: MonoTime, (bucket, tag): (usize, u32)) -> Place {
        let half = half(now);
        let ways = if self.tokens.take(now) { 0 } else { PATIENT }..WAYS;
        let heads = self.heads.get(bucket).copied().unwrap_or_default();
        // The weight, the age, and among equal ones an order that no sender knows, in one number.
        let rank = |way: usize| {
            let head = heads.get(way).copied().unwrap_or_default();
            let age = half.wrapping_sub(head.half);
            let weight = if head.is_live(half) {
                u32::from(head.weight) << 8 | u32::from(u8::MAX - age)
            } else {
                u32::from(u8::MAX)
            };
            let order = (way as u32).wrapping_add(tag) % WAYS as u32;
            (weight * WAYS as u32 + order) * WAYS as u32 + way as u32
        };
        let way = ways.map(rank).min().map_or(WAYS - 1, |rank| rank as usize % WAYS);
        Place(bucket, way)
    }

    /// Counts a probe. `None`: it is the first.
    pub(super) fn note(&mut self, now: MonoTime, shared: Shared, seen: Seen) -> Option<Noted> {
        let (half, bit) = (half(now), port_bit(seen.port));
        let place = match self.find(now, shared) {
            Ok(place) => place,
            Err(missing) => {
                let place = self.make_room(now, missing);
                let (source, port) = (seen.source, bit);
                *self.head_mut(place)? = Head { tag: missing.1, half, weight: ALONE, source, port };
                if !seen.is_past {
                    return None;
                }
                place
            }
        };
        let head = *self.head_mut(place)?;
        if head.weight == ALONE {
            self.add(now, place, (shared, head, seen));
        }
        let entry = self.entry_mut(place)?;
        if head.half != half {
            entry.previous = std::mem::take(&mut entry.current);
        }
        (entry.last, entry.port, entry.scanner) = (now, seen.port, seen.scanner);
        set(&mut entry.current.sources, seen.source);
        if seen.is_past {
            set(&mut entry.current.scanners, seen.source);
        }
        if !seen.is_past || matches!(shared, Shared::Signature(_)) {
            set(&mut entry.current.ports, bit);
        }
        let all = entry.current.joined(&entry.previous);
        let sources = count(&all.sources);
        let is_campaign = is_campaign(shared, sources, &all);
        let head = self.head_mut(place)?;
        let is_fired = head.weight == FIRED;
        head.half = half;
        if !is_fired {
            // One more than there are: ALONE is 1.
            head.weight = u8::try_from(sources + 1).unwrap_or(FIRED).min(FIRED - 1);
        }
        Some(Noted { place, is_fired, is_campaign })
    }

    /// Adds the entry of what had one probe until now.
    fn add(&mut self, now: MonoTime, place: Place, (shared, head, seen): (Shared, Head, Seen)) {
        if self.entries.is_empty() {
            self.entries.resize(self.heads.len() * WAYS, None);
        }
        let mut current = Bits::default();
        set(&mut current.sources, head.source);
        // The first probe of a source that has passed its trigger before is none of these.
        if !seen.is_past || head.source != seen.source {
            set(&mut current.ports, head.port);
        }
        let Place(bucket, way) = place;
        if let Some(entry) = self.entries.get_mut(bucket * WAYS + way) {
            *entry = Some(Entry {
                shared,
                current,
                previous: Bits::default(),
                since: now,
                last: now,
                port: seen.port,
                scanner: seen.scanner,
                until: None,
            });
        }
    }

    /// Takes a campaign for reported.
    pub(super) fn set_fired(&mut self, place: Place) {
        if let Some(head) = self.head_mut(place) {
            head.weight = FIRED;
        }
    }

    /// Slows or blocks a network until `until`. Returns it if the kernel must be asked: not with each
    /// probe, but before the kernel's time is up.
    pub(super) fn hold(&mut self, now: MonoTime, until: MonoTime, place: Place) -> Option<Source> {
        let spare = until.since(now) / 4;
        let entry = self.entry_mut(place)?;
        let Shared::Network(network) = entry.shared else { return None };
        if entry.until.is_some_and(|end| end > now && until.since(end) < spare) {
            return None;
        }
        entry.until = Some(until);
        self.held_until = self.held_until.max(until);
        Some(network)
    }

    /// Whether a network may be slowed or blocked.
    pub(super) fn holds(&self, now: MonoTime) -> bool {
        self.held_until > now
    }

    /// Whether a network around an address is slowed or blocked.
    pub(super) fn is_held(&self, now: MonoTime, address: IpAddr) -> bool {
        let is_held = |(network, _)| {
            let shared = Shared::Network(network);
            let place = self.find(now, shared).ok();
            // The place of a lone one may have an entry that is over.
            let entry = place.and_then(|at| self.entry(at)).filter(|entry| entry.shared == shared);
            entry.is_some_and(|entry| entry.until.is_some_and(|until| until > now))
        };
        self.holds(now) && networks(address).into_iter().flatten().any(is_held)
    }

    /// A campaign.
    pub(super) fn view(&self, now: MonoTime, place: Place) -> Option<CampaignView> {
        let entry = self.entry(place)?;
        let Entry { shared, since, last, port, scanner, .. } = *entry;
        let all = entry.current.joined(&entry.previous);
        let until = entry.until.filter(|until| *until > now);
        let (sources, ports) = (count(&all.sources), count(&all.ports));
        Some(CampaignView { shared, sources, ports, since, last, port, scanner, until })
    }

    /// The campaign of those who share this, if it was reported and is not over.
    pub(super) fn reported(&self, now: MonoTime, shared: Shared) -> Option<CampaignView> {
        let place = self.find(now, shared).ok()?;
        let head = self.heads.get(place.0)?.get(place.1)?;
        if head.weight == FIRED { self.view(now, place) } else { None }
    }

    /// The campaigns that were reported and are not over.
    pub(super) fn views(&self, now: MonoTime) -> impl Iterator<Item = CampaignView> {
        let half = half(now);
        let is_one = move |head: &Head| head.weight == FIRED && head.is_live(half);
        let buckets = self.heads.iter().enumerate();
        let all = buckets.flat_map(|(bucket, ways)| {
            ways.iter().enumerate().map(move |(way, head)| (Place(bucket, way), head))
        });
        all.filter(move |(_, head)| is_one(head)).filter_map(move |(at, _)| self.view(now, at))
    }

    /// Forgets what is known of what they share.
    pub(super) fn forget(&mut self, now: MonoTime, shared: Shared) {
        if let Ok(place) = self.find(now, shared)
            && let Some(head) = self.head_mut(place)
        {
            *head = Head::default();
        }
    }
}

fn half(now: MonoTime) -> u8 {
    // A wrap after ten days: entries know better, and a lone probe is none.
    (now.millis() / HALF.as_millis() as u64) as u8
}

fn is_campaign(shared: Shared, sources: u32, all: &Bits) -> bool {
    match shared {
        Shared::Network(_) => {
            sources >= SOURCES && (count(&all.ports) >= PORTS || count(&all.scanners) >= SOURCES)
        }
        Shared::Signature(Signature::Sequence(_)) => {
            sources >= SEQUENCE_SOURCES && count(&all.ports) >= SEQUENCE_PORTS
        }
        Shared::Signature(_) => sources >= SOURCES,
    }
}

/// The bit of a port, the same for ports that one client tries together.
fn port_bit(port: Port) -> u8 {
    let number = match port.transport {
        Transport::Tcp | Transport::Udp => together(port.number),
        Transport::Sctp | Transport::Ip => port.number,
    };
    // Knuth's multiplicative hash. A sender that makes ports share bits counts for less.
    let mixed = (u32::from(number) | (port.transport as u32) << 16).wrapping_mul(0x9e37_79b1);
    (mixed >> 25) as u8
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    fn seen(address: IpAddr, number: u16) -> [Option<(Shared, Seen)>; 2] {
        let port = Port { transport: Transport::Tcp, number };
        networks(address).map(|found| {
            let (network, source) = found?;
            let seen = Seen { source, port, scanner: address, is_past: false };
            Some((Shared::Network(network), seen))
        })
    }

    fn note(table: &mut Campaigns, now: u64, address: u32, number: u16) -> bool {
        let [Some((shared, seen)), None] = seen(Ipv4Addr::from(address).into(), number) else {
            panic!("one network");
        };
        table.note(at(now), shared, seen).is_some_and(|noted| noted.is_campaign)
    }

    // P10
    #[test]
    fn the_tables_take_three_megabytes_at_most() {
        let places = (NETWORK_BUCKETS + SIGNATURE_BUCKETS) * WAYS;
        let bytes = places * (size_of::<Option<Entry>>() + size_of::<Head>());
        assert!(bytes <= 3 << 20, "{bytes}");
    }

    #[test]
    fn networks_have_the_numbers_of_their_sources() {
        let shown = |text: &str| {
            networks(text.parse().unwrap())
                .map(|found| found.map(|(network, number)| format!("{network} {number}")))
        };
        assert_eq!(shown("192.0.2.77"), [Some("192.0.2.0/24 77".to_owned()), None]);
        assert_eq!(
            shown("2001:db8:1:a5b6::9"),
            [Some("2001:db8:1:a500::/56 182".to_owned()), Some("2001:db8:1::/48 165".to_owned())]
        );
        assert_eq!(shown("64:ff9b::192.0.2.1"), [None, None]);
        assert_eq!(
            seen(Ipv6Addr::LOCALHOST.into(), 1).iter().flatten().count(),
            2,
            "every other IPv6 address has two"
        );
    }

    #[test]
    fn evidence_counts_for_one_to_two_hours() {
        let hour = HALF.as_millis() as u64;
        let mut table = Campaigns::new(NETWORK_BUCKETS, 7);
        for n in 0..8u32 {
            // Far apart, so that no two share a bit.
            note(&mut table, 10, 0x0a00_0000 + n, 1000 + 7 * n as u16);
        }
        assert!(!note(&mut table, hour, 0x0a00_0000, 2000));
        let mut passed = false;
        for n in 0..12u16 {
            passed |= note(&mut table, 2 * hour - 1, 0x0a00_0000, 3000 + 7 * n);
        }
        assert!(passed);
        assert!(!note(&mut table, 2 * hour, 0x0a00_0001, 4000), "the first are gone");
    }

    // P6
    #[test]
    fn a_flood_of_forged_networks_evicts_no_campaign_under_way() {
        let mut table = Campaigns::new(NETWORK_BUCKETS, 7);
        let (mut passed, mut forged) = (false, 0x0b00_0000);
        for n in 0..24u32 {
            passed |= note(&mut table, u64::from(n), 0x0a00_0000 + n % 12, 7 * n as u16);
            for _ in 0..20_000 {
                forged += 256;
                note(&mut table, u64::from(n), forged, 443);
            }
        }
        assert!(passed);
        assert!(table.entries.len() == NETWORK_BUCKETS * WAYS);
    }

    #[test]
    fn a_slow_campaign_survives_an_hour_of_other_networks() {
        let mut table = Campaigns::new(NETWORK_BUCKETS, 7);
        let (mut passed, mut other) = (false, 0x0b00_0000);
        for minute in 0..50u32 {
            let now = u64::from(minute) * 60_000;
            passed |= note(&mut table, now, 0x0a00_0000 + minute % 12, 7 * minute as u16);
            // One new network a second.
            for second in 0..60 {
                other += 256;
                note(&mut table, now + second * 1000, other, 443);
            }
        }
        assert!(passed);
    }
}
