//! A block as an element of the blocked sets, and an element as a block: the one place where either
//! becomes the other.

use std::net::IpAddr;

use super::networks::{Family, Piece, Span};
use crate::engine::{Adopted, BlockView, MonoTime, Reason, Source};
use crate::nft::{ElementInfo, Key};
use crate::ruleset::SetId;

/// The sets of blocked hosts, in which an element is one account. Where a host is in two of them, the
/// earlier one counts: the other drops less.
pub const HOSTS: [SetId; 4] =
    [SetId::Blocked4, SetId::Blocked6, SetId::Unproven4, SetId::Unproven6];

/// All sets of blocks.
pub const BLOCKED: [SetId; 6] = [
    SetId::Blocked4,
    SetId::Blocked6,
    SetId::Unproven4,
    SetId::Unproven6,
    SetId::BlockedNets4,
    SetId::BlockedNets6,
];

/// Whether only new connections of the hosts in a set are dropped.
pub(crate) fn is_unproven_set(set: SetId) -> bool {
    matches!(set, SetId::Unproven4 | SetId::Unproven6)
}

/// Where the elements of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One element of a hash set.
    Host(SetId, Key),
    /// Intervals, together with those of other networks of the family.
    Network(SetId),
}

impl Place {
    /// The set.
    pub fn set(self) -> SetId {
        match self {
            Self::Host(set, _) | Self::Network(set) => set,
        }
    }

    /// The key of the element in a host set; `None` if it is elsewhere.
    pub(crate) fn key_in(self, set: SetId) -> Option<Key> {
        match self {
            Self::Host(of, key) if of == set => Some(key),
            _ => None,
        }
    }
}

/// Which blocks are hosts to the rules in force: `blocked6` is looked up by an IPv6 source's first
/// so many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    ipv6_bits: u8,
}

impl Placement {
    /// Of rules that look IPv6 sources up by their first `ipv6_bits` bits.
    pub fn new(ipv6_bits: u8) -> Self {
        Self { ipv6_bits: ipv6_bits.min(128) }
    }

    /// Where the block of a source is. `unproven`: it is a scan's, and the address may be forged
    /// ([`Reason::is_unproven_scan`]).
    pub fn place(self, source: Source, unproven: bool) -> Place {
        let (address, prefix) = (source.addr(), source.prefix_len());
        let set = match (address, unproven) {
            (IpAddr::V4(_), false) if prefix == 32 => SetId::Blocked4,
            (IpAddr::V4(_), true) if prefix == 32 => SetId::Unproven4,
            (IpAddr::V6(_), false) if prefix == self.ipv6_bits => SetId::Blocked6,
            (IpAddr::V6(_), true) if prefix == self.ipv6_bits => SetId::Unproven6,
            _ => return Place::Network(Family::of(source).set()),
        };
        Place::Host(set, Key::from(address))
    }

    /// Where the block of a source with this reason is.
    pub(crate) fn place_of(self, source: Source, reason: &Reason) -> Place {
        self.place(source, reason.is_unproven_scan())
    }

    /// The key of a block's element in a host set; `None` if it is elsewhere.
    pub(crate) fn key_in(self, set: SetId, block: &BlockView<'_>) -> Option<Key> {
        self.place_of(block.source, block.reason).key_in(set)
    }

    /// The set of a source that is slowed.
    pub(crate) fn slowed_set(self, source: Source) -> SetId {
        match self.place(source, false) {
            Place::Host(SetId::Blocked4, _) => SetId::Held4,
            Place::Host(..) => SetId::Held6,
            Place::Network(_) => SetId::HeldNets6,
        }
    }

    /// Whether the block of a source lies in an interval set.
    pub fn is_network(self, source: Source) -> bool {
        matches!(self.place(source, false), Place::Network(_))
    }

    /// The account that an element of a host set stands for; `None` if no rule ever looks it up.
    pub(crate) fn exact_source(self, set: SetId, key: Key) -> Option<Source> {
        let is_there =
            |source: &Source| self.place(*source, is_unproven_set(set)) == Place::Host(set, key);
        self.source(key).filter(is_there)
    }

    /// The account that an element of a host set stands for; bits below the prefix, which no rule
    /// ever looks up, are cut off.
    pub fn source(self, key: Key) -> Option<Source> {
        key.address().map(|address| Source::of(address, self.ipv6_bits))
    }
}

/// The element of a host's block as it goes back into its set; `None` if it ends this very moment.
pub(crate) fn of_host(now: MonoTime, key: Key, block: &BlockView<'_>) -> Option<ElementInfo> {
    let expires = block.expires.map(|end| end.since(now));
    let timeout = expires.map(|left| block.timeout.unwrap_or(left).max(left));
    let comment = Some(block.reason.comment().into());
    unless_over(ElementInfo { timeout, expires, comment, ..bare(key, None) })
}

/// The element of a piece of blocked networks; `reason` is its owner's. `None` if it ends this very
/// moment.
pub(crate) fn of_piece(
    now: MonoTime,
    family: Family,
    piece: &Piece,
    reason: Option<&Reason>,
) -> Option<ElementInfo> {
    let comment = reason.map(|reason| reason.comment().into());
    unless_over(ElementInfo { comment, ..of_interval(now, family, piece.span, piece.expires) })
}

/// The element of an interval that ends then.
pub(crate) fn of_interval(
    now: MonoTime,
    family: Family,
    span: Span,
    expires: Option<MonoTime>,
) -> ElementInfo {
    let left = expires.map(|end| end.since(now));
    let range = bare(family.key(span.first), Some(family.key(span.last)));
    ElementInfo { timeout: left, expires: left, ..range }
}

/// An element that has a key, or is a range up to `end`, and nothing else.
pub(crate) fn bare(key: Key, end: Option<Key>) -> ElementInfo {
    ElementInfo { key, end, timeout: None, expires: None, packets: 0, bytes: 0, comment: None }
}

/// To the kernel a time of nothing is no end at all.
fn unless_over(info: ElementInfo) -> Option<ElementInfo> {
    let is_over = info.expires.is_some_and(|left| left.as_millis() == 0);
    (!is_over).then_some(info)
}

/// The block that an element of a blocked set is, as the engine takes it over.
pub(crate) fn adopted(source: Source, info: &ElementInfo) -> Adopted {
    Adopted {
        source,
        timeout: info.timeout,
        remaining: info.expires,
        reason: info
            .comment
            .as_deref()
            .unwrap_or_default()
            .parse()
            .unwrap_or(Reason::Foreign(Box::default())),
        since: None,
        port: None,
        exempt: Vec::new(),
    }
}

/// A reason as an element's comment can hold it (see [`crate::nft::Element`]), so that what comes back from the
/// kernel can be compared.
pub(crate) fn as_comment(reason: &Reason) -> String {
    reason
        .comment()
        .chars()
        .map(|c| if c.is_control() || matches!(c, '"' | '\\') { '?' } else { c })
        .collect()
}
