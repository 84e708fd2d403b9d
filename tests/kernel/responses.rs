//! Responses beside the block, with real scans between namespaces: the command, and the process
//! that runs it.

use crate::support;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::daemon::Daemon;
use support::netns::Namespace;
use support::{eventually, marked, missing, unique};

const HOST: &str = "10.68.1.1";
const SCANNER: &str = "10.68.1.2";
const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];

/// The host, a scanner with many addresses, a directory for the commands' output, and a mark to
/// find the commands by.
struct Scene {
    hosts: support::scene::Scene,
    directory: tempfile::TempDir,
    mark: String,
}

impl Deref for Scene {
    type Target = support::scene::Scene;

    fn deref(&self) -> &Self::Target {
        &self.hosts
    }
}

impl Scene {
    fn new() -> Self {
        let hosts = support::scene::Scene::new(
            &["10.68.1.1/16", "fd68:1::1/64"],
            &["10.68.1.2/16", "fd68:77:0:1::2/64"],
        );
        let hosts = hosts.with_prefixes(&["fd68:77::/32"]).with_route_to("fd68:1::/64");
        Self { hosts, directory: tempfile::tempdir().unwrap(), mark: unique("mark") }
    }

    fn scan(&self, words: &[&str]) {
        self.nmap(&[&["-p1-20"], words].concat());
    }

    /// Four SYNs from each of these addresses.
    fn sweep(&self, addresses: &[String]) {
        let script = "import sys; sys.argv[1:3] = ['', '']; exec(open('tests/support/traffic.py').read().split(\"if __name__\")[0])\n\
                      raw = Raw(sys.argv[3])\n\
                      for source in sys.argv[4:]:\n    for port in range(1, 5):\n        raw.send(tcp(source, 40000 + port, sys.argv[3], port, SYN, data=b'$(reboot);`x`{target}\\n\\0\\x1b'))\n";
        let mut words = vec!["-c", script, "", "", HOST];
        words.extend(addresses.iter().map(String::as_str));
        let output = self.scanner.output("python3", &words, Duration::from_secs(60));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.file(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The key `command` with a script of which `$0` is the mark and `$1` the directory.
    fn command(&self, script: &str) -> String {
        assert!(!script.contains('\''));
        let directory = self.directory.path().display();
        format!(
            "command: [/bin/sh, -c, '{script}', {}, {directory}, \"{{target}}\", \"{{port}}\", \"{{mode}}\", \"{{protocol}}\", \"{{scan}}\", \"{{reason}}\"]",
            self.mark
        )
    }

    fn nothing_is_left(&self) {
        assert!(
            eventually(Duration::from_secs(10), || marked(&self.mark).is_empty()),
            "left: {:?}",
            marked(&self.mark)
        );
    }
}

/// The helper of a daemon.
fn helper(daemon: &Daemon<'_>) -> u32 {
    let pid = daemon.child.id();
    let children = |of: u32| {
        support::output(
            "ps",
            &["-o", "pid=,args=", "--ppid", &of.to_string()],
            Duration::from_secs(5),
        )
    };
    let mut found = None;
    let there = eventually(Duration::from_secs(10), || {
        let text = String::from_utf8_lossy(&children(pid).stdout).into_owned();
        let line = text.lines().find(|line| line.ends_with("portsentry helper"));
        found = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        found.is_some()
    });
    assert!(there, "no helper:\n{}", daemon.log());
    found.unwrap()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn responses(daemon: &Daemon<'_>) -> [u64; 3] {
    let status = daemon.json(&["status"]);
    ["commands", "failed", "dropped"].map(|key| status["responses"][key].as_u64().unwrap())
}

const NOTE: &str =
    "shift; echo \"$*|$PORTSENTRY_TARGET|$PORTSENTRY_REASON\" >> \"$PORTSENTRY_OUT\"";

/// [`NOTE`] with its output path: the daemon sets the environment, so the script has to know it.
fn note(scene: &Scene) -> String {
    scene.command(&NOTE.replace("$PORTSENTRY_OUT", &scene.file("out").display().to_string()))
}

#[test]
fn the_command_runs_once_for_a_block_with_its_words_and_environment() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &format!("respond: {{ {} }}", note(&scene)));
    scene.scan(&["-sS", HOST]);
    daemon.wait_for_block(SCANNER);
    daemon.wait_for_log(&format!("External command run for host: {SCANNER}"));
    scene.scan(&["-6", "-sX", "fd68:1::1"]);
    daemon.wait_for_log("External command run for host: fd68:77:0:1::2");
    let lines = scene.lines("out");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (words, rest) = lines[0].split_once('|').unwrap();
    assert!(
        words.starts_with(&format!("{SCANNER} "))
            && words.contains(" atcp tcp syn syn scan: 3 ports"),
        "{lines:?}"
    );
    assert!(rest.starts_with(&format!("{SCANNER}|syn scan: 3 ports")), "{lines:?}");
    assert!(
        lines[1].starts_with("fd68:77:0:1::2 ") && lines[1].contains(" atcp tcp xmas xmas scan: "),
        "{lines:?}"
    );
    // Neither a manual block nor its end is a scan.
    assert!(
        daemon.ctl(&["block", "198.51.100.7"]).status.success()
            && daemon.ctl(&["unblock", "198.51.100.7"]).status.success()
    );
    assert_eq!(responses(&daemon), [2, 0, 0]);
    assert_eq!(daemon.json(&["status"])["warnings"].to_string(), "[]");
}

#[test]
fn after_is_after_the_block() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    // The braces of nft stay: they are no macro. The command may not ask the kernel, so it waits
    // until the test has.
    let (asked, answered) = (scene.file("asked"), scene.file("answered"));
    let script = format!(
        "echo \"{{ $2 }}\" > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.05; done",
        asked.display(),
        answered.display()
    );
    let daemon = Daemon::start(&scene.host, &format!("respond: {{ {} }}", scene.command(&script)));
    scene.scan(&["-sS", HOST]);
    assert!(eventually(Duration::from_secs(10), || asked.exists()), "{}", daemon.log());
    let element = fs::read_to_string(&asked).unwrap();
    let words = ["get", "element", "inet", "portsentry", "unproven4", element.trim()];
    assert!(scene.host.run("nft", &words).contains(SCANNER));
    fs::write(answered, "").unwrap();
    daemon.wait_for_log("External command run");
}

#[test]
fn the_command_alone_blocks_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(
        &scene.host,
        &format!("respond: {{ {} }}\ntcp: {{ action: command }}", note(&scene)),
    );
    scene.scan(&["-sS", HOST]);
    daemon.wait_for_log("External command run");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    scene.scan(&["-sF", HOST]);
    assert_eq!(scene.lines("out").len(), 1, "once in the window");
}

#[test]
fn observe_mode_and_protected_hosts_run_no_command() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let command = note(&scene);
    for extra in [
        "mode: observe\ntcp: { action: block }",
        "mode: observe\ntcp: { action: command }",
        &format!("allow: [{SCANNER}]"),
    ] {
        for when in ["before", "after"] {
            let mut daemon = Daemon::start(
                &scene.host,
                &format!("respond: {{ {command}, command_when: {when} }}\n{extra}"),
            );
            scene.scan(&["-sS", HOST]);
            let settled = eventually(Duration::from_secs(20), || {
                daemon.json(&["status"])["probes"].as_u64().unwrap() >= 3
                    || extra.starts_with("allow")
            });
            assert!(settled, "{extra}");
            daemon.stop();
            assert_eq!(scene.lines("out"), [""; 0], "{extra} {when}");
        }
    }
}

#[test]
fn before_runs_before_the_block_and_a_refused_block_cancels_after() {
    if missing(TOOLS).is_some() {
        return;
    }
    for when in ["before", "after"] {
        let scene = Scene::new();
        let daemon = Daemon::start(
            &scene.host,
            &format!(
                "own_table: false\ntcp: {{ mode: connect }}\nrespond: {{ {}, command_when: {when} }}",
                note(&scene)
            ),
        );
        // Without the set the kernel takes no element. It is restored, but in a fight with growing
        // delays: finally after eight seconds.
        let lose = || {
            for words in [["flush", "chain", "gate"], ["delete", "set", "blocked4"]] {
                scene.host.output(
                    "nft",
                    &[words[0], words[1], "inet", "portsentry", words[2]],
                    Duration::from_secs(5),
                );
            }
        };
        let repairs = || daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap();
        let lost = eventually(Duration::from_secs(60), || {
            lose();
            repairs() >= 9
        });
        assert!(lost, "{} repairs", repairs());
        lose();
        scene.scan(&["-sT", HOST]);
        daemon.wait_for_log("Could not block host 10.68.1.2");
        if when == "after" {
            daemon.wait_for_log("respond.command is not run for 10.68.1.2");
            assert_eq!(scene.lines("out"), [""; 0]);
        } else {
            // It was sent before the kernel was asked. The block is tried again, the command is
            // not.
            daemon.wait_for_log("External command run");
            std::thread::sleep(Duration::from_millis(1100));
            scene.scan(&["-sT", HOST]);
            assert!(
                eventually(Duration::from_secs(10), || daemon
                    .log()
                    .matches("Could not block host")
                    .count()
                    >= 2),
                "{}",
                daemon.log()
            );
            assert_eq!(scene.lines("out").len(), 1);
        }
    }
}

// P19, D1
#[test]
fn a_misbehaving_command_prevents_no_block_and_is_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let plain = scene.file("plain");
    fs::write(&plain, "no program").unwrap();
    let cases = [
        (scene.command("echo wrong >&2; exit 7"), "failed (exit status 7)", "wrong"),
        (scene.command("kill -9 $$"), "failed (killed by signal 9)", ""),
        (scene.command("sleep 60; :"), "it ran longer than 1s", ""),
        (
            scene.command("head -c 30000000 /dev/zero | tr \"\\\\0\" x; exit 1"),
            "failed (exit status 1)",
            "xxxxxxxx",
        ),
        (
            scene.command(
                "setsid sh -c \"(trap : TERM; while :; do sleep 1; done) & exit 0\" \"$0\"; exit 3",
            ),
            "failed (exit status 3)",
            "",
        ),
        ("command: [/nowhere/at/all]".to_owned(), "not started: No such file", ""),
        (format!("command: [{}]", plain.display()), "not started: Permission denied", ""),
    ];
    for when in ["before", "after"] {
        for (command, line, output) in &cases {
            let mut daemon = Daemon::start(
                &scene.host,
                &format!("respond: {{ {command}, command_when: {when}, command_timeout: 1s }}"),
            );
            scene.scan(&["-sS", HOST]);
            daemon.wait_for_block(SCANNER);
            daemon.wait_for_log(line);
            let log = daemon.log();
            let told = log.lines().find(|text| text.contains(line)).unwrap();
            assert!(told.contains(SCANNER) && told.contains(output) && told.len() < 4096, "{told}");
            assert_eq!(responses(&daemon)[..2], [1, 1], "{command}");
            assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
            scene.nothing_is_left();
            assert!(daemon.stop().success(), "{}", daemon.log());
        }
    }
}

// P19
#[test]
fn a_hanging_command_delays_no_block_and_dropped_ones_are_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let mut daemon = Daemon::start(
        &scene.host,
        &format!("respond: {{ {}, command_timeout: 1h }}", scene.command("sleep 1000; :")),
    );
    let sources: Vec<String> = (0..100).map(|n| format!("10.68.7.{n}")).collect();
    scene.sweep(&sources);
    assert!(
        eventually(Duration::from_secs(20), || daemon.blocked().len() == sources.len()),
        "{}\n{}",
        daemon.blocked().len(),
        daemon.log()
    );
    daemon.wait_for_log("not run: too many were waiting");
    assert!(
        eventually(Duration::from_secs(20), || responses(&daemon) == [0, 0, 100 - 4 - 64]),
        "{:?}",
        responses(&daemon)
    );
    let status = daemon.stop();
    assert!(status.success(), "{status}\n{}", daemon.log());
    scene.nothing_is_left();
    let log = daemon.log();
    let number = |line: &str| {
        line.split("ERROR: ").nth(1)?.split_once(" external command")?.0.parse::<u64>().ok()
    };
    let told: u64 = log
        .lines()
        .filter(|line| line.contains("not run: too many were waiting"))
        .filter_map(number)
        .sum();
    assert_eq!(told, 100 - 4, "those that waited are told of at the end: {log}");
}

// P18
#[test]
fn no_bytes_of_a_packet_reach_a_command() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, &format!("respond: {{ {} }}", note(&scene)));
    scene.sweep(&["10.68.7.1".to_owned()]);
    daemon.wait_for_log("External command run");
    let text = fs::read_to_string(scene.file("out")).unwrap();
    assert!(text.starts_with("10.68.7.1 "), "{text:?}");
    assert!(
        text.trim_end().chars().all(|c| c.is_ascii_alphanumeric() || " .:/|,-".contains(c)),
        "{text:?}"
    );
}

// P19
#[test]
fn a_killed_helper_is_reported_and_restarted() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let deny = scene.file("hosts.deny");
    let script = format!(
        "setsid sh -c \"(sleep 1000; :) & exit 0\" \"$0\"; echo run >> {}; sleep 1000; :",
        scene.file("out").display()
    );
    let yaml = format!(
        "respond: {{ {}, command_timeout: 1h, hosts_deny: {{ enabled: true, path: {} }} }}",
        scene.command(&script),
        deny.display()
    );
    let mut daemon = Daemon::start(&scene.host, &yaml);
    let first = helper(&daemon);
    scene.scan(&["-sS", HOST]);
    assert!(
        eventually(Duration::from_secs(10), || scene.lines("out").len() == 1),
        "{}",
        daemon.log()
    );
    kill(first);
    daemon.wait_for_log("the helper process ended unasked");
    // Its children end with it, whatever group they are in.
    scene.nothing_is_left();
    daemon.wait_for_block(SCANNER);
    let second = helper(&daemon);
    assert_ne!(first, second);
    fs::write(&deny, "").unwrap();
    scene.sweep(&["10.68.7.1".to_owned()]);
    daemon.wait_for_block("10.68.7.1");
    assert!(
        eventually(Duration::from_secs(10), || scene.lines("out").len() == 2),
        "{}",
        daemon.log()
    );
    let denied = || {
        let lines = scene.lines("hosts.deny");
        lines.iter().any(|line| line.contains(SCANNER))
            && lines.iter().any(|line| line.contains("10.68.7.1"))
    };
    assert!(
        eventually(Duration::from_secs(20), denied),
        "{:?}\n{}",
        scene.lines("hosts.deny"),
        daemon.log()
    );
    assert!(daemon.stop().success());
    scene.nothing_is_left();
    assert!(!Path::new(&format!("/proc/{second}")).exists());
}

/// Processor time of a process so far, in hundredths of a second (proc_pid_stat(5), fields 14 and
/// 15).
fn processor_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_helper_that_takes_no_orders_costs_no_time_and_is_replaced() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let deny = scene.file("hosts.deny");
    // The settings in each order have every one of these characters escaped: more than the socket
    // and the daemon buffer for it.
    let long = "\\u0001".repeat(4000);
    let yaml = |word: usize| {
        format!(
            "respond: {{ command: [/bin/sh, -c, 'echo $1 >> {}', x, \"{{target}}\", \"{word}{long}\"], hosts_deny: {{ enabled: true, path: {} }} }}",
            scene.file("out").display(),
            deny.display()
        )
    };
    let daemon = Daemon::start(&scene.host, &yaml(0));
    let first = helper(&daemon);
    assert!(Command::new("kill").args(["-STOP", &first.to_string()]).status().unwrap().success());
    for word in 1..=30 {
        daemon.write_configuration(&yaml(word));
        let reload = daemon.ctl(&["reload"]);
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    }
    scene.scan(&["-sS", HOST]);
    daemon.wait_for_block(SCANNER);
    let before = processor_time(daemon.child.id());
    std::thread::sleep(Duration::from_secs(3));
    let spent = processor_time(daemon.child.id()) - before;
    assert!(spent < 100, "{spent} hundredths of a second within three, and nothing to do");
    let told = || daemon.log().contains("the helper process took no order for 20 s and is ended");
    assert!(eventually(Duration::from_secs(60), told), "{}", daemon.log());
    assert_ne!(helper(&daemon), first);
    // Files are correct again, and the next command is run.
    assert!(
        eventually(Duration::from_secs(20), || scene
            .lines("hosts.deny")
            .iter()
            .any(|line| line.contains(SCANNER))),
        "{}",
        daemon.log()
    );
    scene.sweep(&["10.68.7.1".to_owned()]);
    assert!(
        eventually(Duration::from_secs(20), || scene
            .lines("out")
            .contains(&"10.68.7.1".to_owned())),
        "{}",
        daemon.log()
    );
}

// P19
#[test]
fn when_the_daemon_is_killed_its_helper_and_commands_are_gone() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let script = format!(
        "setsid sh -c \"(trap : TERM; sleep 1000; :) & exit 0\" \"$0\"; echo run >> {}; trap : TERM; sleep 1000; :",
        scene.file("out").display()
    );
    let mut daemon = Daemon::start(
        &scene.host,
        &format!("respond: {{ {}, command_timeout: 1h }}", scene.command(&script)),
    );
    let helper = helper(&daemon);
    scene.scan(&["-sS", HOST]);
    assert!(
        eventually(Duration::from_secs(10), || scene.lines("out").len() == 1
            && marked(&scene.mark).len() >= 2),
        "{}",
        daemon.log()
    );
    kill(daemon.child.id());
    daemon.child.wait().unwrap();
    scene.nothing_is_left();
    assert!(eventually(Duration::from_secs(10), || !Path::new(&format!("/proc/{helper}")).exists()));
}

/// Files of a namespace in place of those in /etc (ip-netns(8)); removed when dropped.
pub(crate) struct Etc(PathBuf);

impl Etc {
    pub(crate) fn new(namespace: &Namespace, files: &[(&str, &str)]) -> Self {
        let etc = Self(Path::new("/etc/netns").join(&namespace.name));
        fs::create_dir_all(&etc.0).unwrap();
        for (name, text) in files {
            fs::write(etc.0.join(name), text).unwrap();
        }
        etc
    }
}

impl Drop for Etc {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Only if it is otherwise empty.
        let _ = fs::remove_dir("/etc/netns");
    }
}

#[test]
fn names_are_reported_and_a_silent_name_server_delays_no_block() {
    if missing(TOOLS).is_some() || !Path::new("/etc/nsswitch.conf").exists() {
        return;
    }
    let scene = Scene::new();
    let hosts = format!("{SCANNER} scanner.example\n10.68.7.1 10.0.0.99\n");
    // No host answers at that address, not even with an error.
    let _etc = Etc::new(
        &scene.host,
        &[
            ("hosts", &hosts),
            ("resolv.conf", "nameserver 10.68.200.200\n"),
            ("nsswitch.conf", "hosts: files dns\n"),
        ],
    );
    let daemon = Daemon::start(&scene.host, "resolve: true");
    scene.scan(&["-sS", HOST]);
    daemon.wait_for_log(&format!("from host: scanner.example/{SCANNER} to TCP port"));
    scene.sweep(&["10.68.7.1".to_owned(), "10.68.7.2".to_owned()]);
    // The blocks are there before the lines.
    for address in ["10.68.7.1", "10.68.7.2"] {
        daemon.wait_for_block(address);
        daemon.wait_for_log(&format!("from host: {address}/{address} to TCP port"));
    }
    assert!(!daemon.log().contains("10.0.0.99"), "a name that reads like an address is none");
}

#[test]
fn a_reload_gives_the_next_scan_another_command() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.host, "");
    scene.scan(&["-sS", HOST]);
    daemon.wait_for_block(SCANNER);
    daemon.write_configuration(&format!("respond: {{ {} }}", note(&scene)));
    assert!(daemon.ctl(&["reload"]).status.success());
    scene.sweep(&["10.68.7.1".to_owned()]);
    daemon.wait_for_log("External command run for host: 10.68.7.1");
    assert_eq!(scene.lines("out").len(), 1);
    daemon.write_configuration("");
    assert!(daemon.ctl(&["reload"]).status.success());
    scene.sweep(&["10.68.7.2".to_owned()]);
    daemon.wait_for_block("10.68.7.2");
    assert_eq!(responses(&daemon), [1, 0, 0]);
}

// D3
#[test]
fn hosts_deny_lists_exactly_the_blocked_hosts() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    let deny = scene.file("hosts.deny");
    fs::write(&deny, "sshd: 203.0.113.9\n").unwrap();
    let base = scene.file("blocked");
    let yaml = format!(
        "respond: {{ hosts_deny: {{ enabled: true, path: {} }} }}\nblocked_file: {}",
        deny.display(),
        base.display()
    );
    let mut daemon = Daemon::start(&scene.host, &yaml);
    let has = |text: &str| scene.lines("hosts.deny").iter().any(|line| line.contains(text));
    let within = |condition: &dyn Fn() -> bool| {
        assert!(
            eventually(Duration::from_secs(20), condition),
            "{:?}\n{}",
            scene.lines("hosts.deny"),
            daemon.log()
        )
    };
    scene.scan(&["-sS", HOST]);
    within(&|| has(SCANNER) && scene.lines("blocked.atcp").len() == 1);
    assert!(daemon.ctl(&["block", "198.51.100.0/24"]).status.success());
    within(&|| has("198.51.100."));
    assert!(daemon.ctl(&["unblock", SCANNER]).status.success());
    within(&|| !has(SCANNER) && scene.lines("blocked.atcp").is_empty());
    daemon.stop();
    assert!(has("198.51.100."), "blocks stay when the daemon ends, and so do their lines");
    daemon.restart(&format!("mode: observe\n{yaml}"));
    assert!(
        eventually(Duration::from_secs(20), || scene.lines("hosts.deny") == ["sshd: 203.0.113.9"]),
        "{:?}",
        scene.lines("hosts.deny")
    );
    daemon.stop();
    daemon.restart(&yaml);
    assert!(eventually(Duration::from_secs(20), || has("198.51.100.")), "{}", daemon.log());
    daemon.stop();
    daemon.restart(&format!("on_exit: remove\n{yaml}"));
    daemon.stop();
    assert_eq!(scene.lines("hosts.deny"), ["sshd: 203.0.113.9"], "the blocks went with the table");
}
