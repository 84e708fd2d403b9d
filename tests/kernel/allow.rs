//! Allow lists by DNS name, by file and by interface, over the real kernel.

use crate::support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use support::daemon::Daemon;
use support::netns::Running;
use support::{eventually, missing};

use crate::responses::Etc;

const TOOLS: &[&str] = &["ip", "nft", "nmap", "python3"];
const OFFICE: &str = "10.69.1.2";
const OTHER: &str = "10.69.1.3";
const NAME: &str = "office.example.net";
const NAMESERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/nameserver.py");

/// Longer than a name server that hangs holds a lookup, and its retry.
const LONG: Duration = Duration::from_secs(60);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The two hosts, and a directory for files.
struct Scene {
    hosts: support::scene::Scene,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let hosts = support::scene::Scene::new(
            &["10.69.1.100/24", "fd69:1::100/64"],
            &["10.69.1.2/24", "10.69.1.3/24", "fd69:1::2/64"],
        );
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { hosts, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a file as a whole: a reader sees the old text or the new one.
    fn write(&self, name: &str, text: &str) {
        let new = self.file("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
        fs::rename(new, self.file(name)).unwrap();
    }

    fn zone(&self, zone: &Value) {
        self.write("zone", &zone.to_string());
    }

    fn scan(&self, from: &str, ports: &str) {
        self.hosts.scan_from(from, &["-sS", ports, &self.hosts.target]);
    }

    /// A name server on the protected host, which asks it.
    fn name_server(&self) -> (Running, Etc) {
        let etc = Etc::new(
            &self.hosts.host,
            &[
                ("hosts", "127.0.0.1 localhost\n"),
                ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
                ("nsswitch.conf", "hosts: files dns\n"),
            ],
        );
        self.hosts.host.run("ip", &["link", "set", "lo", "up"]);
        let zone = self.file("zone");
        let words = [NAMESERVER, "127.0.0.1", zone.to_str().unwrap()];
        let mut server = self.hosts.host.spawn("python3", &words);
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        (server, etc)
    }
}

/// The row of an address in `allow list`.
fn row(daemon: &Daemon<'_>, address: &str) -> Value {
    let rows = daemon.json(&["allow", "list"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["address"] == address);
    row.cloned().unwrap_or(Value::Null)
}

/// What the status says of the name.
fn name(daemon: &Daemon<'_>) -> Value {
    daemon.json(&["status"])["allowed_names"][0].clone()
}

fn error(daemon: &Daemon<'_>) -> String {
    name(daemon)["error"].as_str().unwrap_or_default().to_owned()
}

fn warnings(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["warnings"].to_string()
}

#[test]
fn a_names_addresses_are_exempt_and_follow_its_answers() {
    if missing(TOOLS).is_some() || !Path::new("/etc/nsswitch.conf").exists() {
        return;
    }
    let scene = Scene::new();
    let by_name = format!("allow: [{NAME}]");
    scene.zone(&json!({ "mode": "servfail" }));
    let (_server, _etc) = scene.name_server();
    let mut daemon = Daemon::start(&scene.hosts.host, &by_name);

    // Nothing is exempt before the first answer, and that is said.
    daemon.wait_for_log(&format!("the name {NAME} has never been resolved"));
    assert!(warnings(&daemon).contains("has never been resolved"), "{}", warnings(&daemon));
    assert!(done(&daemon.ctl(&["allow", "list"])).contains(&format!("{NAME} has never been")));
    let failing =
        || done(&daemon.ctl(&["metrics"])).contains("\nportsentry_allow_names_failing 1\n");
    assert!(failing());
    let file = daemon.path("portsentry.yaml");
    let checked = done(&daemon.ctl(&["check", file.to_str().unwrap()]));
    assert!(checked.contains(&format!("the name {NAME} does not resolve now")), "{checked}");
    scene.scan(OFFICE, "-p1-50");
    daemon.wait_for_block(OFFICE);

    // An address that joins is exempt at once, and its block is lifted.
    scene.zone(&json!({ "mode": "answer", "a": [OFFICE], "aaaa": ["fd69:1::2"] }));
    done(&daemon.ctl(&["reload"]));
    daemon.wait_for_log(&format!("{OFFICE} is allowed now: never blocked by the name {NAME}."));
    daemon.wait_for_log(&format!("Host {OFFICE} is no longer blocked: it must never be blocked"));
    assert!(!failing());
    assert!(scene.hosts.reaches_from(OFFICE));
    scene.scan(OFFICE, "-p1-50");
    scene.hosts.nmap(&["-6", "-sS", "-p1-50", "fd69:1::100"]);
    daemon.wait_for_log("Host fd69:1::2 was not blocked: never-block address");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    let found = row(&daemon, OFFICE);
    assert_eq!((&found["name"], found["resolved"].is_string()), (&json!(NAME), true), "{found}");
    assert!(row(&daemon, "fd69:1::2")["name"] == NAME);
    for command in ["show", "test"] {
        let words = done(&daemon.ctl(&[command, OFFICE]));
        assert!(
            words.contains(&format!("the name {NAME} under allow has this address")),
            "{words}"
        );
    }
    let status = done(&daemon.ctl(&["status"]));
    assert!(status.contains(&format!("{NAME}: {OFFICE}, fd69:1::2; resolved ")), "{status}");
    assert!(!warnings(&daemon).contains(NAME), "{}", warnings(&daemon));

    // The last good answer stays, whatever DNS says instead, and over a restart.
    for (mode, what) in [
        ("servfail", "no name server answers"),
        ("nxdomain", "there is no such name"),
        ("answer", "it has no address"),
        ("garbage", "no name server answers"),
        ("hang", "no name server answers"),
    ] {
        scene.zone(&json!({ "mode": mode }));
        done(&daemon.ctl(&["reload"]));
        assert!(eventually(LONG, || error(&daemon) == what), "{mode}: {}", name(&daemon));
        assert_eq!(name(&daemon)["addresses"], json!([OFFICE, "fd69:1::2"]), "{mode}");
    }
    assert!(warnings(&daemon).contains("the addresses that it had stay exempt"));
    daemon.stop();
    daemon.restart(&by_name);
    scene.scan(OFFICE, "-p51-99");
    assert_eq!((daemon.blocked(), &row(&daemon, OFFICE)["name"]), (vec![], &json!(NAME)));

    // One that leaves stays until a second answer is without it; a family that fails keeps its own.
    scene.zone(&json!({ "mode": "answer", "a": [OTHER], "only": "a" }));
    done(&daemon.ctl(&["reload"]));
    daemon.wait_within_for_log(LONG, &format!("{OTHER} is allowed now"));
    assert_eq!(name(&daemon)["addresses"], json!([OFFICE, OTHER, "fd69:1::2"]));
    done(&daemon.ctl(&["reload"]));
    daemon.wait_within_for_log(LONG, &format!("{OFFICE} is not allowed any more by the name"));
    assert_eq!(name(&daemon)["addresses"], json!([OTHER, "fd69:1::2"]));
    scene.scan(OFFICE, "-p1-99");
    daemon.wait_for_block(OFFICE);

    // What it names is not allowed any more without it.
    daemon.write_configuration("");
    done(&daemon.ctl(&["reload"]));
    assert_eq!(row(&daemon, OTHER), Value::Null);
}

#[test]
fn a_file_of_allow_is_read_at_each_reload_and_a_bad_one_is_refused() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    scene.write("office.txt", &format!("# office\n{OFFICE} # router\n"));
    let file = scene.file("office.txt");
    let yaml = format!("allow: [{{file: {}}}]", file.display());
    let daemon = Daemon::start(&scene.hosts.host, &yaml);
    scene.scan(OFFICE, "-p1-50");
    daemon.wait_for_log(&format!("Host {OFFICE} was not blocked: never-block address"));
    assert_eq!(row(&daemon, OFFICE)["file"], json!(file.to_str().unwrap()));
    let shown = done(&daemon.ctl(&["show", OFFICE]));
    assert!(shown.contains(&format!("the file {} under allow has it", file.display())), "{shown}");

    // A bad line loses nothing: neither the rest nor what was allowed.
    scene.write("office.txt", &format!("{OTHER}\n10.69.1.300\n"));
    let refused = daemon.ctl(&["reload"]);
    let words = text(&refused.stderr);
    assert!(!refused.status.success(), "{words}");
    let place = format!("{}:2:1: error: `10.69.1.300` is neither", file.display());
    assert!(words.contains(&place) && words.contains("help: "), "{words}");
    assert!(row(&daemon, OFFICE).is_object() && row(&daemon, OTHER).is_null());
    fs::remove_file(&file).unwrap();
    let words = text(&daemon.ctl(&["reload"]).stderr);
    assert!(words.contains("cannot read the allow file"), "{words}");
    assert!(row(&daemon, OFFICE).is_object());

    scene.write("office.txt", OTHER);
    let words = done(&daemon.ctl(&["reload"]));
    assert!(words.contains("files of allow: read again, 1 added, 1 removed"), "{words}");
    scene.scan(OFFICE, "-p1-50");
    daemon.wait_for_block(OFFICE);
    scene.scan(OTHER, "-p1-50");
    assert_eq!(daemon.blocked(), [OFFICE]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let words = text(&daemon.ctl(&["reload"]).stderr);
    assert!(words.contains("office.txt is writable"), "{words}");
}

/// A second link between the hosts, as a VPN's.
const VPN: &str = "wg0";

// P1
#[test]
fn nothing_is_blocked_over_an_allowed_interface_and_blocks_elsewhere_hold() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (capture, silent) in [("nflog", false), ("nfqueue", false), ("nflog", true)] {
        let scene = Scene::new();
        let yaml = format!(
            "capture: {{ method: {capture} }}\nallow: [{{interface: {VPN}, silent: {silent}}}]"
        );
        let daemon = Daemon::start(&scene.hosts.host, &yaml);
        let listed = done(&daemon.ctl(&["allow", "list"]));
        assert!(listed.contains(&format!("Over {VPN} nothing is slowed or blocked")), "{listed}");
        // It appears later.
        scene.hosts.host.join(&scene.hosts.scanner, VPN, &["10.69.2.100/24"], &["10.69.2.2/24"]);
        let over = |from: &str, words: &[&str]| {
            scene.hosts.nmap(&[&["-e", VPN, "-S", from], words].concat());
        };
        over("10.69.2.2", &["-sS", "-p1-60", "10.69.2.100"]);
        over("10.69.2.2", &["-sX", "-p1-60", "10.69.2.100"]);
        over("10.69.2.2", &["-sA", "-p1-60", "10.69.2.100"]);
        over("10.69.2.2", &["-sU", "-p1-60", "10.69.2.100"]);
        if !silent {
            daemon
                .wait_for_log("Host 10.69.2.2 was not blocked: it came over an allowed interface");
        }
        let closed = scene.hosts.nmap(&["-e", VPN, "-sS", "-p70-75", "10.69.2.100"]);
        assert!(closed.contains("closed") && !closed.contains("filtered"), "{closed}");

        // No evidence against the same address on the other interface.
        scene.hosts.scanner.run("ip", &["addr", "add", "10.69.2.2/32", "dev", "scan0"]);
        scene.hosts.scan_from("10.69.2.2", &["-sS", "-p1", &scene.hosts.target]);
        assert_eq!(daemon.blocked(), Vec::<String>::new(), "{capture}");
        assert_eq!(daemon.json(&["status"])["slowed"], 0, "{capture}");

        // A scan over the other interface is blocked there, and there alone.
        scene.scan(OFFICE, "-p1-50");
        daemon.wait_for_block(OFFICE);
        assert!(!scene.hosts.reaches_from(OFFICE));
        scene.hosts.scanner.run("ip", &["addr", "add", "10.69.1.2/32", "dev", VPN]);
        scene.hosts.host.run("ip", &["route", "replace", "10.69.1.2/32", "dev", VPN]);
        let pings = ["-I", VPN, "10.69.2.100"];
        assert!(scene.hosts.scanner.pings(&pings), "{capture}");
        done(&daemon.ctl(&["block", "10.69.2.2"]));
        assert!(scene.hosts.scanner.pings(&pings), "{capture}: by hand");
        let tested = done(&daemon.ctl(&["test", "10.69.2.2"]));
        assert!(tested.contains(&format!("over {VPN} nothing is slowed or blocked")), "{tested}");
        if silent {
            assert!(!daemon.log().contains("from host: 10.69.2.2/10.69.2.2"), "{}", daemon.log());
        }
    }
}

// P1
#[test]
fn no_decoy_answers_over_an_allowed_interface() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    scene.hosts.host.join(&scene.hosts.scanner, VPN, &["10.69.2.100/24"], &["10.69.2.2/24"]);
    let decoys = "tcp: { mode: connect, ports: 1-60 }";
    let yaml = format!("{decoys}\nallow: [{{interface: {VPN}}}]");
    let daemon = Daemon::start(&scene.hosts.host, &yaml);
    let found = scene.hosts.nmap(&["-e", VPN, "-sT", "-p1-60", "10.69.2.100"]);
    assert!(found.contains("60 closed") || found.contains("All 60"), "{found}");
    assert!(!found.contains("open"), "{found}");
    daemon.wait_for_log("Host 10.69.2.2 was not blocked: it came over an allowed interface");
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    let elsewhere = scene.hosts.nmap(&["-e", "scan0", "-sT", "-p7", &scene.hosts.target]);
    assert!(elsewhere.contains("7/tcp open"), "{elsewhere}");
}
