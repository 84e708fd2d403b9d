//! Packets that the rules logged, as they leave the kernel.
//!
//! This module owns the way from the kernel's queue to the daemon's packet thread: what a packet looks like there ([`Packet`]), what the
//! thread polls ([`PacketSource`]), and how much was lost on the way ([`Statistics`]). It never looks into a packet (that is
//! [`crate::wire`]), and it never waits.

pub mod batching;
mod channel;
mod holder;
pub mod nflog;
pub mod nfqueue;
pub mod shedding;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use holder::Holder;

/// How many packets [`PacketSource::receive`] should hand out at most before the packet thread looks at its other descriptors again.
///
/// At 0.07 us (64 packets a datagram) to 0.9 us (one) this is at most half a millisecond: long enough that the one poll(2) in between costs
/// nothing, short enough that a reload, a signal or an `unblock` does not wait behind a flood.
pub const PACKETS_PER_WAKE: usize = 512;

/// Packets between two looks at the clock: the clock costs 25 ns, and a block that is ordered in between 50 us.
pub const PACKETS_PER_READ: usize = 64;

/// How long packets are taken before the packet thread looks at its other descriptors again, however few they were: on a slow machine, or while
/// blocks are ordered, [`PACKETS_PER_WAKE`] take long.
pub const TIME_PER_WAKE: Duration = Duration::from_millis(2);

/// A packet as a rule logged it. Borrowed from the receive buffer; nothing is copied.
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
    /// The index of the interface it came in by.
    pub indev: Option<u32>,
    /// The kernel's count of the group's packets, from 0; `None` for a packet that was logged while the group was being set up.
    pub sequence: Option<u32>,
}

/// What has come, and what has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Packets handed out.
    pub packets: u64,
    /// Packets that the kernel logged and that never came: the gaps in the sequence, exactly. Loss behind the last packet that came
    /// shows with the next one.
    pub lost: u64,
    /// Datagrams that the kernel threw away because the receive buffer was full: each had one packet or many, and what was lost is in `lost`.
    pub overruns: u64,
    /// Datagrams were thrown away after the last packet that came: how much was lost shows with the next one.
    pub loss_uncounted: bool,
    /// Messages that could not be understood, and datagrams that came cut.
    pub malformed: u64,
}

impl Statistics {
    /// Both together; what is not counted yet is so in either.
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

/// What one call of [`PacketSource::receive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Packets handed out by this call.
    pub packets: usize,
    /// The bound ended it: there may be more.
    pub more: bool,
}

/// Where the packet thread gets its packets from.
pub trait PacketSource {
    /// What to poll for reading.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Hands the packets that are there to `on_packet`, without waiting. Ends when there are no more, or after the datagram with which
    /// `bound` packets were reached ([`PACKETS_PER_WAKE`]).
    ///
    /// # Errors
    /// [`Error::Receive`] when the socket itself failed. Loss is no error: it is counted.
    fn receive(&mut self, bound: usize, on_packet: &mut dyn FnMut(&Packet<'_>)) -> Result<Received, Error>;

    /// What has come so far, and what has not.
    fn statistics(&self) -> Statistics;

    /// How much of the receive buffer waits to be received, percent; 0 where that is not known.
    fn backlog(&self) -> u8 {
        0
    }

    /// How many packets the kernel collects before it wakes us.
    fn batch(&self) -> u32 {
        1
    }

    /// Asks the kernel to collect so many from now on; does nothing where it cannot.
    ///
    /// # Errors
    /// [`Error::Change`] if it could not be asked.
    fn set_batch(&mut self, _packets: u32) -> Result<(), Error> {
        Ok(())
    }
}

/// What becomes of a packet that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, to the next base chain.
    Accept,
    /// It is gone.
    Drop,
}

/// A packet that waits in the kernel. Borrowed from the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// The kernel's number of it within its queue.
    pub id: u32,
    /// What it waits for.
    pub kind: nfqueue::Kind,
    /// Its mark; 0 is none.
    pub mark: u32,
}

/// A source whose packets wait in the kernel until they are judged.
pub trait WaitingSource: PacketSource {
    /// Hands the packets that are there to `on_packet`, without waiting, and tells the kernel what becomes of them: what `on_packet` has done by
    /// then is done before the packet goes on. Ends as [`PacketSource::receive`] does.
    ///
    /// # Errors
    /// [`Error::Receive`] and [`Error::Verdict`] when the socket itself failed. Loss is no error: it is counted.
    fn judge(&mut self, bound: usize, on_packet: &mut dyn FnMut(&Waiting<'_>) -> Verdict) -> Result<Received, Error>;
}

/// Why packets cannot be had.
#[derive(Debug)]
pub enum Error {
    /// The netlink socket could not be opened.
    Open(io::Error),
    /// The kernel grants no receive buffer at all.
    Buffer(io::Error),
    /// Another program listens to the group.
    GroupInUse {
        /// The group.
        group: u16,
        /// Who, as far as can be told.
        holder: Option<Holder>,
    },
    /// CAP_NET_ADMIN is missing.
    NotPermitted {
        /// The group.
        group: u16,
    },
    /// The kernel has no NFLOG.
    Unsupported {
        /// Its answer.
        error: io::Error,
    },
    /// The group could not be bound for another reason.
    Bind {
        /// The group.
        group: u16,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The group's queue threshold could not be sent to the kernel.
    Change {
        /// The group.
        group: u16,
        /// What the socket says.
        error: io::Error,
    },
    /// The group could not be left.
    Unbind {
        /// The group.
        group: u16,
        /// What the socket says.
        error: io::Error,
    },
    /// The socket failed while packets were received.
    Receive(io::Error),
    /// Another program listens to the queue.
    QueueInUse {
        /// The queue.
        queue: u16,
        /// Who, as far as can be told.
        holder: Option<Holder>,
    },
    /// CAP_NET_ADMIN is missing.
    QueueNotPermitted {
        /// The queue.
        queue: u16,
    },
    /// The kernel has no NFQUEUE.
    NoQueues {
        /// Its answer.
        error: io::Error,
    },
    /// The queue could not be bound for another reason.
    BindQueue {
        /// The queue.
        queue: u16,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The queue could not be left.
    UnbindQueue {
        /// The queue.
        queue: u16,
        /// What the socket says.
        error: io::Error,
    },
    /// The kernel could not be told what becomes of a packet.
    Verdict(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("cannot open a netfilter netlink socket"),
            Self::Buffer(_) => f.write_str("cannot set the receive buffer of the netfilter netlink socket"),
            Self::GroupInUse { group, holder } => {
                write!(f, "NFLOG group {group} is in use by another program")?;
                if let Some(holder) = holder {
                    write!(f, ": {holder}")?;
                }
                f.write_str("; stop that program, or set capture.group to another number")
            }
            Self::NotPermitted { group } => {
                write!(f, "cannot listen to NFLOG group {group}: CAP_NET_ADMIN is missing; start as root, or give the service that capability")
            }
            Self::Unsupported { .. } => {
                f.write_str("the kernel has no NFLOG; load the module nfnetlink_log, or use a kernel with CONFIG_NETFILTER_NETLINK_LOG")
            }
            Self::Bind { group, .. } => write!(f, "cannot listen to NFLOG group {group}"),
            Self::Change { group, .. } => write!(f, "cannot change the queue threshold of NFLOG group {group}"),
            Self::Unbind { group, .. } => write!(f, "cannot leave NFLOG group {group}"),
            Self::Receive(_) => f.write_str("cannot receive logged packets"),
            Self::QueueInUse { queue, holder } => {
                write!(f, "NFQUEUE {queue} is in use by another program")?;
                if let Some(holder) = holder {
                    write!(f, ": {holder}")?;
                }
                f.write_str("; stop that program, or set capture.group to another number: that queue and the next are used")
            }
            Self::QueueNotPermitted { queue } => {
                write!(f, "cannot listen to NFQUEUE {queue}: CAP_NET_ADMIN is missing; start as root, or give the service that capability")
            }
            Self::NoQueues { .. } => f.write_str(
                "the kernel has no NFQUEUE; load the module nfnetlink_queue, use a kernel with CONFIG_NETFILTER_NETLINK_QUEUE, or set \
                 capture.method to nflog, which with capture.reflex stops a scan as well",
            ),
            Self::BindQueue { queue, .. } => write!(f, "cannot listen to NFQUEUE {queue}"),
            Self::UnbindQueue { queue, .. } => write!(f, "cannot leave NFQUEUE {queue}"),
            Self::Verdict(_) => f.write_str("cannot tell the kernel what becomes of a packet"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(error)
            | Self::Buffer(error)
            | Self::Unsupported { error }
            | Self::Bind { error, .. }
            | Self::Change { error, .. }
            | Self::Unbind { error, .. }
            | Self::Receive(error)
            | Self::NoQueues { error }
            | Self::BindQueue { error, .. }
            | Self::UnbindQueue { error, .. }
            | Self::Verdict(error) => Some(error),
            Self::GroupInUse { .. } | Self::NotPermitted { .. } | Self::QueueInUse { .. } | Self::QueueNotPermitted { .. } => None,
        }
    }
}
