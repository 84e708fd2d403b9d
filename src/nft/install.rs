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
use super::encode::Batch;
use super::error::Error;
use super::lower::lower;
use super::model::{Owner, Ruleset, Set};
use super::numbers::{attr, message};
use super::plan::{Found, Plan, TableOwner, set_difference};
use super::schema::SetSpec;
use super::step::Step;

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
/// time: at no moment are the rules in force and the elements are not.
#[derive(Clone, Copy, Default)]
pub enum Elements<'a> {
    /// None but those that a set takes over from the one it replaces.
    #[default]
    None,
    /// These too: none of them may be in its set already.
    Beside(&'a [(SetSpec, Vec<ElementInfo>)]),
    /// The elements of a set that is created, instead of those of a set that it replaces; `None`
    /// for sets that the caller does not know.
    Instead(&'a dyn Fn(SetSpec) -> Option<Filling<'a>>),
}

/// Elements of a set, made when they are written: there may be a million.
pub type Filling<'a> = Box<dyn Iterator<Item = ElementInfo> + 'a>;

impl<'a> Elements<'a> {
    fn beside(self) -> &'a [(SetSpec, Vec<ElementInfo>)] {
        if let Self::Beside(elements) = self { elements } else { &[] }
    }
}

/// What an installation has done.
#[derive(Debug, Default)]
pub struct Installed {
    /// The steps; empty: everything was right.
    pub steps: Vec<Step>,
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
        self.steps.contains(&Step::AddSet(set))
    }

    /// Whether the rules were replaced, so that their counters start at zero.
    pub fn replaced_rules(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::AddRules(_)))
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
                    let installed = Installed::of(&plan, guard);
                    self.commit(ruleset, &plan, Vec::new(), None, &[]).map(|()| installed)
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
        if elements.is_empty() { Ok(()) } else { self.replace_intervals(set, &[], elements) }
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
        self.transaction(None, |batch| {
            batch.delete(0, set.id, delete.iter().map(ElementInfo::element));
            batch.add_again(set, add);
            batch.acknowledge();
        })
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
        let event = self.get(|batch| batch.get_generation(), decode::generation)?;
        Ok(event.id)
    }

    /// The rules of the table, with their counters.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, Error> {
        self.list(message::GETRULE, decode::rule)
    }

    /// The sets of the table, without their elements.
    ///
    /// # Errors
    /// [`Error::Apply`].
    pub fn sets(&mut self) -> Result<Vec<SetInfo>, Error> {
        self.list(message::GETSET, decode::set)
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
        let ask = |batch: &mut Batch<'_>| batch.of_table(message::GETTABLE, 0);
        let info = match self.get(ask, |message| decode::table(message, table)) {
            Ok(info) => info,
            Err(error) if error.is_not_found() => return Ok(Found::default()),
            Err(error) => return Err(error),
        };
        let chains = self.list(message::GETCHAIN, decode::chain)?;
        let sets = self.sets()?;
        let rules = self.rules()?;
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
        let objects = self.list(message::GETOBJ, decode::object)?;
        let flowtables = self.list(message::GETFLOWTABLE, decode::flowtable)?;
        Ok(Found { table: Some(info), chains, sets, objects, flowtables, rules, elements })
    }

    /// Sends the plan with all elements in one transaction, over the ruleset of `generation`.
    fn carry_out(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        plan: &Plan,
        generation: u32,
    ) -> Result<Installed, Error> {
        let mut installed = Installed::of(plan, generation);
        let mut contents: Vec<Contents<'_>> = Vec::new();
        for id in plan.steps.iter().filter_map(filled) {
            if let Elements::Instead(elements_of) = order.elements
                && let Some(elements) = elements_of(id)
            {
                contents.push(Contents { set: id, elements });
            }
        }
        let is_unknown = |id: &SetSpec| contents.iter().all(|known| known.set != *id);
        let replaced: Vec<SetSpec> = plan.carried.iter().copied().filter(is_unknown).collect();
        let sets = if replaced.is_empty() { Vec::new() } else { self.sets()? };
        for id in replaced {
            let count = sets.iter().find(|set| set.name == id.name).and_then(|set| set.count);
            let mut elements = self
                .contents(id, count, || order.known.map(|known| known(id)).unwrap_or_default())?;
            installed.left_out += fit(&mut elements, ruleset.set(id).and_then(|set| set.size));
            installed.carried += elements.len();
            contents.push(Contents { set: id, elements: Box::new(elements.into_iter()) });
        }
        self.commit(ruleset, plan, contents, Some(generation), order.elements.beside())?;
        Ok(installed)
    }

    /// One transaction: the steps, and the elements `beside`. Sets in `contents` get these elements
    /// instead of the model's.
    fn commit(
        &mut self,
        ruleset: &Ruleset,
        plan: &Plan,
        mut contents: Vec<Contents<'_>>,
        generation: Option<u32>,
        beside: &[(SetSpec, Vec<ElementInfo>)],
    ) -> Result<(), Error> {
        self.transaction(generation, |batch| {
            for step in (1..).zip(&plan.steps) {
                write_step(batch, ruleset, step, &mut contents);
            }
            for (id, elements) in beside {
                if let Some(set) = ruleset.set(*id) {
                    batch.add_again(set, elements);
                }
            }
            batch.acknowledge();
        })
    }
}

/// Elements that a set is created with.
struct Contents<'a> {
    set: SetSpec,
    elements: Filling<'a>,
}

impl Installed {
    fn of(plan: &Plan, generation: u32) -> Self {
        // nf_tables_commit() increments it, and skips 0.
        Self {
            steps: plan.steps.clone(),
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
fn skipped(elements: Elements<'_>, plan: &Plan) -> Vec<SetSpec> {
    let mut sets = plan.carried.clone();
    sets.extend(
        elements.beside().iter().filter(|(_, elements)| !elements.is_empty()).map(|(id, _)| *id),
    );
    if let Elements::Instead(elements_of) = elements {
        let created = plan.steps.iter().filter_map(filled);
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

/// The set that a step fills.
fn filled(step: &Step) -> Option<SetSpec> {
    if let Step::AddElements(id) = step { Some(*id) } else { None }
}

fn write_step(
    batch: &mut Batch<'_>,
    ruleset: &Ruleset,
    (number, step): (u32, &Step),
    contents: &mut [Contents<'_>],
) {
    let chain = |name: &str| ruleset.chains.iter().find(|chain| chain.name == name);
    let mut delete = |kind, attribute, name: &str| batch.of_object(kind, 0, attribute, name);
    match step {
        Step::DeleteChain(name) => delete(message::DELCHAIN, attr::CHAIN_NAME, name),
        Step::DeleteFlowtable(name) => delete(message::DELFLOWTABLE, attr::FLOWTABLE_NAME, name),
        Step::DeleteSet(name) => delete(message::DELSET, attr::SET_NAME, name),
        Step::FlushSet(name) => delete(message::DELSETELEM, attr::ELEMS_SET, name),
        Step::DeleteObject { name, kind } => batch.delete_object(name, *kind),
        Step::DeleteTable => batch.of_table(message::DELTABLE, 0),
        Step::FlushRules => batch.of_table(message::DELRULE, 0),
        Step::AddTable(flags) => batch.new_table(*flags),
        Step::AddSet(id) => ruleset.set(*id).into_iter().for_each(|set| batch.new_set(set, number)),
        Step::AddElements(id) => {
            let Some(set) = ruleset.set(*id) else { return };
            match contents.iter_mut().find(|contents| contents.set == *id) {
                Some(Contents { elements, .. }) => batch.add_again(set, elements),
                None => batch.add_ranges(set),
            }
        }
        Step::AddChain(name) => chain(name).into_iter().for_each(|chain| batch.new_chain(chain)),
        Step::AddRules(name) => {
            for rule in chain(name).into_iter().flat_map(|chain| &chain.rules) {
                batch.new_rule(name, &lower(rule));
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
