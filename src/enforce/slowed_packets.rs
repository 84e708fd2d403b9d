//! What the kernel counted of slowed sources: read when it is asked for, and from zero for each time
//! that a source is slowed.

use std::time::Duration;

use super::element::Placement;
use super::executor::Executor;
use super::kernel::{Kernel, absent_is_fine};
use crate::engine::{Action, Report, SlowedPackets, Source};
use crate::errors::error_chain;
use crate::nft::{Connection, Element, ElementInfo, Error, Key};
use crate::ruleset::{SetId, slowed_packets};

/// How often the counters are read again until both belong together.
const ROUNDS: u32 = 3;

type Read<'a> = dyn FnMut(SetId, &[Key]) -> Result<Vec<Option<ElementInfo>>, Error> + 'a;

/// What became of the packets of slowed sources; `None` where the kernel has not counted.
///
/// # Errors
/// When the sets cannot be read.
pub(crate) fn read(
    connection: &mut Connection,
    placement: Placement,
    sources: &[Source],
) -> Result<Vec<Option<SlowedPackets>>, Error> {
    let mut all = vec![None; sources.len()];
    for held in [SetId::Held4, SetId::Held6, SetId::HeldNets6] {
        let here = sources.iter().enumerate();
        let here: Vec<(usize, Key)> = here
            .filter(|(_, source)| placement.slowed_set(**source) == held)
            .map(|(at, source)| (at, Key::from(source.addr())))
            .collect();
        let keys: Vec<Key> = here.iter().map(|(_, key)| *key).collect();
        let found = read_of(&mut |set, keys| connection.get_elements(set, keys), held, &keys)?;
        for ((at, _), packets) in here.into_iter().zip(found) {
            if let Some(place) = all.get_mut(at) {
                *place = packets;
            }
        }
    }
    Ok(all)
}

/// The packets that the elements with these keys have counted; `None` where there is no element.
pub(super) fn counters(
    get: &mut Read<'_>,
    set: SetId,
    keys: &[Key],
) -> Result<Vec<Option<u64>>, Error> {
    let found = absent_is_fine(get(set, keys))?;
    let counters = found.into_iter().map(|info| info.map(|info| info.packets));
    Ok(counters.chain(std::iter::repeat(None)).take(keys.len()).collect())
}

fn read_of(
    get: &mut Read<'_>,
    held: SetId,
    keys: &[Key],
) -> Result<Vec<Option<SlowedPackets>>, Error> {
    let Some([packets, drops]) = slowed_packets::sets(held).filter(|_| !keys.is_empty()) else {
        return Ok(vec![None; keys.len()]);
    };
    let mut counters = |set| counters(get, set, keys);
    let mut dropped = counters(drops)?;
    let mut all = counters(packets)?;
    for _ in 1..ROUNDS {
        // A packet between the two readings would look as if it had passed.
        let again = counters(drops)?;
        if again == dropped {
            break;
        }
        dropped = again;
        all = counters(packets)?;
    }
    let both = all.into_iter().zip(dropped);
    Ok(both.map(|(all, dropped)| Some(slowed_packets::of(all?, dropped?))).collect())
}

impl<K: Kernel> Executor<K> {
    /// Completes the reports of sources that are not slowed any more, and counts from zero what is
    /// slowed from now on. Before the actions are carried out: a release ends the counts.
    pub(super) fn count_slowed(&mut self, actions: &mut [Action]) {
        for action in actions {
            match action {
                Action::Report(Report::Released { source, packets, .. }) => {
                    *packets = self.slowed_packets(*source);
                    self.forget_packets(*source);
                }
                Action::Report(Report::Slowed { source, timeout, .. }) => {
                    self.count_from_zero(*source, *timeout);
                }
                _ => {}
            }
        }
    }

    fn slowed_packets(&mut self, source: Source) -> Option<SlowedPackets> {
        let held = self.placement.slowed_set(source);
        let get = &mut |set, keys: &[Key]| self.kernel.get(set, keys);
        let found = read_of(get, held, &[Key::from(source.addr())]).unwrap_or_else(|error| {
            log::warn!(
                "cannot read what became of the packets of {source}: {}",
                error_chain(&error)
            );
            Vec::new()
        });
        found.into_iter().next().flatten()
    }

    /// Without a packet yet there is an element all the same: without one, nothing is known.
    fn count_from_zero(&mut self, source: Source, timeout: Duration) {
        let element =
            Element::new(Key::from(source.addr())).timeout(Some(slowed_packets::memory(timeout)));
        for set in slowed_packets::sets(self.placement.slowed_set(source)).into_iter().flatten() {
            if let Err(error) = self.kernel.add_many(set, std::slice::from_ref(&element)) {
                log::debug!("{source} is not counted: {}", error_chain(&error));
            }
        }
    }

    fn forget_packets(&mut self, source: Source) {
        let element = Element::new(Key::from(source.addr()));
        for set in slowed_packets::sets(self.placement.slowed_set(source)).into_iter().flatten() {
            if let Err(error) = self.kernel.delete(set, std::slice::from_ref(&element)) {
                log::debug!("{}", error_chain(&error));
            }
        }
    }
}
