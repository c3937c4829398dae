//! What the command has of a terminal itself, for a program on one of its own: where what is typed comes from, and what is
//! shown goes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr};
use stead::PtySize;

/// What the command itself has of a terminal, or in its place.
pub struct Ours {
    /// Where what is typed comes from, if from anywhere.
    pub keys: Option<File>,
    /// Where what is shown goes.
    pub screen: File,
    /// The modes of `keys`, if it is a terminal.
    terminal: Option<Termios>,
    /// Others write to it, too: whom the program's output leads to.
    shared: bool,
    /// Its modes, where we have changed them.
    raw: Option<Termios>,
}

impl Ours {
    pub fn find([stdin, stdout, stderr]: [bool; 3]) -> io::Result<Self> {
        let keys = if stdin {
            Some(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            // Where the program's /dev/tty leads to, through the command.
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
            rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()
        };
        let screen = match &keys {
            _ if stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Some(keys) if !stderr => keys.try_clone()?,
            _ => io::stderr().as_fd().try_clone_to_owned()?,
        };
        let terminal = keys.as_ref().and_then(|keys| tcgetattr(keys).ok());
        Ok(Self {
            keys: keys.map(File::from),
            screen: File::from(unblocked(screen)),
            terminal,
            shared: !stdout,
            raw: None,
        })
    }

    /// Those that the program's terminal begins with: of one that is not read, too; not those that who is in front of it
    /// has set for itself, as a shell does while it asks.
    pub fn first_modes(&self) -> Option<Termios> {
        if !self.in_front() {
            return None;
        }
        self.terminal.clone().or_else(|| tcgetattr(&self.screen).ok())
    }

    /// Whether what comes from there was typed by somebody.
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Whether it is ours to read.
    pub fn is_read(&self) -> bool {
        self.raw.is_some() || !self.is_terminal()
    }

    /// The terminal that is read.
    fn terminal(&self) -> Option<(&File, &Termios)> {
        self.keys.as_ref().zip(self.terminal.as_ref())
    }

    /// That of whichever stream is a terminal.
    pub fn size() -> PtySize {
        fn of(stream: impl AsFd) -> Option<Winsize> {
            rustix::termios::tcgetwinsize(stream).ok()
        }
        let found = of(io::stdin()).or_else(|| of(io::stdout())).or_else(|| of(io::stderr()));
        found.filter(|size| size.ws_row > 0 && size.ws_col > 0).map_or_else(PtySize::default, |size| {
            PtySize {
                rows: size.ws_row,
                columns: size.ws_col,
                pixel_width: size.ws_xpixel,
                pixel_height: size.ws_ypixel,
            }
        })
    }

    /// Whether we are the ones whom what is typed is for.
    fn in_front(&self) -> bool {
        let Some((terminal, _)) = self.terminal() else { return true };
        // Not our controlling terminal: then nobody else's keys can be meant either.
        rustix::termios::tcgetpgrp(terminal).map_or(true, |group| group == rustix::process::getpgrp())
    }

    /// Every key goes to the program, Ctrl-C too. Only in front: in the background this would stop us.
    pub fn make_raw(&mut self) {
        if self.raw.is_some() || !self.in_front() {
            return;
        }
        // What they are now is what they shall be again: others may have used it before us, or while we were stopped.
        if let Some(keys) = self.keys.as_ref().filter(|_| self.terminal.is_some())
            && let Ok(now) = tcgetattr(keys)
        {
            let mut raw = now.clone();
            raw.make_raw();
            if self.shared {
                // Lines of theirs still begin at the margin.
                raw.output_modes = now.output_modes;
            }
            if tcsetattr(keys, OptionalActions::Drain, &raw).is_ok() {
                self.raw = Some(raw);
            }
            self.terminal = Some(now);
        }
    }

    /// As it was before us; unless somebody else has changed it since, and will have left it in order.
    pub fn restore(&mut self) {
        if let (Some(raw), Some((terminal, modes))) = (self.raw.take(), self.terminal()) {
            let same = |now: Termios| {
                (now.input_modes, now.output_modes, now.local_modes)
                    == (raw.input_modes, raw.output_modes, raw.local_modes)
            };
            if !self.shared || tcgetattr(terminal).is_ok_and(same) {
                let _ = tcsetattr(terminal, OptionalActions::Drain, modes);
            }
        }
    }
}

/// A hold of our own on a pipe or a terminal, where it can be had: a write there waits for nobody. The caller's is shared with
/// others, who rely on how it is.
fn unblocked(screen: OwnedFd) -> OwnedFd {
    let kind = fstat(&screen).map(|status| FileType::from_raw_mode(status.st_mode));
    if !matches!(kind, Ok(FileType::Fifo | FileType::CharacterDevice)) {
        return screen;
    }
    let path = format!("/proc/self/fd/{}", screen.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap_or(screen)
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.restore();
    }
}
