//! Parser of classic files: lines into entries with their places. Total: any bytes give entries and
//! findings.
//!
//! The rules are those of 1.2 and 2.x: `KEY="value"`, blanks around `=`, comments have `#` in
//! column 1, the first line of a key wins. A damaged line that both programs misread or ignore is
//! an error here.

use std::collections::BTreeMap;

use super::super::diagnostic::{Findings, Place, is_plain, shown};
use super::super::nearest::nearest;
use super::keys::{DEFAULTS, Form, KEYS, MACROS};

/// Bytes of a line that the old programs read at once (their buffer of 1024 less its NUL); the rest
/// became another line.
const OLD_LINE_MAX: usize = 1023;

/// A `KEY="value"` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The text between the quotes; `None` if the line is damaged, for which there is a finding.
    pub(super) value: Option<String>,
    /// Place of the key.
    pub(super) place: Place,
    /// Column of the value's first character, from 1.
    pub(super) value_column: u32,
    /// The whole line.
    pub(super) text: String,
}

impl Entry {
    /// The place of the character at this byte offset in the value.
    pub(super) fn at(&self, offset: usize) -> Place {
        let before = self
            .value
            .as_deref()
            .and_then(|value| value.get(..offset))
            .map_or(0, |before| before.chars().count());
        Place { line: self.place.line, column: self.value_column.saturating_add(count(before)) }
    }
}

/// The entries of a file by key.
pub(super) type Entries = BTreeMap<&'static str, Entry>;

/// A character or line number as places have it.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The text of a file of unknown encoding; bytes that are not UTF-8 become U+FFFD.
pub(super) fn text_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()
}

/// The lines of a text, which end with LF or CR LF, or at the end of the text.
pub(super) fn lines_of(text: &str) -> Vec<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect()
}

/// The fault of a line: column, message, remedy.
type Wrong = (usize, String, String);

/// A line with a key: the key, the byte offset of the value, the value.
struct Line<'l> {
    key: &'l str,
    start: usize,
    value: Result<&'l str, Wrong>,
}

/// The entries of a configuration file.
pub(super) fn config(lines: &[&str], findings: &mut Findings<'_>) -> Entries {
    let mut entries = Entries::new();
    for (at, line) in lines.iter().enumerate() {
        let number = count(at + 1);
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let place = |column| Place { line: number, column: count(column) };
        if line.trim_start().starts_with('#') {
            let column = line.chars().take_while(|c| c.is_whitespace()).count() + 1;
            findings.warning(
                Some(place(column)),
                "a comment begins in column 1: PortSentry 2.x does not start with this line",
                "it is taken as a comment; remove the blanks before it",
            );
            continue;
        }
        match split(line) {
            Err((column, message, remedy)) => findings.error(Some(place(column)), message, remedy),
            Ok(found) => {
                if line.len() > OLD_LINE_MAX {
                    findings.warning(
                        Some(place(1)),
                        format!("the line has {} bytes: the old programs read the first {OLD_LINE_MAX} of them", line.len()),
                        "all of it is taken over",
                    );
                }
                add(&mut entries, KEYS, line, number, found, First::Wins, findings);
            }
        }
    }
    entries
}

/// Which of two lines with the same key counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Wins,
    IsReplaced,
}

fn add(
    entries: &mut Entries,
    keys: &'static [(&'static str, Form)],
    line: &str,
    number: u32,
    found: Line<'_>,
    first: First,
    findings: &mut Findings<'_>,
) {
    let place = |column: usize| Place { line: number, column: count(column) };
    let column_of = |byte: usize| line.get(..byte).map_or(1, |before| before.chars().count() + 1);
    let Some(&(key, form)) = keys.iter().find(|(known, _)| *known == found.key) else {
        let remedy = nearest(found.key, keys.iter().map(|(known, _)| *known)).map_or_else(
            || "its value is not taken over".to_owned(),
            |near| format!("did you mean {near}? as it stands, its value is not taken over"),
        );
        findings.warning(
            Some(place(1)),
            format!(
                "unknown key `{}`, which the old programs do not read either",
                shown(found.key)
            ),
            remedy,
        );
        if let Err((column, message, remedy)) = found.value {
            findings.error(Some(place(column)), message, remedy);
        }
        return;
    };
    let mut entry = Entry {
        value: None,
        place: place(1),
        value_column: count(column_of(found.start)),
        text: line.trim_end().to_owned(),
    };
    match found.value {
        Err((column, message, remedy)) => findings.error(Some(place(column)), message, remedy),
        Ok(value) => {
            if let Some((at, bad)) =
                value.char_indices().find(|(_, c)| !is_plain(*c) || *c == '\u{fffd}')
            {
                let message = format!(
                    "the value of {key} has `{}` in it, a character that is no text, or no UTF-8",
                    shown(&bad.to_string())
                );
                findings.error(
                    Some(place(column_of(found.start + at))),
                    message,
                    "remove it; if it is text, convert the file: iconv -f LATIN1 -t UTF-8",
                );
            } else if let Some((at, message, remedy)) =
                damaged_macro(value).filter(|_| form == Form::Macros)
            {
                findings.error(Some(place(column_of(found.start + at))), message, remedy);
            } else {
                entry.value = Some(value.to_owned());
            }
        }
    }
    if let Some(before) = entries.get(key) {
        let line = before.place.line;
        let which = match first {
            First::Wins => format!("the first one, in line {line}, counts; remove this line"),
            First::IsReplaced => {
                format!("this one counts, as a shell reads it; remove line {line}")
            }
        };
        findings.warning(Some(place(1)), format!("{key} is there already"), which);
        if first == First::Wins {
            return;
        }
    }
    if entry.value.as_deref().is_some_and(|value| value.trim().is_empty()) {
        findings.warning(
            Some(place(1)),
            format!("{key} is empty"),
            "it is taken as if the line were not there",
        );
        entry.value = None;
    }
    entries.insert(key, entry);
}

/// Splits a line into key and value.
fn split(line: &str) -> Result<Line<'_>, Wrong> {
    let column = |byte: usize| line.get(..byte).map_or(1, |before| before.chars().count() + 1);
    let wrong = |byte: usize, message: &str, remedy: &str| {
        Err((column(byte), message.to_owned(), remedy.to_owned()))
    };
    if line.starts_with(char::is_whitespace) {
        return wrong(
            0,
            "the line begins with a blank: the old programs do not read it",
            "remove the blank, or the line",
        );
    }
    let key_end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(line.len());
    let (key, rest) = line.split_at(key_end);
    let after = rest.trim_start_matches([' ', '\t']);
    let Some(behind) = after.strip_prefix('=').filter(|_| !key.is_empty()) else {
        return wrong(
            0,
            "this is neither a comment nor KEY=\"value\"",
            "if it is the end of the line before, join the two; if it is a comment, begin it with #",
        );
    };
    let quoted = behind.trim_start_matches([' ', '\t']);
    let start = line.len() - quoted.len();
    let damaged = |byte: usize, message: &str, remedy: &str| {
        Ok(Line { key, start, value: Err((column(byte), message.to_owned(), remedy.to_owned())) })
    };
    let Some(inside) = quoted.strip_prefix('"') else {
        return if quoted
            .starts_with(['\u{201c}', '\u{201d}', '\u{201e}', '\'', '\u{2018}', '\u{2019}'])
        {
            damaged(
                start,
                "the value does not stand in straight double quotes",
                "write KEY=\"value\"",
            )
        } else {
            damaged(
                start,
                "the value does not stand in quotes: the old programs do not read it",
                "write KEY=\"value\"",
            )
        };
    };
    let Some((value, rest)) = inside.split_once('"') else {
        return damaged(
            start,
            "the quote is not closed in this line",
            "put the rest of the value and the closing quote into this line",
        );
    };
    let trailing = rest.trim_start();
    if !trailing.is_empty() && !trailing.starts_with('#') {
        return damaged(
            line.len() - trailing.len(),
            "text stands behind the closing quote: the old programs do not read it",
            "remove it; a value cannot have a double quote in it",
        );
    }
    Ok(Line { key, start: start + 1, value: Ok(value) })
}

/// A macro that lost a character: byte offset, message, remedy.
fn damaged_macro(value: &str) -> Option<Wrong> {
    let mut from = 0;
    while let Some(at) = value.get(from..)?.find('$').map(|at| at + from) {
        let rest = value.get(at..)?;
        if let Some((known, _)) = MACROS.iter().find(|(known, _)| rest.starts_with(known)) {
            from = at + known.len();
            continue;
        }
        let inside = rest.get(1..)?;
        let word = inside.trim_start();
        let name_end =
            word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
        let name = word.get(..name_end)?;
        let meant =
            MACROS.iter().find(|(known, _)| known.trim_matches('$').eq_ignore_ascii_case(name));
        if let Some((known, _)) = meant {
            let behind = word.get(name_end..)?;
            let closed = behind.trim_start().starts_with('$');
            let blanks = inside.len() - word.len();
            let end = 1
                + blanks
                + name_end
                + if closed { behind.len() - behind.trim_start().len() + 1 } else { 0 };
            let text = rest.get(..end)?;
            return Some((
                at,
                format!("`{}` is no macro: it is not replaced", shown(text)),
                format!("write {known}"),
            ));
        }
        from = at + 1;
    }
    None
}

/// The variables of `/etc/default/portsentry`, as far as they can be read without a shell.
pub(super) fn defaults(lines: &[&str], findings: &mut Findings<'_>) -> Entries {
    let mut entries = Entries::new();
    for (at, line) in lines.iter().enumerate() {
        let number = count(at + 1);
        let assignment = line.trim();
        if assignment.is_empty() || assignment.starts_with('#') {
            continue;
        }
        let place = Some(Place { line: number, column: 1 });
        let assignment = assignment.strip_prefix("export ").map_or(assignment, str::trim_start);
        let Some((key, value)) = assignment
            .split_once('=')
            .filter(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        else {
            findings.warning(
                place,
                "this is no assignment",
                "only TCP_MODE=\"...\" and UDP_MODE=\"...\" are read; the line is not taken over",
            );
            continue;
        };
        let start = line.len() - line.trim_start().len() + (line.trim().len() - value.len());
        let value = match value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            Some(quote) => value
                .get(1..)
                .and_then(|inside| inside.split_once(quote))
                .filter(|(_, rest)| is_end(rest))
                .map(|(value, _)| value),
            None => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                value.split_at_checked(end).filter(|(_, rest)| is_end(rest)).map(|(value, _)| value)
            }
        };
        let column = line.get(..start).map_or(1, |before| before.chars().count() + 1);
        let needs_shell =
            |value: &&str| !value.contains(['$', '`', '\\', ';', '&', '|', '"', '\'']);
        let value = value.filter(needs_shell).ok_or_else(|| {
            (
                column,
                "this value takes a shell to read".to_owned(),
                "write TCP_MODE=\"atcp\" or the like, or give --mode".to_owned(),
            )
        });
        if !DEFAULTS.iter().any(|(known, _)| *known == key) {
            findings.warning(
                place,
                format!("`{}` is not a variable of PortSentry's", shown(key)),
                "the line is not taken over",
            );
            continue;
        }
        add(
            &mut entries,
            DEFAULTS,
            line,
            number,
            Line { key, start, value },
            First::IsReplaced,
            findings,
        );
    }
    entries
}

/// Whether at most a comment follows a value.
fn is_end(rest: &str) -> bool {
    let rest = rest.trim();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> (Entries, Vec<String>) {
        let lines = lines_of(text);
        let mut findings = Findings::of_lines(Path::new("f"), lines.clone());
        let entries = config(&lines, &mut findings);
        let told = findings
            .finish()
            .iter()
            .map(|f| format!("{}:{} {} {}", f.line, f.column, f.severity, f.message))
            .collect();
        (entries, told)
    }

    fn value(text: &str, key: &str) -> Option<String> {
        read(text).0.get(key).and_then(|entry| entry.value.clone())
    }

    #[test]
    fn a_line_is_read_as_the_old_programs_read_it() {
        for line in [
            "TCP_PORTS=\"1,2\"",
            "TCP_PORTS = \"1,2\"",
            "TCP_PORTS\t=\t\"1,2\" ",
            "TCP_PORTS=\"1,2\" # two",
            "TCP_PORTS=\"1,2\"\r\n",
            "\u{feff}TCP_PORTS=\"1,2\"",
        ] {
            assert_eq!(
                value(&text_of(line.as_bytes()), "TCP_PORTS").as_deref(),
                Some("1,2"),
                "{line}"
            );
        }
    }

    #[test]
    fn of_two_lines_the_first_counts_and_the_second_is_a_finding() {
        let (entries, told) = read("BLOCK_TCP=\"1\"\nBLOCK_TCP=\"0\"\n");
        assert_eq!(entries["BLOCK_TCP"].value.as_deref(), Some("1"));
        assert_eq!(told, ["2:1 warning BLOCK_TCP is there already"]);
    }

    #[test]
    fn each_damaged_line_is_a_finding_at_its_place() {
        let text = "TCP_PORTS=\"1,2\n3,4\"\nBLOCK_TCP=1\n BLOCK_UDP=\"1\"\nSCAN_TRIGGER=\"0\" 1\nKILL_ROUTE=\"route $ TARGET $\"\nKILL_RUN_CMD=\"/bin/x $target$ $PORT\"\nBLOCKED_FILE=\u{201c}/x\u{201d}\n";
        let (_, told) = read(text);
        let places: Vec<_> = told.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(
            places,
            ["1:11", "2:1", "3:11", "4:1", "5:18", "6:19", "7:22", "8:14"],
            "{told:?}"
        );
        assert!(told.iter().all(|line| line.contains(" error ")), "{told:?}");
    }

    #[test]
    fn invalid_utf8_is_refused_in_values_and_accepted_in_comments() {
        let (_, told) = read(&text_of(b"# caf\xe9\nPORT_BANNER=\"caf\xe9\"\n"));
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("2:17 error"), "{told:?}");
    }

    #[test]
    fn the_defaults_are_read_as_a_shell_reads_them() {
        let text = "# c\nTCP_MODE=\"tcp\"\nexport UDP_MODE=sudp # x\nTCP_MODE='atcp'\nDAEMON_ARGS=\"$(x)\"\nif true; then\n";
        let lines = lines_of(text);
        let mut findings = Findings::of_lines(Path::new("f"), lines.clone());
        let entries = defaults(&lines, &mut findings);
        assert_eq!(entries["TCP_MODE"].value.as_deref(), Some("atcp"));
        assert_eq!(entries["UDP_MODE"].value.as_deref(), Some("sudp"));
        let lines: Vec<_> =
            findings.finish().iter().map(|finding| (finding.line, finding.severity)).collect();
        use super::super::super::Severity::Warning;
        assert_eq!(lines, [(4, Warning), (5, Warning), (6, Warning)]);
    }
}
