//! A slab of fixed capacity with linked lists, for [`super::ledger`].

use crate::sys::prefetch::prefetch;

/// The null index: no slab grows to this.
const NONE: u32 = u32::MAX;

/// A slab of at most `limit` values, each on one of its [`List`]s or free.
///
/// The memory is reserved at once and never moves: pages that were never written use none, and no
/// insertion waits for a copy. Free places are reused last in, first out, so that few pages are
/// touched.
#[derive(Debug)]
pub(super) struct Slab<T> {
    nodes: Vec<Node<T>>,
    limit: u32,
    free: u32,
    used: u32,
}

#[derive(Debug)]
struct Node<T> {
    previous: u32,
    next: u32,
    value: T,
}

/// A linked list in a slab, oldest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: u32,
    last: u32,
    length: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, length: 0 }
    }
}

impl List {
    pub(super) fn length(self) -> u32 {
        self.length
    }

    pub(super) fn first(self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

impl<T> Slab<T> {
    /// Bytes per place.
    pub(super) const PLACE: usize = size_of::<Node<T>>();

    pub(super) fn new(limit: u32) -> Self {
        Self { nodes: Vec::with_capacity(limit as usize), limit, free: NONE, used: 0 }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn is_full(&self) -> bool {
        self.used >= self.limit
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.nodes.get(at as usize).map(|node| &node.value)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.nodes.get_mut(at as usize).map(|node| &mut node.value)
    }

    /// Brings a place into the processor's caches.
    pub(super) fn read_ahead(&self, at: u32) {
        if let Some(node) = self.nodes.get(at as usize) {
            prefetch(node);
        }
    }

    /// Appends a value to `list`; `None` if the slab is full.
    pub(super) fn push(&mut self, list: &mut List, value: T) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let at = if let Some(node) = self.nodes.get_mut(self.free as usize) {
            let at = self.free;
            self.free = node.next;
            node.value = value;
            at
        } else {
            let at = u32::try_from(self.nodes.len()).ok()?;
            self.nodes.push(Node { previous: NONE, next: NONE, value });
            at
        };
        self.used += 1;
        self.append(list, at);
        Some(at)
    }

    /// Removes a place from `list` and frees it.
    pub(super) fn remove(&mut self, list: &mut List, at: u32) {
        self.unlink(list, at);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.next = self.free;
            self.free = at;
            self.used -= 1;
        }
    }

    /// Moves a place of `list` to its end.
    pub(super) fn renew(&mut self, list: &mut List, at: u32) {
        if list.last != at {
            self.unlink(list, at);
            self.append(list, at);
        }
    }

    /// Moves a place of one list to the end of another.
    pub(super) fn transfer(&mut self, from: &mut List, to: &mut List, at: u32) {
        self.unlink(from, at);
        self.append(to, at);
    }

    /// The values of a list, oldest first.
    pub(super) fn walk(&self, list: List) -> impl Iterator<Item = (u32, &T)> {
        let mut at = list.first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            let here = at;
            at = node.next;
            Some((here, &node.value))
        })
    }

    /// The values of a list, newest first.
    pub(super) fn walk_back(&self, list: List) -> impl Iterator<Item = (u32, &T)> {
        let mut at = list.last;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            let here = at;
            at = node.previous;
            Some((here, &node.value))
        })
    }

    fn append(&mut self, list: &mut List, at: u32) {
        let before = list.last;
        if let Some(node) = self.nodes.get_mut(at as usize) {
            (node.previous, node.next) = (before, NONE);
        }
        match self.nodes.get_mut(before as usize) {
            Some(node) => node.next = at,
            None => list.first = at,
        }
        list.last = at;
        list.length += 1;
    }

    fn unlink(&mut self, list: &mut List, at: u32) {
        let Some((previous, next)) =
            self.nodes.get(at as usize).map(|node| (node.previous, node.next))
        else {
            return;
        };
        match self.nodes.get_mut(previous as usize) {
            Some(node) => node.next = next,
            None => list.first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.previous = previous,
            None => list.last = previous,
        }
        list.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn two_lists_in_a_slab_behave_like_queues(steps in proptest::collection::vec((0u8..3, any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let mut slab = Slab::new(16);
            let mut lists = [List::default(); 2];
            let mut queues: [VecDeque<(u32, usize)>; 2] = Default::default();
            for (count, (step, which, pick)) in steps.into_iter().enumerate() {
                let which = usize::from(which);
                let picked = (!queues[which].is_empty()).then(|| pick.index(queues[which].len()));
                match (step, picked) {
                    (0, _) => match slab.push(&mut lists[which], count) {
                        Some(at) => queues[which].push_back((at, count)),
                        None => prop_assert_eq!(queues[0].len() + queues[1].len(), 16),
                    },
                    (1, Some(picked)) => {
                        let (at, _) = queues[which].remove(picked).unwrap();
                        slab.remove(&mut lists[which], at);
                    }
                    (_, Some(picked)) => {
                        let moved = queues[which].remove(picked).unwrap();
                        slab.renew(&mut lists[which], moved.0);
                        queues[which].push_back(moved);
                    }
                    (_, None) => {}
                }
                for (list, queue) in lists.iter().zip(&queues) {
                    let walked: VecDeque<(u32, usize)> = slab.walk(*list).map(|(at, value)| (at, *value)).collect();
                    prop_assert_eq!(&walked, queue);
                    prop_assert_eq!(list.length() as usize, queue.len());
                }
                prop_assert_eq!(slab.used() as usize, queues[0].len() + queues[1].len());
            }
        }
    }
}
