//! Blocked sources that are not proven: the address may be forged, so its owner must not suffer.
//!
//! What they open is dropped, to services and to closed ports alike, and their echo requests.
//! Packets of established connections, answers to our own connections, ICMP errors and neighbour
//! discovery never reach these rules. Probes of watched closed ports are logged, because the daemon
//! renews the block for them; what a client sends to a service is only counted.
//!
//! A source that the rules hold until the daemon decides (`reflex`) may be forged as well. It is
//! treated as a slowed one: its probes are dropped here, its connections wait in `slow`.

use super::Builder;
use super::blocked::BLOCKED;
use super::family::{Family, each};
use super::reflex::{STILL_PREFIX, past_rate};
use super::sets::SetId;
use super::slow::paced;
use super::statements::{
    chain, counted_drop, drop, goto, has_socket, is_in, is_not, is_not_in, log, opens, rule,
    to_service,
};
use crate::config::{CampaignAction, PortSet, ProtocolAction};
use crate::nft::model::{Chain, Rule, Selector, Statement, ct_state, protocol};

/// The entry for a probe of a source that is blocked or held.
pub(super) const STILL: &str = "still";
const UNPROVEN_SYN: &str = "unproven_syn";
const UNPROVEN_NEW: &str = "unproven_new";
const UNPROVEN_OTHER: &str = "unproven_other";
const UNPROVEN_PROBE: &str = "unproven_probe";

/// Log messages per second for sources that are blocked or held already. A flood does not repeat a
/// spoofed source; a scanner continues, and some of its probes are enough: they renew its block, and
/// distinguish it when all blocks that unverified sources may have are in use.
const STILL_RATE: u32 = 500;
const STILL_BURST: u32 = 500;

impl Builder<'_> {
    /// For `watch`: what blocked sources open.
    pub(super) fn unproven(&self) -> Vec<Rule> {
        self.unproven_opens(&|name| vec![goto(name)])
    }

    /// For `forwarded`: the same to published ports, where nothing is a probe.
    pub(super) fn unproven_forwarded(&self) -> Vec<Rule> {
        self.unproven_opens(&|_| vec![goto(BLOCKED)])
    }

    /// A rule for each kind of source that is blocked and not proven.
    fn each_blocked(&self, why: &'static str, of: impl Fn(Family) -> Vec<Statement>) -> Vec<Rule> {
        let families = Family::both(self.config.block.ipv6.first).into_iter();
        each(families.chain(self.campaigns(CampaignAction::Block)), why, of)
    }

    fn is_blocked(&self, family: Family) -> Vec<Statement> {
        let mut statements =
            vec![is_in(family.source, family.unproven), is_not_in(family.address, family.allowed)];
        statements.extend(self.unknown(family));
        statements
    }

    /// `end` of the packets that would come to one of these chains.
    fn unproven_opens(&self, end: &dyn Fn(&'static str) -> Vec<Statement>) -> Vec<Rule> {
        let of =
            |first: Vec<Statement>, family, end| [first, self.is_blocked(family), end].concat();
        let why = "a blocked source whose address may be forged: only what it opens is dropped";
        let mut rules =
            self.each_blocked(why, |family| of(vec![opens()], family, end(UNPROVEN_SYN)));
        // Without conntrack a packet may be an answer to us. TCP shows what opens a connection, and
        // goes on when conntrack has forgotten one.
        let new =
            [is_not(Selector::L4Proto, protocol::TCP.into()), Statement::CtState(ct_state::NEW)];
        rules.extend(self.each_blocked("", |family| of(new.to_vec(), family, end(UNPROVEN_NEW))));
        rules
    }

    /// What else blocked sources send.
    pub(super) fn unproven_sources(&self, to: &'static str) -> Vec<Rule> {
        self.each_blocked("a blocked source whose address may be forged", |family| {
            [self.is_blocked(family), vec![goto(to)]].concat()
        })
    }

    /// For the chains that classify probes: those of sources that are blocked, and open nothing.
    pub(super) fn unproven_probes(&self, kind: &[Statement]) -> Vec<Rule> {
        self.each_blocked("a blocked source whose address may be forged", |family| {
            [kind, &self.is_blocked(family), &[goto(UNPROVEN_OTHER)]].concat()
        })
    }

    /// The chains for them, each before those that jump to it.
    pub(super) fn unproven_chains(&self) -> Vec<Chain> {
        let still = vec![
            past_rate("some are enough", STILL_RATE, STILL_BURST, drop()),
            rule(
                "logged: the scan continues",
                [log(STILL_PREFIX, self.config.capture.group), drop()],
            ),
        ];
        let tcp = (Selector::TcpDport, SetId::TcpPorts);
        let udp = (Selector::UdpDport, SetId::UdpPorts);
        let mut probe = self.each("some of each source are enough", |family| paced(family).into());
        probe.push(rule("", [goto(STILL)]));
        let counted = |rules: Vec<Rule>| [self.count_blocked(), rules].concat();
        let mut new = vec![rule(
            "",
            [is_not(Selector::L4Proto, protocol::UDP.into()), Statement::Counter, drop()],
        )];
        new.extend(self.unproven_ends(&self.udp, udp, self.config.udp.action));
        let mut chains = Vec::new();
        if self.watches() {
            let other = counted(vec![rule("", [goto(UNPROVEN_PROBE)])]);
            chains.extend([
                chain(STILL, still),
                chain(UNPROVEN_PROBE, probe),
                chain(UNPROVEN_OTHER, other),
            ]);
        }
        let syn = self.unproven_ends(&self.tcp, tcp, self.config.tcp.action);
        chains.extend([chain(UNPROVEN_SYN, counted(syn)), chain(UNPROVEN_NEW, counted(new))]);
        chains
    }

    /// All are dropped; probes of watched closed ports, which renew the block, are logged.
    fn unproven_ends(
        &self,
        watched: &PortSet,
        (selector, set): (Selector, SetId),
        action: ProtocolAction,
    ) -> Vec<Rule> {
        if watched.is_empty() || action != ProtocolAction::Block {
            return vec![rule("", counted_drop())];
        }
        let only = |why, first| rule(why, [vec![first], counted_drop().into()].concat());
        vec![
            only("not watched", is_not_in(selector, set)),
            only("a service is no probe", has_socket()),
            only("", to_service()),
            rule("", [goto(UNPROVEN_PROBE)]),
        ]
    }
}
