//! Named lists of addresses that the administrator blocks together.
//!
//! A block holds its list as a pointer to a [`Listed`] that all blocks of one loading share, so that
//! a list of a million costs no byte more for each. The pointer also
//! identifies the loading: a block that still has an older one after its list was loaded again is no
//! longer on the list.
//!
//! The name is part of the reason's text, so that it is in the element's comment and in the store,
//! and a block that is restored or adopted is on its list again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{MonoTime, Reason};

/// Lists with a block at a time: each has a sample in the metrics.
pub const LISTS_MAX: usize = 64;

/// Longest name of a list, bytes: it fits an element's comment, and most of a reason beside it.
pub const LIST_NAME_MAX: usize = 63;

/// The name of a list: 1 to 63 of a-z, 0-9, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListName(Arc<str>);

/// The text is no name of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoListName;

impl fmt::Display for NoListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no name of a list: write 1 to {LIST_NAME_MAX} of a-z, 0-9, \".\", \"_\" and \"-\""
        )
    }
}

impl std::error::Error for NoListName {}

impl FromStr for ListName {
    type Err = NoListName;

    fn from_str(text: &str) -> Result<Self, NoListName> {
        let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_name = (1..=LIST_NAME_MAX).contains(&text.len()) && text.bytes().all(is_known);
        if is_name { Ok(Self(text.into())) } else { Err(NoListName) }
    }
}

impl ListName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list as one loading of it gave it to its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    name: ListName,
    text: Box<str>,
}

impl Listed {
    /// A list, and the administrator's reason, which may be empty.
    pub fn new(name: ListName, text: &str) -> Self {
        Self { name, text: text.into() }
    }

    /// The name.
    pub fn name(&self) -> &ListName {
        &self.name
    }
}

/// `list NAME: reason`.
impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list {}", self.name)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// What became of an address when its list was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnList {
    /// It was not on the list before.
    New,
    /// It was, and has the new end.
    Kept,
    /// Another order, another list or a proven scan blocks it for as long or longer: that block
    /// stays as it is.
    Elsewhere,
}

/// A list with a block in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListView {
    /// Its name.
    pub name: ListName,
    /// Its blocks in force.
    pub blocks: usize,
    /// The last end of a block that was on it since it was loaded last, or since the start; `None`:
    /// one is permanent.
    pub end: Option<MonoTime>,
}

/// The lists, and how many blocks each has.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Known>);

#[derive(Debug)]
struct Known {
    /// As the last loading has it.
    latest: Arc<Listed>,
    blocks: usize,
    /// `None`: none had an end yet; `Some(None)`: one is permanent.
    end: Option<Option<MonoTime>>,
}

impl Lists {
    /// Begins a loading, which replaces the list or adds to it; `None`: there are too many lists.
    pub(super) fn begin(&mut self, name: &ListName, text: &str, add: bool) -> Option<Arc<Listed>> {
        let latest = Arc::new(Listed::new(name.clone(), text));
        match self.find(name) {
            Some(known) => {
                known.latest = Arc::clone(&latest);
                known.end = known.end.filter(|_| add && known.blocks > 0);
            }
            None => self.learn(&latest)?,
        }
        Some(latest)
    }

    /// Whether no other loading of the list has begun since this one.
    pub(super) fn is_latest(&self, listed: &Arc<Listed>) -> bool {
        self.0.iter().any(|known| Arc::ptr_eq(&known.latest, listed))
    }

    /// The reason of an adopted block, which shares the list that is known. Without room for another
    /// list it is an order without one.
    pub(super) fn share(&mut self, reason: Reason) -> Reason {
        let Reason::Listed(listed) = reason else { return reason };
        if let Some(known) = self.find(&listed.name) {
            let is_latest = known.latest == listed;
            return Reason::Listed(if is_latest { Arc::clone(&known.latest) } else { listed });
        }
        match self.learn(&listed) {
            Some(()) => Reason::Listed(listed),
            None => Reason::Manual(listed.to_string().into()),
        }
    }

    /// A block with this reason is in force.
    pub(super) fn add(&mut self, reason: &Reason, end: Option<MonoTime>) {
        let Some(known) = reason.list().and_then(|name| self.find(name)) else { return };
        if known.blocks == 0 {
            known.end = None;
        }
        known.blocks += 1;
        known.end = Some(known.end.map_or(end, |known| known.zip(end).map(|(a, b)| a.max(b))));
    }

    /// A block with this reason has ended, or has another reason.
    pub(super) fn remove(&mut self, reason: &Reason) {
        if let Some(known) = reason.list().and_then(|name| self.find(name)) {
            known.blocks = known.blocks.saturating_sub(1);
        }
    }

    pub(super) fn views(&self) -> impl Iterator<Item = ListView> {
        self.0.iter().filter(|known| known.blocks > 0).map(|known| ListView {
            name: known.latest.name.clone(),
            blocks: known.blocks,
            end: known.end.flatten(),
        })
    }

    fn find(&mut self, name: &ListName) -> Option<&mut Known> {
        self.0.iter_mut().find(|known| known.latest.name == *name)
    }

    /// Remembers another list; one without a block gives way.
    fn learn(&mut self, latest: &Arc<Listed>) -> Option<()> {
        if self.0.len() >= LISTS_MAX {
            let empty = self.0.iter().position(|known| known.blocks == 0)?;
            self.0.swap_remove(empty);
        }
        self.0.push(Known { latest: Arc::clone(latest), blocks: 0, end: None });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ListName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["a", "known-scanners", "a.b_c-9", &"x".repeat(63)] {
            assert_eq!(name(good).as_str(), good);
        }
        for wrong in ["", "A", "a b", "a:b", "ä", "a/b", &"x".repeat(64)] {
            assert_eq!(wrong.parse::<ListName>(), Err(NoListName), "{wrong}");
        }
    }

    // P10
    #[test]
    fn lists_are_bounded_and_one_without_a_block_gives_way() {
        let mut lists = Lists::default();
        for n in 0..LISTS_MAX {
            let listed = lists.begin(&name(&format!("l{n}")), "", false).unwrap();
            lists.add(&Reason::Listed(listed), None);
        }
        assert_eq!(lists.begin(&name("more"), "", false), None);
        let adopted: Reason = "by hand, list more: x".parse().unwrap();
        let Reason::Manual(text) = lists.share(adopted.clone()) else { panic!() };
        assert_eq!(&*text, "list more: x");
        lists.remove(&"by hand, list l7".parse().unwrap());
        assert!(lists.begin(&name("more"), "", false).is_some());
        assert!(matches!(lists.share(adopted), Reason::Listed(_)));
        assert_eq!((lists.0.len(), lists.views().count()), (LISTS_MAX, LISTS_MAX - 1));
    }

    #[test]
    fn a_list_ends_with_its_last_block_since_it_was_loaded() {
        let (at, mut lists) = (MonoTime::from_millis, Lists::default());
        let mut end = |ends: &[Option<u64>]| {
            let listed = lists.begin(&name("l"), "", false).unwrap();
            let reason = Reason::Listed(listed);
            ends.iter().for_each(|end| lists.add(&reason, end.map(at)));
            lists.views().next().unwrap().end
        };
        assert_eq!(end(&[Some(7), Some(5)]), Some(at(7)));
        assert_eq!(end(&[Some(3)]), Some(at(3)));
        assert_eq!(end(&[Some(3), None, Some(9)]), None);
    }
}
