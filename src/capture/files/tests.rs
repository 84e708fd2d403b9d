//! Files of both formats and byte orders, and each kind of damage at each place.

use proptest::prelude::*;

use super::*;

/// The packets of a file as time, link type and bytes, and the damage that ends it.
type Read = (Vec<(i64, u32, Vec<u8>)>, Option<Damage>);

fn read(bytes: &[u8]) -> Option<Read> {
    let mut reader = Reader::open(bytes).ok()?;
    let mut packets = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push((packet.at, packet.link_type, packet.data.to_vec())),
            Ok(None) => return Some((packets, None)),
            Err(damage) => {
                assert_eq!(reader.next_packet(), Ok(None), "nothing follows a damage");
                assert_eq!(reader.packets() + 1, damage.packet);
                return Some((packets, Some(damage)));
            }
        }
    }
}

/// A writer of one byte order.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn words(self, numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| self.u32(*number)).collect()
    }

    fn pcap(self, magic: u32, link_type: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = self.u32(magic).to_vec();
        file.extend([self.u16(2), self.u16(4)].concat());
        file.extend(self.words(&[0, 0, 65_535, link_type]));
        for (seconds, fraction, data) in packets {
            let length = data.len() as u32;
            file.extend(self.words(&[*seconds, *fraction, length, length]));
            file.extend(*data);
        }
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padding = vec![0; body.len().wrapping_neg() % 4];
        let length = (12 + body.len() + padding.len()) as u32;
        [&self.words(&[kind, length]), body, &padding, &self.u32(length)].concat()
    }

    fn section(self) -> Vec<u8> {
        let mut body = self.u32(0x1a2b_3c4d).to_vec();
        body.extend([self.u16(1), self.u16(0)].concat());
        body.extend([0xff; 8]);
        self.block(SECTION_HEADER, &body)
    }

    fn interface(self, link_type: u16, options: &[u8]) -> Vec<u8> {
        let body = [&self.u16(link_type)[..], &[0, 0], &self.u32(65_535), options].concat();
        self.block(INTERFACE_DESCRIPTION, &body)
    }

    /// Options: the resolution of times, and the seconds to add.
    fn times(self, resolution: u8, offset: i64) -> Vec<u8> {
        let offset = if self.0 { offset.to_be_bytes() } else { offset.to_le_bytes() };
        [
            &self.u16(9)[..],
            &self.u16(1),
            &[resolution, 0, 0, 0],
            &self.u16(14),
            &self.u16(8),
            &offset,
            &[0; 4],
        ]
        .concat()
    }

    fn packet(self, interface: u32, time: u64, data: &[u8]) -> Vec<u8> {
        let length = data.len() as u32;
        let (high, low) = ((time >> 32) as u32, time as u32);
        let head = self.words(&[interface, high, low, length, length]);
        self.block(ENHANCED_PACKET, &[&head, data].concat())
    }
}

const BOTH: [Order; 2] = [Order(false), Order(true)];

#[test]
fn pcap_of_both_byte_orders_and_resolutions_is_read() {
    for order in BOTH {
        for (magic, fraction) in [(0xa1b2_c3d4, 250_000), (0xa1b2_3c4d, 250_000_000)] {
            let file =
                order.pcap(magic, 1, &[(7, fraction, b"one"), (8, 0, b""), (9, 0, b"three")]);
            let expected = vec![
                (7_250_000, 1, b"one".to_vec()),
                (8_000_000, 1, Vec::new()),
                (9_000_000, 1, b"three".to_vec()),
            ];
            assert_eq!(read(&file), Some((expected, None)));
        }
    }
}

#[test]
fn frame_check_bits_are_no_part_of_the_link_type() {
    let file = Order(false).pcap(0xa1b2_c3d4, 0x2400_0001, &[(1, 0, b"x")]);
    assert_eq!(read(&file).unwrap().0[0].1, 1);
}

/// A file of two sections, the second of the other byte order; interfaces of several link types and
/// resolutions; each kind of packet block; and blocks without packets.
fn two_sections() -> Vec<u8> {
    let [little, big] = BOTH;
    let mut old = [big.u16(0), big.u16(0)].concat();
    old.extend(big.words(&[0, 5, 4, 4]));
    old.extend(b"old!");
    [
        little.section(),
        little.interface(1, &[]),
        little.interface(101, &little.times(9, 100)),
        little.packet(0, 1_500_000, b"micro"),
        little.packet(1, 2_000_000_000, b"nano"),
        little.block(0x0bad_cafe, b"unknown"),
        little.block(SIMPLE_PACKET, &[&little.u32(6)[..], b"simple"].concat()),
        big.section(),
        big.interface(113, &big.times(0x80 | 10, -1)),
        big.packet(0, 5 << 10 | 512, b"binary"),
        big.block(PACKET, &old),
    ]
    .concat()
}

#[test]
fn pcapng_of_several_sections_interfaces_and_resolutions_is_read() {
    let (packets, damage) = read(&two_sections()).unwrap();
    let expected = vec![
        (1_500_000, 1, b"micro".to_vec()),
        (102_000_000, 101, b"nano".to_vec()),
        // Without a time: that of the packet before it.
        (102_000_000, 1, b"simple".to_vec()),
        (4_500_000, 113, b"binary".to_vec()),
        (-995_118, 113, b"old!".to_vec()),
    ];
    assert_eq!((packets, damage), (expected, None));
}

#[test]
fn a_file_that_ends_anywhere_is_read_up_to_there() {
    let pcap = Order(true).pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc"), (2, 0, b""), (3, 0, b"xyz")]);
    for (file, header) in [(pcap, 24), (two_sections(), 28)] {
        let whole = read(&file).unwrap().0;
        let mut complete = 0;
        for length in 0..file.len() {
            let Some((packets, damage)) = read(&file[..length]) else {
                assert!(length < header, "{length}");
                continue;
            };
            assert_eq!(packets, whole[..packets.len()], "{length}");
            match damage {
                Some(damage) => {
                    assert_eq!(damage.fault, Fault::Truncated, "{length}");
                    assert_eq!(damage.packet, packets.len() as u64 + 1, "{length}");
                    assert!(damage.offset < length as u64, "{length}");
                    // Up to that place the file is good.
                    let before = read(&file[..damage.offset as usize]);
                    assert!(damage.offset == 0 || before == Some((packets, None)), "{length}");
                }
                // It ends between two records.
                None => complete += 1,
            }
        }
        assert!(complete >= 3, "{complete}");
    }
}

#[test]
fn damaged_fields_are_reported_with_their_place() {
    let [little, big] = BOTH;
    let good = little.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"abc")]);
    let start = good.len() as u64;
    let section = [little.section(), little.interface(1, &[])].concat();
    let after = section.len() as u64;
    let mut lying = little.packet(0, 1, b"four");
    lying[20] = 200;
    let mut other_end = little.interface(1, &[]);
    *other_end.last_mut().unwrap() = 9;
    let many = [little.section(), little.interface(1, &[]).repeat(INTERFACES_MAX + 1)].concat();
    let many_at = (28 + 20 * INTERFACES_MAX) as u64;
    let rows: Vec<(&str, Vec<u8>, Damage)> = vec![
        (
            "a record of 4 GB",
            [&good[..], &little.words(&[1, 0, u32::MAX, u32::MAX])].concat(),
            Damage { offset: start, packet: 2, fault: Fault::Length(u32::MAX) },
        ),
        (
            "a block of 8 bytes",
            [&section[..], &little.words(&[6, 8, 8])].concat(),
            Damage { offset: after, packet: 1, fault: Fault::Length(8) },
        ),
        (
            "a block of the other byte order",
            [section.clone(), big.packet(0, 1, b"x")].concat(),
            Damage { offset: after, packet: 1, fault: Fault::Length(0x2400_0000) },
        ),
        (
            "a packet longer than its block",
            [section.clone(), lying].concat(),
            Damage { offset: after, packet: 1, fault: Fault::Block(6) },
        ),
        (
            "another length at the end",
            [section.clone(), other_end].concat(),
            Damage { offset: after, packet: 1, fault: Fault::Block(1) },
        ),
        (
            "no such interface",
            [section, little.packet(1, 1, b"x")].concat(),
            Damage { offset: after, packet: 1, fault: Fault::Interface(1) },
        ),
        (
            "a simple packet without an interface",
            [little.section(), little.block(SIMPLE_PACKET, &little.words(&[0]))].concat(),
            Damage { offset: 28, packet: 1, fault: Fault::Interface(0) },
        ),
        (
            "too many interfaces",
            many,
            Damage { offset: many_at, packet: 1, fault: Fault::Interfaces },
        ),
    ];
    for (row, file, expected) in rows {
        assert_eq!(read(&file).unwrap().1, Some(expected), "{row}");
    }
}

#[test]
fn impossible_times_are_limited() {
    let order = Order(false);
    for (resolution, offset) in [(0, i64::MAX), (127, 0), (0xff, i64::MIN), (19, 0)] {
        let file = [
            order.section(),
            order.interface(1, &order.times(resolution, offset)),
            order.packet(0, u64::MAX, b"x"),
        ]
        .concat();
        let (packets, damage) = read(&file).unwrap();
        assert_eq!((packets.len(), damage), (1, None));
        assert!(packets[0].0.unsigned_abs() <= TIME_MAX as u64);
    }
}

#[test]
fn other_files_are_named() {
    for (start, text) in [
        (&b""[..], "it is empty"),
        (b"\x1f\x8b\x08\x00rest", "gunzip -c FILE"),
        (b"\x28\xb5\x2f\xfd", "zstd -dc FILE"),
        (b"\xfd7zXZ\x00", "xz -dc FILE"),
        (b"BZh91AY", "bunzip2 -c FILE"),
        (b"snoop\x00\x00\x00", "no capture file"),
        (b"\xd4\xc3\xb2\xa1\x02", "no capture file"),
    ] {
        let error = Reader::open(start).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

proptest! {
    #[test]
    fn damaged_files_cause_no_panic(at in 0usize..400, byte: u8, length in 0usize..400) {
        for mut file in [two_sections(), Order(true).pcap(0xa1b2_3c4d, 1, &[(1, 0, &[7; 60]), (2, 0, &[8; 60])])] {
            let place = at % file.len();
            file[place] = byte;
            file.truncate(file.len().min(length.max(28)));
            let _ = read(&file);
        }
    }

    #[test]
    fn random_bytes_cause_no_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        for order in BOTH {
            let _ = read(&[order.section(), tail.clone()].concat());
            let _ = read(&[order.pcap(0xa1b2_c3d4, 1, &[]), tail.clone()].concat());
        }
        let _ = read(&tail);
    }
}
