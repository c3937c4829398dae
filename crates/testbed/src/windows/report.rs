//! What `winprobe` says of its own process.

use super::Seen;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::ptr;
use windows_sys::Win32::Foundation::{GetHandleInformation, LocalFree};
use windows_sys::Win32::System::Environment::GetCommandLineW;
use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryW};
use windows_sys::Win32::UI::Shell::CommandLineToArgvW;

/// A process, as it and the system see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WinProbe {
    /// The user's SID.
    pub user: String,
    /// The groups' SIDs.
    pub groups: Vec<String>,
    /// The logon SID.
    pub logon: Option<String>,
    /// The command line as it came.
    pub command_line: String,
    /// The arguments as Rust's std reads them.
    pub std_arguments: Vec<String>,
    /// The arguments as CommandLineToArgvW reads them.
    pub shell_arguments: Vec<String>,
    /// The arguments as the C runtime reads them for `wmain`.
    pub crt_arguments: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The directory.
    pub directory: PathBuf,
    /// The window station and the desktop, as `station\desktop`, where the process has them.
    pub desktop: Option<String>,
    /// Of the handle values asked about with `--handles`, those that are open here.
    pub open_handles: Vec<usize>,
}

impl WinProbe {
    /// Of this process.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn own(handles: &[usize]) -> io::Result<Self> {
        let Seen { user, groups, logon } = Seen::own()?;
        let (command_line, shell_arguments) = shell_arguments()?;
        Ok(Self {
            user,
            groups,
            logon,
            command_line,
            std_arguments: std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect(),
            shell_arguments,
            crt_arguments: crt_arguments()?,
            environment: std::env::vars_os()
                .map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
                })
                .collect(),
            directory: std::env::current_dir()?,
            desktop: super::stage::own().ok(),
            open_handles: handles.iter().copied().filter(|&handle| is_open(handle)).collect(),
        })
    }

    /// What a `winprobe` wrote.
    pub fn parse(output: &[u8]) -> Self {
        serde_json::from_slice(output)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(output)))
    }
}

/// Where a program of the testbed lies: beside the directory of the test programs.
pub fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name}.exe is not built: cargo build -p testbed"))
}

/// A program in C, whose `wmain` writes its arguments: each unit in four hexadecimal digits, each argument on a line.
/// `None` where nobody has compiled it.
pub fn c_program() -> Option<PathBuf> {
    find("crtmain")
}

fn find(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("the system knows this program's path");
    let name = format!("{name}.exe");
    own.ancestors().map(|directory| directory.join(&name)).find(|path| path.exists())
}

fn is_open(handle: usize) -> bool {
    let mut flags = 0;
    // SAFETY: any value may be asked about.
    unsafe { GetHandleInformation(ptr::with_exposed_provenance_mut(handle), &raw mut flags) != 0 }
}

fn shell_arguments() -> io::Result<(String, Vec<String>)> {
    let mut count = 0;
    // SAFETY: the command line lives as long as the process; the list is freed once.
    unsafe {
        let line = GetCommandLineW();
        let list = CommandLineToArgvW(line, &raw mut count);
        if list.is_null() {
            return Err(io::Error::last_os_error());
        }
        let arguments = texts(list, count);
        LocalFree(list.cast());
        Ok((text(line), arguments))
    }
}

/// The C runtime's reading, from the one that every Windows and Wine has.
fn crt_arguments() -> io::Result<Vec<String>> {
    type WGetMainArgs =
        unsafe extern "C" fn(*mut i32, *mut *mut *mut u16, *mut *mut *mut u16, i32, *mut i32) -> i32;
    let name: Vec<u16> = "msvcrt.dll\0".encode_utf16().collect();
    let (mut count, mut list, mut variables, mut mode) = (0, ptr::null_mut(), ptr::null_mut(), 0);
    // SAFETY: the function of that name has this type; what it gives lives as long as the process.
    unsafe {
        let found = GetProcAddress(LoadLibraryW(name.as_ptr()), c"__wgetmainargs".as_ptr().cast())
            .ok_or_else(io::Error::last_os_error)?;
        let get: WGetMainArgs = std::mem::transmute(found);
        get(&raw mut count, &raw mut list, &raw mut variables, 0, &raw mut mode);
        Ok(texts(list, count))
    }
}

/// # Safety
///
/// `list` must hold `count` texts that end with a zero.
unsafe fn texts(list: *const *mut u16, count: i32) -> Vec<String> {
    // SAFETY: the caller's.
    (0..count.unsigned_abs() as usize).map(|index| unsafe { text(*list.add(index)) }).collect()
}

/// # Safety
///
/// `text` must end with a zero.
pub(super) unsafe fn text(text: *const u16) -> String {
    // SAFETY: the caller's.
    unsafe {
        let mut length = 0;
        while *text.add(length) != 0 {
            length += 1;
        }
        String::from_utf16_lossy(std::slice::from_raw_parts(text, length))
    }
}
