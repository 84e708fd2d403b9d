//! Documents and errors of every command are as `contrib/schema` says.

use serde_json::Value;

use super::control::fake::{Daemon, FakeHandler};
use crate::support::schema;

#[test]
fn every_document_is_as_its_schema_says() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let file = daemon.directory.path().join("list");
    std::fs::write(&file, "192.0.2.1\nno address\n192.0.2.66\n").unwrap();
    let from = format!("block --from {}", file.display());
    for line in [
        "status",
        "list",
        "list --would-be",
        "show 10.77.1.1",
        "show 2001:db8:1::7",
        "test 10.77.1.1 22 tcp/23 udp/53",
        "history",
        "allow list",
        "observe report",
        "rules",
        "block 192.0.2.1 --for 1h",
        "block 192.0.2.1 192.0.2.66",
        &from,
        "unblock 10.77.1.1 10.77.1.9",
        "unblock --all",
        "allow add 192.0.2.1",
        "enforce",
        "observe",
        "off",
        "on",
        "pause 1h",
    ] {
        let (_, out, err) = daemon.ctl(&format!("--json {line}"));
        let document: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        schema::check(schema::of(&words).unwrap(), &document);
        schema::codes(&err);
    }
}

#[test]
fn errors_are_objects_with_codes_and_the_same_exit_statuses() {
    let daemon = Daemon::start(FakeHandler { failing: true, ..FakeHandler::default() }, "");
    for (line, status, code) in [
        ("fly", 64, "usage"),
        ("block example.org", 64, "usage"),
        ("list --sort size", 64, "usage"),
        ("metrics", 64, "usage"),
        ("show 203.0.113.1", 1, "no"),
        ("unblock 203.0.113.1", 1, "no"),
        ("unblock 10.77.1.1 203.0.113.1", 1, "not-all"),
        ("block --from /nowhere", 1, "file"),
        ("reload", 78, "configuration"),
        ("history", 70, "failed"),
        ("--socket /nowhere/control.sock status", 69, "unreachable"),
    ] {
        // The last of two --socket is refused, so the daemon's own is left out there.
        let (found, _, err) = if line.starts_with("--socket") {
            let words = format!("portsentryctl --json {line}");
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let words = words.split(' ').map(Into::into);
            let zone = portsentry::ctl::Zone::utc();
            let found = portsentry::ctl::run(words, &mut out, &mut err, &zone);
            (found, String::new(), String::from_utf8(err).unwrap())
        } else {
            daemon.ctl(&format!("--json {line}"))
        };
        assert_eq!((found, schema::codes(&err)), (status, vec![code.to_owned()]), "{line}: {err}");
        let error: Value = serde_json::from_str(&err).unwrap();
        assert_eq!(error["error"]["exit_status"], found, "{line}");
    }
    // Without --json they are lines for people.
    assert!(daemon.ctl("fly").2.starts_with("error: "));
}

#[test]
fn findings_have_file_line_column_severity_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    std::fs::write(&file, "scan_trigger: 3\nscan_triger: 3\n").unwrap();
    let words = ["portsentryctl", "--json", "check", file.to_str().unwrap()];
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let zone = portsentry::ctl::Zone::utc();
    let code = portsentry::ctl::run(words.map(Into::into), &mut out, &mut err, &zone);
    assert_eq!((code, err.as_slice()), (78, &b""[..]));
    let document: Value = serde_json::from_slice(&out).unwrap();
    schema::check("check", &document);
    let finding = &document["diagnostics"][0];
    assert_eq!(finding["file"], file.to_str().unwrap());
    assert_eq!((&finding["line"], &finding["column"]), (&2.into(), &1.into()), "{finding}");
    assert_eq!(finding["severity"], "error");
    assert!(finding["remedy"].as_str().unwrap().contains("scan_trigger"), "{finding}");
    assert_eq!(document["findings"].as_array().unwrap().len(), 1);
}
