//! The reflex: the rules count the distinct ports of a source themselves, and hold a source that passes the trigger, in the same packet.
//!
//! A hold is a guess that lasts some seconds: the daemon hears of it by the same log message, and puts a block in its place or takes it out.
//!
//! Who is counted. `seen` has the ports that a source touched within the window, so that one counts once; `score` has a token bucket for each
//! source, which every new port takes a token of; `suspect` has the sources that were counted. No rule ever looks into `score`: a lookup
//! evaluates the bucket and would spend a token. IPv6 sources are prefixes, as everywhere.
//!
//! What the bucket approximates. It has as many tokens as ports may be touched without reaction, and gets that many anew within a window. A
//! source that touches one port more within much less than a window is held with exactly that port, as the daemon's ledger would have it. One
//! that takes nearly the whole window for it gains a token meanwhile and is left to the daemon. The bucket never holds a source that
//! the ledger would let be: over any time it lets at least as many ports pass as the sliding window does, since a port counts at most once in
//! a window. Two exceptions, each ended by the daemon's release: a port that two processors see at the same moment counts twice, and so does one
//! that is touched again after the short memory of a flood.
//!
//! What is not counted here, and left to the daemon: evidence that never triggers alone (late segments, late datagrams), handshakes with decoys,
//! bare IP protocols, and SCTP, since no rule can see whether an SCTP endpoint takes the packet.
//!
//! Under a flood of invented sources there are three tiers, so that the sets stay below their size and the daemon's socket is not drowned:
//! what is known already, and some new sources, are remembered for the window and told; more are remembered for some seconds; what is past that is
//! counted and dropped. A set that is full makes its rule end, and the packet goes the daemon's own way.

use std::time::Duration;

use super::sets::SetId;
use super::statements::{LOG_PREFIX, PROBE, chain, drop, goto, is_in, matches, opens, rule, to_service};
use crate::config::Config;
use crate::nft::decode::RuleInfo;
use crate::nft::expr::{Expr, VerdictCode};
use crate::nft::model::{Chain, Op, Operand, Owner, Rate, Rule, Ruleset, Selector, Set, Statement, Unit};

/// The start of the prefix of every packet that made the rules hold its source.
pub const HELD_PREFIX: &str = "portsentry: held ";

/// The start of the prefix of a probe whose source is held already: the daemon shall know who goes on.
pub const STILL_PREFIX: &str = "portsentry: still ";

/// The entry: a probe that counts.
pub(super) const REFLEX: &str = "reflex";
const HELD: &str = "held";
const STILL: &str = "still";
const STILL_SYN: &str = "still_syn";
const HOLD: &str = "hold";
const HOLD_FLOOD: &str = "hold_flood";
const AGAIN: &str = "again";
const SUSPECT: &str = "suspect";
const SCORE: &str = "score";
const SCORE_SUSPECT: &str = "score_suspect";
const SCORE_FLOOD: &str = "score_flood";
const COUNT_SUSPECT: &str = "count_suspect";
const COUNT_FLOOD: &str = "count_flood";

/// Elements of each set, at most: more than the tiers let in, see below. A full set of each costs 23 to 71 MB of the kernel's memory (82 bytes
/// an address, 115 a touched port, 178 a bucket; measured on Linux 6.18).
const SIZE: u32 = 400_000;
/// Messages a second to the daemon, of each kind: probes of new sources, of suspects, of sources that are held.
const TOLD_RATE: u32 = 2000;
/// And so many at once: a scan of some thousand ports.
const TOLD_BURST: u32 = 4000;
/// Repeated probes of the same port tell the daemon little. A retransmission is one of some packets a second.
const AGAIN_RATE: u32 = 500;
const AGAIN_BURST: u32 = 1000;
/// Probes of sources that are held already. A flood's invented source is not seen again; a scanner is, and some probes of his are enough: they make the
/// difference when all blocks that unproven sources may have are used up.
const STILL_RATE: u32 = 500;
const STILL_BURST: u32 = 500;
/// New sources that are remembered for the whole window, at most at a time.
const LONG_MAX: u64 = 131_072;
/// New sources a second that are remembered for [`SHORT`]: 50,000 * 4 and the burst are 250,000, with [`LONG_MAX`] below [`SIZE`].
const FLOOD_RATE: u32 = 50_000;
const FLOOD_BURST: u32 = 50_000;
/// New holds a second without a word to the daemon: 60,000 * 4 and the burst are 300,000. Told ones, 2 * 2000 a second for [`HOLD_TIME`] and
/// their bursts, are 48,000 more, which is below [`SIZE`] too.
const HOLD_FLOOD_RATE: u32 = 60_000;
const HOLD_FLOOD_BURST: u32 = 60_000;
/// How long a flood's sources are remembered, and held. Longer than `nmap -T5` takes for a thousand ports; short, because a flood's sources are forged.
const SHORT: Duration = Duration::from_secs(4);
/// How long a source is held that the daemon was told of: it answers within microseconds, after a stall of a loaded machine within a second.
const HOLD_TIME: Duration = Duration::from_secs(10);
/// Ports that traceroute and tracepath send to, and those below which answers come from: see [`crate::probe`].
const FIRST_UNPRIVILEGED: u32 = 1024;
const TRACEROUTE: (u16, u16) = (33_434, 33_534);
const TRACEPATH: (u16, u16) = (44_444, 44_507);

/// How many bits of an IPv6 source the rules hold it by; `None` if they hold no source.
pub fn held_prefix(ruleset: &Ruleset) -> Option<u8> {
    let statements = ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
    statements.into_iter().find_map(|statement| match statement {
        Statement::Match { selector: Selector::Ip6SaddrPrefix(bits), operand: Operand::Set(set), .. } if *set == SetId::Held6 => Some(*bits),
        _ => None,
    })
}

/// What the reflex did, by the counters of its rules, since these rules were put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Packets of sources that were held, dropped by way of `gate` and not told.
    pub dropped: u64,
    /// Holds that the daemon was not told of, because too many came at once.
    pub untold_holds: u64,
    /// Other probes that were counted, or were known, and that the daemon was not told of.
    pub untold: u64,
    /// Probes that were neither counted nor told: a flood past every tier.
    pub shed: u64,
    /// Probes that found a set full, and were left to the daemon.
    pub no_room: u64,
}

impl Tally {
    /// Reads the counters of the rules as the kernel has them.
    pub fn of(rules: &[RuleInfo]) -> Self {
        let mut tally = Self::default();
        for rule in rules {
            let counted = rule.expressions.iter().find_map(|expr| if let Expr::Counter { packets, .. } = expr { Some(*packets) } else { None });
            let (Some(packets), Some(place)) = (counted, tally.place(rule)) else { continue };
            *place = place.saturating_add(packets);
        }
        tally
    }

    /// Which figure a rule with a counter belongs to; `None`: none of these.
    fn place(&mut self, rule: &RuleInfo) -> Option<&mut u64> {
        let has = |wanted: fn(&Expr) -> bool| rule.expressions.iter().any(wanted);
        match rule.chain.as_str() {
            STILL | STILL_SYN => Some(&mut self.dropped),
            REFLEX | HOLD | COUNT_SUSPECT | COUNT_FLOOD | HOLD_FLOOD
                if has(|expr| matches!(expr, Expr::Verdict(VerdictCode::Goto(to)) if to == PROBE)) =>
            {
                Some(&mut self.no_room)
            }
            HOLD_FLOOD if has(|expr| matches!(expr, Expr::Dynset { .. })) => Some(&mut self.untold_holds),
            HOLD_FLOOD | COUNT_FLOOD => Some(&mut self.shed),
            PROBE | AGAIN | SUSPECT | SCORE_FLOOD => Some(&mut self.untold),
            _ => None,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_add(other.dropped),
            untold_holds: self.untold_holds.saturating_add(other.untold_holds),
            untold: self.untold.saturating_add(other.untold),
            shed: self.shed.saturating_add(other.shed),
            no_room: self.no_room.saturating_add(other.no_room),
        }
    }
}

/// The reflex of a configuration.
pub(super) struct Reflex {
    trigger: u16,
    /// TCP probes count.
    tcp: bool,
    /// In whole seconds, at least one.
    window: u64,
    prefix: u8,
    /// How long a hold lasts that nobody ends: never longer than the block that it stands for.
    hold: Duration,
    /// What becomes of a probe below the trigger.
    end: Statement,
    /// A log statement with this prefix.
    log: fn(&'static str, u16) -> Statement,
    group: u16,
}

/// One version of IP: what a source is, and its sets.
#[derive(Clone, Copy)]
struct Family {
    source: Selector,
    address: Selector,
    allowed: SetId,
    seen: SetId,
    score: SetId,
    suspect: SetId,
    held: SetId,
    spared: SetId,
}

impl Reflex {
    /// The reflex that `config` asks for; `None` if it has none, or nothing that it could count.
    pub(super) fn of(config: &Config, end: Statement, log: fn(&'static str, u16) -> Statement) -> Option<Self> {
        let wanted = config.has_reflex(&config.tcp) || config.has_reflex(&config.udp);
        wanted.then(|| Self {
            trigger: config.scan_trigger,
            tcp: config.has_reflex(&config.tcp),
            window: config.scan_window.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1),
            prefix: config.block.ipv6_prefix,
            hold: Duration::from_secs(config.block.unproven.timeout.as_secs().clamp(1, HOLD_TIME.as_secs())),
            end,
            log,
            group: config.capture.group,
        })
    }

    fn families(&self) -> [Family; 2] {
        [
            Family {
                source: Selector::Ip4Saddr,
                address: Selector::Ip4Saddr,
                allowed: SetId::Allowed4,
                seen: SetId::Seen4,
                score: SetId::Score4,
                suspect: SetId::Suspect4,
                held: SetId::Held4,
                spared: SetId::Spared4,
            },
            Family {
                source: Selector::Ip6SaddrPrefix(self.prefix),
                address: Selector::Ip6Saddr,
                allowed: SetId::Allowed6,
                seen: SetId::Seen6,
                score: SetId::Score6,
                suspect: SetId::Suspect6,
                held: SetId::Held6,
                spared: SetId::Spared6,
            },
        ]
    }

    /// A rule for each version of IP; the first says why.
    fn each(&self, why: &'static str, statements: impl Fn(Family) -> Vec<Statement>) -> impl Iterator<Item = Rule> {
        self.families().into_iter().enumerate().map(move |(number, family)| rule(if number == 0 { why } else { "" }, statements(family)))
    }

    /// Counting needs no memory at trigger 0: the first port is the one.
    fn counts(&self) -> bool {
        self.trigger > 0
    }

    pub(super) fn sets(&self) -> Vec<Set> {
        let set = |id: SetId, comment| Set { timeouts: true, size: Some(SIZE), comment: Some(comment), ..Set::plain(id, Owner::Rules) };
        let mut sets = Vec::new();
        for family in self.families() {
            if self.counts() {
                sets.push(set(family.seen, "ports that a source touched"));
                sets.push(set(family.score, "distinct ports of a source; never looked up"));
            }
            sets.push(set(family.suspect, "sources that touched a closed port"));
            sets.push(set(family.held, "sources past the trigger, until the daemon has judged"));
            sets.push(Set { comment: Some("never held, for what is within is never blocked"), ..Set::plain(family.spared, Owner::Daemon) });
        }
        sets
    }

    /// For `gate`: what is held is dropped, unless it is allowed.
    pub(super) fn gate(&self) -> Vec<Rule> {
        self.each("what passed the trigger a moment ago, until the daemon has judged it", |family| {
            vec![is_in(family.source, family.held), matches(family.address, Op::Ne, Operand::Set(family.allowed.spec())), goto(STILL)]
        })
        .collect()
    }

    /// Where `gate` leads what is held: all of it is dropped, and of a scan that goes on the daemon hears. No service is asked for in what it hears, for
    /// a forged source may be somebody's client.
    pub(super) fn gate_chains(&self) -> Vec<Chain> {
        let dropped = rule("not told", [Statement::Counter, drop()]);
        if !self.tcp {
            return vec![chain(STILL, vec![dropped])];
        }
        let syn = vec![
            rule("a service is no probe", [to_service(), Statement::Counter, drop()]),
            Self::untold("some are enough", STILL_RATE, STILL_BURST, drop()),
            rule("told: who goes on is none of a flood's invented sources", [(self.log)(STILL_PREFIX, self.group), drop()]),
        ];
        let still = vec![rule("a scan that goes on", [opens(), is_in(Selector::TcpDport, SetId::TcpPorts), goto(STILL_SYN)]), dropped];
        vec![chain(STILL_SYN, syn), chain(STILL, still)]
    }

    /// A rule that ends the way of what is past a rate, counted.
    pub(super) fn untold(why: &'static str, rate: u32, burst: u32, end: Statement) -> Rule {
        rule(why, [Statement::LimitOver { rate, burst }, Statement::Counter, end])
    }

    /// For `probe`: what is past the rate is counted, and not told.
    pub(super) fn admission(&self) -> Rule {
        Self::untold("a flood: counted, so that what is not told is known", TOLD_RATE, TOLD_BURST, self.end.clone())
    }

    /// The chains between those that classify and those that tell, each before those that lead to it.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains =
            vec![chain(HELD, vec![rule("told, so that the daemon judges: a block, or a release", [(self.log)(HELD_PREFIX, self.group), drop()])])];
        chains.push(self.hold_flood());
        let mut hold =
            vec![rule("as many as the daemon can be told of", [Statement::LimitOver { rate: TOLD_RATE, burst: TOLD_BURST }, goto(HOLD_FLOOD)])];
        hold.extend(self.each("held from this packet on; the bucket's tokens are spent", |family| {
            vec![Statement::Update { set: family.held.spec(), key: vec![family.source], timeout: Some(self.hold), over: None }, goto(HELD)]
        }));
        hold.push(no_room());
        if self.counts() {
            chains.push(chain(HOLD, hold));
            chains.extend(self.counting());
            return chains;
        }
        chains.push(chain(HOLD, hold.clone()));
        // A source that was held in a flood and comes again is none of the flood's: it is told of by a rate of its own.
        let mut first = self.spared();
        first.extend(self.each("a source that comes again", |family| vec![is_in(family.source, family.suspect), goto(HOLD)]));
        first.append(&mut hold);
        chains.push(chain(REFLEX, first));
        chains
    }

    /// The allow list has been let by before; but a prefix is more than the address in it that is allowed, and some networks are nobody's to name.
    fn spared(&self) -> Vec<Rule> {
        self.each("what is never blocked is never held", |family| vec![is_in(family.address, family.spared), goto(PROBE)]).collect()
    }

    fn hold_flood(&self) -> Chain {
        let short = SHORT.min(self.hold);
        let mut rules = vec![Self::untold("a flood past every bound: counted, and dropped", HOLD_FLOOD_RATE, HOLD_FLOOD_BURST, drop())];
        if !self.counts() {
            rules.extend(self.each("a source that comes again is not the flood's", |family| {
                vec![Statement::Update { set: family.suspect.spec(), key: vec![family.source], timeout: Some(SHORT + self.hold), over: None }]
            }));
        }
        rules.extend(self.each("held for a short time, and counted instead of told", |family| {
            vec![
                Statement::Update { set: family.held.spec(), key: vec![family.source], timeout: Some(short), over: None },
                Statement::Counter,
                drop(),
            ]
        }));
        rules.push(no_room());
        chain(HOLD_FLOOD, rules)
    }

    /// Trigger 1 and more.
    fn counting(&self) -> Vec<Chain> {
        let window = Duration::from_secs(self.window);
        let port = |family: Family| vec![family.source, Selector::L4Proto, Selector::ThDport];
        let again = vec![
            Self::untold("nothing new: told at a rate of its own, which cannot use up that of others", AGAIN_RATE, AGAIN_BURST, self.end.clone()),
            self.tell(),
        ];
        let suspect =
            vec![Self::untold("a rate of their own: a flood of new sources cannot use it up", TOLD_RATE, TOLD_BURST, self.end.clone()), self.tell()];
        let mut reflex = self.spared();
        reflex.extend(
            self.each("a port counts once in a window", |family| vec![Statement::Lookup { set: family.seen.spec(), key: port(family) }, goto(AGAIN)]),
        );
        reflex.extend(
            self.each("a suspect is counted, whatever else goes on", |family| vec![is_in(family.source, family.suspect), goto(COUNT_SUSPECT)]),
        );
        let long = u32::try_from(LONG_MAX / self.window).unwrap_or(TOLD_RATE).clamp(1, TOLD_RATE);
        reflex.push(rule(
            "more new sources than can be remembered for the whole window",
            [Statement::LimitOver { rate: long, burst: TOLD_BURST }, goto(COUNT_FLOOD)],
        ));
        reflex.extend(self.count(window, SCORE));
        let mut flood = vec![Self::untold("a flood past every bound: counted, and that is all", FLOOD_RATE, FLOOD_BURST, self.end.clone())];
        flood.extend(self.count(SHORT, SCORE_FLOOD));
        vec![
            chain(AGAIN, again),
            chain(SUSPECT, suspect),
            chain(SCORE, self.score(window, goto(PROBE))),
            chain(SCORE_SUSPECT, self.score(window, goto(SUSPECT))),
            // Below the trigger, in a flood: the daemon has no time for it.
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

    /// Remembers source and port for so long, and goes on to the score.
    fn count(&self, memory: Duration, score: &'static str) -> Vec<Rule> {
        let timeout = Some(memory);
        let mut rules: Vec<_> = self
            .each("", |family| {
                vec![
                    Statement::Update { set: family.suspect.spec(), key: vec![family.source], timeout, over: None },
                    Statement::Add { set: family.seen.spec(), key: vec![family.source, Selector::L4Proto, Selector::ThDport], timeout },
                    goto(score),
                ]
            })
            .collect();
        rules.push(no_room());
        rules
    }

    /// Takes a token; a source that has none left is held. `below` is what comes of the others.
    fn score(&self, memory: Duration, below: Statement) -> Vec<Rule> {
        let over = Some(refill(self.trigger, self.window));
        let mut rules: Vec<_> = self
            .each("one port more than the trigger allows", |family| {
                vec![Statement::Update { set: family.score.spec(), key: vec![family.source], timeout: Some(memory), over }, goto(HOLD)]
            })
            .collect();
        rules.push(rule("not yet", [below]));
        rules
    }

    fn tell(&self) -> Rule {
        rule("", [(self.log)(LOG_PREFIX, self.group), self.end.clone()])
    }
}

/// What of `udp_probe` does not count: what a late answer or a traceroute can be.
pub(super) fn udp_not_counted(ephemeral: Option<Operand>) -> Vec<Rule> {
    let to = |(first, last)| matches(Selector::UdpDport, Op::Eq, Operand::Ports(first, last));
    let mut rules = vec![
        rule("a late answer can look like it", [matches(Selector::UdpSport, Op::Lt, Operand::Number(FIRST_UNPRIVILEGED)), goto(PROBE)]),
        rule("so can traceroute and tracepath", [to(TRACEROUTE), goto(PROBE)]),
        rule("", [to(TRACEPATH), goto(PROBE)]),
    ];
    rules.extend(ephemeral.map(|range| rule("", [matches(Selector::UdpDport, Op::Eq, range), goto(PROBE)])));
    rules
}

/// A set is full: the packet goes the way that it would go without the reflex.
fn no_room() -> Rule {
    rule("no room: the daemon's own way", [Statement::Counter, goto(PROBE)])
}

/// The bucket of a source: so many tokens at once, and so many anew within the window, never fewer. In the shortest unit that needs no rounding.
fn refill(trigger: u16, window: u64) -> Rate {
    let tokens = u64::from(trigger);
    let exact = Unit::ALL.into_iter().find_map(|per| {
        let packets = tokens * per.seconds();
        (packets >= window && packets.is_multiple_of(window)).then(|| (packets / window, per))
    });
    let (packets, per) = exact.unwrap_or_else(|| ((tokens * Unit::Week.seconds()).div_ceil(window), Unit::Week));
    Rate { packets: packets.max(1), per, burst: u32::from(trigger) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_refilled_within_the_window() {
        let rate = |trigger, window| {
            let Rate { packets, per, burst } = refill(trigger, window);
            (packets, per.name(), burst)
        };
        assert_eq!(rate(2, 600), (12, "hour", 2));
        assert_eq!(rate(1, 1), (1, "second", 1));
        assert_eq!(rate(500, 60), (500, "minute", 500));
        assert_eq!(rate(10, 600), (1, "minute", 10));
        assert_eq!(rate(1, 2_592_000), (1, "week", 1));
    }

    proptest! {
        /// The bucket against the sliding window that it stands for: whoever it holds has touched more ports than allowed within some window.
        // P26
        #[test]
        fn the_bucket_holds_nobody_whom_the_window_would_let_be(
            trigger in 1u16..6,
            window in 1u64..2000,
            steps in proptest::collection::vec((0u64..3000, 0u8..9), 1..80),
        ) {
            let rate = refill(trigger, window);
            // As net/netfilter/nft_limit.c has it: tokens are nanoseconds.
            let cost = rate.per.seconds() * 1_000_000_000 / rate.packets;
            let most = cost * u64::from(rate.burst);
            let (mut tokens, mut last, mut now) = (most, 0u64, 0u64);
            let mut seen: Vec<(u8, u64)> = Vec::new();
            let mut touched: Vec<(u8, u64)> = Vec::new();
            let mut passed = false;
            for (wait, port) in steps {
                now += wait * 100_000_000;
                touched.push((port, now));
                let horizon = now.saturating_sub(window * 1_000_000_000);
                let distinct: std::collections::BTreeSet<u8> = touched.iter().filter(|(_, at)| *at >= horizon).map(|(port, _)| *port).collect();
                passed |= distinct.len() > usize::from(trigger);
                seen.retain(|(_, at)| now < at + window * 1_000_000_000);
                if seen.iter().any(|(known, _)| *known == port) {
                    continue;
                }
                seen.push((port, now));
                tokens = (tokens + (now - last)).min(most);
                last = now;
                if tokens >= cost {
                    tokens -= cost;
                } else {
                    prop_assert!(passed, "held, and the window has never had more than {} ports", trigger);
                }
            }
        }

        /// A scan that is over in a moment is held with the port after the last that is allowed.
        #[test]
        fn a_quick_scan_is_held_with_the_first_port_too_many(trigger in 1u16..3000, window in 1u64..1_000_000) {
            let rate = refill(trigger, window);
            let cost = rate.per.seconds() * 1_000_000_000 / rate.packets;
            prop_assert!(cost > 0);
            prop_assert_eq!(cost * u64::from(rate.burst) / cost, u64::from(trigger));
        }
    }
}
