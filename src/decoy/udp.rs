//! UDP decoys: a source that has passed the trigger gets the banner for each datagram, at a limited
//! rate.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::SendFlags;

use crate::config::PortSet;
use crate::probe::FIRST_UNPRIVILEGED;
use crate::sys::transparent;
use crate::time::MonoTime;

/// Datagrams handled before the packet thread serves its other descriptors.
pub(crate) const MAX_DATAGRAMS_PER_WAKE: usize = 64;

/// UDP banners per second in all. The source of a datagram may be spoofed, and the banner then
/// reaches a third host: ten of at most 1,024 bytes are useless for a reflection attack, and enough
/// for a scanner to see.
pub(crate) const ANSWERS_PER_SECOND: u32 = 10;

/// Counts the answers per second.
#[derive(Debug, Default)]
pub(super) struct Answers {
    since: MonoTime,
    given: u32,
}

impl Answers {
    /// Whether another answer is allowed; counts it.
    pub(super) fn take(&mut self, now: MonoTime) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, given: 0 };
        }
        let may = self.given < ANSWERS_PER_SECOND;
        self.given += u32::from(may);
        may
    }
}

/// Whether an answer cannot start a loop: a datagram from a service's port may be an answer itself,
/// and one from a decoy's port may be spoofed with the address of another host with decoys.
pub(super) fn may_be_answered(peer: SocketAddr, local: SocketAddr, decoys: &PortSet) -> bool {
    !local.ip().is_loopback()
        && decoys.contains(local.port())
        && peer.port() >= FIRST_UNPRIVILEGED
        && !decoys.contains(peer.port())
}

/// Sends the banner from the datagram's destination. Returns whether it was sent.
pub(super) fn answer(from: SocketAddr, to: SocketAddr, banner: &[u8]) -> bool {
    // This fails if a service has bound the port meanwhile.
    let Ok(socket) = transparent::answering(from, to) else { return false };
    rustix::net::send(&socket, banner, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // P22
    #[test]
    fn services_and_other_decoys_are_not_answered() {
        let decoys = PortSet::of(&[7, 31337]);
        let may = |from: &str, to: &str| {
            may_be_answered(from.parse().unwrap(), to.parse().unwrap(), &decoys)
        };
        assert!(
            may("203.0.113.9:40000", "192.0.2.1:7")
                && may("[2001:db8::9]:40000", "[2001:db8::1]:31337")
        );
        for (from, to) in [
            ("203.0.113.9:19", "192.0.2.1:7"),
            ("203.0.113.9:31337", "192.0.2.1:7"),
            ("203.0.113.9:40000", "192.0.2.1:8"),
            ("127.0.0.1:40000", "127.0.0.1:7"),
        ] {
            assert!(!may(from, to), "{from} {to}");
        }
    }

    proptest! {
        // P22
        #[test]
        fn any_second_has_at_most_twice_the_limit(gaps in proptest::collection::vec(0u64..400, 1..300)) {
            let (mut answers, mut now, mut given) = (Answers::default(), 5_000, Vec::new());
            for gap in gaps {
                now += gap;
                if answers.take(MonoTime::from_millis(now)) {
                    given.push(now);
                }
            }
            for start in &given {
                let within = given.iter().filter(|at| (*start..start + 1000).contains(at)).count();
                prop_assert!(within <= 2 * ANSWERS_PER_SECOND as usize);
            }
        }
    }
}
