//! Which ports of an account count for its prefix too.
//!
//! A prefix must not pass its trigger by what one of its accounts does, and must pass it when each of
//! its accounts touches a few ports. So each account gives its prefix a few ports that the prefix
//! does not have yet. Which ones, its own slots remember.

use super::{Hashed, INDEX, Ledger, OF_PREFIX, Place, SUSPECT};
use crate::engine::MonoTime;
use crate::engine::account::{Counted, Touch};

impl Ledger {
    /// The account of a touch that was just recorded has passed the trigger: it gives its prefix
    /// nothing more. It scans by itself, and its slots will not tell what it gave.
    pub(in crate::engine) fn note_passed(&mut self, found: Option<Place>) {
        if let Some(suspect) = found.and_then(suspect).and_then(|at| self.suspects.get_mut(at)) {
            suspect.passed |= OF_PREFIX;
        }
    }

    /// What an account gives its prefix, of the port of a touch that was just recorded: what it has
    /// of the port, so that both expire at once. `None` unless it gave the port before, or the prefix
    /// does not have it and the account gave less than `most` ports. Ports that count toward a block
    /// have a share of their own: a scanner could use up its share with datagrams that are only
    /// logged. `elsewhere` becomes the prefix's touch of the port, if that was at another address of
    /// this host; it is looked for if the touch `is_new` to the account.
    #[expect(clippy::too_many_arguments, reason = "what the packet path passes in registers")]
    pub(in crate::engine) fn share(
        &mut self,
        now: MonoTime,
        found: Option<Place>,
        prefix: Hashed,
        touch: Touch,
        counted: Counted,
        most: u16,
        is_new: bool,
        elsewhere: &mut Option<(Place, Touch)>,
    ) -> Option<Touch> {
        if found
            .and_then(suspect)
            .and_then(|at| self.suspects.get(at))
            .is_some_and(|it| it.passed & OF_PREFIX != 0)
        {
            return None;
        }
        let horizon = self.horizon(now);
        let same_port = |slot: &u64| Touch::live(*slot, horizon).filter(|old| old.same_port(touch));
        let slots = found.map_or(&[][..], |place| self.account(place));
        let shared = || {
            let live = slots.iter().filter_map(|slot| Touch::live(*slot, horizon));
            live.filter(|old| old.is_shared())
        };
        let is_given = shared().any(|old| old.same_port(touch));
        let given = shared().filter(|old| old.counts(counted) == touch.counts(counted)).count();
        let is_left = given < usize::from(most);
        // Of most probes the account's own slots tell enough.
        let known = if is_new || is_left && !is_given {
            self.find(prefix.hash, prefix.key)
                .and_then(|place| Some((place, self.account(place).iter().find_map(same_port)?)))
        } else {
            None
        };
        *elsewhere = known.filter(|(_, old)| old.is_elsewhere(touch));
        let is_left = is_left && !known.is_some_and(|(_, old)| old.outweighs(touch));
        let slots = found.map_or(&mut [][..], |place| self.account_mut(place));
        for slot in slots {
            if let Some(old) = same_port(slot).filter(|old| is_left || old.is_shared()) {
                *slot = old.shared().slot();
                return Some(old.marked(false));
            }
        }
        None
    }

    fn account_mut(&mut self, place: Place) -> &mut [u64] {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            return self.slots_mut(at);
        }
        let newcomer = self.newcomers.get_mut(at);
        newcomer.map_or(&mut [], |newcomer| std::slice::from_mut(&mut newcomer.touch))
    }
}

/// The slot of a suspect.
fn suspect(place: Place) -> Option<u32> {
    (place.0 & SUSPECT != 0).then_some(place.0 & INDEX)
}
