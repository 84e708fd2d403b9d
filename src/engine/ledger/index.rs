//! The index: where the account of a source is, by a keyed hash of its key.
//!
//! A table of eight-byte cells with linear probing, so that a packet reads one cache line of it, and
//! that line tells the place too. Twice as many cells as accounts: it never grows. Removing shifts
//! the cells behind back, so that nothing erased piles up and needs no rebuilding.

use super::Place;
use crate::sys::prefetch::prefetch;

/// Cells for each account.
const CELLS: usize = 2;
/// Bytes of an account in the index.
pub(super) const INDEX_BYTES: usize = CELLS * size_of::<u64>();

/// Bits 0..32 a part of the hash, never 0; 32..64 the place. 0: empty.
type Cell = u64;

/// The index of at most as many places as it was made for.
#[derive(Debug)]
pub(super) struct Index {
    /// Pages that were never written use no memory.
    cells: Vec<Cell>,
}

fn tag(hash: u64) -> u32 {
    (hash as u32).max(1)
}

fn cell(tag: u32, place: Place) -> Cell {
    u64::from(tag) | u64::from(place.0) << 32
}

impl Index {
    pub(super) fn with_capacity(places: u32) -> Self {
        // At least one cell stays empty, which ends every search.
        Self { cells: vec![0; places as usize * CELLS + 1] }
    }

    /// Where the search for a tag starts: in the order of the tags, so that it is known without the
    /// key.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.cells.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() { 0 } else { at + 1 }
    }

    #[inline]
    fn get(&self, at: usize) -> Cell {
        self.cells.get(at).copied().unwrap_or(0)
    }

    fn set(&mut self, at: usize, cell: Cell) {
        if let Some(place) = self.cells.get_mut(at) {
            *place = cell;
        }
    }

    /// Brings the cell where a search for this hash starts into the processor's caches.
    #[inline]
    pub(super) fn read_ahead(&self, hash: u64) {
        if let Some(cell) = self.cells.get(self.home(tag(hash))) {
            prefetch(cell);
        }
    }

    /// The first place of this hash: in most cases it is the right one.
    #[inline]
    pub(super) fn first(&self, hash: u64) -> Option<Place> {
        self.find(hash, |_| true)
    }

    /// The place of this hash that is the right one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let place = |cell: Cell| Place((cell >> 32) as u32);
        self.search(hash, |cell| is_it(place(cell))).map(|at| place(self.get(at)))
    }

    /// The cell of this hash that is the right one.
    #[inline]
    fn search(&self, hash: u64, is_it: impl Fn(Cell) -> bool) -> Option<usize> {
        let tag = tag(hash);
        let mut at = self.home(tag);
        loop {
            let cell = self.get(at);
            if cell as u32 == tag && is_it(cell) {
                return Some(at);
            }
            if cell == 0 {
                return None;
            }
            at = self.next(at);
        }
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, place: Place) {
        let tag = tag(hash);
        let mut at = self.home(tag);
        while self.get(at) != 0 {
            at = self.next(at);
        }
        self.set(at, cell(tag, place));
    }

    /// Puts one place for another of the same hash.
    pub(super) fn replace(&mut self, hash: u64, old: Place, new: Place) {
        let tag = tag(hash);
        if let Some(at) = self.search(hash, |found| found == cell(tag, old)) {
            self.set(at, cell(tag, new));
        }
    }

    pub(super) fn remove(&mut self, hash: u64, place: Place) {
        let tag = tag(hash);
        let Some(mut free) = self.search(hash, |found| found == cell(tag, place)) else { return };
        // Each cell behind that does not start between the gap and itself moves into the gap.
        let mut at = free;
        loop {
            at = self.next(at);
            let cell = self.get(at);
            if cell == 0 {
                break;
            }
            let length = self.cells.len();
            let from = |start: usize| if at >= start { at - start } else { at + length - start };
            if from(self.home(cell as u32)) >= from(free) {
                self.set(free, cell);
                free = at;
            }
        }
        self.set(free, 0);
    }

    /// Places in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cells.iter().filter(|cell| **cell != 0).count()
    }

    /// Bytes that it has reserved.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.cells.len() * size_of::<Cell>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few hashes, near the end of the table too: clusters that go round.
        #[test]
        fn an_index_behaves_as_a_list_of_pairs(
            steps in prop::collection::vec((0u8..4, 0u64..8, any::<prop::sample::Index>()), 0..300),
        ) {
            let mut index = Index::with_capacity(16);
            let mut pairs: Vec<(u64, Place)> = Vec::new();
            for (count, (step, hash, pick)) in steps.into_iter().enumerate() {
                let hash = hash.wrapping_sub(4) & 0xffff_ffff;
                let picked = (!pairs.is_empty()).then(|| pick.index(pairs.len()));
                let new = Place(count as u32);
                match (step, picked) {
                    (0 | 1, _) if pairs.len() < 16 => {
                        index.insert(hash, new);
                        pairs.push((hash, new));
                    }
                    (2, Some(picked)) => {
                        let (hash, old) = pairs[picked];
                        index.replace(hash, old, new);
                        pairs[picked].1 = new;
                    }
                    (3, Some(picked)) => {
                        let (hash, old) = pairs.swap_remove(picked);
                        index.remove(hash, old);
                        prop_assert_eq!(index.find(hash, |place| place == old), None);
                    }
                    _ => {}
                }
                for (hash, place) in &pairs {
                    prop_assert_eq!(index.find(*hash, |other| other == *place), Some(*place));
                }
                prop_assert_eq!(index.len(), pairs.len());
            }
        }
    }
}
