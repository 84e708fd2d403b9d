//! The JSON Schemas of `contrib/schema`, to which every document that a test reads is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::Value;

/// Rows of a long list that are looked at.
const ROWS: usize = 500;

static KNOWN: Mutex<Option<HashMap<String, Arc<Validator>>>> = Mutex::new(None);

fn validator(name: &str) -> Arc<Validator> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    Arc::clone(known.entry(name.to_owned()).or_insert_with(|| {
        let text = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Arc::new(jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap())
    }))
}

/// The file of a schema.
pub fn path(name: &str) -> String {
    format!("{}/contrib/schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"))
}

/// Panics unless the document is valid.
pub fn check(name: &str, document: &Value) {
    let start = match document {
        Value::Array(rows) if rows.len() > ROWS => &Value::Array(rows[..ROWS].to_vec()),
        whole => whole,
    };
    let validator = validator(name);
    let errors: Vec<String> = validator
        .iter_errors(start)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {}\n{start:#}", errors.join("\n"));
}

/// Panics unless each line is a valid event.
pub fn check_events(lines: &str) -> Vec<Value> {
    let event = |line: &str| {
        let event = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        check("event", &event);
        event
    };
    lines.lines().map(event).collect()
}

/// Panics unless each line of standard error is a valid error; returns the codes.
pub fn codes(stderr: &str) -> Vec<String> {
    let code = |line: &str| {
        let error: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        check("error", &error);
        error["error"]["code"].as_str().unwrap().to_owned()
    };
    stderr.lines().map(code).collect()
}

/// The schema of what a command of portsentryctl prints; `None`: no document.
pub fn of(arguments: &[&str]) -> Option<&'static str> {
    let words: Vec<&str> = arguments.iter().copied().filter(|word| *word != "--json").collect();
    let several = |name| {
        let targets = words.iter().skip(1).take_while(|word| !word.starts_with('-')).count();
        if targets > 1 || words.contains(&"--from") { name } else { "change" }
    };
    Some(match *words.first()? {
        "list" if words.contains(&"--would-be") => "would-be",
        "allow" if words.get(1) == Some(&"list") => "allow-list",
        "observe" if words.get(1) == Some(&"report") => "observe-report",
        "block" => several("block"),
        "unblock" => several("unblock"),
        "report" => "report",
        "lists" => "lists",
        "status" => "status",
        "list" => "list",
        "show" => "show",
        "test" => "test",
        "history" => "history",
        "rules" => "rules",
        "check" => "check",
        "import" => "import",
        "test-response" => "test-response",
        "allow" | "reload" | "enforce" | "observe" | "off" | "pause" | "on" => "change",
        _ => return None,
    })
}
