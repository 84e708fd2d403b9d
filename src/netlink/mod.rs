//! The ground: netlink messages, sockets, and the families that are not nf_tables.
//!
//! * [`message`]: messages and attributes, written and read.
//! * [`socket`]: a socket, non-blocking.
//! * [`dump`]: one question, many answers.
//! * [`route`]: own addresses, next hops, and word of their changes (rtnetlink(7)).
//! * [`sock_diag`]: who listens here, and who is connected (sock_diag(7)).
//! * [`long_peers`]: which peers have been connected for long.

pub mod dump;
pub mod long_peers;
pub mod message;
pub mod route;
pub mod sock_diag;
pub mod socket;
