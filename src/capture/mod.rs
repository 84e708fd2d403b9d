//! Receives the packets that the rules log or queue.
//!
//! It defines a received packet ([`Packet`]), what the packet thread polls ([`nflog::Listener`] and
//! [`nfqueue::Listener`]), and the counts of received and lost packets ([`Statistics`]). It never parses a packet
//! ([`crate::wire`] does) and never waits.

pub(crate) mod batching;
mod channel;
pub mod files;
mod holder;
pub mod nflog;
pub mod nfqueue;
pub(crate) mod shedding;

use std::fmt;
use std::io;
use std::time::Duration;

pub use holder::Holder;

/// Packets that one call of a listener hands out before the packet thread serves its other
/// descriptors.
///
/// At 0.07 us (64 packets per datagram) to 0.9 us (one) each this is at most half a millisecond:
/// long enough that the poll(2) in between costs nothing, short enough that a reload, a signal or
/// an `unblock` does not wait behind a flood.
pub const PACKETS_PER_WAKE: usize = 512;

/// Packets between two readings of the clock: a reading costs 25 ns, a block ordered in between 50
/// us.
pub const PACKETS_PER_READ: usize = 64;

/// Time after which the packet thread serves its other descriptors, even after fewer packets: on a
/// slow machine, or with many blocks, [`PACKETS_PER_WAKE`] take long.
pub const TIME_PER_WAKE: Duration = Duration::from_millis(2);

/// A logged packet, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet<'a> {
    /// The rule's `log prefix`; empty if it has none, or one that is not UTF-8.
    pub prefix: &'a str,
    /// The netfilter hook, `NF_INET_*` (linux/netfilter.h): 1 is input.
    pub hook: u8,
    /// The EtherType: 0x0800 IPv4, 0x86dd IPv6 (linux/if_ether.h).
    pub hw_protocol: u16,
    /// The packet from its IP header on, cut to the listener's copy range or the rule's `snaplen`.
    pub payload: &'a [u8],
    /// The index of its input interface.
    pub indev: Option<u32>,
    /// Its sequence number in the group, from 0; `None` if it was logged while the group was set
    /// up.
    pub sequence: Option<u32>,
}

/// Counts of received and lost packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Packets handed out.
    pub packets: u64,
    /// Packets that the kernel logged and that were lost: the exact gaps in the sequence numbers.
    /// Packets lost after the last received one are counted with the next.
    pub lost: u64,
    /// Datagrams, of one or more packets, dropped because the receive buffer was full. Their
    /// packets are counted in `lost`.
    pub overruns: u64,
    /// Datagrams were dropped after the last received packet; `lost` will include them with the
    /// next packet.
    pub loss_uncounted: bool,
    /// Messages that could not be parsed, and truncated datagrams.
    pub malformed: u64,
}

impl Statistics {
    /// Packets handed out since there were `before`.
    fn since(&self, before: u64) -> usize {
        usize::try_from(self.packets.wrapping_sub(before)).unwrap_or(usize::MAX)
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            overruns: self.overruns + other.overruns,
            loss_uncounted: self.loss_uncounted || other.loss_uncounted,
            malformed: self.malformed + other.malformed,
        }
    }
}

/// What one call of a listener's `receive` or `decide` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Packets handed out by this call.
    pub packets: usize,
    /// Whether the bound ended it: there may be more.
    pub more: bool,
}

/// The verdict on a queued packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It continues to the next base chain.
    Accept,
    /// It is dropped.
    Drop,
}

/// A packet that waits in a queue for its verdict, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// Its number within its queue.
    pub id: u32,
    /// Its queue.
    pub kind: nfqueue::Kind,
    /// Its mark; 0 if it has none.
    pub mark: u32,
}

/// What a listener is bound to: the kernel's `res_id` (linux/netfilter/nfnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// An NFLOG group.
    Group(u16),
    /// An NFQUEUE queue.
    Queue(u16),
}

impl Resource {
    fn number(self) -> u16 {
        let (Self::Group(number) | Self::Queue(number)) = self;
        number
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "NFLOG group {group}"),
            Self::Queue(queue) => write!(f, "NFQUEUE {queue}"),
        }
    }
}

/// Why packets cannot be received.
#[derive(Debug)]
pub enum Error {
    /// The netlink socket could not be opened.
    Open(io::Error),
    /// The receive buffer could not be set.
    Buffer(io::Error),
    /// Another program is bound.
    InUse {
        /// To what.
        resource: Resource,
        /// The program, if it is known.
        holder: Option<Holder>,
    },
    /// CAP_NET_ADMIN is missing.
    NotPermitted(Resource),
    /// The kernel has no NFLOG or NFQUEUE; its answer.
    Unsupported(Resource, io::Error),
    /// The group or queue could not be bound, for another reason: the kernel's answer.
    Bind(Resource, io::Error),
    /// The group's queue threshold could not be sent to the kernel.
    Change(Resource, io::Error),
    /// The group or queue could not be unbound.
    Unbind(Resource, io::Error),
    /// The socket failed while receiving packets.
    Receive(io::Error),
    /// A verdict could not be sent.
    Verdict(io::Error),
}

/// Why a second daemon does not run, and what to do: another socket or NFLOG group would only lead to
/// the next refusal.
pub(crate) fn only_one(pid: Option<u32>) -> String {
    let kill = pid.map(|pid| format!(", or kill {pid}")).unwrap_or_default();
    format!(
        "a network namespace has room for one: stop that one first (systemctl stop portsentry{kill})"
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("cannot open a netfilter netlink socket"),
            Self::Buffer(_) => f.write_str("cannot set the receive buffer of the netfilter netlink socket"),
            Self::InUse { resource, holder } => {
                write!(f, "{resource} is in use by another program")?;
                if let Some(holder) = holder {
                    write!(f, ": {holder}")?;
                }
                if let Some(Holder { process: Some((pid, name)), .. }) = holder
                    && name == "portsentry"
                {
                    return write!(f, "; {}", only_one(Some(*pid)));
                }
                f.write_str("; stop that program, or set capture.group to another number")?;
                match resource {
                    Resource::Group(_) => Ok(()),
                    Resource::Queue(_) => f.write_str(": that queue and the next are used"),
                }
            }
            Self::NotPermitted(resource) => {
                write!(f, "cannot listen to {resource}: CAP_NET_ADMIN is missing; start as root, or give the service that capability")
            }
            Self::Unsupported(Resource::Group(_), _) => {
                f.write_str("the kernel has no NFLOG; load the module nfnetlink_log, or use a kernel with CONFIG_NETFILTER_NETLINK_LOG")
            }
            Self::Unsupported(Resource::Queue(_), _) => f.write_str(
                "the kernel has no NFQUEUE; load the module nfnetlink_queue, use a kernel with CONFIG_NETFILTER_NETLINK_QUEUE, or set \
                 capture.method to nflog, which with capture.reflex stops a scan as well",
            ),
            Self::Bind(resource, _) => write!(f, "cannot listen to {resource}"),
            Self::Change(resource, _) => write!(f, "cannot change the queue threshold of {resource}"),
            Self::Unbind(resource, _) => write!(f, "cannot leave {resource}"),
            Self::Receive(_) => f.write_str("cannot receive logged packets"),
            Self::Verdict(_) => f.write_str("cannot send a verdict on a packet to the kernel"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error)
            | Self::Buffer(error)
            | Self::Unsupported(_, error)
            | Self::Bind(_, error)
            | Self::Change(_, error)
            | Self::Unbind(_, error)
            | Self::Receive(error)
            | Self::Verdict(error) => Some(error),
            Self::InUse { .. } | Self::NotPermitted(_) => None,
        }
    }
}
