//! The child between `clone` and the trampoline: it shares the server's memory, and does the least that
//! can be done there.
//!
//! It leaves the server's descriptor table, places its descriptors, hands on the server's capabilities
//! where the server is not root, and executes the trampoline. It allocates nothing, takes no lock, calls
//! no libc, and changes no credential but the inheritable and ambient capabilities of its own task.
//!
//! It runs on the creating thread's stack, as a child of `vfork` does: that thread is suspended until the
//! child executes or ends, and the child's frames lie below its own. A stack of its own would be an
//! allocation more and protect nothing, for all of the memory is shared.

use std::ffi::c_char;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use stead_trampoline::report::Step;
use stead_trampoline::syscall::{self, Capabilities, capabilities, errno, prctl, set_capabilities};
use stead_trampoline::system_call;

use super::low_slot::MOST_IN_ONE;

/// One descriptor of the child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    /// Its number now; -1 for one that is received through the slot.
    pub(super) source: i32,
    /// Its number in the process; -1 for one that the child itself needs: the image.
    pub(super) target: i32,
}

/// Everything that the child needs, laid out by its parent.
#[derive(Debug)]
pub(super) struct ChildStart {
    /// Descriptors below this number are taken along.
    pub(super) below: i32,
    /// Where the others are received from; -1 if there are none.
    pub(super) slot: i32,
    /// Where each descriptor goes. The last is the image.
    pub(super) moves: Vec<Move>,
    /// A number above all targets, out of the way of all of them.
    pub(super) above: i32,
    /// Capabilities to be made ambient; 0 where root's are kept over execve anyway.
    pub(super) raise: u64,
    /// The trampoline's arguments, null at the end.
    pub(super) argv: Vec<*const c_char>,
    /// The program's environment, null at the end.
    pub(super) envp: Vec<*const c_char>,
    /// What failed, written by the child: a [`Step`], or 0.
    pub(super) failed: u8,
    /// Its errno.
    pub(super) errno: i32,
}

/// What a child did not get done.
pub(super) type Failed = (Step, i32);

/// How `clone` failed, or that it succeeded.
#[derive(Debug)]
pub(super) struct Cloned {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

const CLONE_VM: u64 = 0x100;
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

/// `struct clone_args` in the size that has the cgroup (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Creates the child. Returns when it has executed the trampoline or ended.
pub(super) fn clone(start: &mut ChildStart, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    /// A seccomp filter that denies it once denies it always (Docker's default profile).
    static NO_CLONE3: AtomicBool = AtomicBool::new(false);
    if !NO_CLONE3.load(Ordering::Relaxed) {
        match clone3(start, cgroup) {
            // The old call cannot create a process inside a cgroup, and moving it later is not the same.
            Err(Errno::NOSYS) if cgroup.is_none() => NO_CLONE3.store(true, Ordering::Relaxed),
            outcome => return outcome,
        }
    } else if cgroup.is_some() {
        return Err(Errno::NOSYS);
    }
    clone_the_old_way(start)
}

fn clone3(start: &mut ChildStart, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: i32 = -1;
    let flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
    let mut arguments = CloneArguments {
        flags,
        pidfd: &raw mut pidfd as u64,
        exit_signal: SIGCHLD,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    let registers = [&raw const arguments as usize, size_of::<CloneArguments>(), 0, 0, 0];
    // SAFETY: the arguments describe a child as of vfork: see `enter`.
    let returned = unsafe { enter(syscall::number::CLONE3, registers, start) };
    created(returned, pidfd)
}

/// Without CLONE_CLEAR_SIGHAND the child has the server's handlers until it executes; no signal may reach
/// it in that time, for a handler would run in the server's memory. The trampoline unblocks them.
fn clone_the_old_way(start: &mut ChildStart) -> Result<Cloned, Errno> {
    const SIG_SETMASK: usize = 2;
    let mut pidfd: i32 = -1;
    let (all, mut before) = (u64::MAX, 0u64);
    let set = |new: *const u64, old: *mut u64| {
        // SAFETY: both are null or eight bytes, the kernel's signal set. Not libc's call, which leaves
        // its own signals unblocked.
        unsafe { system_call!(RT_SIGPROCMASK, SIG_SETMASK, new, old, 8) }
    };
    set(&raw const all, &raw mut before).map_err(Errno::from_raw_os_error)?;
    let flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_PIDFD | SIGCHLD;
    let flags = usize::try_from(flags).map_err(|_| Errno::INVAL)?;
    // The pidfd is written where the old call writes the parent's copy of the thread id.
    // SAFETY: the arguments describe a child as of vfork: see `enter`.
    let returned = unsafe { enter(syscall::number::CLONE, [flags, 0, &raw mut pidfd as usize, 0, 0], start) };
    set(&raw const before, std::ptr::null_mut()).map_err(Errno::from_raw_os_error)?;
    created(returned, pidfd)
}

fn created(returned: isize, pidfd: i32) -> Result<Cloned, Errno> {
    match i32::try_from(returned) {
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        Ok(negative) => Err(Errno::from_raw_os_error(-negative)),
        Err(_) => Err(Errno::INVAL),
    }
}

/// Makes the call and, in the child, enters [`child`], which never returns.
///
/// # Safety
///
/// The call creates a child that shares memory and stack and suspends the caller (CLONE_VM | CLONE_VFORK),
/// or none. `start` is valid and not used by others meanwhile.
#[inline(never)]
unsafe fn enter(number: usize, arguments: [usize; 5], start: *mut ChildStart) -> isize {
    let [first, second, third, fourth, fifth] = arguments;
    let returned: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the parent goes on behind the call with all registers but rax, rcx and r11 as they were.
    // The child uses the stack below the pointer only (without `nostack` nothing lives there), which is
    // aligned for a call, and does not return. It may write all memory, as the block declares.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp", // the outermost frame
            "mov rdi, {start}",
            "call {child}",
            "ud2",
            "2:",
            start = in(reg) start,
            child = sym child,
            inlateout("rax") number.cast_signed() => returned,
            in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") fifth,
            out("rcx") _, out("r11") _, // early: the call destroys them before `start` is read
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the parent goes on behind the call with all registers but x0 as they were; the rest as on
    // x86_64.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr", // the outermost frame
            "mov x0, {start}",
            "bl {child}",
            "brk #1",
            "2:",
            start = in(reg) start,
            child = sym child,
            in("x8") number,
            inlateout("x0") first.cast_signed() => returned,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth,
            out("x30") _,
        );
    }
    #[cfg(stead_asan)]
    forget_childs_frames();
    returned
}

/// The child has used the stack below this function and never came back: what the address sanitizer noted of its
/// frames is no longer true. What the sanitizer does itself behind vfork(2).
#[cfg(stead_asan)]
fn forget_childs_frames() {
    unsafe extern "C" {
        fn __asan_handle_vfork(stack: usize);
    }
    let stack: usize;
    // SAFETY: the stack pointer is read, and nothing changed.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mov {}, sp", out(reg) stack, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: the sanitizer's own function; below this stack pointer there is no frame that lives.
    unsafe { __asan_handle_vfork(stack) };
}

/// The child's life.
///
/// # Safety
///
/// As [`enter`].
unsafe extern "C" fn child(start: *mut ChildStart) -> ! {
    // SAFETY: the parent is suspended, so nobody else uses it.
    let start = unsafe { &mut *start };
    let (step, errno) = live(start);
    start.failed = step as u8;
    start.errno = errno;
    loop {
        // Not exit_group: no matter here, but the thread is all there is.
        // SAFETY: does not return.
        let _ = unsafe { system_call!(EXIT, 127) };
    }
}

/// Comes back only with what failed.
fn live(start: &mut ChildStart) -> Failed {
    const AT_EMPTY_PATH: usize = 0x1000;
    if let Err(errno) = place(start) {
        return (Step::Place, errno);
    }
    if start.raise != 0
        && let Err(errno) = raise(start.raise)
    {
        return (Step::Raise, errno);
    }
    let image = start.moves.last().map_or(-1, |last| last.source);
    // SAFETY: both arrays end with a null pointer and hold NUL-terminated strings.
    let outcome = unsafe {
        system_call!(EXECVEAT, image, c"".as_ptr(), start.argv.as_ptr(), start.envp.as_ptr(), AT_EMPTY_PATH)
    };
    (Step::Trampoline, outcome.err().unwrap_or(errno::ENOEXEC))
}

/// Gives every descriptor its number. The trampoline closes whatever else is there.
fn place(start: &mut ChildStart) -> syscall::Result<()> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    const F_SETFD: usize = 2;
    const CLOSE_RANGE_UNSHARE: usize = 2;
    // A table of our own, with only what is below: from here on the server's is out of reach.
    // SAFETY: closes nothing that this task will use.
    unsafe { system_call!(CLOSE_RANGE, start.below, u32::MAX, CLOSE_RANGE_UNSHARE) }?;
    if start.slot >= 0 {
        receive(start.slot, &mut start.moves)?;
    }
    // A source that has another's target for its number steps aside first; then no order can be wrong.
    for index in 0..start.moves.len() {
        let Some(&Move { source, target }) = start.moves.get(index) else { break };
        let in_the_way = source != target && start.moves.iter().any(|other| other.target == source);
        if in_the_way {
            // SAFETY: only this task's table changes.
            let aside = unsafe { system_call!(FCNTL, source, F_DUPFD_CLOEXEC, start.above) }?;
            if let Some(place) = start.moves.get_mut(index) {
                place.source = i32::try_from(aside).unwrap_or(-1);
            }
        }
    }
    for &Move { source, target } in &start.moves {
        if target < 0 {
            continue;
        }
        // SAFETY: only this task's table changes.
        let outcome = unsafe {
            if source == target {
                system_call!(FCNTL, source, F_SETFD, 0)
            } else {
                system_call!(DUP3, source, target, 0)
            }
        };
        outcome?;
    }
    Ok(())
}

/// Receives what the parent has sent, in the order of the moves that wait for it.
fn receive(slot: i32, moves: &mut [Move]) -> syscall::Result<()> {
    const CMSG_HEADER: usize = 16;
    const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;
    const MSG_DONTWAIT: usize = 0x40;
    let mut waiting = moves.iter_mut().filter(|one| one.source < 0);
    let mut next = waiting.next();
    while next.is_some() {
        let mut byte = 0u8;
        let mut vector = [&raw mut byte as usize, 1];
        let mut control = [0u64; (CMSG_HEADER + 4 * MOST_IN_ONE).div_ceil(8)];
        // `struct msghdr`: name, its length, vector, its length, control, its length, flags.
        let mut message =
            [0, 0, vector.as_mut_ptr() as usize, 1, control.as_mut_ptr() as usize, size_of_val(&control), 0];
        // SAFETY: the header points to room of the sizes that it says.
        let read =
            unsafe { system_call!(RECVMSG, slot, message.as_mut_ptr(), MSG_CMSG_CLOEXEC | MSG_DONTWAIT) }?;
        // One control message of SOL_SOCKET (1), SCM_RIGHTS (1): a length of 8 bytes, level, type, numbers.
        let length = usize::try_from(control[0]).unwrap_or(0);
        if read != 1 || control[1] != 1 | 1 << 32 || length <= CMSG_HEADER {
            return Err(errno::EBADMSG);
        }
        let numbers = (length - CMSG_HEADER) / 4;
        for index in 0..numbers {
            let Some(place) = next else { return Err(errno::EBADMSG) };
            let Some(word) = control.get(2 + index / 2) else { return Err(errno::EBADMSG) };
            // Two numbers in a word, the first in its lower half.
            let number = word >> (index % 2 * 32) & u64::from(u32::MAX);
            place.source = i32::try_from(number).map_err(|_| errno::EBADMSG)?;
            next = waiting.next();
        }
    }
    Ok(())
}

/// Makes capabilities survive the execution of the trampoline. This task's alone: credentials are not
/// shared with the memory, and what is permitted does not change, so neither does the dumpable flag.
fn raise(set: u64) -> syscall::Result<()> {
    let now = capabilities()?;
    set_capabilities(Capabilities { inheritable: now.inheritable | set, ..now })?;
    for capability in (0..64usize).filter(|capability| set >> capability & 1 != 0) {
        syscall::process_control(prctl::CAP_AMBIENT, prctl::CAP_AMBIENT_RAISE, capability)?;
    }
    Ok(())
}
