//! The machine of a contestant that is somebody else's: unpacked packages and a few files over a copy of this machine's /, in namespaces of its own.
//!
//! Nothing is installed, and nothing of this machine is written to. The first process is the contestant's `start` script; when it is killed the
//! kernel ends everything in its process namespace, daemons that have left it included.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::support::eventually;
use super::support::netns::Namespace;

/// Where the benchmark's own files lie.
pub const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bench/beside");

/// A contestant's machine while it runs.
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
    /// Starts `contestant` (the name of its directory) with its unpacked `packages` in the host's network namespace, and waits until it is ready.
    ///
    /// # Errors
    /// What it said instead.
    pub fn start(host: &Namespace, contestant: &str, packages: &Path) -> Result<Self, String> {
        let (shared, files, work) = (directory(), directory(), directory());
        for layer in ["common", contestant] {
            let root = Path::new(HERE).join("contestants").join(layer).join("root");
            if root.exists() {
                let copied = Command::new("cp").arg("-a").arg(root.join(".")).arg(files.path()).status();
                assert!(copied.is_ok_and(|status| status.success()), "cp {}", root.display());
            }
        }
        for log in ["syslog", "firewall.log"] {
            fs::write(shared.path().join(log), "").unwrap();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let syslog = collect(&shared.path().join("socket"), &shared.path().join("syslog"), Arc::clone(&ended));
        let start = fs::read_to_string(Path::new(HERE).join("contestants").join(contestant).join("start")).unwrap();
        // The first process of a process namespace has to wait for orphans; sh does that while it waits for sleep.
        let script = format!("{{\n{start}\n}} >/beside/start.out 2>&1\n: >/beside/ready\nwhile :; do sleep 3600; done");
        let first = Command::new("ip")
            // It ends with the benchmark, however that ends.
            .args(["netns", "exec", &host.name, "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh"])
            .args([Path::new(HERE).join("enter").as_path(), work.path(), packages, files.path(), shared.path()])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().create(true).append(true).open(shared.path().join("enter.out")).unwrap())
            .spawn()
            .unwrap();
        let mut jail = Self { first, shared, _files: files, _work: work, ended, syslog: Some(syslog) };
        let ready = eventually(Duration::from_secs(60), || jail.path("ready").exists() || jail.first.try_wait().is_ok_and(|status| status.is_some()));
        if ready && jail.path("ready").exists() { Ok(jail) } else { Err(format!("does not start: {}", jail.last_words())) }
    }

    /// A file of /beside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    /// Runs one more script of the contestant beside it; returns at once.
    pub fn also(&self, script: &Path) -> Child {
        let first = self.first_process();
        let script = fs::read_to_string(script).unwrap();
        let said = OpenOptions::new().create(true).append(true).open(self.path("start.out")).unwrap();
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--mount", "--pid", "--net", "--root", "--wd", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap()
    }

    /// The first process of the process namespace, a child of unshare(1).
    fn first_process(&self) -> String {
        let id = self.first.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap().trim().to_owned()
    }

    fn last_words(&self) -> String {
        let said: Vec<String> = ["enter.out", "start.out"].iter().filter_map(|name| fs::read_to_string(self.path(name)).ok()).collect();
        said.concat().lines().last().unwrap_or("it said nothing").to_owned()
    }
}

/// Writes what comes to a syslog socket into a file, as a syslog daemon does: without the priority, with a host name.
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
            let line = line.split_once('>').map_or(&*line, |(_, rest)| rest).trim_end_matches(['\n', '\0']);
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
