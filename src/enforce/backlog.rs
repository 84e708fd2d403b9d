//! Blocks that the kernel still has to get, in pieces that hold no packet up.

use std::collections::VecDeque;
use std::time::Duration;

use super::networks::Family;
use crate::backoff::Backoff;
use crate::engine::{MonoTime, Source};

/// Elements that go into their set between two looks at packets: some three milliseconds.
const MAX_PER_WAKE: usize = 1000;

/// Slowed sources that are slowed again between two looks at packets: two milliseconds.
pub(super) const SLOWED_PER_WAKE: usize = 500;

/// What the kernel refused is tried again after this, twice as long each further time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// But not later than this.
const RETRY_LAST: Duration = Duration::from_secs(60);

/// What is still to be done.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Hosts whose elements are lost.
    lost: VecDeque<Source>,
    /// Slowed sources may be missing in the kernel's sets after this one; `Some(None)`: all may.
    slowed: Option<Option<Source>>,
    /// Families whose intervals are not what the blocks want.
    networks: [bool; 2],
    /// How many are sent at once: fewer after a refusal, so that one element that the kernel does
    /// not take keeps no other out.
    piece: usize,
    /// What the kernel refused by itself.
    refused: Vec<Source>,
    why: Option<String>,
    reported: bool,
    backoff: Backoff,
    retry_at: Option<MonoTime>,
    /// The intervals wait by themselves: hosts that find no room in their set keep no network out.
    networks_at: Option<MonoTime>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            lost: VecDeque::new(),
            slowed: None,
            networks: [false; 2],
            piece: MAX_PER_WAKE,
            refused: Vec::new(),
            why: None,
            reported: false,
            backoff: Backoff::new(RETRY_FIRST, RETRY_LAST),
            retry_at: None,
            networks_at: None,
        }
    }
}

impl Backlog {
    /// These have to be restored.
    pub(super) fn restore(&mut self, sources: impl IntoIterator<Item = Source>) {
        self.lost.extend(sources);
    }

    /// All slowed sources have to be slowed again.
    pub(super) fn slow_again(&mut self) {
        self.slowed = Some(None);
    }

    /// The source after which slowed ones are to be slowed again, if it is their turn: blocks come
    /// first.
    pub(super) fn slow_after(&self) -> Option<Option<Source>> {
        self.slowed.filter(|_| self.lost.is_empty())
    }

    /// Those up to this source are slowed again; `None`: there are no more.
    pub(super) fn slowed_to(&mut self, last: Option<Source>) {
        self.slowed = last.map(Some);
    }

    /// The intervals of a family have to be compared with what is wanted.
    pub(super) fn sync(&mut self, family: Family) {
        *family.of_pair_mut(&mut self.networks) = true;
    }

    /// Everything that waited is void: the sets are made again as a whole.
    pub(super) fn clear(&mut self) {
        // With its memory: there may have been a million.
        self.lost = VecDeque::new();
        self.slowed = None;
        self.networks = [false; 2];
        self.refused.clear();
        (self.retry_at, self.networks_at) = (None, None);
    }

    /// Hosts are still to be restored.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Hosts are still to be restored, or were refused.
    pub(super) fn waits(&self) -> bool {
        self.has_lost() || !self.refused.is_empty()
    }

    /// Whether the element of a host is still to be restored: that it is missing says nothing then.
    pub(super) fn awaits(&self, source: Source) -> bool {
        self.lost.contains(&source) || self.refused.contains(&source)
    }

    /// When there is something to do.
    pub(super) fn next_timer(&self, now: MonoTime) -> Option<MonoTime> {
        let is_ready =
            !self.lost.is_empty() || self.slowed.is_some() || self.is_network_due(now).is_some();
        let networks_at = self.networks_at.filter(|_| self.networks != [false; 2]);
        if is_ready { Some(now) } else { self.retry_at.into_iter().chain(networks_at).min() }
    }

    /// The hosts to restore next.
    pub(super) fn take_lost(&mut self) -> Vec<Source> {
        let many = self.lost.len().min(self.piece);
        self.lost.drain(..many).collect()
    }

    /// The family whose intervals to compare next.
    pub(super) fn is_network_due(&self, now: MonoTime) -> Option<Family> {
        let may = self.networks_at.is_none_or(|at| at <= now);
        Family::ALL
            .into_iter()
            .zip(self.networks)
            .find_map(|(family, is_due)| (is_due && may).then_some(family))
    }

    /// The intervals of a family are what the blocks want.
    pub(super) fn synced(&mut self, family: Family) {
        *family.of_pair_mut(&mut self.networks) = false;
        if self.networks == [false; 2] {
            self.networks_at = None;
        }
    }

    /// The kernel took a piece.
    pub(super) fn taken(&mut self) {
        self.piece = self.piece.saturating_mul(2).min(MAX_PER_WAKE);
    }

    /// The kernel refused a piece: a smaller one is tried, and one element alone later.
    pub(super) fn refused(&mut self, now: MonoTime, piece: Vec<Source>, why: String) {
        if piece.len() > 1 {
            self.piece = (piece.len() / 2).max(1);
            piece.into_iter().rev().for_each(|source| self.lost.push_front(source));
            return;
        }
        self.refused.extend(piece);
        self.why = Some(why);
        self.retry_at = self.put_off(now, self.retry_at);
    }

    /// The kernel refused the intervals of a family.
    pub(super) fn refused_networks(&mut self, now: MonoTime, why: String) {
        self.why = Some(why);
        self.networks_at = self.put_off(now, self.networks_at);
    }

    /// The time of the next attempt: the one that is set, or, if that is over, a new one, later
    /// each time.
    fn put_off(&mut self, now: MonoTime, at: Option<MonoTime>) -> Option<MonoTime> {
        at.filter(|at| *at > now).or_else(|| Some(now.after(self.backoff.fail())))
    }

    /// What was refused is tried again, if it is time.
    pub(super) fn retry(&mut self, now: MonoTime) {
        if self.retry_at.is_some_and(|at| at <= now) && self.lost.is_empty() {
            self.retry_at = None;
            self.lost.extend(self.refused.drain(..));
        }
    }

    /// What the administrator has to know, once: that blocks are not in force, and that they are
    /// again.
    pub(super) fn report(&mut self) -> Option<Result<(), (usize, String)>> {
        let is_well = self.refused.is_empty()
            && self.retry_at.is_none()
            && self.networks == [false; 2]
            && self.lost.is_empty();
        if self.reported && is_well {
            self.reported = false;
            self.backoff.reset();
            return Some(Ok(()));
        }
        // All that can be refused has been.
        let is_known =
            self.lost.is_empty() && (self.retry_at.is_some() || self.networks_at.is_some());
        if !self.reported
            && is_known
            && let Some(why) = self.why.take()
        {
            self.reported = true;
            return Some(Err((self.refused.len(), why)));
        }
        None
    }

    /// Blocks that are wanted and not in force because the kernel refused them.
    pub(crate) fn refusals(&self) -> usize {
        self.refused.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(1_000_000 + millis)
    }

    fn host(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(n).into(), 64)
    }

    #[test]
    fn hosts_that_the_kernel_refuses_keep_no_network_out_and_networks_no_host() {
        let mut backlog = Backlog::default();
        backlog.restore([host(1)]);
        backlog.sync(Family::V4);
        let piece = backlog.take_lost();
        backlog.refused(at(0), piece, "set is full".to_owned());
        assert_eq!(backlog.is_network_due(at(0)), Some(Family::V4));
        backlog.refused_networks(at(0), "no memory".to_owned());
        assert_eq!(
            (backlog.is_network_due(at(0)), backlog.next_timer(at(0))),
            (None, Some(at(1000)))
        );
        backlog.retry(at(1000));
        assert_eq!(backlog.take_lost(), [host(1)]);
        backlog.taken();
        assert_eq!(
            (backlog.is_network_due(at(1999)), backlog.next_timer(at(1999))),
            (None, Some(at(2000)))
        );
        assert_eq!(backlog.is_network_due(at(2000)), Some(Family::V4));
        backlog.synced(Family::V4);
        assert_eq!(backlog.next_timer(at(2000)), None);
    }

    // P14
    #[test]
    fn blocks_come_before_slowed_sources() {
        let mut backlog = Backlog::default();
        backlog.slow_again();
        backlog.restore([host(1)]);
        assert_eq!(backlog.slow_after(), None);
        assert_eq!(backlog.take_lost(), [host(1)]);
        assert_eq!(backlog.slow_after(), Some(None));
        backlog.slowed_to(Some(host(7)));
        assert_eq!(backlog.slow_after(), Some(Some(host(7))));
        assert_eq!(backlog.next_timer(at(0)), Some(at(0)));
        backlog.slowed_to(None);
        assert_eq!(backlog.slow_after(), None);
        assert_eq!(backlog.next_timer(at(0)), None);
    }

    #[test]
    fn one_element_that_the_kernel_refuses_keeps_no_other_out_and_is_tried_again() {
        let mut backlog = Backlog::default();
        backlog.restore((0..3000).map(host));
        let (mut taken, mut rounds) = (Vec::new(), 0);
        let mut now = at(0);
        let mut refusing = true;
        while taken.len() < 3000 {
            rounds += 1;
            assert!(rounds < 200, "{}", taken.len());
            backlog.retry(now);
            let piece = backlog.take_lost();
            if piece.is_empty() {
                let report = backlog.report();
                assert_eq!(report, refusing.then(|| Err((1, "set is full".to_owned()))));
                assert_eq!((taken.len(), backlog.refusals()), (2999, 1));
                refusing = false;
                now = backlog.next_timer(now).unwrap();
                continue;
            }
            if refusing && piece.contains(&host(1234)) {
                backlog.refused(now, piece, "set is full".to_owned());
            } else {
                taken.extend(piece);
                backlog.taken();
            }
        }
        assert_eq!(backlog.report(), Some(Ok(())));
        assert_eq!((backlog.next_timer(now), now), (None, at(1000)));
    }
}
