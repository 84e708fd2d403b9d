//! The jail that fail2ban ships for PortSentry reads the history file: its own `fail2ban-regex` and
//! filter, files written by the daemon.

use crate::support;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use portsentry::config::{Config, LogTarget};
use portsentry::engine::{Reason, Report, Source};
use portsentry::journal::{JournalHandle, Notice, Settings};
use portsentry::probe::{Port, ScanKind, Transport};

use support::daemon::Daemon;
use support::netns::Namespace;
use support::{missing, skip};

/// fail2ban as installed, or unpacked by `tests/run` beside the programs under test.
struct Fail2ban {
    program: PathBuf,
    /// `/`, or the directory of the unpacked package.
    root: PathBuf,
}

impl Fail2ban {
    /// `None`, and a line `SKIP`, without fail2ban.
    fn find() -> Option<Self> {
        let unpacked =
            Path::new(env!("CARGO_BIN_EXE_portsentry")).parent()?.parent()?.join("fail2ban");
        let places = [
            (PathBuf::from("/usr/bin/fail2ban-regex"), PathBuf::from("/")),
            (unpacked.join("usr/bin/fail2ban-regex"), unpacked),
        ];
        let found = places.into_iter().find(|(program, root)| {
            program.exists() && root.join("etc/fail2ban/filter.d/portsentry.conf").exists()
        });
        if found.is_none() {
            skip(
                "fail2ban is neither installed nor unpacked in the target directory, which tests/run does on Debian and Ubuntu",
            );
        }
        found.map(|(program, root)| Self { program, root })
    }

    fn regex(&self, options: &[&str], file: &Path) -> Output {
        // Debian's package is for Debian's python, not for another one that comes first in PATH.
        let python =
            if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let output = Command::new("timeout")
            .args(["60", python])
            .arg(&self.program)
            .arg("--config")
            .arg(self.root.join("etc/fail2ban"))
            .args(options)
            .arg(file)
            .arg("portsentry")
            .env("PYTHONPATH", self.root.join("usr/lib/python3/dist-packages"))
            .output()
            .expect("fail2ban-regex");
        // 255: no line matched, which the tests below check themselves.
        assert!(matches!(output.status.code(), Some(0 | 255)), "{output:?}");
        output
    }

    /// The addresses that the filter bans, and for which second, in the order of the file.
    fn banned(&self, file: &Path) -> Vec<(IpAddr, i64)> {
        let output = String::from_utf8(self.regex(&["--out", "<ip> <time>"], file).stdout).unwrap();
        let row = |line: &str| {
            let (address, time) = line.split_once(' ').unwrap_or_else(|| panic!("{output}"));
            (
                address.parse().unwrap_or_else(|_| panic!("{output}")),
                time.parse::<f64>().unwrap() as i64,
            )
        };
        output.lines().map(row).collect()
    }

    /// From the line `Lines: 4 lines, 0 ignored, 3 matched, 1 missed`: matched and missed.
    fn counts(&self, file: &Path) -> (usize, usize) {
        let output = String::from_utf8(self.regex(&[], file).stdout).unwrap();
        let line = output
            .lines()
            .find(|line| line.starts_with("Lines: "))
            .unwrap_or_else(|| panic!("{output}"));
        let number = |word: &str| {
            line.split(", ")
                .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
                .unwrap_or_else(|| panic!("{line}"))
        };
        (number("matched"), number("missed"))
    }
}

/// The content of a history line: second, address and the words after the port.
fn told(line: &str) -> (i64, IpAddr, &str) {
    let (second, rest) = line.split_once(" - ").unwrap();
    let (hosts, port) = rest.split_once(" Port: ").unwrap();
    (second.parse().unwrap(), hosts.rsplit_once('/').unwrap().1.parse().unwrap(), port)
}

/// A protected host and scanners on their own networks; the IPv6 scanner has an address in a prefix
/// that is not the host's.
fn scene() -> (Namespace, Namespace, Namespace) {
    let (host, scanner, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.join(
        &scanner,
        "scan0",
        &["10.66.1.1/24", "fd66:1::1/64"],
        &["10.66.1.2/24", "fd66:77::2/64"],
    );
    host.run("ip", &["-6", "route", "add", "fd66:77::/64", "dev", "scan0"]);
    scanner.run("ip", &["-6", "route", "add", "fd66:1::/64", "dev", "scan0"]);
    host.join(&other, "other0", &["10.66.2.1/24"], &["10.66.2.2/24"]);
    (host, scanner, other)
}

fn scan(from: &Namespace, arguments: &[&str]) {
    let mut words = vec!["-n", "-Pn", "--max-retries", "0", "--host-timeout", "20s"];
    words.extend_from_slice(arguments);
    from.output("nmap", &words, Duration::from_secs(40));
}

/// Appends the lines of a block, and of a slowed source, through the daemon's journal, which gets
/// `name` as the answer to its lookup.
fn append_named(file: &Path, address: &'static str, name: &'static str) {
    let mut settings = Settings {
        history_file: Some(file.to_owned()),
        resolve: true,
        ..Settings::from(&Config::default())
    };
    settings.log.target = LogTarget::Stderr;
    let journal = JournalHandle::start(settings).unwrap();
    let address: IpAddr = address.parse().unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    journal.resolve_through(Box::new(move |asked| answer.send(asked).is_ok()));
    let (source, timeout) = (Source::of(address, 64), Duration::from_secs(60));
    let port = Port { transport: Transport::Tcp, number: 23 };
    let detail = "3 ports in 0.2s".into();
    let reason = Reason::Scan { scan: ScanKind::Syn, proven: false, detail };
    journal.notify(Notice::Engine(Report::Blocked {
        source,
        port: Some(port),
        scanner: Some(address),
        timeout: Some(timeout),
        reason: reason.clone(),
        renewals: 0,
    }));
    journal.notify(Notice::Engine(Report::Slowed {
        source,
        port,
        scanner: address,
        timeout,
        reason,
    }));
    assert_eq!(answered.recv_timeout(Duration::from_secs(10)).unwrap(), address);
    journal.name_found(address, Some(name.to_owned()));
    assert!(journal.stop(Duration::from_secs(10)));
}

#[test]
fn fail2bans_own_filter_matches_scan_blocks_and_neither_manual_nor_slowed_ones() {
    let Some(fail2ban) = Fail2ban::find() else { return };
    if missing(&["ip", "nft", "nmap"]).is_some() {
        return;
    }
    let (host, scanner, other) = scene();
    let mut daemon = Daemon::start(&host, "udp: { action: block }");
    scan(&scanner, &["-sS", "-p1-50", "10.66.1.1"]);
    daemon.wait_for_block("10.66.1.2");
    scan(&scanner, &["-6", "-sS", "-p1-50", "fd66:1::1"]);
    daemon.wait_for_block("fd66:77::2");
    scan(&other, &["-sU", "-p1-30", "10.66.2.1"]);
    daemon.wait_for_block("10.66.2.2");
    for by_hand in ["192.0.2.7", "198.51.100.0/24", "2001:db8:5::9"] {
        assert!(daemon.ctl(&["block", by_hand]).status.success());
    }
    assert!(daemon.stop().success());
    let history = daemon.path("portsentry.history");
    append_named(&history, "10.66.3.2", "scanner.example.net.");
    // A name that would be a line or an address is not logged.
    append_named(
        &history,
        "10.66.3.3",
        "x/203.0.113.9 Port: 1 TCP Blocked\n1795188400 - 11/20/2026 15:26:40 Host: y",
    );
    append_named(&history, "10.66.3.4", "203.0.113.9");

    let text = std::fs::read_to_string(&history).unwrap();
    let lines: Vec<_> = text.lines().map(told).collect();
    println!("{text}");
    assert!(text.contains(" Host: scanner.example.net/10.66.3.2 Port: 23 TCP Blocked\n"), "{text}");
    assert!(
        text.contains(" Host: 10.66.3.3/10.66.3.3 Port: 23 TCP Blocked\n")
            && text.contains(" Host: 10.66.3.4/10.66.3.4 "),
        "{text}"
    );
    let is_other = |port: &str| port == "0 MANUAL Blocked" || port == "23 TCP Slowed";
    let (others, scans): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|(_, _, port)| is_other(port));
    assert_eq!(others.len(), 6, "{text}");

    let banned = fail2ban.banned(&history);
    assert_eq!(
        banned,
        scans.iter().map(|(second, address, _)| (*address, *second)).collect::<Vec<_>>(),
        "{text}"
    );
    let mut hosts: Vec<String> = banned.iter().map(|(address, _)| address.to_string()).collect();
    hosts.dedup();
    assert_eq!(
        hosts,
        ["10.66.1.2", "fd66:77::2", "10.66.2.2", "10.66.3.2", "10.66.3.3", "10.66.3.4"],
        "{text}"
    );
    assert_eq!(fail2ban.counts(&history), (scans.len(), others.len()));
}

#[test]
fn of_a_blocked_prefix_fail2ban_bans_the_scanner_and_not_the_first_address() {
    let Some(fail2ban) = Fail2ban::find() else { return };
    if missing(&["ip", "nft", "nmap"]).is_some() {
        return;
    }
    let (host, scanner, _other) = scene();
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("blocked");
    let yaml = format!(
        "block: {{ ipv6: {{ first: 64, then: 64 }} }}\nblocked_file: {}",
        blocked.display()
    );
    let mut daemon = Daemon::start(&host, &yaml);
    scan(&scanner, &["-6", "-sS", "-p1-50", "fd66:1::1"]);
    daemon.wait_for_block("fd66:77::/64");
    assert!(daemon.stop().success());
    let history = daemon.path("portsentry.history");
    let text = std::fs::read_to_string(&history).unwrap();
    assert!(text.contains(" Host: fd66:77::/64/fd66:77::2 Port: "), "{text}");
    let mut hosts: Vec<String> =
        fail2ban.banned(&history).iter().map(|(address, _)| address.to_string()).collect();
    hosts.dedup();
    assert_eq!(hosts, ["fd66:77::2"], "{text}");
    let lines = std::fs::read_to_string(directory.path().join("blocked.atcp")).unwrap();
    assert!(lines.contains(" Host: fd66:77::/64/fd66:77::2 Port: "), "{lines}");
}

#[test]
fn the_jail_that_fail2ban_ships_reads_the_file_that_is_written_by_default() {
    let Some(fail2ban) = Fail2ban::find() else { return };
    let jails = std::fs::read_to_string(fail2ban.root.join("etc/fail2ban/jail.conf")).unwrap();
    let jail = jails.split("\n[portsentry]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let path = jail
        .lines()
        .find_map(|line| line.strip_prefix("logpath")?.trim_start().strip_prefix('='))
        .unwrap()
        .trim();
    assert_eq!(Config::default().history_file.as_deref(), Some(Path::new(path)));
}
