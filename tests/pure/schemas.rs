//! `contrib/schema` and what refers to it: documents and errors of every command, the mapping to the
//! Elastic Common Schema, and the Sigma rule.

use std::collections::BTreeMap;

use serde_json::Value;

use super::control::fake::{Daemon, FakeHandler};
use crate::support::schema;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

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
        "report --since 2026-11-20",
        "lists",
        "allow list",
        "observe report",
        "rules",
        "block 192.0.2.1 --for 1h",
        "block 192.0.2.1 192.0.2.66",
        &from,
        &format!("{from} --list scanners"),
        "unblock --list scanners",
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
        ("top", 64, "usage"),
        ("status --check", 64, "usage"),
        ("history --csv", 64, "usage"),
        ("report --html -", 64, "usage"),
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

/// The keys of events with their schemas; of an object `key.part`.
fn keys() -> BTreeMap<String, Vec<Value>> {
    let schema: Value = serde_json::from_str(&read("contrib/schema/event.schema.json")).unwrap();
    let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for kind in schema["oneOf"].as_array().unwrap() {
        for (key, schema) in kind["properties"].as_object().unwrap() {
            let inner = schema["anyOf"].as_array().map_or(schema, |schemas| &schemas[0]);
            for (part, schema) in inner["properties"].as_object().into_iter().flatten() {
                keys.entry(format!("{key}.{part}")).or_default().push(schema.clone());
            }
            keys.entry(key.clone()).or_default().push(inner.clone());
        }
    }
    keys
}

#[test]
fn the_mapping_to_ecs_names_keys_of_events() {
    let (text, known) = (read("contrib/siem/README.md"), keys());
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 20);
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        assert!(known.contains_key(cells[1]), "{}: no event has it", cells[1]);
        let is_name = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.' | '@');
        assert!(!cells[2].is_empty() && cells[2].chars().all(is_name), "{row}");
    }
    for key in ["event", "address", "target_port.number", "proven", "reason"] {
        assert!(text.contains(&format!("| `{key}` |")), "{key} is mapped");
    }
}

#[test]
fn the_sigma_rule_is_one_and_names_keys_and_values_of_events() {
    let text = read("contrib/siem/portsentry_scan.yml");
    let rule: Value = serde_saphyr::from_str(&text).unwrap();
    for key in ["title", "id", "status", "description", "author", "date", "level"] {
        assert!(rule[key].is_string(), "{key}");
    }
    let id: Vec<usize> = rule["id"].as_str().unwrap().split('-').map(str::len).collect();
    assert_eq!(id, [8, 4, 4, 4, 12]);
    assert!(rule["title"].as_str().unwrap().len() <= 256);
    assert!(["experimental", "test", "stable"].contains(&rule["status"].as_str().unwrap()));
    let levels = ["informational", "low", "medium", "high", "critical"];
    assert!(levels.contains(&rule["level"].as_str().unwrap()));
    assert!(rule["logsource"]["service"] == "portsentry");
    let known = keys();
    for field in rule["fields"].as_array().unwrap() {
        assert!(known.contains_key(field.as_str().unwrap()), "{field}");
    }
    let detection = rule["detection"].as_object().unwrap();
    let condition = detection["condition"].as_str().unwrap();
    for word in condition.split(' ').filter(|word| !matches!(*word, "and" | "or" | "not")) {
        assert!(detection.contains_key(word), "{word}");
    }
    for (name, selection) in detection.iter().filter(|(name, _)| *name != "condition") {
        assert!(condition.split(' ').any(|word| word == name), "{name} is used");
        for (key, value) in selection.as_object().unwrap() {
            let schemas = known.get(key).unwrap_or_else(|| panic!("{key} is no key of an event"));
            let fits = |schema: &Value| jsonschema::is_valid(schema, value);
            assert!(schemas.iter().any(fits), "{key}: {value}");
        }
    }
}
