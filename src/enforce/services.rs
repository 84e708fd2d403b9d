//! Which ports the rules know as those of services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::enforcer::{Enforcer, Observer};
use super::executor::protocol_number;
use super::kernel::Kernel;
use crate::engine::MonoTime;
use crate::errors::error_chain;
use crate::nft::{Element, Key};
use crate::probe::Port;
use crate::ruleset::{SERVICE_MEMORY, SetId};

/// How long the rules remember a port that IPVS balances: until the daemon takes it back. Ten years,
/// since the set has a default for elements without a timeout.
const BALANCED: Duration = Duration::from_secs(10 * 365 * 86_400);

const SERVICES_UNKNOWN: &str = "the rules do not know which ports are services";

/// Ports of local services.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services {
    /// Those that services listen on.
    pub open: BTreeSet<Port>,
    /// Those of `open` that IPVS balances. No socket accepts their packets, so no rule notices that
    /// they are in use.
    pub balanced: BTreeSet<Port>,
    /// Those that they listened on lately, and when last.
    pub seen: BTreeMap<Port, MonoTime>,
}

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// Other ports have services: the rules learn new ones, and the engine releases their clients.
    pub fn set_services(&mut self, now: MonoTime, services: Services) {
        let before = std::mem::replace(&mut self.services, services);
        let rebalanced = self.services.balanced.symmetric_difference(&before.balanced).copied();
        let rebalanced: BTreeSet<Port> = rebalanced.collect();
        // The kernel does not change the timeout of an element that is there (before 6.12).
        let keys: Vec<Element<'_>> =
            rebalanced.iter().filter_map(|port| Some(Element::new(service_key(*port)?))).collect();
        if !keys.is_empty()
            && let Err(error) = self.executor.kernel.delete(SetId::Services, &keys)
        {
            log::warn!("{SERVICES_UNKNOWN}: {}", error_chain(&error));
        }
        let new = self.services.open.difference(&before.open).chain(&rebalanced);
        let new: BTreeSet<Port> = new.copied().collect();
        self.remember_services(new.into_iter().map(|port| (port, self.time_of(port))).collect());
        self.engine.set_services(now, self.services.open.clone());
        self.on_timer(now);
    }

    /// Tells the rules which ports are or were services, so that a service which restarts, or has
    /// not started yet, is no trap for its clients.
    pub(super) fn seed_services(&mut self, now: MonoTime) {
        let Services { open, seen, .. } = &self.services;
        let closed =
            seen.iter().filter(|(port, _)| !open.contains(port)).filter_map(|(port, at)| {
                let left =
                    SERVICE_MEMORY.checked_sub(now.since(*at)).filter(|left| !left.is_zero())?;
                Some((*port, Some(left)))
            });
        let all = open.iter().map(|port| (*port, self.time_of(*port))).chain(closed).collect();
        self.remember_services(all);
    }

    /// How long the rules remember the port of a service; `None`: as if it had been used now.
    fn time_of(&self, port: Port) -> Option<Duration> {
        self.services.balanced.contains(&port).then_some(BALANCED)
    }

    fn remember_services(&mut self, ports: Vec<(Port, Option<Duration>)>) {
        let service = |(port, timeout): &(Port, Option<Duration>)| {
            Some(Element::new(service_key(*port)?).timeout(*timeout))
        };
        let elements: Vec<_> = ports.iter().filter_map(service).collect();
        if elements.is_empty() {
            return;
        }
        if let Err(error) = self.executor.kernel.add_many(SetId::Services, &elements) {
            log::warn!("{SERVICES_UNKNOWN}: {}", error_chain(&error));
        }
    }
}

/// The key of a port in the set of services.
pub(super) fn service_key(port: Port) -> Option<Key> {
    Some(Key::Service(protocol_number(port.transport)?, port.number))
}
