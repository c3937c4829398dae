//! What can be asked of the command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use stead::LogonType;

use crate::ending::{Ending, Failure, STEAD_FAILED};
use crate::output;

/// Run programs in another user's security context, and see what is going on.
#[derive(Debug, Parser)]
#[command(name = "stead", version, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Subcommand,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Run a program, as oneself or as another user
    Run(RunArguments),
    /// Show one's own access token: user, groups, privileges, and all else
    Whoami(Form),
    /// Show the access token of a process
    #[cfg(unix)]
    Token(TokenArguments),
    /// Show which privileges of the reference page's this process holds
    Privileges(Form),
    /// Show the logon sessions that the service keeps
    #[cfg(unix)]
    Sessions(Form),
    /// Show the processes that the service created
    #[cfg(unix)]
    Ps(ProcessesArguments),
    /// Signal processes that the service created, or end them with all their descendants
    #[cfg(unix)]
    Kill(KillArguments),
    /// End every process of logon sessions, which are closed then
    #[cfg(unix)]
    Logoff {
        /// The sessions, as `stead sessions` lists them
        #[arg(required = true, value_name = "SESSION")]
        sessions: Vec<String>,
    },
    /// Show who may use displays and terminals
    #[cfg(unix)]
    Desktop(DesktopArguments),
    /// Check the policy, and explain what it says
    #[cfg(unix)]
    #[command(subcommand)]
    Policy(PolicyArguments),
    /// Say what is missing on this machine, and how to mend it
    Doctor(DoctorArguments),
    /// Show what the service does, as it does it
    #[cfg(unix)]
    Monitor(Form),
    /// Be the service: create processes for servers that have no privileges
    #[cfg(unix)]
    Serve(ServeArguments),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show a manual page, or write all of them into a directory
    #[cfg(unix)]
    Man {
        /// Of which subcommand, such as `run` or `policy explain`; or an existing directory, such as ./pages
        #[arg(value_name = "SUBCOMMAND | DIRECTORY")]
        of: Vec<OsString>,
    },
}

/// In which form to answer.
#[derive(Debug, Clone, Copy, Args)]
pub struct Form {
    /// For programs, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which process's token.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// The process's id
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub process: i32,
    #[command(flatten)]
    pub form: Form,
}

/// Which processes.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct ProcessesArguments {
    /// Only those of this logon session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Also those that have ended and were not asked for yet
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub form: Form,
}

/// Which processes to signal, and how.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct KillArguments {
    /// The signal: TERM, SIGTERM or 15
    #[arg(long, short, value_name = "SIGNAL", default_value = "TERM", conflicts_with = "tree")]
    pub signal: String,
    /// The whole process group, too
    #[arg(long, conflicts_with = "tree")]
    pub group: bool,
    /// Kill the processes and all that descends from them
    #[arg(long)]
    pub tree: bool,
    /// The processes, by name or pid as `stead ps` lists them
    #[arg(required = true, value_name = "PROCESS")]
    pub processes: Vec<String>,
}

/// Which desktops.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct DesktopArguments {
    /// Take back what servers granted that have ended since
    #[arg(long, conflicts_with_all = ["desktops", "json"])]
    pub sweep: bool,
    /// The desktops: `:1`, /run/user/1000/wayland-0, /dev/tty3, `interactive`, `console` [default: all]
    #[arg(value_name = "DESKTOP")]
    pub desktops: Vec<OsString>,
    #[command(flatten)]
    pub form: Form,
}

/// What to do with the policy.
#[cfg(unix)]
#[derive(Debug, clap::Subcommand)]
pub enum PolicyArguments {
    /// Say what is wrong with the policy, each with its file, line and column
    Check(CheckArguments),
    /// Say what a caller may do as a client, and by which line
    Explain(ExplainArguments),
}

/// What to check.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The folder, or one file [default: /etc/stead]
    #[arg(value_name = "PLACE")]
    pub place: Option<PathBuf>,
    #[command(flatten)]
    pub form: Form,
}

/// What to explain.
#[cfg(unix)]
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The user that asks the service [default: oneself]
    #[arg(long, value_name = "USER")]
    pub caller: Option<OsString>,
    /// The user as whom something is to be done [default: the caller]
    #[arg(long, value_name = "USER")]
    pub client: Option<OsString>,
    /// Only this; the exit status is then the answer: 0 allowed, 1 denied, 2 that it cannot be told
    #[arg(long, value_name = "PRIVILEGE", value_parser = privileges())]
    pub privilege: Option<String>,
    /// How the client is to be logged on [default: interactive]
    #[arg(long, value_name = "TYPE", value_enum)]
    pub logon: Option<LogonKind>,
    /// The program to be run
    #[arg(long, value_name = "PROGRAM")]
    pub program: Option<OsString>,
    /// The desktop for it: none, own, interactive, or a name
    #[arg(long, value_name = "DESKTOP")]
    pub desktop: Option<String>,
    /// Limits for it, above the service's own
    #[arg(long, value_name = "NAME=VALUE")]
    pub limit: Vec<crate::run::limit::Setting>,
    /// By this folder or file, instead of /etc/stead
    #[arg(long, value_name = "PLACE", conflicts_with = "loaded")]
    pub policy: Option<PathBuf>,
    /// By what the running service has loaded
    #[arg(long)]
    pub loaded: bool,
    #[command(flatten)]
    pub form: Form,
}

/// Those that a policy gives.
#[cfg(unix)]
fn privileges() -> clap::builder::PossibleValuesParser {
    stead_broker::policy::Privilege::ALL.iter().map(|privilege| privilege.name()).collect::<Vec<_>>().into()
}

#[cfg(unix)]
const SERVE_AFTER: &str = "\
SIGHUP lets it read its policy anew, all or nothing. SIGTERM ends it; the processes that it created live on, and the next \
one knows them.

Exit status:
  0   it was told to end
  78  the policy has errors
  1   otherwise";

/// What the service is started with.
#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = SERVE_AFTER)]
pub struct ServeArguments {
    /// Where to listen, unless the service manager does [default: /run/stead/service.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The policy's folder [default: /etc/stead]
    #[arg(long, value_name = "FOLDER")]
    pub policy: Option<PathBuf>,
    /// Where to keep what the next run needs [default: /run/stead/service]
    #[arg(long, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// The session worker's program, instead of looking for it
    #[arg(long, value_name = "PROGRAM")]
    pub worker: Option<PathBuf>,
    /// Start each session's worker when it is logged on, and none before
    #[arg(long)]
    pub no_ready_workers: bool,
    /// Write the audit records to this file, as lines of JSON [default: /var/log/stead/audit.jsonl]
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Tell more on standard error
    #[arg(long, short)]
    pub verbose: bool,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// For running programs without the service, by one's own privileges
    #[cfg(unix)]
    #[arg(long)]
    pub embedded: bool,
    #[command(flatten)]
    pub form: Form,
}

#[cfg(unix)]
const RUN_AFTER: &str = "\
Without --as the program runs as the caller, in the directory where the command was started; as another user, in that \
user's home. Its environment is that of the account and of PAM, never the caller's. Its standard streams are the \
command's own; where one of them is a terminal, or with --pty, it gets a terminal of its own \
in its place, and what is typed and printed there goes through the command. Where others are no terminal, what is \
typed is left to the rest of the pipeline until the program asks for it.

The password is asked for on the terminal, or read from a descriptor. It is never an argument or a variable, for both can \
be seen by others.

Exit status:
  that of the program; if a signal ended it, the command dies of the same signal
  125  stead could not run it: the logon was refused, a privilege is missing, the usage was wrong
  126  the program is there and cannot be executed
  127  there is no such program";

#[cfg(windows)]
const RUN_AFTER: &str = "\
The password is read from standard input with --password-stdin. It is never an argument or a variable, for both can be \
seen by others.

Exit status:
  that of the program
  125  stead could not run it: the logon was refused, a privilege is missing, the usage was wrong
  126  the program is there and cannot be executed
  127  there is no such program";

/// What to run, as whom, and how.
#[derive(Debug, Args)]
#[command(after_help = RUN_AFTER)]
#[cfg_attr(
    unix,
    expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")
)]
pub struct RunArguments {
    /// Log this user on: NAME, DOMAIN\NAME or NAME@REALM
    #[arg(long = "as", value_name = "USER")]
    pub user: Option<OsString>,
    /// How the user logs on [default: interactive]
    #[arg(long, value_name = "TYPE", requires = "user", value_enum)]
    pub logon: Option<LogonKind>,
    /// Log on without a password, for the user was authenticated by other means
    #[arg(long, requires = "user")]
    pub s4u: bool,
    /// Read the password from this descriptor, up to the end of its first line
    #[cfg(unix)]
    #[arg(long, value_name = "FD", requires = "user", conflicts_with = "s4u")]
    pub password_fd: Option<u32>,
    /// Read the password from standard input, up to the end of its first line
    #[cfg(windows)]
    #[arg(long, requires = "user", conflicts_with = "s4u")]
    pub password_stdin: bool,
    /// Without the service, by the privileges that the command itself holds
    #[cfg(unix)]
    #[arg(long)]
    pub embedded: bool,
    /// Give the program a terminal of its own, also where there is none
    #[cfg(unix)]
    #[arg(long, overrides_with = "no_pty")]
    pub pty: bool,
    /// Give the program the command's own streams, also where they are a terminal
    #[cfg(unix)]
    #[arg(long)]
    pub no_pty: bool,
    /// Set a limit, such as nofile=256 or nproc=64:128 (soft:hard; K, M, G; `unlimited`)
    #[cfg(unix)]
    #[arg(long, value_name = "NAME=VALUE")]
    pub limit: Vec<crate::run::limit::Setting>,
    /// Let the program use a desktop: none, interactive, console, `:1`, /run/user/1000/wayland-0, /dev/tty3
    #[cfg(unix)]
    #[arg(long, value_name = "DESKTOP")]
    pub desktop: Option<OsString>,
    /// Set a variable; without a value, pass on the caller's own
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Start in this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub cwd: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// How a user logs on.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogonKind {
    /// As at the machine itself
    Interactive,
    /// As from the network
    Network,
    /// As from the network, with credentials that reach further
    NetworkCleartext,
    /// As a job without its user
    Batch,
    /// As a service
    Service,
}

#[cfg(unix)]
impl LogonKind {
    /// As the service's protocol has it.
    pub fn on_the_wire(self) -> stead_protocol::LogonType {
        match self {
            Self::Interactive => stead_protocol::LogonType::Interactive,
            Self::Network => stead_protocol::LogonType::Network,
            Self::NetworkCleartext => stead_protocol::LogonType::NetworkCleartext,
            Self::Batch => stead_protocol::LogonType::Batch,
            Self::Service => stead_protocol::LogonType::Service,
        }
    }
}

impl From<LogonKind> for LogonType {
    fn from(kind: LogonKind) -> Self {
        match kind {
            LogonKind::Interactive => Self::Interactive,
            LogonKind::Network => Self::Network,
            LogonKind::NetworkCleartext => Self::NetworkCleartext,
            LogonKind::Batch => Self::Batch,
            LogonKind::Service => Self::Service,
        }
    }
}

/// Reads the command line; what it asks for may be answered already (`--help`), or not be understood.
pub fn parse() -> Result<Arguments, Ending> {
    if let Some(run) = run_alone() {
        return Ok(Arguments { command: Subcommand::Run(run) });
    }
    Arguments::try_parse().map_err(|error| {
        let _ = error.print();
        if !error.use_stderr() {
            return Ending::GOOD;
        }
        let run = std::env::args_os().nth(1).is_some_and(|name| name == "run");
        Ending::Code(if run { STEAD_FAILED } else { 2 })
    })
}

/// What to run, where it is `run` and understood; all else is for the whole command line's parser to say.
///
/// This is a program that starts for each program, and laying out all that the others take costs more than all else that
/// is its own to do.
fn run_alone() -> Option<RunArguments> {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek()? != "run" {
        return None;
    }
    let command = RunArguments::augment_args(clap::Command::new("stead run"));
    let matches = command.try_get_matches_from(words).ok()?;
    RunArguments::from_arg_matches(&matches).ok()
}

/// Prints the completions for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<Ending, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "stead", &mut script);
    output::page(&String::from_utf8_lossy(&script))
}
