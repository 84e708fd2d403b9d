//! A host for PortSentry 1.2: its own /etc, /var, /run and /dev/log in a network namespace, with
//! Debian's program or ours.
//!
//! The package is unpacked into a temporary directory and never installed. The old program's paths
//! are compiled in, and it becomes a daemon by itself, so it runs in a mount namespace where those
//! paths lead into the test's directory; it ends with its network namespace.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::netns::Namespace;
use super::{done, eventually, output, run, skip};

/// Debian's package, unpacked.
pub struct Package {
    directory: tempfile::TempDir,
}

impl Package {
    /// Fetches it (once: it is kept below target/) and unpacks it.
    ///
    /// # Errors
    /// The message why it cannot be fetched.
    pub fn get() -> Result<Self, String> {
        // Several tests may ask at the same time.
        static FETCHING: Mutex<()> = Mutex::new(());
        let guard = FETCHING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fetch-predecessor");
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("predecessor");
        let fetched = output(
            script.to_str().expect("path"),
            &[kept.to_str().expect("path")],
            Duration::from_secs(300),
        );
        drop(guard);
        if !fetched.status.success() {
            return Err(format!(
                "PortSentry 1.2 cannot be had: {}",
                String::from_utf8_lossy(&fetched.stderr).trim()
            ));
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
        run("dpkg-deb", &["-x", &file, directory.path().to_str().expect("path")]);
        run("dpkg-deb", &["-e", &file, directory.path().join("DEBIAN").to_str().expect("path")]);
        Ok(Self { directory })
    }

    /// The package; without it the test is skipped with the reason, or fails where `CI` is set.
    pub fn or_skip() -> Option<Self> {
        match Self::get() {
            Ok(package) => Some(package),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    /// A file of the package.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The content of a file of the package.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// Files of /etc that a program needs beside the test's own.
const ETC: &[&str] =
    &["hosts", "nsswitch.conf", "passwd", "group", "host.conf", "ld.so.cache", "localtime"];

/// Makes the mount namespace; `$ROOT` is the test's directory, followed by the program and its
/// arguments.
const ENTER: &str = r#"
for node in null zero full random urandom tty; do mount --bind "/dev/$node" "$ROOT/dev/$node" || exit 99; done
for top in etc run dev var; do mount --rbind "$ROOT/$top" "/$top" || exit 99; done
exec "$@"
"#;

/// The host's files, and the messages to its /dev/log.
pub struct Machine<'a> {
    pub namespace: &'a Namespace,
    directory: tempfile::TempDir,
    log: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    ours: Option<Child>,
}

impl<'a> Machine<'a> {
    /// A host in `namespace` with nothing in it.
    pub fn new(namespace: &'a Namespace) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path();
        for name in
            ["etc/portsentry", "var/lib/portsentry", "var/log", "var/tmp", "run/portsentry", "dev"]
        {
            fs::create_dir_all(root.join(name)).expect("directory");
        }
        for name in ETC {
            // Some are links, and some systems have not all of them.
            if let Ok(bytes) = fs::read(Path::new("/etc").join(name)) {
                fs::write(root.join("etc").join(name), bytes).expect("copy");
            }
        }
        fs::write(root.join("etc/resolv.conf"), "").expect("resolv.conf");
        for node in ["null", "zero", "full", "random", "urandom", "tty"] {
            fs::write(root.join("dev").join(node), "").expect("a place for a device");
        }
        let (log, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let reader = read_log(&root.join("dev/log"), Arc::clone(&log), Arc::clone(&ended));
        Self { namespace, directory, log, ended, reader: Some(reader), ours: None }
    }

    /// The path of a host's file outside.
    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the host.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.file(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// The content of a file of the host; empty if it does not exist.
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.file(path)).unwrap_or_default()
    }

    fn in_namespace<'w>(&'w self, program: &'w str, arguments: &[&'w str]) -> Vec<String> {
        let root = format!("ROOT={}", self.directory.path().display());
        let mut words: Vec<String> = [
            "netns",
            "exec",
            &self.namespace.name,
            "env",
            &root,
            "unshare",
            "-m",
            "sh",
            "-c",
            ENTER,
            "sh",
            program,
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// A program on the host, not started yet.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(self.in_namespace(program, arguments));
        command
    }

    /// Runs a program on the host, whatever its exit status.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let words = self.in_namespace(program, arguments);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        output("ip", &words, Duration::from_secs(30))
    }

    /// Starts the old program in a mode and waits until it listens.
    ///
    /// # Errors
    /// Its output, if it does not.
    pub fn start_old(&self, package: &Package, mode: &str) -> Result<(), String> {
        let started = self.output(
            package.path("usr/sbin/portsentry").to_str().expect("path"),
            &[&format!("-{mode}")],
        );
        let listens = |log: &[String]| {
            log.iter().any(|line| line.contains("PortSentry is now active and listening"))
        };
        let failed = |log: &[String]| {
            log.iter().any(|line| line.contains("Shutting down") || line.contains("shutting down"))
        };
        eventually(Duration::from_secs(10), || listens(&self.log()) || failed(&self.log()));
        if listens(&self.log()) {
            Ok(())
        } else {
            Err(format!("{}; {:?}", started.status, self.log()))
        }
    }

    /// The ids of the processes in the host's network namespace.
    pub fn pids(&self) -> Vec<String> {
        run("ip", &["netns", "pids", &self.namespace.name])
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// Imports the classic files, and has unproven sources blocked at once, as the old program does.
    pub fn import_blocking(&self) {
        self.import(&[]);
        let file = "/etc/portsentry/portsentry.yaml";
        let yaml = self.text(file);
        self.write(file, &format!("{yaml}\nblock: {{ unproven: {{ action: block }} }}\n"));
    }

    /// Starts our daemon as it is installed (its configuration at the default path) and waits until
    /// it answers.
    pub fn start_ours(&mut self, arguments: &[&str]) {
        self.start_ours_by(&["env"], arguments);
    }

    /// The same, started by another program, which becomes the daemon: these words precede the
    /// daemon's.
    pub fn start_ours_by(&mut self, by: &[&str], arguments: &[&str]) {
        let path = self.file("/var/log/stderr");
        let stderr =
            fs::OpenOptions::new().create(true).append(true).open(&path).expect("log file");
        let (program, before) = by.split_first().expect("a program");
        let words: Vec<&str> = [before, &[env!("CARGO_BIN_EXE_portsentry")], arguments].concat();
        let words = self.in_namespace(program, &words);
        let child = Command::new("ip")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("portsentry starts");
        self.ours = Some(child);
        let answers = eventually(Duration::from_secs(20), || {
            if let Some(status) =
                self.ours.as_mut().and_then(|child| child.try_wait().expect("wait"))
            {
                panic!("portsentry ended with {status}:\n{}", self.text("/var/log/stderr"));
            }
            self.ctl(&["status"]).status.success()
        });
        assert!(answers, "portsentry does not answer:\n{}", self.text("/var/log/stderr"));
    }

    /// The process id of our daemon.
    pub fn pid(&self) -> u32 {
        self.ours.as_ref().expect("our daemon runs").id()
    }

    /// Ends our daemon as systemd does.
    pub fn stop_ours(&mut self) {
        let mut child = self.ours.take().expect("our daemon runs");
        run("kill", &["-TERM", &child.id().to_string()]);
        let ended =
            eventually(Duration::from_secs(10), || child.try_wait().expect("wait").is_some());
        if !ended {
            let _ = child.kill();
        }
        assert!(ended, "portsentry does not end");
    }

    /// Runs `portsentryctl` against our daemon.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let socket = self.file("/run/portsentry/control.sock");
        let mut words = vec!["--socket", socket.to_str().expect("path")];
        words.extend_from_slice(arguments);
        output(env!("CARGO_BIN_EXE_portsentryctl"), &words, Duration::from_secs(20))
    }

    /// The rows of `portsentryctl --json list`.
    pub fn blocks(&self) -> Vec<Value> {
        let output = self.ctl(&["--json", "list"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("an array")
    }

    /// The addresses that our daemon blocks.
    pub fn blocked_by_ours(&self) -> Vec<String> {
        self.blocks()
            .iter()
            .filter(|row| row["state"] == "blocked")
            .map(|row| row["address"].as_str().expect("address").to_owned())
            .collect()
    }

    /// The addresses that the old program's routes make unreachable.
    pub fn blocked_by_old(&self) -> Vec<String> {
        let routes = self.namespace.run("ip", &["route", "show", "type", "unreachable"]);
        routes
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .map(str::to_owned)
            .collect()
    }

    /// The lines so far: messages to /dev/log, without priority, time and name, and our daemon's
    /// standard error.
    pub fn log(&self) -> Vec<String> {
        let mut lines = self.log.lock().expect("log").clone();
        lines.extend(self.text("/var/log/stderr").lines().map(str::to_owned));
        lines
    }

    /// Waits until a line has `text`.
    pub fn wait_for_log(&self, text: &str) {
        let there = eventually(Duration::from_secs(10), || {
            self.log().iter().any(|line| line.contains(text))
        });
        assert!(there, "no {text:?} in the log:\n{}", self.log().join("\n"));
    }
}

/// Collects messages to a syslog socket. A datagram socket with a reader that never stops:
/// syslog(3) would wait for it.
fn read_log(path: &Path, log: Arc<Mutex<Vec<String>>>, ended: Arc<AtomicBool>) -> JoinHandle<()> {
    let socket = UnixDatagram::bind(path).expect("syslog socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while !ended.load(Ordering::Relaxed) {
            match socket.recv(&mut buffer) {
                Ok(length) => log.lock().expect("log").push(
                    String::from_utf8_lossy(&buffer[..length])
                        .trim_end_matches(['\n', '\0'])
                        .to_owned(),
                ),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
        }
    })
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.ours {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The old program has left us as a daemon; all processes in the namespace belong to the
        // test.
        for pid in String::from_utf8_lossy(
            &output("ip", &["netns", "pids", &self.namespace.name], Duration::from_secs(5)).stdout,
        )
        .split_whitespace()
        {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of the host\n{}\n---", self.log().join("\n"));
        }
        self.ended.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A classic configuration that both programs read: they block at the first packet, the old program
/// by adding a route.
///
/// The ports are `tcp` and `udp`; the advanced modes watch the first 1024.
pub fn classic_configuration(tcp: &str, udp: &str) -> String {
    let ip = run("sh", &["-c", "command -v ip"]);
    format!(
        "TCP_PORTS=\"{tcp}\"\nUDP_PORTS=\"{udp}\"\nADVANCED_PORTS_TCP=\"1024\"\nADVANCED_PORTS_UDP=\"1024\"\nADVANCED_EXCLUDE_TCP=\"113,139\"\n\
         ADVANCED_EXCLUDE_UDP=\"520,138,137,67\"\nIGNORE_FILE=\"/etc/portsentry/portsentry.ignore\"\n\
         HISTORY_FILE=\"/var/lib/portsentry/portsentry.history\"\nBLOCKED_FILE=\"/var/lib/portsentry/portsentry.blocked\"\nRESOLVE_HOST=\"0\"\n\
         BLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"\nKILL_ROUTE=\"{} route add unreachable $TARGET$\"\nSCAN_TRIGGER=\"0\"\n",
        ip.trim()
    )
}

impl Machine<'_> {
    /// Writes the classic files: a configuration and an ignore file.
    pub fn classic_files(&self, configuration: &str, ignore: &str) {
        self.write("/etc/portsentry/portsentry.conf", configuration);
        self.write("/etc/portsentry/portsentry.ignore", ignore);
    }

    /// Imports the classic files with `portsentryctl import`; returns its output.
    pub fn import(&self, arguments: &[&str]) -> String {
        let mut words = vec!["import", "/etc/portsentry/portsentry.conf"];
        words.extend_from_slice(arguments);
        done(&self.output(env!("CARGO_BIN_EXE_portsentryctl"), &words))
    }
}
