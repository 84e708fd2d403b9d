//! Packets of what is never blocked: their scans are reported.

use super::reflex::past_rate;
use super::statements::{back, chain, goto, has_socket, is_in, is_protocol, rule};
use super::watch::{NO_SOURCES, of_types};
use super::{Builder, SetId};
use crate::nft::model::{Chain, Rule, Selector, protocol};

/// Probes per second of sources that are never blocked, and how many at once: a scan is reported
/// from a few, and theirs must not fill the receive buffer.
const EXEMPT_RATE: u32 = 100;
const EXEMPT_BURST: u32 = 500;

pub(super) const EXEMPT: &str = "exempt";
pub(super) const EXEMPT_PROBE: &str = "exempt_probe";

impl Builder<'_> {
    /// Packets of what is never blocked: a service answers at once, and a closed port as without
    /// these rules.
    pub(super) fn exempt(&self) -> Chain {
        let mut rules =
            if self.tcp.is_empty() { Vec::new() } else { self.strange_to_services(EXEMPT_PROBE) };
        rules.extend([
            rule("a socket accepts the packet", [is_protocol(protocol::TCP), has_socket(), back()]),
            rule("", [is_protocol(protocol::UDP), has_socket(), back()]),
        ]);
        let why = "such an address from the wire says nothing of its sender";
        rules.extend(of_types(why, Selector::FibSaddrType, &NO_SOURCES, &back()));
        rules.extend(self.by_transport(EXEMPT_PROBE));
        chain(EXEMPT, rules)
    }

    pub(super) fn exempt_probe(&self) -> Chain {
        let why = "as many as a report needs";
        let rules = vec![
            past_rate(why, EXEMPT_RATE, EXEMPT_BURST, back()),
            rule("logged; the kernel answers as without these rules", [self.log(), back()]),
        ];
        chain(EXEMPT_PROBE, rules)
    }
}

/// Where packets of what is never blocked go.
pub(super) fn allowed_to(why: &'static str, to: &'static str) -> [Rule; 2] {
    [
        rule(why, [is_in(Selector::Ip4Saddr, SetId::Allowed4), goto(to)]),
        rule("", [is_in(Selector::Ip6Saddr, SetId::Allowed6), goto(to)]),
    ]
}
