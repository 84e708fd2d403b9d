//! What other threads ask for, done between packets.

use std::sync::mpsc::SyncSender;

use jiff::Timestamp;

use super::PacketThread;
use super::command::{BlockDetails, Command, Figures, Known, Observed, Sources};
use crate::engine::{BlockView, MonoTime, Source};
use crate::helper::client::BlockInForce;
use crate::store;

/// Slowed sources that are listed at a time: some hundred microseconds.
const SLOWED_PER_PAGE: usize = 500;

impl PacketThread {
    /// Does what another thread asks for, and answers.
    pub(super) fn handle(&mut self, now: MonoTime, command: Command) {
        // An asker that has given up does not get the answer, and that is all.
        match command {
            Command::Status(answer) => reply(&answer, self.figures(now)),
            Command::Account(address, answer) => {
                let engine = &self.enforcer.engine;
                let account = engine.account(address);
                let known = Known {
                    trace: account.as_ref().and_then(|account| engine.trace(account.source)),
                    account,
                    blocks_before: engine.blocks_before(address),
                    slowed: engine.slowed_source(address),
                    campaign: engine.campaign_around(address),
                };
                reply(&answer, known);
            }
            Command::Block { source, timeout, text, answer } => {
                reply(&answer, self.enforcer.block(now, source, timeout, &text))
            }
            Command::BlockSeveral { sources, timeout, reason, answer } => {
                reply(&answer, self.enforcer.block_several(now, &sources, timeout, &reason))
            }
            Command::BeginList { name, text, add, answer } => {
                reply(&answer, self.enforcer.engine.begin_list(&name, &text, add))
            }
            Command::UnblockPart { list, loading, from, places, answer } => {
                let (list, loading) = (list.as_ref(), loading.as_ref());
                reply(&answer, self.enforcer.unblock_part(now, list, loading, from, places))
            }
            Command::Unblock(target, answer) => reply(&answer, self.enforcer.unblock(now, target)),
            Command::UnblockAll(answer) => reply(&answer, self.enforcer.unblock_all(now)),
            Command::Protect(list, answer) => reply(&answer, self.enforcer.protect(now, list)),
            Command::Services(services, answer) => {
                self.enforcer.set_services(now, services);
                reply(&answer, ());
            }
            Command::Reconfigure(setup, answer) => reply(&answer, self.reconfigure(now, *setup)),
            Command::Details(sources, answer) => {
                let details = |source: Source| {
                    let BlockView { reason, since, renewals, expires, .. } =
                        self.enforcer.engine.blocked(source)?;
                    Some(BlockDetails { reason: reason.clone(), since, renewals, expires })
                };
                reply(&answer, sources.into_iter().map(details).collect());
            }
            Command::Networks(answer) => {
                self.enforcer.settle(now);
                reply(&answer, self.enforcer.blocked_networks().map(store::stored).collect());
            }
            Command::Blocks(most, answer) => reply(&answer, self.blocks_in_force(now, most)),
            Command::Page(from, places, answer) => {
                let (page, next) = self.enforcer.engine.blocks_page(from, places);
                reply(&answer, (page.map(store::stored).collect(), next));
            }
            Command::Sources(from, places, answer) => {
                let (page, next) = self.enforcer.engine.blocks_page(from, places);
                let source = |block: BlockView<'_>| (block.source, block.reason.is_unproven_scan());
                let sources = page.map(source).collect();
                reply(&answer, Sources { sources, next, is_settled: self.enforcer.is_settled() });
            }
            Command::Slowed(after, answer) => {
                let page = self.enforcer.engine.slowed(after).take(SLOWED_PER_PAGE);
                reply(&answer, page.collect());
            }
            Command::Observed(answer) => {
                let engine = &self.enforcer.engine;
                let (since, forgotten) = engine.observed_bounds();
                let sources = engine.observed().cloned().collect();
                reply(&answer, Observed { sources, since, forgotten });
            }
            Command::Campaigns(answer) => {
                reply(&answer, self.enforcer.engine.campaigns().collect())
            }
            Command::Offenders(answer) => {
                reply(&answer, self.enforcer.engine.offenders().collect())
            }
            Command::Evidence(since, most, answer) => {
                reply(&answer, self.enforcer.engine.evidence(since, most))
            }
            Command::Restore(stored, answer) => {
                self.enforcer.restore_late(now, *stored, self.had_table);
                reply(&answer, ());
            }
            Command::Seen(seen, answer) => {
                self.enforcer.engine.recall_seen(now, seen);
                reply(&answer, ());
            }
            Command::Ping(answer) => reply(&answer, ()),
            // Handled by the loop, which ends with it.
            Command::Stop(_, answer) => reply(&answer, 0),
        }
    }

    fn figures(&mut self, now: MonoTime) -> Figures {
        // First: it brings what is lost up to date.
        let queues = self.queues.figures();
        Figures {
            reflex: self.reflex_figures(),
            engine: self.enforcer.engine.status(),
            capture: self.statistics(),
            taken: self.taken(),
            decoy: self.decoy.figures(),
            repairs: self.enforcer.drift.repairs(now),
            refused: self.enforcer.backlog.refusals(),
            queues,
        }
    }

    /// What files show. A network that leaves something out is not among them: a file cannot say
    /// so.
    fn blocks_in_force(&self, now: MonoTime, most: usize) -> Vec<BlockInForce> {
        let today = Timestamp::now();
        let shown = |block: BlockView<'_>| BlockInForce {
            source: block.source,
            reason: block.reason.clone(),
            port: block.port,
            scanner: None,
            at: today.checked_sub(now.since(block.since)).unwrap_or(today),
        };
        self.enforcer
            .engine
            .blocks()
            .filter(|block| block.exempt.is_empty())
            .take(most)
            .map(shown)
            .collect()
    }
}

fn reply<T>(answer: &SyncSender<T>, value: T) {
    let _ = answer.try_send(value);
}
