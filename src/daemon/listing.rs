//! The list of a great many blocks: which there are is asked of the engine, what is true of each of
//! the kernel, while the client reads.
//!
//! To dump a set costs the kernel the square of its size, to ask for one element always the same.
//! So a list of a million takes seconds, in the memory of the addresses alone; and what the kernel
//! does not have is not listed, whatever the engine says.

use std::collections::HashMap;

use super::rows::{campaign_rows, details, kernel, network_row, row, slowed_rows};
use crate::control::{BlockRow, Refusal, Target};
use crate::enforce::view::Intervals;
use crate::enforce::{HOSTS, Placement};
use crate::engine::Source;
use crate::errors::error_chain;
use crate::nft::{Connection, ElementInfo, Key};
use crate::packet::command::Command;
use crate::ruleset::SCHEMA;
use crate::store::Block;
use crate::sys::mailbox::{Link, Unresponsive};

/// Places of blocks that the packet thread looks through at a time: a millisecond of it.
const PLACES_PER_PAGE: usize = 4096;

/// Elements that the kernel is asked for at a time: a millisecond.
const ELEMENTS_PER_PAGE: usize = 500;

/// The rows of blocked networks: what the engine has and the kernel drops, and what others added
/// just now.
pub(super) fn network_rows(
    packets: &Link<Command>,
    connection: &mut Connection,
) -> Result<Vec<BlockRow>, Refusal> {
    let networks = packets.ask(Command::Networks)?;
    let there = Intervals::read(connection).map_err(kernel)?;
    let is_dropped = |block: &&Block| there.drop_all_of(block.source, &block.exempt);
    let mut rows: Vec<BlockRow> = networks
        .iter()
        .filter(is_dropped)
        .map(|block| network_row(block, there.packets(block.source)))
        .collect();
    rows.extend(there.unknown(&networks).iter().map(|(source, info)| row(*source, info, None)));
    Ok(rows)
}

/// Looks through all blocks that the engine has.
fn each_block(packets: &Link<Command>, mut take: impl FnMut(Block)) -> Result<(), Unresponsive> {
    let mut from = Some(0);
    while let Some(at) = from {
        let (page, next) = packets.ask(|answer| Command::Page(at, PLACES_PER_PAGE, answer))?;
        page.into_iter().for_each(&mut take);
        from = next;
    }
    Ok(())
}

/// A list as it is made.
pub(super) struct Listing {
    packets: Link<Command>,
    connection: Connection,
    placement: Placement,
    networks: HashMap<Target, BlockRow>,
    /// Hosts with whether only their new connections are dropped, and networks.
    left: std::vec::IntoIter<(Target, Option<(Source, bool)>)>,
}

impl Listing {
    /// Asks the engine.
    pub(super) fn begin(
        packets: &Link<Command>,
        placement: Placement,
    ) -> Result<impl Iterator<Item = BlockRow> + Send + use<>, Refusal> {
        let mut connection = Connection::open(SCHEMA).map_err(kernel)?;
        let networks: HashMap<_, _> = network_rows(packets, &mut connection)?
            .into_iter()
            .map(|row| (row.address, row))
            .collect();
        let mut known = Vec::new();
        each_block(packets, |Block { source, reason, .. }| {
            if !placement.is_network(source) {
                let host = (source, reason.is_unproven_scan());
                known.push((Target::from(source), Some(host)));
            }
        })?;
        known.extend(networks.keys().map(|target| (*target, None)));
        // A block that moved between two pages is in both.
        known.sort_by_key(|(target, _)| *target);
        known.dedup_by_key(|(target, _)| *target);
        let packets = packets.clone();
        let mut listing =
            Self { packets, connection, placement, networks, left: known.into_iter() };
        let mut others = slowed_rows(&listing.packets, &mut listing.connection, placement)?;
        others.extend(campaign_rows(&listing.packets)?);
        Ok(std::iter::from_fn(move || listing.next_page()).flatten().chain(others))
    }

    fn next_page(&mut self) -> Option<Vec<BlockRow>> {
        let page: Vec<_> = self.left.by_ref().take(ELEMENTS_PER_PAGE).collect();
        if page.is_empty() {
            return None;
        }
        let mut found: Vec<(Source, ElementInfo)> = Vec::with_capacity(page.len());
        for set in HOSTS {
            let hosts = page.iter().filter_map(|(_, host)| *host);
            let place = |(source, unproven)| self.placement.place(source, unproven);
            let (here, keys): (Vec<Source>, Vec<Key>) =
                hosts.filter_map(|host| Some((host.0, place(host).key_in(set)?))).unzip();
            match self.connection.get_elements(set, &keys) {
                Ok(infos) => found.extend(
                    here.into_iter().zip(infos).filter_map(|(source, info)| Some((source, info?))),
                ),
                // Nothing is blocked by a set that is gone.
                Err(error) => log::warn!("the list has gaps: {}", error_chain(&error)),
            }
        }
        // Without the engine's answer they have no details for once, and are in the list all the
        // same.
        let hosts: Vec<Source> = found.iter().map(|(source, _)| *source).collect();
        let details = details(&self.packets, &hosts).unwrap_or_default();
        let found: HashMap<Source, ElementInfo> = found.into_iter().collect();
        let rows = page.into_iter().filter_map(|(target, host)| match host {
            Some((source, _)) => Some(row(source, found.get(&source)?, details.get(&source))),
            None => self.networks.get(&target).cloned(),
        });
        Some(rows.collect())
    }
}
