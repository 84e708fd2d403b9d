//! Decodes the queues' datagrams, counts losses, and combines equal verdicts into batches.
//!
//! Pure: the listener passes bytes in, and sends the verdicts that are written.

use std::io;

use rustix::io::Errno;

use super::message::{Kind, MSG_PACKET, decode, write_verdict};
use crate::capture::{Statistics, Verdict, Waiting};
use crate::netlink::message::{Messages, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, Writer};

/// Packets in a batch verdict. The first waits for the last one's decision, so a batch must not be
/// long; a verdict costs 1 us.
const VERDICT_RUN: u32 = 64;

/// Equal verdicts on consecutive packets of one queue that are not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    last: u32,
    count: u32,
    verdict: Verdict,
}

/// The decoder with its counters and unwritten verdicts. Separate from the socket, so that tests
/// can pass any bytes.
#[derive(Debug, Clone)]
pub struct Counters {
    /// The counts so far; `lost` includes only the gaps.
    pub statistics: Statistics,
    /// Packets that the kernel dropped because a queue was full, as of the last
    /// [`super::Listener::read_status`].
    pub(super) full: u64,
    /// Verdicts on packets that were gone, because their device was removed.
    pub gone: u64,
    queue: u16,
    /// The number of the last packet of each queue; the kernel starts at 1.
    last: [u32; 2],
    runs: [Option<Run>; 2],
}

impl Counters {
    /// Counters for `queue` and the next queue.
    pub fn new(queue: u16) -> Self {
        Self {
            statistics: Statistics::default(),
            full: 0,
            gone: 0,
            queue,
            last: [0; 2],
            runs: [None; 2],
        }
    }

    /// Decodes a datagram, asks `on_packet` about its packets, and writes the verdicts that are
    /// due.
    pub fn on_datagram(
        &mut self,
        datagram: &[u8],
        verdicts: &mut Writer,
        on_packet: &mut dyn FnMut(&Waiting<'_>) -> Verdict,
    ) {
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
                    // A packet disappears with its device.
                    Some(answer) if answer.errno == Errno::NOENT.raw_os_error() => self.gone += 1,
                    Some(answer) if answer.errno != 0 => {
                        log::warn!(
                            "NFQUEUE: the kernel refused a verdict: {}",
                            io::Error::from_raw_os_error(answer.errno)
                        );
                    }
                    Some(_) => {}
                    None => self.statistics.malformed += 1,
                },
                NLMSG_OVERRUN => self.on_overrun(),
                _ => self.statistics.malformed += 1,
            }
        }
    }

    /// Writes the remaining verdicts.
    pub fn settle(&mut self, verdicts: &mut Writer) {
        for (queue, run) in (self.queue..).zip(&mut self.runs) {
            if let Some(run) = run.take() {
                write_verdict(verdicts, queue, (run.last, run.count), run.verdict);
            }
        }
    }

    /// The kernel reported a full receive buffer.
    pub(super) fn on_overrun(&mut self) {
        self.statistics.overruns += 1;
        self.statistics.loss_uncounted = true;
    }

    fn on_id(&mut self, kind: Kind, id: u32) {
        let Some(last) = self.last.get_mut(kind as usize) else { return };
        let gap = id.wrapping_sub(*last).wrapping_sub(1);
        // A number that goes back is not a loss of four billion: the kernel's count restarted.
        if gap < 1 << 31 {
            self.statistics.lost += u64::from(gap);
            // Packets queued before the overrun have no gap.
            self.statistics.loss_uncounted &= gap == 0;
        }
        *last = id;
    }

    fn on_verdict(&mut self, kind: Kind, id: u32, verdict: Verdict, verdicts: &mut Writer) {
        let queue = self.queue.wrapping_add(kind as u16);
        let Some(slot) = self.runs.get_mut(kind as usize) else { return };
        // A batch verdict applies to all waiting packets up to its number, so a different verdict
        // must be written first.
        match slot {
            Some(run) if run.verdict == verdict && run.count < VERDICT_RUN => {
                (run.last, run.count) = (id, run.count + 1)
            }
            other => {
                if let Some(run) = other.replace(Run { last: id, count: 1, verdict }) {
                    write_verdict(verdicts, queue, (run.last, run.count), run.verdict);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::nfqueue::message::tests::packet;
    use crate::capture::nfqueue::message::{
        MSG_VERDICT, MSG_VERDICT_BATCH, NF_ACCEPT, NF_DROP, NFQA_VERDICT_HDR,
    };

    /// Passes packets (queue, number, verdict) through and returns the verdicts written: message
    /// type, queue, verdict, number.
    fn written(packets: &[(u16, u32, Verdict)]) -> Vec<(u16, u16, u32, u32)> {
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
    fn equal_verdicts_are_combined() {
        use Verdict::{Accept, Drop};
        let probes = [(77, 1, Drop), (77, 2, Drop), (77, 3, Drop)];
        assert_eq!(written(&probes), [(MSG_VERDICT_BATCH, 77, NF_DROP, 3)]);
        assert_eq!(written(&probes[..1]), [(MSG_VERDICT, 77, NF_DROP, 1)]);
        // A connection between probes does not end their run, because its queue has its own
        // numbers.
        let mixed = [(77, 1, Drop), (78, 1, Accept), (77, 2, Drop), (78, 2, Drop), (77, 3, Accept)];
        assert_eq!(
            written(&mixed),
            [
                (MSG_VERDICT, 78, NF_ACCEPT, 1),
                (MSG_VERDICT_BATCH, 77, NF_DROP, 2),
                (MSG_VERDICT, 77, NF_ACCEPT, 3),
                (MSG_VERDICT, 78, NF_DROP, 2)
            ]
        );
    }

    #[test]
    fn run_of_verdicts_is_bounded() {
        let many: Vec<_> = (1..=VERDICT_RUN + 1).map(|id| (77, id, Verdict::Drop)).collect();
        assert_eq!(
            written(&many),
            [
                (MSG_VERDICT_BATCH, 77, NF_DROP, VERDICT_RUN),
                (MSG_VERDICT, 77, NF_DROP, VERDICT_RUN + 1)
            ]
        );
    }

    #[test]
    fn gaps_in_a_queues_numbers_are_losses() {
        let mut counters = Counters::new(77);
        for (queue, id, lost) in [
            (77, 1, 0),
            (78, 3, 2),
            (77, 2, 2),
            (77, 5, 4),
            (78, 4, 4),
            (77, u32::MAX, 4),
            (77, 1, 5),
        ] {
            let mut writer = Writer::default();
            packet(&mut writer, queue, id, b"");
            counters.on_datagram(writer.bytes(), &mut Writer::default(), &mut |_| Verdict::Accept);
            assert_eq!(counters.statistics.lost, lost, "at {id} of {queue}");
        }
    }

    #[test]
    fn verdict_on_a_gone_packet_is_only_counted() {
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
    fn other_messages_are_counted_as_malformed() {
        let mut writer = Writer::default();
        packet(&mut writer, 79, 1, b"another queue's");
        let without_header = writer.begin_message(MSG_PACKET, 0, 0);
        writer.nfgenmsg(2, 77);
        writer.end_message(without_header);
        let mut counters = Counters::new(77);
        counters.on_datagram(writer.bytes(), &mut Writer::default(), &mut |_| Verdict::Accept);
        assert_eq!(counters.statistics, Statistics { malformed: 2, ..Statistics::default() });
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut verdicts = Writer::default();
            let mut counters = Counters::new(77);
            counters.on_datagram(&bytes, &mut verdicts, &mut |_| Verdict::Drop);
            counters.settle(&mut verdicts);
        }

        /// Random bytes rarely get past the headers, so this damages and truncates a real message.
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

        /// Applies the verdicts as the kernel does and checks that each packet gets its own.
        #[test]
        fn each_packet_gets_its_own_verdict(packets in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..300)) {
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
            for (kind, queue, verdict, id) in written(&given) {
                let verdict = if verdict == NF_DROP { Verdict::Drop } else { Verdict::Accept };
                let meets = |packet: &(u16, u32, Verdict)| packet.0 == queue && if kind == MSG_VERDICT { packet.1 == id } else { packet.1 <= id };
                prop_assert!(waiting.iter().filter(|packet| meets(packet)).all(|packet| packet.2 == verdict));
                waiting.retain(|packet| !meets(packet));
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
