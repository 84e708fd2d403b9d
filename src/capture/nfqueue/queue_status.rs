//! What the kernel says of its queues, in /proc/net/netfilter/nfnetlink_queue (nfnetlink_queue.c, `seq_show`). Only read.

use std::fs;

/// The kernel's own view of a queue (/proc/net/netfilter/nfnetlink_queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Packets that wait now.
    pub waiting: u32,
    /// Packets that found the queue full and were dropped, since it was bound.
    pub full: u32,
    /// Packets whose message found the receive buffer full and that were dropped, since it was bound.
    pub unreceived: u32,
}

/// What the kernel says of a queue in this thread's network namespace; `None` if it is not bound.
pub fn standing(queue: u16) -> Option<Standing> {
    standing_of(&standings(), queue)
}

pub(super) fn standings() -> String {
    fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default()
}

/// A queue's line: number, port, waiting, copy mode, copy range, dropped as full, dropped as not received, last number, 1.
pub(super) fn standing_of(text: &str, queue: u16) -> Option<Standing> {
    text.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        if next()? != u32::from(queue) {
            return None;
        }
        let (_port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?);
        Some(Standing { waiting, full: next()?, unreceived: next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_view_of_a_queue_is_read_by_its_number() {
        let text = "    7   4711     9 2   256     5     6     7  1\n   77 3905422019     3 2   256     1     2     9  1\n";
        assert_eq!(standing_of(text, 77), Some(Standing { waiting: 3, full: 1, unreceived: 2 }));
        for text in ["", "\n", "77", "77 1 2", "x 1 2 3 4 5 6 7"] {
            assert_eq!(standing_of(text, 77), None);
        }
    }
}
