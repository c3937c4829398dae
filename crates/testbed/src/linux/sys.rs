//! The few calls that rustix does not have. All of the testbed's unsafe code but the programs' entry points.

#![allow(unsafe_code)]

use std::ffi::CStr;

/// `linux/prctl.h`
const PR_SET_IO_FLUSHER: libc::c_int = 57;
pub(crate) const PR_GET_IO_FLUSHER: libc::c_int = 58;

/// A `prctl` that only reads; -1 where the kernel does not know it.
pub(crate) fn prctl_get(option: libc::c_int) -> i32 {
    // SAFETY: the PR_GET_* options used here take no pointer; the kernel ignores or refuses the zero arguments.
    unsafe { libc::prctl(option, 0_u64, 0_u64, 0_u64, 0_u64) }
}

/// This process has its memory merged with others' that is the same, is ended early where memory fails, and takes from the
/// kernel's reserves of memory: as far as the kernel has that, and lets it.
pub fn take_odd_attributes() {
    let none = 0_u64;
    // SAFETY: these options take numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_MEMORY_MERGE, 1_u64, none, none, none);
        libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, libc::PR_MCE_KILL_EARLY, none, none);
        libc::prctl(PR_SET_IO_FLUSHER, 1_u64, none, none, none);
    }
}

/// The signal that this process gets when its parent ends.
pub(crate) fn parent_death_signal() -> i32 {
    let mut signal: libc::c_int = 0;
    // SAFETY: PR_GET_PDEATHSIG writes one int at the address, which is that of a live int.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// The execution domain.
pub(crate) fn personality() -> u32 {
    // SAFETY: 0xffffffff only asks (personality(2)); no pointer is passed.
    unsafe { libc::personality(0xffff_ffff) }.cast_unsigned()
}

/// Memory policy mode of the calling thread, -1 where the kernel has none.
pub(crate) fn memory_policy() -> i32 {
    let mut mode: libc::c_int = -1;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: get_mempolicy writes one int at `mode`; with a null mask and no flags it touches nothing else.
    unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, none, 0_u64, none, 0_u64) };
    mode
}

/// I/O priority of a process, 0 for the caller; -1 where it cannot be asked.
pub(crate) fn io_priority(pid: i32) -> i32 {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_get takes two numbers.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid) };
    i32::try_from(value).unwrap_or(-1)
}

/// Of an ordinary thread, with nothing chosen.
const SCHEDULING: libc::sched_attr = libc::sched_attr {
    size: 48, // SCHED_ATTR_SIZE_VER0, which every kernel takes
    sched_policy: 0,
    sched_flags: 0,
    sched_nice: 0,
    sched_priority: 0,
    sched_runtime: 0,
    sched_deadline: 0,
    sched_period: 0,
};

fn take_scheduling(new: libc::sched_attr) -> std::io::Result<()> {
    // SAFETY: `size` bytes are readable.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const new, 0) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// How long an ordinary thread has a processor for at a time, in nanoseconds; 0 where the kernel does not tell (before
/// Linux 6.12).
pub(crate) fn slice(pid: i32) -> u64 {
    let mut found = SCHEDULING;
    // SAFETY: room for `size` bytes.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut found, found.size, 0) };
    if done == 0 && found.sched_policy == 0 { found.sched_runtime } else { 0 }
}

/// The calling thread chooses for how long it has a processor at a time, in nanoseconds. Before Linux 6.12 that has no
/// effect.
///
/// # Errors
///
/// What the kernel says.
pub fn take_slice(nanoseconds: u64) -> std::io::Result<()> {
    take_scheduling(libc::sched_attr { sched_runtime: nanoseconds, ..SCHEDULING })
}

/// The calling thread has the policy `SCHED_DEADLINE`, a tenth of a processor, from now on.
///
/// # Errors
///
/// What the kernel says; it takes CAP_SYS_NICE, and no cpuset.
pub fn take_deadlines() -> std::io::Result<()> {
    const SCHED_DEADLINE: u32 = 6;
    let (runtime, period) = (1_000_000, 10_000_000);
    take_scheduling(libc::sched_attr {
        sched_policy: SCHED_DEADLINE,
        sched_runtime: runtime,
        sched_deadline: period,
        sched_period: period,
        ..SCHEDULING
    })
}

/// Serial number and description of the session keyring; `None` where there is none, or keyctl is denied.
pub(crate) fn session_keyring() -> Option<(i32, String)> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEYCTL_DESCRIBE: libc::c_int = 6;
    const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;
    // SAFETY: KEYCTL_GET_KEYRING_ID takes two numbers; 0 means that none is to be made.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
    let id = i32::try_from(id).ok().filter(|id| *id > 0)?;
    let mut buffer = [0_u8; 512];
    // SAFETY: KEYCTL_DESCRIBE writes at most the given length into the buffer, which is that long.
    let length =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, id, buffer.as_mut_ptr(), buffer.len()) };
    if length <= 0 {
        return Some((id, String::new()));
    }
    let text = CStr::from_bytes_until_nul(&buffer).map(|text| text.to_string_lossy().into_owned());
    Some((id, text.unwrap_or_default()))
}

/// Takes over a descriptor that the program which started this one left open for it.
pub(crate) fn inherited(number: std::os::fd::RawFd) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the number was passed together with the descriptor for this process to own; nothing else in it knows
    // the number, and it is taken once, before anything is opened.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(number) }
}

/// Leaves namespaces for fresh ones. What is shared otherwise (descriptors, memory) stays shared.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> std::io::Result<()> {
    // SAFETY: rustix asks that CLONE_FILES is not among the flags, which would break the ownership of descriptors:
    // only `with_descriptors_of_its_own` passes it, on a thread that ends with what it opened.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Gives every signal its default disposition and empties the mask, as a service manager does; the two that glibc
/// keeps to itself (32, 33) too, which a parent written without glibc may have left ignored.
pub(crate) fn default_signals() {
    // struct kernel_sigaction: handler, flags, restorer, mask; SIG_DFL and nothing else. 8 bytes of mask.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    for signal in 1..=64_i32 {
        // SAFETY: rt_sigaction reads one kernel_sigaction, 32 bytes at most on x86-64 and aarch64, which `default`
        // holds, and writes nothing as the old one is not asked for. SIGKILL and SIGSTOP are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8_usize) };
    }
    let empty = 0_u64;
    // SAFETY: rt_sigprocmask reads 8 bytes at `empty`.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, none, 8_usize) };
}

/// Lets the program begin with every signal at its default. Without, glibc's `posix_spawn`, which std prefers to
/// `fork`, leaves the signals 32 and 33 ignored in every program it starts.
pub(crate) fn with_default_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only async-signal-safe code may run: `default_signals` makes system calls and
    // nothing else, no allocation and no lock.
    unsafe {
        command.pre_exec(|| {
            default_signals();
            Ok(())
        })
    }
}

/// Keeps what this process inherited besides its standard streams from the programs that it starts.
pub(crate) fn keep_descriptors_to_oneself() {
    // SAFETY: close_range takes three numbers; with CLOSE_RANGE_CLOEXEC it closes nothing in this process.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Whether this kernel gives a pidfd of who is at the other end of a Unix socket (Linux 6.5).
pub(crate) fn has_peer_pidfd() -> bool {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    const SO_PEERPIDFD: libc::c_int = 77;
    let Ok((socket, _other)) = std::os::unix::net::UnixStream::pair() else { return false };
    let mut pidfd: libc::c_int = -1;
    let mut length = 4;
    let (at, size) = ((&raw mut pidfd).cast(), &raw mut length);
    // SAFETY: the kernel writes no more than the four bytes of `pidfd`, and `length`, both of which live until it returns.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, at, size) };
    if result == 0 && pidfd >= 0 {
        // SAFETY: the kernel made the descriptor for this call, and nobody else knows of it.
        drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
    }
    result == 0
}

/// Puts a seccomp filter on the calling thread.
pub(crate) fn install_seccomp(program: &[libc::sock_filter]) -> std::io::Result<()> {
    let Ok(len) = u16::try_from(program.len()) else { return Err(std::io::ErrorKind::InvalidInput.into()) };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: PR_SET_SECCOMP reads the program, which lives until the call returns, and copies it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Puts a seccomp filter on a program that is to be started, with no_new_privs only where it must be.
pub(crate) fn before_exec_with_seccomp(
    command: &mut std::process::Command,
    program: Vec<libc::sock_filter>,
) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only async-signal-safe code may run: prctl alone, on memory made before the fork,
    // and `last_os_error`, which only reads errno.
    unsafe { command.pre_exec(move || install_seccomp(&program)) }
}

/// The signals that end a program from outside.
fn ending_signals() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is a valid one, and sigemptyset and sigaddset only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Keeps the signals that would end this process pending. std gives the programs it starts an empty mask again.
pub(crate) fn block_ending_signals() -> std::io::Result<()> {
    let set = ending_signals();
    // SAFETY: reads one sigset_t, and does not ask for the old one.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(error)) }
}

/// Waits for one of those signals, at most this long.
pub(crate) fn wait_for_ending_signal(at_most: std::time::Duration) -> Option<i32> {
    let set = ending_signals();
    // SAFETY: an all-zero timespec is a valid one; its fields differ in width between platforms.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    time.tv_sec = at_most.as_secs().try_into().unwrap_or(0);
    time.tv_nsec = at_most.subsec_nanos().into();
    // SAFETY: reads one sigset_t and one timespec, and does not ask for details of the signal.
    let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
    (signal > 0).then_some(signal)
}

/// Ends this thread and not the process: if it is the first, what is left of it stays until the others have ended.
pub fn end_this_thread() -> ! {
    loop {
        // SAFETY: exit(2) takes a number and does not return; no other thread has a reference into this one's stack.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Makes the parent of this process the tracer of the calling thread.
pub(crate) fn be_traced() -> std::io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_TRACEME looks at none of its other arguments.
    told(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) })
}

/// Traces a thread of another process from now on.
pub(crate) fn trace(thread: i32) -> std::io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE takes a number, and options as one, here none.
    told(unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) })
}

/// Lets any process of the user trace this one where the Yama module would only let its parents.
pub(crate) fn let_all_trace() {
    // SAFETY: takes two numbers; fails where there is no Yama.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
}

/// A copy of this process, which has one thread: true in the copy.
pub(crate) fn copied(sibling: bool) -> std::io::Result<bool> {
    let flags = if sibling { libc::CLONE_PARENT } else { 0 } | libc::SIGCHLD;
    // SAFETY: as fork(2): a copy of the memory, on the same stack address. The copy only makes system calls and ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid < 0 { Err(std::io::Error::last_os_error()) } else { Ok(pid == 0) }
}

fn told(result: libc::c_long) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
