//! The third scene: an interactive process, on the desktop of whoever sits before the screen.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use stead::os::linux::{DesktopExt as _, LogonExt as _, LogonGid, LogonSessionExt as _};
use stead::{Account, Child, Command, Desktop, Logon, LogonSession, LogonType, Stdio};
use testbed::Bed;
use testbed::display::{Display, Options};
use testbed::window::{EDGE, Window, try_to_connect};

use super::Outcome;
use super::show::Show;

/// The first argument that makes this program the client's, on the desktop.
pub const ROLE: &str = "--on-the-desktop";

/// How long the grant may take to be gone after the program's end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client's program: tries to connect (`try`), or shows a window of these lines until its standard input ends.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let refused = |error: Box<dyn std::error::Error>| io::Error::other(error.to_string());
    if arguments.first().is_some_and(|what| what == "try") {
        return Ok(u8::from(try_to_connect().is_err()));
    }
    let _window = Window::show(arguments).map_err(refused)?;
    println!("shown");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(0)
}

/// Shows it; where there is no X server it says so.
pub fn scene(bed: &Bed, show: &mut Show) -> Outcome {
    show.title("Interactive: grant the logon session access to the desktop, and create the process there");
    if !Path::new("/usr/bin/Xvfb").exists() {
        show.say("there is no X server here (apt-get install xvfb): nothing can be shown on a desktop");
        return Ok(());
    }
    let display = Display::start(bed, &Options::default());
    let desktop = Desktop::by_name(display.name())?.authority_file(display.authority());
    let counter = bed.scratch("desktop").join("gids");
    let (alice, same_user) = (log_on(bed, "alice", &counter)?, log_on(bed, "alice", &counter)?);
    let bob = log_on(bed, "bob", &counter)?;
    let before = desktop.access()?;
    show.say(&format!(
        "an X server, {desktop}, with access control on; alice has logged on twice, bob once; who may use it:"
    ));
    show.access("before", &before);
    let tries = |session: &LogonSession, authority: &Path| is_let_in(bed, &display, session, authority);
    let no_authority = Path::new("/nonexistent");
    show.attempt("alice, before", tries(&alice, no_authority)?, false);

    let (mut child, authority) = start(bed, &desktop, &alice)?;
    show.say("\nher program runs on the desktop, with a lease for its logon session; who may use it:");
    show.access("during", &desktop.access()?);
    show.attempt("alice, in the logon session of her program", tries(&alice, &authority)?, true);
    show.attempt("alice, in her other logon session", tries(&same_user, &authority)?, false);
    show.attempt("bob", tries(&bob, &authority)?, false);
    let picture = display.screenshot();
    show.window(picture.count(EDGE), keep(&picture.png()).as_deref());

    drop(child.stdin.take());
    child.wait()?;
    let end = Instant::now() + PATIENCE;
    while desktop.access()? != before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    show.say("\nher program has ended, and the lease with it; who may use it:");
    let after = desktop.access()?;
    show.access("after", &after);
    show.attempt("alice, after", tries(&alice, &authority)?, false);
    show.expect("the access list ended as it began", after == before);
    for session in [alice, same_user, bob] {
        session.close()?;
    }
    Ok(())
}

/// A logon session that access lists can name.
fn log_on(bed: &Bed, user: &str, counter: &Path) -> Outcome<LogonSession> {
    let gids = fs::read_to_string("/proc/self/gid_map")?;
    let all = gids.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    // In a user namespace only the ids that it has.
    let range = if all { 0x7000_0000..=0x7000_0fff } else { 61_000..=61_999 };
    let user = bed.user(user);
    Ok(Logon::password(Account::local(&user.name), user.password.as_str())
        .kind(LogonType::Interactive)
        .logon_gid(LogonGid::range(range).directory(counter))
        .open()?)
}

/// Alice's program with its window, and the authority file that it was given.
fn start(bed: &Bed, desktop: &Desktop, session: &LogonSession) -> Outcome<(Child, PathBuf)> {
    let gid = session.logon_gid().ok_or("a session without a logon gid")?;
    let uid = bed.user("alice").uid;
    let lines = [
        "A program of alice's, on the desktop of somebody else.".to_owned(),
        format!("It is here by a lease for logon gid {gid} of user {uid},"),
        "and nobody else is: not bob, not alice's other logon session.".to_owned(),
        "When it ends the access list is what it was.".to_owned(),
    ];
    let script = "echo \"$XAUTHORITY\"; exec \"$0\" \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(bed.this_program())
        .args(["demo", ROLE])
        .args(lines)
        .desktop(desktop.clone())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn_as(session.token())?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
    let (mut authority, mut shown) = (String::new(), String::new());
    output.read_line(&mut authority)?;
    output.read_line(&mut shown)?;
    if shown.trim_end() != "shown" {
        return Err("alice's program could not show its window".into());
    }
    Ok((child, authority.trim_end().into()))
}

/// Whether a program of the session is let in, with what it may have seen of the other's environment.
fn is_let_in(bed: &Bed, display: &Display, session: &LogonSession, authority: &Path) -> Outcome<bool> {
    let status = Command::new(bed.this_program())
        .args(["demo", ROLE, "try"])
        .env("DISPLAY", display.name())
        .env("XAUTHORITY", authority)
        .status_as(session.token())?;
    Ok(status.success())
}

/// Keeps the picture in the target directory, where there is one to be written.
fn keep(png: &[u8]) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = target.join("demo-desktop.png");
    fs::write(&path, png).ok().map(|()| path)
}

impl Show {
    /// Who may use the desktop.
    fn access(&self, when: &str, list: &stead::desktop::AccessList) {
        if self.json {
            let entries: Vec<String> = list.entries().iter().map(ToString::to_string).collect();
            println!("{}", json!({ "desktop": when, "access": entries }));
        } else if list.entries().is_empty() {
            println!("  nobody");
        } else {
            println!(
                "{}",
                list.to_string().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
            );
        }
    }

    /// Somebody tried to connect.
    fn attempt(&mut self, who: &str, let_in: bool, expected: bool) {
        self.as_promised &= let_in == expected;
        if self.json {
            println!(
                "{}",
                json!({ "desktop": "attempt", "who": who, "let_in": let_in, "expected": expected })
            );
        } else {
            let outcome = match (let_in, expected) {
                (true, true) => "is let in",
                (false, false) => "is refused",
                (true, false) => "IS LET IN",
                (false, true) => "IS REFUSED",
            };
            println!("  {who:<46} {outcome}");
        }
    }

    /// What is seen on the screen.
    fn window(&mut self, pixels: usize, picture: Option<&Path>) {
        self.as_promised &= pixels > 0;
        let kept = picture.map(|path| path.display().to_string());
        if self.json {
            println!("{}", json!({ "desktop": "window", "pixels": pixels, "screenshot": kept }));
        } else if pixels == 0 {
            println!("  ITS WINDOW IS NOT ON THE SCREEN");
        } else {
            println!(
                "  its window is on the screen{}",
                kept.map_or(String::new(), |path| format!(": {path}"))
            );
        }
    }

    /// Something that must be so.
    fn expect(&mut self, what: &str, holds: bool) {
        self.as_promised &= holds;
        if self.json {
            println!("{}", json!({ "desktop": "end", "what": what, "holds": holds }));
        } else {
            println!("  {what}: {}", if holds { "yes" } else { "NO" });
        }
    }
}
