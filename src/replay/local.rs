//! Which addresses are this host's: those that were given, or a guess.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::capture::files::link::Cast;
use crate::engine::AllowList;
use crate::wire::{self, Packet, Transport, tcp::Flags};

/// Addresses that are considered for a guess. Later ones are not: a host that is scanned appears
/// early among the sources of a flood.
pub(super) const CANDIDATES_MAX: usize = 65_536;

/// The addresses of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Locals(AllowList);

impl Locals {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether it is the broadcast or network address of a given network, which no host has.
    pub(super) fn is_group(&self, address: IpAddr) -> bool {
        self.0.networks().iter().any(|network| match network {
            IpNet::V4(network) => {
                network.prefix_len() <= 30
                    && (IpAddr::V4(network.network()) == address
                        || IpAddr::V4(network.broadcast()) == address)
            }
            IpNet::V6(_) => false,
        })
    }

    /// All of them, as a list of what is never blocked.
    pub(super) fn list(&self) -> &AllowList {
        &self.0
    }
}

/// What a capture shows of an address.
#[derive(Debug, Clone, Copy, Default)]
struct Candidate {
    /// A bit for each destination port of what was opened towards it, by a hash.
    ports: u128,
    /// What was opened towards it.
    openings: u32,
    /// What of that it has accepted.
    accepted: u32,
    /// Datagrams that it has refused.
    refused: u32,
    /// Packets towards it.
    received: u32,
    has_sent: bool,
    /// Frames that the capture says were for this host, or were sent by it.
    own: u32,
}

impl Candidate {
    /// How well it is the host that was watched: by the capture's own word first, then as the
    /// destination of what was opened to many ports, and was refused or not answered.
    fn rank(&self) -> (bool, u32, u32, u32, u32) {
        let unanswered = self.openings.saturating_sub(self.accepted) + self.refused;
        let ports = if unanswered > 0 { self.ports.count_ones() } else { 0 };
        (self.own > 0, ports, unanswered, self.openings, self.received)
    }
}

/// Counts what a guess needs.
#[derive(Debug, Default)]
pub(super) struct Guess {
    candidates: HashMap<IpAddr, Candidate>,
}

/// Whether an address may be one host's.
fn is_host(address: IpAddr) -> bool {
    let is_group = match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unspecified(),
    };
    !is_group && !address.is_loopback()
}

/// Whether it is likely the broadcast address of a network.
fn is_like_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets().last() == Some(&255))
}

impl Guess {
    fn note(&mut self, address: IpAddr, change: impl FnOnce(&mut Candidate)) {
        if !is_host(address) {
            return;
        }
        if self.candidates.len() < CANDIDATES_MAX || self.candidates.contains_key(&address) {
            change(self.candidates.entry(address).or_default());
        }
    }

    pub(super) fn see(&mut self, cast: Cast, packet: &Packet<'_>) {
        let Packet { source, destination, transport, .. } = *packet;
        let port = |number: u16| 1u128 << (u32::from(number).wrapping_mul(0x9e37_79b1) >> 25);
        match cast {
            Cast::Group | Cast::Other => return,
            Cast::Outgoing => self.note(source, |own| own.own += 1),
            Cast::ThisHost => self.note(destination, |own| own.own += 1),
            Cast::Host => {}
        }
        self.note(source, |host| host.has_sent = true);
        let opened = match transport {
            Transport::Tcp(segment) => {
                if segment.flags.contains(Flags::SYN.with(Flags::ACK)) {
                    self.note(source, |server| server.accepted = server.accepted.saturating_add(1));
                    return;
                }
                let is_opening =
                    !segment.flags.contains(Flags::ACK) && !segment.flags.contains(Flags::RST);
                is_opening.then_some(segment.destination_port)
            }
            Transport::Sctp(message) if message.chunk == Some(wire::sctp::INIT) => {
                Some(message.destination_port)
            }
            // The destination of what it quotes is the host that refuses.
            Transport::Icmp(message) => return self.refusal(source, message.quoted_v4()),
            Transport::Icmp6(message) => return self.refusal(source, message.quoted_v6()),
            _ => None,
        };
        self.note(destination, |target| {
            target.received = target.received.saturating_add(1);
            if let Some(number) = opened {
                target.openings = target.openings.saturating_add(1);
                target.ports |= port(number);
            }
        });
    }

    fn refusal(&mut self, by: IpAddr, quoted: Option<wire::icmp::Quoted>) {
        let Some(quoted) = quoted.filter(|quoted| quoted.destination == by) else { return };
        let number = quoted.ports.map_or(u16::from(quoted.protocol), |(_, to)| to);
        self.note(by, |host| {
            host.refused = host.refused.saturating_add(1);
            host.ports |= 1u128 << (u32::from(number).wrapping_mul(0x9e37_79b1) >> 25);
        });
    }

    /// The likeliest address of each IP version.
    pub(super) fn locals(&self) -> Locals {
        let best = |is_v4: bool| {
            let candidates = self.candidates.iter().filter(|(at, seen)| {
                at.is_ipv4() == is_v4 && (seen.has_sent || !is_like_broadcast(**at))
            });
            // Of equal ones the lowest, so that each run chooses the same.
            candidates.max_by_key(|(at, seen)| (seen.rank(), std::cmp::Reverse(**at)))
        };
        let found = [best(true), best(false)].into_iter().flatten();
        Locals::new(found.map(|(address, _)| IpNet::from(*address)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_networks_are_found_by_their_addresses() {
        let networks = ["192.0.2.0/24", "192.0.2.7/32", "10.0.0.1/32", "2001:db8::/64"];
        let locals = Locals::new(networks.iter().map(|text| text.parse().unwrap()).collect());
        for (address, is_local, is_group) in [
            ("192.0.2.0", true, true),
            ("192.0.2.1", true, false),
            ("192.0.2.255", true, true),
            ("192.0.3.0", false, false),
            ("10.0.0.1", true, false),
            ("10.0.0.2", false, false),
            ("9.255.255.255", false, false),
            ("2001:db8::1", true, false),
            ("2001:db8:0:1::", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(locals.contains(address), is_local, "{address}");
            assert_eq!(locals.is_group(address), is_group, "{address}");
        }
        assert!(!Locals::default().contains([192, 0, 2, 1].into()));
    }
}
