//! The ignore file over the real kernel: its addresses are never blocked, a reload applies a
//! changed file, an invalid one is rejected and changes nothing.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::daemon::Daemon;
use support::missing;

const TOOLS: &[&str] = &["ip", "nft", "nmap"];
const SCANNER: &str = "10.67.1.2";

/// The two hosts, and the directory of the ignore file.
struct Scene {
    hosts: support::scene::Scene,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let hosts =
            support::scene::Scene::new(&["10.67.1.100/24"], &["10.67.1.2/24", "10.67.1.3/24"]);
        Self { hosts, directory: tempfile::tempdir().unwrap() }
    }

    fn ignore(&self) -> PathBuf {
        self.directory.path().join("portsentry.ignore")
    }

    fn write(&self, text: &str) {
        fs::write(self.ignore(), text).unwrap();
        fs::set_permissions(self.ignore(), fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn configuration(&self) -> String {
        format!("ignore_file: {}\nlog: {{ format: classic }}", self.ignore().display())
    }

    fn scan(&self, from: &str, ports: &str) {
        self.hosts.scan_from(from, &["-sS", ports, &self.hosts.target]);
    }
}

fn origin(daemon: &Daemon<'_>, address: &str) -> Option<String> {
    let rows = daemon.json(&["allow", "list"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["address"] == address)?;
    Some(row["origin"].as_str().unwrap().to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// D12
#[test]
fn ignored_addresses_are_never_blocked_and_a_reload_applies_changes() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new();
    // Host bits, a comment, a foreign line end, and no end of the last line.
    scene.write("# ours\r\n0.0.0.0\r\n10.67.1.3/31 # both");
    let daemon = Daemon::start(&scene.hosts.host, &scene.configuration());
    assert_eq!(origin(&daemon, "10.67.1.2/31").as_deref(), Some("ignore_file"));
    scene.scan(SCANNER, "-p1-100");
    scene.scan("10.67.1.3", "-p1-100");
    let refused = daemon.ctl(&["block", SCANNER]);
    let words = text(&refused.stderr);
    assert!(
        !refused.status.success() && words.contains("ignore file") && words.contains("reload"),
        "{words}"
    );
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    let sets = scene.hosts.host.run("nft", &["list", "set", "inet", "portsentry", "allowed4"]);
    assert!(sets.contains("10.67.1.2/31"), "the rules exempt it as well: {sets}");

    // The other address is removed: it can be blocked again, the first one stays exempt.
    scene.write("10.67.1.3\n");
    let reload = daemon.ctl(&["reload"]);
    assert!(
        reload.status.success()
            && text(&reload.stdout).contains("ignore_file: read again, 1 added, 2 removed"),
        "{reload:?}"
    );
    scene.scan("10.67.1.3", "-p101-200");
    scene.scan(SCANNER, "-p101-200");
    daemon.wait_for_block(SCANNER);
    assert_eq!(daemon.blocked(), [SCANNER]);

    // An unreadable line: the whole reload is refused, and the old list stays in force.
    scene.write("gateway.example\n10.67.1.2\n");
    let reload = daemon.ctl(&["reload"]);
    let words = text(&reload.stderr);
    assert!(
        !reload.status.success()
            && words.contains(&format!("{}:1:1: error:", scene.ignore().display())),
        "{words}"
    );
    daemon.wait_for_log("ERROR: the new configuration was refused, the old one stays in force");
    assert_eq!(daemon.blocked(), [SCANNER], "nothing of a refused list is in force");
    assert_eq!(origin(&daemon, "10.67.1.3").as_deref(), Some("ignore_file"));

    // A newly ignored address is unblocked.
    scene.write("10.67.1.2\n");
    assert!(daemon.ctl(&["reload"]).status.success());
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    daemon.wait_for_log("Host 10.67.1.2 is no longer blocked: it must never be blocked.");

    // No file, no list.
    fs::remove_file(scene.ignore()).unwrap();
    assert!(daemon.ctl(&["reload"]).status.success());
    assert_eq!(origin(&daemon, "10.67.1.2"), None);
}

#[test]
fn a_start_with_a_bad_ignore_file_is_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let (yaml, ignore) =
        (directory.path().join("portsentry.yaml"), directory.path().join("portsentry.ignore"));
    let write = |path: &Path, text: &str| {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    write(&yaml, &format!("ignore_file: {}\n", ignore.display()));
    write(&ignore, "127.0.0.1\nlocalhost\n");
    let run = |words: &[&str]| {
        support::output(env!("CARGO_BIN_EXE_portsentry"), words, Duration::from_secs(20))
    };
    for words in [
        &["--config", yaml.to_str().unwrap(), "--check"][..],
        &["--config", yaml.to_str().unwrap()],
    ] {
        let refused = run(words);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{told}");
        assert!(told.contains(&format!("{}:2:1: error:", ignore.display())), "{told}");
    }
    write(&ignore, "127.0.0.1\n");
    assert!(run(&["--config", yaml.to_str().unwrap(), "--check"]).status.success());
}
