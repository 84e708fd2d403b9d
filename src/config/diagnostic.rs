//! Findings about a configuration: fault, place, remedy.
//!
//! A finding is safe to print: control characters and characters that reorder text are escaped, and
//! lines have a maximum length. Follows the `file:line:column: error: message` form of the GNU
//! coding standards, 4.4.

use std::fmt;
use std::path::{Path, PathBuf};

/// Characters of a cited line: it fits a terminal with its indentation.
const CITED_WIDTH: usize = 100;

/// Characters kept before the column when a line is cut.
const CITED_BEFORE: usize = 60;

/// Characters of a value in a message.
const SHOWN_MAX: usize = 60;

/// Findings that are kept. A file with a hundred thousand faults must fill neither memory nor the
/// log, and more than this is never repaired at once.
const FINDINGS_MAX: usize = 200;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but probably not as intended.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A point in the text: the file's number, from 0 in the order of reading, and line and column,
/// counted in characters from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: u16,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// The place of the character at this byte of a line, whose number is counted from 1.
    pub(super) fn in_line(number: usize, line: &str, byte: usize) -> Self {
        let before = line.get(..byte).map_or(0, |before| before.chars().count());
        let bounded = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self { file: 0, line: bounded(number), column: bounded(before + 1) }
    }
}

/// A fault or oddity of a configuration file.
///
/// `Display` gives several lines: the place and message, the cited line, a caret below the column,
/// the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1; 0 when the finding is about the file as a whole.
    pub line: u32,
    /// The column, in characters from 1; 0 when the finding is about the line or file as a whole.
    pub column: u32,
    /// The fault.
    pub message: String,
    /// What to write or do instead.
    pub remedy: String,
    /// The line, escaped and cut, and the number of characters before the caret.
    cited: Option<(String, usize)>,
}

impl Finding {
    /// A finding at a place, with the text of its line; without them it is about the whole file.
    pub(super) fn new(
        severity: Severity,
        file: &Path,
        at: Option<(Place, &str)>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            file: file.to_owned(),
            line: at.map_or(0, |(place, _)| place.line),
            column: at.map_or(0, |(place, _)| place.column),
            message: message.into(),
            remedy: remedy.into(),
            cited: at.map(|(place, line)| cite(line, place.column)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", escaped(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.column > 0 {
            write!(f, "{}:", self.column)?;
        }
        write!(f, " {}: {}", self.severity, self.message)?;
        if let Some((line, before)) = &self.cited {
            write!(f, "\n    {line}\n    {:before$}^", "")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n    help: {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Collects findings about a text, or about several that make one configuration.
#[derive(Default)]
pub(super) struct Findings<'t> {
    /// The files with their lines, by number. Findings without a place are about the first.
    files: Vec<(&'t Path, Vec<&'t str>)>,
    /// The findings, each with the number of its file.
    list: Vec<(u16, Finding)>,
    unkept: usize,
}

impl<'t> Findings<'t> {
    /// An empty collection for `text` of `file`.
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self::of_lines(file, lines(text))
    }

    /// An empty collection for the lines of `file`, for formats with other line ends than YAML's.
    pub(super) fn of_lines(file: &'t Path, lines: Vec<&'t str>) -> Self {
        Self { files: vec![(file, lines)], list: Vec::new(), unkept: 0 }
    }

    /// Adds the file that is read next.
    pub(super) fn add_file(&mut self, file: &'t Path, text: &'t str) {
        self.files.push((file, lines(text)));
    }

    /// The file with this number, and its line with this number, from 1, without its end.
    fn at(&self, place: Place) -> (&'t Path, &'t str) {
        let Some((file, lines)) = self.files.get(usize::from(place.file)) else {
            return (Path::new(""), "");
        };
        let at = usize::try_from(place.line).ok().and_then(|number| number.checked_sub(1));
        (file, at.and_then(|at| lines.get(at)).copied().unwrap_or(""))
    }

    fn first_file(&self) -> &'t Path {
        self.files.first().map_or(Path::new(""), |(file, _)| file)
    }

    /// The place as `file:line`.
    pub(super) fn origin(&self, place: Place) -> String {
        format!("{}:{}", escaped(&self.at(place).0.to_string_lossy()), place.line)
    }

    /// Notes an error; without a place it is about the whole file.
    pub(super) fn error(
        &mut self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Error, place.into(), message.into(), remedy.into());
    }

    /// Notes a warning; without a place it is about the whole file.
    pub(super) fn warning(
        &mut self,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, place.into(), message.into(), remedy.into());
    }

    /// The line of the place, without its end.
    pub(super) fn line(&self, place: Place) -> &'t str {
        self.at(place).1
    }

    /// Whether further findings are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= FINDINGS_MAX
    }

    fn add(&mut self, severity: Severity, place: Option<Place>, message: String, remedy: String) {
        if self.is_full() {
            // An error replaces a warning: the result must not depend on the number of findings
            // before it.
            let warning = if severity == Severity::Error {
                self.list.iter().position(|(_, kept)| kept.severity == Severity::Warning)
            } else {
                None
            };
            self.unkept += 1;
            match warning {
                Some(at) => drop(self.list.swap_remove(at)),
                None => return,
            }
        }
        let file = place.map_or(self.first_file(), |place| self.at(place).0);
        let at = place.map(|place| (place, self.line(place)));
        let number = place.map_or(0, |place| place.file);
        self.list.push((number, Finding::new(severity, file, at, message, remedy)));
    }

    /// All findings, by place; those about the whole file come last.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        // Stable: findings at one place stay in their order.
        self.list.sort_by_key(|(file, finding)| {
            (finding.line == 0, *file, finding.line, finding.column)
        });
        let file = self.first_file();
        let mut list: Vec<_> = self.list.into_iter().map(|(_, finding)| finding).collect();
        if self.unkept > 0 {
            let severity =
                list.iter().map(|finding| finding.severity).min().unwrap_or(Severity::Warning);
            let message = format!("{} more findings are not shown", self.unkept);
            list.push(Finding::new(severity, file, None, message, "repair these first"));
        }
        list
    }
}

/// The lines of a text as YAML counts them: ended by LF, CR LF, or CR alone (YAML 1.2.2, 5.4).
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\r']) {
        let (line, end) = rest.split_at(at);
        lines.push(line);
        rest = end.strip_prefix("\r\n").or_else(|| end.get(1..)).unwrap_or("");
    }
    lines.push(rest);
    lines
}

/// The part of `line` around `column`, escaped, and the width of the text before the column.
fn cite(line: &str, column: u32) -> (String, usize) {
    let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start = if column < CITED_WIDTH { 0 } else { column - CITED_BEFORE };
    let (mut shown, mut before, mut width) = (String::new(), 0, 0);
    if start > 0 {
        shown.push_str("...");
        width = 3;
        before = 3;
    }
    let mut characters = line.chars().enumerate().skip(start);
    for (at, character) in characters.by_ref().take(CITED_WIDTH) {
        if at == column {
            before = width;
        }
        width += push_escaped(&mut shown, character);
        if at < column {
            before = width;
        }
    }
    if characters.next().is_some() {
        shown.push_str("...");
    }
    (shown, before)
}

/// A part of the file for a message: escaped and cut.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => escaped(text),
        Some((end, _)) => format!("{}...", escaped(text.get(..end).unwrap_or_default())),
    }
}

/// The whole text, escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        push_escaped(&mut escaped, character);
    }
    escaped
}

/// Adds a character, escaped if it could harm a terminal or mislead a reader; returns how many
/// characters were added.
fn push_escaped(to: &mut String, character: char) -> usize {
    if is_plain(character) {
        to.push(character);
        return 1;
    }
    to.extend(character.escape_default());
    character.escape_default().len()
}

/// Not a control character, not without width, and without effect on the text direction (Unicode
/// Annex 9).
pub(super) fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_place_line_caret_and_remedy() {
        let finding = Finding::new(
            Severity::Error,
            Path::new("a.yaml"),
            Some((Place { file: 0, line: 3, column: 7 }, "mode: on")),
            "wrong word",
            "write `enforce`",
        );
        assert_eq!(
            finding.to_string(),
            "a.yaml:3:7: error: wrong word\n    mode: on\n          ^\n    help: write `enforce`"
        );
    }

    #[test]
    fn control_characters_are_escaped_and_the_caret_is_right() {
        let (line, before) = cite("a\u{1b}[2J\u{202e}: x", 8);
        assert_eq!(line, "a\\u{1b}[2J\\u{202e}: x");
        assert_eq!(line.chars().nth(before), Some(' '));
    }

    #[test]
    fn a_long_line_is_cut_on_both_sides() {
        let (line, before) = cite(&("x".repeat(5000) + "!" + &"y".repeat(5000)), 5001);
        assert!(line.chars().count() <= CITED_WIDTH + 6, "{line}");
        assert!(line.starts_with("...x") && line.ends_with("y..."), "{line}");
        assert_eq!(line.chars().nth(before), Some('!'));
    }

    #[test]
    fn lines_end_as_yaml_ends_them() {
        assert_eq!(lines("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn findings_are_sorted_and_bounded_and_errors_are_kept() {
        let text = "a\n".repeat(1000);
        let mut findings = Findings::new(Path::new("f"), &text);
        for line in (1..=500).rev() {
            findings.warning(Some(Place { file: 0, line, column: 1 }), "odd", "");
        }
        findings.error(Some(Place { file: 0, line: 700, column: 1 }), "wrong", "");
        findings.error(None, "all of it", "");
        let list = findings.finish();
        assert_eq!(list.len(), FINDINGS_MAX + 1);
        assert!(list.windows(2).all(|pair| pair[1].line == 0 || pair[0].line <= pair[1].line));
        assert_eq!(
            list.iter().filter(|finding| finding.severity == Severity::Error).count(),
            3,
            "two, and the line that counts the rest"
        );
    }
}
