//! A machine for a third-party program: unpacked packages and a few files over a copy of this
//! machine's /, in namespaces.
//!
//! Nothing is installed, and nothing of this machine is changed: no file, and no kernel setting
//! except those of the network namespace; programs inside cannot load modules. The first process is
//! a script that starts the program; when it is killed, the kernel ends everything in its process
//! namespace, including daemons. Used by the benchmark beside others and the tests beside other
//! firewalls.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::netns::Namespace;
use super::{eventually, output};

/// The directory of this file and its two scripts.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support");
/// Debian's; the caller's may lead to programs that Debian's packages do not expect.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Unpacks Debian's `packages` into `kept` (once: they are kept there), and returns a line "package
/// version" for each.
///
/// # Errors
/// The message why they cannot be fetched.
pub fn fetch(kept: &Path, packages: &[&str]) -> Result<String, String> {
    // Several tests may ask at the same time.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _guard = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let script = Path::new(HERE).join("fetch-packages");
    let words: Vec<&str> = [kept.to_str().unwrap()].iter().chain(packages).copied().collect();
    let fetched = output(script.to_str().unwrap(), &words, Duration::from_secs(900));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if fetched.status.success() {
        Ok(text(&fetched.stdout))
    } else {
        Err(text(&fetched.stderr).lines().last().unwrap_or("cannot be had").to_owned())
    }
}

/// A program's machine while it runs.
pub struct Jail {
    first: Child,
    shared: tempfile::TempDir,
    _files: tempfile::TempDir,
    _work: tempfile::TempDir,
    ended: Arc<AtomicBool>,
    syslog: Option<JoinHandle<()>>,
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

impl Jail {
    /// Makes a machine of the unpacked `packages` and `layers` of files in the host's network
    /// namespace, and runs the script `start` in it to its end; programs that it started continue.
    ///
    /// # Errors
    /// The script's output.
    pub fn start(
        host: &Namespace,
        packages: &Path,
        layers: &[PathBuf],
        start: &str,
    ) -> Result<Self, String> {
        let (shared, files, work) = (directory(), directory(), directory());
        for root in layers {
            let copied =
                Command::new("cp").arg("-a").arg(root.join(".")).arg(files.path()).status();
            assert!(copied.is_ok_and(|status| status.success()), "cp {}", root.display());
        }
        for log in ["syslog", "firewall.log"] {
            fs::write(shared.path().join(log), "").unwrap();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let syslog = collect(
            &shared.path().join("socket"),
            &shared.path().join("syslog"),
            Arc::clone(&ended),
        );
        // The first process of a process namespace has to wait for orphans; sh does that while it
        // waits for sleep.
        let script = format!(
            "{{\n{start}\n}} >/beside/start.out 2>&1\n: >/beside/ready\nwhile :; do sleep 3600; done"
        );
        let first = Command::new("ip")
            // It ends with the test in any case, and loads no modules into the shared kernel.
            .args([
                "netns",
                "exec",
                &host.name,
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--bounding-set",
                "-sys_module",
            ])
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh"])
            .args([
                Path::new(HERE).join("enter-jail").as_path(),
                work.path(),
                packages,
                files.path(),
                shared.path(),
            ])
            .args(["env", PATH, "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(shared.path().join("enter.out"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let mut jail =
            Self { first, shared, _files: files, _work: work, ended, syslog: Some(syslog) };
        let ready = eventually(Duration::from_secs(60), || {
            jail.path("ready").exists()
                || jail.first.try_wait().is_ok_and(|status| status.is_some())
        });
        if ready && jail.path("ready").exists() {
            Ok(jail)
        } else {
            Err(format!("does not start: {}", jail.last_words()))
        }
    }

    /// A file of /beside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    /// A command for a further program in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let first = self.first_process();
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set",
            "-sys_module",
            "nsenter",
            "--target",
            &first,
            "--mount",
            "--pid",
            "--net",
            "--root",
            "--wd",
            "env",
            PATH,
        ]);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Starts a further script in it; returns at once.
    pub fn also(&self, script: &str) -> Child {
        let said =
            OpenOptions::new().create(true).append(true).open(self.path("start.out")).unwrap();
        self.command(&["sh", "-c", script])
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap()
    }

    /// Runs a further program in it and returns its output, whatever its exit status.
    pub fn output(&self, words: &[&str], limit: Duration) -> Output {
        let limit = limit.as_secs().max(1).to_string();
        let words: Vec<&str> =
            ["timeout", "-k", "2", &limit].iter().chain(words).copied().collect();
        self.command(&words).output().unwrap()
    }

    /// The first process of the process namespace, a child of unshare(1).
    fn first_process(&self) -> String {
        let id = self.first.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap().trim().to_owned()
    }

    /// The last line of its scripts' output.
    pub fn last_words(&self) -> String {
        let said: Vec<String> = ["enter.out", "start.out"]
            .iter()
            .filter_map(|name| fs::read_to_string(self.path(name)).ok())
            .collect();
        said.concat().lines().last().unwrap_or("it said nothing").to_owned()
    }
}

/// Writes messages to a syslog socket into a file, as a syslog daemon does: without the priority,
/// with a host name.
fn collect(socket: &Path, file: &Path, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    let socket_path = socket;
    let socket = UnixDatagram::bind(socket_path).unwrap();
    // Programs that gave up root write to it too.
    fs::set_permissions(socket_path, fs::Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while !ended.load(Ordering::Relaxed) {
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let line = String::from_utf8_lossy(&buffer[..length]);
            let line = line
                .split_once('>')
                .map_or(&*line, |(_, rest)| rest)
                .trim_end_matches(['\n', '\0']);
            // RFC 3164's time stamp is 15 characters and a blank.
            let (time, rest) = line.split_at_checked(16).unwrap_or(("", line));
            let _ = writeln!(file, "{time}beside {rest}");
        }
    })
}

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
        self.ended.store(true, Ordering::Relaxed);
        if let Some(syslog) = self.syslog.take() {
            let _ = syslog.join();
        }
    }
}
