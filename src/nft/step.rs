//! One change to the table: as it is carried out, and as it is reported.

use std::fmt;

use super::numbers::table_flag;
use super::schema::SetSpec;

/// One change to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Delete the table with all that is in it.
    DeleteTable,
    /// Create the table, take it out of dormancy, or take over its ownership, with these flags.
    AddTable(u32),
    /// Delete every rule of the table.
    FlushRules,
    /// Delete a chain.
    DeleteChain(String),
    /// Delete a set.
    DeleteSet(String),
    /// Delete a stateful object.
    DeleteObject {
        /// Its name.
        name: String,
        /// `NFT_OBJECT_*`.
        kind: u32,
    },
    /// Delete a flowtable.
    DeleteFlowtable(String),
    /// Create a set.
    AddSet(SetSpec),
    /// Delete every element of a set.
    FlushSet(String),
    /// Add elements to a set that was created or flushed.
    AddElements(SetSpec),
    /// Create a chain.
    AddChain(&'static str),
    /// Append the rules of a chain.
    AddRules(&'static str),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteTable => f.write_str("delete table"),
            Self::AddTable(flags) if flags & table_flag::OWNER != 0 => {
                f.write_str("add table with owner")
            }
            Self::AddTable(_) => f.write_str("add table"),
            Self::FlushRules => f.write_str("flush rules"),
            Self::DeleteChain(name) => write!(f, "delete chain {name}"),
            Self::DeleteSet(name) => write!(f, "delete set {name}"),
            Self::DeleteObject { name, .. } => write!(f, "delete stateful object {name}"),
            Self::DeleteFlowtable(name) => write!(f, "delete flowtable {name}"),
            Self::AddSet(set) => write!(f, "add set {}", set.name),
            Self::FlushSet(name) => write!(f, "flush set {name}"),
            Self::AddElements(set) => write!(f, "add elements of set {}", set.name),
            Self::AddChain(name) => write!(f, "add chain {name}"),
            Self::AddRules(name) => write!(f, "add rules of chain {name}"),
        }
    }
}
