//! The control socket and `portsentryctl`: real sockets, and clients of which some are hostile.

pub mod fake;

use crate::support;

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use portsentry::control::client::{Client, ClientError};
use portsentry::control::{Kind, ListenError, Past, Reply, Request, listen};
use portsentry::ctl::{self, Zone};
use portsentry::journal::Notice;

use fake::{Daemon, FakeHandler, LONG, target};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn status_is_shown_to_people_and_programs() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (code, out, err) = daemon.ctl("status");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "\
PortSentry 0.1.0 blocks scans, up 1h 2m (process 42).
  config       /etc/portsentry/portsentry.yaml
  mode         enforce
  capture      nflog, group 77
  watching     tcp advanced, 1021 ports: 1-112, 114-138, 140-1023
               udp stealth, 1 port: 7
  blocked      3: 1 proven, 1 unproven, 1 by order
  slowed       2
  never block  5 addresses and networks, 2 administrators remembered
               office.example.net: 192.0.2.7; resolved 2026-11-20 15:26:40Z
               whatever arrives over wg0
  tracked      812 of 262144 connections
  sources      12
  probes       4711
  lost         1 packet
  responses    3 commands run, 1 of them failed, 2 dropped
  rights       daemon: user portsentry, CAP_NET_ADMIN, 2 filters of system calls, Landlock 6
               packet thread: user portsentry, CAP_NET_ADMIN, 3 filters of system calls, Landlock 6
               helper: user portsentry, no capability, 1 filter of system calls
  notify       webhook: 3 messages sent, 2 attempts failed, 4 waiting, 1 event dropped; the last attempt failed: the server answers 500
  held back    0 log lines
  reflex       off
Warning: resolve: not in force yet
"
    );
    let status = json(&daemon.ctl("--json status").1);
    for key in
        ["mode", "capture", "watching", "sources", "blocked", "probes", "lost", "uptime", "config"]
    {
        assert!(status.get(key).is_some(), "{key}");
    }
}

#[test]
fn a_file_of_addresses_is_blocked_but_for_lines_that_are_told_with_their_place() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    let mut lines = vec!["# a comment".to_owned(), String::new()];
    // Each once, though the last is there twice.
    lines.extend(
        (0..2500u32).map(|n| format!("{} ; SBL{n}", std::net::Ipv4Addr::from(0x0a00_0000 + n))),
    );
    lines.push("10.0.9.195".into());
    lines.extend(
        ["192.0.2.66 # ours", "10.1.0.0/16", "2001:db8::/48\r", "example.org", "10.0.0.0/40"]
            .map(str::to_owned),
    );
    std::fs::write(&file, lines.join("\n")).unwrap();
    let path = file.to_str().unwrap();
    let (code, out, err) =
        daemon.ctl(&format!("block 192.0.2.1 --from {path} --for 2h --reason abuse"));
    let forms =
        "neither an address (192.0.2.1, 2001:db8::1) nor a network (192.0.2.0/24, 2001:db8::/48)";
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            1,
            "the rest is blocked\n",
            format!("{path}:2504: 192.0.2.66 is never blocked (allow)\n  allow it no longer\n{path}:2507: \"example.org\" is {forms}\n{path}:2508: \"10.0.0.0/40\" is {forms}\n").as_str()
        )
    );
    let asked = daemon.asked.lock().unwrap().clone();
    let parts: Vec<_> = asked
        .iter()
        .map(|request| match request {
            Request::BlockSeveral(several) => several.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        parts.iter().map(|part| (part.targets.len(), part.more)).collect::<Vec<_>>(),
        [(1000, true), (1000, true), (504, false)]
    );
    assert!(
        parts
            .iter()
            .all(|part| part.seconds == Some(7200) && part.reason == "abuse" && !part.force)
    );
    assert_eq!(parts[0].targets[..2], [target("192.0.2.1"), target("10.0.0.0")]);

    let (code, out, _) = daemon.ctl(&format!("--json block --from {path}"));
    let document = json(&out);
    assert_eq!((code, &document["blocked"]), (1, &2502.into()));
    assert_eq!(document["refused"][1]["line"], 2507);
    assert_eq!(document["refused"][1]["target"], "example.org");
    let (code, _, err) = daemon.ctl("block --from /nowhere/list");
    assert!(
        code == 1 && err.starts_with("portsentryctl: /nowhere/list cannot be read"),
        "{code} {err}"
    );
    assert_eq!(daemon.ctl("block").0, 64);
}

#[test]
fn a_list_is_loaded_shown_and_unblocked_in_parts() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list");
    let lines: Vec<String> =
        (0..1500).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let line = format!("--json block --from {} --list scanners --add", file.to_str().unwrap());
    let (code, out, err) = daemon.ctl(&line);
    assert_eq!(code, 0, "{err}");
    assert_eq!(json(&out)["list"]["new"], 500);
    let asked = std::mem::take(&mut *daemon.asked.lock().unwrap());
    let scanners: portsentry::engine::ListName = "scanners".parse().unwrap();
    assert_eq!(asked.len(), 2);
    for request in asked {
        let Request::BlockSeveral(part) = request else { panic!("{request:?}") };
        assert_eq!((part.list.as_ref(), part.add), (Some(&scanners), true));
    }
    assert_eq!(
        daemon.ctl("lists").1,
        "LIST      BLOCKS  ENDS IN  END\nscanners       3       1h  2026-11-20 16:26:40Z\n"
    );
    assert_eq!(json(&daemon.ctl("lists --json").1)[0]["blocks"], 3);
    daemon.asked.lock().unwrap().clear();
    let (code, out, _) = daemon.ctl("unblock --list scanners --yes");
    assert_eq!((code, out.as_str()), (0, "3 blocks of the list scanners are lifted\n"));
    let asked = daemon.asked.lock().unwrap().clone();
    let part = |from| Request::UnblockPart { list: Some(scanners.clone()), from };
    assert_eq!(asked[1..], [part(None), part(Some(4000))]);
    assert_eq!(daemon.ctl("unblock --list others").0, 1);
}

#[test]
fn several_are_unblocked_and_what_is_not_blocked_is_told() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (code, out, err) = daemon.ctl("unblock 10.77.1.1 198.51.100.1 192.0.2.0/24 10.77.1.1");
    assert_eq!(code, 1, "{out}{err}");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(err.contains("198.51.100.1 is not blocked"), "{err}");
}

// P13
#[test]
fn the_list_is_sorted_aligned_and_escaped() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (code, out, _) = daemon.ctl("list");
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "\
ADDRESS          STATE    SCAN  CAUSE     ENDS IN  DROPPED  PASSED  SINCE                 REASON
10.77.1.1        blocked  syn   unproven     58 s     1234       -  2026-11-20 15:26:40Z  syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
192.0.2.0/24     blocked  -     by order    never        0       -  2026-11-20 15:26:40Z  by hand: abuse\\u{1b}[2J
2001:db8:1::/64  blocked  xmas  proven      1h 2m        7       -  2026-11-20 15:26:40Z  xmas scan, proven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
"
    );
    let (code, out, _) = daemon.ctl("list --json");
    assert_eq!(code, 0);
    assert!(!out.contains('\u{1b}'));
    let list = json(&out);
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!(
        list[0],
        serde_json::json!({"address": "10.77.1.1", "state": "blocked", "cause": "unproven", "reason": "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3", "scan": "syn", "proven": false,
        "since": "2026-11-20T15:26:40Z", "until": "2026-11-20T15:27:38Z", "expires_in": 58, "packets": 1234, "passed": null, "renewals": 0, "exempt": [], "campaign": null, "list": null,
        "explanation": {
            "code": "scan", "text": "syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3", "scan": "syn", "proven": false,
            "ports": [{"transport": "tcp", "number": 1}, {"transport": "tcp", "number": 2}, {"transport": "tcp", "number": 3}]
        }})
    );
    assert_eq!(list[1]["expires_in"], serde_json::Value::Null);
}

#[test]
fn an_empty_list_is_a_sentence_or_an_empty_array() {
    let daemon = Daemon::start(FakeHandler { empty: true, ..FakeHandler::default() }, "");
    assert_eq!(daemon.ctl("list"), (0, "Nothing is blocked or slowed.\n".into(), String::new()));
    assert_eq!(daemon.ctl("list --json"), (0, "[]\n".into(), String::new()));
    assert_eq!(daemon.ctl("history"), (0, "Nothing happened.\n".into(), String::new()));
    assert_eq!(daemon.ctl("history --json"), (0, "[]\n".into(), String::new()));
}

#[test]
fn the_state_of_an_address_is_shown() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    assert_eq!(
        daemon.ctl("show 2001:db8:1::7").1,
        "\
2001:db8:1::7 is blocked.
  blocked as   2001:db8:1::/64
  cause        proven
  reason       xmas scan, proven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
  since        2026-11-20 15:26:40Z
  ends in      1h 2m, at 2026-11-20 16:28:40Z
  dropped      7 packets
  now          blocked: all of its packets are dropped.
  touched      2 ports: tcp/1, tcp/2
  counted      1 of 2; more than 2 are a scan
  scans        syn
  proven       no, its address may be forged
  first seen   2026-11-20 15:26:30Z
  last seen    2026-11-20 15:26:40Z
  so far       1 block

  2026-11-20 15:26:30Z  probe      tcp/1, syn: counts
  2026-11-20 15:26:40Z  blocked    syn scan: 3 ports in 0.2s
  2026-11-20 15:26:41Z  blocked    syn scan: 3 ports in 0.2s (by-hand 2026-11-20 15:26:51Z)
  2026-11-20 15:26:42Z  probe      tcp/0, syn: counts
  2026-11-20 15:26:42Z  blocked    by hand: \"a\", b (until 2026-11-20 15:27:42Z)
  2026-11-20 15:26:43Z  probe      tcp/1, syn: counts beside other probes only: closed connections cause such packets too
  2026-11-20 15:26:43Z  slowed     syn scan: 3 ports in 0.2s (until 2026-11-20 15:27:43Z) [3 probes so far]
"
    );
    assert_eq!(json(&daemon.ctl("--json show 10.77.1.1").1)["history"][3]["kind"], "slowed");
    assert_eq!(json(&daemon.ctl("--json show 10.77.1.1").1)["block"]["address"], "10.77.1.1");
    assert_eq!(
        daemon.ctl("show 198.51.100.1"),
        (1, String::new(), "portsentryctl: nothing is known of it\n".into())
    );
}

#[test]
fn what_would_happen_to_an_address_is_told_port_by_port() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    assert_eq!(
        daemon.ctl("test 10.77.1.1 23 tcp/22 udp/5353 443 udp/53").1,
        "\
10.77.1.1 is slowed: its probes are dropped, its new connections wait for a second, all else passes.
  cause        unproven
  reason       syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
  since        2026-11-20 15:26:40Z
  ends in      58 s, at 2026-11-20 15:27:38Z
  touched      3 closed ports; more than 2 are a scan
  except       over wg0 nothing is slowed or blocked (allow)
  tcp/23       closed, watched: is dropped, or answered as closed ports answer (a random half is); counts as a probe
  tcp/22       of a service: passes when it is retransmitted, after a second
  udp/5353     not watched: passes
  tcp/443      closed, watched: is dropped, or answered as closed ports answer (a random half is); counts as a probe
  udp/53       of a service: passes at a low rate
"
    );
    let tested = json(&daemon.ctl("test --json 10.77.1.1 23").1);
    let port = serde_json::json!({
        "port": "tcp/23", "target_port": {"transport": "tcp", "number": 23}, "use": "watched",
        "outcome": "either_way", "is_probe": true
    });
    assert_eq!((&tested["standing"], &tested["ports"][0]), (&"slowed".into(), &port));
    for wrong in ["0", "65536", "ssh", "tcp/", "sctp/22", "tcp/22/1", "-1"] {
        let (code, out, err) = daemon.ctl(&format!("test 10.77.1.1 {wrong}"));
        assert_eq!((code, out.as_str()), (64, ""), "{wrong}: {err}");
    }
    assert_eq!(daemon.ctl("test 192.0.2.0/24").0, 64);
    let many = "1 ".repeat(101);
    let (code, _, err) = daemon.ctl(&format!("test 10.77.1.1 {many}"));
    assert_eq!((code, err.contains("test 100 at a time")), (64, true), "{err}");
}

#[test]
fn what_would_have_been_blocked_is_shown_to_people_and_programs() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (code, text, _) = daemon.ctl("list --would-be");
    assert_eq!(code, 0);
    assert_eq!(
        text,
        "\
ADDRESS    WOULD BE  SCAN  PROBES  SINCE                 LAST SEEN             REASON
10.77.1.1  slowed    syn       98  2026-11-20 15:26:50Z  2026-11-20 15:27:00Z  syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
192.0.2.7  blocked   xmas       1  2026-11-20 15:26:50Z  2026-11-20 15:26:50Z  xmas scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3\\u{1b}[2J
"
    );
    let (_, report, _) = daemon.ctl("observe report");
    assert!(report.contains(&text), "{report}");
    for line in [
        "Observed since 2026-11-20 15:26:40Z (mode now: observe): 1 source would have been slowed, 1 blocked.\n",
        "2 sources with few probes more are not listed",
        "  10.77.1.1: in this host's network 10.77.1.0/24; has a connection to tcp/22 now\n",
        "  portsentryctl enforce --confirm 5m\n",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    assert!(!report.contains("192.0.2.7:"), "nothing speaks for it: {report}");
    let (_, rows, _) = daemon.ctl("--json list --would-be");
    let (_, document, _) = daemon.ctl("--json observe report");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parse(&rows), parse(&document)["sources"]);
}

#[test]
fn every_request_reaches_the_daemon_as_it_was_meant() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    for (line, request, code) in [
        (
            "block 192.0.2.9",
            Request::Block {
                address: target("192.0.2.9"),
                seconds: None,
                reason: String::new(),
                force: false,
            },
            0,
        ),
        (
            "block 192.0.2.9/24 --for 2h --reason x",
            Request::Block {
                address: target("192.0.2.0/24"),
                seconds: Some(7200),
                reason: "x".into(),
                force: false,
            },
            0,
        ),
        (
            "block 192.0.2.9 --for 0",
            Request::Block {
                address: target("192.0.2.9"),
                seconds: Some(0),
                reason: String::new(),
                force: false,
            },
            0,
        ),
        ("unblock 10.77.1.1", Request::Unblock { address: target("10.77.1.1") }, 0),
        ("unblock 10.77.1.2", Request::Unblock { address: target("10.77.1.2") }, 1),
        ("unblock --all", Request::UnblockAll {}, 0),
        ("allow add 192.0.2.0/28", Request::AllowAdd { address: target("192.0.2.0/28") }, 0),
        ("allow remove 192.0.2.0/28", Request::AllowRemove { address: target("192.0.2.0/28") }, 1),
        ("allow list", Request::AllowList {}, 0),
        ("list --would-be", Request::Observed {}, 0),
        ("observe report", Request::Observed {}, 0),
        ("observe", Request::Observe {}, 0),
        ("enforce --confirm 5m", Request::Enforce { seconds: Some(300) }, 0),
        ("enforce", Request::Enforce { seconds: None }, 0),
        ("off", Request::Off { seconds: None }, 0),
        ("pause 1h", Request::Off { seconds: Some(3600) }, 0),
        ("on", Request::On {}, 0),
        ("test-response", Request::TestResponse {}, 1),
        ("rules", Request::Rules {}, 0),
        ("reload", Request::Reload {}, 78),
        (
            "history --source 10.77.1.1",
            Request::History(Box::new(Past {
                source: Some(target("10.77.1.1")),
                ..Past::default()
            })),
            0,
        ),
    ] {
        assert_eq!(daemon.ctl(line).0, code, "{line}");
        assert_eq!(daemon.asked.lock().unwrap().pop().unwrap(), request, "{line}");
    }
    assert_eq!(daemon.ctl("unblock 10.77.1.1").1, "10.77.1.1 is not blocked any more.\n");
    assert_eq!(
        json(&daemon.ctl("unblock --all --json").1),
        serde_json::json!({"message": "3 blocks are lifted."})
    );
    assert_eq!(
        daemon.ctl("allow list").1,
        "ADDRESS      BECAUSE OF  NAME OR FILE        LAST SEEN\n127.0.0.0/8  allow       -                   -\n192.0.2.1    admins      -                   2026-11-20 15:26:40Z\n192.0.2.7    allow       office.example.net  2026-11-20 15:26:40Z\nvpn.example.net has never been resolved, and exempts no host: there is no such name\nOver wg0 nothing is slowed or blocked (allow).\n"
    );
    assert_eq!(daemon.ctl("rules").1, "table inet portsentry {\n\tchain gate {\n\t}\n}\n");
    assert_eq!(
        daemon.ctl("reload").2,
        "portsentryctl: a.yaml:1:1: error: no such key\n  ports: 1\n  ^\n  repair the file; the old one stays in force\n"
    );
}

#[test]
fn the_history_comes_in_parts_and_whole() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (_, out, _) = daemon.ctl("history");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 201);
    assert_eq!(
        lines[..5],
        [
            "WHEN                  ADDRESS        EVENT    PORT     NAME                  END                           WHY",
            "2026-11-20 15:26:40Z  10.77.1.1      blocked  tcp/0    scanner.example\\u{7}  never                         syn scan: 3 ports in 0.2s",
            "2026-11-20 15:26:41Z  2001:db8::/64  blocked  tcp/1    -                     by-hand 2026-11-20 15:26:51Z  syn scan: 3 ports in 0.2s",
            "2026-11-20 15:26:42Z  10.77.1.1      blocked  by hand  -                     until 2026-11-20 15:27:42Z    by hand: \"a\", b",
            "2026-11-20 15:26:43Z  10.77.1.1      slowed   tcp/3    -                     until 2026-11-20 15:27:43Z    syn scan: 3 ports in 0.2s",
        ]
    );
    assert_eq!(json(&daemon.ctl("history --json").1).as_array().unwrap().len(), 200);
}

#[test]
fn the_history_is_read_by_other_programs_as_comma_separated_values() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (code, out, err) = daemon.ctl("history --csv");
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.split("\r\n").collect();
    assert_eq!(lines.len(), 202, "a header, and an end of the last line");
    assert_eq!(
        lines[..5],
        [
            "at,kind,address,host,port,result,scan,proven,reason,until,ended,ending,probes,first_seen,touched,details,country,asn,as_name",
            "2026-11-20T15:26:40Z,blocked,10.77.1.1,scanner.example\\u{7},tcp/0,blocked,syn,false,syn scan: 3 ports in 0.2s,,,,,,,,,,",
            "2026-11-20T15:26:41Z,blocked,2001:db8::/64,2001:db8::/64,tcp/1,blocked,syn,false,syn scan: 3 ports in 0.2s,2026-11-20T15:27:41Z,2026-11-20T15:26:51Z,by-hand,,,,,,,",
            "2026-11-20T15:26:42Z,blocked,10.77.1.1,10.77.1.1,,blocked,,true,\"by hand: \"\"a\"\", b\",2026-11-20T15:27:42Z,,,,,,,,,",
            "2026-11-20T15:26:43Z,slowed,10.77.1.1,10.77.1.1,tcp/3,slowed,syn,false,syn scan: 3 ports in 0.2s,2026-11-20T15:27:43Z,,,3,,2026-11-20T15:26:42Z tcp/0 syn counts; 2026-11-20T15:26:43Z tcp/1 syn ambiguous,,,,",
        ]
    );
}

#[test]
fn the_rest_of_a_history_that_cannot_be_read_is_missed_aloud() {
    let failing = FakeHandler { failing: true, ..FakeHandler::default() };
    let daemon = Daemon::start(failing, "");
    for line in ["history", "history --csv", "history --json", "show 10.77.1.1"] {
        let (code, _, err) = daemon.ctl(line);
        assert_eq!((code, err.contains("the disk is on fire")), (70, true), "{line}: {err}");
    }
}

#[test]
fn the_command_line_has_its_exit_statuses() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    assert_eq!(daemon.ctl("--help").0, 0);
    assert!(daemon.ctl("--help").1.contains("unblock"));
    assert_eq!(daemon.ctl("--version").0, 0);
    for wrong in [
        "",
        "fly",
        "block",
        "block example.org",
        "unblock",
        "list --no-such-flag",
        "history --since soon",
    ] {
        let (code, out, err) = daemon.ctl(wrong);
        assert_eq!((code, out.as_str()), (64, ""), "{wrong:?}");
        assert!(!err.is_empty());
    }
    let missing = daemon.directory.path().join("missing.sock");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["portsentryctl", "status", "--socket", missing.to_str().unwrap()];
    assert_eq!(ctl::run(words.map(Into::into), &mut out, &mut err, &Zone::utc()), 69);
    let err = String::from_utf8(err).unwrap();
    assert!(
        err.contains("cannot be reached") && err.contains("systemctl status portsentry"),
        "{err}"
    );
}

#[test]
fn a_configuration_is_checked_without_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let check = |name: &str, text: &str, json: bool| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut words =
            vec!["portsentryctl".to_owned(), "check".into(), path.to_str().unwrap().to_owned()];
        words.extend(json.then(|| "--json".to_owned()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = ctl::run(words.into_iter().map(Into::into), &mut out, &mut err, &Zone::utc());
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (code, out, err) = check("good.yaml", "scan_trigger: 3\n", false);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("good.yaml: good\n"), "{out}");
    let (code, out, err) = check("bad.yaml", "scan_triger: 3\nmode: maybe\n", false);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("bad.yaml:1:1") && err.contains("bad.yaml:2:"), "{err}");
    let (code, out, _) = check("bad.yaml", "scan_triger: 3\nmode: maybe\n", true);
    assert_eq!(code, 78);
    assert_eq!(json(&out)["ok"], false);
    assert!(json(&out)["findings"].as_array().unwrap().len() >= 2);
}

#[test]
fn a_closed_standard_output_is_no_failure_and_a_full_disk_is_one() {
    let daemon = Daemon::start(FakeHandler { many: 100_000, ..FakeHandler::default() }, "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
        .args(["list", "--socket", daemon.socket().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
        .args(["list", "--socket", daemon.socket().to_str().unwrap()])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
}

/// A million in optimised builds; otherwise that takes half a minute on a busy machine.
const ROWS: u32 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };

// P10
#[test]
fn a_million_rows_are_listed_in_little_memory() {
    let daemon = Daemon::start(FakeHandler { many: ROWS, ..FakeHandler::default() }, "");
    let before = resident_kib();
    let begun = Instant::now();
    let mut client = Client::connect(&daemon.socket()).unwrap();
    client.send(&Request::List(Box::default())).unwrap();
    let (mut rows, mut last) = (0usize, None);
    loop {
        let Reply::Blocks { rows: part, more } = client.receive(Some(LONG)).unwrap() else {
            panic!()
        };
        rows += part.len();
        if rows % 50_000 < 64 {
            // A fast reader must not monopolise the daemon.
            daemon.assert_serves();
        }
        for row in part {
            assert!(last < Some(row.address));
            last = Some(row.address);
        }
        if !more {
            break;
        }
    }
    assert_eq!(rows, ROWS as usize);
    let grown = resident_kib().saturating_sub(before);
    println!("{ROWS} rows in {:?}, {grown} KiB more", begun.elapsed());
    assert!(grown < LITTLE_KIB, "{grown} KiB");
}

/// Less than a million rows need; alone the test needs 3 MiB, but other tests run in the same
/// process.
const LITTLE_KIB: u64 = 160 << 10;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn read_line(stream: &mut UnixStream) -> serde_json::Value {
    let mut line = Vec::new();
    let mut byte = [0];
    // read_exact goes on after a signal for another test's child.
    while stream.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    json(&String::from_utf8(line).unwrap())
}

// P11
#[test]
fn garbage_is_answered_with_an_error_and_the_connection_goes_on() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut stream = daemon.connect();
    stream.write_all(b"\x00\xff garbage\n{\"v\":1,\"do\":\"status\"}\n{\"v\":7}\n").unwrap();
    assert_eq!(read_line(&mut stream)["kind"], "bad-request");
    assert_eq!(read_line(&mut stream)["reply"], "status");
    assert_eq!(read_line(&mut stream)["kind"], "bad-request");
    daemon.assert_serves();
}

// P11
#[test]
fn a_megabyte_without_a_line_end_is_refused() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut stream = daemon.connect();
    let sent = stream.write_all(&vec![b'x'; 1 << 20]);
    assert!(sent.is_err(), "the daemon must not read it all");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("longer than 65536 bytes"), "{answer}");
    daemon.assert_serves();
}

// P11
#[test]
fn half_a_request_and_none_are_cut_off_in_time() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let (mut half, mut silent) = (daemon.connect(), daemon.connect());
    half.write_all(b"{\"v\":1,").unwrap();
    let begun = Instant::now();
    daemon.assert_serves();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("no whole request"), "{answer}");
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(10)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn half_a_request_of_a_disconnected_client_is_ignored() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut stream = daemon.connect();
    stream.write_all(b"{\"v\":1,\"do\":\"unblock-all\"}").unwrap();
    drop(stream);
    daemon.assert_serves();
    assert!(!daemon.asked.lock().unwrap().contains(&Request::UnblockAll {}));
}

#[test]
fn a_client_that_closes_its_writing_side_is_answered() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut stream = daemon.connect();
    stream.write_all(b"{\"v\":1,\"do\":\"rules\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("table inet portsentry"), "{answer}");
}

// P11
#[test]
fn a_thousand_silent_connections_delay_no_client() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let silent: Vec<UnixStream> = (0..1000)
        .map(|n| {
            let stream = daemon.connect();
            if n % 100 == 99 {
                daemon.assert_serves();
            }
            stream
        })
        .collect();
    daemon.assert_serves();
    drop(silent);
    daemon.assert_serves();
}

// P11
#[test]
fn a_client_that_reads_nothing_of_a_long_list_is_disconnected() {
    let daemon = Daemon::start(FakeHandler { many: 1_000_000, ..FakeHandler::default() }, "");
    let before = resident_kib();
    let mut lazy: Vec<UnixStream> = (0..20).map(|_| daemon.connect()).collect();
    for stream in &mut lazy {
        stream.write_all(b"{\"v\":1,\"do\":\"list\"}\n").unwrap();
    }
    daemon.assert_serves();
    std::thread::sleep(Duration::from_secs(7));
    daemon.assert_serves();
    assert!(resident_kib().saturating_sub(before) < LITTLE_KIB);
    for stream in &mut lazy {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 4 << 20, "it was cut off: {}", rest.len());
    }
}

#[test]
fn watch_shows_events_as_they_happen() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let line = daemon.first_event(|| Notice::Warning("look\u{1b}".into()));
    assert!(!line.contains('\u{1b}'));
    assert_eq!(json(&line)["event"], "warning");
    daemon.assert_serves();
}

// P11
#[test]
fn a_slow_reader_of_watch_is_cut_off_with_a_note_and_others_go_on() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut slow = daemon.connect();
    slow.write_all(b"{\"v\":1,\"do\":\"watch\"}\n").unwrap();
    assert_eq!(read_line(&mut slow)["reply"], "watching");
    let mut quick = Client::connect(&daemon.socket()).unwrap();
    assert_eq!(quick.ask(&Request::Watch {}).unwrap(), Reply::Watching {});
    let text = "x".repeat(1000);
    for n in 0..3000 {
        daemon.journal.notify(Notice::Warning(format!("{n} {text}")));
        let Ok(Reply::Event { event }) = quick.receive(Some(LONG)) else { panic!("event {n}") };
        assert!(event["message"].as_str().unwrap().starts_with(&format!("{n} ")), "{event}");
    }
    let mut rest = String::new();
    let _ = slow.read_to_string(&mut rest);
    assert!(
        rest.lines().last().unwrap().contains("more slowly than things happen"),
        "{}",
        rest.lines().last().unwrap()
    );
    daemon.assert_serves();
}

#[test]
fn no_more_than_sixteen_watch() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let mut watchers: Vec<Client> =
        (0..17).map(|_| Client::connect(&daemon.socket()).unwrap()).collect();
    for watcher in watchers.iter_mut().take(16) {
        assert_eq!(watcher.ask(&Request::Watch {}).unwrap(), Reply::Watching {});
    }
    let refused = watchers[16].ask(&Request::Watch {});
    assert!(
        matches!(&refused, Err(ClientError::Refused(refusal)) if refusal.kind == Kind::Busy),
        "{refused:?}"
    );
    daemon.journal.notify(Notice::Active);
    for watcher in watchers.iter_mut().take(16) {
        assert!(matches!(watcher.receive(Some(LONG)), Ok(Reply::Event { .. })));
    }
    drop(watchers.remove(0));
    assert!(
        support::eventually(LONG, || Client::connect(&daemon.socket())
            .unwrap()
            .ask(&Request::Watch {})
            .is_ok()),
        "a place that became free is given again"
    );
}

/// A group that exists on every Debian; it may read in these tests.
const READERS: &str = "daemon";

/// Connects as another user in group [`READERS`]. The kernel takes the credentials of the
/// connecting thread.
fn connect_as(uid: u32, socket: &Path, count: usize) -> Vec<UnixStream> {
    let gid: u32 =
        support::run("getent", &["group", READERS]).split(':').nth(2).unwrap().parse().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use rustix::process::{Gid, Uid};
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_gid(Gid::from_raw(gid)).unwrap();
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
            let connect = |_| {
                let stream = UnixStream::connect(socket).unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                stream
            };
            (0..count).map(connect).collect()
        });
        thread.join().unwrap()
    })
}

const HISTORY: &[u8] = b"{\"v\":1,\"do\":\"history\"}\n";

fn histories(daemon: &Daemon) -> usize {
    daemon
        .asked
        .lock()
        .unwrap()
        .iter()
        .filter(|request| matches!(request, Request::History(_)))
        .count()
}

/// Sends a request on each. A refused one is closed already.
fn ask_all(clients: &mut [UnixStream], request: &[u8]) {
    for client in clients {
        let _ = client.write_all(request);
    }
}

/// How many of these have such an answer by now.
fn answered(clients: &[UnixStream], word: &str) -> usize {
    let has = |client: &&UnixStream| {
        let mut buffer = [0u8; 512];
        let peeked = rustix::net::recv(
            client,
            &mut buffer,
            rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT,
        );
        peeked.is_ok_and(|(length, _)| String::from_utf8_lossy(&buffer[..length]).contains(word))
    };
    clients.iter().filter(has).count()
}

#[test]
fn slow_requests_and_watchers_of_members_do_not_delay_root() {
    if support::missing(&["getent"]).is_some() {
        return;
    }
    let slow = Duration::from_secs(3);
    let daemon = Daemon::start(FakeHandler { slow, ..FakeHandler::default() }, READERS);
    let mut hammering = connect_as(65533, &daemon.socket(), 48);
    ask_all(&mut hammering, HISTORY);
    let mut watching = connect_as(65532, &daemon.socket(), 16);
    ask_all(&mut watching, b"{\"v\":1,\"do\":\"watch\"}\n");
    assert!(support::eventually(LONG, || histories(&daemon) == 2
        && answered(&watching, "\"error\"") == 10));
    let mut times = Vec::new();
    for line in [
        "unblock 10.77.1.1",
        "block 192.0.2.9",
        "allow add 192.0.2.0/28",
        "unblock --all",
        "status",
        "list",
    ] {
        let begun = Instant::now();
        assert_eq!(daemon.ctl(line).0, 0, "{line}");
        times.push(begun.elapsed());
    }
    let mut watch = Client::connect(&daemon.socket()).unwrap();
    assert_eq!(watch.ask(&Request::Watch {}).unwrap(), Reply::Watching {});
    assert_eq!(
        answered(&hammering, "\"history\""),
        0,
        "root's answers came before the first slow one: {times:?}"
    );
    println!("root's requests beside 24 slow ones: {times:?}");
    assert!(times.iter().all(|time| *time < slow / 3), "{times:?}");
    // Root's slow request does not wait for those of others either.
    let begun = Instant::now();
    assert_eq!(daemon.ctl("history").0, 0);
    assert!(begun.elapsed() < slow * 2, "{:?}", begun.elapsed());
    // One user gets only a part of the places.
    assert_eq!(answered(&hammering, "24 clients of user 65533"), 24);
    assert_eq!(answered(&watching, "\"watching\""), 6);
}

#[test]
fn members_take_turns() {
    if support::missing(&["getent"]).is_some() {
        return;
    }
    let daemon = Daemon::start(
        FakeHandler { slow: Duration::from_millis(500), ..FakeHandler::default() },
        READERS,
    );
    let mut hammering = connect_as(65533, &daemon.socket(), 24);
    ask_all(&mut hammering, HISTORY);
    assert!(support::eventually(LONG, || histories(&daemon) >= 2));
    let mut honest = connect_as(65532, &daemon.socket(), 1).remove(0);
    honest.write_all(HISTORY).unwrap();
    assert_eq!(read_line(&mut honest)["reply"], "history");
    let before = answered(&hammering, "\"history\"");
    assert!(before <= 6, "{before} of the other user's 24 requests came first");
}

#[test]
fn a_slow_request_of_a_client_that_is_gone_is_cancelled() {
    if support::missing(&["getent"]).is_some() {
        return;
    }
    let handler = FakeHandler { slow: Duration::from_secs(60), ..FakeHandler::default() };
    let cancelled = std::sync::Arc::clone(&handler.cancelled);
    let daemon = Daemon::start(handler, READERS);
    let cancelled = || cancelled.load(std::sync::atomic::Ordering::Relaxed);
    for round in 0..3 {
        let mut clients = connect_as(65533, &daemon.socket(), 20);
        ask_all(&mut clients, HISTORY);
        assert!(
            support::eventually(LONG, || histories(&daemon) == cancelled() + 2),
            "round {round}: two of them are worked on"
        );
        drop(clients);
        assert!(
            support::eventually(LONG, || cancelled() == histories(&daemon)),
            "round {round}: {} of {}",
            cancelled(),
            histories(&daemon)
        );
    }
    // Most waiting requests were never started.
    assert!(histories(&daemon) < 30, "{}", histories(&daemon));
}

#[test]
fn requests_of_one_client_are_answered_in_their_order() {
    let daemon = Daemon::start(
        FakeHandler { slow: Duration::from_millis(300), ..FakeHandler::default() },
        "",
    );
    let mut stream = daemon.connect();
    stream
        .write_all(
            &[HISTORY, b"{\"v\":1,\"do\":\"unblock-all\"}\n{\"v\":1,\"do\":\"rules\"}\n", HISTORY]
                .concat(),
        )
        .unwrap();
    let mut replies = Vec::new();
    while replies.len() < 10 && replies.iter().filter(|reply| *reply == "history").count() < 8 {
        replies.push(read_line(&mut stream)["reply"].as_str().unwrap().to_owned());
    }
    // 200 rows of history are four lines.
    assert_eq!(
        replies,
        [
            "history", "history", "history", "history", "done", "rules", "history", "history",
            "history", "history"
        ]
    );
}

/// `portsentryctl` as another user and group.
fn ctl_as(uid: u32, gid: u32, socket: &Path, words: &[&str]) -> Output {
    // The target directory may be closed to other users: they run a copy.
    let copy = socket.parent().unwrap().join("portsentryctl");
    if !copy.exists() {
        support::copy_program(env!("CARGO_BIN_EXE_portsentryctl"), &copy);
    }
    // `uid` of a root process drops its supplementary groups too.
    Command::new(copy)
        .args(words)
        .args(["--socket", socket.to_str().unwrap()])
        .uid(uid)
        .gid(gid)
        .current_dir("/")
        .output()
        .unwrap()
}

// P11
#[test]
fn others_may_not_even_read_and_members_of_the_group_may_read_but_not_change() {
    if support::missing(&["getent"]).is_some() {
        return;
    }
    let group = "daemon";
    let gid: u32 =
        support::run("getent", &["group", group]).split(':').nth(2).unwrap().parse().unwrap();
    let daemon = Daemon::start(FakeHandler::default(), group);
    let metadata = std::fs::metadata(daemon.socket()).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, gid));
    let run = |uid, gid, words: &[&str]| {
        let output = ctl_as(uid, gid, &daemon.socket(), words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(65533, gid, &["list"]), (0, String::new()));
    let (code, err) = run(65533, gid, &["unblock", "10.77.1.1"]);
    assert_eq!(code, 77);
    assert!(err.contains("only root may change"), "{err}");
    assert!(!daemon.asked.lock().unwrap().iter().any(Request::changes));
    assert_eq!(run(65533, 65533, &["list"]).0, 77);
    // The socket's mode is the first check; the daemon also asks the kernel for the user.
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let (code, err) = run(65533, 65533, &["list"]);
    assert_eq!(code, 77);
    assert!(err.contains("may not use the control socket"), "{err}");
    assert_eq!(run(0, 0, &["unblock", "10.77.1.1"]).0, 0);
    if support::missing(&["setpriv"]).is_none() {
        let supplementary = Command::new("setpriv")
            .args(["--reuid", "65533", "--regid", "65533", "--groups", &format!("65532,{gid}")])
            .arg(daemon.socket().parent().unwrap().join("portsentryctl"))
            .args(["list", "--socket", daemon.socket().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(
            supplementary.status.success(),
            "{}",
            String::from_utf8_lossy(&supplementary.stderr)
        );
    }
}

// P11
#[test]
fn without_a_group_the_socket_is_for_root() {
    if support::missing(&[]).is_some() {
        return;
    }
    let daemon = Daemon::start(FakeHandler::default(), "");
    assert_eq!(std::fs::metadata(daemon.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let output = ctl_as(65533, 0, &daemon.socket(), &["status"]);
    assert_eq!(output.status.code(), Some(77), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_stale_socket_is_replaced_and_a_second_daemon_is_not_started() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "what a killed daemon leaves");
    let first = listen(&path, "").unwrap();
    let second = listen(&path, "").unwrap_err();
    assert!(matches!(second, ListenError::Running(..)));
    assert!(second.to_string().contains("another portsentry is running"));
    assert!(path.exists(), "the first one's socket stays");
    // Another process's socket at the path is left alone.
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(other);
}

#[test]
fn a_daemon_that_hangs_with_a_full_queue_is_still_running() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _hangs = listen(&path, "").unwrap();
    let mut waiting = Vec::new();
    // Until the queue is full; somaxconn limits it.
    while let Ok(stream) = portsentry::sys::peer::connect_now(&path) {
        waiting.push(stream);
        assert!(waiting.len() < 100_000);
        if waiting.len() > 900 {
            break;
        }
    }
    assert!(matches!(listen(&path, ""), Err(ListenError::Running(..))));
}

#[test]
fn only_a_socket_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(listen(&path, ""), Err(ListenError::InTheWay(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert!(matches!(
        listen(&directory.path().join("new"), "no-such-group-at-all"),
        Err(ListenError::NoGroup(_))
    ));
    assert!(!directory.path().join("new").exists());
}

/// Events of a large history, through which a search takes seconds.
const MANY_EVENTS: &str = "1000000";

/// Stores many events about one host.
const FILL: &str = "import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1])
c.execute(\"INSERT INTO events (at, kind, network, first, last, reason, unproven) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT \" + sys.argv[2] + \") \"
    \"SELECT ? + i, 'scan', '10.77.1.1/32', ?, ?, 'syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3', 0 FROM n\",
    (int(time.time() * 1000) - 86400000, bytes([10, 77, 1, 1]), bytes([10, 77, 1, 1])))
c.commit()";

#[test]
fn root_is_answered_at_once_while_members_read_a_large_history() {
    if support::missing(&["ip", "nft", "getent", "python3"]).is_some() {
        return;
    }
    let namespace = support::netns::Namespace::new();
    let yaml = "events: { max: 1G }";
    let mut daemon = support::daemon::Daemon::start_for(&namespace, yaml, None, READERS);
    daemon.stop();
    let database = daemon.path(portsentry::store::events::FILE);
    support::run("python3", &["-c", FILL, database.to_str().unwrap(), MANY_EVENTS]);
    daemon.restart(yaml);
    let is_open = || daemon.json(&["status"])["events"]["rows"].as_u64() >= Some(1_000_000);
    assert!(support::eventually(LONG, is_open), "{}", daemon.log());
    let unmatched = b"{\"v\":1,\"do\":\"history\",\"source\":\"203.0.113.99\"}\n";
    let socket = daemon.path("control.sock");
    let connect = |uid: u32, count: usize, request: &[u8]| {
        let mut clients = connect_as(uid, &socket, count);
        ask_all(&mut clients, request);
        clients
    };
    assert!(daemon.ctl(&["block", "203.0.113.5"]).status.success());
    let watching = connect(65532, 16, b"{\"v\":1,\"do\":\"watch\"}\n");
    let hammering = connect(65533, 48, unmatched);
    let begun = Instant::now();
    let unblocked = daemon.ctl(&["unblock", "203.0.113.5"]);
    let took = begun.elapsed();
    assert!(unblocked.status.success(), "{}", String::from_utf8_lossy(&unblocked.stderr));
    assert_eq!(
        answered(&hammering, "\"history\""),
        0,
        "root's answer came before the first slow one, after {took:?}"
    );
    let mut watch = Client::connect(&socket).unwrap();
    assert_eq!(watch.ask(&Request::Watch {}).unwrap(), Reply::Watching {});
    let first = support::eventually(LONG * 3, || answered(&hammering, "\"history\"") > 0)
        .then(|| begun.elapsed())
        .unwrap();
    println!("unblock took {took:?}; the first of the slow requests {first:?}");
    assert!(took * 2 < first, "{took:?} of {first:?}");
    drop((watching, hammering));
}

#[test]
fn the_list_is_filtered_sorted_and_cut_off() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let addresses = |words: &str| -> String {
        let (code, out, err) = daemon.ctl(&format!("--json list {words}"));
        assert_eq!((code, err.as_str()), (0, ""), "{words}");
        let rows = json(&out);
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    for (words, wanted) in [
        ("--sort packets", "10.77.1.1 2001:db8:1::/64 192.0.2.0/24"),
        ("--sort until --limit 2", "10.77.1.1 2001:db8:1::/64"),
        ("--sort address --limit 1", "10.77.1.1"),
        ("--proven", "2001:db8:1::/64"),
        ("--slowed", ""),
        ("--net 192.0.2.7", "192.0.2.0/24"),
        ("--net 10.0.0.0/8", "10.77.1.1"),
        ("--since 2026-11-20T15:26:40Z", "10.77.1.1 192.0.2.0/24 2001:db8:1::/64"),
        ("--since 2026-11-20T15:26:41Z", ""),
    ] {
        assert_eq!(addresses(words), wanted, "{words}");
    }
    let (code, out, _) = daemon.ctl("list --slowed");
    assert_eq!((code, out.as_str()), (0, "Nothing is blocked or slowed.\n"));
    assert_eq!(daemon.ctl("list --would-be --proven").0, 64);
    assert_eq!(daemon.ctl("list --sort size").0, 64);
}

#[test]
fn two_hundred_thousand_rows_are_sorted_in_a_second() {
    // The debug build takes ten times as long for each.
    let (many, limit) =
        if cfg!(debug_assertions) { (20_000, LONG) } else { (200_000, Duration::from_secs(1)) };
    let daemon = Daemon::start(FakeHandler { many, ..FakeHandler::default() }, "");
    let begun = Instant::now();
    let (code, out, _) = daemon.ctl("list --net 10.0.0.0/8 --sort packets --limit 20");
    let took = begun.elapsed();
    assert!(took < limit, "{many} rows in {took:?}");
    assert_eq!((code, out.lines().count()), (0, 21));
    let cells: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    let last = many - 1;
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + last).to_string();
    assert!(cells[0] == address && cells.contains(&last.to_string().as_str()), "{out}");
}
