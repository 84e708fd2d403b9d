//! The two machines of a measurement: the host with ten services, and the scanner that has a whole network of addresses, a fresh one for each run.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use super::support::netns::Namespace;
use super::wire::Wire;

/// The host's address.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The services that a scan finds, within the ports 1-1000.
pub const SERVICES: [u16; 10] = [21, 22, 25, 53, 80, 110, 143, 443, 587, 993];
/// One more, outside of what is scanned and watched: answered as long as a source is not blocked.
pub const KNOCK: u16 = 9000;
/// The ports that nmap asks first, in random order, where it chooses the order (measured with 7.93); those up to 1000.
const POPULAR: [u16; 20] = [22, 80, 443, 21, 23, 25, 53, 110, 111, 113, 135, 139, 143, 199, 256, 445, 554, 587, 993, 995];

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
        // RFC 2544's addresses for benchmarks: all of them are the scanner's, so that its kernel resets half-open connections as a scanner's does.
        scanner.run("ip", &["route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
        let services = host.enter(|| SERVICES.iter().chain([&KNOCK]).map(|&port| TcpListener::bind(("0.0.0.0", port)).unwrap()).collect());
        Self { host, scanner, _services: services, sources: AtomicU32::new(0) }
    }

    /// An address that has sent nothing so far.
    pub fn source(&self) -> Ipv4Addr {
        // 198.18.0.1 and on; each in a /24 of its own, for whoever counts networks.
        let n = self.sources.fetch_add(1, Ordering::Relaxed);
        Ipv4Addr::from(u32::from_be_bytes([198, 18, 0, 1]) + n % 250 * 256 + n / 250)
    }

    /// Runs `inside` with raw sockets on the scanner.
    pub fn scan<T: Send>(&self, inside: impl FnOnce(&Wire) -> T + Send) -> T {
        self.scanner.enter(|| inside(&Wire::new()))
    }
}

/// The ports 1-1000 in an order as nmap has it, the `seed`'s own; the first is closed, since time counts from there.
pub fn order(seed: u32) -> Vec<u16> {
    let mut state = u64::from(seed) << 1 | 1;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut shuffle = |ports: &mut [u16]| (1..ports.len()).rev().for_each(|last| ports.swap(last, random(last + 1)));
    let (mut popular, mut rest) = (POPULAR.to_vec(), (1..=1000).filter(|port| !POPULAR.contains(port)).collect::<Vec<_>>());
    shuffle(&mut popular);
    shuffle(&mut rest);
    let closed = popular.iter().position(|port| !SERVICES.contains(port)).unwrap();
    popular.swap(0, closed);
    popular.extend(rest);
    popular
}
