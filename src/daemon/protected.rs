//! What must never be blocked, and why: gathered from the configuration, the administrator's orders
//! and the live system.
//!
//! Owned by the supervisor, which may wait for files and dumps. The packet thread gets the finished
//! list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::allow_file::AllowFile;
use super::allowed_names::AllowedNames;
use super::interfaces;
use crate::config::{Config, NeverBlock};
use crate::enforce::Services;
use crate::errors::error_chain;
use crate::netlink::logins::Logins;
use crate::netlink::route::Routes;
use crate::netlink::sock_diag::SockDiag;
use crate::probe::{Port, Transport};
use crate::store::{StoreHandle, clock::now};
use crate::sys::{clock, ipvs, login_sessions, resolv_conf};

/// Why something is never blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProtectionReason {
    /// `allow` in the configuration.
    AllowList,
    /// A DNS name in `allow`.
    Name,
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
    /// The peer of a connection to an admin port that has logged in.
    AdminPeer,
    /// It had such a connection lately.
    Admin,
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
            Self::Name => ("allow", "a name on the allow list"),
            Self::IgnoreFile => ("ignore_file", "ignore file"),
            Self::AllowedByHand => ("portsentryctl", "allowed by hand"),
            Self::OwnAddress => ("own_addresses", "own address"),
            Self::Gateway => ("gateways", "gateway"),
            Self::Resolver => ("resolvers", "name server"),
            Self::AdminPeer => ("ssh_peers", "administrator's connection"),
            Self::Admin => ("admins", "administrator seen lately"),
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
    sockets: SockDiag,
    logins: Logins,
    /// Ports that services listened on at the last check.
    open: Option<BTreeSet<Port>>,
    /// Where administrators and services are remembered.
    store: StoreHandle,
    /// The networks allowed by hand.
    pub allowed: AllowFile,
    /// The DNS names in `allow`.
    pub names: AllowedNames,
    /// The last list: what it has of a kind holds on while that kind cannot be learned anew.
    last: Protected,
}

impl Guard {
    /// Opens the sockets that are asked, and reads the networks allowed by hand.
    ///
    /// # Errors
    /// In words, when the kernel refuses a socket.
    pub(super) fn open(state_dir: &Path, store: StoreHandle) -> Result<Self, String> {
        Ok(Self {
            routes: Routes::open().map_err(|error| format!("addresses and routes: {error}"))?,
            sockets: SockDiag::open().map_err(|error| format!("sockets: {error}"))?,
            logins: Logins::default(),
            open: None,
            store,
            allowed: AllowFile::read(state_dir),
            names: AllowedNames::read(state_dir),
            last: Protected::new(),
        })
    }

    /// Gathers the list again; `ignored` is what the ignore file names. What cannot be learned just
    /// now is reported in `complaints`, and what was known of that kind holds on. The interfaces
    /// that are to be watched, and are not there, are reported too.
    pub(super) fn gather(
        &mut self,
        config: &Config,
        ignored: &[IpNet],
        complaints: &mut Vec<String>,
    ) -> Protected {
        complaints.extend(interfaces::complaints(config, &mut self.routes));
        if ipvs::table().is_ok_and(|table| table.has_others) {
            complaints.push(BALANCED_UNKNOWN.to_owned());
        }
        let mut list = Protected::new();
        let mut add = |network: IpNet, because| {
            list.entry(network.trunc()).or_insert(because);
        };
        config.allowed_networks().for_each(|network| add(network, ProtectionReason::AllowList));
        self.names.want(config);
        complaints.extend(self.names.complaints());
        self.names
            .addresses()
            .for_each(|address| add(IpNet::from(address), ProtectionReason::Name));
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
        let NeverBlock { own_addresses, gateways, resolvers, ssh_peers, .. } = config.never_block;
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
            let (found, complaint) = logged_in(&mut self.sockets, &mut self.logins, config);
            let remembered = remember(&self.store, config, &found);
            learned(ProtectionReason::AdminPeer, Ok(found.into_iter().collect()));
            if let Some(complaint) = complaint {
                learned(ProtectionReason::AdminPeer, Err(complaint));
            }
            learned(ProtectionReason::Admin, Ok(remembered));
        }
        self.last = list.clone();
        list
    }

    /// Whether an administrator has logged in who is not on the last list.
    pub(super) fn has_new_login(&mut self, config: &Config) -> bool {
        if !config.never_block.ssh_peers {
            return false;
        }
        // A complaint is reported when the list is gathered.
        let (found, _) = logged_in(&mut self.sockets, &mut self.logins, config);
        remember(&self.store, config, &found);
        found.into_iter().any(|address| !self.last.contains_key(&IpNet::from(address)))
    }

    /// The ports of services, now and lately.
    ///
    /// # Errors
    /// In words, when the sockets cannot be listed.
    pub(super) fn services(&mut self) -> Result<Services, String> {
        let listeners = self.sockets.listeners().map_err(|error| error_chain(&error))?;
        let mut open = listeners.services();
        let table = ipvs::table().map_err(|error| format!("IPVS: {error}"))?;
        let balanced: BTreeSet<Port> = table.services.into_iter().map(port_of).collect();
        open.extend(&balanced);
        // A client's UDP socket looks like a service's, but does not stay.
        let lasting =
            open.iter().filter(|port| self.open.as_ref().is_none_or(|last| last.contains(port)));
        let mut memory = self.store.memory();
        memory.see_services(now(), lasting.copied());
        let seen = memory.services.clone();
        drop(memory);
        self.open = Some(open.clone());
        Ok(Services { open, balanced, seen })
    }

    /// Forgets an administrator. Returns whether the address was remembered.
    pub(super) fn forget_admin(&self, address: IpAddr) -> bool {
        self.store.memory().admins.remove(&address).is_some()
    }
}

/// A service of IPVS without a port.
const BALANCED_UNKNOWN: &str = "IPVS has services by firewall mark, or for all ports of an address: their ports cannot be learned, \
     and are closed ports to the rules; name them in tcp.exclude and udp.exclude";

/// The port of a virtual service.
fn port_of((protocol, number): (ipvs::Protocol, u16)) -> Port {
    let transport = match protocol {
        ipvs::Protocol::Tcp => Transport::Tcp,
        ipvs::Protocol::Udp => Transport::Udp,
        ipvs::Protocol::Sctp => Transport::Sctp,
    };
    Port { transport, number }
}

/// The peers of admin ports that have logged in, and what could not be learned.
fn logged_in(
    sockets: &mut SockDiag,
    logins: &mut Logins,
    config: &Config,
) -> (BTreeSet<IpAddr>, Option<String>) {
    let now = clock::boottime();
    let mut complaint = None;
    match sockets.established(&config.never_block.admin_ports) {
        Ok(connections) => logins.observe(now, &connections),
        Err(error) => complaint = Some(error_chain(&error)),
    }
    // Most hosts have no connection most of the time.
    let sessions = if logins.is_empty() {
        BTreeSet::new()
    } else {
        login_sessions::remote_hosts(Path::new(login_sessions::DIRECTORY)).unwrap_or_else(|error| {
            complaint = Some(format!("{}: {error}", login_sessions::DIRECTORY));
            BTreeSet::new()
        })
    };
    (logins.peers(now, &sessions), complaint)
}

/// Remembers the administrators who are connected. Returns all that are remembered.
fn remember<'a>(
    store: &StoreHandle,
    config: &Config,
    connected: impl IntoIterator<Item = &'a IpAddr>,
) -> Vec<IpAddr> {
    let mut memory = store.memory();
    let time = config.never_block.admins.memory.unwrap_or(Duration::ZERO);
    memory.see_admins(now(), connected.into_iter().copied(), time);
    memory.admins.keys().copied().collect()
}

/// fe80::/10 (RFC 4291, 2.5.6).
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
