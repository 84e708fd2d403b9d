//! Netlink requests that change elements.

use crate::netlink::message::{NLM_F_ACK, NLM_F_CREATE, Writer};
use crate::nft::element::Element;
use crate::nft::encode::{Elements, Past};
use crate::nft::numbers::message;
use crate::nft::schema::{SetSpec, Table};

pub(super) fn one(
    out: &mut Writer,
    table: Table,
    sequence: u32,
    (kind, flags): (u16, u16),
    set: SetSpec,
    element: &Element<'_>,
    past: Past,
) {
    let list = Elements::begin(out, table, sequence, kind, flags, set);
    list.push(out, element, past);
    list.end(out);
}

/// For a deletion, only keys count.
pub(super) fn delete(
    out: &mut Writer,
    table: Table,
    sequence: u32,
    flags: u16,
    set: SetSpec,
    element: &Element<'_>,
) {
    one(
        out,
        table,
        sequence,
        (message::DELSETELEM, flags),
        set,
        &Element { timeout: None, comment: None, ..*element },
        Past::default(),
    );
}

/// Elements in as many messages as they need, each acknowledged: they are few.
pub(super) fn write_elements(
    out: &mut Writer,
    table: Table,
    sequence: &mut u32,
    set: SetSpec,
    elements: &[Element<'_>],
) {
    let mut left = elements.iter().peekable();
    while left.peek().is_some() {
        let list = Elements::begin(
            out,
            table,
            *sequence,
            message::NEWSETELEM,
            NLM_F_CREATE | NLM_F_ACK,
            set,
        );
        for element in left.by_ref() {
            list.push(out, element, Past::new(set));
            if list.is_full(out) {
                break;
            }
        }
        list.end(out);
        if left.peek().is_some() {
            *sequence = sequence.wrapping_add(1);
        }
    }
}
