//! The daemon's figures for monitoring: metrics that Prometheus' own parsers read, alerts and a
//! dashboard of them, and the plugin that `status --check` is.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::daemon::Daemon;
use support::scene::Scene;
use support::{done, eventually, jail, missing, output, output_text, skip};

const TOOLS: &[&str] = &["ip", "nft", "python3"];
const CONTRIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");

/// Reads OpenMetrics as Prometheus' own client library does, which is strict; prints samples and
/// families as JSON.
const PARSE: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
samples = [[s.name, s.labels, s.value] for f in families for s in f.samples]
json.dump({'samples': samples, 'families': {f.name: [f.type, f.unit, f.documentation] for f in families}}, sys.stdout)
";

/// The root of Debian's packages with promtool and the parser; `None`: skipped.
fn tools() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    match jail::fetch(&kept, &["prometheus", "python3-prometheus-client"]) {
        Ok(_) => Some(kept.join("root")),
        Err(why) => {
            skip(&format!("prometheus: {why}"));
            None
        }
    }
}

fn scene() -> Scene {
    Scene::new(&["10.78.1.1/24"], &["10.78.1.2/24"])
}

/// Runs promtool with a text on its standard input.
fn promtool(tools: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("input");
    fs::write(&file, input).unwrap();
    let output = Command::new(tools.join("usr/bin/promtool"))
        .args(arguments)
        .current_dir(Path::new(CONTRIB).join("prometheus"))
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    (output.status.success(), output_text(&output))
}

fn parsed(tools: &Path, text: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("input");
    fs::write(&file, text).unwrap();
    let output = Command::new("python3")
        .args(["-c", PARSE])
        .env("PYTHONPATH", tools.join("usr/lib/python3/dist-packages"))
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{text}", output_text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The value of each sample, by its name and its labels' values.
fn samples(parsed: &Value) -> BTreeMap<String, f64> {
    let rows = parsed["samples"].as_array().unwrap().iter();
    rows.map(|row| {
        let labels = row[1].as_object().unwrap().values();
        let words: Vec<&str> =
            [&row[0]].into_iter().chain(labels).filter_map(Value::as_str).collect();
        (words.join(" "), row[2].as_f64().unwrap())
    })
    .collect()
}

/// The names of metrics in a text that refers to them.
fn names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut names: Vec<String> =
        words.filter(|word| word.starts_with("portsentry_")).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn prometheus_reads_the_metrics_and_they_are_those_of_the_status() {
    if missing(TOOLS).is_some() {
        return;
    }
    let Some(tools) = tools() else { return };
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "tcp: { mode: stealth }\nudp: { mode: off }");
    for number in 1..=3 {
        done(&daemon.ctl(&["block", &format!("192.0.2.{number}")]));
    }
    for _ in 0..2 {
        done(&daemon.ctl(&["unblock", "192.0.2.1"]));
        done(&daemon.ctl(&["block", "192.0.2.1"]));
    }
    let status = daemon.json(&["status"]);
    let text = done(&daemon.ctl(&["metrics"]));
    assert!(text.ends_with("# EOF\n"), "{text}");
    let document = parsed(&tools, &text);
    let found = samples(&document);
    let at = |name: &str| *found.get(name).unwrap_or_else(|| panic!("no {name} in {found:#?}"));
    for (name, value) in [
        ("portsentry_up", 1.0),
        ("portsentry_protecting", 1.0),
        ("portsentry_rules_in_place", 1.0),
        ("portsentry_mode enforce", 1.0),
        ("portsentry_mode observe", 0.0),
        ("portsentry_detection on", 1.0),
        ("portsentry_blocks", 3.0),
        ("portsentry_blocks_by_cause order", 3.0),
        ("portsentry_block_changes_total began", 5.0),
        ("portsentry_block_changes_total ended", 2.0),
        ("portsentry_blocks_not_in_force", 0.0),
        ("portsentry_config_last_load_successful", 1.0),
        ("portsentry_table_contested", 0.0),
        ("portsentry_allow_names_failing", 0.0),
        ("portsentry_store_failing", 0.0),
        ("portsentry_event_store ok", 1.0),
        ("portsentry_not_blocked_probes_total per_minute", 0.0),
        ("portsentry_not_blocked_probes_total total", 0.0),
        ("portsentry_helper_up", 1.0),
    ] {
        assert_eq!(at(name), value, "{name}");
    }
    let of_status = |key: &str| status[key].as_f64().unwrap();
    assert_eq!(at("portsentry_blocks_limit"), of_status("blocked_most"));
    assert_eq!(at("portsentry_warnings"), status["warnings"].as_array().unwrap().len() as f64);
    assert!(found.contains_key(&format!("portsentry_build_info {}", env!("CARGO_PKG_VERSION"))));
    for (name, family) in document["families"].as_object().unwrap() {
        let (kind, unit) = (family[0].as_str().unwrap(), family[1].as_str().unwrap());
        assert!(["gauge", "counter"].contains(&kind), "{name} is a {kind}");
        assert!(!family[2].as_str().unwrap().is_empty(), "{name} has no help");
        assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
    }

    // Of a file for node_exporter, promtool finds fault with names, units and help as well.
    let file = daemon.path("portsentry.prom");
    let path = file.to_str().unwrap().to_owned();
    done(&daemon.ctl(&["metrics", "--textfile", &path]));
    let written = fs::read_to_string(&file).unwrap();
    let (good, faults) = promtool(&tools, &["check", "metrics"], &written);
    assert!(good && faults.trim().is_empty(), "{faults}\n{written}");
    assert!(written.contains("\n# TYPE portsentry_probes_total counter\n"), "{written}");
    assert!(!written.contains("# EOF"), "{written}");

    // Over HTTP they are the same, in both forms.
    let socket = daemon.path("control.sock");
    let served = daemon.path("metrics.sock");
    let listen = format!("unix:{}", served.display());
    let words = ["--socket", socket.to_str().unwrap(), "metrics", "--listen", &listen];
    let _server = scene.host.spawn(env!("CARGO_BIN_EXE_portsentryctl"), &words);
    assert!(eventually(Duration::from_secs(10), || UnixStream::connect(&served).is_ok()));
    let fetch = |accept: &str| {
        let mut stream = UnixStream::connect(&served).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let over_http = samples(&parsed(&tools, &fetch("application/openmetrics-text;version=1.0.0")));
    assert!(over_http.keys().eq(found.keys()), "{over_http:#?}");
    assert_eq!(over_http["portsentry_blocks"], 3.0);
    let (good, faults) = promtool(&tools, &["check", "metrics"], &fetch("text/plain"));
    assert!(good && faults.trim().is_empty(), "{faults}");

    // What alerts and dashboard refer to is there.
    let is_there = |name: &String| found.keys().any(|key| key.split(' ').next() == Some(name));
    for of in ["prometheus/portsentry.rules.yml", "grafana/portsentry.json"] {
        let text = fs::read_to_string(Path::new(CONTRIB).join(of)).unwrap();
        let unknown: Vec<String> =
            names(&text).into_iter().filter(|name| !is_there(name)).collect();
        assert!(unknown.is_empty(), "{of}: {unknown:?} are no metrics");
        assert!(names(&text).len() >= 10, "{of}");
    }
    let dashboard = fs::read(Path::new(CONTRIB).join("grafana/portsentry.json")).unwrap();
    let dashboard: Value = serde_json::from_slice(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 15);

    // A daemon that is gone is down in the file, and nothing else is claimed of it.
    daemon.stop();
    assert_eq!(daemon.ctl(&["metrics", "--textfile", &path]).status.code(), Some(69));
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains("\nportsentry_up 0\n"), "{written}");
    assert_eq!(names(&written), ["portsentry_up"]);
    assert_eq!(
        fs::read_dir(daemon.directory.path())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().contains(".prom")
            })
            .count(),
        1
    );
    assert_eq!(daemon.ctl(&["metrics"]).status.code(), Some(69));
}

#[test]
fn each_alert_fires_when_it_has_to_and_only_then() {
    if missing(TOOLS).is_some() {
        return;
    }
    let Some(tools) = tools() else { return };
    let (good, text) = promtool(&tools, &["check", "rules", "portsentry.rules.yml"], "");
    assert!(good, "{text}");
    let (good, text) = promtool(&tools, &["test", "rules", "portsentry.tests.yml"], "");
    assert!(good, "{text}");
    let read = |name: &str| fs::read_to_string(Path::new(CONTRIB).join("prometheus").join(name));
    let (rules, tests) =
        (read("portsentry.rules.yml").unwrap(), read("portsentry.tests.yml").unwrap());
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 11);
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts")), "{alert}");
        assert!(tests.contains(&format!("25m, alertname: {alert} }}")), "{alert}");
    }
}

#[test]
fn a_monitoring_plugin_hears_ok_warning_critical_and_unknown() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    let check = |daemon: &Daemon<'_>| {
        let output = daemon.ctl(&["status", "--check"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.stderr.is_empty(), "{}", output_text(&output));
        assert_eq!(text.lines().count(), 1, "{text}");
        (output.status.code().unwrap(), text)
    };
    let is = |daemon: &Daemon<'_>, code: i32, begins: &str| {
        let (found, text) = check(daemon);
        assert!(found == code && text.starts_with(begins), "{found}: {text}");
        text
    };
    done(&daemon.ctl(&["block", "192.0.2.1"]));
    let text = is(
        &daemon,
        0,
        "PORTSENTRY OK - scans are blocked, 1 block, 0 slowed sources | blocked=1;;;0;",
    );
    for word in text.split(" | ").nth(1).unwrap().split_whitespace() {
        // 'label'=value[UOM];[warn];[crit];[min];[max]
        let (label, value) = word.split_once('=').unwrap();
        assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
        let fields: Vec<&str> = value.split(';').collect();
        assert!(
            fields.len() >= 4 && fields[0].trim_end_matches(['c', 's']).parse::<u64>().is_ok(),
            "{word}"
        );
    }
    done(&daemon.ctl(&["pause", "10m"]));
    is(&daemon, 1, "PORTSENTRY WARNING - detection is paused");
    done(&daemon.ctl(&["on"]));
    done(&daemon.ctl(&["observe"]));
    is(&daemon, 1, "PORTSENTRY WARNING - the mode is observe");
    done(&daemon.ctl(&["enforce"]));
    daemon.write_configuration("mode: perhaps");
    assert_eq!(daemon.ctl(&["reload"]).status.code(), Some(78));
    is(&daemon, 1, "PORTSENTRY WARNING - the configuration that was read last was refused");
    assert_eq!(daemon.json(&["status"])["loaded"]["ok"], false);
    daemon.write_configuration("");
    done(&daemon.ctl(&["reload"]));
    is(&daemon, 0, "PORTSENTRY OK");
    // Another program takes the rules out while the daemon cannot mend them.
    daemon.signal("STOP");
    scene.host.run("nft", &["flush", "chain", "inet", "portsentry", "watch"]);
    let stopped = std::time::Instant::now();
    daemon.signal("CONT");
    // Repaired at once, or told: never OK without rules.
    assert!(eventually(Duration::from_secs(10), || check(&daemon).0 == 0));
    assert!(stopped.elapsed() < Duration::from_secs(11));
    daemon.stop();
    is(&daemon, 2, "PORTSENTRY CRITICAL - the daemon cannot be reached");
    let socket = daemon.path("control.sock");
    let program = env!("CARGO_BIN_EXE_portsentryctl");
    let copy = daemon.path("portsentryctl");
    support::copy_program(program, &copy);
    daemon.restart("");
    let words = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        copy.to_str().unwrap(),
        "--socket",
        socket.to_str().unwrap(),
        "status",
        "--check",
    ];
    let other = output("setpriv", &words, Duration::from_secs(20));
    assert_eq!(other.status.code(), Some(3), "{}", output_text(&other));
    assert!(
        output_text(&other).starts_with("PORTSENTRY UNKNOWN - you may not use"),
        "{}",
        output_text(&other)
    );
}
