//! Reading the elements of a set: one, many by their keys, or all.

use std::collections::HashSet;

use super::{ANSWER_TIMEOUT, Connection, Failure, MAX_DUMP_ATTEMPTS, no_answer, no_set};
use crate::netlink::message::{Messages, NLM_F_DUMP};
use crate::nft::decode;
use crate::nft::element::{self, Element, ElementInfo, Key, RawElement};
use crate::nft::encode::{Batch, Past};
use crate::nft::error::Error;
use crate::nft::numbers::{attr, message};
use crate::nft::schema::SetSpec;

/// Elements that may be dumped without delaying other work. The kernel walks a set from its
/// beginning for each 32 KiB of a dump, so that the time grows with the square: 10,000 elements
/// take about 20 ms, 100,000 two seconds, a million minutes.
pub const LIGHT_DUMP: usize = 1000;

/// Requests per datagram: their answers, for each of which the kernel charges about 1.3 kB, fit the
/// receive buffer.
const REQUESTS_PER_DATAGRAM: usize = 1000;

impl Connection {
    /// The element that `key` is in, as the kernel has it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set or table.
    pub fn get_element(
        &mut self,
        set: impl Into<SetSpec>,
        key: Key,
    ) -> Result<Option<ElementInfo>, Error> {
        let (set, table) = (set.into(), self.schema.table);
        if set.interval {
            // The kernel returns the start of an interval only; such sets are small.
            return Ok(self
                .dump_set(set)?
                .into_iter()
                .find(|info| (info.key..=info.last()).contains(&key)));
        }
        let sequence = self.request(|batch| get(batch, set, key))?;
        let mut found = None;
        let answer = self.answers(sequence, true, |message| {
            let mut is_found = false;
            decode::elements(message, table, set, |element| {
                is_found = true;
                found = Some(element.info);
            });
            is_found
        });
        match answer {
            Ok(_) => Ok(found),
            // The set or the element is missing: only then is the set asked for.
            Err(error) if error.is_not_found() => {
                self.has_set(set).and_then(|has| if has { Ok(None) } else { Err(error) })
            }
            Err(error) => Err(error),
        }
    }

    /// The elements with these keys, in their order, as the kernel has them; `None` for what is not
    /// there. Of sets without intervals.
    ///
    /// Many requests go in one datagram, and each costs the same however many elements the set has.
    /// The time of a dump grows with the square, because the kernel walks from the beginning for
    /// each piece (nf_tables_dump_set() in net/netfilter/nf_tables_api.c).
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set or table.
    pub fn get_elements(
        &mut self,
        set: impl Into<SetSpec>,
        keys: &[Key],
    ) -> Result<Vec<Option<ElementInfo>>, Error> {
        let set = set.into();
        let mut all = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(REQUESTS_PER_DATAGRAM) {
            self.get_chunk(set, chunk, &mut all)?;
        }
        // The kernel reports a missing element, set and table alike.
        if !all.is_empty() && all.iter().all(Option::is_none) && !self.has_set(set)? {
            return Err(no_set("get", set));
        }
        Ok(all)
    }

    fn get_chunk(
        &mut self,
        set: SetSpec,
        keys: &[Key],
        all: &mut Vec<Option<ElementInfo>>,
    ) -> Result<(), Error> {
        let table = self.schema.table;
        let (first, from) = (self.sequence.wrapping_add(1), all.len());
        self.out.clear();
        let mut batch = Batch::new(&mut self.out, table.name, first);
        for key in keys {
            get(&mut batch, set, *key);
            all.push(None);
        }
        self.sequence = batch.sequence().wrapping_sub(1);
        self.transmit()?;
        let mut waiting = keys.len();
        let mut failure = None;
        while waiting > 0 {
            let received = self.socket.receive_within(&mut self.inbox, ANSWER_TIMEOUT);
            let Some(datagram) = received.map_err(Error::socket("receive from"))? else {
                return Err(no_answer("get", &format!("elements of set {}", set.name)));
            };
            for message in Messages(datagram) {
                let sequence = message.header.sequence;
                let place = usize::try_from(sequence.wrapping_sub(first))
                    .ok()
                    .and_then(|position| all.get_mut(from..)?.get_mut(position));
                let Some(place) = place else { continue };
                waiting = waiting.saturating_sub(1);
                match message.answer().map(|answer| Failure::new(sequence, answer)) {
                    Some(refused) if refused.errno == 0 || refused.is_missing() => {}
                    Some(refused) => failure = Some(refused),
                    None => decode::elements(&message, table, set, |element| {
                        *place = Some(element.info)
                    }),
                }
            }
        }
        failure.map_or(Ok(()), |failure| Err(self.error(failure)))
    }

    pub(super) fn has_set(&mut self, set: SetSpec) -> Result<bool, Error> {
        let sets = self.list(message::GETSET, decode::set)?;
        Ok(sets.iter().any(|found| found.name == set.name))
    }

    /// Asks for every element of a set.
    fn dump_elements<T>(
        &mut self,
        set: SetSpec,
        take: impl Fn(RawElement) -> T,
    ) -> Result<Vec<T>, Error> {
        let table = self.schema.table;
        self.dump(
            |batch| {
                batch.of_object(message::GETSETELEM, NLM_F_DUMP, attr::ELEMS_SET, set.name);
            },
            |found, message| {
                decode::elements(message, table, set, |element| found.push(take(element)))
            },
        )
    }

    /// Every element of a set; in sets of intervals, sorted.
    ///
    /// A dump comes in pieces of 32 KiB. For each, the kernel walks the set from its beginning and
    /// skips as many elements as it has sent already. While it resizes the hash table of a set,
    /// which takes milliseconds in the background after many elements were added or deleted, the
    /// order changes between two pieces: some elements are sent twice, and as many not at all,
    /// without notice (nft_rhash_walk() in net/netfilter/nft_set_hash.c). So the dump is repeated
    /// until each element is sent once; or, while other processes begin transactions all the time,
    /// until nothing new is sent.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set, [`Error::is_busy`] if
    /// others change the ruleset all the time.
    pub fn dump_set(&mut self, set: impl Into<SetSpec>) -> Result<Vec<ElementInfo>, Error> {
        let set = set.into();
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        for _ in 0..MAX_DUMP_ATTEMPTS {
            let mut raw = self.dump_elements(set, |element| element)?;
            let received = raw.len();
            if set.interval {
                // A transaction comes into force element by element, and only a dump in several
                // pieces notices. The half of an interval would reach up to the next one, or to the
                // end of all addresses: it is believed when a second dump says the same.
                let is_whole = element::has_all_ends(&mut raw);
                let found = element::join(set, raw);
                let ends = |info: &ElementInfo| (info.key, info.end);
                let is_same = all.iter().map(ends).eq(found.iter().map(ends));
                if is_whole || is_same {
                    return Ok(found);
                }
                all = found;
                continue;
            }
            let found = element::join(set, raw);
            if found.len() == received {
                return Ok(found);
            }
            let before = all.len();
            all.extend(found.into_iter().filter(|info| known.insert(info.key)));
            if before > 0 && all.len() == before {
                break;
            }
        }
        if set.interval { Err(self.changes_all_the_time()) } else { Ok(all) }
    }

    /// The keys of a set without intervals, found as [`Connection::dump_set`] finds its elements,
    /// in less memory.
    ///
    /// # Errors
    /// As [`Connection::dump_set`].
    pub fn dump_keys(&mut self, set: impl Into<SetSpec>) -> Result<HashSet<Key>, Error> {
        let set = set.into();
        let mut known = HashSet::new();
        for _ in 0..MAX_DUMP_ATTEMPTS {
            let received = self.dump_elements(set, |element| element.info.key)?;
            let (count, before) = (received.len(), known.len());
            known.extend(received);
            if [count, before].contains(&known.len()) {
                break;
            }
        }
        Ok(known)
    }

    /// Calls `see` with the elements of a set without intervals as they arrive, which may pause the
    /// dump, until it returns `false` or the set ends. An element that is added or deleted meanwhile,
    /// or that the kernel moves while it resizes the set, may be missing or come twice.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set or table.
    pub fn each_element(
        &mut self,
        set: impl Into<SetSpec>,
        mut see: impl FnMut(ElementInfo) -> bool,
    ) -> Result<(), Error> {
        let (set, table) = (set.into(), self.schema.table);
        let sequence = self.request(|batch| {
            batch.of_object(message::GETSETELEM, NLM_F_DUMP, attr::ELEMS_SET, set.name);
        })?;
        let mut goes_on = true;
        // A dump that is given up ends with the connection.
        self.answers(sequence, true, |message| {
            decode::elements(message, table, set, |element| {
                goes_on = goes_on && see(element.info);
            });
            !goes_on
        })?;
        Ok(())
    }

    /// Every element of a set, as by [`Connection::dump_set`]. A large set without intervals is not
    /// dumped if the keys `known` are all that it holds. `count`: its number of elements, if the
    /// kernel reports it ([`SetInfo::count`](crate::nft::decode::SetInfo)).
    ///
    /// # Errors
    /// As [`Connection::dump_set`].
    pub fn contents(
        &mut self,
        set: impl Into<SetSpec>,
        count: Option<u32>,
        known: impl FnOnce() -> Vec<Key>,
    ) -> Result<Vec<ElementInfo>, Error> {
        let set = set.into();
        if let Some(count) = count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count > LIGHT_DUMP && !set.interval)
        {
            let found: Vec<ElementInfo> =
                self.get_elements(set, &known())?.into_iter().flatten().collect();
            if found.len() >= count {
                return Ok(found);
            }
        }
        self.dump_set(set)
    }
}

fn get(batch: &mut Batch<'_>, set: SetSpec, key: Key) {
    batch.elements((message::GETSETELEM, 0), set, [(Element::new(key), Past::default())]);
}
