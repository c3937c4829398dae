//! What others do, in the fewest calls there are: the floors, and `fork` as a C program would use it.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The user that a child becomes.
#[derive(Debug, Clone)]
pub(crate) struct Switch {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

impl Switch {
    /// Switches the calling process, as a child between fork and exec: no memory is allocated.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn apply(&self) -> io::Result<()> {
        if self.by(WRAPPED) { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn by(&self, (set_groups, set_gid, set_uid): Changes) -> bool {
        set_groups(&self.groups) && set_gid(self.gid) && set_uid(self.uid)
    }
}

/// A program as execve takes it, with null for its standard streams.
pub(crate) struct Execution {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    switch: Option<Switch>,
    null: File,
    stack: Vec<u8>,
}

impl Execution {
    /// # Errors
    ///
    /// A NUL in a word; no /dev/null.
    pub(crate) fn new(
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: &[String],
        switch: Option<Switch>,
    ) -> io::Result<Self> {
        let word = |word: &OsStr| CString::new(word.as_bytes()).map_err(io::Error::from);
        Ok(Self {
            arguments: words.into_iter().map(|each| word(each.as_ref())).collect::<io::Result<_>>()?,
            environment: environment.iter().map(|each| word(each.as_ref())).collect::<io::Result<_>>()?,
            switch,
            null: File::options().read(true).write(true).open("/dev/null")?,
            stack: vec![0; 64 * 1024],
        })
    }

    fn child(&self) -> ChildsView {
        let pointers = |words: &[CString]| {
            words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        ChildsView {
            arguments: pointers(&self.arguments),
            environment: pointers(&self.environment),
            switch: self.switch.clone(),
            null: self.null.as_raw_fd(),
        }
    }

    /// clone(VM|VFORK), the switch in raw calls, execve; waits for the end. Nobody should do it like this: the client
    /// can stop and trace the child while it shares the server's memory.
    ///
    /// # Errors
    ///
    /// What clone and waitpid say; a child that could not execute shows as exit status 127.
    pub(crate) fn vfork(&mut self) -> io::Result<()> {
        extern "C" fn entry(view: *mut c_void) -> c_int {
            // SAFETY: the parent is suspended with the value that it passed.
            unsafe { (*view.cast_const().cast::<ChildsView>()).execute(RAW) }
        }
        let view = self.child();
        let top = self.stack.as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: `top` ends a stack that outlives the child's use of it, for VFORK suspends this thread until the child
        // has executed or ended; the child only makes system calls.
        let pid = unsafe { libc::clone(entry, top.cast(), flags, (&raw const view).cast_mut().cast()) };
        wait_for(pid)
    }

    /// fork, setgroups, setgid, setuid, execve: what every C program does.
    ///
    /// # Errors
    ///
    /// As [`vfork`](Self::vfork).
    pub(crate) fn fork(&self) -> io::Result<()> {
        let view = self.child();
        // SAFETY: the child calls only what is async-signal-safe.
        match unsafe { libc::fork() } {
            0 => view.execute(WRAPPED),
            pid => wait_for(pid),
        }
    }

    /// posix_spawn, which cannot switch.
    ///
    /// # Errors
    ///
    /// What posix_spawn and waitpid say.
    pub(crate) fn posix_spawn(&self) -> io::Result<()> {
        let view = self.child();
        let checked = |error: c_int| match error {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        };
        let mut pid = 0;
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: the actions are initialised by the first call, and destroyed once; the arrays end with null pointers,
        // and they and their strings live on in `view` and `self`.
        let spawned = unsafe {
            checked(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            for stream in 0..3 {
                libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), view.null, stream);
            }
            let spawned = libc::posix_spawn(
                &raw mut pid,
                view.arguments[0],
                actions.as_ptr(),
                std::ptr::null(),
                view.arguments.as_ptr().cast(),
                view.environment.as_ptr().cast(),
            );
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            spawned
        };
        checked(spawned)?;
        wait_for(pid)
    }
}

/// What the child needs, prepared: it may not allocate.
struct ChildsView {
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    switch: Option<Switch>,
    null: c_int,
}

/// How the child changes its ids.
type Changes = (fn(&[u32]) -> bool, fn(u32) -> bool, fn(u32) -> bool);

/// By bare system calls, for a child that shares its parent's memory: libc's wrappers would switch all threads of the
/// parent.
const RAW: Changes = (
    // SAFETY: the kernel reads as many groups as the slice has.
    |groups| unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0 },
    // SAFETY: the call takes no pointers.
    |gid| unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0 },
    // SAFETY: the call takes no pointers.
    |uid| unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0 },
);

/// By libc, as in C.
const WRAPPED: Changes = (
    // SAFETY: the kernel reads as many groups as the slice has.
    |groups| unsafe { libc::setgroups(groups.len(), groups.as_ptr()) == 0 },
    // SAFETY: the call takes no pointers.
    |gid| unsafe { libc::setgid(gid) == 0 },
    // SAFETY: the call takes no pointers.
    |uid| unsafe { libc::setuid(uid) == 0 },
);

impl ChildsView {
    fn execute(&self, changes: Changes) -> ! {
        // SAFETY: the calls take numbers, and arrays that end with null pointers, prepared by the parent; nothing of the
        // parent's memory is changed.
        unsafe {
            for stream in 0..3 {
                libc::dup2(self.null, stream);
            }
            if self.switch.as_ref().is_some_and(|switch| !switch.by(changes)) {
                libc::_exit(126)
            }
            libc::execve(self.arguments[0], self.arguments.as_ptr(), self.environment.as_ptr());
            libc::_exit(127)
        }
    }
}

/// Reaps the child, which must end well; a negative number stands for the error of the call that should have made it.
pub(crate) fn wait_for(pid: c_int) -> io::Result<()> {
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result; the child is ours and not yet reaped.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    match status {
        0 => Ok(()),
        _ if libc::WIFEXITED(status) => {
            Err(io::Error::other(format!("it ended with {}", libc::WEXITSTATUS(status))))
        }
        _ => Err(io::Error::other(format!("wait status {status:#x}"))),
    }
}
/// Writes a static program that only exits: an ELF header, one segment, and the exit call.
///
/// # Errors
///
/// What writing the file says.
pub(crate) fn write_tiny(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    #[cfg(target_arch = "x86_64")]
    let code: &[u8] = &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    #[cfg(target_arch = "aarch64")]
    let code: &[u8] = &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4];
    std::fs::write(path, program(code))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// A static program: an ELF header, one segment, and the code, whose beginning is executed.
pub(crate) fn program(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;

    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::new();
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    elf.extend_from_slice(&machine.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes());
    elf.extend_from_slice(&(BASE + HEADERS).to_le_bytes()); // entry
    elf.extend_from_slice(&64u64.to_le_bytes()); // program headers
    elf.extend_from_slice(&0u64.to_le_bytes()); // no section headers
    elf.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    elf.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
    elf.extend_from_slice(&5u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend_from_slice(&u64::to_le_bytes(word));
    }
    elf.extend_from_slice(code);
    elf
}
