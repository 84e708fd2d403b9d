//! Netlink messages of nf_tables read back (linux/netfilter/nf_tables.h). Total: any bytes give a
//! value or `None`, never a panic.

use std::time::Duration;

use super::element::{ElementInfo, Key, RawElement};
use super::expr::{CtKey, Expr, MetaKey, PayloadBase, VerdictCode};
use super::model::{NFPROTO_IPV4, NFPROTO_IPV6, Op, Unit};
use super::numbers::{
    CHAIN_BINDING, ELEM_INTERVAL_END, ELEM_UDATA_COMMENT, FIB_ADDRTYPE, FIB_DADDR, FIB_SADDR,
    LIMIT_INVERT, NFPROTO_INET, SET_UDATA_COMMENT, SUBSYSTEM, VERDICT_GOTO, VERDICT_JUMP,
    VERDICT_RETURN, attr, message,
};
use super::schema::{Schema, SetSpec, Table};
use crate::netlink::message::{Attribute, Attributes, Message};

/// A table, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// `enum nft_table_flags`: 1 dormant, 2 owner, 4 persist.
    pub flags: u32,
    /// The port id of the socket that owns it, if one does.
    pub owner: Option<u32>,
}

/// A chain, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// Hook number, priority, policy and type; `None` for a chain that only others lead to.
    pub base: Option<(u32, i32, u32, String)>,
    /// An implicit chain (`jump { ... }`), which is deleted with its rule.
    pub implicit: bool,
}

/// A stateful object (counter, quota, ct helper, ...), as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// `NFT_OBJECT_*`.
    pub kind: u32,
}

/// A set, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// `enum nft_set_flags`.
    pub flags: u32,
    /// nft's number for the key's type.
    pub key_type: u32,
    /// Bytes of a key.
    pub key_len: u32,
    /// Most elements; `None`: no bound.
    pub size: Option<u32>,
    /// Number of elements; `None` where the kernel does not report it (before Linux 6.16).
    pub count: Option<u32>,
    /// The set's own timeout.
    pub timeout: Option<Duration>,
    /// Expressions that each element gets.
    pub expressions: Vec<Expr>,
    /// Shown by `nft list`.
    pub comment: Option<String>,
}

/// A rule, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain that it is in.
    pub chain: String,
    /// What it does.
    pub expressions: Vec<Expr>,
}

/// A transaction was committed (`NFT_MSG_NEWGEN`, the last message of each).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationEvent {
    /// The generation that the ruleset has now.
    pub id: u32,
    /// The process that committed it; 0 if the kernel did not say.
    pub pid: u32,
    /// Its name (`comm`), empty if the kernel did not say.
    pub program: String,
}

/// A notification of the group NFNLGRP_NFTABLES about the schema's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A transaction is complete: what came before belongs to it.
    Generation(GenerationEvent),
    /// The table was removed.
    TableDeleted,
    /// A chain was removed.
    ChainDeleted(String),
    /// A set was removed.
    SetDeleted(String),
    /// A rule was removed.
    RuleDeleted {
        /// The chain that it was in.
        chain: String,
    },
    /// Elements of a known set were removed by a transaction (expiry sends no notification).
    ElementsDeleted {
        /// The set.
        set: SetSpec,
        /// Their keys; of intervals the first ones.
        keys: Vec<Key>,
    },
    /// Elements of a known set were added or changed by a transaction (what rules add sends no
    /// notification).
    ElementsAdded {
        /// The set.
        set: SetSpec,
        /// Their keys; of intervals the first ones.
        keys: Vec<Key>,
    },
    /// The table was created or changed.
    TableAdded,
    /// A chain, set, rule, stateful object or flowtable was added to the table, or elements to an
    /// unknown set.
    Added,
}

/// The number within nf_tables' messages; `None` for messages of others.
pub fn kind(message: &Message<'_>) -> Option<u16> {
    (message.header.kind >> 8 == SUBSYSTEM).then_some(message.header.kind & 0xff)
}

/// The attributes of a message of this kind about this table. Attribute 1 is always the table's
/// name.
fn of_table<'a>(received: &Message<'a>, table: Table, wanted: u16) -> Option<Attributes<'a>> {
    let (family, _, attributes) = received.nfgen()?;
    let is_same = kind(received)? == wanted
        && family == NFPROTO_INET
        && attributes.str(attr::TABLE_NAME)? == table.name;
    is_same.then_some(attributes)
}

/// A `NEWTABLE` of this table.
pub fn table(message: &Message<'_>, table: Table) -> Option<TableInfo> {
    let attributes = of_table(message, table, message::NEWTABLE)?;
    Some(TableInfo {
        flags: attributes.be32(attr::TABLE_FLAGS).unwrap_or(0),
        owner: attributes.be32(attr::TABLE_OWNER),
    })
}

/// A `NEWCHAIN` of this table.
pub fn chain(message: &Message<'_>, table: Table) -> Option<ChainInfo> {
    let attributes = of_table(message, table, message::NEWCHAIN)?;
    let hook = attributes.nested(attr::CHAIN_HOOK);
    let base = hook.be32(attr::HOOK_NUM).and_then(|number| {
        let priority = hook.be32(attr::HOOK_PRIORITY)?.cast_signed();
        let policy = attributes.be32(attr::CHAIN_POLICY)?;
        Some((number, priority, policy, string(attributes, attr::CHAIN_TYPE)?))
    });
    let flags = attributes.be32(attr::CHAIN_FLAGS).unwrap_or(0);
    Some(ChainInfo {
        name: string(attributes, attr::CHAIN_NAME)?,
        base,
        implicit: flags & CHAIN_BINDING != 0,
    })
}

/// A `NEWOBJ` of this table.
pub fn object(message: &Message<'_>, table: Table) -> Option<ObjectInfo> {
    let attributes = of_table(message, table, message::NEWOBJ)?;
    Some(ObjectInfo {
        name: string(attributes, attr::OBJ_NAME)?,
        kind: attributes.be32(attr::OBJ_TYPE)?,
    })
}

/// The name of a `NEWFLOWTABLE` of this table.
pub fn flowtable(message: &Message<'_>, table: Table) -> Option<String> {
    string(of_table(message, table, message::NEWFLOWTABLE)?, attr::FLOWTABLE_NAME)
}

/// A `NEWSET` of this table.
pub fn set(message: &Message<'_>, table: Table) -> Option<SetInfo> {
    let attributes = of_table(message, table, message::NEWSET)?;
    let number = |kind| attributes.be32(kind).unwrap_or(0);
    let size = attributes.nested(attr::SET_DESC).be32(attr::DESC_SIZE);
    let userdata = attributes.value(attr::SET_USERDATA);
    Some(SetInfo {
        name: string(attributes, attr::SET_NAME)?,
        flags: number(attr::SET_FLAGS),
        key_type: number(attr::SET_KEY_TYPE),
        key_len: number(attr::SET_KEY_LEN),
        size: size.filter(|size| *size > 0),
        count: attributes.be32(attr::SET_COUNT),
        timeout: milliseconds(attributes, attr::SET_TIMEOUT),
        expressions: expression(attributes.nested(attr::SET_EXPR)).into_iter().collect(),
        comment: user_string(userdata, SET_UDATA_COMMENT).map(str::to_owned),
    })
}

/// A `NEWRULE` of this table.
pub fn rule(message: &Message<'_>, table: Table) -> Option<RuleInfo> {
    let attributes = of_table(message, table, message::NEWRULE)?;
    let list = attributes.nested(attr::RULE_EXPRESSIONS);
    Some(RuleInfo {
        chain: string(attributes, attr::RULE_CHAIN)?,
        expressions: list.flat_map(|item| expressions(item.nested())).flatten().collect(),
    })
}

/// Passes each element of a `NEWSETELEM` about the set `id` to `take`.
pub fn elements(
    message: &Message<'_>,
    table: Table,
    id: SetSpec,
    mut take: impl FnMut(RawElement),
) {
    let Some(attributes) = of_table(message, table, message::NEWSETELEM) else { return };
    if attributes.str(attr::ELEMS_SET) == Some(id.name) {
        let list = attributes.nested(attr::ELEMS_ELEMENTS);
        list.filter_map(|item| element(item.nested(), id)).for_each(&mut take);
    }
}

fn element(attributes: Attributes<'_>, id: SetSpec) -> Option<RawElement> {
    let key = Key::parse(id.key, attributes.nested(attr::ELEM_KEY).value(attr::DATA_VALUE))?;
    let flags = attributes.be32(attr::ELEM_FLAGS).unwrap_or(0);
    // One expression comes by itself, several in a list: only a counter is read.
    let several = attributes.nested(attr::ELEM_EXPRESSIONS);
    let counter =
        attributes.get(attr::ELEM_EXPR).into_iter().chain(several).find_map(
            |one| match expression(one.nested()) {
                Some(Expr::Counter { packets, bytes }) => Some((packets, bytes)),
                _ => None,
            },
        );
    let (packets, bytes) = counter.unwrap_or((0, 0));
    let userdata = attributes.value(attr::ELEM_USERDATA);
    let timeout = milliseconds(attributes, attr::ELEM_TIMEOUT);
    Some(RawElement {
        interval_end: flags & ELEM_INTERVAL_END != 0,
        info: ElementInfo {
            key,
            end: None,
            timeout,
            // The kernel reports 0, or nothing, when no time is left.
            expires: timeout
                .map(|_| milliseconds(attributes, attr::ELEM_EXPIRATION).unwrap_or_default()),
            packets,
            bytes,
            comment: user_string(userdata, ELEM_UDATA_COMMENT).map(Box::from),
        },
    })
}

/// Verb and object of a message that was sent, for errors: (`add`, `set blocked`).
pub fn describe(message: &Message<'_>, schema: Schema) -> (&'static str, String) {
    let Some((_, _, attributes)) = message.nfgen() else { return ("send", "a message".to_owned()) };
    let name = |kind| string(attributes, kind).unwrap_or_default();
    match kind(message) {
        Some(message::NEWTABLE) => ("add", format!("table inet {}", name(attr::TABLE_NAME))),
        Some(message::GETTABLE) => ("read", format!("table inet {}", name(attr::TABLE_NAME))),
        Some(message::DELTABLE) => ("delete", format!("table inet {}", name(attr::TABLE_NAME))),
        Some(message::NEWCHAIN) => ("add", format!("chain {}", name(attr::CHAIN_NAME))),
        Some(message::GETCHAIN) => ("list", "chains".to_owned()),
        Some(message::DELCHAIN) => ("delete", format!("chain {}", name(attr::CHAIN_NAME))),
        Some(message::NEWRULE) => ("add", format!("rule of chain {}", name(attr::RULE_CHAIN))),
        Some(message::GETRULE) => ("list", "rules".to_owned()),
        Some(message::DELRULE) => ("delete", "rules".to_owned()),
        Some(message::NEWSET) => ("add", format!("set {}", name(attr::SET_NAME))),
        Some(message::GETSET) => ("list", "sets".to_owned()),
        Some(message::DELSET) => ("delete", format!("set {}", name(attr::SET_NAME))),
        Some(message::NEWSETELEM) => ("add", describe_elements(attributes, schema)),
        Some(message::GETSETELEM) => ("read", describe_elements(attributes, schema)),
        Some(message::DELSETELEM) => ("delete", describe_elements(attributes, schema)),
        Some(message::GETOBJ) => ("list", "stateful objects".to_owned()),
        Some(message::DELOBJ) => ("delete", format!("stateful object {}", name(attr::OBJ_NAME))),
        Some(message::GETFLOWTABLE) => ("list", "flowtables".to_owned()),
        Some(message::DELFLOWTABLE) => {
            ("delete", format!("flowtable {}", name(attr::FLOWTABLE_NAME)))
        }
        Some(message::GETGEN) => ("read", "generation".to_owned()),
        // BEGIN and END stand for the whole.
        _ => ("commit", "transaction".to_owned()),
    }
}

fn describe_elements(attributes: Attributes<'_>, schema: Schema) -> String {
    let set = string(attributes, attr::ELEMS_SET).unwrap_or_default();
    let spec = schema.set(&set);
    let mut keys = attributes.nested(attr::ELEMS_ELEMENTS);
    let first = keys.next().and_then(|item| {
        Key::parse(spec?.key, item.nested().nested(attr::ELEM_KEY).value(attr::DATA_VALUE))
    });
    let is_interval = spec.is_some_and(|spec| spec.interval);
    let more = keys.count();
    match first {
        None => format!("elements of set {set}"),
        Some(key) if more == 0 => format!("element {key} of set {set}"),
        Some(key) if more == 1 && is_interval => format!("element from {key} of set {set}"),
        Some(key) => format!("elements from {key} on of set {set}"),
    }
}

/// The id of a `NEWGEN`.
pub fn generation(message: &Message<'_>) -> Option<GenerationEvent> {
    if kind(message)? != message::NEWGEN {
        return None;
    }
    let (_, _, attributes) = message.nfgen()?;
    Some(GenerationEvent {
        id: attributes.be32(attr::GEN_ID)?,
        pid: attributes.be32(attr::GEN_PROC_PID).unwrap_or(0),
        program: string(attributes, attr::GEN_PROC_NAME).unwrap_or_default(),
    })
}

/// A message of the group NFNLGRP_NFTABLES; `None` if it is about other tables.
pub fn notification(message: &Message<'_>, schema: Schema) -> Option<Notification> {
    if let Some(event) = generation(message) {
        return Some(Notification::Generation(event));
    }
    let kind = kind(message)?;
    let attributes = of_table(message, schema.table, kind)?;
    Some(match kind {
        message::DELTABLE => Notification::TableDeleted,
        message::DELCHAIN => Notification::ChainDeleted(string(attributes, attr::CHAIN_NAME)?),
        message::DELSET => Notification::SetDeleted(string(attributes, attr::SET_NAME)?),
        message::DELRULE => {
            Notification::RuleDeleted { chain: string(attributes, attr::RULE_CHAIN)? }
        }
        message::DELSETELEM | message::NEWSETELEM => {
            match schema.set(&string(attributes, attr::ELEMS_SET)?) {
                Some(set) if kind == message::DELSETELEM => {
                    Notification::ElementsDeleted { set, keys: keys(attributes, set) }
                }
                Some(set) => Notification::ElementsAdded { set, keys: keys(attributes, set) },
                None => Notification::Added,
            }
        }
        message::NEWTABLE => Notification::TableAdded,
        message::NEWCHAIN
        | message::NEWSET
        | message::NEWRULE
        | message::NEWOBJ
        | message::NEWFLOWTABLE => Notification::Added,
        _ => return None,
    })
}

/// The keys of a list of elements of the set `id`; ends of intervals are left out.
fn keys(attributes: Attributes<'_>, id: SetSpec) -> Vec<Key> {
    attributes
        .nested(attr::ELEMS_ELEMENTS)
        .filter_map(|item| element(item.nested(), id))
        .filter(|element| !element.interval_end)
        .map(|element| element.info.key)
        .collect()
}

/// One expression of a rule: nft 1.1 writes one `range eq` where older ones, and `lower`, write two
/// comparisons.
fn expressions(attributes: Attributes<'_>) -> [Option<Expr>; 2] {
    match range(attributes) {
        Some(both) => both.map(Some),
        None => [expression(attributes), None],
    }
}

/// `enum nft_range_attributes`: 1 the register, 2 the operator (`NFT_RANGE_EQ` is 0), 3 and 4 the
/// first and the last value.
fn range(attributes: Attributes<'_>) -> Option<[Expr; 2]> {
    let data = attributes.nested(attr::EXPR_DATA);
    if attributes.str(attr::EXPR_NAME)? != "range" || data.be32(2)? != 0 {
        return None;
    }
    let sreg = data.be32(1)?;
    let value = |kind| Some(data.nested(kind).get(attr::DATA_VALUE)?.value.to_vec());
    Some([
        Expr::Cmp { sreg, op: Op::Ge, data: value(3)? },
        Expr::Cmp { sreg, op: Op::Le, data: value(4)? },
    ])
}

/// An expression from its name and data. What is not known, or not in this form, is
/// [`Expr::Foreign`].
fn expression(attributes: Attributes<'_>) -> Option<Expr> {
    let name = attributes.str(attr::EXPR_NAME)?;
    let data = attributes.nested(attr::EXPR_DATA);
    Some(
        known(name, data)
            .unwrap_or_else(|| Expr::Foreign { name: name.to_owned(), data: data.0.to_vec() }),
    )
}

/// The numbers are those of the expression's own attributes, in nf_tables.h.
fn known(name: &str, data: Attributes<'_>) -> Option<Expr> {
    let number = |kind| data.be32(kind);
    let value = |kind| Some(data.nested(kind).get(attr::DATA_VALUE)?.value.to_vec());
    Some(match name {
        "meta" => {
            let key = number(2)?;
            Expr::Meta {
                key: MetaKey::ALL.into_iter().find(|known| *known as u32 == key)?,
                dreg: number(1)?,
            }
        }
        "payload" => Expr::Payload {
            base: match number(2)? {
                1 => PayloadBase::Network,
                2 => PayloadBase::Transport,
                _ => return None,
            },
            offset: number(3)?,
            len: number(4)?,
            dreg: number(1)?,
        },
        "ct" => {
            let (number_of_key, direction) = (number(2)?, data.get(3).and_then(|value| value.u8()));
            let is_key = |key: &CtKey| *key as u32 == number_of_key && key.direction() == direction;
            Expr::Ct { key: CtKey::ALL.into_iter().find(is_key)?, dreg: number(1)? }
        }
        "fib" if number(2)? == FIB_ADDRTYPE => Expr::FibType {
            saddr: match number(3)? {
                FIB_SADDR => true,
                FIB_DADDR => false,
                _ => return None,
            },
            dreg: number(1)?,
        },
        "socket" if number(1)? == 0 => Expr::SocketTransparent { dreg: number(2)? },
        "numgen" if number(3)? == 1 && number(4).unwrap_or(0) == 0 => {
            Expr::Random { modulus: number(2)?, dreg: number(1)? }
        }
        "reject" if number(1)? == 1 => Expr::RejectTcp,
        // NFT_BITWISE_BOOL is 0; kernels before 5.6 know no other and do not say it.
        "bitwise" if number(6).unwrap_or(0) == 0 => {
            Expr::Bitwise { sreg: number(1)?, dreg: number(2)?, mask: value(4)?, xor: value(5)? }
        }
        "cmp" => {
            let op = number(2)?;
            Expr::Cmp {
                sreg: number(1)?,
                op: Op::ALL.into_iter().find(|known| *known as u32 == op)?,
                data: value(3)?,
            }
        }
        // With a destination register it is a map.
        "lookup" if data.get(3).is_none() => Expr::Lookup {
            set: string(data, 1)?,
            sreg: number(2)?,
            invert: number(5).unwrap_or(0) & 1 != 0,
        },
        // With data it is a map; several expressions are never written here.
        "dynset" if data.get(5).is_none() && data.get(10).is_none() => Expr::Dynset {
            update: match number(3)? {
                0 => false,
                1 => true,
                _ => return None,
            },
            set: string(data, 1)?,
            sreg_key: number(4)?,
            timeout: milliseconds(data, 6),
            each: limit_of(data.get(7))?,
        },
        "counter" => Expr::Counter { packets: data.be64(2)?, bytes: data.be64(1)? },
        "log" => Expr::Log {
            prefix: string(data, 2).unwrap_or_default(),
            group: data.be16(1)?,
            snaplen: number(3).unwrap_or(0),
            qthreshold: data.be16(4).unwrap_or(0),
        },
        // With a source register the packet says which queue.
        "queue" if data.get(4).is_none() => Expr::Queue {
            number: data.be16(1)?,
            total: data.be16(2).unwrap_or(1),
            flags: data.be16(3).unwrap_or(0),
        },
        "target" => Expr::Target {
            name: string(data, 1)?,
            revision: number(2)?,
            info: data.get(3)?.value.to_vec(),
        },
        "limit" => limit_over(data)?,
        "tproxy" => {
            let family = number(1)?;
            Expr::Tproxy {
                family: [NFPROTO_IPV4, NFPROTO_IPV6]
                    .into_iter()
                    .find(|known| u32::from(*known) == family)?,
                address: number(2)?,
                port: number(3)?,
            }
        }
        "immediate" if number(1)? != 0 => Expr::Immediate { dreg: number(1)?, data: value(2)? },
        "immediate" if number(1)? == 0 => {
            Expr::Verdict(verdict(data.nested(2).nested(attr::DATA_VERDICT))?)
        }
        _ => return None,
    })
}

/// Only the form that is written here: packets, inverted.
fn limit_over(data: Attributes<'_>) -> Option<Expr> {
    let number = |kind| data.be32(kind).unwrap_or(0);
    let seconds = data.be64(2)?;
    let per = Unit::ALL.into_iter().find(|unit| unit.seconds() == seconds)?;
    let is_known = number(4) == 0 && number(5) == LIMIT_INVERT;
    is_known.then_some(Expr::LimitOver { rate: data.be64(1)?, per, burst: number(3) })
}

/// The limit that each element of a dynamic set gets: `Some(None)` if there is none, `None` if it
/// is something else. No deeper than that: what others have nested here is not followed.
fn limit_of(each: Option<Attribute<'_>>) -> Option<Option<Box<Expr>>> {
    let Some(each) = each else { return Some(None) };
    let is_limit = each.nested().str(attr::EXPR_NAME)? == "limit";
    let limit = limit_over(each.nested().nested(attr::EXPR_DATA))?;
    is_limit.then(|| Some(Box::new(limit)))
}

fn verdict(attributes: Attributes<'_>) -> Option<VerdictCode> {
    let chain = || string(attributes, attr::VERDICT_CHAIN);
    Some(match attributes.be32(attr::VERDICT_CODE)? {
        0 => VerdictCode::Drop,
        1 => VerdictCode::Accept,
        VERDICT_RETURN => VerdictCode::Return,
        VERDICT_JUMP => VerdictCode::Jump(chain()?),
        VERDICT_GOTO => VerdictCode::Goto(chain()?),
        _ => return None,
    })
}

fn string(attributes: Attributes<'_>, kind: u16) -> Option<String> {
    attributes.str(kind).map(str::to_owned)
}

/// A duration; 0 is none.
fn milliseconds(attributes: Attributes<'_>, kind: u16) -> Option<Duration> {
    attributes.be64(kind).filter(|time| *time > 0).map(Duration::from_millis)
}

/// The text of a type in userdata: type, length, value, one after the other (libnftnl/udata.h).
fn user_string(mut userdata: &[u8], wanted: u8) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == wanted {
            return std::str::from_utf8(value.split(|byte| *byte == 0).next().unwrap_or_default())
                .ok();
        }
        userdata = rest;
    }
    None
}

#[cfg(test)]
mod tests;
