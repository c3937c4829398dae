//! Who is at the other end of a named pipe.
//!
//! Nothing rests on the process id that a pipe tells (GetNamedPipeClientProcessId): its client can set it.

mod capture;

pub use capture::Captured;
pub(crate) use capture::{Grant, capture, require_server_end};

use std::fmt::DebugStruct;
use std::os::windows::io::AsHandle;
use std::sync::Arc;

use windows_sys::Win32::Security::TokenImpersonation;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::thread_token::{USUAL, duplicate};
use crate::sys::token::SecurityContext;
use crate::token::{ConfinementKnowledge, Impersonation, ImpersonationLevel, Token};

/// What a client's connection is made from: the server's end of a named pipe, anybody's.
pub trait AsConnection {
    /// The client's token, as of the last message that was read, or as it was captured before.
    #[doc(hidden)]
    fn capture(&self) -> Result<Arc<Captured>>;
}

impl<T: AsHandle> AsConnection for T {
    fn capture(&self) -> Result<Arc<Captured>> {
        capture(self.as_handle()).map(Arc::new)
    }
}

/// A connection whose client was captured when its first message was read.
pub(crate) struct Connected(pub(crate) Arc<Captured>);

impl AsConnection for Connected {
    fn capture(&self) -> Result<Arc<Captured>> {
        Ok(Arc::clone(&self.0))
    }
}

/// What a server accepts of its client.
///
/// On Windows a token carries how its process is confined (restricting SIDs, integrity level, AppContainer), and a
/// process that is made from it is confined in the same way: there is nothing to refuse.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, clippy::struct_excessive_bools, reason = "what is asked of other platforms")]
pub(crate) struct Policy {
    pub(crate) unknown: bool,
    pub(crate) no_new_privs: bool,
    pub(crate) label: bool,
    pub(crate) bounding: bool,
}

/// The client at the other end of a pipe.
pub(crate) struct Peer(Arc<Captured>);

impl Peer {
    /// The client, and what it granted.
    #[expect(clippy::needless_pass_by_value, reason = "the same call on every platform")]
    pub(crate) fn of(connection: impl AsConnection, _unknown: bool) -> Result<(Self, ImpersonationLevel)> {
        let captured = connection.capture()?;
        let level = match &captured.0 {
            Grant::Anonymous => ImpersonationLevel::Anonymous,
            Grant::Token { level, .. } => *level,
        };
        Ok((Self(captured), level))
    }

    /// The token that was captured, at `level` or below.
    pub(crate) fn token(
        &self,
        level: ImpersonationLevel,
        _policy: Policy,
        doing: &'static str,
    ) -> Result<Token<Impersonation>> {
        let Grant::Token { token, level: granted, .. } = &self.0.0 else {
            let needed = ImpersonationLevel::Identification;
            let granted = ImpersonationLevel::Anonymous;
            return Err(Error::new(doing, ErrorKind::LevelTooLow { granted, needed }));
        };
        let level = level.min(*granted);
        let system = |source| Error::system(doing, "DuplicateTokenEx", source);
        let (context, _) = if level < *granted {
            let lower = duplicate(token.as_handle(), USUAL, level, TokenImpersonation).map_err(system)?;
            SecurityContext::of(lower.as_handle()).map_err(system)?
        } else {
            SecurityContext::of(token.as_handle()).map_err(system)?
        };
        Ok(Token::from_process(context, level, ConfinementKnowledge::Verified))
    }

    /// Who it is, for `Debug`.
    pub(crate) fn show(&self, shown: &mut DebugStruct<'_, '_>) {
        if let Grant::Token { identity, .. } = &self.0.0 {
            shown.field("user", &identity.user);
        }
    }
}
