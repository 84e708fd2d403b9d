//! Migration of a host from Debian's PortSentry 1.2 by one command: its files are read at their
//! places, its ports are watched, its history continues, its ignore file applies, and its log
//! recipes still match.
//!
//! The files are those of Debian's package, unpacked at run time; without it those of
//! tests/classic, which have the same keys and values.

use crate::support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::predecessor::{Machine, Package};
use support::scene::{DEVICE, Scene};
use support::{eventually, missing, run};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3", "unshare"];
const HOST: &str = "10.69.0.1";
const OLD_SCANNER: &str = "10.69.0.2";
const SCANNER: &str = "10.69.0.3";
/// In the ignore file by its address, and by a network with host bits.
const FRIEND: &str = "10.69.0.4";
const OFFICE: &str = "10.69.7.200";
const HISTORY: &str = "/var/lib/portsentry/portsentry.history";

fn scene() -> Scene {
    let theirs = [OLD_SCANNER, SCANNER, FRIEND, OFFICE].map(|address| format!("{address}/16"));
    Scene::new(&["10.69.0.1/16"], &theirs.each_ref().map(String::as_str))
}

/// Installs the package's files as dpkg does, with the administrator's changes: `edits` are
/// replaced in portsentry.conf, `modes` are the content of /etc/default/portsentry, `ignored` is
/// appended to the static ignore file, from which the package's own script generates the ignore
/// file.
fn set_up(
    machine: &Machine<'_>,
    package: Option<&Package>,
    edits: &[(&str, &str)],
    modes: [&str; 2],
    ignored: &str,
) {
    let fixture = |name: &str| {
        std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classic").join(name),
        )
        .unwrap()
    };
    let (mut configuration, fixed) = match package {
        Some(package) => (
            package.text("etc/portsentry/portsentry.conf"),
            package.text("etc/portsentry/portsentry.ignore.static"),
        ),
        None => (fixture("debian.conf"), fixture("debian.ignore")),
    };
    for (old, new) in edits {
        assert!(configuration.contains(old), "no {old} in {configuration}");
        configuration = configuration.replace(old, new);
    }
    let fixed = format!("{fixed}{ignored}");
    machine.classic_files(&configuration, &fixed);
    machine.write("/etc/portsentry/portsentry.ignore.static", &fixed);
    std::fs::create_dir(machine.file("/etc/default")).unwrap();
    // Written by the package's postinst on a new host.
    if let Some(package) = package {
        let postinst = package.text("DEBIAN/postinst");
        assert!(
            postinst.contains("TCP_MODE=tcp") && postinst.contains("UDP_MODE=udp"),
            "{postinst}"
        );
        // Done by its init script at every start.
        let script = package.path("usr/lib/portsentry/portsentry-build-ignore-file");
        let built = machine.output("perl", &[script.to_str().unwrap()]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        assert!(machine.text("/etc/portsentry/portsentry.ignore").contains("DO NOT EDIT"));
    }
    machine.write(
        "/etc/default/portsentry",
        &format!("# portsentry\nTCP_MODE=\"{}\"\nUDP_MODE=\"{}\"\n", modes[0], modes[1]),
    );
}

/// The old program with the package's files; it is ended by its process ids.
fn run_old(machine: &Machine<'_>, package: &Package, mode: &str, attack: impl FnOnce()) {
    machine.start_old(package, mode).unwrap();
    attack();
    machine.wait_for_log(&format!(" from host: {OLD_SCANNER}/{OLD_SCANNER} to TCP port: "));
    assert!(!machine.pids().is_empty());
    for pid in machine.pids() {
        run("kill", &["-TERM", &pid]);
    }
    assert!(
        eventually(Duration::from_secs(20), || machine.pids().is_empty()),
        "the old program does not end"
    );
}

/// Without the package the migration is tried with the files of tests/classic, which is printed.
fn package() -> Option<Package> {
    Package::get()
        .map_err(|reason| println!("{reason}: tried with the files of tests/classic"))
        .ok()
}

fn is_history_line(line: &str, address: &str) -> bool {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let Some((epoch, rest)) = line.split_once(" - ") else { return false };
    let Some((when, rest)) = rest.split_once(" Host: ") else { return false };
    let Some((day, time)) = when.split_once(' ') else { return false };
    let day: Vec<_> = day.split('/').collect();
    let time: Vec<_> = time.split(':').collect();
    let Some(port) = rest
        .strip_prefix(&format!("{address}/{address} Port: "))
        .and_then(|rest| rest.strip_suffix(" TCP Blocked"))
    else {
        return false;
    };
    digits(epoch, 10)
        && day.len() == 3
        && digits(day[0], 2)
        && digits(day[1], 2)
        && digits(day[2], 4)
        && time.len() == 3
        && time.iter().all(|part| digits(part, 2))
        && port.parse::<u16>().is_ok()
}

/// A filter of fail2ban matches `lines` lines of the file and misses `missed`, if fail2ban is
/// installed, or unpacked in the target directory by `tests/run`.
fn fail2ban_finds(history: &Path, filter: &str, lines: usize, missed: usize) {
    let unpacked =
        Path::new(env!("CARGO_BIN_EXE_portsentry")).ancestors().nth(2).unwrap().join("fail2ban");
    let Some(root) = [Path::new("/"), &unpacked]
        .into_iter()
        .find(|root| root.join("usr/bin/fail2ban-regex").exists())
    else {
        println!("fail2ban cannot be had: the lines were compared by their form only");
        return;
    };
    // Debian's package is for Debian's python, not for another one that comes first in PATH.
    let found = Command::new("timeout")
        .args(["60", "/usr/bin/python3"])
        .arg(root.join("usr/bin/fail2ban-regex"))
        .arg("--config")
        .arg(root.join("etc/fail2ban"))
        .args([history, Path::new(filter)])
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        words.contains(&format!(" {lines} matched, {missed} missed")),
        "{words}{}",
        String::from_utf8_lossy(&found.stderr)
    );
}

#[test]
fn a_host_with_debians_default_files_reports_as_before() {
    if missing(TOOLS).is_some() {
        return;
    }
    let package = package();
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    set_up(&machine, package.as_ref(), &[], ["tcp", "udp"], "");
    if let Some(package) = &package {
        run_old(&machine, package, "tcp", || {
            drop(scene.traffic("knock", OLD_SCANNER, HOST, &["1", "11", "15"]))
        });
        machine.wait_for_log("attackalert: Ignoring TCP response per configuration file setting.");
        // Its history says blocked for hosts that it did not block: fail2ban's jail would ban them.
        assert!(
            machine.text(HISTORY).contains("TCP Blocked") && machine.blocked_by_old().is_empty()
        );
    }
    let history = machine.text(HISTORY);
    let said = machine.import(&[]);
    assert!(said.contains("/etc/portsentry/portsentry.yaml is written"), "{said}");
    assert!(said.contains("KILL_ROUTE, a route for each source, is not taken over"), "{said}");
    machine.start_ours(&[]);
    let before = machine.log().len();
    scene.traffic("knock", SCANNER, HOST, &["1", "11", "15", "79", "111"]);
    machine.wait_for_log(&format!(" from host: {SCANNER}/{SCANNER} to TCP port: "));
    let ignoring = "attackalert: Ignoring TCP response per configuration file setting.";
    assert!(
        eventually(Duration::from_secs(10), || machine.log()[before..]
            .iter()
            .any(|line| line.contains(ignoring))),
        "{}",
        machine.log().join("\n")
    );
    assert_eq!(machine.blocked_by_ours(), Vec::<String>::new());
    assert!(scene.reaches_from(SCANNER));
    // What is not blocked is not called so, and has its line all the same.
    let reported = || machine.text(HISTORY).lines().count() > history.lines().count();
    assert!(eventually(Duration::from_secs(20), reported), "{}", machine.text(HISTORY));
    let text = machine.text(HISTORY);
    let lines: Vec<_> = text.strip_prefix(&*history).unwrap().lines().collect();
    let [line] = *lines else { panic!("{text}") };
    let blocked = line.strip_suffix(" TCP Reported").map(|start| format!("{start} TCP Blocked"));
    assert!(is_history_line(&blocked.unwrap(), SCANNER), "{line}");
    // fail2ban's jail, which the old program fed with each scan: what the import says to do.
    assert!(said.contains("the jail skips it"), "{said}");
    assert!(said.contains("contrib/fail2ban/portsentry.local"), "{said}");
    let known = history.lines().count();
    fail2ban_finds(&machine.file(HISTORY), "portsentry", known, 1);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/fail2ban/portsentry.local");
    let filter = machine.file("/etc/portsentry.conf");
    std::fs::copy(ours, &filter).unwrap();
    fail2ban_finds(&machine.file(HISTORY), filter.to_str().unwrap(), known + 1, 0);
}

// D12
#[test]
fn a_host_with_debians_files_that_blocks_still_blocks() {
    if missing(TOOLS).is_some() {
        return;
    }
    let package = package();
    let scene = scene();
    let mut machine = Machine::new(&scene.host);
    // The edits that the package's README recommends; and the last line of the ignore file has no
    // line end.
    let ip = run("sh", &["-c", "command -v ip"]);
    let route = format!("KILL_ROUTE=\"{} route add unreachable $TARGET$\"", ip.trim());
    let edits = [
        ("BLOCK_TCP=\"0\"", "BLOCK_TCP=\"1\""),
        ("KILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\"", &route),
    ];
    set_up(
        &machine,
        package.as_ref(),
        &edits,
        ["atcp", "audp"],
        &format!("{FRIEND} # the backup host\n10.69.7.9/24"),
    );

    let mut known = 0;
    if let Some(package) = &package {
        run_old(&machine, package, "atcp", || {
            scene.scan_from(OLD_SCANNER, &["-sS", "-p1-20", HOST])
        });
        assert_eq!(machine.blocked_by_old(), [OLD_SCANNER]);
        assert!(
            is_history_line(machine.text(HISTORY).trim_end(), OLD_SCANNER),
            "{}",
            machine.text(HISTORY)
        );
        known = 1;
    }

    let said = machine.import(&[]);
    println!("{said}");
    // The old program's lines went to syslog; so do ours, so that the recipes find them.
    let yaml = machine.text("/etc/portsentry/portsentry.yaml");
    assert!(
        yaml.contains("mode: advanced")
            && yaml.contains("TCP_MODE=\"atcp\"")
            && yaml.contains("UDP_MODE=\"audp\""),
        "{yaml}"
    );
    machine
        .write("/etc/portsentry/portsentry.yaml", &format!("{yaml}\nlog: {{ target: syslog }}\n"));
    machine.start_ours(&[]);
    assert_eq!(machine.text("/var/log/stderr"), "");

    // The ignore file first: neither is blocked or reported.
    for friend in [FRIEND, OFFICE] {
        scene.scan_from(friend, &["-sS", "-p1-100", HOST]);
        scene.scan_from(friend, &["-sU", "-p1-10", HOST]);
    }
    scene.scan_from(SCANNER, &["-sU", "-p1-20", HOST]);
    machine.wait_for_log(&format!(
        "attackalert: UDP scan from host: {SCANNER}/{SCANNER} to UDP port: "
    ));
    assert_eq!(
        machine.blocked_by_ours(),
        Vec::<String>::new(),
        "BLOCK_UDP is 0, and friends are ignored"
    );
    // With nmap's own retransmissions, which prove the scanner's address.
    let scan = ["-n", "-Pn", "-sS", "-e", DEVICE, "-S", SCANNER, "-p1-1000", HOST];
    scene.scanner.output("nmap", &scan, Duration::from_secs(60));
    assert!(
        eventually(Duration::from_secs(10), || machine.blocked_by_ours() == [SCANNER]),
        "{:?}",
        machine.log()
    );
    assert!(
        !scene.reaches_from(SCANNER) && scene.reaches_from(FRIEND) && scene.reaches_from(OFFICE)
    );

    // The history continues where the old program stopped. The lines of the reported UDP scan
    // and of the slowed source, before that of its block, are no blocks to programs that read blocks.
    let written = || machine.text(HISTORY).lines().count() == known + 3;
    assert!(eventually(Duration::from_secs(20), written), "{}", machine.text(HISTORY));
    let history = machine.text(HISTORY);
    let is_other = |line: &str| line.ends_with(" TCP Slowed") || line.ends_with(" UDP Reported");
    let (others, lines): (Vec<_>, Vec<_>) = history.lines().partition(|line| is_other(line));
    assert_eq!(others.len(), 2, "{history}");
    assert_eq!(lines.len(), known + 1, "{history}");
    assert!(is_history_line(lines[known], SCANNER), "{history}");
    assert!(known == 0 || is_history_line(lines[0], OLD_SCANNER), "{history}");
    fail2ban_finds(&machine.file(HISTORY), "portsentry", known + 1, 2);

    // The recipes' words, under the old program's name.
    for text in [
        "adminalert: PortSentry".to_owned(),
        "adminalert: PortSentry is now active and listening.".to_owned(),
        format!("attackalert: TCP SYN/Normal scan from host: {SCANNER}/{SCANNER} to TCP port: "),
        format!("attackalert: Host {SCANNER} has been blocked via "),
    ] {
        // The old program's lines begin with the time: its syslog(3) writes it.
        let told = || {
            machine.log().iter().any(|line| {
                line.contains(&text) && line.starts_with('<') && line.contains(">portsentry[")
            })
        };
        assert!(
            eventually(Duration::from_secs(20), told),
            "no {text:?} of ours:\n{}",
            machine.log().join("\n")
        );
    }
    let of_friends: Vec<_> = machine
        .log()
        .into_iter()
        .filter(|line| line.contains(FRIEND) || line.contains(OFFICE))
        .collect();
    // The old program passed over them in silence; theirs are reported, and never blocked.
    let blocked = |line: &String| line.contains("has been blocked");
    assert!(!of_friends.iter().any(blocked), "{of_friends:?}");
    let reported = of_friends.iter().filter(|line| line.contains("never-block address"));
    assert_eq!(reported.count(), 2, "{of_friends:?}");
    let line = format!("ALL: {SCANNER} : DENY");
    assert!(eventually(Duration::from_secs(20), || machine
        .text("/etc/hosts.deny")
        .lines()
        .any(|found| found == line)));
    machine.stop_ours();
    machine.wait_for_log("securityalert: PortSentry is shutting down");
    assert!(machine.text(HISTORY).starts_with(&history), "nothing is taken back");
}
