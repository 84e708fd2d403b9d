//! Writes `contrib/schema`: the JSON Schema (draft 2020-12) of every document and event, from the
//! types that are printed, and holds the files there to it.
//!
//!     PORTSENTRY_BLESS=1 cargo test --lib schema    writes them again

use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::control::{
    AllowRow, BlockRow, HistoryRow, ListRow, Loaded, Observed, Status, Tested, WouldBeRow,
};
use crate::ctl::diagnostics::Diagnostic;
use crate::ctl::geo::{Geo, Located};
use crate::ctl::report::Figures;
use crate::ctl::run::Document;
use crate::ctl::several::Wrong;
use crate::engine::NotBlocked;
use crate::journal::error_document::ErrorDocument;
use crate::journal::format::{self, EVENTS, samples};
use crate::journal::record::KINDS;
use crate::probe::ScanKind;

/// A time in every document.
const TIME: &str = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$";

/// The schema of a type as it is printed.
fn of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = Schema::to_value(generator.into_root_schema_for::<T>());
    finish(&mut schema);
    schema
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An object with all of these keys and no other.
fn object(keys: Vec<(&str, Value)>) -> Value {
    let required: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    let properties: Map<String, Value> =
        keys.iter().map(|(key, schema)| ((*key).to_owned(), schema.clone())).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time", "pattern": TIME })
}

fn scan() -> Value {
    one_of(&ScanKind::ALL.map(ScanKind::name))
}

fn target_port() -> Value {
    object(vec![
        ("transport", one_of(&["tcp", "udp", "sctp", "ip"])),
        ("number", json!({ "type": "integer", "minimum": 0, "maximum": 65535 })),
    ])
}

fn explanation() -> Value {
    object(vec![
        ("code", one_of(&["scan", "order", "foreign", "campaign"])),
        ("text", text()),
        ("scan", or_null(scan())),
        ("proven", or_null(json!({ "type": "boolean" }))),
        ("ports", array(target_port())),
    ])
}

fn not_blocked_because() -> Value {
    object(vec![("code", one_of(&NotBlocked::ALL.map(NotBlocked::code))), ("text", text())])
}

/// What [`crate::journal::typed`] puts beside a key whose schema this is.
fn beside(key: &str, schema: &Value) -> Option<(&'static str, Value)> {
    let types = &schema["type"];
    let nullable = types.as_array().is_some_and(|types| types.contains(&"null".into()));
    let is_text = *types == "string"
        || nullable && types.as_array().is_some_and(|types| types.contains(&"string".into()));
    let is_text = is_text || schema["$ref"] == "#/$defs/PortName";
    let texts = *types == "array" && schema["items"]["type"] == "string";
    let typed = |schema: Value| if nullable { or_null(schema) } else { schema };
    match key {
        "reason" if is_text => Some(("explanation", typed(explanation()))),
        "not_blocked" if is_text => Some(("not_blocked_because", typed(not_blocked_because()))),
        "port" if is_text => Some(("target_port", typed(target_port()))),
        // A row of the history: 0 is none.
        "port" if *types == "integer" => Some(("target_port", or_null(target_port()))),
        "ports" if texts => Some(("target_ports", array(target_port()))),
        "services" if texts => Some(("service_ports", array(target_port()))),
        "ranges" if is_text => {
            let number = json!({ "type": "integer", "minimum": 0, "maximum": 65535 });
            let range = object(vec![("first", number.clone()), ("last", number)]);
            Some(("port_ranges", array(range)))
        }
        _ => None,
    }
}

/// Adds the typed keys, refuses keys that are not documented, and takes out what is Rust's.
fn finish(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(finish),
        Value::Object(keys) => {
            let format = keys.get("format").and_then(Value::as_str).unwrap_or_default();
            if format.starts_with("uint") || format.starts_with("int") || format == "double" {
                keys.remove("format");
            }
            if keys.get("format").is_some_and(|format| format == "date-time") {
                keys.insert("pattern".to_owned(), TIME.into());
            }
            // A default is for reading what an older daemon sends.
            keys.remove("default");
            keys.values_mut().for_each(finish);
            let Some(Value::Object(properties)) = keys.get_mut("properties") else { return };
            let new: Vec<_> =
                properties.iter().filter_map(|(key, schema)| beside(key, schema)).collect();
            let names: Vec<Value> = new.iter().map(|(key, _)| (*key).into()).collect();
            properties.extend(new.into_iter().map(|(key, schema)| (key.to_owned(), schema)));
            if let Some(Value::Array(required)) = keys.get_mut("required") {
                required.extend(names);
            }
            keys.entry("additionalProperties").or_insert(false.into());
        }
        _ => {}
    }
}

/// The schema of an event's key.
fn fact(key: &str) -> Value {
    let flag = json!({ "type": "boolean" });
    match key {
        "target_port" => or_null(target_port()),
        "explanation" => explanation(),
        "not_blocked_because" => or_null(not_blocked_because()),
        "scan" => or_null(scan()),
        "transport" => one_of(&["tcp", "udp"]),
        "would_be" => or_null(one_of(&["slowed", "blocked"])),
        "ip_options" | "blocking" | "proven" | "renewed" | "done" | "test" => flag,
        "ports" | "sources" | "renewals" | "uid" | "packets" | "total" | "entries" | "commands"
        | "blocks" | "lines" | "within" | "blocks_left" => count(),
        "timeout" | "dropped" | "passed" | "confirm_within" | "on_within" | "pid" | "status"
        | "signal" => or_null(json!({ "type": "integer" })),
        "took" => json!({ "type": "number", "minimum": 0 }),
        "name" | "port" | "not_blocked" | "program" | "why" | "user" | "login" | "list" => {
            or_null(text())
        }
        _ => text(),
    }
}

/// The keys of each kind of event.
fn kinds() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let rows = EVENTS.lines().filter_map(|row| row.split_once(':'));
    rows.map(|(kind, keys)| (kind, keys.split_whitespace().collect()))
}

/// All events; `located`: with where their address is.
fn event(located: bool) -> Value {
    let kind = |kind: &str, keys: Vec<&str>| {
        let mut all = vec![
            ("time", time()),
            ("level", one_of(&["error", "warn", "info", "debug", "trace"])),
            ("event", json!({ "const": kind })),
        ];
        all.extend(keys.iter().map(|key| (*key, fact(key))));
        let mut schema = object(all);
        // Only portsentryctl adds it, and where nothing is known it is absent.
        if located && keys.contains(&"address") {
            schema["properties"]["geo"] = of::<Geo>();
        }
        schema
    };
    let mut all: Vec<Value> = kinds().map(|(name, keys)| kind(name, keys)).collect();
    // A client of `watch` that reads too slowly gets it instead of what it missed.
    all.push(object(vec![("event", json!({ "const": "missed" })), ("lines", count())]));
    json!({
        "description": "An event: a line of log.format: json, of portsentryctl --json watch, and of portsentry replay --jsonl. portsentry(8) describes them under EVENTS.",
        "type": "object",
        "required": ["event"],
        "oneOf": all,
    })
}

/// Further facts of the history.
fn details() -> Value {
    let mut properties: Map<String, Value> = kinds()
        .flat_map(|(_, keys)| keys)
        .filter(|key| !matches!(*key, "target_port" | "explanation"))
        .map(|key| (key.to_owned(), fact(key)))
        .collect();
    properties.insert("events".to_owned(), count());
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// The schema of rows of the history, wherever they are.
fn with_history(mut schema: Value) -> Value {
    let row = &mut schema["$defs"]["HistoryRow"]["properties"];
    row["details"] = details();
    row["details"]["description"] = "Further facts, by their keys in the log.".into();
    row["kind"] = one_of(KINDS);
    schema
}

/// The report of `portsentry replay --json`.
fn replay() -> Value {
    let counts = |keys: &[&'static str]| object(keys.iter().map(|key| (*key, count())).collect());
    let flag = || json!({ "type": "boolean" });
    let span = || {
        array(object(vec![
            ("from", time()),
            ("until", or_null(time())),
            ("reason", text()),
            ("explanation", explanation()),
        ]))
    };
    let link = object(vec![("number", count()), ("name", or_null(text())), ("packets", count())]);
    let damage = object(vec![("offset", count()), ("packet", count()), ("message", text())]);
    let file = object(vec![
        ("file", text()),
        ("format", text()),
        ("bytes", count()),
        ("packets", count()),
        ("link_types", array(link)),
        ("first", or_null(time())),
        ("last", or_null(time())),
        ("damage", or_null(damage)),
    ]);
    let source = object(vec![
        ("address", text()),
        ("scan", scan()),
        ("scans", array(scan())),
        ("port", text()),
        ("target_port", target_port()),
        ("destination", or_null(text())),
        ("detected", time()),
        ("probes_until_detected", count()),
        ("probes", count()),
        ("proven", flag()),
        ("reason", text()),
        ("explanation", explanation()),
        ("not_blocked", or_null(text())),
        ("not_blocked_because", or_null(not_blocked_because())),
        ("slowed", span()),
        ("blocked", span()),
        ("spans_not_listed", count()),
        ("dropped", count()),
    ]);
    let packets = ["all", "not_ip", "unreadable", "fragments", "others", "outgoing", "incoming"];
    object(vec![
        ("version", text()),
        ("files", array(file)),
        ("local", array(text())),
        ("local_guessed", flag()),
        ("has_answers", flag()),
        ("checksums", flag()),
        ("answer_within", json!({ "type": "number", "minimum": 0 })),
        ("time_back", count()),
        ("time_leaps", count()),
        ("packets", counts(&packets)),
        ("skipped", json!({ "type": "object", "additionalProperties": count() })),
        ("probes", count()),
        ("reports_held_back", count()),
        ("not_listed", count()),
        ("detected", array(source)),
        ("campaigns", array(event(false))),
    ])
}

/// What `block` and `unblock` of several print.
fn several(done: &'static str, more: Vec<(&'static str, Value)>) -> Value {
    let mut refused = of::<Vec<Wrong>>();
    let mut keys = vec![("message", text()), (done, count())];
    keys.push(("refused", refused["items"].take()));
    keys.extend(more);
    let mut schema = object(keys);
    schema["properties"]["refused"] = array(schema["properties"]["refused"].take());
    schema["$defs"] = refused["$defs"].take();
    schema
}

/// What `check` and `import` print.
fn checked(more: Vec<(&'static str, Value)>) -> Value {
    let mut list = of::<Vec<Diagnostic>>();
    let flag = json!({ "type": "boolean" });
    let mut keys = vec![("ok", flag), ("file", or_null(text())), ("findings", array(text()))];
    keys.push(("diagnostics", array(list["items"].take())));
    keys.extend(more);
    let mut schema = object(keys);
    schema["$defs"] = list["$defs"].take();
    schema
}

/// Name, command and schema of each document.
fn all() -> Vec<(&'static str, &'static str, Value)> {
    let flag = json!({ "type": "boolean" });
    vec![
        ("status", "portsentryctl --json status", of::<Status>()),
        ("list", "portsentryctl --json list", of::<Vec<Located<BlockRow>>>()),
        ("would-be", "portsentryctl --json list --would-be", of::<Vec<Located<WouldBeRow>>>()),
        ("show", "portsentryctl --json show", with_history(of::<Document<'static>>())),
        ("test", "portsentryctl --json test", of::<Tested>()),
        ("history", "portsentryctl --json history", with_history(of::<Vec<Located<HistoryRow>>>())),
        ("report", "portsentryctl --json report", of::<Figures>()),
        ("lists", "portsentryctl --json lists", of::<Vec<ListRow>>()),
        ("allow-list", "portsentryctl --json allow list", of::<Vec<AllowRow>>()),
        ("observe-report", "portsentryctl --json observe report", of::<Observed>()),
        (
            "block",
            "portsentryctl --json block, of several",
            several("blocked", vec![("list", or_null(of::<Loaded>()))]),
        ),
        ("unblock", "portsentryctl --json unblock, of several", several("unblocked", Vec::new())),
        (
            "change",
            "portsentryctl --json, of what changes one thing",
            object(vec![("message", text())]),
        ),
        ("rules", "portsentryctl --json rules", object(vec![("rules", text())])),
        ("check", "portsentryctl --json check", checked(vec![("replaced", array(text()))])),
        ("import", "portsentryctl --json import", checked(vec![("yaml", or_null(text()))])),
        (
            "test-response",
            "portsentryctl --json test-response",
            object(vec![("ok", flag), ("events", array(event(false))), ("missing", array(text()))]),
        ),
        (
            "event",
            "portsentryctl --json watch, portsentry replay --jsonl, log.format: json",
            event(true),
        ),
        ("replay", "portsentry replay --json", replay()),
        ("error", "any of them, on standard error", of::<ErrorDocument>()),
    ]
}

fn path(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("contrib/schema");
    directory.join(format!("{name}.schema.json"))
}

fn written(title: &str, schema: &Value) -> String {
    let mut whole = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema" });
    let (Value::Object(whole), Value::Object(schema)) = (&mut whole, schema) else {
        panic!("{title} is no object")
    };
    whole.extend(schema.clone());
    whole.insert("title".to_owned(), title.into());
    whole.retain(|_, value| !value.is_null());
    serde_json::to_string_pretty(whole).unwrap() + "\n"
}

fn validator(name: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(path(name)).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    let is_blessing = std::env::var_os("PORTSENTRY_BLESS").is_some();
    let mut known = Vec::new();
    for (name, title, schema) in all() {
        let text = written(title, &schema);
        jsonschema::meta::validate(&serde_json::from_str(&text).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        if is_blessing {
            std::fs::write(path(name), &text).unwrap();
        }
        let committed = std::fs::read_to_string(path(name)).unwrap_or_default();
        assert!(committed == text, "{name}: PORTSENTRY_BLESS=1 cargo test --lib schema");
        known.push(path(name));
    }
    for entry in path("event").parent().unwrap().read_dir().unwrap() {
        let path = entry.unwrap().path();
        let is_schema = path.extension().is_some_and(|extension| extension == "json");
        assert!(!is_schema || known.contains(&path), "{} is of nothing", path.display());
    }
}

#[test]
fn every_event_is_valid_and_one_with_another_key_is_not() {
    let validator = validator("event");
    for event in samples::all() {
        let mut value: Value = serde_json::from_str(&format::json(&event)).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{error}: {value}");
        }
        value["undocumented"] = 1.into();
        assert!(!validator.is_valid(&value), "{value}");
    }
    assert!(validator.is_valid(&json!({ "event": "missed", "lines": 3 })));
}

#[test]
fn an_error_has_a_known_code() {
    let validator = validator("error");
    let document = |code| {
        let line = ErrorDocument::new(code, "m\u{1b}".to_owned(), String::new(), 70).line();
        assert!(line.ends_with('\n') && !line.contains('\u{1b}'));
        serde_json::from_str(&line).unwrap()
    };
    assert!(validator.is_valid(&document("unreachable")));
    assert!(!validator.is_valid(&document("strange")));
}
