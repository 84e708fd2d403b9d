//! Decides from a source's evidence and the policy whether to wait, report or block.

use super::account::Tally;
use super::observed::WouldBe;
use super::policy::{Policy, Triggers};
use crate::config::{ProtocolAction, UnprovenAction};
use crate::probe::{ScanKind, Transport};

/// Why a source that passed the trigger is not blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum NotBlocked {
    /// It is on a never-block list.
    NeverBlock,
    /// `mode: observe`, and it would have been slowed.
    ObserveSlow,
    /// `mode: observe`, and it would have been blocked.
    ObserveBlock,
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
    /// `block.unproven.action: slow`: the source is slowed.
    Slowed,
    /// `block.unproven.action: slow`, but with `block.ipv6.first` below 128 the rules cannot slow one
    /// host behind a NAT64 translator.
    Nat64,
    /// `block.unproven.per_minute` is used up.
    PerMinute,
    /// `block.total` is reached.
    Total,
    /// There were too few packets of a kind that closed connections produce too.
    Ambiguous,
    /// Its ports are not watched, and `unwatched` is `report`.
    Unwatched,
    /// It pinged many addresses, as monitoring does too.
    Ping,
    /// It came over an interface on the allow list.
    AllowedInterface,
}

impl NotBlocked {
    /// All reasons, in the order of the enum.
    pub const ALL: [Self; 16] = [
        Self::NeverBlock,
        Self::ObserveSlow,
        Self::ObserveBlock,
        Self::TcpLog,
        Self::TcpCommand,
        Self::UdpLog,
        Self::UdpCommand,
        Self::UnprovenReport,
        Self::Slowed,
        Self::Nat64,
        Self::PerMinute,
        Self::Total,
        Self::Ambiguous,
        Self::Unwatched,
        Self::Ping,
        Self::AllowedInterface,
    ];

    /// What observe mode kept from happening.
    pub fn would_be(self) -> Option<WouldBe> {
        match self {
            Self::ObserveSlow => Some(WouldBe::Slowed),
            Self::ObserveBlock => Some(WouldBe::Blocked),
            _ => None,
        }
    }

    /// The text in reports.
    pub fn text(self) -> &'static str {
        match self {
            Self::NeverBlock => "never-block address",
            Self::ObserveSlow => "observe mode, it would have been slowed",
            Self::ObserveBlock => "observe mode, it would have been blocked",
            Self::TcpLog => "tcp.action is log",
            Self::TcpCommand => "tcp.action is command",
            Self::UdpLog => "udp.action is log",
            Self::UdpCommand => "udp.action is command",
            Self::UnprovenReport => "block.unproven.action is report",
            Self::Slowed => "slowed until its address is proven",
            Self::Nat64 => "behind NAT64, and not proven",
            Self::PerMinute => "block.unproven.per_minute is used up",
            Self::Total => "block.total is reached",
            Self::Unwatched => "these ports are not watched",
            Self::Ambiguous => "closed connections cause such packets too",
            Self::Ping => "pings are only reported",
            Self::AllowedInterface => "it came over an allowed interface",
        }
    }

    /// The word for it: programs rely on it, and the text is for people.
    pub fn code(self) -> &'static str {
        match self {
            Self::NeverBlock => "never_block",
            Self::ObserveSlow => "observe_slow",
            Self::ObserveBlock => "observe_block",
            Self::TcpLog => "tcp_log",
            Self::TcpCommand => "tcp_command",
            Self::UdpLog => "udp_log",
            Self::UdpCommand => "udp_command",
            Self::UnprovenReport => "unproven_report",
            Self::Slowed => "slowed",
            Self::Nat64 => "nat64",
            Self::PerMinute => "per_minute",
            Self::Total => "total",
            Self::Ambiguous => "ambiguous",
            Self::Unwatched => "unwatched",
            Self::Ping => "ping",
            Self::AllowedInterface => "allowed_interface",
        }
    }
}

/// Whether a source has passed the trigger, whether or not it is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Not passed yet.
    Below,
    /// Passed: the source is blocked or reported, now or before.
    Passed,
}

/// The verdict on a new connection of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// The connection may proceed.
    Free,
    /// The source has passed the trigger, and it is slowed, or its block was prevented by
    /// `block.unproven.per_minute`, `block.total` or a refusal of the kernel.
    Held,
    /// The source is blocked.
    Blocked,
}

/// What to do about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Not enough evidence yet.
    Wait,
    /// Report the scan; do not block.
    Report(NotBlocked),
    /// Slow the source until its address is proven.
    Slow,
    /// Block, unless a limit prevents it.
    Block {
        /// The source has shown that it receives our packets.
        proven: bool,
    },
}

/// Decides on a probe that `tally` includes already; the triggers are those of the account.
pub(super) fn decide(
    policy: &Policy,
    Triggers { scan: trigger, proof }: Triggers,
    tally: Tally,
    scan: ScanKind,
    transport: Transport,
) -> Decision {
    // A probe of a transport that is only logged must not trigger a block with older TCP evidence:
    // those TCP probes had their decision.
    let is_logged_only = policy.action(transport) != ProtocolAction::Block;
    // Alone they are evidence in large numbers only, see `Engine::on_late`.
    if scan == ScanKind::Reply && tally.plain + tally.logged == 0 {
        return Decision::Wait;
    }
    if is_logged_only || scan == ScanKind::Reply {
        let against =
            if is_logged_only { policy.report_only(transport) } else { NotBlocked::Ambiguous };
        return if tally.reports_at(trigger) { Decision::Report(against) } else { Decision::Wait };
    }
    if !tally.blocks(trigger) {
        // At trigger 0 a single FIN is reported, as by PortSentry 1.2; blocking for it would block
        // clients of closed connections.
        return if trigger == 0 && scan == ScanKind::Fin {
            Decision::Report(NotBlocked::Ambiguous)
        } else {
            Decision::Wait
        };
    }
    if tally.proven(proof) {
        return Decision::Block { proven: true };
    }
    match policy.unproven.action {
        UnprovenAction::Block => Decision::Block { proven: false },
        UnprovenAction::Slow => Decision::Slow,
        UnprovenAction::Report => Decision::Report(NotBlocked::UnprovenReport),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn decide(policy: &Policy, tally: Tally, scan: ScanKind, transport: Transport) -> Decision {
        let host = policy.account([192, 0, 2, 1].into());
        super::decide(policy, policy.triggers_of(host), tally, scan, transport)
    }

    fn blocking() -> Policy {
        let mut policy = Policy::from_config(&Config::default());
        policy.unproven.action = UnprovenAction::Block;
        policy
    }

    #[test]
    fn unproven_source_is_slowed_by_default_and_a_proven_one_blocked() {
        let policy = Policy::from_config(&Config::default());
        let tally = Tally { plain: 3, ..Tally::default() };
        assert_eq!(decide(&policy, tally, ScanKind::Syn, Transport::Tcp), Decision::Slow);
        assert_eq!(
            decide(&policy, Tally { connect: 3, ..tally }, ScanKind::Connect, Transport::Tcp),
            Decision::Block { proven: true }
        );
    }

    #[test]
    fn the_first_port_beyond_the_trigger_decides() {
        let policy = blocking();
        let syns = |plain| Tally { plain, ..Tally::default() };
        assert_eq!(decide(&policy, syns(2), ScanKind::Syn, Transport::Tcp), Decision::Wait);
        assert_eq!(
            decide(&policy, syns(3), ScanKind::Syn, Transport::Tcp),
            Decision::Block { proven: false }
        );
        assert_eq!(
            decide(&policy, Tally { connect: 3, ..syns(3) }, ScanKind::Connect, Transport::Tcp),
            Decision::Block { proven: true }
        );
        let zero = Policy { scan_trigger: 0, ..policy };
        assert_eq!(
            decide(&zero, syns(1), ScanKind::Syn, Transport::Tcp),
            Decision::Block { proven: false }
        );
    }

    #[test]
    fn single_fin_at_trigger_0_is_reported_only() {
        let policy = Policy { scan_trigger: 0, ..blocking() };
        let late = |ambiguous| Tally { ambiguous, ..Tally::default() };
        assert_eq!(
            decide(&policy, late(1), ScanKind::Fin, Transport::Tcp),
            Decision::Report(NotBlocked::Ambiguous)
        );
        assert_eq!(decide(&policy, late(1), ScanKind::Ack, Transport::Tcp), Decision::Wait);
        assert_eq!(
            decide(&policy, late(6), ScanKind::Fin, Transport::Tcp),
            Decision::Block { proven: false }
        );
        let one = Policy { scan_trigger: 1, ..policy };
        assert_eq!(decide(&one, late(1), ScanKind::Fin, Transport::Tcp), Decision::Wait);
    }

    // P4
    #[test]
    fn replies_are_reported_beside_other_probes_and_never_block() {
        let policy = blocking();
        let replies = |logged_ambiguous| Tally { logged_ambiguous, ..Tally::default() };
        let decided = |tally| decide(&policy, tally, ScanKind::Reply, Transport::Tcp);
        assert_eq!(decided(replies(6)), Decision::Wait);
        let beside = Tally { plain: 1, ..replies(2) };
        assert_eq!(decided(beside), Decision::Report(NotBlocked::Ambiguous));
        assert_eq!(decide(&policy, replies(100), ScanKind::Syn, Transport::Tcp), Decision::Wait);
    }

    #[test]
    fn logged_datagrams_count_toward_a_report() {
        let policy = blocking();
        let mixed = Tally { plain: 2, logged: 1, ..Tally::default() };
        assert_eq!(
            decide(&policy, mixed, ScanKind::Udp, Transport::Udp),
            Decision::Report(NotBlocked::UdpLog)
        );
        assert_eq!(decide(&policy, mixed, ScanKind::Syn, Transport::Tcp), Decision::Wait);
        assert_eq!(
            decide(
                &policy,
                Tally { plain: 3, logged: 1, ..Tally::default() },
                ScanKind::Udp,
                Transport::Udp
            ),
            Decision::Report(NotBlocked::UdpLog)
        );
    }
}
