//! What the daemon's threads cannot do, and what rights a running daemon and its helper have.
#![expect(unsafe_code, reason = "an intruder has no safe wrappers")]

use crate::support;

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use portsentry::sys::confine::{self, Thread};
use portsentry::sys::reach::{self, Reach};
use portsentry::sys::users::User;
use rustix::process::{Pid, Signal, getppid, kill_process};

use support::netns::Namespace;
use support::predecessor::Machine;
use support::{eventually, missing, output, output_text};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "unshare", "mount", "env"];

/// The user `portsentry` of these tests.
const USER: User = User { uid: 64_111, gid: 64_112 };
const CAP_NET_ADMIN: u64 = 1 << 12;

/// What an intruder finds.
struct World {
    /// /etc/shadow, or where there is none, a file for root alone.
    secret: PathBuf,
    /// A process of root with all rights.
    parent: Pid,
    /// A socket to which everyone may connect, as that of D-Bus.
    socket: PathBuf,
    port: u16,
}

type Attempt = fn(&World) -> io::Result<()>;

const EXEC: (&str, Attempt) =
    ("start a program", |_| Command::new("/bin/true").stdin(Stdio::inherit()).status().map(drop));
const SECRET: (&str, Attempt) =
    ("open a secret of root's", |world| File::open(&world.secret).map(drop));
const SIGNAL: (&str, Attempt) = ("signal a process of root", |world| {
    kill_process(world.parent, Signal::URG).map_err(io::Error::from)
});
const LOCAL: (&str, Attempt) =
    ("connect to a local socket", |world| UnixStream::connect(&world.socket).map(drop));
const REMOTE: (&str, Attempt) =
    ("connect to a port", |world| TcpStream::connect(("127.0.0.1", world.port)).map(drop));
const PTRACE: (&str, Attempt) = ("trace a process", |world| {
    let pid = world.parent.as_raw_nonzero().get();
    // SAFETY: no memory of this process is named. The kernel detaches at the end of this thread.
    call(unsafe { libc::syscall(libc::SYS_ptrace, 0x4206, pid, 0, 0) })
});
/// That file is no module: ENOEXEC is for those who may load one, and ENOSYS of a kernel without.
const MODULE: (&str, Attempt) = ("load a module", |world| {
    let file = File::open(&world.secret);
    let fd = file.as_ref().map_or(0, AsRawFd::as_raw_fd);
    // SAFETY: the string ends with NUL.
    let loaded = call(unsafe { libc::syscall(libc::SYS_finit_module, fd, c"".as_ptr(), 0) });
    match loaded {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOEXEC | libc::EINVAL)) => Ok(()),
        other => other,
    }
});

/// The file beside the socket that [`World`] names.
fn new_file(world: &World) -> PathBuf {
    world.socket.with_file_name("new")
}
const CREATE: (&str, Attempt) =
    ("create a file", |world| File::create_new(new_file(world)).map(drop));
const WRITE: (&str, Attempt) = ("open a file for writing", |world| {
    File::options().append(true).open(new_file(world)).map(drop)
});
const RENAME: (&str, Attempt) =
    ("rename a file", |world| fs::rename(new_file(world), world.socket.with_file_name("old")));
const REMOVE: (&str, Attempt) =
    ("remove a file", |world| fs::remove_file(world.socket.with_file_name("old")));

fn call(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The name of an attempt and how it failed; `None`: it succeeded.
fn failure((name, attempt): (&'static str, Attempt), world: &World) -> Option<(&'static str, i32)> {
    attempt(world).err().map(|error| (name, error.raw_os_error().unwrap_or(0)))
}

fn failures(attempts: &[(&'static str, Attempt)], world: &World) -> Vec<(&'static str, i32)> {
    attempts.iter().filter_map(|attempt| failure(*attempt, world)).collect()
}

const CHILD: &str = "PORTSENTRY_TEST_ESCAPE";

/// What an intruder finds here, and what must be kept for it.
fn world() -> (World, (tempfile::TempDir, UnixListener, TcpListener)) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = directory.path().join("socket");
    let local = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let remote = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = remote.local_addr().unwrap().port();
    let secret = ["/etc/shadow".into(), directory.path().join("secret")];
    fs::write(&secret[1], "none").unwrap();
    fs::set_permissions(&secret[1], fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.into_iter().find(|path| path.exists()).unwrap();
    let world = World { secret, parent: getppid().unwrap(), socket, port };
    (world, (directory, local, remote))
}

/// The child: the attempts as root, and then in a thread of each kind.
fn attempts_of_the_child() {
    let (world, _kept) = world();
    let all = [EXEC, SECRET, SIGNAL, LOCAL, REMOTE, MODULE];
    // What is refused below is possible here; but not every kernel has modules.
    let possible = failures(&all, &world);
    assert!(possible.iter().all(|failed| *failed == (MODULE.0, libc::ENOSYS)), "{possible:?}");

    confine::process(Some(USER), &[], false).unwrap();
    // The helper's thread starts a program, and nothing else here that root alone may.
    let refused = failures(&[EXEC, SECRET, SIGNAL, LOCAL, REMOTE, PTRACE, MODULE], &world);
    let names = [SECRET.0, SIGNAL.0, PTRACE.0, MODULE.0];
    let errors = [libc::EACCES, libc::EPERM, libc::EPERM, libc::EPERM];
    assert_eq!(refused, names.into_iter().zip(errors).collect::<Vec<_>>());

    thread::scope(|scope| {
        let other = scope.spawn(|| {
            confine::thread(Thread::NoExec).unwrap();
            let refused = failures(&[EXEC, SECRET, SIGNAL, LOCAL, REMOTE, PTRACE, MODULE], &world);
            let names: Vec<_> = refused.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [EXEC.0, SECRET.0, SIGNAL.0, PTRACE.0, MODULE.0]);
            // Threads that it starts are no freer.
            thread::scope(|inner| {
                let started = inner.spawn(|| failure(EXEC, &world)).join().unwrap();
                assert_eq!(started, Some((EXEC.0, libc::EPERM)));
            });
        });
        other.join().unwrap();
        let packets = scope.spawn(|| {
            confine::thread(Thread::NoExec).unwrap();
            confine::thread(Thread::Packets).unwrap();
            let refused = failures(&all, &world);
            let names: Vec<_> = refused.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, all.map(|(name, _)| name), "{refused:?}");
            assert!(refused.iter().all(|(_, error)| [libc::ENOSYS, libc::EPERM].contains(error)));
            // Memory for code of an intruder's own.
            // SAFETY: the kernel chooses the place of a new mapping.
            let code = unsafe {
                let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0)
            };
            assert_eq!(code, libc::MAP_FAILED);
        });
        packets.join().unwrap();
    });
}

/// The child: the attempts as root, and then of the program that sends notifications.
fn attempts_of_the_sender() {
    let (world, _kept) = world();
    let all = [EXEC, SIGNAL, LOCAL, REMOTE, CREATE, WRITE, RENAME, REMOVE];
    assert_eq!(failures(&all, &world), []);
    // Both files are there, as each attempt finds them.
    File::create_new(new_file(&world)).unwrap();
    fs::write(world.socket.with_file_name("old"), "").unwrap();

    confine::sender().unwrap();
    let refused = failures(&[EXEC, SIGNAL, PTRACE, CREATE, WRITE, RENAME, REMOVE], &world);
    let names = [EXEC, SIGNAL, PTRACE, CREATE, WRITE, RENAME, REMOVE].map(|(name, _)| name);
    assert_eq!(refused, names.map(|name| (name, libc::EPERM)));
    // It speaks with servers, and with the system's resolver.
    assert_eq!(failures(&[LOCAL, REMOTE], &world), []);
    assert!(File::open("/etc/passwd").is_ok());
}

/// The version of Landlock that the kernel has; 0: it has none.
fn landlock() -> i64 {
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag there is neither a structure nor a size.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, 1) };
    // The newest that the library knows.
    version.clamp(0, 10)
}

/// What of [`REACHED`] a thread with this reach still does, without a filter of its own.
fn reached(reach: Reach<'_>, world: &World) -> Vec<&'static str> {
    let confined = || {
        reach::restrict(reach);
        let is_possible = |attempt: &&(&'static str, Attempt)| failure(**attempt, world).is_none();
        REACHED.iter().filter(is_possible).map(|(name, _)| *name).collect()
    };
    let possible = thread::scope(|scope| scope.spawn(confined).join().unwrap());
    for name in ["new", "var/state/new", "var/state/fifo"] {
        let _ = fs::remove_file(world.socket.with_file_name(name));
    }
    possible
}

/// The state directory beside the socket that [`World`] names, in a directory of root's.
fn state(world: &World) -> PathBuf {
    world.socket.with_file_name("var/state")
}

fn abstract_socket(world: &World) -> SocketAddr {
    SocketAddr::from_abstract_name(format!("portsentry-test-{}", world.port)).unwrap()
}

const OWN_FILE: (&str, Attempt) = ("write a file in the state directory", |world| {
    let path = state(world).join("old");
    fs::write(&path, "1")?;
    fs::rename(&path, path.with_file_name("new"))?;
    File::options().write(true).truncate(true).open(path.with_file_name("new")).map(drop)
});
const OWN_FIFO: (&str, Attempt) = ("make a FIFO in the state directory", |world| {
    let path = state(world).join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).map_err(io::Error::from)
});
const BIND: (&str, Attempt) = ("open a port", |_| TcpListener::bind("127.0.0.1:0").map(drop));
const ABSTRACT: (&str, Attempt) = ("connect to an abstract socket", |world| {
    UnixStream::connect_addr(&abstract_socket(world)).map(drop)
});
const READ: (&str, Attempt) = ("read a file", |_| File::open("/etc/passwd").map(drop));

/// With the version of Landlock that refuses it, where it is not allowed; reading never is refused.
const REACHED: [(&str, Attempt); 9] =
    [READ, EXEC, CREATE, OWN_FILE, OWN_FIFO, REMOTE, BIND, SIGNAL, ABSTRACT];
const VERSIONS: [i64; 9] = [i64::MAX, 1, 1, 1, 1, 4, 4, 6, 6];

/// The child: what Landlock alone refuses to a thread of each kind.
fn attempts_with_landlock() {
    let (mut world, _kept) = world();
    let _abstract = UnixListener::bind_addr(&abstract_socket(&world)).unwrap();
    let directory = world.socket.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    let state = state(&world);
    fs::create_dir_all(&state).unwrap();
    chown(&state, Some(USER.uid), Some(USER.gid)).unwrap();
    confine::process(Some(USER), &[], false).unwrap();
    // Another process of the same user.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    world.parent = Pid::from_child(&other);

    // Debian's kernels have it. Without it everything goes on.
    let version = landlock();
    assert!(version > 0 || std::env::var_os("PORTSENTRY_GUEST").is_none());
    let daemon = Reach::Daemon { state: &state, socket: &world.socket };
    for (reach, allowed) in [
        (Reach::Nothing, &[][..]),
        (Reach::Servers, &[REMOTE.0]),
        (Reach::Files, &[CREATE.0, OWN_FILE.0]),
        (Reach::Directory(&state), &[OWN_FILE.0]),
        (daemon, &[OWN_FILE.0, BIND.0]),
    ] {
        let expected = REACHED.iter().zip(VERSIONS).filter_map(|((name, _), refused_by)| {
            (version < refused_by || allowed.contains(name)).then_some(*name)
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(reached(reach, &world), expected, "{reach:?}, Landlock {version}");
    }
    assert_eq!(reach::in_force().map(i64::from), Some(version).filter(|version| *version > 0));
    other.kill().unwrap();
    other.wait().unwrap();

    // A state directory that another program deletes is made again, where that is possible.
    let own = directory.join("own");
    fs::create_dir(&own).unwrap();
    let step = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            reach::restrict(Reach::Daemon { state: &own, socket: &world.socket });
            step.wait();
            step.wait();
            fs::create_dir(&own).unwrap();
            fs::write(own.join("new"), "2").unwrap();
            // And the control socket is removed at the end.
            fs::remove_file(&world.socket).unwrap();
        });
        step.wait();
        fs::remove_dir(&own).unwrap();
        step.wait();
    });
}

// P24
#[test]
fn an_intruder_with_landlock_writes_in_the_state_directory_only() {
    if std::env::var_os(CHILD).is_some() {
        return attempts_with_landlock();
    }
    in_a_child("escape::an_intruder_with_landlock_writes_in_the_state_directory_only");
}

// P24
#[test]
fn an_intruder_in_the_packet_thread_reaches_nothing() {
    if std::env::var_os(CHILD).is_some() {
        return attempts_of_the_child();
    }
    in_a_child("escape::an_intruder_in_the_packet_thread_reaches_nothing");
}

// P17
#[test]
fn an_intruder_in_the_program_that_sends_changes_nothing() {
    if std::env::var_os(CHILD).is_some() {
        return attempts_of_the_sender();
    }
    in_a_child("escape::an_intruder_in_the_program_that_sends_changes_nothing");
}

/// Runs a test of this file as a process of its own, which does not confine this one, in a network of
/// its own, for the port.
fn in_a_child(name: &str) {
    if missing(&["ip", "env"]).is_some() {
        return;
    }
    let host = Namespace::new();
    let exe = std::env::current_exe().unwrap();
    let variable = format!("{CHILD}=1");
    let words =
        ["netns", "exec", &host.name, "env", &variable, exe.to_str().unwrap(), name, "--exact"];
    let child = output("ip", &words, Duration::from_secs(60));
    assert!(child.status.success(), "{}", output_text(&child));
    assert!(output_text(&child).contains("1 passed"), "{}", output_text(&child));
}

/// A line of /proc/PID/task/TID/status, for each thread, with the thread's name.
fn threads(pid: u32, key: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":"));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
    };
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    status.map(|text| (value(&text, "Name"), value(&text, key))).collect()
}

/// Every thread of a process has this value.
fn assert_all(pid: u32, key: &str, value: &str) {
    for (name, found) in threads(pid, key) {
        assert_eq!(found.replace('\t', " "), value, "{key} of the thread {name}");
    }
}

fn helper_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let of_threads = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .collect::<String>()
    };
    let found = if children.trim().is_empty() { of_threads() } else { children };
    found.split_whitespace().next().unwrap().parse().unwrap()
}

const YAML: &str = "block: { unproven: { action: block } }\nhistory_file: \"\"\n";

// P24
#[test]
fn a_daemon_that_root_starts_becomes_its_user_and_works() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (host, scanner) = (Namespace::new(), Namespace::new());
    host.join(&scanner, "scan0", &["10.69.0.1/24"], &["10.69.0.2/24"]);
    let mut machine = Machine::new(&host);
    machine.write("/etc/portsentry/portsentry.yaml", YAML);

    // Without the user it stays root, and says so.
    machine.start_ours(&[]);
    machine.wait_for_log("there is no user portsentry");
    assert_all(machine.pid(), "Uid", "0 0 0 0");
    rights(machine.pid());
    machine.stop_ours();
    let state = machine.file("/var/lib/portsentry/portsentry.db");
    assert_eq!(fs::metadata(&state).unwrap().uid(), 0);

    // With the user, what the daemon of root left is the user's.
    let User { uid, gid } = USER;
    let passwd = machine.text("/etc/passwd");
    machine.write("/etc/passwd", &format!("{passwd}portsentry:x:{uid}:{gid}::/:/bin/false\n"));
    machine.start_ours(&[]);
    let ids = |id: u32| format!("{id} {id} {id} {id}");
    assert_all(machine.pid(), "Uid", &ids(uid));
    assert_all(machine.pid(), "Gid", &ids(gid));
    assert_all(machine.pid(), "Groups", "");
    rights(machine.pid());
    assert_eq!(fs::metadata(&state).unwrap().uid(), uid);
    assert_all(helper_of(machine.pid()), "Uid", &ids(uid));
    // And says so.
    let status = output_text(&machine.ctl(&["status"]));
    let version = landlock();
    let landlock = if version > 0 { format!(", Landlock {version}") } else { String::new() };
    for told in [
        format!("daemon: user portsentry, CAP_NET_ADMIN, 2 filters of system calls{landlock}\n"),
        format!(
            "packet thread: user portsentry, CAP_NET_ADMIN, 3 filters of system calls{landlock}\n"
        ),
        "helper: user portsentry, no capability, 1 filter of system calls\n".to_owned(),
    ] {
        assert!(status.contains(&told), "{told} in {status}");
    }

    scanner.run("nmap", &["-n", "-Pn", "-sS", "--max-retries", "1", "-p", "1-20", "10.69.0.1"]);
    let is_blocked = |machine: &Machine<'_>| {
        eventually(Duration::from_secs(10), || machine.blocked_by_ours() == ["10.69.0.2"])
    };
    assert!(is_blocked(&machine), "{:?}", machine.log());
    // A foreign flush is repaired, which opens a socket; and so is a reload with decoys.
    host.run("nft", &["flush", "ruleset"]);
    let is_repaired = || {
        let set =
            host.output("nft", &["list", "table", "inet", "portsentry"], Duration::from_secs(10));
        output_text(&set).contains("10.69.0.2")
    };
    assert!(eventually(Duration::from_secs(10), is_repaired), "{:?}", machine.log());
    let yaml = format!("{YAML}tcp: {{ mode: connect }}\ncapture: {{ method: nfqueue }}\n");
    machine.write("/etc/portsentry/portsentry.yaml", &yaml);
    let reloaded = machine.ctl(&["reload"]);
    assert!(reloaded.status.success(), "{}", output_text(&reloaded));
    rights(machine.pid());
    // Its files are its own at the next start, too.
    machine.stop_ours();
    machine.start_ours(&[]);
    assert!(is_blocked(&machine), "{:?}", machine.log());
    machine.stop_ours();
}

/// The rights of every thread of a daemon, and of its helper.
fn rights(pid: u32) {
    for process in [pid, helper_of(pid)] {
        assert_all(process, "Seccomp", "2");
        assert_all(process, "NoNewPrivs", "1");
        assert_all(process, "CapBnd", &format!("{CAP_NET_ADMIN:016x}"));
        let own = if process == pid { CAP_NET_ADMIN } else { 0 };
        for key in ["CapPrm", "CapEff"] {
            assert_all(process, key, &format!("{own:016x}"));
        }
        for key in ["CapInh", "CapAmb"] {
            assert_all(process, key, &format!("{:016x}", 0));
        }
    }
    // Each filter comes on top of the others: the helper's thread has the fewest, the packet thread
    // the most.
    let filters = threads(pid, "Seccomp_filters");
    let of = |name: &str| {
        filters.iter().find(|(thread, _)| thread == name).map(|(_, count)| count.clone())
    };
    assert_eq!(of("helper").as_deref(), Some("1"), "{filters:?}");
    assert_eq!(of("packets").as_deref(), Some("3"), "{filters:?}");
    let others = filters.iter().filter(|(name, _)| name != "helper" && name != "packets");
    for (name, count) in others {
        assert_ne!(count, "1", "the thread {name} may start programs");
    }
}
