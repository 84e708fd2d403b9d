//! UDP (RFC 768).

use super::{Error, Layer, be16};

/// A datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source port; 0 if the sender expects no answer.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The payload, without padding; cut where the capture cut it.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses the datagram at the start of `bytes`.
    ///
    /// # Errors
    ///
    /// Fewer than 8 bytes; a length field below 8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        const FIXED: usize = 8;
        let cut = Error::Truncated(Layer::Udp);
        let length = match be16(bytes, 4).ok_or(cut)? {
            // A jumbogram (RFC 2675, 4).
            0 => bytes.len(),
            length => usize::from(length),
        };
        if bytes.len() < FIXED {
            return Err(cut);
        }
        if length < FIXED {
            return Err(Error::Length(Layer::Udp));
        }
        Ok(Self {
            source_port: be16(bytes, 0).ok_or(cut)?,
            destination_port: be16(bytes, 2).ok_or(cut)?,
            payload: bytes.get(FIXED..length.min(bytes.len())).ok_or(cut)?,
        })
    }
}
