//! Values as messages show them.

use super::diagnostic::shown;
use super::tree::Value;

/// How to write a value as text.
pub(super) fn quoting(value: &Value) -> String {
    match value {
        Value::Whole(number) => format!("put it into quotes: \"{number}\""),
        Value::Fraction(text) => format!("put it into quotes: \"{}\"", shown(text)),
        Value::Bool(value) => format!("put it into quotes: \"{value}\""),
        // YAML reads `{target}`, and `fe80::` at the end of a list, as a key without a value.
        Value::Map(entries) if entries.len() == 1 => {
            let key = entries.first().map(|entry| shown(&entry.key)).unwrap_or_default();
            let text = if key.contains(':') { format!("{key}:") } else { format!("{{{key}}}") };
            format!(
                "braces and colons mean something in YAML: put the text into quotes: \"{text}\""
            )
        }
        _ => "write a text in quotes: \"...\"".to_owned(),
    }
}

/// A value for messages.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the switch {value}"),
        Value::Whole(number) => format!("the number {number}"),
        Value::Fraction(text) => format!("the number {}", shown(text)),
        Value::Text(text) => format!("the text `{}`", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a group of keys and values".to_owned(),
    }
}
