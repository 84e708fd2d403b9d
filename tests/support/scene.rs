//! Two hosts and the link between them: the protected host, and a scanner.

use std::time::Duration;

use super::TRAFFIC;
use super::netns::Namespace;

/// The name of the link's device at both ends.
pub const DEVICE: &str = "scan0";

/// Both hosts, each a network namespace.
pub struct Scene {
    pub host: Namespace,
    pub scanner: Namespace,
    /// The host's first address: the default target of scans.
    pub target: String,
}

impl Scene {
    /// Makes both hosts with these addresses in CIDR form.
    pub fn new(host: &[&str], scanner: &[&str]) -> Self {
        let scene = Self {
            host: Namespace::new(),
            scanner: Namespace::new(),
            target: host[0].split('/').next().unwrap_or_default().to_owned(),
        };
        scene.host.join(&scene.scanner, DEVICE, host, scanner);
        scene
    }

    /// Routes these prefixes, which are not the host's own, to the scanner.
    pub fn with_prefixes(self, prefixes: &[&str]) -> Self {
        for prefix in prefixes {
            self.host.run("ip", &["-6", "route", "add", prefix, "dev", DEVICE]);
        }
        self
    }

    /// Lets the scanner, without an address in the host's prefix, reach the host on the link.
    pub fn with_route_to(self, prefix: &str) -> Self {
        self.scanner.run("ip", &["-6", "route", "add", prefix, "dev", DEVICE]);
        self
    }

    /// A SYN scan of these ports (`-p1-20`) of the host.
    pub fn scan(&self, ports: &str) {
        self.nmap(&["-sS", ports, &self.target]);
    }

    /// A scan from one of the scanner's addresses, with further options of nmap and targets.
    pub fn scan_from(&self, from: &str, words: &[&str]) {
        self.nmap(&[&["-e", DEVICE, "-S", from], words].concat());
    }

    /// Runs [`nmap`] on the scanner.
    pub fn nmap(&self, words: &[&str]) -> String {
        nmap(&self.scanner, words)
    }

    /// Runs a load of traffic.py from one of the scanner's addresses; returns its output.
    pub fn traffic(&self, load: &str, from: &str, to: &str, words: &[&str]) -> String {
        self.scanner.run("python3", &[&[TRAFFIC, load, from, to], words].concat())
    }

    /// Whether the host answers the scanner.
    pub fn reaches(&self) -> bool {
        self.scanner.pings(&[&self.target])
    }

    /// Whether it answers this address of the scanner.
    pub fn reaches_from(&self, from: &str) -> bool {
        self.scanner.pings(&["-I", from, &self.target])
    }
}

/// Runs nmap with these options and targets, without name lookups and repeated probes; returns its
/// output.
pub fn nmap(from: &Namespace, words: &[&str]) -> String {
    // A veth pair answers within a millisecond: without an answer by then the probe was dropped.
    let patience =
        ["--initial-rtt-timeout", "100ms", "--max-rtt-timeout", "100ms", "--host-timeout", "20s"];
    let words = [&["-n", "-Pn", "--max-retries", "0"], &patience[..], words].concat();
    let output = from.output("nmap", &words, Duration::from_secs(60));
    assert!(output.status.success(), "nmap {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
