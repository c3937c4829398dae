//! Whom access lists name on Linux.
#![forbid(unsafe_code)]

use std::fmt;

use crate::logon::SessionId;
use crate::sys::token::{Gid, Uid};
use crate::token::TokenData;

/// A logon session as access lists name it: by the gid that it alone has.
///
/// It is there where the logon asked for it ([`Logon::logon_sid`](crate::Logon::logon_sid)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "TokenLogonSid")]
pub struct LogonSid {
    pub(crate) session: SessionId,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl LogonSid {
    /// The session.
    pub fn session(self) -> SessionId {
        self.session
    }

    /// Its user.
    pub fn uid(self) -> Uid {
        self.uid
    }

    /// Its gid.
    pub fn gid(self) -> Gid {
        self.gid
    }
}

impl fmt::Display for LogonSid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (uid {}, logon gid {})", self.session, self.uid, self.gid)
    }
}

/// The logon session of a token, where it has a gid of its own and the token still has that.
pub(crate) fn logon_session(token: &TokenData) -> Option<LogonSid> {
    let session = token.session.as_ref()?;
    let gid = session.logon_gid().and_then(Gid::new)?;
    let context = &token.context;
    let session = SessionId(session.id());
    context.groups.contains(gid).then_some(LogonSid { session, uid: context.uid, gid })
}

/// The user of a token.
pub(crate) fn user(token: &TokenData) -> Uid {
    token.context.uid
}
