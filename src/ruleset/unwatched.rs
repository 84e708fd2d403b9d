//! Closed ports that are not watched: a source that is refused on many of them scans.
//!
//! SYNs and datagrams are logged at a low rate and answered by the kernel; the daemon counts the
//! distinct ports of each source. Of a scan within a flood enough packets are logged, since it takes
//! twenty ports. With `unwatched: slow`, no closed port differs from a watched one for slowed sources:
//! otherwise the answers of closed ports would tell them from services, which do not answer a first
//! SYN.

use super::reflex::past_rate;
use super::slow::{SLOW_OTHER, SLOW_PROBE};
use super::statements::{
    back, chain, goto, is_in, is_invalid, is_not_in, log, opens, rule, to_service,
};
use super::{Builder, DISCARDED, SetId};
use crate::config::Unwatched;
use crate::nft::model::{Chain, Rule, Selector};

/// The start of the prefix of a packet to a closed port that is not watched.
pub(crate) const UNWATCHED_PREFIX: &str = "portsentry: unwatched ";

/// Log messages per second, and at once.
const RATE: u32 = 200;
const BURST: u32 = 1000;

const TCP: &str = "unwatched_tcp";
const UDP: &str = "unwatched_udp";

impl Builder<'_> {
    /// Whether packets to ports that are not watched have a chain.
    fn has_unwatched(&self) -> bool {
        self.config.unwatched != Unwatched::Ignore
    }

    /// For `tcp_probe`: packets to ports that are not watched.
    pub(super) fn unwatched_tcp(&self) -> Vec<Rule> {
        let is_unwatched = || is_not_in(Selector::TcpDport, SetId::TcpPorts);
        let mut rules = Vec::new();
        if self.has_unwatched() {
            rules.push(rule(
                "a connection to a port that is not watched",
                [opens(), is_unwatched(), goto(TCP)],
            ));
        }
        rules.push(rule("not watched", [is_unwatched(), back()]));
        rules
    }

    /// For `udp_probe`.
    pub(super) fn unwatched_udp(&self) -> Rule {
        let end = if self.has_unwatched() { goto(UDP) } else { back() };
        rule("not watched", [is_not_in(Selector::UdpDport, SetId::UdpPorts), end])
    }

    /// The chains for them.
    pub(super) fn unwatched_chains(&self) -> Vec<Chain> {
        if !self.has_unwatched() {
            return Vec::new();
        }
        let of = |name, slowed| {
            let mut rules = vec![
                rule("a service that restarts", [to_service(), back()]),
                rule(DISCARDED, [is_invalid(), back()]),
                rule("never blocked", [is_in(Selector::Ip4Saddr, SetId::Allowed4), back()]),
                rule("", [is_in(Selector::Ip6Saddr, SetId::Allowed6), back()]),
            ];
            rules.extend(self.over_allowed("", [back()]));
            if self.slows() && self.config.unwatched == Unwatched::Slow {
                rules.extend(self.slow_probes(slowed));
            }
            rules.extend([
                past_rate("some are enough", RATE, BURST, back()),
                rule(
                    "logged; the kernel answers",
                    [log(UNWATCHED_PREFIX, self.config.capture.group), back()],
                ),
            ]);
            chain(name, rules)
        };
        let tcp = (!self.tcp.is_empty()).then(|| of(TCP, SLOW_PROBE));
        let udp = (!self.udp.is_empty()).then(|| of(UDP, SLOW_OTHER));
        tcp.into_iter().chain(udp).collect()
    }
}
