//! `cargo xtask demo [--json]`: both procedures of the reference page with real clients, and an
//! interactive process on a real X server, in the testbed.

mod client;
mod desktop;
mod show;

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use stead::os::linux::LogonExt as _;
use stead::{Account, Client, Command, Confinement, Logon, LogonType, Primary, Privilege, Stdio, Token};
use testbed::{Bed, EnterOptions, Entry, Mode, Probe};

use self::client::{ConnectedClient, LoggedOnControl};
use self::show::Show;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Runs the demo: outside it enters the testbed, inside it shows what it came for.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    if let [role, rest @ ..] = arguments
        && role == client::ROLE
    {
        return client::run(rest);
    }
    if let [role, rest @ ..] = arguments
        && role == desktop::ROLE
    {
        return desktop::run(rest);
    }
    if let Some(unknown) = arguments.iter().find(|argument| *argument != "--json") {
        return Err(io::Error::other(format!("usage: cargo xtask demo [--json] (there is no {unknown})")));
    }
    let mut options = EnterOptions::default();
    options.install = true;
    match testbed::enter(&options)? {
        Entry::Inside(bed) => {
            let mut show = Show::new(arguments.iter().any(|argument| argument == "--json"));
            scenes(bed, &mut show).map_err(|error| io::Error::other(error.to_string()))?;
            Ok(u8::from(!show.all_as_promised()))
        }
        Entry::Left { status, left_behind } => {
            for what in &left_behind {
                eprintln!("LEFT BEHIND ON THE HOST: {what}");
            }
            Ok(u8::try_from(status).unwrap_or(u8::MAX).max(u8::from(!left_behind.is_empty())))
        }
    }
}

fn scenes(bed: &'static Bed, show: &mut Show) -> Outcome {
    show.say(&format!("testbed: {}", bed.mode()));
    if bed.mode() == Mode::Container {
        show.say("the users are in this container's own account files, and are taken away again at the end");
    }
    // The server may hold anything; none of it must reach a client's process.
    let confinement = if Privilege::InspectClient.status()?.enabled {
        Confinement::Refuse
    } else {
        show.say(
            "this server has no CAP_SYS_PTRACE: how its clients are confined cannot be verified here, and it has \
             chosen to serve them nevertheless (Confinement::Unknown)",
        );
        Confinement::Unknown
    };
    logon(bed, show)?;
    impersonate(bed, show, confinement)?;
    desktop::scene(bed, show)?;
    refusals(bed, show, confinement)
}

/// Procedure 1: `LogonUser`, `CreateProcessAsUser`.
fn logon(bed: &Bed, show: &mut Show) -> Outcome {
    show.title("Procedure 1: log the client on, and create its process");
    let bob = bed.user("bob");
    let session = Logon::password(Account::local(&bob.name), bob.password.as_str())
        .kind(LogonType::Interactive)
        .open()?;
    show.say(&format!("{} has logged on by PAM; the token:\n{}", bob.name, session.token()));
    show.say("\n(the client below is what setpriv makes of the same account: the measure for ours)");
    let control = LoggedOnControl::start(bob)?;
    created_process("logon", &control.seen()?, session.token(), &bob.home, show)?;
    drop(control);
    session.close()?;
    show.say("the session was closed after its last process: PAM's close_session has run");
    Ok(())
}

/// Procedure 2: `ImpersonateNamedPipeClient`, `OpenThreadToken`, `DuplicateTokenEx`, `CreateProcessAsUser`.
fn impersonate(bed: &Bed, show: &mut Show, confinement: Confinement) -> Outcome {
    show.title("Procedure 2: impersonate the client of a socket, and create its process");
    let alice = bed.user("alice");
    let (listener, path) = listener(bed)?;
    let connected = ConnectedClient::start(bed, alice, &path, &[])?;
    let (stream, _) = listener.accept()?;

    let client = Client::with(confinement).of(&stream)?;
    let notes = alice.home.join("notes.txt");
    let others = bed.user("bob").home.join("notes.txt");
    let token = client.impersonate(|me| -> stead::Result<_> {
        let mut text = String::new();
        let read = me.open(&notes).map(|mut file| io::Read::read_to_string(&mut file, &mut text));
        show.say(&format!("while impersonating {}: her own notes {}", alice.name, opened(read.map(drop))));
        show.say(&format!(
            "while impersonating {}: bob's notes {}",
            alice.name,
            opened(me.open(&others).map(drop))
        ));
        Token::open_thread(me)?.to_primary()
    })??;
    created_process("impersonate", &connected.seen()?, &token, &alice.home, show)
}

fn opened(result: stead::Result<()>) -> String {
    match result {
        Ok(()) => "can be opened".to_owned(),
        Err(error) => format!("cannot: {error}"),
    }
}

/// Creates a process from the token and holds it against the client, as the kernel tells of both.
fn created_process(
    procedure: &str,
    client: &Probe,
    token: &Token<Primary>,
    home: &Path,
    show: &mut Show,
) -> Outcome {
    let mut child = Command::new("sh")
        .args(["-c", "echo made by the process > created-by-stead; echo ready; read -r until_told"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn_as(token)?;
    let mut ready = [0; 6];
    io::Read::read_exact(child.stdout.as_mut().ok_or("no standard output")?, &mut ready)?;
    let process = Probe::of(i32::try_from(child.id())?)?;
    show.procedure(procedure, &Probe::of_self()?, client, &process);

    let made = home.join("created-by-stead");
    let owner = fs::metadata(&made)?;
    show.say(&format!("a file that it made, {}, belongs to {}:{}", made.display(), owner.uid(), owner.gid()));
    fs::remove_file(&made)?;
    drop(child.stdin.take());
    child.wait()?;
    Ok(())
}

/// What is refused, and why.
fn refusals(bed: &Bed, show: &mut Show, confinement: Confinement) -> Outcome {
    show.title("What is refused");
    let alice = bed.user("alice");
    let attempt = |name: &str, password: &str| Logon::password(Account::local(name), password).open();

    show.refused("a wrong password", attempt(&alice.name, "not her password").map(drop));
    show.refused("a locked account", attempt("dave", &bed.user("dave").password).map(drop));
    show.refused("an expired account", attempt("erin", &bed.user("erin").password).map(drop));
    show.refused("an account that does not exist", attempt("nobody-of-that-name", "whatever").map(drop));
    let through_other = Logon::s4u(Account::local(&alice.name)).pam_service("no-such-service").open();
    show.refused("a PAM service without a file", through_other.map(drop));

    let (listener, path) = listener(bed)?;
    let connected = ConnectedClient::start(bed, alice, &path, &["--no-new-privs"])?;
    let (stream, _) = listener.accept()?;
    let confined = Client::with(confinement).of(&stream).and_then(|client| client.token());
    show.refused("a client that is confined by no_new_privs", confined.map(drop));
    drop(connected);

    let session = Logon::s4u(Account::local(&alice.name)).open()?;
    let private = bed.user("bob").home.join("program");
    fs::copy("/bin/true", &private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o755))?;
    show.refused(
        "a program that the client may not reach",
        Command::new(&private).status_as(session.token()),
    );
    fs::remove_file(&private)?;
    show.refused("a program that is not there", Command::new("no-such-program").status_as(session.token()));
    let elsewhere = Command::new("true").current_dir(&bed.user("bob").home).status_as(session.token());
    show.refused("a directory that the client may not enter", elsewhere);
    session.close()?;
    Ok(())
}

/// A socket that every user may connect to.
fn listener(bed: &Bed) -> Outcome<(UnixListener, std::path::PathBuf)> {
    let path = bed.scratch("demo").join("socket");
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok((listener, path))
}
