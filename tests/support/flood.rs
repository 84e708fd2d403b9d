//! SYN traffic at a rate, from inside a namespace: floods of forged sources, and scans that count
//! the answer to each probe.
//!
//! Frames are sent by packet(7) sockets with `PACKET_QDISC_BYPASS`, [`BATCH`] to a sendmmsg(2).
//! They are built in advance and only their differences (addresses, ports, sequence number,
//! checksums) are written, so that a debug build reaches the rates. Every load is bounded in
//! packets and time. Follows RFC 791, 8200, 9293, and RFC 1071 for the checksums.
#![expect(
    unsafe_code,
    reason = "packet(7) sockets: bind(2), setsockopt(2) and sendmmsg(2) with what no safe wrapper has"
)]

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

use super::netns::Namespace;

/// Frames of one system call.
pub const BATCH: usize = 128;
/// Longest delay that is caught up when the machine was busy; the rest is never sent.
const CATCH_UP: Duration = Duration::from_millis(5);
/// nanosleep(2) oversleeps by about this much: the rest is waited for actively.
const AWAKE: Duration = Duration::from_micros(120);

const ETHERNET: usize = 14;
/// A TCP header with the maximum segment size as its option, as nmap and every real client send it.
const TCP: usize = 24;
const FRAME_MAX: usize = ETHERNET + 40 + TCP;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// 536 million unicast IPv4 addresses (32.0.0.0 to 63.255.255.255), none of them special.
pub fn anywhere4() -> IpNet {
    "32.0.0.0/3".parse().expect("network")
}

/// 2^125 unicast IPv6 addresses, hardly two of a /64.
pub fn anywhere6() -> IpNet {
    "2000::/3".parse().expect("network")
}

/// A veth device and the host at its other end.
#[derive(Clone)]
pub struct Wire<'a> {
    from: &'a Namespace,
    device: String,
    own: [u8; 6],
    other: [u8; 6],
}

impl<'a> Wire<'a> {
    /// The path from `from` to `to` over the veth pair made by [`Namespace::join`].
    pub fn between(from: &'a Namespace, to: &Namespace, device: &str) -> Self {
        Self {
            from,
            device: device.to_owned(),
            own: hardware_address(from, device),
            other: hardware_address(to, device),
        }
    }

    /// Sends the load from a thread in the namespace, and returns when it has ended.
    pub fn flood(&self, load: &Load) -> Sent {
        self.flood_until(load, &AtomicBool::new(false))
    }

    /// The same; ends early when `stop` is set.
    pub fn flood_until(&self, load: &Load, stop: &AtomicBool) -> Sent {
        self.from.enter(|| {
            let socket = packet_socket(&self.device, 0).expect("packet socket");
            let mut random = Random(load.series);
            let turns = Turns { network: load.sources, from: load.series << 24 };
            let mut frames = Frames::new(self, load.target);
            let ports = &load.ports;
            // A system call a millisecond at low rates: no bursts.
            let batch = if load.rate == 0 {
                BATCH
            } else {
                usize::try_from(load.rate / 1000).unwrap_or(BATCH).clamp(1, BATCH)
            };
            let pace = Pace { rate: load.rate, packets: load.packets, time: load.time, batch };
            run(&socket, &mut frames, pace, stop, |frames, first, count| {
                for n in 0..count {
                    let bits = random.next();
                    let port = ports[(first as usize + n) % ports.len()];
                    let source = turns.source(first + n as u64);
                    frames.write(
                        n,
                        source,
                        1024 + (bits % 60_000) as u16,
                        port,
                        (bits >> 32) as u32,
                    );
                }
            })
        })
    }

    /// Sends one SYN to each port in the given order, and counts the answers.
    pub fn scan(&self, scan: &Scan) -> Answers {
        self.from.enter(|| {
            let kind = if scan.target.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
            let receiver = packet_socket(&self.device, kind).expect("packet socket");
            option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20)
                .expect("receive buffer");
            let sender = packet_socket(&self.device, 0).expect("packet socket");
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let listener = scope.spawn(|| listen(&receiver, scan, &over));
                let mut frames = Frames::new(self, scan.target);
                let mut probes = Vec::with_capacity(scan.ports.len());
                // One by one up to 20,000 a second, so that the probes are evenly spaced.
                let batch = usize::try_from(scan.rate / 20_000).unwrap_or(1).clamp(1, BATCH);
                let batch = if scan.rate == 0 { BATCH } else { batch };
                let pace = Pace {
                    rate: scan.rate,
                    packets: scan.ports.len() as u64,
                    time: scan.time,
                    batch,
                };
                let sent = run(
                    &sender,
                    &mut frames,
                    pace,
                    &AtomicBool::new(false),
                    |frames, first, count| {
                        for n in 0..count {
                            let index = first as usize + n;
                            frames.write(
                                n,
                                scan.source,
                                scan.source_port,
                                scan.ports[index],
                                scan.sequence(index),
                            );
                            probes.push(Probe {
                                port: scan.ports[index],
                                sent: SystemTime::now(),
                                answer: None,
                            });
                        }
                    },
                );
                std::thread::sleep(scan.listen);
                over.store(true, Ordering::Relaxed);
                let heard = listener.join().expect("listener");
                for (index, kind, at) in heard {
                    if let Some(probe) = probes.get_mut(index) {
                        // A repeated SYN-ACK is the same answer.
                        probe.answer.get_or_insert((kind, at));
                    }
                }
                Answers { probes, elapsed: sent.elapsed }
            })
        })
    }
}

/// A flood of SYNs.
#[derive(Debug, Clone)]
pub struct Load {
    /// Destination.
    pub target: IpAddr,
    /// Ports, used in turn.
    pub ports: Vec<u16>,
    /// Networks of the sources: each packet has another one, scattered, and none is repeated before
    /// all had their turn ([`anywhere4`], [`anywhere6`]; a host's own network for a single source).
    /// With random sources some of a million would appear three times in a few seconds, which is a
    /// scan.
    pub sources: IpNet,
    /// Packets a second; 0: as fast as possible.
    pub rate: u64,
    /// Maximum number of packets.
    pub packets: u64,
    /// Maximum time.
    pub time: Duration,
    /// Number of the series of sources: the first 16 million of two series (below 32) are disjoint.
    pub series: u64,
}

impl Load {
    /// Forged sources, `rate` packets a second for `time`, to these ports.
    pub fn spoofed(
        target: IpAddr,
        ports: impl IntoIterator<Item = u16>,
        rate: u64,
        time: Duration,
    ) -> Self {
        let packets =
            if rate == 0 { u64::MAX } else { rate.saturating_mul(time.as_millis() as u64) / 1000 };
        let sources = if target.is_ipv4() { anywhere4() } else { anywhere6() };
        Self {
            target,
            ports: ports.into_iter().collect(),
            sources,
            rate,
            packets,
            time: time * 2,
            series: 0,
        }
    }
}

/// The result of a load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Frames that the kernel took.
    pub packets: u64,
    /// Frames that it refused (ENOBUFS: the device's queue was full); not sent again.
    pub refused: u64,
    /// From first to last.
    pub elapsed: Duration,
}

impl Sent {
    /// Packets a second.
    pub fn rate(&self) -> u64 {
        (self.packets as f64 / self.elapsed.as_secs_f64().max(1e-9)) as u64
    }
}

/// A SYN scan from one source.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Source. If the namespace has the address, its kernel resets answered connections, as with
    /// nmap's half-open scan.
    pub source: IpAddr,
    /// The source port of all probes.
    pub source_port: u16,
    /// Destination.
    pub target: IpAddr,
    /// One probe each, in this order.
    pub ports: Vec<u16>,
    /// Probes a second; 0: as fast as possible.
    pub rate: u64,
    /// How long to listen after the last probe.
    pub listen: Duration,
    /// Maximum time for the probes.
    pub time: Duration,
}

impl Scan {
    /// `rate` probes a second, and half a second of listening after the last.
    pub fn new(
        source: IpAddr,
        target: IpAddr,
        ports: impl IntoIterator<Item = u16>,
        rate: u64,
    ) -> Self {
        let (listen, time) = (Duration::from_millis(500), Duration::from_secs(60));
        Self {
            source,
            source_port: 45_007,
            target,
            ports: ports.into_iter().collect(),
            rate,
            listen,
            time,
        }
    }

    /// The sequence number tells which probe an answer is for. The step is large, so that answers
    /// to other segments cannot match.
    fn sequence(&self, index: usize) -> u32 {
        0x5000_0000 + (index as u32) * 16
    }
}

/// The kind of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SYN and ACK: the port is open.
    Open,
    /// A reset: the port is closed.
    Closed,
}

/// A probe of a scan.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Destination port.
    pub port: u16,
    /// Time just before it was passed to the kernel.
    pub sent: SystemTime,
    /// The first answer, and when the kernel received it.
    pub answer: Option<(Kind, SystemTime)>,
}

/// A finished scan. Probes are in the order in which they were sent.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub probes: Vec<Probe>,
    /// From first to last.
    pub elapsed: Duration,
}

impl Answers {
    /// Number of answered probes.
    pub fn answered(&self) -> usize {
        self.answered_from(0)
    }

    /// Number of ports that were found open.
    pub fn open(&self) -> usize {
        self.open_from(0)
    }

    /// Number of answered probes from the `first`-th on (0 is the first).
    pub fn answered_from(&self, first: usize) -> usize {
        self.probes.iter().skip(first).filter(|probe| probe.answer.is_some()).count()
    }

    /// Number of ports found open by the probes from the `first`-th on.
    pub fn open_from(&self, first: usize) -> usize {
        self.probes
            .iter()
            .skip(first)
            .filter(|probe| matches!(probe.answer, Some((Kind::Open, _))))
            .count()
    }

    /// The index after the `nth` probe (1 is the first) of a port for which `is_closed` holds:
    /// answers from there on come after a trigger of `nth - 1`.
    pub fn after_closed(&self, nth: usize, is_closed: impl Fn(u16) -> bool) -> usize {
        let closed = self.probes.iter().enumerate().filter(|(_, probe)| is_closed(probe.port));
        closed.map(|(at, _)| at + 1).nth(nth.saturating_sub(1)).unwrap_or(self.probes.len())
    }

    /// Probes a second.
    pub fn rate(&self) -> u64 {
        (self.probes.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)) as u64
    }
}

/// Rate, limits, and packets of a system call.
struct Pace {
    rate: u64,
    packets: u64,
    time: Duration,
    batch: usize,
}

/// Sends frames that `fill` writes (index of the first, count), paced and bounded.
fn run(
    socket: &OwnedFd,
    frames: &mut Frames,
    pace: Pace,
    stop: &AtomicBool,
    mut fill: impl FnMut(&mut Frames, u64, usize),
) -> Sent {
    let start = Instant::now();
    let mut sent = Sent::default();
    // The pace counts from here; moved on when the machine was busy for too long.
    let mut origin = start;
    let mut done = 0u64;
    while done < pace.packets && start.elapsed() < pace.time && !stop.load(Ordering::Relaxed) {
        let count = pace.batch.min(usize::try_from(pace.packets - done).unwrap_or(pace.batch));
        if pace.rate > 0 {
            let due = Duration::from_nanos(
                (u128::from(done) * 1_000_000_000 / u128::from(pace.rate)) as u64,
            );
            wait_until(origin + due);
            let late = origin.elapsed().saturating_sub(due);
            if late > CATCH_UP {
                origin += late - CATCH_UP;
            }
        }
        fill(frames, done, count);
        let taken = frames.send(socket, count);
        sent.packets += taken as u64;
        sent.refused += (count - taken) as u64;
        done += count as u64;
    }
    sent.elapsed = start.elapsed();
    sent
}

fn wait_until(at: Instant) {
    loop {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > AWAKE { std::thread::sleep(left - AWAKE) } else { std::hint::spin_loop() }
    }
}

/// A batch of frames and the headers that point to them.
struct Frames {
    frames: Box<[[u8; FRAME_MAX]]>,
    length: usize,
    target: IpAddr,
    /// Sums of the constant parts: IPv4 header without source, segment and pseudo header without
    /// source, ports and sequence number.
    header_sum: u32,
    segment_sum: u32,
    _vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
}

impl Frames {
    fn new(wire: &Wire<'_>, target: IpAddr) -> Self {
        let mut frame = [0u8; FRAME_MAX];
        frame[..6].copy_from_slice(&wire.other);
        frame[6..12].copy_from_slice(&wire.own);
        let (header, pseudo) = match target {
            IpAddr::V4(target) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                let total = (20 + TCP) as u16;
                frame[14..24].copy_from_slice(&[
                    0x45,
                    0,
                    (total >> 8) as u8,
                    total as u8,
                    0,
                    0,
                    0x40,
                    0,
                    64,
                    6,
                ]);
                frame[30..34].copy_from_slice(&target.octets());
                (20, sum(&target.octets()))
            }
            IpAddr::V6(target) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, TCP as u8, 6, 64]);
                frame[38..54].copy_from_slice(&target.octets());
                (40, sum(&target.octets()))
            }
        };
        let segment = ETHERNET + header;
        frame[segment + 12] = 0x60;
        frame[segment + 13] = SYN;
        frame[segment + 14..segment + 16].copy_from_slice(&[4, 0]);
        frame[segment + 20..segment + 24].copy_from_slice(&[2, 4, 5, 0xb4]);
        let header_sum = sum(&frame[ETHERNET..segment]);
        let segment_sum = sum(&frame[segment..segment + TCP]) + pseudo + 6 + TCP as u32;
        let length = segment + TCP;
        let mut frames = vec![frame; BATCH].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = frames
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: length })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: the structure is plain data, for which all zeroes are valid: no address,
                // no control data.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { frames, length, target, header_sum, segment_sum, _vectors: vectors, messages }
    }

    fn write(&mut self, n: usize, source: IpAddr, source_port: u16, port: u16, sequence: u32) {
        let frame = &mut self.frames[n];
        let mut segment_sum = self.segment_sum
            + u32::from(source_port)
            + u32::from(port)
            + (sequence >> 16)
            + (sequence & 0xffff);
        let segment = self.length - TCP;
        match source {
            IpAddr::V4(source) => {
                let bits = source.to_bits();
                let source_sum = (bits >> 16) + (bits & 0xffff);
                segment_sum += source_sum;
                frame[26..30].copy_from_slice(&source.octets());
                frame[24..26].copy_from_slice(&folded(self.header_sum + source_sum));
            }
            IpAddr::V6(source) => {
                segment_sum += sum(&source.octets());
                frame[22..38].copy_from_slice(&source.octets());
            }
        }
        debug_assert_eq!(self.target.is_ipv4(), source.is_ipv4());
        frame[segment..segment + 2].copy_from_slice(&source_port.to_be_bytes());
        frame[segment + 2..segment + 4].copy_from_slice(&port.to_be_bytes());
        frame[segment + 4..segment + 8].copy_from_slice(&sequence.to_be_bytes());
        frame[segment + 16..segment + 18].copy_from_slice(&folded(segment_sum));
    }

    /// Sends the first `count` frames; returns how many the kernel took.
    fn send(&mut self, socket: &OwnedFd, count: usize) -> usize {
        let (mut at, mut taken) = (0, 0);
        while at < count {
            let messages = &mut self.messages[at..count];
            // SAFETY: every message points to an iovec, and that to a frame; both are owned by
            // `self` and are as long as they say.
            let done = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    messages.len() as libc::c_uint,
                    0,
                )
            };
            match usize::try_from(done) {
                Ok(done) => {
                    at += done;
                    taken += done;
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    // The first of the rest was refused.
                    error if error.raw_os_error() == Some(libc::ENOBUFS) => at += 1,
                    error => panic!("sendmmsg: {error}"),
                },
            }
        }
        taken
    }
}

/// One's complement sum of big-endian words, not folded.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

fn folded(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The addresses of a network in a scattered order.
struct Turns {
    network: IpNet,
    from: u64,
}

impl Turns {
    /// Steps that have an inverse modulo 2^bits, one after the other: a permutation, so that no
    /// address appears twice.
    fn source(&self, turn: u64) -> IpAddr {
        let bits = u32::from(self.network.max_prefix_len() - self.network.prefix_len()).min(64);
        let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
        let mut place = self.from.wrapping_add(turn) & mask;
        for factor in [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9] {
            place = place.wrapping_mul(factor) & mask;
            place ^= place >> (bits / 2).max(1);
        }
        match self.network {
            IpNet::V4(network) => {
                IpAddr::V4(Ipv4Addr::from_bits(network.network().to_bits() | place as u32))
            }
            // Scattered over the first half of the address, which identifies the owner's network.
            IpNet::V6(network) => {
                let free = 128 - u32::from(network.prefix_len());
                IpAddr::V6(Ipv6Addr::from_bits(
                    network.network().to_bits() | u128::from(place) << (free - bits),
                ))
            }
        }
    }
}

/// Reads answers to the scan until `over`, with the time of their arrival.
fn listen(socket: &OwnedFd, scan: &Scan, over: &AtomicBool) -> Vec<(usize, Kind, SystemTime)> {
    let mut heard = Vec::new();
    let mut buffer = [0u8; 256];
    loop {
        // Checked before the queue is read, so that answers from before the end are still read.
        let last = over.load(Ordering::Relaxed);
        let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        let _ = rustix::event::poll(
            &mut fds,
            Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 }),
        );
        while let Ok((_, length)) =
            rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT)
        {
            if let Some((index, kind)) = answer(&buffer[..length.min(buffer.len())], scan) {
                heard.push((index, kind, arrival(socket)));
            }
        }
        if last {
            return heard;
        }
    }
}

/// The probe that a frame answers, and the kind of answer.
fn answer(frame: &[u8], scan: &Scan) -> Option<(usize, Kind)> {
    let packet = frame.get(ETHERNET..)?;
    let (source, destination, protocol, segment) = match packet.first()? >> 4 {
        4 => {
            let source = IpAddr::V4(Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?));
            let destination = IpAddr::V4(Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?));
            (source, destination, packet[9], packet.get(usize::from(packet[0] & 15) * 4..)?)
        }
        6 => {
            let source = IpAddr::V6(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?));
            let destination = IpAddr::V6(Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?));
            (source, destination, packet[6], packet.get(40..)?)
        }
        _ => return None,
    };
    let word = |at: usize| Some(u16::from_be_bytes(*segment.get(at..)?.first_chunk::<2>()?));
    if (source, destination, protocol) != (scan.target, scan.source, 6)
        || word(2)? != scan.source_port
    {
        return None;
    }
    let acknowledged = u32::from_be_bytes(*segment.get(8..)?.first_chunk::<4>()?);
    let offset = acknowledged.wrapping_sub(1).wrapping_sub(scan.sequence(0));
    let index = usize::try_from(offset / 16).ok()?;
    if offset % 16 != 0 || scan.ports.get(index) != Some(&word(0)?) {
        return None;
    }
    match segment.get(13)? & (SYN | RST | ACK) {
        flags if flags & RST != 0 => Some((index, Kind::Closed)),
        flags if flags == SYN | ACK => Some((index, Kind::Open)),
        _ => None,
    }
}

/// When the kernel received the last packet that was read.
fn arrival(socket: &OwnedFd) -> SystemTime {
    /// `SIOCGSTAMPNS_OLD` (asm-generic/sockios.h), which takes a timespec of the machine's word.
    const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the request writes one timespec.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) };
    if done == 0 {
        SystemTime::UNIX_EPOCH + Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    } else {
        SystemTime::now()
    }
}

/// A packet(7) socket of one device. Protocol 0 receives nothing.
fn packet_socket(device: &str, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let protocol = (protocol as u16).to_be();
    // SAFETY: no memory is passed; the returned descriptor has no other owner.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into()) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let index = rustix::net::netdevice::name_to_index(&socket, device)?;
    // SAFETY: plain data, for which all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the address is as long as is said.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    Ok(socket)
}

fn option(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the value is as long as is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn hardware_address(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.run("ip", &["-j", "link", "show", "dev", device]);
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip -j");
    let address = links[0]["address"].as_str().expect("address");
    let bytes: Vec<u8> =
        address.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("byte")).collect();
    bytes.try_into().expect("six bytes")
}
