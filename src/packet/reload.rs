//! A new configuration comes in force while packets go on.

use super::court::Court;
use super::{Sentry, rules};
use crate::capture::nflog::{Listener, Settings};
use crate::config::Config;
use crate::packet::command::Setup;
use crate::engine::{Moment, Policy};
use crate::journal::Notice;
use crate::nft::{LIGHT_DUMP, Order, SetSpec};
use crate::responder::{BLOCKED, place, words};
use crate::ruleset::messages::remedy;

/// Rounds of [`PACKETS_A_WAKE`](crate::capture::PACKETS_A_WAKE) packets that a group is emptied in before it is left: more than its receive buffer holds.
pub(super) const DRAINS_MAX: usize = 256;

impl Sentry {
    /// Puts a new configuration in force, or changes nothing and says why.
    pub(super) fn reconfigure(&mut self, now: Moment, setup: Setup) -> Result<(), String> {
        let listener = if setup.config.capture.group == self.config.capture.group {
            None
        } else {
            Some(Listener::bind(Settings::of_group(setup.config.capture.group)).map_err(|error| words(&error))?)
        };
        let queue = self.prepare_queue(now, &setup.config).map_err(|error| words(&error))?;
        // Both configurations' sockets are there while the rules change.
        let doors = self.decoy.prepare(&setup.config).map_err(|error| words(&error))?;
        let before = self.tally().unwrap_or_default();
        let many = self.court.has_many();
        let Self { court: Court { engine, responder, .. }, foreign, .. } = self;
        let connection = responder.connection();
        let places = |set: SetSpec| {
            engine.blocks().map(|block| place(block.subject)).filter(move |(id, _)| set == *id).map(|(_, element)| element.key).collect()
        };
        let order = Order { known: Some(&places), ..Order::default() };
        let installed = match rules::put_in_place(connection, foreign, &setup.ruleset, &setup.never_block, &setup.services, order, many) {
            Ok(installed) => installed,
            Err(error) => {
                // Half of it may be in the kernel. New group and queues are left when `listener` and `queue` go.
                drop(queue);
                if let Err(error) = self.room.back(&self.config) {
                    log::error!("{}", words(&error));
                }
                let back = rules::put_in_place(connection, foreign, &self.ruleset, &self.never_block, &[], order, many);
                let refusal = words(&error) + remedy(&error);
                return Err(match back {
                    Ok(_) => refusal,
                    Err(back) => format!("{refusal}; and the rules from before could not be put back: {}", words(&back)),
                });
            }
        };
        let buckets = |config: &Config| (config.scan_trigger, config.scan_window, config.block.ipv6_prefix);
        self.reflex_changed(before, &installed, buckets(&setup.config) != buckets(&self.config));
        self.change_queue(now, queue, &setup.config);
        if let Some(listener) = listener {
            self.change_group(now, listener);
        }
        self.court.engine.reconfigure(now, Policy::from_config(&setup.config), &mut self.court.orders);
        self.court.engine.set_never_block(now, setup.never_block.clone(), &mut self.court.orders);
        self.court.perform(now);
        // What waits at the old sockets is taken before they go.
        self.serve_decoys(now);
        let told = self.decoy.lacks();
        if let Err(error) = self.decoy.adopt(doors, &setup.config) {
            self.court.journal.tell(Notice::Error(words(&error)));
        }
        self.tell_lacks(&told);
        self.config = setup.config;
        let queued = std::mem::replace(&mut self.ruleset, setup.ruleset).queues_by();
        self.tell_queue(queued);
        self.never_block = setup.never_block;
        self.ephemeral = setup.ephemeral;
        self.foreign.set_services(setup.services);
        let is_anew = installed.carried == 0 && BLOCKED.iter().any(|set| installed.created(*set) || installed.lacks(*set));
        if !is_anew && self.court.engine.blocks().nth(LIGHT_DUMP).is_some() {
            // To compare so many would hold up packets for seconds, and the sets are where they were.
            return Ok(());
        }
        self.court.put_back(now).map_err(|error| format!("the new configuration is in force, but blocks could not be put back: {}", words(&error)))
    }

    /// Goes over to another group; what was logged to the old one is still judged.
    fn change_group(&mut self, now: Moment, listener: Listener) {
        for _ in 0..DRAINS_MAX {
            match self.take_packets(now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    log::warn!("the last packets of the old group: {}", words(&error));
                    break;
                }
            }
        }
        self.keep_statistics();
        self.listener = listener;
    }
}
