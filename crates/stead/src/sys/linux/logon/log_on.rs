//! The server's side of a logon: one worker, one attempt.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::PidfdFlags;

use super::message::{self, Failure, LogonGidRequest, Open, Phase, Reply, SecretBytes, Why};
use super::ready::{ReadyWorkers, give_up, is_fresh};
use super::session::{SessionHandle, send, within};
use super::{PAM_DIRECTORIES, detached, find, pam_code, wire};
use crate::error::{AccountRestriction, Error, ErrorKind, Result};
use crate::sys::impersonate::as_server;
use crate::sys::process::{reap_within, sweep};

/// Where the counter of logon gids is.
const STATE: &CStr = c"/var/lib/stead";
/// What a worker that shall stop has, to undo what it began.
const UNDO: Duration = Duration::from_millis(500);

/// How an account is to be logged on; everything is checked for NUL.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Request<'a> {
    pub(crate) user: CString,
    pub(crate) exact_name: bool,
    pub(crate) service: CString,
    pub(crate) authenticate: bool,
    /// Whether an account may log on whose password is empty.
    pub(crate) empty_password: bool,
    pub(crate) secret: Option<SecretBytes>,
    pub(crate) tty: Option<CString>,
    pub(crate) remote_host: Option<CString>,
    pub(crate) remote_user: Option<CString>,
    pub(crate) environment: Vec<CString>,
    /// The directory of the counter, where it is not the default; first and last.
    pub(crate) logon_gid: Option<(Option<CString>, u32, u32)>,
    pub(crate) detached: bool,
    pub(crate) deadline: Duration,
    pub(crate) worker: Option<&'a Path>,
    pub(crate) ready: Option<&'a ReadyWorkers>,
}

/// What a module asks or tells.
pub(crate) enum Question<'a> {
    Prompt { text: &'a str, echo: bool },
    Inform { text: &'a str, error: bool },
}

/// Answers prompts; `None` refuses.
pub(crate) type Answer<'a> = &'a mut dyn FnMut(Question<'_>) -> Option<SecretBytes>;

/// Logs on: one attempt.
pub(crate) fn log_on(mut request: Request<'_>, answer: Option<Answer<'_>>) -> Result<SessionHandle> {
    sweep();
    let doing = format!("logging on {}", request.user.to_string_lossy());
    let deadline = Instant::now() + request.deadline;
    let service = request.service.clone();
    let id = random_id(&doing)?;
    let configured = request.worker;
    let start = || as_server(|| find::start(configured, deadline));
    let (ready, socket) = as_server(|| {
        check_service(&doing, &service)?;
        let socket = if request.detached { Some(detached::socket_for(id)?) } else { None };
        Ok::<_, Error>((request.ready.and_then(|ready| ready.take(&service, configured)), socket))
    })?;
    let open = Open {
        id,
        service: request.service,
        user: request.user,
        exact_name: request.exact_name,
        authenticate: request.authenticate,
        empty_password: request.empty_password,
        secret: request.secret.take(),
        conversation: answer.is_some(),
        tty: request.tty,
        remote_host: request.remote_host,
        remote_user: request.remote_user,
        environment: request.environment,
        logon_gid: request.logon_gid.map(|(directory, first, last)| LogonGidRequest {
            directory: directory.unwrap_or_else(|| STATE.to_owned()),
            first,
            last,
        }),
        socket,
    };
    let was_ready = ready.is_some();
    let find::NewWorker { socket, process, path } = ready.map_or_else(start, Ok)?;
    let mut dialog =
        Dialog { doing, socket, process: Some(process), deadline, service, answer, path, heard: false };
    match dialog.begin(open, was_ready, start).and_then(|()| dialog.run()) {
        Ok(snapshot) => {
            tracing::info!(
                session = format_args!("{:016x}", snapshot.id),
                uid = snapshot.account.uid.as_raw(),
                service = %dialog.service.to_string_lossy(),
                "logon session opened"
            );
            let process = dialog.process.take();
            Ok(SessionHandle::new(dialog.socket, process, snapshot))
        }
        Err(error) => {
            // An error names the account, the service and PAM's own text: never what was answered.
            tracing::warn!(%error, service = %dialog.service.to_string_lossy(), "logon refused");
            dialog.abandon();
            Err(error)
        }
    }
}

struct Dialog<'a> {
    doing: String,
    socket: OwnedFd,
    process: Option<OwnedFd>,
    deadline: Instant,
    service: CString,
    answer: Option<Answer<'a>>,
    /// The worker's program.
    path: PathBuf,
    /// Whether it has said anything yet.
    heard: bool,
}

impl Dialog<'_> {
    /// Tells the worker who is to be logged on; and another one, where it was ready for what would not be begun so any more.
    ///
    /// One that was ready has been asked whether it still is, and is told before it has answered: it does not begin before.
    fn begin(
        &mut self,
        open: Open,
        was_ready: bool,
        another: impl FnOnce() -> Result<find::NewWorker>,
    ) -> Result<()> {
        let open = message::Request::Open(Box::new(open));
        let told = self.tell(&open);
        if !was_ready || (told.is_ok() && is_fresh(&self.socket, self.deadline)) {
            return told;
        }
        // One that answers too late has been told already, and would log on beside the other one.
        if let Some(stale) = self.process.take() {
            give_up(stale);
        }
        let find::NewWorker { socket, process, path } = another()?;
        (self.socket, self.process, self.path) = (socket, Some(process), path);
        self.tell(&open)
    }

    fn tell(&self, open: &message::Request) -> Result<()> {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|errno| Error::system(self.doing.clone(), "pidfd_open", errno))?;
        match send(&self.socket, open, &[own.as_fd()]) {
            // A worker of another version answers when it has read the beginning, and is gone: its answer says why.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(self.lost(error)),
            _ => Ok(()),
        }
    }

    fn run(&mut self) -> Result<message::Snapshot> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if let Err(error) = within(&self.socket, left) {
                if error.kind() == std::io::ErrorKind::TimedOut {
                    let waiting_for = format!("the PAM service {}", self.service.to_string_lossy()).into();
                    return Err(Error::new(self.doing.clone(), ErrorKind::DeadlinePassed { waiting_for }));
                }
                return Err(self.lost(error));
            }
            let frame = match wire::receive(&self.socket) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(self.lost(std::io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(self.lost(error)),
            };
            self.heard = true;
            match Reply::decode(frame.kind, &frame.body) {
                Some(Reply::Opened(snapshot)) => return Ok(*snapshot),
                Some(Reply::Failed(failure)) => return Err(self.failed(failure)),
                Some(Reply::Prompt { echo, text }) => {
                    let answer = self.ask(&Question::Prompt { text: &String::from_utf8_lossy(&text), echo });
                    send(&self.socket, &message::Request::Answer(answer), &[])
                        .map_err(|error| self.lost(error))?;
                }
                Some(Reply::Inform { error, text }) => {
                    self.ask(&Question::Inform { text: &String::from_utf8_lossy(&text), error });
                }
                _ => return Err(self.lost(std::io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// The time that an answer takes is not PAM's.
    fn ask(&mut self, question: &Question<'_>) -> Option<SecretBytes> {
        let before = Instant::now();
        let question = match question {
            Question::Prompt { text, echo } => Question::Prompt { text, echo: *echo },
            Question::Inform { text, error } => Question::Inform { text, error: *error },
        };
        let answer = self.answer.as_mut().and_then(|answer| answer(question));
        self.deadline += before.elapsed();
        answer
    }

    fn lost(&self, error: std::io::Error) -> Error {
        let path = self.path.display();
        let why = if wire::OtherVersion::is(&error) {
            format!(
                "the session worker at {path} is of another version: reinstall it, together with this program"
            )
        } else if self.heard {
            "it ended in the middle of the logon".to_owned()
        } else {
            // So did workers that could not say of which version they are.
            format!(
                "the session worker at {path} ended before it answered: if it is of another version, reinstall it"
            )
        };
        Error::new(self.doing.clone(), ErrorKind::WorkerUnavailable { why: why.into() }).with_source(error)
    }

    /// Lets the worker undo what it began, for a bounded time.
    fn abandon(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let Some(process) = self.process.take() else { return };
        // Where a module hangs: it must not hold the account's secret and the server's rights for ever.
        reap_within(process, UNDO);
    }

    fn failed(&self, failure: Failure) -> Error {
        let Failure { phase, why, code, text } = failure;
        let error = |kind| Error::new(self.doing.clone(), kind);
        let said = |text: String| std::io::Error::other(text);
        match why {
            Why::Pam => self.refused(phase, code, text),
            Why::Library => {
                error(ErrorKind::WorkerUnavailable { why: format!("PAM cannot be loaded: {text}").into() })
            }
            // Authentication does not say which part was wrong; without authentication there is no secret
            // to protect.
            Why::AccountUnknown if phase == Phase::Authenticate => error(ErrorKind::LogonFailed),
            Why::AccountUnknown => error(ErrorKind::AccountUnknown { name: text }),
            Why::OtherUser => error(ErrorKind::LogonFailed)
                .with_source(said(format!("a PAM module put {text:?} into the account's place"))),
            Why::NoIdentity => error(ErrorKind::NoIdentity { what: text.into() }),
            Why::Unanswered => error(ErrorKind::InvalidInput {
                what: format!(
                    "the PAM service {} asks {text:?}, which only a conversation can answer",
                    self.service.to_string_lossy()
                )
                .into(),
            }),
            Why::System => {
                let source = std::io::Error::from_raw_os_error(code);
                Error::system(format!("{}: {text}", self.doing), phase_call(phase), source)
            }
            Why::Stated if phase == Phase::LogonGid => error(ErrorKind::InvalidInput { what: text.into() }),
            Why::Stated => Error::system(self.doing.clone(), phase_call(phase), said(text)),
        }
    }

    /// What PAM refused, by phase: the same number means different things.
    fn refused(&self, phase: Phase, code: i32, text: String) -> Error {
        use AccountRestriction as Restriction;
        let restricted = |restriction| ErrorKind::AccountRestriction { restriction };
        let kind = match (phase, code) {
            (_, pam_code::ACCT_EXPIRED) => restricted(Restriction::AccountExpired),
            (_, pam_code::NEW_AUTHTOK_REQD | pam_code::AUTHTOK_EXPIRED | pam_code::CRED_EXPIRED) => {
                restricted(Restriction::PasswordExpired)
            }
            (_, pam_code::MAXTRIES) => restricted(Restriction::AccountLocked),
            (
                Phase::Authenticate,
                pam_code::AUTH_ERR
                | pam_code::USER_UNKNOWN
                | pam_code::CRED_INSUFFICIENT
                | pam_code::PERM_DENIED
                // What pam_exec says when its program refuses: a wrong one-time code, for instance.
                | pam_code::SYSTEM_ERR,
            )
            | (Phase::Account, pam_code::USER_UNKNOWN) => ErrorKind::LogonFailed,
            (Phase::ChangePassword, _) => restricted(Restriction::PasswordExpired),
            (Phase::Account, pam_code::AUTH_ERR) => {
                ErrorKind::LogonTypeDenied { logon_type: self.service.to_string_lossy().into_owned().into() }
            }
            (_, pam_code::PERM_DENIED) => restricted(Restriction::PolicyForbids),
            _ => ErrorKind::System { call: phase_call(phase) },
        };
        let error = Error::new(self.doing.clone(), kind);
        match error.kind() {
            ErrorKind::LogonFailed => error,
            _ => error.with_source(std::io::Error::other(text)),
        }
    }
}

fn phase_call(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "pam_start",
        Phase::Authenticate => "pam_authenticate",
        Phase::Account => "pam_acct_mgmt",
        Phase::ChangePassword => "pam_chauthtok",
        Phase::Groups => "taking on the groups",
        Phase::Establish => "pam_setcred",
        Phase::OpenSession => "pam_open_session",
        Phase::LogonGid => "setgroups",
        Phase::Snapshot => "reading the session's context",
        Phase::Listen => "listening for the next server",
    }
}

/// A service without a file would be PAM's `other`, which denies or, on old systems, permits.
fn check_service(doing: &str, service: &CStr) -> Result<()> {
    let invalid =
        |what: String| Err(Error::new(doing.to_owned(), ErrorKind::InvalidInput { what: what.into() }));
    // pam_start folds the case before it looks (_pam_strCMP, libpam/pam_start.c).
    let name = service.to_string_lossy().to_ascii_lowercase();
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return invalid(format!("{name:?} is no name of a PAM service"));
    }
    if PAM_DIRECTORIES.iter().any(|directory| Path::new(directory).join(&name).is_file()) {
        return Ok(());
    }
    invalid(format!("the PAM service {name} has no file: create /etc/pam.d/{name}, or name another service"))
}

fn random_id(doing: &str) -> Result<u64> {
    loop {
        let mut bytes = [0; 8];
        let length = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::system(doing.to_owned(), "getrandom", errno))?;
        match u64::from_ne_bytes(bytes) {
            0 => {}
            id if length == bytes.len() => return Ok(id),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec};
    use rustix::process::Pid;

    use super::*;

    /// The dialog of a logon with this worker, and its end of the socket.
    fn dialog<'a>(process: Option<OwnedFd>, deadline: Duration) -> (Dialog<'a>, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let dialog = Dialog {
            doing: "logging on alice".to_owned(),
            socket,
            process,
            deadline: Instant::now() + deadline,
            service: c"stead-batch".to_owned(),
            answer: None,
            path: "/usr/libexec/stead/stead-session".into(),
            heard: false,
        };
        (dialog, theirs)
    }

    fn open() -> Open {
        Open {
            id: 1,
            service: c"stead-batch".to_owned(),
            user: c"alice".to_owned(),
            exact_name: true,
            authenticate: false,
            empty_password: false,
            secret: None,
            conversation: false,
            tty: None,
            remote_host: None,
            remote_user: None,
            environment: Vec::new(),
            logon_gid: None,
            socket: None,
        }
    }

    /// What a logon says whose worker, of another version, hears the request and then does this.
    fn refusal(worker: impl FnOnce(OwnedFd) + Send) -> String {
        let (mut dialog, theirs) = dialog(None, Duration::from_secs(30));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                rustix::io::read(&theirs, &mut [0; 4096]).unwrap();
                worker(theirs);
            });
            let no_other = || panic!("it was not ready");
            dialog.begin(open(), false, no_other).and_then(|()| dialog.run()).unwrap_err().to_string()
        })
    }

    #[test]
    fn a_worker_that_answers_too_late_whether_it_is_ready_has_ended_before_another_is_told() {
        let mut worker = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&worker), PidfdFlags::empty()).unwrap();
        let stale = pidfd.try_clone().unwrap();
        let (mut dialog, _says_nothing) = dialog(Some(stale), Duration::from_millis(20));
        let refused = dialog.begin(open(), true, || {
            let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
            let ended = rustix::event::poll(&mut watched, Some(&Timespec::default())).unwrap();
            assert_eq!(ended, 1, "it was told of the logon, and may take it up at any time");
            Err(Error::new("starting another", ErrorKind::SessionEnded))
        });
        assert_eq!(*refused.unwrap_err().kind(), ErrorKind::SessionEnded);
        // Reaped already.
        assert!(worker.wait().is_err());
    }

    #[test]
    fn a_worker_of_another_version_is_called_that_and_to_be_reinstalled() {
        let said = refusal(|socket| {
            rustix::io::write(&socket, &[0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        });
        let expected =
            "the session worker at /usr/libexec/stead/stead-session is of another version: reinstall it";
        assert!(said.contains(expected) && said.contains("version 1.9"), "{said}");
        // One from before workers answered that.
        let said = refusal(drop);
        assert!(said.contains("if it is of another version, reinstall it"), "{said}");
    }
}
