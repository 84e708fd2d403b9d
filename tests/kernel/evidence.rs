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

#[test]
fn flags_that_no_stack_sends_are_evidence_on_any_port() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let open = ["22", "80", "8080", "40000"];
    let _services = [HOST, HOST6].map(|host| crate::slow::serve(&scene.host, host, &open));
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let kinds: [&[&str]; 7] = [
        &["-sN"],
        &["-sX"],
        &["-sS", "--scanflags", "SYNFIN"],
        &["-sS", "--scanflags", "SYNFINACK"],
        &["-sS", "--scanflags", "SYNFINPSHURG"],
        &["-sS", "--scanflags", "FINURG"],
        &["-sS", "--scanflags", "PSH"],
    ];
    let mut index = 0;
    for kind in kinds {
        for (ports, six) in [("22,80,8080", false), ("22,80,40000", true), ("5000-5004", false)] {
            let (source, _) = scan(&scene, index, six, &[kind, &["-p", ports]].concat());
            assert!(is_noticed(&daemon, &source, LONG), "{kind:?} {ports}: {}", daemon.log());
            index += 1;
        }
    }
    // A stack may send such a SYN, or such a FIN.
    for flags in ["SYNPSH", "SYNURG", "FIN"] {
        let words = ["-sS", "--scanflags", flags, "-p", "22,80,8080,40000"];
        let (source, _) = scan(&scene, index, false, &words);
        assert!(!is_noticed(&daemon, &source, SHORT), "{flags}: {}", daemon.log());
        index += 1;
    }
    for six in [false, true] {
        let (source, output) = scan(&scene, index, six, &["-O", "-p", "22,21"]);
        assert!(is_noticed(&daemon, &source, LONG), "{output}\n{}", daemon.log());
        index += 1;
    }
}

/// What nmap says of each port.
fn states(output: &str) -> Vec<(String, String)> {
    let lines = output.lines().filter_map(|line| line.split_once("/tcp"));
    lines
        .map(|(port, rest)| {
            let state = rest.split_whitespace().next().unwrap_or_default();
            (port.to_owned(), state.to_owned())
        })
        .collect()
}

#[test]
fn ports_that_listen_and_closed_ones_answer_an_ack_alike() {
    if missing(TOOLS).is_some() {
        return;
    }
    let open = ["22", "80", "443"];
    let blocking = "block: { unproven: { action: block } }";
    let answering = format!("{AT_DEFAULTS}\nclosed_ports: answer");
    for yaml in [AT_DEFAULTS, blocking, &answering] {
        let scene = scene();
        let _services = [HOST, HOST6].map(|host| crate::slow::serve(&scene.host, host, &open));
        let daemon = Daemon::start(&scene.host, yaml);
        for (index, kind) in ["-sA", "-sW", "-sM"].into_iter().enumerate() {
            for six in [false, true] {
                let index = 2 * index + usize::from(six);
                // Before the source is slowed, and after it.
                for ports in ["20-23", "79-100", "440-445"] {
                    let (source, output) =
                        scan(&scene, index, six, &[kind, "-v", "-r", "-p", ports]);
                    if ports == "20-23" {
                        assert!(!is_noticed(&daemon, &source, SHORT), "{kind}: {}", daemon.log());
                    } else {
                        assert!(is_noticed(&daemon, &source, LONG), "{kind}: {}", daemon.log());
                    }
                    let states = states(&output);
                    let first = states.first().map(|(_, state)| state.clone());
                    assert!(
                        states.iter().all(|(_, state)| Some(state) == first.as_ref()),
                        "{yaml}: {kind} {source}: {output}"
                    );
                }
            }
        }
    }
}
