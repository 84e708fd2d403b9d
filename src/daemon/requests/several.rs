//! Blocks of many addresses: they come in parts, each part is a transaction, and the whole has one
//! line in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::changes::{established_admins, timeout_of};
use super::{RequestHandler, failed};
use crate::config::Mode;
use crate::control::{Caller, NotDone, Refusal, Reply, Several};
use crate::journal::Record;
use crate::journal::format::duration;
use crate::packet::command::Command;

/// Orders that may be under way at the same time; of more, the longest waiting are given up.
const ORDERS_MAX: usize = 64;

/// Sources that the packet thread blocks at a time, in a transaction: some milliseconds of it, after
/// which it looks for packets again.
const SOURCES_MAX: usize = 400;

/// An order without another part for so long is broken off.
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of the parts of each client's order so far.
#[derive(Clone, Default)]
pub(in crate::daemon) struct Orders(Arc<Mutex<HashMap<Client, Tally>>>);

/// The user and the process that order.
type Client = (u32, Option<u32>);

/// What came of the parts of an order.
struct Tally {
    command: String,
    at: Instant,
    done: u64,
    refused: u64,
}

impl Orders {
    /// Adds a part, and returns the order if that was its last, after those that broke off.
    fn add(&self, caller: Caller, part: Tally, more: bool) -> Vec<Tally> {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = part.at;
        let key = (caller.uid, caller.pid);
        let tally = orders.entry(key).or_insert(Tally { done: 0, refused: 0, ..part });
        (tally.at, tally.done, tally.refused) =
            (now, tally.done + part.done, tally.refused + part.refused);
        let last = if more { None } else { orders.remove(&key) };
        let is_old = |tally: &Tally| now.duration_since(tally.at) > ORDER_TIMEOUT;
        let mut ended: Vec<Tally> =
            orders.extract_if(|_, tally| is_old(tally)).map(|(_, tally)| tally).collect();
        if orders.len() > ORDERS_MAX
            && let Some(oldest) =
                orders.iter().min_by_key(|(_, tally)| tally.at).map(|(key, _)| *key)
        {
            ended.extend(orders.remove(&oldest));
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
        let command = order.command();
        let (more, total) = (order.more, order.targets.len() as u64);
        let done = self.block_part(&order);
        let refused = done.as_ref().map_or(total, |refused| refused.len() as u64);
        let tally = Tally { command, at: Instant::now(), done: total - refused, refused };
        // A part that is refused as a whole ends the order.
        let more = more && done.is_ok();
        let mut blocked = 0;
        for Tally { command, done, refused, .. } in self.orders.add(caller, tally, more) {
            blocked = done;
            let command = format!("{command} ({} addresses and networks)", done + refused);
            let result = match refused {
                0 => Ok(format!("{done} are blocked")),
                _ => Err(failed(format!("{done} are blocked, {refused} are not"))),
            };
            let told = result.as_ref().map(drop).map_err(|refusal| refusal.message.as_str());
            self.status.events.keep(Record::order(at, None, &command, told));
            self.audit(caller, command, &result);
        }
        let refused = done?;
        let message = if more {
            String::new()
        } else {
            let timeout = timeout_of(&self.config(), order.seconds)?;
            let how_long = timeout.map_or_else(
                || "until they are unblocked".to_owned(),
                |timeout| format!("for {}", duration(timeout)),
            );
            format!("{blocked} addresses and networks are blocked {how_long}{}", self.kept())
        };
        Ok(Reply::Several { message, refused })
    }

    /// The ones that are not blocked, and why.
    fn block_part(&mut self, order: &Several) -> Result<Vec<NotDone>, Refusal> {
        let config = self.config();
        if config.mode == Mode::Observe {
            return Err(super::changes::observing());
        }
        let timeout = timeout_of(&config, order.seconds)?;
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
            let (text, asked) = (order.reason.clone(), sources.to_vec());
            let errors = self.packets.ask(|answer| Command::BlockSeveral {
                sources: asked,
                timeout,
                text,
                answer,
            })?;
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
}
