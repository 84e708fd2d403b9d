//! What must never be blocked, and why: gathered from the configuration, the administrator's orders
//! and the live system.
//!
//! Owned by the supervisor, which may wait for files and dumps. The packet thread gets the finished
//! list.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv6Net};

use super::allow_file::AllowFile;
use crate::config::{Config, NeverBlock};
use crate::errors::error_chain;
use crate::netlink::long_peers::{self, LongPeers};
use crate::netlink::route::Routes;
use crate::netlink::sock_diag::SockDiag;
use crate::sys::{clock, resolv_conf};

/// Why something is never blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProtectionReason {
    /// `allow` in the configuration.
    AllowList,
    /// The ignore file.
    IgnoreFile,
    /// `portsentryctl allow add`.
    AllowedByHand,
    /// An address of this host.
    OwnAddress,
    /// A next hop of this host's routes.
    Gateway,
    /// A name server.
    Resolver,
    /// The peer of a long-established connection to an admin port.
    AdminPeer,
    /// IPv6 link-local addresses: the whole link, routers among it, shares one /64.
    LinkLocal,
}

impl ProtectionReason {
    /// The key of the configuration, or the command, that it comes from.
    pub(super) fn origin(self) -> &'static str {
        self.words().0
    }

    /// Its origin, and what messages say.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AllowList => ("allow", "allow list"),
            Self::IgnoreFile => ("ignore_file", "ignore file"),
            Self::AllowedByHand => ("portsentryctl", "allowed by hand"),
            Self::OwnAddress => ("own_addresses", "own address"),
            Self::Gateway => ("gateways", "gateway"),
            Self::Resolver => ("resolvers", "name server"),
            Self::AdminPeer => ("ssh_peers", "administrator's connection"),
            Self::LinkLocal => ("link_local", "link-local"),
        }
    }
}

impl fmt::Display for ProtectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().1)
    }
}

/// Networks that are never blocked, each with its first reason.
pub(super) type Protected = BTreeMap<IpNet, ProtectionReason>;

/// Watches over the list.
pub(super) struct Guard {
    routes: Routes,
    /// The sockets of this host.
    pub sockets: SockDiag,
    peers: LongPeers,
    /// The networks allowed by hand.
    pub allowed: AllowFile,
    /// The last list: what it has of a kind holds on while that kind cannot be learned anew.
    last: Protected,
}

impl Guard {
    /// Opens the sockets that are asked, and reads the networks allowed by hand.
    ///
    /// # Errors
    /// In words, when the kernel refuses a socket.
    pub(super) fn open(state_dir: &Path) -> Result<Self, String> {
        Ok(Self {
            routes: Routes::open().map_err(|error| format!("addresses and routes: {error}"))?,
            sockets: SockDiag::open().map_err(|error| format!("sockets: {error}"))?,
            peers: LongPeers::new(long_peers::LOGGED_IN_AFTER, long_peers::CONNECTIONS_MAX),
            allowed: AllowFile::read(state_dir),
            last: Protected::new(),
        })
    }

    /// Gathers the list again; `ignored` is what the ignore file names. What cannot be learned just
    /// now is reported in `complaints`, and what was known of that kind holds on.
    pub(super) fn gather(
        &mut self,
        config: &Config,
        ignored: &[IpNet],
        complaints: &mut Vec<String>,
    ) -> Protected {
        let mut list = Protected::new();
        let mut add = |network: IpNet, because| {
            list.entry(network.trunc()).or_insert(because);
        };
        config.allow.iter().for_each(|network| add(*network, ProtectionReason::AllowList));
        ignored.iter().for_each(|network| add(*network, ProtectionReason::IgnoreFile));
        self.allowed
            .networks()
            .iter()
            .for_each(|network| add(*network, ProtectionReason::AllowedByHand));
        add(IpNet::V6(LINK_LOCAL), ProtectionReason::LinkLocal);
        let last = std::mem::take(&mut self.last);
        let mut learned = |because, found: Result<Vec<IpAddr>, String>| match found {
            Ok(addresses) => {
                addresses.into_iter().for_each(|address| add(IpNet::from(address), because))
            }
            Err(complaint) => {
                complaints.push(format!(
                    "cannot learn every {because}: {complaint}; those known so far stay exempt"
                ));
                last.iter()
                    .filter(|(_, known)| **known == because)
                    .for_each(|(network, _)| add(*network, because));
            }
        };
        let NeverBlock { own_addresses, gateways, resolvers, ssh_peers, ref admin_ports } =
            config.never_block;
        let addresses = self.routes.addresses().map_err(|error| error_chain(&error));
        if own_addresses {
            learned(
                ProtectionReason::OwnAddress,
                addresses.clone().map(|found| found.into_iter().map(|own| own.address).collect()),
            );
        }
        if gateways {
            let hops = self.routes.next_hops().map_err(|error| error_chain(&error));
            // The other end of a point-to-point link is a next hop that no route names.
            let ends = addresses
                .map(|found| found.into_iter().filter_map(|own| own.peer).collect::<Vec<_>>());
            learned(
                ProtectionReason::Gateway,
                hops.and_then(|hops| Ok(hops.into_iter().chain(ends?).collect())),
            );
        }
        if resolvers {
            let (addresses, errors) = resolv_conf::read(resolv_conf::PATHS);
            learned(ProtectionReason::Resolver, Ok(addresses));
            if let Some(error) = errors.first() {
                learned(ProtectionReason::Resolver, Err(error.to_string()));
            }
        }
        if ssh_peers {
            let now = clock::boottime();
            match self.sockets.established(admin_ports) {
                Ok(connections) => self.peers.observe(now, &connections),
                Err(error) => learned(ProtectionReason::AdminPeer, Err(error_chain(&error))),
            }
            learned(ProtectionReason::AdminPeer, Ok(self.peers.peers(now).into_iter().collect()));
        }
        self.last = list.clone();
        list
    }
}

/// fe80::/10 (RFC 4291, 2.5.6).
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
