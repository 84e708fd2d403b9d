//! Failures of subcommands: exit status, and lines for standard error.

use std::error::Error;
use std::io;

use super::status;
use crate::control::client::ClientError;
use crate::control::protocol::Target;
use crate::journal::error_document::ErrorDocument;
use crate::journal::format::{printable, printable_lines};

/// Why a subcommand failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon refused the request or did not answer.
    Client(ClientError),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The daemon's answer does not fit the request.
    Answer,
    /// The block would end the session that it is typed in.
    OwnSession(Target),
    /// The command line asks for what there is not; message, remedy.
    Usage(&'static str, &'static str),
    /// The administrator did not want it after all.
    NotConfirmed,
    /// The configuration is wrong; the findings.
    Configuration(String),
    /// A file cannot be written; exit status, message, remedy.
    File(u8, String, String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    pub(super) fn exit_status(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_status(),
            Self::Output(_) | Self::Answer => status::SOFTWARE,
            Self::OwnSession(_) | Self::NotConfirmed => status::NO,
            Self::Usage(..) => status::USAGE,
            Self::Configuration(_) => status::CONFIGURATION,
            Self::File(status, ..) => *status,
        }
    }

    /// What went wrong, and what the user can do; the latter may be empty.
    fn parts(&self) -> (String, String) {
        match self {
            Self::Client(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                let message = format!("{error}{cause}").trim_end().to_owned();
                (message, error.remedy().to_owned())
            }
            Self::Output(error) => (format!("cannot write the output: {error}"), String::new()),
            Self::Answer => (
                "the daemon answered another question".to_owned(),
                "use portsentryctl of the same version as the daemon".to_owned(),
            ),
            Self::OwnSession(target) => {
                let (message, remedy) = own_session(*target);
                (message, remedy.to_owned())
            }
            Self::Usage(message, remedy) => ((*message).to_owned(), (*remedy).to_owned()),
            Self::NotConfirmed => ("nothing was changed".to_owned(), String::new()),
            Self::Configuration(findings) => (findings.trim_end().to_owned(), String::new()),
            Self::File(_, message, remedy) => (message.clone(), remedy.clone()),
        }
    }

    /// The lines for standard error.
    pub(super) fn text(&self) -> String {
        let (message, remedy) = self.parts();
        let message = printable_lines(&message);
        let mut text = match self {
            Self::Configuration(_) => format!("{message}\n"),
            _ => format!("portsentryctl: {message}\n"),
        };
        if !remedy.is_empty() {
            text.push_str(&format!("  {}\n", printable(&remedy)));
        }
        text
    }

    /// The object for standard error.
    pub(super) fn document(&self) -> ErrorDocument {
        let (message, remedy) = self.parts();
        let code = match self {
            Self::Client(error) => error.code(),
            Self::Output(_) => "output",
            Self::Answer => "unintelligible",
            Self::OwnSession(_) => "own-session",
            Self::Usage(..) => "usage",
            Self::NotConfirmed => "not-confirmed",
            Self::Configuration(_) => "configuration",
            Self::File(..) => "file",
        };
        ErrorDocument::new(code, message, remedy, self.exit_status())
    }
}

/// Why the other end of this session is not blocked, and what blocks it.
pub(super) fn own_session(target: Target) -> (String, &'static str) {
    let message = format!("{target} is not blocked: it is the other end of this SSH session");
    (message, "--force blocks it all the same")
}
