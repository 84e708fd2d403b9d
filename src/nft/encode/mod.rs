//! The model, expressions and elements written as netlink messages of nf_tables
//! (linux/netfilter/nf_tables.h). Pure: bytes into a [`Writer`](crate::netlink::message::Writer).
//!
//! Each method of [`Batch`] writes one message, but for those that take any number of elements. Order
//! within a transaction, and what is acknowledged, is the caller's to decide.

mod batch;
mod comment;
mod elements;
mod expression;
mod objects;

pub use batch::Batch;
pub use elements::Past;
pub use objects::{key_len, key_type, set_flags};

pub use super::numbers::{NFPROTO_INET, SUBSYSTEM, message, set_flag, table_flag};
