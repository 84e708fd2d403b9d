//! The administrator's configuration, checked: every value is in range and free of contradictions.
//!
//! A [`Config`] comes from [`load()`], which reads the YAML file, or from [`Config::default`].
//!
//! ```text
//!  file --load--> text --tree--> nodes with places --reader--> Config --check--> Loaded
//!                   |              |                  |           |
//!                   +--------------+---- Finding -----+-----------+------------> Refused
//! ```
//!
//! All findings are collected, sorted by place, and reported together; a configuration with an
//! error is refused. This module changes nothing on the system: it reads files, never writes them,
//! and resolves no names.

mod allow;
mod check;
pub mod classic;
mod defaults;
mod diagnostic;
mod field;
mod keys;
mod keyword;
mod load;
mod nearest;
mod notify;
mod phrases;
mod ports;
mod present;
mod print;
mod reader;
mod suggest;
mod tree;
mod trust;
mod types;
mod unit;
mod values;
mod written;

pub use allow::{ALLOW_FILES_MAX, ALLOW_INTERFACES_MAX, ALLOW_NAMES_MAX, Allowance, Allowed};
pub use classic::ClassicMode;
pub use diagnostic::{Finding, Severity};
pub use keys::{KEYS, Key, Kind, Reload};
pub use keyword::Keyword;
pub use load::{
    Loaded, Refused, load, load_default, load_if_present, load_under, parse, parse_under,
};
pub(crate) use notify::recipients;
pub use notify::{AbuseIpDb, Endpoint, Notify, NotifyOn, Sendmail};
pub use ports::PortSet;
pub use trust::{Fault, distrust, distrust_directory, distrust_place};
pub use types::*;
pub use unit::Unit;
#[cfg(test)]
pub(crate) use values::MACROS;
pub(crate) use values::dns_name;

/// The configuration file without `--config`.
pub const DEFAULT_PATH: &str = "/etc/portsentry/portsentry.yaml";
