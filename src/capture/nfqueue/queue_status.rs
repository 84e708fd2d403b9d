//! Reads the kernel's status of a queue from /proc/net/netfilter/nfnetlink_queue
//! (nfnetlink_queue.c, `seq_show`).

use std::fs;

use crate::sys::broker;

/// The kernel's status of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Packets waiting now.
    pub waiting: u32,
    /// Packets dropped because the queue was full, since it was bound.
    pub full: u32,
    /// Packets dropped because the receive buffer was full, since the queue was bound.
    pub unreceived: u32,
}

/// The status of a queue in this thread's network namespace; `None` if it is not bound.
pub fn queue_status(queue: u16) -> Option<QueueStatus> {
    parse_status(&read_table(), queue)
}

pub(super) fn read_table() -> String {
    broker::open(|| fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"))
        .unwrap_or_default()
}

/// Parses a queue's line: number, port, waiting, copy mode, copy range, dropped as full, dropped as
/// not received, last number, 1.
pub(super) fn parse_status(text: &str, queue: u16) -> Option<QueueStatus> {
    text.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        if next()? != u32::from(queue) {
            return None;
        }
        let (_port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?);
        Some(QueueStatus { waiting, full: next()?, unreceived: next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_status_is_parsed_by_number() {
        let text = "    7   4711     9 2   256     5     6     7  1\n   77 3905422019     3 2   256     1     2     9  1\n";
        assert_eq!(
            parse_status(text, 77),
            Some(QueueStatus { waiting: 3, full: 1, unreceived: 2 })
        );
        for text in ["", "\n", "77", "77 1 2", "x 1 2 3 4 5 6 7"] {
            assert_eq!(parse_status(text, 77), None);
        }
    }
}
