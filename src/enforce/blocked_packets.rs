//! How many packets of blocked hosts the rules dropped: read when it is asked for, and from zero for
//! each block.

use std::collections::BTreeMap;

use super::executor::Executor;
use super::kernel::Kernel;
use super::slowed_packets::counters;
use crate::engine::{Action, Report, Source};
use crate::errors::error_chain;
use crate::nft::{Connection, Element, Error, Key};
use crate::ruleset::SetId;

/// The set that counts the packets of a host.
fn set_of(host: Source) -> SetId {
    if host.addr().is_ipv4() { SetId::BlockedPackets4 } else { SetId::BlockedPackets6 }
}

/// How many packets of these blocked hosts were dropped. A host without a counter has sent none, or
/// none for a week.
///
/// # Errors
/// When a set cannot be read.
pub(crate) fn read(connection: &mut Connection, hosts: &[Source]) -> Result<Vec<u64>, Error> {
    let mut all = vec![0; hosts.len()];
    for set in [SetId::BlockedPackets4, SetId::BlockedPackets6] {
        let here = || hosts.iter().enumerate().filter(|(_, host)| set_of(**host) == set);
        let keys: Vec<Key> = here().map(|(_, host)| Key::from(host.addr())).collect();
        if keys.is_empty() {
            continue;
        }
        let counted = counters(&mut |set, keys| connection.get_elements(set, keys), set, &keys)?;
        for ((at, _), packets) in here().zip(counted) {
            if let Some(place) = all.get_mut(at) {
                *place = packets.unwrap_or(0);
            }
        }
    }
    Ok(all)
}

impl<K: Kernel> Executor<K> {
    /// Ends the counts of hosts whose blocks have ended.
    pub(super) fn forget_blocked_packets(&mut self, actions: &[Action]) {
        let mut sets: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        for action in actions {
            if let Action::Report(Report::Unblocked { source, .. }) = action
                && !self.placement.is_network(*source)
            {
                let element = Element::new(Key::from(source.addr()));
                sets.entry(set_of(*source)).or_default().push(element);
            }
        }
        for (set, elements) in sets {
            if let Err(error) = self.kernel.delete(set, &elements) {
                log::debug!("{}", error_chain(&error));
            }
        }
    }
}
