//! The two machines of a measurement: the host with ten services, and the scanner that has a whole
//! network of addresses, a fresh one for each run.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::netns::Namespace;
use super::target::{KNOCK, SERVICES};
use super::wire::Wire;

/// Host and scanner, joined; the services live as long as this.
pub struct Scene {
    pub host: Namespace,
    pub scanner: Namespace,
    _services: Vec<TcpListener>,
    sources: AtomicU32,
}

impl Scene {
    /// Makes both.
    pub fn new() -> Self {
        let (host, scanner) = (Namespace::new(), Namespace::new());
        host.join(&scanner, "scan0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
        host.run("ip", &["route", "add", "default", "via", "192.0.2.2"]);
        // RFC 2544's addresses for benchmarks: all of them are the scanner's, so that its kernel
        // resets half-open connections as a scanner's does.
        scanner.run("ip", &["route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
        let services = host.enter(|| {
            SERVICES
                .iter()
                .chain([&KNOCK])
                .map(|&port| TcpListener::bind(("0.0.0.0", port)).unwrap())
                .collect()
        });
        Self { host, scanner, _services: services, sources: AtomicU32::new(0) }
    }

    /// An address that has sent nothing so far.
    pub fn source(&self) -> Ipv4Addr {
        // 198.18.0.1 and on; each in a /24 of its own, because some contestants count networks.
        let n = self.sources.fetch_add(1, Ordering::Relaxed);
        Ipv4Addr::from(u32::from_be_bytes([198, 18, 0, 1]) + n % 250 * 256 + n / 250)
    }

    /// Runs `inside` with raw sockets on the scanner.
    pub fn scan<T: Send>(&self, inside: impl FnOnce(&Wire) -> T + Send) -> T {
        self.scanner.enter(|| inside(&Wire::new()))
    }
}
