use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000_000;

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_millis(NOW + seconds * 1000)
}

fn source(text: &str) -> Source {
    Source::from(text.parse::<IpNet>().unwrap())
}

/// Blocks as text, each with its end in seconds (0: none) and what it leaves out.
fn networks(blocks: &[(&str, u64, &[&str])]) -> Networks {
    let mut networks = Networks::default();
    for (name, end, exempt) in blocks {
        let exempt: Vec<IpNet> = exempt.iter().map(|text| text.parse().unwrap()).collect();
        networks.set(source(name), (*end > 0).then(|| at(*end)), &exempt);
    }
    networks
}

fn shown(family: Family, pieces: &[Piece]) -> Vec<String> {
    let address = |number| family.address(number);
    let end = |piece: &Piece| {
        piece.expires.map_or("-".to_owned(), |end| end.since(at(0)).as_secs().to_string())
    };
    pieces
        .iter()
        .map(|piece| {
            format!(
                "{}-{} {} {}",
                address(piece.span.first),
                address(piece.span.last),
                end(piece),
                piece.owner
            )
        })
        .collect()
}

fn pieces(blocks: &[(&str, u64, &[&str])]) -> Vec<String> {
    let networks = networks(blocks);
    Family::ALL
        .into_iter()
        .flat_map(|family| shown(family, &networks.pieces(at(0), family, family.all())))
        .collect()
}

#[test]
fn overlapping_blocks_are_cut_where_the_inner_one_lasts_longer() {
    assert_eq!(
        pieces(&[("20.0.0.0/8", 0, &[]), ("20.1.0.0/16", 60, &[])]),
        ["20.0.0.0-20.255.255.255 - 20.0.0.0/8"]
    );
    assert_eq!(
        pieces(&[("20.0.0.0/8", 60, &[]), ("20.1.0.0/16", 0, &[])]),
        [
            "20.0.0.0-20.0.255.255 60 20.0.0.0/8",
            "20.1.0.0-20.1.255.255 - 20.1.0.0/16",
            "20.2.0.0-20.255.255.255 60 20.0.0.0/8"
        ]
    );
    assert_eq!(
        pieces(&[("2001:db8::/48", 60, &[]), ("2001:db8:0:1::/64", 90, &[])])[1],
        "2001:db8:0:1::-2001:db8:0:1:ffff:ffff:ffff:ffff 90 2001:db8:0:1::/64"
    );
    assert_eq!(
        pieces(&[("0.0.0.0/0", 0, &[]), ("255.255.255.255/32", 9, &[])]),
        ["0.0.0.0-255.255.255.255 - 0.0.0.0/0"]
    );
    assert_eq!(pieces(&[("::/0", 0, &[])]).len(), 1);
}

#[test]
fn what_a_block_leaves_out_is_dropped_only_if_another_block_wants_it() {
    assert_eq!(
        pieces(&[("10.0.0.0/30", 0, &["10.0.0.1/32"])]),
        ["10.0.0.0-10.0.0.0 - 10.0.0.0/30", "10.0.0.2-10.0.0.3 - 10.0.0.0/30"]
    );
    assert_eq!(
        pieces(&[("10.0.0.0/30", 0, &["10.0.0.1/32"]), ("10.0.0.0/31", 60, &[])]),
        [
            "10.0.0.0-10.0.0.0 - 10.0.0.0/30",
            "10.0.0.1-10.0.0.1 60 10.0.0.0/31",
            "10.0.0.2-10.0.0.3 - 10.0.0.0/30"
        ]
    );
    assert_eq!(pieces(&[("10.0.0.0/30", 0, &["10.0.0.0/30"])]), [""; 0]);
}

#[test]
fn a_difference_touches_only_what_changes() {
    let mut networks = networks(&[("10.0.0.0/8", 60, &[]), ("11.0.0.0/8", 60, &[])]);
    let first = networks.difference(at(0), Family::V4, Family::V4.all());
    assert_eq!((first.delete.len(), first.add.len()), (0, 2));
    networks.sent(&first);
    networks.set(source("10.1.0.0/16"), None, &[]);
    let within = Span::of(&source("10.1.0.0/16").network());
    let second = networks.difference(at(0), Family::V4, within);
    assert_eq!((second.delete.len(), second.add.len()), (1, 3), "{second:?}");
    networks.sent(&second);
    assert!(networks.difference(at(0), Family::V4, Family::V4.all()).is_empty());
    // Its end is the kernel's doing, and the inner block stays.
    networks.remove(source("10.0.0.0/8"));
    let ended = networks.difference(at(61), Family::V4, Family::V4.all());
    assert!(ended.is_empty(), "{ended:?}");
}

/// Until when an address is dropped, asked of every block; `None`: it is not.
fn naive(
    blocks: &BTreeMap<Source, (Option<MonoTime>, Vec<IpNet>)>,
    now: MonoTime,
    address: IpAddr,
) -> Option<Option<MonoTime>> {
    let covers = |(source, (end, exempt)): (&Source, &(Option<MonoTime>, Vec<IpNet>))| {
        let drops = source.network().contains(&address)
            && exempt.iter().all(|part| !part.contains(&address));
        (drops && end.is_none_or(|end| end > now)).then_some(*end)
    };
    blocks.iter().filter_map(covers).max_by_key(|end| end.map_or(u64::MAX, MonoTime::millis))
}

#[derive(Debug, Clone)]
enum Edit {
    Set(Source, u64, Vec<IpNet>),
    Remove(Source),
    /// Another program's interval appears, or one of ours is gone, and the kernel was read again.
    Foreign(u8, u8, bool),
    Wait(u64),
}

fn network() -> impl Strategy<Value = IpNet> {
    (0u32..64, 26u8..=32).prop_map(|(host, bits)| {
        IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 | host).into(), bits).unwrap().trunc()
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (network(), 0u64..40, proptest::collection::vec(network(), 0..3)).prop_map(|(network, end, exempt)| Edit::Set(network.into(), end, exempt)),
        2 => network().prop_map(|network| Edit::Remove(network.into())),
        1 => (0u8..64, 0u8..8, any::<bool>()).prop_map(|(first, more, is_new)| Edit::Foreign(first, more, is_new)),
        1 => (0u64..20).prop_map(Edit::Wait),
    ]
}

proptest! {
    /// After every change the kernel drops exactly the addresses that some block wants dropped,
    /// each at least until the latest end, in disjoint intervals; and each difference takes out
    /// only what is there.
    #[test]
    fn the_kernel_drops_what_a_naive_model_drops(edits in proptest::collection::vec(edit(), 1..40)) {
        let mut networks = Networks::default();
        let mut blocks: BTreeMap<Source, (Option<MonoTime>, Vec<IpNet>)> = BTreeMap::new();
        // The kernel: intervals with their ends.
        let mut kernel: Vec<(Span, Option<MonoTime>)> = Vec::new();
        let mut now = at(0);
        for edit in edits {
            let mut within = Family::V4.all();
            match edit {
                Edit::Set(source, end, exempt) => {
                    let expires = (end > 0).then(|| now.after(Duration::from_secs(end)));
                    networks.set(source, expires, &exempt);
                    blocks.insert(source, (expires, exempt));
                    within = Span::of(&source.network());
                }
                Edit::Remove(source) => {
                    prop_assert_eq!(networks.remove(source), blocks.remove(&source).is_some());
                    within = Span::of(&source.network());
                }
                Edit::Foreign(first, more, is_new) => {
                    let span = Span { first: u128::from(0x0a00_0000 | u32::from(first)), last: u128::from(0x0a00_0000 | u32::from(first.saturating_add(more).min(63))) };
                    if is_new && kernel.iter().all(|(there, _)| !there.overlaps(span)) {
                        kernel.push((span, None));
                    } else if !is_new {
                        kernel.retain(|(there, _)| !there.overlaps(span));
                    }
                    kernel.sort_unstable_by_key(|(span, _)| span.first);
                    networks.set_present(Family::V4, kernel.iter().copied());
                }
                Edit::Wait(seconds) => now = now.after(Duration::from_secs(seconds)),
            }
            kernel.retain(|(_, end)| end.is_none_or(|end| end > now));
            networks.prune(now, Family::V4, Family::V4.all());
            let difference = networks.difference(now, Family::V4, within);
            for span in &difference.delete {
                let before = kernel.len();
                kernel.retain(|(there, _)| there != span);
                prop_assert_eq!(kernel.len() + 1, before, "{:?} is not there", span);
            }
            for piece in &difference.add {
                prop_assert!(kernel.iter().all(|(there, _)| !there.overlaps(piece.span)), "{:?} overlaps", piece);
                kernel.push((piece.span, piece.expires));
            }
            networks.sent(&difference);
            prop_assert_eq!(networks.present(), kernel.len());
            for host in 0..64u32 {
                let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | host));
                let there = kernel.iter().find(|(span, _)| span.contains(Span::of(&IpNet::from(address)))).map(|(_, end)| *end);
                let wanted = naive(&blocks, now, address);
                prop_assert_eq!(there.is_some(), wanted.is_some(), "{} {:?} {:?}", address, there, wanted);
                prop_assert!(is_same_end(there.flatten(), wanted.flatten()), "{} {:?} {:?}", address, there, wanted);
            }
        }
    }
}
