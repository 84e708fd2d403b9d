//! The daemon's end of the helper process: its thread, and the handle for the other threads.
//!
//! The packet thread queues events and never waits: the queue is bounded, and dropped events are
//! counted and reported. If the helper dies, it is restarted with growing delays; blocking is not
//! affected. Text files recover: after an overflow, at start and after each restart the helper gets
//! the list of all blocks.

pub(super) mod orders;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use self::orders::has_files;
pub use self::shared::{BlockInForce, BlockList, GRACE, TakeAddresses};
use self::shared::{Item, LAST_ORDERS_TIMEOUT, Request, Shared};
use crate::config::{CommandOn, CommandWhen, Config, Mode, ProtocolAction};
use crate::engine::{Action, NotBlocked, Reason, Report, Source};
use crate::helper::protocol::ChannelStatus;
use crate::journal::Record;
use crate::journal::record::NOT_STORED;
use crate::probe::Port;
use crate::sys::mailbox::Link;

/// Events that wait for the thread, a few hundred bytes each.
pub const QUEUE: usize = 1024;

/// The command runs for a block, at the decision.
const BEFORE: u8 = 1;
/// The command runs for a block, after the kernel's acknowledgement.
const AFTER: u8 = 2;
/// The command runs instead of a block for TCP scans (including SCTP and bare IP).
const ALONE: u8 = 4;
/// Text files list the blocks.
const FILES: u8 = 8;
/// The command runs for a slowed source.
const SLOWED: u8 = 16;
/// Notifications are sent.
const NOTIFY: u8 = 32;

/// Counts of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Commands that ended or could not be started.
    pub commands: u64,
    /// Of these, commands that did not end with status 0.
    pub failed: u64,
    /// Commands that were not run because too many were waiting.
    pub dropped: u64,
}

/// A handle to the thread, which [`HelperClient::start`] starts; clones share it.
#[derive(Clone)]
pub struct HelperClient {
    shared: Arc<Shared>,
    items: Link<Item>,
    requests: Link<Request>,
}

impl HelperClient {
    /// Queues actions of the engine before they are executed. Never waits.
    pub fn on_orders(&self, orders: &[Action]) {
        if !self.wants(BEFORE) {
            return;
        }
        for action in orders {
            // For a source that is already blocked this is a renewal: the command has run.
            if let Action::Report(Report::Scan { source, probe, reason, not_blocked: None }) =
                action
                && orders.iter().any(|order| is_new_block(order, *source))
            {
                self.run(*source, probe.port, reason, "blocked");
            }
        }
    }

    /// Notes that the kernel refused the block of `source`, which was one of these actions. Never
    /// waits.
    pub fn on_refusal(&self, orders: &[Action], source: Source) {
        if self.wants(AFTER) && orders.iter().any(|order| is_new_block(order, source)) {
            self.push(Item::NotRun(source));
        }
    }

    /// Queues an engine report. Never waits.
    pub fn on_report(&self, report: &Report) {
        match report {
            Report::Scan {
                source,
                probe,
                reason,
                not_blocked: Some(NotBlocked::TcpCommand | NotBlocked::UdpCommand),
            } if self.wants(ALONE) => {
                self.run(*source, probe.port, reason, "reported");
            }
            Report::Slowed { source, port, reason, .. } if self.wants(SLOWED) => {
                self.run(*source, *port, reason, "slowed");
            }
            Report::Blocked { source, port, scanner, reason, renewals: 0, .. } => {
                // Manual blocks have no port; neither has a block that replaces one of another
                // prefix length.
                if let (Some(port), Some(_), true) = (port, reason.scan(), self.wants(AFTER)) {
                    self.run(*source, *port, reason, "blocked");
                }
                if self.wants(FILES) {
                    let (reason, at) = (reason.clone(), Timestamp::now());
                    self.push(Item::Blocked(BlockInForce {
                        source: *source,
                        port: *port,
                        scanner: *scanner,
                        reason,
                        at,
                    }));
                }
            }
            // A file cannot express "this network except that host", so the network's line is
            // removed.
            Report::Unblocked { source, .. } | Report::Exempted { source, .. }
                if self.wants(FILES) =>
            {
                self.push(Item::Unblocked(*source))
            }
            _ => {}
        }
    }

    /// Queues what notifications say of an event that was `kept`. Never waits; the journal's thread
    /// calls it.
    pub fn on_record(&self, record: &Record, kept: bool) {
        if !self.wants(NOTIFY) {
            return;
        }
        if record.kind == NOT_STORED {
            // One that is not kept comes again.
            let events = record.details.get("events").and_then(serde_json::Value::as_u64);
            let missed = events.filter(|_| kept).unwrap_or(0);
            self.shared.missed.fetch_add(missed, Ordering::Relaxed);
        } else if let Some(incident) = orders::incident(record) {
            self.push(Item::Incident(Box::new(incident)));
        }
    }

    /// What each channel of notifications did so far; empty: none is configured.
    pub fn notified(&self, config: &Config) -> Vec<ChannelStatus> {
        let notified = self.shared.notified.lock().unwrap_or_else(PoisonError::into_inner);
        channels(config)
            .map(|channel| {
                let new = || ChannelStatus { channel: channel.to_owned(), ..Default::default() };
                notified.get(channel).cloned().unwrap_or_else(new)
            })
            .collect()
    }

    /// Runs the responses once, for the host of tests, whatever the mode. `false`: there will be none.
    pub fn test(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed) && self.items.send(Item::Test).is_ok()
    }

    /// Starts a name lookup; the answer goes to the journal. Never waits; `false`: there will be no
    /// answer.
    pub fn resolve(&self, address: IpAddr) -> bool {
        self.shared.up.load(Ordering::Relaxed) && self.items.send(Item::Resolve(address)).is_ok()
    }

    /// Hands addresses of DNS names to `take` from now on.
    pub fn look_up_for(&self, take: TakeAddresses) {
        let mut addresses = self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        *addresses = Some(take);
    }

    /// Starts a lookup of the addresses of a DNS name. Never waits; `false`: there will be no answer.
    pub fn look_up(&self, name: &str) -> bool {
        self.shared.up.load(Ordering::Relaxed)
            && self.items.send(Item::LookUp(name.to_owned())).is_ok()
    }

    /// Applies a new configuration.
    pub fn reconfigure(&self, config: &Config) {
        self.shared.wanted.store(wanted(config), Ordering::Relaxed);
        let config = Box::new(config.clone());
        if self.requests.ask(|answer| Request::Configure(config, answer)).is_err() {
            log::error!("the helper has the old configuration: its thread does not answer");
        }
    }

    /// Ends running commands after [`GRACE`], and then the helper. `cleared`: all blocks were
    /// lifted, so the files are emptied.
    pub fn stop(&self, cleared: bool) {
        self.shared.wanted.store(0, Ordering::Relaxed);
        let timeout = GRACE + LAST_ORDERS_TIMEOUT * 2;
        if self.requests.ask_within(timeout, |answer| Request::Stop(cleared, answer)).is_err() {
            log::error!("the helper was not ended in order");
        }
    }

    /// Counts of commands so far.
    pub fn counts(&self) -> Counts {
        Counts {
            commands: self.shared.commands.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            dropped: self.shared.ever_dropped.load(Ordering::Relaxed),
        }
    }

    /// Whether the helper runs.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Relaxed)
    }

    fn wants(&self, what: u8) -> bool {
        self.shared.wanted.load(Ordering::Relaxed) & what != 0
    }

    fn run(&self, source: Source, port: Port, reason: &Reason, state: &'static str) {
        self.push(Item::Run { source, port, reason: reason.clone(), state });
    }

    fn push(&self, item: Item) {
        match self.items.send(item) {
            Err(Item::Run { .. }) => self.shared.drop_commands(1),
            Err(Item::Blocked(_) | Item::Unblocked(_)) => {
                self.shared.list_wanted.store(true, Ordering::Relaxed)
            }
            Err(Item::Incident(_)) => drop(self.shared.missed.fetch_add(1, Ordering::Relaxed)),
            Ok(()) | Err(Item::NotRun(_) | Item::Resolve(_) | Item::LookUp(_) | Item::Test) => {}
        }
    }
}

/// Whether an action blocks `source` for a scan and is not a renewal.
fn is_new_block(action: &Action, source: Source) -> bool {
    matches!(action, Action::Block { source: of, reason: Reason::Scan { .. }, renew: false, .. } if *of == source)
}

/// The channels of notifications that are configured, by their keys.
pub fn channels(config: &Config) -> impl Iterator<Item = &'static str> {
    let notify = &config.notify;
    [
        ("sendmail", !notify.sendmail.to.is_empty()),
        ("webhook", notify.webhook.is_on()),
        ("ntfy", notify.ntfy.is_on()),
        ("abuseipdb", notify.abuseipdb.key_file.is_some()),
    ]
    .into_iter()
    .filter_map(|(channel, is_on)| is_on.then_some(channel))
}

/// The reports that a configuration needs, as flags.
fn wanted(config: &Config) -> u8 {
    let mut wanted = if config.notify.is_on() { NOTIFY } else { 0 };
    // Observe mode only reports.
    if config.mode == Mode::Observe {
        return wanted;
    }
    if !config.respond.command.is_empty() {
        for on in &config.respond.command_on {
            wanted |= match (on, config.respond.command_when) {
                (CommandOn::Slowed, _) => SLOWED,
                (CommandOn::Blocked, CommandWhen::Before) => BEFORE,
                (CommandOn::Blocked, CommandWhen::After) => AFTER,
            };
        }
        if [config.tcp.action, config.udp.action].contains(&ProtocolAction::Command) {
            wanted |= ALONE;
        }
    }
    if has_files(config) {
        wanted |= FILES;
    }
    wanted
}
