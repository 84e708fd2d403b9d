//! The engine's interface: actions it orders, the kernel's outcomes, and reports.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{CampaignView, NotBlocked, Reason, Source};
use crate::config::CampaignAction;
use crate::probe::{Port, Probe};

/// An order of the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Add an element to the kernel's set, or give the present one a new timeout. Answered by
    /// [`Outcome::Blocked`].
    Block {
        /// What to block.
        source: Source,
        /// For how long; `None`: until it is unblocked.
        timeout: Option<Duration>,
        /// The reason, which is also the element's comment.
        reason: Reason,
        /// The element exists: replace its timeout.
        renew: bool,
    },
    /// Delete an element from the kernel's set. Answered by [`Outcome::Unblocked`].
    Unblock {
        /// What to unblock.
        source: Source,
    },
    /// Exempt these networks from the block around them; they replace its earlier exemptions.
    /// Answered by [`Outcome::Exempted`].
    Exempt {
        /// The blocked network.
        source: Source,
        /// The exempt networks.
        exempt: Vec<IpNet>,
    },
    /// Ask the kernel whether the element is there. Answered by [`Outcome::Checked`].
    Check {
        /// The blocked source.
        source: Source,
    },
    /// Slow a source that the rules did not slow by themselves. Has no outcome: if the kernel
    /// refuses, the source's next probe orders it again.
    Slow {
        /// The source.
        source: Source,
        /// For how long after its last probe.
        timeout: Duration,
    },
    /// Slow or block the network of a campaign, as the rules say, or do so for longer. Has no outcome,
    /// as [`Action::Slow`].
    Campaign {
        /// The network.
        network: Source,
        /// For how long; `None`: no more.
        timeout: Option<Duration>,
    },
    /// Release a source that the rules hold and that is not blocked. Has no outcome: if the kernel
    /// refuses, the hold expires.
    Release {
        /// The source.
        source: Source,
        /// Also make the rules forget that the source touched these ports, or any.
        forget: Option<Vec<Port>>,
    },
    /// Report to the journal.
    Report(Report),
}

/// The kernel's answer to an [`Action`]. `Err` has the message for the administrator.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Answer to [`Action::Block`].
    Blocked {
        /// The source of the action.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// Answer to [`Action::Unblock`]; also `Ok` if there was no element.
    Unblocked {
        /// The source of the action.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// Answer to [`Action::Exempt`].
    Exempted {
        /// The blocked network.
        source: Source,
        /// The kernel's answer.
        result: Result<(), String>,
    },
    /// Answer to [`Action::Check`].
    Checked {
        /// The source of the action.
        source: Source,
        /// The element is there, or the kernel did not answer.
        is_there: bool,
    },
}

/// How a block ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its timeout expired.
    Expired,
    /// The administrator lifted it.
    Manual,
    /// Another program deleted its element from the kernel's set.
    Removed,
    /// The source is on a never-block list.
    NeverBlock,
    /// `block.total` allows fewer blocks than there were.
    Total,
    /// Services listen on all ports that the source probed.
    Services,
    /// It is no longer on the named list for which it was blocked. That says nothing of what it
    /// probed, so nothing is forgotten.
    OffList,
}

/// Why a source is not slowed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowEnding {
    /// It probed no closed port for the time that it was slowed for.
    Expired,
    /// Its address is proven, and it is blocked.
    Proven,
    /// The administrator blocked it.
    Blocked,
    /// The administrator released it.
    Manual,
    /// It is on a never-block list.
    NeverBlock,
    /// The configuration slows no source any more.
    Configuration,
    /// Services listen on all ports that it probed.
    Services,
}

/// What became of a slowed source's packets since it was slowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowedPackets {
    /// They passed: those of established connections, answers to our own ones, and those of
    /// connections that were retransmitted, among others.
    pub passed: u64,
    /// They were dropped, or answered as a closed port answers.
    pub dropped: u64,
}

/// An event for the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A source passed the trigger.
    Scan {
        /// The source.
        source: Source,
        /// The probe that passed it.
        probe: Probe,
        /// The evidence.
        reason: Reason,
        /// Why nothing was blocked; `None` when a block was ordered.
        not_blocked: Option<NotBlocked>,
    },
    /// A source that passed the trigger is slowed: it is not blocked, because its address is not
    /// proven.
    Slowed {
        /// The source.
        source: Source,
        /// The port of the probe that passed the trigger.
        port: Port,
        /// The address that sent it, of all that the source may have.
        scanner: IpAddr,
        /// For how long after its last probe.
        timeout: Duration,
        /// The evidence.
        reason: Reason,
    },
    /// A source past the trigger, with an address that is not proven, has sent more probes than a
    /// flood sends for each of its invented sources. Once for each account, at a bounded rate.
    Continues {
        /// The source.
        source: Source,
        /// The port of its last probe.
        port: Port,
        /// The address that sent it, of all that the source may have.
        scanner: IpAddr,
        /// What is done about it: `blocked`, `slowed` or `reported`.
        state: &'static str,
        /// The evidence.
        reason: Reason,
    },
    /// Several sources share a scan.
    Campaign {
        /// What they share, and what is known of them.
        campaign: CampaignView,
        /// What is done about their network.
        action: CampaignAction,
        /// For how long after the last probe; `None`: it is only reported.
        timeout: Option<Duration>,
    },
    /// A source is not slowed any more.
    Released {
        /// The source.
        source: Source,
        /// Why.
        ending: SlowEnding,
        /// What became of its packets meanwhile. The engine does not know it; `None` if the kernel
        /// does not either.
        packets: Option<SlowedPackets>,
    },
    /// The kernel acknowledged a block.
    Blocked {
        /// What is blocked.
        source: Source,
        /// The port of the probe that passed the trigger; `None` for a manual block.
        port: Option<Port>,
        /// The address that sent it, of all that the source may have; `None` for a manual block, and
        /// for one that got a new timeout.
        scanner: Option<IpAddr>,
        /// For how long.
        timeout: Option<Duration>,
        /// Why.
        reason: Reason,
        /// How often the block got a new timeout since it began; 0: it begins.
        renewals: u32,
    },
    /// The kernel refused a block.
    BlockFailed {
        /// The source of the refused block.
        source: Source,
        /// The kernel's error.
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
        /// The source that stays blocked.
        source: Source,
        /// The kernel's error.
        error: String,
    },
}
