//! CreateProcessAsUserW: one call, and what it takes.
//!
//! Reference: [CreateProcessAsUserW](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-createprocessasuserw),
//! [UpdateProcThreadAttribute](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-updateprocthreadattribute).

use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::ptr::{null, null_mut};

use super::options::Console;
use windows_sys::Win32::System::Threading::{
    CREATE_DEFAULT_ERROR_MODE, CREATE_NEW_CONSOLE, CREATE_NO_WINDOW, CREATE_SUSPENDED,
    CREATE_UNICODE_ENVIRONMENT, CreateProcessAsUserW, DeleteProcThreadAttributeList,
    EXTENDED_STARTUPINFO_PRESENT, InitializeProcThreadAttributeList, LPPROC_THREAD_ATTRIBUTE_LIST,
    PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROC_THREAD_ATTRIBUTE_JOB_LIST, PROCESS_INFORMATION,
    STARTF_USESHOWWINDOW, STARTF_USESTDHANDLES, STARTUPINFOEXW, UpdateProcThreadAttribute,
};

/// `SW_HIDE` (winuser.h).
const SW_HIDE: u16 = 0;

/// Everything that the call takes; strings end with NUL.
pub(super) struct Creation<'a> {
    pub(super) token: BorrowedHandle<'a>,
    pub(super) application: &'a [u16],
    pub(super) command_line: Vec<u16>,
    pub(super) environment: &'a [u16],
    pub(super) directory: &'a [u16],
    /// Inheritable handles: the standard streams first, and nothing that the process shall not have.
    pub(super) handles: &'a [OwnedHandle],
    /// Whether the first three are the standard streams; otherwise those are its console's.
    pub(super) streams: bool,
    /// The window station and desktop; empty, not null, for none: null would be the server's own.
    pub(super) desktop: Vec<u16>,
    pub(super) console: Console,
    /// The outermost first.
    pub(super) jobs: &'a [RawHandle],
    pub(super) priority: u32,
}

/// A process that has not run yet.
pub(super) struct Created {
    pub(super) process: OwnedHandle,
    pub(super) thread: OwnedHandle,
    pub(super) id: u32,
}

/// A list of two attributes, in memory that stays where it is.
struct Attributes(Vec<usize>);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut size = 0;
        // SAFETY: asked for the size alone, which is what null means; it fails by design.
        unsafe { InitializeProcThreadAttributeList(null_mut(), 2, 0, &raw mut size) };
        let mut list = vec![0_usize; size.div_ceil(size_of::<usize>())];
        // SAFETY: the buffer is as long as the system asked for, and aligned for pointers.
        if unsafe { InitializeProcThreadAttributeList(list.as_mut_ptr().cast(), 2, 0, &raw mut size) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(list))
    }

    fn as_ptr(&mut self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.0.as_mut_ptr().cast()
    }

    /// `value` stays where it is until the list is dropped.
    fn set(&mut self, attribute: u32, value: &[RawHandle]) -> io::Result<()> {
        // SAFETY: the list is initialised; the value is as long as is said, and the caller keeps it for as long
        // as the list.
        let done = unsafe {
            UpdateProcThreadAttribute(
                self.as_ptr(),
                0,
                attribute as usize,
                value.as_ptr().cast(),
                size_of_val(value),
                null_mut(),
                null(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the list was initialised.
        unsafe { DeleteProcThreadAttributeList(self.as_ptr()) };
    }
}

/// Creates the process suspended, in its job, with exactly these handles.
///
/// The calling thread has the client's identity, by which the system opens the program and the directory; the
/// privileges that it takes are those of the process.
pub(super) fn create(mut what: Creation<'_>) -> io::Result<Created> {
    let handles: Vec<RawHandle> = what.handles.iter().map(AsRawHandle::as_raw_handle).collect();
    let mut startup = STARTUPINFOEXW::default();
    startup.StartupInfo.cb = u32::try_from(size_of::<STARTUPINFOEXW>()).unwrap_or(0);
    startup.StartupInfo.lpDesktop = what.desktop.as_mut_ptr();
    if what.streams {
        let [stdin, stdout, stderr, ..] = handles[..] else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process has three standard streams"));
        };
        startup.StartupInfo.dwFlags |= STARTF_USESTDHANDLES;
        startup.StartupInfo.hStdInput = stdin;
        startup.StartupInfo.hStdOutput = stdout;
        startup.StartupInfo.hStdError = stderr;
    }
    // Never the server's console: whoever holds it can write the server's input.
    let console = match what.console {
        Console::NoWindow => CREATE_NO_WINDOW,
        Console::New => CREATE_NEW_CONSOLE,
        Console::Hidden => {
            startup.StartupInfo.dwFlags |= STARTF_USESHOWWINDOW;
            startup.StartupInfo.wShowWindow = SW_HIDE;
            CREATE_NEW_CONSOLE
        }
    };
    let mut attributes = Attributes::new()?;
    // An empty list would inherit everything (Wine), or be refused (Windows): then nothing is inherited.
    let inherit = !handles.is_empty();
    if inherit {
        attributes.set(PROC_THREAD_ATTRIBUTE_HANDLE_LIST, &handles)?;
    }
    attributes.set(PROC_THREAD_ATTRIBUTE_JOB_LIST, what.jobs)?;
    startup.lpAttributeList = attributes.as_ptr();
    let mut made = PROCESS_INFORMATION::default();
    // Nor the server's error mode.
    let flags = EXTENDED_STARTUPINFO_PRESENT
        | CREATE_UNICODE_ENVIRONMENT
        | CREATE_SUSPENDED
        | CREATE_DEFAULT_ERROR_MODE
        | console
        | what.priority;
    // SAFETY: every string ends with NUL (the environment with two) and outlives the call, the command line is
    // writable; the attribute list, and what it points to, outlive it too; cb and the flags say that the
    // startup structure is the extended one; handles are borrowed and so open.
    let done = unsafe {
        CreateProcessAsUserW(
            what.token.as_raw_handle(),
            what.application.as_ptr(),
            what.command_line.as_mut_ptr(),
            null(),
            null(),
            i32::from(inherit),
            flags,
            what.environment.as_ptr().cast(),
            what.directory.as_ptr(),
            (&raw const startup).cast(),
            &raw mut made,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that both handles are new and nobody else's.
    let (process, thread) =
        unsafe { (OwnedHandle::from_raw_handle(made.hProcess), OwnedHandle::from_raw_handle(made.hThread)) };
    Ok(Created { process, thread, id: made.dwProcessId })
}
