//! What observe mode would have slowed or blocked, and what speaks for these sources: they are in a
//! network of this host, use its services, or are never blocked by now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::rows::time_of_day;
use crate::config::PortSet;
use crate::control::{AllowRow, State, WouldBeRow};
use crate::engine::{ObservedView, Source, WouldBe};
use crate::errors::error_chain;
use crate::netlink::dump::Error;
use crate::netlink::route::Routes;
use crate::netlink::sock_diag::SockDiag;
use crate::probe::Transport;

/// What this host's own networks and connections say about addresses.
#[derive(Debug, Default)]
pub(super) struct Familiar {
    networks: Vec<IpNet>,
    /// The services that each peer has a connection to.
    services: BTreeMap<IpAddr, BTreeSet<u16>>,
}

impl Familiar {
    /// Asks the kernel. What it does not say is logged, and missing.
    pub(super) fn learn() -> Self {
        let networks = Routes::open().and_then(|mut routes| routes.addresses());
        let networks = networks.unwrap_or_else(|error| {
            log::warn!("the own networks are not known: {}", error_chain(&error));
            BTreeSet::new()
        });
        let own = |address: IpAddr, prefix| {
            IpNet::new(address, prefix).ok().filter(|network| {
                network.prefix_len() > 0 && network.prefix_len() < network.max_prefix_len()
            })
        };
        let services = services().unwrap_or_else(|error| {
            log::warn!("the connections of services are not known: {}", error_chain(&error));
            BTreeMap::new()
        });
        Self {
            networks: networks
                .into_iter()
                .filter_map(|found| own(found.address, found.prefix))
                .map(|network| network.trunc())
                .collect(),
            services,
        }
    }

    /// A source as the report shows it.
    pub(super) fn row(&self, view: &ObservedView, allowed: Option<AllowRow>) -> WouldBeRow {
        let ObservedView { source, would_be, reason, .. } = view;
        let network = source.network();
        let peers = self.services.iter().filter(|(peer, _)| network.contains(*peer));
        let ports: BTreeSet<u16> = peers.flat_map(|(_, ports)| ports).copied().collect();
        let own = self.networks.iter().find(|own| own.contains(&network));
        WouldBeRow {
            address: (*source).into(),
            would_be: match would_be {
                WouldBe::Slowed => State::Slowed,
                WouldBe::Blocked => State::Blocked,
            },
            scan: reason.scan().map(|scan| scan.to_string()),
            proven: reason.proven(),
            reason: reason.to_string(),
            since: time_of_day(view.first),
            last_seen: time_of_day(view.last),
            probes: view.probes,
            network: own.map(|own| Source::from(*own).into()),
            services: ports.iter().map(|port| format!("tcp/{port}")).collect(),
            allowed,
        }
    }
}

fn services() -> Result<BTreeMap<IpAddr, BTreeSet<u16>>, Error> {
    let mut sockets = SockDiag::open()?;
    let ports = sockets.listeners()?.services();
    let ports: PortSet = ports
        .iter()
        .filter(|port| port.transport == Transport::Tcp)
        .map(|port| port.number..=port.number)
        .collect();
    let mut services: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
    for connection in sockets.established(&ports)? {
        services.entry(connection.peer.ip()).or_default().insert(connection.local.port());
    }
    Ok(services)
}
