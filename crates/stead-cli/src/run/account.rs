//! As whom the program runs, and who makes it so: the service, or the command itself.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stead::{Account, ErrorKind, Logon, LogonSession, LogonType, Primary, Privilege, Service, Token};

use super::secret::{self, Asker};
use super::signals::Signals;
use crate::arguments::RunArguments;
use crate::ending::Failure;
use crate::output;

/// A token, and the logon session that it belongs to.
pub struct Identity {
    pub token: Token<Primary>,
    session: Option<LogonSession>,
    by_service: bool,
    /// Whether it is another user's.
    pub is_another: bool,
}

impl Identity {
    /// What the command line asks for; logs on where it must.
    pub fn of(
        arguments: &RunArguments,
        password: Option<secret::Source>,
        signals: &Signals,
    ) -> Result<Self, Failure> {
        let service = service_for(arguments)?;
        let Some(name) = &arguments.user else {
            let token = match &service {
                Some(service) => service.own_token(),
                None => Token::current(),
            };
            let token = token.map_err(super::not_started)?;
            return Ok(Self { token, session: None, by_service: service.is_some(), is_another: false });
        };
        if name.is_empty() {
            return Err(super::failed("--as names no user"));
        }
        let account = account(name);
        let needs_terminal = Arc::new(AtomicBool::new(false));
        let asker = Asker::new(signals, &needs_terminal);
        let logon = if arguments.s4u {
            Logon::s4u(account)
        } else if let Some(source) = password {
            Logon::password(account, source.read()?).conversation(asker)
        } else {
            Logon::with_conversation(account, asker)
        };
        let logon = logon.kind(arguments.logon.map_or(LogonType::Interactive, LogonType::from));
        // A desktop lets in the one logon session, which needs a name for that.
        let logon = match &arguments.desktop {
            Some(desktop) if desktop != "none" => logon.logon_sid(),
            _ => logon,
        };
        let session = match &service {
            Some(service) => logon.open_through(service),
            None => logon.open(),
        };
        let session = session.map_err(|error| {
            if needs_terminal.load(Ordering::Relaxed) {
                let asked = if arguments.password_fd.is_some() { "what else the logon asks" } else { "the password" };
                return super::failed(format_args!(
                    "{}: there is no terminal to ask {asked} on; the password alone can be given with --password-fd",
                    error.doing()
                ));
            }
            super::not_started(error)
        })?;
        Ok(Self {
            token: session.token().clone(),
            session: Some(session),
            by_service: service.is_some(),
            is_another: true,
        })
    }

    /// Ends the logon session and what still runs in it. The program's own status is what counts: what goes wrong
    /// here is only told.
    pub fn log_off(self) {
        let Self { token, session, by_service, .. } = self;
        drop(token);
        let Some(session) = session else { return };
        match session.log_off() {
            // The service closes a session with its last process, which may have been the program.
            Err(error) if !(by_service && matches!(error.kind(), ErrorKind::SessionEnded)) => {
                output::complain(&crate::ending::said(&error));
            }
            _ => {}
        }
    }
}

/// The service; none where the command is to do it by itself, or can and no service runs.
fn service_for(arguments: &RunArguments) -> Result<Option<Service>, Failure> {
    if arguments.embedded {
        return Ok(None);
    }
    let absent = match Service::connect() {
        Ok(service) => return Ok(Some(service)),
        Err(error) => error,
    };
    let nobody_there = absent.os_error().is_some_and(|source| {
        matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    });
    if !nobody_there {
        return Err(super::not_started(absent));
    }
    // As oneself nothing is needed that one has not.
    let missing = match arguments.user {
        None => None,
        Some(_) => Privilege::AssignPrimaryToken.require().err(),
    };
    match missing {
        None => {
            output::complain("no service is running; going on without it (--embedded says nothing)");
            Ok(None)
        }
        Some(_) => Err(super::failed(format_args!(
            "{}; start the service (systemctl start stead.socket), or run this as root",
            crate::ending::said(&absent)
        ))),
    }
}

/// `DOMAIN\NAME`, `NAME@REALM`, or a name of this machine.
pub fn account(name: &OsStr) -> Account {
    let bytes = name.as_bytes();
    if let Some(at) = bytes.iter().position(|byte| *byte == b'\\') {
        return Account::domain(OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
    }
    if bytes.contains(&b'@') { Account::upn(name) } else { Account::local(name) }
}
