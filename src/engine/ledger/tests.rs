//! The ledger under ordinary load and under floods.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::config::Ipv6Accounts;
use crate::probe::{Port, Probe, ScanKind, Signature, Transport};

const TCP: Counted = Counted(1);
const IPV6: Ipv6Accounts = Ipv6Accounts { first: 128, then: 64 };

fn host(n: u32) -> Source {
    Source::of(Ipv4Addr::from(n).into(), 64)
}

fn syn(at: u64, port: u16) -> Touch {
    let source = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let port = Port { transport: Transport::Tcp, number: port };
    Touch::new(
        time(at),
        &Probe {
            source,
            destination: source,
            port,
            scan: ScanKind::Syn,
            ambiguous: false,
            ip_options: false,
            signature: Signature::None,
        },
        0,
    )
}

/// A time in units of 16 milliseconds: touches keep no smaller ones.
fn time(units: u64) -> MonoTime {
    MonoTime::from_millis(units * 16)
}

fn ledger(capacity: u32, trigger: u16, window: u64) -> Ledger {
    Ledger::new(Shape { capacity, trigger, window: window * 16, ipv6: IPV6 }, 7)
}

fn touch(ledger: &mut Ledger, at: u64, source: u32, port: u16) -> Option<Place> {
    let key = ledger.key_of(host(source));
    ledger.touch(time(at), key, syn(at, port), TCP, &mut None)
}

fn plain(ledger: &mut Ledger, at: u64, source: u32, port: u16) -> u16 {
    let found = touch(ledger, at, source, port);
    ledger.tally(time(at), found, TCP).plain
}

// D6
#[test]
fn distinct_ports_count_within_the_window() {
    let mut ledger = ledger(30, 2, 1000);
    assert_eq!(plain(&mut ledger, 0, 1, 80), 1);
    assert_eq!(plain(&mut ledger, 10, 1, 80), 1);
    assert_eq!(plain(&mut ledger, 500, 1, 81), 2);
    assert_eq!(plain(&mut ledger, 900, 1, 82), 3);
    assert_eq!(plain(&mut ledger, 1011, 1, 81), 2);
    assert_eq!(plain(&mut ledger, 3000, 1, 81), 1);
}

// P10
#[test]
fn memory_per_source_stays_below_its_bound() {
    assert!(
        suspect_bytes(2) <= 200 && NEWCOMER_BYTES <= 200,
        "{} {}",
        suspect_bytes(2),
        NEWCOMER_BYTES
    );
    assert_eq!((Slab::<Newcomer>::PLACE, Slab::<Suspect>::PLACE), (32, 56));
    for capacity in [3, 1000, 100_000, CAPACITY, 500_000] {
        let ledger = ledger(capacity, 2, 1000);
        let index = ledger.index.bytes();
        assert!(index <= ledger.capacity() as usize * INDEX_BYTES + 8, "{capacity}: {index}");
    }
}

// P10
#[test]
fn high_trigger_has_fewer_suspects() {
    for trigger in [0, 2, 100, 1023, u16::MAX] {
        let ledger = ledger(CAPACITY, trigger, 600_000);
        assert!(ledger.ports.len() * 8 <= PORT_BYTES_MAX);
        assert!(ledger.shape.suspects() >= 8192);
    }
    let mut ledger = ledger(300, 1023, 600_000);
    let count = (0..2000).map(|port| plain(&mut ledger, u64::from(port), 1, port)).max();
    assert_eq!(count, Some(1024));
}

#[test]
fn patient_newcomer_survives_a_flood() {
    let mut ledger = ledger(3000, 2, 600_000);
    plain(&mut ledger, 0, 1, 80);
    for n in 0..300_000u32 {
        plain(&mut ledger, 1 + u64::from(n) * 5 / 3, 0x0a00_0000 + n, 443);
    }
    assert_eq!(plain(&mut ledger, 599_000, 1, 81), 2);
}

// P6
#[test]
fn flood_of_single_probes_evicts_no_suspect() {
    let mut ledger = ledger(3000, 9, 600_000);
    for source in 0..1000 {
        plain(&mut ledger, 0, source, 1);
        plain(&mut ledger, 0, source, 2);
    }
    for n in 0..300_000u32 {
        plain(&mut ledger, 1, 0x0a00_0000 + n, 443);
    }
    for source in 0..1000 {
        assert_eq!(plain(&mut ledger, 2, source, 3), 3);
    }
}

#[test]
fn active_suspect_outlives_inactive_ones() {
    let mut ledger = ledger(3000, 500, 600_000);
    for n in 0..100_000u32 {
        plain(&mut ledger, u64::from(n) / 100, 0x0a00_0000 + n, 1);
        plain(&mut ledger, u64::from(n) / 100, 0x0a00_0000 + n, 2);
        // The tier turns over every thousand sources.
        if n % 800 == 0 {
            assert_eq!(
                u32::from(plain(&mut ledger, u64::from(n) / 100, 1, (n / 800) as u16)),
                n / 800 + 1
            );
        }
    }
}

#[test]
fn newcomers_are_patient_again_after_a_flood() {
    let mut ledger = ledger(3000, 2, 600_000);
    for n in 0..100_000u32 {
        plain(&mut ledger, u64::from(n) / 300, 0x0a00_0000 + n, 443);
    }
    // One token each 600 ms.
    plain(&mut ledger, 2000, 1, 80);
    for n in 0..100_000u32 {
        plain(&mut ledger, 2001 + u64::from(n) / 300, 0x0b00_0000 + n, 443);
    }
    assert_eq!(plain(&mut ledger, 500_000, 1, 81), 2);
}

#[test]
fn expired_accounts_are_swept_out() {
    let mut ledger = ledger(3000, 2, 1000);
    for source in 0..500 {
        plain(&mut ledger, 0, source, 1);
        plain(&mut ledger, 0, source, 1 + source as u16 % 2);
    }
    assert_eq!((ledger.sources(), ledger.suspects()), (500, 250));
    assert!(ledger.sweep(time(5000), 100));
    assert_eq!(ledger.sources(), 400);
    assert!(!ledger.sweep(time(5000), 1000));
    assert_eq!((ledger.sources(), ledger.index.len()), (0, 0));
    assert_eq!(ledger.evicted(), 0);
}

#[test]
fn report_is_due_once_per_window() {
    let mut ledger = ledger(30, 0, 1000);
    let due_for_report = |ledger: &mut Ledger, at, port| {
        let found = touch(ledger, at / 16, 1, port);
        // Reports are kept to the millisecond.
        ledger.due_for_report(MonoTime::from_millis(at), found)
    };
    assert!(due_for_report(&mut ledger, 0, 80));
    assert!(!due_for_report(&mut ledger, 900, 80));
    assert!(!due_for_report(&mut ledger, 16_001, 81));
    assert!(due_for_report(&mut ledger, 16_002, 81));
}

#[test]
fn reshape_keeps_the_accounts() {
    let mut ledger = ledger(300, 2, 600_000);
    for (source, port) in [(1, 1), (1, 2), (1, 3), (2, 1)] {
        plain(&mut ledger, 5, source, port);
    }
    ledger.reshape(
        Shape { capacity: 600, trigger: 9, window: 300_000, ipv6: IPV6 },
        7,
        time(6),
        TCP,
    );
    assert_eq!((ledger.sources(), ledger.suspects(), ledger.capacity()), (2, 1, 600));
    assert_eq!(plain(&mut ledger, 7, 1, 4), 4);
    assert_eq!(plain(&mut ledger, 7, 2, 4), 2);
    ledger.forget(host(1));
    assert_eq!(plain(&mut ledger, 8, 1, 5), 1);
}

proptest! {
    /// An account is found again by its key alone, and no two have the same.
    #[test]
    fn a_prefix_has_another_key_than_its_first_address(bits in any::<u128>(), then in 48u8..=120, longer in 0u8..=80) {
        let ipv6 = Ipv6Accounts { first: (then + longer).min(128), then };
        let shape = Shape { capacity: 3, trigger: 2, window: 1000, ipv6 };
        // Neither multicast nor IPv4-mapped.
        let address = IpAddr::V6((bits & !(0xff << 120) | 0x20 << 120).into());
        let (first, prefix) = (Source::of(address, ipv6.first), Source::of(address, then));
        for source in [first, prefix, Source::of(prefix.addr(), ipv6.first), host(bits as u32)] {
            prop_assert_eq!(shape.key(source).source(ipv6), source);
            prop_assert_eq!(shape.key(source).is_ipv4(), source.addr().is_ipv4());
        }
        prop_assert_eq!(shape.key(first) == shape.key(prefix), ipv6.prefix().is_none());
    }

    /// With any number of places, the ledger never counts more ports than were touched, and never
    /// exceeds its capacity.
    // P10, D13
    #[test]
    fn ledger_never_overcounts_or_exceeds_its_capacity(capacity in 0u32..30, trigger in 0u16..12, steps in proptest::collection::vec((0u32..20, 0u16..9, 0u64..400, 0u8..8), 1..300)) {
        let mut ledger = ledger(capacity, trigger, 1000);
        let mut all: Vec<(u32, u16, u64)> = Vec::new();
        let mut now = 0;
        for (source, port, later, step) in steps {
            now += later;
            match step {
                0 => ledger.forget(host(source)),
                1 => { ledger.sweep(time(now), 3); }
                2 => {
                    all.push((source, port, now));
                    let found = touch(&mut ledger, now, source, port);
                    ledger.due_for_report(time(now), found);
                }
                _ => {
                    all.push((source, port, now));
                    let counted = plain(&mut ledger, now, source, port);
                    let truth: std::collections::BTreeSet<u16> = all.iter().filter(|(s, _, at)| *s == source && at + 1000 >= now).map(|(_, port, _)| *port).collect();
                    prop_assert!(counted >= 1 && usize::from(counted) <= truth.len());
                }
            }
            prop_assert!(ledger.sources() <= ledger.capacity());
            prop_assert_eq!(ledger.index.len() as u32, ledger.sources());
            prop_assert_eq!(ledger.patient.length() + ledger.hasty.length(), ledger.newcomers.used());
            prop_assert_eq!(ledger.by_last_touch.length(), ledger.suspects());
            prop_assert!(ledger.patient.length() <= ledger.shape.third());
        }
    }

    #[test]
    fn with_room_for_all_the_count_is_exact(trigger in 0u16..12, steps in proptest::collection::vec((0u32..5, 0u16..9, 0u64..400), 1..200)) {
        let mut ledger = ledger(300, trigger, 1000);
        let mut all: Vec<(u32, u16, u64)> = Vec::new();
        let mut now = 0;
        for (source, port, later) in steps {
            now += later;
            all.push((source, port, now));
            let counted = plain(&mut ledger, now, source, port);
            let truth: std::collections::BTreeSet<u16> = all.iter().filter(|(s, _, at)| *s == source && at + 1000 >= now).map(|(_, port, _)| *port).collect();
            prop_assert_eq!(usize::from(counted), truth.len().min(slots(trigger)));
        }
    }
}
