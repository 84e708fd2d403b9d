//! The size of the ledger, and the keys of its sources.

use std::net::{IpAddr, Ipv6Addr};

use super::{INDEX, PORT_BYTES_MAX, TRIGGER_MAX};
use crate::config::Ipv6Accounts;
use crate::engine::Source;
use crate::engine::account::AMBIGUOUS_TRIGGER_MIN;
use crate::rate::TokenBucket;

/// A source as a number; IPv4 addresses in their mapped form (RFC 4291, 2.5.5.2), which no packet's
/// source may have.
///
/// Two 64-bit words: the alignment of a `u128` would cost a newcomer sixteen bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(in crate::engine) struct Key(u64, u64);

/// The first byte of a prefix's key, which is moved up by as much: that of a multicast address,
/// which no packet's source may be (RFC 4291, 2.7) and the kernel drops.
const PREFIX: u128 = 0xff << 120;
const _: () = assert!(Ipv6Accounts::THEN_MAX == 120);

impl Key {
    /// The key of an account; a prefix has another one than its first address.
    fn of(source: Source, lengths: Ipv6Accounts) -> Self {
        let bits = match source.addr() {
            IpAddr::V6(_) if lengths.prefix() == Some(source.prefix_len()) => {
                PREFIX | source.bits() >> 8
            }
            _ => source.bits(),
        };
        Self((bits >> 64) as u64, bits as u64)
    }

    /// The account.
    pub(super) fn source(self, lengths: Ipv6Accounts) -> Source {
        let bits = u128::from(self.0) << 64 | u128::from(self.1);
        let (bits, length) = match lengths.prefix() {
            Some(length) if bits & PREFIX == PREFIX => (bits << 8, length),
            _ => (bits, lengths.first),
        };
        Source::of(IpAddr::V6(Ipv6Addr::from_bits(bits)), length)
    }

    /// Whether it is an IPv4 account.
    pub(super) fn is_ipv4(self) -> bool {
        (self.0, self.1 >> 32) == (0, 0xffff)
    }
}

/// The ledger's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Shape {
    pub(in crate::engine) capacity: u32,
    pub(in crate::engine) trigger: u16,
    /// Milliseconds.
    pub(in crate::engine) window: u64,
    /// The lengths of IPv6 accounts.
    pub(in crate::engine) ipv6: Ipv6Accounts,
}

impl Shape {
    pub(in crate::engine) fn key(self, source: Source) -> Key {
        Key::of(source, self.ipv6)
    }

    /// Places of one tier.
    pub(super) fn third(self) -> u32 {
        (self.capacity / 3).clamp(1, INDEX / 2)
    }

    pub(super) fn suspects(self) -> u32 {
        let fit = PORT_BYTES_MAX / (slots(self.trigger) * size_of::<u64>());
        self.third().min(u32::try_from(fit).unwrap_or(u32::MAX))
    }

    pub(super) fn tokens(self) -> TokenBucket {
        // An eighth saved up: the first minutes after a start see many sources at once.
        let third = u64::from(self.third());
        TokenBucket::new(third, self.window, (third / 8).max(1))
    }
}

/// Ports in a suspect's account: one more than the trigger, for plain and for ambiguous evidence.
pub(super) const fn slots(trigger: u16) -> usize {
    let trigger = if trigger > TRIGGER_MAX { TRIGGER_MAX } else { trigger };
    (if trigger > AMBIGUOUS_TRIGGER_MIN { trigger } else { AMBIGUOUS_TRIGGER_MIN }) as usize + 1
}
