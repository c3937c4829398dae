//! From what a server asks for to an attempt.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::OwnedHandle;
use std::sync::Arc;

use super::conversation::{Authority, by_password};
use super::deadline::Clock;
use super::password::{self, Password};
use super::s4u;
use super::session::SessionHandle;
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::logon::{Lifetime, Logon, LogonType};
use crate::sys::impersonate::as_server;

/// Logs on: one attempt.
pub(crate) fn open(logon: Logon) -> Result<SessionHandle> {
    let target = Target::of(&logon.account)?;
    let invalid = |what: String| Error::new(target.doing(), ErrorKind::InvalidInput { what: what.into() });
    if logon.lifetime == Lifetime::Detached {
        let what = "Windows keeps no logon session for a later server: it ends with this one";
        return Err(invalid(what.to_owned()));
    }
    if let Some(name) = logon.environment.iter().find_map(unusable) {
        return Err(invalid(format!("{:?} is no variable", name.display().to_string())));
    }
    as_server(|| {
        let mut system =
            System { target: Arc::new(target), kind: logon.kind, clock: Clock::new(logon.deadline) };
        let token = if logon.authenticate {
            by_password(&mut system, logon.secret, logon.conversation)?
        } else {
            // Only here, where the server has said so: never for want of a password.
            system.call(s4u::log_on)?
        };
        system.target.session(&token, logon.environment)
    })
}

/// The name of a variable that no environment block can hold.
fn unusable((name, value): &(OsString, OsString)) -> Option<&OsString> {
    let bad = |unit: u16| unit == 0 || unit == u16::from(b'=');
    let wrong = name.is_empty() || name.encode_wide().any(bad) || value.encode_wide().any(|unit| unit == 0);
    wrong.then_some(name)
}

/// The system itself.
struct System {
    target: Arc<Target>,
    kind: LogonType,
    clock: Clock,
}

impl System {
    fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&Target, LogonType) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (target, kind) = (Arc::clone(&self.target), self.kind);
        self.clock.run(|| self.target.doing(), move || call(&target, kind))
    }
}

impl Authority for System {
    type Token = OwnedHandle;

    fn doing(&self) -> String {
        self.target.doing()
    }

    fn log_on(&mut self, password: &Password) -> Result<OwnedHandle> {
        let password = password.clone();
        self.call(move |target, kind| password::log_on(target, &password, kind))
    }

    fn change(&mut self, old: &Password, new: &Password) -> Result<()> {
        let (old, new) = (old.clone(), new.clone());
        self.call(move |target, _| password::change(target, &old, &new))
    }
}
