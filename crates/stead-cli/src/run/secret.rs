//! Passwords: typed without being shown, or read from a descriptor. Never an argument, never a variable.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use signal_hook::consts::{SIGINT, SIGQUIT};
use stead::{Conversation, Prompt, Secret};
use zeroize::Zeroizing;

use super::signals::{self, Signals};
use crate::ending::{Failure, system};
use crate::output::printable;

/// No longer than this: it never moves in memory, where a copy would be left.
const LONGEST: usize = 4096;

/// A descriptor that whoever started the command left open for it.
pub struct Source {
    number: u32,
    file: File,
}

impl Source {
    /// By its number, which is anybody's once the command has opened something itself.
    pub fn inherited(number: u32) -> Result<Self, Failure> {
        let raw = i32::try_from(number).map_err(|_| std::io::ErrorKind::InvalidInput.into());
        match raw.and_then(stead::descriptor::inherited) {
            Ok(descriptor) => Ok(Self { number, file: File::from(descriptor) }),
            Err(error) => Err(Self::failed(number, &system(&error))),
        }
    }

    /// The first line that can be read from it.
    pub fn read(mut self) -> Result<Secret, Failure> {
        let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut byte = Zeroizing::new([0u8]);
        loop {
            // One by one: what follows the line is not ours.
            match self.file.read(byte.as_mut()) {
                Ok(0) => break,
                Ok(_) if byte[0] == b'\n' => break,
                Ok(_) if secret.len() == LONGEST => return Err(Self::failed(self.number, "it is too long")),
                Ok(_) => secret.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Self::failed(self.number, &system(&error))),
            }
        }
        Ok(Secret::from(secret))
    }

    fn failed(number: u32, what: &str) -> Failure {
        super::failed(format_args!("reading the password from descriptor {number}: {what}"))
    }
}

/// Asks on the terminal whatever the logon asks.
pub struct Asker {
    /// Held while the terminal does not show what is typed.
    signals: Signals,
    needs_terminal: Arc<AtomicBool>,
}

impl Asker {
    /// `needs_terminal` is set where something is asked and there is no terminal: what the logon then fails of.
    pub fn new(signals: &Signals, needs_terminal: &Arc<AtomicBool>) -> Self {
        Self { signals: signals.clone(), needs_terminal: Arc::clone(needs_terminal) }
    }
}

impl Conversation for Asker {
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret> {
        let Some(terminal) = Terminal::open() else {
            self.needs_terminal.store(true, Ordering::Relaxed);
            return None;
        };
        self.signals.hold();
        let answer = terminal.ask(prompt.text(), prompt.echo(), &self.signals);
        self.signals.release();
        match answer {
            Answer::Given(secret) => Some(secret),
            Answer::None => None,
            Answer::Signal(signal) => signals::end_by(signal),
        }
    }

    fn inform(&mut self, text: &str, _is_error: bool) {
        // What PAM's modules say to an answer that was not given is not the reason.
        if self.needs_terminal.load(Ordering::Relaxed) {
            return;
        }
        let _ = writeln!(std::io::stderr(), "{}", printable(text));
    }
}

/// The controlling terminal, which need not be where the streams lead.
struct Terminal(File);

enum Answer {
    Given(Secret),
    None,
    Signal(i32),
}

impl Terminal {
    fn open() -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open("/dev/tty", flags, Mode::empty()).ok().map(|terminal| Self(terminal.into()))
    }

    /// One line, typed by keys that mean what they mean to this terminal.
    fn ask(&self, question: &str, echo: bool, signals: &Signals) -> Answer {
        let Ok(before) = rustix::termios::tcgetattr(&self.0) else { return Answer::None };
        let mut asking = before.clone();
        // Key by key: Ctrl-C must find its way back to a terminal that shows what is typed.
        asking.local_modes &=
            !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        asking.special_codes[SpecialCodeIndex::VMIN] = 1;
        asking.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the question is no answer to it.
        if rustix::termios::tcsetattr(&self.0, OptionalActions::Flush, &asking).is_err() {
            return Answer::None;
        }
        let restore = Restore { terminal: &self.0, before: &before };
        self.say(&printable(question));
        let answer = self.line(&before, echo, signals);
        self.say("\n");
        drop(restore);
        answer
    }

    fn line(&self, keys: &Termios, echo: bool, signals: &Signals) -> Answer {
        let key = |code: SpecialCodeIndex| keys.special_codes[code];
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
        let mut byte = Zeroizing::new([0u8]);
        loop {
            let mut either = [
                PollFd::new(&self.0, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.ready(), PollFlags::IN),
            ];
            match poll(&mut either, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Answer::None,
            }
            let typed = !either[0].revents().is_empty();
            // Stopping would leave a terminal that shows nothing; only what ends is answered at once.
            if let Some(signal) = signals.pending().into_iter().find(|one| signals::ends(*one)) {
                return Answer::Signal(signal);
            }
            if !typed {
                continue;
            }
            match (&self.0).read(byte.as_mut()) {
                Ok(0) => return Answer::None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return Answer::None,
            }
            match byte[0] {
                b'\n' | b'\r' => return Answer::Given(Secret::from(line)),
                one if one == key(SpecialCodeIndex::VINTR) => return Answer::Signal(SIGINT),
                one if one == key(SpecialCodeIndex::VQUIT) => return Answer::Signal(SIGQUIT),
                one if one == key(SpecialCodeIndex::VEOF) && line.is_empty() => return Answer::None,
                one if one == key(SpecialCodeIndex::VERASE) || matches!(one, 8 | 127) => {
                    // A character of UTF-8 goes as a whole.
                    while let Some(last) = line.pop() {
                        if last & 0xc0 != 0x80 {
                            if echo {
                                self.say("\x08 \x08");
                            }
                            break;
                        }
                    }
                }
                one if one == key(SpecialCodeIndex::VKILL) => line.clear(),
                one if line.len() < LONGEST => {
                    line.push(one);
                    if echo {
                        let _ = (&self.0).write_all(byte.as_ref());
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&self, text: &str) {
        let _ = (&self.0).write_all(text.as_bytes());
    }
}

/// Puts the terminal back as it was.
struct Restore<'a> {
    terminal: &'a File,
    before: &'a Termios,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.terminal.as_fd(), OptionalActions::Flush, self.before);
    }
}
