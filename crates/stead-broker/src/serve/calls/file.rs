//! Files, opened as a client by a helper process that is the client.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use stead::os::linux::{CommandExt, User};
use stead::{Command, Stdio};
use stead_protocol::{Failure, FailureKind, OpenFile, OpenedFile, SystemError};

use super::explain::logon_type;
use crate::policy::{LogonRequest, Privilege, Request, RuleRef, Subject};
use crate::serve::failure::{failure, invalid, system};
use crate::serve::helper::{self, Told};
use crate::serve::service::Service;
use crate::serve::state::State;
use crate::serve::token::{Held, Origin};

/// How long a helper may take where the caller does not say.
const USUAL: Duration = Duration::from_secs(10);
/// How long it may take at most.
const LONGEST: Duration = Duration::from_secs(60);

/// Opens a file with the rights of a token.
pub(super) fn open(
    service: &Service,
    state: &State,
    call: &OpenFile,
) -> Result<(OpenedFile, OwnedFd), Failure> {
    let held = state.token(call.token)?;
    let doing = format!("opening {} as uid {}", call.path.to_string_lossy(), held.uid());
    let subject = held.subject()?;
    let session = match &held.origin {
        Origin::Logon { session, .. } => Some(session.id().to_string()),
        _ => None,
    };
    let rule = decide(service, state, held, &subject);
    let opened = rule.clone().and_then(|_| open_as(service, held, call, doing));
    let failed = opened.as_ref().err();
    service.note_file(&state.caller, &subject, session, call, rule.as_ref().ok(), failed);
    opened
}

/// Whether it may be opened: by which rule.
fn decide(service: &Service, state: &State, held: &Held, subject: &Subject) -> Result<RuleRef, Failure> {
    let impersonate = Request::new(Privilege::Impersonate, subject);
    if let Origin::Logon { kind, s4u: false, .. } = &held.origin {
        // Who gave its own credentials to the caller did so to be acted for. That it takes them is the policy's to give, and
        // the policy's to take.
        let logon = Request::new(Privilege::Logon, subject).logon(LogonRequest::Type(logon_type(*kind)));
        let decision = service.decide(&state.caller, &logon)?;
        if held.taken.is_empty() {
            return Ok(decision.rule);
        }
    }
    Ok(service.decide(&state.caller, &impersonate)?.rule)
}

fn open_as(
    service: &Service,
    held: &Held,
    call: &OpenFile,
    doing: String,
) -> Result<(OpenedFile, OwnedFd), Failure> {
    // The home directory of one without an account would be the root directory.
    let absolute = call.path.as_bytes().starts_with(b"/");
    if !absolute && User::by_uid(held.uid()).map_err(|error| failure(&error))?.is_none() {
        return Err(invalid(&doing, "it is relative, and the client has no home directory"));
    }
    let place = service.helpers.place(held.uid()).ok_or_else(|| {
        let limit = format!("files that are being opened as uid {}", held.uid());
        FailureKind::LimitReached { limit }.while_doing(doing.clone())
    })?;
    let program = service.helpers.program().map_err(|error| system(&doing, "memfd_create", error))?;
    let token = held.to_primary().map_err(|error| failure(&error))?;
    let patience = call.deadline.map_or(USUAL, Duration::from_millis).min(LONGEST);
    let until = Instant::now() + patience;

    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| system(&doing, "socketpair", errno))?;
    let request = serde_json::to_vec(call).map_err(|error| invalid(&doing, error.to_string()))?;
    rustix::net::send(&ours, &request, SendFlags::NOSIGNAL).map_err(|errno| system(&doing, "send", errno))?;
    let mut command = Command::pinned(program);
    command.arg0("stead-open-file").arg(helper::ARGUMENT).env_clear().stdin(Stdio::from(theirs));
    if absolute {
        // Only a relative path needs the home directory.
        command.current_dir("/");
    }
    command.deadline(patience);
    let mut helper = command.spawn_as(&token).map_err(|error| failure(&error))?;
    drop(command);
    let told = hear(&ours, until);
    // Whatever became of it: it has nothing more to do. Its place is free only when it is gone.
    let _ = helper.kill();
    drop(ours);
    // Where no thread can be had it is reaped with the next process.
    let _ = std::thread::Builder::new().spawn(move || {
        let _ = helper.wait();
        drop(place);
    });
    match told.map_err(|errno| system(&doing, "recvmsg", errno))? {
        None => {
            let kind = FailureKind::DeadlinePassed { waiting_for: "the file to be opened".to_owned() };
            Err(kind.while_doing(doing))
        }
        Some((Told::Opened, Some(file))) => Ok((OpenedFile { file: 0 }, file)),
        Some((Told::Failed { call: name, errno }, _)) => Err(not_opened(doing, call, &name, errno)),
        Some((Told::Special, _)) => {
            Err(invalid(&doing, format!("{} is neither a file nor a directory", call.path.to_string_lossy())))
        }
        Some((Told::Options(what), _)) => Err(invalid(&doing, what)),
        Some((Told::Opened, None)) => {
            Err(FailureKind::LimitReached { limit: "descriptors of the service".to_owned() }
                .while_doing(doing))
        }
    }
}

/// The helper's answer; none when the time is over, or it ended without one.
fn hear(socket: &OwnedFd, until: Instant) -> Result<Option<(Told, Option<OwnedFd>)>, Errno> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut file = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut some) = message {
            file = some.next();
        }
    }
    let told = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default());
    Ok(told.ok().map(|told| (told, file)))
}

fn not_opened(doing: String, call: &OpenFile, name: &str, errno: i32) -> Failure {
    let object = call.path.to_string_lossy().into_owned();
    // The helper is the client, who may have it say any number.
    let errno = if (1..4096).contains(&errno) { errno } else { Errno::IO.raw_os_error() };
    let kind = match Errno::from_raw_os_error(errno) {
        // ELOOP: a magic link, or too many symbolic ones.
        Errno::ACCESS | Errno::PERM | Errno::LOOP => FailureKind::AccessDenied { object },
        Errno::NOENT | Errno::NOTDIR => FailureKind::NotFound { object },
        _ => FailureKind::System { call: name.to_owned() },
    };
    let text = io::Error::from_raw_os_error(errno).to_string();
    Failure { doing, kind, system: Some(SystemError { number: Some(errno), text }) }
}
