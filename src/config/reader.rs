//! Reads the trees of all files into a configuration: finds the field of each key, and notes faults.
//!
//! A value replaces that of an earlier file. `allow` alone is added to it: an exemption that
//! another file takes away without saying so could cost an administrator the host.
//!
//! A wrong value is replaced by the default, so that reading continues and all findings are
//! reported together. A configuration with errors is never used.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Findings, Place, shown};
use super::field::Input;
use super::keys::{ALIASES, IPV6_PREFIX, KEYS, Key, Kind};
use super::phrases::describe;
use super::tree::{Entry, Node, Value};
use super::values::Wrong;
use super::{Config, suggest};

/// Reads trees.
pub(super) struct Reader<'t> {
    /// Findings so far.
    pub(super) findings: Findings<'t>,
    /// Places of the values that the files have: the one in force last, before it those it adds to.
    given: BTreeMap<&'static str, Vec<Place>>,
    /// Values that a later file replaced: key, the place in force, and the one before.
    replaced: Vec<(&'static str, Place, Place)>,
    /// Keys and sections with a wrong value: no conclusions are drawn from them.
    failed: BTreeSet<String>,
}

impl<'t> Reader<'t> {
    /// A reader that adds to `findings`.
    pub(super) fn new(findings: Findings<'t>) -> Self {
        Self { findings, given: BTreeMap::new(), replaced: Vec::new(), failed: BTreeSet::new() }
    }

    /// Reads `root` over a configuration, which is valid only if no error was noted.
    pub(super) fn read(&mut self, root: &Node, config: &mut Config) {
        match &root.value {
            Value::Map(entries) => self.section("", entries, config),
            Value::Null => {}
            other => {
                let remedy = match other {
                    Value::Text(text) if text.contains('=') => {
                        "write YAML, `key: value`; this looks like a file of PortSentry 1.2 or 2.x"
                    }
                    _ => "write keys and values: `mode: enforce`",
                };
                let message = format!("the file is {}, not keys and values", describe(other));
                self.findings.error(root.place, message, remedy);
            }
        }
    }

    /// Where each value that the files have comes from, as `file:line`.
    pub(super) fn origins(&self) -> BTreeMap<&'static str, String> {
        let origin = |places: &Vec<Place>| {
            places.iter().map(|place| self.findings.origin(*place)).collect::<Vec<_>>().join(", ")
        };
        let mut origins: BTreeMap<_, _> =
            self.given.iter().map(|(path, places)| (*path, origin(places))).collect();
        if let Some(origin) = origins.remove(IPV6_PREFIX) {
            origins.insert("block.ipv6.first", origin.clone());
            origins.insert("block.ipv6.then", origin);
        }
        origins
    }

    /// Each value that a later file replaced, in words.
    pub(super) fn replaced(&self) -> Vec<String> {
        let text = |(path, now, before): &(&str, Place, Place)| {
            let (now, before) = (self.findings.origin(*now), self.findings.origin(*before));
            format!("{now}: `{path}` replaces that of {before}")
        };
        self.replaced.iter().map(text).collect()
    }

    /// The place of the first of `paths` that the file has.
    pub(super) fn place(&self, paths: &[&str]) -> Option<Place> {
        paths.iter().find_map(|path| self.given.get(*path)?.last()).copied()
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

    /// Notes an error at the first of `paths` that the file has.
    pub(super) fn error(
        &mut self,
        paths: &[&str],
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.error(self.place(paths), message, remedy);
    }

    /// Notes a warning at the first of `paths` that the file has.
    pub(super) fn warning(
        &mut self,
        paths: &[&str],
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.warning(self.place(paths), message, remedy);
    }

    /// Notes that the value of a key or section is wrong.
    pub(super) fn fail(&mut self, path: &str, place: Place, (message, remedy): Wrong) {
        self.findings.error(place, message, remedy);
        self.given.remove(path);
        self.failed.insert(path.to_owned());
    }

    /// Reads the keys of a section, whose path is `section`; "" is the top level.
    fn section(&mut self, section: &str, entries: &[Entry], config: &mut Config) {
        let path_of = |name: &str| [section, name].join(if section.is_empty() { "" } else { "." });
        let mut first: BTreeMap<&str, Place> = BTreeMap::new();
        for entry in entries {
            let name = entry.key.as_str();
            if let Some(before) = first.get(name) {
                let remedy = format!(
                    "it is there already in line {}, column {}: keep one of them",
                    before.line, before.column
                );
                let message = format!("duplicate key `{}`", path_of(&shown(name)));
                self.findings.error(entry.place, message, remedy);
                continue;
            }
            first.insert(name, entry.place);
            let path = path_of(name);
            let at_or_below = |key: &&Key| {
                let rest = key.path.strip_prefix(&path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let mut keys = KEYS.iter().chain(ALIASES).filter(|_| !name.contains('.'));
            match keys.find(at_or_below) {
                Some(key) if key.path == path => self.value(key, entry, config),
                Some(_) => self.table(&path, entry, config),
                None => {
                    // A suggestion costs more than the rest of the line: none for findings that
                    // will not be shown.
                    let remedy = if self.findings.is_full() {
                        String::new()
                    } else {
                        suggest::key(name, section)
                    };
                    let message = format!("unknown key `{}`", path_of(&shown(name)));
                    self.findings.error(entry.place, message, remedy);
                }
            }
        }
    }

    /// Reads the section in `entry`.
    fn table(&mut self, path: &str, entry: &Entry, config: &mut Config) {
        match &entry.node.value {
            Value::Map(entries) => self.section(path, entries, config),
            // All its keys are commented out.
            Value::Null => {}
            other => {
                let message =
                    format!("`{path}` wants keys and values below it, this is {}", describe(other));
                let remedy =
                    format!("write each key on its own line, indented below `{}:`", entry.key);
                self.fail(path, entry.node.place, (message, remedy));
            }
        }
    }

    /// Reads the value of a key.
    fn value(&mut self, key: &'static Key, entry: &Entry, config: &mut Config) {
        let (path, node) = (key.path, &entry.node);
        if node.value == Value::Null {
            let remedy = format!(
                "write one ({}), or remove the line: the default is {}",
                key.kind,
                key.default_text()
            );
            return self.fail(path, entry.place, (format!("`{path}` has no value"), remedy));
        }
        let given = self.given.entry(path).or_default();
        let earlier = match key.kind {
            Kind::Networks if !given.is_empty() => std::mem::take(&mut config.allow),
            _ => {
                let before = given.last().map(|before| (path, node.place, *before));
                self.replaced.extend(before);
                given.clear();
                Vec::new()
            }
        };
        given.push(node.place);
        let field = (key.field_mut)(config);
        if let Err(wrong) = field.read(&mut Input { reader: self, key, node }) {
            self.fail(path, node.place, wrong);
        }
        if config.allow.is_empty() && !earlier.is_empty() {
            // An empty list empties it, as in the unit files of systemd.
            self.given.insert(path, vec![node.place]);
        } else if !earlier.is_empty() {
            let added = std::mem::replace(&mut config.allow, earlier);
            config.allow.retain(|old| !added.iter().any(|new| new.is_same(old)));
            config.allow.extend(added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_file_without_keys_is_the_default() {
        let mut reader = Reader::new(Findings::new(Path::new("x"), ""));
        let root = crate::config::tree::read("", 0).unwrap();
        let mut config = Config::default();
        reader.read(&root, &mut config);
        assert_eq!(config, Config::default());
        assert!(reader.findings.finish().is_empty());
    }
}
