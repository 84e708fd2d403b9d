//! How messages begin, and those that are about a whole: a transaction, the table, the ruleset's
//! generation.

use crate::netlink::message::{NLM_F_REQUEST, Open, Writer};
use crate::nft::numbers::{BATCH_BEGIN, BATCH_END, NFPROTO_INET, SUBSYSTEM, attr, message};
use crate::nft::schema::Table;

/// `BATCH_BEGIN`; with `generation`, the transaction fails with ERESTART if the ruleset has changed
/// since that generation.
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

pub(super) fn open(out: &mut Writer, kind: u16, flags: u16, sequence: u32) -> Open {
    let open = out.begin_message((SUBSYSTEM << 8) | kind, NLM_F_REQUEST | flags, sequence);
    out.nfgenmsg(NFPROTO_INET, 0);
    open
}

/// A message whose only attribute is the table's name, which is attribute 1 of every request about
/// a whole table.
pub fn of_table(out: &mut Writer, table: Table, kind: u16, flags: u16, sequence: u32) {
    let message = open(out, kind, flags, sequence);
    out.attr_str(attr::TABLE_NAME, table.name);
    out.end_message(message);
}

/// Asks for the generation of the ruleset.
pub fn get_generation(out: &mut Writer, sequence: u32) {
    let message = open(out, message::GETGEN, 0, sequence);
    out.end_message(message);
}
