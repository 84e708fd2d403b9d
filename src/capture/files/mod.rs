//! Reads capture files: pcap and pcapng, both byte orders, times in micro- and nanoseconds, several
//! interfaces and sections.
//!
//! The crate `pcap_parser` reads records and blocks. Where one begins and ends is decided here, from
//! its length field alone, so that a damaged length ends the reading at a known place and the buffer
//! has a bound.

pub mod link;

use std::fmt;
use std::io::{self, Read};

use pcap_parser::pcapng::{
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{LegacyPcapBlock, PcapHeader, parse_pcap_frame, parse_pcap_frame_be};
use pcap_parser::{parse_pcap_frame_modified, parse_pcap_header};

/// Maximum bytes of a record or block, and so of the buffer. libpcap writes no packet above 256 KiB
/// (`MAXIMUM_SNAPLEN`), except from USB and D-Bus, which are not replayed.
pub const RECORD_MAX: usize = 16_777_216;

/// Maximum number of interfaces of one section of a pcapng file.
pub const INTERFACES_MAX: usize = 4_096;

/// Bytes that are read at once.
const CHUNK: usize = 262_144;

/// The last microsecond of the year 9999, up to which times can be printed; and its inverse.
const TIME_MAX: i128 = 253_402_207_199_999_999;

/// The header of a pcap file, bytes.
const PCAP_HEADER: usize = 24;

/// Type and length of a pcapng block, and the length again at its end.
const BLOCK_MIN: usize = 12;

/// Block types of pcapng (draft-ietf-opsawg-pcapng, 11.1).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The obsolete packet block.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// The format of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// pcap, of libpcap.
    Pcap,
    /// pcapng.
    Pcapng,
}

impl Format {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcap => "pcap",
            Self::Pcapng => "pcapng",
        }
    }
}

/// A packet of a capture file, borrowed from the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Microseconds since 1970, UTC; a packet without a time has that of the packet before it.
    pub at: i64,
    /// The link type of its interface (`LINKTYPE_*`).
    pub link_type: u32,
    /// The bytes that were captured, link-layer header first.
    pub data: &'a [u8],
}

/// Why a file is no capture file.
#[derive(Debug)]
pub enum Error {
    /// It could not be read.
    Io(io::Error),
    /// It is compressed; the command that unpacks it.
    Compressed(&'static str),
    /// It is empty.
    Empty,
    /// It begins with another format's bytes.
    Unknown,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("read capture file"),
            Self::Compressed(command) => {
                write!(f, "it is compressed; unpack it first: {command} FILE > FILE.pcap")
            }
            Self::Empty => f.write_str("it is empty"),
            Self::Unknown => f.write_str("it is no capture file (pcap or pcapng)"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// What is wrong with a file from some place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends within a record or block.
    Truncated,
    /// A length field is impossible.
    Length(u32),
    /// The content of a block does not fit its type.
    Block(u32),
    /// A packet of an interface that no block describes.
    Interface(u32),
    /// A section has more than [`INTERFACES_MAX`] interfaces.
    Interfaces,
    /// The system could not read on.
    Unreadable(io::ErrorKind),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the file ends within a record"),
            Self::Length(length) => write!(f, "a record of {length} bytes is impossible"),
            Self::Block(kind) => write!(f, "the content of a block of type {kind} is damaged"),
            Self::Interface(id) => {
                write!(f, "a packet of interface {id}, which no block describes")
            }
            Self::Interfaces => {
                write!(f, "a section has more than {INTERFACES_MAX} interfaces")
            }
            Self::Unreadable(kind) => write!(f, "the file cannot be read on: {kind}"),
        }
    }
}

/// Where a file is damaged, and how. What follows that place is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The offset of the damaged record or block, bytes.
    pub offset: u64,
    /// The number of the packet that could not be read, from 1.
    pub packet: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, packet, fault } = self;
        write!(f, "at byte {offset}, packet {packet}: {fault}; the rest is not read")
    }
}

/// An interface of a pcapng section.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u32,
    /// Units of its times in a second.
    units: u128,
    /// Seconds to add.
    offset: i64,
    snaplen: u32,
}

#[derive(Debug)]
enum State {
    Pcap { header: PcapHeader },
    Pcapng { big_endian: bool, interfaces: Vec<Interface> },
}

/// A capture file that is read from front to back.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the unread bytes begin in `buffer`.
    from: usize,
    /// The offset of `buffer` in the file.
    before: u64,
    state: State,
    packets: u64,
    /// The time of the last packet.
    at: i64,
    is_over: bool,
}

/// The command that unpacks a file that begins with these bytes.
fn unpack_command(start: &[u8]) -> Option<&'static str> {
    let all: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gunzip -c"),
        (b"\x28\xb5\x2f\xfd", "zstd -dc"),
        (b"\xfd7zXZ", "xz -dc"),
        (b"BZh", "bunzip2 -c"),
        (b"\x04\x22\x4d\x18", "lz4 -dc"),
    ];
    all.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, command)| *command)
}

impl<R: Read> Reader<R> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// The file is no capture file, or cannot be read.
    pub fn open(input: R) -> Result<Self, Error> {
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            from: 0,
            before: 0,
            state: State::Pcapng { big_endian: false, interfaces: Vec::new() },
            packets: 0,
            at: 0,
            is_over: false,
        };
        let has_header = reader.fill(PCAP_HEADER).map_err(Error::Io)?;
        let start = reader.unread();
        if start.is_empty() {
            return Err(Error::Empty);
        }
        if start.starts_with(&SECTION_HEADER.to_be_bytes()) {
            return Ok(reader);
        }
        if let Some(command) = unpack_command(start) {
            return Err(Error::Compressed(command));
        }
        match parse_pcap_header(start) {
            Ok((_, header)) if has_header => {
                reader.state = State::Pcap { header };
                reader.from = PCAP_HEADER;
                Ok(reader)
            }
            _ => Err(Error::Unknown),
        }
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        match self.state {
            State::Pcap { .. } => Format::Pcap,
            State::Pcapng { .. } => Format::Pcapng,
        }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.before + u64::try_from(self.from).unwrap_or(u64::MAX)
    }

    /// Packets read so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.from..).unwrap_or_default()
    }

    /// Reads until `length` bytes are unread. Returns whether the file has as many.
    fn fill(&mut self, length: usize) -> io::Result<bool> {
        if self.unread().len() >= length {
            return Ok(true);
        }
        self.buffer.drain(..self.from);
        self.before += u64::try_from(self.from).unwrap_or(u64::MAX);
        self.from = 0;
        let missing = length.saturating_sub(self.buffer.len()).max(CHUNK);
        let limit = u64::try_from(missing).unwrap_or(u64::MAX);
        // The buffer stays as large as the largest record so far.
        Read::by_ref(&mut self.input).take(limit).read_to_end(&mut self.buffer)?;
        Ok(self.buffer.len() >= length)
    }

    /// The next packet; `None` at the end of the file, and after a damage.
    ///
    /// # Errors
    /// The file is damaged from here on.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, Damage> {
        if self.is_over {
            return Ok(None);
        }
        match self.advance() {
            Ok(Some((range, link_type))) => {
                self.packets += 1;
                let data = self.buffer.get(range).unwrap_or_default();
                Ok(Some(Packet { at: self.at, link_type, data }))
            }
            Ok(None) => {
                self.is_over = true;
                Ok(None)
            }
            Err(fault) => {
                self.is_over = true;
                Err(Damage { offset: self.offset(), packet: self.packets + 1, fault })
            }
        }
    }

    /// Moves past the next packet; returns where its bytes are in the buffer, and its link type.
    fn advance(&mut self) -> Result<Option<(std::ops::Range<usize>, u32)>, Fault> {
        loop {
            let length = match &self.state {
                State::Pcap { .. } => self.record_length()?,
                State::Pcapng { .. } => self.block_length()?,
            };
            let Some(length) = length else { return Ok(None) };
            if !self.has(length)? {
                return Err(Fault::Truncated);
            }
            let (from, end) = (self.from, self.from + length);
            let record = self.buffer.get(from..end).unwrap_or_default();
            let found = match &mut self.state {
                State::Pcap { header } => pcap_record(header, record)?,
                State::Pcapng { big_endian, interfaces } => {
                    pcapng_block(big_endian, interfaces, record)?
                }
            };
            self.from = end;
            if let Some(Found { at, link_type, start, length }) = found {
                self.at = at.unwrap_or(self.at);
                return Ok(Some((from + start..from + start + length, link_type)));
            }
        }
    }

    fn has(&mut self, length: usize) -> Result<bool, Fault> {
        self.fill(length).map_err(|error| Fault::Unreadable(error.kind()))
    }

    /// The length of the next record of a pcap file; `None` at its end.
    fn record_length(&mut self) -> Result<Option<usize>, Fault> {
        let State::Pcap { header } = &self.state else { return Ok(None) };
        let is_big_endian = header.is_bigendian();
        // Four more fields in the records of a patched libpcap of old.
        let head = if header.is_modified_format() { 24 } else { 16 };
        if !self.has(head)? {
            return if self.unread().is_empty() { Ok(None) } else { Err(Fault::Truncated) };
        }
        let captured = word(self.unread(), 8, is_big_endian).ok_or(Fault::Truncated)?;
        let length = usize::try_from(captured).ok().and_then(|bytes| bytes.checked_add(head));
        length.filter(|length| *length <= RECORD_MAX).map(Some).ok_or(Fault::Length(captured))
    }

    /// The length of the next block of a pcapng file; `None` at its end.
    fn block_length(&mut self) -> Result<Option<usize>, Fault> {
        if !self.has(BLOCK_MIN)? {
            return if self.unread().is_empty() { Ok(None) } else { Err(Fault::Truncated) };
        }
        let State::Pcapng { big_endian, .. } = &self.state else { return Ok(None) };
        let mut is_big_endian = *big_endian;
        let start = self.unread();
        if word(start, 0, false) == Some(SECTION_HEADER) {
            // A section may have another byte order than the one before it.
            is_big_endian = word(start, 8, true) == Some(0x1a2b_3c4d);
        }
        let total = word(start, 4, is_big_endian).ok_or(Fault::Truncated)?;
        let length = usize::try_from(total).ok();
        let is_possible =
            |length: &usize| (BLOCK_MIN..=RECORD_MAX).contains(length) && length.is_multiple_of(4);
        length.filter(is_possible).map(Some).ok_or(Fault::Length(total))
    }
}

/// The number at `at`.
fn word(bytes: &[u8], at: usize, is_big_endian: bool) -> Option<u32> {
    let number = *bytes.get(at..)?.first_chunk()?;
    Some(if is_big_endian { u32::from_be_bytes(number) } else { u32::from_le_bytes(number) })
}

/// A packet within a record or block.
struct Found {
    at: Option<i64>,
    link_type: u32,
    start: usize,
    length: usize,
}

/// A time in microseconds, limited to what can be printed.
fn micros(seconds: i128, fraction: u128, units: u128) -> i64 {
    let fraction = fraction.saturating_mul(1_000_000) / units.max(1);
    let micros = seconds * 1_000_000 + i128::try_from(fraction).unwrap_or(0);
    i64::try_from(micros.clamp(-TIME_MAX, TIME_MAX)).unwrap_or(0)
}

fn pcap_record(header: &PcapHeader, record: &[u8]) -> Result<Option<Found>, Fault> {
    let (head, parsed) = if header.is_modified_format() {
        (24, parse_pcap_frame_modified(record))
    } else if header.is_bigendian() {
        (16, parse_pcap_frame_be(record))
    } else {
        (16, parse_pcap_frame(record))
    };
    let (_, LegacyPcapBlock { ts_sec, ts_usec, data, .. }) =
        parsed.map_err(|_| Fault::Truncated)?;
    let units = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
    Ok(Some(Found {
        at: Some(micros(i128::from(ts_sec), u128::from(ts_usec), units)),
        // The upper bits tell of frame check sequences.
        link_type: header.network.0.cast_unsigned() & 0x03ff_ffff,
        start: head,
        length: data.len(),
    }))
}

/// Reads a block. Blocks that have no packet and no interface are skipped.
fn pcapng_block(
    big_endian: &mut bool,
    interfaces: &mut Vec<Interface>,
    block: &[u8],
) -> Result<Option<Found>, Fault> {
    let kind = word(block, 0, *big_endian).ok_or(Fault::Truncated)?;
    let damaged = Fault::Block(kind);
    match kind {
        SECTION_HEADER => {
            let (_, section) = parse_sectionheaderblock(block).map_err(|_| damaged)?;
            *big_endian = section.big_endian();
            interfaces.clear();
            Ok(None)
        }
        INTERFACE_DESCRIPTION => {
            let parse = if *big_endian {
                parse_interfacedescriptionblock_be
            } else {
                parse_interfacedescriptionblock_le
            };
            let (_, described) = parse(block).map_err(|_| damaged)?;
            if interfaces.len() >= INTERFACES_MAX {
                return Err(Fault::Interfaces);
            }
            // The crate reads the offset as little-endian always.
            let offset = described.if_tsoffset;
            interfaces.push(Interface {
                link_type: described.linktype.0.cast_unsigned() & 0xffff,
                units: units(described.if_tsresol),
                offset: if *big_endian { offset.swap_bytes() } else { offset },
                snaplen: described.snaplen,
            });
            Ok(None)
        }
        ENHANCED_PACKET => {
            let parse = if *big_endian {
                parse_enhancedpacketblock_be
            } else {
                parse_enhancedpacketblock_le
            };
            let (_, packet) = parse(block).map_err(|_| damaged)?;
            let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let length = packet.packet_data().len();
            timed(interfaces, packet.if_id, time, (28, length))
        }
        PACKET => {
            let field = |at| word(block, at, *big_endian).ok_or(damaged);
            let id = block.get(8..10).and_then(|id| <[u8; 2]>::try_from(id).ok()).ok_or(damaged)?;
            let id = if *big_endian { u16::from_be_bytes(id) } else { u16::from_le_bytes(id) };
            let time = u64::from(field(12)?) << 32 | u64::from(field(16)?);
            let length = usize::try_from(field(20)?).map_err(|_| damaged)?;
            if block.len() < length.saturating_add(32) {
                return Err(damaged);
            }
            timed(interfaces, u32::from(id), time, (28, length))
        }
        SIMPLE_PACKET => {
            let parse =
                if *big_endian { parse_simplepacketblock_be } else { parse_simplepacketblock_le };
            let (_, packet) = parse(block).map_err(|_| damaged)?;
            let interface = interfaces.first().ok_or(Fault::Interface(0))?;
            let snaplen = match interface.snaplen {
                0 => usize::MAX,
                most => usize::try_from(most).unwrap_or(usize::MAX),
            };
            let length = packet.packet_data().len().min(snaplen);
            Ok(Some(Found { at: None, link_type: interface.link_type, start: 12, length }))
        }
        _ => Ok(None),
    }
}

/// A packet of an interface, at a time in the interface's units.
fn timed(
    interfaces: &[Interface],
    id: u32,
    time: u64,
    (start, length): (usize, usize),
) -> Result<Option<Found>, Fault> {
    let interface = usize::try_from(id).ok().and_then(|id| interfaces.get(id));
    let Interface { link_type, units, offset, .. } = *interface.ok_or(Fault::Interface(id))?;
    let time = u128::from(time);
    let seconds = i128::try_from(time / units).unwrap_or(0) + i128::from(offset);
    Ok(Some(Found { at: Some(micros(seconds, time % units, units)), link_type, start, length }))
}

/// Units in a second: a power of ten, or of two with the highest bit (draft-ietf-opsawg-pcapng,
/// 4.2). The crate's own function knows no powers of two.
fn units(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    // A resolution that no 64-bit time needs: all times are 0.
    base.checked_pow(exponent).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests;
