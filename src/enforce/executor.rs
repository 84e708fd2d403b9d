//! Carries the engine's actions out, one transaction each or one for a run of the same kind, and
//! brings the kernel's answers back.
//!
//! It decides nothing: it carries out the engine's actions and returns the result of each as an
//! [`Outcome`].

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::element::{self, BLOCKED, Place, Placement};
use super::kernel::Kernel;
use super::networks::{Difference, Family, Networks, Span};
use crate::engine::{Action, Engine, MonoTime, Outcome, Reason, Source};
use crate::errors::error_chain;
use crate::nft::model::protocol;
use crate::nft::{Element, ElementInfo, Error, Key, Ruleset};
use crate::probe::{Port, Transport};
use crate::ruleset::SetId;

/// When more sources than this are forgiven at once, the rules forget all that they know: to look
/// for each takes longer than to see them again.
const FORGIVEN_SINGLY_MAX: usize = 100;

/// Intervals a transaction: some five milliseconds of an interval set's time.
const INTERVALS_PER_TRANSACTION: usize = 50;

/// What the rules remember of sources: first who is held, then what was counted.
const REMEMBERED: [SetId; 8] = [
    SetId::Held4,
    SetId::Held6,
    SetId::Score4,
    SetId::Score6,
    SetId::Suspect4,
    SetId::Suspect6,
    SetId::Seen4,
    SetId::Seen6,
];

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

/// The kernel with what it is known to have.
pub(crate) struct Executor<K> {
    pub(super) kernel: K,
    pub(super) networks: Networks,
    pub(super) placement: Placement,
}

/// A run of actions of one kind, and what comes after it.
type Run<'a> = (&'a [Action], &'a [Action]);

fn run_of(actions: &[Action], is_same: impl Fn(&Action) -> bool) -> Run<'_> {
    actions.split_at(actions.iter().take_while(|action| is_same(action)).count())
}

impl<K: Kernel> Executor<K> {
    pub(super) fn new(kernel: K, placement: Placement) -> Self {
        Self { kernel, networks: Networks::default(), placement }
    }

    /// Carries out the first of `actions` and those that go with it; gives what is left of them. A
    /// network whose set turns out to have other intervals than was known goes to `conflicts` and
    /// has no outcome yet.
    pub(super) fn carry_out<'a>(
        &mut self,
        now: MonoTime,
        engine: &Engine,
        ruleset: &Ruleset,
        actions: &'a [Action],
        outcomes: &mut Vec<Outcome>,
        conflicts: &mut Vec<Action>,
    ) -> &'a [Action] {
        let (unblocks, after) = run_of(actions, |action| matches!(action, Action::Unblock { .. }));
        if unblocks.len() > 1 {
            self.unblock_all(now, engine, ruleset, unblocks, outcomes);
            return after;
        }
        // Reports are no orders, and stand between releases where many blocks end at once.
        let (releases, after) =
            run_of(actions, |action| matches!(action, Action::Release { .. } | Action::Report(_)));
        if !releases.is_empty() {
            self.release(releases);
            return after;
        }
        let Some((action, after)) = actions.split_first() else { return actions };
        match self.carry_out_one(now, engine, ruleset, action) {
            Ok(Some(outcome)) => outcomes.push(outcome),
            Ok(None) => {}
            Err(()) => conflicts.push(action.clone()),
        }
        after
    }

    /// Does what `action` orders; `Ok(None)` for what is no order. `Err`: a conflict of networks.
    fn carry_out_one(
        &mut self,
        now: MonoTime,
        engine: &Engine,
        ruleset: &Ruleset,
        action: &Action,
    ) -> Result<Option<Outcome>, ()> {
        Ok(match action {
            Action::Block { source, timeout, reason, renew } => {
                let source = *source;
                let result = match self.placement.place(source) {
                    Place::Host(set, key) => self.block_host(set, key, *timeout, reason, *renew),
                    Place::Network(_) => {
                        let before = self.networks.clone_block(source);
                        self.networks.set(source, timeout.map(|timeout| now.after(timeout)), &[]);
                        let result = self.sync_over(now, source, ruleset, |owner| {
                            if owner == source {
                                Some(reason.clone())
                            } else {
                                reason_of(engine, owner)
                            }
                        });
                        self.kept_or_undone(source, before, result)?
                    }
                };
                Some(Outcome::Blocked {
                    source,
                    result: result.map_err(|error| error_chain(&error)),
                })
            }
            Action::Unblock { source } => {
                let source = *source;
                let result = match self.placement.place(source) {
                    Place::Host(set, key) => {
                        absent_is_fine(self.kernel.delete(set, &Element::new(key)))
                    }
                    Place::Network(_) => {
                        let before = self.networks.clone_block(source);
                        self.networks.remove(source);
                        let result =
                            self.sync_over(now, source, ruleset, |owner| reason_of(engine, owner));
                        self.kept_or_undone(source, before, result)?
                    }
                };
                Some(Outcome::Unblocked {
                    source,
                    result: result.map_err(|error| error_chain(&error)),
                })
            }
            Action::Exempt { source, exempt } => {
                let source = *source;
                let before = self.networks.clone_block(source);
                let expires = engine.blocked(source).and_then(|block| block.expires);
                self.networks.set(source, expires, exempt);
                let result = self.sync_over(now, source, ruleset, |owner| reason_of(engine, owner));
                let result = self.kept_or_undone(source, before, result)?;
                Some(Outcome::Exempted {
                    source,
                    result: result.map_err(|error| error_chain(&error)),
                })
            }
            Action::Count { source } => {
                Some(Outcome::Counted { source: *source, packets: self.count(*source) })
            }
            // Releases are carried out in runs.
            Action::Release { .. } | Action::Report(_) => None,
        })
    }

    /// The packets that a host's element has dropped; `None` if there is no element.
    fn count(&mut self, source: Source) -> Option<u64> {
        // Pieces of networks are cut and joined: their counters say nothing of one block.
        let Place::Host(set, key) = self.placement.place(source) else { return Some(0) };
        match self.kernel.get(set, &[key]) {
            Ok(found) => found.into_iter().next().flatten().map(|info| info.packets),
            // Not to know is not to have seen anything: the block runs out by itself.
            Err(error) => {
                log::warn!("cannot read the counter of {source}: {}", error_chain(&error));
                Some(0)
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
        let element = element::ordered(key, timeout, &comment);
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
        now: MonoTime,
        engine: &Engine,
        ruleset: &Ruleset,
        unblocks: &[Action],
        outcomes: &mut Vec<Outcome>,
    ) {
        let sources: Vec<Source> = unblocks
            .iter()
            .filter_map(
                |action| if let Action::Unblock { source } = action { Some(*source) } else { None },
            )
            .collect();
        for set in BLOCKED {
            let here: Vec<(Source, Place)> = sources
                .iter()
                .map(|source| (*source, self.placement.place(*source)))
                .filter(|(_, place)| place.set() == set)
                .collect();
            if here.is_empty() {
                continue;
            }
            let result = if set.is_interval() {
                let before: Vec<_> = here
                    .iter()
                    .map(|(source, _)| (*source, self.networks.clone_block(*source)))
                    .collect();
                for (source, _) in &here {
                    self.networks.remove(*source);
                }
                let family = if set == SetId::BlockedNets4 { Family::V4 } else { Family::V6 };
                let result =
                    self.sync_reading(now, family, ruleset, |owner| reason_of(engine, owner));
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
                absent_is_fine(self.kernel.delete_many(set, &elements).map(drop))
            };
            let result = result.map_err(|error| error_chain(&error));
            outcomes.extend(
                here.into_iter()
                    .map(|(source, _)| Outcome::Unblocked { source, result: result.clone() }),
            );
        }
    }

    /// The kernel's answer about a network; what was wanted before is wanted again if it refused.
    /// `Err`: a conflict.
    fn kept_or_undone(
        &mut self,
        source: Source,
        before: Option<super::networks::NetworkBlock>,
        result: Result<(), SyncError>,
    ) -> Result<Result<(), Error>, ()> {
        match result {
            Ok(()) => Ok(Ok(())),
            Err(error) => {
                self.networks.put_block(source, before);
                match error {
                    SyncError::Conflict(_) => Err(()),
                    SyncError::Refused(error) => Ok(Err(error)),
                }
            }
        }
    }

    /// Brings the kernel's intervals over the addresses of a network to what the blocks want.
    fn sync_over(
        &mut self,
        now: MonoTime,
        source: Source,
        ruleset: &Ruleset,
        reason: impl Fn(Source) -> Option<Reason>,
    ) -> Result<(), SyncError> {
        self.sync(now, Family::of(source), Span::of(&source.network()), ruleset, reason)
    }

    /// Brings the kernel's intervals over these addresses to what the blocks want.
    pub(super) fn sync(
        &mut self,
        now: MonoTime,
        family: Family,
        within: Span,
        ruleset: &Ruleset,
        reason: impl Fn(Source) -> Option<Reason>,
    ) -> Result<(), SyncError> {
        self.networks.prune(now, family, within);
        let difference = self.networks.difference(now, family, within);
        for part in in_transactions(difference) {
            self.send(now, &part, ruleset, &reason)?;
        }
        Ok(())
    }

    /// The same over all addresses of a family, after reading what the kernel has; foreign
    /// intervals are taken out.
    fn sync_reading(
        &mut self,
        now: MonoTime,
        family: Family,
        ruleset: &Ruleset,
        reason: impl Fn(Source) -> Option<Reason>,
    ) -> Result<(), Error> {
        match self.sync(now, family, family.all(), ruleset, &reason) {
            Ok(()) => Ok(()),
            Err(SyncError::Refused(error)) => Err(error),
            Err(SyncError::Conflict(error))
                if error.is_not_found()
                    && self.kernel.dump(family.set()).is_err_and(|error| error.is_not_found()) =>
            {
                // Where there is no set, nothing is blocked.
                self.networks.set_present(family, []);
                Ok(())
            }
            Err(SyncError::Conflict(_)) => {
                let found = self.kernel.dump(family.set())?;
                self.set_present(now, family, &found);
                self.sync(now, family, family.all(), ruleset, reason).map_err(SyncError::into_error)
            }
        }
    }

    /// The kernel's set has these intervals and no others.
    pub(super) fn set_present(&mut self, now: MonoTime, family: Family, found: &[ElementInfo]) {
        let spans = found.iter().filter_map(|info| {
            Some((
                Span::of_keys(&(info.key..=info.last()))?,
                info.expires.map(|left| now.after(left)),
            ))
        });
        self.networks.set_present(family, spans);
    }

    fn send(
        &mut self,
        now: MonoTime,
        part: &Difference,
        ruleset: &Ruleset,
        reason: &impl Fn(Source) -> Option<Reason>,
    ) -> Result<(), SyncError> {
        let Some(set) = ruleset.set(part.family.set()) else { return Ok(()) };
        let key = |number| part.family.key(number);
        let gone = |span: &Span| ElementInfo {
            key: key(span.first),
            end: Some(key(span.last)),
            timeout: None,
            expires: None,
            packets: 0,
            bytes: 0,
            comment: None,
        };
        let delete: Vec<ElementInfo> = part.delete.iter().map(gone).collect();
        let add: Vec<ElementInfo> = part
            .add
            .iter()
            .filter_map(|piece| {
                element::of_piece(now, part.family, piece, reason(piece.owner).as_ref())
            })
            .collect();
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
    fn release(&mut self, releases: &[Action]) {
        let forgiven = releases
            .iter()
            .filter(|action| matches!(action, Action::Release { forget: Some(_), .. }))
            .count();
        let result = if forgiven > FORGIVEN_SINGLY_MAX {
            self.forget_all()
        } else {
            REMEMBERED.into_iter().try_for_each(|set| self.release_from(set, releases))
        };
        if let Err(error) = result {
            log::warn!("cannot end a hold, which ends by itself: {}", error_chain(&error));
        }
    }

    fn release_from(&mut self, set: SetId, releases: &[Action]) -> Result<(), Error> {
        let of = |action: &Action| {
            if let Action::Release { source, forget } = action {
                remembered(set, *source, forget.as_deref())
            } else {
                Vec::new()
            }
        };
        let elements: Vec<_> = releases.iter().flat_map(of).map(Element::new).collect();
        // It ran out, was never there, or the rules have no reflex.
        absent_is_fine(match elements.as_slice() {
            [] => Ok(()),
            [one] => self.kernel.delete(set, one),
            many => self.kernel.delete_many(set, many).map(drop),
        })
    }

    /// The rules forget all that they remember of sources, and hold none.
    pub(super) fn forget_all(&mut self) -> Result<(), Error> {
        self.flush(&REMEMBERED)
    }

    /// The rules forget what they counted; who is held stays so until the daemon has decided.
    pub(super) fn forget_counts(&mut self) -> Result<(), Error> {
        let [_, _, counts @ ..] = &REMEMBERED;
        self.flush(counts)
    }

    /// Empties sets, those that there are.
    pub(super) fn flush(&mut self, sets: &[SetId]) -> Result<(), Error> {
        sets.iter().copied().try_for_each(|set| absent_is_fine(self.kernel.flush(set)))
    }
}

fn reason_of(engine: &Engine, source: Source) -> Option<Reason> {
    engine.blocked(source).map(|block| block.reason.clone())
}

/// What is not there need not be taken out.
fn absent_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

/// A difference in transactions that are not too long. Intervals leave before others come in their
/// place.
fn in_transactions(difference: Difference) -> Vec<Difference> {
    let Difference { family, delete, add } = difference;
    if delete.len() + add.len() <= INTERVALS_PER_TRANSACTION {
        let whole = Difference { family, delete, add };
        return if whole.is_empty() { Vec::new() } else { vec![whole] };
    }
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

/// The elements of `set` that stand for a source: its hold, and with `forget` what the rules
/// remember of it and these ports.
fn remembered(set: SetId, source: Source, forget: Option<&[Port]>) -> Vec<Key> {
    let address = source.addr();
    let is_here = match set {
        SetId::Held4 | SetId::Score4 | SetId::Suspect4 | SetId::Seen4 => address.is_ipv4(),
        _ => address.is_ipv6(),
    };
    match (set, forget) {
        _ if !is_here => Vec::new(),
        (SetId::Held4 | SetId::Held6, _)
        | (SetId::Score4 | SetId::Score6 | SetId::Suspect4 | SetId::Suspect6, Some(_)) => {
            vec![Key::from(address)]
        }
        (SetId::Seen4 | SetId::Seen6, Some(ports)) => {
            let mut keys: Vec<_> = ports.iter().filter_map(|port| touch(address, *port)).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        }
        _ => Vec::new(),
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

/// The exemptions of a block as the engine has them.
pub(super) fn mirrored(engine: &Engine, source: Source) -> Option<(Option<MonoTime>, Vec<IpNet>)> {
    engine.blocked(source).map(|block| (block.expires, block.exempt.to_vec()))
}
