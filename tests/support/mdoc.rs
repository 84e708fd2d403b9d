//! Parser of the manual pages: the part of mdoc(7) that man/ uses.
#![allow(dead_code, reason = "each test that includes this file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it fails"
)]

use std::collections::BTreeSet;
use std::path::Path;

/// Stands in a pattern for variable text.
pub const WILD: char = '\u{1}';

/// The pages.
pub const PAGES: [&str; 5] = [
    "portsentry.8",
    "portsentryctl.8",
    "portsentry.yaml.5",
    "portsentry-rules.7",
    "portsentry-replay.1",
];

/// The lines of a page without its comments.
pub fn page(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter(|line| !line.starts_with(".\\\"")).map(str::to_owned).collect()
}

/// The lines of a section, its heading excluded.
pub fn section(page: &[String], name: &str) -> Vec<String> {
    let heading = format!(".Sh {name}");
    let start = page
        .iter()
        .position(|line| *line == heading)
        .unwrap_or_else(|| panic!("no section {name}"));
    page[start + 1..].iter().take_while(|line| !line.starts_with(".Sh ")).cloned().collect()
}

/// An entry of a list.
#[derive(Debug, Clone)]
pub struct Item {
    /// The subsection that contains it, or nothing.
    pub subsection: String,
    /// Depth of its list: 1 is the outermost.
    pub depth: usize,
    /// Its macro line without `.It`.
    pub head: String,
    /// The lines up to the next entry of the same list, including nested lists.
    pub body: Vec<String>,
}

/// The entries of all lists in these lines.
pub fn items(lines: &[String]) -> Vec<Item> {
    let mut found: Vec<Item> = Vec::new();
    // For each open list, its current entry.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut subsection = String::new();
    for line in lines {
        if let Some(name) = line.strip_prefix(".Ss ") {
            subsection = name.to_owned();
        }
        if line.starts_with(".El") {
            open.pop();
        } else if let Some(head) = line.strip_prefix(".It ") {
            let depth = open.len();
            let outer: Vec<usize> = open[..depth - 1].iter().flatten().copied().collect();
            found.push(Item {
                subsection: subsection.clone(),
                depth,
                head: head.to_owned(),
                body: Vec::new(),
            });
            *open.last_mut().unwrap() = Some(found.len() - 1);
            outer.iter().for_each(|at| found[*at].body.push(line.clone()));
            continue;
        }
        open.iter()
            .flatten()
            .copied()
            .collect::<Vec<_>>()
            .iter()
            .for_each(|at| found[*at].body.push(line.clone()));
        if line.starts_with(".Bl") {
            open.push(None);
        }
    }
    assert!(open.is_empty(), "a list is not closed");
    found
}

/// The words of a macro line; a quoted text is one word.
pub fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(
            word.replace("\\(dq", "\"")
                .replace("\\(aq", "'")
                .replace("\\-", "-")
                .replace("\\e", "\\"),
        );
        rest = after.trim_start();
    }
    words
}

/// Macros that change the font, or end that.
const MACROS: [&str; 16] = [
    "Ar", "Cm", "Dv", "Em", "Ev", "Fl", "Ic", "Li", "No", "Op", "Oo", "Oc", "Pa", "Ql", "Sy", "Xr",
];

/// The arguments of every `name` macro in these lines, without punctuation. Other macros on the
/// line end the arguments.
pub fn arguments(lines: &[String], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix('.')) {
        let mut current = String::new();
        for word in split_words(line) {
            if MACROS.contains(&word.as_str())
                || matches!(word.as_str(), "It" | "Pq" | "Po" | "Pc" | "Ns" | "Dl")
            {
                current = word;
            } else if current == name && word.chars().any(char::is_alphanumeric) {
                found.insert(word);
            }
        }
    }
    found
}

/// The printed text of a macro line, with [`WILD`] for each word of `Ar`.
pub fn pattern(head: &str) -> String {
    let mut text = String::new();
    let (mut wild, mut glued) = (false, true);
    for word in split_words(head) {
        match word.as_str() {
            "Ar" => wild = true,
            "Ns" => (glued, wild) = (true, false),
            other if MACROS.contains(&other) => wild = false,
            delimiter @ ("." | "," | ":" | ";" | ")" | "?" | "!") => {
                text.push_str(delimiter);
                wild = false;
            }
            plain => {
                if !glued {
                    text.push(' ');
                }
                glued = false;
                if wild { text.push(WILD) } else { text.push_str(plain) }
            }
        }
    }
    text
}

/// Whether `text` matches `pattern`, in which each [`WILD`] stands for any text, or none.
pub fn fits(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.split(WILD).collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
