//! What follows from the evidence, before it is asked whether anything stands against it.

use super::account::Tally;
use super::policy::Policy;
use crate::config::{Mode, ProtocolAction, UnprovenAction};
use crate::probe::{ScanKind, Transport};

/// Why a source that passed the trigger is not blocked. [`NotBlocked::text`] stands in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum NotBlocked {
    /// It is on the allow list, or must not be blocked for another reason.
    NeverBlock,
    /// `mode: observe`.
    Observe,
    /// `tcp.action: log`.
    TcpLog,
    /// `tcp.action: command`.
    TcpCommand,
    /// `udp.action: log`.
    UdpLog,
    /// `udp.action: command`.
    UdpCommand,
    /// `block.unproven.action: report`.
    UnprovenReport,
    /// `block.unproven.action: slow`.
    UnprovenSlow,
    /// `block.unproven.per_minute` is used up.
    PerMinute,
    /// `block.total` is reached.
    Total,
    /// Packets of a connection that is over can look like it, and there were too few of them.
    Ambiguous,
}

impl NotBlocked {
    /// All reasons, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::NeverBlock,
        Self::Observe,
        Self::TcpLog,
        Self::TcpCommand,
        Self::UdpLog,
        Self::UdpCommand,
        Self::UnprovenReport,
        Self::UnprovenSlow,
        Self::PerMinute,
        Self::Total,
        Self::Ambiguous,
    ];

    /// The words for the administrator.
    pub fn text(self) -> &'static str {
        match self {
            Self::NeverBlock => "never-block address",
            Self::Observe => "observe mode",
            Self::TcpLog => "tcp.action is log",
            Self::TcpCommand => "tcp.action is command",
            Self::UdpLog => "udp.action is log",
            Self::UdpCommand => "udp.action is command",
            Self::UnprovenReport => "block.unproven.action is report",
            Self::UnprovenSlow => "block.unproven.action is slow",
            Self::PerMinute => "block.unproven.per_minute is used up",
            Self::Total => "block.total is reached",
            Self::Ambiguous => "a late packet of a connection that is over can look like it",
        }
    }
}

/// Whether a source has shown enough, whatever follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Not yet.
    Below,
    /// It is blocked or reported, or was told of before.
    Passed,
}

/// What a new connection of a source may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// Nothing stands against it.
    Free,
    /// The source has passed the trigger and would be blocked; but as many blocks as may be are there (`block.unproven.per_minute`,
    /// `block.total`), or the kernel refused.
    Held,
    /// The source is blocked.
    Blocked,
}

/// What follows from the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing yet.
    Wait,
    /// A report.
    Tell(NotBlocked),
    /// A block, if nothing stands against it.
    Block {
        /// The source has shown that it receives our packets.
        proven: bool,
    },
}

/// Decides on a probe of the kind `scan` that came over `transport`, after it was added to what its source's ports add up to.
pub(super) fn decide(policy: &Policy, tally: Tally, scan: ScanKind, transport: Transport) -> Decision {
    let trigger = policy.trigger();
    // A datagram that is told only does not set off what TCP evidence of minutes ago would: the TCP probe had its decision.
    if policy.action(transport) != ProtocolAction::Block {
        return if tally.tells(trigger) { Decision::Tell(policy.told_only(transport)) } else { Decision::Wait };
    }
    if !tally.blocks(trigger) {
        // Whoever wants to hear of the first packet hears of a lone FIN too, as from PortSentry 1.2; to block for it would be to block clients.
        return if trigger == 0 && scan == ScanKind::Fin { Decision::Tell(NotBlocked::Ambiguous) } else { Decision::Wait };
    }
    if policy.mode == Mode::Observe {
        return Decision::Tell(NotBlocked::Observe);
    }
    if tally.proven(trigger) {
        return Decision::Block { proven: true };
    }
    match policy.unproven.action {
        UnprovenAction::Block => Decision::Block { proven: false },
        UnprovenAction::Slow => Decision::Tell(NotBlocked::UnprovenSlow),
        UnprovenAction::Report => Decision::Tell(NotBlocked::UnprovenReport),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_first_port_beyond_the_trigger_decides() {
        let policy = Policy::from_config(&Config::default());
        let syns = |plain| Tally { plain, ..Tally::default() };
        assert_eq!(decide(&policy, syns(2), ScanKind::Syn, Transport::Tcp), Decision::Wait);
        assert_eq!(decide(&policy, syns(3), ScanKind::Syn, Transport::Tcp), Decision::Block { proven: false });
        assert_eq!(decide(&policy, Tally { connect: 3, ..syns(3) }, ScanKind::Connect, Transport::Tcp), Decision::Block { proven: true });
        let zero = Policy { scan_trigger: 0, ..policy };
        assert_eq!(decide(&zero, syns(1), ScanKind::Syn, Transport::Tcp), Decision::Block { proven: false });
    }

    #[test]
    fn one_fin_is_told_at_trigger_0_and_blocks_nobody() {
        let policy = Policy { scan_trigger: 0, ..Policy::from_config(&Config::default()) };
        let late = |ambiguous| Tally { ambiguous, ..Tally::default() };
        assert_eq!(decide(&policy, late(1), ScanKind::Fin, Transport::Tcp), Decision::Tell(NotBlocked::Ambiguous));
        assert_eq!(decide(&policy, late(1), ScanKind::Ack, Transport::Tcp), Decision::Wait);
        assert_eq!(decide(&policy, late(6), ScanKind::Fin, Transport::Tcp), Decision::Block { proven: false });
        let one = Policy { scan_trigger: 1, ..policy };
        assert_eq!(decide(&one, late(1), ScanKind::Fin, Transport::Tcp), Decision::Wait);
    }

    #[test]
    fn datagrams_that_are_told_only_count_toward_a_report() {
        let policy = Policy::from_config(&Config::default());
        let mixed = Tally { plain: 2, told: 1, ..Tally::default() };
        assert_eq!(decide(&policy, mixed, ScanKind::Udp, Transport::Udp), Decision::Tell(NotBlocked::UdpLog));
        assert_eq!(decide(&policy, mixed, ScanKind::Syn, Transport::Tcp), Decision::Wait);
        assert_eq!(
            decide(&policy, Tally { plain: 3, told: 1, ..Tally::default() }, ScanKind::Udp, Transport::Udp),
            Decision::Tell(NotBlocked::UdpLog)
        );
    }
}
