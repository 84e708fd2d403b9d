//! The socket that packets come by, as NFLOG and NFQUEUE both have it: opened, bound with the kernel's word for it, and asked for changes later.
//!
//! Follows linux/netfilter/nfnetlink.h and the kernel's nfnetlink.c. Never here: what a message of either says, and a wait. What comes between the
//! binding and the kernel's word is kept.

use std::io;
use std::time::Duration;

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::Error;
use crate::netlink::message::{Messages, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, Writer};
use crate::netlink::socket::Socket;

/// Room for the largest single packet (an attribute ends at 64 KiB) with all that comes with it; datagrams of many packets are smaller.
pub(super) const BUFFER_LEN: usize = 65_536 + 4096;
/// How long an answer may take; the wait is for nothing but a kernel that differs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// What may come between the binding and the kernel's word that it is ours is kept up to here; more shows as lost, exactly.
const EARLY_MAX: usize = 256 * 1024;

/// A socket with what has to be known to speak by it.
pub(super) struct Channel {
    pub(super) socket: Socket,
    pub(super) buffer: Box<[u8]>,
    /// Datagrams that came during the binding, one after the other.
    pub(super) early: Vec<u8>,
    sequence: u32,
}

/// Why the kernel does not bind.
pub(super) enum Refused {
    /// CAP_NET_ADMIN is missing.
    NotPermitted,
    /// It is another program's.
    Taken,
    /// The kernel has no such thing.
    Unsupported(io::Error),
    /// Another reason.
    Other(io::Error),
}

impl Channel {
    /// Opens a socket in the network namespace of this thread, with a receive buffer of so many bytes.
    pub(super) fn open(receive_buffer: usize) -> Result<Self, Error> {
        let socket = Socket::open(NlFamily::Netfilter, &[]).map_err(Error::Open)?;
        // First of all: from the moment of the binding, packets come.
        socket.set_receive_buffer(receive_buffer).map_err(Error::Buffer)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_LEN].into_boxed_slice(), early: Vec::new(), sequence: 0 })
    }

    /// Has the kernel bind a group or queue by the message that `write` writes with the sequence number that it is given. `none`: a type of
    /// message that this subsystem does not have.
    pub(super) fn bind(&mut self, none: u16, resource: u16, write: impl FnOnce(&mut Writer, u32)) -> Result<(), Refused> {
        let mut writer = Writer::with_capacity(128);
        let sequence = self.next_sequence();
        write(&mut writer, sequence);
        // Compared as numbers: rustix's Errno does not take any number that comes from outside.
        match self.ask(writer.bytes(), sequence).map_err(Refused::Other)? {
            0 => Ok(()),
            errno if errno == Errno::PERM.raw_os_error() => Err(self.refused(none, resource)),
            // What nfnetlink says when a subsystem is not there, and cannot be loaded either.
            errno if errno == Errno::INVAL.raw_os_error() || errno == Errno::OPNOTSUPP.raw_os_error() => {
                Err(Refused::Unsupported(io::Error::from_raw_os_error(errno)))
            }
            errno => Err(Refused::Other(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Tells the kernel something about a group or queue, and asks for no acknowledgement.
    pub(super) fn tell(&mut self, kind: u16, resource: u16, attributes: impl FnOnce(&mut Writer)) -> io::Result<()> {
        let mut writer = Writer::with_capacity(64);
        let message = writer.begin_message(kind, NLM_F_REQUEST, self.next_sequence());
        writer.nfgenmsg(0, resource);
        attributes(&mut writer);
        writer.end_message(message);
        self.socket.send(writer.bytes())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a message that wants an acknowledgement, and gives its errno (0 for success). Packets that come before it are kept.
    fn ask(&mut self, message: &[u8], sequence: u32) -> io::Result<i32> {
        self.socket.send(message)?;
        loop {
            // The answer is in the queue when send(2) returns, behind what came before it.
            let datagram = match self.socket.receive_part_within(&mut self.buffer, ANSWER_TIMEOUT) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel gave no answer")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let answer = Messages(datagram).find(|message| message.header.kind == NLMSG_ERROR && message.header.sequence == sequence);
            match answer {
                Some(message) => {
                    let answer = message.answer().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                    return Ok(answer.errno);
                }
                None if self.early.len() + datagram.len() <= EARLY_MAX => {
                    self.early.extend_from_slice(datagram);
                    self.early.resize(self.early.len().next_multiple_of(4), 0);
                }
                None => {}
            }
        }
    }

    /// What EPERM means: the kernel says it for what is another program's as well as for missing rights. A message that exists for nobody, and
    /// that needs the right all the same, tells which.
    fn refused(&mut self, none: u16, resource: u16) -> Refused {
        let mut writer = Writer::with_capacity(32);
        let sequence = self.next_sequence();
        let message = writer.begin_message(none, NLM_F_REQUEST | NLM_F_ACK, sequence);
        writer.nfgenmsg(0, resource);
        writer.end_message(message);
        match self.ask(writer.bytes(), sequence) {
            Ok(errno) if errno == Errno::PERM.raw_os_error() => Refused::NotPermitted,
            Ok(_) => Refused::Taken,
            Err(error) => Refused::Other(error),
        }
    }
}
