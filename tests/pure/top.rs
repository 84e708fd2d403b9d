//! `portsentryctl top` on a real terminal, and what it leaves behind.

use crate::control::fake::{Daemon, FakeHandler, target};
use crate::support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use portsentry::control::Request;
use rustix::process::{Pid, Signal, kill_process};
use support::terminal::Terminal;

fn top(daemon: &Daemon, columns: u16, rows: u16, colour: bool) -> Terminal {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portsentryctl"));
    command.arg("--socket").arg(daemon.socket()).arg("top");
    if !colour {
        command.env("NO_COLOR", "1");
    }
    Terminal::start(command, columns, rows)
}

fn has_colour(terminal: &Terminal) -> bool {
    // SGR with a colour: 30 to 37, or 38;5;n.
    String::from_utf8_lossy(&terminal.written)
        .split("\u{1b}[")
        .filter_map(|rest| rest.split_once('m').map(|(codes, _)| codes))
        .any(|codes| {
            codes.split(';').any(|code| code.len() == 2 && code.starts_with('3') && code != "39")
        })
}

#[test]
fn the_screen_says_what_an_administrator_asks_at_both_sizes() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    for (columns, rows) in [(80, 24), (200, 60)] {
        let mut terminal = top(&daemon, columns, rows, true);
        let screen = terminal.wait_for("10.77.1.1");
        support::keep_picture(&format!("top-{columns}.txt"), &screen);
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines.len(), usize::from(rows), "{screen}");
        assert!(lines[0].starts_with(" PROTECTED  resolve: not in force yet"), "{screen}");
        assert!(
            lines[1].starts_with(
                "PortSentry 0.1.0 up 1h 2m; tcp 1021 ports, udp 1 port, 1 packet lost"
            ),
            "{screen}"
        );
        assert!(lines[2].contains("Probes/s") && lines[2].contains("Blocks/s"), "{screen}");
        let at = lines.iter().position(|line| line.starts_with("ADDRESS")).unwrap();
        assert!(
            lines[at - 1].starts_with("3 sources blocked or slowed, by most packets"),
            "{screen}"
        );
        let table: Vec<Vec<&str>> =
            lines[at..at + 4].iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(table[0][..3], ["ADDRESS", "STATE", "CAUSE"]);
        assert_eq!(table[1][..7], ["10.77.1.1", "blocked", "unproven", "58", "s", "1234", "syn"]);
        assert_eq!(
            table[2][..7],
            ["2001:db8:1::/64", "blocked", "proven", "1h", "2m", "7", "xmas"]
        );
        assert_eq!(table[3][..6], ["192.0.2.0/24", "blocked", "by", "order", "never", "0"]);
        assert!(lines.last().unwrap().starts_with("Enter explain  u unblock  a allow"), "{screen}");
        if columns == 200 {
            assert!(screen.contains("by hand: abuse\\u{1b}[2J"), "control characters are escaped");
            assert!(screen.contains("syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3"), "{screen}");
        }
        assert!(has_colour(&terminal));
        terminal.keys("q");
        assert!(terminal.end().success());
        assert!(terminal.is_usual());
    }
}

#[test]
fn keys_explain_filter_sort_unblock_and_allow() {
    let places = crate::geo::files();
    let handler = FakeHandler { geo: places.both(), ..FakeHandler::default() };
    let daemon = Daemon::start(handler, "");
    let mut terminal = top(&daemon, 80, 24, false);
    terminal.wait_for("10.77.1.1");
    terminal.keys("\r");
    let screen = terminal.wait_for("10.77.1.1 is blocked.");
    assert!(
        screen.contains("cause        unproven") && screen.contains("more than 2 are a scan"),
        "{screen}"
    );
    assert!(screen.contains("located      DE, AS64496 Example\\u{1b}[2J"), "{screen}");
    terminal.keys("\r");
    terminal.wait("the list again", |screen| {
        !screen.contains("is blocked.") && screen.contains("? help")
    });
    terminal.keys("?");
    terminal.wait_for("never block it from now on");
    terminal.keys(" s");
    terminal.wait_for("by newest");
    terminal.keys("sss/2001:db8::/32");
    let screen = terminal.wait_for("; 1 with \"2001:db8::/32\"");
    assert!(!screen.contains("10.77.1.1 "), "{screen}");
    terminal.keys("\r");
    terminal.keys("u");
    terminal.wait_for("Unblock 2001:db8:1::/64? [y/N]");
    terminal.keys("n");
    terminal.wait_for("nothing was changed");
    terminal.keys("uy");
    terminal.wait_for("2001:db8:1::/64 is not blocked any more.");
    terminal.keys("ay");
    terminal.wait_for("2001:db8:1::/64 is never blocked from now on.");
    let asked = daemon.asked.lock().unwrap();
    let changes: Vec<&Request> = asked.iter().filter(|request| request.changes()).collect();
    let address = target("2001:db8:1::/64");
    assert_eq!(changes, [&Request::Unblock { address }, &Request::AllowAdd { address }]);
    drop(asked);
    assert!(!has_colour(&terminal), "NO_COLOR");
    // Esc drops the filter first.
    terminal.keys("\u{1b}");
    terminal.wait_for("10.77.1.1 ");
    terminal.keys("\u{3}");
    assert!(terminal.end().success() && terminal.is_usual());
}

#[test]
fn a_daemon_that_starts_again_is_shown_again_and_a_signal_leaves_the_terminal_as_it_was() {
    let mut daemon = Daemon::start(FakeHandler::default(), "");
    let mut terminal = top(&daemon, 80, 24, false);
    terminal.wait_for(" PROTECTED ");
    daemon.stop();
    terminal.wait_for(" NO DAEMON ");
    daemon.serve(FakeHandler { empty: true, ..FakeHandler::default() }, "");
    terminal.wait_for("Nothing is blocked or slowed.");
    terminal.wait_for(" PROTECTED ");
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).unwrap();
    assert_eq!(terminal.end().signal(), Some(Signal::TERM.as_raw()));
    assert!(terminal.is_usual());
}

#[test]
fn it_ends_with_its_terminal() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut terminal = top(&daemon, 80, 24, false);
    terminal.wait_for(" PROTECTED ");
    let _ = terminal.hang_up();
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portsentryctl"));
    let output = command.arg("--socket").arg(daemon.socket()).arg("top").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("top needs a terminal\n  \"portsentryctl status\""), "{text}");
}
