//! The floor: clone(VM|VFORK) and execve, no change of identity, nothing checked; and the smallest program there is.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::path::Path;

/// Creates a process by the fewest calls there are, and waits for its end.
///
/// # Errors
///
/// What clone or waitpid say; a failed execve shows as exit status 127.
pub(crate) fn spawn_and_wait(program: &CStr, stack: &mut [u8]) -> io::Result<()> {
    extern "C" fn child(program: *mut c_void) -> c_int {
        let program = program.cast::<c_char>().cast_const();
        let argv = [program, std::ptr::null()];
        let envp = [std::ptr::null()];
        // SAFETY: the pointers are to NUL-terminated strings and NULL-terminated arrays of the suspended parent.
        unsafe {
            libc::execve(program, argv.as_ptr(), envp.as_ptr());
            libc::_exit(127)
        }
    }
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `top` ends a stack that outlives the child's use of it, for VFORK suspends this thread
    // until the child has executed or ended; the child calls only execve and _exit.
    let pid = unsafe { libc::clone(child, top.cast(), flags, program.as_ptr().cast_mut().cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result; the child is ours and not yet reaped.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("wait status {status:#x}"))) }
}

/// Writes a static program that only exits: an ELF header, one segment, and the exit call.
///
/// # Errors
///
/// What writing the file says.
pub(crate) fn write_tiny(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;

    #[cfg(target_arch = "x86_64")]
    let (machine, code): (u16, &[u8]) = (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    let (machine, code): (u16, &[u8]) = (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]);

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
    std::fs::write(path, elf)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
