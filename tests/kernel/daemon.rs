//! The main task over the real kernel: real scans from another network namespace are detected and
//! blocked.

use crate::support;
use crate::support::daemon::AT_DEFAULTS;

use std::ops::Deref;
use std::time::Duration;

use support::daemon::Daemon;
use support::netns::Namespace;
use support::{eventually, missing};

/// The protected host, a scanner and a friend, each on its own network.
struct Scene {
    hosts: support::scene::Scene,
    friend: Namespace,
}

impl Deref for Scene {
    type Target = support::scene::Scene;

    fn deref(&self) -> &Self::Target {
        &self.hosts
    }
}

const SCANNER: &str = "10.66.1.2";
const FRIEND: &str = "10.66.2.2";

impl Scene {
    fn new() -> Self {
        // The scanner also has an address in a prefix that is not the host's own.
        let scanner = ["10.66.1.2/24", "fd66:1::2/64", "fd66:77::2/64"];
        let hosts = support::scene::Scene::new(&["10.66.1.1/24", "fd66:1::1/64"], &scanner)
            .with_prefixes(&["fd66:77::/64"]);
        let friend = Namespace::new();
        hosts.host.join(&friend, "friend0", &["10.66.2.1/24"], &["10.66.2.2/24"]);
        Self { hosts, friend }
    }
}

const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping"];

// D2
#[test]
fn a_syn_scan_is_blocked_listed_and_unblocked_while_others_stay_served() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    assert!(scene.scanner.pings(&["10.66.1.1"]));

    scene.nmap(&["-sS", "-p1-200", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);

    let list = daemon.json(&["list"]);
    let row = &list[0];
    assert_eq!(row["scan"], "syn", "{row}");
    assert!(row["reason"].as_str().unwrap().contains("3 ports"), "{row}");
    assert_eq!(row["proven"], false, "{row}");
    let left = row["expires_in"].as_f64().unwrap();
    assert!(left > 30.0 && left <= 60.0, "{row}");
    assert!(row["packets"].as_u64().unwrap() > 0, "{row}");
    let text = String::from_utf8(daemon.ctl(&["list"]).stdout).unwrap();
    assert!(text.contains(SCANNER) && text.contains("syn"), "{text}");

    assert!(!scene.scanner.pings(&["10.66.1.1"]), "a blocked source gets no answer");
    assert!(scene.friend.pings(&["10.66.2.1"]), "others are served");
    let log = daemon.log();
    assert!(
        log.contains(
            "attackalert: TCP SYN/Normal scan from host: 10.66.1.2/10.66.1.2 to TCP port:"
        ),
        "{log}"
    );
    let history = std::fs::read_to_string(daemon.path("portsentry.history")).unwrap();
    assert!(
        history.contains(" Host: 10.66.1.2/10.66.1.2 Port: ")
            && history.trim_end().ends_with(" TCP Blocked"),
        "{history}"
    );

    let unblock = daemon.ctl(&["unblock", SCANNER]);
    assert!(unblock.status.success(), "{unblock:?}");
    assert!(scene.scanner.pings(&["10.66.1.1"]), "unblock takes effect before it returns");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert!(daemon.ctl(&["block", SCANNER]).status.success());
    assert_eq!(daemon.json(&["list"])[0]["packets"], 0, "another block counts from zero");
    assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    assert_eq!(
        daemon.ctl(&["unblock", SCANNER]).status.code(),
        Some(1),
        "nothing to unblock is a no"
    );
}

#[test]
fn a_connect_scan_is_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    scene.nmap(&["-sT", "-p1-100", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
}

#[test]
fn a_udp_scan_is_blocked_when_udp_may_block_and_reported_when_it_may_not() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    {
        let daemon = Daemon::start(&scene.host, "");
        scene.nmap(&["-sU", "-p1-30", "10.66.1.1"]);
        daemon.wait_for_log("attackalert: UDP scan from host: 10.66.1.2/10.66.1.2 to UDP port:");
        assert_eq!(daemon.blocked(), Vec::<String>::new());
    }
    let daemon = Daemon::start(&scene.host, "udp: { action: block }");
    scene.nmap(&["-sU", "-p1-30", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
    assert_eq!(daemon.json(&["list"])[0]["scan"], "udp");
}

// P28, D16
#[test]
fn every_tcp_and_sctp_scan_of_nmap_is_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    for (option, kind) in [
        ("-sF", "fin"),
        ("-sN", "null"),
        ("-sX", "xmas"),
        ("-sM", "maimon"),
        ("-sA", "ack"),
        ("-sW", "ack"),
        ("-sY", "sctp-init"),
        ("-sZ", "sctp-cookie-echo"),
        ("-sO", "ip-protocol"),
    ] {
        // Without SCTP (132), which nmap probes with an INIT.
        let ports = if option == "-sO" { "-p100-131,133-255" } else { "-p1-100" };
        scene.nmap(&[option, ports, "10.66.1.1"]);
        daemon.wait_for_block(SCANNER);
        assert_eq!(daemon.json(&["list"])[0]["scan"], kind, "{option}");
        assert!(daemon.ctl(&["unblock", "--all"]).status.success());
    }
}

#[test]
fn an_ipv6_scan_blocks_its_address_and_no_neighbour() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    // From the host's own prefix, and from another one.
    for source in ["fd66:1::2", "fd66:77::2"] {
        scene.nmap(&["-6", "-sS", "-p1-50", "-S", source, "-e", "scan0", "fd66:1::1"]);
        daemon.wait_for_block(source);
    }
    assert_eq!(daemon.blocked(), ["fd66:1::2", "fd66:77::2"]);
}

// P28, D8
#[test]
fn fragments_hide_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    scene.nmap(&["-sS", "-f", "-p1-50", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
}

#[test]
fn two_touched_ports_are_not_a_scan() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    for _ in 0..20 {
        scene.nmap(&["-sS", "-p7,9", "10.66.1.1"]);
    }
    assert!(daemon.json(&["status"])["probes"].as_u64().unwrap() >= 40, "they were seen");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert!(!daemon.log().contains("attackalert"), "{}", daemon.log());
}

// D5
#[test]
fn observe_mode_reports_and_blocks_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "mode: observe");
    // Even on a busy machine each port is answered in time.
    let text = scene.nmap(&[
        "-sS",
        "-p1-50",
        "--max-rtt-timeout",
        "2s",
        "--initial-rtt-timeout",
        "2s",
        "10.66.1.1",
    ]);
    daemon.wait_for_log("attackalert: TCP SYN/Normal scan from host: 10.66.1.2/10.66.1.2");
    assert!(text.contains("closed"), "closed ports answer as if nobody watched: {text}");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    assert!(scene.scanner.pings(&["10.66.1.1"]));
}

// P1, D4
#[test]
fn protected_hosts_are_never_blocked() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    // The scanner is the host's gateway; the friend is on the allow list.
    scene.host.run("ip", &["route", "add", "default", "via", SCANNER]);
    let daemon = Daemon::start(&scene.host, &format!("allow: [{FRIEND}]"));
    scene.nmap(&["-sS", "-p1-100", "10.66.1.1"]);
    scene.friend.output(
        "nmap",
        &["-n", "-Pn", "--max-retries", "0", "-sS", "-p1-100", "10.66.2.1"],
        Duration::from_secs(40),
    );
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    let refused = daemon.ctl(&["block", SCANNER]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("never"), "{refused:?}");
    // A network that covers them can only be blocked manually: the rules exempt them.
    let is_reached = || scene.scanner.pings(&["10.66.1.1"]) && scene.friend.pings(&["10.66.2.1"]);
    assert!(eventually(Duration::from_secs(10), is_reached), "{}", daemon.log());
    // A gateway that appears later counts as well.
    scene.host.run("ip", &["route", "del", "default"]);
    scene.host.run("ip", &["route", "add", "default", "via", FRIEND]);
    assert!(eventually(Duration::from_secs(10), || {
        scene.nmap(&["-sS", "-p1-100", "10.66.1.1"]);
        daemon.blocked() == [SCANNER]
    }));
    // A blocked host that becomes the gateway is unblocked.
    scene.host.run("ip", &["route", "del", "default"]);
    scene.host.run("ip", &["route", "add", "default", "via", SCANNER]);
    assert!(
        eventually(Duration::from_secs(10), || daemon.blocked().is_empty()),
        "{}",
        daemon.log()
    );
    assert!(scene.scanner.pings(&["10.66.1.1"]));
}

// D2
#[test]
fn a_manual_block_lasts_as_long_as_given_also_of_a_network() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    assert!(
        daemon.ctl(&["block", SCANNER, "--for", "3s", "--reason", "abuse report"]).status.success()
    );
    assert!(!scene.scanner.pings(&["10.66.1.1"]));
    let row = daemon.json(&["list"])[0].clone();
    assert_eq!(row["address"], SCANNER);
    assert!(row["reason"].as_str().unwrap().contains("abuse report"), "{row}");
    assert!(
        eventually(Duration::from_secs(8), || scene.scanner.pings(&["10.66.1.1"])),
        "it expires"
    );
    assert_eq!(daemon.blocked(), Vec::<String>::new());

    assert!(
        daemon.ctl(&["block", "10.66.1.0/31"]).status.code() == Some(1),
        "a network with an own address in it is refused"
    );
    assert!(daemon.ctl(&["block", "10.66.1.2/31"]).status.success());
    assert_eq!(daemon.blocked(), ["10.66.1.2/31"]);
    assert!(!scene.scanner.pings(&["10.66.1.1"]));
    assert!(daemon.ctl(&["unblock", "10.66.1.2/31"]).status.success());
    assert!(scene.scanner.pings(&["10.66.1.1"]));
}

// P12, D18
#[test]
fn a_reload_takes_effect_and_loses_no_block_and_a_broken_file_changes_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "tcp: { mode: stealth, ports: [1-100] }");
    assert!(daemon.ctl(&["block", FRIEND, "--for", "10m"]).status.success());

    scene.nmap(&["-sS", "-p200-260", "10.66.1.1"]);
    assert!(!daemon.blocked().contains(&SCANNER.to_owned()), "200-260 are not watched yet");

    daemon.write_configuration("tcp: { mode: stealth, ports: [200-300] }");
    daemon.signal("HUP");
    daemon.wait_for_log("reload");
    scene.nmap(&["-sS", "-p1-60", "10.66.1.1"]);
    assert_eq!(daemon.blocked(), [FRIEND], "1-100 are not watched any more, the block stays");
    scene.nmap(&["-sS", "-p200-260", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
    assert!(!scene.friend.pings(&["10.66.2.1"]), "the block from before the reload holds");

    assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    daemon.write_configuration("tcp: { mode: stealth, ports: [400-500] }\nscan_triger: 5");
    daemon.signal("HUP");
    daemon.wait_for_log("scan_triger");
    assert!(daemon.log().contains("portsentry.yaml:2:1"), "{}", daemon.log());
    let refused = daemon.ctl(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("scan_trigger"),
        "the remedy names the right key: {refused:?}"
    );
    scene.nmap(&["-sS", "-p200-260", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
}

// P15, D3
#[test]
fn blocks_outlive_the_daemon_and_are_adopted_with_their_reason() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let mut daemon = Daemon::start(&scene.host, "");
    scene.nmap(&["-sX", "-p1-100", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
    assert!(daemon.ctl(&["block", FRIEND, "--reason", "by order"]).status.success());
    assert!(daemon.stop().success());
    assert!(!scene.friend.pings(&["10.66.2.1"]), "protected while nobody runs");
    daemon.restart("");
    let list = daemon.json(&["list"]);
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    let row = list.as_array().unwrap().iter().find(|row| row["address"] == SCANNER).unwrap();
    assert_eq!(row["scan"], "xmas");
    assert!(row["expires_in"].as_f64().unwrap() < 60.0);
    assert!(daemon.ctl(&["unblock", "--all"]).status.success());
    assert!(scene.friend.pings(&["10.66.2.1"]) && scene.scanner.pings(&["10.66.1.1"]));

    daemon.stop();
    daemon.restart("on_exit: remove");
    daemon.stop();
    let tables = scene.host.run("nft", &["list", "tables"]);
    assert!(!tables.contains("portsentry"), "{tables}");
}

// P1
#[test]
fn after_a_stop_blocks_hold_and_nothing_is_watched() {
    if missing(TOOLS).is_some() {
        return;
    }
    for yaml in
        [AT_DEFAULTS, "tcp: { mode: connect, ports: [\"1-100\"] }\n", "closed_ports: answer\n"]
    {
        let scene = Scene::new();
        let mut daemon = Daemon::start(&scene.host, yaml);
        assert!(daemon.ctl(&["block", FRIEND]).status.success());
        assert!(daemon.stop().success());
        assert!(
            daemon.log().contains("Nothing is watched until the next start."),
            "{}",
            daemon.log()
        );
        let closed = scene.nmap(&["-sT", "-p1-100", "10.66.1.1"]);
        assert!(closed.contains("Not shown: 100 closed"), "{yaml}{closed}");
        let table = scene.host.run("nft", &["list", "table", "inet", "portsentry"]);
        for rule in [SCANNER, "log prefix", "add @", "update @"] {
            assert!(!table.contains(rule), "{yaml}{table}");
        }
        assert!(!scene.friend.pings(&["10.66.2.1"]), "a block holds");
        daemon.restart(yaml);
        assert!(!scene.friend.pings(&["10.66.2.1"]), "a block holds");
        scene.nmap(&["-sS", "-p1-100", "10.66.1.1"]);
        assert!(eventually(Duration::from_secs(20), || {
            let list = daemon.json(&["list"]);
            list.as_array().unwrap().iter().any(|row| row["address"] == SCANNER)
        }));
    }
}

// P3
#[test]
fn a_short_block_is_renewed_while_the_scan_goes_on_and_ends_when_it_ends() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "block: { unproven: { timeout: 4s } }");
    scene.nmap(&["-sS", "-p1-50", "10.66.1.1"]);
    daemon.wait_for_block(SCANNER);
    // An occasional probe: the block must outlast its four seconds.
    for port in 51..56 {
        scene.nmap(&["-sS", &format!("-p{port}"), "10.66.1.1"]);
        assert!(!scene.scanner.pings(&["10.66.1.1"]));
    }
    assert_eq!(daemon.blocked(), [SCANNER]);
    assert!(
        eventually(Duration::from_secs(15), || daemon.blocked().is_empty()),
        "it ends when the scan has ended"
    );
}

#[test]
fn a_second_daemon_reports_the_owner_of_the_group() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let _daemon = Daemon::start(&scene.host, "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portsentry.yaml");
    std::fs::write(
        &file,
        format!(
            "state_dir: {0}\nhistory_file: \"\"\ncontrol: {{ socket: {0}/control.sock }}\n",
            directory.path().display()
        ),
    )
    .unwrap();
    let second = scene.host.output(
        env!("CARGO_BIN_EXE_portsentry"),
        &["--config", file.to_str().unwrap()],
        Duration::from_secs(10),
    );
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(69), "{words}");
    assert!(words.contains("NFLOG group 77 is in use by another program"), "{words}");
}

#[test]
fn usr1_logs_the_status() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    daemon.signal("USR1");
    daemon.wait_for_log("probes");
}

// P10
#[test]
fn an_idle_daemon_uses_little_memory() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    // Only the program's own pages: a debug build enlarges the mapped file, and what is relocated in
    // it at the start.
    let (own, all) = (daemon.memory("RssAnon"), daemon.memory("VmRSS"));
    println!("resident memory, idle: {own} kB of its own, {all} kB with the mapped program");
    assert!(own < 6_000, "{own} kB");
}
