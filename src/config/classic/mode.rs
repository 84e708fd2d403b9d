//! The modes of PortSentry 1.x: each is one protocol, watched in one way.

use crate::config::{Config, PortMode};

/// A mode of PortSentry 1.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassicMode {
    /// `tcp`: connect mode.
    Tcp,
    /// `stcp`: stealth mode.
    Stcp,
    /// `atcp`: advanced mode.
    Atcp,
    /// `udp`: connect mode.
    Udp,
    /// `sudp`: stealth mode.
    Sudp,
    /// `audp`: advanced mode.
    Audp,
}

impl ClassicMode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Tcp, Self::Stcp, Self::Atcp, Self::Udp, Self::Sudp, Self::Audp];

    /// Its name, without the dash of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Stcp => "stcp",
            Self::Atcp => "atcp",
            Self::Udp => "udp",
            Self::Sudp => "sudp",
            Self::Audp => "audp",
        }
    }

    /// The mode with this name.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }

    /// Whether it is for UDP; the others are for TCP.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::Sudp | Self::Audp)
    }

    /// The port mode that it stands for.
    pub fn port_mode(self) -> PortMode {
        match self {
            Self::Tcp | Self::Udp => PortMode::Connect,
            Self::Stcp | Self::Sudp => PortMode::Stealth,
            Self::Atcp | Self::Audp => PortMode::Advanced,
        }
    }

    /// The mode of a configuration for UDP or TCP; `None`: the protocol is not watched.
    pub fn of(config: &Config, udp: bool) -> Option<Self> {
        let protocol = if udp { &config.udp } else { &config.tcp };
        Self::ALL.into_iter().find(|mode| mode.is_udp() == udp && mode.port_mode() == protocol.mode)
    }
}
