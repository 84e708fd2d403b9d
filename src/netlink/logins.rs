//! Finds the peers whose connections have logged in, so that no block cuts an administrator's ssh
//! session.
//!
//! Pure: its input are snapshots of established connections, the addresses that have a login
//! session (`sys/login_sessions.rs`), and the time. A connection has logged in if its peer has a
//! session, or if it outlasted the login and exchanged what only a session exchanges.
//!
//! The kernel does not report the age of a connection (`struct tcp_info` has no such field). But a
//! socket's cookie is never reused, and TCP never returns to ESTABLISHED (RFC 9293, figure 5): a
//! cookie seen in two snapshots is one connection that was established all the time between. So the
//! age is a lower bound, which a peer cannot inflate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::sock_diag::{Connection, Traffic};

/// How long a connection without a recorded session must have stayed established before its peer
/// counts.
///
/// sshd closes a connection without a login after two minutes (sshd_config(5), LoginGraceTime 120),
/// so a longer one has logged in. The third minute allows for slow closes and late snapshots.
pub const LOGGED_IN_AFTER: Duration = Duration::from_secs(180);

/// Bytes that it must have sent, and received.
///
/// For a server without LoginGraceTime: key exchange and failed logins (three keys, then passwords)
/// took 3,985 bytes sent and 4,449 received (OpenSSH 9.2, RSA keys of 4096 bits), a connection that only connects 1,129 and 11.
pub const SESSION_BYTES: u64 = 6 * 1024;

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
    traffic: Traffic,
}

/// The tracked connections.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    /// By cookie. An ordered map has no hash collisions that a peer could cause.
    known: BTreeMap<u64, Tracked>,
}

impl Logins {
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
                (connection.cookie, Tracked { peer, since, traffic: connection.traffic })
            })
            .collect();
        // Cookies increase in the order in which they are first requested, which gives a stable
        // order to connections first seen together.
        sorted.sort_unstable_by_key(|(cookie, known)| (known.since, *cookie));
        let mut of_peer: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.known.clear();
        for (cookie, known) in sorted {
            if self.known.len() >= CONNECTIONS_MAX {
                break;
            }
            let count = of_peer.entry(known.peer).or_default();
            if *count < CONNECTIONS_PER_PEER {
                *count += 1;
                self.known.insert(cookie, known);
            }
        }
    }

    /// The peers that have logged in at `now`; IPv4-mapped addresses as IPv4. `sessions`: addresses
    /// that have a login session.
    pub fn peers(&self, now: Duration, sessions: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let has_outlasted = |known: &Tracked| {
            now.saturating_sub(known.since) >= LOGGED_IN_AFTER
                && known.traffic.sent.min(known.traffic.received) >= SESSION_BYTES
        };
        self.known
            .values()
            .filter(|known| sessions.contains(&known.peer) || has_outlasted(known))
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

    const BUSY: Traffic = Traffic { sent: SESSION_BYTES, received: SESSION_BYTES };

    fn connection(cookie: u64, peer: &str) -> Connection {
        Connection {
            local: "[::]:22".parse().unwrap(),
            peer: SocketAddr::new(peer.parse().unwrap(), 50_000),
            cookie,
            traffic: BUSY,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peers(logins: &Logins, now: u64) -> Vec<String> {
        logins.peers(at(now), &BTreeSet::new()).iter().map(ToString::to_string).collect()
    }

    // P2
    #[test]
    fn peer_with_a_session_counts_at_once() {
        let mut logins = Logins::default();
        let idle =
            |cookie, peer| Connection { traffic: Traffic::default(), ..connection(cookie, peer) };
        logins.observe(at(0), &[idle(1, "192.0.2.1"), idle(2, "192.0.2.2")]);
        let sessions = ["192.0.2.1", "192.0.2.3"].map(|address| address.parse().unwrap());
        // One has a session and no connection: the session's record may be stale.
        let found = logins.peers(at(0), &sessions.into());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1"]);
    }

    // P2
    #[test]
    fn connection_that_exchanges_no_more_than_failed_logins_never_counts() {
        let mut logins = Logins::default();
        let failed =
            [Traffic { sent: 3985, received: u64::MAX }, Traffic { sent: 9000, received: 4449 }];
        for second in (0..100_000).step_by(1000) {
            let snapshot: Vec<_> = (1..)
                .zip(failed)
                .map(|(cookie, traffic)| Connection { traffic, ..connection(cookie, "192.0.2.1") })
                .collect();
            logins.observe(at(second), &snapshot);
            assert!(peers(&logins, second).is_empty(), "at {second}");
        }
    }

    // P2, D5
    #[test]
    fn peer_counts_when_its_connection_outlasts_a_login() {
        let mut logins = Logins::default();
        for second in (1000..=1170).step_by(10) {
            logins.observe(at(second), &[connection(1, "192.0.2.1")]);
            assert!(peers(&logins, second).is_empty(), "at {second}");
        }
        logins.observe(at(1180), &[connection(1, "192.0.2.1")]);
        assert_eq!(peers(&logins, 1180), ["192.0.2.1"]);
    }

    // P2
    #[test]
    fn connections_closed_at_the_login_timeout_never_count() {
        let mut logins = Logins::default();
        for second in (0..3600).step_by(10) {
            // A new connection every two minutes: another cookie.
            logins.observe(at(second), &[connection(second / 120, "192.0.2.1")]);
            assert!(peers(&logins, second).is_empty(), "at {second}");
        }
    }

    #[test]
    fn disconnected_peer_counts_no_longer() {
        let mut logins = Logins::default();
        logins.observe(at(0), &[connection(1, "192.0.2.1"), connection(2, "2001:db8::1")]);
        logins.observe(at(200), &[connection(2, "2001:db8::1")]);
        assert_eq!(peers(&logins, 200), ["2001:db8::1"]);
        logins.observe(at(210), &[]);
        assert!(peers(&logins, 210).is_empty() && logins.is_empty());
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer() {
        let mut logins = Logins::default();
        logins.observe(at(0), &[connection(1, "::ffff:192.0.2.1")]);
        assert_eq!(peers(&logins, 180), ["192.0.2.1"]);
    }

    #[test]
    fn flood_of_connections_evicts_no_older_one() {
        let mut logins = Logins::default();
        // The administrator's cookie is the highest, so only our clock shows its age.
        let administrator = connection(u64::MAX, "192.0.2.1");
        logins.observe(at(0), &[administrator]);
        let mut snapshot: Vec<_> = (0..5000)
            .map(|n| connection(n, &Ipv6Addr::from_bits(u128::from(n) << 64).to_string()))
            .collect();
        snapshot.push(administrator);
        logins.observe(at(180), &snapshot);
        assert_eq!(
            (peers(&logins, 180), logins.len()),
            (vec!["192.0.2.1".to_owned()], CONNECTIONS_MAX)
        );
    }

    // P2
    #[test]
    fn one_peer_cannot_fill_the_table() {
        let mut logins = Logins::default();
        let mut snapshot: Vec<_> = (0..5000).map(|n| connection(n, "198.51.100.1")).collect();
        snapshot.push(connection(5000, "192.0.2.1"));
        logins.observe(at(0), &snapshot);
        logins.observe(at(180), &snapshot);
        assert_eq!(peers(&logins, 180), ["192.0.2.1", "198.51.100.1"]);
    }

    #[test]
    fn clock_going_back_ages_nothing() {
        let mut logins = Logins::default();
        logins.observe(at(1000), &[connection(1, "192.0.2.1")]);
        logins.observe(at(500), &[connection(1, "192.0.2.1")]);
        assert!(peers(&logins, 500).is_empty());
    }

    proptest! {
        #[test]
        fn table_is_bounded_and_no_peer_counts_early(
            snapshots in proptest::collection::vec(proptest::collection::vec((0u64..50, 0u8..8), 0..60), 1..20),
        ) {
            let mut logins = Logins::default();
            let mut first = std::collections::HashMap::new();
            for (n, snapshot) in (0u64..).zip(&snapshots) {
                let now = n * 50;
                let snapshot: Vec<_> = snapshot.iter().map(|(cookie, host)| connection(*cookie, &format!("192.0.2.{host}"))).collect();
                logins.observe(at(now), &snapshot);
                for connection in &snapshot {
                    first.entry(connection.peer.ip()).or_insert(now);
                }
                prop_assert!(logins.len() <= 8 * CONNECTIONS_PER_PEER);
                for peer in logins.peers(at(now), &BTreeSet::new()) {
                    prop_assert!(now - first[&peer] >= 180);
                }
            }
        }
    }
}
