//! The reflex over the real kernel: the rules hold a scanner from the packet that exceeds the
//! trigger, whatever the daemon does.

use crate::support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portsentry::nft::{Connection, Element};
use portsentry::ruleset::{SCHEMA, SetId};
use support::daemon::Daemon;
use support::flood::{Answers, Load, Scan, Sent, Wire};
use support::{eventually, missing, schedule};

/// Runs of each scan in the promise's tests; `PORTSENTRY_REFLEX_RUNS=50` for the full measure.
fn runs() -> usize {
    std::env::var("PORTSENTRY_REFLEX_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

const HOST: &str = "10.77.1.1";
const SCANNER: &str = "10.77.1.2";
const HOST6: &str = "fd77:1::1";
/// In a prefix that is not the host's own.
const SCANNER6: &str = "fd78:1::2";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping"];
/// Time to wait for further packets in each run: long for a veth pair.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every second port of a thousand is open: the worst case, in which half of the probes before the
/// hold learn something.
fn is_closed(port: u16) -> bool {
    port % 2 == 1
}

/// The ports 1 to 1000 in an order that the seed gives.
fn shuffled(seed: u64) -> Vec<u16> {
    let mut ports: Vec<u16> = (1..=1000).collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for at in (1..ports.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ports.swap(at, (state % (at as u64 + 1)) as usize);
    }
    ports
}

/// A host with 500 services, and a scanner beside it.
struct Scene {
    hosts: support::scene::Scene,
    _services: Vec<TcpListener>,
}

impl Deref for Scene {
    type Target = support::scene::Scene;

    fn deref(&self) -> &Self::Target {
        &self.hosts
    }
}

impl Scene {
    fn new() -> Self {
        let scanner = ["10.77.1.2/24", "fd77:1::2/64", "fd78:1::2/64"];
        let hosts = support::scene::Scene::new(&["10.77.1.1/24", "fd77:1::1/64"], &scanner)
            .with_prefixes(&["fd78:1::/64"]);
        let host = &hosts.host;
        // Answers to forged sources are dropped without resolving each.
        host.run("ip", &["route", "add", "blackhole", "default"]);
        host.run("ip", &["-6", "route", "add", "blackhole", "default"]);
        for namespace in [host, &hosts.scanner] {
            namespace.run(
                "sysctl",
                &["-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.scan0.rp_filter=0"],
            );
        }
        let services = host.enter(|| {
            (1..=1000)
                .filter(|port| !is_closed(*port))
                .map(|port| TcpListener::bind(SocketAddr::new(address("::"), port)).unwrap())
                .collect()
        });
        Self { hosts, _services: services }
    }

    /// Another address of the scanner, for another run.
    fn scanner_at(&self, last: usize) -> IpAddr {
        let source = Ipv4Addr::new(10, 77, 1, u8::try_from(last).unwrap());
        self.scanner.run("ip", &["addr", "add", &format!("{source}/24"), "dev", "scan0"]);
        source.into()
    }

    fn wire(&self) -> Wire<'_> {
        Wire::between(&self.scanner, &self.host, "scan0")
    }

    fn scan(&self, source: IpAddr, ports: Vec<u16>, rate: u64) -> Answers {
        let target = if source.is_ipv4() { address(HOST) } else { address(HOST6) };
        self.wire().scan(&Scan::new(source, target, ports, rate))
    }

    /// The same ports repeatedly, from one source.
    fn repeat(&self, source: IpAddr, ports: &[u16], packets: u64, rate: u64) -> Sent {
        let mut load = Load::spoofed(address(HOST), ports.iter().copied(), rate, ANSWER_TIMEOUT);
        (load.sources, load.packets) = (source.into(), packets);
        self.wire().flood(&load)
    }

    fn keys(&self, set: SetId) -> Vec<String> {
        let found = self.host.enter(|| Connection::open(SCHEMA).unwrap().dump_set(set).unwrap());
        let mut keys: Vec<_> = found.iter().map(|info| info.key.to_string()).collect();
        keys.sort();
        keys
    }
}

/// The configuration of these tests: every port of the thousand is watched, with this trigger.
fn yaml(trigger: u16, more: &str) -> String {
    format!("scan_trigger: {trigger}\ntcp: {{ advanced_ports: 1-1023, exclude: [] }}\n{more}")
}

fn reflex(daemon: &Daemon<'_>) -> serde_json::Value {
    daemon.json(&["status"])["reflex"].clone()
}

/// The scan learns nothing from the probe that exceeds the trigger on.
#[track_caller]
fn assert_nothing_after(answers: &Answers, trigger: u16, what: &str) {
    let first = answers.after_closed(usize::from(trigger) + 1, is_closed);
    assert!(first < answers.probes.len() - 100, "{what}: the scan ended before it meant anything");
    assert_eq!(
        (answers.answered_from(first), answers.open_from(first)),
        (0, 0),
        "{what}: answered after the trigger (probe {first})"
    );
}

#[test]
fn a_scanner_is_stopped_by_the_kernel_alone_while_the_daemon_is_frozen() {
    if missing(TOOLS).is_some() {
        return;
    }
    for trigger in [0, 2, 10] {
        let scene = Scene::new();
        let daemon = Daemon::start(&scene.host, &yaml(trigger, ""));
        daemon.signal("STOP");
        for (source, set, key) in
            [(SCANNER, SetId::Held4, SCANNER), (SCANNER6, SetId::Held6, SCANNER6)]
        {
            let answers = scene.scan(address(source), shuffled(7), 10_000);
            assert_nothing_after(&answers, trigger, source);
            let first = answers.after_closed(usize::from(trigger) + 1, is_closed);
            let opens =
                answers.probes.iter().take(first).filter(|probe| !is_closed(probe.port)).count();
            assert_eq!(answers.open(), opens, "before the trigger, services are served");
            assert_eq!(scene.keys(set), [key], "the hold is the kernel's");
        }
        daemon.signal("CONT");
        daemon.wait_for_block(SCANNER);
        daemon.wait_for_block(SCANNER6);
        let status = reflex(&daemon);
        assert!(status["holds"].as_u64() >= Some(2) && status["released"] == 0, "{status}");
        // Some packets of the continued scan are reported instead.
        assert!(status["dropped"].as_u64() > Some(900), "{status}");
    }
}

#[test]
fn protected_sources_are_never_held() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let mut daemon = Daemon::start(&scene.host, &yaml(0, "allow: [10.77.1.2, \"fd78:1::2\"]"));
    assert_eq!(
        scene.scan(address(SCANNER), shuffled(1), 10_000).open(),
        500,
        "allowed by the configuration"
    );
    // And the routers' addresses.
    for (last, source) in [SCANNER6, "fe80::2", "fe80::1:2"].into_iter().enumerate() {
        scene.scan(address(source), shuffled(2 + last as u64), 10_000);
    }
    assert_eq!((scene.keys(SetId::Held4), scene.keys(SetId::Held6)), (vec![], vec![]));
    let status = reflex(&daemon);
    assert_eq!(
        (&status["holds"], &status["untold_holds"], &status["dropped"]),
        (&0.into(), &0.into(), &0.into()),
        "{status}"
    );
    daemon.stop();

    // Allowed while it is held: accepted at once, and released by the daemon when it evaluates it.
    daemon.restart(&yaml(0, "block: { unproven: { per_minute: 1 } }"));
    let other = scene.scanner_at(9);
    scene.scan(other, shuffled(5), 10_000);
    daemon.wait_for_block("10.77.1.9");
    // Slow enough for a busy machine: each closed port holds it until the daemon has released it.
    let answers = scene.scan(address(SCANNER), shuffled(6).into_iter().take(200).collect(), 50);
    assert!(answers.open() > 20, "the budget of one block a minute is spent: {}", answers.open());
    assert!(
        eventually(ANSWER_TIMEOUT, || scene
            .keys(SetId::Held4)
            .iter()
            .all(|key| key == "10.77.1.9")),
        "{:?}",
        scene.keys(SetId::Held4)
    );
    let status = reflex(&daemon);
    assert!(status["released"].as_u64() > Some(0), "{status}");
    assert!(scene.scanner.pings(&[HOST]), "what is not blocked is served");
}

#[test]
fn one_port_repeatedly_holds_no_source_and_one_beyond_the_trigger_does() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(2, ""));
    scene.repeat(address(SCANNER), &[7], 3_000, 5_000);
    scene.repeat(address(SCANNER), &[7, 9], 3_000, 5_000);
    assert_eq!(scene.keys(SetId::Held4), [""; 0]);
    assert_eq!(scene.keys(SetId::Seen4), ["10.77.1.2 . 6 . 7", "10.77.1.2 . 6 . 9"]);
    assert_eq!(scene.keys(SetId::Suspect4), [SCANNER]);
    let status = reflex(&daemon);
    assert_eq!(status["holds"], 0, "{status}");
    daemon.signal("STOP");
    scene.repeat(address(SCANNER), &[11], 1, 100);
    assert_eq!(scene.keys(SetId::Held4), [SCANNER]);
    daemon.signal("CONT");
    daemon.wait_for_block(SCANNER);
}

#[test]
fn out_of_state_packets_hold_no_source() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(0, ""));
    for scan in ["-sF", "-sA", "-sM"] {
        scene.nmap(&[scan, "-p1,3,5", HOST]);
        assert_eq!(scene.keys(SetId::Held4), [""; 0], "{scan}");
    }
    assert_eq!(reflex(&daemon)["holds"], 0);
    for scan in ["-sN", "-sX"] {
        daemon.signal("STOP");
        scene.nmap(&[scan, "-p1", HOST]);
        assert_eq!(scene.keys(SetId::Held4), [SCANNER], "{scan}");
        daemon.signal("CONT");
        daemon.wait_for_block(SCANNER);
        assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    }
}

#[test]
fn an_unblocked_source_is_forgotten_by_the_rules_too() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(2, ""));
    for (source, shown, host, sets) in [
        (SCANNER, SCANNER, HOST, [SetId::Held4, SetId::Score4, SetId::Suspect4, SetId::Seen4]),
        (SCANNER6, SCANNER6, HOST6, [SetId::Held6, SetId::Score6, SetId::Suspect6, SetId::Seen6]),
    ] {
        scene.scan(address(source), shuffled(3), 10_000);
        daemon.wait_for_block(shown);
        assert!(sets.iter().all(|set| !scene.keys(*set).is_empty()));
        assert!(daemon.ctl(&["unblock", shown]).status.success());
        for set in sets {
            assert_eq!(scene.keys(set), [""; 0], "{set:?}");
        }
        // Two more ports are allowed, as for any source.
        let answers = scene.scan(address(source), vec![501, 2, 503, 4], 1_000);
        assert_eq!(answers.open(), 2, "{host}");
    }
    scene.scan(address(SCANNER), shuffled(4), 10_000);
    daemon.wait_for_block(SCANNER);
    assert!(daemon.ctl(&["unblock", "--all"]).status.success());
    assert_eq!((scene.keys(SetId::Held4), scene.keys(SetId::Suspect6)), (vec![], vec![]));
    assert!(scene.scanner.pings(&[HOST]));
}

#[test]
fn a_source_that_is_held_and_not_blocked_can_be_unblocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(0, ""));
    let element = Element::new(address(SCANNER)).timeout(Some(Duration::from_secs(600)));
    scene
        .host
        .enter(|| Connection::open(SCHEMA).unwrap().add_element(SetId::Held4, &element).unwrap());
    let connects = || scene.scan(address(SCANNER), vec![502], 1_000).open() == 1;
    assert!(!connects(), "the first SYN of a held source does not pass");
    daemon.ctl(&["unblock", SCANNER]);
    assert!(connects());
    assert_eq!(scene.keys(SetId::Held4), [""; 0]);
}

#[test]
fn a_reload_keeps_what_was_counted_unless_the_trigger_is_another() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(2, ""));
    scene.repeat(address(SCANNER), &[1, 3], 2, 100);
    daemon.write_configuration(&yaml(2, "udp: { mode: \"off\" }"));
    assert!(daemon.ctl(&["reload"]).status.success());
    daemon.signal("STOP");
    scene.repeat(address(SCANNER), &[5], 1, 100);
    assert_eq!(scene.keys(SetId::Held4), [SCANNER], "the third port, two of them from before");
    daemon.signal("CONT");
    daemon.wait_for_block(SCANNER);

    let other = scene.scanner_at(9);
    scene.repeat(other, &[1, 3], 2, 100);
    daemon.write_configuration(&yaml(5, ""));
    assert!(daemon.ctl(&["reload"]).status.success());
    scene.repeat(other, &[5, 7, 9], 3, 100);
    assert!(!scene.keys(SetId::Held4).contains(&other.to_string()), "five ports are allowed now");
    assert_eq!(daemon.blocked(), [SCANNER]);
}

#[test]
fn nothing_is_held_where_nothing_would_be_blocked_unproven() {
    if missing(TOOLS).is_some() {
        return;
    }
    for more in [
        "mode: observe",
        "capture: { reflex: false }",
        "block: { unproven: { action: report } }",
        "udp: { mode: \"off\" }\ntcp: { action: log }",
    ] {
        let scene = Scene::new();
        let yaml =
            if more.contains("tcp:") { format!("scan_trigger: 0\n{more}") } else { yaml(0, more) };
        let daemon = Daemon::start(&scene.host, &yaml);
        let rules = scene.host.run("nft", &["list", "table", "inet", "portsentry"]);
        assert!(!rules.contains("held") && !rules.contains("score"), "{more}");
        assert!(reflex(&daemon).is_null(), "{more}");
    }
    // Datagrams that are only reported hold no source, and those that may block do.
    for (more, held) in [("", false), ("udp: { action: block }", true)] {
        let scene = Scene::new();
        let daemon = Daemon::start(&scene.host, &yaml(0, more));
        daemon.signal("STOP");
        scene.nmap(&["-sU", "-p7", HOST]);
        assert_eq!(!scene.keys(SetId::Held4).is_empty(), held, "{more}");
        daemon.signal("CONT");
    }
}

#[test]
fn connections_to_decoys_hold_a_source_from_the_one_that_exceeds_the_trigger() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon =
        Daemon::start(&scene.host, "scan_trigger: 2\ntcp: { mode: connect, ports: 1-1000 }");
    daemon.signal("STOP");
    scene.repeat(address(SCANNER), &[1, 3], 3, 100);
    assert_eq!(scene.keys(SetId::Held4), [""; 0]);
    scene.repeat(address(SCANNER), &[5], 3, 100);
    assert_eq!(scene.keys(SetId::Held4), [SCANNER]);
    daemon.signal("CONT");
}

#[test]
fn ports_that_answer_answer_up_to_the_trigger_and_not_after_it() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(2, "closed_ports: answer"));
    daemon.signal("STOP");
    let answers = scene.scan(address(SCANNER), shuffled(8), 10_000);
    assert_nothing_after(&answers, 2, "answer");
    let first = answers.after_closed(3, is_closed);
    assert_eq!(answers.answered(), first - 1, "all but the one that passed the trigger");
    daemon.signal("CONT");
    daemon.wait_for_block(SCANNER);
}

#[test]
fn when_the_sets_are_full_the_daemon_blocks_alone_and_says_so() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(0, ""));
    scene.host.enter(|| {
        let elements: Vec<_> = (0..400_000u32)
            .map(|n| {
                Element::new(IpAddr::from((0x2000_0000 + n).to_be_bytes()))
                    .timeout(Some(Duration::from_secs(600)))
            })
            .collect();
        let mut connection = Connection::open(SCHEMA).unwrap();
        connection.add_elements(SetId::Held4, &elements).unwrap();
        assert!(
            connection
                .add_element(SetId::Held4, &Element::new(address("10.77.1.99")))
                .unwrap_err()
                .is_full()
        );
    });
    scene.scan(address(SCANNER), shuffled(9), 1_000);
    daemon.wait_for_block(SCANNER);
    let status = daemon.json(&["status"]);
    assert!(status["reflex"]["no_room"].as_u64() > Some(0), "{status}");
    assert!(
        status["warnings"].to_string().contains("found no room in the reflex's sets"),
        "{status}"
    );
    if let Some(elements) = status["reflex"]["elements"].as_u64() {
        assert_eq!((elements, &status["reflex"]["size"]), (400_000, &400_000.into()), "{status}");
        assert!(
            status["warnings"].to_string().contains("has no room for new sources now"),
            "{status}"
        );
    }
}

#[test]
fn every_packet_of_a_flood_is_reported_or_counted() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    for trigger in [0, 2] {
        let scene = Scene::new();
        let daemon = Daemon::start(&scene.host, &yaml(trigger, "udp: { mode: \"off\" }"));
        let sent = scene.wire().flood(&Load::spoofed(
            address(HOST),
            [1, 3, 5],
            0,
            Duration::from_millis(1500),
        ));
        let mut figures = String::new();
        let adds_up = eventually(ANSWER_TIMEOUT, || {
            let status = daemon.json(&["status"]);
            let count = |key: &str| status["reflex"][key].as_u64().unwrap();
            let told = status["probes"].as_u64().unwrap() + status["lost"].as_u64().unwrap();
            let sum =
                told + count("untold") + count("untold_holds") + count("shed") + count("dropped");
            // The elements count sources that the daemon really blocked in the flood.
            let blocked: u64 = daemon
                .json(&["list"])
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["cause"] != "campaign")
                .map(|row| row["packets"].as_u64().unwrap())
                .sum();
            figures = format!("{sent:?}: {sum} and {blocked} of {}", status["reflex"]);
            sum + blocked == sent.packets
        });
        assert!(adds_up, "trigger {trigger}: {figures}");
        println!("trigger {trigger}: {} packets a second: {figures}", sent.rate());
    }
}

/// Floods the host from forged sources while `inside` runs.
fn in_a_flood<T>(scene: &Scene, rate: u64, inside: impl FnOnce() -> T) -> T {
    if rate == 0 {
        return inside();
    }
    let stop = AtomicBool::new(false);
    let wire = scene.wire();
    let load = Load::spoofed(address(HOST), (1..1000).step_by(2), rate, Duration::from_secs(600));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| wire.flood_until(&load, &stop));
        // Long enough that every burst is spent.
        std::thread::sleep(Duration::from_millis(2500));
        // It ends even if this panics.
        let result = std::panic::catch_unwind(AssertUnwindSafe(inside));
        stop.store(true, Ordering::Relaxed);
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let sent = flood.join().unwrap();
        println!("the flood: {} packets a second", sent.rate());
        // A machine that is busy with other tests does not reach the full rate; it is printed
        // above.
        assert!(sent.rate() > rate / 5, "the flood was no flood: {sent:?}");
        result
    })
}

/// The promise's measure: trigger 0, half of the ports open, another order each time.
fn zero_leak(flood: u64) {
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(0, "udp: { mode: \"off\" }"));
    let mut leaks = Vec::new();
    in_a_flood(&scene, flood, || {
        for run in 0..runs() {
            let answers = scene.scan(scene.scanner_at(10 + run), shuffled(run as u64 + 1), 10_000);
            let first = answers.after_closed(1, is_closed);
            leaks.push((answers.answered_from(first), answers.open_from(first)));
        }
    });
    assert!(leaks.iter().all(|leak| *leak == (0, 0)), "{flood} spoofed a second: {leaks:?}");
    println!(
        "{flood} spoofed a second: 0 answered after the trigger, 0 open ports, {} of {} runs",
        leaks.len(),
        runs()
    );
    drop(daemon);
}

#[test]
fn at_trigger_0_nothing_is_answered_after_the_trigger_at_10000_probes_a_second() {
    if missing(TOOLS).is_some() {
        return;
    }
    zero_leak(0);
}

#[test]
fn at_trigger_0_nothing_is_answered_after_the_trigger_while_50000_spoofed_packets_a_second_come_in()
{
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    zero_leak(50_000);
}

/// nmap at full speed, from port 1 on, which is closed: it has found every open port after the
/// trigger.
fn nmap_finds_nothing(flood: u64) {
    let scene = Scene::new();
    let _daemon = Daemon::start(&scene.host, &yaml(0, "udp: { mode: \"off\" }"));
    let mut found = Vec::new();
    in_a_flood(&scene, flood, || {
        for run in 0..runs() {
            let source = scene.scanner_at(10 + run).to_string();
            let words = [
                "-n",
                "-Pn",
                "-sS",
                "-T5",
                "--min-rate",
                "5000",
                "-r",
                "-p1-1000",
                "-S",
                &source,
                "-e",
                "scan0",
                "-oG",
                "-",
                HOST,
            ];
            let output = scene.scanner.output("nmap", &words, Duration::from_secs(60));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success() && text.contains("Nmap done"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            found.push(text.matches("/open/").count());
        }
    });
    assert!(found.iter().all(|open| *open == 0), "{flood} spoofed a second: {found:?}");
    println!(
        "nmap -T5 --min-rate 5000, {flood} spoofed a second: 0 open ports, {} of {} runs",
        found.len(),
        runs()
    );
}

#[test]
fn at_trigger_0_nmap_t5_finds_no_open_port() {
    if missing(TOOLS).is_some() {
        return;
    }
    nmap_finds_nothing(0);
}

#[test]
fn at_trigger_0_nmap_t5_finds_no_open_port_while_50000_spoofed_packets_a_second_come_in() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    nmap_finds_nothing(50_000);
}

/// At trigger 0 each forged source takes a block, until the minute's limit: the scanner differs by
/// continuing.
#[test]
fn a_scanner_that_starts_within_a_flood_at_trigger_0_is_blocked_beyond_its_hold() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(0, "udp: { mode: \"off\" }"));
    in_a_flood(&scene, 20_000, || {
        scene.scan(address(SCANNER), shuffled(3), 10_000);
        daemon.wait_for_block(SCANNER);
    });
    assert!(daemon.json(&["status"])["reflex"]["dropped"].as_u64().unwrap() > 0);
}

/// A client whose address was forged in a probe keeps using services: that does not count as a
/// continued scan.
#[test]
fn connections_to_services_do_not_continue_a_scan() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(
        &scene.host,
        &yaml(0, "udp: { mode: \"off\" }\nblock: { unproven: { per_minute: 1 } }"),
    );
    scene.scan(address(SCANNER6), vec![1], 100);
    daemon.wait_for_block(SCANNER6);
    let probes = || daemon.json(&["status"])["probes"].as_u64().unwrap();
    scene.scan(address(SCANNER), vec![3], 100);
    assert!(eventually(ANSWER_TIMEOUT, || probes() == 2), "{}", probes());
    scene.scan(address(SCANNER), (2..200).step_by(2).collect(), 1000);
    assert_eq!(probes(), 2);
    assert!(!daemon.blocked().contains(&SCANNER.to_owned()));
}

/// The default trigger: the scanner's first probes are among the flood's, its last one is not.
#[test]
fn a_scanner_that_starts_within_a_flood_is_held_and_blocked_at_the_default_trigger() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &yaml(2, ""));
    in_a_flood(&scene, 50_000, || {
        let answers = scene.scan(address(SCANNER), shuffled(11), 10_000);
        let first = answers.after_closed(3, is_closed);
        println!(
            "within a flood, trigger 2: {} answered after the trigger",
            answers.answered_from(first)
        );
        assert!(answers.open_from(first) < 50, "{}", answers.open_from(first));
        daemon.wait_for_block(SCANNER);
    });
}
