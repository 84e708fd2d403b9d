//! `portsentryctl` on a real terminal and off it: colours, the pager, and `watch` over a restart.

use crate::control::fake::{Daemon, FakeHandler, LONG};
use crate::support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portsentry::journal::Notice;
use support::terminal::Terminal;

fn ctl(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portsentryctl"));
    command.arg("--socket").arg(daemon.socket()).args(words).env_remove("PAGER");
    command
}

fn written(command: Command) -> String {
    let mut terminal = Terminal::start(command, 120, 40);
    assert!(terminal.end().success(), "{}", terminal.screen());
    assert!(terminal.is_usual());
    String::from_utf8(terminal.written.clone()).unwrap()
}

#[test]
fn status_has_colours_on_a_terminal_that_wants_them_alone() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let text = written(ctl(&daemon, &["status"]));
    assert!(text.contains("PortSentry 0.1.0 \u{1b}[32mblocks scans\u{1b}[0m, up"), "{text}");
    assert!(text.contains("\u{1b}[33mWarning: resolve: not in force yet\u{1b}[0m"), "{text}");
    let mut command = ctl(&daemon, &["status"]);
    command.env("NO_COLOR", "1");
    let text = written(command);
    assert!(text.contains("blocks scans, up") && !text.contains('\u{1b}'), "{text}");
    let output = ctl(&daemon, &["status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("blocks scans, up") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn long_output_goes_through_the_pager_on_a_terminal_alone() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    let pager = format!("tee {}", kept.display());
    let mut command = ctl(&daemon, &["list"]);
    command.env("PAGER", &pager);
    let shown = written(command);
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains("10.77.1.1") && shown.contains("10.77.1.1"), "{text} {shown}");
    std::fs::remove_file(&kept).unwrap();
    for words in [&["list", "--no-pager"][..], &["status"]] {
        let mut command = ctl(&daemon, words);
        command.env("PAGER", &pager);
        assert!(written(command).contains('1'));
    }
    let output = ctl(&daemon, &["list"]).env("PAGER", &pager).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("10.77.1.1"));
    assert!(!kept.exists(), "no pager ran");
    // A pager that is not there, and one that reads nothing.
    for pager in ["/nowhere/pager", "", "true"] {
        let mut command = ctl(&daemon, &["list"]);
        command.env("PAGER", pager);
        let text = written(command);
        assert!(pager == "true" || text.contains("10.77.1.1"), "{pager}: {text}");
    }
}

#[test]
fn a_long_file_shows_its_progress_on_a_terminal_and_a_short_one_none() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    for (count, is_shown) in [(10_000_u32, true), (4_000, false)] {
        let lines = (0..count).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string());
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let words = ["block", "--from", file.to_str().unwrap(), "--list", "scanners"];
        let mut terminal = Terminal::start(ctl(&daemon, &words), 120, 40);
        assert!(terminal.end().success(), "{}", terminal.screen());
        // One line, which has given way.
        assert_eq!(terminal.screen().trim_end(), "the rest is blocked");
        let text = String::from_utf8_lossy(&terminal.written).into_owned();
        assert_eq!(text.contains("\r 10 %\r 20 %"), is_shown, "{text:?}");
        let output = ctl(&daemon, &words).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn where_sources_are_is_left_out_of_a_list_that_a_terminal_has_no_room_for() {
    let places = crate::geo::files();
    let handler = FakeHandler { geo: places.both(), ..FakeHandler::default() };
    let daemon = Daemon::start(handler, "");
    for (columns, wanted) in [(100, [false, false]), (140, [true, false]), (200, [true, true])] {
        let mut terminal = Terminal::start(ctl(&daemon, &["list", "--no-pager"]), columns, 40);
        assert!(terminal.end().success(), "{}", terminal.screen());
        let screen = terminal.screen();
        let header = screen.lines().next().unwrap();
        let shown = ["  COUNTRY  ", "  AS  "].map(|name| header.contains(name));
        assert_eq!(shown, wanted, "{columns}: {screen}");
    }
}

#[test]
fn a_list_is_unblocked_only_once_that_is_confirmed() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    for (answer, code, said) in
        [("n\n", 1, "nothing was changed"), ("y\n", 0, "3 blocks of the list scanners are lifted")]
    {
        let command = ctl(&daemon, &["unblock", "--list", "scanners"]);
        let mut terminal = Terminal::start(command, 120, 40);
        terminal.wait_for("End 3 blocks of the list scanners? [y/N]");
        terminal.keys(answer);
        assert_eq!(terminal.end().code(), Some(code), "{}", terminal.screen());
        assert!(terminal.screen().contains(said), "{}", terminal.screen());
    }
}

/// The lines that a program writes, as they come.
fn lines(of: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(of).lines().map_while(Result::ok);
        read.for_each(|line| drop(sender.send(line)));
    });
    lines
}

#[test]
fn watch_goes_on_when_the_daemon_was_started_again() {
    let mut daemon = Daemon::start(FakeHandler::default(), "");
    let mut child = ctl(&daemon, &["--json", "watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events = lines(child.stdout.take().unwrap());
    let errors = lines(child.stderr.take().unwrap());
    let event = |daemon: &Daemon, text: &str| {
        let arrived = support::eventually(LONG, || {
            // Until the client has connected, there is no watcher.
            daemon.journal.notify(Notice::Warning(text.into()));
            let line = events.recv_timeout(Duration::from_millis(50));
            line.is_ok_and(|line| {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap();
                event["message"] == text
            })
        });
        assert!(arrived, "{text}");
    };
    event(&daemon, "before");
    daemon.stop();
    let error = errors.recv_timeout(LONG).unwrap();
    assert!(
        error.starts_with("portsentryctl: the daemon ")
            && error.ends_with("; waiting for the daemon"),
        "{error}"
    );
    daemon.serve(FakeHandler::default(), "");
    assert_eq!(errors.recv_timeout(LONG).unwrap(), "portsentryctl: the daemon answers again");
    event(&daemon, "after");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watch_waits_no_longer_than_its_reader() {
    let mut daemon = Daemon::start(FakeHandler::default(), "");
    let mut child =
        ctl(&daemon, &["watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let errors = lines(child.stderr.take().unwrap());
    let output = child.stdout.take().unwrap();
    let connected = || {
        daemon.journal.notify(Notice::Warning("look".into()));
        support::eventually(Duration::from_millis(50), || {
            portsentry::sys::poll::readable(
                std::os::fd::AsFd::as_fd(&output),
                Duration::from_millis(10),
            )
            .unwrap()
        })
    };
    assert!(support::eventually(LONG, connected));
    daemon.stop();
    assert!(errors.recv_timeout(LONG).unwrap().contains("waiting"));
    drop(output);
    assert!(child.wait().unwrap().success());
}
