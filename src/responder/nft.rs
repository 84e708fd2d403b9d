//! Blocks as elements of nftables sets.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::engine::{Action, Outcome, Reason, Source, Subject};
use crate::nft::decode::SetInfo;
use crate::nft::model::protocol;
use crate::nft::{Connection, Element, ElementInfo, Error, Key};
use crate::probe::{Port, Transport};
use crate::ruleset::SetId;

/// The sets that hold what is blocked.
pub const BLOCKED: [SetId; 4] = [SetId::Blocked4, SetId::Blocked6, SetId::BlockedNets4, SetId::BlockedNets6];

/// When more sources than this are forgiven at once, the rules forget all that they know: to look for each takes longer than to see them anew.
const FORGIVEN_ONE_BY_ONE: usize = 100;

/// What the rules remember of sources: first who is held, then what was counted.
const REMEMBERED: [SetId; 8] =
    [SetId::Held4, SetId::Held6, SetId::Score4, SetId::Score6, SetId::Suspect4, SetId::Suspect6, SetId::Seen4, SetId::Seen6];

/// Turns orders into elements, over a connection of its own.
pub struct NftResponder {
    connection: Connection,
}

/// The set that a subject's element is in, and the element.
pub fn place(subject: Subject) -> (SetId, Element<'static>) {
    match subject {
        Subject::Host(Source::V4(address)) => (SetId::Blocked4, Element::new(IpAddr::V4(address))),
        Subject::Host(Source::V6(address)) => (SetId::Blocked6, Element::new(IpAddr::V6(address))),
        Subject::Network(network @ IpNet::V4(_)) => (SetId::BlockedNets4, Element::network(network)),
        Subject::Network(network @ IpNet::V6(_)) => (SetId::BlockedNets6, Element::network(network)),
    }
}

/// Whom an element of the sets of blocked hosts is for, by its key: what [`place`] says, backwards.
pub fn host(key: Key) -> Option<Subject> {
    Some(Subject::Host(match key.address()? {
        IpAddr::V4(address) => Source::V4(address),
        IpAddr::V6(address) => Source::V6(address),
    }))
}

impl NftResponder {
    /// A responder over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The connection, for what is not an engine's order: installing rules, dumps.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Does what `actions` order, in their order, and hands each answer of the kernel to `on_outcome`.
    pub fn carry_out(&mut self, actions: &[Action], mut on_outcome: impl FnMut(Outcome)) {
        let mut rest = actions;
        while let Some((action, after)) = rest.split_first() {
            let run = rest.iter().take_while(|action| matches!(action, Action::Unblock { .. })).count();
            if run > 1 {
                // Lifting a million blocks one by one takes a minute, together some seconds.
                let (unblocks, after) = rest.split_at(run);
                self.remove_all(unblocks, &mut on_outcome);
                rest = after;
                continue;
            }
            // Reports are nothing to do here, and stand between releases where many blocks end at once.
            let releases = rest.iter().take_while(|action| matches!(action, Action::Release { .. } | Action::Report(_))).count();
            if releases > 0 {
                let (releases, after) = rest.split_at(releases);
                self.release(releases);
                rest = after;
                continue;
            }
            if let Some(outcome) = self.carry_out_one(action) {
                on_outcome(outcome);
            }
            rest = after;
        }
    }

    fn remove_all(&mut self, unblocks: &[Action], on_outcome: &mut impl FnMut(Outcome)) {
        let subjects: Vec<_> =
            unblocks.iter().filter_map(|action| if let Action::Unblock { subject } = action { Some(*subject) } else { None }).collect();
        for set in BLOCKED {
            let here: Vec<_> = subjects.iter().copied().filter(|subject| place(*subject).0 == set).collect();
            let elements: Vec<_> = here.iter().map(|subject| place(*subject).1).collect();
            let result = match self.connection.delete_elements(set, &elements) {
                Ok(_) => Ok(()),
                // Where there is no set, nothing is blocked.
                Err(error) if error.is_not_found() => Ok(()),
                Err(error) => Err(words(&error)),
            };
            for subject in here {
                on_outcome(Outcome::Unblocked { subject, result: result.clone() });
            }
        }
    }

    /// Does what `action` orders; `None` for what is no order to the kernel.
    fn carry_out_one(&mut self, action: &Action) -> Option<Outcome> {
        match action {
            Action::Block { subject, timeout, reason, renew } => {
                let subject = *subject;
                let result = self.block(subject, *timeout, reason, *renew).map_err(|error| words(&error));
                Some(Outcome::Blocked { subject, result })
            }
            Action::Unblock { subject } => {
                let subject = *subject;
                let result = match self.remove(subject) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(words(&error)),
                };
                Some(Outcome::Unblocked { subject, result })
            }
            Action::Count { subject } => {
                let subject = *subject;
                let (set, element) = place(subject);
                match self.connection.get_element(set, element.key) {
                    Ok(found) => Some(Outcome::Counted { subject, packets: found.map(|info| info.packets) }),
                    // Not to know is not to have seen anything: the block runs out by itself.
                    Err(error) => {
                        log::warn!("cannot read the counter of {}: {}", subject.display(128), words(&error));
                        Some(Outcome::Counted { subject, packets: Some(0) })
                    }
                }
            }
            // Releases are carried out in runs.
            Action::Release { .. } | Action::Report(_) => None,
        }
    }

    /// Takes holds out, and what else the rules are to forget. What cannot be taken out runs out by itself.
    fn release(&mut self, releases: &[Action]) {
        let forgiven = releases.iter().filter(|action| matches!(action, Action::Release { forget: Some(_), .. })).count();
        let result = if forgiven > FORGIVEN_ONE_BY_ONE {
            self.forget_all()
        } else {
            REMEMBERED.into_iter().try_for_each(|set| self.release_from(set, releases))
        };
        if let Err(error) = result {
            log::warn!("cannot end a hold, which ends by itself: {}", words(&error));
        }
    }

    fn release_from(&mut self, set: SetId, releases: &[Action]) -> Result<(), Error> {
        let of =
            |action: &Action| if let Action::Release { source, forget } = action { remembered(set, *source, forget.as_deref()) } else { Vec::new() };
        let elements: Vec<_> = releases.iter().flat_map(of).map(Element::new).collect();
        let result = match elements.as_slice() {
            [] => Ok(()),
            [one] => self.connection.delete_element(set, one),
            many => self.connection.delete_elements(set, many).map(|_| ()),
        };
        // It ran out, was never there, or the rules have no reflex.
        result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    /// The rules forget all that they remember of sources, and hold nobody.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_all(&mut self) -> Result<(), Error> {
        self.flush(&REMEMBERED)
    }

    /// The rules forget what they counted; who is held stays so until it is judged.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_counts(&mut self) -> Result<(), Error> {
        let [_, _, counts @ ..] = &REMEMBERED;
        self.flush(counts)
    }

    fn flush(&mut self, sets: &[SetId]) -> Result<(), Error> {
        sets.iter().copied().try_for_each(|set| {
            let result = self.connection.replace_elements(set, &[]);
            result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
        })
    }

    fn block(&mut self, subject: Subject, timeout: Option<Duration>, reason: &Reason, renew: bool) -> Result<(), Error> {
        let (set, element) = place(subject);
        let comment = reason.comment();
        let element = element.timeout(timeout).comment(&comment);
        if !renew {
            match self.connection.add_element(set, &element) {
                // Somebody else put it there: our timeout and reason count from now on.
                Err(error) if error.is_exists() => {}
                answer => return answer,
            }
        }
        self.connection.renew_element(set, &element).map(|_| ())
    }

    /// Takes the element out; `false` if there was none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, subject: Subject) -> Result<bool, Error> {
        let (set, element) = place(subject);
        match self.connection.delete_element(set, &element) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts blocks back that somebody took out of the sets, each with what is left of its time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_back(&mut self, blocks: &[(Subject, Option<Duration>, String)]) -> Result<(), Error> {
        for set in BLOCKED {
            let here = blocks.iter().filter(|(subject, ..)| place(*subject).0 == set);
            let elements: Vec<_> = here.map(|(subject, left, comment)| place(*subject).1.timeout(*left).comment(comment)).collect();
            self.connection.add_elements(set, &elements)?;
        }
        Ok(())
    }

    /// All that is blocked, as the kernel has it.
    ///
    /// # Errors
    /// When a set cannot be read.
    pub fn blocked(&mut self) -> Result<Vec<(Subject, ElementInfo)>, Error> {
        blocked(&mut self.connection)
    }
}

/// All that is blocked, as the kernel has it, over any connection.
///
/// # Errors
/// When a set cannot be read.
pub fn blocked(connection: &mut Connection) -> Result<Vec<(Subject, ElementInfo)>, Error> {
    read(connection, &BLOCKED)
}

/// All that is blocked, as the kernel has it; of missing sets nothing. `known` gives subjects that may be in a set: a large set is not dumped if these are
/// all that it holds.
///
/// # Errors
/// When a set cannot be read.
pub fn blocked_where_there(
    connection: &mut Connection,
    sets: &[SetInfo],
    known: impl Fn(SetId) -> Vec<Subject>,
) -> Result<Vec<(Subject, ElementInfo)>, Error> {
    let mut all = Vec::new();
    for set in BLOCKED {
        let Some(there) = sets.iter().find(|there| there.name == set.name()) else { continue };
        let known = || known(set).into_iter().map(|subject| place(subject).1.key).collect();
        match connection.contents(set, there.count, known) {
            Ok(found) => all.extend(found.into_iter().flat_map(|info| stand_for(set, info))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The networks that are blocked by hand: few, and quickly read.
///
/// # Errors
/// When a set cannot be read.
pub fn blocked_networks(connection: &mut Connection) -> Result<Vec<(Subject, ElementInfo)>, Error> {
    read(connection, &[SetId::BlockedNets4, SetId::BlockedNets6])
}

/// How many elements the sets of blocks have; of missing sets none.
///
/// # Errors
/// When a set cannot be read.
pub fn count_blocked(connection: &mut Connection) -> Result<u64, Error> {
    let mut count = 0;
    for set in BLOCKED {
        match connection.dump_set(set) {
            Ok(elements) => count += u64::try_from(elements.len()).unwrap_or(u64::MAX),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn read(connection: &mut Connection, sets: &[SetId]) -> Result<Vec<(Subject, ElementInfo)>, Error> {
    let mut all = Vec::new();
    for &set in sets {
        all.extend(connection.dump_set(set)?.into_iter().flat_map(|info| stand_for(set, info)));
    }
    Ok(all)
}

/// An element with each subject that it stands for.
fn stand_for(set: SetId, info: ElementInfo) -> impl Iterator<Item = (Subject, ElementInfo)> {
    subjects(set, &info).into_iter().map(move |subject| (subject, info.clone()))
}

/// What an element of a blocked set stands for. A range that is no network (somebody else's) is several.
fn subjects(set: SetId, info: &ElementInfo) -> Vec<Subject> {
    if matches!(set, SetId::Blocked4 | SetId::Blocked6) {
        return host(info.key).into_iter().collect();
    }
    match (info.key.address(), info.last().address()) {
        (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) => {
            ipnet::Ipv4Subnets::new(first, last, 0).map(|net| Subject::Network(net.into())).collect()
        }
        (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) => {
            ipnet::Ipv6Subnets::new(first, last, 0).map(|net| Subject::Network(net.into())).collect()
        }
        _ => Vec::new(),
    }
}

/// The elements of `set` that stand for a source: its hold, and with `forget` what the rules remember of it and these ports.
fn remembered(set: SetId, source: Source, forget: Option<&[Port]>) -> Vec<Key> {
    let address = source.address();
    let is_here = match set {
        SetId::Held4 | SetId::Score4 | SetId::Suspect4 | SetId::Seen4 => address.is_ipv4(),
        _ => address.is_ipv6(),
    };
    match (set, forget) {
        _ if !is_here => Vec::new(),
        (SetId::Held4 | SetId::Held6, _) | (SetId::Score4 | SetId::Score6 | SetId::Suspect4 | SetId::Suspect6, Some(_)) => vec![Key::from(address)],
        (SetId::Seen4 | SetId::Seen6, Some(ports)) => {
            let mut keys: Vec<_> = ports.iter().filter_map(|port| Some(Key::Touch(address, protocol_number(port.transport)?, port.number))).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        }
        _ => Vec::new(),
    }
}

/// `None` for what has no ports.
fn protocol_number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(protocol::TCP),
        Transport::Udp => Some(protocol::UDP),
        Transport::Sctp => Some(protocol::SCTP),
        Transport::Ip => None,
    }
}

/// An error and its causes in one line.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
