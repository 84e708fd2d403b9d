//! Parser of classic files: lines into entries with their places. Total: any bytes give entries and
//! findings.
//!
//! The rules are those of 1.2 and 2.x: `KEY="value"`, blanks around `=`, comments have `#` in
//! column 1; of two lines with the same key 1.2 takes the first, 2.x the last ([`Edition`]). A line
//! that begins with a blank is not read. Any other damaged line that both programs misread or ignore
//! is an error here.

use std::collections::BTreeMap;

use super::super::diagnostic::{Findings, Place, is_plain, shown};
use super::super::nearest::nearest;
use super::Modes;
use super::keys::{DEFAULTS, KEYS, MACROS, OPTIONS, WITH_MACROS};

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
    /// Byte offset of the value in the line.
    start: usize,
    /// The whole line.
    pub(super) text: String,
}

impl Entry {
    /// The place of the character at this byte offset in the value.
    pub(super) fn at(&self, offset: usize) -> Place {
        Place { line: self.place.line, ..Place::in_line(0, &self.text, self.start + offset) }
    }
}

/// Whose file it is. 2.x has no `ADVANCED_*` keys and does not start with one; every edition of
/// 1.2's file has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    /// PortSentry 1.2.
    One,
    /// PortSentry 2.x.
    Two,
}

impl Edition {
    /// The edition of a configuration file with these lines.
    pub(super) fn of(lines: &[&str]) -> Self {
        if lines.iter().any(|line| line.starts_with("ADVANCED_")) { Self::One } else { Self::Two }
    }

    /// Which of two lines with the same key counts.
    fn of_two(self) -> OfTwo {
        match self {
            Self::One => OfTwo::First,
            Self::Two => OfTwo::Last("as PortSentry 2.x reads it; 1.2 would take the first"),
        }
    }
}

/// Which of two lines with the same key counts.
#[derive(Debug, Clone, Copy)]
enum OfTwo {
    /// The first.
    First,
    /// The last, and why.
    Last(&'static str),
}

/// The entries of a file by key.
pub(super) type Entries = BTreeMap<&'static str, Entry>;

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

/// The fault of a line: byte offset, message, remedy.
type Wrong = (usize, String, String);

fn wrong<T>(at: usize, message: impl Into<String>, remedy: &str) -> Result<T, Wrong> {
    Err((at, message.into(), remedy.to_owned()))
}

/// A line with a key: the key, the byte offset of the value, the value.
struct Line<'l> {
    key: &'l str,
    start: usize,
    value: Result<&'l str, Wrong>,
}

/// The entries of a configuration file.
pub(super) fn config(lines: &[&str], edition: Edition, findings: &mut Findings<'_>) -> Entries {
    let mut entries = Entries::new();
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let place = |byte| Place::in_line(at + 1, line, byte);
        let content = line.trim_start();
        if content.starts_with('#') {
            findings.warning(
                place(line.len() - content.len()),
                "a comment begins in column 1: PortSentry 2.x does not start with this line",
                "it is taken as a comment; remove the blanks before it",
            );
            continue;
        }
        if content.len() < line.len() {
            findings.warning(
                place(0),
                "the line begins with a blank: PortSentry 1.2 does not read it, and 2.x does not start with it",
                "it is not taken over; remove the blank and import again if it is meant",
            );
            continue;
        }
        match split(line) {
            Err((at, message, remedy)) => findings.error(place(at), message, remedy),
            Ok(found) => {
                if line.len() > OLD_LINE_MAX {
                    findings.warning(
                        place(0),
                        format!("the line has {} bytes: the old programs read the first {OLD_LINE_MAX} of them", line.len()),
                        "all of it is taken over",
                    );
                }
                add(&mut entries, KEYS, (at + 1, line), found, edition.of_two(), findings);
            }
        }
    }
    entries
}

/// Adds a line to the entries.
fn add(
    entries: &mut Entries,
    keys: &'static [(&'static str, &'static str)],
    (number, line): (usize, &str),
    found: Line<'_>,
    of_two: OfTwo,
    findings: &mut Findings<'_>,
) {
    let place = |byte| Place::in_line(number, line, byte);
    let known = keys.iter().map(|(known, _)| *known);
    let Some(key) = known.clone().find(|known| *known == found.key) else {
        let remedy = nearest(found.key, known).map_or_else(
            || "its value is not taken over".to_owned(),
            |near| format!("did you mean {near}? as it stands, its value is not taken over"),
        );
        let key = shown(found.key);
        findings.warning(
            place(0),
            format!("unknown key `{key}`, which the old programs do not read either"),
            remedy,
        );
        if let Err((at, message, remedy)) = found.value {
            findings.error(place(at), message, remedy);
        }
        return;
    };
    let value = found.value.and_then(|value| {
        undamaged(key, value).map_err(|(at, message, remedy)| (found.start + at, message, remedy))
    });
    if let Err((at, message, remedy)) = &value {
        findings.error(place(*at), message, remedy);
    }
    if let Some(before) = entries.get(key) {
        let line = before.place.line;
        let which = match of_two {
            OfTwo::Last(why) => format!("this one counts, {why}; remove line {line}"),
            OfTwo::First => format!("the first one, in line {line}, counts; remove this line"),
        };
        findings.warning(place(0), format!("{key} is there already"), which);
        if matches!(of_two, OfTwo::First) {
            return;
        }
    }
    if value.as_ref().is_ok_and(|value| value.trim().is_empty()) {
        let message = format!("{key} is empty");
        findings.warning(place(0), message, "it is taken as if the line were not there");
    }
    let value = value.ok().filter(|value| !value.trim().is_empty()).map(str::to_owned);
    let text = line.trim_end().to_owned();
    entries.insert(key, Entry { value, place: place(0), start: found.start, text });
}

/// The value of a key, if all of it is text and no macro in it is damaged.
fn undamaged<'v>(key: &str, value: &'v str) -> Result<&'v str, Wrong> {
    if let Some((at, bad)) = value.char_indices().find(|(_, c)| !is_plain(*c) || *c == '\u{fffd}') {
        let bad = shown(&bad.to_string());
        return wrong(
            at,
            format!(
                "the value of {key} has `{bad}` in it, a character that is no text, or no UTF-8"
            ),
            "remove it; if it is text, convert the file: iconv -f LATIN1 -t UTF-8",
        );
    }
    let damaged = damaged_macro(value).filter(|_| WITH_MACROS.contains(&key));
    damaged.map_or(Ok(value), Err)
}

/// Splits a line into key and value.
fn split(line: &str) -> Result<Line<'_>, Wrong> {
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
    Ok(Line { key, start: start + 1, value: unquoted(line, start, quoted) })
}

/// The text between the quotes; `quoted` begins at the byte `start` of `line`.
fn unquoted<'l>(line: &str, start: usize, quoted: &'l str) -> Result<&'l str, Wrong> {
    let Some(inside) = quoted.strip_prefix('"') else {
        let other_quotes = ['\u{201c}', '\u{201d}', '\u{201e}', '\'', '\u{2018}', '\u{2019}'];
        let message = if quoted.starts_with(other_quotes) {
            "the value does not stand in straight double quotes"
        } else {
            "the value does not stand in quotes: the old programs do not read it"
        };
        return wrong(start, message, "write KEY=\"value\"");
    };
    let Some((value, rest)) = inside.split_once('"') else {
        return wrong(
            start,
            "the quote is not closed in this line",
            "put the rest of the value and the closing quote into this line",
        );
    };
    let trailing = rest.trim_start();
    if !trailing.is_empty() && !trailing.starts_with('#') {
        return wrong(
            line.len() - trailing.len(),
            "text stands behind the closing quote: the old programs do not read it",
            "remove it; a value cannot have a double quote in it",
        );
    }
    Ok(value)
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

/// The settings of an init script.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    /// The variables, as far as they can be read without a shell.
    pub(super) entries: Entries,
    /// The modes of a file without variables, as RPM packages have it (`portsentry.modes`): words,
    /// and `#` before comments.
    pub(super) words: Vec<Entry>,
}

impl Defaults {
    /// Whether they are for PortSentry 1.2: 2.x has no modes but --connect and --stealth.
    pub(super) fn is_1_2(&self) -> bool {
        !self.words.is_empty() || self.entries.keys().any(|key| *key != OPTIONS)
    }
}

/// The settings in a file of an init script.
pub(super) fn defaults(lines: &[&str], findings: &mut Findings<'_>) -> Defaults {
    let (mut entries, mut words) = (Entries::new(), Vec::new());
    for (at, line) in lines.iter().enumerate() {
        let assignment = line.trim();
        if assignment.is_empty() || assignment.starts_with('#') {
            continue;
        }
        let content = line.split('#').next().unwrap_or_default();
        if content.split_whitespace().all(|word| Modes::of_word(word).is_some()) {
            words.extend(content.split_whitespace().map(|word| Entry {
                value: Some(word.to_owned()),
                place: Place::in_line(at + 1, line, 0),
                start: content.len() - content.trim_start().len(),
                text: line.trim_end().to_owned(),
            }));
            continue;
        }
        let place = Place::in_line(at + 1, line, 0);
        let assignment = assignment.strip_prefix("export ").map_or(assignment, str::trim_start);
        let Some((key, value)) = assignment
            .split_once('=')
            .filter(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        else {
            findings.warning(
                place,
                "this is no assignment",
                "only TCP_MODE=\"...\", PORTSENTRY_MODES=\"...\" and the like are read; the line is not taken over",
            );
            continue;
        };
        if !DEFAULTS.iter().any(|(known, _)| *known == key) {
            findings.warning(
                place,
                format!("`{}` is not a variable of PortSentry's", shown(key)),
                "the line is not taken over",
            );
            continue;
        }
        let start = line.trim_end().len() - value.len();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let parts = match quote {
            Some(quote) => value.get(1..).and_then(|inside| inside.split_once(quote)),
            None => value.split_at_checked(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        let value = parts.filter(|(_, rest)| is_end(rest)).map(|(value, _)| value);
        let is_literal = |value: &&str| !value.contains(['$', '`', '\\', ';', '&', '|', '"', '\'']);
        let value = match value.filter(is_literal) {
            Some(value) => Ok(value),
            None => wrong(
                start,
                "this value takes a shell to read",
                "write TCP_MODE=\"atcp\" or the like, or give --mode",
            ),
        };
        let found = Line { key, start, value };
        let of_two = OfTwo::Last("as a shell reads it");
        add(&mut entries, DEFAULTS, (at + 1, line), found, of_two, findings);
    }
    Defaults { entries, words }
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
        let entries = config(&lines, Edition::of(&lines), &mut findings);
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
        let text = "BLOCK_TCP=\"1\"\nBLOCK_TCP=\"0\"\n";
        let (entries, told) = read(&format!("{text}ADVANCED_PORTS_TCP=\"1024\"\n"));
        assert_eq!(entries["BLOCK_TCP"].value.as_deref(), Some("1"));
        assert_eq!(told, ["2:1 warning BLOCK_TCP is there already"]);
    }

    #[test]
    fn of_two_lines_of_2_x_the_last_counts_and_is_a_finding() {
        let (entries, told) = read("BLOCK_TCP=\"1\"\nBLOCK_TCP=\"0\"\n");
        assert_eq!(entries["BLOCK_TCP"].value.as_deref(), Some("0"));
        assert_eq!(told, ["2:1 warning BLOCK_TCP is there already"]);
    }

    #[test]
    fn a_line_with_a_leading_blank_is_not_read_and_is_a_finding() {
        let (entries, told) =
            read(" BLOCK_UDP=\"1\"\n\tBLOCK_TCP=\"1\"\n  and so on\nBLOCK_UDP=\"0\"\n");
        assert_eq!(entries["BLOCK_UDP"].value.as_deref(), Some("0"));
        assert_eq!(entries.len(), 1);
        let places: Vec<_> = told.iter().map(|line| line.split_once(" the ").unwrap().0).collect();
        assert_eq!(places, ["1:1 warning", "2:1 warning", "3:1 warning"], "{told:?}");
    }

    #[test]
    fn each_damaged_line_is_a_finding_at_its_place() {
        let text = "TCP_PORTS=\"1,2\n3,4\"\nBLOCK_TCP=1\nBLOCK_UDP \"1\"\nSCAN_TRIGGER=\"0\" 1\nKILL_ROUTE=\"route $ TARGET $\"\nKILL_RUN_CMD=\"/bin/x $target$ $PORT\"\nBLOCKED_FILE=\u{201c}/x\u{201d}\n";
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
        let entries = defaults(&lines, &mut findings).entries;
        assert_eq!(entries["TCP_MODE"].value.as_deref(), Some("atcp"));
        assert_eq!(entries["UDP_MODE"].value.as_deref(), Some("sudp"));
        let lines: Vec<_> =
            findings.finish().iter().map(|finding| (finding.line, finding.severity)).collect();
        use super::super::super::Severity::Warning;
        assert_eq!(lines, [(4, Warning), (5, Warning), (6, Warning)]);
    }
}
