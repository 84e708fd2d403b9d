//! Echo requests: the first of a source to each address is logged, so that the daemon counts the
//! addresses that it pings. None is dropped here.

use std::time::Duration;

use super::Builder;
use super::family::{Family, each};
use super::sets::SetId;
use super::statements::{back, chain, goto, is, is_in, is_protocol, rule};
use crate::config::Config;
use crate::nft::model::{Chain, Owner, Rule, Selector, Set, Statement};

const PINGED: &str = "pinged";

/// Pairs of a source and an address that are remembered, of each IP version. Beyond it no ping is
/// logged until some expire.
pub(crate) const SIZE: u32 = 65_535;
/// Echo requests per second that are logged, and at once: some sweeps of a network at a time. Beyond
/// it the next ping to the address is logged.
const RATE: u32 = 100;
const BURST: u32 = 500;
/// How long a pair is remembered at most: a host that pings regularly is logged twice an hour for
/// each address.
const MEMORY_MAX: Duration = Duration::from_secs(1800);

/// How long a pair is remembered.
pub(crate) fn memory(config: &Config) -> Duration {
    config.scan_window.clamp(Duration::from_secs(1), MEMORY_MAX)
}

impl Builder<'_> {
    /// For `watch`: where echo requests go.
    pub(super) fn pings(&self) -> Vec<Rule> {
        each(Family::both(128), "echo requests", |family| {
            let (number, kind) = family.echo_request;
            vec![is_protocol(number), is(Selector::IcmpType, kind), goto(PINGED)]
        })
    }

    pub(super) fn pinged(&self) -> Chain {
        let both = || Family::both(128);
        let mut rules = Vec::new();
        if self.has_silent() {
            let silent = |family: Family| match family.pinged {
                SetId::Pinged4 => SetId::Silent4,
                _ => SetId::Silent6,
            };
            rules.extend(each(both(), "networks of which nothing is reported", |family| {
                vec![is_in(family.address, silent(family)), back()]
            }));
        }
        rules.extend(each(both(), "never blocked", |family| {
            vec![is_in(family.address, family.allowed), back()]
        }));
        rules.extend(each(both(), "it pinged this address before", |family| {
            vec![Statement::Lookup { set: family.pinged.spec(), key: pair(family) }, back()]
        }));
        rules.push(rule(
            "a flood: not logged, and not remembered",
            [Statement::LimitOver { rate: RATE, burst: BURST }, back()],
        ));
        let timeout = memory(self.config);
        rules.extend(each(both(), "logged once, and never dropped", |family| {
            let set = family.pinged.spec();
            let add = Statement::Add { set, key: pair(family), timeout: Some(timeout) };
            vec![add, self.log(), back()]
        }));
        chain(PINGED, rules)
    }

    pub(super) fn pinged_sets(&self) -> impl Iterator<Item = Set> {
        Family::both(128).into_iter().map(|family| Set {
            timeouts: true,
            size: Some(SIZE),
            comment: Some("addresses of this host that a source pinged"),
            ..Set::plain(family.pinged, Owner::Rules)
        })
    }
}

fn pair(family: Family) -> Vec<Selector> {
    vec![family.address, family.destination]
}
