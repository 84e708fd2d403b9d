//! Finds peers with long-lived connections, so that no block cuts the administrator's own ssh
//! connection.
//!
//! Pure: its input are snapshots of established connections and the time. The kernel does not
//! report the age of a connection (`struct tcp_info` has no such field). But a socket's cookie is
//! never reused, and TCP never returns to ESTABLISHED (RFC 9293, figure 5): a cookie seen in two
//! snapshots is one connection that was established all the time between. So the age is a lower
//! bound, which a peer cannot inflate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::sock_diag::Connection;

/// How long a connection must have stayed established before its peer counts.
///
/// sshd closes a connection without a login after two minutes (sshd_config(5), LoginGraceTime 120),
/// so a longer one has logged in. The third minute allows for slow closes and late snapshots. A
/// server with a longer LoginGraceTime, or none, needs a longer time here.
pub const LOGGED_IN_AFTER: Duration = Duration::from_secs(180);

/// Connections tracked at most, about 64 bytes each: 256 KiB. Far more than real logins; sshd
/// allows at most 100 connections that have not logged in (sshd_config(5), MaxStartups).
pub const CONNECTIONS_MAX: usize = 4096;

/// Connections tracked per peer. One is enough, the others keep the peer when the oldest ends; few,
/// so that one peer cannot fill the table.
const CONNECTIONS_PER_PEER: usize = 16;

/// A tracked connection.
#[derive(Debug, Clone, Copy)]
struct Tracked {
    peer: IpAddr,
    /// When it was first seen established.
    since: Duration,
}

/// The tracked connections.
#[derive(Debug, Clone)]
pub struct LongPeers {
    stay: Duration,
    capacity: usize,
    /// By cookie. An ordered map has no hash collisions that a peer could cause.
    known: BTreeMap<u64, Tracked>,
}

impl LongPeers {
    /// Selects peers connected for `stay` ([`LOGGED_IN_AFTER`]), and tracks at most `capacity`
    /// connections ([`CONNECTIONS_MAX`]).
    pub fn new(stay: Duration, capacity: usize) -> Self {
        Self { stay, capacity, known: BTreeMap::new() }
    }

    /// Processes a snapshot of all established connections to the admin ports at `now` (time since
    /// boot).
    ///
    /// Connections that are not in it are forgotten. If there are too many, the oldest stay, so
    /// that new connections evict none.
    pub fn observe(&mut self, now: Duration, snapshot: &[Connection]) {
        let mut sorted: Vec<(u64, Tracked)> = snapshot
            .iter()
            .map(|connection| {
                let peer = connection.peer.ip().to_canonical();
                // A socket keeps its peer: another peer with the same cookie would be another
                // connection.
                let before = self.known.get(&connection.cookie).filter(|known| known.peer == peer);
                let since = before.map_or(now, |known| known.since.min(now));
                (connection.cookie, Tracked { peer, since })
            })
            .collect();
        // Cookies increase in the order in which they are first requested, which gives a stable
        // order to connections first seen together.
        sorted.sort_unstable_by_key(|(cookie, known)| (known.since, *cookie));
        let mut of_peer: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.known.clear();
        for (cookie, known) in sorted {
            if self.known.len() >= self.capacity {
                break;
            }
            let count = of_peer.entry(known.peer).or_default();
            if *count < CONNECTIONS_PER_PEER {
                *count += 1;
                self.known.insert(cookie, known);
            }
        }
    }

    /// The peers connected long enough at `now`; IPv4-mapped addresses as IPv4.
    pub fn peers(&self, now: Duration) -> BTreeSet<IpAddr> {
        self.known
            .values()
            .filter(|known| now.saturating_sub(known.since) >= self.stay)
            .map(|known| known.peer)
            .collect()
    }

    /// Number of tracked connections.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no connection is tracked.
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
        Connection {
            local: "[::]:22".parse().unwrap(),
            peer: SocketAddr::new(peer.parse().unwrap(), 50_000),
            cookie,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peers(long: &LongPeers, now: u64) -> Vec<String> {
        long.peers(at(now)).iter().map(ToString::to_string).collect()
    }

    // P2, D5
    #[test]
    fn peer_counts_when_its_connection_outlasts_a_login() {
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
    fn connections_closed_at_the_login_timeout_never_count() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        for second in (0..3600).step_by(10) {
            // A new connection every two minutes: another cookie.
            long.observe(at(second), &[connection(second / 120, "192.0.2.1")]);
            assert!(peers(&long, second).is_empty(), "at {second}");
        }
    }

    #[test]
    fn disconnected_peer_counts_no_longer() {
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
    fn flood_of_connections_evicts_no_older_one() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, 100);
        // The administrator's cookie is the highest, so only our clock shows its age.
        let administrator = connection(u64::MAX, "192.0.2.1");
        long.observe(at(0), &[administrator]);
        let mut snapshot: Vec<_> = (0..5000)
            .map(|n| connection(n, &Ipv6Addr::from_bits(u128::from(n) << 64).to_string()))
            .collect();
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
    fn clock_going_back_ages_nothing() {
        let mut long = LongPeers::new(LOGGED_IN_AFTER, CONNECTIONS_MAX);
        long.observe(at(1000), &[connection(1, "192.0.2.1")]);
        long.observe(at(500), &[connection(1, "192.0.2.1")]);
        assert!(peers(&long, 500).is_empty());
    }

    proptest! {
        #[test]
        fn table_is_bounded_and_no_peer_counts_early(
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
