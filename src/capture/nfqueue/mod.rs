//! A listener of two NFQUEUE queues: binds them, hands out the packets that wait there, and tells the kernel what becomes of each.
//!
//! Follows linux/netfilter/nfnetlink_queue.h and the kernel's nfnetlink_queue.c. The decoder is total: any bytes give packets, or are counted as
//! malformed. Nothing here waits, and nothing is allocated for a packet.
//!
//! Two queues, because they fail in two ways. Probes of closed ports wait in queue N. If it is full, or nobody listens, a probe meets what its
//! rule would do to it anyway: where closed ports do not answer, the kernel drops it and counts it. New connections of suspects to open ports
//! wait in queue N+1, which never costs anybody a connection: full, it lets them pass; without a listener, the rule's `bypass` does. So a flood
//! of probes cannot open the way for a suspect's connections. Both come over one socket, in the order in which the packets came: no connection
//! is judged before the probes that came before it.
//!
//! What is lost. A packet whose message does not fit the receive buffer has used up a number: the gaps in each queue's numbers are such
//! packets, exactly. A packet that finds a queue full has no number: for queue N the kernel counts it (`queue_dropped` in
//! /proc/net/netfilter/nfnetlink_queue), exactly, where probes are dropped; of those that pass because a queue is full the kernel keeps no count.
//! The queues are only as long as the receive buffer bears, so that messages fit while there is room in the queues.
//!
//! `listener` has the socket; `counters` takes apart what comes by it and says what is to be sent; `message` is the form of both; `standing` is
//! the kernel's own view of the queues.

mod counters;
mod listener;
mod message;
mod standing;

pub use counters::Counters;
pub use listener::{Listener, Settings};
pub use message::{Kind, decode};
pub use standing::{Standing, standing};
