//! Findings about configuration files as objects.

use serde::Serialize;

use crate::config::{Finding, Severity};

/// A finding in JSON.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Diagnostic {
    /// The file, as it was named.
    file: String,
    /// The line, from 1; null: it is about the file as a whole.
    line: Option<u32>,
    /// The column, in characters from 1; null: it is about the line or file as a whole.
    column: Option<u32>,
    /// `error`: the configuration is refused; `warning`: it is accepted.
    #[cfg_attr(test, schemars(extend("enum" = ["error", "warning"])))]
    severity: String,
    /// The fault.
    message: String,
    /// What to write or do instead; may be empty.
    remedy: String,
}

impl Diagnostic {
    /// A warning about a file as a whole, of its text: `file: warning: fault`, and a line of help.
    pub(super) fn of_text(text: &str) -> Self {
        let (text, remedy) = text.split_once("\n    help: ").unwrap_or((text, ""));
        let (file, message) = text.split_once(": warning: ").unwrap_or(("", text));
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            severity: Severity::Warning.to_string(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// The findings as objects.
pub(super) fn diagnostics(findings: &[Finding]) -> Vec<Diagnostic> {
    let object = |finding: &Finding| Diagnostic {
        file: finding.file.to_string_lossy().into_owned(),
        line: (finding.line > 0).then_some(finding.line),
        column: (finding.column > 0).then_some(finding.column),
        severity: finding.severity.to_string(),
        message: finding.message.clone(),
        remedy: finding.remedy.clone(),
    };
    findings.iter().map(object).collect()
}
