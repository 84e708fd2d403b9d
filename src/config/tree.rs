//! The YAML text as a tree of nodes with their places.
//!
//! serde-saphyr reads it (YAML 1.2, booleans `true` and `false` only) into types that keep
//! everything: duplicate keys and wrong types remain, so that all of them are reported together.
//! Depth, size and multiplied aliases are limited.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{
    DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter as _, NonFiniteFloatPolicy, Spanned,
    UserMessageFormatter,
};

use super::diagnostic::{Place, escaped};

/// Levels of nesting. The schema has four; the rest lets a wrong file be checked key by key.
const DEPTH_MAX: usize = 16;

/// Nodes. The largest sensible file lists every port by number in four lists; a megabyte cannot
/// hold more.
const NODES_MAX: usize = 400_000;

/// Aliases (`*name`). A port list that is used twice needs one.
const ALIASES_MAX: usize = 32;

/// Nodes that aliases may repeat in total. Aliases of aliases multiply; this stops them early.
const REPEATED_MAX: usize = 100_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    /// Its place; for an alias, the alias's place.
    pub(super) place: Place,
    pub(super) value: Value,
}

/// The content of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// Any other number, as text.
    Fraction(String),
    /// Any other scalar.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in order, duplicates included.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Place of the key.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Why a text is not a tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NotYaml {
    /// Where parsing stopped.
    pub(super) place: Option<Place>,
    /// What it is.
    pub(super) message: String,
    /// What to write instead; `None`: the message is enough.
    pub(super) remedy: Option<&'static str>,
}

/// Parses `text`, the file with this number.
///
/// # Errors
/// The first fault or exceeded limit; the text after it has no meaning.
pub(super) fn read(text: &str, file: u16) -> Result<Node, NotYaml> {
    let limits = serde_saphyr::budget! {
        max_depth: DEPTH_MAX,
        flow_nesting_limit: DEPTH_MAX,
        max_nodes: NODES_MAX,
        max_aliases: ALIASES_MAX,
        max_anchors: ALIASES_MAX,
        max_recorded_anchor_events: REPEATED_MAX,
        max_documents: 1,
    };
    let options = serde_saphyr::options! {
        budget: limits,
        strict_booleans: true,
        // "Last wins" keeps every pair, and lets the schema report the first.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPEATED_MAX, max_replay_stack_depth: DEPTH_MAX },
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(root) => Ok(node(root, (file, text))),
        // A file with comments only.
        Err(error)
            if matches!(error.without_snippet(), serde_saphyr::Error::Eof { .. })
                && is_blank(text) =>
        {
            Ok(Node { place: Place { file, line: 1, column: 1 }, value: Value::Null })
        }
        Err(error) => Err(not_yaml(error.without_snippet(), file)),
    }
}

fn not_yaml(error: &serde_saphyr::Error, file: u16) -> NotYaml {
    use serde_saphyr::Error;
    let (message, remedy) = match error {
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. }
        | Error::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), Some("keep one: remove the line `---`"))
        }
        Error::Budget {
            breach: BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. } => (
            format!(
                "the aliases multiply beyond what a configuration needs ({ALIASES_MAX} in all)"
            ),
            Some("write the values out"),
        ),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => (
            format!("the nesting is deeper than {DEPTH_MAX} levels"),
            Some("look for brackets that are not closed: the configuration has four levels"),
        ),
        Error::Budget { .. } => (
            format!("there are more than {NODES_MAX} values"),
            Some("write ports as ranges: is this the right file?"),
        ),
        Error::UnknownAnchor { .. } => (
            "the alias has no anchor before it".to_owned(),
            Some("put a text that begins with `*` or `&` into quotes"),
        ),
        Error::UnsupportedTag { .. } => (
            escaped(&UserMessageFormatter.format_message(error)),
            Some("remove the tag; put a text that begins with `!` into quotes"),
        ),
        _ => (
            format!(
                "this cannot be read as YAML: {}",
                escaped(&UserMessageFormatter.format_message(error))
            ),
            None,
        ),
    };
    NotYaml { place: error.location().and_then(|at| place(at, file)), message, remedy }
}

/// Whether the text has only blanks and comments.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

fn place(location: serde_saphyr::Location, file: u16) -> Option<Place> {
    let (line, column) =
        (u32::try_from(location.line()).ok()?, u32::try_from(location.column()).ok()?);
    (line > 0 && column > 0).then_some(Place { file, line, column })
}

/// A node from serde, before places and number texts are added.
enum Raw {
    Null,
    Bool(bool),
    Whole(i128),
    Fraction(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

/// Recursion is as deep as the text, which is limited.
fn node(raw: Spanned<Raw>, (file, text): (u16, &str)) -> Node {
    let place = place(raw.referenced, file).or_else(|| place(raw.defined, file)).unwrap_or(Place {
        file,
        line: 1,
        column: 1,
    });
    let written = || {
        let (start, length) = (raw.defined.span().byte_offset()?, raw.defined.span().byte_len()?);
        let start = usize::try_from(start).ok()?;
        Some(text.get(start..start.checked_add(usize::try_from(length).ok()?)?)?.trim().to_owned())
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Whole(value) => Value::Whole(value),
        Raw::Fraction(value) => Value::Fraction(written().unwrap_or_else(|| value.to_string())),
        Raw::Text(value) => Value::Text(value),
        Raw::List(list) => {
            Value::List(list.into_iter().map(|item| node(item, (file, text))).collect())
        }
        Raw::Map(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| entry(node(key, (file, text)), node(value, (file, text))))
                .collect(),
        ),
    };
    Node { place, value }
}

fn entry(key: Node, node: Node) -> Entry {
    let text = match key.value {
        Value::Text(text) | Value::Fraction(text) => text,
        Value::Whole(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Null => String::new(),
        Value::List(_) => "[...]".to_owned(),
        Value::Map(_) => "{...}".to_owned(),
    };
    Entry { key: text, place: key.place, node }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            pairs.push(pair);
        }
        Ok(Raw::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Vec<Entry> {
        match read(text, 0).unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    fn value(text: &str) -> Value {
        map(&format!("k: {text}\n")).remove(0).node.value
    }

    #[test]
    fn values_are_typed_as_yaml_1_2_types_them() {
        assert_eq!(value("true"), Value::Bool(true));
        for text in ["yes", "on", "off", "no", "1-1023", "10m", "127.0.0.0/8"] {
            assert_eq!(value(text), Value::Text(text.into()), "{text}");
        }
        assert_eq!(value("0x50"), Value::Whole(80));
        assert_eq!(value("-3"), Value::Whole(-3));
        assert_eq!(value("\"3\""), Value::Text("3".into()));
        assert_eq!(value("0755"), Value::Fraction("0755".into()));
        assert_eq!(value("1.50"), Value::Fraction("1.50".into()));
        assert_eq!(value("99999999999999999999"), Value::Fraction("99999999999999999999".into()));
        assert_eq!(value(".inf"), Value::Fraction(".inf".into()));
        assert_eq!(value(""), Value::Null);
        assert_eq!(value("~"), Value::Null);
    }

    #[test]
    fn places_are_lines_and_columns_in_characters_from_one() {
        let entries = map("# ä\r\ntcp:\r\n  mode: off\r\n  ports: [1, \"ä\", 7]\r\n");
        assert_eq!(entries[0].place, Place { file: 0, line: 2, column: 1 });
        let Value::Map(tcp) = &entries[0].node.value else { panic!() };
        assert_eq!(
            (tcp[0].place, tcp[0].node.place),
            (Place { file: 0, line: 3, column: 3 }, Place { file: 0, line: 3, column: 9 })
        );
        let Value::List(ports) = &tcp[1].node.value else { panic!() };
        assert_eq!(ports[2].place, Place { file: 0, line: 4, column: 19 });
    }

    #[test]
    fn every_pair_of_a_duplicate_key_is_there() {
        let entries = map("a: 1\nb: {c: 1, c: 2, c: 3}\na: 2\n");
        assert_eq!(
            entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(),
            ["a", "b", "a"]
        );
        assert_eq!(entries[2].place, Place { file: 0, line: 3, column: 1 });
        let Value::Map(inner) = &entries[1].node.value else { panic!() };
        assert_eq!(inner.len(), 3);
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let entries = map("a: &p [1, 2]\nb: *p\n");
        assert_eq!(entries[1].node.place, Place { file: 0, line: 2, column: 4 });
        let (Value::List(a), Value::List(b)) = (&entries[0].node.value, &entries[1].node.value)
        else {
            panic!()
        };
        assert_eq!(
            a.iter().map(|n| &n.value).collect::<Vec<_>>(),
            b.iter().map(|n| &n.value).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_file_of_comments_is_empty() {
        for text in ["", "\n", "# only\n  # comments", "---\n", "\u{feff}# x\n"] {
            assert_eq!(read(text, 0).map(|node| node.value), Ok(Value::Null), "{text:?}");
        }
    }

    #[test]
    fn yaml_errors_have_a_place() {
        for text in [
            "a: [1, 2\nb: 3\n",
            "a: \"x\n",
            "a:\n\t- 1\n",
            "a: b: c\n",
            "a: *unknown\n",
            "a: !!python/object x\n",
            "a: 1\n---\nb: 2\n",
            "a: &a [*a]\n",
        ] {
            let error = read(text, 0).unwrap_err();
            assert!(error.place.is_some() && !error.message.is_empty(), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn texts_made_to_be_slow_or_deep_are_refused() {
        // A parser without limits would not finish.
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
        }
        let numbered: String = (0..6_000).map(|n| format!("{n}: {n}\n")).collect();
        let same: String = "mode: x\n".repeat(10_000);
        let texts = [
            laughs,
            "[".repeat(1 << 16),
            "{a: ".repeat(1 << 14),
            "- ".repeat(1 << 15),
            "? ".repeat(1 << 15),
            numbered,
            same,
            "a".repeat(1 << 16),
            "&a ".repeat(1 << 14),
            "\"".to_owned() + &"\\".repeat(1 << 16),
            "a: ".repeat(1 << 14),
            "#\n".repeat(1 << 15),
            ("a: ".to_owned() + &"[".repeat(64)),
        ];
        for text in texts {
            let result = read(&text, 0);
            let head: String = text.chars().take(20).collect();
            if !head.starts_with(['0', 'm', '#']) && !head.starts_with("aaa") {
                assert!(result.is_err(), "{head:?}");
            }
        }
    }
}
