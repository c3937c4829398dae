//! What cannot be less where a child switches in memory of its own: two executions in place of one, a session of its own,
//! and a pipe that tells when the program runs. In bare calls, and nothing is checked.
//!
//! Whoever doubts that stead could do with less of it leaves a call out here, and measures.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use crate::floor::{Switch, program, wait_for};

/// Where the report is in the child.
const REPORT: c_int = 3;

// The program in between: setsid, setgroups, setresgid, setresuid, then execve of its own first argument with the rest.
// Whom it becomes lies behind it: uid, gid, number of groups, groups.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".globl stead_bench_bound, stead_bench_bound_end",
    ".hidden stead_bench_bound, stead_bench_bound_end",
    "stead_bench_bound:",
    "mov eax, 112",
    "syscall",
    "lea rbx, [rip + stead_bench_bound_end]",
    "mov edi, [rbx + 8]",
    "lea rsi, [rbx + 12]",
    "mov eax, 116",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov edi, [rbx + 4]",
    "mov esi, edi",
    "mov edx, edi",
    "mov eax, 119",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov edi, [rbx]",
    "mov esi, edi",
    "mov edx, edi",
    "mov eax, 117",
    "syscall",
    "test eax, eax",
    "jnz 9f",
    "mov rax, [rsp]",
    "lea rsi, [rsp + 16]",
    "mov rdi, [rsi]",
    "lea rdx, [rsi + rax * 8]",
    "mov eax, 59",
    "syscall",
    "9:",
    "mov edi, 126",
    "mov eax, 60",
    "syscall",
    "stead_bench_bound_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".balign 4",
    ".globl stead_bench_bound, stead_bench_bound_end",
    ".hidden stead_bench_bound, stead_bench_bound_end",
    "stead_bench_bound:",
    "mov x8, #157",
    "svc 0",
    "adr x19, stead_bench_bound_end",
    "ldr w0, [x19, #8]",
    "add x1, x19, #12",
    "mov x8, #159",
    "svc 0",
    "cbnz x0, 9f",
    "ldr w0, [x19, #4]",
    "mov w1, w0",
    "mov w2, w0",
    "mov x8, #149",
    "svc 0",
    "cbnz x0, 9f",
    "ldr w0, [x19]",
    "mov w1, w0",
    "mov w2, w0",
    "mov x8, #147",
    "svc 0",
    "cbnz x0, 9f",
    "ldr x3, [sp]",
    "add x1, sp, #16",
    "ldr x0, [x1]",
    "add x2, x1, x3, lsl #3",
    "mov x8, #221",
    "svc 0",
    "9:",
    "mov x0, #126",
    "mov x8, #93",
    "svc 0",
    "stead_bench_bound_end:",
    ".popsection",
);

unsafe extern "C" {
    safe static stead_bench_bound: u8;
    safe static stead_bench_bound_end: u8;
}

/// A program that is executed by way of the one in between.
pub(crate) struct Bound {
    /// Its name, then the program and its arguments.
    arguments: Vec<CString>,
    image: OwnedFd,
    null: File,
    stack: Vec<u8>,
}

impl Bound {
    /// # Errors
    ///
    /// A NUL in a word; no memfd that can be executed.
    pub(crate) fn new(
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
        switch: &Switch,
    ) -> io::Result<Self> {
        let (start, end) = (&raw const stead_bench_bound, &raw const stead_bench_bound_end);
        // SAFETY: both name places in one section, which the program above lies between.
        let code = unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) };
        let count = u32::try_from(switch.groups.len()).map_err(io::Error::other)?;
        let numbers = [switch.uid, switch.gid, count].into_iter().chain(switch.groups.iter().copied());
        let code: Vec<u8> = code.iter().copied().chain(numbers.flat_map(u32::to_ne_bytes)).collect();
        let mut arguments = vec![c"bound".to_owned()];
        for word in words {
            arguments.push(CString::new(word.as_ref().as_bytes())?);
        }
        // SAFETY: the name is a string that ends with NUL; a non-negative result is a descriptor that is ours alone.
        let memfd = unsafe {
            match libc::memfd_create(c"bound".as_ptr(), libc::MFD_CLOEXEC) {
                number if number < 0 => return Err(io::Error::last_os_error()),
                number => OwnedFd::from_raw_fd(number),
            }
        };
        let mut image = File::from(memfd);
        image.write_all(&program(&code))?;
        // Above the numbers that the child gives anew.
        // SAFETY: the call takes numbers only; a non-negative result is a descriptor that is ours alone.
        let image = unsafe {
            match libc::fcntl(image.as_raw_fd(), libc::F_DUPFD_CLOEXEC, REPORT + 1) {
                number if number < 0 => return Err(io::Error::last_os_error()),
                number => OwnedFd::from_raw_fd(number),
            }
        };
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Self { arguments, image, null, stack: vec![0; 64 * 1024] })
    }

    /// Creates the process, hears when the program runs, and waits for its end.
    ///
    /// # Errors
    ///
    /// What the calls say; a child that could not execute shows as exit status 126 or 127.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        extern "C" fn entry(view: *mut c_void) -> c_int {
            // SAFETY: the parent is suspended with the value that it passed.
            unsafe { (*view.cast_const().cast::<ChildsView>()).execute() }
        }
        let (mut report, theirs) = io::pipe()?;
        let arguments = self.arguments.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
        let view = ChildsView {
            arguments,
            image: self.image.as_raw_fd(),
            null: self.null.as_raw_fd(),
            report: theirs.as_raw_fd(),
        };
        let top = self.stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `top` ends a stack that outlives the child's use of it, for VFORK suspends this thread until the child
        // has executed or ended; the child only makes system calls.
        let pid = unsafe { libc::clone(entry, top.cast(), flags, (&raw const view).cast_mut().cast()) };
        drop(theirs);
        let told = if pid > 0 { report.read(&mut [0]) } else { Ok(0) };
        wait_for(pid)?;
        told.map(drop)
    }
}

/// What the child needs, prepared: it may not allocate.
struct ChildsView {
    arguments: Vec<*const c_char>,
    image: c_int,
    null: c_int,
    report: c_int,
}

impl ChildsView {
    fn execute(&self) -> ! {
        let environment: [*const c_char; 1] = [std::ptr::null()];
        // SAFETY: the calls take numbers, and arrays that end with null pointers, prepared by the parent; nothing of the
        // parent's memory is changed.
        unsafe {
            for stream in 0..3 {
                libc::dup2(self.null, stream);
            }
            // Last, for the null device may have its number.
            if self.report != REPORT {
                libc::dup3(self.report, REPORT, libc::O_CLOEXEC);
            }
            libc::syscall(
                libc::SYS_execveat,
                self.image,
                c"".as_ptr(),
                self.arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(127)
        }
    }
}
