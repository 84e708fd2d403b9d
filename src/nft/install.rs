//! Installs a ruleset: reads the kernel's table, sends the differences, reads it back and compares.
//!
//! Other processes may change the ruleset between any two of these. The generation shows it: a
//! transaction is refused if anything changed after the elements that it carries over were read,
//! and then everything is read again. A difference in what is read back is an error only if no
//! other process changed anything meanwhile.
//!
//! Rules come first. If the transaction with everything in it fails, the rules are installed
//! without the elements that the caller passed or that would be carried over; if that fails too,
//! the table is deleted and created again. [`Installed::fallback`] says so.

use super::conn::Connection;
use super::decode::{self, RuleInfo, SetInfo};
use super::element::{ElementInfo, Key};
use super::encode::{self, Counters};
use super::error::Error;
use super::lower::lower;
use super::model::{Owner, Ruleset, Set};
use super::numbers::message;
use super::plan::{Found, Plan, TableOwner, set_difference};
use super::schema::{SetSpec, Table};
use super::step::{Step, StepKind};
use crate::netlink::message::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, Writer};

/// Attempts of one installation, because another process may change the ruleset between reading and
/// writing. An attempt takes milliseconds, more with more rules, ten on a busy machine.
const MAX_ATTEMPTS: u32 = 100;

/// Attempts after errors that a changed ruleset may explain, but that need not come from it.
const MAX_STALE_ATTEMPTS: u32 = 20;

/// Options of an installation.
#[derive(Clone, Copy, Default)]
pub struct Order<'a> {
    /// Which process is to own the table.
    pub owner: TableOwner,
    /// Elements that come in the same transaction.
    pub elements: Elements<'a>,
    /// The table is deleted and created again, even if it looks right.
    pub recreate: bool,
    /// Sets whose elements are replaced by what [`Elements::Instead`] says, even if the set itself
    /// is as it should be.
    pub refill: &'a [SetSpec],
    /// The keys that a set may hold, where they are known: a large set that is replaced is asked
    /// for these instead of dumped.
    pub known: Option<&'a dyn Fn(SetSpec) -> Vec<Key>>,
}

/// Elements that are added in the transaction that installs the rules, each with its remaining
/// time: at no moment are the rules in force and the elements are not. Where each element has its
/// own counter ([`SetSpec::element_counters`]), [`Connection::complete`] adds it later, and may add
/// the comment then.
#[derive(Clone, Copy, Default)]
pub enum Elements<'a> {
    /// None but those that a set takes over from the one it replaces.
    #[default]
    None,
    /// These too: none of them may be in its set already.
    Beside(&'a [(SetSpec, Vec<ElementInfo>)]),
    /// The elements of a set that is created, instead of those of a set that it replaces; `None`
    /// for sets that the caller does not know.
    Instead(&'a dyn Fn(SetSpec) -> Option<Vec<ElementInfo>>),
}

impl<'a> Elements<'a> {
    fn beside(self) -> &'a [(SetSpec, Vec<ElementInfo>)] {
        if let Self::Beside(elements) = self { elements } else { &[] }
    }
}

/// What an installation has done.
#[derive(Debug, Default)]
pub struct Installed {
    /// The steps; empty: everything was right.
    pub steps: Vec<StepKind>,
    /// Number of elements that were carried over from a set to its replacement.
    pub carried: usize,
    /// Number of elements for which a smaller set had no room: those with the least time left.
    pub left_out: usize,
    /// The generation of the ruleset before.
    pub before: u32,
    /// The generation of the ruleset that this made, or found right.
    pub generation: u32,
    /// The complete transaction failed, and this is what a simpler one installed.
    pub fallback: Option<Fallback>,
    /// After a fallback: sets that lack elements which were passed, or which their predecessors
    /// had. The caller adds them.
    pub missing: Vec<SetSpec>,
}

impl Installed {
    /// Whether everything was right already.
    pub fn is_unchanged(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether this set was created.
    pub fn created(&self, set: impl Into<SetSpec>) -> bool {
        let set = set.into();
        self.steps.contains(&StepKind::AddSet(set))
    }

    /// Whether the rules were replaced, so that their counters start at zero.
    pub fn replaced_rules(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, StepKind::AddRules(_)))
    }

    /// Whether this set lacks elements that the caller has to add.
    pub fn lacks(&self, set: impl Into<SetSpec>) -> bool {
        self.missing.contains(&set.into())
    }
}

/// Why and how an installation was simplified.
#[derive(Debug)]
pub struct Fallback {
    /// Why the complete transaction failed.
    pub error: Error,
    /// What was done instead.
    pub level: FallbackLevel,
}

/// What was done when the complete transaction failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackLevel {
    /// The same without elements that were passed or would have been carried over.
    RulesOnly,
    /// The table was deleted and created again with the elements of the model.
    Recreated,
}

impl Connection {
    /// Makes the kernel's table equal to `ruleset`, in one transaction, and reads it back.
    ///
    /// # Errors
    /// [`Error::Apply`] when the kernel refuses, simplified transactions too: everything is then as
    /// it was. [`Error::Differs`] when it reads back differently, though no other process changed
    /// it. Changes of other processes are the business of [`Monitor`](super::Monitor).
    pub fn install(&mut self, ruleset: &Ruleset) -> Result<Installed, Error> {
        self.install_with(ruleset, Order::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Connection::install`]; with [`TableOwner::Owned`], [`Error::is_unsupported`] where the
    /// kernel has no such tables.
    pub fn install_with(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
    ) -> Result<Installed, Error> {
        let error = match self.install_at(ruleset, order, None) {
            Err(error) if may_fall_back(&error, order.owner) => error,
            other => return other,
        };
        for level in [FallbackLevel::RulesOnly, FallbackLevel::Recreated] {
            if let Ok(installed) = self.install_at(ruleset, order, Some(level)) {
                return Ok(Installed { fallback: Some(Fallback { error, level }), ..installed });
            }
        }
        Err(error)
    }

    fn install_at(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        fallback: Option<FallbackLevel>,
    ) -> Result<Installed, Error> {
        let recreate = order.recreate || fallback == Some(FallbackLevel::Recreated);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let read_at = self.generation()?;
            let found = self.read(ruleset)?;
            let mut plan = if recreate {
                Plan::recreate(ruleset, &found, order.owner)
            } else {
                Plan::with_owner(ruleset, &found, order.owner)
            };
            plan.refill(ruleset, order.refill);
            let missing =
                if fallback.is_some() { skipped(order.elements, &plan) } else { Vec::new() };
            let has_elements = fallback.is_none()
                && order.elements.beside().iter().any(|(_, elements)| !elements.is_empty());
            if plan.steps.is_empty() && !has_elements {
                return Ok(Installed {
                    before: read_at,
                    generation: read_at,
                    missing,
                    ..Installed::default()
                });
            }
            // With processes that add elements every millisecond, here or in other tables, no
            // reading would ever be current. Only the elements that the transaction carries over
            // must not be lost, and they are read from here on. Whatever changed before in chains,
            // sets and rules is treated as if it changed afterwards.
            let guard = self.generation()?;
            let was_moved = guard != read_at;
            let result = match fallback {
                None => self.carry_out(ruleset, order, &plan, guard),
                Some(_) => {
                    self.commit(&plan, &[], None, |_, _| {}).map(|()| Installed::of(&plan, guard))
                }
            };
            let installed = match result {
                Err(error) if attempts < MAX_ATTEMPTS && error.is_busy() => continue,
                Err(_) if attempts < MAX_STALE_ATTEMPTS && was_moved => continue,
                other => other?,
            };
            if !installed.is_unchanged() {
                let found = self.read(ruleset)?;
                // The generation is asked for after reading, so that a change before the reading is
                // noticed.
                if let Some(object) = Plan::with_owner(ruleset, &found, order.owner).difference
                    && !was_moved
                    && self.generation()? == installed.generation
                {
                    return Err(Error::Differs { object });
                }
            }
            return Ok(Installed { missing, ..installed });
        }
    }

    /// Restores elements of a set, in one transaction, with their remaining time. Those that are
    /// there stay.
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
    /// As [`Connection::add_element`]; [`Error::is_not_found`] if one of those to be taken out is
    /// not there. Nothing is changed then.
    pub fn replace_intervals(
        &mut self,
        set: &Set,
        delete: &[ElementInfo],
        add: &[ElementInfo],
    ) -> Result<(), Error> {
        let table = self.schema.table;
        self.transaction(None, |out, sequence| {
            encode::delete_all(out, table, sequence, set.id, delete);
            encode::add_again(out, table, sequence, set, add, Counters::Now);
            encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
        })?;
        self.shrink();
        Ok(())
    }

    /// Sets comment, counter and remaining time of elements of a set, in one transaction. Elements
    /// that are gone by now do not come back. Returns how many were there.
    ///
    /// # Errors
    /// As [`Connection::add_element`].
    pub fn complete(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<usize, Error> {
        let table = self.schema.table;
        let mut left: Vec<ElementInfo> = elements.to_vec();
        for _ in 0..MAX_ATTEMPTS {
            if left.is_empty() {
                break;
            }
            let result = self.transaction(None, |out, sequence| {
                encode::delete_all(out, table, sequence, set.id, &left);
                encode::add_again(out, table, sequence, set, &left, Counters::Now);
                encode::of_table(
                    out,
                    table,
                    message::NEWTABLE,
                    NLM_F_CREATE | NLM_F_ACK,
                    *sequence,
                );
            });
            match result {
                Ok(()) => break,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            // Some have expired, or were deleted.
            let keys: Vec<Key> = left.iter().map(|info| info.key).collect();
            let mut there =
                self.get_elements(set.id, &keys)?.into_iter().map(|found| found.is_some());
            left.retain(|_| there.next().unwrap_or(false));
        }
        self.shrink();
        Ok(left.len())
    }

    /// Compares the kernel's table with `ruleset`; returns the first object that differs, and how.
    ///
    /// # Errors
    /// [`Error::Apply`] when the kernel cannot be read.
    pub fn verify(&mut self, ruleset: &Ruleset) -> Result<Option<String>, Error> {
        let found = self.read(ruleset)?;
        Ok(Plan::new(ruleset, &found).difference)
    }

    /// The generation of the kernel's ruleset: it changes with every transaction of any process.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.get(encode::get_generation, |message| {
            decode::generation(message).map(|event| event.id)
        })
    }

    /// The rules of the table, with their counters.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, Error> {
        let table = self.schema.table;
        self.dump(
            |out, sequence| encode::of_table(out, table, message::GETRULE, NLM_F_DUMP, sequence),
            |message| decode::rule(message, table),
        )
    }

    /// The sets of the table, without their elements.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, Error> {
        let table = self.schema.table;
        self.dump(
            |out, sequence| encode::of_table(out, table, message::GETSET, NLM_F_DUMP, sequence),
            |message| decode::set(message, table),
        )
    }

    /// Reads what the kernel has of the table.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn read(&mut self, ruleset: &Ruleset) -> Result<Found, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.read_once(ruleset) {
                // Another process deleted something meanwhile.
                Err(error) if error.is_not_found() && attempts < MAX_ATTEMPTS => {}
                other => return other,
            }
        }
    }

    fn read_once(&mut self, ruleset: &Ruleset) -> Result<Found, Error> {
        let table = self.schema.table;
        let ask = |kind, flags| {
            move |out: &mut Writer, sequence| encode::of_table(out, table, kind, flags, sequence)
        };
        let info =
            match self.get(ask(message::GETTABLE, 0), |message| decode::table(message, table)) {
                Ok(info) => info,
                Err(error) if error.is_not_found() => return Ok(Found::default()),
                Err(error) => return Err(error),
            };
        let chains =
            self.dump(ask(message::GETCHAIN, NLM_F_DUMP), |message| decode::chain(message, table))?;
        let sets =
            self.dump(ask(message::GETSET, NLM_F_DUMP), |message| decode::set(message, table))?;
        let rules =
            self.dump(ask(message::GETRULE, NLM_F_DUMP), |message| decode::rule(message, table))?;
        let mut elements = Vec::new();
        for set in ruleset.sets.iter().filter(|set| set.owner == Owner::Config) {
            // Only a set of the right type can be read as such.
            if sets
                .iter()
                .any(|found| found.name == set.id.name && set_difference(set, found).is_none())
            {
                let found = self.dump_set(set.id)?;
                elements.push((set.id, found.iter().map(|info| info.key..=info.last()).collect()));
            }
        }
        let objects =
            self.dump(ask(message::GETOBJ, NLM_F_DUMP), |message| decode::object(message, table))?;
        let flowtables = self.dump(ask(message::GETFLOWTABLE, NLM_F_DUMP), |message| {
            decode::flowtable(message, table)
        })?;
        Ok(Found { table: Some(info), chains, sets, objects, flowtables, rules, elements })
    }

    /// Sends the plan with all elements in one transaction, over the ruleset of `generation`.
    fn carry_out(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        plan: &Plan<'_>,
        generation: u32,
    ) -> Result<Installed, Error> {
        let mut installed = Installed::of(plan, generation);
        let mut contents: Vec<Contents> = Vec::new();
        for step in &plan.steps {
            let (Step::AddElements(Set { id, .. }), Elements::Instead(elements_of)) =
                (step, order.elements)
            else {
                continue;
            };
            if let Some(elements) = elements_of(*id) {
                // Those that the caller passes get their counters later.
                contents.push(Contents { set: *id, elements, counters: Counters::Later });
            }
        }
        let is_unknown = |id: &SetSpec| contents.iter().all(|known| known.set != *id);
        let replaced: Vec<SetSpec> =
            plan.steps.iter().flat_map(Step::carried).copied().filter(is_unknown).collect();
        let sets = if replaced.is_empty() { Vec::new() } else { self.sets()? };
        for id in replaced {
            let count = sets.iter().find(|set| set.name == id.name).and_then(|set| set.count);
            let mut elements = self
                .contents(id, count, || order.known.map(|known| known(id)).unwrap_or_default())?;
            installed.left_out += fit(&mut elements, ruleset.set(id).and_then(|set| set.size));
            installed.carried += elements.len();
            // Those that are carried over keep theirs.
            contents.push(Contents { set: id, elements, counters: Counters::Now });
        }
        let table = self.schema.table;
        self.commit(plan, &contents, Some(generation), |out, sequence| {
            for (id, elements) in order.elements.beside() {
                if let Some(set) = ruleset.set(*id) {
                    encode::add_again(out, table, sequence, set, elements, Counters::Later);
                }
            }
        })?;
        Ok(installed)
    }

    /// One transaction: the steps, and what `more` writes. Sets in `contents` get these elements
    /// instead of the model's.
    fn commit(
        &mut self,
        plan: &Plan<'_>,
        contents: &[Contents],
        generation: Option<u32>,
        more: impl FnOnce(&mut Writer, &mut u32),
    ) -> Result<(), Error> {
        let table = self.schema.table;
        self.transaction(generation, |out, sequence| {
            for step in (1..).zip(&plan.steps) {
                write_step(out, table, sequence, step, contents);
            }
            more(out, sequence);
            // The last message asks for the acknowledgement; this one changes nothing.
            encode::of_table(out, table, message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK, *sequence);
        })?;
        self.shrink();
        Ok(())
    }
}

/// Elements that a set is created with.
struct Contents {
    set: SetSpec,
    elements: Vec<ElementInfo>,
    counters: Counters,
}

impl Installed {
    fn of(plan: &Plan<'_>, generation: u32) -> Self {
        let steps = plan.steps.iter().map(Step::kind).collect();
        // nf_tables_commit() increments it, and skips 0.
        Self {
            steps,
            before: generation,
            generation: generation.checked_add(1).unwrap_or(1),
            ..Self::default()
        }
    }
}

/// Whether a simpler transaction may succeed where one with everything in it failed.
fn may_fall_back(error: &Error, owner: TableOwner) -> bool {
    // The caller decides what to do about a kernel that has no owned tables.
    let has_no_owners = owner == TableOwner::Owned && error.is_unsupported();
    !error.is_permission() && !has_no_owners
}

/// The sets that get fewer elements than they would with the complete transaction.
fn skipped(elements: Elements<'_>, plan: &Plan<'_>) -> Vec<SetSpec> {
    let mut sets: Vec<SetSpec> = plan.steps.iter().flat_map(Step::carried).copied().collect();
    sets.extend(
        elements.beside().iter().filter(|(_, elements)| !elements.is_empty()).map(|(id, _)| *id),
    );
    if let Elements::Instead(elements_of) = elements {
        let created = plan
            .steps
            .iter()
            .filter_map(|step| if let Step::AddElements(set) = step { Some(set.id) } else { None });
        sets.extend(created.filter(|id| elements_of(*id).is_some()));
    }
    sets.sort_unstable_by_key(|id| id.name);
    sets.dedup();
    sets
}

/// Keeps the elements with the longest time left, as many as there is room for. Returns how many
/// were dropped.
fn fit(elements: &mut Vec<ElementInfo>, size: Option<u32>) -> usize {
    let Some(size) =
        size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size < elements.len())
    else {
        return 0;
    };
    // No timeout is the longest of all.
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
    contents: &[Contents],
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
        Step::DeleteObject { name, kind } => encode::delete_object(out, table, next(), name, *kind),
        Step::DeleteFlowtable(name) => encode::delete_flowtable(out, table, next(), name),
        Step::DeleteSet { name, .. } => encode::delete_set(out, table, next(), name),
        Step::AddSet(set) => encode::new_set(out, table, next(), set, id),
        Step::FlushSet(name) => encode::flush_set(out, table, next(), name),
        Step::AddElements(set) => match contents.iter().find(|contents| contents.set == set.id) {
            Some(Contents { elements, counters, .. }) => {
                encode::add_again(out, table, sequence, set, elements, *counters)
            }
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
    fn elements_without_room_are_those_with_the_least_time_left() {
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
        assert_eq!(
            elements.iter().map(|info| info.key.to_string()).collect::<Vec<_>>(),
            ["10.0.0.2", "10.0.0.3"]
        );
        assert_eq!(fit(&mut elements, None), 0);
    }
}
