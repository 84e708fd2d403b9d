//! The listener of the queues: binds and configures them, receives packets and sends verdicts. It
//! never waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::counters::Counters;
use super::message::{
    MSG_CONFIG, MSG_NONE, NFQA_CFG_CMD, NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_FLAGS, NFQA_CFG_MASK,
    NFQNL_CFG_CMD_UNBIND, write_bind,
};
use super::queue_status::{QueueStatus, parse_status, read_table};
use crate::capture::channel::{Channel, Event};
use crate::capture::{Error, Received, Resource, Statistics, Verdict, Waiting};
use crate::netlink::message::Writer;
use crate::netlink::socket::Socket;

/// Upper bound of what the kernel charges the receive buffer for a message: 1,280 with 256 bytes of
/// a packet on Linux 6.18.
const MESSAGE_COST_BYTES: usize = 2048;
/// One part in this many of the receive buffer is for suspects' connections: retransmitted SYNs of
/// a thousand suspects.
const CONNECTIONS_SHARE: usize = 8;

/// Settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The number of the queue for probes (`capture.group`); the next number is the queue for
    /// suspects' connections. At most 65,534.
    pub queue: u16,
    /// Let probes pass when their queue is full, for configurations that do not drop probes.
    pub probes_pass: bool,
    /// Bytes copied of each packet, from its IP header on.
    pub copy_range: u16,
    /// Receive buffer to request, bytes. The granted size determines the length of the queues.
    pub receive_buffer: usize,
}

impl Settings {
    /// The daemon's settings for `queue`.
    pub fn of_queue(queue: u16, probes_pass: bool) -> Self {
        Self {
            queue,
            probes_pass,
            // The longest IPv4 and TCP headers are 120 bytes; IPv6 with extension headers of 156
            // bytes still shows a whole TCP header.
            copy_range: 256,
            // 16 MiB in the kernel's accounting: 7,168 probes and 1,024 connections, a seventh of a
            // second at 50,000 probes a second.
            receive_buffer: 8 * 1024 * 1024,
        }
    }
}

/// Two bound queues. Dropping this unbinds them, and the kernel drops the waiting packets.
pub struct Listener {
    channel: Channel,
    settings: Settings,
    /// Length of each queue in packets.
    lengths: [u32; 2],
    counters: Counters,
    verdicts: Writer,
}

impl Listener {
    /// Binds the queues in the network namespace of this thread.
    ///
    /// # Errors
    /// See [`Error`]; it distinguishes another bound program from a missing capability.
    pub fn bind(settings: Settings) -> Result<Self, Error> {
        let Some(second) = settings.queue.checked_add(1) else {
            let error = io::ErrorKind::InvalidInput.into();
            return Err(Error::Bind(Resource::Queue(settings.queue), error));
        };
        let channel = Channel::open(settings.receive_buffer)?;
        let granted = channel.socket.receive_buffer().map_err(Error::Buffer)?;
        let mut listener = Self {
            channel,
            lengths: lengths(granted),
            counters: Counters::new(settings.queue),
            verdicts: Writer::with_capacity(64),
            settings,
        };
        let [probes, connections] = listener.lengths;
        listener.bind_one(listener.settings.queue, probes, listener.settings.probes_pass)?;
        listener.bind_one(second, connections, true)?;
        Ok(listener)
    }

    fn bind_one(&mut self, queue: u16, length: u32, fail_open: bool) -> Result<(), Error> {
        let copy_range = self.settings.copy_range;
        let write = |writer: &mut Writer| write_bind(writer, length, fail_open, copy_range);
        self.channel.bind(Resource::Queue(queue), (MSG_CONFIG, MSG_NONE), write)
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Lengths of the queues in packets: probes, suspects' connections.
    pub fn lengths(&self) -> [u32; 2] {
        self.lengths
    }

    /// Reads the kernel's status of both queues (zeroes if it is unknown) and updates the loss
    /// counts.
    pub fn read_status(&mut self) -> [QueueStatus; 2] {
        let text = read_table();
        let of = |queue| parse_status(&text, queue).unwrap_or_default();
        let read_table = [of(self.settings.queue), of(self.settings.queue.wrapping_add(1))];
        self.counters.full =
            read_table.iter().map(|queue_status| u64::from(queue_status.full)).sum();
        read_table
    }

    /// Sets whether probes pass when their queue is full. Takes effect with the next packet.
    ///
    /// # Errors
    /// [`Error::Bind`] if the message cannot be sent.
    pub fn set_probes_pass(&mut self, probes_pass: bool) -> Result<(), Error> {
        let queue = self.settings.queue;
        let attributes = |writer: &mut Writer| {
            writer.attr_be32(NFQA_CFG_FLAGS, if probes_pass { NFQA_CFG_F_FAIL_OPEN } else { 0 });
            writer.attr_be32(NFQA_CFG_MASK, NFQA_CFG_F_FAIL_OPEN);
        };
        self.channel
            .send(MSG_CONFIG, queue, attributes)
            .map_err(|error| Error::Bind(Resource::Queue(queue), error))?;
        self.settings.probes_pass = probes_pass;
        Ok(())
    }

    /// Unbinds the queues. The kernel drops the waiting packets: a client retransmits its SYN,
    /// which then passes.
    ///
    /// # Errors
    /// [`Error::Unbind`] if a message cannot be sent; dropping the listener unbinds the queues
    /// in any case.
    pub fn unbind(&mut self) -> Result<(), Error> {
        for queue in [self.settings.queue, self.settings.queue.wrapping_add(1)] {
            let unbind =
                |writer: &mut Writer| writer.attr(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_UNBIND, 0, 0, 0]);
            self.channel
                .send(MSG_CONFIG, queue, unbind)
                .map_err(|error| Error::Unbind(Resource::Queue(queue), error))?;
        }
        Ok(())
    }

    /// The descriptor to poll for reading.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.socket.as_fd()
    }

    /// The counts so far.
    pub fn statistics(&self) -> Statistics {
        let Counters { statistics, full, .. } = &self.counters;
        Statistics { lost: statistics.lost + full, ..*statistics }
    }

    /// Hands the available packets to `on_packet`, without waiting, and sends the verdicts. What
    /// `on_packet` does is done before the packet continues. Ends when there are no more packets,
    /// or after the datagram that reaches `bound` of them ([`crate::capture::PACKETS_PER_WAKE`]).
    ///
    /// # Errors
    /// [`Error::Receive`] and [`Error::Verdict`] when the socket itself failed. Loss is no error:
    /// it is counted.
    pub fn decide(
        &mut self,
        bound: usize,
        on_packet: &mut dyn FnMut(&Waiting<'_>) -> Verdict,
    ) -> Result<Received, Error> {
        let Self { channel, counters, verdicts, .. } = self;
        let before = counters.statistics.packets;
        let received = channel.receive(bound, |socket, event| {
            match event {
                Event::Datagram { bytes, cut } => {
                    counters.statistics.malformed += u64::from(cut);
                    counters.on_datagram(bytes, verdicts, on_packet);
                    send(socket, verdicts)?;
                }
                Event::Overrun => counters.on_overrun(),
                Event::Empty => {}
            }
            Ok(counters.statistics.since(before))
        })?;
        counters.settle(verdicts);
        send(&channel.socket, verdicts)?;
        Ok(received)
    }
}

/// Sends the written verdicts, if any. The kernel applies them before send(2) returns.
fn send(socket: &Socket, verdicts: &mut Writer) -> Result<(), Error> {
    if verdicts.bytes().is_empty() {
        return Ok(());
    }
    let result = socket.send(verdicts.bytes()).map_err(Error::Verdict);
    verdicts.clear();
    result
}

/// Lengths of the queues for which the receive buffer has room for every message.
fn lengths(receive_buffer: usize) -> [u32; 2] {
    let all = (receive_buffer / MESSAGE_COST_BYTES).max(2 * CONNECTIONS_SHARE);
    let connections = all / CONNECTIONS_SHARE;
    [all - connections, connections].map(|length| u32::try_from(length).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_lengths_fit_the_receive_buffer() {
        assert_eq!(lengths(16 << 20), [7168, 1024]);
        let [probes, connections] = lengths(0);
        assert!(probes > 0 && connections > 0);
    }
}
