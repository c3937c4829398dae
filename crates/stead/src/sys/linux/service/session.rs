//! Logon sessions that the service keeps.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use stead_protocol::conversation::{Question, encode_answer};
use stead_protocol::{
    Account, CloseSession, Lifetime, ListProcesses, ListSessions, LogOn, LogonType as Kind, OpenSession,
    OpenedSession, OpenedToken, TerminateSession, Text, Variable,
};

use super::connection::{Line, PATIENCE, Service};
use super::error::{not_through, undescribed};
use super::process::{kill_tree, milliseconds, status};
use super::token::{context, described};
use crate::error::{Error, ErrorKind, Result};
use crate::logon::{Conversation, Logon, LogonType, Prompt, Secret};
use crate::os::linux::LogonGid;
use crate::sys::account::AccountEntry;
use crate::sys::elsewhere::SessionElsewhere;
use crate::sys::impersonate::as_server;
use crate::sys::logon::{SessionHandle, Snapshot};
use crate::token::{Primary, Token};

/// A session that the service keeps.
struct Kept {
    service: Arc<Service>,
    /// What holds it at the service.
    line: Arc<Line>,
    id: String,
    /// Processes that were there before, each at the place that is its number here.
    processes: Vec<String>,
}

impl SessionElsewhere for Kept {
    fn processes(&self) -> Result<Vec<u32>> {
        const DOING: &str = "listing the processes of the logon session through the service";
        let listed = self.service.call(DOING, &ListSessions {}, PATIENCE)?;
        let session = listed.sessions.into_iter().find(|session| session.id == self.id);
        session.map(|session| session.pids).ok_or_else(|| Error::new(DOING, ErrorKind::SessionEnded))
    }

    fn terminate(&self) -> Result<()> {
        let call = TerminateSession { session: self.id.clone() };
        self.service.call(
            "ending the processes of the logon session through the service",
            &call,
            PATIENCE,
        )?;
        Ok(())
    }

    fn exit_status(&self, process: u32) -> Result<Option<i32>> {
        status(&self.service, self.earlier(process)?)
    }

    fn kill_tree(&self, process: u32) -> Result<()> {
        kill_tree(&self.service, self.earlier(process)?)
    }

    fn ending(&self, terminate: bool) -> Box<dyn FnOnce() -> Result<()> + Send> {
        let (line, call) = (Arc::clone(&self.line), CloseSession { session: self.id.clone(), terminate });
        Box::new(move || close(line, &call))
    }
}

/// Closes it by the connection that holds it: what PAM says then is told to who holds it, and lost if nobody does.
fn close(mut line: Arc<Line>, call: &CloseSession) -> Result<()> {
    let mut pause = SHORTEST;
    // Its other tokens and children have the connection, too.
    let line = loop {
        match Arc::try_unwrap(line) {
            Ok(line) => break line,
            Err(same) => line = same,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    };
    let service = Arc::clone(&line.service);
    match line.close(ENDING, call) {
        // It was started anew.
        Err(error) if matches!(error.kind(), ErrorKind::ServiceUnavailable { .. }) => {
            wait_for_end(&service, call)
        }
        Err(error) if *error.kind() == ErrorKind::SessionEnded => Ok(()),
        closed => closed,
    }
}

const ENDING: &str = "ending the logon session through the service";
/// How long it is waited between two looks.
const SHORTEST: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_millis(250);

/// Asks until it is closed: while a process of it lives, or anybody holds it, the service says so at once.
fn wait_for_end(service: &Service, call: &CloseSession) -> Result<()> {
    let mut pause = SHORTEST;
    loop {
        match service.call(ENDING, call, PATIENCE) {
            Err(error) => match error.kind() {
                ErrorKind::DeadlinePassed { .. } => {}
                // By the service itself, once its last process had ended.
                ErrorKind::SessionEnded => return Ok(()),
                _ => return Err(error),
            },
            Ok(_) => return Ok(()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
}

impl Kept {
    fn earlier(&self, process: u32) -> Result<String> {
        let found = usize::try_from(process).ok().and_then(|at| self.processes.get(at));
        found.cloned().ok_or_else(|| Error::new("finding a process of the session", ErrorKind::StatusLost))
    }
}

/// Logs on through the service: one attempt.
pub(crate) fn log_on(logon: Logon, service: &Arc<Service>) -> Result<(Token<Primary>, Arc<SessionHandle>)> {
    const DOING: &str = "logging on through the service";
    let doing = format!("logging on {} through the service", logon.account);
    refuse_what_stays_here(&logon, &doing)?;
    let mut descriptors = Vec::new();
    let secret = logon.secret.map(|secret| send_secret(secret, &doing)).transpose()?;
    let secret = secret.map(|secret| push(&mut descriptors, secret));
    let mut talk = None;
    let mut conversation = None;
    if let Some(answers) = logon.conversation {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| Error::system(doing.clone(), "socketpair", source))?;
        conversation = Some(push(&mut descriptors, theirs.into()));
        talk = Some((ours, answers));
    }
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Variable {
        name: Text::from(name.as_os_str()),
        value: Text::from(value.as_os_str()),
    };
    let native = logon.native;
    let text = |value: Option<std::ffi::OsString>| value.map(|value| Text::from(value.as_os_str()));
    // The time that a person takes to answer does not count.
    let patience = talk.is_none().then(|| logon.deadline.saturating_add(PATIENCE));
    let call = LogOn {
        account: Account { name: logon.account.name().into(), local: logon.account.is_local() },
        logon_type: kind(logon.kind),
        secret,
        conversation,
        s4u: !logon.authenticate,
        environment: logon.environment.into_iter().map(variable).collect(),
        tty: text(native.tty),
        remote_host: text(native.remote_host),
        remote_user: text(native.remote_user),
        logon_gid: native.logon_gid.is_some(),
        lifetime: match logon.lifetime {
            crate::logon::Lifetime::TiedToServer => Lifetime::Tied,
            crate::logon::Lifetime::Detached => Lifetime::Detached,
        },
        deadline: Some(milliseconds(logon.deadline)),
    };
    let line = Arc::new(Line::new(service)?);
    // The descriptors are dropped with the reply: at the latest then the conversation has an end.
    let ask = |descriptors: Vec<OwnedFd>| {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        line.call(doing.clone(), &call, &borrowed, patience)
    };
    let result = match talk {
        None => ask(descriptors),
        Some((mut socket, mut answers)) => as_server(|| {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| ask(descriptors));
                converse(&mut socket, answers.as_mut());
                drop(socket);
                asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        }),
    };
    opened(&line, result?.0, Vec::new(), DOING)
}

/// Opens a session again that this server, or one of its uid before it, opened.
pub(crate) fn open_session(
    service: &Arc<Service>,
    id: String,
) -> Result<(Token<Primary>, Arc<SessionHandle>)> {
    const DOING: &str = "opening a session of the service again";
    let call = ListProcesses { session: Some(id.clone()) };
    let line = Arc::new(Line::new(service)?);
    let (session, _) = line.call(DOING, &OpenSession { session: id }, &[], Some(PATIENCE))?;
    let (listed, _) = line.call(DOING, &call, &[], Some(PATIENCE))?;
    let processes = listed.processes.into_iter().map(|process| (process.id, process.pid)).collect();
    opened(&line, session, processes, DOING)
}

/// A session that the service has.
pub(crate) struct Known {
    pub(crate) id: u64,
    pub(crate) user: std::ffi::OsString,
    pub(crate) pids: Vec<u32>,
}

/// The sessions that this server may see.
pub(crate) fn sessions(service: &Service) -> Result<Vec<Known>> {
    const DOING: &str = "listing the service's sessions";
    let listed = service.call(DOING, &ListSessions {}, PATIENCE)?;
    let known = |session: stead_protocol::Session| {
        Some(Known { id: number(&session.id)?, user: session.user_name.into(), pids: session.pids })
    };
    listed.sessions.into_iter().map(|session| known(session).ok_or_else(|| undescribed(DOING))).collect()
}

fn opened(
    line: &Arc<Line>,
    opened: OpenedSession,
    processes: Vec<(String, u32)>,
    doing: &'static str,
) -> Result<(Token<Primary>, Arc<SessionHandle>)> {
    if opened.session.lifetime == Lifetime::Tied {
        line.tie(opened.session.id.clone());
    }
    let snapshot = snapshot(&opened, &processes).ok_or_else(|| undescribed(doing))?;
    let kept = Kept {
        service: Arc::clone(&line.service),
        line: Arc::clone(line),
        id: opened.session.id,
        processes: processes.into_iter().map(|(id, _)| id).collect(),
    };
    let handle = Arc::new(SessionHandle::elsewhere(Box::new(kept), snapshot));
    let level = opened.context.level.into();
    let token = OpenedToken { token: opened.token, context: opened.context };
    let token = described(line, &token, level, Some(Arc::clone(&handle)), doing)?;
    Ok((token, handle))
}

/// The session as this process describes it.
fn snapshot(opened: &OpenedSession, processes: &[(String, u32)]) -> Option<Snapshot> {
    let context = context(&opened.context)?;
    let c_string = |text: &Text| CString::new(text.as_bytes()).ok();
    let of_name = |name: &str| {
        let found = opened.environment.iter().find(|variable| variable.name.as_bytes() == name.as_bytes());
        found.map_or_else(|| Some(CString::default()), |variable| c_string(&variable.value))
    };
    let entry = |variable: &Variable| {
        CString::new([variable.name.as_bytes(), b"=", variable.value.as_bytes()].concat()).ok()
    };
    let process = |(number, (_, pid)): (usize, &(String, u32))| {
        Some((u32::try_from(number).ok()?, i32::try_from(*pid).ok()?))
    };
    Some(Snapshot {
        id: number(&opened.session.id)?,
        account: AccountEntry {
            name: c_string(&opened.session.user_name)?,
            uid: context.uid,
            gid: context.gid,
            home: of_name("HOME")?,
            shell: of_name("SHELL")?,
        },
        context,
        environment: opened.environment.iter().map(entry).collect::<Option<_>>()?,
        umask: opened.umask,
        exec_label: None,
        logon_gid: opened.context.logon_gid,
        audit_session: opened.audit_session,
        processes: processes.iter().enumerate().map(process).collect::<Option<_>>()?,
    })
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok().filter(|number| format!("{number:016x}") == id)
}

fn kind(kind: LogonType) -> Kind {
    match kind {
        LogonType::Interactive => Kind::Interactive,
        LogonType::Network => Kind::Network,
        LogonType::NetworkCleartext => Kind::NetworkCleartext,
        LogonType::Batch => Kind::Batch,
        LogonType::Service => Kind::Service,
    }
}

/// What is for the service's administrator to say, or for this process alone.
fn refuse_what_stays_here(logon: &Logon, doing: &str) -> Result<()> {
    let native = &logon.native;
    let what = if native.service.is_some() {
        "a PAM service by name (the logon type says which)"
    } else if logon.native.worker.is_some() || logon.native.ready.is_some() {
        "a session worker of this server's"
    } else if native.logon_gid.as_ref().is_some_and(|wanted| *wanted != LogonGid::default()) {
        "a range or a counter of logon gids of this server's"
    } else {
        return Ok(());
    };
    Err(not_through(doing.to_owned(), what))
}

fn push(descriptors: &mut Vec<OwnedFd>, descriptor: OwnedFd) -> stead_protocol::Index {
    descriptors.push(descriptor);
    stead_protocol::Index::try_from(descriptors.len() - 1).unwrap_or(stead_protocol::Index::MAX)
}

/// A pipe that the service reads the secret from: it stands in no message.
fn send_secret(secret: Secret, doing: &str) -> Result<OwnedFd> {
    let secret = secret.into_bytes();
    if secret.contains(&0) || secret.len() > stead_protocol::LONGEST_SECRET {
        let what =
            if secret.contains(&0) { "the secret contains a NUL byte" } else { "the secret is too long" };
        return Err(Error::new(doing.to_owned(), ErrorKind::InvalidInput { what: what.into() }));
    }
    let system = |call| move |source| Error::system(doing.to_owned(), call, std::io::Error::from(source));
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(system("pipe"))?;
    // An empty pipe takes a page at least (pipe(7)), so that this waits for nobody.
    std::fs::File::from(writer)
        .write_all(&secret)
        .map_err(|source| Error::system(doing.to_owned(), "write", source))?;
    Ok(reader)
}

/// Answers questions until the logon is over.
fn converse(socket: &mut UnixStream, answers: &mut dyn Conversation) {
    let mut message = Vec::new();
    let mut byte = [0];
    // Byte by byte: a question follows an answer, and none is long.
    while let Ok(1) = socket.read(&mut byte) {
        if byte[0] != 0 {
            message.push(byte[0]);
            if message.len() > stead_protocol::LARGEST_MESSAGE {
                return;
            }
            continue;
        }
        let answer = match Question::decode(&message) {
            Ok(Question::Prompt { text, echo }) => {
                let answer = answers.answer(&Prompt { text: &text, echo }).map(Secret::into_bytes);
                encode_answer(answer.as_ref().map(|answer| answer.as_slice()))
            }
            Ok(Question::Inform { text, error }) => {
                answers.inform(&text, error);
                zeroize::Zeroizing::default()
            }
            Err(_) => return,
        };
        message.clear();
        if socket.write_all(&answer).is_err() {
            return;
        }
    }
}
