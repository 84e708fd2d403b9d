//! Every change through the control socket has a line with who, what and the result; and commands
//! that may cut an administrator off are refused.

use crate::support;

use std::process::{Command, Output};

use super::slow::serve;
use serde_json::Value;
use std::time::Duration;
use support::daemon::Daemon;
use support::scene::Scene;
use support::{done, eventually, missing, output_text};

const HOST: &str = "10.75.1.1";
const SCANNER: &str = "10.75.1.2";
const TOOLS: &[&str] = &["ip", "nft", "python3"];

fn scene() -> Scene {
    Scene::new(&["10.75.1.1/24"], &["10.75.1.2/24", "10.75.1.3/24"])
}

fn controls(daemon: &Daemon<'_>) -> Vec<Value> {
    let log = daemon.log();
    let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.filter(|event| event["event"] == "control").collect()
}

#[test]
fn every_change_has_a_line_with_who_what_and_result() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "log: { format: json }");
    for number in 1..=60 {
        done(&daemon.ctl(&["block", &format!("192.0.2.{number}"), "--reason", "ticket 7"]));
    }
    done(&daemon.ctl(&["unblock", "--all"]));
    let others: [(&[&str], &str, bool); 9] = [
        (&["allow", "add", "198.51.100.9"], "allow add 198.51.100.9", true),
        (&["allow", "remove", "198.51.100.9"], "allow remove 198.51.100.9", true),
        (&["unblock", "198.51.100.9"], "unblock 198.51.100.9", false),
        (&["reload"], "reload", true),
        (&["off"], "off", true),
        (&["pause", "5m"], "pause \"5m\"", true),
        (&["on"], "on", true),
        (&["observe"], "observe", true),
        (&["enforce", "--confirm", "90s"], "enforce --confirm \"1m 30s\"", true),
    ];
    for (words, _, is_done) in others {
        assert_eq!(daemon.ctl(words).status.success(), is_done, "{words:?}");
    }
    let wanted = 61 + others.len();
    assert!(
        eventually(Duration::from_secs(20), || controls(&daemon).len() == wanted),
        "{}",
        daemon.log()
    );
    let lines = controls(&daemon);
    for (number, line) in (1..=60).zip(&lines) {
        let block = format!("block 192.0.2.{number} --reason \"ticket 7\"");
        assert_eq!(line["command"], block, "{line}");
        assert_eq!(line["result"], format!("192.0.2.{number} is blocked for 1h"), "{line}");
    }
    assert_eq!(
        (&lines[60]["command"], &lines[60]["done"]),
        (&"unblock --all".into(), &true.into())
    );
    assert_eq!(lines[60]["result"], "60 blocks are lifted");
    for ((_, command, is_done), line) in others.iter().zip(&lines[61..]) {
        assert_eq!(
            (&line["command"], &line["done"]),
            (&(*command).into(), &(*is_done).into()),
            "{line}"
        );
        assert!(!line["result"].as_str().unwrap().is_empty(), "{line}");
    }
    for line in &lines {
        assert_eq!((&line["uid"], &line["user"]), (&0.into(), &"root".into()), "{line}");
        assert!(line["pid"].as_u64().unwrap() > 0, "{line}");
    }
}

#[test]
fn the_classic_line_of_a_change_is_one_line() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    daemon.write_configuration("no_such_key: 1\nnor_this: 2");
    assert_eq!(daemon.ctl(&["reload"]).status.code(), Some(78));
    done(&daemon.ctl(&["block", SCANNER, "--for", "0"]));
    daemon.wait_for_log(
        ": block 10.75.1.2 --for 0: done: 10.75.1.2 is blocked until it is unblocked",
    );
    let log = daemon.log();
    let refused = log.lines().find(|line| line.contains(": reload: refused: ")).unwrap();
    assert!(refused.contains("adminalert: Command of root (uid 0, process "), "{refused}");
    assert!(!log.contains("asks:"), "{log}");
}

/// Runs `portsentryctl` on a terminal that answers.
fn on_a_terminal(daemon: &Daemon<'_>, words: &[&str], answer: &str) -> Output {
    const RUN: &str = "import os,pty,sys\npid,fd=pty.fork()\nif pid==0: os.execv(sys.argv[2],sys.argv[2:])\nout=b''\nsent=False\nwhile True:\n  try: more=os.read(fd,4096)\n  except OSError: break\n  if not more: break\n  out+=more\n  if b'[y/N]' in out and not sent:\n    os.write(fd,(sys.argv[1]+'\\n').encode()); sent=True\nsys.stdout.write(out.decode())\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))";
    Command::new("python3")
        .args(["-c", RUN, answer, env!("CARGO_BIN_EXE_portsentryctl"), "--socket"])
        .arg(daemon.path("control.sock"))
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn unblocking_everything_asks_on_a_terminal() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, "");
    let block = || done(&daemon.ctl(&["block", SCANNER]));
    block();
    let asked = on_a_terminal(&daemon, &["unblock", "--all"], "n");
    let text = output_text(&asked);
    assert!(text.contains("End 1 block and release 0 slowed sources? [y/N]"), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    assert_eq!((asked.status.code(), daemon.blocked().len()), (Some(1), 1), "{text}");
    let asked = on_a_terminal(&daemon, &["unblock", "--all"], "y");
    assert_eq!((asked.status.code(), daemon.blocked().len()), (Some(0), 0), "{asked:?}");
    block();
    let told = on_a_terminal(&daemon, &["unblock", "--all", "--yes"], "");
    assert!(told.status.success() && !output_text(&told).contains("y/N"), "{told:?}");
    assert_eq!(daemon.blocked().len(), 0);
    // A script has no terminal, and works as ever.
    block();
    done(&daemon.ctl(&["unblock", "--all"]));
}

#[test]
fn blocking_an_administrators_session_or_this_host_is_refused() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon =
        Daemon::start(&scene.host, "never_block:\n  ssh_peers: false\n  admin_ports: [2222]");
    // The session in which portsentryctl runs.
    let in_session = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .arg("--socket")
            .arg(daemon.path("control.sock"))
            .args(words)
            .env("SSH_CONNECTION", format!("{SCANNER} 40000 {HOST} 22"))
            .output()
            .unwrap()
    };
    for target in [SCANNER, "10.75.1.0/30"] {
        let refused = in_session(&["block", target]);
        let text = output_text(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("other end of this SSH session") || target != SCANNER, "{text}");
    }
    done(&in_session(&["block", SCANNER, "--force"]));
    done(&daemon.ctl(&["unblock", SCANNER]));
    done(&in_session(&["block", "192.0.2.7"]));
    // Another administrator's session.
    let _service = serve(&scene.host, HOST, &["2222"]);
    let _session = scene.scanner.spawn(
        "python3",
        &["-c", &format!("import socket,time; s=socket.create_connection(('{HOST}',2222),source_address=('10.75.1.3',0)); time.sleep(60)")],
    );
    let refused = || {
        let output = daemon.ctl(&["block", "10.75.1.3"]);
        if output.status.success() {
            // The connection is not there yet.
            done(&daemon.ctl(&["unblock", "10.75.1.3"]));
        }
        output_text(&output).contains("has a connection to port 2222")
    };
    assert!(eventually(Duration::from_secs(20), refused), "{}", daemon.log());
    done(&daemon.ctl(&["block", "10.75.1.3", "--force"]));
    // This host.
    let own = daemon.ctl(&["block", HOST, "--force"]);
    let text = output_text(&own);
    assert_eq!(own.status.code(), Some(1), "{text}");
    assert!(text.contains("10.75.1.1 is an address of this host"), "{text}");
}
