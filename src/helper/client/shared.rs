//! Events, requests and counters that the helper's thread shares with its callers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::engine::{Reason, Source};
use crate::helper::protocol::{Addresses, ChannelStatus, Incident};
use crate::probe::Port;
use crate::sys::mailbox::Answer;

/// How long running commands may go on when the daemon ends.
pub const GRACE: Duration = Duration::from_secs(2);

/// Time after that to terminate and kill commands, and to write files for the last time.
pub(super) const LAST_ORDERS_TIMEOUT: Duration = Duration::from_secs(4);

/// What callers queue for the thread.
pub(super) enum Item {
    /// Run the command.
    Run { source: Source, port: Port, reason: Reason, state: &'static str },
    /// The kernel refused the block, so the command that should follow it is not run.
    NotRun(Source),
    /// A block is in force.
    Blocked(BlockInForce),
    /// A block is over.
    Unblocked(Source),
    /// Run the command and write the line of hosts.deny once, for the host of tests.
    Test,
    /// Something that notifications are about.
    Incident(Box<Incident>),
    /// Look up a name.
    Resolve(IpAddr),
    /// Look up the addresses of a DNS name.
    LookUp(String),
}

/// What callers ask the thread to do.
pub(super) enum Request {
    /// Apply a configuration.
    Configure(Box<Config>, Answer<()>),
    /// End; `true`: all blocks were lifted.
    Stop(bool, Answer<()>),
}

/// A block in force, as text files list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInForce {
    /// Blocked source.
    pub source: Source,
    /// Evidence.
    pub reason: Reason,
    /// The port that exceeded the trigger, if known.
    pub port: Option<Port>,
    /// The address that exceeded it, if known.
    pub scanner: Option<IpAddr>,
    /// Its start.
    pub at: Timestamp,
}

/// Takes what the resolver says of a DNS name. It must not wait.
pub type TakeAddresses = Box<dyn Fn(Addresses) + Send>;

/// Gets at most this many blocks in force from the thread that owns the engine; `None`: no answer
/// in time.
pub type BlockList = Box<dyn Fn(usize) -> Option<Vec<BlockInForce>> + Send>;

#[derive(Default)]
pub(super) struct Shared {
    pub(super) wanted: AtomicU8,
    /// Whether the helper runs.
    pub(super) up: AtomicBool,
    /// Dropped commands that are not reported yet.
    pub(super) dropped: AtomicU64,
    pub(super) list_wanted: AtomicBool,
    pub(super) commands: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) ever_dropped: AtomicU64,
    /// Incidents that did not fit the queue, or the journal's rate.
    pub(super) missed: AtomicU64,
    /// What each channel of notifications did; the packet thread does not use it.
    pub(super) notified: Mutex<BTreeMap<String, ChannelStatus>>,
    /// Where addresses of DNS names go.
    pub(super) addresses: Mutex<Option<TakeAddresses>>,
}

impl Shared {
    pub(super) fn set_notified(&self, status: ChannelStatus) {
        let mut all = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(status.channel.clone(), status);
    }

    pub(super) fn take_addresses(&self, found: Addresses) {
        let take = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(take) = &*take {
            take(found);
        }
    }

    pub(super) fn drop_commands(&self, commands: u64) {
        self.dropped.fetch_add(commands, Ordering::Relaxed);
        self.ever_dropped.fetch_add(commands, Ordering::Relaxed);
    }
}
