//! Segments that open no connection: those that closed connections send too, and those that no stack
//! sends.
//!
//! A segment with an ACK and without a SYN is answered as by the kernel alone, by a RST, from
//! listening and closed ports alike: an ACK, Maimon or Window scan learns nothing of ports, and a
//! peer whose connection this host forgot is not left waiting. Of a slowed source's, a random half of
//! all ports is silent until it is proven (`slow`, `slow_segments`).
//!
//! No service receives a segment with flags that no stack sends. It is a probe of any port, also of
//! those that are open or not watched.

use super::exempt::EXEMPT_PROBE;
use super::reflex::{LOG_BURST, LOG_RATE, REFLEX, STILL_PREFIX, past_rate};
use super::slow::{SLOW_PROBE, STILL_RATE, paced};
use super::statements::{
    LOG_PREFIX, PROBE, back, chain, goto, has_socket, is_not, is_not_in, jump, log, rule,
    to_service,
};
use super::unproven::STILL;
use super::watch::SPOOFED;
use super::{Builder, SLOW_OTHER, SetId};
use crate::nft::model::{Chain, RTN_UNICAST, Rule, Selector, Statement, tcp_flag};

/// The entry for segments with an ACK.
pub(super) const LATE: &str = "late_segment";
const LATE_STILL: &str = "late_still";
const LATE_UNPROVEN: &str = "late_unproven";
/// The entry for segments with flags that no stack sends, to a port that listens or is not watched.
pub(super) const STRANGE: &str = "strange_flags";
/// The same for those to a port without a socket: comes back if it is watched.
const STRANGE_CLOSED: &str = "strange_closed";

impl Builder<'_> {
    /// For `tcp_probe`.
    pub(super) fn late_segment(&self) -> Rule {
        rule(
            "a closed connection's, or a scan's: answered as by a port that listens",
            [has_late_flags(), goto(LATE)],
        )
    }

    /// The chains for these segments, each before those that jump to it.
    pub(super) fn segment_chains(&self) -> Vec<Chain> {
        let answered = |rate, burst, prefix| {
            [
                past_rate("some are enough", rate, burst, back()),
                rule(
                    "logged; the kernel answers",
                    [log(prefix, self.config.capture.group), back()],
                ),
            ]
        };
        let mut chains = Vec::new();
        let mut late = Vec::new();
        if self.enforces() {
            let of_each = self.each("some of each source are enough", |family| {
                let [pace, counter, _] = paced(family);
                vec![pace, counter, back()]
            });
            let logged = answered(STILL_RATE, STILL_RATE, STILL_PREFIX);
            chains.push(chain(LATE_UNPROVEN, of_each.into_iter().chain(logged).collect()));
            late.extend(self.unproven_sources(LATE_UNPROVEN));
        }
        if self.slows() {
            // A random half is answered, so that a scanner of this kind is proven too.
            late.extend(self.slow_probes(SLOW_PROBE));
        } else if self.holds() {
            chains.push(chain(LATE_STILL, answered(STILL_RATE, STILL_RATE, STILL_PREFIX).into()));
            late.extend(self.slow_probes(LATE_STILL));
        }
        late.extend(answered(LOG_RATE, LOG_BURST, LOG_PREFIX));
        chains.push(chain(LATE, late));

        let spoofed = "no host's address by the main routing tables";
        let mut strange = self.exempt_to(EXEMPT_PROBE);
        strange.push(rule(spoofed, [is_not(Selector::FibSaddrType, RTN_UNICAST), jump(SPOOFED)]));
        if self.enforces() {
            strange.extend(self.unproven_probes(&[]));
        }
        if self.holds() {
            strange.extend(self.slow_probes(if self.slows() { SLOW_OTHER } else { STILL }));
        }
        let counts = self.config.has_reflex(&self.config.tcp);
        strange.push(rule("", [goto(if counts { REFLEX } else { PROBE })]));
        chains.push(chain(STRANGE, strange));
        chains.push(chain(
            STRANGE_CLOSED,
            vec![
                rule("a service that restarts", [to_service(), goto(STRANGE)]),
                rule(
                    "not watched",
                    [is_not_in(Selector::TcpDport, SetId::TcpPorts), goto(STRANGE)],
                ),
            ],
        ));
        chains
    }

    /// For `watch`, before services receive their packets.
    pub(super) fn strange_to_services(&self, to: &'static str) -> Vec<Rule> {
        strange("flags that no stack sends: no service receives them", &[has_socket(), goto(to)])
    }

    /// For `tcp_probe`.
    pub(super) fn strange_to_closed(&self) -> Vec<Rule> {
        strange("flags that no stack sends: evidence on any port", &[jump(STRANGE_CLOSED)])
    }
}

/// An ACK, also with a FIN, without a SYN.
pub(super) fn has_late_flags() -> Statement {
    Statement::TcpFlags { mask: tcp_flag::SYN | tcp_flag::ACK, value: tcp_flag::ACK }
}

/// The combinations that no stack sends: a mask, and the flags of it. A SYN with PSH or URG opens a
/// connection, and some stacks send a FIN alone.
const STRANGE_FLAGS: [(u8, u8); 4] = {
    use tcp_flag::{ACK, FIN, PSH, RST, SYN, URG};
    [
        (FIN | SYN | RST, FIN | SYN),
        (FIN | SYN | RST | ACK, 0),
        (FIN | SYN | RST | PSH | ACK, FIN | PSH),
        (FIN | SYN | RST | ACK | URG, FIN | URG),
    ]
};

/// Whether no stack sends these flags.
pub(crate) fn is_strange(flags: u8) -> bool {
    STRANGE_FLAGS.iter().any(|(mask, value)| flags & mask == *value)
}

/// A rule for each of them.
fn strange(why: &'static str, end: &[Statement]) -> Vec<Rule> {
    let whys = std::iter::once(why).chain(std::iter::repeat(""));
    let rule_for =
        |(why, (mask, value))| rule(why, [&[Statement::TcpFlags { mask, value }], end].concat());
    whys.zip(STRANGE_FLAGS).map(rule_for).collect()
}
