//! What the administrator wants, checked: every value here is in range and free of contradictions.
//!
//! A [`Config`] comes from [`load()`], which reads the YAML file, or from [`Config::default`], which needs none.
//!
//! ```text
//!  file --load--> text --tree--> nodes with places --schema--> Config --check--> Loaded
//!                   |              |                  |           |
//!                   +--------------+---- Finding -----+-----------+------------> Refused
//! ```
//!
//! All findings are collected, sorted by place, and told at once; a [`Config`] is given out only if none of them is an error.
//! Nothing here acts on the system: files are read, never written, and names are not resolved.

mod check;
pub mod classic;
mod defaults;
mod diagnostic;
mod keys;
mod load;
#[cfg(test)]
mod manual;
mod nearest;
mod pending;
mod ports;
mod print;
mod reader;
mod schema;
mod suggest;
mod tree;
mod trust;
mod types;
mod values;
mod words;
mod written;

pub use classic::ClassicMode;
pub use diagnostic::{Finding, Severity};
pub use keys::{KEYS, Key, Kind, Reload};
pub use load::{Loaded, Refused, load, load_default, load_if_present, parse};
pub use ports::PortSet;
pub use trust::{Fault, distrust};
pub use types::*;
#[cfg(test)]
pub(crate) use values::MACROS;
pub use words::Words;

/// Where the configuration is looked for when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/portsentry/portsentry.yaml";
