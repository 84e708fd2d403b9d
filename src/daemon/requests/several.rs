//! Blocks of many addresses, and named lists: they come in parts, each part is a transaction, and the
//! whole has one line in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::changes::{established_admins, timeout_of};
use super::{RequestHandler, failed};
use crate::config::Mode;
use crate::control::{Caller, Kind, Loaded, NotDone, Refusal, Reply, Request, Several};
use crate::enforce::{self, LiftedPart, ManyReason};
use crate::engine::{ListName, Listed};
use crate::journal::Record;
use crate::journal::format::duration;
use crate::packet::command::Command;

/// Orders that may be under way at the same time; of more, the longest waiting are given up.
const ORDERS_MAX: usize = 64;

/// Sources that the packet thread blocks at a time, in a transaction: some milliseconds of it, after
/// which it looks for packets again.
const SOURCES_MAX: usize = 400;

/// Parts of [`SOURCES_MAX`] of all blocks that one request searches, and unblocks: the client sees the
/// progress, and other clients have their turn.
const LIST_PARTS: usize = 10;

/// An order without another part for so long is broken off.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of the parts of each client's order so far.
#[derive(Clone, Default)]
pub(in crate::daemon) struct Orders(Arc<Mutex<HashMap<Key, Tally>>>);

/// The user, the process that orders, and its command.
type Key = (u32, Option<u32>, String);

/// What came of the parts of an order.
#[derive(Clone)]
struct Tally {
    at: Instant,
    done: u64,
    refused: u64,
    /// The list that it loads, and what came of that so far.
    loading: Option<Arc<Listed>>,
    loaded: Loaded,
}

impl Tally {
    fn new(loading: Option<Arc<Listed>>) -> Self {
        let loaded = Loaded::default();
        Self { at: Instant::now(), done: 0, refused: 0, loading, loaded }
    }

    fn add(&mut self, part: &Self) {
        self.at = part.at;
        self.done += part.done;
        self.refused += part.refused;
        self.loaded.new += part.loaded.new;
        self.loaded.kept += part.loaded.kept;
        self.loaded.gone += part.loaded.gone;
        self.loaded.elsewhere += part.loaded.elsewhere;
    }
}

impl Orders {
    /// The list that the earlier parts of an order load.
    fn loading(&self, key: &Key) -> Option<Arc<Listed>> {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        orders.get(key)?.loading.clone()
    }

    /// Adds a part, and returns the order if that was its last, after those that broke off.
    fn add(&self, key: Key, part: &Tally, more: bool) -> Vec<(String, Tally)> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = part.at;
        let tally = orders.entry(key.clone()).or_insert_with(|| Tally::new(part.loading.clone()));
        tally.add(part);
        let last = if more { None } else { orders.remove(&key).map(|tally| (key.2, tally)) };
        let is_old = |tally: &Tally| now.duration_since(tally.at) > ORDER_TIMEOUT;
        let mut ended: Vec<(String, Tally)> = orders
            .extract_if(|_, tally| is_old(tally))
            .map(|((_, _, command), tally)| (command, tally))
            .collect();
        if orders.len() > ORDERS_MAX
            && let Some(oldest) =
                orders.iter().min_by_key(|(_, tally)| tally.at).map(|(key, _)| key.clone())
        {
            let tally = orders.remove(&oldest);
            ended.extend(tally.map(|tally| (oldest.2, tally)));
        }
        ended.extend(last);
        ended
    }
}

impl RequestHandler {
    /// Blocks a part of an order.
    pub(super) fn block_several(
        &mut self,
        caller: Caller,
        order: Several,
    ) -> Result<Reply, Refusal> {
        let at = Timestamp::now();
        let key = (caller.uid, caller.pid, order.command());
        let loading = self.orders.loading(&key);
        let mut part = Tally::new(loading);
        let done = self.block_part(&order, &mut part);
        let total = order.targets.len() as u64;
        part.refused = done.as_ref().map_or(total, |refused| refused.len() as u64);
        part.done = total - part.refused;
        // A part that is refused as a whole ends the order.
        let more = order.more && done.is_ok();
        let gone =
            if more || done.is_err() || order.add { Ok(()) } else { self.lift_gone(&mut part) };
        let mut whole = Tally::new(None);
        for (command, tally) in self.orders.add(key, &part, more) {
            let Tally { done, refused, .. } = tally;
            let command = format!("{command} ({} addresses and networks)", done + refused);
            let told = said(&tally);
            let result = match (&gone, refused) {
                (Err(why), _) => Err(failed(format!("{told}; {}", why.message))),
                (Ok(()), 0) => Ok(told),
                (Ok(()), _) if tally.loading.is_some() => {
                    Err(failed(format!("{told}; {refused} are not blocked")))
                }
                (Ok(()), _) => Err(failed(format!("{told}, {refused} are not"))),
            };
            whole = tally;
            self.order_ended(caller, at, command, &result);
        }
        let refused = done?;
        gone?;
        if more {
            return Ok(Reply::Several { message: String::new(), refused, list: None });
        }
        let timeout = timeout_of(&self.config(), order.seconds)?;
        let how_long = timeout.map_or_else(
            || "until they are unblocked".to_owned(),
            |timeout| format!("for {}", duration(timeout)),
        );
        let kept = self.kept();
        let message = match &order.list {
            None => {
                format!("{} addresses and networks are blocked {how_long}{kept}", whole.done)
            }
            Some(list) => {
                let counts = counted(&whole.loaded);
                format!("{list}: {counts}, blocked {how_long}{kept}")
            }
        };
        let list = order.list.is_some().then_some(whole.loaded);
        Ok(Reply::Several { message, refused, list })
    }

    /// Logs and stores what came of an order that came in parts.
    fn order_ended(
        &self,
        caller: Caller,
        at: Timestamp,
        command: String,
        result: &Result<String, Refusal>,
    ) {
        let told = result.as_ref().map(drop).map_err(|refusal| refusal.message.as_str());
        self.status.events.keep(Record::order(at, None, &command, told));
        self.audit(caller, command, result);
    }

    /// The ones that are not blocked, and why.
    fn block_part(&mut self, order: &Several, part: &mut Tally) -> Result<Vec<NotDone>, Refusal> {
        let config = self.config();
        if config.mode == Mode::Observe {
            return Err(super::changes::observing());
        }
        let timeout = timeout_of(&config, order.seconds)?;
        let reason = match &order.list {
            None => ManyReason::Text(order.reason.clone()),
            Some(list) => ManyReason::List(self.loading(list, order, part)?),
        };
        let admins = if order.force { Vec::new() } else { established_admins(&config) };
        let mut refused = Vec::new();
        let (mut places, mut sources) = (Vec::new(), Vec::new());
        for (at, target) in (0..).zip(&order.targets) {
            let source = target.source(config.block.ipv6.first);
            match super::changes::refuse_sessions(&admins, source) {
                Err(why) => refused.push(NotDone::new(at, why)),
                Ok(()) => {
                    places.push(at);
                    sources.push(source);
                }
            }
        }
        for (sources, places) in sources.chunks(SOURCES_MAX).zip(places.chunks(SOURCES_MAX)) {
            let (reason, asked) = (reason.clone(), sources.to_vec());
            let enforce::Several { refused: errors, new, kept, elsewhere } = self
                .packets
                .ask(|answer| Command::BlockSeveral { sources: asked, timeout, reason, answer })?;
            part.loaded.new += new;
            part.loaded.kept += kept;
            part.loaded.elsewhere += elsewhere;
            for (at, error) in errors {
                let (Some(place), Some(source)) = (places.get(at), sources.get(at)) else {
                    continue;
                };
                // Which entry stands against it, where it is that.
                let why = match self.refuse_protected(*source) {
                    Err(why) => why,
                    Ok(()) => super::changes::not_blocked(*source, error),
                };
                refused.push(NotDone::new(*place, why));
            }
        }
        refused.sort_by_key(|not_done| not_done.at);
        Ok(refused)
    }

    /// The loading of a list that a part belongs to: that of the earlier parts, or a new one.
    fn loading(
        &self,
        list: &ListName,
        order: &Several,
        part: &mut Tally,
    ) -> Result<Arc<Listed>, Refusal> {
        if let Some(loading) = &part.loading {
            return Ok(Arc::clone(loading));
        }
        let (name, text, add) = (list.clone(), order.reason.clone(), order.add);
        let answer = self.packets.ask(|answer| Command::BeginList { name, text, add, answer })?;
        let loading = answer.map_err(|why| {
            let message = format!("the list {list} is not loaded: {why}");
            Refusal::new(Kind::No, message, "unblock one with \"unblock --list\" first")
        })?;
        Ok(Arc::clone(part.loading.insert(loading)))
    }

    /// Lifts what is on a list and was not named by the loading that ends with this part.
    fn lift_gone(&self, part: &mut Tally) -> Result<(), Refusal> {
        let Some(loading) = &part.loading else { return Ok(()) };
        let mut from = Some(0);
        while let Some(at) = from {
            let LiftedPart { lifted, next } =
                self.lift_part(Some(loading.name()), Some(loading), at)?;
            part.loaded.gone += lifted;
            from = next;
        }
        Ok(())
    }

    /// Lifts the blocks on a list, or all, but those of a loading of it, in a part of all places.
    pub(super) fn lift_part(
        &self,
        list: Option<&ListName>,
        loading: Option<&Arc<Listed>>,
        from: usize,
    ) -> Result<LiftedPart, Refusal> {
        let answer = self.packets.ask(|answer| Command::UnblockPart {
            list: list.cloned(),
            loading: loading.cloned(),
            from,
            places: SOURCES_MAX,
            answer,
        })?;
        answer.map_err(|error| failed(format!("not everything could be unblocked: {error}")))
    }

    /// Unblocks a part of a list, or of everything.
    pub(super) fn unblock_part(
        &mut self,
        caller: Caller,
        request: &Request,
        list: Option<&ListName>,
        from: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let at = Timestamp::now();
        let key = (caller.uid, caller.pid, request.to_string());
        let mut part = Tally::new(None);
        let mut next = Some(usize::try_from(from.unwrap_or(0)).unwrap_or(usize::MAX));
        let mut failure = None;
        for _ in 0..LIST_PARTS {
            let Some(place) = next else { break };
            match self.lift_part(list, None, place) {
                Ok(lifted) => {
                    part.done += lifted.lifted;
                    next = lifted.next;
                }
                Err(why) => (failure, next) = (Some(why), None),
            }
        }
        let mut message = Ok(String::new());
        for (command, tally) in self.orders.add(key, &part, next.is_some()) {
            let result = match (&failure, list) {
                // Another order, which broke off.
                _ if command != request.to_string() => Ok(said(&tally)),
                (Some(why), _) => {
                    let message = format!("{} are unblocked; {}", tally.done, why.message);
                    Err(Refusal { message, ..why.clone() })
                }
                (None, Some(list)) => self.lifted(list, tally.done),
                (None, None) => self.unblock_rest(tally.done),
            };
            self.order_ended(caller, at, command, &result);
            message = result;
        }
        let next = next.map(|next| next as u64);
        let message = if next.is_some() { String::new() } else { message? };
        Ok(Reply::Lifted { message, lifted: part.done, next })
    }

    fn lifted(&self, list: &ListName, count: u64) -> Result<String, Refusal> {
        match count {
            0 => {
                let message = format!("no block is on the list {list}");
                Err(Refusal::new(Kind::No, message, "\"portsentryctl lists\" names the lists"))
            }
            1 => Ok(format!("1 block of the list {list} is lifted{}", self.kept())),
            count => Ok(format!("{count} blocks of the list {list} are lifted{}", self.kept())),
        }
    }
}

/// What came of an order, for the log.
fn said(tally: &Tally) -> String {
    match tally.loading {
        None => format!("{} are blocked", tally.done),
        Some(_) => counted(&tally.loaded),
    }
}

fn counted(loaded: &Loaded) -> String {
    let Loaded { new, kept, gone, elsewhere } = loaded;
    let mut text = format!("{new} new, {kept} kept, {gone} gone");
    if *elsewhere > 0 {
        text.push_str(&format!(", {elsewhere} blocked as long by other orders or scans"));
    }
    text
}
