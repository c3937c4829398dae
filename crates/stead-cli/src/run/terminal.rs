//! A program on a terminal of its own, between which and the command's the command carries what is typed and shown.
//!
//! No process of another user ever holds the command's own terminal: it could read what is typed there later, and write
//! what the terminal obeys (CVE-2016-2779 and its kin). So it is enough that one of the three streams is a terminal; the
//! others are the program's as they are. As oneself it is the same, for a program in a session of its own has no terminal
//! that controls it but this one: no job control, no /dev/tty to ask for a password on, and in the background the kernel
//! would not keep it from what is typed for the shell.
//!
//! Where one is not, the command may be one of several that use the terminal at once (`| less`). What is typed is then left
//! to them until the program asks for it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH};
use stead::os::linux::{ChildExt, CommandExt, Signal};
use stead::{Child, Command, Primary, Pty, Stdio, Token};

use super::ours::Ours;
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

/// What a pipe takes at once where poll(2) says that it takes something (PIPE_BUF).
const ROOM: usize = 4096;

/// No line that a terminal reads whole is longer (4095 bytes in Linux; less with PARMRK). The rest would be lost.
const LINE: usize = 1000;

/// Runs it with these of its standard streams on its own terminal, and waits for its end.
pub fn run(
    command: &mut Command,
    on: [bool; 3],
    token: &Token<Primary>,
    signals: &Signals,
) -> Result<Ending, Failure> {
    let cannot = |what: &'static str| move |error: io::Error| super::failed(format_args!("{what}: {error}"));
    let mut ours = Ours::find(on).map_err(cannot("using the terminal"))?;
    command.pty(Ours::size()).job_control(true);
    // Suspended until its terminal has the modes of ours.
    command.suspended(true);
    let [stdin, stdout, stderr] = on;
    if !stdin {
        command.stdin(Stdio::inherit());
    }
    if !stdout {
        command.stdout(Stdio::inherit());
    }
    if !stderr {
        command.stderr(Stdio::inherit());
    }
    signals.hold();
    let mut child = super::spawn(command, token)?;
    let pty = child.pty.take().ok_or_else(|| super::failed("there is no terminal for the program"))?;
    if let Some(modes) = ours.first_modes() {
        let _ = tcsetattr(&pty, OptionalActions::Now, &modes);
    }
    rustix::fs::fcntl_setfl(&pty, OFlags::RDWR | OFlags::NONBLOCK)
        .map_err(|errno| cannot("using the program's terminal")(errno.into()))?;
    let behind = on.contains(&false);
    if !behind {
        // Before the program can show anything: what is typed from now on is for it.
        ours.make_raw();
    }
    child.resume().map_err(super::not_started)?;
    Carrier {
        child,
        pty,
        ours,
        signals,
        typed: Vec::new(),
        shown: Vec::new(),
        input: true,
        line: 0,
        behind,
        stopping: false,
        told: false,
        look: Look::default(),
    }
    .run()
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

#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that has or has not happened")]
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
    /// How much of a line was typed that no key at all has ended.
    line: usize,
    /// The program has not asked for the terminal yet.
    behind: bool,
    /// Our own group was told to stop, and so were we.
    stopping: bool,
    /// The program was given a signal of ours.
    told: bool,
    look: Look,
}

impl Carrier<'_> {
    fn run(mut self) -> Result<Ending, Failure> {
        self.look.soon();
        loop {
            let ended =
                self.wait().map_err(|error| super::failed(format_args!("on the terminal: {error}")))?;
            if ended {
                let ending = self.child.wait().map(Ending::of).map_err(super::not_started);
                let hurried = self.told && matches!(ending, Ok(Ending::Signal(_)));
                self.show_the_rest(hurried);
                self.ours.restore();
                return ending;
            }
            for signal in self.signals.pending() {
                match signal {
                    SIGWINCH => self.resize(),
                    SIGTSTP if std::mem::take(&mut self.stopping) => {}
                    SIGTSTP => self.stop(true).map_err(super::not_started)?,
                    SIGCONT => self.go_on(),
                    other => {
                        self.told = true;
                        signals::pass_on(&self.child, other).map_err(super::not_started)?;
                    }
                }
            }
            if self.look.is_due() {
                let stopped = self.has_stopped();
                if self.look.is_believed(stopped) {
                    self.stop(false).map_err(super::not_started)?;
                }
                // Started in the background, and brought to the front without a word; or the program was.
                self.make_raw();
            }
        }
    }

    /// Waits for anything, and carries what there is. True when the program has ended.
    fn wait(&mut self) -> io::Result<bool> {
        let read_keys = self.input && self.typed.is_empty() && self.ours.is_read();
        let mut of_pty = PollFlags::empty();
        of_pty.set(PollFlags::IN, self.shown.is_empty());
        of_pty.set(PollFlags::OUT, !self.typed.is_empty());
        let when = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        let keys = self.ours.keys.as_ref().map_or(self.ours.screen.as_fd(), AsFd::as_fd);
        let sources = [
            (self.child.as_fd(), PollFlags::IN),
            (self.signals.ready(), PollFlags::IN),
            (self.pty.as_fd(), of_pty),
            (keys, when(read_keys && self.ours.keys.is_some(), PollFlags::IN)),
            (self.ours.screen.as_fd(), when(!self.shown.is_empty(), PollFlags::OUT)),
        ];
        // An end is told of a descriptor of which nothing is asked, too, and at once each time.
        let mut asked: Vec<PollFd<'_>> = sources
            .iter()
            .filter(|(_, flags)| !flags.is_empty())
            .map(|(descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags))
            .collect();
        match poll(&mut asked, Some(&self.look.timeout())) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let mut answers = asked.iter().map(PollFd::revents);
        let mut answer = |(_, flags): (_, PollFlags)| {
            if flags.is_empty() { flags } else { answers.next().unwrap_or_else(PollFlags::empty) }
        };
        let [ended, _, pty, keys, screen] = sources.map(&mut answer);
        if keys.intersects(PollFlags::IN | PollFlags::HUP) {
            self.read_keys()?;
        }
        if pty.contains(PollFlags::OUT) {
            self.type_on()?;
        }
        if screen.intersects(PollFlags::OUT | PollFlags::ERR) {
            self.show()?;
        }
        let more = pty.intersects(PollFlags::IN | PollFlags::HUP) && self.shown.is_empty();
        if more && !self.read_shown()? && pty.contains(PollFlags::HUP) && ended.is_empty() {
            // Nobody has the terminal open, and the program lives on: its end is all that is left.
            std::thread::sleep(SOONEST);
        }
        Ok(!ended.is_empty())
    }

    fn read_keys(&mut self) -> io::Result<()> {
        let Some(keys) = &self.ours.keys else { return Ok(()) };
        let mut piece = [0; PIECE];
        match rustix::io::read(keys, &mut piece) {
            Ok(0) => {
                self.input = false;
                // What ends the input on a terminal is a key. In the middle of a line it only hands over what there is.
                let times = 1 + usize::from(self.line > 0);
                self.typed.extend(self.end_of_file().into_iter().cycle().take(times));
            }
            Ok(length) if self.ours.is_terminal() => self.typed.extend_from_slice(&piece[..length]),
            Ok(length) => self.type_lines(&piece[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // In the background of a session that has lost its terminal.
            Err(Errno::IO) => self.input = false,
            Err(errno) => return Err(errno.into()),
        }
        self.look.soon();
        self.type_on()
    }

    /// The key that ends the input, where the program's terminal reads lines.
    fn end_of_file(&self) -> Option<u8> {
        let modes = tcgetattr(&self.pty).ok()?;
        let lines = modes.local_modes.contains(LocalModes::ICANON);
        lines.then(|| modes.special_codes[SpecialCodeIndex::VEOF])
    }

    /// What nobody typed may have lines that are too long for a terminal: they are handed over in parts.
    fn type_lines(&mut self, piece: &[u8]) {
        let end = self.end_of_file();
        for byte in piece {
            self.typed.push(*byte);
            self.line = if *byte == b'\n' { 0 } else { self.line + 1 };
            // Behind what is no key, so that there is something to hand over.
            if self.line >= LINE && !byte.is_ascii_control() {
                self.typed.extend(end);
                self.line = 0;
            }
        }
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

    /// Some of it, where there is room.
    fn show(&mut self) -> io::Result<()> {
        let piece = &self.shown[..self.shown.len().min(ROOM)];
        match rustix::io::write(&self.ours.screen, piece) {
            Ok(length) => drop(self.shown.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Opened for reading only.
            Err(Errno::BADF) => self.shown.clear(),
            Err(Errno::PIPE) => {
                // As the program would have died of it, had the pipe been its own.
                self.shown.clear();
                let signal = Signal::from_raw(signal_hook::consts::SIGPIPE);
                return signal.map_or(Ok(()), |one| self.child.signal(one).map_err(io::Error::other));
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// What the program wrote before it ended or stopped; a read flushes what is still on its way through the kernel.
    /// Hurried, as much as there is room for: nobody may read there, ever.
    fn show_the_rest(&mut self, hurried: bool) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while !self.shown.is_empty() || self.read_shown().unwrap_or(false) {
            let mut either = [
                PollFd::new(&self.ours.screen, PollFlags::OUT),
                PollFd::from_borrowed_fd(self.signals.ready(), PollFlags::IN),
            ];
            match poll(&mut either, hurried.then_some(&now)) {
                Ok(1..) | Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return,
            }
            let [screen, signalled] = either.map(|one| !one.revents().is_empty());
            if screen && self.show().is_err() {
                return;
            }
            // What comes while it is to go on afterwards is heard then.
            if signalled && (hurried || self.signals.pending().into_iter().any(signals::ends)) {
                return;
            }
        }
    }

    fn resize(&self) {
        let _ = self.pty.resize(Ours::size());
    }

    /// Whether the program, and not another of its session, has stopped: its parent then stands in front. It does so,
    /// too, until the program asks for the terminal.
    fn has_stopped(&mut self) -> bool {
        let in_front = rustix::termios::tcgetpgrp(&self.pty);
        let parent =
            in_front.is_ok_and(|group| group.as_raw_nonzero().get().unsigned_abs() == self.child.id());
        self.behind &= parent;
        parent && !self.behind
    }

    /// What is typed is for the program, as soon as it has asked for it.
    fn make_raw(&mut self) {
        if !self.behind {
            self.ours.make_raw();
        }
    }

    /// Stops with the program, and goes on with it.
    fn stop(&mut self, program_runs: bool) -> stead::Result<()> {
        if program_runs {
            self.child.signal(Signal::TSTP)?;
            let patience = Instant::now() + LATEST;
            // It may want to leave the screen in order; or not to stop at all.
            while !self.has_stopped() && !self.behind && Instant::now() < patience {
                std::thread::sleep(SOONEST);
            }
        }
        let _ = self.read_shown();
        self.show_the_rest(true);
        self.ours.restore();
        // As the key would have stopped all that the shell started with us.
        self.stopping = signals::stop_here(!program_runs);
        self.go_on();
        self.look.goes_on = Some(Instant::now() + PATIENCE);
        self.child.signal(Signal::CONT)
    }

    fn go_on(&mut self) {
        self.make_raw();
        self.resize();
        self.look.soon();
    }
}
