//! Counts evidence that says something only in large numbers: segments and datagrams as closed
//! connections and late answers send them, and refused ports that are not watched.
//!
//! A table beside the ledger, so that such packets push nothing out of it. It has a fixed number of
//! buckets with some sources each. A new source replaces the one of its bucket with the fewest
//! ports, of these the oldest: a flood of forged sources with a port each does not replace a source
//! with two.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::account::Touch;
use super::{MonoTime, Source};

/// Distinct ports that such packets may touch within a window: more than the data connections of an
/// FTP client that this host forgot, in the loads of `kernel::benign`.
pub(crate) const MANY: usize = 20;

/// Buckets, and sources in each: 4,096 sources, at most 1 MB.
const BUCKETS: usize = 512;
const WAYS: usize = 8;

#[derive(Debug)]
pub(super) struct Many {
    buckets: Vec<Vec<Entry>>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// The first packet of its window.
    since: MonoTime,
    last: MonoTime,
    /// Distinct ports, at most one more than may be touched.
    touches: Vec<u64>,
}

/// More ports than closed connections explain.
pub(super) struct Passed<'a> {
    /// With this packet.
    pub(super) is_new: bool,
    /// The ports.
    pub(super) touches: &'a [u64],
}

impl Many {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            buckets: std::iter::repeat_with(Vec::new).take(BUCKETS).collect(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Counts a packet; `None` as long as its source has touched at most `most` ports within the
    /// window, of which there are at most [`MANY`].
    pub(super) fn touch(
        &mut self,
        now: MonoTime,
        (window, most): (Duration, usize),
        source: Source,
        touch: Touch,
    ) -> Option<Passed<'_>> {
        let at = self.hasher.hash_one(source) as usize % BUCKETS;
        let bucket = self.buckets.get_mut(at)?;
        bucket.retain(|entry| now.since(entry.since) <= window);
        let known = bucket.iter().position(|entry| entry.source == source);
        let at = known.unwrap_or_else(|| {
            if bucket.len() >= WAYS {
                let weakest = (0..).zip(bucket.iter());
                let weakest = weakest.min_by_key(|(_, entry)| (entry.touches.len(), entry.last));
                bucket.swap_remove(weakest.map_or(0, |(at, _)| at));
            }
            bucket.push(Entry { source, since: now, last: now, touches: Vec::new() });
            bucket.len() - 1
        });
        let entry = bucket.get_mut(at)?;
        entry.last = now;
        let is_full = entry.touches.len() > most;
        if !is_full && !entry.touches.iter().any(|slot| is_port_of(*slot, touch)) {
            entry.touches.push(touch.slot());
        }
        (entry.touches.len() > most).then_some(Passed { is_new: !is_full, touches: &entry.touches })
    }
}

fn is_port_of(slot: u64, touch: Touch) -> bool {
    Touch::live(slot, 0).is_some_and(|old| old.port() == touch.port())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::probe::{Port, Probe, ScanKind, Signature, Transport};

    const WINDOW: Duration = Duration::from_secs(600);

    fn touch(many: &mut Many, at: u64, source: u32, number: u16) -> Option<bool> {
        let now = MonoTime::from_millis(at);
        let address = IpAddr::from(Ipv4Addr::from(source));
        let port = Port { transport: Transport::Udp, number };
        let (scan, ambiguous, ip_options) = (ScanKind::Udp, true, false);
        let signature = Signature::None;
        let probe = Probe {
            source: address,
            destination: address,
            port,
            scan,
            ambiguous,
            ip_options,
            signature,
        };
        let touch = Touch::new(now, &probe, 0);
        many.touch(now, (WINDOW, MANY), Source::of(address, 128), touch).map(|passed| passed.is_new)
    }

    #[test]
    fn the_twenty_first_port_passes_once() {
        let mut many = Many::new(1);
        for _ in 0..3 {
            assert!((1..=20).all(|port| touch(&mut many, 1, 9, port).is_none()));
        }
        assert_eq!(touch(&mut many, 2, 9, 21), Some(true));
        assert_eq!(touch(&mut many, 3, 9, 22), Some(false));
        assert_eq!(touch(&mut many, 4, 9, 1), Some(false));
    }

    #[test]
    fn ports_of_an_earlier_window_do_not_count() {
        let mut many = Many::new(1);
        assert!((1..=20).all(|port| touch(&mut many, 1, 9, port).is_none()));
        assert_eq!(touch(&mut many, 600_002, 9, 21), None);
    }

    #[test]
    fn a_scanner_within_a_flood_of_forged_sources_passes() {
        let mut many = Many::new(1);
        let mut forged = 1000;
        let passed = (1..=40).any(|port| {
            let passed = touch(&mut many, u64::from(port), 9, port).is_some();
            // Fifty packets of the flood for each of the scan's.
            for _ in 0..50 {
                forged += 1;
                assert_eq!(touch(&mut many, u64::from(port), forged, port), None);
            }
            passed
        });
        assert!(passed);
        assert!(many.buckets.iter().all(|bucket| bucket.len() <= WAYS));
    }
}
