//! Another configuration comes into force while packets go on.

use super::PacketThread;
use super::command::{Reload, Setup};
use crate::capture::nflog::{Listener, Settings};
use crate::config::Config;
use crate::enforce::Observer;
use crate::engine::MonoTime;
use crate::errors::error_chain;
use crate::journal::Notice;

impl PacketThread {
    /// Puts another configuration in force, or changes nothing and says why.
    pub(super) fn reconfigure(&mut self, now: MonoTime, setup: Setup) -> Reload {
        let blocks = self.enforcer.engine.status().ordered;
        let total = setup.config.block.total;
        // More may be there already, by another program's doing: no reason to refuse other changes.
        if total < self.config.block.total && blocks > total as usize {
            return Err(format!(
                "block.total is {total}, and {blocks} blocks are in force; set it to {blocks} or more, or lift some first (portsentryctl unblock)"
            ));
        }
        let prefix = setup.config.block.ipv6.first;
        if let Some(source) = self.enforcer.would_lose_exemptions(prefix) {
            return Err(format!(
                "block.ipv6.first is {prefix}, and the block of {source} leaves out parts of it, which the block of one source cannot; lift it first \
                 (portsentryctl unblock {source})"
            ));
        }
        let group = setup.config.capture.group;
        let listener = (group != self.config.capture.group)
            .then(|| Listener::bind(Settings::of_group(group)))
            .transpose()
            .map_err(|error| error_chain(&error))?;
        let queue = self.prepare_queue(now, &setup.config).map_err(|error| error_chain(&error))?;
        // Both configurations' sockets are there while the rules change.
        let listeners = self.decoy.prepare(&setup.config).map_err(|error| error_chain(&error))?;
        let before = self.tally().unwrap_or_default();
        let queued = self.enforcer.ruleset.queues_by();
        let Setup { config, in_force, ephemeral } = setup;
        let installed = match self.enforcer.reconfigure(now, in_force) {
            Ok(installed) => installed,
            Err(error) => {
                // New group and queues are left when `listener` and `queue` go.
                drop(queue);
                if let Err(error) = self.queues.back(&self.config) {
                    log::error!("{}", error_chain(&error));
                }
                return Err(error_chain(&error));
            }
        };
        let mut warnings = Vec::new();
        if let Some(fallback) = &installed.fallback {
            warnings.push(format!(
                "the blocks could not come together with the rules, so they follow: {}",
                error_chain(&fallback.error)
            ));
        }
        let buckets =
            |config: &Config| (config.scan_trigger, config.scan_window, config.block.ipv6);
        self.reflex_changed(before, &installed, buckets(&config) != buckets(&self.config));
        self.change_queue(now, queue, &config);
        if let Some(listener) = listener {
            self.drain(now, "group", Self::take_packets);
            self.keep_statistics();
            self.listener = listener;
        }
        // What waits at the old sockets is taken before they go.
        self.serve_decoys(now);
        let reported = self.decoy.lacks();
        if let Err(error) = self.decoy.adopt(listeners, &config) {
            warnings.push(error_chain(&error));
        }
        self.report_lacks(&reported);
        self.config = config;
        self.ephemeral = ephemeral;
        self.report_queue(queued);
        for warning in &warnings {
            self.enforcer.observer.notify(Notice::Warning(warning.clone()));
        }
        Ok(warnings)
    }
}
