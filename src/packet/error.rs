//! Why the packet thread could not start.

use crate::nft::{Connection, Ruleset};
use crate::ruleset::SCHEMA;
use crate::ruleset::messages::remedy;
use crate::{capture, decoy, nft};

/// Why the thread could not start.
#[derive(Debug)]
pub enum StartError {
    /// No packets can be had.
    Capture(capture::Error),
    /// nf_tables refused.
    Nft(nft::Error),
    /// The kernel does not have these expressions.
    Lacks(Vec<&'static str>, nft::Error),
    /// No decoys can be had.
    Decoy(decoy::Error),
    /// Another daemon listens to what the table's rules log.
    TableInUse(capture::Error),
    /// The table is another program's.
    ForeignTable,
}

impl StartError {
    /// The same with the expressions of these rules that the kernel does not have, if it refused the
    /// rules for want of some.
    pub(crate) fn with_lacking(self, rules: &Ruleset) -> Self {
        let Self::Nft(error) = self else { return self };
        if !error.is_not_found() && !error.is_unsupported() {
            return Self::Nft(error);
        }
        match Connection::open(SCHEMA).and_then(|mut kernel| kernel.lacking(rules)) {
            Ok(lacking) if !lacking.is_empty() => Self::Lacks(lacking, error),
            _ => Self::Nft(error),
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture(error) => error.fmt(f),
            Self::Nft(error) => error.fmt(f),
            Self::Lacks(lacking, error) => write!(f, "{error}: {}", remedy(lacking)),
            Self::Decoy(error) => error.fmt(f),
            Self::TableInUse(_) => f.write_str("another portsentry guards this host with table inet portsentry; there can be only one"),
            Self::ForeignTable => f.write_str("the table inet portsentry is another program's: it has no set of blocked hosts of ours; rename it, or remove it with `nft delete table inet portsentry`, and start again"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Capture(error) => error.source(),
            // The kernel says "no such file" of an expression, which helps no reader.
            Self::Lacks(..) => None,
            Self::Nft(error) => error.source(),
            Self::Decoy(error) => error.source(),
            Self::TableInUse(error) => Some(error),
            Self::ForeignTable => None,
        }
    }
}
