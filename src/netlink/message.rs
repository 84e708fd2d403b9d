//! Encodes and decodes netlink messages and attributes. The decoders accept any bytes.
//!
//! Layout: netlink(7), `struct nlmsghdr` and `struct nlattr` in linux/netlink.h, `struct nfgenmsg`
//! in linux/netfilter/nfnetlink.h. Headers are in host byte order, netfilter's attributes are
//! big-endian.

/// `NLMSG_ERROR`: an acknowledgement or an error.
pub const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a multipart answer.
pub const NLMSG_DONE: u16 = 3;
/// `NLMSG_OVERRUN`: data was lost.
pub const NLMSG_OVERRUN: u16 = 4;

/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the dumped objects changed during the dump.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_DUMP`: `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_EXCL`: fail if the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const NLM_F_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: at the end of the list (rules).
pub const NLM_F_APPEND: u16 = 0x800;
/// `NLM_F_ACK_TLVS`: extended acknowledgement attributes follow.
pub const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLM_F_CAPPED`: the request was not echoed in the error.
pub const NLM_F_CAPPED: u16 = 0x100;

/// `NLA_F_NESTED`: the attribute contains attributes.
pub const NLA_F_NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: an attribute's type without the flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Length of `struct nlmsghdr`, bytes.
pub const HEADER_LEN: usize = 16;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// `nlmsg_pid`.
    pub portid: u32,
}

/// A buffer for encoding messages one after the other.
///
/// [`Writer::end_message`] and [`Writer::end_nest`] fill in the lengths. An attribute too long for
/// its 16-bit length field is a defect of the caller: it is truncated, and [`Writer::overflowed`]
/// reports it.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
    overflowed: bool,
}

/// The position of a message or nest whose length is not filled in yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "its length has to be filled in"]
pub struct Open(usize);

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), overflowed: false }
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Clears the buffer and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.overflowed = false;
    }

    /// Whether an attribute was too long for its length field.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Starts a message.
    pub fn begin_message(&mut self, kind: u16, flags: u16, sequence: u32) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        Open(at)
    }

    /// Writes `struct nfgenmsg`.
    pub fn nfgenmsg(&mut self, family: u8, resource: u16) {
        self.bytes.push(family);
        self.bytes.push(0); // NFNETLINK_V0
        self.bytes.extend_from_slice(&resource.to_be_bytes());
    }

    /// Writes raw bytes (a family's fixed header).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends a message: fills in its length.
    pub fn end_message(&mut self, open: Open) {
        let length = self.bytes.len() - open.0;
        match u32::try_from(length) {
            Ok(length) => self.patch(open.0, &length.to_ne_bytes()),
            Err(_) => self.overflowed = true,
        }
        self.align();
    }

    /// Starts a nest of attributes.
    pub fn begin_nest(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Open(at)
    }

    /// Ends a nest: fills in its length.
    pub fn end_nest(&mut self, open: Open) {
        let length = self.bytes.len() - open.0;
        match u16::try_from(length) {
            Ok(length) => self.patch(open.0, &length.to_ne_bytes()),
            Err(_) => self.overflowed = true,
        }
    }

    /// Bytes in the nest so far, header included, for callers that must respect the 16-bit length
    /// field.
    pub fn nest_len(&self, open: Open) -> usize {
        self.bytes.len() - open.0
    }

    /// Writes an attribute with these bytes.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        self.attr_parts(kind, value, &[]);
    }

    /// Writes a string with its terminating NUL.
    pub fn attr_str(&mut self, kind: u16, value: &str) {
        self.attr_parts(kind, value.as_bytes(), &[0]);
    }

    fn attr_parts(&mut self, kind: u16, value: &[u8], end: &[u8]) {
        let Ok(length) = u16::try_from(4 + value.len() + end.len()) else {
            self.overflowed = true;
            return;
        };
        for part in [&length.to_ne_bytes(), &kind.to_ne_bytes(), value, end] {
            self.bytes.extend_from_slice(part);
        }
        self.align();
    }

    /// Writes a big-endian u16.
    pub fn attr_be16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes a big-endian u32.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes a big-endian u64.
    pub fn attr_be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Of an nfnetlink message: family, resource id, and the attributes after `struct nfgenmsg`.
    /// `None` if it is too short.
    pub fn nfgen(&self) -> Option<(u8, u16, Attributes<'a>)> {
        let (head, rest) = self.payload.split_first_chunk::<4>()?;
        let [family, _version, high, low] = *head;
        Some((family, u16::from_be_bytes([high, low]), Attributes(rest)))
    }

    /// The answer in an `NLMSG_ERROR` or `NLMSG_DONE`. `None` for other and malformed messages.
    pub fn answer(&self) -> Option<Answer<'a>> {
        if self.header.kind != NLMSG_ERROR && self.header.kind != NLMSG_DONE {
            return None;
        }
        let (code, mut rest) = self.payload.split_first_chunk::<4>()?;
        if self.header.kind == NLMSG_ERROR {
            // The request's header is repeated, and the whole request unless it was capped
            // (netlink(7), NETLINK_CAP_ACK).
            let (request, after) = rest.split_first_chunk::<HEADER_LEN>()?;
            let [a, b, c, d, ..] = *request;
            let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
            let echoed = if self.header.flags & NLM_F_CAPPED != 0 {
                0
            } else {
                aligned(length).saturating_sub(HEADER_LEN)
            };
            rest = after.get(echoed..).unwrap_or_default();
        }
        let mut answer = Answer {
            errno: i32::from_ne_bytes(*code).saturating_neg(),
            message: None,
            offset: None,
        };
        if self.header.flags & NLM_F_ACK_TLVS != 0 {
            for attribute in Attributes(rest) {
                match attribute.kind {
                    1 => answer.message = attribute.str(),
                    2 => answer.offset = attribute.ne32(),
                    _ => {}
                }
            }
        }
        Some(answer)
    }
}

/// The kernel's answer to a request (netlink(7), extended acknowledgements).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// 0 for success, else a positive errno.
    pub errno: i32,
    /// `NLMSGERR_ATTR_MSG`: the kernel's message.
    pub message: Option<&'a str>,
    /// `NLMSGERR_ATTR_OFFS`: the offset, from the request's header, of the attribute at fault.
    pub offset: Option<u32>,
}

/// Iterates over the messages of a datagram, up to the first truncated one.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let head = self.0.first_chunk::<HEADER_LEN>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *head;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = self.0.get(HEADER_LEN..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        let header = Header {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            portid: u32::from_ne_bytes([p0, p1, p2, p3]),
        };
        Some(Message { header, payload })
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy)]
pub struct Attribute<'a> {
    /// Its type, without the nested and byte-order flags.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }

    /// A byte.
    pub fn u8(&self) -> Option<u8> {
        self.value.first().copied()
    }

    /// A big-endian u16.
    pub fn be16(&self) -> Option<u16> {
        self.value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A big-endian u32.
    pub fn be32(&self) -> Option<u32> {
        self.value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A big-endian u64.
    pub fn be64(&self) -> Option<u64> {
        self.value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// A u32 in host byte order.
    pub fn ne32(&self) -> Option<u32> {
        self.value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// A string, up to its NUL; `None` if it is not UTF-8.
    pub fn str(&self) -> Option<&'a str> {
        let text = self.value.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).ok()
    }
}

/// Iterates over attributes, up to the first truncated one.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub fn get(mut self, kind: u16) -> Option<Attribute<'a>> {
        self.find(|attribute| attribute.kind == kind)
    }

    /// The value of the first attribute of this type; empty if there is none.
    pub fn value(self, kind: u16) -> &'a [u8] {
        self.get(kind).map(|attribute| attribute.value).unwrap_or_default()
    }

    /// The attributes in the first attribute of this type; none if there is none.
    pub fn nested(self, kind: u16) -> Self {
        Self(self.value(kind))
    }

    /// The first attribute of this type as [`Attribute::be16`].
    pub fn be16(self, kind: u16) -> Option<u16> {
        self.get(kind)?.be16()
    }

    /// The first attribute of this type as [`Attribute::be32`].
    pub fn be32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.be32()
    }

    /// The first attribute of this type as [`Attribute::be64`].
    pub fn be64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.be64()
    }

    /// The first attribute of this type as [`Attribute::str`].
    pub fn str(self, kind: u16) -> Option<&'a str> {
        self.get(kind)?.str()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [l0, l1, k0, k1] = *self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(Attribute { kind: u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value })
    }
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`: both to 4 bytes.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_messages_are_read_back() {
        let mut writer = Writer::default();
        for sequence in 1..=2 {
            let message = writer.begin_message(0x0a0c, NLM_F_REQUEST, sequence);
            writer.nfgenmsg(1, 10);
            writer.attr_str(1, "portsentry");
            let nest = writer.begin_nest(2);
            writer.attr(3, &[7]);
            writer.attr_be64(4, 5000);
            writer.end_nest(nest);
            writer.end_message(message);
        }
        let messages: Vec<_> = Messages(writer.bytes()).collect();
        assert_eq!(messages.len(), 2);
        let (family, resource, attributes) = messages[1].nfgen().unwrap();
        assert_eq!((family, resource, messages[1].header.sequence), (1, 10, 2));
        assert_eq!(attributes.get(1).unwrap().str(), Some("portsentry"));
        assert_eq!(attributes.get(2).unwrap().nested().get(4).unwrap().be64(), Some(5000));
    }

    #[test]
    fn too_long_attribute_is_reported() {
        let mut writer = Writer::default();
        writer.attr(1, &[0; 65_532]);
        assert!(writer.overflowed());
    }

    proptest! {
        // P8
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages(&bytes) {
                let _ = message.answer();
                if let Some((_, _, attributes)) = message.nfgen() {
                    for attribute in attributes {
                        let _ = (attribute.str(), attribute.be64(), attribute.nested().count());
                    }
                }
            }
            prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
