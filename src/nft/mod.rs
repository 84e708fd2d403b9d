//! A codec and a connection for nf_tables that know no particular table: the ruleset as a typed
//! model, its two renderings, and the way into the kernel.
//!
//! ```text
//!   Ruleset --render--> text                                     (nft -f)
//!      |
//!    lower --> expr --encode--> bytes --conn--> kernel
//!                ^                                 |
//!                +--- plan <--- decode <-----------+             read back and compared
//! ```
//!
//! * [`model`]: sets, chains, rules, statements. A [`Schema`] names a table and the keys of its
//!   sets.
//! * [`text`]: the model as `nft -f` loads it. `lower` and `expr`: the model as kernel expressions.
//!   Two exhaustive matches over one model.
//! * [`encode`] and [`decode`]: netlink attributes, written and read; `numbers` has the kernel's
//!   constants for both. Decoding is total: no input makes it panic.
//! * [`conn`]: transactions, elements, dumps. [`plan`]: the fewest steps from what the kernel has
//!   to what is wanted. [`install`] carries them out.
//! * [`monitor`]: notifications of changes that other processes make.
//!
//! Never here: what a ruleset is for, a table that the schema does not name, spawning `nft`.
//! Follows linux/netfilter/nf_tables.h and nft(8).

pub(crate) mod conn;
pub mod decode;
pub mod element;
pub mod encode;
mod error;
pub mod expr;
pub(crate) mod feature;
pub(crate) mod install;
pub mod lower;
pub mod model;
pub(crate) mod monitor;
mod numbers;
pub mod plan;

#[cfg(test)]
mod sample;
mod schema;
mod step;
pub mod text;

pub use conn::{Connection, LIGHT_DUMP};
pub use decode::{GenerationEvent, Notification};
pub use element::{Element, ElementInfo, Key, TIMEOUT_DAYS_MAX};
pub use error::Error;
pub use expr::Expr;
pub use install::{Elements, Fallback, FallbackLevel, Filling, Installed, Order};
pub use model::{Chain, QueueBy, Rule, Ruleset, Set, Statement};
pub use monitor::{Monitor, Received};
pub use plan::TableOwner;
pub use schema::{DataType, Schema, SetSpec, Table};
pub use step::Step;
