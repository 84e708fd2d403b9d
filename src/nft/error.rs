//! Errors of nf_tables, with the object at fault and the kernel's own message.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// An error of nf_tables.
#[derive(Debug)]
pub enum Error {
    /// The netlink socket failed.
    Socket {
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused something.
    Apply {
        /// What was tried: add, delete, ...
        verb: &'static str,
        /// With what, as in `element 192.0.2.1 of set blocked4`.
        object: String,
        /// Why.
        errno: i32,
        /// The kernel's own message (extended acknowledgement), if it sent one.
        message: Option<String>,
    },
    /// The kernel did not answer, or not in a form that is known.
    NoAnswer {
        /// To what.
        verb: &'static str,
        /// With what.
        object: String,
    },
    /// What was installed reads back differently.
    Differs {
        /// The first object that differs, and how.
        object: String,
    },
}

impl Error {
    /// [`Error::Socket`] of what was tried, for `map_err`.
    pub(super) fn socket(verb: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { verb, source }
    }

    fn is(&self, wanted: Errno) -> bool {
        match self {
            Self::Apply { errno, .. } => *errno == wanted.raw_os_error(),
            Self::Socket { source, .. } => source.raw_os_error() == Some(wanted.raw_os_error()),
            Self::NoAnswer { .. } | Self::Differs { .. } => false,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.is(Errno::NOENT)
    }

    /// The object, or another in its place, is there already.
    pub fn is_exists(&self) -> bool {
        self.is(Errno::EXIST)
    }

    /// CAP_NET_ADMIN is missing, or the table belongs to another process.
    pub fn is_permission(&self) -> bool {
        self.is(Errno::PERM) || self.is(Errno::ACCESS)
    }

    /// Another process changed the ruleset meanwhile: worth another try.
    pub fn is_busy(&self) -> bool {
        self.is(Errno::RESTART) || self.is(Errno::INTR) || self.is(Errno::AGAIN)
    }

    /// The set is full.
    pub fn is_full(&self) -> bool {
        self.is(Errno::NFILE)
    }

    /// The kernel says that it lacks this feature.
    pub fn is_not_supported(&self) -> bool {
        self.is(Errno::OPNOTSUPP)
    }

    /// The kernel lacks this feature, or does not know the request: older kernels answer EINVAL.
    pub fn is_unsupported(&self) -> bool {
        self.is(Errno::OPNOTSUPP) || self.is(Errno::INVAL)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { verb, .. } => write!(f, "cannot {verb} the netlink socket of nf_tables"),
            Self::Apply { verb, object, errno, message } => {
                write!(f, "cannot {verb} {object}: {}", io::Error::from_raw_os_error(*errno))?;
                if let Some(message) = message {
                    write!(f, ": {message}")?;
                }
                Ok(())
            }
            Self::NoAnswer { verb, object } => {
                write!(f, "cannot {verb} {object}: the kernel gave no answer")
            }
            Self::Differs { object } => write!(f, "the ruleset reads back differently: {object}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket { source, .. } => Some(source),
            Self::Apply { .. } | Self::NoAnswer { .. } | Self::Differs { .. } => None,
        }
    }
}
