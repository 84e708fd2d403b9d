//! Packets of what is never blocked, by its address or by the interface that it arrives over: their
//! scans are reported.

use super::reflex::past_rate;
use super::statements::{back, chain, goto, has_socket, is_in, is_not_in, is_protocol, log, rule};
use super::watch::{NO_SOURCES, of_types};
use super::{Builder, SetId};
use crate::nft::Key;
use crate::nft::model::{Chain, Owner, Rule, Selector, Set, Statement, protocol};

/// Probes per second of sources that are never blocked, and how many at once: a scan is reported
/// from a few, and theirs must not fill the receive buffer.
const EXEMPT_RATE: u32 = 100;
const EXEMPT_BURST: u32 = 500;

/// The start of the prefix of a probe that arrived over an allowed interface.
pub(crate) const ALLOWED_PREFIX: &str = "portsentry: allowed ";

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
        let mut rules = vec![past_rate(why, EXEMPT_RATE, EXEMPT_BURST, back())];
        let log = log(ALLOWED_PREFIX, self.config.capture.group);
        rules.extend(self.over_allowed("no evidence against the source elsewhere", [log, back()]));
        rules.push(rule("logged; the kernel answers as without these rules", [self.log(), back()]));
        chain(EXEMPT_PROBE, rules)
    }

    /// A rule for whatever arrives over an allowed interface; `None`: there is none.
    pub(super) fn over_allowed<const N: usize>(
        &self,
        why: &'static str,
        statements: [Statement; N],
    ) -> Option<Rule> {
        if self.config.allowed_interfaces(false).is_empty() {
            return None;
        }
        let arrives = is_in(Selector::IifName, SetId::AllowedInterfaces);
        Some(rule(why, [&[arrives], statements.as_slice()].concat()))
    }

    /// That a packet does not pass an allowed interface; empty: there is none.
    pub(super) fn not_by_allowed(&self, name: Selector) -> Option<Statement> {
        let none = self.config.allowed_interfaces(false).is_empty();
        (!none).then(|| is_not_in(name, SetId::AllowedInterfaces))
    }

    /// Where probes of what is never blocked go.
    pub(super) fn exempt_to(&self, to: &'static str) -> Vec<Rule> {
        let arrived = self.over_allowed("over an allowed interface", [goto(to)]);
        arrived.into_iter().chain(allowed_to("never blocked, only reported", to)).collect()
    }

    /// The sets of allowed interfaces.
    pub(super) fn allowed_interfaces(&self) -> Vec<Set> {
        let set = |id, comment, silent| {
            let names = self.config.allowed_interfaces(silent);
            let mut keys: Vec<_> = names.into_iter().map(Key::interface).collect();
            keys.sort_unstable();
            (!keys.is_empty()).then(|| Set {
                comment: Some(comment),
                elements: keys.into_iter().map(|name| name..=name).collect(),
                ..Set::plain(id, Owner::Config)
            })
        };
        let allowed = set(SetId::AllowedInterfaces, "nothing is blocked there", false);
        let silent = set(SetId::SilentInterfaces, "nothing is reported either", true);
        allowed.into_iter().chain(silent).collect()
    }
}

/// Where packets of what is never blocked go.
pub(super) fn allowed_to(why: &'static str, to: &'static str) -> [Rule; 2] {
    [
        rule(why, [is_in(Selector::Ip4Saddr, SetId::Allowed4), goto(to)]),
        rule("", [is_in(Selector::Ip6Saddr, SetId::Allowed6), goto(to)]),
    ]
}
