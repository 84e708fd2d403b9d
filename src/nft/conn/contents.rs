//! What is in a set: single elements, many by their keys, all of them.

use std::collections::HashSet;

use super::{Connection, DUMP_TRIES, Failure, PATIENCE, no_answer, one};
use crate::netlink::message::{Messages, NLM_F_DUMP};
use crate::nft::decode;
use crate::nft::element::{self, Element, ElementInfo, Key, RawElement};
use crate::nft::encode::{self, Past};
use crate::nft::error::Error;
use crate::nft::numbers::message;
use crate::nft::set_id::SetId;

/// Elements that may be dumped by the way. The kernel walks a set from its beginning for each 32 KiB of a dump, so that the time grows with the
/// square: 10,000 elements take some 20 ms, 100,000 two seconds, a million minutes.
pub const LIGHT_DUMP: usize = 1000;

/// Questions for elements a datagram: their answers, some 1.3 kB each as the kernel counts, fit the receive buffer.
const QUESTIONS: usize = 1000;

impl Connection {
    /// The element that `key` is in, as the kernel has it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set or table.
    pub fn get_element(&mut self, set: SetId, key: Key) -> Result<Option<ElementInfo>, Error> {
        if set.is_interval() {
            // The kernel tells the start of an interval only; such sets are small.
            return Ok(self.dump_set(set)?.into_iter().find(|info| (info.key..=info.last()).contains(&key)));
        }
        let sequence = self.request(|out, sequence| one(out, sequence, message::GETSETELEM, 0, set, &Element::key_only(key), Past::default()))?;
        let mut found = None;
        let answer = self.answers(sequence, true, |message| {
            let mut is_found = false;
            decode::elements(message, set, |element| {
                is_found = true;
                found = Some(element.info);
            });
            is_found
        });
        match answer {
            Ok(_) => Ok(found),
            // Missing set or missing element: the set is asked for, which only then costs something.
            Err(error) if error.is_not_found() => self.has_set(set).and_then(|has| if has { Ok(None) } else { Err(error) }),
            Err(error) => Err(error),
        }
    }

    /// The elements with these keys, in their order, as the kernel has them; `None` for what is not there. Of sets without intervals.
    ///
    /// The questions go many a datagram and cost the same each, however many elements the set has: of a large set a dump costs the square, since the
    /// kernel walks from the beginning for each piece (nf_tables_dump_set() in net/netfilter/nf_tables_api.c).
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set or table.
    pub fn get_elements(&mut self, set: SetId, keys: &[Key]) -> Result<Vec<Option<ElementInfo>>, Error> {
        let mut all = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(QUESTIONS) {
            self.get_chunk(set, chunk, &mut all)?;
        }
        // Of a missing element, set and table the kernel says the same.
        if !all.is_empty() && all.iter().all(Option::is_none) && !self.has_set(set)? {
            let object = format!("elements of set {}", set.name());
            return Err(Error::Apply { verb: "get", object, errno: rustix::io::Errno::NOENT.raw_os_error(), message: None });
        }
        Ok(all)
    }

    fn get_chunk(&mut self, set: SetId, keys: &[Key], all: &mut Vec<Option<ElementInfo>>) -> Result<(), Error> {
        let (first, from) = (self.sequence.wrapping_add(1), all.len());
        self.out.clear();
        for key in keys {
            self.sequence = self.sequence.wrapping_add(1);
            one(&mut self.out, self.sequence, message::GETSETELEM, 0, set, &Element::key_only(*key), Past::default());
            all.push(None);
        }
        self.transmit()?;
        let mut waiting = keys.len();
        let mut failure = None;
        while waiting > 0 {
            let received = self.socket.receive_within(&mut self.inbox, PATIENCE);
            let Some(datagram) = received.map_err(|source| Error::Socket { verb: "receive from", source })? else {
                return Err(no_answer("get", &format!("elements of set {}", set.name())));
            };
            for message in Messages(datagram) {
                let Ok(position) = usize::try_from(message.header.sequence.wrapping_sub(first)) else { continue };
                let Some(place) = all.get_mut(from..).and_then(|all| all.get_mut(position)) else { continue };
                waiting = waiting.saturating_sub(1);
                match message.answer() {
                    Some(answer) if answer.errno == rustix::io::Errno::NOENT.raw_os_error() || answer.errno == 0 => {}
                    Some(answer) => {
                        let sequence = message.header.sequence;
                        failure = Some(Failure { sequence, errno: answer.errno, message: answer.message.map(str::to_owned) });
                    }
                    None => decode::elements(&message, set, |element| *place = Some(element.info)),
                }
            }
        }
        failure.map_or(Ok(()), |failure| Err(self.error(failure)))
    }

    pub(super) fn has_set(&mut self, set: SetId) -> Result<bool, Error> {
        Ok(self
            .dump(|out, sequence| encode::of_table(out, message::GETSET, NLM_F_DUMP, sequence), decode::set)?
            .iter()
            .any(|found| found.name == set.name()))
    }

    /// Every element of a set; in sets of intervals, sorted.
    ///
    /// A dump comes in pieces of 32 KiB, and for each the kernel walks the set from its beginning and passes over as many elements as it has told. While
    /// it moves a hash set into a larger or smaller table, which it does in the background for milliseconds after many elements have come or gone, the
    /// order changes between two pieces: some elements are told twice, as many not at all, and nothing says so (nft_rhash_walk() in
    /// net/netfilter/nft_set_hash.c). So it is done again until each is told once; or, where others begin transactions all the time, until nothing new
    /// is told.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is no such set, [`Error::is_busy`] if others change the ruleset all the time.
    pub fn dump_set(&mut self, set: SetId) -> Result<Vec<ElementInfo>, Error> {
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        for _ in 0..DUMP_TRIES {
            let mut raw: Vec<RawElement> = Vec::new();
            self.dump_into(
                |out, sequence| encode::dump_set(out, sequence, set),
                &mut raw,
                |raw, message| decode::elements(message, set, |one| raw.push(one)),
            )?;
            let told = raw.len();
            let found = element::join(set, raw);
            if set.is_interval() || found.len() == told {
                return Ok(found);
            }
            let before = all.len();
            all.extend(found.into_iter().filter(|info| known.insert(info.key)));
            if before > 0 && all.len() == before {
                break;
            }
        }
        Ok(all)
    }

    /// The keys of a set without intervals, found as [`Connection::dump_set`] finds its elements, in less memory.
    ///
    /// # Errors
    /// As [`Connection::dump_set`].
    pub fn dump_keys(&mut self, set: SetId) -> Result<HashSet<Key>, Error> {
        let mut known = HashSet::new();
        for _ in 0..DUMP_TRIES {
            let mut told: Vec<Key> = Vec::new();
            self.dump_into(
                |out, sequence| encode::dump_set(out, sequence, set),
                &mut told,
                |told, message| decode::elements(message, set, |one| told.push(one.info.key)),
            )?;
            let (count, before) = (told.len(), known.len());
            known.extend(told);
            if [count, before].contains(&known.len()) {
                break;
            }
        }
        Ok(known)
    }

    /// Every element of a set, as [`Connection::dump_set`] tells them; a large one without intervals is not dumped if these keys, which may be in it, are
    /// all that it holds. `count`: how many it has, if the kernel tells that ([`SetInfo::count`](crate::nft::decode::SetInfo)).
    ///
    /// # Errors
    /// As [`Connection::dump_set`].
    pub fn contents(&mut self, set: SetId, count: Option<u32>, known: impl FnOnce() -> Vec<Key>) -> Result<Vec<ElementInfo>, Error> {
        if let Some(count) = count.and_then(|count| usize::try_from(count).ok()).filter(|count| *count > LIGHT_DUMP && !set.is_interval()) {
            let found: Vec<ElementInfo> = self.get_elements(set, &known())?.into_iter().flatten().collect();
            if found.len() >= count {
                return Ok(found);
            }
        }
        self.dump_set(set)
    }
}
