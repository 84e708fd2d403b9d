//! The slowed sources: past the trigger, with an address that is not proven.
//!
//! The rules slow a source by themselves; this table knows which ones, until when, and what their
//! retransmissions say about them ([`Proof`]). It is bounded: a source that is evicted, or for which
//! there is no room, stays slowed, but is not listed and cannot be proven.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{MonoTime, Source};
use crate::probe::{Port, Probe, ScanKind};

/// Maximum number of slowed sources that are listed.
pub const SLOWED_MAX: usize = 65_536;

/// Maximum bytes of a slowed source, its proof and its share of the trees included.
pub const SLOWED_BYTES: usize = 512;

/// How long the table remembers that a source does not see our answers, after it was slowed last. A
/// sender that forges its address could otherwise try for a proof again and again.
const BLIND_MEMORY_MS: u64 = 24 * 3_600_000;

/// Maximum number of retransmitted ports that are evaluated. A source that is not proven by then is
/// not proven at all.
const PORTS_MAX: usize = 64;

/// A retransmission to a silent port, in 1/64 of a bit: log2(2 * 63/64), for a scanner that
/// retransmits to an answered port in one case of 64, because an answer was lost.
const SILENT: i32 = 63;
/// A retransmission to an answered port: log2(2 * 1/64).
const ANSWERED: i32 = -5 * 64;
/// Evidence for a proof, in bits: a source that does not see our answers gets this far with a
/// probability of 2^-16.
const BITS: i32 = 16;
/// Ports of an address whose retransmissions count for its prefix: a prefix is proven by four of its
/// addresses at least.
pub(super) const PREFIX_SHARE: u16 = 5;
const _: () = assert!(BITS > PREFIX_SHARE as i32 * 3);
/// While many are slowed: the more sources try, the rarer each may succeed.
const BITS_IN_FLOOD: i32 = 24;
/// Slowed sources that are many.
const FLOOD: usize = 256;
/// Renewed sources that the search for one to evict skips at most, which bounds its work.
const MAX_SECOND_CHANCES: u32 = 8;
/// Evidence that a source does not see our answers, in bits.
const BLIND_BITS: i32 = -10;

/// Ports that one client tries together, again and again when they are closed: a mail program, a
/// browser, a member of a domain, a client of file systems. Behind a gateway there may be one of
/// each, so each kind counts as one port.
const TOGETHER: [&[u16]; 4] = [
    &[25, 110, 143, 465, 587, 993, 995],
    &[80, 443, 8080, 8443],
    &[53, 88, 135, 139, 389, 445, 464, 636, 3268, 3269],
    &[111, 635, 2049, 20048],
];

/// The first of the ports that one client tries together with this one; the port itself if there are
/// none.
pub(super) fn together(port: u16) -> u16 {
    let ports = TOGETHER.into_iter().find(|ports| ports.contains(&port));
    ports.and_then(|ports| ports.first().copied()).unwrap_or(port)
}

/// What a source's retransmissions say about its address.
///
/// While a source is slowed, the rules answer a random half of the closed watched ports that it
/// probes. A sender that sees the answers retransmits to the silent ports only; one that does not see
/// them (a forged address, a stateless scanner) to both kinds alike. This is a sequential probability
/// ratio test (Wald 1945) of these two hypotheses. Each port counts once, because all
/// retransmissions to one port depend on the same random number; each kind of [`TOGETHER`]
/// counts as one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proof {
    ports: Vec<u16>,
    /// How many of these are answered.
    answered: u8,
    /// In 1/64 of a bit.
    evidence: i32,
    is_blind: bool,
}

impl Proof {
    /// Counts a retransmission. Returns whether it proves the source.
    fn note(&mut self, port: u16, answered: bool, bits: i32) -> bool {
        let port = together(port);
        if self.is_blind || self.ports.len() >= PORTS_MAX || self.ports.contains(&port) {
            return false;
        }
        self.ports.push(port);
        self.answered += u8::from(answered);
        self.evidence += if answered { ANSWERED } else { SILENT };
        self.is_blind = self.evidence <= BLIND_BITS * 64;
        self.evidence >= bits * SILENT
    }
}

/// A slowed source, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowedView {
    /// The source.
    pub source: Source,
    /// Since when.
    pub since: MonoTime,
    /// Until when, unless it probes another closed port before.
    pub until: MonoTime,
    /// The port of the probe that passed the trigger.
    pub port: Port,
    /// The kind of that probe.
    pub scan: ScanKind,
    /// What its retransmissions say about its address.
    pub proof: ProofView,
}

/// What a slowed source's retransmissions say about its address, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProofView {
    /// Evidence that it sees our answers, in bits; below 0: that it does not.
    pub bits: i32,
    /// The bits that prove it.
    pub needed: i32,
    /// Silent ports to which it retransmitted.
    pub silent: usize,
    /// Answered ports to which it retransmitted.
    pub answered: usize,
    /// It does not see our answers, and cannot be proven by retransmissions.
    pub is_blind: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    since: MonoTime,
    until: MonoTime,
    /// When the kernel was last asked to slow it.
    ordered: MonoTime,
    port: Port,
    scan: ScanKind,
    timer: MonoTime,
    proof: Proof,
    /// The log says that it is slowed, so that it must say when that ends.
    is_reported: bool,
}

/// What [`Slowed::slow`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slowing {
    /// The source is slowed from now on.
    New,
    /// It was slowed already.
    Renewed,
    /// As before, but its probe was not handled as a slowed source's: the kernel has lost it.
    Lost,
    /// There is no room to list it.
    NoRoom,
}

/// All slowed sources, and those that have shown that they do not see our answers.
#[derive(Debug, Default)]
pub(super) struct Slowed {
    entries: BTreeMap<Source, Entry>,
    timers: BTreeSet<(MonoTime, Source)>,
}

impl Slowed {
    /// Slows a source until `until`. `by_rules`: the rules have done it with the same packet.
    pub(super) fn slow(
        &mut self,
        now: MonoTime,
        source: Source,
        until: MonoTime,
        probe: &Probe,
        by_rules: bool,
    ) -> Slowing {
        let Probe { port, scan, .. } = *probe;
        let is_full = self.entries.len() >= SLOWED_MAX;
        if is_full && !self.entries.contains_key(&source) && !self.evict(now) {
            return Slowing::NoRoom;
        }
        let Some(entry) = self.entries.get_mut(&source) else {
            let entry = Entry {
                since: now,
                until,
                ordered: now,
                port,
                scan,
                timer: until,
                proof: Proof::default(),
                is_reported: false,
            };
            self.timers.insert((until, source));
            self.entries.insert(source, entry);
            return Slowing::New;
        };
        let was_slowed = entry.until > now;
        entry.until = entry.until.max(until);
        if !was_slowed {
            (entry.since, entry.ordered, entry.port, entry.scan) = (now, now, port, scan);
            self.timers.remove(&(entry.timer, source));
            self.timers.insert((until, source));
            entry.timer = until;
            return Slowing::New;
        }
        // Probes that were on their way when it was slowed look as if the kernel did not know it.
        if by_rules || now.since(entry.ordered).as_secs() == 0 {
            return Slowing::Renewed;
        }
        entry.ordered = now;
        Slowing::Lost
    }

    /// Makes room for another source: what is only remembered as blind goes first, then the source
    /// that has been silent longest. Returns whether there is room now.
    fn evict(&mut self, now: MonoTime) -> bool {
        let is_over =
            |source: &Source| self.entries.get(source).is_none_or(|entry| entry.until <= now);
        if let Some((at, source)) = self.timers.last().copied().filter(|(_, last)| is_over(last)) {
            self.timers.remove(&(at, source));
            self.entries.remove(&source);
            return true;
        }
        for _ in 0..MAX_SECOND_CHANCES {
            let Some((at, source)) = self.timers.pop_first() else { return true };
            match self.entries.get_mut(&source) {
                Some(entry) if entry.until > at => {
                    entry.timer = entry.until;
                    self.timers.insert((entry.until, source));
                }
                _ => {
                    self.entries.remove(&source);
                    return true;
                }
            }
        }
        false
    }

    /// Notes that the log says that a source is slowed.
    pub(super) fn set_reported(&mut self, source: Source) {
        if let Some(entry) = self.entries.get_mut(&source) {
            entry.is_reported = true;
        }
    }

    /// The bits that prove a source now.
    fn bits(&self) -> i32 {
        if self.entries.len() > FLOOD { BITS_IN_FLOOD } else { BITS }
    }

    /// Counts a retransmission of a slowed source. Returns whether it proves the source's address.
    pub(super) fn retransmission(&mut self, source: Source, port: u16, answered: bool) -> bool {
        let bits = self.bits();
        self.entries.get_mut(&source).is_some_and(|entry| entry.proof.note(port, answered, bits))
    }

    /// Forgets a source. Returns whether the end is to be reported.
    pub(super) fn remove(&mut self, source: Source) -> bool {
        let Some(entry) = self.entries.remove(&source) else { return false };
        self.timers.remove(&(entry.timer, source));
        entry.is_reported
    }

    /// The source, if it is slowed.
    pub(super) fn view(&self, now: MonoTime, source: Source) -> Option<SlowedView> {
        self.entries
            .get(&source)
            .filter(|entry| entry.until > now)
            .map(|entry| self.seen(source, entry))
    }

    /// The slowed sources after this one, in order.
    pub(super) fn views(
        &self,
        now: MonoTime,
        after: Option<Source>,
    ) -> impl Iterator<Item = SlowedView> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range((from, Bound::Unbounded))
            .filter(move |(_, entry)| entry.until > now)
            .map(|(source, entry)| self.seen(*source, entry))
    }

    fn seen(&self, source: Source, entry: &Entry) -> SlowedView {
        let Entry { since, until, port, scan, ref proof, .. } = *entry;
        let answered = usize::from(proof.answered);
        let proof = ProofView {
            // As many as silent ports alone would take.
            bits: proof.evidence / SILENT,
            needed: self.bits(),
            silent: proof.ports.len().saturating_sub(answered),
            answered,
            is_blind: proof.is_blind,
        };
        SlowedView { source, since, until, port, scan, proof }
    }

    pub(super) fn next_timer(&self) -> Option<MonoTime> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Handles at most `most` entries whose timer is due; `ended` gets those whose end is to be
    /// reported.
    pub(super) fn on_timer(&mut self, now: MonoTime, most: usize, mut ended: impl FnMut(Source)) {
        for _ in 0..most {
            let Some((at, source)) = self.timers.first().copied().filter(|(at, _)| *at <= now)
            else {
                return;
            };
            self.timers.remove(&(at, source));
            let Some(entry) = self.entries.get_mut(&source) else { continue };
            let is_over = entry.until <= now;
            if is_over && std::mem::take(&mut entry.is_reported) {
                ended(source);
            }
            let memory = if is_over && entry.proof.is_blind { BLIND_MEMORY_MS } else { 0 };
            let end = MonoTime::from_millis(entry.until.millis().saturating_add(memory));
            if end > now {
                entry.timer = end;
                self.timers.insert((end, source));
            } else {
                self.entries.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Signature, Transport};

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from_bits(n).into(), 64)
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(seconds * 1000)
    }

    fn slow(slowed: &mut Slowed, now: MonoTime, n: u32, by_rules: bool) -> Slowing {
        let source = source(n);
        let probe = Probe {
            source: source.addr(),
            destination: source.addr(),
            port: Port { transport: Transport::Tcp, number: 1 },
            scan: ScanKind::Syn,
            ambiguous: false,
            ip_options: false,
            signature: Signature::None,
        };
        slowed.slow(now, source, now.after(std::time::Duration::from_secs(60)), &probe, by_rules)
    }

    #[test]
    fn a_source_that_retransmits_to_silent_ports_only_is_proven_at_the_sixteenth() {
        let mut slowed = Slowed::default();
        assert_eq!(slow(&mut slowed, at(1), 1, true), Slowing::New);
        let proven = (1..=64).find(|port| slowed.retransmission(source(1), *port, false));
        assert_eq!(proven, Some(16));
    }

    // P3
    #[test]
    fn retransmissions_to_one_port_count_once() {
        let mut slowed = Slowed::default();
        slow(&mut slowed, at(1), 1, true);
        assert!((0..1000).all(|_| !slowed.retransmission(source(1), 7, false)));
    }

    // P3
    #[test]
    fn ports_that_one_client_tries_together_count_once() {
        let mut slowed = Slowed::default();
        slow(&mut slowed, at(1), 1, true);
        let ports = TOGETHER.iter().flat_map(|ports| ports.iter());
        assert!(ports.clone().count() > BITS as usize);
        assert!(ports.clone().all(|port| !slowed.retransmission(source(1), *port, false)));
        let bits = slowed.view(at(1), source(1)).map(|view| view.proof.bits);
        assert_eq!(bits, Some(TOGETHER.len() as i32));
    }

    #[test]
    fn a_lost_answer_delays_the_proof_and_does_not_prevent_it() {
        let mut slowed = Slowed::default();
        slow(&mut slowed, at(1), 1, true);
        let proven = (1..=64).find(|port| slowed.retransmission(source(1), *port, *port == 9));
        assert_eq!(proven, Some(23));
    }

    // P3
    #[test]
    fn of_50_000_blind_sources_that_retry_every_port_none_is_proven() {
        let mut slowed = Slowed::default();
        let mut state = 1u64;
        let mut proven = 0;
        for n in 0..50_000 {
            slow(&mut slowed, at(1), n, true);
        }
        for n in 0..50_000 {
            for port in 1..=64 {
                // A linear congruential generator (Knuth's MMIX) is random enough here.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let answered = state >> 63 == 1;
                proven += u32::from(slowed.retransmission(source(n), port, answered));
            }
        }
        assert_eq!(proven, 0);
    }

    #[test]
    fn a_blind_source_stays_blind_when_it_is_slowed_again() {
        let mut slowed = Slowed::default();
        slow(&mut slowed, at(1), 1, true);
        assert!((1..=3).all(|port| !slowed.retransmission(source(1), port, true)));
        slowed.on_timer(at(100), 10, |_| {});
        assert_eq!(slowed.view(at(100), source(1)), None);
        assert_eq!(slow(&mut slowed, at(101), 1, true), Slowing::New);
        assert!((4..=64).all(|port| !slowed.retransmission(source(1), port, false)));
        assert!(slowed.view(at(101), source(1)).is_some_and(|view| view.proof.is_blind));
        slowed.on_timer(at(161), 10, |_| {});
        slowed.on_timer(at(90_000), 10, |_| {});
        assert_eq!(slow(&mut slowed, at(90_001), 1, true), Slowing::New);
        assert!(slowed.view(at(90_001), source(1)).is_some_and(|view| !view.proof.is_blind));
    }

    #[test]
    fn the_end_of_a_reported_source_is_reported_once_when_its_time_is_up() {
        let mut slowed = Slowed::default();
        let ends = |slowed: &mut Slowed, second| {
            let mut ended = Vec::new();
            slowed.on_timer(at(second), 10, |source| ended.push(source));
            ended
        };
        for n in 1..=3 {
            slow(&mut slowed, at(1), n, true);
            assert!((1..=3).all(|port| !slowed.retransmission(source(n), port, n == 2)));
        }
        slowed.set_reported(source(1));
        slowed.set_reported(source(2));
        // It continues.
        slow(&mut slowed, at(30), 1, true);
        assert_eq!(ends(&mut slowed, 61), [source(2)]);
        assert_eq!(ends(&mut slowed, 90), [source(1)]);
        // The second one is remembered as blind, and slowed again.
        slow(&mut slowed, at(100), 2, true);
        slowed.set_reported(source(2));
        assert_eq!(slowed.next_timer(), Some(at(160)));
        assert_eq!(ends(&mut slowed, 160), [source(2)]);
        assert_eq!(ends(&mut slowed, 200_000), []);
        assert_eq!(slowed.next_timer(), None);
    }

    #[test]
    fn a_view_has_the_evidence_of_the_proof() {
        let mut slowed = Slowed::default();
        slow(&mut slowed, at(1), 1, true);
        assert!((1..=9).all(|port| !slowed.retransmission(source(1), port, false)));
        let proof = |slowed: &Slowed| slowed.view(at(2), source(1)).unwrap().proof;
        let seen = ProofView { bits: 9, needed: 16, silent: 9, answered: 0, is_blind: false };
        assert_eq!(proof(&slowed), seen);
        assert!(!slowed.retransmission(source(1), 10, true));
        assert_eq!(proof(&slowed), ProofView { bits: 3, answered: 1, ..seen });
        assert!((11..=14).all(|port| !slowed.retransmission(source(1), port, true)));
        assert_eq!(proof(&slowed), ProofView { bits: -11, answered: 4, is_blind: true, ..seen });
    }

    #[test]
    fn a_source_that_the_kernel_has_lost_is_ordered_again_once_a_second() {
        let mut slowed = Slowed::default();
        let slowings: Vec<_> = [(10, true), (10, false), (11, false), (11, false), (12, true)]
            .map(|(second, by_rules)| slow(&mut slowed, at(second), 1, by_rules))
            .into();
        assert_eq!(
            slowings,
            [Slowing::New, Slowing::Renewed, Slowing::Lost, Slowing::Renewed, Slowing::Renewed]
        );
        assert_eq!(slowed.view(at(12), source(1)).map(|view| view.until), Some(at(72)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut slowed = Slowed::default();
        for n in 0..SLOWED_MAX as u32 {
            slow(&mut slowed, at(1), n, true);
        }
        // A scanner that continues is not evicted, however many sources come after it.
        for n in 1..100_000 {
            let now = MonoTime::from_millis(2000 + u64::from(n));
            slow(&mut slowed, now, 0, true);
            assert_eq!(slow(&mut slowed, now, u32::MAX - n, true), Slowing::New);
        }
        assert!(slowed.view(at(102), source(0)).is_some());
        assert_eq!((slowed.entries.len(), slowed.timers.len()), (SLOWED_MAX, SLOWED_MAX));
        while slowed.next_timer().is_some() {
            slowed.on_timer(at(200), 4096, |_| {});
        }
        assert_eq!((slowed.entries.len(), slowed.timers.len()), (0, 0));
        let entry = size_of::<Entry>() + size_of::<Source>();
        assert!((entry + 1) * 8 / 7 * 2 + PORTS_MAX * 2 + 64 <= SLOWED_BYTES, "{entry}");
    }
}
