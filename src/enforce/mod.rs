//! What the engine wants, made true in the kernel and kept true there.
//!
//! ```text
//!   engine --Action--> executor ------------------------------> nftables sets
//!                         ^                                        |
//!   store, reload --> reconcile --Step--> engine, backlog          |
//!                         ^                                        |
//!                       repair <------ notifications, dumps -------+
//! ```
//!
//! * `element`: a block as an element and back. `networks`: overlapping networks as
//!   disjoint intervals.
//! * `reconcile`: wanted, present and origin give steps: pure. `enforcer`: carries steps and the
//!   engine's actions out, by the `executor`.
//! * `start`: rules and blocks as a whole. `backlog`: what follows in pieces. `exempt`: the
//!   never-block list in the kernel. `many`: several blocks and named lists. `services`: the ports of services there.
//! * `repair`: what other programs did, from notifications (`change`) and from reading; `drift` is
//!   its state, `fight` tells when they do it again and again.
//! * `kernel`: what all this needs of nf_tables. [`view`]: the sets as lists show them.
//!   [`slowed_packets`]: what became of the packets of slowed sources.
//!
//! Never here: who scans (the engine's), a file, a name, a wait for anything but netlink.

mod backlog;
pub(crate) mod blocked_packets;
mod change;
mod drift;
mod element;
mod enforcer;
mod executor;
mod exempt;
mod fight;
mod kernel;
mod many;
mod networks;
mod reconcile;
mod repair;
mod services;
pub(crate) mod slowed_packets;
mod start;
pub(crate) mod view;

pub use change::Change;
pub use drift::{Drift, Repairs};
pub use element::{BLOCKED, HOSTS, Place, Placement};
pub use enforcer::{BlockError, Enforcer, Hold, Observer, UnblockedAll};
pub use kernel::{Author, Dump, Kernel, News, Nftables, Wanted};
pub use many::{LiftedPart, ManyReason, Several};
pub use services::Services;
pub use start::{Earlier, InForce};
pub(crate) use start::{former_group, is_foreign};
