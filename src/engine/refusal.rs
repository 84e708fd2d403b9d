//! Why a command of the administrator is refused, and the words for it.

use std::fmt;

use ipnet::IpNet;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The source overlaps what is never blocked.
    NeverBlock {
        /// What was to be blocked.
        network: IpNet,
        /// What it overlaps.
        overlaps: IpNet,
        /// Where that stands.
        list: &'static str,
    },
    /// `mode: observe`.
    Observe,
    /// As many blocks are there as may be.
    Total(u32),
    /// A block of no length.
    NoTime,
    /// It is not blocked.
    NotBlocked(IpNet),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBlock { network, overlaps, list } if network == overlaps => write!(f, "block {network}: it is never blocked ({list})"),
            Self::NeverBlock { network, overlaps, list } => write!(f, "block {network}: it overlaps {overlaps}, which is never blocked ({list})"),
            Self::Observe => f.write_str("block: mode is observe, nothing is blocked"),
            Self::Total(total) => write!(f, "block: there are {total} blocks, and block.total allows no more"),
            Self::NoTime => f.write_str("block: the time is zero"),
            Self::NotBlocked(network) => write!(f, "unblock {network}: it is not blocked"),
        }
    }
}

impl std::error::Error for Refusal {}
