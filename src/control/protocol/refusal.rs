//! Refused requests, with the exit status of `portsentryctl` (sysexits(3head)).

use serde::{Deserialize, Serialize};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Kind of refusal.
    pub kind: Kind,
    /// The reason.
    pub message: String,
    /// What the user can do; may be empty.
    #[serde(default)]
    pub remedy: String,
}

impl Refusal {
    /// A refusal with a remedy, which may be empty.
    pub fn new(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: remedy.into() }
    }
}

/// Kinds of refusals. A client may get one of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Not blocked, nothing known, or never to be blocked. Exit status 1.
    No,
    /// The request is malformed. Exit status 64.
    BadRequest,
    /// Too many clients, or too slow a reader; try again later. Exit status 69.
    Busy,
    /// The daemon, or the kernel, failed. Exit status 70.
    Failed,
    /// The client's user may not do this. Exit status 77.
    NotPermitted,
    /// The configuration was refused. Exit status 78.
    Configuration,
    /// A kind of a later version. Exit status 70.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// The word for it in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::BadRequest => "bad-request",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::NotPermitted => "not-permitted",
            Self::Configuration => "configuration",
            Self::Unknown => "unknown",
        }
    }

    /// The exit status of `portsentryctl` (sysexits(3head), and 1 for "no").
    pub fn exit_status(self) -> u8 {
        match self {
            Self::No => 1,
            Self::BadRequest => 64,
            Self::Busy => 69,
            Self::Failed | Self::Unknown => 70,
            Self::NotPermitted => 77,
            Self::Configuration => 78,
        }
    }
}
