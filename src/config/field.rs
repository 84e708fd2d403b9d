//! Reads and prints the fields of the configuration, one implementation for each type.

use std::collections::HashSet;
use std::hash::Hash;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Place, shown};
use super::keys::{Key, Kind};
use super::keyword::{Keyword, keywords};
use super::nearest::nearest;
use super::phrases::{describe, quoting};
use super::reader::Reader;
use super::tree::{Node, Value};
use super::values::{self, Wrong};
use super::{Ipv6Accounts, PortSet, Size, written};

/// A field that a key sets.
pub(super) trait Field {
    /// Reads the value, checks it against the table of keys and sets the field. After an error,
    /// returned or noted, the field keeps its default.
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong>;

    /// The value in the file's notation.
    fn print(&self) -> String;
}

/// The value of a key in the file.
pub(super) struct Input<'n, 't> {
    pub(super) reader: &'n mut Reader<'t>,
    pub(super) key: &'static Key,
    pub(super) node: &'n Node,
}

impl<'n> Input<'n, '_> {
    fn fail(&mut self, place: Place, wrong: Wrong) {
        self.reader.fail(self.key.path, place, wrong);
    }

    pub(super) fn warning(&mut self, place: Place, (message, remedy): Wrong) {
        self.reader.findings.warning(place, message, remedy);
    }

    /// "`tcp.mode` wants ..., this is ...".
    pub(super) fn mismatch(&self, node: &Node, wanted: &str, remedy: impl Into<String>) -> Wrong {
        (
            format!("`{}` wants {wanted}, this is {}", self.key.path, describe(&node.value)),
            remedy.into(),
        )
    }

    fn out_of_range(&self, value: &str, remedy: String) -> Wrong {
        (format!("`{}` is {value}, which is out of range", self.key.path), remedy)
    }

    /// A whole number within the table's bounds.
    fn number<T: TryFrom<u32>>(&self) -> Result<T, Wrong> {
        let (min, max, why) = match self.key.kind {
            Kind::Number { min, max, why } => (min, max, why),
            _ => (0, u32::MAX, ""),
        };
        let Value::Whole(number) = self.node.value else {
            let remedy = match &self.node.value {
                Value::Text(text) if text.trim().parse::<u32>().is_ok() => {
                    format!("write it without quotes: {}", text.trim())
                }
                _ => format!("write a whole number, {min} to {max}"),
            };
            return Err(self.mismatch(self.node, "a whole number", remedy));
        };
        u32::try_from(number)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                self.out_of_range(&number.to_string(), format!("write {min} to {max}: {why}"))
            })
    }

    /// A text.
    fn text(&self) -> Result<&'n str, Wrong> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            other => Err(self.mismatch(self.node, "a text", quoting(other))),
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<&'n [Node], Wrong> {
        let Value::List(items) = &self.node.value else {
            let remedy = match &self.node.value {
                Value::Text(text) if matches!(self.key.kind, Kind::Texts { .. }) => format!(
                    "write each word as a text of its own, no shell splits them: {}",
                    shown(&written::list(text.split_whitespace()))
                ),
                Value::Text(text) => format!("put it into brackets: [{}]", shown(text)),
                _ => "write a list in brackets: [one, two]".to_owned(),
            };
            return Err(self.mismatch(self.node, "a list", remedy));
        };
        Ok(items)
    }

    /// The texts of a list, with their places.
    fn texts(&mut self) -> Result<Vec<(&'n str, Place)>, Wrong> {
        let items = self.items()?;
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push((text.as_str(), item.place)),
                other => {
                    let wrong = self.mismatch(item, "texts in its list", quoting(other));
                    self.fail(item.place, wrong);
                }
            }
        }
        Ok(texts)
    }

    /// Parses each of `items`, and drops duplicates with a warning; `show` is an item in a message.
    pub(super) fn list<I, T: Clone + Eq + Hash>(
        &mut self,
        items: impl IntoIterator<Item = (I, Place)>,
        parse: impl Fn(&mut Self, I, Place) -> Result<T, Wrong>,
        show: impl Fn(&T) -> String,
    ) -> Vec<T> {
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for (item, place) in items {
            match parse(self, item, place) {
                Err(wrong) => self.fail(place, wrong),
                Ok(item) if seen.insert(item.clone()) => list.push(item),
                Ok(item) => {
                    let message = format!("`{}` has {} twice", self.key.path, show(&item));
                    self.warning(place, (message, "remove one of them".to_owned()));
                }
            }
        }
        list
    }

    /// Sets the field to a list, unless an item of it was wrong.
    pub(super) fn set<T>(&self, to: &mut T, list: T) -> Result<(), Wrong> {
        if self.reader.is_sound(&[self.key.path]) {
            *to = list;
        }
        Ok(())
    }
}

/// One of a few keywords.
impl<T: Keyword> Field for T {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let text = match &input.node.value {
            Value::Text(text) => text.as_str(),
            // Keywords of a key that has more than these two.
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            _ => "",
        };
        if !matches!(input.node.value, Value::Text(_)) && T::of_word(text).is_none() {
            let wanted = format!("one of {}", keywords::<T>().join(", "));
            let remedy = format!("write {wanted}");
            return Err(input.mismatch(input.node, &wanted, remedy));
        }
        *self = keyword(input, text)?;
        Ok(())
    }

    fn print(&self) -> String {
        self.word().to_owned()
    }
}

fn keyword<T: Keyword>(input: &Input<'_, '_>, text: &str) -> Result<T, Wrong> {
    T::of_word(text).ok_or_else(|| {
        let all = keywords::<T>().join(", ");
        let remedy = nearest(text, keywords::<T>()).map_or_else(
            || format!("write one of {all}"),
            |near| format!("did you mean `{near}`? known are {all}"),
        );
        (format!("`{}` cannot be `{}`", input.key.path, shown(text)), remedy)
    })
}

/// Some of a few keywords, one at least.
impl<T: Keyword + Eq + Hash> Field for Vec<T> {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let texts = input.texts()?;
        if texts.is_empty() {
            let all = keywords::<T>().join(", ");
            let message = format!("`{}` is empty", input.key.path);
            return Err((message, format!("list some of {all}")));
        }
        let words = input.list(
            texts,
            |input, text, _| keyword(input, text),
            |word: &T| format!("`{}`", word.word()),
        );
        input.set(self, words)
    }

    fn print(&self) -> String {
        let words: Vec<_> = self.iter().map(|on| on.word()).collect();
        format!("[{}]", words.join(", "))
    }
}

impl Field for bool {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let remedy = match &input.node.value {
            Value::Bool(value) => {
                *self = *value;
                return Ok(());
            }
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => "write true, without quotes",
                "no" | "off" | "n" | "false" => "write false, without quotes",
                _ => "write true or false",
            },
            Value::Whole(1) => "write true",
            Value::Whole(0) => "write false",
            _ => "write true or false",
        };
        Err(input.mismatch(input.node, "true or false", remedy))
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

/// Implements [`Field`] for types of whole numbers.
macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl Field for $type {
            fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
                *self = input.number()?;
                Ok(())
            }

            fn print(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers!(u8 u16 u32);

/// One number for both lengths (`block.ipv6_prefix`).
impl Field for Ipv6Accounts {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        *self = Self::of_one_length(input.number()?);
        Ok(())
    }

    fn print(&self) -> String {
        self.first.print()
    }
}

/// A time within the table's bounds; `0` is `None`, if the table allows it.
impl Field for Option<Duration> {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let Kind::Time { min, max, zero, why } = input.key.kind else { return Ok(()) };
        let text = match &input.node.value {
            Value::Text(text) | Value::Fraction(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            _ => {
                let remedy = "write a number and its unit: 30s, 10m, 1h, 7d";
                return Err(input.mismatch(input.node, "a time", remedy));
            }
        };
        *self = match values::time(&text)? {
            Duration::ZERO if zero.is_some() => None,
            time if (min..=max).contains(&time) => Some(time),
            _ => {
                let or = zero.map_or_else(String::new, |meaning| format!(", or 0 ({meaning})"));
                let (min, max) = (written::time(min), written::time(max));
                let remedy = format!("write {min} to {max}{or}: {why}");
                return Err(input.out_of_range(&shown(&text), remedy));
            }
        };
        Ok(())
    }

    fn print(&self) -> String {
        self.unwrap_or_default().print()
    }
}

impl Field for Duration {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let mut time = Some(*self);
        time.read(input)?;
        *self = time.unwrap_or(*self);
        Ok(())
    }

    fn print(&self) -> String {
        written::time(*self)
    }
}

/// A size within the table's bounds.
impl Field for Size {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let Kind::Size { min, max, why } = input.key.kind else { return Ok(()) };
        let text = match &input.node.value {
            Value::Text(text) | Value::Fraction(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            _ => {
                let remedy = "write a number and its unit: 512K, 64M, 1G";
                return Err(input.mismatch(input.node, "a size", remedy));
            }
        };
        *self = match values::size(&text)? {
            size if (min..=max).contains(&size) => size,
            _ => {
                let (min, max) = (written::size(min), written::size(max));
                let remedy = format!("write {min} to {max}: {why}");
                return Err(input.out_of_range(&shown(&text), remedy));
            }
        };
        Ok(())
    }

    fn print(&self) -> String {
        written::size(*self)
    }
}

/// Ports: one, a range, or a list of both.
impl Field for PortSet {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let Kind::Ports { min } = input.key.kind else { return Ok(()) };
        let items = match &input.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(input.node),
        };
        let ranges = input.list(
            items.iter().map(|item| (item, item.place)),
            |input, item, _| match &item.value {
                Value::Whole(number) => values::port(*number, min),
                Value::Text(text) | Value::Fraction(text) => values::ports(text, min),
                _ => {
                    Err(input.mismatch(item, "ports", "write a number, 80, or a range, 6000-6063"))
                }
            },
            |range| PortSet::range(*range.start(), *range.end()).to_string(),
        );
        input.set(self, ranges.into_iter().collect())
    }

    fn print(&self) -> String {
        written::ports(self)
    }
}

/// An absolute path; an empty text is `None`, if the table allows it.
impl Field for Option<PathBuf> {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let Kind::Path { optional, max } = input.key.kind else { return Ok(()) };
        let text = input.text()?;
        *self = if text.is_empty() && optional {
            None
        } else {
            values::path(text, max)?;
            Some(PathBuf::from(text))
        };
        Ok(())
    }

    fn print(&self) -> String {
        self.clone().unwrap_or_default().print()
    }
}

impl Field for PathBuf {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let mut path = None;
        path.read(input)?;
        *self = path.unwrap_or_default();
        Ok(())
    }

    fn print(&self) -> String {
        written::quoted(&self.to_string_lossy())
    }
}

/// The name of a group, or a text within the table's bound.
impl Field for String {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let text = input.text()?;
        match input.key.kind {
            Kind::Group => values::group(text)?,
            Kind::Text { max } if text.len() > max => {
                let message = format!("`{}` has {} bytes", input.key.path, text.len());
                return Err((message, format!("write at most {max} bytes")));
            }
            _ => {}
        }
        text.clone_into(self);
        Ok(())
    }

    fn print(&self) -> String {
        written::quoted(self)
    }
}

/// Names of interfaces, or a program and its arguments.
impl Field for Vec<String> {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let texts = input.texts()?;
        let list = match input.key.kind {
            Kind::Texts { max } => command(input, texts, max)?,
            _ => interfaces(input, texts),
        };
        input.set(self, list)
    }

    fn print(&self) -> String {
        written::list(self)
    }
}

fn interfaces(input: &mut Input<'_, '_>, names: Vec<(&str, Place)>) -> Vec<String> {
    if let Some((_, place)) = names.iter().find(|(name, _)| *name == "lo") {
        let message = "the loopback interface is never watched".to_owned();
        input.warning(*place, (message, "remove `lo`".to_owned()));
    }
    input.list(
        names,
        |_, name, _| values::interface(name).map(|()| name.to_owned()),
        |name| format!("`{}`", shown(name)),
    )
}

fn command(
    input: &mut Input<'_, '_>,
    words: Vec<(&str, Place)>,
    max: usize,
) -> Result<Vec<String>, Wrong> {
    if words.iter().map(|(word, _)| word.len() + 1).sum::<usize>() > max {
        return Err((
            format!("`{}` is longer than {max} bytes", input.key.path),
            "put what it does into a script".to_owned(),
        ));
    }
    for (at, (word, place)) in words.iter().enumerate() {
        let program = if at == 0 { values::program(word, max) } else { Ok(()) };
        if let Err(wrong) = program.and_then(|()| values::argument(word)) {
            input.fail(*place, wrong);
        }
    }
    Ok(words.into_iter().map(|(word, _)| word.to_owned()).collect())
}
