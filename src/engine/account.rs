//! What an account holds: the distinct ports that a source touched, and what they add up to.

use super::{MonoTime, TouchView};
use crate::probe::{Port, Probe, ScanKind, Transport};

/// One port that was touched, when it was last, and how: eight bytes.
///
/// Bits 0..16 port number, 16..18 transport, 18..22 scan kind plus 1 (so that a touch is never zero, and an empty slot is), 22 ambiguous,
/// 23 a mark that the ledger sets, 24..64 milliseconds.
/// Forty bits of milliseconds last 34 years after the clock's zero; then time stands still here, which is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch(u64);

const PORT: u64 = (1 << 18) - 1;
const KIND: u64 = 0xf << 18;
const CONNECT: u64 = (ScanKind::Connect as u64 + 1) << 18;
const AMBIGUOUS: u64 = 1 << 22;
const MARK: u64 = 1 << 23;
const TIME_SHIFT: u32 = 24;
const TIME_MAX: u64 = (1 << 40) - 1;

/// Time as touches hold it.
pub(super) fn clock(now: MonoTime) -> u64 {
    now.millis().min(TIME_MAX)
}

impl Touch {
    pub(super) fn new(now: MonoTime, probe: &Probe) -> Self {
        let transport = probe.port.transport as u64;
        let kind = probe.scan as u64 + 1;
        let ambiguous = if probe.ambiguous { AMBIGUOUS } else { 0 };
        Self(u64::from(probe.port.number) | transport << 16 | kind << 18 | ambiguous | clock(now) << TIME_SHIFT)
    }

    /// A touch as it was shown, see [`TouchView`].
    pub(super) fn of_view(view: &TouchView) -> Self {
        let ambiguous = if view.ambiguous { AMBIGUOUS } else { 0 };
        Self(
            u64::from(view.port.number)
                | (view.port.transport as u64) << 16
                | (view.scan as u64 + 1) << 18
                | ambiguous
                | clock(view.at) << TIME_SHIFT,
        )
    }

    /// As it is shown.
    pub(super) fn view(self) -> TouchView {
        TouchView { port: self.port(), scan: self.scan(), ambiguous: self.ambiguous(), at: MonoTime::from_millis(self.time()) }
    }

    /// A slot's content; `None` if it is empty or was touched before `horizon`.
    pub(super) fn live(slot: u64, horizon: u64) -> Option<Self> {
        (slot != 0 && slot >> TIME_SHIFT >= horizon).then_some(Self(slot))
    }

    pub(super) fn slot(self) -> u64 {
        self.0
    }

    /// With the mark, or without.
    pub(super) fn marked(self, mark: bool) -> Self {
        if mark { Self(self.0 | MARK) } else { Self(self.0 & !MARK) }
    }

    pub(super) fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    pub(super) fn time(self) -> u64 {
        self.0 >> TIME_SHIFT
    }

    pub(super) fn same_port(self, other: Self) -> bool {
        (self.0 ^ other.0) & PORT == 0
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
        ScanKind::ALL.get((self.0 >> 18 & 0xf).wrapping_sub(1) as usize).copied().unwrap_or(ScanKind::CustomFlags)
    }

    pub(super) fn ambiguous(self) -> bool {
        self.0 & AMBIGUOUS != 0
    }

    fn is_connect(self) -> bool {
        self.0 & KIND == CONNECT
    }

    /// How much it says: ambiguous, plain, a completed handshake.
    fn strength(self) -> u64 {
        if self.is_connect() { 2 } else { u64::from(!self.ambiguous()) }
    }

    /// The stronger of two touches of one port, both of which count; the later if they are alike. So a late acknowledgement does not keep a
    /// SYN's evidence alive, and a forged SYN not a handshake's.
    pub(super) fn stronger(self, later: Self) -> Self {
        if later.strength() >= self.strength() { later } else { self }
    }
}

/// The transports that count toward a block; the others are only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted(pub(super) u8);

impl Counted {
    pub(super) fn holds(self, transport: Transport) -> bool {
        self.0 >> (transport as u8) & 1 == 1
    }
}

/// Writes a touch into an account's slots.
///
/// When all are taken by other ports, the least telling and then the oldest gives way: first what is told only, then ambiguous evidence. Else a
/// scanner could wash its own evidence out with datagrams that are only logged.
pub(super) fn record(slots: &mut [u64], touch: Touch, horizon: u64, counted: Counted) {
    // Rank above time in one number: the least of them gives way.
    let rank = |touch: Touch| (u64::from(counted.holds(touch.transport())) * (1 + touch.strength())) << 40;
    let (mut free, mut least, mut least_at) = (None, u64::MAX, 0);
    for (at, slot) in slots.iter_mut().enumerate() {
        let Some(old) = Touch::live(*slot, horizon) else {
            free = free.or(Some(at));
            continue;
        };
        if old.same_port(touch) {
            *slot = old.stronger(touch).slot();
            return;
        }
        let worth = rank(old) | old.time();
        if worth < least {
            (least, least_at) = (worth, at);
        }
    }
    let place = free.or((least >> 40 <= rank(touch) >> 40).then_some(least_at));
    if let Some(slot) = place.and_then(|at| slots.get_mut(at)) {
        *slot = touch.slot();
    }
}

/// What the ports of an account add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Ports whose evidence is not ambiguous, and which count toward a block.
    pub(super) plain: u16,
    /// Ports with ambiguous evidence only, which count toward a block.
    pub(super) ambiguous: u16,
    /// Of the plain ones: completed handshakes.
    pub(super) connect: u16,
    /// Ports that are only told: plain.
    pub(super) told: u16,
    /// Ports that are only told: ambiguous.
    pub(super) told_imitable: u16,
    /// Of the plain ones that are only told: completed handshakes.
    pub(super) told_connect: u16,
}

/// Distinct ports that ambiguous evidence alone may touch, however low the trigger is set: a host that comes back after its address changed, or
/// a server that restarted under load, sends late packets to a handful of ports. It is more than any such case among the benign loads that
/// this program is tested with, and far less than any scan.
pub(super) const AMBIGUOUS_ALONE: u16 = 5;

/// Whether so many ports pass the trigger.
///
/// With one plain port among them ambiguous ports count like the others: a dead connection does not send SYNs to closed ports, so the source
/// has shown that it probes, and a scanner that mixes its flags gains nothing.
fn crosses(plain: u16, ambiguous: u16, trigger: u16) -> bool {
    if plain > 0 { plain.saturating_add(ambiguous) > trigger } else { ambiguous > trigger.max(AMBIGUOUS_ALONE) }
}

impl Tally {
    pub(super) fn of(slots: &[u64], horizon: u64, counted: Counted) -> Self {
        let mut tally = Self::default();
        for touch in slots.iter().filter_map(|slot| Touch::live(*slot, horizon)) {
            let counts = counted.holds(touch.transport());
            match (counts, touch.ambiguous()) {
                (true, false) => tally.plain += 1,
                (true, true) => tally.ambiguous += 1,
                (false, false) => tally.told += 1,
                (false, true) => tally.told_imitable += 1,
            }
            tally.connect += u16::from(counts && touch.is_connect());
            tally.told_connect += u16::from(!counts && touch.is_connect());
        }
        tally
    }

    /// Enough for a block.
    pub(super) fn blocks(self, trigger: u16) -> bool {
        crosses(self.plain, self.ambiguous, trigger)
    }

    /// Enough for a report.
    pub(super) fn tells(self, trigger: u16) -> bool {
        crosses(self.plain + self.told, self.ambiguous + self.told_imitable, trigger)
    }

    /// Handshakes alone pass the trigger. One handshake and two forged SYNs prove nothing about who sent the SYNs.
    pub(super) fn proven(self, trigger: u16) -> bool {
        self.connect > trigger
    }

    /// As [`Tally::proven`], for a report: ports that are only told have shown as much.
    pub(super) fn shown(self, trigger: u16) -> bool {
        self.connect + self.told_connect > trigger
    }
}

/// What happened, in words that fit an element's comment: `3 ports in 0.2s: tcp/1 tcp/2 tcp/3`.
pub(super) fn detail(slots: &[u64], horizon: u64) -> String {
    use std::fmt::Write;

    /// Reason's own words before the detail take at most 33 of the comment's 127 bytes.
    const LENGTH_MAX: usize = 90;
    let mut touches: Vec<Touch> = slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).collect();
    touches.sort_by_key(|touch| touch.time());
    let (Some(first), Some(last)) = (touches.first(), touches.last()) else { return String::new() };
    // All slots are taken: there may have been more.
    let more = if touches.len() > 1 && touches.len() == slots.len() { "+" } else { "" };
    let mut text =
        if touches.len() == 1 { "1 port:".to_owned() } else { format!("{}{more} ports in {}:", touches.len(), span(last.time() - first.time())) };
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

/// A time in one short word.
fn span(millis: u64) -> String {
    match millis {
        0..100_000 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        100_000..6_000_000 => format!("{}m", millis / 60_000),
        _ => format!("{}h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const ALL: Counted = Counted(0b1111);

    fn probe(transport: Transport, number: u16, scan: ScanKind, ambiguous: bool) -> Probe {
        let source = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
        Probe { source, destination: source, port: Port { transport, number }, scan, ambiguous, ip_options: false }
    }

    fn syn(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Tcp, port, ScanKind::Syn, false))
    }

    fn ack(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Tcp, port, ScanKind::Ack, true))
    }

    fn udp(at: u64, port: u16) -> Touch {
        Touch::new(MonoTime::from_millis(at), &probe(Transport::Udp, port, ScanKind::Udp, false))
    }

    fn recorded(slots: usize, counted: Counted, touches: &[Touch]) -> Vec<u64> {
        let mut slots = vec![0; slots];
        for touch in touches {
            record(&mut slots, *touch, 0, counted);
        }
        slots
    }

    #[test]
    fn a_touch_holds_what_it_was_given() {
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip] {
            for scan in ScanKind::ALL {
                for (number, ambiguous, at) in [(0, false, 0), (65535, true, TIME_MAX), (1, false, u64::MAX)] {
                    let touch = Touch::new(MonoTime::from_millis(at), &probe(transport, number, scan, ambiguous));
                    assert_eq!((touch.port(), touch.scan(), touch.ambiguous()), (Port { transport, number }, scan, ambiguous));
                    assert_eq!(touch.time(), at.min(TIME_MAX));
                }
            }
        }
    }

    // P4
    #[test]
    fn imitable_evidence_alone_needs_six_ports_and_counts_in_full_beside_a_plain_one() {
        let acks: Vec<Touch> = (1..=6).map(|port| ack(0, port)).collect();
        assert!(!Tally::of(&recorded(6, ALL, &acks[..5]), 0, ALL).blocks(2));
        assert!(Tally::of(&recorded(6, ALL, &acks), 0, ALL).blocks(2));
        let mixed = recorded(6, ALL, &[ack(0, 1), ack(0, 2), syn(0, 3)]);
        assert!(Tally::of(&mixed, 0, ALL).blocks(2));
        assert!(!Tally::of(&recorded(6, ALL, &[ack(0, 1)]), 0, ALL).blocks(0));
    }

    #[test]
    fn datagrams_that_are_only_told_do_not_wash_evidence_out() {
        let tcp_only = Counted(0b0001);
        let mut touches = vec![syn(0, 1), ack(1, 2)];
        touches.extend((0..50).map(|port| udp(10, port)));
        touches.push(syn(20, 3));
        let tally = Tally::of(&recorded(6, tcp_only, &touches), 0, tcp_only);
        assert_eq!((tally.plain, tally.ambiguous), (2, 1));
        assert!(tally.blocks(2));
    }

    #[test]
    fn a_port_touched_again_is_one_port_and_its_time_slides() {
        let slots = recorded(6, ALL, &[syn(0, 1), syn(900, 1), syn(10, 2)]);
        assert_eq!(Tally::of(&slots, 0, ALL).plain, 2);
        assert_eq!(Tally::of(&slots, 500, ALL).plain, 1);
    }

    #[test]
    fn a_late_acknowledgement_does_not_keep_a_syn_alive() {
        let slots = recorded(6, ALL, &[syn(0, 1), ack(900, 1)]);
        assert_eq!(Tally::of(&slots, 500, ALL), Tally::default());
    }

    // P3, P23
    #[test]
    fn one_handshake_and_forged_syns_prove_nothing() {
        let handshake = |port| Touch::new(MonoTime::from_millis(0), &probe(Transport::Tcp, port, ScanKind::Connect, false));
        let tally = Tally::of(&recorded(6, ALL, &[handshake(1), syn(0, 2), syn(0, 3)]), 0, ALL);
        assert!(tally.blocks(2) && !tally.proven(2));
        assert!(Tally::of(&recorded(6, ALL, &[handshake(1), syn(1, 1), handshake(2), handshake(3)]), 0, ALL).proven(2));
    }

    #[test]
    fn the_detail_tells_ports_in_their_order_and_fits_the_comment() {
        assert_eq!(detail(&recorded(6, ALL, &[syn(200, 2), syn(0, 1), udp(210, 53)]), 0), "3 ports in 0.2s: tcp/1 tcp/2 udp/53");
        assert_eq!(detail(&recorded(6, ALL, &[syn(0, 22)]), 0), "1 port: tcp/22");
        let many: Vec<Touch> = (0..40).map(|n| syn(n * 10_000_000, 60_000 + n as u16)).collect();
        let text = detail(&recorded(40, ALL, &many), 0);
        assert!(text.starts_with("40+ ports in 108h: tcp/60000") && text.ends_with(" ...") && text.len() <= 94, "{text}");
    }
}
