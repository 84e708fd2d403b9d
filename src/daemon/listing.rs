//! The list of a great many blocks: which there are is asked of the engine, what is true of each of
//! the kernel, while the client reads.
//!
//! To dump a set costs the kernel the square of its size, to ask for one element always the same, two
//! microseconds. So what the kernel does not have is not listed, whatever the engine says; but of
//! [`UNCOUNTED_FROM`] hosts on the engine's word is taken, which the kernel has acknowledged, and
//! packets are not counted: unless the client asks for them, or there is doubt what the kernel has.

use std::collections::HashMap;

use super::rows::{campaign_rows, kernel, known, network_row, row, slowed_rows, uncounted_row};
use crate::control::{BlockRow, Refusal, Target};
use crate::enforce::view::Intervals;
use crate::enforce::{HOSTS, Placement, blocked_packets};
use crate::engine::Source;
use crate::errors::error_chain;
use crate::nft::{Connection, Key};
use crate::packet::command::{BlockDetails, Command};
use crate::ruleset::SCHEMA;
use crate::store::Block;
use crate::sys::mailbox::Link;

/// Places of blocks that the packet thread looks through at a time: a millisecond of it.
const PLACES_PER_PAGE: usize = 4096;

/// Hosts from which on a list counts no packets: to ask for so many takes a fifth of a second.
const UNCOUNTED_FROM: usize = 100_000;

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
    rows.extend(
        there
            .unknown(&networks)
            .iter()
            .map(|(source, info)| row(*source, info, info.packets, None)),
    );
    Ok(rows)
}

/// A list as it is made.
pub(super) struct Listing {
    packets: Link<Command>,
    connection: Connection,
    placement: Placement,
    /// The kernel is asked for each.
    is_counted: bool,
    networks: HashMap<Source, BlockRow>,
    /// Hosts with whether only their new connections are dropped, and networks.
    left: std::vec::IntoIter<(Source, Option<bool>)>,
}

impl Listing {
    /// Asks the engine; for what `is_wanted` refuses, the kernel is not asked. With `counted` it is
    /// asked for each host, however many there are.
    pub(super) fn begin(
        packets: &Link<Command>,
        placement: Placement,
        counted: bool,
        is_wanted: &dyn Fn(Target) -> bool,
    ) -> Result<impl Iterator<Item = BlockRow> + Send + use<>, Refusal> {
        let mut connection = Connection::open(SCHEMA).map_err(kernel)?;
        let networks: HashMap<_, _> = network_rows(packets, &mut connection)?
            .into_iter()
            .map(|row| (row.address.source(u8::MAX), row))
            .collect();
        let (mut known, mut is_settled, mut from) = (Vec::new(), true, Some(0));
        while let Some(at) = from {
            let page = packets.ask(|answer| Command::Sources(at, PLACES_PER_PAGE, answer))?;
            let hosts = page.sources.into_iter().filter(|(source, _)| {
                !placement.is_network(*source) && is_wanted((*source).into())
            });
            known.extend(hosts.map(|(source, unproven)| (source, Some(unproven))));
            is_settled &= page.is_settled;
            from = page.next;
        }
        let is_counted = counted || !is_settled || known.len() < UNCOUNTED_FROM;
        known.extend(networks.keys().map(|source| (*source, None)));
        // A block that moved between two pages is in both.
        known.sort_unstable_by_key(|(source, _)| *source);
        known.dedup_by_key(|(source, _)| *source);
        let (packets, left) = (packets.clone(), known.into_iter());
        let mut listing = Self { packets, connection, placement, is_counted, networks, left };
        let mut others = slowed_rows(&listing.packets, &mut listing.connection, placement)?;
        others.extend(campaign_rows(&listing.packets)?);
        Ok(std::iter::from_fn(move || listing.next_page()).flatten().chain(others))
    }

    fn next_page(&mut self) -> Option<Vec<BlockRow>> {
        let page: Vec<_> = self.left.by_ref().take(ELEMENTS_PER_PAGE).collect();
        if page.is_empty() {
            return None;
        }
        let hosts: Vec<(Source, bool)> =
            page.iter().filter_map(|(source, unproven)| Some((*source, (*unproven)?))).collect();
        let sources: Vec<Source> = hosts.iter().map(|(source, _)| *source).collect();
        // Without the engine's answer they have no details for once, and are in the list all the
        // same.
        let known = known(&self.packets, &sources).ok();
        let mut rows = match &known {
            Some(known) if !self.is_counted => {
                let both = sources.iter().zip(known);
                both.map(|(source, known)| {
                    known.as_ref().map(|known| uncounted_row(*source, known))
                })
                .collect()
            }
            _ => self.counted_rows(&hosts, &sources, known.as_deref()),
        }
        .into_iter();
        let all = page.into_iter().filter_map(|(source, host)| match host {
            Some(_) => rows.next()?,
            None => self.networks.get(&source).cloned(),
        });
        Some(all.collect())
    }

    /// The rows of hosts by the kernel's word, in their order; `None` where it has none.
    fn counted_rows(
        &mut self,
        hosts: &[(Source, bool)],
        sources: &[Source],
        known: Option<&[Option<BlockDetails>]>,
    ) -> Vec<Option<BlockRow>> {
        let mut rows: Vec<Option<BlockRow>> = hosts.iter().map(|_| None).collect();
        let packets =
            blocked_packets::read(&mut self.connection, sources).unwrap_or_else(|error| {
                log::warn!("the list counts no packets: {}", error_chain(&error));
                Vec::new()
            });
        for set in HOSTS {
            let place = |(source, unproven): (Source, bool)| self.placement.place(source, unproven);
            let (here, keys): (Vec<usize>, Vec<Key>) = (0..)
                .zip(hosts)
                .filter_map(|(at, host)| Some((at, place(*host).key_in(set)?)))
                .unzip();
            let infos = match self.connection.get_elements(set, &keys) {
                Ok(infos) => infos,
                // Nothing is blocked by a set that is gone.
                Err(error) => {
                    log::warn!("the list has gaps: {}", error_chain(&error));
                    continue;
                }
            };
            for (at, info) in here.into_iter().zip(infos) {
                if let (Some(place), Some((source, _)), Some(info)) =
                    (rows.get_mut(at), hosts.get(at), info)
                {
                    let known = known.and_then(|known| known.get(at)?.as_ref());
                    let packets = packets.get(at).copied().unwrap_or_default();
                    *place = Some(row(*source, &info, packets, known));
                }
            }
        }
        rows
    }
}
