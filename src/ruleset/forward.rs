//! Packets to other hosts, such as containers and virtual machines with published ports.

use super::statements::{base_chain, is_protocol, live_connections, rule};
use super::{Builder, WATCH_PRIORITY, remember};
use crate::nft::model::{Chain, Hook, Selector, Statement, protocol};

impl Builder<'_> {
    /// New connections that are forwarded: to published ports of containers and virtual machines.
    pub(super) fn forwarded(&self) -> Chain {
        let mut rules = self.resets_of_published();
        rules.extend(self.not_watched());
        rules.extend(self.count_slowed());
        rules.extend(self.completions(Statement::CtStatusDnat));
        rules.push(live_connections());
        if self.watches() {
            rules.extend(self.published().filter_map(|[protocol, dnat, port]| {
                self.over_allowed("", [protocol, dnat, port])
            }));
        }
        rules.extend(self.over_allowed("nothing is slowed or blocked over these", [super::back()]));
        if self.enforces() {
            rules.extend(self.unproven_forwarded());
        }
        if !self.watches() {
            return base_chain("forwarded", Hook::Forward, WATCH_PRIORITY, rules);
        }
        // nft knows what the original port is only after the transport.
        let whys = ["a published port: remember it, for when its container restarts", ""];
        rules.extend(self.published().zip(whys).map(|(statements, why)| rule(why, statements)));
        if self.holds() {
            rules.extend(self.slow_forwarded());
        }
        base_chain("forwarded", Hook::Forward, WATCH_PRIORITY, rules)
    }

    /// What remembers a published port, by transport.
    fn published(&self) -> impl Iterator<Item = [Statement; 3]> + use<> {
        [protocol::TCP, protocol::UDP].into_iter().map(|number| {
            [is_protocol(number), Statement::CtStatusDnat, remember(Selector::CtOriginalDport)]
        })
    }
}
