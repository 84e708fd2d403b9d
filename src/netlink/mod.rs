//! The ground: netlink messages, sockets, and the families that are not nf_tables.

pub mod message;
pub mod socket;
