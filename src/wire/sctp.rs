//! SCTP: the common header and the type of the first chunk (RFC 9260, 3.1 and 3.2).

use super::{Error, Layer, be16, be32};

/// Chunk type of INIT.
pub(crate) const INIT: u8 = 1;
/// Chunk type of COOKIE ECHO.
pub(crate) const COOKIE_ECHO: u8 = 10;

/// An SCTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Verification tag; 0 with INIT.
    pub verification_tag: u32,
    /// Type of the first chunk; `None` if there is no chunk.
    pub chunk: Option<u8>,
}

impl Message {
    /// Parses the packet at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Fewer than the common header's 12 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        const FIXED: usize = 12;
        let cut = Error::Truncated(Layer::Sctp);
        let fixed = bytes.get(..FIXED).ok_or(cut)?;
        Ok(Self {
            source_port: be16(fixed, 0).ok_or(cut)?,
            destination_port: be16(fixed, 2).ok_or(cut)?,
            verification_tag: be32(fixed, 4).ok_or(cut)?,
            chunk: bytes.get(FIXED).copied(),
        })
    }
}
