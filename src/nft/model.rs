//! The ruleset as types: one table, its sets, chains and rules. No bytes and no text here.
//!
//! Words are nft(8)'s. A rule is a list of statements; a match is a statement too, as in nft.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::element::Key;
use super::schema::SetSpec;

/// The wanted content of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets, in the order in which they are created.
    pub sets: Vec<Set>,
    /// Chains, in the order in which they are created.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// This set; `None` if the ruleset does without it.
    pub fn set(&self, id: impl Into<SetSpec>) -> Option<&Set> {
        let id = id.into();
        self.sets.iter().find(|set| set.id.name == id.name)
    }

    /// The same with every `queue` statement rendered this way.
    #[must_use]
    pub fn queueing(mut self, way: QueueBy) -> Self {
        let rules = self.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        for statement in rules.flat_map(|rule| &mut rule.statements) {
            if let Statement::Queue { by, .. } = statement {
                *by = way;
            }
        }
        self
    }

    /// How its rules queue packets; `None` if none does.
    pub fn queues_by(&self) -> Option<QueueBy> {
        self.statements().find_map(|statement| {
            if let Statement::Queue { by, .. } = statement { Some(*by) } else { None }
        })
    }

    /// The statements of all its rules.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements)
    }
}

/// What determines a set's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The configuration: the elements are compared and corrected at each installation.
    Config,
    /// The program at run time: the elements given here are added when the set is created, and are
    /// left alone after that.
    Daemon,
    /// The rules (flag `dynamic`).
    Rules,
}

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name, key type and the flag `interval`.
    pub id: SetSpec,
    /// What fills it.
    pub owner: Owner,
    /// Elements may have a timeout (flag `timeout`).
    pub timeouts: bool,
    /// The timeout of elements that are added without one.
    pub timeout: Option<Duration>,
    /// No more elements than this.
    pub size: Option<u32>,
    /// Each element counts the packets that matched it.
    pub counter: bool,
    /// Shown by `nft list`.
    pub comment: Option<&'static str>,
    /// Its elements when it is created: sorted, without overlaps. In sets without `interval`, first
    /// and last are the same.
    pub elements: Vec<RangeInclusive<Key>>,
}

impl Set {
    /// An empty set without any option.
    pub fn plain(id: impl Into<SetSpec>, owner: Owner) -> Self {
        Self {
            id: id.into(),
            owner,
            timeouts: false,
            timeout: None,
            size: None,
            counter: false,
            comment: None,
            elements: Vec::new(),
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it is hooked into the kernel; `None`: only other chains lead here.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain. Always of type `filter` with policy accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
}

/// Hooks of the inet family (linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting = 0,
    /// `NF_INET_LOCAL_IN`.
    Input = 1,
    /// `NF_INET_FORWARD`.
    Forward = 2,
    /// `NF_INET_LOCAL_OUT`.
    Output = 3,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Why it is there: a remark in the text, not sent to the kernel.
    pub why: &'static str,
    /// Its statements, in order.
    pub statements: Vec<Statement>,
}

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on only if this holds.
    Match {
        /// The packet field.
        selector: Selector,
        /// How it is compared.
        op: Op,
        /// With what.
        operand: Operand,
    },
    /// Goes on only if one of these conntrack states holds (bits of [`ct_state`]).
    CtState(u32),
    /// Goes on only if destination NAT has changed the connection: `ct status dnat`.
    CtStatusDnat,
    /// Goes on only if both hosts have shown that they know the other's sequence numbers: `ct status
    /// assured`.
    CtAssured,
    /// Goes on only if the packet comes from the host that opened the connection: `ct direction
    /// original`.
    CtOriginal,
    /// Goes on only if `tcp flags & mask == value`.
    TcpFlags {
        /// The flags looked at.
        mask: u8,
        /// Those of them that are set.
        value: u8,
    },
    /// Goes on only if this concatenation is in the set.
    Lookup {
        /// The set.
        set: SetSpec,
        /// What the key is made of.
        key: Vec<Selector>,
    },
    /// Counts packets.
    Counter,
    /// Adds the key to a set; an existing element is unchanged. The rule ends if the set is full.
    Add {
        /// The set.
        set: SetSpec,
        /// What the key is made of.
        key: Vec<Selector>,
        /// How long it stays, in whole seconds: the kernel keeps ticks of its clock. `None`: the
        /// set's own timeout.
        timeout: Option<Duration>,
    },
    /// Puts the key into a set, or starts its timeout again. The rule ends if the set is full.
    Update {
        /// The set.
        set: SetSpec,
        /// What the key is made of.
        key: Vec<Selector>,
        /// How long it stays, in whole seconds: the kernel keeps ticks of its clock. `None`: the
        /// set's own timeout.
        timeout: Option<Duration>,
        /// Each element has its own token bucket, and the rule continues only with packets over its
        /// rate. An element keeps the rate it was created with. Every lookup of such an element
        /// spends a token and may end the rule, so no rule tests membership in such a set.
        over: Option<Rate>,
    },
    /// Sends a copy of the packet to an NFLOG group.
    Log {
        /// Comes with the copy (at most 127 bytes).
        prefix: &'static str,
        /// The group.
        group: u16,
        /// Bytes of the packet that are copied.
        snaplen: u32,
        /// Messages that the kernel collects before it sends them.
        queue_threshold: u16,
    },
    /// Lets the packet wait in an NFQUEUE queue until a program gives the verdict. Ends the rule.
    Queue {
        /// The queue.
        number: u16,
        /// Without a listener, the packet continues to the next base chain; without this flag it is
        /// dropped.
        bypass: bool,
        /// By which expression: what the kernel has decides.
        by: QueueBy,
    },
    /// Continues only with packets over this rate per second, after a first burst.
    LimitOver {
        /// Packets a second.
        rate: u32,
        /// Packets at once.
        burst: u32,
    },
    /// Redirects the packet to the transparent socket that listens on this local address. The rule
    /// ends if there is none.
    Tproxy(SocketAddr),
    /// Answers a TCP segment with a reset, as a closed port does, and drops it.
    RejectTcp,
    /// Ends the rule.
    Verdict(Verdict),
}

/// The kernel's two ways to queue a packet. They do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueBy {
    /// nf_tables' own expression (module nft_queue).
    #[default]
    Native,
    /// iptables' target NFQUEUE (module xt_NFQUEUE) by way of nft_compat. nft(8) cannot load it,
    /// and lists it as a remark or, built without xtables, not at all.
    Xt,
}

/// A token bucket: a number of packets per unit of time, after a first burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Packets in a unit of time; at least 1.
    pub packets: u64,
    /// The unit.
    pub per: Unit,
    /// Packets at once; the kernel takes 0 for 5.
    pub burst: u32,
}

/// nft's units of time; the numbers are the kernel's, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Unit {
    /// A second.
    Second = 1,
    /// A minute.
    Minute = 60,
    /// An hour.
    Hour = 3600,
    /// A day.
    Day = 86_400,
    /// A week.
    Week = 604_800,
}

impl Unit {
    /// All, the shortest first.
    pub const ALL: [Self; 5] = [Self::Second, Self::Minute, Self::Hour, Self::Day, Self::Week];

    /// nft's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// How long it is.
    pub fn seconds(self) -> u64 {
        self as u64
    }
}

/// Conntrack state bits (linux/netfilter/nf_conntrack_common.h, `NF_CT_STATE_BIT`).
pub mod ct_state {
    /// `invalid`.
    pub const INVALID: u32 = 1;
    /// `established`.
    pub const ESTABLISHED: u32 = 2;
    /// `related`.
    pub const RELATED: u32 = 4;
    /// `new`.
    pub const NEW: u32 = 8;
}

/// TCP flags (RFC 9293, 3.1).
pub mod tcp_flag {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// A packet field that a match compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// `iif`: the index of the interface that the packet came in by.
    Iif,
    /// `iifname`: its name.
    IifName,
    /// `oifname`: the name of the interface that the packet leaves by.
    OifName,
    /// `meta pkttype`: whether the frame was sent to us, to all, ... (linux/if_packet.h).
    PktType,
    /// `fib saddr type`: what routing says of the source address (linux/rtnetlink.h).
    FibSaddrType,
    /// `fib daddr type`.
    FibDaddrType,
    /// `ip id`.
    Ip4Id,
    /// `ip saddr`.
    Ip4Saddr,
    /// `ip saddr & MASK`: the number of leading bits; 32 is all.
    Ip4SaddrPrefix(u8),
    /// `ip daddr`.
    Ip4Daddr,
    /// `ip daddr & MASK`.
    Ip4DaddrPrefix(u8),
    /// `ip6 saddr`.
    Ip6Saddr,
    /// `ip6 daddr`.
    Ip6Daddr,
    /// `ip6 saddr & MASK`: the number of leading bits; 128 is all.
    Ip6SaddrPrefix(u8),
    /// `ip6 daddr & MASK`.
    Ip6DaddrPrefix(u8),
    /// `meta nfproto`: IPv4 or IPv6.
    NfProto,
    /// `meta l4proto`.
    L4Proto,
    /// `tcp sport`.
    TcpSport,
    /// `tcp dport`.
    TcpDport,
    /// `udp dport`.
    UdpDport,
    /// `udp sport`.
    UdpSport,
    /// `sctp dport`.
    SctpDport,
    /// `th dport`, of any transport.
    ThDport,
    /// `th sport`.
    ThSport,
    /// `ct original proto-dst`: the port before destination NAT.
    CtOriginalDport,
    /// `@th,96,8`: the type of the first SCTP chunk. nft's own `sctp chunk` needs Linux 5.14.
    SctpChunk,
    /// `@th,0,8`: the type of an ICMP or ICMPv6 message. nft's own words need a rule for each.
    IcmpType,
    /// `numgen random mod N`: a random number below this one.
    Random(u32),
    /// `socket transparent`: has a value, 0 or 1, only if a local socket takes the packet.
    SocketTransparent,
}

/// Comparisons; the numbers are the kernel's (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// Equal, or in the set or range.
    Eq = 0,
    /// Unequal, or not in the set. Not for ranges, which nft lowers in another way.
    Ne = 1,
    /// Less.
    Lt = 2,
    /// Less or equal.
    Le = 3,
    /// Greater.
    Gt = 4,
    /// Greater or equal.
    Ge = 5,
}

impl Op {
    /// All.
    pub const ALL: [Self; 6] = [Self::Eq, Self::Ne, Self::Lt, Self::Le, Self::Gt, Self::Ge];
}

/// What a selector is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// A number, of the selector's width.
    Number(u32),
    /// Ports from the first to the last, which is larger.
    Ports(u16, u16),
    /// An address.
    Address(IpAddr),
    /// A set.
    Set(SetSpec),
}

/// What becomes of the packet, or of the walk through the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The packet is gone.
    Drop,
    /// On to the next base chain.
    Accept,
    /// Back to the calling chain; at the end of the base chain its policy.
    Return,
    /// On in another chain, and back at its end.
    Jump(&'static str),
    /// On in another chain, without coming back.
    Goto(&'static str),
}

/// `NFPROTO_IPV4` (linux/netfilter.h).
pub const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub const NFPROTO_IPV6: u8 = 10;
/// `lo` has the first index in every network namespace (net/core/dev.c, `LOOPBACK_IFINDEX`).
pub const LOOPBACK_INDEX: u32 = 1;
/// `PACKET_HOST` (linux/if_packet.h): sent to this host alone.
pub const PACKET_HOST: u32 = 0;
/// `RTN_UNICAST` (linux/rtnetlink.h).
pub const RTN_UNICAST: u32 = 1;
/// `RTN_LOCAL`.
pub const RTN_LOCAL: u32 = 2;
/// `RTN_BROADCAST`.
pub const RTN_BROADCAST: u32 = 3;
/// `RTN_ANYCAST`.
pub const RTN_ANYCAST: u32 = 4;
/// `RTN_MULTICAST`.
pub const RTN_MULTICAST: u32 = 5;

/// The mask of an IPv6 prefix of `bits` bits; more than 128 counts as 128.
pub fn prefix_mask(bits: u8) -> Ipv6Addr {
    let host = 128 - u32::from(bits.min(128));
    Ipv6Addr::from_bits(u128::MAX.checked_shl(host).unwrap_or(0))
}

/// The mask of an IPv4 prefix of so many bits.
pub fn prefix_mask4(bits: u8) -> Ipv4Addr {
    let host = 32 - u32::from(bits.min(32));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host).unwrap_or(0))
}
