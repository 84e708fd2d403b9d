//! The model, expressions and elements written as netlink messages of nf_tables
//! (linux/netfilter/nf_tables.h). Pure: bytes into a [`Writer`](crate::netlink::message::Writer).
//!
//! Each function writes one message, but for those that take any number of elements. Order within a
//! transaction, and what is acknowledged, is the caller's to decide.

mod batch;
mod comment;
mod elements;
mod expression;
mod objects;

pub use batch::{begin, end, get_generation, of_table};
pub use elements::{
    Counters, Elements, Past, add_again, add_ranges, delete_all, dump_set, flush_set,
};
pub(super) use expression::expression;
pub use objects::{
    delete_chain, delete_flowtable, delete_object, delete_set, flush_rules, key_len, key_type,
    new_chain, new_rule, new_set, new_table, set_flags,
};

pub use super::numbers::{NFPROTO_INET, SUBSYSTEM, message, set_flag, table_flag};
