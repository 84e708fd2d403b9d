//! What the mirrors have to say.

/// Something that people should hear of. Texts may hold any characters of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A line stands in hosts.deny, on the disk.
    Denied {
        /// Whom it denies, as it was added.
        target: String,
        /// The line.
        line: String,
    },
    /// No line of hosts.deny names it any more.
    NoLongerDenied {
        /// Whom it denied.
        target: String,
    },
    /// Something that the administrator should know.
    Warning(String),
    /// Something failed.
    Error(String),
}
