//! Elements into sets and out of them, in as many messages as they need.

use std::borrow::Borrow;
use std::time::Duration;

use super::batch::Batch;
use super::comment::write_comment;
use super::expression::{data, expression, milliseconds};
use crate::netlink::message::{NLM_F_CREATE, Open};
use crate::nft::element::{COMMENT_MAX, Element, ElementInfo, Key};
use crate::nft::expr::Expr;
use crate::nft::model::Set;
use crate::nft::numbers::{
    ELEM_INTERVAL_END, ELEM_UDATA_COMMENT, ELEM_UDATA_FLAGS, INTERVAL_OPEN, attr, message,
};
use crate::nft::schema::SetSpec;

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

impl Batch<'_> {
    /// Adds, reads or deletes elements: `kind` is NEWSETELEM, GETSETELEM or DELSETELEM.
    pub fn elements<'e>(
        &mut self,
        (kind, flags): (u16, u16),
        set: SetSpec,
        elements: impl IntoIterator<Item = (Element<'e>, Past)>,
    ) {
        self.lists((kind, flags), set, elements, |batch, (element, past)| {
            batch.element(set, &element, past);
        });
    }

    /// The same with elements of another form, each of which `write` writes.
    fn lists<T>(
        &mut self,
        (kind, flags): (u16, u16),
        set: SetSpec,
        elements: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let message = self.open(kind, flags);
            self.out.attr_str(attr::ELEMS_SET, set.name);
            self.out.attr_str(attr::ELEMS_TABLE, self.table);
            let list = self.out.begin_nest(attr::ELEMS_ELEMENTS);
            while self.out.nest_len(list) <= LIST_MAX
                && let Some(element) = elements.next()
            {
                write(self, element);
            }
            self.out.end_nest(list);
            self.out.end_message(message);
        }
    }

    /// Writes an element; in sets of intervals, its start and its end.
    fn element(&mut self, set: SetSpec, element: &Element<'_>, past: Past) {
        let after = if set.interval { element.last().successor() } else { None };
        let nest = self.key(element.key);
        let out = &mut *self.out;
        if let Some(timeout) = element.timeout {
            out.attr_be64(attr::ELEM_TIMEOUT, milliseconds(timeout));
            if let Some(expires) = past.expires {
                // The kernel takes 0 for no timeout.
                out.attr_be64(attr::ELEM_EXPIRATION, milliseconds(expires.min(timeout)).max(1));
            }
        }
        let mut userdata = Vec::with_capacity(2 + COMMENT_MAX + 1 + 6);
        if let Some(comment) = element.comment.filter(|comment| !comment.is_empty()) {
            write_comment(ELEM_UDATA_COMMENT, comment, &mut userdata);
        }
        if set.interval && after.is_none() {
            userdata.extend([ELEM_UDATA_FLAGS, 4]);
            userdata.extend(INTERVAL_OPEN.to_ne_bytes());
        }
        if !userdata.is_empty() {
            out.attr(attr::ELEM_USERDATA, &userdata);
        }
        if let Some((packets, bytes)) = past.counter {
            let counter = out.begin_nest(attr::ELEM_EXPR);
            expression(out, &Expr::Counter { packets, bytes });
            out.end_nest(counter);
        }
        out.end_nest(nest);
        if let Some(after) = after {
            let nest = self.key(after);
            self.out.attr_be32(attr::ELEM_FLAGS, ELEM_INTERVAL_END);
            self.out.end_nest(nest);
        }
    }

    fn key(&mut self, key: Key) -> Open {
        let nest = self.out.begin_nest(attr::LIST_ELEM);
        let (bytes, length) = key.bytes();
        data(self.out, attr::ELEM_KEY, bytes.get(..length).unwrap_or_default());
        nest
    }

    /// Deletes elements, of which only the keys count.
    pub fn delete<'e>(
        &mut self,
        flags: u16,
        set: SetSpec,
        elements: impl IntoIterator<Item = Element<'e>>,
    ) {
        let keys = elements
            .into_iter()
            .map(|element| (Element { timeout: None, comment: None, ..element }, Past::default()));
        self.elements((message::DELSETELEM, flags), set, keys);
    }

    /// Adds the elements of the model, without timeout.
    pub fn add_ranges(&mut self, set: &Set) {
        let ranges = set.elements.iter().map(|range| (Element::range(range), Past::default()));
        self.elements((message::NEWSETELEM, NLM_F_CREATE), set.id, ranges);
    }

    /// Adds elements that were in the kernel before, with their remaining time, and their counters
    /// if the set still counts.
    pub fn add_again(
        &mut self,
        set: &Set,
        elements: impl IntoIterator<Item = impl Borrow<ElementInfo>>,
    ) {
        self.lists((message::NEWSETELEM, NLM_F_CREATE), set.id, elements, |batch, info| {
            let info = info.borrow();
            let timeout = info.timeout.filter(|_| set.timeouts);
            // A set with a counter creates one for each element; sending one with value zero costs
            // the kernel a look-up by name each.
            let has_counted = set.counter && (info.packets, info.bytes) != (0, 0);
            let counter = has_counted.then_some((info.packets, info.bytes));
            let past = Past { counter, expires: info.expires };
            batch.element(set.id, &info.element().timeout(timeout), past);
        });
    }
}
