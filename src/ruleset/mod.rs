//! Our table: the sets, chains and rules for a configuration. Every rule has a comment that says
//! why it exists.
//!
//! * [`sets`]: the sets and their keys. `statements`: building blocks of rules.
//! * [`reflex`]: rules that count ports and hold sources. `decoy`: the rules of connect mode.
//! * `watch`: packets to this host; `exempt`: those of what is never blocked. `forward`: packets to
//!   other hosts. `pings`: echo requests.
//! * `known`: closed ports of clients that use services.
//! * `segments`: segments that open no connection. [`unwatched`]: ports that are not watched.
//! * [`slow`]: rules for slowed sources, `slow_segments` for what they send out of order to
//!   services; [`slowed_packets`] counts their packets. `unproven`: for
//!   blocked ones whose address may be forged. `campaign`: for the networks of campaigns.
//! * [`messages`]: messages about kernels that cannot run these rules.

mod blocked;
mod campaign;
mod decoy;
pub(crate) mod exempt;
mod family;
mod forward;
pub(crate) mod known;
pub(crate) mod messages;
pub(crate) mod pings;
pub(crate) mod reflex;
pub(crate) mod segments;
pub(crate) mod sets;
pub(crate) mod slow;
mod slow_segments;
pub(crate) mod slowed_packets;
mod statements;
mod unproven;
pub(crate) mod unwatched;
mod watch;

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::{
    Allowed, CampaignAction, ClosedPorts, Config, Ipv6Accounts, Mode, PortMode, PortSet,
    ProtocolAction,
};
use crate::nft::Key;
use crate::nft::element;
use crate::nft::model::{
    Chain, LOOPBACK_INDEX, Op, Operand, Owner, QueueBy, Rule, Ruleset, Selector, Set, Statement,
    tcp_flag,
};

use self::exempt::EXEMPT_PROBE;
use self::reflex::{REFLEX, Reflex, udp_not_counted};
use self::slow::{SLOW_DATAGRAM, SLOW_OTHER, SLOW_PROBE};
use self::statements::{
    LOG_PREFIX, PROBE, back, chain, drop, goto, is, is_in, is_invalid, is_not_in, log, matches,
    only_flags, opens, remember, rule, to_service, update,
};
use self::unproven::STILL;

pub use self::reflex::held_prefix;
pub use self::sets::{SCHEMA, SetId};

/// Before defragmentation (-400), raw (-300), conntrack (-200), and every chain of other tables.
const GATE_PRIORITY: i32 = -450;
/// `mangle - 5`: after destination NAT, before the filter chains of ufw, firewalld, iptables, so
/// that their drops hide no probe.
const WATCH_PRIORITY: i32 = -155;
/// IP and transport headers with all their options, and the first bytes of an SCTP chunk.
const SNAPLEN: u32 = 256;
/// Packets that the kernel may collect in one datagram. The lower of this and the group's own
/// threshold applies (nfnetlink_log.c, nfulnl_log_packet), so the daemon can choose less: one at a
/// time when it is quiet. 64 cost a fifth of single ones; more saves hardly anything and delays
/// them.
pub const QUEUE_THRESHOLD: u16 = 64;
/// How long a source counts as a suspect after a probe: its new connections wait for the daemon, so
/// that none overtakes the probe. The daemon needs microseconds, on a loaded machine with full
/// queues up to a second; a longer time only delays the owner of a spoofed address.
const SUSPECT_MEMORY: Duration = Duration::from_secs(5);
/// 50,000 spoofed sources a second for [`SUSPECT_MEMORY`], and expired ones that the kernel has not
/// removed yet. 82 bytes each: 33 MB of the kernel's memory in such a flood. Beyond that, a probe
/// still waits, but its source does not become a suspect.
const SUSPECTS_MAX: u32 = 400_000;
/// Packets to a service that restarts within this time are no probes.
pub(crate) const SERVICE_MEMORY: Duration = Duration::from_secs(86_400);
/// The kernel's default for sets that rules fill, made explicit. Beyond it, a service is not
/// remembered.
const SERVICES_MAX: u32 = 65_535;

/// IP protocols that a host may use without a socket that the rules could see: tunnels, routing
/// daemons, IPsec. TCP, UDP and SCTP have chains of their own. From IANA's assigned internet
/// protocol numbers.
pub(crate) const SOCKETLESS_PROTOCOLS: [u8; 29] = [
    1,   // ICMP
    2,   // IGMP
    4,   // IPv4 in IP
    33,  // DCCP
    41,  // IPv6 in IP
    46,  // RSVP
    47,  // GRE
    50,  // ESP
    51,  // AH
    55,  // minimal encapsulation
    58,  // ICMPv6
    59,  // IPv6 without a next header
    88,  // EIGRP
    89,  // OSPF
    94,  // IP within IP
    97,  // Ethernet within IP
    98,  // encapsulation header
    103, // PIM
    108, // IPComp
    112, // VRRP, CARP
    113, // PGM
    115, // L2TPv3
    124, // IS-IS over IPv4
    135, // mobility header
    136, // UDP-Lite
    137, // MPLS in IP
    139, // HIP
    140, // shim6
    143, // Ethernet (SRv6)
];

/// The comment of the sets of blocked hosts, in every version and configuration. A table of our name
/// without it is another program's: it must stay as it is.
pub const MARK: &str = "blocked hosts";

const DISCARDED: &str = "a wrong checksum: the kernel discards it";
const TELL: &str = "tell";
const OPEN: &str = "open";
const TCP_PROBE: &str = "tcp_probe";
const UDP_PROBE: &str = "udp_probe";
const SCTP_PROBE: &str = "sctp_probe";

/// What stays when the daemon ends: the sets, and the rules that drop what is blocked. Nothing is
/// watched, counted, held or slowed any more, since no daemon would evaluate it.
pub fn at_rest(config: &Config, ephemeral: RangeInclusive<u16>) -> Ruleset {
    let Ruleset { sets, .. } = for_config(config, ephemeral.clone());
    let mut config = config.clone();
    config.tcp.mode = PortMode::Off;
    config.udp.mode = PortMode::Off;
    let Ruleset { mut chains, .. } = for_config(&config, ephemeral);
    for chain in &mut chains {
        chain.rules.retain(|rule| !matches!(rule.statements[..], [Statement::Update { .. }]));
    }
    Ruleset { sets, chains }
}

/// The ruleset for a configuration. `ephemeral` is `net.ipv4.ip_local_port_range`: where this
/// host's own connections start.
pub fn for_config(config: &Config, ephemeral: RangeInclusive<u16>) -> Ruleset {
    let end = if config.closed_ports == ClosedPorts::Drop { drop() } else { back() };
    let reflex = Reflex::of(config, end);
    let builder = Builder {
        config,
        tcp: config.tcp.watched(),
        udp: config.udp.watched(),
        tcp_decoys: config.has_decoys(&config.tcp),
        udp_decoys: config.has_decoys(&config.udp),
        ephemeral,
        reflex,
    };
    Ruleset { sets: builder.sets(), chains: builder.chains() }
}

struct Builder<'a> {
    config: &'a Config,
    tcp: PortSet,
    udp: PortSet,
    /// The transport is in connect mode.
    tcp_decoys: bool,
    udp_decoys: bool,
    ephemeral: RangeInclusive<u16>,
    reflex: Option<Reflex>,
}

impl Builder<'_> {
    fn sets(&self) -> Vec<Set> {
        let networks = |is_v4: bool, all: bool| {
            let allowed = self.config.allow.iter().filter(|allowed| all || allowed.silent);
            let networks = allowed.flat_map(Allowed::networks).copied();
            element::merge(
                networks
                    .filter(|network| network.addr().is_ipv4() == is_v4)
                    .map(Key::network)
                    .collect(),
            )
        };
        let allowed = |id, is_v4| Set {
            comment: Some("never blocked"),
            elements: networks(is_v4, true),
            ..Set::plain(id, Owner::Daemon)
        };
        let silent = |id, is_v4| Set {
            comment: Some("never blocked, never reported"),
            elements: networks(is_v4, false),
            ..Set::plain(id, Owner::Config)
        };
        let ports = |id, ports: &PortSet| Set {
            comment: Some("watched"),
            elements: ports
                .ranges()
                .iter()
                .map(|range| Key::Port(*range.start())..=Key::Port(*range.end()))
                .collect(),
            ..Set::plain(id, Owner::Config)
        };
        let mut sets = self.blocked_sets();
        sets.extend([allowed(SetId::Allowed4, true), allowed(SetId::Allowed6, false)]);
        if self.has_silent() {
            sets.extend([silent(SetId::Silent4, true), silent(SetId::Silent6, false)]);
        }
        if !self.config.interfaces.is_empty() {
            let mut names: Vec<_> =
                self.config.interfaces.iter().map(|name| Key::interface(name)).collect();
            names.sort_unstable();
            names.dedup();
            sets.push(Set {
                elements: names.into_iter().map(|name| name..=name).collect(),
                ..Set::plain(SetId::Interfaces, Owner::Config)
            });
        }
        sets.extend(self.allowed_interfaces());
        if !self.tcp.is_empty() {
            sets.push(ports(SetId::TcpPorts, &self.tcp));
        }
        if !self.udp.is_empty() {
            sets.push(ports(SetId::UdpPorts, &self.udp));
        }
        if self.watches() {
            sets.push(Set {
                comment: Some("protocols in use besides TCP, UDP, SCTP"),
                elements: SOCKETLESS_PROTOCOLS
                    .iter()
                    .map(|number| Key::Protocol(*number)..=Key::Protocol(*number))
                    .collect(),
                ..Set::plain(SetId::Protocols, Owner::Config)
            });
            sets.push(Set {
                timeouts: true,
                timeout: Some(SERVICE_MEMORY),
                size: Some(SERVICES_MAX),
                comment: Some("ports that a local socket used recently"),
                ..Set::plain(SetId::Services, Owner::Rules)
            });
        }
        sets.extend(self.reflex.iter().flat_map(Reflex::sets));
        if self.enforces() {
            sets.extend(slow::paced_sets());
        }
        if self.holds() {
            sets.extend(reflex::held_sets());
            sets.extend(self.slow_sets());
            if self.slows() {
                sets.extend(self.slowed_packets_sets());
            }
        }
        sets.extend(self.known_sets());
        sets.extend(self.campaign_sets());
        if self.watches() {
            sets.extend(self.pinged_sets());
        }
        if self.config.queues_connections() && self.reflex.is_none() {
            let set = |id| Set {
                timeouts: true,
                size: Some(SUSPECTS_MAX),
                comment: Some("sources that touched a closed port"),
                ..Set::plain(id, Owner::Rules)
            };
            sets.extend([set(SetId::Suspect4), set(SetId::Suspect6)]);
        }
        sets
    }

    /// The selectors of a source, and its sets of suspects, for IPv4 and IPv6. The neighbours of a
    /// suspect wait too: it may be one of several addresses that scan.
    fn suspects(&self) -> impl Iterator<Item = (Selector, SetId)> {
        let Ipv6Accounts { first, .. } = self.config.block.ipv6;
        let ip6 = [Some(first), self.config.block.ipv6.prefix()].into_iter().flatten();
        let ip6 = ip6.map(|bits| (Selector::Ip6SaddrPrefix(bits), SetId::Suspect6));
        std::iter::once((Selector::Ip4Saddr, SetId::Suspect4)).chain(ip6)
    }

    /// Whether any port is watched.
    fn watches(&self) -> bool {
        !self.tcp.is_empty() || !self.udp.is_empty()
    }

    /// Whether the allow list has networks of which nothing is reported.
    fn has_silent(&self) -> bool {
        self.watches() && self.config.silent_networks().next().is_some()
    }

    /// Whether sources are slowed.
    fn slows(&self) -> bool {
        self.config.slows()
    }

    /// Whether the rules treat sources as slowed, if only until the daemon decides.
    fn holds(&self) -> bool {
        self.slows() || self.reflex.is_some() || self.config.campaigns_are(CampaignAction::Slow)
    }

    fn enforces(&self) -> bool {
        self.config.mode == Mode::Enforce
    }

    fn chains(&self) -> Vec<Chain> {
        // Each chain before those that jump to it, so that the text loads from top to bottom too.
        let mut chains = self.gate();
        if self.enforces() {
            chains.extend(self.unproven_chains());
        }
        if self.watches() {
            if self.holds() {
                chains.extend(self.slow_chains());
            }
            chains.extend([self.probe(), self.exempt_probe(), self.open()]);
            chains.extend(self.reflex.iter().flat_map(Reflex::chains));
            chains.extend(self.known_chains());
            chains.extend(self.unwatched_chains());
            if !self.tcp.is_empty() {
                chains.extend(self.segment_chains());
                chains.extend([self.log_only(), self.tcp_probe(), self.sctp_probe()]);
            }
            if !self.udp.is_empty() {
                chains.push(self.udp_probe());
            }
            chains.extend([self.exempt(), self.pinged()]);
        }
        if self.watches() || self.enforces() {
            chains.extend(self.group_and_spoofed());
            chains.extend([self.watch(), self.forwarded()]);
            chains.extend(self.resets());
        }
        if self.tcp_decoys || self.udp_decoys {
            chains.extend(self.decoy());
        }
        chains
    }

    /// What `watch` and connect mode do not look at.
    fn not_watched(&self) -> Vec<Rule> {
        let mut rules = vec![rule("own traffic", [is(Selector::Iif, LOOPBACK_INDEX), back()])];
        if !self.config.interfaces.is_empty() {
            rules.push(rule(
                "only the watched interfaces",
                [is_not_in(Selector::IifName, SetId::Interfaces), back()],
            ));
        }
        if !self.config.allowed_interfaces(true).is_empty() {
            rules.push(rule(
                "interfaces of which nothing is reported",
                [is_in(Selector::IifName, SetId::SilentInterfaces), back()],
            ));
        }
        rules
    }

    fn log(&self) -> Statement {
        log(LOG_PREFIX, self.config.capture.group)
    }

    fn probe(&self) -> Chain {
        let mut rules: Vec<_> = self.reflex.iter().map(Reflex::admission).collect();
        if self.config.has_queue() {
            rules.extend(self.queued_probe());
            return chain(PROBE, rules);
        }
        let (why, end) = match (self.config.mode, self.config.closed_ports) {
            (Mode::Enforce, ClosedPorts::Drop) => ("logged, and not answered", drop()),
            (Mode::Enforce, ClosedPorts::Answer | ClosedPorts::Pass) => {
                ("logged; the kernel answers as without these rules", back())
            }
            (Mode::Observe, _) => ("logged; mode observe drops nothing", back()),
        };
        rules.push(rule(why, [self.log(), end]));
        chain(PROBE, rules)
    }

    /// A probe makes its source a suspect, and waits for the daemon's verdict.
    fn queued_probe(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.config.queues_connections() {
            let whys = ["from this packet on, so that no later connection overtakes it", "", ""];
            rules.extend(self.suspects().zip(whys).map(|((source, set), why)| {
                // A longer timeout that the reflex has set stays.
                let put = if self.reflex.is_some() {
                    let timeout = Some(SUSPECT_MEMORY);
                    Statement::Add { set: set.spec(), key: vec![source], timeout }
                } else {
                    update(set, source, SUSPECT_MEMORY)
                };
                rule(why, [put])
            }));
        }
        let why = if self.config.drops_probes() {
            "it waits for the daemon's verdict and is never answered: dropped without the daemon too"
        } else {
            "it waits for the daemon's verdict; without the daemon it continues"
        };
        rules.push(rule(
            why,
            [Statement::Queue {
                number: self.config.capture.group,
                bypass: !self.config.drops_probes(),
                by: QueueBy::default(),
            }],
        ));
        rules
    }

    fn open(&self) -> Chain {
        let mut rules = if self.holds() { self.slow_services() } else { Vec::new() };
        rules.push(rule(
            "a connection to a service: remember it, for when the service restarts; other packets may belong to our own connections",
            [opens(), remember(Selector::ThDport)],
        ));
        // No port is below 1; the comparison would never match.
        if *self.ephemeral.start() > 1 {
            rules.push(rule(
                "UDP has no opening packet: a port below the ephemeral range is a service, one within may be the socket of our own request",
                [matches(Selector::UdpDport, Op::Lt, Operand::Number(u32::from(*self.ephemeral.start()))), remember(Selector::ThDport)],
            ));
        }
        if self.config.queues_connections() {
            // There is no number after the largest; the configuration is refused then.
            let number = self.config.capture.group.saturating_add(1);
            let queue = Statement::Queue { number, bypass: true, by: QueueBy::default() };
            let whys = [
                "a suspect's new connection waits until its probes are evaluated; other sources never wait; without the daemon none waits",
                "",
                "",
            ];
            rules.extend(self.suspects().zip(whys).map(|((source, set), why)| {
                rule(why, [opens(), is_in(source, set), queue.clone()])
            }));
        }
        chain(OPEN, rules)
    }

    fn tcp_probe(&self) -> Chain {
        let flags = |mask, value| Statement::TcpFlags { mask, value };
        let every = tcp_flag::FIN
            | tcp_flag::SYN
            | tcp_flag::RST
            | tcp_flag::PSH
            | tcp_flag::ACK
            | tcp_flag::URG;
        let a_fin = flags(every, tcp_flag::FIN);
        let mut rules = vec![
            rule(
                "answers to packets that others sent with our address",
                [flags(tcp_flag::RST, tcp_flag::RST), back()],
            ),
            rule("", [only_flags(tcp_flag::SYN | tcp_flag::ACK), back()]),
        ];
        rules.extend(self.strange_to_closed());
        rules.extend(self.unwatched_tcp());
        rules.extend(self.slow_segments_to_restarting());
        rules.extend([service(), rule(DISCARDED, [opens(), is_invalid(), back()])]);
        rules.extend(self.exempt_to(EXEMPT_PROBE));
        rules.push(self.late_segment());
        if self.enforces() {
            rules.extend(self.unproven_probes(&[]));
        }
        if self.holds() {
            rules.extend(self.slow_probes(if self.slows() { SLOW_PROBE } else { STILL }));
        }
        rules.extend(self.known_probes());
        if self.config.has_reflex(&self.config.tcp) {
            rules.push(rule(
                "a closed connection of some stacks ends with it too, so it alone never triggers",
                [a_fin, goto(PROBE)],
            ));
            if self.tcp_decoys {
                rules.push(rule(
                    "with a decoy, handshakes count, and the daemon knows them",
                    [opens(), goto(PROBE)],
                ));
            }
            rules.push(rule("", [goto(REFLEX)]));
        } else {
            rules.push(rule("", [goto(PROBE)]));
        }
        chain(TCP_PROBE, rules)
    }

    /// The ports that this host's own connections use.
    fn ephemeral(&self) -> Option<Operand> {
        let (first, last) = (*self.ephemeral.start(), *self.ephemeral.end());
        match first.cmp(&last) {
            std::cmp::Ordering::Less => Some(Operand::Ports(first, last)),
            std::cmp::Ordering::Equal => Some(Operand::Number(u32::from(first))),
            std::cmp::Ordering::Greater => None,
        }
    }

    fn udp_probe(&self) -> Chain {
        let mut rules =
            vec![self.unwatched_udp(), service(), rule(DISCARDED, [is_invalid(), back()])];
        rules.extend(self.exempt_to(EXEMPT_PROBE));
        if self.holds() {
            let counts = self.config.udp.action == ProtocolAction::Block;
            rules.extend(self.slow_probes(match (self.slows(), counts) {
                (false, _) => STILL,
                (true, true) => SLOW_DATAGRAM,
                (true, false) => SLOW_OTHER,
            }));
        }
        // With decoys, packets come here only if the decoy's listener is gone; they are logged as
        // without decoys.
        if self.config.has_reflex(&self.config.udp) && !self.udp_decoys {
            rules.extend(udp_not_counted(self.ephemeral()));
            rules.push(rule("", [goto(REFLEX)]));
        } else {
            rules.push(rule("", [goto(PROBE)]));
        }
        chain(UDP_PROBE, rules)
    }

    fn sctp_probe(&self) -> Chain {
        let (init, cookie_echo) = (1, 10);
        let mut rules = vec![
            rule("not watched", [is_not_in(Selector::SctpDport, SetId::TcpPorts), back()]),
            service(),
        ];
        let whys = ["over an allowed interface", ""];
        rules.extend(whys.into_iter().zip([init, cookie_echo]).filter_map(|(why, chunk)| {
            self.over_allowed(why, [is(Selector::SctpChunk, chunk), goto(EXEMPT_PROBE)])
        }));
        rules.extend(self.over_allowed("", [back()]));
        if self.slows() {
            rules.extend(self.slow_sctp([init, cookie_echo]));
        }
        let cookie_echo = || is(Selector::SctpChunk, cookie_echo);
        rules.extend([rule(
            "INIT; no rule can see whether an SCTP endpoint accepts it, so it is not dropped",
            [is(Selector::SctpChunk, init), goto(TELL)],
        )]);
        if self.enforces() {
            rules.extend(self.unproven_probes(&[cookie_echo()]));
        }
        rules.push(rule("COOKIE ECHO", [cookie_echo(), goto(TELL)]));
        chain(SCTP_PROBE, rules)
    }

    fn log_only(&self) -> Chain {
        chain(TELL, vec![rule("logged, and never dropped", [self.log(), back()])])
    }
}

fn service() -> Rule {
    rule("a service that restarts", [to_service(), back()])
}

#[cfg(test)]
mod tests;
