//! What the kernel is told as a whole: the rules, who is exempt from them, and which ports are services now.

use super::reflex::spare;
use crate::engine::AllowList;
use crate::nft::element::merge;
use crate::nft::plan::Installed;
use crate::nft::{Connection, Element, Error, Key, Ruleset, SetId};
use crate::probe::{Port, Transport};

/// Rules, exemptions and services, as a whole.
pub(super) fn put_in_place(
    connection: &mut Connection,
    ruleset: &Ruleset,
    never_block: &AllowList,
    prefix: u8,
    services: &[Port],
) -> Result<Installed, Error> {
    let installed = connection.install(ruleset)?;
    protect(connection, never_block)?;
    spare(connection, ruleset, never_block, prefix)?;
    seed_services(connection, services)?;
    Ok(installed)
}

/// Puts the never-block list into the kernel's sets, in one transaction each.
pub(super) fn protect(connection: &mut Connection, list: &AllowList) -> Result<(), Error> {
    for (set, v4) in [(SetId::Allowed4, true), (SetId::Allowed6, false)] {
        let networks = list.networks().iter().filter(|network| network.addr().is_ipv4() == v4);
        // The kernel takes no intervals that overlap, and a network may hold an address that is listed as well.
        let ranges = merge(networks.map(|network| Key::network(*network)).collect());
        let elements: Vec<_> = ranges.iter().map(Element::range).collect();
        connection.replace_elements(set, &elements)?;
    }
    Ok(())
}

/// Tells the rules which ports are services now, so that a service which restarts is no trap for its clients.
fn seed_services(connection: &mut Connection, services: &[Port]) -> Result<(), Error> {
    let elements: Vec<_> =
        services.iter().filter_map(|port| Some(Element::new(Key::Service(protocol_number(port.transport)?, port.number)))).collect();
    connection.add_elements(SetId::Services, &elements)
}

/// IANA's assigned internet protocol numbers; `None` for what has no ports.
fn protocol_number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(6),
        Transport::Udp => Some(17),
        Transport::Sctp => Some(132),
        Transport::Ip => None,
    }
}
