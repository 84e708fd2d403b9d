//! Kernel expressions: what a rule is made of once nft's conveniences are gone. Printed as `nft
//! --debug=netlink` prints them (libnftnl).
//!
//! Names and numbers follow linux/netfilter/nf_tables.h.

use std::fmt;
use std::time::Duration;

use super::model::Unit;

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
    /// Loads the conntrack state.
    CtState {
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
        op: CmpOp,
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
        /// The version of IP.
        family: Family,
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
    /// IPv4 or IPv6.
    NfProto = 15,
    /// The transport protocol.
    L4Proto = 16,
    /// `skb->pkt_type`.
    PktType = 19,
}

impl MetaKey {
    /// All that are used.
    pub const ALL: [Self; 5] =
        [Self::Iif, Self::IifName, Self::NfProto, Self::L4Proto, Self::PktType];

    fn name(self) -> &'static str {
        match self {
            Self::Iif => "iif",
            Self::IifName => "iifname",
            Self::NfProto => "nfproto",
            Self::L4Proto => "l4proto",
            Self::PktType => "pkttype",
        }
    }
}

/// The version of IP that [`Expr::Tproxy`] is for, as the kernel's number (linux/netfilter.h,
/// `NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    Ip4 = 2,
    /// IPv6.
    Ip6 = 10,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ip4, Self::Ip6];

    fn name(self) -> &'static str {
        match self {
            Self::Ip4 => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// `enum nft_payload_bases`, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PayloadBase {
    /// The IP header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// `enum nft_cmp_ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CmpOp {
    /// Equal.
    Eq = 0,
    /// Unequal.
    Neq = 1,
    /// Less.
    Lt = 2,
    /// Less or equal.
    Lte = 3,
    /// Greater.
    Gt = 4,
    /// Greater or equal.
    Gte = 5,
}

impl CmpOp {
    /// All.
    pub const ALL: [Self; 6] = [Self::Eq, Self::Neq, Self::Lt, Self::Lte, Self::Gt, Self::Gte];

    fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
        }
    }
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
    /// The same without what changes by itself: counters at zero.
    #[must_use]
    pub fn at_rest(self) -> Self {
        match self {
            Self::Counter { .. } => Self::Counter { packets: 0, bytes: 0 },
            other => other,
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta { key, dreg } => write!(f, "[ meta load {} => reg {dreg} ]", key.name()),
            Self::Payload { base, offset, len, dreg } => {
                let base = match base {
                    PayloadBase::Network => "network",
                    PayloadBase::Transport => "transport",
                };
                write!(f, "[ payload load {len}b @ {base} header + {offset} => reg {dreg} ]")
            }
            Self::CtState { dreg } => write!(f, "[ ct load state => reg {dreg} ]"),
            Self::FibType { saddr, dreg } => {
                write!(f, "[ fib {} type => reg {dreg} ]", if *saddr { "saddr" } else { "daddr" })
            }
            Self::SocketTransparent { dreg } => {
                write!(f, "[ socket load transparent => reg {dreg} ]")
            }
            Self::Bitwise { sreg, dreg, mask, xor } => write!(
                f,
                "[ bitwise reg {dreg} = ( reg {sreg} & {} ) ^ {} ]",
                Words(mask),
                Words(xor)
            ),
            Self::Cmp { sreg, op, data } => {
                write!(f, "[ cmp {} reg {sreg} {} ]", op.name(), Words(data))
            }
            Self::Lookup { set, sreg, invert } => {
                write!(f, "[ lookup reg {sreg} set {set}{} ]", if *invert { " 0x1" } else { "" })
            }
            Self::Dynset { update, set, sreg_key, timeout, each } => {
                write!(
                    f,
                    "[ dynset {} reg_key {sreg_key} set {set}",
                    if *update { "update" } else { "add" }
                )?;
                if let Some(timeout) = timeout {
                    write!(f, " timeout {}ms", timeout.as_millis())?;
                }
                if let Some(each) = each {
                    write!(f, " expr {each}")?;
                }
                f.write_str(" ]")
            }
            Self::Counter { packets, bytes } => {
                write!(f, "[ counter pkts {packets} bytes {bytes} ]")
            }
            Self::Log { prefix, group, snaplen, qthreshold } => {
                write!(
                    f,
                    "[ log prefix {prefix} group {group} snaplen {snaplen} qthreshold {qthreshold} ]"
                )
            }
            Self::Queue { number, total, flags } => {
                write!(f, "[ queue num {number}")?;
                if *total > 1 {
                    write!(f, "-{}", u32::from(*number) + u32::from(*total) - 1)?;
                }
                if flags & QUEUE_BYPASS != 0 {
                    f.write_str(" bypass")?;
                }
                f.write_str(" ]")
            }
            Self::Target { name, revision, info: _ } => {
                write!(f, "[ target name {name} rev {revision} ]")
            }
            Self::LimitOver { rate, per, burst } => write!(
                f,
                "[ limit rate {rate}/{} burst {burst} type packets flags 0x1 ]",
                per.name()
            ),
            Self::Immediate { dreg, data } => write!(f, "[ immediate reg {dreg} {} ]", Words(data)),
            Self::Tproxy { family, address, port } => {
                write!(f, "[ tproxy {} addr reg {address} port reg {port} ]", family.name())
            }
            Self::Verdict(code) => {
                f.write_str("[ immediate reg 0 ")?;
                match code {
                    VerdictCode::Drop => f.write_str("drop")?,
                    VerdictCode::Accept => f.write_str("accept")?,
                    VerdictCode::Return => f.write_str("return")?,
                    VerdictCode::Jump(chain) => write!(f, "jump -> {chain}")?,
                    VerdictCode::Goto(chain) => write!(f, "goto -> {chain}")?,
                }
                f.write_str(" ]")
            }
            Self::Foreign { name, data } => write!(f, "[ {name} {} ]", Words(data)),
        }
    }
}

/// Bytes as libnftnl shows a register: words of 4 bytes in host order.
struct Words<'a>(&'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, chunk) in self.0.chunks(4).enumerate() {
            let mut word = [0; 4];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            let space = if position == 0 { "" } else { " " };
            write!(f, "{space}0x{:08x}", u32::from_ne_bytes(word))?;
        }
        Ok(())
    }
}
