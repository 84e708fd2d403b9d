//! What programs read is as `contrib/schema` says: every command against one daemon, and every
//! event of it, in the log and in `watch`.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::daemon::{AT_DEFAULTS, Daemon};
use support::mmdb::{self, Value::Map, Value::Text};
use support::scene::Scene;
use support::{eventually, missing, output, output_text, schema};

const TOOLS: &[&str] = &["ip", "nft", "nmap"];
const HOST: &str = "10.87.1.1";

#[test]
fn every_document_and_event_of_a_daemon_is_as_its_schema_says() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(&["10.87.1.1/24"], &["10.87.1.2/24", "10.87.1.3/24"]);
    let places = tempfile::tempdir().unwrap();
    let database = places.path().join("places.mmdb");
    let place = Map(vec![("asn", Text("AS64496")), ("country_code", Text("DE"))]);
    fs::write(&database, mmdb::file(24, 6, &[("10.87.0.0/16", place)])).unwrap();
    let yaml = format!(
        "log: {{ format: json, level: debug }}\nrespond: {{ command: [\"/bin/true\"] }}\nallow: [203.0.113.9]\n\
         geo: {{ country: {} }}\n{AT_DEFAULTS}",
        database.display()
    );
    let daemon = Daemon::start(&scene.host, &yaml);
    let watched = daemon.path("watched");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
        .arg("--socket")
        .arg(daemon.path("control.sock"))
        .args(["--json", "watch"])
        .stdout(Stdio::from(fs::File::create(&watched).unwrap()))
        .spawn()
        .unwrap();
    let list = daemon.path("list");
    fs::write(&list, "198.51.100.7\n198.51.100.8 # two\n2001:db8:7::/48\n").unwrap();

    // Slowed, and blocked by the administrator.
    scene.scan_from("10.87.1.2", &["-sS", "-p1-40", HOST]);
    daemon.wait_for_block("10.87.1.2");
    let done_by = |words: &[&str]| daemon.json(words);
    done_by(&["block", "10.87.1.3", "--for", "2h", "--reason", "abuse"]);
    done_by(&["block", "192.0.2.1", "192.0.2.0/28"]);
    done_by(&["block", "--from", list.to_str().unwrap()]);
    done_by(&["block", "--from", list.to_str().unwrap(), "--list", "scanners"]);
    done_by(&["block", "--from", list.to_str().unwrap(), "--list", "scanners", "--add"]);
    let lists = done_by(&["lists"]);
    assert_eq!(lists[0]["blocks"], 3, "{lists}");
    done_by(&["list"]);
    let of_net = done_by(&["list", "--net", "192.0.2.0/24", "--sort", "packets"]);
    assert_eq!(of_net.as_array().unwrap().len(), 2, "{of_net}");
    let status = done_by(&["status"]);
    assert!(!status["watching"][0]["port_ranges"].as_array().unwrap().is_empty(), "{status}");
    let shown = done_by(&["show", "10.87.1.2"]);
    let ports = shown["target_ports"].as_array().unwrap();
    assert!(ports.len() > 2 && ports[0]["transport"] == "tcp", "{shown}");
    assert_eq!(shown["block"]["explanation"]["code"], "scan", "{shown}");
    let place = serde_json::json!({"country": "DE", "asn": 64496, "as_name": null});
    assert_eq!(shown["geo"], place, "{shown}");
    let of_country = done_by(&["list", "--country", "DE"]);
    assert!(of_country[0]["geo"] == place && of_country[2].is_null(), "{of_country}");
    for address in ["10.87.1.3", "192.0.2.5", "203.0.113.9"] {
        done_by(&["show", address]);
    }
    done_by(&["test", "10.87.1.2", "22", "udp/53"]);
    done_by(&["allow", "add", "198.51.100.99"]);
    done_by(&["allow", "list"]);
    done_by(&["allow", "remove", "198.51.100.99"]);
    done_by(&["unblock", "198.51.100.7", "198.51.100.8"]);
    done_by(&["unblock", "192.0.2.5"]);
    done_by(&["unblock", "--list", "scanners"]);
    done_by(&["rules"]);
    done_by(&["check"]);
    done_by(&["test-response"]);
    done_by(&["off"]);
    done_by(&["on"]);
    done_by(&["pause", "1h"]);
    done_by(&["on"]);
    done_by(&["observe"]);
    scene.scan_from("10.87.1.2", &["-sX", "-p41-80", HOST]);
    done_by(&["observe", "report"]);
    done_by(&["list", "--would-be"]);
    done_by(&["enforce"]);
    daemon.write_configuration(&yaml.replace("allow: [203.0.113.9]", "allow: [203.0.113.0/28]"));
    done_by(&["reload"]);
    daemon.write_configuration("scan_triger: 1\n");
    let socket = daemon.path("control.sock");
    let refused = |words: &[&str], status: i32, code: &str| {
        let fixed = ["--json", "--socket", socket.to_str().unwrap()];
        let words = [&fixed, words].concat();
        let limit = Duration::from_secs(20);
        let output = output(env!("CARGO_BIN_EXE_portsentryctl"), &words, limit);
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {text}");
        let codes = schema::codes(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(codes, [code], "{words:?}: {text}");
    };
    refused(&["reload"], 78, "configuration");
    refused(&["block", "203.0.113.9"], 1, "no");
    refused(&["block", "203.0.113.9", "192.0.2.77"], 1, "not-all");
    refused(&["unblock", "192.0.2.200"], 1, "no");
    refused(&["block", "192.0.2.1", "--for", "900000d"], 64, "bad-request");
    refused(&["on"], 1, "no");
    done_by(&["unblock", "--all"]);
    let report = done_by(&["report"]);
    assert!(report["scans"].as_u64().unwrap() > 0, "{report}");
    let history = done_by(&["history", "--all"]);
    let stored: BTreeSet<&str> =
        history.as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert!(stored.len() > 8, "{stored:?}");

    assert!(eventually(Duration::from_secs(10), || {
        fs::read_to_string(&watched).unwrap().matches("\"unblocked\"").count() > 3
    }));
    watch.kill().unwrap();
    watch.wait().unwrap();
    let text = fs::read_to_string(&watched).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let events = schema::check_events(whole);
    let kinds = |events: &[serde_json::Value]| -> BTreeSet<String> {
        events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    };
    let seen = kinds(&events);
    let located = events.iter().filter(|event| event["geo"] == place).count();
    assert!(located > 2, "{located} events say where their source is");
    for kind in ["scan", "slowed", "blocked", "unblocked", "released", "control", "switched"] {
        assert!(seen.contains(kind), "{kind}: {seen:?}");
    }
    let log = daemon.log();
    assert!(!log.contains("\"geo\""), "the daemon does not know it");
    let logged = kinds(&schema::check_events(log.trim_end()));
    assert!(logged.contains("starting") && logged.contains("reload-refused"), "{logged:?}");
}
