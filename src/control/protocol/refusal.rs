//! Why something was not done, and what `portsentryctl` makes of it (sysexits(3head)).

use serde::{Deserialize, Serialize};

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In which way.
    pub kind: Kind,
    /// What and why.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub remedy: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: remedy.into() }
    }
}

/// The ways of refusing. A client may meet one that it does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No: it is not blocked, nothing is known, it must never be blocked. Exit status 1.
    No,
    /// The request is malformed. Exit status 64.
    BadRequest,
    /// Too many clients, or too slow a reader; later it may work. Exit status 69.
    Busy,
    /// The daemon, or the kernel, failed. Exit status 70.
    Failed,
    /// The client may not ask this. Exit status 77.
    NotPermitted,
    /// The configuration was refused. Exit status 78.
    Configuration,
    /// A kind of a later version. Exit status 70.
    #[serde(other)]
    Unknown,
}

impl Kind {
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
