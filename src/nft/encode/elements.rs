//! Elements into sets and out of them, in as many messages as they need.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::batch::open;
use super::comment::write_comment;
use super::expression::{data, expression, milliseconds};
use crate::netlink::message::{NLM_F_CREATE, NLM_F_DUMP, Open, Writer};
use crate::nft::element::{COMMENT_MAX, Element, ElementInfo, Key};
use crate::nft::expr::Expr;
use crate::nft::model::Set;
use crate::nft::numbers::{
    ELEM_INTERVAL_END, ELEM_UDATA_COMMENT, ELEM_UDATA_FLAGS, INTERVAL_OPEN, attr, message,
};
use crate::nft::schema::{SetSpec, Table};

/// Bytes of an element list in one message: well below the 65,535 that the attribute's length can
/// say.
const LIST_MAX: usize = 60_000;

/// Counter and remaining time of an element that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// Packets and bytes counted.
    pub counter: Option<(u64, u64)>,
    /// What is left of the timeout, if less than the whole.
    pub expires: Option<Duration>,
}

impl Past {
    /// For an element that is new in its set.
    pub fn new(set: SetSpec) -> Self {
        Self { counter: set.element_counters.then_some((0, 0)), expires: None }
    }
}

/// A list of elements being written: [`Elements::begin`], [`Elements::push`] each,
/// [`Elements::end`].
#[must_use = "the message has to be ended"]
pub struct Elements {
    message: Open,
    list: Open,
    id: SetSpec,
}

impl Elements {
    /// Starts a message: `kind` is NEWSETELEM, GETSETELEM or DELSETELEM.
    pub fn begin(
        out: &mut Writer,
        table: Table,
        sequence: u32,
        kind: u16,
        flags: u16,
        id: SetSpec,
    ) -> Self {
        let message = open(out, kind, flags, sequence);
        out.attr_str(attr::ELEMS_SET, id.name);
        out.attr_str(attr::ELEMS_TABLE, table.name);
        let list = out.begin_nest(attr::ELEMS_ELEMENTS);
        Self { message, list, id }
    }

    /// Writes an element; in sets of intervals, its start and its end.
    pub fn push(&self, out: &mut Writer, element: &Element<'_>, past: Past) {
        let is_interval = self.id.interval;
        let after = if is_interval { element.last().successor() } else { None };
        let nest = self.key(out, element.key);
        if let Some(timeout) = element.timeout {
            out.attr_be64(attr::ELEM_TIMEOUT, milliseconds(timeout));
            if let Some(expires) = past.expires {
                // The kernel takes 0 for no timeout.
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
pub fn flush_set(out: &mut Writer, table: Table, sequence: u32, name: &str) {
    let message = open(out, message::DELSETELEM, 0, sequence);
    out.attr_str(attr::ELEMS_TABLE, table.name);
    out.attr_str(attr::ELEMS_SET, name);
    out.end_message(message);
}

/// Asks for every element of a set.
pub fn dump_set(out: &mut Writer, table: Table, sequence: u32, id: SetSpec) {
    let message = open(out, message::GETSETELEM, NLM_F_DUMP, sequence);
    out.attr_str(attr::ELEMS_TABLE, table.name);
    out.attr_str(attr::ELEMS_SET, id.name);
    out.end_message(message);
}

/// The ranges as elements without timeout, in as many messages as they need.
pub fn add_ranges(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    id: SetSpec,
    ranges: &[RangeInclusive<Key>],
) {
    add_all(
        out,
        table,
        sequence,
        id,
        ranges.iter().map(|range| (Element::range(range), Past::default())),
    );
}

/// Which counters restored elements are written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counters {
    /// All, with their last values.
    Now,
    /// Those that the set defines. Where each element has its own ([`SetSpec::element_counters`]),
    /// they follow in a later transaction.
    Later,
}

/// Elements that were in the kernel before, with their remaining time, and their counters if the
/// set still counts.
pub fn add_again(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    set: &Set,
    elements: &[ElementInfo],
    counters: Counters,
) {
    let again = elements.iter().map(|info| {
        let timeout = info.timeout.filter(|_| set.timeouts);
        let element =
            Element { key: info.key, end: info.end, timeout, comment: info.comment.as_deref() };
        // A set with a counter creates one for each element; sending one with value zero costs the
        // kernel a look-up by name each.
        let has_counted = set.counter && (info.packets, info.bytes) != (0, 0);
        let has_own = set.id.element_counters && counters == Counters::Now;
        (
            element,
            Past {
                counter: (has_counted || has_own).then_some((info.packets, info.bytes)),
                expires: info.expires,
            },
        )
    });
    add_all(out, table, sequence, set.id, again);
}

/// Takes elements out, in as many messages as they need.
pub fn delete_all(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    id: SetSpec,
    elements: &[ElementInfo],
) {
    write_all(
        out,
        table,
        sequence,
        (message::DELSETELEM, 0),
        id,
        elements.iter().map(|info| {
            (Element { end: info.end, ..Element::key_only(info.key) }, Past::default())
        }),
    );
}

fn add_all<'a>(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    id: SetSpec,
    elements: impl Iterator<Item = (Element<'a>, Past)>,
) {
    write_all(out, table, sequence, (message::NEWSETELEM, NLM_F_CREATE), id, elements);
}

fn write_all<'a>(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    (kind, flags): (u16, u16),
    id: SetSpec,
    elements: impl Iterator<Item = (Element<'a>, Past)>,
) {
    let mut list: Option<Elements> = None;
    for (element, past) in elements {
        let current = list.take().unwrap_or_else(|| {
            let list = Elements::begin(out, table, *sequence, kind, flags, id);
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
