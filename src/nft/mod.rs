//! Everything nf_tables: the ruleset as a typed model, its two renderings, and the connection that carries it into the kernel.
//!
//! ```text
//!   Config --Ruleset::for_config--> model --render--> text         (--print-rules, rules/*.nft)
//!                                     |
//!                                   lower --> expr --encode--> bytes --conn--> kernel
//!                                               ^                                 |
//!                                               +--- plan <--- decode <-----------+   read back and compared
//! ```
//!
//! * [`model`]: tables, sets, chains, rules, statements; [`Ruleset::for_config`] says what a configuration means.
//! * [`text`]: the model as `nft -f` loads it. `lower` and `expr`: the model as kernel expressions. Two exhaustive matches over one model.
//! * [`encode`] and [`decode`]: netlink attributes, written and read; the kernel's `numbers` that both know. Decoding is total: no bytes make it panic.
//! * [`conn`]: transactions, elements, dumps. [`plan`]: the fewest steps from what the kernel has to what is wanted. [`install`] carries them out.
//! * [`monitor`]: hears of the changes that others make.
//!
//! Never here: what to block and why, any other table, spawning `nft`. Follows linux/netfilter/nf_tables.h and nft(8).

pub mod conn;
pub mod decode;
pub mod element;
pub mod encode;
mod error;
pub mod expr;
pub mod install;
pub mod lower;
pub mod model;
pub mod monitor;
mod numbers;
mod phrase;
pub mod plan;
pub mod queue;
pub mod reflex;
mod ruleset;
pub mod set_id;
pub mod text;

pub use conn::{Connection, LIGHT_DUMP};
pub use decode::{GenerationEvent, Notification};
pub use element::{Element, ElementInfo, Key};
pub use error::Error;
pub use expr::Expr;
pub use install::{Elements, Installed, Order};
pub use model::{Chain, QueueBy, Rule, Ruleset, Set, Statement, TABLE};
pub use monitor::{Heard, Monitor};
pub use plan::Hold;
pub use ruleset::QUEUE_THRESHOLD;
pub use set_id::{DataType, SetId};
