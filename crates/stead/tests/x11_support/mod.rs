//! What the tests with X servers share.
#![forbid(unsafe_code)]
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test program uses a part")]
#![allow(unused_qualifications, reason = "`crate::` is not this module where the service's tests take it in")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Output};

use stead::os::linux::{DesktopExt, LogonExt, LogonGid};
use stead::{Account, Child, Command, Desktop, Logon, LogonSession, LogonType, Primary, Stdio, Token};
use testbed::Bed;
use testbed::display::Display;

pub const BLUE: [u8; 3] = [0x33, 0x66, 0xcc];

/// Gids that this bed's user namespace has.
pub fn logon_gids() -> LogonGid {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    let all = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    LogonGid::range(if all { 0x7000_0000..=0x7000_0fff } else { 61_000..=61_999 })
}

/// A logon with a logon SID, whose counter lies in this folder.
pub fn logon(bed: &Bed, user: &str, counter: &Path) -> Logon {
    Logon::password(Account::local(user), bed.user(user).password.as_str())
        .kind(LogonType::Interactive)
        .logon_gid(logon_gids().directory(counter))
}

pub fn log_on(bed: &Bed, user: &str, counter: &Path) -> LogonSession {
    crate::log_on_with_gid(bed, user, counter).unwrap_or_else(|error| panic!("{error}"))
}

/// What this program's own privileges open.
pub fn log_on_with_gid(bed: &Bed, user: &str, counter: &Path) -> stead::Result<LogonSession> {
    logon(bed, user, counter).open()
}

/// The display as this server, which is root, is let into it.
pub fn desktop(display: &Display) -> Desktop {
    crate::enters(display);
    Desktop::by_name(display.name()).unwrap().authority_file(display.authority())
}

/// Who grants it is let in by what the desktop says itself.
pub fn enters(_display: &Display) {}

/// The desktop as it is asked for where it is granted: the library's tests do that themselves, those of the service have
/// the service do it, which knows how it is let in.
pub fn as_asked(desktop: &Desktop, _token: &Token<Primary>) -> Desktop {
    desktop.clone()
}

/// The same, as the program has it.
pub fn asked(desktop: &Desktop, token: &Token<Primary>) -> Desktop {
    crate::as_asked(desktop, token)
}

pub fn xclient(bed: &Bed) -> Command {
    Command::new(bed.bin("testbed-xclient"))
}

/// Whether a process with this token and these variables, and nothing from us, is let in.
pub fn is_let_in(bed: &Bed, token: &Token<Primary>, display: &Display, authority: Option<&Path>) -> bool {
    let mut command = xclient(bed);
    command.arg("try").env("DISPLAY", display.name());
    if let Some(path) = authority {
        command.env("XAUTHORITY", path);
    }
    let output = command.output_as(token).unwrap();
    if !output.status.success() {
        let said = text(&output);
        // libX11's words, which x11rb passes on, or the file was out of reach and nothing was shown.
        assert!(
            said.contains("Authorization required") || said.contains("Invalid MIT-MAGIC-COOKIE-1"),
            "{said}"
        );
    }
    output.status.success()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A program of the session on the desktop, that first says its authority file, and then runs this shell script.
pub struct Interactive {
    pub child: Child,
    pub authority: PathBuf,
    pub output: BufReader<ChildStdout>,
}

impl Interactive {
    pub fn start(command: &str, token: &Token<Primary>, desktop: &Desktop) -> Self {
        let mut builder = Command::new("/bin/sh");
        builder.arg("-c").arg(format!("echo \"$XAUTHORITY\"; {command}"));
        Self::with(&mut builder, token, desktop)
    }

    pub fn with(builder: &mut Command, token: &Token<Primary>, desktop: &Desktop) -> Self {
        let mut child = builder
            .desktop(asked(desktop, token))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn_as(token)
            .unwrap_or_else(|error| panic!("{error}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let authority = line(&mut output).into();
        Self { child, authority, output }
    }

    pub fn line(&mut self) -> String {
        line(&mut self.output)
    }

    /// Closes its standard input, and waits for its end.
    pub fn end(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The folders of leases that there are now.
pub fn records() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/run/stead/desktops") else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}
