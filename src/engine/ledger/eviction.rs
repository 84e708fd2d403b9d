//! Which source goes when a tier is full or its time is over.

use super::{INDEX, Key, Ledger, PATIENT, Place, SUSPECT, Tier};
use crate::engine::MonoTime;
use crate::engine::account::Touch;

/// Second chances that one eviction gives at most, which bounds its work.
const MAX_SECOND_CHANCES: u32 = 8;

/// The next source to evict from a tier.
#[derive(Debug, Clone, Copy)]
struct Front {
    place: Place,
    key: Key,
    last: u64,
    marked: bool,
}

impl Ledger {
    /// Removes at most `budget` expired accounts. Returns whether there may be more.
    pub(in crate::engine) fn sweep(&mut self, now: MonoTime, budget: u32) -> bool {
        let horizon = self.horizon(now);
        for _ in 0..budget {
            let over = |tier| self.front(tier).filter(|front| front.marked || front.last < horizon);
            let Some(front) =
                over(Tier::Hasty).or_else(|| over(Tier::Patient)).or_else(|| over(Tier::Suspects))
            else {
                return false;
            };
            if front.last < horizon {
                self.drop_place(front.key, front.place)
            } else {
                self.give_second_chance(front.place)
            }
        }
        true
    }

    /// The next source to evict from a tier.
    fn front(&self, tier: Tier) -> Option<Front> {
        if tier == Tier::Suspects {
            let at = self.by_last_touch.first()?;
            let suspect = self.suspects.get(at)?;
            return Some(Front {
                place: Place(at | SUSPECT),
                key: suspect.key,
                last: suspect.last,
                marked: suspect.marked,
            });
        }
        let (list, bit) =
            if tier == Tier::Patient { (self.patient, PATIENT) } else { (self.hasty, 0) };
        let at = list.first()?;
        let newcomer = self.newcomers.get(at)?;
        let touch = Touch::live(newcomer.touch, 0)?;
        Some(Front {
            place: Place(at | bit),
            key: newcomer.key,
            last: touch.time(),
            marked: touch.is_marked(),
        })
    }

    /// Moves the source at `place` to the back of its tier and clears its mark.
    fn give_second_chance(&mut self, place: Place) {
        let at = place.0 & INDEX;
        if place.0 & SUSPECT != 0 {
            if let Some(suspect) = self.suspects.get_mut(at) {
                suspect.marked = false;
            }
            self.suspects.renew(&mut self.by_last_touch, at);
        } else {
            if let Some(newcomer) = self.newcomers.get_mut(at) {
                newcomer.touch =
                    Touch::live(newcomer.touch, 0).map_or(0, |touch| touch.marked(false).slot());
            }
            let list = if place.0 & PATIENT != 0 { &mut self.patient } else { &mut self.hasty };
            self.newcomers.renew(list, at);
        }
    }

    /// Frees one place in a full tier.
    pub(super) fn evict(&mut self, tier: Tier) {
        for attempts in 0..=MAX_SECOND_CHANCES {
            let Some(front) = self.front(tier) else { return };
            if front.marked && attempts < MAX_SECOND_CHANCES {
                self.give_second_chance(front.place);
            } else {
                self.evicted += 1;
                self.drop_place(front.key, front.place);
                // The next one's cell of the index, which a flood needs with its next packet: the
                // processor fetches it meanwhile.
                if let Some(next) = self.front(tier) {
                    self.index.read_ahead(self.hash(next.key));
                }
                return;
            }
        }
    }
}
