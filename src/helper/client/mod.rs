//! The daemon's end of the helper process: the thread that owns it, and the way there for the other threads.
//!
//! The packet thread hands over what happened and never waits: the queue is bounded, and what does not fit is counted and told. When the helper
//! dies it is started again, ever more slowly; blocks go on all the while. Text files heal: after an overflow, at start and after each new start of
//! the helper it gets the list of all blocks.

mod orders;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use self::orders::has_files;
pub use self::shared::{BlockInForce, BlockList, GRACE, OnName};
use self::shared::{Item, LAST_ORDERS, Request, Shared};
use self::worker::{Ends, Worker};
use super::process;
use crate::config::{CommandWhen, Config, Mode, ProtocolAction};
use crate::engine::{Action, NotBlocked, Reason, Report, Source};
use crate::journal::JournalHandle;
use crate::sys::mailbox::{self, Link};

/// What happened that waits for the thread: a few hundred bytes each.
pub const QUEUE: usize = 1024;

/// A command is run when a source is blocked: at the decision.
const BEFORE: u8 = 1;
/// A command is run when a source is blocked: after the kernel's word.
const AFTER: u8 = 2;
/// A command is run for TCP scans (and those of SCTP and bare IP) instead of a block.
const ALONE: u8 = 4;
/// Files show what is blocked.
const FILES: u8 = 8;

/// What became of the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that ended or could not be started.
    pub commands: u64,
    /// Those of them that did not end with status 0.
    pub failed: u64,
    /// Those that were not run: too many were waiting.
    pub dropped: u64,
}

/// The way to the thread; clones lead to the same one.
#[derive(Clone)]
pub struct HelperClient {
    shared: Arc<Shared>,
    items: Link<Item>,
    requests: Link<Request>,
}

impl HelperClient {
    /// Starts the helper and the thread that owns it. A helper that cannot be started is told of and tried again.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(config: &Config, journal: JournalHandle, blocks: BlockList, on_name: OnName) -> io::Result<Self> {
        process::take_charge()?;
        let shared = Arc::new(Shared::default());
        shared.wanted.store(wanted(config), Ordering::Relaxed);
        let (items, item_inbox) = mailbox::with_capacity(QUEUE)?;
        let (requests, request_inbox) = mailbox::link()?;
        let ends = Ends { shared: Arc::clone(&shared), items: item_inbox, requests: request_inbox };
        let mut worker = Worker::new(config.clone(), journal, blocks, on_name, ends);
        worker.start_helper();
        std::thread::Builder::new().name("helper".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, items, requests })
    }

    /// Orders of the engine that are about to be carried out. Never waits.
    pub fn on_orders(&self, orders: &[Action]) {
        if !self.wants(BEFORE) {
            return;
        }
        for action in orders {
            // A block that was there before is renewed: it had its command.
            if let Action::Report(Report::Scan { source, probe, reason, not_blocked: None }) = action
                && orders.iter().any(|order| is_new_block(order, *source))
            {
                self.push(Item::Run { source: *source, port: probe.port, reason: reason.clone() });
            }
        }
    }

    /// The kernel refused the block of `source`, one of these orders. Never waits.
    pub fn on_refusal(&self, orders: &[Action], source: Source) {
        if self.wants(AFTER) && orders.iter().any(|order| is_new_block(order, source)) {
            self.push(Item::NotRun(source));
        }
    }

    /// Something has happened. Never waits.
    pub fn on_report(&self, report: &Report) {
        match report {
            Report::Scan { source, probe, reason, not_blocked: Some(NotBlocked::TcpCommand | NotBlocked::UdpCommand) } if self.wants(ALONE) => {
                self.push(Item::Run { source: *source, port: probe.port, reason: reason.clone() });
            }
            Report::Blocked { source, port, reason, renewed: false, .. } => {
                // Blocks by hand have no port, nor has a prefix of another length that takes the place of one that was blocked.
                if let (Some(port), Some(_), true) = (port, reason.scan(), self.wants(AFTER)) {
                    self.push(Item::Run { source: *source, port: *port, reason: reason.clone() });
                }
                if self.wants(FILES) {
                    self.push(Item::Blocked { source: *source, port: *port, reason: reason.clone(), at: Timestamp::now() });
                }
            }
            // A file cannot say "all of this network but that host", so it must not name the network.
            Report::Unblocked { source, .. } | Report::Exempted { source, .. } if self.wants(FILES) => self.push(Item::Unblocked(*source)),
            _ => {}
        }
    }

    /// Asks for the name of an address; the answer goes to [`OnName`]. Never waits; `false`: no answer will come.
    pub fn resolve(&self, address: IpAddr) -> bool {
        self.shared.up.load(Ordering::Relaxed) && self.items.send(Item::Resolve(address)).is_ok()
    }

    /// Puts a new configuration in force.
    pub fn reconfigure(&self, config: &Config) {
        self.shared.wanted.store(wanted(config), Ordering::Relaxed);
        let config = Box::new(config.clone());
        if self.requests.ask(|answer| Request::Configure(config, answer)).is_err() {
            log::error!("the helper has the old configuration: its thread does not answer");
        }
    }

    /// Lets running commands end, for [`GRACE`], and then ends them and the helper. `cleared`: nothing is blocked any more, and files shall say so.
    pub fn stop(&self, cleared: bool) {
        self.shared.wanted.store(0, Ordering::Relaxed);
        if self.requests.ask_within(GRACE + LAST_ORDERS * 2, |answer| Request::Stop(cleared, answer)).is_err() {
            log::error!("the helper was not ended in order");
        }
    }

    /// What became of the commands so far.
    pub fn counts(&self) -> Counts {
        Counts {
            commands: self.shared.commands.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            dropped: self.shared.ever_dropped.load(Ordering::Relaxed),
        }
    }

    /// Whether the helper is there.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    fn wants(&self, what: u8) -> bool {
        self.shared.wanted.load(Ordering::Relaxed) & what != 0
    }

    fn push(&self, item: Item) {
        match self.items.send(item) {
            Err(Item::Run { .. }) => self.shared.drop_commands(1),
            Err(Item::Blocked { .. } | Item::Unblocked(_)) => self.shared.list_wanted.store(true, Ordering::Relaxed),
            Ok(()) | Err(Item::NotRun(_) | Item::Resolve(_)) => {}
        }
    }
}

/// Whether an action orders a block of `source` for a scan where there is none.
fn is_new_block(action: &Action, source: Source) -> bool {
    matches!(action, Action::Block { source: of, reason: Reason::Scan { .. }, renew: false, .. } if *of == source)
}

/// What a configuration makes of reports.
fn wanted(config: &Config) -> u8 {
    // Observing is reporting only.
    if config.mode == Mode::Observe {
        return 0;
    }
    let mut wanted = 0;
    if !config.respond.command.is_empty() {
        wanted |= match config.respond.command_when {
            CommandWhen::Before => BEFORE,
            CommandWhen::After => AFTER,
        };
        if [&config.tcp, &config.udp].iter().any(|protocol| protocol.action == ProtocolAction::Command) {
            wanted |= ALONE;
        }
    }
    if has_files(config) {
        wanted |= FILES;
    }
    wanted
}
