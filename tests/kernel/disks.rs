//! Disks, logs and limits: the host stays protected, whatever happens to the files of the daemon, and
//! it is reported.

use crate::support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portsentry::store;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::Scene;
use support::{done, eventually, missing, run, schedule};

const TOOLS: &[&str] = &["ip", "nft", "ping", "mount", "umount", "nsenter", "prlimit", "mkfifo"];
const SCANNER: &str = "10.74.1.2";

fn scene() -> Scene {
    Scene::new(&["10.74.1.1/24"], &["10.74.1.2/24"])
}

fn drop_table(scene: &Scene) {
    scene.host.run("nft", &["add table inet portsentry; delete table inet portsentry"]);
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Where a daemon has its files.
struct Places<'a> {
    state: &'a Path,
    history: &'a Path,
}

/// The command that runs the daemon in the scene's host after `before`, with these places.
fn command(
    scene: &Scene,
    directory: &Path,
    places: &Places<'_>,
    yaml: &str,
    before: &[&str],
) -> Command {
    let text = format!(
        "{yaml}\nstate_dir: {}\nhistory_file: {}\ncontrol: {{ socket: {}/control.sock, group: \"\" }}\n",
        places.state.display(),
        places.history.display(),
        directory.display()
    );
    fs::write(directory.join("portsentry.yaml"), text).unwrap();
    let program = std::env::var("PORTSENTRY_PROGRAM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_portsentry").to_owned());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &scene.host.name]).args(before).args([&program, "--config"]);
    command.arg(directory.join("portsentry.yaml")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The same with the state and the history in the directory.
fn command_in(scene: &Scene, directory: &Path, yaml: &str, before: &[&str]) -> Command {
    let history = directory.join("history");
    command(scene, directory, &Places { state: directory, history: &history }, yaml, before)
}

/// Starts it and waits until it answers.
fn start<'a>(scene: &'a Scene, directory: tempfile::TempDir, command: &mut Command) -> Daemon<'a> {
    let mut daemon = Daemon {
        namespace: &scene.host,
        child: command.spawn().unwrap(),
        directory,
        state: None,
        group: "",
        has_logins: false,
    };
    let answers = eventually(Duration::from_secs(20), || {
        if let Some(status) = daemon.child.try_wait().unwrap() {
            panic!("portsentry ended with {status}: {}", daemon.log());
        }
        daemon.ctl(&["status"]).status.success()
    });
    assert!(answers, "{}", daemon.log());
    daemon
}

fn log_file(directory: &Path) -> fs::File {
    fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap()
}

fn warnings(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["warnings"].to_string()
}

fn store_state(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["store"]["state"].as_str().unwrap().to_owned()
}

/// A file system for the files of a daemon, unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Self {
        let disk = Self(directory());
        let options = format!("size=2m,mode=755,{options}");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", disk.0.path().to_str().unwrap()]);
        disk
    }

    /// Changes its options, for the daemon too, which has a copy of the mount (ip-netns(8)).
    fn remount(&self, daemon: &Daemon<'_>, options: &str) {
        let (options, path) = (format!("remount,{options}"), self.0.path().to_str().unwrap());
        run("mount", &["-o", &options, path]);
        let pid = daemon.child.id().to_string();
        run("nsenter", &["-t", &pid, "-m", "mount", "-o", &options, path]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.0.path().to_str().unwrap();
        let _ = support::output("umount", &["-l", path], Duration::from_secs(5));
    }
}

/// A FIFO that takes nothing more, and what keeps it so.
fn full_fifo(path: &Path) -> (fs::File, fs::File) {
    run("mkfifo", &[path.to_str().unwrap()]);
    let open =
        || fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let (mut full, reader) = (open().unwrap(), open().unwrap());
    while full.write(&[b'x'; 512]).is_ok() {}
    (full, reader)
}

/// Where the directory `$0` holds journald's socket.
const OWN_JOURNALD: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";

// P25
#[test]
fn a_log_target_that_hangs_stops_neither_history_nor_watch() {
    if missing(TOOLS).is_some() {
        return;
    }
    for target in ["stderr", "journal"] {
        let (scene, directory) = (scene(), directory());
        let path = directory.path().to_owned();
        let history = path.join("history");
        let places = Places { state: &path, history: &history };
        let yaml = format!("log: {{ target: {target} }}");
        let before = ["unshare", "--mount", "sh", "-c", OWN_JOURNALD, path.to_str().unwrap()];
        let (fifo, deaf) = (full_fifo(&path.join("fifo")), UnixDatagram::bind(path.join("socket")));
        let mut command = match target {
            "stderr" => {
                let mut command = command(&scene, &path, &places, &yaml, &[]);
                command.stderr(fs::OpenOptions::new().write(true).open(path.join("fifo")).unwrap());
                command
            }
            _ => {
                let mut command = command(&scene, &path, &places, &yaml, &before);
                command.stderr(log_file(&path));
                command
            }
        };
        let mut daemon = start(&scene, directory, &mut command);
        let mut watch = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .arg("--socket")
            .arg(daemon.path("control.sock"))
            .args(["--json", "watch"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let events = BufReader::new(watch.stdout.take().unwrap());
        let heard = std::thread::spawn(move || {
            let lines = events.lines().map_while(Result::ok);
            lines.filter(|line| line.contains("\"blocked\"")).take(300).count()
        });
        std::thread::sleep(Duration::from_millis(500));
        // More lines than a socket's queue or a pipe hold.
        block_by_hand(&daemon.path("control.sock"), 0, 300);
        let lines = || fs::read_to_string(&history).unwrap_or_default().lines().count();
        assert!(eventually(Duration::from_secs(20), || lines() == 300), "{target}: {}", lines());
        assert!(eventually(Duration::from_secs(20), || heard.is_finished()), "{target}: watch");
        assert_eq!(heard.join().unwrap(), 300, "{target}");
        assert!(
            eventually(Duration::from_secs(20), || {
                warnings(&daemon).contains("the log's target takes no lines now")
            }),
            "{target}: {}",
            warnings(&daemon)
        );
        // It goes on where it reads again: nothing that fits the queue is lost.
        let text = match target {
            "stderr" => read_for(fifo.1, Duration::from_secs(3)),
            _ => receive_for(deaf.as_ref().unwrap(), Duration::from_secs(3)),
        };
        assert_eq!(text.matches("has been blocked via nftables").count(), 300, "{target}");
        assert!(!warnings(&daemon).contains("takes no lines"), "{target}: {}", warnings(&daemon));
        // Whatever the target does then, the daemon ends, and the history is whole.
        block_by_hand(&daemon.path("control.sock"), 300, 600);
        let began = Instant::now();
        assert!(daemon.stop().success());
        assert!(began.elapsed() < Duration::from_secs(5), "{target}: {:?}", began.elapsed());
        assert_eq!(lines(), 600, "{target}");
        let _ = watch.kill();
        let _ = watch.wait();
    }
}

#[test]
fn the_journal_gets_the_facts_of_an_event_as_fields() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (scene, directory) = (scene(), directory());
    let path = directory.path().to_owned();
    let before = ["unshare", "--mount", "sh", "-c", OWN_JOURNALD, path.to_str().unwrap()];
    let journald = UnixDatagram::bind(path.join("socket")).unwrap();
    let yaml = "log: { target: journal, facility: local3 }";
    let mut command = command_in(&scene, &path, yaml, &before);
    let daemon = start(&scene, directory, command.stderr(log_file(&path)));
    block_by_hand(&daemon.path("control.sock"), 0, 1);
    journald.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut entries, mut buffer) = (Vec::new(), [0; 16_384]);
    while let Ok(count) = journald.recv(&mut buffer) {
        entries.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    // The first one, without a field, asks whether a journal is there.
    entries.retain(|entry| !entry.is_empty());
    let has = |entry: &str, field: &str| entry.lines().any(|line| line == field);
    assert!(entries.len() > 3, "{entries:?}");
    for entry in &entries {
        // Facility 19 of RFC 5424, 6.2.1.
        assert!(has(entry, "SYSLOG_FACILITY=19") && has(entry, "SYSLOG_IDENTIFIER=portsentry"));
    }
    let blocked: Vec<_> =
        entries.iter().filter(|entry| entry.contains("has been blocked via nftables")).collect();
    let [blocked] = blocked[..] else { panic!("{entries:?}") };
    let fields = |name: &str| {
        let start = format!("{name}\n");
        // Eight bytes with the length follow the name, and then the text (JOURNAL_NATIVE_PROTOCOL).
        let at = blocked.find(&start).unwrap_or_else(|| panic!("no {name} in {blocked}"));
        blocked[at + start.len() + 8..].lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(fields("PORTSENTRY_EVENT"), "blocked");
    assert_eq!(fields("PORTSENTRY_ADDRESS"), "198.18.0.1");
    assert_eq!(fields("MESSAGE_ID").len(), 32, "{blocked}");
}

#[test]
fn a_log_on_a_full_disk_is_counted_and_shown() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (scene, directory) = (scene(), directory());
    let path = directory.path().to_owned();
    let mut command = command_in(&scene, &path, AT_DEFAULTS, &[]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let daemon = start(&scene, directory, command.stderr(full));
    let is_shown = || warnings(&daemon).contains("log lines could not be written");
    assert!(eventually(Duration::from_secs(20), is_shown), "{}", warnings(&daemon));
}

fn read_for(mut file: fs::File, time: Duration) -> String {
    let (mut text, deadline) = (Vec::new(), Instant::now() + time);
    while Instant::now() < deadline {
        let mut buffer = [0; 4096];
        match file.read(&mut buffer) {
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn receive_for(socket: &UnixDatagram, time: Duration) -> String {
    let (mut text, deadline) = (Vec::new(), Instant::now() + time);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while Instant::now() < deadline {
        let mut buffer = [0; 8192];
        if let Ok(count) = socket.recv(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Blocks these many addresses of 198.18.0.0/15 over the control socket, four at a time.
fn block_by_hand(socket: &Path, from: u32, to: u32) {
    std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                let mut stream = UnixStream::connect(socket).unwrap();
                let mut replies = BufReader::new(stream.try_clone().unwrap());
                for n in (from..to).filter(|n| n % 4 == worker) {
                    let address = std::net::Ipv4Addr::from(0xc612_0001 + n);
                    writeln!(stream, r#"{{"v":1,"do":"block","address":"{address}"}}"#).unwrap();
                    let mut reply = String::new();
                    replies.read_line(&mut reply).unwrap();
                    assert!(reply.contains("done"), "{reply}");
                }
            });
        }
    });
}

// P25
#[test]
fn a_state_directory_that_is_read_only_or_out_of_inodes_at_start_keeps_no_host_unprotected() {
    if missing(TOOLS).is_some() {
        return;
    }
    for (options, later, made, below) in [
        ("ro", "rw", "", "Read-only file system"),
        ("ro", "rw", "sub/directory", "Read-only file system"),
        ("nr_inodes=1", "nr_inodes=100", "", "No space left on device"),
    ] {
        let (scene, directory, disk) = (scene(), directory(), Disk::new(options));
        let (path, state) = (directory.path().to_owned(), disk.0.path().join(made));
        let history = state.join("history");
        let places = Places { state: &state, history: &history };
        let mut command = command(&scene, &path, &places, AT_DEFAULTS, &[]);
        let mut daemon = start(&scene, directory, command.stderr(log_file(&path)));
        done(&daemon.ctl(&["block", SCANNER, "--for", "1h"]));
        assert!(!scene.reaches(), "{options}");
        daemon.wait_for_log("the state store cannot be used");
        daemon.wait_for_log("history file");
        assert!(daemon.log().contains(below), "{options} {made}: {}", daemon.log());
        assert_eq!(store_state(&daemon), "failing");
        assert!(warnings(&daemon).contains("the history file cannot be written"));
        disk.remount(&daemon, later);
        let is_well = || store_state(&daemon) == "ok" && !warnings(&daemon).contains("history");
        assert!(eventually(Duration::from_secs(20), is_well), "{}", daemon.log());
        daemon.wait_for_log("the state store in");
        daemon.wait_for_log("is written again");
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        assert_eq!(fs::read_to_string(&history).unwrap().matches(SCANNER).count(), 2);
        assert!(state.join(store::FILE).exists());
    }
}

// P25
#[test]
fn a_database_deleted_while_it_runs_is_noticed_written_again_and_reported() {
    if missing(TOOLS).is_some() {
        return;
    }
    let log = format!("{}-wal", store::FILE);
    for what in ["database", "database and log", "log", "directory", "replaced", "end", "quiet"] {
        let (scene, directory) = (scene(), directory());
        let (path, state) = (directory.path().to_owned(), directory.path().join("state"));
        let history = state.join("history");
        let places = Places { state: &state, history: &history };
        let mut first = command(&scene, &path, &places, AT_DEFAULTS, &[]);
        let mut daemon = start(&scene, directory, first.stderr(log_file(&path)));
        done(&daemon.ctl(&["block", "192.0.2.1"]));
        assert_eq!(store_state(&daemon), "ok");
        let database = state.join(store::FILE);
        match what {
            "database" => fs::remove_file(&database).unwrap(),
            "log" => fs::remove_file(state.join(&log)).unwrap(),
            "directory" => fs::remove_dir_all(&state).unwrap(),
            "replaced" => {
                fs::copy(&database, state.join("other")).unwrap();
                fs::rename(state.join("other"), &database).unwrap();
            }
            _ => {
                fs::remove_file(&database).unwrap();
                fs::remove_file(state.join(&log)).unwrap();
            }
        }
        let wanted = match what {
            "end" => vec!["192.0.2.1"],
            "quiet" => {
                // Nothing is written: the daemon checks every half minute.
                daemon.wait_within_for_log(Duration::from_secs(45), "deleted or replaced");
                vec!["192.0.2.1"]
            }
            _ => {
                let said = done(&daemon.ctl(&["block", "192.0.2.2"]));
                assert!(!said.contains("would forget"), "{what}: it is stored: {said}");
                vec!["192.0.2.1", "192.0.2.2"]
            }
        };
        if what == "end" {
            daemon.stop();
        } else {
            daemon.wait_for_log("another program has deleted or replaced");
            daemon.wait_within_for_log(Duration::from_secs(15), "is written again");
            let is_whole = || {
                let status = daemon.json(&["status"]);
                status["store"]["state"] == "ok" && status["store"]["blocks"] == wanted.len()
            };
            assert!(eventually(Duration::from_secs(10), is_whole), "{what}: {}", daemon.log());
            daemon.child.kill().unwrap();
            daemon.child.wait().unwrap();
        }
        drop_table(&scene);
        let mut again = command(&scene, &path, &places, AT_DEFAULTS, &[]);
        daemon.child = again.stderr(log_file(&path)).spawn().unwrap();
        assert!(eventually(Duration::from_secs(20), || daemon.ctl(&["status"]).status.success()));
        assert_eq!(daemon.blocked(), wanted, "{what}: {}", daemon.log());
        daemon.stop();
    }
}

// P25
#[test]
fn a_damaged_page_of_the_database_loses_no_block() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let wanted = ["192.0.2.1", "192.0.2.2", "198.51.100.0/24"];
    for target in wanted {
        done(&daemon.ctl(&["block", target, "--for", "3h", "--reason", "kept"]));
    }
    done(&daemon.ctl(&["block", "203.0.113.1"]));
    done(&daemon.ctl(&["unblock", "203.0.113.1"]));
    daemon.stop();
    let database = daemon.path(store::FILE);
    let whole = fs::read(&database).unwrap();
    let pages = whole.len() / 4096;
    assert!(pages > 5, "{pages}");
    for page in 0..pages {
        let mut bytes = whole.clone();
        for (n, byte) in bytes[page * 4096..(page + 1) * 4096].iter_mut().enumerate() {
            *byte = ((n as u32).wrapping_mul(2_654_435_761) >> 11) as u8;
        }
        fs::write(&database, bytes).unwrap();
        drop_table(&scene);
        daemon.restart(AT_DEFAULTS);
        assert_eq!(daemon.blocked(), wanted, "page {page}: {}", daemon.log());
        assert!(daemon.json(&["list"])[0]["reason"].as_str().unwrap().contains("kept"));
        assert_eq!(store_state(&daemon), "ok");
        daemon.stop();
    }
    assert!(daemon.log().contains("the copy of 20"), "{}", daemon.log());
    // A database that the administrator deletes does not come back.
    fs::remove_file(&database).unwrap();
    drop_table(&scene);
    daemon.restart(AT_DEFAULTS);
    assert_eq!(daemon.blocked(), Vec::<String>::new());
}

#[test]
fn each_of_1500_blocks_by_hand_has_its_line_of_the_history() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    block_by_hand(&daemon.path("control.sock"), 0, 1500);
    let text = || fs::read_to_string(daemon.path("portsentry.history")).unwrap_or_default();
    eventually(Duration::from_secs(10), || text().lines().count() >= 1500);
    let hosts: std::collections::BTreeSet<String> = text()
        .lines()
        .filter_map(|line| Some(line.split_once(" Host: ")?.1.split_once('/')?.0.to_owned()))
        .collect();
    assert_eq!((text().lines().count(), hosts.len()), (1500, 1500));
}

/// The child of a process.
fn helper_of(daemon: u32) -> u32 {
    let path = format!("/proc/{daemon}/task/{daemon}/children");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

// P25
#[test]
fn a_limit_of_file_sizes_is_reported_and_ends_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (scene, directory) = (scene(), directory());
    let path = directory.path().to_owned();
    let (history, deny) = (path.join("portsentry.history"), path.join("hosts.deny"));
    fs::write(&deny, "# of others\n".repeat(8000)).unwrap();
    let places = Places { state: &path, history: &history };
    let yaml = format!("respond: {{ hosts_deny: {{ enabled: true, path: {} }} }}", deny.display());
    let mut command = command(&scene, &path, &places, &yaml, &[]);
    let mut daemon = start(&scene, directory, command.stderr(log_file(&path)));
    fs::OpenOptions::new()
        .append(true)
        .open(&history)
        .unwrap()
        .write_all("an older line\n".repeat(8000).as_bytes())
        .unwrap();
    let daemons = [daemon.child.id(), helper_of(daemon.child.id())].map(|pid| pid.to_string());
    let limit = |value: &str| {
        for pid in &daemons {
            run("prlimit", &["--pid", pid, &format!("--fsize={value}")]);
        }
    };
    limit("80000:unlimited");
    let mut said = String::new();
    for n in 1..40 {
        said = done(&daemon.ctl(&["block", &format!("192.0.2.{n}")]));
    }
    assert!(said.contains("File too large"), "{said}");
    done(&daemon.ctl(&["block", SCANNER]));
    assert!(!scene.reaches());
    assert!(daemon.log().contains("cannot be written: File too large"), "{}", daemon.log());
    assert!(warnings(&daemon).contains("the history file cannot be written"));
    assert_eq!(store_state(&daemon), "failing");
    daemon.wait_for_log("hosts.deny: File too large");
    limit("unlimited:unlimited");
    let is_denied = || fs::read_to_string(&deny).unwrap().contains(SCANNER);
    assert!(eventually(Duration::from_secs(20), is_denied), "{}", daemon.log());
    assert_eq!(helper_of(daemon.child.id()).to_string(), daemons[1], "the helper goes on");
    let is_well = || store_state(&daemon) == "ok" && !warnings(&daemon).contains("history");
    assert!(eventually(Duration::from_secs(20), is_well), "{}", daemon.log());
    let lines = fs::read_to_string(&history).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("MANUAL")).count(), 40);
    assert!(daemon.stop().success());
}

/// Runs the daemon until it ends, and returns its status and words.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut status = None;
    let ended = eventually(Duration::from_secs(10), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let _ = child.kill();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(ended, "it runs: {said}");
    (status.unwrap().code(), said)
}

#[test]
fn a_state_directory_that_others_can_write_is_refused_and_no_link_is_followed() {
    if missing(TOOLS).is_some() {
        return;
    }
    let other_user = 65_534;
    let (scene, directory) = (scene(), directory());
    let path = directory.path().to_owned();
    let state = path.join("state");
    let history = path.join("portsentry.history");
    let places = Places { state: &state, history: &history };
    fs::create_dir(&state).unwrap();
    for (mode, owner, remedy) in [
        (0o777, 0, "chmod go-w"),
        (0o1777, 0, "chmod go-w"),
        (0o775, 0, "chmod go-w"),
        (0o755, other_user, "chown root:"),
    ] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&state, Some(owner), None).unwrap();
        for check in [true, false] {
            let mut command = command(&scene, &path, &places, AT_DEFAULTS, &[]);
            if check {
                command.arg("--check");
            }
            let (status, said) = refused(&mut command);
            assert_eq!(status, Some(78), "{mode:o} {owner}: {said}");
            assert!(said.contains(remedy) && said.contains("state directory"), "{said}");
        }
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&state, Some(0), None).unwrap();

    // Links where others can make them, to a file that they cannot write.
    let victim = path.join("victim");
    fs::write(&victim, "secret\n").unwrap();
    let open = path.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let history = open.join("history");
    let places = Places { state: &state, history: &history };
    let make_link = || {
        let _ = fs::remove_file(&history);
        std::os::unix::fs::symlink(&victim, &history).unwrap();
        std::os::unix::fs::lchown(&history, Some(other_user), None).unwrap();
    };
    make_link();
    let (status, said) = refused(&mut command(&scene, &path, &places, AT_DEFAULTS, &[]));
    assert!(status == Some(78) && said.contains("which is not followed"), "{status:?} {said}");
    fs::remove_file(&history).unwrap();
    // And what the daemon itself keeps there.
    std::os::unix::fs::symlink(&victim, state.join("allowed")).unwrap();
    let mut command = command(&scene, &path, &places, AT_DEFAULTS, &[]);
    let mut daemon = start(&scene, directory, command.stderr(log_file(&path)));
    daemon.wait_for_log("allowed: it is a symbolic link, which is not followed");
    assert!(!daemon.ctl(&["allow", "add", "192.0.2.7"]).status.success());
    done(&daemon.ctl(&["block", "192.0.2.1"]));
    assert!(fs::read_to_string(&history).unwrap().contains("192.0.2.1"));
    make_link();
    done(&daemon.ctl(&["block", "192.0.2.2"]));
    daemon.wait_for_log("which is not followed: the link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "secret\n");
    fs::remove_file(&history).unwrap();
    let is_written = || fs::read_to_string(&history).is_ok_and(|text| text.contains("192.0.2.2"));
    assert!(eventually(Duration::from_secs(15), is_written), "{}", daemon.log());
    assert!(daemon.stop().success());
}
