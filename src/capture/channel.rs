//! The netlink socket that NFLOG and NFQUEUE share: opening, binding with an acknowledgement, and
//! later changes.
//!
//! Follows linux/netfilter/nfnetlink.h and the kernel's nfnetlink.c. Packets that arrive before the
//! acknowledgement are kept.

use std::io;
use std::time::Duration;

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::{Error, Received, Resource, holder};
use crate::netlink::message::{Messages, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, Writer};
use crate::netlink::socket::{self, Socket, is_overrun};

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

/// What one read of the socket gives.
pub(super) enum Event<'a> {
    /// A datagram; `cut`: its rest is lost.
    Datagram { bytes: &'a [u8], cut: bool },
    /// The kernel had to drop messages.
    Overrun,
    /// There are no more datagrams.
    Empty,
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

    /// Binds a group or queue with a configuration message. `none` is a message type that the
    /// subsystem does not have.
    ///
    /// # Errors
    /// See [`Error`]; it distinguishes another bound program from a missing capability.
    pub(super) fn bind(
        &mut self,
        resource: Resource,
        (kind, none): (u16, u16),
        attributes: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        let bind = |error| Error::Bind(resource, error);
        let refusal = |errno: i32| io::Error::from_raw_os_error(errno);
        // Compared as numbers, because rustix's Errno cannot hold arbitrary ones.
        let [perm, inval, opnotsupp] =
            [Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP].map(Errno::raw_os_error);
        match self.request(kind, resource.number(), attributes).map_err(bind)? {
            0 => Ok(()),
            // A missing capability, or another bound program. The kernel checks the capability
            // before it looks a message up, so a message type that does not exist shows which.
            errno if errno == perm => {
                Err(match self.request(none, resource.number(), |_| {}).map_err(bind)? {
                    errno if errno == perm => Error::NotPermitted(resource),
                    _ => Error::InUse { resource, holder: holder::find(resource) },
                })
            }
            // nfnetlink's answer when the subsystem is missing and cannot be loaded.
            errno if [inval, opnotsupp].contains(&errno) => {
                Err(Error::Unsupported(resource, refusal(errno)))
            }
            errno => Err(bind(refusal(errno))),
        }
    }

    /// Sends a configuration message for a group or queue, without an acknowledgement.
    pub(super) fn send(
        &mut self,
        kind: u16,
        resource: u16,
        attributes: impl FnOnce(&mut Writer),
    ) -> io::Result<()> {
        let message = self.write(kind, NLM_F_REQUEST, resource, attributes);
        self.socket.send(message.bytes())
    }

    /// Writes a message with the next sequence number.
    fn write(
        &mut self,
        kind: u16,
        flags: u16,
        resource: u16,
        attributes: impl FnOnce(&mut Writer),
    ) -> Writer {
        self.sequence = self.sequence.wrapping_add(1);
        let mut writer = Writer::with_capacity(128);
        write_message(&mut writer, (kind, flags), self.sequence, resource, attributes);
        writer
    }

    /// Sends a message and waits for its acknowledgement; returns the errno (0 for success). Keeps
    /// packets that arrive before it.
    fn request(
        &mut self,
        kind: u16,
        resource: u16,
        attributes: impl FnOnce(&mut Writer),
    ) -> io::Result<i32> {
        let message = self.write(kind, NLM_F_REQUEST | NLM_F_ACK, resource, attributes);
        self.socket.send(message.bytes())?;
        let sequence = self.sequence;
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

    /// Passes datagrams to `on`, without waiting, until no more come, or until `on` has handed out
    /// `bound` packets; `on` returns how many it has by now.
    pub(super) fn receive(
        &mut self,
        bound: usize,
        mut on: impl FnMut(&Socket, Event<'_>) -> Result<usize, Error>,
    ) -> Result<Received, Error> {
        let Self { socket, buffer, early, .. } = self;
        let mut packets = 0;
        if !early.is_empty() {
            let bytes = std::mem::take(early);
            packets = on(socket, Event::Datagram { bytes: &bytes, cut: false })?;
        }
        // Each iteration takes a datagram or an overrun, so the bound also holds for malformed and
        // foreign datagrams.
        for _ in 0..bound {
            if packets >= bound {
                break;
            }
            packets = match socket.receive(buffer) {
                Ok(socket::Received::Datagram { bytes, cut }) => {
                    on(socket, Event::Datagram { bytes, cut })?
                }
                Ok(socket::Received::Foreign) => continue,
                Ok(socket::Received::Empty) => {
                    return Ok(Received { packets: on(socket, Event::Empty)?, more: false });
                }
                // The kernel queues nothing until the queue has been read empty, so read on.
                Err(error) if is_overrun(&error) => on(socket, Event::Overrun)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Receive(error)),
            };
        }
        Ok(Received { packets, more: true })
    }
}

/// Writes a message about a group or queue.
pub(super) fn write_message(
    writer: &mut Writer,
    (kind, flags): (u16, u16),
    sequence: u32,
    resource: u16,
    attributes: impl FnOnce(&mut Writer),
) {
    let message = writer.begin_message(kind, flags, sequence);
    writer.nfgenmsg(0, resource);
    attributes(writer);
    writer.end_message(message);
}
