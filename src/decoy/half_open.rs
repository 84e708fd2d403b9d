//! Handshakes that may still be completed: their first packets wait here for a moment before they count as what they look like.
//!
//! The rules log a SYN before the decoy can answer it. Were it judged at once, a low trigger would block the source before its handshake is
//! through, and a connect scan could never be told from a SYN scan. So each waits for [`WAIT`]; a handshake takes it out, what stays was a
//! half-open scan. Pure: no clock inside.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::Probe;
use crate::time::MonoTime;

/// How long a handshake may take. A client whose first SYN, or the answer to it, was lost repeats it after one second (RFC 6298, 2); a
/// round trip by satellite takes 0.6 s.
pub const WAIT: Duration = Duration::from_secs(3);

/// Handshakes that are waited for, at most. Past it the oldest is judged early. At 270 bytes each, index included, they take 1.1 MB.
pub const WAITING_MAX: usize = 4096;

/// One handshake: who, and with which port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Address and port of the other end.
    pub peer: SocketAddr,
    /// Address and port of ours.
    pub local: SocketAddr,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    due: MonoTime,
    /// `None`: completed.
    probe: Option<Probe>,
}

/// The handshakes that are waited for, oldest first.
#[derive(Debug)]
pub struct HalfOpen {
    entries: VecDeque<Entry>,
    /// Number of the first entry; entries are numbered one after the other.
    first: u64,
    /// The numbers of those that are not completed.
    index: HashMap<Key, u64>,
    limit: usize,
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self::with_limit(WAITING_MAX)
    }
}

impl HalfOpen {
    fn with_limit(limit: usize) -> Self {
        Self { entries: VecDeque::new(), first: 0, index: HashMap::new(), limit: limit.max(1) }
    }

    /// Begins to wait. Gives the oldest probe if there is no room for both. One that is waited for already is repeated, and waits no longer.
    pub fn hold(&mut self, now: MonoTime, key: Key, probe: Probe) -> Option<Probe> {
        if self.index.contains_key(&key) {
            return None;
        }
        let early = if self.entries.len() >= self.limit { self.take_first() } else { None };
        self.index.insert(key, self.first + self.entries.len() as u64);
        self.entries.push_back(Entry { key, due: now.after(WAIT), probe: Some(probe) });
        early
    }

    /// The handshake is through. Whether it was waited for.
    pub fn complete(&mut self, key: &Key) -> bool {
        let Some(number) = self.index.remove(key) else { return false };
        let entry = usize::try_from(number - self.first).ok().and_then(|at| self.entries.get_mut(at));
        let was_there = entry.is_some_and(|entry| entry.probe.take().is_some());
        self.trim();
        was_there
    }

    /// A probe whose time is over.
    pub fn take_due(&mut self, now: MonoTime) -> Option<Probe> {
        if self.next_due()? <= now { self.take_first() } else { None }
    }

    /// The oldest probe, whether its time is over or not.
    pub fn take_first(&mut self) -> Option<Probe> {
        let entry = self.entries.pop_front()?;
        self.first += 1;
        self.index.remove(&entry.key);
        self.trim();
        entry.probe
    }

    /// When the oldest is due.
    pub fn next_due(&self) -> Option<MonoTime> {
        self.entries.front().map(|entry| entry.due)
    }

    /// How many are waited for.
    pub fn waiting(&self) -> usize {
        self.index.len()
    }

    /// The first entry is never a completed one: the next timer is one that matters, and room is not taken by what is over.
    fn trim(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.probe.is_none()) {
            self.entries.pop_front();
            self.first += 1;
        }
        // A flood's room is given back.
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
            self.index = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Port, ScanKind, Transport};
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
        }
    }

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    #[test]
    fn a_handshake_takes_its_syn_out_and_what_stays_is_judged_after_its_time() {
        let mut half = HalfOpen::default();
        for port in [1, 2, 3] {
            assert_eq!(half.hold(at(u64::from(port)), key(1000, port), probe(key(1000, port))), None);
        }
        assert!(half.complete(&key(1000, 2)) && !half.complete(&key(1000, 2)));
        assert!(!half.complete(&key(1001, 1)), "another connection's");
        assert_eq!(half.take_due(at(3000)), None);
        assert_eq!(half.take_due(at(3003)).map(|probe| probe.port.number), Some(1));
        assert_eq!(half.take_due(at(3003)).map(|probe| probe.port.number), Some(3));
        assert_eq!((half.take_due(at(9000)), half.next_due(), half.waiting()), (None, None, 0));
    }

    #[test]
    fn a_repeated_syn_is_one_and_does_not_wait_anew() {
        let mut half = HalfOpen::default();
        half.hold(at(0), key(1, 1), probe(key(1, 1)));
        half.hold(at(1000), key(1, 1), probe(key(1, 1)));
        assert_eq!(half.waiting(), 1);
        assert!(half.take_due(at(3000)).is_some());
        assert_eq!(half.take_due(at(9000)), None);
    }

    #[test]
    fn when_there_is_no_room_the_oldest_is_judged_early() {
        let mut half = HalfOpen::with_limit(3);
        for port in 1..=3 {
            assert_eq!(half.hold(at(0), key(1, port), probe(key(1, port))), None);
        }
        half.complete(&key(1, 1));
        assert_eq!(half.hold(at(1), key(1, 4), probe(key(1, 4))), None, "a completed one gave its room");
        assert_eq!(half.hold(at(1), key(1, 5), probe(key(1, 5))).map(|probe| probe.port.number), Some(2));
    }

    // P22
    #[test]
    fn all_that_waits_fits_the_stated_memory() {
        // The deque's room is the next power of two, a hash table's eight sevenths of that, with a byte of its own for each place.
        let entries = WAITING_MAX.next_power_of_two() * size_of::<Entry>();
        let index = (WAITING_MAX * 8 / 7).next_power_of_two() * (size_of::<(Key, u64)>() + 1);
        // A connection has a place in the epoll set (the kernel's), one in a table and one among the deadlines: 128 bytes are more than that.
        let guests = 2 * crate::decoy::tcp::HELD_MAX * 128;
        assert!(entries + index + guests < crate::decoy::MEMORY_MAX, "{entries} + {index} + {guests}");
    }

    proptest! {
        /// Against a plain map: nothing is lost, nothing told twice, nothing told before its time but for want of room.
        // P22
        #[test]
        fn each_handshake_is_completed_or_judged_and_never_both(
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
                        if let Some(early) = half.hold(at(now), key(7, port), probe(key(7, port))) {
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
