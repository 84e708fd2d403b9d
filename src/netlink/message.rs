//! Netlink messages and attributes: a writer that fills in lengths, and readers that no bytes can make panic.
//!
//! Layout: netlink(7), `struct nlmsghdr` and `struct nlattr` in linux/netlink.h, `struct nfgenmsg` in linux/netfilter/nfnetlink.h.
//! Headers are in host byte order; what netfilter puts into attributes is big-endian.

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
/// `NLM_F_DUMP_INTR`: the dumped thing changed under the dump.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_DUMP`: `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_EXCL`: fail if it is there (requests that create).
pub const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const NLM_F_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: at the end of the list (rules).
pub const NLM_F_APPEND: u16 = 0x800;
/// `NLM_F_ACK_TLVS`: extended acknowledgement attributes follow.
pub const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLM_F_CAPPED`: the request was not echoed in the error.
pub const NLM_F_CAPPED: u16 = 0x100;

/// `NLA_F_NESTED`: the attribute holds attributes.
pub const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
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

/// A buffer into which messages are written one after the other.
///
/// Lengths are filled in by [`Writer::end_message`] and [`Writer::end_nest`]. An attribute longer than a u16 can say is a defect of the
/// caller; it is cut and remembered in [`Writer::overflowed`], never sent silently.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
    overflowed: bool,
}

/// The position of a message or nest whose length is still open.
#[derive(Debug, Clone, Copy)]
#[must_use = "its length has to be filled in"]
pub struct Open(usize);

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), overflowed: false }
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.overflowed = false;
    }

    /// Whether some attribute did not fit into its length field.
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

    /// Writes bytes as they are (a family's fixed header).
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

    /// Bytes in the nest so far, its header included: for callers that must stay under what a u16 can say.
    pub fn nest_len(&self, open: Open) -> usize {
        self.bytes.len() - open.0
    }

    /// Writes an attribute of any bytes.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len() + 4) else {
            self.overflowed = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
    }

    /// Writes a string with its terminating NUL.
    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let Ok(length) = u16::try_from(value.len() + 5) else {
            self.overflowed = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    /// Writes one byte.
    pub fn attr_u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
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

/// A message as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// For nfnetlink messages: family, resource id, and the attributes after `struct nfgenmsg`. `None` if it is too short.
    pub fn nfgen(&self) -> Option<(u8, u16, Attributes<'a>)> {
        let (head, rest) = self.payload.split_first_chunk::<4>()?;
        let [family, _version, high, low] = *head;
        Some((family, u16::from_be_bytes([high, low]), Attributes(rest)))
    }

    /// For `NLMSG_ERROR` and `NLMSG_DONE`: what the kernel answered. `None` for other messages and for broken ones.
    pub fn answer(&self) -> Option<Answer<'a>> {
        if self.header.kind != NLMSG_ERROR && self.header.kind != NLMSG_DONE {
            return None;
        }
        let (code, mut rest) = self.payload.split_first_chunk::<4>()?;
        if self.header.kind == NLMSG_ERROR {
            // The request's header is repeated, and the whole request unless it was capped (netlink(7), NETLINK_CAP_ACK).
            let (request, after) = rest.split_first_chunk::<HEADER_LEN>()?;
            let [a, b, c, d, ..] = *request;
            let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
            let echoed = if self.header.flags & NLM_F_CAPPED != 0 { 0 } else { aligned(length).saturating_sub(HEADER_LEN) };
            rest = after.get(echoed..).unwrap_or_default();
        }
        let mut answer = Answer { errno: i32::from_ne_bytes(*code).saturating_neg(), message: None, offset: None };
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
    /// `NLMSGERR_ATTR_MSG`: the kernel's own words.
    pub message: Option<&'a str>,
    /// `NLMSGERR_ATTR_OFFS`: the offset, from the request's header, of the attribute at fault.
    pub offset: Option<u32>,
}

/// The messages of a datagram. Ends at the first one that is cut short.
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

/// A run of attributes. Ends at the first one that is cut short.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub fn get(mut self, kind: u16) -> Option<Attribute<'a>> {
        self.find(|attribute| attribute.kind == kind)
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
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        for sequence in 1..=2 {
            let message = writer.begin_message(0x0a0c, NLM_F_REQUEST, sequence);
            writer.nfgenmsg(1, 10);
            writer.attr_str(1, "portsentry");
            let nest = writer.begin_nest(2);
            writer.attr_u8(3, 7);
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
    fn an_attribute_that_is_too_long_is_noticed() {
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
