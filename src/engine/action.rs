//! What the engine wants done, what came of it, and what it reports.

use std::time::Duration;

use ipnet::IpNet;

use super::{NotBlocked, Reason, Source};
use crate::probe::{Port, Probe};

/// Something that the engine wants done in the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Put an element into the kernel's set, or give the element that is there a new timeout. Answered by [`Outcome::Blocked`].
    Block {
        /// What to block.
        source: Source,
        /// For how long; `None` until it is unblocked.
        timeout: Option<Duration>,
        /// Why; also the element's comment.
        reason: Reason,
        /// An element is there already: replace its timeout (and keep its counter).
        renew: bool,
    },
    /// Take an element out of the kernel's set. Answered by [`Outcome::Unblocked`].
    Unblock {
        /// What to unblock.
        source: Source,
    },
    /// Leave these networks, which lie in a blocked network, out of its block; they replace the exemptions it had. Answered by [`Outcome::Exempted`].
    Exempt {
        /// The blocked network.
        source: Source,
        /// What its block leaves out.
        exempt: Vec<IpNet>,
    },
    /// Ask the kernel how many packets an element has dropped. Answered by [`Outcome::Counted`].
    Count {
        /// Whose element.
        source: Source,
    },
    /// The rules hold a source that is not to be blocked, or not any more: take it out. Not answered: if the kernel refuses, the hold runs out by itself.
    Release {
        /// The source.
        source: Source,
        /// Make the rules forget as well that it touched these ports, and that it touched any.
        forget: Option<Vec<Port>>,
    },
    /// Tell the journal.
    Report(Report),
}

/// The kernel's answer to an [`Action`]. `Err` carries the words for the administrator.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The element is in the set, or why it is not.
    Blocked {
        /// What was to be blocked.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// The element is out of the set (also when it was not there), or why it is not.
    Unblocked {
        /// What was to be unblocked.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// The networks are left out of the block, or why they are not.
    Exempted {
        /// The blocked network.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// Packets dropped by the element; `None` if there is no such element any more.
    Counted {
        /// Whose element.
        source: Source,
        /// The element's packet counter.
        packets: Option<u64>,
    },
}

/// How a block ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its time was up.
    Expired,
    /// The administrator lifted it.
    ByHand,
    /// Somebody took its element out of the kernel's set, with nft or another program.
    Removed,
    /// The source must not be blocked (any more).
    NeverBlock,
    /// `block.total` allows fewer blocks than there were.
    Total,
}

/// Something that people should hear of.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A source crossed the trigger.
    Scan {
        /// The source.
        source: Source,
        /// The probe that crossed it.
        probe: Probe,
        /// What is known of it.
        reason: Reason,
        /// Why nothing was blocked; `None` when a block was ordered.
        not_blocked: Option<NotBlocked>,
    },
    /// The kernel acknowledged a block.
    Blocked {
        /// What is blocked.
        source: Source,
        /// The port of the probe that crossed the trigger; `None` for a block by hand.
        port: Option<Port>,
        /// For how long.
        timeout: Option<Duration>,
        /// Why.
        reason: Reason,
        /// The block was there and was given more time.
        renewed: bool,
    },
    /// The kernel refused a block.
    BlockFailed {
        /// What was to be blocked.
        source: Source,
        /// The kernel's words.
        error: String,
    },
    /// A block is over.
    Unblocked {
        /// What was blocked.
        source: Source,
        /// How it ended.
        ending: Ending,
    },
    /// A part of a blocked network is exempt from its block.
    Exempted {
        /// The blocked network.
        source: Source,
        /// The part.
        exempt: IpNet,
    },
    /// The kernel refused to lift a block.
    UnblockFailed {
        /// What was to be unblocked.
        source: Source,
        /// The kernel's words.
        error: String,
    },
}
