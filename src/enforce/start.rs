//! Rules and blocks into the kernel as a whole: at the start, when the state store answers late,
//! with another configuration, after a loss.
//!
//! The rules come first, in one transaction with as many blocks as hold nothing up; the others
//! follow in pieces.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::backlog::Backlog;
use super::drift::{Drift, QUIET_FROM};
use super::element::{self, BLOCKED, HOSTS, Placement};
use super::enforcer::{Enforcer, Observer, Summary};
use super::executor::Executor;
use super::exempt::{self, Exemptions, exempt};
use super::kernel::{EXEMPTIONS, Kernel, absent_is_fine};
use super::networks::{Family, Networks};
use super::reconcile::{Origin, Present, Step, in_parts, of_stored, reconcile};
use super::services::Services;
use crate::config::OwnTable;
use crate::engine::{AllowList, BlockView, Engine, MonoTime, Policy, Reason, Source};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::nft::expr::Expr;
use crate::nft::plan::Found;
use crate::nft::{
    ElementInfo, Elements, Error, Filling, Installed, Key, LIGHT_DUMP, Order, Ruleset, SetSpec,
    TableOwner,
};
use crate::ruleset::{MARK, SetId};
use crate::store::{Block, Content, Stored};

/// Blocks that come in the same transaction as the rules: some 60 ms of the kernel's time.
const WITH_RULES_MAX: usize = 20_000;

/// Exempt ranges that come in the same transaction as the rules. More follow in pieces, and blocked
/// networks, which may hold exempt addresses, after them.
const EXEMPTIONS_WITH_RULES_MAX: usize = 2000;

/// All that is in force together.
pub struct InForce {
    /// The rules.
    pub ruleset: Ruleset,
    /// The engine's part of the configuration.
    pub policy: Policy,
    /// Addresses that are never blocked.
    pub never_block: AllowList,
    /// Ports of local services.
    pub services: Services,
}

/// The elements that an installation was given for each set; of hosts, of which there may be a
/// million, only how many.
type Given = BTreeMap<SetId, (Vec<ElementInfo>, Rc<Cell<usize>>)>;

/// What an installation writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    /// Sets that existed before keep their elements.
    pub(super) existing: &'a [SetId],
    /// But for these, which are written again as a whole.
    pub(super) refill: &'a [SetId],
    /// The table is deleted first, even if it looks right.
    pub(super) recreate: bool,
    /// Blocks of a set that come with the rules.
    pub(super) most: usize,
}

impl<'a> Write<'a> {
    /// All blocks of sets that did not exist before: at the start no packet waits.
    fn new_sets(existing: &'a [SetId], refill: &'a [SetId]) -> Self {
        Self { existing, refill, recreate: false, most: usize::MAX }
    }

    /// All sets, in place of whatever is there.
    pub(super) fn all(recreate: bool) -> Self {
        Self { existing: &[], refill: &[], recreate, most: WITH_RULES_MAX }
    }
}

/// What an earlier run left.
pub struct Earlier<'a> {
    /// The table in the kernel.
    pub table: &'a Found,
    /// The store's content; `None` if it could not be read yet.
    pub stored: Option<Stored>,
}

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// Puts the rules in force, together with the blocks that were stored and are gone from the
    /// kernel, and takes over those that are there.
    ///
    /// # Errors
    /// When the kernel cannot be read, or refuses the rules.
    pub fn start(
        now: MonoTime,
        kernel: K,
        observer: O,
        engine: Engine,
        in_force: InForce,
        earlier: Earlier<'_>,
        drift: Drift,
    ) -> Result<Self, Error> {
        let Earlier { table: found, stored } = earlier;
        let InForce { ruleset, policy, never_block, services } = in_force;
        let placement = Placement::new(policy.ipv6.first);
        let mut enforcer = Self {
            engine,
            observer,
            executor: Executor {
                kernel,
                networks: Networks::default(),
                placement,
                undeleted: Vec::new(),
            },
            ruleset,
            never_block: never_block.clone(),
            exemptions: Exemptions::default(),
            backlog: Backlog::default(),
            drift,
            services,
            actions: Vec::new(),
            outcomes: Vec::new(),
            conflicts: Vec::new(),
            refusal: None,
        };
        enforcer.engine.set_never_block(now, never_block);
        let Stored { content: Content { blocks, offenders, evidence, .. }, is_same_boot } =
            stored.unwrap_or_default();
        // The elements of `blocked6` are first addresses: only the rule that masks a source tells
        // what they block.
        let former = Placement::new(former_prefix(found).unwrap_or(policy.ipv6.first));
        let present = enforcer.read_present(found, former, &blocks)?;
        let origin = Origin::Start { same_boot: is_same_boot };
        let total = policy.total as usize;
        let wanted = blocks.iter().map(of_stored);
        let steps = enforcer.steps(now, origin, former, wanted, &present, total);
        drop(blocks);
        for family in Family::ALL {
            enforcer.executor.set_present(now, family, present.of(family));
        }
        for set in EXEMPTIONS
            .into_iter()
            .filter(|set| found.sets.iter().any(|there| there.name == set.name()))
        {
            let elements = enforcer.executor.kernel.dump(set)?;
            enforcer.exemptions.set_present(set, &elements);
        }
        let refill = refill(former, placement);
        let steps = in_parts(steps, placement);
        let kept: HashSet<Source> = steps.iter().filter_map(Step::kept).collect();
        // The engine learns what the steps say. Until the rules are there, nothing of this can go
        // wrong that would not be seen when they come.
        let summary = enforcer.apply(now, steps, false);
        enforcer.executor.networks =
            enforcer.executor.networks.with_blocks(enforcer.blocked_networks());
        let installed = enforcer.install(now, Write::new_sets(&present.sets, refill))?;
        if !installed.created(SetId::Services) {
            enforcer.seed_services(now);
        }
        // The engine knows of no slowed prefix or network yet, and would take an address in it for one
        // that is slowed itself.
        enforcer.executor.flush(&[
            SetId::HeldNets6,
            SetId::Campaigns4,
            SetId::Campaigns6,
            SetId::Campaigns6Wide,
        ])?;
        enforcer.engine.recall(now, offenders, evidence);
        enforcer.engine.set_services(now, enforcer.services.open.clone());
        enforcer.perform(now);
        if !kept.is_empty() && present.count() > 0 {
            enforcer.observer.notify(Notice::Adopted { blocks: kept.len() });
        }
        enforcer.report_restored(summary);
        Ok(enforcer)
    }

    /// Takes over what could not be read at the start. What the kernel's table did not have then
    /// was taken out of it.
    pub(crate) fn restore_late(&mut self, now: MonoTime, stored: Stored, had_table: bool) {
        let Stored { content, is_same_boot } = stored;
        let unknown =
            content.blocks.iter().filter(|block| self.engine.blocked(block.source).is_none());
        let wanted = unknown.map(of_stored);
        let networks = Family::ALL.map(|family| {
            let intervals = self.executor.networks.intervals(family);
            intervals.map(|(span, end)| element::of_interval(now, family, span, end)).collect()
        });
        let present = Present { networks, ..Present::default() };
        let placement = self.executor.placement;
        let blocks = self.engine.blocks().count();
        let total = (self.engine.policy().total as usize).saturating_sub(blocks);
        let origin = Origin::LateStore { same_boot: is_same_boot, had_table };
        let mut steps = self.steps(now, origin, placement, wanted, &present, total);
        // What the engine knows by other names is not news.
        steps.retain(|step| !matches!(step, Step::Adopt(_)));
        let summary = self.apply(now, in_parts(steps, placement), true);
        Family::ALL.into_iter().for_each(|family| self.backlog.sync(family));
        self.engine.recall(now, content.offenders, content.evidence);
        self.perform(now);
        self.report_restored(summary);
    }

    /// A block that leaves out parts of itself and would be one element, which cannot, if IPv6
    /// accounts had this length: that configuration cannot be put in force.
    pub fn would_lose_exemptions(&self, ipv6_bits: u8) -> Option<Source> {
        let placement = Placement::new(ipv6_bits);
        self.engine
            .blocks()
            .find(|block| !block.exempt.is_empty() && !placement.is_network(block.source))
            .map(|block| block.source)
    }

    /// Puts another configuration in force as a whole.
    ///
    /// # Errors
    /// The kernel's words; nothing has changed then.
    pub fn reconfigure(&mut self, now: MonoTime, in_force: InForce) -> Result<Installed, Error> {
        let InForce { ruleset, policy, never_block, services } = in_force;
        let placement = Placement::new(policy.ipv6.first);
        let refill = refill(self.executor.placement, placement);
        let before = (
            std::mem::replace(&mut self.ruleset, ruleset),
            self.executor.placement,
            std::mem::replace(&mut self.never_block, never_block),
        );
        let networks = self.executor.networks.clone();
        self.executor.placement = placement;
        if !refill.is_empty() {
            self.executor.networks = networks.with_blocks(self.blocked_networks());
        }
        let installed = match self.install(now, Write::new_sets(&BLOCKED, refill)) {
            Ok(installed) => installed,
            Err(error) => {
                (self.ruleset, self.executor.placement, self.never_block) = before;
                self.executor.networks = networks;
                // A transaction changes all or nothing; but if another program was at work at the
                // same time, the drift will show it.
                self.drift.pending.structure = true;
                return Err(error);
            }
        };
        self.services = services;
        self.seed_services(now);
        self.engine.set_services(now, self.services.open.clone());
        self.engine.reconfigure(now, policy);
        self.engine.set_never_block(now, self.never_block.clone());
        self.exemptions.want(&self.ruleset, &self.never_block);
        self.on_timer(now);
        // To compare so many would hold up packets for seconds, and the sets are where they were.
        if self.engine.blocks().nth(LIGHT_DUMP).is_none()
            && let Err(error) = self.compare(now)
        {
            log::warn!(
                "what is blocked cannot be compared with the kernel: {}",
                error_chain(&error)
            );
        }
        Ok(installed)
    }

    /// Compares all blocks with the kernel, and deals with what differs: what is missing is
    /// restored, what others added is adopted.
    fn compare(&mut self, now: MonoTime) -> Result<(), Error> {
        let mut present = Present::default();
        for set in BLOCKED {
            present.add(set, self.executor.kernel.dump(set)?);
        }
        let wanted = self.engine.blocks();
        let placement = self.executor.placement;
        let steps = self.steps(now, Origin::Reload, placement, wanted, &present, usize::MAX);
        for family in Family::ALL {
            self.executor.set_present(now, family, present.of(family));
        }
        let summary = self.apply(now, steps, true);
        Family::ALL.into_iter().for_each(|family| self.sync(now, family, family.all()));
        if summary.restored > 0 {
            let text = format!(
                "{} blocks were missing in the kernel and have been restored",
                summary.restored
            );
            self.observer.notify(Notice::Warning(text));
        }
        Ok(())
    }

    /// The steps from what is in the kernel to what is wanted, with `total` blocks at most.
    fn steps<'a>(
        &self,
        now: MonoTime,
        origin: Origin,
        placement: Placement,
        wanted: impl IntoIterator<Item = BlockView<'a>>,
        present: &Present,
        total: usize,
    ) -> Vec<Step> {
        let must_not = |source, reason: &Reason| self.engine.must_not_block(source, reason);
        reconcile(now, origin, placement, wanted, present, total, &must_not)
    }

    /// What the kernel has of blocks.
    fn read_present(
        &mut self,
        found: &Found,
        placement: Placement,
        stored: &[Block],
    ) -> Result<Present, Error> {
        let mut present = Present::default();
        for set in BLOCKED {
            let Some(there) = found.sets.iter().find(|there| there.name == set.name()) else {
                continue;
            };
            let key = |block: &Block| placement.key_in(set, &of_stored(block));
            let known = || stored.iter().filter_map(key).collect();
            let elements = self.executor.kernel.contents(set, there.count, &known);
            present.add(set, absent_is_fine(elements)?);
        }
        Ok(present)
    }

    /// Makes the table what it should be, in one transaction if the kernel lets it, rules alone if
    /// not; what did not come with it follows.
    pub(super) fn install(&mut self, now: MonoTime, write: Write<'_>) -> Result<Installed, Error> {
        let many = self.engine.blocks().nth(QUIET_FROM).is_some();
        let given: RefCell<Given> = RefCell::default();
        let Self { engine, executor, ruleset, never_block, drift, .. } = self;
        let placement = executor.placement;
        let lists: BTreeMap<SetId, Vec<RangeInclusive<Key>>> = EXEMPTIONS
            .into_iter()
            .filter_map(|set| Some((set, exempt(ruleset, never_block, set)?)))
            .collect();
        let are_few = lists.values().map(Vec::len).sum::<usize>() <= EXEMPTIONS_WITH_RULES_MAX;
        let networks = &executor.networks;
        let engine = &*engine;
        let contents = |spec: SetSpec| -> Option<Filling<'_>> {
            let set = SetId::of(spec)?;
            let elements: Vec<ElementInfo> = match set {
                SetId::Allowed4 | SetId::Allowed6 | SetId::Spared4 | SetId::Spared6 => {
                    let ranges = lists.get(&set)?;
                    if are_few { ranges.iter().map(exempt::element).collect() } else { Vec::new() }
                }
                SetId::Blocked4 | SetId::Blocked6 | SetId::Unproven4 | SetId::Unproven6 => {
                    if write.existing.contains(&set) && !write.refill.contains(&set) {
                        return None;
                    }
                    let count = Rc::new(Cell::new(0));
                    given.borrow_mut().insert(set, (Vec::new(), Rc::clone(&count)));
                    let hosts = engine
                        .blocks()
                        .filter_map(move |block| Some((placement.key_in(set, &block)?, block)));
                    let elements = hosts
                        .take(write.most)
                        .filter_map(move |(key, block)| element::of_host(now, key, &block));
                    return Some(Box::new(
                        elements.inspect(move |_| count.update(|count| count + 1)),
                    ));
                }
                SetId::BlockedNets4 | SetId::BlockedNets6 if are_few => {
                    let family = Family::of_set(set)?;
                    let pieces = networks.pieces(now, family, family.all());
                    let reason = |owner| engine.blocked(owner).map(|block| block.reason);
                    pieces
                        .iter()
                        .take(write.most)
                        .filter_map(|piece| {
                            element::of_piece(now, family, piece, reason(piece.owner))
                        })
                        .collect()
                }
                SetId::BlockedNets4 | SetId::BlockedNets6 => Vec::new(),
                _ => return None,
            };
            let count = Rc::new(Cell::new(elements.len()));
            given.borrow_mut().insert(set, (elements.clone(), count));
            Some(Box::new(elements.into_iter()))
        };
        let refill: Vec<SetSpec> = write.refill.iter().map(|set| set.spec()).collect();
        let known = |spec: SetSpec| {
            let key = |block: BlockView<'_>| placement.key_in(SetId::of(spec)?, &block);
            engine.blocks().filter_map(key).collect()
        };
        let order = |owner: TableOwner| Order {
            owner,
            elements: Elements::Instead(&contents),
            recreate: write.recreate,
            refill: &refill,
            known: Some(&known),
        };
        let (mut result, mut others) = executor.kernel.install(ruleset, order(drift.owner), many);
        if drift.owner == TableOwner::Owned && result.as_ref().is_err_and(Error::is_unsupported) {
            // This kernel has no tables that stay when their owner ends.
            (drift.own_table, drift.owner) = (OwnTable::No, TableOwner::Unowned);
            (result, others) = executor.kernel.install(ruleset, order(drift.owner), many);
        }
        drift.lost |= others;
        let installed = result?;
        self.installed(now, write, &installed, &given.into_inner());
        Ok(installed)
    }

    /// Leaves these rules in the kernel, with the sets and blocks as they are.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn rest(&mut self, at_rest: &Ruleset) -> Result<(), Error> {
        let order = Order { owner: self.drift.owner, ..Order::default() };
        self.executor.kernel.install(at_rest, order, false).0.map(drop)
    }

    /// What the kernel has now, and what is still to follow.
    fn installed(&mut self, now: MonoTime, write: Write<'_>, installed: &Installed, given: &Given) {
        let is_written = |set: SetId| installed.created(set) || write.refill.contains(&set);
        let given_to = |set: SetId| given.get(&set).filter(|_| !installed.lacks(set));
        let written =
            |set: SetId| given_to(set).map(|(elements, _)| elements.as_slice()).unwrap_or_default();
        if BLOCKED.into_iter().all(is_written) {
            self.backlog.clear();
        }
        for family in Family::ALL {
            let set = family.set();
            if is_written(set) {
                self.executor.set_present(now, family, written(set));
            }
            // Also where the set was kept: the blocks may want other intervals than it has.
            self.backlog.sync(family);
        }
        let placement = self.executor.placement;
        for set in HOSTS.into_iter().filter(|set| is_written(*set)) {
            let here = self
                .engine
                .blocks()
                .filter(|block| placement.key_in(set, block).is_some())
                .map(|block| block.source);
            let is_carried = !given.contains_key(&set) && installed.carried > 0;
            if is_carried && !installed.lacks(set) {
                continue;
            }
            self.backlog.restore(here.skip(given_to(set).map_or(0, |(_, count)| count.get())));
        }
        for set in EXEMPTIONS {
            if installed.created(set) {
                self.exemptions.set_present(set, written(set));
            }
        }
        if installed.fallback.is_some() {
            // The sets have what the model says, which is less than the list.
            self.exemptions.wait();
            self.drift.read.exemptions = true;
        } else {
            self.exemptions.want(&self.ruleset, &self.never_block);
        }
        if [SetId::Held4, SetId::Held6].into_iter().any(|set| installed.created(set)) {
            self.backlog.slow_again();
        }
        if installed.created(SetId::Services) {
            self.seed_services(now);
        }
    }

    fn report_restored(&mut self, summary: Summary) {
        if summary.restored > 0 {
            self.observer.notify(Notice::Restored {
                blocks: usize::try_from(summary.restored).unwrap_or(usize::MAX),
            });
        }
        let mut warn = |count: u64, text: &str| {
            if count > 0 {
                self.observer.notify(Notice::Warning(format!("{count} blocks {text}")));
            }
        };
        warn(
            summary.unblocked,
            "were taken out of the kernel's sets while the daemon was down; they count as unblocked",
        );
        warn(
            summary.never_block,
            "that were stored are not restored: what they name is never blocked now",
        );
        warn(summary.total, "that were in force or stored are lifted: block.total allows no more");
        warn(
            summary.normalised,
            "had bits below block.ipv6.first, which no rule looks up: they are blocks of the whole prefix now",
        );
    }
}

/// How long IPv6 prefixes were by the rules of an earlier run; `None` when there are none, or not
/// ours.
pub(crate) fn former_prefix(found: &Found) -> Option<u8> {
    found.rules.iter().find_map(|rule| prefix_of(&rule.expressions))
}

/// Whether the table is another program's, which happens to have the name of ours. Nothing is lost
/// with an empty one.
pub(crate) fn is_foreign(found: &Found) -> bool {
    let is_empty = found.chains.is_empty()
        && found.sets.is_empty()
        && found.objects.is_empty()
        && found.flowtables.is_empty();
    let is_marked = found.sets.iter().any(|set| {
        HOSTS.iter().any(|id| id.name() == set.name) && set.comment.as_deref() == Some(MARK)
    });
    !is_empty && !is_marked
}

/// The group that the rules of an earlier run, or of another daemon, log to, or the queue that they
/// fill; `None` when there are none. The owner of the queue has the group of the same number too.
pub(crate) fn former_group(found: &Found) -> Option<u16> {
    let expressions = found.rules.iter().flat_map(|rule| &rule.expressions);
    expressions.into_iter().find_map(|expr| match expr {
        Expr::Log { group, .. } => Some(*group),
        Expr::Queue { number, .. } => Some(*number),
        Expr::Target { name, info, .. } if name == "NFQUEUE" => {
            info.first_chunk::<2>().map(|number| u16::from_ne_bytes(*number))
        }
        _ => None,
    })
}

/// The bits that a rule keeps of a source before it looks it up in `blocked6`; without a mask all
/// 128.
fn prefix_of(expressions: &[Expr]) -> Option<u8> {
    let looks_up = |expr: &Expr| matches!(expr, Expr::Lookup { set, invert: false, .. } if set == SetId::Blocked6.name());
    let position = expressions.iter().position(looks_up)?;
    let mask = expressions
        .iter()
        .take(position)
        .rev()
        .find_map(|expr| if let Expr::Bitwise { mask, .. } = expr { Some(mask) } else { None });
    let bits = mask.map_or(128, |mask| mask.iter().map(|byte| byte.count_ones()).sum());
    u8::try_from(bits).ok().filter(|bits| (1..=128).contains(bits))
}

/// The sets whose elements mean something else by another placement, and are written again.
fn refill(before: Placement, after: Placement) -> &'static [SetId] {
    if before == after { &[] } else { &[SetId::Blocked6, SetId::Unproven6, SetId::BlockedNets6] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Ipv6Accounts};

    fn prefix_in(bits: u8) -> Option<u8> {
        let mut config = Config::default();
        config.block.ipv6 = Ipv6Accounts::of_one_length(bits);
        let ruleset = crate::ruleset::for_config(&config, 32768..=60999);
        let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
        rules.map(crate::nft::lower::lower).find_map(|expressions| prefix_of(&expressions))
    }

    #[test]
    fn the_rules_tell_how_long_their_prefixes_are() {
        for bits in [48, 56, 60, 64, 127, 128] {
            assert_eq!(prefix_in(bits), Some(bits));
        }
    }
}
