//! The smallest set of steps from the kernel's table to the wanted one.
//!
//! [`Found`] was read from the kernel; [`Plan`] is the difference between it and a [`Ruleset`].
//! Both are pure. What is right is left alone, so that elements survive a restart of the program
//! that put them there. Rules are replaced together, because their order matters.
//! [`install`](super::install) carries plans out.

use std::ops::RangeInclusive;

use super::decode::{ChainInfo, ObjectInfo, RuleInfo, SetInfo, TableInfo};
use super::element::Key;
use super::encode;
use super::expr::Expr;
use super::lower::lower;
use super::model::{Owner, Ruleset, Set};
use super::numbers::{NF_ACCEPT, set_flag, table_flag};
use super::schema::SetSpec;
use super::step::Step;

/// The flags that say which process owns the table.
const OWNED: u32 = table_flag::OWNER | table_flag::PERSIST;
/// A table as read from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The table; `None`: there is none.
    pub table: Option<TableInfo>,
    /// Its chains.
    pub chains: Vec<ChainInfo>,
    /// Its sets and maps.
    pub sets: Vec<SetInfo>,
    /// Its stateful objects.
    pub objects: Vec<ObjectInfo>,
    /// The names of its flowtables.
    pub flowtables: Vec<String>,
    /// Its rules, in order.
    pub rules: Vec<RuleInfo>,
    /// The elements of those sets that the configuration fills.
    pub elements: Vec<(SetSpec, Vec<RangeInclusive<Key>>)>,
}

/// Which process should own the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableOwner {
    /// The owner that it has now.
    #[default]
    AsFound,
    /// None: every process with CAP_NET_ADMIN may change it.
    Unowned,
    /// This connection alone; the table stays when the connection ends. Flags `owner` and
    /// `persist`, which Linux 6.9 has, and older kernels of some distributions.
    Owned,
}

impl TableOwner {
    /// The table's flags; `None`: any.
    fn flags(self) -> Option<u32> {
        match self {
            Self::AsFound => None,
            Self::Unowned => Some(0),
            Self::Owned => Some(OWNED),
        }
    }
}

/// The steps from what was found to what is wanted, in the order in which the kernel accepts them;
/// none if nothing differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// The sets whose elements are carried over to their replacement.
    pub carried: Vec<SetSpec>,
    /// The first object that differs, and how.
    pub difference: Option<String>,
}

impl Plan {
    /// Compares.
    pub fn new(wanted: &Ruleset, found: &Found) -> Self {
        Self::with_owner(wanted, found, TableOwner::AsFound)
    }

    /// Compares, the owner of the table as well.
    pub fn with_owner(wanted: &Ruleset, found: &Found, owner: TableOwner) -> Self {
        let mut plan = Self::default();
        match found.table {
            // The kernel changes these flags only when a process takes over a table that persists
            // without an owner.
            Some(TableInfo { flags, .. })
                if owner.flags().is_some_and(|wanted| flags & OWNED != wanted) =>
            {
                let orphan = owner == TableOwner::Owned && flags & OWNED == table_flag::PERSIST;
                plan.differs(|| "the table has another owner".to_owned());
                if orphan {
                    plan.steps.push(Step::AddTable(OWNED));
                    plan.compare(wanted, found, OWNED);
                } else {
                    plan.replace(wanted, found, owner.flags().unwrap_or(0));
                }
            }
            _ => plan.compare(
                wanted,
                found,
                owner
                    .flags()
                    .or(found.table.as_ref().map(|table| table.flags & OWNED))
                    .unwrap_or(0),
            ),
        }
        plan
    }

    /// Deletes the table with all its content and creates it again.
    pub fn recreate(wanted: &Ruleset, found: &Found, owner: TableOwner) -> Self {
        let mut plan = Self::default();
        match &found.table {
            None => plan.compare(wanted, found, owner.flags().unwrap_or(0)),
            Some(table) => {
                plan.replace(wanted, found, owner.flags().unwrap_or(table.flags & OWNED))
            }
        }
        plan
    }

    /// Replaces the elements of these sets too, if nothing else in the plan does.
    pub(super) fn refill(&mut self, wanted: &Ruleset, sets: &[SetSpec]) {
        for set in sets.iter().filter_map(|id| wanted.set(*id)) {
            if !self.steps.contains(&Step::AddElements(set.id)) {
                self.steps.extend(refill(set));
            }
        }
    }

    fn replace(&mut self, wanted: &Ruleset, found: &Found, flags: u32) {
        let carry = wanted.sets.iter().filter(|set| {
            found.sets.iter().any(|old| old.name == set.id.name && is_carried(set, old))
        });
        self.carried.extend(carry.map(|set| set.id));
        self.steps.push(Step::DeleteTable);
        self.compare(wanted, &Found::default(), flags);
    }

    fn differs(&mut self, what: impl FnOnce() -> String) {
        self.difference.get_or_insert_with(what);
    }

    fn compare(&mut self, wanted: &Ruleset, found: &Found, flags: u32) {
        let fault = match found.table {
            None => Some("the table is missing"),
            Some(TableInfo { flags, .. }) if flags & table_flag::DORMANT != 0 => {
                Some("the table is dormant")
            }
            Some(_) => None,
        };
        if let Some(fault) = fault {
            self.differs(|| fault.to_owned());
            self.steps.push(Step::AddTable(flags));
        }
        let (delete_sets, add_sets) = self.compare_sets(wanted, found);
        // A set that replaces one of the same name, which rules may use.
        let replaces_set = add_sets.iter().any(|step| {
            matches!(step, Step::AddSet(id) if found.sets.iter().any(|old| old.name == id.name))
        });
        let (delete_chains, add_chains) = self.compare_chains(wanted, found);
        let rules_differ = self.compare_rules(wanted, found)
            || replaces_set
            || !delete_chains.is_empty()
            || !add_chains.is_empty();

        // What refers to something is deleted before it: rules, then maps with chains or objects as
        // values, then chains, objects and flowtables.
        if rules_differ && !found.rules.is_empty() {
            self.steps.push(Step::FlushRules);
        }
        self.steps.extend(delete_sets);
        self.steps.extend(delete_chains);
        self.delete_objects(found);
        self.steps.extend(add_sets);
        self.steps.extend(add_chains);
        if rules_differ {
            self.steps.extend(wanted.chains.iter().map(|chain| Step::AddRules(chain.name)));
        }
    }

    /// Deletes sets; creates and refills sets.
    fn compare_sets(&mut self, wanted: &Ruleset, found: &Found) -> (Vec<Step>, Vec<Step>) {
        let (mut delete, mut add, mut refilled) = (Vec::new(), Vec::new(), Vec::new());
        for set in &wanted.sets {
            let name = set.id.name;
            let old = found.sets.iter().find(|old| old.name == name);
            let difference = match old {
                None => Some(format!("set {name} is missing")),
                Some(old) => set_difference(set, old).map(|how| format!("set {name}: {how}")),
            };
            if let Some(difference) = difference {
                self.differs(|| difference);
                if let Some(old) = old {
                    self.carried.extend(is_carried(set, old).then_some(set.id));
                    delete.push(Step::DeleteSet(name.to_owned()));
                }
                add.extend([Step::AddSet(set.id), Step::AddElements(set.id)]);
            } else if set.owner == Owner::Config && !has_elements(set, found) {
                self.differs(|| format!("set {name} has other elements"));
                refilled.extend(refill(set));
            }
        }
        for old in &found.sets {
            let is_wanted = wanted.sets.iter().any(|set| set.id.name == old.name);
            // An anonymous set is deleted with its rule.
            if !is_wanted && old.flags & set_flag::ANONYMOUS == 0 {
                self.differs(|| format!("set {} is not part of the ruleset", old.name));
                if old.flags & (set_flag::MAP | set_flag::CONSTANT) == set_flag::MAP {
                    // Kernels before 6.5 release the chains and objects that elements refer to only
                    // when the elements are deleted.
                    delete.push(Step::FlushSet(old.name.clone()));
                }
                delete.push(Step::DeleteSet(old.name.clone()));
            }
        }
        add.append(&mut refilled);
        (delete, add)
    }

    /// Deletes chains; creates chains.
    fn compare_chains(&mut self, wanted: &Ruleset, found: &Found) -> (Vec<Step>, Vec<Step>) {
        let (mut delete, mut add) = (Vec::new(), Vec::new());
        for chain in &wanted.chains {
            let name = chain.name;
            let base = chain
                .base
                .map(|base| (base.hook as u32, base.priority, NF_ACCEPT, "filter".to_owned()));
            match found.chains.iter().find(|old| old.name == name) {
                Some(old) if old.base == base => continue,
                Some(_) => {
                    self.differs(|| format!("chain {name} is hooked differently"));
                    delete.push(Step::DeleteChain(name.to_owned()));
                }
                None => self.differs(|| format!("chain {name} is missing")),
            }
            add.push(Step::AddChain(name));
        }
        for old in found.chains.iter().filter(|old| !old.implicit) {
            if !wanted.chains.iter().any(|chain| chain.name == old.name) {
                self.differs(|| format!("chain {} is not part of the ruleset", old.name));
                delete.push(Step::DeleteChain(old.name.clone()));
            }
        }
        (delete, add)
    }

    fn delete_objects(&mut self, found: &Found) {
        for ObjectInfo { name, kind } in &found.objects {
            self.differs(|| format!("stateful object {name} is not part of the ruleset"));
            self.steps.push(Step::DeleteObject { name: name.clone(), kind: *kind });
        }
        for name in &found.flowtables {
            self.differs(|| format!("flowtable {name} is not part of the ruleset"));
            self.steps.push(Step::DeleteFlowtable(name.clone()));
        }
    }

    fn compare_rules(&mut self, wanted: &Ruleset, found: &Found) -> bool {
        for chain in &wanted.chains {
            let mut old = found.rules.iter().filter(|rule| rule.chain == chain.name);
            for (number, rule) in (1..).zip(&chain.rules) {
                let wanted = lower(rule);
                let same = old.next().is_some_and(|old| {
                    old.expressions.iter().cloned().map(Expr::at_rest).eq(wanted)
                });
                if !same {
                    self.differs(|| format!("rule {number} of chain {} differs", chain.name));
                    return true;
                }
            }
            if old.next().is_some() {
                self.differs(|| format!("chain {} has more rules than it should", chain.name));
                return true;
            }
        }
        false
    }
}

/// Replaces the elements of a set by those of the model.
fn refill(set: &Set) -> [Step; 2] {
    [Step::FlushSet(set.id.name.to_owned()), Step::AddElements(set.id)]
}

/// Whether the elements of the old set go into the new one. A set of the configuration is filled
/// from the configuration; elements of a transient set come back by themselves.
fn is_carried(set: &Set, old: &SetInfo) -> bool {
    let same_shape = (old.flags & set_flag::INTERVAL != 0) == set.id.interval;
    let is_set = old.flags & set_flag::MAP == 0;
    is_set && set.owner != Owner::Config && has_key(set, old) && same_shape && !set.id.transient
}

fn has_key(set: &Set, found: &SetInfo) -> bool {
    found.key_type == encode::key_type(set.id) && found.key_len == encode::key_len(set.id)
}

/// How a set's definition differs.
pub(super) fn set_difference(wanted: &Set, found: &SetInfo) -> Option<&'static str> {
    let counts = found
        .expressions
        .iter()
        .cloned()
        .map(Expr::at_rest)
        .eq(wanted.counter.then_some(Expr::Counter { packets: 0, bytes: 0 }));
    let checks = [
        (has_key(wanted, found), "the key is another"),
        (found.flags == encode::set_flags(wanted), "the flags are others"),
        (found.size == wanted.size, "the size is another"),
        (found.timeout == wanted.timeout, "the timeout is another"),
        (counts, "the counter is another"),
        (found.comment.as_deref() == wanted.comment, "the comment is another"),
    ];
    checks.into_iter().find_map(|(right, how)| (!right).then_some(how))
}

fn has_elements(set: &Set, found: &Found) -> bool {
    found.elements.iter().find(|(id, _)| *id == set.id).is_some_and(|(_, elements)| {
        let mut elements = elements.clone();
        elements.sort_by_key(|range| *range.start());
        elements == set.elements
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::sample::{HOSTS, PAIRS, PORTS, ruleset};

    /// What a kernel would have after a faithful installation.
    fn faithful(ruleset: &Ruleset) -> Found {
        Found {
            table: Some(TableInfo { flags: 0, owner: None }),
            chains: ruleset
                .chains
                .iter()
                .map(|chain| ChainInfo {
                    name: chain.name.to_owned(),
                    base: chain.base.map(|base| {
                        (base.hook as u32, base.priority, NF_ACCEPT, "filter".to_owned())
                    }),
                    implicit: false,
                })
                .collect(),
            sets: ruleset
                .sets
                .iter()
                .map(|set| SetInfo {
                    name: set.id.name.to_owned(),
                    flags: encode::set_flags(set),
                    key_type: encode::key_type(set.id),
                    key_len: encode::key_len(set.id),
                    size: set.size,
                    count: None,
                    timeout: set.timeout,
                    expressions: set
                        .counter
                        .then_some(Expr::Counter { packets: 7, bytes: 9 })
                        .into_iter()
                        .collect(),
                    comment: set.comment.map(str::to_owned),
                })
                .collect(),
            objects: Vec::new(),
            flowtables: Vec::new(),
            rules: ruleset
                .chains
                .iter()
                .flat_map(|chain| {
                    chain.rules.iter().map(|rule| RuleInfo {
                        chain: chain.name.to_owned(),
                        expressions: lower(rule),
                    })
                })
                .collect(),
            elements: ruleset
                .sets
                .iter()
                .filter(|set| set.owner == Owner::Config)
                .map(|set| (set.id, set.elements.clone()))
                .collect(),
        }
    }

    fn steps(plan: &Plan) -> Vec<String> {
        plan.steps.iter().map(|step| step.to_string()).collect()
    }

    #[test]
    fn nothing_is_done_when_nothing_differs() {
        let ruleset = ruleset();
        assert_eq!(Plan::new(&ruleset, &faithful(&ruleset)), Plan::default());
    }

    #[test]
    fn other_ports_change_only_their_set() {
        let ruleset = ruleset();
        let mut found = faithful(&ruleset);
        found.elements.iter_mut().find(|(id, _)| *id == PORTS).unwrap().1.pop();
        let plan = Plan::new(&ruleset, &found);
        assert_eq!(steps(&plan), ["flush set ports", "add elements of set ports"]);
        assert_eq!(plan.difference.as_deref(), Some("set ports has other elements"));
    }

    #[test]
    fn missing_rule_replaces_rules_and_no_set() {
        let ruleset = ruleset();
        let mut found = faithful(&ruleset);
        found.rules.remove(0);
        let plan = Plan::new(&ruleset, &found);
        assert_eq!(
            plan.difference.as_deref(),
            Some(format!("rule 1 of chain {} differs", ruleset.chains[0].name).as_str())
        );
        assert!(steps(&plan).iter().all(|step| step.contains("rules")), "{:?}", steps(&plan));
    }

    #[test]
    fn set_of_another_size_is_replaced_with_its_elements() {
        let ruleset = ruleset();
        let mut found = faithful(&ruleset);
        found.sets[0].size = Some(5);
        let plan = Plan::new(&ruleset, &found);
        assert!(plan.steps.contains(&Step::DeleteSet("hosts".to_owned())));
        assert_eq!(plan.carried, [HOSTS]);
        assert_eq!(plan.steps.first(), Some(&Step::FlushRules), "a set in use cannot be deleted");
        assert_eq!(steps(&plan).iter().filter(|step| step.contains("set ")).count(), 3);
    }

    #[test]
    fn table_is_recreated_for_an_owner_or_adopted_if_orphaned() {
        let ruleset = ruleset();
        let found =
            |flags| Found { table: Some(TableInfo { flags, owner: None }), ..faithful(&ruleset) };
        let planned = |flags, owner| steps(&Plan::with_owner(&ruleset, &found(flags), owner));
        for (flags, owner) in [
            (0, TableOwner::Unowned),
            (6, TableOwner::Owned),
            (0, TableOwner::AsFound),
            (6, TableOwner::AsFound),
            (4, TableOwner::AsFound),
        ] {
            assert_eq!(planned(flags, owner), [""; 0], "{flags} {owner:?}");
        }
        assert_eq!(planned(4, TableOwner::Owned), ["add table with owner"]);
        for (flags, owner, add) in [
            (0, TableOwner::Owned, "add table with owner"),
            (6, TableOwner::Unowned, "add table"),
            (4, TableOwner::Unowned, "add table"),
        ] {
            assert_eq!(
                planned(flags, owner).get(..2).unwrap(),
                ["delete table", add],
                "{flags} {owner:?}"
            );
        }
        let table = found(0);
        let plan = Plan::with_owner(&ruleset, &table, TableOwner::Owned);
        let carried = plan.carried;
        assert!(
            carried.contains(&HOSTS) && carried.contains(&PAIRS) && !carried.contains(&PORTS),
            "{carried:?}"
        );
    }

    #[test]
    fn foreign_objects_are_deleted_after_their_references() {
        let ruleset = ruleset();
        let mut found = faithful(&ruleset);
        found.sets.push(SetInfo {
            name: "theirs_map".to_owned(),
            flags: set_flag::MAP,
            ..found.sets[0].clone()
        });
        found.chains.push(ChainInfo { name: "theirs".to_owned(), base: None, implicit: false });
        found.chains.push(ChainInfo { name: "__chain0".to_owned(), base: None, implicit: true });
        found.objects.push(ObjectInfo { name: "theirs_counter".to_owned(), kind: 1 });
        found.flowtables.push("theirs_flows".to_owned());
        let plan = Plan::new(&ruleset, &found);
        let wanted = [
            "flush rules",
            "flush set theirs_map",
            "delete set theirs_map",
            "delete chain theirs",
            "delete stateful object theirs_counter",
            "delete flowtable theirs_flows",
            "add rules of chain end",
            "add rules of chain input",
        ];
        assert_eq!(steps(&plan), wanted, "an implicit chain goes with its rule");
    }

    #[test]
    fn map_in_place_of_a_set_keeps_no_elements() {
        let ruleset = ruleset();
        let mut found = faithful(&ruleset);
        found.sets[0].flags |= set_flag::MAP;
        let plan = Plan::new(&ruleset, &found);
        assert!(plan.steps.contains(&Step::DeleteSet("hosts".to_owned())));
        assert!(plan.carried.is_empty());
    }
}
