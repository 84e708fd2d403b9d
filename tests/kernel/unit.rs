//! The systemd unit: systemd finds no fault with it, and the daemon works within its sandbox.
//!
//! The sandbox is built manually from the unit's settings: user, capabilities, no new privileges,
//! umask, a read-only file system. Not the system call filter: only `systemd-analyze` knows its effect.

use crate::support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread::JoinHandle;
use std::time::Duration;

use support::netns::Namespace;
use support::predecessor::Machine;
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "python3", "unshare", "setpriv", "mount"];
const TRAFFIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/traffic.py");
const HOST: &str = "10.68.0.1";
const SCANNER: &str = "10.68.0.2";

fn unit() -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd/portsentry.service"),
    )
    .unwrap()
}

/// The value of a setting that occurs once.
fn setting(name: &str) -> String {
    let unit = unit();
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit has no {name}")).to_owned();
    assert_eq!(values.next(), None, "{name} stands twice");
    value
}

// P24
#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if missing(&["systemd-analyze"]).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portsentry.service");
    let installed = unit()
        .replace("/usr/sbin/portsentryctl", env!("CARGO_BIN_EXE_portsentryctl"))
        .replace("=/usr/sbin/portsentry", &format!("={}", env!("CARGO_BIN_EXE_portsentry")));
    assert!(
        !installed.lines().any(|line| !line.starts_with('#') && line.contains("/usr/sbin")),
        "{installed}"
    );
    fs::write(&path, installed).unwrap();
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    // Faults of other units of this machine do not matter.
    let said = String::from_utf8_lossy(&said)
        .lines()
        .filter(|line| line.contains("portsentry"))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(said.is_empty(), "{said}");
    assert!(output.status.success());
}

/// The most that `systemd-analyze security` may find exposed, in tenths.
const EXPOSURE_MAX: u32 = 19;

// P24
#[test]
fn the_unit_exposes_little() {
    if missing(&["systemd-analyze"]).is_some() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd/portsentry.service");
    let words = ["security", "--offline=yes", "--no-pager"];
    let output = Command::new("systemd-analyze").args(words).arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let level = said.split("portsentry.service: ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let tenths: u32 = level.split_whitespace().next().unwrap().replace('.', "").parse().unwrap();
    assert!(tenths <= EXPOSURE_MAX, "{said}");
}

// P24
#[test]
fn the_default_paths_lie_in_the_units_directories() {
    let made = [
        Path::new("/var/lib").join(setting("StateDirectory")),
        Path::new("/run").join(setting("RuntimeDirectory")),
    ];
    let config = portsentry::config::Config::default();
    assert!(!config.respond.hosts_deny.enabled && config.blocked_file.is_none());
    for file in [config.state_dir, config.control.socket, config.history_file.unwrap()] {
        assert!(made.iter().any(|directory| file.starts_with(directory)), "{}", file.display());
    }
}

/// Builds the sandbox and starts the program in it. `$WRITABLE` are further writable directories.
const CAGE: &str = r#"
umask "$UMASK"
for directory in /var/lib/portsentry /run/portsentry $WRITABLE; do mount --bind "$directory" "$directory" || exit 98; done
for top in /etc /var /run /; do
    case " $WRITABLE " in *" $top "*) continue;; esac
    mount -o remount,bind,ro "$top" || exit 98
done
chown -R "$OWNER" /var/lib/portsentry /run/portsentry
exec setpriv --reuid "$OWNER" --regid "$OWNER" --groups "$GROUPS_" --bounding-set "$CAPABILITIES" --inh-caps "$CAPABILITIES" --ambient-caps "$CAPABILITIES" --no-new-privs "$@"
"#;

/// The user of the unit in its sandbox: no file of this machine is its.
const OWNER: u32 = 64_113;

/// The program and its arguments that start another within the unit's restrictions.
fn cage(writable: &str, drop_in: &str) -> Vec<String> {
    assert_eq!(setting("User"), "portsentry");
    assert_eq!(setting("AmbientCapabilities"), setting("CapabilityBoundingSet"));
    let of_drop_in = drop_in.lines().filter_map(|line| line.strip_prefix("AmbientCapabilities="));
    let capabilities = setting("AmbientCapabilities");
    let words: Vec<String> = std::iter::once(&*capabilities)
        .chain(of_drop_in)
        .flat_map(str::split_whitespace)
        .map(|word| format!("+{}", word.strip_prefix("CAP_").expect("a capability").to_lowercase()))
        .collect();
    let capabilities = format!("CAPABILITIES=-all,{}", words.join(","));
    let umask = format!("UMASK={}", setting("UMask"));
    let writable = format!("WRITABLE={writable}");
    assert_eq!(
        (setting("NoNewPrivileges"), setting("ProtectSystem")),
        ("yes".to_owned(), "strict".to_owned())
    );
    let owner = format!("OWNER={OWNER}");
    // Of control.group, by SupplementaryGroups=.
    let groups = "GROUPS_=4";
    let words = ["env", &capabilities, &umask, &writable, &owner, groups, "sh", "-c", CAGE, "sh"];
    words.map(str::to_owned).to_vec()
}

fn start_caged(machine: &mut Machine<'_>, writable: &str, drop_in: &str) {
    let cage = cage(writable, drop_in);
    machine.start_ours_by(&cage.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
}

/// Both kinds of decoys, every response, a group for the control socket.
const EVERYTHING: &str = r#"
tcp: { mode: connect, ports: ["1-100"] }
udp: { mode: connect, ports: ["1-100"], action: block }
resolve: true
respond:
  command: [/bin/sh, "-c", "echo ran for $PORTSENTRY_TARGET; exit 3"]
  hosts_deny: { enabled: true }
  banner: "go away"
blocked_file: /var/lib/portsentry/portsentry.blocked
control: { group: adm }
"#;

fn knock(scanner: &Namespace, ports: &[&str]) {
    let mut words = vec![TRAFFIC, "knock", SCANNER, HOST];
    words.extend(ports);
    scanner.run("python3", &words);
}

// P24
#[test]
fn the_daemon_works_in_the_units_sandbox_and_names_missing_rights() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (host, scanner) = (Namespace::new(), Namespace::new());
    host.join(&scanner, "scan0", &["10.68.0.1/24"], &["10.68.0.2/24"]);
    let mut machine = Machine::new(&host);
    add_user(&machine);
    machine.write("/etc/portsentry/portsentry.yaml", EVERYTHING);
    machine.write("/etc/hosts.deny", "ALL: 203.0.113.9\n");
    // Of a group that root without its capabilities could not set again.
    std::os::unix::fs::chown(machine.file("/etc/hosts.deny"), Some(0), Some(4)).unwrap();

    start_caged(&mut machine, "", &connect_drop_in());
    let effective = fs::read_to_string(format!("/proc/{}/status", machine.pid())).unwrap();
    let bits = effective.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let bits = u64::from_str_radix(bits, 16).unwrap();
    assert_eq!(
        bits.count_ones(),
        // CAP_NET_ADMIN and what connect.conf adds.
        2,
        "the test has not built the cage"
    );
    knock(&scanner, &["1", "7", "9", "11"]);
    machine.wait_for_log(&format!(
        "attackalert: Host {SCANNER} has been blocked via nftables for 1h: connect scan, proven"
    ));
    machine.wait_for_log("failed (exit status 3)");
    machine.wait_for_log(&format!("it wrote: ran for {SCANNER}"));
    machine.wait_for_log("/etc/hosts.deny is not written (respond.hosts_deny): it is root's");
    assert_eq!(machine.text("/etc/hosts.deny"), "ALL: 203.0.113.9\n");
    let blocked = || machine.text("/var/lib/portsentry/portsentry.blocked.tcp").contains(SCANNER);
    assert!(eventually(Duration::from_secs(10), blocked));
    // For programs for monitoring.
    let facts = fs::metadata(machine.file("/var/lib/portsentry/portsentry.blocked.tcp")).unwrap();
    assert_eq!((facts.gid(), facts.permissions().mode() & 0o777), (4, 0o640), "adm");
    let history = fs::metadata(machine.file("/var/lib/portsentry/portsentry.history")).unwrap();
    assert_eq!(history.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(machine.file("/run/portsentry/control.sock")).unwrap().gid(), 4, "adm");
    assert!(
        !machine.log().iter().any(|line| line.contains("CAP_")),
        "it lacks a capability:\n{}",
        machine.log().join("\n")
    );
    machine.stop_ours();

    // By the unit that runs responses as root.
    let helper = responses_as_root(&machine);
    start_caged(&mut machine, "", &connect_drop_in());
    machine.wait_for_log(&format!(
        "attackalert: Host {SCANNER} has been blocked via wrappers with string: \"ALL: {SCANNER}\""
    ));
    assert_eq!(fs::metadata(machine.file("/etc/hosts.deny")).unwrap().gid(), 4);
    let unblocked = machine.ctl(&["unblock", "--all"]);
    assert!(unblocked.status.success(), "{}", String::from_utf8_lossy(&unblocked.stderr));
    machine.wait_for_log(&format!("adminalert: Host {SCANNER} is no longer denied via wrappers."));
    assert_eq!(machine.text("/etc/hosts.deny"), "ALL: 203.0.113.9\n");
    machine.stop_ours();
    // It ends with the daemon.
    assert!(helper.join().unwrap().success());
}

/// The unit's user on a host.
fn add_user(machine: &Machine<'_>) {
    let passwd = machine.text("/etc/passwd");
    machine.write("/etc/passwd", &format!("{passwd}portsentry:x:{OWNER}:{OWNER}::/:/bin/false\n"));
}

fn connect_drop_in() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd/connect.conf"))
        .unwrap()
}

/// Does once what portsentry-responses.socket does: starts the helper as root, with the capabilities
/// of its unit, for a connection.
fn responses_as_root(machine: &Machine<'_>) -> JoinHandle<ExitStatus> {
    let unit = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd/portsentry-responses@.service"),
    )
    .unwrap();
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let words = bounding.unwrap().split_whitespace().map(|word| {
        format!(",+{}", word.strip_prefix("CAP_").expect("a capability").to_lowercase())
    });
    let set = format!("-all{}", words.collect::<String>());
    assert!(unit.contains("\nExecStart=/usr/sbin/portsentry helper\nStandardInput=socket\n"));
    let path = machine.file(portsentry::helper::process::RESPONSES);
    let listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(OWNER), Some(0)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["--bounding-set", &set, "--no-new-privs", PORTSENTRY, "helper"];
    let mut command = machine.command("setpriv", &words);
    std::thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        command.stdin(OwnedFd::from(connection)).status().unwrap()
    })
}

const PORTSENTRY: &str = env!("CARGO_BIN_EXE_portsentry");

/// Exit status and output of `portsentry --check` on the host.
fn check(machine: &Machine<'_>) -> (Option<i32>, String) {
    let output = machine.output(PORTSENTRY, &["--check"]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

// P24
#[test]
fn the_check_finds_what_the_unit_refuses_and_what_a_drop_in_grants() {
    if missing(TOOLS).is_some() {
        return;
    }
    let host = Namespace::new();
    let mut machine = Machine::new(&host);
    add_user(&machine);
    // What PortSentry 2.x has by default.
    machine.write("/etc/portsentry/portsentry.yaml", "history_file: /var/log/portsentry.log\n");
    let found = "the daemon cannot write /var/log/portsentry.log (`history_file`)";
    let (status, said) = check(&machine);
    assert!(
        said.contains(&format!(
            "warning: under the unit of this package, portsentry.service, {found}"
        )),
        "{said}"
    );
    assert_eq!(status, Some(0), "another supervisor may start it: {said}");

    fs::create_dir_all(machine.file("/etc/systemd/system/portsentry.service.d")).unwrap();
    machine.write("/etc/systemd/system/portsentry.service", &unit());
    let (status, said) = check(&machine);
    assert!(status == Some(78) && said.contains(found) && !said.contains("good"), "{said}");
    let checked = machine.output(env!("CARGO_BIN_EXE_portsentryctl"), &["check"]);
    assert_eq!(checked.status.code(), Some(78));
    // The kernel agrees.
    let mut words = cage("", "");
    words.extend(["timeout", "5", PORTSENTRY].map(str::to_owned));
    let (program, arguments) = words.split_first().unwrap();
    let refused =
        machine.output(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("/var/log/portsentry.log"), "{said}");
    assert!(!machine.file("/var/log/portsentry.log").exists());

    let drop_in = "[Service]\nReadWritePaths=/var/log\n";
    machine.write("/etc/systemd/system/portsentry.service.d/log.conf", drop_in);
    let (status, said) = check(&machine);
    assert!(status == Some(0) && said.ends_with("portsentry.yaml: good\n"), "{said}");
    assert!(!said.contains("under "), "{said}");
    // As the remedy says.
    std::os::unix::fs::chown(machine.file("/var/log"), Some(OWNER), Some(OWNER)).unwrap();
    start_caged(&mut machine, "/var/log", "");
    assert!(machine.file("/var/log/portsentry.log").exists());
    machine.stop_ours();

    // Also of what the classic modes of the command line need.
    let fewer = format!("{drop_in}CapabilityBoundingSet=~CAP_NET_BIND_SERVICE\n");
    machine.write("/etc/systemd/system/portsentry.service.d/log.conf", &fewer);
    assert!(!check(&machine).1.contains("under "));
    let connect = machine.output(PORTSENTRY, &["--check", "-udp"]);
    let said = String::from_utf8_lossy(&connect.stderr);
    assert!(said.contains("CAP_NET_BIND_SERVICE is missing"), "{said}");
}

// P24
#[test]
fn a_host_with_the_files_of_2_x_gentoo_or_the_authors_starts_under_the_unit() {
    if missing(TOOLS).is_some() {
        return;
    }
    let fixture = |name: &str| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classic");
        fs::read_to_string(directory.join(name)).unwrap()
    };
    let authors = fixture("upstream.conf");
    let gentoo = authors.replace("/usr/local/psionic/portsentry/", "/etc/portsentry/");
    for classic in [fixture("two.conf"), gentoo, authors] {
        let host = Namespace::new();
        let mut machine = Machine::new(&host);
        add_user(&machine);
        machine.write("/etc/portsentry/portsentry.conf", &classic);
        let said = machine.import(&["--mode", "stcp", "--mode", "sudp"]);
        assert!(said.contains("warning: HISTORY_FILE lies outside /var/lib/portsentry"), "{said}");
        fs::create_dir_all(machine.file("/etc/systemd/system")).unwrap();
        machine.write("/etc/systemd/system/portsentry.service", &unit());
        let (status, said) = check(&machine);
        assert!(status == Some(0) && said.contains("portsentry.yaml: good\n"), "{said}");
        // hosts.deny is not written without a drop-in, and the check says so.
        let denies = classic.contains("\nKILL_HOSTS_DENY=");
        assert_eq!(said.contains("portsentry-responses.socket"), denies, "{said}");
        start_caged(&mut machine, "", "");
        assert!(machine.file("/var/lib/portsentry/portsentry.history").exists());
        machine.stop_ours();
    }
}
