//! The engine's part of the configuration.

use std::net::IpAddr;
use std::time::Duration;

use super::account::Counted;
use super::ledger::{CAPACITY, Shape, TRIGGER_MAX};
use super::{AllowList, NotBlocked, Source};
use crate::config::{
    CampaignAction, Config, Escalate, Ipv6Accounts, Mode, ProtocolAction, Unproven, UnprovenAction,
    Unwatched,
};
use crate::probe::Transport;

/// The lowest number of decoys that a prefix may complete handshakes with, without a proof: some
/// hosts with a wrong port each are no scanner.
const PREFIX_HANDSHAKES: u16 = 5;

/// Numbers of distinct ports that an account may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Triggers {
    /// Without a reaction.
    pub(super) scan: u16,
    /// With completed handshakes, and without a proof.
    pub(super) proof: u16,
}

/// The engine's part of the configuration. Fields are named like the keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Block, or only report.
    pub mode: Mode,
    /// What a TCP scan triggers; also for SCTP and other IP protocols.
    pub tcp: ProtocolAction,
    /// What a UDP scan triggers.
    pub udp: ProtocolAction,
    /// What happens to a source that is refused on many ports that are not watched.
    pub unwatched: Unwatched,
    /// Distinct ports that a source may touch without a reaction, at most [`super::TRIGGER_MAX`].
    pub scan_trigger: u16,
    /// The sliding window in which they count.
    pub scan_window: Duration,
    /// Addresses of this host at which a source may probe the same port, or that it may ping, without
    /// a reaction; at most [`super::SWEEP_TRIGGER_MAX`].
    pub sweep_trigger: u16,
    /// Timeout of a proven source's block; `None`: until it is unblocked.
    pub timeout: Option<Duration>,
    /// How further blocks of a proven source become longer.
    pub escalate: Escalate,
    /// How IPv6 sources are counted and blocked.
    pub ipv6: Ipv6Accounts,
    /// How to treat sources whose address may be spoofed.
    pub unproven: Unproven,
    /// What happens to the network of a campaign.
    pub campaign: CampaignAction,
    /// Maximum number of blocks.
    pub total: u32,
    /// Allowed networks, from the configuration and the ignore file.
    pub allow: AllowList,
    /// The rules count ports and hold sources too.
    pub reflex: bool,
    /// Maximum number of accounts; see [`super::CAPACITY`].
    pub capacity: u32,
}

impl Policy {
    /// The policy of a configuration. The caller adds the ignore file's networks to `allow`.
    pub fn from_config(config: &Config) -> Self {
        Self {
            mode: config.mode,
            tcp: config.tcp.action,
            udp: config.udp.action,
            unwatched: config.unwatched,
            scan_trigger: config.scan_trigger,
            scan_window: config.scan_window,
            sweep_trigger: config.sweep_trigger,
            timeout: config.block.timeout,
            escalate: config.block.escalate.clone(),
            ipv6: config.block.ipv6,
            unproven: config.block.unproven.clone(),
            campaign: config.campaign.action,
            total: config.block.total,
            allow: config.allowed_networks().collect(),
            reflex: config.has_reflex(&config.tcp) || config.has_reflex(&config.udp),
            capacity: CAPACITY,
        }
    }

    /// The account that an address belongs to first.
    #[inline]
    pub fn account(&self, address: IpAddr) -> Source {
        Source::of(address, self.ipv6.first)
    }

    /// The account that it shares with its neighbours; `None` if there is none.
    #[inline]
    pub fn prefix(&self, address: IpAddr) -> Option<Source> {
        if address.is_ipv4() {
            return None;
        }
        Source::of(address, self.ipv6.prefix()?).to_prefix()
    }

    /// The accounts that an address belongs to, the first one first.
    pub fn accounts(&self, address: IpAddr) -> impl Iterator<Item = Source> + use<> {
        std::iter::once(self.account(address)).chain(self.prefix(address))
    }

    /// Whether a source is an account: an IPv4 or NAT64 address, or an IPv6 prefix of a configured
    /// length.
    pub fn is_account(&self, source: Source) -> bool {
        self.accounts(source.addr()).any(|account| account == source)
    }

    /// Whether the rules can slow a single host behind a NAT64 translator.
    pub(super) fn slows_nat64(&self) -> bool {
        self.ipv6.first == 128
    }

    /// The triggers of an account that `account` or `prefix` returned.
    pub(super) fn triggers_of(&self, account: Source) -> Triggers {
        if self.prefix(account.addr()) == Some(account) {
            self.prefix_triggers()
        } else {
            self.triggers()
        }
    }

    /// The triggers of an address's first account.
    pub(super) fn triggers(&self) -> Triggers {
        Triggers { scan: self.trigger(), proof: self.trigger() }
    }

    /// The triggers of a prefix, which leave room for [`Self::prefix_share`].
    pub(super) fn prefix_triggers(&self) -> Triggers {
        let scan = self.trigger().max(2);
        Triggers { scan, proof: scan.max(PREFIX_HANDSHAKES) }
    }

    /// The ports of one account that count for its prefix: two accounts, with half of the trigger
    /// each, never pass it together, and a forged address alone never does.
    pub(super) fn prefix_share(&self) -> u16 {
        self.prefix_triggers().scan / 2
    }

    /// Whether unproven sources are slowed.
    pub(super) fn slows(&self) -> bool {
        self.mode == Mode::Enforce && self.unproven.action == UnprovenAction::Slow
    }

    /// Whether unproven sources are blocked.
    pub(super) fn blocks_unproven(&self) -> bool {
        self.mode == Mode::Enforce && self.unproven.action == UnprovenAction::Block
    }

    /// Whether networks of campaigns are slowed or blocked.
    pub(super) fn holds_campaigns(&self) -> bool {
        self.mode == Mode::Enforce && self.campaign != CampaignAction::Report
    }

    /// The effective trigger.
    pub(super) fn trigger(&self) -> u16 {
        self.scan_trigger.min(TRIGGER_MAX)
    }

    pub(super) fn shape(&self) -> Shape {
        // A window of zero would forget every port at once.
        let window = u64::try_from(self.scan_window.as_millis()).unwrap_or(u64::MAX).max(1);
        Shape { capacity: self.capacity, trigger: self.trigger(), window, ipv6: self.ipv6 }
    }

    pub(super) fn action(&self, transport: Transport) -> ProtocolAction {
        match transport {
            Transport::Udp => self.udp,
            Transport::Tcp | Transport::Sctp | Transport::Ip => self.tcp,
        }
    }

    /// The transports whose ports count toward a block.
    pub(super) fn counted(&self) -> Counted {
        let all = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip];
        Counted(
            all.into_iter()
                .filter(|transport| self.action(*transport) == ProtocolAction::Block)
                .fold(0, |bits, of| bits | 1 << of as u8),
        )
    }

    /// Why scans over this transport are only reported.
    pub(super) fn report_only(&self, transport: Transport) -> NotBlocked {
        match (transport, self.action(transport)) {
            (Transport::Udp, ProtocolAction::Command) => NotBlocked::UdpCommand,
            (Transport::Udp, _) => NotBlocked::UdpLog,
            (_, ProtocolAction::Command) => NotBlocked::TcpCommand,
            (_, _) => NotBlocked::TcpLog,
        }
    }

    /// The timeout of a proven source's `nth` block, counted from 0.
    pub(super) fn escalated(&self, nth: u32) -> Option<Duration> {
        let timeout = self.timeout?;
        // After 32 doublings every factor has reached its maximum; a factor of 1 stays 1.
        let factor = self.escalate.factor.max(1).saturating_pow(nth.min(32));
        Some(timeout.saturating_mul(factor).min(self.escalate.max.max(timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_blocks_are_longer_up_to_the_maximum() {
        let policy = Policy::from_config(&Config::default());
        let hours: Vec<u64> =
            (0..6).map(|nth| policy.escalated(nth).unwrap().as_secs() / 3600).collect();
        assert_eq!(hours, [1, 4, 16, 64, 168, 168]);
        assert_eq!(policy.escalated(u32::MAX).unwrap().as_secs() / 3600, 168);
        assert_eq!(Policy { timeout: None, ..policy }.escalated(3), None);
    }

    // P3
    #[test]
    fn udp_scans_are_only_reported_by_default() {
        let policy = Policy::from_config(&Config::default());
        assert!(
            policy.counted().holds(Transport::Tcp)
                && policy.counted().holds(Transport::Sctp)
                && policy.counted().holds(Transport::Ip)
        );
        assert!(!policy.counted().holds(Transport::Udp));
        assert_eq!(policy.report_only(Transport::Udp).text(), "udp.action is log");
    }
}
