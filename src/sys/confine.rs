//! Gives up rights that this process does not need: identity, capabilities (capabilities(7)) and
//! system calls (seccomp(2)), which children inherit.
//!
//! Three filters, each within the one before: [`process`] for every thread, the helper and its
//! commands; [`Thread::NoExec`] for threads that start no program; [`Thread::Packets`] for the packet
//! thread, which lists what it may call. [`sender`] has the first two and one of its own. Each refuses a call with an error and ends nothing: a
//! kernel or C library with new calls falls back to older ones, or one operation fails and is reported.

use std::fmt;
use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::reach::{self, Reach};
use super::users::User;

/// Why a right could not be given up.
#[derive(Debug)]
pub enum Error {
    /// A system call failed.
    Call(&'static str, io::Error),
    /// The kernel or the processor has no filters of system calls, or refuses this one.
    Filter(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Filter(why) => write!(f, "cannot restrict system calls: {why}"),
        }
    }
}

impl std::error::Error for Error {}

fn tried<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, Error> {
    result.map_err(|error| Error::Call(what, error.into()))
}

/// Restricts this process to the capability `NET_ADMIN`, with `binds` also `NET_BIND_SERVICE`, as
/// far as it has them, and none for the programs that it starts. With `user`, root becomes that user.
/// `groups` are its supplementary groups, where this process may set them.
///
/// Identity and capabilities belong to a thread: call it while there is only one.
///
/// # Errors
/// See [`Error`]; what was given up before stays given up.
pub fn process(user: Option<User>, groups: &[u32], binds: bool) -> Result<(), Error> {
    // Before Linux 6.4 rustix reads what the kernel told this process from /proc, which is closed to
    // it once it has changed its user.
    let _ = rustix::param::page_size();
    let had = tried("read the capabilities", capabilities(None))?;
    let mut kept = CapabilitySet::NET_ADMIN;
    if binds {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    kept &= had.permitted;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        // Programs that root starts get no capability by that. Without the bit for uid changes,
        // because ours below is to clear those that are not kept.
        let bits = tried("read the secure bits", capabilities_secure_bits())?;
        let none_by_root = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
        tried("set the secure bits", set_capabilities_secure_bits(bits | none_by_root))?;
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            // EINVAL: a number that this kernel does not have.
            if !kept.contains(one) && remove_capability_from_bounding_set(one).is_err() {
                break;
            }
        }
    }
    if had.effective.contains(CapabilitySet::SETGID) {
        let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        tried("set the groups", set_thread_groups(&groups))?;
    }
    if let Some(User { uid, gid }) = user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        tried("keep capabilities", set_keep_capabilities(true))?;
        tried("change the group", set_thread_res_gid(gid, gid, gid))?;
        tried("change the user", set_thread_res_uid(uid, uid, uid))?;
    }
    // A kernel without ambient capabilities has none to clear.
    let _ = clear_ambient_capability_set();
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // A service manager's filter may refuse the call where it has left nothing to give up.
    if let Err(error) = set_capabilities(None, sets)
        && !kept.contains(had.permitted)
    {
        return Err(Error::Call("give up capabilities", error.into()));
    }
    tried("set no_new_privs", set_no_new_privs(true))?;
    install(SeccompAction::Allow, refusals(PRIVILEGED, libc::EPERM))
}

/// Restricts a process that speaks with servers: no capability, no program that it starts, no file
/// that it changes. Root that may change its user becomes the daemon's. Call it while there is only one
/// thread.
///
/// # Errors
/// See [`Error`].
pub fn sender() -> Result<(), Error> {
    let had = tried("read the capabilities", capabilities(None))?;
    if had.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID)
        && let Some(User { uid, gid }) = super::users::find(super::users::DAEMON)
    {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        tried("set the groups", set_thread_groups(&[]))?;
        tried("change the group", set_thread_res_gid(gid, gid, gid))?;
        tried("change the user", set_thread_res_uid(uid, uid, uid))?;
    }
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    if let Err(error) = set_capabilities(None, sets)
        && !had.permitted.is_empty()
    {
        return Err(Error::Call("give up capabilities", error.into()));
    }
    tried("set no_new_privs", set_no_new_privs(true))?;
    // Without filters of system calls it goes on all the same.
    let filters = install(SeccompAction::Allow, refusals(PRIVILEGED, libc::EPERM))
        .and_then(|()| install(SeccompAction::Allow, changes_of_files()?));
    if let Err(error) = filters {
        log::debug!("a process keeps more rights than it needs: {error}");
    }
    no_exec(Reach::Servers);
    Ok(())
}

/// A thread, by what it has to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// It starts no program and signals no process.
    NoExec,
    /// It works with descriptors that are open: the packet thread, and threads that it starts. Others
    /// are opened by [`super::broker`].
    Packets,
}

/// Restricts the calling thread, and threads that it starts later.
///
/// # Errors
/// [`Error::Filter`]
pub fn thread(thread: Thread) -> Result<(), Error> {
    match thread {
        Thread::NoExec => {
            let mut rules = refusals(STARTING, libc::EPERM);
            rules.1.push((libc::SYS_socket, vec![other_families()?]));
            rules.1.push((libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Ne, own_pid())?]));
            install(SeccompAction::Allow, rules)
        }
        Thread::Packets => {
            let not_executable = |call| {
                let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
                Ok((call, vec![rule(2, SeccompCmpOp::MaskedEq(executable), 0)?]))
            };
            let name = u64::from(libc::PR_SET_NAME.unsigned_abs());
            let mut rules: Vec<_> = PACKETS.iter().map(|call| (*call, Vec::new())).collect();
            rules.extend([
                not_executable(libc::SYS_mmap)?,
                not_executable(libc::SYS_mprotect)?,
                (libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Eq, own_pid())?]),
                (libc::SYS_prctl, vec![rule(0, SeccompCmpOp::Eq, name)?]),
            ]);
            // ENOSYS, not EPERM: the C library then does without a call that is newer than this list.
            install(errno(libc::ENOSYS), (SeccompAction::Allow, rules))
        }
    }
}

/// [`Thread::NoExec`] for the calling thread, and what it reaches. Without filters of system calls it goes on
/// all the same.
pub(crate) fn no_exec(reach: Reach<'_>) {
    // Before the filter, so that it may list what threads do.
    reach::restrict(reach);
    if let Err(error) = thread(Thread::NoExec) {
        log::debug!("a thread keeps more rights than it needs: {error}");
    }
}

/// Calls for administrators, of all threads and programs.
const PRIVILEGED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
];

/// Calls that start programs or signal processes.
const STARTING: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];

/// Calls that change files by their names.
const CHANGING: &[libc::c_long] = &[
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    // The flags are in memory, which a filter cannot read.
    libc::SYS_openat2,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// Calls of the packet thread, whatever their arguments: its descriptors, time, memory, other
/// threads, and its own signals.
const PACKETS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What a filter does with these calls, and the calls; without rules, whatever their arguments.
type Rules = (SeccompAction, Vec<(libc::c_long, Vec<SeccompRule>)>);

fn errno(number: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn refusals(calls: &[libc::c_long], with: libc::c_int) -> Rules {
    (errno(with), calls.iter().map(|call| (*call, Vec::new())).collect())
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
        .map_err(|error| Error::Filter(error.to_string()))
}

fn rule(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    all(vec![condition(argument, op, value)?])
}

fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Error> {
    SeccompRule::new(conditions).map_err(|error| Error::Filter(error.to_string()))
}

/// socket(2) of a family that no part of the daemon uses.
fn other_families() -> Result<SeccompRule, Error> {
    let used = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let differs =
        |family: libc::c_int| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()));
    all(used.into_iter().map(differs).collect::<Result<_, _>>()?)
}

/// Calls that change files, and open(2) for writing.
fn changes_of_files() -> Result<Rules, Error> {
    let mut rules = refusals(CHANGING, libc::EPERM);
    let writes = |flags: u8| {
        let mode = SeccompCmpOp::MaskedEq(u64::from(libc::O_ACCMODE.unsigned_abs()));
        let each = [libc::O_WRONLY, libc::O_RDWR];
        each.map(|write| rule(flags, mode.clone(), u64::from(write.unsigned_abs())))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    rules.1.push((libc::SYS_openat, writes(2)?));
    #[cfg(target_arch = "x86_64")]
    rules.1.push((libc::SYS_open, writes(1)?));
    Ok(rules)
}

/// Installs a filter for the calling thread: `otherwise` for calls that no rule matches.
fn install(otherwise: SeccompAction, (matched, rules): Rules) -> Result<(), Error> {
    let failed = |error: &dyn fmt::Display| Error::Filter(error.to_string());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let filter = SeccompFilter::new(rules.into_iter().collect(), otherwise, matched, arch)
        .map_err(|error| failed(&error))?;
    let program: BpfProgram =
        filter.try_into().map_err(|error: seccompiler::BackendError| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}
