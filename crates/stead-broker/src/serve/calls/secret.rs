//! Secrets, read from descriptors that a caller passes, and the conversation of a logon.
//!
//! A descriptor of a caller's may be anything, and reading it may then wait for ever (a file of its own file
//! system). Only a pipe without a name, a Unix stream socket and a memory file are read, none of which can, without waiting in the
//! kernel.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use stead::{Conversation, Prompt, Secret};
use stead_protocol::conversation::{Question, decode_answer};
use stead_protocol::{Failure, LONGEST_SECRET};
use zeroize::Zeroizing;

use crate::serve::failure::{invalid, system};
use crate::serve::given::look_at;

const READING: &str = "reading the secret";
/// A caller has the secret at hand when it calls.
const PATIENCE: Duration = Duration::from_secs(10);
/// A person who types has this long for each answer.
const TYPING: Duration = Duration::from_secs(120);

/// The secret that a descriptor holds.
pub(super) fn read(descriptor: BorrowedFd<'_>) -> Result<Secret, Failure> {
    let mut bytes = Zeroizing::new(vec![0; LONGEST_SECRET + 1]);
    let (kind, device) = type_of(descriptor).map_err(|error| system(READING, "statx", error))?;
    let length = match kind {
        // One with a name is a file system's, which is asked when it is opened (`fuse_permission`, fs/fuse/dir.c), and
        // need not answer.
        FileType::Fifo if device == pipes().map_err(|error| system(READING, "statx", error))? => {
            // A description of our own: whether it waits is ours to say, not the caller's.
            let path = format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let own = rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| system(READING, "open", errno))?;
            let mut own = File::from(own);
            read_to_end(descriptor, &mut bytes, |rest| own.read(rest))
        }
        FileType::Socket if is_stream(descriptor) => read_to_end(descriptor, &mut bytes, |rest| {
            let (_, length) = rustix::net::recv(descriptor, rest, RecvFlags::DONTWAIT)?;
            Ok(length)
        }),
        // Seals are what only memory files have.
        FileType::RegularFile if rustix::fs::fcntl_get_seals(descriptor).is_ok() => {
            let own = descriptor.try_clone_to_owned().map_err(|error| system(READING, "fcntl", error))?;
            File::from(own).read_at(&mut bytes, 0)
        }
        _ => {
            return Err(invalid(
                READING,
                "it is passed in a pipe without a name, a Unix stream socket or a memory file",
            ));
        }
    };
    let length = length.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => invalid(READING, "it did not come, or its end did not"),
        _ => system(READING, "read", error),
    })?;
    if length > LONGEST_SECRET {
        return Err(invalid(READING, format!("it is longer than {LONGEST_SECRET} bytes")));
    }
    bytes.truncate(length);
    Ok(Secret::from(bytes))
}

/// What it is, and on which device.
fn type_of(descriptor: BorrowedFd<'_>) -> io::Result<(FileType, (u32, u32))> {
    let found = look_at(descriptor, StatxFlags::TYPE)?;
    Ok((FileType::from_raw_mode(found.stx_mode.into()), (found.stx_dev_major, found.stx_dev_minor)))
}

/// Whether it is a Unix stream socket. Others may have an error for poll(2) that no read takes away (`IP_RECVERR` in
/// ip(7)): waiting for them would never wait.
fn is_stream(socket: BorrowedFd<'_>) -> bool {
    let kind = rustix::net::sockopt::socket_type(socket);
    let family = rustix::net::sockopt::socket_domain(socket);
    (kind, family) == (Ok(SocketType::STREAM), Ok(AddressFamily::UNIX))
}

/// The kernel's own file system of pipes without names.
fn pipes() -> io::Result<(u32, u32)> {
    let (reader, _writer) = io::pipe()?;
    Ok(type_of(reader.as_fd())?.1)
}

fn read_to_end(
    descriptor: BorrowedFd<'_>,
    bytes: &mut [u8],
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let until = Instant::now() + PATIENCE;
    let mut length = 0;
    while length < bytes.len() {
        match read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(descriptor, PollFlags::IN, until)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Waits until there may be something; not again where the time is up, whatever poll(2) says.
fn wait(descriptor: BorrowedFd<'_>, what: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, what)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The conversation of a logon, over a socket of the caller's.
pub(super) struct Talk(OwnedFd);

impl Talk {
    pub(super) fn over(socket: OwnedFd) -> Result<Self, Failure> {
        const DOING: &str = "preparing the conversation of a logon";
        let wrong = || invalid(DOING, "it takes a connected Unix stream socket");
        if type_of(socket.as_fd()).map_err(|error| system(DOING, "statx", error))?.0 != FileType::Socket {
            return Err(wrong());
        }
        if is_stream(socket.as_fd()) { Ok(Self(socket)) } else { Err(wrong()) }
    }

    fn say(&self, question: &Question) -> io::Result<()> {
        let message = question.encode();
        let until = Instant::now() + PATIENCE;
        let mut sent = 0;
        while sent < message.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.0, &message[sent..], flags) {
                Ok(length) => sent += length,
                Err(Errno::AGAIN) => wait(self.0.as_fd(), PollFlags::OUT, until)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn hear(&self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let until = Instant::now() + TYPING;
        // Never grown, so that no copy is left behind.
        let mut bytes = Zeroizing::new(vec![0; LONGEST_SECRET + 2]);
        let mut length = 0;
        loop {
            if let Some(answer) = decode_answer(&bytes[..length]) {
                return Ok(answer);
            }
            match rustix::net::recv(&self.0, &mut bytes[length..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, more)) => length += more,
                Err(Errno::AGAIN) => wait(self.0.as_fd(), PollFlags::IN, until)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Conversation for Talk {
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret> {
        let question = Question::Prompt { text: prompt.text().to_owned(), echo: prompt.echo() };
        self.say(&question).ok()?;
        let answer = self.hear().ok()??;
        Some(Secret::from(answer))
    }

    fn inform(&mut self, text: &str, is_error: bool) {
        // Nobody who wants to know is a reason not to log on.
        let _ = self.say(&Question::Inform { text: text.to_owned(), error: is_error });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_secret_is_read_from_a_pipe_a_socket_and_a_memory_file() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"tell no one").unwrap();
        drop(writer);
        assert!(read(reader.as_fd()).is_ok());

        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"tell no one").unwrap();
        drop(writer);
        assert!(read(reader.as_fd()).is_ok());

        let file = rustix::fs::memfd_create("secret", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(file.try_clone().unwrap()).write_all(b"tell no one").unwrap();
        assert!(read(file.as_fd()).is_ok());
    }

    #[test]
    fn a_file_that_could_keep_its_reader_waiting_is_not_read() {
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(read(program.as_fd()).is_err());
        assert!(read(File::open("/dev/zero").unwrap().as_fd()).is_err());
    }

    /// One with an error queued for it has an error for ever, of which no read tells (`IP_RECVERR`).
    #[test]
    fn a_socket_that_could_keep_its_reader_busy_is_not_read() {
        let began = Instant::now();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(read(datagram.as_fd()).is_err());
        let (packets, _other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        assert!(read(packets.as_fd()).is_err());
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn nothing_is_waited_for_again_when_the_time_is_up_whatever_poll_says() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let error = wait(reader.as_fd(), PollFlags::IN, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_fifo_of_somebodys_file_system_is_not_opened() {
        let folder = std::env::temp_dir().join(format!("stead-secret-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut fifo = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        fifo.write_all(b"tell no one").unwrap();
        let began = Instant::now();
        assert!(read(fifo.as_fd()).is_err());
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn a_secret_without_an_end_is_refused() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(&[b'x'; LONGEST_SECRET + 1]).unwrap();
        assert!(read(reader.as_fd()).is_err());
    }
}
