//! How messages begin, and those that are about a whole: a transaction, the table, the ruleset's
//! generation.

use crate::netlink::message::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, Open, Writer};
use crate::nft::numbers::{NFPROTO_INET, SUBSYSTEM, attr, message};

/// Messages about one table, numbered one after the other.
pub struct Batch<'a> {
    pub(super) out: &'a mut Writer,
    pub(super) table: &'a str,
    sequence: u32,
}

impl<'a> Batch<'a> {
    /// Appends to `out`; the first message has this number.
    pub fn new(out: &'a mut Writer, table: &'a str, sequence: u32) -> Self {
        Self { out, table, sequence }
    }

    /// The number of the next message.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    fn number(&mut self) -> u32 {
        let number = self.sequence;
        self.sequence = number.wrapping_add(1);
        number
    }

    /// `BATCH_BEGIN` or `BATCH_END`; with `generation`, the transaction fails with ERESTART if the
    /// ruleset has changed since that generation.
    pub(in crate::nft) fn boundary(&mut self, kind: u16, generation: Option<u32>) {
        let number = self.number();
        let message = self.out.begin_message(kind, NLM_F_REQUEST, number);
        self.out.nfgenmsg(0, SUBSYSTEM);
        if let Some(generation) = generation {
            self.out.attr_be32(attr::GEN_ID, generation); // NFNL_BATCH_GENID has the same number
        }
        self.out.end_message(message);
    }

    pub(super) fn open(&mut self, kind: u16, flags: u16) -> Open {
        let number = self.number();
        let kind = (SUBSYSTEM << 8) | kind;
        let message = self.out.begin_message(kind, NLM_F_REQUEST | flags, number);
        self.out.nfgenmsg(NFPROTO_INET, 0);
        message
    }

    /// Begins a message with the table's name, which is attribute 1 of every request but those of
    /// generations.
    pub(super) fn open_of_table(&mut self, kind: u16, flags: u16) -> Open {
        let message = self.open(kind, flags);
        self.out.attr_str(attr::TABLE_NAME, self.table);
        message
    }

    /// A message whose only attribute is the table's name.
    pub fn of_table(&mut self, kind: u16, flags: u16) {
        let message = self.open_of_table(kind, flags);
        self.out.end_message(message);
    }

    /// A message about the object with this name, which is attribute `attribute`.
    pub fn of_object(&mut self, kind: u16, flags: u16, attribute: u16, name: &str) {
        let message = self.open_of_table(kind, flags);
        self.out.attr_str(attribute, name);
        self.out.end_message(message);
    }

    /// Asks for the acknowledgement of a transaction; changes nothing.
    pub fn acknowledge(&mut self) {
        self.of_table(message::NEWTABLE, NLM_F_CREATE | NLM_F_ACK);
    }

    /// Asks for the generation of the ruleset.
    pub fn get_generation(&mut self) {
        let message = self.open(message::GETGEN, 0);
        self.out.end_message(message);
    }
}
