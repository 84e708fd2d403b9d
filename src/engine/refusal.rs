//! Why the engine refuses a command, with the message for the administrator.

use std::fmt;

use ipnet::IpNet;

use super::{LISTS_MAX, ListName};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The source overlaps a never-block list.
    NeverBlock {
        /// The network of the command.
        network: IpNet,
        /// The listed network that it overlaps.
        overlaps: IpNet,
        /// The name of the list.
        list: &'static str,
    },
    /// `mode: observe`.
    Observe,
    /// `block.total` (its value) is reached.
    Total(u32),
    /// The timeout is zero.
    NoTime,
    /// The network is not blocked.
    NotBlocked(IpNet),
    /// [`LISTS_MAX`] lists have blocks.
    Lists,
    /// Another loading of the list began since.
    Superseded(ListName),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBlock { network, overlaps, list } if network == overlaps => {
                write!(f, "block {network}: it is never blocked ({list})")
            }
            Self::NeverBlock { network, overlaps, list } => write!(
                f,
                "block {network}: it overlaps {overlaps}, which is never blocked ({list})"
            ),
            Self::Observe => f.write_str("block: mode is observe, nothing is blocked"),
            Self::Total(total) => {
                write!(f, "block: there are {total} blocks, and block.total allows no more")
            }
            Self::NoTime => f.write_str("block: the time is zero"),
            Self::NotBlocked(network) => write!(f, "unblock {network}: it is not blocked"),
            Self::Lists => write!(f, "{LISTS_MAX} lists have blocks, and there are no more"),
            Self::Superseded(list) => {
                write!(f, "the list {list} is being loaded again by another command")
            }
        }
    }
}

impl std::error::Error for Refusal {}
