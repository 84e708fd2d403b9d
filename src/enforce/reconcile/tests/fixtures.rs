//! Blocks, elements and steps, written shortly.

use std::collections::BTreeMap;

use super::super::*;
use crate::probe::{Port, Transport};

pub(super) type Wanted = BlockView<'static>;

pub(super) const NOW: u64 = 10_000_000;

pub(super) fn now() -> MonoTime {
    MonoTime::from_millis(NOW)
}

pub(super) fn placement() -> Placement {
    Placement::new(64)
}

pub(super) fn source(name: &str) -> Source {
    name.parse::<IpNet>().map_or_else(|_| Source::of(name.parse().unwrap(), 64), Source::from)
}

/// A block that began 100 s ago and ends in `left` seconds.
pub(super) fn wanted(name: &str, left: Option<u64>) -> Wanted {
    of_stored(leaked(Block {
        source: source(name),
        exempt: Vec::new(),
        since: MonoTime::from_millis(NOW - 100_000),
        expires: left.map(|left| MonoTime::from_millis(NOW + left * 1000)),
        port: Some(Port { transport: Transport::Tcp, number: 23 }),
        reason: Reason::Manual("stored".into()),
    }))
}

/// A value for the whole test.
pub(super) fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub(super) fn info(
    key: Key,
    end: Option<Key>,
    left: Option<u64>,
    comment: Option<&str>,
) -> ElementInfo {
    let seconds = left.map(Duration::from_secs);
    ElementInfo {
        key,
        end,
        timeout: seconds,
        expires: seconds,
        packets: 5,
        bytes: 9,
        comment: comment.map(Into::into),
    }
}

/// The element of a host.
pub(super) fn element(
    name: &str,
    left: Option<u64>,
    comment: Option<&str>,
) -> (SetId, ElementInfo) {
    let Place::Host(set, key) = placement().place(source(name), false) else {
        panic!("{name} is a network")
    };
    (set, info(key, None, left, comment))
}

/// The interval of a network.
pub(super) fn interval(name: &str, left: Option<u64>, comment: Option<&str>) -> ElementInfo {
    let range = Key::network(source(name).network());
    info(*range.start(), Some(*range.end()), left, comment)
}

pub(super) fn present(
    hosts: Vec<(SetId, ElementInfo)>,
    networks: [Vec<ElementInfo>; 2],
    existed: bool,
) -> Present {
    let sets = if existed { crate::enforce::element::BLOCKED.to_vec() } else { Vec::new() };
    Present { hosts, networks, sets }
}

pub(super) fn steps(
    origin: Origin,
    wanted: Vec<Wanted>,
    present: &Present,
    must_not: &dyn Fn(Source) -> bool,
    total: usize,
) -> Vec<Step> {
    reconcile(now(), origin, placement(), wanted, present, total, &|source, _| must_not(source))
}

/// Of a reboot: nothing was taken out by another program.
pub(super) const LOST: Origin = Origin::Start { same_boot: false };
/// A restart of the daemon alone.
pub(super) const RESTART: Origin = Origin::Start { same_boot: true };

pub(super) fn shown(step: &Step) -> String {
    match step {
        Step::Keep(block) => format!("keep {}", block.source),
        Step::Adopt(block) => format!("adopt {}", block.source),
        Step::Restore(block) => format!("restore {}", block.source),
        Step::Retime(block) => format!("retime {}", block.source),
        Step::Unblock(source) => format!("unblock {source}"),
        Step::Exempt(source, part) => format!("exempt {part} of {source}"),
        Step::Drop(source, why) => format!("drop {source} {why:?}"),
        Step::Delete(_, key) => format!("delete {key}"),
    }
}

pub(super) fn all(steps: &[Step]) -> Vec<String> {
    let mut all: Vec<String> = steps.iter().map(shown).collect();
    all.sort();
    all
}

/// What is blocked when the steps are carried out.
pub(super) fn blocked(steps: &[Step]) -> BTreeMap<String, Adopted> {
    let mut blocked = BTreeMap::new();
    for step in steps {
        if let Step::Keep(block) | Step::Adopt(block) | Step::Restore(block) | Step::Retime(block) =
            step
        {
            let before = blocked.insert(block.source.to_string(), block.clone());
            assert!(before.is_none(), "{block:?} twice");
        }
    }
    for step in steps {
        if let Step::Unblock(source) = step {
            blocked.remove(&source.to_string());
        }
    }
    blocked
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    Block,
    Over,
    Ending,
    MustNot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    Same,
    OtherEnd,
    OtherComment,
    Bare,
    Stray,
}

pub(super) const WANTS: [Want; 5] =
    [Want::Nothing, Want::Block, Want::Over, Want::Ending, Want::MustNot];
pub(super) const THERE: [There; 6] =
    [There::Nothing, There::Same, There::OtherEnd, There::OtherComment, There::Bare, There::Stray];

/// Every reason to look, with whether the set existed, and what it means that an element is
/// missing.
pub(super) const ORIGINS: [(Origin, bool, Missing); 13] = [
    (Origin::Start { same_boot: true }, true, Missing::TakenOut),
    (Origin::Start { same_boot: true }, false, Missing::Lost),
    (Origin::Start { same_boot: false }, true, Missing::Lost),
    (Origin::Start { same_boot: false }, false, Missing::Lost),
    (Origin::LateStore { same_boot: true, had_table: true }, true, Missing::TakenOut),
    (Origin::LateStore { same_boot: true, had_table: true }, false, Missing::TakenOut),
    (Origin::LateStore { same_boot: true, had_table: false }, true, Missing::Lost),
    (Origin::LateStore { same_boot: false, had_table: true }, true, Missing::Lost),
    (Origin::LateStore { same_boot: false, had_table: false }, false, Missing::Lost),
    (Origin::Reload, true, Missing::Lost),
    (Origin::Reload, false, Missing::Lost),
    (Origin::Drift { notified: true }, true, Missing::TakenOut),
    (Origin::Drift { notified: false }, true, Missing::Lost),
];

/// The seconds that a block has left.
pub(super) fn left(want: Want) -> u64 {
    match want {
        Want::Over => 0,
        Want::Ending => 3,
        _ => 900,
    }
}

pub(super) fn want(name: &str, want: Want) -> Vec<Wanted> {
    if want == Want::Nothing { Vec::new() } else { vec![wanted(name, Some(left(want)))] }
}

pub(super) const OURS: Option<&str> = Some("by hand: stored");
