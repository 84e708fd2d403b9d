//! Starts child processes and ends them with all their descendants (fork(2), prctl(2),
//! pidfd_open(2), waitid(2), proc(5)).
//!
//! A process that calls [`adopt_orphans`] becomes the parent of descendants whose own parent has
//! ended, so that none can escape.
#![expect(unsafe_code, reason = "system calls live here")]

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// How long [`end_children`] tries. A killed process ends within microseconds, unless it waits for
/// a disk or a dead file server.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// From now on a panic of any thread ends the process, with its message and SIGABRT: a daemon must
/// not go on without one of its threads. The profiles do not say `panic = "abort"`, because tests
/// and benchmarks ignore it, so that everything would be compiled twice.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Gives the system back what the heap does not use (malloc_trim(3)): a start needs more than what
/// follows. It walks through the whole heap: not for the packet path.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks what it touches.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program's code and constants until they are used again: what a start
/// needs is several megabytes, and nothing of it is needed again. The kernel's page cache has them, so
/// that a page that is used costs a fault without a read (madvise(2), MADV_DONTNEED).
pub(crate) fn trim_code() {
    let code = trim_code as *const () as usize;
    let constant = CONSTANT.as_ptr() as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (first, end) in maps.lines().filter_map(|line| unwritten_around(line, [code, constant])) {
        // SAFETY: a private mapping of the program's file that was never writable: what comes back
        // is what was there.
        unsafe {
            libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED);
        }
    }
}

/// Marks the read-only data: it has no address in it, so it is in the part that the loader does not
/// relocate.
static CONSTANT: [u8; 16] = *b"a constant's end";

/// The range of a line of /proc/PID/maps (proc_pid_maps(5)), if it is part of a file that is mapped
/// privately and was never writable, and has one of these addresses in it.
fn unwritten_around(line: &str, addresses: [usize; 2]) -> Option<(usize, usize)> {
    let (range, rest) = line.split_once(' ')?;
    let (first, end) = range.split_once('-')?;
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    let (first, end) = (number(first)?, number(end)?);
    // What the loader has relocated is readable only too, but lies behind the code: its constants
    // have addresses in them.
    let is_unwritten = rest.starts_with("r-xp ") || rest.starts_with("r--p 00000000 ");
    (is_unwritten && addresses.iter().any(|address| (first..end).contains(address)))
        .then_some((first, end))
}

/// Makes this process the parent of all orphans among its descendants (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// The error of prctl(2).
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Prepares a command so that all processes it starts can be found and ended.
///
/// It gets its own session and group without a terminal, adopts orphans among its descendants (we
/// inherit them when it ends), is killed when the thread that started it ends, and inherits only
/// descriptors 0, 1 and 2.
pub fn isolate(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        adopt_orphans()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        keep_descriptors();
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is
    // taken.
    unsafe { command.pre_exec(prepare) };
}

/// Bytes as the standard input of a command, of any length (memfd_create(2)).
///
/// # Errors
/// No memory is left, or no descriptor.
pub fn input(bytes: &[u8]) -> io::Result<Stdio> {
    let memory = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(bytes)?;
    memory.seek(SeekFrom::Start(0))?;
    Ok(Stdio::from(memory))
}

/// Prepares a command that runs this program again: it inherits only descriptors 0, 1 and 2.
pub fn inherit_nothing(command: &mut Command) {
    let prepare = || {
        keep_descriptors();
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
}

/// Marks descriptors from 3 on close-on-exec (close_range(2), Linux 5.11). Older kernels keep those
/// opened without O_CLOEXEC.
fn keep_descriptors() {
    // SAFETY: no pointer is involved; nothing is closed before exec.
    let _ =
        unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// A descriptor that becomes readable when `child` has ended (pidfd_open(2)).
///
/// # Errors
/// The error of pidfd_open(2).
pub fn end_of(child: &Child) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid(child.id())?, PidfdFlags::empty())?)
}

/// Sends a signal to the group that `child` leads. The child must not be reaped yet: its id could
/// be reused.
pub fn signal_group(child: &Child, signal: Signal) {
    if let Ok(pid) = pid(child.id()) {
        // ESRCH: all of them have ended.
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Kills and reaps the children of this process except those that `keep` selects, and the orphans
/// that it adopts by that. Returns `false` if some are left.
///
/// No other thread may wait for these children at the same time.
pub fn end_children(keep: impl Fn(u32) -> bool) -> bool {
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        let strays: Vec<u32> = children().into_iter().filter(|child| !keep(*child)).collect();
        if strays.is_empty() {
            return true;
        }
        for stray in strays.iter().filter_map(|stray| pid(*stray).ok()) {
            // EPERM: it runs as a user that we may not signal; EINVAL, ESRCH: it is gone.
            let _ = rustix::process::kill_process(stray, Signal::KILL);
            let _ = rustix::process::waitid(
                WaitId::Pid(stray),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The children of this process in /proc, including ended ones that are not reaped.
pub fn children() -> Vec<u32> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|number| {
            parent(&std::fs::read(format!("/proc/{number}/stat")).unwrap_or_default()) == Some(own)
        })
        .collect()
}

/// The parent id in a line of /proc/PID/stat. The second field is the program's name in brackets
/// and may contain any bytes.
fn parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Sets the name that ps(1) and top(1) show: at most 15 bytes (PR_SET_NAME).
pub fn set_name(name: &std::ffi::CStr) {
    let _ = rustix::thread::set_name(name);
}

/// A duplicate of standard input, if it is a unix socket; close-on-exec.
pub fn socket_on_stdin() -> Option<std::os::unix::net::UnixStream> {
    let stdin = rustix::stdio::stdin();
    let domain = rustix::net::sockopt::socket_domain(stdin).ok()?;
    let kind = rustix::net::sockopt::socket_type(stdin).ok()?;
    if domain != rustix::net::AddressFamily::UNIX || kind != rustix::net::SocketType::STREAM {
        return None;
    }
    Some(stdin.try_clone_to_owned().ok()?.into())
}

/// Makes a pipe's end non-blocking (O_NONBLOCK).
///
/// # Errors
/// The error of ioctl(2).
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

fn pid(number: u32) -> io::Result<Pid> {
    i32::try_from(number)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_when_its_code_is_unmapped() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = [trim_code as *const () as usize, CONSTANT.as_ptr() as usize];
        let found: Vec<_> = maps.lines().filter_map(|line| unwritten_around(line, here)).collect();
        // The constants may be in one mapping with the code.
        assert!((1..=2).contains(&found.len()), "{maps}");
        assert!(found.iter().any(|(first, end)| (*first..*end).contains(&here[0])), "{maps}");
        trim_code();
        assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().is_empty());
        let at = [0x1900, 0x9900];
        for line in [
            "",
            "1000-2000",
            "1000-2000 rw-p 0",
            "1000-1800 r-xp 0",
            "x-y r-xp 0",
            // Relocated at the start.
            "9000-a000 r--p 00008000 fe:00 1 /p",
        ] {
            assert_eq!(unwritten_around(line, at), None, "{line}");
        }
        for line in ["1000-2000 r-xp 00001000 fe:00 1 /p", "1000-2000 r--p 00000000 fe:00 1 /p"] {
            assert_eq!(unwritten_around(line, at), Some((0x1000, 0x2000)), "{line}");
        }
    }

    #[test]
    fn parent_is_found_for_any_program_name() {
        assert_eq!(parent(b"12 (sh) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent(b"12 (a) S 1 (\xff) b) Z 9 12 12"), Some(9));
        for broken in [&b""[..], b"12", b"12 (sh)", b"12 (sh) S", b"12 (sh) S x", b"12 (sh) S \xff"]
        {
            assert_eq!(parent(broken), None);
        }
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        const CHILD: &str = "PORTSENTRY_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            abort_on_panic();
            let _ = std::thread::spawn(|| panic!("a thread of the child")).join();
            std::process::exit(0);
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::a_panic_of_any_thread_ends_the_process");
        let child = Command::new(std::env::current_exe().unwrap())
            .args([&name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(child.status.signal(), Some(Signal::ABORT.as_raw()));
        assert!(String::from_utf8_lossy(&child.stderr).contains("a thread of the child"));
    }

    #[test]
    fn child_is_listed_until_it_is_reaped() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let ended = end_of(&child).unwrap();
        assert!(crate::sys::poll::readable(ended.as_fd(), Duration::from_secs(10)).unwrap());
        assert!(children().contains(&child.id()));
        child.wait().unwrap();
        assert!(!children().contains(&child.id()));
    }
}
