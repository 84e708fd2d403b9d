//! TCP (RFC 9293).

use std::fmt;

use super::{Error, Layer, be16, be32};

/// The flags byte of a segment (RFC 9293, 3.1; ECE and CWR: RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);
    /// Congestion was experienced.
    pub const ECE: Self = Self(0x40);
    /// Congestion window was reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Flags {
    /// In nft's notation: `fin|psh|urg`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut first = true;
        for (bit, name) in
            ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"].into_iter().enumerate()
        {
            if self.0 >> bit & 1 == 1 {
                write!(f, "{}{name}", if first { "" } else { "|" })?;
                first = false;
            }
        }
        Ok(())
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; valid with [`Flags::ACK`].
    pub acknowledgement: u32,
    /// The flags.
    pub flags: Flags,
    /// The window field, unscaled.
    pub window: u16,
    /// The options, cut where the capture cut them.
    pub options: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses the segment at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Fewer than 20 bytes; a data offset below 5.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        const FIXED: usize = 20;
        let cut = Error::Truncated(Layer::Tcp);
        let fixed = bytes.get(..FIXED).ok_or(cut)?;
        let header_length = usize::from(fixed.get(12).ok_or(cut)? >> 4) * 4;
        if header_length < FIXED {
            return Err(Error::Length(Layer::Tcp));
        }
        Ok(Self {
            source_port: be16(fixed, 0).ok_or(cut)?,
            destination_port: be16(fixed, 2).ok_or(cut)?,
            sequence: be32(fixed, 4).ok_or(cut)?,
            acknowledgement: be32(fixed, 8).ok_or(cut)?,
            flags: Flags(*fixed.get(13).ok_or(cut)?),
            window: be16(fixed, 14).ok_or(cut)?,
            options: bytes.get(FIXED..header_length.min(bytes.len())).ok_or(cut)?,
        })
    }
}
