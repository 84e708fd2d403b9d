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
                // Before the source is slowed, and when its block is not proven.
                for ports in ["20-23", "79-100", "440-445"] {
                    let words = [kind, "-v", "-r", "-p", ports];
                    let (source, output) = scan(&scene, index, six, &words);
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
                    // A slowed source is about to be proven: half of the closed ports are silent.
                    if yaml != blocking {
                        break;
                    }
                }
            }
        }
    }
}

const EVERY_PORT: &str =
    "tcp: { advanced_ports: 1-65535, exclude: [] }\nudp: { advanced_ports: 1-65535, exclude: [] }";

#[test]
fn late_segments_to_many_ephemeral_ports_are_a_scan_that_learns_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let open = ["40050", "50000"];
    let _services = [HOST, HOST6].map(|host| crate::slow::serve(&scene.host, host, &open));
    let daemon = Daemon::start(&scene.host, &format!("{AT_DEFAULTS}\n{EVERY_PORT}"));
    let mut index = 0;
    for kind in ["-sF", "-sA", "-sM"] {
        for six in [false, true] {
            // As many as a client's connections that this host forgot.
            let few = [kind, "-p", "40000-40019", "--max-retries", "2"];
            let (source, _) = scan(&scene, index, six, &few);
            assert!(!is_noticed(&daemon, &source, SHORT), "{kind}: {}", daemon.log());
            let many = [kind, "-v", "-p", "40000-40200,49990-50010", "--min-rate", "500"];
            let (source, output) = scan(&scene, index, six, &many);
            assert!(is_noticed(&daemon, &source, LONG), "{kind}: {}", daemon.log());
            // nmap sums up the states of many ports in a line.
            let found = states(&output).iter().any(|(port, _)| open.contains(&port.as_str()));
            assert!(!found, "{kind}: {output}");
            index += 1;
        }
    }
    assert_eq!(daemon.blocked(), Vec::<String>::new(), "reported, and not slowed");
}

#[test]
fn datagrams_that_look_late_are_a_scan_if_they_come_to_many_ports() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &format!("{AT_DEFAULTS}\n{EVERY_PORT}"));
    let mut index = 0;
    let scans: [(&[&str], &str, &str); 4] = [
        (&["-g", "53"], "2000-2019", "2000-2100"),
        (&["-g", "123"], "40000-40019", "40000-40100"),
        (&[], "33434-33453", "33434-33534"),
        (&[], "44444-44463", "44444-44507"),
    ];
    for (words, few, many) in scans {
        for six in [false, true] {
            let (source, _) = scan(&scene, index, six, &[&["-sU", "-p", few], words].concat());
            assert!(!is_noticed(&daemon, &source, SHORT), "{few}: {}", daemon.log());
            index += 1;
            let (source, _) = scan(&scene, index, six, &[&["-sU", "-p", many], words].concat());
            assert!(is_noticed(&daemon, &source, LONG), "{many}: {}", daemon.log());
            index += 1;
        }
    }
    assert_eq!(daemon.blocked(), Vec::<String>::new());
}

#[test]
fn a_source_that_is_refused_on_many_unwatched_ports_is_reported_or_slowed() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (action, slowed) in [("", false), ("unwatched: slow", true)] {
        let scene = scene();
        let open: Vec<String> = (2000..2100).map(|port: u16| port.to_string()).collect();
        let words: Vec<&str> = open.iter().map(String::as_str).collect();
        let _services = [HOST, HOST6].map(|host| crate::slow::serve(&scene.host, host, &words));
        let daemon = Daemon::start(&scene.host, &format!("{AT_DEFAULTS}\n{action}"));
        let mut index = 0;
        for (kind, six) in [("-sS", false), ("-sS", true), ("-sU", false), ("-sU", true)] {
            // Ports with a service count for nothing, and few others are a client's.
            let ports = if kind == "-sS" { "2000-2100,3000-3018" } else { "3000-3018" };
            let (source, _) = scan(&scene, index, six, &[kind, "-p", ports]);
            assert!(!is_noticed(&daemon, &source, SHORT), "{kind}: {}", daemon.log());
            index += 1;
            // Slow enough for the daemon of a busy machine: no rule holds such a source.
            let words = [kind, "-r", "--max-rate", "200", "-p", "1024-1200,2000-2100,3000-3100"];
            let (source, output) = scan(&scene, index, six, &words);
            assert!(is_noticed(&daemon, &source, LONG), "{kind}: {}", daemon.log());
            let is_slowed = eventually(SHORT, || daemon.blocked().contains(&source));
            assert_eq!(is_slowed, slowed, "{kind}: {}", daemon.log());
            if kind == "-sS" {
                assert_eq!(output.matches("/tcp").count() > 50, !slowed, "{output}");
            }
            index += 1;
        }
    }
}
