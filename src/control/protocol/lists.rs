//! Named lists in requests and replies.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::stamp::Stamp;
use crate::engine::ListName;

impl Serialize for ListName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ListName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A list that `block --list` loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListRow {
    /// Its name.
    pub name: String,
    /// Its blocks in force.
    pub blocks: u64,
    /// The end of the last of its blocks; null: one is permanent.
    pub until: Option<Stamp>,
    /// Seconds until then; null: one is permanent.
    pub expires_in: Option<u64>,
}

/// What the loading of a list came to, all its parts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Loaded {
    /// Blocks that were not on the list before.
    pub new: u64,
    /// Blocks that were, and have the new end.
    pub kept: u64,
    /// Blocks that were lifted, because they are no longer on the list.
    pub gone: u64,
    /// Addresses that another order, another list or a proven scan blocks for as long or longer.
    pub elsewhere: u64,
}
