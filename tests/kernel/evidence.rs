//! What is evidence of a scan, and what is not: packets that the kernel discards, flags that no
//! stack sends, segments and datagrams that look like late ones, ports that are not watched. Each
//! case scans from its own address.

use crate::support;

use std::time::Duration;

use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::{DEVICE, Scene};
use support::{eventually, missing};

const HOST: &str = "10.81.0.1";
const HOST6: &str = "fd81:1::1";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];
const EVERY_PORT: &str =
    "tcp: { advanced_ports: 1-65535, exclude: [] }\nudp: { advanced_ports: 1-65535, exclude: [] }";
const ADDRESSES: usize = 40;

fn address(index: usize, six: bool) -> String {
    if six { format!("fd81:{:x}::2", 0x100 + index) } else { format!("10.81.1.{}", 10 + index) }
}

fn scene() -> Scene {
    let scene = Scene::new(&["10.81.0.1/16", "fd81:1::1/64"], &["10.81.0.9/16", "fd81:1::2/64"])
        .with_prefixes(&["fd81::/16"]);
    let lines = |index| {
        format!(
            "addr add {}/16 dev {DEVICE}\naddr add {}/128 dev {DEVICE} nodad\n",
            address(index, false),
            address(index, true)
        )
    };
    scene.scanner.ip_batch(&(0..ADDRESSES).map(lines).collect::<String>());
    scene
}

/// Scans the host from an address of this family; returns the address and nmap's output.
fn scan(scene: &Scene, index: usize, six: bool, words: &[&str]) -> (String, String) {
    let source = address(index, six);
    let family: &[&str] = if six { &["-6", HOST6] } else { &[HOST] };
    let output = scene.nmap(&[&["-e", DEVICE, "-S", &source, "-T4"], words, family].concat());
    (source, output)
}

/// Whether the daemon lists or logs the address within a time that is long for a veth pair.
fn is_noticed(daemon: &Daemon<'_>, source: &str, within: Duration) -> bool {
    eventually(within, || {
        daemon.blocked().iter().any(|found| found == source)
            || daemon.log().contains(&format!("{source}/"))
    })
}

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

fn serve(scene: &Scene, ports: &[&str]) -> support::netns::Running {
    crate::slow::serve(&scene.host, HOST, ports)
}

#[test]
fn packets_with_wrong_checksums_are_no_evidence() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "udp: { action: block }");
    let kinds = ["-sS", "-sN", "-sX", "-sA", "-sF", "-sM", "-sU", "-sY", "-sZ"];
    let mut index = 0;
    for kind in kinds {
        for six in [false, true] {
            let words = [kind, "--badsum", "-p", "1-40"];
            let (source, _) = scan(&scene, index, six, &words);
            assert!(!is_noticed(&daemon, &source, SHORT), "{kind} {source}: {}", daemon.log());
            let status = daemon.json(&["status"]);
            assert_eq!(status["probes"], 0, "{kind} {source}: {status}");
            index += 1;
        }
    }
    for set in ["held4", "held6"] {
        let listed = scene.host.run("nft", &["list", "set", "inet", "portsentry", set]);
        assert!(!listed.contains("expires"), "{listed}");
    }
    // The same packets, intact.
    for (kind, six) in
        [("-sS", false), ("-sU", false), ("-sY", false), ("-sS", true), ("-sU", true)]
    {
        let (source, _) = scan(&scene, index, six, &[kind, "-p", "1-40"]);
        assert!(is_noticed(&daemon, &source, LONG), "{kind} {source}: {}", daemon.log());
        index += 1;
    }
}

#[test]
fn datagrams_in_frames_for_all_hosts_are_evidence() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    for target in [HOST, HOST6] {
        let all = ["neigh", "replace", target, "lladdr", "ff:ff:ff:ff:ff:ff", "dev", DEVICE];
        scene.scanner.run("ip", &[&all[..], &["nud", "permanent"]].concat());
    }
    for (index, six) in [(0, false), (1, true)] {
        let (source, _) = scan(&scene, index, six, &["--send-ip", "-sU", "-p", "1-40"]);
        assert!(is_noticed(&daemon, &source, LONG), "{source}: {}", daemon.log());
        // No stack receives a segment in such a frame.
        let (source, _) = scan(&scene, index + 2, six, &["--send-ip", "-sS", "-p", "1-40"]);
        assert!(!is_noticed(&daemon, &source, SHORT), "{source}: {}", daemon.log());
    }
}
