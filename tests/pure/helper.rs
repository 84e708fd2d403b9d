//! The helper process alone: misbehaving commands, names, and its end. Needs no privilege.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portsentry::helper::commands::{AT_ONCE, WAITING_MAX};
use portsentry::helper::process::Process;
use portsentry::helper::protocol::{Message, Order, Run, Settings};
use portsentry::journal::{Ended, Response};
use support::{copy_program, eventually, marked, unique};

/// A helper with a mark in the arguments of all its children, to find them.
struct Helper {
    process: Option<Process>,
    messages: Vec<Message>,
    mark: String,
}

#[derive(Debug)]
struct Report {
    ended: Ended,
    output: String,
    command: String,
}

impl Helper {
    fn start() -> Self {
        let process =
            Process::start(Path::new(env!("CARGO_BIN_EXE_portsentry"))).expect("the helper starts");
        Self { process: Some(process), messages: Vec::new(), mark: unique("mark") }
    }

    /// With `sh -c SCRIPT` as its command, `$0` is the mark.
    fn with_script(script: &str, timeout: Duration) -> Self {
        let mut helper = Self::start();
        let command = [
            "/bin/sh",
            "-c",
            script,
            &helper.mark,
            "{target}",
            "{port}",
            "{mode}",
            "{protocol}",
            "{scan}",
            "{reason}",
        ];
        helper.configure(&command.map(str::to_owned), timeout);
        helper
    }

    fn configure(&mut self, command: &[String], timeout: Duration) {
        let settings =
            Settings { command: command.to_vec(), command_timeout: timeout, ..Settings::default() };
        self.send(&Order::Configure(Box::new(settings)));
    }

    fn send(&mut self, order: &Order) {
        let process = self.process.as_mut().unwrap();
        process.send(order);
        while process.unsent() > 0 {
            process.flush().unwrap();
        }
    }

    fn run(&mut self, reason: &str) {
        self.send(&Order::Run(Run {
            target: "192.0.2.7".into(),
            port: 22,
            mode: "atcp".into(),
            protocol: "tcp".into(),
            scan: "syn".into(),
            reason: reason.into(),
            state: "blocked".into(),
        }));
    }

    /// Receives until `wanted` finds its result among all messages.
    fn wait_for<T>(&mut self, mut wanted: impl FnMut(&[Message]) -> Option<T>) -> T {
        let mut found = None;
        assert!(
            eventually(Duration::from_secs(30), || {
                let messages = &mut self.messages;
                if let Some(process) = self.process.as_mut() {
                    let _ = process.receive(|message| messages.push(message));
                }
                found = wanted(messages);
                found.is_some()
            }),
            "not received: {:?}",
            self.messages
        );
        found.unwrap()
    }

    /// Runs the command and waits for its report.
    fn report(&mut self) -> Report {
        self.run("3 ports");
        self.wait_for(|messages| reports(messages).pop())
    }

    fn processes(&self) -> Vec<u32> {
        marked(&self.mark)
    }

    fn ends_all(&self) {
        assert!(
            eventually(Duration::from_secs(10), || self.processes().is_empty()),
            "left: {:?}",
            self.processes()
        );
    }
}

fn reports(messages: &[Message]) -> Vec<Report> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::Response(Response::Command { ended, output, command, .. }) => Some(Report {
                ended: ended.clone(),
                output: output.clone(),
                command: command.clone(),
            }),
            _ => None,
        })
        .collect()
}

fn dropped(messages: &[Message]) -> u64 {
    messages
        .iter()
        .map(|message| {
            if let Message::Response(Response::Dropped { commands }) = message {
                *commands
            } else {
                0
            }
        })
        .sum()
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);

// P18
#[test]
fn a_command_inherits_only_its_arguments_and_variables() {
    let script = "printf '%s|' \"$@\"; env | sort | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= ; pwd; cat; ls -l /proc/self/fd | wc -l";
    let mut helper = Helper::with_script(script, LONG);
    helper.run("syn scan: $(touch /x) `y` ; \"z\" {target}");
    let report = helper.wait_for(|messages| reports(messages).pop());
    assert_eq!(report.ended, Ended::Success, "{report:?}");
    let reason = "syn scan: $(touch /x) `y` ; \"z\" {target}";
    let expected = format!(
        "192.0.2.7|22|atcp|tcp|syn|{reason}|LANG=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPORTSENTRY_MODE=atcp\n\
         PORTSENTRY_PORT=22\nPORTSENTRY_PROTOCOL=tcp\nPORTSENTRY_REASON={reason}\nPORTSENTRY_SCAN=syn\nPORTSENTRY_STATE=blocked\nPORTSENTRY_TARGET=192.0.2.7\n/\n"
    );
    // Descriptors as ls lists them: 0, 1, 2, and the directory that it reads.
    assert_eq!(report.output, format!("{expected}5"), "{report:?}");
    assert!(
        report.command.starts_with("/bin/sh -c ")
            && report.command.contains("192.0.2.7 22 atcp tcp syn"),
        "{}",
        report.command
    );
}

#[test]
fn a_command_has_its_own_group_no_terminal_and_default_signals() {
    // Without another program: a shell that starts one may block all signals until it runs.
    let signals = "while read -r line; do case $line in SigIgn*|SigBlk*) echo \"$line\";; esac; done < /proc/$$/status";
    let mut helper = Helper::with_script(
        &format!("cut -d' ' -f1,5,6,7 < /proc/$$/stat; {signals}; echo $$"),
        LONG,
    );
    let report = helper.report();
    let lines: Vec<&str> = report.output.lines().collect();
    let pid = lines[3];
    assert_eq!(lines[0], format!("{pid} {pid} {pid} 0"), "{report:?}");
    // HUP, INT, USR1, PIPE and TERM as bits: the helper's own handling of them is not inherited.
    let held = |line: &str| {
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap() & 0x5203
    };
    assert_eq!((held(lines[1]), held(lines[2])), (0, 0), "{report:?}");
}

#[test]
fn a_command_that_fails_or_dies_is_reported_with_its_output() {
    let mut failed = Helper::with_script("echo out; echo err >&2; exit 7", LONG);
    let report = failed.report();
    assert_eq!((report.ended, report.output.as_str()), (Ended::Status(7), "out\nerr"));
    let mut killed = Helper::with_script("echo before; kill -SEGV $$", LONG);
    let report = killed.report();
    assert_eq!((report.ended, report.output.as_str()), (Ended::Signal(11), "before"));
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plain");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let script = directory.path().join("script");
    let text = directory.path().join("text");
    fs::write(&text, "#!/nowhere/at/all\n").unwrap();
    copy_program(text.to_str().unwrap(), &script);
    let (file, script) = (file.to_str().unwrap(), script.to_str().unwrap());
    for (program, why) in [
        ("/nowhere/at/all", "No such file"),
        (file, "Permission denied"),
        ("/", "Permission denied"),
        (script, "No such file"),
    ] {
        let mut helper = Helper::start();
        helper.configure(&[program.to_owned()], LONG);
        let report = helper.report();
        assert!(
            matches!(&report.ended, Ended::NotStarted(messages) if messages.contains(why) && !messages.contains("os error")),
            "{report:?}"
        );
    }
}

#[test]
fn a_hanging_command_is_ended_with_its_children() {
    let mut helper = Helper::with_script(
        "trap '' TERM; echo begun; for n in 1 2 3; do sh -c 'trap \"\" TERM; sleep 60' \"$0\" & done; sleep 60",
        SHORT,
    );
    let report = helper.report();
    assert_eq!((report.ended, report.output.as_str()), (Ended::TimedOut(SHORT), "begun"));
    helper.ends_all();
}

#[test]
fn a_command_is_terminated_before_it_is_killed() {
    let mut helper = Helper::with_script(
        "trap 'echo put in order; exit 0' TERM; echo begun; while :; do read -r _ < /proc/uptime; done",
        SHORT,
    );
    let report = helper.report();
    assert_eq!(
        (report.ended, report.output.as_str()),
        (Ended::TimedOut(SHORT), "begun\nput in order")
    );
}

#[test]
fn megabytes_of_output_are_read_and_forgotten() {
    let mut helper =
        Helper::with_script("head -c 50000000 /dev/zero | tr '\\0' x; echo end >&2", LONG);
    let report = helper.report();
    assert_eq!((report.ended, report.output), (Ended::Success, "x".repeat(1024)));
    let mut endless = Helper::with_script("exec cat /dev/zero", SHORT);
    assert_eq!(
        endless.report().ended,
        Ended::TimedOut(SHORT),
        "who writes for ever has no more time than others"
    );
}

// P19
#[test]
fn a_daemon_that_left_its_group_and_holds_the_output_open_is_found_and_ended() {
    // setsid and two forks; it ignores what can be ignored, and its parent is gone before the
    // command ends.
    let script = "setsid sh -c '(trap \"\" TERM HUP INT; echo daemon; sleep 60; :) & exit 0' \"$0\"; sleep 0.3; echo command";
    let mut helper = Helper::with_script(script, LONG);
    let report = helper.report();
    assert_eq!((report.ended, report.output.as_str()), (Ended::Success, "daemon\ncommand"));
    helper.ends_all();
}

#[test]
fn leftovers_of_a_command_are_ended_and_running_commands_left_alone() {
    let script = "case $PORTSENTRY_REASON in
        slow) setsid sh -c '(sleep 2; echo late) & exit 0' \"$0\"; echo early; sleep 4 ;;
        quick) setsid sleep 60 & sleep 0.2 ;;
    esac";
    let mut helper = Helper::with_script(script, LONG);
    helper.run("slow");
    for _ in 0..3 {
        helper.run("quick");
    }
    let reports =
        helper.wait_for(|messages| Some(reports(messages)).filter(|reports| reports.len() == 4));
    assert!(reports.iter().all(|report| report.ended == Ended::Success), "{reports:?}");
    assert_eq!(
        reports[3].output, "early\nlate",
        "its own orphan lived as long as it did: {reports:?}"
    );
    helper.ends_all();
}

#[test]
fn four_run_sixty_four_wait_and_the_rest_is_dropped_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let mut helper = Helper::with_script(
        &format!("while ! [ -e {} ]; do sleep 0.05; done", gate.display()),
        LONG,
    );
    let extra = 30;
    for _ in 0..AT_ONCE + WAITING_MAX + extra {
        helper.run("x");
    }
    let count = helper
        .wait_for(|messages| Some(dropped(messages)).filter(|dropped| *dropped >= extra as u64));
    assert_eq!(count, extra as u64);
    let shells = || {
        helper
            .processes()
            .iter()
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sh\n")
            })
            .count()
    };
    assert!(eventually(Duration::from_secs(10), || shells() == AT_ONCE), "{}", shells());
    fs::write(&gate, "").unwrap();
    let reports = helper.wait_for(|messages| {
        Some(reports(messages)).filter(|reports| reports.len() == AT_ONCE + WAITING_MAX)
    });
    assert!(reports.iter().all(|report| report.ended == Ended::Success));
}

#[test]
fn when_the_daemon_is_gone_nothing_is_left() {
    let script = "setsid sh -c '(trap \"\" TERM HUP; sleep 60; :) & exit 0' \"$0\"; trap '' TERM; sleep 60; :";
    let mut helper = Helper::with_script(script, LONG);
    for _ in 0..10 {
        helper.run("x");
    }
    assert!(
        eventually(Duration::from_secs(10), || helper.processes().len() >= 2 * AT_ONCE),
        "{:?}",
        helper.processes()
    );
    let pid = helper.process.as_ref().unwrap().id().unwrap();
    // Closing the socket is enough, for whatever reason the daemon ended.
    helper.send(&Order::End(Duration::ZERO));
    helper.ends_all();
    assert!(eventually(Duration::from_secs(10), || !helper
        .process
        .as_mut()
        .unwrap()
        .receive(|_| {})
        .unwrap_or(false)));
    drop(helper.process.take());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn at_the_end_running_commands_get_a_moment_and_waiting_ones_are_dropped() {
    let mut helper = Helper::with_script("sleep 1; echo done", LONG);
    for _ in 0..AT_ONCE + 3 {
        helper.run("x");
    }
    helper.send(&Order::End(Duration::from_secs(20)));
    let messages = helper.wait_for(|messages| {
        Some(messages.to_vec()).filter(|messages| reports(messages).len() == AT_ONCE)
    });
    assert_eq!(dropped(&messages), 3);
    assert!(reports(&messages).iter().all(|report| report.output == "done"), "{messages:?}");
}

#[test]
fn signals_that_a_terminal_sends_to_the_group_do_not_end_it() {
    let mut helper = Helper::with_script("echo still there", LONG);
    helper.wait_for(|messages| messages.contains(&Message::Ready).then_some(()));
    let pid = helper.process.as_ref().unwrap().id().unwrap().to_string();
    for signal in ["-INT", "-HUP", "-TERM", "-USR1"] {
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
    assert_eq!(helper.report().output, "still there");
}

#[test]
fn invalid_orders_end_the_helper_without_harm() {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    for nonsense in
        [&b"\xff\xfe\n"[..], b"{\"run\":{}}\n", b"[]\n", b"{\"end\":\"never\"}\n", &[b'x'; 300_000]]
    {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_portsentry"))
            .arg("helper")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = ours.write_all(nonsense);
        let mut status = None;
        let ended = eventually(Duration::from_secs(10), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let _ = child.kill();
        let _ = child.wait();
        assert!(ended && status.unwrap().code() == Some(1), "{status:?}");
    }
}

#[test]
fn the_helper_cannot_be_started_manually() {
    let output = Command::new(env!("CARGO_BIN_EXE_portsentry"))
        .arg("helper")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let help = Command::new(env!("CARGO_BIN_EXE_portsentry")).arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("helper"));
}

#[test]
fn every_name_query_is_answered_once() {
    let mut helper = Helper::start();
    for address in ["127.0.0.1", "192.0.2.1", "2001:db8::1"] {
        helper.send(&Order::Resolve(address.parse().unwrap()));
    }
    let names: Vec<_> = helper.wait_for(|messages| {
        let names: Vec<_> = messages
            .iter()
            .filter_map(|message| {
                if let Message::Name { address, name } = message {
                    Some((*address, name.clone()))
                } else {
                    None
                }
            })
            .collect();
        (names.len() == 3).then_some(names)
    });
    // By /etc/hosts of nearly every machine.
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if hosts.lines().any(|line| line.split_whitespace().next() == Some("127.0.0.1")) {
        assert!(
            names.iter().any(|(address, name)| address.is_loopback() && name.is_some()),
            "{names:?}"
        );
    }
}
