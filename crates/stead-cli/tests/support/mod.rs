//! What the command's tests share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use testbed::{Bed, User};

/// A path at which no service listens.
pub const NO_SERVICE: &str = "/run/stead-testbed/no-service.sock";

/// The command as a shell would start it; no service of the machine's is asked.
pub fn stead(bed: &Bed, arguments: &[&str]) -> Command {
    let mut command = Command::new(bed.bin("stead"));
    command.args(arguments).env("STEAD_SERVICE", NO_SERVICE).env_remove("NO_COLOR").current_dir("/");
    command.stdin(Stdio::null());
    command
}

/// The same, by a user: as `setpriv` makes its processes.
pub fn stead_by(bed: &Bed, user: &User, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
    command.args(["--init-groups", "--inh-caps=-all", "--"]).arg(bed.bin("stead")).args(arguments);
    command.env("STEAD_SERVICE", NO_SERVICE).current_dir("/").stdin(Stdio::null());
    command
}

/// What it prints, when it ends well.
pub fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// What it prints as JSON.
pub fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_str(&printed(command)).unwrap()
}

/// Runs it with this on its standard input.
pub fn fed(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The letter of a process's state; none when it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process lives.
pub fn lives(pid: u32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The value of a field of `/proc/PID/status`.
pub fn status_field(pid: impl std::fmt::Display, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} is not in the status")).trim().to_owned()
}

/// Whether a logon session can have a gid of its own, which it has for a desktop: those that the command gives out are not
/// mapped in every user namespace.
pub fn has_logon_gids() -> bool {
    const FIRST: u64 = 0x7000_0000;
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().map(|text| text.parse().unwrap()).collect();
        (numbers[0]..numbers[0] + numbers[2]).contains(&FIRST)
    })
}

/// Whether a program is on the PATH.
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}

/// A shell on a terminal, driven by tmux.
pub struct Screen {
    socket: PathBuf,
}

const PROMPT: &str = "prompt> ";

impl Screen {
    /// A shell of root's, whose PATH begins with the bed's programs.
    pub fn start(bed: &Bed) -> Self {
        let folder = bed.scratch("screen");
        let socket = folder.join("tmux");
        // Short lines that are the same everywhere.
        let shell = format!("PS1='{PROMPT}' HISTFILE= exec bash --norc --noprofile");
        let screen = Self { socket };
        let mut command = screen.tmux();
        command.args(["new-session", "-d", "-x", "150", "-y", "24", &shell]);
        let path = std::env::var("PATH").unwrap_or_default();
        let own = bed.bin("stead").parent().map(Path::to_owned).unwrap_or_default();
        command.env("PATH", format!("{}:{path}", own.display()));
        command
            .env("STEAD_SERVICE", NO_SERVICE)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(folder);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        screen.until("the shell is there", |text| text.trim_end() == PROMPT.trim_end());
        screen
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(["-f", "/dev/null"]);
        command
    }

    /// Presses keys, by tmux's names for them; all else is typed as it is.
    pub fn press(&self, keys: &[&str]) {
        assert!(self.tmux().arg("send-keys").args(keys).status().unwrap().success());
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.press(&["-l", text]);
        self.press(&["Enter"]);
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits until the screen is so, and gives it.
    pub fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let mut held = 0;
        for _ in 0..3000 {
            let text = self.text();
            // Not in the middle of being drawn.
            held = if holds(&text) && (held == 0 || text == last) { held + 1 } else { 0 };
            last = text;
            if held == 8 {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it never came to pass that {what}; the screen is:\n{last}");
    }

    /// Types a command and gives what it printed, once the shell asks again.
    pub fn run(&self, command: &str) -> String {
        self.line("clear");
        self.until("the screen is empty", |text| text.trim_end() == PROMPT.trim_end());
        self.line(command);
        let shown = self.until(command, |text| {
            text.lines().count() > 1
                && text.lines().last().is_some_and(|line| line.trim_end() == PROMPT.trim_end())
        });
        let lines: Vec<&str> = shown.lines().collect();
        lines[1..lines.len() - 1].join("\n")
    }

    /// The exit status of the command before.
    pub fn status(&self) -> String {
        self.line("echo \"status $?\"");
        let shown = self.until("the status is told", |text| {
            let mut lines = text.lines().rev();
            lines.next().is_some_and(|line| line.trim_end() == PROMPT.trim_end())
                && lines.next().is_some_and(|line| line.starts_with("status "))
        });
        let line = shown.lines().rev().nth(1).unwrap_or_default();
        line.trim_start_matches("status ").to_owned()
    }

    /// Another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        assert!(self.tmux().args(["resize-window", "-x", &columns, "-y", &rows]).status().unwrap().success());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").stderr(Stdio::null()).status();
    }
}
