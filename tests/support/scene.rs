//! Two hosts and the cable between them: the host that is protected, and one that scans it.

use std::time::Duration;

use super::TRAFFIC;
use super::netns::Namespace;

/// The name of the cable's device at both ends.
pub const DEVICE: &str = "scan0";

/// Both hosts, each a network namespace.
pub struct Scene {
    pub host: Namespace,
    pub scanner: Namespace,
    /// The host's first address: what is scanned where nothing else is said.
    pub target: String,
}

impl Scene {
    /// Makes the two, with these addresses in CIDR form.
    pub fn new(host: &[&str], scanner: &[&str]) -> Self {
        let scene = Self { host: Namespace::new(), scanner: Namespace::new(), target: host[0].split('/').next().unwrap_or_default().to_owned() };
        scene.host.join(&scene.scanner, DEVICE, host, scanner);
        scene
    }

    /// The host finds these prefixes, which are not its own, at the scanner.
    pub fn with_prefixes(self, prefixes: &[&str]) -> Self {
        for prefix in prefixes {
            self.host.run("ip", &["-6", "route", "add", prefix, "dev", DEVICE]);
        }
        self
    }

    /// The scanner, which has no address in the host's prefix, finds it at the cable.
    pub fn with_route_to(self, prefix: &str) -> Self {
        self.scanner.run("ip", &["-6", "route", "add", prefix, "dev", DEVICE]);
        self
    }

    /// A SYN scan of these ports (`-p1-20`) of the host.
    pub fn scan(&self, ports: &str) {
        self.nmap(&["-sS", ports, &self.target]);
    }

    /// A scan from one of the scanner's addresses, with more options of nmap and its targets.
    pub fn scan_from(&self, from: &str, words: &[&str]) {
        self.nmap(&[&["-e", DEVICE, "-S", from], words].concat());
    }

    /// [`nmap`] at the scanner.
    pub fn nmap(&self, words: &[&str]) -> String {
        nmap(&self.scanner, words)
    }

    /// A load of traffic.py from one of the scanner's addresses; gives what it printed.
    pub fn traffic(&self, load: &str, from: &str, to: &str, words: &[&str]) -> String {
        self.scanner.run("python3", &[&[TRAFFIC, load, from, to], words].concat())
    }

    /// Whether the host answers the scanner.
    pub fn reaches(&self) -> bool {
        self.scanner.pings(&[&self.target])
    }

    /// Whether it answers this address of the scanner's.
    pub fn reaches_from(&self, from: &str) -> bool {
        self.scanner.pings(&["-I", from, &self.target])
    }
}

/// nmap with these options and targets, without name look-ups and without a second probe; gives what it prints.
pub fn nmap(from: &Namespace, words: &[&str]) -> String {
    // A veth pair answers within a millisecond: who answers later has dropped the probe.
    let patience = ["--initial-rtt-timeout", "100ms", "--max-rtt-timeout", "100ms", "--host-timeout", "20s"];
    let words = [&["-n", "-Pn", "--max-retries", "0"], &patience[..], words].concat();
    let output = from.output("nmap", &words, Duration::from_secs(60));
    assert!(output.status.success(), "nmap {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
