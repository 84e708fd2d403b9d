//! Slowed sources: past the trigger, with an address that is not proven.
//!
//! The address may be forged, so its owner must not suffer: packets of established connections and
//! answers to our own connections never reach these rules. A new connection of a slowed source to a
//! service, local or forwarded, passes when its SYN is retransmitted, which every TCP stack does
//! after a second (RFC 6298, 2) and a scanner does not. Probes of closed ports are dropped, except
//! that a random half of the ports is answered as closed: only a sender that sees the answers
//! retransmits to the silent ports alone. The daemon evaluates the retransmissions
//! (`engine/slowed.rs`). `slow_segments`: segments that services answer as closed ports do.
//!
//! The sequence number of the SYN is not compared: nft has no set type for it, and a scanner that
//! repeats the ports of a SYN repeats its number too.

use std::time::Duration;

use super::Builder;
use super::family::{Family, each};
use super::reflex::{STILL_PREFIX, past_rate};
use super::sets::SetId;
use super::statements::{
    back, chain, drop, goto, is, is_in, is_not_in, is_protocol, log, opens, rule, update,
};
use crate::config::{CampaignAction, ClosedPorts};
use crate::nft::model::{Chain, Owner, Rate, Rule, Selector, Set, Statement, Unit, protocol};

/// The start of the prefix of a slowed source's probe of a port that it probed before, and whose
/// probes are not answered.
pub(crate) const SILENT_PREFIX: &str = "portsentry: silent ";

/// The same for a port whose probes are answered.
pub(crate) const ANSWERED_PREFIX: &str = "portsentry: answered ";

/// The entry for a new connection to a service.
pub(super) const SLOW: &str = "slow";
/// The entry for a TCP probe.
pub(super) const SLOW_PROBE: &str = "slow_probe";
/// The entry for a datagram that counts toward a block, and for a probe of SCTP.
pub(super) const SLOW_DATAGRAM: &str = "slow_datagram";
/// The entry for another probe: logged, and not answered.
pub(super) const SLOW_OTHER: &str = "slow_other";
const SLOW_SILENT: &str = "slow_silent";
const SLOW_NEW_ANSWERED: &str = "slow_new_answered";
const SLOW_NEW: &str = "slow_new";
const SLOW_FLOOD: &str = "slow_flood";
const SLOW_FLOOD_NEW: &str = "slow_flood_new";
const SLOW_FLOOD_ANSWERED: &str = "slow_flood_answered";
const SLOW_ANSWER: &str = "slow_answer";
const SLOW_ANSWERED: &str = "slow_answered";
const SLOW_AGAIN: &str = "slow_again";
const SLOW_AGAIN_UNLOGGED: &str = "slow_again_unlogged";

/// Maximum elements of each set. Beyond it, probes are dropped, and new connections pass at once, as
/// many as [`UNASKED`] allows.
const SIZE: u32 = 400_000;
/// Maximum ports that are remembered. Half of them are answered, and are remembered as long in a
/// larger set, so that it is never full before: a port whose answer could not be recorded would count
/// as silent, and a sender that fills the set could so prove a source that it only names.
const PROBED_SIZE: u32 = 300_000;
const _: () = assert!(PROBED_SIZE < SIZE);
/// New ports that are remembered while their source is slowed: [`PROBED_BURST`] at once, and as many a
/// second as come to [`PROBED_LONG`] within that time.
const PROBED_LONG: u64 = 80_000;
const PROBED_BURST: u32 = 20_000;
/// More new ports than that are a flood of forged sources, with some ports each. Then only those of
/// sources far past the trigger are remembered, for [`PROBED_SHORT`], in which every stack
/// retransmits: a scanner is proven by them. 40,000 * 4 and the burst are 180,000, with those of
/// [`PROBED_LONG`] 280,000, and with those that `slow_segments` adds 293,000.
const PROBED_FLOOD_RATE: u32 = 40_000;
const PROBED_SHORT: Duration = Duration::from_secs(4);
/// A SYN that comes again sooner is not a retransmission: the first one follows after a second, of
/// some stacks after 0.9.
const YOUNG: Duration = Duration::from_millis(700);
/// A SYN of a source far past the trigger passes when it comes again later than this: the second
/// retransmission follows after three seconds.
const RECENT: Duration = Duration::from_millis(2500);
/// How long a SYN is remembered: the second retransmission follows after three seconds.
const ASKED: Duration = Duration::from_secs(8);
/// New connections of a source that pass at once when no more SYNs can be remembered. Forged sources
/// can bring that about, so a scanner must learn hardly a service by it, and an honest host must get
/// through.
const UNASKED: Rate = Rate { packets: 6, per: Unit::Minute, burst: 1 };
/// With the eighth new port beyond the trigger a source is far past it. A patient connect() scanner
/// waits for the first retransmission of its connections, and would learn some services until it is
/// proven. Like every sender that sees the answers it retransmits to silent ports, and to these only:
/// with a source that has not, or that retransmits to answered ports too, the address is likely
/// forged, and its owner does not wait longer than a second.
const FAR_PORTS: u32 = 7;
const FAR: Rate = Rate { packets: 1, per: Unit::Week, burst: FAR_PORTS };
/// The IP id of every SYN that zmap sent before it chose random ones in 2024. masscan's is the xor of
/// destination address, destination port and sequence number, which no rule can compute before
/// Linux 6.13.
const ZMAP_ID: u32 = 54_321;
/// Packets that a slowed source may send to UDP services, echo requests, and probes of a blocked
/// source that are logged, per second.
const PACE: Rate = Rate { packets: 5, per: Unit::Second, burst: 10 };
/// Log messages per second for further ports, and for retransmissions. These have one limit for
/// both kinds: a source must not be able to use up the messages of one kind for another source,
/// whose retransmissions would look one-sided.
pub(super) const STILL_RATE: u32 = 500;
const AGAIN_RATE: u32 = 2000;
const AGAIN_BURST: u32 = 4000;

/// A set of each IP version.
type SetOf = fn(Family) -> SetId;

impl Builder<'_> {
    pub(super) fn each(
        &self,
        why: &'static str,
        of: impl Fn(Family) -> Vec<Statement>,
    ) -> Vec<Rule> {
        each(Family::both(self.config.block.ipv6.first), why, of)
    }

    /// The prefixes that are slowed as a whole.
    fn slowed_prefixes(&self) -> Option<Family> {
        self.config.block.ipv6.prefix().filter(|_| self.slows()).map(Family::prefixes)
    }

    /// A rule for each kind of source that is slowed, networks of campaigns among them.
    pub(super) fn each_slowed(
        &self,
        why: &'static str,
        of: impl Fn(Family) -> Vec<Statement>,
    ) -> Vec<Rule> {
        let campaigns = self.campaigns(CampaignAction::Slow);
        each(self.slowed_families().into_iter().chain(campaigns), why, of)
    }

    /// The packet is of a slowed source, and not exempt. A known client is in a slowed network.
    pub(super) fn is_slowed(&self, family: Family) -> Vec<Statement> {
        let mut statements =
            vec![is_in(family.source, family.held), is_not_in(family.address, family.spared)];
        statements.extend(self.unknown(family));
        statements
    }

    /// The kinds of sources that are slowed by themselves.
    pub(super) fn slowed_families(&self) -> Vec<Family> {
        let families = Family::both(self.config.block.ipv6.first);
        families.into_iter().chain(self.slowed_prefixes()).collect()
    }

    pub(super) fn slow_sets(&self) -> Vec<Set> {
        let connections = Family::both(128).into_iter().flat_map(|family| {
            [
                set(family.young, "connections whose SYN came a moment ago"),
                set(family.asked, "connections whose SYN came before"),
                set(family.passed, "sources whose SYNs found no room; never looked up"),
            ]
        });
        let slowed = Family::both(128).into_iter().filter(|_| self.slows()).flat_map(|family| {
            [
                set(family.answered, "ports that a slowed source sees as closed"),
                Set {
                    size: Some(PROBED_SIZE),
                    ..set(family.probed, "ports that a slowed source probed")
                },
                set(family.tally, "new ports of slowed sources; never looked up"),
                set(family.far, "slowed sources far past the trigger"),
                set(family.patient, "slowed sources that retransmit to silent ports"),
                set(family.blind, "slowed sources that retransmit to answered ports"),
                set(family.recent, "connections whose SYN came seconds ago"),
            ]
        });
        let prefixes = self.slowed_prefixes().map(|_| Set {
            owner: Owner::Daemon,
            ..set(SetId::HeldNets6, "slowed prefixes of several addresses that scan")
        });
        connections.chain(slowed).chain(prefixes).collect()
    }

    /// For `open`: what a slowed source sends to a service.
    pub(super) fn slow_services(&self) -> Vec<Rule> {
        let mut rules = self.slow_connections("a slowed source's new connection");
        rules.extend(self.each_slowed("datagrams of a slowed source, at a low rate", |family| {
            let mut statements = vec![is_protocol(protocol::UDP)];
            statements.extend(self.is_slowed(family));
            statements.extend(self.slow_paced(family));
            statements
        }));
        rules.extend(self.slow_segments());
        rules
    }

    /// As [`paced`], for a slowed source.
    fn slow_paced(&self, family: Family) -> [Statement; 3] {
        let [pace, counter, _] = paced(self.paced(family));
        [pace, counter, self.drops_slowed()]
    }

    fn slow_connections(&self, why: &'static str) -> Vec<Rule> {
        self.each_slowed(why, |family| {
            [vec![opens()], self.is_slowed(family), vec![goto(SLOW)]].concat()
        })
    }

    /// For `watch`: echo requests of a slowed source.
    pub(super) fn slow_echo(&self) -> Vec<Rule> {
        self.each_slowed("echo requests of a slowed source, at a low rate", |family| {
            let (number, kind) = family.echo_request;
            let mut statements = vec![is_protocol(number), is(Selector::IcmpType, kind)];
            statements.extend(self.is_slowed(family));
            statements.push(is_not_in(family.address, family.allowed));
            statements.extend(self.slow_paced(family));
            statements
        })
    }

    /// For the chains that classify probes: where those of slowed sources go.
    pub(super) fn slow_probes(&self, to: &'static str) -> Vec<Rule> {
        self.each_slowed("a slowed source", |family| {
            [self.is_slowed(family), vec![goto(to)]].concat()
        })
    }

    /// For `sctp_probe`: the daemon fills in the services. No half of the ports is answered, as that of
    /// TCP ports is: no rule sends an ABORT, and a kernel without SCTP answers with ICMP errors, one a
    /// second, so that a scanner would retransmit to answered ports too.
    pub(super) fn slow_sctp(&self, chunks: [u32; 2]) -> Vec<Rule> {
        let of = |(chunk, why)| {
            self.each_slowed(why, |family| {
                let mut statements = vec![is(Selector::SctpChunk, chunk)];
                statements.extend(self.is_slowed(family));
                statements.extend([is_not_in(family.address, family.allowed), goto(SLOW_DATAGRAM)]);
                statements
            })
        };
        let whys = ["of a slowed source, to a port that no service is known to have", ""];
        chunks.into_iter().zip(whys).flat_map(of).collect()
    }

    /// Which SYNs of a slowed source to a service pass.
    fn slow_chain(&self) -> Chain {
        let drop = || self.drops_slowed();
        let known = |set: SetId, family: Family, end: Statement| {
            let lookup = Statement::Lookup { set: set.spec(), key: family.connection() };
            vec![lookup, Statement::Counter, end]
        };
        let mut slow = vec![rule(
            "zmap's SYN: a client that has this id by chance has another one when it retransmits",
            [is(Selector::Ip4Id, ZMAP_ID), Statement::Counter, drop()],
        )];
        slow.extend(
            self.each("too soon for a retransmission", |family| {
                known(family.young, family, drop())
            }),
        );
        if self.slows() {
            let why = "far past the trigger the first retransmission does not pass, for which patient scanners wait";
            slow.extend(self.each(why, |family| {
                let patient = vec![
                    is_in(family.source, family.far),
                    is_in(family.source, family.patient),
                    is_not_in(family.source, family.blind),
                ];
                [patient, known(family.recent, family, drop())].concat()
            }));
        }
        slow.extend(self.each("the SYN was retransmitted, which scanners do not do", |family| {
            known(family.asked, family, back())
        }));
        slow.extend(self.each("the first SYN of a connection", |family| {
            let mut statements = vec![add(family.young, family.connection(), YOUNG)];
            if self.slows() {
                statements.push(add(family.recent, family.connection(), RECENT));
            }
            statements.push(add(family.asked, family.connection(), ASKED));
            statements.extend([Statement::Counter, drop()]);
            statements
        }));
        slow.extend(self.each(
            "the sets are full: a connection of each source passes now and then",
            |family| {
                vec![
                    Statement::Update {
                        set: family.passed.spec(),
                        key: vec![family.source],
                        timeout: Some(ASKED),
                        over: Some(UNASKED),
                    },
                    Statement::Counter,
                    drop(),
                ]
            },
        ));
        slow.push(rule("", [Statement::Counter, back()]));
        chain(SLOW, slow)
    }

    /// A probe renews the time for which its source is slowed, and is counted as dropped.
    fn slow_renewed(&self) -> Vec<Rule> {
        // An address of a slowed prefix or network is not slowed by itself, and must not renew it: the
        // daemon does.
        let has_campaigns = self.campaigns(CampaignAction::Slow).next().is_some();
        let has_prefixes = has_campaigns || self.slowed_prefixes().is_some();
        let memory = self.config.block.unproven.timeout;
        let why = "slowed for as long as it continues; counted as dropped";
        each(self.slowed_families(), why, |family| {
            let is_known = !has_prefixes || family.held == SetId::Held4 && !has_campaigns;
            let mut statements = Vec::new();
            if !is_known {
                statements.push(is_in(family.source, family.held));
            }
            if family.held != SetId::HeldNets6 {
                statements.push(update(family.held, family.source, memory));
            }
            statements.extend(self.renews_counts(family));
            statements
        })
    }

    /// The chains for slowed sources, each before those that jump to it.
    pub(super) fn slow_chains(&self) -> Vec<Chain> {
        if !self.slows() {
            return vec![self.slow_chain()];
        }
        // Silence by another firewall, which logs what it drops.
        let passes = self.config.closed_ports == ClosedPorts::Pass;
        let silence = || if passes { back() } else { drop() };
        let memory = self.config.block.unproven.timeout;
        let group = self.config.capture.group;
        let tally = |family: Family| Statement::Update {
            set: family.tally.spec(),
            key: vec![family.source],
            timeout: Some(memory),
            over: Some(FAR),
        };
        let known = |set: SetOf, to: &'static str| {
            move |family: Family| {
                vec![Statement::Lookup { set: set(family).spec(), key: family.port() }, goto(to)]
            }
        };
        let answered: SetOf = |family| family.answered;
        let probed: SetOf = |family| family.probed;
        let blind: SetOf = |family| family.blind;
        let patient: SetOf = |family| family.patient;

        let answer = vec![rule(
            "as a closed port answers",
            [is_protocol(protocol::TCP), Statement::Counter, Statement::RejectTcp],
        )];
        let mut again_unlogged = self.each("", known(answered, SLOW_ANSWER));
        again_unlogged.push(rule("", [Statement::Counter, silence()]));
        let mut again = vec![past_rate(
            "more than the daemon can read",
            AGAIN_RATE,
            AGAIN_BURST,
            goto(SLOW_AGAIN_UNLOGGED),
        )];
        again.extend(self.each("logged: the daemon evaluates retransmissions", |family| {
            vec![
                Statement::Lookup { set: family.answered.spec(), key: family.port() },
                log(ANSWERED_PREFIX, group),
                goto(SLOW_ANSWER),
            ]
        }));
        again.push(rule("", [log(SILENT_PREFIX, group), silence()]));

        let new_answered = |memory| {
            let mut rules = self.each("", |family| {
                vec![add(family.answered, family.port(), memory), goto(SLOW_ANSWERED)]
            });
            rules.push(rule("the set is full", [Statement::Counter, silence()]));
            rules
        };
        let decided = |answered| {
            [
                rule(
                    "a random half of the ports is answered; no sender can predict which",
                    [is(Selector::Random(2), 0), goto(answered)],
                ),
                rule("", [goto(SLOW_SILENT)]),
            ]
        };
        let mut new = self.each("far past the trigger after so many ports", |family| {
            vec![tally(family), update(family.far, family.source, memory)]
        });
        let mut flood = new.clone();
        new.extend(decided(SLOW_NEW_ANSWERED));
        flood.extend(self.each("of the others there are too many", |family| {
            vec![is_not_in(family.source, family.far), goto(SLOW_SILENT)]
        }));
        let over = Statement::LimitOver { rate: PROBED_FLOOD_RATE, burst: PROBED_BURST };
        flood.extend(self.each(
            "more than can be remembered: who goes on waits for the second retransmission, as no proof is possible",
            |family| {
                vec![
                    is_in(family.source, family.far),
                    over.clone(),
                    update(family.patient, family.source, memory),
                    goto(SLOW_SILENT),
                ]
            },
        ));
        flood.extend(self.each("remembered for a short time", |family| {
            vec![add(family.probed, family.port(), PROBED_SHORT), goto(SLOW_FLOOD_NEW)]
        }));
        flood.push(rule("the set is full", [Statement::Counter, silence()]));
        let long = PROBED_LONG / memory.as_secs().max(1);
        let long = u32::try_from(long).unwrap_or(PROBED_FLOOD_RATE).clamp(1, PROBED_FLOOD_RATE);

        let renewed = self.slow_renewed();
        let mut datagram = renewed.clone();
        datagram.push(rule("", [goto(SLOW_SILENT)]));
        let mut probe = renewed;
        for (why, ports, sources) in
            [("a port that it probed before", answered, blind), ("", probed, patient)]
        {
            probe.extend(self.each(why, |family| {
                let lookup = Statement::Lookup { set: ports(family).spec(), key: family.port() };
                vec![lookup, update(sources(family), family.source, memory)]
            }));
            // A rule of its own, which matches when the set of sources is full too.
            probe.extend(self.each("", known(ports, SLOW_AGAIN)));
        }
        probe.push(rule(
            "a new port, of more than can be remembered for that long",
            [Statement::LimitOver { rate: long, burst: PROBED_BURST }, goto(SLOW_FLOOD)],
        ));
        probe.extend(self.each("a new port", |family| {
            vec![add(family.probed, family.port(), memory), goto(SLOW_NEW)]
        }));
        probe.push(rule("the set is full", [goto(SLOW_FLOOD)]));

        let mut other = self.count_drops("counted as dropped");
        other.push(rule("", [goto(SLOW_SILENT)]));

        let mut chains = self.slow_segment_chains();
        chains.extend([
            self.slow_drop(),
            self.slow_chain(),
            chain(SLOW_ANSWER, answer),
            chain(
                SLOW_ANSWERED,
                vec![
                    past_rate("some are enough", STILL_RATE, STILL_RATE, goto(SLOW_ANSWER)),
                    rule("", [log(STILL_PREFIX, group), goto(SLOW_ANSWER)]),
                ],
            ),
            chain(
                SLOW_SILENT,
                vec![
                    past_rate("some are enough", STILL_RATE, STILL_RATE, silence()),
                    rule("", [log(STILL_PREFIX, group), silence()]),
                ],
            ),
            chain(SLOW_OTHER, other),
            chain(SLOW_AGAIN_UNLOGGED, again_unlogged),
            chain(SLOW_AGAIN, again),
            chain(SLOW_NEW_ANSWERED, new_answered(memory)),
            chain(SLOW_NEW, new),
            chain(SLOW_FLOOD_ANSWERED, new_answered(PROBED_SHORT)),
            chain(SLOW_FLOOD_NEW, decided(SLOW_FLOOD_ANSWERED).into()),
            chain(SLOW_FLOOD, flood),
            chain(SLOW_DATAGRAM, datagram),
            chain(SLOW_PROBE, probe),
        ]);
        chains
    }

    /// For `forwarded`: new connections of slowed sources, and segments out of order.
    pub(super) fn slow_forwarded(&self) -> Vec<Rule> {
        let mut rules = self
            .each("the allow list", |family| vec![is_in(family.address, family.allowed), back()]);
        rules.extend(self.slow_connections("a slowed source's new connection"));
        rules.extend(self.slow_segments_to_published());
        rules
    }
}

fn set(id: SetId, comment: &'static str) -> Set {
    Set { timeouts: true, size: Some(SIZE), comment: Some(comment), ..Set::plain(id, Owner::Rules) }
}

/// The sets of [`paced`].
pub(super) fn paced_sets() -> Vec<Set> {
    let of = |family: Family| set(family.paced, "some packets of a source; never looked up");
    Family::both(128).map(of).into()
}

pub(super) fn add(set: SetId, key: Vec<Selector>, timeout: Duration) -> Statement {
    Statement::Add { set: set.spec(), key, timeout: Some(timeout) }
}

/// Counts and drops a source's packets over the pace.
pub(super) fn paced(family: Family) -> [Statement; 3] {
    [
        Statement::Update {
            set: family.paced.spec(),
            key: vec![family.source],
            timeout: Some(ASKED),
            over: Some(PACE),
        },
        Statement::Counter,
        drop(),
    ]
}
