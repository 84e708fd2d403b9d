//! Writes a configuration file with a comment above each value about its origin.

use std::path::Path;

use super::super::diagnostic::Finding;
use super::super::keys::KEYS;
use super::super::written::{File, is_visible, quoted};

/// Longest line of a comment.
const COMMENT_WIDTH: usize = 130;

/// Gives the line of a finding.
pub(super) type LineOf<'l> = &'l dyn Fn(&Finding) -> Option<&'l str>;

/// The value of a key.
pub(super) enum Value {
    /// Text after the colon.
    Inline(String),
    /// A list, an item a line: its comment, and its text unless the comment says why there is none.
    Items(Vec<(String, Option<String>)>),
}

/// A key of the new file.
pub(super) struct Item {
    path: &'static str,
    value: Value,
    comments: Vec<String>,
}

/// The new file while it is built.
#[derive(Default)]
pub(super) struct Document {
    items: Vec<Item>,
}

impl Document {
    /// Sets a key; each of `comments` becomes one or more lines above it.
    pub(super) fn set(&mut self, path: &'static str, value: Value, comments: Vec<String>) {
        self.items.push(Item { path, value, comments });
    }

    /// The text: sources, findings, differences, then the keys in the order of the table of keys.
    ///
    /// `line_of` gives the whole line of a finding: the finding itself has a shortened one.
    pub(super) fn text(
        mut self,
        sources: &[&Path],
        findings: &[Finding],
        line_of: LineOf<'_>,
        differences: &[&str],
    ) -> String {
        let mut file = File::default();
        let text = &mut file.text;
        comment(text, "PortSentry: configuration, written by \"portsentryctl import\" from");
        for source in sources {
            comment(text, &format!("  {}", source.display()));
        }
        comment(
            text,
            "Above each value stands what it comes from. A key that is not here has its default: \"portsentry --print-config\" shows all.",
        );
        text.push_str("#\n");
        comment(
            text,
            if findings.is_empty() {
                "Everything in these files was taken over as it stands."
            } else {
                "Not taken over, or not as it stands, and what to do about it:"
            },
        );
        for finding in findings {
            text.push_str("#\n");
            let place =
                if finding.line == 0 { String::new() } else { format!("{}:", finding.line) };
            comment(text, &format!("{}:{place} {}", finding.file.display(), finding.message));
            if let Some(line) = line_of(finding) {
                verbatim(text, 0, &format!("    {line}"));
            }
            if !finding.remedy.is_empty() {
                comment(text, &format!("  {}", finding.remedy));
            }
        }
        text.push_str("#\n");
        comment(text, "What is different from the old program:");
        for difference in differences {
            comment(text, &format!("- {difference}"));
        }

        let order = |item: &Item| KEYS.iter().position(|key| key.path == item.path);
        self.items.sort_by_key(order);
        for item in &self.items {
            if file.open.first().copied() != item.path.split('.').next() {
                file.text.push('\n');
            }
            let (depth, name) = file.begin(item.path);
            for piece in &item.comments {
                verbatim(&mut file.text, depth, piece);
            }
            match &item.value {
                Value::Inline(value) => file.line(depth, name, value),
                Value::Items(items) => {
                    file.line(depth, name, "");
                    for (origin, value) in items {
                        verbatim(&mut file.text, depth + 1, origin);
                        if let Some(value) = value {
                            let indent = 2 * (depth + 1);
                            let item = format!("{:indent$}- {}\n", "", quoted(value));
                            file.text.push_str(&item);
                        }
                    }
                }
            }
        }
        file.text
    }
}

/// Adds a comment, with long lines broken at blanks.
fn comment(text: &mut String, content: &str) {
    let indent = content.len() - content.trim_start_matches(' ').len();
    let mut line = String::new();
    for word in content.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
            verbatim(text, 0, &line);
            line = " ".repeat(indent + 2);
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
        }
        if line.is_empty() {
            line = " ".repeat(indent);
        }
        line.push_str(word);
    }
    verbatim(text, 0, &line);
}

/// Adds a comment of one line. Characters that YAML does not call printable or that break lines are
/// escaped, so that the comment cannot end early.
fn verbatim(text: &mut String, depth: usize, content: &str) {
    text.push_str(&format!("{:depth$}# ", "", depth = 2 * depth));
    for character in content.chars() {
        if is_visible(character) {
            text.push(character);
        } else {
            text.extend(character.escape_unicode());
        }
    }
    text.push('\n');
}
