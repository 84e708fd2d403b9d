//! The listener of two NFQUEUE queues, whose packets wait in the kernel for our verdict.
//!
//! Follows linux/netfilter/nfnetlink_queue.h and the kernel's nfnetlink_queue.c. The decoder
//! accepts any bytes: they give packets or are counted as malformed. Nothing here waits, and no
//! packet causes an allocation.
//!
//! There are two queues because they must fail in different ways. Probes of closed ports wait in
//! queue N. If it is full or not bound, the probe gets its rule's default: where closed ports do
//! not answer, the kernel drops and counts it. New connections of suspects to open ports wait in
//! queue N+1, which must never cost a connection: if it is full it lets them pass, and without a
//! listener the rule's `bypass` does. So a flood of probes cannot let a suspect's connections
//! through. Both queues use one socket, so that a connection is evaluated after the probes that
//! arrived before it.
//!
//! Losses: a packet whose message does not fit the receive buffer uses up a number, so the gaps in
//! each queue's numbers are exact. A packet that finds its queue full has no number: for queue N
//! the kernel counts it (`queue_dropped` in /proc/net/netfilter/nfnetlink_queue) where probes are
//! dropped; packets that pass because a queue is full are not counted. The queues are only as long
//! as the receive buffer allows, so that messages fit while the queues have room.
//!
//! `listener` has the socket, `counters` decodes and counts, `message` has the formats,
//! `queue_status` reads the kernel's own counts.

mod counters;
mod listener;
mod message;
mod queue_status;

pub use counters::Counters;
pub use listener::{Listener, Settings};
pub use message::{Kind, decode};
pub use queue_status::{QueueStatus, queue_status};
