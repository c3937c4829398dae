//! Where the standard streams of a new process lead.
#![forbid(unsafe_code)]

use std::fs::File;
use std::process::{ChildStderr, ChildStdin, ChildStdout};

/// Where a standard stream of a new process leads.
///
/// The default is [`Stdio::null`] for all three, never the server's own streams. A file, a stream of another
/// child, or on Unix anything that is an `OwnedFd`, such as the client's own connection, is given by its value.
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> Result<(), Box<dyn std::error::Error>> {
/// use stead::{Command, Stdio};
/// let log = std::fs::File::create("/var/log/portal/report.log")?;
/// let child = Command::new("report").stdin(Stdio::piped()).stdout(log).spawn_as(&token)?;
/// # Ok(()) }
/// ```
#[doc(alias = "STARTUPINFO")]
#[doc(alias = "STARTF_USESTDHANDLES")]
#[doc(alias = "hStdInput")]
#[doc(alias = "hStdOutput")]
#[doc(alias = "hStdError")]
#[derive(Debug)]
pub struct Stdio(pub(crate) Stream);

/// What a [`Stdio`] is.
#[derive(Debug)]
pub(crate) enum Stream {
    Null,
    Piped,
    Inherit,
    Given(File),
    /// The server's end of a pipe, which programs do not expect: a thread carries it over.
    #[cfg(windows)]
    Joined(File),
}

impl Stdio {
    /// Reads find the end, what is written is thrown away.
    #[doc(alias = "NUL")]
    pub fn null() -> Self {
        Self(Stream::Null)
    }

    /// A new pipe to the server: the field of the same name in [`Child`](crate::Child).
    #[doc(alias = "CreatePipe")]
    pub fn piped() -> Self {
        Self(Stream::Piped)
    }

    /// The server's own stream of the same number.
    ///
    /// The process has a session of its own, so that a terminal inherited in this way cannot be fed input
    /// (TIOCSTI). It can be read and written all the same: for a terminal take
    /// [`Command::pty`](crate::Command::pty).
    #[doc(alias = "GetStdHandle")]
    pub fn inherit() -> Self {
        Self(Stream::Inherit)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        Self(Stream::Given(file))
    }
}

impl From<crate::sys::OwnedObject> for Stdio {
    fn from(object: crate::sys::OwnedObject) -> Self {
        Self(Stream::Given(object.into()))
    }
}

macro_rules! from_child_stream {
    ($($stream:ident)*) => {$(
        impl From<$stream> for Stdio {
            /// Joins two processes, as a shell's `|` does; on Windows a thread of the server's carries what the one
            /// writes to the other.
            fn from(stream: $stream) -> Self {
                let end = crate::sys::OwnedObject::from(stream).into();
                #[cfg(windows)]
                return Self(Stream::Joined(end));
                #[cfg(not(windows))]
                Self(Stream::Given(end))
            }
        }
    )*};
}

from_child_stream! { ChildStdin ChildStdout ChildStderr }

/// The size of a terminal, in characters and, where it is known, in pixels.
#[doc(alias = "COORD")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg(unix)]
pub struct PtySize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Width in pixels, or 0.
    pub pixel_width: u16,
    /// Height in pixels, or 0.
    pub pixel_height: u16,
}

#[cfg(unix)]
impl Default for PtySize {
    /// The classic terminal: 24 lines of 80 characters.
    fn default() -> Self {
        Self { rows: 24, columns: 80, pixel_width: 0, pixel_height: 0 }
    }
}

/// The server's end of a process's terminal.
///
/// What is written to it the process reads, and the other way round; a read returns 0 when nobody has the
/// terminal open any more. Dropping it hangs the terminal up: the processes on it get SIGHUP.
///
/// Reference: [pty(7)](https://man7.org/linux/man-pages/man7/pty.7.html),
/// [CreatePseudoConsole](https://learn.microsoft.com/windows/console/createpseudoconsole).
///
/// ```no_run
/// # fn example(token: stead::Token<stead::Primary>) -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::{Read, Write};
/// use stead::{Command, PtySize};
/// let mut child = Command::new("sh").env("TERM", "xterm-256color").pty(PtySize::default()).spawn_as(&token)?;
/// let mut terminal = child.pty.take().expect("the command asked for one");
/// terminal.write_all(b"stty size; exit\n")?;
/// let mut shown = String::new();
/// terminal.read_to_string(&mut shown)?;
/// child.wait()?;
/// # Ok(()) }
/// ```
#[doc(alias = "HPCON")]
#[doc(alias = "ClosePseudoConsole")]
#[derive(Debug)]
#[cfg(unix)]
pub struct Pty(pub(crate) File);

#[cfg(unix)]
impl Pty {
    /// Tells the programs on the terminal its new size.
    ///
    /// # Errors
    /// `System`, when the kernel refuses.
    #[doc(alias = "ResizePseudoConsole")]
    pub fn resize(&self, size: PtySize) -> crate::Result<()> {
        crate::sys::process::pty::resize(&self.0, size)
    }

    /// A second hold on the same terminal, for a thread that reads while another writes.
    ///
    /// # Errors
    /// When the server has no descriptor left.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

#[cfg(unix)]
impl std::io::Read for Pty {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self).read(buffer)
    }
}

#[cfg(unix)]
impl std::io::Read for &Pty {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match (&self.0).read(buffer) {
            // What Linux says when the last holder of the slave has closed it.
            Err(error) if crate::sys::process::pty::is_hung_up(&error) => Ok(0),
            result => result,
        }
    }
}

#[cfg(unix)]
impl std::io::Write for Pty {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl std::io::Write for &Pty {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Pty {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(unix)]
impl From<Pty> for std::os::fd::OwnedFd {
    fn from(pty: Pty) -> Self {
        pty.0.into()
    }
}
