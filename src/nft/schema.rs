//! What a connection knows beforehand of the table it works on: its name, and the name and key
//! types of each set (nft(8), "SETS").

/// A table of family `inet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
}

/// A table and every set that may be in it. The keys of other sets are not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The table.
    pub table: Table,
    /// Its sets.
    pub sets: &'static [SetSpec],
}

impl Schema {
    /// The set with this name.
    pub fn set(&self, name: &str) -> Option<SetSpec> {
        self.sets.iter().find(|set| set.name == name).copied()
    }
}

/// What never changes about a set: its name, what its keys are made of, and how its elements are
/// handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// Its name in the kernel.
    pub name: &'static str,
    /// The types of its key: one, or several that are concatenated.
    pub key: &'static [DataType],
    /// It holds ranges (flag `interval`).
    pub interval: bool,
    /// Its elements are short-lived and cannot be written with all they carry: a set that replaces
    /// it starts empty.
    pub transient: bool,
}

impl SetSpec {
    /// A set of single keys whose elements are kept.
    pub const fn new(name: &'static str, key: &'static [DataType]) -> Self {
        Self { name, key, interval: false, transient: false }
    }

    /// The same with the flag `interval`.
    #[must_use]
    pub const fn interval(self) -> Self {
        Self { interval: true, ..self }
    }

    /// The same with elements that are not kept when the set is replaced.
    #[must_use]
    pub const fn transient(self) -> Self {
        Self { transient: true, ..self }
    }
}

/// nft's data types, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// `ipv4_addr`, 4 bytes.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `inet_proto`, 1 byte.
    InetProto,
    /// `inet_service`, 2 bytes.
    InetService,
    /// `ifname`, 16 bytes (IFNAMSIZ).
    IfName,
}

impl DataType {
    /// nft's word, nft's number (nftables, datatype.h), and bytes.
    const fn facts(self) -> (&'static str, u32, u32) {
        match self {
            Self::Ipv4Addr => ("ipv4_addr", 7, 4),
            Self::Ipv6Addr => ("ipv6_addr", 8, 16),
            Self::InetProto => ("inet_proto", 12, 1),
            Self::InetService => ("inet_service", 13, 2),
            Self::IfName => ("ifname", 41, 16),
        }
    }

    /// nft's word.
    pub(super) const fn name(self) -> &'static str {
        self.facts().0
    }

    /// nft's number.
    pub(super) const fn number(self) -> u32 {
        self.facts().1
    }

    /// Bytes of a value.
    pub(super) const fn len(self) -> u32 {
        self.facts().2
    }
}
