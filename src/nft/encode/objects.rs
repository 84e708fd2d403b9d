//! Messages that create tables, sets, chains and rules, and what their definitions are in numbers.
//! Elements of sets have a file of their own.

use super::batch::Batch;
use super::comment::write_comment;
use super::expression::{expression, milliseconds};
use crate::netlink::message::{NLM_F_APPEND, NLM_F_CREATE};
use crate::nft::expr::Expr;
use crate::nft::model::{Chain, Owner, Set};
use crate::nft::numbers::{
    NF_ACCEPT, SET_UDATA_BYTEORDER, SET_UDATA_COMMENT, attr, message, set_flag,
};
use crate::nft::schema::{DataType, SetSpec};

impl Batch<'_> {
    /// Creates the table, wakes it if it is dormant, or takes one over that persists without an
    /// owner.
    pub fn new_table(&mut self, flags: u32) {
        let message = self.open_of_table(message::NEWTABLE, NLM_F_CREATE);
        self.out.attr_be32(attr::TABLE_FLAGS, flags);
        self.out.end_message(message);
    }

    /// Creates a set, without its elements. `id` identifies it within the transaction.
    pub fn new_set(&mut self, set: &Set, id: u32) {
        let message = self.open_of_table(message::NEWSET, NLM_F_CREATE);
        let out = &mut *self.out;
        out.attr_str(attr::SET_NAME, set.id.name);
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
            write_comment(SET_UDATA_COMMENT, comment, &mut userdata);
        }
        out.attr(attr::SET_USERDATA, &userdata);
        if set.counter {
            let counter = out.begin_nest(attr::SET_EXPR);
            expression(out, &Expr::Counter { packets: 0, bytes: 0 });
            out.end_nest(counter);
        }
        out.end_message(message);
    }

    /// Creates a chain, without its rules.
    pub fn new_chain(&mut self, chain: &Chain) {
        let message = self.open_of_table(message::NEWCHAIN, NLM_F_CREATE);
        let out = &mut *self.out;
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

    /// Appends a rule.
    pub fn new_rule(&mut self, chain: &str, expressions: &[Expr]) {
        let message = self.open_of_table(message::NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
        let out = &mut *self.out;
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

    /// Deletes a stateful object of this type (`NFT_OBJECT_*`).
    pub fn delete_object(&mut self, name: &str, kind: u32) {
        let message = self.open_of_table(message::DELOBJ, 0);
        self.out.attr_str(attr::OBJ_NAME, name);
        self.out.attr_be32(attr::OBJ_TYPE, kind);
        self.out.end_message(message);
    }
}

/// The kernel's flags of a set.
pub fn set_flags(set: &Set) -> u32 {
    [
        (set_flag::INTERVAL, set.id.interval),
        (set_flag::TIMEOUT, set.timeouts),
        (set_flag::EVAL, set.owner == Owner::Rules),
    ]
    .into_iter()
    .filter_map(|(flag, is_set)| is_set.then_some(flag))
    .sum()
}

/// nft's number for the key's type; the kernel only keeps it (nftables, datatype.h; `TYPE_BITS` is
/// 6).
pub fn key_type(id: SetSpec) -> u32 {
    id.key.iter().fold(0, |number, kind| (number << 6) | kind.number())
}

/// Bytes of a key; fields of a concatenation fill whole registers.
pub fn key_len(id: SetSpec) -> u32 {
    match id.key {
        [kind] => kind.len(),
        kinds => kinds.iter().map(|kind| kind.len().next_multiple_of(4)).sum(),
    }
}

/// nft's `enum byteorder`: 0 none, 1 host, 2 network.
fn byteorder(id: SetSpec) -> u32 {
    match id.key {
        [DataType::Ipv4Addr | DataType::Ipv6Addr | DataType::InetService] => 2,
        [DataType::IfName] => 1,
        _ => 0,
    }
}
