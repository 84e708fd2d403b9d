//! The detection engine: counts the ports and addresses that each source touches, decides what to block, and
//! keeps the list of blocks.
//!
//! Pure: no clock, socket, file, log call or lock. Time comes in as [`MonoTime`], the hash seed as
//! an argument; [`Action`]s go out, and the kernel's answer comes back as [`Outcome`]. The daemon,
//! the tests and the benchmarks run the same code.
//!
//! ```text
//!  Probe --> ledger (ports per source) --> decision --> blocks (orders, timers) --Action--> ...
//!                                         ^ policy, allow list           ^--------Outcome-- ...
//! ```

mod account;
mod action;
mod allowlist;
mod blocks;
mod campaigns;
mod core;
mod decision;
mod detail;
mod entry;
mod flood;
mod ledger;
mod lists;
mod longterm;
mod many;
mod observed;
mod offenders;
mod policy;
mod reason;
mod refusal;
mod slab;
mod slowed;
mod source;
mod status;
mod sweeps;
mod timers;

pub use crate::time::MonoTime;

pub use self::core::Engine;
pub use self::core::manual::Unblocked;
pub use action::{Action, Ending, Outcome, Report, SlowEnding, SlowedPackets};
pub use allowlist::AllowList;
pub use campaigns::{CampaignView, Shared};
pub use decision::{ConnectionVerdict, NotBlocked, Trigger};
pub use detail::Detail;
pub use entry::{Adopted, BlockView};
pub use ledger::{CAPACITY, NEWCOMER_BYTES, PORT_BYTES_MAX, TRIGGER_MAX, suspect_bytes};
pub use lists::{LIST_NAME_MAX, LISTS_MAX, ListName, ListView, Listed, NoListName, OnList};
pub use longterm::LongTermBits;
pub(crate) use many::MANY;
pub use observed::{OBSERVED_MAX, ObservedView, WouldBe};
pub use offenders::{OFFENDERS_MAX, Offender};
pub use policy::Policy;
pub use reason::{COMMENT_MAX, Reason};
pub use refusal::Refusal;
pub use slowed::{ProofView, SLOWED_BYTES, SLOWED_MAX, SlowedView};
pub use source::{Source, nat64, widened};
pub use status::{AccountView, Evidence, Seen, Status, TouchView, Trace, TraceTouch, Weight};
pub use sweeps::{SOURCES, SWEEP_TRIGGER_MAX};
