//! The blocked sets as lists show them, read over a connection of the reader's: what it says was
//! true in the kernel when it was read.

use std::collections::HashSet;

use ipnet::IpNet;

use super::element::{HOSTS, Placement, adopted};
use super::networks::{Family, Span, merged};
use super::services::service_key;
use crate::engine::Source;
use crate::nft::{Connection, ElementInfo, Error};
use crate::probe::Port;
use crate::ruleset::SetId;
use crate::store::Block;

/// The blocked hosts, each with its element. Elements that no rule looks up are left out.
///
/// # Errors
/// When a set cannot be read.
pub(crate) fn hosts(
    connection: &mut Connection,
    placement: Placement,
) -> Result<Vec<(Source, ElementInfo)>, Error> {
    let mut all = Vec::new();
    let mut earlier = HashSet::new();
    for set in HOSTS {
        for info in connection.dump_set(set)? {
            if let Some(source) = placement.exact_source(set, info.key)
                && earlier.insert(source)
            {
                all.push((source, info));
            }
        }
    }
    Ok(all)
}

/// Whether the rules know a port as that of a service.
///
/// # Errors
/// When the set cannot be read.
pub(crate) fn is_service(connection: &mut Connection, port: Port) -> Result<bool, Error> {
    let Some(key) = service_key(port) else { return Ok(false) };
    Ok(connection.get_element(SetId::Services, key)?.is_some())
}

/// The intervals of the sets of blocked networks.
pub(crate) struct Intervals([Vec<(Span, ElementInfo)>; 2]);

impl Intervals {
    /// Reads them.
    ///
    /// # Errors
    /// When a set cannot be read.
    pub(crate) fn read(connection: &mut Connection) -> Result<Self, Error> {
        let [v4, v6] = Family::ALL.map(|family| {
            let elements = connection.dump_set(family.set())?.into_iter();
            Ok(elements.filter_map(|info| Some((Span::of_element(&info)?, info))).collect())
        });
        Ok(Self([v4?, v6?]))
    }

    /// Whether the kernel drops every address of a network but for those that its block leaves out.
    pub(crate) fn drop_all_of(&self, source: Source, exempt: &[IpNet]) -> bool {
        let there = Family::of(source).of_pair(&self.0);
        let there = merged(there.iter().map(|(span, _)| *span).collect());
        let exempt = merged(exempt.iter().map(Span::of).collect());
        Span::of(&source.network())
            .without(&exempt)
            .into_iter()
            .all(|part| part.without(&there).is_empty())
    }

    /// Packets that were dropped because of a network; `None` if it shares its intervals with other
    /// blocks, or is cut into several.
    pub(crate) fn packets(&self, source: Source) -> Option<u64> {
        let span = Span::of(&source.network());
        Family::of(source)
            .of_pair(&self.0)
            .iter()
            .find(|(there, _)| *there == span)
            .map(|(_, info)| info.packets)
    }

    /// What is there and belongs to none of these blocks: networks of other programs that the
    /// daemon has not adopted yet.
    pub(crate) fn unknown(&self, blocks: &[Block]) -> Vec<(Source, ElementInfo)> {
        let mut unknown = Vec::new();
        for family in Family::ALL {
            let known = blocks
                .iter()
                .filter(|block| Family::of(block.source) == family)
                .map(|block| Span::of(&block.source.network()));
            let known = merged(known.collect());
            for (span, info) in family.of_pair(&self.0) {
                let networks =
                    span.without(&known).into_iter().flat_map(|part| family.networks(part));
                unknown.extend(
                    networks.map(|network| (adopted(network.into(), info).source, info.clone())),
                );
            }
        }
        unknown
    }
}
