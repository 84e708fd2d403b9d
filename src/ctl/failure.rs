//! Failures of subcommands: exit status, and lines for standard error.

use std::error::Error;
use std::io;

use super::status;
use crate::control::client::ClientError;
use crate::control::protocol::Target;
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

    /// The lines for standard error.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Client(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                let mut text = format!("portsentryctl: {}\n", printable_lines(&format!("{error}{cause}")).trim_end());
                if !error.remedy().is_empty() {
                    text.push_str(&format!("  {}\n", printable(error.remedy())));
                }
                text
            }
            Self::Output(error) => format!("portsentryctl: cannot write the output: {error}\n"),
            Self::Answer => "portsentryctl: the daemon answered another question\n  use portsentryctl of the same version as the daemon\n".to_owned(),
            Self::OwnSession(target) => {
                let (message, remedy) = own_session(*target);
                format!("portsentryctl: {message}\n  {remedy}\n")
            }
            Self::Usage(message, remedy) => format!("portsentryctl: {message}\n  {remedy}\n"),
            Self::NotConfirmed => "portsentryctl: nothing was changed\n".to_owned(),
            Self::Configuration(findings) => format!("{}\n", printable_lines(findings).trim_end()),
            Self::File(_, message, remedy) => format!("portsentryctl: {}\n  {}\n", printable(message), printable(remedy)),
        }
    }
}

/// Why the other end of this session is not blocked, and what blocks it.
pub(super) fn own_session(target: Target) -> (String, &'static str) {
    let message = format!("{target} is not blocked: it is the other end of this SSH session");
    (message, "--force blocks it all the same")
}
