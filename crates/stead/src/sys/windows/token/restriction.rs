//! What can be taken from a token.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null;

use windows_sys::Win32::Foundation::LUID;
use windows_sys::Win32::Security::{CreateRestrictedToken, LUID_AND_ATTRIBUTES, SID_AND_ATTRIBUTES};

use super::super::impersonate::thread::as_process;
use super::super::sid::Sid;
use super::super::thread_token::{Identity, process};
use super::{ACCESS, SecurityContext, TokenPrivilege};
use crate::error::{Error, ErrorKind, Result};

/// What a [`Restriction`](crate::token::Restriction) takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Taken {
    /// Groups that shall count for denying only.
    pub(crate) deny_only: Vec<Sid>,
    /// Privileges by name.
    pub(crate) privileges: Vec<String>,
    /// SIDs of which one too must be granted what the others are.
    pub(crate) restricting: Vec<Sid>,
    /// All privileges but SeChangeNotifyPrivilege.
    pub(crate) all_privileges: bool,
}

const DOING: &str = "restricting a token";

impl Taken {
    /// All privileges but the one to pass through directories, which everybody has.
    pub(crate) fn take_privileges(&mut self) {
        self.all_privileges = true;
    }

    /// Makes the restricted token.
    ///
    /// Reference: [CreateRestrictedToken](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-createrestrictedtoken).
    pub(crate) fn apply(&self, context: &SecurityContext) -> Result<SecurityContext> {
        let invalid = |what: String| Error::new(DOING, ErrorKind::InvalidInput { what: what.into() });
        // The call itself says nothing of what the token does not have.
        for sid in &self.deny_only {
            if *sid != context.user && !context.groups.iter().any(|group| group.sid == *sid) {
                return Err(invalid(format!("{sid} is not among the token's groups")));
            }
        }
        for name in &self.privileges {
            if !context.privileges.iter().any(|privilege| privilege.name.eq_ignore_ascii_case(name)) {
                return Err(invalid(format!("{name} is not among the token's privileges")));
            }
        }
        // One by one and not by DISABLE_MAX_PRIVILEGE, which Wine accepts and does not heed.
        let privileges = context.privileges.iter().filter(|privilege| self.takes(privilege));
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a LUID")]
        let privileges: Vec<LUID_AND_ATTRIBUTES> = privileges
            .map(|privilege| LUID_AND_ATTRIBUTES {
                Luid: LUID { LowPart: privilege.luid as u32, HighPart: (privilege.luid >> 32) as i32 },
                Attributes: 0,
            })
            .collect();
        let (deny_only, restricting) = (entries(&self.deny_only), entries(&self.restricting));
        let count = |length: usize| u32::try_from(length).map_err(|_| invalid("too many SIDs".to_owned()));
        let own = own_like(context);
        let from = own.as_ref().map_or_else(|| context.handle(), AsHandle::as_handle);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the handle is open; each list is as long as is said, and its pointers lead to SIDs that are
        // borrowed for longer than the call; `raw` is written only by it.
        let done = unsafe {
            CreateRestrictedToken(
                from.as_raw_handle(),
                0,
                count(deny_only.len())?,
                or_null(&deny_only),
                count(privileges.len())?,
                or_null(&privileges),
                count(restricting.len())?,
                or_null(&restricting),
                &raw mut raw,
            )
        };
        let system = |source| Error::system(DOING, "CreateRestrictedToken", source);
        if done == 0 {
            return Err(system(io::Error::last_os_error()));
        }
        // SAFETY: the call succeeded, so the handle is new and nobody else's.
        let restricted = unsafe { OwnedHandle::from_raw_handle(raw) };
        // The new handle has the rights of the old one.
        let made = SecurityContext::read(restricted).map_err(system)?;
        self.verify(&made)?;
        Ok(made)
    }

    /// Whether this privilege is one to take. The one to pass through directories stays, unless it is named.
    fn takes(&self, privilege: &TokenPrivilege) -> bool {
        let named = self.privileges.iter().any(|name| name.eq_ignore_ascii_case(&privilege.name));
        named || (self.all_privileges && privilege.name != "SeChangeNotifyPrivilege")
    }

    /// Reads back what was taken: a token that kept it would be a wider one.
    fn verify(&self, made: &SecurityContext) -> Result<()> {
        let kept_sid = made.groups.iter().find(|group| {
            self.deny_only.contains(&group.sid) && (group.is_enabled() || !group.is_deny_only())
        });
        let kept_privilege = made.privileges.iter().find(|privilege| self.takes(privilege));
        let what = match (kept_sid, kept_privilege) {
            (Some(group), _) => format!("the new token still has {}", group.sid),
            (None, Some(privilege)) => format!("the new token still has {}", privilege.name),
            (None, None) if !self.restricting.is_empty() && !made.restricted => {
                "the new token has no restricting SIDs".to_owned()
            }
            (None, None) => return Ok(()),
        };
        Err(Error::new(DOING, ErrorKind::ImpersonationChanged { what: what.into() }))
    }
}

/// The process's own token, where it says what `context` does. Whoever lacks SeAssignPrimaryTokenPrivilege gives a
/// process no other than a restricted one that was made of it, and a copy's would not be one
/// ([CreateProcessAsUserW](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-createprocessasuserw#remarks)).
fn own_like(context: &SecurityContext) -> Option<OwnedHandle> {
    if Identity::of(context.handle()).ok()?.level.is_some() {
        return None;
    }
    let own = || SecurityContext::read(process(ACCESS).ok()?).ok();
    let own = as_process(own).ok()?.filter(|own| own == context)?;
    own.handle().try_clone_to_owned().ok()
}

fn entries(sids: &[Sid]) -> Vec<SID_AND_ATTRIBUTES> {
    sids.iter()
        .map(|sid| SID_AND_ATTRIBUTES { Sid: sid.as_bytes().as_ptr().cast_mut().cast(), Attributes: 0 })
        .collect()
}

fn or_null<T>(list: &[T]) -> *const T {
    if list.is_empty() { null() } else { list.as_ptr() }
}
