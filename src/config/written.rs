//! Writes single values in the file's notation, so that they read back equal.

use std::time::Duration;

use super::diagnostic::is_plain;
use super::{PortSet, Size};

/// A file that is written key by key, in the order of the table of keys.
#[derive(Default)]
pub(super) struct File {
    pub(super) text: String,
    /// The sections of the last key.
    pub(super) open: Vec<&'static str>,
}

impl File {
    /// Begins the sections of the key at `path` that are not open; returns its depth and name.
    pub(super) fn begin(&mut self, path: &'static str) -> (usize, &'static str) {
        let mut sections: Vec<&str> = path.split('.').collect();
        let name = sections.pop().unwrap_or_default();
        let common = sections.iter().zip(&self.open).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            self.line(depth, section, "");
        }
        self.open = sections;
        (self.open.len(), name)
    }

    /// Writes a line: a key, and its value if it is on the same line.
    pub(super) fn line(&mut self, depth: usize, name: &str, value: &str) {
        let blank = if value.is_empty() { "" } else { " " };
        self.text.push_str(&format!("{:indent$}{name}:{blank}{value}\n", "", indent = 2 * depth));
    }
}

/// Ports: a single range as a scalar, otherwise a list.
pub(super) fn ports(ports: &PortSet) -> String {
    match ports.ranges() {
        [one] if one.start() != one.end() => ports.to_string(),
        _ => format!("[{ports}]"),
    }
}

/// A list of texts.
pub(super) fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A double-quoted scalar (YAML 1.2.2, 7.3.1): its text cannot end it or be read as another type.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' | '\n' | '\r' | '\t' => quoted.extend(character.escape_default()),
            _ if is_visible(character) => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character can stand as it is: printable for YAML (YAML 1.2.2, 5.1), and visible.
pub(super) fn is_visible(character: char) -> bool {
    matches!(character, ' '..='~')
        || (character.is_alphanumeric() && is_plain(character) && character < '\u{10000}')
}

/// A time in the largest units that are exact: `1h 30m`; `0` for none.
pub(super) fn time(time: Duration) -> String {
    if time.is_zero() {
        return "0".to_owned();
    }
    let mut left = time.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanos) in [
        ("d", 86_400_000_000_000_u128),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
        ("ns", 1),
    ] {
        if left >= nanos {
            parts.push(format!("{}{unit}", left / nanos));
            left %= nanos;
        }
    }
    parts.join(" ")
}

/// The units of sizes, the largest first.
pub(super) const UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

/// A size in the largest unit that is exact: `64M`.
pub(super) fn size(Size(bytes): Size) -> String {
    let exact = UNITS.into_iter().find(|(_, unit)| bytes >= *unit && bytes % unit == 0);
    exact.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_the_largest_exact_units() {
        for (seconds, text) in [
            (0, "0"),
            (60, "1m"),
            (3600, "1h"),
            (5400, "1h 30m"),
            (604_800, "7d"),
            (365 * 86_400, "365d"),
            (90, "1m 30s"),
        ] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
        assert_eq!(time(Duration::from_millis(1500)), "1s 500ms");
    }
}
