//! One change to the table: as it is carried out, and as it is reported.

use std::fmt;

use super::model::{Chain, Set};
use super::numbers::table_flag;
use super::schema::SetSpec;

/// One change, with what is needed to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Delete the table with all that is in it; the elements of these sets are carried over.
    DeleteTable(Vec<SetSpec>),
    /// Create the table, take it out of dormancy, or take over its ownership, with these flags.
    AddTable(u32),
    /// Delete every rule of the table.
    FlushRules,
    /// Delete a chain.
    DeleteChain(String),
    /// Delete a set; its elements are carried over if `carry` is there.
    DeleteSet {
        /// Its name.
        name: String,
        /// The set of the same name and key that follows.
        carry: Option<SetSpec>,
    },
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
    AddSet(&'a Set),
    /// Delete every element of a set.
    FlushSet(String),
    /// Add the elements of the model to a set.
    AddElements(&'a Set),
    /// Create a chain.
    AddChain(&'a Chain),
    /// Append the rules of a chain.
    AddRules(&'a Chain),
}

impl Step<'_> {
    /// The sets whose elements are carried over to their replacement.
    pub(super) fn carried(&self) -> &[SetSpec] {
        match self {
            Self::DeleteTable(carry) => carry,
            Self::DeleteSet { carry, .. } => carry.as_slice(),
            _ => &[],
        }
    }

    /// The same without what only writing it needs.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::DeleteTable(_) => StepKind::DeleteTable,
            Self::AddTable(flags) => StepKind::AddTable { owned: flags & table_flag::OWNER != 0 },
            Self::FlushRules => StepKind::FlushRules,
            Self::DeleteChain(name) => StepKind::DeleteChain(name.clone()),
            Self::DeleteSet { name, .. } => StepKind::DeleteSet(name.clone()),
            Self::DeleteObject { name, .. } => StepKind::DeleteObject(name.clone()),
            Self::DeleteFlowtable(name) => StepKind::DeleteFlowtable(name.clone()),
            Self::AddSet(set) => StepKind::AddSet(set.id),
            Self::FlushSet(name) => StepKind::FlushSet(name.clone()),
            Self::AddElements(set) => StepKind::AddElements(set.id),
            Self::AddChain(chain) => StepKind::AddChain(chain.name),
            Self::AddRules(chain) => StepKind::AddRules(chain.name),
        }
    }
}

/// What kind of change a [`Step`] is, and of which object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// The table was deleted.
    DeleteTable,
    /// The table was created, taken out of dormancy, or its ownership taken over.
    AddTable {
        /// It belongs to this connection now.
        owned: bool,
    },
    /// Every rule was deleted.
    FlushRules,
    /// A chain was deleted.
    DeleteChain(String),
    /// A set was deleted.
    DeleteSet(String),
    /// A stateful object was deleted.
    DeleteObject(String),
    /// A flowtable was deleted.
    DeleteFlowtable(String),
    /// A set was created.
    AddSet(SetSpec),
    /// Every element of a set was deleted.
    FlushSet(String),
    /// Elements were added to a set that was created or flushed.
    AddElements(SetSpec),
    /// A chain was created.
    AddChain(&'static str),
    /// The rules of a chain were added.
    AddRules(&'static str),
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteTable => f.write_str("delete table"),
            Self::AddTable { owned: true } => f.write_str("add table with owner"),
            Self::AddTable { owned: false } => f.write_str("add table"),
            Self::FlushRules => f.write_str("flush rules"),
            Self::DeleteChain(name) => write!(f, "delete chain {name}"),
            Self::DeleteSet(name) => write!(f, "delete set {name}"),
            Self::DeleteObject(name) => write!(f, "delete stateful object {name}"),
            Self::DeleteFlowtable(name) => write!(f, "delete flowtable {name}"),
            Self::AddSet(set) => write!(f, "add set {}", set.name),
            Self::FlushSet(name) => write!(f, "flush set {name}"),
            Self::AddElements(set) => write!(f, "add elements of set {}", set.name),
            Self::AddChain(name) => write!(f, "add chain {name}"),
            Self::AddRules(name) => write!(f, "add rules of chain {name}"),
        }
    }
}
