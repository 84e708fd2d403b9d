//! The model, expressions and elements written as netlink messages of nf_tables (linux/netfilter/nf_tables.h). Pure: bytes into a [`Writer`].
//!
//! Each function writes one message. Order within a transaction, and what is acknowledged, is the caller's to decide.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::element::{COMMENT_MAX, Element, ElementInfo, Key};
use super::expr::{Expr, VerdictCode};
use super::model::{Chain, Owner, Set, TABLE};
use super::set_id::{DataType, SetId};
use crate::netlink::message::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, Open, Writer};

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h).
pub const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub const NFPROTO_INET: u8 = 1;
/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 0x11;

/// `enum nf_tables_msg_types`.
pub mod message {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub const NEWTABLE: u16 = 0;
    pub const GETTABLE: u16 = 1;
    pub const DELTABLE: u16 = 2;
    pub const NEWCHAIN: u16 = 3;
    pub const GETCHAIN: u16 = 4;
    pub const DELCHAIN: u16 = 5;
    pub const NEWRULE: u16 = 6;
    pub const GETRULE: u16 = 7;
    pub const DELRULE: u16 = 8;
    pub const NEWSET: u16 = 9;
    pub const GETSET: u16 = 10;
    pub const DELSET: u16 = 11;
    pub const NEWSETELEM: u16 = 12;
    pub const GETSETELEM: u16 = 13;
    pub const DELSETELEM: u16 = 14;
    pub const NEWGEN: u16 = 15;
    pub const GETGEN: u16 = 16;
}

/// `enum nft_*_attributes`, as far as they are used.
pub(super) mod attr {
    pub const TABLE_NAME: u16 = 1;
    pub const TABLE_FLAGS: u16 = 2;
    pub const TABLE_OWNER: u16 = 5;
    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUM: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const SET_TABLE: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const SET_FLAGS: u16 = 3;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LEN: u16 = 5;
    pub const SET_DESC: u16 = 9;
    pub const SET_ID: u16 = 10;
    pub const SET_TIMEOUT: u16 = 11;
    pub const SET_USERDATA: u16 = 13;
    pub const SET_EXPR: u16 = 17;
    pub const SET_COUNT: u16 = 20;
    pub const DESC_SIZE: u16 = 1;
    pub const ELEMS_TABLE: u16 = 1;
    pub const ELEMS_SET: u16 = 2;
    pub const ELEMS_ELEMENTS: u16 = 3;
    pub const LIST_ELEM: u16 = 1;
    pub const ELEM_KEY: u16 = 1;
    pub const ELEM_FLAGS: u16 = 3;
    pub const ELEM_TIMEOUT: u16 = 4;
    pub const ELEM_EXPIRATION: u16 = 5;
    pub const ELEM_USERDATA: u16 = 6;
    pub const ELEM_EXPR: u16 = 7;
    pub const ELEM_EXPRESSIONS: u16 = 11;
    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const VERDICT_CHAIN: u16 = 2;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;
    pub const GEN_ID: u16 = 1;
    pub const GEN_PROC_PID: u16 = 2;
    pub const GEN_PROC_NAME: u16 = 3;
}

/// `enum nft_set_flags`.
pub mod set_flag {
    /// Belongs to one rule.
    pub const ANONYMOUS: u32 = 0x1;
    /// Holds ranges.
    pub const INTERVAL: u32 = 0x4;
    /// Elements may have timeouts.
    pub const TIMEOUT: u32 = 0x10;
    /// Rules add elements.
    pub const EVAL: u32 = 0x20;
}

/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const ELEM_INTERVAL_END: u32 = 1;
/// `NFTNL_UDATA_SET_KEYBYTEORDER` (libnftnl/udata.h): nft shows keys wrongly without it.
const SET_UDATA_BYTEORDER: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`.
pub(super) const SET_UDATA_COMMENT: u8 = 7;
/// `NFTNL_UDATA_SET_ELEM_COMMENT`.
pub(super) const ELEM_UDATA_COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_ELEM_FLAGS`.
const ELEM_UDATA_FLAGS: u8 = 1;
/// `SET_ELEM_F_INTERVAL_OPEN`: the interval reaches to the last key, so that no end follows.
const INTERVAL_OPEN: u32 = 1;
/// `NF_ACCEPT`, as a chain's policy.
pub(super) const NF_ACCEPT: u32 = 1;
/// `NFT_RETURN` -5, `NFT_GOTO` -4, `NFT_JUMP` -3, as the kernel sends them.
pub(super) const VERDICT_RETURN: u32 = (-5_i32).cast_unsigned();
pub(super) const VERDICT_GOTO: u32 = (-4_i32).cast_unsigned();
pub(super) const VERDICT_JUMP: u32 = (-3_i32).cast_unsigned();

/// Bytes of an element list in one message: well below the 65,535 that the attribute's length can say.
const LIST_MAX: usize = 60_000;

/// `BATCH_BEGIN`; with `generation`, the transaction fails with ERESTART if the ruleset has changed since that generation.
pub fn begin(out: &mut Writer, sequence: u32, generation: Option<u32>) {
    let open = out.begin_message(BATCH_BEGIN, NLM_F_REQUEST, sequence);
    out.nfgenmsg(0, SUBSYSTEM);
    if let Some(generation) = generation {
        out.attr_be32(attr::GEN_ID, generation); // NFNL_BATCH_GENID has the same number
    }
    out.end_message(open);
}

/// `BATCH_END`.
pub fn end(out: &mut Writer, sequence: u32) {
    let open = out.begin_message(BATCH_END, NLM_F_REQUEST, sequence);
    out.nfgenmsg(0, SUBSYSTEM);
    out.end_message(open);
}

fn open(out: &mut Writer, kind: u16, flags: u16, sequence: u32) -> Open {
    let open = out.begin_message((SUBSYSTEM << 8) | kind, NLM_F_REQUEST | flags, sequence);
    out.nfgenmsg(NFPROTO_INET, 0);
    open
}

/// A message whose only attribute is the table's name. For all that is asked of, or done to, a whole table that is attribute 1.
pub fn of_table(out: &mut Writer, kind: u16, flags: u16, sequence: u32) {
    let message = open(out, kind, flags, sequence);
    out.attr_str(attr::TABLE_NAME, TABLE);
    out.end_message(message);
}

/// Asks for the generation of the ruleset.
pub fn get_generation(out: &mut Writer, sequence: u32) {
    let message = open(out, message::GETGEN, 0, sequence);
    out.end_message(message);
}

/// `enum nft_table_flags`.
pub mod table_flag {
    /// Its hooks are off.
    pub const DORMANT: u32 = 1;
    /// Only the socket that made it may change it; since Linux 5.12.
    pub const OWNER: u32 = 2;
    /// It stays when that socket is closed; since Linux 6.9.
    pub const PERSIST: u32 = 4;
}

/// Creates the table, wakes it if it is dormant, or takes one over that persists without an owner.
pub fn new_table(out: &mut Writer, sequence: u32, flags: u32) {
    let message = open(out, message::NEWTABLE, NLM_F_CREATE, sequence);
    out.attr_str(attr::TABLE_NAME, TABLE);
    out.attr_be32(attr::TABLE_FLAGS, flags);
    out.end_message(message);
}

/// Removes every rule of the table.
pub fn flush_rules(out: &mut Writer, sequence: u32) {
    of_table(out, message::DELRULE, 0, sequence);
}

/// Creates a set, without its elements. `id` tells the sets of one transaction apart.
pub fn new_set(out: &mut Writer, sequence: u32, set: &Set, id: u32) {
    let message = open(out, message::NEWSET, NLM_F_CREATE, sequence);
    out.attr_str(attr::SET_TABLE, TABLE);
    out.attr_str(attr::SET_NAME, set.id.name());
    out.attr_be32(attr::SET_FLAGS, set_flags(set));
    out.attr_be32(attr::SET_KEY_TYPE, key_type(set.id));
    out.attr_be32(attr::SET_KEY_LEN, key_len(set.id));
    out.attr_be32(attr::SET_ID, id);
    if let Some(size) = set.size {
        let desc = out.begin_nest(attr::SET_DESC);
        out.attr_be32(attr::DESC_SIZE, size);
        out.end_nest(desc);
    }
    if let Some(timeout) = set.timeout {
        out.attr_be64(attr::SET_TIMEOUT, milliseconds(timeout));
    }
    let mut userdata = vec![SET_UDATA_BYTEORDER, 4];
    userdata.extend_from_slice(&byteorder(set.id).to_ne_bytes());
    if let Some(comment) = set.comment {
        put_comment(&mut userdata, SET_UDATA_COMMENT, comment);
    }
    out.attr(attr::SET_USERDATA, &userdata);
    if set.counter {
        let counter = out.begin_nest(attr::SET_EXPR);
        expression(out, &Expr::Counter { packets: 0, bytes: 0 });
        out.end_nest(counter);
    }
    out.end_message(message);
}

/// The kernel's flags of a set.
pub fn set_flags(set: &Set) -> u32 {
    [(set_flag::INTERVAL, set.id.is_interval()), (set_flag::TIMEOUT, set.timeouts), (set_flag::EVAL, set.owner == Owner::Rules)]
        .into_iter()
        .filter_map(|(flag, is_set)| is_set.then_some(flag))
        .sum()
}

/// nft's number for the key's type; the kernel only keeps it (nftables, datatype.h; `TYPE_BITS` is 6).
pub fn key_type(id: SetId) -> u32 {
    id.key().iter().fold(0, |number, kind| {
        (number << 6)
            | match kind {
                DataType::Ipv4Addr => 7,
                DataType::Ipv6Addr => 8,
                DataType::InetProto => 12,
                DataType::InetService => 13,
                DataType::IfName => 41,
            }
    })
}

/// Bytes of a key; fields of a concatenation fill whole registers.
pub fn key_len(id: SetId) -> u32 {
    let len = |kind: &DataType| match kind {
        DataType::InetProto => 1,
        DataType::InetService => 2,
        DataType::Ipv4Addr => 4,
        DataType::Ipv6Addr | DataType::IfName => 16,
    };
    match id.key() {
        [kind] => len(kind),
        kinds => kinds.iter().map(|kind| len(kind).next_multiple_of(4)).sum(),
    }
}

/// nft's `enum byteorder`: 0 none, 1 host, 2 network.
fn byteorder(id: SetId) -> u32 {
    match id.key() {
        [DataType::Ipv4Addr | DataType::Ipv6Addr | DataType::InetService] => 2,
        [DataType::IfName] => 1,
        _ => 0,
    }
}

/// Removes a set.
pub fn delete_set(out: &mut Writer, sequence: u32, name: &str) {
    let message = open(out, message::DELSET, 0, sequence);
    out.attr_str(attr::SET_TABLE, TABLE);
    out.attr_str(attr::SET_NAME, name);
    out.end_message(message);
}

/// Creates a chain, without its rules.
pub fn new_chain(out: &mut Writer, sequence: u32, chain: &Chain) {
    let message = open(out, message::NEWCHAIN, NLM_F_CREATE, sequence);
    out.attr_str(attr::CHAIN_TABLE, TABLE);
    out.attr_str(attr::CHAIN_NAME, chain.name);
    if let Some(base) = chain.base {
        let hook = out.begin_nest(attr::CHAIN_HOOK);
        out.attr_be32(attr::HOOK_NUM, base.hook as u32);
        out.attr_be32(attr::HOOK_PRIORITY, base.priority.cast_unsigned());
        out.end_nest(hook);
        out.attr_be32(attr::CHAIN_POLICY, NF_ACCEPT);
        out.attr_str(attr::CHAIN_TYPE, "filter");
    }
    out.end_message(message);
}

/// Removes a chain with its rules.
pub fn delete_chain(out: &mut Writer, sequence: u32, name: &str) {
    let message = open(out, message::DELCHAIN, 0, sequence);
    out.attr_str(attr::CHAIN_TABLE, TABLE);
    out.attr_str(attr::CHAIN_NAME, name);
    out.end_message(message);
}

/// Appends a rule.
pub fn new_rule(out: &mut Writer, sequence: u32, chain: &str, expressions: &[Expr]) {
    let message = open(out, message::NEWRULE, NLM_F_CREATE | NLM_F_APPEND, sequence);
    out.attr_str(attr::RULE_TABLE, TABLE);
    out.attr_str(attr::RULE_CHAIN, chain);
    let list = out.begin_nest(attr::RULE_EXPRESSIONS);
    for expr in expressions {
        let nest = out.begin_nest(attr::LIST_ELEM);
        expression(out, expr);
        out.end_nest(nest);
    }
    out.end_nest(list);
    out.end_message(message);
}

/// Name and data of an expression.
pub(super) fn expression(out: &mut Writer, expr: &Expr) {
    let name = match expr {
        Expr::Meta { .. } => "meta",
        Expr::Payload { .. } => "payload",
        Expr::CtState { .. } => "ct",
        Expr::FibType { .. } => "fib",
        Expr::SocketTransparent { .. } => "socket",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Cmp { .. } => "cmp",
        Expr::Lookup { .. } => "lookup",
        Expr::Dynset { .. } => "dynset",
        Expr::Counter { .. } => "counter",
        Expr::Log { .. } => "log",
        Expr::Queue { .. } => "queue",
        Expr::Target { .. } => "target",
        Expr::LimitOver { .. } => "limit",
        Expr::Tproxy { .. } => "tproxy",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Foreign { name, .. } => name,
    };
    out.attr_str(attr::EXPR_NAME, name);
    let nest = out.begin_nest(attr::EXPR_DATA);
    // The numbers are those of the expression's own attributes, in nf_tables.h.
    match expr {
        Expr::Meta { key, dreg } => {
            out.attr_be32(2, *key as u32);
            out.attr_be32(1, *dreg);
        }
        Expr::Payload { base, offset, len, dreg } => {
            out.attr_be32(1, *dreg);
            out.attr_be32(2, *base as u32);
            out.attr_be32(3, *offset);
            out.attr_be32(4, *len);
        }
        Expr::CtState { dreg } => {
            out.attr_be32(2, 0); // NFT_CT_STATE
            out.attr_be32(1, *dreg);
        }
        Expr::FibType { saddr, dreg } => {
            out.attr_be32(3, if *saddr { FIB_SADDR } else { FIB_DADDR });
            out.attr_be32(2, FIB_ADDRTYPE);
            out.attr_be32(1, *dreg);
        }
        Expr::SocketTransparent { dreg } => {
            out.attr_be32(1, 0); // NFT_SOCKET_TRANSPARENT
            out.attr_be32(2, *dreg);
        }
        Expr::Bitwise { sreg, dreg, mask, xor } => {
            out.attr_be32(1, *sreg);
            out.attr_be32(2, *dreg);
            out.attr_be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            data(out, 4, mask);
            data(out, 5, xor);
        }
        Expr::Cmp { sreg, op, data: value } => {
            out.attr_be32(1, *sreg);
            out.attr_be32(2, *op as u32);
            data(out, 3, value);
        }
        Expr::Lookup { set, sreg, invert } => {
            out.attr_be32(2, *sreg);
            out.attr_str(1, set);
            out.attr_be32(5, u32::from(*invert)); // NFT_LOOKUP_F_INV
        }
        Expr::Dynset { update, set, sreg_key, timeout, each } => {
            out.attr_be32(4, *sreg_key);
            out.attr_be32(3, u32::from(*update)); // NFT_DYNSET_OP_ADD, _UPDATE
            out.attr_str(1, set);
            if let Some(timeout) = timeout {
                out.attr_be64(6, milliseconds(*timeout));
            }
            if let Some(each) = each {
                let nest = out.begin_nest(7);
                expression(out, each);
                out.end_nest(nest);
            }
        }
        Expr::Counter { packets, bytes } => {
            out.attr_be64(1, *bytes);
            out.attr_be64(2, *packets);
        }
        Expr::Log { prefix, group, snaplen, qthreshold } => {
            out.attr_str(2, prefix);
            out.attr_be16(1, *group);
            out.attr_be32(3, *snaplen);
            out.attr_be16(4, *qthreshold);
        }
        Expr::Queue { number, total, flags } => {
            out.attr_be16(1, *number);
            out.attr_be16(2, *total);
            out.attr_be16(3, *flags);
        }
        Expr::Target { name, revision, info } => {
            // linux/netfilter/nf_tables_compat.h, enum nft_target_attributes.
            out.attr_str(1, name);
            out.attr_be32(2, *revision);
            out.attr(3, info);
        }
        Expr::LimitOver { rate, per, burst } => {
            out.attr_be64(1, *rate);
            out.attr_be64(2, per.seconds());
            out.attr_be32(4, 0); // NFT_LIMIT_PKTS
            out.attr_be32(5, LIMIT_INVERT);
            out.attr_be32(3, *burst);
        }
        Expr::Immediate { dreg, data: value } => {
            out.attr_be32(1, *dreg);
            data(out, 2, value);
        }
        Expr::Tproxy { family, address, port } => {
            out.attr_be32(1, *family as u32);
            out.attr_be32(2, *address);
            out.attr_be32(3, *port);
        }
        Expr::Verdict(code) => {
            out.attr_be32(1, 0); // NFT_REG_VERDICT
            let value = out.begin_nest(2);
            let verdict = out.begin_nest(attr::DATA_VERDICT);
            let (number, chain) = match code {
                VerdictCode::Drop => (0, None),
                VerdictCode::Accept => (1, None),
                VerdictCode::Return => (VERDICT_RETURN, None),
                VerdictCode::Jump(chain) => (VERDICT_JUMP, Some(chain)),
                VerdictCode::Goto(chain) => (VERDICT_GOTO, Some(chain)),
            };
            out.attr_be32(attr::VERDICT_CODE, number);
            if let Some(chain) = chain {
                out.attr_str(attr::VERDICT_CHAIN, chain);
            }
            out.end_nest(verdict);
            out.end_nest(value);
        }
        Expr::Foreign { data, .. } => out.raw(data),
    }
    out.end_nest(nest);
}

/// `NFT_LIMIT_F_INV`.
pub(super) const LIMIT_INVERT: u32 = 1;
/// `NFTA_FIB_F_SADDR`.
pub(super) const FIB_SADDR: u32 = 1;
/// `NFTA_FIB_F_DADDR`.
pub(super) const FIB_DADDR: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`.
pub(super) const FIB_ADDRTYPE: u32 = 3;

/// A value in its nest.
fn data(out: &mut Writer, kind: u16, value: &[u8]) {
    let nest = out.begin_nest(kind);
    out.attr(attr::DATA_VALUE, value);
    out.end_nest(nest);
}

/// What the kernel is to remember of an element that it had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// Packets and bytes counted.
    pub counter: Option<(u64, u64)>,
    /// What is left of the timeout, if less than all of it.
    pub expires: Option<Duration>,
}

impl Past {
    /// Of an element that is new in its set.
    pub fn new(set: SetId) -> Self {
        Self { counter: set.counts_each().then_some((0, 0)), expires: None }
    }
}

/// A list of elements being written: [`Elements::begin`], [`Elements::push`] each, [`Elements::end`].
#[must_use = "the message has to be ended"]
pub struct Elements {
    message: Open,
    list: Open,
    id: SetId,
}

impl Elements {
    /// Starts a message: `kind` is NEWSETELEM, GETSETELEM or DELSETELEM.
    pub fn begin(out: &mut Writer, sequence: u32, kind: u16, flags: u16, id: SetId) -> Self {
        let message = open(out, kind, flags, sequence);
        out.attr_str(attr::ELEMS_SET, id.name());
        out.attr_str(attr::ELEMS_TABLE, TABLE);
        let list = out.begin_nest(attr::ELEMS_ELEMENTS);
        Self { message, list, id }
    }

    /// Writes an element; in sets of intervals, its start and its end.
    pub fn push(&self, out: &mut Writer, element: &Element<'_>, past: Past) {
        let is_interval = self.id.is_interval();
        let after = if is_interval { element.last().successor() } else { None };
        let nest = self.key(out, element.key);
        if let Some(timeout) = element.timeout {
            out.attr_be64(attr::ELEM_TIMEOUT, milliseconds(timeout));
            if let Some(expires) = past.expires {
                // None left would be none at all to the kernel.
                out.attr_be64(attr::ELEM_EXPIRATION, milliseconds(expires.min(timeout)).max(1));
            }
        }
        let mut userdata = [0; 2 + COMMENT_MAX + 1 + 6];
        let mut length = 0;
        let mut put = |byte: u8| {
            if let Some(place) = userdata.get_mut(length) {
                *place = byte;
                length += 1;
            }
        };
        if let Some(comment) = element.comment.filter(|comment| !comment.is_empty()) {
            write_comment(ELEM_UDATA_COMMENT, comment, &mut put);
        }
        if is_interval && after.is_none() {
            put(ELEM_UDATA_FLAGS);
            put(4);
            INTERVAL_OPEN.to_ne_bytes().into_iter().for_each(&mut put);
        }
        if length > 0 {
            out.attr(attr::ELEM_USERDATA, userdata.get(..length).unwrap_or_default());
        }
        if let Some((packets, bytes)) = past.counter {
            let counter = out.begin_nest(attr::ELEM_EXPR);
            expression(out, &Expr::Counter { packets, bytes });
            out.end_nest(counter);
        }
        out.end_nest(nest);
        if let Some(after) = after {
            let nest = self.key(out, after);
            out.attr_be32(attr::ELEM_FLAGS, ELEM_INTERVAL_END);
            out.end_nest(nest);
        }
    }

    fn key(&self, out: &mut Writer, key: Key) -> Open {
        let nest = out.begin_nest(attr::LIST_ELEM);
        let (bytes, length) = key.bytes();
        data(out, attr::ELEM_KEY, bytes.get(..length).unwrap_or_default());
        nest
    }

    /// Whether another element may not fit.
    pub fn is_full(&self, out: &Writer) -> bool {
        out.nest_len(self.list) > LIST_MAX
    }

    /// Ends the message.
    pub fn end(self, out: &mut Writer) {
        out.end_nest(self.list);
        out.end_message(self.message);
    }
}

/// Removes every element of a set.
pub fn flush_set(out: &mut Writer, sequence: u32, id: SetId) {
    let message = open(out, message::DELSETELEM, 0, sequence);
    out.attr_str(attr::ELEMS_TABLE, TABLE);
    out.attr_str(attr::ELEMS_SET, id.name());
    out.end_message(message);
}

/// Asks for every element of a set.
pub fn dump_set(out: &mut Writer, sequence: u32, id: SetId) {
    let message = open(out, message::GETSETELEM, NLM_F_DUMP, sequence);
    out.attr_str(attr::ELEMS_TABLE, TABLE);
    out.attr_str(attr::ELEMS_SET, id.name());
    out.end_message(message);
}

/// The ranges as elements without timeout, in as many messages as they need.
pub fn add_ranges(out: &mut Writer, sequence: &mut u32, id: SetId, ranges: &[RangeInclusive<Key>]) {
    add_all(out, sequence, id, ranges.iter().map(|range| (Element::range(range), Past::default())));
}

/// Which counters elements get that are put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// All, as they stood.
    Now,
    /// Those that the set gives, where it has them to give ([`SetId::counts_each`]): the others follow.
    Later,
}

/// Elements that were in the kernel before, with what is left of their time, and their counters if the set still counts.
pub fn add_again(out: &mut Writer, sequence: &mut u32, set: &Set, elements: &[ElementInfo], counters: Counters) {
    let again = elements.iter().map(|info| {
        let timeout = info.timeout.filter(|_| set.timeouts);
        let element = Element { key: info.key, end: info.end, timeout, comment: info.comment.as_deref() };
        // A set that counts gives each element a counter; naming one that stands at zero costs the kernel a look-up by name for each.
        let has_counted = set.counter && (info.packets, info.bytes) != (0, 0);
        let has_own = set.id.counts_each() && counters == Counters::Now;
        (element, Past { counter: (has_counted || has_own).then_some((info.packets, info.bytes)), expires: info.expires })
    });
    add_all(out, sequence, set.id, again);
}

/// Takes elements out, in as many messages as they need.
pub fn delete_all(out: &mut Writer, sequence: &mut u32, id: SetId, elements: &[ElementInfo]) {
    write_all(out, sequence, (message::DELSETELEM, 0), id, elements.iter().map(|info| (Element::key_only(info.key), Past::default())));
}

fn add_all<'a>(out: &mut Writer, sequence: &mut u32, id: SetId, elements: impl Iterator<Item = (Element<'a>, Past)>) {
    write_all(out, sequence, (message::NEWSETELEM, NLM_F_CREATE), id, elements);
}

fn write_all<'a>(out: &mut Writer, sequence: &mut u32, (kind, flags): (u16, u16), id: SetId, elements: impl Iterator<Item = (Element<'a>, Past)>) {
    let mut list: Option<Elements> = None;
    for (element, past) in elements {
        let current = list.take().unwrap_or_else(|| {
            let list = Elements::begin(out, *sequence, kind, flags, id);
            *sequence = sequence.wrapping_add(1);
            list
        });
        current.push(out, &element, past);
        if current.is_full(out) {
            current.end(out);
        } else {
            list = Some(current);
        }
    }
    if let Some(list) = list {
        list.end(out);
    }
}

/// nf_tables has timeouts in milliseconds; one below that is the smallest that is one.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn put_comment(userdata: &mut Vec<u8>, kind: u8, comment: &str) {
    write_comment(kind, comment, &mut |byte| userdata.push(byte));
}

/// Type, length with NUL, text, NUL. What nft could not read back, or would show as control characters, becomes `?`.
fn write_comment(kind: u8, comment: &str, put: &mut impl FnMut(u8)) {
    let mut length = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(length) {
        length -= 1;
    }
    let text = comment.get(..length).unwrap_or_default();
    put(kind);
    put(u8::try_from(text.len() + 1).unwrap_or(u8::MAX));
    for byte in text.bytes() {
        put(if byte.is_ascii_control() || byte == b'"' || byte == b'\\' { b'?' } else { byte });
    }
    put(0);
}
