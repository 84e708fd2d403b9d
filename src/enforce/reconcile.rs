//! What is wanted, what is there, and why we look: together they say what to do.
//!
//! Pure. Every way by which blocks and kernel come to differ goes through here: a start, a state
//! store that answers late, a reload, another program that changed the table or its elements. The
//! steps say what the engine has to learn and what the kernel has to get; [`super::Enforcer`]
//! carries them out.
//!
//! | wanted | in the kernel | what becomes of it |
//! |---|---|---|
//! | yes | the same | kept |
//! | yes | with another end | the kernel's end counts |
//! | yes | no, though its set was there all the time | another program took it out: it is not blocked any more |
//! | yes | no, because the set or the table was lost | restored with what is left of its time |
//! | no | yes | another program's: adopted |
//! | no, must not be | yes | adopted, and lifted by the engine |
//! | must not be, or `block.total` allows no more | - | not restored, and reported |

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ipnet::IpNet;

use super::element::{Place, Placement, adopted, as_comment, is_unproven_set};
use super::networks::{Family, Networks, Piece, Span, is_later, is_same_end, merged};
use crate::engine::{Adopted, BlockView, MonoTime, Reason, Source};
use crate::nft::{ElementInfo, Key};
use crate::ruleset::SetId;
use crate::store::Block;

/// What the kernel ends this much before our own books was not taken out by anybody.
const EXPIRED_WITHIN: Duration = Duration::from_secs(5);

/// What ends this soon is not worth an element.
const WORTH_RESTORING: Duration = Duration::from_secs(1);

/// Why wanted and present blocks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The daemon starts. `same_boot`: the state store was written since the kernel booted.
    Start { same_boot: bool },
    /// The state store could be read only after the start.
    LateStore { same_boot: bool, had_table: bool },
    /// Another configuration has come into force.
    Reload,
    /// Another program changed the table. `notified`: the kernel named the elements, so that what
    /// is missing was taken out; otherwise notifications were lost, or a set was lost with its
    /// elements.
    Drift { notified: bool },
}

/// What it means that the kernel has no element of a wanted block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It was lost, with its set or its table or in a reboot.
    Lost,
    /// Another program took it out.
    TakenOut,
}

impl Origin {
    /// `existed`: the set was in the kernel before this.
    pub(crate) fn missing(self, existed: bool) -> Missing {
        let is_taken_out = match self {
            Self::Start { same_boot } => same_boot && existed,
            Self::LateStore { same_boot, had_table } => same_boot && had_table,
            Self::Reload => false,
            Self::Drift { notified } => notified,
        };
        if is_taken_out { Missing::TakenOut } else { Missing::Lost }
    }
}

/// A stored block as one that should be in force.
pub(crate) fn of_stored(block: &Block) -> BlockView<'_> {
    let Block { source, exempt, since, expires, port, reason } = block;
    BlockView {
        source: *source,
        reason,
        since: *since,
        expires: *expires,
        timeout: expires.map(|end| end.since(*since)),
        port: *port,
        renewals: 0,
        exempt,
    }
}

/// A wanted block as the engine learns of it.
fn learned(now: MonoTime, block: &BlockView<'_>) -> Adopted {
    Adopted {
        source: block.source,
        timeout: block.timeout,
        remaining: block.expires.map(|end| end.since(now)),
        reason: block.reason.clone(),
        since: Some(block.since),
        port: block.port,
        exempt: block.exempt.to_vec(),
    }
}

/// Why a wanted block is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Its time is over.
    Over,
    /// It must not be any more.
    NeverBlock,
    /// `block.total` allows no more.
    Total,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It is wanted and there: the engine knows it, or learns of it.
    Keep(Adopted),
    /// It is there by another program's doing: the engine takes it over.
    Adopt(Adopted),
    /// It is wanted and lost: the engine learns of it, the kernel gets it.
    Restore(Adopted),
    /// Another program gave it another end.
    Retime(Adopted),
    /// Another program took it out.
    Unblock(Source),
    /// Another program took a part of it out.
    Exempt(Source, IpNet),
    /// It is not restored.
    Drop(Source, Dropped),
    /// An element of a host set that blocks nothing, or that may not stay.
    Delete(SetId, Key),
}

impl Step {
    /// The block that is wanted or another program's, and there.
    pub(super) fn kept(&self) -> Option<Source> {
        match self {
            Self::Keep(block) | Self::Adopt(block) | Self::Retime(block) => Some(block.source),
            _ => None,
        }
    }
}

/// Whether a block of this source and reason must not be.
pub(crate) type MustNot<'a> = &'a dyn Fn(Source, &Reason) -> bool;

/// What the kernel has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Present {
    /// Elements of the host sets.
    pub(crate) hosts: Vec<(SetId, ElementInfo)>,
    /// Elements of the network sets, each sorted.
    pub(crate) networks: [Vec<ElementInfo>; 2],
    /// The sets that were there before.
    pub(crate) sets: Vec<SetId>,
}

impl Present {
    /// The elements of a family's network set.
    pub(crate) fn of(&self, family: Family) -> &[ElementInfo] {
        family.of_pair::<Vec<_>>(&self.networks)
    }

    /// Adds a set that was there before, with its elements.
    pub(crate) fn add(&mut self, set: SetId, elements: Vec<ElementInfo>) {
        self.sets.push(set);
        match Family::of_set(set) {
            Some(family) => *family.of_pair_mut(&mut self.networks) = elements,
            None => self.hosts.extend(elements.into_iter().map(|info| (set, info))),
        }
    }

    /// Elements in all sets.
    pub(crate) fn count(&self) -> usize {
        self.hosts.len() + self.networks.iter().map(Vec::len).sum::<usize>()
    }
}

/// Compares all blocks with all elements; `total`: how many blocks there may be.
pub(crate) fn reconcile<'a>(
    now: MonoTime,
    origin: Origin,
    placement: Placement,
    wanted: impl IntoIterator<Item = BlockView<'a>>,
    present: &Present,
    total: usize,
    must_not: MustNot<'_>,
) -> Vec<Step> {
    let mut networks = Vec::new();
    let hosts = wanted.into_iter().filter(|block| {
        let is_network = placement.is_network(block.source);
        networks.extend(is_network.then_some(*block));
        !is_network
    });
    let existed = |set: SetId| present.sets.contains(&set);
    let mut steps = reconcile_hosts(now, placement, hosts, &present.hosts, must_not, |set| {
        origin.missing(existed(set))
    });
    let mut map = Networks::default();
    for block in networks {
        if block.expires.is_some_and(|end| end.since(now) < WORTH_RESTORING) {
            steps.push(Step::Drop(block.source, Dropped::Over));
        } else if must_not(block.source, block.reason) {
            steps.push(Step::Drop(block.source, Dropped::NeverBlock));
        } else {
            map.set(block.source, block.expires, block.exempt);
            let family = Family::of(block.source);
            let is_lost = origin.missing(existed(family.set())) == Missing::Lost
                && present.of(family).is_empty();
            let block = learned(now, &block);
            steps.push(if is_lost { Step::Restore(block) } else { Step::Keep(block) });
        }
    }
    for family in Family::ALL {
        let missing = origin.missing(existed(family.set()));
        steps.extend(reconcile_networks(
            now,
            missing,
            placement,
            &map,
            family,
            family.all(),
            present.of(family),
        ));
    }
    fit(whole(steps), placement, total)
}

/// Compares blocks of hosts with the elements of their sets. Either may be a part of all, as long
/// as both are the same part.
pub(crate) fn reconcile_hosts<'a>(
    now: MonoTime,
    placement: Placement,
    wanted: impl IntoIterator<Item = BlockView<'a>>,
    present: &[(SetId, ElementInfo)],
    must_not: MustNot<'_>,
    missing: impl Fn(SetId) -> Missing,
) -> Vec<Step> {
    let wanted = wanted.into_iter();
    let many = wanted.size_hint().1.unwrap_or_default().max(present.len());
    let mut steps = Vec::with_capacity(many);
    let absent = |block: BlockView<'_>| {
        let remaining = block.expires.map(|end| end.since(now));
        let missing = missing(placement.place_of(block.source, block.reason).set());
        match missing {
            Missing::TakenOut if remaining.is_some_and(|left| left <= EXPIRED_WITHIN) => {
                Step::Drop(block.source, Dropped::Over)
            }
            Missing::TakenOut => Step::Unblock(block.source),
            Missing::Lost if remaining.is_some_and(|left| left < WORTH_RESTORING) => {
                Step::Drop(block.source, Dropped::Over)
            }
            Missing::Lost if must_not(block.source, block.reason) => {
                Step::Drop(block.source, Dropped::NeverBlock)
            }
            Missing::Lost => Step::Restore(learned(now, &block)),
        }
    };
    // After a boot: a million blocks need no index.
    if present.is_empty() {
        steps.extend(wanted.map(absent));
        return steps;
    }
    let mut wanted: HashMap<Source, BlockView<'_>> =
        wanted.map(|block| (block.source, block)).collect();
    // Sources of elements that no packet is ever looked up by, or whose reason belongs into another
    // set.
    let mut strays: HashMap<Source, Adopted> = HashMap::new();
    let has_unproven = present.iter().any(|(set, _)| is_unproven_set(*set));
    let dropped: HashSet<Key> = present
        .iter()
        .filter(|(set, _)| has_unproven && !is_unproven_set(*set))
        .map(|(_, info)| info.key)
        .collect();
    for (set, info) in present {
        let Some(source) = placement.source(info.key) else { continue };
        if is_unproven_set(*set) && dropped.contains(&info.key) {
            steps.push(Step::Delete(*set, info.key));
            continue;
        }
        let found = adopted(source, info);
        let is_bare = info.comment.is_none();
        let is_here =
            |reason: &Reason| placement.place_of(source, reason) == Place::Host(*set, info.key);
        let is_ours = wanted.get(&source).is_some_and(|block| {
            is_here(block.reason)
                && (is_bare || as_comment(block.reason) == as_comment(&found.reason))
        });
        if !is_ours && !is_here(&found.reason) {
            steps.push(Step::Delete(*set, info.key));
            strays.entry(source).or_insert(found);
            continue;
        }
        let Some(block) = wanted.remove(&source) else {
            steps.push(Step::Adopt(found));
            continue;
        };
        if !is_ours {
            // Another comment or set is newer than what was wanted.
            if let Place::Host(set, key) = placement.place_of(source, block.reason)
                && !is_here(block.reason)
                && !has_unproven
            {
                steps.push(Step::Delete(set, key));
            }
            steps.push(Step::Retime(found));
        } else {
            let end = found.remaining.map(|left| now.after(left));
            let is_same = is_same_end(end, block.expires);
            let merged = Adopted {
                remaining: found.remaining,
                timeout: found.timeout,
                ..learned(now, &block)
            };
            steps.push(if is_same { Step::Keep(merged) } else { Step::Retime(merged) });
        }
    }
    // What they were meant for gets an element that works, unless it has one.
    if !strays.is_empty() {
        steps.iter().filter_map(Step::kept).for_each(|source| drop(strays.remove(&source)));
        steps.extend(strays.into_iter().map(|(source, found)| {
            Step::Restore(wanted.remove(&source).map_or(found, |block| learned(now, &block)))
        }));
    }
    steps.extend(wanted.into_values().map(absent));
    steps
}

/// Compares blocked networks with the intervals of their set, within some addresses: `present` are
/// the intervals that lie there, sorted.
///
/// What is lost needs no step: the set is made to have what the blocks want
/// ([`Networks::difference`]). Of another program's interval the part that is one account goes over
/// to the set of hosts.
pub(crate) fn reconcile_networks(
    now: MonoTime,
    missing: Missing,
    placement: Placement,
    networks: &Networks,
    family: Family,
    within: Span,
    present: &[ElementInfo],
) -> Vec<Step> {
    let mut steps = Vec::new();
    let pieces = networks.pieces(now, family, within);
    let mut covered: Vec<Span> = Vec::with_capacity(present.len());
    let mut at = 0;
    for info in present {
        let Some(span) = Span::of_element(info) else { continue };
        covered.push(span);
        while pieces.get(at).is_some_and(|piece| piece.span.last < span.first) {
            at += 1;
        }
        let here: Vec<&Piece> =
            pieces.iter().skip(at).take_while(|piece| piece.span.first <= span.last).collect();
        let end = info.expires.map(|left| now.after(left));
        for piece in &here {
            if !is_same_end(piece.expires, end) && span.contains(piece.span) {
                steps.push(Step::Retime(adopted(piece.owner, info)));
            }
        }
        // Within a piece that the kernel did not take, another program's interval may outlast it.
        let is_ours = |piece: &&&Piece| span.contains(piece.span) || !is_later(end, piece.expires);
        let ours = merged(here.iter().filter(is_ours).map(|piece| piece.span).collect());
        let foreign = span.without(&ours).into_iter().flat_map(|part| family.networks(part));
        steps.extend(foreign.map(|network| {
            let block = adopted(Source::from(network), info);
            if placement.is_network(block.source) {
                Step::Adopt(block)
            } else {
                Step::Restore(block)
            }
        }));
    }
    if missing == Missing::TakenOut {
        let covered = merged(covered);
        for piece in &pieces {
            if piece.expires.is_some_and(|end| end.since(now) <= EXPIRED_WITHIN) {
                continue;
            }
            for part in piece.span.without(&covered) {
                // Whatever wanted these addresses dropped does not want it any more.
                for (source, dropped) in networks.dropping(family, part) {
                    steps.extend(
                        dropped
                            .into_iter()
                            .flat_map(|span| family.networks(span))
                            .map(|network| Step::Exempt(source, network)),
                    );
                }
            }
        }
    }
    steps
}

/// The block of an account is one element, which can leave nothing out: a network that does, and
/// has the length of an account by now, goes on as the networks that are left of it.
pub(super) fn in_parts(steps: Vec<Step>, placement: Placement) -> Vec<Step> {
    let has_exemptions = |step: &Step| match step {
        Step::Keep(block) | Step::Restore(block) => !block.exempt.is_empty(),
        _ => false,
    };
    if !steps.iter().any(has_exemptions) {
        return steps;
    }
    let mut all = Vec::with_capacity(steps.len());
    for step in steps {
        let (Step::Keep(block) | Step::Restore(block)) = &step else {
            all.push(step);
            continue;
        };
        if block.exempt.is_empty() || placement.is_network(block.source) {
            all.push(step);
            continue;
        }
        let family = Family::of(block.source);
        let exempt = merged(block.exempt.iter().map(Span::of).collect());
        let left = Span::of(&block.source.network())
            .without(&exempt)
            .into_iter()
            .flat_map(|span| family.networks(span));
        all.extend(left.map(|part| {
            Step::Keep(Adopted { source: Source::from(part), exempt: Vec::new(), ..block.clone() })
        }));
    }
    all
}

/// A network of which every part was taken out is not kept with exemptions, but over.
fn whole(steps: Vec<Step>) -> Vec<Step> {
    let mut parts: HashMap<Source, Vec<IpNet>> = HashMap::new();
    for step in &steps {
        match step {
            Step::Exempt(source, part) => parts.entry(*source).or_default().push(*part),
            Step::Keep(block) | Step::Restore(block) if !block.exempt.is_empty() => {
                parts.entry(block.source).or_default().extend(&block.exempt)
            }
            _ => {}
        }
    }
    parts.retain(|source, parts| {
        IpNet::aggregate(parts).iter().any(|whole| whole.contains(&source.network()))
    });
    if parts.is_empty() {
        return steps;
    }
    let is_over = |step: &Step| match step {
        Step::Keep(block) | Step::Restore(block) | Step::Retime(block) => {
            parts.contains_key(&block.source)
        }
        Step::Exempt(source, _) => parts.contains_key(source),
        _ => false,
    };
    let mut left: Vec<Step> = steps.into_iter().filter(|step| !is_over(step)).collect();
    left.extend(parts.keys().map(|source| Step::Unblock(*source)));
    left
}

/// Leaves as many blocks as `block.total` allows, those that last longest; what is in the kernel
/// beyond that is taken out.
fn fit(mut steps: Vec<Step>, placement: Placement, total: usize) -> Vec<Step> {
    fn block(step: &Step) -> Option<&Adopted> {
        match step {
            Step::Keep(block) | Step::Adopt(block) | Step::Restore(block) | Step::Retime(block) => {
                Some(block)
            }
            _ => None,
        }
    }
    if steps.len() <= total {
        return steps;
    }
    let mut all: Vec<(Source, Option<Duration>)> =
        steps.iter().filter_map(block).map(|block| (block.source, block.remaining)).collect();
    // A network that was given another end has two steps.
    all.sort_unstable();
    all.dedup_by_key(|(source, _)| *source);
    if all.len() <= total {
        return steps;
    }
    all.sort_by_key(|(source, remaining)| {
        (remaining.is_some(), remaining.map(std::cmp::Reverse), *source)
    });
    let excess: HashSet<Source> =
        all.split_off(total).into_iter().map(|(source, _)| source).collect();
    let mut deletes = Vec::new();
    for step in &mut steps {
        let Some(block) = block(step).filter(|block| excess.contains(&block.source)) else {
            continue;
        };
        let source = block.source;
        if !matches!(step, Step::Restore(_))
            && let Place::Host(set, key) = placement.place_of(source, &block.reason)
        {
            deletes.push(Step::Delete(set, key));
        }
        *step = Step::Drop(source, Dropped::Total);
    }
    let is_gone = |step: &Step| matches!(step, Step::Exempt(source, _) if excess.contains(source));
    steps.retain(|step| !is_gone(step));
    steps.extend(deletes);
    steps
}

#[cfg(test)]
mod tests;
