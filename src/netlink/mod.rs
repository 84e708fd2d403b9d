//! Netlink messages and sockets, and the families other than nf_tables.
//!
//! * [`message`]: encodes and decodes messages and attributes.
//! * [`socket`]: a non-blocking socket that accepts messages from the kernel only.
//! * [`dump`]: requests with multipart answers, and orders.
//! * [`conntrack`]: deletes tracked connections.
//! * [`route`]: own addresses, next hops, and notifications of their changes (rtnetlink(7)).
//! * [`sock_diag`]: listening sockets and established connections (sock_diag(7)).
//! * [`logins`]: peers whose connections have logged in.

pub mod conntrack;
pub(crate) mod dump;
pub mod logins;
pub mod message;
pub mod route;
pub mod sock_diag;
pub(crate) mod socket;
