//! Who scans, and what follows from it.
//!
//! Pure: no clock, socket, file, log call or lock. Time comes in as [`Moment`], the hash seed as an argument; [`Action`]s go out, and the
//! kernel's answer comes back as [`Outcome`]. The daemon, the tests and the benchmarks run the same code.

mod action;
mod moment;
mod reason;
mod source;

pub use action::{Action, Ending, Outcome, Report};
pub use moment::Moment;
pub use reason::Reason;
pub use source::{Source, Subject};
