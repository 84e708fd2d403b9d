//! Errors of a program that was asked for JSON.

use serde::Serialize;

use super::format::printable_json;

/// The codes of errors, which programs rely on.
#[cfg(test)]
pub(crate) const CODES: &[&str] = &[
    "no",
    "bad-request",
    "busy",
    "failed",
    "not-permitted",
    "configuration",
    "unknown",
    "unreachable",
    "late",
    "closed",
    "lost",
    "unintelligible",
    "output",
    "own-session",
    "usage",
    "not-confirmed",
    "not-all",
    "file",
    "no-capture",
    "geo",
];

/// An error with `--json`, on one line of standard error.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ErrorDocument {
    error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ErrorObject {
    /// What kind of error it is, in a word.
    #[cfg_attr(test, schemars(extend("enum" = CODES)))]
    code: &'static str,
    /// What went wrong.
    message: String,
    /// What the user can do; may be empty.
    remedy: String,
    /// The exit status of the program.
    exit_status: u8,
}

impl ErrorDocument {
    pub(crate) fn new(code: &'static str, message: String, remedy: String, status: u8) -> Self {
        Self { error: ErrorObject { code, message, remedy, exit_status: status } }
    }

    /// Of what the parser of command lines says: the fault, and after an empty line the usage.
    pub(crate) fn of_command_line(text: &str, status: u8) -> Self {
        let (message, remedy) = text.split_once("\n\n").unwrap_or((text, ""));
        let message = message.strip_prefix("error: ").unwrap_or(message).trim();
        Self::new("usage", message.to_owned(), remedy.trim().to_owned(), status)
    }

    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        printable_json(&text) + "\n"
    }
}
