//! Segments with an ACK that a slowed source sends to ports that listen.
//!
//! A random half of its closed ports is silent (`slow`). If every port that listens answered, an ACK
//! scan would tell silent ports to be closed. So a random half of the ports that listen is silent too,
//! but no segment is dropped: it may belong to a live connection that conntrack forgot, or that began
//! before conntrack did, and no rule can tell. What is dropped is the answer, a RST without an ACK
//! (RFC 9293, 3.10.7.2): sockets that listen or are gone send it, those of live connections do not.
//!
//! In connect mode decoys answer such segments, so services answer them too. A published port is
//! another host's, and answers.

use super::Builder;
use super::WATCH_PRIORITY;
use super::segments::has_late_flags;
use super::sets::SetId;
use super::slow::add;
use super::statements::{
    back, base_chain, chain, drop, goto, is, is_in, is_not_in, only_flags, rule,
};
use crate::nft::model::{Chain, Hook, Rule, Selector, Statement, tcp_flag};

const SLOW_SEGMENT: &str = "slow_segment";
const SLOW_SEGMENT_NEW: &str = "slow_segment_new";
const SLOW_RESET: &str = "slow_reset";

/// New ports that are remembered while their source is slowed, and at once. Beyond it they answer.
const LONG: u64 = 12_000;
const BURST: u32 = 1000;

impl Builder<'_> {
    /// Whether a half of the ports that listen is silent.
    fn hides_services(&self) -> bool {
        self.slows() && !self.tcp.is_empty() && !self.tcp_decoys
    }

    /// For `open`: where these segments go.
    pub(super) fn slow_segments(&self) -> Vec<Rule> {
        if !self.hides_services() {
            return Vec::new();
        }
        self.each_slowed("a slowed source's segment out of order: half of the ports are silent, as closed ones are", |family| {
            let mut statements = vec![has_late_flags()];
            statements.extend(self.is_slowed(family));
            statements.extend([is_in(Selector::TcpDport, SetId::TcpPorts), goto(SLOW_SEGMENT)]);
            statements
        })
    }

    /// The chains for them, each before those that jump to it.
    pub(super) fn slow_segment_chains(&self) -> Vec<Chain> {
        if !self.hides_services() {
            return Vec::new();
        }
        let memory = self.config.block.unproven.timeout;
        let lookup = |set: SetId, key| Statement::Lookup { set: set.spec(), key };
        let new = self.each("a random half of the ports answers, as of closed ones", |family| {
            vec![is(Selector::Random(2), 0), add(family.answered, family.port(), memory)]
        });
        let mut segment = self
            .each("decided before", |family| vec![lookup(family.probed, family.port()), back()]);
        let rate = u32::try_from(LONG / memory.as_secs().max(1)).unwrap_or(BURST).clamp(1, BURST);
        segment.push(rule(
            "more than can be remembered",
            [Statement::LimitOver { rate, burst: BURST }, back()],
        ));
        segment.extend(self.each("a new port", |family| {
            vec![add(family.probed, family.port(), memory), goto(SLOW_SEGMENT_NEW)]
        }));
        let mut reset = self.each("a port that it sees as closed", |family| {
            vec![lookup(family.answered, family.port_of_answer()), back()]
        });
        reset.extend(self.each("a silent port", |family| {
            vec![lookup(family.probed, family.port_of_answer()), Statement::Counter, drop()]
        }));
        vec![chain(SLOW_SEGMENT_NEW, new), chain(SLOW_SEGMENT, segment), chain(SLOW_RESET, reset)]
    }

    /// The chain for answers to them.
    pub(super) fn resets(&self) -> Option<Chain> {
        if !self.hides_services() {
            return None;
        }
        let why = "a socket that listens, or is gone, answers a slowed source";
        let rules = self.each_slowed(why, |family| {
            let to = family.of_answers();
            vec![
                only_flags(tcp_flag::RST),
                is_in(to.source, family.held),
                is_not_in(to.address, family.spared),
                goto(SLOW_RESET),
            ]
        });
        Some(base_chain("resets", Hook::Output, WATCH_PRIORITY, rules))
    }
}
