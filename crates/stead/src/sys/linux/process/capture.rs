//! What a process writes, from both of its pipes at once.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::process::{ChildStderr, ChildStdout};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Reads both pipes until their ends, whichever has something first.
///
/// The process may read its own output, too (a pipe of its own opens from `/proc/self/fd`), and take what poll has found:
/// waiting for more on that one, nobody would empty the other, which it waits for. The pipes' own ends here do not block.
pub(crate) fn read_both(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let mut pipes = [
        (stdout.map(|pipe| std::fs::File::from(OwnedFd::from(pipe))), Vec::new()),
        (stderr.map(|pipe| std::fs::File::from(OwnedFd::from(pipe))), Vec::new()),
    ];
    for file in pipes.iter().filter_map(|(pipe, _)| pipe.as_ref()) {
        let flags = rustix::fs::fcntl_getfl(file)?;
        rustix::fs::fcntl_setfl(file, flags | OFlags::NONBLOCK)?;
    }
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
            match file.read(&mut buffer) {
                Ok(0) => *pipe = None,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    /// More than a pipe holds.
    const MUCH: usize = 70_000;
    const ROUNDS: usize = 400;

    /// What a client's program does that takes back what it wrote, and then writes much of the other.
    fn take_back_and_go_on(mut stdout: std::io::PipeWriter, mut stderr: std::io::PipeWriter) {
        let path = format!("/proc/thread-self/fd/{}", stdout.as_raw_fd());
        let mut open = std::fs::File::options();
        open.read(true).custom_flags(libc::O_NONBLOCK);
        let mut back = open.open(path).unwrap();
        for round in 0..ROUNDS {
            stdout.write_all(b"x").unwrap();
            // Until the other has been told that there is something, and has not yet come to take it.
            let told = Instant::now() + Duration::from_micros(round as u64 % 40);
            while Instant::now() < told {}
            let _ = back.read(&mut [0; 2]);
            stderr.write_all(&vec![0; MUCH]).unwrap();
        }
    }

    #[test]
    fn who_takes_its_own_output_back_holds_nobody_up() {
        let (stdout, out) = std::io::pipe().unwrap();
        let (stderr, err) = std::io::pipe().unwrap();
        let (done, end) = mpsc::channel();
        let [stdout, stderr] = [stdout, stderr].map(OwnedFd::from);
        let same = [stdout.try_clone().unwrap(), stderr.try_clone().unwrap()];
        std::thread::spawn(move || {
            done.send(read_both(Some(ChildStdout::from(stdout)), Some(ChildStderr::from(stderr))).unwrap())
                .unwrap();
        });
        // Between its poll and its read is too short a time to be met: what it would do then is seen here.
        testbed::until("both ends do not block", || {
            same.iter().all(|end| rustix::fs::fcntl_getfl(end).unwrap().contains(OFlags::NONBLOCK))
        });
        std::thread::spawn(move || take_back_and_go_on(out, err));
        let (_, stderr) = end.recv_timeout(Duration::from_secs(30)).expect("it is held up");
        assert_eq!(stderr.len(), ROUNDS * MUCH);
    }
}
