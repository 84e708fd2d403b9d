//! An account: the distinct ports that a source touched, and their tally.

use super::{MonoTime, TouchView, Weight};
use crate::probe::{Port, Probe, ScanKind, Transport};

/// A touched port with time and kind, in eight bytes.
///
/// Bits 0..16 port number, 16..18 transport, 18..22 scan kind plus 1 (so that only an empty slot is
/// zero), 22 ambiguous, 23 the ledger's mark, 24 counted for the prefix too, 25..29 which address of
/// this host (0: unknown), 29..64 time in units of 16 milliseconds. It saturates 17 years after the
/// clock's zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch(u64);

const PORT: u64 = (1 << 18) - 1;
const KIND: u64 = 0xf << 18;
const CONNECT: u64 = (ScanKind::Connect as u64 + 1) << 18;
const REPLY: u64 = (ScanKind::Reply as u64 + 1) << 18;
const AMBIGUOUS: u64 = 1 << 22;
const MARK: u64 = 1 << 23;
const SHARED: u64 = 1 << 24;
const HERE_SHIFT: u32 = 25;
const HERE: u64 = 0xf << HERE_SHIFT;
const TIME_SHIFT: u32 = 29;
/// A touch's unit of time in milliseconds, as a shift.
const UNIT_SHIFT: u32 = 4;
const TIME_MAX: u64 = (1 << 39) - 1;

/// A time in milliseconds, limited to a touch's 39 bits.
pub(super) fn clock(now: MonoTime) -> u64 {
    now.millis().min(TIME_MAX)
}

/// What a touch keeps of a hash of an address, never 0.
pub(super) fn here_bits(hash: u64) -> u64 {
    hash % 15 + 1
}

impl Touch {
    /// `here`: a keyed hash of the address of this host that the probe was sent to.
    pub(super) fn new(now: MonoTime, probe: &Probe, here: u64) -> Self {
        let transport = probe.port.transport as u64;
        let kind = probe.scan as u64 + 1;
        let ambiguous = if probe.ambiguous { AMBIGUOUS } else { 0 };
        Self(
            u64::from(probe.port.number)
                | transport << 16
                | kind << 18
                | ambiguous
                | here_bits(here) << HERE_SHIFT
                | clock(now) >> UNIT_SHIFT << TIME_SHIFT,
        )
    }

    /// The touch of an address of this host that is not known.
    pub(super) fn nowhere(self) -> Self {
        Self(self.0 & !HERE)
    }

    pub(super) fn of_view(view: &TouchView) -> Self {
        let ambiguous = if view.ambiguous { AMBIGUOUS } else { 0 };
        Self(
            u64::from(view.port.number)
                | (view.port.transport as u64) << 16
                | (view.scan as u64 + 1) << 18
                | ambiguous
                | clock(view.at) >> UNIT_SHIFT << TIME_SHIFT,
        )
    }

    pub(super) fn view(self) -> TouchView {
        TouchView {
            port: self.port(),
            scan: self.scan(),
            ambiguous: self.ambiguous(),
            at: MonoTime::from_millis(self.time()),
        }
    }

    /// The touch in a slot; `None` if the slot is empty or older than `horizon`.
    pub(super) fn live(slot: u64, horizon: u64) -> Option<Self> {
        (slot != 0 && slot >> TIME_SHIFT >= horizon >> UNIT_SHIFT).then_some(Self(slot))
    }

    pub(super) fn slot(self) -> u64 {
        self.0
    }

    pub(super) fn marked(self, mark: bool) -> Self {
        if mark { Self(self.0 | MARK) } else { Self(self.0 & !MARK) }
    }

    pub(super) fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    /// The touch, counted for the prefix of its source too.
    pub(super) fn shared(self) -> Self {
        Self(self.0 | SHARED)
    }

    pub(super) fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    /// The start of its unit of time, in milliseconds.
    pub(super) fn time(self) -> u64 {
        self.0 >> TIME_SHIFT << UNIT_SHIFT
    }

    /// Which address of this host it was sent to, in four bits; 0: unknown.
    pub(super) fn here(self) -> u64 {
        (self.0 & HERE) >> HERE_SHIFT
    }

    /// Whether the two were sent to different addresses of this host, as far as they know.
    pub(super) fn is_elsewhere(self, other: Self) -> bool {
        let (here, there) = (self.here(), other.here());
        here != 0 && there != 0 && here != there
    }

    /// Whether both are the same evidence: of one port, and sent as one stack would.
    pub(super) fn same_port(self, other: Self) -> bool {
        let is_one_kind = (self.0 ^ other.0) & KIND == 0;
        (self.0 ^ other.0) & PORT == 0
            && (is_one_kind || !(self.has_no_sender() || other.has_no_sender()))
    }

    /// No stack sends a segment of this kind: one to a port that was probed in another way is
    /// evidence of its own, as an examination of one port by `nmap -O` is.
    fn has_no_sender(self) -> bool {
        matches!(self.scan(), ScanKind::Null | ScanKind::Xmas)
    }

    /// Its flags are those of no connection.
    pub(super) fn is_crafted(self) -> bool {
        self.has_no_sender() || self.scan() == ScanKind::CustomFlags
    }

    pub(super) fn transport(self) -> Transport {
        match self.0 >> 16 & 3 {
            0 => Transport::Tcp,
            1 => Transport::Udp,
            2 => Transport::Sctp,
            _ => Transport::Ip,
        }
    }

    pub(super) fn port(self) -> Port {
        Port { transport: self.transport(), number: (self.0 & 0xffff) as u16 }
    }

    pub(super) fn scan(self) -> ScanKind {
        ScanKind::ALL
            .get((self.0 >> 18 & 0xf).wrapping_sub(1) as usize)
            .copied()
            .unwrap_or(ScanKind::CustomFlags)
    }

    pub(super) fn ambiguous(self) -> bool {
        self.0 & AMBIGUOUS != 0
    }

    /// Whether it counts toward a block.
    pub(super) fn counts(self, counted: Counted) -> bool {
        counted.holds(self.transport()) && !self.is_reply()
    }

    /// Whether it looks like a service's late answer.
    pub(super) fn is_reply(self) -> bool {
        self.0 & KIND == REPLY
    }

    /// What it means for the decision about its source.
    pub(super) fn weight(self, counted: Counted) -> Weight {
        if self.is_reply() {
            Weight::Reply
        } else if !counted.holds(self.transport()) {
            Weight::Reported
        } else if self.ambiguous() {
            Weight::Ambiguous
        } else {
            Weight::Counts
        }
    }

    fn is_connect(self) -> bool {
        self.0 & KIND == CONNECT
    }

    /// Rank of the evidence: 0 ambiguous, 1 plain, 2 a completed handshake.
    fn strength(self) -> u64 {
        if self.is_connect() { 2 } else { u64::from(!self.ambiguous()) }
    }

    /// The stronger of two touches of one port, or the later of equal ones. So an out-of-state ACK
    /// does not extend the evidence of a SYN, nor a spoofed SYN that of a handshake.
    pub(super) fn stronger(self, later: Self) -> Self {
        if later.strength() >= self.strength() { Self(later.0 | self.0 & SHARED) } else { self }
    }

    /// Whether `later`, of the same port, is no stronger evidence.
    pub(super) fn outweighs(self, later: Self) -> bool {
        self.strength() >= later.strength()
    }
}

/// A bit set of the transports that count toward a block; the others are only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted(pub(super) u8);

impl Counted {
    pub(super) fn holds(self, transport: Transport) -> bool {
        self.0 >> (transport as u8) & 1 == 1
    }
}

/// Records a touch in an account's slots.
///
/// When other ports fill them, the weakest and then the oldest is replaced: first transports that
/// are only logged, then ambiguous evidence. Otherwise a scanner could push out its own evidence
/// with datagrams that are only logged. Returns the touch that the account had of the port.
pub(super) fn record(
    slots: &mut [u64],
    touch: Touch,
    horizon: u64,
    counted: Counted,
) -> Option<Touch> {
    // Rank and time in one number: the smallest is replaced.
    let rank = |touch: Touch| (u64::from(touch.counts(counted)) * (1 + touch.strength())) << 40;
    let (mut free, mut least, mut least_at) = (None, u64::MAX, 0);
    for (at, slot) in slots.iter_mut().enumerate() {
        let Some(old) = Touch::live(*slot, horizon) else {
            free = free.or(Some(at));
            continue;
        };
        if old.same_port(touch) {
            *slot = old.stronger(touch).slot();
            return Some(old);
        }
        let rank_and_time = rank(old) | old.time();
        if rank_and_time < least {
            (least, least_at) = (rank_and_time, at);
        }
    }
    let place = free.or((least >> 40 <= rank(touch) >> 40).then_some(least_at));
    if let Some(slot) = place.and_then(|at| slots.get_mut(at)) {
        *slot = touch.slot();
    }
    None
}

/// Distinct ports of an account by kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Counting toward a block: unambiguous evidence.
    pub(super) plain: u16,
    /// Counting toward a block: ambiguous evidence only.
    pub(super) ambiguous: u16,
    /// Completed handshakes among `plain`.
    pub(super) connect: u16,
    /// Only logged: unambiguous evidence.
    pub(super) logged: u16,
    /// Only logged: ambiguous evidence.
    pub(super) logged_ambiguous: u16,
    /// Completed handshakes among `logged`.
    pub(super) logged_connect: u16,
}

/// Lowest trigger for ambiguous evidence alone: a client whose address changed, or a server that
/// restarted under load, sends out-of-state packets to a few ports. More than any benign load in
/// the tests needs, and far less than any scan.
pub(super) const AMBIGUOUS_TRIGGER_MIN: u16 = 5;

/// Whether this number of ports passes the trigger.
///
/// Beside one plain port, ambiguous ports count in full: closed connections send no SYNs to closed
/// ports, so the source does scan, and a scanner that mixes its flags gains nothing.
fn exceeds(plain: u16, ambiguous: u16, trigger: u16) -> bool {
    if plain > 0 {
        plain.saturating_add(ambiguous) > trigger
    } else {
        ambiguous > trigger.max(AMBIGUOUS_TRIGGER_MIN)
    }
}

impl Tally {
    pub(super) fn of(slots: &[u64], horizon: u64, counted: Counted) -> Self {
        let mut tally = Self::default();
        for touch in slots.iter().filter_map(|slot| Touch::live(*slot, horizon)) {
            let counts = touch.counts(counted);
            match (counts, touch.ambiguous()) {
                (true, false) => tally.plain += 1,
                (true, true) => tally.ambiguous += 1,
                (false, false) => tally.logged += 1,
                (false, true) => tally.logged_ambiguous += 1,
            }
            tally.connect += u16::from(counts && touch.is_connect());
            tally.logged_connect += u16::from(!counts && touch.is_connect());
        }
        tally
    }

    /// Distinct ports counting toward a block.
    pub(super) fn counting(self) -> u16 {
        self.plain + self.ambiguous
    }

    /// Enough for a block.
    pub(super) fn blocks(self, trigger: u16) -> bool {
        exceeds(self.plain, self.ambiguous, trigger)
    }

    /// Enough for a report.
    pub(super) fn reports_at(self, trigger: u16) -> bool {
        exceeds(self.plain + self.logged, self.ambiguous + self.logged_ambiguous, trigger)
    }

    /// Handshakes alone pass the trigger. One handshake and two spoofed SYNs prove nothing about
    /// the sender of the SYNs.
    pub(super) fn proven(self, trigger: u16) -> bool {
        self.connect > trigger
    }

    /// As [`Tally::proven`], but for a report: includes ports that are only logged.
    pub(super) fn is_handshake_proven(self, trigger: u16) -> bool {
        self.connect + self.logged_connect > trigger
    }
}

/// The ports as text that fits an element's comment: `3 ports in 0.2s: tcp/1 tcp/2 tcp/3`.
pub(super) fn detail(slots: &[u64], horizon: u64) -> String {
    use std::fmt::Write;

    /// The text of `Reason` before the detail takes at most 33 of the comment's 127 bytes.
    const LENGTH_MAX: usize = 90;
    let mut touches: Vec<Touch> =
        slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).collect();
    let is_full = touches.len() > 1 && touches.len() == slots.len();
    // Replies are no part of a scan's evidence.
    if touches.iter().any(|touch| touch.scan() != ScanKind::Reply) {
        touches.retain(|touch| touch.scan() != ScanKind::Reply);
    }
    touches.sort_by_key(|touch| touch.time());
    let mut ports = Vec::with_capacity(touches.len());
    touches.retain(|touch| {
        let is_new = !ports.contains(&touch.port());
        ports.push(touch.port());
        is_new
    });
    let (Some(first), Some(last)) = (touches.first(), touches.last()) else { return String::new() };
    // All slots are taken: there may have been more.
    let more = if is_full { "+" } else { "" };
    let mut text = if touches.len() == 1 {
        "1 port:".to_owned()
    } else {
        format!("{}{more} ports in {}:", touches.len(), span(last.time() - first.time()))
    };
    for touch in &touches {
        let before = text.len();
        // Writing into a String cannot fail.
        let _ = write!(text, " {}", touch.port());
        if text.len() > LENGTH_MAX {
            text.truncate(before);
            text.push_str(" ...");
            break;
        }
    }
    text
}

/// A duration as short text: `0.2s`, `5m`, `3h`.
pub(super) fn span(millis: u64) -> String {
    match millis {
        // Rounded: touches have units of 16 milliseconds.
        0..100_000 => format!("{}.{}s", (millis + 50) / 1000, (millis + 50) % 1000 / 100),
        100_000..6_000_000 => format!("{}m", millis / 60_000),
        _ => format!("{}h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Signature;
    use std::net::{IpAddr, Ipv4Addr};

    const ALL: Counted = Counted(0b1111);

    fn probe(transport: Transport, number: u16, scan: ScanKind, ambiguous: bool) -> Probe {
        let source = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
        Probe {
            source,
            destination: source,
            port: Port { transport, number },
            scan,
            ambiguous,
            ip_options: false,
            signature: Signature::None,
        }
    }

    fn syn(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Tcp, port, ScanKind::Syn, false), 0)
    }

    fn ack(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Tcp, port, ScanKind::Ack, true), 0)
    }

    fn udp(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Udp, port, ScanKind::Udp, false), 0)
    }

    fn recorded(slots: usize, counted: Counted, touches: &[Touch]) -> Vec<u64> {
        let mut slots = vec![0; slots];
        for touch in touches {
            record(&mut slots, *touch, 0, counted);
        }
        slots
    }

    #[test]
    fn touch_returns_all_of_its_fields() {
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip] {
            for scan in ScanKind::ALL {
                for (number, ambiguous, at) in
                    [(0, false, 0), (65535, true, TIME_MAX), (1, false, u64::MAX)]
                {
                    let touch = Touch::new(
                        MonoTime::from_millis(at),
                        &probe(transport, number, scan, ambiguous),
                        u64::from(number),
                    );
                    assert_eq!(
                        (touch.port(), touch.scan(), touch.ambiguous()),
                        (Port { transport, number }, scan, ambiguous)
                    );
                    assert_eq!(touch.here(), here_bits(u64::from(number)));
                    // In units of 16 milliseconds.
                    assert_eq!(touch.time(), at.min(TIME_MAX) & !15);
                }
            }
        }
    }

    // P4
    #[test]
    fn ambiguous_evidence_alone_needs_six_ports() {
        let acks: Vec<Touch> = (1..=6).map(|port| ack(0, port)).collect();
        assert!(!Tally::of(&recorded(6, ALL, &acks[..5]), 0, ALL).blocks(2));
        assert!(Tally::of(&recorded(6, ALL, &acks), 0, ALL).blocks(2));
        let mixed = recorded(6, ALL, &[ack(0, 1), ack(0, 2), syn(0, 3)]);
        assert!(Tally::of(&mixed, 0, ALL).blocks(2));
        assert!(!Tally::of(&recorded(6, ALL, &[ack(0, 1)]), 0, ALL).blocks(0));
    }

    #[test]
    fn logged_datagrams_do_not_replace_evidence() {
        let tcp_only = Counted(0b0001);
        let mut touches = vec![syn(0, 1), ack(1, 2)];
        touches.extend((0..50).map(|port| udp(10, port)));
        touches.push(syn(20, 3));
        let tally = Tally::of(&recorded(6, tcp_only, &touches), 0, tcp_only);
        assert_eq!((tally.plain, tally.ambiguous), (2, 1));
        assert!(tally.blocks(2));
    }

    #[test]
    fn repeated_port_counts_once_with_its_last_time() {
        let slots = recorded(6, ALL, &[syn(0, 1), syn(900, 1), syn(10, 2)]);
        assert_eq!(Tally::of(&slots, 0, ALL).plain, 2);
        assert_eq!(Tally::of(&slots, 500, ALL).plain, 1);
    }

    #[test]
    fn out_of_state_ack_does_not_extend_a_syn() {
        let slots = recorded(6, ALL, &[syn(0, 1), ack(900, 1)]);
        assert_eq!(Tally::of(&slots, 500, ALL), Tally::default());
    }

    // P3, P23
    #[test]
    fn one_handshake_with_spoofed_syns_is_unproven() {
        let handshake = |port| {
            Touch::new(
                MonoTime::from_millis(0),
                &probe(Transport::Tcp, port, ScanKind::Connect, false),
                0,
            )
        };
        let tally = Tally::of(&recorded(6, ALL, &[handshake(1), syn(0, 2), syn(0, 3)]), 0, ALL);
        assert!(tally.blocks(2) && !tally.proven(2));
        assert!(
            Tally::of(
                &recorded(6, ALL, &[handshake(1), syn(1, 1), handshake(2), handshake(3)]),
                0,
                ALL
            )
            .proven(2)
        );
    }

    #[test]
    fn detail_lists_ports_in_order_and_fits_the_comment() {
        assert_eq!(
            detail(&recorded(6, ALL, &[syn(200, 2), syn(0, 1), udp(210, 53)]), 0),
            "3 ports in 0.2s: tcp/1 tcp/2 udp/53"
        );
        assert_eq!(detail(&recorded(6, ALL, &[syn(0, 22)]), 0), "1 port: tcp/22");
        let many: Vec<Touch> = (0..40).map(|n| syn(n * 10_000_000, 60_000 + n as u16)).collect();
        let text = detail(&recorded(40, ALL, &many), 0);
        assert!(
            text.starts_with("40+ ports in 108h: tcp/60000")
                && text.ends_with(" ...")
                && text.len() <= 94,
            "{text}"
        );
    }
}
