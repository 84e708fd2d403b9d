//! What else lives on a host and its links: interfaces that are not there, neighbours that are never
//! blocked, tables of others with our name, unusual addresses, tools that read the same packets.

use crate::support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::time::Duration;

use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::Namespace;
use support::scene::{DEVICE, Scene};
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "nmap"];
/// The time in which what is never blocked, and a link, are looked at again.
const SOON: Duration = Duration::from_secs(5);

fn scene() -> Scene {
    Scene::new(&["10.71.0.1/24"], &["10.71.0.2/24", "10.71.0.3/24"])
}

fn warnings(daemon: &Daemon<'_>) -> Vec<String> {
    let status = daemon.json(&["status"]);
    let list = status["warnings"].as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What both programs print that check a configuration, in the daemon's namespace.
fn check(scene: &Scene, daemon: &Daemon<'_>) -> [String; 2] {
    let file = daemon.path("portsentry.yaml");
    let file = file.to_str().unwrap();
    let text = |found: Output| {
        assert!(found.status.success());
        String::from_utf8_lossy(&[found.stdout, found.stderr].concat()).into_owned()
    };
    [
        [env!("CARGO_BIN_EXE_portsentry"), "--config", file, "--check"],
        [env!("CARGO_BIN_EXE_portsentryctl"), "check", file, "--json"],
    ]
    .map(|words| text(scene.host.output(words[0], &words[1..], SOON)))
}

#[test]
fn an_interface_that_is_not_there_is_reported_until_it_is() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "interfaces: [eth9]");
    let message = "there is no interface eth9: nothing is seen on it until it appears";
    assert!(daemon.log().contains(message), "{}", daemon.log());
    assert!(warnings(&daemon).iter().any(|text| text.contains(message)), "{:?}", warnings(&daemon));
    for text in check(&scene, &daemon) {
        assert!(text.contains(message) && text.contains("ip link"), "{text}");
    }
    scene.scan("-p1-20");
    assert_eq!(daemon.json(&["status"])["probes"], 0);
    // It appears.
    scene.host.run("ip", &["link", "set", DEVICE, "down"]);
    scene.host.run("ip", &["link", "set", DEVICE, "name", "eth9"]);
    scene.host.run("ip", &["link", "set", "eth9", "up"]);
    scene.scan("-p1-20");
    daemon.wait_for_block("10.71.0.2");
    assert!(eventually(SOON, || warnings(&daemon).is_empty()), "{:?}", warnings(&daemon));
    for text in check(&scene, &daemon) {
        assert!(!text.contains("eth9: nothing"), "{text}");
    }
    // It disappears.
    scene.host.run("ip", &["link", "set", "eth9", "down"]);
    scene.host.run("ip", &["link", "set", "eth9", "name", DEVICE]);
    assert!(eventually(SOON, || warnings(&daemon).len() == 1), "{:?}", warnings(&daemon));
    assert_eq!(daemon.log().matches(&format!("WARNING: `interfaces`: {message}")).count(), 2);
}

/// Names that exist, and on which no packet arrives all the same.
#[test]
fn a_member_of_a_bridge_is_reported_with_the_name_of_the_bridge() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let ip = |words: &str| scene.host.run("ip", &words.split(' ').collect::<Vec<_>>());
    ip("addr flush dev scan0");
    ip("link add br0 type bridge");
    ip("link set scan0 master br0");
    ip("link set br0 up");
    ip("addr add 10.71.0.1/24 dev br0");
    ip("link property add dev br0 altname uplink");
    let daemon = Daemon::start(&scene.host, "interfaces: [scan0]");
    let warned = |text: &str, remedy: &str| {
        let is_told =
            || warnings(&daemon).iter().any(|told| told.contains(text) && told.contains(remedy));
        assert!(eventually(SOON, is_told), "{:?}", warnings(&daemon));
        assert!(daemon.log().contains(text), "{}", daemon.log());
        for told in check(&scene, &daemon) {
            assert!(told.contains(text) && told.contains(remedy), "{told}");
        }
    };
    warned("scan0 is a member of br0, and its packets arrive on br0", "write br0");
    scene.scan("-p1-20");
    assert_eq!(daemon.json(&["status"])["probes"], 0);
    daemon.write_configuration("interfaces: [uplink]");
    assert!(daemon.ctl(&["reload"]).status.success());
    warned("uplink is another name of br0", "write br0");
    daemon.write_configuration("interfaces: [br0]");
    assert!(daemon.ctl(&["reload"]).status.success());
    assert!(warnings(&daemon).is_empty(), "{:?}", warnings(&daemon));
    scene.scan("-p1-20");
    daemon.wait_for_block("10.71.0.2");
}

/// The lines of the log about a source's scan.
fn reports<'l>(log: &'l str, source: &str) -> Vec<&'l str> {
    let from = format!("scan from host: {source}/");
    log.lines().filter(|line| line.contains(&from)).collect()
}

/// A scanner that is never blocked, for each reason.
#[test]
fn a_scan_from_what_is_never_blocked_is_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(
        &["10.71.0.1/24", "fd71::1/64"],
        &["10.71.0.2/24", "10.71.0.3/24", "10.71.0.4/24", "fd71::2/64", "fd71::3/64"],
    );
    scene.host.run("ip", &["route", "add", "default", "via", "10.71.0.2"]);
    scene.host.run("ip", &["-6", "route", "add", "default", "via", "fd71::2"]);
    let daemon =
        Daemon::start(&scene.host, "allow: [10.71.0.3, {network: 10.71.0.4/32, silent: true}]");
    let link_local = |of: &Namespace| {
        let words = ["-6", "-o", "addr", "show", "dev", DEVICE, "scope", "link"];
        let shown = of.run("ip", &words);
        shown.split_whitespace().nth(3).unwrap().trim_end_matches("/64").to_owned()
    };
    let (host, scanner) = (link_local(&scene.host), link_local(&scene.scanner));
    let target = format!("{host}%{DEVICE}");
    let mut expected = 0;
    for (source, words) in [
        ("10.71.0.2", ["-sS", "10.71.0.1"].as_slice()),
        ("10.71.0.3", &["-sS", "10.71.0.1"]),
        ("fd71::2", &["-6", "-sS", "fd71::1"]),
        (&scanner, &["-6", "-sS", &target]),
    ] {
        // A link-local address is tentative at first, and a neighbour not resolved.
        let answers = || scene.scanner.pings(&["-I", DEVICE, words.last().unwrap()]);
        assert!(eventually(SOON, answers), "{source}");
        let list =
            scene.nmap(&[&["-e", DEVICE, "-S", source, "-p1-1000", "--reason"], words].concat());
        // Answered as without the daemon.
        assert!(list.contains("1000 closed tcp ports (reset)"), "{source}: {list}");
        let is_reported = || reports(&daemon.log(), source).len() == 1;
        assert!(eventually(SOON, is_reported), "{source}: {}", daemon.log());
        daemon.wait_for_log(&format!("Host {source} was not blocked: never-block address"));
        expected += 3;
        assert!(daemon.json(&["status"])["probes"].as_u64().unwrap() >= expected);
    }
    // Not a line.
    let before = daemon.json(&["status"])["probes"].clone();
    scene.scan_from("10.71.0.4", &["-sS", "-p1-1000", "10.71.0.1"]);
    assert_eq!(daemon.json(&["status"])["probes"], before);
    assert!(reports(&daemon.log(), "10.71.0.4").is_empty());
    assert!(daemon.blocked().is_empty(), "{:?}", daemon.blocked());
    // A neighbour in the prefix of this host and its gateway is blocked by itself.
    scene.scan_from("fd71::3", &["-6", "-sS", "-p1-20", "fd71::1"]);
    daemon.wait_for_block("fd71::3");
    assert_eq!(daemon.blocked(), ["fd71::3"]);
}

/// Reports cost no more than a bounded number of log messages, and no time of the packets.
#[test]
fn scans_of_exempt_sources_use_a_bounded_number_of_messages() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "allow: [10.71.0.0/24]\ntcp: {advanced_ports: 1-65535}";
    let daemon = Daemon::start(&scene.host, yaml);
    scene.scan("-p1-20000");
    // As many at once as the rules log, and those of the seconds that the scan takes.
    let probes = daemon.json(&["status"])["probes"].as_u64().unwrap();
    assert!((500..5000).contains(&probes), "{probes}");
    assert_eq!(reports(&daemon.log(), "10.71.0.2").len(), 1);
    assert_eq!(daemon.json(&["status"])["lost"], 0);
}

/// Loads rules, and lists the table.
fn load(scene: &Scene, rules: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    scene.host.run("nft", &["-f", file.path().to_str().unwrap()]);
    scene.host.run("nft", &["list", "table", "inet", "portsentry"])
}

/// Tables that have the name of ours, from which nothing may be taken.
#[test]
fn a_table_of_another_program_with_our_name_is_refused() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let file = directory.path().join("portsentry.yaml");
    let yaml = format!(
        "state_dir: {path}\nhistory_file: {path}/history\ncontrol: {{ socket: {path}/sock }}\n"
    );
    std::fs::write(&file, yaml).unwrap();
    for foreign in [
        // A script for PortSentry 1.2, as administrators write it.
        "set blocked { type ipv4_addr; elements = { 192.0.2.7 } }\n\
         chain input { type filter hook input priority 0; ip saddr @blocked drop; }",
        // Even our names are not ours without our comment.
        "set blocked4 { type ipv4_addr; flags timeout; comment \"fail2ban\"; }\n\
         chain gate { type filter hook prerouting priority -450; ip saddr @blocked4 drop; }",
        "map m { type ipv4_addr : verdict; elements = { 192.0.2.7 : drop } }",
        "counter hits { }",
    ] {
        let before = load(&scene, &format!("table inet portsentry {{\n{foreign}\n}}\n"));
        let words = ["--config", file.to_str().unwrap()];
        let ended = scene.host.output(env!("CARGO_BIN_EXE_portsentry"), &words, SOON);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(69), "{said}");
        for text in ["is another program's", "nft delete table inet portsentry"] {
            assert!(said.contains(text), "{said}");
        }
        assert_eq!(scene.host.run("nft", &["list", "table", "inet", "portsentry"]), before);
        scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    }
}

#[test]
fn our_own_table_is_ours_after_a_crash_and_an_upgrade() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    // Nothing is lost with an empty table.
    load(&scene, "table inet portsentry { }\n");
    for yaml in ["own_table: false", "own_table: true"] {
        let mut daemon = Daemon::start(&scene.host, yaml);
        assert!(daemon.ctl(&["block", "10.71.0.3"]).status.success());
        daemon.signal("KILL");
        std::thread::sleep(Duration::from_millis(200));
        daemon.restart(yaml);
        assert_eq!(daemon.blocked(), ["10.71.0.3"], "{}", daemon.log());
        daemon.stop();
        scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    }
    // The smallest table of the first version: mode observe with nothing watched.
    load(
        &scene,
        "table inet portsentry {\n\
         set blocked4 { type ipv4_addr; flags timeout; comment \"blocked hosts\"; elements = { 10.71.0.2 timeout 1h } }\n\
         chain gate { type filter hook prerouting priority -450; }\n}\n",
    );
    let daemon = Daemon::start(&scene.host, "");
    assert_eq!(daemon.blocked(), ["10.71.0.2"], "{}", daemon.log());
    assert!(!scene.reaches());
}

/// Addresses that are reserved, and unicast to Linux.
#[test]
fn hosts_with_reserved_addresses_are_treated_as_any() {
    if missing(TOOLS).is_some() {
        return;
    }
    let hosts = ["240.1.2.3", "255.255.255.254", "0.1.2.3", "240.1.2.4"];
    let networks = hosts.map(|host| format!("{host}/32"));
    let scene = Scene::new(&["10.71.0.1/24"], &networks.each_ref().map(String::as_str));
    for host in &networks {
        scene.host.run("ip", &["route", "add", host, "dev", DEVICE]);
    }
    scene.scanner.run("ip", &["route", "add", "10.71.0.0/24", "dev", DEVICE]);
    let ignored = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ignored.path(), "240.1.2.4\n").unwrap();
    let daemon = Daemon::start(&scene.host, &format!("ignore_file: {}", ignored.path().display()));
    for host in hosts {
        assert!(scene.reaches_from(host), "{host}");
        scene.scan_from(host, &["-sS", "-p1-20", &scene.target]);
        if host == "240.1.2.4" {
            daemon.wait_for_log(&format!("Host {host} was not blocked: never-block address"));
            continue;
        }
        daemon.wait_for_block(host);
        assert!(!scene.reaches_from(host), "{host}");
        assert!(daemon.ctl(&["unblock", host]).status.success());
        assert!(scene.reaches_from(host), "{host}");
        assert!(daemon.ctl(&["block", host]).status.success());
        assert!(!scene.reaches_from(host), "{host}");
        assert!(daemon.ctl(&["allow", "add", host]).status.success());
        assert!(eventually(SOON, || scene.reaches_from(host)), "{host}");
    }
    for special in ["255.255.255.255", "0.0.0.0", "239.1.2.3", "224.0.0.0/3", "240.0.0.0/4"] {
        let refused = daemon.ctl(&["block", special]);
        assert_eq!(refused.status.code(), Some(1), "{special}");
    }
    assert!(daemon.ctl(&["block", "241.0.0.0/8"]).status.success());
}

#[test]
fn a_block_may_last_as_long_as_the_kernel_can_count() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    let too_long = |target: &str| {
        let refused = daemon.ctl(&["block", target, "--for", "300000d"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(64), "{said}");
        assert!(said.contains("300000d is too long") && said.contains("at most 213503d"), "{said}");
    };
    too_long("10.71.0.2");
    assert!(scene.reaches());
    for target in ["10.71.0.2", "10.71.0.2/31"] {
        for time in ["1h", "213503d"] {
            assert!(daemon.ctl(&["block", target, "--for", time]).status.success(), "{time}");
            too_long(target);
            assert!(!scene.reaches());
        }
        assert!(daemon.ctl(&["unblock", target]).status.success(), "{target}");
        assert!(scene.reaches());
    }
    // The longest one is restored as well.
    assert!(daemon.ctl(&["block", "10.71.0.2", "--for", "213503d"]).status.success());
    daemon.stop();
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    daemon.restart("");
    assert!(!scene.reaches(), "{}", daemon.log());
    let left = daemon.json(&["list"])[0]["expires_in"].as_u64().unwrap();
    assert!(left > 213_502 * 86_400, "{left}");
}

/// A sender that knocks at three ports, before a chain of another table lets it in.
#[test]
fn port_knocking_works_where_its_ports_are_excluded() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let rules = tempfile::NamedTempFile::new().unwrap();
    let text = "table inet knock {\n\
        set one { type ipv4_addr; flags dynamic,timeout; }\n\
        set two { type ipv4_addr; flags dynamic,timeout; }\n\
        set open { type ipv4_addr; flags dynamic,timeout; }\n\
        chain input {\n\
            type filter hook input priority 0; policy accept;\n\
            ct state established accept\n\
            tcp dport 101 update @one { ip saddr timeout 10s } drop\n\
            tcp dport 202 ip saddr @one update @two { ip saddr timeout 10s } drop\n\
            tcp dport 303 ip saddr @two update @open { ip saddr timeout 1m } drop\n\
            tcp dport 22 ip saddr != @open drop\n\
        }\n}\n";
    std::fs::write(rules.path(), text).unwrap();
    scene.host.run("nft", &["-f", rules.path().to_str().unwrap()]);
    let _ssh = scene.host.enter(|| TcpListener::bind("10.71.0.1:22").unwrap());
    let connects = |port: u16| {
        let to = SocketAddr::from(([10, 71, 0, 1], port));
        scene.scanner.enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(500)).is_ok())
    };
    for (yaml, opens) in [
        (AT_DEFAULTS, false),
        ("# at the defaults\ntcp: {exclude: [101, 113, 139, 202, 303]}", true),
    ] {
        let mut daemon = Daemon::start(&scene.host, yaml);
        assert!(!connects(22));
        assert!([101, 202, 303].iter().all(|port| !connects(*port)));
        assert_eq!(connects(22), opens, "{yaml}\n{}", daemon.log());
        let status = daemon.json(&["status"]);
        assert_eq!((&status["slowed"] == 0, &status["probes"] == 0), (opens, opens), "{status}");
        daemon.stop();
        scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    }
}

/// ufw, psad, CrowdSec, CSF: a chain that drops, and counts what it would log.
#[test]
fn tools_that_read_drop_logs_see_a_scan_where_closed_ports_pass() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let rules = tempfile::NamedTempFile::new().unwrap();
    let text = "table inet deny {\n\
        counter lines { }\n\
        chain input {\n\
            type filter hook input priority 0; policy drop;\n\
            ct state established,related accept\n\
            meta l4proto icmp accept\n\
            counter name lines drop\n\
        }\n}\n";
    std::fs::write(rules.path(), text).unwrap();
    scene.host.run("nft", &["-f", rules.path().to_str().unwrap()]);
    let lines = || {
        let shown = scene.host.run("nft", &["reset", "counter", "inet", "deny", "lines"]);
        shown
            .split_whitespace()
            .skip_while(|word| *word != "packets")
            .nth(1)
            .unwrap()
            .parse::<u32>()
    };
    for (yaml, logged) in [
        ("# at the defaults", 0..=4),
        ("# at the defaults\nclosed_ports: answer", 0..=20),
        // The other half is answered, so that the source's address can be proven.
        ("# at the defaults\nclosed_ports: pass", 150..=350),
        ("# at the defaults\nmode: observe", 498..=498),
    ] {
        let mut daemon = Daemon::start(&scene.host, yaml);
        scene.scan("-p1-498");
        let found = lines().unwrap();
        assert!(logged.contains(&found), "{yaml}: {found}");
        if !yaml.contains("observe") {
            assert_eq!(daemon.json(&["status"])["slowed"], 1, "{yaml}\n{}", daemon.log());
        }
        daemon.stop();
        scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    }
    // A source whose address is proven is blocked, as without the other firewall.
    let daemon = Daemon::start(&scene.host, "# at the defaults\nclosed_ports: pass");
    scene.scanner.output(
        "nmap",
        &[
            "-n",
            "-Pn",
            "-sS",
            "--max-retries",
            "3",
            "-p1-498",
            "--host-timeout",
            "8s",
            &scene.target,
        ],
        Duration::from_secs(20),
    );
    daemon.wait_for_block("10.71.0.2");
    assert!(!scene.reaches());
}
