//! Carries the engine's actions out, one transaction each or one for a run of the same kind, and
//! brings the kernel's answers back.
//!
//! It decides nothing: it carries out the engine's actions and returns the result of each as an
//! [`Outcome`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::element::{self, BLOCKED, Place, Placement};
use super::kernel::{Kernel, absent_is_fine};
use super::networks::{Difference, Family, Networks, Piece, Span, intervals};
use crate::engine::{Action, BlockView, Engine, MonoTime, Outcome, Reason, Source};
use crate::errors::error_chain;
use crate::nft::model::protocol;
use crate::nft::{DataType, Element, ElementInfo, Error, Key, Ruleset};
use crate::probe::{Port, Transport};
use crate::ruleset::SetId;

/// When more sources than this are forgiven at once, the rules forget all that they know: to look
/// for each takes longer than to see them again. Lists are lifted in parts that are no larger.
const FORGIVEN_SINGLY_MAX: usize = 100;

/// Intervals a transaction: some five milliseconds of an interval set's time.
const INTERVALS_PER_TRANSACTION: usize = 50;

/// Who is held by the rules, and what became of their packets.
const HELD: [SetId; 12] = [
    SetId::Held4,
    SetId::Held6,
    SetId::HeldNets6,
    SetId::Campaigns4,
    SetId::Campaigns6,
    SetId::Campaigns6Wide,
    SetId::Packets4,
    SetId::Packets6,
    SetId::PacketsNets6,
    SetId::Drops4,
    SetId::Drops6,
    SetId::DropsNets6,
];

/// What else the rules remember of sources: what was counted.
const COUNTED: [SetId; 16] = [
    SetId::Score4,
    SetId::Score6,
    SetId::Suspect4,
    SetId::Suspect6,
    SetId::Seen4,
    SetId::Seen6,
    SetId::Tally4,
    SetId::Tally6,
    SetId::Far4,
    SetId::Far6,
    SetId::Patient4,
    SetId::Patient6,
    SetId::Blind4,
    SetId::Blind6,
    SetId::Pinged4,
    SetId::Pinged6,
];

/// Elements that the kernel did not give up, remembered; more are taken for new ones.
const UNDELETED_MAX: usize = 1000;

/// Why a set of networks could not be brought to what is wanted.
#[derive(Debug)]
pub(super) enum SyncError {
    /// The set has other intervals than was known: it has to be read.
    Conflict(Error),
    /// Anything else.
    Refused(Error),
}

impl SyncError {
    pub(super) fn into_error(self) -> Error {
        let (Self::Conflict(error) | Self::Refused(error)) = self;
        error
    }
}

impl From<Error> for SyncError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What orders are carried out by.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) now: MonoTime,
    pub(super) engine: &'a Engine,
    pub(super) ruleset: &'a Ruleset,
    /// The block that is being ordered, which the engine does not have yet, with its reason.
    pub(super) ordered: Option<(Source, &'a Reason)>,
}

impl<'a> Context<'a> {
    fn reason(&self, owner: Source) -> Option<&'a Reason> {
        match self.ordered {
            Some((source, reason)) if source == owner => Some(reason),
            _ => self.engine.blocked(owner).map(|block| block.reason),
        }
    }
}

/// The kernel with what it is known to have.
pub(crate) struct Executor<K> {
    pub(crate) kernel: K,
    pub(super) networks: Networks,
    pub(super) placement: Placement,
    /// Elements that no block needs and that the kernel did not give up.
    pub(super) undeleted: Vec<(SetId, Key)>,
}

/// A run of actions of one kind, and what comes after it.
type Run<'a> = (&'a [Action], &'a [Action]);

fn run_of(actions: &[Action], is_same: impl Fn(&Action) -> bool) -> Run<'_> {
    actions.split_at(actions.iter().take_while(|action| is_same(action)).count())
}

impl<K: Kernel> Executor<K> {
    /// Carries out the first of `actions` and those that go with it; gives what is left of them. A
    /// network whose set turns out to have other intervals than was known goes to `conflicts` and
    /// has no outcome yet.
    pub(super) fn carry_out<'a>(
        &mut self,
        context: Context<'_>,
        actions: &'a [Action],
        outcomes: &mut Vec<Outcome>,
        conflicts: &mut Vec<Action>,
    ) -> &'a [Action] {
        let (unblocks, after) = run_of(actions, |action| matches!(action, Action::Unblock { .. }));
        if unblocks.len() > 1 {
            self.unblock_all(context, unblocks, outcomes);
            return after;
        }
        // Reports are no orders, and stand between releases where many blocks end at once.
        let (releases, after) =
            run_of(actions, |action| matches!(action, Action::Release { .. } | Action::Report(_)));
        if !releases.is_empty() {
            self.release(context, releases);
            return after;
        }
        let Some((action, after)) = actions.split_first() else { return actions };
        if let Action::Check { source } = action {
            let place = self.place_of(context, *source);
            let is_there = self.is_there(*source, place);
            outcomes.push(Outcome::Checked { source: *source, is_there });
            return after;
        }
        match self.carry_out_one(context, action) {
            Err(SyncError::Conflict(_)) => conflicts.push(action.clone()),
            Err(SyncError::Refused(error)) => {
                outcomes.extend(outcome(action, Err(error_chain(&error))))
            }
            Ok(()) => outcomes.extend(outcome(action, Ok(()))),
        }
        after
    }

    /// Does what `action` orders of a block.
    fn carry_out_one(&mut self, context: Context<'_>, action: &Action) -> Result<(), SyncError> {
        match action {
            Action::Block { source, timeout, reason, renew } => match self
                .placement
                .place_of(*source, reason)
            {
                Place::Host(set, key) => {
                    self.block_host(set, key, *timeout, reason, *renew)?;
                    if let Some(before) = context.engine.blocked(*source) {
                        self.leave(before, set);
                    }
                }
                Place::Network(_) => {
                    let context = Context { ordered: Some((*source, reason)), ..context };
                    let expires = timeout.map(|timeout| context.now.after(timeout));
                    self.change(context, *source, |networks| networks.set(*source, expires, &[]))?;
                }
            },
            Action::Unblock { source } => match self.place_of(context, *source) {
                Place::Host(set, key) => self.kernel.delete(set, &[Element::new(key)])?,
                Place::Network(_) => self.change(context, *source, |networks| {
                    networks.remove(*source);
                })?,
            },
            Action::Exempt { source, exempt } => {
                let expires = context.engine.blocked(*source).and_then(|block| block.expires);
                self.change(context, *source, |networks| networks.set(*source, expires, exempt))?;
            }
            // Not of a block, or carried out in runs.
            Action::Slow { source, timeout } => self.slow(*source, *timeout),
            Action::Campaign { network, timeout } => self.campaign(*network, *timeout),
            Action::Check { .. } | Action::Release { .. } | Action::Report(_) => {}
        }
        Ok(())
    }

    /// Slows a source that the rules do not slow by themselves, or slows it for longer.
    fn slow(&mut self, source: Source, timeout: Duration) {
        let (set, element) = self.slowed(source, timeout);
        // The rules do not renew a slowed prefix.
        if let Err(error) = self.kernel.renew(set, &element) {
            log::warn!("cannot slow {source}: {}", error_chain(&error));
        }
    }

    /// Slows or blocks the network of a campaign, or ends that.
    fn campaign(&mut self, network: Source, timeout: Option<Duration>) {
        let Some(set) = SetId::of_campaign(network.addr(), network.prefix_len()) else { return };
        let key = Key::from(network.addr());
        let element = Element::new(key).timeout(timeout);
        let result = match timeout {
            Some(_) => self.kernel.renew(set, &element).map(|_| ()),
            // It ran out.
            None => self.kernel.delete(set, &[Element::new(key)]),
        };
        if let Err(error) = result {
            log::warn!("cannot change how {network} is treated: {}", error_chain(&error));
        }
    }

    /// Slows sources that were slowed before, each for what is left of its time.
    pub(super) fn slow_again(&mut self, sources: &[(Source, Duration)]) {
        let mut sets: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        for (source, left) in sources {
            let (set, element) = self.slowed(*source, *left);
            sets.entry(set).or_default().push(element);
        }
        for (set, elements) in sets {
            if let Err(error) = self.kernel.add_many(set, &elements) {
                log::warn!("cannot slow {} sources: {}", elements.len(), error_chain(&error));
            }
        }
    }

    /// A slowed source's set, and its element there.
    fn slowed(&self, source: Source, timeout: Duration) -> (SetId, Element<'static>) {
        let set = self.placement.slowed_set(source);
        (set, Element::new(Key::from(source.addr())).timeout(Some(timeout)))
    }

    /// Where the block of a source is by what the engine has; the engine's block is the one before
    /// the action that is being carried out.
    fn place_of(&self, context: Context<'_>, source: Source) -> Place {
        let block = context.engine.blocked(source);
        self.placement.place(source, block.is_some_and(|block| block.reason.is_unproven_scan()))
    }

    /// Takes out the element that a host had before its block went over to another set, when it was
    /// proven. If that fails, it drops no more than the new one does, and is deleted before that.
    fn leave(&mut self, before: BlockView<'_>, to: SetId) {
        if let Place::Host(set, key) = self.placement.place_of(before.source, before.reason)
            && set != to
            && let Err(error) = self.kernel.delete(set, &[Element::new(key)])
        {
            log::debug!("{}", error_chain(&error));
            self.delete_later(set, key);
        }
    }

    /// The kernel did not give this element up.
    pub(super) fn delete_later(&mut self, set: SetId, key: Key) {
        if self.undeleted.len() < UNDELETED_MAX && !self.undeleted.contains(&(set, key)) {
            self.undeleted.push((set, key));
        }
    }

    /// Whether a host's element is there, as far as the kernel says.
    fn is_there(&mut self, source: Source, place: Place) -> bool {
        let Place::Host(set, key) = place else { return true };
        match self.kernel.get(set, &[key]) {
            Ok(found) => found.into_iter().next().flatten().is_some(),
            // Not to know changes nothing: the block runs out by itself.
            Err(error) => {
                log::warn!("cannot read the element of {source}: {}", error_chain(&error));
                true
            }
        }
    }

    fn block_host(
        &mut self,
        set: SetId,
        key: Key,
        timeout: Option<Duration>,
        reason: &Reason,
        renew: bool,
    ) -> Result<(), Error> {
        let comment = reason.comment();
        let element = Element::new(key).timeout(timeout).comment(&comment);
        if !renew {
            match self.kernel.add(set, &element) {
                // Another program added it: our timeout and reason count from now on.
                Err(error) if error.is_exists() => {}
                answer => return answer,
            }
        }
        self.kernel.renew(set, &element).map(drop)
    }

    fn unblock_all(
        &mut self,
        context: Context<'_>,
        unblocks: &[Action],
        outcomes: &mut Vec<Outcome>,
    ) {
        let placed = |action: &Action| {
            let Action::Unblock { source } = action else { return None };
            Some((*source, self.place_of(context, *source)))
        };
        let placed: Vec<(Source, Place)> = unblocks.iter().filter_map(placed).collect();
        for set in BLOCKED {
            let here = placed.iter().filter(|(_, place)| place.set() == set);
            let here: Vec<(Source, Place)> = here.copied().collect();
            if here.is_empty() {
                continue;
            }
            let result = if let Some(family) = Family::of_set(set) {
                let before: Vec<_> = here
                    .iter()
                    .map(|(source, _)| (*source, self.networks.clone_block(*source)))
                    .collect();
                for (source, _) in &here {
                    self.networks.remove(*source);
                }
                let result = self.sync_reading(context, family);
                if result.is_err() {
                    before
                        .into_iter()
                        .for_each(|(source, block)| self.networks.put_block(source, block));
                }
                result
            } else {
                let keys = here.iter().filter_map(|(_, place)| {
                    if let Place::Host(_, key) = place { Some(Element::new(*key)) } else { None }
                });
                let elements: Vec<_> = keys.collect();
                self.kernel.delete(set, &elements)
            };
            let result = result.map_err(|error| error_chain(&error));
            outcomes.extend(
                here.into_iter()
                    .map(|(source, _)| Outcome::Unblocked { source, result: result.clone() }),
            );
        }
    }

    /// Changes what is wanted of a network, and the kernel's intervals over its addresses with it.
    /// What was wanted before is wanted again if that fails.
    fn change(
        &mut self,
        context: Context<'_>,
        source: Source,
        change: impl FnOnce(&mut Networks),
    ) -> Result<(), SyncError> {
        let before = self.networks.clone_block(source);
        change(&mut self.networks);
        let result = self.sync(context, Family::of(source), Span::of(&source.network()));
        if result.is_err() {
            self.networks.put_block(source, before);
        }
        result
    }

    /// Brings the kernel's intervals over these addresses to what the blocks want.
    pub(super) fn sync(
        &mut self,
        context: Context<'_>,
        family: Family,
        within: Span,
    ) -> Result<(), SyncError> {
        self.networks.prune(context.now, family, within);
        let difference = self.networks.difference(context.now, family, within);
        in_transactions(difference).iter().try_for_each(|part| self.send(context, part))
    }

    /// The same over all addresses of a family, after reading what the kernel has; foreign
    /// intervals are taken out.
    fn sync_reading(&mut self, context: Context<'_>, family: Family) -> Result<(), Error> {
        let Err(error) = self.sync(context, family, family.all()) else { return Ok(()) };
        let SyncError::Conflict(error) = error else { return Err(error.into_error()) };
        match self.kernel.dump(family.set()) {
            Ok(found) => {
                self.set_present(context.now, family, &found);
                self.sync(context, family, family.all()).map_err(SyncError::into_error)
            }
            // Where there is no set, nothing is blocked.
            Err(absent) if absent.is_not_found() && error.is_not_found() => {
                self.networks.set_present(family, []);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel's set has these intervals and no others.
    pub(super) fn set_present(&mut self, now: MonoTime, family: Family, found: &[ElementInfo]) {
        self.networks.set_present(family, intervals(now, found));
    }

    fn send(&mut self, context: Context<'_>, part: &Difference) -> Result<(), SyncError> {
        let Context { now, ruleset, .. } = context;
        let Some(set) = ruleset.set(part.family.set()) else { return Ok(()) };
        let gone = |span: &Span| element::of_interval(now, part.family, *span, None);
        let delete: Vec<ElementInfo> = part.delete.iter().map(gone).collect();
        let new =
            |piece: &Piece| element::of_piece(now, part.family, piece, context.reason(piece.owner));
        let add: Vec<ElementInfo> = part.add.iter().filter_map(new).collect();
        match self.kernel.replace_intervals(set, &delete, &add) {
            Ok(()) => {
                self.networks.sent(part);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_exists() => {
                Err(SyncError::Conflict(error))
            }
            Err(error) => Err(SyncError::Refused(error)),
        }
    }

    /// Ends holds, and has the rules forget what else they are to forget. What cannot be taken out
    /// runs out by itself.
    fn release(&mut self, context: Context<'_>, releases: &[Action]) {
        let forgiven = releases
            .iter()
            .filter(|action| matches!(action, Action::Release { forget: Some(_), .. }))
            .count();
        let result = if forgiven > FORGIVEN_SINGLY_MAX {
            self.forget_all()
        } else {
            // A set that the rules do without is not asked for: that takes a transaction for each
            // packet of a flood.
            let is_there = |set: &SetId| context.ruleset.set(*set).is_some();
            let mut sets = HELD.into_iter().chain(COUNTED).filter(is_there);
            sets.try_for_each(|set| self.release_from(set, releases))
        };
        if let Err(error) = result {
            log::warn!("cannot end a hold, which ends by itself: {}", error_chain(&error));
        }
    }

    fn release_from(&mut self, set: SetId, releases: &[Action]) -> Result<(), Error> {
        let is_prefix = |source: Source| self.placement.is_network(source) && !source.is_single();
        let of = |action: &Action| match action {
            Action::Release { source, forget } if is_of_prefixes(set) == is_prefix(*source) => {
                remembered(set, *source, forget.as_deref())
            }
            _ => Vec::new(),
        };
        let elements: Vec<_> = releases.iter().flat_map(of).map(Element::new).collect();
        // It ran out, was never there, or the rules have no reflex.
        self.kernel.delete(set, &elements)
    }

    /// The rules forget all that they remember of sources, and hold none.
    pub(super) fn forget_all(&mut self) -> Result<(), Error> {
        self.flush(&HELD)?;
        self.flush(&COUNTED)
    }

    /// The rules forget what they counted; who is held stays so until the daemon has decided.
    pub(crate) fn forget_counts(&mut self) -> Result<(), Error> {
        self.flush(&COUNTED)
    }

    /// Empties sets, those that there are.
    pub(super) fn flush(&mut self, sets: &[SetId]) -> Result<(), Error> {
        sets.iter().copied().try_for_each(|set| absent_is_fine(self.kernel.flush(set)))
    }
}

/// What came of an order about a block; `None`: the action is none.
pub(super) fn outcome(action: &Action, result: Result<(), String>) -> Option<Outcome> {
    match *action {
        Action::Block { source, .. } => Some(Outcome::Blocked { source, result }),
        Action::Unblock { source } => Some(Outcome::Unblocked { source, result }),
        Action::Exempt { source, .. } => Some(Outcome::Exempted { source, result }),
        Action::Check { .. }
        | Action::Slow { .. }
        | Action::Campaign { .. }
        | Action::Release { .. }
        | Action::Report(_) => None,
    }
}

/// A difference in transactions that are not too long. Intervals leave before others come in their
/// place.
fn in_transactions(difference: Difference) -> Vec<Difference> {
    if difference.delete.len() + difference.add.len() <= INTERVALS_PER_TRANSACTION {
        return if difference.is_empty() { Vec::new() } else { vec![difference] };
    }
    let Difference { family, delete, add } = difference;
    let deletes = delete.chunks(INTERVALS_PER_TRANSACTION).map(|chunk| Difference {
        family,
        delete: chunk.to_vec(),
        add: Vec::new(),
    });
    let adds = add.chunks(INTERVALS_PER_TRANSACTION).map(|chunk| Difference {
        family,
        delete: Vec::new(),
        add: chunk.to_vec(),
    });
    deletes.chain(adds).collect()
}

/// Whether the elements of a set stand for prefixes that are slowed as a whole.
fn is_of_prefixes(set: SetId) -> bool {
    matches!(set, SetId::HeldNets6 | SetId::PacketsNets6 | SetId::DropsNets6)
}

/// The elements of `set` that stand for a source: its hold, and with `forget` what the rules
/// remember of it and these ports.
fn remembered(set: SetId, source: Source, forget: Option<&[Port]>) -> Vec<Key> {
    let address = source.addr();
    let is_ip4 = set.spec().key.first() == Some(&DataType::Ipv4Addr);
    match (set, forget) {
        _ if is_ip4 != address.is_ipv4() => Vec::new(),
        (SetId::Held4 | SetId::Held6 | SetId::HeldNets6, _) => vec![Key::from(address)],
        (SetId::Packets4 | SetId::Packets6 | SetId::PacketsNets6, _) => vec![Key::from(address)],
        (SetId::Drops4 | SetId::Drops6 | SetId::DropsNets6, _) => vec![Key::from(address)],
        // Pairs with each address of this host, which run out by themselves.
        (_, None) | (SetId::Pinged4 | SetId::Pinged6, _) => Vec::new(),
        // Networks, which are no sources.
        (SetId::Campaigns4 | SetId::Campaigns6 | SetId::Campaigns6Wide, _) => Vec::new(),
        (SetId::Seen4 | SetId::Seen6, Some(ports)) => {
            let mut keys: Vec<_> = ports.iter().filter_map(|port| touch(address, *port)).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        }
        (_, Some(_)) => vec![Key::from(address)],
    }
}

fn touch(address: IpAddr, port: Port) -> Option<Key> {
    Some(Key::Touch(address, protocol_number(port.transport)?, port.number))
}

/// IANA's assigned internet protocol numbers; `None` for what has no ports.
pub(super) fn protocol_number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(protocol::TCP),
        Transport::Udp => Some(protocol::UDP),
        Transport::Sctp => Some(protocol::SCTP),
        Transport::Ip => None,
    }
}
