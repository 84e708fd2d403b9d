//! Handshakes that may still complete: their SYNs wait here before they count as probes.
//!
//! The rules log a SYN before the decoy can answer it. Evaluated at once, it could block the source
//! at a low trigger before the handshake completes, and a connect scan would look like a SYN scan.
//! So each SYN waits for [`HANDSHAKE_TIMEOUT`]; a handshake removes it, and what remains was a
//! half-open scan. When the rules hold a source, its SYNs wait only [`HELD_TIMEOUT`] longer. Pure:
//! time is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::probe::Probe;
use crate::time::MonoTime;

/// How long a handshake may take. A client retransmits a lost SYN after one second (RFC 6298, 2),
/// and a round trip by satellite takes 0.6 s.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the handshakes of a source that is held may still take: it has sent more SYNs than the
/// trigger allows, so that no further packet is needed to judge those of them that fail.
pub(crate) const HELD_TIMEOUT: Duration = Duration::from_secs(1);

/// Held sources that are remembered at most. For each of them all waiting handshakes are looked
/// through at once: with these it stays below a millisecond.
const HELD_MAX: usize = 64;

/// Waiting handshakes at most; beyond it the oldest is evaluated early. At 270 bytes each, index
/// included, they take 1.1 MB.
pub(crate) const WAITING_MAX: usize = 4096;

/// The two ends of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Remote address and port.
    pub peer: SocketAddr,
    /// Local address and port.
    pub local: SocketAddr,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    due: MonoTime,
    /// `None`: completed.
    probe: Option<Probe>,
}

/// The waiting handshakes, oldest first.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    entries: VecDeque<Entry>,
    /// Number of the first entry; entries are numbered consecutively.
    first: u64,
    /// The numbers of the entries that are not completed.
    index: HashMap<Key, u64>,
    /// The sources that are held, and when their probes are due.
    held: VecDeque<(MonoTime, IpAddr)>,
    limit: usize,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self::with_limit(WAITING_MAX)
    }
}

impl HalfOpen {
    fn with_limit(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            index: HashMap::new(),
            held: VecDeque::new(),
            limit: limit.max(1),
        }
    }

    /// Starts the wait for a handshake. Returns the oldest probe if there is no room for both. A
    /// repeated SYN keeps its first deadline.
    pub(crate) fn wait_for_handshake(
        &mut self,
        now: MonoTime,
        key: Key,
        probe: Probe,
    ) -> Option<Probe> {
        if self.index.contains_key(&key) {
            return None;
        }
        let early = if self.entries.len() >= self.limit { self.take_first() } else { None };
        self.index.insert(key, self.first + self.entries.len() as u64);
        self.entries.push_back(Entry {
            key,
            due: now.after(HANDSHAKE_TIMEOUT),
            probe: Some(probe),
        });
        early
    }

    /// Removes a completed handshake; returns whether it was waiting.
    pub(crate) fn complete(&mut self, key: &Key) -> bool {
        let Some(number) = self.index.remove(key) else { return false };
        let entry =
            usize::try_from(number - self.first).ok().and_then(|at| self.entries.get_mut(at));
        let was_there = entry.is_some_and(|entry| entry.probe.take().is_some());
        self.trim();
        was_there
    }

    /// The rules hold a source: its probes are due earlier. Where there is no room to remember it,
    /// they stay due when they were.
    pub(crate) fn hold(&mut self, now: MonoTime, source: IpAddr) {
        if self.held.len() < HELD_MAX && !self.entries.is_empty() {
            self.held.push_back((now.after(HELD_TIMEOUT), source));
        }
    }

    /// Removes and returns a probe whose wait has ended.
    pub(crate) fn take_due(&mut self, now: MonoTime) -> Option<Probe> {
        while let Some((_, source)) = self.held.front().copied().filter(|(due, _)| *due <= now) {
            let is_of = |entry: &&mut Entry| {
                entry.probe.as_ref().is_some_and(|probe| probe.source == source)
            };
            if let Some(entry) = self.entries.iter_mut().find(is_of) {
                let probe = entry.probe.take();
                self.index.remove(&entry.key);
                self.trim();
                return probe;
            }
            self.held.pop_front();
        }
        if self.next_due()? <= now { self.take_first() } else { None }
    }

    /// Removes and returns the oldest probe.
    pub(crate) fn take_first(&mut self) -> Option<Probe> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.index.remove(&entry.key);
        self.trim();
        entry.probe
    }

    /// When the oldest wait ends.
    pub(crate) fn next_due(&self) -> Option<MonoTime> {
        let held = self.held.front().map(|(due, _)| *due);
        held.into_iter().chain(self.entries.front().map(|entry| entry.due)).min()
    }

    /// Number of waiting handshakes.
    pub(crate) fn waiting(&self) -> usize {
        self.index.len()
    }

    /// Removes completed entries at the front, which would take room and set a needless timer.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.probe.is_none()) {
            self.entries.pop_front();
            self.first += 1;
        }
        if self.entries.is_empty() {
            self.held.clear();
        }
        // Free the memory of a flood.
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
            self.index = HashMap::new();
            self.held = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Port, ScanKind, Signature, Transport};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    fn key(source_port: u16, port: u16) -> Key {
        Key {
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), source_port),
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port),
        }
    }

    fn probe(key: Key) -> Probe {
        Probe {
            source: key.peer.ip(),
            destination: key.local.ip(),
            port: Port { transport: Transport::Tcp, number: key.local.port() },
            scan: ScanKind::Syn,
            ambiguous: false,
            ip_options: false,
            signature: Signature::None,
        }
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    #[test]
    fn syn_without_a_handshake_is_due_after_its_timeout() {
        let mut half = HalfOpen::default();
        for port in [1, 2, 3] {
            assert_eq!(
                half.wait_for_handshake(
                    at(u64::from(port)),
                    key(1000, port),
                    probe(key(1000, port))
                ),
                None
            );
        }
        assert!(half.complete(&key(1000, 2)) && !half.complete(&key(1000, 2)));
        assert!(!half.complete(&key(1001, 1)), "another connection's");
        assert_eq!(half.take_due(at(3000)), None);
        assert_eq!(half.take_due(at(3003)).map(|probe| probe.port.number), Some(1));
        assert_eq!(half.take_due(at(3003)).map(|probe| probe.port.number), Some(3));
        assert_eq!((half.take_due(at(9000)), half.next_due(), half.waiting()), (None, None, 0));
    }

    #[test]
    fn repeated_syn_keeps_its_deadline() {
        let mut half = HalfOpen::default();
        half.wait_for_handshake(at(0), key(1, 1), probe(key(1, 1)));
        half.wait_for_handshake(at(1000), key(1, 1), probe(key(1, 1)));
        assert_eq!(half.waiting(), 1);
        assert!(half.take_due(at(3000)).is_some());
        assert_eq!(half.take_due(at(9000)), None);
    }

    #[test]
    fn probes_of_a_held_source_are_due_a_second_later() {
        let mut half = HalfOpen::default();
        let other = Key { peer: SocketAddr::new([203, 0, 113, 10].into(), 9), ..key(9, 4) };
        for key in [key(1, 1), key(1, 2), other, key(1, 3)] {
            half.wait_for_handshake(at(100), key, probe(key));
        }
        half.complete(&key(1, 2));
        half.hold(at(200), key(1, 1).peer.ip());
        assert_eq!((half.next_due(), half.take_due(at(1199))), (Some(at(1200)), None));
        let due: Vec<u16> =
            std::iter::from_fn(|| half.take_due(at(1200))).map(|probe| probe.port.number).collect();
        assert_eq!(due, [1, 3]);
        assert_eq!((half.waiting(), half.next_due()), (1, Some(at(3100))));
        assert!(half.take_due(at(3100)).is_some());
        // Nothing waits for a source whose handshakes are over.
        half.hold(at(4000), key(1, 1).peer.ip());
        assert_eq!(half.next_due(), None);
    }

    #[test]
    fn oldest_is_returned_early_when_full() {
        let mut half = HalfOpen::with_limit(3);
        for port in 1..=3 {
            assert_eq!(half.wait_for_handshake(at(0), key(1, port), probe(key(1, port))), None);
        }
        half.complete(&key(1, 1));
        assert_eq!(
            half.wait_for_handshake(at(1), key(1, 4), probe(key(1, 4))),
            None,
            "a completed one gave its room"
        );
        assert_eq!(
            half.wait_for_handshake(at(1), key(1, 5), probe(key(1, 5)))
                .map(|probe| probe.port.number),
            Some(2)
        );
    }

    // P22
    #[test]
    fn waiting_handshakes_fit_the_memory_bound() {
        // A deque's capacity is the next power of two, a hash table's eight sevenths of that, plus
        // a control byte per place.
        let entries = WAITING_MAX.next_power_of_two() * size_of::<Entry>();
        let held = HELD_MAX.next_power_of_two() * size_of::<(MonoTime, IpAddr)>();
        let index = (WAITING_MAX * 8 / 7).next_power_of_two() * (size_of::<(Key, u64)>() + 1);
        // A connection is in the epoll set (the kernel's memory), a table and the list of
        // deadlines: less than 128 bytes.
        let guests = 2 * crate::decoy::tcp::CONNECTIONS_MAX * 128;
        assert!(
            entries + index + held + guests < crate::decoy::MEMORY_MAX,
            "{entries} + {index} + {held} + {guests}"
        );
    }

    proptest! {
        /// Against a plain map: no probe is lost, returned twice, or returned early except when
        /// full.
        // P22
        #[test]
        fn each_handshake_is_either_completed_or_returned(
            steps in proptest::collection::vec((0u8..4, 0u16..12, 0u64..1500), 1..200), limit in 1usize..8
        ) {
            let mut half = HalfOpen::with_limit(limit);
            let mut wanted: BTreeMap<u16, u64> = BTreeMap::new();
            let mut now = 0;
            for (step, port, pass) in steps {
                now += pass;
                match step {
                    0 | 1 => {
                        let is_new = !wanted.contains_key(&port);
                        if let Some(early) = half.wait_for_handshake(at(now), key(7, port), probe(key(7, port))) {
                            let since = wanted.remove(&early.port.number);
                            prop_assert!(is_new && since.is_some());
                            prop_assert!(wanted.values().all(|other| Some(*other) >= since));
                        }
                        wanted.entry(port).or_insert(now);
                    }
                    2 => prop_assert_eq!(half.complete(&key(7, port)), wanted.remove(&port).is_some()),
                    _ => {
                        while let Some(due) = half.take_due(at(now)) {
                            let since = wanted.remove(&due.port.number);
                            prop_assert!(since.is_some_and(|since| since + 3000 <= now));
                        }
                        prop_assert!(wanted.values().all(|since| since + 3000 > now));
                    }
                }
                prop_assert!(half.entries.len() <= limit);
                prop_assert_eq!(half.waiting(), wanted.len());
                prop_assert_eq!(half.next_due().is_some(), !wanted.is_empty());
            }
            let mut left = 0;
            while half.take_first().is_some() {
                left += 1;
            }
            prop_assert_eq!(left, wanted.len());
        }
    }
}
