//! What only Windows has of logons.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::sys::logon::{TerminalSession, of_session};
use crate::token::{ConfinementKnowledge, ImpersonationLevel, Primary, Token};

impl Token<Primary> {
    /// The token of whoever is logged on in an interactive session.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) where nobody is logged on there;
    /// [`PrivilegeMissing`](crate::ErrorKind::PrivilegeMissing) without SeTcbPrivilege, which only the system's own
    /// services hold; [`InvalidInput`](crate::ErrorKind::InvalidInput) where more than one session is meant.
    ///
    /// Reference: [WTSQueryUserToken](https://learn.microsoft.com/windows/win32/api/wtsapi32/nf-wtsapi32-wtsqueryusertoken).
    ///
    /// ```no_run
    /// # fn main() -> stead::Result<()> {
    /// use stead::Token;
    /// use stead::os::windows::TerminalSession;
    ///
    /// println!("{}", Token::of_session(&TerminalSession::Console)?);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "WTSQueryUserToken")]
    #[doc(alias = "WTSGetActiveConsoleSessionId")]
    pub fn of_session(session: &TerminalSession) -> Result<Self> {
        let context = of_session(session)?;
        Ok(Self::from_process(context, ImpersonationLevel::Impersonation, ConfinementKnowledge::Verified))
    }
}
