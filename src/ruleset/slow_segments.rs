//! Segments with an ACK that a slowed source sends to ports that listen.
//!
//! A random half of its closed ports is silent (`slow`). If every port that listens answered, an ACK
//! scan would tell silent ports to be closed. So a random half of the ports that listen is silent too,
//! but no segment is dropped: it may belong to a live connection that conntrack forgot, or that began
//! before conntrack did, and no rule can tell. What is dropped is the answer, a RST without an ACK
//! (RFC 9293, 3.10.7.2): sockets that listen or are gone send it, those of live connections do not.
//!
//! A published port is another host's, to which destination NAT leads. Its segments and answers are
//! forwarded, with another address and port, so it is known by the port that the source sees.

use super::Builder;
use super::WATCH_PRIORITY;
use super::family::Family;
use super::segments::has_late_flags;
use super::sets::SetId;
use super::slow::add;
use super::statements::{
    back, base_chain, chain, drop, goto, is, is_in, is_not_in, is_protocol, only_flags, rule,
    to_service,
};
use crate::nft::model::{Chain, Hook, Rule, Selector, Statement, protocol, tcp_flag};

/// The chains for segments to this host's ports, or to published ones.
struct Ports {
    segment: &'static str,
    new: &'static str,
    reset: &'static str,
    /// The port, as an element of the sets has it, in a segment and in the answer.
    port: fn(Family) -> Vec<Selector>,
    port_of_answer: fn(Family) -> Vec<Selector>,
}

const OWN: Ports = Ports {
    segment: "slow_segment",
    new: "slow_segment_new",
    reset: "slow_reset",
    port: Family::port,
    port_of_answer: Family::port_of_answer,
};

const PUBLISHED: Ports = Ports {
    segment: "slow_published",
    new: "slow_published_new",
    reset: "slow_published_reset",
    port: |family| vec![family.source, Selector::L4Proto, Selector::CtOriginalDport],
    port_of_answer: |family| {
        vec![family.of_answers().source, Selector::L4Proto, Selector::CtOriginalDport]
    },
};

/// New ports that are remembered while their source is slowed, and at once: of this host, and as many
/// that are published. Beyond it they answer.
const LONG: u64 = 6000;
const BURST: u32 = 500;

impl Builder<'_> {
    /// Whether a half of the ports that listen is silent.
    fn hides_services(&self) -> bool {
        self.slows() && !self.tcp.is_empty()
    }

    /// The segments of slowed sources with these properties besides go to a chain.
    fn slowed_segments(&self, why: &'static str, of: &[Statement], to: &Ports) -> Vec<Rule> {
        if !self.hides_services() {
            return Vec::new();
        }
        self.each_slowed(why, |family| {
            let mut statements = vec![has_late_flags()];
            statements.extend(self.is_slowed(family));
            statements.extend_from_slice(of);
            statements.push(goto(to.segment));
            statements
        })
    }

    /// For `open`: where these segments go.
    pub(super) fn slow_segments(&self) -> Vec<Rule> {
        let why = "a slowed source's segment out of order: half of the ports are silent, as closed ones are";
        self.slowed_segments(why, &[is_in(Selector::TcpDport, SetId::TcpPorts)], &OWN)
    }

    /// For `tcp_probe`, of watched ports.
    pub(super) fn slow_segments_to_restarting(&self) -> Vec<Rule> {
        let why = "the same, to a service that restarts, or is published: NAT leads on no FIN out of order";
        let mut of = vec![to_service()];
        of.extend(self.not_by_allowed(Selector::IifName));
        self.slowed_segments(why, &of, &OWN)
    }

    /// For `forwarded`.
    pub(super) fn slow_segments_to_published(&self) -> Vec<Rule> {
        let why = "a slowed source's segment out of order, to a published port";
        let is_watched = is_in(Selector::CtOriginalDport, SetId::TcpPorts);
        self.slowed_segments(why, &[Statement::CtStatusDnat, is_watched], &PUBLISHED)
    }

    /// The chains for them, each before those that jump to it.
    pub(super) fn slow_segment_chains(&self) -> Vec<Chain> {
        if !self.hides_services() {
            return Vec::new();
        }
        [OWN, PUBLISHED].iter().flat_map(|ports| self.chains_of(ports)).collect()
    }

    fn chains_of(&self, of: &Ports) -> [Chain; 3] {
        let memory = self.config.block.unproven.timeout;
        // nft knows what the original port is only after the transport.
        let tcp = || is_protocol(protocol::TCP);
        let lookup = |set: SetId, key| Statement::Lookup { set: set.spec(), key };
        let new = self.each("a random half of the ports answers, as of closed ones", |family| {
            let add = add(family.answered, (of.port)(family), memory);
            vec![tcp(), is(Selector::Random(2), 0), add]
        });
        let mut segment = self.each("decided before", |family| {
            vec![tcp(), lookup(family.probed, (of.port)(family)), back()]
        });
        let rate = u32::try_from(LONG / memory.as_secs().max(1)).unwrap_or(BURST).clamp(1, BURST);
        segment.push(rule(
            "more than can be remembered",
            [Statement::LimitOver { rate, burst: BURST }, back()],
        ));
        segment.extend(self.each("a new port", |family| {
            vec![tcp(), add(family.probed, (of.port)(family), memory), goto(of.new)]
        }));
        let mut reset = self.each("a port that it sees as closed", |family| {
            vec![tcp(), lookup(family.answered, (of.port_of_answer)(family)), back()]
        });
        reset.extend(self.each("a silent port", |family| {
            let is_silent = lookup(family.probed, (of.port_of_answer)(family));
            vec![tcp(), is_silent, Statement::Counter, drop()]
        }));
        [chain(of.new, new), chain(of.segment, segment), chain(of.reset, reset)]
    }

    fn resets_to_slowed(&self, why: &'static str, of: &[Statement], to: &Ports) -> Vec<Rule> {
        if !self.hides_services() {
            return Vec::new();
        }
        self.each_slowed(why, |family| {
            let answers = family.of_answers();
            let mut statements = vec![
                only_flags(tcp_flag::RST),
                is_in(answers.source, family.held),
                is_not_in(answers.address, family.spared),
            ];
            statements.extend_from_slice(of);
            statements.push(goto(to.reset));
            statements
        })
    }

    /// For `forwarded`: answers of published ports, which come from any interface.
    pub(super) fn resets_of_published(&self) -> Vec<Rule> {
        let why = "a published port answers a slowed source";
        let mut of = vec![Statement::CtStatusDnat];
        of.extend(self.not_by_allowed(Selector::OifName));
        self.resets_to_slowed(why, &of, &PUBLISHED)
    }

    /// The chain for answers to them.
    pub(super) fn resets(&self) -> Option<Chain> {
        let why = "a socket that listens, or is gone, answers a slowed source";
        let of = Vec::from_iter(self.not_by_allowed(Selector::OifName));
        let rules = self.resets_to_slowed(why, &of, &OWN);
        (!rules.is_empty()).then(|| base_chain("resets", Hook::Output, WATCH_PRIORITY, rules))
    }
}
