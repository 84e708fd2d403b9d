//! A listener of two NFQUEUE queues: binds them, hands out the packets that wait there, and tells the kernel what becomes of each.
//!
//! Follows linux/netfilter/nfnetlink_queue.h and the kernel's nfnetlink_queue.c. The decoder is total: any bytes give packets, or are counted as
//! malformed. Nothing here waits, and nothing is allocated for a packet.
//!
//! Two queues, because they fail in two ways. Probes of closed ports wait in queue N. If it is full, or nobody listens, a probe meets what its
//! rule would do to it anyway: where closed ports do not answer, the kernel drops it and counts it. New connections of suspects to open ports
//! wait in queue N+1, which never costs anybody a connection: full, it lets them pass; without a listener, the rule's `bypass` does. So a flood
//! of probes cannot open the way for a suspect's connections. Both come over one socket, in the order in which the packets came: no connection
//! is judged before the probes that came before it.
//!
//! What is lost. A packet whose message does not fit the receive buffer has used up a number: the gaps in each queue's numbers are such
//! packets, exactly. A packet that finds a queue full has no number: for queue N the kernel counts it (`queue_dropped` in
//! /proc/net/netfilter/nfnetlink_queue), exactly, where probes are dropped; of those that pass because a queue is full the kernel keeps no count.
//! The queues are only as long as the receive buffer bears, so that messages fit while there is room in the queues.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::{Error, Packet, PacketSource, Received, Statistics, Verdict, Waiting, WaitingSource, holder};
use crate::netlink::message::{Message, Messages, NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Writer};
use crate::netlink::socket::{Socket, is_overrun};

/// `NFNL_SUBSYS_QUEUE << 8` (linux/netfilter/nfnetlink.h): what the message types below are counted from.
const SUBSYSTEM: u16 = 3 << 8;
/// `NFQNL_MSG_PACKET`: a packet waits.
const MSG_PACKET: u16 = SUBSYSTEM;
/// `NFQNL_MSG_VERDICT`: what becomes of one packet.
const MSG_VERDICT: u16 = SUBSYSTEM | 1;
/// `NFQNL_MSG_CONFIG`: we configure a queue.
const MSG_CONFIG: u16 = SUBSYSTEM | 2;
/// `NFQNL_MSG_VERDICT_BATCH`: what becomes of every packet that waits, up to this one.
const MSG_VERDICT_BATCH: u16 = SUBSYSTEM | 3;
/// A message of the subsystem that does not exist: the kernel looks at the sender's rights before it looks the message up.
const MSG_NONE: u16 = SUBSYSTEM | 0xff;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_CFG_CMD_UNBIND: u8 = 2;
const NFQNL_COPY_PACKET: u8 = 2;
/// A packet that finds the queue full passes.
const NFQA_CFG_F_FAIL_OPEN: u32 = 1;
/// Large packets come whole, and without the checksums that a device would compute: we change nothing in them.
const NFQA_CFG_F_GSO: u32 = 4;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_MARK: u16 = 3;
const NFQA_IFINDEX_INDEV: u16 = 5;
const NFQA_PAYLOAD: u16 = 10;

/// `NF_DROP` (linux/netfilter.h).
const NF_DROP: u32 = 0;
/// `NF_ACCEPT`: on to the next base chain. Never `NF_REPEAT`: the same rule would queue the packet again.
const NF_ACCEPT: u32 = 1;

/// What the kernel charges the receive buffer for one message, bytes, generously: 1,280 with 256 bytes of a packet, measured on Linux 6.18.
const MESSAGE_COST: usize = 2048;
/// One part in so many of what the receive buffer bears is for connections of suspects: retransmitted SYNs of a thousand of them.
const CONNECTIONS_SHARE: usize = 8;
/// Packets that are judged before the first of them hears of it: a verdict is 1 us, a packet of another kind waits no longer for it than 64 judgements.
const VERDICT_RUN: u32 = 64;
/// Room for the largest single packet (an attribute ends at 64 KiB) with all that comes with it.
const BUFFER_LEN: usize = 65_536 + 4096;
/// What may come between the queue's creation and the kernel's word that it is ours is kept up to here.
const EARLY_MAX: usize = 256 * 1024;

/// How the queues are listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The number of the queue for probes (`capture.group`); the next number is the queue for suspects' connections. At most 65,534.
    pub queue: u16,
    /// Probes that find their queue full pass, as they would without us: for configurations that do not drop probes.
    pub probes_pass: bool,
    /// Bytes copied of each packet, from its IP header on.
    pub copy_range: u16,
    /// Receive buffer asked for, bytes. The length of the queues follows from what is granted.
    pub receive_buffer: usize,
}

impl Settings {
    /// What the daemon uses for `queue`.
    pub fn of_queue(queue: u16, probes_pass: bool) -> Self {
        Self {
            queue,
            probes_pass,
            // The longest IPv4 and TCP headers are 120 bytes; IPv6 with extension headers of 156 bytes still shows a whole TCP header.
            copy_range: 256,
            // 16 MiB as the kernel counts: 7,168 probes and 1,024 connections may wait. That is a seventh of a second at 50,000 probes a second.
            receive_buffer: 8 * 1024 * 1024,
        }
    }
}

/// Which of the two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Probes of closed ports.
    Probe,
    /// New connections of suspects to open ports.
    Connection,
}

/// The kernel's own view of a queue (/proc/net/netfilter/nfnetlink_queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Packets that wait now.
    pub waiting: u32,
    /// Packets that found the queue full and were dropped, since it was bound.
    pub full: u32,
    /// Packets whose message found the receive buffer full and that were dropped, since it was bound.
    pub unreceived: u32,
}

/// Two bound queues. The kernel unbinds them when this is dropped; packets that wait then are dropped.
pub struct Listener {
    socket: Socket,
    settings: Settings,
    /// Packets that may wait, of each kind.
    lengths: [u32; 2],
    buffer: Box<[u8]>,
    /// Datagrams that came while the queues were being bound, one after the other.
    early: Vec<u8>,
    counters: Counters,
    verdicts: Writer,
    sequence: u32,
}

impl Listener {
    /// Binds the queues in the network namespace of this thread.
    ///
    /// # Errors
    /// See [`Error`]; that another program has a queue is told apart from missing rights.
    pub fn bind(settings: Settings) -> Result<Self, Error> {
        let Some(second) = settings.queue.checked_add(1) else {
            return Err(Error::BindQueue { queue: settings.queue, error: io::Error::from(io::ErrorKind::InvalidInput) });
        };
        let socket = Socket::open(NlFamily::Netfilter, &[]).map_err(Error::Open)?;
        // First of all: from the moment of the binding, packets come.
        socket.set_receive_buffer(settings.receive_buffer).map_err(Error::Buffer)?;
        let granted = socket.receive_buffer().map_err(Error::Buffer)?;
        let mut listener = Self {
            socket,
            lengths: lengths(granted),
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            early: Vec::new(),
            counters: Counters::new(settings.queue),
            verdicts: Writer::with_capacity(64),
            sequence: 0,
            settings,
        };
        let [probes, connections] = listener.lengths;
        listener.bind_one(listener.settings.queue, probes, listener.settings.probes_pass)?;
        listener.bind_one(second, connections, true)?;
        Ok(listener)
    }

    fn bind_one(&mut self, queue: u16, length: u32, fail_open: bool) -> Result<(), Error> {
        let mut writer = Writer::with_capacity(128);
        let sequence = self.next_sequence();
        write_bind(&mut writer, sequence, (queue, length, fail_open), self.settings.copy_range);
        let answer = self.ask(writer.bytes(), sequence).map_err(|error| Error::BindQueue { queue, error })?;
        // Compared as numbers: rustix's Errno does not take any number that comes from outside.
        match answer {
            0 => Ok(()),
            errno if errno == Errno::PERM.raw_os_error() => Err(self.refused(queue)),
            // What nfnetlink says when a subsystem is not there, and cannot be loaded either.
            errno if errno == Errno::INVAL.raw_os_error() || errno == Errno::OPNOTSUPP.raw_os_error() => {
                Err(Error::NoQueues { error: io::Error::from_raw_os_error(errno) })
            }
            errno => Err(Error::BindQueue { queue, error: io::Error::from_raw_os_error(errno) }),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Packets that may wait: probes, and connections of suspects.
    pub fn lengths(&self) -> [u32; 2] {
        self.lengths
    }

    /// What the kernel says of the queues: of the probes', and of the connections'. Zeroes if it does not say. Also brings what is lost up to date.
    pub fn look(&mut self) -> [Standing; 2] {
        let text = standings();
        let of = |queue| standing_of(&text, queue).unwrap_or_default();
        let standings = [of(self.settings.queue), of(self.settings.queue.wrapping_add(1))];
        self.counters.full = standings.iter().map(|standing| u64::from(standing.full)).sum();
        standings
    }

    /// Changes whether probes that find their queue full pass. Takes effect with the next packet.
    ///
    /// # Errors
    /// [`Error::BindQueue`] if the message cannot be sent.
    pub fn set_probes_pass(&mut self, probes_pass: bool) -> Result<(), Error> {
        let mut writer = Writer::with_capacity(64);
        let sequence = self.next_sequence();
        let message = writer.begin_message(MSG_CONFIG, NLM_F_REQUEST, sequence);
        writer.nfgenmsg(0, self.settings.queue);
        writer.attr_be32(NFQA_CFG_FLAGS, if probes_pass { NFQA_CFG_F_FAIL_OPEN } else { 0 });
        writer.attr_be32(NFQA_CFG_MASK, NFQA_CFG_F_FAIL_OPEN);
        writer.end_message(message);
        self.socket.send(writer.bytes()).map_err(|error| Error::BindQueue { queue: self.settings.queue, error })?;
        self.settings.probes_pass = probes_pass;
        Ok(())
    }

    /// Leaves the queues. Packets that wait are dropped: a client sends its SYN again, and that one passes.
    ///
    /// # Errors
    /// [`Error::UnbindQueue`] if a message cannot be sent; dropping the listener leaves the queues in any case.
    pub fn unbind(&mut self) -> Result<(), Error> {
        for queue in [self.settings.queue, self.settings.queue.wrapping_add(1)] {
            let mut writer = Writer::with_capacity(32);
            let sequence = self.next_sequence();
            let message = writer.begin_message(MSG_CONFIG, NLM_F_REQUEST, sequence);
            writer.nfgenmsg(0, queue);
            writer.attr(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_UNBIND, 0, 0, 0]);
            writer.end_message(message);
            self.socket.send(writer.bytes()).map_err(|error| Error::UnbindQueue { queue, error })?;
        }
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends a message that wants an acknowledgement, and gives its errno (0 for success). Packets that come before it are kept.
    fn ask(&mut self, message: &[u8], sequence: u32) -> io::Result<i32> {
        self.socket.send(message)?;
        loop {
            // The answer is in the queue when send(2) returns: an empty queue means that there will be none.
            let datagram = match self.socket.receive_part(&mut self.buffer) {
                Ok(Some((datagram, _))) => datagram,
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

    /// What EPERM means: the kernel says it for a foreign queue as well as for missing rights. A message that exists for nobody, and that needs
    /// the right all the same, tells which.
    fn refused(&mut self, queue: u16) -> Error {
        let mut writer = Writer::with_capacity(32);
        let sequence = self.next_sequence();
        let message = writer.begin_message(MSG_NONE, NLM_F_REQUEST | NLM_F_ACK, sequence);
        writer.nfgenmsg(0, queue);
        writer.end_message(message);
        match self.ask(writer.bytes(), sequence) {
            Ok(errno) if errno == Errno::PERM.raw_os_error() => Error::QueueNotPermitted { queue },
            Ok(_) => Error::QueueInUse { queue, holder: holder::of_queue(queue) },
            Err(error) => Error::BindQueue { queue, error },
        }
    }
}

impl PacketSource for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hands the packets out and lets each pass.
    fn receive(&mut self, bound: usize, on_packet: &mut dyn FnMut(&Packet<'_>)) -> Result<Received, Error> {
        self.judge(bound, &mut |waiting| {
            on_packet(&waiting.packet);
            Verdict::Accept
        })
    }

    fn statistics(&self) -> Statistics {
        let Counters { statistics, full, .. } = &self.counters;
        Statistics { lost: statistics.lost + full, ..*statistics }
    }
}

impl WaitingSource for Listener {
    fn judge(&mut self, bound: usize, on_packet: &mut dyn FnMut(&Waiting<'_>) -> Verdict) -> Result<Received, Error> {
        let Self { socket, buffer, early, counters, verdicts, .. } = self;
        let before = counters.statistics.packets;
        let done = |counters: &Counters| usize::try_from(counters.statistics.packets.wrapping_sub(before)).unwrap_or(usize::MAX);
        if !early.is_empty() {
            counters.on_datagram(&std::mem::take(early), verdicts, on_packet);
        }
        let mut more = true;
        // Every turn is a datagram or an overrun: so the bound holds even if nothing but noise comes.
        for _ in 0..bound {
            if done(counters) >= bound {
                break;
            }
            match socket.receive_part(buffer) {
                Ok(Some((datagram, cut))) => {
                    counters.statistics.malformed += u64::from(cut);
                    counters.on_datagram(datagram, verdicts, on_packet);
                    send(socket, verdicts)?;
                }
                Ok(None) => {
                    more = false;
                    break;
                }
                // After an overrun the kernel queues nothing until the queue has been read empty: read on.
                Err(error) if is_overrun(&error) => counters.on_overrun(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Receive(error)),
            }
        }
        counters.settle(verdicts);
        send(socket, verdicts)?;
        Ok(Received { packets: done(counters), more })
    }
}

/// Sends the verdicts that were written, if there are any. The kernel carries them out before it returns.
fn send(socket: &Socket, verdicts: &mut Writer) -> Result<(), Error> {
    if verdicts.bytes().is_empty() {
        return Ok(());
    }
    let result = socket.send(verdicts.bytes()).map_err(Error::Verdict);
    verdicts.clear();
    result
}

/// Verdicts that have not been written yet: packets of one queue, one after the other, of which the same becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    last: u32,
    count: u32,
    verdict: Verdict,
}

/// What is counted while datagrams are taken apart, and what is still to be told the kernel. Apart from the socket, so that any bytes can be
/// put through it.
#[derive(Debug, Clone)]
pub struct Counters {
    /// The counts so far; `lost` has the gaps alone.
    pub statistics: Statistics,
    /// Packets that the kernel dropped because a queue was full, as of the last [`Listener::look`].
    full: u64,
    /// Verdicts on packets that had gone meanwhile, with the device that they came by.
    pub gone: u64,
    queue: u16,
    /// The number of the last packet of each queue; the kernel starts at 1.
    last: [u32; 2],
    runs: [Option<Run>; 2],
}

impl Counters {
    /// For the queues from `queue` on.
    pub fn new(queue: u16) -> Self {
        Self { statistics: Statistics::default(), full: 0, gone: 0, queue, last: [0; 2], runs: [None; 2] }
    }

    /// Takes a datagram apart, has its packets judged, and writes the verdicts that are due.
    pub fn on_datagram(&mut self, datagram: &[u8], verdicts: &mut Writer, on_packet: &mut dyn FnMut(&Waiting<'_>) -> Verdict) {
        for message in Messages(datagram) {
            match message.header.kind {
                MSG_PACKET => match decode(&message, self.queue) {
                    Some(waiting) => {
                        self.on_id(waiting.kind, waiting.id);
                        self.statistics.packets += 1;
                        let verdict = on_packet(&waiting);
                        self.on_verdict(waiting.kind, waiting.id, verdict, verdicts);
                    }
                    None => self.statistics.malformed += 1,
                },
                NLMSG_DONE => {}
                NLMSG_ERROR => match message.answer() {
                    // A packet goes when its device does.
                    Some(answer) if answer.errno == Errno::NOENT.raw_os_error() => self.gone += 1,
                    Some(answer) if answer.errno != 0 => {
                        log::warn!("NFQUEUE: the kernel refused a verdict: {}", io::Error::from_raw_os_error(answer.errno));
                    }
                    Some(_) => {}
                    None => self.statistics.malformed += 1,
                },
                NLMSG_OVERRUN => self.on_overrun(),
                _ => self.statistics.malformed += 1,
            }
        }
    }

    /// Writes the verdicts that are left.
    pub fn settle(&mut self, verdicts: &mut Writer) {
        for (queue, run) in (self.queue..).zip(&mut self.runs) {
            if let Some(run) = run.take() {
                write_verdict(verdicts, queue, run);
            }
        }
    }

    /// The kernel told that the receive buffer was full.
    fn on_overrun(&mut self) {
        self.statistics.overruns += 1;
        self.statistics.loss_uncounted = true;
    }

    fn on_id(&mut self, kind: Kind, id: u32) {
        let Some(last) = self.last.get_mut(kind as usize) else { return };
        let gap = id.wrapping_sub(*last).wrapping_sub(1);
        // A step back is no loss of four billion: the count began again.
        if gap < 1 << 31 {
            self.statistics.lost += u64::from(gap);
            // What was queued before the overrun comes without a gap.
            self.statistics.loss_uncounted &= gap == 0;
        }
        *last = id;
    }

    fn on_verdict(&mut self, kind: Kind, id: u32, verdict: Verdict, verdicts: &mut Writer) {
        let queue = self.queue.wrapping_add(kind as u16);
        let Some(slot) = self.runs.get_mut(kind as usize) else { return };
        // A batch verdict is for all that wait up to its number: a verdict of another kind has to be told first.
        match slot {
            Some(run) if run.verdict == verdict && run.count < VERDICT_RUN => (run.last, run.count) = (id, run.count + 1),
            other => {
                if let Some(run) = other.replace(Run { last: id, count: 1, verdict }) {
                    write_verdict(verdicts, queue, run);
                }
            }
        }
    }
}

/// Reads a packet of the queues from `queue` on from a message; `None` if it is none, or one without packet header.
pub fn decode<'a>(message: &Message<'a>, queue: u16) -> Option<Waiting<'a>> {
    let (_family, resource, attributes) = message.nfgen()?;
    let kind = match resource.wrapping_sub(queue) {
        0 => Kind::Probe,
        1 => Kind::Connection,
        _ => return None,
    };
    if message.header.kind != MSG_PACKET {
        return None;
    }
    let (mut packet, mut id, mut mark) = (Packet::default(), None, 0);
    for attribute in attributes {
        match attribute.kind {
            NFQA_PACKET_HDR => {
                // struct nfqnl_msg_packet_hdr, packed: id and protocol (big-endian), hook.
                let [a, b, c, d, high, low, hook] = *attribute.value.first_chunk::<7>()?;
                id = Some(u32::from_be_bytes([a, b, c, d]));
                packet.hw_protocol = u16::from_be_bytes([high, low]);
                packet.hook = hook;
            }
            NFQA_MARK => mark = attribute.be32()?,
            NFQA_IFINDEX_INDEV => packet.indev = attribute.be32(),
            NFQA_PAYLOAD => packet.payload = attribute.value,
            _ => {}
        }
    }
    let id = id?;
    packet.sequence = Some(id);
    Some(Waiting { packet, id, kind, mark })
}

/// How many packets may wait, of each kind, so that a message fits for each.
fn lengths(receive_buffer: usize) -> [u32; 2] {
    let all = (receive_buffer / MESSAGE_COST).max(2 * CONNECTIONS_SHARE);
    let connections = all / CONNECTIONS_SHARE;
    [all - connections, connections].map(|length| u32::try_from(length).unwrap_or(u32::MAX))
}

/// Writes the message that binds and configures a queue.
fn write_bind(writer: &mut Writer, sequence: u32, (queue, length, fail_open): (u16, u32, bool), copy_range: u16) {
    let message = writer.begin_message(MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, sequence);
    writer.nfgenmsg(0, queue);
    // struct nfqnl_msg_config_cmd: command, a byte of padding, a protocol family that no kernel looks at any more.
    writer.attr(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    // struct nfqnl_msg_config_params is packed: copy range (big-endian), mode.
    let [a, b, c, d] = u32::from(copy_range).to_be_bytes();
    writer.attr(NFQA_CFG_PARAMS, &[a, b, c, d, NFQNL_COPY_PACKET]);
    writer.attr_be32(NFQA_CFG_QUEUE_MAXLEN, length);
    let flags = NFQA_CFG_F_GSO | if fail_open { NFQA_CFG_F_FAIL_OPEN } else { 0 };
    writer.attr_be32(NFQA_CFG_FLAGS, flags);
    writer.attr_be32(NFQA_CFG_MASK, NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN);
    writer.end_message(message);
}

fn write_verdict(writer: &mut Writer, queue: u16, run: Run) {
    let kind = if run.count == 1 { MSG_VERDICT } else { MSG_VERDICT_BATCH };
    let message = writer.begin_message(kind, NLM_F_REQUEST, 0);
    writer.nfgenmsg(0, queue);
    // struct nfqnl_msg_verdict_hdr: verdict, number (big-endian).
    let verdict = match run.verdict {
        Verdict::Accept => NF_ACCEPT,
        Verdict::Drop => NF_DROP,
    };
    let [a, b, c, d] = verdict.to_be_bytes();
    let [e, f, g, h] = run.last.to_be_bytes();
    writer.attr(NFQA_VERDICT_HDR, &[a, b, c, d, e, f, g, h]);
    writer.end_message(message);
}

/// What the kernel says of a queue in this thread's network namespace; `None` if it is not bound.
pub fn standing(queue: u16) -> Option<Standing> {
    standing_of(&standings(), queue)
}

fn standings() -> String {
    fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default()
}

/// A queue's line: number, port, waiting, copy mode, copy range, dropped as full, dropped as not received, last number, 1.
fn standing_of(text: &str, queue: u16) -> Option<Standing> {
    text.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        if next()? != u32::from(queue) {
            return None;
        }
        let (_port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?);
        Some(Standing { waiting, full: next()?, unreceived: next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet's message as the kernel writes it.
    fn packet(writer: &mut Writer, queue: u16, id: u32, payload: &[u8]) {
        let message = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, queue);
        let [a, b, c, d] = id.to_be_bytes();
        writer.attr(NFQA_PACKET_HDR, &[a, b, c, d, 0x08, 0x00, 1]);
        writer.attr_be32(NFQA_IFINDEX_INDEV, 3);
        writer.attr_be32(NFQA_MARK, 9);
        writer.attr(NFQA_PAYLOAD, payload);
        writer.end_message(message);
    }

    /// Puts packets (queue, number, verdict) through, and gives the verdicts told: message type, queue, verdict, number.
    fn told(packets: &[(u16, u32, Verdict)]) -> Vec<(u16, u16, u32, u32)> {
        let (mut counters, mut verdicts) = (Counters::new(77), Writer::default());
        for (queue, id, verdict) in packets {
            let mut writer = Writer::default();
            packet(&mut writer, *queue, *id, b"x");
            counters.on_datagram(writer.bytes(), &mut verdicts, &mut |_| *verdict);
        }
        counters.settle(&mut verdicts);
        Messages(verdicts.bytes())
            .map(|message| {
                let (_, queue, attributes) = message.nfgen().unwrap();
                let header = attributes.get(NFQA_VERDICT_HDR).unwrap().value;
                let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
                (message.header.kind, queue, number(0), number(4))
            })
            .collect()
    }

    #[test]
    fn a_packet_is_read_without_copying() {
        let mut writer = Writer::default();
        packet(&mut writer, 78, 5, b"payload");
        let message = Messages(writer.bytes()).next().unwrap();
        let waiting = decode(&message, 77).unwrap();
        let expected = Packet { prefix: "", hook: 1, hw_protocol: 0x0800, payload: b"payload", indev: Some(3), sequence: Some(5) };
        assert_eq!(waiting, Waiting { packet: expected, id: 5, kind: Kind::Connection, mark: 9 });
        assert!(writer.bytes().as_ptr_range().contains(&waiting.packet.payload.as_ptr()));
        assert_eq!(decode(&message, 78).map(|waiting| waiting.kind), Some(Kind::Probe));
        assert_eq!((decode(&message, 76), decode(&message, 79)), (None, None));
    }

    #[test]
    fn verdicts_that_are_alike_are_told_together_and_others_one_by_one() {
        use Verdict::{Accept, Drop};
        let probes = [(77, 1, Drop), (77, 2, Drop), (77, 3, Drop)];
        assert_eq!(told(&probes), [(MSG_VERDICT_BATCH, 77, NF_DROP, 3)]);
        assert_eq!(told(&probes[..1]), [(MSG_VERDICT, 77, NF_DROP, 1)]);
        // A connection between probes does not end their run: its queue has numbers of its own.
        let mixed = [(77, 1, Drop), (78, 1, Accept), (77, 2, Drop), (78, 2, Drop), (77, 3, Accept)];
        assert_eq!(
            told(&mixed),
            [(MSG_VERDICT, 78, NF_ACCEPT, 1), (MSG_VERDICT_BATCH, 77, NF_DROP, 2), (MSG_VERDICT, 77, NF_ACCEPT, 3), (MSG_VERDICT, 78, NF_DROP, 2)]
        );
    }

    #[test]
    fn a_run_of_verdicts_has_an_end() {
        let many: Vec<_> = (1..=VERDICT_RUN + 1).map(|id| (77, id, Verdict::Drop)).collect();
        assert_eq!(told(&many), [(MSG_VERDICT_BATCH, 77, NF_DROP, VERDICT_RUN), (MSG_VERDICT, 77, NF_DROP, VERDICT_RUN + 1)]);
    }

    #[test]
    fn gaps_in_each_queues_numbers_are_losses() {
        let mut counters = Counters::new(77);
        for (queue, id, lost) in [(77, 1, 0), (78, 3, 2), (77, 2, 2), (77, 5, 4), (78, 4, 4), (77, u32::MAX, 4), (77, 1, 5)] {
            let mut writer = Writer::default();
            packet(&mut writer, queue, id, b"");
            counters.on_datagram(writer.bytes(), &mut Writer::default(), &mut |_| Verdict::Accept);
            assert_eq!(counters.statistics.lost, lost, "at {id} of {queue}");
        }
    }

    #[test]
    fn a_verdict_on_what_has_gone_is_counted_and_no_damage() {
        let mut writer = Writer::default();
        let message = writer.begin_message(NLMSG_ERROR, 0, 7);
        writer.raw(&(-2i32).to_ne_bytes());
        writer.raw(&[0; 16]);
        writer.end_message(message);
        let mut counters = Counters::new(77);
        counters.on_datagram(writer.bytes(), &mut Writer::default(), &mut |_| Verdict::Accept);
        assert_eq!((counters.gone, counters.statistics.malformed), (1, 0));
    }

    #[test]
    fn what_is_no_packet_of_the_queues_is_counted_as_malformed() {
        let mut writer = Writer::default();
        packet(&mut writer, 79, 1, b"another queue's");
        let without_header = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, 77);
        writer.end_message(without_header);
        let mut counters = Counters::new(77);
        counters.on_datagram(writer.bytes(), &mut Writer::default(), &mut |_| Verdict::Accept);
        assert_eq!(counters.statistics, Statistics { malformed: 2, ..Statistics::default() });
    }

    #[test]
    fn a_queue_is_bound_with_its_length_its_copies_and_its_way_to_fail() {
        for (fail_open, flags) in [(false, 4), (true, 5)] {
            let mut writer = Writer::default();
            write_bind(&mut writer, 1, (77, 1000, fail_open), 256);
            let (_, queue, attributes) = Messages(writer.bytes()).next().unwrap().nfgen().unwrap();
            assert_eq!(queue, 77);
            assert_eq!(attributes.get(NFQA_CFG_PARAMS).unwrap().value, [0, 0, 1, 0, 2]);
            assert_eq!(attributes.get(NFQA_CFG_QUEUE_MAXLEN).unwrap().be32(), Some(1000));
            assert_eq!(attributes.get(NFQA_CFG_FLAGS).unwrap().be32(), Some(flags));
        }
    }

    #[test]
    fn the_queues_are_as_long_as_the_receive_buffer_bears() {
        assert_eq!(lengths(16 << 20), [7168, 1024]);
        let [probes, connections] = lengths(0);
        assert!(probes > 0 && connections > 0);
    }

    #[test]
    fn the_kernels_view_of_a_queue_is_read_by_its_number() {
        let text = "    7   4711     9 2   256     5     6     7  1\n   77 3905422019     3 2   256     1     2     9  1\n";
        assert_eq!(standing_of(text, 77), Some(Standing { waiting: 3, full: 1, unreceived: 2 }));
        for text in ["", "\n", "77", "77 1 2", "x 1 2 3 4 5 6 7"] {
            assert_eq!(standing_of(text, 77), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut verdicts = Writer::default();
            let mut counters = Counters::new(77);
            counters.on_datagram(&bytes, &mut verdicts, &mut |_| Verdict::Drop);
            counters.settle(&mut verdicts);
        }

        /// Random bytes seldom get past the headers: a real message with bytes changed, and an end cut off, does.
        #[test]
        fn no_damage_makes_the_decoder_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), end: prop::sample::Index) {
            let mut writer = Writer::default();
            packet(&mut writer, 77, 1, &[0x45; 40]);
            packet(&mut writer, 78, 1, &[0x60; 60]);
            let mut bytes = writer.bytes().to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let end = end.index(bytes.len() + 1);
            let mut counters = Counters::new(77);
            counters.on_datagram(&bytes[..end], &mut Writer::default(), &mut |_| Verdict::Accept);
            prop_assert!(counters.statistics.packets <= u64::try_from(bytes.len() / 28).unwrap());
        }

        /// Carries the verdicts out as the kernel does, and looks that each packet got its own.
        #[test]
        fn every_packet_gets_the_verdict_that_was_given_for_it(packets in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..300)) {
            let mut ids = [0u32; 2];
            let given: Vec<(u16, u32, Verdict)> = packets
                .iter()
                .map(|(second, drops)| {
                    let id = &mut ids[usize::from(*second)];
                    *id += 1;
                    (77 + u16::from(*second), *id, if *drops { Verdict::Drop } else { Verdict::Accept })
                })
                .collect();
            let mut waiting = given.clone();
            for (kind, queue, verdict, id) in told(&given) {
                let verdict = if verdict == NF_DROP { Verdict::Drop } else { Verdict::Accept };
                let meets = |packet: &(u16, u32, Verdict)| packet.0 == queue && if kind == MSG_VERDICT { packet.1 == id } else { packet.1 <= id };
                prop_assert!(waiting.iter().filter(|packet| meets(packet)).all(|packet| packet.2 == verdict));
                waiting.retain(|packet| !meets(packet));
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
