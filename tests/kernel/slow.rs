//! At the defaults: whose address is forged loses a second, who scans is proven and blocked.

use crate::support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use support::TRAFFIC;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::{Namespace, Running};
use support::scene::{DEVICE, Scene};
use support::{duration, eventually, is_long, missing};

pub(crate) const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];
pub(crate) const HOST: &str = "10.69.1.1";
pub(crate) const HONEST: &str = "10.69.1.3";
/// A second for the retransmission of a SYN (RFC 6298), and what a loaded machine adds.
pub(crate) const SLOWED: f64 = 1.9;
/// Services that a scan may learn between trigger and proof: those among the first eight ports that a
/// connect() scan tries.
pub(crate) const LEARNED: u32 = 2;
/// What a byte on an established connection may take on a loaded machine.
pub(crate) const STALLED: f64 = 0.5;

/// The protected host, and in another namespace the scanner (.2), honest hosts (.3 to .9) in whose
/// names it sends.
pub(crate) fn scene() -> Scene {
    let others: Vec<String> = (2..10).map(|n| format!("10.69.1.{n}/24")).collect();
    let mut others: Vec<&str> = others.iter().map(String::as_str).collect();
    others.push("fd69:77::2/64");
    Scene::new(&["10.69.1.1/24", "fd69:1::1/64"], &others)
        .with_prefixes(&["fd69:77::/64"])
        .with_route_to("fd69:1::/64")
}

/// Starts a service that gives back what it gets.
pub(crate) fn serve(host: &Namespace, address: &str, ports: &[&str]) -> Running {
    let words = [&["-u", TRAFFIC, "echo", address, address], ports].concat();
    let mut running = host.spawn("python3", &words);
    let mut line = String::new();
    BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    running
}

/// A container behind the host, whose port 80 is published as 8080.
pub(crate) fn publish(scene: &Scene) -> Namespace {
    let container = Namespace::new();
    scene.host.join(&container, "inner0", &["10.71.1.1/24"], &["10.71.1.2/24"]);
    container.run("ip", &["route", "add", "default", "via", "10.71.1.1"]);
    scene.host.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
    scene.host.run("nft", &["table ip publish { chain c { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.71.1.2:80; }; }"]);
    container
}

/// What an honest host experiences: failed exchanges, the longest new connection and the longest
/// round trip on an established one, seconds.
pub(crate) struct Experience {
    pub(crate) failed: u32,
    pub(crate) slowest: f64,
    pub(crate) stalled: f64,
}

/// An honest host uses a service for some seconds, while `meanwhile` goes on.
pub(crate) fn honest(
    from: &Namespace,
    address: &str,
    (to, port): (&str, &str),
    seconds: u32,
    meanwhile: impl FnOnce(),
) -> Experience {
    let output = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let limit = Duration::from_secs(u64::from(seconds) + 60);
            let seconds = seconds.to_string();
            let words = [TRAFFIC, "clients", address, to, port, "1", &seconds];
            support::done(&from.output("python3", &words, limit))
        });
        std::thread::sleep(Duration::from_millis(500));
        meanwhile();
        client.join().unwrap()
    });
    let words: Vec<&str> = output.split_whitespace().collect();
    let experience = Experience {
        failed: words[0].parse().unwrap(),
        slowest: words[1].parse().unwrap(),
        stalled: words[2].parse().unwrap(),
    };
    println!(
        "{address} to {to}:{port}: {} failed, the slowest connection {} s, the longest stall {} s",
        experience.failed, experience.slowest, experience.stalled
    );
    experience
}

pub(crate) fn unharmed(experience: &Experience) {
    unharmed_but_for(SLOWED, experience);
}

/// `slowest`: how long a connection may take, seconds.
pub(crate) fn unharmed_but_for(slowest: f64, experience: &Experience) {
    assert_eq!(experience.failed, 0);
    assert!(experience.slowest < slowest, "{}", experience.slowest);
    assert!(experience.stalled < STALLED, "{}", experience.stalled);
}

/// SYNs in the name of hosts, without a look at the answers.
pub(crate) fn forge(scene: &Scene, from: &str, ports: [&str; 2], hosts: &str, times: &str) {
    scene.traffic("blind", from, HOST, &[ports[0], ports[1], hosts, times]);
}

pub(crate) fn state_of(daemon: &Daemon<'_>, address: &str) -> Option<(String, bool)> {
    let list = daemon.json(&["list"]);
    let row = list.as_array()?.iter().find(|row| row["address"] == address)?.clone();
    Some((row["state"].as_str()?.to_owned(), row["proven"].as_bool()?))
}

pub(crate) fn wait_for_state(daemon: &Daemon<'_>, address: &str, state: &str, proven: bool) {
    let is_there = || state_of(daemon, address) == Some((state.to_owned(), proven));
    assert!(
        eventually(Duration::from_secs(20), is_there),
        "{address}: {:?}\n{}",
        state_of(daemon, address),
        daemon.log()
    );
}

// P3
#[test]
fn four_forged_syns_cost_an_honest_host_a_second_a_connection() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let seconds = duration(12, 480);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), seconds, || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "slowed", false);
    });
    unharmed(&experience);
    // It was slowed, and what it sends to the service does not keep it so.
    assert!(experience.slowest > 0.7, "{}", experience.slowest);
    let now = state_of(&daemon, HONEST).map(|(state, _)| state);
    assert_eq!(now.as_deref(), (!is_long()).then_some("slowed"));
}

// P3
#[test]
fn a_host_in_whose_name_many_ports_are_probed_waits_a_second() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    // Once each, and three times each: a blind sender's retransmissions go to answered ports too.
    for (host, times) in [(HONEST, "1"), ("10.69.1.4", "3")] {
        let experience = honest(&scene.scanner, host, (HOST, "8000"), 6, || {
            forge(&scene, host, ["30", "70"], "1", times);
            wait_for_state(&daemon, host, "slowed", false);
        });
        unharmed(&experience);
    }
}

// P27
#[test]
fn a_client_that_waits_at_many_closed_ports_connects_by_the_second_retransmission() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    // Fewer than prove it.
    let ports: Vec<String> = (60..75).map(|port: u16| port.to_string()).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    scene.traffic("patient", HONEST, HOST, &[&["1"], &ports[..]].concat());
    wait_for_state(&daemon, HONEST, "slowed", false);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 6, || {});
    assert!(experience.failed == 0 && experience.stalled < STALLED, "{}", experience.stalled);
    let waits = 2.5..2.5 + SLOWED;
    assert!(waits.contains(&experience.slowest), "{}", experience.slowest);
}

// P27
#[test]
fn a_syn_of_zmap_never_passes() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    forge(&scene, "10.69.1.2", ["110", "113"], "1", "1");
    wait_for_state(&daemon, "10.69.1.2", "slowed", false);
    // The SYN comes again after more than a second: of any other id it passes.
    for (id, answers) in [("4711", "1"), ("54321", "0")] {
        assert_eq!(
            scene.traffic("twice", "10.69.1.2", HOST, &["8000", id]).trim(),
            answers,
            "{id}"
        );
    }
}

// P3
#[test]
fn a_forged_server_is_reached_by_the_host_as_ever() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _server = serve(&scene.scanner, HONEST, &["5432"]);
    let seconds = duration(8, 200);
    let experience = honest(&scene.host, HOST, (HONEST, "5432"), seconds, || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "slowed", false);
    });
    unharmed(&experience);
    assert!(experience.slowest < STALLED, "{}", experience.slowest);
}

// P3
#[test]
fn a_decoy_of_nmap_loses_no_connection_and_the_scanner_is_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let seconds = duration(14, 150);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), seconds, || {
        let decoys = format!("{HONEST},10.69.1.4,ME,10.69.1.5");
        // As an administrator would start it, with nmap's own retries, and with some of the ports
        // that it would try.
        let words = [
            "-n",
            "-Pn",
            "-sS",
            "-p",
            "1-250,7000-7750",
            "-e",
            DEVICE,
            "-S",
            "10.69.1.2",
            "-D",
            &decoys,
        ];
        let words = [&words[..], &[HOST]].concat();
        scene.scanner.output("nmap", &words, Duration::from_secs(60));
        wait_for_state(&daemon, "10.69.1.2", "blocked", true);
    });
    // nmap sends each probe in the names of its decoys too, those to answered ports among them.
    unharmed(&experience);
    for decoy in [HONEST, "10.69.1.4", "10.69.1.5"] {
        assert_ne!(state_of(&daemon, decoy).map(|(state, _)| state).as_deref(), Some("blocked"));
    }
}

/// Packets that the rules of a chain counted which contain `what` and end with a verdict.
pub(crate) fn counted(host: &Namespace, chain: &str, what: &str, verdict: &str) -> u32 {
    let rules = host.run("nft", &["list", "chain", "inet", "portsentry", chain]);
    let packets =
        |line: &str| line.split("counter packets ").nth(1)?.split(' ').next()?.parse::<u32>().ok();
    let rules = rules.lines().filter(|line| line.contains(what) && line.ends_with(verdict));
    rules.filter_map(packets).sum::<u32>()
}

// P2, P28
#[test]
fn every_scan_is_proven_within_seconds() {
    if missing(TOOLS).is_some() {
        return;
    }
    // Every twentieth port is a service.
    let services: Vec<String> = (1..=50).map(|n| (n * 20).to_string()).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    println!("50 services among 1,023 ports; after the trigger:");
    println!(
        "{:12}{:6}{:>10}{:>10}{:>12}{:>30}",
        "scan", "IP", "proven s", "answers", "open seen", "by the first retransmission"
    );
    let kinds = ["-sS", "-sT", "-sF", "-sN", "-sX", "-sM", "-sA"].map(|kind| (kind, "-T3"));
    for (kind, timing) in kinds.into_iter().chain([("-sT", "-T4")]) {
        for six in [false, true] {
            let scene = scene();
            let (target, source) =
                if six { ("fd69:1::1", "fd69:77::2") } else { (HOST, "10.69.1.2") };
            let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
            let _service = serve(&scene.host, target, &services);
            let mut words = vec!["-n", "-Pn", kind, timing, "-p1-1023", "--open", target];
            if six {
                words.insert(0, "-6");
            } else if kind != "-sT" {
                words.splice(0..0, ["-e", DEVICE, "-S", "10.69.1.2"]);
            }
            let begun = Instant::now();
            let is_blocked = || state_of(&daemon, source) == Some(("blocked".to_owned(), true));
            // On a machine that stands still for a second, nmap's only retransmission comes when
            // it proves nothing any more: then the scan that follows is proven.
            let is_proven = (0..2).any(|_| {
                let _nmap = scene.scanner.spawn("nmap", &words);
                eventually(Duration::from_secs(20), is_blocked)
            });
            assert!(is_proven, "{kind} {}", daemon.log());
            let proven = begun.elapsed();
            // The connections that a slowed source got, and the closed ports it saw as closed.
            let learned = counted(&scene.host, "slow", "@asked", "return");
            let answers = counted(&scene.host, "slow_answer", "", "reset");
            // The connections that were to wait for their second retransmission.
            let first = learned + counted(&scene.host, "slow", "@recent", "drop");
            println!(
                "{:12}IPv{:<3}{:>10.1}{answers:>10}{learned:>12}{first:>30}",
                format!("{kind} {timing}"),
                if six { 6 } else { 4 },
                proven.as_secs_f64()
            );
            assert!(learned <= LEARNED, "{kind} {timing} learned {learned} services");
        }
    }
}

/// No rule can send an ABORT, and ICMP errors, with which a kernel without SCTP answers, come once a
/// second: the sender of retransmissions could not be told from a blind one. So such a scanner stays
/// slowed, and gets no answer.
// P2, P28
#[test]
fn an_sctp_scan_is_slowed_and_learns_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    println!("{:12}{:6}{:>10}{:>10}", "scan", "IP", "slowed s", "answers");
    for six in [false, true] {
        let scene = scene();
        let (target, source) = if six { ("fd69:1::1", "fd69:77::2") } else { (HOST, "10.69.1.2") };
        let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
        let unreachable = "icmp type destination-unreachable counter";
        let unreachable_six = "icmpv6 type destination-unreachable counter";
        let rules = format!(
            "table inet t {{ chain c {{ type filter hook output priority 500; {unreachable}; {unreachable_six}; meta l4proto sctp counter; }}; }}"
        );
        scene.host.run("nft", &[&rules]);
        let answers = || -> u32 {
            let rules = scene.host.run("nft", &["list", "chain", "inet", "t", "c"]);
            let counters = rules.split("counter packets ").skip(1);
            counters.map(|text| text.split(' ').next().unwrap().parse::<u32>().unwrap()).sum()
        };
        // Without the ports that are not watched at the defaults.
        let mut words = vec!["-n", "-Pn", "-sY", "-p1-112,114-138,140-1023", target];
        if six {
            words.insert(0, "-6");
        } else {
            words.splice(0..0, ["-e", DEVICE, "-S", source]);
        }
        let begun = Instant::now();
        let mut nmap = scene.scanner.spawn("nmap", &words);
        let is_slowed = || state_of(&daemon, source) == Some(("slowed".to_owned(), false));
        assert!(eventually(Duration::from_secs(10), is_slowed), "{}", daemon.log());
        let slowed = begun.elapsed();
        let before = answers();
        assert!(eventually(Duration::from_secs(60), || nmap.0.try_wait().unwrap().is_some()));
        let learned = answers() - before;
        println!(
            "{:12}IPv{:<3}{:>10.1}{learned:>10}   {:.1} s in all",
            "-sY -T3",
            if six { 6 } else { 4 },
            slowed.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        );
        assert_eq!(learned, 0);
        // By its retransmissions, which also keep it slowed.
        assert_eq!(state_of(&daemon, source), Some(("slowed".to_owned(), false)));
        // It can still be proven by other scans.
        assert_eq!(daemon.json(&["show", source])["proof"]["blind"], false);
        let row = daemon.json(&["list"])[0].clone();
        assert!(row["packets"].as_u64() > Some(1500), "{row}");
    }
}

// P3
#[test]
fn blind_retries_prove_nobody() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    // 100 ports each, three times: enough for a proof, if retransmissions alone were one.
    forge(&scene, "10.69.1.20", ["20", "119"], "100", "3");
    assert!(eventually(Duration::from_secs(20), || daemon.json(&["status"])["slowed"] == 100));
    let list = daemon.json(&["list"]);
    // Together they are a campaign, which is only reported.
    let (campaigns, rows): (Vec<_>, Vec<_>) =
        list.as_array().unwrap().iter().partition(|row| row["cause"] == "campaign");
    assert_eq!((rows.len(), campaigns.len()), (100, 1));
    assert!(rows.iter().all(|row| row["state"] == "slowed" && row["proven"] == false), "{list}");
}

// P3
#[test]
fn a_flood_of_forged_sources_harms_no_honest_host_and_hides_no_scanner() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    scene.host.run("ip", &["route", "add", "10.70.0.0/16", "via", "10.69.1.9"]);
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 20, || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        std::thread::scope(|scope| {
            scope.spawn(|| forge(&scene, "10.70.0.0", ["110", "112"], "10000", "1"));
            let words = ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", "10.69.1.2", "-p1-1023,8000"];
            let words = [&words[..], &["--open", HOST]].concat();
            let output = scene.scanner.output("nmap", &words, Duration::from_secs(60));
            let seen = String::from_utf8_lossy(&output.stdout);
            assert!(!seen.contains("8000/tcp open"), "{seen}");
        });
        wait_for_state(&daemon, "10.69.1.2", "blocked", true);
    });
    unharmed(&experience);
    daemon.wait_for_log("Host 10.69.1.2 has been blocked");
}

// P4
#[test]
fn what_services_send_late_is_reported_at_most() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let every = "tcp: { advanced_ports: 1-65535 }\nudp: { advanced_ports: 1-65535, action: block }";
    let daemon = Daemon::start(&scene.host, &format!("{every}\n{AT_DEFAULTS}"));
    for _ in 0..3 {
        scene.traffic("replies", HONEST, HOST, &[]);
        std::thread::sleep(Duration::from_millis(500));
    }
    daemon.wait_for_log("closed connections cause such packets too");
    assert_eq!(state_of(&daemon, HONEST), None, "{}", daemon.log());
}

// P27
#[test]
fn at_trigger_0_no_service_answers_after_the_first_closed_port() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, &format!("scan_trigger: 0 {AT_DEFAULTS}"));
    let ports: Vec<String> = (1..=100).map(|n| (2 * n).to_string()).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let _services = serve(&scene.host, HOST, &ports);
    let answers = scene.traffic("sequence", "10.69.1.2", HOST, &["1", "200", "10000"]);
    println!(
        "200 ports at 10,000/s, every second one open: resets and answers of services {answers}"
    );
    let services: u32 = answers.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(services, 0);
    // In order, so that the first port is a closed one.
    let words =
        ["-n", "-Pn", "-sS", "-T5", "-r", "-e", DEVICE, "-S", "10.69.1.4", "--open", "-p1-200"];
    let output =
        scene.scanner.output("nmap", &[&words[..], &[HOST]].concat(), Duration::from_secs(60));
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(!seen.contains("/tcp open "), "{seen}");
    drop(daemon);
}

#[test]
fn a_slowed_source_is_shown_and_released() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);
    daemon.wait_for_log(&format!(
        "Host {HONEST} was not blocked: slowed until its address is proven"
    ));
    let show = String::from_utf8(daemon.ctl(&["show", HONEST]).stdout).unwrap();
    assert!(show.starts_with(&format!("{HONEST} is slowed.")), "{show}");
    assert_eq!(daemon.json(&["show", HONEST])["block"]["state"], "slowed");
    let unblocked = daemon.ctl(&["unblock", HONEST]);
    assert!(unblocked.status.success());
    let said = String::from_utf8(unblocked.stdout).unwrap();
    assert!(said.contains(&format!("{HONEST} is not slowed any more")), "{said}");
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 3, || {});
    unharmed(&experience);
    assert!(experience.slowest < STALLED);
    assert_eq!(state_of(&daemon, HONEST), None);
}

// P3
#[test]
fn a_published_port_is_slowed_as_a_local_one() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let container = publish(&scene);
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&container, "10.71.1.2", &["80"]);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8080"), 6, || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "slowed", false);
    });
    unharmed(&experience);
    assert!(experience.slowest > 0.7, "{}", experience.slowest);
}

// P14
#[test]
fn after_a_flush_slowed_sources_are_slowed_as_before() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["8000"]);
    // More than are restored at a time.
    scene.host.run("ip", &["route", "add", "10.70.0.0/16", "via", "10.69.1.9"]);
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    forge(&scene, "10.70.0.1", ["110", "112"], "700", "1");
    let listed = || -> BTreeSet<String> { daemon.blocked().into_iter().collect() };
    assert!(eventually(Duration::from_secs(20), || listed().len() == 701), "{}", listed().len());
    let held = || -> BTreeSet<String> {
        let words = ["-j", "list", "set", "inet", "portsentry", "held4"];
        let output = scene.host.output("nft", &words, Duration::from_secs(5));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let sets: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let elements = &sets["nftables"][1]["set"]["elem"];
        let elements = elements.as_array().cloned().unwrap_or_default();
        let addresses = elements.into_iter().map(|element| {
            assert!(element["elem"]["expires"].as_u64().unwrap() <= 60, "{element}");
            element["elem"]["val"].as_str().unwrap().to_owned()
        });
        addresses.collect()
    };
    assert_eq!(held(), listed());
    let blocked = ["block", "192.0.2.7"];
    assert!(daemon.ctl(&blocked).status.success());
    scene.host.run("nft", &["flush", "ruleset"]);
    // Without a probe of theirs.
    assert!(eventually(Duration::from_secs(10), || held().len() == 701), "{}", daemon.log());
    let slowed: BTreeSet<String> =
        listed().into_iter().filter(|address| address != blocked[1]).collect();
    assert_eq!(held(), slowed);
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), 3, || {});
    unharmed(&experience);
    assert!(experience.slowest > 0.7, "{}", experience.slowest);
}

/// The scanner has a whole prefix, and an address for each of its connections.
const ROTATING: &str = "fd69:88::";

fn with_rotating_prefix(scene: Scene) -> Scene {
    scene.host.run("ip", &["-6", "route", "add", "fd69:88::/64", "via", "fd69:77::2"]);
    scene.scanner.run("ip", &["-6", "route", "add", "local", "fd69:88::/64", "dev", "lo"]);
    // Until the neighbours are resolved, packets queue, and then come all at once.
    assert!(scene.scanner.pings(&["fd69:1::1"]));
    scene
}

// P3
#[test]
fn a_forged_ipv6_address_leaves_its_neighbours_alone() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, "fd69:1::1", &["8000"]);
    let experience = honest(&scene.scanner, "fd69:77::2", ("fd69:1::1", "8000"), 8, || {
        scene.traffic("blind_six", "fd69:77::bad", "fd69:1::1", &["1", "1023"]);
        wait_for_state(&daemon, "fd69:77::bad", "slowed", false);
    });
    unharmed(&experience);
    assert!(experience.slowest < STALLED, "{}", experience.slowest);
    assert_eq!(daemon.blocked(), ["fd69:77::bad"]);
    let show = String::from_utf8(daemon.ctl(&["show", "fd69:77::2"]).stderr).unwrap();
    assert!(show.contains("nothing is known of fd69:77::2"), "{show}");
}

// P3
#[test]
fn three_hosts_of_a_prefix_with_a_wrong_port_each_are_slowed_at_most() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, "fd69:1::1", &["8000"]);
    let experience = honest(&scene.scanner, "fd69:77::2", ("fd69:1::1", "8000"), 12, || {
        for (host, port) in [("3", "110"), ("4", "111"), ("5", "135")] {
            scene.traffic("blind_six", &format!("fd69:77::{host}"), "fd69:1::1", &[port, port]);
        }
        wait_for_state(&daemon, "fd69:77::/64", "slowed", false);
        // A neighbour whose name is forged keeps nothing slowed but itself.
        scene.traffic("blind_six", "fd69:77::bad", "fd69:1::1", &["1", "1023"]);
        wait_for_state(&daemon, "fd69:77::bad", "slowed", false);
    });
    unharmed(&experience);
    let mut listed = daemon.blocked();
    listed.sort();
    assert_eq!(listed, ["fd69:77::/64", "fd69:77::bad"]);
    assert_eq!(daemon.json(&["show", "fd69:77::2"])["block"]["address"], "fd69:77::/64");
    let unblocked = daemon.ctl(&["unblock", "fd69:77::/64"]);
    assert!(unblocked.status.success());
    let experience = honest(&scene.scanner, "fd69:77::2", ("fd69:1::1", "8000"), 3, || {});
    unharmed(&experience);
    assert!(experience.slowest < STALLED, "{}", experience.slowest);
}

// P2, P23
#[test]
fn a_scanner_with_an_address_for_each_port_learns_little_and_is_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = with_rotating_prefix(scene());
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let ports: Vec<String> = (1..=30).map(|n| (20 * n).to_string()).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let _services = serve(&scene.host, "fd69:1::1", &ports);
    let taken = scene.traffic("rotate_six", ROTATING, "fd69:1::1", &["1", "600", "200", "8"]);
    println!("30 services, 600 ports at 200/s, an address each: {} found", taken.trim());
    wait_for_state(&daemon, "fd69:88::/64", "blocked", true);
    // A scanner with one address gets eight or nine before the proof.
    assert!(taken.trim().parse::<u32>().unwrap() <= 9, "{taken}");
}

#[test]
fn with_action_block_the_prefix_of_a_scanner_is_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = with_rotating_prefix(scene());
    for neighbour in ["fd69:88::ffff", "fd69:88::fffe"] {
        scene.scanner.run("ip", &["-6", "addr", "add", neighbour, "dev", "lo"]);
    }
    let ping = |from: &str| scene.scanner.pings(&["-I", from, "fd69:1::1"]);
    assert!(ping("fd69:88::ffff") && ping("fd69:88::fffe"));
    let daemon = Daemon::start(&scene.host, "");
    let _services = serve(&scene.host, "fd69:1::1", &["100", "200", "300", "400", "500", "600"]);
    let taken = scene.traffic("rotate_six", ROTATING, "fd69:1::1", &["1", "600", "200", "2"]);
    daemon.wait_for_block("fd69:88::/64");
    assert!(taken.trim().parse::<u32>().unwrap() <= 1, "{taken}");
    assert_eq!(daemon.blocked(), ["fd69:88::/64"]);
    let block = |address: &str| daemon.json(&["show", address])["block"]["address"].clone();
    assert_eq!(block("fd69:88::ffff"), "fd69:88::/64");
    assert!(!ping("fd69:88::ffff"));
    assert!(daemon.ctl(&["unblock", "fd69:88::ffff"]).status.success());
    assert!(ping("fd69:88::ffff") && !ping("fd69:88::fffe"));
    assert_eq!(block("fd69:88::fffe"), "fd69:88::/64");
}
