//! Parsers of classic values. Each fault is a finding at its place in the line.

use super::super::diagnostic::{Findings, shown};
use super::super::{PortSet, values};
use super::parse::Entry;

/// Entries of a port list that 1.2 read; it ignored the rest silently.
const OLD_PORTS_MAX: usize = 64;

/// Longest path: PATH_MAX less its NUL (linux/limits.h).
pub(super) const PATH_MAX: usize = 4095;

/// A list of ports: numbers, and ranges as 2.x has them.
pub(super) fn ports(key: &str, entry: &Entry, findings: &mut Findings<'_>) -> Option<PortSet> {
    let text = entry.value.as_deref()?;
    let pieces: Vec<&str> = text.split(',').collect();
    // A blank after every comma is a style; after some of them a character may be missing.
    let blank = |piece: &&&str| piece.starts_with(' ');
    let style = pieces.len() > 2 && pieces.iter().skip(1).all(|piece| blank(&piece));
    if style {
        findings.warning(
            entry.at(0),
            format!("the list of {key} has blanks in it, which the old programs do not allow"),
            "it is taken without them",
        );
    }
    let (mut ranges, mut offset, mut sound) = (Vec::with_capacity(pieces.len()), 0, true);
    for piece in &pieces {
        let number = piece.trim();
        let place = entry.at(offset + (piece.len() - piece.trim_start().len()));
        let odd_blank =
            piece.len() != number.len() && !(style && piece.strip_prefix(' ') == Some(number));
        offset += piece.len() + 1;
        let mut wrong = |message: String, remedy: String| {
            findings.error(place, message, remedy);
            sound = false;
        };
        if number.is_empty() {
            wrong(
                format!("{key} has an empty entry"),
                "remove the comma, or write the port that was lost".to_owned(),
            );
            continue;
        }
        if odd_blank {
            let message = format!(
                "a blank stands beside {} in {key}: a digit may have been lost",
                shown(number)
            );
            wrong(
                message,
                "write the ports with commas and without blanks, if they are right".to_owned(),
            );
        }
        match values::ports(number, 0) {
            Ok(range) => ranges.push(range),
            Err((message, remedy)) => wrong(message, remedy),
        }
    }
    if !sound {
        return None;
    }
    let set: PortSet = ranges.iter().cloned().collect();
    let listed: u32 = ranges.iter().map(|range| u32::from(range.end() - range.start()) + 1).sum();
    if listed > set.count() {
        findings.warning(
            entry.at(0),
            format!("{key} has ports twice: {listed} are listed, {} are meant", set.count()),
            "each is taken once",
        );
    }
    if pieces.len() > OLD_PORTS_MAX {
        let message = format!(
            "{key} has {} entries, of which PortSentry 1.2 watched the first {OLD_PORTS_MAX}",
            pieces.len()
        );
        findings.warning(entry.at(0), message, "all of them are taken over");
    }
    Some(set)
}

/// A whole number, at most `max`.
pub(super) fn number(
    key: &str,
    entry: &Entry,
    max: u32,
    findings: &mut Findings<'_>,
) -> Option<u32> {
    let text = entry.value.as_deref()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number <= max);
    if number.is_none() {
        let what = if digits { "out of range" } else { "not a whole number" };
        findings.error(
            entry.at(0),
            format!("{key} is `{}`, which is {what}", shown(text)),
            format!("write 0 to {max}"),
        );
    }
    number
}

/// An absolute path of at most `max` bytes. A blank in it means that the path was broken in two.
pub(super) fn path(
    key: &str,
    entry: &Entry,
    max: usize,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let text = entry.value.as_deref()?;
    if let Some(at) = text.find(char::is_whitespace) {
        let message = format!("the path of {key} has a blank in it: `{}`", shown(text));
        findings.error(
            entry.at(at),
            message,
            "remove it; give the file a name without blanks if it really has one",
        );
        return None;
    }
    if let Err((message, _)) = values::path(text, max) {
        findings.error(entry.at(0), format!("{key}: {message}"), "write an absolute path");
        return None;
    }
    Some(text.to_owned())
}
