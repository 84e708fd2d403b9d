//! Raw TCP on the scanner's side: a SYN scan at a fixed rate, and beside it knocks on a port that
//! is open.
//!
//! The *knock* is a SYN from the scanning source to a service that no contestant watches. While it
//! is answered the source is not blocked; the first of the unanswered ones is when the block began.
//! Packets follow RFC 791 and RFC 9293, and are sent with raw(7).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
    sockopt,
};

use super::target::{HOST, KNOCK};

const SYN: u8 = 2;
const RST: u8 = 4;
/// The source port of probes; knocks count up from [`FIRST_KNOCK`].
const PROBES_FROM: u16 = 1000;
const FIRST_KNOCK: u16 = 2000;
/// Knocks without an answer, and the time they take, after which the source is cut off: fewer could
/// be late or lost packets.
const SILENT_KNOCKS: usize = 5;
const SILENCE: Duration = Duration::from_millis(500);

fn sum(data: &[u8]) -> u32 {
    data.chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)))
        .sum()
}

fn syn(source: Ipv4Addr, from: u16, port: u16, sequence: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 50, 6, 0, 0]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&HOST.octets());
    packet[20..22].copy_from_slice(&from.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    // Data offset, flags, and a window as nmap has it.
    packet[32..36].copy_from_slice(&[0x50, SYN, 4, 0]);
    let mut total = sum(&packet[12..40]) + 6 + 20;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    packet[36..38].copy_from_slice(&(!(total as u16)).to_be_bytes());
    packet
}

/// A pair of raw sockets in the namespace of the thread that makes it.
pub struct Wire {
    out: OwnedFd,
    ear: OwnedFd,
}

/// What the host said to a TCP packet.
struct Answer {
    to: Ipv4Addr,
    from_port: u16,
    to_port: u16,
    open: bool,
}

impl Wire {
    /// Opens them.
    pub fn new() -> Self {
        let raw = |protocol| {
            socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(protocol),
            )
            .unwrap()
        };
        let (out, ear) = (raw(rustix::net::ipproto::RAW), raw(rustix::net::ipproto::TCP));
        sockopt::set_socket_recv_buffer_size_force(&ear, 16 << 20).unwrap();
        Self { out, ear }
    }

    fn send(&self, packet: &[u8; 40]) {
        // A full queue of the device is a lost packet, as on any network.
        let _ = sendto(&self.out, packet, SendFlags::empty(), &SocketAddrV4::new(HOST, 0));
    }

    fn hear(&self) -> Option<Answer> {
        let mut packet = [0; 128];
        loop {
            let (_, length) = recv(&self.ear, &mut packet[..], RecvFlags::TRUNC).ok()?;
            let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
            if length < 40 || packet[0] != 0x45 || source != HOST || packet[33] & (SYN | RST) == 0 {
                continue;
            }
            return Some(Answer {
                to: Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]),
                from_port: u16::from_be_bytes([packet[20], packet[21]]),
                to_port: u16::from_be_bytes([packet[22], packet[23]]),
                open: packet[33] & SYN != 0,
            });
        }
    }

    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        // Shorter than this the scheduler cannot: the caller spins.
        if left > Duration::from_micros(200) {
            let timeout = Timespec::try_from(left.min(Duration::from_millis(50))).unwrap();
            let _ = poll(&mut [PollFd::new(&self.ear, PollFlags::IN)], Some(&timeout));
        }
    }

    /// Sends a SYN to each of these ports in the name of `source`.
    pub fn forge(&self, source: Ipv4Addr, ports: &[u16]) {
        ports.iter().for_each(|port| self.send(&syn(source, PROBES_FROM, *port, 7)));
    }

    /// Listens for answers to `source`, from any sender of probes, until `ended` returns true. Maps
    /// each port to whether it is open.
    pub fn overhear(
        &self,
        source: Ipv4Addr,
        mut ended: impl FnMut() -> bool,
    ) -> BTreeMap<u16, bool> {
        let mut answers = BTreeMap::new();
        loop {
            let last = ended();
            while let Some(answer) = self.hear() {
                if answer.to == source {
                    answers.insert(answer.from_port, answer.open);
                }
            }
            if last {
                return answers;
            }
            self.wait(Instant::now() + Duration::from_millis(20));
        }
    }

    /// Knocks once from each of `sources`; gives those that were answered within 20 ms.
    pub fn knock_from(&self, sources: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        for source in sources {
            self.send(&syn(*source, FIRST_KNOCK, KNOCK, 7));
        }
        let (until, mut answered) = (Instant::now() + Duration::from_millis(20), Vec::new());
        while Instant::now() < until {
            self.wait(until);
            answered.extend(
                std::iter::from_fn(|| self.hear())
                    .map(|answer| answer.to)
                    .filter(|to| sources.contains(to)),
            );
        }
        answered.sort_unstable();
        answered.dedup();
        answered
    }

    /// Sends the probes of `plan` and knocks until the source is cut off or patience ends.
    pub fn scan(&self, plan: &Plan<'_>) -> Scan {
        let begun = Instant::now();
        let mut probes: BTreeMap<u16, Option<bool>> = BTreeMap::new();
        let mut knocks = Knocks::default();
        let (mut sent, mut all_sent) = (0_u32, None);
        loop {
            let now = Instant::now();
            let due = plan.rate.map(|rate| begun + Duration::from_secs(1) * sent / rate);
            match plan.ports.get(sent as usize) {
                Some(&port) if due.is_none_or(|due| now >= due) => {
                    self.send(&syn(plan.source, PROBES_FROM, port, sent));
                    probes.insert(port, None);
                    sent += 1;
                }
                Some(_) => {}
                None => {
                    all_sent.get_or_insert(now);
                }
            }
            // While a fast scan runs it is alone; the question whether it was cut off waits until
            // its end.
            let interval = if all_sent.is_some() {
                plan.knock.unwrap_or(Duration::from_millis(20))
            } else {
                plan.knock.unwrap_or(Duration::MAX)
            };
            if interval != Duration::MAX
                && knocks.last().is_none_or(|last| now >= last + interval)
                && knocks.0.len() < 60_000
            {
                self.send(&syn(plan.source, FIRST_KNOCK + knocks.0.len() as u16, KNOCK, 7));
                knocks.0.push((now, None));
            }
            while let Some(answer) = self.hear() {
                if answer.to != plan.source {
                } else if answer.from_port == KNOCK {
                    knocks.answered(answer.to_port);
                } else if let Some(probe) = probes.get_mut(&answer.from_port) {
                    *probe = Some(answer.open);
                }
            }
            let cut = knocks.silent_since(now);
            let over = all_sent.is_some_and(|at| now >= at + plan.patience);
            if over || cut.is_some() && (plan.stop_when_cut || all_sent.is_some()) {
                let answers = || probes.values().flatten();
                return Scan {
                    answered: answers().count(),
                    open: answers().filter(|&&open| open).count(),
                    cut_after: cut.map(|at| at.saturating_duration_since(begun)),
                    opened: knocks.opened(),
                };
            }
            let next_knock = knocks
                .last()
                .filter(|_| interval != Duration::MAX)
                .map_or(now + Duration::from_millis(5), |last| last + interval);
            self.wait(if all_sent.is_some() {
                next_knock
            } else {
                due.unwrap_or(now).min(next_knock)
            });
        }
    }
}

/// A scan that is to be made.
pub struct Plan<'a> {
    pub source: Ipv4Addr,
    pub ports: &'a [u16],
    /// Probes a second; `None`: all at once.
    pub rate: Option<u32>,
    /// How often to knock while it runs; `None`: only after it.
    pub knock: Option<Duration>,
    /// How long to wait for the block after the last probe.
    pub patience: Duration,
    /// Whether to leave off once the source is cut off: the rest cannot be answered.
    pub stop_when_cut: bool,
}

/// What came of it.
pub struct Scan {
    /// Ports that answered.
    pub answered: usize,
    /// Ports of them that said that they are open.
    pub open: usize,
    /// From the first probe to the first knock of those that stayed without an answer; `None`: not
    /// cut off.
    pub cut_after: Option<Duration>,
    /// From the first knock with an answer to the last, zero if that is the same; `None`: none had
    /// one.
    pub opened: Option<Duration>,
}

#[derive(Default)]
struct Knocks(Vec<(Instant, Option<Instant>)>);

impl Knocks {
    fn last(&self) -> Option<Instant> {
        self.0.last().map(|(sent, _)| *sent)
    }

    fn answered(&mut self, port: u16) {
        if let Some((_, answered)) =
            port.checked_sub(FIRST_KNOCK).and_then(|index| self.0.get_mut(usize::from(index)))
        {
            answered.get_or_insert_with(Instant::now);
        }
    }

    /// When the first was sent of those at the end that have no answer.
    fn silent_since(&self, now: Instant) -> Option<Instant> {
        let silent = self.0.iter().rev().take_while(|(_, answered)| answered.is_none()).count();
        let since = self.0.get(self.0.len() - silent)?.0;
        (silent >= SILENT_KNOCKS && now >= since + SILENCE).then_some(since)
    }

    fn opened(&self) -> Option<Duration> {
        let mut answered =
            self.0.iter().filter(|(_, answered)| answered.is_some()).map(|(sent, _)| *sent);
        let first = answered.next()?;
        Some(answered.next_back().unwrap_or(first) - first)
    }
}
