//! The rules of connect mode: packets to a decoy's port that no other socket receives go to the
//! daemon's listener (`tproxy` in nft(8), and Documentation/networking/tproxy.rst).
//!
//! They leave packets that another socket receives alone. If the daemon's listener is gone, the
//! packet continues to `watch`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Builder, service};
use crate::nft::model::{
    Chain, Hook, NFPROTO_IPV4, NFPROTO_IPV6, PACKET_HOST, RTN_LOCAL, RTN_UNICAST, Rule, Selector,
    Statement, Verdict, protocol, tcp_flag,
};
use crate::ruleset::SetId;
use crate::ruleset::reflex::{DECOY_COUNT, Reflex};
use crate::ruleset::statements::{
    back, base_chain, chain, drop, goto, has_socket, is, is_from_unspecified, is_in, is_not,
    is_protocol, jump, only_flags, opens, rule,
};

/// `dstnat + 5`: after destination NAT, so that a port which a redirection takes stays the
/// service's. Every NAT chain of the hook runs at -100, whatever priority it names
/// (net/netfilter/nf_nat_core.c).
const DECOY_PRIORITY: i32 = -95;
/// New packets a second that decoys answer, of a transport. Each answer leaves an entry in
/// conntrack's table for at most 120 s (FIN_WAIT and TIME_WAIT; a half-open connection for 60 s):
/// 200 * 120 + 4,000 = 28,000 entries, less than half of the 65,536 that a host with 1 to 4 GB of
/// memory has. Packets beyond it are logged all the same.
const DECOY_RATE: u32 = 200;
/// Decoys that answer at once, before [`DECOY_RATE`] holds: a scan of some thousand ports.
const DECOY_BURST: u32 = 4000;

const DECOY: &str = "decoy";
const DECOY_HOST: &str = "decoy_host";
const DECOY_TCP: &str = "decoy_tcp";
pub(super) const DECOY_SYN: &str = "decoy_syn";
const DECOY_ACK: &str = "decoy_ack";
const DECOY_UDP: &str = "decoy_udp";
const DECOY_ANSWER: &str = "decoy_answer";

impl Builder<'_> {
    /// Protocol number, selector and set of the ports of each transport in connect mode.
    pub(super) fn decoy_ports(&self) -> impl Iterator<Item = (u8, Selector, SetId)> {
        let tcp = self.tcp_decoys.then_some((protocol::TCP, Selector::TcpDport, SetId::TcpPorts));
        let udp = self.udp_decoys.then_some((protocol::UDP, Selector::UdpDport, SetId::UdpPorts));
        tcp.into_iter().chain(udp)
    }

    /// Connect mode: packets to a decoy's port that no other socket receives are logged, and given
    /// to the daemon's listener. If that listener is gone, `tproxy` ends its rule, and the packet
    /// continues to `watch` as in stealth mode.
    pub(super) fn decoy(&self) -> Vec<Chain> {
        let mut chains = vec![self.decoy_answer()];
        if self.tcp_decoys {
            chains.extend(self.decoy_reflex().map(Reflex::decoys));
            chains.extend([
                self.decoy_new(DECOY_SYN, "logged first: the daemon waits for the handshake"),
                self.decoy_new(
                    DECOY_ACK,
                    "logged first, with a rate of its own, because SYNs may use up theirs",
                ),
            ]);
            chains.extend(self.known_decoy());
            chains.push(self.decoy_tcp());
        }
        if self.udp_decoys {
            let mut chain = self.decoy_new(DECOY_UDP, "logged first");
            chain.rules.splice(0..0, self.decoy_not_ours());
            chains.push(chain);
        }
        let mut known = vec![
            rule(
                "frames for all hosts or for others, with any address",
                [is_not(Selector::PktType, PACKET_HOST), back()],
            ),
            rule(
                "broadcast, multicast, anycast, and forwarded packets",
                [is_not(Selector::FibDaddrType, RTN_LOCAL), back()],
            ),
            rule(
                "the allow list sees closed ports",
                [is_in(Selector::Ip4Saddr, SetId::Allowed4), back()],
            ),
            rule("", [is_in(Selector::Ip6Saddr, SetId::Allowed6), back()]),
            rule(
                "a source address that is not unicast, which `watch` drops",
                [is_not(Selector::FibSaddrType, RTN_UNICAST), back()],
            ),
            rule("", [is_from_unspecified(), back()]),
        ];
        known.extend(self.over_allowed("so does what arrives over an allowed interface", [back()]));
        let of = |number| if number == protocol::TCP { DECOY_TCP } else { DECOY_UDP };
        known.extend(
            self.decoy_ports()
                .map(|(number, ..)| rule("", [is_protocol(number), goto(of(number))])),
        );
        chains.push(chain(DECOY_HOST, known));
        let mut rules = self.not_watched();
        // The ports before any routing lookup: every packet to the host passes here.
        rules.extend(self.decoy_ports().map(|(_, selector, ports)| {
            rule("ports with a decoy", [is_in(selector, ports), goto(DECOY_HOST)])
        }));
        chains.push(base_chain(DECOY, Hook::Prerouting, DECOY_PRIORITY, rules));
        chains
    }

    /// The reflex, if it counts TCP ports.
    fn decoy_reflex(&self) -> Option<&Reflex> {
        self.reflex.as_ref().filter(|_| self.config.has_reflex(&self.config.tcp))
    }

    fn decoy_new(&self, name: &'static str, why: &'static str) -> Chain {
        let mut rules = vec![
            rule(why, [self.log()]),
            rule(
                "each answer occupies a conntrack entry for up to two minutes",
                [Statement::LimitOver { rate: DECOY_RATE, burst: DECOY_BURST }, drop()],
            ),
        ];
        if name == DECOY_SYN && self.decoy_reflex().is_some() {
            rules.push(rule("distinct ports are counted", [jump(DECOY_COUNT)]));
        }
        rules.push(rule("", [goto(DECOY_ANSWER)]));
        chain(name, rules)
    }

    fn decoy_answer(&self) -> Chain {
        let port = self.config.capture.decoy_port;
        let listeners: [(u8, SocketAddr); 2] = [
            (NFPROTO_IPV4, (Ipv4Addr::LOCALHOST, port).into()),
            (NFPROTO_IPV6, (Ipv6Addr::LOCALHOST, port).into()),
        ];
        let to = |number: u8, (family, listener): (u8, SocketAddr)| {
            let family = is(Selector::NfProto, u32::from(family));
            let accept = Statement::Verdict(Verdict::Accept);
            rule("", [family, is_protocol(number), Statement::Tproxy(listener), accept])
        };
        let mut rules: Vec<_> = self
            .decoy_ports()
            .flat_map(|(number, ..)| listeners.map(|listener| to(number, listener)))
            .collect();
        if let Some(first) = rules.first_mut() {
            first.why = "to the daemon's listener, with its original address and port";
        }
        chain(DECOY_ANSWER, rules)
    }

    /// Packets to a decoy's port that are not for the decoy.
    fn decoy_not_ours(&self) -> Vec<Rule> {
        let mut rules = vec![
            rule(
                "a socket accepts it: of a service, or of a connection to the decoy",
                [has_socket(), back()],
            ),
            service(),
        ];
        rules.extend(self.unproven_probes(&[]));
        rules
    }

    fn decoy_tcp(&self) -> Chain {
        let mut rules = self.decoy_not_ours();
        if self.holds() {
            rules.extend(self.each_slowed("a slowed source sees no decoys", |family| {
                [self.is_slowed(family), vec![back()]].concat()
            }));
        }
        rules.extend(self.known_decoys());
        rules.push(rule("a connection is opened", [opens(), goto(DECOY_SYN)]));
        rules.push(rule(
            "the end of a handshake with SYN cookies, or an ACK scan; other flags continue to `watch`",
            [only_flags(tcp_flag::ACK), goto(DECOY_ACK)],
        ));
        chain(DECOY_TCP, rules)
    }
}
