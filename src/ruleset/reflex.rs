//! The reflex: the rules count the distinct ports of a source themselves, and hold a source from
//! the packet that exceeds the trigger.
//!
//! A hold is a guess: its source is treated as a slowed one (`slow`), so that a hold of a forged
//! address does little harm. The same packet is logged; the daemon then slows the source, replaces
//! the hold by a block, or removes it.
//!
//! What is counted. `seen` has the ports that a source probed within the window, so that each
//! counts once; `score` has a token bucket for each source, from which every new port takes a
//! token; `suspect` has the sources that were counted. No rule ever looks up `score`: a lookup
//! evaluates the bucket and would spend a token. IPv6 sources are accounts of `block.ipv6.first`
//! bits; prefixes of several are left to the daemon.
//!
//! What the bucket approximates. It has as many tokens as ports may be probed without reaction, and
//! regains that many within a window. A source that probes one port more within much less than a
//! window is held from exactly that port, as the engine would decide. One that takes nearly the
//! whole window for it gains a token meanwhile and is left to the daemon. The bucket never holds a
//! source that the engine would not block: over any time it allows at least as many ports as the
//! sliding window does, since a port counts at most once in a window. Two exceptions, each ended by
//! the daemon's release: a port that two processors see at the same moment counts twice, and so
//! does one that is probed again after the short memory of a flood.
//!
//! What is not counted here, and left to the daemon: evidence that never triggers alone
//! (out-of-state segments and datagrams), handshakes with decoys, bare IP protocols, and SCTP,
//! since no rule can see whether an SCTP endpoint receives the packet.
//!
//! In a flood from spoofed sources there are three tiers, so that the sets stay below their size
//! and the daemon's socket does not overflow: known sources, and some new ones, are remembered for
//! the window and logged; more are remembered for some seconds; packets beyond that are counted and
//! dropped. If a set is full, its rule ends, and the packet is logged as without the reflex.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::family::{Family, each};
use super::sets::SetId;
use super::slow::SLOW;
use super::slowed_packets;
use super::statements::{
    LOG_PREFIX, PROBE, back, chain, drop, goto, is, is_in, log, matches, rule, update,
};
use super::unproven::STILL;
use crate::config::Config;
use crate::nft::decode::RuleInfo;
use crate::nft::expr::{Expr, VerdictCode};
use crate::nft::model::{
    Chain, Op, Operand, Owner, Rate, Rule, Ruleset, Selector, Set, Statement, Unit,
};
use crate::probe::{FIRST_UNPRIVILEGED, RESERVED, TRACEPATH, TRACEROUTE, UDP_SERVICES};

/// The start of the prefix of every packet that made the rules hold its source.
pub(crate) const HELD_PREFIX: &str = "portsentry: held ";

/// The start of the prefix of a probe from a source that is held, or blocked and not proven: the
/// daemon has to know which sources continue.
pub(crate) const STILL_PREFIX: &str = "portsentry: still ";

/// The entry: a probe that counts.
pub(super) const REFLEX: &str = "reflex";
const HELD: &str = "held";
const HOLD: &str = "hold";
const HOLD_FLOOD: &str = "hold_flood";
const AGAIN: &str = "again";
const SUSPECT: &str = "suspect";
const SCORE: &str = "score";
const SCORE_SUSPECT: &str = "score_suspect";
const SCORE_FLOOD: &str = "score_flood";
const COUNT_SUSPECT: &str = "count_suspect";
const COUNT_FLOOD: &str = "count_flood";
/// The entry for a SYN that a decoy answers.
pub(super) const DECOY_COUNT: &str = "decoy_count";

/// Most elements of each set: more than the tiers admit, see below. A full set costs 23 to 71 MB of
/// the kernel's memory (82 bytes an address, 115 a probed port, 178 a bucket; measured on Linux
/// 6.18).
const SIZE: u32 = 400_000;
/// Log messages per second, for each kind: probes of new sources, of suspects, of sources that are
/// held.
pub(super) const LOG_RATE: u32 = 2000;
/// Log messages at once: a scan of some thousand ports.
pub(super) const LOG_BURST: u32 = 4000;
/// Log messages per second for repeated probes of the same port, which are worth little. A
/// retransmission is one of some packets a second.
const REPEAT_RATE: u32 = 500;
const REPEAT_BURST: u32 = 1000;
/// Most new sources that are remembered for the whole window at a time.
const LONG_MAX: u64 = 131_072;
/// New sources a second that are remembered for [`SHORT`]: 50,000 * 4 and the burst are 250,000,
/// with [`LONG_MAX`] below [`SIZE`].
const FLOOD_RATE: u32 = 50_000;
const FLOOD_BURST: u32 = 50_000;
/// New holds a second that are not logged: 60,000 * 4 and the burst are 300,000. Logged ones, 2 *
/// 2000 a second for [`HOLD_TIME`] and their bursts, are 48,000 more, which is below [`SIZE`] too.
const HOLD_FLOOD_RATE: u32 = 60_000;
const HOLD_FLOOD_BURST: u32 = 60_000;
/// How long a flood's sources are remembered, and held. Longer than `nmap -T5` takes for a thousand
/// ports; short, because a flood's sources are spoofed.
const SHORT: Duration = Duration::from_secs(4);
/// How long a source is held whose hold was logged: the daemon answers within microseconds, after a
/// stall of a loaded machine within a second.
const HOLD_TIME: Duration = Duration::from_secs(10);
/// How many bits of an IPv6 source the rules hold it by; `None` if they hold no source.
pub fn held_prefix(ruleset: &Ruleset) -> Option<u8> {
    ruleset.statements().find_map(|statement| match statement {
        Statement::Match {
            selector: Selector::Ip6SaddrPrefix(bits),
            operand: Operand::Set(set),
            ..
        } if *set == SetId::Held6 => Some(*bits),
        _ => None,
    })
}

/// What the reflex did, by the counters of its rules, since these rules were installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Packets of sources that are held, slowed, or blocked and not proven, which were dropped and
    /// not logged.
    pub dropped: u64,
    /// Holds that were not logged, because too many came at once.
    pub unlogged_holds: u64,
    /// Other probes that were counted, or were known, and were not logged.
    pub unlogged: u64,
    /// Probes that were neither counted nor logged: a flood beyond every tier.
    pub shed: u64,
    /// Probes for which a set was full, left to the daemon.
    pub no_room: u64,
}

impl Tally {
    /// Reads the counters of the rules as the kernel has them.
    pub fn of(rules: &[RuleInfo]) -> Self {
        let mut tally = Self::default();
        for rule in rules {
            let counted = rule.expressions.iter().find_map(|expr| {
                if let Expr::Counter { packets, .. } = expr { Some(*packets) } else { None }
            });
            let (Some(packets), Some(place)) = (counted, tally.place(rule)) else { continue };
            *place = place.saturating_add(packets);
        }
        tally
    }

    /// Which figure a rule with a counter belongs to; `None`: none of these.
    fn place(&mut self, rule: &RuleInfo) -> Option<&mut u64> {
        let has = |wanted: fn(&Expr) -> bool| rule.expressions.iter().any(wanted);
        match rule.chain.as_str() {
            SLOW if has(|expr| match expr {
                Expr::Verdict(VerdictCode::Goto(to)) => slowed_packets::is_drop(to),
                other => matches!(other, Expr::Verdict(VerdictCode::Drop)),
            }) =>
            {
                Some(&mut self.dropped)
            }
            STILL => Some(&mut self.dropped),
            REFLEX | HOLD | COUNT_SUSPECT | COUNT_FLOOD | HOLD_FLOOD
                if has(
                    |expr| matches!(expr, Expr::Verdict(VerdictCode::Goto(to)) if to == PROBE),
                ) =>
            {
                Some(&mut self.no_room)
            }
            HOLD_FLOOD if has(|expr| matches!(expr, Expr::Dynset { .. })) => {
                Some(&mut self.unlogged_holds)
            }
            HOLD_FLOOD | COUNT_FLOOD => Some(&mut self.shed),
            PROBE | AGAIN | SUSPECT | SCORE_FLOOD => Some(&mut self.unlogged),
            _ => None,
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_add(other.dropped),
            unlogged_holds: self.unlogged_holds.saturating_add(other.unlogged_holds),
            unlogged: self.unlogged.saturating_add(other.unlogged),
            shed: self.shed.saturating_add(other.shed),
            no_room: self.no_room.saturating_add(other.no_room),
        }
    }
}

/// The reflex of a configuration.
pub(super) struct Reflex {
    trigger: u16,
    /// In whole seconds, at least one.
    window: u64,
    prefix: u8,
    /// How long a hold lasts if the daemon does not release it; never longer than the block would
    /// be.
    hold: Duration,
    /// The verdict for a probe below the trigger.
    end: Statement,
    group: u16,
}

impl Reflex {
    /// The reflex of `config`; `None` if it is off, or has nothing to count.
    pub(super) fn of(config: &Config, end: Statement) -> Option<Self> {
        let wanted = config.has_reflex(&config.tcp) || config.has_reflex(&config.udp);
        wanted.then(|| Self {
            trigger: config.scan_trigger,
            window: u64::try_from(config.scan_window.as_millis().div_ceil(1000))
                .unwrap_or(u64::MAX)
                .max(1),
            prefix: config.block.ipv6.first,
            hold: if config.slows() {
                config.block.unproven.timeout
            } else {
                Duration::from_secs(
                    config.block.unproven.timeout.as_secs().clamp(1, HOLD_TIME.as_secs()),
                )
            },
            end,
            group: config.capture.group,
        })
    }

    fn each(&self, why: &'static str, statements: impl Fn(Family) -> Vec<Statement>) -> Vec<Rule> {
        each(Family::both(self.prefix), why, statements)
    }

    /// At trigger 0 nothing is counted: the first port exceeds it.
    fn counts(&self) -> bool {
        self.trigger > 0
    }

    pub(super) fn sets(&self) -> Vec<Set> {
        let set = |id: SetId, comment| Set {
            timeouts: true,
            size: Some(SIZE),
            comment: Some(comment),
            ..Set::plain(id, Owner::Rules)
        };
        let mut sets = Vec::new();
        for family in Family::both(self.prefix) {
            if self.counts() {
                sets.push(set(family.seen, "ports that a source touched"));
                sets.push(set(family.score, "distinct ports of a source; never looked up"));
            }
            sets.push(set(family.suspect, "sources that touched a closed port"));
        }
        sets
    }

    /// For `probe`: packets beyond the rate are counted, and not logged.
    pub(super) fn admission(&self) -> Rule {
        past_rate(
            "a flood: packets that are not logged are counted",
            LOG_RATE,
            LOG_BURST,
            self.end.clone(),
        )
    }

    /// The chains between those that classify and those that log, each before the chains that jump
    /// to it.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains = vec![chain(
            HELD,
            vec![rule(
                "logged, so that the daemon decides: a block, or a release",
                [log(HELD_PREFIX, self.group), drop()],
            )],
        )];
        chains.push(self.hold_flood());
        let mut hold = vec![rule(
            "not more than the daemon can read",
            [Statement::LimitOver { rate: LOG_RATE, burst: LOG_BURST }, goto(HOLD_FLOOD)],
        )];
        hold.extend(
            self.each("held from this packet on: its bucket has no tokens left", |family| {
                vec![update(family.held, family.source, self.hold), goto(HELD)]
            }),
        );
        hold.push(no_room());
        if self.counts() {
            chains.push(chain(HOLD, hold));
            chains.extend(self.counting());
            return chains;
        }
        chains.push(chain(HOLD, hold.clone()));
        // A source that was held in a flood and sends again is not part of the flood: log it at a
        // separate rate.
        let mut first = self.spared();
        first.extend(self.each("a known source", |family| {
            vec![is_in(family.source, family.suspect), goto(HOLD)]
        }));
        first.append(&mut hold);
        chains.push(chain(REFLEX, first));
        chains
    }

    /// For connect mode: a chain that counts the port of a SYN which a decoy answers, and holds the
    /// source from the one that exceeds the trigger. That one is answered too, since its handshake
    /// may be the proof. Called for no more SYNs than decoys answer, so that the sets have room.
    pub(super) fn decoys(&self) -> Chain {
        let window = Duration::from_secs(self.window);
        let held = |family: Family| {
            [update(family.held, family.source, self.hold), log(HELD_PREFIX, self.group)]
        };
        let why = "sources that are never blocked are never held";
        let mut rules = self.each(why, |family| vec![is_in(family.address, family.spared), back()]);
        if !self.counts() {
            rules.extend(self.each("held from the first SYN on", |family| held(family).into()));
            return chain(DECOY_COUNT, rules);
        }
        rules.extend(self.each("a port counts once in a window", |family| {
            vec![Statement::Lookup { set: family.seen.spec(), key: family.port() }, back()]
        }));
        let over = Some(refill(self.trigger, self.window));
        let why = "held, and logged once more, with one port more than the trigger allows";
        rules.extend(self.each(why, |family| {
            let timeout = Some(window);
            let mut statements = vec![
                Statement::Add { set: family.seen.spec(), key: family.port(), timeout },
                Statement::Update {
                    set: family.score.spec(),
                    key: vec![family.source],
                    timeout,
                    over,
                },
            ];
            statements.extend(held(family));
            statements
        }));
        chain(DECOY_COUNT, rules)
    }

    /// The allow list was accepted before; but a prefix is more than the allowed address in it, and
    /// some networks are exempt without being listed.
    fn spared(&self) -> Vec<Rule> {
        self.each("sources that are never blocked are never held", |family| {
            vec![is_in(family.address, family.spared), goto(PROBE)]
        })
    }

    fn hold_flood(&self) -> Chain {
        let short = SHORT.min(self.hold);
        let mut rules = vec![past_rate(
            "a flood over all limits: counted and dropped",
            HOLD_FLOOD_RATE,
            HOLD_FLOOD_BURST,
            drop(),
        )];
        if !self.counts() {
            rules.extend(self.each("a known source is not part of the flood", |family| {
                vec![update(family.suspect, family.source, SHORT + self.hold)]
            }));
        }
        rules.extend(self.each("held for a short time, and counted instead of logged", |family| {
            vec![update(family.held, family.source, short), Statement::Counter, drop()]
        }));
        rules.push(no_room());
        chain(HOLD_FLOOD, rules)
    }

    /// Trigger 1 and more.
    fn counting(&self) -> Vec<Chain> {
        let window = Duration::from_secs(self.window);
        let again = vec![
            past_rate(
                "a repeated port: logged at a rate of its own",
                REPEAT_RATE,
                REPEAT_BURST,
                self.end.clone(),
            ),
            self.log_only(),
        ];
        let suspect = vec![
            past_rate(
                "a rate of their own, which a flood of new sources cannot use up",
                LOG_RATE,
                LOG_BURST,
                self.end.clone(),
            ),
            self.log_only(),
        ];
        let mut reflex = self.spared();
        reflex.extend(self.each("a port counts once in a window", |family| {
            vec![Statement::Lookup { set: family.seen.spec(), key: family.port() }, goto(AGAIN)]
        }));
        reflex.extend(self.each("a suspect is always counted", |family| {
            vec![is_in(family.source, family.suspect), goto(COUNT_SUSPECT)]
        }));
        let long = u32::try_from(LONG_MAX / self.window).unwrap_or(LOG_RATE).clamp(1, LOG_RATE);
        reflex.push(rule(
            "more new sources than can be remembered for the whole window",
            [Statement::LimitOver { rate: long, burst: LOG_BURST }, goto(COUNT_FLOOD)],
        ));
        reflex.extend(self.count(window, SCORE));
        let mut flood = vec![past_rate(
            "a flood over all limits: only counted",
            FLOOD_RATE,
            FLOOD_BURST,
            self.end.clone(),
        )];
        flood.extend(self.count(SHORT, SCORE_FLOOD));
        vec![
            chain(AGAIN, again),
            chain(SUSPECT, suspect),
            chain(SCORE, self.score(window, goto(PROBE))),
            chain(SCORE_SUSPECT, self.score(window, goto(SUSPECT))),
            // Below the trigger, in a flood: not logged.
            {
                let mut rules = self.score(SHORT, Statement::Counter);
                if let Some(last) = rules.last_mut() {
                    last.statements.push(self.end.clone());
                }
                chain(SCORE_FLOOD, rules)
            },
            chain(COUNT_SUSPECT, self.count(window, SCORE_SUSPECT)),
            chain(COUNT_FLOOD, flood),
            chain(REFLEX, reflex),
        ]
    }

    /// Remembers source and port for this time, and continues with the score.
    fn count(&self, memory: Duration, score: &'static str) -> Vec<Rule> {
        let mut rules: Vec<_> = self.each("", |family| {
            vec![
                update(family.suspect, family.source, memory),
                Statement::Add {
                    set: family.seen.spec(),
                    key: family.port(),
                    timeout: Some(memory),
                },
                goto(score),
            ]
        });
        rules.push(no_room());
        rules
    }

    /// Takes a token; a source that has none left is held. `below` is the statement for the others.
    fn score(&self, memory: Duration, below: Statement) -> Vec<Rule> {
        let over = Some(refill(self.trigger, self.window));
        let mut rules: Vec<_> = self.each("one port more than the trigger allows", |family| {
            vec![
                Statement::Update {
                    set: family.score.spec(),
                    key: vec![family.source],
                    timeout: Some(memory),
                    over,
                },
                goto(HOLD),
            ]
        });
        rules.push(rule("not yet", [below]));
        rules
    }

    fn log_only(&self) -> Rule {
        rule("", [log(LOG_PREFIX, self.group), self.end.clone()])
    }
}

/// The sets of held or slowed sources, and of those that never are.
pub(super) fn held_sets() -> Vec<Set> {
    // The prefix is of no account to the sets.
    let of = |family: Family| {
        [
            Set {
                timeouts: true,
                size: Some(SIZE),
                comment: Some("sources over the trigger, until the daemon decides"),
                ..Set::plain(family.held, Owner::Rules)
            },
            Set {
                comment: Some("never held, because never blocked"),
                ..Set::plain(family.spared, Owner::Daemon)
            },
        ]
    };
    Family::both(128).into_iter().flat_map(of).collect()
}

/// A rule that counts packets beyond a rate and ends with `end`.
pub(super) fn past_rate(why: &'static str, rate: u32, burst: u32, end: Statement) -> Rule {
    rule(why, [Statement::LimitOver { rate, burst }, Statement::Counter, end])
}

/// Probes of `udp_probe` that do not count: they may be a late answer or a traceroute.
pub(super) fn udp_not_counted(ephemeral: Option<Operand>) -> Vec<Rule> {
    let to = |ports: RangeInclusive<u16>| {
        let (first, last) = ports.into_inner();
        matches(Selector::UdpDport, Op::Eq, Operand::Ports(first, last))
    };
    let mut rules = vec![rule(
        "late answers look the same",
        [
            matches(Selector::UdpSport, Op::Lt, Operand::Number(FIRST_UNPRIVILEGED.into())),
            goto(PROBE),
        ],
    )];
    rules.extend(
        UDP_SERVICES.map(|port| rule("", [is(Selector::UdpSport, port.into()), goto(PROBE)])),
    );
    rules.extend([
        rule("answers to clients with a reserved port look the same", [to(RESERVED), goto(PROBE)]),
        rule("mtr, traceroute and tracepath look the same", [to(TRACEROUTE), goto(PROBE)]),
        rule("", [to(TRACEPATH), goto(PROBE)]),
    ]);
    rules.extend(
        ephemeral.map(|range| rule("", [matches(Selector::UdpDport, Op::Eq, range), goto(PROBE)])),
    );
    rules
}

/// A set is full: the packet is handled as without the reflex.
fn no_room() -> Rule {
    rule("the set is full: the daemon counts", [Statement::Counter, goto(PROBE)])
}

/// The bucket of a source: `trigger` tokens at once, and at least as many regained within the
/// window. In the shortest unit that needs no rounding.
fn refill(trigger: u16, window: u64) -> Rate {
    let tokens = u64::from(trigger);
    let exact = Unit::ALL.into_iter().find_map(|per| {
        let packets = tokens * per.seconds();
        (packets >= window && packets.is_multiple_of(window)).then(|| (packets / window, per))
    });
    let (packets, per) =
        exact.unwrap_or_else(|| ((tokens * Unit::Week.seconds()).div_ceil(window), Unit::Week));
    Rate { packets: packets.max(1), per, burst: u32::from(trigger) }
}

#[cfg(test)]
mod tests;
