//! Kernel expressions: what a rule is made of once nft's conveniences are gone.
//!
//! Names and numbers follow linux/netfilter/nf_tables.h.

use std::time::Duration;

use super::model::{Op, Unit};

/// A register of the rule's virtual machine: 0 is the verdict, 1..=4 have 16 bytes, 8..=23 have 4
/// (`enum nft_registers`).
pub type Register = u32;
/// `NFT_REG_1`.
pub const REG_1: Register = 1;
/// `NFT_REG_2`.
pub const REG_2: Register = 2;
/// `NFT_REG32_00`: the first 4 bytes of [`REG_1`].
pub const REG32_00: Register = 8;

/// `NFT_QUEUE_FLAG_BYPASS`, and `NFQ_FLAG_BYPASS` (linux/netfilter/xt_NFQUEUE.h): the same number.
pub const QUEUE_BYPASS: u16 = 1;

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads packet metadata.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        dreg: Register,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Which header.
        base: PayloadBase,
        /// Bytes from its start.
        offset: u32,
        /// How many.
        len: u32,
        /// Where to.
        dreg: Register,
    },
    /// Loads a field of the packet's conntrack entry.
    Ct {
        /// Which.
        key: CtKey,
        /// Where to.
        dreg: Register,
    },
    /// Asks routing for the type of an address.
    FibType {
        /// The source address, not the destination's.
        saddr: bool,
        /// Where to.
        dreg: Register,
    },
    /// Looks for a local socket; breaks the rule if there is none.
    SocketTransparent {
        /// Where to.
        dreg: Register,
    },
    /// A random number (`NFT_NG_RANDOM`).
    Random {
        /// It is below this number.
        modulus: u32,
        /// Where to.
        dreg: Register,
    },
    /// Answers with a TCP reset and drops the packet (`NFT_REJECT_TCP_RST`).
    RejectTcp,
    /// `dreg = (sreg & mask) ^ xor`.
    Bitwise {
        /// From.
        sreg: Register,
        /// To.
        dreg: Register,
        /// The mask; its length is the operation's.
        mask: Vec<u8>,
        /// The other operand.
        xor: Vec<u8>,
    },
    /// Breaks the rule if the comparison does not hold.
    Cmp {
        /// What is compared.
        sreg: Register,
        /// How.
        op: Op,
        /// With what.
        data: Vec<u8>,
    },
    /// Breaks the rule if the register is not in the set.
    Lookup {
        /// The set.
        set: String,
        /// What is looked for.
        sreg: Register,
        /// Or if it is.
        invert: bool,
    },
    /// Updates an element from the packet path.
    Dynset {
        /// Also when it is there; else only adds.
        update: bool,
        /// The set.
        set: String,
        /// The key.
        sreg_key: Register,
        /// Instead of the set's timeout.
        timeout: Option<Duration>,
        /// What each element carries, and what is asked of it.
        each: Option<Box<Expr>>,
    },
    /// Counts.
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Copies the packet to an NFLOG group.
    Log {
        /// Prefix.
        prefix: String,
        /// Group.
        group: u16,
        /// Bytes copied.
        snaplen: u32,
        /// Messages collected.
        qthreshold: u16,
    },
    /// Queues the packet for a program.
    Queue {
        /// The first queue.
        number: u16,
        /// How many queues from there on share the packets.
        total: u16,
        /// `NFT_QUEUE_FLAG_*`.
        flags: u16,
    },
    /// A target of iptables, by way of nft_compat.
    Target {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// Its own structure, as the target's header has it.
        info: Vec<u8>,
    },
    /// Breaks the rule for packets within the rate: `limit rate over`, in packets
    /// (`NFT_LIMIT_F_INV`).
    LimitOver {
        /// Packets in a unit of time.
        rate: u64,
        /// The unit.
        per: Unit,
        /// Packets at once.
        burst: u32,
    },
    /// Loads a value.
    Immediate {
        /// Where to.
        dreg: Register,
        /// The value.
        data: Vec<u8>,
    },
    /// Assigns the packet to a transparent listener; breaks the rule if there is none.
    Tproxy {
        /// The version of IP: `NFPROTO_IPV4` or `NFPROTO_IPV6`.
        family: u8,
        /// Has the listener's address.
        address: Register,
        /// Has its port.
        port: Register,
    },
    /// Sets the verdict.
    Verdict(VerdictCode),
    /// An expression that is not ours; its name, and its data as it came.
    Foreign {
        /// Its name.
        name: String,
        /// Its attributes.
        data: Vec<u8>,
    },
}

/// Keys of [`Expr::Meta`] (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MetaKey {
    /// Index of the input interface.
    Iif = 4,
    /// Its name.
    IifName = 6,
    /// The output interface's name.
    OifName = 7,
    /// IPv4 or IPv6.
    NfProto = 15,
    /// The transport protocol.
    L4Proto = 16,
    /// `skb->pkt_type`.
    PktType = 19,
}

impl MetaKey {
    /// All that are used.
    pub const ALL: [Self; 6] =
        [Self::Iif, Self::IifName, Self::OifName, Self::NfProto, Self::L4Proto, Self::PktType];
}

/// Keys of [`Expr::Ct`] (`enum nft_ct_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CtKey {
    /// The state, as bits.
    State = 0,
    /// Whether the packet comes from the host that opened the connection (`enum
    /// ip_conntrack_dir`).
    Direction = 1,
    /// The status, as bits.
    Status = 2,
    /// The destination port of the connection's first packet, before destination NAT.
    OriginalDport = 12,
}

impl CtKey {
    /// All that are used.
    pub const ALL: [Self; 4] = [Self::State, Self::Direction, Self::Status, Self::OriginalDport];

    /// The direction that the key is asked of, if it has one for each (`enum ip_conntrack_dir`).
    pub(super) const fn direction(self) -> Option<u8> {
        match self {
            Self::State | Self::Direction | Self::Status => None,
            Self::OriginalDport => Some(IP_CT_DIR_ORIGINAL),
        }
    }
}

/// `IP_CT_DIR_ORIGINAL` (linux/netfilter/nf_conntrack_tuple_common.h).
pub(super) const IP_CT_DIR_ORIGINAL: u8 = 0;

/// `IPS_ASSURED` (linux/netfilter/nf_conntrack_common.h): for TCP, the handshake is complete.
pub(super) const IPS_ASSURED: u32 = 1 << 2;

/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h): destination NAT changed the connection.
pub(super) const IPS_DST_NAT: u32 = 1 << 5;

/// `enum nft_payload_bases`, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PayloadBase {
    /// The IP header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// Verdicts (linux/netfilter.h, `enum nft_verdicts`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerdictCode {
    /// `NF_DROP`.
    Drop,
    /// `NF_ACCEPT`.
    Accept,
    /// `NFT_RETURN`.
    Return,
    /// `NFT_JUMP`.
    Jump(String),
    /// `NFT_GOTO`.
    Goto(String),
}

impl Expr {
    /// The kernel's name for it; `None` for one that this program never writes.
    pub(super) fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Ct { .. } => "ct",
            Self::FibType { .. } => "fib",
            Self::SocketTransparent { .. } => "socket",
            Self::Random { .. } => "numgen",
            Self::RejectTcp => "reject",
            Self::Bitwise { .. } => "bitwise",
            Self::Cmp { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Dynset { .. } => "dynset",
            Self::Counter { .. } => "counter",
            Self::Log { .. } => "log",
            Self::Queue { .. } => "queue",
            Self::Target { .. } => "target",
            Self::LimitOver { .. } => "limit",
            Self::Tproxy { .. } => "tproxy",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Foreign { .. } => return None,
        })
    }

    /// The same without what changes by itself: counters at zero.
    #[must_use]
    pub fn at_rest(self) -> Self {
        match self {
            Self::Counter { .. } => Self::Counter { packets: 0, bytes: 0 },
            other => other,
        }
    }
}
