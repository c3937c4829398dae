//! From what a server asks for to what a session worker is told.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::log_on::{Answer, Question, Request, log_on};
use super::ready::ReadyWorkers;
use super::session::SessionHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::logon::{Lifetime, Logon, LogonType, Prompt, Secret};
use crate::os::linux::LogonGid;
use crate::privilege::Privilege;
use crate::sys::impersonate::as_server;

/// What only Linux logons have.
#[derive(Default)]
pub(crate) struct Native {
    pub(crate) service: Option<OsString>,
    pub(crate) tty: Option<OsString>,
    pub(crate) remote_host: Option<OsString>,
    pub(crate) remote_user: Option<OsString>,
    pub(crate) logon_gid: Option<LogonGid>,
    pub(crate) worker: Option<PathBuf>,
    pub(crate) ready: Option<ReadyWorkers>,
}

/// The PAM service of a logon type.
pub(crate) fn service(kind: LogonType) -> &'static str {
    match kind {
        LogonType::Interactive => "stead-interactive",
        LogonType::Network | LogonType::NetworkCleartext => "stead-network",
        LogonType::Batch => "stead-batch",
        LogonType::Service => "stead-service",
    }
}

/// The same, with a logon gid.
pub(crate) fn with_logon_sid(mut logon: Logon) -> Logon {
    logon.native.logon_gid.get_or_insert_default();
    logon
}

/// Logs on: one attempt.
pub(crate) fn open(logon: Logon) -> Result<SessionHandle> {
    let doing = || format!("logging on {}", logon.account);
    let invalid = |what: String| Error::new(doing(), ErrorKind::InvalidInput { what: what.into() });
    let string = |what: &str, value: &OsStr| {
        CString::new(value.as_bytes()).map_err(|_| invalid(format!("{what} contains a NUL byte")))
    };
    let optional =
        |what: &str, value: &Option<OsString>| value.as_deref().map(|value| string(what, value)).transpose();
    if logon.account.name().is_empty() {
        return Err(invalid("the account has no name".to_owned()));
    }
    if logon.secret.as_ref().is_some_and(|secret| secret.as_bytes().contains(&0)) {
        return Err(invalid("the secret contains a NUL byte".to_owned()));
    }
    let mut environment = Vec::with_capacity(logon.environment.len());
    for (name, value) in &logon.environment {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(invalid(format!("{:?} is no name of a variable", name.display().to_string())));
        }
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        environment.push(string("a variable", &variable)?);
    }
    let native = &logon.native;
    let service = native.service.clone().unwrap_or_else(|| service(logon.kind).into());
    let logon_gid = match &native.logon_gid {
        None => None,
        Some(wanted) => {
            let directory = wanted.directory.as_deref().map(|path| string("the directory", path.as_os_str()));
            Some((directory.transpose()?, *wanted.range.start(), *wanted.range.end()))
        }
    };
    let request = Request {
        user: string("the account's name", logon.account.name())?,
        exact_name: logon.account.is_local(),
        service: string("the PAM service", &service)?,
        authenticate: logon.authenticate,
        // As Windows has it (`LimitBlankPasswordUse`), and sshd(8).
        empty_password: logon.kind == LogonType::Interactive && logon.native.remote_host.is_none(),
        tty: optional("the terminal's name", &native.tty)?,
        remote_host: optional("the remote host", &native.remote_host)?,
        remote_user: optional("the remote user", &native.remote_user)?,
        environment,
        logon_gid,
        detached: logon.lifetime == Lifetime::Detached,
        deadline: logon.deadline,
        worker: native.worker.as_deref(),
        ready: native.ready.as_ref(),
        secret: None,
    };
    as_server(|| Privilege::AssignPrimaryToken.require_for(format!("logging on {}", logon.account)))?;
    let request = Request { secret: logon.secret.map(Secret::into_bytes), ..request };
    let mut conversation = logon.conversation;
    let mut answers;
    let answer: Option<Answer<'_>> = match &mut conversation {
        None => None,
        Some(conversation) => {
            answers = |question: Question<'_>| match question {
                Question::Prompt { text, echo } => {
                    conversation.answer(&Prompt { text, echo }).map(Secret::into_bytes)
                }
                Question::Inform { text, error } => {
                    conversation.inform(text, error);
                    None
                }
            };
            Some(&mut answers)
        }
    };
    log_on(request, answer)
}
