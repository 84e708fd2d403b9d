//! Typed readers for the tree: each takes one key of a section, checks it against the table of
//! keys, and notes faults.
//!
//! A wrong value is replaced by the default, so that reading continues and all findings are
//! reported together. A configuration with errors is never used.

mod phrases;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use self::phrases::{describe, quoting};
use super::diagnostic::{Findings, Place, shown};
use super::keys::{self, Kind};
use super::nearest::nearest;
use super::suggest;
use super::tree::{Entry, Node, Value};
use super::values::{self, Wrong};
use super::{Keyword, PortSet, written};

/// Reads one tree.
pub(super) struct Reader<'t> {
    /// Findings so far.
    pub(super) findings: Findings<'t>,
    /// Places of the values that the file has.
    given: BTreeMap<String, Place>,
    /// Keys and sections with a wrong value: no conclusions are drawn from them.
    failed: BTreeSet<String>,
    /// Keys that were read.
    asked: Vec<String>,
}

impl<'t> Reader<'t> {
    /// A reader that adds to `findings`.
    pub(super) fn new(findings: Findings<'t>) -> Self {
        Self { findings, given: BTreeMap::new(), failed: BTreeSet::new(), asked: Vec::new() }
    }

    /// Reads the top level with `read`.
    pub(super) fn top(&mut self, root: &Node, read: impl FnOnce(&mut Section<'_, '_, 't>)) {
        let entries: &[Entry] = match &root.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let remedy = match other {
                    Value::Text(text) if text.contains('=') => {
                        "write YAML, `key: value`; this looks like a file of PortSentry 1.2 or 2.x"
                    }
                    _ => "write keys and values: `mode: enforce`",
                };
                self.findings.error(
                    Some(root.place),
                    format!("the file is {}, not keys and values", describe(other)),
                    remedy,
                );
                &[]
            }
        };
        self.section(String::new(), entries, read);
    }

    /// The place of the first of `paths` that the file has.
    pub(super) fn place(&self, paths: &[&str]) -> Option<Place> {
        paths.iter().find_map(|path| self.given.get(*path)).copied()
    }

    /// Whether neither `paths` nor their sections have a wrong value.
    pub(super) fn is_sound(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| {
            let sections = path.match_indices('.').filter_map(|(at, _)| path.get(..at));
            !sections.chain([*path]).any(|path| self.failed.contains(path))
        })
    }

    /// Whether the file has the key, with a valid value.
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.given.contains_key(path)
    }

    /// Keys that were read, in order.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &[String] {
        &self.asked
    }

    fn section(
        &mut self,
        path: String,
        entries: &[Entry],
        read: impl FnOnce(&mut Section<'_, '_, 't>),
    ) {
        let mut section = Section { reader: self, path, entries, names: Vec::new() };
        read(&mut section);
        section.finish();
    }
}

/// Keys and values of one level.
pub(super) struct Section<'r, 'n, 't> {
    reader: &'r mut Reader<'t>,
    path: String,
    entries: &'n [Entry],
    names: Vec<&'static str>,
}

impl<'n, 't> Section<'_, 'n, 't> {
    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn error(&mut self, place: Place, (message, remedy): Wrong) {
        self.reader.findings.error(Some(place), message, remedy);
    }

    /// Notes that the value of `path` is wrong.
    fn fail(&mut self, path: &str, place: Place, wrong: Wrong) {
        self.error(place, wrong);
        self.reader.given.remove(path);
        self.reader.failed.insert(path.to_owned());
    }

    fn warning(&mut self, place: Place, (message, remedy): Wrong) {
        self.reader.findings.warning(Some(place), message, remedy);
    }

    /// Notes "`tcp.mode` wants ..., this is ...".
    fn mismatch(&mut self, path: &str, node: &Node, wanted: &str, remedy: impl Display) {
        let message = format!("`{path}` wants {wanted}, this is {}", describe(&node.value));
        self.fail(path, node.place, (message, remedy.to_string()));
    }

    /// The first entry with this name.
    fn entry(&mut self, name: &'static str) -> Option<&'n Entry> {
        self.names.push(name);
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// A key's value with its path and kind; `None` if the file does not have the key, or has it
    /// without a value.
    fn value(&mut self, name: &'static str) -> Option<(String, Kind, &'n Node)> {
        let path = self.path_of(name);
        self.reader.asked.push(path.clone());
        let key = keys::find(&path)?;
        let entry = self.entry(name)?;
        if entry.node.value == Value::Null {
            let default = key.default_text();
            self.fail(
                &path,
                entry.place,
                (
                    format!("`{path}` has no value"),
                    format!(
                        "write one ({}), or remove the line: the default is {default}",
                        key.kind
                    ),
                ),
            );
            return None;
        }
        self.reader.given.insert(path.clone(), entry.node.place);
        Some((path, key.kind, &entry.node))
    }

    /// Reads the section `name`.
    pub(super) fn table(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_, '_, 't>),
    ) {
        let path = self.path_of(name);
        let entries: &[Entry] = match self.entry(name) {
            None => &[],
            Some(entry) => match &entry.node.value {
                Value::Map(entries) => entries,
                // All its keys are commented out.
                Value::Null => &[],
                _ => {
                    self.mismatch(
                        &path,
                        &entry.node,
                        "keys and values below it",
                        format!("write each key on its own line, indented below `{name}:`"),
                    );
                    &[]
                }
            },
        };
        self.reader.section(path, entries, read);
    }

    /// One of a few keywords.
    pub(super) fn word<T: Keyword>(&mut self, name: &'static str, to: &mut T) {
        let Some((path, _, node)) = self.value(name) else { return };
        let words = || T::KEYWORDS.iter().map(|(word, _)| *word);
        let all = words().collect::<Vec<_>>().join(", ");
        let text = match &node.value {
            Value::Text(text) => text.as_str(),
            // Keywords of a key that has more than these two.
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            _ => "",
        };
        if T::of_word(text).is_none() && !matches!(node.value, Value::Text(_)) {
            return self.mismatch(
                &path,
                node,
                &format!("one of {all}"),
                format!("write one of {all}"),
            );
        }
        match T::of_word(text) {
            Some(value) => *to = value,
            None => {
                let remedy = nearest(text, words()).map_or_else(
                    || format!("write one of {all}"),
                    |near| format!("did you mean `{near}`? known are {all}"),
                );
                self.fail(
                    &path,
                    node.place,
                    (format!("`{path}` cannot be `{}`", shown(text)), remedy),
                );
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, name: &'static str, to: &mut bool) {
        let Some((path, _, node)) = self.value(name) else { return };
        match &node.value {
            Value::Bool(value) => *to = *value,
            other => {
                let remedy = match other {
                    Value::Text(text)
                        if matches!(
                            text.to_ascii_lowercase().as_str(),
                            "yes" | "on" | "y" | "true"
                        ) =>
                    {
                        "write true, without quotes"
                    }
                    Value::Text(text)
                        if matches!(
                            text.to_ascii_lowercase().as_str(),
                            "no" | "off" | "n" | "false"
                        ) =>
                    {
                        "write false, without quotes"
                    }
                    Value::Whole(1) => "write true",
                    Value::Whole(0) => "write false",
                    _ => "write true or false",
                };
                self.mismatch(&path, node, "true or false", remedy);
            }
        }
    }

    /// A whole number within the table's bounds.
    pub(super) fn number<T: TryFrom<u32>>(&mut self, name: &'static str, to: &mut T) {
        let Some((path, Kind::Number { min, max, why }, node)) = self.value(name) else { return };
        let Value::Whole(number) = &node.value else {
            let remedy = match &node.value {
                Value::Text(text) if text.trim().parse::<u32>().is_ok() => {
                    format!("write it without quotes: {}", text.trim())
                }
                _ => format!("write a whole number, {min} to {max}"),
            };
            return self.mismatch(&path, node, "a whole number", remedy);
        };
        match u32::try_from(*number)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .and_then(|number| T::try_from(number).ok())
        {
            Some(value) => *to = value,
            None => self.fail(
                &path,
                node.place,
                (
                    format!("`{path}` is {number}, which is out of range"),
                    format!("write {min} to {max}: {why}"),
                ),
            ),
        }
    }

    /// A time within the table's bounds.
    pub(super) fn time(&mut self, name: &'static str, to: &mut Duration) {
        let mut read = Some(*to);
        self.time_or_zero(name, &mut read);
        if let Some(time) = read {
            *to = time;
        }
    }

    /// A time within the table's bounds; `0` is `None`, if the table allows it.
    pub(super) fn time_or_zero(&mut self, name: &'static str, to: &mut Option<Duration>) {
        let Some((path, Kind::Time { min, max, zero, why }, node)) = self.value(name) else {
            return;
        };
        let text = match &node.value {
            Value::Text(text) | Value::Fraction(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            _ => {
                return self.mismatch(
                    &path,
                    node,
                    "a time",
                    "write a number and its unit: 30s, 10m, 1h, 7d",
                );
            }
        };
        match values::time(&text) {
            Err(wrong) => self.fail(&path, node.place, wrong),
            Ok(Duration::ZERO) if zero.is_some() => *to = None,
            Ok(time) if (min..=max).contains(&time) => *to = Some(time),
            Ok(_) => {
                let or = zero.map_or_else(String::new, |meaning| format!(", or 0 ({meaning})"));
                let remedy =
                    format!("write {} to {}{or}: {why}", written::time(min), written::time(max));
                self.fail(
                    &path,
                    node.place,
                    (format!("`{path}` is {}, which is out of range", shown(&text)), remedy),
                );
            }
        }
    }

    /// Ports: one, a range, or a list of both.
    pub(super) fn ports(&mut self, name: &'static str, to: &mut PortSet) {
        let Some((path, Kind::Ports { min }, node)) = self.value(name) else { return };
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let (mut ranges, mut seen) = (Vec::with_capacity(items.len()), BTreeSet::new());
        for item in items {
            let range = match &item.value {
                Value::Whole(number) => values::port(*number, min),
                Value::Text(text) | Value::Fraction(text) => values::ports(text, min),
                other => Err((
                    format!("`{path}` wants ports, this is {}", describe(other)),
                    "write a number, 80, or a range, 6000-6063".to_owned(),
                )),
            };
            match range {
                Ok(range) => {
                    if !seen.insert((*range.start(), *range.end())) {
                        let text = PortSet::range(*range.start(), *range.end());
                        self.warning(
                            item.place,
                            (format!("`{path}` has {text} twice"), "remove one of them".to_owned()),
                        );
                    }
                    ranges.push(range);
                }
                Err(wrong) => self.fail(&path, item.place, wrong),
            }
        }
        if self.reader.is_sound(&[&path]) {
            *to = ranges.into_iter().collect();
        }
    }

    /// The texts of a list, with their places.
    fn texts(&mut self, path: &str, node: &'n Node) -> Vec<(&'n str, Place)> {
        let Value::List(items) = &node.value else {
            let remedy = match &node.value {
                Value::Text(text) => format!("put it into brackets: [{}]", shown(text)),
                _ => "write a list in brackets: [one, two]".to_owned(),
            };
            self.mismatch(path, node, "a list", remedy);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push((text.as_str(), item.place)),
                other => self.mismatch(path, item, "texts in its list", quoting(other)),
            }
        }
        texts
    }

    /// Names of interfaces.
    pub(super) fn interfaces(&mut self, name: &'static str, to: &mut Vec<String>) {
        let Some((path, _, node)) = self.value(name) else { return };
        let (mut list, mut seen) = (Vec::new(), BTreeSet::new());
        for (text, place) in self.texts(&path, node) {
            if let Err(wrong) = values::interface(text) {
                self.fail(&path, place, wrong);
            } else if !seen.insert(text) {
                self.warning(
                    place,
                    (
                        format!("`{path}` has `{}` twice", shown(text)),
                        "remove one of them".to_owned(),
                    ),
                );
            } else {
                if text == "lo" {
                    self.warning(
                        place,
                        (
                            "the loopback interface is never watched".to_owned(),
                            "remove `lo`".to_owned(),
                        ),
                    );
                }
                list.push(text.to_owned());
            }
        }
        if self.reader.is_sound(&[&path]) {
            *to = list;
        }
    }

    /// Addresses and networks.
    pub(super) fn networks(&mut self, name: &'static str, to: &mut Vec<IpNet>) {
        let Some((path, _, node)) = self.value(name) else { return };
        let mut list = Vec::new();
        let mut seen = BTreeSet::new();
        for (text, place) in self.texts(&path, node) {
            match values::network(text) {
                Err(wrong) => self.fail(&path, place, wrong),
                Ok((network, odd)) => {
                    if let Some(odd) = odd {
                        self.warning(place, odd);
                    }
                    if seen.insert(network) {
                        list.push(network);
                    } else {
                        self.warning(
                            place,
                            (
                                format!("`{path}` has {} twice", values::display(&network)),
                                "remove one of them".to_owned(),
                            ),
                        );
                    }
                }
            }
        }
        if self.reader.is_sound(&[&path]) {
            *to = list;
        }
    }

    /// The text value of a key.
    fn text_of(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        self.mismatch(path, node, "a text", quoting(&node.value));
        None
    }

    /// An absolute path.
    pub(super) fn path(&mut self, name: &'static str, to: &mut PathBuf) {
        let mut read = Some(to.clone());
        self.optional_path(name, &mut read);
        if let Some(path) = read {
            *to = path;
        }
    }

    /// An absolute path; an empty text is `None`, if the table allows it.
    pub(super) fn optional_path(&mut self, name: &'static str, to: &mut Option<PathBuf>) {
        let Some((path, Kind::Path { optional, max }, node)) = self.value(name) else { return };
        let Some(text) = self.text_of(&path, node) else { return };
        if text.is_empty() && optional {
            *to = None;
            return;
        }
        match values::path(text, max) {
            Ok(()) => *to = Some(PathBuf::from(text)),
            Err(wrong) => self.fail(&path, node.place, wrong),
        }
    }

    /// The name of a group.
    pub(super) fn group(&mut self, name: &'static str, to: &mut String) {
        let Some((path, _, node)) = self.value(name) else { return };
        let Some(text) = self.text_of(&path, node) else { return };
        match values::group(text) {
            Ok(()) => text.clone_into(to),
            Err(wrong) => self.fail(&path, node.place, wrong),
        }
    }

    /// A text within the table's bound.
    pub(super) fn text(&mut self, name: &'static str, to: &mut String) {
        let Some((path, Kind::Text { max }, node)) = self.value(name) else { return };
        let Some(text) = self.text_of(&path, node) else { return };
        if text.len() > max {
            self.fail(
                &path,
                node.place,
                (
                    format!("`{path}` has {} bytes", text.len()),
                    format!("write at most {max} bytes"),
                ),
            );
        } else {
            text.clone_into(to);
        }
    }

    /// A program and its arguments.
    pub(super) fn command(&mut self, name: &'static str, to: &mut Vec<String>) {
        let Some((path, Kind::Texts { max }, node)) = self.value(name) else { return };
        let mut list = Vec::new();
        let words = self.texts(&path, node);
        if words.iter().map(|(word, _)| word.len() + 1).sum::<usize>() > max {
            return self.fail(
                &path,
                node.place,
                (
                    format!("`{path}` is longer than {max} bytes"),
                    "put what it does into a script".to_owned(),
                ),
            );
        }
        for (at, (word, place)) in words.into_iter().enumerate() {
            let program = if at == 0 { values::path(word, max) } else { Ok(()) };
            if let Err((message, _)) = program {
                self.fail(
                    &path,
                    place,
                    (
                        format!("the program: {message}"),
                        "write its absolute path, then each argument as a text of its own; no shell reads it".to_owned(),
                    ),
                );
            } else if at == 0 && word.contains('{') {
                self.fail(
                    &path,
                    place,
                    (
                        "the program has a macro in it".to_owned(),
                        "what a packet says must not choose the program: macros are for its arguments".to_owned(),
                    ),
                );
            } else if word.contains('\0') {
                self.fail(
                    &path,
                    place,
                    (
                        "a word of the command has a NUL in it".to_owned(),
                        "no argument can hold one (execve(2))".to_owned(),
                    ),
                );
            } else if let Err(wrong) = values::macros(word) {
                self.fail(&path, place, wrong);
            }
            list.push(word.to_owned());
        }
        if self.reader.is_sound(&[&path]) {
            *to = list;
        }
    }

    /// Notes unknown keys and duplicates of the section.
    fn finish(mut self) {
        let mut first: BTreeMap<&str, Place> = BTreeMap::new();
        for entry in self.entries {
            let path = self.path_of(&shown(&entry.key));
            if let Some(before) = first.get(entry.key.as_str()) {
                let remedy = format!(
                    "it is there already in line {}, column {}: keep one of them",
                    before.line, before.column
                );
                self.error(entry.place, (format!("duplicate key `{path}`"), remedy));
                continue;
            }
            first.insert(&entry.key, entry.place);
            if !self.names.contains(&entry.key.as_str()) {
                // A suggestion costs more than the rest of the line: none for findings that will
                // not be shown.
                let remedy = if self.reader.findings.is_full() {
                    String::new()
                } else {
                    suggest::key(&entry.key, &self.path, &self.names)
                };
                self.error(entry.place, (format!("unknown key `{path}`"), remedy));
            }
        }
    }
}
