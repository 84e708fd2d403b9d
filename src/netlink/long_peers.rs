//! Which peers have been connected for long: the administrator's own ssh connection must not be cut by a block.
//!
//! Pure: it is fed snapshots of established connections and the time, and it never asks the kernel. The kernel does not tell how old a
//! connection is (`struct tcp_info` has no such field). But a socket's cookie is never used again, and TCP never comes back to ESTABLISHED
//! (RFC 9293, figure 5): a cookie seen in two snapshots is one connection that was established all the time between. So the age that is
//! counted here is a lower bound, and a source cannot make it larger than it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::sock_diag::Connection;

/// How long a connection must have stayed established before its peer counts.
///
/// sshd gives whoever connects two minutes to log in and then closes the connection (sshd_config(5), LoginGraceTime 120): only one that has logged in
/// lasts longer. The third minute is for slow closes and for snapshots that are late. A server with a longer LoginGraceTime, or none, needs a longer time here.
pub const LOGGED_IN_AFTER: Duration = Duration::from_secs(180);

/// Connections watched at most. An entry is about 64 bytes with its share of the tree: 256 KiB. Nobody has so many logins;
/// sshd itself holds at most 100 that have not logged in (sshd_config(5), MaxStartups).
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections watched of one peer. One long one is enough; more, so that the peer stays when the oldest ends. So few, that one peer cannot fill the table.
const CONNECTIONS_A_PEER: usize = 16;

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
struct Known {
    peer: IpAddr,
    /// When it was first seen established, on the caller's clock.
    since: Duration,
}

/// Peers whose connections have stayed established.
#[derive(Debug, Clone)]
pub struct LongPeers {
    stay: Duration,
    capacity: usize,
    /// By cookie. An ordered map: no hash that a peer could aim at.
    known: BTreeMap<u64, Known>,
}

impl LongPeers {
    /// Counts peers whose connections have stayed for `stay` ([`LOGGED_IN_AFTER`]), and watches at most `capacity` connections ([`CONNECTIONS_MAX`]).
    pub fn new(stay: Duration, capacity: usize) -> Self {
        Self { stay, capacity, known: BTreeMap::new() }
    }

    /// Takes in a snapshot of all connections to the admin ports that are established at `now` (time since boot).
    ///
    /// What is not in it is forgotten. When there are too many, the oldest stay: whoever opens many connections pushes out nobody.
    pub fn observe(&mut self, now: Duration, snapshot: &[Connection]) {
        let mut sorted: Vec<(u64, Known)> = snapshot
            .iter()
            .map(|connection| {
                let peer = connection.peer.ip().to_canonical();
                // A socket keeps its peer: another one under the same cookie would be another connection.
                let before = self.known.get(&connection.cookie).filter(|known| known.peer == peer);
                let since = before.map_or(now, |known| known.since.min(now));
                (connection.cookie, Known { peer, since })
            })
            .collect();
        // The kernel counts cookies up, when they are first asked for: among those first seen together the order is at least steady.
        sorted.sort_unstable_by_key(|(cookie, known)| (known.since, *cookie));
        let mut of_peer: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.known.clear();
        for (cookie, known) in sorted {
            if self.known.len() >= self.capacity {
                break;
            }
            let count = of_peer.entry(known.peer).or_default();
            if *count < CONNECTIONS_A_PEER {
                *count += 1;
                self.known.insert(cookie, known);
            }
        }
    }

    /// The peers that have stayed, at `now`. IPv4 peers of IPv6 sockets are given as IPv4.
    pub fn peers(&self, now: Duration) -> BTreeSet<IpAddr> {
        self.known.values().filter(|known| now.saturating_sub(known.since) >= self.stay).map(|known| known.peer).collect()
    }

    /// How many connections are watched.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv6Addr, SocketAddr};

    fn connection(cookie: u64, peer: &str) -> Connection {
        Connection { local: "[::]:22".parse().unwrap(), peer: SocketAddr::new(peer.parse().unwrap(), 50_000), cookie }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peers(long: &LongPeers, now: u64) -> Vec<String> {
        long.peers(at(now)).iter().map(ToString::to_string).collect()
    }

    // P2, D5
    #[test]
    fn a_peer_counts_when_its_connection_outlasts_a_login() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        for second in (1000..=1170).step_by(10) {
            long.observe(at(second), &[connection(1, "192.0.2.1")]);
            assert!(peers(&long, second).is_empty(), "at {second}");
        }
        long.observe(at(1180), &[connection(1, "192.0.2.1")]);
        assert_eq!(peers(&long, 1180), ["192.0.2.1"]);
    }

    // P2
    #[test]
    fn connections_that_sshd_closes_after_the_login_time_never_count_however_many_follow() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        for second in (0..3600).step_by(10) {
            // A new connection every two minutes: another cookie.
            long.observe(at(second), &[connection(second / 120, "192.0.2.1")]);
            assert!(peers(&long, second).is_empty(), "at {second}");
        }
    }

    #[test]
    fn a_peer_that_disconnects_counts_no_longer() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        long.observe(at(0), &[connection(1, "192.0.2.1"), connection(2, "2001:db8::1")]);
        long.observe(at(200), &[connection(2, "2001:db8::1")]);
        assert_eq!(peers(&long, 200), ["2001:db8::1"]);
        long.observe(at(210), &[]);
        assert!(peers(&long, 210).is_empty() && long.is_empty());
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        long.observe(at(0), &[connection(1, "::ffff:192.0.2.1")]);
        assert_eq!(peers(&long, 180), ["192.0.2.1"]);
    }

    #[test]
    fn a_flood_of_connections_pushes_out_no_older_one() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, 100);
        // The administrator's cookie is the highest: it is older by our own clock only.
        let administrator = connection(u64::MAX, "192.0.2.1");
        long.observe(at(0), &[administrator]);
        let mut snapshot: Vec<_> = (0..5000).map(|n| connection(n, &Ipv6Addr::from_bits(u128::from(n) << 64).to_string())).collect();
        snapshot.push(administrator);
        long.observe(at(180), &snapshot);
        assert_eq!((peers(&long, 180), long.len()), (vec!["192.0.2.1".to_owned()], 100));
    }

    // P2
    #[test]
    fn one_peer_cannot_fill_the_table() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, 100);
        let mut snapshot: Vec<_> = (0..5000).map(|n| connection(n, "198.51.100.1")).collect();
        snapshot.push(connection(5000, "192.0.2.1"));
        long.observe(at(0), &snapshot);
        long.observe(at(180), &snapshot);
        assert_eq!(peers(&long, 180), ["192.0.2.1", "198.51.100.1"]);
    }

    #[test]
    fn a_clock_that_goes_back_ages_nothing() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        long.observe(at(1000), &[connection(1, "192.0.2.1")]);
        long.observe(at(500), &[connection(1, "192.0.2.1")]);
        assert!(peers(&long, 500).is_empty());
    }

    proptest! {
        #[test]
        fn the_table_keeps_its_bound_and_nobody_counts_before_the_time(
            snapshots in proptest::collection::vec(proptest::collection::vec((0u64..50, 0u8..8), 0..60), 1..20),
        ) {
            let mut long = LongPeers::new(at(180), 20);
            let mut first = std::collections::HashMap::new();
            for (n, snapshot) in (0u64..).zip(&snapshots) {
                let now = n * 50;
                let snapshot: Vec<_> = snapshot.iter().map(|(cookie, host)| connection(*cookie, &format!("192.0.2.{host}"))).collect();
                long.observe(at(now), &snapshot);
                for connection in &snapshot {
                    first.entry(connection.peer.ip()).or_insert(now);
                }
                prop_assert!(long.len() <= 20);
                for peer in long.peers(at(now)) {
                    prop_assert!(now - first[&peer] >= 180);
                }
            }
        }
    }
}
