//! What the service is asked for, beside running programs: sessions, processes, the audit stream.

mod monitor;
mod processes;
mod sessions;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stead::os::linux::{Uid, User};
use stead_protocol::client::{CallError, Connection};
use stead_protocol::{GetStatus, ListSessions, Method, SOCKET, SOCKET_VARIABLE, Status};

use crate::ending::{Ending, Failure, system};

pub use monitor::monitor;
pub use processes::{kill, ps};
pub use sessions::{logoff, sessions};

/// A service answers at once, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long something waits for it that can do without.
const SOON: Duration = Duration::from_secs(5);

/// Where the service listens.
pub fn path() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| SOCKET.into(), PathBuf::from)
}

/// Why there is no connection, and what would mend it.
pub fn unreachable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let path = path.display();
    match error.kind() {
        NotFound | ConnectionRefused => Failure::new(format_args!(
            "no service listens at {path}: start it with systemctl start stead.socket, or `stead serve` as root"
        )),
        _ => Failure::new(format_args!("connecting to the service at {path}: {}", system(error))),
    }
}

/// A connection to the service.
pub struct Line(Connection);

impl Line {
    /// Connects.
    pub fn open() -> Result<Self, Failure> {
        let path = path();
        Self::connect(&path, Some(PATIENCE)).map_err(|error| unreachable(&path, &error))
    }

    /// The same, with what the system says.
    pub fn connect(path: &std::path::Path, patience: Option<Duration>) -> std::io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        // The ids of whoever called listen(2): anybody else could make up sessions, processes and records.
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        if !peer.uid.is_root() {
            let why = format!("it is of uid {} and not of root", peer.uid.as_raw());
            return Err(std::io::Error::other(why));
        }
        socket.set_read_timeout(patience)?;
        socket.set_write_timeout(patience)?;
        Ok(Self(Connection::from(socket)))
    }

    /// Calls a method.
    pub fn call<M: Method>(&mut self, call: &M) -> Result<M::Reply, Failure> {
        self.try_call(call).map_err(Failure::new)
    }

    /// Calls a method, and tells a refusal from a failure.
    pub fn try_call<M: Method>(&mut self, call: &M) -> Result<M::Reply, CallError> {
        Ok(self.0.call(call, &[])?.0)
    }
}

/// Does it with each of them, and says with which it failed.
fn each(all: &[String], mut act: impl FnMut(&str) -> Result<(), Failure>) -> Ending {
    let mut ending = Ending::GOOD;
    for one in all {
        if let Err(failure) = act(one) {
            ending = failure.of(one).tell();
        }
    }
    ending
}

/// What the service says of itself.
pub fn status(path: &std::path::Path, patience: Duration) -> Result<Status, CallError> {
    Line::connect(path, Some(patience))?.try_call(&GetStatus {})
}

/// The logon session that the service has a process in; none where no service answers that.
pub fn session_of(pid: u32) -> Option<String> {
    let mut line = Line::connect(&path(), Some(SOON)).ok()?;
    // Seen from another PID namespace the number would be another's.
    if line.try_call(&GetStatus {}).ok()?.confined.is_some() {
        return None;
    }
    let sessions = line.try_call(&ListSessions {}).ok()?.sessions;
    sessions.into_iter().find(|session| session.pids.contains(&pid)).map(|session| session.id)
}

/// A user's name and number.
fn named(uid: u32) -> String {
    let user = Uid::new(uid).and_then(|uid| User::by_uid(uid).ok().flatten());
    user.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name().to_string_lossy()))
}

/// How long ago, in the two largest units.
fn ago(since: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seconds = now.saturating_sub(since);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}
