//! A program on a terminal of its own, between which and the command's the command carries what is typed and shown.
//!
//! No process of another user ever holds the command's own terminal: it could read what is typed there later, and write
//! what the terminal obeys (CVE-2016-2779 and its kin).

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, Winsize, tcgetattr, tcsetattr,
};
use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH};
use stead::os::linux::{ChildExt, CommandExt, Signal};
use stead::{Child, Command, Primary, Pty, PtySize, Stdio, Token};

use super::signals::{self, Signals};
use crate::ending::{Ending, Failure};

/// What is carried at once.
const PIECE: usize = 16 << 10;

/// After something was typed or shown the program may stop (Ctrl-Z): that is looked for again and again, soon after
/// and then less often. Nothing tells who is not the parent of a process that it has stopped.
const SOONEST: Duration = Duration::from_millis(4);
const LATEST: Duration = Duration::from_secs(1);

/// How long a program that was told to go on may still look stopped: it has to be given its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs it, and waits for its end.
pub fn run(command: &mut Command, token: &Token<Primary>, signals: &Signals) -> Result<Ending, Failure> {
    let mut ours = Ours::find();
    command.pty(Ours::size()).job_control(true);
    // Suspended until its terminal has the modes of ours.
    command.suspended(true);
    if !io::stderr().is_terminal() {
        command.stderr(Stdio::inherit());
    }
    signals.hold();
    let mut child = super::spawn(command, token)?;
    let pty = child.pty.take().ok_or_else(|| super::failed("there is no terminal for the program"))?;
    if let Some(modes) = ours.modes() {
        let _ = tcsetattr(&pty, OptionalActions::Now, modes);
    }
    rustix::fs::fcntl_setfl(&pty, OFlags::RDWR | OFlags::NONBLOCK)
        .map_err(|errno| super::failed(format_args!("using the program's terminal: {errno}")))?;
    // Before the program can show anything: what is typed from now on is for it.
    ours.make_raw();
    child.resume().map_err(super::not_started)?;
    Carrier {
        child,
        pty,
        ours,
        signals,
        typed: Vec::new(),
        shown: Vec::new(),
        input: true,
        look: Look::default(),
    }
    .run()
}

/// The command's own terminal, if it has one.
struct Ours {
    terminal: Option<(File, Termios)>,
    raw: bool,
}

impl Ours {
    fn find() -> Self {
        let stdin = io::stdin();
        let open = || {
            let modes = tcgetattr(&stdin).ok()?;
            Some((File::from(stdin.as_fd().try_clone_to_owned().ok()?), modes))
        };
        Self { terminal: open(), raw: false }
    }

    fn modes(&self) -> Option<&Termios> {
        self.terminal.as_ref().map(|(_, modes)| modes)
    }

    /// That of whichever stream is a terminal.
    fn size() -> PtySize {
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
        let Some((terminal, _)) = &self.terminal else { return true };
        // Not our controlling terminal: then nobody else's keys can be meant either.
        rustix::termios::tcgetpgrp(terminal).map_or(true, |group| group == rustix::process::getpgrp())
    }

    /// Every key goes to the program, Ctrl-C too. Only in front: in the background this would stop us.
    fn make_raw(&mut self) {
        if self.raw || !self.in_front() {
            return;
        }
        if let Some((terminal, modes)) = &self.terminal {
            let mut raw = modes.clone();
            raw.make_raw();
            self.raw = tcsetattr(terminal, OptionalActions::Drain, &raw).is_ok();
        }
    }

    fn restore(&mut self) {
        if let (true, Some((terminal, modes))) = (self.raw, &self.terminal) {
            let _ = tcsetattr(terminal, OptionalActions::Drain, modes);
            self.raw = false;
        }
    }

    /// As they are now: whoever used the terminal while we were stopped may have changed them.
    fn read_again(&mut self) {
        if let Some((terminal, modes)) = &mut self.terminal
            && let Ok(now) = tcgetattr(&*terminal)
        {
            *modes = now;
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.restore();
    }
}

/// When to look next whether the program has stopped.
#[derive(Default)]
struct Look {
    at: Option<Instant>,
    after: Duration,
    /// Until then what looks stopped may be what was told to go on and has not had its turn yet.
    goes_on: Option<Instant>,
}

impl Look {
    fn soon(&mut self) {
        self.after = SOONEST;
        self.at = Some(Instant::now() + SOONEST);
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        match self.at {
            Some(at) if now < at => false,
            _ => {
                self.after = (self.after * 2).clamp(SOONEST, LATEST);
                self.at = Some(now + self.after);
                true
            }
        }
    }

    /// Whether what stands in front like a stopped program's parent is one.
    fn is_believed(&mut self, stopped: bool) -> bool {
        if !stopped {
            self.goes_on = None;
        }
        stopped && self.goes_on.is_none_or(|until| Instant::now() >= until)
    }

    fn timeout(&self) -> Timespec {
        let left = self.at.map_or(LATEST, |at| at.saturating_duration_since(Instant::now()));
        Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
    }
}

struct Carrier<'a> {
    child: Child,
    pty: Pty,
    ours: Ours,
    signals: &'a Signals,
    /// On its way to the program.
    typed: Vec<u8>,
    /// On its way to the terminal.
    shown: Vec<u8>,
    /// Whether there may be more to read.
    input: bool,
    look: Look,
}

impl Carrier<'_> {
    fn run(mut self) -> Result<Ending, Failure> {
        self.look.soon();
        loop {
            let ended =
                self.wait().map_err(|error| super::failed(format_args!("on the terminal: {error}")))?;
            if ended {
                self.show_the_rest();
                self.ours.restore();
                return self.child.wait().map(Ending::of).map_err(super::not_started);
            }
            for signal in self.signals.pending() {
                match signal {
                    SIGWINCH => self.resize(),
                    SIGTSTP => self.stop(true).map_err(super::not_started)?,
                    SIGCONT => self.go_on(),
                    other => signals::pass_on(&self.child, other).map_err(super::not_started)?,
                }
            }
            if self.look.is_due() {
                let stopped = self.has_stopped();
                if self.look.is_believed(stopped) {
                    self.stop(false).map_err(super::not_started)?;
                }
                // Started in the background, and brought to the front without a word.
                self.ours.make_raw();
            }
        }
    }

    /// Waits for anything, and carries what there is. True when the program has ended.
    fn wait(&mut self) -> io::Result<bool> {
        let stdin = io::stdin();
        let stdout = io::stdout();
        let read_keys =
            self.input && self.typed.is_empty() && (self.ours.raw || self.ours.terminal.is_none());
        let mut of_pty = PollFlags::empty();
        of_pty.set(PollFlags::IN, self.shown.is_empty());
        of_pty.set(PollFlags::OUT, !self.typed.is_empty());
        let when = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        let mut all = [
            PollFd::new(&self.child, PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.ready(), PollFlags::IN),
            PollFd::new(&self.pty, of_pty),
            PollFd::new(&stdin, when(read_keys, PollFlags::IN)),
            PollFd::new(&stdout, when(!self.shown.is_empty(), PollFlags::OUT)),
        ];
        match poll(&mut all, Some(&self.look.timeout())) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let [ended, _, pty, keys, screen] = all.map(|one| one.revents());
        if keys.intersects(PollFlags::IN | PollFlags::HUP) && read_keys {
            self.read_keys()?;
        }
        if pty.contains(PollFlags::OUT) {
            self.type_on()?;
        }
        if screen.intersects(PollFlags::OUT | PollFlags::ERR) {
            self.show()?;
        }
        if pty.intersects(PollFlags::IN | PollFlags::HUP) && self.shown.is_empty() {
            if !self.read_shown()? && pty.contains(PollFlags::HUP) && ended.is_empty() {
                // Nobody has the terminal open, and the program lives on: its end is all that is left.
                std::thread::sleep(SOONEST);
            }
            self.show()?;
        }
        Ok(!ended.is_empty())
    }

    fn read_keys(&mut self) -> io::Result<()> {
        let mut piece = [0; PIECE];
        match rustix::io::read(io::stdin(), &mut piece) {
            Ok(0) => {
                self.input = false;
                // What ends the input on a terminal is a key.
                if let Ok(modes) = tcgetattr(&self.pty)
                    && modes.local_modes.contains(LocalModes::ICANON)
                {
                    self.typed.push(modes.special_codes[SpecialCodeIndex::VEOF]);
                }
            }
            Ok(length) => self.typed.extend_from_slice(&piece[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // In the background of a session that has lost its terminal.
            Err(Errno::IO) => self.input = false,
            Err(errno) => return Err(errno.into()),
        }
        self.look.soon();
        self.type_on()
    }

    fn type_on(&mut self) -> io::Result<()> {
        while !self.typed.is_empty() {
            match (&self.pty).write(&self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads any more.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => self.typed.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether there was anything.
    fn read_shown(&mut self) -> io::Result<bool> {
        let mut piece = [0; PIECE];
        match (&self.pty).read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.shown.extend_from_slice(&piece[..length]);
                self.look.soon();
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn show(&mut self) -> io::Result<()> {
        while !self.shown.is_empty() {
            match rustix::io::write(io::stdout(), &self.shown) {
                Ok(length) => drop(self.shown.drain(..length)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => {
                    // As the program would have died of it, had the pipe been its own.
                    self.shown.clear();
                    let signal = Signal::from_raw(signal_hook::consts::SIGPIPE);
                    return signal.map_or(Ok(()), |one| self.child.signal(one).map_err(io::Error::other));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// What the program wrote before it ended; a read flushes what is still on its way through the kernel.
    fn show_the_rest(&mut self) {
        while self.show().is_ok() && self.shown.is_empty() && self.read_shown().unwrap_or(false) {}
        let _ = self.show();
    }

    fn resize(&self) {
        let _ = self.pty.resize(Ours::size());
    }

    /// Whether the program, and not another of its session, has stopped: its parent then stands in front.
    fn has_stopped(&self) -> bool {
        let in_front = rustix::termios::tcgetpgrp(&self.pty);
        in_front.is_ok_and(|group| group.as_raw_nonzero().get().unsigned_abs() == self.child.id())
    }

    /// Stops with the program, and goes on with it.
    fn stop(&mut self, program_runs: bool) -> stead::Result<()> {
        if program_runs {
            self.child.signal(Signal::TSTP)?;
            let patience = Instant::now() + LATEST;
            // It may want to leave the screen in order; or not to stop at all.
            while !self.has_stopped() && Instant::now() < patience {
                std::thread::sleep(SOONEST);
            }
        }
        let _ = self.read_shown();
        let _ = self.show();
        self.ours.restore();
        signals::stop_here();
        self.ours.read_again();
        self.go_on();
        self.look.goes_on = Some(Instant::now() + PATIENCE);
        self.child.signal(Signal::CONT)
    }

    fn go_on(&mut self) {
        self.ours.make_raw();
        self.resize();
        self.look.soon();
    }
}
