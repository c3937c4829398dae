//! The standard streams of a new process.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::process::{ChildStdin, ChildStdout};
use std::ptr::null;

use windows_sys::Win32::Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Security::{IsTokenRestricted, TOKEN_QUERY};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, PIPE_ACCESS_INBOUND, PIPE_ACCESS_OUTBOUND,
    SECURITY_ANONYMOUS,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, PIPE_READMODE_BYTE, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PIPE_WAIT,
};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use crate::process::Stream;
use crate::sys::dacl::{Ace, Attributes, Dacl, Descriptor, PIPE_CLIENT};
use crate::sys::thread_token::{process, user};
use crate::sys::wide::wide;

const BUFFER: u32 = 64 << 10;

/// FILE_GENERIC_READ with FILE_WRITE_ATTRIBUTES, and FILE_GENERIC_WRITE with FILE_READ_ATTRIBUTES, as CreatePipe's; but
/// without FILE_APPEND_DATA, which on a pipe is the right to be its server.
const READER: u32 = 0x0012_0189;
const WRITER: u32 = 0x0012_0192;

/// Our end, where there is one, and the process's; `number` as of the C library.
pub(super) fn open(stream: &Stream, number: u32) -> io::Result<(Option<OwnedHandle>, OwnedHandle)> {
    let reads = number == 0;
    match stream {
        Stream::Null => {
            let null = OpenOptions::new().read(reads).write(!reads).open(r"\\.\NUL")?;
            Ok((None, null.into()))
        }
        Stream::Piped => pipe(reads).map(|(ours, theirs)| (Some(ours), theirs)),
        Stream::Inherit => {
            let own = match number {
                0 => io::stdin().as_handle().try_clone_to_owned(),
                1 => io::stdout().as_handle().try_clone_to_owned(),
                _ => io::stderr().as_handle().try_clone_to_owned(),
            };
            Ok((None, own?))
        }
        Stream::Given(file) => Ok((None, file.as_handle().try_clone_to_owned()?)),
        Stream::Joined(end) => joined(end.as_handle().try_clone_to_owned()?, reads).map(|end| (None, end)),
    }
}

/// A pipe's end for the process, between which and the server's end of another a thread carries what is written, until
/// either ends. That end itself overlaps, by which reads of programs that expect none go wrong, and whoever has it can
/// impersonate who is at its other one.
fn joined(end: OwnedHandle, process_reads: bool) -> io::Result<OwnedHandle> {
    let (ours, theirs) = pipe(process_reads)?;
    let (from, to) = if process_reads { (end, ours) } else { (ours, end) };
    let carry = move || io::copy(&mut ChildStdout::from(from), &mut ChildStdin::from(to));
    std::thread::Builder::new().name("stead-join".into()).spawn(carry)?;
    Ok(theirs)
}

/// Our end can overlap, which is what std's and tokio's types of it take; the process's end cannot, for programs do
/// not expect it. It is opened so that the process cannot be impersonated by it, nor we.
///
/// Reference: [CreateNamedPipeW](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-createnamedpipew).
fn pipe(process_reads: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    let attributes = own_list()?;
    let raw_attributes = attributes.as_ref().map(Attributes::raw);
    let random = || RandomState::new().build_hasher().finish();
    let name = format!(r"\\.\pipe\stead-stdio-{}-{:016x}{:016x}", std::process::id(), random(), random());
    let wide = wide(&name).expect("digits and letters");
    let direction = if process_reads { PIPE_ACCESS_OUTBOUND } else { PIPE_ACCESS_INBOUND };
    // SAFETY: the name ends with NUL; the attributes point into a value that outlives the call, and make no handle
    // inheritable. There is only this one instance: whoever else opened it would make our own opening below fail.
    let raw = unsafe {
        CreateNamedPipeW(
            wide.as_ptr(),
            direction | FILE_FLAG_FIRST_PIPE_INSTANCE | FILE_FLAG_OVERLAPPED,
            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
            1,
            BUFFER,
            BUFFER,
            0,
            raw_attributes.as_ref().map_or(null(), std::ptr::from_ref),
        )
    };
    if raw == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    let ours = unsafe { OwnedHandle::from_raw_handle(raw) };
    let theirs = OpenOptions::new()
        .access_mode(if process_reads { READER } else { WRITER })
        .security_qos_flags(SECURITY_ANONYMOUS)
        .open(&name)?;
    Ok((ours, theirs.into()))
}

/// The pipe is the server's alone, both ends of it: the list of the server's token would also let others in, to read.
/// A server that is restricted gets nothing by its user alone, and keeps its token's.
fn own_list() -> io::Result<Option<Attributes>> {
    let token = process(TOKEN_QUERY)?;
    // SAFETY: the handle is open, and the call only reads the token.
    if unsafe { IsTokenRestricted(token.as_raw_handle()) } != 0 {
        return Ok(None);
    }
    let own = user(token.as_handle())?;
    let dacl = Some(Dacl::new([Ace::allow(own, PIPE_CLIENT)]));
    Descriptor { owner: Some(own), dacl }.to_attributes().map(Some)
}

/// A duplicate that a new process can inherit.
///
/// From here until it is closed, every process that other code of the server creates with inheritance and without
/// a handle list gets it too (`std::process::Command` does): it is made last and closed at once.
pub(super) fn inheritable(handle: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: the pseudo-handle is this process's; the other is borrowed and so open; `raw` is written only by
    // this call.
    let done = unsafe {
        DuplicateHandle(
            GetCurrentProcess(),
            handle.as_raw_handle(),
            GetCurrentProcess(),
            &raw mut raw,
            0,
            1,
            DUPLICATE_SAME_ACCESS,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::client::require_server_end;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn who_is_joined_to_another_process_has_no_end_of_the_servers() {
        let (read_by_us, mut written) = pipe(false).map(|(ours, theirs)| (ours, File::from(theirs))).unwrap();
        let (written_by_us, mut read) = pipe(true).map(|(ours, theirs)| (ours, File::from(theirs))).unwrap();
        require_server_end(read_by_us.as_handle()).unwrap();
        let open = |end: OwnedHandle, number| open(&Stream::Joined(end.into()), number).unwrap().1;
        let (stdin, stdout) = (open(read_by_us, 0), open(written_by_us, 1));
        for end in [&stdin, &stdout] {
            assert!(require_server_end(end.as_handle()).is_err());
        }
        let words = vec![7; 200_000];
        for (writer, reader) in [(&mut written, &mut File::from(stdin)), (&mut File::from(stdout), &mut read)]
        {
            std::thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&words).unwrap());
                let mut all = vec![0; words.len()];
                reader.read_exact(&mut all).unwrap();
                assert_eq!(all, words);
            });
        }
    }

    #[test]
    fn the_end_goes_through_to_who_is_joined() {
        let (ours, theirs) = pipe(false).unwrap();
        let stdin = open(&Stream::Joined(ours.into()), 0).unwrap().1;
        let mut writer = File::from(theirs);
        writer.write_all(b"today").unwrap();
        drop(writer);
        let mut all = Vec::new();
        File::from(stdin).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"today");
    }
}
