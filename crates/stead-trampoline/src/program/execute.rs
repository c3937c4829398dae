//! Finding and executing the program as the client, and finding out why it could not be.

use core::convert::Infallible;

use crate::file::{self, AT_FDCWD};
use crate::report::{Step, why};
use crate::syscall::{self, errno};
use crate::wire::flag;
use crate::{At, Failure, Spec, Vector};

const AT_EMPTY_PATH: usize = 0x1000;
const X_OK: usize = 1;
const AT_EACCESS: usize = 0x200;

/// Refuses to pin a script: its interpreter would be handed a path, and open another file.
pub fn refuse_script(descriptor: u32) -> Result<(), Failure> {
    let mut start = [0u8; 2];
    let read = match read_at_start(descriptor, &mut start) {
        // A descriptor opened with O_PATH only names the file.
        Err(errno::EBADF) => through_proc(descriptor, &mut start),
        other => other,
    };
    match read {
        Ok(2) if start == *b"#!" => Err(errno::ENOEXEC).at(Step::Execute, why::PINNED_SCRIPT),
        Ok(_) => Ok(()),
        Err(errno::EISDIR) => Err(errno::EISDIR).at(Step::Execute, why::DIRECTORY),
        Err(errno) => Err(errno).at(Step::Execute, why::UNKNOWN),
    }
}

fn read_at_start(descriptor: u32, room: &mut [u8]) -> syscall::Result {
    // SAFETY: room for the bytes asked for.
    unsafe { system_call!(PREAD64, descriptor, room.as_mut_ptr(), room.len(), 0) }
}

fn through_proc(descriptor: u32, room: &mut [u8]) -> syscall::Result {
    let mut path = *b"/proc/self/fd/0000000000\0";
    let mut digits = [0u8; 24];
    let digits = file::decimal(i64::from(descriptor), &mut digits);
    for (place, digit) in path.iter_mut().skip(b"/proc/self/fd/".len()).zip(digits.iter().chain(b"\0")) {
        *place = *digit;
    }
    let path = core::ffi::CStr::from_bytes_until_nul(&path).map_err(|_| errno::EINVAL)?;
    let opened = file::open(path, file::LOOK)?;
    let outcome = read_at_start(opened, room);
    file::close(opened);
    outcome
}

/// Executes the program; comes back only with the reason why that failed.
pub fn execute(argv: Vector, spec: &Spec, environment: *const *const u8) -> Failure {
    let arguments = argv.from(spec.program);
    let (errno, detail) = if spec.header.flags & flag::DESCRIPTOR != 0 {
        let descriptor = spec.header.descriptor;
        // SAFETY: both arrays end with a null pointer and hold NUL-terminated strings.
        let outcome = unsafe {
            system_call!(EXECVEAT, descriptor, c"".as_ptr(), arguments, environment, AT_EMPTY_PATH)
        };
        let file = File { directory: descriptor as usize, path: c"".as_ptr().cast(), flags: AT_EMPTY_PATH };
        outcome.map_or_else(|errno| (errno, explain(file, errno)), |_| (0, 0))
    } else {
        search(argv, spec, arguments, environment)
    };
    Failure { step: Step::Execute, errno, detail }
}

/// As execvpe(3) does, except that nothing is ever handed to a shell.
fn search(
    argv: Vector,
    spec: &Spec,
    arguments: *const *const u8,
    environment: *const *const u8,
) -> (i32, u32) {
    let mut denied = None;
    for index in spec.candidates..spec.program {
        let path = argv.pointer(index);
        // SAFETY: all of them are NUL-terminated strings, or arrays of such that end with a null pointer.
        let outcome: syscall::Result<Infallible> =
            match unsafe { system_call!(EXECVE, path, arguments, environment) } {
                Ok(_) => continue, // it does not return
                Err(errno) => Err(errno),
            };
        let Err(errno) = outcome;
        match errno {
            // Perhaps a later one can be executed; if not, this is what is told.
            errno::EACCES => denied = denied.or(Some(path)),
            errno::ENOENT | errno::ENOTDIR | errno::ESTALE | errno::ENODEV | errno::ETIMEDOUT => {}
            other => return (other, explain(File::at(path), other)),
        }
    }
    if let Some(path) = denied {
        return (errno::EACCES, explain(File::at(path), errno::EACCES));
    }
    // It may be there all the same, and only its interpreter missing.
    for index in spec.candidates..spec.program {
        let file = File::at(argv.pointer(index));
        if file.kind().is_ok() {
            return (errno::ENOENT, why::INTERPRETER_MISSING);
        }
    }
    (errno::ENOENT, why::NOT_FOUND)
}

/// A file by path or by descriptor.
#[derive(Clone, Copy)]
struct File {
    directory: usize,
    path: *const u8,
    flags: usize,
}

impl File {
    fn at(path: *const u8) -> Self {
        Self { directory: AT_FDCWD, path, flags: 0 }
    }

    /// The file type bits of its mode.
    fn kind(self) -> syscall::Result<u16> {
        const STATX_TYPE: usize = 1;
        const MODE: usize = 28; // offset of stx_mode in `struct statx`
        let mut room = [0u64; 32];
        // SAFETY: 256 bytes are the size of `struct statx`.
        unsafe { system_call!(STATX, self.directory, self.path, self.flags, STATX_TYPE, room.as_mut_ptr()) }?;
        // SAFETY: inside the structure; the kernel wrote it.
        let mode = unsafe { room.as_ptr().cast::<u8>().add(MODE).cast::<u16>().read() };
        Ok(mode & 0o170_000)
    }

    /// Whether the client may execute it; a file system without execution says no.
    fn executable(self) -> syscall::Result {
        // SAFETY: NUL-terminated.
        unsafe { system_call!(FACCESSAT2, self.directory, self.path, X_OK, self.flags | AT_EACCESS) }
    }
}

impl File {
    fn is_script(self) -> bool {
        let mut start = [0u8; 2];
        // SAFETY: NUL-terminated.
        let Ok(opened) = (unsafe { system_call!(OPENAT, self.directory, self.path, file::LOOK, 0) }) else {
            return false;
        };
        let read = read_at_start(opened as u32, &mut start);
        file::close(opened as u32);
        read == Ok(2) && start == *b"#!"
    }
}

/// Why execve said so.
fn explain(file: File, errno: i32) -> u32 {
    match errno {
        errno::E2BIG => why::TOO_LONG,
        errno::EAGAIN => why::PROCESS_LIMIT,
        errno::ETXTBSY => why::BUSY,
        errno::ENOEXEC | errno::EINVAL => why::BAD_FORMAT,
        errno::ELIBBAD => why::INTERPRETER_DENIED,
        errno::ENOENT => why::INTERPRETER_MISSING,
        errno::EACCES | errno::EISDIR => match file.kind() {
            Ok(0o040_000) => why::DIRECTORY,
            Ok(0o100_000) if file.executable().is_err() => why::NOT_PERMITTED,
            // The file itself could be executed. Where it is no script that the client may read, a
            // security module is the likelier reason.
            Ok(0o100_000) if file.is_script() => why::INTERPRETER_DENIED,
            Ok(0o100_000) => why::NOT_PERMITTED,
            Ok(_) => why::NOT_REGULAR,
            Err(_) => why::NOT_PERMITTED,
        },
        _ => why::UNKNOWN,
    }
}
