//! The sets of our table and the types of their keys.

use std::net::IpAddr;

use crate::nft::{DataType, Schema, SetSpec, Table};

/// The table `inet portsentry` and its sets.
pub const SCHEMA: Schema = Schema { table: Table { name: "portsentry" }, sets: &SPECS };

/// The sets that the table may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetId {
    /// Blocked IPv4 hosts.
    Blocked4,
    /// Blocked IPv6 hosts: sources of `block.ipv6.first` bits, by their first address.
    Blocked6,
    /// Blocked IPv4 hosts that are not proven: only their new connections are dropped.
    Unproven4,
    /// The same for IPv6 prefixes.
    Unproven6,
    /// Blocked IPv4 networks.
    BlockedNets4,
    /// Blocked IPv6 networks, prefixes of several addresses that scanned among them.
    BlockedNets6,
    /// IPv4 networks that are never blocked.
    Allowed4,
    /// IPv6 networks that are never blocked.
    Allowed6,
    /// IPv4 networks of which nothing is looked at.
    Silent4,
    /// The same for IPv6.
    Silent6,
    /// Watched TCP (and SCTP) ports.
    TcpPorts,
    /// Watched UDP ports.
    UdpPorts,
    /// IP protocols other than TCP, UDP and SCTP that a host may speak.
    Protocols,
    /// Watched interfaces.
    Interfaces,
    /// Interfaces over which nothing is slowed or blocked.
    AllowedInterfaces,
    /// Of these, those on which nothing is looked at.
    SilentInterfaces,
    /// (protocol, port) pairs that a local service received lately.
    Services,
    /// (IPv4 source, protocol, port) that was probed lately: a port counts once.
    Seen4,
    /// The same for IPv6 sources of `block.ipv6.first` bits, by their first address.
    Seen6,
    /// How many distinct ports a source probed. Its elements carry a limit: a lookup would spend a
    /// token of it, so no rule looks here.
    Score4,
    /// The same for IPv6.
    Score6,
    /// Sources that probed a closed port lately.
    Suspect4,
    /// The same for IPv6.
    Suspect6,
    /// Sources that are held until the daemon has decided, or the timeout ends.
    Held4,
    /// The same for IPv6.
    Held6,
    /// Slowed IPv6 prefixes of `block.ipv6.then` bits, by their first address.
    HeldNets6,
    /// IPv4 networks that are logged and never held: those exempt without being on the
    /// administrator's list.
    Spared4,
    /// The same for IPv6: sources that contain an address which is never blocked.
    Spared6,
    /// A slowed IPv4 source's connection (source, destination, ports) whose SYN came a moment ago.
    Young4,
    /// The same for IPv6.
    Young6,
    /// The same, whose SYN came before.
    Asked4,
    /// The same for IPv6.
    Asked6,
    /// (slowed IPv4 source, protocol, port): probes of it are answered, as a closed port would.
    Answered4,
    /// The same for IPv6.
    Answered6,
    /// (slowed IPv4 source, protocol, port) that it probed, answered or not.
    Probed4,
    /// The same for IPv6.
    Probed6,
    /// Slowed IPv4 sources with a limit; never looked up.
    Paced4,
    /// The same for IPv6.
    Paced6,
    /// A slowed IPv4 source's connection whose SYN came before, too lately for a source far past the
    /// trigger.
    Recent4,
    /// The same for IPv6.
    Recent6,
    /// How many ports a slowed IPv4 source probed, by a limit; never looked up.
    Tally4,
    /// The same for IPv6.
    Tally6,
    /// Slowed IPv4 sources far past the trigger.
    Far4,
    /// The same for IPv6.
    Far6,
    /// Slowed IPv4 sources that retransmitted to a silent port.
    Patient4,
    /// The same for IPv6.
    Patient6,
    /// Slowed IPv4 sources that retransmitted to an answered port.
    Blind4,
    /// The same for IPv6.
    Blind6,
    /// How many connections to services an IPv4 source completed, by a limit; never looked up.
    Completed4,
    /// The same for IPv6 prefixes of `block.ipv6.then` bits, by their first address.
    Completed6,
    /// IPv4 sources that completed some connections lately.
    Known4,
    /// The same for IPv6 prefixes.
    Known6,
    /// How many closed ports of a known IPv4 source still do not count, by a limit; never looked up.
    Slack4,
    /// The same for IPv6 prefixes.
    Slack6,
    /// (known IPv4 source, protocol, port) that does not count.
    Excused4,
    /// The same for IPv6 prefixes.
    Excused6,
    /// Slowed IPv4 sources whose SYNs found no room in the sets, with a limit; never looked up.
    Passed4,
    /// The same for IPv6.
    Passed6,
    /// Slowed IPv4 sources with a counter of their packets, of which the dropped ones count twice.
    Packets4,
    /// The same for IPv6.
    Packets6,
    /// The same for slowed prefixes.
    PacketsNets6,
    /// Slowed IPv4 sources with a counter of their packets that were dropped.
    Drops4,
    /// The same for IPv6.
    Drops6,
    /// The same for slowed prefixes.
    DropsNets6,
    /// Blocked IPv4 hosts with a counter of their packets, all of them dropped.
    BlockedPackets4,
    /// The same for IPv6 accounts.
    BlockedPackets6,
    /// (IPv4 source, address of this host) that it pinged lately: each is logged once.
    Pinged4,
    /// The same for IPv6.
    Pinged6,
    /// IPv4 /24 networks of campaigns, by their first address.
    Campaigns4,
    /// IPv6 /56 networks of campaigns.
    Campaigns6,
    /// IPv6 /48 networks of campaigns.
    Campaigns6Wide,
}

impl SetId {
    /// Every set, in the order of the variants.
    pub const ALL: [Self; 71] = [
        Self::Blocked4,
        Self::Blocked6,
        Self::Unproven4,
        Self::Unproven6,
        Self::BlockedNets4,
        Self::BlockedNets6,
        Self::Allowed4,
        Self::Allowed6,
        Self::Silent4,
        Self::Silent6,
        Self::TcpPorts,
        Self::UdpPorts,
        Self::Protocols,
        Self::Interfaces,
        Self::AllowedInterfaces,
        Self::SilentInterfaces,
        Self::Services,
        Self::Seen4,
        Self::Seen6,
        Self::Score4,
        Self::Score6,
        Self::Suspect4,
        Self::Suspect6,
        Self::Held4,
        Self::Held6,
        Self::HeldNets6,
        Self::Spared4,
        Self::Spared6,
        Self::Young4,
        Self::Young6,
        Self::Asked4,
        Self::Asked6,
        Self::Answered4,
        Self::Answered6,
        Self::Probed4,
        Self::Probed6,
        Self::Paced4,
        Self::Paced6,
        Self::Recent4,
        Self::Recent6,
        Self::Tally4,
        Self::Tally6,
        Self::Far4,
        Self::Far6,
        Self::Patient4,
        Self::Patient6,
        Self::Blind4,
        Self::Blind6,
        Self::Completed4,
        Self::Completed6,
        Self::Known4,
        Self::Known6,
        Self::Slack4,
        Self::Slack6,
        Self::Excused4,
        Self::Excused6,
        Self::Passed4,
        Self::Passed6,
        Self::Packets4,
        Self::Packets6,
        Self::PacketsNets6,
        Self::Drops4,
        Self::Drops6,
        Self::DropsNets6,
        Self::BlockedPackets4,
        Self::BlockedPackets6,
        Self::Pinged4,
        Self::Pinged6,
        Self::Campaigns4,
        Self::Campaigns6,
        Self::Campaigns6Wide,
    ];

    /// Its name, its key and how its elements are handled.
    pub const fn spec(self) -> SetSpec {
        use DataType::{IfName, InetProto, InetService, Ipv4Addr, Ipv6Addr};
        const IP4: &[DataType] = &[Ipv4Addr];
        const IP6: &[DataType] = &[Ipv6Addr];
        const PORT4: &[DataType] = &[Ipv4Addr, InetProto, InetService];
        const PORT6: &[DataType] = &[Ipv6Addr, InetProto, InetService];
        const CONNECTION4: &[DataType] = &[Ipv4Addr, Ipv4Addr, InetService, InetService];
        const CONNECTION6: &[DataType] = &[Ipv6Addr, Ipv6Addr, InetService, InetService];
        const PAIR4: &[DataType] = &[Ipv4Addr, Ipv4Addr];
        const PAIR6: &[DataType] = &[Ipv6Addr, Ipv6Addr];
        match self {
            Self::Blocked4 => SetSpec::new("blocked4", IP4),
            Self::Blocked6 => SetSpec::new("blocked6", IP6),
            Self::Unproven4 => SetSpec::new("unproven4", IP4),
            Self::Unproven6 => SetSpec::new("unproven6", IP6),
            Self::BlockedNets4 => SetSpec::new("blocked_nets4", IP4).interval(),
            Self::BlockedNets6 => SetSpec::new("blocked_nets6", IP6).interval(),
            Self::Allowed4 => SetSpec::new("allowed4", IP4).interval(),
            Self::Allowed6 => SetSpec::new("allowed6", IP6).interval(),
            Self::Silent4 => SetSpec::new("silent4", IP4).interval(),
            Self::Silent6 => SetSpec::new("silent6", IP6).interval(),
            Self::TcpPorts => SetSpec::new("tcp_ports", &[InetService]).interval(),
            Self::UdpPorts => SetSpec::new("udp_ports", &[InetService]).interval(),
            Self::Protocols => SetSpec::new("protocols", &[InetProto]),
            Self::Interfaces => SetSpec::new("interfaces", &[IfName]),
            Self::AllowedInterfaces => SetSpec::new("allowed_interfaces", &[IfName]),
            Self::SilentInterfaces => SetSpec::new("silent_interfaces", &[IfName]),
            Self::Services => SetSpec::new("services", &[InetProto, InetService]),
            Self::Seen4 => SetSpec::new("seen4", PORT4).transient(),
            Self::Seen6 => SetSpec::new("seen6", PORT6).transient(),
            Self::Score4 => SetSpec::new("score4", IP4).transient(),
            Self::Score6 => SetSpec::new("score6", IP6).transient(),
            Self::Suspect4 => SetSpec::new("suspect4", IP4).transient(),
            Self::Suspect6 => SetSpec::new("suspect6", IP6).transient(),
            Self::Held4 => SetSpec::new("held4", IP4).transient(),
            Self::Held6 => SetSpec::new("held6", IP6).transient(),
            Self::HeldNets6 => SetSpec::new("held_nets6", IP6).transient(),
            Self::Spared4 => SetSpec::new("spared4", IP4).interval(),
            Self::Spared6 => SetSpec::new("spared6", IP6).interval(),
            Self::Young4 => SetSpec::new("young4", CONNECTION4).transient(),
            Self::Young6 => SetSpec::new("young6", CONNECTION6).transient(),
            Self::Asked4 => SetSpec::new("asked4", CONNECTION4).transient(),
            Self::Asked6 => SetSpec::new("asked6", CONNECTION6).transient(),
            Self::Answered4 => SetSpec::new("answered4", PORT4).transient(),
            Self::Answered6 => SetSpec::new("answered6", PORT6).transient(),
            Self::Probed4 => SetSpec::new("probed4", PORT4).transient(),
            Self::Probed6 => SetSpec::new("probed6", PORT6).transient(),
            Self::Paced4 => SetSpec::new("paced4", IP4).transient(),
            Self::Paced6 => SetSpec::new("paced6", IP6).transient(),
            Self::Recent4 => SetSpec::new("recent4", CONNECTION4).transient(),
            Self::Recent6 => SetSpec::new("recent6", CONNECTION6).transient(),
            Self::Tally4 => SetSpec::new("tally4", IP4).transient(),
            Self::Tally6 => SetSpec::new("tally6", IP6).transient(),
            Self::Far4 => SetSpec::new("far4", IP4).transient(),
            Self::Far6 => SetSpec::new("far6", IP6).transient(),
            Self::Patient4 => SetSpec::new("patient4", IP4).transient(),
            Self::Patient6 => SetSpec::new("patient6", IP6).transient(),
            Self::Blind4 => SetSpec::new("blind4", IP4).transient(),
            Self::Blind6 => SetSpec::new("blind6", IP6).transient(),
            Self::Completed4 => SetSpec::new("completed4", IP4).transient(),
            Self::Completed6 => SetSpec::new("completed6", IP6).transient(),
            Self::Known4 => SetSpec::new("known4", IP4).transient(),
            Self::Known6 => SetSpec::new("known6", IP6).transient(),
            Self::Slack4 => SetSpec::new("slack4", IP4).transient(),
            Self::Slack6 => SetSpec::new("slack6", IP6).transient(),
            Self::Excused4 => SetSpec::new("excused4", PORT4).transient(),
            Self::Excused6 => SetSpec::new("excused6", PORT6).transient(),
            Self::Passed4 => SetSpec::new("passed4", IP4).transient(),
            Self::Passed6 => SetSpec::new("passed6", IP6).transient(),
            Self::Packets4 => SetSpec::new("packets4", IP4).transient(),
            Self::Packets6 => SetSpec::new("packets6", IP6).transient(),
            Self::PacketsNets6 => SetSpec::new("packets_nets6", IP6).transient(),
            Self::Drops4 => SetSpec::new("drops4", IP4).transient(),
            Self::Drops6 => SetSpec::new("drops6", IP6).transient(),
            Self::DropsNets6 => SetSpec::new("drops_nets6", IP6).transient(),
            Self::BlockedPackets4 => SetSpec::new("blocked_packets4", IP4).transient(),
            Self::BlockedPackets6 => SetSpec::new("blocked_packets6", IP6).transient(),
            Self::Pinged4 => SetSpec::new("pinged4", PAIR4).transient(),
            Self::Pinged6 => SetSpec::new("pinged6", PAIR6).transient(),
            Self::Campaigns4 => SetSpec::new("campaigns4", IP4).transient(),
            Self::Campaigns6 => SetSpec::new("campaigns6", IP6).transient(),
            Self::Campaigns6Wide => SetSpec::new("campaigns6_wide", IP6).transient(),
        }
    }

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The set with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }

    /// The set of campaigns with a network of this length; `None`: there are none so long.
    pub(crate) const fn of_campaign(address: IpAddr, prefix_len: u8) -> Option<Self> {
        match (address, prefix_len) {
            (IpAddr::V4(_), 24) => Some(Self::Campaigns4),
            (IpAddr::V6(_), 56) => Some(Self::Campaigns6),
            (IpAddr::V6(_), 48) => Some(Self::Campaigns6Wide),
            _ => None,
        }
    }

    /// The set that this describes; `None` if it is not one of ours.
    pub fn of(spec: SetSpec) -> Option<Self> {
        Self::from_name(spec.name)
    }

    /// Whether the reflex or the rules for slowed sources decide by it: many short-lived elements, with
    /// limits that only rules can write.
    pub const fn is_reflex(self) -> bool {
        let is_clients = matches!(
            self,
            Self::Completed4
                | Self::Completed6
                | Self::Known4
                | Self::Known6
                | Self::Slack4
                | Self::Slack6
                | Self::Excused4
                | Self::Excused6
        );
        let is_figures = matches!(
            self,
            Self::Packets4
                | Self::Packets6
                | Self::PacketsNets6
                | Self::Drops4
                | Self::Drops6
                | Self::DropsNets6
                | Self::BlockedPackets4
                | Self::BlockedPackets6
        );
        self.spec().transient && !is_clients && !is_figures
    }

    /// Whether it holds ranges (flag `interval`).
    pub const fn is_interval(self) -> bool {
        self.spec().interval
    }
}

/// The description of every set.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const SPECS: [SetSpec; SetId::ALL.len()] = {
    let mut specs = [SetId::Blocked4.spec(); SetId::ALL.len()];
    let mut number = 0;
    while number < specs.len() {
        specs[number] = SetId::ALL[number].spec();
        number += 1;
    }
    specs
};

impl From<SetId> for SetSpec {
    fn from(id: SetId) -> Self {
        id.spec()
    }
}

impl PartialEq<SetId> for SetSpec {
    fn eq(&self, other: &SetId) -> bool {
        self.name == other.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_found_by_its_name() {
        for id in SetId::ALL {
            assert_eq!(
                (SetId::from_name(id.name()), SetId::of(id.spec()), SCHEMA.set(id.name())),
                (Some(id), Some(id), Some(id.spec()))
            );
        }
    }
}
