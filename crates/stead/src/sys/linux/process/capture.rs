//! What a process writes, from both of its pipes at once.
#![forbid(unsafe_code)]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{ChildStderr, ChildStdout};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Reads both pipes until their ends, whichever has something first.
pub(crate) fn read_both(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let mut pipes = [
        (stdout.map(|pipe| std::fs::File::from(OwnedFd::from(pipe))), Vec::new()),
        (stderr.map(|pipe| std::fs::File::from(OwnedFd::from(pipe))), Vec::new()),
    ];
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut fds: Vec<PollFd<'_>> =
            pipes.iter().filter_map(|(pipe, _)| Some(PollFd::new(pipe.as_ref()?, PollFlags::IN))).collect();
        if fds.is_empty() {
            let [(_, stdout), (_, stderr)] = pipes;
            return Ok((stdout, stderr));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        for (pipe, read) in &mut pipes {
            let Some(file) = pipe else { continue };
            if ready.next() != Some(true) {
                continue;
            }
            // Does not block: poll found something, and nobody else reads.
            match file.read(&mut buffer) {
                Ok(0) => *pipe = None,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
    }
}
