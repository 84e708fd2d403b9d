//! A ruleset into the kernel: read what is there, send what differs, read it back and compare.
//!
//! Somebody may change the ruleset between any two of these. The generation tells: a transaction is refused if anything has changed since the last
//! thing was read that it takes over, and all is made anew; what reads back differently is a fault only if nobody else has changed anything meanwhile.

use super::conn::Connection;
use super::decode::{self, RuleInfo, SetInfo};
use super::element::{ElementInfo, Key};
use super::encode::{self, Counters};
use super::error::Error;
use super::lower::lower;
use super::model::{Owner, Ruleset, Set};
use super::numbers::message;
use super::plan::{Found, Plan, Step, TableOwner, set_difference};
use super::schema::{SetSpec, Table};
use crate::netlink::message::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, Writer};

/// Somebody may change the ruleset between reading and writing; not for ever. A try takes milliseconds, more with more rules, on a busy machine ten.
const TRIES: u32 = 100;

/// How an installation is to be done.
#[derive(Clone, Copy, Default)]
pub struct Order<'a> {
    /// Whose the table shall be.
    pub owner: TableOwner,
    /// Elements that come in the same transaction.
    pub elements: Elements<'a>,
    /// The table is deleted and created again, even if it looks right.
    pub recreate: bool,
    /// Sets whose elements are replaced by what [`Elements::Instead`] says, even if the set itself is as it should be.
    pub refill: &'a [SetSpec],
    /// What a set may hold, where that is known: a large one that hands its elements on is asked for these instead of dumped.
    pub known: Option<&'a dyn Fn(SetSpec) -> Vec<Key>>,
}

/// What comes into the sets in the transaction that brings the rules, each with what is left of its time: there is no moment in which the rules are in
/// force and the elements are not. Where each element has a counter of its own ([`SetSpec::counts_each`]), [`Connection::complete`] brings it later, and
/// may bring its comment then.
#[derive(Clone, Copy, Default)]
pub enum Elements<'a> {
    /// What is there, and what a set that is made anew takes over.
    #[default]
    None,
    /// These beside it: none of them may be in its set already.
    Beside(&'a [(SetSpec, Vec<ElementInfo>)]),
    /// What a set that is made gets instead of what was in one of its name; `None` for sets that this knows nothing of.
    Instead(&'a dyn Fn(SetSpec) -> Option<Vec<ElementInfo>>),
}

impl<'a> Elements<'a> {
    fn beside(self) -> &'a [(SetSpec, Vec<ElementInfo>)] {
        if let Self::Beside(elements) = self { elements } else { &[] }
    }
}

/// What an installation has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// The steps, in words; empty: everything was right.
    pub steps: Vec<String>,
    /// Elements that were carried over from a set to the one in its place.
    pub carried: usize,
    /// Elements that had no room in a set that is smaller now: those with the least time left.
    pub left_out: usize,
    /// The generation of the ruleset that was there before.
    pub before: u32,
    /// The generation of the ruleset that this has made, or has found right.
    pub generation: u32,
}

impl Connection {
    /// Makes the kernel's table what `ruleset` says, in one transaction, and reads it back.
    ///
    /// # Errors
    /// [`Error::Apply`] when the kernel refuses: everything is then as it was. [`Error::Differs`] when it reads back differently, though nobody else has
    /// changed it. If somebody has, that is for [`Monitor`](super::Monitor) to tell.
    pub fn install(&mut self, ruleset: &Ruleset) -> Result<Installed, Error> {
        self.install_with(ruleset, Order::default())
    }

    /// The same, with more to say of how.
    ///
    /// # Errors
    /// As [`Connection::install`]; with [`TableOwner::Owned`], [`Error::is_unsupported`] where the kernel has no such tables.
    pub fn install_with(&mut self, ruleset: &Ruleset, order: Order<'_>) -> Result<Installed, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let read_at = self.generation()?;
            let found = self.read(ruleset)?;
            let mut plan = if order.recreate { Plan::recreate(ruleset, &found, order.owner) } else { Plan::with_owner(ruleset, &found, order.owner) };
            plan.refill(ruleset, order.refill);
            if plan.steps.is_empty() && order.elements.beside().iter().all(|(_, elements)| elements.is_empty()) {
                return Ok(Installed { before: read_at, generation: read_at, ..Installed::default() });
            }
            // Others who add elements every millisecond, here or in other tables, would make all reading in vain. What must not be lost are the elements
            // that the transaction takes over: they are read from here on. Chains, sets and rules that changed before are as if they changed afterwards.
            let guard = self.generation()?;
            let was_moved = guard != read_at;
            let installed = match self.carry_out(ruleset, order, &plan, guard) {
                Err(error) if tries < TRIES && (was_moved || error.is_busy()) => continue,
                other => other?,
            };
            if !installed.steps.is_empty() {
                let found = self.read(ruleset)?;
                // Asked after reading: whoever was quicker than that is seen.
                if let Some(object) = Plan::with_owner(ruleset, &found, order.owner).difference
                    && !was_moved
                    && self.generation()? == installed.generation
                {
                    return Err(Error::Differs { object });
                }
            }
            return Ok(installed);
        }
    }

    /// Adds elements with what is left of their time and their counters, in one transaction. Those that are there stay.
    ///
    /// # Errors
    /// As [`Connection::add_element`].
    pub fn restore(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<(), Error> {
        let table = self.schema.table;
        if elements.is_empty() {
            return Ok(());
        }
        self.transaction(None, |out, sequence| {
            encode::add_again(out, table, sequence, set, elements, Counters::Now);
            encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
        })?;
        self.shrink();
        Ok(())
    }

    /// Takes intervals out of a set and puts others in, in one transaction.
    ///
    /// # Errors
    /// As [`Connection::add_element`]; [`Error::is_not_found`] if one of those to be taken out is not there. Nothing is changed then.
    pub fn replace_intervals(&mut self, set: &Set, delete: &[ElementInfo], add: &[ElementInfo]) -> Result<(), Error> {
        let table = self.schema.table;
        self.transaction(None, |out, sequence| {
            encode::delete_all(out, table, sequence, set.id, delete);
            encode::add_again(out, table, sequence, set, add, Counters::Now);
            encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
        })?;
        self.shrink();
        Ok(())
    }

    /// Gives elements of a set their comments and counters, as they stand here, in one transaction; and what is left of their time anew. Of those that
    /// are gone by now none comes back. Gives how many were there.
    ///
    /// # Errors
    /// As [`Connection::add_element`].
    pub fn complete(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<usize, Error> {
        let table = self.schema.table;
        let mut left: Vec<ElementInfo> = elements.to_vec();
        for _ in 0..TRIES {
            if left.is_empty() {
                break;
            }
            let result = self.transaction(None, |out, sequence| {
                encode::delete_all(out, table, sequence, set.id, &left);
                encode::add_again(out, table, sequence, set, &left, Counters::Now);
                encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
            });
            match result {
                Ok(()) => break,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            // Some have ended, or were taken out.
            let keys: Vec<Key> = left.iter().map(|info| info.key).collect();
            let mut there = self.get_elements(set.id, &keys)?.into_iter().map(|found| found.is_some());
            left.retain(|_| there.next().unwrap_or(false));
        }
        self.shrink();
        Ok(left.len())
    }

    /// Whether the kernel's table is what `ruleset` says; if not, the first object that differs, and how.
    ///
    /// # Errors
    /// [`Error::Apply`] when the kernel cannot be read.
    pub fn verify(&mut self, ruleset: &Ruleset) -> Result<Option<String>, Error> {
        let found = self.read(ruleset)?;
        Ok(Plan::new(ruleset, &found).difference)
    }

    /// The generation of the kernel's ruleset: it changes with every transaction of anybody.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.get(encode::get_generation, |message| decode::generation(message).map(|event| event.id))
    }

    /// The rules of our table, with their counters.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, Error> {
        let table = self.schema.table;
        self.dump(|out, sequence| encode::of_table(out, table, message::GETRULE, NLM_F_DUMP, sequence), |message| decode::rule(message, table))
    }

    /// The sets of our table, without their elements.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, Error> {
        let table = self.schema.table;
        self.dump(|out, sequence| encode::of_table(out, table, message::GETSET, NLM_F_DUMP, sequence), |message| decode::set(message, table))
    }

    /// Reads what the kernel has of our table.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn read(&mut self, ruleset: &Ruleset) -> Result<Found, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.read_once(ruleset) {
                // Somebody took away what was there a moment ago.
                Err(error) if error.is_not_found() && tries < TRIES => {}
                other => return other,
            }
        }
    }

    fn read_once(&mut self, ruleset: &Ruleset) -> Result<Found, Error> {
        let table = self.schema.table;
        let ask = |kind, flags| move |out: &mut Writer, sequence| encode::of_table(out, table, kind, flags, sequence);
        let info = match self.get(ask(message::GETTABLE, 0), |message| decode::table(message, table)) {
            Ok(info) => info,
            Err(error) if error.is_not_found() => return Ok(Found::default()),
            Err(error) => return Err(error),
        };
        let chains = self.dump(ask(message::GETCHAIN, NLM_F_DUMP), |message| decode::chain(message, table))?;
        let sets = self.dump(ask(message::GETSET, NLM_F_DUMP), |message| decode::set(message, table))?;
        let rules = self.dump(ask(message::GETRULE, NLM_F_DUMP), |message| decode::rule(message, table))?;
        let mut elements = Vec::new();
        for set in ruleset.sets.iter().filter(|set| set.owner == Owner::Config) {
            // Only a set of the right type can be read as such.
            if sets.iter().any(|found| found.name == set.id.name && set_difference(set, found).is_none()) {
                let found = self.dump_set(set.id)?;
                elements.push((set.id, found.iter().map(|info| info.key..=info.last()).collect()));
            }
        }
        Ok(Found { table: Some(info), chains, sets, rules, elements })
    }

    /// Sends the plan in one transaction, over the ruleset of `generation`.
    fn carry_out(&mut self, ruleset: &Ruleset, order: Order<'_>, plan: &Plan<'_>, generation: u32) -> Result<Installed, Error> {
        let table = self.schema.table;
        let steps = plan.steps.iter().map(Step::to_string).collect();
        // nf_tables_commit() counts on, and leaves 0 out.
        let mut installed = Installed { steps, before: generation, generation: generation.checked_add(1).unwrap_or(1), ..Installed::default() };
        let more = order.elements.beside();
        let mut carried: Vec<(SetSpec, Vec<ElementInfo>)> = Vec::new();
        for step in &plan.steps {
            let (Step::AddElements(Set { id, .. }), Elements::Instead(books)) = (step, order.elements) else { continue };
            if let Some(elements) = books(*id) {
                carried.push((*id, elements));
            }
        }
        let is_missing = |id: &SetSpec| carried.iter().all(|(known, _)| known != id);
        let taken_over: Vec<SetSpec> = plan.steps.iter().flat_map(Step::carried).copied().filter(is_missing).collect();
        let sets = if taken_over.is_empty() { Vec::new() } else { self.sets()? };
        for id in taken_over {
            let count = sets.iter().find(|set| set.name == id.name).and_then(|set| set.count);
            let mut elements = self.contents(id, count, || order.known.map(|known| known(id)).unwrap_or_default())?;
            installed.left_out += fit(&mut elements, ruleset.set(id).and_then(|set| set.size));
            installed.carried += elements.len();
            carried.push((id, elements));
        }
        // What is carried over goes on counting, what comes from the books gets its counters later.
        let counters = if matches!(order.elements, Elements::Instead(_)) { Counters::Later } else { Counters::Now };
        self.transaction(Some(generation), |out, sequence| {
            for step in (1..).zip(&plan.steps) {
                write_step(out, table, sequence, step, &carried, counters);
            }
            for (id, elements) in more {
                if let Some(set) = ruleset.set(*id) {
                    encode::add_again(out, table, sequence, set, elements, Counters::Later);
                }
            }
            // The last message asks for the acknowledgement; this one changes nothing.
            encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
        })?;
        self.shrink();
        Ok(installed)
    }
}

/// Leaves the elements with the longest time left, as many as there is room for; tells how many had to go.
fn fit(elements: &mut Vec<ElementInfo>, size: Option<u32>) -> usize {
    let Some(size) = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size < elements.len()) else { return 0 };
    // Without a timeout is longest of all.
    elements.sort_by_key(|info| (info.expires.is_some(), info.expires.map(std::cmp::Reverse)));
    let left_out = elements.len() - size;
    elements.truncate(size);
    left_out
}

fn write_step(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    (id, step): (u32, &Step<'_>),
    carried: &[(SetSpec, Vec<ElementInfo>)],
    counters: Counters,
) {
    let mut next = || {
        let current = *sequence;
        *sequence = sequence.wrapping_add(1);
        current
    };
    match step {
        Step::DeleteTable(_) => encode::of_table(out, table, message::DELTABLE, 0, next()),
        Step::AddTable(flags) => encode::new_table(out, table, next(), *flags),
        Step::FlushRules => encode::flush_rules(out, table, next()),
        Step::DeleteChain(name) => encode::delete_chain(out, table, next(), name),
        Step::DeleteSet { name, .. } => encode::delete_set(out, table, next(), name),
        Step::AddSet(set) => encode::new_set(out, table, next(), set, id),
        Step::FlushSet(id) => encode::flush_set(out, table, next(), *id),
        Step::AddElements(set) => match carried.iter().find(|(id, _)| *id == set.id) {
            Some((_, elements)) => encode::add_again(out, table, sequence, set, elements, counters),
            None => encode::add_ranges(out, table, sequence, set.id, &set.elements),
        },
        Step::AddChain(chain) => encode::new_chain(out, table, next(), chain),
        Step::AddRules(chain) => {
            for rule in &chain.rules {
                encode::new_rule(out, table, next(), chain.name, &lower(rule));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_goes_by_the_least_time_left() {
        let info = |last: u8, expires: Option<u64>| ElementInfo {
            key: Key::V4([10, 0, 0, last].into()),
            end: None,
            timeout: expires.map(|_| std::time::Duration::from_secs(100)),
            expires: expires.map(std::time::Duration::from_secs),
            packets: 0,
            bytes: 0,
            comment: None,
        };
        let mut elements = vec![info(1, Some(5)), info(2, None), info(3, Some(50))];
        assert_eq!(fit(&mut elements, Some(2)), 1);
        assert_eq!(elements.iter().map(|info| info.key.to_string()).collect::<Vec<_>>(), ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(fit(&mut elements, None), 0);
    }
}
