//! The next timer of each place of a table: a binary heap in which a place can be moved.
//!
//! Sixteen bytes a place; a `BTreeSet` of moments and places has twice that.

use super::MonoTime;

/// The position of a place without a timer.
const NONE: u32 = u32::MAX;

/// Timers of numbered places, one each.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Places; none is due before its parent, which is at half its position.
    heap: Vec<u32>,
    /// Of each place, when it is due.
    due: Vec<MonoTime>,
    /// Of each place, where it is in the heap.
    positions: Vec<u32>,
}

impl Timers {
    /// The place that is due first, the lowest of several, and when.
    pub(super) fn first(&self) -> Option<(MonoTime, u32)> {
        self.heap.first().map(|place| self.key(*place))
    }

    /// Gives a place another timer, or none.
    pub(super) fn set(&mut self, place: u32, due: Option<MonoTime>) {
        let index = place as usize;
        if self.positions.len() <= index {
            if due.is_none() {
                return;
            }
            self.due.resize(index + 1, MonoTime::default());
            self.positions.resize(index + 1, NONE);
        }
        let Some(at) = self.positions.get(index).copied() else { return };
        match (due, at) {
            (None, NONE) => {}
            (None, _) => self.remove(at as usize),
            (Some(due), NONE) => {
                self.note_due(place, due);
                self.heap.push(place);
                self.up(self.heap.len() - 1);
            }
            (Some(due), _) => {
                self.note_due(place, due);
                self.up(at as usize);
                self.down(self.position(place));
            }
        }
    }

    /// Makes room for `more` places.
    pub(super) fn reserve(&mut self, more: usize) {
        self.heap.reserve(more);
        self.due.reserve(more);
        self.positions.reserve(more);
    }

    fn remove(&mut self, at: usize) {
        if at >= self.heap.len() {
            return;
        }
        let removed = self.heap.swap_remove(at);
        self.note_position(removed, NONE);
        if let Some(moved) = self.heap.get(at).copied() {
            self.up(at);
            self.down(self.position(moved));
        }
    }

    /// Moves what is at `at` towards the first, past all that are due later.
    fn up(&mut self, mut at: usize) {
        let Some(place) = self.heap.get(at).copied() else { return };
        while let Some(above) = at.checked_sub(1).map(|at| at / 2)
            && let Some(parent) = self.heap.get(above).copied()
            && self.key(place) < self.key(parent)
        {
            self.put(at, parent);
            at = above;
        }
        self.put(at, place);
    }

    /// Moves what is at `at` away from the first, past all that are due earlier.
    fn down(&mut self, mut at: usize) {
        let Some(place) = self.heap.get(at).copied() else { return };
        while let Some((next, child)) = [2 * at + 1, 2 * at + 2]
            .into_iter()
            .filter_map(|below| Some((below, self.heap.get(below).copied()?)))
            .min_by_key(|(_, child)| self.key(*child))
            && self.key(child) < self.key(place)
        {
            self.put(at, child);
            at = next;
        }
        self.put(at, place);
    }

    fn put(&mut self, at: usize, place: u32) {
        if let Some(slot) = self.heap.get_mut(at) {
            *slot = place;
        }
        self.note_position(place, u32::try_from(at).unwrap_or(NONE));
    }

    fn key(&self, place: u32) -> (MonoTime, u32) {
        (self.due.get(place as usize).copied().unwrap_or_default(), place)
    }

    fn position(&self, place: u32) -> usize {
        self.positions.get(place as usize).map_or(usize::MAX, |at| *at as usize)
    }

    fn note_due(&mut self, place: u32, due: MonoTime) {
        if let Some(slot) = self.due.get_mut(place as usize) {
            *slot = due;
        }
    }

    fn note_position(&mut self, place: u32, at: u32) {
        if let Some(slot) = self.positions.get_mut(place as usize) {
            *slot = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timers_are_due_as_those_of_a_sorted_set(steps in proptest::collection::vec((0u32..24, proptest::option::of(0u64..12)), 0..300)) {
            let (mut timers, mut model) = (Timers::default(), BTreeSet::new());
            for (place, due) in steps {
                let due = due.map(MonoTime::from_millis);
                timers.set(place, due);
                model.retain(|(_, other)| *other != place);
                model.extend(due.map(|due| (due, place)));
                prop_assert_eq!(timers.first(), model.first().copied());
            }
            while let Some(first) = model.pop_first() {
                prop_assert_eq!(timers.first(), Some(first));
                timers.set(first.1, None);
            }
            prop_assert_eq!(timers.first(), None);
        }
    }
}
