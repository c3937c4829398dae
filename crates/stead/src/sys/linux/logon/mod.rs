//! Logon sessions: the server's side of a session worker, and the worker itself.

mod session;

pub(crate) use session::SessionHandle;
