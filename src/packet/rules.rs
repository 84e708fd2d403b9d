//! What the kernel is told as a whole: the rules, who is exempt from them, and which ports are services now.

use super::foreign::Foreign;
use super::reflex::spared;
use crate::engine::AllowList;
use crate::nft::element::merge;
use crate::nft::{Connection, Element, Error, Installed, Key, Order, Ruleset};
use crate::probe::{Port, Transport};
use crate::ruleset::SetId;

/// Rules, exemptions and services, as a whole. `many`: the sets of blocks hold more than a few elements.
pub(super) fn put_in_place(
    connection: &mut Connection,
    foreign: &mut Foreign,
    ruleset: &Ruleset,
    never_block: &AllowList,
    services: &[Port],
    order: Order<'_>,
    many: bool,
) -> Result<Installed, Error> {
    let installed = foreign.install(connection, ruleset, order, many)?;
    protect(connection, ruleset, never_block)?;
    seed_services(connection, services)?;
    Ok(installed)
}

/// Puts the never-block list into the kernel's sets, in one transaction each.
pub(super) fn protect(connection: &mut Connection, ruleset: &Ruleset, list: &AllowList) -> Result<(), Error> {
    for set in [SetId::Allowed4, SetId::Allowed6] {
        connection.replace_elements(set, &exempt(list, set))?;
    }
    for set in [SetId::Spared4, SetId::Spared6] {
        if let Some(spared) = spared(ruleset, list, set) {
            connection.replace_elements(set, &spared)?;
        }
    }
    Ok(())
}

/// What of the never-block list goes into this set.
pub(super) fn exempt(list: &AllowList, set: SetId) -> Vec<Element<'static>> {
    let networks = list.networks().iter().filter(|network| network.addr().is_ipv4() == (set == SetId::Allowed4));
    // The kernel takes no intervals that overlap, and a network may hold an address that is listed as well.
    let ranges = merge(networks.map(|network| Key::network(*network)).collect());
    ranges.iter().map(Element::range).collect()
}

/// Tells the rules which ports are services now, so that a service which restarts is no trap for its clients.
pub(super) fn seed_services(connection: &mut Connection, services: &[Port]) -> Result<(), Error> {
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
