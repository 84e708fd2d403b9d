//! PortSentry 1.2 as Debian packages it, and ours, side by side: the same attacks by nmap and real
//! connections in the same network, in each of the six modes. Ours detects all that the old program
//! detects; the list below has what only ours detects.
//!
//! Each program has its own host for each mode, with the same classic configuration: the old
//! program reads it, ours imports it and is started in the same mode. Each attack comes from its
//! own address. with the same mode word. Each attack comes from an address of its own.

use crate::support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::predecessor::{Machine, Package, classic_configuration};
use support::scene::{DEVICE, Scene};
use support::{TRAFFIC, eventually, in_parallel, missing, schedule};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3", "unshare"];
const HOST: &str = "10.68.0.1";
const HOST6: &str = "fd68:1::1";

/// Debian's lists, without the ports above 1023 that no attack here touches; port 1000 is in
/// neither.
const TCP_PORTS: &str = "1,11,15,79,111,119,143,540,635";
const UDP_PORTS: &str = "1,7,9,69,161,162,513,635,640,641";
/// Scanned ports: the listed ones, and one that only the advanced modes watch.
const TCP_SCANNED: &str = "1,11,15,79,111,119,143,540,635,1000";
const UDP_SCANNED: &str = "1,7,9,69,161,162,513,635,640,641,1000";

/// How an attack is made.
#[derive(Clone, Copy)]
enum By {
    /// nmap with these options; `true`: over IPv6.
    Nmap(&'static [&'static str], bool),
    /// A load of traffic.py with these ports.
    Traffic(&'static str, &'static [&'static str]),
}

struct Attack {
    name: &'static str,
    by: By,
}

const fn nmap(name: &'static str, options: &'static [&'static str]) -> Attack {
    Attack { name, by: By::Nmap(options, false) }
}

const TCP_ATTACKS: &[Attack] = &[
    nmap("nmap -sT", &["-sT", "-p", TCP_SCANNED]),
    nmap("nmap -sS", &["-sS", "-p", TCP_SCANNED]),
    nmap("nmap -sF", &["-sF", "-p", TCP_SCANNED]),
    nmap("nmap -sN", &["-sN", "-p", TCP_SCANNED]),
    nmap("nmap -sX", &["-sX", "-p", TCP_SCANNED]),
    nmap("nmap -sM", &["-sM", "-p", TCP_SCANNED]),
    nmap("nmap -sA", &["-sA", "-p", TCP_SCANNED]),
    nmap("nmap -sW", &["-sW", "-p", TCP_SCANNED]),
    nmap("nmap -sS -f (fragments)", &["-sS", "-f", "-p", TCP_SCANNED]),
    Attack { name: "nmap -6 -sS", by: By::Nmap(&["-6", "-sS", "-p", TCP_SCANNED], true) },
    nmap("one SYN", &["-sS", "-p", "79"]),
    nmap("one FIN", &["-sF", "-p", "79"]),
    Attack { name: "one real connection", by: By::Traffic("knock", &["143"]) },
    Attack {
        name: "ACK and RST noise",
        by: By::Traffic("noise", &["1", "11", "15", "79", "111", "119", "143", "540", "635"]),
    },
    nmap("nmap -sU", &["-sU", "-p", UDP_SCANNED]),
];

const UDP_ATTACKS: &[Attack] = &[
    nmap("nmap -sU", &["-sU", "-p", UDP_SCANNED]),
    nmap("nmap -sU -f (fragments)", &["-sU", "-f", "--data-length", "40", "-p", UDP_SCANNED]),
    Attack { name: "nmap -6 -sU", by: By::Nmap(&["-6", "-sU", "-p", UDP_SCANNED], true) },
    Attack { name: "one real datagram", by: By::Traffic("datagrams", &["161"]) },
    nmap("nmap -sS", &["-sS", "-p", TCP_SCANNED]),
];

fn attacks(mode: &str) -> &'static [Attack] {
    if mode.ends_with("tcp") { TCP_ATTACKS } else { UDP_ATTACKS }
}

const MODES: [&str; 6] = ["tcp", "stcp", "atcp", "udp", "sudp", "audp"];

/// Detections of ours only, by mode and attack, and why they are right. There must be no others.
const ONLY_OURS: &[(&[&str], &[&str], &str)] = &[
    (
        &["stcp", "atcp"],
        &["nmap -sM", "nmap -sA", "nmap -sW"],
        "packets with ACK are passed over by 1.2; here six ports of them are a scan",
    ),
    (&["stcp", "atcp", "sudp", "audp"], &["nmap -6 -sS", "nmap -6 -sU"], "1.2 knows IPv4 only"),
    (
        &["tcp"],
        &[
            "nmap -sS",
            "nmap -sF",
            "nmap -sN",
            "nmap -sX",
            "nmap -sM",
            "nmap -sA",
            "nmap -sW",
            "nmap -sS -f (fragments)",
            "nmap -6 -sS",
            "one SYN",
            "one FIN",
        ],
        "1.2 sees in this mode only what accept(2) gives; here the listed ports stay watched for whatever comes to no handshake",
    ),
    (&["udp"], &["nmap -6 -sU"], "1.2 knows IPv4 only"),
];

/// What ours reports without a block, and why.
const TOLD_ONLY: &[(&[&str], &str, &str)] = &[(
    &["tcp", "stcp", "atcp"],
    "one FIN",
    "any closed connection may send one late: 1.2 blocks for it whoever was a client a minute ago; here six ports of such packets are a scan",
)];

/// Attacks with another name than in 1.2, by mode: its name, ours, and why.
const OTHER_NAMES: &[(&str, &str, &str, &str)] = &[
    (
        "udp",
        "Connect",
        "UDP scan",
        "a datagram makes no connection; the line is that of the other UDP modes",
    ),
    (
        "tcp",
        "Connect",
        "TCP SYN/Normal scan",
        "ours judges with the third SYN, which may come before the end of the first handshake",
    ),
];

/// A program's reaction to an attack.
#[derive(Clone, PartialEq, Debug)]
struct Finding {
    /// The type in its log line, as 1.2 writes it.
    kind: String,
    blocked: bool,
}

type Cell = Option<Finding>;

fn cell(cell: &Cell) -> String {
    cell.as_ref().map_or_else(
        || "-".to_owned(),
        |finding| {
            format!(
                "{}, {}",
                finding.kind.trim(),
                if finding.blocked { "blocked" } else { "NOT blocked" }
            )
        },
    )
}

fn address(index: usize, six: bool) -> String {
    if six { format!("fd68:{:x}::2", 0x100 + index) } else { format!("10.68.1.{}", 10 + index) }
}

fn scene() -> Scene {
    let scene = Scene::new(&["10.68.0.1/16", "fd68:1::1/64"], &["10.68.0.9/16", "fd68:1::2/64"])
        .with_prefixes(&["fd68::/16"]);
    let lines = |index| {
        format!(
            "addr add {}/16 dev {DEVICE}\naddr add {}/128 dev {DEVICE} nodad\n",
            address(index, false),
            address(index, true)
        )
    };
    scene.scanner.ip_batch(&(0..TCP_ATTACKS.len()).map(lines).collect::<String>());
    scene
}

fn make(scene: &Scene, index: usize, attack: &Attack, route: &Mutex<()>) {
    match attack.by {
        By::Nmap(options, six) => {
            let (source, target) = (address(index, six), if six { HOST6 } else { HOST });
            let words = [options, &[target]].concat();
            if options.contains(&"-sT") {
                // The kernel sends a connect scan, and chooses its source by the route; there is
                // one route.
                let _guard = route.lock().unwrap();
                scene
                    .scanner
                    .run("ip", &["route", "replace", target, "dev", DEVICE, "src", &source]);
                scene.nmap(&words);
            } else {
                scene.scan_from(&source, &words);
            }
        }
        By::Traffic(load, ports) => {
            scene.traffic(load, &address(index, false), HOST, ports);
        }
    }
}

/// The type in the first line about this source.
fn reported(machine: &Machine<'_>, source: &str) -> Option<String> {
    let from = format!(" from host: {source}/{source} to ");
    machine.log().iter().filter(|line| !line.contains("IP options")).find_map(|line| {
        let (before, _) = line.split_once(&from)?;
        Some(before.split_once("attackalert: ")?.1.to_owned())
    })
}

/// Runs all attacks of a mode against a host that runs one of the programs.
fn run(scene: &Scene, machine: &Machine<'_>, mode: &str, ours: bool) -> Vec<Cell> {
    let route = Mutex::new(());
    in_parallel(5, attacks(mode), |index, attack| {
        make(scene, index, attack, &route);
        let six = matches!(attack.by, By::Nmap(_, true));
        let source = address(index, six);
        let mut kind = None;
        // Ours reports half-open connections in connect mode when the handshake can no
        // longer be completed.
        let wait = if ours && mode == "tcp" { 6000 } else { 800 };
        eventually(Duration::from_millis(wait), || {
            kind = reported(machine, &source);
            kind.is_some()
        });
        let kind = kind?;
        let blocked = eventually(Duration::from_secs(20), || {
            let blocked = if ours { machine.blocked_by_ours() } else { machine.blocked_by_old() };
            blocked.contains(&source)
        });
        Some(Finding { kind, blocked })
    })
}

/// The old program's detections in a mode, or why it cannot run.
fn old(package: &Package, mode: &str) -> Result<Vec<Cell>, String> {
    let scene = scene();
    let machine = Machine::new(&scene.host);
    machine.classic_files(&classic_configuration(TCP_PORTS, UDP_PORTS), "127.0.0.1/32\n");
    machine.start_old(package, mode)?;
    Ok(run(&scene, &machine, mode, false))
}

/// Our detections, with the imported files.
fn ours(mode: &str) -> Vec<Cell> {
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    machine.classic_files(&classic_configuration(TCP_PORTS, UDP_PORTS), "127.0.0.1/32\n");
    machine.import_blocking();
    machine.start_ours(&[&format!("-{mode}")]);
    run(&scene, &machine, mode, true)
}

// P28, D16
#[test]
fn ours_detects_all_that_the_old_program_detects() {
    if missing(TOOLS).is_some() {
        return;
    }
    let Some(package) = Package::or_skip() else { return };
    // Counts of answers would show the load of other tests.
    schedule::alone();
    let begun = Instant::now();
    let mut wrong = Vec::new();
    println!("{:6} {:26} {:36} ours", "mode", "attack", "1.2");
    for mode in MODES {
        let (old, ours) = std::thread::scope(|scope| {
            let old = scope.spawn(|| old(&package, mode));
            let ours = scope.spawn(|| ours(mode));
            (old.join().unwrap(), ours.join().unwrap())
        });
        let old = old.unwrap_or_else(|reason| {
            println!("-{mode:5} 1.2 does not run: {reason}");
            wrong.push(format!("-{mode}: 1.2 does not run"));
            vec![None; attacks(mode).len()]
        });
        for ((attack, old), ours) in attacks(mode).iter().zip(&old).zip(&ours) {
            let known = |modes: &[&str]| modes.contains(&mode);
            let only_ours = ONLY_OURS
                .iter()
                .any(|(modes, names, _)| known(modes) && names.contains(&attack.name));
            let named = |old: &Finding, ours: &Finding| {
                old.kind == ours.kind
                    || OTHER_NAMES.iter().any(|(of, theirs, name, _)| {
                        *of == mode && *theirs == old.kind && *name == ours.kind
                    })
            };
            let told_only =
                TOLD_ONLY.iter().any(|(modes, name, _)| known(modes) && *name == attack.name);
            let fault = match (old, ours) {
                (Some(_), None) => Some("ours does not detect it"),
                (Some(_), Some(_)) if only_ours => {
                    Some("both detect it, and the list says otherwise")
                }
                (Some(old), Some(ours)) if !named(old, ours) => Some("ours gives it another name"),
                (Some(old), Some(ours)) if old.blocked && ours.blocked == told_only => {
                    Some("ours blocks it or not, and the list says otherwise")
                }
                (None, Some(_)) if !only_ours => {
                    Some("only ours detects it, and nobody expected that")
                }
                (None, Some(ours)) if ours.blocked == told_only => {
                    Some("ours blocks it or not, and the list says otherwise")
                }
                (None, None) if only_ours || told_only => {
                    Some("neither detects it, and the list says otherwise")
                }
                _ => None,
            };
            let mark = fault.map(|fault| format!("  <- {fault}")).unwrap_or_default();
            println!("-{mode:5} {:26} {:36} {}{mark}", attack.name, cell(old), cell(ours));
            if !mark.is_empty() {
                wrong.push(format!(
                    "-{mode} {}: 1.2 {}, ours {}{mark}",
                    attack.name,
                    cell(old),
                    cell(ours)
                ));
            }
        }
    }
    for (modes, names, why) in ONLY_OURS {
        println!("only ours, -{}: {}: {why}", modes.join(" -"), names.join(", "));
    }
    for (modes, name, why) in TOLD_ONLY {
        println!("told only, -{}: {name}: {why}", modes.join(" -"));
    }
    for (mode, theirs, name, why) in OTHER_NAMES {
        println!("other name, -{mode}: {theirs} is {name}: {why}");
    }
    println!("in {:.0} s", begun.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Answers that a scanner of 1024 ports at 10,000 packets a second gets before the block holds; one
/// number for each run, sorted.
fn answered(mode: &str, more: Option<&str>, package: &Package) -> Vec<u32> {
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    machine.classic_files(&classic_configuration(TCP_PORTS, UDP_PORTS), "127.0.0.1/32\n");
    match more {
        None => machine.start_old(package, mode).unwrap(),
        Some(more) => {
            machine.import_blocking();
            let yaml = machine.text("/etc/portsentry/portsentry.yaml");
            machine.write("/etc/portsentry/portsentry.yaml", &format!("{yaml}\n{more}\n"));
            machine.start_ours(&[&format!("-{mode}")]);
        }
    }
    let mut answered: Vec<u32> = (0..5)
        .map(|index| {
            let source = address(index, false);
            let printed = scene
                .scanner
                .run("python3", &[TRAFFIC, "sequence", &source, HOST, "0", "1023", "10000"]);
            let is_blocked = || {
                if more.is_some() { machine.blocked_by_ours() } else { machine.blocked_by_old() }
                    .contains(&source)
            };
            assert!(eventually(Duration::from_secs(20), is_blocked), "-{mode} does not block");
            printed.split_whitespace().next().unwrap().parse::<u32>().unwrap()
        })
        .collect();
    answered.sort_unstable();
    answered
}

#[test]
fn the_answers_that_a_fast_scanner_gets_before_the_block_are_counted_side_by_side() {
    if missing(TOOLS).is_some() {
        return;
    }
    let Some(package) = Package::or_skip() else { return };
    // Counts of answers would show the load of other tests.
    schedule::alone();
    println!(
        "a SYN to each of the ports 0-1023 at 10,000 packets a second: replies before the block, five runs, sorted"
    );
    let show = |name: &str, counts: &[u32]| {
        println!("{name:42} median {:4}, all {counts:?}", counts[counts.len() / 2])
    };
    for mode in ["stcp", "atcp"] {
        show(&format!("1.2 -{mode}"), &answered(mode, None, &package));
    }
    for mode in ["stcp", "atcp"] {
        for answer in ["answer", "drop"] {
            let counts = answered(mode, Some(&format!("closed_ports: {answer}")), &package);
            show(&format!("ours -{mode}, closed_ports: {answer}"), &counts);
            // The two excluded ports may answer; in stealth mode all unlisted ports, until the
            // block holds.
            assert!(
                answer == "answer" || mode == "stcp" || counts.iter().all(|&count| count <= 2),
                "a watched closed port answered: {counts:?}"
            );
        }
    }
}
