//! The netlink socket that NFLOG and NFQUEUE share: opening, binding with an acknowledgement, and
//! later changes.
//!
//! Follows linux/netfilter/nfnetlink.h and the kernel's nfnetlink.c. Packets that arrive before the
//! acknowledgement are kept.

use std::io;
use std::time::Duration;

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::Error;
use crate::netlink::message::{Messages, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, Writer};
use crate::netlink::socket::Socket;

/// Fits the largest packet (an attribute is at most 64 KiB) with its other attributes; datagrams of
/// many packets are smaller.
pub(super) const BUFFER_LEN: usize = 65_536 + 4096;
/// Timeout for an acknowledgement, which the kernel queues before send(2) returns.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of packets kept between binding and acknowledgement; more packets are counted as lost.
const MAX_EARLY_BYTES: usize = 256 * 1024;

/// A bound socket with its receive buffer and sequence number.
pub(super) struct Channel {
    pub(super) socket: Socket,
    pub(super) buffer: Box<[u8]>,
    /// Datagrams that arrived during the binding.
    pub(super) early: Vec<u8>,
    sequence: u32,
}

/// Why the kernel refused to bind.
pub(super) enum Refused {
    /// CAP_NET_ADMIN is missing.
    NotPermitted,
    /// Another program is bound.
    Taken,
    /// The kernel lacks the subsystem.
    Unsupported(io::Error),
    /// Another reason.
    Other(io::Error),
}

impl Channel {
    /// Opens a socket in this thread's network namespace, with a receive buffer of `receive_buffer`
    /// bytes.
    pub(super) fn open(receive_buffer: usize) -> Result<Self, Error> {
        let socket = Socket::open(NlFamily::Netfilter, &[]).map_err(Error::Open)?;
        // Before the binding, because packets arrive from then on.
        socket.set_receive_buffer(receive_buffer).map_err(Error::Buffer)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            early: Vec::new(),
            sequence: 0,
        })
    }

    /// Binds a group or queue with the message that `write` writes for the given sequence number.
    /// `none` is a message type that the subsystem does not have.
    pub(super) fn bind(
        &mut self,
        none: u16,
        resource: u16,
        write: impl FnOnce(&mut Writer, u32),
    ) -> Result<(), Refused> {
        let mut writer = Writer::with_capacity(128);
        let sequence = self.next_sequence();
        write(&mut writer, sequence);
        // Compared as numbers, because rustix's Errno cannot hold arbitrary ones.
        match self.request(writer.bytes(), sequence).map_err(Refused::Other)? {
            0 => Ok(()),
            errno if errno == Errno::PERM.raw_os_error() => Err(self.refused(none, resource)),
            // nfnetlink's answer when the subsystem is missing and cannot be loaded.
            errno
                if errno == Errno::INVAL.raw_os_error()
                    || errno == Errno::OPNOTSUPP.raw_os_error() =>
            {
                Err(Refused::Unsupported(io::Error::from_raw_os_error(errno)))
            }
            errno => Err(Refused::Other(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Sends a configuration message for a group or queue, without an acknowledgement.
    pub(super) fn send(
        &mut self,
        kind: u16,
        resource: u16,
        attributes: impl FnOnce(&mut Writer),
    ) -> io::Result<()> {
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

    /// Sends a message and waits for its acknowledgement; returns the errno (0 for success). Keeps
    /// packets that arrive before it.
    fn request(&mut self, message: &[u8], sequence: u32) -> io::Result<i32> {
        self.socket.send(message)?;
        loop {
            // The answer is queued when send(2) returns, behind earlier datagrams.
            let datagram = match self.socket.receive_part_within(&mut self.buffer, ANSWER_TIMEOUT) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the kernel gave no answer",
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let answer = Messages(datagram).find(|message| {
                message.header.kind == NLMSG_ERROR && message.header.sequence == sequence
            });
            match answer {
                Some(message) => {
                    let answer = message
                        .answer()
                        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                    return Ok(answer.errno);
                }
                None if self.early.len() + datagram.len() <= MAX_EARLY_BYTES => {
                    self.early.extend_from_slice(datagram);
                    self.early.resize(self.early.len().next_multiple_of(4), 0);
                }
                None => {}
            }
        }
    }

    /// Finds the cause of EPERM: a missing capability, or another bound program. The kernel checks
    /// the capability before it looks a message up, so a message type that does not exist shows
    /// which.
    fn refused(&mut self, none: u16, resource: u16) -> Refused {
        let mut writer = Writer::with_capacity(32);
        let sequence = self.next_sequence();
        let message = writer.begin_message(none, NLM_F_REQUEST | NLM_F_ACK, sequence);
        writer.nfgenmsg(0, resource);
        writer.end_message(message);
        match self.request(writer.bytes(), sequence) {
            Ok(errno) if errno == Errno::PERM.raw_os_error() => Refused::NotPermitted,
            Ok(_) => Refused::Taken,
            Err(error) => Refused::Other(error),
        }
    }
}
