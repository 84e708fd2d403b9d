//! Packets to this host that no connection, no socket and no exception explains are probes.

use super::exempt::{EXEMPT, allowed_to};
use super::segments::STRANGE;
use super::statements::{
    PROBE, accept, back, base_chain, chain, drop, goto, has_socket, is, is_from_unspecified, is_in,
    is_not, is_not_in, is_protocol, jump, live_connections, rule,
};
use super::{Builder, OPEN, SCTP_PROBE, SetId, TCP_PROBE, UDP_PROBE, WATCH_PRIORITY};
use crate::config::{Mode, PortSet};
use crate::nft::model::{
    Chain, Hook, PACKET_HOST, RTN_ANYCAST, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST,
    Rule, Selector, Statement, protocol,
};

const NOT_LOCAL: &str = "not_local";
pub(super) const SPOOFED: &str = "spoofed";

/// Types of addresses that more than one host has.
const GROUPS: [u32; 3] = [RTN_BROADCAST, RTN_MULTICAST, RTN_ANYCAST];
/// Types of addresses from which no packet comes over the wire.
pub(super) const NO_SOURCES: [u32; 4] = [RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST, RTN_ANYCAST];

impl Builder<'_> {
    /// What becomes of a packet whose source address is forged.
    fn forged(&self) -> Statement {
        match self.config.mode {
            Mode::Enforce => drop(),
            Mode::Observe => accept(),
        }
    }

    /// The routing lookup of a rule asks no table of a VRF. There, addresses of this host and of its
    /// neighbours look like any others.
    pub(super) fn group_and_spoofed(&self) -> [Chain; 2] {
        let why = "broadcast, multicast, anycast; others are addresses in a VRF";
        let groups = of_types(why, Selector::FibDaddrType, &GROUPS, &accept());
        let why =
            "an own, broadcast, multicast or anycast address from the wire; others are in a VRF";
        let spoofed = of_types(why, Selector::FibSaddrType, &NO_SOURCES, &self.forged());
        [chain(NOT_LOCAL, groups), chain(SPOOFED, spoofed)]
    }

    pub(super) fn watch(&self) -> Chain {
        let mut rules = self.not_watched();
        rules.extend(self.count_slowed());
        rules.extend(self.completions(Self::of_service()));
        rules.extend([
            live_connections(),
            rule(
                "frames for several hosts: the kernel discards all but datagrams",
                [
                    is_not(Selector::L4Proto, protocol::UDP.into()),
                    is_not(Selector::PktType, PACKET_HOST),
                    back(),
                ],
            ),
            rule(
                "a real broadcast or multicast; in a VRF its address looks like any other",
                [
                    is_not(Selector::PktType, PACKET_HOST),
                    is_not(Selector::FibDaddrType, RTN_LOCAL),
                    back(),
                ],
            ),
            rule(
                "no address of this host by the main routing tables",
                [is_not(Selector::FibDaddrType, RTN_LOCAL), jump(NOT_LOCAL)],
            ),
        ]);
        let end = if self.watches() { goto(EXEMPT) } else { back() };
        let why = "over these interfaces nothing is slowed or blocked, only reported";
        rules.extend(self.over_allowed(why, [end]));
        if self.enforces() {
            rules.extend(self.unproven());
        }
        if !self.watches() {
            return base_chain("watch", Hook::Input, WATCH_PRIORITY, rules);
        }
        if self.holds() {
            rules.extend(self.slow_echo());
        }
        rules.extend(self.pings());
        rules.extend([rule(
            "protocols that are never a probe; ICMP is among them and never dropped",
            [is_in(Selector::L4Proto, SetId::Protocols), back()],
        )]);
        if self.has_silent() {
            let each = [
                ("networks of which nothing is reported", Selector::Ip4Saddr, SetId::Silent4),
                ("", Selector::Ip6Saddr, SetId::Silent6),
            ];
            rules.extend(each.map(|(why, source, set)| rule(why, [is_in(source, set), back()])));
        }
        rules.extend(allowed_to("what is never blocked, only reported", EXEMPT));
        for (_, selector, ports) in self.decoy_ports() {
            rules.push(rule(
                "a packet for a decoy, which is not remembered as a service",
                [is_in(selector, ports), is(Selector::SocketTransparent, 1), back()],
            ));
        }
        if !self.tcp.is_empty() {
            rules.extend(self.strange_to_services(STRANGE));
        }
        rules.push(rule(
            "a socket accepts the packet (listening, connected or in TIME_WAIT), so it is no probe; transparent has no value without a socket",
            [is_protocol(protocol::TCP), has_socket(), goto(OPEN)],
        ));
        rules.push(rule("", [is_protocol(protocol::UDP), has_socket(), goto(OPEN)]));
        rules.extend([
            rule(
                "no host's address by the main routing tables",
                [is_not(Selector::FibSaddrType, RTN_UNICAST), jump(SPOOFED)],
            ),
            rule(
                "the unspecified address, which the routing lookup does not reject",
                [is_from_unspecified(), self.forged()],
            ),
        ]);
        let [tcp, udp, sctp, other] = self.by_transport(PROBE);
        rules.extend([tcp, udp, sctp]);
        if self.slows() && self.config.drops_probes() {
            rules.extend(self.count_drops("of a slowed source: counted as dropped"));
        }
        rules.push(other);
        base_chain("watch", Hook::Input, WATCH_PRIORITY, rules)
    }

    /// Packets that no socket accepts; those of protocols without ports go to `other`.
    pub(super) fn by_transport(&self, other: &'static str) -> [Rule; 4] {
        let to = |ports: &PortSet, chain| if ports.is_empty() { back() } else { goto(chain) };
        let (tcp, udp) = (to(&self.tcp, TCP_PROBE), to(&self.udp, UDP_PROBE));
        let why = "no socket accepts the remaining packets";
        [
            rule(why, [is_protocol(protocol::TCP), tcp]),
            rule("", [is_protocol(protocol::UDP), udp]),
            rule("", [is_protocol(protocol::SCTP), to(&self.tcp, SCTP_PROBE)]),
            rule(
                "IP protocols that are not in use here",
                [is_not_in(Selector::L4Proto, SetId::Protocols), goto(other)],
            ),
        ]
    }
}

/// A rule for each of these types of addresses.
pub(super) fn of_types(
    why: &'static str,
    selector: Selector,
    types: &[u32],
    verdict: &Statement,
) -> Vec<Rule> {
    let whys = std::iter::once(why).chain(std::iter::repeat(""));
    let rule_for = |(why, kind): (_, &u32)| rule(why, [is(selector, *kind), verdict.clone()]);
    whys.zip(types).map(rule_for).collect()
}
