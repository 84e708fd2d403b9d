//! Known sources: those that completed some connections with our services lately. Some closed ports
//! of each are excused, which means that neither the rules nor the daemon count them: a gateway with
//! many users, a mail program that guesses and a monitor touch closed ports too.
//!
//! A scanner can complete connections as well, so the slack is small, and is regained within a day.
//! It buys closed ports that do not count, and nothing else. An address that does not get our answers
//! completes no connection. An IPv6 source counts by its prefix: its addresses cost nothing.
//!
//! Only SYNs are excused. Once a source is slowed or blocked, nothing is.

use std::time::Duration;

use super::Builder;
use super::decoy::DECOY_SYN;
use super::family::{Family, each};
use super::reflex::REFLEX;
use super::sets::SetId;
use super::statements::{PROBE, back, chain, drop, goto, is, is_in, jump, opens, rule, update};
use crate::config::{ClosedPorts, Config, Ipv6Accounts};
use crate::nft::model::{
    Chain, Owner, Rate, Rule, Selector, Set, Statement, Unit, ct_state, tcp_flag,
};

const COMPLETED: &str = "completed";
const KNOWN: &str = "known";
const KNOWN_DECOY: &str = "known_decoy";

/// Completed connections that make a source known; each counts for [`COMPLETED_MEMORY`] after the
/// last one.
pub(crate) const CONNECTIONS: u32 = 5;
pub(crate) const COMPLETED_MEMORY: Duration = Duration::from_secs(3600);
/// How long a source is known after the last of them, and how long a port is excused after its last
/// probe.
pub(crate) const KNOWN_MEMORY: Duration = Duration::from_secs(86_400);
/// Closed ports of a source that are excused within a day: a member of a domain tries seven, a mail
/// program as many.
pub(crate) const SLACK: u32 = 8;
const SLACK_RATE: Rate = Rate { packets: SLACK as u64, per: Unit::Day, burst: SLACK };
/// Maximum elements of each set: 12 MB of the kernel's memory for the largest. Beyond it, further
/// sources are treated as unknown ones.
pub(crate) const SIZE: u32 = 65_536;

/// Whether ports are excused at all: at trigger 0 the first closed port counts, whose ever it is.
pub(crate) fn excuses(config: &Config) -> bool {
    config.scan_trigger > 0 && config.may_block(&config.tcp)
}

/// Bits of an IPv6 address that known sources have in common.
pub(crate) fn prefix_len(ipv6: Ipv6Accounts) -> u8 {
    ipv6.prefix().unwrap_or(ipv6.first)
}

impl Builder<'_> {
    fn each_known(&self, why: &'static str, of: impl Fn(Family) -> Vec<Statement>) -> Vec<Rule> {
        each(Family::both(prefix_len(self.config.block.ipv6)), why, of)
    }

    pub(super) fn known_sets(&self) -> Vec<Set> {
        if !excuses(self.config) {
            return Vec::new();
        }
        let set = |id: SetId, comment| Set {
            timeouts: true,
            size: Some(SIZE),
            comment: Some(comment),
            ..Set::plain(id, Owner::Rules)
        };
        // The prefix is of no account to the sets.
        let of = |family: Family| {
            [
                set(family.completed, "completed connections of a source; never looked up"),
                set(family.known, "sources that completed some connections"),
                set(family.slack, "ports of a known source that do not count; never looked up"),
                set(family.excused, "ports of known sources that do not count"),
            ]
        };
        Family::both(128).into_iter().flat_map(of).collect()
    }

    /// For the chains that let live connections pass, before they do. `to`: what tells connections
    /// to services from others.
    pub(super) fn completions(&self, to: Statement) -> Option<Rule> {
        excuses(self.config).then(|| {
            let ends = Statement::TcpFlags { mask: tcp_flag::FIN, value: tcp_flag::FIN };
            rule(
                "a client ends a connection",
                [
                    ends,
                    Statement::CtState(ct_state::ESTABLISHED),
                    // Old segments of a connection, and forged ones that look like these, have that
                    // state too.
                    Statement::CtAssured,
                    Statement::CtOriginal,
                    to,
                    jump(COMPLETED),
                ],
            )
        })
    }

    /// A socket of a service, and not a decoy's.
    pub(super) fn of_service() -> Statement {
        is(Selector::SocketTransparent, 0)
    }

    /// For the chains that classify opening packets: those of known sources go to `to`.
    fn known_to(&self, to: &'static str) -> Vec<Rule> {
        if !excuses(self.config) {
            return Vec::new();
        }
        self.each_known("a source that completed connections with services", |family| {
            vec![opens(), is_in(family.source, family.known), goto(to)]
        })
    }

    pub(super) fn known_probes(&self) -> Vec<Rule> {
        self.known_to(KNOWN)
    }

    pub(super) fn known_decoys(&self) -> Vec<Rule> {
        self.known_to(KNOWN_DECOY)
    }

    /// The chains for `watch` and `forwarded`.
    pub(super) fn known_chains(&self) -> Vec<Chain> {
        if !excuses(self.config) {
            return Vec::new();
        }
        let over = Some(Rate { packets: 1, per: Unit::Week, burst: CONNECTIONS - 1 });
        let completed = self.each_known("known after some connections", |family| {
            vec![
                Statement::Update {
                    set: family.completed.spec(),
                    key: vec![family.source],
                    timeout: Some(COMPLETED_MEMORY),
                    over,
                },
                update(family.known, family.source, KNOWN_MEMORY),
            ]
        });
        // With decoys, the daemon counts.
        let counted = self.config.has_reflex(&self.config.tcp) && !self.tcp_decoys;
        let end = if self.config.closed_ports == ClosedPorts::Drop { drop() } else { back() };
        vec![
            chain(COMPLETED, completed),
            self.known(KNOWN, &end, if counted { REFLEX } else { PROBE }),
        ]
    }

    /// The chain for decoys: an excused port has none.
    pub(super) fn known_decoy(&self) -> Option<Chain> {
        excuses(self.config).then(|| self.known(KNOWN_DECOY, &back(), DECOY_SYN))
    }

    /// `end` of the packets that are excused; the others go to `counted`.
    fn known(&self, name: &'static str, end: &Statement, counted: &'static str) -> Chain {
        let mut rules = self.each_known("an excused port, until it is left alone", |family| {
            vec![
                Statement::Lookup { set: family.excused.spec(), key: family.port() },
                Statement::Update {
                    set: family.excused.spec(),
                    key: family.port(),
                    timeout: Some(KNOWN_MEMORY),
                    over: None,
                },
                Statement::Counter,
                end.clone(),
            ]
        });
        rules.extend(self.each_known("more ports than are excused within a day", |family| {
            vec![
                Statement::Update {
                    set: family.slack.spec(),
                    key: vec![family.source],
                    timeout: Some(KNOWN_MEMORY),
                    over: Some(SLACK_RATE),
                },
                goto(counted),
            ]
        }));
        rules.extend(self.each_known("excused: neither counted nor logged", |family| {
            vec![
                Statement::Add {
                    set: family.excused.spec(),
                    key: family.port(),
                    timeout: Some(KNOWN_MEMORY),
                },
                Statement::Counter,
                end.clone(),
            ]
        }));
        rules.push(rule("the set is full", [goto(counted)]));
        chain(name, rules)
    }
}
