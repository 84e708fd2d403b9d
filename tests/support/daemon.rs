//! The daemon as an administrator runs it: a process in a namespace, controlled through
//! `portsentryctl`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::netns::Namespace;
use super::{eventually, output, schema};

/// A running daemon with its own files; killed when dropped.
pub struct Daemon<'a> {
    pub namespace: &'a Namespace,
    pub directory: tempfile::TempDir,
    pub child: Child,
    /// Its state directory, if not in `directory`.
    pub state: Option<PathBuf>,
    /// The group that may read through the control socket; empty: root only.
    pub group: &'static str,
    /// It sees the files in `sessions` of its directory as logind's.
    pub has_logins: bool,
}

/// The daemon under test: of this build, or the one in `PORTSENTRY_PROGRAM` (the release build,
/// where speed counts).
pub fn program() -> String {
    std::env::var("PORTSENTRY_PROGRAM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_portsentry").to_owned())
}

impl<'a> Daemon<'a> {
    /// Starts the daemon in `namespace` with configuration `yaml` (paths of its files are added)
    /// and waits until it answers.
    pub fn start(namespace: &'a Namespace, yaml: &str) -> Self {
        Self::start_with(namespace, yaml, None)
    }

    /// The same with another state directory.
    pub fn start_with(namespace: &'a Namespace, yaml: &str, state: Option<&Path>) -> Self {
        Self::start_for(namespace, yaml, state, "")
    }

    /// Starts the daemon in a mount namespace in which [`Daemon::log_in`] records sessions.
    pub fn start_with_logins(namespace: &'a Namespace, yaml: &str) -> Self {
        Self::start_as(namespace, yaml, None, "", true)
    }

    /// Records a login session from an address, as logind does; deleting the file ends it.
    pub fn log_in(&self, address: &str) -> PathBuf {
        let path = self.path("sessions").join(address);
        let text = format!(
            "# This is private data. Do not parse.\nUID=0\nSTATE=active\nREMOTE=1\nREMOTE_HOST={address}\n"
        );
        fs::write(&path, text).expect("session");
        path
    }

    /// The same with a control socket that `group` may read.
    pub fn start_for(
        namespace: &'a Namespace,
        yaml: &str,
        state: Option<&Path>,
        group: &'static str,
    ) -> Self {
        Self::start_as(namespace, yaml, state, group, false)
    }

    fn start_as(
        namespace: &'a Namespace,
        yaml: &str,
        state: Option<&Path>,
        group: &'static str,
        has_logins: bool,
    ) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let state = state.map(Path::to_path_buf);
        let mut daemon = Self {
            namespace,
            child: Self::launch(namespace, &directory, yaml, state.as_deref(), group, has_logins),
            directory,
            state,
            group,
            has_logins,
        };
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts it again in the same directory, after [`Daemon::stop`].
    pub fn restart(&mut self, yaml: &str) {
        let (state, group) = (self.state.as_deref(), self.group);
        self.child =
            Self::launch(self.namespace, &self.directory, yaml, state, group, self.has_logins);
        self.wait_until_it_answers();
    }

    fn launch(
        namespace: &Namespace,
        directory: &tempfile::TempDir,
        yaml: &str,
        state: Option<&Path>,
        group: &str,
        has_logins: bool,
    ) -> Child {
        let path = directory.path();
        fs::write(path.join("portsentry.yaml"), configuration(path, yaml, state, group))
            .expect("configuration");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path.join("log"))
            .expect("log file");
        let sessions = path.join("sessions");
        fs::create_dir_all(&sessions).expect("directory");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.name]);
        if has_logins {
            command.args(["unshare", "--mount", "sh", "-c", OWN_SESSIONS]).arg(sessions);
        }
        command
            .args([&program(), "--config"])
            .arg(path.join("portsentry.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("portsentry starts")
    }

    fn wait_until_it_answers(&mut self) {
        let answers = eventually(Duration::from_secs(60), || {
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("portsentry ended with {status}:\n{}", self.log());
            }
            self.ctl(&["status"]).status.success()
        });
        assert!(answers, "portsentry does not answer:\n{}", self.log());
    }

    /// Writes a new configuration file, without a reload.
    pub fn write_configuration(&self, yaml: &str) {
        fs::write(
            self.directory.path().join("portsentry.yaml"),
            configuration(self.directory.path(), yaml, self.state.as_deref(), self.group),
        )
        .expect("configuration");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut status = None;
        assert!(
            eventually(Duration::from_secs(10), || {
                status = self.child.try_wait().expect("wait");
                status.is_some()
            }),
            "portsentry does not end"
        );
        status.expect("ended")
    }

    /// Runs `portsentryctl`.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let socket = self.directory.path().join("control.sock");
        let mut words = vec!["--socket", socket.to_str().expect("path")];
        words.extend_from_slice(arguments);
        output(env!("CARGO_BIN_EXE_portsentryctl"), &words, Duration::from_secs(20))
    }

    /// Runs `portsentryctl --json`, which must succeed; returns its output, which is as its schema says.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["--json"];
        words.extend_from_slice(arguments);
        let output = self.ctl(&words);
        assert!(
            output.status.success(),
            "portsentryctl {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)));
        if let Some(name) = schema::of(arguments) {
            schema::check(name, &document);
        }
        document
    }

    /// A memory value of its /proc/PID/status in kB (proc_pid_status(5)): `VmRSS` is resident
    /// memory, `VmHWM` its peak.
    pub fn memory(&self, line: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let value = text.lines().find_map(|found| {
            found.strip_prefix(line)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
        });
        value.unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    /// The blocked and slowed addresses that `portsentryctl list` shows.
    pub fn blocked(&self) -> Vec<String> {
        self.json(&["list"])
            .as_array()
            .expect("array")
            .iter()
            // Campaigns.
            .filter(|row| row["state"] != "reported")
            .map(|row| row["address"].as_str().expect("address").to_owned())
            .collect()
    }

    /// Waits until `address` is blocked.
    pub fn wait_for_block(&self, address: &str) {
        let blocked = eventually(Duration::from_secs(5), || {
            self.blocked().iter().any(|found| found == address)
        });
        assert!(blocked, "{address} is not blocked: {:?}\n{}", self.blocked(), self.log());
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until its log has `text`.
    pub fn wait_for_log(&self, text: &str) {
        self.wait_within_for_log(Duration::from_secs(5), text);
    }

    /// The same with a longer limit.
    pub fn wait_within_for_log(&self, limit: Duration, text: &str) {
        assert!(
            eventually(limit, || self.log().contains(text)),
            "no {text:?} in the log:\n{}",
            self.log()
        );
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Runs a program where the directory `$0` is logind's.
const OWN_SESSIONS: &str = "mount -t tmpfs none /run && mkdir /run/systemd && ln -s \"$0\" /run/systemd/sessions && exec \"$@\"";

/// A remark in a configuration: unproven sources are treated as by default.
pub const AT_DEFAULTS: &str = "# at the defaults";

/// The configuration of a test of blocks: unproven sources are blocked at once, unless it says
/// something else, or [`AT_DEFAULTS`].
fn blocking(yaml: &str) -> String {
    let is_told = ["action: slow", "action: report", "unproven: { action:", AT_DEFAULTS];
    if is_told.iter().any(|told| yaml.contains(told)) {
        return yaml.to_owned();
    }
    for (group, first) in
        [("unproven: {", "action: block,"), ("block: {", "unproven: { action: block },")]
    {
        if yaml.contains(group) {
            return yaml.replacen(group, &format!("{group} {first}"), 1);
        }
    }
    format!("{yaml}\nblock: {{ unproven: {{ action: block }} }}")
}

/// The test's configuration plus paths in the test's directory.
fn configuration(directory: &Path, yaml: &str, state: Option<&Path>, group: &str) -> String {
    let state = state.unwrap_or(directory).display();
    let directory = directory.display();
    let yaml = blocking(yaml);
    format!(
        "{yaml}\nstate_dir: {state}\nhistory_file: {directory}/portsentry.history\ncontrol: {{ socket: {directory}/control.sock, group: \"{group}\" }}\n"
    )
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
    }
}
