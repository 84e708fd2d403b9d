//! The selectors and sets of each IP version, so that a rule for both is written once.

use super::sets::SetId;
use super::statements::rule;
use crate::nft::model::{Rule, Selector, Statement};

/// The selectors and sets of one IP version.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// What is counted and slowed: the address, or the IPv6 prefix.
    pub(super) source: Selector,
    pub(super) address: Selector,
    pub(super) destination: Selector,
    pub(super) allowed: SetId,
    pub(super) seen: SetId,
    pub(super) score: SetId,
    pub(super) suspect: SetId,
    pub(super) held: SetId,
    pub(super) spared: SetId,
    pub(super) young: SetId,
    pub(super) asked: SetId,
    pub(super) answered: SetId,
    pub(super) probed: SetId,
    pub(super) paced: SetId,
    pub(super) recent: SetId,
    pub(super) tally: SetId,
    pub(super) far: SetId,
    pub(super) patient: SetId,
    pub(super) blind: SetId,
    pub(super) pinged: SetId,
    pub(super) unproven: SetId,
    pub(super) completed: SetId,
    pub(super) known: SetId,
    pub(super) slack: SetId,
    pub(super) excused: SetId,
    pub(super) passed: SetId,
    pub(super) packets: SetId,
    pub(super) drops: SetId,
    pub(super) blocked_packets: SetId,
    /// Protocol and type of an echo request (RFC 792; RFC 4443, 4.1).
    pub(super) echo_request: (u8, u32),
}

impl Family {
    /// Both; `prefix`: the bits of an IPv6 source.
    pub(super) fn both(prefix: u8) -> [Self; 2] {
        [
            Self {
                source: Selector::Ip4Saddr,
                address: Selector::Ip4Saddr,
                destination: Selector::Ip4Daddr,
                allowed: SetId::Allowed4,
                seen: SetId::Seen4,
                score: SetId::Score4,
                suspect: SetId::Suspect4,
                held: SetId::Held4,
                spared: SetId::Spared4,
                young: SetId::Young4,
                asked: SetId::Asked4,
                answered: SetId::Answered4,
                probed: SetId::Probed4,
                paced: SetId::Paced4,
                recent: SetId::Recent4,
                tally: SetId::Tally4,
                far: SetId::Far4,
                patient: SetId::Patient4,
                blind: SetId::Blind4,
                pinged: SetId::Pinged4,
                unproven: SetId::Unproven4,
                completed: SetId::Completed4,
                known: SetId::Known4,
                slack: SetId::Slack4,
                excused: SetId::Excused4,
                passed: SetId::Passed4,
                packets: SetId::Packets4,
                drops: SetId::Drops4,
                blocked_packets: SetId::BlockedPackets4,
                echo_request: (1, 8),
            },
            Self {
                source: Selector::Ip6SaddrPrefix(prefix),
                address: Selector::Ip6Saddr,
                destination: Selector::Ip6Daddr,
                allowed: SetId::Allowed6,
                seen: SetId::Seen6,
                score: SetId::Score6,
                suspect: SetId::Suspect6,
                held: SetId::Held6,
                spared: SetId::Spared6,
                young: SetId::Young6,
                asked: SetId::Asked6,
                answered: SetId::Answered6,
                probed: SetId::Probed6,
                paced: SetId::Paced6,
                recent: SetId::Recent6,
                tally: SetId::Tally6,
                far: SetId::Far6,
                patient: SetId::Patient6,
                blind: SetId::Blind6,
                pinged: SetId::Pinged6,
                unproven: SetId::Unproven6,
                completed: SetId::Completed6,
                known: SetId::Known6,
                slack: SetId::Slack6,
                excused: SetId::Excused6,
                passed: SetId::Passed6,
                packets: SetId::Packets6,
                drops: SetId::Drops6,
                blocked_packets: SetId::BlockedPackets6,
                echo_request: (58, 128),
            },
        ]
    }

    /// IPv6 prefixes of `bits` bits, each slowed as a whole.
    pub(super) fn prefixes(bits: u8) -> Self {
        let [_, addresses] = Self::both(bits);
        Self {
            held: SetId::HeldNets6,
            packets: SetId::PacketsNets6,
            drops: SetId::DropsNets6,
            ..addresses
        }
    }

    /// The networks of campaigns, each treated as one source: by /24, /56 and /48.
    pub(super) fn campaigns() -> [Self; 3] {
        let [four, six] = Self::both(56);
        let [_, wide] = Self::both(48);
        let of = |set, family: Self| Self { held: set, unproven: set, ..family };
        [
            Self { source: Selector::Ip4SaddrPrefix(24), ..of(SetId::Campaigns4, four) },
            of(SetId::Campaigns6, six),
            of(SetId::Campaigns6Wide, wide),
        ]
    }

    /// The same selectors of packets to a source.
    pub(super) fn of_answers(self) -> Self {
        let source = match self.source {
            Selector::Ip4SaddrPrefix(bits) => Selector::Ip4DaddrPrefix(bits),
            Selector::Ip6SaddrPrefix(bits) => Selector::Ip6DaddrPrefix(bits),
            _ => self.destination,
        };
        Self { source, address: self.destination, destination: self.address, ..self }
    }

    /// A port of a source, in a packet to it.
    pub(super) fn port_of_answer(self) -> Vec<Selector> {
        vec![self.of_answers().source, Selector::L4Proto, Selector::ThSport]
    }

    /// A port of a source.
    pub(super) fn port(self) -> Vec<Selector> {
        vec![self.source, Selector::L4Proto, Selector::ThDport]
    }

    /// Addresses and ports of a TCP connection.
    pub(super) fn connection(self) -> Vec<Selector> {
        vec![self.address, self.destination, Selector::TcpSport, Selector::TcpDport]
    }
}

/// A rule for each; the first has the reason.
pub(super) fn each(
    families: impl IntoIterator<Item = Family>,
    why: &'static str,
    statements: impl Fn(Family) -> Vec<Statement>,
) -> Vec<Rule> {
    let whys = std::iter::once(why).chain(std::iter::repeat(""));
    whys.zip(families).map(|(why, family)| rule(why, statements(family))).collect()
}
