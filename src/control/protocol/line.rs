//! Encoding of messages as lines: one JSON object with the protocol's version first.

use serde::Serialize;

use super::refusal::{Kind, Refusal};

/// The protocol's version. It is raised when programs that speak the old one would misunderstand
/// the new one.
pub const VERSION: u64 = 1;

/// Longest line of a reply, in bytes, its line end included. Lists come in many lines of
/// [`ROWS_PER_LINE`](super::ROWS_PER_LINE) rows; the longest single answer is the
/// ruleset, which with every second port excluded has some 400 KiB.
pub const REPLY_MAX: usize = 4 << 20;

/// A message as a line, with the version and its line end.
///
/// # Errors
/// [`Kind::Failed`] if it is longer than [`REPLY_MAX`], which no message should be.
pub fn line<T: Serialize>(message: &T) -> Result<String, Refusal> {
    let failed =
        |message: String| Refusal::new(Kind::Failed, message, "this is a defect; please report it");
    let object = serde_json::to_string(message)
        .map_err(|error| failed(format!("the reply cannot be written: {error}")))?;
    // Every message is an object with at least its name. The version is added here, because serde's
    // `flatten` makes long lists twice as slow.
    let Some(keys) = object.strip_prefix('{') else {
        return Err(failed("the reply is no object".to_owned()));
    };
    let mut line = format!("{{\"v\":{VERSION},{keys}");
    if line.len() >= REPLY_MAX {
        return Err(failed(format!("the reply of {} bytes is too long", line.len())));
    }
    line.push('\n');
    Ok(line)
}

/// The line of an event that is already JSON.
pub fn event_line(event: &str) -> String {
    format!("{{\"v\":{VERSION},\"reply\":\"event\",\"event\":{event}}}\n")
}
