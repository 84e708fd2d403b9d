//! Datagrams to decoys: who has passed the trigger gets the banner, once for each datagram, and not at any rate.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::SendFlags;

use crate::config::PortSet;
use crate::sys::transparent;
use crate::time::MonoTime;

/// Datagrams looked at before the packet thread looks at its other descriptors.
pub const MAX_DATAGRAMS_PER_WAKE: usize = 64;

/// Banners sent by UDP within a second, in all. The sender of a datagram may be forged, and the banner then goes to the one whose address that is:
/// ten of at most 1,024 bytes are less than a telephone line carries, and not worth anybody's while to reflect. A scanner gets what he is to see.
pub const ANSWERS_A_SECOND: u32 = 10;

/// Ports below are services' (ip(7), `ip_unprivileged_port_start`).
pub(super) const FIRST_UNPRIVILEGED: u16 = 1024;

/// Counts the answers of each second.
#[derive(Debug, Default)]
pub(super) struct Answers {
    since: MonoTime,
    given: u32,
}

impl Answers {
    /// Whether there may be one more.
    pub(super) fn take(&mut self, now: MonoTime) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, given: 0 };
        }
        let may = self.given < ANSWERS_A_SECOND;
        self.given += u32::from(may);
        may
    }
}

/// Whether an answer could start no conversation of machines: what comes from a service's port may be an answer itself, and what comes from a
/// decoy's port may come from another host with the same decoys, forged by a third.
pub(super) fn may_be_answered(peer: SocketAddr, local: SocketAddr, decoys: &PortSet) -> bool {
    !local.ip().is_loopback() && decoys.contains(local.port()) && peer.port() >= FIRST_UNPRIVILEGED && !decoys.contains(peer.port())
}

/// Sends the banner from where the datagram was sent to. Whether it went out.
pub(super) fn answer(from: SocketAddr, to: SocketAddr, banner: &[u8]) -> bool {
    // A service that took the port meanwhile keeps it.
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
        let may = |from: &str, to: &str| may_be_answered(from.parse().unwrap(), to.parse().unwrap(), &decoys);
        assert!(may("203.0.113.9:40000", "192.0.2.1:7") && may("[2001:db8::9]:40000", "[2001:db8::1]:31337"));
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
        fn no_second_has_more_than_two_seconds_worth_of_answers(gaps in proptest::collection::vec(0u64..400, 1..300)) {
            let (mut answers, mut now, mut given) = (Answers::default(), 5_000, Vec::new());
            for gap in gaps {
                now += gap;
                if answers.take(MonoTime::from_millis(now)) {
                    given.push(now);
                }
            }
            for start in &given {
                let within = given.iter().filter(|at| (*start..start + 1000).contains(at)).count();
                prop_assert!(within <= 2 * ANSWERS_A_SECOND as usize);
            }
        }
    }
}
